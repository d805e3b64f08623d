/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS messages (RFC 1035 §4), as far as the search for a zone and for a record needs them: one
 * question, and the answers of the kinds below. Pure.
 */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"

enum dns_type { DNS_NS = 2, DNS_CNAME = 5, DNS_SOA = 6, DNS_TXT = 16 };
enum { DNS_NO_ERROR = 0, DNS_SERVFAIL = 2, DNS_NXDOMAIN = 3 };
enum { DNS_RECORDS_MAX = 64, DNS_NAME_MAX = 255, DNS_MESSAGE_MAX = 64 << 10 };

struct dns_seen {
    struct slice owner;  /* lower case, ends with a dot */
    enum dns_type type;
    struct slice data;   /* NS, CNAME, SOA (primary server): a name likewise; TXT: its strings, joined */
};

struct dns_reply {
    unsigned code; /* DNS_NO_ERROR … */
    bool truncated;
    struct dns_seen records[DNS_RECORDS_MAX]; /* of the answer section, these types only */
    size_t count;
};

/* A question with recursion wanted and EDNS. ERR_INVALID: not a name. */
enum err dns_question_put(struct buffer *, uint16_t id, struct slice name, enum dns_type);

/* ERR_INVALID: not a reply to that question. */
enum err dns_reply_read(struct slice, uint16_t id, struct slice name, enum dns_type, struct arena *,
                        struct dns_reply *);

/* Lower case, with the final dot. */
struct slice dns_name_normal(struct slice, struct arena *);
