/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens N keep-alive connections, asks one question on each, and then holds
 * them silent until its standard input closes, so that the server's memory can
 * be read meanwhile.
 *
 *   idle PORT PATH CONNECTIONS
 *
 * Prints one JSON line when all are idle, and a second one at the end: how many
 * the server had closed by then (a figure for connections that are gone would
 * be worth nothing). Leaves with resets, so that no TIME_WAIT is left behind.
 */
#include "client.h"

static bool ask_once(struct client *c, const char *request, size_t len)
{
    if (!client_send(c, request, len, now_ns()))
        return false;
    for (;;) {
        errno = 0;
        enum progress got = client_read(c, 0);
        if (got == ANSWERED)
            return true;
        if (got == BROKEN || errno == EAGAIN)
            return false;
    }
}

static bool closed_by_peer(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: idle PORT PATH CONNECTIONS\n");
        return 2;
    }
    uint16_t port = (uint16_t)number(argv[1], 1, 65535);
    size_t count = number(argv[3], 1, 60000), open = 0, closed = 0;
    char request[1024];
    size_t len = request_write(request, sizeof request, port, argv[2]);
    static struct client c;
    raise_fd_limit();
    int *fds = calloc(count, sizeof *fds);
    if (!fds)
        fatal("start");
    for (; open < count; open++) {
        if (!client_open(&c, port) || !ask_once(&c, request, len))
            break;
        fds[open] = c.fd;
    }
    printf("{\"open\":%zu,\"errors\":%d}\n", open, open < count);
    fflush(stdout);

    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    struct linger reset = {.l_onoff = 1};
    for (size_t i = 0; i < open; i++) {
        closed += closed_by_peer(fds[i]);
        setsockopt(fds[i], SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fds[i]);
    }
    printf("{\"closed\":%zu}\n", closed);
    free(fds);
    return open < count;
}
