/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log thread goes round: take orders, empty the pipes, write what is pending, and wait. While
 * lines come it waits a few milliseconds at a time, and nobody wakes it but a pipe that is half
 * full; when a round brought nothing it says that it sleeps, looks once more, and then only the
 * eventfd wakes it.
 *
 * A writer that takes nothing (a full pipe, a full disk, a dead peer) holds up no other: what comes
 * for it is kept up to LOG_PENDING_MAX, and counted as dropped beyond. When drops have ended, a
 * line tells how many there were. A record whose log would rather wait stays in its pipe, which
 * then fills, and makes its thread wait.
 *
 * The registry of pipes is the process's; a pipe is added under the lock by its thread, and freed
 * by the log thread when its thread has ended and it is empty.
 */
#include "base/log_queue.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

enum {
    THREADS_MAX = 1024,
    PIPE_MAX = 8 << 20,
    FLUSH_AT = 256 << 10, /* pending bytes that are written before more are taken */
    BATCH_MS = 4,         /* between two looks while lines come */
    POLL_MAX = 64,
};
#define BUSY_NS (20 * NS_PER_MS)   /* between two tries of one that takes nothing now */
#define RETRY_NS (500 * NS_PER_MS) /* … and of one that fails */
#define DROPS_QUIET_NS NS_PER_S
#define CLOSE_LIMIT_NS (5 * NS_PER_S)
#define TICK_NS (NS_PER_S)

struct local { /* what one logging thread has here */
    struct log_pipe pipe;
    struct buffer scratch;
    struct arena arena;
    _Atomic(const void *) using;
    atomic_bool ended;
};

struct order {
    struct order *next;
    struct log_writer *writer;
    enum { ORDER_ADD, ORDER_TELL, ORDER_CLOSE } kind;
    void *message;
};

static struct {
    pthread_mutex_t lock; /* the registry's growth, and the orders */
    _Atomic(struct local *) locals[THREADS_MAX];
    atomic_uint locals_count;
    struct order *first, **last;
    pthread_t thread;
    pthread_key_t key;
    int event;
    atomic_bool running, sleeping, nudged, stop;
    _Atomic uint64_t dropped, stop_by_ns;
    sem_t ended;
    bool left_over;
    struct list writers; /* the log thread's */
    uint64_t tick_ns;
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER, .event = -1};

static _Thread_local struct local *mine;

/* --- the logging threads --- */

static void wake(void)
{
    uint64_t one = 1;
    (void)!write(queue.event, &one, sizeof one);
}

static void on_thread_end(void *p)
{
    struct local *l = p;
    mine = NULL;
    atomic_store(&l->ended, true);
}

static struct local *make_local(void)
{
    struct local *l = NULL;
    pthread_mutex_lock(&queue.lock);
    unsigned count = atomic_load(&queue.locals_count), at = 0;
    while (at < count && atomic_load(&queue.locals[at]) != NULL)
        at++;
    if (at < THREADS_MAX) {
        l = aligned_alloc(64, (sizeof *l + 63) & ~(size_t)63);
        if (l == NULL)
            fatal("out of memory");
        memset(l, 0, sizeof *l);
        log_pipe_init(&l->pipe, PIPE_MAX);
        buffer_init(&l->scratch, LOG_LINE_MAX);
        arena_init(&l->arena, 4096);
        atomic_store(&queue.locals[at], l);
        if (at == count)
            atomic_store(&queue.locals_count, count + 1);
    }
    pthread_mutex_unlock(&queue.lock);
    if (l != NULL)
        pthread_setspecific(queue.key, l);
    return l;
}

static struct local *my_local(void)
{
    if (UNLIKELY(mine == NULL) && atomic_load(&queue.running))
        mine = make_local();
    return mine;
}

struct buffer *log_queue_scratch(void)
{
    struct local *l = my_local();
    return l != NULL ? &l->scratch : NULL;
}

