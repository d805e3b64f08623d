/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the HTTP/2 driver share: h2_conn.c opens, waits, drains and closes, h2_reader.c
 * takes frames apart, h2_input.c does what they say, h2_stream.c begins and ends exchanges, h2_body.c
 * reads requests' bodies, h2_answer.c writes responses, h2_turns.c takes from bodies, h2_output.c
 * gathers and sends frames, h2_budget.c counts what a hostile peer repeats.
 *
 * A connection is freed only by h2_settle, at the end of a callback of the loop: whatever finds it
 * broken before marks it, and goes on with an object that is still there.
 */
#pragma once

#include "base/buffer.h"
#include "http/exchange.h"
#include "loop/await.h"
#include "tls/stream.h"
#include "wire/h2_budget.h"
#include "wire/h2_conn.h"
#include "wire/h2_message.h"
#include "wire/h2_reader.h"
#include "wire/hpack.h"
#include "wire/peer_text.h"
#include "wire/serve.h"

enum {
    H2_STREAMS_MAX = 250,          /* at a time and connection; what Go's servers allow, too */
    H2_STREAM_WINDOW = 65535,      /* what a client may send of a body that nobody reads yet */
    H2_STREAM_WINDOW_MAX = 1 << 20, /* … of one that is read as fast as it comes */
    H2_CONN_WINDOW = 1 << 20,      /* of all bodies together: the memory they can hold */
    H2_BODIES_MAX = 128 << 20,     /* by which a worker's connections may have more than 64 KiB of it */
    H2_BLOCK_MAX = 64 * 1024,      /* of a header block, compressed, if no head may be half as large */
    H2_OUT_SIZE = 64 * 1024 - 64,  /* what is gathered before it is sent */
    H2_OUT_RESERVE = 6 * 1024,     /* … of which streams leave so much to control frames */
    H2_ANSWER_MAX = 64,            /* of them, what one frame of the client calls forth at most */
    H2_COPY_MAX = 16 * 1024,       /* bytes of a body that are put into a frame at once */
    H2_TURN_MAX = 256 * 1024,      /* bytes that one connection sends before others get their turn */
    H2_TABLE = 64,
    H2_URGENCIES = 8,
    H2_URGENCY_DEFAULT = 3,
    H2_EARLY_KEPT = 32,            /* PRIORITY_UPDATE of streams that are not open yet */
    H2_CLOSED_KEPT = 32,           /* numbers of streams that ended last */
};

struct h2_out { /* frames on their way out */
    struct h2_out *next; /* while free */
    uint32_t at, len;    /* bytes[at … len) */
    struct iovec part;   /* while an operation sends it */
    struct msghdr message;
    char bytes[H2_OUT_SIZE];
};

enum { H2_FLIGHT_PARTS = 17 };

/* What one send in clear text takes: of what is gathered, and of bodies where they lie. */
struct h2_flight {
    struct iovec parts[H2_FLIGHT_PARTS];
    unsigned count;
    uint32_t from;   /* of what is gathered: not in a part yet */
    size_t borrowed; /* bytes of bodies in them */
};

/* What a stream sends next. */
struct h2_source {
    const char *bytes; /* NULL: of the file */
    int file;
    uint64_t offset;
    uint64_t left;     /* 0: nothing to send */
    bool last;         /* the stream ends behind it */
    bool failed;       /* the file was shorter */
};

struct h2_stream {
    struct h2_stream *next; /* in its bucket, or while free */
    struct h2_conn *conn;
    struct fiber *fiber;    /* that serves */
    uint32_t id;
    int64_t send_window;    /* may be below 0 after SETTINGS */
    struct arena arena;
    struct exchange x;
    struct sink sink;

    /* incoming */
    struct buffer in;       /* in.ptr[in_at … in.len): DATA that nobody has read yet */
    size_t in_at;
    int64_t in_length;      /* content-length; -1: none */
    uint64_t in_seen;       /* bytes of the body that have come */
    uint32_t in_window;     /* what the peer may have under way at most */
    int64_t in_left;        /* … and what is left of it */
    uint32_t in_due;        /* read, and not given back yet */
    struct waiter in_waiter;
    bool in_ended, in_waiting, in_touched, expect_continue;
    struct fields trailers;
    bool has_trailers;

    /* outgoing */
    struct list ready;      /* with something to send and window: of its urgency */
    struct list room;       /* waits for room in the output */
    struct h2_source source;
    struct slice pending;   /* stable bytes that wait for the end */
    struct waiter out_waiter;
    bool out_waiting;
    uint8_t urgency;
    bool incremental;
    uint32_t mark_epoch, mark_at; /* the stream's last frame, where it has not left yet */

    uint64_t hard_write_ns, hard_read_ns; /* 0: none */
    struct pace reading, writing;
    bool head_out, out_ended; /* frames have been made */
    bool reset;             /* RST_STREAM went or came, or the connection broke: nothing is sent */
    bool watched;
    bool taken_over;        /* it is a tunnel: bytes, without deadlines of its own */
    struct stream pipe;
    struct stream_watcher *watcher; /* of a tunnel that goes on without a fiber; NULL: none */
    bool awaited;                   /* it wants to be told of bytes */
    char remote_text[ADDRESS_TEXT], local_text[ADDRESS_TEXT];
    char remote_port[8], local_port[8];
};

