/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program goes from STARTING (its warden was forked) to RUNNING to ENDED, or is FAILED at once. What
 * the server is to be told about it are bits, sent when the pair has room: the keeper waits for
 * nobody, and forgets a program only when its end was told, so that a server which comes again hears
 * of what ended meanwhile.
 *
 * A program's output is a pipe whose reading end the server has and the keeper keeps: a program never
 * meets a closed pipe. While no server reads, a pipe that is half full is emptied here, so that
 * nothing waits for a server that is down; what is lost so is counted in the log.
 *
 * Wardens are the guardhouse's children (services/guardhouse.h), which is forked at the first start.
 * Should it be killed, all that was below it becomes the keeper's, which is a subreaper, too:
 * children that no part of the keeper knows are killed until there are none.
 */
#include "keeper/programs.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "keeper/keeper_parts.h"
#include "services/guardhouse.h"
#include "services/launch.h"
#include "services/process_tree.h"
#include "services/warden.h"

enum { OUTPUT_PIPE = 1 << 18, STOP_MAX_MS = 24 * 3600 * 1000 };
#define RETRY_NS (5 * NS_PER_MS)
#define DRAIN_NS (30 * NS_PER_MS)
#define STRAYS_NS (20 * NS_PER_MS)
#define WARDEN_GRACE_NS (5 * NS_PER_S) /* beyond a stop's timeout, for a warden that hangs */

enum program_state { PROGRAM_STARTING, PROGRAM_RUNNING, PROGRAM_ENDED, PROGRAM_FAILED };
enum { TELL_ANSWER = 1, TELL_LISTED = 2, TELL_EXITED = 4 };

struct program {
    struct list node;
    struct keeper *keeper;
    bool guarded;    /* its warden was not waited for */
    struct watch wire; /* to its warden */
    struct moment overdue; /* its warden does not end it */
    enum program_state state;
    unsigned server; /* which one knows of it */
    unsigned tell;   /* TELL_… */
    bool exec, stopping;
    bool inherited;  /* asked for by a server that is gone, and listed before it ran */
    bool unclaimed;  /* the server that runs now does not want it */
    bool strays;     /* the guardhouse was killed: told as ended when no stray is left */
    int pipe_size;
    uint64_t lost;   /* bytes of output */
    int pidfd, output;
    int32_t stop_signal;
    uint32_t stop_ms;
    struct supervisor_message facts; /* as LISTED says them */
    struct supervisor_message end;   /* EXITED or FAILED */
};

struct held_socket {
    struct list node;
    char name[72], host[256];
    uint32_t replica;
    uint16_t port;
    int fd;
};

static void flush(struct keeper *k);
static void stop_next(struct keeper *k);

/* --- the table --- */

static struct program *program_at(struct list *node)
{
    return CONTAINER_OF(node, struct program, node);
}

