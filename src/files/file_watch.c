/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One inotify descriptor and one thread of the process. Workers say which folders they want watched;
 * the thread begins the watches, since the first watch of a folder with many names takes the kernel
 * milliseconds, and counts up for all when one has begun, so that what was learned before is looked at
 * again.
 *
 * An event in a folder counts up the slot of the name that it tells; names share slots by their hash,
 * which costs a needless look now and then. An event at a watched folder itself, a link to one, or any
 * folder made or moved, counts up the one counter of all names and ends the watches below it; they are
 * begun anew when they are next needed.
 *
 * Workers take the lock only when they fill their cache or check an entry, never for a fresh one; no
 * system call is made under it but the end of a watch. Writing without closing is not watched: a log
 * that grows below a root would wake us at every line.
 */
#include "files/file_watch.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/map.h"
#include "base/mem.h"

#define EVENTS (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CLOSE_WRITE | IN_ATTRIB | \
                IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)
#define PAUSE_NS 2000000
#define GONE (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT)

enum { WANTED_MAX = 64 }; /* beyond: asked for again at the next check */

struct watched {
    struct slice path;    /* malloc'd */
    int wd;
    struct watched *same; /* another path to the same folder */
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct map by_path, by_wd; /* under the lock, as are the records */
static bool refused;              /* the kernel gives no more watches */
static char *wanted[WANTED_MAX];  /* folders that are to be watched, malloc'd; under the lock */
static unsigned wanted_count;
static int queue = -1, wake = -1;
static _Atomic uint32_t slots[FILE_WATCH_SLOTS], everything;

static struct slice wd_key(const struct watched *w)
{
    return slice_of((const char *)&w->wd, sizeof w->wd);
}

unsigned file_watch_slot(struct slice path)
{
    return (unsigned)(hash_bytes(path) % FILE_WATCH_SLOTS);
}

uint64_t file_watch_state(unsigned slot)
{
    return (uint64_t)atomic_load_explicit(&everything, memory_order_acquire) << 32 |
           atomic_load_explicit(&slots[slot], memory_order_acquire);
}

static void count_up(_Atomic uint32_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_release);
}

/* --- records --- */

static void forget(struct watched *w)
{
    struct watched *first = map_remove(&by_wd, wd_key(w));
    map_remove(&by_path, w->path);
    for (struct watched **at = &first; *at != NULL; at = &(*at)->same) {
        if (*at == w) {
            *at = w->same;
            break;
        }
    }
    if (first != NULL)
        (void)map_put(&by_wd, wd_key(first), first);
    else
        (void)inotify_rm_watch(queue, w->wd); /* it may have ended by itself */
    refused = false;
    mem_free((char *)(uintptr_t)w->path.ptr);
    mem_free(w);
}

static bool is_below(struct slice path, struct slice folder)
{
    return slice_starts(path, folder) &&
           (path.len == folder.len || path.ptr[folder.len] == '/' || folder.len == 1);
}

static void forget_below(struct slice folder)
{
    const struct map_entry *e;
    for (size_t at = 0; (e = map_next(&by_path, &at)) != NULL;) {
        struct watched *w = e->value;
        if (is_below(w->path, folder))
            forget(w);
    }
}

/* On the thread; true when it is watched and was not before. */
static bool add(struct slice folder)
{
    char name[PATH_MAX];
    pthread_mutex_lock(&lock);
    bool may = !refused && by_path.count < FILE_WATCH_FOLDERS && folder.len < sizeof name &&
               map_get(&by_path, folder) == NULL;
    pthread_mutex_unlock(&lock);
    if (!may)
        return false;
    memcpy(name, folder.ptr, folder.len);
    name[folder.len] = '\0';
    int wd = inotify_add_watch(queue, name, EVENTS);
    int error = errno;
    pthread_mutex_lock(&lock);
    if (wd < 0) {
        refused = error == ENOSPC || error == ENOMEM;
    } else {
        struct watched *w = NEW(struct watched);
        w->wd = wd;
        w->path = slice_of(slice_dup(folder), folder.len);
        (void)map_put(&by_path, w->path, w);
        w->same = map_remove(&by_wd, wd_key(w));
        (void)map_put(&by_wd, wd_key(w), w);
    }
    pthread_mutex_unlock(&lock);
    return wd >= 0;
}

static struct slice folder_of(struct slice path)
{
    size_t slash = slice_find_last(path, '/');
    return slash == SIZE_MAX ? SLICE_NONE : slice_take(path, slash > 0 ? slash : 1);
}

