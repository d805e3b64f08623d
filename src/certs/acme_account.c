/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An account is looked for in the storage; when it is not there, again under the lock that certmagic
 * takes for registrations, since another fiber or instance may just have made it.
 *
 * A crash makes no second account: a new account's key is stored before the authority hears of it.
 * A key without its .json is therefore an account that may exist; asking for it with that key gives
 * the old one (RFC 8555 §7.3.1). certmagic reads the .json first, and takes no notice of a key alone.
 *
 * The same for a change of the key: the new one lies beside the old, as NAME.key.new, until the
 * authority has said yes; after a crash in between whichever of the two it knows is the account's.
 */
#include "certs/acme_account.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "certs/jose.h"
#include "certs/zerossl_api.h"
#include "config/jsonx.h"
#include "loop/await.h"

enum { KEY_PEM_MAX = 64 << 10, PAYLOAD_MAX = 256 << 10, LOCK_MINUTES = 5 };

static const char logger[] = "tls.issuance.acme";

/* --- places --- */

struct slice acme_issuer_key(struct slice directory, struct arena *a)
{
    size_t scheme = slice_find_slice(directory, SLICE("://"));
    struct slice rest = scheme == SIZE_MAX ? directory : slice_skip(directory, scheme + 3);
    size_t end = 0;
    while (end < rest.len && rest.ptr[end] != '?' && rest.ptr[end] != '#')
        end++;
    rest = slice_take(rest, end);
    size_t slash = slice_find(rest, '/');
    struct slice host = slash == SIZE_MAX ? rest : slice_take(rest, slash);
    struct slice path = arena_copy(a, slash == SIZE_MAX ? SLICE("") : slice_skip(rest, slash));
    for (size_t i = 0; i < path.len; i++)
        if (path.ptr[i] == '/' || path.ptr[i] == '\\')
            ((char *)path.ptr)[i] = '-';
    while (path.len > 0 && path.ptr[0] == '-')
        path = slice_skip(path, 1);
    while (path.len > 0 && path.ptr[path.len - 1] == '-')
        path.len--;
    return path.len == 0 ? host : arena_join(a, (struct slice[]){host, SLICE("-"), path}, 3);
}

struct slice acme_storage_prefix(struct slice directory, struct arena *a)
{
    return arena_join(a, (struct slice[]){SLICE("acme/"),
                                          storage_safe(a, acme_issuer_key(directory, a))}, 2);
}

/* The part of an address before its '@', which names the files. */
static struct slice user_name(struct slice email)
{
    size_t at = slice_find(email, '@');
    return at == SIZE_MAX ? email : at == 0 ? slice_skip(email, 1) : slice_take(email, at);
}

static struct slice place(const struct acme *c, struct slice email, const char *unnamed,
                          const char *ending)
{
    struct arena *a = c->arena;
    if (email.len == 0)
        email = SLICE("default");
    struct slice name = storage_safe(a, user_name(email));
    return arena_join(a, (struct slice[]){
        acme_storage_prefix(c->options->directory, a), SLICE("/users/"), storage_safe(a, email),
        SLICE("/"), name.len > 0 ? name : slice_from(unnamed), slice_from(ending)}, 6);
}

static struct slice registration_place(const struct acme *c, struct slice email)
{
    return place(c, email, "registration", ".json");
}

static struct slice key_place(const struct acme *c, struct slice email)
{
    return place(c, email, "private", ".key");
}

static struct slice new_key_place(const struct acme *c, struct slice email)
{
    return place(c, email, "private", ".key.new");
}

/* --- storage --- */

static enum err load(struct acme *c, struct storage *s, struct slice key, struct slice *value)
{
    struct storage_why why = {""};
    enum err e = s->type->load(s, key, c->arena, value, &why);
    return e == OK ? OK : acme_fail(c, e, "loading " SLICE_FMT ": %s", SLICE_ARG(key), why.text);
}

static enum err store(struct acme *c, struct storage *s, struct slice key, struct slice value)
{
    struct storage_why why = {""};
    enum err e = s->type->store(s, key, value, &why);
    return e == OK ? OK : acme_fail(c, e, "storing " SLICE_FMT ": %s", SLICE_ARG(key), why.text);
}

