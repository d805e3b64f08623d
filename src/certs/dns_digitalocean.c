/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DigitalOcean's API, version 2: records of a domain. What is to be removed is found by its name
 * and text.
 *
 *     {"name": "digitalocean", "auth_token": "…"}
 */
#include "certs/dns_api.h"

#define ENDPOINT "https://api.digitalocean.com/v2"
enum { TTL_S = 30, PER_PAGE = 200 };

struct digitalocean {
    struct slice endpoint, token;
};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"name", "auth_token", "endpoint", NULL};
    struct digitalocean *c = cfg;
    TRY(provision_members(p, json, known));
    TRY(dns_secret(p, json, "auth_token", &c->token));
    TRY(dns_endpoint(p, json, ENDPOINT, &c->endpoint));
    return c->token.len > 0 ? OK : provision_fail(p, "auth_token is empty");
}

static struct slice records_url(const struct digitalocean *c, const struct dns_record *r,
                                struct slice rest, struct arena *a)
{
    return arena_join(a, (struct slice[]){c->endpoint, SLICE("/domains/"), dns_escape(r->zone, a),
                                          SLICE("/records"), rest}, 5);
}

static enum err append(const void *cfg, const struct dns_record *r, struct arena *a,
                       struct dns_why *why)
{
    struct dns_answer answer;
    const struct digitalocean *c = cfg;
    struct field token = dns_bearer(c->token, a);
    struct slice text = dns_content(r, "", ".", a), kind = dns_record_type(r);
    json_t *body = json_pack("{s:s%, s:s%, s:s%, s:i}", "type", kind.ptr, kind.len, "name",
                             r->name.ptr, r->name.len, "data", text.ptr, text.len, "ttl",
                             r->ttl_s > 0 ? (int)r->ttl_s : TTL_S);
    enum err e = dns_call(&(struct dns_call){.method = "POST", .fields = &token, .fields_count = 1,
                                             .url = records_url(c, r, SLICE(""), a), .body = body},
                          a, &answer, why);
    json_decref(answer.json);
    return e;
}

static enum err remove_one(const struct digitalocean *c, const struct dns_record *r, json_int_t id,
                           struct arena *a, struct dns_why *why)
{
    struct slice url = records_url(c, r, arena_printf(a, "/%" JSON_INTEGER_FORMAT, id), a);
    return dns_delete(url, c->token, a, why);
}

static enum err remove_record(const void *cfg, const struct dns_record *r, struct arena *a,
                              struct dns_why *why)
{
    size_t i;
    json_t *v;
    struct dns_answer answer;
    const struct digitalocean *c = cfg;
    enum err e = OK;
    struct field token = dns_bearer(c->token, a);
    struct slice query = arena_join(a, (struct slice[]){
        SLICE("?type="), dns_record_type(r), SLICE("&per_page=200&name="),
        dns_escape(dns_record_fqdn(r, a), a)}, 4);
    TRY(dns_call(&(struct dns_call){.url = records_url(c, r, query, a), .fields = &token,
                                    .fields_count = 1, .missing_is_ok = true}, a, &answer, why));
    json_array_foreach(json_object_get(answer.json, "domain_records"), i, v)
    {
        const json_t *id = json_object_get(v, "id");
        struct slice data = slice_from(json_string_value(json_object_get(v, "data")));
        struct slice name = slice_from(json_string_value(json_object_get(v, "name")));
        bool same = slice_eq(data, r->text) || slice_eq(data, dns_content(r, "", ".", a));
        if (e == OK && json_is_integer(id) && same && slice_eq(name, r->name))
            e = remove_one(c, r, json_integer_value(id), a, why);
    }
    json_decref(answer.json);
    return e;
}

const struct module dns_provider_digitalocean = {
    .id = "dns.providers.digitalocean",
    .cfg_size = sizeof(struct digitalocean),
    .provision = provision,
    .face = &(const struct dns_provider_type){append, remove_record},
};
