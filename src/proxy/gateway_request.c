/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The request as it goes up. Its fields are the client's, without what belongs to the client's own
 * connection (RFC 9110 §7.6.1), with X-Forwarded-For, -Proto and -Host, with Via, and then as the
 * configuration changes them, anew for each upstream that is tried. The framing is decided here.
 *
 * A body that has come whole with its head, or that request_buffers kept, leaves in the same send as
 * the head and can be sent again. Any other is sent by a fiber of its own, so that the answer may
 * come down while the body still goes up; that fiber reads no faster than the upstream takes.
 */
#include <sys/random.h>

#include "base/check.h"
#include "base/text.h"
#include "http/uri.h"
#include "loop/await.h"
#include "proxy/gateway.h"
#include "upstream/iobuf.h"
#include "wire/h1_head.h"
#include "wire/h1_scan.h"

enum {
    BODY_AT_ONCE = 16384, /* remembered, to be sent again */
    BODY_COPIED = 1024,   /* behind the head: one part is cheaper to send than two */
};

/* --- fields --- */

bool is_hop_by_hop(struct slice name)
{
    switch (name.len) {
    case 2:
        return slice_eq_nocase(name, SLICE("TE"));
    case 7:
        return slice_eq_nocase(name, SLICE("Upgrade")) ||
               slice_eq_nocase(name, SLICE("Trailer")) || slice_eq_nocase(name, SLICE("Alt-Svc"));
    case 10:
        return slice_eq_nocase(name, SLICE("Connection")) ||
               slice_eq_nocase(name, SLICE("Keep-Alive"));
    case 14:
        return slice_eq_nocase(name, SLICE("HTTP2-Settings"));
    case 16:
        return slice_eq_nocase(name, SLICE("Proxy-Connection"));
    case 17:
        return slice_eq_nocase(name, SLICE("Transfer-Encoding"));
    case 18:
        return slice_eq_nocase(name, SLICE("Proxy-Authenticate"));
    case 19:
        return slice_eq_nocase(name, SLICE("Proxy-Authorization"));
    default:
        return false;
    }
}

static bool next_token(struct slice *list, struct slice *token)
{
    struct slice rest;
    if (list->len == 0)
        return false;
    slice_cut(*list, ',', token, &rest);
    *token = slice_trim(*token);
    *list = rest;
    return true;
}

/* What Connection names belongs to the connection, too. Host cannot be taken away like that. */
static void remove_named(struct fields *fs, const struct fields *from)
{
    uint32_t at = 0;
    struct slice list, token;
    for (struct field *f; (f = fields_find(from, SLICE("Connection"), &at)) != NULL;) {
        list = f->value;
        while (next_token(&list, &token)) {
            if (token.len > 0 && !slice_eq_nocase(token, SLICE("close")) &&
                !slice_eq_nocase(token, SLICE("keep-alive")) &&
                !slice_eq_nocase(token, SLICE("Host")))
                fields_remove(fs, token);
        }
    }
}

static bool takes_trailers(const struct fields *fs)
{
    uint32_t at = 0;
    struct slice list, token;
    for (struct field *f; (f = fields_find(fs, SLICE("TE"), &at)) != NULL;) {
        list = f->value;
        while (next_token(&list, &token)) {
            if (slice_eq_nocase(token, SLICE("trailers")))
                return true;
        }
    }
    return false;
}

static bool is_trusted(const struct round *r)
{
    struct exchange *x = r->x;
    struct slice host, zone;
    struct ip_address ip;
    if (x->client_is_proxy || r->g->trusted.count == 0)
        return x->client_is_proxy;
    slice_cut(x->remote_host, '%', &host, &zone);
    return ip_parse(host, &ip) && ip_set_has(&r->g->trusted, &ip);
}

static struct slice last_value(const struct fields *fs, struct slice name)
{
    struct slice last = SLICE_NONE;
    uint32_t at = 0;
    for (struct field *f; (f = fields_find(fs, name, &at)) != NULL;)
        last = f->value;
    return last;
}

