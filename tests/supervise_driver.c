/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real keeper around a server that does only what a test tells it: it relays supervisor messages
 * between the keeper and a SOCK_SEQPACKET socket that the test listens on, as JSON, descriptors and
 * all. Usage: supervise_driver SOCKET [USER]; USER is whom the server becomes.
 */
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "app/server_rights.h"
#include "base/mem.h"
#include "keeper/keeper.h"
#include "keeper/keeper_wire.h"
#include "services/enter.h"
#include "services/launch.h"
#include "services/supervisor_wire.h"

enum { PACKET_MAX = 1 << 20 };

static int fd_of(const char *variable)
{
    const char *value = getenv(variable);
    return value != NULL ? (int)strtol(value, NULL, 10) : -1;
}

static int dial(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) != 0)
        exit(1);
    return fd;
}

/* --- from the test --- */

static struct slice text_of(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return slice_of(json_is_string(v) ? json_string_value(v) : "", json_string_length(v));
}

static uint64_t number_of(const json_t *o, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(o, key));
}

static struct slice *words_of(const json_t *o, const char *key, size_t *count)
{
    const json_t *list = json_object_get(o, key);
    *count = json_array_size(list);
    struct slice *out = mem_zalloc((*count + 1) * sizeof *out);
    for (size_t i = 0; i < *count; i++) {
        const json_t *v = json_array_get(list, i);
        out[i] = slice_of(json_string_value(v), json_string_length(v));
    }
    return out;
}

static int write_launch(const json_t *o)
{
    struct launch l = {.service = text_of(o, "service"), .replica = (uint32_t)number_of(o, "replica"),
                       .digest = number_of(o, "digest"), .dir = text_of(o, "dir"),
                       .user = text_of(o, "user"), .group = text_of(o, "group"),
                       .host = text_of(o, "host"), .memory = number_of(o, "memory"),
                       .tasks = number_of(o, "tasks"), .files = number_of(o, "files"),
                       .cpu = json_number_value(json_object_get(o, "cpu")),
                       .port = (uint16_t)number_of(o, "port"),
                       .confine = json_is_true(json_object_get(o, "confine")),
                       .socket = json_is_true(json_object_get(o, "socket"))};
    l.argv = words_of(o, "run", &l.argv_count);
    l.env = words_of(o, "env", &l.env_count);
    int fd = launch_write(&l);
    mem_free(l.argv);
    mem_free(l.env);
    return fd;
}

static void relay_down(int programs, const json_t *o, const int *fds, unsigned count)
{
    struct supervisor_message m = {.kind = (uint32_t)number_of(o, "kind"),
                                   .instance = number_of(o, "instance"),
                                   .signal = (int32_t)number_of(o, "signal"),
                                   .replica = (uint32_t)number_of(o, "replica"),
                                   .timeout_ms = (uint32_t)number_of(o, "timeout_ms")};
    int all[SUPERVISE_FDS];
    unsigned n = 0;
    snprintf(m.text, sizeof m.text, SLICE_FMT, SLICE_ARG(text_of(o, "text")));
    snprintf(m.name, sizeof m.name, SLICE_FMT, SLICE_ARG(text_of(o, "name")));
    const json_t *launch = json_object_get(o, "launch");
    if (launch != NULL)
        all[n++] = write_launch(launch);
    for (unsigned i = 0; i < count && n < SUPERVISE_FDS; i++)
        all[n++] = fds[i];
    for (uint64_t i = 0; i <= number_of(o, "again"); i++, m.instance++)
        if (supervisor_send(programs, &m, all, n) != OK)
            exit(3);
    if (launch != NULL)
        close(all[0]);
}

static void tell_keeper(int keeper, enum keeper_kind kind)
{
    struct keeper_message m = {.kind = kind, .port = 0, .count = 1, .network = "tcp",
                               .host = "127.0.0.1"};
    int fds[KEEPER_FDS];
    unsigned count = KEEPER_FDS;
    (void)!keeper_send(keeper, &m, NULL, 0);
    if (kind != KEEPER_LISTEN)
        return;
    (void)!keeper_receive(keeper, &m, fds, &count, 0);
    while (count > 0)
        close(fds[--count]);
}