struct arena *log_queue_arena(void)
{
    return &my_local()->arena;
}

static void count_drop(struct log_writer *w)
{
    atomic_fetch_add_explicit(&w->dropped, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&queue.dropped, 1, memory_order_relaxed);
}

/* A bit in the destination tells the log thread that the line would rather wait. */
static void *tagged(struct log_writer *w, bool may_wait)
{
    return (void *)((uintptr_t)w | (may_wait ? 1 : 0));
}

static bool wait_for_room(struct local *l, struct log_writer *w, struct slice line)
{
    uint64_t end = clock_mono_ns() + LOG_WAIT_NS;
    if (atomic_load(&w->gave_up) || line.len > LOG_LINE_MAX)
        return false;
    wake();
    while (clock_mono_ns() < end) {
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
        if (log_pipe_put(&l->pipe, tagged(w, true), line))
            return true;
    }
    atomic_store(&w->gave_up, true);
    return false;
}

bool log_queue_put(struct log_writer *w, struct slice line, bool may_wait)
{
    struct local *l = my_local();
    if (l == NULL ||
        (!log_pipe_put(&l->pipe, tagged(w, may_wait), line) &&
         (!may_wait || pthread_equal(pthread_self(), queue.thread) ||
          !wait_for_room(l, w, line)))) {
        count_drop(w);
        return false;
    }
    if (atomic_load_explicit(&queue.sleeping, memory_order_seq_cst)) {
        if (atomic_exchange(&queue.sleeping, false))
            wake();
    } else if (UNLIKELY(log_pipe_held(&l->pipe) > PIPE_MAX / 2) &&
               !atomic_exchange(&queue.nudged, true)) {
        wake();
    }
    return true;
}

uint64_t log_queue_dropped(void)
{
    return atomic_load_explicit(&queue.dropped, memory_order_relaxed);
}

void log_using(const void *p)
{
    struct local *l = my_local();
    if (l != NULL)
        atomic_store_explicit(&l->using, p, memory_order_seq_cst);
}

void log_unused(const void *p)
{
    pthread_mutex_lock(&queue.lock); /* none is freed; nobody waits for the lock while it uses */
    unsigned count = atomic_load(&queue.locals_count);
    for (unsigned i = 0; i < count; i++) {
        struct local *l = atomic_load(&queue.locals[i]);
        while (l != NULL && l != mine && atomic_load(&l->using) == p)
            sched_yield();
    }
    pthread_mutex_unlock(&queue.lock);
}

/* --- orders --- */

static void give_order(struct log_writer *w, int kind, void *message)
{
    struct order *o = NEW(struct order);
    *o = (struct order){.writer = w, .kind = kind, .message = message};
    pthread_mutex_lock(&queue.lock);
    if (queue.first == NULL)
        queue.last = &queue.first;
    *queue.last = o;
    queue.last = &o->next;
    pthread_mutex_unlock(&queue.lock);
    wake();
}

void log_queue_add(struct log_writer *w)
{
    list_init(&w->node);
    buffer_init(&w->pending, LOG_PENDING_MAX);
    give_order(w, ORDER_ADD, NULL);
}

void log_queue_tell(struct log_writer *w, void *message)
{
    give_order(w, ORDER_TELL, message);
}

void log_queue_close(struct log_writer *w)
{
    give_order(w, ORDER_CLOSE, NULL);
}

static void take_order(const struct order *o)
{
    struct log_writer *w = o->writer;
    switch (o->kind) {
    case ORDER_ADD:
        list_append(&queue.writers, &w->node);
        break;
    case ORDER_TELL:
        w->type->told(w, o->message);
        break;
    case ORDER_CLOSE:
        w->closing = true;
        w->close_by_ns = clock_mono_ns() + CLOSE_LIMIT_NS;
        break;
    }
}

