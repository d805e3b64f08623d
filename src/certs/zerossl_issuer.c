/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls.issuance.zerossl: certificates by ZeroSSL's own API and an API key. (ZeroSSL by ACME is the
 * issuer "acme" with "ca": "https://acme.zerossl.com/v2/DV90".)
 *
 *   {"module": "zerossl", "api_key": "…", "validity_days": 90, "listen_host": "…",
 *    "alternate_http_port": 8080, "cname_validation": {"provider": {"name": "…"}, …},
 *    "network_proxy": {"from": "url", "url": "http://proxy.example:3128"}}
 *
 * Names are proved by a file that ZeroSSL fetches, or by CNAME records. A certificate that does not
 * come to be is cancelled there.
 */
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "certs/certs_modules.h"
#include "certs/challenge_listener.h"
#include "certs/dns_solver.h"
#include "certs/issuance.h"
#include "certs/zerossl_api.h"
#include "http/template.h"
#include "loop/await.h"
#include "pki/issued.h"
#include "tls/challenge.h"

enum { POLL_S = 5, POLL_MINUTES = 30 };

static const char logger[] = "tls.issuance.zerossl";

struct zerossl {
    struct slice api_key, listen_host;
    int64_t validity_days;
    uint16_t http_port;
    struct dns_solver_options dns;
    bool by_dns;
    struct network_proxy proxy;
};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"module", "api_key", "validity_days", "listen_host",
                                          "alternate_http_port", "cname_validation", "network_proxy",
                                          NULL};
    struct zerossl *z = cfg;
    const json_t *dns = json_object_get(json, "cname_validation");
    int64_t port;
    TRY(provision_members(p, json, members));
    TRY(provision_text(p, json, "api_key", SLICE(""), &z->api_key));
    TRY(provision_text(p, json, "listen_host", SLICE(""), &z->listen_host));
    TRY(provision_int(p, json, "validity_days", 0, 0, 3650, &z->validity_days));
    TRY(provision_int(p, json, "alternate_http_port", 0, 0, 65535, &port));
    z->http_port = port > 0 ? (uint16_t)port : p->http_port > 0 ? p->http_port : 80;
    z->api_key = template_expand_now(z->api_key, p->arena);
    if (z->api_key.len == 0)
        return provision_fail(p, "an \"api_key\" is needed for ZeroSSL's API");
    TRY(network_proxy_provision(p, json_object_get(json, "network_proxy"), &z->proxy));
    z->by_dns = json_is_object(dns) && json_object_get(dns, "provider") != NULL;
    return z->by_dns ? dns_solver_provision(p, dns, NULL, &z->dns) : OK;
}

/* --- proofs --- */

struct proving {
    const struct zerossl *issuer;
    struct acme *acme; /* for words and the arena */
    struct zerossl_certificate certificate;
    struct challenge_user user;
    struct dns_presented *records;
    size_t presented;
};

/* "http://a.example/.well-known/pki-validation/AB12.txt": the last part. */
static struct slice file_of(struct slice url)
{
    size_t slash = slice_find_last(url, '/');
    return slash == SIZE_MAX ? url : slice_skip(url, slash + 1);
}

static enum err present_files(struct proving *p, struct storage *storage)
{
    char why[256];
    for (; p->presented < p->certificate.proofs_count; p->presented++) {
        const struct zerossl_proof *f = &p->certificate.proofs[p->presented];
        challenge_http_set(file_of(f->url), f->content);
    }
    p->user = (struct challenge_user){.kind = CHALLENGE_HTTP, .host = p->issuer->listen_host,
                                      .port = p->issuer->http_port};
    enum err e = challenge_listener_open(&p->user, why, sizeof why);
    return e == OK ? OK : acme_fail(p->acme, e, "presenting validation file for verification: %s", why);
}

static enum err present_records(struct proving *p)
{
    char why[512];
    p->records = ARENA_ARRAY(p->acme->arena, struct dns_presented, p->certificate.proofs_count);
    for (; p->presented < p->certificate.proofs_count; p->presented++) {
        const struct zerossl_proof *f = &p->certificate.proofs[p->presented];
        enum err e = dns_present(&p->issuer->dns, f->cname, SLICE("CNAME"), f->target,
                                 p->acme->arena, &p->records[p->presented], why, sizeof why);
        if (e != OK) {
            p->presented++;
            return acme_fail(p->acme, e, "creating CNAME record: %s", why);
        }
    }
    for (size_t i = 0; i < p->presented; i++) {
        enum err e = dns_await(&p->issuer->dns, &p->records[i], p->acme->arena, why, sizeof why);
        if (e == ERR_CANCELLED)
            return acme_fail(p->acme, e, "cancelled");
        if (e != OK) /* ZeroSSL decides in the end */
            LOG(LOG_WARN, logger, "failed CNAME record propagation check", LOG_CSTR("error", why));
    }
    return OK;
}

