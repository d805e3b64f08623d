/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a request asks of a folder: its form (Accept), order (query, cookie, configuration), layout,
 * window, filter. The work itself is a job of the offload pool (listing.c).
 *
 *     "browse": {"sort": ["time", "desc"], "file_limit": 10000, "reveal_symlinks": true}
 *
 * An order that was asked for is kept in cookies of the session, as in Caddy.
 */
#include "handlers/browse.h"

#include <sys/random.h>

#include "base/clock.h"
#include "http/uri.h"
#include "loop/await.h"

static const char *const members[] = {"template_file", "reveal_symlinks", "sort", "file_limit", NULL};
static const char *const sorts[] = {"name", "namedirfirst", "size", "time", NULL};
static const char *const orders[] = {"asc", "desc", NULL};

/* --- provision --- */

static bool find_word(const char *const words[], struct slice word, int *index)
{
    for (int i = 0; words[i] != NULL; i++) {
        if (slice_is(word, words[i])) {
            *index = i;
            return true;
        }
    }
    return false;
}

static enum err read_sort(struct browse *b, const json_t *json, struct provision *p)
{
    struct slice *words;
    size_t count;
    int index;
    TRY(provision_texts(p, json, "sort", &words, &count));
    if (count > 2)
        return provision_fail(p, "only max 2 sort options are allowed, but got %zu", count);
    b->has_sort = count > 0;
    b->has_order = count > 1;
    if (b->has_sort && !find_word(sorts, words[0], &index))
        return provision_fail(p, "the first option must be one of the following: name, "
                              "namedirfirst, size, time, but got " SLICE_FMT, SLICE_ARG(words[0]));
    b->sort = b->has_sort ? (enum listing_sort)index : SORT_NAME_DIR_FIRST;
    if (b->has_order && !find_word(orders, words[1], &index))
        return provision_fail(p, "the second option must be one of the following: asc, desc, but "
                              "got " SLICE_FMT, SLICE_ARG(words[1]));
    b->descending = b->has_order && index == 1;
    return OK;
}

enum err browse_provision(struct browse **out, const json_t *json, struct provision *p)
{
    struct slice template_file;
    struct browse *b = ARENA_NEW(p->arena, struct browse);
    *out = b;
    TRY(provision_members(p, json, members));
    TRY(provision_text(p, json, "template_file", SLICE(""), &template_file));
    if (template_file.len > 0)
        return provision_fail(p, "browse: \"template_file\" is not supported yet");
    TRY(provision_bool(p, json, "reveal_symlinks", false, &b->reveal_symlinks));
    TRY(provision_int(p, json, "file_limit", 0, 0, LISTING_LIMIT_MAX, &b->file_limit));
    if (b->file_limit == 0)
        b->file_limit = LISTING_LIMIT;
    return read_sort(b, json, p);
}

/* --- what is asked for --- */

static struct slice parameter(struct exchange *x, const char *name)
{
    struct slice value = SLICE_NONE;
    (void)query_get(x->req.uri.query, slice_from(name), x->arena, &value);
    return value;
}

static struct slice cookie(struct exchange *x, const char *name)
{
    struct slice value = SLICE_NONE;
    struct slice key = arena_printf(x->arena, "http.request.cookie.%s", name);
    (void)placeholder_get(x, key, &value);
    return value;
}

static void keep_choice(struct exchange *x, const char *name, const char *value)
{
    bool secure = slice_is(x->req.scheme, "https");
    fields_add(&x->res.fields, SLICE("Set-Cookie"),
               arena_printf(x->arena, "%s=%s; HttpOnly;%s SameSite=Lax", name, value,
                            secure ? " Secure;" : ""));
}

/* Query, then configuration, then cookie. */
static void read_order(struct listing *l, const struct browse *b, struct exchange *x)
{
    int index;
    bool chosen = find_word(sorts, parameter(x, "sort"), &index);
    if (chosen || b->has_sort) {
        l->sort = chosen ? (enum listing_sort)index : b->sort;
        keep_choice(x, "sort", sorts[l->sort]);
    } else if (find_word(sorts, cookie(x, "sort"), &index)) {
        l->sort = (enum listing_sort)index;
    }
    chosen = find_word(orders, parameter(x, "order"), &index);
    if (chosen || b->has_order) {
        l->descending = chosen ? index == 1 : b->descending;
        keep_choice(x, "order", orders[l->descending]);
    } else if (find_word(orders, cookie(x, "order"), &index)) {
        l->descending = index == 1;
    }
}

