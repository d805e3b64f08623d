/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS servers of a transport's or a source's own:
 *
 *     {"resolver": {"addresses": ["10.0.0.53", "udp/[fd00::53]:5353"]}}
 *
 * Each worker makes a resolver for each such list at its first use and keeps it, with its cache, until
 * it ends; the lists of all configurations together are few.
 */
#include "base/map.h"
#include "base/mem.h"
#include "proxy/gateway.h"

enum { ADDRESSES_MAX = 16, LISTS_MAX = 64 };

static _Thread_local struct {
    struct map by_servers;
    bool ready;
} mine;

struct kept {
    struct slice servers;
    struct resolver *resolver;
};

static enum err read_address(struct provision *p, struct slice text, struct buffer *list)
{
    struct network_address a;
    struct address_error why;
    struct ip_address ip;
    if (address_parse(text, SLICE("udp"), 53, &a, p->arena, &why) != OK)
        return provision_fail(p, "\"resolver\": %s", why.text);
    if (a.first_port != a.last_port)
        return provision_fail(p, "resolver address must have exactly one address; cannot call "
                              SLICE_FMT, SLICE_ARG(text));
    if (!ip_parse(a.host, &ip))
        return provision_fail(p, "\"resolver\": '" SLICE_FMT "' is no IP address",
                              SLICE_ARG(a.host));
    return buffer_append_f(list, ip.is_six ? "%s[" SLICE_FMT "]:%u" : "%s" SLICE_FMT ":%u",
                           list->len > 0 ? "," : "", SLICE_ARG(a.host), a.first_port);
}

enum err resolver_list_read(const json_t *json, struct provision *p, struct slice *out)
{
    static const char *const members[] = {"addresses", NULL};
    struct slice *texts;
    struct buffer list;
    size_t count;
    enum err e = OK;
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(provision_members(p, json, members));
    TRY(provision_texts(p, json, "addresses", &texts, &count));
    if (count == 0 || count > ADDRESSES_MAX)
        return provision_fail(p, "\"resolver\" needs 1 to %d \"addresses\"", ADDRESSES_MAX);
    buffer_init(&list, 8192);
    for (size_t i = 0; i < count && e == OK; i++)
        e = read_address(p, texts[i], &list);
    if (e == OK)
        *out = arena_copy(p->arena, buffer_slice(&list));
    buffer_deinit(&list);
    return e;
}

static struct kept *make(struct slice servers)
{
    struct kept *k = NEW(struct kept);
    k->servers = slice_of(slice_dup(servers), servers.len);
    struct dns_options options = {.servers = k->servers.ptr};
    if (resolver_create(loop_self(), &options, &k->resolver) == OK) {
        map_put(&mine.by_servers, k->servers, k);
        return k;
    }
    mem_free((void *)(uintptr_t)k->servers.ptr);
    mem_free(k);
    return NULL;
}

static struct kept *resolver_for(struct slice servers)
{
    if (!mine.ready)
        map_init(&mine.by_servers, false);
    mine.ready = true;
    struct kept *k = map_get(&mine.by_servers, servers);
    return k != NULL || mine.by_servers.count == LISTS_MAX ? k : make(servers);
}

struct resolver *resolver_of_list(struct slice servers)
{
    struct resolver *r;
    struct kept *k;
    if (servers.len == 0)
        return resolver_of_thread(&r) == OK ? r : NULL;
    k = resolver_for(servers);
    return k != NULL ? k->resolver : NULL;
}

enum err transport_resolver_provision(struct http_transport *t, const json_t *json,
                                      struct provision *p)
{
    return resolver_list_read(json, p, &t->resolver);
}

enum err transport_resolve(const struct http_transport *t, struct slice host, uint16_t port,
                           uint64_t deadline_ns, struct resolved *to)
{
    if (t->resolver.len == 0)
        return await_resolve(host, port, deadline_ns, to);
    struct kept *k = resolver_for(t->resolver);
    if (k != NULL)
        return resolver_await(k->resolver, host, port, deadline_ns, to);
    to->why = "no resolver can be made";
    return ERR_LIMIT;
}

void transport_resolvers_deinit(void)
{
    size_t at = 0;
    if (!mine.ready)
        return;
    for (struct map_entry *e; (e = map_next(&mine.by_servers, &at)) != NULL;) {
        struct kept *k = e->value;
        map_remove(&mine.by_servers, k->servers);
        resolver_destroy(k->resolver);
        mem_free((void *)(uintptr_t)k->servers.ptr);
        mem_free(k);
    }
    map_deinit(&mine.by_servers);
    mine.ready = false;
}