static struct program *find_program(struct keeper *k, uint64_t instance)
{
    LIST_FOR(it, &k->programs.all) {
        struct program *p = program_at(it);
        if (p->facts.instance == instance && p->server == k->programs.server)
            return p;
    }
    return NULL;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void on_wire(struct watch *w);
static void on_overdue(struct moment *m);

static struct program *add_program(struct keeper *k, const struct supervisor_message *m)
{
    if (k->programs.count >= PROGRAMS_MAX)
        return NULL;
    struct program *p = NEW(struct program);
    p->keeper = k;
    p->wire = (struct watch){-1, on_wire};
    moment_init(&p->overdue, on_overdue);
    p->server = k->programs.server;
    p->pidfd = p->output = -1;
    p->facts.instance = p->end.instance = m->instance;
    p->stop_signal = m->signal > 0 && m->signal <= SIGRTMAX ? m->signal : SIGTERM;
    p->stop_ms = m->timeout_ms < STOP_MAX_MS ? m->timeout_ms : STOP_MAX_MS;
    list_append(&k->programs.all, &p->node);
    k->programs.count++;
    return p;
}

static void hang_up(struct program *p)
{
    int fd = p->wire.fd;
    watch_stop(&p->keeper->rounds, &p->wire);
    close_fd(&fd);
}

static void free_program(struct program *p)
{
    hang_up(p);
    moment_clear(&p->overdue);
    close_fd(&p->pidfd);
    close_fd(&p->output);
    list_remove(&p->node);
    p->keeper->programs.count--;
    mem_free(p);
}

static void fail(struct program *p, enum err e, const char *text)
{
    p->state = PROGRAM_FAILED;
    p->end.kind = SUPERVISE_FAILED;
    p->end.error = e;
    snprintf(p->end.text, sizeof p->end.text, "%s", text);
    p->tell = TELL_ANSWER;
}

/* --- telling the server --- */

static enum err offer(struct keeper *k, const struct supervisor_message *m, const int *fds,
                      unsigned count)
{
    if (k->programs.wire.fd < 0)
        return ERR_CLOSED;
    return supervisor_offer(k->programs.wire.fd, m, fds, count);
}

static enum err tell_facts(struct program *p, enum supervisor_kind kind)
{
    int fds[2];
    unsigned count = 0;
    p->facts.kind = kind;
    if (p->output >= 0)
        fds[count++] = p->output;
    if (p->pidfd >= 0)
        fds[count++] = p->pidfd;
    return offer(p->keeper, &p->facts, fds, count);
}

/* False: no room. */
static bool tell_first(struct program *p)
{
    bool failed = p->state == PROGRAM_FAILED;
    enum err e = OK;
    if (p->server != p->keeper->programs.server)
        return true;
    if (p->tell & TELL_ANSWER)
        e = failed ? offer(p->keeper, &p->end, NULL, 0) : tell_facts(p, SUPERVISE_STARTED);
    if (e != ERR_TIMEOUT)
        p->tell &= ~(unsigned)TELL_ANSWER;
    if (e != ERR_TIMEOUT && p->tell & TELL_LISTED) {
        e = tell_facts(p, SUPERVISE_LISTED);
        if (e != ERR_TIMEOUT)
            p->tell &= ~(unsigned)TELL_LISTED;
    }
    return e != ERR_TIMEOUT;
}

static bool tell_end(struct program *p)
{
    if ((p->tell & TELL_EXITED) == 0 || p->server != p->keeper->programs.server)
        return true;
    if (offer(p->keeper, &p->end, NULL, 0) == ERR_TIMEOUT)
        return false;
    p->tell &= ~(unsigned)TELL_EXITED;
    return true;
}

static bool flush_all(struct keeper *k)
{
    struct supervisor_message end = {.kind = SUPERVISE_END};
    LIST_FOR(it, &k->programs.all) {
        struct program *p = program_at(it);
        if (!tell_first(p))
            return false;
        if (k->programs.listing && p->inherited && p->state == PROGRAM_STARTING)
            return true; /* the list is not complete without it */
    }
    if (k->programs.listing && offer(k, &end, NULL, 0) == ERR_TIMEOUT)
        return false;
    k->programs.listing = false;
    LIST_FOR(it, &k->programs.all)
        if (!tell_end(program_at(it)))
            return false;
    return true;
}

/* What has ended and was told, or has nobody to be told, is forgotten. */
static void flush(struct keeper *k)
{
    if (k->programs.wire.fd >= 0 && !flush_all(k)) {
        moment_set(&k->rounds, &k->programs.retry, clock_mono_ns() + RETRY_NS);
        return;
    }
    LIST_FOR_SAFE(it, &k->programs.all) {
        struct program *p = program_at(it);
        bool told = p->tell == 0 && !p->strays;
        if (p->state >= PROGRAM_ENDED && !p->guarded && (told || k->programs.stopping))
            free_program(p);
    }
    if (k->programs.stopping)
        stop_next(k);
}

static void on_retry(struct moment *m)
{
    flush(CONTAINER_OF(m, struct keeper, programs.retry));
}

/* --- users --- */

static void allow(struct keeper *k, const char *who)
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

static struct held_socket *find_socket(struct keeper *k, const char *name, uint32_t replica)
{
    LIST_FOR(it, &k->programs.sockets) {
        struct held_socket *h = CONTAINER_OF(it, struct held_socket, node);
        if (h->replica == replica && strcmp(h->name, name) == 0)
            return h;
    }
    return NULL;
}

static void release_socket(struct held_socket *h)
{
    if (h == NULL)
        return;
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
    struct held_socket *h = find_socket(k, name, l->replica);
    if (h != NULL && (!l->socket || h->port != l->port || !slice_is(l->host, h->host))) {
        release_socket(h);
        h = NULL;
    }
    *fd = h != NULL ? h->fd : -1;
    if (h != NULL || !l->socket)
        return OK;
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
    return OK;
}

/* --- starting --- */

struct pipes {
    int wire[2];   /* the keeper's end, the warden's */
    int output[2]; /* reading, writing */
    int socket, cgroup;
};

static void close_pipes(struct pipes *p)
{
    for (int i = 0; i < 2; i++) {
        close_fd(&p->wire[i]);
        close_fd(&p->output[i]);
    }
    close_fd(&p->cgroup);
}

static enum err open_pipes(struct pipes *p, bool exec, char *error, size_t cap)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p->wire) != 0 ||
        (!exec && pipe2(p->output, O_CLOEXEC) != 0)) {
        snprintf(error, cap, "it cannot be started: %s", strerror(errno));
        return ERR_LIMIT;
    }
    if (!exec)
        (void)fcntl(p->output[0], F_SETPIPE_SZ, OUTPUT_PIPE);
    return OK;
}

