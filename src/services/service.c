/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the JSON of the app "services" to struct service. Each service is read by itself (here and in
 * service_parts.c), then they are looked at together: names and fixed ports that two of them have,
 * and whom they come after. Where the configuration came from a Caddyfile, a sentence begins with
 * its file and line.
 *
 * The digest is of all that a running process cannot be given later: a reload that leaves it as it
 * was leaves the process alone. Files of variables count by what they hold.
 */
#include "services/service.h"

#include <stdio.h>

#include "base/hash.h"
#include "services/service_parts.h"

static const char *const app_members[] = {"services", NULL};

static const char *const members[] = {
    "name", "run", "dir", "env", "env_files", "user", "group", "host", "port", "port_range",
    "replicas", "health", "ready_timeout", "restart", "stop_signal", "stop_timeout", "limits",
    "watch", "after", "on_demand", "socket", "confine", NULL};

/* --- where it was written --- */

static const struct origin *origin_of(const struct reading *r, size_t index)
{
    char path[64];
    size_t count;
    int len = snprintf(path, sizeof path, "apps.services.services[%zu]", index);
    return r->origins != NULL ? origins_find(r->origins, slice_of(path, (size_t)len), &count) : NULL;
}

/* " (Caddyfile:7)", or nothing. */
static struct slice place_of(const struct reading *r, size_t index)
{
    const struct origin *o = origin_of(r, index);
    if (o == NULL)
        return SLICE("");
    return arena_printf(r->p.arena, " (" SLICE_FMT ":%u)", SLICE_ARG(o->file), o->line);
}

/* --- one service --- */

bool service_name_ok(struct slice name)
{
    if (name.len == 0 || name.len > SERVICE_NAME_MAX)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i], low = ascii_lower(c);
        bool word = (low >= 'a' && low <= 'z') || (c >= '0' && c <= '9');
        if (!word && (i == 0 || (c != '-' && c != '_' && c != '.')))
            return false;
    }
    return true;
}

static enum err read_name(struct reading *r, const json_t *json, struct service *s)
{
    TRY(provision_text(&r->p, json, "name", SLICE_NONE, &s->name));
    if (s->name.len == 0)
        return provision_fail(&r->p, "a service needs a \"name\"");
    if (!service_name_ok(s->name))
        return provision_fail(&r->p, "\"" SLICE_FMT "\" cannot name a service: write up to %d letters, "
                              "digits, '-', '_' and '.', with a letter or digit first",
                              SLICE_ARG(slice_take(s->name, 80)), SERVICE_NAME_MAX);
    return OK;
}

static enum err read_run(struct reading *r, const json_t *json, struct service *s)
{
    TRY(provision_texts(&r->p, json, "run", &s->run, &s->run_count));
    if (s->run_count == 0 || s->run[0].len == 0)
        return provision_fail(&r->p, "service " SLICE_FMT " needs \"run\": the program and its arguments",
                              SLICE_ARG(s->name));
    for (size_t i = 0; i < s->run_count; i++)
        if (memchr(s->run[i].ptr, '\0', s->run[i].len) != NULL)
            return provision_fail(&r->p, "\"run\": a word holds a NUL byte");
    return OK;
}

/* Rolling over needs one port more than there are replicas (manage.c). */
static enum err read_range(struct reading *r, const json_t *json, struct service *s)
{
    struct slice text, low, high;
    uint64_t first, last;
    TRY(provision_text(&r->p, json, "port_range", SLICE("3000-3999"), &text));
    if (!slice_cut(text, '-', &low, &high) || !slice_to_u64(low, 65535, &first) ||
        !slice_to_u64(high, 65535, &last) || first == 0 || last < first)
        return provision_fail(&r->p, "\"port_range\": write two ports as in \"3000-3999\"");
    if (last - first < s->replicas)
        return provision_fail(&r->p, "\"port_range\": " SLICE_FMT " has %u ports, %u replicas need %u: "
                              "one each, and one to change over", SLICE_ARG(text),
                              (unsigned)(last - first + 1), s->replicas, s->replicas + 1);
    s->range_first = (uint16_t)first;
    s->range_last = (uint16_t)last;
    return OK;
}

