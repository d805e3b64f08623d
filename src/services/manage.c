/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is wanted is compared with what runs whenever something changed: a configuration, an end, a
 * check that passed, a command, a timer. Each look does one step for each slot, and each step is
 * followed by another event, so nothing waits here.
 *
 * A program whose description changed is rolled over: where the service has ports to spare, the new
 * one starts beside it, becomes ready, takes its place in what workers see, and only then the old one
 * is drained and stopped; on a fixed port the old one goes first, and requests wait meanwhile. One
 * slot at a time. A new version that does not become ready, ATTEMPTS times, is given up and the last
 * good one goes on.
 */
#include "services/manage.h"

#include <stdio.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "services/supervisor_link.h"
#include "upstream/endpoint.h"
#include "upstream/outlier.h"

#define LOGGER "services"

enum { ATTEMPTS = 3 };

struct overseer overseer = {.fd = -1};

static void on_retry(struct timer *);
static void on_idle(struct timer *);

/* --- versions --- */

static void copy_list(struct arena *arena, struct slice **list, size_t count)
{
    struct slice *copy = ARENA_ARRAY(arena, struct slice, count + 1);
    for (size_t i = 0; i < count; i++)
        copy[i] = arena_copy(arena, (*list)[i]);
    *list = copy;
}

static struct version *version_make(const struct service *from)
{
    struct version *v = NEW(struct version);
    struct service *s = &v->service;
    arena_init(&v->arena, 4096);
    v->refs = 1;
    *s = *from;
    struct slice *texts[] = {&s->name, &s->dir, &s->user, &s->group, &s->host, &s->health.uri};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        *texts[i] = arena_copy(&v->arena, *texts[i]);
    copy_list(&v->arena, &s->run, s->run_count);
    copy_list(&v->arena, &s->env, s->env_count);
    copy_list(&v->arena, &s->env_files, s->env_files_count);
    copy_list(&v->arena, &s->health.command, s->health.command_count);
    copy_list(&v->arena, &s->watch, s->watch_count);
    copy_list(&v->arena, &s->after, s->after_count);
    return v;
}

void version_ref(struct version *v)
{
    v->refs++;
}

void version_unref(struct version *v)
{
    if (v == NULL || --v->refs > 0)
        return;
    arena_deinit(&v->arena);
    mem_free(v);
}

static void set_version(struct version **at, struct version *v)
{
    version_ref(v);
    version_unref(*at);
    *at = v;
}

/* --- services by name --- */

struct managed *overseer_find(struct slice name)
{
    LIST_FOR(node, &overseer.services)
    {
        struct managed *m = CONTAINER_OF(node, struct managed, node);
        if (slice_eq(m->name, name))
            return m;
    }
    return NULL;
}

struct managed *overseer_own(struct slice name)
{
    struct managed *m = overseer_find(name);
    struct service_handle *h = service_handle(name);
    if (m != NULL || h == NULL)
        return m;
    m = NEW(struct managed);
    m->name = slice_of(slice_dup(name), name.len);
    snprintf(m->logger, sizeof m->logger, "service.%s", m->name.ptr);
    m->handle = h;
    registry_set_owner(h, m);
    m->slots = mem_zalloc(REPLICAS_MAX * sizeof *m->slots);
    for (uint32_t i = 0; i < REPLICAS_MAX; i++) {
        m->slots[i].owner = m;
        m->slots[i].number = i;
        timer_init(&m->slots[i].retry, on_retry);
    }
    timer_init(&m->idle, on_idle);
    lines_init(&m->lines);
    list_append(&overseer.services, &m->node);
    return m;
}

/* --- what workers see --- */

static uint32_t usable(const struct managed *m, struct endpoint **out)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < REPLICAS_MAX; i++) {
        struct endpoint *e = program_usable(m->slots[i].now) ? m->slots[i].now->endpoint : NULL;
        bool twice = false;
        for (uint32_t k = 0; k < count; k++)
            twice |= out[k] == e;
        if (e != NULL && !twice)
            out[count++] = e;
    }
    return count;
}

/* Nobody is on the way to become ready. */
static bool is_closed(const struct managed *m)
{
    if (!m->wanted || m->paused || overseer.stopping)
        return true;
    for (uint32_t i = 0; i < m->replicas; i++)
        if (!m->slots[i].gave_up && !m->slots[i].ended)
            return false;
    return true;
}

