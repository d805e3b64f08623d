/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the description of a program: refused with a sentence, or read so that it can be
 * written again, and then reads the same. No text holds a NUL.
 */
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "services/launch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(struct slice s)
{
    ASSERT(memchr(s.ptr, '\0', s.len + 1) == s.ptr + s.len);
}

static void check_again(const struct launch *a, struct arena *arena)
{
    struct launch b;
    char error[200] = "";
    int fd = launch_write(a);
    ASSERT(fd >= 0);
    ASSERT(launch_read(fd, &b, arena, error, sizeof error) == OK);
    close(fd);
    ASSERT(slice_eq(a->service, b.service) && slice_eq(a->dir, b.dir));
    ASSERT(a->argv_count == b.argv_count && a->env_count == b.env_count);
    for (size_t i = 0; i < a->argv_count; i++) {
        check_text(a->argv[i]);
        ASSERT(slice_eq(a->argv[i], b.argv[i]));
    }
    for (size_t i = 0; i < a->env_count; i++) {
        check_text(a->env[i]);
        ASSERT(slice_eq(a->env[i], b.env[i]));
    }
    ASSERT(a->port == b.port && a->confine == b.confine && a->cpu == b.cpu);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct launch l;
    char error[200] = "";
    arena_init(&arena, 4096);
    enum err e = launch_parse(slice_of((const char *)data, size), &l, &arena, error, sizeof error);
    ASSERT(e == OK || error[0] != '\0');
    if (e == OK)
        check_again(&l, &arena);
    arena_deinit(&arena);
    return 0;
}
