/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The global option `service NAME { … }`, ours: a member of the app "services" (services/service.h).
 * What may be written wrongly is told with its line; the whole is read once more as the server will
 * read it, so that what two services cannot both have is told with both lines.
 *
 *     service simon {
 *         run      node index.js
 *         dir      /srv/simon
 *         port     3000
 *         health   /healthz
 *     }
 */
#include "adapter/service_option.h"

#include <stdio.h>

#include "adapter/suggest.h"
#include "base/text.h"
#include "services/service.h"

typedef enum err read_line(struct adapt *, struct dispenser *, json_t *);

struct line {
    const char *name;
    read_line *read;
};

struct service_place {
    struct service_place *next;
    struct slice name;
    struct token token;
};

/* --- words --- */

static enum err unknown(struct dispenser *d, const struct line *table, const char *what)
{
    struct suggestion near = {0};
    for (const struct line *l = table; l->name != NULL; l++)
        suggest(&near, dispenser_val(d), l->name);
    return dispenser_err_f(d, "unrecognized %s '" SLICE_FMT "'%s%s%s", what,
                           SLICE_ARG(dispenser_val(d)), near.word != NULL ? " - did you mean '" : "",
                           near.word != NULL ? near.word : "", near.word != NULL ? "'?" : "");
}

static enum err read_table(struct adapt *a, struct dispenser *d, int nesting,
                           const struct line *table, const char *what, json_t *o)
{
    while (dispenser_next_block(d, nesting)) {
        const struct line *l = table;
        while (l->name != NULL && !dispenser_val_is(d, l->name))
            l++;
        if (l->name == NULL)
            return unknown(d, table, what);
        TRY(l->read(a, d, o));
    }
    return OK;
}

static enum err once(struct dispenser *d, const json_t *o, const char *key)
{
    if (json_object_get(o, key) == NULL)
        return OK;
    return dispenser_err_f(d, "'" SLICE_FMT "' is written twice", SLICE_ARG(dispenser_val(d)));
}

static enum err text(struct adapt *a, struct dispenser *d, json_t *o, const char *key)
{
    struct slice value;
    TRY(once(d, o, key));
    if (!dispenser_all_args(d, &value))
        return dispenser_arg_err(d);
    j_set(a, o, key, j_text(a, value));
    return OK;
}

static enum err number(struct adapt *a, struct dispenser *d, json_t *o, const char *key)
{
    struct slice value;
    int64_t n;
    TRY(once(d, o, key));
    if (!dispenser_all_args(d, &value))
        return dispenser_arg_err(d);
    if (!slice_to_i64(value, &n) || n < 0)
        return dispenser_err_f(d, "'" SLICE_FMT "' is no number", SLICE_ARG(value));
    j_set(a, o, key, j_int(a, n));
    return OK;
}

static enum err span(struct adapt *a, struct dispenser *d, json_t *o, const char *key)
{
    struct slice value;
    int64_t ns;
    TRY(once(d, o, key));
    if (!dispenser_all_args(d, &value))
        return dispenser_arg_err(d);
    if (duration_parse(value, &ns) != OK || ns < 0)
        return dispenser_err_f(d, "'" SLICE_FMT "' is no duration, such as 500ms, 30s or 5m",
                               SLICE_ARG(value));
    j_set(a, o, key, j_int(a, ns));
    return OK;
}

static enum err words(struct adapt *a, struct dispenser *d, json_t *o, const char *key)
{
    struct slice *args;
    size_t count = dispenser_remaining_args(d, &args);
    if (count == 0)
        return dispenser_arg_err(d);
    j_set(a, o, key, j_strings(a, args, count));
    return OK;
}

#define LINE(function, reader, key)                                                                \
    static enum err function(struct adapt *a, struct dispenser *d, json_t *o)                      \
    {                                                                                              \
        return reader(a, d, o, key);                                                               \
    }

/* --- blocks within it --- */

LINE(health_interval, span, "interval")
LINE(health_timeout, span, "timeout")
LINE(health_fails, number, "fails")
LINE(health_passes, number, "passes")

static enum err health_status(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct slice value;
    int64_t n;
    TRY(once(d, o, "status"));
    if (!dispenser_all_args(d, &value))
        return dispenser_arg_err(d);
    if (value.len == 3 && slice_ends(value, SLICE("xx")))
        value.len = 1;
    if (!slice_to_i64(value, &n) || n < 1 || n > 599)
        return dispenser_err_f(d, "'" SLICE_FMT "' is no status, such as 200 or 2xx",
                               SLICE_ARG(value));
    j_set(a, o, "status", j_int(a, n));
    return OK;
}

