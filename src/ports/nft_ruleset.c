/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three passes over nft's list: tables and chains first, since rules jump forward; then sets and
 * maps, whose verdicts name chains; then the rules. Nothing of the JSON is kept.
 *
 * A statement is followed, is known to let a first packet of a connection go on (counter, log, "limit
 * rate" within its rate), is known not to ("limit rate over"), or is told as NFT_MAYBE (a condition
 * that is not followed) or NFT_PERHAPS (something that may end the packet).
 */
#include "ports/nft_ruleset.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "config/jsonx.h"
#include "ports/enforce.h"

enum { TEXT_MAX = 256 << 20, DEPTH_MAX = 64, COUNT_MAX = 1 << 22 };

static struct slice member(struct nft_names *n, const json_t *o, const char *key)
{
    return arena_copy(n->arena, nft_text(json_object_get(o, key)));
}

static struct slice chain_key(struct nft_names *n, const struct nft_table *t, struct slice name)
{
    return arena_printf(n->arena, SLICE_FMT " " SLICE_FMT " " SLICE_FMT, SLICE_ARG(t->family),
                        SLICE_ARG(t->name), SLICE_ARG(name));
}

static const struct nft_table *find_table(const struct nft_names *n, const json_t *o,
                                          const char *key)
{
    struct slice family = nft_text(json_object_get(o, "family"));
    struct slice name = nft_text(json_object_get(o, key));
    for (size_t i = 0; i < n->ruleset->tables_count; i++) {
        const struct nft_table *t = n->ruleset->tables[i];
        if (slice_eq(t->family, family) && slice_eq(t->name, name))
            return t;
    }
    return NULL;
}

bool nft_verdict_read(struct nft_names *n, const struct nft_table *t, const json_t *j,
                      struct nft_verdict *out)
{
    static const struct {
        const char *key;
        enum nft_verdict_kind kind;
    } kinds[] = {{"accept", NFT_ACCEPT}, {"drop", NFT_DROP},   {"reject", NFT_DROP},
                 {"return", NFT_RETURN}, {"jump", NFT_JUMP},   {"goto", NFT_GOTO},
                 {"queue", NFT_QUEUE},   {"continue", NFT_NO_VERDICT}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const json_t *inner = json_object_get(j, kinds[i].key);
        if (inner == NULL)
            continue;
        *out = (struct nft_verdict){.kind = kinds[i].kind, .reject = i == 2};
        if (out->kind == NFT_JUMP || out->kind == NFT_GOTO) {
            out->target_name = member(n, inner, "target");
            out->target = map_get(&n->chains, chain_key(n, t, out->target_name));
            if (out->target == NULL)
                out->kind = NFT_QUEUE;
        }
        return true;
    }
    return false;
}

/* ---- conditions ---- */

/* The condition of an order, as numbers that it takes. */
static bool order_read(struct nft_names *n, struct slice op, const json_t *right,
                       struct nft_statement *s)
{
    json_int_t at = json_integer_value(right), first = 0, last = 65535;
    if (!json_is_integer(right) || s->fields_count != 1 || s->fields[0] != NFT_DPORT)
        return false;
    if (op.ptr[0] == '<')
        last = op.len == 2 ? at : at - 1;
    else
        first = op.len == 2 ? at : at + 1;
    json_t *span = json_pack("{s:[I,I]}", "range", first, last);
    s->keys = nft_keys_read(n, NULL, span, 1, false);
    json_decref(span);
    return true;
}

static unsigned tcp_flags(const json_t *j)
{
    static const char *const names[] = {"fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"};
    const json_t *list = json_is_array(j) ? j : json_object_get(j, "|");
    unsigned bits = (unsigned)json_integer_value(j);
    size_t i;
    json_t *item;
    for (unsigned k = 0; k < 8; k++)
        bits |= slice_is(nft_text(j), names[k]) ? 1u << k : 0;
    json_array_foreach(list, i, item) {
        if (!json_is_array(item) && !json_is_object(item))
            bits |= tcp_flags(item);
    }
    return bits;
}

