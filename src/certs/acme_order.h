/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One certificate of an authority: order, validations, issuance, download (RFC 8555 §7.4, §7.5).
 */
#pragma once

#include "certs/acme_account.h"
#include "certs/solver.h"

enum { ACME_CHAINS_MAX = 8, ACME_ORDERS = 3 };

struct acme_wish {
    const struct slice *names;
    size_t names_count;
    struct slice csr_der;
    struct slice profile;  /* empty: the authority's default */
    int64_t not_after_s;   /* 0: its default */
    struct slice replaces; /* ARI id; empty: none */
    const struct solver_options *solvers;
    struct slice noted;    /* an order that was to be finalized before a crash; empty: none */
    void (*note)(void *arg, struct slice order); /* before it is; NULL: nobody wants to know */
    void *note_arg;
};

struct acme_chain {
    struct slice url, pem;
    struct slice renewal_json; /* what ARI says of it, as certmagic keeps it; may be empty */
};

struct acme_chains {
    struct acme_chain items[ACME_CHAINS_MAX];
    size_t count;
};

/* All chains that are offered, the default one first, each checked against the request. */
enum err acme_obtain(struct acme *, struct acme_account *, const struct acme_wish *,
                     struct acme_chains *);

/* When to renew (RFC 9773). ERR_UNSUPPORTED when the authority does not say. */
enum err acme_window(struct acme *, struct slice ari_id, struct acme_renewal *,
                     uint64_t *look_again_ns);

/* RFC 8555 §7.6, signed by the account. */
enum err acme_revoke(struct acme *, struct acme_account *, struct slice chain_pem, int reason);
