/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Duck DNS: one URL that sets everything. A name below duckdns.org has one TXT record for all that
 * is below it, so only one challenge can be under way for it at a time.
 *
 *     {"name": "duckdns", "api_token": "…", "override_domain": "mine.duckdns.org"}
 */
#include "certs/dns_api.h"

#define ENDPOINT "https://www.duckdns.org/update"
enum { TOKEN_LEN = 36 };

struct duckdns {
    struct slice endpoint, token, domain;
};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"name", "api_token", "override_domain", "resolver",
                                        "endpoint", NULL};
    struct slice resolver; /* of reading records, which is never done here */
    struct duckdns *c = cfg;
    TRY(provision_members(p, json, known));
    TRY(dns_secret(p, json, "api_token", &c->token));
    TRY(dns_secret(p, json, "override_domain", &c->domain));
    TRY(provision_text(p, json, "resolver", SLICE(""), &resolver));
    TRY(dns_endpoint(p, json, ENDPOINT, &c->endpoint));
    if (c->token.len != TOKEN_LEN)
        return provision_fail(p, "the API token must be a UUID of %d characters; it has %zu",
                              TOKEN_LEN, c->token.len);
    return OK;
}

/* Of a name below duckdns.org its last three labels; of another one the last label, as the plugin
 * has it: a name there is an account of its own. */
static struct slice main_domain(struct slice fqdn)
{
    size_t labels = slice_ends(fqdn, SLICE("duckdns.org")) ? 3 : 1;
    for (size_t i = fqdn.len; i > 0; i--) {
        if (fqdn.ptr[i - 1] == '.' && --labels == 0)
            return slice_skip(fqdn, i);
    }
    return fqdn;
}

static enum err set(const struct duckdns *c, const struct dns_record *r, bool clear,
                    struct arena *a, struct dns_why *why)
{
    struct dns_answer answer;
    struct slice domain = c->domain.len > 0 ? c->domain : main_domain(dns_record_fqdn(r, a)), first;
    struct slice url = arena_join(a, (struct slice[]){
        c->endpoint, SLICE("?domains="), dns_escape(domain, a), SLICE("&token="),
        dns_escape(c->token, a), SLICE("&txt="), dns_escape(r->text, a), SLICE("&verbose=true"),
        clear ? SLICE("&clear=true") : SLICE("")}, 9);
    TRY(dns_text_only(r, "Duck DNS", why));
    TRY(dns_call(&(struct dns_call){.url = url, .text = true}, a, &answer, why));
    slice_cut(answer.text, '\n', &first, &answer.text);
    if (slice_is(slice_trim(first), "OK"))
        return OK;
    return dns_fail(why, "Duck DNS refused to %s the TXT record of " SLICE_FMT ": is it the token's "
                    "domain?", clear ? "clear" : "set", SLICE_ARG(domain));
}

static enum err append(const void *cfg, const struct dns_record *r, struct arena *a,
                       struct dns_why *why)
{
    return set(cfg, r, false, a, why);
}

static enum err remove_record(const void *cfg, const struct dns_record *r, struct arena *a,
                              struct dns_why *why)
{
    return set(cfg, r, true, a, why);
}

const struct module dns_provider_duckdns = {
    .id = "dns.providers.duckdns",
    .cfg_size = sizeof(struct duckdns),
    .provision = provision,
    .face = &(const struct dns_provider_type){append, remove_record},
};
