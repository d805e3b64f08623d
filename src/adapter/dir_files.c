/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file_server and try_files.
 */
#include "adapter/directives.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/glob.h"

static enum err read_browse(struct helper *h, json_t *o)
{
    static const char *const sorts[] = {"name", "namedirfirst", "size", "time", "asc", "desc"};
    struct dispenser *d = &h->d;
    struct adapt *a = h->a;
    json_t *browse = j_object(a);
    struct slice template_file;
    int nesting;
    if (json_object_get(o, "browse") != NULL)
        return dispenser_err_f(d, "browsing is already configured");
    j_set(a, o, "browse", browse);
    if (dispenser_args(d, &template_file))
        j_put_text(a, browse, "template_file", template_file);
    nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        if (dispenser_val_is(d, "reveal_symlinks")) {
            if (json_object_get(browse, "reveal_symlinks") != NULL)
                return dispenser_err_f(d, "Symlinks path reveal is already enabled");
            j_put_bool(a, browse, "reveal_symlinks", true);
        } else if (dispenser_val_is(d, "sort")) {
            while (dispenser_next_arg(d)) {
                size_t i = 0;
                while (i < 6 && !dispenser_val_is(d, sorts[i]))
                    i++;
                if (i == 6)
                    return dispenser_err_f(d, "unknown sort option '" SLICE_FMT "'",
                                           SLICE_ARG(dispenser_val(d)));
                j_add_to_list(a, browse, SLICE("sort"), j_text(a, dispenser_val(d)));
            }
        } else if (dispenser_val_is(d, "file_limit")) {
            struct slice limit;
            int64_t n = 0;
            if (!dispenser_all_args(d, &limit))
                return dispenser_err_f(d, "file_limit should have an integer value");
            if (json_object_get(browse, "file_limit") != NULL)
                return dispenser_err_f(d, "file_limit is already enabled");
            (void)slice_to_i64(limit, &n); /* Caddy takes what is no number for no limit */
            j_put_int(a, browse, "file_limit", n);
        } else {
            return dispenser_err_f(d, "unknown subdirective '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        }
    }
    return OK;
}

static enum err read_precompressed(struct helper *h, json_t *o)
{
    static struct slice all[] = {{"br", 2}, {"zstd", 4}, {"gzip", 4}};
    struct slice *formats;
    size_t count = dispenser_remaining_args(&h->d, &formats);
    if (count == 0) {
        formats = all;
        count = 3;
    }
    json_t *modules = j_at(h->a, o, "precompressed");
    for (size_t i = 0; i < count; i++) {
        if (!slice_is(formats[i], "br") && !slice_is(formats[i], "zstd") &&
            !slice_is(formats[i], "gzip"))
            return dispenser_err_f(&h->d,
                                   "getting module named 'http.precompressed." SLICE_FMT
                                   "': module not registered: http.precompressed." SLICE_FMT,
                                   SLICE_ARG(formats[i]), SLICE_ARG(formats[i]));
        j_set_key(h->a, modules, formats[i], j_object(h->a));
    }
    j_put_strings(h->a, o, "precompressed_order", formats, count);
    return OK;
}

static enum err file_option(struct helper *h, json_t *o)
{
    static const struct option options[] = {
        {"index", OPTION_TEXTS, "index_names", NULL},
        {"root", OPTION_TEXT, "root", NULL},
        {"disable_canonical_uris", OPTION_OFF, "canonical_uris", NULL},
        {"pass_thru", OPTION_FLAG, "pass_thru", NULL},
        {"etag_file_extensions", OPTION_TEXTS, "etag_file_extensions", NULL},
        {0},
    };
    struct dispenser *d = &h->d;
    bool known;
    TRY(option_read(h->a, d, options, o, &known));
    if (known)
        return OK;
    if (dispenser_val_is(d, "status")) {
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        j_put_weak(h->a, o, "status_code", dispenser_val(d));
        return OK;
    }
    if (dispenser_val_is(d, "browse"))
        return read_browse(h, o);
    if (dispenser_val_is(d, "precompressed"))
        return read_precompressed(h, o);
    if (dispenser_val_is(d, "hide")) {
        struct slice *args;
        size_t count = dispenser_remaining_args(d, &args);
        if (count == 0)
            return dispenser_arg_err(d);
        for (size_t i = 0; i < count; i++)
            j_add_to_list(h->a, o, SLICE("hide"), j_text(h->a, args[i]));
        return OK;
    }
    if (dispenser_val_is(d, "fs")) {
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        if (json_object_get(o, "fs") != NULL)
            return dispenser_err_f(d, "file system already specified");
        j_put_text(h->a, o, "fs", dispenser_val(d));
        return OK;
    }
    return dispenser_err_f(d, "unknown subdirective '" SLICE_FMT "'", SLICE_ARG(dispenser_val(d)));
}

/* Go's filepath.Clean. */
static struct slice clean_path(struct arena *arena, struct slice path)
{
    bool rooted = slice_starts(path, SLICE("/"));
    char *out = arena_alloc(arena, path.len + 2);
    size_t n = 0, fixed = 0; /* what ".." may not take back */
    struct slice part;
    while (path.len > 0) {
        slice_cut(path, '/', &part, &path);
        if (part.len == 0 || slice_is(part, "."))
            continue;
        bool up = slice_is(part, "..");
        if (up && n > fixed) {
            while (n > fixed && out[--n] != '/')
                ;
            continue;
        }
        if (up && rooted)
            continue;
        if (rooted || n > 0)
            out[n++] = '/';
        memcpy(out + n, part.ptr, part.len);
        n += part.len;
        if (up)
            fixed = n;
    }
    if (n == 0)
        out[n++] = rooted ? '/' : '.';
    return slice_of(out, n);
}

/* As file_server decides it when it runs: `file` is the whole path. */
static bool hides(struct slice pattern, struct slice file)
{
    if (slice_find(pattern, '/') == SIZE_MAX) {
        for (struct slice rest = file, part; rest.len > 0;) {
            slice_cut(rest, '/', &part, &rest);
            if (part.len > 0 && glob_match(pattern, part))
                return true;
        }
        return false;
    }
    return glob_match(pattern, file) || (slice_starts(file, pattern) && file.len > pattern.len &&
                                         file.ptr[pattern.len] == '/');
}

static struct slice whole_path(struct adapt *a, struct slice file)
{
    char folder[4096];
    if (slice_starts(file, SLICE("/")) || a->alone || getcwd(folder, sizeof folder) == NULL)
        return file;
    return clean_path(a->arena, arena_join(a->arena, (struct slice[]){slice_from(folder), SLICE("/"),
                                                                      file}, 3));
}

static int by_text(const void *x, const void *y)
{
    return slice_cmp(*(const struct slice *)x, *(const struct slice *)y);
}

/* A site's own Caddyfiles are never served. */
static void hide_caddyfiles(struct helper *h, json_t *o)
{
    struct slice files[256];
    size_t count = 0;
    const struct server_block *b = h->parent;
    for (size_t s = 0; s < b->segment_count; s++)
        for (size_t t = 0; t < b->segments[s].count && count < 256; t++) {
            struct slice file = b->segments[s].items[t].file;
            size_t i = 0;
            while (i < count && !slice_eq(files[i], file))
                i++;
            if (i == count)
                files[count++] = file;
        }
    qsort(files, count, sizeof *files, by_text);
    for (size_t i = 0; i < count; i++) {
        struct slice file = clean_path(h->a->arena, files[i]), whole = whole_path(h->a, file);
        const json_t *hide = json_object_get(o, "hide");
        bool hidden = false;
        for (size_t k = 0; k < json_array_size(hide) && !hidden; k++) {
            const json_t *p = json_array_get(hide, k);
            hidden = hides(slice_of(json_string_value(p), json_string_length(p)), whole);
        }
        if (hidden)
            continue;
        if (slice_find(file, '/') == SIZE_MAX)
            file = arena_join(h->a->arena, (struct slice[]){SLICE("./"), file}, 2);
        j_add_to_list(h->a, o, SLICE("hide"), j_text(h->a, file));
    }
}

enum err parse_file_server(struct helper *h, json_t **handler)
{
    struct dispenser *d = &h->d;
    struct slice *args;
    json_t *o = *handler = j_object(h->a);
    int nesting;
    dispenser_next(d);
    size_t count = dispenser_remaining_args(d, &args);
    if (count > 1 || (count == 1 && !slice_is(args[0], "browse")))
        return dispenser_arg_err(d);
    if (count == 1)
        j_set(h->a, o, "browse", j_object(h->a));
    nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting))
        TRY(file_option(h, o));
    hide_caddyfiles(h, o);
    return OK;
}

