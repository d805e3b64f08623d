/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trust in authorities of the app "pki":
 *
 *     {"provider": "pki_root", "authority": ["local", …]}
 *     {"provider": "pki_intermediate", "authority": ["local", …]}
 *
 * An intermediate is read with the configuration and not again, as in Caddy: where it is renewed, a
 * reload is needed before its new leaves are believed. Trust in the root needs none.
 */
#include "certs/pki_app.h"
#include "http/tls_modules.h"

static enum err provision(struct certificate_list *list, const json_t *json, struct provision *p,
                          struct slice (*pem_of)(const struct authority *), const char *name)
{
    static const char *const known[] = {"provider", "authority", NULL};
    struct slice *ids;
    size_t count;
    TRY(provision_members(p, json, known));
    TRY(provision_texts(p, json, "authority", &ids, &count));
    if (!pki_configured(p))
        return provision_fail(p, "%s CA pool requires that a PKI app is configured", name);
    for (size_t i = 0; i < count; i++) {
        struct authority *a;
        TRY(pki_authority(p, ids[i], &a));
        TRY(certificate_list_add_pem(list, pem_of(a), true, arena_str(p->arena, ids[i]), p));
    }
    return OK;
}

static enum err provision_root(void *cfg, const json_t *json, struct provision *p)
{
    return provision(cfg, json, p, authority_root_pem, "pki_root");
}

static enum err provision_intermediate(void *cfg, const json_t *json, struct provision *p)
{
    return provision(cfg, json, p, authority_chain_pem, "pki_intermediate");
}

const struct module trust_pki_root = {.id = "tls.ca_pool.source.pki_root",
                                      .cfg_size = sizeof(struct certificate_list),
                                      .provision = provision_root};
const struct module trust_pki_intermediate = {.id = "tls.ca_pool.source.pki_intermediate",
                                              .cfg_size = sizeof(struct certificate_list),
                                              .provision = provision_intermediate};
