/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who issues certificates: modules of "tls.issuance" (acme, internal, zerossl). On a fiber of the
 * control thread; may wait for long. What must survive a crash is in the storage.
 */
#pragma once

#include "http/module.h"
#include "pki/certificate.h"
#include "pki/storage.h"

enum issue_kind { ISSUE_TRANSIENT, ISSUE_RATE_LIMITED, ISSUE_REJECTED };

struct issue_request {
    const struct slice *names;
    size_t names_count;
    struct slice csr_der;
    struct storage *storage;
    struct slice replaces;   /* ARI id of the certificate that this one renews; empty: none */
    bool interactive;        /* somebody waits: short time-outs, no long back-off */
    unsigned attempt;        /* 0: the first; a test authority may be asked from the second on */
    struct slice noted;      /* where the certificate for this very request may be already; empty: no */
    void (*note)(void *arg, struct slice where); /* before it is asked for; may wait; may be NULL */
    void *note_arg;
};

struct issue_result {
    struct slice chain_pem;  /* in the arena, like the rest */
    struct slice metadata;   /* JSON that is kept as issuer_data beside the certificate */
    enum issue_kind kind;    /* of a failure */
    uint64_t retry_after_ns; /* what the authority asked for; 0: nothing */
    char why[1024];          /* a sentence, after a failure */
};

struct renewal_window {     /* ARI, RFC 9773 */
    int64_t start_s, end_s; /* 0: none */
    uint64_t look_again_ns;
    struct slice explanation_url;
};

/* The face of a "tls.issuance.*" module. */
struct issuer_type {
    /* The folder of its certificates: "acme-v02.api.letsencrypt.org-directory", "local". */
    struct slice (*key)(const void *cfg, struct arena *);
    enum err (*issue)(const void *cfg, const struct issue_request *, struct arena *,
                      struct issue_result *);
    /* NULL where there is none. */
    enum err (*revoke)(const void *cfg, struct slice chain_pem, struct slice key_pem, int reason,
                       struct storage *, struct arena *, struct issue_result *);
    enum err (*window)(const void *cfg, struct slice ari_id, struct storage *, struct arena *,
                       struct renewal_window *);
    /* Names that it cannot issue for: "ACME issues for no address of a private network". NULL: ok. */
    const char *(*refuses)(const void *cfg, struct slice name);
};
