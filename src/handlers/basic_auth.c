/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_basic: names and passwords by HTTP's basic scheme (RFC 7617), against a list of accounts. An
 * account's hash says itself whether it is bcrypt or argon2id; hashes that were encoded in base64 a
 * second time, as Caddy once wanted them, are taken as well. A name that is nobody's costs the same
 * hashing as one that is, so that names cannot be found out by the clock. An account whose hash is none
 * (a word of an example that was never replaced) lets nobody in, as in Caddy; a warning tells of it.
 *
 *     "http_basic": {"accounts": [{"username": "bob", "password": "$2a$14$…"}],
 *                    "realm": "restricted", "hash": {"algorithm": "bcrypt"}, "hash_cache": {}}
 *
 * hash_cache is accepted and changes nothing: what was right is always remembered, as a digest.
 */
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/text.h"
#include "handlers/auth_cache.h"
#include "handlers/authentication.h"
#include "handlers/handlers.h"

enum { CREDENTIALS_MAX = 8192 };

/* What is hashed for a name that is nobody's when there are no accounts at all; of no password. */
#define NOBODYS_HASH "$2a$14$B05EdAsVDfkF4VE3TLYm8ea9cUcLq/iLbM396reek7fNxI1slnnYy"

struct basic_auth {
    struct map accounts; /* name → struct password_hash */
    struct password_hash *nobody; /* what a name costs that is no account's */
    struct slice challenge; /* Basic realm="…" */
};

static const char *const members[] = {"accounts", "realm", "hash", "hash_cache", NULL};
static const char *const account_members[] = {"username", "password", NULL};
static const char *const none[] = {NULL};

/* --- provisioning --- */

/* One more name that is nobody's: it costs the hashing all the same. */
static enum err read_hopeless(struct provision *p, struct password_hash *out)
{
    const char *why;
    TRY(password_parse(SLICE(NOBODYS_HASH), out, p->arena, &why));
    out->fits_nobody = true;
    return OK;
}

static enum err read_hash(struct provision *p, size_t i, struct slice text,
                          struct password_hash *out)
{
    const char *why;
    if (text.len > 0 && text.ptr[0] != '$') {
        struct buffer b;
        buffer_init(&b, PASSWORD_TEXT_MAX);
        enum err e = base64_decode(&b, text);
        text = arena_copy(p->arena, buffer_slice(&b));
        buffer_deinit(&b);
        if (e != OK)
            return provision_fail(p, "account %zu: base64-decoding password: invalid", i);
    }
    if (password_parse(text, out, p->arena, &why) == OK)
        return OK;
    LOG(LOG_WARN, "http.authentication.providers.http_basic", "nobody can log in to this account",
        LOG_NUM("account", (int64_t)i),
        LOG_STR("error", arena_printf(p->arena, "the password %s", why)));
    return read_hopeless(p, out);
}

static enum err read_account(struct basic_auth *b, size_t i, const json_t *json,
                             struct provision *p)
{
    struct slice name, password;
    struct password_hash *hash = ARENA_NEW(p->arena, struct password_hash);
    TRY(provision_members(p, json, account_members));
    TRY(provision_text(p, json, "username", SLICE(""), &name));
    TRY(provision_text(p, json, "password", SLICE(""), &password));
    name = template_expand_now(name, p->arena);
    password = template_expand_now(password, p->arena);
    if (name.len == 0 || password.len == 0)
        return provision_fail(p, "account %zu: username and password are required", i);
    TRY(read_hash(p, i, password, hash));
    if (map_put(&b->accounts, name, hash) != NULL)
        return provision_fail(p, "account %zu: username is not unique: " SLICE_FMT, i,
                              SLICE_ARG(name));
    if (i == 0)
        b->nobody = hash;
    return OK;
}

static enum err read_accounts(struct basic_auth *b, const json_t *accounts, struct provision *p)
{
    if (accounts != NULL && !json_is_null(accounts) && !json_is_array(accounts))
        return provision_fail(p, "\"accounts\" must be an array");
    for (size_t i = 0; i < json_array_size(accounts); i++)
        TRY(read_account(b, i, json_array_get(accounts, i), p));
    if (b->nobody != NULL)
        return OK;
    b->nobody = ARENA_NEW(p->arena, struct password_hash);
    return read_hopeless(p, b->nobody);
}