/* What an untrusted client says about itself is replaced, what a trusted proxy says is kept. */
static void add_forwarded(struct round *r)
{
    struct exchange *x = r->x;
    struct fields *fs = &r->fields;
    struct slice peer, zone, prior;
    exchange_addresses(x);
    bool trusted = is_trusted(r);
    slice_cut(x->remote_host, '%', &peer, &zone);
    if (slice_is(peer, "@")) { /* a Unix socket's peer has no address */
        peer = SLICE_NONE;
        if (!trusted) {
            fields_remove(fs, SLICE("X-Forwarded-For"));
            fields_remove(fs, SLICE("X-Forwarded-Proto"));
            fields_remove(fs, SLICE("X-Forwarded-Host"));
            return;
        }
    }
    prior = trusted ? fields_joined(fs, SLICE("X-Forwarded-For"), x->arena) : SLICE_NONE;
    if (prior.len > 0 && peer.len > 0)
        prior = arena_join(x->arena, (struct slice[]){prior, SLICE(", "), peer}, 3);
    else if (prior.len == 0)
        prior = peer;
    if (prior.len > 0)
        fields_set(fs, SLICE("X-Forwarded-For"), prior);
    prior = trusted ? last_value(fs, SLICE("X-Forwarded-Proto")) : SLICE_NONE;
    fields_set(fs, SLICE("X-Forwarded-Proto"), prior.len > 0 ? prior : x->req.scheme);
    prior = trusted ? last_value(fs, SLICE("X-Forwarded-Host")) : SLICE_NONE;
    fields_set(fs, SLICE("X-Forwarded-Host"), prior.len > 0 ? prior : x->req.host);
}

static struct slice lower(struct slice s, struct arena *arena)
{
    char *copy = arena_str(arena, s);
    for (size_t i = 0; i < s.len; i++)
        copy[i] = ascii_lower(copy[i]);
    return slice_of(copy, s.len);
}

static bool is_tunnel(const struct exchange *x)
{
    return x->req.method_id == METHOD_CONNECT && x->req.upgrade.len > 0;
}

/* Whether HTTP/2 is among what a connection shall become: an upstream that grants it would be spoken
 * to past all that stands here. RFC 9113 knows no such upgrade any more. */
static bool upgrades_to_h2(struct slice list)
{
    struct slice token, name, version;
    while (next_token(&list, &token)) {
        slice_cut(token, '/', &name, &version);
        name = slice_trim(name);
        if (slice_eq_nocase(name, SLICE("h2c")) || slice_eq_nocase(name, SLICE("h2")) ||
            (slice_eq_nocase(name, SLICE("HTTP")) && !slice_starts(slice_trim(version), SLICE("1"))))
            return true;
    }
    return false;
}

/* A WebSocket over HTTP/2 (RFC 8441) has no key; over HTTP/1 it must have one. */
static void add_websocket_key(struct fields *fs, struct arena *arena)
{
    char nonce[16], text[25];
    struct buffer b = {.ptr = text, .cap = sizeof text, .max = sizeof text};
    if (fields_has(fs, SLICE("Sec-WebSocket-Key")))
        return;
    if (getrandom(nonce, sizeof nonce, GRND_NONBLOCK) != (ssize_t)sizeof nonce)
        memset(nonce, 0, sizeof nonce); /* it is no secret: RFC 6455 §10.3 */
    (void)!base64_encode(&b, slice_of(nonce, sizeof nonce));
    fields_add(fs, SLICE("Sec-WebSocket-Key"), arena_copy(arena, buffer_slice(&b)));
}

static struct slice via(const struct request *q)
{
    if (q->major == 2)
        return SLICE("2.0 portico");
    return q->minor == 0 ? SLICE("1.0 portico") : SLICE("1.1 portico");
}

/* Whether trailers have a place behind a body of known length: HTTP/1.1 has none (RFC 9112 §7.1.2). */
static bool takes_any_trailers(const struct round *r)
{
    const struct http_transport *t = r->g->transport;
    return t->h2c || (t->tls != NULL && t->h2_offered);
}

