/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A record is a small JSON file, read and written whole. What a file says was checked when it was
 * written, but files can be anything: lists have their maximum here, too.
 */
#include "certs/ca_records.h"

#include <stdio.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "config/jsonx.h"
#include "pki/jose_key.h"

enum { RECORD_MAX = 1 << 20, DEPTH_MAX = 12, KEEP_DAYS = 400 };

static const char logger[] = "http.handlers.acme_server";

/* --- places --- */

static struct slice place(const struct ca_records *r, const char *kind, struct slice id,
                          const char *ending, struct arena *a)
{
    return arena_join(a, (struct slice[]){SLICE("acme_server/"), storage_safe(a, r->id), SLICE("/"),
                                          slice_from(kind), SLICE("/"), id, slice_from(ending)}, 7);
}

struct slice ca_new_id(struct arena *a)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char random[CA_ID_LEN / 2];
    char *id = arena_alloc(a, CA_ID_LEN);
    if (getrandom(random, sizeof random, 0) != sizeof random)
        fatal("no random numbers");
    for (size_t i = 0; i < CA_ID_LEN; i++)
        id[i] = digits[i % 2 == 0 ? random[i / 2] >> 4 : random[i / 2] & 15];
    return slice_of(id, CA_ID_LEN);
}

/* An id comes from a URL: what is not one names no file. */
static bool id_ok(struct slice id)
{
    for (size_t i = 0; i < id.len; i++)
        if (!(id.ptr[i] >= '0' && id.ptr[i] <= '9') && !(id.ptr[i] >= 'a' && id.ptr[i] <= 'f'))
            return false;
    return id.len == CA_ID_LEN || id.len == 2 * SHA256_LEN;
}

/* --- files --- */

static enum err load(const struct ca_records *r, const char *kind, struct slice id,
                     const char *ending, struct arena *a, struct slice *text)
{
    struct storage_why why = {""};
    if (!id_ok(id))
        return ERR_NOT_FOUND;
    enum err e = r->storage->type->load(r->storage, place(r, kind, id, ending, a), a, text, &why);
    if (e != OK && e != ERR_NOT_FOUND)
        LOG(LOG_ERROR, logger, "loading a record", LOG_CSTR("kind", kind), LOG_CSTR("error", why.text));
    return e;
}

static enum err store(const struct ca_records *r, const char *kind, struct slice id,
                      const char *ending, struct slice text)
{
    struct storage_why why = {""};
    struct arena a;
    arena_init(&a, 1024);
    enum err e = r->storage->type->store(r->storage, place(r, kind, id, ending, &a), text, &why);
    arena_deinit(&a);
    if (e != OK)
        LOG(LOG_ERROR, logger, "storing a record", LOG_CSTR("kind", kind), LOG_CSTR("error", why.text));
    return e;
}

static enum err load_json(const struct ca_records *r, const char *kind, struct slice id,
                          struct arena *a, json_t **json)
{
    struct slice text;
    TRY(load(r, kind, id, ".json", a, &text));
    *json = text.len <= RECORD_MAX && !jsonx_too_deep(text, DEPTH_MAX) ?
                jsonx_load(SLICE(""), text, NULL) : NULL;
    if (json_is_object(*json))
        return OK;
    json_decref(*json);
    return ERR_INVALID;
}

/* Takes the reference. */
static enum err store_json(const struct ca_records *r, const char *kind, struct slice id, json_t *json)
{
    struct buffer b;
    buffer_init(&b, RECORD_MAX);
    enum err e = jsonx_dump(&b, json);
    if (e == OK)
        e = store(r, kind, id, ".json", buffer_slice(&b));
    buffer_deinit(&b);
    json_decref(json);
    return e;
}

static struct slice text(const json_t *o, const char *key, struct arena *a)
{
    return arena_copy(a, slice_from(json_string_value(json_object_get(o, key))));
}

static void put(json_t *o, const char *key, struct slice value)
{
    if (value.len > 0)
        json_object_set_new(o, key, jsonx_string(value));
}