static void obey(int keeper, int programs, const char *text, size_t len, const int *fds,
                 unsigned count)
{
    json_t *o = json_loadb(text, len, 0, NULL);
    const json_t *to = json_object_get(o, "keeper");
    if (to != NULL)
        tell_keeper(keeper, (enum keeper_kind)json_integer_value(to));
    else if (json_object_get(o, "exit") != NULL)
        exit((int)number_of(o, "exit"));
    else
        relay_down(programs, o, fds, count);
    json_decref(o);
}

static void hear_test(int test, int keeper, int programs)
{
    static char text[PACKET_MAX];
    union {
        char bytes[CMSG_SPACE(sizeof(int) * SUPERVISE_FDS)];
        struct cmsghdr align;
    } control;
    struct iovec part = {text, sizeof text};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    int fds[SUPERVISE_FDS];
    unsigned count = 0;
    ssize_t n = recvmsg(test, &message, MSG_CMSG_CLOEXEC);
    if (n <= 0)
        exit(0);
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    if (c != NULL) {
        count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(c), count * sizeof(int));
    }
    obey(keeper, programs, text, (size_t)n, fds, count);
    while (count > 0)
        close(fds[--count]);
}

/* --- to the test --- */

static void relay_up(int test, json_t *o, const int *fds, unsigned count)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * SUPERVISE_FDS)];
        struct cmsghdr align;
    } control = {{0}};
    char *text = json_dumps(o, 0);
    struct iovec part = {text, strlen(text)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (count > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * count);
    }
    if (sendmsg(test, &message, MSG_NOSIGNAL) < 0)
        exit(4);
    free(text);
    json_decref(o);
}

static void hear_programs(int test, int programs)
{
    struct supervisor_message m;
    int fds[SUPERVISE_FDS];
    unsigned count = SUPERVISE_FDS;
    if (supervisor_receive(programs, &m, fds, &count, 0) != OK)
        exit(5);
    relay_up(test,
             json_pack("{s:i,s:i,s:I,s:i,s:i,s:s,s:i,s:i,s:I,s:I,s:s}", "kind", m.kind, "error",
                       m.error, "instance", (json_int_t)m.instance, "pid", m.pid, "status",
                       m.status, "name", m.name, "replica", m.replica, "port", m.port, "digest",
                       (json_int_t)m.digest, "started_ns", (json_int_t)m.started_ns, "text",
                       m.text), fds, count);
    while (count > 0)
        close(fds[--count]);
}

static void hear_keeper(int keeper)
{
    struct keeper_message m;
    unsigned none = 0;
    if (keeper_receive(keeper, &m, NULL, &none, 0) != OK || m.kind == KEEPER_STOP ||
        m.kind == KEEPER_STOP_NOW)
        exit(0);
}

static int serve(const char *path, const char *user)
{
    int keeper = fd_of(KEEPER_ENV), programs = fd_of(SUPERVISOR_ENV), test = dial(path);
    char error[256];
    if (rights_settle(slice_from(user), error, sizeof error) != OK) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    for (;;) {
        struct pollfd p[3] = {{test, POLLIN, 0}, {keeper, POLLIN, 0}, {programs, POLLIN, 0}};
        if (poll(p, 3, -1) < 0)
            return 1;
        if (p[0].revents != 0)
            hear_test(test, keeper, programs);
        if (p[1].revents != 0)
            hear_keeper(keeper);
        if (p[2].revents != 0)
            hear_programs(test, programs);
    }
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    if (strcmp(argv[1], "enter") == 0 && argc > 5) { /* enter PID PORT CONFINE COMMAND … */
        char error[512] = "";
        service_enter((pid_t)strtol(argv[2], NULL, 10), (uint16_t)strtol(argv[3], NULL, 10),
                      argv[4][0] == '1', argv + 5, error, sizeof error);
        fprintf(stderr, "%s\n", error);
        return 125;
    }
    return getenv(KEEPER_ENV) != NULL ? serve(argv[1], argc > 2 ? argv[2] : "") : keeper_run(argv);
}