static void publish(struct managed *m)
{
    struct endpoint *list[REPLICAS_MAX];
    uint32_t count = usable(m, list);
    bool closed = count == 0 && is_closed(m);
    const struct service *s = &m->version->service;
    if (m->published_once && count == m->published_count && closed == m->published_closed &&
        memcmp(list, m->published, count * sizeof list[0]) == 0 &&
        m->published_version == m->version && m->published_wanted == m->wanted)
        return;
    for (uint32_t i = 0; i < count; i++)
        endpoint_hold(list[i]);
    registry_publish(m->handle, &(struct registry_state){
                                    .endpoints = list, .count = count,
                                    .queue_max = s->demand_queue, .exists = m->wanted,
                                    .on_demand = s->on_demand, .closed = closed,
                                    .patience_ns = s->demand_deadline_ns});
    memcpy(m->published, list, count * sizeof list[0]);
    m->published_count = count;
    m->published_closed = closed;
    m->published_once = true;
    m->published_version = m->version;
    m->published_wanted = m->wanted;
}

/* --- one slot --- */

static void fail_slot(struct slot *slot)
{
    const struct service *s = &slot->owner->version->service;
    uint64_t delay = s->delay_ns;
    slot->failures++;
    for (unsigned i = 1; i < slot->failures && delay < s->max_delay_ns; i++)
        delay = delay > 0 ? delay * 2 : NS_PER_MS;
    delay = delay < s->max_delay_ns ? delay : s->max_delay_ns;
    snprintf(slot->owner->last_why, sizeof slot->owner->last_why, "%s", slot->why);
    if (s->give_up > 0 && slot->failures >= s->give_up) {
        slot->gave_up = true;
        LOG(LOG_ERROR, LOGGER, "giving up: it failed too often in a row",
            LOG_STR("service", slot->owner->name), LOG_NUM("replica", slot->number + 1),
            LOG_NUM("failures", slot->failures), LOG_CSTR("last", slot->why));
        return;
    }
    timer_start(overseer.loop, &slot->retry, clock_mono_ns() + delay);
}

static void on_retry(struct timer *t)
{
    (void)t;
    overseer_settle();
}

static struct program *start_in(struct slot *slot, uint16_t wanted)
{
    uint16_t port = port_for(slot, wanted, slot->why, sizeof slot->why);
    struct program *p = port != 0 ? program_start(slot, port) : NULL;
    if (p == NULL) {
        LOG(LOG_ERROR, LOGGER, "a program cannot be started",
            LOG_STR("service", slot->owner->name), LOG_NUM("replica", slot->number + 1),
            LOG_CSTR("reason", slot->why));
        fail_slot(slot);
        return NULL;
    }
    slot->port = port;
    return p;
}

/* The last good version goes on, where there is one. True when something was taken back. */
static bool take_back(struct managed *m, const struct version *bad)
{
    bool took = false;
    uint64_t digest = bad->service.digest;
    if (m->good != NULL && digest == m->version->service.digest && m->good->service.digest != digest) {
        set_version(&m->version, m->good);
        took = true;
    }
    for (uint32_t i = 0; i < REPLICAS_MAX; i++)
        if (m->slots[i].now != NULL && m->slots[i].now->stale) {
            m->slots[i].now->stale = false;
            took = true;
        }
    m->roll_failed |= took;
    if (took)
        LOG(LOG_ERROR, LOGGER, "the new version did not become ready: the last good one goes on",
            LOG_STR("service", m->name), LOG_CSTR("reason", m->last_why));
    return took;
}

void slot_proven(struct slot *slot, struct program *p)
{
    set_version(&slot->owner->good, p->version);
}

/* What takes over a socket is on trial, where there is a health check: while the one before it is
 * there, the kernel gives that one connections as well. */
static bool is_on_trial(const struct slot *slot, const struct program *p)
{
    const struct service *s = &p->version->service;
    return slot->next == p && s->socket &&
           (s->health.kind == HEALTH_HTTP || s->health.kind == HEALTH_TCP);
}

void slot_ready(struct slot *slot, struct program *p)
{
    struct managed *m = slot->owner;
    if (p->endpoint != NULL) {
        endpoint_came_back(p->endpoint, clock_mono_ns());
        endpoint_forget_fails(p->endpoint);
        outliers_forgive(p->endpoint);
    }
    p->trial = is_on_trial(slot, p);
    if (!p->trial)
        slot_proven(slot, p);
    slot->why[0] = '\0';
    if (slot->next != p)
        return;
    struct program *old = slot->now;
    slot->now = p;
    slot->next = NULL;
    slot->failures = 0;
    m->rolls++;
    if (old == NULL)
        return;
    old->slot = NULL;
    program_retire(old);
}

static bool is_failure(const struct service *s, int status)
{
    if (s->restart == RESTART_NEVER)
        return false;
    bool well = status >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return s->restart == RESTART_ALWAYS || !well;
}

