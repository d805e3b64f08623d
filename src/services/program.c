/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One process, from its START to its EXITED. It is STARTING until a check passes (health.c), READY or
 * UNHEALTHY then, STOPPING from when it is not wanted any more: first workers do not see it, then its
 * last request ends, then it gets its signal. The record goes when the process, its output and its
 * probe have all ended.
 */
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "services/environment.h"
#include "services/supervisor_link.h"
#include "services/manage.h"
#include "services/signals.h"
#include "upstream/endpoint.h"

#define DRAIN_FIRST_NS (20 * NS_PER_MS) /* workers that saw it last have counted their request by then */
#define DRAIN_NS (5 * NS_PER_MS)

/* --- records --- */

static void on_output_end(struct output *o);
static void on_errors_end(struct output *o);
static void on_drain(struct timer *t);

static struct endpoint *endpoint_of(const struct service *s, uint16_t port)
{
    char name[80];
    bool v6 = slice_find(s->host, ':') != SIZE_MAX;
    int len = snprintf(name, sizeof name, "%s" SLICE_FMT "%s:%u", v6 ? "[" : "", SLICE_ARG(s->host),
                       v6 ? "]" : "", port);
    struct endpoint *e = endpoint_ref(slice_of(name, (size_t)len));
    if (e != NULL)
        endpoint_show(e);
    return e;
}

static struct program *make(struct slot *slot, uint16_t port)
{
    struct program *p = NEW(struct program);
    p->owner = slot->owner;
    p->slot = slot;
    p->version = slot->owner->version;
    version_ref(p->version);
    p->digest = p->version->service.digest;
    p->replica = slot->number;
    p->port = port;
    p->state = REPLICA_STARTING;
    p->pidfd = p->output.fd = p->errors.fd = -1;
    p->output.on_end = on_output_end;
    p->errors.on_end = on_errors_end;
    p->start_ns = clock_mono_ns();
    p->started_wall_ns = clock_wall_ns();
    p->endpoint = endpoint_of(&p->version->service, port);
    if (p->endpoint != NULL)
        atomic_store(&p->endpoint->leaving, false);
    timer_init(&p->drain, on_drain);
    list_append(&overseer.programs, &p->node);
    overseer.programs_count++;
    return p;
}

/* When nothing of it is left. */
static void free_when_over(struct program *p)
{
    if (p->state != REPLICA_STOPPED || p->probe != NULL || output_is_open(&p->output) ||
        output_is_open(&p->errors))
        return;
    list_remove(&p->node);
    overseer.programs_count--;
    timer_stop(&p->drain);
    if (p->pidfd >= 0)
        close(p->pidfd);
    if (p->endpoint != NULL) {
        endpoint_hide(p->endpoint);
        endpoint_unref(p->endpoint);
    }
    version_unref(p->version);
    mem_free(p);
    overseer_settle();
}

static void on_output_end(struct output *o)
{
    free_when_over(CONTAINER_OF(o, struct program, output));
}

static void on_errors_end(struct output *o)
{
    free_when_over(CONTAINER_OF(o, struct program, errors));
}

void program_probe_ended(struct program *p)
{
    p->probe = NULL;
    free_when_over(p);
}

bool program_usable(const struct program *p)
{
    return p != NULL && p->state == REPLICA_READY && p->endpoint != NULL;
}

/* --- the start --- */

static struct slice absolute(struct slice dir, struct arena *arena)
{
    char here[PATH_MAX];
    if (dir.len == 0 || dir.ptr[0] == '/' || getcwd(here, sizeof here) == NULL)
        return dir;
    return arena_join(arena, (struct slice[]){slice_from(here), SLICE("/"), dir}, 3);
}

enum err program_launch(const struct service *s, const struct slice *words, size_t count,
                        uint16_t port, uint32_t replica, struct arena *arena, struct launch *out,
                        char *error, size_t cap)
{
    *out = (struct launch){
        .service = s->name, .replica = replica, .digest = s->digest, .user = s->user,
        .group = s->group, .memory = s->memory, .tasks = s->tasks, .files = s->files, .cpu = s->cpu,
        .port = port, .confine = s->confine, .socket = s->socket, .host = s->host,
    };
    out->dir = absolute(s->dir, arena);
    out->argv = ARENA_ARRAY(arena, struct slice, count);
    for (size_t i = 0; i < count; i++)
        out->argv[out->argv_count++] = environment_expand(words[i], s, port, replica, arena);
    return environment_make(s, port, replica, arena, &out->env, &out->env_count, error, cap);
}

