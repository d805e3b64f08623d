/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico ports log: what came, went and changed hands, from look to look. Every command that reads
 * the ledger is a look; this one is, too.
 */
#include <stdio.h>
#include <time.h>

#include "app/cmd_ports.h"
#include "app/ports_log.h"
#include "app/ports_view.h"

static const struct flag flags[] = {
    PORTS_FLAGS,
    {"json", 'j', false, NULL, "as JSON", NULL},
    {"count", 'n', true, "N", "the last ones only", "100"},
    {0},
};

static struct slice text_of(const json_t *o, const char *key, struct arena *arena)
{
    const json_t *v = json_object_get(o, key);
    return clean_text(slice_of(json_string_value(v), json_string_length(v)), arena);
}

void ports_log_put(const json_t *change, bool colour, struct arena *arena, struct buffer *b)
{
    char when[32];
    struct tm tm = {0}; /* of a year that there cannot be, none is told */
    time_t time = (time_t)json_integer_value(json_object_get(change, "time"));
    struct slice what = text_of(change, "change", arena), owner = text_of(change, "owner", arena);
    struct slice was = text_of(change, "was", arena), protocol = text_of(change, "protocol", arena);
    struct slice address = text_of(change, "address", arena);
    const char *shade = slice_is(what, "opened") ? "\033[32m" : slice_is(what, "closed") ? "\033[31m"
                                                                                        : "\033[33m";
    localtime_r(&time, &tm);
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
    (void)buffer_append_f(b, "%s  %s%-6.*s%s  %5lld/%-4.*s  %-16.*s  " SLICE_FMT, when,
                          colour ? shade : "", SLICE_ARG(what), colour ? "\033[0m" : "",
                          (long long)json_integer_value(json_object_get(change, "port")),
                          SLICE_ARG(protocol), SLICE_ARG(address), SLICE_ARG(owner));
    if (was.len > 0)
        (void)buffer_append_f(b, " (before: " SLICE_FMT ")", SLICE_ARG(was));
    (void)BUFFER_PUT(b, "\n");
}

static int print(const struct command_line *l, struct ports_view *v, int64_t count)
{
    const json_t *log = history_log(&v->history);
    size_t n = json_array_size(log), from = n > (size_t)count ? n - (size_t)count : 0;
    if (flag_on(l, "json")) {
        json_t *list = json_array();
        for (size_t i = from; i < n; i++)
            json_array_append(list, json_array_get(log, i));
        return output_json(list, EXIT_OK);
    }
    struct buffer b;
    buffer_init(&b, SIZE_MAX);
    for (size_t i = from; i < n; i++)
        ports_log_put(json_array_get(log, i), output_colours(), &v->arena, &b);
    if (n == 0)
        (void)BUFFER_PUT(&b, "Nothing has changed since the first look.\n");
    return output_put(&b, EXIT_OK);
}

static int run(const struct command_line *l)
{
    struct ports_view v;
    int64_t count;
    if (!flag_number(l, "count", 1, HISTORY_CHANGES_MAX, &count))
        return EXIT_STARTUP;
    int status = ports_view_open(l, &v);
    if (status == EXIT_OK)
        status = print(l, &v, count);
    ports_view_close(&v);
    return status;
}

const struct command command_ports_log = {
    .name = "ports log",
    .usage = "[--count <n>] [--json]",
    .help = "Tells which ports were opened, closed or changed hands, from look to look",
    .about = "Every command that reads the ledger of ports remembers what it saw, in ports.json of the\n"
             "data folder, and what was different from the look before. This prints these changes, the\n"
             "newest last; it is a look itself.",
    .flags = flags,
    .run = run,
};
