/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk. A `struct chain` is a continuation: which list, which route, which handler comes next,
 * and what follows the list's end. Each handler gets the chain behind itself on its caller's frame,
 * so that nested subroutes need no memory and a handler may call on once, never, or after the
 * response is back. A terminal route drops what would follow it, as in Caddy.
 */
#include "http/route.h"

#include "base/check.h"
#include "base/map.h"
#include "http/host_index.h"
#include "http/http_metrics.h"
#include "loop/fiber.h"

enum {
    GROUPS_INLINE = 64,
    GROUPS_MAX = 4096,
    STACK_RESERVE = 24 * 1024, /* what a handler and the sinks below it may need */
};

static const char *const route_members[] = {"group", "match", "handle", "terminal", NULL};

/* A name one level further down in p->path; returns the outer one, to be put back. */
static struct slice enter(struct provision *p, const char *what, size_t index)
{
    struct slice outer = p->path;
    p->path = arena_printf(p->arena, SLICE_FMT ".%s[%zu]", SLICE_ARG(outer), what, index);
    return outer;
}

static enum err provision_set(struct matcher_set *set, const json_t *json, struct provision *p)
{
    const char *name;
    json_t *value;
    if (!json_is_object(json))
        return provision_fail(p, "a matcher set must be an object");
    set->matchers = ARENA_ARRAY(p->arena, struct matcher, json_object_size(json));
    json_object_foreach((json_t *)(uintptr_t)json, name, value)
    {
        struct matcher *m = &set->matchers[set->count];
        TRY(provision_module(p, "http.matchers", name, value, &m->module, &m->cfg));
        if (m->module->match == NULL)
            return provision_fail(p, "%s is no matcher", name);
        set->count++;
    }
    return OK;
}

enum err matcher_sets_provision(struct matcher_set **sets, uint32_t *count, const json_t *json,
                                struct provision *p)
{
    *sets = NULL;
    *count = 0;
    if (json == NULL || json_is_null(json))
        return OK;
    if (!json_is_array(json))
        return provision_fail(p, "\"match\" must be an array of matcher sets");
    size_t n = json_array_size(json);
    *sets = ARENA_ARRAY(p->arena, struct matcher_set, n);
    for (size_t i = 0; i < n; i++) {
        struct slice outer = enter(p, "match", i);
        TRY(provision_set(&(*sets)[i], json_array_get(json, i), p));
        p->path = outer;
    }
    *count = (uint32_t)n;
    return OK;
}

static enum err provision_handlers(struct route *r, const json_t *json, struct provision *p)
{
    if (json == NULL || json_is_null(json))
        return OK;
    if (!json_is_array(json))
        return provision_fail(p, "\"handle\" must be an array of handlers");
    size_t n = json_array_size(json);
    r->handlers = ARENA_ARRAY(p->arena, struct handler, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *h = json_array_get(json, i);
        const char *name = json_string_value(json_object_get(h, "handler"));
        struct slice outer = enter(p, "handle", i);
        if (name == NULL)
            return provision_fail(p, "\"handler\" must name the handler");
        TRY(provision_module(p, "http.handlers", name, h, &r->handlers[i].module,
                             &r->handlers[i].cfg));
        if (r->handlers[i].module->serve == NULL)
            return provision_fail(p, "%s is no handler", name);
        p->path = outer;
    }
    r->handlers_count = (uint32_t)n;
    return OK;
}

static enum err group_number(struct provision *p, struct slice name, uint16_t *number)
{
    *number = 0;
    if (name.len == 0)
        return OK;
    uintptr_t known = (uintptr_t)map_get(p->groups, name);
    if (known == 0) {
        known = p->groups->count + 1;
        if (known > GROUPS_MAX)
            return provision_fail(p, "more than %d route groups in one server", GROUPS_MAX);
        map_put(p->groups, name, (void *)known);
    }
    *number = (uint16_t)known;
    return OK;
}

static enum err provision_route(struct route *r, const json_t *json, struct provision *p)
{
    struct slice group;
    TRY(provision_members(p, json, route_members));
    TRY(provision_text(p, json, "group", SLICE(""), &group));
    TRY(group_number(p, group, &r->group));
    TRY(provision_bool(p, json, "terminal", false, &r->terminal));
    TRY(matcher_sets_provision(&r->sets, &r->sets_count, json_object_get(json, "match"), p));
    return provision_handlers(r, json_object_get(json, "handle"), p);
}

enum err route_list_provision(struct route_list *list, const json_t *json, struct provision *p)
{
    if (json == NULL || json_is_null(json))
        return OK;
    if (!json_is_array(json))
        return provision_fail(p, "\"routes\" must be an array");
    size_t n = json_array_size(json);
    list->routes = ARENA_ARRAY(p->arena, struct route, n);
    for (size_t i = 0; i < n; i++) {
        struct slice outer = enter(p, "routes", i);
        TRY(provision_route(&list->routes[i], json_array_get(json, i), p));
        p->path = outer;
    }
    list->count = (uint32_t)n;
    list->hosts = host_index_create(json, p);
    return OK;
}

/* One route object as a list of one. */
static enum err provision_named(struct named_route *n, const json_t *json, struct provision *p)
{
    struct slice outer = p->path;
    p->path = arena_join(p->arena, (struct slice[]){outer, SLICE(".named_routes."), n->name}, 3);
    n->list.routes = ARENA_NEW(p->arena, struct route);
    TRY(provision_route(n->list.routes, json, p));
    n->list.count = 1;
    p->path = outer;
    return OK;
}

