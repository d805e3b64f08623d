/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pass over /proc gives every process with its parent and group; those that descend from this
 * one are marked until no more are found. A child of ours that was not waited for can not have given
 * its number to another process, so it is killed by number. Deeper ones may have ended and been
 * waited for since the pass: each is pinned by a pidfd, its parent is read again, and only then it
 * is killed through the pidfd. Their process groups, which only descendants can be in (each program
 * begins a session), are killed as groups as well: that is one step for the kernel, so a program that
 * forks faster than we read does not outrun it.
 *
 * A /proc that hides others' processes (hidepid) does not hide that they are our children: those are
 * read once more, and when they have ended what is below them is our child (a subreaper's).
 */
#include "services/process_tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/slice.h"

struct process {
    pid_t pid, parent, group, session;
    bool ours; /* descends from this process, and is not spared */
};

struct processes {
    struct process *items;
    size_t count, room;
};

/* Of /proc/PID/stat: the name in parentheses may hold anything, so from the last one on. */
static bool read_process(pid_t pid, struct process *p)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return false;
    text[n] = '\0';
    const char *at = strrchr(text, ')');
    int parent, group, session;
    if (at == NULL || sscanf(at + 1, " %*c %d %d %d", &parent, &group, &session) != 3)
        return false;
    *p = (struct process){pid, parent, group, session, false};
    return true;
}

static void add(struct processes *all, const struct process *p)
{
    if (all->count == all->room) {
        all->room = all->room > 0 ? all->room * 2 : 512;
        all->items = mem_resize(all->items, all->room, sizeof *all->items);
    }
    all->items[all->count++] = *p;
}

bool proc_is_ours(void)
{
    char text[32] = "";
    uint64_t pid;
    ssize_t n = readlink("/proc/self", text, sizeof text - 1);
    return n > 0 && slice_to_u64(slice_of(text, (size_t)n), INT32_MAX, &pid) &&
           (pid_t)pid == getpid();
}

static int by_pid(const void *a, const void *b)
{
    pid_t x = ((const struct process *)a)->pid, y = ((const struct process *)b)->pid;
    return (x > y) - (x < y);
}

static bool has(const struct processes *all, pid_t pid)
{
    struct process key = {.pid = pid};
    return all->count > 0 && bsearch(&key, all->items, all->count, sizeof key, by_pid) != NULL;
}

/* Of this thread, the only one. Each number ends in a space: half a one is another process's. */
static void read_children(struct processes *all)
{
    char path[64], text[4096];
    struct slice word, rest = SLICE_NONE;
    struct processes hidden = {0};
    uint64_t pid;
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : -1;
    if (fd >= 0)
        close(fd);
    if (n > 0)
        rest = slice_of(text, (size_t)n);
    while (slice_cut(rest, ' ', &word, &rest)) {
        if (slice_to_u64(word, INT32_MAX, &pid) && pid > 0 && !has(all, (pid_t)pid))
            add(&hidden, &(struct process){.pid = (pid_t)pid, .parent = getpid()});
    }
    for (size_t i = 0; i < hidden.count; i++)
        add(all, &hidden.items[i]);
    mem_free(hidden.items);
}

static void sort(struct processes *all)
{
    if (all->count > 0)
        qsort(all->items, all->count, sizeof *all->items, by_pid);
}

static void read_all(struct processes *all)
{
    struct process p;
    uint64_t pid;
    DIR *d = proc_is_ours() ? opendir("/proc") : NULL;
    if (d == NULL)
        return;
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        if (slice_to_u64(slice_from(e->d_name), INT32_MAX, &pid) && read_process((pid_t)pid, &p))
            add(all, &p);
    }
    closedir(d);
    sort(all);
    read_children(all);
    sort(all);
}

static bool parent_is_ours(const struct processes *all, pid_t parent)
{
    struct process key = {.pid = parent};
    const struct process *p = bsearch(&key, all->items, all->count, sizeof key, by_pid);
    return p != NULL && p->ours;
}

static unsigned mark(struct processes *all, pid_t self, bool (*spare)(pid_t, void *), void *context)
{
    unsigned found = 0;
    for (size_t i = 0; i < all->count; i++) {
        struct process *p = &all->items[i];
        p->ours = p->parent == self && (spare == NULL || !spare(p->pid, context));
        found += p->ours;
    }
    for (bool more = found > 0; more;) {
        more = false;
        for (size_t i = 0; i < all->count; i++) {
            struct process *p = &all->items[i];
            if (p->ours || p->parent == self || !parent_is_ours(all, p->parent))
                continue;
            p->ours = more = true;
            found++;
        }
    }
    return found;
}

static void kill_deeper(const struct process *p)
{
    struct process now;
    int fd = (int)syscall(SYS_pidfd_open, p->pid, 0);
    if (fd < 0)
        return;
    if (read_process(p->pid, &now) && now.parent == p->parent && now.session == p->session)
        (void)syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
    close(fd);
}

unsigned tree_kill(bool (*spare)(pid_t, void *), void *context)
{
    struct processes all = {0};
    pid_t self = getpid(), group = getpgrp(), session = getsid(0);
    read_all(&all);
    unsigned found = mark(&all, self, spare, context);
    for (size_t i = 0; i < all.count; i++) {
        const struct process *p = &all.items[i];
        if (!p->ours)
            continue;
        if (p->parent == self)
            kill(p->pid, SIGKILL);
        else
            kill_deeper(p);
        /* The number of a group is not given away while a child of ours is in it, waited for or not. */
        if (p->parent == self && p->group != group && p->session != session && p->group > 1)
            kill(-p->group, SIGKILL);
    }
    mem_free(all.items);
    return found;
}

void tree_end(pid_t first, int *status)
{
    for (;;) {
        int how;
        (void)tree_kill(NULL, NULL);
        if (first > 0) /* where /proc does not tell */
            kill(first, SIGKILL);
        pid_t pid;
        do {
            pid = waitpid(-1, &how, 0);
        } while (pid < 0 && errno == EINTR);
        if (pid < 0)
            return;
        for (; pid > 0; pid = waitpid(-1, &how, WNOHANG)) {
            if (pid == first) {
                *status = how;
                first = 0;
            }
        }
    }
}
