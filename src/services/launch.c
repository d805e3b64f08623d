/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both ends are one binary, so the form is plain: a head of fixed size, then texts, each a length of
 * four bytes and its bytes: service, dir, user, group, host, the words of argv, those of env. The
 * reader is the keeper, which may be root's: what it reads is copied out of the file first, and each
 * length is checked against what is left, each count against a maximum. Texts become C strings, so
 * that none may hold a NUL.
 */
#include "services/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/fd_write.h"

#define LAUNCH_MAGIC UINT32_C(0x4e55414c) /* "LAUN" */
#define LAUNCH_SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define CPU_MAX 1e6

enum { NAME_MAX_LEN = 64, USER_MAX_LEN = 64, HOST_MAX_LEN = 255 };

struct launch_head {
    uint32_t magic, replica;
    uint64_t digest, memory, tasks, files;
    double cpu;
    uint32_t argv_count, env_count;
    uint16_t port;
    uint8_t confine, socket;
    uint32_t unused; /* zero: no byte of the writer's stack leaves it */
};

/* --- writing --- */

static enum err put_text(struct buffer *b, struct slice s)
{
    uint32_t len = (uint32_t)s.len;
    if (s.len > LAUNCH_BYTES_MAX)
        return ERR_LIMIT;
    TRY(buffer_append(b, slice_of((const char *)&len, sizeof len)));
    return buffer_append(b, s);
}

static enum err put_launch(struct buffer *b, const struct launch *l)
{
    const struct slice texts[] = {l->service, l->dir, l->user, l->group, l->host};
    struct launch_head head = {LAUNCH_MAGIC, l->replica, l->digest, l->memory, l->tasks, l->files,
                               l->cpu, (uint32_t)l->argv_count, (uint32_t)l->env_count, l->port,
                               l->confine, l->socket, 0};
    if (l->argv_count > LAUNCH_WORDS_MAX || l->env_count > LAUNCH_WORDS_MAX)
        return ERR_LIMIT;
    TRY(buffer_append(b, slice_of((const char *)&head, sizeof head)));
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        TRY(put_text(b, texts[i]));
    for (size_t i = 0; i < l->argv_count; i++)
        TRY(put_text(b, l->argv[i]));
    for (size_t i = 0; i < l->env_count; i++)
        TRY(put_text(b, l->env[i]));
    return OK;
}

int launch_write(const struct launch *l)
{
    struct buffer b;
    int fd = -1;
    buffer_init(&b, LAUNCH_BYTES_MAX);
    if (put_launch(&b, l) != OK)
        errno = E2BIG;
    else
        fd = memfd_create("launch", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0 &&
        (fd_write_all(fd, buffer_slice(&b)) != OK || fcntl(fd, F_ADD_SEALS, LAUNCH_SEALS) != 0)) {
        int e = errno;
        close(fd);
        errno = e;
        fd = -1;
    }
    buffer_deinit(&b);
    return fd;
}

/* --- reading --- */

struct reader {
    struct slice left;
    struct arena *arena;
    char *error;
    size_t cap;
};

static enum err refuse(struct reader *r, const char *what)
{
    snprintf(r->error, r->cap, "the description of a program is not well-formed: %s", what);
    return ERR_INVALID;
}

static enum err take_text(struct reader *r, struct slice *out, size_t max, const char *what)
{
    uint32_t len;
    if (r->left.len < sizeof len)
        return refuse(r, "it ends early");
    memcpy(&len, r->left.ptr, sizeof len);
    r->left = slice_skip(r->left, sizeof len);
    if (len > r->left.len)
        return refuse(r, "it ends early");
    struct slice s = slice_take(r->left, len);
    r->left = slice_skip(r->left, len);
    if (len > max || (len > 0 && memchr(s.ptr, '\0', len) != NULL))
        return refuse(r, what);
    *out = slice_of(arena_str(r->arena, s), len);
    return OK;
}

