/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An answer that comes on a stream of HTTP/2, behind the face of an HTTP/1 answer. The frames were
 * taken apart when they came; here a fiber takes what is there, or waits for more. A small body that
 * has come whole lies in the arena; any other is given out buffer by buffer, and the window opens again
 * as the next one is asked for.
 */
#include "client/h2_link_internal.h"

#include "base/check.h"

struct client_answer *h2_call_answer(struct h2_call *k, struct arena *arena, uint64_t head_max)
{
    struct client_answer *a = client_answer_begin(NULL, arena, head_max);
    a->h2 = k;
    a->head.status = 0;
    return a;
}

/* --- waiting --- */

static enum err fail(struct client_answer *a)
{
    a->why = a->h2->fate != H2_CALL_LOST ? a->h2->why : NULL;
    return a->h2->fate == H2_CALL_LOST ? ERR_CLOSED : ERR_INVALID;
}

static enum err await_more(struct h2_call *k, uint64_t deadline_ns)
{
    waiter_init(&k->in_waiter);
    k->in_waiting = true;
    enum err e = k->interrupted ? ERR_CANCELLED : await_wake(&k->in_waiter, deadline_ns);
    k->in_waiting = false;
    if (e == OK && k->interrupted)
        e = ERR_CANCELLED;
    k->interrupted = false;
    return e;
}

/* --- heads --- */

static void set_body(struct client_answer *a, const struct h2_answer_head *h)
{
    struct h2_call *k = a->h2;
    struct h1_head *to = &a->head;
    to->has_length = h->length >= 0;
    to->content_length = h->length >= 0 ? (uint64_t)h->length : 0;
    a->in = k->small;
    a->stable = k->small.len > 0;
    a->left = to->content_length;
    a->done = k->ended && k->seen == 0 && k->trailers.count == 0;
    to->body = k->bodiless || a->done ? H1_BODY_NONE
               : h->length >= 0       ? H1_BODY_LENGTH
                                      : H1_BODY_CHUNKED;
}

/* A 2xx to an extended CONNECT is what 101 is to an upgrade (RFC 8441 §5). */
static void set_head(struct client_answer *a, const struct h2_answer_head *h)
{
    struct h1_head *to = &a->head;
    to->status = a->h2->tunnel && h->status / 100 == 2 ? 101 : h->status;
    to->minor = 1;
    to->keep_alive = true;
    to->reason = SLICE_NONE;
    to->upgrade = SLICE_NONE;
    to->bad = NULL;
    to->count = h->count;
    if (h->count > 0)
        memcpy(to->fields, h->fields, h->count * sizeof *h->fields);
    if (h->status >= 200) {
        set_body(a, h);
        return;
    }
    to->body = H1_BODY_NONE;
    to->has_length = false;
    to->content_length = 0;
}

enum err h2_call_read_head(struct client_answer *a, bool to_head, uint64_t deadline_ns)
{
    struct h2_call *k = a->h2;
    (void)to_head; /* said with the request */
    while (k->heads == NULL) {
        if (k->fate != H2_CALL_GOES_ON)
            return fail(a);
        TRY(await_more(k, deadline_ns));
    }
    struct h2_answer_head *h = k->heads;
    k->heads = h->next;
    if (k->heads == NULL)
        k->heads_end = &k->heads;
    a->began = true;
    set_head(a, h);
    return OK;
}

/* --- bodies --- */

/* Before it is used up, in large steps; a reader who is faster than the window gets a larger one. */
static void open_window(struct h2_call *k, bool waits)
{
    if (k->ended || k->fate != H2_CALL_GOES_ON ||
        (k->length >= 0 && (uint64_t)k->length <= k->seen + (uint64_t)k->in_left))
        return; /* all that is to come may come */
    if (waits && k->seen >= k->in_window)
        (void)h2_call_widen(k, 2 * k->in_window);
    if (k->in_due >= k->in_window / 2)
        h2_call_open_window(k);
}

static struct slice take_piece(struct h2_call *k)
{
    struct h2_piece *p = k->first;
    k->first = p->next;
    if (k->first == NULL)
        k->last = NULL;
    k->lent = p;
    return slice_of(p->bytes, p->len);
}

static void return_piece(struct h2_call *k)
{
    struct h2_piece *p = k->lent;
    if (p == NULL)
        return;
    k->lent = NULL;
    h2_call_taken(k, p->len);
    iobuf_give((char *)p);
    open_window(k, false);
}

static void look_for_end(struct client_answer *a)
{
    struct h2_call *k = a->h2;
    a->done = k->ended && k->first == NULL;
    if (a->done)
        a->trailers = k->trailers;
}

enum err h2_call_read_body(struct client_answer *a, uint64_t deadline_ns, struct slice *piece)
{
    struct h2_call *k = a->h2;
    *piece = a->in;
    a->in = SLICE_NONE;
    if (piece->len > 0)
        k->small = SLICE_NONE;
    return_piece(k);
    while (piece->len == 0 && !a->done) {
        if (k->small.len > 0) { /* it came behind the head's turn */
            *piece = k->small;
            k->small = SLICE_NONE;
        } else if (k->first != NULL) {
            *piece = take_piece(k);
        } else if (k->ended) {
            break;
        } else if (k->fate != H2_CALL_GOES_ON) {
            return fail(a);
        } else {
            open_window(k, true);
            TRY(await_more(k, deadline_ns));
        }
    }
    a->left -= a->left > piece->len ? piece->len : a->left;
    look_for_end(a);
    return OK;
}
