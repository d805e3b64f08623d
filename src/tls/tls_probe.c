/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A context of its own for one handshake: everything is accepted, so that also a certificate that
 * is not trusted can be told about; whether it is trusted is read from the verification that goes on
 * beside.
 */
#include "tls/tls_probe.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

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

static struct slice ssl_reason(struct arena *arena)
{
    char text[256];
    unsigned long e = ERR_get_error();
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

static bool check_name(SSL *ssl, const char *name)
{
    X509_VERIFY_PARAM *p = SSL_get0_param(ssl);
    if (X509_VERIFY_PARAM_set1_ip_asc(p, name) == 1)
        return true;
    return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

static void ask(SSL *ssl, struct slice request, struct arena *arena, struct tls_probe *out)
{
    char *head = arena_alloc(arena, HEAD_MAX);
    size_t used = 0;
    if (SSL_write(ssl, request.ptr, (int)request.len) <= 0)
        return;
    while (used < HEAD_MAX) {
        int n = SSL_read(ssl, head + used, (int)(HEAD_MAX - used));
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
                      struct arena *arena, struct tls_probe *out)
{
    long first = X509_V_OK;
    SSL *ssl = SSL_new(ctx);
    if (ssl == NULL)
        return ERR_LIMIT;
    SSL_set_app_data(ssl, &first);
    SSL_set_verify(ssl, SSL_VERIFY_PEER, on_verify);
    bool good = check_name(ssl, arena_str(arena, name)) && SSL_set_fd(ssl, fd) == 1;
    out->shaken = good && SSL_connect(ssl) == 1;
    if (out->shaken) {
        out->certificate = leaf_pem(ssl, arena);
        out->version = SSL_get_version(ssl);
        out->trusted = first == X509_V_OK;
        if (!out->trusted)
            out->why = slice_from(X509_verify_cert_error_string(first));
        ask(ssl, request, arena, out);
    } else {
        out->why = ssl_reason(arena);
    }
    SSL_free(ssl);
    return OK;
}

enum err tls_probe(int fd, struct slice name, struct slice request, struct arena *arena,
                   struct tls_probe *out)
{
    *out = (struct tls_probe){.version = ""};
    ERR_clear_error();
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (ctx == NULL || SSL_CTX_set_default_verify_paths(ctx) != 1) {
        SSL_CTX_free(ctx);
        return ERR_LIMIT;
    }
    enum err e = shake(ctx, fd, name, request, arena, out);
    SSL_CTX_free(ctx);
    return e;
}
