/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Selection policies: which upstream a request goes to. What they have in common is upstream/
 * balance.h; here stands what each of them reads from its JSON and from the request.
 *
 *     {"policy": "random_choose", "choose": 2}   {"policy": "weighted_round_robin", "weights": [3, 1]}
 *     {"policy": "header", "field": "X-Id", "fallback": {"policy": "first"}}
 *     {"policy": "cookie", "name": "lb", "secret": "…", "max_age": "1h"}
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "http/client_ip.h"
#include "http/uri.h"
#include "proxy/gateway.h"
#include "proxy/proxy.h"

static const char *const no_members[] = {"policy", NULL};

static enum err provision_plain(void *cfg, const json_t *json, struct provision *p)
{
    (void)cfg;
    return provision_members(p, json, no_members);
}

#define POLICY(variable, name, type, read, choose)                                                 \
    FACED_POLICY(variable, name, type, read, (.select = choose))

#define PREPARED_POLICY(variable, name, type, read, choose, make)                                  \
    FACED_POLICY(variable, name, type, read, (.select = choose, .prepare = make))

#define UNWRAP(...) __VA_ARGS__
#define FACED_POLICY(variable, name, type, read, members)                                          \
    static const struct selection_policy face_##variable = {UNWRAP members};                       \
    const struct module policy_##variable = {                                                      \
        .id = "http.reverse_proxy.selection_policies." name,                                       \
        .cfg_size = sizeof(type),                                                                  \
        .provision = read,                                                                         \
        .face = &face_##variable,                                                                  \
    }

/* --- without a look at the request --- */

static const struct upstream *select_random(const void *cfg, struct exchange *x,
                                            struct upstream_set set, uint64_t now_ns)
{
    (void)cfg;
    (void)x;
    return balance_random(set, now_ns);
}

static const struct upstream *select_first(const void *cfg, struct exchange *x,
                                           struct upstream_set set, uint64_t now_ns)
{
    (void)cfg;
    (void)x;
    return balance_first(set, now_ns);
}

static const struct upstream *select_least(const void *cfg, struct exchange *x,
                                           struct upstream_set set, uint64_t now_ns)
{
    (void)cfg;
    (void)x;
    return balance_least(set, now_ns);
}

/* The one thing of a generation that is written: whose turn it is, for all workers. */
static const struct upstream *select_in_turn(const void *cfg, struct exchange *x,
                                             struct upstream_set set, uint64_t now_ns)
{
    (void)x;
    return balance_round_robin(set, (atomic_uint *)(uintptr_t)cfg, now_ns);
}

POLICY(random, "random", char, provision_plain, select_random);
POLICY(first, "first", char, provision_plain, select_first);
POLICY(least_conn, "least_conn", char, provision_plain, select_least);
POLICY(round_robin, "round_robin", atomic_uint, provision_plain, select_in_turn);

struct random_choose {
    int64_t choose;
};

static enum err provision_choose(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"policy", "choose", NULL};
    struct random_choose *c = cfg;
    TRY(provision_members(p, json, members));
    TRY(provision_int(p, json, "choose", 0, 0, UINT32_MAX, &c->choose));
    if (c->choose == 0)
        c->choose = 2;
    return c->choose < 2 ? provision_fail(p, "choose must be at least 2") : OK;
}

static const struct upstream *select_choose(const void *cfg, struct exchange *x,
                                            struct upstream_set set, uint64_t now_ns)
{
    const struct random_choose *c = cfg;
    (void)x;
    return balance_choose(set, (uint32_t)c->choose, now_ns);
}

POLICY(random_choose, "random_choose", struct random_choose, provision_choose, select_choose);

/* Ours: {"policy": "p2c_ewma", "decay": "10s"} */
struct p2c {
    uint64_t decay_ns;
};

static enum err provision_p2c(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"policy", "decay", NULL};
    struct p2c *c = cfg;
    int64_t ns;
    TRY(provision_members(p, json, members));
    TRY(provision_duration(p, json, "decay", 0, &ns));
    if (ns < 0 || (ns > 0 && ns < (int64_t)NS_PER_MS))
        return provision_fail(p, "\"decay\" must be a millisecond at least");
    c->decay_ns = ns > 0 ? (uint64_t)ns : 10 * NS_PER_S;
    return OK;
}

static const struct upstream *select_p2c(const void *cfg, struct exchange *x,
                                         struct upstream_set set, uint64_t now_ns)
{
    (void)x;
    return balance_p2c(set, ((const struct p2c *)cfg)->decay_ns, now_ns);
}

