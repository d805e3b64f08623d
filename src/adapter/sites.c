/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every key of every site is listened for at one or more addresses (one for each `bind`), with some
 * protocols. An entry here is one address with one protocol and the sites behind it; entries with
 * the same sites become one server. All lists are sorted, so that the JSON is always the same.
 */
#include "adapter/sites.h"

#include <stdlib.h>

struct entry {
    struct slice address, protocol;
    struct mapped_site *sites;
    size_t site_count;
    bool taken;
};

struct entries {
    struct entry *items;
    size_t count, cap;
};

struct mapper {
    struct adapt *a;
    struct entries all; /* of all sites */
};

static struct entry *find_entry(struct adapt *a, struct entries *list, struct slice address,
                                struct slice protocol)
{
    for (size_t i = 0; i < list->count; i++)
        if (slice_eq(list->items[i].address, address) &&
            slice_eq(list->items[i].protocol, protocol))
            return &list->items[i];
    if (list->count == list->cap) {
        list->cap = list->cap < 8 ? 8 : list->cap * 2;
        struct entry *grown = ARENA_ARRAY(a->arena, struct entry, list->cap);
        if (list->count > 0)
            memcpy(grown, list->items, list->count * sizeof *grown);
        list->items = grown;
    }
    struct entry *e = &list->items[list->count++];
    *e = (struct entry){.address = address, .protocol = protocol};
    return e;
}

static int by_place(const void *x, const void *y)
{
    const struct entry *a = x, *b = y;
    int order = slice_cmp(a->address, b->address);
    return order != 0 ? order : slice_cmp(a->protocol, b->protocol);
}

/* --- where a key is listened for --- */

static enum err check_scheme(struct adapt *a, struct slice scheme)
{
    if (slice_is(scheme, "wss"))
        return diag_fail(a->diag, "the scheme wss:// is only supported in browsers; use https:// "
                                  "instead");
    if (slice_is(scheme, "ws"))
        return diag_fail(a->diag, "the scheme ws:// is only supported in browsers; use http:// "
                                  "instead");
    if (scheme.len > 0 && !slice_is(scheme, "http") && !slice_is(scheme, "https"))
        return diag_fail(a->diag, "unsupported URL scheme " SLICE_FMT "://", SLICE_ARG(scheme));
    return OK;
}

struct slice option_http_port(const struct adapt *a)
{
    return a->options.has_http_port ? arena_printf(a->arena, "%lld",
                                                   (long long)a->options.http_port)
                                    : SLICE("80");
}

struct slice option_https_port(const struct adapt *a)
{
    return a->options.has_https_port ? arena_printf(a->arena, "%lld",
                                                    (long long)a->options.https_port)
                                     : SLICE("443");
}

static enum err listen_port(struct adapt *a, const struct site_address *at, struct slice *port)
{
    struct slice http = option_http_port(a), https = option_https_port(a);
    *port = at->port.len > 0 ? at->port : slice_is(at->scheme, "http") ? http : https;
    if ((slice_is(at->scheme, "http") && slice_eq(*port, https)) ||
        (slice_is(at->scheme, "https") && slice_eq(*port, http)))
        return diag_fail(a->diag, "[" SLICE_FMT "] scheme and port violate convention",
                         SLICE_ARG(site_address_text(at, a->arena)));
    return OK;
}

static enum err listen_address(struct adapt *a, struct slice bind, struct slice port,
                               struct slice *out)
{
    struct slice network, host, ignored;
    struct network_address n;
    struct address_error why;
    if (address_split(bind, &network, &host, &ignored, a->arena, &why) != OK)
        return diag_fail(a->diag, "splitting listener address: %s", why.text);
    struct slice joined = address_join(network, host, port, a->arena);
    if (address_parse(joined, SLICE("tcp"), 0, &n, a->arena, &why) != OK)
        return diag_fail(a->diag, "parsing network address: %s", why.text);
    *out = address_text(&n, a->arena);
    return OK;
}

static void add_key(struct mapper *m, struct entries *own, struct slice address,
                    struct slice protocol, const struct site_key *key)
{
    struct entry *e = find_entry(m->a, own, address, protocol);
    if (e->sites == NULL) {
        e->sites = ARENA_NEW(m->a->arena, struct mapped_site);
        e->site_count = 1;
    }
    struct mapped_site *s = e->sites;
    struct site_key *keys = ARENA_ARRAY(m->a->arena, struct site_key, s->key_count + 1);
    if (s->key_count > 0)
        memcpy(keys, s->keys, s->key_count * sizeof *keys);
    keys[s->key_count++] = *key;
    s->keys = keys;
}

static enum err add_bind(struct mapper *m, struct entries *own, const struct bind_value *b,
                         struct slice port, const struct site_key *key)
{
    for (size_t i = 0; i < b->address_count; i++) {
        struct slice address;
        TRY(listen_address(m->a, b->addresses[i], port, &address));
        if (b->protocol_count == 0)
            add_key(m, own, address, SLICE(""), key);
        for (size_t k = 0; k < b->protocol_count; k++)
            add_key(m, own, address, b->protocols[k], key);
    }
    return OK;
}

