/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A link /proc/PID/fd/N says "socket:[INODE]" and nothing else tells who has a socket open, so every
 * descriptor of every process is read once. That is all the time this takes, and so:
 *
 *   - processes are shared out among a few threads, by neighbourhood in the list of pids;
 *   - the folder of descriptors is not listed where they are numbered from 0 on, as they mostly are: the
 *     kernel tells how many there are (Linux 6.2), and each is asked for by its number;
 *   - a process is asked for its name, user and control group only once a socket of it is listed;
 *   - control groups, users and containers are looked up once per name, not per process.
 *
 * The threads write what they find into memory of their own (`struct walker`); the table is filled
 * behind them, in the order of the pids. Whose descriptors may not be read is counted and told.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/map.h"
#include "base/mem.h"
#include "ports/bound.h"
#include "ports/containers.h"
#include "ports/namespaces.h"
#include "ports/processes.h"
#include "ports/shares.h"
#include "ports/sockets.h"
#include "ports/users.h"

enum { LINK_MAX_LEN = 64, PROGRAM_MAX = 4096, GROUP_MAX = 4096, LOOSE_MAX = 16, GAPS_MAX = 2 };

#define FIRST_PIDS 0xEFFFFFFCu /* the inode of the first pid namespace: PROC_PID_INIT_INO */

struct holder {
    pid_t pid;
    uid_t uid;
    struct slice program, group; /* the group: text of /proc/PID/cgroup */
};

struct hit {
    uint32_t holder, row; /* holder: index in the walker's */
};

struct walker {
    const struct port_table *table;
    int proc, fds; /* the folder of descriptors that is being read */
    uint32_t asked; /* descriptors below this number have been asked for */
    char *dents;
    struct holder *holders;
    size_t holders_count, holders_cap;
    struct hit *hits;
    size_t hits_count, hits_cap;
    uint32_t *marks; /* of each row: the holder that has it already, plus one */
    bool holds;      /* the present process is among the holders */
    struct slice group; /* of the holder before */
    struct arena arena;
    size_t denied; /* processes */
    uint64_t loose[LOOSE_MAX]; /* namespaces that only a descriptor keeps */
    size_t loose_count;
};

struct walk {
    const struct port_table *table;
    int proc;
    pid_t *pids;
    size_t count;
    struct walker walkers[SHARES_MAX];
};

/* What a control group's text says, once per text. */
struct group_entry {
    struct slice text;
    struct control_group group;
    struct slice container;
};

struct filler {
    struct port_table *table;
    const struct socket_options *options;
    struct user_names users;
    struct map groups; /* text → struct group_entry */
    struct port_owner **last; /* of each row */
};

static const struct bound_socket *first_of_inode(const struct port_table *t, uint64_t inode)
{
    size_t low = 0, high = t->bound_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (t->bound[middle].inode < inode)
            low = middle + 1;
        else
            high = middle;
    }
    return low < t->bound_count && t->bound[low].inode == inode ? &t->bound[low] : NULL;
}

/* The process that is being read, made known by its first listed socket. */
static uint32_t present_holder(struct walker *w)
{
    if (!w->holds) {
        if (w->holders_count == w->holders_cap) {
            w->holders_cap = 2 * w->holders_cap + 64;
            w->holders = mem_resize(w->holders, w->holders_cap, sizeof *w->holders);
        }
        w->holders[w->holders_count++] = (struct holder){0};
        w->holds = true;
    }
    return (uint32_t)(w->holders_count - 1);
}

static void add_hit(struct walker *w, uint32_t row)
{
    uint32_t holder = present_holder(w);
    if (w->marks[row] == holder + 1)
        return;
    w->marks[row] = holder + 1;
    if (w->hits_count == w->hits_cap) {
        w->hits_cap = 2 * w->hits_cap + 256;
        w->hits = mem_resize(w->hits, w->hits_cap, sizeof *w->hits);
    }
    w->hits[w->hits_count++] = (struct hit){holder, row};
}

static void add_loose(struct walker *w, uint64_t netns)
{
    for (size_t i = 0; i < w->loose_count; i++) {
        if (w->loose[i] == netns)
            return;
    }
    if (w->loose_count < LOOSE_MAX && namespace_by_inode(w->table, netns) == NULL)
        w->loose[w->loose_count++] = netns;
}