static enum err take_words(struct reader *r, struct slice **out, size_t count, const char *what)
{
    if (count > LAUNCH_WORDS_MAX || count > r->left.len / sizeof(uint32_t))
        return refuse(r, what);
    *out = ARENA_ARRAY(r->arena, struct slice, count + 1);
    for (size_t i = 0; i < count; i++)
        TRY(take_text(r, &(*out)[i], LAUNCH_BYTES_MAX, what));
    return OK;
}

static bool valid_name(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = ascii_lower(s.ptr[i]);
        bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!plain && (i == 0 || (c != '-' && c != '_' && c != '.')))
            return false;
    }
    return s.len > 0;
}

static enum err check(struct reader *r, const struct launch *l)
{
    if (!valid_name(l->service))
        return refuse(r, "the service's name");
    if (l->argv_count == 0 || l->argv[0].len == 0)
        return refuse(r, "there is nothing to run");
    for (size_t i = 0; i < l->env_count; i++) {
        size_t at = slice_find(l->env[i], '=');
        if (at == 0 || at == SIZE_MAX)
            return refuse(r, "a variable without a name or \"=\"");
    }
    if (l->dir.len > 0 && l->dir.ptr[0] != '/')
        return refuse(r, "dir is not absolute");
    if (!isfinite(l->cpu) || l->cpu < 0 || l->cpu > CPU_MAX)
        return refuse(r, "limit of cpu");
    if (l->socket && (l->port == 0 || l->host.len == 0))
        return refuse(r, "a socket without an address");
    return OK;
}

enum err launch_parse(struct slice bytes, struct launch *l, struct arena *arena, char *error,
                      size_t cap)
{
    struct launch_head head;
    struct reader r = {bytes, arena, error, cap};
    *l = (struct launch){0};
    if (bytes.len < sizeof head || bytes.len > LAUNCH_BYTES_MAX)
        return refuse(&r, "its size");
    memcpy(&head, bytes.ptr, sizeof head);
    r.left = slice_skip(bytes, sizeof head);
    if (head.magic != LAUNCH_MAGIC || head.confine > 1 || head.socket > 1)
        return refuse(&r, "its head");
    *l = (struct launch){.replica = head.replica, .digest = head.digest, .memory = head.memory,
                         .tasks = head.tasks, .files = head.files, .cpu = head.cpu,
                         .argv_count = head.argv_count, .env_count = head.env_count,
                         .port = head.port, .confine = head.confine, .socket = head.socket};
    TRY(take_text(&r, &l->service, NAME_MAX_LEN, "the service's name"));
    TRY(take_text(&r, &l->dir, LAUNCH_BYTES_MAX, "dir"));
    TRY(take_text(&r, &l->user, USER_MAX_LEN, "user"));
    TRY(take_text(&r, &l->group, USER_MAX_LEN, "group"));
    TRY(take_text(&r, &l->host, HOST_MAX_LEN, "host"));
    TRY(take_words(&r, &l->argv, l->argv_count, "a word to run"));
    TRY(take_words(&r, &l->env, l->env_count, "a variable"));
    if (r.left.len > 0)
        return refuse(&r, "something behind its end");
    return check(&r, l);
}

enum err launch_read(int fd, struct launch *l, struct arena *arena, char *error, size_t cap)
{
    struct stat s;
    struct reader r = {.error = error, .cap = cap};
    *l = (struct launch){0};
    int seals = fcntl(fd, F_GET_SEALS); /* fails for what is no memory file: a pipe would block */
    if (seals < 0 || (seals & LAUNCH_SEALS) != LAUNCH_SEALS)
        return refuse(&r, "it is not a sealed memory file");
    if (fstat(fd, &s) != 0 || s.st_size <= 0 || s.st_size > LAUNCH_BYTES_MAX)
        return refuse(&r, "its size");
    char *bytes = arena_alloc(arena, (size_t)s.st_size);
    ssize_t n = pread(fd, bytes, (size_t)s.st_size, 0);
    if (n != s.st_size)
        return refuse(&r, "it cannot be read");
    return launch_parse(slice_of(bytes, (size_t)n), l, arena, error, cap);
}
