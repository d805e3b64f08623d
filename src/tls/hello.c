/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is not needed to choose is left to the library, which sees the same bytes again and judges
 * them all. Here only the frame counts: records of handshake type, one message of type 1 in them,
 * lengths that agree. What lies behind the message in its record, or in records behind it, is looked
 * at by nobody here.
 */
#include "tls/hello.h"

enum {
    RECORD_HEADER = 5,
    MESSAGE_HEADER = 4,
    RECORD_HANDSHAKE = 22,
    CLIENT_HELLO = 1,
};

enum {
    ALERT_UNEXPECTED_MESSAGE = 10,
    ALERT_RECORD_OVERFLOW = 22,
    ALERT_ILLEGAL_PARAMETER = 47,
    ALERT_DECODE_ERROR = 50,
    ALERT_PROTOCOL_VERSION = 70,
};

enum {
    EXTENSION_SERVER_NAME = 0,
    EXTENSION_GROUPS = 10,
    EXTENSION_SCHEMES = 13,
    EXTENSION_ALPN = 16,
    EXTENSION_VERSIONS = 43,
};

static unsigned byte_at(struct slice s, size_t i)
{
    return (unsigned char)s.ptr[i];
}

static size_t number(struct slice s, size_t at, size_t bytes)
{
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++)
        n = n << 8 | byte_at(s, at + i);
    return n;
}

/* Cuts a vector with a length of so many bytes off the front. */
static bool take_vector(struct slice *from, size_t bytes, struct slice *out)
{
    if (from->len < bytes)
        return false;
    size_t n = number(*from, 0, bytes);
    if (from->len - bytes < n)
        return false;
    *out = slice_of(from->ptr + bytes, n);
    *from = slice_skip(*from, bytes + n);
    return true;
}

static enum hello_result bad(struct hello *h, uint8_t alert)
{
    h->alert = alert;
    return HELLO_BAD;
}

/* --- extensions --- */

static bool read_server_name(struct hello *h, struct slice body)
{
    struct slice list, name;
    if (!take_vector(&body, 2, &list) || body.len > 0 || list.len == 0)
        return false;
    while (list.len > 0) {
        unsigned type = byte_at(list, 0);
        list = slice_skip(list, 1);
        if (!take_vector(&list, 2, &name) || name.len == 0)
            return false;
        if (type != 0)
            continue;
        if (h->server_name.len > 0 || name.len > HELLO_NAME_MAX || slice_ends(name, SLICE(".")) ||
            memchr(name.ptr, '\0', name.len) != NULL)
            return false; /* RFC 6066 §3: one name, without a dot at its end */
        h->server_name = name;
    }
    return true;
}

static bool read_alpn(struct hello *h, struct slice body)
{
    struct slice name;
    if (!take_vector(&body, 2, &h->alpn) || body.len > 0 || h->alpn.len == 0)
        return false;
    for (struct slice rest = h->alpn; rest.len > 0;) {
        if (!take_vector(&rest, 1, &name) || name.len == 0)
            return false;
    }
    return true;
}

static bool read_numbers(struct slice body, size_t bytes, struct slice *out)
{
    return take_vector(&body, bytes, out) && body.len == 0 && out->len % 2 == 0 && out->len > 0;
}

static bool read_extension(struct hello *h, size_t type, struct slice body)
{
    switch (type) {
    case EXTENSION_SERVER_NAME:
        return read_server_name(h, body);
    case EXTENSION_GROUPS:
        return read_numbers(body, 2, &h->groups);
    case EXTENSION_SCHEMES:
        return read_numbers(body, 2, &h->schemes);
    case EXTENSION_ALPN:
        return read_alpn(h, body);
    case EXTENSION_VERSIONS:
        return read_numbers(body, 1, &h->versions);
    default:
        return true;
    }
}

static enum hello_result read_extensions(struct hello *h, struct slice list)
{
    uint64_t seen = 0; /* of the types below 64, which hold all that is read here */
    while (list.len > 0) {
        struct slice body;
        if (list.len < 2)
            return bad(h, ALERT_DECODE_ERROR);
        size_t type = number(list, 0, 2);
        list = slice_skip(list, 2);
        if (!take_vector(&list, 2, &body))
            return bad(h, ALERT_DECODE_ERROR);
        if (type < 64 && (seen >> type & 1) != 0)
            return bad(h, ALERT_ILLEGAL_PARAMETER); /* RFC 8446 §4.2: each once */
        seen |= type < 64 ? UINT64_C(1) << type : 0;
        if (!read_extension(h, type, body))
            return bad(h, ALERT_DECODE_ERROR);
    }
    return HELLO_DONE;
}

