/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a policy's words to an SSL_CTX. Defaults are Caddy's: TLS 1.2 and 1.3, forward secrecy and AEAD
 * only, the hybrid group first where the library has it. AES-128 comes first in TLS 1.3, as in Go, and
 * ChaCha20 for clients that put it first, which have no instructions for AES.
 *
 * Nothing is renegotiated or compressed, no session is kept here (tickets: tls/tickets.c), and where
 * clients show certificates there are no tickets either: a session of one policy must not let a client
 * in by another.
 */
#include "tls/policy_context.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/buffer.h"
#include "base/check.h"
#include "base/mem.h"
#include "tls/curves.h"
#include "tls/system_roots.h"
#include "tls/tickets.h"

#define SESSION_S (7 * 24 * 3600) /* as in Go; tickets are opened for 48 hours at most */

static const char suites_1_3[] =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

/* IANA's names, the library's; Caddy's defaults are the first six, in this order. */
static const struct {
    const char *name, *library;
} suites[] = {
    {"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"},
    {"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384"},
    {"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"},
    {"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"},
    {"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"},
    {"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305"},
    {"TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "ECDHE-ECDSA-AES128-SHA"},
    {"TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", "ECDHE-ECDSA-AES256-SHA"},
    {"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "ECDHE-RSA-AES128-SHA"},
    {"TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", "ECDHE-RSA-AES256-SHA"},
};
enum { SUITES = sizeof suites / sizeof suites[0], SUITES_BY_DEFAULT = 6 };

/* --- a context's life --- */

static int context_index = -1;

static void on_ctx_freed(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int index, long n, void *arg)
{
    struct tls_context *c = ptr;
    if (c == NULL)
        return;
    (void)atomic_load_explicit(&c->left, memory_order_acquire);
    if (c->secrets_fd >= 0)
        close(c->secrets_fd);
    mem_free((void *)(uintptr_t)c->alpn.ptr);
    mem_free(c->leafs);
    mem_free(c);
}

__attribute__((constructor)) static void make_index(void)
{
    context_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, on_ctx_freed);
    if (context_index < 0)
        fatal("out of memory");
}

static struct tls_context *context_of(const SSL *ssl)
{
    return SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), context_index);
}

static void leave(struct tls_context *c)
{
    atomic_fetch_add_explicit(&c->left, 1, memory_order_release);
}

void policy_context_free(struct tls_context *c)
{
    if (c == NULL)
        return;
    SSL_CTX *ctx = c->ssl;
    leave(c);
    SSL_CTX_free(ctx);
}

void policy_context_leave(const struct ssl_st *ssl)
{
    struct tls_context *c = context_of(ssl);
    if (c != NULL)
        leave(c);
}

static enum err fail(char *why, size_t cap, const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    snprintf(why, cap, "%s%s%s", what, reason != NULL ? ": " : "", reason != NULL ? reason : "");
    ERR_clear_error();
    return ERR_INVALID;
}

/* --- versions, suites, groups --- */

static const char *library_suite(struct slice name)
{
    for (int i = 0; i < SUITES; i++) {
        if (slice_is(name, suites[i].name))
            return suites[i].library;
    }
    return NULL;
}

static enum err list_suites(const struct tls_policy *p, struct buffer *list, char *why, size_t cap)
{
    for (size_t i = 0; i < p->ciphers_count; i++) {
        const char *name = library_suite(p->ciphers[i]);
        if (name == NULL) {
            snprintf(why, cap, "unsupported cipher suite: " SLICE_FMT, SLICE_ARG(p->ciphers[i]));
            return ERR_INVALID;
        }
        TRY(buffer_append_f(list, "%s%s", i > 0 ? ":" : "", name));
    }
    for (int i = 0; p->ciphers_count == 0 && i < SUITES_BY_DEFAULT; i++)
        TRY(buffer_append_f(list, "%s%s", i > 0 ? ":" : "", suites[i].library));
    return buffer_append_byte(list, '\0');
}

static enum err set_suites(SSL_CTX *ctx, const struct tls_policy *p, char *why, size_t cap)
{
    struct buffer list;
    buffer_init(&list, 4096);
    enum err e = list_suites(p, &list, why, cap);
    if (e == OK && (SSL_CTX_set_cipher_list(ctx, list.ptr) != 1 ||
                    SSL_CTX_set_ciphersuites(ctx, suites_1_3) != 1))
        e = fail(why, cap, "the library refuses the cipher suites");
    buffer_deinit(&list);
    return e;
}

static enum err set_curves(SSL_CTX *ctx, const struct tls_policy *p, char *why, size_t cap)
{
    static const struct slice defaults[] = {{"x25519mlkem768", 14}, {"x25519", 6},
                                            {"secp256r1", 9}};
    if (p->curves_count > 0)
        return curves_set(ctx, p->curves, p->curves_count, why, cap);
    return curves_set(ctx, defaults, sizeof defaults / sizeof defaults[0], why, cap);
}

