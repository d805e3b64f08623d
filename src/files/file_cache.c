/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries are reference counted: the cache holds one, each exchange that sends from an entry one
 * more, so that a file which changes while it is sent is finished from the old descriptor or bytes.
 * A change (device, inode, size, mtime or ctime differ) replaces the entry; failures are cached
 * like files, so a flood of 404s costs one system call a second and path. A file whose mtime is
 * younger than the clock's tick may still change unseen; its bytes are not kept.
 */
#include "files/file_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "files/file_watch.h"
#include "files/mime.h"

#define RACY_NS INT64_C(50000000)

enum { COPY_AFTER = 4 /* times that it was asked for: what is wanted once is not worth a copy */ };

/* A quarter of what the process may open, shared by as many workers as there are processors: the
 * rest is for connections. */
static unsigned descriptors_for_one(void)
{
    struct rlimit limit = {.rlim_cur = 1024};
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    rlim_t share = limit.rlim_cur / 4 / (processors > 0 ? (rlim_t)processors : 1);
    if (share > FILE_CACHE_FDS)
        return FILE_CACHE_FDS;
    return share > 4 ? (unsigned)share : 4;
}

struct file_cache *file_cache_create(bool off, bool watches)
{
    struct file_cache *c = NEW(struct file_cache);
    map_init(&c->map, false);
    list_init(&c->lru);
    list_init(&c->fd_lru);
    list_init(&c->copy_lru);
    c->off = off;
    c->watches = watches;
    c->fds_max = descriptors_for_one();
    return c;
}

/* What an entry takes of the limit: paths come from clients. */
static size_t weight(const struct open_file *f)
{
    return f->bytes.len + f->path.len;
}

static void drop(struct file_cache *c, struct open_file *f)
{
    map_remove(&c->map, f->path);
    list_remove(&f->lru);
    list_remove(&f->fd_lru);
    list_remove(&f->copy_lru);
    c->fds -= f->fd >= 0;
    c->copies -= f->copy.len;
    c->bytes -= weight(f);
    f->cached = false;
    open_file_unref(f);
}

void file_cache_destroy(struct file_cache *c)
{
    while (!list_empty(&c->lru))
        drop(c, CONTAINER_OF(c->lru.next, struct open_file, lru));
    map_deinit(&c->map);
    mem_free(c);
}

void open_file_unref(struct open_file *f)
{
    ASSERT(f->refs > 0);
    if (--f->refs > 0)
        return;
    if (f->fd >= 0)
        close(f->fd);
    mem_free((char *)(uintptr_t)f->bytes.ptr);
    mem_free((char *)(uintptr_t)f->copy.ptr);
    mem_free((char *)(uintptr_t)f->path.ptr);
    mem_free(f);
}

static void put_base36(char *out, size_t cap, size_t *at, uint64_t n)
{
    char digits[16];
    size_t i = sizeof digits;
    do
        digits[--i] = "0123456789abcdefghijklmnopqrstuvwxyz"[n % 36];
    while ((n /= 36) != 0);
    for (; i < sizeof digits && *at + 1 < cap; i++)
        out[(*at)++] = digits[i];
}

/* Caddy's form: mtime in nanoseconds and size, both in base 36. */
static void make_validators(struct open_file *f)
{
    int64_t seconds = f->mtime_ns / (int64_t)NS_PER_S;
    if (seconds == 0 || seconds == 1 || f->mtime_ns < 0)
        return; /* 1970: an image builder's clock, not a time */
    size_t at = 0;
    f->etag[at++] = '"';
    put_base36(f->etag, sizeof f->etag, &at, (uint64_t)f->mtime_ns);
    f->etag[at++] = '-';
    put_base36(f->etag, sizeof f->etag - 2, &at, f->size);
    f->etag[at++] = '"';
    f->etag[at] = '\0';
    clock_http_date(seconds, f->modified);
    f->modified[HTTP_DATE_LEN] = '\0';
}

static bool read_whole(int fd, char *bytes, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t n = pread(fd, bytes + at, size - at, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += (size_t)n;
    }
    return true;
}

