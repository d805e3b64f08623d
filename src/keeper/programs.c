/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server's side of the table: its messages, its comings and goings.
 *
 * A program's stdout and stderr are a pipe each, whose reading end the server has and the keeper
 * keeps: a program never meets a closed pipe. While no server reads, a pipe that is half full is
 * emptied here, so that nothing waits for a server that is down; what is lost so is counted in the
 * log.
 */
#include "keeper/programs.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "keeper/program.h"

#define DRAIN_NS (30 * NS_PER_MS)

/* --- stopping --- */

static void on_stop(struct keeper *k, const struct supervisor_message *m)
{
    struct supervisor_message unknown = {.kind = SUPERVISE_EXITED, .instance = m->instance};
    struct program *p = program_find(k, m->instance);
    if (p != NULL) {
        program_stop(p, m->signal, m->timeout_ms);
        return;
    }
    p = program_add(k, m);
    if (p == NULL)
        return;
    p->end = unknown;
    p->state = PROGRAM_ENDED;
    p->tell = TELL_EXITED;
    programs_flush(k);
}

static void on_signal(struct keeper *k, const struct supervisor_message *m)
{
    struct program *p = program_find(k, m->instance);
    if (p != NULL && p->wire.fd >= 0)
        (void)supervisor_offer(p->wire.fd, m, NULL, 0);
}

/* Of the service that was started last, all replicas. */
void programs_stop_next(struct keeper *k)
{
    const char *name = NULL;
    if (list_empty(&k->programs.all)) {
        k->rounds.over = true;
        return;
    }
    for (struct list *it = k->programs.all.prev; it != &k->programs.all; it = it->prev) {
        struct program *p = program_at(it);
        if (name == NULL)
            name = p->facts.name;
        if (strcmp(name, p->facts.name) == 0 && !p->stopping)
            program_stop(p, p->stop_signal, p->stop_ms);
    }
}

void programs_stop(struct keeper *k, bool now)
{
    if (!k->programs.stopping)
        programs_server_gone(k);
    k->programs.stopping = true;
    LIST_FOR(it, &k->programs.all)
        if (now)
            program_stop(program_at(it), SIGKILL, 0);
    programs_flush(k);
}

/* --- the list --- */

static void on_list(struct keeper *k)
{
    k->programs.listing = true;
    LIST_FOR(it, &k->programs.all) {
        struct program *p = program_at(it);
        if (p->exec || p->state == PROGRAM_FAILED)
            continue;
        p->server = k->programs.server;
        p->inherited = p->state == PROGRAM_STARTING;
        p->tell &= TELL_EXITED;
        p->tell |= p->inherited ? 0 : TELL_LISTED;
    }
    programs_flush(k);
}

/* --- messages of the server --- */

static void obey(struct keeper *k, const struct supervisor_message *m, const int *fds,
                 unsigned count)
{
    switch (m->kind) {
    case SUPERVISE_START:
    case SUPERVISE_EXEC:
        programs_start(k, m, fds, count);
        break;
    case SUPERVISE_STOP:
        on_stop(k, m);
        break;
    case SUPERVISE_SIGNAL:
        on_signal(k, m);
        break;
    case SUPERVISE_LIST:
        on_list(k);
        break;
    case SUPERVISE_ALLOW:
        programs_allow(k, m->text);
        break;
    case SUPERVISE_RELEASE:
        program_socket_release(k, program_socket_find(k, m->name, m->replica));
        break;
    default:
        break;
    }
}

static void disconnect(struct keeper *k)
{
    int fd = k->programs.wire.fd;
    watch_stop(&k->rounds, &k->programs.wire);
    close_fd(&fd);
}

static bool hear(struct keeper *k)
{
    struct supervisor_message m;
    int fds[SUPERVISE_FDS];
    unsigned count = SUPERVISE_FDS;
    enum err e = supervisor_receive(k->programs.wire.fd, &m, fds, &count, MSG_DONTWAIT);
    if (e == ERR_CLOSED)
        disconnect(k);
    if (e != OK)
        return e == ERR_INVALID || e == ERR_LIMIT;
    obey(k, &m, fds, count);
    while (count > 0)
        close(fds[--count]);
    return true;
}

static void on_server(struct watch *w)
{
    (void)hear(CONTAINER_OF(w, struct keeper, programs.wire));
}

