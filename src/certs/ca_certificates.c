/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request is signed when all of its order is proved; what was issued is kept, to be given out again and
 * to be revoked.
 */
#include "certs/ca_call.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "certs/pki_app.h"
#include "loop/await.h"
#include "pki/issued.h"

static const char logger[] = "http.handlers.acme_server";

/* --- certificates --- */

static bool same_names(struct call *c, const struct ca_order *o, const struct slice *names,
                       size_t count)
{
    size_t found = 0;
    for (size_t i = 0; i < o->count; i++)
        for (size_t k = 0; k < count; k++)
            found += slice_eq_nocase(ca_full_name(c, &o->authorizations[i]), names[k]);
    return count == o->count && found == count;
}

struct signing {
    struct slice csr, *names;
    size_t count;
    struct arena *arena;
    char why[256];
    enum err result;
};

static void read_csr(void *arg)
{
    struct signing *s = arg;
    s->result = csr_read(s->csr, s->arena, &s->names, &s->count, s->why, sizeof s->why);
}

static enum err sign(struct call *c, const struct ca_order *o, const struct signing *s,
                     struct buffer *chain, struct storage_why *why)
{
    struct authority *authority;
    int64_t lifetime = c->settings->lifetime_ns;
    bool clamped;
    if (o->not_after_s > 0)
        lifetime = (o->not_after_s - ca_now_s()) * (int64_t)NS_PER_S;
    struct authority_leaf leaf = {.csr_der = s->csr, .names = s->names, .names_count = s->count,
                                  .lifetime_ns = lifetime,
                                  .sign_with_root = c->settings->sign_with_root};
    TRY(pki_running(c->settings->id, &authority, why));
    enum err e = authority_issue(authority, &leaf, chain, &clamped, why);
    authority_unref(authority);
    return e;
}

static void keep_certificate(struct call *c, struct ca_order *o, struct slice chain)
{
    struct buffer der;
    buffer_init(&der, CA_ANSWER_MAX);
    enum err e = issued_leaf(chain, &der);
    if (e == OK)
        e = ca_issued_store(&c->records, buffer_slice(&der), c->account.id, -1);
    buffer_deinit(&der);
    if (e == OK)
        e = ca_chain_store(&c->records, o->id, chain);
    o->status = SLICE("valid");
    if (e == OK)
        e = ca_order_store(&c->records, o);
    if (e != OK)
        return ca_records_fail(c);
    LOG(LOG_INFO, logger, "certificate issued", LOG_STR("ca", c->settings->id),
        LOG_STR("account", c->account.id), LOG_STR("identifier", ca_full_name(c, o->authorizations)));
    ca_give_order(c, o, 200);
}

static void finalize_ready(struct call *c, struct ca_order *o)
{
    struct signing s = {.arena = c->arena};
    struct storage_why why = {""};
    struct buffer chain, der;
    const char *encoded = ca_member_text(c->payload, "csr");
    buffer_init(&der, CA_BODY_MAX);
    buffer_init(&chain, CA_ANSWER_MAX);
    if (encoded == NULL || base64_decode(&der, slice_from(encoded)) != OK) {
        ca_refuse(c, 400, "badCSR", "\"csr\" is not base64url");
    } else {
        s.csr = buffer_slice(&der);
        await_on_loop(read_csr, &s);
        if (s.result != OK)
            ca_refuse(c, 400, "badCSR", "%s", s.why);
        else if (!same_names(c, o, s.names, s.count))
            ca_refuse(c, 400, "badCSR", "the names of the CSR are not those of the order");
        else if (sign(c, o, &s, &chain, &why) != OK)
            ca_refuse(c, 500, "serverInternal", "signing failed: %s", why.text);
        else
            keep_certificate(c, o, arena_copy(c->arena, buffer_slice(&chain)));
    }
    buffer_deinit(&chain);
    buffer_deinit(&der);
}

void ca_serve_finalize(struct call *c, struct slice id)
{
    struct ca_order o;
    struct ca_busy busy;
    if (ca_take_order(&busy, id) != OK)
        return ca_records_fail(c);
    if (ca_load_order(c, id, &o)) {
        if (slice_is(o.status, "valid"))
            ca_give_order(c, &o, 200);
        else if (!slice_is(o.status, "ready"))
            ca_refuse(c, 403, "orderNotReady", "the order is " SLICE_FMT, SLICE_ARG(o.status));
        else
            finalize_ready(c, &o);
    }
    ca_give_order_back(&busy);
}

void ca_serve_certificate(struct call *c, struct slice id)
{
    struct ca_order o;
    struct slice pem;
    if (!ca_load_order(c, id, &o))
        return;
    if (ca_chain_load(&c->records, id, c->arena, &pem) != OK)
        return ca_refuse(c, 404, "malformed", "there is no such certificate");
    c->answer->status = 200;
    c->answer->body = pem;
    c->answer->media = "application/pem-certificate-chain";
}

void ca_serve_revoke(struct call *c)
{
    struct slice account;
    struct buffer der;
    bool revoked = false;
    const char *encoded = ca_member_text(c->payload, "certificate");
    json_int_t reason = json_integer_value(json_object_get(c->payload, "reason"));
    buffer_init(&der, CA_BODY_MAX);
    if (encoded == NULL || base64_decode(&der, slice_from(encoded)) != OK)
        ca_refuse(c, 400, "malformed", "\"certificate\" is not base64url");
    else if (reason < 0 || reason > 10 || reason == 7)
        ca_refuse(c, 400, "badRevocationReason", "there is no such reason");
    else if (ca_issued_load(&c->records, buffer_slice(&der), c->arena, &account, &revoked) != OK)
        ca_refuse(c, 404, "malformed", "this authority gave no such certificate");
    else if (!slice_eq(account, c->account.id) && !certificate_key_is(buffer_slice(&der), c->key))
        ca_refuse(c, 403, "unauthorized", "the certificate is somebody else's");
    else if (revoked)
        ca_refuse(c, 400, "alreadyRevoked", "the certificate is revoked already");
    else if (ca_issued_store(&c->records, buffer_slice(&der), account, (int)reason) != OK)
        ca_records_fail(c);
    else
        c->answer->status = 200;
    buffer_deinit(&der);
}
