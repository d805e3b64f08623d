/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What programs write: lines into portico's log under the service's name, and the last ones in
 * memory. A line that is a JSON object keeps its members as fields. Long lines are cut, and more
 * lines than LINES_A_SECOND are dropped and counted: a program that shouts does not fill the disk.
 */
#pragma once

#include "base/buffer.h"
#include "base/list.h"
#include "loop/loop.h"

enum {
    LINE_MAX_BYTES = 16384,
    LINES_KEPT = 1000,
    LINES_KEPT_BYTES = 512 * 1024,
    LINES_A_SECOND = 1000,
};

struct kept_line {
    uint64_t seq;
    int64_t wall_ns;
    uint32_t replica;
    const char *stream; /* "stdout", "stderr"; NULL: the manager's own */
    struct slice text;  /* malloc'd */
};

/* The last lines of a service. */
struct lines {
    struct kept_line ring[LINES_KEPT];
    unsigned first, count;
    size_t bytes;
    uint64_t next_seq; /* from 1 */
    uint64_t second;   /* of the rate */
    unsigned in_second;
    uint64_t dropped, total;
    struct list readers; /* fibers that wait for a line: manage's */
};

struct output {
    int fd; /* -1: none */
    struct op op;
    struct loop *loop;
    struct buffer part; /* of a line */
    bool cut;           /* the rest of a long line is thrown away */
    struct lines *lines;
    const char *logger, *stream;
    uint32_t replica;
    void (*on_line)(struct output *);
    void (*on_end)(struct output *); /* closed, and its operation has ended */
    bool closing;
};

void lines_init(struct lines *);
void lines_deinit(struct lines *);

/* Takes the descriptor over. */
void output_open(struct output *, struct loop *, int fd, struct lines *, const char *logger,
                 const char *stream, uint32_t replica);

/* Whether on_end is still to come, when it is closed. */
bool output_is_open(const struct output *);

/* Reads what is there, closes; on_end follows from the loop, or at once (true) when nothing was open. */
bool output_close(struct output *);

/* A line of the manager's own about the service, kept among its lines. */
void lines_note(struct lines *, uint32_t replica, struct slice text);
