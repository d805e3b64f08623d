/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rewrite: another method, path or query for the handlers that follow. Values that come from the
 * request are put in escaped where they would otherwise end the path or split the query; what a
 * value brings along behind a '?' becomes the query only where the rule leaves it empty.
 *
 *     {"handler": "rewrite", "method": "POST", "uri": "/index.php?{http.request.uri.query}",
 *      "strip_path_prefix": "/api", "strip_path_suffix": ".html",
 *      "uri_substring": [{"find": "a", "replace": "b", "limit": 1}],
 *      "path_regexp": [{"find": "/+", "replace": "/"}], "query": {"set": [{"key": "a", "val": "1"}]}}
 */
#include "handlers/handlers.h"
#include "base/buffer.h"
#include "handlers/rewrite_query.h"
#include "http/regexp.h"
#include "http/route.h"
#include "http/uri.h"

struct substring {
    struct template find, replace;
    bool merge_slashes;
    int64_t limit; /* 0: all */
};

struct path_regexp {
    struct regexp *find;
    struct template replace;
};

/* A piece of the new query, with the byte that stood behind it: '=', '&' or 0 at the end. */
struct query_piece {
    struct template text;
    char delimiter;
};

struct rewrite {
    struct template method, path, prefix, suffix;
    struct query_piece *query;
    size_t query_count;
    struct substring *substrings;
    struct path_regexp *regexps;
    size_t substrings_count, regexps_count;
    struct query_ops *ops; /* NULL: none */
    bool has_method, has_path, has_query, has_prefix, has_suffix;
};

static const char *const members[] = {"method", "uri", "strip_path_prefix", "strip_path_suffix",
                                      "uri_substring", "path_regexp", "query", NULL};
static const char *const substring_members[] = {"find", "replace", "limit", NULL};
static const char *const regexp_members[] = {"find", "replace", NULL};

/* --- provision --- */

/* Up to the next '=' or '&', whichever comes first. */
static struct slice cut_piece(struct slice *query, char *delimiter)
{
    size_t n = 0;
    while (n < query->len && query->ptr[n] != '=' && query->ptr[n] != '&')
        n++;
    struct slice piece = slice_take(*query, n);
    *delimiter = n < query->len ? query->ptr[n] : '\0';
    *query = slice_skip(*query, n + 1);
    return piece;
}

static void read_query(struct rewrite *r, struct slice query, struct arena *arena)
{
    size_t most = 1;
    for (size_t i = 0; i < query.len; i++)
        most += query.ptr[i] == '=' || query.ptr[i] == '&';
    r->query = ARENA_ARRAY(arena, struct query_piece, most);
    while (query.len > 0) {
        struct query_piece *p = &r->query[r->query_count++];
        struct slice text = cut_piece(&query, &p->delimiter);
        template_compile(&p->text, text, arena);
    }
}

/* "path?query#fragment"; a fragment never reaches a server. */
static void read_uri(struct rewrite *r, struct slice uri, struct arena *arena)
{
    struct slice path, query, ignored;
    if (uri.len == 0)
        return;
    slice_cut(uri, '#', &uri, &ignored);
    r->has_query = slice_cut(uri, '?', &path, &query);
    r->has_path = path.len > 0;
    template_compile(&r->path, path, arena);
    read_query(r, query, arena);
}

static enum err read_substrings(struct rewrite *r, const json_t *json, struct provision *p)
{
    size_t i;
    json_t *v;
    r->substrings = ARENA_ARRAY(p->arena, struct substring, json_array_size(json));
    json_array_foreach((json_t *)(uintptr_t)json, i, v)
    {
        struct substring *s = &r->substrings[r->substrings_count++];
        TRY(provision_members(p, v, substring_members));
        TRY(provision_template(p, v, "find", SLICE(""), &s->find));
        TRY(provision_template(p, v, "replace", SLICE(""), &s->replace));
        TRY(provision_int(p, v, "limit", 0, INT32_MIN, INT32_MAX, &s->limit));
        s->merge_slashes = slice_find_slice(s->find.text, SLICE("//")) == SIZE_MAX;
    }
    return OK;
}