struct program *program_start(struct slot *slot, uint16_t port)
{
    struct arena arena;
    struct launch launch;
    const struct service *s = &slot->owner->version->service;
    if (overseer.programs_count >= PROGRAMS_MAX) {
        snprintf(slot->why, sizeof slot->why, "more than %d programs run", PROGRAMS_MAX);
        return NULL;
    }
    arena_init(&arena, 16384);
    uint64_t instance = link_instance();
    enum err e = program_launch(s, s->run, s->run_count, port, slot->number, &arena, &launch,
                                slot->why, sizeof slot->why);
    if (e == OK)
        e = link_start(&launch, instance, s, slot->why, sizeof slot->why);
    arena_deinit(&arena);
    if (e != OK)
        return NULL;
    struct program *p = make(slot, port);
    p->instance = instance;
    slot->owner->starts++;
    return p;
}

static void take_descriptors(struct program *p, const int *fds, unsigned count)
{
    struct lines *lines = &p->owner->lines;
    if (count > 0)
        output_open(&p->output, overseer.loop, fds[0], lines, p->owner->logger, "stdout", p->replica);
    if (count > 1)
        output_open(&p->errors, overseer.loop, fds[1], lines, p->owner->logger, "stderr", p->replica);
    if (count > 2)
        p->pidfd = fds[2];
    for (unsigned i = 3; i < count; i++)
        close(fds[i]);
}

static void tell_started(const struct program *p)
{
    LOG(LOG_INFO, "services", "program started", LOG_STR("service", p->owner->name),
        LOG_NUM("replica", p->replica + 1), LOG_NUM("pid", p->pid), LOG_NUM("port", p->port));
    if (p->note[0] != '\0')
        LOG(LOG_WARN, "services", "not all that was asked for is to be had here",
            LOG_STR("service", p->owner->name), LOG_CSTR("reason", p->note));
}

void program_started(struct program *p, const struct supervisor_message *m, const int *fds,
                     unsigned count)
{
    p->pid = m->pid;
    p->told_started = true;
    snprintf(p->note, sizeof p->note, "%.*s", (int)sizeof p->note - 1, m->text);
    take_descriptors(p, fds, count);
    tell_started(p);
    if (p->state == REPLICA_STARTING)
        probe_start(p);
}

/* --- from an earlier server --- */

/* Whose it was is found by its name when services are adopted: until then it has no slot. */
struct program *program_adopt(const struct supervisor_message *m, const int *fds, unsigned count)
{
    struct program *p = NEW(struct program);
    p->owner = overseer_own(slice_from(m->name));
    if (p->owner == NULL) {
        mem_free(p);
        link_tell(SUPERVISE_STOP, m->instance, SIGTERM, 10 * NS_PER_S);
        return NULL;
    }
    p->instance = m->instance;
    p->digest = m->digest;
    p->replica = m->replica;
    p->port = m->port;
    p->pid = m->pid;
    p->told_started = true;
    p->state = REPLICA_STARTING;
    p->pidfd = p->output.fd = p->errors.fd = -1;
    p->output.on_end = on_output_end;
    p->errors.on_end = on_errors_end;
    p->start_ns = clock_mono_ns();
    p->started_wall_ns = m->started_ns;
    snprintf(p->note, sizeof p->note, "%.*s", (int)sizeof p->note - 1, m->text);
    timer_init(&p->drain, on_drain);
    list_append(&overseer.programs, &p->node);
    overseer.programs_count++;
    take_descriptors(p, fds, count);
    return p;
}

void program_attach(struct program *p, struct slot *slot)
{
    p->slot = slot;
    p->version = slot->owner->version;
    version_ref(p->version);
    p->endpoint = endpoint_of(&p->version->service, p->port);
    LOG(LOG_INFO, "services", "a running program is taken over", LOG_STR("service", p->owner->name),
        LOG_NUM("replica", p->replica + 1), LOG_NUM("pid", p->pid), LOG_NUM("port", p->port));
    probe_start(p);
}

/* --- the end --- */

static void send_stop(struct program *p)
{
    const struct service *s = p->version != NULL ? &p->version->service : NULL;
    if (p->told_to_stop || p->state == REPLICA_STOPPED)
        return;
    p->told_to_stop = true;
    link_tell(SUPERVISE_STOP, p->instance, s != NULL ? s->stop_signal : SIGTERM,
              s != NULL ? s->stop_ns : 10 * NS_PER_S);
}

static void on_drain(struct timer *t)
{
    struct program *p = CONTAINER_OF(t, struct program, drain);
    uint64_t now = loop_now_ns(overseer.loop);
    bool shared = p->version != NULL && p->version->service.socket; /* its address goes on */
    if (shared || p->endpoint == NULL || endpoint_requests(p->endpoint) == 0 || now >= p->drain_by_ns)
        send_stop(p);
    else
        timer_start(overseer.loop, t, now + DRAIN_NS);
}

void program_retire(struct program *p)
{
    if (p->state == REPLICA_STOPPING || p->state == REPLICA_STOPPED)
        return;
    bool seen = p->ready_ns != 0;
    if (p->endpoint != NULL && !p->version->service.socket)
        atomic_store(&p->endpoint->leaving, true);
    p->state = REPLICA_STOPPING;
    probe_stop(p);
    uint64_t now = clock_mono_ns();
    p->drain_by_ns = now + (p->version != NULL ? p->version->service.stop_ns : 0);
    if (seen)
        timer_start(overseer.loop, &p->drain, now + DRAIN_FIRST_NS);
    else
        send_stop(p);
    overseer_settle();
}

