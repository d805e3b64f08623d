/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the fault driver share: one loop that plays the upstreams of a gateway and its
 * clients at once, so that each side can be asked what really happened on the other. A round is one
 * request. All that is done in it follows from the seed and the round's number (its token): what the
 * client sends and whether it leaves, and for each attempt that reaches an upstream the plan of its
 * answer and of its fault. Every byte of every body tells whose it is (body_fill), so that a byte of
 * another round, of another attempt or at another place is seen at once.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ATTEMPTS_MAX = 8, STREAMS_MAX = 8, GROUPS_MAX = 16, PATIENCE_MS = 2000 };
enum { LATE_CHECKS = 500 }; /* of a millisecond each: this machine may have stood still meanwhile */
enum { HEARD_MS = 1000 }; /* what was said at rest has been heard by then, also on a busy machine */

#define NEVER UINT64_MAX
#define MS 1000000ull
#define ALIEN "POISON!"

/* --- chance --- */

struct dice {
    uint64_t state;
};

static inline uint64_t dice_next(struct dice *d) /* splitmix64 */
{
    uint64_t z = d->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline uint32_t dice_below(struct dice *d, uint32_t n)
{
    return n > 0 ? (uint32_t)(dice_next(d) % n) : 0;
}

static inline bool dice_percent(struct dice *d, uint32_t percent)
{
    return dice_below(d, 100) < percent;
}

struct dice dice_of(uint64_t seed, uint64_t a, uint64_t b);
size_t dice_size(struct dice *, size_t max); /* any order of magnitude is as likely */
struct dice dice_of_conn(unsigned group);    /* of the next connection to it */

/* --- bytes --- */

struct bytes {
    char *at;
    size_t len, cap;
};

void bytes_add(struct bytes *, const void *, size_t);
void bytes_drop(struct bytes *, size_t); /* from the front */
__attribute__((format(printf, 2, 3)))
void bytes_print(struct bytes *, const char *format, ...);

/* The bytes of a body from `from` on; `way` is 'D' or 'U'. */
void body_fill(char *out, size_t n, uint32_t token, char way, unsigned attempt, size_t from);

struct tally {
    uint32_t token;
    unsigned attempt;
    size_t got;
    char way;
    bool weak; /* only another's bytes are looked for */
    bool wrong;
    char note[96];
};

void tally_add(struct tally *, const char *bytes, size_t n);

/* --- rounds --- */

enum kind { HTTP1, FASTCGI, HTTP2 };

struct route {
    char name;
    enum kind kind;
    uint8_t group;    /* of ports */
    bool faulty;      /* its upstreams are */
    bool refuses;     /* one of them is not there */
    uint8_t retries;
    bool tunnels;
    bool tls;
    bool checked;     /* its upstreams are asked for their health */
    bool moody;       /* they refuse, say GOAWAY and change their SETTINGS, all by the rules */
};

enum fault {
    FAULT_NONE,
    FAULT_RESET, FAULT_END, FAULT_HANG, /* at byte `at` of the answer */
    FAULT_READ_RESET, FAULT_READ_END, FAULT_READ_HANG, /* at byte `at` of the request's body */
    FAULT_EARLY,   /* the answer does not wait for the body */
    FAULT_LIE,     /* one of `lie` */
    FAULT_FLIP,    /* one bit of the head is another; with TLS, of a record */
    FAULT_SURPLUS, /* an answer that nobody asked for behind it */
    FAULTS,
};

enum framing { BY_LENGTH, BY_CHUNKS, BY_END, WITHOUT };

struct plan {
    enum fault fault;
    enum framing framing;
    int status;
    uint8_t interim, lie, idle; /* idle: what happens to the connection when it rests */
    bool trailers, closes, bodiless;
    bool refuses; /* over HTTP/2: unread, but not for ever */
    bool said; /* with TLS: the end of its connection is */
    size_t size, piece, at, split; /* split: behind the head; SIZE_MAX: nowhere */
    uint32_t pause_ms, wait_ms;
    /* once rendered */
    size_t head_end, needed; /* bytes until the answer is complete */
    bool sent;
};

enum leaving { STAYS, LEAVES_BY_RESET, LEAVES_BY_END };

struct round {
    uint32_t token;
    const struct route *route;
    const char *method; /* of a tunnel: GET */
    bool idempotent, over, chunked_up, is_head, expects, tunnel, h2, weak;
    enum leaving leaving;
    size_t upload, leave_at, piece; /* leave_at: bytes of the answer, or of the request if `leaves_asking` */
    bool leaves_asking, deaf;
    bool heard; /* the end of what goes up a tunnel was, there */
    bool lost;  /* it comes on a connection that the gateway has given up */
    uint32_t pause_ms;
    uint64_t begun_ns, left_ns, half_ns; /* half: one end of its tunnel was said */
    struct round *before; /* on the same connection over HTTP/1 */
    unsigned attempts, faults, acted; /* acted: attempts that an upstream did not refuse unread … */
    unsigned refusals;                /* … and those that it did, by the rules */
    struct plan plans[ATTEMPTS_MAX];
};

/* What a client saw. */
struct seen {
    int status;
    bool has_token, complete, alien;
    uint32_t token;
    unsigned attempt;
    struct tally tally;
};

extern uint64_t fault_seed;
extern uint64_t loop_time; /* of this turn, monotonic ns */
extern uint64_t conn_faults_ns[GROUPS_MAX]; /* by group: when a connection was last ended or spoilt outside of any answer */
extern uint64_t spoilt_ns[GROUPS_MAX]; /* by group: when a resting connection last said what nobody asked for */
extern struct round *rounds;
extern uint32_t rounds_count;
extern unsigned attempts_reused; /* that came on a connection which had been used before */

bool rounds_create(uint32_t count, const char *routes);
bool group_is_faulty(unsigned group);
bool group_is_checked(unsigned group);
bool group_is_moody(unsigned group);
void rounds_print(unsigned violations);
struct round *round_by_token(uint32_t token);
void round_print(const struct round *);
void round_plan(struct round *, uint32_t token);
void round_judge(struct round *, const struct seen *);
void round_begin(struct round *);
void round_leave(struct round *);
void round_half(struct round *);
bool round_is_late(const struct round *); /* so that a timeout is no surprise */

__attribute__((format(printf, 2, 3)))
void violation(const struct round *, const char *format, ...);
void plan_make(struct plan *, const struct round *, unsigned attempt);
bool plan_is_deaf(const struct plan *);

/* --- connections --- */

struct conn {
    struct conn *next, **link;
    int fd;
    bool eof, broken, dead, connecting;
    struct bytes in, out;
    size_t sent;        /* of all that was ever put into out */
    size_t stop_at;     /* of `sent`; SIZE_MAX: nowhere */
    size_t split_at;    /* of `sent`: two calls where that is passed, one right behind the other */
    size_t piece;       /* at once; 0: all … */
    uint64_t hurry_ns;  /* … from then on, on a machine that has much to do */
    uint64_t pause_ns, next_ns, deaf_until_ns;
    uint64_t wake_ns;   /* on_wake; NEVER */
    struct dice luck;   /* an upstream's, of what no plan says */
    uint32_t events;
    struct ssl_st *tls; /* NULL: plain */
    struct bytes wire;  /* with TLS: what leaves of it next … */
    size_t sealed;      /* … the first bytes of out */
    size_t flip_at;     /* of `sent`: a record that holds it is spoilt */
    size_t chop;        /* so many bytes are missing of the record before stop_at */
    size_t wire_sent, cut_at; /* on_cut, then */
    bool two, said, half_due, hung; /* two: HTTP/2; said: the peer's end was; hung: not a byte leaves any more */
    void (*on_cut)(struct conn *);
    void (*on_input)(struct conn *); /* bytes came, or an end */
    void (*on_sent)(struct conn *);  /* out is empty, or stop_at is reached */
    void (*on_wake)(struct conn *);
    void (*on_free)(struct conn *);
};

void conn_start(struct conn *, int fd);
void conn_send(struct conn *, const void *, size_t);
void conn_reset(struct conn *); /* RST; it is freed at the turn's end */
void conn_close(struct conn *); /* with TLS its end is said */
void conn_cut(struct conn *);   /* … and here not */
void conn_half_close(struct conn *);
void conn_update(struct conn *);
unsigned conns_open(void);

/* --- TLS, as a server --- */

void tls_load(const char *pem);        /* chain and key */
void tls_begin(struct conn *, bool two, bool faulty); /* before conn_start */
bool tls_ready(const struct conn *);
void tls_take(struct conn *, const char *bytes, size_t n); /* of the socket: to `in`, eof, broken */
void tls_seal(struct conn *, size_t n); /* of `out`, at most */
void tls_say_end(struct conn *);
void tls_free(struct conn *);

/* --- HTTP/1 messages, as both sides read them --- */

enum h1_state { H1_HEAD, H1_FIXED, H1_CHUNK_SIZE, H1_CHUNK, H1_CHUNK_END, H1_TRAILERS, H1_TO_END, H1_DONE,
                H1_BAD };

struct h1 {
    enum h1_state state;
    char head[20000];
    size_t head_len;
    uint64_t left;
};

/* Takes bytes from the front of `in`: a head alone (then the caller decides by h1_body), body bytes into
 * the tally. Returns whether it went on. */
bool h1_take(struct h1 *, struct bytes *in, struct tally *);
bool h1_field(const struct h1 *, const char *name, char *value, size_t cap);
void h1_body(struct h1 *, bool none, bool to_end);

/* --- HTTP/2 frames --- */

enum { H2_DATA, H2_HEADERS, H2_PRIORITY, H2_RST_STREAM, H2_SETTINGS, H2_PUSH_PROMISE, H2_PING, H2_GOAWAY,
       H2_WINDOW_UPDATE, H2_CONTINUATION };
enum { H2_END_STREAM = 1, H2_ACK = 1, H2_END_HEADERS = 4, H2_FRAME_MAX = 16384, H2_WINDOW = 65535 };

void h2_put_frame(struct conn *, int type, int flags, uint32_t stream, const void *payload, size_t n);
void h2_put_number(struct conn *, int type, uint32_t stream, uint32_t value);
void h2_put_field(struct bytes *, const char *name, const char *value);
uint32_t h2_number(const unsigned char *);

/* --- the two sides --- */
void h2_upstream_begin(int fd, unsigned group, bool tls);
unsigned h2_upstreams_busy(void);
void h2_upstreams_blame(void);
void h2_upstreams_check(void);
struct plan *attempt_make(struct round *, unsigned *attempt); /* NULL: a violation */
void upstream_listen(enum kind, bool tls, unsigned group, uint16_t port);
bool upstreams_known(void); /* those that are asked for their health are known to be well */
void upstreams_check(void);  /* connections whose client has left long ago */
unsigned upstreams_busy(void);
void tunnel_heard(struct round *, size_t got); /* up, and then its end */
void upstreams_blame(void); /* a violation for each of those */
struct bytes plan_render(struct plan *, const struct round *, unsigned attempt);
struct bytes plan_render_fastcgi(struct plan *, const struct round *, unsigned attempt, struct dice *);
struct bytes poison_fastcgi(void);
void plan_add_body(struct bytes *, size_t n, const struct round *, unsigned attempt, size_t from);
void plan_add_chunks(struct bytes *, const struct plan *, const struct round *, unsigned attempt);
void fastcgi_record(struct bytes *, int type, const char *bytes, size_t n, unsigned padding);
void client_begin(uint16_t port, struct round **, unsigned count, struct dice *);
void h2_client_begin(uint16_t port, struct round **, unsigned count, struct dice *);
unsigned clients_open(void);
void clients_count(int step);
int client_connect(uint16_t port);
