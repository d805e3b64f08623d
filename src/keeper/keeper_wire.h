/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What keeper and server say to each other over their SOCK_SEQPACKET pair: fixed-size messages,
 * descriptors by SCM_RIGHTS. The server asks, the keeper answers in order; orders of the keeper
 * (stop, reload) come in between and are told apart by their kind. Both ends are one binary, so
 * there is no version; a keeper trusts the lengths of no message all the same.
 */
#pragma once

#include <stdint.h>

#include "base/err.h"

enum keeper_kind {
    /* server → keeper */
    KEEPER_LISTEN = 1, /* network, host, port, count → KEEPER_SOCKETS */
    KEEPER_RELEASE,    /* the address is not used any more → KEEPER_SOCKETS without any */
    KEEPER_READY,      /* the first configuration runs, or a reload has ended; text: status line */
    KEEPER_FAILED,     /* the server is about to exit with `status`; it must not be started again */
    KEEPER_RELOADING,  /* a reload has begun */
    KEEPER_STOPPING,   /* drains */
    KEEPER_LEDGER,     /* read the ledger of ports → KEEPER_SOCKETS with a pipe to read it from */
    KEEPER_PONG,       /* to KEEPER_PING, when every worker has answered */
    KEEPER_ENFORCE,    /* with one descriptor: a document in a memory file, whose ports shall be kept */
    /* keeper → server */
    KEEPER_SOCKETS = 64, /* error, text, port; `count` descriptors */
    KEEPER_STOP,         /* drain and exit */
    KEEPER_STOP_NOW,     /* exit at once */
    KEEPER_RELOAD,       /* read the configuration file again */
    KEEPER_PING,         /* are you there? */
};

enum { KEEPER_TEXT = 768, KEEPER_FDS = 250 };

struct keeper_message {
    uint32_t kind;
    uint32_t error; /* enum err */
    uint32_t status;
    uint32_t uid, gid; /* whose the server is: a Unix socket's file becomes its */
    uint16_t port, count;
    char network[16];
    char host[256];
    char text[KEEPER_TEXT];
};

/* Blocking, whole messages. `fds` may be NULL with count 0. ERR_CLOSED when the other end left. */
enum err keeper_send(int fd, const struct keeper_message *, const int *fds, unsigned count);

/* Without blocking: ERR_TIMEOUT when the other end does not read. */
enum err keeper_tell(int fd, const struct keeper_message *);

/* `count`: room in, received out; descriptors come close-on-exec. `flags`: MSG_DONTWAIT gives
 * ERR_TIMEOUT when nothing is there. */
enum err keeper_receive(int fd, struct keeper_message *, int *fds, unsigned *count, int flags);
