/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What handlers do with an exchange: answer, fail, read the body, keep variables. Everything goes
 * through the top of the sink stack, so a handler never knows who wraps it. The head leaves when
 * the first byte, the flush or the end asks for it; until then a handler further out may change it.
 */
#include "http/exchange.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/buffer.h"
#include "base/check.h"
#include "base/clock.h"
#include "loop/fiber.h"

enum { WHOLE_BODY_MAX = 1 << 20, BODY_PIECE = 16384 };

static const struct {
    enum method id;
    struct slice name;
} methods[] = {
    {METHOD_GET, {"GET", 3}},         {METHOD_HEAD, {"HEAD", 4}},   {METHOD_POST, {"POST", 4}},
    {METHOD_PUT, {"PUT", 3}},         {METHOD_DELETE, {"DELETE", 6}},
    {METHOD_OPTIONS, {"OPTIONS", 7}}, {METHOD_PATCH, {"PATCH", 5}},
    {METHOD_CONNECT, {"CONNECT", 7}}, {METHOD_TRACE, {"TRACE", 5}},
};

enum method method_parse(struct slice name)
{
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        if (slice_eq(methods[i].name, name))
            return methods[i].id;
    }
    return METHOD_OTHER;
}

static const struct {
    int status;
    const char *text;
} statuses[] = {
    {100, "Continue"}, {101, "Switching Protocols"}, {102, "Processing"}, {103, "Early Hints"},
    {200, "OK"}, {201, "Created"}, {202, "Accepted"}, {203, "Non-Authoritative Information"},
    {204, "No Content"}, {205, "Reset Content"}, {206, "Partial Content"}, {207, "Multi-Status"},
    {208, "Already Reported"}, {226, "IM Used"}, {300, "Multiple Choices"},
    {301, "Moved Permanently"}, {302, "Found"}, {303, "See Other"}, {304, "Not Modified"},
    {305, "Use Proxy"}, {307, "Temporary Redirect"}, {308, "Permanent Redirect"},
    {400, "Bad Request"}, {401, "Unauthorized"}, {402, "Payment Required"}, {403, "Forbidden"},
    {404, "Not Found"}, {405, "Method Not Allowed"}, {406, "Not Acceptable"},
    {407, "Proxy Authentication Required"}, {408, "Request Timeout"}, {409, "Conflict"},
    {410, "Gone"}, {411, "Length Required"}, {412, "Precondition Failed"},
    {413, "Request Entity Too Large"}, {414, "Request URI Too Long"},
    {415, "Unsupported Media Type"}, {416, "Requested Range Not Satisfiable"},
    {417, "Expectation Failed"}, {418, "I'm a teapot"}, {421, "Misdirected Request"},
    {422, "Unprocessable Entity"}, {423, "Locked"}, {424, "Failed Dependency"},
    {425, "Too Early"}, {426, "Upgrade Required"}, {428, "Precondition Required"},
    {429, "Too Many Requests"}, {431, "Request Header Fields Too Large"},
    {451, "Unavailable For Legal Reasons"}, {500, "Internal Server Error"},
    {501, "Not Implemented"}, {502, "Bad Gateway"}, {503, "Service Unavailable"},
    {504, "Gateway Timeout"}, {505, "HTTP Version Not Supported"},
    {506, "Variant Also Negotiates"}, {507, "Insufficient Storage"}, {508, "Loop Detected"},
    {510, "Not Extended"}, {511, "Network Authentication Required"},
};

const char *status_text(int status)
{
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        if (statuses[i].status == status)
            return statuses[i].text;
    }
    return "";
}

bool exchange_bodiless(const struct exchange *x, int status)
{
    return x->req.method_id == METHOD_HEAD || status == 204 || status == 304 || status / 100 == 1;
}

enum err exchange_head(struct exchange *x)
{
    if (x->res.head_sent)
        return OK;
    if (x->res.status == 0)
        x->res.status = 200;
    if (x->timed && x->head_ns == 0)
        x->head_ns = clock_mono_ns();
    return x->sink->type->head(x->sink, &x->res);
}

enum err exchange_data(struct exchange *x, struct slice bytes, enum lend lend)
{
    TRY(exchange_head(x));
    return bytes.len > 0 ? x->sink->type->data(x->sink, bytes, lend) : OK;
}

enum err exchange_file(struct exchange *x, int fd, uint64_t offset, uint64_t len)
{
    TRY(exchange_head(x));
    return len > 0 ? x->sink->type->file(x->sink, fd, offset, len) : OK;
}

enum err exchange_flush(struct exchange *x)
{
    TRY(exchange_head(x));
    return x->sink->type->flush(x->sink);
}

enum err exchange_end(struct exchange *x)
{
    TRY(exchange_head(x));
    return x->sink->type->end(x->sink, x->res.trailers);
}

enum err exchange_answer(struct exchange *x, int status, struct slice body)
{
    x->res.status = status;
    x->res.content_length = (int64_t)body.len;
    if (exchange_bodiless(x, status))
        return exchange_head(x);
    return exchange_data(x, body, LEND_STABLE);
}

