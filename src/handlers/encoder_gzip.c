/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gzip, by zlib: 32 KiB of window. Levels are Caddy's: 1 … 9, 5 by default; -2 codes without looking
 * for matches, -3 is its fastest.
 *
 *     "gzip": {"level": 5}
 */
#include <zlib.h>

#include "base/mem.h"
#include "handlers/encoder.h"

enum { LEVEL = 5, LEVEL_MIN = -3, WINDOW_AND_GZIP = 15 + 16, MEMORY = 8 };

static const char *const members[] = {"level", NULL};
static const struct encoder_type type;

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct encoder_settings *s = cfg;
    int64_t level;
    TRY(provision_members(p, json, members));
    TRY(provision_int(p, json, "level", 0, INT32_MIN, INT32_MAX, &level));
    if (level < LEVEL_MIN)
        return provision_fail(p, "quality too low; must be >= %d", LEVEL_MIN);
    if (level > Z_BEST_COMPRESSION)
        return provision_fail(p, "quality too high; must be <= %d", Z_BEST_COMPRESSION);
    *s = (struct encoder_settings){.type = &type, .level = level == 0 ? LEVEL : (int)level,
                                   .memory = 300};
    return OK;
}

static bool init(struct encoder *e)
{
    int level = e->settings.level;
    if (e->state != NULL)
        return deflateReset(e->state) == Z_OK;
    z_stream *z = mem_zalloc(sizeof *z);
    if (deflateInit2(z, level < -1 ? Z_BEST_SPEED : level, Z_DEFLATED, WINDOW_AND_GZIP, MEMORY,
                     level == -2 ? Z_HUFFMAN_ONLY : Z_DEFAULT_STRATEGY) != Z_OK) {
        mem_free(z);
        return false;
    }
    e->state = z;
    return true;
}

static bool run(struct encoder *e, enum encoder_step step, bool *done)
{
    static const int flush[] = {Z_NO_FLUSH, Z_SYNC_FLUSH, Z_FINISH};
    z_stream *z = e->state;
    z->next_in = (Bytef *)(uintptr_t)e->input.ptr;
    z->avail_in = (uInt)e->input.len;
    z->next_out = (Bytef *)e->out + e->out_len;
    z->avail_out = (uInt)(sizeof e->out - e->out_len);
    int result = deflate(z, flush[step]);
    e->input = slice_skip(e->input, e->input.len - z->avail_in);
    e->out_len = sizeof e->out - z->avail_out;
    *done = step == ENCODE_END ? result == Z_STREAM_END : z->avail_out > 0 && z->avail_in == 0;
    return result != Z_STREAM_ERROR;
}

static void deinit(struct encoder *e)
{
    deflateEnd(e->state);
    mem_free(e->state);
}

static const struct encoder_type type = {
    .name = {"gzip", 4},
    .init = init,
    .run = run,
    .deinit = deinit,
};

const struct module encoder_gzip = {
    .id = "http.encoders.gzip",
    .cfg_size = sizeof(struct encoder_settings),
    .provision = provision,
    .face = &type,
};
