/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the client's HTTP/2 share: h2_link.c opens and ends connections, h2_pool.c keeps
 * them and those who wait for one, h2_link_input.c does what frames say, h2_link_output.c gathers and
 * sends them, h2_call.c begins and ends calls, h2_call_answer.c is the face of their answers,
 * h2_call_pipe.c that of tunnels.
 *
 * A connection is freed only by h2_link_settle, at the end of a callback of the loop: whatever finds it
 * broken before marks it. A call is freed by the fiber that began it, or by who has kept it as a tunnel
 * (h2_call_outlive), and by nothing else.
 */
#pragma once

#include "base/clock.h"
#include "base/map.h"
#include "client/h2_link.h"
#include "upstream/iobuf.h"
#include "wire/h2_budget.h"
#include "wire/h2_reader.h"

enum {
    H2_LINK_OUT = 64 * 1024 - 64, /* gathered before it is sent */
    H2_LINK_TURN = 256 * 1024,    /* sent before others get their turn */
    H2_LINK_ANSWER = 64,          /* what one frame calls forth at most */
    H2_LINK_TABLE = 64,
    H2_PIECE = IOBUF_SIZE - 16,
};

/* Output that nobody takes: new calls go elsewhere, and what is over ends without having said so. */
#define H2_STALLED_NS (5 * NS_PER_S)

struct h2_bytes { /* frames on their way out */
    struct h2_bytes *next; /* while free */
    size_t cap, at, len;   /* bytes[at … len) */
    struct iovec part;     /* while an operation sends it */
    struct msghdr message;
    char bytes[];
};

/* DATA that nobody has taken yet, in an iobuf. */
struct h2_piece {
    struct h2_piece *next;
    uint32_t at, len;
    char bytes[H2_PIECE];
};

struct h2_group {
    struct slice key;
    struct list links;   /* those that take new calls come first, the oldest before */
    struct list turns;   /* who waits */
    struct list unspoken; /* of those where HTTP/2 is known not to be spoken */
    unsigned holds;      /* links, turns, the dial under way */
    enum h2_known known;
    bool dialing;
    bool large;          /* the last answer was more than H2_CALL_WINDOW, or of unknown length */
    uint32_t told;       /* how many calls a connection may have, as the last one was told; 0: not yet */
};

struct h2_call {
    struct h2_call *next; /* in its bucket, or while free */
    struct h2_link *link;
    uint32_t id;
    struct arena *arena;     /* NULL: that has gone, the call is a tunnel */
    uint64_t born_ns;

    /* the answer */
    struct h2_answer_head *heads, **heads_end;
    struct h2_piece *first, *last;
    struct h2_piece *lent;   /* what the reader has */
    struct slice small;      /* a whole body, in the arena */
    unsigned interims;
    int64_t length;          /* -1: unknown */
    uint64_t seen;
    uint32_t in_window, in_due;
    int64_t in_left;
    struct fields trailers;
    struct waiter in_waiter;
    bool in_waiting, interrupted;
    bool to_head, bodiless, head_came, began, ended;

    /* the request */
    struct list ready;       /* with something to send, and window */
    struct slice source;
    int64_t send_window;
    uint64_t head_at;        /* link->gathered before its head */
    struct waiter out_waiter;
    const struct fields *last_words; /* trailers behind `source`, or NULL */
    bool out_waiting, last_piece, out_ended, head_out;

    bool tunnel, first_of_link;
    enum h2_fate fate;
    const char *why;
    struct stream pipe;
    struct stream_watcher *watcher; /* of that; NULL: none */
    bool awaited;                   /* it waits for bytes */
};

struct h2_link {
    struct list node;  /* of its group */
    struct idle idle;  /* while there are no calls */
    struct list flush; /* until the end of the turn */
    struct h2_group *group;
    struct link *link; /* socket, TLS and what is counted; nobody waits on it */
    struct op read, write;
    struct h2_bytes *out, *sending; /* NULL: nothing */
    uint64_t gathered, taken;       /* bytes ever put into `out`, and of them taken from it */
    struct h2_reader reader;
    struct hpack_decoder decoder;
    struct hpack_encoder encoder;
    struct h2_call *table[H2_LINK_TABLE];
    struct list ready;
    struct h2_link_options options;
    struct h2_budgets budgets;
    uint64_t serial, opened_ns, idle_ns, heard_ns, blocked_ns;
    int64_t send_window;
    uint32_t in_due;
    int64_t in_left;
    int64_t late_left;    /* of DATA that may still come for calls that were reset */
    uint32_t next_id, last_id, calls, cancels; /* last_id: of the last head that was sent */
    uint32_t peer_window, peer_frame_max, peer_calls;
    bool settled;         /* the server's SETTINGS have come */
    bool connect_allowed;
    bool going;           /* no new calls; it ends behind the last one */
    bool paused, said_end, read_ended, rested;
    bool closing;         /* a last GOAWAY is to leave */
    bool dead;
    const char *why;      /* of its end; constant, or why_text */
    char why_text[200];
};

