/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /etc/passwd is read once and searched by hand. Who is not in it (users of a directory service,
 * systemd's dynamic ones) is asked of the system's name service, which may have to go over the
 * network, and so once only. Each answer is kept: a machine has few users that hold sockets.
 */
#include "ports/users.h"

#include <fcntl.h>
#include <pwd.h>

#include "ports/processes.h"

struct user_entry {
    uid_t uid;
    struct slice name;
    const char *home;
    struct user_entry *next;
};

enum { PASSWD_MAX = 16 << 20, ANSWER_MAX = 16 << 10 };

void user_names_init(struct user_names *u, struct arena *arena)
{
    *u = (struct user_names){.arena = arena};
    buffer_init(&u->passwd, PASSWD_MAX);
    if (read_whole_at(AT_FDCWD, "/etc/passwd", &u->passwd) != OK)
        buffer_clear(&u->passwd);
}

void user_names_deinit(struct user_names *u)
{
    buffer_deinit(&u->passwd);
}

/* "name:password:uid:gid:comment:home:shell" */
static bool find_in_passwd(struct user_names *u, struct user_entry *e)
{
    struct slice line, rest = buffer_slice(&u->passwd), fields[6];
    while (rest.len > 0) {
        uint64_t uid;
        slice_cut(rest, '\n', &line, &rest);
        for (size_t i = 0; i < 6; i++)
            slice_cut(line, ':', &fields[i], &line);
        if (!slice_to_u64(fields[2], UINT32_MAX, &uid) || uid != e->uid || fields[0].len == 0)
            continue;
        e->name = arena_copy(u->arena, fields[0]);
        e->home = arena_str(u->arena, fields[5]);
        return true;
    }
    return false;
}

static void ask_system(struct user_names *u, struct user_entry *e)
{
    struct passwd p, *found = NULL;
    char *text = arena_alloc(u->arena, ANSWER_MAX);
    if (getpwuid_r(e->uid, &p, text, ANSWER_MAX, &found) != 0 || found == NULL) {
        e->name = arena_printf(u->arena, "%u", (unsigned)e->uid);
        return;
    }
    e->name = slice_from(found->pw_name);
    e->home = found->pw_dir;
}

struct slice user_name(struct user_names *u, uid_t uid, const char **home)
{
    struct user_entry *e = u->seen;
    while (e != NULL && e->uid != uid)
        e = e->next;
    if (e == NULL) {
        e = ARENA_NEW(u->arena, struct user_entry);
        *e = (struct user_entry){.uid = uid, .home = "", .next = u->seen};
        u->seen = e;
        if (!find_in_passwd(u, e))
            ask_system(u, e);
    }
    if (home != NULL)
        *home = e->home;
    return e->name;
}
