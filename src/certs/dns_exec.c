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
#include <string.h>

#include "base/clock.h"
#include "certs/dns_api.h"
#include "loop/await.h"
#include "pki/tool.h"

enum { OUTPUT_MAX = 400, ARGS_MAX = 64, PATH_CAP = 1024 };

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
    struct tool_call call;
    struct tool_end end;
    enum err result;
};

static void run(void *arg)
{
    struct run *r = arg;
    r->result = tool_call(&r->call, &r->end);
}

static const char **environment(const struct dns_record *record, struct arena *a)
{
    const char **env = ARENA_ARRAY(a, const char *, 4);
    env[0] = arena_str(a, arena_join(a, (struct slice[]){SLICE("ACME_ZONE="), record->zone}, 2));
    env[1] = arena_str(a, arena_printf(a, "ACME_TTL=%u", record->ttl_s));
    env[2] = arena_str(a, arena_join(a, (struct slice[]){SLICE("ACME_TYPE="),
                                                         dns_record_type(record)}, 2));
    return env;
}

static enum err tell(const struct run *r, struct dns_why *why)
{
    char text[OUTPUT_MAX + 1], words[100];
    size_t n = 0;
    struct slice said = slice_from(r->end.output);
    said = slice_skip(said, said.len > OUTPUT_MAX ? said.len - OUTPUT_MAX : 0);
    for (size_t i = 0; i < said.len; i++)
        text[n++] = said.ptr[i] >= ' ' && said.ptr[i] < 0x7f ? said.ptr[i] : ' ';
    said = slice_trim(slice_of(text, n));
    tool_words(&r->end, words, sizeof words);
    if (r->end.error != 0)
        return dns_fail(why, "%s: %s", r->call.argv[0], words);
    return dns_fail(why, "%s %s: " SLICE_FMT, r->call.argv[0], words, SLICE_ARG(said));
}

static enum err call(const struct exec *c, const char *what, const struct dns_record *record,
                     struct arena *a, struct dns_why *why)
{
    size_t n = c->count;
    char path[PATH_CAP];
    const char **argv = ARENA_ARRAY(a, const char *, n + 4);
    memcpy(argv, c->command, n * sizeof *argv);
    argv[n++] = what;
    argv[n++] = arena_str(a, arena_join(a, (struct slice[]){dns_record_fqdn(record, a), SLICE(".")}, 2));
    argv[n++] = arena_str(a, record->text);
    struct run *r = ARENA_NEW(a, struct run);
    bool bare = strchr(argv[0], '/') == NULL; /* … and then none that lies in the working folder */
    if (bare && !tool_find(argv[0], path, sizeof path))
        return dns_fail(why, "%s: %s", argv[0], strerrordesc_np(ENOENT));
    r->call = (struct tool_call){.path = bare ? arena_str(a, slice_from(path)) : argv[0], .argv = argv,
                                 .more_env = environment(record, a), .timeout_ns = c->timeout_ns};
    TRY(await_offload_slow(run, r));
    return r->result == OK ? OK : tell(r, why);
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
