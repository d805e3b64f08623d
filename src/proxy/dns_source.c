/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upstreams by DNS:
 *
 *     {"source": "a", "name": "app.internal", "port": "8080", "refresh": "10s",
 *      "versions": {"ipv4": true}, "resolver": {"addresses": ["10.0.0.53"]}}
 *     {"source": "srv", "service": "api", "proto": "tcp", "name": "internal", "grace_period": "5m"}
 *
 * Each worker remembers what a name gave (an entry) until `refresh` has passed. Who comes then asks
 * anew and waits; who comes meanwhile waits for the same answer. An error is remembered for a second,
 * so that a storm of requests is none of questions; within `grace_period` what was known before it
 * goes on. A set is shared by the requests that took it, and counted; its endpoints keep their
 * failures and requests from one answer to the next, since the next is there before the last goes.
 *
 * Names may hold placeholders: a worker remembers ENTRIES_MAX of them, and forgets those that were
 * asked for longest ago.
 */
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "loop/await.h"
#include "net/dns_targets.h"
#include "proxy/gateway.h"
#include "proxy/proxy.h"

#define ERROR_NS NS_PER_S /* how long an error is remembered, and an answer is not doubted */

enum { ENTRIES_MAX = 128 };

struct dns_source {
    bool is_srv;
    const char *logger;
    struct template name, port, service, proto;
    struct slice resolver; /* servers of its own, or empty */
    enum dns_kind kind;
    uint64_t refresh_ns, grace_ns;
    unsigned measuring;
    bool varies; /* a request may change what is asked for */
};

struct dns_set {
    unsigned refs; /* this thread's */
    uint32_t count;
    struct endpoint *endpoints[];
};

struct entry {
    struct list node;   /* least recently used first */
    struct list askers; /* who waits for the answer that somebody else asked for */
    struct dns_set *set; /* NULL: nothing was found yet */
    enum err error;      /* of the last question, unless the set stands in for it */
    const char *why;
    uint64_t until_ns, asked_ns;
    bool asking;
    struct slice key;
    uint64_t hash; /* of the key */
};

struct asker {
    struct list node;
    struct waiter waiter;
};

static _Thread_local struct {
    struct map entries;
    struct list used;
    bool ready;
} mine;

/* --- sets and entries --- */

static void give_set(struct dns_set *s)
{
    if (s == NULL || --s->refs > 0)
        return;
    for (uint32_t i = 0; i < s->count; i++) {
        endpoint_hide(s->endpoints[i]);
        endpoint_unref(s->endpoints[i]);
    }
    mem_free(s);
}

static void forget(struct entry *e)
{
    map_remove(&mine.entries, e->key);
    list_remove(&e->node);
    give_set(e->set);
    mem_free((void *)(uintptr_t)e->key.ptr);
    mem_free(e);
}

static void make_room(void)
{
    LIST_FOR_SAFE(node, &mine.used)
    {
        struct entry *e = CONTAINER_OF(node, struct entry, node);
        if (mine.entries.count < ENTRIES_MAX)
            return;
        if (!e->asking && list_empty(&e->askers))
            forget(e);
    }
}

static struct entry *entry_of(struct slice key, bool make)
{
    if (!mine.ready) {
        map_init(&mine.entries, false);
        list_init(&mine.used);
        mine.ready = true;
    }
    struct entry *e = map_get(&mine.entries, key);
    if (e == NULL && !make)
        return NULL;
    if (e == NULL) {
        make_room();
        e = NEW(struct entry);
        e->key = slice_of(slice_dup(key), key.len);
        e->hash = hash_bytes(key) | 1;
        list_init(&e->node);
        list_init(&e->askers);
        map_put(&mine.entries, e->key, e);
    }
    list_remove(&e->node);
    list_append(&mine.used, &e->node);
    return e;
}

void dns_sources_thread_deinit(void)
{
    if (!mine.ready)
        return;
    LIST_FOR_SAFE(node, &mine.used)
        forget(CONTAINER_OF(node, struct entry, node));
    map_deinit(&mine.entries);
    mine.ready = false;
}

/* --- what a request asks for --- */

static struct slice full_name(const struct dns_source *s, struct exchange *x)
{
    struct slice name = template_expand(&s->name, x);
    struct slice service = template_expand(&s->service, x);
    struct slice proto = template_expand(&s->proto, x);
    if (service.len == 0 && proto.len == 0)
        return name;
    return arena_join(x->arena, (struct slice[]){SLICE("_"), service, SLICE("._"), proto, SLICE("."),
                                                 name}, 6);
}

static struct slice key_of(const struct dns_source *s, struct exchange *x)
{
    static const struct slice kinds[] = {[DNS_ADDRESSES] = {"ip ", 3}, [DNS_FOUR] = {"4 ", 2},
                                         [DNS_SIX] = {"6 ", 2}, [DNS_SERVICES] = {"srv ", 4}};
    return arena_join(x->arena,
                      (struct slice[]){kinds[s->kind], full_name(s, x), SLICE("\n"),
                                       template_expand(&s->port, x), SLICE("\n"), s->resolver}, 6);
}

