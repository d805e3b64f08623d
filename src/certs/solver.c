/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP-01 and TLS-ALPN-01 put their answer where the workers find it (tls/challenge.h,
 * tls/credential.h); a listener is opened only where no server of the configuration has the port
 * (challenge_listener.h). Both also write what certmagic writes to the storage, so that whichever
 * instance the authority comes to can answer: challenge_tokens/NAME.json.
 */
#include "certs/solver.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "config/jsonx.h"
#include "loop/await.h"
#include "pki/alpn_certificate.h"
#include "tls/challenge.h"
#include "tls/credential.h"

enum { PEM_MAX = 64 << 10, SHARED_MAX = 16 << 10 };

static const char logger[] = "tls.issuance.acme";

/* --- names --- */

static struct slice reverse_four(const unsigned char *ip, struct arena *a)
{
    return arena_printf(a, "%d.%d.%d.%d.in-addr.arpa", ip[3], ip[2], ip[1], ip[0]);
}

static struct slice reverse_six(const unsigned char *ip, struct arena *a)
{
    struct buffer b;
    buffer_init(&b, 128);
    for (int i = 15; i >= 0; i--)
        (void)buffer_append_f(&b, "%x.%x.", ip[i] & 15, ip[i] >> 4);
    (void)BUFFER_PUT(&b, "ip6.arpa");
    struct slice text = arena_copy(a, buffer_slice(&b));
    buffer_deinit(&b);
    return text;
}

struct slice solving_name(const struct acme_identifier *id, bool tls_alpn, struct arena *a)
{
    unsigned char ip[16];
    if (!tls_alpn || !slice_is(id->type, "ip"))
        return id->value;
    const char *text = arena_str(a, id->value);
    if (inet_pton(AF_INET, text, ip) == 1)
        return reverse_four(ip, a);
    return inet_pton(AF_INET6, text, ip) == 1 ? reverse_six(ip, a) : id->value;
}

/* --- the storage --- */

static struct slice shared_place(struct slice issuer_key, struct slice name, struct arena *a)
{
    return arena_join(a, (struct slice[]){SLICE("acme/"), storage_safe(a, issuer_key),
                                          SLICE("/challenge_tokens/"), storage_safe(a, name),
                                          SLICE(".json")}, 5);
}

static struct slice name_of(struct solving *s)
{
    return solving_name(&s->identifier, slice_is(s->challenge->type, "tls-alpn-01"), s->arena);
}

static enum err put_text(struct buffer *b, const char *before, struct slice value)
{
    TRY(buffer_append(b, slice_from(before)));
    return jsonx_put_string(b, value);
}

static enum err put_shared(struct buffer *b, const struct solving *s)
{
    const struct acme_challenge *c = s->challenge;
    TRY(put_text(b, "{\"type\":", c->type));
    TRY(put_text(b, ",\"url\":", c->url));
    TRY(put_text(b, ",\"status\":", c->status));
    TRY(put_text(b, ",\"token\":", c->token));
    TRY(put_text(b, ",\"keyAuthorization\":", s->key_authorization));
    TRY(put_text(b, ",\"identifier\":{\"type\":", s->identifier.type));
    TRY(put_text(b, ",\"value\":", s->identifier.value));
    return BUFFER_PUT(b, "}}");
}

static enum err share(struct solving *s)
{
    const struct solver_options *o = s->options;
    struct storage_why why = {""};
    struct buffer b;
    if (!o->distributed)
        return OK;
    buffer_init(&b, SHARED_MAX);
    enum err e = put_shared(&b, s);
    if (e == OK)
        e = o->storage->type->store(o->storage, shared_place(o->issuer_key, name_of(s), s->arena),
                                    buffer_slice(&b), &why);
    buffer_deinit(&b);
    s->shared = e == OK;
    if (e != OK)
        snprintf(s->why, sizeof s->why, "storing the challenge: %s", why.text);
    return e;
}

static void unshare(struct solving *s)
{
    const struct solver_options *o = s->options;
    struct storage_why why = {""};
    if (!s->shared)
        return;
    s->shared = false;
    if (o->storage->type->remove(o->storage, shared_place(o->issuer_key, name_of(s), s->arena), &why) !=
        OK)
        LOG(LOG_ERROR, logger, "cleaning up solver", LOG_STR("identifier", s->identifier.value),
            LOG_STR("challenge_type", s->challenge->type), LOG_CSTR("error", why.text));
}

