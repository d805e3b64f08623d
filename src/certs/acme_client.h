/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to one ACME authority (RFC 8555 §6): its directory, anti-replay nonces, signed requests
 * that are tried again where that may help. On a fiber of the control thread; may wait.
 */
#pragma once

#include "certs/acme_objects.h"
#include "certs/network_proxy.h"
#include "client/fetch.h"
#include "pki/key.h"

enum {
    ACME_DIRECTORY_HOURS = 12, /* how long a directory is believed */
    ACME_NONCES = 64,          /* kept per authority */
    ACME_AUTHORITIES = 64,     /* remembered */
    ACME_TRIES = 10,           /* of one request, for bad nonces */
    ACME_ANSWER_MAX = 1 << 20,
};

struct acme_options {
    struct slice directory;   /* URL */
    struct tls_client *tls;   /* NULL: the process's own */
    struct network_proxy proxy;
    uint64_t poll_timeout_ns; /* of a validation, of an issuance; 0: five minutes */
};

struct acme_authority;

/* One undertaking at one authority. */
struct acme {
    struct arena *arena;
    const struct acme_options *options;
    struct acme_authority *authority;
    const struct acme_directory *directory;
    const struct acme_problem *problem; /* of the last failure; NULL: it was none of these */
    uint64_t retry_after_ns;            /* that came with it; 0: none */
    char why[1024];                     /* a sentence, after a failure */
};

/* Gets the directory, unless it is known. */
enum err acme_begin(struct acme *, const struct acme_options *, struct arena *);
void acme_end(struct acme *);

struct acme_signer {
    const struct evp_pkey_st *key;
    struct slice account; /* its URL; empty: not known yet, or not to be told */
};

struct acme_answer {
    int status;
    struct slice body, location;
    struct fields fields;
    uint64_t retry_after_ns; /* 0: none */
};

/* Without a signature: renewal information. */
enum err acme_get(struct acme *, struct slice url, struct acme_answer *);

/* Signed; an empty payload is a POST-as-GET. Bad nonces and passing failures are tried again. OK: a
 * 2xx; ERR_FAILED: the authority refused (`problem`, `why`); else as fetch. */
enum err acme_post(struct acme *, const struct acme_signer *, struct slice url, struct slice payload,
                   struct acme_answer *);

/* Sets `why`; returns `e`. */
enum err acme_fail(struct acme *, enum err e, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts words before `why`. */
void acme_context(struct acme *, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Waits as an answer asks (Retry-After), at least a quarter of a second and not beyond `end_ns`. */
enum err acme_pause(const struct acme_answer *, uint64_t end_ns);

/* The type of an answer's body without parameters. */
bool acme_answer_is(const struct acme_answer *, const char *media_type);

/* URLs of its Link fields with that relation; *count at most `max`. */
void acme_links(struct acme *, const struct acme_answer *, const char *relation, struct slice *urls,
                size_t max, size_t *count);

/* The pause that certmagic keeps: ten events in ten seconds for each key (authority and account). */
enum err acme_throttle(struct slice key);

/* At the control thread's end. */
void acme_thread_deinit(void);
