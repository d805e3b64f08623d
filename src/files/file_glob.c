/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pattern is walked segment by segment from the root. Segments that hold no magic are taken as they
 * stand, without reading their folder, so that a folder which may be entered but not read is no
 * obstacle. The depth of the walk is that of the pattern, the names that it looks at are counted.
 */
#include "files/file_glob.h"

#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/glob.h"
#include "base/mem.h"

bool pattern_is_literal(struct slice pattern)
{
    for (size_t i = 0; i < pattern.len; i++) {
        char c = pattern.ptr[i];
        if (c == '*' || c == '?' || c == '[')
            return false;
        if (c == '\\')
            i++;
    }
    return true;
}

size_t pattern_literal(struct slice pattern, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < pattern.len; i++) {
        if (pattern.ptr[i] == '\\' && i + 1 < pattern.len)
            i++;
        out[n++] = pattern.ptr[i];
    }
    return n;
}

struct walk {
    struct file_glob *glob;
    char path[PATH_MAX];
    size_t len;
};

static void add_match(struct walk *w)
{
    struct file_glob *g = w->glob;
    struct stat ignored;
    if (g->count == FILE_GLOB_MATCHES || lstat(w->path, &ignored) != 0)
        return;
    if (g->count == g->cap) {
        g->cap = g->cap > 0 ? g->cap * 2 : 16;
        g->matches = mem_realloc(g->matches, g->cap * sizeof *g->matches);
    }
    g->matches[g->count++] = slice_dup(slice_of(w->path, w->len));
}

/* Appends "/name"; false when the name as a whole grows too long. */
static bool push(struct walk *w, struct slice name)
{
    if (w->len + name.len + 2 > sizeof w->path)
        return false;
    w->path[w->len++] = '/';
    memcpy(w->path + w->len, name.ptr, name.len);
    w->len += name.len;
    w->path[w->len] = '\0';
    return true;
}

static void pop(struct walk *w, size_t len)
{
    w->len = len;
    w->path[len] = '\0';
}

static void descend(struct walk *w, struct slice rest);

static void go_on(struct walk *w, struct slice name, bool more, struct slice rest)
{
    size_t len = w->len;
    if (push(w, name)) {
        if (more)
            descend(w, rest);
        else
            add_match(w);
    }
    pop(w, len);
}

static void read_folder(struct walk *w, struct slice pattern, bool more, struct slice rest)
{
    const struct dirent *entry;
    DIR *folder = opendir(w->len > 0 ? w->path : "/");
    if (folder == NULL)
        return;
    while (w->glob->seen < FILE_GLOB_SEEN && w->glob->count < FILE_GLOB_MATCHES &&
           (entry = readdir(folder)) != NULL) {
        struct slice name = slice_from(entry->d_name);
        w->glob->seen++;
        if (!slice_is(name, ".") && !slice_is(name, "..") && glob_match(pattern, name))
            go_on(w, name, more, rest);
    }
    closedir(folder);
}

/* `rest`: what of the pattern stands behind a slash. Recurses once per segment with magic. */
static void descend(struct walk *w, struct slice rest)
{
    char literal[2 * NAME_MAX + 1]; /* every byte escaped */
    struct slice segment;
    bool more = slice_cut(rest, '/', &segment, &rest);
    if (!pattern_is_literal(segment))
        read_folder(w, segment, more, rest);
    else if (segment.len < sizeof literal)
        go_on(w, slice_of(literal, pattern_literal(segment, literal)), more, rest);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void file_glob_run(void *arg)
{
    struct file_glob *g = arg;
    struct walk w = {.glob = g};
    struct slice pattern = slice_from(g->pattern);
    size_t magic = 0;
    for (size_t i = 0; i < pattern.len; i++)
        magic += pattern.ptr[i] == '/';
    if (pattern.len == 0 || pattern.ptr[0] != '/' || magic > 64) /* the depth of the recursion */
        return;
    descend(&w, slice_skip(pattern, 1));
    if (g->count > 1)
        qsort(g->matches, g->count, sizeof *g->matches, compare);
}

void file_glob_free(struct file_glob *g)
{
    for (size_t i = 0; i < g->count; i++)
        mem_free(g->matches[i]);
    mem_free(g->matches);
    mem_free(g->pattern);
}
