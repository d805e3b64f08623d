/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a file of shared ticket keys. What is taken is written and read again as the same.
 */
#include <stdint.h>

#include "base/check.h"
#include "tls/stek_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct stek_file f, again;
    struct buffer b;
    if (stek_file_parse(slice_of((const char *)data, size), &f) != OK)
        return 0;
    buffer_init(&b, STEK_FILE_MAX);
    stek_file_put(&b, &f);
    ASSERT(!b.full);
    ASSERT(stek_file_parse(buffer_slice(&b), &again) == OK);
    ASSERT(f.count == again.count && memcmp(f.keys, again.keys, sizeof f.keys) == 0);
    ASSERT(again.next_ns == (f.next_ns > 0 ? f.next_ns : 0) || f.next_ns == INT64_MAX);
    buffer_deinit(&b);
    return 0;
}
