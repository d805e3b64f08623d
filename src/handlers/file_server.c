/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file_server: files below a root, with Caddy's choice of what is served: index files, hidden
 * names, redirects to the canonical form of a path, sidecar files that are compressed already.
 * Small files are sent from the worker's open-file cache, large ones with sendfile.
 *
 *     {"handler": "file_server", "root": "/srv/www", "hide": [".git"], "index_names": ["index.html"],
 *      "canonical_uris": true, "status_code": 200, "pass_thru": false,
 *      "precompressed": {"gzip": {}}, "precompressed_order": ["gzip"],
 *      "etag_file_extensions": [".sha256"], "browse": {}}
 */
#include <unistd.h>

#include "files/path.h"
#include "handlers/browse.h"
#include "handlers/file_lookup.h"
#include "handlers/file_send.h"
#include "handlers/handlers.h"
#include "http/accept_encoding.h"
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
    struct coding codings[CODINGS_MAX]; /* of sidecars */
    size_t codings_count;
    struct slice *preferred; /* codings, best first, where the client has no preference */
    size_t preferred_count;
    struct slice *etag_suffixes;
    size_t etag_suffixes_count;
    struct browse *browse; /* NULL: no listings */
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

static enum err read_codings(struct file_server *f, const json_t *json, struct provision *p)
{
    const char *name;
    json_t *value;
    size_t i;
    TRY(provision_texts(p, json, "precompressed_order", &f->preferred, &f->preferred_count));
    json_object_foreach(json_object_get(json, "precompressed"), name, value)
    {
        for (i = 0; i < CODINGS_MAX && !slice_is(known_codings[i].name, name); i++) {
        }
        if (i == CODINGS_MAX)
            return provision_fail(p, "precompressed: unknown module http.precompressed.%s", name);
        f->codings[f->codings_count++] = known_codings[i];
    }
    return OK;
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct file_server *f = cfg;
    TRY(provision_members(p, json, members));
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
    TRY(provision_texts(p, json, "etag_file_extensions", &f->etag_suffixes,
                        &f->etag_suffixes_count));
    TRY(read_codings(f, json, p));
    const json_t *browse = json_object_get(json, "browse");
    return browse != NULL && !json_is_null(browse) ? browse_provision(&f->browse, browse, p) : OK;
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

static struct slice hide_pattern(const struct file_server *f, size_t i, struct exchange *x)
{
    struct slice pattern = template_expand(&f->hide[i], x);
    if (slice_find(pattern, '/') == SIZE_MAX)
        return pattern;
    return path_clean(path_absolute(f->folder, pattern, x->arena), x->arena);
}

static bool hidden(const struct file_server *f, struct slice file, struct exchange *x)
{
    for (size_t i = 0; i < f->hide_count; i++) {
        struct slice pattern = hide_pattern(f, i, x);
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

/* For browsers that do not follow, as Go's http.Redirect. */
static struct slice redirect_body(struct slice to, struct exchange *x)
{
    static const char special[] = "&<>\"'";
    static const char *const escaped[] = {"&amp;", "&lt;", "&gt;", "&#34;", "&#39;"};
    char *out = arena_alloc(x->arena, to.len * 5 + 1);
    size_t n = 0;
    for (size_t i = 0; i < to.len; i++) {
        const char *found = to.ptr[i] != '\0' ? strchr(special, to.ptr[i]) : NULL;
        struct slice put = found != NULL ? slice_from(escaped[found - special])
                                         : slice_of(to.ptr + i, 1);
        memcpy(out + n, put.ptr, put.len);
        n += put.len;
    }
    return arena_join(x->arena, (struct slice[]){SLICE("<a href=\""), slice_of(out, n),
                                                 SLICE("\">Permanent Redirect</a>.\n\n")}, 3);
}

/* Only of the same origin: what begins with two slashes would be another host. */
static enum err redirect(struct exchange *x, struct slice path)
{
    path = uri_clean(path, true, x->arena);
    struct slice to = uri_escape_path(path, x->arena);
    if (x->req.uri.query.len > 0)
        to = arena_join(x->arena, (struct slice[]){to, SLICE("?"), x->req.uri.query}, 3);
    fields_set(&x->res.fields, SLICE("Location"), to);
    if (fields_has(&x->res.fields, SLICE("Content-Type")) ||
        (x->req.method_id != METHOD_GET && x->req.method_id != METHOD_HEAD))
        return exchange_answer(x, 308, SLICE(""));
    fields_add(&x->res.fields, SLICE("Content-Type"), SLICE("text/html; charset=utf-8"));
    return exchange_answer(x, 308, redirect_body(to, x));
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

static const struct coding *find_coding(const struct file_server *f, const struct accepted *a)
{
    for (size_t i = 0; i < f->codings_count; i++) {
        if (slice_eq(f->codings[i].name, slice_of(a->name, a->len)))
            return &f->codings[i];
    }
    return NULL;
}

/* The best sidecar that is there; NULL for none. */
static struct open_file *open_sidecar(const struct file_server *f, const struct open_file *file,
                                      struct exchange *x)
{
    struct slice field;
    struct accepted wanted[ACCEPTED_MAX];
    if (f->codings_count == 0 || !fields_get(&x->req.fields, SLICE("Accept-Encoding"), &field))
        return NULL;
    size_t count = accepted_encodings(field, f->preferred, f->preferred_count, wanted);
    for (size_t i = 0; i < count; i++) {
        const struct coding *c = find_coding(f, &wanted[i]);
        if (c == NULL)
            continue;
        struct slice parts[] = {file->path, c->suffix};
        struct open_file *sidecar = file_lookup_for(x, arena_join(x->arena, parts, 2));
        if (sidecar->error != OK || sidecar->is_dir)
            continue;
        fields_set(&x->res.fields, SLICE("Content-Encoding"), c->name);
        return sidecar;
    }
    return NULL;
}

/* The content of the first etag file beside a file, without its line ends; empty when there is
 * none. */
static enum err read_etag(const struct file_server *f, const struct open_file *file,
                          struct exchange *x, struct slice *etag)
{
    char text[1024];
    *etag = SLICE_NONE;
    for (size_t i = 0; i < f->etag_suffixes_count; i++) {
        struct slice parts[] = {file->path, f->etag_suffixes[i]};
        const struct open_file *e = file_lookup_for(x, arena_join(x->arena, parts, 2));
        if (e->error == ERR_NOT_FOUND)
            continue;
        ssize_t n = -1;
        if (e->bytes.ptr != NULL && e->bytes.len < sizeof text)
            memcpy(text, e->bytes.ptr, (size_t)(n = (ssize_t)e->bytes.len));
        else if (e->fd >= 0)
            n = pread(e->fd, text, sizeof text, 0);
        if (n < 0 || n == (ssize_t)sizeof text)
            return exchange_fail_f(x, 500, "cannot read etag from file " SLICE_FMT,
                                   SLICE_ARG(e->path));
        size_t kept = 0;
        for (ssize_t k = 0; k < n; k++) {
            if (text[k] != '\n' && text[k] != '\r')
                text[kept++] = text[k];
        }
        *etag = arena_copy(x->arena, slice_of(text, kept));
        return OK;
    }
    return OK;
}

static enum err put_etag(const struct file_server *f, const struct open_file *body,
                         struct exchange *x)
{
    struct slice etag = SLICE_NONE;
    if (fields_has(&x->res.fields, SLICE("Etag"))) /* chosen by the configuration */
        return OK;
    if (f->etag_suffixes_count > 0)
        TRY(read_etag(f, body, x, &etag));
    if (etag.len == 0)
        etag = slice_from(body->etag);
    if (etag.len > 0)
        fields_add(&x->res.fields, SLICE("Etag"), etag);
    return OK;
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
    if (x->req.method_id != METHOD_GET && x->req.method_id != METHOD_HEAD && x->error.status == 0) {
        fields_add(&x->res.fields, SLICE("Allow"), SLICE("GET, HEAD"));
        return exchange_fail(x, 405, "");
    }
    TRY(put_etag(f, body, x));
    if (!fields_get(&x->res.fields, SLICE("Content-Type"), &given)) {
        if (file->mime.len > 0)
            fields_add(&x->res.fields, SLICE("Content-Type"), file->mime);
    }
    TRY(choose_status(f, x, &status));
    return file_send(x, file, body, status);
}

/* A folder without an index file. Relative links need the slash at the end of its address. */
static enum err serve_folder(const struct file_server *f, struct slice folder, struct exchange *x,
                             const struct chain *next)
{
    struct slice path = x->req.original_uri.path;
    if (f->browse == NULL || hidden(f, folder, x))
        return not_found(f, x, next);
    if ((x->req.uri.path.len == 0 || slice_eq(base_name(path), base_name(x->req.uri.path))) &&
        (path.len == 0 || path.ptr[path.len - 1] != '/'))
        return redirect(x, arena_join(x->arena, (struct slice[]){path, SLICE("/")}, 2));
    struct slice *hide = arena_alloc(x->arena, (f->hide_count + 1) * sizeof *hide);
    for (size_t i = 0; i < f->hide_count; i++)
        hide[i] = hide_pattern(f, i, x);
    enum err e = browse_serve(f->browse, x, folder, hide, f->hide_count);
    return e == ERR_NOT_FOUND ? not_found(f, x, next) : e;
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
            return serve_folder(f, path, x, next);
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
