/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request goes out in one piece on a kept connection or a fresh one, and its answer is gathered
 * whole. A kept connection may have been closed by the server at the very moment: then what may
 * arrive twice is asked again on a fresh one, once. Redirects are followed for GET and HEAD; what
 * tells the server who asks (Authorization, Cookie) does not follow to another one.
 *
 * One deadline stands over all of it; the sentence says what was under way when it passed.
 */
#include "client/fetch.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "client/client_answer.h"
#include "client/forward_proxy.h"
#include "client/h2_link.h"
#include "client/relay.h"
#include "client/url.h"
#include "loop/await.h"
#include "net/dial.h"
#include "upstream/iobuf.h"
#include "version.h"

enum { HEAD_MAX = 256 * 1024, INTERIM_MAX = 16, PASS_MAX = 65536 };

#define PASS_NS (50 * NS_PER_MS)

static const struct link_limits kept = {.idle_per_group = 2, .idle_timeout_ns = 10 * NS_PER_S};

/* One request on its way, over redirects. */
struct trip {
    const struct fetch_request *q;
    struct fetch_answer *out;
    struct arena *arena;
    uint64_t deadline_ns;
    struct slice method;
    struct url url;
    struct url origin;  /* the first one */
    struct forward_proxy proxy;
    bool by_proxy;
    struct slice key;   /* of its links */
    struct link *link;
    const char *doing;  /* for the sentence */
    bool stale;         /* the kept connection had been closed */
};

__attribute__((format(printf, 3, 4))) static enum err say(struct trip *t, enum err e,
                                                          const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(t->out->why, sizeof t->out->why, format, args);
    va_end(args);
    return e;
}

/* A wait that ended early, in words. */
static enum err say_ended(struct trip *t, enum err e)
{
    char why[256];
    if (e == ERR_TIMEOUT)
        return say(t, e, "timed out while %s", t->doing);
    if (fiber_self()->cancelled != OK)
        return say(t, e, "%s while %s", err_text(e), t->doing);
    if (e == ERR_CLOSED)
        return say(t, e, "the connection ended while %s", t->doing);
    if (t->link != NULL && link_tls_why(t->link, why, sizeof why))
        return say(t, e, "%s: %s", t->doing, why);
    return say(t, e, "%s: %s", t->doing, err_text(e));
}

/* --- the connection --- */

