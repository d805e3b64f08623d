/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An upstream's connection over HTTP/2, as fault_h2_upstream.c serves its streams and fault_h2_mood.c makes
 * it change its mind. What it has told the gateway of itself holds from the moment on in which that
 * acknowledges it; until then the gateway may do what it could do before.
 */
#pragma once

#include "fault.h"

#include "base/arena.h"
#include "wire/hpack.h"

enum { CALLS_MAX = 300, SETTINGS_MAX = 16, DISOWNED_MAX = 16 };

#define NO_GOAWAY UINT32_MAX

struct call {
    uint32_t id; /* 0: free */
    struct round *r;
    struct plan *p;
    unsigned attempt;
    struct tally tally;
    int64_t window, in_left; /* in_left: of its request, which the gateway may still send */
    size_t sent;
    uint64_t begun_ns, next_ns;
    unsigned late; /* checks that found it so */
    bool asked, answering, over, silent; /* asked: its request is whole */
    bool tunnel, heard, told;            /* of a tunnel: which of its ends have come, and gone */
};

struct settings {
    uint32_t calls, window, frame, table;
};

struct mood {
    struct settings holds, said[SETTINGS_MAX]; /* what is acknowledged, and what is on its way */
    unsigned said_count, settings_left, calls_begun;
    unsigned leave_at;      /* of calls_begun; 0: not by that */
    uint64_t settings_ns, leave_ns, overflow_ns; /* when it says so; NEVER */
    uint32_t last, acted;   /* of the last GOAWAY, or NO_GOAWAY; the highest stream that it has answered */
    bool parts;             /* it ends the connection itself behind the last stream that it owes */
};

struct up {
    struct conn c;
    struct up *next, **link;
    unsigned group;
    struct call calls[CALLS_MAX];
    int64_t window, initial, in_left;
    struct hpack_decoder decoder;
    struct bytes block;
    uint32_t block_stream, last;
    uint8_t block_flags;
    bool greeted, used, breaking, by_reset, said; /* breaking: once what is due has left */
    bool doomed; /* whatever comes on it is excused */
    struct mood mood;
};

/* The first SETTINGS, or what else it says first. */
void mood_begin(struct up *);
void mood_turn(struct up *); /* now and then */
void mood_part(struct up *); /* a stream may have ended */
void mood_acknowledged(struct up *);
bool mood_disowns(const struct up *, uint32_t stream); /* so that nobody answers it */

/* The gateway may send so much more, of a stream (NULL: of all). */
void mood_window(struct up *, struct call *, size_t n);

void up_note_fault(struct up *);

/* Behind all that is said so far. */
void up_break_off(struct up *, bool by_reset, bool said);
