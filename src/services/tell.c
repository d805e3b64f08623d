/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the admin API, the commands and Prometheus are told about services, and what they ask for.
 */
#include <stdio.h>

#include "base/clock.h"
#include "base/time_layout.h"
#include "config/jsonx.h"
#include "services/manage.h"
#include "upstream/endpoint.h"

#define LOOK_NS (10 * NS_PER_MS) /* between two looks of a command that waits */

static const char *const state_names[] = {"stopped", "waiting", "starting", "ready", "unhealthy",
                                          "stopping", "gave up"};

static enum replica_state state_of(const struct slot *slot)
{
    const struct managed *m = slot->owner;
    if (slot->now != NULL)
        return slot->now->state;
    if (slot->next != NULL)
        return slot->next->state;
    if (slot->gave_up)
        return REPLICA_GAVE_UP;
    bool idle = m->version->service.on_demand && !m->demanded;
    return m->paused || slot->ended || idle ? REPLICA_STOPPED : REPLICA_WAITING;
}

/* --- JSON --- */

static void put_time(json_t *o, const char *key, int64_t wall_ns)
{
    static struct time_layout layout;
    char text[TIME_TEXT_MAX];
    if (layout.count == 0 && time_layout_compile(&layout, SLICE("2006-01-02T15:04:05Z")) != OK)
        return;
    size_t len = time_layout_put(&layout, wall_ns, false, text);
    json_object_set_new(o, key, json_stringn(text, len));
}

static json_t *describe_program(const struct program *p)
{
    json_t *o = json_object();
    const struct service *s = p->version != NULL ? &p->version->service : NULL;
    json_object_set_new(o, "replica", json_integer(p->replica + 1));
    json_object_set_new(o, "state", json_string(state_names[p->state]));
    if (p->pid > 0)
        json_object_set_new(o, "pid", json_integer(p->pid));
    json_object_set_new(o, "port", json_integer(p->port));
    if (p->endpoint != NULL) {
        json_object_set_new(o, "address", jsonx_string(p->endpoint->name));
        json_object_set_new(o, "requests", json_integer(endpoint_requests(p->endpoint)));
    }
    put_time(o, "since", p->started_wall_ns);
    json_object_set_new(o, "confined", json_boolean(s != NULL && s->confine));
    if (p->note[0] != '\0')
        json_object_set_new(o, "note", json_string(p->note));
    return o;
}

static void describe_slot(json_t *list, const struct slot *slot)
{
    const struct program *both[] = {slot->now, slot->next};
    for (int i = 0; i < 2; i++)
        if (both[i] != NULL)
            json_array_append_new(list, describe_program(both[i]));
    if (slot->now != NULL || slot->next != NULL)
        return;
    json_t *o = json_object();
    json_object_set_new(o, "replica", json_integer(slot->number + 1));
    json_object_set_new(o, "state", json_string(state_names[state_of(slot)]));
    if (slot->port > 0)
        json_object_set_new(o, "port", json_integer(slot->port));
    if (slot->why[0] != '\0')
        json_object_set_new(o, "reason", jsonx_string(slice_from(slot->why)));
    json_array_append_new(list, o);
}

static json_t *describe(const struct managed *m)
{
    const struct service *s = &m->version->service;
    json_t *o = json_object(), *run = json_array(), *list = json_array();
    unsigned ready = 0;
    for (size_t i = 0; i < s->run_count; i++)
        json_array_append_new(run, jsonx_string(s->run[i]));
    for (uint32_t i = 0; i < m->replicas; i++) {
        describe_slot(list, &m->slots[i]);
        ready += program_usable(m->slots[i].now);
    }
    LIST_FOR(node, &overseer.programs)
    {
        const struct program *p = CONTAINER_OF(node, struct program, node);
        if (p->owner == m && p->slot == NULL && p->state == REPLICA_STOPPING)
            json_array_append_new(list, describe_program(p));
    }
    json_object_set_new(o, "name", jsonx_string(m->name));
    json_object_set_new(o, "run", run);
    json_object_set_new(o, "ready", json_integer(ready));
    json_object_set_new(o, "wanted", json_integer(m->paused ? 0 : m->replicas));
    json_object_set_new(o, "on_demand", json_boolean(s->on_demand));
    json_object_set_new(o, "paused", json_boolean(m->paused));
    json_object_set_new(o, "replicas", list);
    json_object_set_new(o, "starts", json_integer((json_int_t)m->starts));
    json_object_set_new(o, "crashes", json_integer((json_int_t)m->crashes));
    json_object_set_new(o, "waiting_requests", json_integer(registry_waiting(m->handle)));
    if (m->roll_failed)
        json_object_set_new(o, "rolled_back", json_true());
    if (m->last_why[0] != '\0')
        json_object_set_new(o, "last_trouble", jsonx_string(slice_from(m->last_why)));
    return o;
}

