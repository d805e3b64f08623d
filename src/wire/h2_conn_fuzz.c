/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole connection of HTTP/2 (h2_fuzzing.h). An input is a byte of options and pieces, each a byte
 * of length and so many bytes: they are what the client sends, and the loop turns between them. Behind
 * the input's end nothing may be left of the connection.
 */
#include "wire/h2_fuzzing.h"

enum { WITH_PREFACE = 1, SLOW_READER = 2, DRAINED = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    struct slice in = slice_of((const char *)data, size);
    struct client c;
    if (loop == NULL)
        start();
    if (size == 0)
        return 0;
    unsigned options = data[0];
    in = slice_skip(in, 1);
    open_connection(&c);
    if (options & WITH_PREFACE) {
        c.h2 = true;
        send_piece(&c, slice_of(hello, sizeof hello - 1), SIZE_MAX);
    }
    while (in.len > 0) {
        size_t len = (unsigned char)in.ptr[0];
        send_piece(&c, slice_take(slice_skip(in, 1), len), options & SLOW_READER ? 100 : SIZE_MAX);
        in = slice_skip(in, 1 + len);
    }
    if (options & DRAINED)
        h1_site_drain(&worker, &site);
    turn(2);
    read_answers(&c, options & SLOW_READER ? 0 : SIZE_MAX);
    end_connection(&c);
    site.draining = false;
    return 0;
}