static struct cgroups *groups_of(struct keeper *k)
{
    if (!k->programs.groups_known)
        cgroups_init(&k->programs.groups);
    k->programs.groups_known = true;
    return &k->programs.groups;
}

static void on_guardhouse(struct watch *w);
static void on_guardhouse_end(struct child *c, int status);

static bool open_guardhouse(struct keeper *k)
{
    struct programs *g = &k->programs;
    int pair[2];
    if (g->guardhouse.pid > 0)
        return g->guard_wire.fd >= 0;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return false;
    pid_t pid = watch_start(&k->rounds, &g->guard_wire, pair[0]) ? fork() : -1;
    if (pid == 0)
        guardhouse_run(pair[1], g->files);
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
    struct warden w = {.wire = pipes->wire[1], .output = pipes->output[1]};
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
    struct pipes pipes = {{-1, -1}, {-1, -1}, -1, -1};
    enum err e = p->exec ? OK : hold_socket(k, l, &pipes.socket, error, cap);
    if (e == OK)
        e = open_pipes(&pipes, p->exec, error, cap);
    if (e == OK)
        e = cgroup_create(groups_of(k), l, p->facts.instance, &pipes.cgroup, error, cap);
    if (e == OK && !watch_start(&k->rounds, &p->wire, pipes.wire[0]))
        e = ERR_LIMIT;
    if (e == OK)
        e = order_warden(p, &pipes, fds, server);
    if (e != OK) {
        if (error[0] == '\0')
            snprintf(error, cap, "it cannot be started: %s", strerror(errno));
        watch_stop(&k->rounds, &p->wire);
        cgroup_remove(pipes.cgroup);
        pipes.cgroup = -1;
        close_pipes(&pipes);
        return e;
    }
    p->guarded = true;
    p->output = pipes.output[0];
    p->pipe_size = p->output >= 0 ? fcntl(p->output, F_GETPIPE_SZ) : 0;
    pipes.wire[0] = pipes.output[0] = -1; /* these stay */
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

static void on_start(struct keeper *k, const struct supervisor_message *m, const int *fds,
                     unsigned count)
{
    char error[SUPERVISE_TEXT] = "";
    struct supervisor_message refused = {.kind = SUPERVISE_FAILED, .instance = m->instance,
                                         .error = ERR_LIMIT};
    struct program *p = find_program(k, m->instance) == NULL ? add_program(k, m) : NULL;
    if (p == NULL) {
        snprintf(refused.text, sizeof refused.text, "there are %d programs already", PROGRAMS_MAX);
        (void)offer(k, &refused, NULL, 0);
        return;
    }
    p->exec = m->kind == SUPERVISE_EXEC;
    enum err e = start(p, fds, count, error, sizeof error);
    if (e != OK) {
        fail(p, e, error);
        flush(k);
    }
}

/* --- what a warden tells --- */

static void on_started(struct program *p, const struct supervisor_message *m, int pidfd)
{
    p->state = PROGRAM_RUNNING;
    p->facts.pid = p->end.pid = m->pid;
    memcpy(p->facts.text, m->text, sizeof p->facts.text);
    p->pidfd = pidfd;
    p->tell |= p->inherited ? TELL_LISTED : TELL_ANSWER;
}

static void on_exited(struct program *p, int status, const char *text)
{
    p->state = PROGRAM_ENDED;
    p->end.kind = SUPERVISE_EXITED;
    p->end.status = status;
    snprintf(p->end.text, sizeof p->end.text, "%s", text);
    p->tell |= TELL_EXITED;
    moment_clear(&p->overdue);
    if (p->server != p->keeper->programs.server && (p->exec || p->unclaimed))
        p->tell = 0;
}

static void hear_warden(struct program *p)
{
    struct supervisor_message m;
    int fd = -1;
    unsigned count = 1;
    if (supervisor_receive(p->wire.fd, &m, &fd, &count, MSG_DONTWAIT) != OK) {
        hang_up(p); /* it ends: SIGCHLD tells */
        return;
    }
    if (m.kind == SUPERVISE_STARTED && p->state == PROGRAM_STARTING) {
        on_started(p, &m, count > 0 ? fd : -1);
        fd = -1;
    } else if (m.kind == SUPERVISE_FAILED && p->state == PROGRAM_STARTING) {
        fail(p, (enum err)m.error, m.text);
    } else if (m.kind == SUPERVISE_EXITED && p->state == PROGRAM_RUNNING) {
        on_exited(p, m.status, m.text);
    }
    if (count > 0)
        close_fd(&fd);
}

static void on_wire(struct watch *w)
{
    struct program *p = CONTAINER_OF(w, struct program, wire);
    hear_warden(p);
    if (p->state < PROGRAM_ENDED)
        flush(p->keeper); /* else when its warden is reaped: nothing of it is left then */
}

static bool is_known(pid_t pid, void *context)
{
    return child_is_known(context, pid);
}

static void on_killed(struct program *p)
{
    cgroup_end(&p->keeper->programs.groups, slice_from(p->facts.name), p->facts.replica,
               p->facts.instance);
    on_exited(p, SIGKILL, "its warden process was killed, and it with it");
}

/* Programs whose guards were killed have ended when no stray is left. */
static void kill_strays(struct keeper *k)
{
    bool waiting = false;
    LIST_FOR(it, &k->programs.all)
        waiting = waiting || program_at(it)->strays;
    if (!waiting)
        return;
    if (tree_kill(is_known, &k->rounds) > 0) {
        moment_set(&k->rounds, &k->programs.strays, clock_mono_ns() + STRAYS_NS);
        return;
    }
    moment_clear(&k->programs.strays);
    LIST_FOR(it, &k->programs.all) {
        struct program *p = program_at(it);
        if (p->strays)
            on_killed(p);
        p->strays = false;
    }
    flush(k);
}

static void on_strays(struct moment *m)
{
    kill_strays(CONTAINER_OF(m, struct keeper, programs.strays));
}

static void on_orphan(struct rounds *r)
{
    kill_strays(CONTAINER_OF(r, struct keeper, rounds));
}

/* `killed`: with what it watched over. */
static void end_warden(struct program *p, bool killed)
{
    while (p->wire.fd >= 0) /* its last words */
        hear_warden(p);
    p->guarded = false;
    if (p->state == PROGRAM_STARTING)
        fail(p, ERR_FAILED, "its warden process ended before it was started");
    if (p->state != PROGRAM_RUNNING)
        return;
    LOG(LOG_WARN, "services", "the warden of a program was killed: so is the program",
        LOG_CSTR("service", p->facts.name), LOG_NUM("pid", p->facts.pid));
    p->state = PROGRAM_ENDED;
    p->strays = !killed;
    if (killed)
        on_killed(p);
}

static void on_guardhouse(struct watch *w)
{
    struct keeper *k = CONTAINER_OF(w, struct keeper, programs.guard_wire);
    struct supervisor_message m;
    unsigned none = 0;
    enum err e = supervisor_receive(w->fd, &m, NULL, &none, MSG_DONTWAIT);
    if (e == ERR_CLOSED) {
        int fd = w->fd;
        watch_stop(&k->rounds, w); /* SIGCHLD tells */
        close_fd(&fd);
    }
    if (e != OK)
        return;
    LIST_FOR(it, &k->programs.all) {
        struct program *p = program_at(it);
        if (p->facts.instance != m.instance || !p->guarded)
            continue;
        if (m.kind == SUPERVISE_FAILED)
            fail(p, (enum err)m.error, m.text);
        end_warden(p, true);
        break;
    }
    flush(k);
}

static void on_guardhouse_end(struct child *c, int status)
{
    struct keeper *k = CONTAINER_OF(c, struct keeper, programs.guardhouse);
    while (k->programs.guard_wire.fd >= 0)
        on_guardhouse(&k->programs.guard_wire);
    if (!k->programs.stopping || k->programs.count > 0)
        LOG(LOG_WARN, "services", "the process that starts programs was killed: so are they",
            LOG_NUM("signal", WIFSIGNALED(status) ? WTERMSIG(status) : 0));
    LIST_FOR(it, &k->programs.all)
        if (program_at(it)->guarded)
            end_warden(program_at(it), false);
    kill_strays(k);
    flush(k);
}

/* --- stopping --- */

static void on_overdue(struct moment *m)
{
    struct program *p = CONTAINER_OF(m, struct program, overdue);
    struct supervisor_message order = {.kind = SUPERVISE_SIGNAL, .signal = SIGKILL,
                                       .instance = p->facts.instance};
    if (p->guarded && p->keeper->programs.guard_wire.fd >= 0)
        (void)supervisor_send(p->keeper->programs.guard_wire.fd, &order, NULL, 0);
}

static void stop(struct program *p, int number, uint32_t timeout_ms)
{
    struct supervisor_message m = {.kind = SUPERVISE_STOP, .signal = number,
                                   .timeout_ms = timeout_ms < STOP_MAX_MS ? timeout_ms
                                                                          : STOP_MAX_MS};
    uint64_t due = clock_mono_ns() + m.timeout_ms * NS_PER_MS + WARDEN_GRACE_NS;
    p->stopping = true;
    if (!p->guarded)
        return;
    if (p->wire.fd >= 0)
        (void)supervisor_offer(p->wire.fd, &m, NULL, 0);
    if (!moment_is_set(&p->overdue) || due < p->overdue.due_ns)
        moment_set(&p->keeper->rounds, &p->overdue, due);
}

static void on_stop(struct keeper *k, const struct supervisor_message *m)
{
    struct supervisor_message unknown = {.kind = SUPERVISE_EXITED, .instance = m->instance};
    struct program *p = find_program(k, m->instance);
    if (p != NULL) {
        stop(p, m->signal, m->timeout_ms);
        return;
    }
    p = add_program(k, m);
    if (p == NULL)
        return;
    p->end = unknown;
    p->state = PROGRAM_ENDED;
    p->tell = TELL_EXITED;
    flush(k);
}

static void on_signal(struct keeper *k, const struct supervisor_message *m)
{
    struct program *p = find_program(k, m->instance);
    if (p != NULL && p->wire.fd >= 0)
        (void)supervisor_offer(p->wire.fd, m, NULL, 0);
}

/* Of the service that was started last, all replicas. */
static void stop_next(struct keeper *k)
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
            stop(p, p->stop_signal, p->stop_ms);
    }
}

