/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules of Go's net.SplitHostPort decide what is a port: brackets hold an IPv6 host, and a
 * host with several colons but no brackets has no port.
 */
#include "adapter/site_address.h"

#include <arpa/inet.h>
#include <stdlib.h>

#include "base/buffer.h"

enum { ADDRESS_MAX = 4096 };

/* "host:port" with exactly one colon outside of brackets. */
static bool split_host_port(struct slice s, struct slice *host, struct slice *port)
{
    size_t colon = slice_find_last(s, ':');
    if (colon == SIZE_MAX)
        return false;
    if (s.ptr[0] == '[') {
        size_t end = slice_find(s, ']');
        if (end == SIZE_MAX || end + 1 != colon)
            return false;
        *host = slice_of(s.ptr + 1, end - 1);
        if (slice_find(*host, '[') != SIZE_MAX)
            return false;
    } else {
        *host = slice_take(s, colon);
        if (slice_find(*host, ':') != SIZE_MAX || slice_find(s, '[') != SIZE_MAX ||
            slice_find(s, ']') != SIZE_MAX)
            return false;
    }
    *port = slice_skip(s, colon + 1);
    return slice_find(*port, ']') == SIZE_MAX;
}

/* Without a port: "example.com", "[::1]"; what is neither stays as it is. */
static struct slice bare_host(struct slice s)
{
    if (s.len >= 2 && s.ptr[0] == '[' && slice_find(s, ']') == s.len - 1 &&
        slice_find(slice_skip(s, 1), '[') == SIZE_MAX)
        return slice_of(s.ptr + 1, s.len - 2);
    return s;
}

static enum err check_port(struct slice port, struct diag *diag)
{
    int64_t n;
    size_t digits = port.len > 0 && (port.ptr[0] == '-' || port.ptr[0] == '+') ? 1 : 0;
    if (slice_to_i64(port, &n))
        return n >= 0 && n <= 65535 ? OK
                                    : diag_fail(diag, "port %lld is out of range", (long long)n);
    bool all = digits < port.len;
    for (size_t i = digits; i < port.len; i++)
        all = all && port.ptr[i] >= '0' && port.ptr[i] <= '9';
    return diag_fail(diag,
                     "invalid port '" SLICE_FMT "': strconv.Atoi: parsing \"" SLICE_FMT "\": %s",
                     SLICE_ARG(port), SLICE_ARG(port),
                     all ? "value out of range" : "invalid syntax");
}

enum err site_address_parse(struct slice text, struct site_address *a, struct diag *diag)
{
    struct slice rest = slice_trim(slice_take(text, ADDRESS_MAX)), authority;
    *a = (struct site_address){.original = rest};
    size_t scheme = slice_find_slice(rest, SLICE("://"));
    if (scheme != SIZE_MAX) {
        a->scheme = slice_take(rest, scheme);
        rest = slice_skip(rest, scheme + 3);
    }
    size_t slash = slice_find(rest, '/');
    authority = slash != SIZE_MAX ? slice_take(rest, slash) : rest;
    if (slash != SIZE_MAX)
        a->path = slice_skip(rest, slash);
    if (authority.len > 0 && !split_host_port(authority, &a->host, &a->port)) {
        a->host = bare_host(authority);
        a->port = SLICE_NONE;
    }
    return a->port.len > 0 ? check_port(a->port, diag) : OK;
}

static struct slice lower(struct slice s, struct arena *arena)
{
    char *out = arena_alloc(arena, s.len + 1);
    bool escaped = false, inside = false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        out[i] = c;
        if (c == '\\' && !escaped) {
            escaped = true;
            continue;
        }
        if (c == '{' && !escaped)
            inside = true;
        if (c == '}' && !escaped)
            inside = false;
        if (!inside)
            out[i] = ascii_lower(c);
        escaped = false;
    }
    return slice_of(out, s.len);
}

/* Go's form of an IPv6 address, but for those that hold an IPv4 one: they stay. */
static struct slice shortest_ip(struct slice host, struct arena *arena)
{
    struct in6_addr ip;
    char text[INET6_ADDRSTRLEN];
    size_t zone = slice_find(host, '%');
    struct slice address = zone != SIZE_MAX ? slice_take(host, zone) : host;
    if (slice_find(host, ':') == SIZE_MAX || address.len >= sizeof text)
        return host;
    memcpy(text, address.ptr, address.len);
    text[address.len] = '\0';
    if (inet_pton(AF_INET6, text, &ip) != 1 || IN6_IS_ADDR_V4MAPPED(&ip) ||
        inet_ntop(AF_INET6, &ip, text, sizeof text) == NULL || strchr(text, '.') != NULL)
        return host;
    if (zone != SIZE_MAX)
        return arena_printf(arena, "%s" SLICE_FMT, text, SLICE_ARG(slice_skip(host, zone)));
    return arena_copy(arena, slice_from(text));
}

struct site_address site_address_normal(const struct site_address *a, struct arena *arena)
{
    struct site_address n = *a;
    n.scheme = lower(a->scheme, arena);
    n.host = lower(shortest_ip(slice_trim(a->host), arena), arena);
    return n;
}

struct slice site_address_text(const struct site_address *a, struct arena *arena)
{
    struct slice scheme = a->scheme;
    if (a->host.len == 0 && a->port.len == 0)
        return SLICE_NONE;
    if (scheme.len == 0)
        scheme = slice_is(a->port, "443") ? SLICE("https") : SLICE("http");
    bool with_port = a->port.len > 0 &&
                     ((slice_is(scheme, "https") && !slice_is(a->port, "443")) ||
                      (slice_is(scheme, "http") && !slice_is(a->port, "80")));
    bool v6 = with_port && slice_find(a->host, ':') != SIZE_MAX;
    return arena_printf(arena, SLICE_FMT "://%s" SLICE_FMT "%s%s" SLICE_FMT SLICE_FMT,
                        SLICE_ARG(scheme), v6 ? "[" : "", SLICE_ARG(a->host), v6 ? "]" : "",
                        with_port ? ":" : "", SLICE_ARG(with_port ? a->port : SLICE_NONE),
                        SLICE_ARG(a->path));
}

long specificity(struct slice s)
{
    long n = (long)s.len;
    for (size_t i = 0; i < s.len; i++)
        n -= s.ptr[i] == '*';
    while (s.len > 0) {
        size_t open = slice_find(s, '{');
        if (open == SIZE_MAX)
            return n;
        size_t close = slice_find(slice_skip(s, open), '}');
        if (close == SIZE_MAX)
            return n;
        n -= (long)close + 1;
        s = slice_skip(s, open + close + 1);
    }
    return n;
}