enum err challenge_load(struct storage *storage, struct slice issuer_key, struct slice name,
                        struct slice token, struct arena *a, struct slice *key_authorization)
{
    struct storage_why why;
    struct slice json;
    struct diag *diag = ARENA_NEW(a, struct diag);
    TRY(storage->type->load(storage, shared_place(issuer_key, name, a), a, &json, &why));
    if (json.len > SHARED_MAX || jsonx_too_deep(json, 8))
        return ERR_INVALID;
    json_t *j = jsonx_load(SLICE(""), json, diag);
    struct slice has = slice_from(json_string_value(json_object_get(j, "token")));
    struct slice value = slice_from(json_string_value(json_object_get(j, "keyAuthorization")));
    enum err e = has.len == 0 || value.len == 0 ? ERR_INVALID :
                 slice_eq(has, token) ? OK : ERR_NOT_FOUND;
    if (e == OK)
        *key_authorization = arena_copy(a, value);
    json_decref(j);
    return e;
}

/* --- listeners --- */

static enum err open_listener(struct solving *s, enum challenge_kind kind, uint16_t port)
{
    const struct solver_options *o = s->options;
    s->user = (struct challenge_user){.kind = kind, .host = o->bind_host, .port = port,
                                      .storage = o->distributed ? o->storage : NULL,
                                      .issuer_key = o->issuer_key};
    return challenge_listener_open(&s->user, s->why, sizeof s->why);
}

/* --- HTTP-01 --- */

static bool http_enabled(const struct solver_options *o)
{
    return o->http && o->dns == NULL;
}

static enum err http_present(struct solving *s)
{
    TRY(share(s));
    challenge_http_set(s->challenge->token, s->key_authorization);
    return open_listener(s, CHALLENGE_HTTP, s->options->http_port);
}

static void http_cleanup(struct solving *s)
{
    challenge_listener_close(&s->user);
    challenge_http_remove(s->challenge->token);
    unshare(s);
}

static const struct solver http01 = {"http-01", http_enabled, http_present, NULL, http_cleanup};

/* --- TLS-ALPN-01 --- */

static bool alpn_enabled(const struct solver_options *o)
{
    return o->tls_alpn && o->dns == NULL;
}

struct making {
    struct solving *s;
    struct credential *made;
    enum err result;
};

static void make_credential(void *arg)
{
    struct making *m = arg;
    struct buffer chain, key;
    buffer_init(&chain, PEM_MAX);
    buffer_init(&key, PEM_MAX);
    m->result = alpn_certificate_make(m->s->identifier.value, m->s->key_authorization, &chain, &key);
    if (m->result == OK) {
        struct credential_spec spec = {.chain_pem = buffer_slice(&chain),
                                       .key_pem = buffer_slice(&key)};
        m->result = credential_create(&spec, &m->made, m->s->why, sizeof m->s->why);
    } else {
        snprintf(m->s->why, sizeof m->s->why, "the challenge's certificate could not be made");
    }
    if (key.ptr != NULL)
        explicit_bzero(key.ptr, key.cap);
    buffer_deinit(&chain);
    buffer_deinit(&key);
}

static enum err alpn_present(struct solving *s)
{
    struct making m = {s, NULL, OK};
    TRY(share(s));
    await_on_loop(make_credential, &m);
    if (m.result != OK)
        return m.result;
    credentials_challenge(name_of(s), m.made);
    return open_listener(s, CHALLENGE_TLS_ALPN, s->options->tls_alpn_port);
}

static void alpn_cleanup(struct solving *s)
{
    challenge_listener_close(&s->user);
    credentials_challenge(name_of(s), NULL);
    unshare(s);
}

static const struct solver tls_alpn01 = {"tls-alpn-01", alpn_enabled, alpn_present, NULL,
                                         alpn_cleanup};

/* --- the table --- */

const struct solver *const all_solvers[] = {&http01, &tls_alpn01, &solver_dns01, NULL};

const struct solver *solver_find(struct slice type)
{
    for (const struct solver *const *s = all_solvers; *s != NULL; s++)
        if (slice_is(type, (*s)->type))
            return *s;
    return NULL;
}
