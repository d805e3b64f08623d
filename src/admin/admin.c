/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /load /config/ /stop /adapt /metrics. Before any of it, the checks that keep a web page which
 * a person has open in a browser from talking to the API of their machine: the Host must be the
 * listener's, an Origin must be allowed, no-cors requests and the null origin are refused. Every
 * error is {"error": "…"} with Caddy's status.
 *
 *     {"handler": "portico_admin", "hosts": ["localhost:2019", …], "origins": […],
 *      "enforce_host": true, "enforce_origin": false}
 */
#include "admin/admin.h"

#include <stdio.h>

#include "admin/document.h"
#include "base/log_encode.h"
#include "base/mem.h"
#include "config/jsonx.h"
#include "http/route.h"
#include "loop/await.h"

enum { BODY_MAX = 100 * 1000 * 1000 };

struct admin {
    struct slice *hosts;
    size_t hosts_count;
    bool enforce_host, enforce_origin;
};

/* What a path answers. JSON is read and written by recursion, so the paths run on the loop's own
 * stack, where nothing may wait: the answer is sent behind them. */
struct reply {
    int status;
    struct slice body;
};

struct call {
    struct exchange *x;
    enum err (*serve)(struct exchange *);
    struct buffer body;
    enum err read;
    struct reply reply;
    enum err result;
};

static struct call *call; /* the one that is served right now; NULL on fibers */
static const struct admin_face *face;
static const char *const members[] = {"hosts", "enforce_host", "enforce_origin", NULL};

void admin_set_face(const struct admin_face *f)
{
    face = f;
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct admin *a = cfg;
    TRY(provision_members(p, json, members));
    TRY(provision_bool(p, json, "enforce_host", true, &a->enforce_host));
    TRY(provision_bool(p, json, "enforce_origin", false, &a->enforce_origin));
    return provision_texts(p, json, "hosts", &a->hosts, &a->hosts_count);
}

/* --- answers --- */

static enum err answer(struct exchange *x, int status, const char *type, struct slice body)
{
    if (type != NULL)
        fields_set(&x->res.fields, SLICE("Content-Type"), slice_from(type));
    if (call == NULL)
        return exchange_answer(x, status, body);
    call->reply = (struct reply){status, body};
    return OK;
}

static enum err answer_error(struct exchange *x, int status, const char *text)
{
    struct buffer b;
    buffer_init(&b, 1 << 20);
    (void)!BUFFER_PUT(&b, "{\"error\":");
    (void)!json_put_string(&b, slice_from(text));
    (void)!BUFFER_PUT(&b, "}\n");
    struct slice body = arena_copy(x->arena, buffer_slice(&b));
    buffer_deinit(&b);
    LOG(LOG_ERROR, "admin.api", "request error", LOG_CSTR("error", text),
        LOG_NUM("status_code", status));
    return answer(x, status, "application/json", body);
}

static enum err answer_json(struct exchange *x, const json_t *v)
{
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    if (text == NULL)
        return answer_error(x, 500, "encoding config");
    struct slice body = arena_join(x->arena,
                                   (struct slice[]){slice_from(text), SLICE("\n")}, 2);
    mem_free(text);
    return answer(x, 200, "application/json", body);
}

static enum err refuse_method(struct exchange *x)
{
    return answer_error(x, 405, "method not allowed");
}

/* --- who may ask --- */

static bool listed(const struct admin *a, struct slice host)
{
    for (size_t i = 0; i < a->hosts_count; i++) {
        if (slice_eq_nocase(a->hosts[i], host))
            return true;
    }
    return false;
}

/* "http://localhost:2019/x" → "localhost:2019". */
static struct slice origin_host(struct slice origin)
{
    size_t at = slice_find_slice(origin, SLICE("://"));
    struct slice rest = at == SIZE_MAX ? origin : slice_skip(origin, at + 3);
    size_t end = slice_find(rest, '/');
    return end == SIZE_MAX ? rest : slice_take(rest, end);
}

