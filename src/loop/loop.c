/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of a loop that both back ends share: turns, deferred tasks, the timer wheel, mail.
 *
 * A turn: fire due timers, run deferred tasks, let the back end submit, wait and complete. The clock
 * is read once, after the wait. Timers sit in a wheel of 4 ms ticks; one that lies more than one
 * turn of the wheel ahead stays in its slot and is passed over until its round comes, so starting
 * and stopping are O(1) and ten thousand idle connections cost a few list steps per tick.
 */
#include "loop/loop_internal.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "loop/fault.h"

static _Thread_local struct loop *self;

#ifdef LOOP_FAULTS
int (*loop_fault)(const struct op *, int result);
#endif

struct loop *loop_self(void)
{
    return self;
}

enum loop_kind loop_kind(const struct loop *l)
{
    return l->kind;
}

uint64_t loop_now_ns(const struct loop *l)
{
    return l->now_ns;
}

int64_t loop_wall_s(const struct loop *l)
{
    return l->wall_s;
}

unsigned loop_armed(const struct loop *l)
{
    return l->armed - l->wake_op.armed;
}

void loop_read_clock(struct loop *l)
{
    l->now_ns = clock_mono_ns();
    l->wall_s = clock_wall_ns() / (int64_t)NS_PER_S;
}

static void wheel_init(struct wheel *w, uint64_t now_ns)
{
    for (int i = 0; i < WHEEL_SLOTS; i++)
        list_init(&w->slots[i]);
    w->tick = now_ns / (WHEEL_TICK_MS * NS_PER_MS);
}

static void on_wake(struct op *op, int result);

static void arm_wake(struct loop *l)
{
    l->wake_op.on_done = on_wake;
    op_poll(l, &l->wake_op, l->wake_fd, POLLIN);
}

static enum err start_backend(struct loop *l, enum loop_kind kind)
{
    if (kind != LOOP_EPOLL) {
        l->backend = &uring_backend;
        l->kind = LOOP_URING;
        enum err e = l->backend->init(l);
        if (e == OK || kind == LOOP_URING)
            return e;
    }
    l->backend = &epoll_backend;
    l->kind = LOOP_EPOLL;
    return l->backend->init(l);
}

enum err loop_create(enum loop_kind kind, struct loop **out)
{
    ASSERT(self == NULL);
    struct loop *l = NEW(struct loop);
    loop_read_clock(l);
    wheel_init(&l->wheel, l->now_ns);
    list_init(&l->deferred);
    list_init(&l->batch);
    pthread_mutex_init(&l->mail_lock, NULL);
    l->mail_last = &l->mail_first;
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    enum err e = l->wake_fd >= 0 ? start_backend(l, kind) : ERR_LIMIT;
    if (e != OK) {
        if (l->wake_fd >= 0)
            close(l->wake_fd);
        pthread_mutex_destroy(&l->mail_lock);
        mem_free(l);
        return e;
    }
    fiber_pool_init(&l->fibers);
    self = l;
    arm_wake(l);
    *out = l;
    return OK;
}

void loop_destroy(struct loop *l)
{
    ASSERT(self == l);
    op_cancel(l, &l->wake_op);
    while (l->wake_op.armed)
        l->backend->turn(l, 0);
    ASSERT(l->armed == 0);
    l->backend->deinit(l);
    fiber_pool_deinit(&l->fibers);
    close(l->wake_fd);
    pthread_mutex_destroy(&l->mail_lock);
    mem_free(l);
    self = NULL;
}

void op_complete(struct loop *l, struct op *op, int result, bool more)
{
    if (!more) {
        op->armed = false;
        l->armed--;
    }
    op->on_done(op, FAULT(op, result));
}

static void start(struct loop *l, struct op *op, enum op_kind kind, int fd)
{
    ASSERT(!op->armed);
    op->kind = kind;
    op->fd = fd;
    op->armed = true;
    op->cancelled = op->failed = false;
    l->armed++;
    l->backend->start(l, op);
}

