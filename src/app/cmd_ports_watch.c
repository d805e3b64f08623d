/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico ports watch: the changes as they happen, until it is interrupted: a line for each, or an
 * object of JSON a line.
 */
#include <signal.h>
#include <stdio.h>

#include "app/cmd_ports.h"
#include "app/ports_log.h"
#include "app/ports_view.h"
#include "ports/watch.h"

static const struct flag flags[] = {
    PORTS_FLAGS,
    {"json", 'j', false, NULL, "one object of JSON a line", NULL},
    {"interval", 'i', true, "MS", "milliseconds between two looks, where the kernel tells nothing",
     "500"},
    {0},
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    interrupted = number;
}

static void catch_signals(void)
{
    struct sigaction a = {.sa_handler = on_signal}; /* without SA_RESTART: the wait ends */
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

static int put_changes(const struct command_line *l, struct ports_view *v, size_t from)
{
    const json_t *log = history_log(&v->history);
    struct buffer b;
    buffer_init(&b, SIZE_MAX);
    for (size_t i = from; i < json_array_size(log); i++) {
        const json_t *change = json_array_get(log, i);
        if (!flag_on(l, "json")) {
            ports_log_put(change, output_colours(), &v->arena, &b);
            continue;
        }
        char *text = json_dumps(change, JSON_COMPACT);
        (void)buffer_append_f(&b, "%s\n", text);
        free(text);
    }
    return output_put(&b, EXIT_OK);
}

/* The log only grows at its end, and forgets at its front when it is full. */
static int look(const struct command_line *l, struct ports_view *v)
{
    const json_t *log = history_log(&v->history);
    json_t *last = json_incref(json_array_get(log, json_array_size(log) - 1));
    int status = ports_view_look(l, v);
    size_t from = json_array_size(log);
    while (from > 0 && json_array_get(log, from - 1) != last)
        from--;
    if (status == EXIT_OK)
        status = put_changes(l, v, from);
    json_decref(last);
    return status;
}

static int follow(const struct command_line *l, struct ports_view *v, int64_t interval)
{
    char error[1024];
    struct port_watch *watch;
    struct socket_options options = {.one_namespace = flag_on(l, "this-namespace")};
    if (port_watch_open(&watch, &options, (unsigned)interval, error, sizeof error) != OK)
        return cli_fail("%s", error);
    int status = look(l, v); /* what has changed before the watch began */
    while (status == EXIT_OK && !interrupted) {
        enum err e = port_watch_wait(watch, 1000);
        if (e == OK)
            status = look(l, v);
        else if (e != ERR_TIMEOUT && e != ERR_CANCELLED)
            status = cli_fail("%s", err_text(e));
    }
    port_watch_close(watch);
    return status;
}

static int run(const struct command_line *l)
{
    struct ports_view v;
    int64_t interval;
    if (!flag_number(l, "interval", 10, 60000, &interval))
        return EXIT_STARTUP;
    catch_signals();
    int status = ports_view_open(l, &v);
    if (status == EXIT_OK && !flag_on(l, "json"))
        printf("Watching %zu rows. Ctrl+C ends it.\n", v.table.count);
    fflush(stdout);
    if (status == EXIT_OK)
        status = follow(l, &v, interval);
    ports_view_close(&v);
    return status;
}

const struct command command_ports_watch = {
    .name = "ports watch",
    .usage = "[--json] [--interval <ms>]",
    .help = "Tells which ports are opened and closed, as it happens",
    .about = "Prints a line for each port that is opened, closed or changes hands, until it is\n"
             "interrupted. The changes are part of the log (%s ports log) as well.",
    .flags = flags,
    .run = run,
};
