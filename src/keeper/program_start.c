/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting a program: whether its user may be asked for (keeper/programs.h has the rules), the
 * socket that it is to inherit and that outlives it, its pipes and control group, and the order to
 * the guardhouse, which is forked at the first start.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "keeper/powers.h"
#include "keeper/program.h"
#include "services/guardhouse.h"
#include "services/launch.h"

enum { OUTPUT_PIPE = 1 << 18, ERRORS_PIPE = 1 << 16 };

/* --- users --- */

void programs_allow(struct keeper *k, const char *who)
{
    struct programs *g = &k->programs;
    if (!g->sealed && g->allowed_count < ALLOWED_MAX)
        g->allowed[g->allowed_count++] = slice_dup(slice_from(who));
}

static bool is_allowed(const struct programs *g, const struct launch *l)
{
    struct slice user, group;
    for (unsigned i = 0; i < g->allowed_count; i++) {
        slice_cut(slice_from(g->allowed[i]), ':', &user, &group);
        if (slice_eq(user, l->user) && slice_eq(group, l->group))
            return true;
    }
    return false;
}

/* Whose the server is tells the kernel, not the server. */
static enum err check_user(struct keeper *k, const struct launch *l, struct identity *server,
                           char *error, size_t cap)
{
    if (k->server.child.pid <= 0 || identity_of_process(k->server.child.pid, server) != OK) {
        snprintf(error, cap, "whose the server process is cannot be seen in /proc");
        return ERR_IO;
    }
    if (l->user.len == 0 && l->group.len > 0) {
        snprintf(error, cap, "a group without a user");
        return ERR_INVALID;
    }
    if (l->user.len == 0 || geteuid() != 0 || server->uid == 0 || is_allowed(&k->programs, l))
        return OK;
    snprintf(error, cap, "user " SLICE_FMT ": it was not in the configuration that portico was "
             "started with: restart portico", SLICE_ARG(l->user));
    return ERR_DENIED;
}

/* --- sockets that outlive their programs --- */

struct held_socket *program_socket_find(struct keeper *k, const char *name, uint32_t replica)
{
    LIST_FOR(it, &k->programs.sockets) {
        struct held_socket *h = CONTAINER_OF(it, struct held_socket, node);
        if (h->replica == replica && strcmp(h->name, name) == 0)
            return h;
    }
    return NULL;
}

void program_socket_release(struct keeper *k, struct held_socket *h)
{
    if (h == NULL)
        return;
    k->programs.sockets_count--;
    close(h->fd);
    list_remove(&h->node);
    mem_free(h);
}

/* As a socket unit would make it: blocking, and accepted when connected. */
static void make_plain(int fd)
{
    int no = 0, flags = fcntl(fd, F_GETFL);
    (void)fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &no, sizeof no);
}

static enum err hold_socket(struct keeper *k, const struct launch *l, int *fd, char *error,
                            size_t cap)
{
    char name[72];
    snprintf(name, sizeof name, SLICE_FMT, SLICE_ARG(l->service));
    struct held_socket *h = program_socket_find(k, name, l->replica);
    if (h != NULL && (!l->socket || h->port != l->port || !slice_is(l->host, h->host))) {
        program_socket_release(k, h);
        h = NULL;
    }
    *fd = h != NULL ? h->fd : -1;
    if (h != NULL || !l->socket)
        return OK;
    if (k->programs.sockets_count >= PROGRAMS_MAX) {
        snprintf(error, cap, "there are %d sockets of services already", PROGRAMS_MAX);
        return ERR_LIMIT;
    }
    h = NEW(struct held_socket);
    struct listen_request r = {.network = SLICE("tcp"), .host = l->host, .port = l->port, .count = 1};
    enum err e = listen_open(&r, fd, &h->port, error, cap);
    if (e != OK) {
        mem_free(h);
        *fd = -1;
        return e;
    }
    make_plain(*fd);
    memcpy(h->name, name, sizeof h->name);
    snprintf(h->host, sizeof h->host, SLICE_FMT, SLICE_ARG(l->host));
    h->replica = l->replica;
    h->fd = *fd;
    list_append(&k->programs.sockets, &h->node);
    k->programs.sockets_count++;
    return OK;
}

/* --- starting --- */

struct pipes {
    int wire[2];   /* the keeper's end, the warden's */
    int output[2], errors[2]; /* reading, writing */
    int socket, cgroup;
};

static void close_pipes(struct pipes *p)
{
    for (int i = 0; i < 2; i++) {
        close_fd(&p->wire[i]);
        close_fd(&p->output[i]);
        close_fd(&p->errors[i]);
    }
    close_fd(&p->cgroup);
}

static enum err open_pipes(struct pipes *p, bool exec, char *error, size_t cap)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p->wire) != 0 ||
        (!exec && (pipe2(p->output, O_CLOEXEC) != 0 || pipe2(p->errors, O_CLOEXEC) != 0))) {
        snprintf(error, cap, "it cannot be started: %s", strerror(errno));
        return ERR_LIMIT;
    }
    if (!exec) {
        (void)fcntl(p->output[0], F_SETPIPE_SZ, OUTPUT_PIPE);
        (void)fcntl(p->errors[0], F_SETPIPE_SZ, ERRORS_PIPE);
    }
    return OK;
}

