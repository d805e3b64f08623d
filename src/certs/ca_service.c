/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The resources and their paths are step-ca's, which Caddy serves: directory, new-nonce, new-account,
 * account/ID, new-order, order/ID, order/ID/finalize, authz/ID, challenge/ID/TYPE, certificate/ID,
 * revoke-cert, key-change (which is not implemented there either).
 *
 * Accounts are named by the thumbprint of their key, so that a key finds its account. An order holds
 * its authorizations; it is read, changed and stored whole, by one fiber at a time. A validation runs
 * on a fiber of its own: three tries in ten seconds, then the authorization is invalid. A process
 * that ends meanwhile leaves a challenge "processing", which the client's next post begins again.
 */
#include "certs/ca_service.h"

#include <stdio.h>

#include "base/log.h"
#include "base/text.h"
#include "certs/ca_call.h"
#include "certs/jose.h"
#include "config/jsonx.h"
#include "loop/await.h"
#include "pki/jose_verify.h"

enum { DEPTH_MAX = 16 };

static const char logger[] = "http.handlers.acme_server";

/* --- the directory --- */

static void serve_directory(struct call *c)
{
    static const char *const links[][2] = {
        {"newNonce", "/new-nonce"}, {"newAccount", "/new-account"}, {"newOrder", "/new-order"},
        {"revokeCert", "/revoke-cert"}, {"keyChange", "/key-change"}};
    struct buffer b;
    buffer_init(&b, CA_ANSWER_MAX);
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        (void)buffer_append_f(&b, "%c\"%s\":", i == 0 ? '{' : ',', links[i][0]);
        ca_put_text(&b, "", arena_join(c->arena, (struct slice[]){c->request->base,
                                                               slice_from(links[i][1])}, 2));
    }
    (void)BUFFER_PUT(&b, "}");
    ca_give(c, 200, &b);
    buffer_deinit(&b);
}

/* --- accounts --- */

static void give_account(struct call *c, int status)
{
    struct buffer b;
    struct ca_account *acc = &c->account;
    buffer_init(&b, CA_ANSWER_MAX);
    ca_put_text(&b, "{\"status\":", acc->status);
    (void)BUFFER_PUT(&b, ",\"contact\":[");
    for (size_t i = 0; i < acc->contacts_count; i++)
        ca_put_text(&b, i > 0 ? "," : "", acc->contacts[i]);
    ca_put_text(&b, "],\"orders\":", ca_link(c, "account", acc->id, "/orders"));
    (void)BUFFER_PUT(&b, "}");
    ca_give(c, status, &b);
    c->answer->location = ca_link(c, "account", acc->id, "");
    buffer_deinit(&b);
}

static bool take_contacts(struct call *c)
{
    const json_t *contacts = json_object_get(c->payload, "contact");
    size_t count = json_array_size(contacts);
    if (!json_is_array(contacts))
        return true;
    if (count > CA_CONTACTS_MAX) {
        ca_refuse(c, 400, "invalidContact", "more than %d contacts", CA_CONTACTS_MAX);
        return false;
    }
    c->account.contacts = ARENA_ARRAY(c->arena, struct slice, count);
    for (size_t i = 0; i < count; i++) {
        struct slice contact = slice_from(json_string_value(json_array_get(contacts, i)));
        if (contact.len == 0 || contact.len > CA_CONTACT_LEN) {
            ca_refuse(c, 400, "invalidContact", "a contact must be text, and not a long one");
            return false;
        }
        c->account.contacts[i] = arena_copy(c->arena, contact);
    }
    c->account.contacts_count = count;
    return true;
}

/* The hexadecimal thumbprint: an id that is a file's name. */
static struct slice account_id(struct slice jwk, struct arena *a)
{
    uint8_t digest[SHA256_LEN];
    char *id = arena_alloc(a, 2 * SHA256_LEN + 1);
    sha256(jwk, digest);
    for (size_t i = 0; i < SHA256_LEN; i++)
        snprintf(id + 2 * i, 3, "%02x", digest[i]);
    return slice_of(id, 2 * SHA256_LEN);
}

