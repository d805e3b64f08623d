/* SPDX-License-Identifier: Apache-2.0 */
/*
 * url_pattern: the request's URL against a pattern of the web platform. The path is compared as
 * handlers will see it: decoded, dot segments resolved, slashes merged unless the pattern has two,
 * and escaped anew. What groups took is {http.url_pattern.COMPONENT.NAME}.
 *
 *     "url_pattern": {"pattern": "/books/:id", "base_url": "https://example.com", "ignore_case": true}
 */
#include "handlers/handlers.h"
#include "http/uri.h"
#include "http/url_pattern.h"

struct match_url_pattern {
    struct url_pattern pattern;
    bool merge;
};

static void release(void *cfg)
{
    struct match_url_pattern *m = cfg;
    url_pattern_release(&m->pattern);
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"pattern", "base_url", "ignore_case", NULL};
    struct match_url_pattern *m = cfg;
    struct slice text, base, path;
    bool ignore_case;
    TRY(provision_members(p, json, known));
    TRY(provision_text(p, json, "pattern", SLICE(""), &text));
    TRY(provision_text(p, json, "base_url", SLICE(""), &base));
    TRY(provision_bool(p, json, "ignore_case", false, &ignore_case));
    size_t scheme = slice_find_slice(text, SLICE("://"));
    path = text;
    if (scheme != SIZE_MAX) {
        path = slice_skip(text, scheme + 3);
        size_t slash = slice_find(path, '/');
        path = slash != SIZE_MAX ? slice_skip(path, slash) : SLICE("");
    } else if (base.len == 0) {
        text = arena_join(p->arena, (struct slice[]){SLICE("*://*:*"), text}, 2);
    }
    m->merge = slice_find_slice(path, SLICE("//")) == SIZE_MAX;
    enum err e = url_pattern_compile(p, text, base, ignore_case, &m->pattern);
    if (e != OK)
        url_pattern_release(&m->pattern);
    return e;
}

static void fill(struct exchange *x, bool merge, struct slice texts[URL_PARTS])
{
    struct slice host, port;
    host_split(x->req.host, &host, &port);
    bool tls = slice_is(x->req.scheme, "https");
    bool six = slice_find(host, ':') != SIZE_MAX;
    char *lower = arena_alloc(x->arena, host.len + 3);
    size_t n = 0;
    if (six)
        lower[n++] = '[';
    for (size_t i = 0; i < host.len; i++)
        lower[n++] = ascii_lower(host.ptr[i]);
    if (six)
        lower[n++] = ']';
    if (slice_is(port, tls ? "443" : "80"))
        port = SLICE("");
    texts[URL_PROTOCOL] = tls ? SLICE("https") : SLICE("http");
    texts[URL_USERNAME] = texts[URL_PASSWORD] = texts[URL_HASH] = SLICE("");
    texts[URL_HOSTNAME] = slice_of(lower, n);
    texts[URL_PORT] = port;
    texts[URL_PATHNAME] = uri_escape_path(uri_clean(x->req.uri.path, merge, x->arena), x->arena);
    texts[URL_SEARCH] = x->req.uri.query;
}

static void publish(struct exchange *x, const struct url_component *c, enum url_part part,
                    const struct url_groups *groups)
{
    for (size_t i = 0; i < groups->count; i++) {
        struct slice name = c->all ? SLICE("0") : c->groups[i];
        exchange_set_var(x, arena_printf(x->arena, "http.url_pattern.%s." SLICE_FMT,
                                         url_part_names[part], SLICE_ARG(name)), groups->values[i]);
    }
}

static enum err match(const void *cfg, struct exchange *x, bool *matches)
{
    const struct match_url_pattern *m = cfg;
    struct slice texts[URL_PARTS];
    struct url_groups *groups = ARENA_ARRAY(x->arena, struct url_groups, URL_PARTS);
    fill(x, m->merge, texts);
    *matches = true;
    for (unsigned i = 0; i < URL_PARTS && *matches; i++) {
        if (url_component_match(&m->pattern, (enum url_part)i, texts[i], &groups[i], matches) != OK)
            return exchange_fail(x, 500, "matching a URL pattern took too much work");
    }
    for (unsigned i = 0; i < URL_PARTS && *matches; i++)
        publish(x, &m->pattern.parts[i], (enum url_part)i, &groups[i]);
    return OK;
}

const struct module matcher_url_pattern = {
    .id = "http.matchers.url_pattern",
    .cfg_size = sizeof(struct match_url_pattern),
    .provision = provision,
    .release = release,
    .match = match,
};
