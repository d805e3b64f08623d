/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico service: what runs behind the server, and what shall be done with it. All of it goes over
 * the admin API, but for exec, which becomes the command itself beside the program (services/enter.h).
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "app/admin_client.h"
#include "app/commands.h"
#include "app/config_file.h"
#include "config/jsonx.h"
#include "ports/ledger.h"
#include "services/enter.h"
#include "services/service.h"

enum { ANSWER_MAX = 64 << 20 };

static const struct flag flags[] = {
    {"follow", 'f', false, NULL, "logs: go on with lines as they come", NULL},
    {"lines", 'n', true, NULL, "logs: how many of the last lines", "100"},
    {"replica", 'r', true, NULL, "exec: beside which replica", NULL},
    {"json", 0, false, NULL, "list: as JSON", NULL},
    {"address", 0, true, NULL, "address of the admin API (if --config is not used)", NULL},
    {"config", 'c', true, NULL, "configuration file (if --address is not used)", NULL},
    {"adapter", 'a', true, NULL, "name of the config adapter to apply (with --config)", NULL},
    {0},
};

/* --- asking the server --- */

static enum err call(const struct command_line *l, const char *method, const char *path,
                     struct buffer *answer, char *error, size_t cap)
{
    struct loaded_config c = {0};
    const char *config = flag_value(l, "config"), *address = flag_value(l, "address");
    if (config != NULL && address == NULL)
        TRY(config_load(config, flag_value(l, "adapter"), &c, error, cap));
    struct admin_call request = {.address = admin_address(address, c.document), .method = method,
                                 .path = path, .fields = SLICE(""), .answer = answer};
    enum err e = admin_request(&request, error, cap);
    size_t len = strlen(error);
    if (e == ERR_IO)
        snprintf(error + len, cap - len, " (services are a running portico's, by its admin API: does "
                 "it run?)");
    config_unload(&c);
    return e;
}

static enum err ask(const struct command_line *l, const char *path, json_t **out, char *error,
                    size_t cap)
{
    struct buffer answer;
    struct diag d;
    buffer_init(&answer, ANSWER_MAX);
    enum err e = call(l, "GET", path, &answer, error, cap);
    *out = e == OK ? jsonx_load(SLICE("admin API"), buffer_slice(&answer), &d) : NULL;
    buffer_deinit(&answer);
    if (e == OK && *out == NULL) {
        snprintf(error, cap, "the answer is no JSON: %.500s", d.text);
        e = ERR_INVALID;
    }
    return e;
}

/* --- list --- */

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text != NULL ? text : "";
}

static void print_replica(const char *name, const json_t *r)
{
    json_int_t port = json_integer_value(json_object_get(r, "port"));
    json_int_t pid = json_integer_value(json_object_get(r, "pid"));
    char port_text[24] = "-", pid_text[24] = "-";
    const char *note = text_of(r, "reason")[0] != '\0' ? text_of(r, "reason") : text_of(r, "note");
    if (port > 0)
        snprintf(port_text, sizeof port_text, "%lld", (long long)port);
    if (pid > 0)
        snprintf(pid_text, sizeof pid_text, "%lld", (long long)pid);
    printf("%-20s %7lld  %-10s %6s %8s  %-*s%s%s\n", name,
           (long long)json_integer_value(json_object_get(r, "replica")), text_of(r, "state"),
           port_text, pid_text, note[0] != '\0' ? 20 : 0, text_of(r, "since"),
           note[0] != '\0' ? " " : "", note);
}

static void print_service(const json_t *s)
{
    size_t i;
    json_t *r;
    const char *name = text_of(s, "name");
    json_array_foreach(json_object_get(s, "replicas"), i, r)
        print_replica(name, r);
    if (json_is_true(json_object_get(s, "rolled_back")))
        printf("%-20s the new version did not become ready, the last good one goes on: %s\n", "",
               text_of(s, "last_trouble"));
}

