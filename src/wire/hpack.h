/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HPACK (RFC 7541): header blocks to fields and back. Pure but for the memory of its two dynamic
 * tables, which exist only while something is in them.
 *
 * A block is read by pulling its fields one by one. It must be whole (the pieces of CONTINUATION
 * frames are gathered by h2_frame.c) and must be read to its end even when its message is refused,
 * since the table lives on: only HPACK_BAD ends it early, and the connection with it.
 */
#pragma once

#include "base/arena.h"
#include "wire/hpack_tables.h"

enum {
    HPACK_TABLE_DEFAULT = 4096, /* SETTINGS_HEADER_TABLE_SIZE before anybody says otherwise */
    HPACK_TABLE_MAX = 65535,    /* of what a decoder may offer */
    HPACK_ENTRY_OVERHEAD = 32,  /* RFC 7541 §4.1, and counted for lists by RFC 9113 §6.5.2 */
};

struct hpack_entry {
    uint32_t at;                  /* in the table's bytes: the name if it has no number, the value */
    uint16_t name_len, value_len;
    uint8_t id, marks;
};

/* Entries in a ring, oldest first, and behind the ring their bytes, of which [begin, end) is in use. */
struct hpack_table {
    struct hpack_entry *entries;  /* NULL: no memory at all */
    uint32_t begin, end, cap;
    uint32_t size, max;           /* as RFC 7541 §4.1 counts */
    uint16_t first, count, slots; /* slots: 0 or a power of two */
};

enum hpack_marks { /* what a field is, found out once and kept with its entry in the table */
    HPACK_NAME_BAD = 1,  /* empty, no token, or with capitals (RFC 9113 §8.2.1) */
    HPACK_NAME_ODD = 2,  /* holds '_' or '.' */
    HPACK_VALUE_BAD = 4, /* a control character, or white space at an end */
    HPACK_NEVER = 8,     /* came as never to be indexed */
};

struct hpack_field {
    struct slice name, value; /* in the arena, or constant */
    uint8_t id;               /* enum hpack_name; NAME_OTHER when the name has no number */
    uint8_t marks;
};

/* --- decoding --- */

struct hpack_decoder {
    struct hpack_table table;
    uint32_t limit;  /* of what the peer may set the table's size to: what we said in SETTINGS */
    bool update_due; /* the limit fell below it: the next block must begin with a lower one */
};

void hpack_decoder_init(struct hpack_decoder *);
void hpack_decoder_deinit(struct hpack_decoder *);

/* Our SETTINGS with another HEADER_TABLE_SIZE (at most HPACK_TABLE_MAX) has been acknowledged. */
void hpack_decoder_limit(struct hpack_decoder *, uint32_t limit);

/* Gives back memory that is not in use: for a connection that becomes idle. */
void hpack_decoder_trim(struct hpack_decoder *);

enum hpack_event {
    HPACK_FIELD,
    HPACK_DONE,
    HPACK_TOO_LARGE, /* the end; fields were left out, for the list is longer than allowed */
    HPACK_BAD,       /* COMPRESSION_ERROR: the connection cannot go on */
};

struct hpack_reader {
    struct hpack_decoder *decoder;
    struct arena *arena;
    const uint8_t *at, *end;
    char *text, *text_end; /* room for strings, taken from the arena piece by piece */
    char *text_floor;      /* once too large: where it is used again from */
    uint32_t size, size_max;
    bool begun;            /* behind the first field no size update may come */
    bool too_large;
    const char *bad;       /* why HPACK_BAD: a constant sentence */
};

/* `size_max`: of the list, each field counted with 32 bytes more (SETTINGS_MAX_HEADER_LIST_SIZE). */
void hpack_read(struct hpack_reader *, struct hpack_decoder *, struct slice block, struct arena *,
                uint32_t size_max);
enum hpack_event hpack_next(struct hpack_reader *, struct hpack_field *);

/* --- encoding --- */

/* Indexes what is likely to come again: at once where the name says so, else what has been seen
 * before. Never references what it has forgotten, so it may forget at any time without telling. */
struct hpack_encoder {
    struct hpack_memory *memory; /* NULL: nothing is remembered */
    uint32_t told;               /* the size that the peer's decoder believes in */
    uint32_t low, limit;         /* the lowest and the last that its SETTINGS allowed since */
    uint8_t blocks;              /* since the last rest, up to 2: the first one indexes nothing */
};

struct hpack_memory {
    struct hpack_table table;
    uint16_t seen[4][4]; /* hashes of fields that were not indexed at first sight */
    uint16_t next;       /* index of the entry that is likely to be asked for next */
};

void hpack_encoder_init(struct hpack_encoder *);
void hpack_encoder_deinit(struct hpack_encoder *);

/* The peer's SETTINGS_HEADER_TABLE_SIZE. */
void hpack_encoder_limit(struct hpack_encoder *, uint32_t limit);

/* Forgets all and frees its memory: for a connection that becomes idle. */
void hpack_encoder_rest(struct hpack_encoder *);

enum { HPACK_BEGIN_MAX = 12, HPACK_STATUS_MAX = 5 };

enum hpack_how {
    HPACK_AUTO,
    HPACK_LITERAL,   /* not indexed: a value that does not come again */
    HPACK_SENSITIVE, /* never indexed, here and further on (RFC 7541 §7.1.3) */
};

/* Each writes at `at`, where there must be room, and returns the place behind. A block: hpack_begin
 * once, then its fields. */
char *hpack_begin(struct hpack_encoder *, char *at);
char *hpack_put_status(struct hpack_encoder *, char *at, int status);
char *hpack_put(struct hpack_encoder *, char *at, struct slice name, struct slice value,
                enum hpack_how);

/* The same for a name whose number is known. */
char *hpack_put_named(struct hpack_encoder *, char *at, enum hpack_name, struct slice value,
                      enum hpack_how);

/* One of the last two, only if that is a reference to an equal field; NULL when there is none. */
char *hpack_put_again(struct hpack_encoder *, char *at, enum hpack_name, struct slice name,
                      struct slice value);

/* That, or else hpack_put_named. */
char *hpack_put_value(struct hpack_encoder *, char *at, enum hpack_name, struct slice value);
char *hpack_put_length(struct hpack_encoder *, char *at, uint64_t content_length);

/* What hpack_put writes at most. */
static inline size_t hpack_room(size_t name_len, size_t value_len)
{
    return name_len + value_len + 16;
}

/* NAME_OTHER when it has no number; ASCII case is ignored. */
enum hpack_name hpack_name_of(struct slice name);
