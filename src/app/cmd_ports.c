/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico ports: the ledger of this machine's ports, and what can be asked of it.
 */
#include "app/cmd_ports.h"

#include <stdio.h>

#include "app/commands.h"
#include "app/ports_filter.h"
#include "app/ports_view.h"
#include "keeper/powers.h"

static const struct flag flags[] = {
    PORTS_FLAGS,
    {"json", 'j', false, NULL, "as JSON, a contract for programs", NULL},
    {"csv", 0, false, NULL, "as CSV, for spreadsheets", NULL},
    {"whole", 0, false, NULL, "what is seen, for the server to judge", NULL, FLAG_ONE, true},
    {0},
};

static const struct command *const subs[] = {
    &command_ports_apply, &command_ports_check,    &command_ports_confirm, &command_ports_explain,
    &command_ports_free,  &command_ports_iana,     &command_ports_log,     &command_ports_rollback,
    &command_ports_unapply, &command_ports_watch,  NULL,
};

static void put_count(struct buffer *b, size_t n, const char *word, bool first)
{
    if (n > 0)
        (void)buffer_append_f(b, "%s%zu %s%s", first ? "" : ", ", n, word, n == 1 ? "" : "s");
}

/* "14 rows; 1 error, 2 warnings (portico ports check tells them)" */
static void put_summary(const struct ports_view *v, struct buffer *b)
{
    size_t errors = findings_count(&v->table, SEVERITY_ERROR);
    size_t warnings = findings_count(&v->table, SEVERITY_WARNING) - errors;
    size_t infos = findings_count(&v->table, SEVERITY_INFO) - errors - warnings;
    (void)buffer_append_f(b, "\n%zu %s", v->table.count, v->table.count == 1 ? "row" : "rows");
    if (errors + warnings + infos > 0)
        (void)BUFFER_PUT(b, "; ");
    put_count(b, errors, "error", true);
    put_count(b, warnings, "warning", errors == 0);
    put_count(b, infos, "note", errors + warnings == 0);
    if (errors + warnings + infos > 0)
        (void)buffer_append_f(b, " (%s ports check%s tells %s)", cli_program(),
                              infos > 0 ? " --severity info" : "",
                              errors + warnings + infos == 1 ? "it" : "them");
    (void)BUFFER_PUT(b, "\n");
}

static int print_text(const struct ports_view *v)
{
    struct buffer b;
    buffer_init(&b, SIZE_MAX);
    port_text_write(&v->table, output_columns(), output_colours(), &b);
    put_summary(v, &b);
    return output_put(&b, EXIT_OK);
}

static int print_json(const struct ports_view *v)
{
    struct buffer b;
    buffer_init(&b, SIZE_MAX);
    port_json_write(&v->table, &b, output_piece);
    return output_put(&b, EXIT_OK);
}

static int print_csv(const struct ports_view *v)
{
    struct buffer b;
    buffer_init(&b, SIZE_MAX);
    port_csv_write(&v->table, &b);
    return output_put(&b, EXIT_OK);
}

/* For the server, whose keeper started this: only what is there. */
static int print_whole(void)
{
    struct arena arena;
    struct port_table table;
    const struct socket_options options = {0};
    char error[1024];
    powers_of_reader();
    arena_init(&arena, 1 << 20);
    int status = ledger_look(&options, &arena, &table, error, sizeof error) == OK
                     ? output_json(port_json_whole(&table), EXIT_OK)
                     : cli_fail("%s", error);
    arena_deinit(&arena);
    return status;
}

static int run(const struct command_line *l)
{
    struct ports_view v;
    struct ports_filter filter = {l->args, l->args_count};
    if (flag_on(l, "whole"))
        return print_whole();
    if (flag_on(l, "json") && flag_on(l, "csv"))
        return cli_fail("--json and --csv exclude each other");
    int status = ports_view_open(l, &v);
    if (status == EXIT_OK) {
        filter_apply(&filter, &v.table);
        status = flag_on(l, "json")  ? print_json(&v)
                 : flag_on(l, "csv") ? print_csv(&v)
                                     : print_text(&v);
        ports_view_tell_unseen(&v);
    }
    ports_view_close(&v);
    return status;
}

const struct command command_ports = {
    .name = "ports",
    .usage = "[command] | [<filter>...] [--json|--csv] [--config <path> [--adapter <name>]]",
    .help = "Tells which ports of this machine are open, whose they are and who can reach them",
    .about = "Prints a table of every listening or bound port of this machine: its number and protocol,\n"
             "the address, who can reach it, whose it is, what the number is for, and where the\n"
             "configuration names it. Words choose rows: ports and ranges (443, 8000-8010, 53/udp),\n"
             "protocols (tcp), reaches (world, network, device), names of programs, units, services.\n\n"
             "  $ %s ports\n"
             "  $ %s ports world\n"
             "  $ %s ports 3000-3999 tcp --json\n"
             "  $ %s ports nginx --config Caddyfile\n\n"
             "It works without root and without a running server, and tells what it could not see. The\n"
             "configuration is the one of --config, or a running server's, or ./Caddyfile, or\n"
             "/etc/portico/Caddyfile. Colours are for terminals; NO_COLOR=1 switches them off.",
    .flags = flags,
    .max_args = ARGS_MAX,
    .run = run,
    .subs = subs,
};