/* Nine letters and digits, as Caddy's error ids. */
static void make_error_id(struct exchange *x)
{
    static const char alphabet[] = "abcdefghijkmnpqrstuvwxyz0123456789";
    uint64_t seed = x->start_ns * 0x9e3779b97f4a7c15u ^ (uintptr_t)x;
    for (int i = 0; i < 9; i++) {
        seed ^= seed >> 29;
        seed *= 0xbf58476d1ce4e5b9u;
        x->error.id[i] = alphabet[(seed >> 40) % (sizeof alphabet - 1)];
    }
    x->error.id[9] = '\0';
}

enum err exchange_fail(struct exchange *x, int status, const char *message)
{
    x->error.status = status;
    x->error.message = slice_from(message);
    make_error_id(x);
    return ERR_FAILED;
}

enum err exchange_fail_f(struct exchange *x, int status, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return exchange_fail(x, status, arena_str(x->arena, slice_from(text)));
}

static enum err read_carrier(struct exchange *x, char *buf, size_t cap, size_t *n)
{
    struct body_reader *b = x->body_reader;
    if (b != NULL && b->fiber != fiber_self())
        b->stop(b);
    return x->carrier->read_body(x, buf, cap, n);
}

bool exchange_whole_body(struct exchange *x, struct slice *whole)
{
    struct buffer b;
    size_t n = 0;
    enum err e = OK;
    *whole = x->body;
    if (x->body_set || !x->req.has_body)
        return true;
    buffer_init(&b, WHOLE_BODY_MAX);
    (void)!buffer_append(&b, x->body);
    do {
        e = buffer_reserve(&b, b.len < WHOLE_BODY_MAX - BODY_PIECE ? BODY_PIECE : 1);
        if (e == OK)
            e = read_carrier(x, b.ptr + b.len, b.cap - b.len, &n);
        b.len += e == OK ? n : 0;
    } while (e == OK && n > 0 && x->body_read + b.len <= x->body_max);
    if (x->body_read + b.len > x->body_max)
        e = ERR_LIMIT; /* whoever reads on is told that it is too large */
    *whole = x->body = arena_copy(x->arena, buffer_slice(&b)); /* what was read stays readable */
    x->body_set = e == OK;
    buffer_deinit(&b);
    return e == OK;
}

enum err exchange_read(struct exchange *x, char *buf, size_t cap, size_t *n)
{
    *n = 0;
    if (x->body.len > 0) {
        *n = x->body.len < cap ? x->body.len : cap;
        memcpy(buf, x->body.ptr, *n);
        x->body = slice_skip(x->body, *n);
    } else if (x->req.has_body && !x->body_set) {
        enum err e = read_carrier(x, buf, cap, n);
        if (e != OK)
            return e;
    }
    x->body_read += *n;
    if (x->body_read <= x->body_max)
        return OK;
    *n = 0;
    x->close_after = true;
    return exchange_fail(x, 413, "http: request body too large");
}

void exchange_set_var(struct exchange *x, struct slice name, struct slice value)
{
    for (uint32_t i = 0; i < x->vars_count; i++) {
        if (slice_eq(x->vars[i].name, name)) {
            x->vars[i].value = value;
            return;
        }
    }
    if (x->vars_count == x->vars_cap) {
        uint32_t cap = x->vars_cap > 0 ? x->vars_cap * 2 : 8;
        struct exchange_var *vars = arena_alloc(x->arena, cap * sizeof *vars);
        if (x->vars_count > 0)
            memcpy(vars, x->vars, x->vars_count * sizeof *vars);
        x->vars = vars;
        x->vars_cap = cap;
    }
    x->vars[x->vars_count++] = (struct exchange_var){name, value};
}

bool exchange_get_var(const struct exchange *x, struct slice name, struct slice *value)
{
    for (uint32_t i = 0; i < x->vars_count; i++) {
        if (slice_eq(x->vars[i].name, name)) {
            *value = x->vars[i].value;
            return true;
        }
    }
    *value = SLICE_NONE;
    return false;
}

void exchange_add_mapper(struct exchange *x, struct exchange_mapper *m)
{
    struct exchange_mapper **last = &x->mappers;
    while (*last != NULL)
        last = &(*last)->next;
    m->next = NULL;
    *last = m;
}

bool exchange_mapped(struct exchange *x, struct slice name, struct slice *value)
{
    for (struct exchange_mapper *m = x->mappers; m != NULL; m = m->next) {
        if (m->busy)
            continue;
        m->busy = true;
        bool known = m->get(x, m->cfg, name, value);
        m->busy = false;
        if (known)
            return true;
    }
    *value = SLICE_NONE;
    return false;
}

void exchange_on_end(struct exchange *x, void (*run)(struct exchange *, void *), void *arg)
{
    struct exchange_hook *hook = ARENA_NEW(x->arena, struct exchange_hook);
    *hook = (struct exchange_hook){x->hooks, run, arg};
    x->hooks = hook;
}

void exchange_wrap(struct exchange *x, struct sink *s, const struct sink_type *type)
{
    *s = (struct sink){.type = type, .below = x->sink, .exchange = x};
    x->sink = s;
}
