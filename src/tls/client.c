/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's side of TLS: a context per set of options, shared by all threads, and what belongs to
 * one connection (struct asked), which hangs on its SSL: the name that is checked, why that failed,
 * and the way back to the cache of sessions.
 *
 * Options that are the same have one client, for a context is some 13 KB, and many sites may have one
 * kind of upstream; its sessions live over reloads then. A client that nobody holds is gone at once.
 *
 * As in Go: TLS 1.2 at least, keys of RSA from 1024 bits on, whatever stands in the pool of
 * roots is trusted even if it is no root, the subject's common name counts for nothing.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "tls/client_sessions.h"
#include "tls/credential_store.h"
#include "tls/curves.h"
#include "tls/system_roots.h"
#include "tls/tls_stream.h"
#include "tls/trust.h"
#include "tls/verify_words.h"

enum { ALPN_MAX = 64 };

struct tls_client {
    atomic_uint refs;
    SSL_CTX *ctx;
    struct client_sessions sessions;
    char *server_name; /* or NULL */
    char *automate;    /* or NULL */
    char id[TLS_CLIENT_ID_LEN + 1];
    bool insecure;
};

/* Of one connection; freed with its SSL. */
struct asked {
    struct tls_client *client;
    char *name;      /* that is checked and under which sessions are kept */
    char why[256];   /* of a failed check */
    bool negotiated; /* once */
};

static int asked_index = -1;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of … */
static struct map clients;                               /* … those that are held, by their id */

static void on_ssl_freed(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int index, long n, void *arg)
{
    struct asked *a = ptr;
    if (a == NULL)
        return;
    tls_client_unref(a->client);
    mem_free(a->name);
    mem_free(a);
}

__attribute__((constructor)) static void make_index(void)
{
    asked_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, on_ssl_freed);
    if (asked_index < 0)
        fatal("out of memory");
}

static struct asked *asked_of(const SSL *ssl)
{
    return SSL_get_ex_data(ssl, asked_index);
}

/* The library's latest word, behind ours. */
static enum err fail(char *why, size_t cap, const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    snprintf(why, cap, "%s%s%s", what, reason != NULL ? ": " : "", reason != NULL ? reason : "");
    ERR_clear_error();
    return ERR_INVALID;
}

/* --- what the library tells --- */

static int on_verify(int good, X509_STORE_CTX *c)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(c, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct asked *a = asked_of(ssl);
    if (!good && a != NULL && a->why[0] == '\0')
        verify_words(c, a->name, a->why, sizeof a->why);
    return good;
}

static int on_session(SSL *ssl, SSL_SESSION *session)
{
    struct asked *a = asked_of(ssl);
    if (a == NULL || a->client->automate != NULL) /* it would go on with a certificate that was renewed */
        return 0;
    client_sessions_put(&a->client->sessions, slice_from(a->name), session);
    return 1;
}

static void on_info(const SSL *ssl, int where, int value)
{
    struct asked *a = asked_of(ssl);
    if (a == NULL || where != SSL_CB_HANDSHAKE_DONE)
        return;
    if (a->negotiated) /* again: that was the once */
        SSL_set_options((SSL *)(uintptr_t)ssl, SSL_OP_NO_RENEGOTIATION);
    a->negotiated = true;
}

/* --- the parts of a context --- */

static BIO *bio_of(struct slice s)
{
    BIO *bio = s.len <= INT32_MAX ? BIO_new_mem_buf(s.ptr, (int)s.len) : NULL;
    if (bio == NULL)
        fatal("out of memory");
    return bio;
}

static int no_password(char *buf, int size, int writing, void *arg)
{
    return -1;
}

/* How many were added. */
static size_t add_pem(X509_STORE *store, struct slice pem)
{
    BIO *bio = bio_of(pem);
    size_t count = 0;
    for (X509 *x; (x = PEM_read_bio_X509_AUX(bio, NULL, no_password, NULL)) != NULL; X509_free(x))
        count += X509_STORE_add_cert(store, x) == 1;
    ERR_clear_error();
    BIO_free(bio);
    return count;
}

static bool add_der(X509_STORE *store, struct slice der)
{
    const unsigned char *at = (const unsigned char *)der.ptr;
    X509 *x = d2i_X509(NULL, &at, (long)der.len);
    bool good = x != NULL && X509_STORE_add_cert(store, x) == 1;
    X509_free(x);
    return good;
}

