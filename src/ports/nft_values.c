/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values of conditions: "22", {"range": [80, 90]}, {"prefix": …}, {"set": […]}, "@name",
 * {"concat": […]} and what stands around them ({"elem": {"val": …, "timeout": …}}). All values of one
 * field become one nft_values; a concatenation keeps one key per element, as its parts belong
 * together. Each port number seen is a cut (nft_ruleset.h): numbers of other fields make more cuts
 * than needed, which only costs time.
 */
#include "ports/nft_ruleset.h"

#include <stdio.h>

enum { NEST_MAX = 16, PORTS = 65536 };

struct collect {
    struct nft_names *names;
    struct nft_values *values;
    struct ip_range *ranges;
    size_t ranges_count, ranges_room;
    struct nft_number_range *numbers;
    size_t numbers_room;
    struct slice *texts;
    size_t texts_room;
};

struct slice nft_text(const json_t *s)
{
    return slice_of(json_string_value(s), json_string_length(s));
}

static void *grown(struct arena *a, const void *old, size_t count, size_t *room, size_t size)
{
    if (count < *room)
        return (void *)(uintptr_t)old;
    *room = *room == 0 ? 4 : 2 * *room;
    void *more = arena_alloc_array(a, *room, size);
    if (count > 0)
        memcpy(more, old, count * size);
    return more;
}

static void add_cut(struct nft_names *n, uint64_t at)
{
    if (at == 0 || at >= PORTS)
        return;
    n->cuts = grown(n->arena, n->cuts, n->cuts_count, &n->cuts_room, sizeof *n->cuts);
    n->cuts[n->cuts_count++] = (uint32_t)at;
}

static void add_numbers(struct collect *c, json_int_t first, json_int_t last)
{
    struct nft_values *v = c->values;
    if (first < 0 || last < first) {
        v->strange = true;
        return;
    }
    c->numbers = grown(c->names->arena, c->numbers, v->numbers_count, &c->numbers_room,
                       sizeof *c->numbers);
    c->numbers[v->numbers_count++] = (struct nft_number_range){(uint64_t)first, (uint64_t)last};
    v->numbers = c->numbers;
    add_cut(c->names, (uint64_t)first);
    add_cut(c->names, (uint64_t)last + 1);
}

static void add_range(struct collect *c, const struct ip_range *r)
{
    c->ranges = grown(c->names->arena, c->ranges, c->ranges_count, &c->ranges_room,
                      sizeof *c->ranges);
    c->ranges[c->ranges_count++] = *r;
}

static void add_text(struct collect *c, struct slice text)
{
    struct nft_values *v = c->values;
    struct ip_range r;
    if (slice_eq(text, SLICE("*"))) {
        v->any = true;
        return;
    }
    if (ip_range_parse(text, &r)) {
        add_range(c, &r);
        return;
    }
    c->texts = grown(c->names->arena, c->texts, v->names_count, &c->texts_room, sizeof *c->texts);
    c->texts[v->names_count++] = arena_copy(c->names->arena, text);
    v->names = c->texts;
}

static void add_span(struct collect *c, const json_t *pair)
{
    const json_t *a = json_array_get(pair, 0), *b = json_array_get(pair, 1);
    struct ip_range first, last;
    if (json_is_integer(a) && json_is_integer(b)) {
        add_numbers(c, json_integer_value(a), json_integer_value(b));
    } else if (ip_range_parse(nft_text(a), &first) && ip_range_parse(nft_text(b), &last) &&
               memcmp(&first.first, &last.last, sizeof first.first) <= 0 &&
               first.first.is_six == last.last.is_six) {
        first.last = last.last;
        add_range(c, &first);
    } else {
        c->values->strange = true;
    }
}

static void add_prefix(struct collect *c, const json_t *prefix)
{
    char text[IP_TEXT_MAX + 8];
    struct ip_range r;
    struct slice address = nft_text(json_object_get(prefix, "addr"));
    snprintf(text, sizeof text, SLICE_FMT "/%d", SLICE_ARG(slice_take(address, IP_TEXT_MAX)),
             (int)json_integer_value(json_object_get(prefix, "len")));
    if (ip_range_parse(slice_from(text), &r))
        add_range(c, &r);
    else
        c->values->strange = true;
}

static void add_any(struct collect *, const json_t *, unsigned depth);

static void add_object(struct collect *c, const json_t *o, unsigned depth)
{
    const json_t *inner;
    if ((inner = json_object_get(o, "prefix")) != NULL)
        add_prefix(c, inner);
    else if ((inner = json_object_get(o, "range")) != NULL)
        add_span(c, inner);
    else if ((inner = json_object_get(o, "elem")) != NULL)
        add_any(c, json_object_get(inner, "val"), depth + 1);
    else if ((inner = json_object_get(o, "set")) != NULL || (inner = json_object_get(o, "|")) != NULL)
        add_any(c, inner, depth + 1);
    else
        c->values->strange = true;
}

