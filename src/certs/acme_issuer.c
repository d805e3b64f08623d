/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls.issuance.acme: certificates by ACME, with certmagic's behaviour around it. A first try goes to
 * the authority, later ones to its test directory, if there is one: what cannot work is found out
 * there, without using up the real one's limits; when it works there the real one is asked at once.
 *
 *   {"module": "acme", "ca": "https://…/directory", "test_ca": "…", "email": "me@example.com",
 *    "account_key": "-----BEGIN …", "external_account": {"key_id": "…", "mac_key": "…"},
 *    "profile": "shortlived", "certificate_lifetime": "48h", "acme_timeout": "5m",
 *    "challenges": {"http": {"disabled": false, "alternate_port": 8080}, "tls-alpn": {…},
 *                   "dns": {"provider": {"name": "…"}, "resolvers": […], "propagation_delay": …,
 *                           "propagation_timeout": …, "ttl": …, "override_domain": "…"},
 *                   "bind_host": "…", "distributed": true},
 *    "trusted_roots_pem_files": ["…"],
 *    "preferred_chains": {"smallest": true, "root_common_name": […], "any_common_name": […]},
 *    "network_proxy": {"from": "url", "url": "http://proxy.example:3128"}}
 */
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "certs/acme_chain.h"
#include "certs/certs_modules.h"
#include "certs/issuance.h"
#include "config/jsonx.h"
#include "http/template.h"
#include "http/uri.h"
#include "pki/subject.h"

enum { PEM_FILE_MAX = 4 << 20, ROOT_FILES_MAX = 64, METADATA_MAX = 16 << 10 };

#define LETS_ENCRYPT "https://acme-v02.api.letsencrypt.org/directory"
#define LETS_ENCRYPT_TEST "https://acme-staging-v02.api.letsencrypt.org/directory"

static const char logger[] = "tls.issuance.acme";

struct acme_issuer {
    struct slice ca, test_ca; /* URLs with a scheme */
    struct slice configured_ca; /* as it is written: the folder's name is made of it */
    struct slice email, account_key, binding_id, binding_key, profile;
    int64_t lifetime_ns, timeout_ns;
    struct solver_options solvers; /* storage and key are each request's */
    struct dns_solver_options dns;
    struct chain_preference preference;
    struct tls_client *tls; /* NULL: the system's roots */
    struct network_proxy proxy;
};

/* --- configuration --- */

/* Placeholders are replaced; what becomes empty by it is an error, as in Caddy. */
static enum err read_text(struct provision *p, const json_t *json, const char *key,
                          struct slice fallback, struct slice *out)
{
    struct slice text;
    TRY(provision_text(p, json, key, SLICE(""), &text));
    *out = text.len > 0 ? template_expand_now(text, p->arena) : fallback;
    if (text.len > 0 && out->len == 0)
        return provision_fail(p, "\"%s\": its placeholders give an empty text", key);
    return OK;
}

static bool given(const json_t *value)
{
    return value != NULL && !json_is_null(value);
}

static enum err read_challenge(struct provision *p, const json_t *json, bool *enabled, uint16_t *port)
{
    static const char *const members[] = {"disabled", "alternate_port", NULL};
    bool disabled;
    int64_t alternate;
    if (!given(json))
        return OK;
    TRY(provision_members(p, json, members));
    TRY(provision_bool(p, json, "disabled", false, &disabled));
    TRY(provision_int(p, json, "alternate_port", 0, 0, 65535, &alternate));
    *enabled = !disabled;
    if (alternate > 0)
        *port = (uint16_t)alternate;
    return OK;
}

static enum err read_dns(struct provision *p, const json_t *json, struct acme_issuer *c)
{
    if (!given(json))
        return OK;
    TRY(dns_solver_provision(p, json, json_object_get(p->tls, "dns"), &c->dns));
    if (c->dns.resolvers_count == 0 && p->tls != NULL)
        TRY(provision_texts(p, p->tls, "resolvers", &c->dns.resolvers, &c->dns.resolvers_count));
    if (c->dns.override_domain.len > 0)
        c->dns.override_domain = template_expand_now(c->dns.override_domain, p->arena);
    c->solvers.dns = &c->dns;
    return OK;
}