static void note_p2c(const void *cfg, struct endpoint *e, uint64_t latency_ns, bool failed,
                     uint64_t now_ns)
{
    ewma_note(&e->ewma, latency_ns, failed, ((const struct p2c *)cfg)->decay_ns, now_ns);
}

FACED_POLICY(p2c_ewma, "p2c_ewma", struct p2c, provision_p2c,
             (.select = select_p2c, .note = note_p2c));

struct weighted {
    atomic_uint turn;
    uint64_t *sums;
    size_t count;
};

static enum err provision_weighted(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"policy", "weights", NULL};
    struct weighted *w = cfg;
    const json_t *list = json_object_get(json, "weights");
    uint64_t total = 0;
    TRY(provision_members(p, json, members));
    w->count = json_array_size(list);
    w->sums = ARENA_ARRAY(p->arena, uint64_t, w->count);
    for (size_t i = 0; i < w->count; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
            return provision_fail(p, "weight of an upstream cannot be negative");
        total += (uint64_t)json_integer_value(v);
        w->sums[i] = total;
    }
    if (total == 0)
        return provision_fail(p, "weighted_round_robin requires at least one upstream with a "
                                 "positive weight");
    return OK;
}

static const struct upstream *select_weighted(const void *cfg, struct exchange *x,
                                              struct upstream_set set, uint64_t now_ns)
{
    struct weighted *w = (struct weighted *)(uintptr_t)cfg;
    (void)x;
    if (set.count > w->count) /* upstreams without a weight get nothing */
        set.count = (uint32_t)w->count;
    return balance_weighted(set, w->sums, &w->turn, now_ns);
}

static void prepare_weighted(void *cfg, struct upstream_set set, struct provision *p)
{
    const struct weighted *w = cfg;
    if (set.count > w->count)
        LOG(LOG_WARN, "http.handlers.reverse_proxy",
            "weighted_round_robin has fewer weights than there are upstreams: those behind the last "
            "weight get no requests",
            LOG_STR("at", p->path), LOG_NUM("weights", (int64_t)w->count),
            LOG_NUM("upstreams", set.count));
}

FACED_POLICY(weighted_round_robin, "weighted_round_robin", struct weighted, provision_weighted,
             (.select = select_weighted, .prepare = prepare_weighted, .whole = true));

/* --- by something of the request --- */

struct hashing {
    struct hash_ring *ring; /* of many upstreams that stay; NULL: none */
    const struct upstream *items; /* those */
};

static void free_ring(void *arg)
{
    hash_ring_free(arg);
}

static void make_ring(struct hashing *h, struct upstream_set set, struct provision *p)
{
    if (set.count <= BALANCE_MANY)
        return;
    h->ring = hash_ring_create(set);
    h->items = set.items;
    provision_on_release(p, free_ring, h->ring);
}

static void prepare_ring(void *cfg, struct upstream_set set, struct provision *p)
{
    make_ring(cfg, set, p);
}

static const struct upstream *by_hash(const struct hashing *h, struct upstream_set set,
                                      struct slice key, uint64_t now_ns)
{
    return h->ring != NULL && h->items == set.items ? balance_ring(h->ring, key, now_ns)
                                                    : balance_hash(set, key, now_ns);
}

static const struct upstream *select_by_peer(const void *cfg, struct exchange *x,
                                             struct upstream_set set, uint64_t now_ns)
{
    exchange_addresses(x);
    return by_hash(cfg, set, x->remote_host, now_ns);
}

static const struct upstream *select_by_client(const void *cfg, struct exchange *x,
                                               struct upstream_set set, uint64_t now_ns)
{
    exchange_addresses(x);
    return by_hash(cfg, set, x->client_ip, now_ns);
}

static const struct upstream *select_by_uri(const void *cfg, struct exchange *x,
                                            struct upstream_set set, uint64_t now_ns)
{
    return by_hash(cfg, set, x->req.target, now_ns);
}

PREPARED_POLICY(ip_hash, "ip_hash", struct hashing, provision_plain, select_by_peer, prepare_ring);
PREPARED_POLICY(client_ip_hash, "client_ip_hash", struct hashing, provision_plain, select_by_client,
                prepare_ring);
PREPARED_POLICY(uri_hash, "uri_hash", struct hashing, provision_plain, select_by_uri, prepare_ring);