static bool same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mode == b->st_mode && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* The content that the validators stand for; SLICE_NONE when it is too young to tell, or changes. */
static struct slice read_content(const struct open_file *f)
{
    struct stat after;
    if (f->mtime_ns > clock_wall_ns() - RACY_NS)
        return SLICE_NONE;
    char *bytes = mem_alloc(f->size);
    if (!read_whole(f->fd, bytes, f->size) || fstat(f->fd, &after) != 0 ||
        !same(&f->stat, &after)) {
        mem_free(bytes);
        return SLICE_NONE;
    }
    return slice_of(bytes, f->size);
}

static void keep_bytes(struct open_file *f)
{
    if (f->size <= FILE_CACHE_SMALL)
        f->bytes = read_content(f);
    if (f->bytes.ptr == NULL)
        return;
    close(f->fd);
    f->fd = -1;
}

static enum err from_open(int number)
{
    switch (number) {
    case ELOOP:
    case ENAMETOOLONG: /* no such file can be */
        return ERR_NOT_FOUND;
    case ENXIO: /* a socket, a device without a driver */
    case ENODEV:
        return ERR_DENIED;
    default:
        return err_from_errno(number);
    }
}

static void take_stat(struct open_file *f)
{
    f->exists = true;
    f->is_dir = S_ISDIR(f->stat.st_mode);
    f->size = (uint64_t)f->stat.st_size;
    f->mtime_ns = f->stat.st_mtim.tv_sec * (int64_t)NS_PER_S + f->stat.st_mtim.tv_nsec;
}

/* What may not be opened may still be there; a folder that may only be entered has files. */
static enum err look_unreadable(struct open_file *f, const char *path)
{
    if (stat(path, &f->stat) != 0)
        return from_open(errno);
    take_stat(f);
    return f->is_dir ? OK : ERR_DENIED;
}

/* Pipes, sockets and devices are never read, and opening one must not wait. */
static enum err look(struct open_file *f, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        enum err e = from_open(errno);
        return e == ERR_DENIED ? look_unreadable(f, path) : e;
    }
    if (fstat(fd, &f->stat) != 0) {
        int number = errno;
        close(fd);
        return err_from_errno(number);
    }
    take_stat(f);
    if (!S_ISREG(f->stat.st_mode)) {
        close(fd);
        return f->is_dir ? OK : ERR_DENIED;
    }
    f->fd = fd;
    f->mime = mime_by_name(f->path);
    make_validators(f);
    return OK;
}

static struct open_file *open_new(struct slice path, uint64_t now_ns, bool keep)
{
    struct open_file *f = NEW(struct open_file);
    list_init(&f->lru);
    list_init(&f->fd_lru);
    list_init(&f->copy_lru);
    f->fd = -1;
    f->refs = 1;
    f->path = slice_of(slice_dup(path), path.len);
    f->checked_ns = now_ns;
    if (slice_find(path, '\0') != SIZE_MAX)
        f->error = ERR_INVALID;
    else
        f->error = look(f, f->path.ptr);
    if (keep && f->fd >= 0)
        keep_bytes(f);
    return f;
}

static bool still_valid(const struct file_cache *c, struct open_file *f, uint64_t now_ns)
{
    struct stat now;
    uint64_t state = c->watches ? file_watch_state(f->watch_slot) : 0;
    if (now_ns - f->checked_ns < FILE_CHECK_NS && state == f->watch_state)
        return true;
    f->watch_state = state;
    if (c->watches && f->error == OK)
        file_watch_folder_of(f->path); /* its watch may have ended */
    if (f->error != OK || stat(f->path.ptr, &now) != 0 || !same(&f->stat, &now))
        return false;
    if (f->fd >= 0 && f->bytes.ptr == NULL && f->size <= FILE_CACHE_SMALL)
        return false; /* was too young to be kept */
    f->checked_ns = now_ns;
    return true;
}

/* What is learned before its folder's watch has begun is looked at again then. Missing names get no
 * watches of their own, lest a flood of them ends as a flood of watches. */
