/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls: a request on a stream of its own, and what comes back. The memory is recycled by the thread;
 * it lives until who began the call ends it, be the stream closed long before.
 *
 * What is sent of a body lies with the caller, all of it or piece by piece; it goes into the output when
 * that leaves, a frame of each call in turn, as the windows allow. What comes of an answer is kept in
 * recycled buffers until it is taken, within a window that opens when it is: so a slow client costs a
 * window, and its call alone waits.
 *
 * A window begins small. It grows while its reader waits for more than one of it, out of what the calls
 * of a thread have together, and shrinks as bytes are taken when there is little left of that. What was
 * told cannot be taken back, so it is promises that are counted.
 */
#include "client/h2_link_internal.h"

#include "base/check.h"
#include "base/mem.h"

enum { CALLS_KEPT = 512, FRAME_MIN = 1024 };

/* --- memory --- */

static struct h2_call *take_call(void)
{
    struct h2_thread *t = h2_mine();
    struct h2_call *k = t->calls;
    if (k == NULL)
        return NEW(struct h2_call);
    t->calls = k->next;
    t->calls_free--;
    memset(k, 0, sizeof *k);
    return k;
}

static void give_call(struct h2_call *k)
{
    struct h2_thread *t = h2_mine();
    if (t->calls_free >= CALLS_KEPT) {
        mem_free(k);
        return;
    }
    k->next = t->calls;
    t->calls = k;
    t->calls_free++;
}

static struct h2_call **bucket_of(struct h2_link *c, uint32_t id)
{
    return &c->table[(id >> 1) % H2_LINK_TABLE];
}

struct h2_call *h2_call_find(const struct h2_link *c, uint32_t id)
{
    struct h2_call *k = c->table[(id >> 1) % H2_LINK_TABLE];
    while (k != NULL && k->id != id)
        k = k->next;
    return k;
}

/* --- a call's life --- */

static void take_number(struct h2_call *k)
{
    struct h2_link *c = k->link;
    k->id = c->next_id;
    struct h2_call **bucket = bucket_of(c, k->id);
    k->next = *bucket;
    *bucket = k;
    c->next_id += 2;
    if (c->next_id > INT32_MAX) /* no numbers are left */
        h2_link_retire(c);
}

static void leave_table(struct h2_call *k)
{
    struct h2_call **at = bucket_of(k->link, k->id);
    while (*at != k)
        at = &(*at)->next;
    *at = k->next;
}

struct h2_call *h2_call_begin(struct h2_link *c, struct arena *arena)
{
    struct h2_call *k = take_call();
    k->link = c;
    k->arena = arena;
    k->born_ns = h2_now();
    k->heads_end = &k->heads;
    k->length = -1;
    k->in_window = H2_CALL_WINDOW;
    k->in_left = H2_CALL_WINDOW;
    k->send_window = c->peer_window;
    list_init(&k->ready);
    waiter_init(&k->in_waiter);
    waiter_init(&k->out_waiter);
    take_number(k);
    c->calls++;
    idle_end(&c->idle);
    c->rested = false;
    if (h2_link_room(c) == 0 && !c->going) { /* full: those with room stand before it */
        list_remove(&c->node);
        list_append(&c->group->links, &c->node);
    }
    return k;
}

/* Without its record the stream's late frames are nobody's. */
static void unlink_call(struct h2_call *k)
{
    leave_table(k);
    k->link->calls--;
}

static void give_pieces(struct h2_call *k)
{
    while (k->first != NULL) {
        struct h2_piece *p = k->first;
        k->first = p->next;
        iobuf_give((char *)p);
    }
    if (k->lent != NULL)
        iobuf_give((char *)k->lent);
    k->lent = NULL;
}

/* A server that is only asked and given up again would call that an attack, and end the connection
 * for all. */
static void count_cancel(struct h2_link *c)
{
    if (++c->cancels > H2_LINK_CANCELS)
        h2_link_retire(c);
}

/* What the server has sent before it hears that is none of its faults. */
void h2_call_reset(struct h2_call *k, enum h2_error code)
{
    struct h2_link *c = k->link;
    h2_link_put_u32(c, H2_RST_STREAM, k->id, code);
    int64_t late = c->late_left + (k->ended || k->in_left < 0 ? 0 : k->in_left);
    c->late_left = late < H2_LINK_WINDOW ? late : H2_LINK_WINDOW;
}

