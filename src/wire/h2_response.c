/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Header blocks of responses and of trailers. The room for a whole block is there before, so that its
 * fields are written without further questions. Date, which changes each second and is never
 * indexed, is the same bytes for all connections of a worker.
 */
#include "base/clock.h"
#include "wire/h1_head.h"
#include "wire/h2_message.h"

/* Beside the fields: date and content-length. */
enum { BLOCK_ROOM = HPACK_BEGIN_MAX + HPACK_STATUS_MAX + 40 + 40 };

size_t h2_block_room(const struct fields *fs)
{
    size_t room = BLOCK_ROOM;
    for (uint32_t i = 0; i < fs->count; i++)
        room += hpack_room(fs->items[i].name.len, fs->items[i].value.len);
    return room;
}

static char *put_field(struct hpack_encoder *e, char *at, enum hpack_name id,
                       const struct field *f, struct arena *arena)
{
    struct slice value = slice_trim(f->value); /* RFC 9113 §8.2.1 */
    if ((id == NAME_OTHER && !h1_name_ok(f->name)) || !h1_value_fit(&value, arena))
        return at;
    if (id != NAME_OTHER)
        return hpack_put_named(e, at, id, value, HPACK_AUTO);
    return hpack_put(e, at, f->name, value, HPACK_AUTO);
}

/* What is in the table has been looked at when it got there. */
static char *put_fields(struct hpack_encoder *e, char *at, const struct fields *fs)
{
    for (uint32_t i = 0; i < fs->count; i++) {
        const struct field *f = &fs->items[i];
        enum hpack_name id = hpack_name_of(f->name);
        if (h2_left_out(id))
            continue;
        char *again = hpack_put_again(e, at, id, f->name, f->value);
        at = again != NULL ? again : put_field(e, at, id, f, fs->arena);
    }
    return at;
}

static char *put_date(struct hpack_encoder *e, char *at, struct h2_date *date, int64_t now_s)
{
    if (date->second != now_s) {
        char text[29];
        clock_http_date(now_s, text);
        char *end = hpack_put_named(e, date->bytes, NAME_DATE, slice_of(text, sizeof text),
                                    HPACK_LITERAL);
        date->len = (uint32_t)(end - date->bytes);
        date->second = now_s;
    }
    memcpy(at, date->bytes, date->len);
    return at + date->len;
}

char *h2_response_put(struct hpack_encoder *e, char *at, const struct response *res,
                      struct h2_date *date, int64_t now_s)
{
    bool no_length = res->status / 100 == 1 || res->status == 204 || res->status == 304;
    at = hpack_begin(e, at);
    at = hpack_put_status(e, at, res->status);
    at = put_fields(e, at, &res->fields);
    if (!res->no_date && !fields_has(&res->fields, SLICE("Date")))
        at = put_date(e, at, date, now_s);
    if (res->content_length >= 0 && !no_length)
        at = hpack_put_length(e, at, (uint64_t)res->content_length);
    return at;
}

char *h2_inform_put(struct hpack_encoder *e, char *at, int status, const struct fields *fs)
{
    at = hpack_begin(e, at);
    at = hpack_put_status(e, at, status);
    return put_fields(e, at, fs);
}

char *h2_trailers_put(struct hpack_encoder *e, char *at, const struct fields *fs)
{
    return put_fields(e, hpack_begin(e, at), fs);
}
