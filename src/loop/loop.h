/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread's loop: operations on descriptors that complete, timers, mail from other threads. Two
 * back ends stand behind this face, io_uring and epoll, with the same meaning. A loop belongs to
 * the thread that runs it; only mailbox_post may be called from elsewhere.
 */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/list.h"
#include "base/slice.h"

struct loop;

enum loop_kind { LOOP_AUTO, LOOP_URING, LOOP_EPOLL };

/* Creates the loop of the calling thread. LOOP_AUTO: io_uring where the kernel allows it, else
 * epoll. ERR_UNSUPPORTED when the kind asked for is not to be had. */
enum err loop_create(enum loop_kind, struct loop **out) MUST_USE;
void loop_destroy(struct loop *); /* no operation may be armed */

/* Runs turns until loop_stop. */
void loop_run(struct loop *);
void loop_stop(struct loop *);

/* Runs turns until no operation is armed: what is armed must have been cancelled. No timer fires. */
void loop_settle(struct loop *);

/* The calling thread's loop, or NULL. */
struct loop *loop_self(void);
enum loop_kind loop_kind(const struct loop *);

/* Monotonic nanoseconds, read once per turn. */
uint64_t loop_now_ns(const struct loop *);
int64_t loop_wall_s(const struct loop *); /* seconds since 1970, likewise */

/* Whether io_uring works here. ERR_UNSUPPORTED: this kernel, or a seccomp filter, does not let it; ERR_LIMIT:
 * its user may lock no more memory (RLIMIT_MEMLOCK), of which each ring of all its processes takes some. */
enum err loop_try_uring(void);

static inline bool loop_probe_uring(void)
{
    return loop_try_uring() == OK;
}

enum op_kind { OP_NONE, OP_ACCEPT, OP_RECV_LENT, OP_RECV, OP_SEND, OP_SEND_BYTES, OP_CONNECT,
               OP_POLL };

/* An operation, embedded in what it belongs to. From its start until on_done with `armed` false
 * again, it and its buffers belong to the kernel: neither may move or end. `result` is what the
 * system call would give: a count, a descriptor, or a negative errno (-ECANCELED after a cancel).
 * on_done is never called from inside the starting call. */
struct op {
    void (*on_done)(struct op *, int result);
    struct op *next; /* back end's */
    int fd;
    uint8_t kind;
    bool armed;
    bool cancelled;
    bool failed; /* could not even be started; the back end's */
    union {
        struct {
            char *buf;
            size_t len;
        };
        struct {
            const struct msghdr *message;
            int flags;
        };
        struct {
            const struct sockaddr *address;
            socklen_t address_len;
        };
        unsigned events; /* POLLIN … */
        struct slice lent; /* OP_RECV_LENT: the bytes, valid until on_done returns */
    };
};

/* Accepts again and again until cancelled or until an error other than a passing one; descriptors
 * come non-blocking and close-on-exec. `armed` tells whether it goes on. */
void op_accept(struct loop *, struct op *, int fd);

/* Waits for bytes without owning a buffer: at completion op->lent holds up to 16 KiB of them. */
void op_recv_lent(struct loop *, struct op *, int fd);
void op_recv(struct loop *, struct op *, int fd, char *buf, size_t len);
void op_send(struct loop *, struct op *, int fd, const struct msghdr *, int flags);
void op_send_bytes(struct loop *, struct op *, int fd, const char *buf, size_t len); /* some of them */
void op_connect(struct loop *, struct op *, int fd, const struct sockaddr *, socklen_t);
void op_poll(struct loop *, struct op *, int fd, unsigned events);

/* Asks for an early end; on_done still comes, once. Nothing happens when it is not armed. */
void op_cancel(struct loop *, struct op *);

/* Forgets and closes a descriptor; none of its operations may be armed. */
void loop_close(struct loop *, int fd);

/* Calls run once, later in this turn: behind the completion at hand, or (batch) behind a few of them, for
 * what gathers the work of several or lets others go first. */
struct task {
    struct list node;
    void (*run)(struct task *);
};
void loop_defer(struct loop *, struct task *);
void loop_defer_batch(struct loop *, struct task *);

/* Live operations; for tests that nothing is left behind. */
unsigned loop_armed(const struct loop *);

struct timer {
    struct list node;
    uint64_t deadline_ns;
    void (*on_fire)(struct timer *);
};

/* Timers fire at or up to some milliseconds after their deadline, never before. */
void timer_init(struct timer *, void (*on_fire)(struct timer *));
void timer_start(struct loop *, struct timer *, uint64_t deadline_ns); /* also moves a started one */
void timer_stop(struct timer *);
bool timer_running(const struct timer *);

/* Mail from any thread: run is called on the loop's thread; the memory is the sender's until then. */
struct mail {
    struct mail *next;
    void (*run)(struct mail *);
};
void mailbox_post(struct loop *, struct mail *);
