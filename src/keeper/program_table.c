/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program goes from STARTING (its warden was ordered) to RUNNING to ENDED, or is FAILED. What the
 * server is to be told about it are bits, sent when the pair has room: the keeper waits for nobody,
 * and forgets a program only when its end was told, so that a server which comes again hears of what
 * ended meanwhile.
 */
#include <signal.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "keeper/program.h"

#define RETRY_NS (5 * NS_PER_MS)

struct program *program_find(struct keeper *k, uint64_t instance)
{
    LIST_FOR(it, &k->programs.all) {
        struct program *p = program_at(it);
        if (p->facts.instance == instance && p->server == k->programs.server)
            return p;
    }
    return NULL;
}

struct program *program_add(struct keeper *k, const struct supervisor_message *m)
{
    if (k->programs.count >= PROGRAMS_MAX)
        return NULL;
    struct program *p = NEW(struct program);
    p->keeper = k;
    p->wire = (struct watch){-1, program_on_wire};
    moment_init(&p->overdue, program_on_overdue);
    p->server = k->programs.server;
    p->pidfd = p->output = p->errors = -1;
    p->facts.instance = p->end.instance = m->instance;
    p->stop_signal = m->signal > 0 && m->signal <= SIGRTMAX ? m->signal : SIGTERM;
    p->stop_ms = m->timeout_ms < STOP_MAX_MS ? m->timeout_ms : STOP_MAX_MS;
    list_append(&k->programs.all, &p->node);
    k->programs.count++;
    return p;
}

void program_hang_up(struct program *p)
{
    int fd = p->wire.fd;
    watch_stop(&p->keeper->rounds, &p->wire);
    close_fd(&fd);
}

static void free_program(struct program *p)
{
    program_hang_up(p);
    moment_clear(&p->overdue);
    close_fd(&p->pidfd);
    close_fd(&p->output);
    close_fd(&p->errors);
    list_remove(&p->node);
    p->keeper->programs.count--;
    mem_free(p);
}

void program_fail(struct program *p, enum err e, const char *text)
{
    p->state = PROGRAM_FAILED;
    p->end.kind = SUPERVISE_FAILED;
    p->end.error = e;
    snprintf(p->end.text, sizeof p->end.text, "%s", text);
    p->tell = p->inherited ? 0 : TELL_ANSWER; /* the server that runs did not ask for it */
}

/* --- telling the server --- */

enum err programs_offer(struct keeper *k, const struct supervisor_message *m, const int *fds,
                        unsigned count)
{
    if (k->programs.wire.fd < 0)
        return ERR_CLOSED;
    return supervisor_offer(k->programs.wire.fd, m, fds, count);
}

static enum err tell_facts(struct program *p, enum supervisor_kind kind)
{
    int fds[3];
    unsigned count = 0;
    p->facts.kind = kind;
    if (p->output >= 0) {
        fds[count++] = p->output;
        fds[count++] = p->errors;
    }
    if (p->pidfd >= 0)
        fds[count++] = p->pidfd;
    return programs_offer(p->keeper, &p->facts, fds, count);
}

/* False: no room. */
static bool tell_first(struct program *p)
{
    bool failed = p->state == PROGRAM_FAILED;
    enum err e = OK;
    if (p->server != p->keeper->programs.server)
        return true;
    if (p->tell & TELL_ANSWER)
        e = failed ? programs_offer(p->keeper, &p->end, NULL, 0) : tell_facts(p, SUPERVISE_STARTED);
    if (e != ERR_TIMEOUT)
        p->tell &= ~(unsigned)TELL_ANSWER;
    if (e != ERR_TIMEOUT && p->tell & TELL_LISTED) {
        e = tell_facts(p, SUPERVISE_LISTED);
        if (e != ERR_TIMEOUT)
            p->tell &= ~(unsigned)TELL_LISTED;
    }
    return e != ERR_TIMEOUT;
}

/* Not before its guards have ended and it can be forgotten: it would be listed after its end was told, and a
 * server that comes then would wait for an end that is not told again. */
static bool tell_end(struct program *p)
{
    if ((p->tell & TELL_EXITED) == 0 || p->server != p->keeper->programs.server || p->guarded ||
        p->strays)
        return true;
    enum err e = programs_offer(p->keeper, &p->end, NULL, 0);
    if (e == OK) /* else the server has died, and the next one is told */
        p->tell &= ~(unsigned)TELL_EXITED;
    return e != ERR_TIMEOUT;
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
    if (k->programs.listing && programs_offer(k, &end, NULL, 0) == ERR_TIMEOUT)
        return false;
    k->programs.listing = false;
    LIST_FOR(it, &k->programs.all)
        if (!tell_end(program_at(it)))
            return false;
    return true;
}

/* What has ended and was told, or has nobody to be told, is forgotten. */
void programs_flush(struct keeper *k)
{
    if (k->programs.wire.fd >= 0 && !flush_all(k)) {
        moment_set(&k->rounds, &k->programs.retry, clock_mono_ns() + RETRY_NS);
        return;
    }
    LIST_FOR_SAFE(it, &k->programs.all) {
        struct program *p = program_at(it);
        bool told = p->tell == 0 || k->programs.stopping;
        if (p->state >= PROGRAM_ENDED && !p->guarded && !p->strays && told)
            free_program(p);
    }
    if (k->programs.stopping)
        programs_stop_next(k);
}

void programs_on_retry(struct moment *m)
{
    programs_flush(CONTAINER_OF(m, struct keeper, programs.retry));
}
