/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accounts at an authority (RFC 8555 §7.3), kept in certmagic's places, so that Caddy and portico
 * use each other's: acme/AUTHORITY/users/EMAIL/NAME.json and NAME.key.
 */
#pragma once

#include "certs/acme_client.h"
#include "pki/storage.h"

struct acme_account_options {
    struct storage *storage;
    struct slice email;      /* lower case; empty: none */
    struct slice key_pem;    /* of an account that exists already; empty: found or made */
    struct slice binding_id; /* external account; empty: none */
    struct slice binding_key; /* its secret, base64url */
    bool zerossl;             /* … or asked of ZeroSSL by email */
};

struct acme_account {
    struct evp_pkey_st *key;
    struct slice email; /* whose place in the storage it is */
    struct slice location, status, orders, binding;
    struct slice *contacts;
    size_t contacts_count;
    bool agreed;
};

/* Finds the account or makes it, once: under a lock of the storage, its key stored before it is
 * asked for. */
enum err acme_account_open(struct acme *, const struct acme_account_options *,
                           struct acme_account *);
void acme_account_close(struct acme_account *);

/* Drops what the storage knows of an account that the authority has forgotten. */
enum err acme_account_forget(struct acme *, const struct acme_account_options *,
                             const struct acme_account *);

/* RFC 8555 §7.3.2, and the storage follows. The email's place does not change. */
enum err acme_account_set_contacts(struct acme *, const struct acme_account_options *,
                                   struct acme_account *, const struct slice *contacts,
                                   size_t count);

/* RFC 8555 §7.3.5: a new P-256 key, which is in the storage before the authority is asked. */
enum err acme_account_change_key(struct acme *, const struct acme_account_options *,
                                 struct acme_account *);

/* RFC 8555 §7.3.6. */
enum err acme_account_deactivate(struct acme *, const struct acme_account_options *,
                                 struct acme_account *);

/* The email of the account that was written last: what is used where none is configured. */
struct slice acme_account_newest_email(struct storage *, struct slice directory, struct arena *);

struct acme_signer acme_account_signer(const struct acme_account *);

/* "acme-v02.api.letsencrypt.org-directory". */
struct slice acme_issuer_key(struct slice directory, struct arena *);

/* "acme/…", safe for a file's name. */
struct slice acme_storage_prefix(struct slice directory, struct arena *);
