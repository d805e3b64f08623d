/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program of the operator's own that changes his zone, of portico only: started without a shell
 * as COMMAND [ARGS…] present|cleanup FQDN TEXT, where FQDN ends in a dot. Status 0 is success; of
 * what it writes, the end is told when it is not. ACME_ZONE, ACME_TTL and ACME_TYPE (TXT or CNAME) are
 * in its environment.
 *
 *     {"name": "exec", "command": ["/etc/portico/dns-hook", "…"], "timeout": "2m"}
 *
 * It runs with the server's rights, on a thread of the pool for slow work, since it may take a
 * minute; its process group is killed when the time is over.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "certs/dns_api.h"
#include "loop/await.h"

extern char **environ;

enum { OUTPUT_MAX = 400, ARGS_MAX = 64 };

struct exec {
    const char **command; /* ends with NULL */
    size_t count;
    uint64_t timeout_ns;
};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"name", "command", "timeout", NULL};
    struct slice *words;
    int64_t ns;
    struct exec *c = cfg;
    TRY(provision_members(p, json, known));
    if (p->sandboxed)
        return provision_fail(p, "the provider exec starts a program, which a server in its sandbox "
                              "cannot: choose another provider, or sandbox off");
    TRY(provision_texts(p, json, "command", &words, &c->count));
    TRY(provision_duration(p, json, "timeout", (int64_t)(120 * NS_PER_S), &ns));
    if (c->count == 0 || c->count > ARGS_MAX || words[0].len == 0)
        return provision_fail(p, "command must be an array of 1 to %d words", ARGS_MAX);
    if (ns <= 0)
        return provision_fail(p, "timeout must be positive");
    c->timeout_ns = (uint64_t)ns;
    c->command = ARENA_ARRAY(p->arena, const char *, c->count + 1);
    for (size_t i = 0; i < c->count; i++)
        c->command[i] = arena_str(p->arena, template_expand_now(words[i], p->arena));
    return OK;
}

struct run {
    const struct exec *cfg;
    char **argv, **env;
    int status;    /* of wait; -1: it was not started (`error`), or had to be killed */
    int error;
    bool late;
    char output[OUTPUT_MAX]; /* the last bytes */
    size_t len;
};

static void keep_tail(struct run *r, const char *bytes, size_t n)
{
    if (n >= OUTPUT_MAX) {
        memcpy(r->output, bytes + n - OUTPUT_MAX, OUTPUT_MAX);
        r->len = OUTPUT_MAX;
        return;
    }
    size_t keep = r->len + n > OUTPUT_MAX ? OUTPUT_MAX - n : r->len;
    memmove(r->output, r->output + r->len - keep, keep);
    memcpy(r->output + keep, bytes, n);
    r->len = keep + n;
}

/* Until the program and all that hold its output have ended, or the time is over. */
static void read_output(struct run *r, int fd, pid_t pid, uint64_t by)
{
    char bytes[512];
    for (;;) {
        uint64_t now = clock_mono_ns();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        r->late = now >= by;
        if (r->late) {
            kill(-pid, SIGKILL);
            return;
        }
        if (poll(&p, 1, (int)((by - now) / NS_PER_MS) + 1) <= 0)
            continue;
        ssize_t n = read(fd, bytes, sizeof bytes);
        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
            return;
        if (n > 0)
            keep_tail(r, bytes, (size_t)n);
    }
}

/* What has closed its output may still run. */
static void await_end(struct run *r, pid_t pid, uint64_t by)
{
    for (;;) {
        pid_t got = waitpid(pid, &r->status, WNOHANG);
        if (got == pid || (got < 0 && errno != EINTR))
            return;
        if (clock_mono_ns() >= by) {
            r->late = true;
            kill(-pid, SIGKILL);
        }
        usleep(5000);
    }
}

