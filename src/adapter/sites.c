/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each pair of an address and a protocol has a list of sites; pairs with equal lists melt into one
 * server. The order of all of it is that of the addresses' bytes, so that the same Caddyfile always
 * gives the same JSON.
 */
#include "adapter/sites.h"

#include <stdlib.h>

#include "base/map.h"
#include "net/address.h"

/* What one address serves by one protocol. */
struct entry {
    struct slice address, protocol;
    struct placed_site *sites;
    size_t count, cap;
    const struct entry *taken; /* with the sites of this one */
};

struct entries {
    struct entry **items;
    size_t count, cap;
    struct map by_name;
};

int64_t http_port(const struct adapt *a)
{
    return a->options.has_http_port ? a->options.http_port : 80;
}

int64_t https_port(const struct adapt *a)
{
    return a->options.has_https_port ? a->options.https_port : 443;
}

bool auto_https_says(const struct adapt *a, const char *word)
{
    for (size_t i = 0; i < a->options.auto_https_count; i++)
        if (slice_is(a->options.auto_https[i], word))
            return true;
    return false;
}

static struct entry *entry_of(struct adapt *a, struct entries *all, struct slice address,
                              struct slice protocol)
{
    struct slice parts[] = {address, SLICE("\n"), protocol};
    struct slice name = arena_join(a->arena, parts, 3);
    struct entry *e = map_get(&all->by_name, name);
    if (e != NULL)
        return e;
    if (all->count == all->cap) {
        all->cap = all->cap < 8 ? 8 : all->cap * 2;
        struct entry **grown = ARENA_ARRAY(a->arena, struct entry *, all->cap);
        if (all->count > 0)
            memcpy(grown, all->items, all->count * sizeof *grown);
        all->items = grown;
    }
    e = all->items[all->count++] = ARENA_NEW(a->arena, struct entry);
    e->address = address;
    e->protocol = protocol;
    map_put(&all->by_name, name, e);
    return e;
}

static void add_key(struct adapt *a, struct entry *e, struct site *site, size_t key)
{
    struct placed_site *p = e->count > 0 ? &e->sites[e->count - 1] : NULL;
    if (p == NULL || p->site != site) {
        if (e->count == e->cap) {
            e->cap = e->cap < 4 ? 4 : e->cap * 2;
            struct placed_site *grown = ARENA_ARRAY(a->arena, struct placed_site, e->cap);
            if (e->count > 0)
                memcpy(grown, e->sites, e->count * sizeof *grown);
            e->sites = grown;
        }
        p = &e->sites[e->count++];
        *p = (struct placed_site){.site = site};
    }
    if (p->count == p->cap) {
        p->cap = p->cap < 4 ? 4 : p->cap * 2;
        struct slice *keys = ARENA_ARRAY(a->arena, struct slice, p->cap);
        struct site_address *addresses = ARENA_ARRAY(a->arena, struct site_address, p->cap);
        if (p->count > 0) {
            memcpy(keys, p->keys, p->count * sizeof *keys);
            memcpy(addresses, p->addresses, p->count * sizeof *addresses);
        }
        p->keys = keys;
        p->addresses = addresses;
    }
    p->keys[p->count] = site->block->keys[key].text;
    p->addresses[p->count++] = site->addresses[key];
}

/* --- the listeners of one key --- */

static enum err check_scheme(struct adapt *a, const struct site_address *address)
{
    if (slice_is(address->scheme, "wss"))
        return diag_fail(a->diag, "the scheme wss:// is only supported in browsers; use https:// "
                                  "instead");
    if (slice_is(address->scheme, "ws"))
        return diag_fail(a->diag, "the scheme ws:// is only supported in browsers; use http:// "
                                  "instead");
    if (address->scheme.len == 0 || slice_is(address->scheme, "http") ||
        slice_is(address->scheme, "https"))
        return OK;
    return diag_fail(a->diag, "unsupported URL scheme " SLICE_FMT "://",
                     SLICE_ARG(address->scheme));
}

static enum err listen_port(struct adapt *a, const struct site_address *address,
                            struct slice *port)
{
    struct slice plain = arena_printf(a->arena, "%lld", (long long)http_port(a));
    struct slice secure = arena_printf(a->arena, "%lld", (long long)https_port(a));
    *port = address->port.len > 0                ? address->port
            : slice_is(address->scheme, "http") ? plain
                                                 : secure;
    if ((slice_is(address->scheme, "http") && slice_eq(*port, secure)) ||
        (slice_is(address->scheme, "https") && slice_eq(*port, plain)))
        return diag_fail(a->diag, "[" SLICE_FMT "] scheme and port violate convention",
                         SLICE_ARG(site_address_text(address, a->arena)));
    return OK;
}

