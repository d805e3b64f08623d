/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cloudflare's API, version 4: a zone by its name, then its records. The token may be split in two,
 * one that reads zones and one that writes records.
 *
 *     {"name": "cloudflare", "api_token": "…", "zone_token": "…"}
 */
#include "certs/dns_api.h"

#define ENDPOINT "https://api.cloudflare.com/client/v4"
enum { TTL_S = 120, LEGACY_MIN = 35, LEGACY_MAX = 50 };

struct cloudflare {
    struct slice endpoint, api_token, zone_token;
};

/* Letters, digits, '-' and '_': 35 to 50 of them, or any number behind a new token's prefix. */
static bool token_ok(struct slice t)
{
    bool fresh = slice_starts(t, SLICE("cfut_")) || slice_starts(t, SLICE("cfat_"));
    for (size_t i = 0; i < t.len; i++) {
        char c = ascii_lower(t.ptr[i]);
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_'))
            return false;
    }
    return fresh || (t.len >= LEGACY_MIN && t.len <= LEGACY_MAX);
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"name", "api_token", "zone_token", "endpoint", NULL};
    struct cloudflare *c = cfg;
    TRY(provision_members(p, json, known));
    TRY(dns_secret(p, json, "api_token", &c->api_token));
    TRY(dns_secret(p, json, "zone_token", &c->zone_token));
    TRY(dns_endpoint(p, json, ENDPOINT, &c->endpoint));
    if (!token_ok(c->api_token))
        return provision_fail(p, "the API token appears invalid (%zu characters): it must be a "
                              "scoped token, not wrapped in braces or quotes", c->api_token.len);
    return OK;
}

static enum err find_zone(const struct cloudflare *c, const struct dns_record *r, struct arena *a,
                          struct slice *id, struct dns_why *why)
{
    struct dns_answer answer;
    struct field token = dns_bearer(c->zone_token.len > 0 ? c->zone_token : c->api_token, a);
    struct slice url = arena_join(a, (struct slice[]){c->endpoint, SLICE("/zones?name="),
                                                      dns_escape(r->zone, a)}, 3);
    TRY(dns_call(&(struct dns_call){.url = url, .fields = &token, .fields_count = 1}, a, &answer,
                 why));
    const json_t *zones = json_object_get(answer.json, "result");
    const char *text = json_string_value(json_object_get(json_array_get(zones, 0), "id"));
    if (text == NULL || json_array_size(zones) != 1) {
        json_decref(answer.json);
        return dns_fail(why, "the token sees no zone " SLICE_FMT, SLICE_ARG(r->zone));
    }
    *id = dns_escape(slice_from(text), a);
    json_decref(answer.json);
    return OK;
}

static enum err append(const void *cfg, const struct dns_record *r, struct arena *a,
                       struct dns_why *why)
{
    struct slice zone;
    struct dns_answer answer;
    const struct cloudflare *c = cfg;
    TRY(find_zone(c, r, a, &zone, why));
    struct field token = dns_bearer(c->api_token, a);
    struct slice name = dns_record_fqdn(r, a), text = dns_content(r, "\"", "", a);
    struct slice kind = dns_record_type(r);
    json_t *body = json_pack("{s:s%, s:s%, s:s%, s:i}", "type", kind.ptr, kind.len, "name", name.ptr,
                             name.len, "content", text.ptr, text.len, "ttl",
                             r->ttl_s > 0 ? (int)r->ttl_s : TTL_S);
    struct slice url = arena_join(a, (struct slice[]){c->endpoint, SLICE("/zones/"), zone,
                                                      SLICE("/dns_records")}, 4);
    enum err e = dns_call(&(struct dns_call){.method = "POST", .url = url, .fields = &token,
                                             .fields_count = 1, .body = body}, a, &answer, why);
    json_decref(answer.json);
    if (e != OK && strstr(why->text, "81058") != NULL) /* an identical record is there already */
        return OK;
    return e;
}

static enum err remove_one(const struct cloudflare *c, struct slice zone, const char *id,
                           struct arena *a, struct dns_why *why)
{
    struct slice url = arena_join(a, (struct slice[]){c->endpoint, SLICE("/zones/"), zone,
                                                      SLICE("/dns_records/"),
                                                      dns_escape(slice_from(id), a)}, 5);
    return dns_delete(url, c->api_token, a, why);
}

static enum err remove_record(const void *cfg, const struct dns_record *r, struct arena *a,
                              struct dns_why *why)
{
    size_t i;
    json_t *v;
    struct slice zone;
    struct dns_answer answer;
    const struct cloudflare *c = cfg;
    enum err e = OK;
    TRY(find_zone(c, r, a, &zone, why));
    struct field token = dns_bearer(c->api_token, a);
    struct slice url = arena_join(a, (struct slice[]){
        c->endpoint, SLICE("/zones/"), zone, SLICE("/dns_records?type="), dns_record_type(r),
        SLICE("&name="), dns_escape(dns_record_fqdn(r, a), a)}, 7);
    TRY(dns_call(&(struct dns_call){.url = url, .fields = &token, .fields_count = 1}, a, &answer,
                 why));
    json_array_foreach(json_object_get(answer.json, "result"), i, v)
    {
        const char *content = json_string_value(json_object_get(v, "content"));
        const char *id = json_string_value(json_object_get(v, "id"));
        struct slice text = slice_from(content);
        bool same = slice_eq(text, r->text) || slice_eq(text, dns_content(r, "\"", "", a));
        if (e == OK && id != NULL && same)
            e = remove_one(c, zone, id, a, why);
    }
    json_decref(answer.json);
    return e;
}

const struct module dns_provider_cloudflare = {
    .id = "dns.providers.cloudflare",
    .cfg_size = sizeof(struct cloudflare),
    .provision = provision,
    .face = &(const struct dns_provider_type){append, remove_record},
};
