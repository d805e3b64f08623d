/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both sides of HTTP/2 know of frames beside their form: the bounds of settings, and how a header
 * block is cut. It has been written behind the place of its first frame's head; the heads of the others
 * are put in between, from the end.
 */
#include "wire/h2_frame.h"

enum h2_error h2_setting_check(unsigned id, uint32_t value, const char **why)
{
    switch (id) {
    case H2_SET_ENABLE_PUSH:
    case H2_SET_ENABLE_CONNECT_PROTOCOL:
    case H2_SET_NO_RFC7540_PRIORITIES:
        *why = "a setting that is neither 0 nor 1";
        return value > 1 ? H2_PROTOCOL_ERROR : H2_NO_ERROR;
    case H2_SET_INITIAL_WINDOW_SIZE:
        *why = "INITIAL_WINDOW_SIZE too large";
        return value > INT32_MAX ? H2_FLOW_CONTROL_ERROR : H2_NO_ERROR;
    case H2_SET_MAX_FRAME_SIZE:
        *why = "MAX_FRAME_SIZE out of bounds";
        return value < H2_FRAME_MAX_DEFAULT || value > 0xffffff ? H2_PROTOCOL_ERROR : H2_NO_ERROR;
    default:
        return H2_NO_ERROR;
    }
}

static size_t cut(char *payload, size_t n, size_t max, uint8_t flags, uint32_t stream)
{
    size_t pieces = (n + max - 1) / max;
    for (size_t i = pieces - 1; i > 0; i--) {
        size_t len = i == pieces - 1 ? n - i * max : max;
        char *to = payload + i * (max + H2_FRAME_HEAD);
        memmove(to, payload + i * max, len);
        h2_write_head(to - H2_FRAME_HEAD, (uint32_t)len, H2_CONTINUATION,
                      i == pieces - 1 ? H2_END_HEADERS : 0, stream);
    }
    h2_write_head(payload - H2_FRAME_HEAD, (uint32_t)max, H2_HEADERS, flags, stream);
    return n + pieces * H2_FRAME_HEAD;
}

size_t h2_frame_block(char *payload, size_t n, size_t max, uint8_t flags, uint32_t stream)
{
    if (n > max)
        return cut(payload, n, max, flags, stream);
    h2_write_head(payload - H2_FRAME_HEAD, (uint32_t)n, H2_HEADERS,
                  (uint8_t)(flags | H2_END_HEADERS), stream);
    return n + H2_FRAME_HEAD;
}