static enum err drop(struct acme *c, struct storage *s, struct slice key)
{
    struct storage_why why = {""};
    enum err e = s->type->remove(s, key, &why);
    if (e == OK || e == ERR_NOT_FOUND)
        return OK;
    return acme_fail(c, e, "removing " SLICE_FMT ": %s", SLICE_ARG(key), why.text);
}

static enum err store_key(struct acme *c, struct storage *s, struct slice place_of_key,
                          const struct evp_pkey_st *key)
{
    struct buffer pem;
    buffer_init(&pem, KEY_PEM_MAX);
    enum err e = key_put_pem(&pem, key);
    e = e == OK ? store(c, s, place_of_key, buffer_slice(&pem)) :
                  acme_fail(c, e, "the account's key cannot be written as PEM");
    if (pem.ptr != NULL)
        explicit_bzero(pem.ptr, pem.cap);
    buffer_deinit(&pem);
    return e;
}

static json_t *registration(const struct acme_account *acc)
{
    json_t *o = json_object(), *contacts = json_array();
    json_object_set_new(o, "status", jsonx_string(acc->status));
    for (size_t i = 0; i < acc->contacts_count; i++)
        json_array_append_new(contacts, jsonx_string(acc->contacts[i]));
    if (acc->contacts_count > 0)
        json_object_set(o, "contact", contacts);
    json_decref(contacts);
    if (acc->agreed)
        json_object_set_new(o, "termsOfServiceAgreed", json_true());
    if (acc->binding.len > 0)
        json_object_set_new(o, "externalAccountBinding",
                            json_loadb(acc->binding.ptr, acc->binding.len, 0, NULL));
    if (acc->orders.len > 0)
        json_object_set_new(o, "orders", jsonx_string(acc->orders));
    json_object_set_new(o, "location", jsonx_string(acc->location));
    return o;
}

static enum err store_registration(struct acme *c, struct storage *s, const struct acme_account *acc)
{
    struct buffer text;
    json_t *o = registration(acc);
    buffer_init(&text, PAYLOAD_MAX);
    enum err e = jsonx_dump_pretty(&text, o);
    e = e == OK ? store(c, s, registration_place(c, acc->email), buffer_slice(&text)) :
                  acme_fail(c, e, "the account cannot be written as JSON");
    buffer_deinit(&text);
    json_decref(o);
    return e;
}

static void take(struct acme_account *acc, const struct acme_account_object *o)
{
    if (o->status.len > 0)
        acc->status = o->status;
    if (o->orders.len > 0)
        acc->orders = o->orders;
    if (o->location.len > 0)
        acc->location = o->location;
    if (o->binding.len > 0)
        acc->binding = o->binding;
    acc->agreed |= o->agreed;
    if (o->contacts_count > 0) { /* some authorities give none back */
        acc->contacts = o->contacts;
        acc->contacts_count = o->contacts_count;
    }
}

static enum err read_key(struct acme *c, struct slice pem, struct evp_pkey_st **key)
{
    char why[256];
    enum err e = key_from_pem(pem, key, why, sizeof why);
    return e == OK ? OK : acme_fail(c, e, "could not decode account's private key: %s", why);
}

/* What the storage has: both halves, or ERR_NOT_FOUND. */
static enum err load_account(struct acme *c, struct storage *s, struct slice email,
                             struct acme_account *acc)
{
    struct slice json, pem;
    struct acme_account_object object;
    struct acme_why why;
    *acc = (struct acme_account){.email = email};
    TRY(load(c, s, registration_place(c, email), &json));
    TRY(load(c, s, key_place(c, email), &pem));
    if (acme_account_read(json, c->arena, &object, &why) != OK)
        return acme_fail(c, ERR_INVALID, SLICE_FMT ": %s",
                         SLICE_ARG(registration_place(c, email)), why.text);
    take(acc, &object);
    return read_key(c, pem, &acc->key);
}

struct acme_signer acme_account_signer(const struct acme_account *acc)
{
    return (struct acme_signer){acc->key, acc->location};
}

