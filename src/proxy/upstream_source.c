/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upstreams that are found when a request comes ("dynamic_upstreams"):
 *
 *     {"source": "service", "name": "simon"}       the usable replicas of a service
 *     {"source": "a", …}, {"source": "srv", …}     those that DNS names: dns_source.c
 *     {"source": "multi", "sources": [{…}, …]}     those of all, one behind the other
 *
 * A service's view (services/services.h) is taken for the exchange and given back at its end. While no
 * replica is usable a request waits, within the service's queue and for as long as it allows, which is
 * also what starts a service on demand.
 */
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "proxy/gateway.h"
#include "proxy/proxy.h"
#include "services/services.h"

#define LOGGER "http.reverse_proxy.upstreams.multi"

enum err upstream_source_read(const json_t *json, struct provision *p, const struct module **m,
                              void **cfg)
{
    const char *name = json_string_value(json_object_get(json, "source"));
    if (name == NULL)
        return provision_fail(p, "\"dynamic_upstreams\" must name its \"source\"");
    return provision_module(p, "http.reverse_proxy.upstreams", name, json, m, cfg);
}

bool upstream_source_varies(const struct gateway *g)
{
    return g->source->varies != NULL && g->source->varies(g->source_cfg);
}

/* --- a service --- */

struct service_source {
    struct slice name;
    struct service_handle *handle;
    uint64_t patience_ns; /* as the configuration says; for repeating */
};

/* A view that is out; given back at the exchange's end. */
struct borrowed {
    const struct service_source *source;
    const struct service_view *view;
    bool used; /* one on demand */
};

static const json_t *find_service(const struct provision *p, struct slice name)
{
    const json_t *list = json_object_get(p->services, "services");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *s = json_array_get(list, i);
        const char *text = json_string_value(json_object_get(s, "name"));
        if (text != NULL && slice_is(name, text))
            return s;
    }
    return NULL;
}

static enum err provision_service(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"source", "name", NULL};
    struct service_source *s = cfg;
    TRY(provision_members(p, json, members));
    TRY(provision_text(p, json, "name", SLICE_NONE, &s->name));
    if (s->name.len == 0)
        return provision_fail(p, "the source \"service\" needs a \"name\"");
    const json_t *service = find_service(p, s->name);
    if (service == NULL)
        return provision_fail(p, "there is no service \"" SLICE_FMT "\" in the app \"services\"",
                              SLICE_ARG(slice_take(s->name, 80)));
    s->patience_ns = 30 * NS_PER_S;
    s->handle = service_handle(s->name);
    return s->handle != NULL ? OK : provision_fail(p, "too many names of services: restart portico");
}

static void give_back(struct exchange *x, void *arg)
{
    struct borrowed *b = arg;
    (void)x;
    if (b->used)
        service_used(b->source->handle, -1);
    service_view_give(b->view);
}

static enum err find_replicas(const void *cfg, struct exchange *x, struct found_upstreams *out,
                              const char **why)
{
    const struct service_source *s = cfg;
    struct borrowed *b = ARENA_NEW(x->arena, struct borrowed);
    *b = (struct borrowed){s, service_view_take(s->handle), false};
    b->used = b->view->on_demand && !out->only_looked;
    if (b->used)
        service_used(s->handle, 1);
    exchange_on_end(x, give_back, b);
    out->endpoints = b->view->endpoints;
    out->count = b->view->count;
    if (b->view->exists)
        return OK;
    *why = arena_str(x->arena, arena_printf(x->arena, "service " SLICE_FMT " is not there",
                                            SLICE_ARG(s->name)));
    return ERR_NOT_FOUND;
}

static enum err refuse(const struct service_source *s, struct exchange *x, const char *state,
                       const char **why)
{
    fields_set(&x->res.fields, SLICE("Retry-After"), SLICE("5"));
    *why = arena_str(x->arena, arena_printf(x->arena, "service " SLICE_FMT ": %s", SLICE_ARG(s->name),
                                            state));
    return ERR_FAILED;
}

static enum err wait_for_replica(const void *cfg, struct exchange *x, const char **why)
{
    const struct service_source *s = cfg;
    const struct service_view *view = service_view_take(s->handle);
    uint64_t by = x->start_ns + view->patience_ns;
    service_view_give(view);
    enum err e = clock_mono_ns() < by ? await_service(s->handle, by) : ERR_TIMEOUT;
    switch (e) {
    case OK:
        return OK;
    case ERR_TIMEOUT:
        return refuse(s, x, "no replica became ready in time", why);
    case ERR_LIMIT:
        return refuse(s, x, "too many requests wait for it", why);
    case ERR_CLOSED:
        return refuse(s, x, "it does not run", why);
    default:
        return e;
    }
}

static uint64_t service_repeat_ns(const void *cfg)
{
    return ((const struct service_source *)cfg)->patience_ns;
}

static const struct upstream_source service_face = {
    .find = find_replicas, .wait = wait_for_replica, .repeat_ns = service_repeat_ns};

const struct module upstreams_service = {
    .id = "http.reverse_proxy.upstreams.service",
    .cfg_size = sizeof(struct service_source),
    .provision = provision_service,
    .face = &service_face,
};

