/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http.handlers.acme_server: an authority of the pki app for others, by ACME.
 *
 *   {"handler": "acme_server", "ca": "local", "lifetime": "12h", "host": "ca.example",
 *    "path_prefix": "/acme/", "sign_with_root": false, "resolvers": ["192.0.2.1:53"],
 *    "challenges": ["http-01", "dns-01", "tls-alpn-01"],
 *    "policy": {"allow": {"domains": ["*.internal"], "ip_ranges": ["10.0.0.0/8"]}, "deny": {…},
 *               "allow_wildcard_names": false}}
 *
 * Paths below the prefix are served: /acme/local/directory and what it names. The authority is the
 * control thread's (certs/ca_service.h): a request is carried there and its answer back, by mail.
 */
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "certs/ca_jws.h"
#include "certs/ca_service.h"
#include "certs/pki_app.h"
#include "handlers/handlers.h"
#include "http/route.h"
#include "loop/await.h"

enum { RESOLVERS_MAX = 16 };

static const char logger[] = "http.handlers.acme_server";

struct acme_server {
    struct ca_settings settings;
    struct slice host, prefix; /* "/acme/" */
    struct loop *control;      /* NULL: nothing runs, as in `validate` */
};

/* --- configuration --- */

static enum err read_challenges(struct provision *p, const json_t *json, unsigned *bits)
{
    static const struct {
        const char *name;
        unsigned bit;
    } known[] = {{"http-01", CA_HTTP_01}, {"dns-01", CA_DNS_01}, {"tls-alpn-01", CA_TLS_ALPN_01}};
    struct slice *names;
    size_t count;
    TRY(provision_texts(p, json, "challenges", &names, &count));
    *bits = count == 0 ? CA_HTTP_01 | CA_DNS_01 | CA_TLS_ALPN_01 : 0;
    for (size_t i = 0; i < count; i++) {
        unsigned bit = 0;
        for (size_t k = 0; k < 3; k++)
            if (slice_eq_nocase(slice_trim(names[i]), slice_from(known[k].name)))
                bit = known[k].bit;
        if (bit == 0)
            return provision_fail(p, "acme challenge \"" SLICE_FMT "\" is not supported",
                                  SLICE_ARG(names[i]));
        *bits |= bit;
    }
    return OK;
}

static enum err read_resolvers(struct provision *p, const json_t *json, struct ca_settings *s)
{
    TRY(provision_texts(p, json, "resolvers", &s->resolvers, &s->resolvers_count));
    if (s->resolvers_count == 0 && p->tls != NULL)
        TRY(provision_texts(p, p->tls, "resolvers", &s->resolvers, &s->resolvers_count));
    if (s->resolvers_count > RESOLVERS_MAX)
        return provision_fail(p, "\"resolvers\" are more than %d", RESOLVERS_MAX);
    for (size_t i = 0; i < s->resolvers_count; i++)
        if (slice_starts(s->resolvers[i], SLICE("udp/")))
            s->resolvers[i] = slice_skip(s->resolvers[i], 4);
    return OK;
}

static enum err read_authority(struct provision *p, struct ca_settings *s)
{
    struct authority *authority;
    TRY(pki_authority(p, s->id, &authority));
    const struct authority_options *o = authority_options(authority);
    if (o->intermediate.certificate.len == 0 && s->lifetime_ns >= o->intermediate_lifetime_ns)
        return provision_fail(p, "certificate lifetime (%llds) should be less than intermediate "
                              "certificate lifetime (%llds)",
                              (long long)(s->lifetime_ns / (int64_t)NS_PER_S),
                              (long long)(o->intermediate_lifetime_ns / (int64_t)NS_PER_S));
    return OK;
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"ca", "lifetime", "host", "path_prefix", "sign_with_root",
                                          "resolvers", "challenges", "policy", NULL};
    struct acme_server *c = cfg;
    struct ca_settings *s = &c->settings;
    TRY(provision_members(p, json, members));
    TRY(provision_text(p, json, "ca", SLICE(AUTHORITY_DEFAULT_ID), &s->id));
    TRY(provision_text(p, json, "host", SLICE(""), &c->host));
    TRY(provision_text(p, json, "path_prefix", SLICE("/acme/"), &c->prefix));
    TRY(provision_duration(p, json, "lifetime", AUTHORITY_LEAF_LIFETIME_NS, &s->lifetime_ns));
    TRY(provision_bool(p, json, "sign_with_root", false, &s->sign_with_root));
    if (s->id.len == 0)
        s->id = SLICE(AUTHORITY_DEFAULT_ID);
    if (s->lifetime_ns == 0)
        s->lifetime_ns = AUTHORITY_LEAF_LIFETIME_NS;
    if (s->lifetime_ns < 0)
        return provision_fail(p, "\"lifetime\" must be positive");
    if (c->prefix.len == 0 || c->prefix.ptr[0] != '/')
        return provision_fail(p, "\"path_prefix\" must begin with '/'");
    while (c->prefix.len > 1 && c->prefix.ptr[c->prefix.len - 1] == '/')
        c->prefix.len--;
    if (c->prefix.len == 1)
        c->prefix = SLICE("");
    TRY(read_challenges(p, json, &s->challenges));
    TRY(read_resolvers(p, json, s));
    TRY(ca_policy_provision(p, json_object_get(json, "policy"), &s->policy));
    if (!ca_policy_has_rules(&s->policy))
        LOG(LOG_WARN, logger, "acme_server policy has no allow/deny rules; order identifiers are "
            "unrestricted (allow-all)", LOG_STR("ca", s->id),
            LOG_BOOLEAN("allow_wildcard_names", s->policy.wildcards));
    s->storage = p->storage;
    c->control = loop_self();
    return read_authority(p, s);
}

