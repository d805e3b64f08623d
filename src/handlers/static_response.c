/* SPDX-License-Identifier: Apache-2.0 */
/*
 * static_response: a fixed status, fields and body; or the connection cut without an answer. What
 * respond, redir and abort become. Placeholders are compiled at provision, so a constant body costs
 * nothing per request and is sent from the generation's memory.
 *
 *     {"handler": "static_response", "status_code": 200, "headers": {"Location": ["/x"]},
 *      "body": "hello", "close": false, "abort": false}
 */
#include "config/jsonx.h"
#include "handlers/handlers.h"
#include "http/route.h"

struct preset_field {
    struct template name;
    struct template *values;
    size_t count;
};

struct static_response {
    struct template status, body;
    struct preset_field *fields;
    size_t fields_count;
    struct slice body_type; /* Content-Type that a constant body implies */
    bool close, abort, has_status;
};

/* The parser recurses on a fiber's stack, over what may be the client's own words. */
enum { IMPLIED_DEPTH = 64 };

static const char *const members[] = {"status_code", "headers", "body", "close", "abort", NULL};

static enum err read_field(struct preset_field *f, const char *name, const json_t *values,
                           struct provision *p)
{
    template_compile(&f->name, slice_from(name), p->arena);
    if (!json_is_array(values))
        return provision_fail(p, "\"headers\" must hold arrays of strings");
    f->count = json_array_size(values);
    f->values = ARENA_ARRAY(p->arena, struct template, f->count);
    for (size_t i = 0; i < f->count; i++) {
        const json_t *v = json_array_get(values, i);
        if (!json_is_string(v))
            return provision_fail(p, "\"headers\" must hold arrays of strings");
        template_compile(&f->values[i], slice_of(json_string_value(v), json_string_length(v)),
                         p->arena);
    }
    return OK;
}

static enum err read_fields(struct static_response *r, const json_t *json, struct provision *p)
{
    const json_t *headers = json_object_get(json, "headers");
    const char *name;
    json_t *values;
    if (headers == NULL)
        return OK;
    if (!json_is_object(headers))
        return provision_fail(p, "\"headers\" must be an object");
    r->fields = ARENA_ARRAY(p->arena, struct preset_field, json_object_size(headers));
    json_object_foreach((json_t *)(uintptr_t)headers, name, values)
        TRY(read_field(&r->fields[r->fields_count++], name, values, p));
    return OK;
}

/* A body that is a whole JSON object or array is announced as JSON, all else as plain text. */
static struct slice implied_type(struct slice body)
{
    struct slice text = slice_trim(body);
    char first = text.len > 2 ? text.ptr[0] : '\0';
    if ((first == '{' || first == '[') && !jsonx_too_deep(text, IMPLIED_DEPTH)) {
        json_t *v = json_loadb(text.ptr, text.len, 0, NULL);
        json_decref(v);
        if (v != NULL)
            return SLICE("application/json");
    }
    return SLICE("text/plain; charset=utf-8");
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct static_response *r = cfg;
    TRY(provision_members(p, json, members));
    r->has_status = json_object_get(json, "status_code") != NULL;
    TRY(provision_template(p, json, "status_code", SLICE("200"), &r->status));
    TRY(provision_template(p, json, "body", SLICE(""), &r->body));
    TRY(read_fields(r, json, p));
    TRY(provision_bool(p, json, "close", false, &r->close));
    TRY(provision_bool(p, json, "abort", false, &r->abort));
    if (r->body.constant)
        r->body_type = implied_type(r->body.text);
    return OK;
}

static void set_fields(const struct static_response *r, struct exchange *x)
{
    for (size_t i = 0; i < r->fields_count; i++) {
        const struct preset_field *f = &r->fields[i];
        struct slice name = template_expand(&f->name, x);
        fields_remove(&x->res.fields, name);
        for (size_t k = 0; k < f->count; k++)
            fields_add(&x->res.fields, name, template_expand(&f->values[k], x));
    }
}

static enum err choose_status(const struct static_response *r, struct exchange *x, int *status)
{
    *status = x->error.status > 0 ? x->error.status : 200;
    if (!r->has_status)
        return OK;
    if (!template_status(&r->status, x, status))
        return exchange_fail(x, 500, "respond: the status code is not a number from 100 to 999");
    return OK;
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    const struct static_response *r = cfg;
    int status;
    if (r->abort)
        return ERR_CANCELLED;
    if (r->close)
        x->close_after = true;
    if (r->fields_count > 0)
        set_fields(r, x);
    struct slice body = template_expand_known(&r->body, x);
    if (body.len > 0 && !fields_has(&x->res.fields, SLICE("Content-Type")))
        fields_add(&x->res.fields, SLICE("Content-Type"),
                   r->body.constant ? r->body_type : implied_type(body));
    TRY(choose_status(r, x, &status));
    if (status != 103)
        return exchange_answer(x, status, body);
    TRY(x->sink->type->inform(x->sink, status, &x->res.fields));
    return chain_next(x, next);
}

const struct module handler_static_response = {
    .id = "http.handlers.static_response",
    .cfg_size = sizeof(struct static_response),
    .provision = provision,
    .serve = serve,
};
