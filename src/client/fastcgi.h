/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FastCGI 1.0, as a web server speaks it to a responder: records in both directions, the pairs of the
 * environment, and the head of a CGI answer (RFC 3875 §6). Pure: no I/O, no allocation. What comes
 * from the other side is not trusted: the first record that this request cannot have ends it.
 */
#pragma once

#include "http/fields.h"
#include "wire/h1_head.h"

enum fastcgi_type {
    FASTCGI_BEGIN_REQUEST = 1,
    FASTCGI_ABORT_REQUEST,
    FASTCGI_END_REQUEST,
    FASTCGI_PARAMS,
    FASTCGI_STDIN,
    FASTCGI_STDOUT,
    FASTCGI_STDERR,
};

enum {
    FASTCGI_HEAD = 8,           /* bytes of a record's head */
    FASTCGI_BEGIN_SIZE = 16,    /* of the record that begins a request */
    FASTCGI_CONTENT_MAX = 65500,
    FASTCGI_ID = 1,             /* of the request; a connection carries one at a time */
};

/* --- what is sent; all return the place behind what they wrote --- */

/* A record's head; `len` (at most FASTCGI_CONTENT_MAX) bytes must follow, no padding. */
char *fastcgi_record(char *at, enum fastcgi_type, size_t len);

/* The record that begins a request to a responder, which closes the connection at its end unless that
 * shall be kept. */
char *fastcgi_begin(char *at, bool keep);

/* The bytes that the pairs take at most, with their records; ERR_LIMIT: one is larger than a record,
 * and servers want each whole in one. */
enum err fastcgi_params_size(const struct field *pairs, size_t count, size_t *size);

/* The pairs as records, and the empty one that ends them. */
char *fastcgi_params(char *at, const struct field *pairs, size_t count);

/* --- what comes --- */

enum fastcgi_event {
    FASTCGI_MORE, /* all input is consumed; feed the next bytes */
    FASTCGI_OUT,  /* `data` is the application's output */
    FASTCGI_ERR,  /* `data` is for the log */
    FASTCGI_END,  /* the request has ended; nothing is read behind that */
    FASTCGI_BAD,  /* see `why` */
};

struct fastcgi_reader {
    unsigned char head[FASTCGI_HEAD], end[8];
    uint8_t head_len, end_len;
    uint8_t padding;         /* left of this record's */
    uint16_t left;           /* … and of its content */
    uint8_t protocol_status; /* behind FASTCGI_END; 0: the request was complete */
    uint32_t app_status;
    const char *why;         /* a constant phrase */
};

/* Takes the next event out of `*in`, advancing it; the reader begins zeroed. */
enum fastcgi_event fastcgi_next(struct fastcgi_reader *, struct slice *in, struct slice *data);

/* The head of an answer: its fields, and the status of the field Status (200 without it). Lines may
 * end in a bare LF. As h1_parse_response else, with a status of at least 200; body and content_length say
 * what the fields announce. H1_BODY_CLOSE: until the request's end. */
enum h1_result fastcgi_parse_head(struct h1_head *, struct slice in, bool to_head, size_t *used);