/* NULL when the request is allowed, else why not. */
static const char *objection(const struct admin *a, struct exchange *x)
{
    struct slice mode, origin, upgrade;
    struct fields *f = &x->req.fields;
    bool has_mode = fields_get(f, SLICE("Sec-Fetch-Mode"), &mode);
    bool has_origin = fields_get(f, SLICE("Origin"), &origin);
    if (fields_get(f, SLICE("Upgrade"), &upgrade) &&
        slice_find_slice(upgrade, SLICE("websocket")) != SIZE_MAX)
        return "websocket connections aren't allowed";
    if (has_mode && slice_find_slice(mode, SLICE("no-cors")) != SIZE_MAX)
        return "client attempted to make request by disabling same-origin policy using no-cors "
               "mode";
    if (has_origin && slice_is(origin, "null"))
        return "buggy client is using the null origin";
    if (a->enforce_host && !listed(a, x->req.host))
        return (const char *)arena_str(
            x->arena, arena_printf(x->arena, "host not allowed: " SLICE_FMT,
                                   SLICE_ARG(slice_take(x->req.host, 300))));
    if (!a->enforce_origin && !has_origin && !has_mode)
        return NULL;
    if (!has_origin && !fields_get(f, SLICE("Referer"), &origin))
        return "missing required Origin header";
    if (!listed(a, origin_host(origin)))
        return (const char *)arena_str(
            x->arena, arena_printf(x->arena, "client is not allowed to access from origin '"
                                   SLICE_FMT "'", SLICE_ARG(slice_take(origin, 300))));
    fields_set(&x->res.fields, SLICE("Access-Control-Allow-Origin"), origin);
    return NULL;
}

/* --- bodies --- */

static enum err read_body(struct exchange *x, struct buffer *body)
{
    size_t n;
    do {
        if (buffer_reserve(body, 16384) != OK)
            return ERR_LIMIT;
        TRY(exchange_read(x, body->ptr + body->len, 16384, &n));
        body->len += n;
    } while (n > 0);
    return OK;
}

/* The media type's second half: "caddyfile" of "text/caddyfile; charset=utf-8"; json by default. */
static struct slice adapter_of(const struct exchange *x)
{
    struct slice type, head, tail;
    if (!fields_get(&x->req.fields, SLICE("Content-Type"), &type) || type.len == 0)
        return SLICE("json");
    slice_cut(type, ';', &head, &tail);
    head = slice_trim(head);
    return slice_cut(head, '/', &type, &tail) ? tail : head;
}

