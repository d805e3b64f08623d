/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop's face, each scene on both back ends: a scene is a function that starts things on a loop
 * and stops it; at its end no operation and no fiber may be left.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "loop/offload.h"
#include "loop/scene_testing.h"

static struct loop *loop;
static char note[256]; /* what happened, in order */

static void add_note(const char *what)
{
    size_t n = strlen(note);
    snprintf(note + n, sizeof note - n, "%s ", what);
}

static void run_scene(enum loop_kind kind, void (*scene)(void))
{
    note[0] = '\0';
    CHECK_OK(loop_create(kind, &loop));
    CHECK_INT(loop_kind(loop), kind);
    scene();
    unsigned armed = loop_armed(loop), fibers = fiber_live(loop);
    CHECK_INT(armed, 0);
    CHECK_INT(fibers, 0);
    loop_destroy(loop);
    CHECK(loop_self() == NULL);
}

static int listener(struct sockaddr_in *at)
{
    socklen_t len = sizeof *at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(fd, (struct sockaddr *)at, sizeof *at) != 0 || listen(fd, 16) != 0 ||
        getsockname(fd, (struct sockaddr *)at, &len) != 0)
        test_fail(__FILE__, __LINE__, "no listener");
    return fd;
}

static void pair(int fd[2])
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) != 0)
        test_fail(__FILE__, __LINE__, "no socket pair");
}

static void go(void (*entry)(void *), void *arg)
{
    CHECK_OK(fiber_start(loop, entry, arg));
}

/* --- sockets --- */

static struct op accept_op;
static int listen_fd, served;

static void echo(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char buf[64];
    size_t n, sent;
    while (await_recv(fd, buf, sizeof buf, 0, &n) == OK && n > 0) {
        struct iovec v = {buf, n};
        if (await_send(fd, &v, 1, 0, 0, &sent) != OK)
            break;
    }
    loop_close(loop, fd);
    if (++served == 3)
        op_cancel(loop, &accept_op);
}

static void on_accept(struct op *op, int fd)
{
    if (fd >= 0)
        go(echo, (void *)(intptr_t)fd);
    else if (!op->armed)
        loop_stop(loop);
}

static void ask(void *arg)
{
    const struct sockaddr_in *at = arg;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    char buf[64];
    size_t n;
    uint64_t deadline = loop_now_ns(loop) + 5 * NS_PER_S;
    enum err e = await_connect(fd, (const struct sockaddr *)at, sizeof *at, deadline);
    char text[] = "hello";
    struct iovec v[2] = {{text, 3}, {text + 3, 2}};
    if (e == OK)
        e = await_send(fd, v, 2, 0, deadline, &n);
    if (e == OK)
        e = await_recv(fd, buf, sizeof buf, deadline, &n);
    add_note(e == OK && n == 5 && memcmp(buf, "hello", 5) == 0 ? "answered" : err_text(e));
    loop_close(loop, fd);
}

SCENE("connections are accepted, echoed and closed", accept_and_echo)
{
    struct sockaddr_in at;
    served = 0;
    listen_fd = listener(&at);
    accept_op.on_done = on_accept;
    op_accept(loop, &accept_op, listen_fd);
    for (int i = 0; i < 3; i++)
        go(ask, &at);
    loop_run(loop);
    loop_close(loop, listen_fd);
    CHECK_TEXT(slice_from(note), "answered answered answered ");
}

static void connect_refused(void *arg)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    add_note(err_text(await_connect(fd, arg, sizeof(struct sockaddr_in), 0)));
    loop_close(loop, fd);
    loop_stop(loop);
}

SCENE("a refused connect is told", refused)
{
    struct sockaddr_in at;
    close(listener(&at));
    go(connect_refused, &at);
    loop_run(loop);
    CHECK_TEXT(slice_from(note), "input/output error ");
}

static struct op lent_op;
static char taken[64];

static void on_lent(struct op *op, int result)
{
    snprintf(taken, sizeof taken, "%d:%.*s", result, SLICE_ARG(op->lent));
    add_note(taken);
    if (result > 0)
        op_recv_lent(loop, op, op->fd);
    else
        loop_stop(loop);
}

static void write_later(struct timer *t);
static struct timer write_timer;
static int write_fd, writes;

