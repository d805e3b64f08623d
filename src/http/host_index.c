/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A route is indexed when each of its matcher sets names hosts, all of them plain: ASCII, without a
 * wildcard or placeholder. Any other route is a candidate for every host, and stands in the list of
 * each name, so that one look-up gives all candidates in their order. The host matchers themselves
 * still run: the index only leaves out what they would refuse.
 */
#include "http/host_index.h"

#include "base/map.h"
#include "http/uri.h"

enum { ROUTES_MIN = 4, ENTRIES_MAX = 1 << 20 };

struct name_routes {
    struct host_candidates all;
    uint32_t named; /* how many of the indexed routes name it */
    uint32_t last;  /* the one that did so last, + 1 */
};

struct host_index {
    struct map names; /* → struct name_routes */
    struct host_candidates others; /* for names that stand nowhere */
};

static bool is_plain(const json_t *name)
{
    const char *s = json_string_value(name);
    if (s == NULL || *s == '\0')
        return false;
    for (; *s != '\0'; s++) {
        if (*s == '*' || *s == '{' || (unsigned char)*s >= 0x80)
            return false;
    }
    return true;
}

static bool is_indexed(const json_t *route)
{
    const json_t *sets = json_object_get(route, "match");
    for (size_t i = 0; i < json_array_size(sets); i++) {
        const json_t *hosts = json_object_get(json_array_get(sets, i), "host");
        if (json_array_size(hosts) == 0)
            return false;
        for (size_t k = 0; k < json_array_size(hosts); k++) {
            if (!is_plain(json_array_get(hosts, k)))
                return false;
        }
    }
    return json_array_size(sets) > 0;
}

typedef void on_name(struct host_index *, struct slice name, uint32_t route, struct provision *);

static void each_name(struct host_index *x, const json_t *routes, on_name *f, struct provision *p)
{
    for (uint32_t i = 0; i < json_array_size(routes); i++) {
        const json_t *sets = json_object_get(json_array_get(routes, i), "match");
        if (!is_indexed(json_array_get(routes, i)))
            continue;
        for (size_t k = 0; k < json_array_size(sets); k++) {
            const json_t *hosts = json_object_get(json_array_get(sets, k), "host");
            for (size_t n = 0; n < json_array_size(hosts); n++)
                f(x, slice_from(json_string_value(json_array_get(hosts, n))), i, p);
        }
    }
}

static void count_name(struct host_index *x, struct slice name, uint32_t route, struct provision *p)
{
    struct name_routes *r = map_get(&x->names, name);
    if (r == NULL) {
        r = ARENA_NEW(p->arena, struct name_routes);
        map_put(&x->names, arena_copy(p->arena, name), r);
    }
    if (r->last == route + 1) /* twice in one route */
        return;
    r->last = route + 1;
    r->named++;
}

/* The routes for any host, up to this one, then this one. */
static void put_name(struct host_index *x, struct slice name, uint32_t route, struct provision *p)
{
    struct name_routes *r = map_get(&x->names, name);
    uint32_t *out = (uint32_t *)(uintptr_t)r->all.routes, *at = out + r->all.count;
    if (r->all.count > 0 && at[-1] == route)
        return;
    uint32_t others = r->all.count - r->named; /* so many of `others` stand there already */
    for (; others < x->others.count && x->others.routes[others] < route; others++)
        *at++ = x->others.routes[others];
    *at++ = route;
    r->all.count = (uint32_t)(at - out);
    r->named++;
}

static void release(void *cfg)
{
    struct host_index *x = cfg;
    map_deinit(&x->names);
}

static void fill(struct host_index *x, const json_t *routes, struct provision *p)
{
    size_t at = 0;
    for (struct map_entry *e; (e = map_next(&x->names, &at)) != NULL;) {
        struct name_routes *r = e->value;
        r->all.routes = ARENA_ARRAY(p->arena, uint32_t, r->named + x->others.count);
        r->named = 0; /* counts again while they are put */
    }
    each_name(x, routes, put_name, p);
    at = 0;
    for (struct map_entry *e; (e = map_next(&x->names, &at)) != NULL;) {
        struct name_routes *r = e->value;
        for (uint32_t k = r->all.count - r->named; k < x->others.count; k++)
            ((uint32_t *)(uintptr_t)r->all.routes)[r->all.count++] = x->others.routes[k];
    }
}

struct host_index *host_index_create(const json_t *routes, struct provision *p)
{
    uint32_t count = (uint32_t)json_array_size(routes), n = 0;
    if (count < ROUTES_MIN)
        return NULL;
    struct host_index *x = ARENA_NEW(p->arena, struct host_index);
    uint32_t *others = ARENA_ARRAY(p->arena, uint32_t, count);
    for (uint32_t i = 0; i < count; i++) {
        if (!is_indexed(json_array_get(routes, i)))
            others[n++] = i;
    }
    x->others = (struct host_candidates){others, n};
    if (n > count / 2)
        return NULL;
    map_init(&x->names, true);
    provision_on_release(p, release, x);
    each_name(x, routes, count_name, p);
    if ((uint64_t)x->names.count * (n + 1) > ENTRIES_MAX)
        return NULL;
    fill(x, routes, p);
    return x;
}

struct host_candidates host_index_find(const struct host_index *x, struct slice host)
{
    struct slice name, port;
    host_split(host, &name, &port);
    const struct name_routes *r = map_get(&x->names, name);
    return r != NULL ? r->all : x->others;
}
