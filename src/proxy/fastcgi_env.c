/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The environment of a FastCGI request: what RFC 3875 §4.1 wants and what programs, PHP's above all,
 * have learned to expect, with the values that Caddy gives. In this order, later ones replacing
 * earlier ones of the same name: what the request is; what the configuration says; the request's
 * header fields as HTTP_NAME; its method and its body's length.
 *
 * Two header fields may become one variable, since '-' becomes '_' there, and PHP makes the same of
 * '.'. The server drops names with '_' or '.' before any handler sees them, unless its configuration
 * lets some through; of those the field with '-' wins, so that what a proxy says is never what a client
 * has said. Proxy is left out: many programs would take HTTP_PROXY for something else.
 */
#include <stdlib.h>

#include "base/check.h"
#include "files/path.h"
#include "http/uri.h"
#include "loop/await.h"
#include "proxy/gateway.h"
#include "version.h"

enum { OWN_MAX = 40 };

struct environment {
    struct field *items;
    size_t count, cap;
    struct round *round;
    const struct fastcgi_transport *transport;
    struct arena *arena;
    bool resolve;
};

static void add(struct environment *e, struct slice name, struct slice value)
{
    ASSERT(e->count < e->cap);
    e->items[e->count++] = (struct field){name, value};
}

static struct field *find(const struct environment *e, struct slice name)
{
    for (size_t i = 0; i < e->count; i++)
        if (slice_eq(e->items[i].name, name))
            return &e->items[i];
    return NULL;
}

static void set(struct environment *e, struct slice name, struct slice value)
{
    struct field *f = find(e, name);
    if (f != NULL)
        f->value = value;
    else
        add(e, name, value);
}

/* --- paths --- */

size_t fastcgi_split(const struct fastcgi_transport *t, struct slice path)
{
    if (t->splits_count == 0)
        return 0;
    for (size_t i = 0; i < t->splits_count; i++) {
        struct slice s = t->splits[i];
        for (size_t at = 0; s.len > 0 && at + s.len <= path.len; at++)
            if (slice_eq_nocase(slice_of(path.ptr + at, s.len), s))
                return at + s.len;
    }
    return SIZE_MAX;
}

/* --- the root --- */

struct resolving {
    const char *path;
    char *real; /* malloc'd, or NULL */
};

static void resolve(void *arg)
{
    struct resolving *r = arg;
    r->real = realpath(r->path, NULL);
}

/* What a symbolic link leads to now: programs that cache by path must see the new one. ERR_NOT_FOUND:
 * nowhere. */
static enum err real_path(struct slice *path, struct arena *arena)
{
    struct resolving r = {arena_str(arena, *path), NULL};
    enum err e = await_offload(resolve, &r);
    if (r.real != NULL)
        *path = arena_copy(arena, slice_from(r.real));
    free(r.real);
    return e == OK && r.real == NULL ? ERR_NOT_FOUND : e;
}

struct slice fastcgi_root(struct round *r, const struct fastcgi_transport *t, struct arena *arena)
{
    struct slice root = r->probe ? template_expand_now(t->root.text, arena)
                                 : template_expand_or(&t->root, r->x, SLICE("."));
    if (root.len == 0)
        root = SLICE(".");
    return path_clean(path_absolute(t->folder, root, arena), arena);
}

static enum err find_root(struct environment *e, struct slice *root)
{
    *root = fastcgi_root(e->round, e->transport, e->arena);
    if (!e->resolve || !e->transport->resolve_root)
        return OK;
    enum err err = real_path(root, e->arena);
    return err == ERR_NOT_FOUND
               ? exchange_fail_f(e->round->x, 502, "building environment: the root " SLICE_FMT
                                 " cannot be resolved", SLICE_ARG(*root))
               : err;
}

static bool is_named(const struct fastcgi_transport *t, struct slice name)
{
    for (size_t i = 0; i < t->env_count; i++)
        if (slice_eq(t->env_names[i], name))
            return true;
    return false;
}

