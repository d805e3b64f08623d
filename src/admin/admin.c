/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /load /config/ /id/ /stop /adapt /metrics /pki/ /services/ /ports
 * /reverse_proxy/upstreams. Before any of it, the checks that
 * keep a web page which a person has open in a browser from talking to the API of their machine: the
 * Host must be the listener's, an Origin must be allowed, no-cors requests and the null origin are
 * refused. Every error is {"error": "…"} with Caddy's status.
 *
 *     {"handler": "portico_admin", "hosts": ["localhost:2019", …], "origins": […],
 *      "enforce_host": true, "enforce_origin": false}
 */
#include "admin/admin.h"

#include <stdio.h>

#include "admin/admin_count.h"
#include "admin/admin_services.h"
#include "admin/admin_upstreams.h"
#include "admin/document.h"
#include "base/log_encode.h"
#include "base/mem.h"
#include "certs/pki_app.h"
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

/* As Go writes it, with a line end behind it. */
static struct slice json_line(struct exchange *x, const json_t *v)
{
    struct buffer b;
    buffer_init(&b, 4 * JSONX_MAX_SIZE);
    enum err e = jsonx_dump(&b, v);
    if (e == OK)
        e = BUFFER_PUT(&b, "\n");
    struct slice line = e == OK ? arena_copy(x->arena, buffer_slice(&b)) : SLICE_NONE;
    buffer_deinit(&b);
    return line;
}

static struct slice sorted_line(struct exchange *x, const json_t *v)
{
    json_t *sorted = jsonx_sorted(v);
    struct slice line = json_line(x, sorted);
    json_decref(sorted);
    return line;
}

static enum err answer_line(struct exchange *x, struct slice line)
{
    if (line.ptr == NULL)
        return answer_error(x, 500, "encoding config");
    return answer(x, 200, "application/json", line);
}

static enum err answer_json(struct exchange *x, const json_t *v)
{
    return answer_line(x, json_line(x, v));
}

static enum err refuse_method(struct exchange *x)
{
    return answer_error(x, 405, "method not allowed");
}

/* --- who may ask --- */

struct origin {
    struct slice scheme, host; /* no scheme: any */
};

/* "http://localhost:2019/x" → "http", "localhost:2019". */
static struct origin read_origin(struct slice text)
{
    size_t at = slice_find_slice(text, SLICE("://"));
    struct origin o = {SLICE(""), text};
    if (at != SIZE_MAX)
        o = (struct origin){slice_take(text, at), slice_skip(text, at + 3)};
    for (size_t i = 0; i < o.host.len; i++) {
        if (o.host.ptr[i] == '/' || o.host.ptr[i] == '?' || o.host.ptr[i] == '#')
            o.host.len = i;
    }
    return o;
}

static bool host_listed(const struct admin *a, struct slice host)
{
    for (size_t i = 0; i < a->hosts_count; i++) {
        if (slice_eq_nocase(read_origin(a->hosts[i]).host, host))
            return true;
    }
    return false;
}

static bool origin_listed(const struct admin *a, struct origin o)
{
    for (size_t i = 0; i < a->hosts_count; i++) {
        struct origin allowed = read_origin(a->hosts[i]);
        if (slice_eq_nocase(allowed.host, o.host) &&
            (allowed.scheme.len == 0 || slice_eq_nocase(allowed.scheme, o.scheme)))
            return true;
    }
    return false;
}

struct objection {
    int status;
    const char *text; /* NULL: none */
};

static bool has(const struct fields *f, struct slice name, const char *part)
{
    struct slice v;
    return fields_get(f, name, &v) && slice_find_slice(v, slice_from(part)) != SIZE_MAX;
}