static int run_list(const struct command_line *l)
{
    char error[2048], path[128];
    json_t *v, *s;
    size_t i;
    const char *name = l->args_count > 1 ? l->args[1] : "";
    snprintf(path, sizeof path, "/services/%s", name);
    if (ask(l, path, &v, error, sizeof error) != OK)
        return cli_fail("%s", error);
    if (flag_on(l, "json")) {
        char *text = json_dumps(v, JSON_INDENT(2));
        printf("%s\n", text);
        free(text);
    } else {
        printf("%-20s %7s  %-10s %6s %8s  SINCE\n", "SERVICE", "REPLICA", "STATE", "PORT", "PID");
        json_array_foreach(v, i, s)
            print_service(s);
        if (json_is_object(v))
            print_service(v);
    }
    json_decref(v);
    return EXIT_OK;
}

/* --- start, stop, restart --- */

static int run_command(const struct command_line *l)
{
    char error[2048], path[160];
    struct buffer answer;
    buffer_init(&answer, ANSWER_MAX);
    snprintf(path, sizeof path, "/services/%s/%s", l->args[1], l->args[0]);
    enum err e = call(l, "POST", path, &answer, error, sizeof error);
    buffer_deinit(&answer);
    return e == OK ? EXIT_OK : cli_fail("%s", error);
}

/* --- logs --- */

/* The length of a sequence that only colours; 0: it is none. */
static size_t colour_of(struct slice s)
{
    size_t n = 2;
    if (!slice_starts(s, SLICE("\033[")))
        return 0;
    while (n < s.len && ((s.ptr[n] >= '0' && s.ptr[n] <= '9') || s.ptr[n] == ';'))
        n++;
    return n < s.len && s.ptr[n] == 'm' ? n + 1 : 0;
}

/* What a program wrote commands no terminal: it may have it from a client. Colours and tabs stay. */
static void print_cleaned(struct slice text, struct arena *arena)
{
    bool coloured = false;
    while (text.len > 0) {
        size_t colour = colour_of(text), n = colour > 0 ? colour : 1;
        bool plain = colour == 0 && text.ptr[0] != '\t';
        while (plain && n < text.len && text.ptr[n] != '\033' && text.ptr[n] != '\t')
            n++;
        struct slice piece = slice_take(text, n);
        if (plain)
            piece = clean_text(piece, arena);
        fwrite(piece.ptr, 1, piece.len, stdout);
        coloured |= colour > 0;
        text = slice_skip(text, n);
    }
    if (coloured)
        fputs("\033[0m", stdout);
}

static void print_text(const json_t *text)
{
    struct arena arena;
    struct slice all = slice_of(json_string_value(text), json_string_length(text));
    arena_init(&arena, 4096);
    if (isatty(STDOUT_FILENO))
        print_cleaned(all, &arena);
    else if (all.len > 0)
        fwrite(all.ptr, 1, all.len, stdout);
    putchar('\n');
    arena_deinit(&arena);
}

static void print_line(const json_t *line)
{
    char when[32];
    struct tm tm;
    time_t s = (time_t)json_number_value(json_object_get(line, "time"));
    localtime_r(&s, &tm);
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
    printf("%s [%lld] ", when, (long long)json_integer_value(json_object_get(line, "replica")));
    print_text(json_object_get(line, "text"));
}

/* The number of the last one. */
static json_int_t print_lines(struct slice rest, json_int_t last)
{
    struct slice text;
    while (rest.len > 0) {
        slice_cut(rest, '\n', &text, &rest);
        json_t *line = json_loadb(text.ptr, text.len, 0, NULL);
        if (json_is_object(line)) {
            print_line(line);
            last = json_integer_value(json_object_get(line, "seq"));
        }
        json_decref(line);
    }
    fflush(stdout);
    return last;
}

static int run_logs(const struct command_line *l)
{
    char error[2048], path[256];
    int64_t lines;
    json_int_t last = 0;
    if (!flag_number(l, "lines", 1, 1000, &lines))
        return EXIT_STARTUP;
    snprintf(path, sizeof path, "/services/%s/logs?lines=%lld", l->args[1], (long long)lines);
    for (;;) {
        struct buffer answer;
        buffer_init(&answer, ANSWER_MAX);
        enum err e = call(l, "GET", path, &answer, error, sizeof error);
        if (e == OK)
            last = print_lines(buffer_slice(&answer), last);
        buffer_deinit(&answer);
        if (e != OK)
            return cli_fail("%s", error);
        if (!flag_on(l, "follow") || ferror(stdout))
            return EXIT_OK;
        snprintf(path, sizeof path, "/services/%s/logs?lines=1000&since=%lld&wait=20s", l->args[1],
                 (long long)last);
    }
}

