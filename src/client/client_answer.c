/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Most answers are small and come whole: then their bytes are copied once, into the arena of the
 * exchange, and everything else is slices of that copy. What is larger is gathered until its head
 * is complete, the head alone moves to the arena, and the body goes through one recycled buffer.
 *
 * Chunks are decoded in place: what came in one read is one piece, however finely it was chunked.
 * Framing was decided by wire/h1_head.c, strictly; here only lengths are counted.
 */
#include "client/client_answer.h"

#include "base/check.h"
#include "base/mem.h"
#include "client/fastcgi_answer.h"
#include "upstream/iobuf.h"

enum {
    ANSWERS_KEPT = 512,   /* free ones; as many as a few connections of HTTP/2 ask for at once */
    BUFFERS_KEPT = 64,    /* … of which so many keep their buffer */
    GATHERED_KEPT = 65536,
    READ_MAX = 16384,
};

static _Thread_local struct {
    struct client_answer *first;
    unsigned count;
} kept;

struct client_answer *client_answer_begin(struct link *link, struct arena *arena, uint64_t head_max)
{
    struct client_answer *a = kept.first;
    if (a != NULL) {
        kept.first = a->next;
        kept.count--;
    } else {
        a = NEW(struct client_answer);
        buffer_init(&a->gathered, SIZE_MAX);
    }
    a->link = link;
    a->arena = arena;
    a->head_max = head_max;
    a->gathered.max = (size_t)head_max + READ_MAX;
    a->in = SLICE_NONE;
    a->piece = NULL;
    a->trailers.count = 0;
    a->stable = a->done = a->began = false;
    a->why = NULL;
    a->fastcgi = NULL;
    a->h2 = NULL;
    return a;
}

static void free_answer(struct client_answer *a)
{
    buffer_deinit(&a->gathered);
    mem_free(a);
}

void client_answer_end(struct client_answer *a)
{
    if (a->piece != NULL)
        iobuf_give(a->piece);
    buffer_clear(&a->gathered);
    if (kept.count == ANSWERS_KEPT) {
        free_answer(a);
        return;
    }
    if (kept.count >= BUFFERS_KEPT || a->gathered.cap > GATHERED_KEPT)
        buffer_deinit(&a->gathered);
    a->next = kept.first;
    kept.first = a;
    kept.count++;
}

void client_thread_deinit(void)
{
    while (kept.first != NULL) {
        struct client_answer *a = kept.first;
        kept.first = a->next;
        free_answer(a);
    }
    kept.count = 0;
}

/* --- heads --- */

static enum err gather(struct client_answer *a, struct slice bytes)
{
    struct buffer *b = &a->gathered;
    if (a->stable || b->len == 0) { /* `in` is not at this buffer's end yet */
        buffer_clear(b);
        TRY(buffer_append(b, a->in));
    } else {
        buffer_consume(b, b->len - a->in.len);
    }
    enum err e = buffer_append(b, bytes);
    a->in = buffer_slice(b);
    a->stable = false;
    return e;
}

/* More bytes behind those in hand. */
static enum err read_more(struct client_answer *a, uint64_t deadline_ns)
{
    struct slice bytes;
    TRY(await_link(a->link, deadline_ns, &bytes));
    a->began = true;
    if (a->in.len > 0 || bytes.len > CLIENT_ANSWER_SMALL)
        return gather(a, bytes);
    a->in = arena_copy(a->arena, bytes);
    a->stable = true;
    return OK;
}

static void move_slice(struct slice *s, const char *from, const char *to)
{
    if (s->len > 0)
        s->ptr = to + (s->ptr - from);
}

/* The head's bytes go where they outlive the gathering buffer. */
static void settle_head(struct client_answer *a, size_t used)
{
    struct h1_head *h = &a->head;
    const char *from = a->in.ptr, *to;
    if (a->stable)
        return;
    to = arena_copy(a->arena, slice_take(a->in, used)).ptr;
    for (unsigned i = 0; i < h->count; i++) {
        move_slice(&h->fields[i].name, from, to);
        move_slice(&h->fields[i].value, from, to);
    }
    move_slice(&h->reason, from, to);
    move_slice(&h->upgrade, from, to);
}

static enum err refuse_head(struct client_answer *a, enum h1_result r)
{
    if (r == H1_TOO_LARGE) {
        a->why = "too many response header fields";
        return ERR_LIMIT;
    }
    a->why = r == H1_BAD && a->head.bad != NULL ? a->head.bad : "malformed HTTP response";
    return ERR_INVALID;
}

static enum err begin_body(struct client_answer *a, size_t used)
{
    settle_head(a, used);
    a->in = slice_skip(a->in, used);
    a->left = a->head.content_length;
    a->done = a->head.body == H1_BODY_NONE;
    chunked_init(&a->chunked);
    return OK;
}

/* Until another line has ended, since only then a parser has anything new to say: bytes that come
 * one by one must not have the whole head parsed each time. */
static enum err read_line(struct client_answer *a, uint64_t deadline_ns)
{
    size_t had;
    do {
        had = a->in.len;
        TRY(read_more(a, deadline_ns));
    } while (a->in.len <= a->head_max && memchr(a->in.ptr + had, '\n', a->in.len - had) == NULL);
    return OK;
}

