/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records are read into one recycled buffer, and what they say of the answer is moved together at its
 * front: a read gives one piece, however finely it was cut. Heads are gathered until they are
 * complete; an answer that is small and whole then is copied to the arena, so that it can outlive the
 * connection and leave in one send.
 *
 * A connection that ends before its request did is an answer that broke off. What exceeds an
 * announced Content-Length is dropped, what falls short of it is an error. Whatever brings the answer no
 * further (stderr, records of the connection, empty ones, what is dropped) has one limit.
 */
#include "client/fastcgi_answer.h"

#include "base/check.h"
#include "upstream/iobuf.h"

enum { ASIDE_MAX = 16 << 20 };

struct client_answer *fastcgi_answer_begin(struct link *link, struct arena *arena,
                                           uint64_t head_max, bool capture)
{
    struct client_answer *a = client_answer_begin(link, arena, head_max);
    a->gathered.max = (size_t)head_max + IOBUF_SIZE;
    a->head.status = 0;
    a->fastcgi = ARENA_NEW(arena, struct fastcgi_answer);
    a->fastcgi->capture = capture;
    buffer_init(&a->fastcgi->errors, FASTCGI_STDERR_MAX);
    return a;
}

bool fastcgi_answer_reusable(const struct client_answer *a)
{
    const struct fastcgi_answer *f = a->fastcgi;
    return a->done && a->in.len == 0 && f->clean && f->records.protocol_status == 0 &&
           !link_has_news(a->link);
}

void fastcgi_answer_end(struct client_answer *a)
{
    buffer_deinit(&a->fastcgi->errors);
    client_answer_end(a);
}

/* --- records --- */

static enum err refuse(struct client_answer *a, enum err e, const char *why)
{
    a->why = why;
    return e;
}

static void take_errors(struct fastcgi_answer *f, struct slice data)
{
    if (f->capture)
        (void)!buffer_append(&f->errors, slice_take(data, f->errors.max - f->errors.len));
}

/* What of `in`, bytes of the recycled buffer, belongs to the answer, at its front. */
static enum err unwrap(struct client_answer *a, struct slice in, struct slice *out)
{
    struct fastcgi_answer *f = a->fastcgi;
    struct slice data;
    char *to = a->piece;
    for (;;) {
        switch (fastcgi_next(&f->records, &in, &data)) {
        case FASTCGI_OUT:
            memmove(to, data.ptr, data.len);
            to += data.len;
            break;
        case FASTCGI_ERR:
            take_errors(f, data);
            break;
        case FASTCGI_BAD:
            return refuse(a, ERR_INVALID, f->records.why);
        case FASTCGI_END:
            f->ended = true;
            f->clean = in.len == 0 && f->records.left == 0 && f->records.padding == 0;
            *out = slice_of(a->piece, (size_t)(to - a->piece));
            return OK;
        case FASTCGI_MORE:
            *out = slice_of(a->piece, (size_t)(to - a->piece));
            return OK;
        }
    }
}

/* Waits for some of the answer; none at the request's end only. */
static enum err read_some(struct client_answer *a, uint64_t deadline_ns, struct slice *out)
{
    struct fastcgi_answer *f = a->fastcgi;
    a->stable = false;
    if (a->piece == NULL)
        a->piece = iobuf_take();
    for (*out = SLICE_NONE; out->len == 0 && !f->ended;) {
        size_t n;
        if (f->aside > ASIDE_MAX)
            return refuse(a, ERR_LIMIT, "fcgi: too much on stderr, or of nothing, and no answer");
        TRY(await_link_into(a->link, a->piece, IOBUF_SIZE, deadline_ns, &n));
        a->began = true;
        f->aside += n;
        TRY(unwrap(a, slice_of(a->piece, n), out));
    }
    return OK;
}

/* Nothing is missing, if the request has ended. */
static bool is_complete(const struct client_answer *a)
{
    if (a->head.body == H1_BODY_LENGTH)
        return a->left == 0;
    return a->head.body != H1_BODY_CHUNKED || a->fastcgi->chunks_done;
}

/* --- heads --- */

static void move_slice(struct slice *s, const char *from, const char *to)
{
    if (s->len > 0)
        s->ptr = to + (s->ptr - from);
}

/* The head's bytes go where they outlive the gathering buffer, a small body with them. */
static void settle_head(struct client_answer *a, size_t used)
{
    struct slice all = buffer_slice(&a->gathered);
    struct h1_head *h = &a->head;
    a->stable = a->fastcgi->ended && all.len <= CLIENT_ANSWER_SMALL;
    struct slice copy = arena_copy(a->arena, a->stable ? all : slice_take(all, used));
    for (unsigned i = 0; i < h->count; i++) {
        move_slice(&h->fields[i].name, all.ptr, copy.ptr);
        move_slice(&h->fields[i].value, all.ptr, copy.ptr);
    }
    move_slice(&h->reason, all.ptr, copy.ptr);
    a->in = slice_skip(a->stable ? copy : all, used);
    if (a->stable && h->body == H1_BODY_CLOSE) { /* its length is known, though nobody said it */
        h->body = H1_BODY_LENGTH;
        h->has_length = true;
        h->content_length = a->in.len;
    }
    a->left = h->content_length;
    a->fastcgi->aside = 0;
    a->done = a->fastcgi->ended && a->in.len == 0 && is_complete(a);
    chunked_init(&a->chunked);
}

