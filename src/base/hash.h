/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SipHash-1-3 with a key drawn once per process, so that a peer cannot aim at a map's buckets.
 * Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012).
 */
#pragma once

#include "base/slice.h"

uint64_t hash_bytes(struct slice);

/* As hash_bytes of the ASCII lower-case form. */
uint64_t hash_nocase(struct slice);

/* With a given key: stable over processes, for consistent choices and tests. */
uint64_t hash_keyed(struct slice, const uint64_t key[2]);
