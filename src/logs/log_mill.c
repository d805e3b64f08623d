/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A job lists the folder of a log, picks the files that the log's rolled names fit, deletes those
 * beyond the number and the age, and compresses what is left and is not compressed yet. A file is
 * compressed beside itself under a name ending in .tmp, renamed, and only then is the plain one
 * removed; what a crash leaves is done again.
 */
#include "logs/log_mill.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/fd_write.h"
#include "base/log.h"
#include "base/mem.h"

enum { ROLLED_MAX = 100000, PATH_BYTES = 4096 };

struct rolled_file {
    char *name;
    int64_t wall_ns;
    bool compressed;
};

struct folder { /* of one job */
    int fd;
    struct slice stem, ending; /* "access-" and ".log" */
    struct rolled_file *files; /* newest first */
    size_t count;
};

/* --- names --- */

static void split_path(struct slice path, struct slice *dir, struct slice *stem,
                       struct slice *ending)
{
    size_t slash = slice_find_last(path, '/');
    *dir = slash == SIZE_MAX ? SLICE(".") : slash == 0 ? SLICE("/") : slice_take(path, slash);
    struct slice name = slash == SIZE_MAX ? path : slice_skip(path, slash + 1);
    size_t dot = slice_find_last(name, '.');
    *stem = dot == SIZE_MAX ? name : slice_take(name, dot);
    *ending = dot == SIZE_MAX ? SLICE("") : slice_skip(name, dot);
}

enum err log_rolled_name(struct buffer *b, const char *path, const struct log_rolled *r,
                         int64_t wall_ns, const char *reason)
{
    char text[TIME_TEXT_MAX];
    struct slice dir, stem, ending, all = slice_from(path);
    split_path(all, &dir, &stem, &ending);
    TRY(buffer_append(b, slice_take(all, all.len - ending.len)));
    TRY(buffer_append_byte(b, '-'));
    TRY(buffer_append(b, slice_of(text, time_layout_put(&r->layout, wall_ns, r->local_time, text))));
    TRY(buffer_append_byte(b, '-'));
    TRY(buffer_append(b, slice_from(reason)));
    return buffer_append(b, ending);
}

/* "access-TIME-REASON.log", or the same with .gz or .zst behind. */
static bool read_name(const struct folder *f, const struct log_rolled *r, struct slice name,
                      struct rolled_file *out)
{
    struct slice rest = name;
    out->compressed = slice_ends(rest, SLICE(".gz")) || slice_ends(rest, SLICE(".zst"));
    if (out->compressed)
        rest = slice_take(rest, slice_find_last(rest, '.'));
    size_t fixed = f->stem.len + 1 + f->ending.len;
    if (rest.len <= fixed || !slice_starts(rest, f->stem) || rest.ptr[f->stem.len] != '-' ||
        !slice_ends(rest, f->ending))
        return false;
    rest = slice_take(slice_skip(rest, f->stem.len + 1), rest.len - fixed);
    size_t dash = slice_find_last(rest, '-');
    return dash != SIZE_MAX && time_layout_read(&r->layout, slice_take(rest, dash), r->local_time,
                                                &out->wall_ns) == OK;
}

static int newest_first(const void *a, const void *b)
{
    const struct rolled_file *x = a, *y = b;
    if (x->wall_ns != y->wall_ns)
        return x->wall_ns < y->wall_ns ? 1 : -1;
    return strcmp(x->name, y->name);
}

static void list_files(struct folder *f, const struct log_rolled *r)
{
    int fd = dup(f->fd);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (d == NULL) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(d)) != NULL && f->count < ROLLED_MAX;) {
        struct rolled_file file = {0};
        if (!read_name(f, r, slice_from(e->d_name), &file))
            continue;
        file.name = slice_dup(slice_from(e->d_name));
        if ((f->count & (f->count + 1)) == 0) /* grows at each power of two */
            f->files = mem_resize(f->files, 2 * (f->count + 1), sizeof *f->files);
        f->files[f->count++] = file;
    }
    closedir(d);
    if (f->count > 0)
        qsort(f->files, f->count, sizeof *f->files, newest_first);
}

/* --- compressing --- */

static bool gzip_file(int in, int out)
{
    static char from[65536], to[65536]; /* the mill has one thread, and a job at a time */
    z_stream z = {0};
    bool ok = true;
    int flush = Z_NO_FLUSH;
    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return false;
    while (ok && flush != Z_FINISH) {
        ssize_t n = read(in, from, sizeof from);
        if (n < 0) {
            ok = errno == EINTR;
            continue;
        }
        flush = n == 0 ? Z_FINISH : Z_NO_FLUSH;
        z.next_in = (Bytef *)from;
        z.avail_in = (uInt)n;
        do {
            z.next_out = (Bytef *)to;
            z.avail_out = sizeof to;
            deflate(&z, flush);
            ok = fd_write_all(out, slice_of(to, sizeof to - z.avail_out)) == OK;
        } while (ok && z.avail_out == 0);
    }
    deflateEnd(&z);
    return ok;
}