#define NAMED_POLICY(variable, name, read, choose, make)                                            \
    FACED_POLICY(variable, name, struct by_name, read,                                             \
                 (.select = choose, .prepare = make, .note = note_named))

/* --- by a named value, with another policy where it is missing --- */

struct by_name {
    struct hashing hashing; /* query, header */
    struct slice name;
    const struct selection_policy *fallback;
    void *fallback_cfg;
    struct map cookies; /* cookie: value → upstream, of upstreams that stay */
    const struct upstream *items;
    struct slice secret; /* cookie */
    int64_t max_age_ns;
};

static enum err read_fallback(struct by_name *b, const json_t *json, struct provision *p)
{
    const struct module *m;
    void *cfg;
    const json_t *fallback = json_object_get(json, "fallback");
    b->fallback = &face_random;
    if (fallback == NULL || json_is_null(fallback))
        return OK;
    const char *name = json_string_value(json_object_get(fallback, "policy"));
    if (name == NULL)
        return provision_fail(p, "\"fallback\" must name its \"policy\"");
    TRY(provision_module(p, "http.reverse_proxy.selection_policies", name, fallback, &m, &cfg));
    b->fallback = m->face;
    b->fallback_cfg = cfg;
    return OK;
}

static void prepare_named(void *cfg, struct upstream_set set, struct provision *p)
{
    struct by_name *b = cfg;
    make_ring(&b->hashing, set, p);
    if (b->fallback->prepare != NULL)
        b->fallback->prepare(b->fallback_cfg, set, p);
}

static const struct upstream *select_fallback(const struct by_name *b, struct exchange *x,
                                              struct upstream_set set, uint64_t now_ns)
{
    return b->fallback->select(b->fallback_cfg, x, set, now_ns);
}

static void note_named(const void *cfg, struct endpoint *e, uint64_t latency_ns, bool failed,
                       uint64_t now_ns)
{
    const struct by_name *b = cfg;
    if (b->fallback->note != NULL)
        b->fallback->note(b->fallback_cfg, e, latency_ns, failed, now_ns);
}

static enum err provision_query(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"policy", "key", "fallback", NULL};
    struct by_name *b = cfg;
    TRY(provision_members(p, json, members));
    TRY(provision_text(p, json, "key", SLICE(""), &b->name));
    if (b->name.len == 0)
        return provision_fail(p, "query key is required");
    return read_fallback(b, json, p);
}

static const struct upstream *select_by_query(const void *cfg, struct exchange *x,
                                              struct upstream_set set, uint64_t now_ns)
{
    const struct by_name *b = cfg;
    struct slice all = x->req.uri.query, key, raw, one, joined = SLICE_NONE;
    while (query_next(&all, &key, &raw)) {
        if (query_decode(key, x->arena, &one) != OK || !slice_eq(one, b->name) ||
            query_decode(raw, x->arena, &one) != OK)
            continue;
        joined = joined.len == 0 ? one
                                 : arena_join(x->arena,
                                              (struct slice[]){joined, SLICE(","), one}, 3);
    }
    return joined.len > 0 ? by_hash(&b->hashing, set, joined, now_ns) : select_fallback(b, x, set, now_ns);
}

static enum err provision_header(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"policy", "field", "fallback", NULL};
    struct by_name *b = cfg;
    TRY(provision_members(p, json, members));
    TRY(provision_text(p, json, "field", SLICE(""), &b->name));
    if (b->name.len == 0)
        return provision_fail(p, "header field is required");
    return read_fallback(b, json, p);
}

static const struct upstream *select_by_header(const void *cfg, struct exchange *x,
                                               struct upstream_set set, uint64_t now_ns)
{
    const struct by_name *b = cfg;
    struct slice value;
    fields_get(&x->req.fields, b->name, &value);
    if (slice_eq_nocase(b->name, SLICE("Host")) && x->req.host.len > 0)
        value = x->req.host; /* which may stand elsewhere, or have been rewritten */
    return value.len > 0 ? by_hash(&b->hashing, set, value, now_ns) : select_fallback(b, x, set, now_ns);
}

NAMED_POLICY(query, "query", provision_query, select_by_query, prepare_named);
NAMED_POLICY(header, "header", provision_header, select_by_header, prepare_named);

/* --- a cookie that names the upstream --- */

enum { COOKIE_LEN = 64 }; /* HMAC-SHA256 in hexadecimal: tells nobody where the upstream is */

