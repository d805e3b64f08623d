/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A namespace has no list of its own: it is found by who stands in it (/proc/PID/ns/net, readable for
 * those who may trace that process) and by what pins it (mounts of the file system nsfs, whose root
 * in /proc/self/mountinfo is "net:[INODE]"). The number of its inode is its identity.
 *
 * A thread enters another namespace by setns and never comes back: it ends. So the caller's threads
 * stay where they are whatever happens.
 */
#include "ports/namespaces.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "ports/containers.h"
#include "ports/shares.h"
#include "ports/processes.h"
#include "ports/users.h"

enum { NAMESPACES_MAX = 4096, MOUNTS_MAX = 16 << 20 };

struct finder {
    struct arena *arena;
    struct port_namespace *items;
    size_t count, cap;
    size_t last; /* the one found last: neighbours in /proc often share it */
    int proc;
};

/* Where the processes stand. */
struct stand {
    int proc;
    pid_t *pids;
    uint64_t *inodes;
    size_t count;
};

struct visit {
    const struct port_namespace *ns;
    enum err (*work)(void *);
    void *arg;
    enum err result;
};

static const char own_link[] = "/proc/thread-self/ns/net";
#define NET SLICE("net")

static struct port_namespace *find(struct finder *f, uint64_t inode)
{
    if (f->last < f->count && f->items[f->last].inode == inode)
        return &f->items[f->last];
    for (f->last = 0; f->last < f->count; f->last++) {
        if (f->items[f->last].inode == inode)
            return &f->items[f->last];
    }
    return NULL;
}

/* The one with this inode, made if it is new; NULL: there are too many. */
static struct port_namespace *find_or_add(struct finder *f, uint64_t inode)
{
    struct port_namespace *ns = find(f, inode);
    if (ns != NULL || f->count == NAMESPACES_MAX)
        return ns;
    if (f->count == f->cap) {
        struct port_namespace *more = ARENA_ARRAY(f->arena, struct port_namespace, 2 * f->cap + 8);
        if (f->count > 0)
            memcpy(more, f->items, f->count * sizeof *more);
        f->items = more;
        f->cap = 2 * f->cap + 8;
    }
    f->last = f->count;
    ns = &f->items[f->count++];
    ns->inode = inode;
    ns->entered = ERR_NOT_FOUND;
    return ns;
}

static uint64_t own_inode(void)
{
    char text[64];
    return link_number(read_link_at(AT_FDCWD, own_link, text, sizeof text), NET);
}

static void read_inodes(void *arg, size_t member, size_t from, size_t to)
{
    struct stand *s = arg;
    char name[PROC_NAME_MAX], text[64];
    for (size_t i = from; i < to; i++) {
        proc_name(name, (uint32_t)s->pids[i], "/ns/net");
        s->inodes[i] = link_number(read_link_at(s->proc, name, text, sizeof text), NET);
    }
}

static void find_by_processes(struct finder *f)
{
    struct stand s = {.proc = f->proc};
    if (pids_read(f->proc, &s.pids, &s.count) != OK)
        s.count = 0;
    s.inodes = mem_resize(NULL, s.count + 1, sizeof *s.inodes);
    share_run(share_count(s.count, PROCESSES_ENOUGH), s.count, read_inodes, &s);
    for (size_t i = 0; i < s.count; i++) {
        struct port_namespace *ns = s.inodes[i] != 0 ? find_or_add(f, s.inodes[i]) : NULL;
        if (ns != NULL && ns->pid == 0)
            ns->pid = s.pids[i];
    }
    mem_free(s.inodes);
    mem_free(s.pids);
}

/* A mount point is written with \040 for a space, and so on. */
static const char *mount_point(struct slice s, struct arena *arena)
{
    char *out = arena_alloc(arena, s.len + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        const char *p = s.ptr + i;
        if (*p == '\\' && i + 3 < s.len) {
            out[n++] = (char)((p[1] & 7) << 6 | (p[2] & 7) << 3 | (p[3] & 7));
            i += 3;
        } else {
            out[n++] = s.ptr[i];
        }
    }
    out[n] = '\0';
    return out;
}

/* "36 35 0:4 net:[4026532288] /run/netns/blue rw shared:1 - nsfs nsfs rw" */
static void read_mount(struct finder *f, struct slice line)
{
    struct slice fields[5];
    struct slice run = SLICE("/run/netns/");
    for (int i = 0; i < 5; i++)
        slice_cut(line, ' ', &fields[i], &line);
    uint64_t inode = link_number(fields[3], NET);
    struct port_namespace *ns = inode != 0 ? find_or_add(f, inode) : NULL;
    if (ns == NULL)
        return;
    const char *path = mount_point(fields[4], f->arena);
    bool named = slice_starts(slice_from(path), run);
    if (ns->path == NULL || named)
        ns->path = path;
    if (named && ns->name.len == 0)
        ns->name = slice_skip(slice_from(path), run.len);
}