static char *next_wanted(void)
{
    pthread_mutex_lock(&lock);
    char *folder = wanted_count > 0 ? wanted[--wanted_count] : NULL;
    pthread_mutex_unlock(&lock);
    return folder;
}

/* Each folder and those above it. */
static void add_wanted(void)
{
    bool any = false;
    for (char *name; (name = next_wanted()) != NULL; mem_free(name)) {
        struct slice folder = slice_from(name);
        bool is_new = add(folder);
        any = any || is_new;
        while (is_new && folder.len > 1) {
            folder = folder_of(folder);
            is_new = add(folder);
        }
    }
    if (any)
        count_up(&everything);
}

/* --- events --- */

static void on_name(const struct watched *w, const struct inotify_event *e)
{
    char path[PATH_MAX + NAME_MAX + 2];
    struct slice name = slice_from(e->name);
    size_t n = w->path.len > 1 ? w->path.len : 0;
    memcpy(path, w->path.ptr, n);
    path[n++] = '/';
    memcpy(path + n, name.ptr, name.len);
    struct slice whole = slice_of(path, n + name.len);
    count_up(&slots[file_watch_slot(whole)]);
    if (map_get(&by_path, whole) == NULL && (e->mask & IN_ISDIR) == 0)
        return;
    count_up(&everything);
    if ((e->mask & IN_ATTRIB) == 0)
        forget_below(whole);
}

static struct watched *nth_of(int wd, unsigned n)
{
    struct watched *w = map_get(&by_wd, slice_of((const char *)&wd, sizeof wd));
    for (; w != NULL && n > 0; n--)
        w = w->same;
    return w;
}

static void on_event(const struct inotify_event *e)
{
    struct watched *w = nth_of(e->wd, 0), *next;
    if ((e->mask & IN_Q_OVERFLOW) != 0 || (w != NULL && (e->mask & GONE) != 0))
        count_up(&everything);
    for (; w != NULL && (e->mask & GONE) != 0; w = next) {
        next = w->same;
        forget(w);
    }
    for (unsigned i = 0; e->len > 0 && (w = nth_of(e->wd, i)) != NULL; i++)
        on_name(w, e); /* may forget some of them, where links go in circles */
}

static void *listen_for_ever(void *ignored)
{
    (void)ignored;
    static char events[64 * 1024] __attribute__((aligned(8)));
    while (queue >= 0) {
        struct pollfd p[] = {{.fd = queue, .events = POLLIN}, {.fd = wake, .events = POLLIN}};
        uint64_t count;
        if (poll(p, 2, -1) < 0)
            continue;
        if (p[1].revents != 0) {
            (void)!read(wake, &count, sizeof count);
            add_wanted();
        }
        if (p[0].revents == 0)
            continue;
        ssize_t n = read(queue, events, sizeof events);
        pthread_mutex_lock(&lock);
        for (char *at = events; n > 0 && at < events + n;) {
            const struct inotify_event *e = (const void *)at;
            on_event(e);
            at += sizeof *e + e->len;
        }
        pthread_mutex_unlock(&lock);
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL); /* a busy folder: in batches */
    }
    return NULL;
}

static void start(void)
{
    pthread_t thread;
    sigset_t all, before;
    map_init(&by_path, false);
    map_init(&by_wd, false);
    queue = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* the thread inherits it */
    if (queue < 0 || wake < 0 || pthread_create(&thread, NULL, listen_for_ever, NULL) != 0) {
        if (queue >= 0)
            close(queue);
        if (wake >= 0)
            close(wake);
        queue = wake = -1;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (queue >= 0)
        pthread_detach(thread);
}

/* --- */

static bool is_wanted(struct slice folder)
{
    for (unsigned i = 0; i < wanted_count; i++) {
        if (slice_is(folder, wanted[i]))
            return true;
    }
    return false;
}

void file_watch_folder_of(struct slice path)
{
    uint64_t one = 1;
    struct slice folder = folder_of(path);
    pthread_once(&once, start);
    if (queue < 0 || folder.len == 0)
        return;
    pthread_mutex_lock(&lock);
    bool ask = map_get(&by_path, folder) == NULL && !refused &&
               by_path.count < FILE_WATCH_FOLDERS && wanted_count < WANTED_MAX &&
               !is_wanted(folder);
    if (ask)
        wanted[wanted_count++] = slice_dup(folder);
    pthread_mutex_unlock(&lock);
    if (ask)
        (void)!write(wake, &one, sizeof one);
}