static enum err read_challenges(struct provision *p, const json_t *json, struct acme_issuer *c)
{
    static const char *const members[] = {"http", "tls-alpn", "dns", "bind_host", "distributed",
                                          NULL};
    struct solver_options *s = &c->solvers;
    *s = (struct solver_options){.http = true, .tls_alpn = true, .distributed = true,
                                 .http_port = p->http_port > 0 ? p->http_port : 80,
                                 .tls_alpn_port = p->https_port > 0 ? p->https_port : 443};
    if (!given(json))
        return OK;
    TRY(provision_members(p, json, members));
    TRY(read_challenge(p, json_object_get(json, "http"), &s->http, &s->http_port));
    TRY(read_challenge(p, json_object_get(json, "tls-alpn"), &s->tls_alpn, &s->tls_alpn_port));
    TRY(provision_text(p, json, "bind_host", SLICE(""), &s->bind_host));
    TRY(provision_bool(p, json, "distributed", true, &s->distributed));
    return read_dns(p, json_object_get(json, "dns"), c);
}

static enum err read_binding(struct provision *p, const json_t *json, struct acme_issuer *c)
{
    static const char *const members[] = {"key_id", "mac_key", NULL};
    if (!given(json))
        return OK;
    TRY(provision_members(p, json, members));
    TRY(read_text(p, json, "key_id", SLICE(""), &c->binding_id));
    return read_text(p, json, "mac_key", SLICE(""), &c->binding_key);
}

static enum err read_preference(struct provision *p, const json_t *json, struct acme_issuer *c)
{
    static const char *const members[] = {"smallest", "root_common_name", "any_common_name", NULL};
    struct chain_preference *f = &c->preference;
    bool smallest;
    if (!given(json))
        return OK;
    TRY(provision_members(p, json, members));
    TRY(provision_bool(p, json, "smallest", false, &smallest));
    f->smallest = !given(json_object_get(json, "smallest")) ? 0 : smallest ? 1 : -1;
    TRY(provision_texts(p, json, "root_common_name", &f->root_common_names,
                        &f->root_common_names_count));
    return provision_texts(p, json, "any_common_name", &f->any_common_names,
                           &f->any_common_names_count);
}

static enum err read_file(struct provision *p, struct slice path, struct slice *out)
{
    FILE *f = fopen(arena_str(p->arena, path), "re");
    if (f == NULL)
        return provision_fail(p, "loading trusted root CA's PEM file: " SLICE_FMT ": %m",
                              SLICE_ARG(path));
    char *text = arena_alloc(p->arena, PEM_FILE_MAX);
    size_t len = fread(text, 1, PEM_FILE_MAX, f);
    (void)fclose(f);
    *out = slice_of(text, len);
    return len < PEM_FILE_MAX ? OK : provision_fail(p, SLICE_FMT " is too large for a PEM file",
                                                    SLICE_ARG(path));
}

static void release_tls(void *tls)
{
    tls_client_unref(tls);
}

static enum err read_roots(struct provision *p, const json_t *json, struct acme_issuer *c)
{
    struct slice *paths, roots[ROOT_FILES_MAX];
    size_t count;
    char why[256];
    TRY(provision_texts(p, json, "trusted_roots_pem_files", &paths, &count));
    if (count == 0)
        return OK;
    if (count > ROOT_FILES_MAX)
        return provision_fail(p, "\"trusted_roots_pem_files\" are more than %d", ROOT_FILES_MAX);
    for (size_t i = 0; i < count; i++)
        TRY(read_file(p, paths[i], &roots[i]));
    struct tls_client_options options = {.roots_pem = roots, .roots_count = count};
    if (tls_client_create(&options, &c->tls, why, sizeof why) != OK)
        return provision_fail(p, "\"trusted_roots_pem_files\": %s", why);
    provision_on_release(p, release_tls, c->tls);
    return OK;
}

static struct slice with_scheme(struct slice url, struct arena *a)
{
    if (url.len == 0 || slice_find_slice(url, SLICE("://")) != SIZE_MAX)
        return url;
    return arena_join(a, (struct slice[]){SLICE("https://"), url}, 2);
}

static struct slice lower(struct slice text, struct arena *a)
{
    text = arena_copy(a, slice_trim(text));
    for (size_t i = 0; i < text.len; i++)
        ((char *)text.ptr)[i] = ascii_lower(text.ptr[i]);
    return text;
}

