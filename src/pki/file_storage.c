/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values as files. One is stored by writing a new file beside its place, making it durable, and
 * renaming it: whoever reads finds the old value or the new one, whole, whatever ends in between. The
 * folder is made durable, too, since a name that a crash takes back is a certificate asked for twice.
 * What a crash leaves is a file whose name begins with TEMPORARY: no key, and removed by the next
 * listing of its folder that finds it a day old.
 *
 * Every call is a job on the caller's stack. On a fiber it runs on the offload pool while the fiber
 * waits; what it gives back is copied to the caller's arena afterwards, on the caller's thread.
 */
#include "pki/file_storage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/fd_write.h"
#include "base/mem.h"
#include "loop/await.h"

#define TEMPORARY ".portico-new-"

enum {
    VALUE_MAX = 16 << 20,
    KEYS_MAX = 1 << 20,    /* of one listing */
    FOLDERS_MAX = 32,      /* below each other */
    TEMPORARY_AGE_S = 24 * 3600,
};

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list all = {&all, &all}; /* open storages; under the lock */

/* --- paths --- */

enum err storage_fail_errno(struct storage_why *why, int number, const char *what, const char *path)
{
    char text[128];
    const char *reason = strerror_r(number, text, sizeof text); /* GNU's */
    return storage_fail(why, err_from_errno(number), "%s %s: %s", what, path, reason);
}

static bool is_part(struct slice part)
{
    return !slice_is(part, ".") && !slice_is(part, "..") && slice_find(part, '\0') == SIZE_MAX &&
           !slice_starts(part, SLICE(TEMPORARY));
}

enum err storage_path(const struct storage *s, struct slice key, char out[STORAGE_PATH_MAX],
                      struct storage_why *why)
{
    size_t len = 0;
    struct slice part, rest = key;
    if (s->root.len + key.len + 2 > STORAGE_PATH_MAX)
        return storage_fail(why, ERR_INVALID, "the key is too long: " SLICE_FMT,
                            SLICE_ARG(slice_take(key, 200)));
    memcpy(out, s->root.ptr, s->root.len);
    len = s->root.len;
    while (rest.len > 0) {
        slice_cut(rest, '/', &part, &rest);
        if (!is_part(part))
            return storage_fail(why, ERR_INVALID, "not a key: " SLICE_FMT,
                                SLICE_ARG(slice_take(key, 200)));
        if (part.len == 0)
            continue;
        out[len++] = '/';
        memcpy(out + len, part.ptr, part.len);
        len += part.len;
    }
    out[len] = '\0';
    return OK;
}

enum err storage_make_folders(const char *path, struct storage_why *why)
{
    char part[STORAGE_PATH_MAX];
    for (size_t i = 1; path[i] != '\0'; i++) {
        if (path[i] != '/')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST)
            return storage_fail_errno(why, errno, "making the folder", part);
    }
    return OK;
}

struct call {
    void (*work)(void *);
    void *arg;
    bool made;
};

static void make_call(void *arg)
{
    struct call *c = arg;
    c->work(c->arg);
    c->made = true;
}

enum err storage_blocking(void (*work)(void *), void *arg, struct storage_why *why)
{
    struct call c = {work, arg, false};
    if (fiber_self() == NULL) {
        make_call(&c);
        return OK;
    }
    enum err e = await_offload(make_call, &c); /* a cancel may come when it has been made */
    return c.made ? OK : storage_fail(why, e, "waiting for the storage: %s", err_text(e));
}

/* --- one job --- */

struct job {
    struct storage *storage;
    struct slice key, value; /* to be stored */
    struct storage_why *why;
    char *bytes;             /* loaded, malloc'd */
    size_t len;
    struct storage_info *info;
    bool recursive;
    struct arena arena; /* of a listing */
    struct slice *keys;
    size_t count, room;
    enum err result;
};

/* Of a key that is not the whole storage. */
static enum err value_path(struct job *j, char path[STORAGE_PATH_MAX])
{
    TRY(storage_path(j->storage, j->key, path, j->why));
    if (strlen(path) == j->storage->root.len)
        return storage_fail(j->why, ERR_INVALID, "the empty key is no value");
    return OK;
}

