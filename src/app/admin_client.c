/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.0 on purpose: the answer ends where the connection does, and needs no decoding. An answer
 * may take as long as a configuration takes to load; only connecting and silence are bounded.
 */
#include "app/admin_client.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "app/admin_site.h"
#include "app/cli.h"
#include "base/buffer.h"
#include "base/mem.h"

enum { ANSWER_MAX = 2 << 20, SILENCE_S = 300 };

struct link {
    struct network_address address;
    struct slice path; /* of a Unix socket */
    struct arena arena;
    char origin[320]; /* "http://localhost:2019" */
    int fd;
};

const char *admin_address(const char *address, const json_t *document)
{
    const char *env = getenv("CADDY_ADMIN");
    const char *listen = json_string_value(json_object_get(json_object_get(document, "admin"),
                                                           "listen"));
    if (address != NULL && address[0] != '\0')
        return address;
    if (listen != NULL && listen[0] != '\0')
        return listen;
    return env != NULL && env[0] != '\0' ? env : ADMIN_DEFAULT;
}

static enum err read_address(struct link *l, const char *text, char *error, size_t cap)
{
    struct address_error why;
    uint32_t mode;
    enum err e = address_parse(slice_from(text), SLICE("tcp"), 0, &l->address, &l->arena, &why);
    if (e == OK && l->address.first_port != l->address.last_port) {
        snprintf(why.text, sizeof why.text, "a range of ports");
        e = ERR_INVALID;
    }
    if (e == OK && network_is_fd(l->address.network)) {
        snprintf(why.text, sizeof why.text, "a descriptor cannot be dialled");
        e = ERR_INVALID;
    }
    if (e == OK && network_is_unix(l->address.network))
        e = unix_permissions(l->address.host, &l->path, &mode, &why);
    if (e != OK)
        snprintf(error, cap, "invalid admin address %s: %s", text, why.text);
    bool v6 = slice_find(l->address.host, ':') != SIZE_MAX;
    struct slice host = l->address.host.len > 0 ? slice_take(l->address.host, 255)
                                                : SLICE("localhost");
    if (e == OK)
        snprintf(l->origin, sizeof l->origin, "http://%s" SLICE_FMT "%s:%u", v6 ? "[" : "",
                 SLICE_ARG(host), v6 ? "]" : "", l->address.first_port);
    return e;
}

static void limit_silence(int fd)
{
    struct timeval wait = {.tv_sec = SILENCE_S};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
}

static enum err dial_unix(struct link *l)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (l->path.len >= sizeof a.sun_path) {
        errno = ENAMETOOLONG;
        return ERR_INVALID;
    }
    memcpy(a.sun_path, l->path.ptr, l->path.len);
    bool is_abstract = l->path.len > 0 && l->path.ptr[0] == '@';
    if (is_abstract)
        a.sun_path[0] = '\0';
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    size_t len = offsetof(struct sockaddr_un, sun_path) + l->path.len + (is_abstract ? 0 : 1);
    return l->fd >= 0 && connect(l->fd, (struct sockaddr *)&a, (socklen_t)len) == 0 ? OK : ERR_IO;
}

/* The first address of the name that answers. */
static enum err dial_tcp(struct link *l, const char **why)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    char port[8];
    struct slice host = l->address.host.len > 0 ? l->address.host : SLICE("localhost");
    snprintf(port, sizeof port, "%u", l->address.first_port);
    int code = getaddrinfo(arena_str(&l->arena, host), port, &hints, &found);
    if (code != 0) {
        *why = gai_strerror(code);
        return ERR_NOT_FOUND;
    }
    for (const struct addrinfo *a = found; a != NULL; a = a->ai_next) {
        l->fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (l->fd >= 0 && connect(l->fd, a->ai_addr, a->ai_addrlen) == 0)
            break;
        int reason = errno;
        if (l->fd >= 0)
            close(l->fd);
        l->fd = -1;
        errno = reason;
    }
    freeaddrinfo(found);
    return l->fd >= 0 ? OK : ERR_IO;
}

