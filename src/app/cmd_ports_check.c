/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico ports check: what is wrong with the ports of this machine, for people, for programs and for
 * tools of code review. Its exit status is what cron, CI and Ansible ask for.
 */
#include <stdio.h>

#include "app/cmd_ports.h"
#include "app/ports_filter.h"
#include "app/ports_view.h"

static const struct flag flags[] = {
    PORTS_FLAGS,
    {"severity", 's', true, "info|warning|error", "tell findings of this severity and above",
     "warning"},
    {"format", 'f', true, "text|json|sarif", "how to tell them", "text"},
    {0},
};

static void drop_below(struct port_table *t, enum severity least)
{
    size_t kept = 0;
    for (size_t i = 0; i < t->count; i++) {
        struct port_entry *e = &t->entries[i];
        struct port_finding **at = &e->findings;
        while (*at != NULL) {
            if ((*at)->severity < least)
                *at = (*at)->next;
            else
                at = &(*at)->next;
        }
        if (e->findings != NULL)
            t->entries[kept++] = *e;
    }
    t->count = kept;
}

static int print(struct ports_view *v, const char *format, enum severity least)
{
    struct buffer b;
    size_t count = findings_count(&v->table, least);
    int status = count > 0 || v->conflict ? EXIT_STARTUP : EXIT_OK;
    if (strcmp(format, "json") == 0) {
        drop_below(&v->table, least);
        return output_json(port_json(&v->table), status);
    }
    buffer_init(&b, SIZE_MAX);
    if (strcmp(format, "sarif") == 0)
        (void)port_sarif_write(&v->table, least, &b);
    else if (findings_text_write(&v->table, least, output_colours(), &b) == 0)
        (void)buffer_append_f(&b, "No findings of severity %s or above in %zu rows.\n",
                              severity_name(least), v->table.count);
    return output_put(&b, status);
}

static int run(const struct command_line *l)
{
    struct ports_view v;
    struct ports_filter filter = {l->args, l->args_count};
    enum severity least;
    const char *format = flag_value(l, "format");
    if (!severity_parse(slice_from(flag_value(l, "severity")), &least))
        return cli_fail("--severity %s: info, warning or error is wanted", flag_value(l, "severity"));
    if (strcmp(format, "text") != 0 && strcmp(format, "json") != 0 && strcmp(format, "sarif") != 0)
        return cli_fail("--format %s: text, json or sarif is wanted", format);
    int status = ports_view_open(l, &v);
    if (status == EXIT_OK) {
        filter_apply(&filter, &v.table);
        ports_view_tell_unseen(&v);
        status = print(&v, format, least);
    }
    ports_view_close(&v);
    return status;
}

const struct command command_ports_check = {
    .name = "ports check",
    .usage = "[<filter>...] [--severity <severity>] [--format text|json|sarif] [--config <path>]",
    .help = "Tells what is wrong with this machine's ports; exits 1 when something is",
    .about = "Looks at every port of this machine and says what is wrong: something that is meant for\n"
             "this device but open to the world, a declared port on which nobody listens, two programs\n"
             "on one port. Each finding has a name, which the manual explains, a severity, and what\n"
             "to do.\n\n"
             "The exit status is 1 when there are findings of --severity or above, so that cron, CI\n"
             "and Ansible notice.\n\n"
             "  $ %s ports check\n"
             "  $ %s ports check --severity error --config Caddyfile\n"
             "  $ %s ports check --format sarif > ports.sarif",
    .flags = flags,
    .max_args = ARGS_MAX,
    .run = run,
};
