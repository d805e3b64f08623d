/* SPDX-License-Identifier: Apache-2.0 */
/*
 * php_fastcgi and forward_auth: each a reverse_proxy with most of it said already. They take their
 * own words out of the block and hand on the rest.
 */
#include "adapter/proxy_parts.h"

#include "base/text.h"

/* Words of one line behind its name, taken out with it. */
static size_t take_line(struct dispenser *d, struct slice **args)
{
    size_t count = dispenser_remaining_args(d, args);
    dispenser_delete_n(d, count + 1);
    return count;
}

/* --- php_fastcgi --- */

struct php {
    json_t *transport;
    struct slice index;
    struct slice *extensions, *try_files;
    size_t extension_count, try_count;
};

static enum err take_timeout(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct slice name = dispenser_val(d);
    int64_t ns;
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    struct slice value = dispenser_val(d);
    if (duration_parse(value, &ns) != OK)
        return dispenser_err_f(d,
                               "bad timeout value " SLICE_FMT ": time: invalid duration \"" SLICE_FMT
                               "\"", SLICE_ARG(value), SLICE_ARG(value));
    j_put_int(a, o, arena_str(a->arena, name), ns);
    dispenser_delete_n(d, 2);
    return OK;
}

/* Ours: how many idle connections a worker keeps. */
static enum err take_keepalive(struct adapt *a, struct dispenser *d, json_t *o)
{
    int64_t n;
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    TRY(read_int(d, dispenser_val(d), "bad number of connections", &n));
    j_put_int(a, o, "keepalive", n);
    dispenser_delete_n(d, 2);
    return OK;
}

/* Of a line's words behind its name. */
static bool count_fits(struct slice name, size_t count)
{
    if (slice_is(name, "env"))
        return count == 2;
    if (slice_is(name, "index"))
        return count == 1;
    return count > 0 || (!slice_is(name, "split") && !slice_is(name, "try_files"));
}

static enum err php_lists(struct adapt *a, struct dispenser *d, struct php *p)
{
    struct slice name = dispenser_val(d), *args;
    if (!count_fits(name, dispenser_count_remaining_args(d))) {
        enum err e = dispenser_arg_err(d);
        if (slice_is(name, "env"))
            diag_append(d->diag, " - it is 'env NAME VALUE'");
        return e;
    }
    size_t count = take_line(d, &args);
    if (slice_is(name, "split")) {
        p->extensions = args;
        p->extension_count = count;
        return OK;
    }
    if (slice_is(name, "env")) {
        j_set_key(a, j_at(a, p->transport, "env"), args[0], j_text(a, args[1]));
        return OK;
    }
    if (slice_is(name, "index")) {
        p->index = args[0];
        return OK;
    }
    if (slice_is(name, "try_files")) {
        p->try_files = args;
        p->try_count = count;
        return OK;
    }
    j_set_key(a, p->transport, name, json_true()); /* resolve_root_symlink, capture_stderr */
    return OK;
}

static enum err php_options(struct adapt *a, struct dispenser *d, struct php *p)
{
    static const char *const lists[] = {"split", "env", "index", "try_files",
                                        "resolve_root_symlink", "capture_stderr"};
    static const char *const timeouts[] = {"dial_timeout", "read_timeout", "write_timeout"};
    while (dispenser_next(d))
        while (dispenser_next_block(d, 0)) {
            bool done = dispenser_nesting(d) != 1;
            for (int i = 0; i < 6 && !done; i++)
                if (dispenser_val_is(d, lists[i])) {
                    TRY(php_lists(a, d, p));
                    done = true;
                }
            for (int i = 0; i < 3 && !done; i++)
                if (dispenser_val_is(d, timeouts[i])) {
                    TRY(take_timeout(a, d, p->transport));
                    done = true;
                }
            if (!done && dispenser_val_is(d, "keepalive")) {
                TRY(take_keepalive(a, d, p->transport));
                done = true;
            }
            if (done || !dispenser_val_is(d, "root"))
                continue;
            if (!dispenser_next_arg(d))
                return dispenser_arg_err(d);
            j_put_text(a, p->transport, "root", dispenser_val(d));
            dispenser_delete_n(d, 2);
        }
    dispenser_reset(d);
    return OK;
}

static struct route one_route(struct adapt *a, json_t *set, json_t *handler, const char *module)
{
    struct route r = {.match = j_array(a), .handle = j_array(a)};
    if (set != NULL)
        j_append(r.match, set);
    j_append(r.handle, j_module(a, "handler", module, handler));
    return r;
}

