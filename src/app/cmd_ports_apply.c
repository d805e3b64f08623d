/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico ports apply: puts the declarations of a configuration in force as the table inet portico, at
 * once or on trial. What would shut somebody out who is connected now is refused, unless forced.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "app/cmd_ports.h"
#include "app/config_named.h"
#include "app/env_load.h"
#include "base/clock.h"
#include "base/text.h"
#include "ports/enforce_document.h"

enum { SCRIPT_MAX = 256 << 20 };

static const struct flag flags[] = {
    {"config", 'c', true, NULL, "configuration file", NULL},
    {"adapter", 'a', true, NULL, "name of the config adapter to apply", NULL},
    {"confirm", 0, true, "duration",
     "go back by itself after that time, unless `portico ports confirm` says to keep it", NULL},
    {"force", 'f', false, NULL,
     "also when connections that exist now could not come again, or nothing has changed", NULL},
    {"dry-run", 'n', false, NULL, "print what nft would be given, and change nothing", NULL},
    {"envfile", 0, true, "strings", "environment file to load; may be given several times", NULL,
     FLAG_COMMAS},
    {0},
};

static enum err read_trial(const struct command_line *l, unsigned *seconds)
{
    const char *text = flag_value(l, "confirm");
    int64_t ns = 0;
    *seconds = 0;
    if (text == NULL)
        return OK;
    if (duration_parse(slice_from(text), &ns) != OK || ns < (int64_t)NS_PER_S ||
        ns > ENFORCE_TRIAL_MAX_S * (int64_t)NS_PER_S) {
        cli_fail("--confirm %s: a time between 1s and 24h is wanted, such as 60s", text);
        return ERR_INVALID;
    }
    *seconds = (unsigned)((ns + NS_PER_S - 1) / NS_PER_S);
    return OK;
}

/* False: somebody would be cut off, and it is not forced. */
static bool may_cut(const struct command_line *l, const struct enforce_plan *plan, struct arena *arena)
{
    struct slice *cut;
    size_t count;
    if (enforce_would_cut(plan, arena, &cut, &count) != OK) {
        fprintf(stderr, "%s: who is connected now could not be read, so nobody is protected.\n",
                flag_on(l, "force") ? "Warning" : "Refused");
        return flag_on(l, "force") || flag_on(l, "dry-run");
    }
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, "%s: " SLICE_FMT ".\n", flag_on(l, "force") ? "Warning" : "Refused",
                SLICE_ARG(cut[i]));
    return count == 0 || flag_on(l, "force") || flag_on(l, "dry-run");
}

/* Then the counters go on. A table that somebody has changed by hand has its mark still: --force. */
static bool is_in_force(const struct command_line *l, const struct enforce_plan *plan,
                        const struct enforce_state *now, unsigned trial_s)
{
    char mark[17];
    enforce_mark(plan, mark);
    return !flag_on(l, "dry-run") && !flag_on(l, "force") && trial_s == 0 && now->trial == 0 &&
           now->current != 0 && strcmp(now->current_mark, mark) == 0;
}

static int put_in_force(const struct command_line *l, const struct enforce_plan *plan,
                        const struct enforce_state *now, unsigned trial_s, struct buffer *script)
{
    char error[1024];
    if (enforce_script(plan, now, trial_s, script) != OK)
        return cli_fail("the rules would be larger than %d MiB", SCRIPT_MAX >> 20);
    if (flag_on(l, "dry-run")) {
        fwrite(script->ptr, 1, script->len, stdout);
        return EXIT_OK;
    }
    if (enforce_apply(buffer_slice(script), error, sizeof error) != OK)
        return cli_fail("nothing was changed: %s", error);
    if (trial_s == 0)
        puts("In force. `portico ports unapply` takes it away.");
    else
        printf("On trial for %u s: then what was before is in force again, unless you say\n"
               "`portico ports confirm`. Try now, from another terminal, whether you can still come in.\n",
               trial_s);
    return EXIT_OK;
}

static int apply(const struct command_line *l, const struct loaded_config *c, struct arena *arena)
{
    char error[2048];
    unsigned trial_s;
    struct enforce_wish wish;
    struct enforce_state now = {0};
    struct buffer script;
    if (read_trial(l, &trial_s) != OK)
        return EXIT_STARTUP;
    if (enforce_document(c->document, &c->origins, arena, &wish, error, sizeof error) != OK)
        return cli_fail("%s", error);
    if (!wish.declared)
        return cli_fail("the configuration declares no ports: the global option `ports` does");
    enum err e = enforce_state_read(arena, &now, error, sizeof error);
    if (e != OK && !flag_on(l, "dry-run"))
        return cli_fail("%s", error);
    if (is_in_force(l, &wish.plan, &now, trial_s)) {
        puts("In force already. `portico ports unapply` takes it away.");
        return EXIT_OK;
    }
    if (!may_cut(l, &wish.plan, arena))
        return cli_fail("nothing was changed. Declare those networks (22 tcp ssh from …), or use --force");
    buffer_init(&script, SCRIPT_MAX);
    int status = put_in_force(l, &wish.plan, &now, trial_s, &script);
    buffer_deinit(&script);
    return status;
}

static int run(const struct command_line *l)
{
    struct loaded_config c = {0};
    struct arena arena;
    if (env_load(l) != OK)
        return EXIT_STARTUP;
    int status = config_load_named(l, &c);
    if (status != EXIT_OK)
        return status;
    arena_init(&arena, 1 << 16);
    status = apply(l, &c, &arena);
    arena_deinit(&arena);
    config_unload(&c);
    return status;
}

const struct command command_ports_apply = {
    .name = "ports apply",
    .usage = "[--config <path> [--adapter <name>]] [--confirm <duration>] [--force] [--dry-run]",
    .help = "Keeps the ports shut that the configuration does not open",
    .about = "Writes the nftables table `inet portico` from what the configuration declares (the global\n"
             "option `ports`), in one transaction, and touches no other table. With --confirm 60s the\n"
             "kernel itself goes back to what was before, unless `%s ports confirm` comes in time.",
    .flags = flags,
    .run = run,
};
