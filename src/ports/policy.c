/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The app "ports" from its JSON. Strict: what is not known, doubled or out of range is an error
 * that names the place in the document, and the line of the Caddyfile where it is known.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "ports/declared.h"

struct reader {
    const struct origins *origins;
    struct declarations list;
    char path[64]; /* of the declaration in hand */
    struct slice file;
    uint32_t line;
    char *error;
    size_t cap;
};

__attribute__((format(printf, 2, 3))) static enum err refuse(struct reader *r, const char *format, ...)
{
    va_list args;
    int used = r->file.len > 0
                   ? snprintf(r->error, r->cap, SLICE_FMT ":%u: ", SLICE_ARG(r->file), r->line)
                   : snprintf(r->error, r->cap, "%s: ", r->path);
    va_start(args, format);
    if (used >= 0 && (size_t)used < r->cap)
        vsnprintf(r->error + used, r->cap - (size_t)used, format, args);
    va_end(args);
    return ERR_INVALID;
}

static struct slice text_of(const json_t *v)
{
    return slice_of(json_string_value(v), json_string_length(v));
}

static enum err check_members(struct reader *r, const json_t *o, const char *const *known)
{
    const char *key;
    json_t *value;
    if (!json_is_object(o))
        return refuse(r, "an object is wanted");
    json_object_foreach((json_t *)o, key, value) {
        size_t i = 0;
        while (known[i] != NULL && strcmp(key, known[i]) != 0)
            i++;
        if (known[i] == NULL && strcmp(key, "@id") != 0) /* by which the admin API finds it */
            return refuse(r, "unknown member \"%.100s\"", key);
    }
    return OK;
}

static enum err read_numbers(struct reader *r, struct slice text, struct port_declaration *d)
{
    struct slice from, to;
    uint64_t first, last;
    bool range = slice_cut(text, '-', &from, &to);
    if (!slice_to_u64(from, 65535, &first) || first == 0 ||
        (range && (!slice_to_u64(to, 65535, &last) || last < first)))
        return refuse(r, "\"" SLICE_FMT "\" is neither a port (1 to 65535) nor a range such as "
                         "8000-8010", SLICE_ARG(slice_take(text, 40)));
    d->first = (uint16_t)first;
    d->last = (uint16_t)(range ? last : first);
    return OK;
}

static enum err read_protocol(struct reader *r, const json_t *v, struct port_declaration *d)
{
    d->any_protocol = v == NULL;
    if (v == NULL || (json_is_string(v) && port_protocol_parse(text_of(v), &d->protocol)))
        return OK;
    return refuse(r, "\"protocol\" is tcp, udp, udplite, sctp or dccp");
}

static enum err read_from(struct reader *r, const json_t *v, struct port_declaration *d)
{
    size_t n = json_array_size(v);
    if (!json_is_array(v) || n == 0 || n > POLICY_FROM_MAX)
        return refuse(r, "\"from\" is a list of 1 to %d prefixes", POLICY_FROM_MAX);
    struct ip_range *ranges = ARENA_ARRAY(r->list.arena, struct ip_range, n);
    for (size_t i = 0; i < n; i++) {
        struct slice text = text_of(json_array_get(v, i));
        if (!ip_range_parse(text, &ranges[i]))
            return refuse(r, "\"" SLICE_FMT "\" is neither an address nor a prefix",
                          SLICE_ARG(slice_take(text, 60)));
    }
    d->from = ranges;
    d->from_count = n;
    return OK;
}

static enum err read_reach(struct reader *r, const json_t *o, struct port_declaration *d)
{
    struct slice reach = text_of(json_object_get(o, "reach"));
    const json_t *from = json_object_get(o, "from");
    d->reach = slice_is(reach, "world")     ? REACH_WORLD
               : slice_is(reach, "network") ? REACH_NETWORK
               : slice_is(reach, "device")  ? REACH_DEVICE
               : slice_is(reach, "nobody")  ? REACH_NOBODY
                                            : REACH_UNKNOWN;
    if (d->reach == REACH_UNKNOWN)
        return refuse(r, "\"reach\" is world, network, device or nobody");
    if (from == NULL)
        return d->reach == REACH_NETWORK ? refuse(r, "the reach \"network\" wants \"from\"") : OK;
    if (d->reach != REACH_NETWORK && d->reach != REACH_DEVICE)
        return refuse(r, "\"from\" stands with the reach \"network\" or \"device\"");
    return read_from(r, from, d);
}