/* --- several sources --- */

enum { SOURCES_MAX = 32, FOUND_MAX = 4096 };

struct multi_source {
    size_t count;
    struct {
        const struct upstream_source *face;
        const void *cfg;
    } sources[SOURCES_MAX];
};

static enum err provision_multi(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"source", "sources", NULL};
    struct multi_source *m = cfg;
    const json_t *list = json_object_get(json, "sources");
    TRY(provision_members(p, json, members));
    if (list != NULL && !json_is_null(list) && !json_is_array(list))
        return provision_fail(p, "\"sources\" must be an array");
    if (json_array_size(list) > SOURCES_MAX)
        return provision_fail(p, "more than %d sources", SOURCES_MAX);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const struct module *inner;
        void *inner_cfg;
        if (!json_is_object(json_array_get(list, i)))
            return provision_fail(p, "\"sources\" must be an array of objects");
        TRY(upstream_source_read(json_array_get(list, i), p, &inner, &inner_cfg));
        m->sources[m->count].face = inner->face;
        m->sources[m->count++].cfg = inner_cfg;
    }
    return OK;
}

/* One that fails is left out, as in Caddy. */
static enum err find_all(const void *cfg, struct exchange *x, struct found_upstreams *out,
                         const char **why)
{
    const struct multi_source *m = cfg;
    struct endpoint **all = NULL;
    uint32_t count = 0;
    for (size_t i = 0; i < m->count; i++) {
        struct found_upstreams some = {.only_looked = out->only_looked};
        if (m->sources[i].face->find(m->sources[i].cfg, x, &some, why) != OK) {
            if (!out->only_looked)
                LOG(LOG_ERROR, LOGGER, "upstream source returned error", LOG_NUM("source_idx", (int)i),
                    LOG_CSTR("error", *why));
            continue;
        }
        if (some.count == 0 && !out->only_looked)
            LOG(LOG_WARN, LOGGER, "upstream source returned 0 upstreams",
                LOG_NUM("source_idx", (int)i));
        if (count + some.count > FOUND_MAX)
            continue;
        struct endpoint **more = arena_alloc(x->arena, (count + some.count + 1) * sizeof *more);
        if (count > 0)
            memcpy(more, all, count * sizeof *more);
        if (some.count > 0)
            memcpy(more + count, some.endpoints, some.count * sizeof *more);
        all = more;
        count += some.count;
        out->service = out->service * 31 + some.service;
    }
    out->endpoints = all;
    out->count = count;
    return OK;
}

/* For the first that has anything to wait for. */
static enum err wait_for_any(const void *cfg, struct exchange *x, const char **why)
{
    const struct multi_source *m = cfg;
    enum err e = ERR_FAILED;
    for (size_t i = 0; i < m->count && e != OK && fiber_self()->cancelled == OK; i++)
        if (m->sources[i].face->wait != NULL)
            e = m->sources[i].face->wait(m->sources[i].cfg, x, why);
    return e;
}

static uint64_t multi_repeat_ns(const void *cfg)
{
    const struct multi_source *m = cfg;
    uint64_t longest = 0;
    for (size_t i = 0; i < m->count; i++) {
        uint64_t ns = m->sources[i].face->repeat_ns != NULL
                          ? m->sources[i].face->repeat_ns(m->sources[i].cfg) : 0;
        longest = ns > longest ? ns : longest;
    }
    return longest;
}

static bool any_unsettled(const void *cfg, struct exchange *x)
{
    const struct multi_source *m = cfg;
    for (size_t i = 0; i < m->count; i++)
        if (m->sources[i].face->unsettled != NULL &&
            m->sources[i].face->unsettled(m->sources[i].cfg, x))
            return true;
    return false;
}

static enum err settle_all(const void *cfg, struct exchange *x)
{
    const struct multi_source *m = cfg;
    for (size_t i = 0; i < m->count && fiber_self()->cancelled == OK; i++)
        if (m->sources[i].face->settle != NULL)
            (void)!m->sources[i].face->settle(m->sources[i].cfg, x);
    return OK;
}

static void doubt_all(const void *cfg, struct exchange *x)
{
    const struct multi_source *m = cfg;
    for (size_t i = 0; i < m->count; i++)
        if (m->sources[i].face->doubt != NULL)
            m->sources[i].face->doubt(m->sources[i].cfg, x);
}

static bool any_varies(const void *cfg)
{
    const struct multi_source *m = cfg;
    for (size_t i = 0; i < m->count; i++)
        if (m->sources[i].face->varies != NULL && m->sources[i].face->varies(m->sources[i].cfg))
            return true;
    return false;
}

static const struct upstream_source multi_face = {
    .find = find_all, .wait = wait_for_any, .repeat_ns = multi_repeat_ns,
    .unsettled = any_unsettled, .settle = settle_all, .doubt = doubt_all, .varies = any_varies};

const struct module upstreams_multi = {
    .id = "http.reverse_proxy.upstreams.multi",
    .cfg_size = sizeof(struct multi_source),
    .provision = provision_multi,
    .face = &multi_face,
};
