/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two halves of the file system's storage share: values (file_storage.c) and locks
 * (file_lock.c).
 */
#pragma once

#include <pthread.h>

#include "base/list.h"
#include "pki/storage.h"

enum { STORAGE_PATH_MAX = 4096 };

struct file_storage {
    struct storage storage;
    struct list node;     /* of all open ones */
    unsigned users;
    int64_t fresh_ns;     /* how often a held lock is refreshed: certmagic's, but in tests */
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t wake;  /* `locks` has changed, or the end */
    struct list locks;    /* held: struct held_lock */
    pthread_t refresher;  /* keeps them fresh; runs from the first one on */
    bool refreshing, ending;
};

/* Writes the path of a key. ERR_INVALID: it would leave the folder, or is too long. */
enum err storage_path(const struct storage *, struct slice key, char out[STORAGE_PATH_MAX],
                      struct storage_why *);

/* Makes the folders above a path, 0700. */
enum err storage_make_folders(const char *path, struct storage_why *);

/* Runs `work(arg)` where it may block: elsewhere when this is a fiber. An error: it has not run. */
enum err storage_blocking(void (*work)(void *), void *arg, struct storage_why *);

/* strerror with the sentence in front; returns the errno's error. */
enum err storage_fail_errno(struct storage_why *, int number, const char *what, const char *path);

void file_locks_init(struct file_storage *);
void file_locks_give_back(struct file_storage *);
void file_locks_deinit(struct file_storage *);
enum err file_lock(struct storage *, struct slice name, uint64_t deadline_ns, struct storage_why *);
enum err file_unlock(struct storage *, struct slice name, struct storage_why *);