/* --- exec --- */

static const json_t *find_running(const json_t *service, int64_t wanted)
{
    size_t i;
    json_t *r;
    json_array_foreach(json_object_get(service, "replicas"), i, r)
    {
        int64_t number = json_integer_value(json_object_get(r, "replica"));
        if (json_integer_value(json_object_get(r, "pid")) > 0 && (wanted == 0 || number == wanted))
            return r;
    }
    return NULL;
}

static int run_exec(const struct command_line *l)
{
    char error[2048], path[128], *argv[ARGS_MAX + 1] = {NULL};
    int64_t wanted = 0;
    json_t *service;
    if (l->args_count < 3)
        return cli_fail("what shall be run? portico service exec NAME -- COMMAND");
    if (flag_given(l, "replica") && !flag_number(l, "replica", 1, REPLICAS_MAX, &wanted))
        return EXIT_STARTUP;
    snprintf(path, sizeof path, "/services/%s", l->args[1]);
    if (ask(l, path, &service, error, sizeof error) != OK)
        return cli_fail("%s", error);
    const json_t *r = find_running(service, wanted);
    if (r == NULL) {
        json_decref(service);
        return cli_fail("no replica of %s runs: start it first", l->args[1]);
    }
    for (size_t i = 2; i < l->args_count; i++)
        argv[i - 2] = (char *)(uintptr_t)l->args[i];
    (void)!service_enter((pid_t)json_integer_value(json_object_get(r, "pid")),
                         (uint16_t)json_integer_value(json_object_get(r, "port")),
                         json_is_true(json_object_get(r, "confined")), argv, error, sizeof error);
    json_decref(service);
    return cli_fail("%s", error);
}

static int run(const struct command_line *l)
{
    static const char *const words[] = {"start", "stop", "restart", "logs", "exec", NULL};
    const char *word = l->args_count > 0 ? l->args[0] : "list";
    size_t i = 0;
    if (strcmp(word, "list") == 0)
        return l->args_count > 1 && !service_name_ok(slice_from(l->args[1]))
                   ? cli_fail("%s cannot name a service", l->args[1]) : run_list(l);
    while (words[i] != NULL && strcmp(words[i], word) != 0)
        i++;
    if (words[i] == NULL)
        return cli_fail("%s: write list, start, stop, restart, logs or exec", word);
    if (l->args_count < 2 || !service_name_ok(slice_from(l->args[1])))
        return cli_fail("which service? portico service %s NAME", word);
    if (l->args_count > 2 && strcmp(word, "exec") != 0)
        return cli_fail("one service at a time: portico service %s NAME", word);
    return strcmp(word, "logs") == 0 ? run_logs(l) : strcmp(word, "exec") == 0 ? run_exec(l)
                                                                             : run_command(l);
}

const struct command command_service = {
    .name = "service",
    .usage = "list | start|stop|restart <name> | logs [--follow] [--lines <n>] <name> | "
             "exec <name> -- <command>",
    .help = "Tells about the programs behind the server, and starts and stops them",
    .about = "Speaks to a running server about the services of its configuration.\n\n"
             "  list [NAME]       replicas, their states, ports and processes\n"
             "  start NAME        also after stop, or when the server gave up; returns when it is ready\n"
             "  stop NAME         until start, or the server's own restart\n"
             "  restart NAME      a new process for each replica, ready before the last one goes\n"
             "  logs NAME         its last lines; --follow goes on\n"
             "  exec NAME -- CMD  a command with the service's user, variables, folder and confinement\n\n"
             "Exits with 1 when it could not be done, with the reason on stderr.",
    .flags = flags,
    .max_args = ARGS_MAX,
    .run = run,
};