static size_t list(const json_t *array, size_t max)
{
    size_t count = json_is_array(array) ? json_array_size(array) : 0;
    return count < max ? count : max;
}

/* --- accounts --- */

enum err ca_account_load(const struct ca_records *r, struct slice id, struct arena *a,
                         struct ca_account *out)
{
    json_t *j;
    TRY(load_json(r, "accounts", id, a, &j));
    const json_t *contacts = json_object_get(j, "contact");
    *out = (struct ca_account){.id = arena_copy(a, id), .status = text(j, "status", a),
                               .jwk = text(j, "jwk", a),
                               .contacts_count = list(contacts, CA_CONTACTS_MAX)};
    out->contacts = ARENA_ARRAY(a, struct slice, out->contacts_count);
    for (size_t i = 0; i < out->contacts_count; i++)
        out->contacts[i] =
            arena_copy(a, slice_from(json_string_value(json_array_get(contacts, i))));
    json_decref(j);
    return OK;
}

enum err ca_account_store(const struct ca_records *r, const struct ca_account *acc)
{
    json_t *o = json_object(), *contacts = json_array();
    put(o, "status", acc->status);
    put(o, "jwk", acc->jwk);
    for (size_t i = 0; i < acc->contacts_count; i++)
        json_array_append_new(contacts, jsonx_string(acc->contacts[i]));
    json_object_set_new(o, "contact", contacts);
    return store_json(r, "accounts", acc->id, o);
}

/* --- orders --- */

static void read_challenge(const json_t *j, struct arena *a, struct ca_challenge *c)
{
    *c = (struct ca_challenge){text(j, "type", a), text(j, "token", a), text(j, "status", a),
                               text(j, "validated", a), text(j, "error_type", a),
                               text(j, "error_detail", a)};
}

static void read_authorization(const json_t *j, struct arena *a, struct ca_authorization *z)
{
    const json_t *challenges = json_object_get(j, "challenges");
    *z = (struct ca_authorization){.kind = text(j, "type", a), .name = text(j, "value", a),
                                   .status = text(j, "status", a),
                                   .wildcard = json_is_true(json_object_get(j, "wildcard")),
                                   .challenges_count = list(challenges, CA_CHALLENGES_MAX)};
    for (size_t i = 0; i < z->challenges_count; i++)
        read_challenge(json_array_get(challenges, i), a, &z->challenges[i]);
}

enum err ca_order_load(const struct ca_records *r, struct slice id, struct arena *a,
                       struct ca_order *o)
{
    json_t *j;
    TRY(load_json(r, "orders", id, a, &j));
    const json_t *authorizations = json_object_get(j, "authorizations");
    *o = (struct ca_order){
        .id = arena_copy(a, id), .account = text(j, "account", a), .status = text(j, "status", a),
        .expires_s = json_integer_value(json_object_get(j, "expires")),
        .not_before_s = json_integer_value(json_object_get(j, "notBefore")),
        .not_after_s = json_integer_value(json_object_get(j, "notAfter")),
        .count = list(authorizations, CA_NAMES_MAX)};
    o->authorizations = ARENA_ARRAY(a, struct ca_authorization, o->count);
    for (size_t i = 0; i < o->count; i++)
        read_authorization(json_array_get(authorizations, i), a, &o->authorizations[i]);
    json_decref(j);
    return OK;
}

static json_t *challenge_json(const struct ca_challenge *c)
{
    json_t *o = json_object();
    put(o, "type", c->type);
    put(o, "token", c->token);
    put(o, "status", c->status);
    put(o, "validated", c->validated);
    put(o, "error_type", c->error_type);
    put(o, "error_detail", c->error_detail);
    return o;
}