static void describe_end(const struct supervisor_message *m, char *out, size_t cap)
{
    const char *name = WIFSIGNALED(m->status) ? signal_name(WTERMSIG(m->status)) : NULL;
    if (m->kind == SUPERVISE_FAILED)
        snprintf(out, cap, "could not be started: %.400s", m->text);
    else if (name != NULL)
        snprintf(out, cap, "ended by %s%s%.400s", name, m->text[0] != '\0' ? ": " : "", m->text);
    else if (WIFSIGNALED(m->status))
        snprintf(out, cap, "ended by signal %d%s%.400s", WTERMSIG(m->status),
                 m->text[0] != '\0' ? ": " : "", m->text);
    else
        snprintf(out, cap, "exited with status %d%s%.400s", WEXITSTATUS(m->status),
                 m->text[0] != '\0' ? ": " : "", m->text);
}

static void tell_end(struct program *p, bool asked, const char *why)
{
    struct log_field f[] = {LOG_STR("service", p->owner->name), LOG_NUM("replica", p->replica + 1),
                            LOG_NUM("pid", p->pid), LOG_CSTR("how", why)};
    char line[WHY_MAX + 40];
    int len = snprintf(line, sizeof line, "-- %s", why);
    if (asked && log_wants(LOG_INFO))
        log_emit(LOG_INFO, "services", SLICE("program stopped"), f, 4);
    else if (!asked)
        log_emit(LOG_ERROR, "services",
                 p->pid > 0 ? SLICE("program ended") : SLICE("program could not be started"), f, 4);
    if (!asked)
        lines_note(&p->owner->lines, p->replica, slice_of(line, (size_t)len));
}

void program_exited(struct program *p, const struct supervisor_message *m)
{
    char why[WHY_MAX];
    bool asked = p->state == REPLICA_STOPPING && !p->failed;
    if (p->state == REPLICA_STOPPED)
        return;
    if (p->failed)
        snprintf(why, sizeof why, "%s", p->why);
    else
        describe_end(m, why, sizeof why);
    p->state = REPLICA_STOPPED;
    p->owner->exits++;
    tell_end(p, asked, why);
    timer_stop(&p->drain);
    probe_stop(p);
    if (p->slot != NULL)
        slot_ended(p->slot, p, asked, m->kind == SUPERVISE_FAILED ? -1 : m->status, why);
    p->slot = NULL;
    bool one = output_close(&p->output), other = output_close(&p->errors);
    if (one && other)
        free_when_over(p);
    overseer_settle();
}

/* --- what the probe finds --- */

bool program_is_alone(const struct program *p)
{
    LIST_FOR(node, &overseer.programs)
    {
        const struct program *o = CONTAINER_OF(node, struct program, node);
        if (o != p && o->owner == p->owner && o->port == p->port && o->state != REPLICA_STOPPED)
            return false;
    }
    return true;
}

void program_proven(struct program *p)
{
    p->trial = false;
    if (p->slot != NULL)
        slot_proven(p->slot, p);
}

void program_ready(struct program *p)
{
    bool again = p->state == REPLICA_UNHEALTHY;
    if (p->state != REPLICA_STARTING && !again)
        return;
    p->state = REPLICA_READY;
    p->sick_ns = 0;
    if (!again)
        p->ready_ns = clock_mono_ns();
    struct log_field f[] = {LOG_STR("service", p->owner->name), LOG_NUM("replica", p->replica + 1),
                            LOG_NUM("port", p->port),
                            LOG_DUR("after", clock_mono_ns() - p->start_ns)};
    if (log_wants(LOG_INFO))
        log_emit(LOG_INFO, "services",
                 again ? SLICE("replica is well again") : SLICE("replica is ready"), f, 4);
    if (!again && p->slot != NULL)
        slot_ready(p->slot, p);
    overseer_settle();
}

void program_unwell(struct program *p, const char *why)
{
    if (p->state != REPLICA_READY)
        return;
    p->state = REPLICA_UNHEALTHY;
    p->sick_ns = clock_mono_ns();
    snprintf(p->owner->last_why, sizeof p->owner->last_why, "unhealthy: %s", why);
    LOG(LOG_WARN, "services", "replica is unhealthy", LOG_STR("service", p->owner->name),
        LOG_NUM("replica", p->replica + 1), LOG_NUM("port", p->port), LOG_CSTR("reason", why));
    overseer_settle();
}

/* It runs, but is of no use: counts as if it had ended by itself. */
void program_condemn(struct program *p, const char *why)
{
    if (p->state == REPLICA_STOPPING || p->state == REPLICA_STOPPED)
        return;
    p->failed = true;
    snprintf(p->why, sizeof p->why, "%s", why);
    program_retire(p);
}
