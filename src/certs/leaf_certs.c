/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates of clients that are known one by one:
 *
 *     {"verifier": "leaf", "leaf_certs_loaders": [{"loader": "file", "files": ["a.pem"]},
 *       {"loader": "folder", "folders": ["clients"]}, {"loader": "pem", "certificates": ["…"]},
 *       {"loader": "storage", "certificates": ["clients/a.pem"]}]}
 */
#include "certs/cert_files.h"
#include "http/tls_modules.h"

static enum err add(struct certificate_list *list, struct slice pem, struct slice where,
                    struct provision *p)
{
    size_t before = list->count;
    const char *name = arena_str(p->arena, where);
    TRY(certificate_list_add_pem(list, pem, true, name, p));
    if (list->count == before)
        return provision_fail(p, "could not load leaf certificates: no CERTIFICATE pem block found "
                              "in %s", name);
    return OK;
}

static enum err add_file(struct provision *p, struct slice path, void *list)
{
    struct slice text;
    TRY(cert_file_read(p, path, &text));
    return add(list, text, path, p);
}

static enum err provision_file(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"loader", "files", NULL};
    struct slice *paths;
    size_t count;
    TRY(provision_members(p, json, known));
    TRY(provision_texts(p, json, "files", &paths, &count));
    for (size_t i = 0; i < count; i++)
        TRY(add_file(p, template_expand_now(paths[i], p->arena), cfg));
    return OK;
}

static enum err provision_folder(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"loader", "folders", NULL};
    struct slice *folders;
    size_t count;
    TRY(provision_members(p, json, known));
    TRY(provision_texts(p, json, "folders", &folders, &count));
    for (size_t i = 0; i < count; i++)
        TRY(cert_folder_walk(p, template_expand_now(folders[i], p->arena), add_file, cfg));
    return OK;
}

static enum err provision_pem(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"loader", "certificates", NULL};
    struct slice *texts;
    size_t count;
    TRY(provision_members(p, json, known));
    TRY(provision_texts(p, json, "certificates", &texts, &count));
    for (size_t i = 0; i < count; i++)
        TRY(add(cfg, template_expand_now(texts[i], p->arena), SLICE("the given pem data"), p));
    return OK;
}

static enum err provision_storage(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"loader", "certificates", "storage", NULL};
    struct slice *keys, text;
    struct storage *storage;
    size_t count;
    TRY(provision_members(p, json, known));
    TRY(provision_texts(p, json, "certificates", &keys, &count));
    TRY(cert_storage(p, json, &storage));
    for (size_t i = 0; i < count; i++) {
        struct slice key = template_expand_now(keys[i], p->arena);
        TRY(cert_stored_read(p, storage, key, &text));
        TRY(add(cfg, text, key, p));
    }
    return OK;
}

static enum err provision_verifier(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"verifier", "leaf_certs_loaders", NULL};
    const json_t *loaders = json_object_get(json, "leaf_certs_loaders");
    size_t i;
    json_t *one;
    TRY(provision_members(p, json, known));
    if (loaders != NULL && !json_is_null(loaders) && !json_is_array(loaders))
        return provision_fail(p, "\"leaf_certs_loaders\" must be an array");
    json_array_foreach((json_t *)(uintptr_t)loaders, i, one)
        TRY(certificate_module(cfg, one, "tls.leaf_cert_loader", "loader", p));
    return OK;
}

const struct module leaf_loader_file = {.id = "tls.leaf_cert_loader.file",
                                        .cfg_size = sizeof(struct certificate_list),
                                        .provision = provision_file};
const struct module leaf_loader_folder = {.id = "tls.leaf_cert_loader.folder",
                                          .cfg_size = sizeof(struct certificate_list),
                                          .provision = provision_folder};
const struct module leaf_loader_pem = {.id = "tls.leaf_cert_loader.pem",
                                       .cfg_size = sizeof(struct certificate_list),
                                       .provision = provision_pem};
const struct module leaf_loader_storage = {.id = "tls.leaf_cert_loader.storage",
                                           .cfg_size = sizeof(struct certificate_list),
                                           .provision = provision_storage};
const struct module client_verifier_leaf = {.id = "tls.client_auth.verifier.leaf",
                                            .cfg_size = sizeof(struct certificate_list),
                                            .provision = provision_verifier};