static void take_away(struct proving *p)
{
    char why[512];
    challenge_listener_close(&p->user);
    for (size_t i = 0; i < p->presented; i++) {
        if (!p->issuer->by_dns)
            challenge_http_remove(file_of(p->certificate.proofs[i].url));
        else if (dns_remove(&p->issuer->dns, &p->records[i], p->acme->arena, why, sizeof why) != OK)
            LOG(LOG_WARN, logger, "cleaning up temporary validation record failed",
                LOG_CSTR("error", why));
    }
}

/* --- issuance --- */

static enum err wait_until_issued(struct proving *p, const struct zerossl_client *api)
{
    uint64_t end = clock_mono_ns() + POLL_MINUTES * 60 * NS_PER_S;
    while (slice_is(p->certificate.status, "pending_validation")) {
        if (clock_mono_ns() > end)
            return acme_fail(p->acme, ERR_TIMEOUT, "waiting for certificate to be issued took too long");
        TRY(await_sleep(clock_mono_ns() + POLL_S * NS_PER_S));
        TRY(zerossl_get(p->acme, api, p->certificate.id, &p->certificate));
    }
    return slice_is(p->certificate.status, "issued") ? OK :
           acme_fail(p->acme, ERR_FAILED, "unexpected certificate status: " SLICE_FMT,
                     SLICE_ARG(slice_take(p->certificate.status, 60)));
}

static enum err prove_and_wait(struct proving *p, const struct zerossl_client *api,
                               const struct issue_request *r)
{
    TRY(p->issuer->by_dns ? present_records(p) : present_files(p, r->storage));
    struct slice id = p->certificate.id;
    struct zerossl_certificate kept = p->certificate;
    enum err e = zerossl_verify(p->acme, api, id, p->issuer->by_dns, &p->certificate);
    p->certificate.proofs = kept.proofs; /* what is presented must be taken away */
    p->certificate.proofs_count = kept.proofs_count;
    TRY(e);
    e = wait_until_issued(p, api);
    p->certificate.proofs = kept.proofs;
    p->certificate.proofs_count = kept.proofs_count;
    return e;
}

struct checking {
    struct slice pem, csr;
    char why[256];
    enum err result;
};

static void check_on_loop(void *arg)
{
    struct checking *k = arg;
    k->result = issued_check(k->pem, k->csr, k->why, sizeof k->why);
}

static enum err obtain(struct proving *p, const struct zerossl_client *api,
                       const struct issue_request *r, struct issue_result *result)
{
    TRY(prove_and_wait(p, api, r));
    struct checking k = {.csr = r->csr_der};
    TRY(zerossl_download(p->acme, api, p->certificate.id, &k.pem));
    await_on_loop(check_on_loop, &k);
    if (k.result != OK)
        return acme_fail(p->acme, ERR_INVALID, "the certificate that came is refused: %s", k.why);
    result->chain_pem = k.pem;
    result->metadata = p->certificate.json;
    return OK;
}

static enum err issue(const void *cfg, const struct issue_request *r, struct arena *a,
                      struct issue_result *result)
{
    const struct zerossl *z = cfg;
    struct acme_options options = {.directory = SLICE(""), .proxy = z->proxy};
    struct acme *c = ARENA_NEW(a, struct acme);
    struct zerossl_client api = {.key = z->api_key};
    struct proving *p = ARENA_NEW(a, struct proving);
    *c = (struct acme){.arena = a, .options = &options};
    *p = (struct proving){.issuer = z, .acme = c};
    LOG(LOG_INFO, logger, "creating certificate", LOG_LIST("identifiers", r->names, r->names_count));
    enum err e = zerossl_create(c, &api, r->csr_der, r->names, r->names_count, z->validity_days,
                                &p->certificate);
    if (e == OK) {
        LOG(LOG_INFO, logger, "created certificate", LOG_STR("cert_id", p->certificate.id));
        e = obtain(p, &api, r, result);
        take_away(p);
        if (e != OK && fiber_self()->cancelled == OK)
            zerossl_cancel(c, &api, p->certificate.id);
    }
    result->kind = ISSUE_TRANSIENT;
    snprintf(result->why, sizeof result->why, "%s", e != OK ? c->why : "");
    return e;
}

static struct slice key(const void *cfg, struct arena *a)
{
    return SLICE("zerossl");
}

static const struct issuer_type face = {.key = key, .issue = issue};

const struct module issuer_zerossl = {.id = "tls.issuance.zerossl",
                                      .cfg_size = sizeof(struct zerossl),
                                      .provision = provision,
                                      .face = &face};