/* --- asking --- */

static void tell_found(const struct dns_source *s, const struct dns_target *t)
{
    if (!log_wants(LOG_DEBUG))
        return;
    if (s->is_srv)
        LOG(LOG_DEBUG, s->logger, "discovered SRV record", LOG_CSTR("target", t->host),
            LOG_NUM("port", t->port), LOG_NUM("priority", t->priority), LOG_NUM("weight", t->weight));
    else
        LOG(LOG_DEBUG, s->logger, "discovered A record", LOG_CSTR("ip", t->host));
}

static struct dns_set *make_set(const struct dns_source *s, struct slice port,
                                const struct dns_targets *found, struct arena *arena)
{
    struct dns_set *set = mem_zalloc(sizeof *set + found->count * sizeof set->endpoints[0]);
    set->refs = 1;
    for (size_t i = 0; i < found->count; i++) {
        const struct dns_target *t = &found->items[i];
        struct slice at = s->is_srv ? arena_printf(arena, "%u", t->port) : port;
        struct slice address = address_join(SLICE_NONE, slice_from(t->host), at, arena);
        tell_found(s, t);
        struct endpoint *e = endpoint_ref(address);
        if (e == NULL)
            continue;
        endpoint_show(e);
        endpoint_measure(e, s->measuring);
        set->endpoints[set->count++] = e;
    }
    return set;
}

/* What was known goes on for a while, where the source allows that. */
static void take_error(const struct dns_source *s, struct entry *e, enum err error, const char *why)
{
    uint64_t now = clock_mono_ns();
    e->error = error;
    e->why = why;
    e->until_ns = now + ERROR_NS;
    if (s->grace_ns == 0 || e->set == NULL)
        return;
    LOG(LOG_ERROR, s->logger, "SRV lookup failed; using previously cached", LOG_CSTR("error", why));
    e->error = OK;
    e->until_ns = now + s->grace_ns;
}

static void take_answer(const struct dns_source *s, struct entry *e, struct slice port,
                        const struct dns_targets *found, struct arena *arena)
{
    struct dns_set *old = e->set;
    if (found->dropped > 0)
        LOG(LOG_WARN, s->logger, "SRV records filtered", LOG_NUM("dropped", (int)found->dropped));
    e->set = make_set(s, port, found, arena);
    give_set(old);
    e->error = OK;
    e->until_ns = clock_mono_ns() + s->refresh_ns;
}

static enum err ask(const struct dns_source *s, struct exchange *x, struct entry *e)
{
    struct dns_targets found = {.why = "no resolver can be made"};
    struct slice name = full_name(s, x);
    struct resolver *r = resolver_of_list(s->resolver);
    LOG(LOG_DEBUG, s->logger, "refreshing upstreams", LOG_STR("name", name));
    enum err err = r != NULL ? resolver_await_targets(r, name, s->kind, 0, &found) : ERR_LIMIT;
    if (fiber_self()->cancelled != OK) {
        mem_free(found.items);
        return fiber_self()->cancelled;
    }
    e->asked_ns = clock_mono_ns();
    if (err == OK)
        take_answer(s, e, template_expand(&s->port, x), &found, x->arena);
    else
        take_error(s, e, err, found.why);
    mem_free(found.items);
    return OK;
}

static enum err await_other(struct entry *e)
{
    struct asker a;
    waiter_init(&a.waiter);
    list_append(&e->askers, &a.node);
    enum err err = await_wake(&a.waiter, 0);
    list_remove(&a.node);
    return err;
}

static bool is_due(const struct entry *e)
{
    return e == NULL || loop_now_ns(loop_self()) >= e->until_ns;
}

static bool unsettled(const void *cfg, struct exchange *x)
{
    return is_due(entry_of(key_of(cfg, x), false));
}

/* Whoever finds that nobody asks does so; if the client leaves meanwhile, one of the others does. */
static enum err settle(const void *cfg, struct exchange *x)
{
    struct slice key = key_of(cfg, x);
    for (;;) {
        struct entry *e = entry_of(key, true);
        if (clock_mono_ns() < e->until_ns)
            return OK;
        if (e->asking) {
            TRY(await_other(e));
            continue;
        }
        e->asking = true;
        enum err err = ask(cfg, x, e);
        e->asking = false;
        for (struct list *node; (node = list_pop(&e->askers)) != NULL;)
            waiter_wake(&CONTAINER_OF(node, struct asker, node)->waiter, OK);
        return err;
    }
}

/* The newest answer is not doubted. */
static void doubt(const void *cfg, struct exchange *x)
{
    const struct dns_source *s = cfg;
    struct entry *e = s->is_srv ? entry_of(key_of(s, x), false) : NULL;
    uint64_t now = clock_mono_ns();
    if (e != NULL && e->error == OK && now - e->asked_ns >= ERROR_NS)
        e->until_ns = now;
}

/* --- finding --- */

static bool varies(const void *cfg)
{
    return ((const struct dns_source *)cfg)->varies;
}

