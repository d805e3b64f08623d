/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server's policies share library contexts: those that differ only in whom they match and which
 * certificate they choose have one, so that ten thousand sites with certificates of their own need
 * one. An SSL is made when policy and credential are known, and its certificate is let go of when the
 * handshake is over: an idle connection must not keep the decoded key of a site in memory.
 */
#include "tls/tls_server.h"

#include <arpa/inet.h>
#include <stdio.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "tls/credential_store.h"
#include "tls/policy_context.h"
#include "tls/policy_index.h"
#include "tls/tickets.h"

enum {
    ALERT_INTERNAL_ERROR = 80,
    KEY_MAX = 64 << 20,
    RSA_BITS_QUICK = 2048, /* 0.3 ms where 4096 take 4 (docs/decisions/0015) */
};

/* --- contexts --- */

static void put_list(struct buffer *key, const struct slice *list, size_t count)
{
    (void)!buffer_append_f(key, "%zu:", count);
    for (size_t i = 0; i < count; i++) {
        (void)!buffer_append_f(key, "%zu:", list[i].len);
        (void)!buffer_append(key, list[i]);
    }
}

/* All that makes two contexts different. */
static struct slice key_of(const struct tls_policy *p, struct arena *arena)
{
    struct buffer key;
    buffer_init(&key, KEY_MAX);
    (void)!buffer_append_f(&key, "%u,%u,%d;", p->min_version, p->max_version, (int)p->client_auth);
    put_list(&key, p->ciphers, p->ciphers_count);
    put_list(&key, p->curves, p->curves_count);
    put_list(&key, p->alpn, p->alpn_count);
    put_list(&key, p->client_cas, p->client_cas_count);
    put_list(&key, p->client_leafs, p->client_leafs_count);
    put_list(&key, &p->secrets_log, 1);
    struct slice copy = arena_copy(arena, buffer_slice(&key));
    buffer_deinit(&key);
    return copy;
}

static enum err finish_policy(struct tls_server *s, struct tls_policy *p, struct map *made,
                              struct arena *arena, char *why, size_t cap)
{
    struct slice key = key_of(p, arena);
    p->context = map_get(made, key);
    if (p->context != NULL) {
        SSL_CTX_up_ref(p->context->ssl);
        return OK;
    }
    TRY(policy_context_create(s, p, &p->context, why, cap));
    map_put(made, key, p->context);
    return OK;
}

enum err tls_server_finish(struct tls_server *s, char *why, size_t cap)
{
    struct map made;
    struct arena arena;
    enum err e = OK;
    map_init(&made, false);
    arena_init(&arena, 4096);
    for (size_t i = 0; i < s->count && e == OK; i++)
        e = s->policies[i].drop ? OK : finish_policy(s, &s->policies[i], &made, &arena, why, cap);
    map_deinit(&made);
    arena_deinit(&arena);
    if (e == OK)
        s->index = policy_index_create(s->policies, s->count);
    else
        tls_server_release(s);
    return e;
}

void tls_server_release(struct tls_server *s)
{
    for (size_t i = 0; i < s->count; i++) {
        policy_context_free(s->policies[i].context);
        s->policies[i].context = NULL;
    }
    policy_index_free(s->index);
    s->index = NULL;
}

void tls_server_thread_deinit(void)
{
    credential_thread_deinit();
    tickets_thread_deinit();
}

/* --- choosing --- */

/* As Caddy's certmagic names an address: no zone, and IPv4 as such. */
static void put_address(const struct sockaddr_storage *a, char *out, size_t cap)
{
    const struct sockaddr_in *four = (const void *)a;
    const struct sockaddr_in6 *six = (const void *)a;
    out[0] = '\0';
    if (a == NULL)
        return;
    if (a->ss_family == AF_INET)
        inet_ntop(AF_INET, &four->sin_addr, out, (socklen_t)cap);
    else if (a->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
        inet_ntop(AF_INET, six->sin6_addr.s6_addr + 12, out, (socklen_t)cap);
    else if (a->ss_family == AF_INET6)
        inet_ntop(AF_INET6, &six->sin6_addr, out, (socklen_t)cap);
}

static enum tls_accept refuse(struct tls_accepting *a, const char *why)
{
    if (why != NULL)
        snprintf(a->why, sizeof a->why, "%s", why);
    a->alert = ALERT_INTERNAL_ERROR;
    return TLS_REFUSED;
}

static void put_numbers(struct slice list, char *out, size_t cap)
{
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i + 1 < list.len && at + 6 < cap; i += 2)
        at += (size_t)snprintf(out + at, cap - at, "%s%02x%02x", i > 0 ? "," : "",
                               (unsigned char)list.ptr[i], (unsigned char)list.ptr[i + 1]);
}