static bool zstd_file(int in, int out)
{
    static char from[65536], to[65536];
    ZSTD_CCtx *c = ZSTD_createCCtx();
    bool ok = c != NULL, last = false;
    while (ok && !last) {
        ssize_t n = read(in, from, sizeof from);
        if (n < 0) {
            ok = errno == EINTR;
            continue;
        }
        last = n == 0;
        ZSTD_inBuffer source = {from, (size_t)n, 0};
        size_t left;
        do {
            ZSTD_outBuffer target = {to, sizeof to, 0};
            left = ZSTD_compressStream2(c, &target, &source, last ? ZSTD_e_end : ZSTD_e_continue);
            ok = !ZSTD_isError(left) && fd_write_all(out, slice_of(to, target.pos)) == OK;
        } while (ok && (last ? left > 0 : source.pos < source.size));
    }
    ZSTD_freeCCtx(c);
    return ok;
}

/* Owner, mode and times are the plain file's. */
static void like(int fd, const struct stat *st)
{
    struct timespec times[2] = {st->st_atim, st->st_mtim};
    (void)!fchown(fd, st->st_uid, st->st_gid);
    fchmod(fd, st->st_mode & 07777);
    futimens(fd, times);
}

static void compress_file(const struct folder *f, const char *name, enum log_compression how)
{
    char to[PATH_BYTES], temporary[PATH_BYTES + 8];
    struct stat st;
    snprintf(to, sizeof to, "%s%s", name, how == LOG_COMPRESS_GZIP ? ".gz" : ".zst");
    snprintf(temporary, sizeof temporary, "%s.tmp", to);
    if (fstatat(f->fd, to, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_size > 0) {
        unlinkat(f->fd, name, 0); /* an earlier job came as far as that */
        return;
    }
    int in = openat(f->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (in < 0 || fstat(in, &st) != 0 || !S_ISREG(st.st_mode)) {
        if (in >= 0)
            close(in);
        return;
    }
    int out = openat(f->fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool ok = out >= 0 && (how == LOG_COMPRESS_GZIP ? gzip_file(in, out) : zstd_file(in, out));
    if (ok)
        like(out, &st);
    if (out >= 0)
        close(out);
    if (ok && renameat(f->fd, temporary, f->fd, to) == 0) {
        unlinkat(f->fd, name, 0);
    } else {
        log_complain("portico: compressing the rolled log %s failed\n", name);
        if (out >= 0)
            unlinkat(f->fd, temporary, 0);
    }
    close(in);
}

/* --- a job --- */

static bool is_outdated(const struct log_rolled *r, const struct rolled_file *file, size_t events)
{
    int64_t age_ns = r->keep_days * 86400 * (int64_t)NS_PER_S;
    return (r->keep > 0 && (int64_t)events > r->keep) ||
           (r->keep_days > 0 && file->wall_ns < clock_wall_ns() - age_ns);
}

void log_mill_run(const char *path, const struct log_rolled *r)
{
    struct folder f = {0};
    struct slice dir;
    size_t events = 0; /* distinct times so far: a file may lie there plain and compressed */
    split_path(slice_from(path), &dir, &f.stem, &f.ending);
    char *folder = slice_dup(dir);
    f.fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    mem_free(folder);
    if (f.fd < 0)
        return;
    list_files(&f, r);
    for (size_t i = 0; i < f.count; i++) {
        events += i == 0 || f.files[i].wall_ns != f.files[i - 1].wall_ns;
        if (is_outdated(r, &f.files[i], events))
            unlinkat(f.fd, f.files[i].name, 0);
        else if (!f.files[i].compressed && r->compression != LOG_COMPRESS_NONE)
            compress_file(&f, f.files[i].name, r->compression);
        mem_free(f.files[i].name);
    }
    mem_free(f.files);
    close(f.fd);
}

/* --- the thread --- */

struct job {
    struct job *next;
    char *path;
    struct log_rolled rolled;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct job *first;
    bool started;
} mill = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static void *run(void *unused)
{
    (void)unused;
    prctl(PR_SET_NAME, "log-mill");
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 10);
    for (;;) {
        pthread_mutex_lock(&mill.lock);
        while (mill.first == NULL)
            pthread_cond_wait(&mill.wake, &mill.lock);
        struct job *job = mill.first;
        mill.first = job->next;
        pthread_mutex_unlock(&mill.lock);
        log_mill_run(job->path, &job->rolled);
        mem_free(job->path);
        mem_free(job);
    }
    return NULL;
}

/* It has nothing that must be finished, so it is never joined; the process's end ends it. */
static void start_thread(void)
{
    pthread_t thread;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    mill.started = pthread_create(&thread, NULL, run, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (mill.started)
        pthread_detach(thread);
}

void log_mill_add(const char *path, const struct log_rolled *rolled)
{
    struct job *job = NEW(struct job), **at = &mill.first;
    job->path = slice_dup(slice_from(path));
    job->rolled = *rolled;
    pthread_mutex_lock(&mill.lock);
    while (*at != NULL)
        at = &(*at)->next;
    *at = job;
    if (!mill.started)
        start_thread();
    pthread_cond_signal(&mill.wake);
    pthread_mutex_unlock(&mill.lock);
}
