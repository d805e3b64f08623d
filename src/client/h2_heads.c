/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first thing that is wrong with an answer is remembered, and the rest of its block decoded without
 * a look. As strict as towards clients: a status of three digits and nothing else before the fields,
 * names and values that HTTP/1 can hold, no field that belongs to a connection, one length.
 *
 * Names come in small letters; HTTP/1's clients get them as it usually writes them ("X-Request-Id"),
 * which those of HTTP/2 do not see.
 */
#include "client/h2_heads.h"

/* --- requests --- */

/* :method … :protocol, content-length, te */
enum { OWN_ROOM = HPACK_BEGIN_MAX + 8 * 40 };

size_t h2_request_room(const struct h2_request_head *h)
{
    size_t room = OWN_ROOM + h->method.len + h->scheme.len + h->authority.len + h->path.len +
                  h->protocol.len;
    for (uint32_t i = 0; i < h->fields->count; i++)
        room += hpack_room(h->fields->items[i].name.len, h->fields->items[i].value.len);
    return room;
}

static char *put_field(struct hpack_encoder *e, char *at, enum hpack_name id, const struct field *f)
{
    struct slice value = slice_trim(f->value); /* RFC 9113 §8.2.1 */
    if ((id == NAME_OTHER && !h1_name_ok(f->name)) || !h1_value_ok(value))
        return at;
    if (id != NAME_OTHER)
        return hpack_put_named(e, at, id, value, HPACK_AUTO);
    return hpack_put(e, at, f->name, value, HPACK_AUTO);
}

static char *put_fields(struct hpack_encoder *e, char *at, const struct fields *fs)
{
    bool trailers = false;
    for (uint32_t i = 0; i < fs->count; i++) {
        const struct field *f = &fs->items[i];
        enum hpack_name id = hpack_name_of(f->name);
        trailers |= id == NAME_TE && slice_eq_nocase(f->value, SLICE("trailers"));
        if (h2_left_out(id) || id == NAME_HOST)
            continue;
        char *again = hpack_put_again(e, at, id, f->name, f->value);
        at = again != NULL ? again : put_field(e, at, id, f);
    }
    return trailers ? hpack_put_value(e, at, NAME_TE, SLICE("trailers")) : at;
}

char *h2_request_put(struct hpack_encoder *e, char *at, const struct h2_request_head *h)
{
    bool alone = slice_is(h->method, "CONNECT") && h->protocol.len == 0;
    at = hpack_begin(e, at);
    at = hpack_put_value(e, at, NAME_METHOD, h->method);
    if (h->protocol.len > 0)
        at = hpack_put_value(e, at, NAME_PROTOCOL, h->protocol);
    if (!alone) {
        at = hpack_put_value(e, at, NAME_SCHEME, h->scheme);
        at = hpack_put_value(e, at, NAME_PATH, h->path);
    }
    if (h->authority.len > 0)
        at = hpack_put_value(e, at, NAME_AUTHORITY, h->authority);
    at = put_fields(e, at, h->fields);
    return h->length >= 0 ? hpack_put_length(e, at, (uint64_t)h->length) : at;
}

/* --- answers --- */

struct reading {
    const struct h2_block *block;
    struct h1_field fields[H1_FIELDS_MAX];
    unsigned count, most;
    int status;
    int64_t length;
    bool trailers, too_many;
    const char *bad;
};

static void bad(struct reading *r, const char *why)
{
    if (r->bad == NULL)
        r->bad = why;
}

static void take_status(struct reading *r, struct slice v)
{
    int status = 0;
    bool digits = v.len == 3;
    for (size_t i = 0; i < v.len && digits; i++) {
        digits = v.ptr[i] >= '0' && v.ptr[i] <= '9';
        status = status * 10 + (v.ptr[i] - '0');
    }
    if (!digits || status < 100)
        bad(r, "malformed :status");
    else if (status == 101)
        bad(r, "the status 101 in HTTP/2");
    else
        r->status = status;
}

static void on_pseudo(struct reading *r, const struct hpack_field *f)
{
    if (r->trailers)
        bad(r, "a pseudo-header field among trailers");
    else if (f->id != NAME_STATUS)
        bad(r, "a pseudo-header field that no response has");
    else if (r->status != 0)
        bad(r, ":status twice");
    else if (r->count > 0)
        bad(r, "a pseudo-header field behind a field");
    else
        take_status(r, f->value);
}

static void take_length(struct reading *r, struct slice value)
{
    uint64_t length = 0;
    if (r->length >= 0)
        bad(r, "more than one Content-Length");
    else if (!slice_to_u64(value, INT64_MAX, &length))
        bad(r, "malformed Content-Length");
    r->length = (int64_t)length;
}

/* "x-request-id" to "X-Request-Id", and as RFC 6455 writes its own. The name is a copy of this block's
 * own. */