static enum err read_port(struct reading *r, const json_t *json, struct service *s)
{
    int64_t port, replicas;
    TRY(provision_int(&r->p, json, "replicas", 1, 1, REPLICAS_MAX, &replicas));
    TRY(provision_int(&r->p, json, "port", 0, 0, 65535, &port));
    s->replicas = (uint32_t)replicas;
    s->port = (uint16_t)port;
    if (port == 0)
        return read_range(r, json, s);
    const json_t *range = json_object_get(json, "port_range");
    if (range != NULL && !json_is_null(range))
        return provision_fail(&r->p, "\"port\" and \"port_range\" exclude each other");
    if (port + replicas - 1 > 65535)
        return provision_fail(&r->p, "%u replicas from port %u on go beyond 65535", s->replicas, s->port);
    return OK;
}

static enum err read_one(struct reading *r, const json_t *json, struct service *s)
{
    struct provision *p = &r->p;
    int64_t ns;
    TRY(provision_members(p, json, members));
    TRY(read_name(r, json, s));
    TRY(read_run(r, json, s));
    TRY(provision_text(p, json, "dir", SLICE_NONE, &s->dir));
    TRY(provision_text(p, json, "user", SLICE_NONE, &s->user));
    TRY(provision_text(p, json, "group", SLICE_NONE, &s->group));
    TRY(provision_text(p, json, "host", SLICE("127.0.0.1"), &s->host));
    TRY(read_port(r, json, s));
    TRY(service_read_env(r, json, s));
    TRY(service_read_health(r, json_object_get(json, "health"), s));
    TRY(service_read_restart(r, json_object_get(json, "restart"), s));
    TRY(service_read_stop(r, json, s));
    TRY(service_read_limits(r, json_object_get(json, "limits"), s));
    TRY(service_read_demand(r, json_object_get(json, "on_demand"), s));
    TRY(provision_duration(p, json, "ready_timeout", 30 * (int64_t)NS_PER_S, &ns));
    if (ns <= 0)
        return provision_fail(p, "\"ready_timeout\" must be longer than 0");
    s->ready_ns = (uint64_t)ns;
    TRY(provision_texts(p, json, "watch", &s->watch, &s->watch_count));
    TRY(provision_texts(p, json, "after", &s->after, &s->after_count));
    TRY(provision_bool(p, json, "socket", false, &s->socket));
    TRY(provision_bool(p, json, "confine", true, &s->confine));
    return service_check_host(r, s);
}

/* --- the digest --- */

static void mix(uint64_t *h, struct slice text)
{
    const uint64_t seed[2] = {*h, 0x736572766963657a};
    *h = hash_keyed(text, seed);
}

static void mix_number(uint64_t *h, uint64_t n)
{
    mix(h, slice_of((const char *)&n, sizeof n));
}

static void mix_all(uint64_t *h, const struct slice *list, size_t count)
{
    mix_number(h, count);
    for (size_t i = 0; i < count; i++)
        mix(h, list[i]);
}

static uint64_t digest_of(const struct service *s, uint64_t files)
{
    uint64_t h = files, cpu;
    memcpy(&cpu, &s->cpu, sizeof cpu);
    const struct slice words[] = {s->name, s->dir, s->user, s->group, s->host};
    const uint64_t numbers[] = {s->port, s->range_first, s->range_last, s->memory, s->tasks, s->files,
                                cpu, s->socket, s->confine};
    mix_all(&h, words, sizeof words / sizeof words[0]);
    mix_all(&h, s->run, s->run_count);
    mix_all(&h, s->env, s->env_count);
    mix_all(&h, s->env_files, s->env_files_count);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        mix_number(&h, numbers[i]);
    return h;
}

/* --- all of them --- */

static enum err refuse_pair(struct reading *r, size_t one, size_t other, struct slice what)
{
    return provision_fail(&r->p, SLICE_FMT ": both by service " SLICE_FMT SLICE_FMT " and service "
                          SLICE_FMT SLICE_FMT, SLICE_ARG(what), SLICE_ARG(r->services[one].name),
                          SLICE_ARG(place_of(r, one)), SLICE_ARG(r->services[other].name),
                          SLICE_ARG(place_of(r, other)));
}

static enum err check_pair(struct reading *r, size_t one, size_t other)
{
    const struct service *a = &r->services[one], *b = &r->services[other];
    if (slice_eq_nocase(a->name, b->name))
        return refuse_pair(r, one, other, arena_printf(r->p.arena, "the name \"" SLICE_FMT "\" is "
                           "given twice", SLICE_ARG(b->name)));
    if (a->port == 0 || b->port == 0)
        return OK;
    unsigned first = a->port > b->port ? a->port : b->port;
    unsigned a_last = a->port + a->replicas - 1, b_last = b->port + b->replicas - 1;
    if (first > a_last || first > b_last)
        return OK;
    return refuse_pair(r, one, other,
                       arena_printf(r->p.arena, "port %u is wanted twice", first));
}

