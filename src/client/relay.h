/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS within TLS: a link whose bytes are to be encrypted once more, for a server that is reached by a
 * proxy that is asked by TLS. What the link was goes on by itself, joined to the link by a pair of
 * sockets of this process.
 */
#pragma once

#include "upstream/link.h"

/* On a fiber: the link, whose handshake is done, is a plain one from now on. ERR_LIMIT: there are no
 * descriptors or fibers for it; the link is to be closed then. */
enum err link_relay(struct link *);

/* At a thread's end, before its loop settles. */
void relays_thread_deinit(void);