static void write_later(struct timer *t)
{
    if (++writes == 3) {
        shutdown(write_fd, SHUT_WR);
        return;
    }
    CHECK_INT(write(write_fd, "abc", 3), 3);
    timer_start(loop, t, loop_now_ns(loop) + 5 * NS_PER_MS);
}

SCENE("a read that owns no buffer is lent the bytes, then told the end", lent)
{
    int fd[2];
    pair(fd);
    writes = 0;
    write_fd = fd[1];
    lent_op.on_done = on_lent;
    op_recv_lent(loop, &lent_op, fd[0]);
    timer_init(&write_timer, write_later);
    timer_start(loop, &write_timer, 1);
    loop_run(loop);
    loop_close(loop, fd[0]);
    close(fd[1]);
    CHECK_TEXT(slice_from(note), "3:abc 3:abc 0: ");
}

enum { CROWD = 200 };
static struct op crowd_ops[CROWD];
static unsigned crowd_read;

static void on_crowd(struct op *op, int result)
{
    size_t at = (size_t)(op - crowd_ops);
    CHECK(slice_eq(op->lent, slice_of((const char *)&at, sizeof at)) && result == (int)sizeof at);
    if (++crowd_read % CROWD == 0)
        loop_stop(loop);
}

SCENE("more reads at once than there are buffers are lent theirs one after the other", crowd)
{
    int fd[CROWD][2];
    for (size_t i = 0; i < CROWD; i++)
        pair(fd[i]);
    crowd_read = 0;
    for (unsigned round = 0; round < 3; round++) {
        for (size_t i = 0; i < CROWD; i++) {
            CHECK_INT(write(fd[i][1], &i, sizeof i), sizeof i);
            crowd_ops[i].on_done = on_crowd;
            op_recv_lent(loop, &crowd_ops[i], fd[i][0]);
        }
        loop_run(loop);
    }
    for (size_t i = 0; i < CROWD; i++) {
        loop_close(loop, fd[i][0]);
        close(fd[i][1]);
    }
    CHECK_INT(crowd_read, 3 * CROWD);
}

static struct task soon, gathered;

static void on_soon(struct task *t)
{
    (void)t;
    add_note("soon");
}

static void on_gathered(struct task *t)
{
    (void)t;
    add_note("batch");
}

static void on_one_of_eight(struct op *op, int result)
{
    char number[2] = {op->lent.ptr[0], '\0'};
    CHECK_INT(result, 1);
    add_note(number);
    if (number[0] == '1') {
        loop_defer(loop, &soon);
        loop_defer_batch(loop, &gathered);
    }
    if (number[0] == '8')
        loop_stop(loop);
}

SCENE("what is put off runs behind the completion at hand, a batch behind four", put_off)
{
    int fd[8][2];
    soon.run = on_soon;
    gathered.run = on_gathered;
    for (int i = 0; i < 8; i++) {
        pair(fd[i]);
        CHECK_INT(write(fd[i][1], &"12345678"[i], 1), 1);
        crowd_ops[i] = (struct op){.on_done = on_one_of_eight};
        op_recv_lent(loop, &crowd_ops[i], fd[i][0]);
    }
    loop_run(loop);
    for (int i = 0; i < 8; i++) {
        loop_close(loop, fd[i][0]);
        close(fd[i][1]);
    }
    CHECK_TEXT(slice_from(note), "1 soon 2 3 4 batch 5 6 7 8 ");
}

static void *write_much_later(void *arg)
{
    usleep(300000);
    CHECK_INT(write(*(int *)arg, "abc", 3), 3);
    return NULL;
}

static int64_t behind_ns;

static void on_late_bytes(struct op *op, int result)
{
    behind_ns = (int64_t)(clock_mono_ns() - loop_now_ns(loop));
    loop_stop(loop);
}

SCENE("what completes behind a long wait is told the time of now", late_clock)
{
    int fd[2];
    pthread_t thread;
    pair(fd);
    static struct op op;
    op = (struct op){.on_done = on_late_bytes};
    op_recv_lent(loop, &op, fd[0]);
    CHECK_INT(pthread_create(&thread, NULL, write_much_later, &fd[1]), 0);
    loop_run(loop);
    pthread_join(thread, NULL);
    loop_close(loop, fd[0]);
    close(fd[1]);
    CHECK(behind_ns < (int64_t)(200 * NS_PER_MS));
}

