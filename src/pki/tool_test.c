/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs that end well, badly, by a signal, too late, or cannot be started.
 */
#include "pki/tool.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/test.h"

static struct tool_end end;

static enum err shell(const char *script, uint64_t timeout_ms)
{
    const char *const argv[] = {"sh", "-c", script, "name", "argument", NULL};
    const char *const more[] = {"MORE=more words", NULL};
    return tool_call(&(struct tool_call){.path = "/bin/sh", .argv = argv, .more_env = more,
                                         .timeout_ns = timeout_ms * NS_PER_MS}, &end);
}

TEST("a program has its arguments, the environment and more, no input, and its words are kept")
{
    CHECK_OK(shell("cat; echo $1, $MORE, ${PATH:+path}; echo too >&2; echo", 10000));
    CHECK_TEXT(slice_from(end.output), "argument, more words, path\ntoo");
}

TEST("of many words the last ones are kept")
{
    CHECK_OK(shell("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done", 10000));
    CHECK(slice_ends(slice_from(end.output), SLICE("line 2999")));
    CHECK(strlen(end.output) >= TOOL_OUTPUT_MAX / 4);
}

TEST("what went wrong is told")
{
    char words[100];
    CHECK_INT(shell("echo no; exit 3", 10000), ERR_FAILED);
    CHECK_INT(WEXITSTATUS(end.status), 3);
    tool_words(&end, words, sizeof words);
    CHECK_TEXT(slice_from(words), "ended with status 3");
    CHECK_TEXT(slice_from(end.output), "no");
    CHECK_INT(shell("kill -9 $$", 10000), ERR_FAILED);
    tool_words(&end, words, sizeof words);
    CHECK_TEXT(slice_from(words), "was ended by signal 9");
    const char *const argv[] = {"hook", NULL};
    CHECK(tool_call(&(struct tool_call){.path = "/nowhere/hook", .argv = argv}, &end) != OK);
    CHECK_INT(end.error, ENOENT);
    char output[TOOL_OUTPUT_MAX];
    CHECK(tool_run("/nowhere/hook", argv, NULL, output) != OK);
    CHECK_TEXT(slice_from(output), "No such file or directory");
}

TEST("signals that this process ignores are not ignored by the program")
{
    static const int ignored[] = {SIGTERM, SIGPIPE};
    for (size_t i = 0; i < 2; i++) {
        char script[64];
        snprintf(script, sizeof script, "kill -%d $$; echo still here", ignored[i]);
        void (*before)(int) = signal(ignored[i], SIG_IGN);
        enum err e = shell(script, 10000);
        signal(ignored[i], before);
        CHECK_INT(e, ERR_FAILED);
        CHECK(WIFSIGNALED(end.status) && WTERMSIG(end.status) == ignored[i]);
    }
}

TEST("one that takes too long is killed with all that it has started")
{
    uint64_t began = clock_mono_ns();
    CHECK_INT(shell("echo begun; sleep 60 & sleep 60", 500), ERR_TIMEOUT);
    CHECK(end.late && clock_mono_ns() - began < 20 * NS_PER_S);
    CHECK_INT(shell("exec >/dev/null 2>&1; sleep 60", 200), ERR_TIMEOUT);
    CHECK(end.late && clock_mono_ns() - began < 40 * NS_PER_S);
}

TEST("a program is found in $PATH and among the administrator's")
{
    char path[256];
    CHECK(tool_find("sh", path, sizeof path) && slice_ends(slice_from(path), SLICE("/sh")));
    CHECK(!tool_find("no-such-program-at-all", path, sizeof path));
}
