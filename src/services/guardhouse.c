/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wardens that end in order have ended their trees before. One that was killed leaves what its
 * program had started to this process, its subreaper: children that are no wardens are killed until
 * there are none, and only then the end is told. When the keeper is gone, wardens end by themselves,
 * since each has a pair with the keeper, and what they do not end is ended here.
 *
 * The keeper waits for room in the pair, for a second at most, so this process never waits for the
 * keeper: what cannot be told now is told some milliseconds later.
 */
#include "services/guardhouse.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/mem.h"
#include "services/cgroup.h"
#include "services/process_tree.h"

enum { AGAIN_MS = 5, LEAVE_MS = 3000, ROOM_MS = 1000 };

_Static_assert(sizeof(struct guard_order) < SUPERVISE_TEXT, "an order fits into a message");

struct guard {
    struct list node;
    uint64_t instance;
    pid_t pid;   /* 0: waited for */
    bool strays; /* it was killed: told when no stray is left */
    int cgroup;  /* of its program: to be removed, for which a warden has not the rights */
    struct supervisor_message end;
};

static struct {
    int wire, signals;
    struct list guards;
    struct rlimit files;
    struct title title;
    void (*rights)(bool awake);
} house;

/* --- names in ps --- */

/* The strings of argv lie one behind the other. */
struct title title_of(char **argv)
{
    const char *end = argv[0];
    for (char **at = argv; *at != NULL && *at == end; at++)
        end = *at + strlen(*at) + 1;
    return (struct title){argv[0], argv[0] != NULL ? (size_t)(end - argv[0]) : 0};
}

static void set_title(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void set_title(const char *format, ...)
{
    va_list args;
    if (house.title.room == 0)
        return;
    memset(house.title.text, 0, house.title.room);
    va_start(args, format);
    (void)vsnprintf(house.title.text, house.title.room, format, args);
    va_end(args);
}

/* --- wardens --- */

static void close_all(const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
}

static bool read_order(const struct supervisor_message *m, unsigned count, struct guard_order *o)
{
    memcpy(o, m->text, sizeof *o);
    return o->groups_count >= 0 && o->groups_count <= IDENTITY_GROUPS &&
           count == 2 + (o->exec ? 3U : 2U) + (o->has_socket ? 1U : 0U) + (o->has_cgroup ? 1U : 0U);
}

static void place(struct warden *w, const struct guard_order *o, const int *fds)
{
    const int *at = fds + 2;
    *w = (struct warden){.wire = fds[1], .output = -1, .errors = -1};
    if (!o->exec) {
        w->output = *at++;
        w->errors = *at++;
    }
    w->spawn = (struct spawn){.stdio = {-1, -1, -1}, .any_user = o->any_user, .files = house.files};
    for (int i = 0; o->exec && i < 3; i++)
        w->spawn.stdio[i] = *at++;
    w->spawn.socket = o->has_socket ? *at++ : -1;
    w->spawn.cgroup = o->has_cgroup ? *at++ : -1;
}

/* In the new process. */
_Noreturn static void be_warden(const struct guard_order *o, const int *fds)
{
    struct arena arena;
    struct launch l;
    struct warden w;
    char error[200];
    struct identity server = {.uid = o->uid, .gid = o->gid, .groups_count = o->groups_count};
    memcpy(server.groups, o->groups, sizeof server.groups);
    arena_init(&arena, 16384);
    if (launch_read(fds[0], &l, &arena, error, sizeof error) != OK)
        _exit(1); /* the keeper has read it, so it is well-formed */
    set_title("warden of " SLICE_FMT ".%u", SLICE_ARG(l.service), l.replica);
    place(&w, o, fds);
    w.spawn.launch = &l;
    w.spawn.server = &server;
    warden_run(&w);
}

static void start(const struct supervisor_message *m, const int *fds, unsigned count)
{
    struct guard_order o;
    struct guard *g = NEW(struct guard);
    int why = EINVAL;
    g->pid = -1;
    g->instance = m->instance;
    g->cgroup = -1;
    g->end = (struct supervisor_message){.kind = SUPERVISE_EXITED, .instance = m->instance};
    if (read_order(m, count, &o)) {
        house.rights(true);
        g->pid = fork();
        if (g->pid == 0)
            be_warden(&o, fds);
        why = errno; /* before others can change it */
        house.rights(false);
        if (o.has_cgroup)
            g->cgroup = fcntl(fds[count - 1], F_DUPFD_CLOEXEC, 3);
    }
    if (g->pid < 0) {
        g->pid = 0;
        g->end.kind = SUPERVISE_FAILED;
        g->end.error = ERR_LIMIT;
        snprintf(g->end.text, sizeof g->end.text, "it cannot be started: %s", strerror(why));
    }
    list_append(&house.guards, &g->node);
}

static struct guard *find_guard(pid_t pid)
{
    LIST_FOR(it, &house.guards) {
        struct guard *g = CONTAINER_OF(it, struct guard, node);
        if (g->pid == pid)
            return g;
    }
    return NULL;
}

static void signal_guard(uint64_t instance, int number)
{
    house.rights(true);
    LIST_FOR(it, &house.guards) {
        struct guard *g = CONTAINER_OF(it, struct guard, node);
        if (g->instance == instance && g->pid > 0 && number > 0 && number <= SIGRTMAX)
            kill(g->pid, number);
    }
    house.rights(false);
}

/* --- ends --- */

static void reap(void)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        struct guard *g = find_guard(pid);
        if (g == NULL)
            continue;
        g->pid = 0;
        g->end.status = status;
        g->strays = !WIFEXITED(status);
    }
}

