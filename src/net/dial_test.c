/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connecting, against listeners of the test's own: ones that answer, ones whose queue is full (their
 * SYNs are dropped, so an attempt hangs), and ports where nobody listens.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "loop/scene_testing.h"
#include "net/dial.h"

static struct loop *loop;
static struct resolved to;
static struct dialed got;
static int keep[64];
static size_t kept;

static void run_scene(enum loop_kind kind, void (*scene)(void))
{
    to.count = 0;
    CHECK_OK(loop_create(kind, &loop));
    scene_play(loop, scene);
    CHECK_INT(loop_armed(loop), 0);
    CHECK_INT(fiber_live(loop), 0);
    loop_destroy(loop);
    while (kept > 0)
        close(keep[--kept]);
}

static int hold(int fd)
{
    CHECK(fd >= 0 && kept < sizeof keep / sizeof keep[0]);
    return keep[kept++] = fd;
}

static uint64_t soon(unsigned ms)
{
    return clock_mono_ns() + ms * NS_PER_MS;
}

/* Adds an address to `to`: bound to a free port of 127.0.0.x or ::1, and listening when `queue` is
 * not negative. */
static int add(const char *address, int queue)
{
    struct sockaddr_storage *a = &to.addresses[to.count];
    bool six = strchr(address, ':') != NULL;
    struct sockaddr_in *four_in = (struct sockaddr_in *)a;
    struct sockaddr_in6 *six_in = (struct sockaddr_in6 *)a;
    socklen_t len = six ? sizeof *six_in : sizeof *four_in;
    memset(a, 0, sizeof *a);
    a->ss_family = six ? AF_INET6 : AF_INET;
    inet_pton(a->ss_family, address, six ? (void *)&six_in->sin6_addr : (void *)&four_in->sin_addr);
    int fd = hold(socket(a->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (six && bind(fd, (struct sockaddr *)a, len) != 0)
        test_skip("no IPv6 here");
    if (!six)
        CHECK(bind(fd, (struct sockaddr *)a, len) == 0);
    CHECK(queue < 0 || listen(fd, queue) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)a, &len) == 0);
    to.lengths[to.count++] = len;
    return fd;
}

