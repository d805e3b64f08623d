/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transport "fastcgi": PHP, and whatever else speaks FastCGI as a responder.
 *
 *     {"protocol": "fastcgi", "root": "/srv/app", "split_path": [".php"], "env": {"NAME": "value"},
 *      "resolve_root_symlink": true, "capture_stderr": true,
 *      "dial_timeout": "3s", "read_timeout": "60s", "write_timeout": "60s", "keepalive": 2}
 *
 * A connection serves one request, as in Caddy: php-fpm binds a whole process to each connection for
 * as long as that lasts, so that idle ones are processes which nobody else can have. Who has enough of
 * them may say how many of each thread are kept. Closing one is how a request is given up.
 *
 * The environment leaves in one piece with the body, where that is in memory; else the upload's fiber
 * sends it while the answer may come already. The two timeouts are of the request as a whole.
 */
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "client/fastcgi_answer.h"
#include "proxy/gateway.h"
#include "proxy/proxy.h"
#include "wire/h1_head.h"

#define LOGGER "http.reverse_proxy.transport.fastcgi"
#define KEPT_NS (60 * NS_PER_S)

enum {
    BODY_COPIED = 16384,  /* behind the environment */
    RECORDS_AT_ONCE = 16, /* of a larger body that is in memory */
    HEAD_MAX = 10 << 20,  /* of an answer */
    KEPT_MAX = 1024,
};

static const struct fastcgi_transport *transport_of(const struct round *r)
{
    return CONTAINER_OF(r->g->transport, struct fastcgi_transport, link);
}

/* --- configuration --- */

static enum err read_splits(struct fastcgi_transport *t, const json_t *json, struct provision *p)
{
    TRY(provision_texts(p, json, "split_path", &t->splits, &t->splits_count));
    for (size_t i = 0; i < t->splits_count; i++) {
        char *lower = arena_str(p->arena, t->splits[i]);
        for (size_t k = 0; k < t->splits[i].len; k++) {
            if ((unsigned char)lower[k] >= 0x80)
                return provision_fail(p, "split path contains non-ASCII characters");
            lower[k] = ascii_lower(lower[k]);
        }
        t->splits[i].ptr = lower;
    }
    return OK;
}

static enum err read_env(struct fastcgi_transport *t, const json_t *env, struct provision *p)
{
    const char *name;
    json_t *value;
    if (env == NULL || json_is_null(env))
        return OK;
    if (!json_is_object(env))
        return provision_fail(p, "\"env\" must be an object of texts");
    t->env_names = ARENA_ARRAY(p->arena, struct slice, json_object_size(env));
    t->env_values = ARENA_ARRAY(p->arena, struct template, json_object_size(env));
    json_object_foreach ((json_t *)(uintptr_t)env, name, value) {
        if (!json_is_string(value))
            return provision_fail(p, "\"env\": the value of \"%s\" must be a text", name);
        t->env_names[t->env_count] = arena_copy(p->arena, slice_from(name));
        template_compile(&t->env_values[t->env_count],
                         slice_of(json_string_value(value), json_string_length(value)), p->arena);
        t->env_count++;
    }
    return OK;
}