/* A first packet has SYN and nothing else. */
static bool syn_matches(unsigned mask, struct slice op, const json_t *right)
{
    enum { SYN = 2 };
    const json_t *set = json_object_get(right, "set");
    size_t i;
    json_t *item;
    if (slice_eq(op, SLICE("in")))
        return (SYN & tcp_flags(right)) != 0;
    bool equal = set == NULL && (SYN & mask) == tcp_flags(right);
    json_array_foreach(set, i, item) equal = equal || (SYN & mask) == tcp_flags(item);
    return equal != slice_eq(op, SLICE("!="));
}

static void read_tcp_flags(const json_t *mask, struct slice op, const json_t *right,
                           struct nft_statement *s)
{
    bool yes = syn_matches(mask == NULL ? 255 : tcp_flags(mask), op, right);
    s->kind = yes ? NFT_MATCH : NFT_NEVER;
    s->fields_count = 0; /* only the protocol is asked for */
}

/* What a plain packet does not carry. */
static bool read_absent(const json_t *left, const json_t *right, struct nft_statement *s)
{
    if (json_object_get(left, "exthdr") == NULL && json_object_get(left, "ip option") == NULL)
        return false;
    s->fields_count = 0;
    s->kind = json_is_false(right) ? NFT_MATCH : NFT_NEVER;
    return true;
}

static struct slice field_text(struct nft_names *n, const json_t *left)
{
    const char *key = json_object_iter_key(json_object_iter((json_t *)(uintptr_t)left));
    const json_t *inner = json_object_get(left, key == NULL ? "" : key);
    struct slice a = nft_text(json_object_get(inner, "protocol"));
    struct slice b = nft_text(json_object_get(inner, a.len > 0 ? "field" : "key"));
    if (key == NULL)
        return SLICE("a condition");
    return arena_printf(n->arena, "%s%s" SLICE_FMT, a.len > 0 ? "" : key, b.len > 0 ? " " : "",
                        SLICE_ARG(b));
}

static void match_read(struct nft_names *n, const struct nft_table *t, const json_t *match,
                       struct nft_statement *s)
{
    const json_t *left = json_object_get(match, "left"), *right = json_object_get(match, "right");
    const json_t *masked = json_object_get(left, "&");
    struct slice op = nft_text(json_object_get(match, "op"));
    s->kind = NFT_MATCH;
    nft_fields_read(n, left, s);
    s->what = field_text(n, left);
    if (read_absent(left, right, s))
        return;
    if (masked != NULL) {
        struct nft_statement inner = {0};
        nft_fields_read(n, json_array_get(masked, 0), &inner);
        if (inner.fields[0] == NFT_TCP_FLAGS)
            read_tcp_flags(json_array_get(masked, 1), op, right, s);
        return; /* the field is NFT_OTHER */
    }
    if (s->fields_count == 1 && s->fields[0] == NFT_TCP_FLAGS) {
        read_tcp_flags(NULL, op, right, s);
        return;
    }
    s->negate = slice_eq(op, SLICE("!="));
    if (op.len > 0 && (op.ptr[0] == '<' || op.ptr[0] == '>') && order_read(n, op, right, s))
        return;
    s->keys = nft_keys_read(n, t, right, s->fields_count, false);
    if (!s->negate && !slice_eq(op, SLICE("==")) && !slice_eq(op, SLICE("in")))
        s->kind = NFT_MAYBE;
}

/* ---- statements ---- */

/* What goes on, what ends by itself. */
static const char *const passing[] = {
    "counter", "log",  "set",       "map",        "flow",           "dup",     "secmark",
    "last",    "meter", "ct helper", "ct timeout", "ct expectation", "snat",    "masquerade",
    "comment"};

