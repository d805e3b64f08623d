/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes at the front are those that were kept, as long as there are any: a frame that began in an
 * earlier piece is made whole there, with as little copying as may be. What is taken of them stays in
 * place until more is kept, since the caller still looks at it.
 */
#include "wire/h2_reader.h"

#include "base/mem.h"

enum {
    KEPT_MAX = 64 * 1024,    /* bytes that are not dealt with */
    CONTINUATIONS_MIN = 32,  /* frames that a block may have, and one more for each that it needs */
};

void h2_reader_init(struct h2_reader *r, size_t block_max)
{
    *r = (struct h2_reader){.block_max = block_max};
}

void h2_reader_deinit(struct h2_reader *r)
{
    if (r->kept == NULL)
        return;
    buffer_deinit(&r->kept->in);
    buffer_deinit(&r->kept->block);
    mem_free(r->kept);
    r->kept = NULL;
}

void h2_reader_rest(struct h2_reader *r)
{
    if (h2_reader_kept(r) == 0 && r->block_id == 0)
        h2_reader_deinit(r);
}

static struct h2_kept *kept_of(struct h2_reader *r)
{
    if (r->kept != NULL)
        return r->kept;
    r->kept = NEW(struct h2_kept);
    buffer_init(&r->kept->in, KEPT_MAX);
    buffer_init(&r->kept->block, r->block_max);
    return r->kept;
}

/* Behind what was kept and has not been taken. */
static enum err keep(struct h2_reader *r, struct slice bytes)
{
    struct h2_kept *k = kept_of(r);
    if (k->at > 0)
        buffer_consume(&k->in, k->at);
    k->at = 0;
    return buffer_append(&k->in, bytes);
}

enum err h2_reader_keep(struct h2_reader *r, struct slice bytes)
{
    return bytes.len > 0 ? keep(r, bytes) : OK;
}

static struct slice front(const struct h2_reader *r, struct slice bytes)
{
    return h2_reader_kept(r) > 0 ? slice_skip(buffer_slice(&r->kept->in), r->kept->at) : bytes;
}

/* --- what a frame must be like --- */

static void refuse(struct h2_got *g, enum h2_error error, const char *why)
{
    g->kind = H2_GOT_BAD;
    g->error = error;
    g->why = why;
    g->bytes = SLICE_NONE;
    g->size = 0;
}

/* RFC 9113 §6, RFC 9218 §7.1. Others may be of any length, or it is only their stream's error. */
static const struct form {
    uint32_t least, most;
    const char *missized;
    const char *misplaced; /* on a stream; NULL: it may be on one */
} forms[] = {
    [H2_RST_STREAM] = {4, 4, "RST_STREAM of the wrong length", NULL},
    [H2_SETTINGS] = {0, UINT32_MAX, "SETTINGS of the wrong length", "SETTINGS on a stream"},
    [H2_PING] = {8, 8, "PING of the wrong length", "PING on a stream"},
    [H2_GOAWAY] = {8, UINT32_MAX, "GOAWAY too short", "GOAWAY on a stream"},
    [H2_WINDOW_UPDATE] = {4, 4, "WINDOW_UPDATE of the wrong length", NULL},
    [H2_PRIORITY_UPDATE] = {4, UINT32_MAX, "PRIORITY_UPDATE too short",
                            "PRIORITY_UPDATE on a stream"},
};

static const char *malformed(const struct h2_frame_head *h, enum h2_error *error)
{
    if (h->type >= sizeof forms / sizeof forms[0] || forms[h->type].missized == NULL)
        return NULL;
    const struct form *f = &forms[h->type];
    *error = H2_PROTOCOL_ERROR;
    if (f->misplaced != NULL && h->stream != 0)
        return f->misplaced;
    *error = H2_FRAME_SIZE_ERROR;
    if (h->type == H2_SETTINGS && ((h->flags & H2_ACK) != 0 ? h->len != 0 : h->len % 6 != 0))
        return f->missized;
    return h->len < f->least || h->len > f->most ? f->missized : NULL;
}