static void prepare_fields(struct round *r)
{
    struct exchange *x = r->x;
    const struct fields *from = &x->req.fields;
    struct fields *fs = &r->fields;
    fields_init(fs, x->arena);
    if (x->req.host.len > 0)
        fields_add(fs, SLICE("Host"), x->req.host);
    for (uint32_t i = 0; i < from->count; i++) {
        struct slice name = from->items[i].name;
        if (is_hop_by_hop(name) || (name.len == 4 && slice_eq_nocase(name, SLICE("Host"))) ||
            (name.len == 14 && slice_eq_nocase(name, SLICE("Content-Length"))))
            continue;
        fields_add(fs, name, from->items[i].value);
    }
    if (fields_has(from, SLICE("Connection")))
        remove_named(fs, from);
    if (takes_trailers(from))
        fields_add(fs, SLICE("TE"), SLICE("trailers"));
    if (x->req.upgrade.len > 0 && !upgrades_to_h2(x->req.upgrade)) {
        fields_add(fs, SLICE("Connection"), SLICE("Upgrade"));
        fields_add(fs, SLICE("Upgrade"), lower(x->req.upgrade, x->arena));
        r->upgrade = true;
    }
    if (is_tunnel(x) && slice_eq_nocase(x->req.upgrade, SLICE("websocket")))
        add_websocket_key(fs, x->arena);
    add_forwarded(r);
    fields_add(fs, SLICE("Via"), via(&x->req));
    if (r->has_body && (r->chunked_up || takes_any_trailers(r)) && fields_has(from, SLICE("Trailer")))
        fields_add(fs, SLICE("Trailer"), fields_joined(from, SLICE("Trailer"), x->arena));
}

/* --- what is asked for --- */

/* "rewrite https://{host}{uri}", where a redirect was meant, leaves an address in the path. Caddy sends it
 * as it is, and servers take such a target by its path: so do we, but never with another host's name. */
static struct slice without_host(struct slice target)
{
    struct slice rest = slice_starts_nocase(target, SLICE("http://"))    ? slice_skip(target, 7)
                        : slice_starts_nocase(target, SLICE("https://")) ? slice_skip(target, 8)
                                                                         : SLICE_NONE;
    if (rest.ptr == NULL)
        return target;
    while (rest.len > 0 && rest.ptr[0] != '/' && rest.ptr[0] != '?')
        rest = slice_skip(rest, 1);
    return rest;
}

static void take_target(struct round *r)
{
    const struct request *q = &r->x->req;
    r->method = is_tunnel(r->x) ? SLICE("GET") : q->method;
    r->to_head = q->method_id == METHOD_HEAD;
    r->uri = q->uri;
    r->target = without_host(uri_text(&q->uri, r->x->arena));
    if (r->target.len == 0 || r->target.ptr[0] != '/') /* what a rewrite left is a path */
        r->target = arena_join(r->x->arena, (struct slice[]){SLICE("/"), r->target}, 2);
}

/* The rewrite is for the upstream only: what follows this handler sees the request as it was. */
static enum err rewrite_target(struct round *r)
{
    static const struct chain nothing = {0};
    struct exchange *x = r->x;
    struct request saved = x->req;
    enum err e = r->g->rewrite->serve(r->g->rewrite_cfg, x, &nothing);
    take_target(r);
    x->req = saved;
    r->has_body = r->has_body && !r->g->rewrite_drops_body;
    return e;
}

static enum err prepare_target(struct round *r)
{
    struct exchange *x = r->x;
    if (r->g->rewrite != NULL)
        TRY(rewrite_target(r));
    else
        take_target(r);
    if (r->g->rewrite == NULL && slice_is(x->req.target, "*"))
        r->target = x->req.target;
    const char *end = r->target.ptr + r->target.len;
    if (is_tunnel(x) && upgrades_to_h2(x->req.upgrade))
        return exchange_fail(x, 501, "no HTTP/2 through a tunnel");
    if (r->target.len == 0 || h1_scan_target(r->target.ptr, end) != end || !h1_name_ok(r->method))
        return exchange_fail(x, 400, "the request's method or target cannot be sent on");
    return OK;
}

/* --- the body in memory --- */

/* It stays readable: another gateway may be asked when this one fails. */
static void keep_whole(struct round *r, struct slice body)
{
    r->x->body = r->body = body;
    r->x->body_set = r->body_whole = true;
}

