/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets that come and go while somebody watches.
 */
#include "ports/watch.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/test.h"

static const struct socket_options here = {.one_namespace = true};

static struct port_watch *start(unsigned interval_ms)
{
    struct port_watch *w = NULL;
    char error[128];
    CHECK_OK(port_watch_open(&w, &here, interval_ms, error, sizeof error));
    return w;
}

static int open_at(int type, uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = *port};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(fd, (void *)&a, sizeof a) == 0);
    if (type == SOCK_STREAM)
        CHECK(listen(fd, 8) == 0);
    CHECK(getsockname(fd, (void *)&a, &len) == 0);
    *port = a.sin_port;
    return fd;
}

/* Until a look changes nothing: other programs of this namespace may come and go as well. */
static void settle(struct port_watch *w)
{
    for (int i = 0; i < 100 && port_watch_look(w); i++)
        usleep(10000);
}

TEST("a listening or bound socket that comes is seen, and one that goes")
{
    struct port_watch *w = start(20);
    for (int type = SOCK_STREAM; type <= SOCK_DGRAM; type++) {
        uint16_t port = 0;
        settle(w);
        int fd = open_at(type, &port);
        CHECK_OK(port_watch_wait(w, 5000));
        settle(w);
        close(fd);
        CHECK_OK(port_watch_wait(w, 5000));
    }
    port_watch_close(w);
}

TEST("a socket in the place of another is a change, though address and port are the same")
{
    uint16_t port = 0;
    struct port_watch *w = start(20);
    int fd = open_at(SOCK_STREAM, &port);
    settle(w);
    close(fd);
    fd = open_at(SOCK_STREAM, &port);
    CHECK(port_watch_look(w));
    close(fd);
    port_watch_close(w);
}

TEST("the end of a listening socket is seen by the kernel's event, long before the next look")
{
    uint16_t port = 0;
    struct port_watch *w = start(60000);
    int fd = open_at(SOCK_STREAM, &port);
    settle(w);
    close(fd);
    uint64_t before = clock_mono_ns();
    CHECK_OK(port_watch_wait(w, 50000));
    CHECK(clock_mono_ns() - before < 20 * NS_PER_S);
    port_watch_close(w);
}

TEST("connections that end by the hundred do no harm, and the listener's end is still seen")
{
    uint16_t port = 0;
    struct port_watch *w = start(50);
    int fd = open_at(SOCK_STREAM, &port);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = port};
    struct linger hard = {1, 0};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < 300; i++) {
        int c = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(connect(c, (void *)&to, sizeof to) == 0);
        int s = accept(fd, NULL, NULL);
        setsockopt(c, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        close(c);
        close(s);
    }
    while (port_watch_wait(w, 300) == OK) {
    }
    close(fd);
    CHECK_OK(port_watch_wait(w, 5000));
    port_watch_close(w);
}

static void on_alarm(int number)
{
}

TEST("nothing new ends the wait at its time, a signal before")
{
    struct port_watch *w = start(20);
    struct sigaction act = {.sa_handler = on_alarm};
    struct itimerval soon = {{0, 50000}, {0, 50000}}, never = {{0, 0}, {0, 0}};
    enum err e;
    sigaction(SIGALRM, &act, NULL);
    while ((e = port_watch_wait(w, 100)) == OK) {
    }
    CHECK_INT(e, ERR_TIMEOUT);
    setitimer(ITIMER_REAL, &soon, NULL);
    while ((e = port_watch_wait(w, 20000)) == OK) {
    }
    setitimer(ITIMER_REAL, &never, NULL);
    CHECK_INT(e, ERR_CANCELLED);
    port_watch_close(w);
}