static socklen_t address_size(const struct sockaddr *a)
{
    return a->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

static struct slice local_text(const struct sockaddr *a, struct arena *arena)
{
    if (a == NULL)
        return SLICE_NONE;
    struct slice raw = slice_of((const char *)a, address_size(a));
    struct slice text = SLICE("");
    for (size_t i = 0; i < raw.len; i++)
        text = arena_printf(arena, SLICE_FMT "%02x", SLICE_ARG(text), (unsigned char)raw.ptr[i]);
    return text;
}

static struct tls_client *tls_of(const struct trip *t)
{
    return t->q->tls != NULL ? t->q->tls : tls_client_system();
}

/* Where this server's link ends: at the other one, or at a proxy. */
static const struct url *first_hop(const struct trip *t)
{
    return t->by_proxy ? &t->proxy.url : &t->url;
}

static enum err choose_proxy(struct trip *t)
{
    struct slice text = t->q->proxy;
    bool own = text.len > 0;
    const char *why;
    t->by_proxy = false;
    if (t->q->no_proxy)
        return OK;
    enum err e = own ? OK : proxy_rules_choose(proxy_rules_of_process(), t->url.tls, t->url.host,
                                               t->url.port, &text, &why);
    if (e == OK && text.len == 0)
        return OK;
    if (e == OK)
        e = forward_proxy_parse(text, &t->proxy, t->arena, &why);
    if (e != OK)
        return say(t, e, "%s: %s", own ? "network proxy" : "proxy of the environment", why);
    t->by_proxy = true;
    return OK;
}

static void make_key(struct trip *t)
{
    struct slice tls = t->url.tls ? tls_client_id(tls_of(t)) : SLICE_NONE;
    struct slice proxy = t->by_proxy ? forward_proxy_key(&t->proxy, t->arena) : SLICE_NONE;
    t->key = arena_printf(t->arena, "fetch " SLICE_FMT " " SLICE_FMT " " SLICE_FMT " " SLICE_FMT,
                          SLICE_ARG(tls), SLICE_ARG(t->url.hostport),
                          SLICE_ARG(local_text(t->q->local, t->arena)), SLICE_ARG(proxy));
}

static enum err dial(struct trip *t, int *fd)
{
    const struct url *to_url = first_hop(t);
    struct resolved to;
    struct dialed out;
    struct dial_options options = {.deadline_ns = t->deadline_ns, .local = t->q->local};
    if (options.local != NULL)
        options.local_len = address_size(options.local);
    t->doing = "looking up the host";
    enum err e = await_resolve(to_url->host, to_url->port, t->deadline_ns, &to);
    if (e != OK && e != ERR_TIMEOUT && fiber_self()->cancelled == OK)
        return say(t, e, "lookup " SLICE_FMT ": %s", SLICE_ARG(to_url->host),
                   to.why != NULL ? to.why : err_text(e));
    if (e != OK)
        return say_ended(t, e);
    t->doing = "connecting";
    e = await_dial(&to, &options, &out);
    *fd = out.fd;
    if (e == OK || e == ERR_TIMEOUT || fiber_self()->cancelled != OK)
        return e == OK ? OK : say_ended(t, e);
    return say(t, e, "%sdial tcp " SLICE_FMT ": connect: %s", t->by_proxy ? "proxy: " : "",
               SLICE_ARG(to_url->hostport),
               out.error != 0 ? strerrordesc_np(out.error) : err_text(e));
}

static void drop_link(struct trip *t)
{
    link_close(t->link);
    t->link = NULL;
}

static enum err shake_hands(struct trip *t, struct tls_client *with, struct slice host)
{
    char why[400];
    t->doing = "shaking hands";
    enum err e = await_link_tls(t->link, with, host, t->deadline_ns, why, sizeof why);
    if (e == ERR_DENIED)
        return say(t, e, "tls: %s", why);
    return e == OK ? OK : say_ended(t, e);
}

static enum err pass_proxy(struct trip *t)
{
    char why[400];
    t->doing = "asking the proxy";
    enum err e = await_proxy_tunnel(t->link, &t->proxy, t->url.hostport, t->arena, t->deadline_ns,
                                    why, sizeof why);
    if (e == OK || e == ERR_TIMEOUT || fiber_self()->cancelled != OK)
        return e == OK ? OK : say_ended(t, e);
    return say(t, e, "%s", why);
}

/* From a TCP connection to one on which HTTP is spoken. */
static enum err prepare_link(struct trip *t)
{
    enum err e = OK;
    if (t->by_proxy && t->proxy.url.tls)
        e = shake_hands(t, tls_client_system(), t->proxy.url.host);
    if (e == OK && t->by_proxy && (t->url.tls || !proxy_takes_urls(&t->proxy)))
        e = pass_proxy(t);
    if (e == OK && t->url.tls)
        e = shake_hands(t, tls_of(t), t->url.host);
    if (e != OK)
        drop_link(t);
    return e;
}

static enum err open_link(struct trip *t)
{
    int fd;
    struct endpoint *e = endpoint_ref(t->key);
    if (e == NULL)
        return say(t, ERR_LIMIT, "too many servers at once");
    enum err err = dial(t, &fd);
    if (err == OK) {
        (void)link_reserve(e, &kept);
        t->link = link_open(t->key, e, fd);
    }
    endpoint_unref(e);
    return err;
}

static enum err open_other(struct trip *t, bool fresh)
{
    struct fetch_opening o = {.fresh = fresh, .deadline_ns = t->deadline_ns, .why = ""};
    enum err e = t->q->open(t->q->open_arg, &o);
    if (e != OK)
        return say(t, e, "%s", o.why);
    t->link = o.link;
    t->by_proxy = o.proxy != NULL;
    if (t->by_proxy)
        t->proxy = *o.proxy;
    return OK;
}

static enum err connect_to(struct trip *t, bool fresh)
{
    if (t->q->open != NULL)
        return open_other(t, fresh);
    TRY(choose_proxy(t));
    make_key(t);
    t->link = fresh ? NULL : link_take(t->key);
    if (t->link != NULL)
        return OK;
    TRY(open_link(t));
    return prepare_link(t);
}

/* --- the request --- */

static const struct field *own_field(const struct trip *t, struct slice name)
{
    for (size_t i = 0; i < t->q->fields_count; i++) {
        if (slice_eq_nocase(t->q->fields[i].name, name))
            return &t->q->fields[i];
    }
    return NULL;
}

static bool is_framing(struct slice name)
{
    return slice_eq_nocase(name, SLICE("Content-Length")) ||
           slice_eq_nocase(name, SLICE("Transfer-Encoding"));
}

/* What says who asks: for the server it was meant for. */
static bool is_secret(struct slice name)
{
    return slice_eq_nocase(name, SLICE("Authorization")) ||
           slice_eq_nocase(name, SLICE("Cookie")) ||
           slice_eq_nocase(name, SLICE("Proxy-Authorization"));
}

static void put_field(struct buffer *b, struct slice name, struct slice value)
{
    (void)!buffer_append(b, name);
    (void)!BUFFER_PUT(b, ": ");
    (void)!buffer_append(b, value);
    (void)!BUFFER_PUT(b, "\r\n");
}

/* Basic credentials, RFC 7617. */
static void put_credentials(struct buffer *b, const char *name, const struct url *u)
{
    struct buffer pair, text;
    buffer_init(&pair, 2 * URL_MAX);
    buffer_init(&text, 4 * URL_MAX);
    (void)!buffer_append(&pair, u->user);
    (void)!buffer_append_byte(&pair, ':');
    (void)!buffer_append(&pair, u->password);
    (void)!BUFFER_PUT(&text, "Basic ");
    (void)!base64_encode(&text, buffer_slice(&pair));
    put_field(b, slice_from(name), buffer_slice(&text));
    buffer_deinit(&pair);
    buffer_deinit(&text);
}

static enum err put_own_fields(struct trip *t, struct buffer *b)
{
    bool same = url_same_server(&t->url, &t->origin);
    for (size_t i = 0; i < t->q->fields_count; i++) {
        const struct field *f = &t->q->fields[i];
        if (!h1_name_ok(f->name) || !h1_value_ok(f->value))
            return say(t, ERR_INVALID, "the field \"" SLICE_FMT "\" cannot be sent",
                       SLICE_ARG(f->name));
        bool host = slice_eq_nocase(f->name, SLICE("Host"));
        if (!is_framing(f->name) && (same || (!host && !is_secret(f->name))))
            put_field(b, f->name, f->value);
    }
    return OK;
}

static enum err put_head(struct trip *t, struct buffer *b)
{
    bool same = url_same_server(&t->url, &t->origin), absolute = t->by_proxy && !t->url.tls &&
                                                            proxy_takes_urls(&t->proxy);
    (void)!buffer_append(b, t->method);
    (void)!buffer_append_byte(b, ' ');
    (void)!buffer_append(b, absolute ? url_text(&t->url, t->arena) : t->url.target);
    (void)!BUFFER_PUT(b, " HTTP/1.1\r\n");
    if (own_field(t, SLICE("Host")) == NULL || !same)
        put_field(b, SLICE("Host"), t->url.authority);
    if (own_field(t, SLICE("User-Agent")) == NULL)
        put_field(b, SLICE("User-Agent"), SLICE("portico/" PORTICO_VERSION));
    if (t->url.has_user && own_field(t, SLICE("Authorization")) == NULL)
        put_credentials(b, "Authorization", &t->url);
    if (absolute && t->proxy.credentials.len > 0)
        put_field(b, SLICE("Proxy-Authorization"), t->proxy.credentials);
    TRY(put_own_fields(t, b));
    if (t->q->body.len > 0 || slice_is(t->method, "POST") || slice_is(t->method, "PUT") ||
        slice_is(t->method, "PATCH"))
        (void)!buffer_append_f(b, "Content-Length: %zu\r\n", t->q->body.len);
    (void)!BUFFER_PUT(b, "\r\n");
    return b->full ? say(t, ERR_LIMIT, "the request's fields are too long") : OK;
}

/* A server may answer, and close, before it has read everything: then the answer counts. */
static enum err send_request(struct trip *t)
{
    struct buffer head;
    size_t sent = 0;
    buffer_init(&head, HEAD_MAX);
    enum err e = put_head(t, &head);
    if (e != OK) {
        buffer_deinit(&head);
        return e;
    }
    struct iovec parts[2] = {{head.ptr, head.len},
                             {(char *)(uintptr_t)t->q->body.ptr, t->q->body.len}};
    t->doing = "sending the request";
    e = stream_send(&t->link->stream, parts, 2, 0, t->deadline_ns, &sent);
    buffer_deinit(&head);
    if (e == OK || (sent > 0 && e != ERR_TIMEOUT && fiber_self()->cancelled == OK))
        return OK;
    t->stale = t->link->reused && e != ERR_TIMEOUT;
    return say_ended(t, e);
}

/* --- the answer --- */

static size_t answer_max(const struct trip *t)
{
    return t->q->answer_max > 0 ? t->q->answer_max : FETCH_ANSWER_MAX;
}

static enum err say_answer(struct trip *t, const struct client_answer *a, enum err e)
{
    if (a->why != NULL)
        return say(t, e, "the answer is no HTTP: %s", a->why);
    t->stale = !a->began && t->link->reused && (e == ERR_CLOSED || e == ERR_IO) &&
               fiber_self()->cancelled == OK;
    return say_ended(t, e);
}

static enum err read_head(struct trip *t, struct client_answer *a)
{
    t->doing = "waiting for the answer";
    for (unsigned n = 0; n <= INTERIM_MAX; n++) {
        enum err e = client_read_head(a, slice_is(t->method, "HEAD"), t->deadline_ns);
        if (e != OK)
            return say_answer(t, a, e);
        if (a->head.status >= 200)
            return OK;
        if (a->head.status == 101)
            return say(t, ERR_INVALID, "the server switched to another protocol unasked");
    }
    return say(t, ERR_INVALID, "too many interim answers");
}

/* A short body that comes at once is read, so that the link can be kept; another ends it. */
static enum err pass_body(const struct trip *t, struct client_answer *a)
{
    uint64_t by = clock_mono_ns() + PASS_NS;
    struct slice piece;
    size_t seen = 0;
    if (by > t->deadline_ns)
        by = t->deadline_ns;
    while (!a->done && seen < PASS_MAX && client_read_body(a, by, &piece) == OK)
        seen += piece.len;
    return OK;
}

static enum err gather_body(struct trip *t, struct client_answer *a, struct buffer *b)
{
    t->doing = "reading the answer";
    if (t->q->head_only)
        return pass_body(t, a);
    if (!t->q->cut && a->head.body == H1_BODY_LENGTH && a->head.content_length > answer_max(t))
        return say(t, ERR_LIMIT, "the answer is longer than %zu bytes", answer_max(t));
    while (!a->done) {
        struct slice piece;
        enum err e = client_read_body(a, t->deadline_ns, &piece);
        if (e != OK)
            return say_answer(t, a, e);
        if (t->q->cut && piece.len > answer_max(t) - b->len)
            return buffer_append(b, slice_take(piece, answer_max(t) - b->len));
        if (buffer_append(b, piece) != OK)
            return say(t, ERR_LIMIT, "the answer is longer than %zu bytes", answer_max(t));
    }
    return OK;
}

static enum err read_body(struct trip *t, struct client_answer *a)
{
    struct buffer b;
    buffer_init(&b, answer_max(t));
    enum err e = gather_body(t, a, &b);
    if (e == OK)
        t->out->body = arena_copy(t->arena, buffer_slice(&b));
    buffer_deinit(&b);
    return e;
}

static enum err read_answer(struct trip *t, struct client_answer *a)
{
    TRY(read_head(t, a));
    t->out->status = a->head.status;
    fields_init(&t->out->fields, t->arena);
    for (unsigned i = 0; i < a->head.count; i++)
        fields_add(&t->out->fields, a->head.fields[i].name, a->head.fields[i].value);
    return read_body(t, a);
}

/* --- one question --- */

static enum err ask_once(struct trip *t, bool fresh)
{
    bool reusable = false;
    t->stale = false;
    TRY(connect_to(t, fresh));
    enum err e = send_request(t);
    if (e == OK) {
        struct client_answer *a = client_answer_begin(t->link, t->arena, HEAD_MAX);
        e = read_answer(t, a);
        reusable = e == OK && client_answer_reusable(a);
        client_answer_end(a);
    }
    if (reusable)
        link_give(t->link, &kept);
    else
        link_close(t->link);
    t->link = NULL;
    return e;
}

static bool may_repeat(const struct trip *t)
{
    return t->q->repeatable || slice_is(t->method, "GET") || slice_is(t->method, "HEAD") ||
           slice_is(t->method, "PUT") || slice_is(t->method, "DELETE");
}

static enum err ask(struct trip *t)
{
    enum err e = ask_once(t, false);
    return t->stale && may_repeat(t) ? ask_once(t, true) : e;
}

/* --- redirects --- */

static bool redirects(const struct trip *t, struct slice *to)
{
    static const int statuses[] = {301, 302, 303, 307, 308};
    if (!slice_is(t->method, "GET") && !slice_is(t->method, "HEAD"))
        return false;
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        if (t->out->status == statuses[i])
            return fields_get(&t->out->fields, SLICE("Location"), to);
    }
    return false;
}

