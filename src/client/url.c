/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taken apart from the left: scheme, authority, target. Control characters are refused wherever they
 * stand; what else no request target may hold (spaces, quotes, bytes beyond ASCII) is escaped, for
 * people write such URLs and servers send such redirects. A fragment is the reader's own and dropped.
 */
#include "client/url.h"

#include "base/text.h"

static enum err bad(const char **why, const char *phrase)
{
    *why = phrase;
    return ERR_INVALID;
}

static bool has_control(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if ((unsigned char)s.ptr[i] < 0x20 || s.ptr[i] == 0x7f)
            return true;
    }
    return false;
}

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z');
}

static struct slice lower(struct slice s, struct arena *arena)
{
    char *copy = arena_str(arena, s);
    for (size_t i = 0; i < s.len; i++)
        copy[i] = ascii_lower(copy[i]);
    return slice_of(copy, s.len);
}

/* --- the target --- */

static bool must_escape(char c)
{
    return (unsigned char)c <= 0x20 || (unsigned char)c >= 0x7f || strchr("\"<>\\^`{|}", c) != NULL;
}

static struct slice escape(struct slice s, struct arena *arena)
{
    static const char hex[] = "0123456789ABCDEF";
    char *start = arena_alloc(arena, s.len * 3 + 1), *to = start;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!must_escape(c)) {
            *to++ = c;
            continue;
        }
        *to++ = '%';
        *to++ = hex[(unsigned char)c >> 4];
        *to++ = hex[c & 15];
    }
    return slice_of(start, (size_t)(to - start));
}

/* "/path?query" of what follows an authority; "" and "?query" get their slash. */
static struct slice target_of(struct slice rest, struct arena *arena)
{
    struct slice target, fragment;
    slice_cut(rest, '#', &target, &fragment);
    if (target.len == 0 || target.ptr[0] != '/')
        target = arena_join(arena, (struct slice[]){SLICE("/"), target}, 2);
    return escape(target, arena);
}

/* --- the authority --- */

static enum err decode(struct slice s, struct arena *arena, struct slice *out, const char **why)
{
    char *start = arena_alloc(arena, s.len + 1), *to = start;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] != '%') {
            *to++ = s.ptr[i];
            continue;
        }
        int high = i + 2 < s.len ? hex_value(s.ptr[i + 1]) : -1;
        int low = i + 2 < s.len ? hex_value(s.ptr[i + 2]) : -1;
        if (high < 0 || low < 0)
            return bad(why, "invalid escape in the user's name");
        *to++ = (char)(high << 4 | low);
        i += 2;
    }
    *out = slice_of(start, (size_t)(to - start));
    return has_control(*out) ? bad(why, "control character in the user's name") : OK;
}

static enum err read_user(struct slice info, struct url *u, struct arena *arena, const char **why)
{
    struct slice user, password;
    slice_cut(info, ':', &user, &password);
    u->has_user = true;
    TRY(decode(user, arena, &u->user, why));
    return decode(password, arena, &u->password, why);
}

static bool name_ok(struct slice s)
{
    if (s.len == 0 || s.len > 253 || s.ptr[0] == '.') /* no server takes ".a" as its Host */
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (!is_alnum(s.ptr[i]) && strchr("-._", s.ptr[i]) == NULL)
            return false;
    }
    return true;
}

static bool zone_ok(struct slice s)
{
    return s.len > 0 && s.len <= 64 && name_ok(s);
}

/* What stands between the brackets; "%25" before the zone (RFC 6874), or "%" alone. */
static enum err read_literal(struct slice s, struct url *u, struct arena *arena, const char **why)
{
    struct slice address, zone;
    bool zoned = slice_cut(s, '%', &address, &zone);
    if (zoned && slice_starts(zone, SLICE("25")) && zone.len > 2)
        zone = slice_skip(zone, 2);
    if (zoned && !zone_ok(zone))
        return bad(why, "malformed address in brackets");
    for (size_t i = 0; i < address.len; i++) {
        if (hex_value(address.ptr[i]) < 0 && address.ptr[i] != ':' && address.ptr[i] != '.')
            return bad(why, "malformed address in brackets");
    }
    if (slice_find(address, ':') == SIZE_MAX || address.len > 45)
        return bad(why, "malformed address in brackets");
    address = lower(address, arena);
    u->host = address;
    if (zoned)
        u->host = arena_join(arena, (struct slice[]){address, SLICE("%"), zone}, 3);
    u->authority = arena_join(arena, (struct slice[]){SLICE("["), address, SLICE("]")}, 3);
    u->hostport = arena_join(arena, (struct slice[]){SLICE("["), u->host, SLICE("]")}, 3);
    return OK;
}

static enum err read_host(struct slice s, struct slice *port, struct url *u, struct arena *arena,
                          const char **why)
{
    *port = SLICE_NONE;
    if (s.len > 0 && s.ptr[0] == '[') {
        size_t end = slice_find(s, ']');
        struct slice rest = slice_skip(s, end == SIZE_MAX ? s.len : end + 1);
        if (end == SIZE_MAX || (rest.len > 0 && rest.ptr[0] != ':'))
            return bad(why, "malformed address in brackets");
        *port = slice_skip(rest, 1);
        return read_literal(slice_of(s.ptr + 1, end - 1), u, arena, why);
    }
    struct slice host;
    slice_cut(s, ':', &host, port);
    if (host.len == 0)
        return bad(why, "no host in it");
    if (!name_ok(host))
        return bad(why, "malformed host name");
    u->host = u->authority = u->hostport = lower(host, arena);
    return OK;
}

