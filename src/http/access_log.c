/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logger names are resolved at provision: each name knows which logs take it and from which level
 * on, so a request only looks up its host, builds its fields in the exchange's arena, and gives
 * them to the logs.
 *
 * Header fields of one name become one array, under the name's canonical form, in the order in
 * which they came first. Credentials are written as REDACTED unless the server wants them.
 *
 *     "logs": {"default_logger_name": "a", "logger_names": {"example.com": ["b", "c"], "*.x": "d"},
 *              "skip_hosts": ["internal"], "skip_unmapped_hosts": true,
 *              "should_log_credentials": false}
 */
#include "http/access_log.h"

#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "http/server.h"
#include "http/tls_placeholder.h"

enum { HOST_MAX = 256, NAMES_MAX = 16, REQUEST_FIELDS = 10 };

struct access_logger {
    struct slice name;
    const char *access_name, *error_name; /* "http.log.access.NAME" */
    struct log_target access;
};

struct access_names { /* what one host logs to */
    const struct access_logger **loggers;
    size_t count;
};

struct access_log {
    struct access_logger *loggers; /* each name once */
    size_t count, cap;
    struct access_names fallback;
    struct map hosts, skips; /* host pattern → struct access_names; → itself */
    bool host_patterns, skip_patterns; /* one of the keys has a '*' */
    bool skip_unmapped, credentials;
    const struct log_set *set;
};

struct access_entry {
    struct fields fields; /* as they came */
    struct slice method, uri, host;
};

static const char *const members[] = {"default_logger_name", "logger_names", "skip_hosts",
                                      "skip_unmapped_hosts", "should_log_credentials", "trace",
                                      NULL};

/* --- provisioning --- */

static const char *full_name(struct provision *p, const char *base, struct slice name)
{
    return name.len == 0 ? base
                         : arena_str(p->arena, arena_join(p->arena,
                                                          (struct slice[]){slice_from(base),
                                                                           SLICE("."), name}, 3));
}

static const struct access_logger *add_logger(struct access_log *l, struct slice name,
                                              struct provision *p)
{
    for (size_t i = 0; i < l->count; i++) {
        if (slice_eq(l->loggers[i].name, name))
            return &l->loggers[i];
    }
    struct access_logger *a = &l->loggers[l->count++];
    a->name = arena_copy(p->arena, name);
    a->access_name = full_name(p, "http.log.access", name);
    a->error_name = full_name(p, "http.log.error", name);
    log_target_find(&a->access, l->set, a->access_name, p->arena);
    return a;
}

static size_t count_names(const json_t *names)
{
    size_t n = 1;
    const char *host;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)names, host, v)
        n += json_is_array(v) ? json_array_size(v) : 1;
    return n;
}

static enum err read_names(struct access_log *l, const json_t *v, struct access_names *out,
                           struct provision *p)
{
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    out->loggers = ARENA_ARRAY(p->arena, const struct access_logger *, n + 1);
    for (size_t i = 0; i < n; i++) {
        const json_t *name = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_string(name))
            return provision_fail(p, "\"logger_names\": a host's value must be a logger name or an "
                                  "array of them");
        out->loggers[out->count++] = add_logger(
            l, slice_of(json_string_value(name), json_string_length(name)), p);
    }
    return OK;
}

static enum err read_hosts(struct access_log *l, const json_t *names, struct provision *p)
{
    const char *host;
    json_t *v;
    if (names == NULL || json_is_null(names))
        return OK;
    if (!json_is_object(names))
        return provision_fail(p, "\"logger_names\" must be an object");
    json_object_foreach((json_t *)(uintptr_t)names, host, v)
    {
        struct access_names *a = ARENA_NEW(p->arena, struct access_names);
        struct slice key = arena_copy(p->arena, slice_from(host));
        TRY(read_names(l, v, a, p));
        map_put(&l->hosts, key, a);
        l->host_patterns = l->host_patterns || slice_find(key, '*') != SIZE_MAX;
    }
    return OK;
}