static const struct line health_lines[] = {
    {"interval", health_interval}, {"timeout", health_timeout}, {"status", health_status},
    {"fails", health_fails},       {"passes", health_passes},   {0},
};

/* health /uri, health tcp, health command WORDS…; each with a block or without. */
static enum err read_health(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct slice *args;
    json_t *h = j_object(a);
    TRY(once(d, o, "health"));
    int nesting = dispenser_nesting(d);
    size_t count = dispenser_remaining_args(d, &args);
    if (count == 0)
        return dispenser_arg_err(d);
    if (slice_starts(args[0], SLICE("/")) && count == 1)
        j_put_text(a, h, "uri", args[0]);
    else if (slice_is(args[0], "tcp") && count == 1)
        j_put_bool(a, h, "tcp", true);
    else if (slice_is(args[0], "command") && count > 1)
        j_put_strings(a, h, "command", args + 1, count - 1);
    else
        return dispenser_err_f(d, "health is a path such as /healthz, or tcp, or command and its "
                                  "words");
    TRY(read_table(a, d, nesting, health_lines, "health option", h));
    j_set(a, o, "health", h);
    return OK;
}

LINE(restart_delay, span, "delay")
LINE(restart_max_delay, span, "max_delay")

/* give_up 10 [30s] */
static enum err restart_give_up(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct slice *args;
    int64_t n, ns;
    TRY(once(d, o, "give_up"));
    size_t count = dispenser_remaining_args(d, &args);
    if (count == 0 || count > 2)
        return dispenser_arg_err(d);
    if (!slice_to_i64(args[0], &n) || n < 0)
        return dispenser_err_f(d, "'" SLICE_FMT "' is no number of failures; 0 is never",
                               SLICE_ARG(args[0]));
    j_set(a, o, "give_up", j_int(a, n));
    if (count == 1)
        return OK;
    if (duration_parse(args[1], &ns) != OK)
        return dispenser_err_f(d, "'" SLICE_FMT "' is no duration", SLICE_ARG(args[1]));
    j_set(a, o, "within", j_int(a, ns));
    return OK;
}

static const struct line restart_lines[] = {
    {"delay", restart_delay}, {"max_delay", restart_max_delay}, {"give_up", restart_give_up}, {0},
};

static enum err read_restart(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct slice *args;
    json_t *r = j_object(a);
    TRY(once(d, o, "restart"));
    int nesting = dispenser_nesting(d);
    size_t count = dispenser_remaining_args(d, &args);
    if (count > 1)
        return dispenser_arg_err(d);
    if (count == 1 && !slice_is(args[0], "always") && !slice_is(args[0], "on-failure") &&
        !slice_is(args[0], "never"))
        return dispenser_err_f(d, "restart is one of always, on-failure, never");
    if (count == 1)
        j_put_text(a, r, "policy", args[0]);
    TRY(read_table(a, d, nesting, restart_lines, "restart option", r));
    j_set(a, o, "restart", r);
    return OK;
}

LINE(limit_tasks, number, "tasks")
LINE(limit_files, number, "files")

static enum err limit_memory(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct slice value;
    uint64_t bytes;
    TRY(once(d, o, "memory"));
    if (!dispenser_all_args(d, &value))
        return dispenser_arg_err(d);
    if (size_parse(value, &bytes) != OK || bytes > INT64_MAX)
        return dispenser_err_f(d, "'" SLICE_FMT "' is no size, such as 256MiB", SLICE_ARG(value));
    j_set(a, o, "memory", j_int(a, (int64_t)bytes));
    return OK;
}

static enum err limit_cpu(struct adapt *a, struct dispenser *d, json_t *o)
{
    TRY(once(d, o, "cpu"));
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    json_t *n = keep(a, dispenser_scalar(d));
    if (!json_is_number(n))
        return dispenser_err_f(d, "'" SLICE_FMT "' is no number of cores, such as 0.5",
                               SLICE_ARG(dispenser_val(d)));
    j_set(a, o, "cpu", n);
    return dispenser_next_arg(d) ? dispenser_arg_err(d) : OK;
}

static const struct line limit_lines[] = {
    {"memory", limit_memory}, {"cpu", limit_cpu}, {"tasks", limit_tasks}, {"files", limit_files},
    {0},
};

static enum err read_limits(struct adapt *a, struct dispenser *d, json_t *o)
{
    json_t *l = j_object(a);
    TRY(once(d, o, "limits"));
    int nesting = dispenser_nesting(d);
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    TRY(read_table(a, d, nesting, limit_lines, "limit", l));
    j_set(a, o, "limits", l);
    return OK;
}

LINE(demand_idle, span, "idle")
LINE(demand_queue, number, "queue")
LINE(demand_deadline, span, "deadline")