static void close_stream(struct h2_call *k)
{
    struct h2_link *c = k->link;
    if (k->ended && k->out_ended && k->fate == H2_CALL_GOES_ON) {
        c->cancels -= c->cancels > 0;
        h2_refund(&c->budgets, H2_CONTROL, 2);
        h2_refund(&c->budgets, H2_EMPTY, 1);
        h2_refund(&c->budgets, H2_RESETS, 1);
        return;
    }
    if (!k->head_out || k->fate != H2_CALL_GOES_ON || c->dead || c->closing)
        return;
    h2_call_reset(k, H2_CANCEL);
    count_cancel(c);
}

static void begin_rest(struct h2_link *c)
{
    c->idle_ns = h2_now();
    if (c->options.single)
        h2_link_retire(c);
    if (!c->going)
        idle_begin(&c->idle, c->options.limits.idle_of, c->options.limits.idle_in_all);
}

void h2_call_end(struct h2_call *k)
{
    struct h2_link *c = k->link;
    bool was_full = h2_link_room(c) == 0;
    k->watcher = NULL; /* what follows may break the connection */
    k->awaited = false;
    list_remove(&k->ready);
    close_stream(k);
    give_pieces(k);
    h2_mine()->window_left += k->in_window - H2_CALL_WINDOW;
    unlink_call(k);
    give_call(k);
    if (c->calls == 0)
        begin_rest(c);
    if (was_full && h2_link_room(c) > 0) {
        list_remove(&c->node);
        list_prepend(&c->group->links, &c->node);
    }
    h2_group_wake(c->group);
    h2_link_schedule(c); /* it may have been the last one */
}

/* --- fates --- */

void h2_call_wake_in(struct h2_call *k)
{
    if (k->in_waiting)
        waiter_wake(&k->in_waiter, OK);
    if (!k->awaited)
        return;
    k->awaited = false;
    k->watcher->type->readable(k->watcher);
}

void h2_call_wake_out(struct h2_call *k)
{
    if (k->out_waiting)
        waiter_wake(&k->out_waiter, OK);
}

void h2_call_set_fate(struct h2_call *k, enum h2_fate fate, const char *why)
{
    list_remove(&k->ready);
    k->source = SLICE_NONE;
    k->last_words = NULL;
    h2_call_wake_out(k);
    if (k->fate != H2_CALL_GOES_ON)
        return;
    k->fate = fate;
    k->why = why;
    if (k->watcher != NULL)
        k->watcher->type->broken(k->watcher);
    h2_call_wake_in(k);
}

void h2_call_fail(struct h2_call *k, enum h2_error code, const char *why)
{
    if (k->fate != H2_CALL_GOES_ON)
        return;
    h2_call_reset(k, code);
    h2_call_set_fate(k, H2_CALL_BROKEN, why);
}

void h2_call_give_up(struct h2_call *k, const char *why)
{
    if (k->fate != H2_CALL_GOES_ON || k->ended)
        return;
    h2_call_fail(k, H2_CANCEL, why);
    count_cancel(k->link);
}

void h2_call_interrupt(struct h2_call *k)
{
    k->interrupted = true;
    h2_call_wake_in(k);
}

enum h2_fate h2_call_fate(const struct h2_call *k)
{
    return k->fate;
}

const char *h2_call_why(const struct h2_call *k)
{
    return k->why;
}

bool h2_call_began(const struct h2_call *k)
{
    return k->began;
}

bool h2_call_reused(const struct h2_call *k)
{
    return !k->first_of_link;
}

bool h2_call_unsent(const struct h2_call *k)
{
    return !k->head_out || k->link->taken <= k->head_at;
}

void h2_call_doubt(struct h2_call *k)
{
    if (k->link->heard_ns <= k->born_ns)
        h2_link_retire(k->link);
}

/* --- windows --- */

/* The larger, the more must be left: a few have large ones, or many have small ones. */
bool h2_call_widen(struct h2_call *k, uint32_t to)
{
    struct h2_thread *t = h2_mine();
    to = to < H2_CALL_WINDOW_MAX ? to : H2_CALL_WINDOW_MAX;
    uint32_t more = to > k->in_window ? to - k->in_window : 0;
    uint32_t spare = to / 4 * 3 * (H2_CALLS_WINDOW / H2_CALL_WINDOW_MAX);
    if (more == 0 || t->window_left < more + spare)
        return false;
    t->window_left -= more;
    k->in_window += more;
    k->in_due += more;
    return true;
}

void h2_call_taken(struct h2_call *k, uint32_t n)
{
    struct h2_thread *t = h2_mine();
    uint32_t more = k->in_window - H2_CALL_WINDOW, less = more < n ? more : n;
    if (t->window_left >= H2_CALLS_WINDOW / 8)
        less = 0;
    t->window_left += less;
    k->in_window -= less;
    k->in_due += n - less;
}