static enum err take_kept_body(struct round *r)
{
    struct exchange *x = r->x;
    if (x->body.len > x->body_max)
        return exchange_fail(x, 413, "http: request body too large");
    keep_whole(r, x->body);
    return OK;
}

static enum err take_ready_body(struct round *r)
{
    struct exchange *x = r->x;
    int64_t length = x->req.content_length;
    if (length <= 0 || length > BODY_AT_ONCE)
        return OK;
    char *to = arena_alloc(x->arena, (size_t)length);
    r->copy = to;
    if (x->carrier->body_ready(x) < (size_t)length ||
        (takes_any_trailers(r) && x->carrier->may_trail(x)))
        return OK;
    for (size_t n, len = 0; len < (size_t)length; len += n) {
        TRY(exchange_read(x, to + len, (size_t)length - len, &n));
        if (n == 0)
            return ERR_CLOSED;
    }
    keep_whole(r, slice_of(to, (size_t)length));
    return OK;
}

static void free_held(struct exchange *x, void *arg)
{
    (void)x;
    buffer_deinit(arg);
}

static enum err hold_body(struct round *r)
{
    struct exchange *x = r->x;
    struct buffer *b = ARENA_NEW(x->arena, struct buffer);
    size_t limit = (size_t)(r->g->request_buffers > 0 ? r->g->request_buffers
                                                      : r->g->unknown_buffers);
    buffer_init(b, limit + IOBUF_SIZE);
    exchange_on_end(x, free_held, b);
    r->held = b;
    while (b->len < limit) {
        size_t n, room = limit - b->len < IOBUF_SIZE ? limit - b->len : IOBUF_SIZE;
        TRY(buffer_reserve(b, room));
        TRY(exchange_read(x, b->ptr + b->len, room, &n));
        b->len += n;
        if (n == 0) {
            keep_whole(r, buffer_slice(b));
            return OK;
        }
    }
    r->body = buffer_slice(b);
    r->body_touched = true;
    return OK;
}

static enum err prepare_body(struct round *r)
{
    struct exchange *x = r->x;
    if (x->body_set)
        return take_kept_body(r);
    if (x->body_read > 0) /* by a gateway whose answer is dealt with here, or which failed */
        return exchange_fail(x, 502, "the request's body was sent to another upstream already");
    bool held = r->g->request_buffers > 0 ||
                (x->req.content_length < 0 && r->g->unknown_buffers > 0);
    return held ? hold_body(r) : take_ready_body(r);
}

/* Trailers may stand behind no bytes at all. */
static bool is_something(const struct round *r)
{
    struct exchange *x = r->x;
    return r->body_length != 0 || (takes_any_trailers(r) && (x->carrier->may_trail(x) ||
                                                             x->carrier->trailers(x) != NULL));
}

enum err gateway_prepare(struct round *r)
{
    struct exchange *x = r->x;
    r->has_body = x->req.has_body;
    r->body_length = x->req.content_length;
    TRY(prepare_target(r));
    r->has_body = r->has_body && is_something(r);
    if (r->has_body)
        TRY(prepare_body(r));
    if (r->body_whole)
        r->body_length = (int64_t)r->body.len;
    r->has_body = r->has_body && is_something(r);
    r->chunked_up = r->has_body && r->body_length < 0;
    prepare_fields(r);
    return r->g->transport->protocol->prepare != NULL ? r->g->transport->protocol->prepare(r) : OK;
}

/* --- sending --- */

/* Sends some of it. `patience`: when that lasts, it is watched whether the client is still there. */
static enum err send_some(struct round *r, struct msghdr *m, bool patience)
{
    uint64_t pause = r->g->transport->write_ns, now = loop_now_ns(loop_self());
    uint64_t deadline = pause > 0 ? now + pause : r->write_by, look = now + PATIENCE_NS;
    size_t n;
    if (!patience || r->watching || (deadline > 0 && deadline <= look))
        return stream_send_some(&r->link->stream, m, 0, deadline, &n);
    enum err e = stream_send_some(&r->link->stream, m, 0, look, &n);
    if (e != ERR_TIMEOUT)
        return e;
    gateway_watch(r);
    return stream_send_some(&r->link->stream, m, 0, deadline, &n);
}