void acme_account_close(struct acme_account *acc)
{
    key_free(acc->key);
    acc->key = NULL;
}

/* --- asking the authority --- */

static enum err put_contacts(struct buffer *b, const struct acme_account *acc)
{
    TRY(BUFFER_PUT(b, "\"contact\":["));
    for (size_t i = 0; i < acc->contacts_count; i++) {
        if (i > 0)
            TRY(BUFFER_PUT(b, ","));
        TRY(jsonx_put_string(b, acc->contacts[i]));
    }
    return BUFFER_PUT(b, "]");
}

static enum err put_new_account(struct buffer *b, const struct acme_account *acc, bool only_existing)
{
    if (only_existing)
        return BUFFER_PUT(b, "{\"onlyReturnExisting\":true}");
    TRY(BUFFER_PUT(b, "{"));
    if (acc->contacts_count > 0) {
        TRY(put_contacts(b, acc));
        TRY(BUFFER_PUT(b, ","));
    }
    TRY(BUFFER_PUT(b, "\"termsOfServiceAgreed\":true"));
    if (acc->binding.len > 0) {
        TRY(BUFFER_PUT(b, ",\"externalAccountBinding\":"));
        TRY(buffer_append(b, acc->binding));
    }
    return BUFFER_PUT(b, "}");
}

/* Posts to newAccount, or to the account, and takes what comes back. */
static enum err post_account(struct acme *c, const struct acme_signer *signer, struct slice url,
                             struct buffer *payload, struct acme_account *acc)
{
    struct acme_answer answer;
    struct acme_account_object object;
    struct acme_why why;
    TRY(acme_post(c, signer, url, buffer_slice(payload), &answer));
    if (acme_account_read(answer.body, c->arena, &object, &why) != OK)
        return acme_fail(c, ERR_INVALID, "the account that came back: %s", why.text);
    if (answer.location.len > 0)
        object.location = answer.location;
    take(acc, &object);
    return acme_url_ok(acc->location) ? OK :
           acme_fail(c, ERR_INVALID, "the authority did not say where the account is");
}

static enum err ask_for_account(struct acme *c, struct acme_account *acc, bool only_existing)
{
    struct acme_signer signer = {acc->key, SLICE("")};
    struct buffer payload;
    buffer_init(&payload, PAYLOAD_MAX);
    enum err e = put_new_account(&payload, acc, only_existing);
    if (e == OK)
        e = post_account(c, &signer, c->directory->new_account, &payload, acc);
    buffer_deinit(&payload);
    return e;
}

/* --- a new account --- */

static enum err bind_account(struct acme *c, const struct acme_account_options *o,
                             struct acme_account *acc)
{
    struct slice id = o->binding_id, secret = o->binding_key;
    struct buffer mac, binding;
    if (id.len == 0 && o->zerossl)
        TRY(zerossl_binding(c, o->email, &id, &secret));
    if (id.len == 0)
        return OK;
    buffer_init(&mac, KEY_PEM_MAX);
    buffer_init(&binding, PAYLOAD_MAX);
    enum err e = base64_decode(&mac, secret);
    if (e != OK)
        (void)acme_fail(c, e, "the MAC key of the external account is not base64url");
    else if ((e = jws_put_binding(&binding, acc->key, buffer_slice(&mac), id,
                                  c->directory->new_account)) != OK)
        (void)acme_fail(c, e, "the external account's binding could not be signed");
    else
        acc->binding = arena_copy(c->arena, buffer_slice(&binding));
    if (mac.ptr != NULL)
        explicit_bzero(mac.ptr, mac.cap);
    buffer_deinit(&mac);
    buffer_deinit(&binding);
    return e;
}

struct making {
    struct evp_pkey_st *key;
    enum err result;
};

static void make_key(void *arg)
{
    struct making *m = arg;
    m->result = key_generate(KEY_P256, &m->key);
}

static enum err new_key(struct acme *c, struct evp_pkey_st **key)
{
    struct making m = {NULL, OK};
    await_on_loop(make_key, &m);
    *key = m.key;
    return m.result == OK ? OK : acme_fail(c, m.result, "no key could be made for a new account");
}