static enum err read_regexps(struct rewrite *r, const json_t *json, struct provision *p)
{
    size_t i;
    json_t *v;
    r->regexps = ARENA_ARRAY(p->arena, struct path_regexp, json_array_size(json));
    json_array_foreach((json_t *)(uintptr_t)json, i, v)
    {
        struct path_regexp *re = &r->regexps[r->regexps_count++];
        struct slice find;
        TRY(provision_members(p, v, regexp_members));
        TRY(provision_text(p, v, "find", SLICE(""), &find));
        TRY(provision_template(p, v, "replace", SLICE(""), &re->replace));
        if (find.len == 0)
            return provision_fail(p, "path_regexp find cannot be empty");
        TRY(regexp_compile(p, find, &re->find));
    }
    return OK;
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct rewrite *r = cfg;
    struct slice uri;
    const json_t *query = json_object_get(json, "query");
    TRY(provision_members(p, json, members));
    TRY(provision_template(p, json, "method", SLICE(""), &r->method));
    TRY(provision_text(p, json, "uri", SLICE(""), &uri));
    TRY(provision_template(p, json, "strip_path_prefix", SLICE(""), &r->prefix));
    TRY(provision_template(p, json, "strip_path_suffix", SLICE(""), &r->suffix));
    r->has_method = r->method.text.len > 0;
    r->has_prefix = r->prefix.text.len > 0;
    r->has_suffix = r->suffix.text.len > 0;
    read_uri(r, uri, p->arena);
    TRY(read_substrings(r, json_object_get(json, "uri_substring"), p));
    TRY(read_regexps(r, json_object_get(json, "path_regexp"), p));
    return query != NULL ? query_ops_provision(&r->ops, query, p) : OK;
}

static void release(void *cfg)
{
    struct rewrite *r = cfg;
    for (size_t i = 0; i < r->regexps_count; i++)
        regexp_free(r->regexps[i].find);
    query_ops_release(r->ops);
}

/* --- method and uri --- */

static void set_method(const struct rewrite *r, struct exchange *x)
{
    char *text = arena_str(x->arena, template_expand(&r->method, x));
    for (char *c = text; *c != '\0'; c++) {
        if (*c >= 'a' && *c <= 'z')
            *c = (char)(*c & ~0x20);
    }
    x->req.method = slice_from(text);
    x->req.method_id = method_parse(x->req.method);
}

/* Slashes stay what they are. */
static struct slice escape_segments(struct slice path, struct arena *arena)
{
    struct slice escaped = path_escape(path, arena);
    char *out = arena_alloc(arena, escaped.len + 1);
    size_t n = 0;
    for (size_t i = 0; i < escaped.len; i++) {
        bool slash = i + 2 < escaped.len && memcmp(escaped.ptr + i, "%2F", 3) == 0;
        out[n++] = slash ? '/' : escaped.ptr[i];
        i += slash ? 2 : 0;
    }
    return slice_of(out, n);
}

/* Paths stand escaped in what is decoded afterwards. */
static struct slice encode_in_path(struct exchange *x, struct slice name, struct slice value)
{
    if (slice_is(name, "http.request.uri.path"))
        return x->req.uri.raw_path;
    if (slice_is(name, "http.matchers.file.relative"))
        return escape_segments(value, x->arena);
    return value;
}

static struct slice encode_in_query(struct exchange *x, struct slice name, struct slice value)
{
    (void)name;
    return query_escape(value, x->arena);
}

/* {http.request.uri.query} as a whole parameter is escaped already. */
static struct slice encode_parameter(struct exchange *x, struct slice name, struct slice value)
{
    return slice_is(name, "http.request.uri.query") ? value : query_escape(value, x->arena);
}

