/* SPDX-License-Identifier: Apache-2.0 */
/*
 * malloc that does not fail: it aborts, with a line that says so. Zero-sized requests get one byte,
 * so that a pointer is always unique and never NULL.
 */
#include "base/mem.h"

#include <malloc.h>
#include <stdlib.h>

#include "base/check.h"

void *mem_alloc(size_t size)
{
    void *p = malloc(size > 0 ? size : 1);
    if (UNLIKELY(p == NULL))
        fatal("out of memory");
    return p;
}

void *mem_zalloc(size_t size)
{
    void *p = calloc(1, size > 0 ? size : 1);
    if (UNLIKELY(p == NULL))
        fatal("out of memory");
    return p;
}

void *mem_realloc(void *old, size_t size)
{
    void *p = realloc(old, size > 0 ? size : 1);
    if (UNLIKELY(p == NULL))
        fatal("out of memory");
    return p;
}

void *mem_resize(void *old, size_t count, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(count, size, &total))
        fatal("allocation size overflows");
    return mem_realloc(old, total);
}

void mem_free(void *p)
{
    free(p);
}

void mem_give_back(void)
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}