/* The key of an account that was begun and not ended, or a new one, which is stored. */
static enum err key_for_new(struct acme *c, struct storage *s, struct acme_account *acc)
{
    struct slice pem;
    if (load(c, s, key_place(c, acc->email), &pem) == OK && read_key(c, pem, &acc->key) == OK)
        return OK;
    TRY(new_key(c, &acc->key));
    return store_key(c, s, key_place(c, acc->email), acc->key);
}

static enum err register_account(struct acme *c, const struct acme_account_options *o,
                                 struct acme_account *acc)
{
    *acc = (struct acme_account){.email = o->email, .agreed = true};
    if (o->email.len > 0) {
        acc->contacts = ARENA_NEW(c->arena, struct slice);
        acc->contacts[0] = arena_join(c->arena, (struct slice[]){SLICE("mailto:"), o->email}, 2);
        acc->contacts_count = 1;
    }
    TRY(key_for_new(c, o->storage, acc));
    TRY(bind_account(c, o, acc));
    enum err e = ask_for_account(c, acc, false);
    if (e != OK) {
        acme_context(c, "registering account [" SLICE_FMT "] with server", SLICE_ARG(o->email));
        return e;
    }
    LOG(LOG_INFO, logger, "new ACME account registered", LOG_STR("contact", o->email),
        LOG_STR("status", acc->status));
    return store_registration(c, o->storage, acc);
}

static struct slice lock_name(const struct acme *c, struct slice email)
{
    static const struct slice base = {"register_acme_account", sizeof "register_acme_account" - 1};
    return email.len == 0 ? base : arena_join(c->arena, (struct slice[]){base, SLICE("_"), email}, 3);
}

static enum err make_once(struct acme *c, const struct acme_account_options *o,
                          struct acme_account *acc)
{
    struct storage *s = o->storage;
    struct storage_why why = {""};
    struct slice lock = lock_name(c, o->email);
    enum err e = s->type->lock(s, lock, clock_mono_ns() + LOCK_MINUTES * 60 * NS_PER_S, &why);
    if (e != OK)
        return acme_fail(c, e, "locking account registration: %s", why.text);
    e = load_account(c, s, o->email, acc); /* somebody else may just have made it */
    if (e == ERR_NOT_FOUND || (e == OK && acc->status.len == 0)) {
        acme_account_close(acc);
        e = register_account(c, o, acc);
    }
    if (s->type->unlock(s, lock, &why) != OK)
        LOG(LOG_ERROR, logger, "failed to unlock account registration lock",
            LOG_CSTR("error", why.text));
    return e;
}

/* --- an account by its key --- */

static bool same_key(struct slice stored, struct slice wanted)
{
    return slice_eq(slice_trim(stored), slice_trim(wanted));
}

static struct slice last_part(struct slice key)
{
    size_t slash = slice_find_last(key, '/');
    return slash == SIZE_MAX ? key : slice_skip(key, slash + 1);
}

static struct slice users_place(struct slice directory, struct arena *a)
{
    return arena_join(a, (struct slice[]){acme_storage_prefix(directory, a), SLICE("/users")}, 2);
}

static enum err find_by_key(struct acme *c, const struct acme_account_options *o,
                            struct acme_account *acc)
{
    struct storage *s = o->storage;
    struct storage_why why;
    struct slice *users, pem, place_of_users = users_place(c->options->directory, c->arena);
    size_t count;
    if (o->email.len > 0) {
        TRY(load(c, s, key_place(c, o->email), &pem));
        return same_key(pem, o->key_pem) ? load_account(c, s, o->email, acc) : ERR_NOT_FOUND;
    }
    if (s->type->list(s, place_of_users, false, c->arena, &users, &count, &why) != OK)
        return ERR_NOT_FOUND;
    for (size_t i = 0; i < count; i++) {
        struct slice email = last_part(users[i]);
        if (load(c, s, key_place(c, email), &pem) == OK && same_key(pem, o->key_pem))
            return load_account(c, s, email, acc);
    }
    return ERR_NOT_FOUND;
}