static enum err read_authority(struct slice s, struct url *u, struct arena *arena, const char **why)
{
    struct slice port;
    uint64_t number = u->tls ? 443 : 80;
    size_t at = slice_find_last(s, '@');
    if (at != SIZE_MAX) {
        TRY(read_user(slice_take(s, at), u, arena, why));
        s = slice_skip(s, at + 1);
    }
    TRY(read_host(s, &port, u, arena, why));
    if (port.len > 0 && (!slice_to_u64(port, UINT16_MAX, &number) || number == 0))
        return bad(why, "invalid port");
    u->port = (uint16_t)number;
    u->hostport = arena_printf(arena, SLICE_FMT ":%u", SLICE_ARG(u->hostport), u->port);
    if (u->port != (u->tls ? 443 : 80))
        u->authority = arena_printf(arena, SLICE_FMT ":%u", SLICE_ARG(u->authority), u->port);
    return OK;
}

/* --- all of it --- */

static size_t authority_end(struct slice s)
{
    size_t i = 0;
    while (i < s.len && s.ptr[i] != '/' && s.ptr[i] != '?' && s.ptr[i] != '#')
        i++;
    return i;
}

static enum err read_rest(struct slice rest, struct url *u, struct arena *arena, const char **why)
{
    size_t end = authority_end(rest);
    TRY(read_authority(slice_take(rest, end), u, arena, why));
    u->target = target_of(slice_skip(rest, end), arena);
    return OK;
}

enum err url_parse(struct slice text, struct url *u, struct arena *arena, const char **why)
{
    *u = (struct url){0};
    if (text.len > URL_MAX)
        return bad(why, "too long");
    if (has_control(text))
        return bad(why, "control character in it");
    if (slice_starts_nocase(text, SLICE("https://")))
        u->tls = true;
    else if (!slice_starts_nocase(text, SLICE("http://")))
        return bad(why, "it begins with neither http:// nor https://");
    return read_rest(slice_skip(text, u->tls ? 8 : 7), u, arena, why);
}

/* --- references --- */

/* RFC 3986 §5.2.4 on a path that begins with a slash; a query may follow. */
static struct slice remove_dots(struct slice target, struct arena *arena)
{
    struct slice path, query, part;
    bool has_query = slice_cut(target, '?', &path, &query);
    char *start = arena_alloc(arena, target.len + 2), *to = start;
    for (struct slice rest = slice_skip(path, 1);;) {
        bool more = slice_cut(rest, '/', &part, &rest);
        bool up = slice_is(part, ".."), dot = up || slice_is(part, ".");
        while (up && to > start && *--to != '/') {
        }
        if (!dot || !more) {
            *to++ = '/';
            if (!dot)
                to = (char *)mempcpy(to, part.ptr, part.len);
        }
        if (!more)
            break;
    }
    if (has_query) {
        *to++ = '?';
        to = (char *)mempcpy(to, query.ptr, query.len);
    }
    return slice_of(start, (size_t)(to - start));
}

static bool has_scheme(struct slice s)
{
    size_t i = 0;
    while (i < s.len && (is_alnum(s.ptr[i]) || (i > 0 && strchr("+-.", s.ptr[i]) != NULL)))
        i++;
    return i > 0 && i < s.len && s.ptr[i] == ':';
}

/* The base's path up to its last slash, with it. */
static struct slice folder_of(struct slice target)
{
    struct slice path, query;
    slice_cut(target, '?', &path, &query);
    return slice_take(path, slice_find_last(path, '/') + 1);
}

enum err url_resolve(const struct url *base, struct slice reference, struct url *u,
                     struct arena *arena, const char **why)
{
    struct slice path, query;
    if (has_scheme(reference))
        return url_parse(reference, u, arena, why);
    *u = (struct url){.tls = base->tls};
    if (reference.len > URL_MAX)
        return bad(why, "too long");
    if (has_control(reference))
        return bad(why, "control character in it");
    if (slice_starts(reference, SLICE("//")))
        return read_rest(slice_skip(reference, 2), u, arena, why);
    *u = *base;
    slice_cut(base->target, '?', &path, &query);
    if (reference.len == 0 || reference.ptr[0] == '#')
        return OK;
    if (reference.ptr[0] == '?')
        reference = arena_join(arena, (struct slice[]){path, reference}, 2);
    else if (reference.ptr[0] != '/')
        reference = arena_join(arena, (struct slice[]){folder_of(base->target), reference}, 2);
    u->target = remove_dots(target_of(reference, arena), arena);
    return OK;
}

struct slice url_text(const struct url *u, struct arena *arena)
{
    return arena_join(arena, (struct slice[]){u->tls ? SLICE("https://") : SLICE("http://"),
                                              u->authority, u->target}, 3);
}
