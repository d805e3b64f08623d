/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote_ip and client_ip: the peer's own address, or the client's as trusted proxies tell it, in
 * one of the ranges. Ranges are sorted into a set at provision; those with a zone, which are few,
 * are compared one by one.
 *
 *     "remote_ip": {"ranges": ["192.168.0.0/16", "fe80::/10%eth0"]}    "client_ip": {"ranges": …}
 */
#include "handlers/handlers.h"
#include "net/ip_set.h"

struct zoned_range {
    struct ip_range range;
    struct slice zone;
};

struct match_ip {
    struct ip_set set;
    struct zoned_range *zoned;
    size_t zoned_count;
};

static const char *const members[] = {"ranges", NULL};

/* "fe80::1%eth0/64" and "fe80::/10%eth0" both: what stands behind '%' is the zone, as in Caddy. */
static enum err read_range(struct match_ip *m, struct ip_range *ranges, struct slice text,
                           struct provision *p)
{
    struct slice expanded = template_expand_now(text, p->arena), address, zone, ignored;
    struct ip_range r;
    slice_cut(expanded, '%', &address, &zone);
    slice_cut(zone, '%', &zone, &ignored);
    if (!ip_range_parse(address, &r))
        return provision_fail(p, "invalid IP address or CIDR range: '" SLICE_FMT "'",
                              SLICE_ARG(expanded));
    if (zone.len > 0)
        m->zoned[m->zoned_count++] = (struct zoned_range){r, zone};
    else
        ranges[m->set.count++] = r;
    return OK;
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct match_ip *m = cfg;
    struct slice *texts;
    size_t count;
    TRY(provision_members(p, json, members));
    TRY(provision_texts(p, json, "ranges", &texts, &count));
    struct ip_range *ranges = ARENA_ARRAY(p->arena, struct ip_range, count);
    m->zoned = ARENA_ARRAY(p->arena, struct zoned_range, count);
    for (size_t i = 0; i < count; i++)
        TRY(read_range(m, ranges, texts[i], p));
    m->set = ip_set_build(ranges, m->set.count);
    return OK;
}

static bool has(const struct match_ip *m, struct slice text)
{
    struct ip_address a;
    struct slice address, zone;
    slice_cut(text, '%', &address, &zone);
    if (!ip_parse(address, &a))
        return false;
    if (ip_set_has(&m->set, &a))
        return true;
    for (size_t i = 0; i < m->zoned_count; i++) {
        if (ip_range_has(&m->zoned[i].range, &a) && slice_eq(m->zoned[i].zone, zone))
            return true;
    }
    return false;
}

static enum err match_remote(const void *cfg, struct exchange *x, bool *matches)
{
    exchange_addresses(x);
    *matches = has(cfg, x->remote_host);
    return OK;
}

static enum err match_client(const void *cfg, struct exchange *x, bool *matches)
{
    exchange_addresses(x);
    *matches = has(cfg, x->client_ip);
    return OK;
}

const struct module matcher_remote_ip = {
    .id = "http.matchers.remote_ip",
    .cfg_size = sizeof(struct match_ip),
    .provision = provision,
    .match = match_remote,
};

const struct module matcher_client_ip = {
    .id = "http.matchers.client_ip",
    .cfg_size = sizeof(struct match_ip),
    .provision = provision,
    .match = match_client,
};