static enum err follow(struct trip *t, struct slice to)
{
    const char *why;
    struct url next;
    if (url_resolve(&t->url, to, &next, t->arena, &why) != OK)
        return say(t, ERR_INVALID, "redirected to \"" SLICE_FMT "\": %s", SLICE_ARG(to), why);
    if (t->url.tls && !next.tls)
        return say(t, ERR_INVALID, "redirected from https to \"" SLICE_FMT "\"", SLICE_ARG(to));
    t->url = next;
    return OK;
}

enum err fetch(const struct fetch_request *q, struct arena *arena, struct fetch_answer *out)
{
    struct trip *t = ARENA_NEW(arena, struct trip); /* large for a fiber's stack */
    uint64_t timeout = q->timeout_ns > 0 ? q->timeout_ns : 30 * NS_PER_S;
    const char *why;
    struct slice to;
    *t = (struct trip){.q = q, .out = out, .arena = arena, .doing = "",
                       .deadline_ns = clock_mono_ns() + timeout,
                       .method = q->method.len > 0 ? q->method : SLICE("GET")};
    *out = (struct fetch_answer){0};
    if (!h1_name_ok(t->method))
        return say(t, ERR_INVALID, "\"" SLICE_FMT "\" is no method", SLICE_ARG(t->method));
    if (url_parse(q->url, &t->url, arena, &why) != OK)
        return say(t, ERR_INVALID, "\"" SLICE_FMT "\" is no URL: %s", SLICE_ARG(q->url), why);
    t->origin = t->url;
    for (unsigned n = 0;; n++) {
        TRY(ask(t));
        if (q->redirects == 0 || !redirects(t, &to))
            break;
        if (n == q->redirects)
            return say(t, ERR_INVALID, "more than %u redirects", q->redirects);
        TRY(follow(t, to));
    }
    out->url = url_text(&t->url, arena);
    return OK;
}

void fetch_thread_deinit(void)
{
    h2_links_close();
    links_thread_deinit();
    h2_links_thread_deinit();
    relays_thread_deinit();
    client_thread_deinit();
    iobuf_thread_deinit();
}