SCENE("a cancelled read completes as cancelled", cancelled)
{
    int fd[2];
    pair(fd);
    lent_op.on_done = on_lent;
    op_recv_lent(loop, &lent_op, fd[0]);
    op_cancel(loop, &lent_op);
    loop_run(loop);
    loop_close(loop, fd[0]);
    close(fd[1]);
    CHECK_TEXT(slice_from(note), "-125: ");
}

static void wait_in_vain(void *arg)
{
    char c;
    size_t n;
    uint64_t start = loop_now_ns(loop);
    enum err e = await_recv((int)(intptr_t)arg, &c, 1, start + 30 * NS_PER_MS, &n);
    add_note(err_text(e));
    add_note(clock_mono_ns() - start >= 30 * NS_PER_MS ? "not early" : "early");
    loop_stop(loop);
}

SCENE("a deadline ends a read", deadline)
{
    int fd[2];
    pair(fd);
    go(wait_in_vain, (void *)(intptr_t)fd[0]);
    loop_run(loop);
    loop_close(loop, fd[0]);
    close(fd[1]);
    CHECK_TEXT(slice_from(note), "timed out not early ");
}

enum { BIG = 8 << 20 };
static char *big;

static void send_big(void *arg)
{
    struct iovec v = {big, BIG};
    size_t sent;
    CHECK_OK(await_send((int)(intptr_t)arg, &v, 1, 0, 0, &sent));
    CHECK_INT(sent, BIG);
    loop_close(loop, (int)(intptr_t)arg);
}

static void read_big(void *arg)
{
    char buf[10000];
    size_t n, total = 0;
    bool right = true;
    while (await_recv((int)(intptr_t)arg, buf, sizeof buf, 0, &n) == OK && n > 0) {
        right = right && memcmp(buf, big + total, n) == 0;
        total += n;
    }
    add_note(right && total == BIG ? "whole" : "broken");
    loop_close(loop, (int)(intptr_t)arg);
    loop_stop(loop);
}

SCENE("eight megabytes go through a small socket whole", back_pressure)
{
    int fd[2];
    pair(fd);
    big = malloc(BIG);
    for (size_t i = 0; i < BIG; i++)
        big[i] = (char)(i * 2654435761u >> 13);
    go(send_big, (void *)(intptr_t)fd[0]);
    go(read_big, (void *)(intptr_t)fd[1]);
    loop_run(loop);
    free(big);
    CHECK_TEXT(slice_from(note), "whole ");
}

static int file_fd;

static void send_file(void *arg)
{
    uint64_t sent;
    CHECK_OK(await_sendfile((int)(intptr_t)arg, file_fd, 0, BIG, 0, &sent));
    CHECK_INT(await_sendfile((int)(intptr_t)arg, file_fd, BIG, 1, 0, &sent), ERR_IO);
    loop_close(loop, (int)(intptr_t)arg);
}

SCENE("a file is sent whole, and a file that is too short is an error", sendfile_whole)
{
    int fd[2];
    pair(fd);
    big = malloc(BIG);
    memset(big, 'x', BIG);
    file_fd = memfd_create("file", MFD_CLOEXEC);
    CHECK_INT(write(file_fd, big, BIG), BIG);
    go(send_file, (void *)(intptr_t)fd[0]);
    go(read_big, (void *)(intptr_t)fd[1]);
    loop_run(loop);
    free(big);
    close(file_fd);
    CHECK_TEXT(slice_from(note), "whole ");
}

/* --- fibers --- */

static struct fiber *victim;

static void be_cancelled(void *arg)
{
    char c;
    size_t n;
    victim = fiber_self();
    add_note(err_text(await_recv((int)(intptr_t)arg, &c, 1, 0, &n)));
    add_note(err_text(await_sleep(loop_now_ns(loop) + NS_PER_S)));
    loop_stop(loop);
}

SCENE("a cancelled fiber's wait ends, and so does each later one", cancel_fiber)
{
    int fd[2];
    pair(fd);
    go(be_cancelled, (void *)(intptr_t)fd[0]);
    fiber_cancel(victim, ERR_CLOSED);
    loop_run(loop);
    loop_close(loop, fd[0]);
    close(fd[1]);
    CHECK_TEXT(slice_from(note), "connection closed connection closed ");
}

