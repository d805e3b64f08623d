/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members of a service that are objects, or need more than a look: variables, health, restarts,
 * the end, limits, starts on demand.
 */
#include "services/service_parts.h"

#include <arpa/inet.h>
#include <errno.h>

#include "base/hash.h"
#include "services/environment.h"
#include "services/signals.h"

static bool absent(const json_t *v)
{
    return v == NULL || json_is_null(v);
}

/* A duration that must be longer than `least`. */
static enum err read_span(struct reading *r, const json_t *json, const char *key, uint64_t fallback,
                          int64_t least, uint64_t *out)
{
    int64_t ns;
    TRY(provision_duration(&r->p, json, key, (int64_t)fallback, &ns));
    if (ns < least)
        return provision_fail(&r->p, "\"%s\" is too short", key);
    *out = (uint64_t)ns;
    return OK;
}

static enum err read_count(struct reading *r, const json_t *json, const char *key, int64_t fallback,
                           int64_t min, int64_t max, uint32_t *out)
{
    int64_t n;
    TRY(provision_int(&r->p, json, key, fallback, min, max, &n));
    *out = (uint32_t)n;
    return OK;
}

/* --- variables --- */

enum err service_read_env(struct reading *r, const json_t *json, struct service *s)
{
    struct provision *p = &r->p;
    const json_t *env = json_object_get(json, "env");
    const char *name;
    json_t *value;
    TRY(provision_texts(p, json, "env_files", &s->env_files, &s->env_files_count));
    if (absent(env))
        return OK;
    if (!json_is_object(env))
        return provision_fail(p, "\"env\" must be an object of texts");
    s->env = ARENA_ARRAY(p->arena, struct slice, json_object_size(env));
    json_object_foreach((json_t *)(uintptr_t)env, name, value)
    {
        if (!json_is_string(value))
            return provision_fail(p, "\"env\": the value of %.80s must be a text", name);
        if (!environment_name_ok(slice_from(name)))
            return provision_fail(p, "\"env\": \"%.80s\" cannot name a variable", name);
        struct slice text = slice_of(json_string_value(value), json_string_length(value));
        if (text.len > 0 && memchr(text.ptr, '\0', text.len) != NULL)
            return provision_fail(p, "\"env\": the value of %.80s holds a NUL byte", name);
        s->env[s->env_count++] = arena_join(p->arena, (struct slice[]){slice_from(name), SLICE("="),
                                            text}, 3);
    }
    return OK;
}

enum err service_hash_env_files(struct reading *r, const struct service *s, uint64_t *hash)
{
    for (size_t i = 0; i < s->env_files_count; i++) {
        struct buffer text;
        buffer_init(&text, ENVIRONMENT_FILE_MAX);
        int error = environment_load(s->env_files[i], &text);
        const uint64_t seed[2] = {*hash, i};
        *hash = hash_keyed(buffer_slice(&text), seed);
        buffer_deinit(&text);
        if (error != 0)
            return provision_fail(&r->p, "env file " SLICE_FMT ": %s",
                                  SLICE_ARG(slice_take(s->env_files[i], 300)), strerror(error));
    }
    return OK;
}

/* --- health --- */

static enum err read_check(struct reading *r, const json_t *json, struct service_health *h)
{
    struct provision *p = &r->p;
    bool tcp;
    TRY(provision_text(p, json, "uri", SLICE_NONE, &h->uri));
    TRY(provision_bool(p, json, "tcp", false, &tcp));
    TRY(provision_texts(p, json, "command", &h->command, &h->command_count));
    unsigned kinds = (unsigned)(h->uri.len > 0) + tcp + (h->command_count > 0);
    if (kinds != 1)
        return provision_fail(p, "\"health\" needs one of \"uri\", \"tcp\" and \"command\"");
    h->kind = h->uri.len > 0 ? HEALTH_HTTP : tcp ? HEALTH_TCP : HEALTH_COMMAND;
    if (h->kind == HEALTH_HTTP && h->uri.ptr[0] != '/')
        return provision_fail(p, "\"health\": \"uri\" must begin with '/'");
    for (size_t i = 0; i < h->uri.len; i++)
        if ((unsigned char)h->uri.ptr[i] <= ' ' || h->uri.ptr[i] == 0x7f)
            return provision_fail(p, "\"health\": \"uri\" holds a space or a control character");
    if (h->kind == HEALTH_COMMAND && h->command[0].len == 0)
        return provision_fail(p, "\"health\": \"command\" begins with an empty word");
    return OK;
}

enum err service_read_health(struct reading *r, const json_t *json, struct service *s)
{
    static const char *const members[] = {"uri", "tcp", "command", "interval", "timeout", "status",
                                          "fails", "passes", NULL};
    struct service_health *h = &s->health;
    struct provision *p = &r->p;
    if (absent(json))
        return OK;
    TRY(provision_members(p, json, members));
    TRY(read_check(r, json, h));
    TRY(read_span(r, json, "interval", 5 * NS_PER_S, 50 * (int64_t)NS_PER_MS, &h->interval_ns));
    TRY(read_span(r, json, "timeout", 2 * NS_PER_S, (int64_t)NS_PER_MS, &h->timeout_ns));
    TRY(provision_int(p, json, "status", 0, 0, 599, &h->status));
    if (h->status >= 10 && h->status < 100)
        return provision_fail(p, "\"health\": \"status\" is a status such as 200, or 2 for all of them "
                              "from 200 to 299");
    TRY(read_count(r, json, "fails", 3, 1, 1000, &h->fails));
    return read_count(r, json, "passes", 1, 1, 1000, &h->passes);
}

