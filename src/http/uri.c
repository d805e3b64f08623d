/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Targets and their parts. A path is decoded exactly once, here; what handlers and matchers see in
 * `path` holds no escapes, and `raw_path` keeps the form that came, so that "%2F" and "/" stay
 * different where that matters. Escaping follows Go's net/url, whose output Caddy's users see.
 */
#include "http/uri.h"

#include "base/check.h"
#include "base/text.h"

static enum err decode(struct slice in, bool plus, struct arena *arena, struct slice *out)
{
    if (slice_find(in, '%') == SIZE_MAX && (!plus || slice_find(in, '+') == SIZE_MAX)) {
        *out = in;
        return OK;
    }
    char *text = arena_alloc(arena, in.len);
    size_t n = 0;
    for (size_t i = 0; i < in.len; i++) {
        char c = in.ptr[i];
        if (c == '%') {
            int high = i + 2 < in.len ? hex_value(in.ptr[i + 1]) : -1;
            int low = i + 2 < in.len ? hex_value(in.ptr[i + 2]) : -1;
            if (high < 0 || low < 0)
                return ERR_INVALID;
            c = (char)(high << 4 | low);
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        text[n++] = c;
    }
    *out = slice_of(text, n);
    return OK;
}

enum err uri_decode(struct slice in, struct arena *arena, struct slice *out)
{
    return decode(in, false, arena, out);
}

enum err query_decode(struct slice in, struct arena *arena, struct slice *out)
{
    return decode(in, true, arena, out);
}

enum { IN_PATH = 1, IN_SEGMENT = 2, IN_QUERY = 4, AS_CAME = 8 };

/* Which bytes stay as they are, by Go's rules for URL.EscapedPath, PathEscape and QueryEscape; and
 * which a path may hold in the form that came. */
static const uint8_t plain[256] = {
    ['0' ... '9'] = 15, ['A' ... 'Z'] = 15, ['a' ... 'z'] = 15,
    ['-'] = 15, ['_'] = 15, ['.'] = 15, ['~'] = 15,
    ['$'] = 11, ['&'] = 11, ['+'] = 11, [':'] = 11, ['='] = 11, ['@'] = 11,
    ['/'] = 9, [';'] = 9, [','] = 9,
    ['!'] = 8, ['\''] = 8, ['('] = 8, [')'] = 8, ['*'] = 8, ['['] = 8, [']'] = 8, ['%'] = 8,
};

static struct slice escape(struct slice in, unsigned where, bool plus, struct arena *arena)
{
    size_t extra = 0, n = 0;
    for (size_t i = 0; i < in.len; i++)
        extra += (plain[(unsigned char)in.ptr[i]] & where) == 0 ? 2 : 0;
    if (extra == 0)
        return in;
    ASSERT(in.len < SIZE_MAX / 4);
    char *text = arena_alloc(arena, in.len + extra);
    for (size_t i = 0; i < in.len; i++) {
        unsigned char c = (unsigned char)in.ptr[i];
        if ((plain[c] & where) != 0) {
            text[n++] = (char)c;
        } else if (c == ' ' && plus) {
            text[n++] = '+';
        } else {
            text[n++] = '%';
            text[n++] = "0123456789ABCDEF"[c >> 4];
            text[n++] = "0123456789ABCDEF"[c & 15];
        }
    }
    return slice_of(text, n);
}

struct slice uri_escape_path(struct slice path, struct arena *arena)
{
    return escape(path, IN_PATH, false, arena);
}

struct slice path_escape(struct slice s, struct arena *arena)
{
    return escape(s, IN_SEGMENT, false, arena);
}

struct slice query_escape(struct slice s, struct arena *arena)
{
    return escape(s, IN_QUERY, true, arena);
}

static size_t authority_end(struct slice s)
{
    size_t i = 0;
    while (i < s.len && s.ptr[i] != '/' && s.ptr[i] != '?' && s.ptr[i] != '#')
        i++;
    return i;
}

enum err uri_parse(struct slice target, struct uri *u, struct slice *authority, struct arena *arena)
{
    size_t scheme = slice_starts(target, SLICE("/"))                 ? 0
                    : slice_starts_nocase(target, SLICE("http://"))  ? 7
                    : slice_starts_nocase(target, SLICE("https://")) ? 8
                                                                     : 0;
    *u = (struct uri){.path = SLICE("/")};
    *authority = SLICE_NONE;
    if (scheme > 0) {
        struct slice rest = slice_skip(target, scheme);
        *authority = slice_take(rest, authority_end(rest));
        target = slice_skip(rest, authority->len);
    } else if (target.len == 0 || (target.ptr[0] != '/' && !slice_is(target, "*"))) {
        return ERR_INVALID;
    }
    u->has_query = slice_cut(target, '?', &u->raw_path, &u->query);
    if (u->raw_path.len == 0)
        u->raw_path = SLICE("/");
    TRY(uri_decode(u->raw_path, arena, &u->path));
    return slice_find(u->path, '\0') == SIZE_MAX ? OK : ERR_INVALID;
}

/* Removes the last segment of out[0 … n), not below `root` bytes. */
static size_t back_up(const char *out, size_t n, size_t root)
{
    while (n > root && out[n - 1] != '/')
        n--;
    return n > root ? n - 1 : n;
}

/* Drops the marks of empty segments. */
static size_t drop_marks(char *out, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (out[i] != '\0')
            out[kept++] = out[i];
    }
    return kept;
}

