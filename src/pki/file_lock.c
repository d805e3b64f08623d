/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks as files, `locks/NAME.lock`, by certmagic's rules, so that Caddy and portico respect each
 * other in one folder, on one machine or several. Creating the file with O_EXCL takes the lock,
 * removing it gives it back. The holder writes the time into it every five seconds; one whose time is
 * more than ten seconds old belonged to somebody who died, and is removed by whoever wants it.
 *
 * Where certmagic's rules leave a hole, more is done, unseen by it. A stale file is removed under
 * flock(), after a second look at it, so that two of us never remove each other's new one. A file that
 * does not change while we wait long enough is stale whatever time it tells: clocks differ. The holder
 * keeps its file open, and notices when the file at that name is no longer its own; it then neither
 * refreshes nor removes it. Times are written in place with a constant length, so that nobody reads an
 * empty file; one that is empty or not JSON counts from when it was last written.
 *
 * One thread per storage refreshes, from the first lock on; it survives all waits of loops and fibers.
 * Waiters look again after pauses that grow to a second, certmagic's.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "loop/await.h"
#include "pki/file_storage.h"
#include "pki/lock_file.h"

#define FRESH_NS ((int64_t)(5 * NS_PER_S))
#define PAUSE_MIN_NS (20 * NS_PER_MS)
#define PAUSE_MAX_NS NS_PER_S

struct held_lock {
    struct list node;
    char *path, *name; /* malloc'd */
    int fd;
    int64_t created_ns;
    bool lost; /* another holder's file stands there */
};

struct attempt {
    struct file_storage *files;
    struct slice name;
    struct storage_why *why;
    char path[STORAGE_PATH_MAX];
    bool taken;
    enum err result;
    uint64_t seen, seen_since_ns; /* what the file said when it was last looked at, and since when */
};

/* --- the file --- */

static enum err lock_path(const struct storage *s, struct slice name, char path[STORAGE_PATH_MAX],
                          struct storage_why *why)
{
    struct arena arena;
    arena_init(&arena, 1024);
    struct slice key = arena_printf(&arena, "locks/" SLICE_FMT ".lock",
                                    SLICE_ARG(storage_safe(&arena, name)));
    enum err e = storage_path(s, key, path, why);
    arena_deinit(&arena);
    return e;
}

/* Whether the file that stands at the path is the open one. */
static bool still_there(const char *path, int fd)
{
    struct stat here, open;
    return fstat(fd, &open) == 0 && stat(path, &here) == 0 && here.st_ino == open.st_ino &&
           here.st_dev == open.st_dev;
}

static int write_times(int fd, int64_t created_ns)
{
    char text[LOCK_FILE_MAX];
    size_t len = lock_file_write(created_ns, clock_wall_ns(), text);
    ssize_t n = pwrite(fd, text, len, 0);
    if (n != (ssize_t)len)
        return n < 0 ? errno : ENOSPC;
    return fsync(fd) != 0 ? errno : 0;
}

/* --- refreshing --- */

static void refresh(struct held_lock *h)
{
    int e = 0;
    if (h->lost)
        return;
    if (!still_there(h->path, h->fd))
        h->lost = true;
    else
        e = write_times(h->fd, h->created_ns);
    if (h->lost)
        LOG(LOG_WARN, "storage", "lock was taken over by another instance; was this one stopped?",
            LOG_CSTR("lock_file", h->path));
    else if (e != 0)
        LOG(LOG_ERROR, "storage", "keeping lock file fresh", LOG_CSTR("lock_file", h->path),
            LOG_CSTR("error", strerrordesc_np(e)));
}

