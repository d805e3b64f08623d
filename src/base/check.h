/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Assertions that stay on in every build. They state what only a programmer's error can break;
 * what a peer, a file or a person can break is an `enum err`, never an assertion.
 */
#pragma once

/* Ends the process with the place and the broken condition on stderr. Async-signal-safe. */
_Noreturn void check_failed(const char *file, int line, const char *condition);

/* Ends the process with a message: out of memory, a corrupted invariant found at run time. */
_Noreturn void fatal(const char *what);

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define ASSERT(cond) (LIKELY(cond) ? (void)0 : check_failed(__FILE__, __LINE__, #cond))
#define UNREACHABLE() check_failed(__FILE__, __LINE__, "not reachable")
