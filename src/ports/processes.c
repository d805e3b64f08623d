/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The folder /proc stays open and everything is named from there ("812/fd"), so that a path is short
 * and the kernel looks up little. Whatever is read may be gone a moment later: absence is no error.
 */
#include "ports/processes.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"

struct dent { /* struct linux_dirent64 */
    uint64_t inode;
    int64_t next;
    uint16_t len;
    uint8_t type;
    char name[];
};

struct pid_list {
    pid_t *items;
    size_t count, cap;
};

static bool name_number(const char *name, uint32_t *out)
{
    uint64_t n;
    if (!slice_to_u64(slice_from(name), UINT32_MAX, &n))
        return false;
    *out = (uint32_t)n;
    return true;
}

enum err dir_numbers(int dir, char *dents, void (*each)(void *arg, uint32_t number), void *arg)
{
    for (;;) {
        long n = syscall(SYS_getdents64, dir, dents, DENTS_SIZE);
        if (n <= 0)
            return n == 0 ? OK : err_from_errno(errno);
        for (long at = 0; at < n;) {
            const struct dent *d = (const void *)(dents + at);
            uint32_t number;
            if (name_number(d->name, &number))
                each(arg, number);
            at += d->len;
        }
    }
}

const char *proc_name(char out[PROC_NAME_MAX], uint32_t number, const char *tail)
{
    char digits[10];
    size_t n = 0, at = 0;
    do {
        digits[n++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    while (n > 0)
        out[at++] = digits[--n];
    while (*tail != '\0' && at < PROC_NAME_MAX - 1)
        out[at++] = *tail++;
    out[at] = '\0';
    return out;
}

static void add_pid(void *arg, uint32_t number)
{
    struct pid_list *l = arg;
    if (l->count == l->cap) {
        l->cap = l->cap == 0 ? 1024 : 2 * l->cap;
        l->items = mem_resize(l->items, l->cap, sizeof *l->items);
    }
    l->items[l->count++] = (pid_t)number;
}

enum err pids_read(int proc, pid_t **pids, size_t *count)
{
    struct pid_list l = {0};
    char *dents = mem_alloc(DENTS_SIZE);
    enum err e = lseek(proc, 0, SEEK_SET) < 0 ? err_from_errno(errno) : OK;
    if (e == OK)
        e = dir_numbers(proc, dents, add_pid, &l);
    mem_free(dents);
    *pids = l.items;
    *count = l.count;
    return e;
}

struct slice read_at(int dir, const char *name, char *buffer, size_t cap)
{
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return SLICE_NONE;
    ssize_t n = read(fd, buffer, cap);
    int why = errno;
    close(fd);
    errno = why;
    return n > 0 ? slice_of(buffer, (size_t)n) : SLICE_NONE;
}

struct slice read_link_at(int dir, const char *name, char *buffer, size_t cap)
{
    ssize_t n = readlinkat(dir, name, buffer, cap);
    return n > 0 ? slice_of(buffer, (size_t)n) : SLICE_NONE;
}

enum err read_whole_at(int dir, const char *name, struct buffer *b)
{
    enum err e = OK;
    ssize_t n = 1;
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    buffer_clear(b);
    if (fd < 0)
        return err_from_errno(errno);
    while (e == OK && n > 0) {
        e = buffer_reserve(b, 64 << 10);
        if (e == OK && (n = read(fd, b->ptr + b->len, b->cap - b->len)) > 0)
            b->len += (size_t)n;
        else if (e == OK && n < 0)
            e = err_from_errno(errno);
    }
    close(fd);
    return e;
}

uint64_t link_number(struct slice target, struct slice kind)
{
    uint64_t n;
    struct slice digits = slice_skip(target, kind.len + 2);
    if (!slice_starts(target, kind) || target.len < kind.len + 4 || target.ptr[kind.len] != ':' ||
        target.ptr[kind.len + 1] != '[' || digits.ptr[digits.len - 1] != ']')
        return 0;
    return slice_to_u64(slice_take(digits, digits.len - 1), UINT64_MAX, &n) ? n : 0;
}

struct slice program_read(int proc, pid_t pid, char *buffer, size_t cap)
{
    char name[PROC_NAME_MAX];
    struct slice s = read_link_at(proc, proc_name(name, (uint32_t)pid, "/exe"), buffer, cap);
    if (s.len == 0)
        return slice_trim(read_at(proc, proc_name(name, (uint32_t)pid, "/comm"), buffer, cap));
    if (slice_ends(s, SLICE(" (deleted)")))
        s.len -= strlen(" (deleted)");
    size_t slash = slice_find_last(s, '/');
    return slash == SIZE_MAX ? s : slice_skip(s, slash + 1);
}

/* "812 (name) S 2 …": the parent stands behind the last parenthesis and the state. */
bool is_kernel_thread(int proc, pid_t pid)
{
    char name[PROC_NAME_MAX], text[256];
    struct slice s = read_at(proc, proc_name(name, (uint32_t)pid, "/stat"), text, sizeof text);
    size_t end = slice_find_last(s, ')');
    return pid == 2 || (end != SIZE_MAX && s.len > end + 5 &&
                        slice_starts(slice_skip(s, end + 4), SLICE("2 ")));
}