/* Why a frame with that head may not come now, or NULL. */
static const char *fault_of(const struct h2_reader *r, const struct h2_frame_head *h,
                            enum h2_error *error)
{
    *error = H2_PROTOCOL_ERROR;
    if (!r->begun && (h->type != H2_SETTINGS || (h->flags & H2_ACK) != 0))
        return "the first frame is not SETTINGS";
    if (r->block_id != 0 && (h->type != H2_CONTINUATION || h->stream != r->block_id))
        return "a frame in the middle of a header block";
    if (r->block_id == 0 && h->type == H2_CONTINUATION)
        return "CONTINUATION without HEADERS before it";
    if (h->type == H2_HEADERS && h->stream == 0)
        return "HEADERS on stream 0";
    *error = H2_FRAME_SIZE_ERROR;
    if (h->len > H2_FRAME_MAX_DEFAULT)
        return "a frame that is too long";
    return malformed(h, error);
}

/* --- looking --- */

/* What is there of so many bytes, and of the padding behind them. */
static void take_piece(struct slice in, uint32_t data, uint32_t padding, struct h2_got *g)
{
    size_t n = in.len < data ? in.len : data;
    size_t pad = in.len - n < padding ? in.len - n : padding;
    g->bytes = slice_of(in.ptr, n);
    g->size = n + pad;
    g->last = g->size == (size_t)data + padding;
}

static void look_at_piece(const struct h2_reader *r, struct slice in, struct h2_got *g)
{
    g->kind = H2_GOT_PIECE;
    g->head = (struct h2_frame_head){r->data_len, H2_DATA, r->data_flags, r->data_id};
    take_piece(in, r->data_left, r->pad_left, g);
    g->whole = g->bytes.len == r->data_len && (r->data_flags & H2_END_STREAM) != 0;
}

/* DATA, of which all is there that stands before its bytes; those that are there come with it. */
static void look_at_data(struct slice in, struct h2_got *g)
{
    uint32_t len = g->head.len;
    bool padded = (g->head.flags & H2_PADDED) != 0;
    g->kind = H2_GOT_DATA;
    g->padding = padded && len > 0 ? 1u + (unsigned char)in.ptr[H2_FRAME_HEAD] : 0;
    if (padded && len == 0) {
        refuse(g, H2_FRAME_SIZE_ERROR, "padded DATA without the padding's length");
    } else if (g->padding > len) {
        refuse(g, H2_PROTOCOL_ERROR, "more padding than DATA");
    } else {
        take_piece(slice_skip(in, g->size), len - g->padding, padded ? g->padding - 1 : 0, g);
        g->whole = g->bytes.len == len - g->padding && (g->head.flags & H2_END_STREAM) != 0;
        g->size += H2_FRAME_HEAD + padded;
    }
}

static void look_at_headers(struct slice p, struct h2_got *g)
{
    uint8_t flags = g->head.flags;
    size_t pad = 0, skip = 0;
    if ((flags & H2_PADDED) != 0) {
        pad = p.len > 0 ? (unsigned char)p.ptr[0] : 0;
        skip = 1;
    }
    if ((flags & H2_PRIORITY_FLAG) != 0)
        skip += 5;
    if (p.len < skip) {
        refuse(g, H2_FRAME_SIZE_ERROR, "HEADERS too short for what its flags say");
    } else if (pad > p.len - skip) {
        refuse(g, H2_PROTOCOL_ERROR, "more padding than HEADERS");
    } else {
        g->kind = (flags & H2_END_HEADERS) != 0 ? H2_GOT_BLOCK : H2_GOT_PART;
        g->bytes = slice_of(p.ptr + skip, p.len - skip - pad);
    }
}

/* The frame at the front, of which enough is there. */
static void look_inside(struct slice in, struct h2_got *g)
{
    struct slice payload = slice_of(in.ptr + H2_FRAME_HEAD, g->size - H2_FRAME_HEAD);
    switch (g->head.type) {
    case H2_DATA:
        look_at_data(in, g);
        break;
    case H2_HEADERS:
        look_at_headers(payload, g);
        break;
    case H2_CONTINUATION:
        g->kind = (g->head.flags & H2_END_HEADERS) != 0 ? H2_GOT_BLOCK : H2_GOT_PART;
        g->bytes = payload;
        break;
    default:
        g->kind = H2_GOT_FRAME;
        g->bytes = payload;
        break;
    }
}

