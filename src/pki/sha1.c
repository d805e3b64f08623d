/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The library's.
 */
#include "pki/sha1.h"

#include <openssl/evp.h>

bool sha1(struct slice data, uint8_t out[SHA1_LEN])
{
    unsigned len = 0;
    return EVP_Digest(data.ptr, data.len, out, &len, EVP_sha1(), NULL) == 1 && len == SHA1_LEN;
}