void programs_seal(struct keeper *k)
{
    if (k->programs.sealed)
        return;
    while (k->programs.wire.fd >= 0 && hear(k)) { /* what was said before */
    }
    k->programs.sealed = true;
}

/* --- servers come and go --- */

int programs_connect(struct keeper *k)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return -1;
    disconnect(k);
    if (!watch_start(&k->rounds, &k->programs.wire, pair[0])) {
        close(pair[0]);
        close(pair[1]);
        return -1;
    }
    return pair[1];
}

static void drain(struct program *p, int fd)
{
    char bytes[4096];
    int waiting;
    if (fd < 0 || ioctl(fd, FIONREAD, &waiting) != 0 || waiting < fcntl(fd, F_GETPIPE_SZ) / 2)
        return;
    /* At most what was there: one that writes faster than this reads shall not hold the keeper. */
    for (ssize_t n; waiting > 0; waiting -= (int)n, p->lost += (uint64_t)n) {
        n = read(fd, bytes, sizeof bytes);
        if (n <= 0)
            return;
    }
}

static void on_drain(struct moment *m)
{
    struct keeper *k = CONTAINER_OF(m, struct keeper, programs.drain);
    bool unread = false;
    LIST_FOR(it, &k->programs.all) {
        struct program *p = program_at(it);
        if (p->server != k->programs.server) {
            drain(p, p->output);
            drain(p, p->errors);
            unread = true;
        } else if (p->lost > 0) {
            LOG(LOG_WARN, "services", "output was lost while no server process was there to read it",
                LOG_CSTR("service", p->facts.name), LOG_NUM("bytes", (int64_t)p->lost));
            p->lost = 0;
        }
    }
    if (unread)
        moment_set(&k->rounds, m, clock_mono_ns() + DRAIN_NS);
}

void programs_server_gone(struct keeper *k)
{
    while (k->programs.wire.fd >= 0 && hear(k)) { /* its last words */
    }
    disconnect(k);
    k->programs.server++;
    k->programs.listing = false;
    LIST_FOR(it, &k->programs.all) {
        struct program *p = program_at(it);
        p->tell &= TELL_EXITED;
        if (p->exec)
            program_stop(p, SIGKILL, 0);
        if (p->exec || p->facts.name[0] == '\0') /* or of no program that ever was */
            p->tell = 0;
    }
    programs_flush(k);
    if (!list_empty(&k->programs.all))
        moment_set(&k->rounds, &k->programs.drain, clock_mono_ns() + DRAIN_NS);
}

void programs_stop_unclaimed(struct keeper *k)
{
    LIST_FOR(it, &k->programs.all) {
        struct program *p = program_at(it);
        if (p->server == k->programs.server)
            continue;
        p->unclaimed = true;
        p->tell = 0;
        if (p->state < PROGRAM_ENDED)
            program_stop(p, p->stop_signal, p->stop_ms);
    }
    programs_flush(k);
}

void programs_init(struct keeper *k)
{
    struct programs *g = &k->programs;
    list_init(&g->all);
    list_init(&g->sockets);
    g->wire = (struct watch){-1, on_server};
    cgroups_init(&g->groups);
    g->guard_wire = (struct watch){-1, programs_on_guardhouse};
    g->guardhouse.on_end = programs_on_guardhouse_end;
    moment_init(&g->retry, programs_on_retry);
    moment_init(&g->drain, on_drain);
    moment_init(&g->strays, programs_on_strays);
    k->rounds.on_orphan = programs_on_orphan;
}

/* Nothing is left below the guardhouse. */
void programs_deinit(struct keeper *k)
{
    struct programs *g = &k->programs;
    int fd = g->guard_wire.fd;
    watch_stop(&k->rounds, &g->guard_wire);
    close_fd(&fd);
    if (g->guardhouse.pid > 0 && kill(g->guardhouse.pid, SIGKILL) == 0)
        (void)waitpid(g->guardhouse.pid, NULL, 0);
    disconnect(k);
    while (!list_empty(&g->sockets))
        program_socket_release(k, CONTAINER_OF(g->sockets.next, struct held_socket, node));
    while (g->allowed_count > 0)
        mem_free(g->allowed[--g->allowed_count]);
    cgroups_deinit(&g->groups);
}
