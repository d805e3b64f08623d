/* SPDX-License-Identifier: Apache-2.0 */
/*
 * invoke: runs a named route of the server in this place, then goes on behind it. The name is looked
 * up at provision, so a name that is not there is an error before anything runs.
 *
 *     {"handler": "invoke", "name": "app"}
 */
#include "handlers/handlers.h"
#include "http/route.h"

struct invoke {
    const struct named_route *route;
};

static const char *const members[] = {"name", NULL};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct invoke *i = cfg;
    struct slice name;
    TRY(provision_members(p, json, members));
    TRY(provision_text(p, json, "name", SLICE(""), &name));
    i->route = named_route_find(p, name);
    if (i->route == NULL)
        return provision_fail(p, "invoke: route '" SLICE_FMT "' not found", SLICE_ARG(name));
    return OK;
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    const struct invoke *i = cfg;
    return route_list_run(&i->route->list, x, next);
}

const struct module handler_invoke = {
    .id = "http.handlers.invoke",
    .cfg_size = sizeof(struct invoke),
    .provision = provision,
    .serve = serve,
};
