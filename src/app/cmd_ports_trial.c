/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico ports confirm, rollback, unapply: what becomes of rules that `ports apply` put in force.
 */
#include <stdio.h>

#include "app/cmd_ports.h"
#include "ports/enforce.h"

enum { SCRIPT_MAX = 64 << 20 };

typedef enum err (*script_maker)(const struct enforce_state *, struct buffer *);

static int change(const struct enforce_state *now, script_maker make, const char *done)
{
    char error[1024];
    struct buffer script;
    buffer_init(&script, SCRIPT_MAX);
    enum err e = make(now, &script);
    if (e == OK)
        e = enforce_apply(buffer_slice(&script), error, sizeof error);
    else
        snprintf(error, sizeof error, "%s", err_text(e));
    buffer_deinit(&script);
    if (e != OK)
        return cli_fail("nothing was changed: %s", error);
    puts(done);
    return EXIT_OK;
}

static int end_trial(bool keep)
{
    char error[1024];
    struct arena arena;
    struct enforce_state now;
    int status;
    arena_init(&arena, 1 << 14);
    if (enforce_state_read(&arena, &now, error, sizeof error) != OK)
        status = cli_fail("%s", error);
    else if (now.trial == 0)
        status = cli_fail("there is no trial to end: `portico ports apply --confirm 60s` begins one");
    else if (keep && now.trial_left_s == 0)
        status = cli_fail("the trial is over: what was in force before it is so again");
    else if (keep)
        status = change(&now, enforce_confirm_script, "Kept: the rules that were on trial are in force.");
    else
        status = change(&now, enforce_rollback_script, "Gone back to what was in force before the trial.");
    arena_deinit(&arena);
    return status;
}

static int confirm(const struct command_line *l)
{
    (void)l;
    return end_trial(true);
}

static int rollback(const struct command_line *l)
{
    (void)l;
    return end_trial(false);
}

static int unapply(const struct command_line *l)
{
    char error[1024];
    (void)l;
    if (enforce_remove(error, sizeof error) != OK)
        return cli_fail("%s", error);
    puts("No port is kept shut by portico: there is no table inet portico.");
    return EXIT_OK;
}

static const struct flag none[] = {{0}};

const struct command command_ports_confirm = {
    .name = "ports confirm",
    .usage = "",
    .help = "Keeps the rules that are on trial",
    .about = "Ends a trial that `%s ports apply --confirm` began: its rules stay in force.",
    .flags = none,
    .run = confirm,
};

const struct command command_ports_rollback = {
    .name = "ports rollback",
    .usage = "",
    .help = "Ends a trial at once: what was before is in force again",
    .flags = none,
    .run = rollback,
};

const struct command command_ports_unapply = {
    .name = "ports unapply",
    .usage = "",
    .help = "Takes the table away that keeps ports shut",
    .about = "Removes the nftables table `inet portico`, and nothing else. A running portico whose\n"
             "configuration says `enforce nftables` writes it again at its next start or reload.",
    .flags = none,
    .run = unapply,
};
