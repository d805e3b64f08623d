/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where certificates of authorities come from that are trusted by a policy or an upstream:
 *
 *     {"provider": "inline", "trusted_ca_certs": ["BASE64 OF DER", …]}
 *     {"provider": "file", "pem_files": ["/etc/ca.pem"]}
 *     {"provider": "storage", "pem_keys": ["certs/ca.pem"]}
 *     {"provider": "system"}
 *     {"provider": "combined", "sources": [{"provider": …}, …]}
 *
 * They are read while the configuration is provisioned, and not again.
 */
#include "base/text.h"
#include "certs/cert_files.h"
#include "http/tls_modules.h"

enum { DER_MAX = 1 << 20 };

static enum err provision_inline(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"provider", "trusted_ca_certs", NULL};
    struct slice *texts;
    struct buffer der;
    size_t count;
    enum err e = OK;
    TRY(provision_members(p, json, known));
    TRY(provision_texts(p, json, "trusted_ca_certs", &texts, &count));
    buffer_init(&der, DER_MAX);
    for (size_t i = 0; i < count && e == OK; i++) {
        buffer_clear(&der);
        if (base64_decode(&der, texts[i]) != OK || der.len == 0)
            e = provision_fail(p, "parsing certificate at index %zu: not base64", i);
        else
            certificate_list_add(cfg, arena_copy(p->arena, buffer_slice(&der)), p->arena);
    }
    buffer_deinit(&der);
    return e;
}

static enum err provision_file(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"provider", "pem_files", NULL};
    struct slice *paths, text;
    size_t count;
    TRY(provision_members(p, json, known));
    TRY(provision_texts(p, json, "pem_files", &paths, &count));
    for (size_t i = 0; i < count; i++) {
        TRY(cert_file_read(p, paths[i], &text));
        TRY(certificate_list_add_pem(cfg, text, false, arena_str(p->arena, paths[i]), p));
    }
    return OK;
}

static enum err provision_storage(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"provider", "storage", "pem_keys", NULL};
    struct slice *keys, text;
    struct storage *storage;
    size_t count;
    TRY(provision_members(p, json, known));
    TRY(provision_texts(p, json, "pem_keys", &keys, &count));
    TRY(cert_storage(p, json, &storage));
    if (count == 0)
        return provision_fail(p, "no PEM keys specified");
    for (size_t i = 0; i < count; i++) {
        TRY(cert_stored_read(p, storage, keys[i], &text));
        TRY(certificate_list_add_pem(cfg, text, false, arena_str(p->arena, keys[i]), p));
    }
    return OK;
}

static enum err provision_system(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"provider", NULL};
    ((struct certificate_list *)cfg)->system = true;
    return provision_members(p, json, known);
}

/* What the system trusts is known to the library only: Caddy cannot combine it either. */
static enum err provision_combined(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"provider", "sources", NULL};
    struct certificate_list *list = cfg;
    const json_t *sources = json_object_get(json, "sources");
    size_t i;
    json_t *one;
    TRY(provision_members(p, json, known));
    if (json_array_size(sources) == 0)
        return provision_fail(p, "no sources specified for combined CA pool");
    json_array_foreach((json_t *)(uintptr_t)sources, i, one)
        TRY(trust_pool_provision(list, one, p));
    if (list->system)
        return provision_fail(p, "the source \"system\" cannot be combined with others");
    return OK;
}

const struct module trust_inline = {.id = "tls.ca_pool.source.inline",
                                    .cfg_size = sizeof(struct certificate_list),
                                    .provision = provision_inline};
const struct module trust_file = {.id = "tls.ca_pool.source.file",
                                  .cfg_size = sizeof(struct certificate_list),
                                  .provision = provision_file};
const struct module trust_storage = {.id = "tls.ca_pool.source.storage",
                                     .cfg_size = sizeof(struct certificate_list),
                                     .provision = provision_storage};
const struct module trust_system = {.id = "tls.ca_pool.source.system",
                                    .cfg_size = sizeof(struct certificate_list),
                                    .provision = provision_system};
const struct module trust_combined = {.id = "tls.ca_pool.source.combined",
                                      .cfg_size = sizeof(struct certificate_list),
                                      .provision = provision_combined};