static enum err read_declaration(struct reader *r, const json_t *o, size_t index)
{
    static const char *const known[] = {"ports", "protocol", "name", "reach", "from", NULL};
    struct port_declaration d = {.by = DECLARED_PORTS};
    size_t count;
    snprintf(r->path, sizeof r->path, "apps.ports.declarations[%zu]", index);
    const struct origin *at = r->origins != NULL
                                  ? origins_find(r->origins, slice_from(r->path), &count)
                                  : NULL;
    r->file = d.file = at != NULL ? arena_copy(r->list.arena, at->file) : SLICE_NONE;
    r->line = d.line = at != NULL ? at->line : 0;
    TRY(check_members(r, o, known));
    TRY(read_protocol(r, json_object_get(o, "protocol"), &d));
    TRY(read_reach(r, o, &d));
    const json_t *name = json_object_get(o, "name"), *ports = json_object_get(o, "ports");
    if (name != NULL && !json_is_string(name))
        return refuse(r, "\"name\" is a text");
    d.name = arena_copy(r->list.arena, text_of(name));
    if (!json_is_array(ports) || json_array_size(ports) == 0)
        return refuse(r, "\"ports\" is a list of ports and ranges, each a text");
    for (size_t i = 0; i < json_array_size(ports); i++) {
        if (r->list.count == POLICY_PORTS_MAX)
            return refuse(r, "more than %d ports and ranges", POLICY_PORTS_MAX);
        TRY(read_numbers(r, text_of(json_array_get(ports, i)), &d));
        *declarations_add(&r->list) = d;
    }
    return OK;
}

static int by_port(const void *x, const void *y)
{
    const struct port_declaration *a = *(const struct port_declaration *const *)x;
    const struct port_declaration *b = *(const struct port_declaration *const *)y;
    int order = (a->first > b->first) - (a->first < b->first);
    return order != 0 ? order : (a > b) - (a < b);
}

static enum err doubled(struct reader *r, const struct port_declaration *a,
                        const struct port_declaration *b, enum port_protocol p)
{
    const struct port_declaration *first = a < b ? a : b, *second = a < b ? b : a;
    char where[600] = "";
    if (first->file.len > 0)
        snprintf(where, sizeof where, " at " SLICE_FMT ":%u", SLICE_ARG(slice_take(first->file, 500)),
                 first->line);
    r->file = second->file;
    r->line = second->line;
    snprintf(r->path, sizeof r->path, "apps.ports.declarations");
    return refuse(r, "port %u (%s) is declared already%s", a->first > b->first ? a->first : b->first,
                  port_protocol_name(p), where);
}

/* A port has one declaration for each protocol. */
static enum err check_doubles(struct reader *r)
{
    size_t n = r->list.count;
    const struct port_declaration *last[PORT_PROTOCOLS] = {NULL};
    const struct port_declaration **sorted =
        ARENA_ARRAY(r->list.arena, const struct port_declaration *, n + 1);
    for (size_t i = 0; i < n; i++)
        sorted[i] = &r->list.items[i];
    qsort(sorted, n, sizeof *sorted, by_port);
    for (size_t i = 0; i < n; i++) {
        const struct port_declaration *d = sorted[i];
        for (unsigned p = 0; p < PORT_PROTOCOLS; p++) {
            if (!d->any_protocol && d->protocol != p)
                continue;
            if (last[p] != NULL && last[p]->last >= d->first)
                return doubled(r, last[p], d, (enum port_protocol)p);
            last[p] = d;
        }
    }
    return OK;
}

static enum err read_app(struct reader *r, const json_t *app, struct ports_policy *out)
{
    static const char *const known[] = {"declarations", "others", "enforce", NULL};
    const json_t *others = json_object_get(app, "others"), *enforce = json_object_get(app, "enforce");
    const json_t *list = json_object_get(app, "declarations");
    TRY(check_members(r, app, known));
    struct slice word = text_of(others);
    out->others = slice_is(word, "world")    ? REACH_WORLD
                  : slice_is(word, "device") ? REACH_DEVICE
                  : slice_is(word, "nobody") ? REACH_NOBODY
                                             : REACH_UNKNOWN;
    if (others != NULL && out->others == REACH_UNKNOWN)
        return refuse(r, "\"others\" is world, device or nobody");
    word = text_of(enforce);
    out->nftables = slice_is(word, "nftables");
    if (enforce != NULL && !out->nftables && !slice_is(word, "observe"))
        return refuse(r, "\"enforce\" is observe or nftables");
    if (list != NULL && !json_is_array(list))
        return refuse(r, "\"declarations\" is a list");
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(read_declaration(r, json_array_get(list, i), i));
    return check_doubles(r);
}

enum err ports_policy_read(const json_t *app, const struct origins *origins, struct arena *arena,
                           struct ports_policy *out, char *error, size_t cap)
{
    struct reader r = {.origins = origins, .list = {.arena = arena}, .path = "apps.ports",
                       .error = error, .cap = cap};
    *out = (struct ports_policy){0};
    if (app == NULL || json_is_null(app))
        return OK;
    TRY(read_app(&r, app, out));
    out->items = r.list.items;
    out->count = r.list.count;
    return OK;
}
