/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file_server: files below a root, with Caddy's choice of what is served: index files, hidden
 * names, redirects to the canonical form of a path, sidecar files that are compressed already.
 * Small files are sent from the worker's open-file cache, large ones with sendfile.
 *
 *     {"handler": "file_server", "root": "/srv/www", "hide": [".git"], "index_names": ["index.html"],
 *      "canonical_uris": true, "status_code": 200, "pass_thru": false,
 *      "precompressed": {"gzip": {}}, "precompressed_order": ["gzip"]}
 */
#include <stdlib.h>

#include "files/path.h"
#include "handlers/file_lookup.h"
#include "handlers/file_send.h"
#include "handlers/handlers.h"
#include "http/route.h"
#include "http/uri.h"

enum { CODINGS_MAX = 3 };

struct coding {
    struct slice name, suffix;
};

static const struct coding known_codings[CODINGS_MAX] = {
    {{"gzip", 4}, {".gz", 3}}, {{"br", 2}, {".br", 3}}, {{"zstd", 4}, {".zst", 4}}};

struct file_server {
    struct template root, status;
    struct template *hide, *index;
    size_t hide_count, index_count;
    struct coding codings[CODINGS_MAX]; /* wanted, in order of preference */
    size_t codings_count;
    struct slice folder; /* the process's, for relative roots */
    bool canonical, pass_thru, has_status;
};

static const char *const members[] = {
    "fs", "root", "hide", "index_names", "browse", "canonical_uris", "status_code", "pass_thru",
    "precompressed", "precompressed_order", "etag_file_extensions", NULL};

/* --- provision --- */

static enum err read_templates(struct provision *p, const json_t *json, const char *key,
                               struct template **out, size_t *count)
{
    struct slice *texts;
    TRY(provision_texts(p, json, key, &texts, count));
    *out = ARENA_ARRAY(p->arena, struct template, *count + 2);
    for (size_t i = 0; i < *count; i++)
        template_compile(&(*out)[i], texts[i], p->arena);
    return OK;
}

static enum err add_coding(struct file_server *f, struct slice name, struct provision *p)
{
    for (size_t i = 0; i < f->codings_count; i++) {
        if (slice_eq(f->codings[i].name, name))
            return OK;
    }
    for (size_t i = 0; i < CODINGS_MAX; i++) {
        if (!slice_eq(known_codings[i].name, name))
            continue;
        f->codings[f->codings_count++] = known_codings[i];
        return OK;
    }
    return provision_fail(p, "precompressed: unknown coding " SLICE_FMT, SLICE_ARG(name));
}

static enum err read_codings(struct file_server *f, const json_t *json, struct provision *p)
{
    struct slice *order;
    size_t count;
    const char *name;
    json_t *value;
    const json_t *wanted = json_object_get(json, "precompressed");
    TRY(provision_texts(p, json, "precompressed_order", &order, &count));
    for (size_t i = 0; i < count; i++) {
        if (json_object_getn(wanted, order[i].ptr, order[i].len) != NULL)
            TRY(add_coding(f, order[i], p));
    }
    json_object_foreach((json_t *)(uintptr_t)wanted, name, value)
        TRY(add_coding(f, slice_from(name), p));
    return OK;
}

static enum err refuse_unfinished(const json_t *json, struct provision *p)
{
    static const char *const unfinished[] = {"browse", "etag_file_extensions", NULL};
    for (const char *const *name = unfinished; *name != NULL; name++) {
        if (json_object_get(json, *name) != NULL)
            return provision_fail(p, "\"%s\" is not supported yet", *name);
    }
    return OK;
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct file_server *f = cfg;
    TRY(provision_members(p, json, members));
    TRY(refuse_unfinished(json, p));
    TRY(provision_template(p, json, "root", SLICE("{http.vars.root}"), &f->root));
    TRY(provision_template(p, json, "status_code", SLICE(""), &f->status));
    f->has_status = f->status.text.len > 0;
    TRY(provision_bool(p, json, "canonical_uris", true, &f->canonical));
    TRY(provision_bool(p, json, "pass_thru", false, &f->pass_thru));
    TRY(read_templates(p, json, "hide", &f->hide, &f->hide_count));
    TRY(read_templates(p, json, "index_names", &f->index, &f->index_count));
    if (json_object_get(json, "index_names") == NULL) {
        template_compile(&f->index[0], SLICE("index.html"), p->arena);
        template_compile(&f->index[1], SLICE("index.txt"), p->arena);
        f->index_count = 2;
    }
    TRY(file_lookup_folder(p, &f->folder));
    TRY(file_lookup_fs(p, json));
    return read_codings(f, json, p);
}

