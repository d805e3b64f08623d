/* SPDX-License-Identifier: Apache-2.0 */
/*
 * intercept: looks at the response of the handlers behind it, and where a matcher fits, sends it with
 * another status, or lets routes answer instead.
 *
 *     {"handler": "intercept", "handle_response": [
 *         {"match": {"status_code": [404]}, "status_code": 200},
 *         {"match": {"headers": {"X-Accel-Redirect": ["*"]}}, "routes": […]}]}
 *
 * A new status streams through. For routes the original body is held back, up to a limit: it is sent
 * after all when they write none. They see {http.intercept.status_code} and {http.intercept.header.X},
 * and what they set joins the original fields.
 */
#include "base/buffer.h"
#include "handlers/handlers.h"
#include "http/response_match.h"
#include "http/route.h"

enum { HELD_MAX = 16 * 1024 * 1024 };

struct response_handler {
    struct response_match match;
    struct template status;
    struct route_list routes;
    bool has_status, has_routes;
};

struct intercept {
    struct response_handler *handlers;
    size_t count;
};

static const char *const members[] = {"handle_response", NULL};
static const char *const handler_members[] = {"match", "status_code", "routes", NULL};

static enum err read_handler(struct response_handler *h, const json_t *json, struct provision *p)
{
    const json_t *routes = json_object_get(json, "routes");
    TRY(provision_members(p, json, handler_members));
    TRY(response_match_provision(&h->match, json_object_get(json, "match"), p));
    TRY(provision_template(p, json, "status_code", SLICE(""), &h->status));
    h->has_status = h->status.text.len > 0;
    h->has_routes = routes != NULL && !json_is_null(routes);
    return route_list_provision(&h->routes, routes, p);
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct intercept *i = cfg;
    const json_t *list = json_object_get(json, "handle_response");
    TRY(provision_members(p, json, members));
    if (list != NULL && !json_is_null(list) && !json_is_array(list))
        return provision_fail(p, "\"handle_response\" must be an array");
    i->handlers = ARENA_ARRAY(p->arena, struct response_handler, json_array_size(list));
    struct slice outer = p->path;
    for (; i->count < json_array_size(list); i->count++) {
        p->path = arena_printf(p->arena, SLICE_FMT ".handle_response[%zu]", SLICE_ARG(outer),
                               i->count);
        TRY(read_handler(&i->handlers[i->count], json_array_get(list, i->count), p));
    }
    p->path = outer;
    return OK;
}

/* --- the original response --- */

struct original {
    struct sink sink;
    const struct intercept *config;
    const struct response_handler *chosen; /* its routes will answer; NULL: all passes */
    struct buffer body;
};

static struct original *of(struct sink *s)
{
    return (struct original *)s; /* its first member */
}

static enum err original_head(struct sink *s, struct response *res)
{
    struct original *o = of(s);
    for (size_t i = 0; i < o->config->count && res->status / 100 != 1; i++) {
        const struct response_handler *h = &o->config->handlers[i];
        if (!response_match(&h->match, res->status, &res->fields))
            continue;
        if (h->has_status) {
            if (!template_status(&h->status, s->exchange, &res->status))
                res->status = 500;
        } else if (h->has_routes) {
            o->chosen = h;
            res->head_sent = true; /* settled, though it stays here */
            return OK;
        }
        break;
    }
    return sink_pass_head(s, res);
}

static enum err original_data(struct sink *s, struct slice bytes, enum lend lend)
{
    struct original *o = of(s);
    return o->chosen != NULL ? buffer_append(&o->body, bytes) : sink_pass_data(s, bytes, lend);
}

static enum err original_file(struct sink *s, int fd, uint64_t offset, uint64_t len)
{
    if (of(s)->chosen == NULL)
        return sink_pass_file(s, fd, offset, len);
    return len <= HELD_MAX ? sink_file_as_data(s, fd, offset, len) : ERR_LIMIT;
}

static enum err original_flush(struct sink *s)
{
    return of(s)->chosen != NULL ? OK : sink_pass_flush(s);
}

static enum err original_end(struct sink *s, const struct fields *trailers)
{
    return of(s)->chosen != NULL ? OK : sink_pass_end(s, trailers);
}

static const struct sink_type original_type = {
    .inform = sink_pass_inform,
    .head = original_head,
    .data = original_data,
    .file = original_file,
    .flush = original_flush,
    .end = original_end,
    .abort = sink_pass_abort,
};

/* --- the one that replaces it: its head waits to see whether a body follows --- */

struct replacement {
    struct sink sink;
    struct response *res; /* once it came */
    bool passed;
};

