/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file with the issuer's data is JSON as Go indents it, by tabs. JSON is read and written on the
 * loop's stack, for the library recurses.
 */
#include "certs/asset.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "base/pem.h"
#include "certs/large_stack.h"

struct slice asset_key(struct arena *arena, struct slice issuer_key, struct slice name,
                       const char *ending)
{
    struct slice issuer = storage_safe(arena, issuer_key), safe = storage_safe(arena, name);
    return arena_printf(arena, "certificates/" SLICE_FMT "/" SLICE_FMT "/" SLICE_FMT "%s",
                        SLICE_ARG(issuer), SLICE_ARG(safe), SLICE_ARG(safe), ending);
}

/* --- the issuer's data --- */

struct data_job {
    struct slice name, in; /* `in`: the file, or the issuer's data */
    struct arena *arena;
    struct slice out;
    bool ok;
};

static void read_data(void *arg)
{
    struct data_job *j = arg;
    json_t *file = json_loadb(j->in.ptr != NULL ? j->in.ptr : "", j->in.len, 0, NULL);
    const json_t *data = json_object_get(file, "issuer_data");
    char *dump = data != NULL ? json_dumps(data, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    j->ok = json_is_object(file);
    j->out = dump != NULL ? arena_copy(j->arena, slice_from(dump)) : SLICE("null");
    free(dump);
    json_decref(file);
}

/* A space per level, as jansson indents, becomes a tab. */
static struct slice with_tabs(char *text, struct arena *arena)
{
    bool front = false;
    for (char *c = text; *c != '\0'; c++) {
        if (*c == '\n')
            front = true;
        else if (*c == ' ' && front)
            *c = '\t';
        else
            front = false;
    }
    return arena_copy(arena, slice_from(text));
}

static void write_data(void *arg)
{
    struct data_job *j = arg;
    json_t *data = json_loadb(j->in.ptr != NULL ? j->in.ptr : "", j->in.len, JSON_DECODE_ANY, NULL);
    json_t *file = json_pack("{s:[s%],s:o}", "sans", j->name.ptr, j->name.len, "issuer_data",
                             data != NULL ? data : json_null());
    char *dump = json_dumps(file, JSON_INDENT(1));
    j->ok = dump != NULL;
    j->out = dump != NULL ? with_tabs(dump, j->arena) : SLICE_NONE;
    free(dump);
    json_decref(file);
}

/* --- loading --- */

static enum err load_part(struct storage *s, struct slice issuer_key, struct slice name,
                          const char *ending, struct arena *arena, struct slice *out,
                          struct storage_why *why)
{
    return s->type->load(s, asset_key(arena, issuer_key, name, ending), arena, out, why);
}

enum err asset_load(struct storage *s, struct slice issuer_key, struct slice name,
                    struct arena *arena, struct asset *a, struct storage_why *why)
{
    struct data_job data = {.arena = arena};
    *a = (struct asset){.issuer_key = issuer_key};
    TRY(load_part(s, issuer_key, name, ".key", arena, &a->key_pem, why));
    TRY(load_part(s, issuer_key, name, ".crt", arena, &a->chain_pem, why));
    TRY(load_part(s, issuer_key, name, ".json", arena, &data.in, why));
    on_large_stack(read_data, &data);
    a->issuer_data = data.out;
    if (data.ok)
        return OK;
    snprintf(why->text, sizeof why->text, "decoding certificate metadata: no JSON object");
    return ERR_INVALID;
}

struct dates_job {
    struct slice chain;
    struct arena *arena;
    struct certificate_facts facts;
    enum err e;
};

static void read_dates(void *arg)
{
    char why[256];
    struct dates_job *j = arg;
    j->e = certificate_read(j->chain, j->arena, &j->facts, why, sizeof why);
}

static int64_t issued_at(struct slice chain, struct arena *arena)
{
    struct dates_job j = {.chain = chain, .arena = arena};
    on_large_stack(read_dates, &j);
    return j.e == OK ? j.facts.not_before_s : INT64_MIN;
}

enum err asset_load_any(const struct automation_policy *policy, struct slice name,
                        struct arena *arena, struct asset *a, struct storage_why *why)
{
    enum err result = ERR_NOT_FOUND;
    int64_t newest = INT64_MIN;
    why->text[0] = '\0';
    for (size_t i = 0; i < policy->issuers_count; i++) {
        struct asset other;
        enum err e = asset_load(policy->storage, policy->issuers[i].key, name, arena, &other, why);
        if (e == ERR_NOT_FOUND)
            continue;
        if (e != OK) {
            result = result == OK ? OK : e;
            continue;
        }
        int64_t at = policy->issuers_count > 1 ? issued_at(other.chain_pem, arena) : 0;
        if (result != OK || at > newest) {
            *a = other;
            newest = at;
        }
        result = OK;
    }
    return result;
}

static bool has_part(const struct automation_policy *policy, size_t issuer, struct slice name,
                     const char *ending, struct arena *arena)
{
    struct storage_info info;
    struct storage_why why;
    struct storage *s = policy->storage;
    struct slice key = asset_key(arena, policy->issuers[issuer].key, name, ending);
    return s->type->stat(s, key, &info, &why) == OK && !info.is_folder;
}

bool asset_exists_any(const struct automation_policy *policy, struct slice name)
{
    struct arena arena;
    bool found = false;
    arena_init(&arena, 4096);
    for (size_t i = 0; i < policy->issuers_count && !found; i++)
        found = has_part(policy, i, name, ".crt", &arena) &&
                has_part(policy, i, name, ".key", &arena) &&
                has_part(policy, i, name, ".json", &arena);
    arena_deinit(&arena);
    return found;
}

/* --- storing --- */

enum err asset_store_data(struct storage *s, struct slice name, const struct asset *a,
                          struct storage_why *why)
{
    struct arena arena;
    arena_init(&arena, 8192);
    struct data_job data = {.name = name, .in = a->issuer_data, .arena = &arena};
    on_large_stack(write_data, &data);
    enum err e = data.ok ? s->type->store(s, asset_key(&arena, a->issuer_key, name, ".json"),
                                          data.out, why)
                         : ERR_INVALID;
    if (!data.ok)
        snprintf(why->text, sizeof why->text, "encoding certificate metadata");
    arena_deinit(&arena);
    return e;
}

/* A renewal that could not be written leaves what was there before. */
static void put_back(struct storage *s, struct slice key, struct slice old)
{
    struct storage_why ignored;
    if (old.len > 0)
        (void)!s->type->store(s, key, old, &ignored);
    else
        (void)!s->type->remove(s, key, &ignored);
}

enum err asset_store(struct storage *s, struct slice name, const struct asset *a,
                     struct storage_why *why)
{
    struct arena arena;
    struct storage_why ignored;
    struct slice old_key = SLICE_NONE, old_crt = SLICE_NONE;
    arena_init(&arena, 16384);
    struct slice key = asset_key(&arena, a->issuer_key, name, ".key");
    struct slice crt = asset_key(&arena, a->issuer_key, name, ".crt");
    if (s->type->load(s, key, &arena, &old_key, &ignored) != OK)
        old_key = SLICE_NONE;
    if (s->type->load(s, crt, &arena, &old_crt, &ignored) != OK)
        old_crt = SLICE_NONE;
    enum err e = s->type->store(s, key, a->key_pem, why);
    if (e == OK)
        e = s->type->store(s, crt, a->chain_pem, why);
    if (e == OK)
        e = asset_store_data(s, name, a, why);
    if (e != OK) {
        put_back(s, crt, old_crt);
        put_back(s, key, old_key);
    }
    arena_deinit(&arena);
    return e;
}

/* --- key and certificate --- */

static bool first_der(struct slice pem, const char *ending, struct arena *arena, struct slice *type,
                      struct slice *der)
{
    struct pem_block b;
    while (pem_next(&pem, &b)) {
        if (!slice_ends(b.type, slice_from(ending)))
            continue;
        *type = b.type;
        return pem_decode(&b, arena, der) == OK;
    }
    return false;
}

static bool decoded_is_pair(const struct asset *a)
{
    char why[256];
    struct x509_st *leaf = NULL;
    struct evp_pkey_st *key = NULL;
    bool ok = certificate_from_pem(a->chain_pem, &leaf, why, sizeof why) == OK &&
              key_from_pem(a->key_pem, &key, why, sizeof why) == OK &&
              certificate_has_key(leaf, key);
    certificate_free(leaf);
    key_free(key);
    return ok;
}

/* An EC key's text ends with its point, which stands in the certificate as well. */
bool asset_is_pair(const struct asset *a)
{
    enum { POINT_256 = 65, POINT_384 = 97, SEC1_256 = 121 };
    struct arena arena;
    struct slice type, leaf, key = SLICE_NONE;
    bool found = false;
    arena_init(&arena, 8192);
    if (first_der(a->chain_pem, "CERTIFICATE", &arena, &type, &leaf) &&
        first_der(a->key_pem, "PRIVATE KEY", &arena, &type, &key) &&
        slice_is(type, "EC PRIVATE KEY") && key.len >= SEC1_256) {
        size_t point = key.len == SEC1_256 ? POINT_256 : POINT_384;
        found = slice_find_slice(leaf, slice_skip(key, key.len - point)) != SIZE_MAX;
    }
    if (key.ptr != NULL)
        explicit_bzero((void *)(uintptr_t)key.ptr, key.len);
    arena_deinit(&arena);
    return found || decoded_is_pair(a);
}
