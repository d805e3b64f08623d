/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a configuration in JSON: it provisions or is refused with a sentence, and nothing is
 * left of it. No file is written whatever it names.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>

#include "app/generation.h"
#include "base/check.h"
#include "base/log.h"
#include "config/jsonx.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Comes before the C library's: a configuration from a fuzzer opens nothing. */
int open(const char *path, int flags, ...)
{
    (void)path;
    (void)flags;
    errno = EACCES;
    return -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct generation *g;
    char error[2048] = "";
    struct slice text = slice_of((const char *)data, size);
    if (jsonx_too_deep(text, JSONX_MAX_DEPTH))
        return 0;
    json_t *document = json_loadb(text.ptr, text.len, JSON_DECODE_ANY, NULL);
    if (document == NULL)
        return 0;
    log_set_threshold(LOG_FATAL);
    if (generation_create(document, 1, &g, error, sizeof error) == OK)
        generation_free(g);
    else
        ASSERT(g == NULL && error[0] != '\0');
    json_decref(document);
    return 0;
}