json_t *services_list(void)
{
    json_t *list = json_array();
    if (overseer.loop == NULL)
        return list;
    LIST_FOR(node, &overseer.services)
    {
        const struct managed *m = CONTAINER_OF(node, struct managed, node);
        if (m->wanted && m->version != NULL)
            json_array_append_new(list, describe(m));
    }
    return list;
}

static struct managed *find_wanted(struct slice name)
{
    struct managed *m = overseer.loop != NULL ? overseer_find(name) : NULL;
    return m != NULL && m->wanted && m->version != NULL ? m : NULL;
}

json_t *service_describe(struct slice name)
{
    const struct managed *m = find_wanted(name);
    return m != NULL ? describe(m) : NULL;
}

/* --- lines --- */

static enum err put_line(struct buffer *out, const struct kept_line *l)
{
    TRY(buffer_append_f(out, "{\"seq\":%llu,\"time\":%lld.%03lld,\"replica\":%u,"
                        "%s%s%s\"text\":",
                        (unsigned long long)l->seq, (long long)(l->wall_ns / (int64_t)NS_PER_S),
                        (long long)(l->wall_ns / (int64_t)NS_PER_MS % 1000), l->replica + 1,
                        l->stream != NULL ? "\"stream\":\"" : "", l->stream != NULL ? l->stream : "",
                        l->stream != NULL ? "\"," : ""));
    TRY(jsonx_put_string(out, l->text));
    return BUFFER_PUT(out, "}\n");
}

enum err await_service_logs(struct slice name, size_t lines, uint64_t since, uint64_t deadline_ns,
                            struct buffer *out)
{
    struct managed *m = find_wanted(name);
    while (m != NULL && deadline_ns > 0 && m->lines.next_seq <= since + 1 &&
           clock_mono_ns() < deadline_ns) {
        TRY(await_sleep(clock_mono_ns() + 5 * LOOK_NS));
        m = find_wanted(name); /* it may be gone by now */
    }
    if (m == NULL)
        return ERR_NOT_FOUND;
    const struct lines *l = &m->lines;
    unsigned skip = l->count > lines ? l->count - (unsigned)lines : 0;
    for (unsigned i = skip; i < l->count; i++) {
        const struct kept_line *line = &l->ring[(l->first + i) % LINES_KEPT];
        if (line->seq > since)
            TRY(put_line(out, line));
    }
    return OK;
}

/* --- commands --- */

static bool has_programs(const struct managed *m)
{
    LIST_FOR(node, &overseer.programs)
    {
        if (CONTAINER_OF(node, struct program, node)->owner == m)
            return true;
    }
    return false;
}

/* Whether a slot is as it shall be; *failed when it will not be. */
static bool slot_rests(const struct slot *slot, bool *failed)
{
    if (slot->gave_up)
        *failed = true;
    if (slot->gave_up || slot->ended)
        return true;
    return slot->now != NULL && slot->next == NULL && !slot->now->stale &&
           slot->now->state == REPLICA_READY &&
           slot->now->digest == slot->owner->version->service.digest;
}

static bool rests(const struct managed *m, bool *failed)
{
    bool all = true;
    for (uint32_t i = 0; i < m->replicas; i++)
        all &= slot_rests(&m->slots[i], failed);
    return all;
}

static void begin(struct managed *m)
{
    m->paused = false;
    m->demanded = true;
    m->roll_failed = false;
    for (uint32_t i = 0; i < REPLICAS_MAX; i++) {
        m->slots[i].gave_up = m->slots[i].ended = false;
        m->slots[i].failures = 0;
        timer_stop(&m->slots[i].retry);
    }
    if (m->version->service.on_demand)
        timer_start(overseer.loop, &m->idle, clock_mono_ns() + m->version->service.idle_ns);
    overseer_settle();
}

void overseer_renew(struct managed *m)
{
    for (uint32_t i = 0; i < REPLICAS_MAX; i++) {
        struct slot *slot = &m->slots[i];
        if (slot->now != NULL)
            slot->now->stale = true;
        if (slot->next != NULL)
            program_retire(slot->next); /* it may have read half of what changed */
        slot->gave_up = slot->ended = false;
        slot->failures = 0;
        timer_stop(&slot->retry);
    }
    m->roll_failed = false;
    overseer_settle();
}