struct h2_thread {
    struct map groups;
    struct list links_flush, unspoken;
    struct task flush;
    struct timer sweep;
    struct h2_call *calls;
    struct h2_bytes *outs;
    char *plain;         /* what TLS has decrypted, until it is dealt with */
    struct arena scrap;
    unsigned calls_free, outs_free, open, unspoken_count;
    uint64_t serial;
    uint32_t window_left; /* of H2_CALLS_WINDOW */
    bool ready, flush_due, draining;
};

struct h2_thread *h2_mine(void);

static inline uint64_t h2_now(void)
{
    return loop_now_ns(loop_self());
}

/* --- h2_pool.c --- */

struct h2_group *h2_group_of(struct slice key);
void h2_group_leave(struct h2_group *);

/* There may be room now: whoever waits looks again. */
void h2_group_wake(struct h2_group *);

/* --- h2_link.c --- */

/* Nothing is sent or read any more; its calls hear it. `why`: constant or in why_text; NULL: EOF. */
void h2_link_die(struct h2_link *, const char *why);

/* GOAWAY with a code, then the end. */
void h2_link_fail(struct h2_link *, enum h2_error, const char *why);
void h2_link_retire(struct h2_link *); /* no new calls */
void h2_link_settle(struct h2_link *); /* may free it */
unsigned h2_link_room(const struct h2_link *); /* for so many new calls */

/* --- h2_link_input.c --- */

void h2_link_feed(struct h2_link *, struct slice bytes);

/* --- h2_link_output.c --- */

char *h2_link_begin_frame(struct h2_link *, enum h2_type, uint8_t flags, uint32_t id, size_t n);
void h2_link_put(struct h2_link *, enum h2_type, uint8_t flags, uint32_t id, struct slice payload);
void h2_link_put_u32(struct h2_link *, enum h2_type, uint32_t id, uint32_t value);

/* Header blocks: room for n bytes; then how many it has become. */
char *h2_link_begin_block(struct h2_link *, size_t n);
void h2_link_end_block(struct h2_link *, uint32_t id, bool ends, char *end);
bool h2_link_fits(struct h2_link *, size_t n); /* a block, without anything being sent before */
bool h2_link_has_room(struct h2_link *); /* for what a frame calls forth */
void h2_link_send(struct h2_link *);
void h2_link_schedule(struct h2_link *);
void h2_link_drop_output(struct h2_link *);
void h2_links_on_flush(struct task *);

/* --- h2_call.c --- */

struct h2_call *h2_call_begin(struct h2_link *, struct arena *);
struct h2_call *h2_call_find(const struct h2_link *, uint32_t id);
void h2_call_on_block(struct h2_link *, uint32_t id, bool ends, struct slice block);
void h2_call_on_data(struct h2_call *, struct slice bytes, bool whole);
void h2_call_on_end(struct h2_call *);
void h2_call_set_fate(struct h2_call *, enum h2_fate, const char *why); /* RST_STREAM is the caller's */
void h2_call_fail(struct h2_call *, enum h2_error, const char *why);
void h2_call_reset(struct h2_call *, enum h2_error); /* says so to the server */
void h2_call_window_grew(struct h2_call *);

/* The window of its answer becomes so large, if enough is left for others then. */
bool h2_call_widen(struct h2_call *, uint32_t to);

/* The client has so many bytes: they no longer count. */
void h2_call_taken(struct h2_call *, uint32_t n);

/* Tells the server what it may send. */
void h2_call_open_window(struct h2_call *);

/* Puts DATA of those that are ready into the output. */
void h2_calls_fill(struct h2_link *);
void h2_call_wake_in(struct h2_call *);
void h2_call_wake_out(struct h2_call *);
