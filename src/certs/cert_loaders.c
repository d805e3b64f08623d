/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates that the configuration brings along:
 *
 *     "certificates": {
 *       "load_files": [{"certificate": "a.crt", "key": "a.key", "format": "pem", "tags": ["x"]}],
 *       "load_folders": ["/etc/certificates"],          files *.pem with both in them
 *       "load_pem": [{"certificate": "-----BEGIN …", "key": "-----BEGIN …", "tags": []}],
 *       "load_storage": {"pairs": [{"certificate": "KEY", "key": "KEY"}]}}
 */
#include "base/mem.h"
#include "base/pem.h"
#include "certs/cert_files.h"
#include "http/tls_modules.h"

struct pair {
    struct slice certificate, key;
    struct slice *tags;
    size_t tags_count;
};

struct pairs {
    struct pair *all;
    size_t count;
};

struct folders {
    struct slice *all;
    size_t count;
};

static void keep(struct loaded_credentials *loaded, struct credential *c)
{
    if (loaded->count == loaded->cap) {
        loaded->cap = loaded->cap > 0 ? loaded->cap * 2 : 64;
        loaded->all = mem_realloc(loaded->all, loaded->cap * sizeof *loaded->all);
    }
    loaded->all[loaded->count++] = c;
}

static enum err add(struct loaded_credentials *loaded, const struct pair *pair, struct slice chain,
                    struct slice key, const char *where, struct provision *p)
{
    struct credential *c;
    char why[512] = "";
    if (slice_find_slice(key, SLICE("ENCRYPTED")) != SIZE_MAX)
        return provision_fail(p, "loading certificates: %s: encrypted private keys are not supported; "
                              "please decrypt the key first", where);
    struct credential_spec spec = {.chain_pem = chain, .key_pem = key, .tags = pair->tags,
                                   .tags_count = pair->tags_count};
    if (credential_create(&spec, &c, why, sizeof why) != OK)
        return provision_fail(p, "loading certificates: %s: %s", where, why);
    keep(loaded, c);
    return OK;
}

/* --- pairs --- */

static enum err read_pair(struct pair *pair, const json_t *json, bool has_format,
                          struct provision *p)
{
    static const char *const known[] = {"certificate", "key", "tags", "format", NULL};
    static const char *const known_pem[] = {"certificate", "key", "tags", NULL};
    struct slice format = SLICE("");
    TRY(provision_members(p, json, has_format ? known : known_pem));
    TRY(provision_text(p, json, "certificate", SLICE(""), &pair->certificate));
    TRY(provision_text(p, json, "key", SLICE(""), &pair->key));
    if (has_format)
        TRY(provision_text(p, json, "format", SLICE(""), &format));
    TRY(provision_texts(p, json, "tags", &pair->tags, &pair->tags_count));
    pair->certificate = template_expand_now(pair->certificate, p->arena);
    pair->key = template_expand_now(pair->key, p->arena);
    format = template_expand_now(format, p->arena);
    for (size_t i = 0; i < pair->tags_count; i++)
        pair->tags[i] = template_expand_now(pair->tags[i], p->arena);
    if (format.len > 0 && !slice_is(format, "pem"))
        return provision_fail(p, "loading certificates: unrecognized certificate/key encoding format: "
                              SLICE_FMT, SLICE_ARG(slice_take(format, 60)));
    return OK;
}

static enum err read_pairs(struct pairs *pairs, const json_t *json, bool has_format,
                           struct provision *p)
{
    size_t i;
    json_t *one;
    if (json == NULL || json_is_null(json))
        return OK;
    if (!json_is_array(json))
        return provision_fail(p, "pairs of certificate and key must be an array");
    pairs->count = json_array_size(json);
    pairs->all = ARENA_ARRAY(p->arena, struct pair, pairs->count + 1);
    json_array_foreach((json_t *)(uintptr_t)json, i, one)
        TRY(read_pair(&pairs->all[i], one, has_format, p));
    return OK;
}

static enum err provision_files(void *cfg, const json_t *json, struct provision *p)
{
    return read_pairs(cfg, json, true, p);
}

typedef enum err pair_reader(struct provision *, struct slice name, struct slice *text);

/* What was read lives as long as it takes: a credential has copies of its own. */
static enum err load_pair(struct loaded_credentials *loaded, const struct pair *pair,
                          pair_reader *read, struct provision *p)
{
    struct arena scratch, *lasting = p->arena;
    struct slice chain, key = SLICE_NONE;
    arena_init(&scratch, 4096);
    p->arena = &scratch;
    enum err e = read(p, pair->certificate, &chain);
    if (e == OK)
        e = read(p, pair->key, &key);
    if (e == OK)
        e = add(loaded, pair, chain, key, arena_str(&scratch, pair->certificate), p);
    if (key.len > 0)
        explicit_bzero((char *)(uintptr_t)key.ptr, key.len);
    p->arena = lasting;
    arena_deinit(&scratch);
    return e;
}

