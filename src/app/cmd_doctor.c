/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico doctor: walks the chain of each site, and says at the broken link what to do.
 */
#include <signal.h>

#include "app/commands.h"
#include "app/doctor.h"

static const struct flag flags[] = {
    PORTS_FLAGS,
    {"json", 'j', false, NULL, "as JSON", NULL},
    {0},
};

static const char *shade_of(const char *state)
{
    return strcmp(state, "ok") == 0        ? "\033[32m"
           : strcmp(state, "broken") == 0  ? "\033[1;31m"
           : strcmp(state, "skipped") == 0 ? "\033[2m"
                                           : "\033[33m";
}

static void put_chain(struct buffer *b, const json_t *chain, bool colour, struct arena *arena)
{
    const json_t *links = json_object_get(chain, "links");
    (void)buffer_append_f(b, "%s%s%s\n", colour ? "\033[1m" : "",
                          json_string_value(json_object_get(chain, "name")), colour ? "\033[0m" : "");
    for (size_t i = 0; i < json_array_size(links); i++) {
        const json_t *o = json_array_get(links, i);
        const char *state = json_string_value(json_object_get(o, "state"));
        const char *advice = json_string_value(json_object_get(o, "advice"));
        struct slice text = slice_from(json_string_value(json_object_get(o, "text")));
        (void)buffer_append_f(b, "  %s%-7s%s  %-9s  " SLICE_FMT "\n", colour ? shade_of(state) : "", state,
                              colour ? "\033[0m" : "", json_string_value(json_object_get(o, "name")),
                              SLICE_ARG(clean_text(text, arena)));
        if (advice != NULL)
            (void)buffer_append_f(b, "                      → %s\n", advice);
    }
    (void)BUFFER_PUT(b, "\n");
}

static bool has_broken(const json_t *chain)
{
    const json_t *links = json_object_get(chain, "links");
    for (size_t i = 0; i < json_array_size(links); i++) {
        const json_t *state = json_object_get(json_array_get(links, i), "state");
        if (strcmp(json_string_value(state), "broken") == 0)
            return true;
    }
    return false;
}

static int print(const struct command_line *l, struct ports_view *v, json_t *sites, json_t *machine)
{
    struct buffer b;
    size_t n = json_array_size(sites), broken = 0;
    for (size_t i = 0; i < n; i++)
        broken += has_broken(json_array_get(sites, i));
    int status = broken > 0 || has_broken(machine) ? EXIT_STARTUP : EXIT_OK;
    if (flag_on(l, "json"))
        return output_json(json_pack("{s:b,s:O,s:O}", "ok", status == EXIT_OK, "sites", sites, "machine",
                                     json_object_get(machine, "links")), status);
    buffer_init(&b, SIZE_MAX);
    for (size_t i = 0; i < n; i++)
        put_chain(&b, json_array_get(sites, i), output_colours(), &v->arena);
    put_chain(&b, machine, output_colours(), &v->arena);
    if (n == 0)
        (void)BUFFER_PUT(&b, "There is no site in the configuration, or no configuration (--config).\n");
    else
        (void)buffer_append_f(&b, "%zu %s, %zu broken\n", n, n == 1 ? "site" : "sites", broken);
    return output_put(&b, status);
}

static int run(const struct command_line *l)
{
    struct ports_view v;
    struct doctor_site *list;
    struct slice only = slice_from(l->args_count > 0 ? l->args[0] : NULL);
    signal(SIGPIPE, SIG_IGN); /* who closes at once is a broken link, and not our end */
    int status = ports_view_open(l, &v);
    if (status != EXIT_OK) {
        ports_view_close(&v);
        return status;
    }
    size_t count = doctor_sites(v.config.document, only, &v.arena, &list);
    if (count == 0 && only.len > 0) {
        ports_view_close(&v);
        return cli_fail("%s: the configuration has no such site", l->args[0]);
    }
    json_t *sites = json_array(), *machine = doctor_machine();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(sites, doctor_site(&list[i], &v));
    status = print(l, &v, sites, machine);
    json_decref(sites);
    json_decref(machine);
    ports_view_close(&v);
    return status;
}

const struct command command_doctor = {
    .name = "doctor",
    .usage = "[<site>] [--config <path> [--adapter <name>]] [--json]",
    .help = "Looks at each site from its name to its upstreams, and says what is broken",
    .about = "Walks the chain of each site, or of the one that is named: whether its name points to this\n"
             "machine, who can reach the port, who listens there, the certificate and its dates, the\n"
             "route, the upstreams; then the machine: limits, features of the kernel, the clock. At a\n"
             "broken link it says what to do. The exit status is 1 when something is broken.\n\n"
             "  $ %s doctor\n"
             "  $ %s doctor example.com\n"
             "  $ %s doctor --config Caddyfile --json",
    .flags = flags,
    .max_args = 1,
    .run = run,
};