static enum err read_authorities(struct provision *p, const json_t *json, struct acme_issuer *c)
{
    TRY(read_text(p, json, "ca", SLICE(LETS_ENCRYPT), &c->configured_ca));
    c->ca = with_scheme(c->configured_ca, p->arena);
    struct slice test = slice_is(c->ca, LETS_ENCRYPT) ? SLICE(LETS_ENCRYPT_TEST) : SLICE("");
    TRY(read_text(p, json, "test_ca", test, &c->test_ca));
    c->test_ca = with_scheme(c->test_ca, p->arena);
    if (!acme_url_ok(c->ca))
        return provision_fail(p, "\"ca\" is not the URL of a directory: " SLICE_FMT,
                              SLICE_ARG(c->ca));
    return c->test_ca.len == 0 || acme_url_ok(c->test_ca) ? OK :
           provision_fail(p, "\"test_ca\" is not the URL of a directory: " SLICE_FMT,
                          SLICE_ARG(c->test_ca));
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {
        "module", "ca", "test_ca", "email", "profile", "account_key", "external_account",
        "acme_timeout", "challenges", "trusted_roots_pem_files", "preferred_chains",
        "certificate_lifetime", "network_proxy", NULL};
    struct acme_issuer *c = cfg;
    TRY(provision_members(p, json, members));
    TRY(read_authorities(p, json, c));
    TRY(read_text(p, json, "email", SLICE(""), &c->email));
    c->email = lower(c->email, p->arena);
    TRY(read_text(p, json, "account_key", SLICE(""), &c->account_key));
    TRY(provision_text(p, json, "profile", SLICE(""), &c->profile));
    TRY(provision_duration(p, json, "acme_timeout", 0, &c->timeout_ns));
    TRY(provision_duration(p, json, "certificate_lifetime", 0, &c->lifetime_ns));
    TRY(read_binding(p, json_object_get(json, "external_account"), c));
    TRY(read_challenges(p, json_object_get(json, "challenges"), c));
    TRY(read_preference(p, json_object_get(json, "preferred_chains"), c));
    TRY(network_proxy_provision(p, json_object_get(json, "network_proxy"), &c->proxy));
    return read_roots(p, json, c);
}

/* --- one undertaking --- */

struct undertaking {
    const struct acme_issuer *issuer;
    struct acme acme;
    struct acme_options options;
    struct acme_account_options account_options;
    struct acme_account account;
};

static enum err check_scheme(struct undertaking *u)
{
    struct slice url = u->options.directory, host, port;
    if (slice_starts_nocase(url, SLICE("https://")))
        return OK;
    struct slice rest = slice_skip(url, sizeof "http://" - 1);
    size_t slash = slice_find(rest, '/');
    host_split(slice_take(rest, slash < rest.len ? slash : rest.len), &host, &port);
    return subject_is_internal(host) ? OK :
           acme_fail(&u->acme, ERR_INVALID, SLICE_FMT ": insecure CA URL (HTTPS required for "
                     "non-internal CA)", SLICE_ARG(url));
}

static struct slice email_of(const struct acme_issuer *c, struct storage *storage, struct arena *a)
{
    if (c->email.len > 0)
        return c->email;
    return lower(acme_account_newest_email(storage, c->ca, a), a);
}

/* Directory and account of an authority. */
static enum err begin(struct undertaking *u, const struct acme_issuer *c, bool test,
                      struct storage *storage, struct arena *a)
{
    *u = (struct undertaking){.issuer = c};
    u->acme.arena = a;
    u->options = (struct acme_options){
        .directory = test && c->test_ca.len > 0 ? c->test_ca : c->ca, .tls = c->tls,
        .proxy = c->proxy,
        .poll_timeout_ns = c->timeout_ns > 0 ? (uint64_t)c->timeout_ns : 0};
    u->account_options = (struct acme_account_options){
        .storage = storage, .email = email_of(c, storage, a), .key_pem = c->account_key,
        .binding_id = c->binding_id, .binding_key = c->binding_key,
        .zerossl = slice_starts(c->ca, SLICE("https://acme.zerossl.com/"))};
    TRY(check_scheme(u));
    return acme_begin(&u->acme, &u->options, a);
}

static enum err begin_with_account(struct undertaking *u, const struct acme_issuer *c, bool test,
                                   struct storage *storage, struct arena *a)
{
    TRY(begin(u, c, test, storage, a));
    return acme_account_open(&u->acme, &u->account_options, &u->account);
}

static void end(struct undertaking *u)
{
    acme_account_close(&u->account);
    acme_end(&u->acme);
}

static void tell_failure(const struct undertaking *u, struct issue_result *result)
{
    const struct acme_problem *p = u->acme.problem;
    bool limited = p != NULL && (p->status == 429 || acme_problem_is(p, "rateLimited"));
    result->kind = limited ? ISSUE_RATE_LIMITED : ISSUE_TRANSIENT;
    result->retry_after_ns = u->acme.retry_after_ns;
    snprintf(result->why, sizeof result->why, "%s", u->acme.why);
}