static const char *protocol_trouble(const struct fastcgi_reader *r)
{
    switch (r->protocol_status) {
    case 0:
        return "fcgi: the request ended without a response";
    case 1:
        return "fcgi: the server takes one request at a time per connection";
    case 2:
        return "fcgi: the server is overloaded";
    case 3:
        return "fcgi: the server does not know the role of a responder";
    default:
        return "fcgi: the server refused the request";
    }
}

/* The request has ended and the empty line behind the fields is missing. */
static enum err end_head(struct client_answer *a)
{
    struct buffer *b = &a->gathered;
    if (b->len == 0 || a->fastcgi->records.protocol_status != 0)
        return refuse(a, ERR_INVALID, protocol_trouble(&a->fastcgi->records));
    if (b->ptr[b->len - 1] != '\n')
        TRY(BUFFER_PUT(b, "\n"));
    return BUFFER_PUT(b, "\n");
}

static enum err fail_head(struct client_answer *a, enum h1_result r)
{
    if (r == H1_TOO_LARGE)
        return refuse(a, ERR_LIMIT, "too many response header fields");
    return refuse(a, ERR_INVALID, a->head.bad);
}

/* Until another line has ended: only then is there anything new to parse. */
static enum err read_line(struct client_answer *a, uint64_t deadline_ns)
{
    struct slice some;
    do {
        if (a->fastcgi->ended)
            return end_head(a);
        TRY(read_some(a, deadline_ns, &some));
        TRY(buffer_append(&a->gathered, some));
    } while (a->gathered.len <= a->head_max &&
             (some.len == 0 || memchr(some.ptr, '\n', some.len) == NULL));
    return OK;
}

enum err fastcgi_read_head(struct client_answer *a, bool to_head, uint64_t deadline_ns)
{
    for (;;) {
        size_t used;
        struct slice all = buffer_slice(&a->gathered);
        enum h1_result r = fastcgi_parse_head(&a->head, all, to_head, &used);
        if ((r == H1_DONE ? used : all.len) > a->head_max)
            return refuse(a, ERR_LIMIT, "response header too large");
        if (r == H1_DONE) {
            settle_head(a, used);
            return OK;
        }
        if (r != H1_MORE)
            return fail_head(a, r);
        TRY(read_line(a, deadline_ns));
    }
}

/* --- bodies --- */

static struct slice take_length(struct client_answer *a, struct slice raw)
{
    struct slice piece = slice_take(raw, a->left < raw.len ? (size_t)a->left : raw.len);
    a->left -= piece.len;
    return piece;
}

/* All data of these chunks, moved together; nothing counts behind the last one. */
static enum err take_chunks(struct client_answer *a, struct slice raw, struct slice *piece)
{
    char *start = (char *)(uintptr_t)raw.ptr, *to = start;
    struct slice data;
    enum chunked_event e = CHUNKED_LAST;
    while (!a->fastcgi->chunks_done &&
           (e = chunked_next(&a->chunked, &raw, SIZE_MAX, &data)) == CHUNKED_DATA) {
        memmove(to, data.ptr, data.len);
        to += data.len;
    }
    *piece = slice_of(start, (size_t)(to - start));
    a->fastcgi->chunks_done |= e == CHUNKED_LAST;
    return e == CHUNKED_BAD ? refuse(a, ERR_INVALID, "malformed chunked encoding") : OK;
}

static enum err take_raw(struct client_answer *a, struct slice raw, struct slice *piece)
{
    switch (a->head.body) {
    case H1_BODY_NONE:
        return OK;
    case H1_BODY_LENGTH:
        *piece = take_length(a, raw);
        return OK;
    case H1_BODY_CHUNKED:
        return take_chunks(a, raw, piece);
    default:
        *piece = raw;
        return OK;
    }
}

/* The connection has ended behind all that the head announced, without the request's end: the client
 * has got its answer. */
static bool lacks_nothing(const struct client_answer *a)
{
    bool announced = a->head.body == H1_BODY_NONE || a->head.body == H1_BODY_LENGTH;
    return a->link->end <= 0 && announced && is_complete(a);
}

enum err fastcgi_read_body(struct client_answer *a, uint64_t deadline_ns, struct slice *piece)
{
    struct fastcgi_answer *f = a->fastcgi;
    for (*piece = SLICE_NONE; !a->done && piece->len == 0;) {
        struct slice raw = a->in;
        a->in = SLICE_NONE;
        if (raw.len == 0) {
            enum err e = read_some(a, deadline_ns, &raw);
            if (e != OK && lacks_nothing(a))
                a->done = true;
            if (e != OK)
                return a->done ? OK : e;
        }
        if (raw.len > 0)
            TRY(take_raw(a, raw, piece));
        if (piece->len > 0)
            f->aside = 0;
        a->done = (f->ended || f->aside > ASIDE_MAX) && is_complete(a);
        if (f->ended && !a->done && piece->len == 0)
            return refuse(a, ERR_CLOSED, "fcgi: the request ended within its response");
    }
    return OK;
}
