/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file: whether one of some files exists, which are tried in order or compared by size or age. It
 * tells the one it chose in {http.matchers.file.relative}, .absolute, .type ("file", "directory")
 * and .remainder (what stood behind the split). Folders match only where the pattern ends in '/'.
 *
 *     "file": {"root": "/srv", "try_files": ["{http.request.uri.path}", "/index.php", "=404"],
 *              "try_policy": "first_exist", "split_path": [".php"]}
 *
 * Files are looked up in the open-file cache, so that trying what exists and was looked at lately
 * costs no system call. Stars in a pattern's own text are looked up on the offload pool; what a
 * placeholder brings in never counts as a star.
 */
#include "files/file_glob.h"
#include "files/path.h"
#include "handlers/file_lookup.h"
#include "handlers/handlers.h"
#include "loop/await.h"

enum policy { FIRST_EXIST, FIRST_EXIST_FALLBACK, SMALLEST, LARGEST, MOST_RECENT };

struct try_file {
    struct template pattern;
    bool slash_end, magic; /* its own text has a star, a '?' or a class */
    int status;            /* "=404"; 0: none */
};

struct match_file {
    struct template root;
    struct slice folder;
    struct try_file *tries;
    size_t tries_count;
    struct slice *splits;
    size_t splits_count;
    enum policy policy;
};

/* A walk over the candidates and the best one so far. */
struct choice {
    const struct match_file *m;
    struct exchange *x;
    struct slice root;
    bool found, is_dir;
    struct slice path, remainder;
    uint64_t size;
    int64_t mtime_ns;
};

static const char *const members[] = {"fs", "root", "try_files", "try_policy", "split_path", NULL};
static const char *const policies[] = {"first_exist", "first_exist_fallback", "smallest_size",
                                       "largest_size", "most_recently_modified"};

/* --- provision --- */

static enum err read_policy(struct match_file *m, const json_t *json, struct provision *p)
{
    struct slice name;
    TRY(provision_text(p, json, "try_policy", SLICE("first_exist"), &name));
    for (size_t i = 0; i < sizeof policies / sizeof policies[0]; i++) {
        if (slice_is(name, policies[i]) || name.len == 0) {
            m->policy = (enum policy)i;
            return OK;
        }
    }
    return provision_fail(p, "unknown try policy " SLICE_FMT, SLICE_ARG(name));
}

static void read_try(struct try_file *t, struct slice text, struct arena *arena)
{
    uint64_t status;
    template_compile(&t->pattern, text, arena);
    t->slash_end = text.len > 0 && text.ptr[text.len - 1] == '/';
    t->magic = !pattern_is_literal(text);
    if (text.len > 1 && text.ptr[0] == '=' && slice_to_u64(slice_skip(text, 1), 999, &status) &&
        status >= 100)
        t->status = (int)status;
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct match_file *m = cfg;
    struct slice *texts, whole_path = SLICE("{http.request.uri.path}");
    TRY(provision_members(p, json, members));
    TRY(file_lookup_fs(p, json));
    TRY(file_lookup_folder(p, &m->folder));
    TRY(provision_template(p, json, "root", SLICE("{http.vars.root}"), &m->root));
    if (m->root.text.len == 0)
        template_compile(&m->root, SLICE("{http.vars.root}"), p->arena);
    TRY(provision_texts(p, json, "try_files", &texts, &m->tries_count));
    if (m->tries_count == 0 && json_object_get(json, "try_files") == NULL) {
        texts = &whole_path;
        m->tries_count = 1;
    }
    m->tries = ARENA_ARRAY(p->arena, struct try_file, m->tries_count + 1);
    for (size_t i = 0; i < m->tries_count; i++)
        read_try(&m->tries[i], texts[i], p->arena);
    TRY(provision_texts(p, json, "split_path", &m->splits, &m->splits_count));
    return read_policy(m, json, p);
}

/* --- names --- */

/* What a value brings in stands for itself. */
static struct slice escape_magic(struct exchange *x, struct slice name, struct slice value)
{
    (void)name;
    size_t more = 0;
    for (size_t i = 0; i < value.len; i++)
        more += strchr("*?[\\", value.ptr[i]) != NULL && value.ptr[i] != '\0';
    if (more == 0)
        return value;
    char *out = arena_alloc(x->arena, value.len + more);
    size_t n = 0;
    for (size_t i = 0; i < value.len; i++) {
        if (value.ptr[i] != '\0' && strchr("*?[\\", value.ptr[i]) != NULL)
            out[n++] = '\\';
        out[n++] = value.ptr[i];
    }
    return slice_of(out, n);
}

static struct slice without_escapes(struct slice pattern, struct arena *arena)
{
    if (slice_find(pattern, '\\') == SIZE_MAX)
        return pattern;
    char *out = arena_alloc(arena, pattern.len);
    return slice_of(out, pattern_literal(pattern, out));
}

static size_t find_nocase(struct slice in, struct slice what)
{
    for (size_t i = 0; i + what.len <= in.len; i++) {
        if (slice_eq_nocase(slice_of(in.ptr + i, what.len), what))
            return i;
    }
    return SIZE_MAX;
}

