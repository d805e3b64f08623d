/* SPDX-License-Identifier: Apache-2.0 */
/*
 * With a scheme it is a URL of scheme, host and port; without, a network address.
 */
#include "adapter/upstream_address.h"

#include <stdio.h>

static enum err fail(struct address_error *why, const char *text)
{
    snprintf(why->text, sizeof why->text, "%s", text);
    return ERR_INVALID;
}

static bool scheme_ok(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = ascii_lower(s.ptr[i]);
        bool alpha = c >= 'a' && c <= 'z';
        if (!alpha && (i == 0 || !((c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.')))
            return false;
    }
    return s.len > 0;
}

static bool port_ok(struct slice s)
{
    unsigned dashes = 0;
    for (size_t i = 0; i < s.len; i++) {
        dashes += s.ptr[i] == '-';
        if (s.ptr[i] != '-' && (s.ptr[i] < '0' || s.ptr[i] > '9'))
            return false;
    }
    return dashes <= 1;
}

/* The first byte that no host in a URL may have, or NUL; what is not ASCII is left to the resolver. */
static char bad_in_host(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i], low = ascii_lower(c);
        bool fine = (unsigned char)c >= 0x80 || (low >= 'a' && low <= 'z') ||
                    (c >= '0' && c <= '9') ||
                    (c != '\0' && strchr("-_.~!$&'()*+,;=:[]<>\"%", c) != NULL);
        if (!fine)
            return c == '\0' ? ' ' : c;
    }
    return '\0';
}

static enum err parse_url(struct slice text, struct upstream_address *u, struct arena *arena,
                          struct address_error *why)
{
    size_t at = slice_find_slice(text, SLICE("://"));
    struct slice rest = slice_skip(text, at + 3);
    char *scheme = arena_str(arena, slice_take(text, at));
    for (size_t i = 0; i < at; i++)
        scheme[i] = ascii_lower(scheme[i]);
    u->scheme = slice_of(scheme, at);
    if (slice_find(text, '{') != SIZE_MAX)
        return fail(why, "due to parsing difficulties, placeholders are not allowed when an "
                         "upstream address contains a scheme");
    if (!scheme_ok(u->scheme)) {
        snprintf(why->text, sizeof why->text,
                 "parsing upstream URL: parse \"" SLICE_FMT "\": missing protocol scheme",
                 SLICE_ARG(slice_take(text, 100)));
        return ERR_INVALID;
    }
    for (size_t i = 0; i < rest.len; i++)
        if (memchr("/?#", rest.ptr[i], 3) != NULL) {
            if (rest.ptr[i] == '/' || i + 1 < rest.len)
                return fail(why, "for now, URLs for proxy upstreams only support scheme, host, and "
                                 "port components");
            rest.len = i;
        }
    size_t user = slice_find_last(rest, '@');
    if (user != SIZE_MAX)
        rest = slice_skip(rest, user + 1);
    size_t colon = slice_find_last(rest, ':'), bracket = slice_find_last(rest, ']');
    if (colon != SIZE_MAX && (bracket == SIZE_MAX || colon > bracket)) {
        u->port = slice_skip(rest, colon + 1);
        rest = slice_take(rest, colon);
    }
    if (!port_ok(u->port)) {
        snprintf(why->text, sizeof why->text,
                 "parsing upstream URL: parse \"" SLICE_FMT "\": invalid port \":" SLICE_FMT
                 "\" after host",
                 SLICE_ARG(slice_take(text, 80)), SLICE_ARG(slice_take(u->port, 40)));
        return ERR_INVALID;
    }
    if (rest.len >= 2 && rest.ptr[0] == '[' && rest.ptr[rest.len - 1] == ']')
        rest = slice_take(slice_skip(rest, 1), rest.len - 2);
    char bad = bad_in_host(rest);
    if (bad != '\0') {
        snprintf(why->text, sizeof why->text,
                 "parsing upstream URL: parse \"" SLICE_FMT "\": invalid character \"%c\" in host "
                 "name", SLICE_ARG(slice_take(text, 80)), bad);
        return ERR_INVALID;
    }
    u->host = rest;
    return OK;
}

static enum err check_url(struct upstream_address *u, struct address_error *why)
{
    if (slice_is(u->scheme, "http") && slice_is(u->port, "443"))
        return fail(why, "upstream address has conflicting scheme (http://) and port (:443, the "
                         "HTTPS port)");
    if (slice_is(u->scheme, "https") && slice_is(u->port, "80"))
        return fail(why, "upstream address has conflicting scheme (https://) and port (:80, the "
                         "HTTP port)");
    if (slice_is(u->scheme, "h2c") && slice_is(u->port, "443"))
        return fail(why, "upstream address has conflicting scheme (h2c://) and port (:443, the "
                         "HTTPS port)");
    if (u->port.len == 0) {
        if (slice_is(u->scheme, "http") || slice_is(u->scheme, "h2c"))
            u->port = SLICE("80");
        else if (slice_is(u->scheme, "https"))
            u->port = SLICE("443");
    }
    return OK;
}

enum err upstream_address_parse(struct slice text, struct upstream_address *u, struct arena *arena,
                                struct address_error *why)
{
    struct address_error ignored;
    memset(u, 0, sizeof *u);
    if (slice_find_slice(text, SLICE("://")) != SIZE_MAX) {
        TRY(parse_url(text, u, arena, why));
        return check_url(u, why);
    }
    if (address_split(text, &u->network, &u->host, &u->port, arena, &ignored) != OK) {
        u->host = text;
        u->network = u->port = SLICE_NONE;
    }
    if (u->port.len == 0 && slice_find(u->host, '{') == SIZE_MAX && !network_is_unix(u->network) &&
        !network_is_fd(u->network))
        u->port = SLICE("80");
    if (slice_is(u->network, "unix+h2c")) {
        u->network = SLICE("unix");
        u->scheme = SLICE("h2c");
    }
    return OK;
}

struct slice upstream_dial(const struct upstream_address *u, struct arena *arena)
{
    if (u->network.len > 0)
        return address_join(u->network, u->host, u->port, arena);
    if (u->port.len == 0 && slice_find(u->host, '{') != SIZE_MAX)
        return u->host;
    bool v6 = slice_find(u->host, ':') != SIZE_MAX;
    return arena_printf(arena, v6 ? "[" SLICE_FMT "]:" SLICE_FMT : SLICE_FMT ":" SLICE_FMT,
                        SLICE_ARG(u->host), SLICE_ARG(u->port));
}
