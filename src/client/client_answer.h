/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An HTTP/1 answer as it comes on a link: its heads, interim ones included, then its body piece by
 * piece. On a fiber; every call may wait.
 */
#pragma once

#include "base/buffer.h"
#include "http/fields.h"
#include "upstream/link.h"
#include "wire/chunked.h"
#include "wire/h1_head.h"

enum {
    CLIENT_ANSWER_SMALL = 4096, /* what comes at once and is no longer is kept in the arena */
    CLIENT_TRAILERS_MAX = 32,
};

struct fastcgi_answer;
struct h2_call;

struct client_answer {
    struct client_answer *next; /* free ones of this thread */
    struct link *link;
    struct arena *arena;    /* of the head's bytes, of a small body, of trailers */
    uint64_t head_max;
    struct slice in;        /* received, not used yet */
    struct buffer gathered; /* where `in` lies while heads are read, unless in the arena … */
    char *piece;            /* … and while a body is; an iobuf */
    struct chunked chunked;
    uint64_t left;          /* of a body with a length */
    struct fields trailers;
    bool stable;            /* `in` lies in the arena */
    bool done;              /* the body has come to its end */
    bool began;             /* a byte of the answer has come */
    const char *why;        /* a constant phrase behind an error, or NULL */
    struct fastcgi_answer *fastcgi; /* fastcgi_answer.h; with `h2` NULL as well: HTTP/1 */
    struct h2_call *h2;             /* h2_link.h */
    struct h1_head head;
};

/* Recycled by the thread. `head_max`: bytes of one head. */
struct client_answer *client_answer_begin(struct link *, struct arena *, uint64_t head_max);
void client_answer_end(struct client_answer *);

/* The next head; a status below 200 (but 101) is followed by another one. Its fields live in the
 * arena. ERR_INVALID: not HTTP/1 (see `why`); ERR_LIMIT: too large; ERR_CLOSED: the link ended. */
enum err client_read_head(struct client_answer *, bool to_head, uint64_t deadline_ns);

/* The next bytes of the body, valid until the next call; none at its end. With `done` set the end
 * has been seen already. ERR_CLOSED: it ended too early; ERR_INVALID: bad chunks. After ERR_TIMEOUT
 * it may be called again. */
enum err client_read_body(struct client_answer *, uint64_t deadline_ns, struct slice *piece);

/* True when the link may serve another request. */
bool client_answer_reusable(const struct client_answer *);

/* What came behind a 101's head; in no case touched by this room again. */
static inline struct slice client_answer_rest(const struct client_answer *a)
{
    return a->in;
}

void client_thread_deinit(void);
