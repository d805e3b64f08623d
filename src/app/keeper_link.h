/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server's end of the pair of sockets that ties it to the keeper: questions that are answered at
 * once, words that need no answer, and the keeper's orders. For the control thread.
 */
#pragma once

#include "keeper/keeper_wire.h"
#include "loop/loop.h"

/* Called with an order. Where one comes while an answer is waited for, it must be kept for later:
 * obeyed there, it might take the answer that is on its way for its own. */
typedef void keeper_obey(enum keeper_kind);

/* Takes the descriptor that the keeper has left in the environment. ERR_INVALID: there is none.
 * `gone`: the keeper has died, and nobody holds the sockets or the signals any more. */
enum err keeper_link_init(keeper_obey *, void (*gone)(void));

/* Orders are heard from now on; and not any more. */
void keeper_link_watch(struct loop *);
void keeper_link_unwatch(struct loop *);

void keeper_link_tell(enum keeper_kind, uint32_t status, const char *text);

/* Sends the question and waits for its answer, which takes its place. `*got`: the room for descriptors
 * in `fds`, then how many came. */
enum err keeper_link_ask(struct keeper_message *, int *fds, unsigned *got);

/* A word with a descriptor, which stays the caller's. */
enum err keeper_link_pass(enum keeper_kind, int fd);