struct query_text {
    struct buffer *out;
    bool wrote_value; /* the next piece begins a parameter */
};

static void put_piece(struct query_text *q, struct slice piece, char delimiter)
{
    if (!q->wrote_value)
        (void)!buffer_append_byte(q->out, '=');
    else if (q->out->len > 0 && piece.len > 0)
        (void)!buffer_append_byte(q->out, '&');
    (void)!buffer_append(q->out, piece);
    q->wrote_value = delimiter == '&';
}

enum { QUERY_MAX = 1 << 20 };

static struct slice take_query(struct buffer *b, struct exchange *x)
{
    struct slice query = arena_copy(x->arena, buffer_slice(b));
    buffer_deinit(b);
    return query;
}

static struct slice build_query(const struct rewrite *r, struct exchange *x)
{
    struct buffer b;
    struct query_text q = {&b, true};
    buffer_init(&b, QUERY_MAX);
    for (size_t i = 0; i < r->query_count; i++) {
        struct slice piece = template_expand_encoded(
            &r->query[i].text, x, q.wrote_value ? encode_parameter : encode_in_query);
        put_piece(&q, piece, r->query[i].delimiter);
    }
    return take_query(&b, x);
}

/* A query that came out of the path's values: nothing in it is a placeholder. */
static struct slice injected_query(struct slice query, struct exchange *x)
{
    struct buffer b;
    struct query_text q = {&b, true};
    buffer_init(&b, QUERY_MAX);
    while (query.len > 0) {
        char delimiter;
        struct slice piece = cut_piece(&query, &delimiter);
        put_piece(&q, piece, delimiter);
    }
    struct slice text = take_query(&b, x), head;
    struct buffer out;
    buffer_init(&out, QUERY_MAX);
    for (bool more = true; more;) {
        size_t n = 0;
        while (n < text.len && text.ptr[n] != '{' && text.ptr[n] != '}')
            n++;
        head = slice_take(text, n);
        more = n < text.len;
        (void)!buffer_append(&out, head);
        if (more)
            (void)!buffer_append(&out, text.ptr[n] == '{' ? SLICE("%7B") : SLICE("%7D"));
        text = slice_skip(text, n + 1);
    }
    return take_query(&out, x);
}

static void set_uri(const struct rewrite *r, struct exchange *x)
{
    struct slice path = template_expand_encoded(&r->path, x, encode_in_path), injected, decoded;
    bool has_injected = slice_cut(path, '?', &path, &injected);
    struct slice query = SLICE_NONE;
    if (r->query_count > 0)
        query = build_query(r, x);
    else if (has_injected)
        query = injected_query(injected, x);
    if (r->has_path)
        uri_set_path(&x->req.uri, uri_decode(path, x->arena, &decoded) == OK ? decoded : path,
                     x->arena);
    if (r->has_query) {
        x->req.uri.query = query;
        x->req.uri.has_query = query.len > 0;
    }
}

/* --- changes of the path --- */

/* Bytes that may stand in an escaped path as they are. */
static bool is_escaped_form(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c <= 0x20 || c >= 0x7f || strchr("\"<>\\^`{|}?#", c) != NULL)
            return false;
    }
    return true;
}

static void set_raw_path(struct exchange *x, struct slice raw)
{
    struct slice decoded;
    if (uri_decode(raw, x->arena, &decoded) != OK || decoded.len == 0)
        decoded = raw;
    uri_set_path(&x->req.uri, decoded, x->arena);
    if (is_escaped_form(raw))
        x->req.uri.raw_path = raw;
}

/* What is behind `prefix`, escapes seen as what they mean unless the prefix has its own; the path
 * itself when it does not begin so. */
