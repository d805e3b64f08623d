/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Written by dev/hpack-tables. Constant tables of RFC 7541: the static table (appendix A), names by
 * number, the Huffman code (appendix B). For hpack.c and huffman.c; the numbers are for all.
 */
#pragma once

#include "base/slice.h"

/* A name's number is the index of its first entry in the static table, or one behind it. */
enum hpack_name {
    NAME_OTHER = 0,
    NAME_AUTHORITY = 1,
    NAME_METHOD = 2,
    NAME_PATH = 4,
    NAME_SCHEME = 6,
    NAME_STATUS = 8,
    NAME_ACCEPT_CHARSET = 15,
    NAME_ACCEPT_ENCODING = 16,
    NAME_ACCEPT_LANGUAGE = 17,
    NAME_ACCEPT_RANGES = 18,
    NAME_ACCEPT = 19,
    NAME_ACCESS_CONTROL_ALLOW_ORIGIN = 20,
    NAME_AGE = 21,
    NAME_ALLOW = 22,
    NAME_AUTHORIZATION = 23,
    NAME_CACHE_CONTROL = 24,
    NAME_CONTENT_DISPOSITION = 25,
    NAME_CONTENT_ENCODING = 26,
    NAME_CONTENT_LANGUAGE = 27,
    NAME_CONTENT_LENGTH = 28,
    NAME_CONTENT_LOCATION = 29,
    NAME_CONTENT_RANGE = 30,
    NAME_CONTENT_TYPE = 31,
    NAME_COOKIE = 32,
    NAME_DATE = 33,
    NAME_ETAG = 34,
    NAME_EXPECT = 35,
    NAME_EXPIRES = 36,
    NAME_FROM = 37,
    NAME_HOST = 38,
    NAME_IF_MATCH = 39,
    NAME_IF_MODIFIED_SINCE = 40,
    NAME_IF_NONE_MATCH = 41,
    NAME_IF_RANGE = 42,
    NAME_IF_UNMODIFIED_SINCE = 43,
    NAME_LAST_MODIFIED = 44,
    NAME_LINK = 45,
    NAME_LOCATION = 46,
    NAME_MAX_FORWARDS = 47,
    NAME_PROXY_AUTHENTICATE = 48,
    NAME_PROXY_AUTHORIZATION = 49,
    NAME_RANGE = 50,
    NAME_REFERER = 51,
    NAME_REFRESH = 52,
    NAME_RETRY_AFTER = 53,
    NAME_SERVER = 54,
    NAME_SET_COOKIE = 55,
    NAME_STRICT_TRANSPORT_SECURITY = 56,
    NAME_TRANSFER_ENCODING = 57,
    NAME_USER_AGENT = 58,
    NAME_VARY = 59,
    NAME_VIA = 60,
    NAME_WWW_AUTHENTICATE = 61,
    NAME_PROTOCOL = 62,
    NAME_CONNECTION = 63,
    NAME_KEEP_ALIVE = 64,
    NAME_PRIORITY = 65,
    NAME_PROXY_CONNECTION = 66,
    NAME_TE = 67,
    NAME_UPGRADE = 68,
    NAME_COUNT
};

enum { HPACK_STATIC = 61, HUFFMAN_FAST_BITS = 11, HUFFMAN_LENGTH_MAX = 30 };

struct hpack_static {
    struct slice name, value;
    uint8_t id; /* enum hpack_name */
};

/* From 1; [0] is empty. */
extern const struct hpack_static hpack_static[HPACK_STATIC + 1];

/* By number; [NAME_OTHER] is empty. */
extern const struct slice hpack_names[NAME_COUNT];

/* The same as HTTP/1 usually writes them: "Content-Type". */
extern const struct slice hpack_titles[NAME_COUNT];

/* Where a name must stand if it has a number; the name found there is to be compared. */
extern const uint8_t hpack_name_slots[256];

static inline uint8_t hpack_name_slot(struct slice name) /* not empty; any case */
{
    unsigned first = (unsigned char)name.ptr[0] | 0x20u;
    unsigned last = (unsigned char)name.ptr[name.len - 1] | 0x20u;
    unsigned middle = (unsigned char)name.ptr[name.len / 2] | 0x20u;
    return (uint8_t)((unsigned)name.len * 3 + first * 6 + last * 54 + middle);
}

struct huffman_code {
    uint32_t bits; /* right-aligned */
    uint32_t length;
};

extern const struct huffman_code huffman_codes[256];

/* What the next HUFFMAN_FAST_BITS bits begin with: one or two bytes (bits 0 … 7, 8 … 15), how
 * many (16 … 23) and how many bits they take (24 … 31). 0: a longer code. */
extern const uint32_t huffman_fast[1 << HUFFMAN_FAST_BITS];

/* Of each length: behind its last code, left-aligned in 32 bits; and what to add to a code to
 * get its place in huffman_order. */
extern const uint64_t huffman_limits[HUFFMAN_LENGTH_MAX + 1];
extern const int32_t huffman_offsets[HUFFMAN_LENGTH_MAX + 1];
extern const uint8_t huffman_order[256]; /* EOS, the last one, is not in it */
