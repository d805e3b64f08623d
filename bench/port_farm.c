/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many processes that hold many sockets: `port_farm PROCESSES SOCKETS [FIRST_PORT]`. Socket i has
 * port FIRST_PORT + i and is held by process i mod PROCESSES; of eight, six listen on TCP (three on
 * 127.0.0.1, two on [::], one on 0.0.0.0) and two are bound on UDP. Prints "ready" when all are
 * there and ends with its standard input.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void open_one(unsigned i, unsigned port)
{
    unsigned kind = i % 8;
    int six = kind == 3 || kind == 4, udp = kind >= 6;
    int fd = socket(six ? AF_INET6 : AF_INET, udp ? SOCK_DGRAM : SOCK_STREAM, 0);
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    four.sin_addr.s_addr = htonl(kind == 5 ? INADDR_ANY : INADDR_LOOPBACK);
    if (fd < 0 || (six ? bind(fd, (void *)&any, sizeof any) : bind(fd, (void *)&four, sizeof four)) < 0)
        fail("bind");
    if (!udp && listen(fd, 16) < 0)
        fail("listen");
}

static void be_holder(unsigned me, unsigned processes, unsigned sockets, unsigned first, int told)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (unsigned i = me; i < sockets; i += processes)
        open_one(i, first + i);
    if (write(told, "r", 1) != 1)
        fail("write");
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    unsigned processes = argc > 1 ? (unsigned)atoi(argv[1]) : 2000;
    unsigned sockets = argc > 2 ? (unsigned)atoi(argv[2]) : 10000;
    unsigned first = argc > 3 ? (unsigned)atoi(argv[3]) : 10000;
    int told[2];
    char c;
    if (pipe(told) < 0)
        fail("pipe");
    for (unsigned i = 0; i < processes; i++) {
        pid_t pid = fork();
        if (pid < 0)
            fail("fork");
        if (pid == 0)
            be_holder(i, processes, sockets, first, told[1]);
    }
    for (unsigned i = 0; i < processes; i++) {
        if (read(told[0], &c, 1) != 1)
            fail("read");
    }
    puts("ready");
    fflush(stdout);
    while (read(0, &c, 1) > 0) {
    }
    return 0; /* the holders end with us */
}
