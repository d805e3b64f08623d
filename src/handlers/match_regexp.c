/* SPDX-License-Identifier: Apache-2.0 */
/*
 * path_regexp, header_regexp and vars_regexp: a match sets {http.regexp.NAME.GROUP}.
 *
 *     "path_regexp": {"name": "post", "pattern": "^/(\\d+)/"}
 *     "header_regexp": {"Cookie": {"pattern": "id=(\\w+)"}}
 */
#include "handlers/handlers.h"
#include "http/regexp.h"
#include "http/uri.h"

struct named_regexp {
    struct slice subject; /* field or variable */
    struct slice name;
    struct regexp *regexp;
};

struct match_regexps {
    struct named_regexp *items;
    size_t count;
};

static const char *const members[] = {"name", "pattern", NULL};

static enum err read_one(struct named_regexp *r, const json_t *json, struct provision *p)
{
    struct slice pattern;
    TRY(provision_members(p, json, members));
    TRY(provision_text(p, json, "name", SLICE(""), &r->name));
    TRY(provision_text(p, json, "pattern", SLICE(""), &pattern));
    return regexp_compile(p, pattern, &r->regexp);
}

static enum err provision_path(void *cfg, const json_t *json, struct provision *p)
{
    struct match_regexps *m = cfg;
    m->items = ARENA_ARRAY(p->arena, struct named_regexp, 1);
    m->count = 1;
    return read_one(&m->items[0], json, p);
}

static enum err provision_many(void *cfg, const json_t *json, struct provision *p)
{
    struct match_regexps *m = cfg;
    const char *name;
    json_t *v;
    if (!json_is_object(json))
        return provision_fail(p, "must be an object");
    m->items = ARENA_ARRAY(p->arena, struct named_regexp, json_object_size(json));
    json_object_foreach((json_t *)(uintptr_t)json, name, v)
    {
        struct named_regexp *r = &m->items[m->count++];
        r->subject = arena_copy(p->arena, slice_from(name));
        TRY(read_one(r, v, p));
    }
    return OK;
}

static void release(void *cfg)
{
    struct match_regexps *m = cfg;
    for (size_t i = 0; i < m->count; i++)
        regexp_free(m->items[i].regexp);
}

static enum err match_path(const void *cfg, struct exchange *x, bool *matches)
{
    const struct match_regexps *m = cfg;
    struct slice path = uri_clean(x->req.uri.path, true, x->arena);
    return regexp_capture(m->items[0].regexp, m->items[0].name, path, x, matches);
}

static enum err match_field(const struct named_regexp *r, struct exchange *x, bool *matches)
{
    struct field *f;
    uint32_t at = 0;
    *matches = false;
    if (slice_eq_nocase(r->subject, SLICE("Host")))
        return regexp_capture(r->regexp, r->name, x->req.host, x, matches);
    while (!*matches && (f = fields_find(&x->req.fields, r->subject, &at)) != NULL)
        TRY(regexp_capture(r->regexp, r->name, f->value, x, matches));
    return OK;
}

static enum err match_header(const void *cfg, struct exchange *x, bool *matches)
{
    const struct match_regexps *m = cfg;
    *matches = true;
    for (size_t i = 0; i < m->count && *matches; i++)
        TRY(match_field(&m->items[i], x, matches));
    return OK;
}

static enum err match_vars(const void *cfg, struct exchange *x, bool *matches)
{
    const struct match_regexps *m = cfg;
    *matches = false; /* any one is enough, as in Caddy */
    for (size_t i = 0; i < m->count && !*matches; i++) {
        const struct named_regexp *r = &m->items[i];
        struct slice name = r->subject, value = SLICE("");
        bool braces = name.len > 2 && name.ptr[0] == '{' && name.ptr[name.len - 1] == '}';
        name = braces ? slice_of(name.ptr + 1, name.len - 2)
                      : arena_join(x->arena, (struct slice[]){SLICE("http.vars."), name}, 2);
        (void)placeholder_get(x, name, &value);
        TRY(regexp_capture(r->regexp, r->name, value, x, matches));
    }
    return OK;
}

const struct module matcher_path_regexp = {
    .id = "http.matchers.path_regexp",
    .cfg_size = sizeof(struct match_regexps),
    .provision = provision_path,
    .release = release,
    .match = match_path,
};

const struct module matcher_header_regexp = {
    .id = "http.matchers.header_regexp",
    .cfg_size = sizeof(struct match_regexps),
    .provision = provision_many,
    .release = release,
    .match = match_header,
};

const struct module matcher_vars_regexp = {
    .id = "http.matchers.vars_regexp",
    .cfg_size = sizeof(struct match_regexps),
    .provision = provision_many,
    .release = release,
    .match = match_vars,
};