static void *refresh_all(void *arg)
{
    struct file_storage *f = arg;
    pthread_mutex_lock(&f->lock);
    while (!f->ending) {
        uint64_t until = clock_mono_ns() + (uint64_t)f->fresh_ns;
        struct timespec t = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
        if (list_empty(&f->locks))
            pthread_cond_wait(&f->wake, &f->lock);
        else if (pthread_cond_timedwait(&f->wake, &f->lock, &t) == ETIMEDOUT) {
            LIST_FOR(it, &f->locks)
                refresh(CONTAINER_OF(it, struct held_lock, node));
        }
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/* Under the lock. */
static int start_refresher(struct file_storage *f)
{
    sigset_t every, before;
    if (f->refreshing)
        return 0;
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    int e = pthread_create(&f->refresher, NULL, refresh_all, f);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    f->refreshing = e == 0;
    return e;
}

/* --- taking --- */

static int hold(struct attempt *a, int fd, int64_t created_ns)
{
    struct file_storage *f = a->files;
    struct held_lock *h = NEW(struct held_lock);
    *h = (struct held_lock){.path = slice_dup(slice_from(a->path)), .name = slice_dup(a->name),
                            .fd = fd, .created_ns = created_ns};
    pthread_mutex_lock(&f->lock);
    int e = start_refresher(f);
    if (e == 0) {
        list_append(&f->locks, &h->node);
        pthread_cond_signal(&f->wake);
    }
    pthread_mutex_unlock(&f->lock);
    if (e != 0) {
        mem_free(h->path);
        mem_free(h->name);
        mem_free(h);
    }
    return e;
}

/* The file is new and ours; when it cannot be filled, it goes. */
static void take(struct attempt *a, int fd)
{
    int64_t created_ns = clock_wall_ns();
    int e = write_times(fd, created_ns);
    if (e == 0)
        e = hold(a, fd, created_ns);
    a->taken = e == 0;
    if (e == 0)
        return;
    unlink(a->path);
    close(fd);
    a->result = storage_fail_errno(a->why, e, "writing the lock file", a->path);
}

/* What an open file says: when it was refreshed, and a number that changes with it. */
static bool look(int fd, int64_t *updated_ns, uint64_t *state)
{
    struct stat st;
    char text[LOCK_FILE_MAX];
    ssize_t n = pread(fd, text, sizeof text, 0);
    if (n < 0 || fstat(fd, &st) != 0)
        return false;
    if (!lock_file_read(slice_of(text, (size_t)n), updated_ns))
        *updated_ns = st.st_mtim.tv_sec * (int64_t)NS_PER_S + st.st_mtim.tv_nsec;
    *state = hash_bytes(slice_of(text, (size_t)n)) ^ (uint64_t)st.st_ino;
    return true;
}

static bool is_stale(struct attempt *a, int fd)
{
    int64_t updated_ns;
    uint64_t state, now = clock_mono_ns();
    if (!look(fd, &updated_ns, &state))
        return false;
    if (a->seen_since_ns == 0 || state != a->seen) {
        a->seen = state;
        a->seen_since_ns = now;
    }
    return clock_wall_ns() - updated_ns > 2 * a->files->fresh_ns ||
           now - a->seen_since_ns > 3 * (uint64_t)a->files->fresh_ns;
}

/* True: it is gone, be it by somebody else. */
static bool remove_stale(struct attempt *a, int fd)
{
    if (!is_stale(a, fd) || (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK))
        return false;
    if (!still_there(a->path, fd))
        return true;
    if (!is_stale(a, fd)) /* its holder was only slow */
        return false;
    LOG(LOG_INFO, "storage", "lock is stale; removing it", LOG_CSTR("lock_file", a->path));
    return unlink(a->path) == 0 || errno == ENOENT;
}

static void try_to_take(void *arg)
{
    struct attempt *a = arg;
    a->result = OK;
    for (unsigned tries = 0; tries < 3; tries++) {
        int fd = open(a->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0) {
            take(a, fd);
            return;
        }
        if (errno == ENOENT && tries == 0) {
            a->result = storage_make_folders(a->path, a->why);
            if (a->result != OK)
                return;
            continue;
        }
        if (errno != EEXIST) {
            a->result = storage_fail_errno(a->why, errno, "creating the lock file", a->path);
            return;
        }
        fd = open(a->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
        if (fd < 0 && errno != ENOENT) {
            a->result = storage_fail_errno(a->why, errno, "reading the lock file", a->path);
            return;
        }
        bool gone = fd < 0 || remove_stale(a, fd);
        if (fd >= 0)
            close(fd);
        if (!gone)
            return;
    }
}

static enum err pause_until(uint64_t until_ns)
{
    struct timespec t = {(time_t)(until_ns / NS_PER_S), (long)(until_ns % NS_PER_S)};
    if (fiber_self() != NULL)
        return await_sleep(until_ns);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
    return OK;
}

static enum err attempt_lock(struct attempt *a, uint64_t deadline_ns)
{
    for (uint64_t pause = PAUSE_MIN_NS;; pause = pause * 2 > PAUSE_MAX_NS ? PAUSE_MAX_NS : pause * 2) {
        TRY(storage_blocking(try_to_take, a, a->why));
        if (a->taken || a->result != OK)
            return a->result;
        uint64_t now = clock_mono_ns();
        if (deadline_ns > 0 && now >= deadline_ns)
            return storage_fail(a->why, ERR_TIMEOUT, "another one holds the lock %s", a->path);
        uint64_t until = now + pause;
        enum err e = pause_until(deadline_ns > 0 && deadline_ns < until ? deadline_ns : until);
        if (e != OK)
            return storage_fail(a->why, e, "waiting for the lock %s: %s", a->path, err_text(e));
    }
}

enum err file_lock(struct storage *s, struct slice name, uint64_t deadline_ns,
                   struct storage_why *why)
{
    struct attempt *a = NEW(struct attempt); /* too large for a fiber's stack */
    *a = (struct attempt){.files = CONTAINER_OF(s, struct file_storage, storage), .name = name,
                          .why = why};
    enum err e = lock_path(s, name, a->path, why);
    if (e == OK)
        e = attempt_lock(a, deadline_ns);
    mem_free(a);
    return e;
}

/* --- giving back --- */

static void release(struct held_lock *h)
{
    if (!h->lost && still_there(h->path, h->fd))
        unlink(h->path);
    close(h->fd);
    mem_free(h->path);
    mem_free(h->name);
    mem_free(h);
}

static struct held_lock *take_held(struct file_storage *f, struct slice name)
{
    struct held_lock *found = NULL;
    pthread_mutex_lock(&f->lock);
    LIST_FOR(it, &f->locks)
    {
        struct held_lock *h = CONTAINER_OF(it, struct held_lock, node);
        if (slice_is(name, h->name))
            found = h;
    }
    if (found != NULL)
        list_remove(&found->node);
    pthread_mutex_unlock(&f->lock);
    return found;
}

struct giving {
    struct file_storage *files;
    struct slice name;
    bool found;
};

static void give_back(void *arg)
{
    struct giving *g = arg;
    struct held_lock *h = take_held(g->files, g->name);
    g->found = h != NULL;
    if (h != NULL)
        release(h);
}

enum err file_unlock(struct storage *s, struct slice name, struct storage_why *why)
{
    struct giving g = {CONTAINER_OF(s, struct file_storage, storage), name, false};
    if (storage_blocking(give_back, &g, why) != OK)
        give_back(&g); /* a fiber that was cancelled must not keep it */
    if (!g.found)
        return storage_fail(why, ERR_NOT_FOUND, "the lock " SLICE_FMT " is not held",
                            SLICE_ARG(slice_take(name, 200)));
    return OK;
}

/* --- beginning and end --- */

void file_locks_init(struct file_storage *f)
{
    pthread_condattr_t attr;
    f->fresh_ns = FRESH_NS;
    list_init(&f->locks);
    pthread_mutex_init(&f->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&f->wake, &attr);
    pthread_condattr_destroy(&attr);
}

void file_locks_give_back(struct file_storage *f)
{
    pthread_mutex_lock(&f->lock);
    for (struct list *it; (it = list_pop(&f->locks)) != NULL;)
        release(CONTAINER_OF(it, struct held_lock, node));
    pthread_mutex_unlock(&f->lock);
}

void file_locks_deinit(struct file_storage *f)
{
    pthread_mutex_lock(&f->lock);
    f->ending = true;
    pthread_cond_signal(&f->wake);
    pthread_mutex_unlock(&f->lock);
    if (f->refreshing)
        pthread_join(f->refresher, NULL);
    file_locks_give_back(f);
    pthread_cond_destroy(&f->wake);
    pthread_mutex_destroy(&f->lock);
}