static bool accepts(const struct exchange *x, const char *type)
{
    struct slice list = fields_joined(&x->req.fields, SLICE("Accept"), x->arena);
    struct slice want = slice_from(type);
    for (size_t i = 0; i + want.len <= list.len; i++) {
        if (slice_eq_nocase(slice_of(list.ptr + i, want.len), want))
            return true;
    }
    return false;
}

static uint64_t number(struct exchange *x, const char *name)
{
    uint64_t n = 0;
    return slice_to_u64(parameter(x, name), INT32_MAX, &n) ? n : 0;
}

/* As the path in the address bar, but clean: links and crumbs begin there. */
static struct slice url_path(struct exchange *x)
{
    struct slice path = uri_clean(uri_escape_path(x->req.uri.path, x->arena), true, x->arena);
    return path.len > 1 && path.ptr[path.len - 1] == '/' ? slice_take(path, path.len - 1) : path;
}

static void make_nonce(char out[33])
{
    unsigned char bytes[16];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        memset(bytes, 0, sizeof bytes); /* the page shows plain, that is all */
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(out + i * 2, 3, "%02x", bytes[i]);
}

static void on_end(struct exchange *x, void *listing)
{
    (void)x;
    listing_deinit(listing);
}

static struct listing *make_listing(const struct browse *b, struct exchange *x,
                                    struct slice folder, const struct slice *hide, size_t count)
{
    struct slice since;
    struct listing *l = ARENA_NEW(x->arena, struct listing);
    listing_init(l);
    exchange_on_end(x, on_end, l);
    l->folder = arena_str(x->arena, folder);
    l->url_path = url_path(x);
    l->hide = hide;
    l->hide_count = count;
    l->file_limit = (size_t)b->file_limit;
    l->reveal_symlinks = b->reveal_symlinks;
    l->form = accepts(x, "application/json") ? FORM_JSON
              : accepts(x, "text/plain")     ? FORM_TEXT
                                             : FORM_HTML;
    l->grid = slice_is(parameter(x, "layout"), "grid");
    l->offset = number(x, "offset");
    l->limit = number(x, "limit");
    l->filter = parameter(x, "filter");
    if (!fields_get(&x->req.fields, SLICE("If-Modified-Since"), &since) ||
        !clock_parse_http_date(since, &l->unless_newer_s))
        l->unless_newer_s = INT64_MIN;
    make_nonce(l->nonce);
    return l;
}

/* --- the answer --- */

static void put_fields(struct exchange *x, const struct listing *l)
{
    static const char *const types[] = {"text/html; charset=utf-8",
                                        "application/json; charset=utf-8",
                                        "text/plain; charset=utf-8"};
    char *date = arena_alloc(x->arena, HTTP_DATE_LEN);
    clock_http_date(l->modified_s, date);
    fields_set(&x->res.fields, SLICE("Last-Modified"), slice_of(date, HTTP_DATE_LEN));
    fields_set(&x->res.fields, SLICE("Content-Type"), slice_from(types[l->form]));
    if (l->form != FORM_HTML || fields_has(&x->res.fields, SLICE("Content-Security-Policy")))
        return;
    fields_add(&x->res.fields, SLICE("Content-Security-Policy"),
               arena_printf(x->arena, "default-src 'none'; img-src 'self'; style-src 'nonce-%s'; "
                            "script-src 'nonce-%s'; base-uri 'none'; form-action 'self'; "
                            "frame-ancestors 'self'", l->nonce, l->nonce));
}

enum err browse_serve(const struct browse *b, struct exchange *x, struct slice folder,
                      const struct slice *hide, size_t hide_count)
{
    if (x->req.method_id != METHOD_GET && x->req.method_id != METHOD_HEAD && x->error.status == 0) {
        fields_add(&x->res.fields, SLICE("Allow"), SLICE("GET, HEAD"));
        return exchange_fail(x, 405, "");
    }
    struct listing *l = make_listing(b, x, folder, hide, hide_count);
    read_order(l, b, x);
    enum err e = await_offload(listing_run, l);
    if (e == ERR_LIMIT)
        return exchange_fail(x, 503, "too many folders are being read");
    TRY(e);
    if (l->error == ERR_DENIED)
        return exchange_fail(x, 403, "permission denied");
    if (l->error == ERR_NOT_FOUND)
        return ERR_NOT_FOUND;
    if (l->error != OK)
        return exchange_fail(x, 500, err_text(l->error));
    fields_add(&x->res.fields, SLICE("Vary"), SLICE("Accept, Accept-Encoding"));
    if (l->not_modified) {
        x->res.status = 304;
        x->res.content_length = -1;
        return exchange_head(x);
    }
    put_fields(x, l);
    return exchange_answer(x, 200, buffer_slice(&l->body));
}
