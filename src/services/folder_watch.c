/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `watch`: a change below the named folders, or of a named file, starts the service anew, a moment
 * after the last of a run of changes. For development. Folders are watched with all that lies below
 * them, but not what begins with '.', node_modules, __pycache__; at most FOLDERS_MAX of them.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "services/manage.h"

#define SETTLE_NS (150 * NS_PER_MS)

enum { FOLDERS_MAX = 2048, DEPTH_MAX = 24 };

struct watched { /* a folder by its descriptor */
    int wd;
    char *path;
    char *only; /* the one file in it that counts; NULL: all */
};

struct folder_watch {
    struct managed *owner;
    int fd;
    struct op op;
    struct timer timer;
    struct watched *folders;
    unsigned count;
    bool closing, full;
};

static const uint32_t interest = IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO |
                                 IN_ONLYDIR | IN_EXCL_UNLINK;

static bool passed_over(const char *name)
{
    return name[0] == '.' || strcmp(name, "node_modules") == 0 || strcmp(name, "__pycache__") == 0 ||
           name[strlen(name) - 1] == '~';
}

static void add_tree(struct folder_watch *w, const char *path, int depth);

static void add_below(struct folder_watch *w, const char *path, int depth)
{
    char below[PATH_MAX];
    struct stat st;
    DIR *d = opendir(path);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '\0' || passed_over(e->d_name) ||
            snprintf(below, sizeof below, "%s/%s", path, e->d_name) >= (int)sizeof below)
            continue;
        bool folder = e->d_type == DT_DIR;
        if (e->d_type == DT_UNKNOWN)
            folder = lstat(below, &st) == 0 && S_ISDIR(st.st_mode);
        if (folder)
            add_tree(w, below, depth + 1);
    }
    if (d != NULL)
        closedir(d);
}

static void remember(struct folder_watch *w, int wd, const char *path, const char *only)
{
    for (unsigned i = 0; i < w->count; i++)
        if (w->folders[i].wd == wd)
            return;
    w->folders = mem_resize(w->folders, w->count + 1, sizeof *w->folders);
    w->folders[w->count++] = (struct watched){wd, slice_dup(slice_from(path)),
                                              only != NULL ? slice_dup(slice_from(only)) : NULL};
}

static void add_tree(struct folder_watch *w, const char *path, int depth)
{
    if (w->count >= FOLDERS_MAX || depth > DEPTH_MAX) {
        if (!w->full)
            LOG(LOG_WARN, "services", "not all folders are watched: there are too many",
                LOG_STR("service", w->owner->name), LOG_CSTR("folder", path));
        w->full = true;
        return;
    }
    int wd = inotify_add_watch(w->fd, path, interest);
    if (wd < 0)
        return;
    remember(w, wd, path, NULL);
    add_below(w, path, depth);
}

static void add_path(struct folder_watch *w, const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        LOG(LOG_WARN, "services", "what shall be watched is not there",
            LOG_STR("service", w->owner->name), LOG_CSTR("path", path),
            LOG_CSTR("error", strerror(errno)));
        return;
    }
    if (S_ISDIR(st.st_mode)) {
        add_tree(w, path, 0);
        return;
    }
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash != NULL ? (int)(slash - path) : 1,
             slash != NULL ? path : ".");
    int wd = inotify_add_watch(w->fd, folder, interest);
    if (wd >= 0)
        remember(w, wd, folder, slash != NULL ? slash + 1 : path);
}

/* --- events --- */

static void on_settled(struct timer *t)
{
    struct folder_watch *w = CONTAINER_OF(t, struct folder_watch, timer);
    LOG(LOG_INFO, "services", "a file changed: starting anew", LOG_STR("service", w->owner->name));
    overseer_renew(w->owner);
}

static struct watched *find(struct folder_watch *w, int wd)
{
    for (unsigned i = 0; i < w->count; i++)
        if (w->folders[i].wd == wd)
            return &w->folders[i];
    return NULL;
}

/* The folder is gone, and the kernel watches it no more. */
static void forget(struct folder_watch *w, int wd)
{
    struct watched *f = find(w, wd);
    if (f == NULL)
        return;
    mem_free(f->path);
    mem_free(f->only);
    *f = w->folders[--w->count];
    w->full = false;
}

/* True when it counts. */
static bool take(struct folder_watch *w, const struct inotify_event *e)
{
    char path[PATH_MAX];
    const struct watched *f = find(w, e->wd);
    if (e->mask & IN_Q_OVERFLOW)
        return true;
    if (e->mask & IN_IGNORED) {
        forget(w, e->wd);
        return false;
    }
    if (f == NULL || e->len == 0 || e->name[0] == '\0' || passed_over(e->name))
        return false;
    if (f->only != NULL)
        return strcmp(f->only, e->name) == 0;
    if ((e->mask & IN_ISDIR) != 0 && (e->mask & (IN_CREATE | IN_MOVED_TO)) != 0 &&
        snprintf(path, sizeof path, "%s/%s", f->path, e->name) < (int)sizeof path)
        add_tree(w, path, 1);
    return true;
}

static bool read_events(struct folder_watch *w)
{
    static char bytes[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
    bool changed = false;
    ssize_t n;
    while ((n = read(w->fd, bytes, sizeof bytes)) > 0)
        for (char *at = bytes; at < bytes + n;) {
            const struct inotify_event *e = (void *)at;
            changed |= take(w, e);
            at += sizeof *e + e->len;
        }
    return changed;
}

static void free_watch(struct folder_watch *w)
{
    timer_stop(&w->timer);
    loop_close(overseer.loop, w->fd);
    for (unsigned i = 0; i < w->count; i++) {
        mem_free(w->folders[i].path);
        mem_free(w->folders[i].only);
    }
    mem_free(w->folders);
    mem_free(w);
}

static void on_event(struct op *op, int result)
{
    struct folder_watch *w = CONTAINER_OF(op, struct folder_watch, op);
    if (w->closing || result < 0) {
        if (w->closing)
            free_watch(w);
        return;
    }
    if (read_events(w))
        timer_start(overseer.loop, &w->timer, loop_now_ns(overseer.loop) + SETTLE_NS);
    op_poll(overseer.loop, op, w->fd, POLLIN);
}

struct folder_watch *folder_watch_open(struct managed *m)
{
    const struct service *s = &m->version->service;
    char path[PATH_MAX];
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0) {
        LOG(LOG_WARN, "services", "files cannot be watched", LOG_STR("service", m->name),
            LOG_CSTR("error", strerror(errno)));
        return NULL;
    }
    struct folder_watch *w = NEW(struct folder_watch);
    w->owner = m;
    w->fd = fd;
    timer_init(&w->timer, on_settled);
    for (size_t i = 0; i < s->watch_count; i++) {
        bool own = s->watch[i].len > 0 && s->watch[i].ptr[0] == '/';
        int len = snprintf(path, sizeof path, SLICE_FMT "%s" SLICE_FMT,
                           SLICE_ARG(own ? SLICE("") : s->dir), own || s->dir.len == 0 ? "" : "/",
                           SLICE_ARG(s->watch[i]));
        if (len > 0 && len < (int)sizeof path)
            add_path(w, path);
    }
    w->op.on_done = on_event;
    op_poll(overseer.loop, &w->op, fd, POLLIN);
    return w;
}

void folder_watch_close(struct folder_watch *w)
{
    if (w == NULL)
        return;
    w->closing = true;
    timer_stop(&w->timer);
    if (w->op.armed)
        op_cancel(overseer.loop, &w->op);
    else
        free_watch(w);
}
