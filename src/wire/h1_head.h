/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsing of HTTP/1 heads (RFC 9112), of requests and of responses. Pure: no I/O, no allocation;
 * every slice is a view into the input. Strict where smuggling lives: bare CR or LF, obsolete
 * folding, space around names, Content-Length with Transfer-Encoding, repeated Content-Length or
 * Host, a transfer coding other than chunked are all refused.
 */
#pragma once

#include "base/arena.h"
#include "base/slice.h"

enum { H1_FIELDS_MAX = 128, H1_METHOD_MAX = 64 };

enum h1_result {
    H1_MORE,      /* no empty line yet: come again with more bytes */
    H1_DONE,
    H1_BAD,       /* malformed: 400 and close */
    H1_TOO_LARGE, /* more than H1_FIELDS_MAX fields: 431 and close */
    H1_VERSION,   /* not HTTP/1.x: 505 and close */
    H1_CODING,    /* a transfer coding that is not known: 501 and close */
    H1_METHOD,    /* a method longer than any that is known: 501 and close */
    H1_EXPECT,    /* an expectation other than 100-continue: 417 and close */
};

enum h1_body {
    H1_BODY_NONE,
    H1_BODY_LENGTH,  /* content_length bytes */
    H1_BODY_CHUNKED,
    H1_BODY_CLOSE,   /* until the peer closes; responses only */
};

struct h1_field {
    struct slice name, value; /* value without white space at its ends */
    bool odd;                 /* '_' or '.' in the name */
};

struct h1_head {
    struct slice method, target; /* requests */
    int status;                  /* responses: 100 … 599 (more is accepted up to 999) */
    struct slice reason;
    uint8_t minor; /* of HTTP/1.x: 0 or 1; a higher one is taken as 1 (RFC 9110 §2.5) */
    bool keep_alive, expect_continue;
    bool has_host;
    bool has_length;       /* responses: content_length was there, also where no body follows */
    enum h1_body body;
    uint64_t content_length;
    struct slice host;      /* Host, or the authority of an absolute-form target */
    struct slice upgrade;   /* Upgrade, when Connection names it; else empty */
    const char *bad;        /* why H1_BAD, a constant sentence for the log */
    unsigned count;
    struct h1_field fields[H1_FIELDS_MAX];
};

/* Parses a request's head at the front of `in`. H1_DONE sets *used to its length with the empty
 * line. One CRLF before the request line is skipped (RFC 9112 §2.2). */
enum h1_result h1_parse_request(struct h1_head *, struct slice in, size_t *used);

/* As h1_parse_request; `to_head`: the answer is to a HEAD request and has no body. */
enum h1_result h1_parse_response(struct h1_head *, struct slice in, bool to_head, size_t *used);

/* Parses a field section that ends with an empty line, as trailers are. The framing members are
 * not touched. */
enum h1_result h1_parse_trailers(struct h1_field *, unsigned max, unsigned *count, struct slice in,
                                 size_t *used, const char **bad);

/* uri-host [":" port] as Host and an authority hold it (RFC 9110 §7.2): a name of RFC 3986's
 * reg-name characters without the comma, or an address in brackets; a port of digits. May be
 * empty. */
bool h1_host_ok(struct slice);

/* May be sent as a field's name, or value (no CR, LF, NUL). */
bool h1_name_ok(struct slice);
bool h1_value_ok(struct slice);

/* The same, after line ends have become spaces, as Go does: configurations hold values of several
 * lines. Allocates only if there are any. */
bool h1_value_fit(struct slice *, struct arena *);
