/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/2 frames (RFC 9113 §4, §6): numbers, the nine bytes before each, and how they are written.
 */
#pragma once

#include "base/slice.h"

enum { H2_FRAME_HEAD = 9, H2_FRAME_MAX_DEFAULT = 16384, H2_WINDOW_DEFAULT = 65535 };

enum h2_type {
    H2_DATA, H2_HEADERS, H2_PRIORITY, H2_RST_STREAM, H2_SETTINGS, H2_PUSH_PROMISE, H2_PING,
    H2_GOAWAY, H2_WINDOW_UPDATE, H2_CONTINUATION,
    H2_PRIORITY_UPDATE = 0x10, /* RFC 9218 §7.1 */
};

enum h2_flag {
    H2_END_STREAM = 1,
    H2_ACK = 1,
    H2_END_HEADERS = 4,
    H2_PADDED = 8,
    H2_PRIORITY_FLAG = 0x20,
};

enum h2_error {
    H2_NO_ERROR, H2_PROTOCOL_ERROR, H2_INTERNAL_ERROR, H2_FLOW_CONTROL_ERROR, H2_SETTINGS_TIMEOUT,
    H2_STREAM_CLOSED, H2_FRAME_SIZE_ERROR, H2_REFUSED_STREAM, H2_CANCEL, H2_COMPRESSION_ERROR,
    H2_CONNECT_ERROR, H2_ENHANCE_YOUR_CALM, H2_INADEQUATE_SECURITY, H2_HTTP_1_1_REQUIRED,
};

enum h2_setting {
    H2_SET_HEADER_TABLE_SIZE = 1,
    H2_SET_ENABLE_PUSH = 2,
    H2_SET_MAX_CONCURRENT_STREAMS = 3,
    H2_SET_INITIAL_WINDOW_SIZE = 4,
    H2_SET_MAX_FRAME_SIZE = 5,
    H2_SET_MAX_HEADER_LIST_SIZE = 6,
    H2_SET_ENABLE_CONNECT_PROTOCOL = 8,    /* RFC 8441 */
    H2_SET_NO_RFC7540_PRIORITIES = 9,      /* RFC 9218 */
};

struct h2_frame_head {
    uint32_t len;
    uint8_t type, flags;
    uint32_t stream;
};

static inline uint32_t h2_read_u32(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;
    return (uint32_t)u[0] << 24 | (uint32_t)u[1] << 16 | (uint32_t)u[2] << 8 | u[3];
}

static inline void h2_write_u32(char *p, uint32_t v)
{
    p[0] = (char)(v >> 24);
    p[1] = (char)(v >> 16);
    p[2] = (char)(v >> 8);
    p[3] = (char)v;
}

static inline struct h2_frame_head h2_read_head(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;
    return (struct h2_frame_head){(uint32_t)u[0] << 16 | (uint32_t)u[1] << 8 | u[2], u[3], u[4],
                                  h2_read_u32(p + 5) & 0x7fffffff};
}

/* Whether a setting may have that value (RFC 9113 §6.5.2, RFC 8441, RFC 9218), else *why: a constant. */
enum h2_error h2_setting_check(unsigned id, uint32_t value, const char **why);

/* A header block of n bytes, behind which there is room, and a frame's head before it, becomes as many
 * frames of at most `max` bytes as it takes. `flags`: H2_END_STREAM. Returns how long they are together. */
size_t h2_frame_block(char *payload, size_t n, size_t max, uint8_t flags, uint32_t stream);

static inline void h2_write_head(char *p, uint32_t len, enum h2_type type, uint8_t flags,
                                 uint32_t stream)
{
    p[0] = (char)(len >> 16);
    p[1] = (char)(len >> 8);
    p[2] = (char)len;
    p[3] = (char)type;
    p[4] = (char)flags;
    h2_write_u32(p + 5, stream);
}