/* --- names --- */

/* The absolute name below the root, without a slash at the end. */
static struct slice join_path(const struct file_server *f, struct exchange *x)
{
    struct slice root = template_expand_or(&f->root, x, SLICE("."));
    struct slice path = path_join(root, x->req.uri.path, x->arena);
    while (path.len > 1 && path.ptr[path.len - 1] == '/')
        path.len--;
    return path_absolute(f->folder, path, x->arena);
}

static bool hidden(const struct file_server *f, struct slice file, struct exchange *x)
{
    for (size_t i = 0; i < f->hide_count; i++) {
        struct slice pattern = template_expand(&f->hide[i], x);
        if (slice_find(pattern, '/') != SIZE_MAX)
            pattern = path_clean(path_absolute(f->folder, pattern, x->arena), x->arena);
        if (pattern.len > 0 && path_hidden_by(pattern, file))
            return true;
    }
    return false;
}

/* --- serving --- */

static enum err not_found(const struct file_server *f, struct exchange *x, const struct chain *next)
{
    return f->pass_thru ? chain_next(x, next) : exchange_fail(x, 404, "");
}

static enum err fail_open(const struct file_server *f, enum err e, struct exchange *x,
                          const struct chain *next)
{
    if (e == ERR_NOT_FOUND)
        return not_found(f, x, next);
    if (e == ERR_DENIED)
        return exchange_fail(x, 403, "permission denied");
    if (e == ERR_INVALID)
        return exchange_fail(x, 400, "invalid file name");
    if (e != ERR_LIMIT)
        return exchange_fail(x, 500, err_text(e));
    fields_set(&x->res.fields, SLICE("Retry-After"), SLICE("3"));
    return exchange_fail(x, 503, "no descriptor or memory left to open a file");
}

static struct slice base_name(struct slice path)
{
    while (path.len > 1 && path.ptr[path.len - 1] == '/')
        path.len--;
    size_t slash = slice_find_last(path, '/');
    return slash == SIZE_MAX || path.len == 1 ? path : slice_skip(path, slash + 1);
}

/* Only of the same origin: what begins with two slashes would be another host. */
static enum err redirect(struct exchange *x, struct slice path)
{
    while (slice_starts(path, SLICE("//")))
        path = slice_skip(path, 1);
    struct slice to = uri_escape_path(path, x->arena);
    if (x->req.uri.query.len > 0)
        to = arena_join(x->arena, (struct slice[]){to, SLICE("?"), x->req.uri.query}, 3);
    fields_set(&x->res.fields, SLICE("Location"), to);
    return exchange_answer(x, 308, SLICE(""));
}

/* True when it answered: folders end in a slash, files do not, unless a rewrite chose the name. */
static bool canonical_redirect(const struct file_server *f, bool is_index, struct exchange *x,
                               enum err *e)
{
    struct slice path = x->req.original_uri.path;
    bool slash = path.len > 0 && path.ptr[path.len - 1] == '/';
    if (!f->canonical || slash == is_index ||
        !slice_eq(base_name(path), base_name(x->req.uri.path)))
        return false;
    struct slice to = is_index ? arena_join(x->arena, (struct slice[]){path, SLICE("/")}, 2)
                               : slice_take(path, path.len - 1);
    *e = redirect(x, to);
    return true;
}

/* The first index file of a folder; NULL when there is none. */
static struct open_file *open_index(const struct file_server *f, struct slice folder,
                                    struct exchange *x)
{
    for (size_t i = 0; i < f->index_count; i++) {
        struct slice name = template_expand(&f->index[i], x);
        struct slice path = arena_join(x->arena, (struct slice[]){folder, SLICE("/"), name}, 3);
        if (hidden(f, path, x))
            continue;
        struct open_file *file = file_lookup(path);
        if (file->error == OK && !file->is_dir)
            return file;
        open_file_unref(file);
    }
    return NULL;
}

