/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vars: sets variables of the request, {http.vars.NAME}. root becomes this too, with the variable
 * `root`.
 *
 *     {"handler": "vars", "root": "/srv/www", "answer": 42}
 */
#include "handlers/handlers.h"
#include "http/route.h"

struct var {
    struct slice key; /* "http.vars.NAME" */
    struct template name, value;
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
        struct slice text;
        if (json_is_string(value)) {
            text = slice_of(json_string_value(value), json_string_length(value));
        } else {
            char *dump = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
            text = arena_copy(p->arena, slice_from(dump));
            free(dump);
        }
        item->key = arena_join(p->arena, (struct slice[]){SLICE("http.vars."), slice_from(name)}, 2);
        template_compile(&item->name, slice_from(name), p->arena);
        template_compile(&item->value, text, p->arena);
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

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    const struct vars *v = cfg;
    for (size_t i = 0; i < v->count; i++)
        exchange_set_var(x, key_of(&v->items[i], x), template_expand(&v->items[i].value, x));
    return chain_next(x, next);
}

const struct module handler_vars = {
    .id = "http.handlers.vars",
    .cfg_size = sizeof(struct vars),
    .provision = provision,
    .serve = serve,
};
