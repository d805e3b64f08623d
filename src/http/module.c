/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Provisioning helpers: optional members with defaults, and one way of saying what is wrong and
 * where. A document is read once, from the control thread; nothing here runs per request.
 */
#include "http/module.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/text.h"

enum err provision_fail(struct provision *p, const char *format, ...)
{
    char text[800];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(p->error, sizeof p->error, SLICE_FMT ": %s", SLICE_ARG(p->path), text);
    return ERR_INVALID;
}

const struct module *provision_find(const struct provision *p, struct slice id)
{
    for (const struct module *const *m = p->modules; *m != NULL; m++) {
        if (slice_is(id, (*m)->id))
            return *m;
    }
    return NULL;
}

void provision_on_release(struct provision *p, void (*release)(void *), void *cfg)
{
    struct provision_release *r = ARENA_NEW(p->arena, struct provision_release);
    *r = (struct provision_release){p->releases, release, cfg};
    p->releases = r;
}

void provision_want_name(struct provision *p, struct slice name)
{
    struct wanted_name *w = ARENA_NEW(p->arena, struct wanted_name);
    *w = (struct wanted_name){p->wanted_names, name};
    p->wanted_names = w;
}

static const char *why_unknown(const char *id)
{
    bool missing = strcmp(id, "http.handlers.templates") == 0 || strcmp(id, "http.handlers.tracing") == 0;
    return missing ? ", which Caddy has, and this version of portico has not yet" : "";
}

enum err provision_module(struct provision *p, const char *space, const char *name,
                          const json_t *json, const struct module **module, void **cfg)
{
    char id[128];
    snprintf(id, sizeof id, "%s.%s", space, name);
    const struct module *m = provision_find(p, slice_from(id));
    if (m == NULL)
        return provision_fail(p, "unknown module: %s%s", id, why_unknown(id));
    void *c = arena_zalloc(p->arena, m->cfg_size);
    if (m->release != NULL)
        provision_on_release(p, m->release, c);
    TRY(m->provision(c, json, p));
    *module = m;
    *cfg = c;
    return OK;
}

enum err provision_members(struct provision *p, const json_t *object, const char *const known[])
{
    if (!json_is_object(object))
        return provision_fail(p, "must be an object");
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        const char *const *k = known;
        while (*k != NULL && strcmp(*k, key) != 0)
            k++;
        if (*k == NULL && strcmp(key, "handler") != 0)
            return provision_fail(p, "unknown member \"%s\"", key);
    }
    return OK;
}

static const json_t *member(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return json_is_null(v) ? NULL : v;
}

enum err provision_text(struct provision *p, const json_t *object, const char *key,
                        struct slice fallback, struct slice *out)
{
    const json_t *v = member(object, key);
    *out = fallback;
    if (v == NULL)
        return OK;
    if (!json_is_string(v))
        return provision_fail(p, "\"%s\" must be a string", key);
    *out = arena_copy(p->arena, slice_of(json_string_value(v), json_string_length(v)));
    return OK;
}

enum err provision_template(struct provision *p, const json_t *object, const char *key,
                            struct slice fallback, struct template *out)
{
    const json_t *v = member(object, key);
    struct slice text;
    if (json_is_integer(v)) /* WeakString: a status code may be a number or text */
        text = arena_printf(p->arena, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else
        TRY(provision_text(p, object, key, fallback, &text));
    template_compile(out, text, p->arena);
    return OK;
}

enum err provision_bool(struct provision *p, const json_t *object, const char *key, bool fallback,
                        bool *out)
{
    const json_t *v = member(object, key);
    *out = v != NULL ? json_is_true(v) : fallback;
    if (v != NULL && !json_is_boolean(v))
        return provision_fail(p, "\"%s\" must be true or false", key);
    return OK;
}

enum err provision_int(struct provision *p, const json_t *object, const char *key,
                       int64_t fallback, int64_t min, int64_t max, int64_t *out)
{
    const json_t *v = member(object, key);
    *out = fallback;
    if (v == NULL)
        return OK;
    if (!json_is_integer(v))
        return provision_fail(p, "\"%s\" must be a whole number", key);
    *out = json_integer_value(v);
    if (*out < min || *out > max)
        return provision_fail(p, "\"%s\" must be from %lld to %lld", key, (long long)min,
                              (long long)max);
    return OK;
}

enum err provision_duration(struct provision *p, const json_t *object, const char *key,
                            int64_t fallback, int64_t *out)
{
    const json_t *v = member(object, key);
    *out = fallback;
    if (v == NULL)
        return OK;
    if (json_is_integer(v)) {
        *out = json_integer_value(v);
        return OK;
    }
    if (!json_is_string(v) ||
        duration_parse(slice_of(json_string_value(v), json_string_length(v)), out) != OK)
        return provision_fail(p, "\"%s\" must be a duration", key);
    return OK;
}

enum err provision_texts(struct provision *p, const json_t *object, const char *key,
                         struct slice **out, size_t *count)
{
    const json_t *v = member(object, key);
    *out = NULL;
    *count = 0;
    if (v == NULL)
        return OK;
    if (!json_is_array(v))
        return provision_fail(p, "\"%s\" must be an array of strings", key);
    size_t n = json_array_size(v);
    struct slice *texts = ARENA_ARRAY(p->arena, struct slice, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(v, i);
        if (!json_is_string(item))
            return provision_fail(p, "\"%s\" must be an array of strings", key);
        texts[i] = arena_copy(p->arena,
                              slice_of(json_string_value(item), json_string_length(item)));
    }
    *out = texts;
    *count = n;
    return OK;
}
