/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Version 1 is a line of text of at most 107 bytes; version 2 is binary, with a length of its own, and
 * what follows its addresses (TLVs) is passed over. Both are told from HTTP by their first bytes:
 * no request begins with either signature.
 */
#include "net/proxy_header.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>

enum { LINE_MAX_LEN = 107, FIXED = 16 };

static const struct slice line_signature = {"PROXY ", 6};
static const struct slice binary_signature = {"\r\n\r\n\0\r\nQUIT\n", 12};

/* Whether `s` begins with the signature, or is the beginning of it. */
static bool agrees(struct slice s, struct slice signature)
{
    size_t n = s.len < signature.len ? s.len : signature.len;
    return memcmp(s.ptr, signature.ptr, n) == 0;
}

static void put_four(struct sockaddr_storage *out, const void *address, uint16_t port)
{
    struct sockaddr_in *a = (struct sockaddr_in *)out;
    memset(out, 0, sizeof *out);
    a->sin_family = AF_INET;
    a->sin_port = htons(port);
    memcpy(&a->sin_addr, address, 4);
}

static void put_six(struct sockaddr_storage *out, const void *address, uint16_t port)
{
    struct sockaddr_in6 *a = (struct sockaddr_in6 *)out;
    memset(out, 0, sizeof *out);
    a->sin6_family = AF_INET6;
    a->sin6_port = htons(port);
    memcpy(&a->sin6_addr, address, 16);
}

static uint16_t read_port(const char *p)
{
    return (uint16_t)((unsigned char)p[0] << 8 | (unsigned char)p[1]);
}

/* --- version 2 --- */

static enum proxy_result read_binary(struct slice s, struct proxy_header *h)
{
    if (s.len < FIXED)
        return PROXY_MORE;
    unsigned version = (unsigned char)s.ptr[12] >> 4, command = (unsigned char)s.ptr[12] & 15;
    unsigned family = (unsigned char)s.ptr[13] >> 4;
    size_t body = read_port(s.ptr + 14);
    const char *at = s.ptr + FIXED;
    if (version != 2 || command > 1 || FIXED + body > PROXY_HEADER_MAX)
        return PROXY_BAD;
    if (s.len < FIXED + body)
        return PROXY_MORE;
    h->len = FIXED + body;
    if (command == 0)
        return PROXY_DONE;
    if ((family == 1 && body < 12) || (family == 2 && body < 36))
        return PROXY_BAD;
    if (family == 1) {
        put_four(&h->from, at, read_port(at + 8));
        put_four(&h->to, at + 4, read_port(at + 10));
    } else if (family == 2) {
        put_six(&h->from, at, read_port(at + 32));
        put_six(&h->to, at + 16, read_port(at + 34));
    }
    h->given = family == 1 || family == 2;
    return PROXY_DONE;
}

/* --- version 1 --- */

static bool read_address(struct slice text, struct slice port, bool six, struct sockaddr_storage *out)
{
    char z[INET6_ADDRSTRLEN];
    unsigned char bytes[16];
    uint64_t number;
    if (text.len == 0 || text.len >= sizeof z || !slice_to_u64(port, 65535, &number))
        return false;
    memcpy(z, text.ptr, text.len);
    z[text.len] = '\0';
    if (inet_pton(six ? AF_INET6 : AF_INET, z, bytes) != 1)
        return false;
    if (six)
        put_six(out, bytes, (uint16_t)number);
    else
        put_four(out, bytes, (uint16_t)number);
    return true;
}

static enum proxy_result read_line(struct slice s, struct proxy_header *h)
{
    struct slice word[5], rest;
    size_t end = slice_find(slice_take(s, LINE_MAX_LEN), '\n');
    if (end == SIZE_MAX)
        return s.len < LINE_MAX_LEN ? PROXY_MORE : PROXY_BAD;
    if (s.ptr[end - 1] != '\r') /* the signature lies before it */
        return PROXY_BAD;
    h->len = end + 1;
    rest = slice_skip(slice_take(s, end - 1), line_signature.len);
    if (slice_is(rest, "UNKNOWN") || slice_starts(rest, SLICE("UNKNOWN ")))
        return PROXY_DONE;
    for (int i = 0; i < 5; i++) {
        bool more = slice_cut(rest, ' ', &word[i], &rest);
        if (more != (i < 4))
            return PROXY_BAD;
    }
    bool six = slice_is(word[0], "TCP6");
    if ((!six && !slice_is(word[0], "TCP4")) || !read_address(word[1], word[3], six, &h->from) ||
        !read_address(word[2], word[4], six, &h->to))
        return PROXY_BAD;
    h->given = true;
    return PROXY_DONE;
}

enum proxy_result proxy_header_parse(struct slice s, struct proxy_header *h)
{
    bool line = agrees(s, line_signature), binary = agrees(s, binary_signature);
    h->len = 0;
    h->given = false;
    if (!line && !binary)
        return PROXY_NONE;
    if (s.len < (line ? line_signature.len : binary_signature.len))
        return PROXY_UNSURE;
    return line ? read_line(s, h) : read_binary(s, h);
}

/* --- the other way --- */

static size_t put_line(const struct ip_address *from, uint16_t port, char *out)
{
    char text[IP_TEXT_MAX];
    if (from == NULL)
        return (size_t)snprintf(out, PROXY_PUT_MAX, "PROXY UNKNOWN\r\n");
    return (size_t)snprintf(out, PROXY_PUT_MAX, "PROXY TCP%d %.*s %s %u 0\r\n",
                            from->is_six ? 6 : 4, (int)ip_text(from, text), text,
                            from->is_six ? "::" : "0.0.0.0", port);
}

static size_t put_binary(const struct ip_address *from, uint16_t port, char *out)
{
    size_t each = from == NULL ? 0 : from->is_six ? 16 : 4;
    uint16_t len = (uint16_t)(from != NULL ? 2 * each + 4 : 0);
    memset(out, 0, PROXY_PUT_MAX);
    memcpy(out, binary_signature.ptr, binary_signature.len);
    out[12] = from != NULL ? 0x21 : 0x20;
    out[13] = from == NULL ? 0 : from->is_six ? 0x21 : 0x11;
    out[15] = (char)len;
    if (from != NULL) {
        memcpy(out + FIXED, from->bytes, each);
        out[FIXED + 2 * each] = (char)(port >> 8);
        out[FIXED + 2 * each + 1] = (char)port;
    }
    return FIXED + len;
}

size_t proxy_header_put(unsigned version, const struct ip_address *from, uint16_t port,
                        char out[PROXY_PUT_MAX])
{
    return version == 1 ? put_line(from, port, out) : put_binary(from, port, out);
}
