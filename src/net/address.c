/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules are those of Caddy's listeners and of Go's net.SplitHostPort beneath them: brackets
 * hold IPv6 hosts, a bare host with more than one colon is refused, and an address without a port
 * is tried again as a bare host.
 */
#include "net/address.h"

#include <stdio.h>

static enum err refuse(struct address_error *e, const char *why, struct slice what)
{
    snprintf(e->text, sizeof e->text, "address " SLICE_FMT ": %s", SLICE_ARG(slice_take(what, 150)),
             why);
    return ERR_INVALID;
}

bool network_is_unix(struct slice network)
{
    return slice_starts(network, SLICE("unix"));
}

bool network_is_fd(struct slice network)
{
    return slice_starts(network, SLICE("fd"));
}

/* "[host]:port" and "host:port" with exactly one colon outside the brackets. */
static enum err split_host_port(struct slice a, struct slice *host, struct slice *port,
                                struct address_error *e)
{
    size_t colon = slice_find_last(a, ':');
    *host = *port = SLICE_NONE;
    if (colon == SIZE_MAX)
        return refuse(e, "missing port in address", a);
    if (a.ptr[0] == '[') {
        size_t end = slice_find(a, ']');
        if (end == SIZE_MAX)
            return refuse(e, "missing ']' in address", a);
        if (end + 1 == a.len)
            return refuse(e, "missing port in address", a);
        if (end + 1 != colon)
            return refuse(e, a.ptr[end + 1] == ':' ? "too many colons in address"
                                                   : "missing port in address", a);
        *host = slice_of(a.ptr + 1, end - 1);
        if (slice_find(*host, '[') != SIZE_MAX)
            return refuse(e, "unexpected '[' in address", a);
    } else {
        *host = slice_take(a, colon);
        if (slice_find(*host, ':') != SIZE_MAX)
            return refuse(e, "too many colons in address", a);
        if (slice_find(a, '[') != SIZE_MAX)
            return refuse(e, "unexpected '[' in address", a);
        if (slice_find(a, ']') != SIZE_MAX)
            return refuse(e, "unexpected ']' in address", a);
    }
    *port = slice_skip(a, colon + 1);
    return OK;
}

static struct slice trim_brackets(struct slice s)
{
    while (s.len > 0 && (s.ptr[0] == '[' || s.ptr[0] == ']'))
        s = slice_skip(s, 1);
    while (s.len > 0 && (s.ptr[s.len - 1] == '[' || s.ptr[s.len - 1] == ']'))
        s.len--;
    return s;
}

static struct slice lower(struct slice s, struct arena *arena)
{
    char *copy = arena_alloc(arena, s.len + 1);
    for (size_t i = 0; i < s.len; i++)
        copy[i] = ascii_lower(s.ptr[i]);
    return slice_of(copy, s.len);
}

static struct slice join_host_port(struct slice host, struct slice port, struct arena *arena)
{
    bool six = slice_find(host, ':') != SIZE_MAX;
    return arena_printf(arena, "%s" SLICE_FMT "%s:" SLICE_FMT, six ? "[" : "", SLICE_ARG(host),
                        six ? "]" : "", SLICE_ARG(port));
}

enum err address_split(struct slice a, struct slice *network, struct slice *host,
                       struct slice *port, struct arena *arena, struct address_error *e)
{
    struct slice before, after, ignored;
    struct address_error second;
    *network = *host = *port = SLICE_NONE;
    if (slice_cut(a, '/', &before, &after)) {
        *network = lower(slice_trim(before), arena);
        a = after;
        if (network_is_unix(*network) || network_is_fd(*network)) {
            *host = a;
            return OK;
        }
    }
    if (split_host_port(a, host, port, e) == OK)
        return OK;
    struct slice with_port = join_host_port(trim_brackets(a), SLICE("0"), arena);
    if (split_host_port(with_port, host, &ignored, &second) != OK)
        return ERR_INVALID;
    *port = SLICE_NONE;
    return OK;
}

