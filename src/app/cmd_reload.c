/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico reload: gives a running server another configuration, through its admin API. It is adapted
 * here, so that relative paths mean what they mean to the person.
 */
#include <stdio.h>
#include <stdlib.h>

#include "app/admin_client.h"
#include "app/commands.h"
#include "app/config_file.h"
#include "base/buffer.h"
#include "config/jsonx.h"
#include "ports/declared.h"

static const struct flag flags[] = {
    {"config", 'c', true, NULL, "configuration file (./Caddyfile where there is one)", NULL},
    {"adapter", 'a', true, NULL, "name of the config adapter to apply", NULL},
    {"address", 0, true, NULL, "address of the admin API, when it differs from the config's", NULL},
    {"force", 'f', false, NULL, "load it even when it is the one that runs", NULL},
    {0},
};

/* Line breaks in a file's name would make header lines of their own. */
static bool fits_field(const char *text)
{
    return strpbrk(text, "\r\n") == NULL;
}

static enum err send_config(const struct command_line *l, const struct loaded_config *c, char *error,
                            size_t cap)
{
    struct buffer body, fields;
    buffer_init(&body, JSONX_MAX_SIZE);
    buffer_init(&fields, 32768);
    enum err e = jsonx_dump(&body, c->document);
    if (e == OK && flag_on(l, "force"))
        e = BUFFER_PUT(&fields, "Cache-Control: must-revalidate\r\n");
    char *whole = realpath(c->path, NULL); /* the server may stand in another folder */
    const char *path = whole != NULL ? whole : c->path;
    if (e == OK && fits_field(path))
        e = buffer_append_f(&fields, "Caddy-Config-Source-File: %s\r\n", path);
    free(whole);
    if (e == OK && c->adapter[0] != '\0')
        e = buffer_append_f(&fields, "Caddy-Config-Source-Adapter: %s\r\n", c->adapter);
    struct admin_call call = {.address = admin_address(flag_value(l, "address"), c->document),
                              .method = "POST", .path = "/load", .fields = buffer_slice(&fields),
                              .body = buffer_slice(&body)};
    if (e != OK)
        snprintf(error, cap, "%.1000s: %s", c->path, err_text(e));
    else
        e = admin_request(&call, error, cap);
    buffer_deinit(&body);
    buffer_deinit(&fields);
    return e;
}

/* What the server would refuse as well; here the lines are known. */
static enum err check_ports(const struct loaded_config *c, char *error, size_t cap)
{
    struct arena arena;
    const struct port_declaration *list;
    size_t count;
    arena_init(&arena, 8192);
    enum err e = ports_declared(c->document, &c->origins, &arena, &list, &count, error, cap);
    arena_deinit(&arena);
    return e;
}

static int run(const struct command_line *l)
{
    char error[2048];
    struct loaded_config c;
    if (config_load(flag_value(l, "config"), flag_value(l, "adapter"), &c, error, sizeof error) != OK)
        return cli_fail("%s", error);
    if (c.document == NULL)
        return cli_fail("no config file to load");
    config_warn(c.adapter, c.warnings);
    if (check_ports(&c, error, sizeof error) != OK) {
        config_unload(&c);
        return cli_fail("%s", error);
    }
    enum err e = send_config(l, &c, error, sizeof error);
    config_unload(&c);
    return e == OK ? EXIT_OK : cli_fail("sending configuration to instance: %s", error);
}

const struct command command_reload = {
    .name = "reload",
    .usage = "--config <path> [--adapter <name>] [--address <interface>] [--force]",
    .help = "Changes the configuration of a running server",
    .about = "Reads a configuration file and gives it to the running server, as a POST to its admin\n"
             "API's /load would. No request is lost; a configuration that is refused leaves the running\n"
             "one as it was, and the reason is printed.\n\n"
             "The admin address is the one of --address, or the configuration's own, or the\n"
             "environment variable CADDY_ADMIN's, or localhost:2019.",
    .flags = flags,
    .run = run,
};
