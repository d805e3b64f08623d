/* SPDX-License-Identifier: Apache-2.0 */
/*
 * path: the request's path against patterns, ASCII case ignored, dot segments resolved and (unless
 * the pattern has "//") slashes merged, so that no spelling of a path gets around a matcher. A star
 * at one end means prefix or suffix across slashes, at both ends "contains"; elsewhere it is a
 * shell pattern. A pattern with '%' is compared in escaped form where its '%' stand.
 *
 *     "path": ["/api", "*.php"]
 */
#include "base/glob.h"
#include "handlers/handlers.h"
#include "http/uri.h"

struct path_pattern {
    struct template text; /* lower case */
    bool all;             /* "*" */
};

struct match_path {
    struct path_pattern *patterns;
    size_t count;
};

static struct slice lower(struct slice s, struct arena *arena)
{
    char *copy = arena_alloc(arena, s.len + 1);
    for (size_t i = 0; i < s.len; i++)
        copy[i] = ascii_lower(s.ptr[i]);
    return slice_of(copy, s.len);
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct match_path *m = cfg;
    size_t i;
    json_t *v;
    if (!json_is_array(json))
        return provision_fail(p, "must be an array of strings");
    m->patterns = ARENA_ARRAY(p->arena, struct path_pattern, json_array_size(json));
    json_array_foreach((json_t *)(uintptr_t)json, i, v)
    {
        struct path_pattern *pattern = &m->patterns[m->count++];
        if (!json_is_string(v))
            return provision_fail(p, "must be an array of strings");
        struct slice text = slice_of(json_string_value(v), json_string_length(v));
        template_compile(&pattern->text, lower(text, p->arena), p->arena);
        pattern->all = slice_is(text, "*");
    }
    return OK;
}

static size_t count_stars(struct slice s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++)
        n += s.ptr[i] == '*';
    return n;
}

static bool match_plain(struct slice pattern, struct slice path)
{
    size_t stars = count_stars(pattern);
    bool first = pattern.len > 0 && pattern.ptr[0] == '*';
    bool last = pattern.len > 0 && pattern.ptr[pattern.len - 1] == '*';
    if (stars == 0 && slice_find(pattern, '[') == SIZE_MAX && slice_find(pattern, '\\') == SIZE_MAX &&
        slice_find(pattern, '?') == SIZE_MAX)
        return slice_eq(pattern, path);
    if (stars == 2 && first && last && pattern.len > 1)
        return slice_find_slice(path, slice_of(pattern.ptr + 1, pattern.len - 2)) != SIZE_MAX;
    if (stars == 1 && first)
        return slice_ends(path, slice_skip(pattern, 1));
    if (stars == 1 && last)
        return slice_starts(path, slice_take(pattern, pattern.len - 1));
    return glob_match(pattern, path);
}

/* Decodes, or gives the text itself when it has a malformed escape. */
static struct slice decoded(struct slice s, struct arena *arena)
{
    struct slice out;
    return uri_decode(s, arena, &out) == OK ? out : s;
}

struct escaped_walk {
    struct slice pattern, path;
    size_t at_pattern, at_path;
    char *out; /* what the pattern is compared with; never longer than the path */
    size_t len;
};

static void put(struct escaped_walk *w, struct slice s)
{
    memcpy(w->out + w->len, s.ptr, s.len);
    w->len += s.len;
}

/* '*' or "%*" at the pattern's place: everything up to the byte that follows it. */
static bool walk_star(struct escaped_walk *w, bool raw, struct arena *arena)
{
    struct slice rest = slice_skip(w->path, w->at_path);
    size_t until = rest.len;
    if (w->at_pattern + 1 < w->pattern.len) {
        until = slice_find(rest, w->pattern.ptr[w->at_pattern + 1]);
        if (until == SIZE_MAX)
            return false;
    }
    struct slice span = slice_take(rest, until);
    put(w, raw ? span : decoded(span, arena));
    w->at_path += until;
    return true;
}

static bool walk_step(struct escaped_walk *w, struct arena *arena)
{
    struct slice rest = slice_skip(w->path, w->at_path);
    struct slice pattern = slice_skip(w->pattern, w->at_pattern);
    bool escaped = rest.ptr[0] == '%' && rest.len >= 3;
    size_t used = escaped ? 3 : 1;
    if (pattern.ptr[0] == '%' && pattern.len >= 3 && pattern.ptr[1] != '*') {
        if (escaped)
            put(w, slice_take(rest, 3));
        w->at_path += used;
        w->at_pattern += 3;
        return true;
    }
    bool raw = pattern.ptr[0] == '%';
    if (raw || pattern.ptr[0] == '*') {
        w->at_pattern += raw;
        if (!walk_star(w, raw, arena))
            return false;
    } else {
        put(w, decoded(slice_take(rest, used), arena));
        w->at_path += used;
    }
    w->at_pattern++;
    return true;
}

static bool match_escaped(struct slice pattern, struct slice path, struct arena *arena)
{
    struct escaped_walk w = {.pattern = pattern, .path = lower(path, arena)};
    w.out = arena_alloc(arena, path.len + 1);
    while (w.at_pattern < pattern.len && w.at_path < path.len) {
        if (!walk_step(&w, arena))
            return false;
    }
    put(&w, decoded(slice_skip(w.path, w.at_path), arena));
    char *globs = arena_alloc(arena, pattern.len + 1);
    size_t n = 0;
    for (size_t i = 0; i < pattern.len; i++) {
        if (pattern.ptr[i] != '%' || i + 1 == pattern.len || pattern.ptr[i + 1] != '*')
            globs[n++] = pattern.ptr[i];
    }
    return glob_match(slice_of(globs, n), lower(slice_of(w.out, w.len), arena));
}

/* The path in the form that patterns are compared with. Most paths are clean and lower case. */
static struct slice normal_path(struct slice path, bool merge, struct arena *arena)
{
    bool plain = true;
    for (size_t i = 0; plain && i < path.len; i++) {
        char c = path.ptr[i];
        plain = !(c >= 'A' && c <= 'Z') && !(c == '/' && i + 1 < path.len &&
                                              (path.ptr[i + 1] == '/' || path.ptr[i + 1] == '.'));
    }
    return plain ? path : uri_clean(lower(path, arena), merge, arena);
}

static enum err match(const void *cfg, struct exchange *x, bool *matches)
{
    const struct match_path *m = cfg;
    *matches = false;
    for (size_t i = 0; i < m->count && !*matches; i++) {
        const struct path_pattern *p = &m->patterns[i];
        struct slice pattern = template_expand(&p->text, x);
        bool merge = slice_find_slice(pattern, SLICE("//")) == SIZE_MAX;
        if (p->all || slice_is(pattern, "*"))
            *matches = true;
        else if (slice_find(pattern, '%') != SIZE_MAX)
            *matches = match_escaped(pattern, uri_clean(x->req.uri.raw_path, merge, x->arena),
                                     x->arena);
        else
            *matches = match_plain(pattern, normal_path(x->req.uri.path, merge, x->arena));
    }
    return OK;
}

const struct module matcher_path = {
    .id = "http.matchers.path",
    .cfg_size = sizeof(struct match_path),
    .provision = provision,
    .match = match,
};