static struct slice address_of(struct slice contact)
{
    struct slice scheme, rest;
    return slice_cut(contact, ':', &scheme, &rest) ? rest : contact;
}

static enum err open_by_key(struct acme *c, const struct acme_account_options *o,
                            struct acme_account *acc)
{
    LOG(LOG_INFO, logger, "using configured ACME account");
    if (find_by_key(c, o, acc) == OK && acc->status.len > 0)
        return OK;
    acme_account_close(acc);
    *acc = (struct acme_account){.email = o->email};
    TRY(read_key(c, o->key_pem, &acc->key));
    enum err e = ask_for_account(c, acc, true);
    if (e != OK) {
        acme_context(c, "looking up account with server");
        return e;
    }
    if (acc->contacts_count > 0 && acc->email.len == 0)
        acc->email = address_of(acc->contacts[0]);
    TRY(store_key(c, o->storage, key_place(c, acc->email), acc->key));
    return store_registration(c, o->storage, acc);
}

/* --- a change of key that was begun --- */

/* Whichever of the two keys the authority knows. */
static enum err settle_keys(struct acme *c, const struct acme_account_options *o,
                            struct acme_account *acc)
{
    struct slice pem;
    struct acme_account other = *acc;
    other.key = NULL;
    if (load(c, o->storage, new_key_place(c, acc->email), &pem) != OK)
        return OK;
    if (read_key(c, pem, &other.key) == OK && ask_for_account(c, &other, true) == OK) {
        acme_account_close(acc);
        acc->key = other.key;
        TRY(store_key(c, o->storage, key_place(c, acc->email), acc->key));
    } else {
        acme_account_close(&other);
        if (c->problem == NULL || !acme_problem_is(c->problem, "accountDoesNotExist"))
            return OK; /* not known: both stay for the next time */
    }
    return drop(c, o->storage, new_key_place(c, acc->email));
}

/* --- the face --- */

static enum err find_or_make(struct acme *c, const struct acme_account_options *o,
                             struct acme_account *acc)
{
    enum err e = load_account(c, o->storage, o->email, acc);
    if (e == OK && acc->status.len > 0)
        return settle_keys(c, o, acc);
    if (e != OK && e != ERR_NOT_FOUND)
        return e;
    LOG(LOG_INFO, logger, "creating new account because no account for configured email is known "
        "to us", LOG_STR("email", o->email), LOG_STR("ca", c->options->directory));
    acme_account_close(acc);
    return make_once(c, o, acc);
}

enum err acme_account_open(struct acme *c, const struct acme_account_options *o,
                           struct acme_account *acc)
{
    *acc = (struct acme_account){0};
    enum err e = o->key_pem.len > 0 ? open_by_key(c, o, acc) : find_or_make(c, o, acc);
    if (e != OK) {
        acme_account_close(acc);
        acme_context(c, "getting ACME account");
    }
    return e;
}

enum err acme_account_forget(struct acme *c, const struct acme_account_options *o,
                             const struct acme_account *acc)
{
    TRY(drop(c, o->storage, registration_place(c, acc->email)));
    return drop(c, o->storage, key_place(c, acc->email));
}

enum err acme_account_set_contacts(struct acme *c, const struct acme_account_options *o,
                                   struct acme_account *acc, const struct slice *contacts,
                                   size_t count)
{
    struct acme_signer signer = acme_account_signer(acc);
    struct acme_account changed = *acc;
    struct buffer payload;
    changed.contacts = ARENA_ARRAY(c->arena, struct slice, count);
    for (size_t i = 0; i < count; i++)
        changed.contacts[i] = arena_copy(c->arena, contacts[i]);
    changed.contacts_count = count;
    buffer_init(&payload, PAYLOAD_MAX);
    enum err e = BUFFER_PUT(&payload, "{");
    if (e == OK)
        e = put_contacts(&payload, &changed);
    if (e == OK)
        e = BUFFER_PUT(&payload, "}");
    if (e == OK)
        e = post_account(c, &signer, acc->location, &payload, &changed);
    buffer_deinit(&payload);
    if (e != OK)
        return e;
    *acc = changed;
    return store_registration(c, o->storage, acc);
}