static const char *const passing_targets[] = {"LOG",  "NFLOG",    "MARK",     "CONNMARK", "CT",
                                              "ULOG", "CHECKSUM", "TCPMSS",   "CLASSIFY", "DSCP",
                                              "TRACE", "SET",     "CONNSECMARK", "SECMARK"};

static bool among(struct slice name, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (slice_is(name, list[i]))
            return true;
    }
    return false;
}

#define AMONG(name, list) among((name), (list), sizeof(list) / sizeof((list)[0]))

static void go_on(struct nft_statement *s)
{
    s->kind = NFT_MATCH;
    s->fields_count = 0;
}

static void xt_read(struct nft_names *n, const json_t *xt, struct nft_statement *s)
{
    struct slice type = nft_text(json_object_get(xt, "type"));
    struct slice name = nft_text(json_object_get(xt, "name"));
    s->what = arena_printf(n->arena, "xt " SLICE_FMT, SLICE_ARG(name));
    s->kind = NFT_PERHAPS;
    if (slice_eq(name, SLICE("comment")))
        go_on(s);
    else if (slice_eq(type, SLICE("match")))
        s->kind = NFT_MAYBE;
    else if (AMONG(name, passing_targets))
        go_on(s);
    else if (slice_eq(name, SLICE("DNAT")) || slice_eq(name, SLICE("REDIRECT"))) {
        s->kind = NFT_DNAT;
        s->to_unknown = true;
        n->ruleset->has_dnat = true;
    } else if (slice_eq(name, SLICE("REJECT"))) {
        s->kind = NFT_VERDICT;
        s->verdict = (struct nft_verdict){.kind = NFT_DROP, .reject = true};
    }
}

static void dnat_read(struct nft_names *n, const json_t *to, bool self, struct nft_statement *s)
{
    const json_t *address = json_object_get(to, "addr"), *port = json_object_get(to, "port");
    s->kind = NFT_DNAT;
    s->to_self = self;
    n->ruleset->has_dnat = true;
    if (address != NULL) {
        nft_values_read(n, address, &s->to);
        s->to_unknown = s->to.strange || s->to.addresses.count == 0;
    }
    s->to_unknown = s->to_unknown || (port != NULL && !json_is_integer(port)) ||
                    (address == NULL && port == NULL && !self);
    s->to_port = (uint16_t)json_integer_value(port);
    struct nft_values cut;
    if (s->to_port != 0)
        nft_values_read(n, port, &cut); /* its port is a cut, too */
}

/* "limit rate 5/second": a first packet comes within the rate; "over" it, it does not. */
static void bounded_read(const json_t *inner, struct nft_statement *s)
{
    go_on(s);
    if (!json_is_object(inner))
        s->kind = NFT_MAYBE; /* a named object */
    else if (json_is_true(json_object_get(inner, "inv")))
        s->kind = NFT_NEVER;
}

static void mangle_read(const json_t *mangle, struct nft_statement *s)
{
    const json_t *key = json_object_get(mangle, "key");
    go_on(s);
    if (json_object_get(key, "payload") != NULL)
        s->kind = NFT_PERHAPS;
}

static void vmap_read(struct nft_names *n, const struct nft_table *t, const json_t *vmap,
                      struct nft_statement *s)
{
    s->kind = NFT_VMAP;
    nft_fields_read(n, json_object_get(vmap, "key"), s);
    s->what = field_text(n, json_object_get(vmap, "key"));
    s->keys = nft_keys_read(n, t, json_object_get(vmap, "data"), s->fields_count, true);
}