static enum err bound_address(struct adapt *a, struct slice bind, struct slice port,
                              struct slice *out)
{
    struct slice network, host, ignored;
    struct network_address n;
    struct address_error why;
    if (address_split(bind, &network, &host, &ignored, a->arena, &why) != OK)
        return diag_fail(a->diag, "splitting listener address: %s", why.text);
    struct slice whole = address_join(network, host, port, a->arena);
    if (address_parse(whole, SLICE("tcp"), 0, &n, a->arena, &why) != OK)
        return diag_fail(a->diag, "parsing network address: %s", why.text);
    *out = address_text(&n, a->arena);
    return OK;
}

/* Of an address that is bound twice, the protocols of the last one count, as in Caddy. */
static void put_listener(struct adapt *a, struct listen_address *list, size_t *count,
                         struct slice address, const struct bind_value *bind)
{
    size_t i = 0;
    while (i < *count && !slice_eq(list[i].address, address))
        i++;
    if (i == *count)
        ++*count;
    list[i] = (struct listen_address){.address = address};
    list[i].protocols = ARENA_ARRAY(a->arena, struct slice, bind->protocol_count + 1);
    for (size_t k = 0; k < bind->protocol_count; k++) {
        size_t j = 0;
        while (j < list[i].protocol_count &&
               !slice_eq(list[i].protocols[j], bind->protocols[k]))
            j++;
        if (j == list[i].protocol_count)
            list[i].protocols[list[i].protocol_count++] = bind->protocols[k];
    }
    if (list[i].protocol_count == 0)
        list[i].protocol_count = 1; /* the empty one: default */
}

static enum err key_listeners(struct adapt *a, const struct site *site,
                              const struct site_address *address, struct listen_address **out,
                              size_t *count)
{
    static struct slice anywhere = {"", 0};
    static const struct bind_value default_bind = {.addresses = &anywhere, .address_count = 1};
    const struct bind_value *one = &default_bind;
    struct slice port;
    size_t binds = site->binds.count, total = 0;
    TRY(check_scheme(a, address));
    TRY(listen_port(a, address, &port));
    bool global = binds == 0 && a->options.default_bind_count > 0;
    binds = binds > 0 ? binds : global ? a->options.default_bind_count : 1;
    for (size_t pass = 0; pass < 2; pass++) {
        if (pass == 1)
            *out = ARENA_ARRAY(a->arena, struct listen_address, total + 1);
        for (size_t b = 0; b < binds; b++) {
            const struct bind_value *v = site->binds.count > 0 ? site->binds.items[b].bind
                                         : global              ? a->options.default_bind[b]
                                                               : one;
            for (size_t i = 0; i < v->address_count; i++) {
                struct slice text;
                if (pass == 0) {
                    total++;
                    continue;
                }
                TRY(bound_address(a, v->addresses[i], port, &text));
                put_listener(a, *out, count, text, v);
            }
        }
    }
    return OK;
}

/* --- placing --- */

static enum err place_key(struct adapt *a, struct entries *all, struct site *site, size_t index,
                          size_t key)
{
    struct listen_address *listeners = NULL;
    struct slice text = site->block->keys[key].text;
    struct site_address parsed;
    size_t count = 0;
    const struct token *t = &site->block->keys[key];
    diag_place(a->diag, t->file, t->line, t->column);
    if (site_address_parse(text, &parsed, a->diag) != OK) {
        diag_prefix(a, "parsing key");
        return ERR_INVALID;
    }
    site->addresses[key] = site_address_normal(&parsed, a->arena);
    if (key_listeners(a, site, &site->addresses[key], &listeners, &count) != OK) {
        diag_prefix(a, "server block %zu, key %zu (" SLICE_FMT "): determining listener address",
                    index, key, SLICE_ARG(text));
        return ERR_INVALID;
    }
    for (size_t i = 0; i < count; i++)
        for (size_t p = 0; p < listeners[i].protocol_count; p++)
            add_key(a, entry_of(a, all, listeners[i].address, listeners[i].protocols[p]), site,
                    key);
    return OK;
}

static int by_address(const void *x, const void *y)
{
    const struct entry *a = *(struct entry *const *)x, *b = *(struct entry *const *)y;
    int order = slice_cmp(a->address, b->address);
    return order != 0 ? order : slice_cmp(a->protocol, b->protocol);
}

