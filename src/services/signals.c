/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table: sigabbrev_np is younger than what we build on.
 */
#include "services/signals.h"

#include <signal.h>

static const struct {
    const char *name;
    int number;
    bool stops; /* a program may be asked to end by it */
} table[] = {
    {"SIGTERM", SIGTERM, true},  {"SIGINT", SIGINT, true},    {"SIGQUIT", SIGQUIT, true},
    {"SIGHUP", SIGHUP, true},    {"SIGUSR1", SIGUSR1, true},  {"SIGUSR2", SIGUSR2, true},
    {"SIGKILL", SIGKILL, true},  {"SIGWINCH", SIGWINCH, true}, {"SIGABRT", SIGABRT, false},
    {"SIGALRM", SIGALRM, false}, {"SIGBUS", SIGBUS, false},   {"SIGFPE", SIGFPE, false},
    {"SIGILL", SIGILL, false},   {"SIGPIPE", SIGPIPE, false}, {"SIGSEGV", SIGSEGV, false},
    {"SIGSYS", SIGSYS, false},   {"SIGTRAP", SIGTRAP, false}, {"SIGXCPU", SIGXCPU, false},
    {"SIGXFSZ", SIGXFSZ, false},
};

int signal_number(struct slice name)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (!table[i].stops)
            continue;
        if (slice_eq_nocase(name, slice_from(table[i].name)) ||
            slice_eq_nocase(name, slice_from(table[i].name + 3)))
            return table[i].number;
    }
    return 0;
}

const char *signal_name(int number)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].number == number)
            return table[i].name;
    return NULL;
}
