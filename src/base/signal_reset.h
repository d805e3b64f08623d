/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For a child that becomes another program: every signal has its default action, none is blocked. Also
 * the two that glibc keeps for itself (32 and 33) and does not let signal() set: a parent that is no
 * glibc program may have passed them on as ignored.
 */
#pragma once

/* Async-signal-safe. */
void signal_reset(void);
