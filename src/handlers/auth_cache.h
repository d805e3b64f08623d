/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking a password from a fiber: the hashing runs on the offload pool, what was right is
 * remembered by its worker for a while, and requests that bring the same credentials at once share
 * one hashing. No password is kept: only a digest under a key that was drawn at random.
 */
#pragma once

#include "handlers/password.h"

enum { AUTH_CACHE_WAYS = 4, AUTH_CACHE_SETS = 256 }; /* entries per worker: 24 KiB */

/* May wait. `remember`: answer from memory, and keep what was right. ERR_LIMIT when too many
 * passwords wait to be hashed. */
enum err auth_check(const struct password_hash *, struct slice password, bool remember, bool *same);
