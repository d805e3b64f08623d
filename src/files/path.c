/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The usual name is clean already, so each function first looks whether there is work at all; then
 * joining is one copy.
 */
#include "files/path.h"

#include "base/glob.h"

/* Whether path.Clean would leave it: one look at each byte. */
static bool is_clean(struct slice path)
{
    if (path.len == 0 || (path.len > 1 && path.ptr[path.len - 1] == '/'))
        return false;
    for (size_t i = 0; i + 1 < path.len; i++) {
        if (path.ptr[i] == '/' && (path.ptr[i + 1] == '/' || path.ptr[i + 1] == '.'))
            return false; /* perhaps a hidden file's dot: the long way decides */
    }
    return path.ptr[0] != '.';
}

/* Drops the last segment; true unless there is none that may go. */
static bool back_up(char *out, size_t *n, size_t floor)
{
    if (*n <= floor)
        return false;
    size_t at = *n;
    while (at > floor && out[at - 1] != '/')
        at--;
    *n = at > floor ? at - 1 : floor;
    return true;
}

struct slice path_clean(struct slice path, struct arena *arena)
{
    if (is_clean(path))
        return path;
    bool rooted = path.len > 0 && path.ptr[0] == '/';
    char *out = arena_alloc(arena, path.len + 2);
    size_t n = 0, floor;
    if (rooted)
        out[n++] = '/';
    floor = n;
    for (size_t i = 0; i < path.len;) {
        size_t start = i;
        while (i < path.len && path.ptr[i] != '/')
            i++;
        struct slice segment = slice_of(path.ptr + start, i - start);
        i++;
        if (segment.len == 0 || slice_is(segment, "."))
            continue;
        bool up = slice_is(segment, "..");
        if (up && (back_up(out, &n, floor) || rooted))
            continue;
        if (n > (rooted ? 1u : 0u))
            out[n++] = '/';
        memcpy(out + n, segment.ptr, segment.len);
        n += segment.len;
        floor = up ? n : floor; /* only where it is not rooted: leading ".." stay */
    }
    if (n == 0)
        out[n++] = '.';
    return slice_of(out, n);
}

struct slice path_join(struct slice root, struct slice path, struct arena *arena)
{
    bool slash_end = path.len > 1 && path.ptr[path.len - 1] == '/';
    struct slice rooted = path;
    if (path.len == 0 || path.ptr[0] != '/')
        rooted = arena_join(arena, (struct slice[]){SLICE("/"), path}, 2);
    rooted = path_clean(rooted, arena);
    root = root.len > 0 ? path_clean(root, arena) : SLICE(".");
    bool top = slice_is(root, "/"), here = slice_is(root, ".");
    struct slice end = slash_end ? SLICE("/") : SLICE("");
    if (rooted.len == 1)
        return slash_end ? arena_join(arena, (struct slice[]){root, end}, 2) : root;
    if (here)
        rooted = slice_skip(rooted, 1);
    return arena_join(arena, (struct slice[]){top || here ? SLICE("") : root, rooted, end}, 3);
}

struct slice path_absolute(struct slice folder, struct slice path, struct arena *arena)
{
    if (path.len > 0 && path.ptr[0] == '/')
        return path;
    return path_clean(arena_join(arena, (struct slice[]){folder, SLICE("/"), path}, 3), arena);
}

static bool any_component(struct slice pattern, struct slice file)
{
    struct slice part;
    for (bool more = true; more;) {
        more = slice_cut(file, '/', &part, &file);
        if (glob_match(pattern, part))
            return true;
    }
    return false;
}

bool path_hidden_by(struct slice pattern, struct slice file)
{
    if (slice_find(pattern, '/') == SIZE_MAX)
        return any_component(pattern, file) || glob_match(pattern, file);
    if (slice_starts(file, pattern) && file.len > pattern.len && file.ptr[pattern.len] == '/')
        return true;
    return glob_match(pattern, file);
}