/* False: there is none of this number, or it may not be seen. */
static bool read_descriptor(struct walker *w, uint32_t number)
{
    const struct port_table *t = w->table;
    char name[PROC_NAME_MAX], text[LINK_MAX_LEN];
    struct slice target = read_link_at(w->fds, proc_name(name, number, ""), text, sizeof text);
    uint64_t inode = link_number(target, SLICE("socket"));
    uint64_t netns = inode == 0 ? link_number(target, SLICE("net")) : 0;
    const struct bound_socket *b = inode != 0 ? first_of_inode(t, inode) : NULL;
    if (netns != 0)
        add_loose(w, netns);
    for (; b != NULL && b < t->bound + t->bound_count && b->inode == inode; b++)
        add_hit(w, b->row);
    return target.len > 0;
}

static void on_descriptor(void *arg, uint32_t number)
{
    struct walker *w = arg;
    if (number >= w->asked)
        read_descriptor(w, number);
}

/* How many descriptors the process has, 0: an older kernel, or none. */
static size_t descriptors_count(const struct walker *w)
{
    struct stat st;
    return fstat(w->fds, &st) == 0 && st.st_size > 0 ? (size_t)st.st_size : 0;
}

/* By their numbers while there are few gaps; the others by the list. */
static enum err read_descriptors(struct walker *w)
{
    size_t count = descriptors_count(w), found = 0, gaps = 0;
    for (w->asked = 0; found < count && gaps < GAPS_MAX; w->asked++) {
        if (read_descriptor(w, w->asked))
            found++;
        else
            gaps++;
    }
    return found > 0 && found == count ? OK : dir_numbers(w->fds, w->dents, on_descriptor, w);
}

/* What is only asked of those that hold something. /proc/PID itself belongs to the effective user
 * even where the files in it are root's (proc(5), "dumpable"). */
static void describe(struct walker *w, struct holder *h, pid_t pid)
{
    char name[PROC_NAME_MAX], text[PROGRAM_MAX];
    struct stat st;
    h->pid = pid;
    if (fstatat(w->proc, proc_name(name, (uint32_t)pid, ""), &st, 0) == 0)
        h->uid = st.st_uid;
    h->program = arena_copy(&w->arena, program_read(w->proc, pid, text, sizeof text));
    struct slice group = read_at(w->proc, proc_name(name, (uint32_t)pid, "/cgroup"), text, GROUP_MAX);
    if (!slice_eq(group, w->group))
        w->group = arena_copy(&w->arena, group); /* neighbours share it mostly */
    h->group = w->group;
}

