/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where programs of this machine look up whom they trust: the system's store, and the databases of
 * NSS that browsers have. Calls block; each change is told in a sentence.
 */
#pragma once

#include "base/slice.h"

struct trust_note {
    void (*tell)(void *arg, const char *sentence);
    void *arg;
};

/* Whether the system's roots, as OpenSSL finds them, hold that certificate. */
bool trust_is_known(struct slice root_pem);

/* Whether this process may change the system's store; else `why` says what it lacks. */
bool trust_may_change(char *why, size_t cap);

/* Adds the first certificate of a text, where it is not yet, or removes it, where it is. ERR_INVALID:
 * it is no certificate of an authority. Else what failed first; the other stores were tried. */
enum err trust_install(struct slice root_pem, const struct trust_note *);
enum err trust_uninstall(struct slice root_pem, const struct trust_note *);
