/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HPACK against nghttp2's. An input is a kind and a sequence of pieces, each a byte of length and
 * so many bytes. Read, they are the header blocks of one connection: both sides must take or refuse
 * the same ones, and find the same fields in those they take. Written, they are names and values of
 * fields: what our encoder makes of them must come out of nghttp2's decoder and of ours unchanged;
 * and what nghttp2's encoder makes of them, out of ours.
 */
#include <nghttp2/nghttp2.h>

#include "base/buffer.h"
#include "base/check.h"
#include "wire/hpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LIST_MAX = 1 << 20, OUT_MAX = 1 << 16 };

struct side {
    struct hpack_decoder ours;
    nghttp2_hd_inflater *theirs;
    struct arena arena;
    struct buffer our_list, their_list;
};

static bool take_piece(struct slice *in, struct slice *piece)
{
    if (in->len == 0)
        return false;
    size_t len = (unsigned char)in->ptr[0];
    *in = slice_skip(*in, 1);
    *piece = slice_take(*in, len);
    *in = slice_skip(*in, len);
    return true;
}

static void note(struct buffer *list, struct slice name, struct slice value, bool never)
{
    (void)!buffer_append_f(list, "%zu %zu %d ", name.len, value.len, never);
    (void)!buffer_append(list, name);
    (void)!buffer_append(list, value);
}

static bool read_theirs(struct side *s, struct slice block)
{
    const uint8_t *at = (const uint8_t *)block.ptr;
    size_t left = block.len;
    buffer_clear(&s->their_list);
    for (;;) {
        nghttp2_nv nv;
        int flags = 0;
        ssize_t n = nghttp2_hd_inflate_hd2(s->theirs, &nv, &flags, at, left, 1);
        if (n < 0)
            return false;
        at += n;
        left -= (size_t)n;
        if (flags & NGHTTP2_HD_INFLATE_EMIT)
            note(&s->their_list, slice_of((char *)nv.name, nv.namelen),
                 slice_of((char *)nv.value, nv.valuelen), nv.flags & NGHTTP2_NV_FLAG_NO_INDEX);
        if (flags & NGHTTP2_HD_INFLATE_FINAL) {
            nghttp2_hd_inflate_end_headers(s->theirs);
            return true;
        }
    }
}

static bool read_ours(struct side *s, struct slice block)
{
    struct hpack_reader r;
    struct hpack_field f;
    enum hpack_event e;
    buffer_clear(&s->our_list);
    hpack_read(&r, &s->ours, block, &s->arena, LIST_MAX);
    while ((e = hpack_next(&r, &f)) == HPACK_FIELD)
        note(&s->our_list, f.name, f.value, f.marks & HPACK_NEVER);
    ASSERT(s->ours.table.size <= s->ours.table.max && s->ours.table.max <= s->ours.limit);
    return e != HPACK_BAD;
}

static void begin(struct side *s)
{
    hpack_decoder_init(&s->ours);
    arena_init(&s->arena, 4096);
    buffer_init(&s->our_list, LIST_MAX * 2);
    buffer_init(&s->their_list, LIST_MAX * 2);
    ASSERT(nghttp2_hd_inflate_new(&s->theirs) == 0);
}

static void end(struct side *s)
{
    hpack_decoder_deinit(&s->ours);
    nghttp2_hd_inflate_del(s->theirs);
    arena_deinit(&s->arena);
    buffer_deinit(&s->our_list);
    buffer_deinit(&s->their_list);
}

/* Both read the block; false when both refuse it. */
static bool read_both(struct side *s, struct slice block)
{
    bool ours = read_ours(s, block), theirs = read_theirs(s, block);
    ASSERT(ours == theirs);
    ASSERT(!ours || slice_eq(buffer_slice(&s->our_list), buffer_slice(&s->their_list)));
    return ours;
}

static void try_blocks(struct slice in)
{
    struct side s;
    struct slice block;
    begin(&s);
    while (take_piece(&in, &block) && read_both(&s, block)) {
        if (block.len % 8 == 7)
            hpack_decoder_trim(&s.ours);
    }
    end(&s);
}

/* One field of two pieces, or what the first one's last byte asks for. */
static char *write_field(struct hpack_encoder *e, char *at, struct slice name, struct slice value,
                         struct buffer *want)
{
    if (name.len == 0)
        return at;
    enum hpack_how how = (unsigned char)name.ptr[name.len - 1] % 4 % 3;
    enum hpack_name id = hpack_name_of(name);
    bool never = how == HPACK_SENSITIVE || id == NAME_AUTHORIZATION || id == NAME_COOKIE ||
                 id == NAME_SET_COOKIE || id == NAME_PROXY_AUTHORIZATION;
    char small[256];
    for (size_t i = 0; i < name.len; i++)
        small[i] = ascii_lower(name.ptr[i]);
    if (id != NAME_OTHER)
        memcpy(small, hpack_names[id].ptr, name.len);
    note(want, slice_of(small, name.len), value, never);
    char *end = how == HPACK_AUTO ? hpack_put_again(e, at, id, name, value) : NULL;
    if (end == NULL)
        end = hpack_put(e, at, name, value, how);
    ASSERT((size_t)(end - at) <= hpack_room(name.len, value.len));
    return end;
}

static void try_fields(struct slice in)
{
    static char out[OUT_MAX];
    struct side s;
    struct hpack_encoder e;
    struct buffer want;
    struct slice op, name, value;
    begin(&s);
    hpack_encoder_init(&e);
    buffer_init(&want, LIST_MAX * 2);
    while (take_piece(&in, &op)) {
        char *at = hpack_begin(&e, out);
        buffer_clear(&want);
        for (size_t i = 0; i <= op.len % 16 && take_piece(&in, &name) && take_piece(&in, &value); i++)
            at = write_field(&e, at, name, value, &want);
        ASSERT(read_both(&s, slice_of(out, (size_t)(at - out))));
        ASSERT(slice_eq(buffer_slice(&want), buffer_slice(&s.our_list)));
        if (op.len > 0 && op.ptr[0] == 'r')
            hpack_encoder_rest(&e);
        if (op.len > 2 && op.ptr[0] == 'l') {
            uint32_t limit = (uint32_t)(unsigned char)op.ptr[1] << 4 | (op.ptr[2] & 15);
            hpack_encoder_limit(&e, limit);
            hpack_decoder_limit(&s.ours, limit);
            ASSERT(nghttp2_hd_inflate_change_table_size(s.theirs, limit) == 0);
        }
    }
    hpack_encoder_deinit(&e);
    buffer_deinit(&want);
    end(&s);
}

static void try_their_encoder(struct slice in)
{
    struct side s;
    struct slice name, value;
    nghttp2_hd_deflater *deflater;
    uint8_t out[2048];
    begin(&s);
    ASSERT(nghttp2_hd_deflate_new(&deflater, 4096) == 0);
    while (take_piece(&in, &name) && take_piece(&in, &value)) {
        nghttp2_nv nv = {(uint8_t *)(uintptr_t)name.ptr, (uint8_t *)(uintptr_t)value.ptr, name.len,
                         value.len, NGHTTP2_NV_FLAG_NONE};
        ssize_t n = nghttp2_hd_deflate_hd(deflater, out, sizeof out, &nv, 1);
        ASSERT(n >= 0 && read_both(&s, slice_of((char *)out, (size_t)n)));
    }
    nghttp2_hd_deflate_del(deflater);
    end(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const kinds[])(struct slice) = {try_blocks, try_fields, try_their_encoder};
    if (size > 0)
        kinds[data[0] % 3](slice_of((const char *)data + 1, size - 1));
    return 0;
}
