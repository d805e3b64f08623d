/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames out of what the other side of an HTTP/2 connection sends (RFC 9113 §4, §6), for servers and
 * clients. Pure. They are read where they lie: one that is not whole is kept until it is, but for DATA,
 * which comes piece by piece. A header block in several frames is gathered. What is malformed whatever
 * streams there are is found here; what a frame means, and whether its stream may have it, is the
 * caller's, who looks at what comes next before taking it, since it may have no room for the answer:
 *
 *     while (h2_reader_look(r, &bytes, &got)) {
 *         if (h2_got_asks(&got) && there is no room)
 *             break;
 *         h2_reader_take(r, &bytes, &got);
 *         …
 *     }
 *     h2_reader_keep(r, bytes);
 */
#pragma once

#include "base/buffer.h"
#include "wire/h2_frame.h"

enum h2_got_kind {
    H2_GOT_FRAME, /* none of the others */
    H2_GOT_BLOCK, /* a header block, whole, without padding and priority */
    H2_GOT_PART,  /* of a header block, which is kept */
    H2_GOT_DATA,  /* a frame of DATA begins, with those of its bytes that are there */
    H2_GOT_PIECE, /* more of its bytes */
    H2_GOT_BAD,   /* the connection's error */
};

struct h2_got {
    enum h2_got_kind kind;
    struct h2_frame_head head; /* of a block's flags, END_STREAM is that of its first frame */
    struct slice bytes;        /* payload, block, part or piece; BAD by its head: the input from there */
    size_t size;               /* bytes of the input that are taken with it */
    uint32_t padding;          /* DATA: bytes of the frame that are none, the padding's length included */
    bool last;                 /* DATA and PIECE: nothing of the frame follows */
    bool whole;                /* DATA and PIECE: all that the frame has, and the stream ends behind it */
    enum h2_error error;
    const char *why;           /* constant */
};

/* Whether it may call for an answer. */
static inline bool h2_got_asks(const struct h2_got *g)
{
    return g->kind < H2_GOT_PIECE;
}

/* What could not be dealt with yet. */
struct h2_kept {
    struct buffer in; /* from `at` on: a frame in part, or frames for whose answers there was no room */
    size_t at;
    struct buffer block;
};

struct h2_reader {
    struct h2_kept *kept;    /* NULL: nothing has been */
    size_t block_max;        /* of a header block, compressed, in any number of frames */
    uint32_t data_id, data_len, data_left, pad_left; /* of a DATA frame that is coming in pieces */
    uint32_t block_id;       /* whose header block is not whole; 0: none */
    uint32_t continuations;  /* of it */
    uint8_t block_flags, data_flags;
    bool begun;              /* SETTINGS have come, which are the first */
};

void h2_reader_init(struct h2_reader *, size_t block_max);
void h2_reader_deinit(struct h2_reader *);

/* The connection is idle: memory that holds nothing goes back. */
void h2_reader_rest(struct h2_reader *);

static inline size_t h2_reader_kept(const struct h2_reader *r)
{
    return r->kept != NULL ? r->kept->in.len - r->kept->at : 0;
}

/* What comes next, of what was kept and `bytes` behind it; false: it is not whole. */
bool h2_reader_look(struct h2_reader *, struct slice *bytes, struct h2_got *);

/* Takes what was seen. A part of a block may turn out to be BAD. */
void h2_reader_take(struct h2_reader *, struct slice *bytes, struct h2_got *);

/* Keeps what is left. ERR_LIMIT: it is too much. */
enum err h2_reader_keep(struct h2_reader *, struct slice bytes);