/* The one that serves ended by itself. */
static void on_crash(struct slot *slot, const struct program *p, int status)
{
    struct managed *m = slot->owner;
    const struct service *s = &m->version->service;
    bool ran_well = p->ready_ns != 0 && clock_mono_ns() - p->ready_ns >= s->within_ns;
    m->crashes++;
    if (!p->failed && !is_failure(s, status)) {
        slot->ended = true;
        return;
    }
    if (ran_well)
        slot->failures = 0;
    fail_slot(slot);
    bool broken = p->trial || (p->ready_ns == 0 && slot->failures >= ATTEMPTS);
    if (broken && take_back(m, p->version)) {
        slot->failures = 0;
        slot->gave_up = false;
    }
}

void slot_ended(struct slot *slot, struct program *p, bool asked, int status, const char *why)
{
    struct managed *m = slot->owner;
    bool was_next = slot->next == p;
    if (was_next)
        slot->next = NULL;
    else if (slot->now == p)
        slot->now = NULL;
    else
        return;
    if (asked)
        return;
    snprintf(slot->why, sizeof slot->why, "%s", why);
    if (!was_next) {
        on_crash(slot, p, status);
        return;
    }
    m->crashes++;
    fail_slot(slot);
    if (slot->failures >= ATTEMPTS || slot->gave_up) {
        (void)take_back(m, p->version);
        slot->failures = 0;
        slot->gave_up = false;
        timer_stop(&slot->retry);
    }
}

static bool is_outdated(const struct program *p)
{
    return p->stale || p->digest != p->owner->version->service.digest;
}

static bool others_rest(const struct managed *m, const struct slot *slot)
{
    for (uint32_t i = 0; i < m->replicas; i++) {
        const struct slot *o = &m->slots[i];
        if (o == slot)
            continue;
        if (o->next != NULL ||
            (o->now != NULL && (o->now->state == REPLICA_STARTING || o->now->state == REPLICA_STOPPING)))
            return false;
        if (o->now == NULL && !o->gave_up && !o->ended)
            return false;
    }
    return true;
}

static void roll(struct slot *slot)
{
    struct managed *m = slot->owner;
    struct program *p = slot->now;
    if (slot->next != NULL || timer_running(&slot->retry) || p->state == REPLICA_STOPPING)
        return;
    if (p->state == REPLICA_STARTING) { /* nobody would miss it */
        program_retire(p);
        return;
    }
    if (!others_rest(m, slot))
        return;
    LOG(LOG_INFO, LOGGER, "rolling over", LOG_STR("service", m->name),
        LOG_NUM("replica", slot->number + 1));
    if (ports_can_overlap(&m->version->service))
        slot->next = start_in(slot, m->version->service.socket ? p->port : 0);
    else
        program_retire(p);
}

static void stop_slot(struct slot *slot)
{
    timer_stop(&slot->retry);
    slot->failures = 0;
    slot->gave_up = slot->ended = false;
    if (slot->now != NULL)
        program_retire(slot->now);
    if (slot->next != NULL)
        program_retire(slot->next);
}

static void settle_slot(struct slot *slot, bool wanted, bool may_start)
{
    if (!wanted) {
        stop_slot(slot);
        return;
    }
    if (slot->now == NULL && slot->next != NULL && slot->next->state != REPLICA_STOPPING) {
        slot->now = slot->next; /* the one before it ended meanwhile */
        slot->next = NULL;
    }
    if (slot->now != NULL) {
        if (is_outdated(slot->now))
            roll(slot);
        else if (slot->next != NULL && !slot->next->stale && is_outdated(slot->next))
            program_retire(slot->next);
        return;
    }
    if (may_start && slot->next == NULL && !slot->gave_up && !slot->ended &&
        !timer_running(&slot->retry))
        slot->now = start_in(slot, slot->port);
}

/* --- one service --- */

static bool has_usable(const struct managed *m)
{
    for (uint32_t i = 0; i < REPLICAS_MAX; i++)
        if (program_usable(m->slots[i].now))
            return true;
    return false;
}

/* Each one that it comes after is ready, or shall not run now. */
static bool forerunners_ready(const struct managed *m)
{
    const struct service *s = &m->version->service;
    for (size_t i = 0; i < s->after_count; i++) {
        const struct managed *o = overseer_find(s->after[i]);
        if (o != NULL && o->wanted && !o->paused && !o->version->service.on_demand && !has_usable(o))
            return false;
    }
    return true;
}

static bool runs(const struct managed *m)
{
    for (uint32_t i = 0; i < REPLICAS_MAX; i++)
        if (m->slots[i].now != NULL || m->slots[i].next != NULL)
            return true;
    return false;
}

