/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An answer that comes as FastCGI records, behind the face of an HTTP/1 answer: its head, then its
 * body until the request has ended. What the application writes for the log is kept aside, up to a
 * limit. On a fiber; every call may wait.
 */
#pragma once

#include "client/client_answer.h"
#include "client/fastcgi.h"

enum { FASTCGI_STDERR_MAX = 65536 };

struct fastcgi_answer {
    struct fastcgi_reader records;
    bool capture;          /* keep what comes for the log, or else drop it */
    bool ended, chunks_done;
    bool clean;            /* nothing has come behind the request's end */
    struct buffer errors;  /* at most FASTCGI_STDERR_MAX; what is beyond is dropped */
    uint64_t aside;        /* bytes that came since any of them was of use to the answer */
};

/* As client_answer_begin, and client_answer_end. */
struct client_answer *fastcgi_answer_begin(struct link *, struct arena *, uint64_t head_max,
                                           bool capture);
void fastcgi_answer_end(struct client_answer *);

/* As client_read_head and client_read_body. `done` is set by the request's end, even where no body is
 * passed on, since a program whose connection is closed would be stopped; but not by one that never
 * comes to an end. */
enum err fastcgi_read_head(struct client_answer *, bool to_head, uint64_t deadline_ns);
enum err fastcgi_read_body(struct client_answer *, uint64_t deadline_ns, struct slice *piece);

/* As client_answer_reusable, which asks it. */
bool fastcgi_answer_reusable(const struct client_answer *);
