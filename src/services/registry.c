/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each name has a handle for the life of the process, each handle a view that is exchanged as a
 * whole. A thread sits on the view that it saw last: as long as the handle still points there, which
 * is one load, nothing else is looked at. A view that is not the newest any more is let go when the
 * last request of the thread that uses it has ended.
 *
 * A request that finds no replica waits in a list behind the handle's lock, which nobody takes who
 * finds one. It is woken by mail to its thread's loop: the record is on the heap, since a fiber that
 * is cancelled goes before the mail arrives.
 */
#include "services/registry.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "loop/await.h"
#include "upstream/endpoint.h"

struct view {
    atomic_uint refs;
    struct service_view is;
    struct endpoint *endpoints[];
};

/* A thread's hold of a view. */
struct seat {
    struct service_view is; /* first: what callers have */
    struct view *view;
    unsigned uses;
    bool newest;
};

struct service_handle {
    struct slice name; /* malloc'd */
    unsigned index;
    _Atomic(struct view *) current;
    atomic_int requests;
    atomic_uint_fast64_t last_used_ns;
    atomic_bool demanded;
    struct mail demand;
    void *owner;
    pthread_mutex_t lock; /* of the rest, and of exchanging `current` */
    struct list waiting;
    unsigned waiting_count, queue_max;
};