static struct slice trim_prefix(struct slice path, struct slice prefix, struct arena *arena)
{
    size_t i = 0, k = 0;
    while (i < path.len && k < prefix.len) {
        struct slice one = slice_take(slice_skip(path, i), 1);
        if (one.ptr[0] == '%' && prefix.ptr[k] != '%' && path.len - i >= 3) {
            if (uri_decode(slice_of(path.ptr + i, 3), arena, &one) != OK)
                return path;
            i += 2;
        }
        if (ascii_lower(one.ptr[0]) != ascii_lower(prefix.ptr[k]))
            return path;
        i++;
        k++;
    }
    return k == prefix.len ? slice_skip(path, i) : path;
}

static struct slice reverse(struct slice s, struct arena *arena)
{
    char *out = arena_alloc(arena, s.len + 1);
    for (size_t i = 0; i < s.len; i++)
        out[i] = s.ptr[s.len - 1 - i];
    return slice_of(out, s.len);
}

static struct slice clean_for(struct slice pattern, struct exchange *x)
{
    bool merge = slice_find_slice(pattern, SLICE("//")) == SIZE_MAX;
    return uri_clean(x->req.uri.raw_path, merge, x->arena);
}

static void strip(const struct rewrite *r, struct exchange *x)
{
    if (r->has_prefix) {
        struct slice prefix = template_expand(&r->prefix, x);
        if (prefix.len == 0 || prefix.ptr[0] != '/')
            prefix = arena_join(x->arena, (struct slice[]){SLICE("/"), prefix}, 2);
        set_raw_path(x, trim_prefix(clean_for(prefix, x), prefix, x->arena));
    }
    if (r->has_suffix) {
        struct slice suffix = template_expand(&r->suffix, x);
        struct slice backwards = reverse(clean_for(suffix, x), x->arena);
        struct slice rest = trim_prefix(backwards, reverse(suffix, x->arena), x->arena);
        set_raw_path(x, reverse(rest, x->arena));
    }
}

static struct slice replace_text(struct slice in, struct slice find, struct slice with,
                                 int64_t limit, struct exchange *x)
{
    struct buffer b;
    buffer_init(&b, QUERY_MAX);
    size_t at;
    for (int64_t n = 0; (limit <= 0 || n < limit) && find.len > 0 &&
                        (at = slice_find_slice(in, find)) != SIZE_MAX; n++) {
        (void)!buffer_append(&b, slice_take(in, at));
        (void)!buffer_append(&b, with);
        in = slice_skip(in, at + find.len);
    }
    (void)!buffer_append(&b, in);
    return take_query(&b, x);
}

static void replace_substring(const struct substring *s, struct exchange *x)
{
    struct slice find = template_expand(&s->find, x), with = template_expand(&s->replace, x);
    if (s->find.text.len == 0)
        return;
    struct slice path = uri_clean(x->req.uri.raw_path, s->merge_slashes, x->arena);
    set_raw_path(x, replace_text(path, find, with, s->limit, x));
    x->req.uri.query = replace_text(x->req.uri.query, find, with, s->limit, x);
}

static enum err replace_regexp(const struct path_regexp *r, struct exchange *x)
{
    struct slice out;
    if (regexp_replace(r->find, x->req.uri.raw_path, template_expand(&r->replace, x), x->arena,
                       &out) != OK)
        return exchange_fail(x, 500, "rewrite: a regular expression took too long to match");
    set_raw_path(x, out);
    return OK;
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    const struct rewrite *r = cfg;
    if (r->has_method)
        set_method(r, x);
    if (r->has_path || r->has_query)
        set_uri(r, x);
    strip(r, x);
    for (size_t i = 0; i < r->substrings_count; i++)
        replace_substring(&r->substrings[i], x);
    for (size_t i = 0; i < r->regexps_count; i++)
        TRY(replace_regexp(&r->regexps[i], x));
    if (r->ops != NULL)
        TRY(query_ops_apply(r->ops, x));
    return chain_next(x, next);
}

const struct module handler_rewrite = {
    .id = "http.handlers.rewrite",
    .cfg_size = sizeof(struct rewrite),
    .provision = provision,
    .release = release,
    .serve = serve,
};