/* "/blog" to "/blog/" when that is a folder with an index. */
static struct route redirect_folder(struct adapt *a, struct slice dir_index)
{
    json_t *set = j_object(a), *not_set = j_object(a), *not_list = j_array(a), *o = j_object(a);
    struct slice slash = SLICE("*/"), to = SLICE("{http.request.orig_uri.path}/"
                                                 "{http.request.orig_uri.prefixed_query}");
    j_set(a, j_at(a, set, "file"), "try_files", j_strings(a, &dir_index, 1));
    j_set(a, not_set, "path", j_strings(a, &slash, 1));
    j_append(not_list, not_set);
    j_set(a, set, "not", not_list);
    j_set(a, j_at(a, o, "headers"), "Location", j_strings(a, &to, 1));
    j_put_int(a, o, "status_code", 308);
    return one_route(a, set, o, "static_response");
}

static struct route rewrite_to_file(struct adapt *a, const struct php *p, struct slice policy)
{
    json_t *set = j_object(a), *file = j_at(a, set, "file"), *o = j_object(a);
    j_put_strings(a, file, "try_files", p->try_files, p->try_count);
    j_put_text(a, file, "try_policy", policy);
    j_put_strings(a, file, "split_path", p->extensions, p->extension_count);
    j_put_text(a, o, "uri", SLICE("{http.matchers.file.relative}"));
    return one_route(a, set, o, "rewrite");
}

static size_t php_index(struct adapt *a, struct php *p, struct route *routes)
{
    struct slice dir_index = arena_join(
        a->arena, (struct slice[]){SLICE("{http.request.uri.path}/"), p->index}, 2);
    struct slice policy = SLICE("first_exist_fallback");
    bool redirects = p->try_count == 0;
    size_t count = 0;
    if (slice_is(p->index, "off"))
        return 0;
    if (p->try_count == 0) {
        p->try_files = ARENA_ARRAY(a->arena, struct slice, 3);
        p->try_files[0] = SLICE("{http.request.uri.path}");
        p->try_files[1] = dir_index;
        p->try_files[2] = p->index;
        p->try_count = 3;
    } else if (!slice_ends(p->try_files[p->try_count - 1], SLICE(".php"))) {
        policy = SLICE_NONE;
    }
    for (size_t i = 0; i < p->try_count; i++)
        redirects = redirects || slice_eq(p->try_files[i], dir_index);
    if (redirects)
        routes[count++] = redirect_folder(a, dir_index);
    routes[count++] = rewrite_to_file(a, p, policy);
    return count;
}

enum err parse_php_fastcgi(struct helper *h, struct values *out)
{
    static struct slice php_extension = {".php", 4};
    struct adapt *a = h->a;
    struct php p = {.transport = j_object(a), .index = SLICE("index.php"),
                    .extensions = &php_extension, .extension_count = 1};
    struct route routes[3];
    json_t *set, *path_set = j_object(a), *paths = j_array(a), *o = j_object(a);
    if (!dispenser_next(&h->d))
        return dispenser_arg_err(&h->d);
    TRY(helper_matcher(h, &set));
    struct helper inner = *h;
    inner.d = dispenser_new_from_next_segment(&h->d);
    TRY(php_options(a, &inner.d, &p));
    size_t count = php_index(a, &p, routes);
    for (size_t i = 0; i < p.extension_count; i++)
        j_append_text(a, paths,
                      arena_join(a->arena, (struct slice[]){SLICE("*"), p.extensions[i]}, 2));
    j_set(a, path_set, "path", paths);
    j_put_strings(a, p.transport, "split_path", p.extensions, p.extension_count);
    j_set(a, o, "transport", j_module(a, "protocol", "fastcgi", p.transport));
    dispenser_next(&inner.d); /* the segment begins with an empty word: the cursor was before it */
    TRY(proxy_read(&inner, o, NULL));
    routes[count++] = one_route(a, path_set, o, "reverse_proxy");
    if (set != NULL) {
        helper_add_route(h, out, set, subroute_handler(a, routes, count), "subroute");
        return OK;
    }
    struct config_value *v = values_add(a, out, VALUE_ROUTES);
    v->routes = ARENA_ARRAY(a->arena, struct route, count);
    v->route_count = count;
    memcpy(v->routes, routes, count * sizeof *routes);
    return OK;
}

/* --- forward_auth --- */

/* "From>To", or one name for both. */
static void copied_field(struct adapt *a, struct dispenser *d, json_t *fields, struct slice text)
{
    struct slice from, to;
    if (!slice_cut(text, '>', &from, &to))
        to = from;
    proxy_warn_field(d, "copy_headers", from);
    slice_cut(to, '>', &to, &(struct slice){0});
    j_set_key(a, fields, from, j_text(a, to));
}

