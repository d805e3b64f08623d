/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pattern for all: try; on EAGAIN start an op that resumes this fiber, with a timer that cancels
 * it; suspend; look at the result. The op and the timer stand on the fiber's own stack: safe, since
 * the function does not return before the op has completed.
 */
#include "loop/await.h"

#include <errno.h>
#include <poll.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"
#include "loop/loop_internal.h"
#include "loop/offload.h"

struct wait {
    struct op op;
    struct timer timer;
    struct fiber *fiber;
    int result;
    bool late, done;
};

static void on_op(struct op *op, int result)
{
    struct wait *w = CONTAINER_OF(op, struct wait, op);
    w->result = result;
    w->done = true;
    fiber_resume(w->fiber);
}

static void on_deadline(struct timer *t)
{
    struct wait *w = CONTAINER_OF(t, struct wait, timer);
    w->late = true;
    op_cancel(loop_self(), &w->op);
}

static enum err begin(struct wait *w)
{
    w->fiber = fiber_self();
    ASSERT(w->fiber != NULL);
    w->op.on_done = on_op;
    w->op.armed = false;
    w->late = w->done = false;
    timer_init(&w->timer, on_deadline);
    return w->fiber->cancelled;
}

/* Suspends until the started op is done; its result, or why it ended early. */
static enum err finish(struct wait *w, uint64_t deadline_ns)
{
    struct loop *l = loop_self();
    if (deadline_ns > 0)
        timer_start(l, &w->timer, deadline_ns);
    w->fiber->op = &w->op;
    while (!w->done)
        fiber_suspend();
    w->fiber->op = NULL;
    timer_stop(&w->timer);
    if (w->result >= 0)
        return OK;
    if (w->fiber->cancelled != OK)
        return w->fiber->cancelled;
    if (w->late)
        return ERR_TIMEOUT;
    return err_from_errno(-w->result);
}

static bool would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK;
}

enum err await_recv(int fd, char *buf, size_t len, uint64_t deadline_ns, size_t *n)
{
    struct wait w;
    ssize_t got;
    *n = 0;
    TRY(begin(&w));
    do
        got = recv(fd, buf, len, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got >= 0) {
        *n = (size_t)got;
        return OK;
    }
    if (!would_block())
        return err_from_errno(errno);
    op_recv(loop_self(), &w.op, fd, buf, len);
    TRY(finish(&w, deadline_ns));
    *n = (size_t)w.result;
    return OK;
}

enum err await_recv_lent(int fd, uint64_t deadline_ns, struct slice *lent)
{
    struct wait w;
    *lent = SLICE_NONE;
    TRY(begin(&w));
    op_recv_lent(loop_self(), &w.op, fd);
    TRY(finish(&w, deadline_ns)); /* resumed from within on_done */
    *lent = w.op.lent;
    return OK;
}

void message_skip(struct msghdr *m, size_t sent)
{
    while (m->msg_iovlen > 0 && sent >= m->msg_iov->iov_len) {
        sent -= m->msg_iov->iov_len;
        m->msg_iov++;
        m->msg_iovlen--;
    }
    if (m->msg_iovlen > 0) {
        m->msg_iov->iov_base = (char *)m->msg_iov->iov_base + sent;
        m->msg_iov->iov_len -= sent;
    }
}

/* By bare system calls: the C library's are cancellation points, which costs in every call, and one
 * part needs no message header to be copied in. */