static enum err send_all(struct round *r, struct iovec *parts, size_t count, bool patience,
                         bool *any)
{
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = count};
    while (m.msg_iovlen > 0) {
        TRY(send_some(r, &m, patience));
        *any = true;
    }
    return OK;
}

static char *put(char *at, struct slice s)
{
    if (s.len > 0)
        memcpy(at, s.ptr, s.len);
    return at + s.len;
}

static char *put_field(char *at, struct slice name, struct slice value)
{
    at = put(at, name);
    *at++ = ':';
    *at++ = ' ';
    at = put(at, value);
    *at++ = '\r';
    *at++ = '\n';
    return at;
}

static size_t size_of_fields(const struct fields *fs)
{
    size_t size = 0;
    for (uint32_t i = 0; i < fs->count; i++)
        size += fs->items[i].name.len + fs->items[i].value.len + 4;
    return size;
}

/* The proxy is then asked for the whole URL, by its own words (RFC 9112 §3.2.2). */
bool gateway_by_url(const struct round *r)
{
    return r->address.proxy != NULL && !r->address.tls && !r->g->transport->h2c &&
           proxy_takes_urls(r->address.proxy);
}

/* Placeholders tell of this attempt, of which there may be two at once. */
static void change_fields(struct round *r, struct fields *fs)
{
    struct gateway_view *view = r->x->gateway;
    r->x->gateway = &r->view;
    field_ops_apply(&r->g->request_ops, fs, r->x);
    r->x->gateway = view;
}

/* The fields of this attempt: the configuration's changes may depend on the upstream. A server with
 * TLS, or behind a proxy, is asked by its own name. What could split the request never leaves. */
struct fields gateway_fields(struct round *r)
{
    struct fields fs = r->fields;
    bool own_name = (r->g->transport->tls != NULL || gateway_by_url(r)) && !r->address.is_unix;
    if (r->probe || (!r->g->has_request_ops && !own_name))
        return fs;
    fields_init(&fs, r->x->arena);
    for (uint32_t i = 0; i < r->fields.count; i++)
        fields_add(&fs, r->fields.items[i].name, r->fields.items[i].value);
    if (own_name)
        fields_set(&fs, SLICE("Host"), r->address.hostport);
    if (r->g->has_request_ops)
        change_fields(r, &fs);
    for (uint32_t i = fs.count; i-- > 0;) {
        struct field *f = &fs.items[i];
        if (!h1_name_ok(f->name) || !h1_value_ok(f->value) ||
            slice_eq_nocase(f->name, SLICE("Content-Length")) ||
            slice_eq_nocase(f->name, SLICE("Transfer-Encoding")) ||
            (slice_eq_nocase(f->name, SLICE("Host")) && !h1_host_ok(f->value)))
            fields_remove_at(&fs, i);
    }
    return fs;
}

static bool announces_nothing(struct slice method)
{
    return slice_is(method, "POST") || slice_is(method, "PUT") || slice_is(method, "PATCH");
}

static char *put_framing(char *at, const struct round *r)
{
    if (r->chunked_up)
        return put(at, SLICE("Transfer-Encoding: chunked\r\n"));
    if (!r->has_body && !announces_nothing(r->method))
        return at;
    char digits[20];
    size_t left = sizeof digits;
    uint64_t n = r->has_body ? (uint64_t)r->body_length : 0;
    do
        digits[--left] = (char)('0' + n % 10);
    while ((n /= 10) != 0);
    return put_field(at, SLICE("Content-Length"),
                     slice_of(digits + left, sizeof digits - left));
}