/* What pages of a browser try. */
static struct objection browser_tricks(const struct exchange *x)
{
    const struct fields *f = &x->req.fields;
    struct slice origin;
    if (has(f, SLICE("Upgrade"), "websocket"))
        return (struct objection){400, "WebSocket connections aren't allowed."};
    if (has(f, SLICE("Sec-Fetch-Mode"), "no-cors"))
        return (struct objection){400, "Disabling same-origin restrictions is not allowed."};
    if (fields_get(f, SLICE("Origin"), &origin) && slice_is(origin, "null"))
        return (struct objection){400, "Buggy browser is sending null Origin header."};
    return (struct objection){0};
}

static struct objection refuse_text(struct exchange *x, const char *before, struct slice what,
                                    const char *behind)
{
    struct slice text = arena_printf(x->arena, "%s" SLICE_FMT "%s", before,
                                     SLICE_ARG(slice_take(what, 300)), behind);
    return (struct objection){403, arena_str(x->arena, text)};
}

static struct objection foreign_origin(const struct admin *a, struct exchange *x)
{
    struct slice text, mode;
    struct fields *f = &x->req.fields;
    bool has_origin = fields_get(f, SLICE("Origin"), &text);
    if (!a->enforce_origin && !has_origin && !fields_get(f, SLICE("Sec-Fetch-Mode"), &mode))
        return (struct objection){0};
    if (!has_origin && !fields_get(f, SLICE("Referer"), &text))
        return (struct objection){403, "required Origin header is missing or invalid"};
    struct origin o = read_origin(text);
    if (!origin_listed(a, o))
        return refuse_text(x, "client is not allowed to access from origin '", text, "'");
    fields_set(&x->res.fields, SLICE("Access-Control-Allow-Origin"),
               arena_join(x->arena, (struct slice[]){o.scheme, SLICE("://"), o.host}, 3));
    if (slice_is(x->req.method, "OPTIONS")) {
        fields_set(&x->res.fields, SLICE("Access-Control-Allow-Methods"),
                   SLICE("OPTIONS, GET, POST, PUT, PATCH, DELETE"));
        fields_set(&x->res.fields, SLICE("Access-Control-Allow-Headers"),
                   SLICE("Content-Type, Content-Length, Cache-Control"));
        fields_set(&x->res.fields, SLICE("Access-Control-Allow-Credentials"), SLICE("true"));
    }
    return (struct objection){0};
}