/* --- issuance --- */

static enum err throttle(struct undertaking *u, const struct issue_request *r)
{
    struct slice email = u->account_options.email;
    struct slice key = arena_join(u->acme.arena, (struct slice[]){u->options.directory, SLICE(","),
                                                                  email}, 3);
    LOG(LOG_INFO, logger, "waiting on internal rate limiter",
        LOG_LIST("identifiers", r->names, r->names_count), LOG_STR("ca", u->options.directory),
        LOG_STR("account", email));
    enum err e = acme_throttle(key);
    if (e != OK)
        return acme_fail(&u->acme, e, "waiting on internal rate limiter: %s", err_text(e));
    LOG(LOG_INFO, logger, "done waiting on internal rate limiter",
        LOG_LIST("identifiers", r->names, r->names_count), LOG_STR("ca", u->options.directory),
        LOG_STR("account", email));
    return OK;
}

/* An authority that was set up anew does not know the account any more; once, it is made again. */
static enum err obtain(struct undertaking *u, const struct acme_wish *wish,
                       struct acme_chains *chains)
{
    enum err e = acme_obtain(&u->acme, &u->account, wish, chains);
    if (e != ERR_FAILED || u->acme.problem == NULL ||
        !acme_problem_is(u->acme.problem, "accountDoesNotExist"))
        return e;
    LOG(LOG_WARN, logger, "ACME account does not exist on server; attempting to recreate",
        LOG_STR("account_id", u->account.location), LOG_CSTR("problem", u->acme.why));
    TRY(acme_account_forget(&u->acme, &u->account_options, &u->account));
    acme_account_close(&u->account);
    TRY(acme_account_open(&u->acme, &u->account_options, &u->account));
    return acme_obtain(&u->acme, &u->account, wish, chains);
}

static enum err put_metadata(struct buffer *b, const struct undertaking *u,
                             const struct acme_chain *chain)
{
    TRY(BUFFER_PUT(b, "{\"url\":"));
    TRY(jsonx_put_string(b, chain->url));
    TRY(BUFFER_PUT(b, ",\"ca\":"));
    TRY(jsonx_put_string(b, u->options.directory));
    TRY(BUFFER_PUT(b, ",\"account\":"));
    TRY(jsonx_put_string(b, u->account.location));
    if (chain->renewal_json.len > 0) {
        TRY(BUFFER_PUT(b, ",\"renewal_info\":"));
        TRY(buffer_append(b, chain->renewal_json));
    }
    return BUFFER_PUT(b, "}");
}

static void take_chain(struct undertaking *u, const struct acme_chains *chains,
                       struct issue_result *result)
{
    const struct acme_chain *chain =
        &chains->items[acme_prefer(chains, &u->issuer->preference, u->acme.arena)];
    struct buffer b;
    buffer_init(&b, METADATA_MAX);
    result->chain_pem = chain->pem;
    result->metadata = put_metadata(&b, u, chain) == OK ? arena_copy(u->acme.arena, buffer_slice(&b)) :
                                                          SLICE("");
    buffer_deinit(&b);
    LOG(LOG_DEBUG, logger, "selected certificate chain", LOG_STR("url", chain->url));
}

static enum err issue_now(struct undertaking *u, const struct issue_request *r, bool test,
                          unsigned attempt, struct issue_result *result)
{
    const struct acme_issuer *c = u->issuer;
    struct solver_options solvers = c->solvers;
    struct acme_chains *chains = ARENA_NEW(u->acme.arena, struct acme_chains);
    bool uses_test = slice_eq(u->options.directory, c->test_ca);
    solvers.storage = r->storage;
    solvers.issuer_key = acme_issuer_key(u->options.directory, u->acme.arena);
    /* Once it is tried without, in case it is that which the authority does not like. */
    struct acme_wish wish = {.names = r->names, .names_count = r->names_count, .csr_der = r->csr_der,
                             .profile = c->profile, .solvers = &solvers,
                             .replaces = uses_test || attempt == 2 ? SLICE("") : r->replaces};
    if (c->lifetime_ns > 0)
        wish.not_after_s = (clock_wall_ns() + c->lifetime_ns) / (int64_t)NS_PER_S;
    if (!uses_test) {
        wish.noted = r->noted;
        wish.note = r->note;
        wish.note_arg = r->note_arg;
    }
    if (!test)
        TRY(throttle(u, r));
    LOG(LOG_INFO, logger, "using ACME account", LOG_STR("account_id", u->account.location),
        LOG_LIST("account_contact", u->account.contacts, u->account.contacts_count));
    enum err e = obtain(u, &wish, chains);
    if (e == OK)
        take_chain(u, chains, result);
    else
        acme_context(&u->acme, SLICE_FMT " (ca=" SLICE_FMT ")", SLICE_ARG(r->names[0]),
                     SLICE_ARG(slice_take(u->options.directory, 200)));
    return e;
}

