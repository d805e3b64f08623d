/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scheme up to "://", host and port up to the next "/", the rest is a path. What looks like a host
 * and port but is none is taken as a host whole, as in Caddy.
 */
#include "adapter/site_address.h"

#include <arpa/inet.h>
#include <stdio.h>

enum { ADDRESS_MAX = 4096 };

/* Go's net.SplitHostPort; false where that is an error. */
static bool split_host_port(struct slice s, struct slice *host, struct slice *port)
{
    size_t colon = slice_find_last(s, ':'), from = 0, to = 0;
    if (colon == SIZE_MAX)
        return false;
    if (s.ptr[0] == '[') {
        size_t end = slice_find(s, ']');
        if (end == SIZE_MAX || end + 1 != colon)
            return false;
        *host = slice_of(s.ptr + 1, end - 1);
        from = 1;
        to = end + 1;
    } else {
        *host = slice_take(s, colon);
        if (slice_find(*host, ':') != SIZE_MAX)
            return false;
    }
    if (slice_find(slice_skip(s, from), '[') != SIZE_MAX ||
        slice_find(slice_skip(s, to), ']') != SIZE_MAX)
        return false;
    *port = slice_skip(s, colon + 1);
    return true;
}

static void split_authority(struct slice s, struct site_address *a, struct arena *arena)
{
    if (split_host_port(s, &a->host, &a->port))
        return;
    struct slice with_colon = arena_join(arena, (struct slice[]){s, SLICE(":")}, 2);
    if (!split_host_port(with_colon, &a->host, &a->port))
        a->host = s;
    a->port = SLICE_NONE;
}

static enum err check_port(struct slice port, struct address_error *why)
{
    int64_t n;
    if (port.len == 0)
        return OK;
    if (!slice_to_i64(port, &n)) {
        snprintf(why->text, sizeof why->text,
                 "invalid port '" SLICE_FMT "': strconv.Atoi: parsing \"" SLICE_FMT
                 "\": invalid syntax", SLICE_ARG(slice_take(port, 80)),
                 SLICE_ARG(slice_take(port, 80)));
        return ERR_INVALID;
    }
    if (n >= 0 && n <= 65535)
        return OK;
    snprintf(why->text, sizeof why->text, "port %lld is out of range", (long long)n);
    return ERR_INVALID;
}

enum err site_address_parse(struct slice text, struct site_address *a, struct arena *arena,
                            struct address_error *why)
{
    struct slice rest = slice_trim(slice_take(text, ADDRESS_MAX)), authority;
    *a = (struct site_address){.original = rest};
    size_t scheme = slice_find_slice(rest, SLICE("://"));
    if (scheme != SIZE_MAX) {
        a->scheme = slice_take(rest, scheme);
        rest = slice_skip(rest, scheme + 3);
    }
    size_t slash = slice_find(rest, '/');
    authority = slash == SIZE_MAX ? rest : slice_take(rest, slash);
    if (slash != SIZE_MAX)
        a->path = slice_skip(rest, slash);
    split_authority(authority, a, arena);
    return check_port(a->port, why);
}

/* ASCII letters, but not inside of "{…}". */
static struct slice lower(struct slice s, struct arena *arena)
{
    bool escaped = false, inside = false;
    char *out = arena_alloc(arena, s.len + 1);
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        out[i] = c;
        if (c == '\\' && !escaped) {
            escaped = true;
            continue;
        }
        if (c == '{' && !escaped)
            inside = true;
        if (c == '}' && inside && !escaped)
            inside = false;
        if (!inside)
            out[i] = ascii_lower(c);
        escaped = false;
    }
    return slice_of(out, s.len);
}

void site_address_normalize(struct site_address *a, struct arena *arena)
{
    struct in6_addr six;
    char text[INET6_ADDRSTRLEN];
    struct slice host = slice_trim(a->host);
    if (host.len < sizeof text && inet_pton(AF_INET6, arena_str(arena, host), &six) == 1 &&
        !IN6_IS_ADDR_V4MAPPED(&six)) {
        inet_ntop(AF_INET6, &six, text, sizeof text);
        host = arena_copy(arena, slice_from(text));
    }
    a->scheme = lower(a->scheme, arena);
    a->host = lower(host, arena);
}

struct slice site_address_text(const struct site_address *a, struct arena *arena)
{
    if (a->host.len == 0 && a->port.len == 0)
        return SLICE_NONE;
    struct slice scheme = a->scheme, authority = a->host;
    if (scheme.len == 0)
        scheme = slice_is(a->port, "443") ? SLICE("https") : SLICE("http");
    if ((slice_is(scheme, "https") && !slice_is(a->port, "443")) ||
        (slice_is(scheme, "http") && !slice_is(a->port, "80"))) {
        if (a->port.len > 0)
            authority = address_join(SLICE_NONE, a->host, a->port, arena);
    }
    return arena_join(arena, (struct slice[]){scheme, SLICE("://"), authority, a->path}, 4);
}

int64_t pattern_specificity(struct slice s)
{
    int64_t n = (int64_t)s.len;
    for (size_t i = 0; i < s.len; i++)
        n -= s.ptr[i] == '*';
    while (s.len > 0) {
        size_t start = slice_find(s, '{');
        if (start == SIZE_MAX)
            return n;
        size_t end = slice_find(slice_skip(s, start), '}');
        if (end == SIZE_MAX)
            return n;
        n -= (int64_t)end + 1;
        s = slice_skip(s, start + end + 1);
    }
    return n;
}
