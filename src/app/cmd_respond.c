/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico respond: fixed answers, for trying things out. The body may have {{.N}}, {{.Port}} and
 * {{.Address}} of Go's templates, which differ between the ports of a range.
 */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/commands.h"
#include "app/config_file.h"
#include "app/control.h"
#include "app/listening.h"
#include "app/quick.h"
#include "base/buffer.h"
#include "base/mem.h"
#include "net/address.h"

enum { PORTS_MAX = 200, BODY_MAX = 64 << 20 };

static const struct flag flags[] = {
    {"listen", 'l', true, NULL, "address to listen on; a range of ports makes several servers",
     ":0"},
    {"status", 's', true, "int", "status code of the response", "200"},
    {"body", 'b', true, NULL, "body of the response", NULL},
    {"header", 'H', true, "stringArray", "header field of the response, as \"Field: value\"", NULL,
     FLAG_REPEAT},
    {"access-log", 0, false, NULL, "log each request", NULL},
    {"debug", 'v', false, NULL, "log more", NULL},
    {0},
};

struct answer {
    int64_t status;
    struct slice body;
    json_t *fields; /* borrowed */
    bool log;
};

/* One {{…}}; `*rest` moves behind it. */
static bool put_action(struct buffer *b, struct slice *rest, size_t number, unsigned port,
                       struct slice address)
{
    size_t end = slice_find_slice(*rest, SLICE("}}"));
    struct slice name = end == SIZE_MAX ? *rest : slice_trim(slice_take(*rest, end));
    enum err e = OK;
    if (end != SIZE_MAX && slice_is(name, ".N"))
        e = buffer_append_f(b, "%zu", number);
    else if (end != SIZE_MAX && slice_is(name, ".Port"))
        e = buffer_append_f(b, "%u", port);
    else if (end != SIZE_MAX && slice_is(name, ".Address"))
        e = buffer_append(b, address);
    else {
        cli_fail("template: body: {{" SLICE_FMT "}} is not known; there are {{.N}}, {{.Port}} and "
                 "{{.Address}}", SLICE_ARG(slice_take(name, 60)));
        return false;
    }
    *rest = slice_skip(*rest, end + 2);
    return e == OK;
}

static bool fill(struct buffer *b, struct slice body, size_t number, unsigned port,
                 struct slice address)
{
    for (size_t at; (at = slice_find_slice(body, SLICE("{{"))) != SIZE_MAX;) {
        if (buffer_append(b, slice_take(body, at)) != OK)
            return false;
        body = slice_skip(body, at + 2);
        if (!put_action(b, &body, number, port, address))
            return false;
    }
    return buffer_append(b, body) == OK;
}

static bool add_server(json_t *servers, const struct answer *a, size_t number, unsigned port,
                       struct slice address)
{
    char name[32], status[8];
    struct buffer body;
    buffer_init(&body, BODY_MAX);
    if (!fill(&body, a->body, number, port, address)) {
        buffer_deinit(&body);
        return false;
    }
    json_t *text = json_stringn(body.len > 0 ? body.ptr : "", body.len);
    buffer_deinit(&body);
    if (text == NULL) {
        cli_fail("the body is not UTF-8");
        return false;
    }
    snprintf(status, sizeof status, "%d", (int)a->status);
    json_t *handler = json_pack("{s:s,s:s}", "handler", "static_response", "status_code", status);
    json_object_set_new(handler, "body", text);
    if (json_object_size(a->fields) > 0)
        json_object_set(handler, "headers", a->fields);
    json_t *server = json_pack("{s:[o],s:s,s:s,s:i,s:[o],s:{s:b}}", "listen", quick_text(address),
                               "read_header_timeout", "10s", "idle_timeout", "30s",
                               "max_header_bytes", 10240, "routes",
                               quick_route(json_pack("[o]", handler), SLICE("")), "automatic_https",
                               "disable_redirects", 1);
    if (a->log)
        json_object_set_new(server, "logs", json_object());
    snprintf(name, sizeof name, "static%zu", number);
    json_object_set_new(servers, name, server);
    return true;
}

