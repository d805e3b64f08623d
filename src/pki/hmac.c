/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenSSL behind a name of a hash.
 */
#include "pki/hmac.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

size_t hmac_compute(const char *hash, struct slice key, struct slice data, uint8_t out[HMAC_MAX])
{
    unsigned len = 0;
    const EVP_MD *md = EVP_get_digestbyname(hash);
    if (md == NULL || EVP_MD_get_size(md) > HMAC_MAX)
        return 0;
    if (HMAC(md, key.ptr, (int)key.len, (const unsigned char *)data.ptr, data.len, out, &len) == NULL)
        return 0;
    return len;
}

bool hmac_equal(const uint8_t *a, const uint8_t *b, size_t len)
{
    return CRYPTO_memcmp(a, b, len) == 0;
}
