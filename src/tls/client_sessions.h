/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions of outgoing connections, by the name that was verified: a few for each of the names that
 * were used last. Any thread.
 */
#pragma once

#include <pthread.h>

#include "base/list.h"
#include "base/map.h"

enum { SESSION_NAMES_MAX = 256, SESSIONS_EACH = 4 };

struct ssl_session_st; /* OpenSSL's SSL_SESSION */

struct client_sessions {
    pthread_mutex_t lock;
    struct map names;
    struct list used; /* the latest first */
    unsigned count;   /* of names */
};

void client_sessions_init(struct client_sessions *);
void client_sessions_deinit(struct client_sessions *);

/* Takes the reference over. */
void client_sessions_put(struct client_sessions *, struct slice name, struct ssl_session_st *);

/* The newest that is still good, to be freed by the caller, or NULL. One of TLS 1.3 is given once
 * (RFC 8446 §C.4). */
struct ssl_session_st *client_sessions_take(struct client_sessions *, struct slice name);

unsigned client_sessions_count(struct client_sessions *);