ssize_t send_now(int fd, const struct msghdr *m, int flags)
{
    ssize_t n;
    flags |= MSG_DONTWAIT | MSG_NOSIGNAL;
    do {
        n = m->msg_iovlen == 1 ? syscall(SYS_sendto, fd, m->msg_iov->iov_base,
                                         m->msg_iov->iov_len, flags, NULL, 0)
                               : syscall(SYS_sendmsg, fd, m, flags);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static enum err send_some(int fd, struct msghdr *m, int flags, uint64_t deadline_ns, size_t *n)
{
    struct wait w;
    TRY(begin(&w));
    ssize_t sent = send_now(fd, m, flags);
    if (sent >= 0) {
        *n = (size_t)sent;
        return OK;
    }
    if (sent != -EAGAIN)
        return err_from_errno((int)-sent);
    op_send(loop_self(), &w.op, fd, m, flags);
    TRY(finish(&w, deadline_ns));
    *n = (size_t)w.result;
    return OK;
}

enum err await_send_some(int fd, struct msghdr *m, int flags, uint64_t deadline_ns, size_t *sent)
{
    *sent = 0;
    message_skip(m, 0); /* empty parts */
    if (m->msg_iovlen == 0)
        return OK;
    TRY(send_some(fd, m, flags, deadline_ns, sent));
    message_skip(m, *sent);
    return OK;
}

enum err await_send(int fd, struct iovec *parts, size_t count, int flags, uint64_t deadline_ns,
                    size_t *sent)
{
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = count};
    *sent = 0;
    while (m.msg_iovlen > 0) {
        size_t n;
        TRY(await_send_some(fd, &m, flags, deadline_ns, &n));
        *sent += n;
    }
    return OK;
}

enum err await_poll(int fd, unsigned events, uint64_t deadline_ns, unsigned *ready)
{
    struct wait w;
    TRY(begin(&w));
    op_poll(loop_self(), &w.op, fd, events);
    TRY(finish(&w, deadline_ns));
    *ready = (unsigned)w.result;
    return OK;
}

enum err await_sendfile_some(int fd, int file, uint64_t offset, uint64_t len, uint64_t deadline_ns,
                             uint64_t *sent)
{
    const size_t piece = 256 * 1024; /* measured: docs/decisions/0011 */
    off_t at = (off_t)offset;
    *sent = 0;
    while (len > 0) {
        unsigned ready;
        if (fiber_self()->cancelled != OK)
            return fiber_self()->cancelled;
        ssize_t n = sendfile(fd, file, &at, len < piece ? (size_t)len : piece);
        if (n > 0) {
            *sent = (uint64_t)n;
            return OK;
        }
        if (n == 0)
            return ERR_IO;
        if (would_block())
            TRY(await_poll(fd, POLLOUT, deadline_ns, &ready));
        else if (errno != EINTR)
            return err_from_errno(errno);
    }
    return OK;
}

enum err await_sendfile(int fd, int file, uint64_t offset, uint64_t len, uint64_t deadline_ns,
                        uint64_t *sent)
{
    *sent = 0;
    while (*sent < len) {
        uint64_t n;
        TRY(await_sendfile_some(fd, file, offset + *sent, len - *sent, deadline_ns, &n));
        *sent += n;
    }
    return OK;
}

enum err await_connect(int fd, const struct sockaddr *address, socklen_t len, uint64_t deadline_ns)
{
    struct wait w;
    TRY(begin(&w));
    op_connect(loop_self(), &w.op, fd, address, len);
    return finish(&w, deadline_ns);
}

enum err await_sleep(uint64_t until_ns)
{
    struct waiter w;
    waiter_init(&w);
    enum err e = await_wake(&w, until_ns > 0 ? until_ns : 1);
    return e == ERR_TIMEOUT ? OK : e;
}

/* --- waits for other code of this thread --- */

static void on_waiter_turn(struct task *t)
{
    fiber_resume(CONTAINER_OF(t, struct waiter, task)->fiber);
}

static void on_waiter_deadline(struct timer *t)
{
    waiter_wake(CONTAINER_OF(t, struct waiter, timer), ERR_TIMEOUT);
}

static void on_interrupt(struct fiber *f)
{
    waiter_wake(f->waiter, f->cancelled);
}

void waiter_init(struct waiter *w)
{
    *w = (struct waiter){.fiber = NULL};
    w->task.run = on_waiter_turn;
    timer_init(&w->timer, on_waiter_deadline);
}

void waiter_wake(struct waiter *w, enum err result)
{
    if (w->woken)
        return;
    w->woken = true;
    w->result = result;
    timer_stop(&w->timer);
    if (w->fiber != NULL)
        loop_defer(loop_self(), &w->task);
}

enum err await_wake(struct waiter *w, uint64_t deadline_ns)
{
    struct fiber *f = fiber_self();
    ASSERT(f != NULL && w->fiber == NULL);
    if (f->cancelled != OK)
        return f->cancelled;
    if (!w->woken) {
        w->fiber = f;
        f->waiter = w;
        f->interrupt = on_interrupt;
        if (deadline_ns > 0)
            timer_start(loop_self(), &w->timer, deadline_ns);
        fiber_suspend();
        f->interrupt = NULL;
        f->waiter = NULL;
        w->fiber = NULL;
    }
    w->woken = false;
    return w->result;
}

enum err await_yield(void)
{
    struct waiter w;
    struct fiber *f = fiber_self();
    TRY(f->cancelled);
    waiter_init(&w);
    w.fiber = f;
    loop_defer_batch(loop_self(), &w.task);
    fiber_suspend(); /* a cancel finds nothing to end: the task comes anyway */
    return f->cancelled;
}

/* --- blocking work --- */

struct offloaded {
    struct offload_job job;
    struct waiter waiter;
};

static void on_offloaded(struct offload_job *job)
{
    waiter_wake(&CONTAINER_OF(job, struct offloaded, job)->waiter, OK);
}

static enum err offload(void (*function)(void *), void *arg, bool slow)
{
    struct offloaded o = {
        .job = {.work = function, .arg = arg, .on_done = on_offloaded, .slow = slow}};
    struct fiber *f = fiber_self();
    TRY(f->cancelled);
    waiter_init(&o.waiter);
    TRY(offload_submit(loop_self(), &o.job));
    /* The job uses this frame until it is done: a cancel must not end the wait. */
    o.waiter.fiber = f;
    fiber_suspend();
    return f->cancelled;
}

enum err await_offload(void (*function)(void *), void *arg)
{
    return offload(function, arg, false);
}

enum err await_offload_slow(void (*function)(void *), void *arg)
{
    return offload(function, arg, true);
}

/* --- work for a larger stack --- */

struct on_loop {
    struct task task;
    struct fiber *fiber;
    void (*function)(void *);
    void *arg;
};

static void on_loop_turn(struct task *t)
{
    struct on_loop *o = CONTAINER_OF(t, struct on_loop, task);
    o->function(o->arg);
    fiber_resume(o->fiber);
}

void await_on_loop(void (*function)(void *), void *arg)
{
    struct on_loop o = {.task = {.run = on_loop_turn}, .fiber = fiber_self(),
                        .function = function, .arg = arg};
    ASSERT(o.fiber != NULL);
    loop_defer(loop_self(), &o.task);
    fiber_suspend(); /* nothing else wakes it: it waits for no op and has no interrupt */
}
