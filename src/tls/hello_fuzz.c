/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the beginning of a connection. What was decided must not change with what comes
 * later, and views must lie within the bytes.
 */
#include <stdint.h>
#include <stdlib.h>

#include "base/check.h"
#include "tls/hello.h"

static volatile unsigned sum;

static void touch(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        sum += (unsigned char)s.ptr[i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buffer joined;
    struct hello h;
    enum hello_result last = HELLO_MORE;
    buffer_init(&joined, HELLO_MAX + 1024);
    size_t step = size > 256 ? size / 64 : 1;
    for (size_t n = 0; n <= size; n += n + step > size && n < size ? size - n : step) {
        char *copy = malloc(n + 1); /* of exactly that size, for AddressSanitizer */
        memcpy(copy, data, n);
        enum hello_result r = hello_parse(slice_of(copy, n), &joined, &h);
        ASSERT(last == HELLO_MORE || last == r);
        last = r;
        if (r == HELLO_DONE) {
            touch(h.server_name);
            touch(h.alpn);
            touch(h.ciphers);
            touch(h.schemes);
            touch(h.groups);
            touch(h.versions);
            ASSERT(h.server_name.len <= HELLO_NAME_MAX);
        }
        ASSERT(r != HELLO_BAD || h.alert != 0);
        free(copy);
    }
    buffer_deinit(&joined);
    return 0;
}