void op_accept(struct loop *l, struct op *op, int fd)
{
    start(l, op, OP_ACCEPT, fd);
}

void op_recv_lent(struct loop *l, struct op *op, int fd)
{
    start(l, op, OP_RECV_LENT, fd);
}

void op_recv(struct loop *l, struct op *op, int fd, char *buf, size_t len)
{
    op->buf = buf;
    op->len = len;
    start(l, op, OP_RECV, fd);
}

void op_send(struct loop *l, struct op *op, int fd, const struct msghdr *message, int flags)
{
    op->message = message;
    op->flags = flags | MSG_NOSIGNAL;
    start(l, op, OP_SEND, fd);
}

void op_send_bytes(struct loop *l, struct op *op, int fd, const char *buf, size_t len)
{
    op->buf = (char *)(uintptr_t)buf;
    op->len = len;
    start(l, op, OP_SEND_BYTES, fd);
}

void op_connect(struct loop *l, struct op *op, int fd, const struct sockaddr *address,
                socklen_t len)
{
    op->address = address;
    op->address_len = len;
    start(l, op, OP_CONNECT, fd);
}

void op_poll(struct loop *l, struct op *op, int fd, unsigned events)
{
    op->events = events;
    start(l, op, OP_POLL, fd);
}

void op_cancel(struct loop *l, struct op *op)
{
    if (!op->armed || op->cancelled)
        return;
    op->cancelled = true;
    l->backend->cancel(l, op);
}

void loop_close(struct loop *l, int fd)
{
    l->backend->close(l, fd);
    close(fd);
}

void loop_defer(struct loop *l, struct task *t)
{
    list_append(&l->deferred, &t->node);
}

void loop_defer_batch(struct loop *l, struct task *t)
{
    list_append(&l->batch, &t->node);
}

/* What a task puts off meanwhile waits for the next time. */
static void run_tasks(struct list *tasks)
{
    struct list now;
    if (list_empty(tasks))
        return;
    now.next = tasks->next;
    now.prev = tasks->prev;
    now.next->prev = now.prev->next = &now;
    list_init(tasks);
    for (struct list *n; (n = list_pop(&now)) != NULL;) {
        struct task *t = CONTAINER_OF(n, struct task, node);
        t->run(t);
    }
}

void loop_completed(struct loop *l, unsigned seen)
{
    run_tasks(&l->deferred);
    if (seen % TURN_SLICE == 0)
        run_tasks(&l->batch);
}

static void run_all(struct loop *l)
{
    run_tasks(&l->deferred);
    run_tasks(&l->batch);
}

static bool any_task(const struct loop *l)
{
    return !list_empty(&l->deferred) || !list_empty(&l->batch);
}

/* --- timers --- */

void timer_init(struct timer *t, void (*on_fire)(struct timer *))
{
    list_init(&t->node);
    t->deadline_ns = 0;
    t->on_fire = on_fire;
}

bool timer_running(const struct timer *t)
{
    return !list_empty(&t->node);
}

void timer_stop(struct timer *t)
{
    list_remove(&t->node); /* an empty slot keeps its bit until the wheel passes it */
}

/* The tick at whose end a deadline has passed. */
static uint64_t tick_of(uint64_t deadline_ns)
{
    return deadline_ns / (WHEEL_TICK_MS * NS_PER_MS) + 1;
}

void timer_start(struct loop *l, struct timer *t, uint64_t deadline_ns)
{
    uint64_t tick = tick_of(deadline_ns);
    list_remove(&t->node);
    t->deadline_ns = deadline_ns;
    if (tick <= l->wheel.tick)
        tick = l->wheel.tick + 1;
    unsigned slot = tick % WHEEL_SLOTS;
    list_append(&l->wheel.slots[slot], &t->node);
    l->wheel.bitmap[slot / 64] |= UINT64_C(1) << (slot % 64);
}

