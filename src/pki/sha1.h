/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-1, for what is no secret and must be it: the answer to a WebSocket's key (RFC 6455 §4.2.2).
 */
#pragma once

#include "base/slice.h"

enum { SHA1_LEN = 20 };

/* False where the library's policy refuses it. */
bool sha1(struct slice data, uint8_t out[SHA1_LEN]);