/* --- try_files --- */

static void try_route(struct helper *h, struct values *out, json_t *files, struct slice policy,
                      struct slice query)
{
    struct adapt *a = h->a;
    json_t *file = j_object(a), *set = j_object(a), *rewrite = j_object(a);
    j_set(a, file, "try_files", files);
    j_put_text(a, file, "try_policy", policy);
    j_set(a, set, "file", file);
    j_put_text(a, rewrite, "uri",
               arena_join(a->arena, (struct slice[]){SLICE("{http.matchers.file.relative}"), query},
                          2));
    helper_add_route(h, out, set, rewrite, "rewrite");
}

static enum err read_policy(struct dispenser *d, struct slice *policy)
{
    static const char *const policies[] = {"first_exist", "first_exist_fallback", "largest_size",
                                           "smallest_size", "most_recently_modified"};
    while (dispenser_next_block(d, 0)) {
        if (!dispenser_val_is(d, "policy"))
            continue;
        if (policy->len > 0)
            return dispenser_err_f(d, "try policy already configured");
        if (!dispenser_args(d, policy))
            return dispenser_arg_err(d);
        size_t i = 0;
        while (i < 5 && !slice_is(*policy, policies[i]))
            i++;
        if (i == 5)
            return dispenser_err_f(d, "unrecognized try policy: " SLICE_FMT, SLICE_ARG(*policy));
    }
    return OK;
}

enum err parse_try_files(struct helper *h, struct values *out)
{
    struct dispenser *d = &h->d;
    struct slice *args, policy = SLICE_NONE;
    size_t first = out->count;
    json_t *files = j_array(h->a);
    dispenser_next(d);
    size_t count = dispenser_remaining_args(d, &args);
    if (count == 0)
        return dispenser_arg_err(d);
    TRY(read_policy(d, &policy));
    for (size_t i = 0; i < count; i++) {
        size_t query = slice_find(args[i], '?');
        if (query == SIZE_MAX) {
            j_append_text(h->a, files, args[i]);
            continue;
        }
        struct slice path = slice_take(args[i], query);
        if (json_array_size(files) > 0)
            try_route(h, out, files, policy, SLICE_NONE);
        try_route(h, out, j_strings(h->a, &path, 1), policy, slice_skip(args[i], query));
        files = j_array(h->a);
    }
    if (json_array_size(files) > 0)
        try_route(h, out, files, policy, SLICE_NONE);
    if (out->count - first > 1) {
        struct slice group = next_group(h->a, h->groups);
        for (size_t i = first; i < out->count; i++)
            out->items[i].route.group = group;
    }
    return OK;
}