static enum err read_skips(struct access_log *l, const json_t *json, struct provision *p)
{
    struct slice *skips;
    size_t count;
    TRY(provision_texts(p, json, "skip_hosts", &skips, &count));
    for (size_t i = 0; i < count; i++) {
        map_put(&l->skips, skips[i], l);
        l->skip_patterns = l->skip_patterns || slice_find(skips[i], '*') != SIZE_MAX;
    }
    return OK;
}

static void release(void *cfg)
{
    struct access_log *l = cfg;
    map_deinit(&l->hosts);
    map_deinit(&l->skips);
}

enum err access_log_provision(struct access_log **out, const json_t *json, struct provision *p)
{
    static const struct log_set none;
    struct slice name;
    bool trace;
    struct access_log *l = ARENA_NEW(p->arena, struct access_log);
    struct provision_release *r = ARENA_NEW(p->arena, struct provision_release);
    TRY(provision_members(p, json, members));
    map_init(&l->hosts, true);
    map_init(&l->skips, true);
    *r = (struct provision_release){p->releases, release, l};
    p->releases = r;
    l->set = p->logs != NULL ? p->logs : &none;
    l->loggers = ARENA_ARRAY(p->arena, struct access_logger,
                             count_names(json_object_get(json, "logger_names")) + 1);
    TRY(provision_text(p, json, "default_logger_name", SLICE(""), &name));
    TRY(provision_bool(p, json, "skip_unmapped_hosts", false, &l->skip_unmapped));
    TRY(provision_bool(p, json, "should_log_credentials", false, &l->credentials));
    TRY(provision_bool(p, json, "trace", false, &trace));
    if (trace)
        return provision_fail(p, "\"trace\" is not supported yet");
    l->fallback.loggers = ARENA_ARRAY(p->arena, const struct access_logger *, 1);
    l->fallback.loggers[l->fallback.count++] = add_logger(l, name, p);
    TRY(read_hosts(l, json_object_get(json, "logger_names"), p));
    TRY(read_skips(l, json, p));
    *out = l;
    return OK;
}

/* --- hosts --- */

static struct slice without_port(struct slice host)
{
    size_t colon = slice_find_last(host, ':');
    if (colon == SIZE_MAX || (host.len > 0 && host.ptr[host.len - 1] == ']'))
        return host;
    struct slice name = slice_take(host, colon);
    if (name.len >= 2 && name.ptr[0] == '[' && name.ptr[name.len - 1] == ']')
        return slice_of(name.ptr + 1, name.len - 2);
    return slice_find(name, ':') == SIZE_MAX ? name : host;
}

/* "a.b.c", then "*.b.c", "*.*.c" and "*.*.*", the labels going over to stars from the left. */
static void *find_host(const struct map *hosts, bool patterns, struct slice host)
{
    char text[2 * HOST_MAX];
    void *found = map_get(hosts, host);
    if (found != NULL || !patterns || host.len > HOST_MAX)
        return found;
    size_t stars = 0;
    struct slice label, rest = host;
    for (bool more = true; more;) {
        more = slice_cut(rest, '.', &label, &rest);
        if (label.len > 0)
            text[stars++] = '*';
        if (more)
            memcpy(text + stars + 1, rest.ptr, rest.len);
        text[stars] = '.';
        found = label.len > 0 ? map_get(hosts, slice_of(text, stars + (more ? 1 + rest.len : 0)))
                              : NULL;
        if (found != NULL)
            return found;
        stars++;
    }
    return NULL;
}

static const struct access_names *names_of(const struct access_log *l, struct slice host)
{
    const struct access_names *n = NULL;
    if (l->hosts.count > 0)
        n = find_host(&l->hosts, l->host_patterns, without_port(host));
    return n != NULL ? n : &l->fallback;
}

static bool is_logged(const struct access_log *l, struct slice host)
{
    host = without_port(host);
    if (l->hosts.count > 0 && find_host(&l->hosts, l->host_patterns, host) != NULL)
        return true;
    if (l->skips.count > 0 && find_host(&l->skips, l->skip_patterns, host) != NULL)
        return false;
    return !l->skip_unmapped;
}

/* --- names that a request was given: the variable access_logger_names --- */