void programs_stop(struct keeper *k, bool now)
{
    if (!k->programs.stopping)
        programs_server_gone(k);
    k->programs.stopping = true;
    LIST_FOR(it, &k->programs.all)
        if (now)
            stop(program_at(it), SIGKILL, 0);
    flush(k);
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
    flush(k);
}

/* --- messages of the server --- */

static void obey(struct keeper *k, const struct supervisor_message *m, const int *fds,
                 unsigned count)
{
    switch (m->kind) {
    case SUPERVISE_START:
    case SUPERVISE_EXEC:
        on_start(k, m, fds, count);
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
        allow(k, m->text);
        break;
    case SUPERVISE_RELEASE:
        release_socket(find_socket(k, m->name, m->replica));
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
        return e == ERR_INVALID;
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

static void drain(struct program *p)
{
    char bytes[4096];
    int waiting;
    if (p->output < 0 || ioctl(p->output, FIONREAD, &waiting) != 0 || waiting < p->pipe_size / 2)
        return;
    /* At most what was there: one that writes faster than this reads shall not hold the keeper. */
    for (ssize_t n; waiting > 0; waiting -= (int)n, p->lost += (uint64_t)n) {
        n = read(p->output, bytes, sizeof bytes);
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
            drain(p);
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
            stop(p, SIGKILL, 0);
        if (p->exec || p->facts.name[0] == '\0') /* or of no program that ever was */
            p->tell = 0;
    }
    flush(k);
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
            stop(p, p->stop_signal, p->stop_ms);
    }
    flush(k);
}

void programs_init(struct keeper *k)
{
    struct programs *g = &k->programs;
    list_init(&g->all);
    list_init(&g->sockets);
    g->wire = (struct watch){-1, on_server};
    g->groups.folder = -1;
    g->guard_wire = (struct watch){-1, on_guardhouse};
    g->guardhouse.on_end = on_guardhouse_end;
    moment_init(&g->retry, on_retry);
    moment_init(&g->drain, on_drain);
    moment_init(&g->strays, on_strays);
    k->rounds.on_orphan = on_orphan;
}

/* Nothing is left below the guardhouse: it ends when the pair does. */
void programs_deinit(struct keeper *k)
{
    struct programs *g = &k->programs;
    int fd = g->guard_wire.fd;
    watch_stop(&k->rounds, &g->guard_wire);
    close_fd(&fd);
    if (g->guardhouse.pid > 0)
        (void)waitpid(g->guardhouse.pid, NULL, 0);
    disconnect(k);
    while (!list_empty(&g->sockets))
        release_socket(CONTAINER_OF(g->sockets.next, struct held_socket, node));
    while (g->allowed_count > 0)
        mem_free(g->allowed[--g->allowed_count]);
    cgroups_deinit(&g->groups);
}
