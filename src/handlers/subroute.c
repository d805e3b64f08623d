/* SPDX-License-Identifier: Apache-2.0 */
/*
 * subroute: a list of routes as one handler, with error routes of its own. When its routes end
 * without an answer the walk goes on behind it. handle, handle_path and route become this.
 *
 *     {"handler": "subroute", "routes": […], "errors": {"routes": […]}}
 */
#include "handlers/handlers.h"
#include "http/route.h"

struct subroute {
    struct route_list routes, errors;
};

static const char *const members[] = {"routes", "errors", NULL};
static const char *const error_members[] = {"routes", NULL};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct subroute *s = cfg;
    const json_t *errors = json_object_get(json, "errors");
    TRY(provision_members(p, json, members));
    TRY(route_list_provision(&s->routes, json_object_get(json, "routes"), p));
    if (errors == NULL)
        return OK;
    TRY(provision_members(p, errors, error_members));
    return route_list_provision(&s->errors, json_object_get(errors, "routes"), p);
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    const struct subroute *s = cfg;
    struct sink *outer = x->sink;
    enum err e = route_list_run(&s->routes, x, next);
    if (e != ERR_FAILED || s->errors.count == 0 || exchange_answered(x))
        return e;
    x->sink = outer; /* what wrapped the response ended with its handler */
    return route_list_run(&s->errors, x, next);
}

const struct module handler_subroute = {
    .id = "http.handlers.subroute",
    .cfg_size = sizeof(struct subroute),
    .provision = provision,
    .serve = serve,
};