static enum err map_key(struct mapper *m, const struct site *site, struct entries *own,
                        const struct site_key *key)
{
    static struct slice any[1] = {{"", 0}};
    static const struct bind_value everywhere = {.addresses = any, .address_count = 1};
    struct slice port;
    size_t binds = 0;
    TRY(check_scheme(m->a, key->address.scheme));
    TRY(listen_port(m->a, &key->address, &port));
    for (size_t i = 0; i < site->pile.count; i++) {
        if (site->pile.items[i].kind != VALUE_BIND)
            continue;
        binds++;
        TRY(add_bind(m, own, site->pile.items[i].bind, port, key));
    }
    for (size_t i = 0; binds == 0 && i < m->a->options.default_bind_count; i++)
        TRY(add_bind(m, own, m->a->options.default_bind[i], port, key));
    if (binds == 0 && m->a->options.default_bind_count == 0)
        TRY(add_bind(m, own, &everywhere, port, key));
    return OK;
}

static void append_site(struct adapt *a, struct entry *e, const struct mapped_site *site)
{
    struct mapped_site *all = ARENA_ARRAY(a->arena, struct mapped_site, e->site_count + 1);
    if (e->site_count > 0)
        memcpy(all, e->sites, e->site_count * sizeof *all);
    all[e->site_count++] = *site;
    e->sites = all;
}

static enum err map_site(struct mapper *m, const struct site *site, size_t number)
{
    struct entries own = {0};
    struct adapt *a = m->a;
    for (size_t i = 0; i < site->block->key_count; i++) {
        struct site_key key = {.token = site->block->keys[i]};
        struct address_error why;
        if (site_address_parse(key.token.text, &key.address, a->arena, &why) != OK)
            return diag_fail(a->diag, "parsing key: %s", why.text);
        site_address_normalize(&key.address, a->arena);
        enum err e = map_key(m, site, &own, &key);
        if (e != OK) {
            char *text = arena_str(a->arena, slice_from(a->diag->text));
            diag_place(a->diag, key.token.file, key.token.line, key.token.column);
            diag_say(a->diag, "server block %zu, key %zu (" SLICE_FMT
                     "): determining listener address: %s", number, i, SLICE_ARG(key.token.text),
                     text);
            return e;
        }
    }
    qsort(own.items, own.count, sizeof *own.items, by_place);
    for (size_t i = 0; i < own.count; i++) {
        own.items[i].sites->site = site;
        append_site(a, find_entry(a, &m->all, own.items[i].address, own.items[i].protocol),
                    own.items[i].sites);
    }
    return OK;
}

/* --- addresses with the same sites --- */

static bool same_keys(const struct mapped_site *x, const struct mapped_site *y)
{
    if (x->site != y->site || x->key_count != y->key_count)
        return false;
    for (size_t i = 0; i < x->key_count; i++)
        if (!slice_eq(x->keys[i].token.text, y->keys[i].token.text) ||
            x->keys[i].token.line != y->keys[i].token.line)
            return false;
    return true;
}

static bool same_sites(const struct entry *x, const struct entry *y)
{
    if (x->site_count != y->site_count)
        return false;
    for (size_t i = 0; i < x->site_count; i++)
        if (!same_keys(&x->sites[i], &y->sites[i]))
            return false;
    return true;
}

static void add_listen(struct adapt *a, struct pairing *p, const struct entry *e)
{
    struct listen_at *l = p->listen_count > 0 ? &p->listen[p->listen_count - 1] : NULL;
    if (l == NULL || !slice_eq(l->address, e->address)) {
        l = &p->listen[p->listen_count++];
        *l = (struct listen_at){.address = e->address};
    }
    struct slice *protocols = ARENA_ARRAY(a->arena, struct slice, l->protocol_count + 1);
    if (l->protocol_count > 0)
        memcpy(protocols, l->protocols, l->protocol_count * sizeof *protocols);
    protocols[l->protocol_count++] = e->protocol;
    l->protocols = protocols;
}

/* One that an entry of its own address has taken already becomes a server without anything: so does
 * Caddy, and the names of the servers behind it count it. */
static void pair_entry(struct adapt *a, struct entries *all, size_t at, struct pairing *p)
{
    struct entry *first = &all->items[at];
    p->listen = ARENA_ARRAY(a->arena, struct listen_at, all->count);
    if (first->taken)
        return;
    p->sites = first->sites;
    p->site_count = first->site_count;
    for (size_t k = 0; k < all->count; k++) {
        struct entry *other = &all->items[k];
        if (other->taken || !same_sites(first, other))
            continue;
        other->taken = true;
        add_listen(a, p, other);
    }
}

enum err sites_map(struct adapt *a, const struct site *sites, size_t count, struct pairing **out,
                   size_t *pairing_count)
{
    struct mapper m = {.a = a};
    for (size_t i = 0; i < count; i++)
        TRY(map_site(&m, &sites[i], i));
    struct entries *all = &m.all;
    if (all->count > 0)
        qsort(all->items, all->count, sizeof *all->items, by_place);
    struct pairing *list = ARENA_ARRAY(a->arena, struct pairing, all->count + 1);
    size_t n = 0;
    for (size_t i = 0, end; i < all->count; i = end) {
        bool *gone = ARENA_ARRAY(a->arena, bool, all->count);
        for (end = i; end < all->count && slice_eq(all->items[end].address, all->items[i].address);
             end++)
            gone[end] = all->items[end].taken;
        for (size_t k = i; k < end; k++)
            if (!gone[k])
                pair_entry(a, all, k, &list[n++]);
    }
    *out = list;
    *pairing_count = n;
    return OK;
}