static json_t *parse_json(struct slice body, char *error, size_t cap)
{
    json_error_t e;
    if (jsonx_too_deep(body, JSONX_MAX_DEPTH)) {
        snprintf(error, cap, "decoding request body: nested deeper than %d levels", JSONX_MAX_DEPTH);
        return NULL;
    }
    json_t *v = json_loadb(body.ptr, body.len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    if (v == NULL)
        snprintf(error, cap, "decoding request body: %s, at line %d, column %d", e.text, e.line,
                 e.column);
    return v;
}

static bool wants_force(const struct exchange *x)
{
    struct slice v;
    return fields_get(&x->req.fields, SLICE("Cache-Control"), &v) && slice_is(v, "must-revalidate");
}

/* --- the paths --- */

/* Adapts what was sent to a document. ERR_FAILED when the refusal has been sent. */
static enum err body_to_document(struct exchange *x, json_t **document, json_t **warnings)
{
    char error[2048] = "";
    enum err e = call->read;
    struct slice adapter = adapter_of(x);
    *document = *warnings = NULL;
    if (e != OK)
        snprintf(error, sizeof error, "reading request body: %s", err_text(e));
    else if (slice_eq(adapter, SLICE("json")))
        *document = parse_json(buffer_slice(&call->body), error, sizeof error);
    else
        (void)!face->adapt(adapter, buffer_slice(&call->body), document, warnings, error,
                           sizeof error);
    if (*document != NULL)
        return OK;
    json_decref(*warnings);
    (void)!answer_error(x, 400, error);
    return ERR_FAILED;
}

static enum err serve_load(struct exchange *x)
{
    json_t *document, *warnings;
    char error[2048];
    if (x->req.method_id != METHOD_POST)
        return refuse_method(x);
    if (body_to_document(x, &document, &warnings) != OK)
        return OK;
    enum err e = face->apply(document, wants_force(x), error, sizeof error);
    json_decref(document);
    if (e != OK) {
        json_decref(warnings);
        return answer_error(x, 400, error);
    }
    if (json_array_size(warnings) > 0) {
        e = answer_json(x, warnings);
        json_decref(warnings);
        return e;
    }
    json_decref(warnings);
    return answer(x, 200, NULL, SLICE(""));
}

static enum err serve_adapt(struct exchange *x)
{
    json_t *document, *warnings;
    if (x->req.method_id != METHOD_POST)
        return refuse_method(x);
    if (body_to_document(x, &document, &warnings) != OK)
        return OK;
    json_t *out = json_object();
    if (json_array_size(warnings) > 0)
        json_object_set(out, "warnings", warnings);
    json_decref(warnings);
    json_object_set_new(out, "result", document);
    enum err e = answer_json(x, out);
    json_decref(out);
    return e;
}

static enum err serve_stop(struct exchange *x)
{
    if (x->req.method_id != METHOD_POST)
        return refuse_method(x);
    x->close_after = true;
    face->stop();
    return answer(x, 200, NULL, SLICE(""));
}

static enum err serve_metrics(struct exchange *x)
{
    struct buffer b;
    buffer_init(&b, 16 << 20);
    enum err e = face->metrics(&b);
    struct slice body = arena_copy(x->arena, buffer_slice(&b));
    buffer_deinit(&b);
    if (e != OK)
        return answer_error(x, 500, err_text(e));
    return answer(x, 200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", body);
}

/* FNV-1a of 32 bits: what Caddy makes the entity tag of. */
static uint32_t fnv(struct slice text)
{
    uint32_t h = 2166136261U;
    for (size_t i = 0; i < text.len; i++)
        h = (h ^ (unsigned char)text.ptr[i]) * 16777619U;
    return h;
}

static struct slice etag_of(struct exchange *x, struct slice path, const json_t *v)
{
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    struct slice line = arena_join(x->arena, (struct slice[]){slice_from(text), SLICE("\n")}, 2);
    mem_free(text);
    return arena_printf(x->arena, "\"" SLICE_FMT " %08x\"", SLICE_ARG(path), fnv(line));
}

/* If-Match: "PATH HASH" must be what stands at PATH now. */
static bool if_match_holds(struct exchange *x, json_t *root)
{
    struct slice wanted, path;
    struct document_error ignored;
    json_t *found;
    if (!fields_get(&x->req.fields, SLICE("If-Match"), &wanted))
        return true;
    if (wanted.len < 3 || wanted.ptr[0] != '"')
        return false;
    path = slice_skip(wanted, 1);
    path = slice_take(path, slice_find_last(path, ' ') == SIZE_MAX ? 0 : slice_find_last(path, ' '));
    return document_access(root, SLICE("GET"), path, NULL, &found, &ignored) == OK &&
           slice_eq(etag_of(x, path, found), wanted);
}

static enum err read_config(struct exchange *x, json_t *root)
{
    struct document_error e;
    json_t *found;
    if (document_access(root, SLICE("GET"), x->req.uri.path, NULL, &found, &e) != OK)
        return answer_error(x, e.status, e.text);
    fields_set(&x->res.fields, SLICE("Etag"), etag_of(x, x->req.uri.path, found));
    return answer_json(x, found);
}

static enum err change_config(struct exchange *x, json_t *root, json_t *value)
{
    struct document_error e;
    json_t *found;
    char error[2048];
    if (!if_match_holds(x, root))
        return answer_error(x, 412, "If-Match header did not match current config hash");
    if (document_access(root, x->req.method, x->req.uri.path, value, &found, &e) != OK)
        return answer_error(x, e.status, e.text);
    json_t *document = json_object_get(root, "config");
    if (document == NULL)
        document = json_null();
    if (face->apply(document, wants_force(x), error, sizeof error) != OK)
        return answer_error(x, 400, error);
    return answer(x, 200, NULL, SLICE(""));
}

static enum err take_value(struct exchange *x, json_t **value, char *error, size_t cap)
{
    struct slice type;
    if (!fields_get(&x->req.fields, SLICE("Content-Type"), &type) ||
        slice_find_slice(type, SLICE("/json")) == SIZE_MAX) {
        snprintf(error, cap, "unacceptable content-type: " SLICE_FMT
                 "; 'application/json' required", SLICE_ARG(slice_take(type, 200)));
        return ERR_INVALID;
    }
    struct slice body = buffer_slice(&call->body);
    if (call->read != OK)
        snprintf(error, cap, "reading request body: %s", err_text(call->read));
    else if (body.len > 0 && (*value = parse_json(body, error, cap)) == NULL)
        return ERR_INVALID;
    return call->read;
}

static enum err serve_config(struct exchange *x)
{
    char error[512];
    json_t *value = NULL;
    bool reads = x->req.method_id == METHOD_GET || x->req.method_id == METHOD_HEAD;
    bool sends = x->req.method_id == METHOD_POST || x->req.method_id == METHOD_PUT ||
                 x->req.method_id == METHOD_PATCH;
    if (!reads && !sends && x->req.method_id != METHOD_DELETE)
        return refuse_method(x);
    if (sends && take_value(x, &value, error, sizeof error) != OK)
        return answer_error(x, 400, error);
    /* Looked at after the last wait: another client may have changed it meanwhile. A copy is
     * changed, and becomes the running one only when it provisions. */
    json_t *root = json_object();
    const json_t *running = face->document();
    json_object_set_new(root, "config", running == NULL ? json_null() : json_deep_copy(running));
    enum err e = reads ? read_config(x, root) : change_config(x, root, value);
    json_decref(value);
    json_decref(root);
    return e;
}

static void run_call(void *arg)
{
    call = arg;
    call->result = call->serve(call->x);
    call = NULL;
}

static enum err serve_call(struct exchange *x, enum err (*serve)(struct exchange *))
{
    struct call c = {.x = x, .serve = serve};
    buffer_init(&c.body, BODY_MAX);
    if (x->req.method_id != METHOD_GET && x->req.method_id != METHOD_HEAD)
        c.read = read_body(x, &c.body);
    await_on_loop(run_call, &c);
    buffer_deinit(&c.body);
    return c.result == OK ? exchange_answer(x, c.reply.status, c.reply.body) : c.result;
}

static const struct {
    const char *path;
    enum err (*serve)(struct exchange *);
} paths[] = {
    {"/load", serve_load}, {"/adapt", serve_adapt}, {"/stop", serve_stop},
    {"/metrics", serve_metrics},
};

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    const struct admin *a = cfg;
    const char *why = objection(a, x);
    (void)next;
    exchange_addresses(x);
    if (log_wants(LOG_INFO) && !slice_is(x->req.uri.path, "/metrics"))
        LOG(LOG_INFO, "admin.api", "received request", LOG_STR("method", x->req.method),
            LOG_STR("host", x->req.host), LOG_STR("uri", x->req.target),
            LOG_STR("remote_ip", x->remote_host), LOG_STR("remote_port", x->remote_port));
    if (why != NULL)
        return answer_error(x, 403, why);
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        if (slice_is(x->req.uri.path, paths[i].path))
            return serve_call(x, paths[i].serve);
    }
    if (slice_is(x->req.uri.path, "/config") || slice_starts(x->req.uri.path, SLICE("/config/")))
        return serve_call(x, serve_config);
    return answer(x, 404, "text/plain; charset=utf-8", SLICE("404 page not found\n"));
}

const struct module module_admin_api = {
    .id = "http.handlers.portico_admin",
    .cfg_size = sizeof(struct admin),
    .provision = provision,
    .serve = serve,
};