static enum err run(struct job *j, void (*work)(void *))
{
    TRY(storage_blocking(work, j, j->why));
    return j->result;
}

/* --- store --- */

/* The folder of a path, with a new name in it. */
static int create_beside(const char *path, char fresh[STORAGE_PATH_MAX + 64])
{
    uint64_t number = 0;
    int folder = (int)(strrchr(path, '/') - path);
    if (getrandom(&number, sizeof number, 0) != sizeof number)
        number = (uint64_t)clock_wall_ns();
    snprintf(fresh, STORAGE_PATH_MAX + 64, "%.*s/" TEMPORARY "%016llx", folder, path,
             (unsigned long long)number);
    return open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static enum err sync_folder(const char *path)
{
    char folder[STORAGE_PATH_MAX];
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int e = fd < 0 || (fsync(fd) != 0 && errno != EINVAL) ? errno : 0; /* EINVAL: it cannot */
    if (fd >= 0)
        close(fd);
    errno = e;
    return err_from_errno(e);
}

static enum err replace(const char *path, struct slice value, struct storage_why *why)
{
    char fresh[STORAGE_PATH_MAX + 64];
    int fd = create_beside(path, fresh);
    if (fd < 0)
        return storage_fail_errno(why, errno, "creating a file beside", path);
    int e = fd_write_all(fd, value) != OK || fsync(fd) != 0 ? errno : 0;
    if (close(fd) != 0 && e == 0)
        e = errno;
    if (e == 0 && rename(fresh, path) != 0)
        e = errno;
    if (e != 0) {
        unlink(fresh);
        return storage_fail_errno(why, e, "writing", path);
    }
    if (sync_folder(path) != OK)
        return storage_fail_errno(why, errno, "making durable the folder of", path);
    return OK;
}

static void store_now(void *arg)
{
    struct job *j = arg;
    char path[STORAGE_PATH_MAX];
    j->result = value_path(j, path);
    if (j->result == OK)
        j->result = storage_make_folders(path, j->why);
    if (j->result == OK)
        j->result = replace(path, j->value, j->why);
}

static enum err store(struct storage *s, struct slice key, struct slice value,
                      struct storage_why *why)
{
    struct job j = {.storage = s, .key = key, .value = value, .why = why};
    if (value.len > VALUE_MAX)
        return storage_fail(why, ERR_LIMIT, "a value may have 16 MiB");
    return run(&j, store_now);
}

/* --- load --- */

/* What stands there is a file of ours, or somebody's FIFO that would be waited for for ever. */
static int open_value(const char *path, struct stat *st)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return -1;
    int e = fstat(fd, st) != 0 ? errno : S_ISDIR(st->st_mode) ? EISDIR
            : !S_ISREG(st->st_mode)                           ? EINVAL
            : st->st_size > VALUE_MAX                         ? EFBIG
                                                              : 0;
    if (e == 0)
        return fd;
    close(fd);
    errno = e;
    return -1;
}

static int read_value(int fd, char *to, size_t cap, size_t *len)
{
    for (*len = 0; *len < cap;) {
        ssize_t n = read(fd, to + *len, cap - *len);
        if (n < 0 && errno != EINTR)
            return errno;
        if (n == 0)
            break;
        if (n > 0)
            *len += (size_t)n;
    }
    return 0;
}

static void load_now(void *arg)
{
    struct job *j = arg;
    struct stat st;
    char path[STORAGE_PATH_MAX];
    j->result = storage_path(j->storage, j->key, path, j->why);
    if (j->result != OK)
        return;
    int fd = open_value(path, &st);
    if (fd < 0) {
        j->result = storage_fail_errno(j->why, errno, "reading", path);
        return;
    }
    j->bytes = mem_alloc((size_t)st.st_size + 1);
    int e = read_value(fd, j->bytes, (size_t)st.st_size, &j->len);
    close(fd);
    if (e != 0)
        j->result = storage_fail_errno(j->why, e, "reading", path);
}