struct queued {
    struct list node; /* of its handle, behind the lock; in none once it was told */
    struct waiter waiter;
    struct loop *loop;
    struct mail mail;
    enum err result;
    bool told;    /* behind the lock: the mail is on its way */
    bool arrived, left; /* the loop's own */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct map names; /* behind the lock */
static unsigned handles_count;
static struct loop *control_loop;
static void (*on_wanted)(struct service_handle *);
static struct view nothing = {.refs = 1};

static _Thread_local struct seat **seats;

/* --- handles --- */

static void on_demand_mail(struct mail *m)
{
    struct service_handle *h = CONTAINER_OF(m, struct service_handle, demand);
    atomic_store(&h->demanded, false);
    if (on_wanted != NULL)
        on_wanted(h);
}

static struct service_handle *make_handle(struct slice name)
{
    struct service_handle *h = NEW(struct service_handle);
    h->name = slice_of(slice_dup(name), name.len);
    h->index = handles_count++;
    h->demand.run = on_demand_mail;
    list_init(&h->waiting);
    pthread_mutex_init(&h->lock, NULL);
    atomic_fetch_add(&nothing.refs, 1);
    atomic_store(&h->current, &nothing);
    map_put(&names, h->name, h);
    return h;
}

struct service_handle *service_handle(struct slice name)
{
    pthread_mutex_lock(&lock);
    struct service_handle *h = map_get(&names, name);
    if (h == NULL && handles_count < HANDLES_MAX)
        h = make_handle(name);
    pthread_mutex_unlock(&lock);
    return h;
}

struct slice registry_name(const struct service_handle *h)
{
    return h->name;
}

void *registry_owner(const struct service_handle *h)
{
    return h->owner;
}

void registry_set_owner(struct service_handle *h, void *owner)
{
    h->owner = owner;
}

void registry_on_demand(struct loop *control, void (*wanted)(struct service_handle *))
{
    control_loop = control;
    on_wanted = wanted;
}

/* --- views --- */

static void unref_view(struct view *v)
{
    if (atomic_fetch_sub(&v->refs, 1) != 1)
        return;
    for (uint32_t i = 0; i < v->is.count; i++)
        endpoint_unref(v->endpoints[i]);
    mem_free(v);
}

static struct view *make_view(const struct registry_state *s)
{
    struct view *v = mem_zalloc(sizeof *v + s->count * sizeof v->endpoints[0]);
    atomic_init(&v->refs, 1);
    for (uint32_t i = 0; i < s->count; i++)
        v->endpoints[i] = s->endpoints[i];
    v->is = (struct service_view){v->endpoints, s->count, s->exists, s->on_demand, s->closed,
                                  s->patience_ns};
    return v;
}

/* Behind the handle's lock. */
static void tell_waiting(struct service_handle *h, enum err result)
{
    struct list *node;
    while ((node = list_pop(&h->waiting)) != NULL) {
        struct queued *q = CONTAINER_OF(node, struct queued, node);
        q->result = result;
        q->told = true;
        mailbox_post(q->loop, &q->mail);
    }
    h->waiting_count = 0;
}

void registry_publish(struct service_handle *h, const struct registry_state *s)
{
    struct view *v = make_view(s);
    pthread_mutex_lock(&h->lock);
    struct view *old = atomic_exchange(&h->current, v);
    h->queue_max = s->queue_max;
    if (s->count > 0)
        tell_waiting(h, OK);
    else if (s->closed || !s->exists)
        tell_waiting(h, ERR_CLOSED);
    pthread_mutex_unlock(&h->lock);
    unref_view(old);
}

static void free_seat(struct seat *s)
{
    unref_view(s->view);
    mem_free(s);
}

static struct seat *sit_down(struct service_handle *h)
{
    struct seat *old = seats[h->index], *s = NEW(struct seat);
    pthread_mutex_lock(&h->lock);
    s->view = atomic_load(&h->current);
    atomic_fetch_add(&s->view->refs, 1);
    pthread_mutex_unlock(&h->lock);
    s->is = s->view->is;
    s->newest = true;
    seats[h->index] = s;
    if (old != NULL) {
        old->newest = false;
        if (old->uses == 0)
            free_seat(old);
    }
    return s;
}

const struct service_view *service_view_take(struct service_handle *h)
{
    if (seats == NULL)
        seats = mem_zalloc(HANDLES_MAX * sizeof *seats);
    struct seat *s = seats[h->index];
    if (s == NULL || s->view != atomic_load_explicit(&h->current, memory_order_acquire))
        s = sit_down(h);
    s->uses++;
    return &s->is;
}

void service_view_give(const struct service_view *v)
{
    struct seat *s = (struct seat *)(uintptr_t)v;
    if (--s->uses == 0 && !s->newest)
        free_seat(s);
}

void services_thread_deinit(void)
{
    for (unsigned i = 0; seats != NULL && i < HANDLES_MAX; i++)
        if (seats[i] != NULL)
            free_seat(seats[i]);
    mem_free(seats);
    seats = NULL;
}

/* --- waiting for a replica --- */

static void on_told(struct mail *m)
{
    struct queued *q = CONTAINER_OF(m, struct queued, mail);
    q->arrived = true;
    if (q->left)
        mem_free(q);
    else
        waiter_wake(&q->waiter, q->result);
}

/* OK: the record waits in the list. Else why there is nothing to wait for, or (*ready) no need. */
static enum err queue_up(struct service_handle *h, struct queued *q, bool *ready)
{
    enum err e = OK;
    pthread_mutex_lock(&h->lock);
    const struct service_view *now = &atomic_load(&h->current)->is;
    *ready = now->count > 0;
    if (*ready) {
        pthread_mutex_unlock(&h->lock);
        return OK;
    }
    if (!now->exists || now->closed)
        e = ERR_CLOSED;
    else if (h->waiting_count >= h->queue_max)
        e = ERR_LIMIT;
    if (e == OK) {
        list_append(&h->waiting, &q->node);
        h->waiting_count++;
    }
    pthread_mutex_unlock(&h->lock);
    return e;
}

/* The record is freed here, or by its mail when that is still on its way. */
static void leave_queue(struct service_handle *h, struct queued *q)
{
    pthread_mutex_lock(&h->lock);
    bool told = q->told;
    if (!told) {
        list_remove(&q->node);
        h->waiting_count--;
    }
    pthread_mutex_unlock(&h->lock);
    if (!told || q->arrived)
        mem_free(q);
    else
        q->left = true;
}

enum err await_service(struct service_handle *h, uint64_t deadline_ns)
{
    bool ready;
    struct queued *q = NEW(struct queued);
    list_init(&q->node);
    waiter_init(&q->waiter);
    q->loop = loop_self();
    q->mail.run = on_told;
    enum err e = queue_up(h, q, &ready);
    if (e != OK || ready) {
        mem_free(q);
        return e;
    }
    if (control_loop != NULL && !atomic_exchange(&h->demanded, true))
        mailbox_post(control_loop, &h->demand);
    e = await_wake(&q->waiter, deadline_ns);
    leave_queue(h, q);
    return e;
}

/* --- use --- */

void service_used(struct service_handle *h, int step)
{
    if (step < 0)
        atomic_store_explicit(&h->last_used_ns, clock_mono_ns(), memory_order_relaxed);
    atomic_fetch_add_explicit(&h->requests, step, memory_order_relaxed);
}

int registry_requests(const struct service_handle *h)
{
    return atomic_load_explicit(&h->requests, memory_order_relaxed);
}

uint64_t registry_last_used_ns(const struct service_handle *h)
{
    return atomic_load_explicit(&h->last_used_ns, memory_order_relaxed);
}

unsigned registry_waiting(const struct service_handle *h)
{
    struct service_handle *own = (struct service_handle *)(uintptr_t)h;
    pthread_mutex_lock(&own->lock);
    unsigned count = h->waiting_count;
    pthread_mutex_unlock(&own->lock);
    return count;
}
