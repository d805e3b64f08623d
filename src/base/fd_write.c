/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A write of nothing would go on for ever: it is an error.
 */
#include "base/fd_write.h"

#include <errno.h>
#include <unistd.h>

enum err fd_write_all(int fd, struct slice bytes)
{
    while (bytes.len > 0) {
        ssize_t n = write(fd, bytes.ptr, bytes.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = EIO;
        if (n <= 0)
            return err_from_errno(errno);
        bytes = slice_skip(bytes, (size_t)n);
    }
    return OK;
}
