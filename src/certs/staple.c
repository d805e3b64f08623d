/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OCSP staples: kept in the storage where certmagic keeps them (ocsp/<name>-<hash>), asked for anew
 * after half of their time. Only a good answer is shown to clients; a bad one is remembered, for a
 * revoked certificate is to be replaced. That there is no answer is no reason to serve less.
 */
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "certs/large_stack.h"
#include "certs/manager_parts.h"
#include "client/fetch.h"

enum { OCSP_ANSWER_MAX = 1 << 20, SHORT_LIVED_S = 7 * 24 * 3600 };

struct stapling {
    struct holding *holding;
    const struct automation_policy *policy;
    struct credential *credential; /* held: the holding may go while we wait */
    const struct certificate_facts *facts;
    struct slice name;
    struct arena arena;
    struct slice chain, issuer, der, key;
    struct buffer request;
    struct ocsp_facts answer;
    char why[600];
    enum err e;
};

static bool is_fresh(const struct ocsp_facts *f)
{
    return cert_now_s() < f->this_update_s + (f->until_s - f->this_update_s) / 2;
}

bool staple_wants(const struct holding *h, const struct automation_policy *policy)
{
    if (h->credential == NULL || (policy != NULL && policy->no_stapling) ||
        credential_facts(h->credential)->ocsp_url.len == 0 || holding_expired(h))
        return false;
    return !h->has_ocsp || h->ocsp.status == OCSP_UNKNOWN || !is_fresh(&h->ocsp);
}

/* certmagic's name: FNV-1 of the chain's text, without leading zeros. */
static struct slice storage_key(struct stapling *s)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < s->chain.len; i++)
        hash = (hash * 16777619u) ^ (unsigned char)s->chain.ptr[i];
    struct slice name = s->facts->names_count > 0 ? storage_safe(&s->arena, s->facts->names[0])
                                                  : SLICE_NONE;
    return arena_printf(&s->arena, "ocsp/" SLICE_FMT "%s%x", SLICE_ARG(name),
                        name.len > 0 ? "-" : "", hash);
}

static void read_answer(void *arg)
{
    struct stapling *s = arg;
    s->e = ocsp_read(s->der, s->chain, s->issuer, &s->answer, s->why, sizeof s->why);
}

static void make_request(void *arg)
{
    struct stapling *s = arg;
    s->e = ocsp_request(s->chain, s->issuer, &s->request, s->why, sizeof s->why);
}

static bool load_kept(struct stapling *s)
{
    struct storage_why ignored;
    struct storage *storage = s->holding->storage;
    if (storage->type->load(storage, s->key, &s->arena, &s->der, &ignored) != OK)
        return false;
    on_large_stack(read_answer, s);
    if (s->e == OK)
        return is_fresh(&s->answer);
    (void)!storage->type->remove(storage, s->key, &ignored);
    return false;
}

/* --- asking the responder --- */

static struct slice responder(const struct stapling *s)
{
    struct slice url = s->facts->ocsp_url;
    for (size_t i = 0; s->policy != NULL && i < s->policy->overrides_count; i++) {
        if (slice_eq(s->policy->overrides[i].from, url))
            return s->policy->overrides[i].to;
    }
    return url;
}

static enum err fetch_issuer(struct stapling *s)
{
    struct fetch_answer answer = {.status = 0};
    struct fetch_request request = {.url = s->facts->issuer_url, .answer_max = OCSP_ANSWER_MAX,
                                    .redirects = 5};
    if (s->facts->chain > 1)
        return OK;
    if (s->facts->issuer_url.len == 0) {
        snprintf(s->why, sizeof s->why, "no URL to issuing certificate");
        return ERR_INVALID;
    }
    enum err e = fetch(&request, &s->arena, &answer);
    if (e != OK)
        snprintf(s->why, sizeof s->why, "getting issuer certificate: %s", answer.why);
    s->issuer = answer.body;
    return e;
}