static void serve_new_account(struct call *c)
{
    struct slice jwk;
    if (!c->jws.has_jwk)
        return ca_refuse(c, 400, "malformed", "\"jwk\" is needed for a new account");
    if (ca_jwk_text(c->key, c->arena, &jwk) != OK)
        return ca_refuse(c, 400, "badPublicKey", "the key is of a kind that is not taken");
    struct slice id = account_id(jwk, c->arena);
    enum err e = ca_account_load(&c->records, id, c->arena, &c->account);
    if (e == OK)
        return slice_is(c->account.status, "valid") ? give_account(c, 200) :
               ca_refuse(c, 401, "unauthorized", "the account is not valid");
    if (e != ERR_NOT_FOUND)
        return ca_records_fail(c);
    if (json_is_true(json_object_get(c->payload, "onlyReturnExisting")))
        return ca_refuse(c, 400, "accountDoesNotExist", "there is no account with that key");
    c->account = (struct ca_account){.id = id, .status = SLICE("valid"), .jwk = jwk};
    if (!take_contacts(c))
        return;
    if (ca_account_store(&c->records, &c->account) != OK)
        return ca_records_fail(c);
    LOG(LOG_INFO, logger, "new account", LOG_STR("ca", c->settings->id), LOG_STR("account", id));
    give_account(c, 201);
}

static void serve_account(struct call *c, struct slice id)
{
    const char *status = ca_member_text(c->payload, "status");
    if (!slice_eq(id, c->account.id))
        return ca_refuse(c, 401, "unauthorized", "that is another account");
    if (c->payload != NULL) {
        if (status != NULL && strcmp(status, "deactivated") == 0)
            c->account.status = SLICE("deactivated");
        else if (!take_contacts(c))
            return;
        if (ca_account_store(&c->records, &c->account) != OK)
            return ca_records_fail(c);
    }
    give_account(c, 200);
}

/* --- who asks --- */

static bool identify_by_key(struct call *c)
{
    enum err e = jwk_read(&c->jws.jwk, &c->key);
    if (e != OK)
        ca_refuse(c, 400, "badPublicKey", e == ERR_UNSUPPORTED ? "keys are P-256, P-384, P-521, Ed25519 "
                  "or RSA of 2048 to 8192 bits" : "\"jwk\" is not a public key");
    return e == OK;
}

static bool identify_by_account(struct call *c)
{
    struct slice prefix = ca_link(c, "account", SLICE(""), "");
    struct slice id = slice_skip(c->jws.kid, prefix.len);
    if (!slice_starts(c->jws.kid, prefix) ||
        ca_account_load(&c->records, id, c->arena, &c->account) != OK) {
        ca_refuse(c, 400, "accountDoesNotExist", "there is no such account");
        return false;
    }
    if (!slice_is(c->account.status, "valid")) {
        ca_refuse(c, 401, "unauthorized", "the account is " SLICE_FMT, SLICE_ARG(c->account.status));
        return false;
    }
    if (ca_jwk_load(c->account.jwk, &c->key) == OK)
        return true;
    ca_records_fail(c);
    return false;
}

static bool check_request(struct call *c, bool may_use_key)
{
    const char *why;
    struct slice type, rest;
    slice_cut(c->request->content_type, ';', &type, &rest);
    if (!slice_eq_nocase(slice_trim(type), SLICE("application/jose+json"))) {
        ca_refuse(c, 415, "malformed", "the content type must be application/jose+json");
        return false;
    }
    if (ca_jws_read(c->request->body, c->arena, &c->jws, &why) != OK) {
        ca_refuse(c, 400, "malformed", "%s", why);
        return false;
    }
    if (!ca_nonce_use(c->jws.nonce)) {
        ca_refuse(c, 400, "badNonce", "the nonce is not known, or was used already");
        return false;
    }
    struct slice url = arena_join(c->arena, (struct slice[]){c->request->base, c->request->path}, 2);
    if (!slice_eq(c->jws.url, url)) {
        ca_refuse(c, 403, "unauthorized", "the request was signed for " SLICE_FMT ", not for " SLICE_FMT,
                  SLICE_ARG(slice_take(c->jws.url, 150)), SLICE_ARG(slice_take(url, 150)));
        return false;
    }
    if (c->jws.has_jwk && !may_use_key) {
        ca_refuse(c, 400, "malformed", "\"kid\" is needed here, not \"jwk\"");
        return false;
    }
    return true;
}

