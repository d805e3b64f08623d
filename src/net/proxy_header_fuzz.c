/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a PROXY header: a whole one is never longer than what came, and every piece of it says
 * that more must come.
 */
#include "base/check.h"
#include "net/proxy_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_header h, piece;
    struct slice s = slice_of((const char *)data, size);
    if (proxy_header_parse(s, &h) != PROXY_DONE)
        return 0;
    ASSERT(h.len > 0 && h.len <= size && h.len <= PROXY_HEADER_MAX);
    for (size_t n = 0; n < h.len; n++) {
        enum proxy_result r = proxy_header_parse(slice_take(s, n), &piece);
        ASSERT(r == PROXY_UNSURE || r == PROXY_MORE);
    }
    return 0;
}