static struct slice as_title(struct slice name)
{
    char *at = (char *)(uintptr_t)name.ptr;
    bool first = true;
    if (slice_starts(name, SLICE("sec-websocket-")))
        at[7] = 'S';
    for (size_t i = 0; i < name.len; i++) {
        if (first && at[i] >= 'a' && at[i] <= 'z')
            at[i] = (char)(at[i] - 'a' + 'A');
        first = at[i] == '-';
    }
    return name;
}

static void add_field(struct reading *r, const struct hpack_field *f)
{
    if (r->count >= r->most) {
        r->too_many = true;
        return;
    }
    r->fields[r->count++] = (struct h1_field){
        .name = f->id != NAME_OTHER ? hpack_titles[f->id] : as_title(f->name), .value = f->value,
        .odd = (f->marks & HPACK_NAME_ODD) != 0};
}

static void on_field(struct reading *r, const struct hpack_field *f)
{
    if ((f->marks & HPACK_NAME_BAD) != 0)
        bad(r, "the name of a field has capitals or is no token");
    else if ((f->marks & HPACK_VALUE_BAD) != 0)
        bad(r, "the value of a field has a control character, or white space at an end");
    else if (f->name.ptr[0] == ':')
        on_pseudo(r, f);
    else if (h2_of_connection(f->id))
        bad(r, "a field that belongs to a connection");
    else if (!r->trailers && r->status == 0)
        bad(r, "a field before :status");
    else if (r->trailers && f->id == NAME_CONTENT_LENGTH)
        bad(r, "Content-Length among trailers");
    else {
        if (f->id == NAME_CONTENT_LENGTH)
            take_length(r, f->value);
        add_field(r, f);
    }
}

static enum h2_verdict read_block(struct reading *r, struct hpack_decoder *d, const char **why)
{
    struct hpack_reader in;
    struct hpack_field f;
    enum hpack_event e;
    hpack_read(&in, d, r->block->bytes, r->block->arena, r->block->list_max);
    while ((e = hpack_next(&in, &f)) == HPACK_FIELD) {
        if (r->bad == NULL)
            on_field(r, &f);
    }
    *why = e == HPACK_BAD         ? in.bad
           : e == HPACK_TOO_LARGE ? "response header larger than max_response_header_size"
           : r->too_many          ? "too many response header fields"
                                  : r->bad;
    if (e == HPACK_BAD)
        return H2_VERDICT_BROKEN;
    if (e == HPACK_TOO_LARGE || r->too_many)
        return H2_VERDICT_TOO_LARGE;
    return r->bad != NULL ? H2_VERDICT_MALFORMED : H2_VERDICT_OK;
}

/* Of this thread: a block is read without a wait. */
static struct reading *begin(const struct h2_block *block, bool trailers, unsigned most)
{
    static _Thread_local struct reading r;
    r.block = block;
    r.count = 0;
    r.most = most;
    r.status = 0;
    r.length = -1;
    r.trailers = trailers;
    r.too_many = false;
    r.bad = NULL;
    return &r;
}

static enum h2_verdict check_head(const struct reading *r, const char **why)
{
    *why = r->status == 0                           ? "a response without :status"
           : r->status < 200 && r->block->ends      ? "an interim response that ends the stream"
           : r->status < 200 && r->length > 0       ? "an interim response with a length"
                                                    : NULL;
    return *why != NULL ? H2_VERDICT_MALFORMED : H2_VERDICT_OK;
}

enum h2_verdict h2_answer_decode(struct hpack_decoder *d, const struct h2_block *block,
                                 struct h2_answer_head **out, const char **why)
{
    struct reading *r = begin(block, false, H1_FIELDS_MAX);
    enum h2_verdict v = read_block(r, d, why);
    if (v == H2_VERDICT_OK)
        v = check_head(r, why);
    if (v != H2_VERDICT_OK)
        return v;
    struct h2_answer_head *h = arena_alloc(block->arena, sizeof *h);
    *h = (struct h2_answer_head){.status = r->status, .length = r->length, .ends = block->ends,
                                 .count = r->count};
    h->fields = arena_alloc(block->arena, r->count * sizeof *h->fields);
    if (r->count > 0)
        memcpy(h->fields, r->fields, r->count * sizeof *h->fields);
    *out = h;
    return H2_VERDICT_OK;
}

enum h2_verdict h2_answer_trailers(struct hpack_decoder *d, const struct h2_block *block,
                                   struct fields *to, const char **why)
{
    struct reading *r = begin(block, true, H2_ANSWER_TRAILERS_MAX);
    enum h2_verdict v = read_block(r, d, why);
    if (v != H2_VERDICT_OK)
        return v;
    fields_init(to, block->arena);
    for (unsigned i = 0; i < r->count; i++)
        fields_add(to, r->fields[i].name, r->fields[i].value);
    return H2_VERDICT_OK;
}