static const struct line demand_lines[] = {
    {"idle", demand_idle}, {"queue", demand_queue}, {"deadline", demand_deadline}, {0},
};

static enum err read_demand(struct adapt *a, struct dispenser *d, json_t *o)
{
    json_t *demand = j_object(a);
    TRY(once(d, o, "on_demand"));
    int nesting = dispenser_nesting(d);
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    TRY(read_table(a, d, nesting, demand_lines, "on_demand option", demand));
    j_set(a, o, "on_demand", demand);
    return OK;
}

/* --- lines --- */

LINE(read_dir, text, "dir")
LINE(read_host, text, "host")
LINE(read_run, words, "run")
LINE(read_replicas, number, "replicas")
LINE(read_ready, span, "ready_timeout")
LINE(read_stop_signal, text, "stop_signal")
LINE(read_stop_timeout, span, "stop_timeout")
LINE(read_env_file, more_words, "env_files")
LINE(read_after, more_words, "after")
LINE(read_group, text, "group")

static enum err run_line(struct adapt *a, struct dispenser *d, json_t *o)
{
    TRY(once(d, o, "run"));
    return read_run(a, d, o);
}

/* A port, or a range to be given one from. */
static enum err read_port(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct slice value;
    int64_t n;
    TRY(once(d, o, "port"));
    TRY(once(d, o, "port_range"));
    if (!dispenser_all_args(d, &value))
        return dispenser_arg_err(d);
    if (slice_find(value, '-') != SIZE_MAX) {
        j_put_text(a, o, "port_range", value);
        return OK;
    }
    if (!slice_to_i64(value, &n) || n < 1 || n > 65535)
        return dispenser_err_f(d, "'" SLICE_FMT "' is no port; write a number from 1 to 65535, or a "
                                  "range such as 3000-3999", SLICE_ARG(value));
    j_set(a, o, "port", j_int(a, n));
    return OK;
}

/* NAME, NAME:GROUP, NAME GROUP */
static enum err read_user(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct slice *args, user, group;
    TRY(once(d, o, "user"));
    size_t count = dispenser_remaining_args(d, &args);
    if (count == 0 || count > 2)
        return dispenser_arg_err(d);
    bool both = slice_cut(args[0], ':', &user, &group);
    if (count == 2)
        group = args[1];
    j_put_text(a, o, "user", user);
    if (both || count == 2)
        j_put_text(a, o, "group", group);
    return OK;
}

static void put_variable(struct adapt *a, json_t *o, struct slice name, struct slice value)
{
    j_set_key(a, j_at(a, o, "env"), name, j_text(a, value));
}

/* env NAME VALUE, or a block of such lines. */
static enum err read_env(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct slice *args;
    int nesting = dispenser_nesting(d);
    size_t count = dispenser_remaining_args(d, &args);
    if (count == 2) {
        put_variable(a, o, args[0], args[1]);
        return OK;
    }
    bool any = false;
    while (count == 0 && dispenser_next_block(d, nesting)) {
        struct slice name = dispenser_val(d), value;
        if (!dispenser_all_args(d, &value))
            return dispenser_arg_err(d);
        put_variable(a, o, name, value);
        any = true;
    }
    return any ? OK : dispenser_arg_err(d);
}

static enum err read_watch(struct adapt *a, struct dispenser *d, json_t *o)
{
    if (dispenser_count_remaining_args(d) > 0)
        return more_words(a, d, o, "watch");
    j_add_to_list(a, o, SLICE("watch"), j_text(a, SLICE(".")));
    return OK;
}

static enum err read_socket(struct adapt *a, struct dispenser *d, json_t *o)
{
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    j_set(a, o, "socket", json_true());
    return OK;
}

static enum err read_confine(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct slice value;
    if (!dispenser_all_args(d, &value))
        return dispenser_arg_err(d);
    if (!slice_is(value, "off") && !slice_is(value, "on"))
        return dispenser_err_f(d, "confine is on or off");
    if (slice_is(value, "off"))
        j_set(a, o, "confine", json_false());
    return OK;
}

/* A log of its own, which takes what the service writes out of the default one. */
static enum err read_log(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct options *opt = &a->options;
    struct log_value *v;
    const char *name = json_string_value(json_object_get(o, "name"));
    struct slice logger = arena_printf(a->arena, "service.%s", name);
    struct helper h = {.d = dispenser_new_from_next_segment(d), .a = a};
    unsigned counter = a->log_counter;
    TRY(log_read(&h, false, &v));
    a->log_counter = counter;
    if (v->log == NULL)
        return OK;
    if (v->hostname_count > 0)
        return dispenser_err_f(d, "hostnames is not allowed in the log of a service");
    v->name = logger;
    j_put_strings(a, v->log, "include", &logger, 1);
    struct log_value **all = ARENA_ARRAY(a->arena, struct log_value *, opt->log_count + 1);
    if (opt->log_count > 0)
        memcpy(all, opt->logs, opt->log_count * sizeof *all);
    all[opt->log_count++] = v;
    opt->logs = all;
    return OK;
}