void h2_call_open_window(struct h2_call *k)
{
    h2_link_put_u32(k->link, H2_WINDOW_UPDATE, k->id, k->in_due);
    k->in_left += k->in_due;
    k->in_due = 0;
}

/* Where answers are large, the server need not wait for a word in the middle of each. */
static void expect_large(struct h2_call *k)
{
    if (k->link->group->large && !k->tunnel && !k->to_head &&
        h2_call_widen(k, H2_CALL_WINDOW_LARGE))
        h2_call_open_window(k);
}

/* --- the request --- */

/* Numbers go up in the order in which heads leave (RFC 9113 §5.1.1): who has waited for the server's
 * SETTINGS may have been overtaken. */
static bool renumber(struct h2_call *k)
{
    if (k->id > k->link->last_id)
        return true;
    if (k->link->next_id > INT32_MAX) {
        h2_call_set_fate(k, H2_CALL_REFUSED, "no numbers of streams are left");
        return false;
    }
    leave_table(k);
    take_number(k);
    return true;
}

/* The server's SETTINGS have come after it had begun, and allow fewer: an upgrade waits for them, and with
 * TLS they may lie behind the handshake. */
static void give_way(struct h2_call *k)
{
    const struct h2_link *c = k->link;
    if (c->settled && c->calls > c->peer_calls)
        h2_call_set_fate(k, H2_CALL_REFUSED, "the server allows fewer requests at once");
}

void h2_call_request(struct h2_call *k, const struct h2_request_head *h, bool ends)
{
    struct h2_link *c = k->link;
    give_way(k);
    if (k->fate != H2_CALL_GOES_ON || !renumber(k))
        return; /* the answer's reader finds out */
    k->to_head = slice_is(h->method, "HEAD");
    k->tunnel = h->protocol.len > 0;
    char *at = h2_link_begin_block(c, h2_request_room(h));
    if (at == NULL)
        return;
    k->head_at = c->gathered;
    k->head_out = true;
    c->last_id = k->id;
    k->out_ended = ends;
    h2_link_end_block(c, k->id, ends, h2_request_put(&c->encoder, at + H2_FRAME_HEAD, h));
    expect_large(k);
}

static void make_ready(struct h2_call *k)
{
    if (k->source.len == 0 || k->send_window <= 0 || !list_empty(&k->ready))
        return;
    list_append(&k->link->ready, &k->ready);
    h2_link_schedule(k->link);
}

void h2_call_window_grew(struct h2_call *k)
{
    make_ready(k);
}

void h2_call_put(struct h2_call *k, struct slice body, const struct fields *trailers)
{
    if (k->fate != H2_CALL_GOES_ON || k->out_ended)
        return;
    if (body.len == 0) {
        h2_call_put_end(k, trailers);
        return;
    }
    k->source = body;
    k->last_piece = true;
    k->last_words = trailers != NULL && trailers->count > 0 ? trailers : NULL;
    make_ready(k);
}

enum err await_h2_send(struct h2_call *k, struct slice piece, bool last, uint64_t deadline_ns)
{
    if (k->fate != H2_CALL_GOES_ON || k->out_ended)
        return ERR_CLOSED;
    k->source = piece;
    k->last_piece = last;
    make_ready(k);
    enum err e = OK;
    while (e == OK && k->source.len > 0 && k->fate == H2_CALL_GOES_ON) {
        waiter_init(&k->out_waiter);
        k->out_waiting = true;
        e = await_wake(&k->out_waiter, deadline_ns);
        k->out_waiting = false;
    }
    bool gone = k->source.len == 0;
    k->source = SLICE_NONE; /* the caller's memory */
    list_remove(&k->ready);
    if (k->fate != H2_CALL_GOES_ON)
        return ERR_CLOSED;
    return gone ? OK : e;
}

static void put_trailers(struct h2_call *k, const struct fields *trailers)
{
    struct h2_link *c = k->link;
    char *at = h2_link_begin_block(c, h2_block_room(trailers));
    if (at != NULL)
        h2_link_end_block(c, k->id, true,
                          h2_trailers_put(&c->encoder, at + H2_FRAME_HEAD, trailers));
}

void h2_call_put_end(struct h2_call *k, const struct fields *trailers)
{
    if (k->fate != H2_CALL_GOES_ON || k->out_ended)
        return;
    k->out_ended = true;
    if (trailers != NULL && trailers->count > 0)
        put_trailers(k, trailers);
    else
        h2_link_put(k->link, H2_DATA, H2_END_STREAM, k->id, SLICE_NONE);
}