/* Cuts behind the first place of a delimiter, if that is the end of a path component. */
static struct slice split(const struct match_file *m, struct slice path, struct slice *remainder)
{
    *remainder = SLICE_NONE;
    for (size_t i = 0; i < m->splits_count; i++) {
        size_t at = find_nocase(path, m->splits[i]);
        if (at == SIZE_MAX)
            continue;
        at += m->splits[i].len;
        if (at < path.len && path.ptr[at] != '/')
            continue;
        *remainder = slice_skip(path, at);
        return slice_take(path, at);
    }
    return path;
}

/* --- choosing --- */

static void take(struct choice *c, struct slice path, struct slice remainder,
                 const struct open_file *f)
{
    c->found = true;
    c->path = path;
    c->remainder = remainder;
    c->is_dir = f != NULL && f->is_dir;
    c->size = f != NULL ? f->size : 0;
    c->mtime_ns = f != NULL ? f->mtime_ns : 0;
}

static bool better(const struct choice *c, const struct open_file *f, bool slash_end)
{
    switch (c->m->policy) {
    case SMALLEST:
        return !c->found || f->size < c->size;
    case LARGEST:
        return f->size > (c->found ? c->size : 0);
    case MOST_RECENT:
        return !c->found || f->mtime_ns > c->mtime_ns;
    default:
        return f->is_dir == slash_end;
    }
}

static void consider(struct choice *c, struct slice path, struct slice remainder)
{
    bool slash_end = path.len > 0 && path.ptr[path.len - 1] == '/';
    struct slice name = path;
    while (name.len > 1 && name.ptr[name.len - 1] == '/')
        name.len--;
    struct open_file *f = file_lookup(path_absolute(c->m->folder, name, c->x->arena));
    if (f->exists && better(c, f, slash_end))
        take(c, path, remainder, f);
    open_file_unref(f);
}

static bool settled(const struct choice *c)
{
    return c->found && c->m->policy <= FIRST_EXIST_FALLBACK;
}

/* Caddy's names of a relative root are relative; so are these. */
static struct slice as_root_spelled(const struct choice *c, struct slice absolute)
{
    if (c->root.len > 0 && c->root.ptr[0] == '/')
        return absolute;
    if (slice_starts(absolute, c->m->folder) && absolute.len > c->m->folder.len)
        return slice_skip(absolute, c->m->folder.len + (c->m->folder.len > 1));
    return absolute;
}

static enum err consider_matches(struct choice *c, struct slice pattern, struct slice remainder)
{
    struct file_glob g = {.pattern = slice_dup(path_absolute(c->m->folder, pattern, c->x->arena))};
    enum err e = await_offload(file_glob_run, &g);
    for (size_t i = 0; e == OK && i < g.count && !settled(c); i++) {
        struct slice match = arena_copy(c->x->arena, slice_from(g.matches[i]));
        consider(c, as_root_spelled(c, match), remainder);
    }
    file_glob_free(&g);
    return e;
}

static enum err try_one(struct choice *c, const struct try_file *t, bool last)
{
    struct arena *arena = c->x->arena;
    struct slice remainder, text = template_expand_encoded(&t->pattern, c->x, escape_magic);
    struct slice before = split(c->m, path_clean(text, arena), &remainder);
    if (t->slash_end)
        before = arena_join(arena, (struct slice[]){before, SLICE("/")}, 2);
    remainder = without_escapes(remainder, arena);
    if (t->magic && !pattern_is_literal(before))
        return consider_matches(c, path_join(c->root, before, arena), remainder);
    struct slice path = path_join(c->root, without_escapes(before, arena), arena);
    if (last && c->m->policy == FIRST_EXIST_FALLBACK)
        take(c, path, remainder, NULL);
    else
        consider(c, path, remainder);
    return OK;
}

static void tell(const struct choice *c)
{
    struct slice relative = c->path;
    if (c->root.len > 1 && slice_starts(c->path, c->root))
        relative = slice_skip(c->path, c->root.len);
    if (relative.len == 0 || relative.ptr[0] != '/')
        relative = arena_join(c->x->arena, (struct slice[]){SLICE("/"), relative}, 2);
    exchange_set_var(c->x, SLICE("http.matchers.file.relative"), relative);
    exchange_set_var(c->x, SLICE("http.matchers.file.absolute"), c->path);
    exchange_set_var(c->x, SLICE("http.matchers.file.remainder"), c->remainder);
    exchange_set_var(c->x, SLICE("http.matchers.file.type"),
                     c->is_dir ? SLICE("directory") : SLICE("file"));
}

static enum err match(const void *cfg, struct exchange *x, bool *matches)
{
    const struct match_file *m = cfg;
    struct choice c = {.m = m, .x = x};
    c.root = path_clean(template_expand_or(&m->root, x, SLICE(".")), x->arena);
    for (size_t i = 0; i < m->tries_count && !settled(&c); i++) {
        const struct try_file *t = &m->tries[i];
        if (t->status > 0 && m->policy <= FIRST_EXIST_FALLBACK)
            return exchange_fail(x, t->status, "");
        TRY(try_one(&c, t, i + 1 == m->tries_count));
    }
    *matches = c.found;
    if (c.found)
        tell(&c);
    return OK;
}

const struct module matcher_file = {
    .id = "http.matchers.file",
    .cfg_size = sizeof(struct match_file),
    .provision = provision,
    .match = match,
};
