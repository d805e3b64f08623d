/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log_append: adds a field to the request's line in the access log. The value is a placeholder,
 * the name of a variable, or a constant; it is looked up when the handlers behind have run, or
 * before them when "early" says so. {http.response.body} and {http.response.body_base64} are what
 * passes through the sink, up to a limit.
 *
 *     {"handler": "log_append", "key": "upstream", "value": "{http.vars.up}", "early": false}
 */
#include "base/list.h"
#include "base/log.h"
#include "base/text.h"
#include "handlers/handlers.h"
#include "http/access_log.h"
#include "http/route.h"
#include "http/server.h"

enum { BODY_MAX = 1 << 20 };

enum form { AS_TEXT, AS_NUMBER, AS_DURATION, AS_TRUTH };

/* Placeholders that are no texts: what reads logs shall be able to count with them, as with Caddy's. */
static const struct {
    const char *name;
    enum form form;
} typed[] = {
    {"http.error.status_code", AS_NUMBER},
    {"http.intercept.status_code", AS_NUMBER},
    {"http.request.duration", AS_DURATION},
    {"http.request.duration_ms", AS_NUMBER},
    {"http.reverse_proxy.duration", AS_DURATION},
    {"http.reverse_proxy.duration_ms", AS_NUMBER},
    {"http.reverse_proxy.is_transport_error", AS_TRUTH},
    {"http.reverse_proxy.retries", AS_NUMBER},
    {"http.reverse_proxy.status_code", AS_NUMBER},
    {"http.reverse_proxy.upstream.connect", AS_DURATION},
    {"http.reverse_proxy.upstream.connect_ms", AS_NUMBER},
    {"http.reverse_proxy.upstream.duration", AS_DURATION},
    {"http.reverse_proxy.upstream.duration_ms", AS_NUMBER},
    {"http.reverse_proxy.upstream.fails", AS_NUMBER},
    {"http.reverse_proxy.upstream.latency", AS_DURATION},
    {"http.reverse_proxy.upstream.latency_ms", AS_NUMBER},
    {"http.reverse_proxy.upstream.max_requests", AS_NUMBER},
    {"http.reverse_proxy.upstream.requests", AS_NUMBER},
};

struct log_append {
    struct slice key, value;
    struct slice placeholder; /* without braces; empty: none */
    struct slice variable;    /* "http.vars.VALUE" */
    enum form form;           /* of the placeholder */
    bool early, body, base64;
};

struct body_sink { /* sees the response go by */
    struct sink sink;
    struct buffer seen;
};

static const char *const members[] = {"key", "value", "early", NULL};

static enum form form_of(struct slice name)
{
    for (size_t i = 0; i < sizeof typed / sizeof *typed; i++)
        if (slice_is(name, typed[i].name))
            return typed[i].form;
    return AS_TEXT;
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct log_append *a = cfg;
    TRY(provision_members(p, json, members));
    TRY(provision_text(p, json, "key", SLICE(""), &a->key));
    TRY(provision_text(p, json, "value", SLICE(""), &a->value));
    TRY(provision_bool(p, json, "early", false, &a->early));
    struct slice v = a->value;
    if (v.len > 2 && v.ptr[0] == '{' && v.ptr[v.len - 1] == '}' &&
        slice_find(slice_skip(v, 1), '{') == SIZE_MAX)
        a->placeholder = slice_of(v.ptr + 1, v.len - 2);
    a->form = form_of(a->placeholder);
    a->variable = arena_join(p->arena, (struct slice[]){SLICE("http.vars."), v}, 2);
    a->base64 = slice_is(v, "{http.response.body_base64}");
    a->body = a->base64 || slice_is(v, "{http.response.body}");
    a->early = a->early || slice_is(v, "{http.request.body}") ||
               slice_is(v, "{http.request.body_base64}");
    return OK;
}

static bool is_number(struct slice s)
{
    size_t i = s.len > 0 && s.ptr[0] == '-';
    if (i == s.len || s.ptr[i] < '0' || s.ptr[i] > '9')
        return false;
    for (; i < s.len; i++)
        if ((s.ptr[i] < '0' || s.ptr[i] > '9') && memchr(".e+-", s.ptr[i], 4) == NULL)
            return false;
    return true;
}

/* A text that is none of these stays one. */
static void give_form(struct log_field *f, enum form form)
{
    int64_t ns;
    if (form == AS_DURATION && duration_parse(f->text, &ns) == OK) {
        f->kind = LOG_DURATION;
        f->number = ns;
    } else if (form == AS_TRUTH) {
        bool truth = slice_is(f->text, "true");
        f->kind = LOG_BOOL;
        f->truth = truth;
    } else if (form == AS_NUMBER && is_number(f->text)) {
        f->kind = LOG_JSON;
    }
}

static void add(const struct log_append *a, struct exchange *x)
{
    struct log_field f = {.key = a->key, .kind = LOG_STRING, .text = a->value};
    if (a->placeholder.len > 0) {
        if (placeholder_get(x, a->placeholder, &f.text)) {
            f.text = arena_copy(x->arena, f.text);
            give_form(&f, a->form);
        } else {
            f = (struct log_field){.key = a->key, .kind = LOG_JSON, .text = SLICE("null")};
        }
    } else if (exchange_get_var(x, a->variable, &f.text)) {
        f.text = arena_copy(x->arena, f.text);
    } else {
        f.text = a->value;
    }
    access_log_add(x, &f);
}

/* --- the response's body --- */

static enum err on_data(struct sink *s, struct slice bytes, enum lend lend)
{
    struct body_sink *b = CONTAINER_OF(s, struct body_sink, sink);
    (void)!buffer_append(&b->seen, slice_take(bytes, b->seen.max - b->seen.len));
    return sink_pass_data(s, bytes, lend);
}

static const struct sink_type body_sink = {
    .inform = sink_pass_inform,
    .head = sink_pass_head,
    .data = on_data,
    .file = sink_file_as_data,
    .flush = sink_pass_flush,
    .end = sink_pass_end,
    .abort = sink_pass_abort,
};

static void release_seen(struct exchange *x, void *arg)
{
    (void)x;
    buffer_deinit(&((struct body_sink *)arg)->seen);
}

static void add_body(const struct log_append *a, struct exchange *x, const struct buffer *seen)
{
    struct buffer text;
    struct log_field f = {.key = a->key, .kind = LOG_STRING};
    buffer_init(&text, 2 * BODY_MAX);
    if (a->base64)
        (void)!base64_encode(&text, buffer_slice(seen));
    f.text = arena_copy(x->arena, a->base64 ? buffer_slice(&text) : buffer_slice(seen));
    buffer_deinit(&text);
    access_log_add(x, &f);
}

static enum err serve_body(const struct log_append *a, struct exchange *x, const struct chain *next)
{
    struct body_sink *b = ARENA_NEW(x->arena, struct body_sink);
    buffer_init(&b->seen, BODY_MAX);
    exchange_on_end(x, release_seen, b);
    exchange_wrap(x, &b->sink, &body_sink);
    enum err e = chain_next(x, next);
    add_body(a, x, &b->seen);
    return e;
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    const struct log_append *a = cfg;
    if (x->server->logs == NULL)
        return chain_next(x, next);
    if (a->body)
        return serve_body(a, x, next);
    if (a->early)
        add(a, x);
    enum err e = chain_next(x, next);
    if (!a->early)
        add(a, x);
    return e;
}

const struct module handler_log_append = {
    .id = "http.handlers.log_append",
    .cfg_size = sizeof(struct log_append),
    .provision = provision,
    .serve = serve,
};
