/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an authority of ours remembers, in the storage: accounts, orders with their authorizations,
 * which certificates it gave to whom. Below acme_server/ID/. On a fiber; may wait.
 */
#pragma once

#include <jansson.h>

#include "base/arena.h"
#include "base/buffer.h"
#include "pki/storage.h"

enum {
    CA_NAMES_MAX = 100,    /* of one order */
    CA_CONTACTS_MAX = 10,
    CA_CONTACT_LEN = 256,
    CA_CHALLENGES_MAX = 3,
    CA_ID_LEN = 32,
    CA_ORDER_HOURS = 24,   /* how long an order may take */
};

struct ca_records { /* where */
    struct storage *storage;
    struct slice id; /* of the authority */
};

struct ca_account {
    struct slice id, status, jwk; /* jwk: JSON, its members in the order of a thumbprint */
    struct slice *contacts;
    size_t contacts_count;
};

struct ca_challenge {
    struct slice type, token, status, validated;
    struct slice error_type, error_detail; /* of an invalid one */
};

struct ca_authorization {
    struct slice kind, name; /* "dns", without "*." */
    struct slice status;
    bool wildcard;
    struct ca_challenge challenges[CA_CHALLENGES_MAX];
    size_t challenges_count;
};

struct ca_order {
    struct slice id, account, status;
    int64_t expires_s, not_before_s, not_after_s; /* 0: not asked for */
    struct ca_authorization *authorizations;
    size_t count;
};

/* 32 hexadecimal digits that nobody guesses. */
struct slice ca_new_id(struct arena *);

/* ERR_NOT_FOUND; ERR_INVALID: what is there cannot be read. */
enum err ca_account_load(const struct ca_records *, struct slice id, struct arena *,
                         struct ca_account *);
enum err ca_account_store(const struct ca_records *, const struct ca_account *);
enum err ca_order_load(const struct ca_records *, struct slice id, struct arena *, struct ca_order *);
enum err ca_order_store(const struct ca_records *, const struct ca_order *);

/* The chain of a finished order. */
enum err ca_chain_load(const struct ca_records *, struct slice order, struct arena *, struct slice *);
enum err ca_chain_store(const struct ca_records *, struct slice order, struct slice pem);

/* Whose a certificate is, by the digest of its DER; `revoked` as a word of the record. */
enum err ca_issued_load(const struct ca_records *, struct slice leaf_der, struct arena *,
                        struct slice *account, bool *revoked);
enum err ca_issued_store(const struct ca_records *, struct slice leaf_der, struct slice account,
                         int reason); /* -1: not revoked */

/* Drops orders and what belongs to them that ended long ago. */
void ca_records_prune(const struct ca_records *);
