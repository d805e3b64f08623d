/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A free one holds the pointer to the next at its front; beyond IOBUFS_KEPT they go back to the
 * heap. AddressSanitizer knows those that are kept as free.
 */
#include "upstream/iobuf.h"

#include <string.h>

#include "base/mem.h"
#include "base/sanitizer.h"

static _Thread_local struct {
    char *first;
    unsigned count;
} kept;

char *iobuf_take(void)
{
    char *buf = kept.first;
    if (buf == NULL)
        return mem_alloc(IOBUF_SIZE);
    UNPOISON(buf, IOBUF_SIZE);
    memcpy(&kept.first, buf, sizeof kept.first);
    kept.count--;
    return buf;
}

void iobuf_give(char *buf)
{
    if (kept.count == IOBUFS_KEPT) {
        mem_free(buf);
        return;
    }
    memcpy(buf, &kept.first, sizeof kept.first);
    POISON(buf, IOBUF_SIZE);
    kept.first = buf;
    kept.count++;
}

void iobuf_thread_deinit(void)
{
    while (kept.count > 0)
        mem_free(iobuf_take());
}
