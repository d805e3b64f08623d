/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The addresses are tried in their order (RFC 6724's, from the resolver), but with the families
 * taking turns (RFC 8305 §4): an attempt that hangs because one family does not work is followed by
 * one of the other. The next attempt starts when the latest has failed, or has been alone for the
 * fallback delay; the first that connects wins, and the rest are cancelled. All of them are
 * operations of one fiber's frame, so it goes on only when each has completed.
 *
 * A Unix socket connects at once or never: with a full queue the kernel says EAGAIN and offers
 * nothing to wait for, so that is tried again a few milliseconds later.
 */
#include "net/dial.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "loop/await.h"

#define UNIX_RETRY_NS (5 * NS_PER_MS)

struct dial;

struct attempt {
    struct op op;
    struct dial *dial;
    uint8_t index; /* of the address */
};

struct dial {
    const struct resolved *to;
    const struct dial_options *options;
    struct dialed *out;
    struct loop *loop;
    struct fiber *fiber;
    struct waiter waiter;
    uint8_t order[RESOLVED_MAX];
    size_t count, started;
    unsigned live;
    bool ending;
    struct attempt attempts[RESOLVED_MAX];
};

/* Indices with families alternating, as far as both have some. */
static void put_in_order(struct dial *d)
{
    bool used[RESOLVED_MAX] = {false};
    sa_family_t family = 0;
    const struct sockaddr *local = d->options->local;
    d->count = 0;
    for (;;) {
        size_t pick = RESOLVED_MAX;
        for (size_t i = d->to->count; i-- > 0;) {
            sa_family_t f = d->to->addresses[i].ss_family;
            if (used[i] || (local != NULL && f != local->sa_family))
                continue;
            bool better = pick == RESOLVED_MAX || f != family ||
                          d->to->addresses[pick].ss_family == family;
            if (better)
                pick = i;
        }
        if (pick == RESOLVED_MAX)
            return;
        used[pick] = true;
        family = d->to->addresses[pick].ss_family;
        d->order[d->count++] = (uint8_t)pick;
    }
}

static void set_option(int fd, int level, int option, unsigned value)
{
    int v = (int)value;
    if (value > 0)
        (void)setsockopt(fd, level, option, &v, sizeof v);
}

static void set_options(int fd, const struct dial_options *o)
{
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (!o->keepalive)
        return;
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, o->keepalive_idle_s);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, o->keepalive_interval_s);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, o->keepalive_count);
}

