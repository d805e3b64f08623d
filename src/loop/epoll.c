/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The epoll back end. A descriptor is registered once, edge-triggered for everything, at its first
 * operation; what the kernel told since is kept in a slot (readable, writable, hung up). An
 * operation is tried only when its slot says that it can succeed, so a request on a kept connection
 * costs one recv and one send, and an epoll_wait shared by all that became ready with it.
 *
 * Edges: a recv that fills less than its buffer has emptied the socket, since data that come later
 * raise a new edge; after a hang-up the slot stays readable, for the end of file must still be read.
 * Operations that may complete at once wait in a queue, so on_done never runs inside a start.
 */
#include "loop/loop_internal.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"

enum { EVENTS = 256 };

enum {
    SLOT_READABLE = 1,
    SLOT_WRITABLE = 2,
    SLOT_HUP = 4,
    SLOT_REGISTERED = 8,
    SLOT_ERROR = 16,
    SLOT_SHARED = 32, /* a listening socket: others hold it too, so that close does not end it */
};

struct slot {
    struct op *ops; /* waiting for an edge, linked by op->next */
    uint32_t flags;
};

struct epoll_state {
    int fd;
    struct slot *slots; /* by descriptor */
    size_t slots_count;
    struct op *ready, **ready_last; /* to be tried in this turn */
    char lent[LENT_SIZE];
};

static enum err init(struct loop *l)
{
    struct epoll_state *s = NEW(struct epoll_state);
    s->fd = epoll_create1(EPOLL_CLOEXEC);
    if (s->fd < 0) {
        mem_free(s);
        return ERR_LIMIT;
    }
    s->ready_last = &s->ready;
    l->state = s;
    return OK;
}

static void deinit(struct loop *l)
{
    struct epoll_state *s = l->state;
    close(s->fd);
    mem_free(s->slots);
    mem_free(s);
}

static struct slot *slot_of(struct epoll_state *s, int fd)
{
    if ((size_t)fd >= s->slots_count) {
        size_t count = s->slots_count > 0 ? s->slots_count : 64;
        while (count <= (size_t)fd)
            count *= 2;
        s->slots = mem_resize(s->slots, count, sizeof *s->slots);
        memset(s->slots + s->slots_count, 0, (count - s->slots_count) * sizeof *s->slots);
        s->slots_count = count;
    }
    return &s->slots[fd];
}

static void make_ready(struct epoll_state *s, struct op *op)
{
    op->next = NULL;
    *s->ready_last = op;
    s->ready_last = &op->next;
}

static void wait_edge(struct slot *slot, struct op *op)
{
    op->next = slot->ops;
    slot->ops = op;
}

static unsigned wanted_flag(const struct op *op)
{
    switch (op->kind) {
    case OP_SEND:
    case OP_SEND_BYTES:
    case OP_CONNECT:
        return SLOT_WRITABLE;
    case OP_POLL: {
        unsigned flags = SLOT_HUP & (op->events & POLLRDHUP ? ~0u : 0u);
        flags |= op->events & POLLIN ? SLOT_READABLE : 0;
        return flags | (op->events & POLLOUT ? SLOT_WRITABLE : 0);
    }
    default:
        return SLOT_READABLE;
    }
}

/* False when the kernel has no room for one more watch. */
static bool register_slot(struct epoll_state *s, struct slot *slot, const struct op *op)
{
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                            .data.fd = op->fd};
    bool failed = epoll_ctl(s->fd, EPOLL_CTL_ADD, op->fd, &e) != 0;
    if (failed && errno != EPERM && errno != EEXIST)
        return false;
    slot->flags = SLOT_REGISTERED | (op->kind == OP_ACCEPT ? SLOT_SHARED : 0u);
    /* A first try tells more than a guess; a file that epoll does not take is always ready. */
    if (failed || (op->kind != OP_POLL && op->kind != OP_CONNECT && op->kind != OP_RECV_LENT))
        slot->flags |= SLOT_READABLE | SLOT_WRITABLE;
    return true;
}

