/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections to servers behind this one on which HTTP/2 is spoken. Each carries many calls: a request
 * and its answer, on a stream. They belong to the thread that opened them, and stand in groups by the
 * same keys as links. An idle one has no fiber and no buffer.
 *
 * Who finds no room asks for his turn to dial: one at a time and key, and the others wait for what
 * becomes of it, since most of them will find room there.
 */
#pragma once

#include "client/client_answer.h"
#include "client/h2_heads.h"
#include "upstream/link.h"

struct h2_link;
struct h2_call;

enum {
    H2_CALLS_MAX = 250,             /* at a time and connection, whatever the server allows */
    H2_CALL_WINDOW = 64 << 10,      /* bytes of an answer that nobody has taken yet */
    H2_CALL_WINDOW_LARGE = 128 << 10, /* … where the server's last answer was larger */
    H2_CALL_WINDOW_MAX = 1 << 20,   /* … of one that is taken as fast as it comes */
    H2_CALLS_WINDOW = 32 << 20,     /* what a thread's calls may have beyond the first, together */
    H2_LINK_WINDOW = 16 << 20,      /* on their way: given back as they are read, taken or not */
    H2_LINK_BLOCK_MAX = 64 * 1024,  /* a header block, compressed, if no answer's head may be larger */
    H2_LINK_OUT_MAX = 1 << 20,      /* output that the server does not take */
    H2_CALL_INTERIMS = 17,          /* interim heads of one answer that are kept */
    H2_LINK_CANCELS = 200,          /* calls given up, less those answered: then it gets no new ones */
};

#define H2_SETTINGS_NS (10 * NS_PER_S) /* until the server's SETTINGS must have come */

struct h2_link_options {
    struct link_limits limits;
    uint64_t head_max; /* of an answer, as HTTP/2 counts */
    bool single;       /* a connection serves one call */
};

/* --- connections --- */

/* Speaks HTTP/2 on a link that was just opened, and takes it over. Its first call, which cannot fail. */
struct h2_call *h2_link_begin(struct link *, struct slice key, const struct h2_link_options *,
                              struct arena *);

/* A call on a connection of that key that has room, or NULL; the limits are the connection's from now on.
 * Of those opened after `after` only. `once`: the request could not be sent again, so not on one whose
 * server has ended it though that was not read yet. */
struct h2_call *h2_call_take(struct slice key, const struct link_limits *, uint64_t after, bool once,
                             struct arena *);

/* The number of the connection that was opened last, of all keys. */
uint64_t h2_links_opened(void);

/* --- turns to dial --- */

enum h2_known { H2_UNKNOWN, H2_SPOKEN, H2_NOT_SPOKEN };

struct h2_turn {
    struct list node;
    struct waiter waiter;
    bool failed;    /* the one whose turn it was could not connect; else look again */
    int status;
    char why[400];
};

/* True: nobody dials for that key, nor has just done so, and the caller shall, or it is known that
 * HTTP/2 is not spoken there. After true, and only after a fresh turn, h2_dial_end must follow. */
bool h2_dial_begin(struct slice key, bool *fresh);
void h2_dial_end(struct slice key, enum h2_known, int status, const char *why); /* why: it failed */

/* Waits until there may be room, or the one who dials has failed. */
enum err await_h2_turn(struct slice key, uint64_t deadline_ns, struct h2_turn *);

/* --- calls --- */

enum h2_fate {
    H2_CALL_GOES_ON, /* or has been answered */
    H2_CALL_REFUSED, /* the server has not looked at it: it may be asked elsewhere */
    H2_CALL_RESET,   /* by the server */
    H2_CALL_BROKEN,  /* the server broke the rules, or a limit */
    H2_CALL_LOST,    /* the connection ended */
};

/* Sends the head; `ends`: the request has no body. Does not wait. */
void h2_call_request(struct h2_call *, const struct h2_request_head *, bool ends);

/* The server's word on extended CONNECT (RFC 8441) comes with its SETTINGS, which are waited for. */
enum err await_h2_connect_allowed(struct h2_call *, uint64_t deadline_ns, bool *allowed);

/* All of the body and its trailers, which stay where they are until the call ends. Does not wait. */
void h2_call_put(struct h2_call *, struct slice body, const struct fields *trailers);

/* A piece of the body, as the server's windows allow. ERR_CLOSED: nothing more is taken. After
 * ERR_TIMEOUT, h2_call_give_up. */
enum err await_h2_send(struct h2_call *, struct slice piece, bool last, uint64_t deadline_ns);

/* The end of a body whose last piece was not known to be it. */
void h2_call_put_end(struct h2_call *, const struct fields *trailers);

/* Whoever waits for its answer hears that something went wrong on this side. */
void h2_call_give_up(struct h2_call *, const char *why);
void h2_call_interrupt(struct h2_call *); /* … or shall look at something else: ERR_CANCELLED */

/* Nothing is wanted of it any more: resets the stream if that has not ended. */
void h2_call_end(struct h2_call *);

enum h2_fate h2_call_fate(const struct h2_call *);

/* A sentence behind a fate, or NULL. */
const char *h2_call_why(const struct h2_call *);
bool h2_call_began(const struct h2_call *);  /* a part of the answer has come */
bool h2_call_reused(const struct h2_call *); /* the connection was there before it */
bool h2_call_unsent(const struct h2_call *); /* not a byte of it has left */

/* No new calls on its connection, since it has been silent for as long as this one lasts. */
void h2_call_doubt(struct h2_call *);

/* The stream as a tunnel's bytes, once the server has agreed to one. */
struct stream *h2_call_pipe(struct h2_call *);

/* The arena that it was begun with goes; it is a tunnel until h2_call_end, which may come from anywhere
 * but from within what its watcher is told. */
void h2_call_outlive(struct h2_call *);

/* --- answers, as of client_answer.h --- */

struct client_answer *h2_call_answer(struct h2_call *, struct arena *, uint64_t head_max);
enum err h2_call_read_head(struct client_answer *, bool to_head, uint64_t deadline_ns);
enum err h2_call_read_body(struct client_answer *, uint64_t deadline_ns, struct slice *piece);

/* --- threads --- */

void h2_links_drain(void);

/* At a thread's end; no call may be under way. The one before links_thread_deinit, the other behind. */
void h2_links_close(void);
void h2_links_thread_deinit(void);
unsigned h2_links_open(void);      /* for tests */
