/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's address, found at its first use: most requests are served without anybody asking.
 * Caddy's rules: from the left the first valid address of all named fields joined; or, strictly,
 * field by field from the right the first one that is not itself trusted. What is no address is
 * skipped, a port and a zone are dropped.
 */
#include "http/client_ip.h"

#include "http/server.h"

/* --- http.ip_sources.static --- */

static const char *const static_members[] = {"source", "ranges", NULL};

static enum err provision_static(void *cfg, const json_t *json, struct provision *p)
{
    struct ip_set *set = cfg;
    struct slice *texts;
    size_t count;
    TRY(provision_members(p, json, static_members));
    TRY(provision_texts(p, json, "ranges", &texts, &count));
    struct ip_range *ranges = ARENA_ARRAY(p->arena, struct ip_range, count);
    for (size_t i = 0; i < count; i++) {
        if (!ip_range_parse(texts[i], &ranges[i]))
            return provision_fail(p, "invalid IP address or CIDR range: '" SLICE_FMT "'",
                                  SLICE_ARG(texts[i]));
    }
    *set = ip_set_build(ranges, count);
    return OK;
}

static bool static_has(const void *cfg, const struct ip_address *a)
{
    return ip_set_has(cfg, a);
}

static const struct ip_source static_source = {.has = static_has};

const struct module ip_source_static = {
    .id = "http.ip_sources.static",
    .cfg_size = sizeof(struct ip_set),
    .provision = provision_static,
    .face = &static_source,
};

/* --- a server's policy --- */

static enum err provision_source(struct client_ip_policy *c, const json_t *json,
                                 struct provision *p)
{
    const struct module *m;
    void *cfg;
    const char *name = json_string_value(json_object_get(json, "source"));
    if (name == NULL)
        return provision_fail(p, "\"source\" must name the source of the addresses");
    TRY(provision_module(p, "http.ip_sources", name, json, &m, &cfg));
    c->source = m->face;
    c->source_cfg = cfg;
    return OK;
}

enum err client_ip_provision(struct client_ip_policy *c, const json_t *server, struct provision *p)
{
    static struct slice forwarded_for = {"X-Forwarded-For", 15};
    const json_t *proxies = json_object_get(server, "trusted_proxies");
    int64_t strict;
    TRY(provision_int(p, server, "trusted_proxies_strict", 0, INT64_MIN, INT64_MAX, &strict));
    c->strict = strict > 0;
    TRY(provision_bool(p, server, "trusted_proxies_unix", false, &c->trust_unix));
    TRY(provision_texts(p, server, "client_ip_headers", &c->fields, &c->fields_count));
    if (c->fields == NULL) {
        c->fields = &forwarded_for;
        c->fields_count = 1;
    }
    if (proxies == NULL || json_is_null(proxies))
        return OK;
    struct slice outer = p->path;
    p->path = arena_join(p->arena, (struct slice[]){outer, SLICE(".trusted_proxies")}, 2);
    TRY(provision_source(c, proxies, p));
    p->path = outer;
    return OK;
}

/* --- a request's answer --- */

static bool is_trusted(const struct client_ip_policy *c, const struct ip_address *a)
{
    return c->source != NULL && c->source->has(c->source_cfg, a);
}

/* "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]:80", each with a zone perhaps. */
static bool parse_forwarded(struct slice text, struct ip_address *out)
{
    struct slice host, rest;
    text = slice_trim(text);
    if (text.len > 0 && text.ptr[0] == '[')
        slice_cut(slice_skip(text, 1), ']', &text, &rest);
    else if (slice_cut(text, ':', &host, &rest) && slice_find(rest, ':') == SIZE_MAX)
        text = host;
    slice_cut(text, '%', &text, &rest);
    return ip_parse(text, out);
}

static bool leftmost(const struct client_ip_policy *c, struct exchange *x, struct ip_address *out)
{
    for (size_t i = 0; i < c->fields_count; i++) {
        uint32_t at = 0;
        for (struct field *f; (f = fields_find(&x->req.fields, c->fields[i], &at)) != NULL;) {
            struct slice list = f->value, part;
            while (list.len > 0) {
                slice_cut(list, ',', &part, &list);
                if (parse_forwarded(part, out))
                    return true;
            }
        }
    }
    return false;
}

static bool rightmost_untrusted(const struct client_ip_policy *c, struct exchange *x,
                                struct ip_address *out)
{
    for (size_t i = 0; i < c->fields_count; i++) {
        struct slice list = fields_joined(&x->req.fields, c->fields[i], x->arena);
        while (list.len > 0) {
            size_t comma = slice_find_last(list, ',');
            struct slice part = comma == SIZE_MAX ? list : slice_skip(list, comma + 1);
            list = slice_take(list, comma == SIZE_MAX ? 0 : comma);
            if (parse_forwarded(part, out) && !is_trusted(c, out))
                return true;
        }
    }
    return false;
}

static struct slice text_of(struct exchange *x, const struct ip_address *a)
{
    char text[IP_TEXT_MAX];
    size_t len = ip_text(a, text);
    return arena_copy(x->arena, slice_of(text, len));
}

void exchange_find_client(struct exchange *x)
{
    const struct client_ip_policy *c = x->server != NULL ? &x->server->client_ip : NULL;
    struct ip_address a;
    struct slice zone;
    bool is_unix = slice_is(x->remote_host, "@");
    slice_cut(x->remote_host, '%', &x->client_ip, &zone);
    if (is_unix && (c == NULL || !c->trust_unix)) {
        x->client_ip = SLICE("");
        return;
    }
    if (c == NULL || (c->source == NULL && !is_unix))
        return;
    if (!is_unix && (!ip_parse(x->client_ip, &a) || !is_trusted(c, &a)))
        return;
    x->client_is_proxy = true;
    if (c->strict ? rightmost_untrusted(c, x, &a) : leftmost(c, x, &a))
        x->client_ip = text_of(x, &a);
}

void client_ip_settle(struct exchange *x)
{
    const struct http_server *s = x->server;
    if (s != NULL && (s->client_ip.source != NULL || s->client_ip.trust_unix))
        exchange_addresses(x);
}
