/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pair to the keeper: what the manager asks, and what comes back. Messages are small and the
 * keeper never blocks, so they are sent as they are made.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "services/launch.h"
#include "services/supervisor_link.h"
#include "services/manage.h"

#define LOGGER "services"

uint64_t link_instance(void)
{
    if (overseer.next_instance == 0 &&
        getrandom(&overseer.next_instance, sizeof overseer.next_instance, 0) < 0)
        overseer.next_instance = clock_mono_ns();
    if ((overseer.next_instance & 0xffffffff) == 0xffffffff || overseer.next_instance == 0)
        overseer.next_instance++;
    return overseer.next_instance++;
}

static enum err send_launch(enum supervisor_kind kind, uint64_t instance, const struct launch *launch,
                            const struct service *s, const int *streams, char *error, size_t cap)
{
    struct supervisor_message m = {.kind = kind, .instance = instance, .signal = s->stop_signal,
                                   .timeout_ms = (uint32_t)(s->stop_ns / NS_PER_MS)};
    int fds[4] = {launch_write(launch)};
    unsigned count = 1;
    if (fds[0] < 0) {
        snprintf(error, cap, "its words and variables cannot be handed over: %s",
                 errno == E2BIG ? "they are longer than 1 MiB" : strerror(errno));
        return ERR_IO;
    }
    for (unsigned i = 0; streams != NULL && i < 3; i++)
        fds[count++] = streams[i];
    enum err e = overseer.fd < 0 ? ERR_CLOSED : supervisor_send(overseer.fd, &m, fds, count);
    close(fds[0]);
    if (e != OK)
        snprintf(error, cap, "the keeper process does not answer: %s", err_text(e));
    return e;
}

enum err link_start(const struct launch *launch, uint64_t instance, const struct service *s,
                    char *error, size_t cap)
{
    return send_launch(SUPERVISE_START, instance, launch, s, NULL, error, cap);
}

enum err link_exec(const struct launch *launch, uint64_t instance, const struct service *s,
                   const int streams[3], char *error, size_t cap)
{
    return send_launch(SUPERVISE_EXEC, instance, launch, s, streams, error, cap);
}

void link_tell(enum supervisor_kind kind, uint64_t instance, int signal, uint64_t timeout_ns)
{
    uint64_t ms = timeout_ns / NS_PER_MS;
    struct supervisor_message m = {.kind = kind, .instance = instance, .signal = signal,
                                   .timeout_ms = (uint32_t)(ms < UINT32_MAX ? ms : UINT32_MAX)};
    if (overseer.fd >= 0 && supervisor_send(overseer.fd, &m, NULL, 0) != OK)
        LOG(LOG_ERROR, LOGGER, "the keeper process does not answer");
}

void link_allow(struct slice user, struct slice group)
{
    struct supervisor_message m = {.kind = SUPERVISE_ALLOW};
    snprintf(m.text, sizeof m.text, SLICE_FMT "%s" SLICE_FMT, SLICE_ARG(user),
             group.len > 0 ? ":" : "", SLICE_ARG(group));
    if (overseer.fd >= 0)
        (void)!supervisor_send(overseer.fd, &m, NULL, 0);
}

void link_release(struct slice name, uint32_t replica)
{
    struct supervisor_message m = {.kind = SUPERVISE_RELEASE, .replica = replica};
    snprintf(m.name, sizeof m.name, SLICE_FMT, SLICE_ARG(name));
    if (overseer.fd >= 0)
        (void)!supervisor_send(overseer.fd, &m, NULL, 0);
}

/* --- what comes back --- */

static struct program *find_program(uint64_t instance)
{
    LIST_FOR(node, &overseer.programs)
    {
        struct program *p = CONTAINER_OF(node, struct program, node);
        if (p->instance == instance)
            return p;
    }
    return NULL;
}

static void close_all(const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
}

static void on_message(const struct supervisor_message *m, const int *fds, unsigned count)
{
    struct program *p = find_program(m->instance);
    bool over = m->kind == SUPERVISE_EXITED || m->kind == SUPERVISE_FAILED;
    if (m->kind == SUPERVISE_LISTED && p == NULL) {
        if (program_adopt(m, fds, count) == NULL)
            close_all(fds, count);
        return;
    }
    if (p != NULL && m->kind == SUPERVISE_STARTED) {
        program_started(p, m, fds, count);
        return;
    }
    close_all(fds, count);
    if (p != NULL && over)
        program_exited(p, m);
    else if (over)
        health_command_ended(m->instance, m->status, m->kind == SUPERVISE_FAILED);
}

/* It runs, but this process is out of descriptors and cannot read what it writes: another start is
 * tried, a while later. */
static void on_truncated(const struct supervisor_message *m)
{
    struct program *p = find_program(m->instance);
    if (m->kind == SUPERVISE_STARTED && p != NULL)
        program_condemn(p, "portico has no descriptors left for what it writes");
    else if (m->kind == SUPERVISE_LISTED && p == NULL)
        link_tell(SUPERVISE_STOP, m->instance, SIGTERM, 10 * NS_PER_S);
}

/* One message; ERR_TIMEOUT when there is none. */
static enum err receive_one(int flags, uint32_t *kind)
{
    struct supervisor_message m;
    int fds[SUPERVISE_FDS];
    unsigned count = SUPERVISE_FDS;
    enum err e = supervisor_receive(overseer.fd, &m, fds, &count, flags);
    *kind = e == OK ? m.kind : 0;
    if (e == OK)
        on_message(&m, fds, count);
    else if (e == ERR_LIMIT)
        on_truncated(&m);
    return e;
}

static void on_readable(struct op *op, int result)
{
    uint32_t kind;
    enum err e = OK;
    for (unsigned i = 0; result >= 0 && (e == OK || e == ERR_INVALID || e == ERR_LIMIT) && i < 64; i++)
        e = receive_one(MSG_DONTWAIT, &kind);
    if (result < 0 || e == ERR_CLOSED || e == ERR_IO)
        return; /* the keeper is gone, and this process goes with it */
    op_poll(overseer.loop, op, overseer.fd, POLLIN);
}

/* What an earlier server left is asked for, and waited for: the keeper answers at once. */
static enum err list_programs(void)
{
    struct supervisor_message m = {.kind = SUPERVISE_LIST};
    uint32_t kind = 0;
    TRY(supervisor_send(overseer.fd, &m, NULL, 0));
    while (kind != SUPERVISE_END)
        TRY(receive_one(0, &kind));
    return OK;
}

enum err link_open_keeper(int fd)
{
    overseer.fd = fd;
    TRY(list_programs());
    overseer.op.on_done = on_readable;
    op_poll(overseer.loop, &overseer.op, fd, POLLIN);
    return OK;
}

void link_close_keeper(void)
{
    if (overseer.fd < 0)
        return;
    op_cancel(overseer.loop, &overseer.op);
    overseer.fd = -1;
}
