/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Secrets are what these files hold, mostly, and few bytes: they are read each time, as in Caddy, so
 * that a new one counts at once. A pipe or a device would block the thread, so only plain files are
 * read. Values are looked for at the end of a request too, where nothing may wait.
 */
#include "http/placeholder_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

enum { TEXT_MAX = 1 << 20 };

static const char *read_file(int fd, struct arena *a, struct slice *text)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return strerror(errno);
    if (!S_ISREG(st.st_mode))
        return "not a plain file";
    if (st.st_size > TEXT_MAX)
        return "more than 1 MiB";
    char *bytes = arena_alloc(a, (size_t)st.st_size + 1);
    ssize_t n = pread(fd, bytes, (size_t)st.st_size, 0);
    if (n < 0)
        return strerror(errno);
    *text = slice_of(bytes, (size_t)n);
    return NULL;
}

bool placeholder_file(struct exchange *x, struct slice path, struct slice *value)
{
    *value = SLICE_NONE;
    int fd = open(arena_str(x->arena, path), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    const char *why = fd < 0 ? strerror(errno) : read_file(fd, x->arena, value);
    if (fd >= 0)
        close(fd);
    if (why != NULL)
        LOG(LOG_ERROR, "", "placeholder: failed to read file", LOG_STR("file", path),
            LOG_CSTR("error", why));
    if (slice_ends(*value, SLICE("\n")))
        value->len--;
    if (slice_ends(*value, SLICE("\r")))
        value->len--;
    return true;
}