static enum err fetch_answer(struct stapling *s, struct slice url)
{
    static const struct field type = {.name = {"Content-Type", 12},
                                      .value = {"application/ocsp-request", 24}};
    struct fetch_answer answer = {.status = 0};
    struct fetch_request request = {.method = SLICE("POST"), .url = url, .fields = &type,
                                    .fields_count = 1, .body = buffer_slice(&s->request),
                                    .answer_max = OCSP_ANSWER_MAX, .repeatable = true};
    enum err e = fetch(&request, &s->arena, &answer);
    if (e != OK) {
        snprintf(s->why, sizeof s->why, "making OCSP request: %s", answer.why);
        return e;
    }
    if (answer.status != 200) {
        snprintf(s->why, sizeof s->why, "making OCSP request: the responder answers with status %d",
                 answer.status);
        return ERR_FAILED;
    }
    s->der = answer.body;
    return OK;
}

static enum err ask(struct stapling *s)
{
    struct slice url = responder(s);
    if (url.len == 0) {
        snprintf(s->why, sizeof s->why, "override disables querying OCSP responder: " SLICE_FMT,
                 SLICE_ARG(s->facts->ocsp_url));
        return ERR_DENIED;
    }
    TRY(fetch_issuer(s));
    on_large_stack(make_request, s);
    TRY(s->e);
    TRY(fetch_answer(s, url));
    on_large_stack(read_answer, s);
    TRY(s->e);
    if (s->answer.next_update_s <= s->facts->not_after_s + 1)
        return OK;
    snprintf(s->why, sizeof s->why, "invalid: the OCSP response is valid after the certificate "
             "expires");
    return ERR_INVALID;
}

/* --- what comes of it --- */

static void store(struct stapling *s)
{
    struct storage_why why = {""};
    struct storage *storage = s->holding->storage;
    if (storage->type->store(storage, s->key, s->der, &why) != OK)
        LOG(LOG_WARN, "tls", "stapling OCSP", LOG_CSTR("error", why.text),
            LOG_LIST("identifiers", s->facts->names, s->facts->names_count));
}

static bool is_still_there(const struct stapling *s)
{
    struct list *all = s->policy != NULL ? &manager.holdings : &manager.manuals;
    if (s->policy != NULL && holding_find(s->name) != s->holding)
        return false;
    LIST_FOR(it, all)
    {
        if (s->policy != NULL || CONTAINER_OF(it, struct holding, node) == s->holding)
            return s->holding->credential == s->credential;
    }
    return false;
}

static bool apply(struct stapling *s)
{
    struct holding *h = s->holding;
    if (!is_still_there(s))
        return false;
    h->ocsp = s->answer;
    h->has_ocsp = true;
    if (s->answer.status != OCSP_GOOD)
        return false;
    struct credential *stapled = credential_with_staple(h->credential, s->der);
    if (stapled == NULL)
        return false;
    credential_unref(h->credential);
    h->credential = stapled;
    return true;
}

static bool refresh(struct stapling *s, bool may_ask)
{
    if (load_kept(s))
        return apply(s);
    if (!may_ask)
        return false;
    enum err e = ask(s);
    if (e == OK) {
        if (!is_still_there(s))
            return false;
        if (s->answer.status == OCSP_GOOD)
            store(s);
        return apply(s);
    }
    if (e != ERR_CANCELLED && s->facts->not_after_s - s->facts->not_before_s >= SHORT_LIVED_S)
        LOG(LOG_WARN, "tls", "stapling OCSP", LOG_CSTR("error", s->why),
            LOG_LIST("identifiers", s->facts->names, s->facts->names_count));
    return false;
}

bool staple_refresh(struct holding *h, const struct automation_policy *policy, bool may_ask)
{
    struct stapling s = {.holding = h, .policy = policy};
    if (!staple_wants(h, policy))
        return false;
    arena_init(&s.arena, 8192);
    buffer_init(&s.request, 65536);
    s.credential = credential_ref(h->credential);
    s.facts = credential_facts(s.credential);
    s.chain = credential_pem(s.credential);
    s.name = arena_copy(&s.arena, h->name);
    s.key = storage_key(&s);
    bool changed = refresh(&s, may_ask);
    credential_unref(s.credential);
    buffer_deinit(&s.request);
    arena_deinit(&s.arena);
    return changed;
}