static void statement_read(struct nft_names *n, const struct nft_table *t, const json_t *j,
                           struct nft_statement *s)
{
    void *first = json_object_iter((json_t *)(uintptr_t)j);
    struct slice key = first == NULL ? SLICE("?") : slice_from(json_object_iter_key(first));
    const json_t *inner = first == NULL ? NULL : json_object_iter_value(first);
    s->what = arena_copy(n->arena, key);
    s->kind = NFT_PERHAPS;
    if (slice_eq(key, SLICE("match")))
        match_read(n, t, inner, s);
    else if (slice_eq(key, SLICE("vmap")))
        vmap_read(n, t, inner, s);
    else if (slice_eq(key, SLICE("limit")) || slice_eq(key, SLICE("quota")) ||
             slice_eq(key, SLICE("ct count")))
        bounded_read(inner, s);
    else if (slice_eq(key, SLICE("notrack")))
        s->kind = NFT_NOTRACK;
    else if (slice_eq(key, SLICE("dnat")) || slice_eq(key, SLICE("redirect")))
        dnat_read(n, inner, key.ptr[0] == 'r', s);
    else if (slice_eq(key, SLICE("mangle")))
        mangle_read(inner, s);
    else if (slice_eq(key, SLICE("xt")))
        xt_read(n, inner, s);
    else if (AMONG(key, passing))
        go_on(s);
    else if (nft_verdict_read(n, t, j, &s->verdict))
        s->kind = NFT_VERDICT;
}

/* ---- the passes ---- */

static void table_read(struct nft_names *n, const json_t *o)
{
    struct nft_table *t = ARENA_NEW(n->arena, struct nft_table);
    *t = (struct nft_table){member(n, o, "family"), member(n, o, "name")};
    n->ruleset->tables[n->ruleset->tables_count++] = t;
}

static void chain_read(struct nft_names *n, const json_t *o)
{
    const struct nft_table *t = find_table(n, o, "table");
    struct nft_chain *c = ARENA_NEW(n->arena, struct nft_chain);
    if (t == NULL)
        return;
    *c = (struct nft_chain){.table = t,
                            .name = member(n, o, "name"),
                            .hook = member(n, o, "hook"),
                            .type = member(n, o, "type"),
                            .device = member(n, o, "dev"),
                            .priority = json_integer_value(json_object_get(o, "prio")),
                            .drop = slice_eq(nft_text(json_object_get(o, "policy")), SLICE("drop"))};
    n->ruleset->chains[n->ruleset->chains_count++] = c;
    map_put(&n->chains, chain_key(n, t, c->name), c);
}

/* How many fields its elements have; by its type, else by the first of them. */
static size_t set_fields(const json_t *o, const json_t *elements, bool verdicts)
{
    const json_t *type = json_object_get(o, "type"), *first = json_array_get(elements, 0);
    if (json_is_array(type))
        return json_array_size(type);
    if (verdicts)
        first = json_array_get(first, 0);
    const json_t *inner = json_object_get(json_object_get(first, "elem"), "val");
    const json_t *parts = json_object_get(inner != NULL ? inner : first, "concat");
    return parts == NULL || json_array_size(parts) == 0 ? 1 : json_array_size(parts);
}

static void set_read(struct nft_names *n, const json_t *o)
{
    const struct nft_table *t = find_table(n, o, "table");
    const json_t *elements = json_object_get(o, "elem"), *map = json_object_get(o, "map");
    bool verdicts = slice_eq(nft_text(map), SLICE("verdict"));
    if (t == NULL)
        return;
    struct nft_keys *k =
        nft_elements_read(n, t, elements, set_fields(o, elements, verdicts), verdicts);
    k->strange = k->strange || (map != NULL && !verdicts);
    map_put(&n->sets, chain_key(n, t, member(n, o, "name")), k);
}

