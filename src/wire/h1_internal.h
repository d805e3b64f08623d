/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the three files of the HTTP/1 driver share: h1_conn.c waits, parses and serves, h1_body.c
 * reads a request's body, h1_answer.c writes the response.
 */
#pragma once

#include "base/buffer.h"
#include "tls/stream.h"
#include "wire/peer_text.h"
#include "wire/chunked.h"
#include "wire/h1_conn.h"
#include "wire/h1_head.h"
#include "wire/serve.h"

enum {
    BODY_ROOM = 16384,        /* of the input buffer, behind the largest head */
    RESPONSE_HEAD_MAX = 65536,
    DISCARD_MAX = 256 * 1024, /* of a body that nobody read */
};

struct h1_scratch {
    struct h1_scratch *next;
    struct h1_conn *conn;
    char *in;            /* in[0 … head_len): the head; in[at … len): not yet used */
    size_t in_cap, head_len, at, len;
    uint64_t begun_ns;   /* when the first byte of the head in hand was seen */
    struct buffer out;   /* the response's head, and chunk lines */
    struct slice pending; /* stable body bytes that wait for the end */
    struct arena arena;
    struct exchange x;
    struct sink sink;
    struct chunked chunked;
    uint64_t body_left;  /* of a body with a length */
    uint64_t hard_write_ns, hard_read_ns; /* 0: none */
    struct pace reading, writing;
    uint64_t turn_bytes; /* sent since the connection last let others have a turn */
    int unsent;          /* in the kernel's buffer when a write last waited in vain */
    enum h1_body framing;
    bool chunked_out, body_done, expect_continue, wire_broken, out_ended, taken_over;
    bool deferred;       /* the whole answer is gathered; the fiber has ended */
    struct list flush;
    struct msghdr flush_message;
    struct iovec flush_parts[2];
    struct fields trailers;
    bool has_trailers;
    char remote_text[ADDRESS_TEXT], local_text[ADDRESS_TEXT];
    char remote_port[8], local_port[8];
    struct h1_head head;
};

/* Whose a connection is where a PROXY header said so. */
struct h1_addresses {
    struct sockaddr_storage remote, local;
};

struct h1_conn {
    struct list node;
    struct op op;
    struct timer timer;
    struct h1_worker *worker;
    struct h1_site *site;
    struct h1_scratch *scratch; /* NULL: idle */
    struct fiber *fiber;        /* the one that serves, or NULL */
    struct h1_addresses *given; /* NULL: the socket's own */
    uint64_t deadline_ns;       /* when the wait in hand ends; the timer may fire before and looks */
    struct stream stream;
    uint32_t linger_left;       /* bytes that are still taken after the last answer */
    bool closing, lingering;
    bool fresh;                 /* has not asked for anything yet */
    bool first;                 /* no head of HTTP/1 has been understood yet */
    bool unwatching;            /* the fiber waits for the end of its watch */
    struct sockaddr_in peer_four; /* once it was asked for, of IPv4 */
};

/* A connection that is counted already, by h1_conn_open, begins to speak HTTP; `given` and `tls` are
 * its own. Off fibers. */
void h1_conn_begin(struct h1_worker *, struct h1_site *, int fd, struct h1_addresses *given,
                   struct tls_stream *tls);

/* One whose PROXY header has been read: on to TLS, or to HTTP. */
void h1_conn_go_on(struct h1_worker *, struct h1_site *, int fd, struct h1_addresses *given);

/* Whether a connection that begins now has only a moment: a drain has begun. */
bool h1_site_hurries(const struct h1_worker *, const struct h1_site *);

/* One that was counted ended before it began. */
void h1_uncount(struct h1_worker *, struct h1_site *);

/* The wire is of no use any more: nothing else is sent, the connection closes. Returns `e`. */
enum err h1_broken(struct h1_scratch *, enum err e);

/* When the next wait of that direction must have moved something; 0: never. */
uint64_t h1_read_deadline(struct h1_scratch *);
uint64_t h1_write_deadline(struct h1_scratch *);

/* Whether a write that failed with `e` may be tried again: the time was up, but the peer is taking. */
bool h1_still_takes(struct h1_scratch *, enum err e);
void h1_wrote(struct h1_scratch *, uint64_t n);

/* The request's body: of a carrier. */
enum err h1_read_body(struct exchange *, char *buf, size_t cap, size_t *n);
const struct fields *h1_trailers(struct exchange *);
size_t h1_body_ready(struct exchange *);
enum err h1_take_over(struct exchange *, struct stream **, struct slice *already_read);

/* The sink at the bottom of every stack. */
extern const struct sink_type h1_sink;

/* Makes of a whole answer that is put off the one message that sends it. */
void h1_gather(struct h1_scratch *);

/* With TLS: that message becomes its ciphertext. False: the stream is broken. */
bool h1_encrypt(struct h1_scratch *);

/* Closes behind what it is doing. */
bool h1_draining(const struct h1_conn *);

/* A last word to a client whose request cannot be served; the connection closes behind it. */
void h1_put_refusal(struct buffer *out, int status);