static enum err load(struct storage *s, struct slice key, struct arena *arena, struct slice *value,
                     struct storage_why *why)
{
    struct job j = {.storage = s, .key = key, .why = why};
    enum err e = run(&j, load_now);
    *value = e == OK ? arena_copy(arena, slice_of(j.bytes, j.len)) : SLICE_NONE;
    if (j.bytes != NULL)
        explicit_bzero(j.bytes, j.len); /* it may be a key */
    mem_free(j.bytes);
    return e;
}

/* --- remove --- */

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    return remove(path) == 0 || errno == ENOENT ? 0 : errno;
}

static void remove_now(void *arg)
{
    struct job *j = arg;
    struct stat st;
    char path[STORAGE_PATH_MAX];
    j->result = value_path(j, path);
    if (j->result != OK)
        return;
    int e = lstat(path, &st) != 0 ? errno : 0;
    if (e == 0 && S_ISDIR(st.st_mode))
        e = nftw(path, remove_one, FOLDERS_MAX, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    else if (e == 0)
        e = unlink(path) != 0 ? errno : 0;
    if (e < 0)
        e = errno;
    if (e != 0 && e != ENOENT && e != ENOTDIR)
        j->result = storage_fail_errno(j->why, e, "removing", path);
}

static enum err remove_key(struct storage *s, struct slice key, struct storage_why *why)
{
    struct job j = {.storage = s, .key = key, .why = why};
    return run(&j, remove_now);
}

/* --- stat --- */

static void stat_now(void *arg)
{
    struct job *j = arg;
    struct stat st;
    char path[STORAGE_PATH_MAX];
    j->result = storage_path(j->storage, j->key, path, j->why);
    if (j->result != OK)
        return;
    if (stat(path, &st) != 0) {
        j->result = storage_fail_errno(j->why, errno, "looking at", path);
        return;
    }
    *j->info = (struct storage_info){
        .size = (uint64_t)st.st_size, .is_folder = S_ISDIR(st.st_mode),
        .modified_ns = st.st_mtim.tv_sec * (int64_t)NS_PER_S + st.st_mtim.tv_nsec};
}

static enum err stat_key(struct storage *s, struct slice key, struct storage_info *info,
                         struct storage_why *why)
{
    struct job j = {.storage = s, .key = key, .why = why, .info = info};
    return run(&j, stat_now);
}

/* --- list --- */

static bool is_left_over(int folder, const char *name)
{
    struct stat st;
    if (strncmp(name, TEMPORARY, sizeof TEMPORARY - 1) != 0)
        return false;
    if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
        st.st_mtim.tv_sec < clock_file_ns() / (int64_t)NS_PER_S - TEMPORARY_AGE_S)
        (void)unlinkat(folder, name, 0);
    return true;
}

