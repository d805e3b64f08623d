/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks are copied as they stand, from their BEGIN to their END line; what stands between them is
 * left out. OpenSSL writes an EC key as two blocks, parameters and key: the first is not needed.
 */
#include "certs/bundle.h"

#include "base/pem.h"

bool bundle_is_encrypted(struct slice key_pem)
{
    return slice_find_slice(slice_take(key_pem, 40), SLICE("ENCRYPTED")) != SIZE_MAX;
}

static enum err fail(const char **why, const char *sentence)
{
    *why = sentence;
    return ERR_INVALID;
}

enum err bundle_split(struct slice pem, struct arena *arena, struct slice *chain,
                      struct slice *key, const char **why)
{
    struct buffer certificates;
    struct pem_block b;
    enum err e = OK;
    buffer_init(&certificates, pem.len * 2 + 64);
    *key = SLICE_NONE;
    while (e == OK && pem_next(&pem, &b)) {
        if (slice_is(b.type, "CERTIFICATE")) {
            buffer_append(&certificates, b.text);
            BUFFER_PUT(&certificates, "\n");
        } else if (slice_ends(b.type, SLICE("PRIVATE KEY"))) {
            if (key->len == 0)
                *key = arena_join(arena, (struct slice[]){b.text, SLICE("\n")}, 2);
        } else if (!slice_is(b.type, "EC PARAMETERS")) {
            e = fail(why, "unrecognized PEM block type");
        }
    }
    *chain = arena_copy(arena, buffer_slice(&certificates));
    buffer_deinit(&certificates);
    if (e == OK && chain->len == 0)
        e = fail(why, "failed to parse PEM data");
    if (e == OK && key->len == 0)
        e = fail(why, "no private key block found");
    if (e == OK && bundle_is_encrypted(*key))
        e = fail(why, "encrypted private keys are not supported; please decrypt the key first");
    return e;
}
