/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico file-server: the files of a folder, without a configuration file.
 */
#include <stdio.h>

#include "app/commands.h"
#include "app/control.h"
#include "app/listening.h"
#include "app/quick.h"
#include "base/log.h"

static const struct flag flags[] = {
    {"domain", 'd', true, NULL, "domain name at which to serve the files", NULL},
    {"root", 'r', true, NULL, "folder of the files; else the one it is started in", NULL},
    {"listen", 'l', true, NULL, "address to listen on (:80 where none is given)", NULL},
    {"browse", 'b', false, NULL, "list the files of folders that have no index file", NULL},
    {"reveal-symlinks", 0, false, NULL, "show where links lead, in listings", NULL},
    {"templates", 't', false, NULL, "templates in files (not supported yet)", NULL},
    {"access-log", 'a', false, NULL, "log each request", NULL},
    {"debug", 'v', false, NULL, "log more", NULL},
    {"file-limit", 'f', true, "int", "files of a folder to list at most", "10000"},
    {"no-compress", 0, false, NULL, "do not compress answers (by default zstd and gzip)", NULL},
    {"precompressed", 'p', true, "strings",
     "endings of compressed files beside the files, in the order of preference: br, zstd, gzip",
     NULL, FLAG_COMMAS},
    {0},
};

static bool set_precompressed(const struct command_line *l, json_t *handler)
{
    struct slice names[FLAG_VALUES_MAX];
    size_t n = flag_values(l, "precompressed", names);
    json_t *codings = json_object(), *order = json_array();
    for (size_t i = 0; i < n; i++) {
        if (!slice_is(names[i], "br") && !slice_is(names[i], "zstd") && !slice_is(names[i], "gzip")) {
            cli_fail("getting module named 'http.precompressed." SLICE_FMT "': module not registered",
                     SLICE_ARG(names[i]));
            json_decref(codings);
            json_decref(order);
            return false;
        }
        json_object_setn_new(codings, names[i].ptr, names[i].len, json_object());
        json_array_append_new(order, quick_text(names[i]));
    }
    if (n > 0) {
        json_object_set(handler, "precompressed", codings);
        json_object_set(handler, "precompressed_order", order);
    }
    json_decref(codings);
    json_decref(order);
    return true;
}

static json_t *make_handlers(const struct command_line *l)
{
    const char *root = flag_value(l, "root");
    int64_t limit;
    json_t *handlers = json_array(), *files = json_pack("{s:s}", "handler", "file_server");
    if (!flag_on(l, "no-compress"))
        json_array_append_new(handlers, json_pack("{s:s,s:{s:{},s:{}},s:[s,s]}", "handler", "encode",
                                                  "encodings", "zstd", "gzip", "prefer", "zstd",
                                                  "gzip"));
    json_array_append_new(handlers, files);
    json_object_set_new(files, "root", quick_text(slice_from(root != NULL ? root : ".")));
    bool good = set_precompressed(l, files) && flag_number(l, "file-limit", 1, INT32_MAX, &limit);
    if (good && flag_on(l, "browse")) {
        json_t *browse = json_pack("{s:I}", "file_limit", (json_int_t)limit);
        if (flag_on(l, "reveal-symlinks"))
            json_object_set_new(browse, "reveal_symlinks", json_true());
        json_object_set_new(files, "browse", browse);
    }
    if (good)
        return handlers;
    json_decref(handlers);
    return NULL;
}

static int run(const struct command_line *l)
{
    const char *domain = flag_value(l, "domain"), *listen = flag_value(l, "listen");
    bool has_domain = domain != NULL && domain[0] != '\0';
    if (flag_on(l, "templates"))
        return cli_fail("--templates: templates are not supported yet");
    json_t *handlers = make_handlers(l);
    if (handlers == NULL)
        return EXIT_STARTUP;
    if (listen == NULL || listen[0] == '\0')
        listen = has_domain ? ":443" : ":80";
    json_t *server = json_pack("{s:[s],s:s,s:s,s:i,s:[o]}", "listen", listen, "read_header_timeout",
                               "10s", "idle_timeout", "30s", "max_header_bytes", 10240, "routes",
                               quick_route(handlers, slice_from(has_domain ? domain : "")));
    if (flag_on(l, "access-log"))
        json_object_set_new(server, "logs", json_object());
    return quick_keep(l, json_pack("{s:o}", "static", server), NULL, flag_on(l, "debug"));
}

static void tell_address(struct slice network, struct slice host, unsigned port)
{
    LOG(LOG_INFO, "", "serving static files", LOG_STR("network", network), LOG_STR("host", host),
        LOG_NUM("port", port));
}

static void started(void)
{
    listening_each(tell_address);
}

static int serve(const struct command_line *l)
{
    (void)l;
    return quick_serve(started);
}

const struct command command_file_server = {
    .name = "file-server",
    .usage = "[--domain <example.com>] [--root <path>] [--listen <addr>] [--browse] "
             "[--reveal-symlinks] [--access-log] [--precompressed]",
    .help = "Serves the files of a folder",
    .about = "A server for the files of a folder, without a configuration file. With --domain it is for\n"
             "that name only, on port 443, by HTTPS.",
    .flags = flags,
    .run = run,
    .serve = serve,
};
