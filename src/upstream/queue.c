/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue has one lock, which is taken only by who finds no room and, while somebody waits, by ends of
 * requests. The end of a request sees first whether anybody waits at all (requests_queued), then whether
 * anybody watches its endpoint. No wake-up is lost, since both sides first write and then look: who joins
 * counts himself and then looks for room, who ends gives room and then looks for who is counted.
 *
 * Each end wakes one that was not told yet. It goes to the list of those that were told until its
 * thread runs it (mail to its loop); when it finds no room after all it is the first again. An end that
 * finds all told leaves `spare`: whoever has his turn next looks at all upstreams, and whoever leaves
 * passes it on. So does one that was told and leaves for another reason.
 *
 * A place is on the heap: a fiber that is cancelled goes before its mail arrives. Watches are added and
 * removed behind one lock of the process, so that a passing queue cannot forget what another
 * thread has just found there. Order of locks: watching, endpoint, queue.
 */
#include "upstream/queue.h"

#include "base/check.h"
#include "base/mem.h"
#include "loop/await.h"

struct request_queue {
    pthread_mutex_t lock;
    struct list waiting, told;
    atomic_uint count; /* of both */
    unsigned max;
    bool spare, passing;
    struct list watches; /* behind `watching` */
};

struct queued {
    struct list node;
    struct waiter waiter;
    struct loop *loop;
    struct mail mail;
    int hint;
    bool told;          /* behind the lock: in that list, the mail is on its way or was not heeded yet */
    bool arrived, left; /* the loop's own */
};

struct watch {
    struct list of_endpoint, of_queue;
    struct endpoint *endpoint;
    struct request_queue *queue;
    int hint;
};

atomic_int requests_queued;
static pthread_mutex_t watching = PTHREAD_MUTEX_INITIALIZER;

struct request_queue *request_queue_create(unsigned max, bool passing)
{
    struct request_queue *q = NEW(struct request_queue);
    pthread_mutex_init(&q->lock, NULL);
    list_init(&q->waiting);
    list_init(&q->told);
    list_init(&q->watches);
    q->max = max;
    q->passing = passing;
    return q;
}

/* --- watches --- */

static bool is_watched(struct endpoint *e, const struct request_queue *q)
{
    for (struct list *n = e->watches.next; n != &e->watches; n = n->next)
        if (CONTAINER_OF(n, struct watch, of_endpoint)->queue == q)
            return true;
    return false;
}

void request_queue_watch(struct request_queue *q, struct endpoint *e, int hint)
{
    pthread_mutex_lock(&watching);
    if (!is_watched(e, q)) {
        struct watch *w = NEW(struct watch);
        *w = (struct watch){.endpoint = e, .queue = q, .hint = hint};
        list_init(&w->of_endpoint);
        list_init(&w->of_queue);
        endpoint_hold(e);
        list_append(&q->watches, &w->of_queue);
        pthread_mutex_lock(&e->lock);
        list_append(&e->watches, &w->of_endpoint);
        atomic_fetch_add(&e->watched, 1);
        pthread_mutex_unlock(&e->lock);
    }
    pthread_mutex_unlock(&watching);
    atomic_thread_fence(memory_order_seq_cst); /* before the caller looks for room */
}

/* Behind `watching`. */
static void forget_watches(struct request_queue *q)
{
    struct list *node;
    while ((node = list_pop(&q->watches)) != NULL) {
        struct watch *w = CONTAINER_OF(node, struct watch, of_queue);
        pthread_mutex_lock(&w->endpoint->lock);
        list_remove(&w->of_endpoint);
        atomic_fetch_sub(&w->endpoint->watched, 1);
        pthread_mutex_unlock(&w->endpoint->lock);
        endpoint_unref(w->endpoint);
        mem_free(w);
    }
}

void request_queue_free(struct request_queue *q)
{
    ASSERT(atomic_load(&q->count) == 0);
    pthread_mutex_lock(&watching);
    forget_watches(q);
    pthread_mutex_unlock(&watching);
    pthread_mutex_destroy(&q->lock);
    mem_free(q);
}

/* --- waking --- */

/* Behind the lock. */
static void wake_next(struct request_queue *q, int hint)
{
    struct list *node = list_pop(&q->waiting);
    if (node == NULL) {
        q->spare = true;
        return;
    }
    struct queued *p = CONTAINER_OF(node, struct queued, node);
    list_append(&q->told, node);
    p->told = true;
    p->hint = hint;
    mailbox_post(p->loop, &p->mail);
}

void queues_tell(struct endpoint *e)
{
    if (atomic_load(&e->watched) == 0)
        return;
    pthread_mutex_lock(&e->lock);
    for (struct list *n = e->watches.next; n != &e->watches; n = n->next) {
        struct watch *w = CONTAINER_OF(n, struct watch, of_endpoint);
        if (atomic_load(&w->queue->count) == 0)
            continue;
        pthread_mutex_lock(&w->queue->lock);
        wake_next(w->queue, w->hint);
        pthread_mutex_unlock(&w->queue->lock);
    }
    pthread_mutex_unlock(&e->lock);
}

static void on_told(struct mail *m)
{
    struct queued *p = CONTAINER_OF(m, struct queued, mail);
    p->arrived = true;
    if (p->left)
        mem_free(p);
    else
        waiter_wake(&p->waiter, OK);
}

/* --- places --- */

unsigned request_queue_length(struct request_queue *q)
{
    return atomic_load_explicit(&q->count, memory_order_relaxed);
}

enum err request_queue_join(struct request_queue *q, struct queued **out)
{
    struct queued *p = NEW(struct queued);
    list_init(&p->node);
    waiter_init(&p->waiter);
    p->loop = loop_self();
    p->mail.run = on_told;
    pthread_mutex_lock(&q->lock);
    bool full = atomic_load_explicit(&q->count, memory_order_relaxed) >= q->max;
    if (!full) {
        list_append(&q->waiting, &p->node);
        atomic_fetch_add(&q->count, 1);
        atomic_fetch_add(&requests_queued, 1);
    }
    pthread_mutex_unlock(&q->lock);
    if (full) {
        mem_free(p);
        return ERR_LIMIT;
    }
    atomic_thread_fence(memory_order_seq_cst);
    *out = p;
    return OK;
}

enum err await_turn(struct request_queue *q, struct queued *p, uint64_t deadline_ns, int *hint)
{
    TRY(await_wake(&p->waiter, deadline_ns));
    pthread_mutex_lock(&q->lock);
    *hint = q->spare ? NO_HINT : p->hint;
    q->spare = false;
    p->told = p->arrived = false;
    list_remove(&p->node);
    list_prepend(&q->waiting, &p->node);
    pthread_mutex_unlock(&q->lock);
    return OK;
}

void request_queue_leave(struct request_queue *q, struct queued *p, bool more, int hint)
{
    pthread_mutex_lock(&q->lock);
    bool told = p->told;
    list_remove(&p->node);
    bool last = atomic_fetch_sub(&q->count, 1) == 1;
    atomic_fetch_sub(&requests_queued, 1);
    more |= q->spare;
    q->spare = false;
    if (more && !list_empty(&q->waiting))
        wake_next(q, hint);
    if (told && !list_empty(&q->waiting))
        wake_next(q, p->hint);
    pthread_mutex_unlock(&q->lock);
    if (!told || p->arrived)
        mem_free(p);
    else
        p->left = true;
    if (!last || !q->passing)
        return;
    pthread_mutex_lock(&watching);
    if (atomic_load(&q->count) == 0)
        forget_watches(q);
    pthread_mutex_unlock(&watching);
}
