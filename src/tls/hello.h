/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ClientHello (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2), read before the library sees it, so that the
 * policy and the certificate are chosen first. Pure: views into the input, or into `joined` where the
 * message came in several records.
 */
#pragma once

#include "base/buffer.h"

enum { HELLO_MAX = 16384, HELLO_NAME_MAX = 255 };

enum hello_result {
    HELLO_MORE,
    HELLO_DONE,
    HELLO_HTTP, /* an HTTP request in clear text */
    HELLO_BAD,  /* `alert` is to be sent */
};

struct hello {
    uint8_t alert;            /* RFC 8446 §6.2 */
    struct slice server_name; /* as it was sent; empty: none */
    struct slice alpn;        /* the list, each name behind its length */
    struct slice ciphers, schemes, groups, versions; /* two bytes each */
};

/* `in` is all that has come on the connection. `joined` holds up to HELLO_MAX bytes and more. */
enum hello_result hello_parse(struct slice in, struct buffer *joined, struct hello *);

/* Whether a list of two-byte numbers has one. */
bool hello_has(struct slice list, uint16_t number);

/* Whether the ALPN list consists of that one name. */
bool hello_alpn_only(const struct hello *, struct slice name);

enum { ALERT_RECORD = 7 };

/* A fatal alert as a whole record. */
void hello_alert(uint8_t alert, char out[ALERT_RECORD]);