static enum err set_roots(SSL_CTX *ctx, const struct tls_client_options *o, char *why, size_t cap)
{
    if (o->roots_count + o->roots_der_count == 0) {
        SSL_CTX_set1_cert_store(ctx, system_roots());
        return OK;
    }
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    for (size_t i = 0; i < o->roots_count; i++) {
        if (add_pem(store, o->roots_pem[i]) == 0)
            return fail(why, cap, "no certificate in the PEM text of a trusted authority");
    }
    for (size_t i = 0; i < o->roots_der_count; i++) {
        if (!add_der(store, o->roots_der[i]))
            return fail(why, cap, "malformed certificate of a trusted authority");
    }
    return OK;
}

static enum err use_chain(SSL_CTX *ctx, BIO *bio, char *why, size_t cap)
{
    X509 *x = PEM_read_bio_X509_AUX(bio, NULL, no_password, NULL);
    if (x == NULL)
        return fail(why, cap, "no client certificate in its PEM text");
    int good = SSL_CTX_use_certificate(ctx, x);
    X509_free(x);
    while (good == 1 && (x = PEM_read_bio_X509(bio, NULL, no_password, NULL)) != NULL) {
        good = SSL_CTX_add0_chain_cert(ctx, x);
        if (good != 1)
            X509_free(x);
    }
    if (good != 1)
        return fail(why, cap, "client certificate");
    ERR_clear_error();
    return OK;
}

static enum err use_key(SSL_CTX *ctx, BIO *bio, char *why, size_t cap)
{
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
    if (key == NULL)
        return fail(why, cap, "no private key of the client certificate in its PEM text");
    int good = SSL_CTX_use_PrivateKey(ctx, key);
    EVP_PKEY_free(key);
    if (good != 1 || SSL_CTX_check_private_key(ctx) != 1)
        return fail(why, cap, "client certificate and private key do not belong together");
    return OK;
}

/* The server asks for a certificate: the one that is published now. */
static int on_wanted(SSL *ssl, void *arg)
{
    static const struct tls_policy plain;
    const struct tls_client *c = arg;
    struct asked *a = asked_of(ssl);
    struct credential_query q = {.name = slice_from(c->automate), .policy = &plain,
                                 .now_s = clock_wall_ns() / (int64_t)NS_PER_S};
    bool by_default;
    struct credential *found = credential_find(&q, &by_default);
    if (found == NULL) {
        snprintf(a->why, sizeof a->why, "no client certificate found for automate name: %s",
                 c->automate);
        return 0;
    }
    const struct decoded *d = credential_decode(found, a->why, sizeof a->why);
    return d != NULL && SSL_use_cert_and_key(ssl, d->leaf, d->key, d->chain, 1) == 1;
}

static void automate(struct tls_client *c, struct slice name)
{
    if (name.len == 0)
        return;
    c->automate = slice_dup(name);
    SSL_CTX_set_cert_cb(c->ctx, on_wanted, c);
}

static enum err set_identity(SSL_CTX *ctx, const struct tls_client_options *o, char *why,
                             size_t cap)
{
    if (o->chain_pem.len == 0 && o->key_pem.len == 0)
        return OK;
    BIO *chain = bio_of(o->chain_pem), *key = bio_of(o->key_pem);
    enum err e = use_chain(ctx, chain, why, cap);
    if (e == OK)
        e = use_key(ctx, key, why, cap);
    BIO_free(chain);
    BIO_free(key);
    return e;
}

static enum err set_alpn(SSL_CTX *ctx, const char *const *names, char *why, size_t cap)
{
    unsigned char list[ALPN_MAX];
    unsigned len = 0;
    for (; names != NULL && *names != NULL; names++) {
        size_t n = strlen(*names);
        if (n == 0 || n > 255 || len + 1 + n > sizeof list)
            return fail(why, cap, "bad list of application protocols");
        list[len++] = (unsigned char)n;
        memcpy(list + len, *names, n);
        len += (unsigned)n;
    }
    return len == 0 || SSL_CTX_set_alpn_protos(ctx, list, len) == 0
               ? OK
               : fail(why, cap, "application protocols");
}