/* What a connection owns only while it has streams. */
struct h2_busy {
    struct h2_busy *next; /* while free */
    struct h2_stream *table[H2_TABLE];
    struct list ready[H2_URGENCIES];
    struct list room;
    unsigned ready_count;
};

enum { H2_PLAIN_SIZE = TLS_RECORD_MAX };

enum h2_goaway { H2_STAYS, H2_WARNED, H2_GOES };

struct h2_conn {
    struct list node;
    struct op read, write;
    struct timer timer;
    struct list flush;      /* of the worker, until the end of the turn */
    struct h1_worker *worker;
    struct h2_worker *shared;
    struct h1_site *site;
    struct h1_addresses *given;
    struct h2_busy *busy;   /* NULL: no stream */
    struct h2_out *out;     /* NULL: nothing gathered */
    struct h2_out *sending; /* what the socket did not take */
    struct h2_reader reader;
    struct hpack_decoder decoder;
    struct hpack_encoder encoder;
    uint64_t quiet_by, write_by, head_by; /* 0: none */
    int64_t send_window;
    uint32_t in_window;     /* what of bodies the connection may hold: under way, or not read yet */
    int64_t in_left;        /* what the peer may send of DATA */
    uint32_t in_due;        /* … and what may be given back to it */
    uint32_t last_id;       /* highest that the client has opened */
    uint32_t peer_window;   /* a new stream's send_window */
    uint32_t peer_frame_max;
    uint32_t epoch;         /* of `out`: counts what has left */
    uint16_t streams;
    struct h2_budgets budgets;
    uint32_t *closed;       /* streams that ended last: the number × 2, + 1 if it was reset; or NULL */
    struct h2_early *early; /* H2_EARLY_KEPT, or NULL */
    uint8_t closed_at, early_at;
    uint8_t preface_at;     /* bytes of it that have come */
    uint8_t goaway;
    int unsent;             /* in the kernel's buffer when a write last waited in vain */
    uint32_t linger_left;
    struct sockaddr_in peer_four;
    int fd;
    struct tls_stream *tls; /* NULL: clear text */
    bool said_end;          /* close_notify */
    bool paused;            /* nothing is read until more has been sent */
    bool dead;              /* nothing is sent or read any more */
    bool closing;           /* a last GOAWAY is to leave, then it ends */
    bool lingering;
    bool read_ended;
    bool rested;            /* memory that only requests need has been given back */
};

struct h2_worker {
    struct h1_worker *worker;
    struct list conns, flushes;
    struct task flush;
    bool flush_due;
    struct h2_stream *streams; /* recycled */
    struct h2_out *outs;
    struct h2_busy *busies;
    unsigned streams_free, outs_free, busies_free;
    uint32_t bodies_left;      /* of H2_BODIES_MAX */
    struct h2_date date;
    char *plain;        /* what TLS has decrypted, until it is dealt with; NULL before the first */
    struct arena scrap; /* of header blocks that nobody wants */
};

static inline struct h2_stream *h2_of(struct exchange *x)
{
    return CONTAINER_OF(x, struct h2_stream, x);
}

/* --- h2_conn.c --- */

extern const char h2_preface[H2_PREFACE_LEN + 1];

/* The connection cannot go on: its streams hear it. `why` is for the log, NULL for none. */
void h2_die(struct h2_conn *, const char *why);

/* GOAWAY with a code, then the end. */
void h2_fail(struct h2_conn *, enum h2_error, const char *why);

/* A limit was reached: the same, said louder. */
void h2_calm(struct h2_conn *, const char *limit);

/* What is due behind a callback of the loop; may free the connection. */
void h2_settle(struct h2_conn *);

bool h2_draining(const struct h2_conn *);
void h2_begin_goaway(struct h2_conn *);
void h2_end_goaway(struct h2_conn *); /* the client has heard the warning */
void h2_hurry(struct h2_conn *);      /* the timer looks at the deadlines again */

/* --- h2_input.c --- */

/* Deals with bytes from the client; keeps what it cannot deal with yet. */
void h2_feed(struct h2_conn *, struct slice bytes);

/* The payload of SETTINGS. */
void h2_apply_settings(struct h2_conn *, struct slice payload);

/* --- h2_upgrade.c --- */

void h2_fill_upgraded(struct h2_stream *, const struct h1_head *);

/* --- h2_stream.c --- */

/* Stream 1, of an upgrade. */
void h2_open_upgraded(struct h2_conn *, const struct h1_head *);

struct h2_stream *h2_find(const struct h2_conn *, uint32_t id);
void h2_on_block(struct h2_conn *, uint32_t id, bool ends, struct slice block);
bool h2_was_reset(const struct h2_conn *, uint32_t id);
bool h2_was_closed(const struct h2_conn *, uint32_t id);
void h2_free_streams(struct h2_worker *);

