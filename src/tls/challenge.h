/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers to HTTP-01 challenges (RFC 8555 §8.3) while an authority looks for them: set by the
 * control thread, read by workers, who look at it only for paths below /.well-known/acme-challenge/.
 */
#pragma once

#include "base/arena.h"

void challenge_http_set(struct slice token, struct slice key_authorization);
void challenge_http_remove(struct slice token);

/* The key authorization, copied to the arena. */
bool challenge_http_find(struct slice token, struct arena *, struct slice *key_authorization);