/* Those that begin with it, unless they are the configuration's own. */
bool fastcgi_resolve_later(const struct fastcgi_transport *t, struct slice root, struct field *pairs,
                           size_t count, struct arena *arena)
{
    static const char *const names[] = {"DOCUMENT_ROOT", "SCRIPT_FILENAME", "PATH_TRANSLATED"};
    struct slice real = root;
    if (real_path(&real, arena) != OK)
        return false;
    size_t skip = slice_is(root, "/") ? 0 : root.len;
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < sizeof names / sizeof names[0]; k++)
            if (slice_is(pairs[i].name, names[k]) && !is_named(t, pairs[i].name))
                pairs[i].value = path_join(real, slice_skip(pairs[i].value, skip), arena);
    return true;
}

/* --- paths --- */

static enum err add_paths(struct environment *e)
{
    struct slice root, path = e->round->uri.path, script = path, info = SLICE_NONE;
    TRY(find_root(e, &root));
    size_t at = fastcgi_split(e->transport, path);
    if (at != SIZE_MAX) {
        script = slice_take(path, at);
        info = slice_skip(path, at);
    }
    add(e, SLICE("DOCUMENT_URI"), script);
    if (info.len == 0)
        exchange_get_var(e->round->x, SLICE("http.matchers.file.remainder"), &info);
    add(e, SLICE("PATH_INFO"), info);
    if (info.len > 0)
        add(e, SLICE("PATH_TRANSLATED"), path_join(root, info, e->arena));
    add(e, SLICE("DOCUMENT_ROOT"), root);
    add(e, SLICE("SCRIPT_FILENAME"), path_join(root, script, e->arena));
    if (script.len > 0 && script.ptr[0] != '/')
        script = arena_join(e->arena, (struct slice[]){SLICE("/"), script}, 2);
    add(e, SLICE("SCRIPT_NAME"), script);
    return OK;
}

/* --- the request --- */

static void add_client(struct environment *e)
{
    struct exchange *x = e->round->x;
    struct slice user;
    struct ip_address ip;
    exchange_addresses(x);
    exchange_local(x);
    add(e, SLICE("REMOTE_ADDR"), x->remote_host);
    add(e, SLICE("REMOTE_HOST"), x->remote_host);
    add(e, SLICE("REMOTE_PORT"), x->remote_port);
    add(e, SLICE("REMOTE_IDENT"), SLICE_NONE);
    if (e->round->probe || !placeholder_get(x, SLICE("http.auth.user.id"), &user))
        user = SLICE_NONE;
    add(e, SLICE("REMOTE_USER"), user);
    if (ip_parse(x->local_host, &ip))
        add(e, SLICE("SERVER_ADDR"), x->local_host);
}

static void add_server(struct environment *e, struct slice hostport)
{
    bool tls = e->round->x->tls != NULL;
    struct slice host, port;
    host_split(hostport, &host, &port);
    add(e, SLICE("SERVER_NAME"), port.len > 0 ? host : hostport);
    add(e, SLICE("SERVER_PORT"), port.len > 0 ? port : tls ? SLICE("443") : SLICE("80"));
    add(e, SLICE("SERVER_SOFTWARE"), SLICE("portico/" PORTICO_VERSION));
    add(e, SLICE("HTTP_HOST"), hostport);
}

static void add_tls(struct environment *e)
{
    struct exchange *x = e->round->x;
    struct slice value;
    if (x->tls == NULL)
        return;
    add(e, SLICE("HTTPS"), SLICE("on"));
    if (placeholder_get(x, SLICE("http.request.tls.version"), &value) &&
        slice_starts(value, SLICE("tls")))
        add(e, SLICE("SSL_PROTOCOL"),
            arena_join(e->arena, (struct slice[]){SLICE("TLSv"), slice_skip(value, 3)}, 2));
    if (placeholder_get(x, SLICE("http.request.tls.cipher_suite"), &value))
        add(e, SLICE("SSL_CIPHER"), value);
}

static struct slice protocol(const struct request *q)
{
    if (q->major == 2)
        return SLICE("HTTP/2.0");
    return q->minor == 0 ? SLICE("HTTP/1.0") : SLICE("HTTP/1.1");
}