/* A word, or a JSON array of words. Returns how many were found. */
static size_t split_names(struct slice text, struct slice names[NAMES_MAX])
{
    size_t n = 0;
    if (text.len == 0 || text.ptr[0] != '[') {
        names[0] = text;
        return 1;
    }
    for (struct slice before, rest = text; n < NAMES_MAX && slice_cut(rest, '"', &before, &rest);) {
        if (!slice_cut(rest, '"', &names[n], &rest))
            break;
        n++;
    }
    return n;
}

static const struct access_logger *logger_named(const struct access_log *l, struct exchange *x,
                                                struct slice name)
{
    for (size_t i = 0; i < l->count; i++) {
        if (slice_eq(l->loggers[i].name, name))
            return &l->loggers[i];
    }
    struct access_logger *a = ARENA_NEW(x->arena, struct access_logger);
    struct slice dot = name.len > 0 ? SLICE(".") : SLICE("");
    a->access_name = arena_str(x->arena, arena_join(x->arena, (struct slice[]){
                                             SLICE("http.log.access"), dot, name}, 3));
    a->error_name = arena_str(x->arena, arena_join(x->arena, (struct slice[]){
                                            SLICE("http.log.error"), dot, name}, 3));
    log_target_find(&a->access, l->set, a->access_name, x->arena);
    return a;
}

static struct access_names names_for(const struct access_log *l, struct exchange *x,
                                     struct slice host)
{
    struct slice text, names[NAMES_MAX];
    if (x->vars_count == 0 || !exchange_get_var(x, SLICE("http.vars.access_logger_names"), &text))
        return *names_of(l, host);
    struct access_names out = {0};
    size_t n = split_names(text, names);
    out.loggers = arena_alloc(x->arena, (n + 1) * sizeof *out.loggers);
    for (size_t i = 0; i < n; i++)
        out.loggers[out.count++] = logger_named(l, x, names[i]);
    return out;
}

/* --- fields --- */

static bool is_credential(struct slice name)
{
    switch (name.len) {
    case 6:
        return slice_eq_nocase(name, SLICE("Cookie"));
    case 10:
        return slice_eq_nocase(name, SLICE("Set-Cookie"));
    case 13:
        return slice_eq_nocase(name, SLICE("Authorization"));
    case 19:
        return slice_eq_nocase(name, SLICE("Proxy-Authorization"));
    default:
        return false;
    }
}

/* What Go keeps apart from a request's header, and so does the line. */
static bool is_apart(struct slice name)
{
    return (name.len == 4 && slice_eq_nocase(name, SLICE("Host"))) ||
           (name.len == 17 && slice_eq_nocase(name, SLICE("Transfer-Encoding")));
}

static bool same_name(const struct field *a, const struct field *b)
{
    return a->name.len == b->name.len &&
           ((a->name.ptr[0] ^ b->name.ptr[0]) & ~0x20) == 0 && slice_eq_nocase(a->name, b->name);
}

static bool seen_before(const struct fields *f, uint32_t i)
{
    for (uint32_t k = 0; k < i; k++) {
        if (same_name(&f->items[k], &f->items[i]))
            return true;
    }
    return false;
}

/* All values of the name of field `i`. */
static void gather(const struct fields *f, uint32_t i, struct arena *arena, struct log_field *out)
{
    size_t n = 1;
    for (uint32_t k = i + 1; k < f->count; k++)
        n += same_name(&f->items[k], &f->items[i]);
    out->strings.count = n;
    if (n == 1) {
        out->strings.items = &f->items[i].value;
        return;
    }
    struct slice *values = arena_alloc(arena, n * sizeof *values);
    out->strings.items = values;
    for (uint32_t k = i; k < f->count; k++) {
        if (same_name(&f->items[k], &f->items[i]))
            *values++ = f->items[k].value;
    }
}

/* As many as are given back, with room for one more. */
static size_t put_fields(const struct fields *f, bool request, bool credentials,
                         struct arena *arena, struct log_field **to)
{
    static const struct slice redacted = {"REDACTED", 8};
    struct log_field *out = *to = arena_alloc(arena, (f->count + 1) * sizeof *out);
    size_t n = 0;
    for (uint32_t i = 0; i < f->count; i++) {
        const struct field *field = &f->items[i];
        if (field->name.len == 0 || (request && is_apart(field->name)) || seen_before(f, i))
            continue;
        out[n] = (struct log_field){.key = field->name, .kind = LOG_STRINGS, .header_key = true};
        if (!credentials && is_credential(field->name))
            out[n].strings.items = &redacted, out[n].strings.count = 1;
        else
            gather(f, i, arena, &out[n]);
        n++;
    }
    return n;
}