static enum err issue_at(const struct acme_issuer *c, const struct issue_request *r,
                         unsigned attempt, struct arena *a, struct issue_result *result)
{
    struct undertaking *u = ARENA_NEW(a, struct undertaking);
    bool test = attempt > 0;
    enum err e = begin_with_account(u, c, test, r->storage, a);
    if (e == OK)
        e = issue_now(u, r, test, attempt, result);
    if (e != OK)
        tell_failure(u, result);
    end(u);
    return e;
}

static enum err issue(const void *cfg, const struct issue_request *r, struct arena *a,
                      struct issue_result *result)
{
    const struct acme_issuer *c = cfg;
    if (r->names_count == 0) {
        snprintf(result->why, sizeof result->why, "no names to order a certificate for");
        return ERR_INVALID;
    }
    enum err e = issue_at(c, r, r->attempt, a, result);
    if (e != OK || r->attempt == 0 || c->test_ca.len == 0 || slice_eq(c->test_ca, c->ca))
        return e;
    /* It works with the test authority; its certificate is nobody's. */
    result->chain_pem = result->metadata = SLICE("");
    e = issue_at(c, r, 0, a, result);
    if (e != OK && e != ERR_CANCELLED && result->kind != ISSUE_RATE_LIMITED)
        result->kind = ISSUE_REJECTED;
    return e;
}

/* --- the rest of the face --- */

static struct slice key(const void *cfg, struct arena *a)
{
    const struct acme_issuer *c = cfg;
    return acme_issuer_key(c->configured_ca, a);
}

static enum err revoke(const void *cfg, struct slice chain_pem, struct slice key_pem, int reason,
                       struct storage *storage, struct arena *a, struct issue_result *result)
{
    struct undertaking *u = ARENA_NEW(a, struct undertaking);
    enum err e = begin_with_account(u, cfg, false, storage, a);
    if (e == OK)
        e = acme_revoke(&u->acme, &u->account, chain_pem, reason);
    if (e != OK)
        tell_failure(u, result);
    end(u);
    return e;
}

static enum err window(const void *cfg, struct slice ari_id, struct storage *storage, struct arena *a,
                       struct renewal_window *out)
{
    struct undertaking *u = ARENA_NEW(a, struct undertaking);
    struct acme_renewal renewal;
    *out = (struct renewal_window){0};
    enum err e = begin(u, cfg, false, storage, a);
    if (e == OK)
        e = acme_window(&u->acme, ari_id, &renewal, &out->look_again_ns);
    if (e == OK) {
        out->start_s = renewal.start_s;
        out->end_s = renewal.end_s;
        out->explanation_url = renewal.explanation_url;
    } else if (e != ERR_UNSUPPORTED) {
        LOG(LOG_WARN, logger, "error getting ARI response", LOG_CSTR("error", u->acme.why));
    }
    end(u);
    return e;
}

/* Public authorities, and whether they give certificates to addresses by ACME. */
static const struct {
    const char *part;
    bool addresses;
} public_authorities[] = {
    {"api.letsencrypt.org", true},  {"acme.zerossl.com", false}, {"api.pki.goog", true},
    {"api.buypass.com", false},     {"acme.ssl.com", false},
};

static const char *refuses(const void *cfg, struct slice name)
{
    const struct acme_issuer *c = cfg;
    for (size_t i = 0; i < sizeof public_authorities / sizeof public_authorities[0]; i++) {
        if (slice_find_slice(c->ca, slice_from(public_authorities[i].part)) == SIZE_MAX)
            continue;
        if (!subject_qualifies_public(name))
            return "the subject does not qualify for a public certificate";
        if (!public_authorities[i].addresses && subject_is_ip(name))
            return "this authority issues for no IP address by ACME";
        return NULL;
    }
    return NULL;
}

static const struct issuer_type face = {key, issue, revoke, window, refuses};

const struct module issuer_acme = {.id = "tls.issuance.acme",
                                   .cfg_size = sizeof(struct acme_issuer),
                                   .provision = provision,
                                   .face = &face};