/* A listener whose queue is full: what connects to it hangs. */
static int add_hanging(const char *address)
{
    int fd = add(address, 0);
    for (int i = 0; i < 3; i++) {
        int c = hold(socket(to.addresses[to.count - 1].ss_family,
                            SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        (void)!connect(c, (struct sockaddr *)&to.addresses[to.count - 1], to.lengths[to.count - 1]);
    }
    return fd;
}

static enum err dial(struct dial_options o)
{
    if (o.deadline_ns == 0)
        o.deadline_ns = soon(5000);
    return await_dial(&to, &o, &got);
}

static void check_connected(size_t index, int listener)
{
    CHECK_INT(got.index, index);
    CHECK(got.fd >= 0);
    int peer = accept(listener, NULL, NULL);
    CHECK(peer >= 0 && write(peer, "x", 1) == 1);
    char c;
    size_t n;
    CHECK_OK(await_recv(got.fd, &c, 1, soon(2000), &n));
    close(peer);
    loop_close(loop, got.fd);
}

SCENE("the first address that listens is taken, with TCP_NODELAY and keep-alive as asked", plain)
{
    int on = 0, idle = 0;
    socklen_t len = sizeof on;
    int l = add("127.0.0.1", 8);
    add("127.0.0.2", 8);
    CHECK_OK(dial((struct dial_options){.keepalive = true, .keepalive_idle_s = 77}));
    getsockopt(got.fd, IPPROTO_TCP, TCP_NODELAY, &on, &len);
    CHECK_INT(on, 1);
    getsockopt(got.fd, SOL_SOCKET, SO_KEEPALIVE, &on, &len);
    getsockopt(got.fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, &len);
    CHECK(on == 1 && idle == 77);
    check_connected(0, l);
}

SCENE("an address that refuses is followed by the next at once", refused)
{
    uint64_t begin = clock_mono_ns();
    add("127.0.0.1", -1);
    add("127.0.0.1", -1);
    int l = add("127.0.0.1", 8);
    CHECK_OK(dial((struct dial_options){.fallback_ms = 2500}));
    CHECK(clock_mono_ns() - begin < 2500 * NS_PER_MS);
    check_connected(2, l);
}

SCENE("when all refuse, the first failure is told", all_refused)
{
    add("127.0.0.1", -1);
    add("127.0.0.2", -1);
    CHECK(dial((struct dial_options){0}) != OK);
    CHECK_INT(got.fd, -1);
    CHECK_INT(got.error, ECONNREFUSED);
    CHECK_INT(got.index, 0);
}

SCENE("beside an address that hangs the next is tried after the delay", hangs)
{
    uint64_t begin = clock_mono_ns();
    add_hanging("127.0.0.1");
    int l = add("127.0.0.2", 8);
    CHECK_OK(dial((struct dial_options){.fallback_ms = 60}));
    uint64_t took = clock_mono_ns() - begin;
    CHECK(took >= 60 * NS_PER_MS && took < 30000 * NS_PER_MS);
    check_connected(1, l);
}

SCENE("families take turns", families)
{
    add_hanging("::1");
    add_hanging("::1");
    add_hanging("::1");
    int l = add("127.0.0.2", 8);
    /* After one pause if they do, after three if not. */
    CHECK_OK(dial((struct dial_options){.fallback_ms = 800, .deadline_ns = soon(2300)}));
    check_connected(3, l);
}

SCENE("one by one, an address that hangs keeps the others waiting until the deadline", one_by_one)
{
    add_hanging("127.0.0.1");
    add("127.0.0.2", 8);
    CHECK_INT(dial((struct dial_options){.fallback_ms = DIAL_ONE_BY_ONE, .deadline_ns = soon(100)}),
              ERR_TIMEOUT);
    CHECK_INT(got.fd, -1);
    CHECK_INT(got.error, 0);
}

SCENE("the deadline ends all attempts", deadline)
{
    uint64_t begin = clock_mono_ns();
    for (int i = 0; i < 4; i++)
        add_hanging("127.0.0.1");
    CHECK_INT(dial((struct dial_options){.fallback_ms = 10, .deadline_ns = soon(100)}), ERR_TIMEOUT);
    CHECK(clock_mono_ns() - begin < 30000 * NS_PER_MS);
}

SCENE("the loser of two that connect is closed", loser)
{
    int first = add_hanging("127.0.0.1"), l = add("127.0.0.2", 8);
    CHECK_OK(dial((struct dial_options){.fallback_ms = 1}));
    (void)first;
    check_connected(1, l);
    struct pollfd p = {.fd = l, .events = POLLIN};
    CHECK_INT(poll(&p, 1, 20), 0);
}

static struct waiter told;
static enum err cancelled_with;
static struct fiber *victim;

static void on_victim(void *arg)
{
    struct dialed mine;
    struct dial_options o = {.fallback_ms = 10};
    (void)arg;
    victim = fiber_self();
    cancelled_with = await_dial(&to, &o, &mine);
    waiter_wake(&told, OK);
}

static void start_victim(struct task *t)
{
    (void)t;
    CHECK_OK(fiber_start(loop, on_victim, NULL));
}

static void cancel_victim(struct task *t)
{
    (void)t;
    fiber_cancel(victim, ERR_CLOSED);
}

SCENE("a cancelled fiber ends with its attempts", cancels)
{
    struct task start = {.run = start_victim}, cancel = {.run = cancel_victim};
    add_hanging("127.0.0.1");
    add_hanging("127.0.0.2");
    waiter_init(&told);
    loop_defer(loop, &start);
    await_sleep(soon(40));
    loop_defer(loop, &cancel);
    CHECK_OK(await_wake(&told, soon(30000)));
    CHECK_INT(cancelled_with, ERR_CLOSED);
}

SCENE("a local address is bound, and only its family is tried", local)
{
    struct sockaddr_in from = {.sin_family = AF_INET}, peer;
    socklen_t len = sizeof peer;
    inet_pton(AF_INET, "127.0.0.77", &from.sin_addr);
    add("::1", 8);
    int l = add("127.0.0.1", 8);
    CHECK_OK(dial((struct dial_options){.local = (struct sockaddr *)&from,
                                        .local_len = sizeof from}));
    getsockname(got.fd, (struct sockaddr *)&peer, &len);
    CHECK_INT(peer.sin_addr.s_addr, from.sin_addr.s_addr);
    check_connected(1, l);
    to.count = 1;
    CHECK_INT(dial((struct dial_options){.local = (struct sockaddr *)&from,
                                         .local_len = sizeof from}), ERR_INVALID);
}

static int unix_listener(const char *path, int queue)
{
    struct resolved r;
    CHECK_OK(resolved_unix(slice_from(path), &r));
    int fd = hold(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    CHECK(bind(fd, (struct sockaddr *)&r.addresses[0], r.lengths[0]) == 0 && listen(fd, queue) == 0);
    return fd;
}

SCENE("Unix sockets, by path and abstract", unix_sockets)
{
    char path[64], abstract[64];
    snprintf(path, sizeof path, "/tmp/portico-dial-test-%d", getpid());
    snprintf(abstract, sizeof abstract, "@portico-dial-test-%d", getpid());
    int l = unix_listener(path, 4);
    CHECK_OK(resolved_unix(slice_from(path), &to));
    CHECK_OK(dial((struct dial_options){0}));
    check_connected(0, l);
    unlink(path);
    CHECK(dial((struct dial_options){0}) != OK);
    CHECK_INT(got.error, ENOENT);
    l = unix_listener(abstract, 4);
    CHECK_OK(resolved_unix(slice_from(abstract), &to));
    CHECK_OK(dial((struct dial_options){0}));
    check_connected(0, l);
    CHECK_INT(resolved_unix(SLICE(""), &to), ERR_INVALID);
}

SCENE("a Unix socket with a full queue is a deadline, or a connection when it has room", unix_full)
{
    char path[64];
    snprintf(path, sizeof path, "@portico-dial-full-%d", getpid());
    int l = unix_listener(path, 0);
    CHECK_OK(resolved_unix(slice_from(path), &to));
    CHECK_OK(dial((struct dial_options){0}));
    hold(got.fd);
    CHECK_INT(dial((struct dial_options){.deadline_ns = soon(60)}), ERR_TIMEOUT);
    hold(accept(l, NULL, NULL));
    CHECK_OK(dial((struct dial_options){.deadline_ns = soon(20000)}));
    loop_close(loop, got.fd);
}
