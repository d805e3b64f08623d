/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a chain of PEM that an authority gave, against a request of the same bytes.
 */
#include "base/check.h"
#include "pki/issued.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    struct slice bytes = slice_of((const char *)data, size), *names;
    struct buffer der;
    char why[256];
    size_t count;
    arena_init(&a, 4096);
    buffer_init(&der, 1 << 20);
    (void)issued_check(bytes, bytes, why, sizeof why);
    if (issued_issuers(bytes, &a, &names, &count) == OK)
        ASSERT(count > 0 && count <= ISSUED_CHAIN_MAX);
    (void)issued_leaf(bytes, &der);
    buffer_deinit(&der);
    arena_deinit(&a);
    return 0;
}