static enum err replacement_head(struct sink *s, struct response *res)
{
    struct replacement *r = (struct replacement *)s;
    r->res = res;
    res->head_sent = true;
    return OK;
}

static enum err pass_head(struct replacement *r)
{
    if (r->passed || r->res == NULL)
        return OK;
    r->passed = true;
    return sink_pass_head(&r->sink, r->res);
}

static enum err replacement_data(struct sink *s, struct slice bytes, enum lend lend)
{
    TRY(pass_head((struct replacement *)s));
    return sink_pass_data(s, bytes, lend);
}

static enum err replacement_file(struct sink *s, int fd, uint64_t offset, uint64_t len)
{
    TRY(pass_head((struct replacement *)s));
    return sink_pass_file(s, fd, offset, len);
}

static enum err replacement_flush(struct sink *s)
{
    return ((struct replacement *)s)->passed ? sink_pass_flush(s) : OK;
}

static enum err replacement_end(struct sink *s, const struct fields *trailers)
{
    return ((struct replacement *)s)->passed ? sink_pass_end(s, trailers) : OK;
}

static const struct sink_type replacement_type = {
    .inform = sink_pass_inform,
    .head = replacement_head,
    .data = replacement_data,
    .file = replacement_file,
    .flush = replacement_flush,
    .end = replacement_end,
    .abort = sink_pass_abort,
};

/* --- serving --- */

static void set_placeholders(struct exchange *x)
{
    const struct fields *fields = &x->res.fields;
    exchange_set_var(x, SLICE("http.intercept.status_code"),
                     arena_printf(x->arena, "%d", x->res.status));
    for (uint32_t i = 0; i < fields->count; i++) {
        struct slice key = arena_join(x->arena, (struct slice[]){SLICE("http.intercept.header."),
                                                                 fields->items[i].name}, 2);
        struct slice before, value = fields->items[i].value;
        if (exchange_get_var(x, key, &before))
            value = arena_join(x->arena, (struct slice[]){before, SLICE(","), value}, 3);
        exchange_set_var(x, key, value);
    }
}

/* The original body, under the new status if there is one. */
static enum err send_original(const struct original *o, struct exchange *x)
{
    struct slice body = buffer_slice(&o->body);
    bool bodiless = exchange_bodiless(x, x->res.status);
    if (!bodiless)
        x->res.content_length = (int64_t)body.len;
    TRY(x->sink->type->head(x->sink, &x->res));
    return body.len > 0 && !bodiless ? x->sink->type->data(x->sink, body, LEND_BORROWED) : OK;
}

static enum err run_routes(struct original *o, struct exchange *x, struct replacement *r)
{
    enum err e = route_list_run(&o->chosen->routes, x, NULL);
    if (e == OK && x->sink != &r->sink && x->res.head_sent)
        e = x->sink->type->end(x->sink, NULL);
    if (e != OK && !r->passed)
        x->res.head_sent = false; /* nothing was sent: the error routes may answer */
    return e;
}

static enum err answer_instead(struct original *o, struct exchange *x)
{
    struct replacement *r = ARENA_NEW(x->arena, struct replacement);
    struct response before = x->res;
    if (x->sink != &o->sink)
        TRY(x->sink->type->end(x->sink, NULL)); /* what wraps within may hold something back */
    set_placeholders(x);
    x->sink = o->sink.below;
    x->res.status = 0;
    x->res.head_sent = false;
    x->res.content_length = -1;
    x->res.length_told = false;
    exchange_wrap(x, &r->sink, &replacement_type);
    TRY(run_routes(o, x, r));
    x->sink = o->sink.below;
    if (r->passed)
        return OK;
    if (x->res.status == 0)
        x->res.status = before.status;
    if (r->res == NULL)
        x->res.content_length = before.content_length;
    return send_original(o, x);
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    struct original *o = ARENA_NEW(x->arena, struct original);
    exchange_wrap(x, &o->sink, &original_type);
    o->config = cfg;
    buffer_init(&o->body, HELD_MAX);
    enum err e = chain_next(x, next);
    if (o->chosen != NULL && e != OK)
        x->res.head_sent = false; /* what was held back is forgotten: the error routes may answer */
    if (o->chosen != NULL && e == ERR_LIMIT)
        e = exchange_fail(x, 502, "intercept: the response is too large to be held back");
    else if (o->chosen != NULL && e == OK)
        e = answer_instead(o, x);
    buffer_deinit(&o->body);
    return e;
}

const struct module handler_intercept = {
    .id = "http.handlers.intercept",
    .cfg_size = sizeof(struct intercept),
    .provision = provision,
    .serve = serve,
};
