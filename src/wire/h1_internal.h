/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the HTTP/1 driver share: h1_worker.c keeps what connections have in common,
 * h1_conn.c begins, waits and ends, h1_input.c makes heads of bytes, h1_exchange.c serves them,
 * h1_body.c reads a request's body, h1_answer.c writes the response, h1_flush.c sends it later.
 */
#pragma once

#include "base/buffer.h"
#include "base/clock.h"
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
#define LINGER_NS (2 * NS_PER_S)
#define FRESH_NS NS_PER_S     /* what a drain gives a client that has just connected */

/* Read by the control thread, written by this one only. */
#define H1_COUNT(counter, step) __atomic_store_n(&(counter), (counter) + (step), __ATOMIC_RELAXED)

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
    bool closing : 1, lingering : 1;
    bool fresh : 1;             /* has not asked for anything yet */
    bool first : 1;             /* no head of HTTP/1 has been understood yet */
    bool unwatching : 1;        /* the fiber waits for the end of its watch */
    struct sockaddr_in peer_four; /* once it was asked for, of IPv4 */
};

/* What is left of one that has become a tunnel. */
struct h1_taken {
    struct list node;
    struct h1_worker *worker;
    struct h1_site *site;
    struct takeover *holder;
    struct stream stream;
};

/* --- h1_worker.c --- */

/* The memory of an exchange, before there is a fiber and until there is nothing left to do. */
void h1_take_scratch(struct h1_conn *);
void h1_give_scratch(struct h1_worker *, struct h1_scratch *);

/* Closes behind what it is doing. */
bool h1_draining(const struct h1_conn *);

/* Whether a connection that begins now has only a moment: a drain has begun. */
bool h1_site_hurries(const struct h1_worker *, const struct h1_site *);

/* A connection has ended, or one that was counted ended before it began. */
void h1_uncount(struct h1_worker *, struct h1_site *);

/* --- h1_conn.c --- */

/* A connection that is counted already, by h1_conn_open, begins to speak HTTP; `given` and `tls` are
 * its own. Off fibers. */
void h1_conn_begin(struct h1_worker *, struct h1_site *, int fd, struct h1_addresses *given,
                   struct tls_stream *tls);

/* One whose PROXY header has been read: on to TLS, or to HTTP. */
void h1_conn_go_on(struct h1_worker *, struct h1_site *, int fd, struct h1_addresses *given);

/* The wait in hand ends then; 0: never. */
void h1_set_deadline(struct h1_conn *, uint64_t timeout_ns);

/* How long the write in hand may go on waiting: for h1_set_deadline. */
uint64_t h1_write_pause(const struct h1_conn *);

/* Behind an exchange: what comes next is waited for, with a scratch only where some of it is here. */
void h1_go_idle(struct h1_conn *);

/* The struct is freed; its socket has gone elsewhere. */
void h1_free_conn(struct h1_conn *);
void h1_close_now(struct h1_conn *);

/* Closes a connection that has no fiber, behind its operation. */
void h1_close_idle(struct h1_conn *);

/* Told the end, a client may still be sending: a close with unread bytes would reset the connection
 * and could destroy the answer before it is read. So they are taken for a while, without a fiber. */
void h1_begin_linger(struct h1_conn *);
void h1_go_on_lingering(struct h1_conn *, size_t came);

/* --- h1_input.c --- */

void h1_on_bytes(struct op *, int result);

/* What came with the handshake, or behind the last request, off fibers. */
void h1_on_early_bytes(struct h1_conn *, uint64_t timeout_ns);

/* Plaintext from ciphertext that has just come, or from what was there. Not OK: none. */
enum tls_step h1_decrypt(struct h1_conn *, struct slice ciphertext);

/* How long a head may take: read_timeout counts from its first byte, too. */
uint64_t h1_head_timeout(const struct http_server *);

/* The status for the parser's word, with the limits that it does not know; 0: none. */
int h1_refusal_of(const struct h1_conn *, enum h1_result);

/* Without a fiber: sent if the socket takes it at once, which it does but for a hostile peer. */
void h1_refuse(struct h1_conn *, int status);

/* --- h1_exchange.c --- */

void h1_serve_all(void *conn); /* the fiber */
void h1_end_exchange(struct h1_conn *);

/* Moves what was pipelined to the front and looks for the next head in it. */
enum h1_result h1_next_head(struct h1_scratch *);

/* --- h1_flush.c --- */

void h1_defer_flush(struct h1_conn *); /* the fiber ends behind this */
void h1_on_flush(struct task *);

/* --- h1_answer.c, h1_body.c --- */

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
bool h1_may_trail(struct exchange *);
size_t h1_body_ready(struct exchange *);
enum err h1_take_over(struct exchange *, struct stream **, struct slice *already_read);
enum err h1_keep(struct exchange *, struct takeover *, struct slice *already_read);

/* Behind the exchange and its fiber: the holder has what is left, and the connection is freed. */
void h1_leave_to(struct h1_conn *, struct takeover *);

/* The sink at the bottom of every stack. */
extern const struct sink_type h1_sink;

/* Makes of a whole answer that is put off the one message that sends it. */
void h1_gather(struct h1_scratch *);

/* With TLS: that message becomes its ciphertext. False: the stream is broken. */
bool h1_encrypt(struct h1_scratch *);

/* A last word to a client whose request cannot be served; the connection closes behind it. */
void h1_put_refusal(struct buffer *out, int status);
