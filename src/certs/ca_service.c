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

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/text.h"
#include "certs/acme_objects.h"
#include "certs/ca_jws.h"
#include "certs/ca_records.h"
#include "certs/ca_validate.h"
#include "certs/jose.h"
#include "certs/pki_app.h"
#include "config/jsonx.h"
#include "loop/await.h"
#include "pki/issued.h"
#include "pki/jose_verify.h"
#include "pki/subject.h"

enum { ANSWER_MAX = 1 << 20, TRIES = 3, VALIDATIONS_MAX = 256, DEPTH_MAX = 16, TOKEN_BYTES = 32,
       PRUNE_HOURS = 1 };
#define MIN_LIFETIME_S (5 * 60)
#define MAX_LIFETIME_S (365 * 86400)
#define NAMESPACE "urn:ietf:params:acme:error:"

static const char logger[] = "http.handlers.acme_server";

struct call {
    const struct ca_settings *settings;
    const struct ca_request *request;
    struct arena *arena;
    struct ca_answer *answer;
    struct ca_records records;
    struct ca_jws jws;
    struct evp_pkey_st *key; /* who signed */
    struct ca_account account; /* whose; id empty: none yet */
    json_t *payload; /* NULL: none */
};

/* --- answers --- */

__attribute__((format(printf, 4, 5))) static void refuse(struct call *c, int status, const char *type,
                                                         const char *format, ...)
{
    char detail[512];
    struct buffer b;
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    buffer_init(&b, 4096);
    (void)buffer_append_f(&b, "{\"type\":\"" NAMESPACE "%s\",\"status\":%d,\"detail\":", type, status);
    (void)jsonx_put_string(&b, slice_from(detail));
    (void)BUFFER_PUT(&b, "}");
    c->answer->status = status;
    c->answer->body = arena_copy(c->arena, buffer_slice(&b));
    c->answer->media = "application/problem+json";
    buffer_deinit(&b);
    LOG(LOG_DEBUG, logger, "request refused", LOG_STR("path", c->request->path),
        LOG_CSTR("type", type), LOG_CSTR("detail", detail));
}

static void internal_error(struct call *c)
{
    refuse(c, 500, "serverInternal", "the records of the authority cannot be read or written");
}

static struct slice link(struct call *c, const char *kind, struct slice id, const char *rest)
{
    return arena_join(c->arena, (struct slice[]){c->request->base, SLICE("/"), slice_from(kind),
                                                 SLICE("/"), id, slice_from(rest)}, 6);
}

static void give(struct call *c, int status, struct buffer *b)
{
    c->answer->status = b->full ? 500 : status;
    c->answer->body = arena_copy(c->arena, buffer_slice(b));
    c->answer->media = "application/json";
}

static void put_text(struct buffer *b, const char *before, struct slice value)
{
    (void)buffer_append(b, slice_from(before));
    (void)jsonx_put_string(b, value);
}

static int64_t now_s(void)
{
    return clock_wall_ns() / (int64_t)NS_PER_S;
}

/* --- one fiber at a time --- */

struct busy {
    struct list node;
    struct slice id;
};

static _Thread_local struct list busy_orders;
static _Thread_local struct list validations;
static _Thread_local size_t validations_count;

static bool is_busy(const struct list *all, struct slice id)
{
    if (all->next != NULL)
        LIST_FOR (it, all)
            if (slice_eq(CONTAINER_OF(it, struct busy, node)->id, id))
                return true;
    return false;
}

/* `b` and the id stay until it is given back. */
static enum err take_order(struct busy *b, struct slice id)
{
    while (is_busy(&busy_orders, id))
        TRY(await_sleep(clock_mono_ns() + 2 * NS_PER_MS));
    if (busy_orders.next == NULL)
        list_init(&busy_orders);
    b->id = id;
    list_append(&busy_orders, &b->node);
    return OK;
}

static void give_order_back(struct busy *b)
{
    list_remove(&b->node);
}

/* --- the directory --- */

static void serve_directory(struct call *c)
{
    static const char *const links[][2] = {
        {"newNonce", "/new-nonce"}, {"newAccount", "/new-account"}, {"newOrder", "/new-order"},
        {"revokeCert", "/revoke-cert"}, {"keyChange", "/key-change"}};
    struct buffer b;
    buffer_init(&b, ANSWER_MAX);
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        (void)buffer_append_f(&b, "%c\"%s\":", i == 0 ? '{' : ',', links[i][0]);
        put_text(&b, "", arena_join(c->arena, (struct slice[]){c->request->base,
                                                               slice_from(links[i][1])}, 2));
    }
    (void)BUFFER_PUT(&b, "}");
    give(c, 200, &b);
    buffer_deinit(&b);
}