/* The same keys of the same sites. */
static bool same_sites(const struct entry *x, const struct entry *y)
{
    if (x->count != y->count)
        return false;
    for (size_t i = 0; i < x->count; i++) {
        const struct placed_site *p = &x->sites[i], *q = &y->sites[i];
        if (p->site != q->site || p->count != q->count)
            return false;
        for (size_t k = 0; k < p->count; k++)
            if (p->keys[k].ptr != q->keys[k].ptr || p->keys[k].len != q->keys[k].len)
                return false;
    }
    return true;
}

static void add_listener(struct adapt *a, struct pairing *p, const struct entry *e, size_t most)
{
    struct listen_address *l =
        p->listener_count > 0 ? &p->listeners[p->listener_count - 1] : NULL;
    if (l == NULL || !slice_eq(l->address, e->address)) {
        l = &p->listeners[p->listener_count++];
        l->address = e->address;
        l->protocols = ARENA_ARRAY(a->arena, struct slice, most);
    }
    l->protocols[l->protocol_count++] = e->protocol;
}

/* An entry that went to another of the same address leaves a server with nothing in it, as in
 * Caddy: the names of the servers behind it, and thus what a person's scripts say, hang on that. */
static size_t pair(struct adapt *a, struct entries *all, struct pairing *out)
{
    size_t n = 0;
    for (size_t i = 0; i < all->count; i++) {
        struct entry *first = all->items[i];
        size_t same = 0;
        if (first->taken != NULL) {
            n += slice_eq(first->taken->address, first->address);
            continue;
        }
        for (size_t k = i; k < all->count; k++)
            same += all->items[k]->taken == NULL && same_sites(first, all->items[k]);
        struct pairing *p = &out[n++];
        p->listeners = ARENA_ARRAY(a->arena, struct listen_address, same);
        p->sites = first->sites;
        p->site_count = first->count;
        for (size_t k = i; k < all->count; k++)
            if (all->items[k]->taken == NULL && same_sites(first, all->items[k])) {
                all->items[k]->taken = first;
                add_listener(a, p, all->items[k], same);
            }
    }
    return n;
}

enum err sites_place(struct adapt *a, struct site *sites, size_t count, struct pairing **out,
                     size_t *pairing_count)
{
    struct entries all = {0};
    enum err e = OK;
    map_init(&all.by_name, false);
    for (size_t s = 0; s < count && e == OK; s++) {
        size_t keys = sites[s].block->key_count;
        sites[s].addresses = ARENA_ARRAY(a->arena, struct site_address, keys + 1);
        for (size_t k = 0; k < keys && e == OK; k++)
            e = place_key(a, &all, &sites[s], s, k);
    }
    map_deinit(&all.by_name);
    TRY(e);
    if (all.count > 0)
        qsort(all.items, all.count, sizeof *all.items, by_address);
    *out = ARENA_ARRAY(a->arena, struct pairing, all.count + 1);
    *pairing_count = pair(a, &all, *out);
    return OK;
}

/* --- questions --- */

bool placed_catches_all(const struct placed_site *p)
{
    for (size_t i = 0; i < p->count; i++)
        if (p->addresses[i].host.len == 0)
            return true;
    return false;
}

size_t placed_hosts(struct adapt *a, const struct placed_site *p, bool logger, struct slice **out)
{
    struct map seen;
    size_t count = 0;
    *out = ARENA_ARRAY(a->arena, struct slice, p->count + 2); /* callers may add one */
    if (!logger && placed_catches_all(p))
        return 0;
    map_init(&seen, false);
    for (size_t i = 0; i < p->count; i++) {
        const struct site_address *s = &p->addresses[i];
        struct slice host = s->host;
        if (host.len == 0)
            continue;
        if (logger && s->port.len > 0 && !slice_is(s->port, "80") && !slice_is(s->port, "443"))
            host = address_join(SLICE_NONE, s->host, s->port, a->arena);
        if (map_get(&seen, host) != NULL)
            continue;
        map_put(&seen, host, p->site);
        (*out)[count++] = host;
    }
    map_deinit(&seen);
    return count;
}

bool listeners_use_other_port(struct adapt *a, const struct pairing *p, int64_t port)
{
    for (size_t i = 0; i < p->listener_count; i++) {
        struct network_address n;
        struct address_error why;
        if (address_parse(p->listeners[i].address, SLICE("tcp"), 0, &n, a->arena, &why) == OK &&
            (port > n.last_port || port < n.first_port))
            return true;
    }
    return false;
}