static enum err find_folder(struct fastcgi_transport *t, struct provision *p)
{
    char *folder = getcwd(NULL, 0);
    t->folder = arena_copy(p->arena, folder != NULL ? slice_from(folder) : SLICE("/"));
    free(folder);
    return OK;
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"protocol", "root", "split_path", "resolve_root_symlink",
                                          "env", "dial_timeout", "read_timeout", "write_timeout",
                                          "capture_stderr", "keepalive", NULL};
    struct fastcgi_transport *t = cfg;
    int64_t n;
    TRY(provision_members(p, json, members));
    t->link.protocol = &protocol_fastcgi;
    t->link.no_proxy = true;
    t->link.head_max = HEAD_MAX;
    TRY(provision_template(p, json, "root", SLICE("{http.vars.root}"), &t->root));
    if (t->root.constant && t->root.text.len == 0)
        template_compile(&t->root, SLICE("{http.vars.root}"), p->arena);
    TRY(read_splits(t, json, p));
    TRY(read_env(t, json_object_get(json, "env"), p));
    TRY(provision_bool(p, json, "resolve_root_symlink", false, &t->resolve_root));
    TRY(provision_bool(p, json, "capture_stderr", false, &t->capture));
    TRY(transport_duration(p, json, "dial_timeout", 3 * (int64_t)NS_PER_S, &t->link.dial_ns));
    TRY(transport_duration(p, json, "read_timeout", 0, &t->read_ns));
    TRY(transport_duration(p, json, "write_timeout", 0, &t->write_ns));
    TRY(provision_int(p, json, "keepalive", 0, 0, KEPT_MAX, &n));
    t->link.keep_alive = n > 0;
    t->link.limits = (struct link_limits){.idle_per_group = (uint32_t)n, .idle_timeout_ns = KEPT_NS};
    return find_folder(t, p);
}

const struct module transport_fastcgi = {
    .id = "http.reverse_proxy.transport.fastcgi",
    .cfg_size = sizeof(struct fastcgi_transport),
    .provision = provision,
};

/* --- the request --- */

static enum err refuse(struct round *r, int status, const char *why)
{
    r->error = exchange_fail(r->x, status, why);
    return r->error;
}

static enum err prepare(struct round *r)
{
    struct slice path = r->uri.path;
    if (path.len > 0 && memchr(path.ptr, '\0', path.len) != NULL)
        return refuse(r, 400, "invalid request path");
    if (slice_is(r->method, "HEAD") || slice_is(r->method, "OPTIONS"))
        r->has_body = false;
    if (r->has_body && r->body_length < 0)
        return refuse(r, 411, "a FastCGI server must be told the length of a request's body; "
                              "request_buffers finds out that of larger ones");
    char *upper = arena_str(r->x->arena, r->method);
    for (size_t i = 0; i < r->method.len; i++)
        upper[i] = (char)(upper[i] >= 'a' && upper[i] <= 'z' ? upper[i] - 'a' + 'A' : upper[i]);
    r->method.ptr = upper;
    return OK;
}

static char *put_end(char *at)
{
    return fastcgi_record(at, FASTCGI_STDIN, 0);
}

/* The environment, with all of a small body behind it, in one piece of the arena. */
static enum err write_head(struct round *r, bool with_body, struct slice *out)
{
    struct field *pairs = (struct field *)(uintptr_t)r->pairs;
    size_t count = r->pairs_count, size, body = with_body && r->has_body ? r->body.len : 0;
    enum err e = pairs != NULL ? OK : fastcgi_environment(r, transport_of(r), true, &pairs, &count);
    if (e == OK && fastcgi_params_size(pairs, count, &size) != OK)
        e = exchange_fail(r->x, 431, "a header field is too large for FastCGI");
    if (e != OK) {
        r->error = fiber_self()->cancelled != OK ? fiber_self()->cancelled : e;
        return gateway_round_error(r, FAILURE_HANDLED, 0, "no environment");
    }
    char *start = arena_alloc(r->x->arena, FASTCGI_BEGIN_SIZE + size + body + 2 * FASTCGI_HEAD);
    char *at = fastcgi_params(fastcgi_begin(start, r->g->transport->keep_alive), pairs, count);
    if (body > 0) {
        at = fastcgi_record(at, FASTCGI_STDIN, body);
        memcpy(at, r->body.ptr, body);
        at += body;
    }
    if (with_body)
        at = put_end(at);
    *out = slice_of(start, (size_t)(at - start));
    return OK;
}