static void fire_slot(struct loop *l, unsigned slot)
{
    struct list *head = &l->wheel.slots[slot], due;
    l->wheel.bitmap[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
    list_init(&due);
    LIST_FOR_SAFE(n, head)
    {
        struct timer *t = CONTAINER_OF(n, struct timer, node);
        if (tick_of(t->deadline_ns) > l->wheel.tick)
            continue;
        list_remove(n);
        list_append(&due, n);
    }
    if (!list_empty(head))
        l->wheel.bitmap[slot / 64] |= UINT64_C(1) << (slot % 64);
    for (struct list *n; (n = list_pop(&due)) != NULL;) {
        struct timer *t = CONTAINER_OF(n, struct timer, node);
        t->on_fire(t);
    }
}

static void fire_timers(struct loop *l)
{
    uint64_t now = l->now_ns / (WHEEL_TICK_MS * NS_PER_MS);
    if (now - l->wheel.tick > WHEEL_SLOTS) /* slept longer than a round: every slot once */
        l->wheel.tick = now - WHEEL_SLOTS;
    while (l->wheel.tick < now) {
        unsigned slot = ++l->wheel.tick % WHEEL_SLOTS;
        if (l->wheel.bitmap[slot / 64] == 0 && slot % 64 == 0 && now - l->wheel.tick >= 64) {
            l->wheel.tick += 63;
            continue;
        }
        if ((l->wheel.bitmap[slot / 64] >> (slot % 64) & 1) != 0)
            fire_slot(l, slot);
    }
}

/* Milliseconds to the next slot that holds anything; -1: none. */
static int next_timer_ms(const struct loop *l)
{
    for (unsigned ahead = 1; ahead <= WHEEL_SLOTS;) {
        unsigned slot = (unsigned)((l->wheel.tick + ahead) % WHEEL_SLOTS);
        uint64_t word = l->wheel.bitmap[slot / 64] >> (slot % 64);
        if (word == 0) {
            ahead += 64 - slot % 64;
            continue;
        }
        uint64_t tick = l->wheel.tick + ahead + (unsigned)__builtin_ctzll(word);
        uint64_t due_ns = tick * WHEEL_TICK_MS * NS_PER_MS;
        return due_ns <= l->now_ns ? 0 : (int)((due_ns - l->now_ns + NS_PER_MS - 1) / NS_PER_MS);
    }
    return -1;
}

/* --- mail --- */

void mailbox_post(struct loop *l, struct mail *m)
{
    m->next = NULL;
    pthread_mutex_lock(&l->mail_lock);
    *l->mail_last = m;
    l->mail_last = &m->next;
    bool wake = !l->mail_waiting;
    l->mail_waiting = true;
    if (wake) { /* under the lock, so that the loop cannot end between the two */
        uint64_t one = 1;
        (void)!write(l->wake_fd, &one, sizeof one);
    }
    pthread_mutex_unlock(&l->mail_lock);
}

static void on_wake(struct op *op, int result)
{
    struct loop *l = CONTAINER_OF(op, struct loop, wake_op);
    uint64_t ignored;
    if (result == -ECANCELED)
        return;
    (void)!read(l->wake_fd, &ignored, sizeof ignored);
    pthread_mutex_lock(&l->mail_lock);
    struct mail *m = l->mail_first;
    l->mail_first = NULL;
    l->mail_last = &l->mail_first;
    l->mail_waiting = false;
    pthread_mutex_unlock(&l->mail_lock);
    arm_wake(l);
    while (m != NULL) {
        struct mail *next = m->next;
        m->run(m);
        m = next;
    }
}

/* --- turns --- */

void loop_stop(struct loop *l)
{
    l->stopping = true;
}

void loop_settle(struct loop *l)
{
    while (loop_armed(l) > 0 || any_task(l)) {
        run_all(l);
        l->backend->turn(l, any_task(l) ? 0 : WHEEL_TICK_MS);
    }
}

void loop_run(struct loop *l)
{
    ASSERT(self == l);
    l->stopping = false;
    loop_read_clock(l);
    while (!l->stopping) {
        fire_timers(l);
        run_all(l);
        if (l->stopping)
            break;
        l->backend->turn(l, any_task(l) ? 0 : next_timer_ms(l));
    }
}
