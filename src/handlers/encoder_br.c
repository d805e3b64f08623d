/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Brotli (RFC 7932). Caddy's core has no such encoder, only plugins; the options are theirs: a quality
 * of 0 … 11, 4 by default, and the window's logarithm, 17 by default (128 KiB). The library has no
 * way to use a state again, so each response gets a new one.
 *
 *     "br": {"quality": 4, "lgwin": 17}
 */
#include <brotli/encode.h>

#include "handlers/encoder.h"

enum { QUALITY = 4, QUALITY_SLOW = 5, WINDOW = 17 };

static const char *const members[] = {"quality", "level", "lgwin", NULL};
static const struct encoder_type type;

/* As measured: hash tables by quality, and buffers by the window. */
static unsigned memory_of(int64_t quality, int64_t window)
{
    unsigned tables = quality < 4 ? 900 : quality < 9 ? 1800 : quality == 9 ? 37000 : 7000;
    return tables + (3u << window >> 10);
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct encoder_settings *s = cfg;
    int64_t quality, window;
    TRY(provision_members(p, json, members));
    TRY(provision_int(p, json, "level", QUALITY, BROTLI_MIN_QUALITY, BROTLI_MAX_QUALITY, &quality));
    TRY(provision_int(p, json, "quality", quality, BROTLI_MIN_QUALITY, BROTLI_MAX_QUALITY,
                      &quality));
    TRY(provision_int(p, json, "lgwin", WINDOW, BROTLI_MIN_WINDOW_BITS, BROTLI_MAX_WINDOW_BITS,
                      &window));
    *s = (struct encoder_settings){.type = &type, .level = (int)quality, .option = (int)window,
                                   .memory = memory_of(quality, window),
                                   .slow = quality >= QUALITY_SLOW};
    return OK;
}

static void deinit(struct encoder *e)
{
    BrotliEncoderDestroyInstance(e->state);
}

static bool init(struct encoder *e)
{
    BrotliEncoderState *b = BrotliEncoderCreateInstance(NULL, NULL, NULL);
    if (b == NULL)
        return false;
    BrotliEncoderSetParameter(b, BROTLI_PARAM_QUALITY, (uint32_t)e->settings.level);
    BrotliEncoderSetParameter(b, BROTLI_PARAM_LGWIN, (uint32_t)e->settings.option);
    e->state = b;
    return true;
}

static bool run(struct encoder *e, enum encoder_step step, bool *done)
{
    static const BrotliEncoderOperation operations[] = {
        BROTLI_OPERATION_PROCESS, BROTLI_OPERATION_FLUSH, BROTLI_OPERATION_FINISH};
    const uint8_t *next_in = (const uint8_t *)e->input.ptr;
    uint8_t *next_out = (uint8_t *)e->out + e->out_len;
    size_t in_left = e->input.len, out_left = sizeof e->out - e->out_len;
    bool fine = BrotliEncoderCompressStream(e->state, operations[step], &in_left, &next_in,
                                            &out_left, &next_out, NULL);
    e->input = slice_skip(e->input, e->input.len - in_left);
    e->out_len = sizeof e->out - out_left;
    *done = in_left == 0 && !BrotliEncoderHasMoreOutput(e->state) &&
            (step != ENCODE_END || BrotliEncoderIsFinished(e->state));
    return fine;
}

static const struct encoder_type type = {
    .name = {"br", 2},
    .init = init,
    .run = run,
    .deinit = deinit,
    .once = true,
};

const struct module encoder_br = {
    .id = "http.encoders.br",
    .cfg_size = sizeof(struct encoder_settings),
    .provision = provision,
    .face = &type,
};
