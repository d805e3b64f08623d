/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links: connections to servers behind this one, kept open between uses by the thread that opened
 * them. What is spoken on them is the user's matter: HTTP, FastCGI or bare bytes; with TLS below it
 * or not, which changes nothing for who reads by await_link and writes by stream_send (tls/stream.h).
 */
#pragma once

#include "loop/fiber.h"
#include "loop/loop.h"
#include "tls/stream.h"
#include "tls/trust.h"
#include "upstream/endpoint.h"
#include "upstream/idle.h"

struct link_group;
struct link_wait;

struct link {
    struct list node; /* of its group's idle ones, the latest first */
    struct idle all;
    struct op op;     /* the one read; armed while idle and while waited for */
    struct link_group *group;
    struct endpoint *endpoint;
    struct link_wait *wait; /* the fiber that waits for bytes, or NULL */
    struct slice early;     /* bytes that came while nobody waited; in stash */
    char *stash;
    uint64_t idle_ns;       /* since when */
    int end;                /* 1: open; else what the last read gave: 0 or a negative errno */
    struct stream stream;
    bool idle, reused, closing;
    bool filled; /* the last read may have left something in the kernel */
};

struct link_limits {
    uint32_t idle_per_group; /* kept for longer than a second */
    uint32_t idle_in_all;    /* of this thread, of all that are of the same … (0: without limit) */
    uint64_t idle_of;        /* … idle_name */
    uint64_t idle_timeout_ns;
    uint32_t links; /* open ones of one endpoint, of all threads together; 0: no limit */
};

/* The group of a key is the links that may stand for one another: same address, same transport.
 * The most recently used idle link, or NULL. */
struct link *link_take(struct slice key);

/* Takes over a connected socket, within what link_reserve counted. */
struct link *link_open(struct slice key, struct endpoint *, int fd);

/* The handshake of a link that was just opened; `name` as of tls_client_begin. ERR_DENIED with a
 * sentence: the server could not show who it is, or the two do not agree; else as await_link. */
enum err await_link_tls(struct link *, struct tls_client *, struct slice name, uint64_t deadline_ns,
                        char *why, size_t cap);

/* Room for one more link of the endpoint: counts it. False when the limit is reached. */
bool link_reserve(struct endpoint *, const struct link_limits *);
void link_unreserve(struct endpoint *);

/* Waits a moment for room, or for an idle link of the key, which *taken is then. */
enum err await_link_room(struct slice key, struct endpoint *, const struct link_limits *,
                         struct link **taken);

/* Nothing is under way on it any more: idle from now on, and closed as soon as its peer closes it
 * or sends anything. */
void link_give(struct link *, const struct link_limits *);
void link_close(struct link *);

/* No link any more, and of no group: its socket goes on, as one that is counted, until link_end. What has
 * come is read, and nothing waits. */
struct stream link_leave(struct link *);
void link_end(struct stream *, struct endpoint *);

/* The same in the middle of a request: what the peer has not taken is dropped, and it is told at once. */
void link_abort(struct link *);

/* The next bytes, valid until the fiber's next wait; at most LENT_SIZE. The end of the stream is
 * ERR_CLOSED, with link->end 0; an end of a TLS stream that was not said has a negative one. After
 * ERR_TIMEOUT, and only then, the link goes on and may be waited for again. */
enum err await_link(struct link *, uint64_t deadline_ns, struct slice *bytes);

/* The same straight into a buffer, for who expects many. */
enum err await_link_into(struct link *, char *buf, size_t cap, uint64_t deadline_ns, size_t *n);

/* Why a TLS link broke; false when it has no TLS. */
bool link_tls_why(const struct link *, char *out, size_t cap);

/* True when bytes or the end have come that nobody has taken yet. */
static inline bool link_has_news(const struct link *l)
{
    return l->early.len > 0 || l->end <= 0;
}

/* This thread's: idle links are closed, and those that are given back later. */
void links_drain(void);

/* At a thread's end, before its loop settles; none may be in use. */
void links_thread_deinit(void);

/* Those of a key that this thread has, idle or in use. */
unsigned links_of(struct slice key);

/* For tests: idle links of this thread. */
unsigned links_idle(void);
