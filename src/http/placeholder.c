/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The placeholders of a request, by Caddy's names. Fixed names stand in a sorted table, each with
 * the function that gives its value; families (http.request.header.X) are prefixes in a second
 * one; what handlers and matchers set (http.vars.*, http.regexp.*, http.matchers.*) is found among
 * the exchange's variables under its whole name.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "http/placeholder_file.h"
#include "http/server.h"
#include "http/template.h"
#include "http/tls_placeholder.h"
#include "http/uri.h"

typedef struct slice fixed_value(struct exchange *);
typedef bool family_value(struct exchange *, struct slice rest, struct slice *value);

static struct slice number(struct exchange *x, uint64_t n)
{
    return arena_printf(x->arena, "%llu", (unsigned long long)n);
}

/* --- fixed names --- */

static struct slice request_body(struct exchange *x)
{
    struct slice whole;
    return exchange_whole_body(x, &whole) ? whole : SLICE_NONE;
}

static struct slice request_body_base64(struct exchange *x)
{
    struct slice whole = request_body(x);
    struct buffer b;
    buffer_init(&b, 4 * whole.len / 3 + 8);
    (void)!base64_encode(&b, whole);
    struct slice text = arena_copy(x->arena, buffer_slice(&b));
    buffer_deinit(&b);
    return text;
}

static struct slice error_id(struct exchange *x)
{
    return slice_from(x->error.id);
}

static struct slice error_message(struct exchange *x)
{
    return x->error.message;
}

static struct slice error_status(struct exchange *x)
{
    return x->error.status > 0 ? number(x, (uint64_t)x->error.status) : SLICE_NONE;
}

static struct slice error_text(struct exchange *x)
{
    return slice_from(x->error.status > 0 ? status_text(x->error.status) : "");
}

/* Caddy names the place in its source; here none is kept. */
static struct slice error_trace(struct exchange *x)
{
    (void)x;
    return SLICE("");
}

static struct slice duration_text(struct exchange *x, int64_t ns)
{
    struct buffer b;
    buffer_init(&b, 64);
    (void)!duration_put(&b, ns);
    struct slice text = arena_copy(x->arena, buffer_slice(&b));
    buffer_deinit(&b);
    return text;
}

static struct slice duration(struct exchange *x)
{
    return duration_text(x, (int64_t)(clock_mono_ns() - x->start_ns));
}

static uint64_t shutdown_ns(const struct exchange *x)
{
    if (x->server == NULL || x->server->shutdown_ns == NULL)
        return 0;
    return atomic_load_explicit(x->server->shutdown_ns, memory_order_relaxed);
}

static struct slice shutting_down(struct exchange *x)
{
    return shutdown_ns(x) > 0 ? SLICE("true") : SLICE("false");
}

static struct slice until_shutdown(struct exchange *x)
{
    uint64_t at = shutdown_ns(x);
    return at > 0 ? duration_text(x, (int64_t)(at - clock_mono_ns())) : SLICE_NONE;
}

static struct slice duration_ms(struct exchange *x)
{
    return arena_printf(x->arena, "%.6g", (double)(clock_mono_ns() - x->start_ns) / 1e6);
}

static struct slice host(struct exchange *x)
{
    struct slice name, port;
    host_split(x->req.host, &name, &port);
    return name;
}

/* Without a port, and an IPv6 address in brackets: for Location. */
static struct slice host_in_url(struct exchange *x)
{
    struct slice name = host(x);
    bool six = slice_find(name, ':') != SIZE_MAX;
    return six ? arena_join(x->arena, (struct slice[]){SLICE("["), name, SLICE("]")}, 3) : name;
}

static struct slice hostport(struct exchange *x)
{
    return x->req.host;
}

static struct slice port(struct exchange *x)
{
    struct slice name, digits;
    host_split(x->req.host, &name, &digits);
    return digits;
}

static struct slice method(struct exchange *x)
{
    return x->req.method;
}

static struct slice orig_method(struct exchange *x)
{
    return x->req.original_method;
}

static struct slice orig_uri(struct exchange *x)
{
    return uri_text(&x->req.original_uri, x->arena);
}

