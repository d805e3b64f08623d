/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vars: sets variables of the request, {http.vars.NAME}. root becomes this too, with the variable
 * `root`.
 *
 *     {"handler": "vars", "root": "/srv/www", "answer": 42}
 */
#include "handlers/handlers.h"
#include "handlers/json_text.h"
#include "http/route.h"

struct var {
    struct slice key; /* "http.vars.NAME" */
    struct template name, value;
    bool is_text; /* other values are not looked through for placeholders */
};

struct vars {
    struct var *items;
    size_t count;
};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct vars *v = cfg;
    const char *name;
    json_t *value;
    if (!json_is_object(json))
        return provision_fail(p, "must be an object");
    v->items = ARENA_ARRAY(p->arena, struct var, json_object_size(json));
    json_object_foreach((json_t *)(uintptr_t)json, name, value)
    {
        if (strcmp(name, "handler") == 0)
            continue;
        struct var *item = &v->items[v->count++];
        item->key = arena_join(p->arena, (struct slice[]){SLICE("http.vars."), slice_from(name)}, 2);
        template_compile(&item->name, slice_from(name), p->arena);
        item->is_text = json_is_string(value);
        template_compile(&item->value, json_text(value, p->arena), p->arena);
    }
    return OK;
}

static struct slice key_of(const struct var *item, struct exchange *x)
{
    if (item->name.constant)
        return item->key;
    struct slice name = template_expand(&item->name, x);
    return arena_join(x->arena, (struct slice[]){SLICE("http.vars."), name}, 2);
}

/* The two names that mean something to the server itself: who signed in, for the access log, and who
 * the client is. */
static void set(struct exchange *x, struct slice key, struct slice value)
{
    exchange_set_var(x, key, value);
    if (slice_is(key, "http.vars.http.auth.user.id")) {
        exchange_set_var(x, SLICE("http.auth.user.id"), value);
        x->log_user = value;
    } else if (slice_is(key, "http.vars.client_ip")) {
        exchange_addresses(x);
        x->client_ip = value;
    }
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    const struct vars *v = cfg;
    for (size_t i = 0; i < v->count; i++) {
        const struct var *item = &v->items[i];
        set(x, key_of(item, x), item->is_text ? template_expand(&item->value, x) : item->value.text);
    }
    return chain_next(x, next);
}

const struct module handler_vars = {
    .id = "http.handlers.vars",
    .cfg_size = sizeof(struct vars),
    .provision = provision,
    .serve = serve,
};