static struct open_file *open_watched(struct slice path, uint64_t now_ns)
{
    unsigned slot = file_watch_slot(path);
    uint64_t state = file_watch_state(slot);
    struct open_file *f = open_new(path, now_ns, true);
    if (f->error == OK)
        file_watch_folder_of(path);
    f->watch_slot = slot;
    f->watch_state = state;
    return f;
}

static struct open_file *open_once(const struct file_cache *c, struct slice path,
                                   uint64_t now_ns)
{
    return c->watches ? open_watched(path, now_ns) : open_new(path, now_ns, true);
}

static void make_room(struct file_cache *c)
{
    while (c->map.count > FILE_CACHE_ENTRIES || c->bytes > FILE_CACHE_BYTES)
        drop(c, CONTAINER_OF(c->lru.next, struct open_file, lru));
    while (c->fds > c->fds_max)
        drop(c, CONTAINER_OF(c->fd_lru.next, struct open_file, fd_lru));
    while (c->copies > FILE_CACHE_COPIES)
        drop(c, CONTAINER_OF(c->copy_lru.next, struct open_file, copy_lru));
}

/* Connections took the descriptors: those that the cache holds are given up for them. */
static struct open_file *open_anew(struct file_cache *c, struct slice path, uint64_t now_ns)
{
    struct open_file *f = open_once(c, path, now_ns);
    if (f->error != ERR_LIMIT || c->fds == 0)
        return f;
    open_file_unref(f);
    while (!list_empty(&c->fd_lru))
        drop(c, CONTAINER_OF(c->fd_lru.next, struct open_file, fd_lru));
    return open_once(c, path, now_ns);
}

struct open_file *file_cache_open(struct file_cache *c, struct slice path, uint64_t now_ns)
{
    if (c->off || path.len >= PATH_MAX) /* no such file can be: not worth a place */
        return open_new(path, now_ns, false);
    struct open_file *f = map_get(&c->map, path);
    if (f != NULL && !still_valid(c, f, now_ns)) {
        drop(c, f);
        f = NULL;
    }
    if (f != NULL) {
        list_remove(&f->lru);
        list_remove(&f->fd_lru);
        list_remove(&f->copy_lru);
    } else {
        f = open_anew(c, path, now_ns);
        if (f->error == ERR_LIMIT) /* no descriptor left: not the file's fault, not cached */
            return f;
        f->cached = true;
        map_put(&c->map, f->path, f);
        c->bytes += weight(f);
        c->fds += f->fd >= 0;
    }
    f->refs++;
    list_append(&c->lru, &f->lru);
    if (f->fd >= 0)
        list_append(&c->fd_lru, &f->fd_lru);
    if (f->copy.ptr != NULL)
        list_append(&c->copy_lru, &f->copy_lru);
    make_room(c);
    return f;
}

/* By then the kernel has the file in its memory, too: to read it is to copy it. */
static void keep_copy(struct file_cache *c, struct open_file *f)
{
    f->copy_asked = 0;
    f->copy = read_content(f);
    if (f->copy.ptr == NULL)
        return;
    c->copies += f->copy.len;
    list_append(&c->copy_lru, &f->copy_lru);
    make_room(c);
}

const char *file_cache_copy(struct file_cache *c, struct open_file *f)
{
    if (f->bytes.ptr != NULL)
        return f->bytes.ptr;
    if (f->copy.ptr == NULL && f->cached && f->fd >= 0 && f->size > 0 &&
        f->size <= FILE_CACHE_COPY && ++f->copy_asked >= COPY_AFTER)
        keep_copy(c, f);
    return f->copy.ptr;
}

/* --- the thread's own --- */

static _Thread_local struct file_cache *self;

struct file_cache *file_cache_self(void)
{
    return self;
}

void file_cache_thread_init(void)
{
    struct slice how = slice_from(getenv("PORTICO_FILE_CACHE"));
    self = file_cache_create(slice_is(how, "off"), how.len == 0);
}

void file_cache_thread_deinit(void)
{
    file_cache_destroy(self);
    self = NULL;
}