static enum err take_copied(struct adapt *a, struct dispenser *d, json_t *fields)
{
    struct slice *args;
    size_t count = dispenser_remaining_args(d, &args), words = count + 1;
    bool block = false;
    int nesting;
    for (size_t i = 0; i < count; i++)
        copied_field(a, d, fields, args[i]);
    nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        block = true;
        words++;
        copied_field(a, d, fields, dispenser_val(d));
    }
    if (json_object_size(fields) == 0)
        return dispenser_arg_err(d);
    dispenser_delete_n(d, words);
    if (block)
        dispenser_delete_n(d, 2);
    return OK;
}

static enum err auth_options(struct adapt *a, struct dispenser *d, json_t *rewrite, json_t *fields)
{
    while (dispenser_next(d))
        while (dispenser_next_block(d, 0)) {
            if (dispenser_nesting(d) != 1)
                continue;
            if (dispenser_val_is(d, "copy_headers"))
                TRY(take_copied(a, d, fields));
            if (!dispenser_val_is(d, "uri"))
                continue;
            if (!dispenser_next_arg(d))
                return dispenser_arg_err(d);
            if (json_object_get(rewrite, "uri") != NULL)
                return dispenser_err_f(d, "cannot re-declare uri: " SLICE_FMT,
                                       SLICE_ARG(dispenser_val(d)));
            proxy_warn_auth_uri(d, dispenser_val(d));
            j_put_text(a, rewrite, "uri", dispenser_val(d));
            dispenser_delete_n(d, 2);
        }
    dispenser_reset(d);
    if (json_object_get(rewrite, "uri") != NULL)
        return OK;
    for (int i = 0; i < 2; i++) /* the directive's name, behind a segment's empty begin: its place is told */
        dispenser_next(d);
    return dispenser_err_f(d, "the 'uri' subdirective is required");
}

/* What the client sent under the name goes first; then what the service answered, when it did. */
static size_t copy_field(struct adapt *a, struct slice from, struct slice to, struct route *routes)
{
    struct slice name = canonical_field(a->arena, from), field = canonical_field(a->arena, to);
    struct slice value = arena_printf(a->arena, "{http.reverse_proxy.header." SLICE_FMT "}",
                                      SLICE_ARG(name));
    struct slice nothing = SLICE("");
    json_t *drop = j_object(a), *put = j_object(a), *set = j_object(a), *not_set = j_object(a);
    j_set(a, j_at(a, drop, "request"), "delete", j_strings(a, &field, 1));
    j_set_key(a, j_at(a, put, "request.set"), field, j_strings(a, &value, 1));
    j_set_key(a, j_at(a, not_set, "vars"), value, j_strings(a, &nothing, 1));
    json_t *list = j_array(a);
    j_append(list, not_set);
    j_set(a, set, "not", list);
    routes[0] = one_route(a, NULL, drop, "headers");
    routes[1] = one_route(a, set, put, "headers");
    return 2;
}

/* An answer of 2xx lets the request go on, with the fields. */
static json_t *good_answer(struct adapt *a, json_t *fields)
{
    json_t *o = j_object(a), *codes = j_array(a), *to;
    const char *from;
    struct route *routes = ARENA_ARRAY(a->arena, struct route, 2 * json_object_size(fields) + 1);
    size_t count = 1;
    fields = j_by_name(a, fields);
    routes[0] = one_route(a, NULL, j_object(a), "vars");
    json_object_foreach(fields, from, to)
        count += copy_field(a, slice_from(from),
                            slice_of(json_string_value(to), json_string_length(to)),
                            routes + count);
    j_append(codes, j_int(a, 2));
    j_set(a, j_at(a, o, "match"), "status_code", codes);
    j_set(a, o, "routes", routes_json(a, routes, count));
    return o;
}

enum err parse_forward_auth(struct helper *h, struct values *out)
{
    struct adapt *a = h->a;
    json_t *set, *o = j_object(a), *fields = j_object(a);
    struct slice method = SLICE("{http.request.method}"), uri = SLICE("{http.request.uri}");
    if (!dispenser_next(&h->d))
        return dispenser_arg_err(&h->d);
    TRY(helper_matcher(h, &set));
    struct helper inner = *h;
    inner.d = dispenser_new_from_next_segment(&h->d);
    json_t *forwarded = j_at(a, o, "headers.request.set"), *rewrite = j_at(a, o, "rewrite");
    j_set(a, forwarded, "X-Forwarded-Method", j_strings(a, &method, 1));
    j_set(a, forwarded, "X-Forwarded-Uri", j_strings(a, &uri, 1));
    j_put_text(a, rewrite, "method", SLICE("GET"));
    TRY(auth_options(a, &inner.d, rewrite, fields));
    dispenser_next(&inner.d);
    TRY(proxy_read(&inner, o, good_answer(a, fields)));
    helper_add_route(h, out, set, o, "reverse_proxy");
    return OK;
}