enum err await_h2_connect_allowed(struct h2_call *k, uint64_t deadline_ns, bool *allowed)
{
    while (!k->link->settled && k->fate == H2_CALL_GOES_ON) {
        waiter_init(&k->out_waiter);
        k->out_waiting = true;
        enum err e = await_wake(&k->out_waiter, deadline_ns);
        k->out_waiting = false;
        TRY(e);
    }
    *allowed = k->link->connect_allowed;
    return k->fate == H2_CALL_GOES_ON ? OK : ERR_CLOSED;
}

/* --- DATA of those that are ready --- */

static size_t frame_size(const struct h2_link *c, const struct h2_call *k)
{
    size_t n = k->source.len, left = c->out != NULL ? c->out->cap - c->out->len : H2_LINK_OUT;
    n = n < H2_FRAME_MAX_DEFAULT ? n : H2_FRAME_MAX_DEFAULT;
    n = n < (uint64_t)k->send_window ? n : (size_t)k->send_window;
    n = n < (uint64_t)c->send_window ? n : (size_t)c->send_window;
    if (left < H2_FRAME_HEAD + (n < FRAME_MIN ? n : FRAME_MIN) + H2_LINK_ANSWER)
        return 0; /* some of it must stay for what the server's frames call for */
    left -= H2_FRAME_HEAD + H2_LINK_ANSWER;
    return n < left ? n : left;
}

static void put_data(struct h2_link *c, struct h2_call *k, size_t n)
{
    bool last = k->last_piece && n == k->source.len && k->last_words == NULL;
    h2_link_put(c, H2_DATA, last ? H2_END_STREAM : 0, k->id, slice_take(k->source, n));
    h2_refund(&c->budgets, H2_WINDOWS, 4 + (unsigned)(n / 512));
    h2_refund(&c->budgets, H2_CONTROL, 2);
    k->source = slice_skip(k->source, n);
    k->send_window -= (int64_t)n;
    c->send_window -= (int64_t)n;
    k->out_ended = last;
}

/* A frame of DATA; false: there is no window or no room for it. */
static bool put_some(struct h2_link *c, struct h2_call *k)
{
    size_t n = c->send_window > 0 ? frame_size(c, k) : 0;
    if (n == 0)
        return false;
    list_remove(&k->ready);
    put_data(c, k, n);
    if (k->source.len == 0 && k->last_words != NULL)
        list_prepend(&c->ready, &k->ready);
    else if (k->source.len == 0)
        h2_call_wake_out(k);
    else if (k->send_window > 0)
        list_append(&c->ready, &k->ready);
    return true;
}

/* Trailers behind the last of it, which need no window. */
static bool put_last_words(struct h2_link *c, struct h2_call *k)
{
    if (!h2_link_fits(c, h2_block_room(k->last_words)))
        return false;
    list_remove(&k->ready);
    k->out_ended = true;
    put_trailers(k, k->last_words);
    return true;
}

void h2_calls_fill(struct h2_link *c)
{
    for (bool more = true; more && !list_empty(&c->ready);) {
        struct h2_call *k = CONTAINER_OF(c->ready.next, struct h2_call, ready);
        more = k->source.len > 0 ? put_some(c, k) : put_last_words(c, k);
    }
}

/* --- the answer --- */

static bool has_body(const struct h2_call *k, int status)
{
    return !k->to_head && status != 204 && status != 304;
}

static void take_head(struct h2_call *k, struct h2_answer_head *h)
{
    if (h->ends && h->length > 0 && has_body(k, h->status)) {
        h2_call_fail(k, H2_PROTOCOL_ERROR, "less DATA than Content-Length");
        return;
    }
    *k->heads_end = h;
    k->heads_end = &h->next;
    k->began = true;
    if (h->status < 200) {
        if (++k->interims > H2_CALL_INTERIMS)
            h2_call_fail(k, H2_ENHANCE_YOUR_CALM, "too many 1xx responses");
        h2_call_wake_in(k);
        return;
    }
    k->head_came = true;
    k->bodiless = !has_body(k, h->status);
    k->length = k->bodiless ? 0 : h->length;
    if (!k->bodiless && !k->tunnel)
        k->link->group->large = k->length < 0 ? !h->ends : k->length > H2_CALL_WINDOW;
    if (h->ends)
        h2_call_on_end(k);
    h2_call_wake_in(k);
}

