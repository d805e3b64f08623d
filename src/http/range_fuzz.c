/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as Range, If-Match and If-Range, against any size: ranges lie within the file, hold at
 * least one byte (but for the empty file's), and never sum up to more than the file.
 */
#include "base/check.h"
#include "http/conditional.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_ranges(struct slice value, uint64_t size)
{
    struct range r[RANGES_MAX];
    size_t count = 0;
    uint64_t total = 0;
    if (range_parse(value, size, r, &count) != RANGE_SOME)
        return;
    ASSERT(count > 0 && count <= RANGES_MAX);
    for (size_t i = 0; i < count; i++) {
        ASSERT(r[i].start <= size && r[i].len <= size - r[i].start);
        total += r[i].len;
    }
    ASSERT(total <= size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"If-Match", "If-None-Match", "If-Modified-Since",
                                        "If-Unmodified-Since", "If-Range"};
    struct arena arena;
    struct request q = {.method_id = METHOD_GET};
    uint64_t file = size > 0 ? (uint64_t)data[0] * data[0] : 0;
    struct slice value = slice_of((const char *)data + (size > 0), size > 0 ? size - 1 : 0);
    check_ranges(value, file);
    check_ranges(value, INT64_MAX);
    arena_init(&arena, 1024);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        fields_init(&q.fields, &arena);
        fields_add(&q.fields, slice_from(names[i]), value);
        (void)condition_check(&q, SLICE("\"a\""), 784111777);
        (void)condition_check(&q, SLICE(""), 0);
    }
    arena_deinit(&arena);
    return 0;
}