/* Without a name, the default one is asked for; else the address. */
static void fill_ask(struct tls_accepting *a, const struct tls_policy *p, struct slice name,
                     const char *local)
{
    struct credential_ask *ask = a->ask;
    if (name.len == 0)
        name = p->default_sni.len > 0 ? p->default_sni : slice_from(local);
    memset(ask->name, 0, sizeof ask->name);
    for (size_t i = 0; i < name.len && i + 1 < sizeof ask->name; i++)
        ask->name[i] = ascii_lower(name.ptr[i]);
    put_address(a->remote, ask->remote, sizeof ask->remote);
    snprintf(ask->local, sizeof ask->local, "%s", local);
    put_numbers(a->hello->ciphers, ask->ciphers, sizeof ask->ciphers);
    put_numbers(a->hello->schemes, ask->schemes, sizeof ask->schemes);
    ask->result = OK;
    ask->given = NULL;
}

/* --- the SSL --- */

static bool set_staple(SSL *ssl, struct slice staple)
{
    unsigned char *copy = OPENSSL_memdup(staple.ptr, staple.len);
    return copy != NULL && SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)staple.len) == 1;
}

static enum tls_accept make_stream(struct tls_accepting *a, const struct tls_policy *p,
                                   struct credential *c)
{
    const struct decoded *d = credential_decode(c, a->why, sizeof a->why);
    if (d == NULL) {
        LOG(LOG_ERROR, "tls", "a certificate cannot be used",
            LOG_LIST("names", c->body->facts.names, c->body->facts.names_count),
            LOG_CSTR("error", a->why));
        return refuse(a, NULL);
    }
    ERR_clear_error();
    SSL *ssl = SSL_new(p->context->ssl);
    if (ssl == NULL || SSL_use_cert_and_key(ssl, d->leaf, d->key, d->chain, 1) != 1 ||
        (c->staple.len > 0 && !set_staple(ssl, c->staple))) {
        const char *reason = ERR_reason_error_string(ERR_peek_last_error());
        if (ssl != NULL)
            policy_context_leave(ssl);
        SSL_free(ssl);
        ERR_clear_error();
        return refuse(a, reason != NULL ? reason : "the library refuses the certificate");
    }
    a->slow_key = EVP_PKEY_get_base_id(d->key) == EVP_PKEY_RSA &&
                  EVP_PKEY_get_bits(d->key) > RSA_BITS_QUICK;
    SSL_set_accept_state(ssl);
    a->stream = tls_stream_create(ssl);
    tls_stream_set_name(a->stream, a->hello->server_name);
    return TLS_ACCEPTED;
}

static enum tls_accept refuse_unknown(struct tls_accepting *a, struct slice name, const char *local)
{
    snprintf(a->why, sizeof a->why, "no certificate available for '" SLICE_FMT "'",
             SLICE_ARG(name.len > 0 ? name : slice_from(local)));
    return refuse(a, NULL);
}

static enum tls_accept accept_challenge(struct tls_accepting *a, const struct tls_policy *p,
                                        struct slice name)
{
    struct credential *c = credential_challenge_find(name);
    if (c == NULL)
        return refuse(a, "a challenge that this server has not asked for");
    LOG(LOG_INFO, "tls", "served key authentication certificate", LOG_STR("server_name", name),
        LOG_CSTR("challenge", "tls-alpn-01"));
    enum tls_accept r = make_stream(a, p, c);
    credential_unref(c);
    return r;
}

static enum tls_accept accept_given(struct tls_accepting *a, const struct tls_policy *p)
{
    enum tls_accept r = make_stream(a, p, a->given);
    credential_unref(a->given);
    a->given = NULL;
    return r;
}

static enum tls_accept accept_by(struct tls_accepting *a, const struct tls_policy *p,
                                 struct slice name, const char *local)
{
    struct credential_query q = {name, slice_from(local), p, a->hello, a->now_s};
    bool by_default;
    if (name.len > 0 && hello_alpn_only(a->hello, SLICE("acme-tls/1")))
        return accept_challenge(a, p, name);
    if (a->given != NULL)
        return accept_given(a, p);
    struct credential *c = credential_find(&q, &by_default);
    if ((c == NULL || by_default) && !a->asked && a->ask != NULL && credential_ask_hook != NULL) {
        fill_ask(a, p, name, local);
        return TLS_ASK;
    }
    return c != NULL ? make_stream(a, p, c) : refuse_unknown(a, name, local);
}

enum tls_accept tls_accept(struct tls_accepting *a)
{
    char lower[HELLO_NAME_MAX + 1], local[INET6_ADDRSTRLEN];
    struct slice sent = a->hello->server_name;
    for (size_t i = 0; i < sent.len; i++)
        lower[i] = ascii_lower(sent.ptr[i]);
    struct slice name = slice_of(lower, sent.len);
    struct tls_hello h = {name, a->hello->alpn, a->remote, a->local};
    const struct tls_policy *p = policy_index_find(a->server->index, &h);
    put_address(a->local, local, sizeof local);
    if (p == NULL)
        return refuse(a, "no connection policy matches the ClientHello");
    return p->drop ? TLS_DROPPED : accept_by(a, p, name, local);
}
