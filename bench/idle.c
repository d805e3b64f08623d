/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens N keep-alive connections, asks one question on each, and then holds
 * them silent until its standard input closes, so that the server's memory can
 * be read meanwhile.
 *
 *   idle PORT PATH CONNECTIONS [h2]
 *
 * With h2, over HTTP/2 with prior knowledge.
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

/* The same over HTTP/2 with prior knowledge: preface, SETTINGS, one GET; read until its stream ends. */
static size_t h2_question(unsigned char *out, uint16_t port, const char *path)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    char host[32];
    size_t n = sizeof preface - 1, head = n, path_len = strlen(path);
    memcpy(out, preface, n);
    n += 9;
    out[n++] = 0x82; /* GET, http */
    out[n++] = 0x86;
    out[n++] = 0x04; /* :path, not indexed */
    out[n++] = (unsigned char)path_len;
    memcpy(out + n, path, path_len);
    n += path_len;
    out[n++] = 0x41; /* :authority, indexed as clients do */
    out[n] = (unsigned char)snprintf(host, sizeof host, "127.0.0.1:%u", port);
    memcpy(out + n + 1, host, out[n]);
    n += 1u + out[n];
    unsigned char frame[9] = {0, 0, (unsigned char)(n - head - 9), 1, 5, 0, 0, 0, 1};
    memcpy(out + head, frame, sizeof frame);
    return n;
}

static bool read_all(int fd, unsigned char *to, size_t len)
{
    for (ssize_t n; len > 0; to += n, len -= (size_t)n) {
        n = recv(fd, to, len, 0);
        if (n <= 0)
            return false;
    }
    return true;
}

static bool h2_ask_once(int fd, const unsigned char *question, size_t len)
{
    static const unsigned char settings_ack[9] = {0, 0, 0, 4, 1};
    unsigned char head[9], payload[65536];
    bool answered = false, acknowledged = false;
    if (send(fd, question, len, MSG_NOSIGNAL) != (ssize_t)len)
        return false;
    while (!answered || !acknowledged) {
        if (!read_all(fd, head, sizeof head))
            return false;
        size_t size = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
        if (size > sizeof payload || !read_all(fd, payload, size) || head[3] == 3 || head[3] == 7)
            return false;
        answered |= (head[3] == 0 || head[3] == 1) && (head[4] & 1) != 0;
        if (head[3] == 4 && (head[4] & 1) == 0) {
            acknowledged = true;
            if (send(fd, settings_ack, sizeof settings_ack, MSG_NOSIGNAL) < 0)
                return false;
        }
    }
    return true;
}

static bool closed_by_peer(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN);
}

int main(int argc, char **argv)
{
    bool h2 = argc == 5 && strcmp(argv[4], "h2") == 0;
    if (argc != 4 && !h2) {
        fprintf(stderr, "usage: idle PORT PATH CONNECTIONS [h2]\n");
        return 2;
    }
    uint16_t port = (uint16_t)number(argv[1], 1, 65535);
    size_t count = number(argv[3], 1, 60000), open = 0, closed = 0;
    char request[1024];
    size_t len = h2 ? h2_question((unsigned char *)request, port, argv[2])
                    : request_write(request, sizeof request, port, argv[2]);
    static struct client c;
    raise_fd_limit();
    int *fds = calloc(count, sizeof *fds);
    if (!fds)
        fatal("start");
    for (; open < count; open++) {
        if (!client_open(&c, port))
            break;
        if (h2 ? !h2_ask_once(c.fd, (unsigned char *)request, len) : !ask_once(&c, request, len))
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