static enum err parse_port(struct slice text, const char *which, uint16_t *out,
                           struct address_error *e)
{
    uint64_t n;
    if (!slice_to_u64(text, 65535, &n)) {
        snprintf(e->text, sizeof e->text,
                 "invalid %s port: \"" SLICE_FMT "\" is not a number from 0 to 65535", which,
                 SLICE_ARG(slice_take(text, 60)));
        return ERR_INVALID;
    }
    *out = (uint16_t)n;
    return OK;
}

enum err address_parse(struct slice text, struct slice network, uint16_t port,
                       struct network_address *out, struct arena *arena, struct address_error *e)
{
    struct slice ports, first, last, path;
    uint32_t mode;
    *out = (struct network_address){0};
    TRY(address_split(text, &out->network, &out->host, &ports, arena, e));
    if (out->network.len == 0)
        out->network = network;
    if (network_is_unix(out->network))
        return unix_permissions(out->host, &path, &mode, e);
    if (network_is_fd(out->network))
        return OK;
    out->first_port = out->last_port = port;
    if (ports.len == 0)
        return OK;
    if (!slice_cut(ports, '-', &first, &last))
        last = first;
    TRY(parse_port(first, "start", &out->first_port, e));
    TRY(parse_port(last, "end", &out->last_port, e));
    if (out->last_port < out->first_port) {
        snprintf(e->text, sizeof e->text, "end port must not be less than start port");
        return ERR_INVALID;
    }
    return OK;
}

struct slice address_join(struct slice network, struct slice host, struct slice port,
                          struct arena *arena)
{
    struct slice rest = SLICE_NONE;
    if ((host.len > 0 && port.len == 0) || network_is_unix(network) || network_is_fd(network))
        rest = host;
    else if (port.len > 0)
        rest = join_host_port(host, port, arena);
    if (network.len == 0)
        return arena_copy(arena, rest);
    return arena_join(arena, (struct slice[]){network, SLICE("/"), rest}, 3);
}

struct slice address_text(const struct network_address *a, struct arena *arena)
{
    struct slice port = SLICE_NONE;
    bool plain = slice_is(a->network, "tcp");
    if (network_is_unix(a->network) || network_is_fd(a->network))
        return address_join(a->network, a->host, port, arena);
    if (a->first_port == a->last_port)
        port = arena_printf(arena, "%u", a->first_port);
    else
        port = arena_printf(arena, "%u-%u", a->first_port, a->last_port);
    return address_join(plain ? SLICE_NONE : a->network, a->host, port, arena);
}

enum err unix_permissions(struct slice text, struct slice *path, uint32_t *mode,
                          struct address_error *e)
{
    struct slice digits;
    *mode = 0200;
    if (!slice_cut(text, '|', path, &digits))
        return OK;
    uint32_t bits = 0;
    bool valid = digits.len > 0 && digits.len <= 11;
    for (size_t i = 0; valid && i < digits.len; i++) {
        valid = digits.ptr[i] >= '0' && digits.ptr[i] <= '7' && bits <= UINT32_MAX >> 3;
        bits = bits * 8 + (uint32_t)(digits.ptr[i] - '0');
    }
    if (!valid) {
        snprintf(e->text, sizeof e->text, "could not parse octal permission bits in " SLICE_FMT,
                 SLICE_ARG(slice_take(text, 200)));
        return ERR_INVALID;
    }
    if ((bits & 0200) == 0) {
        snprintf(e->text, sizeof e->text,
                 "owner of the socket requires '-w-' (write, octal: '2') permissions at least; got "
                 "'%c%c%c' in " SLICE_FMT, bits & 0400 ? 'r' : '-', '-', bits & 0100 ? 'x' : '-',
                 SLICE_ARG(slice_take(text, 120)));
        return ERR_INVALID;
    }
    *mode = bits;
    return OK;
}