static void rule_read(struct nft_names *n, const json_t *o)
{
    const struct nft_table *t = find_table(n, o, "table");
    struct nft_chain *c =
        t == NULL ? NULL : map_get(&n->chains, chain_key(n, t, nft_text(json_object_get(o, "chain"))));
    const json_t *list = json_object_get(o, "expr");
    size_t i;
    json_t *item;
    if (c == NULL)
        return;
    struct nft_statement *s = ARENA_ARRAY(n->arena, struct nft_statement, json_array_size(list) + 1);
    json_array_foreach(list, i, item) statement_read(n, t, item, &s[i]);
    c->rules[c->count] = (struct nft_rule){
        .handle = (uint64_t)json_integer_value(json_object_get(o, "handle")),
        .number = (unsigned)c->count + 1,
        .statements = s,
        .count = json_array_size(list)};
    c->count++;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void sort_cuts(struct nft_names *n)
{
    size_t count = 0;
    if (n->cuts_count > 0)
        qsort(n->cuts, n->cuts_count, sizeof *n->cuts, by_number);
    for (size_t i = 0; i < n->cuts_count; i++) {
        if (count == 0 || n->cuts[count - 1] != n->cuts[i])
            n->cuts[count++] = n->cuts[i];
    }
    n->ruleset->cuts = n->cuts;
    n->ruleset->cuts_count = count;
}

static void count_rules(struct nft_names *n, const json_t *list)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item) {
        const json_t *o = json_object_get(item, "rule");
        const struct nft_table *t = o == NULL ? NULL : find_table(n, o, "table");
        struct nft_chain *c =
            t == NULL ? NULL
                      : map_get(&n->chains, chain_key(n, t, nft_text(json_object_get(o, "chain"))));
        if (c != NULL)
            c->count++;
    }
    for (i = 0; i < n->ruleset->chains_count; i++) {
        struct nft_chain *c = n->ruleset->chains[i];
        c->rules = ARENA_ARRAY(n->arena, struct nft_rule, c->count + 1);
        c->count = 0;
    }
}

static void pass(struct nft_names *n, const json_t *list, const char *key,
                 void (*read)(struct nft_names *, const json_t *))
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item) {
        const json_t *o = json_object_get(item, key);
        if (o != NULL)
            read(n, o);
    }
}

enum err nft_ruleset_make(struct arena *arena, const json_t *root, struct nft_ruleset **out,
                          char *error, size_t cap)
{
    const json_t *list = json_object_get(root, "nftables");
    struct nft_names n = {.arena = arena, .ruleset = ARENA_NEW(arena, struct nft_ruleset)};
    size_t count = json_array_size(list);
    if (!json_is_array(list) || count > COUNT_MAX) {
        snprintf(error, cap, "what nft lists is not a list of tables, chains and rules");
        return ERR_INVALID;
    }
    map_init(&n.sets, false);
    map_init(&n.chains, false);
    n.ruleset->tables = ARENA_ARRAY(arena, struct nft_table *, count + 1);
    n.ruleset->chains = ARENA_ARRAY(arena, struct nft_chain *, count + 1);
    pass(&n, list, "table", table_read);
    pass(&n, list, "chain", chain_read);
    pass(&n, list, "set", set_read);
    pass(&n, list, "map", set_read);
    count_rules(&n, list);
    pass(&n, list, "rule", rule_read);
    sort_cuts(&n);
    port_counts_read(root, arena, &n.ruleset->counts, &n.ruleset->counts_count);
    map_deinit(&n.sets);
    map_deinit(&n.chains);
    *out = n.ruleset;
    return OK;
}

enum err nft_ruleset_parse(struct arena *arena, struct slice text, struct nft_ruleset **out,
                           char *error, size_t cap)
{
    json_error_t why;
    if (text.len > TEXT_MAX || jsonx_too_deep(text, DEPTH_MAX)) {
        snprintf(error, cap, "the ruleset is too large or nests too deep to be followed");
        return ERR_LIMIT;
    }
    json_t *root = json_loadb(text.ptr == NULL ? "" : text.ptr, text.len, 0, &why);
    if (root == NULL) {
        snprintf(error, cap, "the ruleset is no JSON: line %d: %s", why.line, why.text);
        return ERR_INVALID;
    }
    enum err e = nft_ruleset_make(arena, root, out, error, cap);
    json_decref(root);
    return e;
}
