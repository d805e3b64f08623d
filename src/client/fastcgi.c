/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A record is a head of eight bytes (version, type, request, length of the content, of the padding), the
 * content and the padding. Its content is told as it comes, so that nothing is gathered here but the
 * two heads of eight bytes. Records of the connection itself (request 0) are skipped, as the
 * specification wants from who does not know them; records of another request, and types that only a
 * web server sends, are refused.
 *
 * Pairs never cross the border between two records: the specification would allow it, and php-fpm
 * would not understand it.
 */
#include "client/fastcgi.h"

#include "base/check.h"

enum {
    VERSION = 1,
    ROLE_RESPONDER = 1, KEEP_CONN = 1,
    FIRST_MANAGEMENT = 9, /* GET_VALUES and what follows it */
    PAIR_MORE = 8,        /* two lengths */
};

/* --- what is sent --- */

char *fastcgi_record(char *at, enum fastcgi_type type, size_t len)
{
    ASSERT(len <= FASTCGI_CONTENT_MAX);
    const unsigned char head[FASTCGI_HEAD] = {
        VERSION, (unsigned char)type, 0, FASTCGI_ID, (unsigned char)(len >> 8), (unsigned char)len,
    };
    memcpy(at, head, sizeof head);
    return at + sizeof head;
}

char *fastcgi_begin(char *at, bool keep)
{
    const unsigned char body[8] = {0, ROLE_RESPONDER, keep ? KEEP_CONN : 0};
    at = fastcgi_record(at, FASTCGI_BEGIN_REQUEST, sizeof body);
    memcpy(at, body, sizeof body);
    return at + sizeof body;
}

enum err fastcgi_params_size(const struct field *pairs, size_t count, size_t *size)
{
    size_t content = 0;
    for (size_t i = 0; i < count; i++) {
        size_t one = pairs[i].name.len + pairs[i].value.len + PAIR_MORE;
        if (one > FASTCGI_CONTENT_MAX)
            return ERR_LIMIT;
        content += one;
    }
    /* Of two records that follow one another, both together are more than one could hold. */
    *size = content + FASTCGI_HEAD * (3 + 2 * content / FASTCGI_CONTENT_MAX);
    return OK;
}

static char *put_length(char *at, size_t len)
{
    if (len < 128) {
        *at = (char)len;
        return at + 1;
    }
    const unsigned char four[4] = {(unsigned char)(len >> 24 | 0x80), (unsigned char)(len >> 16),
                                   (unsigned char)(len >> 8), (unsigned char)len};
    memcpy(at, four, sizeof four);
    return at + sizeof four;
}

static char *put(char *at, struct slice s)
{
    if (s.len > 0)
        memcpy(at, s.ptr, s.len);
    return at + s.len;
}

static size_t pair_size(const struct field *f)
{
    return (f->name.len < 128 ? 1 : 4) + (f->value.len < 128 ? 1 : 4) + f->name.len + f->value.len;
}

char *fastcgi_params(char *at, const struct field *pairs, size_t count)
{
    for (size_t i = 0; i < count;) {
        size_t last = i, size = 0;
        while (last < count && size + pair_size(&pairs[last]) <= FASTCGI_CONTENT_MAX)
            size += pair_size(&pairs[last++]);
        ASSERT(last > i);
        at = fastcgi_record(at, FASTCGI_PARAMS, size);
        for (; i < last; i++) {
            at = put_length(put_length(at, pairs[i].name.len), pairs[i].value.len);
            at = put(put(at, pairs[i].name), pairs[i].value);
        }
    }
    return fastcgi_record(at, FASTCGI_PARAMS, 0);
}

/* --- what comes --- */

static enum fastcgi_event refuse(struct fastcgi_reader *r, const char *why)
{
    r->why = why;
    return FASTCGI_BAD;
}

static bool is_management(const struct fastcgi_reader *r)
{
    return r->head[2] == 0 && r->head[3] == 0;
}

