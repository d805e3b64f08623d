/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of serving that HTTP/1 and HTTP/2 share, so that a request means the same over both.
 */
#include "wire/serve.h"

#include "base/clock.h"
#include "http/uri.h"

static bool named_in(const struct slice *names, size_t count, struct slice name)
{
    for (size_t i = 0; i < count; i++) {
        if (slice_eq_nocase(names[i], name))
            return true;
    }
    return false;
}

bool field_wanted(const struct http_server *server, struct slice name)
{
    if (memchr(name.ptr, '_', name.len) != NULL &&
        !named_in(server->underscore_headers, server->underscore_count, name))
        return false;
    return memchr(name.ptr, '.', name.len) == NULL ||
           named_in(server->dot_headers, server->dot_count, name);
}

bool trailer_wanted(const struct http_server *server, struct slice name)
{
    static const char *const forbidden[] = {
        "Authorization", "Cache-Control", "Connection", "Content-Encoding", "Content-Length",
        "Content-Range", "Content-Type", "Cookie", "Expect", "Forwarded", "Host", "If-Match",
        "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since", "Keep-Alive",
        "Max-Forwards", "Proxy-Authorization", "Proxy-Connection", "Range", "Set-Cookie", "TE",
        "Trailer", "Transfer-Encoding", "Upgrade", "Via", "X-Real-IP", NULL};
    const char *const *f = forbidden;
    while (*f != NULL && !slice_eq_nocase(name, slice_from(*f)))
        f++;
    return *f == NULL && slice_starts_nocase(name, SLICE("X-Forwarded-")) == 0 &&
           field_wanted(server, name);
}

bool field_is_framing(struct slice name)
{
    return (name.len == 14 && slice_eq_nocase(name, SLICE("Content-Length"))) ||
           (name.len == 17 && slice_eq_nocase(name, SLICE("Transfer-Encoding"))) ||
           (name.len == 10 && slice_eq_nocase(name, SLICE("Connection"))) ||
           (name.len == 10 && slice_eq_nocase(name, SLICE("Keep-Alive")));
}

/* What no route sees: targets that are no path, and those that Go answers itself. */
static enum err answer_alone(struct exchange *x, int status, struct slice body)
{
    x->req.uri = (struct uri){.path = SLICE("/"), .raw_path = SLICE("/")};
    if (status >= 400 && x->req.major == 1)
        x->close_after = true;
    if (body.len > 0)
        fields_add(&x->res.fields, SLICE("Content-Type"), SLICE("text/plain; charset=utf-8"));
    TRY(exchange_answer(x, status, body));
    return exchange_end(x);
}

static enum err serve_alone(struct exchange *x)
{
    if (x->req.method_id == METHOD_CONNECT)
        return answer_alone(x, 405, SLICE(""));
    if (x->req.method_id == METHOD_OPTIONS && slice_is(x->req.target, "*"))
        return answer_alone(x, 200, SLICE(""));
    return answer_alone(x, 400, SLICE("400 Bad Request"));
}

enum err serve_exchange(struct exchange *x)
{
    struct slice authority;
    bool tunnel = x->req.major == 2 && x->req.upgrade.len > 0; /* RFC 8441 */
    if ((x->req.method_id == METHOD_CONNECT && !tunnel) ||
        (x->req.method_id == METHOD_OPTIONS && slice_is(x->req.target, "*")) ||
        uri_parse(x->req.target, &x->req.uri, &authority, x->arena) != OK)
        return serve_alone(x);
    x->req.original_uri = x->req.uri;
    http_server_serve(x->server, x);
    return OK;
}

int status_of_failure(enum err why)
{
    switch (why) {
    case ERR_INVALID:
        return 400;
    case ERR_TIMEOUT:
        return 408;
    case ERR_LIMIT:
        return 413;
    case ERR_FAILED:
    case ERR_IO:
        return 500;
    default:
        return 0; /* cut: the peer left, or abort was asked for */
    }
}

uint64_t pace_deadline(struct pace *pace, uint64_t now, uint64_t idle_ns, uint64_t rate,
                       uint64_t hard_ns)
{
    if (idle_ns == 0)
        return hard_ns;
    if (rate == 0)
        return earlier_ns(hard_ns, now + idle_ns);
    if (pace->start_ns == 0)
        pace->start_ns = now;
    unsigned __int128 credit = (unsigned __int128)pace->bytes * NS_PER_S / rate;
    uint64_t allowed = credit < INT64_MAX / 2 ? (uint64_t)credit : INT64_MAX / 2;
    return earlier_ns(hard_ns, pace->start_ns + idle_ns + allowed);
}