static json_t *authorization_json(const struct ca_authorization *z)
{
    json_t *o = json_object(), *challenges = json_array();
    put(o, "type", z->kind);
    put(o, "value", z->name);
    put(o, "status", z->status);
    json_object_set_new(o, "wildcard", json_boolean(z->wildcard));
    for (size_t i = 0; i < z->challenges_count; i++)
        json_array_append_new(challenges, challenge_json(&z->challenges[i]));
    json_object_set_new(o, "challenges", challenges);
    return o;
}

enum err ca_order_store(const struct ca_records *r, const struct ca_order *order)
{
    json_t *o = json_object(), *authorizations = json_array();
    put(o, "account", order->account);
    put(o, "status", order->status);
    json_object_set_new(o, "expires", json_integer(order->expires_s));
    json_object_set_new(o, "notBefore", json_integer(order->not_before_s));
    json_object_set_new(o, "notAfter", json_integer(order->not_after_s));
    for (size_t i = 0; i < order->count; i++)
        json_array_append_new(authorizations, authorization_json(&order->authorizations[i]));
    json_object_set_new(o, "authorizations", authorizations);
    return store_json(r, "orders", order->id, o);
}

/* --- certificates --- */

enum err ca_chain_load(const struct ca_records *r, struct slice order, struct arena *a,
                       struct slice *pem)
{
    return load(r, "certificates", order, ".pem", a, pem);
}

enum err ca_chain_store(const struct ca_records *r, struct slice order, struct slice pem)
{
    return store(r, "certificates", order, ".pem", pem);
}

static struct slice digest_id(struct slice der, struct arena *a)
{
    uint8_t digest[SHA256_LEN];
    char *id = arena_alloc(a, 2 * SHA256_LEN + 1);
    sha256(der, digest);
    for (size_t i = 0; i < SHA256_LEN; i++)
        snprintf(id + 2 * i, 3, "%02x", digest[i]);
    return slice_of(id, 2 * SHA256_LEN);
}

enum err ca_issued_load(const struct ca_records *r, struct slice der, struct arena *a,
                        struct slice *account, bool *revoked)
{
    json_t *j;
    TRY(load_json(r, "issued", digest_id(der, a), a, &j));
    *account = text(j, "account", a);
    *revoked = json_object_get(j, "revoked") != NULL;
    json_decref(j);
    return OK;
}

enum err ca_issued_store(const struct ca_records *r, struct slice der, struct slice account,
                         int reason)
{
    struct arena a;
    json_t *o = json_object();
    put(o, "account", account);
    if (reason >= 0) {
        json_object_set_new(o, "revoked", json_integer(clock_wall_ns() / (int64_t)NS_PER_S));
        json_object_set_new(o, "reason", json_integer(reason));
    }
    arena_init(&a, 1024);
    enum err e = store_json(r, "issued", digest_id(der, &a), o);
    arena_deinit(&a);
    return e;
}

/* --- the end of records --- */

static void prune_kind(const struct ca_records *r, const char *kind, int64_t age_s)
{
    struct arena a;
    struct slice *keys;
    size_t count;
    struct storage *s = r->storage;
    struct storage_why why;
    struct storage_info info;
    int64_t before = clock_wall_ns() - age_s * (int64_t)NS_PER_S;
    arena_init(&a, 16 << 10);
    struct slice folder = arena_join(&a, (struct slice[]){SLICE("acme_server/"),
                                                          storage_safe(&a, r->id), SLICE("/"),
                                                          slice_from(kind)}, 4);
    if (s->type->list(s, folder, false, &a, &keys, &count, &why) == OK)
        for (size_t i = 0; i < count; i++)
            if (s->type->stat(s, keys[i], &info, &why) == OK && !info.is_folder &&
                info.modified_ns < before)
                (void)s->type->remove(s, keys[i], &why);
    arena_deinit(&a);
}

void ca_records_prune(const struct ca_records *r)
{
    prune_kind(r, "orders", (CA_ORDER_HOURS + 24) * 3600);
    prune_kind(r, "certificates", KEEP_DAYS * 86400);
    prune_kind(r, "issued", KEEP_DAYS * 86400);
}