static enum err load_pairs(struct loaded_credentials *loaded, const struct pairs *pairs,
                           pair_reader *read, struct provision *p)
{
    for (size_t i = 0; i < pairs->count; i++)
        TRY(load_pair(loaded, &pairs->all[i], read, p));
    return OK;
}

static enum err load_from_files(const void *cfg, struct provision *p,
                                struct loaded_credentials *loaded)
{
    return load_pairs(loaded, cfg, cert_file_read, p);
}

static enum err provision_pem(void *cfg, const json_t *json, struct provision *p)
{
    return read_pairs(cfg, json, false, p);
}

static enum err load_from_texts(const void *cfg, struct provision *p,
                                struct loaded_credentials *loaded)
{
    const struct pairs *pairs = cfg;
    for (size_t i = 0; i < pairs->count; i++) {
        struct slice where = arena_printf(p->arena, "PEM pair %zu", i);
        TRY(add(loaded, &pairs->all[i], pairs->all[i].certificate, pairs->all[i].key,
                arena_str(p->arena, where), p));
    }
    return OK;
}

static enum err provision_storage(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"pairs", NULL};
    TRY(provision_members(p, json, known));
    return read_pairs(cfg, json_object_get(json, "pairs"), true, p);
}

static enum err read_stored(struct provision *p, struct slice key, struct slice *text)
{
    return cert_stored_read(p, p->storage, key, text);
}

static enum err load_from_storage(const void *cfg, struct provision *p,
                                  struct loaded_credentials *loaded)
{
    return load_pairs(loaded, cfg, read_stored, p);
}

/* --- folders --- */

static enum err provision_folders(void *cfg, const json_t *json, struct provision *p)
{
    struct folders *f = cfg;
    json_t *wrapped = json_pack("{s:O}", "folders", json);
    enum err e = provision_texts(p, wrapped, "folders", &f->all, &f->count);
    json_decref(wrapped);
    for (size_t i = 0; i < f->count && e == OK; i++)
        f->all[i] = template_expand_now(f->all[i], p->arena);
    return e;
}

/* Certificates apart from the first key; parameters of a curve belong to the key behind them. */
static enum err split(struct slice text, struct buffer *chain, struct buffer *key, const char *path,
                      struct provision *p)
{
    struct pem_block b;
    bool found = false;
    while (pem_next(&text, &b)) {
        bool is_key = slice_ends(b.type, SLICE("PRIVATE KEY"));
        if (slice_is(b.type, "CERTIFICATE")) {
            buffer_append(chain, b.text);
            buffer_append_byte(chain, '\n');
        } else if (is_key || slice_is(b.type, "EC PARAMETERS")) {
            if (!found)
                buffer_append(key, b.text);
            buffer_append_byte(key, '\n');
            found |= is_key;
        } else {
            return provision_fail(p, "%s: unrecognized PEM block type: " SLICE_FMT, path,
                                  SLICE_ARG(slice_take(b.type, 60)));
        }
    }
    if (chain->len == 0)
        return provision_fail(p, "%s: failed to parse PEM data", path);
    return found ? OK : provision_fail(p, "%s: no private key block found", path);
}

static enum err add_bundle(struct provision *p, struct slice path, void *loaded)
{
    struct slice text;
    struct buffer chain, key;
    const char *name = arena_str(p->arena, path);
    TRY(cert_file_read(p, path, &text));
    buffer_init(&chain, CERT_FILE_MAX);
    buffer_init(&key, CERT_FILE_MAX);
    enum err e = split(text, &chain, &key, name, p);
    if (e == OK)
        e = add(loaded, &(struct pair){0}, buffer_slice(&chain), buffer_slice(&key), name, p);
    if (key.len > 0)
        explicit_bzero(key.ptr, key.len);
    buffer_deinit(&chain);
    buffer_deinit(&key);
    return e;
}

static enum err load_from_folders(const void *cfg, struct provision *p,
                                  struct loaded_credentials *loaded)
{
    const struct folders *f = cfg;
    for (size_t i = 0; i < f->count; i++)
        TRY(cert_folder_walk(p, f->all[i], add_bundle, loaded));
    return OK;
}

const struct module load_files = {.id = "tls.certificates.load_files",
                                  .cfg_size = sizeof(struct pairs),
                                  .provision = provision_files,
                                  .face = &(const struct certificate_loader){load_from_files}};
const struct module load_pem = {.id = "tls.certificates.load_pem",
                                .cfg_size = sizeof(struct pairs),
                                .provision = provision_pem,
                                .face = &(const struct certificate_loader){load_from_texts}};
const struct module load_storage = {.id = "tls.certificates.load_storage",
                                    .cfg_size = sizeof(struct pairs),
                                    .provision = provision_storage,
                                    .face = &(const struct certificate_loader){load_from_storage}};
const struct module load_folders = {.id = "tls.certificates.load_folders",
                                    .cfg_size = sizeof(struct folders),
                                    .provision = provision_folders,
                                    .face = &(const struct certificate_loader){load_from_folders}};
