/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A place where an authority finds the answer to a challenge when no server of the configuration
 * listens on the port: opened for the first challenge, closed after the last.
 */
#pragma once

#include "base/slice.h"

#include "base/list.h"
#include "pki/storage.h"

enum challenge_kind { CHALLENGE_HTTP, CHALLENGE_TLS_ALPN };

struct challenge_listener;

/* One that wants a port open. While he does, what others have written to his storage is answered on
 * that port, too. */
struct challenge_user {
    enum challenge_kind kind;
    struct slice host;       /* empty: all addresses */
    uint16_t port;
    struct storage *storage; /* NULL: only what this process presents is answered */
    struct slice issuer_key;
    struct list node;
    struct challenge_listener *listener; /* NULL: not open */
};

/* A port that somebody, also this program, has already is not opened: whoever listens there is
 * taken to answer. ERR_DENIED, ERR_IO with a sentence. On a fiber; may wait. */
enum err challenge_listener_open(struct challenge_user *, char *why, size_t cap);
void challenge_listener_close(struct challenge_user *);

/* Filled in by app/: binds a port that this process may not. ERR_EXISTS: it is taken. */
extern enum err (*challenge_bind_hook)(struct slice host, uint16_t port, int *fd, char *why,
                                       size_t cap);
