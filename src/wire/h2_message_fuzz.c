/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as header blocks of one connection: requests, trailers and blocks that nobody wants, by
 * turns, each a byte of kind and length and so many bytes. What is taken for a request must be one,
 * and its fields must come back unchanged when they are written as trailers and read again.
 */
#include "base/check.h"
#include "wire/h1_head.h"
#include "wire/h2_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct http_server server;

static void check_again(const struct fields *fs, struct arena *arena)
{
    static char out[1 << 20];
    struct hpack_encoder e;
    struct hpack_decoder d;
    struct hpack_reader r;
    struct hpack_field f;
    uint32_t at = 0;
    if (h2_block_room(fs) > sizeof out)
        return;
    hpack_encoder_init(&e);
    hpack_decoder_init(&d);
    char *end = h2_trailers_put(&e, out, fs);
    hpack_read(&r, &d, slice_of(out, (size_t)(end - out)), arena, UINT32_MAX);
    while (hpack_next(&r, &f) == HPACK_FIELD) {
        while (f.id != hpack_name_of(fs->items[at].name)) /* what is left out */
            at++;
        ASSERT(at < fs->count && slice_eq_nocase(f.name, fs->items[at].name));
        ASSERT(slice_eq(f.value, fs->items[at++].value));
        ASSERT((f.marks & (HPACK_NAME_BAD | HPACK_VALUE_BAD)) == 0);
    }
    ASSERT(r.bad == NULL);
    hpack_encoder_deinit(&e);
    hpack_decoder_deinit(&d);
}

static void check_request(const struct request *q, const struct h2_head *head)
{
    ASSERT(h1_name_ok(q->method) && q->target.len > 0 && h1_host_ok(q->host));
    ASSERT(slice_is(q->method, "CONNECT") || q->target.ptr[0] == '/' || slice_is(q->target, "*"));
    ASSERT(head->bad == NULL && q->fields.count <= H1_FIELDS_MAX);
    ASSERT(!fields_has(&q->fields, SLICE("host")) && !fields_has(&q->fields, SLICE("upgrade")));
    check_again(&q->fields, q->fields.arena);
}

static bool try_block(struct hpack_decoder *d, struct h2_block *b, unsigned kind)
{
    struct request q = {0};
    struct h2_head head;
    struct fields trailers;
    const char *why;
    enum h2_verdict v = H2_VERDICT_OK;
    uint8_t urgency = 3;
    bool incremental = false;
    b->ends = kind & 4;
    b->connect_allowed = kind & 8;
    b->list_max = kind & 16 ? 200 : 16384;
    switch (kind & 3) {
    case 0:
        fields_init(&trailers, b->arena);
        v = h2_trailers_decode(d, b, &server, &trailers, &why);
        break;
    case 1:
        h2_priority_parse(b->bytes, &urgency, &incremental);
        return h2_block_skip(d, b->bytes, b->arena, &why);
    default:
        v = h2_request_decode(d, b, &server, &q, &head);
        if (v == H2_VERDICT_OK)
            check_request(&q, &head);
    }
    return v != H2_VERDICT_BROKEN;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct hpack_decoder d;
    struct h2_block b = {.arena = &arena};
    struct slice in = slice_of((const char *)data, size);
    bool going = true;
    arena_init(&arena, 8192);
    hpack_decoder_init(&d);
    while (in.len >= 2 && going) {
        unsigned kind = (unsigned char)in.ptr[0], len = (unsigned char)in.ptr[1];
        b.bytes = slice_take(slice_skip(in, 2), len);
        in = slice_skip(in, 2 + len);
        going = try_block(&d, &b, kind);
        arena_reset(&arena);
    }
    hpack_decoder_deinit(&d);
    arena_deinit(&arena);
    return 0;
}
