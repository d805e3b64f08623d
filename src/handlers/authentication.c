/* SPDX-License-Identifier: Apache-2.0 */
/*
 * authentication: lets a request through when one of its providers knows who sent it, else fails it
 * with 401. The name is {http.auth.user.id}, and the access log's user_id.
 *
 *     {"handler": "authentication", "providers": {"http_basic": {…}}}
 */
#include "handlers/authentication.h"

#include "handlers/handlers.h"
#include "http/route.h"

struct provider {
    const struct auth_provider *face;
    void *cfg;
};

struct authentication {
    struct provider *providers;
    size_t count;
};

static const char *const members[] = {"providers", NULL};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct authentication *a = cfg;
    const struct module *m;
    const char *name;
    json_t *value, *providers = json_object_get(json, "providers");
    TRY(provision_members(p, json, members));
    if (providers == NULL || json_is_null(providers))
        return OK;
    if (!json_is_object(providers))
        return provision_fail(p, "\"providers\" must be an object");
    a->providers = ARENA_ARRAY(p->arena, struct provider, json_object_size(providers));
    json_object_foreach(providers, name, value)
    {
        struct provider *one = &a->providers[a->count++];
        TRY(provision_module(p, "http.authentication.providers", name, value, &m, &one->cfg));
        one->face = m->face;
    }
    return OK;
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    const struct authentication *a = cfg;
    struct slice user = SLICE_NONE;
    for (size_t i = 0; i < a->count && user.len == 0; i++)
        TRY(a->providers[i].face->authenticate(a->providers[i].cfg, x, &user));
    if (user.len == 0)
        return exchange_fail(x, 401, "not authenticated");
    exchange_set_var(x, SLICE("http.auth.user.id"), user);
    x->log_user = user;
    return chain_next(x, next);
}

const struct module handler_authentication = {
    .id = "http.handlers.authentication",
    .cfg_size = sizeof(struct authentication),
    .provision = provision,
    .serve = serve,
};