enum err acme_account_deactivate(struct acme *c, const struct acme_account_options *o,
                                 struct acme_account *acc)
{
    struct acme_signer signer = acme_account_signer(acc);
    struct buffer payload;
    buffer_init(&payload, 64);
    enum err e = BUFFER_PUT(&payload, "{\"status\":\"deactivated\"}");
    if (e == OK)
        e = post_account(c, &signer, acc->location, &payload, acc);
    buffer_deinit(&payload);
    return e == OK ? acme_account_forget(c, o, acc) : e;
}

/* --- a change of key --- */

static enum err put_inner(struct acme *c, const struct acme_account *acc,
                          const struct evp_pkey_st *key, struct buffer *inner)
{
    struct buffer payload;
    struct jws jws = {.key = key, .url = c->directory->key_change};
    buffer_init(&payload, PAYLOAD_MAX);
    enum err e = BUFFER_PUT(&payload, "{\"account\":");
    if (e == OK)
        e = jsonx_put_string(&payload, acc->location);
    if (e == OK)
        e = BUFFER_PUT(&payload, ",\"oldKey\":");
    if (e == OK)
        e = jwk_put(&payload, acc->key);
    if (e == OK)
        e = BUFFER_PUT(&payload, "}");
    jws.payload = buffer_slice(&payload);
    if (e == OK)
        e = jws_put(inner, &jws);
    buffer_deinit(&payload);
    return e;
}

static enum err ask_for_change(struct acme *c, const struct acme_account *acc,
                               const struct evp_pkey_st *key)
{
    struct acme_signer signer = acme_account_signer(acc);
    struct acme_answer answer;
    struct buffer inner;
    buffer_init(&inner, PAYLOAD_MAX);
    enum err e = put_inner(c, acc, key, &inner);
    e = e == OK ? acme_post(c, &signer, c->directory->key_change, buffer_slice(&inner), &answer) :
                  acme_fail(c, e, "the change of keys could not be signed");
    buffer_deinit(&inner);
    return e;
}

enum err acme_account_change_key(struct acme *c, const struct acme_account_options *o,
                                 struct acme_account *acc)
{
    struct evp_pkey_st *key;
    if (c->directory->key_change.len == 0)
        return acme_fail(c, ERR_UNSUPPORTED, "the authority does not change keys of accounts");
    TRY(new_key(c, &key));
    enum err e = store_key(c, o->storage, new_key_place(c, acc->email), key);
    if (e == OK)
        e = ask_for_change(c, acc, key);
    if (e == ERR_FAILED) /* it said no; without an answer both keys stay */
        (void)drop(c, o->storage, new_key_place(c, acc->email));
    if (e != OK) {
        key_free(key);
        return e;
    }
    acme_account_close(acc);
    acc->key = key;
    TRY(store_key(c, o->storage, key_place(c, acc->email), key));
    return drop(c, o->storage, new_key_place(c, acc->email));
}

/* --- which email --- */

struct slice acme_account_newest_email(struct storage *s, struct slice directory, struct arena *a)
{
    struct slice *users, newest = SLICE(""), json;
    struct storage_why why;
    size_t count;
    int64_t newest_ns = INT64_MIN;
    struct acme_options options = {.directory = directory};
    struct acme c = {.arena = a, .options = &options};
    struct acme_account_object object;
    struct acme_why ignored;
    if (s->type->list(s, users_place(directory, a), false, a, &users, &count, &why) != OK)
        return SLICE("");
    for (size_t i = 0; i < count; i++) {
        struct storage_info info;
        if (s->type->stat(s, users[i], &info, &why) == OK && info.is_folder &&
            info.modified_ns > newest_ns) {
            newest_ns = info.modified_ns;
            newest = last_part(users[i]);
        }
    }
    if (newest.len == 0 || load(&c, s, registration_place(&c, newest), &json) != OK ||
        acme_account_read(json, a, &object, &ignored) != OK)
        return SLICE("");
    return object.contacts_count > 0 ? address_of(object.contacts[0]) : SLICE("");
}