static struct slice orig_path(struct exchange *x)
{
    return x->req.original_uri.path;
}

static struct slice file_of(struct slice path)
{
    size_t slash = slice_find_last(path, '/');
    return slash == SIZE_MAX ? path : slice_skip(path, slash + 1);
}

static struct slice dir_of(struct slice path)
{
    return slice_take(path, path.len - file_of(path).len);
}

static struct slice prefixed(struct exchange *x, struct slice query)
{
    return query.len > 0 ? arena_join(x->arena, (struct slice[]){SLICE("?"), query}, 2) : SLICE_NONE;
}

static struct slice orig_dir(struct exchange *x)
{
    return dir_of(x->req.original_uri.path);
}

static struct slice orig_file(struct exchange *x)
{
    return file_of(x->req.original_uri.path);
}

static struct slice orig_query(struct exchange *x)
{
    return x->req.original_uri.query;
}

static struct slice orig_prefixed_query(struct exchange *x)
{
    return prefixed(x, x->req.original_uri.query);
}

static struct slice proto(struct exchange *x)
{
    return arena_printf(x->arena, "HTTP/%d.%d", x->req.major, x->req.minor);
}

static struct slice proto_name(struct exchange *x)
{
    return x->req.major < 2 ? proto(x) : arena_printf(x->arena, "HTTP/%d", x->req.major);
}

static struct slice join_host_port(struct exchange *x, struct slice name, struct slice digits)
{
    bool six = slice_find(name, ':') != SIZE_MAX;
    return arena_join(x->arena,
                      (struct slice[]){six ? SLICE("[") : SLICE(""), name,
                                       six ? SLICE("]:") : SLICE(":"), digits}, 4);
}

static struct slice remote(struct exchange *x)
{
    exchange_addresses(x);
    if (x->remote_port.len == 0) /* a Unix socket's peer: "@" */
        return x->remote_host;
    return join_host_port(x, x->remote_host, x->remote_port);
}

static struct slice local(struct exchange *x)
{
    exchange_local(x);
    return join_host_port(x, x->local_host, x->local_port);
}

static struct slice local_host(struct exchange *x)
{
    exchange_local(x);
    return x->local_host;
}

static struct slice local_port(struct exchange *x)
{
    exchange_local(x);
    return x->local_port;
}

static struct slice remote_host(struct exchange *x)
{
    exchange_addresses(x);
    return x->remote_host;
}

static struct slice remote_port(struct exchange *x)
{
    exchange_addresses(x);
    return x->remote_port;
}

static struct slice scheme(struct exchange *x)
{
    return x->req.scheme;
}

static struct slice uri_now(struct exchange *x)
{
    return uri_text(&x->req.uri, x->arena);
}

static struct slice uri_escaped(struct exchange *x)
{
    return query_escape(uri_now(x), x->arena);
}

static struct slice path_now(struct exchange *x)
{
    return x->req.uri.path;
}

static struct slice path_escaped(struct exchange *x)
{
    return query_escape(x->req.uri.path, x->arena);
}

static struct slice path_dir(struct exchange *x)
{
    return dir_of(x->req.uri.path);
}

static struct slice path_file(struct exchange *x)
{
    return file_of(x->req.uri.path);
}

static struct slice path_file_ext(struct exchange *x)
{
    struct slice file = path_file(x);
    size_t dot = slice_find_last(file, '.');
    return dot == SIZE_MAX ? SLICE_NONE : slice_skip(file, dot);
}

static struct slice path_file_base(struct exchange *x)
{
    struct slice file = path_file(x);
    return slice_take(file, file.len - path_file_ext(x).len);
}

static struct slice query_now(struct exchange *x)
{
    return x->req.uri.query;
}

static struct slice query_escaped(struct exchange *x)
{
    return query_escape(x->req.uri.query, x->arena);
}

static struct slice prefixed_query(struct exchange *x)
{
    return prefixed(x, x->req.uri.query);
}

