/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The waits of a fiber. Each tries the call directly first, suspends only when it would block, and
 * returns when its operation has completed, never before. Deadlines are monotonic nanoseconds, 0 for
 * none. Common errors: ERR_TIMEOUT at the deadline, the fiber's own error after fiber_cancel,
 * ERR_CLOSED when the peer reset or left, ERR_IO else.
 */
#pragma once

#include <sys/uio.h>

#include "loop/fiber.h"
#include "loop/loop.h"

/* Up to `len` bytes; *n = 0 at the end of the stream. */
enum err await_recv(int fd, char *buf, size_t len, uint64_t deadline_ns, size_t *n);

/* Waits for bytes that lie in the loop's memory until this fiber suspends again; none at the end. */
enum err await_recv_lent(int fd, uint64_t deadline_ns, struct slice *lent);

/* All bytes of all parts; changes `parts`. `flags`: MSG_MORE. *sent counts also when it fails. */
enum err await_send(int fd, struct iovec *parts, size_t count, int flags, uint64_t deadline_ns,
                    size_t *sent);

/* At least one byte of what is left, with a deadline of its own; the message moves on behind it and
 * is done when msg_iovlen is 0. */
enum err await_send_some(int fd, struct msghdr *, int flags, uint64_t deadline_ns, size_t *sent);

/* So many bytes of a message have left: it moves on behind them, and behind parts without any. */
void message_skip(struct msghdr *, size_t sent);

/* All of [offset, offset + len) of a file. ERR_IO when the file has become shorter. */
enum err await_sendfile(int fd, int file, uint64_t offset, uint64_t len, uint64_t deadline_ns,
                        uint64_t *sent);

enum err await_sendfile_some(int fd, int file, uint64_t offset, uint64_t len, uint64_t deadline_ns,
                             uint64_t *sent); /* at least one byte, likewise */

/* Without waiting, from anywhere: a count, or a negative errno (-EAGAIN). */
ssize_t send_now(int fd, const struct msghdr *, int flags);

enum err await_connect(int fd, const struct sockaddr *, socklen_t, uint64_t deadline_ns);
enum err await_poll(int fd, unsigned events, uint64_t deadline_ns, unsigned *ready);
enum err await_sleep(uint64_t until_ns);

/* Lets the loop make one turn: for work that could go on for long without ever waiting. */
enum err await_yield(void);

/* A place to wait for something that other code on this thread tells. */
struct waiter {
    struct fiber *fiber; /* NULL while nobody waits */
    enum err result;
    bool woken;
    struct timer timer;
    struct task task;
};

void waiter_init(struct waiter *);

/* Until waiter_wake (also one that came before), its result. */
enum err await_wake(struct waiter *, uint64_t deadline_ns);

/* From the loop's stack or another fiber; resumes at the loop's next turn. */
void waiter_wake(struct waiter *, enum err result);

/* Runs a blocking function on the thread pool of the process and returns when it has. */
enum err await_offload(void (*function)(void *), void *arg);

/* For what computes a second long, such as a password's hash: never all of the pool's threads. */
enum err await_offload_slow(void (*function)(void *), void *arg);

/* Runs a function on the loop's own stack, which is large: for what recurses. It must not wait. */
void await_on_loop(void (*function)(void *), void *arg);