/* The whole head in one piece of the arena, with a small body behind it. */
static struct slice write_head(struct round *r, bool with_body)
{
    struct fields fs = gateway_fields(r);
    bool host = fields_has(&fs, SLICE("Host")), absolute = gateway_by_url(r);
    struct slice secret = absolute ? r->address.proxy->credentials : SLICE_NONE;
    size_t size = r->method.len + r->target.len + size_of_fields(&fs) + 192 + secret.len +
                  2 * r->address.hostport.len + (with_body ? r->body.len : 0);
    char *start = arena_alloc(r->x->arena, size), *at = start;
    at = put(at, r->method);
    *at++ = ' ';
    if (absolute)
        at = put(put(at, SLICE("http://")), r->address.hostport);
    at = put(at, r->target);
    at = put(at, SLICE(" HTTP/1.1\r\n"));
    if (!host) /* HTTP/1.0 without one */
        at = put_field(at, SLICE("Host"),
                       r->address.is_unix ? SLICE("localhost") : r->address.hostport);
    for (uint32_t i = 0; i < fs.count; i++)
        at = put_field(at, fs.items[i].name, fs.items[i].value);
    if (secret.len > 0)
        at = put_field(at, SLICE("Proxy-Authorization"), secret);
    at = put_framing(at, r);
    if (!r->g->transport->keep_alive && !r->upgrade)
        at = put(at, SLICE("Connection: close\r\n"));
    at = put(at, SLICE("\r\n"));
    if (with_body)
        at = put(at, r->body);
    ASSERT((size_t)(at - start) <= size);
    return slice_of(start, (size_t)(at - start));
}

enum err gateway_send_parts(struct round *r, struct iovec *parts, size_t count, bool *any)
{
    return send_all(r, parts, count, true, any);
}

enum err gateway_send_failed(struct round *r, enum err e, bool any)
{
    if (fiber_self()->cancelled != OK) {
        r->error = fiber_self()->cancelled;
        return gateway_round_error(r, FAILURE_CLIENT, 499, "context canceled");
    }
    if (!any && r->link->reused)
        return gateway_round_error(r, FAILURE_STALE, 502, err_text(e));
    if (e == ERR_TIMEOUT)
        return gateway_round_error(r, FAILURE_UPSTREAM, 504, "write: i/o timeout");
    shutdown(r->link->stream.fd, SHUT_RDWR); /* whatever went wrong, the read has an end */
    return OK; /* it may have answered before it closed: the read will tell */
}

static enum err send_http(struct round *r)
{
    bool now = r->has_body && r->body_whole, any = false;
    bool copied = now && r->body.len <= BODY_COPIED;
    struct slice head = write_head(r, copied);
    struct iovec parts[2] = {{(char *)(uintptr_t)head.ptr, head.len},
                             {(char *)(uintptr_t)r->body.ptr, r->body.len}};
    enum err e = send_all(r, parts, now && !copied ? 2 : 1, true, &any);
    return e == OK ? OK : gateway_send_failed(r, e, any);
}

/* --- the fiber of the body --- */

enum err gateway_send_more(struct round *r, struct slice bytes)
{
    struct iovec part = {(char *)(uintptr_t)bytes.ptr, bytes.len};
    bool any;
    return send_all(r, &part, 1, false, &any);
}

static enum err send_http_piece(struct round *r, char *buf, size_t n)
{
    char line[CHUNKED_HEAD_MAX], *start = buf + BODY_FRONT;
    if (r->chunked_up) { /* the line stands right before the data */
        size_t len = chunked_head(line, n);
        start -= len;
        memcpy(start, line, len);
        memcpy(buf + BODY_FRONT + n, "\r\n", BODY_BACK);
        n += len + BODY_BACK;
    }
    return gateway_send_more(r, slice_of(start, n));
}

static enum err send_http_end(struct round *r, char *buf)
{
    const struct fields *trailers = r->x->carrier->trailers(r->x);
    if (!r->chunked_up)
        return OK;
    char *at = put(buf, SLICE("0\r\n"));
    for (uint32_t i = 0; trailers != NULL && i < trailers->count; i++) {
        const struct field *f = &trailers->items[i];
        if (!is_hop_by_hop(f->name) &&
            f->name.len + f->value.len + 8 < (size_t)(buf + IOBUF_SIZE - at))
            at = put_field(at, f->name, f->value);
    }
    at = put(at, SLICE("\r\n"));
    return gateway_send_more(r, slice_of(buf, (size_t)(at - buf)));
}