/* A version 4 UUID, made at the first use. */
static struct slice uuid(struct exchange *x)
{
    uint8_t b[16];
    if (x->uuid[0] == '\0' && getrandom(b, sizeof b, 0) == (ssize_t)sizeof b) {
        b[6] = (b[6] & 0x0f) | 0x40;
        b[8] = (b[8] & 0x3f) | 0x80;
        struct slice text = arena_printf(
            x->arena, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
            b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
            b[15]);
        memcpy(x->uuid, text.ptr, text.len);
        x->uuid[text.len] = '\0';
    }
    return slice_from(x->uuid);
}

static struct slice system_hostname(struct exchange *x)
{
    char name[256] = "";
    gethostname(name, sizeof name - 1);
    return arena_copy(x->arena, slice_from(name));
}

static struct slice now_http(struct exchange *x)
{
    char text[HTTP_DATE_LEN];
    clock_http_date(clock_wall_ns() / (int64_t)NS_PER_S, text);
    return arena_copy(x->arena, slice_of(text, sizeof text));
}

static struct slice now_unix(struct exchange *x)
{
    return number(x, (uint64_t)(clock_wall_ns() / (int64_t)NS_PER_S));
}

static struct slice now_unix_ms(struct exchange *x)
{
    return number(x, (uint64_t)(clock_wall_ns() / (int64_t)NS_PER_MS));
}

/* Now in the time zone of this system, as strftime writes it. */
static struct slice now_as(struct exchange *x, const char *format)
{
    char text[64];
    struct tm tm;
    time_t now = (time_t)(clock_wall_ns() / (int64_t)NS_PER_S);
    localtime_r(&now, &tm);
    return arena_copy(x->arena, slice_of(text, strftime(text, sizeof text, format, &tm)));
}

static struct slice now_text(struct exchange *x)
{
    return now_as(x, "%Y-%m-%d %H:%M:%S %z %Z");
}

static struct slice now_common_log(struct exchange *x)
{
    return now_as(x, "%d/%b/%Y:%H:%M:%S %z");
}

static struct slice now_year(struct exchange *x)
{
    return now_as(x, "%Y");
}

static struct slice working_folder(struct exchange *x)
{
    char path[1024];
    return getcwd(path, sizeof path) != NULL ? arena_copy(x->arena, slice_from(path)) : SLICE("");
}

/* By Go's name. */
static struct slice system_arch(struct exchange *x)
{
    struct utsname u;
    uname(&u);
    const char *name = strcmp(u.machine, "x86_64") == 0    ? "amd64"
                       : strcmp(u.machine, "aarch64") == 0 ? "arm64"
                                                           : u.machine;
    return arena_copy(x->arena, slice_from(name));
}

static struct slice separator(struct exchange *x)
{
    (void)x;
    return SLICE("/");
}

static struct slice system_os(struct exchange *x)
{
    (void)x;
    return SLICE("linux");
}

static const struct {
    const char *name; /* sorted by bytes */
    fixed_value *value;
} fixed[] = {
    {"http.error.id", error_id},
    {"http.error.message", error_message},
    {"http.error.status_code", error_status},
    {"http.error.status_text", error_text},
    {"http.error.trace", error_trace},
    {"http.request.body", request_body},
    {"http.request.body_base64", request_body_base64},
    {"http.request.duration", duration},
    {"http.request.duration_ms", duration_ms},
    {"http.request.host", host},
    {"http.request.host_in_url", host_in_url},
    {"http.request.hostport", hostport},
    {"http.request.local", local},
    {"http.request.local.host", local_host},
    {"http.request.local.port", local_port},
    {"http.request.method", method},
    {"http.request.orig_method", orig_method},
    {"http.request.orig_uri", orig_uri},
    {"http.request.orig_uri.path", orig_path},
    {"http.request.orig_uri.path.dir", orig_dir},
    {"http.request.orig_uri.path.file", orig_file},
    {"http.request.orig_uri.prefixed_query", orig_prefixed_query},
    {"http.request.orig_uri.query", orig_query},
    {"http.request.port", port},
    {"http.request.proto", proto},
    {"http.request.proto_name", proto_name},
    {"http.request.remote", remote},
    {"http.request.remote.host", remote_host},
    {"http.request.remote.port", remote_port},
    {"http.request.scheme", scheme},
    {"http.request.uri", uri_now},
    {"http.request.uri.path", path_now},
    {"http.request.uri.path.dir", path_dir},
    {"http.request.uri.path.file", path_file},
    {"http.request.uri.path.file.base", path_file_base},
    {"http.request.uri.path.file.ext", path_file_ext},
    {"http.request.uri.path_escaped", path_escaped},
    {"http.request.uri.prefixed_query", prefixed_query},
    {"http.request.uri.query", query_now},
    {"http.request.uri.query_escaped", query_escaped},
    {"http.request.uri_escaped", uri_escaped},
    {"http.request.uuid", uuid},
    {"http.shutting_down", shutting_down},
    {"http.time_until_shutdown", until_shutdown},
    {"system.arch", system_arch},
    {"system.hostname", system_hostname},
    {"system.os", system_os},
    {"system.slash", separator},
    {"system.wd", working_folder},
    {"time.now", now_text},
    {"time.now.common_log", now_common_log},
    {"time.now.http", now_http},
    {"time.now.unix", now_unix},
    {"time.now.unix_ms", now_unix_ms},
    {"time.now.year", now_year},
};

