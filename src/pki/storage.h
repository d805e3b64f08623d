/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where certificates, keys and accounts are kept between two starts, and shared by instances: keys
 * are paths with '/' ("certificates/acme-…/example.com/example.com.key"). The file system's layout,
 * modes and lock files are certmagic's, so that a folder of Caddy is taken over as it stands, and
 * back. Calls may wait when made on a fiber; off fibers they block. A failure leaves a sentence in
 * `why`, never a half-written value.
 */
#pragma once

#include <jansson.h>

#include "base/arena.h"

struct storage;

struct storage_info {
    uint64_t size;
    int64_t modified_ns; /* clock_file_ns */
    bool is_folder;
};

struct storage_why {
    char text[512];
};

struct storage_type {
    enum err (*store)(struct storage *, struct slice key, struct slice value, struct storage_why *);
    enum err (*load)(struct storage *, struct slice key, struct arena *, struct slice *value,
                     struct storage_why *); /* ERR_NOT_FOUND */
    enum err (*remove)(struct storage *, struct slice key, struct storage_why *); /* a folder: all */
    enum err (*stat)(struct storage *, struct slice key, struct storage_info *, struct storage_why *);
    /* The keys right below `prefix`, or all below it; sorted. */
    enum err (*list)(struct storage *, struct slice prefix, bool recursive, struct arena *,
                     struct slice **keys, size_t *count, struct storage_why *);
    /* Waits until nobody else, in this or another process or machine, holds it; a stale one of a
     * holder that died is taken over, as certmagic's rules say. */
    enum err (*lock)(struct storage *, struct slice name, uint64_t deadline_ns, struct storage_why *);
    enum err (*unlock)(struct storage *, struct slice name, struct storage_why *);
    void (*close)(struct storage *); /* the last one gives the locks back that are still held */
};

struct storage {
    const struct storage_type *type;
    struct slice root; /* the file system's folder; for messages */
};

/* The file system below `root`, which need not exist yet; folders 0700, files 0600. One object for
 * all who name the same root: each closes it once. */
struct storage *storage_open_files(struct slice root);

/* Gives back all locks that this process holds: right before its end, whatever waits for them. */
void storage_give_back_locks(void);

/* A part of a key that is safe as a file's name, by certmagic's rules ("*" becomes "wildcard_"). */
struct slice storage_safe(struct arena *, struct slice part);

/* Sets the sentence; returns `e`. */
enum err storage_fail(struct storage_why *, enum err e, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