static bool open_guardhouse(struct keeper *k)
{
    struct programs *g = &k->programs;
    int pair[2];
    if (g->guardhouse.pid > 0)
        return g->guard_wire.fd >= 0;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return false;
    pid_t pid = watch_start(&k->rounds, &g->guard_wire, pair[0]) ? fork() : -1;
    if (pid == 0) {
        powers_of_guardhouse();
        guardhouse_run(pair[1], g->files, title_of(k->argv), powers_wake);
    }
    close(pair[1]);
    if (pid < 0) {
        watch_stop(&k->rounds, &g->guard_wire);
        close(pair[0]);
        return false;
    }
    child_add(&k->rounds, &g->guardhouse, pid);
    return true;
}

static enum err order_warden(struct program *p, const struct pipes *pipes, const int *fds,
                             const struct identity *server)
{
    struct keeper *k = p->keeper;
    struct warden w = {.wire = pipes->wire[1], .output = pipes->output[1],
                       .errors = pipes->errors[1]};
    w.spawn = (struct spawn){.stdio = {-1, -1, -1}, .socket = pipes->socket,
                             .cgroup = pipes->cgroup, .server = server,
                             .any_user = server->uid == 0};
    if (p->exec)
        memcpy(w.spawn.stdio, fds + 1, sizeof w.spawn.stdio);
    if (!open_guardhouse(k))
        return ERR_LIMIT;
    return guardhouse_order(k->programs.guard_wire.fd, p->facts.instance, fds[0], &w);
}

static enum err start_warden(struct program *p, const struct launch *l, const int *fds,
                             const struct identity *server, char *error, size_t cap)
{
    struct keeper *k = p->keeper;
    struct pipes pipes = {{-1, -1}, {-1, -1}, {-1, -1}, -1, -1};
    enum err e = p->exec ? OK : hold_socket(k, l, &pipes.socket, error, cap);
    if (e == OK)
        e = open_pipes(&pipes, p->exec, error, cap);
    if (e == OK)
        e = cgroup_create(&k->programs.groups, l, p->facts.instance, &pipes.cgroup, error, cap);
    if (e == OK && !watch_start(&k->rounds, &p->wire, pipes.wire[0]))
        e = ERR_LIMIT;
    if (e == OK)
        e = order_warden(p, &pipes, fds, server);
    if (e != OK) {
        if (error[0] == '\0')
            snprintf(error, cap, "it cannot be started: %s",
                     e == ERR_TIMEOUT ? "the guardhouse process does not answer" : strerror(errno));
        watch_stop(&k->rounds, &p->wire);
        cgroup_remove(pipes.cgroup);
        pipes.cgroup = -1;
        close_pipes(&pipes);
        return e;
    }
    p->guarded = true;
    p->output = pipes.output[0];
    p->errors = pipes.errors[0];
    pipes.wire[0] = pipes.output[0] = pipes.errors[0] = -1; /* these stay */
    close_pipes(&pipes);
    return OK;
}

static void note_facts(struct program *p, const struct launch *l)
{
    snprintf(p->facts.name, sizeof p->facts.name, SLICE_FMT, SLICE_ARG(l->service));
    memcpy(p->end.name, p->facts.name, sizeof p->end.name);
    p->facts.replica = p->end.replica = l->replica;
    p->facts.port = l->port;
    p->facts.digest = l->digest;
    p->facts.started_ns = clock_wall_ns();
}

static enum err start(struct program *p, const int *fds, unsigned count, char *error, size_t cap)
{
    struct arena arena;
    struct launch l;
    struct identity server;
    if (p->keeper->programs.stopping || count != (p->exec ? 4 : 1)) {
        snprintf(error, cap, p->keeper->programs.stopping ? "portico is shutting down"
                                                          : "descriptors are missing");
        return ERR_CANCELLED;
    }
    arena_init(&arena, 16384);
    enum err e = launch_read(fds[0], &l, &arena, error, cap);
    if (e == OK)
        note_facts(p, &l);
    if (e == OK)
        e = check_user(p->keeper, &l, &server, error, cap);
    if (e == OK)
        e = start_warden(p, &l, fds, &server, error, cap);
    arena_deinit(&arena);
    return e;
}

void programs_start(struct keeper *k, const struct supervisor_message *m, const int *fds,
                    unsigned count)
{
    char error[SUPERVISE_TEXT] = "";
    struct supervisor_message refused = {.kind = SUPERVISE_FAILED, .instance = m->instance,
                                         .error = ERR_LIMIT};
    struct program *p = program_find(k, m->instance) == NULL ? program_add(k, m) : NULL;
    if (p == NULL) {
        snprintf(refused.text, sizeof refused.text, "there are %d programs already", PROGRAMS_MAX);
        (void)programs_offer(k, &refused, NULL, 0);
        return;
    }
    p->exec = m->kind == SUPERVISE_EXEC;
    powers_raise();
    enum err e = start(p, fds, count, error, sizeof error);
    powers_lower();
    if (e != OK) {
        program_fail(p, e, error);
        programs_flush(k);
    }
}
