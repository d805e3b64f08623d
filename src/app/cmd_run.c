/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico run: the server in the foreground, until a signal or `portico stop`.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "app/commands.h"
#include "app/config_file.h"
#include "app/control.h"
#include "base/log.h"

static const struct flag flags[] = {
    {"config", 'c', true, "FILE", "configuration file, - for standard input", NULL},
    {"adapter", 'a', true, "NAME", "config adapter to apply", NULL},
    {"environ", 'e', false, NULL, "print the environment", NULL},
    {"pidfile", 0, true, "FILE", "write the process id to this file", NULL},
    {0},
};

static const struct command_line *line; /* of this process, for the reload */

static enum err load(json_t **document, char *error, size_t cap)
{
    struct loaded_config c;
    const char *path = flag_value(line, "config");
    if (path == NULL && cli_called_caddy(line) && access("Caddyfile", F_OK) != 0 &&
        access("/etc/caddy/Caddyfile", F_OK) == 0)
        path = "/etc/caddy/Caddyfile";
    TRY(config_load(path, flag_value(line, "adapter"), &c, error, cap));
    if (c.document == NULL)
        LOG(LOG_INFO, "", "no configuration file: only the admin API is served");
    else
        LOG(LOG_INFO, "", "using config from file", LOG_CSTR("file", c.path));
    *document = c.document != NULL ? json_incref(c.document) : json_object();
    config_unload(&c);
    return OK;
}

static int serve(const struct command_line *l)
{
    char error[2048];
    struct control_start start = {.reload = load};
    line = l;
    if (load(&start.document, error, sizeof error) != OK) {
        /* The keeper must not start it again: an exit before READY is final for it. */
        return cli_fail("%s", error);
    }
    return control_run(&start);
}

static int run(const struct command_line *l)
{
    extern char **environ;
    const char *pidfile = flag_value(l, "pidfile");
    if (flag_on(l, "environ")) {
        for (char **e = environ; *e != NULL; e++)
            puts(*e);
        fflush(stdout);
    }
    if (pidfile != NULL) {
        FILE *f = fopen(pidfile, "we");
        if (f == NULL || fprintf(f, "%d", (int)getpid()) < 0 || fclose(f) != 0)
            return cli_fail("writing the pid file %s", pidfile);
    }
    int status = cli_keep(l);
    if (pidfile != NULL)
        unlink(pidfile);
    return status;
}

const struct command command_run = {
    .name = "run",
    .usage = "[--config FILE [--adapter NAME]] [--environ] [--pidfile FILE]",
    .help = "Starts the server and blocks",
    .flags = flags,
    .run = run,
    .serve = serve,
};