static bool add_servers(json_t *servers, const struct answer *a, const char *listen)
{
    struct network_address at;
    struct address_error why;
    struct arena arena;
    char port[8];
    bool good = true;
    arena_init(&arena, 4096);
    if (address_parse(slice_from(listen), SLICE("tcp"), 0, &at, &arena, &why) != OK) {
        cli_fail("%s", why.text);
        good = false;
    } else if (network_is_unix(at.network) || network_is_fd(at.network)) {
        good = add_server(servers, a, 0, 0, slice_from(listen));
    } else if (at.last_port - at.first_port >= PORTS_MAX) {
        cli_fail("more than %d ports: %s", PORTS_MAX, listen);
        good = false;
    }
    for (unsigned p = at.first_port; good && json_object_size(servers) < PORTS_MAX &&
                                     p <= at.last_port && !network_is_unix(at.network) &&
                                     !network_is_fd(at.network); p++) {
        snprintf(port, sizeof port, "%u", p);
        struct slice network = slice_is(at.network, "tcp") ? SLICE("") : at.network;
        good = add_server(servers, a, p - at.first_port, p,
                          address_join(network, at.host, slice_from(port), &arena));
    }
    arena_deinit(&arena);
    return good;
}

/* The argument is a status where it looks like one, else the body; flags come first. */
static bool read_answer(const struct command_line *l, struct answer *a)
{
    const char *body = flag_value(l, "body"), *argument = l->args_count > 0 ? l->args[0] : "";
    bool has_body = body != NULL && body[0] != '\0';
    uint64_t status;
    if (!flag_number(l, "status", 0, 999, &a->status))
        return false;
    a->body = slice_from(has_body ? body : "");
    if (argument[0] == '\0')
        return true;
    if (has_body && flag_given(l, "status")) {
        cli_fail("unflagged argument \"%s\" is overridden by flags", argument);
        return false;
    }
    if (!flag_given(l, "status") && slice_to_u64(slice_from(argument), INT32_MAX, &status)) {
        if (status >= 100 && status <= 999)
            a->status = (int64_t)status;
    } else if (!has_body) {
        a->body = slice_from(argument);
    }
    return true;
}

static int run(const struct command_line *l)
{
    struct answer a = {.fields = json_object(), .log = flag_on(l, "access-log")};
    struct stat st;
    char error[512], *piped = NULL;
    size_t len;
    bool good = read_answer(l, &a) && quick_fields(l, "header", "header", a.fields);
    if (good && a.body.len == 0 && fstat(STDIN_FILENO, &st) == 0 && S_ISFIFO(st.st_mode)) {
        good = file_read_all("-", &piped, &len, error, sizeof error) == OK;
        if (!good)
            cli_fail("%s", error);
        else
            a.body = slice_of(piped, len);
    }
    json_t *servers = json_object();
    good = good && add_servers(servers, &a, flag_value(l, "listen"));
    json_decref(a.fields);
    mem_free(piped);
    if (good)
        return quick_keep(l, servers, NULL, flag_on(l, "debug"));
    json_decref(servers);
    return EXIT_STARTUP;
}

static void print_address(struct slice network, struct slice host, unsigned port)
{
    bool v6 = slice_find(host, ':') != SIZE_MAX;
    if (network_is_unix(network) || network_is_fd(network))
        printf("Server address: " SLICE_FMT "\n", SLICE_ARG(host));
    else if (host.len == 0)
        printf("Server address: %s:%u\n", slice_is(network, "tcp4") ? "0.0.0.0" : "[::]", port);
    else
        printf("Server address: %s" SLICE_FMT "%s:%u\n", v6 ? "[" : "", SLICE_ARG(host),
               v6 ? "]" : "", port);
}

static void started(void)
{
    listening_each(print_address);
    fflush(stdout);
}

static int serve(const struct command_line *l)
{
    (void)l;
    return quick_serve(started);
}

const struct command command_respond = {
    .name = "respond",
    .usage = "[--status <code>] [--body <content>] [--listen <addr>] [--access-log] [--debug] "
             "[--header \"Field: value\"] [<body|status>]",
    .help = "Simple, fixed HTTP responses for development and testing",
    .about = "Answers every request in the same way: by default with status 200 and no body, on a port\n"
             "that the system chooses and that is printed. A range of ports (--listen :2000-2004) makes\n"
             "a server for each.\n\n"
             "An argument of three digits is the status, any other is the body; without either, what is\n"
             "piped to standard input is the body. In a body, {{.N}} is the server's number, {{.Port}}\n"
             "its port and {{.Address}} its address.",
    .flags = flags,
    .max_args = 1,
    .run = run,
    .serve = serve,
};
