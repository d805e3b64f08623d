/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The zone of a name is the nearest one above it that has an SOA record of its own. Whether a record
 * is seen is asked of the zone's own servers, or of the resolvers that are configured; a CNAME
 * on the way is followed once, since the name may be delegated (as certmagic does).
 */
#include "certs/dns_solver.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "certs/dns_query.h"
#include "certs/jose.h"
#include "certs/solver.h"
#include "loop/await.h"

enum { CHECK_S = 2, TIMEOUT_S = 120, SERVERS_MAX = 16 };

static const char logger[] = "tls.issuance.acme.dns_manager";

struct servers {
    struct slice items[SERVERS_MAX];
    size_t count;
};

/* --- configuration --- */

static enum err read_provider(struct provision *p, const json_t *json, struct dns_solver_options *o)
{
    const json_t *name = json_object_get(json, "name");
    const struct module *module;
    void *cfg;
    if (!json_is_string(name))
        return provision_fail(p, "DNS challenge enabled, but no DNS provider configured");
    TRY(provision_module(p, "dns.providers", json_string_value(name), json, &module, &cfg));
    o->provider = module->face;
    o->provider_cfg = cfg;
    return OK;
}

enum err dns_solver_provision(struct provision *p, const json_t *json, const json_t *fallback,
                              struct dns_solver_options *o)
{
    static const char *const members[] = {"provider", "ttl", "propagation_delay",
                                          "propagation_timeout", "resolvers", "override_domain",
                                          NULL};
    int64_t ttl, delay;
    TRY(provision_members(p, json, members));
    TRY(provision_duration(p, json, "ttl", 0, &ttl));
    TRY(provision_duration(p, json, "propagation_delay", 0, &delay));
    TRY(provision_duration(p, json, "propagation_timeout", 0, &o->propagation_timeout_ns));
    TRY(provision_texts(p, json, "resolvers", &o->resolvers, &o->resolvers_count));
    TRY(provision_text(p, json, "override_domain", SLICE(""), &o->override_domain));
    if (o->resolvers_count > DNS_RESOLVERS_MAX)
        return provision_fail(p, "\"resolvers\" are more than %d", DNS_RESOLVERS_MAX);
    if (ttl < 0 || ttl / (int64_t)NS_PER_S > INT32_MAX)
        return provision_fail(p, "\"ttl\" is out of range");
    o->ttl_s = (uint32_t)(ttl / (int64_t)NS_PER_S);
    o->propagation_delay_ns = delay > 0 ? (uint64_t)delay : 0;
    const json_t *provider = json_object_get(json, "provider");
    return read_provider(p, provider != NULL && !json_is_null(provider) ? provider : fallback, o);
}

/* --- zones --- */

static void resolvers_of(const struct dns_solver_options *o, struct arena *a, struct servers *s)
{
    s->count = o->resolvers_count;
    for (size_t i = 0; i < s->count && i < SERVERS_MAX; i++)
        s->items[i] = o->resolvers[i];
    if (s->count == 0)
        s->count = dns_system_servers(a, s->items, SERVERS_MAX);
}

static const struct dns_seen *record_of(const struct dns_reply *reply, enum dns_type type)
{
    for (size_t i = 0; i < reply->count; i++)
        if (reply->records[i].type == type)
            return &reply->records[i];
    return NULL;
}

/* A CNAME cannot stand at a zone's top: where one is, the zone is further up. */
static enum err find_zone(const struct servers *s, struct slice fqdn, struct arena *a,
                          struct slice *zone, char *why, size_t cap)
{
    struct dns_reply *reply;
    for (struct slice domain = fqdn; domain.len > 1;) {
        enum err e = dns_query(s->items, s->count, domain, DNS_SOA, a, &reply, why, cap);
        if (fiber_self()->cancelled != OK)
            return e;
        if (e == OK && reply->code != DNS_NO_ERROR && reply->code != DNS_NXDOMAIN) {
            snprintf(why, cap, "unexpected response code %u for " SLICE_FMT, reply->code,
                     SLICE_ARG(domain));
            return ERR_FAILED;
        }
        if (e == OK && reply->code == DNS_NO_ERROR && record_of(reply, DNS_CNAME) == NULL &&
            record_of(reply, DNS_SOA) != NULL) {
            *zone = record_of(reply, DNS_SOA)->owner;
            return OK;
        }
        if (e == OK)
            snprintf(why, cap, "no start of authority was found");
        domain = slice_skip(domain, slice_find(domain, '.') + 1);
    }
    return ERR_NOT_FOUND;
}