static void set_options(SSL_CTX *ctx, const struct tls_server *server, const struct tls_policy *p)
{
    SSL_CTX_set_min_proto_version(ctx, p->min_version > 0 ? p->min_version : TLS1_2_VERSION);
    SSL_CTX_set_max_proto_version(ctx, p->max_version);
    SSL_CTX_clear_options(ctx, SSL_OP_LEGACY_SERVER_CONNECT);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_security_level(ctx, 1);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_timeout(ctx, SESSION_S);
    SSL_CTX_set_max_early_data(ctx, 0);
    if (server->no_tickets || p->client_auth != TLS_CLIENT_NONE) {
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
        SSL_CTX_set_num_tickets(ctx, 0);
    } else {
        SSL_CTX_set_num_tickets(ctx, 1);
        tickets_use(ctx);
    }
}

/* --- ALPN --- */

static void put_name(struct buffer *out, struct slice name)
{
    (void)!buffer_append_byte(out, (char)name.len);
    (void)!buffer_append(out, name);
}

static void list_alpn(const struct tls_server *server, const struct tls_policy *p,
                      struct buffer *out)
{
    for (size_t i = 0; i < p->alpn_count; i++) {
        struct slice name = p->alpn[i];
        if (name.len > 0 && name.len < 256 && (server->h2 || !slice_is(name, "h2")))
            put_name(out, name);
    }
    if (p->alpn_count == 0 && server->h2)
        put_name(out, SLICE("h2"));
    if (p->alpn_count == 0 && server->h1)
        put_name(out, SLICE("http/1.1"));
}

/* The first of ours that the client has. Without any in common the handshake ends, but a client that
 * speaks HTTP/1.1 and a server that names only h2 go on without, as in Go. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                   const unsigned char *theirs, unsigned theirs_len, void *arg)
{
    const struct tls_context *c = context_of(ssl);
    static const unsigned char challenge[] = "\x0a" "acme-tls/1";
    unsigned char *found;
    if (theirs_len == sizeof challenge - 1 && memcmp(theirs, challenge, theirs_len) == 0) {
        *out = challenge + 1;
        *out_len = challenge[0];
        return SSL_TLSEXT_ERR_OK;
    }
    if (c->alpn.len == 0)
        return SSL_TLSEXT_ERR_NOACK;
    if (SSL_select_next_proto(&found, out_len, (const unsigned char *)c->alpn.ptr,
                              (unsigned)c->alpn.len, theirs, theirs_len) == OPENSSL_NPN_NEGOTIATED) {
        *out = found;
        return SSL_TLSEXT_ERR_OK;
    }
    if (slice_eq(c->alpn, SLICE("\x02h2")) &&
        SSL_select_next_proto(&found, out_len, (const unsigned char *)"\x08http/1.1", 9, theirs,
                              theirs_len) == OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void set_alpn(SSL_CTX *ctx, struct tls_context *c, const struct tls_server *server,
                     const struct tls_policy *p)
{
    struct buffer list;
    buffer_init(&list, 65535);
    list_alpn(server, p, &list);
    c->alpn = slice_of(list.len > 0 ? slice_dup(buffer_slice(&list)) : NULL, list.len);
    buffer_deinit(&list);
    SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
}

/* --- clients' certificates --- */

static bool is_let_in(const struct tls_context *c, const X509 *leaf)
{
    uint8_t digest[32];
    unsigned len;
    if (c->leafs_count == 0)
        return true;
    if (leaf == NULL || X509_digest(leaf, EVP_sha256(), digest, &len) != 1)
        return false;
    for (size_t i = 0; i < c->leafs_count; i++) {
        if (memcmp(c->leafs[i], digest, sizeof digest) == 0)
            return true;
    }
    return false;
}

static int on_client_chain(X509_STORE_CTX *s, void *arg)
{
    const struct tls_context *c = arg;
    if (c->verifies && X509_verify_cert(s) != 1)
        return 0;
    if (!is_let_in(c, X509_STORE_CTX_get0_cert(s))) {
        X509_STORE_CTX_set_error(s, X509_V_ERR_CERT_REJECTED);
        return 0;
    }
    if (!c->verifies)
        X509_STORE_CTX_set_error(s, X509_V_OK);
    return 1;
}

static enum err add_authority(SSL_CTX *ctx, struct slice der, char *why, size_t cap)
{
    const unsigned char *at = (const unsigned char *)der.ptr;
    X509 *x = d2i_X509(NULL, &at, (long)der.len);
    if (x == NULL)
        return fail(why, cap, "a certificate of the clients' authorities is damaged");
    bool added = X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), x) == 1 &&
                 SSL_CTX_add_client_CA(ctx, x) == 1;
    X509_free(x);
    return added ? OK : fail(why, cap, "a certificate of the clients' authorities is refused");
}

