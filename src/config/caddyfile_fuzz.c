/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a Caddyfile: parsed without opening files, and formatted. A word of the result is
 * valid UTF-8, and what the formatter wrote has the same words.
 */
#include "base/check.h"
#include "base/text.h"
#include "config/caddyfile.h"
#include "config/format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_parse(struct slice in)
{
    struct arena arena;
    struct server_blocks blocks;
    static struct diag diag;
    arena_init(&arena, 16384);
    enum err e = caddyfile_parse_alone(&arena, SLICE("Caddyfile"), in, &blocks, &diag);
    ASSERT(e == OK || diag.text[0] != '\0');
    ASSERT(utf8_valid(slice_from(diag.text)));
    for (size_t i = 0; i < blocks.count; i++)
        for (size_t k = 0; k < blocks.items[i].segment_count; k++)
            for (size_t t = 0; t < blocks.items[i].segments[k].count; t++)
                ASSERT(utf8_valid(blocks.items[i].segments[k].items[t].text));
    arena_deinit(&arena);
}

static void check_format(struct slice in)
{
    struct buffer out;
    buffer_init(&out, 64 << 20);
    ASSERT(caddyfile_format(in, &out) == OK);
    ASSERT(out.len > 0 && out.ptr[out.len - 1] == '\n' && out.len <= 12 * in.len + 1);
    buffer_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = {(const char *)data, size};
    check_parse(in);
    check_format(in);
    return 0;
}