static enum err set_up(struct tls_client *c, const struct tls_client_options *o, char *why,
                       size_t cap)
{
    SSL_CTX *ctx = c->ctx;
    SSL_CTX_set_security_level(ctx, o->insecure ? 0 : 1);
    if (SSL_CTX_set_min_proto_version(ctx, o->min_version > 0 ? o->min_version : TLS1_2_VERSION) !=
            1 ||
        SSL_CTX_set_max_proto_version(ctx, o->max_version) != 1)
        return fail(why, cap, "versions of TLS");
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, on_session);
    if (!o->renegotiate_once && !o->renegotiate_freely)
        SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION);
    if (o->renegotiate_once)
        SSL_CTX_set_info_callback(ctx, on_info);
    if (!o->insecure) {
        X509_VERIFY_PARAM *param = SSL_CTX_get0_param(ctx);
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, on_verify);
        X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_TRUSTED_FIRST);
        X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS |
                                                   X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
        TRY(set_roots(ctx, o, why, cap));
    }
    TRY(curves_set(ctx, o->curves, o->curves_count, why, cap));
    TRY(set_alpn(ctx, o->alpn, why, cap));
    automate(c, o->automate);
    return set_identity(ctx, o, why, cap);
}

/* --- the identity of options --- */

static void digest(EVP_MD_CTX *d, struct slice s)
{
    uint64_t len = s.len;
    if (EVP_DigestUpdate(d, &len, sizeof len) != 1 || EVP_DigestUpdate(d, s.ptr, s.len) != 1)
        fatal("no SHA-256");
}

static void digest_all(EVP_MD_CTX *d, const struct slice *items, size_t count)
{
    digest(d, slice_of((const char *)&count, sizeof count));
    for (size_t i = 0; i < count; i++)
        digest(d, items[i]);
}

static void make_id(struct tls_client *c, const struct tls_client_options *o)
{
    unsigned char hash[32];
    const unsigned numbers[] = {o->min_version, o->max_version, o->insecure, o->renegotiate_once,
                                o->renegotiate_freely};
    EVP_MD_CTX *d = EVP_MD_CTX_new();
    if (d == NULL || EVP_DigestInit_ex(d, EVP_sha256(), NULL) != 1)
        fatal("no SHA-256");
    digest_all(d, o->roots_pem, o->roots_count);
    digest_all(d, o->roots_der, o->roots_der_count);
    digest_all(d, o->curves, o->curves_count);
    digest(d, o->chain_pem);
    digest(d, o->key_pem);
    digest(d, o->server_name);
    digest(d, o->automate);
    digest(d, slice_of((const char *)numbers, sizeof numbers));
    for (const char *const *name = o->alpn; name != NULL && *name != NULL; name++)
        digest(d, slice_from(*name));
    if (EVP_DigestFinal_ex(d, hash, NULL) != 1)
        fatal("no SHA-256");
    EVP_MD_CTX_free(d);
    for (size_t i = 0; i < TLS_CLIENT_ID_LEN / 2; i++)
        snprintf(c->id + 2 * i, 3, "%02x", hash[i]);
}

/* --- beginning and end --- */

static void free_client(struct tls_client *c)
{
    client_sessions_deinit(&c->sessions);
    SSL_CTX_free(c->ctx);
    mem_free(c->server_name);
    mem_free(c->automate);
    mem_free(c);
}

/* Another one with the same options, referred to once more, or NULL. */
static struct tls_client *held_already(const struct tls_client *c)
{
    pthread_mutex_lock(&lock);
    struct tls_client *other = map_get(&clients, tls_client_id(c));
    if (other != NULL)
        tls_client_ref(other);
    pthread_mutex_unlock(&lock);
    return other;
}

/* Of two threads that made the same one, each keeps its own: only one of them is found again. */
static struct tls_client *hold(struct tls_client *c)
{
    pthread_mutex_lock(&lock);
    if (map_get(&clients, tls_client_id(c)) == NULL)
        map_put(&clients, tls_client_id(c), c);
    pthread_mutex_unlock(&lock);
    return c;
}

enum err tls_client_create(const struct tls_client_options *o, struct tls_client **out, char *why,
                           size_t cap)
{
    struct tls_client *c = NEW(struct tls_client);
    ERR_clear_error();
    atomic_store(&c->refs, 1);
    client_sessions_init(&c->sessions);
    make_id(c, o);
    if ((*out = held_already(c)) != NULL) {
        free_client(c);
        return OK;
    }
    c->ctx = SSL_CTX_new(TLS_client_method());
    if (c->ctx == NULL)
        fatal("out of memory");
    c->insecure = o->insecure;
    if (o->server_name.len > 0)
        c->server_name = slice_dup(o->server_name);
    enum err e = set_up(c, o, why, cap);
    if (e == OK)
        *out = hold(c);
    else
        free_client(c);
    return e;
}