static bool is_guard(pid_t pid, void *unused)
{
    (void)unused;
    return find_guard(pid) != NULL;
}

/* True when there are more rounds to make. */
static bool kill_strays(void)
{
    bool waiting = false;
    LIST_FOR(it, &house.guards)
        waiting = waiting || CONTAINER_OF(it, struct guard, node)->strays;
    if (!waiting)
        return false;
    house.rights(true);
    unsigned left = tree_kill(is_guard, NULL);
    house.rights(false);
    if (left > 0)
        return true;
    LIST_FOR(it, &house.guards)
        CONTAINER_OF(it, struct guard, node)->strays = false;
    return false;
}

static void remove_group(struct guard *g)
{
    if (g->cgroup < 0)
        return;
    house.rights(true);
    cgroup_kill(g->cgroup);
    cgroup_remove(g->cgroup);
    house.rights(false);
    g->cgroup = -1;
}

/* True when something is left to be told. */
static bool tell(void)
{
    LIST_FOR_SAFE(it, &house.guards) {
        struct guard *g = CONTAINER_OF(it, struct guard, node);
        if (g->pid != 0 || g->strays)
            continue;
        remove_group(g);
        if (supervisor_offer(house.wire, &g->end, NULL, 0) == ERR_TIMEOUT)
            return true;
        list_remove(&g->node);
        mem_free(g);
    }
    return false;
}

static bool guards_left(void)
{
    LIST_FOR(it, &house.guards)
        if (CONTAINER_OF(it, struct guard, node)->pid > 0)
            return true;
    return false;
}

/* The keeper is gone. Wardens are given time, then none. */
_Noreturn static void leave(void)
{
    int status;
    uint64_t end = clock_mono_ns() + LEAVE_MS * NS_PER_MS;
    house.rights(true);
    for (reap(); guards_left() && clock_mono_ns() < end; reap()) {
        struct pollfd p = {house.signals, POLLIN, 0};
        struct signalfd_siginfo info;
        (void)tree_kill(is_guard, NULL);
        (void)poll(&p, 1, AGAIN_MS);
        (void)!read(house.signals, &info, sizeof info);
    }
    tree_end(0, &status);
    LIST_FOR(it, &house.guards)
        remove_group(CONTAINER_OF(it, struct guard, node));
    _exit(0);
}

/* --- rounds --- */

static void hear(void)
{
    struct supervisor_message m;
    int fds[SUPERVISE_FDS];
    unsigned count = SUPERVISE_FDS;
    enum err e = supervisor_receive(house.wire, &m, fds, &count, MSG_DONTWAIT);
    if (e == ERR_CLOSED)
        leave();
    if (e != OK)
        return;
    if (m.kind == SUPERVISE_START)
        start(&m, fds, count);
    else if (m.kind == SUPERVISE_SIGNAL)
        signal_guard(m.instance, m.signal);
    close_all(fds, count);
}

static void settle(int wire)
{
    sigset_t all, child;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    setsid();
    prctl(PR_SET_NAME, "guardhouse");
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (wire > 3)
        (void)close_range(3, (unsigned)wire - 1, 0);
    (void)close_range((unsigned)wire + 1, ~0U, 0);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    house.signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
}

void guardhouse_run(int wire, struct rlimit files, struct title title, void (*rights)(bool awake))
{
    ASSERT(wire > 2);
    house.rights = rights;
    house.wire = wire;
    house.files = files;
    house.title = title;
    set_title("guardhouse of portico");
    list_init(&house.guards);
    settle(wire);
    for (;;) {
        struct signalfd_siginfo info;
        struct pollfd p[2] = {{house.wire, POLLIN, 0}, {house.signals, POLLIN, 0}};
        bool again = kill_strays();
        again = tell() || again;
        if (poll(p, 2, again ? AGAIN_MS : -1) < 0 && errno != EINTR)
            leave();
        while (p[1].revents != 0 && read(house.signals, &info, sizeof info) > 0) {
        }
        reap();
        if (p[0].revents != 0)
            hear();
    }
}

/* --- the keeper's side --- */

enum err guardhouse_order(int wire, uint64_t instance, int launch, const struct warden *w)
{
    const struct spawn *s = &w->spawn;
    struct supervisor_message m = {.kind = SUPERVISE_START, .instance = instance};
    struct guard_order o = {.exec = w->output < 0, .has_socket = s->socket >= 0,
                            .has_cgroup = s->cgroup >= 0, .any_user = s->any_user,
                            .uid = s->server->uid, .gid = s->server->gid,
                            .groups_count = s->server->groups_count};
    int fds[SUPERVISE_FDS] = {launch, w->wire};
    unsigned count = 2;
    memcpy(o.groups, s->server->groups, sizeof o.groups);
    memcpy(m.text, &o, sizeof o);
    if (w->output >= 0) {
        fds[count++] = w->output;
        fds[count++] = w->errors;
    }
    for (int i = 0; w->output < 0 && i < 3; i++)
        fds[count++] = s->stdio[i];
    if (s->socket >= 0)
        fds[count++] = s->socket;
    if (s->cgroup >= 0)
        fds[count++] = s->cgroup;
    struct pollfd room = {wire, POLLOUT, 0};
    enum err e = supervisor_offer(wire, &m, fds, count);
    while (e == ERR_TIMEOUT && poll(&room, 1, ROOM_MS) > 0)
        e = supervisor_offer(wire, &m, fds, count);
    return e;
}