static void take_orders(void)
{
    pthread_mutex_lock(&queue.lock);
    struct order *o = queue.first;
    queue.first = NULL;
    pthread_mutex_unlock(&queue.lock);
    while (o != NULL) {
        struct order *next = o->next;
        take_order(o);
        mem_free(o);
        o = next;
    }
}

/* --- writing --- */

static size_t pending_len(const struct log_writer *w)
{
    return w->pending.len - w->pending_at;
}

/* The next bytes to write: all, or one packet behind its length. */
static struct slice next_bytes(const struct log_writer *w, size_t *head)
{
    struct slice all = slice_skip(buffer_slice(&w->pending), w->pending_at);
    uint32_t len;
    *head = 0;
    if (!w->packets)
        return all;
    memcpy(&len, all.ptr, sizeof len);
    *head = sizeof len;
    return slice_take(slice_skip(all, sizeof len), len);
}

static void tell_failure(struct log_writer *w, enum err e)
{
    if (w->failing)
        return;
    w->failing = true;
    log_complain("portico: writing log %s: %s; trying again\n", w->name, err_text(e));
}

static void flush(struct log_writer *w, uint64_t now)
{
    while (pending_len(w) > 0) {
        size_t head, taken = 0;
        struct slice bytes = next_bytes(w, &head);
        enum err e = w->type->write(w, bytes, &taken);
        w->pending_at += w->packets ? (taken > 0 || e == OK ? head + bytes.len : 0) : taken;
        if (taken > 0)
            atomic_store_explicit(&w->gave_up, false, memory_order_relaxed);
        w->stuck = e == ERR_TIMEOUT;
        if (e == OK) {
            w->failing = false;
            continue;
        }
        if (e != ERR_TIMEOUT)
            tell_failure(w, e);
        w->retry_ns = now + (!w->stuck ? RETRY_NS
                             : w->type->poll_fd(w) < 0 ? BUSY_NS
                                                       : UINT64_C(3600) * NS_PER_S);
        break;
    }
    if (pending_len(w) == 0) {
        buffer_clear(&w->pending);
        w->pending_at = 0;
        w->stuck = false;
        w->retry_ns = 0;
        if (w->pending.cap > 4 * FLUSH_AT)
            buffer_deinit(&w->pending);
    }
}

/* Makes room at the front before more is appended. */
static void compact(struct log_writer *w)
{
    if (w->pending_at > 0 && w->pending_at >= w->pending.len / 2) {
        buffer_consume(&w->pending, w->pending_at);
        w->pending_at = 0;
    }
}

/* False when the line must wait in its pipe. */
static bool take_line(struct log_writer *w, struct slice line, bool may_wait, uint64_t now)
{
    if (pending_len(w) >= FLUSH_AT && now >= w->retry_ns)
        flush(w, now);
    compact(w);
    size_t need = line.len + (w->packets ? sizeof(uint32_t) : 0);
    if (buffer_reserve(&w->pending, need) != OK) {
        w->pending.full = false;
        if (may_wait && !w->closing)
            return false;
        count_drop(w);
        return true;
    }
    uint32_t len = (uint32_t)line.len;
    if (w->packets)
        (void)!buffer_append(&w->pending, slice_of((const char *)&len, sizeof len));
    (void)!buffer_append(&w->pending, line);
    return true;
}

/* Empties one pipe; true when it was seen empty. */
static bool drain(struct local *l, uint64_t now, bool *moved)
{
    void *to;
    struct slice line;
    size_t total = 0;
    while (log_pipe_peek(&l->pipe, &to, &line)) {
        struct log_writer *w = (void *)((uintptr_t)to & ~(uintptr_t)1);
        if (total > PIPE_MAX || !take_line(w, line, ((uintptr_t)to & 1) != 0, now))
            return false;
        total += line.len + 1;
        *moved = true;
        log_pipe_drop(&l->pipe, line);
    }
    return true;
}