static enum err await_rest(struct slice name, char *error, size_t cap)
{
    for (;;) {
        bool failed = false;
        TRY(await_sleep(clock_mono_ns() + LOOK_NS));
        struct managed *m = find_wanted(name);
        if (m == NULL || m->paused) {
            snprintf(error, cap, "it was stopped meanwhile");
            return ERR_FAILED;
        }
        bool all = rests(m, &failed);
        if (m->roll_failed || failed) {
            snprintf(error, cap, "%s: %s", m->roll_failed ? "it did not become ready, the last one goes on"
                                                          : "it did not start",
                     m->last_why);
            return ERR_FAILED;
        }
        if (all)
            return OK;
    }
}

static enum err await_stop(struct slice name)
{
    for (;;) {
        struct managed *m = find_wanted(name);
        if (m == NULL || !has_programs(m))
            return OK;
        TRY(await_sleep(clock_mono_ns() + LOOK_NS));
    }
}

enum err await_service_command(struct slice name, struct slice command, char *error, size_t cap)
{
    struct managed *m = find_wanted(name);
    if (m == NULL) {
        snprintf(error, cap, "there is no service \"" SLICE_FMT "\"", SLICE_ARG(slice_take(name, 80)));
        return ERR_NOT_FOUND;
    }
    if (slice_is(command, "stop")) {
        m->paused = true;
        overseer_settle();
        return await_stop(name);
    }
    if (slice_is(command, "restart")) {
        overseer_renew(m);
        begin(m);
    } else if (slice_is(command, "start")) {
        begin(m);
    } else {
        snprintf(error, cap, "\"" SLICE_FMT "\" is no command: start, stop and restart are",
                 SLICE_ARG(slice_take(command, 40)));
        return ERR_INVALID;
    }
    return await_rest(name, error, cap);
}

/* --- Prometheus --- */

static enum err put_one(struct buffer *b, const char *metric, const struct managed *m, uint64_t value)
{
    return buffer_append_f(b, "%s{service=\"" SLICE_FMT "\"} %llu\n", metric, SLICE_ARG(m->name),
                           (unsigned long long)value);
}

static uint64_t value_ready(const struct managed *m)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < REPLICAS_MAX; i++)
        n += program_usable(m->slots[i].now);
    return n;
}

static uint64_t value_wanted(const struct managed *m)
{
    return m->paused || (m->version->service.on_demand && !m->demanded) ? 0 : m->replicas;
}

#define VALUE(name, expression)                                                                    \
    static uint64_t value_##name(const struct managed *m)                                          \
    {                                                                                              \
        return expression;                                                                         \
    }
VALUE(starts, m->starts)
VALUE(crashes, m->crashes)
VALUE(rolls, m->rolls)
VALUE(check_failures, m->check_failures)
VALUE(waiting, registry_waiting(m->handle))
VALUE(lines, m->lines.total)
VALUE(dropped, m->lines.dropped)

static const struct {
    const char *name, *type, *help;
    uint64_t (*value)(const struct managed *);
} metrics[] = {
    {"portico_service_replicas_ready", "gauge", "Replicas that requests go to.", value_ready},
    {"portico_service_replicas_wanted", "gauge", "Replicas that shall run.", value_wanted},
    {"portico_service_starts_total", "counter", "Programs started.", value_starts},
    {"portico_service_crashes_total", "counter", "Programs that ended by themselves.", value_crashes},
    {"portico_service_rolls_total", "counter", "Replicas that a new program took over.", value_rolls},
    {"portico_service_check_failures_total", "counter", "Health checks that failed.",
     value_check_failures},
    {"portico_service_waiting_requests", "gauge", "Requests that wait for a replica.", value_waiting},
    {"portico_service_lines_total", "counter", "Lines that programs wrote.", value_lines},
    {"portico_service_lines_dropped_total", "counter", "Lines over the rate.", value_dropped},
};

enum err services_metrics_put(struct buffer *b)
{
    if (overseer.loop == NULL || list_empty(&overseer.services))
        return OK;
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++) {
        TRY(buffer_append_f(b, "# HELP %s %s\n# TYPE %s %s\n", metrics[i].name, metrics[i].help,
                            metrics[i].name, metrics[i].type));
        LIST_FOR(node, &overseer.services)
        {
            const struct managed *m = CONTAINER_OF(node, struct managed, node);
            if (m->wanted && m->version != NULL)
                TRY(put_one(b, metrics[i].name, m, metrics[i].value(m)));
        }
    }
    return OK;
}