static void start(struct loop *l, struct op *op)
{
    struct epoll_state *s = l->state;
    struct slot *slot = slot_of(s, op->fd);
    if ((slot->flags & SLOT_REGISTERED) == 0) {
        if (!register_slot(s, slot, op)) {
            op->failed = true;
            make_ready(s, op);
            return;
        }
    }
    if (op->kind == OP_CONNECT || (slot->flags & (wanted_flag(op) | SLOT_ERROR)) != 0)
        make_ready(s, op);
    else
        wait_edge(slot, op);
}

static bool unlink_op(struct op **list, struct op *op)
{
    for (; *list != NULL; list = &(*list)->next) {
        if (*list == op) {
            *list = op->next;
            return true;
        }
    }
    return false;
}

static void cancel(struct loop *l, struct op *op)
{
    struct epoll_state *s = l->state;
    if (unlink_op(&slot_of(s, op->fd)->ops, op)) /* else it waits in the ready queue already */
        make_ready(s, op);
}

static void close_slot(struct loop *l, int fd)
{
    struct epoll_state *s = l->state;
    if ((size_t)fd >= s->slots_count)
        return;
    ASSERT(s->slots[fd].ops == NULL);
    if ((s->slots[fd].flags & SLOT_SHARED) != 0)
        epoll_ctl(s->fd, EPOLL_CTL_DEL, fd, NULL);
    s->slots[fd].flags = 0; /* close takes it out of the epoll set */
}

/* --- trying --- */