static struct service *find(const struct reading *r, struct slice name)
{
    for (size_t i = 0; i < r->count; i++)
        if (slice_eq(r->services[i].name, name))
            return &r->services[i];
    return NULL;
}

static enum err check_after(struct reading *r, const struct service *s)
{
    for (size_t i = 0; i < s->after_count; i++)
        if (find(r, s->after[i]) == NULL)
            return provision_fail(&r->p, "service " SLICE_FMT ": \"after\" names \"" SLICE_FMT "\", and "
                                  "there is no service of that name", SLICE_ARG(s->name),
                                  SLICE_ARG(slice_take(s->after[i], 80)));
    return OK;
}

/* Those whose forerunners have all been taken are taken, until none is left or none can be. */
static enum err check_circles(struct reading *r)
{
    bool *taken = ARENA_ARRAY(r->p.arena, bool, r->count + 1);
    size_t left = r->count;
    for (bool moved = true; left > 0 && moved;) {
        moved = false;
        for (size_t i = 0; i < r->count; i++) {
            const struct service *s = &r->services[i];
            size_t n = 0;
            while (n < s->after_count && taken[find(r, s->after[n]) - r->services])
                n++;
            if (taken[i] || n < s->after_count)
                continue;
            taken[i] = moved = true;
            left--;
        }
    }
    for (size_t i = 0; left > 0 && i < r->count; i++)
        if (!taken[i]) {
            r->index = i;
            return provision_fail(&r->p, "service " SLICE_FMT ": \"after\" goes round in a circle",
                                  SLICE_ARG(r->services[i].name));
        }
    return OK;
}

static enum err check_all(struct reading *r)
{
    for (size_t i = 0; i < r->count; i++) {
        r->index = i;
        r->p.path = SLICE("apps.services");
        for (size_t k = 0; k < i; k++)
            TRY(check_pair(r, k, i));
        TRY(check_after(r, &r->services[i]));
    }
    return check_circles(r);
}

static enum err read_all(struct reading *r, const json_t *app)
{
    r->p.path = SLICE("apps.services");
    TRY(provision_members(&r->p, app, app_members));
    const json_t *list = json_object_get(app, "services");
    if (list == NULL || json_is_null(list))
        return OK;
    if (!json_is_array(list))
        return provision_fail(&r->p, "\"services\" must be an array");
    size_t count = json_array_size(list);
    if (count > SERVICES_MAX)
        return provision_fail(&r->p, "more than %d services", SERVICES_MAX);
    r->services = ARENA_ARRAY(r->p.arena, struct service, count + 1);
    for (r->index = 0; r->index < count; r->index++) {
        struct service *s = &r->services[r->index];
        r->p.path = arena_printf(r->p.arena, "apps.services.services[%zu]", r->index);
        TRY(read_one(r, json_array_get(list, r->index), s));
        r->count++;
        r->p.path = arena_printf(r->p.arena, "service " SLICE_FMT, SLICE_ARG(s->name));
        uint64_t files = 0;
        TRY(service_hash_env_files(r, s, &files));
        s->digest = digest_of(s, files);
    }
    return check_all(r);
}

enum err services_read(const json_t *app, const struct origins *origins, struct arena *arena,
                       struct service **out, size_t *count, char *error, size_t cap)
{
    static const struct module *const none[] = {NULL};
    *out = NULL;
    *count = 0;
    if (app == NULL || json_is_null(app))
        return OK;
    struct reading *r = ARENA_NEW(arena, struct reading);
    r->origins = origins;
    r->p.arena = arena;
    r->p.modules = none;
    r->index = SIZE_MAX;
    enum err e = read_all(r, app);
    *out = r->services;
    *count = e == OK ? r->count : 0;
    if (e == OK)
        return OK;
    const struct origin *o = origin_of(r, r->index);
    if (o != NULL)
        snprintf(error, cap, SLICE_FMT ":%u: %s", SLICE_ARG(o->file), o->line, r->p.error);
    else
        snprintf(error, cap, "%s", r->p.error);
    return e;
}