static void add_request(struct environment *e, const struct fields *fs)
{
    const struct request *q = &e->round->x->req;
    struct slice type;
    fields_get(fs, SLICE("Content-Type"), &type);
    add(e, SLICE("AUTH_TYPE"), SLICE_NONE);
    add(e, SLICE("CONTENT_TYPE"), type);
    add(e, SLICE("GATEWAY_INTERFACE"), SLICE("CGI/1.1"));
    add(e, SLICE("QUERY_STRING"), e->round->uri.query);
    add(e, SLICE("REQUEST_SCHEME"), e->round->x->tls != NULL ? SLICE("https") : SLICE("http"));
    add(e, SLICE("REQUEST_URI"), uri_text(&q->original_uri, e->arena));
    add(e, SLICE("SERVER_PROTOCOL"), protocol(q));
}

/* What no configuration can change, since it frames what follows. */
static void set_body(struct environment *e, const struct fields *fs)
{
    const struct round *r = e->round;
    struct slice type;
    set(e, SLICE("REQUEST_METHOD"), r->method);
    set(e, SLICE("CONTENT_LENGTH"), r->has_body ? arena_printf(e->arena, "%lld",
                                                               (long long)r->body_length)
                                                : SLICE("0"));
    if (slice_is(r->method, "GET") || slice_is(r->method, "HEAD") ||
        slice_is(r->method, "OPTIONS"))
        return;
    if (!fields_get(fs, SLICE("Content-Type"), &type) || type.len == 0)
        type = SLICE("application/x-www-form-urlencoded");
    set(e, SLICE("CONTENT_TYPE"), type);
}

/* --- header fields --- */

static struct slice variable(struct slice name, struct arena *arena)
{
    char *to = arena_alloc(arena, name.len + 5);
    memcpy(to, "HTTP_", 5);
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        to[5 + i] = c == '-' || c == '.' ? '_' : c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
    }
    return slice_of(to, name.len + 5);
}

static bool came_before(const struct fields *fs, uint32_t at)
{
    uint32_t from = 0;
    return fields_find(fs, fs->items[at].name, &from) != &fs->items[at];
}

static bool is_ambiguous(struct slice name)
{
    return slice_find(name, '_') != SIZE_MAX || slice_find(name, '.') != SIZE_MAX;
}

static void set_some_fields(struct environment *e, const struct fields *fs, bool ambiguous)
{
    for (uint32_t i = 0; i < fs->count; i++) {
        struct slice name = fs->items[i].name;
        if (is_ambiguous(name) != ambiguous || slice_eq_nocase(name, SLICE("Host")) ||
            slice_eq_nocase(name, SLICE("Proxy")) || came_before(fs, i))
            continue;
        set(e, variable(name, e->arena), fields_joined(fs, name, e->arena));
    }
}

static void set_fields(struct environment *e, const struct fields *fs)
{
    set_some_fields(e, fs, true);
    set_some_fields(e, fs, false);
}

/* Fields that the gateway itself keeps apart. */
static void set_own_fields(struct environment *e, const struct fields *fs)
{
    const struct round *r = e->round;
    if (!fields_has(fs, SLICE("User-Agent")))
        set(e, SLICE("HTTP_USER_AGENT"), SLICE_NONE);
    if (r->body_length >= 0 && (fields_has(&r->x->req.fields, SLICE("Content-Length")) ||
                                r->x->req.content_length < 0))
        set(e, SLICE("HTTP_CONTENT_LENGTH"),
            arena_printf(e->arena, "%lld", (long long)r->body_length));
}

enum err fastcgi_environment(struct round *r, const struct fastcgi_transport *t, bool resolve,
                             struct field **pairs, size_t *count)
{
    struct fields fs = gateway_fields(r);
    struct environment e = {.round = r, .transport = t, .arena = r->x->arena,
                            .resolve = resolve,
                            .cap = OWN_MAX + t->env_count + fs.count};
    struct slice host;
    e.items = ARENA_ARRAY(e.arena, struct field, e.cap);
    fields_get(&fs, SLICE("Host"), &host);
    add_request(&e, &fs);
    TRY(add_paths(&e));
    add_client(&e);
    add_server(&e, host);
    add_tls(&e);
    for (size_t i = 0; i < t->env_count; i++)
        set(&e, t->env_names[i], round_text(r, &t->env_values[i]));
    set_fields(&e, &fs);
    set_own_fields(&e, &fs);
    set_body(&e, &fs);
    *pairs = e.items;
    *count = e.count;
    return OK;
}