static void free_local(unsigned at, struct local *l)
{
    pthread_mutex_lock(&queue.lock);
    atomic_store(&queue.locals[at], NULL);
    pthread_mutex_unlock(&queue.lock);
    log_pipe_deinit(&l->pipe);
    buffer_deinit(&l->scratch);
    arena_deinit(&l->arena);
    free(l);
}

/* True when every pipe was seen empty: what was put before this round is with its writer. */
static bool drain_all(uint64_t now, bool *moved)
{
    bool all = true;
    unsigned count = atomic_load(&queue.locals_count);
    atomic_store(&queue.nudged, false);
    for (unsigned i = 0; i < count; i++) {
        struct local *l = atomic_load(&queue.locals[i]);
        if (l == NULL)
            continue;
        bool ended = atomic_load(&l->ended);
        bool empty = drain(l, now, moved);
        all = all && empty;
        if (ended && empty && l != mine)
            free_local(i, l);
    }
    return all;
}

/* --- the thread --- */

static void report_drops(struct log_writer *w, uint64_t now)
{
    uint64_t dropped = atomic_load_explicit(&w->dropped, memory_order_relaxed);
    if (dropped != w->drops_seen) {
        w->drops_seen = dropped;
        w->drops_ns = now;
        return;
    }
    if (dropped == w->drops_told || now < w->drops_ns + DROPS_QUIET_NS || w->stuck || w->failing)
        return;
    uint64_t lines = dropped - w->drops_told;
    w->drops_told = dropped;
    LOG(LOG_WARN, "logging", "log lines were dropped", LOG_CSTR("writer", w->name),
        LOG_NUM("lines", (int64_t)lines));
}

static void close_writer(struct log_writer *w)
{
    list_remove(&w->node);
    buffer_deinit(&w->pending);
    w->type->close(w);
}

/* True when nothing is left to write. */
static bool write_all(uint64_t now, bool drained)
{
    bool clean = true;
    bool tick = now >= queue.tick_ns;
    if (tick)
        queue.tick_ns = now + TICK_NS;
    LIST_FOR_SAFE(n, &queue.writers)
    {
        struct log_writer *w = CONTAINER_OF(n, struct log_writer, node);
        if (pending_len(w) > 0 && now >= w->retry_ns)
            flush(w, now);
        if (tick && w->type->tick != NULL)
            w->type->tick(w, clock_wall_ns());
        report_drops(w, now);
        if (w->closing && drained && (pending_len(w) == 0 || now >= w->close_by_ns))
            close_writer(w);
        else
            clean = clean && pending_len(w) == 0;
    }
    return clean;
}

/* Milliseconds until something must be done without a wake. */
static int next_look(uint64_t now)
{
    uint64_t at = now + UINT64_C(3600) * NS_PER_S;
    LIST_FOR(n, &queue.writers)
    {
        struct log_writer *w = CONTAINER_OF(n, struct log_writer, node);
        if (w->type->tick != NULL && queue.tick_ns < at)
            at = queue.tick_ns;
        if (pending_len(w) > 0 && w->retry_ns < at)
            at = w->retry_ns;
        if (w->closing && w->close_by_ns < at)
            at = w->close_by_ns;
        if (w->drops_seen != w->drops_told && now + DROPS_QUIET_NS < at)
            at = now + DROPS_QUIET_NS;
    }
    uint64_t stop_by = atomic_load(&queue.stop_by_ns);
    if (stop_by > 0 && stop_by < at)
        at = stop_by;
    return at <= now ? 0 : (int)((at - now) / NS_PER_MS + 1);
}