static enum fastcgi_event check_head(struct fastcgi_reader *r)
{
    unsigned type = r->head[1];
    if (r->head[0] != VERSION)
        return refuse(r, "fcgi: invalid header version");
    r->left = (uint16_t)(r->head[4] << 8 | r->head[5]);
    r->padding = r->head[6];
    if (is_management(r))
        return type >= FIRST_MANAGEMENT ? FASTCGI_MORE
                                        : refuse(r, "fcgi: a record of no request");
    if (r->head[2] != 0 || r->head[3] != FASTCGI_ID)
        return refuse(r, "fcgi: a record of another request");
    if (type != FASTCGI_STDOUT && type != FASTCGI_STDERR && type != FASTCGI_END_REQUEST)
        return refuse(r, "fcgi: a record that only a web server sends");
    if (type == FASTCGI_END_REQUEST && r->left != sizeof r->end)
        return refuse(r, "fcgi: malformed end of request");
    return FASTCGI_MORE;
}

/* True once the head of the record in hand is complete and right. */
static bool take_head(struct fastcgi_reader *r, struct slice *in, enum fastcgi_event *event)
{
    if (r->head_len == FASTCGI_HEAD && r->left == 0 && r->padding == 0)
        r->head_len = 0;
    if (r->head_len == FASTCGI_HEAD)
        return true;
    struct slice part = slice_take(*in, FASTCGI_HEAD - (size_t)r->head_len);
    if (part.len > 0)
        memcpy(r->head + r->head_len, part.ptr, part.len);
    *in = slice_skip(*in, part.len);
    r->head_len += (uint8_t)part.len;
    if (r->head_len < FASTCGI_HEAD)
        return false;
    *event = check_head(r);
    return *event != FASTCGI_BAD;
}

static enum fastcgi_event take_end(struct fastcgi_reader *r, struct slice part)
{
    memcpy(r->end + r->end_len, part.ptr, part.len);
    r->end_len += (uint8_t)part.len;
    if (r->end_len < sizeof r->end)
        return FASTCGI_MORE;
    r->app_status = (uint32_t)r->end[0] << 24 | (uint32_t)r->end[1] << 16 |
                    (uint32_t)r->end[2] << 8 | r->end[3];
    r->protocol_status = r->end[4];
    return FASTCGI_END;
}

static enum fastcgi_event take_content(struct fastcgi_reader *r, struct slice *in,
                                       struct slice *data)
{
    struct slice part = slice_take(*in, r->left);
    *in = slice_skip(*in, part.len);
    r->left -= (uint16_t)part.len;
    if (is_management(r))
        return FASTCGI_MORE;
    if (r->head[1] == FASTCGI_END_REQUEST)
        return take_end(r, part);
    *data = part;
    return r->head[1] == FASTCGI_STDOUT ? FASTCGI_OUT : FASTCGI_ERR;
}

enum fastcgi_event fastcgi_next(struct fastcgi_reader *r, struct slice *in, struct slice *data)
{
    enum fastcgi_event event = FASTCGI_MORE;
    if (r->end_len == sizeof r->end)
        return FASTCGI_END;
    while (in->len > 0) {
        if (!take_head(r, in, &event))
            return event;
        if (r->left > 0 && in->len > 0) {
            event = take_content(r, in, data);
            if (event != FASTCGI_MORE)
                return event;
        } else {
            size_t skipped = slice_take(*in, r->padding).len;
            *in = slice_skip(*in, skipped);
            r->padding -= (uint8_t)skipped;
        }
    }
    return FASTCGI_MORE;
}

/* --- heads --- */

static enum h1_result refuse_head(struct h1_head *h, const char *why)
{
    h->bad = why;
    return H1_BAD;
}