enum err named_routes_provision(const json_t *json, struct provision *p)
{
    const char *name;
    json_t *route;
    size_t i = 0;
    p->named_routes = NULL;
    p->named_routes_count = 0;
    if (json == NULL || json_is_null(json))
        return OK;
    if (!json_is_object(json))
        return provision_fail(p, "\"named_routes\" must be an object");
    p->named_routes = ARENA_ARRAY(p->arena, struct named_route, json_object_size(json));
    json_object_foreach((json_t *)(uintptr_t)json, name, route)
        p->named_routes[p->named_routes_count++].name = arena_copy(p->arena, slice_from(name));
    json_object_foreach((json_t *)(uintptr_t)json, name, route)
        TRY(provision_named(&p->named_routes[i++], route, p));
    return OK;
}

const struct named_route *named_route_find(const struct provision *p, struct slice name)
{
    for (size_t i = 0; i < p->named_routes_count; i++) {
        if (slice_eq(p->named_routes[i].name, name))
            return &p->named_routes[i];
    }
    return NULL;
}

static enum err match_set(const struct matcher_set *set, struct exchange *x, bool *matches)
{
    *matches = true;
    for (uint32_t i = 0; i < set->count && *matches; i++)
        TRY(set->matchers[i].module->match(set->matchers[i].cfg, x, matches));
    return OK;
}

enum err matcher_sets_match(const struct matcher_set *sets, uint32_t count, struct exchange *x,
                            bool *matches)
{
    *matches = count == 0;
    for (uint32_t i = 0; i < count && !*matches; i++)
        TRY(match_set(&sets[i], x, matches));
    return OK;
}

/* The word that holds a group's bit. Most servers have few groups, whose bits stand in the exchange
 * itself; of others memory is taken when the first of them matches. */
static uint64_t *group_word(struct exchange *x, unsigned group)
{
    if (group < GROUPS_INLINE)
        return &x->groups;
    if (x->more_groups == NULL)
        x->more_groups = arena_zalloc(x->arena, (GROUPS_MAX - GROUPS_INLINE + 64) / 8);
    return &x->more_groups[(group - GROUPS_INLINE) / 64];
}

/* Whether the walk takes this route; marks its group when it does. A route is matched even when
 * another of its group ran before, as in Caddy: its matchers may set placeholders, or fail. */
static enum err enter_route(const struct route *r, struct exchange *x, bool *taken)
{
    uint64_t bit = UINT64_C(1) << r->group % 64;
    *taken = false;
    TRY(matcher_sets_match(r->sets, r->sets_count, x, taken));
    if (!*taken || r->group == 0)
        return OK;
    uint64_t *word = group_word(x, r->group);
    *taken = (*word & bit) == 0;
    *word |= bit;
    return OK;
}

/* The first index from `i` on that the request's host allows; `count` at the end. */
static uint32_t next_candidate(const struct route_list *list, const struct exchange *x, uint32_t i)
{
    if (list->hosts == NULL || i >= list->count)
        return i;
    struct host_candidates c = host_index_find(list->hosts, x->req.host);
    uint32_t low = 0, high = c.count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (c.routes[middle] < i)
            low = middle + 1;
        else
            high = middle;
    }
    return low < c.count ? c.routes[low] : list->count;
}

/* Moves to the next route of the list in hand that matches. */
static enum err next_of_list(struct chain *at, struct exchange *x, bool *taken)
{
    const struct route_list *list = at->list;
    uint32_t i = at->route != NULL ? (uint32_t)(at->route - list->routes) + 1 : 0;
    *taken = false;
    while (!*taken && (i = next_candidate(list, x, i)) < list->count)
        TRY(enter_route(&list->routes[i++], x, taken));
    if (!*taken)
        return OK;
    at->route = &list->routes[i - 1];
    at->next_handler = 0;
    if (at->route->terminal)
        at->after = NULL;
    return OK;
}

/* Moves to the next route that matches; list == NULL when there is none and nothing follows. */
static enum err next_route(struct chain *at, struct exchange *x)
{
    for (;;) {
        bool taken;
        TRY(next_of_list(at, x, &taken));
        if (taken)
            return OK;
        if (at->after == NULL) {
            at->list = NULL;
            return OK;
        }
        struct chain outer = *at->after;
        *at = outer;
        if (at->route == NULL)
            continue;
        if (at->next_handler < at->route->handlers_count)
            return OK;
        if (at->route->terminal) {
            at->list = NULL;
            return OK;
        }
    }
}

/* Handlers call each other, so a long chain, or a named route that invokes itself, is a deep stack:
 * it ends in an error, not at the guard page. */
static bool stack_is_low(void)
{
    const struct fiber *f = fiber_self();
    return f != NULL && (size_t)((char *)__builtin_frame_address(0) - f->stack) < STACK_RESERVE;
}

enum err chain_next(struct exchange *x, const struct chain *from)
{
    struct chain at = *from;
    if (stack_is_low())
        return exchange_fail(x, 500, "too many handlers follow each other, or a named route invokes "
                                     "itself");
    while (at.list != NULL) {
        if (at.route != NULL && at.next_handler < at.route->handlers_count) {
            const struct handler *h = &at.route->handlers[at.next_handler++];
            if (at.route->meter != NULL && at.next_handler == 1)
                return meter_run(at.route->meter, x, h, &at);
            return h->module->serve(h->cfg, x, &at);
        }
        if (at.route != NULL && at.route->terminal)
            return OK;
        TRY(next_route(&at, x));
    }
    return OK;
}

enum err route_list_run(const struct route_list *list, struct exchange *x,
                        const struct chain *after)
{
    struct chain start = {.list = list, .after = after};
    return chain_next(x, &start);
}