static enum err add_authorities(SSL_CTX *ctx, const struct tls_policy *p, char *why, size_t cap)
{
    if (p->client_cas_count == 0) { /* as in Go: whom the system trusts */
        SSL_CTX_set1_cert_store(ctx, system_roots());
        return OK;
    }
    X509_STORE_set_flags(SSL_CTX_get_cert_store(ctx), X509_V_FLAG_PARTIAL_CHAIN);
    for (size_t i = 0; i < p->client_cas_count; i++)
        TRY(add_authority(ctx, p->client_cas[i], why, cap));
    return OK;
}

static void keep_leafs(struct tls_context *c, const struct tls_policy *p)
{
    c->leafs_count = p->client_leafs_count;
    c->leafs = mem_zalloc((c->leafs_count + 1) * sizeof c->leafs[0]);
    for (size_t i = 0; i < c->leafs_count; i++) /* an empty one is nobody's */
        EVP_Digest(p->client_leafs[i].ptr, p->client_leafs[i].len, c->leafs[i], NULL, EVP_sha256(),
                   NULL);
}

static enum err set_clients(SSL_CTX *ctx, struct tls_context *c, const struct tls_policy *p,
                            char *why, size_t cap)
{
    bool must = p->client_auth == TLS_CLIENT_REQUIRE ||
                p->client_auth == TLS_CLIENT_REQUIRE_AND_VERIFY || p->client_leafs_count > 0;
    if (p->client_auth == TLS_CLIENT_NONE)
        return OK;
    c->verifies = p->client_auth == TLS_CLIENT_VERIFY_IF_GIVEN ||
                  p->client_auth == TLS_CLIENT_REQUIRE_AND_VERIFY;
    keep_leafs(c, p);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | (must ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
    SSL_CTX_set_cert_verify_callback(ctx, on_client_chain, c);
    return c->verifies ? add_authorities(ctx, p, why, cap) : OK;
}

/* --- secrets --- */

/* One line of the NSS key log format. */
static void on_secret(const SSL *ssl, const char *line)
{
    const struct tls_context *c = context_of(ssl);
    char text[512];
    int n = snprintf(text, sizeof text, "%s\n", line);
    if (n > 0 && (size_t)n < sizeof text)
        (void)!write(c->secrets_fd, text, (size_t)n);
    OPENSSL_cleanse(text, sizeof text);
}

static enum err set_secrets_log(SSL_CTX *ctx, struct tls_context *c, struct slice path, char *why,
                                size_t cap)
{
    if (path.len == 0)
        return OK;
    char *name = slice_dup(path);
    c->secrets_fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (c->secrets_fd < 0)
        snprintf(why, cap, "insecure_secrets_log: %s: %s", name, strerror(errno));
    mem_free(name);
    SSL_CTX_set_keylog_callback(ctx, on_secret);
    return c->secrets_fd >= 0 ? OK : ERR_IO;
}

/* --- all of it --- */

static int on_status(SSL *ssl, void *arg)
{
    unsigned char *staple;
    return SSL_get_tlsext_status_ocsp_resp(ssl, &staple) > 0 ? SSL_TLSEXT_ERR_OK
                                                             : SSL_TLSEXT_ERR_NOACK;
}

static enum err fill(SSL_CTX *ctx, struct tls_context *c, const struct tls_server *server,
                     const struct tls_policy *p, char *why, size_t cap)
{
    set_options(ctx, server, p);
    TRY(set_suites(ctx, p, why, cap));
    TRY(set_curves(ctx, p, why, cap));
    set_alpn(ctx, c, server, p);
    TRY(set_clients(ctx, c, p, why, cap));
    SSL_CTX_set_tlsext_status_cb(ctx, on_status);
    if (SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"portico", 7) != 1)
        return fail(why, cap, "the library refuses the session's context");
    return set_secrets_log(ctx, c, p->secrets_log, why, cap);
}

enum err policy_context_create(const struct tls_server *server, const struct tls_policy *p,
                               struct tls_context **out, char *why, size_t cap)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    struct tls_context *c = NEW(struct tls_context);
    if (ctx == NULL || SSL_CTX_set_ex_data(ctx, context_index, c) != 1)
        fatal("out of memory");
    c->ssl = ctx;
    c->secrets_fd = -1;
    enum err e = fill(ctx, c, server, p, why, cap);
    ERR_clear_error();
    if (e != OK)
        SSL_CTX_free(ctx);
    *out = e == OK ? c : NULL;
    return e;
}
