/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The descriptor stands above what socket activation may have handed over, and its number in the
 * environment. It is read at offset 0, since the keeper's copy shares the position.
 */
#include "app/passed_document.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/slice.h"

#define DOCUMENT_ENV "PORTICO_DOCUMENT"

enum err document_pass(const json_t *document)
{
    char number[16];
    int made = memfd_create("portico-config", MFD_CLOEXEC);
    if (made < 0)
        return err_from_errno(errno);
    int fd = fcntl(made, F_DUPFD, 900);
    if (fd < 0) /* where so few descriptors are allowed */
        fd = fcntl(made, F_DUPFD, 60);
    close(made);
    if (fd < 0)
        return err_from_errno(errno);
    if (json_dumpfd(document, fd, JSON_COMPACT) != 0)
        return ERR_IO;
    snprintf(number, sizeof number, "%d", fd);
    return setenv(DOCUMENT_ENV, number, 1) == 0 ? OK : err_from_errno(errno);
}

json_t *document_passed(void)
{
    const char *number = getenv(DOCUMENT_ENV);
    struct stat st;
    uint64_t fd;
    if (number == NULL || !slice_to_u64(slice_from(number), INT32_MAX, &fd) ||
        fstat((int)fd, &st) != 0)
        return NULL;
    unsetenv(DOCUMENT_ENV);
    char *bytes = mem_alloc((size_t)st.st_size + 1);
    ssize_t n = pread((int)fd, bytes, (size_t)st.st_size, 0);
    close((int)fd);
    json_t *document = n == st.st_size ? json_loadb(bytes, (size_t)n, 0, NULL) : NULL;
    mem_free(bytes);
    return document;
}