/* How many bytes of a frame are looked at together: of DATA only what stands before its own. */
static size_t wanted(const struct h2_frame_head *h)
{
    if (h->type == H2_DATA)
        return H2_FRAME_HEAD + ((h->flags & H2_PADDED) != 0 && h->len > 0);
    return H2_FRAME_HEAD + h->len;
}

/* What comes most often, and now may. */
static bool is_plain(const struct h2_reader *r, const struct h2_frame_head *h)
{
    return h->type <= H2_HEADERS && h->stream != 0 && r->begun && r->block_id == 0 &&
           h->len <= H2_FRAME_MAX_DEFAULT;
}

/* True: something can be said of the frame at the front. `g->size` is how much of it that takes. */
static bool look_at_frame(const struct h2_reader *r, struct slice in, struct h2_got *g)
{
    g->size = H2_FRAME_HEAD;
    if (in.len < H2_FRAME_HEAD)
        return false;
    g->head = h2_read_head(in.ptr);
    const char *fault = is_plain(r, &g->head) ? NULL : fault_of(r, &g->head, &g->error);
    if (fault != NULL) {
        refuse(g, g->error, fault);
        g->bytes = in;
        return true;
    }
    g->size = wanted(&g->head);
    if (in.len < g->size)
        return false;
    look_inside(in, g);
    return true;
}

bool h2_reader_look(struct h2_reader *r, struct slice *bytes, struct h2_got *g)
{
    for (;;) {
        struct slice in = front(r, *bytes);
        if (in.len == 0)
            return false;
        if (r->data_left > 0 || r->pad_left > 0) {
            look_at_piece(r, in, g);
            return true;
        }
        if (look_at_frame(r, in, g))
            return true;
        if (h2_reader_kept(r) == 0 || bytes->len == 0)
            return false;
        struct slice more = slice_take(*bytes, g->size - in.len);
        (void)!keep(r, more); /* at most a frame */
        *bytes = slice_skip(*bytes, more.len);
    }
}

/* --- taking --- */

static void begin_block(struct h2_reader *r, const struct h2_got *g)
{
    r->block_id = g->head.stream;
    r->block_flags = g->head.flags;
    r->continuations = 0;
    buffer_clear(&kept_of(r)->block);
}

/* A block that is not, or was not, in one frame. */
static void gather(struct h2_reader *r, struct h2_got *g)
{
    if (g->head.type == H2_HEADERS) {
        begin_block(r, g);
    } else if (++r->continuations > CONTINUATIONS_MIN + r->block_max / H2_FRAME_MAX_DEFAULT) {
        refuse(g, H2_ENHANCE_YOUR_CALM, "too many CONTINUATION frames");
        return;
    }
    if (buffer_append(&r->kept->block, g->bytes) != OK) {
        refuse(g, H2_ENHANCE_YOUR_CALM, "a header block is too long");
    } else if (g->kind == H2_GOT_BLOCK) {
        r->block_id = 0;
        g->head.flags = r->block_flags;
        g->bytes = buffer_slice(&r->kept->block);
    }
}

void h2_reader_take(struct h2_reader *r, struct slice *bytes, struct h2_got *g)
{
    if (h2_reader_kept(r) > 0)
        r->kept->at += g->size;
    else
        *bytes = slice_skip(*bytes, g->size);
    switch (g->kind) {
    case H2_GOT_FRAME:
        r->begun = true;
        break;
    case H2_GOT_BLOCK:
    case H2_GOT_PART:
        if (g->kind == H2_GOT_PART || g->head.type == H2_CONTINUATION)
            gather(r, g);
        break;
    case H2_GOT_DATA:
        r->data_id = g->head.stream;
        r->data_flags = g->head.flags;
        r->data_len = g->head.len - g->padding;
        r->data_left = r->data_len - (uint32_t)g->bytes.len;
        r->pad_left = (uint32_t)(H2_FRAME_HEAD + g->head.len - g->size - r->data_left);
        break;
    case H2_GOT_PIECE:
        r->data_left -= (uint32_t)g->bytes.len;
        r->pad_left -= (uint32_t)(g->size - g->bytes.len);
        break;
    case H2_GOT_BAD:
        break;
    }
}
