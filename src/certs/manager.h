/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper of all certificates of the process: loads them from the storage, has missing ones
 * issued, renews them, staples them, answers handshakes that ask for more, and publishes what
 * handshakes choose from. One per process, on the control thread; it lives across configurations.
 */
#pragma once

#include "certs/automation.h"

/* Before the first adoption, on the control loop's thread. */
void manager_start(struct loop *control);

/* From now on this one holds (NULL: none): what the storage has is published when it returns, the
 * rest follows in the background. To be called when nothing can fail any more, before workers use
 * the generation. `let_go(owner)` is called when the manager does not look at it any more: some time
 * after the next adoption, or after manager_stop. */
void manager_adopt(const struct automation *, void (*let_go)(void *owner), void *owner);

/* Ends all that goes on and releases all locks, then calls `stopped`, from the loop's stack. */
void manager_stop(void (*stopped)(void));