/* The number in front, up to a space or the end. */
static bool read_number(struct slice s, uint64_t max, uint64_t *n)
{
    *n = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9' || *n > max / 10)
            return false;
        *n = *n * 10 + (uint64_t)(s.ptr[i] - '0');
    }
    return s.len > 0 && *n <= max;
}

static bool take_status(struct h1_head *h, struct slice value)
{
    struct slice number;
    uint64_t n;
    slice_cut(value, ' ', &number, &h->reason);
    if (!read_number(number, 999, &n) || n < 200)
        return false;
    h->status = (int)n;
    return true;
}

/* Only the first one means something. */
static bool has_status(const struct h1_head *h)
{
    for (unsigned i = 0; i + 1 < h->count; i++) {
        if (slice_eq_nocase(h->fields[i].name, SLICE("Status")))
            return true;
    }
    return false;
}

static enum h1_result take_meaning(struct h1_head *h, const struct h1_field *f)
{
    uint64_t n;
    if (slice_eq_nocase(f->name, SLICE("Status"))) {
        if (f->value.len > 0 && !has_status(h) && !take_status(h, f->value))
            return refuse_head(h, "malformed status in FastCGI response");
    } else if (slice_eq_nocase(f->name, SLICE("Content-Length"))) {
        if (!read_number(f->value, INT64_MAX, &n) || (h->has_length && n != h->content_length))
            return refuse_head(h, "bad Content-Length in FastCGI response");
        h->has_length = true;
        h->content_length = n;
    } else if (slice_eq_nocase(f->name, SLICE("Transfer-Encoding"))) {
        if (!slice_eq_nocase(f->value, SLICE("chunked")) || h->body == H1_BODY_CHUNKED)
            return refuse_head(h, "bad Transfer-Encoding in FastCGI response");
        h->body = H1_BODY_CHUNKED;
    }
    return H1_DONE;
}

static enum h1_result take_line(struct h1_head *h, struct slice line)
{
    const char *colon = memchr(line.ptr, ':', line.len);
    if (h->count == H1_FIELDS_MAX)
        return H1_TOO_LARGE;
    if (colon == NULL)
        return refuse_head(h, "malformed header line in FastCGI response");
    struct h1_field *f = &h->fields[h->count++];
    size_t len = (size_t)(colon - line.ptr);
    *f = (struct h1_field){slice_take(line, len), slice_trim(slice_skip(line, len + 1)), false};
    if (!h1_name_ok(f->name) || !h1_value_ok(f->value))
        return refuse_head(h, "malformed header line in FastCGI response");
    return take_meaning(h, f);
}

static enum h1_result decide_body(struct h1_head *h, bool to_head)
{
    if (h->body == H1_BODY_CHUNKED && h->has_length)
        return refuse_head(h, "both Content-Length and Transfer-Encoding in FastCGI response");
    if (to_head || h->status == 204 || h->status == 304)
        h->body = H1_BODY_NONE;
    else if (h->has_length)
        h->body = H1_BODY_LENGTH;
    return H1_DONE;
}

enum h1_result fastcgi_parse_head(struct h1_head *h, struct slice in, bool to_head, size_t *used)
{
    struct slice left = in;
    h->status = 200;
    h->count = 0;
    h->minor = 1;
    h->keep_alive = h->has_length = false;
    h->body = H1_BODY_CLOSE;
    h->content_length = 0;
    h->reason = h->upgrade = SLICE_NONE;
    h->bad = NULL;
    for (const char *end; left.len > 0 && (end = memchr(left.ptr, '\n', left.len)) != NULL;) {
        struct slice line = slice_take(left, (size_t)(end - left.ptr));
        left = slice_skip(left, line.len + 1);
        if (line.len > 0 && line.ptr[line.len - 1] == '\r')
            line.len--;
        if (line.len == 0) {
            *used = in.len - left.len;
            return decide_body(h, to_head);
        }
        enum h1_result r = take_line(h, line);
        if (r != H1_DONE)
            return r;
    }
    return H1_MORE;
}