static fixed_value *find_fixed(struct slice name)
{
    size_t low = 0, high = sizeof fixed / sizeof fixed[0];
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = slice_cmp(name, slice_from(fixed[middle].name));
        if (order == 0)
            return fixed[middle].value;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* --- families: known whatever their rest is, as in Caddy --- */

static bool env(struct exchange *x, struct slice rest, struct slice *value)
{
    *value = slice_from(getenv(arena_str(x->arena, rest)));
    return true;
}

static bool header(struct exchange *x, struct slice rest, struct slice *value)
{
    uint32_t at = 0;
    struct field *f = fields_find(&x->req.fields, rest, &at);
    *value = f != NULL ? f->value : SLICE_NONE;
    while (f != NULL && (f = fields_find(&x->req.fields, rest, &at)) != NULL)
        *value = arena_join(x->arena, (struct slice[]){*value, SLICE(","), f->value}, 3);
    return true;
}

static bool response_header(struct exchange *x, struct slice rest, struct slice *value)
{
    fields_get(&x->res.fields, rest, value);
    return true;
}

static bool cookie(struct exchange *x, struct slice rest, struct slice *value)
{
    return fields_cookie(&x->req.fields, rest, true, value);
}

static bool query(struct exchange *x, struct slice rest, struct slice *value)
{
    struct slice all = x->req.uri.query, key, raw, one;
    bool any = false;
    *value = SLICE_NONE;
    while (query_next(&all, &key, &raw)) {
        if (query_decode(key, x->arena, &one) != OK || !slice_eq(one, rest) ||
            query_decode(raw, x->arena, &one) != OK)
            continue;
        *value = any ? arena_join(x->arena, (struct slice[]){*value, SLICE(","), one}, 3) : one;
        any = true;
    }
    return true;
}

static bool path_part(struct slice path, struct slice rest, struct slice *value)
{
    uint64_t index;
    *value = SLICE_NONE;
    if (!slice_to_u64(rest, UINT32_MAX, &index))
        return false;
    if (slice_starts(path, SLICE("/")))
        path = slice_skip(path, 1);
    for (bool more = true; more; index--) {
        struct slice part, tail;
        more = slice_cut(path, '/', &part, &tail);
        if (index == 0) {
            *value = part;
            return true;
        }
        path = tail;
    }
    return true;
}

static bool uri_path_part(struct exchange *x, struct slice rest, struct slice *value)
{
    return path_part(x->req.uri.path, rest, value);
}

static bool orig_path_part(struct exchange *x, struct slice rest, struct slice *value)
{
    return path_part(x->req.original_uri.path, rest, value);
}

/* Labels from the right: 0 is the top level domain. */
static bool host_label(struct exchange *x, struct slice rest, struct slice *value)
{
    uint64_t index;
    struct slice name = host(x);
    *value = SLICE_NONE;
    if (!slice_to_u64(rest, UINT32_MAX, &index))
        return false;
    for (;; index--) {
        size_t dot = slice_find_last(name, '.');
        struct slice label = dot == SIZE_MAX ? name : slice_skip(name, dot + 1);
        if (index == 0) {
            char *lower = arena_str(x->arena, label);
            for (size_t i = 0; i < label.len; i++)
                lower[i] = ascii_lower(lower[i]);
            *value = slice_of(lower, label.len);
            return true;
        }
        if (dot == SIZE_MAX)
            return true;
        name = slice_take(name, dot);
    }
}

/* "24" or "24,64": the peer's network with that many bits, of IPv4 and of IPv6. */
static bool remote_network(struct exchange *x, struct slice rest, struct slice *value)
{
    unsigned char bytes[16];
    char text[INET6_ADDRSTRLEN];
    struct slice four, six;
    uint64_t bits;
    exchange_addresses(x);
    bool is_six = slice_find(x->remote_host, ':') != SIZE_MAX;
    int family = is_six ? AF_INET6 : AF_INET;
    *value = x->remote_host;
    if (inet_pton(family, arena_str(x->arena, x->remote_host), bytes) != 1)
        return true;
    bool both = slice_cut(rest, ',', &four, &six);
    *value = SLICE_NONE;
    if (!slice_to_u64(is_six && both ? six : four, is_six ? 128 : 32, &bits))
        return true;
    for (unsigned i = 0; i < (is_six ? 16u : 4u); i++) {
        unsigned kept = bits > i * 8 ? (unsigned)bits - i * 8 : 0;
        bytes[i] &= kept >= 8 ? 0xff : (unsigned char)(0xff00 >> kept);
    }
    inet_ntop(family, bytes, text, sizeof text);
    *value = arena_printf(x->arena, "%s/%u", text, (unsigned)bits);
    return true;
}

static bool reverse_proxy(struct exchange *x, struct slice rest, struct slice *value)
{
    *value = SLICE_NONE;
    return x->gateway != NULL && x->gateway->value(x, rest, value);
}

static bool variable(struct exchange *x, struct slice rest, struct slice *value)
{
    *value = SLICE_NONE; /* one that is set was found before by its whole name */
    if (slice_is(rest, "client_ip") || slice_is(rest, "trusted_proxy"))
        exchange_addresses(x);
    if (slice_is(rest, "client_ip"))
        *value = x->client_ip;
    else if (slice_is(rest, "trusted_proxy"))
        *value = x->client_is_proxy ? SLICE("true") : SLICE("false");
    return true;
}

static const struct {
    struct slice prefix;
    family_value *value;
} families[] = {
    {{"env.", 4}, env},
    {{"file.", 5}, placeholder_file},
    {{"http.vars.", 10}, variable},
    {{"http.request.header.", 20}, header},
    {{"http.request.cookie.", 20}, cookie},
    {{"http.request.uri.query.", 23}, query},
    {{"http.request.uri.path.", 22}, uri_path_part},
    {{"http.request.orig_uri.path.", 27}, orig_path_part},
    {{"http.request.host.labels.", 25}, host_label},
    {{"http.request.remote.host/", 25}, remote_network},
    {{"http.request.tls.", 17}, tls_placeholder},
    {{"http.response.header.", 21}, response_header},
    {{"http.reverse_proxy.", 19}, reverse_proxy},
};

void placeholder_resolve(struct placeholder *p, struct slice name)
{
    *p = (struct placeholder){.name = name, .fixed = find_fixed(name)};
    for (size_t i = 0; p->fixed == NULL && i < sizeof families / sizeof families[0]; i++) {
        if (!slice_starts(name, families[i].prefix))
            continue;
        p->family = families[i].value;
        p->rest = slice_skip(name, families[i].prefix.len);
        return;
    }
}

bool placeholder_value(const struct placeholder *p, struct exchange *x, struct slice *value)
{
    if (p->fixed != NULL) {
        *value = p->fixed(x);
        return true;
    }
    if (x->vars_count > 0 && exchange_get_var(x, p->name, value))
        return true;
    if (p->family != NULL)
        return p->family(x, p->rest, value);
    if (x->mappers != NULL)
        return exchange_mapped(x, p->name, value);
    *value = SLICE_NONE;
    return false;
}

bool placeholder_get(struct exchange *x, struct slice name, struct slice *value)
{
    struct placeholder p;
    placeholder_resolve(&p, name);
    return placeholder_value(&p, x, value);
}