static enum err dial(struct link *l, const struct admin_call *c, char *error, size_t cap)
{
    const char *why = NULL;
    bool is_unix = network_is_unix(l->address.network);
    errno = 0;
    enum err e = is_unix ? dial_unix(l) : dial_tcp(l, &why);
    if (e == OK) {
        limit_silence(l->fd);
        return OK;
    }
    snprintf(error, cap, "performing request: %s \"%s%s\": dial %s: %s", c->method,
             is_unix ? "http://127.0.0.1" : l->origin, c->path, c->address,
             why != NULL ? why : strerror(errno));
    return e;
}

static enum err send_all(int fd, struct slice bytes)
{
    while (bytes.len > 0) {
        ssize_t n = send(fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return ERR_CLOSED;
        bytes = slice_skip(bytes, (size_t)n);
    }
    return OK;
}

static enum err send_request(struct link *l, const struct admin_call *c)
{
    struct buffer head;
    buffer_init(&head, 65536);
    bool is_unix = network_is_unix(l->address.network);
    enum err e = buffer_append_f(&head, "%s %s HTTP/1.0\r\nHost: %s\r\n", c->method, c->path,
                                 is_unix ? "127.0.0.1" : l->origin + strlen("http://"));
    if (e == OK && !is_unix)
        e = buffer_append_f(&head, "Origin: %s\r\n", l->origin);
    if (e == OK && c->body.ptr != NULL)
        e = BUFFER_PUT(&head, "Content-Type: application/json\r\n");
    if (e == OK)
        e = buffer_append(&head, c->fields);
    if (e == OK)
        e = buffer_append_f(&head, "Content-Length: %zu\r\n\r\n", c->body.len);
    if (e == OK)
        e = send_all(l->fd, buffer_slice(&head));
    /* A server that refuses early may close while the body is sent: its answer says why. */
    if (e == OK)
        (void)!send_all(l->fd, c->body);
    buffer_deinit(&head);
    return e;
}

static enum err read_answer(int fd, struct buffer *b)
{
    ssize_t n;
    do {
        TRY(buffer_reserve(b, 16384));
        n = read(fd, b->ptr + b->len, 16384);
        if (n > 0)
            b->len += (size_t)n;
    } while (n > 0 || (n < 0 && errno == EINTR));
    return b->len > 0 ? OK : ERR_CLOSED;
}

/* "HTTP/1.1 400 Bad Request", fields, an empty line, the body. */
static enum err judge(struct slice answer, const struct admin_call *c, char *error, size_t cap)
{
    uint64_t status;
    size_t end = slice_find_slice(answer, SLICE("\r\n\r\n"));
    if (!slice_starts(answer, SLICE("HTTP/1.")) || answer.len < 12 || end == SIZE_MAX ||
        !slice_to_u64(slice_of(answer.ptr + 9, 3), 999, &status)) {
        snprintf(error, cap, "performing request: what answers there does not speak HTTP");
        return ERR_INVALID;
    }
    if (status < 400)
        return c->answer == NULL ? OK : buffer_append(c->answer, slice_skip(answer, end + 4));
    snprintf(error, cap, "%s responded with error: HTTP %u: " SLICE_FMT, cli_program(),
             (unsigned)status, SLICE_ARG(slice_take(slice_trim(slice_skip(answer, end + 4)), 1500)));
    return ERR_INVALID;
}

static enum err exchange(struct link *l, const struct admin_call *c, char *error, size_t cap)
{
    struct buffer answer;
    TRY(read_address(l, c->address, error, cap));
    TRY(dial(l, c, error, cap));
    buffer_init(&answer, ANSWER_MAX);
    enum err e = send_request(l, c);
    if (e == OK)
        e = read_answer(l->fd, &answer);
    if (e != OK)
        snprintf(error, cap, "performing request: %s \"%s%s\": the connection was closed without an "
                 "answer", c->method, l->origin, c->path);
    else
        e = judge(buffer_slice(&answer), c, error, cap);
    buffer_deinit(&answer);
    return e;
}

enum err admin_request(const struct admin_call *c, char *error, size_t cap)
{
    struct link l = {.fd = -1};
    arena_init(&l.arena, 4096);
    enum err e = exchange(&l, c, error, cap);
    if (l.fd >= 0)
        close(l.fd);
    arena_deinit(&l.arena);
    return e;
}