/* The q of a coding in Accept-Encoding, in thousandths; 0: not accepted. */
static int accepted(struct slice list, struct slice coding)
{
    struct slice item, name, rest;
    for (bool more = list.len > 0; more;) {
        more = slice_cut(list, ',', &item, &list);
        slice_cut(item, ';', &name, &rest);
        if (!slice_eq_nocase(slice_trim(name), coding))
            continue;
        rest = slice_trim(rest);
        if (!slice_starts_nocase(rest, SLICE("q=")))
            return 1000;
        char number[16];
        snprintf(number, sizeof number, SLICE_FMT, SLICE_ARG(slice_take(slice_skip(rest, 2), 15)));
        double q = strtod(number, NULL);
        return q >= 0 && q <= 1 ? (int)(q * 1000) : 1000;
    }
    return 0;
}

/* The best sidecar that is there; NULL for none. */
static struct open_file *open_sidecar(const struct file_server *f, const struct open_file *file,
                                      struct exchange *x)
{
    struct slice list;
    bool tried[CODINGS_MAX] = {false};
    if (f->codings_count == 0 || !fields_get(&x->req.fields, SLICE("Accept-Encoding"), &list))
        return NULL;
    for (size_t round = 0; round < f->codings_count; round++) {
        size_t best = SIZE_MAX;
        int best_q = 0;
        for (size_t i = 0; i < f->codings_count; i++) {
            int q = tried[i] ? 0 : accepted(list, f->codings[i].name);
            if (q > best_q) {
                best_q = q;
                best = i;
            }
        }
        if (best == SIZE_MAX)
            return NULL;
        tried[best] = true;
        struct open_file *sidecar = file_lookup(arena_join(
            x->arena, (struct slice[]){file->path, f->codings[best].suffix}, 2));
        if (sidecar->error == OK && !sidecar->is_dir) {
            fields_set(&x->res.fields, SLICE("Content-Encoding"), f->codings[best].name);
            return sidecar;
        }
        open_file_unref(sidecar);
    }
    return NULL;
}

static enum err choose_status(const struct file_server *f, struct exchange *x, int *status)
{
    *status = x->error.status; /* within error routes: the error's */
    if (!f->has_status || template_status(&f->status, x, status))
        return OK;
    return exchange_fail(x, 500, "file_server: the status code is not a number from 100 to 999");
}

static enum err send_file(const struct file_server *f, struct open_file *file, struct exchange *x)
{
    struct slice given;
    int status;
    fields_add(&x->res.fields, SLICE("Vary"), SLICE("Accept-Encoding"));
    struct open_file *sidecar = open_sidecar(f, file, x);
    struct open_file *body = sidecar != NULL ? sidecar : file;
    if (sidecar != NULL)
        file_lookup_hold(x, sidecar);
    if (x->req.method_id != METHOD_GET && x->req.method_id != METHOD_HEAD && x->error.status == 0) {
        fields_add(&x->res.fields, SLICE("Allow"), SLICE("GET, HEAD"));
        return exchange_fail(x, 405, "");
    }
    if (!fields_has(&x->res.fields, SLICE("Etag")) && body->etag[0] != '\0')
        fields_add(&x->res.fields, SLICE("Etag"), slice_from(body->etag));
    if (!fields_get(&x->res.fields, SLICE("Content-Type"), &given)) {
        if (file->mime.len > 0)
            fields_add(&x->res.fields, SLICE("Content-Type"), file->mime);
    }
    TRY(choose_status(f, x, &status));
    return file_send(x, file, body, status);
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    const struct file_server *f = cfg;
    bool is_index = false;
    enum err e;
    struct slice path = join_path(f, x);
    struct open_file *file = file_lookup_for(x, path);
    if (file->error != OK)
        return fail_open(f, file->error, x, next);
    if (file->is_dir) {
        file = open_index(f, path, x);
        if (file == NULL)
            return not_found(f, x, next);
        file_lookup_hold(x, file);
        is_index = true;
    }
    if (hidden(f, file->path, x))
        return not_found(f, x, next);
    if (canonical_redirect(f, is_index, x, &e))
        return e;
    return send_file(f, file, x);
}

const struct module handler_file_server = {
    .id = "http.handlers.file_server",
    .cfg_size = sizeof(struct file_server),
    .provision = provision,
    .serve = serve,
};