/* What request_buffers had room for comes first. */
static enum err send_held(struct round *r, char *buf)
{
    for (struct slice left = r->body; left.len > 0;) {
        struct slice piece = slice_take(left, BODY_PIECE);
        memcpy(buf + BODY_FRONT, piece.ptr, piece.len);
        TRY(r->protocol->send_piece(r, buf, piece.len));
        left = slice_skip(left, piece.len);
    }
    return OK;
}

/* A small body is whole now, and can be sent again. */
static void keep_copy(struct round *r, size_t len)
{
    if (r->copy == NULL && r->body_length != 0)
        return;
    keep_whole(r, slice_of(r->copy, len));
    r->body_touched = false;
}

static enum err send_body(struct upload *u, char *buf)
{
    struct round *r = u->round;
    const struct protocol *protocol = r->protocol;
    size_t total = 0;
    TRY(send_held(r, buf));
    for (;;) {
        size_t n;
        enum err e = exchange_read(r->x, buf + BODY_FRONT, BODY_PIECE, &n);
        if (e != OK) {
            u->client_failed = true;
            return e;
        }
        if (n == 0) {
            if (r->body_length >= 0 && r->body.len + total != (uint64_t)r->body_length)
                return ERR_INVALID; /* the next request would be taken for the rest */
            keep_copy(r, total);
            return protocol->send_end(r, buf);
        }
        r->body_touched = true;
        if (r->copy != NULL)
            memcpy(r->copy + total, buf + BODY_FRONT, n);
        total += n;
        TRY(protocol->send_piece(r, buf, n));
    }
}

static void stop_upload(struct body_reader *b)
{
    upload_end(CONTAINER_OF(b, struct upload, reader)->round);
}

static void upload_main(void *arg)
{
    struct upload *u = arg;
    char *buf = iobuf_take();
    u->reader = (struct body_reader){fiber_self(), stop_upload};
    u->round->x->body_reader = &u->reader;
    u->result = send_body(u, buf);
    u->round->body_sent_ns = loop_now_ns(loop_self());
    u->round->x->body_reader = NULL;
    iobuf_give(buf);
    if (u->result != OK && !u->client_failed && u->reader.fiber->cancelled == OK)
        u->round->protocol->cut(u->round); /* an answer to half a request may never come; one that
                                              came already is read all the same */
    u->ended = true;
    if (u->waiter != NULL)
        waiter_wake(u->waiter, OK);
    else if (u->client_failed)
        u->round->protocol->interrupt(u->round);
}

static void start_upload(void *arg)
{
    struct upload *u = arg;
    if (fiber_start(loop_self(), upload_main, u) == OK)
        return;
    u->result = ERR_LIMIT;
    u->ended = u->client_failed = true;
}

void upload_begin(struct round *r, struct upload *u)
{
    *u = (struct upload){.round = r};
    r->upload = u;
    await_on_loop(start_upload, u); /* fibers start from the loop's own stack */
}

void upload_end(struct round *r)
{
    struct upload *u = r->upload;
    struct waiter waiter;
    if (u == NULL)
        return;
    r->upload = NULL;
    if (u->ended)
        return;
    waiter_init(&waiter);
    waiter.fiber = fiber_self();
    u->waiter = &waiter;
    fiber_cancel(u->reader.fiber, ERR_CANCELLED);
    fiber_suspend(); /* it uses this frame: nothing may end the wait before it has ended */
}

/* --- links --- */

void gateway_cut_link(struct round *r)
{
    shutdown(r->link->stream.fd, SHUT_RDWR);
}

void gateway_interrupt_link(struct round *r)
{
    if (r->link->wait != NULL)
        op_cancel(loop_self(), &r->link->op);
}

static struct client_answer *begin_http(struct round *r)
{
    return client_answer_begin(r->link, r->x->arena, r->g->transport->head_max);
}

static void end_http(struct round *r)
{
    client_answer_end(r->answer);
}

const struct protocol protocol_http = {
    .send = send_http,
    .send_piece = send_http_piece,
    .send_end = send_http_end,
    .begin = begin_http,
    .end = end_http,
    .read_head = client_read_head,
    .read_body = client_read_body,
    .cut = gateway_cut_link,
    .interrupt = gateway_interrupt_link,
};
