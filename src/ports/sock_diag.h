/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's socket diagnostics as bytes: a request for all sockets of a family, protocol and some
 * states (man 7 sock_diag), and what comes back. Pure.
 */
#pragma once

#include "base/err.h"
#include "ports/bound.h"

enum { DIAG_REQUEST_MAX = 80 };

/* `family` AF_INET or AF_INET6, `protocol` IPPROTO_*, `states` a bit for each STATE_*. AF_UNSPEC asks
 * in the older form, of TCP only, for both families in one walk. Returns its length. */
size_t diag_request(char out[DIAG_REQUEST_MAX], int family, int protocol, uint32_t states,
                    uint32_t sequence);

struct diag_reply {
    uint32_t sequence;           /* of the request: messages with another one are passed over */
    enum port_protocol protocol; /* that was asked for */
    bool done;                   /* the last message was there */
    bool torn;                   /* the kernel says that things changed meanwhile: ask again */
    int error;                   /* errno of the kernel's refusal, 0: none */
};

/* One datagram of the answer; its sockets are added to the list, with neither namespace nor row.
 * ERR_INVALID: not such a datagram (what stood before the fault is kept). ERR_LIMIT: list full. */
enum err diag_parse(struct slice, struct diag_reply *, struct socket_list *);