/* --- restarts, and the end --- */

enum err service_read_restart(struct reading *r, const json_t *json, struct service *s)
{
    static const char *const members[] = {"policy", "delay", "max_delay", "give_up", "within", NULL};
    struct provision *p = &r->p;
    struct slice policy;
    if (!absent(json))
        TRY(provision_members(p, json, members));
    TRY(provision_text(p, json, "policy", SLICE("always"), &policy));
    if (slice_is(policy, "always"))
        s->restart = RESTART_ALWAYS;
    else if (slice_is(policy, "on-failure"))
        s->restart = RESTART_ON_FAILURE;
    else if (slice_is(policy, "never"))
        s->restart = RESTART_NEVER;
    else
        return provision_fail(p, "\"restart\": \"policy\" is one of always, on-failure, never");
    TRY(read_span(r, json, "delay", 100 * NS_PER_MS, 0, &s->delay_ns));
    TRY(read_span(r, json, "max_delay", 30 * NS_PER_S, 0, &s->max_delay_ns));
    TRY(read_span(r, json, "within", 10 * NS_PER_S, (int64_t)NS_PER_MS, &s->within_ns));
    if (s->max_delay_ns < s->delay_ns)
        return provision_fail(p, "\"restart\": \"max_delay\" is shorter than \"delay\"");
    return read_count(r, json, "give_up", 10, 0, 1000, &s->give_up);
}

enum err service_read_stop(struct reading *r, const json_t *json, struct service *s)
{
    struct slice name;
    TRY(provision_text(&r->p, json, "stop_signal", SLICE("SIGTERM"), &name));
    s->stop_signal = signal_number(name);
    if (s->stop_signal == 0)
        return provision_fail(&r->p, "\"stop_signal\": \"" SLICE_FMT "\" is no signal; write SIGTERM, "
                              "SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2 or SIGKILL",
                              SLICE_ARG(slice_take(name, 40)));
    return read_span(r, json, "stop_timeout", 10 * NS_PER_S, 0, &s->stop_ns);
}

/* --- limits --- */

static enum err read_amount(struct reading *r, const json_t *json, const char *key, int64_t min,
                            int64_t max, uint64_t *out)
{
    int64_t n;
    TRY(provision_int(&r->p, json, key, 0, 0, max, &n));
    if (n != 0 && n < min)
        return provision_fail(&r->p, "\"limits\": \"%s\" must be at least %lld", key, (long long)min);
    *out = (uint64_t)n;
    return OK;
}

enum err service_read_limits(struct reading *r, const json_t *json, struct service *s)
{
    static const char *const members[] = {"memory", "cpu", "tasks", "files", NULL};
    if (absent(json))
        return OK;
    TRY(provision_members(&r->p, json, members));
    TRY(read_amount(r, json, "memory", 1 << 20, INT64_MAX, &s->memory));
    TRY(read_amount(r, json, "tasks", 1, 1 << 22, &s->tasks));
    TRY(read_amount(r, json, "files", 16, 1 << 20, &s->files));
    const json_t *cpu = json_object_get(json, "cpu");
    if (absent(cpu))
        return OK;
    s->cpu = json_number_value(cpu);
    if (!json_is_number(cpu) || !(s->cpu >= 0.01) || s->cpu > 10000)
        return provision_fail(&r->p, "\"limits\": \"cpu\" is a number of cores, from 0.01 on");
    return OK;
}

/* --- on demand --- */

enum err service_read_demand(struct reading *r, const json_t *json, struct service *s)
{
    static const char *const members[] = {"idle", "queue", "deadline", NULL};
    s->demand_queue = 1000;
    s->demand_deadline_ns = 30 * NS_PER_S;
    if (absent(json) || json_is_false(json))
        return OK;
    s->on_demand = true;
    s->idle_ns = 300 * NS_PER_S;
    s->demand_queue = 100;
    if (json_is_true(json))
        return OK;
    TRY(provision_members(&r->p, json, members));
    TRY(read_span(r, json, "idle", s->idle_ns, (int64_t)NS_PER_MS, &s->idle_ns));
    TRY(read_span(r, json, "deadline", s->demand_deadline_ns, (int64_t)NS_PER_MS,
                  &s->demand_deadline_ns));
    return read_count(r, json, "queue", s->demand_queue, 0, 100000, &s->demand_queue);
}

/* --- where it listens --- */

/* A service is reached by the front door: names would have to be found first, by whom? */
enum err service_check_host(struct reading *r, const struct service *s)
{
    char text[64];
    unsigned char raw[16];
    if (s->host.len < sizeof text) {
        snprintf(text, sizeof text, SLICE_FMT, SLICE_ARG(s->host));
        if (inet_pton(AF_INET, text, raw) == 1 || inet_pton(AF_INET6, text, raw) == 1)
            return OK;
    }
    return provision_fail(&r->p, "\"host\": \"" SLICE_FMT "\" is no IP address; a service listens on "
                          "127.0.0.1 or ::1, unless others on the network shall reach it past portico",
                          SLICE_ARG(slice_take(s->host, 80)));
}
