/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A certificate's chain and its key in one PEM text, as folders and other people's managers give
 * them.
 */
#pragma once

#include "base/arena.h"

/* Takes it apart: all certificates, and the first private key. ERR_INVALID with a sentence. */
enum err bundle_split(struct slice pem, struct arena *, struct slice *chain, struct slice *key,
                      const char **why);

/* Whether a private key's text says that it is encrypted. */
bool bundle_is_encrypted(struct slice key_pem);
