/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a ClientHello to a stream: which policy, which credential. On workers, without waiting; where
 * there is something to ask, the caller waits (wire/tls_stage.c) and comes again.
 */
#pragma once

#include "tls/credential.h"
#include "tls/hello.h"
#include "tls/policy.h"
#include "tls/stek_file.h"
#include "tls/tls_stream.h"

enum tls_accept {
    TLS_ACCEPTED, /* `stream` is there: feed it what came */
    TLS_ASK,      /* no credential: `ask` is filled in; come again with its answer */
    TLS_REFUSED,  /* `alert` is to be sent, `why` logged */
    TLS_DROPPED,  /* close without a word */
};

struct tls_accepting {
    const struct tls_server *server;
    const struct hello *hello;
    const struct sockaddr_storage *remote, *local;
    struct credential *given; /* the answer to `ask`, if it had one; taken over */
    bool asked;               /* it has been answered: nothing is asked again */
    int64_t now_s;
    struct tls_stream *stream;
    bool slow_key;            /* its steps take milliseconds, rather than fractions of one */
    struct credential_ask *ask; /* filled in for TLS_ASK; may be NULL: nothing is asked */
    uint8_t alert;
    char why[256];
};

enum tls_accept tls_accept(struct tls_accepting *);

/* How tickets of sessions are sealed ("session_tickets"); keys of the process, which live across
 * configurations. 0: every 12 hours, 4 of them. `shared`: keys will be brought. */
void tls_tickets_configure(uint64_t rotation_ns, unsigned keys, bool never_rotate, bool shared);

/* Keys that instances share, at least one; in place of all present ones. */
void tls_tickets_bring(const struct stek_file *);

/* At a thread's end: credentials, keys of tickets. */
void tls_server_thread_deinit(void);