/* --- to the control thread and back --- */

struct trip {
    struct mail mail;
    const struct ca_settings *settings;
    struct ca_request request;
    struct ca_answer answer;
    struct arena arena; /* the answer's, and all that is needed for it */
    struct loop *from;
    struct fiber *fiber;
    bool served;
};

static void on_back(struct mail *m)
{
    fiber_resume(CONTAINER_OF(m, struct trip, mail)->fiber);
}

static void serve_there(void *arg)
{
    struct trip *t = arg;
    ca_serve(t->settings, &t->request, &t->arena, &t->answer);
    t->served = true;
    t->mail.run = on_back;
    mailbox_post(t->from, &t->mail);
}

static void on_arrival(struct mail *m)
{
    struct trip *t = CONTAINER_OF(m, struct trip, mail);
    if (fiber_start(loop_self(), serve_there, t) == OK)
        return;
    t->mail.run = on_back;
    mailbox_post(t->from, &t->mail);
}

/* Not to be cut short: the trip stands on this fiber's stack. */
static void travel(struct trip *t, struct loop *control)
{
    t->from = loop_self();
    t->fiber = fiber_self();
    t->mail.run = on_arrival;
    mailbox_post(control, &t->mail);
    fiber_suspend();
}

/* --- requests --- */

static void put_field(struct exchange *x, const char *name, struct slice value)
{
    if (value.len > 0)
        fields_set(&x->res.fields, slice_from(name), arena_copy(x->arena, value));
}

static enum err answer(struct exchange *x, const struct ca_answer *a)
{
    put_field(x, "Replay-Nonce", a->nonce);
    put_field(x, "Location", a->location);
    fields_set(&x->res.fields, SLICE("Cache-Control"), SLICE("no-store"));
    fields_add(&x->res.fields, SLICE("Link"), arena_copy(x->arena, a->link));
    if (a->media != NULL)
        put_field(x, "Content-Type", slice_from(a->media));
    if (a->retry)
        put_field(x, "Retry-After", SLICE("1"));
    return exchange_answer(x, a->status, arena_copy(x->arena, a->body));
}

/* Behind the prefix and the authority's id: "/new-order". */
static bool resource_of(const struct acme_server *c, const struct exchange *x, struct slice *path)
{
    *path = x->req.uri.path;
    if (!slice_starts(*path, c->prefix))
        return false;
    *path = slice_skip(*path, c->prefix.len);
    if (path->len <= c->settings.id.len + 1 || path->ptr[0] != '/' ||
        !slice_starts(slice_skip(*path, 1), c->settings.id))
        return false;
    *path = slice_skip(*path, 1 + c->settings.id.len);
    return path->ptr[0] == '/';
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    const struct acme_server *c = cfg;
    struct trip t = {.settings = &c->settings};
    struct slice path, body = SLICE(""), type;
    bool below = slice_starts(x->req.uri.path, c->prefix) &&
                 (x->req.uri.path.len == c->prefix.len || x->req.uri.path.ptr[c->prefix.len] == '/');
    if (!below)
        return chain_next(x, next);
    if (!resource_of(c, x, &path))
        return exchange_fail(x, 404, "no such resource of the authority");
    if (x->req.has_body && (!exchange_whole_body(x, &body) || body.len > CA_BODY_MAX))
        return exchange_fail(x, 413, "the request is too long");
    (void)fields_get(&x->req.fields, SLICE("Content-Type"), &type);
    struct slice host = c->host.len > 0 ? c->host : x->req.host;
    t.request = (struct ca_request){
        .method = x->req.method, .path = path, .content_type = type, .body = body,
        .base = arena_join(x->arena, (struct slice[]){SLICE("https://"), host, c->prefix, SLICE("/"),
                                                      c->settings.id}, 5)};
    arena_init(&t.arena, 8192);
    travel(&t, c->control);
    enum err e = t.served ? answer(x, &t.answer) :
                            exchange_fail(x, 503, "too many requests to the authority at once");
    arena_deinit(&t.arena);
    return e;
}

const struct module handler_acme_server = {.id = "http.handlers.acme_server",
                                           .cfg_size = sizeof(struct acme_server),
                                           .provision = provision,
                                           .serve = serve};