static void add_any(struct collect *c, const json_t *j, unsigned depth)
{
    size_t i;
    json_t *item;
    if (depth > NEST_MAX)
        c->values->strange = true;
    else if (json_is_integer(j))
        add_numbers(c, json_integer_value(j), json_integer_value(j));
    else if (json_is_boolean(j))
        add_numbers(c, json_is_true(j), json_is_true(j));
    else if (json_is_string(j))
        add_text(c, nft_text(j));
    else if (json_is_object(j))
        add_object(c, j, depth);
    else if (json_is_array(j))
        json_array_foreach(j, i, item) add_any(c, item, depth + 1);
    else
        c->values->strange = true;
}

void nft_values_read(struct nft_names *n, const json_t *j, struct nft_values *out)
{
    struct collect c = {.names = n, .values = out};
    *out = (struct nft_values){0};
    add_any(&c, j, 0);
    out->addresses = ranges_of(n->arena, c.ranges, c.ranges_count);
}

/* The key without what stands around it. */
static const json_t *unwrap(const json_t *j)
{
    for (int i = 0; i < NEST_MAX; i++) {
        const json_t *inner = json_object_get(json_object_get(j, "elem"), "val");
        if (inner == NULL)
            break;
        j = inner;
    }
    return j;
}

static bool key_read(struct nft_names *n, const json_t *j, size_t fields, struct nft_key *out)
{
    struct nft_values *values = ARENA_ARRAY(n->arena, struct nft_values, fields);
    const json_t *key = unwrap(j), *parts = json_object_get(key, "concat");
    out->values = values;
    if (fields == 1) {
        nft_values_read(n, key, &values[0]);
        return true;
    }
    if (slice_eq(nft_text(key), SLICE("*"))) {
        for (size_t i = 0; i < fields; i++)
            values[i].any = true;
        return true;
    }
    if (json_array_size(parts) != fields)
        return false;
    for (size_t i = 0; i < fields; i++)
        nft_values_read(n, json_array_get(parts, i), &values[i]);
    return true;
}

/* [key, verdict], or with a wrapper around the key. */
static bool verdict_element(struct nft_names *n, const struct nft_table *t, const json_t *pair,
                            size_t fields, struct nft_key *out)
{
    return json_array_size(pair) == 2 &&
           nft_verdict_read(n, t, json_array_get(pair, 1), &out->verdict) &&
           key_read(n, json_array_get(pair, 0), fields, out);
}

struct nft_keys *nft_elements_read(struct nft_names *n, const struct nft_table *t, const json_t *list,
                                   size_t fields, bool verdicts)
{
    struct nft_keys *k = ARENA_NEW(n->arena, struct nft_keys);
    size_t i;
    json_t *element;
    k->fields = fields;
    k->items = ARENA_ARRAY(n->arena, struct nft_key, json_array_size(list) + 1);
    if (json_array_size(list) == 0 && (list == NULL || json_is_array(list)))
        return k; /* empty, or all of it has run out: nothing is in it */
    if (fields == 1 && !verdicts) {
        k->strange = !key_read(n, list, 1, &k->items[0]);
        k->count = 1;
        return k;
    }
    json_array_foreach(list, i, element) {
        struct nft_key *key = &k->items[k->count];
        bool good = verdicts ? verdict_element(n, t, element, fields, key)
                             : key_read(n, element, fields, key);
        k->count += good;
        k->strange = k->strange || !good;
    }
    return k;
}

static const struct nft_keys *set_by_name(struct nft_names *n, const struct nft_table *t,
                                          struct slice name)
{
    struct slice key = arena_printf(n->arena, SLICE_FMT " " SLICE_FMT " " SLICE_FMT,
                                    SLICE_ARG(t->family), SLICE_ARG(t->name), SLICE_ARG(name));
    return map_get(&n->sets, key);
}

const struct nft_keys *nft_keys_read(struct nft_names *n, const struct nft_table *t, const json_t *j,
                                     size_t fields, bool verdicts)
{
    static const struct nft_keys strange = {.strange = true};
    struct slice text = nft_text(j);
    const json_t *set = json_object_get(j, "set");
    if (text.len > 1 && text.ptr[0] == '@') {
        const struct nft_keys *k = set_by_name(n, t, slice_skip(text, 1));
        return k == NULL || k->fields != fields ? &strange : k;
    }
    if (set != NULL && json_is_array(set))
        return nft_elements_read(n, t, set, fields, verdicts);
    json_t *one = json_array();
    json_array_append(one, (json_t *)(uintptr_t)j);
    struct nft_keys *k = nft_elements_read(n, t, one, fields, verdicts);
    json_decref(one);
    return k;
}

