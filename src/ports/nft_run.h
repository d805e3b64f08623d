/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program nft, started and waited for: libnftables may not be linked (it is GPL-2-only). Which
 * tables there are is asked of the kernel itself, so that nft is started only where it has something
 * to tell, and its absence is an error only then.
 */
#pragma once

#include "base/buffer.h"
#include "base/err.h"

enum { NFT_TIMEOUT_S = 30 };

/* Runs nft with these arguments (argv[0] and NULL included) and that input, in the caller's network
 * namespace. `output` may be NULL. ERR_NOT_FOUND: it is not installed. Else a sentence in `error`:
 * what it said. */
enum err nft_run(const char *const argv[], struct slice input, struct buffer *output, char *error,
                 size_t cap);

/* The tables of the kernel as "inet filter" lines. ERR_DENIED without CAP_NET_ADMIN; ERR_UNSUPPORTED
 * where the kernel has no nftables. */
enum err nft_tables(struct buffer *names);

/* Pure: what the kernel answers, bytes of netlink messages. ERR_INVALID when they are none; `done`:
 * the end of the list has come. */
enum err nft_tables_parse(struct slice bytes, struct buffer *names, bool *done);