static int try_connect(struct op *op)
{
    if (op->address != NULL) {
        const struct sockaddr *address = op->address;
        op->address = NULL; /* the next try only asks how it ended */
        return connect(op->fd, address, op->address_len) == 0 ? 0 : -errno;
    }
    int error = 0;
    socklen_t len = sizeof error;
    struct sockaddr_storage peer;
    socklen_t peer_len = sizeof peer;
    if (getsockopt(op->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        return -errno;
    if (error == 0 && getpeername(op->fd, (struct sockaddr *)&peer, &peer_len) != 0)
        return -EINPROGRESS;
    return -error;
}

static int try_poll(const struct slot *slot, const struct op *op)
{
    unsigned events = 0;
    events |= slot->flags & SLOT_READABLE ? POLLIN : 0u;
    events |= slot->flags & SLOT_WRITABLE ? POLLOUT : 0u;
    events |= slot->flags & SLOT_HUP ? POLLRDHUP : 0u;
    events &= op->events;
    events |= slot->flags & SLOT_ERROR ? POLLERR : 0u;
    if (events == 0)
        return -EAGAIN;
    /* Flags may be old: ask the kernel, which is what a caller of poll expects. */
    struct pollfd p = {.fd = op->fd, .events = (short)op->events};
    return poll(&p, 1, 0) > 0 ? p.revents : -EAGAIN;
}

static ssize_t try_op(struct epoll_state *s, struct slot *slot, struct op *op)
{
    switch (op->kind) {
    case OP_ACCEPT:
        return accept4(op->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    case OP_RECV_LENT:
        return recv(op->fd, s->lent, sizeof s->lent, MSG_DONTWAIT);
    case OP_RECV:
        return recv(op->fd, op->buf, op->len, MSG_DONTWAIT);
    case OP_SEND:
        return sendmsg(op->fd, op->message, op->flags | MSG_DONTWAIT);
    case OP_SEND_BYTES:
        return send(op->fd, op->buf, op->len, MSG_DONTWAIT | MSG_NOSIGNAL);
    default:
        break;
    }
    int r = op->kind == OP_CONNECT ? try_connect(op) : try_poll(slot, op);
    errno = r < 0 ? -r : 0;
    return r < 0 ? -1 : r;
}

static bool must_wait(int error)
{
    return error == EAGAIN || error == EINPROGRESS || error == EALREADY;
}

static void after_recv(struct slot *slot, size_t got, size_t room)
{
    if (got < room && (slot->flags & SLOT_HUP) == 0)
        slot->flags &= ~(unsigned)SLOT_READABLE;
}

static void complete(struct loop *l, struct op *op, ssize_t result)
{
    struct epoll_state *s = l->state;
    struct slot *slot = &s->slots[op->fd];
    if (op->kind == OP_RECV_LENT) {
        if (result > 0)
            after_recv(slot, (size_t)result, sizeof s->lent);
        op->lent = slice_of(s->lent, result > 0 ? (size_t)result : 0);
    } else if (op->kind == OP_RECV && result > 0) {
        after_recv(slot, (size_t)result, op->len);
    }
    bool more = op->kind == OP_ACCEPT && result >= 0;
    if (more)
        make_ready(s, op); /* the queue may hold more connections */
    op_complete(l, op, (int)result, more);
}

static void attempt(struct loop *l, struct op *op)
{
    struct epoll_state *s = l->state;
    if (op->cancelled) {
        op_complete(l, op, -ECANCELED, false);
        return;
    }
    if (op->failed) {
        op_complete(l, op, -ENOMEM, false);
        return;
    }
    ssize_t r;
    do
        r = try_op(s, &s->slots[op->fd], op);
    while (r < 0 && errno == EINTR);
    if (r >= 0) {
        complete(l, op, r);
    } else if (must_wait(errno)) {
        struct slot *slot = &s->slots[op->fd];
        slot->flags &= ~(wanted_flag(op) & ~(unsigned)SLOT_HUP);
        wait_edge(slot, op);
    } else if (op->kind == OP_ACCEPT && (errno == ECONNABORTED || errno == EPROTO)) {
        make_ready(s, op);
    } else {
        complete(l, op, -errno);
    }
}

static void try_ready(struct loop *l)
{
    struct epoll_state *s = l->state;
    struct op *op = s->ready;
    s->ready = NULL; /* what becomes ready meanwhile waits for the next turn */
    s->ready_last = &s->ready;
    for (unsigned seen = 1; op != NULL; seen++) {
        struct op *next = op->next;
        attempt(l, op);
        op = next;
        loop_completed(l, seen);
    }
}

static void wake_ops(struct epoll_state *s, struct slot *slot)
{
    struct op **at = &slot->ops;
    while (*at != NULL) {
        struct op *op = *at;
        if ((slot->flags & (wanted_flag(op) | SLOT_ERROR)) != 0) {
            *at = op->next;
            make_ready(s, op);
        } else {
            at = &op->next;
        }
    }
}

static void take_event(struct epoll_state *s, const struct epoll_event *e)
{
    struct slot *slot = slot_of(s, e->data.fd);
    if ((slot->flags & SLOT_REGISTERED) == 0)
        return;
    /* What an event tells is all that is true now: a socket that was not connected yet had hung up. */
    slot->flags &= ~(unsigned)(SLOT_HUP | SLOT_ERROR);
    if ((e->events & EPOLLIN) != 0)
        slot->flags |= SLOT_READABLE;
    if ((e->events & EPOLLOUT) != 0)
        slot->flags |= SLOT_WRITABLE;
    if ((e->events & (EPOLLRDHUP | EPOLLHUP)) != 0)
        slot->flags |= SLOT_HUP | SLOT_READABLE;
    if ((e->events & (EPOLLERR | EPOLLHUP)) != 0)
        slot->flags |= SLOT_ERROR | SLOT_READABLE | SLOT_WRITABLE;
    wake_ops(s, slot);
}

static void turn(struct loop *l, int wait_ms)
{
    struct epoll_state *s = l->state;
    struct epoll_event events[EVENTS];
    int n = epoll_wait(s->fd, events, EVENTS, s->ready != NULL ? 0 : wait_ms);
    loop_read_clock(l);
    for (int i = 0; i < n; i++)
        take_event(s, &events[i]);
    try_ready(l);
}

const struct loop_backend epoll_backend = {
    .init = init,
    .deinit = deinit,
    .start = start,
    .cancel = cancel,
    .close = close_slot,
    .turn = turn,
};