/* Nothing is sent on it any more; who waits hears it. RST_STREAM is the caller's. */
void h2_stream_reset(struct h2_stream *);

/* Behind its last fiber: it is over for the client, too. */
void h2_stream_end(struct h2_stream *);

/* Resets it with a code. */
void h2_stream_fail(struct h2_stream *, enum h2_error);

void h2_set_priority(struct h2_stream *, struct slice value);

/* --- h2_early.c --- */

/* The value of a PRIORITY_UPDATE for a stream that is not open yet. */
void h2_keep_priority(struct h2_conn *, uint32_t id, struct slice value);

/* The stream opens, and gets what was kept for it. */
void h2_use_priority(struct h2_stream *);

/* --- h2_body.c --- */

extern const struct carrier_type h2_carrier;
void h2_on_data(struct h2_stream *, struct slice bytes);
void h2_on_input_end(struct h2_stream *);

/* So many bytes of DATA are dealt with: the peer may send more. */
void h2_give_back(struct h2_conn *, uint32_t n);

/* The connection may hold more of bodies by `n` bytes, or what of that there is to be had. */
void h2_widen(struct h2_conn *, uint32_t n);

/* DATA has come: the window is widened, or opened again, before it is used up. */
void h2_tend_window(struct h2_conn *);

uint64_t h2_write_deadline(struct h2_stream *);

static inline bool h2_has_data(const struct h2_stream *s)
{
    return s->in_at < s->in.len;
}

/* Waits for DATA, or the end, or less: look again. */
enum err h2_await_data(struct h2_stream *, uint64_t deadline_ns);

/* What such a wait begins with: the client may send. */
void h2_want_data(struct h2_stream *);

/* Some of what is there. */
size_t h2_take_data(struct h2_stream *, char *buf, size_t cap);

/* --- h2_tunnel.c --- */

enum err h2_take_over(struct exchange *, struct stream **, struct slice *already_read);
enum err h2_keep(struct exchange *, struct takeover *, struct slice *already_read);

/* Bytes or the end have come, for who waits without a fiber. */
void h2_wake_watcher(struct h2_stream *);

/* --- h2_answer.c --- */

extern const struct sink_type h2_sink;

/* Sends all of it; may wait. `last`: the stream ends behind it. */
enum err h2_send_bytes(struct h2_stream *, struct slice, bool last);

/* An answer without a handler: a status and its words. */
void h2_answer_alone(struct h2_conn *, uint32_t id, int status);

/* --- h2_output.c --- */

/* Room for n bytes at the end of what is gathered, which may come from the reserve; NULL: none. */
char *h2_room(struct h2_conn *, size_t n);

/* Room that streams may use: what is gathered is sent if that helps. May not wait. */
bool h2_make_room(struct h2_conn *, size_t n);

/* The same for a fiber, which waits for it. */
enum err h2_await_room(struct h2_stream *, size_t n);

static inline size_t h2_room_left(const struct h2_conn *c)
{
    return c->out != NULL ? H2_OUT_SIZE - c->out->len : H2_OUT_SIZE;
}

/* A wait of the fiber that answers: until told, or its time is up without anything having moved. */
enum err h2_await_out(struct h2_stream *);
void h2_wake_out(struct h2_stream *);

/* Control frames; false: no room, the connection is dead. */
bool h2_put_reset(struct h2_conn *, uint32_t id, enum h2_error);
bool h2_put_window(struct h2_conn *, uint32_t id, uint32_t n);
bool h2_put_goaway(struct h2_conn *, uint32_t last, enum h2_error);
bool h2_put_frame(struct h2_conn *, enum h2_type, uint8_t flags, uint32_t id, struct slice payload);

/* Begins a frame of n bytes of payload whose room is there; where the payload goes. */
char *h2_begin_frame(struct h2_conn *, enum h2_type, uint8_t flags, uint32_t id, size_t n);

void h2_send(struct h2_conn *);     /* what can be sent now */
void h2_schedule(struct h2_conn *); /* … at the end of the turn */
void h2_on_flush(struct task *);
void h2_drop_output(struct h2_conn *);
void h2_free_outs(struct h2_worker *);

/* --- h2_turns.c --- */

/* Puts DATA into the output if window and room are there. */
bool h2_put_data(struct h2_stream *, struct slice bytes, bool last);

/* Sends the stream's source to its end; waits. */
enum err h2_send_source(struct h2_stream *);

/* The stream's last frame gets END_STREAM, or an empty one follows. */
enum err h2_put_end(struct h2_stream *);

void h2_unschedule(struct h2_stream *);
void h2_window_grew(struct h2_stream *);

/* Puts DATA of the streams that wait into what is gathered, as long as there is window and room; with a
 * flight, which begins empty, lends it what is large. */
void h2_fill(struct h2_conn *, struct h2_flight *);

/* What is gathered and not in the flight yet joins it. */
void h2_flight_close(struct h2_flight *, const struct h2_out *);