static void wait_for_work(int timeout_ms)
{
    struct pollfd fds[POLL_MAX] = {{.fd = queue.event, .events = POLLIN}};
    struct log_writer *of[POLL_MAX] = {NULL};
    nfds_t count = 1;
    uint64_t drop;
    LIST_FOR(n, &queue.writers)
    {
        struct log_writer *w = CONTAINER_OF(n, struct log_writer, node);
        int fd = w->stuck && count < POLL_MAX ? w->type->poll_fd(w) : -1;
        if (fd < 0)
            continue;
        fds[count] = (struct pollfd){.fd = fd, .events = POLLOUT};
        of[count++] = w;
    }
    if (poll(fds, count, timeout_ms) <= 0)
        return;
    if (fds[0].revents != 0)
        (void)!read(queue.event, &drop, sizeof drop);
    for (nfds_t i = 1; i < count; i++) {
        if (fds[i].revents != 0)
            of[i]->retry_ns = 0;
    }
}

static bool pipes_empty(void)
{
    unsigned count = atomic_load(&queue.locals_count);
    for (unsigned i = 0; i < count; i++) {
        struct local *l = atomic_load(&queue.locals[i]);
        if (l != NULL && !log_pipe_empty(&l->pipe))
            return false;
    }
    return true;
}

static void rest(bool moved, bool drained)
{
    uint64_t now = clock_mono_ns();
    if (moved || !drained) {
        wait_for_work(BATCH_MS);
        return;
    }
    atomic_store_explicit(&queue.sleeping, true, memory_order_seq_cst);
    if (pipes_empty() && !atomic_load(&queue.stop))
        wait_for_work(next_look(now));
    atomic_store(&queue.sleeping, false);
}

static void *run(void *unused)
{
    (void)unused;
    prctl(PR_SET_NAME, "log");
    for (;;) {
        bool moved = false;
        bool stopping = atomic_load(&queue.stop);
        take_orders();
        uint64_t now = clock_mono_ns();
        bool drained = drain_all(now, &moved);
        bool clean = write_all(now, drained) && drained;
        if (stopping && (clean || now >= atomic_load(&queue.stop_by_ns))) {
            queue.left_over = !clean;
            break;
        }
        if (stopping)
            wait_for_work(1);
        else
            rest(moved, drained);
    }
    LIST_FOR_SAFE(n, &queue.writers)
        close_writer(CONTAINER_OF(n, struct log_writer, node));
    sem_post(&queue.ended);
    return NULL;
}

enum err log_queue_start(void)
{
    sigset_t all, old;
    list_init(&queue.writers);
    queue.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (queue.event < 0 || pthread_key_create(&queue.key, on_thread_end) != 0)
        return ERR_LIMIT;
    sem_init(&queue.ended, 0, 0);
    atomic_store(&queue.stop, false);
    atomic_store(&queue.stop_by_ns, 0);
    atomic_store(&queue.running, true);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(&queue.thread, NULL, run, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed != 0)
        atomic_store(&queue.running, false);
    return failed == 0 ? OK : ERR_LIMIT;
}

static void free_pipes(void)
{
    unsigned count = atomic_load(&queue.locals_count);
    for (unsigned i = 0; i < count; i++) {
        struct local *l = atomic_load(&queue.locals[i]);
        if (l != NULL && (l == mine || atomic_load(&l->ended)))
            free_local(i, l);
    }
    mine = NULL;
    pthread_setspecific(queue.key, NULL);
}

bool log_queue_stop(uint64_t limit_ns)
{
    struct timespec end;
    if (!atomic_load(&queue.running))
        return true;
    atomic_store(&queue.stop_by_ns, clock_mono_ns() + limit_ns);
    atomic_store(&queue.stop, true);
    wake();
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += (time_t)(limit_ns / NS_PER_S) + 1; /* a write to a dead disk cannot be ended */
    while (sem_timedwait(&queue.ended, &end) != 0) {
        if (errno == ETIMEDOUT)
            return false;
    }
    pthread_join(queue.thread, NULL);
    atomic_store(&queue.running, false);
    free_pipes();
    pthread_key_delete(queue.key);
    close(queue.event);
    sem_destroy(&queue.ended);
    return !queue.left_over;
}
