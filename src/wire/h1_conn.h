/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver of an HTTP/1 connection: waits for bytes without owning a buffer, parses heads, runs
 * one exchange after another on a fiber, writes responses, keeps the connection or closes it.
 */
#pragma once

#include "base/list.h"
#include "http/server.h"
#include "loop/loop.h"

struct h1_conn;

/* What the connections of one worker share. */
struct h1_worker {
    struct loop *loop;
    struct worker *worker;                 /* handed to exchanges */
    struct list conns;
    struct list taken;                     /* those that are tunnels by now */
    struct list stages;                    /* before h1: wire/proxy_stage.c */
    struct list handshakes;                /* likewise: wire/tls_stage.c */
    unsigned handshakes_count, asks_count;
    uint64_t flood_said_ns;                /* when it was last said that there are too many */
    unsigned count, busy;                  /* all; those with an exchange */
    struct h2_worker *h2;                  /* wire/h2_conn.h */
    struct h1_scratch *scratch;            /* recycled memory of exchanges */
    unsigned scratch_free;
    struct list flushes;                   /* scratches whose answer leaves behind their fiber */
    struct task flush;
    bool draining;
    char date[37];                         /* the line of the Date field … */
    int64_t date_s;                        /* … for this second */
    uint64_t requests;                     /* served since the start */
    /* Called when draining and the last connection has ended; may be NULL. */
    void (*on_drained)(struct h1_worker *);
};

/* A server as connections see it: the current generation's, looked up at each request. */
struct h1_site {
    const struct http_server *server; /* whom it belongs to now; for a look within one callback */
    const struct http_server *(*current)(struct h1_site *, struct generation **); /* takes a ref */
    void (*done)(struct h1_site *, struct generation *);                          /* gives it back */
    unsigned protocols;                     /* enum http_protocol: what is spoken at the address */
    const struct tls_server *tls; /* how its connections are encrypted; NULL: they are not */
    unsigned count;                         /* open connections */
    bool draining;                          /* each closes behind the exchange it is in */
    void (*on_empty)(struct h1_site *);     /* draining, and the last one has ended; may be NULL */
};

void h1_worker_init(struct h1_worker *, struct loop *, struct worker *);
void h1_worker_deinit(struct h1_worker *); /* no connection may be left */

/* Takes over an accepted, non-blocking socket. */
void h1_conn_open(struct h1_worker *, struct h1_site *, int fd);

/* Closes idle connections now and each busy one behind its exchange. */
void h1_worker_drain(struct h1_worker *);

/* The same for the connections of one site. */
void h1_site_drain(struct h1_worker *, struct h1_site *);

/* Ends what is left: exchanges are cancelled. */
void h1_worker_abort(struct h1_worker *);