static struct slice relative(struct slice fqdn, struct slice zone)
{
    if (slice_eq(fqdn, zone))
        return SLICE("@");
    bool below = fqdn.len > zone.len + 1 && slice_ends(fqdn, zone) &&
                 fqdn.ptr[fqdn.len - zone.len - 1] == '.';
    return below ? slice_take(fqdn, fqdn.len - zone.len - 1) : fqdn;
}

/* --- presenting --- */

enum err dns_present(const struct dns_solver_options *o, struct slice name, struct slice type,
                     struct slice text, struct arena *a, struct dns_presented *out, char *why,
                     size_t cap)
{
    struct servers *s = ARENA_NEW(a, struct servers);
    struct dns_why inner = {""};
    struct slice fqdn = dns_name_normal(name, a), zone;
    resolvers_of(o, a, s);
    enum err e = find_zone(s, fqdn, a, &zone, inner.text, sizeof inner.text);
    if (e != OK) {
        snprintf(why, cap, "could not determine zone for domain \"" SLICE_FMT "\": %.300s",
                 SLICE_ARG(fqdn), inner.text);
        return e;
    }
    out->fqdn = fqdn;
    out->record = (struct dns_record){.zone = slice_take(zone, zone.len - 1), .text = text,
                                      .name = relative(fqdn, zone), .type = type,
                                      .ttl_s = o->ttl_s};
    LOG(LOG_DEBUG, logger, "creating DNS record", LOG_STR("zone", zone),
        LOG_STR("record_name", out->record.name), LOG_STR("record_type", type));
    e = o->provider->append(o->provider_cfg, &out->record, a, &inner);
    out->there = true; /* even after a failure: who knows */
    if (e != OK)
        snprintf(why, cap, "adding temporary record for zone \"" SLICE_FMT "\": %.300s",
                 SLICE_ARG(zone), inner.text);
    return e;
}

enum err dns_remove(const struct dns_solver_options *o, struct dns_presented *p, struct arena *a,
                    char *why, size_t cap)
{
    struct dns_why inner = {""};
    if (!p->there)
        return OK;
    p->there = false;
    enum err e = o->provider->remove(o->provider_cfg, &p->record, a, &inner);
    if (e != OK)
        snprintf(why, cap, "deleting temporary record \"" SLICE_FMT "\" in zone \"" SLICE_FMT
                 "\": %.300s", SLICE_ARG(p->record.name), SLICE_ARG(p->record.zone), inner.text);
    return e;
}

/* --- propagation --- */

static bool has_record(const struct dns_reply *reply, enum dns_type type, struct slice data)
{
    for (size_t i = 0; i < reply->count; i++)
        if (reply->records[i].type == type && slice_eq(reply->records[i].data, data))
            return true;
    return false;
}

static enum err authoritative(const struct servers *resolvers, struct slice fqdn, struct arena *a,
                              struct servers *out, char *why, size_t cap)
{
    struct slice zone;
    struct dns_reply *reply;
    TRY(find_zone(resolvers, fqdn, a, &zone, why, cap));
    TRY(dns_query(resolvers->items, resolvers->count, zone, DNS_NS, a, &reply, why, cap));
    out->count = 0;
    for (size_t i = 0; i < reply->count && out->count < SERVERS_MAX; i++)
        if (reply->records[i].type == DNS_NS)
            out->items[out->count++] = reply->records[i].data;
    if (out->count > 0)
        return OK;
    snprintf(why, cap, "could not determine authoritative nameservers");
    return ERR_NOT_FOUND;
}

/* One of the servers has it. */
static enum err seen_by(const struct servers *s, struct slice fqdn, enum dns_type type,
                        struct slice data, struct arena *a, bool *seen, char *why, size_t cap)
{
    struct dns_reply *reply;
    *seen = false;
    for (size_t i = 0; i < s->count && !*seen; i++) {
        TRY(dns_query(&s->items[i], 1, fqdn, type, a, &reply, why, cap));
        if (reply->code == DNS_NXDOMAIN || reply->code == DNS_SERVFAIL)
            return OK; /* it must come sooner or later */
        if (reply->code != DNS_NO_ERROR) {
            snprintf(why, cap, "NS " SLICE_FMT " returned code %u for " SLICE_FMT,
                     SLICE_ARG(s->items[i]), reply->code, SLICE_ARG(fqdn));
            return ERR_FAILED;
        }
        *seen = has_record(reply, type, data);
    }
    return OK;
}