static void on_end(struct exchange *x, void *arg)
{
    (void)x;
    give_set(arg);
}

static enum err find(const void *cfg, struct exchange *x, struct found_upstreams *out,
                     const char **why)
{
    const struct entry *e = entry_of(key_of(cfg, x), false);
    if (e == NULL || e->error != OK || e->set == NULL) {
        *why = "no answer from the DNS servers";
        if (e != NULL && e->why != NULL)
            *why = arena_str(x->arena, arena_printf(x->arena, "lookup " SLICE_FMT ": %s",
                                                    SLICE_ARG(full_name(cfg, x)), e->why));
        return e == NULL || e->error == OK ? ERR_IO : e->error;
    }
    e->set->refs++;
    exchange_on_end(x, on_end, e->set);
    out->endpoints = e->set->endpoints;
    out->count = e->set->count;
    out->service = varies(cfg) ? e->hash : 0;
    return OK;
}

static const struct upstream_source dns_face = {
    .find = find, .unsettled = unsettled, .settle = settle, .doubt = doubt, .varies = varies,
    .errors_pass = true};

/* --- the configuration --- */

static bool is_of_request(const struct template *t, struct provision *p)
{
    return !t->constant &&
           slice_find(template_expand_known_now(t->text, p->arena), '{') != SIZE_MAX;
}

static enum err read_common(struct dns_source *s, const json_t *json, struct provision *p)
{
    int64_t ns;
    s->measuring = p->measuring;
    TRY(provision_template(p, json, "name", SLICE(""), &s->name));
    TRY(provision_duration(p, json, "refresh", 0, &ns));
    s->refresh_ns = ns > 0 ? (uint64_t)ns : ns == 0 ? 60 * NS_PER_S : 0;
    TRY(resolver_list_read(json_object_get(json, "resolver"), p, &s->resolver));
    /* Questions go by UDP: no connection to a server is waited for. */
    TRY(provision_duration(p, json, "dial_timeout", 0, &ns));
    return provision_duration(p, json, "dial_fallback_delay", 0, &ns);
}

/* Naming one version leaves the other out, unless that is named as well. */
static enum err read_versions(struct dns_source *s, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"ipv4", "ipv6", NULL};
    bool four, six;
    const json_t *versions = json_object_get(json, "versions");
    s->kind = DNS_ADDRESSES;
    if (versions == NULL || json_is_null(versions))
        return OK;
    TRY(provision_members(p, versions, members));
    TRY(provision_bool(p, versions, "ipv4", false, &four));
    TRY(provision_bool(p, versions, "ipv6", false, &six));
    if (four != six)
        s->kind = four ? DNS_FOUR : DNS_SIX;
    return OK;
}

static enum err provision_a(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"source", "name", "port", "refresh", "resolver",
                                          "dial_timeout", "dial_fallback_delay", "versions", NULL};
    struct dns_source *s = cfg;
    s->logger = "http.reverse_proxy.upstreams.a";
    TRY(provision_members(p, json, members));
    TRY(read_common(s, json, p));
    TRY(provision_template(p, json, "port", SLICE("80"), &s->port));
    if (s->port.constant && s->port.text.len == 0)
        template_compile(&s->port, SLICE("80"), p->arena);
    s->varies = is_of_request(&s->name, p) || is_of_request(&s->port, p);
    return read_versions(s, json, p);
}

static enum err provision_srv(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {
        "source", "service", "proto", "name", "refresh", "grace_period", "resolver", "dial_timeout",
        "dial_fallback_delay", "dial_network", NULL};
    struct dns_source *s = cfg;
    struct slice network;
    int64_t ns;
    s->is_srv = true;
    s->kind = DNS_SERVICES;
    s->logger = "http.reverse_proxy.upstreams.srv";
    TRY(provision_members(p, json, members));
    TRY(read_common(s, json, p));
    TRY(provision_template(p, json, "service", SLICE(""), &s->service));
    TRY(provision_template(p, json, "proto", SLICE(""), &s->proto));
    s->varies = is_of_request(&s->name, p) || is_of_request(&s->service, p) ||
                is_of_request(&s->proto, p);
    TRY(provision_duration(p, json, "grace_period", 0, &ns));
    s->grace_ns = ns > 0 ? (uint64_t)ns : 0;
    TRY(provision_text(p, json, "dial_network", SLICE(""), &network));
    if (network.len > 0 && !slice_is(network, "tcp"))
        return provision_fail(p, "\"dial_network\": \"" SLICE_FMT "\" is not supported; use \"tcp\"",
                              SLICE_ARG(network));
    return OK;
}

const struct module upstreams_a = {
    .id = "http.reverse_proxy.upstreams.a",
    .cfg_size = sizeof(struct dns_source),
    .provision = provision_a,
    .face = &dns_face,
};

const struct module upstreams_srv = {
    .id = "http.reverse_proxy.upstreams.srv",
    .cfg_size = sizeof(struct dns_source),
    .provision = provision_srv,
    .face = &dns_face,
};