static void on_head(struct h2_link *c, struct h2_call *k, const struct h2_block *block)
{
    struct h2_answer_head *head = NULL;
    const char *why = NULL;
    switch (h2_answer_decode(&c->decoder, block, &head, &why)) {
    case H2_VERDICT_OK:
        take_head(k, head);
        break;
    case H2_VERDICT_BROKEN:
        h2_link_fail(c, H2_COMPRESSION_ERROR, why);
        break;
    case H2_VERDICT_TOO_LARGE:
        k->began = true;
        h2_call_fail(k, H2_CANCEL, why);
        break;
    default:
        k->began = true;
        h2_call_fail(k, H2_PROTOCOL_ERROR, why);
        break;
    }
}

static void on_trailers(struct h2_link *c, struct h2_call *k, const struct h2_block *block)
{
    const char *why = NULL;
    enum h2_verdict v = h2_answer_trailers(&c->decoder, block, &k->trailers, &why);
    if (v == H2_VERDICT_BROKEN)
        h2_link_fail(c, H2_COMPRESSION_ERROR, why);
    else if (v != H2_VERDICT_OK)
        h2_call_fail(k, H2_PROTOCOL_ERROR, why);
    else if (!block->ends)
        h2_call_fail(k, H2_PROTOCOL_ERROR, "trailers that do not end the stream");
    else
        h2_call_on_end(k);
}

/* For a call that was given up: the table lives on. */
static void skip_block(struct h2_link *c, struct slice bytes)
{
    const char *why = NULL;
    struct h2_thread *t = h2_mine();
    bool whole = h2_block_skip(&c->decoder, bytes, &t->scrap, &why);
    arena_reset(&t->scrap);
    if (!whole)
        h2_link_fail(c, H2_COMPRESSION_ERROR, why);
    else if (!h2_spend(&c->budgets, H2_CONTROL, h2_now()))
        h2_link_fail(c, H2_ENHANCE_YOUR_CALM, h2_budget_name(H2_CONTROL));
}

void h2_call_on_block(struct h2_link *c, uint32_t id, bool ends, struct slice bytes)
{
    struct h2_call *k = h2_call_find(c, id);
    if (k == NULL || k->fate != H2_CALL_GOES_ON) {
        skip_block(c, bytes);
        return;
    }
    if (k->ended) {
        h2_link_fail(c, H2_STREAM_CLOSED, "HEADERS behind the end of an answer");
        return;
    }
    uint64_t max = c->options.head_max;
    struct arena *scrap = &h2_mine()->scrap;
    struct h2_block block = {.bytes = bytes, .arena = k->arena != NULL ? k->arena : scrap, .ends = ends,
                             .list_max = max < UINT32_MAX ? (uint32_t)max : UINT32_MAX};
    if (k->head_came)
        on_trailers(c, k, &block);
    else
        on_head(c, k, &block);
    if (k->arena == NULL) { /* a tunnel has no use for trailers */
        k->trailers = (struct fields){0};
        arena_reset(scrap);
    }
}

/* Behind what is there already, in as many buffers as it takes. */
static void keep_bytes(struct h2_call *k, struct slice bytes)
{
    while (bytes.len > 0) {
        struct h2_piece *p = k->last;
        if (k->first == NULL || p->len == H2_PIECE) {
            p = (struct h2_piece *)(void *)iobuf_take();
            p->next = NULL;
            p->at = p->len = 0;
            if (k->first == NULL)
                k->first = p;
            else
                k->last->next = p;
            k->last = p;
        }
        size_t n = H2_PIECE - p->len < bytes.len ? H2_PIECE - p->len : bytes.len;
        memcpy(p->bytes + p->len, bytes.ptr, n);
        p->len += (uint32_t)n;
        bytes = slice_skip(bytes, n);
    }
}

void h2_call_on_data(struct h2_call *k, struct slice bytes, bool whole)
{
    k->seen += bytes.len;
    if (k->bodiless || (k->length >= 0 && k->seen > (uint64_t)k->length)) {
        h2_call_fail(k, H2_PROTOCOL_ERROR,
                     k->bodiless ? "DATA of a response that has no body"
                                 : "more DATA than Content-Length");
        return;
    }
    bool all = whole || k->seen == (uint64_t)k->length;
    bool small = all && k->first == NULL && k->seen == bytes.len && bytes.len <= CLIENT_ANSWER_SMALL;
    if (small && !k->tunnel)
        k->small = arena_copy(k->arena, bytes);
    else
        keep_bytes(k, bytes);
    h2_call_wake_in(k);
}

void h2_call_on_end(struct h2_call *k)
{
    if (k->length >= 0 && k->seen != (uint64_t)k->length) {
        h2_call_fail(k, H2_PROTOCOL_ERROR, "less DATA than Content-Length");
        return;
    }
    k->ended = true;
    h2_call_wake_in(k);
}