/* As path.Clean. Where empty segments are kept, each is a NUL byte meanwhile (which no path holds),
 * so that ".." takes one away like any other segment. */
/* Rooted, with no empty segment and none that begins with a dot: nothing to resolve. */
static bool is_clean(struct slice path)
{
    if (path.len == 0 || path.ptr[0] != '/')
        return false;
    for (size_t i = 0; i + 1 < path.len; i++) {
        if (path.ptr[i] == '/' && (path.ptr[i + 1] == '/' || path.ptr[i + 1] == '.'))
            return false;
    }
    return true;
}

struct slice uri_clean(struct slice path, bool collapse, struct arena *arena)
{
    if (is_clean(path))
        return path;
    bool rooted = path.len > 0 && path.ptr[0] == '/';
    bool slash_end = path.len > 1 && path.ptr[path.len - 1] == '/';
    char *out = arena_alloc(arena, path.len * 2 + 2);
    size_t n = 0, i = rooted ? 1 : 0;
    if (rooted)
        out[n++] = '/';
    size_t root = n;
    while (i < path.len) {
        size_t end = i;
        while (end < path.len && path.ptr[end] != '/')
            end++;
        struct slice segment = slice_of(path.ptr + i, end - i);
        bool last = end == path.len;
        i = end + 1;
        if ((segment.len == 0 && (collapse || last)) || slice_is(segment, "."))
            continue;
        if (segment.len == 0)
            segment = slice_of("", 1);
        if (slice_is(segment, "..") && (rooted || n > 0)) {
            n = back_up(out, n, root);
            continue;
        }
        if (n > root)
            out[n++] = '/';
        memcpy(out + n, segment.ptr, segment.len);
        n += segment.len;
    }
    if (n == 0 && path.len > 0)
        out[n++] = '.';
    if (slash_end && !(n == 1 && out[0] == '/'))
        out[n++] = '/';
    return slice_of(out, collapse ? n : drop_marks(out, n));
}

bool query_next(struct slice *rest, struct slice *key, struct slice *value)
{
    struct slice pair;
    do {
        if (rest->len == 0)
            return false;
        struct slice tail;
        slice_cut(*rest, '&', &pair, &tail);
        *rest = tail;
    } while (pair.len == 0);
    slice_cut(pair, '=', key, value);
    return true;
}

bool query_get(struct slice query, struct slice name, struct arena *arena, struct slice *value)
{
    struct slice key, raw, decoded;
    while (query_next(&query, &key, &raw)) {
        if (query_decode(key, arena, &decoded) != OK || !slice_eq(decoded, name))
            continue;
        if (query_decode(raw, arena, value) == OK)
            return true;
    }
    *value = SLICE_NONE;
    return false;
}

/* What no path may hold is escaped, as strict upstreams want it; escapes that came stay. */
static struct slice valid_path(struct slice raw, struct arena *arena)
{
    size_t odd = 0, n = 0;
    while (odd < raw.len && (plain[(unsigned char)raw.ptr[odd]] & AS_CAME) != 0)
        odd++;
    if (odd == raw.len)
        return raw;
    char *text = arena_alloc(arena, raw.len * 3);
    for (size_t i = 0; i < raw.len; i++) {
        unsigned char c = (unsigned char)raw.ptr[i];
        if (c != '%' && (plain[c] & IN_PATH) == 0) {
            text[n++] = '%';
            text[n++] = "0123456789ABCDEF"[c >> 4];
            c = (unsigned char)"0123456789ABCDEF"[c & 15];
        }
        text[n++] = (char)c;
    }
    return slice_of(text, n);
}

struct slice uri_text(const struct uri *u, struct arena *arena)
{
    struct slice path = valid_path(u->raw_path, arena);
    if (u->query.len == 0 && !u->has_query)
        return path;
    return arena_join(arena, (struct slice[]){path, SLICE("?"), u->query}, 3);
}

void uri_set_path(struct uri *u, struct slice path, struct arena *arena)
{
    u->path = path;
    u->raw_path = uri_escape_path(path, arena);
}

void host_split(struct slice hostport, struct slice *host, struct slice *port)
{
    size_t colon = slice_find_last(hostport, ':');
    size_t bracket = slice_find_last(hostport, ']');
    *port = SLICE_NONE;
    *host = hostport;
    if (colon != SIZE_MAX && (bracket == SIZE_MAX || colon > bracket) &&
        (bracket != SIZE_MAX || slice_find(hostport, ':') == colon)) {
        *host = slice_take(hostport, colon);
        *port = slice_skip(hostport, colon + 1);
    }
    if (host->len >= 2 && host->ptr[0] == '[' && host->ptr[host->len - 1] == ']')
        *host = slice_of(host->ptr + 1, host->len - 2);
}