/* At the end, those that come after it stop first. */
static bool followers_run(const struct managed *m)
{
    LIST_FOR(node, &overseer.services)
    {
        const struct managed *o = CONTAINER_OF(node, struct managed, node);
        for (size_t i = 0; o->version != NULL && i < o->version->service.after_count; i++)
            if (slice_eq(o->version->service.after[i], m->name) && runs(o))
                return true;
    }
    return false;
}

static void settle_service(struct managed *m)
{
    if (m->version == NULL || (overseer.stopping && followers_run(m)))
        return;
    bool wanted = m->wanted && !m->paused && !overseer.stopping &&
                  (!m->version->service.on_demand || m->demanded);
    if (wanted && !m->released && forerunners_ready(m))
        m->released = true;
    for (uint32_t i = 0; i < REPLICAS_MAX; i++)
        settle_slot(&m->slots[i], wanted && i < m->replicas, m->released);
    publish(m);
    if (!wanted && !runs(m))
        m->released = false;
}

static void check_stopped(void)
{
    if (!overseer.stopping || overseer.stopped_told || !list_empty(&overseer.programs))
        return;
    overseer.stopped_told = true;
    overseer.stopped();
}

static void settle(struct task *t)
{
    (void)t;
    overseer.settling = false;
    LIST_FOR(node, &overseer.services)
        settle_service(CONTAINER_OF(node, struct managed, node));
    check_stopped();
}

void overseer_settle(void)
{
    if (overseer.settling || overseer.loop == NULL)
        return;
    overseer.settling = true;
    loop_defer(overseer.loop, &overseer.settle);
}

/* --- on demand --- */

static void on_wanted(struct service_handle *h)
{
    struct managed *m = registry_owner(h);
    if (m == NULL || m->version == NULL || !m->version->service.on_demand || m->demanded)
        return;
    LOG(LOG_INFO, LOGGER, "started by a request", LOG_STR("service", m->name));
    m->demanded = true;
    timer_start(overseer.loop, &m->idle, clock_mono_ns() + m->version->service.idle_ns);
    overseer_settle();
}

static void on_idle(struct timer *t)
{
    struct managed *m = CONTAINER_OF(t, struct managed, idle);
    uint64_t now = clock_mono_ns(), idle = m->version->service.idle_ns;
    uint64_t last = registry_last_used_ns(m->handle);
    if (!m->demanded || !m->version->service.on_demand)
        return;
    bool busy = registry_requests(m->handle) > 0 || registry_waiting(m->handle) > 0;
    if (busy || now - last < idle) {
        timer_start(overseer.loop, t, busy ? now + idle : last + idle);
        return;
    }
    LOG(LOG_INFO, LOGGER, "stopped: nobody has asked for it", LOG_STR("service", m->name),
        LOG_DUR("for", now - last));
    m->demanded = false;
    overseer_settle();
}

/* --- configurations --- */

/* A program that an earlier server left: back into its slot, or it goes. */
static void place_adopted(struct managed *m)
{
    LIST_FOR(node, &overseer.programs)
    {
        struct program *p = CONTAINER_OF(node, struct program, node);
        if (p->owner != m || p->slot != NULL || p->version != NULL || p->state != REPLICA_STARTING)
            continue;
        struct slot *slot = p->replica < m->replicas ? &m->slots[p->replica] : NULL;
        if (slot == NULL || slot->now != NULL || !m->wanted) {
            program_retire(p);
            continue;
        }
        slot->now = p;
        slot->port = p->port;
        m->demanded = true;
        program_attach(p, slot);
        if (m->version->service.on_demand)
            timer_start(overseer.loop, &m->idle, clock_mono_ns() + m->version->service.idle_ns);
    }
}

/* Sockets that the keeper holds for programs that are not given one any more. */
static void release_sockets(const struct managed *m)
{
    for (uint32_t i = 0; m->version != NULL && m->version->service.socket && i < m->replicas; i++)
        link_release(m->name, i);
}

static void adopt_one(const struct service *s)
{
    struct managed *m = overseer_own(s->name);
    if (m == NULL) {
        LOG(LOG_ERROR, LOGGER, "too many names of services: restart portico",
            LOG_STR("service", s->name));
        return;
    }
    bool changed = m->version == NULL || m->version->service.digest != s->digest;
    struct version *v = version_make(s);
    if (!s->socket)
        release_sockets(m);
    set_version(&m->version, v);
    version_unref(v);
    m->wanted = true;
    m->replicas = s->replicas;
    m->roll_failed = false; /* this one is wanted, be it the last good one again */
    if (changed) {
        for (uint32_t i = 0; i < REPLICAS_MAX; i++) {
            m->slots[i].gave_up = m->slots[i].ended = false;
            m->slots[i].failures = 0;
            timer_stop(&m->slots[i].retry);
        }
    }
    if (!m->published_once || !m->published_wanted) /* before anybody asks for it */
        publish(m);
    folder_watch_close(m->watch);
    m->watch = s->watch_count > 0 ? folder_watch_open(m) : NULL;
}

