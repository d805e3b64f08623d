/* SPDX-License-Identifier: Apache-2.0 */
/*
 * headers: changes fields of the request at once and of the response at once or, when deferred or
 * conditional, as the head leaves. The order within one handler is Caddy's: delete everything
 * ("*"), add, set, delete by name or wildcard, replace.
 *
 *     {"handler": "headers",
 *      "request":  {"add": {…}, "set": {"X-A": ["1"]}, "delete": ["X-B*"], "replace": {…}},
 *      "response": {… the same, "deferred": true, "require": {"status_code": [2], "headers": {…}}}}
 */

#include "handlers/handlers.h"
#include "http/client_ip.h"
#include "http/field_ops.h"
#include "http/response_match.h"
#include "http/route.h"
#include "wire/h1_head.h"

struct headers {
    struct field_ops request, response;
    bool has_request, has_response, deferred, conditional;
    struct response_match require;
};

static const char *const members[] = {"request", "response", NULL};
static const char *const ops_members[] = {"add", "set", "delete", "replace", NULL};
static const char *const response_members[] = {"add",     "set",      "delete", "replace",
                                               "require", "deferred", NULL};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct headers *h = cfg;
    const json_t *request = json_object_get(json, "request");
    const json_t *response = json_object_get(json, "response");
    TRY(provision_members(p, json, members));
    h->has_request = request != NULL;
    h->has_response = response != NULL;
    if (h->has_request) {
        TRY(provision_members(p, request, ops_members));
        TRY(field_ops_provision(&h->request, request, p));
    }
    if (!h->has_response)
        return OK;
    TRY(provision_members(p, response, response_members));
    TRY(field_ops_provision(&h->response, response, p));
    TRY(provision_bool(p, response, "deferred", false, &h->deferred));
    const json_t *require = json_object_get(response, "require");
    h->conditional = require != NULL && !json_is_null(require);
    return response_match_provision(&h->require, require, p);
}

static void release(void *cfg)
{
    struct headers *h = cfg;
    field_ops_release(&h->request);
    field_ops_release(&h->response);
}

/* Values may be made of what a client sent, percent-decoded even. The request's fields are such as
 * could have come in a head, whatever was made of them: they go up to other servers. */
static void drop_malformed(struct fields *fs)
{
    for (uint32_t i = fs->count; i-- > 0;) {
        const struct field *f = &fs->items[i];
        if (!h1_name_ok(f->name) || !h1_value_ok(f->value) ||
            (slice_eq_nocase(f->name, SLICE("Host")) && !h1_host_ok(f->value)))
            fields_remove_at(fs, i);
    }
}

static void apply_to_request(const struct field_ops *o, struct exchange *x)
{
    struct fields *fs = &x->req.fields;
    uint32_t at = 0;
    client_ip_settle(x);
    fields_remove(fs, SLICE("Host"));
    fields_add(fs, SLICE("Host"), x->req.host); /* the authority, whatever the field said */
    field_ops_apply(o, fs, x);
    drop_malformed(fs);
    x->req.host = SLICE_NONE;
    for (struct field *f; (f = fields_find(fs, SLICE("Host"), &at)) != NULL;)
        x->req.host = f->value;
    if (x->req.host.ptr != NULL)
        fields_set(fs, SLICE("Host"), x->req.host);
}

struct late_headers {
    struct sink sink;
    const struct headers *config;
};

static enum err late_head(struct sink *s, struct response *res)
{
    const struct late_headers *late = (const struct late_headers *)s;
    const struct headers *h = late->config;
    if (!h->conditional || response_match(&h->require, res->status, &res->fields))
        field_ops_apply_response(&h->response, &res->fields, s->exchange);
    return sink_pass_head(s, res);
}

static const struct sink_type late_type = {
    .inform = sink_pass_inform,
    .head = late_head,
    .data = sink_pass_data,
    .file = sink_pass_file,
    .flush = sink_pass_flush,
    .end = sink_pass_end,
    .abort = sink_pass_abort,
};

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    const struct headers *h = cfg;
    if (h->has_request)
        apply_to_request(&h->request, x);
    if (h->has_response && (h->deferred || h->conditional)) {
        struct late_headers *late = ARENA_NEW(x->arena, struct late_headers);
        exchange_wrap(x, &late->sink, &late_type);
        late->config = h;
    } else if (h->has_response) {
        field_ops_apply_response(&h->response, &x->res.fields, x);
    }
    return chain_next(x, next);
}

const struct module handler_headers = {
    .id = "http.handlers.headers",
    .cfg_size = sizeof(struct headers),
    .provision = provision,
    .release = release,
    .serve = serve,
};