/* As many records of it as one call takes. */
static enum err send_records(struct round *r, struct slice *body, bool *any)
{
    char heads[RECORDS_AT_ONCE + 1][FASTCGI_HEAD];
    struct iovec parts[2 * RECORDS_AT_ONCE + 1];
    size_t count = 0;
    for (int i = 0; i < RECORDS_AT_ONCE && body->len > 0; i++) {
        struct slice piece = slice_take(*body, FASTCGI_CONTENT_MAX);
        fastcgi_record(heads[i], FASTCGI_STDIN, piece.len);
        parts[count++] = (struct iovec){heads[i], FASTCGI_HEAD};
        parts[count++] = (struct iovec){(char *)(uintptr_t)piece.ptr, piece.len};
        *body = slice_skip(*body, piece.len);
    }
    if (body->len == 0) {
        put_end(heads[RECORDS_AT_ONCE]);
        parts[count++] = (struct iovec){heads[RECORDS_AT_ONCE], FASTCGI_HEAD};
    }
    return gateway_send_parts(r, parts, count, any);
}

static enum err send_all(struct round *r, struct slice head, struct slice body, bool *any)
{
    struct iovec part = {(char *)(uintptr_t)head.ptr, head.len};
    TRY(gateway_send_parts(r, &part, 1, any));
    while (body.len > 0)
        TRY(send_records(r, &body, any));
    return OK;
}

static enum err send_request(struct round *r)
{
    const struct fastcgi_transport *t = transport_of(r);
    bool now = !r->has_body || r->body_whole, any = false;
    bool copied = now && (!r->has_body || r->body.len <= BODY_COPIED);
    struct slice head = SLICE_NONE, body = r->has_body && now && !copied ? r->body : SLICE_NONE;
    uint64_t start = loop_now_ns(loop_self());
    r->read_by = t->read_ns > 0 ? start + t->read_ns : 0;
    r->write_by = t->write_ns > 0 ? start + t->write_ns : 0;
    TRY(write_head(r, copied, &head));
    enum err e = send_all(r, head, body, &any);
    return e == OK ? OK : gateway_send_failed(r, e, any);
}

static enum err send_piece(struct round *r, char *buf, size_t n)
{
    char *start = buf + BODY_FRONT - FASTCGI_HEAD;
    fastcgi_record(start, FASTCGI_STDIN, n);
    return gateway_send_more(r, slice_of(start, FASTCGI_HEAD + n));
}

static enum err send_end(struct round *r, char *buf)
{
    return gateway_send_more(r, slice_of(buf, (size_t)(put_end(buf) - buf)));
}

/* --- the answer --- */

static struct client_answer *begin(struct round *r)
{
    return fastcgi_answer_begin(r->link, r->x->arena, r->g->transport->head_max,
                                transport_of(r)->capture);
}

static void log_errors(struct round *r, struct slice text)
{
    bool bad = r->answer->head.status >= 400 || r->failure == FAILURE_UPSTREAM;
    while (text.len > 0 && text.ptr[text.len - 1] == '\n')
        text.len--;
    if (text.len > 0)
        LOG(bad ? LOG_ERROR : LOG_WARN, LOGGER, "stderr", LOG_STR("body", text),
            LOG_STR("upstream", r->address.text), LOG_STR("method", r->method),
            LOG_STR("uri", r->target));
}

static void end(struct round *r)
{
    const struct fastcgi_answer *f = r->answer->fastcgi;
    log_errors(r, buffer_slice(&f->errors));
    if (f->ended && f->records.app_status != 0)
        LOG(LOG_DEBUG, LOGGER, "the application ended with a status of its own",
            LOG_NUM("status", (int64_t)f->records.app_status),
            LOG_STR("upstream", r->address.text));
    fastcgi_answer_end(r->answer);
}

const struct protocol protocol_fastcgi = {
    .prepare = prepare,
    .send = send_request,
    .send_piece = send_piece,
    .send_end = send_end,
    .begin = begin,
    .end = end,
    .read_head = fastcgi_read_head,
    .read_body = fastcgi_read_body,
    .cut = gateway_cut_link,
    .interrupt = gateway_interrupt_link,
};
