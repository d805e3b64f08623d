/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hetzner: zones in the Hetzner Console by the Cloud API, whose records come in sets by name and
 * type; with "auth_api_token", those that are still in the old DNS Console, by its API.
 *
 *     {"name": "hetzner", "api_token": "…"}    {"name": "hetzner", "auth_api_token": "…"}
 */
#include "certs/dns_api.h"

#define ENDPOINT "https://api.hetzner.cloud/v1"
#define OLD_ENDPOINT "https://dns.hetzner.com/api/v1"
enum { TTL_S = 60 };

struct hetzner {
    struct slice endpoint, token;
    bool old;
};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"name", "api_token", "auth_api_token", "endpoint", NULL};
    struct hetzner *c = cfg;
    TRY(provision_members(p, json, known));
    c->old = json_object_get(json, "auth_api_token") != NULL;
    TRY(dns_secret(p, json, c->old ? "auth_api_token" : "api_token", &c->token));
    TRY(dns_endpoint(p, json, c->old ? OLD_ENDPOINT : ENDPOINT, &c->endpoint));
    return c->token.len > 0 ? OK : provision_fail(p, "api_token is empty");
}

static enum err call(const struct hetzner *c, const char *method, struct slice url, json_t *body,
                     bool missing_is_ok, struct arena *a, struct dns_answer *answer,
                     struct dns_why *why)
{
    struct field token = c->old ? (struct field){SLICE("Auth-API-Token"), c->token}
                                : dns_bearer(c->token, a);
    return dns_call(&(struct dns_call){.method = method, .url = url, .fields = &token,
                                       .fields_count = 1, .body = body,
                                       .missing_is_ok = missing_is_ok}, a, answer, why);
}

/* --- the Cloud API --- */

static enum err change_set(const struct hetzner *c, const struct dns_record *r, bool add,
                           struct arena *a, struct dns_why *why)
{
    struct dns_answer answer;
    struct slice text = dns_content(r, "\"", ".", a);
    json_t *body = json_pack("{s:[{s:s%}]}", "records", "value", text.ptr, text.len);
    if (add)
        json_object_set_new(body, "ttl", json_integer(r->ttl_s > TTL_S ? r->ttl_s : TTL_S));
    struct slice url = arena_join(a, (struct slice[]){
        c->endpoint, SLICE("/zones/"), dns_escape(r->zone, a), SLICE("/rrsets/"),
        dns_escape(r->name, a), SLICE("/"), dns_record_type(r), SLICE("/actions/"),
        add ? SLICE("add_records") : SLICE("remove_records")}, 9);
    enum err e = call(c, "POST", url, body, !add, a, &answer, why);
    json_decref(answer.json);
    return e;
}

/* --- the DNS Console's --- */

static enum err old_zone(const struct hetzner *c, const struct dns_record *r, struct arena *a,
                         struct slice *id, struct dns_why *why)
{
    struct dns_answer answer;
    struct slice url = arena_join(a, (struct slice[]){c->endpoint, SLICE("/zones?name="),
                                                      dns_escape(r->zone, a)}, 3);
    TRY(call(c, "GET", url, NULL, true, a, &answer, why));
    const json_t *zones = json_object_get(answer.json, "zones");
    const char *text = json_string_value(json_object_get(json_array_get(zones, 0), "id"));
    *id = text != NULL ? arena_copy(a, slice_from(text)) : SLICE_NONE;
    bool one = text != NULL && json_array_size(zones) == 1;
    json_decref(answer.json);
    return one ? OK : dns_fail(why, "the token sees no zone " SLICE_FMT, SLICE_ARG(r->zone));
}

static enum err old_append(const struct hetzner *c, const struct dns_record *r, struct arena *a,
                           struct dns_why *why)
{
    struct slice zone;
    struct dns_answer answer;
    TRY(old_zone(c, r, a, &zone, why));
    struct slice text = dns_content(r, "", ".", a), kind = dns_record_type(r);
    json_t *body = json_pack("{s:s%, s:s%, s:s%, s:s%, s:i}", "zone_id", zone.ptr, zone.len, "type",
                             kind.ptr, kind.len, "name", r->name.ptr, r->name.len, "value",
                             text.ptr, text.len, "ttl", r->ttl_s > 0 ? (int)r->ttl_s : TTL_S);
    struct slice url = arena_join(a, (struct slice[]){c->endpoint, SLICE("/records")}, 2);
    enum err e = call(c, "POST", url, body, false, a, &answer, why);
    json_decref(answer.json);
    return e;
}

static bool holds(struct slice value, const struct dns_record *r, struct arena *a)
{
    return slice_eq(value, r->text) || slice_eq(value, dns_content(r, "\"", ".", a));
}

static enum err old_remove(const struct hetzner *c, const struct dns_record *r, struct arena *a,
                           struct dns_why *why)
{
    size_t i;
    json_t *v;
    struct slice zone;
    struct dns_answer answer, gone;
    enum err e = OK;
    TRY(old_zone(c, r, a, &zone, why));
    struct slice url = arena_join(a, (struct slice[]){c->endpoint, SLICE("/records?zone_id="),
                                                      dns_escape(zone, a)}, 3);
    TRY(call(c, "GET", url, NULL, true, a, &answer, why));
    json_array_foreach(json_object_get(answer.json, "records"), i, v)
    {
        const char *id = json_string_value(json_object_get(v, "id"));
        struct slice type = slice_from(json_string_value(json_object_get(v, "type")));
        struct slice name = slice_from(json_string_value(json_object_get(v, "name")));
        struct slice value = slice_from(json_string_value(json_object_get(v, "value")));
        if (e != OK || id == NULL || !slice_eq(type, dns_record_type(r)) ||
            !slice_eq(name, r->name) || !holds(value, r, a))
            continue;
        url = arena_join(a, (struct slice[]){c->endpoint, SLICE("/records/"),
                                             dns_escape(slice_from(id), a)}, 3);
        e = call(c, "DELETE", url, NULL, true, a, &gone, why);
        json_decref(gone.json);
    }
    json_decref(answer.json);
    return e;
}

static enum err append(const void *cfg, const struct dns_record *r, struct arena *a,
                       struct dns_why *why)
{
    const struct hetzner *c = cfg;
    return c->old ? old_append(c, r, a, why) : change_set(c, r, true, a, why);
}

static enum err remove_record(const void *cfg, const struct dns_record *r, struct arena *a,
                              struct dns_why *why)
{
    const struct hetzner *c = cfg;
    return c->old ? old_remove(c, r, a, why) : change_set(c, r, false, a, why);
}

const struct module dns_provider_hetzner = {
    .id = "dns.providers.hetzner",
    .cfg_size = sizeof(struct hetzner),
    .provision = provision,
    .face = &(const struct dns_provider_type){append, remove_record},
};
