/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Go's http.ServeContent does, in its order. Small files are sent from memory that stays until
 * the exchange has ended, so that head and body leave in one call; larger ones by sendfile. What is
 * encrypted is touched anyway: often wanted files are, up to a size, kept in memory for that.
 */
#include "handlers/file_send.h"

#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "http/conditional.h"

static enum err not_modified(struct exchange *x)
{
    fields_remove(&x->res.fields, SLICE("Content-Type"));
    fields_remove(&x->res.fields, SLICE("Content-Encoding"));
    if (fields_has(&x->res.fields, SLICE("Etag")))
        fields_remove(&x->res.fields, SLICE("Last-Modified"));
    x->res.status = 304;
    x->res.content_length = -1;
    return exchange_head(x);
}

static enum err outside(struct exchange *x, bool tell_size, uint64_t size)
{
    static const char *const dropped[] = {"Etag", "Last-Modified", "Content-Encoding",
                                          "Cache-Control"};
    for (size_t i = 0; i < sizeof dropped / sizeof dropped[0]; i++)
        fields_remove(&x->res.fields, slice_from(dropped[i]));
    if (tell_size)
        fields_set(&x->res.fields, SLICE("Content-Range"),
                   arena_printf(x->arena, "bytes */%llu", (unsigned long long)size));
    fields_set(&x->res.fields, SLICE("Content-Type"), SLICE("text/plain; charset=utf-8"));
    fields_set(&x->res.fields, SLICE("X-Content-Type-Options"), SLICE("nosniff"));
    return exchange_answer(x, 416, tell_size ? SLICE("invalid range: failed to overlap\n")
                                             : SLICE("invalid range\n"));
}

static enum err put_bytes(struct exchange *x, struct open_file *f, uint64_t offset,
                          uint64_t len)
{
    if (len == 0)
        return OK;
    const char *bytes = x->tls != NULL ? file_cache_copy(file_cache_self(), f) : f->bytes.ptr;
    if (bytes != NULL)
        return exchange_data(x, slice_of(bytes + offset, len), LEND_STABLE);
    return exchange_file(x, f->fd, offset, len);
}

static enum err send_part(struct exchange *x, struct open_file *f, int status,
                          uint64_t offset, uint64_t len)
{
    x->res.status = status;
    x->res.content_length = (int64_t)len;
    x->res.length_told = true;
    if (exchange_bodiless(x, status) || len == 0)
        return exchange_head(x);
    return put_bytes(x, f, offset, len);
}

static struct slice content_range(struct exchange *x, const struct range *r, uint64_t size)
{
    return arena_printf(x->arena, "bytes %llu-%llu/%llu", (unsigned long long)r->start,
                        (unsigned long long)(r->start + r->len - 1), (unsigned long long)size);
}

/* Where a part begins: its boundary and fields. */
static struct slice part_head(struct exchange *x, const char *boundary, bool first,
                              const struct range *r, struct slice type, uint64_t size)
{
    return arena_printf(x->arena, "%s--%s\r\nContent-Range: " SLICE_FMT "\r\n%s" SLICE_FMT
                        "%s\r\n", first ? "" : "\r\n", boundary,
                        SLICE_ARG(content_range(x, r, size)), type.len > 0 ? "Content-Type: " : "",
                        SLICE_ARG(type), type.len > 0 ? "\r\n" : "");
}

static enum err send_parts(struct exchange *x, struct open_file *f, int status,
                           const struct range *ranges, size_t count)
{
    char boundary[40];
    struct slice type = SLICE_NONE, heads[RANGES_MAX];
    uint64_t total = 0;
    (void)fields_get(&x->res.fields, SLICE("Content-Type"), &type);
    snprintf(boundary, sizeof boundary, "%016llx%016llx",
             (unsigned long long)(clock_mono_ns() * 0x9e3779b97f4a7c15U),
             (unsigned long long)((uintptr_t)x * 0xbf58476d1ce4e5b9U));
    for (size_t i = 0; i < count; i++) {
        heads[i] = part_head(x, boundary, i == 0, &ranges[i], type, f->size);
        total += heads[i].len + ranges[i].len;
    }
    struct slice last = arena_printf(x->arena, "\r\n--%s--\r\n", boundary);
    fields_set(&x->res.fields, SLICE("Content-Type"),
               arena_printf(x->arena, "multipart/byteranges; boundary=%s", boundary));
    x->res.status = status;
    x->res.content_length = (int64_t)(total + last.len);
    x->res.length_told = true;
    TRY(exchange_head(x));
    if (exchange_bodiless(x, status))
        return OK;
    for (size_t i = 0; i < count; i++) {
        TRY(exchange_data(x, heads[i], LEND_BORROWED));
        TRY(put_bytes(x, f, ranges[i].start, ranges[i].len));
    }
    return exchange_data(x, last, LEND_BORROWED);
}

static enum err send_ranges(struct exchange *x, struct open_file *f, int status,
                            struct slice value)
{
    struct range ranges[RANGES_MAX];
    size_t count;
    switch (range_parse(value, f->size, ranges, &count)) {
    case RANGE_INVALID:
        return outside(x, false, f->size);
    case RANGE_OUTSIDE:
        return outside(x, true, f->size);
    case RANGE_NONE:
        return send_part(x, f, status > 0 ? status : 200, 0, f->size);
    default:
        break;
    }
    status = status > 0 ? status : 206;
    if (count > 1)
        return send_parts(x, f, status, ranges, count);
    fields_set(&x->res.fields, SLICE("Content-Range"), content_range(x, &ranges[0], f->size));
    return send_part(x, f, status, ranges[0].start, ranges[0].len);
}

enum err file_send(struct exchange *x, const struct open_file *file, struct open_file *body,
                   int status)
{
    struct slice etag = SLICE_NONE, range;
    int64_t modified = file->modified[0] != '\0' ? file->mtime_ns / (int64_t)NS_PER_S : 0;
    (void)fields_get(&x->res.fields, SLICE("Etag"), &etag);
    if (modified != 0)
        fields_set(&x->res.fields, SLICE("Last-Modified"), slice_from(file->modified));
    if (status >= 400) { /* RFC 9110 §13.2.1: an error page has no conditions, and no parts */
        fields_set(&x->res.fields, SLICE("Accept-Ranges"), SLICE("bytes"));
        return send_part(x, body, status, 0, body->size);
    }
    enum condition c = condition_check(&x->req, etag, modified);
    if (c == CONDITION_NOT_MODIFIED)
        return not_modified(x);
    if (c == CONDITION_FAILED)
        return exchange_answer(x, 412, SLICE(""));
    fields_set(&x->res.fields, SLICE("Accept-Ranges"), SLICE("bytes"));
    if (c == CONDITION_SEND && fields_get(&x->req.fields, SLICE("Range"), &range) && range.len > 0)
        return send_ranges(x, body, status, range);
    return send_part(x, body, status > 0 ? status : 200, 0, body->size);
}