static struct log_field put_header(const char *key, const struct fields *f, bool request,
                                   bool credentials, struct arena *arena)
{
    struct log_field *out;
    size_t n = put_fields(f, request, credentials, arena, &out);
    return LOG_GROUP(key, out, n);
}

/* With Content-Length where Caddy's lines have it, though it is no field here: the wire writes it. */
static struct log_field put_answer(struct exchange *x, bool credentials)
{
    struct log_field *out;
    size_t n = put_fields(&x->res.fields, false, credentials, x->arena, &out);
    if (x->res.length_told && x->res.content_length >= 0 &&
        !fields_has(&x->res.fields, SLICE("Content-Length"))) {
        struct slice *text = arena_alloc(x->arena, sizeof *text);
        *text = arena_printf(x->arena, "%lld", (long long)x->res.content_length);
        out[n++] = (struct log_field){.key = SLICE("Content-Length"), .kind = LOG_STRINGS,
                                      .strings = {text, 1}};
    }
    return LOG_GROUP("resp_headers", out, n);
}

static struct slice proto_of(const struct exchange *x)
{
    switch (x->req.major * 10 + x->req.minor) {
    case 10:
        return SLICE("HTTP/1.0");
    case 11:
        return SLICE("HTTP/1.1");
    case 20:
        return SLICE("HTTP/2.0");
    default:
        return SLICE("HTTP/3.0");
    }
}

/* What the handshake agreed on, and who the client is by its certificate. */
static struct log_field put_tls(struct exchange *x)
{
    struct tls_facts f;
    struct peer_certificate peer;
    struct log_field *out = ARENA_ARRAY(x->arena, struct log_field, 8);
    size_t n = 0;
    tls_stream_facts(x->tls, &f);
    out[n++] = LOG_BOOLEAN("resumed", f.resumed);
    out[n++] = LOG_NUM("version", f.version);
    out[n++] = LOG_NUM("cipher_suite", f.cipher);
    out[n++] = LOG_STR("proto", f.alpn);
    out[n++] = LOG_STR("server_name", f.server_name);
    out[n++] = LOG_BOOLEAN("ech", false);
    if (f.peer_certificate && tls_peer(x, &peer)) {
        out[n++] = LOG_STR("client_common_name", peer.common_name);
        out[n++] = LOG_STR("client_serial", peer.serial);
    }
    return LOG_GROUP("tls", out, n);
}

/* Up to REQUEST_FIELDS at `out`. */
static size_t put_request(struct log_field *out, struct exchange *x, const struct access_entry *e,
                          bool credentials)
{
    static const struct slice chunked = {"chunked", 7};
    size_t n = 0;
    exchange_addresses(x);
    out[n++] = LOG_STR("remote_ip", x->remote_host);
    out[n++] = LOG_STR("remote_port", x->remote_port);
    out[n++] = LOG_STR("client_ip", x->client_ip);
    out[n++] = LOG_STR("proto", proto_of(x));
    out[n++] = LOG_STR("method", e->method);
    out[n++] = LOG_STR("host", e->host);
    out[n++] = LOG_STR("uri", e->uri);
    out[n++] = put_header("headers", &e->fields, true, credentials, x->arena);
    if (x->req.has_body && x->req.content_length < 0 && x->req.major == 1)
        out[n++] = LOG_LIST("transfer_encoding", &chunked, 1);
    if (x->tls != NULL)
        out[n++] = put_tls(x);
    return n;
}

/* --- lines --- */

static struct access_entry entry_now(const struct exchange *x)
{
    return (struct access_entry){.fields = x->req.fields, .method = x->req.original_method,
                                 .uri = x->req.target, .host = x->req.original_host};
}

