/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fields of HTTP/2 mean (RFC 9113 §8): header blocks to requests and trailers, responses
 * and trailers to header blocks. Pure. A block is always read to its end, whatever is wrong with
 * its message, so that the connection's table stays what the peer believes it to be.
 */
#pragma once

#include "http/server.h"
#include "wire/hpack.h"

enum h2_verdict {
    H2_VERDICT_OK,
    H2_VERDICT_MALFORMED, /* a stream error, PROTOCOL_ERROR (RFC 9113 §8.1.1) */
    H2_VERDICT_TOO_LARGE, /* more than list_max bytes, or H1_FIELDS_MAX fields: 431 */
    H2_VERDICT_EXPECTS,   /* an expectation other than 100-continue: 417 */
    H2_VERDICT_BROKEN,    /* a connection error, COMPRESSION_ERROR */
};

/* RFC 9113 §8.2.2: it is about a connection of HTTP/1. (TE may say "trailers" in a request.) */
static inline bool h2_of_connection(enum hpack_name id)
{
    switch (id) {
    case NAME_CONNECTION:
    case NAME_KEEP_ALIVE:
    case NAME_PROXY_CONNECTION:
    case NAME_TE:
    case NAME_TRANSFER_ENCODING:
    case NAME_UPGRADE:
        return true;
    default:
        return false;
    }
}

/* Of fields that are handed on: what HTTP/2 has no place for, or the wire writes itself. */
static inline bool h2_left_out(enum hpack_name id)
{
    bool pseudo = id == NAME_PROTOCOL || (id != NAME_OTHER && id <= NAME_STATUS);
    return pseudo || id == NAME_CONTENT_LENGTH || h2_of_connection(id);
}

/* What the connection knows of a block. */
struct h2_block {
    struct slice bytes;   /* of HEADERS and its CONTINUATIONs, without padding and priority */
    struct arena *arena;  /* of the exchange: where text goes */
    uint32_t list_max;    /* our SETTINGS_MAX_HEADER_LIST_SIZE */
    bool ends;            /* END_STREAM: nothing follows */
    bool tls;
    bool connect_allowed; /* SETTINGS_ENABLE_CONNECT_PROTOCOL was ours (RFC 8441) */
};

/* What a request says beside struct request. */
struct h2_head {
    struct slice protocol;  /* :protocol of an extended CONNECT, else empty */
    struct slice priority;  /* for h2_priority_parse; no pointer: there was no such field */
    int64_t length;         /* Content-Length, to which DATA must sum up; -1: none */
    bool expect_continue, expects_else;
    const char *bad;        /* why H2_VERDICT_MALFORMED or H2_VERDICT_BROKEN: a constant sentence */
};

/* Fills a zeroed request. Host must say the same as :authority or stand in for it; no field Host is
 * left. Cookies are joined. Names that are known read as in HTTP/1 ("User-Agent"), since some that
 * they are handed on to care. The scheme is the connection's. After any other verdict than
 * H2_VERDICT_OK it holds what was understood, for the log. */
enum h2_verdict h2_request_decode(struct hpack_decoder *, const struct h2_block *,
                                  const struct http_server *, struct request *, struct h2_head *);

/* Adds those that may be trailers. */
enum h2_verdict h2_trailers_decode(struct hpack_decoder *, const struct h2_block *,
                                   const struct http_server *, struct fields *,
                                   const char **bad);

/* For a block that nobody wants: of a stream that is refused or closed. False: H2_VERDICT_BROKEN. */
bool h2_block_skip(struct hpack_decoder *, struct slice bytes, struct arena *, const char **bad);

/* The Date field of this second, encoded: kept by a worker. Begin with second -1. */
struct h2_date {
    int64_t second;
    uint32_t len;
    char bytes[40];
};

/* What one of the blocks below takes at most. */
size_t h2_block_room(const struct fields *);

/* Write a whole block each, where there is so much room; return the place behind it. Names become
 * small; what belongs to connections (RFC 9113 §8.2.2) and what no field may hold is left out. */
char *h2_response_put(struct hpack_encoder *, char *at, const struct response *, struct h2_date *,
                      int64_t now_s);
char *h2_inform_put(struct hpack_encoder *, char *at, int status, const struct fields *);
char *h2_trailers_put(struct hpack_encoder *, char *at, const struct fields *);

/* RFC 9218 §4, "u=1, i": urgency from 0, the most urgent, to 7. Changes what the value says; all else
 * stays, and both when it is malformed. Without any: 3 and false. */
void h2_priority_parse(struct slice value, uint8_t *urgency, bool *incremental);
