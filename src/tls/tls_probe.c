/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A context of its own for one handshake: everything is accepted, so that also a certificate that
 * is not trusted can be told about; whether it is trusted is read from the verification that goes on
 * beside. One deadline holds for all, so that a peer that sends a byte now and then does not keep us.
 */
#include "tls/tls_probe.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>

#include "base/clock.h"

enum { HEAD_MAX = 4096 };

/* Goes on whatever is wrong with a certificate; the first reason stays. */
static int on_verify(int good, X509_STORE_CTX *s)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(s, SSL_get_ex_data_X509_STORE_CTX_idx());
    long *first = SSL_get_app_data(ssl);
    if (!good && first != NULL && *first == X509_V_OK)
        *first = X509_STORE_CTX_get_error(s);
    return 1;
}

/* Whether a call that ended so is to be made again: its direction is ready, in time. */
static bool again(SSL *ssl, int result, uint64_t deadline_ns)
{
    int what = SSL_get_error(ssl, result);
    uint64_t now = clock_mono_ns();
    struct pollfd p = {SSL_get_fd(ssl), what == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, 0};
    if ((what != SSL_ERROR_WANT_READ && what != SSL_ERROR_WANT_WRITE) || now >= deadline_ns)
        return false;
    return poll(&p, 1, (int)((deadline_ns - now) / NS_PER_MS) + 1) > 0;
}

static struct slice ssl_reason(bool late, struct arena *arena)
{
    char text[256];
    unsigned long e = ERR_get_error();
    if (late)
        return SLICE("it was not finished in time");
    const char *reason = e != 0 ? ERR_reason_error_string(e) : NULL;
    snprintf(text, sizeof text, "%s", reason != NULL ? reason : "the connection was closed");
    ERR_clear_error();
    return arena_copy(arena, slice_from(text));
}

static struct slice leaf_pem(SSL *ssl, struct arena *arena)
{
    X509 *leaf = SSL_get1_peer_certificate(ssl);
    BIO *bio = leaf != NULL ? BIO_new(BIO_s_mem()) : NULL;
    struct slice pem = SLICE_NONE;
    char *bytes;
    if (bio != NULL && PEM_write_bio_X509(bio, leaf) == 1) {
        long n = BIO_get_mem_data(bio, &bytes);
        pem = arena_copy(arena, slice_of(bytes, n > 0 ? (size_t)n : 0));
    }
    BIO_free(bio);
    X509_free(leaf);
    return pem;
}

static bool is_named(SSL *ssl, const char *name)
{
    X509 *leaf = SSL_get1_peer_certificate(ssl);
    bool named = leaf != NULL && (X509_check_ip_asc(leaf, name, 0) == 1 ||
                                  X509_check_host(leaf, name, 0, 0, NULL) == 1);
    X509_free(leaf);
    return named;
}

static bool check_name(SSL *ssl, const char *name)
{
    X509_VERIFY_PARAM *p = SSL_get0_param(ssl);
    if (X509_VERIFY_PARAM_set1_ip_asc(p, name) == 1)
        return true;
    return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

static void ask(SSL *ssl, struct slice request, uint64_t deadline_ns, struct arena *arena,
                struct tls_probe *out)
{
    char *head = arena_alloc(arena, HEAD_MAX);
    size_t used = 0;
    int n;
    while ((n = SSL_write(ssl, request.ptr, (int)request.len)) <= 0) {
        if (!again(ssl, n, deadline_ns))
            return;
    }
    while (used < HEAD_MAX && clock_mono_ns() < deadline_ns) {
        n = SSL_read(ssl, head + used, (int)(HEAD_MAX - used));
        if (n <= 0 && again(ssl, n, deadline_ns))
            continue;
        if (n <= 0)
            break;
        used += (size_t)n;
        if (slice_find_slice(slice_of(head, used), SLICE("\r\n\r\n")) != SIZE_MAX)
            break;
    }
    ERR_clear_error();
    out->head = slice_of(head, used);
}

static enum err shake(SSL_CTX *ctx, int fd, struct slice name, struct slice request,
                      uint64_t deadline_ns, struct arena *arena, struct tls_probe *out)
{
    long first = X509_V_OK;
    int n = 0;
    SSL *ssl = SSL_new(ctx);
    if (ssl == NULL)
        return ERR_LIMIT;
    SSL_set_app_data(ssl, &first);
    SSL_set_verify(ssl, SSL_VERIFY_PEER, on_verify);
    bool good = check_name(ssl, arena_str(arena, name)) && SSL_set_fd(ssl, fd) == 1;
    while (good && (n = SSL_connect(ssl)) != 1 && again(ssl, n, deadline_ns))
        ;
    out->shaken = n == 1;
    if (out->shaken) {
        out->certificate = leaf_pem(ssl, arena);
        out->named = is_named(ssl, arena_str(arena, name));
        out->version = SSL_get_version(ssl);
        out->trusted = first == X509_V_OK;
        if (!out->trusted)
            out->why = slice_from(X509_verify_cert_error_string(first));
        ask(ssl, request, deadline_ns, arena, out);
    } else {
        out->why = ssl_reason(clock_mono_ns() >= deadline_ns, arena);
    }
    SSL_free(ssl);
    return OK;
}

enum err tls_probe(int fd, struct slice name, struct slice request, uint64_t deadline_ns,
                   struct arena *arena, struct tls_probe *out)
{
    *out = (struct tls_probe){.version = ""};
    ERR_clear_error();
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (ctx == NULL || SSL_CTX_set_default_verify_paths(ctx) != 1) {
        SSL_CTX_free(ctx);
        return ERR_LIMIT;
    }
    enum err e = shake(ctx, fd, name, request, deadline_ns, arena, out);
    SSL_CTX_free(ctx);
    return e;
}
