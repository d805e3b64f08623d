/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico run: the server in the foreground, until a signal or `portico stop`.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/commands.h"
#include "app/config_file.h"
#include "app/control.h"
#include "app/env_load.h"
#include "app/folders.h"
#include "app/pingback.h"
#include "base/log.h"

static const struct flag flags[] = {
    {"config", 'c', true, NULL, "configuration file, - for standard input", NULL},
    {"adapter", 'a', true, NULL, "name of the config adapter to apply", NULL},
    {"envfile", 0, true, "strings", "environment file to load; may be given several times", NULL,
     FLAG_COMMAS},
    {"environ", 'e', false, NULL, "print the environment", NULL},
    {"resume", 'r', false, NULL, "use the saved config, if any (rather than the --config file)",
     NULL},
    {"watch", 'w', false, NULL, "watch the config file and reload it when it changes", NULL},
    {"pidfile", 0, true, NULL, "file to which to write the process id", NULL},
    {"pingback", 0, true, NULL, "address to which to echo standard input when all runs", NULL,
     FLAG_ONE, true},
    {0},
};

static const struct command_line *line; /* of this process, for the reload */
static struct loaded_config loaded;     /* where the first configuration came from */

/* The first configuration and, with a file named, SIGUSR1's. */
static enum err load(struct loaded_config *c, char *error, size_t cap)
{
    TRY(config_load(flag_value(line, "config"), flag_value(line, "adapter"), c, error, cap));
    if (c->document == NULL)
        c->document = json_null();
    return OK;
}

static void tell_load(const struct loaded_config *c)
{
    if (c->path[0] == '\0')
        LOG(LOG_INFO, "", "no config file was named, and there is no Caddyfile here: only the admin "
            "API is served");
    else if (flag_value(line, "config") == NULL)
        LOG(LOG_INFO, "", "using adjacent Caddyfile");
    else
        LOG(LOG_INFO, "", "using config from file", LOG_CSTR("file", c->path));
    if (c->adapter[0] != '\0')
        LOG(LOG_INFO, "", "adapted config to JSON", LOG_CSTR("adapter", c->adapter));
    config_warn(c->adapter, c->warnings);
}

static enum err reload(json_t **document, char *error, size_t cap)
{
    struct loaded_config c;
    TRY(load(&c, error, cap));
    tell_load(&c);
    *document = json_incref(c.document);
    config_unload(&c);
    return OK;
}

/* Every second, so it says nothing. */
static enum err look(json_t **document, char *error, size_t cap)
{
    struct loaded_config c;
    TRY(load(&c, error, cap));
    *document = json_incref(c.document);
    config_unload(&c);
    return OK;
}

/* True when --resume found something. */
static bool resume(struct control_start *start)
{
    char path[FOLDER_MAX], error[2048];
    struct loaded_config c;
    if (!flag_on(line, "resume"))
        return false;
    folder_autosave(path);
    if (access(path, F_OK) != 0 && errno == ENOENT) {
        LOG(LOG_INFO, "", "no autosave file exists", LOG_CSTR("autosave_file", path));
        return false;
    }
    if (config_load(path, "json", &c, error, sizeof error) != OK) {
        cli_fail("%s", error);
        return true;
    }
    if (flag_given(line, "config"))
        LOG(LOG_WARN, "", "--config and --resume flags were used together; ignoring --config and "
            "resuming from last configuration", LOG_CSTR("autosave_file", path));
    else
        LOG(LOG_INFO, "", "resuming from last configuration", LOG_CSTR("autosave_file", path));
    start->document = json_incref(c.document);
    config_unload(&c);
    return true;
}

static void started(void)
{
    const char *address = flag_value(line, "pingback");
    if (address != NULL)
        pingback_answer(address);
    if (getenv("HOME") == NULL && (getenv("XDG_DATA_HOME") == NULL ||
                                   getenv("XDG_CONFIG_HOME") == NULL))
        LOG(LOG_WARN, "", "$HOME environment variable is empty - please fix; some assets might be "
            "stored in the working folder");
}

static int serve(const struct command_line *l)
{
    char error[2048];
    struct control_start start = {.started = started};
    line = l;
    if (resume(&start)) {
        if (start.document == NULL)
            return EXIT_STARTUP;
        return control_run(&start);
    }
    if (load(&loaded, error, sizeof error) != OK) {
        /* The keeper must not start it again: an exit before READY is final for it. */
        return cli_fail("%s", error);
    }
    tell_load(&loaded);
    start.document = json_incref(loaded.document);
    start.file = loaded.path;
    start.adapter = loaded.adapter;
    start.reload = reload;
    if (flag_on(l, "watch") && loaded.path[0] != '\0' && strcmp(loaded.path, "-") != 0)
        start.watch = look;
    config_unload(&loaded);
    return control_run(&start);
}

static void write_pidfile(const char *path)
{
    FILE *f = fopen(path, "we");
    if (f == NULL || fchmod(fileno(f), 0600) != 0 || fprintf(f, "%d\n", (int)getpid()) < 0)
        LOG(LOG_ERROR, "", "unable to write PID file", LOG_CSTR("pidfile", path),
            LOG_CSTR("error", strerror(errno)));
    if (f != NULL)
        fclose(f);
}

static int run(const struct command_line *l)
{
    const char *pidfile = flag_value(l, "pidfile");
    if (env_load(l) != OK)
        return EXIT_STARTUP;
    if (flag_on(l, "environ"))
        env_print();
    if (pidfile != NULL)
        write_pidfile(pidfile);
    int status = cli_keep(l);
    if (pidfile != NULL)
        unlink(pidfile);
    return status;
}

const struct command command_run = {
    .name = "run",
    .usage = "[--config <path> [--adapter <name>]] [--envfile <path>] [--environ] [--resume] "
             "[--watch] [--pidfile <file>]",
    .help = "Starts the server and blocks until it ends",
    .about = "Runs the server in the foreground, with the configuration file that is named, or with\n"
             "./Caddyfile where there is one, or else with the admin API alone.\n\n"
             "SIGINT and SIGTERM let requests that run finish, then end it; a second one, and SIGQUIT,\n"
             "end it at once. SIGUSR1 reads the file again.\n\n"
             "--resume takes the configuration that ran last, which is saved whenever one is taken\n"
             "over, and ignores the file.\n\n"
             "--watch adapts the file once a second and takes it over when something has changed: for\n"
             "development, not for a server that others use.",
    .flags = flags,
    .run = run,
    .serve = serve,
};
