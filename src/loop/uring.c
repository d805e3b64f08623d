/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The io_uring back end. Operations are queued as they are started and submitted together, once a
 * turn, by the call that also waits; task work runs only then (DEFER_TASKRUN, SINGLE_ISSUER). Idle
 * reads take their buffer from a provided ring when bytes come, so a waiting connection owns none;
 * the buffer goes back to the ring as soon as on_done returns. The ring goes round all that it has: it begins
 * with few, which stay in the caches, and gets more when they were not enough at once. Accept is multishot.
 */
#include "loop/loop_internal.h"

#include <errno.h>
#include <liburing.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"

enum { ENTRIES = 1024, LENT_COUNT = 256, LENT_FIRST = 8, LENT_GROUP = 1 };

struct uring_state {
    struct io_uring ring;
    struct io_uring_buf_ring *lent_ring;
    char *lent;
    unsigned provided;  /* of LENT_COUNT */
    struct op *starved; /* reads that found no provided buffer; tried again next turn */
};

static size_t lent_ring_size(void)
{
    return LENT_COUNT * sizeof(struct io_uring_buf);
}

static enum err open_ring(struct io_uring *ring)
{
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER |
                                              IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CLAMP};
    int result = io_uring_queue_init_params(ENTRIES, ring, &params);
    if (result == 0)
        return OK;
    return err_from_errno(-result) == ERR_LIMIT ? ERR_LIMIT : ERR_UNSUPPORTED;
}

static void give_back(struct uring_state *s, unsigned id)
{
    io_uring_buf_ring_add(s->lent_ring, s->lent + (size_t)id * LENT_SIZE, LENT_SIZE,
                          (unsigned short)id, io_uring_buf_ring_mask(LENT_COUNT), 0);
    io_uring_buf_ring_advance(s->lent_ring, 1);
}

/* Twice as many as before. */
static void provide_more(struct uring_state *s)
{
    unsigned wanted = s->provided > 0 ? s->provided * 2 : LENT_FIRST;
    while (s->provided < wanted && s->provided < LENT_COUNT)
        give_back(s, s->provided++);
}

static enum err provide_buffers(struct uring_state *s)
{
    s->lent_ring = mmap(NULL, lent_ring_size(), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s->lent_ring == MAP_FAILED)
        return ERR_LIMIT;
    struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)s->lent_ring,
                                   .ring_entries = LENT_COUNT,
                                   .bgid = LENT_GROUP};
    if (io_uring_register_buf_ring(&s->ring, &reg, 0) != 0) {
        munmap(s->lent_ring, lent_ring_size());
        return ERR_UNSUPPORTED;
    }
    io_uring_buf_ring_init(s->lent_ring);
    s->lent = mmap(NULL, (size_t)LENT_COUNT * LENT_SIZE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->lent == MAP_FAILED)
        fatal("out of memory");
    provide_more(s);
    return OK;
}

static enum err init(struct loop *l)
{
    struct uring_state *s = NEW(struct uring_state);
    enum err e = open_ring(&s->ring);
    if (e == OK) {
        e = provide_buffers(s);
        if (e != OK)
            io_uring_queue_exit(&s->ring);
    }
    if (e != OK) {
        mem_free(s);
        return e;
    }
    l->state = s;
    return OK;
}

static void deinit(struct loop *l)
{
    struct uring_state *s = l->state;
    io_uring_queue_exit(&s->ring);
    munmap(s->lent_ring, lent_ring_size());
    munmap(s->lent, (size_t)LENT_COUNT * LENT_SIZE);
    mem_free(s);
}

enum err loop_try_uring(void)
{
    struct uring_state s = {0};
    TRY(open_ring(&s.ring));
    enum err e = provide_buffers(&s);
    io_uring_queue_exit(&s.ring);
    if (e == OK) {
        munmap(s.lent_ring, lent_ring_size());
        munmap(s.lent, (size_t)LENT_COUNT * LENT_SIZE);
    }
    return e;
}

static struct io_uring_sqe *take_sqe(struct uring_state *s)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&s->ring);
    if (sqe != NULL)
        return sqe;
    io_uring_submit(&s->ring);
    sqe = io_uring_get_sqe(&s->ring);
    ASSERT(sqe != NULL); /* without SQPOLL a submit empties the queue */
    return sqe;
}

