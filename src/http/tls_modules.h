/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The modules that say whom a TLS server lets in and what it shows: "tls.handshake_match",
 * "tls.ca_pool.source", "tls.leaf_cert_loader", "tls.client_auth.verifier", "tls.certificates".
 * They are provisioned before anything is served and leave plain data behind.
 */
#pragma once

#include "http/module.h"
#include "tls/credential.h"
#include "tls/policy.h"

/* Certificates, DER, in the generation's arena. The cfg of modules of "tls.ca_pool.source",
 * "tls.leaf_cert_loader" and "tls.client_auth.verifier" begins with it. */
struct certificate_list {
    struct slice *ders;
    size_t count, cap;
    bool system; /* those that the system trusts are meant */
};

/* The face of "tls.handshake_match" modules. */
struct hello_match {
    bool (*matches)(const void *cfg, const struct tls_hello *);
    struct slice *(*names)(const void *cfg, size_t *count); /* where it only asks for these; or NULL */
};

/* The face of "tls.certificates" modules: adds what it has loaded by loaded_add. */
struct loaded_credentials {
    struct credential **all; /* malloc'd; references */
    size_t count, cap;
};
struct certificate_loader {
    enum err (*load)(const void *cfg, struct provision *, struct loaded_credentials *);
};

extern const struct module hello_match_sni, hello_match_sni_regexp, hello_match_remote_ip,
    hello_match_local_ip;
extern const struct module trust_combined, trust_file, trust_http, trust_inline,
    trust_pki_intermediate, trust_pki_root, trust_storage, trust_system;
extern const struct module leaf_loader_file, leaf_loader_folder, leaf_loader_pem,
    leaf_loader_storage, client_verifier_leaf;
extern const struct module load_files, load_folders, load_pem, load_storage;

void certificate_list_add(struct certificate_list *, struct slice der, struct arena *);

/* All certificates of a PEM text; other blocks are left out, or refused when `only`. `where` is for
 * messages. */
enum err certificate_list_add_pem(struct certificate_list *, struct slice pem, bool only,
                                  const char *where, struct provision *);

/* {"provider": NAME, …}: certificates of a module of "tls.ca_pool.source". */
enum err trust_pool_provision(struct certificate_list *, const json_t *, struct provision *);

/* {KEY: NAME, …} of a module with a certificate_list. */
enum err certificate_module(struct certificate_list *, const json_t *, const char *space,
                            const char *key, struct provision *);
