/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The open-file cache of one worker: path → descriptor, what stat told, and the bytes of small
 * files. An entry is checked against the file system when the kernel told of a change near it, and
 * at the latest FILE_CHECK_NS after it was, so a change is seen within that time, whatever moved:
 * the file, a symlink, or a folder above it.
 */
#pragma once

#include <sys/stat.h>

#include "base/list.h"
#include "base/map.h"

enum {
    FILE_CACHE_ENTRIES = 4096,         /* per worker */
    FILE_CACHE_SMALL = 64 * 1024,      /* files up to this size are kept in memory */
    FILE_CACHE_BYTES = 32 * 1024 * 1024, /* of them and of all paths, per worker */
    FILE_CACHE_COPY = 1024 * 1024, /* larger files than small ones, kept in memory for encryption */
    FILE_CACHE_COPIES = 16 * 1024 * 1024, /* of them, per worker */
    FILE_CACHE_FDS = 1024, /* descriptors, per worker; fewer where the process may have few */
};
#define FILE_CHECK_NS UINT64_C(1000000000)

struct open_file {
    struct list lru;      /* of its cache; newest last */
    struct list fd_lru;   /* likewise, of those that hold a descriptor */
    struct list copy_lru; /* likewise, of those that have a copy */
    struct slice path;
    enum err error;       /* OK, or why it cannot be served: ERR_NOT_FOUND, ERR_DENIED, … */
    bool exists;          /* also where it may not be read, or is no file and no folder */
    bool is_dir;
    int fd;               /* regular files that are not in memory; -1 else */
    uint64_t size;
    int64_t mtime_ns;     /* since 1970 */
    struct slice bytes;   /* the whole content of a small file; ptr NULL when not kept */
    struct slice copy;    /* the whole content beside fd; ptr NULL when not kept */
    unsigned copy_asked;
    char etag[40];        /* "\"…-…\"", or "" where the time is of no use */
    char modified[30];    /* HTTP date, or "" */
    struct slice mime;    /* by the name's extension; empty when unknown */
    struct stat stat;
    uint64_t checked_ns;  /* when stat was last compared */
    uint64_t watch_state; /* what the kernel had told until then */
    unsigned watch_slot;
    unsigned refs;        /* exchanges that use it, and the cache's own */
    bool cached;
};

struct file_cache {
    struct map map;
    struct list lru, fd_lru, copy_lru;
    size_t bytes, copies;
    unsigned fds, fds_max;
    bool off;     /* every look-up asks the file system */
    bool watches; /* changes that the kernel tells are seen before FILE_CHECK_NS is over */
};

struct file_cache *file_cache_create(bool off, bool watches);
void file_cache_destroy(struct file_cache *);

/* Never NULL: look at ->error. The caller gives it back with open_file_unref. `now_ns` is the
 * monotonic clock. Does file system calls when the entry is new or due for its check. */
struct open_file *file_cache_open(struct file_cache *, struct slice path, uint64_t now_ns);
void open_file_unref(struct open_file *);

/* The whole content in memory, for who must touch each byte (encryption) and would read the file anew
 * for each client: of small files, and of those up to FILE_CACHE_COPY that are asked for often. NULL
 * when it is not kept. It stays as long as the file is referenced. */
const char *file_cache_copy(struct file_cache *, struct open_file *);

/* The calling worker's own cache; NULL on threads that have none. */
struct file_cache *file_cache_self(void);
void file_cache_thread_init(void);
void file_cache_thread_deinit(void);