static void prepare(struct io_uring_sqe *sqe, struct op *op)
{
    switch (op->kind) {
    case OP_ACCEPT:
        io_uring_prep_multishot_accept(sqe, op->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        break;
    case OP_RECV_LENT:
        io_uring_prep_recv(sqe, op->fd, NULL, LENT_SIZE, 0);
        sqe->flags |= IOSQE_BUFFER_SELECT;
        sqe->buf_group = LENT_GROUP;
        break;
    case OP_RECV:
        io_uring_prep_recv(sqe, op->fd, op->buf, op->len, 0);
        break;
    case OP_SEND:
        io_uring_prep_sendmsg(sqe, op->fd, op->message, (unsigned)op->flags);
        break;
    case OP_SEND_BYTES:
        io_uring_prep_send(sqe, op->fd, op->buf, op->len, MSG_NOSIGNAL);
        break;
    case OP_CONNECT:
        io_uring_prep_connect(sqe, op->fd, op->address, op->address_len);
        break;
    case OP_POLL:
        io_uring_prep_poll_add(sqe, op->fd, op->events);
        break;
    default:
        UNREACHABLE();
    }
}

static void start(struct loop *l, struct op *op)
{
    struct io_uring_sqe *sqe = take_sqe(l->state);
    prepare(sqe, op);
    io_uring_sqe_set_data(sqe, op);
}

static void cancel(struct loop *l, struct op *op)
{
    struct uring_state *s = l->state;
    struct io_uring_sqe *sqe = take_sqe(s);
    io_uring_prep_cancel(sqe, op, 0);
    io_uring_sqe_set_data(sqe, NULL); /* its own completion tells nothing new */
}

static void close_fd(struct loop *l, int fd)
{
    (void)l;
    (void)fd;
}

/* Errors of accept that leave the listener as it was. */
static bool passing(int error)
{
    return error == ECONNABORTED || error == EPROTO || error == EINTR;
}

static void starve(struct uring_state *s, struct op *op)
{
    op->next = s->starved;
    s->starved = op;
}

static void complete(struct loop *l, struct op *op, int result, unsigned flags)
{
    struct uring_state *s = l->state;
    bool more = (flags & IORING_CQE_F_MORE) != 0;
    if (op->kind == OP_ACCEPT && !more && (result >= 0 || passing(-result)) && !op->cancelled) {
        start(l, op); /* the kernel ended the multishot; the caller's accept goes on */
        more = true;
        if (result < 0)
            return;
    }
    if (op->kind != OP_RECV_LENT) {
        op_complete(l, op, result, more);
        return;
    }
    if (result == -ENOBUFS && !op->cancelled) {
        starve(s, op);
        return;
    }
    bool lent = (flags & IORING_CQE_F_BUFFER) != 0;
    unsigned id = flags >> IORING_CQE_BUFFER_SHIFT;
    op->lent = lent && result > 0 ? slice_of(s->lent + (size_t)id * LENT_SIZE, (size_t)result)
                                  : SLICE_NONE;
    op_complete(l, op, result == -ENOBUFS ? -ECANCELED : result, false);
    if (lent)
        give_back(s, id);
}

static void retry_starved(struct loop *l)
{
    struct uring_state *s = l->state;
    struct op *op = s->starved;
    if (op == NULL)
        return;
    s->starved = NULL;
    provide_more(s);
    while (op != NULL) {
        struct op *next = op->next;
        if (op->cancelled)
            op_complete(l, op, -ECANCELED, false);
        else
            start(l, op);
        op = next;
    }
}

static void wait(struct uring_state *s, int wait_ms)
{
    struct io_uring_cqe *cqe;
    if (wait_ms < 0) {
        io_uring_submit_and_wait(&s->ring, 1);
        return;
    }
    if (wait_ms == 0) { /* without a timer of the kernel's for nothing */
        io_uring_submit_and_get_events(&s->ring);
        return;
    }
    struct __kernel_timespec t = {.tv_sec = wait_ms / 1000,
                                  .tv_nsec = (long long)(wait_ms % 1000) * (long long)NS_PER_MS};
    io_uring_submit_and_wait_timeout(&s->ring, &cqe, 1, &t, NULL);
}

static void turn(struct loop *l, int wait_ms)
{
    struct uring_state *s = l->state;
    struct io_uring_cqe *cqe;
    unsigned head, seen = 0;
    retry_starved(l);
    wait(s, wait_ms);
    loop_read_clock(l);
    io_uring_for_each_cqe(&s->ring, head, cqe)
    {
        struct op *op = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        unsigned flags = cqe->flags;
        if (op != NULL)
            complete(l, op, result, flags);
        if (++seen == ENTRIES) /* give the queue back in pieces, so that it cannot overflow */
            break;
        loop_completed(l, seen);
    }
    io_uring_cq_advance(&s->ring, seen);
}

const struct loop_backend uring_backend = {
    .init = init,
    .deinit = deinit,
    .start = start,
    .cancel = cancel,
    .close = close_fd,
    .turn = turn,
};