struct access_entry *access_log_begin(const struct access_log *l, struct exchange *x)
{
    if (!is_logged(l, x->req.host))
        return NULL;
    struct access_entry *e = arena_alloc(x->arena, sizeof *e);
    *e = entry_now(x);
    e->fields.items = arena_alloc(x->arena, (e->fields.count + 1) * sizeof *e->fields.items);
    if (e->fields.count > 0)
        memcpy(e->fields.items, x->req.fields.items, e->fields.count * sizeof *e->fields.items);
    return e;
}

static bool is_skipped(const struct exchange *x)
{
    struct slice v;
    return x->log_skip || (x->vars_count > 0 &&
                           exchange_get_var(x, SLICE("http.vars.log_skip"), &v) &&
                           slice_is(v, "true"));
}

static struct slice user_of(const struct exchange *x)
{
    struct slice user = x->log_user;
    if (user.len == 0 && x->vars_count > 0)
        (void)exchange_get_var(x, SLICE("http.auth.user.id"), &user);
    return user;
}

static bool wanted_by_any(const struct access_names *names, enum log_level level)
{
    for (size_t i = 0; i < names->count; i++) {
        if (level >= names->loggers[i]->access.level)
            return true;
    }
    return false;
}

/* --- parts of other lines --- */

static bool wants_credentials(const struct exchange *x)
{
    return x->server != NULL && x->server->logs != NULL && x->server->logs->credentials;
}

struct log_field access_log_sent(struct exchange *x, struct slice method, struct slice host,
                                 struct slice uri, const struct fields *fields)
{
    struct log_field *out = ARENA_ARRAY(x->arena, struct log_field, REQUEST_FIELDS);
    struct access_entry e = {.fields = *fields, .method = method, .uri = uri, .host = host};
    return LOG_GROUP("request", out, put_request(out, x, &e, wants_credentials(x)));
}

struct log_field access_log_headers(struct exchange *x, const struct fields *fields)
{
    return put_header("headers", fields, false, wants_credentials(x), x->arena);
}

/* --- the access log's --- */

/* Where in a line's fields stands what is known at the end only. */
enum { AT_READ = 1, AT_DURATION = 3, AT_SIZE = 4 };

/* A line as it would be now; `request` has room for REQUEST_FIELDS. False: nobody wants it. */
static bool make_line(const struct access_log *l, struct exchange *x, const struct access_entry *e,
                      int status, struct log_field *request, struct log_event *event,
                      struct access_names *names)
{
    enum log_level level = status >= 500 ? LOG_ERROR : LOG_INFO;
    if (is_skipped(x))
        return false;
    *names = names_for(l, x, x->req.host);
    if (!wanted_by_any(names, level))
        return false;
    struct log_field *fields = arena_alloc(x->arena, (7 + x->log_extra_count) * sizeof *fields);
    size_t n = 0;
    fields[n++] = LOG_GROUP("request", request, put_request(request, x, e, l->credentials));
    fields[n++] = LOG_NUM("bytes_read", (int64_t)x->body_read);
    fields[n++] = LOG_STR("user_id", user_of(x));
    fields[n++] = LOG_DUR("duration", clock_mono_ns() - x->start_ns);
    fields[n++] = LOG_NUM("size", (int64_t)x->bytes_sent);
    fields[n++] = LOG_NUM("status", status == ACCESS_UNHANDLED ? 0 : status);
    fields[n++] = put_answer(x, l->credentials);
    for (uint32_t i = 0; i < x->log_extra_count; i++)
        fields[n++] = x->log_extra[i];
    *event = (struct log_event){.level = level,
                                .message = status == ACCESS_UNHANDLED ? SLICE("NOP")
                                                                      : SLICE("handled request"),
                                .fields = fields, .count = n,
                                .file = __FILE__, .function = __func__, .line = __LINE__};
    return true;
}

static void put_line(struct log_event *event, const struct access_names *names)
{
    event->wall_ns = clock_wall_ns();
    for (size_t i = 0; i < names->count; i++) {
        event->logger = names->loggers[i]->access_name;
        log_target_put(&names->loggers[i]->access, event);
    }
}

