/* SPDX-License-Identifier: Apache-2.0 */
/*
 *     GET  /services/                       all of them
 *     GET  /services/NAME                   one
 *     POST /services/NAME/start             … stop, restart; answers when it is done
 *     GET  /services/NAME/logs?lines=100    its last lines, a JSON object on each
 *          &since=SEQ&wait=20s              those behind a line; waits for one where there is none
 *
 * JSON is made on the loop's own stack, which is large.
 */
#include "admin/admin_services.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/log_encode.h"
#include "base/text.h"
#include "config/jsonx.h"
#include "http/uri.h"
#include "loop/await.h"
#include "services/services.h"

enum { LINES_MAX = 1000, LOGS_MAX = 4 << 20 };

static enum err answer(struct exchange *x, int status, const char *type, struct slice body)
{
    fields_set(&x->res.fields, SLICE("Content-Type"), slice_from(type));
    return exchange_answer(x, status, body);
}

static enum err refuse(struct exchange *x, int status, struct slice text)
{
    struct buffer b;
    buffer_init(&b, 1 << 20);
    (void)!BUFFER_PUT(&b, "{\"error\":");
    (void)!json_put_string(&b, text);
    (void)!BUFFER_PUT(&b, "}\n");
    struct slice body = arena_copy(x->arena, buffer_slice(&b));
    buffer_deinit(&b);
    LOG(LOG_ERROR, "admin.api", "request error", LOG_STR("error", text),
        LOG_NUM("status_code", status));
    return answer(x, status, "application/json", body);
}

static enum err refuse_unknown(struct exchange *x, struct slice name)
{
    return refuse(x, 404, arena_printf(x->arena, "there is no service \"" SLICE_FMT "\"",
                                       SLICE_ARG(slice_take(name, 80))));
}

/* --- telling --- */

struct telling {
    struct exchange *x;
    struct slice name, line; /* name: empty for all; line: NULL when there is none */
};

static void tell(void *arg)
{
    struct telling *t = arg;
    struct buffer b;
    json_t *v = t->name.len > 0 ? service_describe(t->name) : services_list();
    if (v == NULL)
        return;
    buffer_init(&b, 64 << 20);
    if (jsonx_dump(&b, v) == OK && BUFFER_PUT(&b, "\n") == OK)
        t->line = arena_copy(t->x->arena, buffer_slice(&b));
    buffer_deinit(&b);
    json_decref(v);
}

static enum err serve_tell(struct exchange *x, struct slice name)
{
    struct telling t = {.x = x, .name = name};
    if (x->req.method_id != METHOD_GET && x->req.method_id != METHOD_HEAD)
        return refuse(x, 405, SLICE("method not allowed"));
    await_on_loop(tell, &t);
    if (t.line.ptr == NULL)
        return refuse_unknown(x, name);
    return answer(x, 200, "application/json", t.line);
}

/* --- commands --- */

static enum err serve_command(struct exchange *x, struct slice name, struct slice command)
{
    char *error = arena_alloc(x->arena, 1024);
    if (x->req.method_id != METHOD_POST)
        return refuse(x, 405, SLICE("method not allowed"));
    error[0] = '\0';
    enum err e = await_service_command(name, command, error, 1024);
    if (e == OK)
        return exchange_answer(x, 200, SLICE(""));
    if (error[0] == '\0')
        return e; /* the client left, or the server drains */
    return refuse(x, e == ERR_NOT_FOUND ? 404 : e == ERR_INVALID ? 400 : 500, slice_from(error));
}

/* --- lines --- */

static enum err serve_logs(struct exchange *x, struct slice name)
{
    struct slice all = x->req.uri.query, key, value;
    uint64_t lines = 100, since = 0;
    int64_t wait = 0;
    struct buffer b;
    if (x->req.method_id != METHOD_GET)
        return refuse(x, 405, SLICE("method not allowed"));
    while (query_next(&all, &key, &value)) {
        bool good = slice_is(key, "lines")   ? slice_to_u64(value, LINES_MAX, &lines)
                    : slice_is(key, "since") ? slice_to_u64(value, UINT64_MAX - 1, &since)
                    : slice_is(key, "wait")  ? duration_parse(value, &wait) == OK && wait >= 0 &&
                                                  wait <= 60 * (int64_t)NS_PER_S
                                             : false;
        if (!good)
            return refuse(x, 400, SLICE("write lines=1 to 1000, since=SEQ, wait=DURATION up to 60s"));
    }
    buffer_init(&b, LOGS_MAX);
    uint64_t by = wait > 0 ? clock_mono_ns() + (uint64_t)wait : 0;
    enum err e = await_service_logs(name, lines, since, by, &b);
    struct slice body = arena_copy(x->arena, buffer_slice(&b));
    buffer_deinit(&b);
    if (e == ERR_NOT_FOUND)
        return refuse_unknown(x, name);
    return e == OK || e == ERR_LIMIT ? answer(x, 200, "application/x-ndjson", body) : e;
}

enum err admin_serve_services(struct exchange *x)
{
    struct slice rest = slice_skip(x->req.uri.path, sizeof "/services" - 1), name, behind;
    rest = slice_skip(rest, 1);
    bool more = slice_cut(rest, '/', &name, &behind);
    if (!more || behind.len == 0)
        return serve_tell(x, name);
    if (slice_is(behind, "logs"))
        return serve_logs(x, name);
    return serve_command(x, name, behind);
}
