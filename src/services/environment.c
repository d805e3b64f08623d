/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Made anew at each start, so that a file of variables that changed counts at the next one. What
 * portico was started with (tokens of its DNS provider, say) is none of a service's business.
 */
#include "services/environment.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/env_file.h"

extern char **environ;

struct building {
    struct arena *arena;
    struct slice *items;
    size_t count;
};

bool environment_name_ok(struct slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i], low = ascii_lower(c);
        bool word = (low >= 'a' && low <= 'z') || c == '_' || (i > 0 && c >= '0' && c <= '9');
        if (!word && (i == 0 || (c != '.' && c != '-')))
            return false;
    }
    return name.len > 0 && name.len <= 200;
}

int environment_load(struct slice path, struct buffer *out)
{
    struct stat st;
    char *name = slice_dup(path);
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK), error = fd < 0 ? errno : 0;
    free(name);
    if (fd < 0)
        return error;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return EINVAL;
    }
    for (;;) {
        if (buffer_reserve(out, 4096) != OK) {
            error = EFBIG;
            break;
        }
        ssize_t n = read(fd, out->ptr + out->len, 4096);
        error = n < 0 ? errno : 0;
        if (n <= 0)
            break;
        out->len += (size_t)n;
    }
    close(fd);
    return error;
}

struct slice environment_expand(struct slice text, const struct service *s, uint16_t port,
                                uint32_t replica, struct arena *arena)
{
    struct slice head, rest = text, out = SLICE_NONE;
    struct { struct slice key, value; } names[] = {
        {SLICE("{port}"), arena_printf(arena, "%u", port)},
        {SLICE("{host}"), s->host},
        {SLICE("{replica}"), arena_printf(arena, "%u", replica + 1)},
    };
    if (slice_find(text, '{') == SIZE_MAX)
        return text;
    while (rest.len > 0) {
        struct slice value = SLICE_NONE;
        size_t brace = slice_find(rest, '{'), taken = 1;
        head = slice_take(rest, brace == SIZE_MAX ? rest.len : brace);
        rest = slice_skip(rest, head.len);
        for (size_t i = 0; i < 3 && value.len == 0; i++)
            if (slice_starts(rest, names[i].key)) {
                value = names[i].value;
                taken = names[i].key.len;
            }
        if (value.len == 0)
            value = slice_take(rest, 1);
        out = arena_join(arena, (struct slice[]){out, head, value}, 3);
        rest = slice_skip(rest, taken);
    }
    return out;
}

/* The later one of a name counts, and stands where the first one stood. */
static bool put(struct building *b, struct slice name, struct slice value)
{
    struct slice text = arena_join(b->arena, (struct slice[]){name, SLICE("="), value}, 3);
    struct slice key = slice_take(text, name.len + 1);
    size_t i = 0;
    while (i < b->count && !slice_starts(b->items[i], key))
        i++;
    if (i == ENVIRONMENT_MAX)
        return false;
    b->items[i] = text;
    b->count += i == b->count;
    return true;
}

static void inherit(struct building *b)
{
    static const char *const names[] = {"PATH", "LANG", "TZ", "TMPDIR", NULL};
    (void)!put(b, SLICE("PATH"), SLICE("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
    for (const char *const *n = names; *n != NULL; n++) {
        const char *value = getenv(*n);
        if (value != NULL)
            (void)!put(b, slice_from(*n), slice_from(value));
    }
    for (char **e = environ; *e != NULL; e++) {
        struct slice name, value;
        if (strncmp(*e, "LC_", 3) == 0 && slice_cut(slice_from(*e), '=', &name, &value))
            (void)!put(b, name, value);
    }
}

/* An account that is not known here gets none of it: the keeper tells why it cannot be used. */
static void introduce(struct building *b, struct slice user)
{
    struct passwd record, *found = NULL;
    char *text = arena_alloc(b->arena, 16384);
    uint64_t uid = geteuid();
    if (user.len > 0 && !slice_to_u64(user, UINT32_MAX, &uid))
        (void)!getpwnam_r(arena_str(b->arena, user), &record, text, 16384, &found);
    else
        (void)!getpwuid_r((uid_t)uid, &record, text, 16384, &found);
    if (found == NULL)
        return;
    (void)!put(b, SLICE("HOME"), slice_from(record.pw_dir));
    (void)!put(b, SLICE("USER"), slice_from(record.pw_name));
    (void)!put(b, SLICE("LOGNAME"), slice_from(record.pw_name));
    (void)!put(b, SLICE("SHELL"), slice_from(record.pw_shell));
}

static enum err add_file(struct building *b, struct slice path, char *error, size_t cap)
{
    struct buffer text;
    struct env_var *vars;
    struct diag d;
    size_t count = 0;
    buffer_init(&text, ENVIRONMENT_FILE_MAX);
    int failed = environment_load(path, &text);
    enum err e = failed != 0 ? ERR_INVALID
                             : env_file_parse(b->arena, buffer_slice(&text), &vars, &count, &d);
    if (e != OK)
        snprintf(error, cap, "env file " SLICE_FMT ": %s", SLICE_ARG(slice_take(path, 300)),
                 failed != 0 ? strerror(failed) : d.text);
    for (size_t i = 0; e == OK && i < count; i++)
        if (environment_name_ok(vars[i].name) && !put(b, vars[i].name, vars[i].value))
            e = ERR_LIMIT;
    buffer_deinit(&text);
    return e;
}

enum err environment_make(const struct service *s, uint16_t port, uint32_t replica,
                          struct arena *arena, struct slice **env, size_t *count, char *error,
                          size_t cap)
{
    struct building b = {arena, ARENA_ARRAY(arena, struct slice, ENVIRONMENT_MAX), 0};
    enum err e = OK;
    inherit(&b);
    introduce(&b, s->user);
    (void)!put(&b, SLICE("PORT"), arena_printf(arena, "%u", port));
    (void)!put(&b, SLICE("HOST"), s->host);
    for (size_t i = 0; e == OK && i < s->env_files_count; i++)
        e = add_file(&b, s->env_files[i], error, cap);
    for (size_t i = 0; e == OK && i < s->env_count; i++) {
        struct slice name, value;
        slice_cut(s->env[i], '=', &name, &value);
        if (!put(&b, name, environment_expand(value, s, port, replica, arena)))
            e = ERR_LIMIT;
    }
    if (s->socket)
        (void)!put(&b, SLICE("LISTEN_FDS"), SLICE("1"));
    if (e == ERR_LIMIT)
        snprintf(error, cap, "more than %d variables", ENVIRONMENT_MAX);
    *env = b.items;
    *count = b.count;
    return e;
}
