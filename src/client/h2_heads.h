/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Header blocks as a client of HTTP/2 writes and reads them (RFC 9113 §8): a request's, and those of
 * answers, interim ones and trailers included. Pure. A block is always read to its end, whatever is
 * wrong with its message, so that the connection's table stays what the peer believes it to be.
 */
#pragma once

#include "http/fields.h"
#include "wire/h1_head.h"
#include "wire/h2_message.h"

enum { H2_ANSWER_TRAILERS_MAX = 32 };

struct h2_request_head {
    struct slice method, scheme, authority, path; /* of CONNECT alone: method and authority */
    struct slice protocol;     /* of an extended CONNECT (RFC 8441), else empty */
    const struct fields *fields;
    int64_t length;            /* Content-Length; -1: none */
};

/* What a block takes at most. */
size_t h2_request_room(const struct h2_request_head *);

/* Writes a whole block, where there is that much room; returns the place behind it. Names become
 * small; Host, what belongs to connections (RFC 9113 §8.2.2), and what no field may hold is left out. */
char *h2_request_put(struct hpack_encoder *, char *at, const struct h2_request_head *);

/* One head of an answer; its memory is the arena's. */
struct h2_answer_head {
    struct h2_answer_head *next;
    int status;
    int64_t length;          /* Content-Length; -1: none */
    bool ends;               /* nothing follows */
    unsigned count;
    struct h1_field *fields; /* names as HTTP/1 usually writes them */
};

/* H2_VERDICT_OK fills *out. MALFORMED, TOO_LARGE and BROKEN come with a constant sentence. */
enum h2_verdict h2_answer_decode(struct hpack_decoder *, const struct h2_block *,
                                 struct h2_answer_head **out, const char **why);

/* Adds what may be a trailer, at most H2_ANSWER_TRAILERS_MAX. */
enum h2_verdict h2_answer_trailers(struct hpack_decoder *, const struct h2_block *, struct fields *,
                                   const char **why);
