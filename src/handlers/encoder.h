/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compressors, the modules of http.encoders: gzip, zstd, br. A worker keeps some idle ones; those at
 * work may take ENCODERS_MEMORY of it. A response beyond that goes out as it is, which every client
 * takes.
 *
 * Measured memory of one at work: gzip 0.3 MiB; zstd 1.0 (fastest), 1.3 (default), 1.7 MiB; br 2.1 MiB
 * at quality 4, 38 MiB at 9; each with 32 KiB of buffers among it.
 */
#pragma once

#include "base/list.h"
#include "http/module.h"

enum { ENCODER_PIECE = 16384, ENCODERS_IDLE = 8, ENCODERS_MEMORY = 256 * 1024 /* KiB */ };

enum encoder_step {
    ENCODE_MORE,  /* more will come */
    ENCODE_FLUSH, /* all that came in shall come out */
    ENCODE_END,
};

struct encoder;

/* How one is made; equal settings share idle ones. */
struct encoder_settings {
    const struct encoder_type *type;
    int level, option;
    unsigned memory; /* of one at work, in KiB, about */
    bool slow; /* works so long at a time that it belongs on the offload pool */
};

/* The face of a module in http.encoders; the module's cfg is a struct encoder_settings. */
struct encoder_type {
    struct slice name; /* in Accept-Encoding and Content-Encoding */
    /* Makes e->state, or resets the one that is there; false when the library refuses. */
    bool (*init)(struct encoder *);
    /* Takes from e->input, puts to e->out behind e->out_len; *done when this step is complete. */
    bool (*run)(struct encoder *, enum encoder_step, bool *done);
    void (*deinit)(struct encoder *);
    bool once; /* its state cannot be used again */
};

struct encoder {
    struct list node; /* of idle ones */
    struct encoder_settings settings;
    void *state;
    struct slice input;
    size_t out_len;
    char out[ENCODER_PIECE];
    char file[ENCODER_PIECE]; /* where files are read to */
};

/* Before the head says that a response is compressed: false when the memory is used up. Each
 * success is given back, by encoder_give or, when none was taken, by encoder_unreserve. */
bool encoder_reserve(const struct encoder_settings *);
void encoder_unreserve(const struct encoder_settings *);

/* A ready one, for a reservation. */
struct encoder *encoder_take(const struct encoder_settings *);
void encoder_give(struct encoder *);

extern const struct module encoder_gzip, encoder_zstd, encoder_br;