static const struct line lines[] = {
    {"after", read_after},         {"confine", read_confine},   {"dir", read_dir},
    {"env", read_env},             {"env_file", read_env_file}, {"group", read_group},
    {"health", read_health},       {"host", read_host},         {"limits", read_limits},
    {"log", read_log},             {"on_demand", read_demand},  {"port", read_port},
    {"ready", read_ready},         {"replicas", read_replicas}, {"restart", read_restart},
    {"run", run_line},             {"socket", read_socket},     {"stop_signal", read_stop_signal},
    {"stop_timeout", read_stop_timeout}, {"user", read_user},   {"watch", read_watch},
    {0},
};

/* --- the whole --- */

static void remember(struct adapt *a, struct slice name, const struct token *t)
{
    struct service_place *place = ARENA_NEW(a->arena, struct service_place), **at;
    place->name = name;
    place->token = *t;
    for (at = &a->options.service_places; *at != NULL; at = &(*at)->next) {
    }
    *at = place;
}

/* As the server will read it, but for files that need not be here. */
static enum err check(struct adapt *a)
{
    struct origins origins;
    struct service *services;
    size_t i = 0, count;
    char error[1024];
    json_t *list = keep(a, json_deep_copy(a->options.services)), *app = j_object(a), *s;
    origins_init(&origins);
    for (const struct service_place *p = a->options.service_places; p != NULL; p = p->next, i++) {
        struct slice path = arena_printf(a->arena, "apps.services.services[%zu]", i);
        origins_add(&origins, path, p->name, p->token.file, p->token.line);
    }
    json_array_foreach(list, i, s)
        json_object_del(s, "env_files");
    j_set(a, app, "services", list);
    origins_sort(&origins);
    enum err e = services_read(app, &origins, a->arena, &services, &count, error, sizeof error);
    origins_deinit(&origins);
    return e == OK ? OK : diag_fail(a->diag, "%s", error);
}

enum err service_option(struct adapt *a, struct dispenser *d)
{
    static const char *const keys[] = {
        "name", "run", "dir", "env", "env_files", "user", "group", "host", "port", "port_range",
        "replicas", "health", "ready_timeout", "restart", "stop_signal", "stop_timeout", "limits",
        "watch", "after", "on_demand", "socket", "confine", NULL};
    json_t *o = j_object(a);
    struct slice name;
    dispenser_next(d);
    struct token at = *dispenser_token(d);
    if (!dispenser_args(d, &name) || dispenser_next_arg(d))
        return dispenser_err_f(d, "a service has one name: 'service NAME { … }'");
    j_set(a, o, "name", j_text(a, name));
    TRY(read_table(a, d, 0, lines, "option of a service", o));
    a->options.services = a->options.services != NULL ? a->options.services : j_array(a);
    adapt_origin(a, arena_printf(a->arena, "apps.services.services[%zu]",
                                 json_array_size(a->options.services)), name, at.file, at.line);
    j_append(a->options.services, j_ordered(a, o, keys));
    remember(a, name, &at);
    return OK;
}

enum err services_app_build(struct adapt *a, json_t **app)
{
    *app = NULL;
    if (a->options.services == NULL)
        return OK;
    TRY(check(a));
    *app = j_object(a);
    j_set(a, *app, "services", a->options.services);
    return OK;
}

/* --- upstreams --- */

enum err service_upstream(struct adapt *a, struct dispenser *d, struct slice name, json_t **source)
{
    struct suggestion near = {0};
    const struct service_place *p = a->options.service_places;
    while (p != NULL && !slice_eq(p->name, name)) {
        suggest(&near, name, arena_str(a->arena, p->name));
        p = p->next;
    }
    if (p == NULL)
        return dispenser_err_f(d, "there is no service '" SLICE_FMT "'%s%s%s%s",
                               SLICE_ARG(slice_take(name, 80)),
                               near.word != NULL ? " - did you mean '" : "",
                               near.word != NULL ? near.word : "", near.word != NULL ? "'?" : "",
                               a->options.service_places == NULL
                                   ? ": the global options have no 'service' block" : "");
    json_t *o = j_object(a);
    j_put_text(a, o, "name", name);
    *source = j_module(a, "source", "service", o);
    return OK;
}