enum err client_read_head(struct client_answer *a, bool to_head, uint64_t deadline_ns)
{
    for (;;) {
        size_t used;
        enum h1_result r = h1_parse_response(&a->head, a->in, to_head, &used);
        size_t size = r == H1_DONE ? used : a->in.len;
        if ((r == H1_DONE || r == H1_MORE) && size > a->head_max) {
            a->why = "response header larger than max_response_header_size";
            return ERR_LIMIT;
        }
        if (r == H1_DONE)
            return begin_body(a, used);
        if (r != H1_MORE)
            return refuse_head(a, r);
        TRY(read_line(a, deadline_ns));
    }
}

/* --- bodies --- */

/* Fresh bytes into the recycled buffer; those in hand are used up. */
static enum err refill(struct client_answer *a, uint64_t deadline_ns)
{
    size_t n;
    ASSERT(a->in.len == 0);
    a->stable = false;
    if (a->piece == NULL)
        a->piece = iobuf_take();
    enum err e = await_link_into(a->link, a->piece, IOBUF_SIZE, deadline_ns, &n);
    a->in = slice_of(a->piece, n);
    return e;
}

static enum err read_length(struct client_answer *a, uint64_t deadline_ns, struct slice *piece)
{
    if (a->in.len == 0)
        TRY(refill(a, deadline_ns));
    *piece = slice_take(a->in, a->left < a->in.len ? (size_t)a->left : a->in.len);
    a->in = slice_skip(a->in, piece->len);
    a->left -= piece->len;
    a->done = a->left == 0;
    return OK;
}

static enum err read_to_close(struct client_answer *a, uint64_t deadline_ns, struct slice *piece)
{
    *piece = a->in;
    a->in = SLICE_NONE;
    if (piece->len > 0)
        return OK;
    enum err e = refill(a, deadline_ns);
    if (e == ERR_CLOSED && a->link->end == 0) {
        a->done = true;
        return OK;
    }
    TRY(e);
    *piece = a->in;
    a->in = SLICE_NONE;
    return OK;
}

static void keep_trailers(struct client_answer *a, const struct h1_field *fields, unsigned count)
{
    fields_init(&a->trailers, a->arena);
    for (unsigned i = 0; i < count; i++)
        fields_add(&a->trailers, arena_copy(a->arena, fields[i].name),
                   arena_copy(a->arena, fields[i].value));
}

/* Trailers are few and small: they are read together with what came before them, or else gathered
 * at the front of the buffer until they are complete. */
static enum err read_trailers(struct client_answer *a, uint64_t deadline_ns, bool may_wait)
{
    struct h1_field fields[CLIENT_TRAILERS_MAX];
    for (;;) {
        unsigned count;
        size_t used, left = a->in.len, n;
        const char *why;
        enum h1_result r = h1_parse_trailers(fields, CLIENT_TRAILERS_MAX, &count, a->in, &used,
                                             &why);
        if (r == H1_DONE) {
            keep_trailers(a, fields, count);
            a->in = slice_skip(a->in, used);
            a->done = true;
            return OK;
        }
        if (r != H1_MORE || left > IOBUF_SIZE / 2) {
            a->why = "malformed trailers";
            return ERR_INVALID;
        }
        if (!may_wait)
            return OK;
        char *front = a->piece != NULL ? a->piece : (a->piece = iobuf_take());
        if (left > 0)
            memmove(front, a->in.ptr, left);
        a->stable = false;
        a->in = slice_of(front, left);
        TRY(await_link_into(a->link, front + left, IOBUF_SIZE - left, deadline_ns, &n));
        a->in.len += n;
    }
}

/* All data of what is in hand, moved together at its front. */
static enum err decode(struct client_answer *a, struct slice *piece, bool *last)
{
    char *start = (char *)(uintptr_t)a->in.ptr, *to = start;
    struct slice data;
    enum chunked_event e;
    *last = false;
    while ((e = chunked_next(&a->chunked, &a->in, SIZE_MAX, &data)) == CHUNKED_DATA) {
        memmove(to, data.ptr, data.len);
        to += data.len;
    }
    *piece = slice_of(start, (size_t)(to - start));
    *last = e == CHUNKED_LAST;
    if (e == CHUNKED_BAD) {
        a->why = "malformed chunked encoding";
        return ERR_INVALID;
    }
    return OK;
}

static enum err read_chunks(struct client_answer *a, uint64_t deadline_ns, struct slice *piece)
{
    for (;;) {
        bool last;
        enum err e = decode(a, piece, &last);
        if (e != OK && piece->len > 0) { /* what came before it may still be told */
            a->in = SLICE_NONE;
            return OK;
        }
        TRY(e);
        if (last)
            return read_trailers(a, deadline_ns, piece->len == 0);
        if (piece->len > 0)
            return OK;
        TRY(refill(a, deadline_ns));
    }
}

enum err client_read_body(struct client_answer *a, uint64_t deadline_ns, struct slice *piece)
{
    *piece = SLICE_NONE;
    if (a->done)
        return OK;
    switch (a->head.body) {
    case H1_BODY_LENGTH:
        return read_length(a, deadline_ns, piece);
    case H1_BODY_CHUNKED:
        return read_chunks(a, deadline_ns, piece);
    default:
        return read_to_close(a, deadline_ns, piece);
    }
}

bool client_answer_reusable(const struct client_answer *a)
{
    if (a->fastcgi != NULL)
        return fastcgi_answer_reusable(a);
    return a->done && a->in.len == 0 && a->head.keep_alive && a->head.body != H1_BODY_CLOSE &&
           a->head.status >= 200 && !link_has_news(a->link);
}