static void run(void *arg)
{
    pid_t pid;
    int ends[2];
    struct run *r = arg;
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none;
    if (pipe2(ends, O_CLOEXEC) != 0) {
        r->error = errno;
        return;
    }
    sigemptyset(&none);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, ends[1], 1);
    posix_spawn_file_actions_adddup2(&files, ends[1], 2);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
    r->error = posix_spawnp(&pid, r->argv[0], &files, &attributes, r->argv, r->env);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    close(ends[1]);
    if (r->error == 0) {
        uint64_t by = clock_mono_ns() + r->cfg->timeout_ns;
        read_output(r, ends[0], pid, by);
        await_end(r, pid, by);
    }
    close(ends[0]);
}

static char **environment(const struct dns_record *record, struct arena *a)
{
    size_t n = 0, out = 0;
    while (environ[n] != NULL)
        n++;
    char **env = ARENA_ARRAY(a, char *, n + 4);
    for (size_t i = 0; i < n; i++)
        env[out++] = environ[i];
    env[out++] = arena_str(a, arena_join(a, (struct slice[]){SLICE("ACME_ZONE="), record->zone}, 2));
    env[out++] = arena_str(a, arena_printf(a, "ACME_TTL=%u", record->ttl_s));
    env[out++] = arena_str(a, arena_join(a, (struct slice[]){SLICE("ACME_TYPE="),
                                                             dns_record_type(record)}, 2));
    return env;
}

static enum err tell(const struct run *r, struct dns_why *why)
{
    char text[OUTPUT_MAX + 1];
    size_t n = 0;
    for (size_t i = 0; i < r->len; i++)
        text[n++] = r->output[i] >= ' ' && r->output[i] < 0x7f ? r->output[i] : ' ';
    struct slice said = slice_trim(slice_of(text, n));
    if (r->error != 0)
        return dns_fail(why, "%s: %s", r->argv[0], strerror(r->error));
    if (r->late)
        return dns_fail(why, "%s did not end in time and was killed: " SLICE_FMT, r->argv[0],
                        SLICE_ARG(said));
    if (WIFSIGNALED(r->status))
        return dns_fail(why, "%s was ended by signal %d: " SLICE_FMT, r->argv[0],
                        WTERMSIG(r->status), SLICE_ARG(said));
    return dns_fail(why, "%s ended with status %d: " SLICE_FMT, r->argv[0], WEXITSTATUS(r->status),
                    SLICE_ARG(said));
}

static enum err call(const struct exec *c, const char *what, const struct dns_record *record,
                     struct arena *a, struct dns_why *why)
{
    size_t n = c->count;
    char **argv = ARENA_ARRAY(a, char *, n + 4);
    for (size_t i = 0; i < n; i++)
        argv[i] = (char *)(uintptr_t)c->command[i];
    argv[n++] = (char *)(uintptr_t)what;
    argv[n++] = arena_str(a, arena_join(a, (struct slice[]){dns_record_fqdn(record, a), SLICE(".")}, 2));
    argv[n++] = arena_str(a, record->text);
    struct run *r = ARENA_ARRAY(a, struct run, 1);
    *r = (struct run){.cfg = c, .argv = argv, .env = environment(record, a)};
    TRY(await_offload_slow(run, r));
    bool done = r->error == 0 && !r->late && WIFEXITED(r->status) && WEXITSTATUS(r->status) == 0;
    return done ? OK : tell(r, why);
}

static enum err append(const void *cfg, const struct dns_record *r, struct arena *a,
                       struct dns_why *why)
{
    return call(cfg, "present", r, a, why);
}

static enum err remove_record(const void *cfg, const struct dns_record *r, struct arena *a,
                              struct dns_why *why)
{
    return call(cfg, "cleanup", r, a, why);
}

const struct module dns_provider_exec = {
    .id = "dns.providers.exec",
    .cfg_size = sizeof(struct exec),
    .provision = provision,
    .face = &(const struct dns_provider_type){append, remove_record},
};