static void walk_process(struct walker *w, pid_t pid)
{
    char name[PROC_NAME_MAX];
    w->fds = openat(w->proc, proc_name(name, (uint32_t)pid, "/fd"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum err e = w->fds < 0 ? err_from_errno(errno) : OK;
    w->holds = false;
    if (w->fds >= 0) {
        e = read_descriptors(w);
        close(w->fds);
    }
    if (e == ERR_DENIED && !is_kernel_thread(w->proc, pid))
        w->denied++;
    if (w->holds)
        describe(w, &w->holders[w->holders_count - 1], pid);
}

static void walk_share(void *arg, size_t member, size_t from, size_t to)
{
    struct walk *all = arg;
    struct walker *w = &all->walkers[member];
    w->table = all->table;
    w->proc = all->proc;
    w->dents = mem_alloc(DENTS_SIZE);
    w->marks = mem_zalloc((w->table->count + 1) * sizeof *w->marks);
    arena_init(&w->arena, 64 << 10);
    for (size_t i = from; i < to; i++)
        walk_process(w, all->pids[i]);
    mem_free(w->dents);
    mem_free(w->marks);
}

static struct group_entry *look_up_group(struct filler *f, struct slice text)
{
    struct arena *a = f->table->arena;
    const char *home = "";
    struct group_entry *g = map_get(&f->groups, text);
    if (g != NULL)
        return g;
    g = ARENA_NEW(a, struct group_entry);
    g->text = arena_copy(a, text);
    control_group_read(g->text, &g->group);
    uid_t uid = control_group_user(g->group.path);
    if (uid != 0)
        user_name(&f->users, uid, &home);
    g->container = container_name(&g->group, "", home, a);
    map_put(&f->groups, g->text, g);
    return g;
}

static void make_owner(struct filler *f, const struct holder *h, struct port_owner *o)
{
    const struct group_entry *g = look_up_group(f, h->group);
    *o = (struct port_owner){
        .pid = h->pid,
        .program = arena_copy(f->table->arena, h->program),
        .uid = h->uid,
        .user = user_name(&f->users, h->uid, NULL),
        .unit = g->group.unit,
        .container = g->container,
    };
    if (f->options->service_of != NULL)
        o->service = f->options->service_of(f->options->service_arg, h->pid, g->group.path);
}

static void fill(struct filler *f, const struct walker *w)
{
    struct port_owner *models = ARENA_ARRAY(f->table->arena, struct port_owner, w->holders_count + 1);
    for (size_t i = 0; i < w->holders_count; i++)
        make_owner(f, &w->holders[i], &models[i]);
    for (size_t i = 0; i < w->hits_count; i++) {
        uint32_t row = w->hits[i].row;
        struct port_owner *o = ARENA_NEW(f->table->arena, struct port_owner);
        *o = models[w->hits[i].holder];
        if (f->last[row] == NULL)
            f->table->entries[row].owners = o;
        else
            f->last[row]->next = o;
        f->last[row] = o;
    }
}

static void walker_deinit(struct walker *w)
{
    mem_free(w->holders);
    mem_free(w->hits);
    arena_deinit(&w->arena);
}

/* Whether /proc shows every process of the machine to us: its first namespace of pids, and root. What
 * has no owner then is the kernel's own (NFS, WireGuard) or on its way between two processes. */
static bool sees_all(int proc)
{
    struct stat st;
    return geteuid() == 0 && fstatat(proc, "self/ns/pid", &st, 0) == 0 && st.st_ino == FIRST_PIDS;
}

static void tell_unseen(struct port_table *t, size_t denied, int proc)
{
    size_t ports = 0;
    for (size_t i = 0; i < t->count; i++)
        ports += t->entries[i].sockets > 0 && t->entries[i].owners == NULL;
    if (denied > 0)
        table_unseen(t, "%zu processes of other users could not be looked into (root can): %zu of %zu "
                     "ports have no owner here, and namespaces of theirs are not seen",
                     denied, ports, t->count);
    else if (ports > 0 && !sees_all(proc))
        table_unseen(t, "of %zu of %zu ports the owner is not known: it is none of the processes that "
                     "/proc shows here", ports, t->count);
}

/* The first walker's list takes all. */
static void tell_loose(struct port_table *t, struct walk *all, size_t size)
{
    struct walker *first = &all->walkers[0];
    for (size_t i = 1; i < size; i++) {
        for (size_t k = 0; k < all->walkers[i].loose_count; k++)
            add_loose(first, all->walkers[i].loose[k]);
    }
    if (first->loose_count > 0)
        table_unseen(t, "%zu network namespaces in which no process stands, and that only a descriptor "
                     "of one keeps, were not looked into", first->loose_count);
}

static void fill_all(struct filler *f, struct walk *all, size_t size)
{
    size_t denied = 0;
    if (!f->options->one_namespace)
        tell_loose(f->table, all, size);
    f->last = mem_zalloc((f->table->count + 1) * sizeof *f->last);
    map_init(&f->groups, false);
    user_names_init(&f->users, f->table->arena);
    for (size_t i = 0; i < size; i++) {
        fill(f, &all->walkers[i]);
        denied += all->walkers[i].denied;
        walker_deinit(&all->walkers[i]);
    }
    tell_unseen(f->table, denied, all->proc);
    user_names_deinit(&f->users);
    map_deinit(&f->groups);
    mem_free(f->last);
}

enum err owners_collect(struct port_table *t, const struct socket_options *options)
{
    struct filler f = {.table = t, .options = options};
    struct walk all = {.table = t, .proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (all.proc < 0)
        return err_from_errno(errno); /* sockets_collect has told */
    enum err e = pids_read(all.proc, &all.pids, &all.count);
    size_t size = share_count(all.count, PROCESSES_ENOUGH);
    share_run(size, all.count, walk_share, &all);
    fill_all(&f, &all, size);
    mem_free(all.pids);
    close(all.proc);
    return e;
}
