/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host: the name in Host, without port and brackets, ASCII case ignored. A label that is "*" stands
 * for any one label; names beyond ASCII are compared in their xn-- form. Exact names are looked up
 * in a map, however many there are; patterns are tried one after the other.
 *
 *     "host": ["example.com", "*.example.com", "{env.SITE}"]
 */
#include "handlers/handlers.h"

#include "base/map.h"
#include "http/host_name.h"
#include "http/uri.h"

struct match_host {
    struct map exact;
    struct template *patterns;
    size_t count;
};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct match_host *m = cfg;
    const char *why;
    size_t i;
    json_t *v;
    map_init(&m->exact, true);
    if (!json_is_array(json))
        return provision_fail(p, "must be an array of strings");
    m->patterns = ARENA_ARRAY(p->arena, struct template, json_array_size(json));
    json_array_foreach((json_t *)(uintptr_t)json, i, v)
    {
        if (!json_is_string(v))
            return provision_fail(p, "must be an array of strings");
        struct slice text = arena_copy(p->arena, slice_of(json_string_value(v),
                                                          json_string_length(v)));
        if (host_name_ascii(&text, p->arena, &why) != OK)
            return provision_fail(p, "converting hostname '" SLICE_FMT "' to ASCII: %s",
                                  SLICE_ARG(text), why);
        if (slice_find(text, '*') != SIZE_MAX || slice_find(text, '{') != SIZE_MAX)
            template_compile(&m->patterns[m->count++], text, p->arena);
        else if (map_put(&m->exact, text, m) != NULL)
            return provision_fail(p, "host is repeated: " SLICE_FMT, SLICE_ARG(text));
    }
    return OK;
}

static void release(void *cfg)
{
    struct match_host *m = cfg;
    map_deinit(&m->exact);
}

/* Label by label. */
static bool match_labels(struct slice pattern, struct slice host)
{
    for (;;) {
        struct slice want, got;
        bool more = slice_cut(pattern, '.', &want, &pattern);
        if (slice_cut(host, '.', &got, &host) != more)
            return false;
        if (!slice_is(want, "*") && !slice_eq_nocase(want, got))
            return false;
        if (!more)
            return true;
    }
}

static enum err match(const void *cfg, struct exchange *x, bool *matches)
{
    const struct match_host *m = cfg;
    struct slice host, port;
    host_split(x->req.host, &host, &port);
    *matches = map_get(&m->exact, host) != NULL;
    for (size_t i = 0; i < m->count && !*matches; i++) {
        struct slice pattern = template_expand(&m->patterns[i], x);
        *matches = slice_find(pattern, '*') != SIZE_MAX ? match_labels(pattern, host)
                                                        : slice_eq_nocase(pattern, host);
    }
    return OK;
}

const struct module matcher_host = {
    .id = "http.matchers.host",
    .cfg_size = sizeof(struct match_host),
    .provision = provision,
    .release = release,
    .match = match,
};