struct verifying {
    struct call *call;
    bool good;
};

static void verify_on_loop(void *arg)
{
    struct verifying *v = arg;
    v->good = jose_verify(v->call->key, v->call->jws.algorithm, v->call->jws.signed_text,
                          v->call->jws.signature);
}

static bool authenticate(struct call *c, bool may_use_key)
{
    struct verifying v = {c, false};
    if (!check_request(c, may_use_key) ||
        !(c->jws.has_jwk ? identify_by_key(c) : identify_by_account(c)))
        return false;
    await_on_loop(verify_on_loop, &v);
    if (!v.good) {
        bool known = jose_algorithm(c->key) != NULL &&
                     slice_is(c->jws.algorithm, jose_algorithm(c->key));
        ca_refuse(c, known ? 401 : 400, known ? "unauthorized" : "badSignatureAlgorithm",
                  "the signature is not the key's");
        return false;
    }
    if (c->jws.payload.len == 0)
        return true;
    c->payload = jsonx_too_deep(c->jws.payload, DEPTH_MAX) ? NULL :
                                                             jsonx_load(SLICE(""), c->jws.payload, NULL);
    if (json_is_object(c->payload))
        return true;
    ca_refuse(c, 400, "malformed", "the payload is not a JSON object");
    return false;
}

/* --- dispatch --- */

static void serve_post(struct call *c)
{
    struct slice kind, id, path = slice_skip(c->request->path, 1);
    slice_cut(path, '/', &kind, &id);
    bool by_key = slice_is(path, "new-account") || slice_is(path, "revoke-cert");
    if (!authenticate(c, by_key))
        return;
    if (slice_is(path, "new-account"))
        serve_new_account(c);
    else if (slice_is(path, "new-order"))
        ca_serve_new_order(c);
    else if (slice_is(path, "revoke-cert"))
        ca_serve_revoke(c);
    else if (slice_is(kind, "account"))
        serve_account(c, id);
    else if (slice_is(kind, "order") && slice_ends(id, SLICE("/finalize")))
        ca_serve_finalize(c, slice_take(id, id.len - (sizeof "/finalize" - 1)));
    else if (slice_is(kind, "order"))
        ca_serve_order(c, id);
    else if (slice_is(kind, "authz"))
        ca_serve_authorization(c, id);
    else if (slice_is(kind, "challenge"))
        ca_serve_challenge(c, id);
    else if (slice_is(kind, "certificate"))
        ca_serve_certificate(c, id);
    else if (slice_is(path, "key-change"))
        ca_refuse(c, 501, "notImplemented", "keys of accounts are not changed here");
    else
        ca_refuse(c, 404, "malformed", "there is no such resource");
}

void ca_serve(const struct ca_settings *settings, const struct ca_request *request, struct arena *a,
              struct ca_answer *answer)
{
    struct call *c = ARENA_NEW(a, struct call);
    *c = (struct call){.settings = settings, .request = request, .arena = a, .answer = answer,
                       .records = {settings->storage, settings->id}};
    bool get = slice_is(request->method, "GET"), head = slice_is(request->method, "HEAD");
    *answer = (struct ca_answer){0};
    if (slice_is(request->path, "/directory") && (get || head))
        serve_directory(c);
    else if (slice_is(request->path, "/new-nonce") && (get || head))
        answer->status = head ? 200 : 204;
    else if (slice_is(request->method, "POST"))
        serve_post(c);
    else
        ca_refuse(c, 405, "malformed", "resources are asked for by POST");
    if (!slice_is(request->path, "/directory"))
        answer->nonce = ca_nonce_make(a);
    if (answer->link.len == 0)
        answer->link = arena_printf(a, "<" SLICE_FMT "/directory>;rel=\"index\"",
                                    SLICE_ARG(request->base));
    key_free(c->key);
    json_decref(c->payload);
}