struct tls_client *tls_client_ref(struct tls_client *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

/* The last reference goes under the lock, so that none is found whose end has begun. */
static bool drop_reference(struct tls_client *c)
{
    unsigned n = atomic_load_explicit(&c->refs, memory_order_relaxed);
    while (n > 1) {
        if (atomic_compare_exchange_weak_explicit(&c->refs, &n, n - 1, memory_order_acq_rel,
                                                  memory_order_relaxed))
            return false;
    }
    pthread_mutex_lock(&lock);
    bool last = atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) == 1;
    if (last && map_get(&clients, tls_client_id(c)) == c)
        map_remove(&clients, tls_client_id(c));
    if (clients.count == 0)
        map_deinit(&clients);
    pthread_mutex_unlock(&lock);
    return last;
}

void tls_client_unref(struct tls_client *c)
{
    if (c != NULL && drop_reference(c))
        free_client(c);
}

static struct tls_client *of_process;

static void make_system(void)
{
    static const char *const alpn[] = {"http/1.1", NULL};
    char why[256];
    if (tls_client_create(&(struct tls_client_options){.alpn = alpn}, &of_process, why,
                          sizeof why) != OK)
        fatal(why);
}

struct tls_client *tls_client_system(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_system);
    return of_process;
}

struct slice tls_client_id(const struct tls_client *c)
{
    return slice_of(c->id, TLS_CLIENT_ID_LEN);
}

unsigned tls_client_sessions(struct tls_client *c)
{
    return client_sessions_count(&c->sessions);
}

/* --- a connection --- */

static bool is_address(const char *name)
{
    unsigned char bytes[16];
    return inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1;
}

/* As it is checked and sent: no dot at its end, no zone, no brackets. */
static char *plain_name(struct slice name)
{
    struct slice rest;
    if (name.len > 1 && name.ptr[0] == '[' && name.ptr[name.len - 1] == ']')
        name = slice_of(name.ptr + 1, name.len - 2);
    if (slice_find(name, ':') != SIZE_MAX)
        slice_cut(name, '%', &name, &rest);
    if (name.len > 1 && name.ptr[name.len - 1] == '.')
        name.len--;
    return slice_dup(name);
}

/* Sent and checked. False: no name that a certificate could be for. */
static bool name_peer(SSL *ssl, const struct tls_client *c, const char *name)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    if (is_address(name))
        return X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1 || c->insecure;
    if (*name != '\0' && SSL_set_tlsext_host_name(ssl, name) != 1 && !c->insecure)
        return false;
    if (c->insecure)
        return true;
    return *name != '\0' && X509_VERIFY_PARAM_set1_host(param, name, 0) == 1;
}

static void resume(SSL *ssl, struct tls_client *c, const char *name)
{
    SSL_SESSION *s = client_sessions_take(&c->sessions, slice_from(name));
    if (s == NULL)
        return;
    (void)SSL_set_session(ssl, s);
    SSL_SESSION_free(s);
}

enum err tls_client_begin(struct tls_client *c, struct slice name, struct tls_stream **out,
                          char *why, size_t cap)
{
    SSL *ssl = SSL_new(c->ctx);
    if (ssl == NULL)
        return fail(why, cap, "no TLS connection");
    struct asked *a = NEW(struct asked);
    a->client = tls_client_ref(c);
    a->name = c->server_name != NULL ? slice_dup(slice_from(c->server_name)) : plain_name(name);
    if (SSL_set_ex_data(ssl, asked_index, a) != 1)
        fatal("out of memory");
    if (strlen(a->name) > 255 || !name_peer(ssl, c, a->name)) {
        snprintf(why, cap, "\"%.255s\" is no name that a certificate could be for", a->name);
        SSL_free(ssl);
        ERR_clear_error();
        return ERR_INVALID;
    }
    resume(ssl, c, a->name);
    SSL_set_connect_state(ssl);
    *out = tls_stream_create(ssl);
    return OK;
}

void tls_client_why(const struct tls_stream *t, char *out, size_t cap)
{
    const struct asked *a = asked_of(tls_stream_ssl(t));
    if (a != NULL && a->why[0] != '\0') {
        snprintf(out, cap, "%s", a->why);
        return;
    }
    tls_stream_why(t, out, cap);
    if (slice_is(slice_from(out), "wrong version number")) /* what it is in nearly all cases */
        snprintf(out, cap, "the server does not speak TLS here");
}
