/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of a listening Unix socket, which root makes in a folder that may be another user's: who can
 * put another folder or a link in the place of whatever the path names, at any moment. So the folder is
 * opened once, and what is done to the file is done in there.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct socket_file {
    dev_t device;
    ino_t inode;
};

struct socket_place {
    int folder;
    const char *name; /* in the path that it was opened with */
};

/* These return 0 or an errno; after the first one the place is to be closed, whatever came. */
int socket_place_open(struct socket_place *, const char *path);

/* A file that nobody listens on is a left-over, and removed. EADDRINUSE: something else stands there;
 * `alive`: a server that answers. */
int socket_place_clear(const struct socket_place *, bool *alive);

/* Behind the bind: what stands in a cleared place is what was bound, or the path leads elsewhere by now
 * and this fails. With a uid that is not 0 the file is given to that user; where that cannot be, the
 * log says so. */
int socket_place_settle(const struct socket_place *, mode_t mode, uid_t uid, gid_t gid,
                        struct socket_file *);
void socket_place_close(struct socket_place *);

/* Unless another file stands there by now. */
void socket_file_remove(const struct socket_file *, const char *path);