static struct objection objection(const struct admin *a, struct exchange *x)
{
    struct objection o = browser_tricks(x);
    if (o.text == NULL && a->enforce_host && !host_listed(a, x->req.host))
        o = refuse_text(x, "host not allowed: ", x->req.host, "");
    return o.text != NULL ? o : foreign_origin(a, x);
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

/* The media type's second half: "caddyfile" of "text/caddyfile; charset=utf-8"; json by default;
 * false when there is none. */
static bool adapter_of(const struct exchange *x, struct slice *adapter)
{
    struct slice type, head, tail;
    *adapter = SLICE("json");
    if (!fields_get(&x->req.fields, SLICE("Content-Type"), &type) || type.len == 0)
        return true;
    slice_cut(type, ';', &head, &tail);
    return slice_cut(slice_trim(head), '/', &type, adapter);
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
    struct slice adapter;
    *document = *warnings = NULL;
    if (e != OK)
        snprintf(error, sizeof error, "reading request body: %s", err_text(e));
    else if (!adapter_of(x, &adapter))
        snprintf(error, sizeof error, "malformed Content-Type");
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

/* Caddy's words around the reason. */
static enum err refuse_load(struct exchange *x, const char *before, int status, const char *error)
{
    bool indexing = strncmp(error, "indexing config: ", 17) == 0;
    struct slice text = arena_printf(x->arena, "%s%s%s", before,
                                     indexing ? "" : "loading new config: ", error);
    return answer_error(x, indexing ? 400 : status, arena_str(x->arena, text));
}

/* A reload tells which file it has read; without that, SIGUSR1 has no file to read again. */
static void tell_source(const struct exchange *x)
{
    struct slice file = SLICE(""), adapter = SLICE("");
    (void)fields_get(&x->req.fields, SLICE("Caddy-Config-Source-File"), &file);
    (void)fields_get(&x->req.fields, SLICE("Caddy-Config-Source-Adapter"), &adapter);
    face->source(file, adapter);
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
        return refuse_load(x, "loading config: ", 400, error);
    }
    LOG(LOG_INFO, "admin.api", "load complete");
    tell_source(x);
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
    if (e == OK)
        e = admin_count_put(&b);
    struct slice body = arena_copy(x->arena, buffer_slice(&b));
    buffer_deinit(&b);
    if (e != OK)
        return answer_error(x, 500, err_text(e));
    return answer(x, 200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", body);
}

/* FNV-1a of 64 bits; the same for the same text after a restart. */
static uint64_t fnv(struct slice text)
{
    uint64_t h = 14695981039346656037U;
    for (size_t i = 0; i < text.len; i++)
        h = (h ^ (unsigned char)text.ptr[i]) * 1099511628211U;
    return h;
}

static struct slice etag_of(struct exchange *x, struct slice path, struct slice line)
{
    return arena_printf(x->arena, "\"" SLICE_FMT " %016llx\"", SLICE_ARG(path),
                        (unsigned long long)fnv(line));
}

/* If-Match: "PATH HASH" must be what stands at PATH now. 0, or the status of the refusal. */
static int check_if_match(struct exchange *x, json_t *root, const char **why)
{
    struct slice tag, path, hash;
    struct document_error ignored;
    json_t *found;
    if (!fields_get(&x->req.fields, SLICE("If-Match"), &tag))
        return 0;
    *why = "malformed If-Match header; expect quoted string";
    if (tag.len < 2 || tag.ptr[0] != '"' || tag.ptr[tag.len - 1] != '"')
        return 400;
    *why = "malformed If-Match header; expect format \"<path> <hash>\"";
    if (!slice_cut(slice_trim(slice_of(tag.ptr + 1, tag.len - 2)), ' ', &path, &hash) ||
        slice_find(hash, ' ') != SIZE_MAX)
        return 400;
    *why = "If-Match header did not match current config hash";
    if (document_access(root, SLICE("GET"), path, NULL, &found, &ignored) != OK)
        return 412;
    return slice_eq(etag_of(x, path, sorted_line(x, found)), tag) ? 0 : 412;
}

static enum err read_config(struct exchange *x, json_t *root)
{
    struct document_error e;
    json_t *found;
    if (document_access(root, SLICE("GET"), x->req.uri.path, NULL, &found, &e) != OK)
        return answer_error(x, e.status, e.text);
    struct slice line = sorted_line(x, found);
    fields_set(&x->res.fields, SLICE("Etag"), etag_of(x, x->req.uri.path, line));
    return answer_line(x, line);
}

static enum err change_config(struct exchange *x, json_t *root, json_t *value)
{
    struct document_error e;
    json_t *found;
    char error[2048];
    const char *why;
    int status = check_if_match(x, root, &why);
    if (status != 0)
        return answer_error(x, status, why);
    if (document_access(root, x->req.method, x->req.uri.path, value, &found, &e) != OK)
        return answer_error(x, e.status == 400 ? 500 : e.status, e.text); /* as Caddy's */
    json_t *document = json_object_get(root, "config");
    if (document == NULL)
        document = json_null();
    if (face->apply(document, wants_force(x), error, sizeof error) != OK)
        return refuse_load(x, "", 500, error);
    tell_source(x);
    return answer(x, 200, NULL, SLICE(""));
}

static enum err take_value(struct exchange *x, json_t **value, char *error, size_t cap)
{
    struct slice type = SLICE("");
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
        return answer_error(x, 405, (const char *)arena_str(x->arena, arena_printf(x->arena,
                            "method " SLICE_FMT " not allowed",
                            SLICE_ARG(slice_take(x->req.method, 50)))));
    if (sends && take_value(x, &value, error, sizeof error) != OK)
        return answer_error(x, 400, error);
    /* Looked at after the last wait: another client may have changed it meanwhile. The tree is ours,
     * and becomes the running one only when it provisions. */
    json_t *root = json_object();
    json_object_set_new(root, "config", face->document());
    enum err e = reads ? read_config(x, root) : change_config(x, root, value);
    json_decref(value);
    json_decref(root);
    return e;
}

/* /id/NAME/REST is /config/WHERE/NAME/IS/REST. */
static enum err serve_id(struct exchange *x)
{
    struct slice rest = slice_skip(x->req.uri.path, 4), id, behind;
    bool more = slice_cut(rest, '/', &id, &behind);
    if (id.len == 0)
        return answer_error(x, 400, "request path is missing object ID");
    json_t *running = face->document();
    char *path = document_find_id(running, id);
    json_decref(running);
    if (path == NULL)
        return answer_error(x, 404, (const char *)arena_str(x->arena, arena_printf(x->arena,
                            "unknown object ID '" SLICE_FMT "'", SLICE_ARG(slice_take(id, 200)))));
    x->req.uri.path = arena_join(x->arena, (struct slice[]){slice_from(path),
                                 more ? SLICE("/") : SLICE(""), behind}, 3);
    mem_free(path);
    return serve_config(x);
}

/* --- certificate authorities; on the fiber, since they may have to be made --- */

static enum err refuse_pki(struct exchange *x, int status, const char *before, struct slice what)
{
    return answer_error(x, status, arena_str(x->arena, arena_printf(x->arena, "%s" SLICE_FMT, before,
                        SLICE_ARG(slice_take(what, 300)))));
}

static enum err put_member(struct buffer *b, const char *key, struct slice value)
{
    TRY(buffer_append_f(b, "%s\"%s\":", b->len > 0 ? "," : "{", key));
    return jsonx_put_string(b, value);
}

static enum err put_authority(struct buffer *b, const struct authority *a, struct arena *arena)
{
    const struct authority_options *o = authority_options(a);
    TRY(put_member(b, "id", o->id));
    TRY(put_member(b, "name", o->name));
    TRY(put_member(b, "root_common_name", pki_expand(o->root_common_name, o->name, arena)));
    TRY(put_member(b, "intermediate_common_name",
                   pki_expand(o->intermediate_common_name, o->name, arena)));
    TRY(put_member(b, "root_certificate", authority_root_pem(a)));
    TRY(put_member(b, "intermediate_certificate", authority_chain_pem(a)));
    return BUFFER_PUT(b, "}");
}

static enum err put_chain(struct buffer *b, const struct authority *a, struct arena *arena)
{
    (void)arena;
    TRY(buffer_append(b, authority_chain_pem(a)));
    return buffer_append(b, authority_root_pem(a));
}

static enum err serve_authority(struct exchange *x, struct slice id, const char *type,
                                enum err (*put)(struct buffer *, const struct authority *,
                                                struct arena *))
{
    struct storage_why *why = arena_alloc(x->arena, sizeof *why);
    struct authority *a;
    struct buffer b;
    if (x->req.method_id != METHOD_GET)
        return refuse_pki(x, 405, "method not allowed: ", x->req.method);
    enum err e = pki_running(id, &a, why);
    if (e == ERR_NOT_FOUND)
        return answer_error(x, 404, why->text);
    if (e != OK)
        return refuse_pki(x, 500, "failed to provision CA: ", slice_from(why->text));
    buffer_init(&b, 4 << 20);
    e = put(&b, a, x->arena);
    struct slice body = arena_copy(x->arena, buffer_slice(&b));
    buffer_deinit(&b);
    authority_unref(a);
    return e == OK ? answer(x, 200, type, body) : answer_error(x, 500, err_text(e));
}

/* /pki/ca/ID, /pki/ca/ID/certificates. */
static enum err serve_pki(struct exchange *x)
{
    struct slice id, behind, rest = slice_skip(x->req.uri.path, sizeof "/pki/ca/" - 1);
    bool more = slice_cut(rest, '/', &id, &behind);
    if (slice_starts(x->req.uri.path, SLICE("/pki/ca/")) && id.len > 0) {
        if (!more)
            return serve_authority(x, id, "application/json", put_authority);
        if (slice_is(behind, "certificates"))
            return serve_authority(x, id, "application/pem-certificate-chain", put_chain);
    }
    return refuse_pki(x, 404, "resource not found: ", x->req.uri.path);
}

/* --- ports; on the fiber, since a look at them takes its time --- */

static enum err serve_ports(struct exchange *x)
{
    struct slice json;
    char error[512];
    if (x->req.method_id != METHOD_GET && x->req.method_id != METHOD_HEAD)
        return refuse_method(x);
    if (face->await_ports(x->arena, &json, error, sizeof error) != OK)
        return answer_error(x, 500, arena_str(x->arena, slice_from(error)));
    return answer(x, 200, "application/json", json);
}

static enum err serve_upstreams(struct exchange *x)
{
    if (x->req.method_id != METHOD_GET)
        return refuse_method(x);
    return answer_line(x, admin_upstreams(x->arena));
}

static enum err serve_origins(struct exchange *x)
{
    if (x->req.method_id != METHOD_GET && x->req.method_id != METHOD_HEAD)
        return refuse_method(x);
    json_t *list = face->origins();
    enum err e = answer_json(x, list);
    json_decref(list);
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

static enum err serve_fresh_metrics(struct exchange *x)
{
    if (face->await_metrics != NULL)
        face->await_metrics();
    return serve_call(x, serve_metrics);
}

static const struct {
    const char *path, *handler; /* the last: as metrics name it */
    enum err (*serve)(struct exchange *);
    bool below;    /* what lies below the path, too */
    bool on_fiber; /* it may wait */
} paths[] = {
    {"/load", "load", serve_load, false},
    {"/adapt", "load", serve_adapt, false},
    {"/stop", "admin", serve_stop, false},
    {"/metrics", "metrics", serve_fresh_metrics, false, true},
    {"/ports", "ports", serve_ports, false, true},
    {"/ports/origins", "ports", serve_origins, false},
    {"/reverse_proxy/upstreams", "reverse_proxy", serve_upstreams, false},
    {"/config/", "admin", serve_config, true},
    {"/id/", "admin", serve_id, true},
    {"/pki/", "pki", serve_pki, true, true},
    {"/services", "services", admin_serve_services, false, true},
    {"/services/", "services", admin_serve_services, true, true},
};

static enum err serve_path(struct exchange *x)
{
    struct slice path = x->req.uri.path;
    if (slice_is(path, "/config"))
        path = SLICE("/config/");
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        if (!slice_is(path, paths[i].path) &&
            !(paths[i].below && slice_starts(path, slice_from(paths[i].path))))
            continue;
        enum err e = paths[i].on_fiber ? paths[i].serve(x) : serve_call(x, paths[i].serve);
        admin_count(x, paths[i].path, paths[i].handler);
        return e;
    }
    return answer(x, 404, "text/plain; charset=utf-8", SLICE("404 page not found\n"));
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    const struct admin *a = cfg;
    struct objection why = objection(a, x);
    (void)next;
    exchange_addresses(x);
    if (log_wants(LOG_INFO) && !slice_is(x->req.uri.path, "/metrics"))
        LOG(LOG_INFO, "admin.api", "received request", LOG_STR("method", x->req.method),
            LOG_STR("host", x->req.host), LOG_STR("uri", x->req.target),
            LOG_STR("remote_ip", x->remote_host), LOG_STR("remote_port", x->remote_port));
    if (why.text != NULL)
        return answer_error(x, why.status, why.text);
    return serve_path(x);
}

const struct module module_admin_api = {
    .id = "http.handlers.portico_admin",
    .cfg_size = sizeof(struct admin),
    .provision = provision,
    .serve = serve,
};
