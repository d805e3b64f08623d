/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What wardens and the guardhouse tell, and what they are told. Should the guardhouse be killed, all
 * that was below it becomes the keeper's, which is a subreaper, too: children that no part of the
 * keeper knows are killed until there are none.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "keeper/powers.h"
#include "keeper/program.h"
#include "services/process_tree.h"

#define STRAYS_NS (20 * NS_PER_MS)
#define PATIENCE_NS (5 * NS_PER_S) /* of the keeper's end, with strays that SIGKILL does not end */
#define WARDEN_GRACE_NS (2 * NS_PER_S) /* beyond a stop's timeout, for a warden that hangs */

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
    if (p->server != p->keeper->programs.server && (p->exec || p->unclaimed))
        p->tell = 0;
}

static void hear_warden(struct program *p)
{
    struct supervisor_message m;
    int fd = -1;
    unsigned count = 1;
    if (supervisor_receive(p->wire.fd, &m, &fd, &count, MSG_DONTWAIT) != OK) {
        program_hang_up(p); /* it ends: SIGCHLD tells */
        return;
    }
    if (m.kind == SUPERVISE_STARTED && p->state == PROGRAM_STARTING) {
        on_started(p, &m, count > 0 ? fd : -1);
        fd = -1;
    } else if (m.kind == SUPERVISE_FAILED && p->state == PROGRAM_STARTING) {
        program_fail(p, (enum err)m.error, m.text);
    } else if (m.kind == SUPERVISE_EXITED && p->state == PROGRAM_RUNNING) {
        on_exited(p, m.status, m.text);
    }
    if (count > 0)
        close_fd(&fd);
}

void program_on_wire(struct watch *w)
{
    struct program *p = CONTAINER_OF(w, struct program, wire);
    hear_warden(p);
    if (p->state < PROGRAM_ENDED)
        programs_flush(p->keeper); /* else when its warden is reaped: nothing of it is left then */
}

static bool is_known(pid_t pid, void *context)
{
    return child_is_known(context, pid);
}

static void end_group(struct program *p)
{
    powers_raise();
    cgroup_end(&p->keeper->programs.groups, slice_from(p->facts.name), p->facts.replica,
               p->facts.instance);
    powers_lower();
}

static void on_killed(struct program *p)
{
    end_group(p);
    on_exited(p, SIGKILL, "its warden process was killed, and it with it");
}

/* One that hangs in the kernel (a file system whose server is gone) shall not hold the end. */
static bool is_out_of_patience(struct programs *g)
{
    uint64_t now = clock_mono_ns();
    if (g->stopping && g->patience_ns == 0)
        g->patience_ns = now + PATIENCE_NS;
    return g->stopping && now >= g->patience_ns;
}

/* Programs whose guards were killed have ended when no stray is left. */
static void kill_strays(struct keeper *k)
{
    bool waiting = false;
    LIST_FOR(it, &k->programs.all)
        waiting = waiting || program_at(it)->strays;
    if (!waiting)
        return;
    powers_raise();
    unsigned left = tree_kill(is_known, &k->rounds);
    powers_lower();
    if (left > 0 && !is_out_of_patience(&k->programs)) {
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
    programs_flush(k);
}

void programs_on_strays(struct moment *m)
{
    kill_strays(CONTAINER_OF(m, struct keeper, programs.strays));
}

void programs_on_orphan(struct rounds *r)
{
    kill_strays(CONTAINER_OF(r, struct keeper, rounds));
}

/* `killed`: with what it watched over. */
static void end_warden(struct program *p, bool killed)
{
    while (p->wire.fd >= 0) /* its last words */
        hear_warden(p);
    p->guarded = false;
    moment_clear(&p->overdue);
    if (p->state == PROGRAM_STARTING)
        program_fail(p, ERR_FAILED, "its warden process ended before it was started");
    if (p->state != PROGRAM_RUNNING) {
        end_group(p); /* where the guardhouse had not the time to */
        return;
    }
    LOG(LOG_WARN, "services", "the warden of a program was killed: so is the program",
        LOG_CSTR("service", p->facts.name), LOG_NUM("pid", p->facts.pid));
    p->state = PROGRAM_ENDED;
    p->strays = !killed;
    if (killed)
        on_killed(p);
}

void programs_on_guardhouse(struct watch *w)
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
            program_fail(p, (enum err)m.error, m.text);
        end_warden(p, true);
        break;
    }
    programs_flush(k);
}

void programs_on_guardhouse_end(struct child *c, int status)
{
    struct keeper *k = CONTAINER_OF(c, struct keeper, programs.guardhouse);
    while (k->programs.guard_wire.fd >= 0)
        programs_on_guardhouse(&k->programs.guard_wire);
    if (!k->programs.stopping || k->programs.count > 0)
        LOG(LOG_WARN, "services", "the process that starts programs was killed: so are they",
            LOG_NUM("signal", WIFSIGNALED(status) ? WTERMSIG(status) : 0));
    LIST_FOR(it, &k->programs.all)
        if (program_at(it)->guarded)
            end_warden(program_at(it), false);
    kill_strays(k);
    programs_flush(k);
}

/* --- stopping --- */

/* A warden that hangs is killed; at the keeper's end also a guardhouse that does not see to it. */
void program_on_overdue(struct moment *m)
{
    struct program *p = CONTAINER_OF(m, struct program, overdue);
    struct programs *g = &p->keeper->programs;
    struct supervisor_message order = {.kind = SUPERVISE_SIGNAL, .signal = SIGKILL,
                                       .instance = p->facts.instance};
    if (!p->guarded || g->guardhouse.pid <= 0)
        return;
    if (p->pressed && g->stopping) {
        kill(g->guardhouse.pid, SIGKILL);
        return;
    }
    if (g->guard_wire.fd >= 0)
        (void)supervisor_offer(g->guard_wire.fd, &order, NULL, 0);
    p->pressed = true;
    moment_set(&p->keeper->rounds, m, clock_mono_ns() + WARDEN_GRACE_NS);
}

void program_stop(struct program *p, int number, uint32_t timeout_ms)
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
