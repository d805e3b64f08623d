/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An authority of our own: a root certificate that people trust, an intermediate that signs, both in
 * the storage where Caddy keeps its. The control thread's, but for what it waits for.
 */
#pragma once

#include "pki/certificate.h"
#include "pki/storage.h"

#define AUTHORITY_DEFAULT_ID "local"
#define AUTHORITY_DEFAULT_NAME "Caddy Local Authority"
#define AUTHORITY_DEFAULT_ROOT_NAME "{pki.ca.name} - {time.now.year} ECC Root"
#define AUTHORITY_DEFAULT_INTERMEDIATE_NAME "{pki.ca.name} - ECC Intermediate"
#define AUTHORITY_DEFAULT_LIFETIME_NS (7 * 24 * 3600 * (int64_t)1000000000) /* of the intermediate */
#define AUTHORITY_DEFAULT_INTERVAL_NS (600 * (int64_t)1000000000)
#define AUTHORITY_DEFAULT_RATIO 0.2
#define AUTHORITY_LEAF_LIFETIME_NS (12 * 3600 * (int64_t)1000000000)

struct authority_files { /* PEM; an empty certificate: none is given, one is made */
    struct slice certificate, private_key;
};

struct authority_options {
    struct slice id, name;
    struct slice root_common_name, intermediate_common_name; /* with placeholders */
    int64_t intermediate_lifetime_ns, maintenance_interval_ns;
    double renewal_ratio; /* renewed when that part of its lifetime is left */
    struct authority_files root, intermediate;
    struct storage *storage;
    /* Replaces a name's placeholders. NULL: they stay. */
    struct slice (*expand)(struct slice text, struct slice authority_name, struct arena *);
};

struct authority;

/* Reads it, or makes what is missing, under a lock in the storage; renews the intermediate when it is
 * time. Copies the options; the storage must stay open. */
enum err authority_open(const struct authority_options *, struct authority **, struct storage_why *);
struct authority *authority_ref(struct authority *);
void authority_unref(struct authority *);

const struct authority_options *authority_options(const struct authority *);

/* Where the root's certificate stands: a path of the file system, for people. In the arena. */
struct slice authority_root_path(const struct authority *, struct arena *);

struct slice authority_root_pem(const struct authority *);
struct slice authority_chain_pem(const struct authority *); /* the intermediate's */
int64_t authority_intermediate_ends_s(const struct authority *);
bool authority_root_ends_soon(const struct authority *);

/* Renews the intermediate when it is time. */
enum err authority_maintain(struct authority *, bool *renewed, struct storage_why *);

struct authority_leaf {
    struct slice csr_der;       /* its signature is checked; its names are taken over */
    const struct slice *names;  /* instead of the request's; NULL: those */
    size_t names_count;
    int64_t lifetime_ns;        /* 0: 12 hours; cut short at the issuer's end, `clamped` */
    bool sign_with_root;
};

/* Appends the leaf and its issuer's chain. May wait: the root's key is not kept in memory.
 * ERR_INVALID: it is the request that is wrong. */
enum err authority_issue(struct authority *, const struct authority_leaf *, struct buffer *chain_pem,
                         bool *clamped, struct storage_why *);
