/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a configuration says about certificates: the app "tls" as one immutable value. Who issues
 * for which name, where it is kept, what may be obtained during a handshake. The manager
 * (certs/manager.h) acts on it.
 */
#pragma once

#include "base/map.h"
#include "certs/issuance.h"
#include "tls/credential.h"

struct issuer {
    const struct issuer_type *type;
    const void *cfg;
    struct slice module; /* "acme", "internal" */
    struct slice key;    /* its folder below "certificates/" */
};

/* Somebody else's certificates, asked for at handshakes: modules of "tls.get_certificate". On a
 * fiber of the control thread. ERR_NOT_FOUND: not one of its names. */
struct getter_type {
    enum err (*get)(const void *cfg, const struct credential_ask *, struct arena *,
                    struct slice *pem, char *why, size_t cap); /* chain and key in one text */
};

/* Whether a name may have a certificate on demand: modules of "tls.permission". ERR_DENIED: no;
 * anything else but OK: it could not be found out. */
struct permission_type {
    enum err (*allows)(const void *cfg, struct slice name, struct slice remote, char *why, size_t cap);
};

struct getter {
    const struct getter_type *type;
    const void *cfg;
};

struct ocsp_override {
    struct slice from, to; /* empty `to`: that responder is not asked */
};

struct automation_policy {
    struct slice *subjects; /* ASCII forms; none: every name */
    size_t subjects_count;
    struct issuer *issuers; /* tried in turn */
    size_t issuers_count;
    bool own_issuers;       /* the configuration names them */
    struct getter *getters;
    size_t getters_count;
    struct storage *storage;
    bool own_storage;
    bool on_demand;         /* at handshakes, not at the start */
    bool getters_only;      /* on demand, but nothing is issued: there is no permission to ask for */
    bool must_staple, reuse_private_keys, no_stapling;
    enum key_type key_type;
    double renewal_ratio;   /* remaining lifetime by whole lifetime */
    struct ocsp_override *overrides;
    size_t overrides_count;
    uint64_t print;         /* equal ones mean the same */
};

struct automation {
    struct automation_policy **policies; /* the first that has the name decides */
    size_t policies_count, policies_cap;
    struct automation_policy *fallback_public, *fallback_internal;
    struct storage *storage;             /* the document's, or the default folder */
    struct slice data_folder;            /* where instance.uuid is */
    struct slice *names;                 /* to be managed; ASCII, lower case */
    size_t names_count, names_cap;
    struct map *names_set;
    struct map *forced;                  /* certificates.automate: managed even below a wildcard */
    struct credential **manual;          /* files, folders, PEM, storage: held by the generation */
    size_t manual_count;
    struct map *manual_names;
    const struct permission_type *permission; /* NULL: none */
    const void *permission_cfg;
    uint64_t ocsp_interval_ns, renew_interval_ns, clean_interval_ns;
    size_t capacity;                     /* of certificates on demand that stay in memory */
    bool manual_no_stapling, no_storage_check, no_storage_clean;
};

struct automation_origin {
    const json_t *tls;     /* the app; NULL: as if it were empty */
    const json_t *storage; /* of the document; NULL: the file system below data_folder */
    struct slice data_folder;
};

/* Provisions the app and loads the manual certificates; all is the generation's. */
enum err automation_provision(struct provision *, const struct automation_origin *,
                              struct automation **);

/* Opens what the document's "storage" member says, once per process and root. */
enum err automation_storage(struct provision *, const json_t *storage, struct slice data_folder,
                            struct storage **);

/* One more policy, before the first that is more general, as automatic HTTPS adds them. The
 * JSON must live as long as the generation. */
enum err automation_add_policy(struct provision *, struct automation *, const json_t *);

/* Other issuers for a policy, as automatic HTTPS gives names of a private network the internal one;
 * the JSON array must live as long as the generation. */
enum err automation_set_issuers(struct provision *, struct automation_policy *, const json_t *issuers);

/* A name that needs a certificate; one that is there already is not added again. Makes the default
 * policy when no other has the name. */
enum err automation_add_name(struct provision *, struct automation *, struct slice name);

/* The ASCII form of a name in lower case, in the arena; ERR_INVALID leaves the sentence. */
enum err policy_ascii(struct provision *, struct slice name, struct slice *out);

/* The policy of a name; NULL: none has it. */
const struct automation_policy *automation_find(const struct automation *, struct slice name);

/* Whether all its certificates come from the local authority. */
bool automation_is_internal(const struct automation_policy *);

/* Whether a manual certificate has the name, or a wildcard for it. */
bool automation_has_manual(const struct automation *, struct slice name);