static void find_by_mounts(struct finder *f)
{
    struct buffer b;
    struct slice line, rest;
    buffer_init(&b, MOUNTS_MAX);
    if (read_whole_at(f->proc, "self/mountinfo", &b) == OK) {
        rest = buffer_slice(&b);
        while (rest.len > 0) {
            slice_cut(rest, '\n', &line, &rest);
            if (slice_find_slice(line, SLICE(" - nsfs ")) != SIZE_MAX)
                read_mount(f, line);
        }
    }
    buffer_deinit(&b);
}

static struct slice name_by_process(struct finder *f, struct user_names *users, pid_t pid)
{
    char path[PROC_NAME_MAX], text[4096];
    struct control_group group;
    const char *home = "";
    proc_name(path, (uint32_t)pid, "/cgroup");
    control_group_read(read_at(f->proc, path, text, sizeof text), &group);
    uid_t uid = control_group_user(group.path);
    if (uid != 0)
        user_name(users, uid, &home);
    struct slice name = container_name(&group, "", home, f->arena);
    if (name.len > 0)
        return name;
    name = program_read(f->proc, pid, text, sizeof text);
    return arena_printf(f->arena, "pid %d (" SLICE_FMT ")", (int)pid, SLICE_ARG(name));
}

static void name_all(struct finder *f)
{
    struct user_names users;
    user_names_init(&users, f->arena);
    f->items[0].name = SLICE_NONE;
    for (size_t i = 1; i < f->count; i++) {
        struct port_namespace *ns = &f->items[i];
        if (ns->name.len == 0 && ns->pid != 0 && is_kernel_thread(f->proc, ns->pid))
            ns->name = SLICE("host"); /* they all stand in the machine's first one */
        else if (ns->name.len == 0 && ns->pid != 0)
            ns->name = name_by_process(f, &users, ns->pid);
        else if (ns->name.len == 0)
            ns->name = slice_from(ns->path);
    }
    user_names_deinit(&users);
}

static int by_name(const void *a, const void *b)
{
    const struct port_namespace *x = a, *y = b;
    int c = slice_cmp(x->name, y->name);
    return c != 0 ? c : (x->inode > y->inode) - (x->inode < y->inode);
}

enum err namespaces_find(struct port_table *t, bool one)
{
    struct finder f = {.arena = t->arena};
    t->netns = own_inode();
    find_or_add(&f, t->netns);
    f.proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f.proc >= 0 && !one) {
        find_by_processes(&f);
        find_by_mounts(&f);
        name_all(&f);
        qsort(f.items + 1, f.count - 1, sizeof *f.items, by_name);
    }
    if (f.count == NAMESPACES_MAX)
        table_unseen(t, "there are more than %d network namespaces; the others were not looked into",
                     NAMESPACES_MAX);
    t->namespaces = f.items;
    t->namespaces_count = f.count;
    if (f.proc < 0) {
        table_unseen(t, "/proc cannot be read: neither other namespaces nor owners can be seen");
        return ERR_DENIED;
    }
    close(f.proc);
    return OK;
}

const struct port_namespace *namespace_by_inode(const struct port_table *t, uint64_t inode)
{
    for (size_t i = 0; i < t->namespaces_count; i++) {
        if (t->namespaces[i].inode == inode)
            return &t->namespaces[i];
    }
    return NULL;
}

/* A descriptor of the namespace, or -1 with errno. By then a process may have become another. */
static int open_namespace(const struct port_namespace *ns)
{
    char path[PROC_NAME_MAX];
    struct stat st;
    const char *paths[2] = {ns->path, NULL};
    char full[PROC_NAME_MAX + 8];
    int fd = -1;
    errno = ENOENT;
    if (ns->pid != 0) {
        snprintf(full, sizeof full, "/proc/%s", proc_name(path, (uint32_t)ns->pid, "/ns/net"));
        paths[1] = full;
    }
    for (int i = 0; i < 2 && fd < 0; i++) {
        fd = paths[i] != NULL ? open(paths[i], O_RDONLY | O_CLOEXEC) : -1;
        if (fd >= 0 && (fstat(fd, &st) < 0 || st.st_ino != ns->inode)) {
            close(fd);
            fd = -1;
            errno = ENOENT;
        }
    }
    return fd;
}

static void *visit_namespace(void *arg)
{
    struct visit *v = arg;
    int fd = open_namespace(v->ns);
    if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
        v->result = err_from_errno(errno);
    if (fd >= 0)
        close(fd);
    if (v->result == OK)
        v->result = v->work(v->arg);
    return NULL;
}

enum err namespace_run(const struct port_namespace *ns, enum err (*work)(void *), void *arg)
{
    struct visit v = {ns, work, arg, OK};
    sigset_t all, before;
    pthread_t thread;
    if (ns->inode == own_inode())
        return work(arg);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int e = pthread_create(&thread, NULL, visit_namespace, &v);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (e != 0)
        return err_from_errno(e);
    pthread_join(thread, NULL);
    return v.result;
}
