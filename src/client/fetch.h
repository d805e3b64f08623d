/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request of our own and its whole answer: for certificate authorities, DNS providers, OCSP,
 * permission questions, health checks. On a fiber; may wait. Connections are kept for some seconds
 * by the thread that opened them.
 */
#pragma once

#include "http/fields.h"
#include "tls/trust.h"

enum { FETCH_ANSWER_MAX = 4 << 20 };

struct forward_proxy;
struct link;

/* A link that somebody else opens, all that is below HTTP included. */
struct fetch_opening {
    bool fresh; /* no kept one */
    uint64_t deadline_ns;
    struct link *link;
    const struct forward_proxy *proxy; /* it leads to one that is asked by the whole URL; NULL: none */
    const char *why; /* a sentence, on failure; in the arena or constant */
};

struct fetch_request {
    struct slice method;  /* empty: GET */
    struct slice url;     /* http:// or https:// */
    const struct field *fields; /* besides Host, User-Agent, Content-Length; the caller's override */
    size_t fields_count;
    struct slice body;
    uint64_t timeout_ns;  /* of all of it; 0: 30 s */
    size_t answer_max;    /* 0: FETCH_ANSWER_MAX */
    unsigned redirects;   /* how many are followed, GET and HEAD only */
    bool repeatable;      /* a POST that may arrive twice: asked again when the kept connection it
                           * went out on turns out to be closed, as GET, HEAD and PUT are always */
    struct tls_client *tls; /* NULL: the process's own */
    const struct sockaddr *local; /* bound before; NULL: none */
    struct slice proxy;   /* its URL, instead of what the environment says; empty: none */
    enum err (*open)(void *arg, struct fetch_opening *); /* instead of the URL's host; NULL: that */
    void *open_arg;
    bool head_only;       /* what the body is does not matter: it stays empty */
    bool cut;             /* a body that is longer than answer_max ends there */
    bool no_proxy;        /* HTTPS_PROXY, HTTP_PROXY and NO_PROXY do not count */
};

struct fetch_answer {
    int status;
    struct fields fields;
    struct slice body;    /* in the arena, like the fields */
    struct slice url;     /* whose answer it is, after redirects */
    char why[512];        /* a sentence, when there is no answer */
};

/* ERR_INVALID: a bad URL or answer; ERR_TIMEOUT; ERR_LIMIT: longer than answer_max; ERR_DENIED: the
 * server could not show who it is; ERR_NOT_FOUND: no such host; ERR_CLOSED, ERR_IO: no connection.
 * Any status is OK. */
enum err fetch(const struct fetch_request *, struct arena *, struct fetch_answer *);

/* At a thread's end, before its loop settles: what is kept open for the next request is closed. */
void fetch_thread_deinit(void);
