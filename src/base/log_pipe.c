/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A list of chunks: the writer fills the last one, the reader empties the first one and gives it
 * back. A reader that keeps up makes the writer use the same two chunks again and again, which stay
 * in its cache; one that falls behind makes the list grow up to its maximum. (One large ring would
 * go through all of its memory even when it is never more than a few lines behind.)
 *
 * The writer says how far it has written after each record, and links the next chunk only when the
 * last has had its last record: a reader that sees a next chunk therefore sees all of the one in
 * hand.
 */
#include "base/log_pipe.h"

#include "base/check.h"
#include "base/mem.h"

enum { CHUNK = 64 << 10 }; /* with its head */

struct record {
    void *to;
    uint64_t len;
};

struct log_chunk {
    _Atomic(struct log_chunk *) next;
    _Atomic size_t written; /* bytes that the reader may take */
    size_t taken;           /* the reader's */
    size_t size;            /* of `data` */
    struct log_chunk *next_spare;
    _Alignas(16) char data[];
};

enum { ROOM = CHUNK - sizeof(struct log_chunk) };

static size_t room_for(size_t len)
{
    return (sizeof(struct record) + len + 15) & ~(size_t)15;
}

static struct log_chunk *new_chunk(struct log_pipe *p, size_t size)
{
    struct log_chunk *c = mem_alloc(sizeof *c + size);
    atomic_init(&c->next, NULL);
    atomic_init(&c->written, 0);
    c->taken = 0;
    c->size = size;
    c->next_spare = NULL;
    atomic_fetch_add_explicit(&p->held, sizeof *c + size, memory_order_relaxed);
    return c;
}

static void free_chunk(struct log_pipe *p, struct log_chunk *c)
{
    atomic_fetch_sub_explicit(&p->held, sizeof *c + c->size, memory_order_relaxed);
    mem_free(c);
}

void log_pipe_init(struct log_pipe *p, size_t max)
{
    *p = (struct log_pipe){.max = max};
    p->read = p->write = new_chunk(p, ROOM);
}

void log_pipe_deinit(struct log_pipe *p)
{
    struct log_chunk *lists[] = {p->spare, atomic_load(&p->emptied)};
    for (struct log_chunk *c = p->read, *next; c != NULL; c = next) {
        next = atomic_load(&c->next);
        free_chunk(p, c);
    }
    for (size_t i = 0; i < 2; i++) {
        for (struct log_chunk *c = lists[i], *next; c != NULL; c = next) {
            next = c->next_spare;
            free_chunk(p, c);
        }
    }
    *p = (struct log_pipe){0};
}

static struct log_chunk *next_chunk(struct log_pipe *p, size_t need)
{
    if (need > ROOM)
        return log_pipe_held(p) + need <= p->max ? new_chunk(p, need) : NULL;
    if (p->spare == NULL)
        p->spare = atomic_exchange_explicit(&p->emptied, NULL, memory_order_acquire);
    struct log_chunk *c = p->spare;
    if (c == NULL)
        return log_pipe_held(p) + CHUNK <= p->max ? new_chunk(p, ROOM) : NULL;
    p->spare = c->next_spare;
    atomic_store_explicit(&c->next, NULL, memory_order_relaxed);
    atomic_store_explicit(&c->written, 0, memory_order_relaxed);
    c->taken = 0;
    return c;
}

bool log_pipe_put(struct log_pipe *p, void *to, struct slice bytes)
{
    struct log_chunk *c = p->write, *last = NULL;
    size_t need = room_for(bytes.len);
    size_t at = atomic_load_explicit(&c->written, memory_order_relaxed);
    if (UNLIKELY(need > c->size - at)) {
        last = c;
        c = next_chunk(p, need);
        at = 0;
        if (c == NULL)
            return false;
    }
    struct record *r = (void *)(c->data + at);
    *r = (struct record){to, bytes.len};
    if (bytes.len > 0)
        memcpy(r + 1, bytes.ptr, bytes.len);
    /* Sequentially consistent, so that it is seen before the writer looks who sleeps. */
    atomic_store_explicit(&c->written, at + need, memory_order_seq_cst);
    if (last != NULL) {
        atomic_store_explicit(&last->next, c, memory_order_seq_cst);
        p->write = c;
    }
    return true;
}

/* Gives the emptied first chunk back: kept for its writer, a large one freed. */
static void retire_chunk(struct log_pipe *p, struct log_chunk *c)
{
    if (c->size != ROOM || log_pipe_held(p) > p->max / 4) {
        free_chunk(p, c);
        return;
    }
    struct log_chunk *head = atomic_load_explicit(&p->emptied, memory_order_relaxed);
    do
        c->next_spare = head;
    while (!atomic_compare_exchange_weak_explicit(&p->emptied, &head, c, memory_order_release,
                                                  memory_order_relaxed));
}

/* The chunk that has an untaken record, or NULL. */
static struct log_chunk *readable(struct log_pipe *p)
{
    for (;;) {
        struct log_chunk *c = p->read;
        struct log_chunk *next = atomic_load_explicit(&c->next, memory_order_seq_cst);
        if (c->taken < atomic_load_explicit(&c->written, memory_order_seq_cst))
            return c;
        if (next == NULL)
            return NULL;
        p->read = next;
        retire_chunk(p, c);
    }
}

bool log_pipe_peek(struct log_pipe *p, void **to, struct slice *bytes)
{
    const struct log_chunk *c = readable(p);
    if (c == NULL)
        return false;
    const struct record *r = (const void *)(c->data + c->taken);
    *to = r->to;
    *bytes = slice_of((const char *)(r + 1), (size_t)r->len);
    return true;
}

void log_pipe_drop(struct log_pipe *p, struct slice bytes)
{
    p->read->taken += room_for(bytes.len);
}

bool log_pipe_empty(struct log_pipe *p)
{
    return readable(p) == NULL;
}
