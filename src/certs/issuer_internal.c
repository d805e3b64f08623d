/* SPDX-License-Identifier: Apache-2.0 */
/*
 * {"module": "internal", "ca": "local", "lifetime": "12h", "sign_with_root": false}
 *
 * An authority of this process signs at once: nothing to wait for, nothing to prove. A certificate
 * never outlives the one that signed it.
 */
#include "base/clock.h"
#include "base/log.h"
#include "certs/certs_modules.h"
#include "certs/issuance.h"
#include "certs/pki_app.h"

enum { CHAIN_MAX = 1 << 20 };

struct internal {
    struct slice ca;
    struct authority *authority;
    int64_t lifetime_ns;
    bool sign_with_root;
};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"module", "ca", "lifetime", "sign_with_root", NULL};
    struct internal *i = cfg;
    TRY(provision_members(p, json, known));
    TRY(provision_text(p, json, "ca", SLICE_NONE, &i->ca));
    TRY(provision_duration(p, json, "lifetime", 0, &i->lifetime_ns));
    TRY(provision_bool(p, json, "sign_with_root", false, &i->sign_with_root));
    if (i->lifetime_ns < 0)
        return provision_fail(p, "\"lifetime\" must be positive");
    if (i->lifetime_ns == 0)
        i->lifetime_ns = AUTHORITY_LEAF_LIFETIME_NS;
    if (i->ca.len == 0)
        i->ca = SLICE(AUTHORITY_DEFAULT_ID);
    return pki_authority(p, i->ca, &i->authority);
}

static struct slice key(const void *cfg, struct arena *arena)
{
    return ((const struct internal *)cfg)->ca;
}

static enum err issue(const void *cfg, const struct issue_request *q, struct arena *arena,
                      struct issue_result *r)
{
    const struct internal *i = cfg;
    struct authority_leaf leaf = {.csr_der = q->csr_der, .lifetime_ns = i->lifetime_ns,
                                  .sign_with_root = i->sign_with_root};
    struct storage_why why;
    struct buffer chain;
    bool clamped = false;
    buffer_init(&chain, CHAIN_MAX);
    enum err e = authority_issue(i->authority, &leaf, &chain, &clamped, &why);
    if (e != OK) {
        r->kind = e == ERR_INVALID ? ISSUE_REJECTED : ISSUE_TRANSIENT;
        snprintf(r->why, sizeof r->why, "%s", why.text);
    } else {
        r->chain_pem = arena_copy(arena, buffer_slice(&chain));
    }
    if (e == OK && clamped)
        LOG(LOG_WARN, "tls.issuance.internal",
            "cert lifetime would exceed issuer NotAfter, clamping lifetime",
            LOG_DUR("orig_lifetime", i->lifetime_ns));
    buffer_deinit(&chain);
    return e;
}

static const struct issuer_type type = {.key = key, .issue = issue};

const struct module issuer_internal = {
    .id = "tls.issuance.internal",
    .cfg_size = sizeof(struct internal),
    .provision = provision,
    .face = &type,
};