static struct slice follow(const struct dns_reply *reply, struct slice fqdn)
{
    for (size_t i = 0; i < reply->count; i++)
        if (reply->records[i].type == DNS_CNAME && slice_eq(reply->records[i].owner, fqdn))
            return reply->records[i].data;
    return fqdn;
}

static enum err check(const struct dns_solver_options *o, const struct dns_presented *p,
                      struct arena *a, bool *seen, char *why, size_t cap)
{
    struct servers *resolvers = ARENA_NEW(a, struct servers), *ask = resolvers;
    struct slice fqdn = p->fqdn, data = p->record.text;
    enum dns_type type = slice_is(p->record.type, "CNAME") ? DNS_CNAME : DNS_TXT;
    struct dns_reply *reply;
    resolvers_of(o, a, resolvers);
    if (type == DNS_CNAME) {
        data = dns_name_normal(data, a);
    } else {
        TRY(dns_query(resolvers->items, resolvers->count, fqdn, type, a, &reply, why, cap));
        if (reply->code == DNS_NO_ERROR)
            fqdn = follow(reply, fqdn);
    }
    if (o->resolvers_count == 0) {
        ask = ARENA_NEW(a, struct servers);
        TRY(authoritative(resolvers, fqdn, a, ask, why, cap));
    }
    return seen_by(ask, fqdn, type, data, a, seen, why, cap);
}

enum err dns_await(const struct dns_solver_options *o, const struct dns_presented *p,
                   struct arena *unused, char *why, size_t cap)
{
    uint64_t timeout = o->propagation_timeout_ns > 0 ? (uint64_t)o->propagation_timeout_ns :
                                                       TIMEOUT_S * NS_PER_S;
    struct arena a; /* each look begins with an empty one: there may be hundreds */
    enum err e = OK;
    bool seen = false;
    if (o->propagation_delay_ns > 0)
        TRY(await_sleep(clock_mono_ns() + o->propagation_delay_ns));
    if (o->propagation_timeout_ns == -1)
        return OK;
    arena_init(&a, 16 << 10);
    for (uint64_t end = clock_mono_ns() + timeout; e == OK && !seen && clock_mono_ns() < end;) {
        e = await_sleep(clock_mono_ns() + CHECK_S * NS_PER_S);
        if (e == OK)
            e = check(o, p, &a, &seen, why, cap);
        arena_reset(&a);
    }
    arena_deinit(&a);
    if (e != OK || seen)
        return e;
    snprintf(why, cap, "timed out waiting for record to fully propagate; verify DNS provider "
             "configuration is correct");
    return ERR_TIMEOUT;
}

/* --- the solver --- */

static bool enabled(const struct solver_options *o)
{
    return o->dns != NULL;
}

static enum err present(struct solving *s)
{
    const struct dns_solver_options *o = s->options->dns;
    struct slice parts[] = {SLICE("_acme-challenge."), s->identifier.value};
    struct slice name = o->override_domain.len > 0 ? o->override_domain :
                                                     arena_join(s->arena, parts, 2);
    return dns_present(o, name, SLICE("TXT"), dns01_value(s->key_authorization, s->arena), s->arena,
                       &s->dns, s->why, sizeof s->why);
}

static enum err wait_for(struct solving *s)
{
    return dns_await(s->options->dns, &s->dns, s->arena, s->why, sizeof s->why);
}

static void cleanup(struct solving *s)
{
    if (dns_remove(s->options->dns, &s->dns, s->arena, s->why, sizeof s->why) != OK)
        LOG(LOG_ERROR, logger, "cleaning up solver", LOG_STR("identifier", s->identifier.value),
            LOG_CSTR("challenge_type", "dns-01"), LOG_CSTR("error", s->why));
}

const struct solver solver_dns01 = {"dns-01", enabled, present, wait_for, cleanup};