/* {"algorithm": "bcrypt"}: the module must be known; which one an account uses its hash tells. */
static enum err check_algorithm(const json_t *hash, struct provision *p)
{
    const struct module *m;
    void *ignored;
    if (hash == NULL || json_is_null(hash))
        return OK;
    const char *name = json_string_value(json_object_get(hash, "algorithm"));
    if (name == NULL)
        return provision_fail(p, "\"algorithm\" must name the hash's algorithm");
    return provision_module(p, "http.authentication.hashes", name, hash, &m, &ignored);
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct basic_auth *b = cfg;
    struct slice realm;
    const json_t *cache = json_object_get(json, "hash_cache");
    map_init(&b->accounts, false);
    TRY(provision_members(p, json, members));
    TRY(check_algorithm(json_object_get(json, "hash"), p));
    if (cache != NULL && !json_is_null(cache))
        TRY(provision_members(p, cache, none));
    TRY(provision_text(p, json, "realm", SLICE(""), &realm));
    if (realm.len == 0)
        realm = SLICE("restricted");
    b->challenge = arena_join(p->arena, (struct slice[]){SLICE("Basic realm=\""), realm,
                                                         SLICE("\"")}, 3);
    return read_accounts(b, json_object_get(json, "accounts"), p);
}

static void release(void *cfg)
{
    struct basic_auth *b = cfg;
    map_deinit(&b->accounts);
}

/* --- requests --- */

/* "Basic BASE64(name:password)", decoded into `out`, which the caller wipes. */
static bool read_credentials(const struct exchange *x, struct buffer *out, struct slice *name,
                             struct slice *password)
{
    struct slice value;
    if (!fields_get(&x->req.fields, SLICE("Authorization"), &value) ||
        !slice_starts_nocase(value, SLICE("Basic ")) ||
        buffer_reserve(out, value.len) != OK || /* once: no copies are left behind by growing */
        base64_decode(out, slice_skip(value, 6)) != OK)
        return false;
    return slice_cut(buffer_slice(out), ':', name, password);
}

static enum err check(const struct basic_auth *b, struct exchange *x, struct slice name,
                      struct slice password, struct slice *user)
{
    const struct password_hash *hash = map_get(&b->accounts, name);
    bool same, known = hash != NULL && !hash->fits_nobody;
    enum err e = auth_check(hash != NULL ? hash : b->nobody, password, known, &same);
    if (e == ERR_LIMIT)
        return exchange_fail(x, 503, "http_basic: too many passwords wait to be checked");
    if (e != OK)
        return e;
    if (same && known)
        *user = arena_copy(x->arena, name);
    return OK;
}

static enum err authenticate(const void *cfg, struct exchange *x, struct slice *user)
{
    const struct basic_auth *b = cfg;
    struct buffer decoded;
    struct slice name, password;
    enum err e = OK;
    buffer_init(&decoded, CREDENTIALS_MAX);
    if (read_credentials(x, &decoded, &name, &password))
        e = check(b, x, name, password, user);
    if (decoded.ptr != NULL)
        explicit_bzero(decoded.ptr, decoded.cap);
    buffer_deinit(&decoded);
    if (e == OK && user->len == 0)
        fields_set(&x->res.fields, SLICE("Www-Authenticate"), b->challenge);
    return e;
}

static const struct auth_provider face = {.authenticate = authenticate};

const struct module auth_provider_http_basic = {
    .id = "http.authentication.providers.http_basic",
    .cfg_size = sizeof(struct basic_auth),
    .provision = provision,
    .release = release,
    .face = &face,
};

/* --- the algorithms' modules: names, without options --- */

static const char *const algorithm_members[] = {"algorithm", NULL};

static enum err provision_algorithm(void *cfg, const json_t *json, struct provision *p)
{
    (void)cfg;
    return provision_members(p, json, algorithm_members);
}

const struct module auth_hash_bcrypt = {
    .id = "http.authentication.hashes.bcrypt",
    .cfg_size = 1,
    .provision = provision_algorithm,
};

const struct module auth_hash_argon2id = {
    .id = "http.authentication.hashes.argon2id",
    .cfg_size = 1,
    .provision = provision_algorithm,
};