static enum err provision_cookie(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"policy", "name", "secret", "max_age", "fallback", NULL};
    struct by_name *b = cfg;
    TRY(provision_members(p, json, members));
    TRY(provision_text(p, json, "name", SLICE("lb"), &b->name));
    TRY(provision_text(p, json, "secret", SLICE(""), &b->secret));
    TRY(provision_duration(p, json, "max_age", 0, &b->max_age_ns));
    if (b->name.len == 0)
        b->name = SLICE("lb");
    return read_fallback(b, json, p);
}

static bool cookie_value(const struct by_name *b, const struct upstream *u, char out[COOKIE_LEN])
{
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    struct slice name = u->endpoint->name;
    if (HMAC(EVP_sha256(), b->secret.ptr != NULL ? b->secret.ptr : "", (int)b->secret.len,
             (const unsigned char *)name.ptr, name.len, mac, &len) == NULL || len != COOKIE_LEN / 2)
        return false;
    for (unsigned i = 0; i < len; i++) {
        out[i * 2] = "0123456789abcdef"[mac[i] >> 4];
        out[i * 2 + 1] = "0123456789abcdef"[mac[i] & 15];
    }
    return true;
}

static void free_cookies(void *arg)
{
    map_deinit(arg);
}

/* Each value once, instead of at each request. */
static void prepare_cookies(void *cfg, struct upstream_set set, struct provision *p)
{
    char mac[COOKIE_LEN];
    struct by_name *b = cfg;
    map_init(&b->cookies, false);
    provision_on_release(p, free_cookies, &b->cookies);
    b->items = set.items;
    for (uint32_t i = set.count; i-- > 0;) /* of equal names the first stays */
        if (cookie_value(b, &set.items[i], mac))
            map_put(&b->cookies, arena_copy(p->arena, slice_of(mac, COOKIE_LEN)),
                    (void *)(uintptr_t)&set.items[i]);
    if (b->fallback->prepare != NULL)
        b->fallback->prepare(b->fallback_cfg, set, p);
}

static const struct upstream *named_by(const struct by_name *b, struct slice value,
                                       struct upstream_set set, uint64_t now_ns)
{
    char mac[COOKIE_LEN];
    if (b->items != NULL && b->items == set.items) {
        const struct upstream *u = map_get(&b->cookies, value);
        return u != NULL && upstream_available(u, now_ns) ? u : NULL;
    }
    for (uint32_t i = 0; i < set.count; i++) {
        if (upstream_available(&set.items[i], now_ns) && cookie_value(b, &set.items[i], mac) &&
            CRYPTO_memcmp(mac, value.ptr, COOKIE_LEN) == 0)
            return &set.items[i];
    }
    return NULL;
}

static void set_cookie(const struct by_name *b, struct exchange *x, const struct upstream *u)
{
    char mac[COOKIE_LEN];
    struct slice proto;
    if (!cookie_value(b, u, mac))
        return;
    exchange_addresses(x);
    bool secure = slice_is(x->req.scheme, "https") ||
                  (x->client_is_proxy &&
                   fields_get(&x->req.fields, SLICE("X-Forwarded-Proto"), &proto) &&
                   slice_is(proto, "https"));
    struct slice age = b->max_age_ns >= (int64_t)NS_PER_S
                           ? arena_printf(x->arena, "; Max-Age=%lld",
                                          (long long)(b->max_age_ns / (int64_t)NS_PER_S))
                           : SLICE("");
    fields_add(&x->res.fields, SLICE("Set-Cookie"),
               arena_printf(x->arena, SLICE_FMT "=%.*s; Path=/" SLICE_FMT "; HttpOnly%s",
                            SLICE_ARG(b->name), COOKIE_LEN, mac, SLICE_ARG(age),
                            secure ? "; Secure; SameSite=None" : "; SameSite=Lax"));
}

static const struct upstream *select_by_cookie(const void *cfg, struct exchange *x,
                                               struct upstream_set set, uint64_t now_ns)
{
    const struct by_name *b = cfg;
    struct slice value;
    const struct upstream *u = NULL;
    if (fields_cookie(&x->req.fields, b->name, false, &value) && value.len == COOKIE_LEN)
        u = named_by(b, value, set, now_ns);
    if (u != NULL)
        return u;
    u = select_fallback(b, x, set, now_ns);
    if (u != NULL)
        set_cookie(b, x, u);
    return u;
}

NAMED_POLICY(cookie, "cookie", provision_cookie, select_by_cookie, prepare_cookies);