static bool is_folder(int folder, const struct dirent *d)
{
    struct stat st;
    if (d->d_type != DT_UNKNOWN)
        return d->d_type == DT_DIR;
    return fstatat(folder, d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

static enum err add_key(struct job *j, struct slice key)
{
    if (j->count == KEYS_MAX)
        return storage_fail(j->why, ERR_LIMIT, "more than %d keys below " SLICE_FMT, KEYS_MAX,
                            SLICE_ARG(slice_take(j->key, 200)));
    if (j->count == j->room) {
        j->room = j->room > 0 ? j->room * 2 : 64;
        j->keys = mem_resize(j->keys, j->room, sizeof *j->keys);
    }
    j->keys[j->count++] = key;
    return OK;
}

static enum err list_folder(struct job *j, struct slice key, unsigned depth);

static enum err list_entry(struct job *j, DIR *dir, struct slice key, const struct dirent *d,
                           unsigned depth)
{
    if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0 ||
        is_left_over(dirfd(dir), d->d_name))
        return OK;
    struct slice parts[] = {key, SLICE("/"), slice_from(d->d_name)};
    unsigned from = key.len > 0 ? 0 : 2;
    struct slice child = arena_join(&j->arena, parts + from, 3 - from);
    TRY(add_key(j, child));
    if (j->recursive && is_folder(dirfd(dir), d))
        return list_folder(j, child, depth + 1);
    return OK;
}

static enum err list_folder(struct job *j, struct slice key, unsigned depth)
{
    char path[STORAGE_PATH_MAX];
    TRY(storage_path(j->storage, key, path, j->why));
    if (depth > FOLDERS_MAX)
        return storage_fail(j->why, ERR_LIMIT, "more than %d folders below each other: %s",
                            FOLDERS_MAX, path);
    DIR *dir = opendir(path);
    if (dir == NULL && errno == ENOENT && depth > 0)
        return OK; /* removed meanwhile */
    if (dir == NULL)
        return storage_fail_errno(j->why, errno, "listing", path);
    enum err e = OK;
    for (struct dirent *d; e == OK && (d = readdir(dir)) != NULL;)
        e = list_entry(j, dir, key, d, depth);
    closedir(dir);
    return e;
}

static int compare_keys(const void *a, const void *b)
{
    return slice_cmp(*(const struct slice *)a, *(const struct slice *)b);
}

static void list_now(void *arg)
{
    struct job *j = arg;
    while (j->key.len > 0 && j->key.ptr[j->key.len - 1] == '/')
        j->key.len--;
    j->result = list_folder(j, j->key, 0);
    if (j->count > 0)
        qsort(j->keys, j->count, sizeof *j->keys, compare_keys);
}

static enum err list(struct storage *s, struct slice prefix, bool recursive, struct arena *arena,
                     struct slice **keys, size_t *count, struct storage_why *why)
{
    struct job j = {.storage = s, .key = prefix, .recursive = recursive, .why = why};
    arena_init(&j.arena, 4096);
    enum err e = run(&j, list_now);
    *keys = NULL;
    *count = 0;
    if (e == OK && j.count > 0) {
        *keys = ARENA_ARRAY(arena, struct slice, j.count);
        for (; *count < j.count; ++*count)
            (*keys)[*count] = arena_copy(arena, j.keys[*count]);
    }
    mem_free(j.keys);
    arena_deinit(&j.arena);
    return e;
}

/* --- opening and closing --- */

static void close_files(struct storage *s)
{
    struct file_storage *f = CONTAINER_OF(s, struct file_storage, storage);
    pthread_mutex_lock(&all_lock);
    bool last = --f->users == 0;
    if (last)
        list_remove(&f->node);
    pthread_mutex_unlock(&all_lock);
    if (!last)
        return;
    file_locks_deinit(f);
    mem_free((void *)(uintptr_t)s->root.ptr);
    mem_free(f);
}

static const struct storage_type files = {
    .store = store,
    .load = load,
    .remove = remove_key,
    .stat = stat_key,
    .list = list,
    .lock = file_lock,
    .unlock = file_unlock,
    .close = close_files,
};

static struct file_storage *find_open(struct slice root)
{
    LIST_FOR(it, &all)
    {
        struct file_storage *f = CONTAINER_OF(it, struct file_storage, node);
        if (slice_eq(f->storage.root, root))
            return f;
    }
    return NULL;
}

struct storage *storage_open_files(struct slice root)
{
    while (root.len > 1 && root.ptr[root.len - 1] == '/')
        root.len--;
    if (root.len == 0)
        root = SLICE(".");
    pthread_mutex_lock(&all_lock);
    struct file_storage *f = find_open(root);
    if (f == NULL) {
        f = NEW(struct file_storage);
        f->storage = (struct storage){&files, slice_of(slice_dup(root), root.len)};
        file_locks_init(f);
        list_append(&all, &f->node);
    }
    f->users++;
    pthread_mutex_unlock(&all_lock);
    return &f->storage;
}

void storage_give_back_locks(void)
{
    pthread_mutex_lock(&all_lock);
    LIST_FOR(it, &all)
        file_locks_give_back(CONTAINER_OF(it, struct file_storage, node));
    pthread_mutex_unlock(&all_lock);
}
