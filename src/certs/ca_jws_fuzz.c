/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a signed request to an authority of ours: whatever comes of them, its key and its
 * signature are looked at.
 */
#include "base/check.h"
#include "certs/ca_jws.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    struct ca_jws jws;
    struct evp_pkey_st *key = NULL;
    struct slice text;
    const char *why = NULL;
    arena_init(&a, 4096);
    if (ca_jws_read(slice_of((const char *)data, size), &a, &jws, &why) != OK) {
        ASSERT(why != NULL);
    } else if (jws.has_jwk && jwk_read(&jws.jwk, &key) == OK) {
        (void)jose_verify(key, jws.algorithm, jws.signed_text, jws.signature);
        ASSERT(ca_jwk_text(key, &a, &text) == OK && text.len > 0);
    }
    (void)ca_nonce_use(slice_of((const char *)data, size));
    key_free(key);
    arena_deinit(&a);
    return 0;
}