void services_adopt(const struct service *services, size_t count, struct slice folder)
{
    if (overseer.loop == NULL)
        return;
    ports_open(folder);
    LIST_FOR(node, &overseer.services)
        CONTAINER_OF(node, struct managed, node)->wanted = false;
    for (size_t i = 0; i < count; i++)
        adopt_one(&services[i]);
    LIST_FOR(node, &overseer.services)
    {
        struct managed *m = CONTAINER_OF(node, struct managed, node);
        if (!m->wanted) {
            release_sockets(m);
            folder_watch_close(m->watch);
            m->watch = NULL;
        }
        place_adopted(m);
    }
    ports_settle();
    overseer_settle();
}

/* --- whom programs may run as --- */

struct allowed {
    struct allowed *next;
    char text[140];
};

static void who(const struct service *s, char out[140])
{
    snprintf(out, 140, SLICE_FMT ":" SLICE_FMT, SLICE_ARG(slice_take(s->user, 64)),
             SLICE_ARG(slice_take(s->group, 64)));
}

static bool is_allowed(const struct service *s)
{
    char text[140];
    who(s, text);
    const struct allowed *a = overseer.allowed;
    while (a != NULL && strcmp(a->text, text) != 0)
        a = a->next;
    return a != NULL;
}

static void allow(const struct service *s)
{
    struct allowed *a = NEW(struct allowed);
    who(s, a->text);
    a->next = overseer.allowed;
    overseer.allowed = a;
    link_allow(s->user, s->group);
}

enum err services_prepare(const struct service *services, size_t count, bool other_user, char *error,
                          size_t cap)
{
    static bool settled;
    if (count > 0 && overseer.fd < 0) {
        snprintf(error, cap, "services need a keeper process, and there is none");
        return ERR_UNSUPPORTED;
    }
    for (size_t i = 0; i < count; i++) {
        const struct service *s = &services[i];
        if (s->user.len == 0)
            continue;
        if (!settled && !is_allowed(s))
            allow(s);
        if (settled && other_user && !is_allowed(s)) {
            snprintf(error, cap, "service " SLICE_FMT ": its user " SLICE_FMT " is not one of those "
                     "that portico was started with: restart portico", SLICE_ARG(s->name),
                     SLICE_ARG(slice_take(s->user, 64)));
            return ERR_DENIED;
        }
    }
    settled = true;
    return OK;
}

/* --- the process --- */

enum err services_init(struct loop *control, int fd)
{
    overseer.loop = control;
    list_init(&overseer.services);
    list_init(&overseer.programs);
    list_init(&overseer.commands);
    overseer.settle.run = settle;
    registry_on_demand(control, on_wanted);
    return link_open_keeper(fd);
}

void services_stop_all(void (*stopped)(void))
{
    overseer.stopped = stopped;
    if (overseer.loop == NULL) {
        stopped();
        return;
    }
    overseer.stopping = true;
    LIST_FOR(node, &overseer.programs)
    {
        struct program *p = CONTAINER_OF(node, struct program, node);
        if (p->slot == NULL)
            program_retire(p);
    }
    overseer_settle();
}

static void free_managed(struct managed *m)
{
    list_remove(&m->node);
    registry_set_owner(m->handle, NULL);
    folder_watch_close(m->watch);
    timer_stop(&m->idle);
    for (uint32_t i = 0; i < REPLICAS_MAX; i++)
        timer_stop(&m->slots[i].retry);
    version_unref(m->version);
    version_unref(m->good);
    lines_deinit(&m->lines);
    mem_free(m->slots);
    mem_free((void *)(uintptr_t)m->name.ptr);
    mem_free(m);
}

void services_deinit(void)
{
    if (overseer.loop == NULL)
        return;
    link_close_keeper();
    registry_on_demand(overseer.loop, NULL);
    LIST_FOR_SAFE(node, &overseer.services)
        free_managed(CONTAINER_OF(node, struct managed, node));
    for (struct allowed *a = overseer.allowed, *next; a != NULL; a = next) {
        next = a->next;
        mem_free(a);
    }
    ports_close();
    overseer.loop = NULL;
}