/* ---- fields ---- */

struct field_name {
    const char *key;
    enum nft_field field;
};

static const struct field_name metas[] = {
    {"l4proto", NFT_L4PROTO}, {"nfproto", NFT_NFPROTO}, {"protocol", NFT_PROTOCOL},
    {"iif", NFT_IIF},         {"iifname", NFT_IIF},     {"oif", NFT_OIF},
    {"oifname", NFT_OIF},     {"pkttype", NFT_PKTTYPE}, {NULL, NFT_OTHER}};
static const struct field_name tracks[] = {
    {"state", NFT_CT_STATE}, {"direction", NFT_CT_DIRECTION}, {"status", NFT_CT_STATUS},
    {NULL, NFT_OTHER}};
static const struct field_name fours[] = {
    {"saddr", NFT_SADDR}, {"daddr", NFT_DADDR}, {"protocol", NFT_L4PROTO}, {NULL, NFT_OTHER}};
static const struct field_name sixes[] = {
    {"saddr", NFT_SADDR}, {"daddr", NFT_DADDR}, {"nexthdr", NFT_L4PROTO}, {NULL, NFT_OTHER}};
static const struct field_name transports[] = {
    {"dport", NFT_DPORT}, {"flags", NFT_TCP_FLAGS}, {NULL, NFT_OTHER}};

static enum nft_field find_field(const struct field_name *names, struct slice key)
{
    for (; names->key != NULL; names++) {
        if (slice_is(key, names->key))
            break;
    }
    return names->field;
}

static enum nft_field payload_field(const json_t *payload, struct nft_statement *s)
{
    struct slice protocol = nft_text(json_object_get(payload, "protocol"));
    struct slice field = nft_text(json_object_get(payload, "field"));
    static const char *const l4[] = {"tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmpv6", "esp",
                                     "ah",  "comp", "igmp"};
    if (slice_eq(protocol, SLICE("ip")) || slice_eq(protocol, SLICE("ip6"))) {
        bool six = protocol.len == 3;
        s->four = s->four || !six;
        s->six = s->six || six;
        return find_field(six ? sixes : fours, field);
    }
    for (size_t i = 0; i < sizeof l4 / sizeof l4[0]; i++) {
        if (slice_is(protocol, l4[i]))
            s->l4 = slice_from(l4[i]);
    }
    if (s->l4.len > 0 || slice_eq(protocol, SLICE("th")))
        return find_field(transports, field);
    return NFT_OTHER;
}

static bool has_flag(const json_t *fib, const char *flag)
{
    size_t i;
    json_t *item;
    const json_t *flags = json_object_get(fib, "flags");
    json_array_foreach(flags, i, item) {
        if (slice_is(nft_text(item), flag))
            return true;
    }
    return slice_is(nft_text(flags), flag);
}

static enum nft_field fib_field(const json_t *fib)
{
    struct slice result = nft_text(json_object_get(fib, "result"));
    bool from = has_flag(fib, "saddr"), by = has_flag(fib, "iif");
    if (slice_eq(result, SLICE("type")))
        return from ? NFT_FIB_SADDR_TYPE : NFT_FIB_DADDR_TYPE;
    return from && by && slice_starts(result, SLICE("oif")) ? NFT_FIB_SADDR_OIF : NFT_OTHER;
}

static enum nft_field field_read(const json_t *left, struct nft_statement *s)
{
    const json_t *inner;
    if ((inner = json_object_get(left, "payload")) != NULL)
        return payload_field(inner, s);
    if ((inner = json_object_get(left, "meta")) != NULL)
        return find_field(metas, nft_text(json_object_get(inner, "key")));
    if ((inner = json_object_get(left, "ct")) != NULL)
        return find_field(tracks, nft_text(json_object_get(inner, "key")));
    if ((inner = json_object_get(left, "fib")) != NULL)
        return fib_field(inner);
    if ((inner = json_object_get(left, "&")) != NULL)
        field_read(json_array_get(inner, 0), s); /* for the protocol that it implies */
    return NFT_OTHER;
}

void nft_fields_read(struct nft_names *n, const json_t *left, struct nft_statement *s)
{
    const json_t *parts = json_object_get(left, "concat");
    size_t count = parts != NULL ? json_array_size(parts) : 1;
    enum nft_field *fields = ARENA_ARRAY(n->arena, enum nft_field, count + 1);
    for (size_t i = 0; i < count; i++)
        fields[i] = field_read(parts != NULL ? json_array_get(parts, i) : left, s);
    s->fields = fields;
    s->fields_count = count;
}