static enum hello_result read_message(struct hello *h, struct slice m)
{
    struct slice session, compression, extensions;
    if (m.len < 34)
        return bad(h, ALERT_DECODE_ERROR);
    if (byte_at(m, 0) != 3) /* legacy_version */
        return bad(h, ALERT_PROTOCOL_VERSION);
    m = slice_skip(m, 34); /* and random */
    if (!take_vector(&m, 1, &session) || session.len > 32 || !take_vector(&m, 2, &h->ciphers) ||
        h->ciphers.len == 0 || h->ciphers.len % 2 != 0 || !take_vector(&m, 1, &compression) ||
        compression.len == 0)
        return bad(h, ALERT_DECODE_ERROR);
    if (m.len == 0) /* TLS 1.2 without any */
        return HELLO_DONE;
    if (!take_vector(&m, 2, &extensions) || m.len > 0)
        return bad(h, ALERT_DECODE_ERROR);
    return read_extensions(h, extensions);
}

/* --- records --- */

static enum hello_result not_a_record(struct hello *h, struct slice in)
{
    static const char *const beginnings[] = {"GET /", "HEAD ", "POST ", "PUT /", "OPTIO", NULL};
    for (const char *const *b = beginnings; *b != NULL; b++) {
        size_t n = in.len < 5 ? in.len : 5;
        if (memcmp(in.ptr, *b, n) == 0)
            return n < 5 ? HELLO_MORE : HELLO_HTTP;
    }
    return bad(h, ALERT_UNEXPECTED_MESSAGE);
}

/* The next record's bytes. */
static enum hello_result take_record(struct hello *h, struct slice *in, struct slice *bytes)
{
    if (in->len < RECORD_HEADER && (in->len == 0 || byte_at(*in, 0) == RECORD_HANDSHAKE))
        return HELLO_MORE;
    if (byte_at(*in, 0) != RECORD_HANDSHAKE)
        return bad(h, ALERT_UNEXPECTED_MESSAGE);
    if (byte_at(*in, 1) != 3)
        return bad(h, ALERT_PROTOCOL_VERSION);
    size_t n = number(*in, 3, 2);
    if (n > HELLO_MAX)
        return bad(h, ALERT_RECORD_OVERFLOW);
    if (n == 0)
        return bad(h, ALERT_UNEXPECTED_MESSAGE);
    if (in->len - RECORD_HEADER < n) {
        *bytes = slice_skip(*in, RECORD_HEADER);
        return HELLO_MORE;
    }
    *bytes = slice_of(in->ptr + RECORD_HEADER, n);
    *in = slice_skip(*in, RECORD_HEADER + n);
    return HELLO_DONE;
}

/* What its first bytes say of a message: more of it is to come, it is no hello, or it is all here. */
static enum hello_result look_at(struct hello *h, struct slice message)
{
    if (message.len > 0 && byte_at(message, 0) != CLIENT_HELLO)
        return bad(h, ALERT_UNEXPECTED_MESSAGE);
    if (message.len < MESSAGE_HEADER)
        return HELLO_MORE;
    size_t n = number(message, 1, 3);
    if (n > HELLO_MAX)
        return bad(h, ALERT_ILLEGAL_PARAMETER);
    return message.len - MESSAGE_HEADER < n ? HELLO_MORE : HELLO_DONE;
}

static enum hello_result find_message(struct hello *h, struct slice in, struct buffer *joined,
                                      struct slice *message)
{
    struct slice bytes = SLICE_NONE;
    bool first = true;
    buffer_clear(joined);
    for (;; first = false) {
        enum hello_result r = take_record(h, &in, &bytes);
        if (r == HELLO_BAD)
            return r;
        if (r == HELLO_MORE) { /* it may show already that it is none */
            enum hello_result l = first ? look_at(h, bytes) : HELLO_MORE;
            return l == HELLO_BAD ? l : HELLO_MORE;
        }
        if (!first && buffer_append(joined, bytes) != OK)
            return bad(h, ALERT_RECORD_OVERFLOW);
        *message = first ? bytes : buffer_slice(joined);
        r = look_at(h, *message);
        if (r != HELLO_MORE)
            return r;
        if (first && buffer_append(joined, bytes) != OK)
            return bad(h, ALERT_RECORD_OVERFLOW);
    }
}

enum hello_result hello_parse(struct slice in, struct buffer *joined, struct hello *h)
{
    struct slice message;
    *h = (struct hello){0};
    if (in.len > 0 && byte_at(in, 0) != RECORD_HANDSHAKE)
        return not_a_record(h, in);
    enum hello_result r = find_message(h, in, joined, &message);
    if (r != HELLO_DONE)
        return r;
    return read_message(h, slice_of(message.ptr + MESSAGE_HEADER, number(message, 1, 3)));
}

bool hello_has(struct slice list, uint16_t wanted)
{
    for (size_t i = 0; i + 1 < list.len; i += 2) {
        if (number(list, i, 2) == wanted)
            return true;
    }
    return false;
}

bool hello_alpn_only(const struct hello *h, struct slice name)
{
    return h->alpn.len == name.len + 1 && byte_at(h->alpn, 0) == name.len &&
           memcmp(h->alpn.ptr + 1, name.ptr, name.len) == 0;
}

void hello_alert(uint8_t alert, char out[ALERT_RECORD])
{
    const char record[ALERT_RECORD] = {21, 3, 1, 0, 2, 2, (char)alert};
    memcpy(out, record, sizeof record);
}
