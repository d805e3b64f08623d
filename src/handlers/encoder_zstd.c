/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zstandard, with a window of 128 KiB as in Caddy: larger ones burden clients, and this worker.
 * Caddy's four levels stand for zstd's 1, 3, 7 and 11.
 *
 *     "zstd": {"level": "default", "checksum": true}
 */
#include <zstd.h>

#include "handlers/encoder.h"

enum { WINDOW_LOG = 17 };

static const char *const members[] = {"level", "checksum", NULL};
static const struct encoder_type type;

static const struct {
    const char *name;
    int level;
    int hash_log, chain_log; /* tables as small as the window is */
    unsigned memory;
    bool slow;
} levels[] = {
    {"default", 3, 16, 15, 1310, false},
    {"fastest", 1, 14, 13, 990, false},
    {"better", 7, 17, 16, 1700, true},
    {"best", 11, 17, 17, 1700, true},
};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct encoder_settings *s = cfg;
    struct slice name;
    bool checksum;
    TRY(provision_members(p, json, members));
    TRY(provision_text(p, json, "level", SLICE(""), &name));
    TRY(provision_bool(p, json, "checksum", true, &checksum));
    if (name.len == 0)
        name = SLICE("default");
    *s = (struct encoder_settings){.type = &type, .option = checksum};
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        if (!slice_eq_nocase(name, slice_from(levels[i].name)))
            continue;
        s->level = (int)i;
        s->memory = levels[i].memory;
        s->slow = levels[i].slow;
        return OK;
    }
    return provision_fail(p, "unexpected compression level, use one of 'fastest', 'better', 'best', "
                          "'default'");
}

static bool init(struct encoder *e)
{
    if (e->state != NULL)
        return !ZSTD_isError(ZSTD_CCtx_reset(e->state, ZSTD_reset_session_only));
    ZSTD_CCtx *c = ZSTD_createCCtx();
    if (c == NULL)
        return false;
    ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, levels[e->settings.level].level);
    ZSTD_CCtx_setParameter(c, ZSTD_c_windowLog, WINDOW_LOG);
    ZSTD_CCtx_setParameter(c, ZSTD_c_hashLog, levels[e->settings.level].hash_log);
    ZSTD_CCtx_setParameter(c, ZSTD_c_chainLog, levels[e->settings.level].chain_log);
    ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, e->settings.option);
    e->state = c;
    return true;
}

static bool run(struct encoder *e, enum encoder_step step, bool *done)
{
    static const ZSTD_EndDirective ends[] = {ZSTD_e_continue, ZSTD_e_flush, ZSTD_e_end};
    ZSTD_inBuffer in = {e->input.ptr, e->input.len, 0};
    ZSTD_outBuffer out = {e->out, sizeof e->out, e->out_len};
    size_t left = ZSTD_compressStream2(e->state, &out, &in, ends[step]);
    e->input = slice_skip(e->input, in.pos);
    e->out_len = out.pos;
    *done = step == ENCODE_MORE ? e->input.len == 0 : left == 0;
    return !ZSTD_isError(left);
}

static void deinit(struct encoder *e)
{
    ZSTD_freeCCtx(e->state);
}

static const struct encoder_type type = {
    .name = {"zstd", 4},
    .init = init,
    .run = run,
    .deinit = deinit,
};

const struct module encoder_zstd = {
    .id = "http.encoders.zstd",
    .cfg_size = sizeof(struct encoder_settings),
    .provision = provision,
    .face = &type,
};