/* A socket of the family, with its options and bound; or -1 with errno. */
static int open_socket(sa_family_t family, const struct dial_options *o)
{
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (family != AF_UNIX)
        set_options(fd, o);
    if (o->local == NULL)
        return fd;
    set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    if (bind(fd, o->local, o->local_len) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static void note_failure(struct dial *d, size_t index, int error)
{
    if (d->out->error != 0)
        return;
    d->out->error = error;
    d->out->index = index;
}

static void on_connect(struct op *op, int result)
{
    struct attempt *a = CONTAINER_OF(op, struct attempt, op);
    struct dial *d = a->dial;
    d->live--;
    if (result == 0 && d->out->fd < 0) {
        d->out->fd = op->fd;
        d->out->index = a->index;
    } else {
        loop_close(d->loop, op->fd);
        if (result < 0 && result != -ECANCELED && d->out->fd < 0)
            note_failure(d, a->index, -result);
    }
    if (!d->ending)
        waiter_wake(&d->waiter, OK);
    else if (d->live == 0)
        fiber_resume(d->fiber);
}

/* Starts the next attempt; the ones whose socket cannot even be made are passed over. */
static void start_next(struct dial *d)
{
    while (d->started < d->count) {
        struct attempt *a = &d->attempts[d->started];
        a->index = d->order[d->started++];
        const struct sockaddr *to = (const struct sockaddr *)&d->to->addresses[a->index];
        int fd = open_socket(to->sa_family, d->options);
        if (fd < 0) {
            note_failure(d, a->index, errno);
            continue;
        }
        a->dial = d;
        a->op.armed = false;
        a->op.on_done = on_connect;
        d->live++;
        op_connect(d->loop, &a->op, fd, to, d->to->lengths[a->index]);
        return;
    }
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

/* OK: connected, or nothing is left to try. */
static enum err race(struct dial *d)
{
    uint32_t alone_ms = d->options->fallback_ms;
    uint64_t deadline = d->options->deadline_ns;
    if (alone_ms == 0)
        alone_ms = DIAL_FALLBACK_MS;
    while (d->out->fd < 0) {
        unsigned live = d->live;
        start_next(d);
        if (d->live == 0)
            return OK;
        bool more = d->started < d->count && alone_ms != DIAL_ONE_BY_ONE;
        uint64_t next = more ? clock_mono_ns() + alone_ms * NS_PER_MS : 0;
        do {
            enum err e = await_wake(&d->waiter, sooner(deadline, next));
            if (e == ERR_TIMEOUT && (deadline == 0 || clock_mono_ns() < deadline))
                break; /* alone for long enough */
            if (e != OK)
                return e;
        } while (d->out->fd < 0 && d->live > live);
    }
    return OK;
}

/* Until every operation of this frame has completed, whatever the fiber is told meanwhile. */
static void await_ends(struct dial *d)
{
    d->ending = true;
    for (size_t i = 0; i < d->started; i++) {
        if (d->attempts[i].dial != NULL)
            op_cancel(d->loop, &d->attempts[i].op);
    }
    while (d->live > 0)
        fiber_suspend();
}

static enum err dial_unix(const struct resolved *to, const struct dial_options *o,
                          struct dialed *out)
{
    uint64_t pause = UNIX_RETRY_NS;
    int fd = open_socket(AF_UNIX, o);
    if (fd < 0)
        return err_from_errno(out->error = errno);
    while (connect(fd, (const struct sockaddr *)&to->addresses[0], to->lengths[0]) != 0) {
        int error = errno;
        uint64_t now = clock_mono_ns();
        enum err e = err_from_errno(error);
        if (error == EAGAIN)
            e = o->deadline_ns > 0 && now + pause >= o->deadline_ns ? ERR_TIMEOUT
                                                                    : await_sleep(now + pause);
        if (e != OK && error != EINTR) {
            out->error = error == EAGAIN ? 0 : error;
            close(fd);
            return e;
        }
        pause = pause < 16 * UNIX_RETRY_NS ? pause * 2 : pause;
    }
    out->fd = fd;
    return OK;
}

enum err await_dial(const struct resolved *to, const struct dial_options *o, struct dialed *out)
{
    struct dial d;
    ASSERT(to->count > 0 && fiber_self() != NULL);
    *out = (struct dialed){.fd = -1};
    if (to->addresses[0].ss_family == AF_UNIX)
        return dial_unix(to, o, out);
    d.to = to;
    d.options = o;
    d.out = out;
    d.loop = loop_self();
    d.fiber = fiber_self();
    d.started = 0;
    d.live = 0;
    d.ending = false;
    waiter_init(&d.waiter);
    put_in_order(&d);
    for (size_t i = 0; i < d.count; i++)
        d.attempts[i].dial = NULL;
    if (d.count == 0)
        return ERR_INVALID;
    enum err e = race(&d);
    await_ends(&d);
    if (out->fd >= 0 && e == OK)
        return OK;
    if (out->fd >= 0)
        loop_close(d.loop, out->fd);
    out->fd = -1;
    if (e != OK)
        return e;
    return err_from_errno(out->error);
}

enum err resolved_unix(struct slice path, struct resolved *out)
{
    struct sockaddr_un *a = (struct sockaddr_un *)&out->addresses[0];
    out->count = 0;
    out->why = "not the path of a Unix socket";
    if (path.len == 0 || path.len >= sizeof a->sun_path || memchr(path.ptr, 0, path.len) != NULL)
        return ERR_INVALID;
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    memcpy(a->sun_path, path.ptr, path.len);
    bool abstract = path.ptr[0] == '@';
    if (abstract)
        a->sun_path[0] = '\0';
    out->lengths[0] = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.len + !abstract);
    out->count = 1;
    return OK;
}