/* --- accounts --- */

static const char *text(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static void give_account(struct call *c, int status)
{
    struct buffer b;
    struct ca_account *acc = &c->account;
    buffer_init(&b, ANSWER_MAX);
    put_text(&b, "{\"status\":", acc->status);
    (void)BUFFER_PUT(&b, ",\"contact\":[");
    for (size_t i = 0; i < acc->contacts_count; i++)
        put_text(&b, i > 0 ? "," : "", acc->contacts[i]);
    put_text(&b, "],\"orders\":", link(c, "account", acc->id, "/orders"));
    (void)BUFFER_PUT(&b, "}");
    give(c, status, &b);
    c->answer->location = link(c, "account", acc->id, "");
    buffer_deinit(&b);
}

static bool take_contacts(struct call *c)
{
    const json_t *contacts = json_object_get(c->payload, "contact");
    size_t count = json_array_size(contacts);
    if (!json_is_array(contacts))
        return true;
    if (count > CA_CONTACTS_MAX) {
        refuse(c, 400, "invalidContact", "more than %d contacts", CA_CONTACTS_MAX);
        return false;
    }
    c->account.contacts = ARENA_ARRAY(c->arena, struct slice, count);
    for (size_t i = 0; i < count; i++) {
        struct slice contact = slice_from(json_string_value(json_array_get(contacts, i)));
        if (contact.len == 0 || contact.len > CA_CONTACT_LEN) {
            refuse(c, 400, "invalidContact", "a contact must be text, and not a long one");
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
        return refuse(c, 400, "malformed", "\"jwk\" is needed for a new account");
    if (ca_jwk_text(c->key, c->arena, &jwk) != OK)
        return refuse(c, 400, "badPublicKey", "the key is of a kind that is not taken");
    struct slice id = account_id(jwk, c->arena);
    enum err e = ca_account_load(&c->records, id, c->arena, &c->account);
    if (e == OK)
        return slice_is(c->account.status, "valid") ? give_account(c, 200) :
               refuse(c, 401, "unauthorized", "the account is not valid");
    if (e != ERR_NOT_FOUND)
        return internal_error(c);
    if (json_is_true(json_object_get(c->payload, "onlyReturnExisting")))
        return refuse(c, 400, "accountDoesNotExist", "there is no account with that key");
    c->account = (struct ca_account){.id = id, .status = SLICE("valid"), .jwk = jwk};
    if (!take_contacts(c))
        return;
    if (ca_account_store(&c->records, &c->account) != OK)
        return internal_error(c);
    LOG(LOG_INFO, logger, "new account", LOG_STR("ca", c->settings->id), LOG_STR("account", id));
    give_account(c, 201);
}

static void serve_account(struct call *c, struct slice id)
{
    const char *status = text(c->payload, "status");
    if (!slice_eq(id, c->account.id))
        return refuse(c, 401, "unauthorized", "that is another account");
    if (c->payload != NULL) {
        if (status != NULL && strcmp(status, "deactivated") == 0)
            c->account.status = SLICE("deactivated");
        else if (!take_contacts(c))
            return;
        if (ca_account_store(&c->records, &c->account) != OK)
            return internal_error(c);
    }
    give_account(c, 200);
}

/* --- orders --- */

static void settle_order(struct ca_order *o)
{
    size_t valid = 0;
    bool open = slice_is(o->status, "pending") || slice_is(o->status, "ready");
    if (open && o->expires_s < now_s()) {
        o->status = SLICE("invalid");
        return;
    }
    if (!slice_is(o->status, "pending"))
        return;
    for (size_t i = 0; i < o->count; i++) {
        valid += slice_is(o->authorizations[i].status, "valid");
        if (slice_is(o->authorizations[i].status, "invalid") ||
            slice_is(o->authorizations[i].status, "deactivated"))
            o->status = SLICE("invalid");
    }
    if (valid == o->count)
        o->status = SLICE("ready");
}

static struct slice full_name(struct call *c, const struct ca_authorization *z)
{
    return z->wildcard ? arena_join(c->arena, (struct slice[]){SLICE("*."), z->name}, 2) : z->name;
}

static struct slice part_id(struct call *c, const struct ca_order *o, size_t i)
{
    return arena_printf(c->arena, SLICE_FMT "-%zu", SLICE_ARG(o->id), i);
}

static void give_order(struct call *c, const struct ca_order *o, int status)
{
    struct buffer b;
    buffer_init(&b, ANSWER_MAX);
    put_text(&b, "{\"status\":", o->status);
    put_text(&b, ",\"expires\":", acme_time_text(o->expires_s, c->arena));
    if (o->not_before_s > 0)
        put_text(&b, ",\"notBefore\":", acme_time_text(o->not_before_s, c->arena));
    if (o->not_after_s > 0)
        put_text(&b, ",\"notAfter\":", acme_time_text(o->not_after_s, c->arena));
    (void)BUFFER_PUT(&b, ",\"identifiers\":[");
    for (size_t i = 0; i < o->count; i++) {
        put_text(&b, i > 0 ? ",{\"type\":" : "{\"type\":", o->authorizations[i].kind);
        put_text(&b, ",\"value\":", full_name(c, &o->authorizations[i]));
        (void)BUFFER_PUT(&b, "}");
    }
    (void)BUFFER_PUT(&b, "],\"authorizations\":[");
    for (size_t i = 0; i < o->count; i++)
        put_text(&b, i > 0 ? "," : "", link(c, "authz", part_id(c, o, i), ""));
    put_text(&b, "],\"finalize\":", link(c, "order", o->id, "/finalize"));
    if (slice_is(o->status, "valid"))
        put_text(&b, ",\"certificate\":", link(c, "certificate", o->id, ""));
    (void)BUFFER_PUT(&b, "}");
    give(c, status, &b);
    c->answer->location = link(c, "order", o->id, "");
    buffer_deinit(&b);
}

/* Reads an order of this account; false: the answer is there. */
static bool load_order(struct call *c, struct slice id, struct ca_order *o)
{
    enum err e = ca_order_load(&c->records, id, c->arena, o);
    if (e == ERR_NOT_FOUND)
        refuse(c, 404, "malformed", "there is no such order");
    else if (e != OK)
        internal_error(c);
    else if (!slice_eq(o->account, c->account.id))
        refuse(c, 401, "unauthorized", "that order belongs to another account");
    else
        settle_order(o);
    return e == OK && c->answer->status == 0;
}

static struct slice new_token(struct arena *a)
{
    struct slice one = ca_new_id(a), two = ca_new_id(a);
    return arena_join(a, (struct slice[]){one, two}, 2);
}

static void add_challenge(struct call *c, struct ca_authorization *z, unsigned bit, const char *type)
{
    if (c->settings->challenges & bit)
        z->challenges[z->challenges_count++] = (struct ca_challenge){
            .type = slice_from(type), .token = new_token(c->arena), .status = SLICE("pending")};
}

static void make_authorization(struct call *c, struct slice kind, struct slice name,
                               struct ca_authorization *z)
{
    bool wildcard = slice_starts(name, SLICE("*."));
    *z = (struct ca_authorization){.kind = kind, .name = wildcard ? slice_skip(name, 2) : name,
                                   .wildcard = wildcard, .status = SLICE("pending")};
    if (!slice_is(kind, "ip"))
        add_challenge(c, z, CA_DNS_01, "dns-01");
    if (!wildcard) {
        add_challenge(c, z, CA_HTTP_01, "http-01");
        add_challenge(c, z, CA_TLS_ALPN_01, "tls-alpn-01");
    }
}

/* Labels of letters, digits, '-' and '_'; the first one may be a star. */
static bool host_ok(struct slice name)
{
    struct slice label;
    if (name.len == 0 || name.len > 253 || slice_ends(name, SLICE(".")))
        return false;
    if (slice_starts(name, SLICE("*.")))
        name = slice_skip(name, 2);
    do {
        slice_cut(name, '.', &label, &name);
        for (size_t i = 0; i < label.len; i++)
            if (!(label.ptr[i] >= 'a' && label.ptr[i] <= 'z') && label.ptr[i] != '_' &&
                !(label.ptr[i] >= '0' && label.ptr[i] <= '9') &&
                (label.ptr[i] != '-' || i == 0 || i + 1 == label.len))
                return false;
        if (label.len == 0 || label.len > 63)
            return false;
    } while (name.len > 0);
    return true;
}

static bool is_ordered(struct call *c, const struct ca_order *o, struct slice name)
{
    for (size_t i = 0; i < o->count; i++)
        if (slice_eq(full_name(c, &o->authorizations[i]), name))
            return true;
    return false;
}

/* One identifier of a new order; false: the answer is there. */
static bool take_identifier(struct call *c, const json_t *j, struct ca_order *o)
{
    const char *type = text(j, "type"), *value = text(j, "value");
    bool is_ip = type != NULL && strcmp(type, "ip") == 0;
    struct slice name = arena_copy(c->arena, slice_from(value));
    for (size_t i = 0; i < name.len; i++)
        ((char *)name.ptr)[i] = ascii_lower(name.ptr[i]);
    if (type == NULL || (!is_ip && strcmp(type, "dns") != 0)) {
        refuse(c, 400, "unsupportedIdentifier", "identifiers are of type \"dns\" or \"ip\"");
        return false;
    }
    if (is_ip != subject_is_ip(name) || (!is_ip && !host_ok(name))) {
        refuse(c, 400, "malformed", "'" SLICE_FMT "' is no name that a certificate may have",
               SLICE_ARG(slice_take(name, 100)));
        return false;
    }
    if (!ca_policy_allows(&c->settings->policy, name, is_ip)) {
        refuse(c, 403, "rejectedIdentifier", "'" SLICE_FMT "' is not allowed by the policy of the "
               "authority", SLICE_ARG(slice_take(name, 100)));
        return false;
    }
    if (is_ordered(c, o, name))
        return true; /* twice the same is once */
    struct ca_authorization *z = &o->authorizations[o->count++];
    make_authorization(c, is_ip ? SLICE("ip") : SLICE("dns"), name, z);
    if (z->challenges_count > 0)
        return true;
    refuse(c, 403, "rejectedIdentifier", "no challenge that is enabled can prove '" SLICE_FMT "'",
           SLICE_ARG(slice_take(name, 100)));
    return false;
}

static bool take_times(struct call *c, struct ca_order *o)
{
    const char *before = text(c->payload, "notBefore"), *after = text(c->payload, "notAfter");
    int64_t now = now_s();
    if ((before != NULL && before[0] != '\0' && !acme_time_read(slice_from(before), &o->not_before_s)) ||
        (after != NULL && after[0] != '\0' && !acme_time_read(slice_from(after), &o->not_after_s))) {
        refuse(c, 400, "malformed", "\"notBefore\" and \"notAfter\" are dates of RFC 3339");
        return false;
    }
    if (o->not_after_s != 0 && (o->not_after_s < now + MIN_LIFETIME_S ||
                                o->not_after_s > now + MAX_LIFETIME_S)) {
        refuse(c, 400, "malformed", "\"notAfter\" must lie between five minutes and a year from now");
        return false;
    }
    return true;
}

static void prune_now_and_then(struct call *c)
{
    static _Thread_local uint64_t last_ns;
    uint64_t now = clock_mono_ns();
    if (last_ns != 0 && now - last_ns < PRUNE_HOURS * UINT64_C(3600) * NS_PER_S)
        return;
    last_ns = now;
    ca_records_prune(&c->records);
}

static void serve_new_order(struct call *c)
{
    const json_t *identifiers = json_object_get(c->payload, "identifiers");
    size_t count = json_array_size(identifiers);
    struct ca_order o = {.id = ca_new_id(c->arena), .account = c->account.id,
                         .status = SLICE("pending"), .expires_s = now_s() + CA_ORDER_HOURS * 3600};
    if (count == 0 || count > CA_NAMES_MAX)
        return refuse(c, 400, "malformed", "an order has one to %d identifiers", CA_NAMES_MAX);
    o.authorizations = ARENA_ARRAY(c->arena, struct ca_authorization, count);
    for (size_t i = 0; i < count; i++)
        if (!take_identifier(c, json_array_get(identifiers, i), &o))
            return;
    if (!take_times(c, &o))
        return;
    prune_now_and_then(c);
    if (ca_order_store(&c->records, &o) != OK)
        return internal_error(c);
    give_order(c, &o, 201);
}

static void serve_order(struct call *c, struct slice id)
{
    struct ca_order o;
    if (load_order(c, id, &o))
        give_order(c, &o, 200);
}

/* --- authorizations and challenges --- */

/* "ID-3": the order and the number of its authorization. */
static bool split_part(struct slice text_of_id, struct slice *order, size_t *at)
{
    struct slice number;
    uint64_t n;
    if (!slice_cut(text_of_id, '-', order, &number) || !slice_to_u64(number, CA_NAMES_MAX - 1, &n))
        return false;
    *at = (size_t)n;
    return true;
}

static bool load_part(struct call *c, struct slice id, struct ca_order *o, size_t *at)
{
    struct slice order;
    if (!split_part(id, &order, at)) {
        refuse(c, 404, "malformed", "there is no such authorization");
        return false;
    }
    if (!load_order(c, order, o))
        return false;
    if (*at < o->count)
        return true;
    refuse(c, 404, "malformed", "there is no such authorization");
    return false;
}

static void put_challenge(struct call *c, struct buffer *b, const struct ca_order *o, size_t at,
                          const struct ca_challenge *ch)
{
    put_text(b, "{\"type\":", ch->type);
    put_text(b, ",\"url\":", arena_join(c->arena, (struct slice[]){
        link(c, "challenge", part_id(c, o, at), "/"), ch->type}, 2));
    put_text(b, ",\"status\":", ch->status);
    put_text(b, ",\"token\":", ch->token);
    if (ch->validated.len > 0)
        put_text(b, ",\"validated\":", ch->validated);
    if (ch->error_type.len > 0) {
        put_text(b, ",\"error\":{\"type\":",
                 arena_join(c->arena, (struct slice[]){SLICE(NAMESPACE), ch->error_type}, 2));
        put_text(b, ",\"status\":400,\"detail\":", ch->error_detail);
        (void)BUFFER_PUT(b, "}");
    }
    (void)BUFFER_PUT(b, "}");
}

static void give_authorization(struct call *c, const struct ca_order *o, size_t at)
{
    const struct ca_authorization *z = &o->authorizations[at];
    struct buffer b;
    buffer_init(&b, ANSWER_MAX);
    put_text(&b, "{\"status\":", z->status);
    put_text(&b, ",\"expires\":", acme_time_text(o->expires_s, c->arena));
    put_text(&b, ",\"identifier\":{\"type\":", z->kind);
    put_text(&b, ",\"value\":", z->name);
    (void)buffer_append_f(&b, "}%s,\"challenges\":[", z->wildcard ? ",\"wildcard\":true" : "");
    for (size_t i = 0; i < z->challenges_count; i++) {
        if (i > 0)
            (void)BUFFER_PUT(&b, ",");
        put_challenge(c, &b, o, at, &z->challenges[i]);
    }
    (void)BUFFER_PUT(&b, "]}");
    give(c, 200, &b);
    c->answer->location = link(c, "authz", part_id(c, o, at), "");
    c->answer->retry = slice_is(z->status, "pending");
    buffer_deinit(&b);
}

static void deactivate(struct call *c, struct slice id)
{
    struct ca_order o;
    struct busy busy;
    size_t at;
    struct slice order;
    if (!split_part(id, &order, &at) || take_order(&busy, order) != OK)
        return refuse(c, 404, "malformed", "there is no such authorization");
    if (load_part(c, id, &o, &at)) {
        o.authorizations[at].status = SLICE("deactivated");
        if (ca_order_store(&c->records, &o) == OK)
            give_authorization(c, &o, at);
        else
            internal_error(c);
    }
    give_order_back(&busy);
}

static void serve_authorization(struct call *c, struct slice id)
{
    struct ca_order o;
    size_t at;
    const char *status = text(c->payload, "status");
    if (status != NULL && strcmp(status, "deactivated") == 0)
        return deactivate(c, id);
    if (load_part(c, id, &o, &at))
        give_authorization(c, &o, at);
}

/* --- validation, on its own fiber --- */

struct validation {
    struct busy busy; /* of `validations`, by "ID-3/http-01" */
    struct arena arena;
    struct ca_records records;
    struct ca_proof proof;
    struct slice order, type;
    size_t at;
};

static struct ca_challenge *challenge_of(struct ca_authorization *z, struct slice type)
{
    for (size_t i = 0; i < z->challenges_count; i++)
        if (slice_eq(z->challenges[i].type, type))
            return &z->challenges[i];
    return NULL;
}

static void note_result(struct validation *v, struct ca_order *o, enum err result)
{
    struct ca_authorization *z = &o->authorizations[v->at];
    struct ca_challenge *ch = challenge_of(z, v->type);
    if (ch == NULL || !slice_is(z->status, "pending"))
        return;
    z->status = ch->status = result == OK ? SLICE("valid") : SLICE("invalid");
    if (result == OK) {
        ch->validated = acme_time_text(now_s(), &v->arena);
    } else {
        ch->error_type = slice_from(v->proof.error_type);
        ch->error_detail = slice_from(v->proof.why);
    }
    settle_order(o);
    (void)ca_order_store(&v->records, o);
}

static void end_validation(struct validation *v)
{
    list_remove(&v->busy.node);
    validations_count--;
    arena_deinit(&v->arena);
    mem_free(v);
}

static void run_validation(void *arg)
{
    struct validation *v = arg;
    struct ca_order o;
    struct busy busy;
    enum err e = ERR_FAILED;
    for (unsigned i = 0; i < TRIES && e != OK && fiber_self()->cancelled == OK; i++) {
        if (i > 0)
            (void)await_sleep(clock_mono_ns() + (uint64_t)(i * 3) * NS_PER_S);
        e = ca_validate(v->type, &v->proof, &v->arena);
    }
    LOG(e == OK ? LOG_INFO : LOG_WARN, logger, "challenge was looked at",
        LOG_STR("identifier", v->proof.name), LOG_STR("challenge_type", v->type),
        LOG_CSTR("error", e == OK ? "" : v->proof.why));
    if (take_order(&busy, v->order) == OK) {
        if (ca_order_load(&v->records, v->order, &v->arena, &o) == OK && v->at < o.count)
            note_result(v, &o, e);
        give_order_back(&busy);
    }
    end_validation(v);
}

struct starting {
    struct validation *validation;
    enum err result;
};

static void start_on_loop(void *arg)
{
    struct starting *s = arg;
    s->result = fiber_start(loop_self(), run_validation, s->validation);
}

static struct validation *make_validation(struct call *c, const struct ca_order *o, size_t at,
                                          const struct ca_challenge *ch, struct slice id)
{
    struct validation *v = NEW(struct validation);
    const struct ca_settings *s = c->settings;
    const struct ca_authorization *z = &o->authorizations[at];
    arena_init(&v->arena, 8192);
    struct arena *a = &v->arena;
    v->records = (struct ca_records){c->records.storage, arena_copy(a, c->records.id)};
    v->order = arena_copy(a, o->id);
    v->type = arena_copy(a, ch->type);
    v->at = at;
    v->busy.id = arena_copy(a, id);
    v->proof = (struct ca_proof){.kind = arena_copy(a, z->kind), .name = arena_copy(a, z->name),
                                 .token = arena_copy(a, ch->token),
                                 .resolvers_count = s->resolvers_count, .error_type = ""};
    struct slice *resolvers = ARENA_ARRAY(a, struct slice, s->resolvers_count);
    for (size_t i = 0; i < s->resolvers_count; i++)
        resolvers[i] = arena_copy(a, s->resolvers[i]);
    v->proof.resolvers = resolvers;
    if (key_authorization(c->key, ch->token, a, &v->proof.key_authorization) != OK)
        v->proof.key_authorization = SLICE("");
    return v;
}

static bool start_validation(struct call *c, const struct ca_order *o, size_t at,
                             const struct ca_challenge *ch, struct slice id)
{
    if (is_busy(&validations, id))
        return true;
    if (validations_count >= VALIDATIONS_MAX)
        return false;
    struct starting s = {make_validation(c, o, at, ch, id), OK};
    if (validations.next == NULL)
        list_init(&validations);
    list_append(&validations, &s.validation->busy.node);
    validations_count++;
    await_on_loop(start_on_loop, &s);
    if (s.result != OK)
        end_validation(s.validation);
    return s.result == OK;
}

static void begin_challenge(struct call *c, struct ca_order *o, size_t at, struct ca_challenge *ch,
                            struct slice id)
{
    struct ca_authorization *z = &o->authorizations[at];
    struct buffer b;
    if (slice_is(z->status, "pending") && slice_is(o->status, "pending")) {
        if (slice_is(ch->status, "pending")) {
            ch->status = SLICE("processing");
            if (ca_order_store(&c->records, o) != OK)
                return internal_error(c);
        }
        if (!start_validation(c, o, at, ch, id))
            return refuse(c, 429, "rateLimited", "too many validations at once");
    }
    buffer_init(&b, ANSWER_MAX);
    put_challenge(c, &b, o, at, ch);
    give(c, 200, &b);
    c->answer->link = arena_printf(c->arena, "<" SLICE_FMT ">;rel=\"up\"",
                                   SLICE_ARG(link(c, "authz", part_id(c, o, at), "")));
    c->answer->location = link(c, "challenge", id, "");
    c->answer->retry = true;
    buffer_deinit(&b);
}

static void serve_challenge(struct call *c, struct slice id)
{
    struct slice part, type, order;
    struct ca_order o;
    struct busy busy;
    size_t at;
    if (!slice_cut(id, '/', &part, &type) || !split_part(part, &order, &at) ||
        take_order(&busy, order) != OK)
        return refuse(c, 404, "malformed", "there is no such challenge");
    if (load_part(c, part, &o, &at)) {
        struct ca_challenge *ch = challenge_of(&o.authorizations[at], type);
        if (ch == NULL)
            refuse(c, 404, "malformed", "there is no such challenge");
        else
            begin_challenge(c, &o, at, ch, id);
    }
    give_order_back(&busy);
}

/* --- certificates --- */

static bool same_names(struct call *c, const struct ca_order *o, const struct slice *names,
                       size_t count)
{
    size_t found = 0;
    for (size_t i = 0; i < o->count; i++)
        for (size_t k = 0; k < count; k++)
            found += slice_eq_nocase(full_name(c, &o->authorizations[i]), names[k]);
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
        lifetime = (o->not_after_s - now_s()) * (int64_t)NS_PER_S;
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
    buffer_init(&der, ANSWER_MAX);
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
        return internal_error(c);
    LOG(LOG_INFO, logger, "certificate issued", LOG_STR("ca", c->settings->id),
        LOG_STR("account", c->account.id), LOG_STR("identifier", full_name(c, o->authorizations)));
    give_order(c, o, 200);
}

static void finalize_ready(struct call *c, struct ca_order *o)
{
    struct signing s = {.arena = c->arena};
    struct storage_why why = {""};
    struct buffer chain, der;
    const char *encoded = text(c->payload, "csr");
    buffer_init(&der, CA_BODY_MAX);
    buffer_init(&chain, ANSWER_MAX);
    if (encoded == NULL || base64_decode(&der, slice_from(encoded)) != OK) {
        refuse(c, 400, "badCSR", "\"csr\" is not base64url");
    } else {
        s.csr = buffer_slice(&der);
        await_on_loop(read_csr, &s);
        if (s.result != OK)
            refuse(c, 400, "badCSR", "%s", s.why);
        else if (!same_names(c, o, s.names, s.count))
            refuse(c, 400, "badCSR", "the names of the CSR are not those of the order");
        else if (sign(c, o, &s, &chain, &why) != OK)
            refuse(c, 500, "serverInternal", "signing failed: %s", why.text);
        else
            keep_certificate(c, o, arena_copy(c->arena, buffer_slice(&chain)));
    }
    buffer_deinit(&chain);
    buffer_deinit(&der);
}

static void serve_finalize(struct call *c, struct slice id)
{
    struct ca_order o;
    struct busy busy;
    if (take_order(&busy, id) != OK)
        return internal_error(c);
    if (load_order(c, id, &o)) {
        if (slice_is(o.status, "valid"))
            give_order(c, &o, 200);
        else if (!slice_is(o.status, "ready"))
            refuse(c, 403, "orderNotReady", "the order is " SLICE_FMT, SLICE_ARG(o.status));
        else
            finalize_ready(c, &o);
    }
    give_order_back(&busy);
}

static void serve_certificate(struct call *c, struct slice id)
{
    struct ca_order o;
    struct slice pem;
    if (!load_order(c, id, &o))
        return;
    if (ca_chain_load(&c->records, id, c->arena, &pem) != OK)
        return refuse(c, 404, "malformed", "there is no such certificate");
    c->answer->status = 200;
    c->answer->body = pem;
    c->answer->media = "application/pem-certificate-chain";
}

static void serve_revoke(struct call *c)
{
    struct slice account;
    struct buffer der;
    bool revoked = false;
    const char *encoded = text(c->payload, "certificate");
    json_int_t reason = json_integer_value(json_object_get(c->payload, "reason"));
    buffer_init(&der, CA_BODY_MAX);
    if (encoded == NULL || base64_decode(&der, slice_from(encoded)) != OK)
        refuse(c, 400, "malformed", "\"certificate\" is not base64url");
    else if (reason < 0 || reason > 10 || reason == 7)
        refuse(c, 400, "badRevocationReason", "there is no such reason");
    else if (ca_issued_load(&c->records, buffer_slice(&der), c->arena, &account, &revoked) != OK)
        refuse(c, 404, "malformed", "this authority gave no such certificate");
    else if (!slice_eq(account, c->account.id) && !certificate_key_is(buffer_slice(&der), c->key))
        refuse(c, 403, "unauthorized", "the certificate is somebody else's");
    else if (revoked)
        refuse(c, 400, "alreadyRevoked", "the certificate is revoked already");
    else if (ca_issued_store(&c->records, buffer_slice(&der), account, (int)reason) != OK)
        internal_error(c);
    else
        c->answer->status = 200;
    buffer_deinit(&der);
}

/* --- who asks --- */

static bool identify_by_key(struct call *c)
{
    enum err e = jwk_read(&c->jws.jwk, &c->key);
    if (e != OK)
        refuse(c, 400, "badPublicKey", e == ERR_UNSUPPORTED ? "keys are P-256, P-384, P-521, Ed25519 "
               "or RSA of 2048 to 8192 bits" : "\"jwk\" is not a public key");
    return e == OK;
}

static bool identify_by_account(struct call *c)
{
    struct slice prefix = link(c, "account", SLICE(""), "");
    struct slice id = slice_skip(c->jws.kid, prefix.len);
    if (!slice_starts(c->jws.kid, prefix) ||
        ca_account_load(&c->records, id, c->arena, &c->account) != OK) {
        refuse(c, 400, "accountDoesNotExist", "there is no such account");
        return false;
    }
    if (!slice_is(c->account.status, "valid")) {
        refuse(c, 401, "unauthorized", "the account is " SLICE_FMT, SLICE_ARG(c->account.status));
        return false;
    }
    if (ca_jwk_load(c->account.jwk, &c->key) == OK)
        return true;
    internal_error(c);
    return false;
}

static bool check_request(struct call *c, bool may_use_key)
{
    const char *why;
    struct slice type, rest;
    slice_cut(c->request->content_type, ';', &type, &rest);
    if (!slice_eq_nocase(slice_trim(type), SLICE("application/jose+json"))) {
        refuse(c, 415, "malformed", "the content type must be application/jose+json");
        return false;
    }
    if (ca_jws_read(c->request->body, c->arena, &c->jws, &why) != OK) {
        refuse(c, 400, "malformed", "%s", why);
        return false;
    }
    if (!ca_nonce_use(c->jws.nonce)) {
        refuse(c, 400, "badNonce", "the nonce is not known, or was used already");
        return false;
    }
    struct slice url = arena_join(c->arena, (struct slice[]){c->request->base, c->request->path}, 2);
    if (!slice_eq(c->jws.url, url)) {
        refuse(c, 403, "unauthorized", "the request was signed for " SLICE_FMT ", not for " SLICE_FMT,
               SLICE_ARG(slice_take(c->jws.url, 150)), SLICE_ARG(slice_take(url, 150)));
        return false;
    }
    if (c->jws.has_jwk && !may_use_key) {
        refuse(c, 400, "malformed", "\"kid\" is needed here, not \"jwk\"");
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
        refuse(c, known ? 401 : 400, known ? "unauthorized" : "badSignatureAlgorithm",
               "the signature is not the key's");
        return false;
    }
    if (c->jws.payload.len == 0)
        return true;
    c->payload = jsonx_too_deep(c->jws.payload, DEPTH_MAX) ? NULL :
                                                             jsonx_load(SLICE(""), c->jws.payload, NULL);
    if (json_is_object(c->payload))
        return true;
    refuse(c, 400, "malformed", "the payload is not a JSON object");
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
        serve_new_order(c);
    else if (slice_is(path, "revoke-cert"))
        serve_revoke(c);
    else if (slice_is(kind, "account"))
        serve_account(c, id);
    else if (slice_is(kind, "order") && slice_ends(id, SLICE("/finalize")))
        serve_finalize(c, slice_take(id, id.len - (sizeof "/finalize" - 1)));
    else if (slice_is(kind, "order"))
        serve_order(c, id);
    else if (slice_is(kind, "authz"))
        serve_authorization(c, id);
    else if (slice_is(kind, "challenge"))
        serve_challenge(c, id);
    else if (slice_is(kind, "certificate"))
        serve_certificate(c, id);
    else if (slice_is(path, "key-change"))
        refuse(c, 501, "notImplemented", "keys of accounts are not changed here");
    else
        refuse(c, 404, "malformed", "there is no such resource");
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
        refuse(c, 405, "malformed", "resources are asked for by POST");
    if (!slice_is(request->path, "/directory"))
        answer->nonce = ca_nonce_make(a);
    if (answer->link.len == 0)
        answer->link = arena_printf(a, "<" SLICE_FMT "/directory>;rel=\"index\"",
                                    SLICE_ARG(request->base));
    key_free(c->key);
    json_decref(c->payload);
}