static struct waiter bell;
static int sleeping;

static void sleep_some(void *arg)
{
    (void)arg;
    char deep[8192];
    memset(deep, 1, sizeof deep);
    CHECK_OK(await_sleep(loop_now_ns(loop) + 10 * NS_PER_MS));
    CHECK_INT(deep[4000], 1);
    if (--sleeping == 0)
        loop_stop(loop);
}

SCENE("two thousand fibers sleep at once", many_fibers)
{
    sleeping = 2000;
    for (int i = 0; i < 2000; i++)
        go(sleep_some, NULL);
    CHECK_INT(fiber_live(loop), 2000);
    loop_run(loop);
    CHECK_INT(sleeping, 0);
}

SCENE("no more fibers start than the budget allows", fiber_budget)
{
    fiber_set_max(loop, 3);
    sleeping = 3;
    for (int i = 0; i < 3; i++)
        go(sleep_some, NULL);
    CHECK_INT(fiber_start(loop, sleep_some, NULL), ERR_LIMIT);
    loop_run(loop);
    CHECK_OK(fiber_start(loop, sleep_some, (void *)(intptr_t)(sleeping = 1)));
    loop_run(loop);
}

static void wait_for_bell(void *arg)
{
    (void)arg;
    add_note(err_text(await_wake(&bell, 0)));
    add_note(err_text(await_wake(&bell, loop_now_ns(loop) + 5 * NS_PER_MS)));
    loop_stop(loop);
}

static void ring(struct task *t)
{
    (void)t;
    waiter_wake(&bell, ERR_NOT_FOUND);
}

SCENE("a waiter is woken with a result, or by its deadline", waiters)
{
    static struct task t = {.run = ring};
    waiter_init(&bell);
    go(wait_for_bell, NULL);
    loop_defer(loop, &t);
    loop_run(loop);
    CHECK_TEXT(slice_from(note), "not found timed out ");
}

/* --- timers and threads --- */

static struct timer timers[5];

static void on_timer(struct timer *t)
{
    char digit[2] = {(char)('0' + (t - timers)), '\0'};
    add_note(digit);
    if (t == &timers[4])
        loop_stop(loop);
}

SCENE("timers fire in order, stopped ones never", timer_order)
{
    static const int ms[5] = {60, 20, 40, 10, 80};
    for (int i = 0; i < 5; i++) {
        timer_init(&timers[i], on_timer);
        timer_start(loop, &timers[i], loop_now_ns(loop) + (uint64_t)ms[i] * NS_PER_MS);
    }
    timer_stop(&timers[2]);
    timer_start(loop, &timers[3], loop_now_ns(loop) + 70 * NS_PER_MS);
    loop_run(loop);
    CHECK_TEXT(slice_from(note), "1 0 3 4 ");
    CHECK(!timer_running(&timers[2]));
}

static struct mail mails[100];
static int delivered;

static void on_mail(struct mail *m)
{
    (void)m;
    if (++delivered == 100)
        loop_stop(loop);
}

static void *post_all(void *arg)
{
    for (int i = 0; i < 100; i++) {
        mails[i].run = on_mail;
        mailbox_post(arg, &mails[i]);
    }
    return NULL;
}

SCENE("mail from another thread arrives", mail)
{
    pthread_t thread;
    delivered = 0;
    pthread_create(&thread, NULL, post_all, loop);
    loop_run(loop);
    pthread_join(thread, NULL);
    CHECK_INT(delivered, 100);
}

static _Atomic int worked_here; /* jobs that ran on the loop's own thread */
static pthread_t loop_thread;
static int offloaded;

static void block(void *arg)
{
    (void)arg;
    worked_here += pthread_equal(loop_thread, pthread_self()) != 0;
    usleep(1000);
}

static void offload_one(void *arg)
{
    (void)arg;
    CHECK_OK(await_offload(block, NULL));
    if (++offloaded == 20)
        loop_stop(loop);
}

SCENE("blocking work runs on another thread", offload)
{
    offloaded = 0;
    worked_here = 0;
    loop_thread = pthread_self();
    for (int i = 0; i < 20; i++)
        go(offload_one, NULL);
    loop_run(loop);
    offload_stop();
    CHECK_INT(worked_here, 0);
}