void access_log_end(const struct access_log *l, struct exchange *x, const struct access_entry *e,
                    int status)
{
    struct log_field request[REQUEST_FIELDS];
    struct log_event event;
    struct access_names names;
    if (make_line(l, x, e, status, request, &event, &names))
        put_line(&event, &names);
}

/* --- lines that are ended later --- */

struct access_later {
    struct arena arena;
    struct access_names names;
    struct log_event event;
    struct log_field *fields;
    uint64_t start_ns;
};

/* Groups are no deeper than "headers" in "request". */
static struct log_field *copy_fields(struct arena *a, const struct log_field *from, size_t count)
{
    struct log_field *to = ARENA_ARRAY(a, struct log_field, count + 1);
    for (size_t i = 0; i < count; i++) {
        to[i] = from[i];
        to[i].key = arena_copy(a, from[i].key);
        if (from[i].kind == LOG_STRING || from[i].kind == LOG_JSON) {
            to[i].text = arena_copy(a, from[i].text);
        } else if (from[i].kind == LOG_OBJECT) {
            to[i].object.fields = copy_fields(a, from[i].object.fields, from[i].object.count);
        } else if (from[i].kind == LOG_STRINGS) {
            struct slice *items = ARENA_ARRAY(a, struct slice, from[i].strings.count + 1);
            for (size_t k = 0; k < from[i].strings.count; k++)
                items[k] = arena_copy(a, from[i].strings.items[k]);
            to[i].strings.items = items;
        }
    }
    return to;
}

struct access_later *access_log_later(const struct access_log *l, struct exchange *x,
                                      const struct access_entry *e, int status)
{
    struct log_field request[REQUEST_FIELDS];
    struct log_event event;
    struct access_names names;
    if (!make_line(l, x, e, status, request, &event, &names))
        return NULL;
    struct access_later *later = NEW(struct access_later);
    arena_init(&later->arena, 2048);
    later->names = names;
    const struct access_logger **loggers = ARENA_ARRAY(&later->arena, const struct access_logger *,
                                                       names.count + 1);
    memcpy(loggers, names.loggers, names.count * sizeof *loggers);
    later->names.loggers = loggers;
    later->fields = copy_fields(&later->arena, event.fields, event.count);
    later->event = event;
    later->event.fields = later->fields;
    later->start_ns = x->start_ns;
    return later;
}

void access_later_end(struct access_later *later, uint64_t from_client, uint64_t to_client)
{
    later->fields[AT_READ].number += (int64_t)from_client;
    later->fields[AT_DURATION].number = (int64_t)(clock_mono_ns() - later->start_ns);
    later->fields[AT_SIZE].number += (int64_t)to_client;
    put_line(&later->event, &later->names);
    arena_deinit(&later->arena);
    mem_free(later);
}

void access_log_error(const struct access_log *l, struct exchange *x, enum log_level level,
                      const char *message, const struct log_field *more, size_t count)
{
    struct log_field request[REQUEST_FIELDS], fields[16];
    struct access_entry now = entry_now(x);
    struct access_names names = {0};
    size_t n = 0;
    if (!log_wants(level) || count > sizeof fields / sizeof fields[0] - 1)
        return;
    fields[n++] = LOG_GROUP("request", request,
                            put_request(request, x, &now, l != NULL && l->credentials));
    for (size_t i = 0; i < count; i++)
        fields[n++] = more[i];
    if (l != NULL)
        names = names_for(l, x, x->req.host);
    for (size_t i = 0; i < names.count; i++)
        log_emit(level, names.loggers[i]->error_name, slice_from(message), fields, n);
    if (l == NULL)
        log_emit(level, "http.log.error", slice_from(message), fields, n);
}

void access_log_add(struct exchange *x, const struct log_field *field)
{
    if ((x->log_extra_count & (x->log_extra_count - 1)) == 0) { /* 0, 1, 2, 4 …: grow */
        uint32_t cap = x->log_extra_count > 0 ? x->log_extra_count * 2 : 1;
        struct log_field *grown = arena_alloc(x->arena, cap * sizeof *grown);
        if (x->log_extra_count > 0)
            memcpy(grown, x->log_extra, x->log_extra_count * sizeof *grown);
        x->log_extra = grown;
    }
    x->log_extra[x->log_extra_count++] = *field;
}
