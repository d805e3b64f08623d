/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pass over the head, line by line. A head that is not complete is parsed again from its start
 * when more has come: heads nearly always arrive whole, and a limit on the head's size bounds what
 * a slow sender can cost. Framing is decided at the end from what the fields said, in one place
 * (request_framing, response_framing), by RFC 9112 §6.3.
 */
#include "wire/h1_head.h"

#include "base/text.h"
#include "wire/h1_scan.h"

enum { TCHAR_ODD = 2 }; /* beside the 1 of a tchar */

/* tchar, RFC 9110 §5.6.2; '_' and '.' are marked */
static const uint8_t token[256] = {
    ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1, ['*'] = 1, ['+'] = 1,
    ['-'] = 1, ['.'] = 3, ['^'] = 1, ['_'] = 3, ['`'] = 1, ['|'] = 1, ['~'] = 1,
    ['0' ... '9'] = 1, ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1,
};

/* Of a reg-name, RFC 3986 §3.2.2, but for the comma, which joins repeated fields. '%' (2) only begins
 * an escape: h1_host_ok looks at what follows. */
static const uint8_t host_char[256] = {
    ['!'] = 1, ['$'] = 1, ['%'] = 2, ['&'] = 1, ['\''] = 1, ['('] = 1, [')'] = 1, ['*'] = 1,
    ['+'] = 1, ['-'] = 1, ['.'] = 1, [';'] = 1, ['='] = 1, ['_'] = 1, ['~'] = 1,
    ['0' ... '9'] = 1, ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1,
};

struct cursor {
    const char *at, *end;
};

enum coding {
    CODING_NONE,
    CODING_CHUNKED,
    CODING_OTHER,     /* well formed, but not known here */
    CODING_MALFORMED, /* chunked anywhere but once and last: no telling where the body ends */
};

struct framing {
    bool has_length, close, keep_alive, names_upgrade, expects_else;
    enum coding coding;
    uint64_t length;
    struct slice upgrade;
};

static enum h1_result bad(struct h1_head *h, const char *why)
{
    h->bad = why;
    return H1_BAD;
}

static struct slice take_token(struct cursor *c)
{
    const char *start = c->at;
    while (c->at < c->end && token[(unsigned char)*c->at])
        c->at++;
    return slice_of(start, (size_t)(c->at - start));
}

/* CR LF at the cursor: H1_DONE and behind it. */
static enum h1_result take_crlf(struct cursor *c)
{
    if (c->at == c->end)
        return H1_MORE;
    if (*c->at != '\r')
        return H1_BAD;
    if (c->end - c->at < 2)
        return H1_MORE;
    if (c->at[1] != '\n')
        return H1_BAD;
    c->at += 2;
    return H1_DONE;
}

/* "HTTP/1." and a digit. */
static enum h1_result take_version(struct cursor *c, uint8_t *minor)
{
    static const char expected[] = "HTTP/1.";
    size_t have = (size_t)(c->end - c->at), n = sizeof expected - 1;
    if (memcmp(c->at, expected, have < n ? have : n) != 0)
        return have >= 5 && memcmp(c->at, "HTTP/", 5) == 0 ? H1_VERSION : H1_BAD;
    if (have <= n)
        return H1_MORE;
    if (c->at[n] < '0' || c->at[n] > '9')
        return H1_BAD;
    *minor = c->at[n] == '0' ? 0 : 1;
    c->at += n + 1;
    return H1_DONE;
}

static enum h1_result take_request_line(struct h1_head *h, struct cursor *c)
{
    h->method = take_token(c);
    if (h->method.len > H1_METHOD_MAX)
        return H1_METHOD;
    if (c->at == c->end)
        return H1_MORE;
    if (h->method.len == 0 || *c->at != ' ')
        return bad(h, "the method is not a token");
    const char *start = ++c->at;
    c->at = h1_scan_target(c->at, c->end);
    h->target = slice_of(start, (size_t)(c->at - start));
    if (c->at == c->end)
        return H1_MORE;
    if (*c->at != ' ' || h->target.len == 0)
        return bad(h, "the request target is malformed");
    c->at++;
    enum h1_result r = take_version(c, &h->minor);
    if (r != H1_DONE)
        return r == H1_BAD ? bad(h, "the version is malformed") : r;
    r = take_crlf(c);
    return r == H1_BAD ? bad(h, "the request line does not end with CRLF") : r;
}

static enum h1_result take_status_line(struct h1_head *h, struct cursor *c)
{
    enum h1_result r = take_version(c, &h->minor);
    if (r != H1_DONE)
        return r == H1_BAD ? bad(h, "the version is malformed") : r;
    if (c->end - c->at < 5)
        return H1_MORE;
    uint64_t status;
    if (c->at[0] != ' ' || !slice_to_u64(slice_of(c->at + 1, 3), 999, &status) || status < 100)
        return bad(h, "the status code is malformed");
    h->status = (int)status;
    c->at += 4;
    if (*c->at == ' ') {
        const char *start = ++c->at;
        c->at = h1_scan_value(c->at, c->end);
        h->reason = slice_of(start, (size_t)(c->at - start));
    }
    r = take_crlf(c);
    return r == H1_BAD ? bad(h, "the status line does not end with CRLF") : r;
}

static enum h1_result take_field(struct h1_field *f, struct cursor *c, const char **why)
{
    const char *name = c->at;
    uint8_t kind, seen = 0;
    while (c->at < c->end && (kind = token[(unsigned char)*c->at]) != 0) {
        seen |= kind;
        c->at++;
    }
    f->name = slice_of(name, (size_t)(c->at - name));
    f->odd = (seen & TCHAR_ODD) != 0;
    if (c->at == c->end)
        return H1_MORE;
    if (*c->at != ':' || f->name.len == 0) {
        *why = *c->at == ' ' || *c->at == '\t' ? "white space before or in a field name"
                                               : "a field name is not a token";
        return H1_BAD;
    }
    c->at++;
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t'))
        c->at++;
    const char *start = c->at;
    c->at = h1_scan_value(c->at, c->end);
    const char *end = c->at;
    enum h1_result r = take_crlf(c);
    if (r == H1_BAD)
        *why = "a control character, bare CR or bare LF in a field value";
    while (end > start && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    f->value = slice_of(start, (size_t)(end - start));
    return r;
}

/* Next element of a comma-separated list, trimmed; false at its end. */
static bool next_element(struct slice *list, struct slice *element)
{
    if (list->len == 0)
        return false;
    struct slice rest;
    slice_cut(*list, ',', element, &rest);
    *element = slice_trim(*element);
    *list = rest;
    return true;
}

static void read_connection(struct framing *f, struct slice list)
{
    struct slice e;
    while (next_element(&list, &e)) {
        f->close |= slice_eq_nocase(e, SLICE("close"));
        f->keep_alive |= slice_eq_nocase(e, SLICE("keep-alive"));
        f->names_upgrade |= slice_eq_nocase(e, SLICE("upgrade"));
    }
}

static enum h1_result read_host(struct h1_head *h, struct slice value)
{
    if (h->has_host)
        return bad(h, "more than one Host field");
    if (!h1_host_ok(value))
        return bad(h, "the Host field is malformed");
    h->has_host = true;
    h->host = value;
    return H1_DONE;
}

/* RFC 9112 §6.1: chunked must be the last coding, and stand there once. */
static enum coding read_coding(struct slice list)
{
    struct slice e;
    enum coding all = CODING_NONE;
    while (next_element(&list, &e)) {
        if (e.len == 0)
            continue;
        if (all == CODING_CHUNKED)
            return CODING_MALFORMED;
        bool chunked = slice_eq_nocase(e, SLICE("chunked"));
        if (chunked && all == CODING_OTHER)
            return list.len == 0 ? CODING_OTHER : CODING_MALFORMED;
        all = chunked ? CODING_CHUNKED : CODING_OTHER;
    }
    return all != CODING_NONE ? all : CODING_MALFORMED;
}

static enum h1_result read_framing_field(struct h1_head *h, struct framing *f,
                                         const struct h1_field *field)
{
    switch (field->name.len) {
    case 4:
        if (slice_eq_nocase(field->name, SLICE("Host")))
            return read_host(h, field->value);
        break;
    case 6:
        if (!slice_eq_nocase(field->name, SLICE("Expect")))
            break;
        if (slice_eq_nocase(field->value, SLICE("100-continue")))
            h->expect_continue = true;
        else
            f->expects_else = true;
        break;
    case 7:
        if (slice_eq_nocase(field->name, SLICE("Upgrade")))
            f->upgrade = field->value;
        break;
    case 10:
        if (slice_eq_nocase(field->name, SLICE("Connection")))
            read_connection(f, field->value);
        break;
    case 14:
        if (!slice_eq_nocase(field->name, SLICE("Content-Length")))
            break;
        if (f->has_length)
            return bad(h, "more than one Content-Length field");
        f->has_length = true;
        if (!slice_to_u64(field->value, INT64_MAX, &f->length))
            return bad(h, "the Content-Length is not a number");
        break;
    case 17:
        if (!slice_eq_nocase(field->name, SLICE("Transfer-Encoding")))
            break;
        if (f->coding != CODING_NONE)
            return bad(h, "more than one Transfer-Encoding field");
        f->coding = read_coding(field->value);
        break;
    default:
        break;
    }
    return H1_DONE;
}

static enum h1_result take_fields(struct h1_head *h, struct cursor *c, struct framing *f)
{
    for (;;) {
        if (c->at < c->end && *c->at == '\r') {
            enum h1_result r = take_crlf(c);
            return r == H1_BAD ? bad(h, "a bare CR in place of the empty line") : r;
        }
        if (h->count == H1_FIELDS_MAX)
            return c->at < c->end ? H1_TOO_LARGE : H1_MORE;
        struct h1_field *field = &h->fields[h->count];
        enum h1_result r = take_field(field, c, &h->bad);
        if (r == H1_DONE)
            r = read_framing_field(h, f, field);
        if (r != H1_DONE)
            return r;
        h->count++;
    }
}

static void reset(struct h1_head *h)
{
    memset(h, 0, offsetof(struct h1_head, fields));
}

static void persistence(struct h1_head *h, const struct framing *f)
{
    h->keep_alive = h->minor == 1 ? !f->close : f->keep_alive && !f->close;
    if (f->names_upgrade && h->minor == 1)
        h->upgrade = f->upgrade;
}

/* RFC 9112 §3.2: the target's form must fit the method, and its authority the Host. */
static enum h1_result check_target(struct h1_head *h)
{
    if (!h->has_host && h->minor == 1)
        return bad(h, "no Host field");
    if (h->target.ptr[0] == '/')
        return H1_DONE;
    if (slice_is(h->target, "*"))
        return slice_is(h->method, "OPTIONS") ? H1_DONE : bad(h, "target * without OPTIONS");
    if (slice_is(h->method, "CONNECT") && h1_host_ok(h->target))
        return !h->has_host || slice_eq_nocase(h->target, h->host)
                   ? H1_DONE
                   : bad(h, "the target and the Host field differ");
    size_t scheme = slice_starts_nocase(h->target, SLICE("http://"))    ? 7
                    : slice_starts_nocase(h->target, SLICE("https://")) ? 8
                                                                        : 0;
    if (scheme == 0)
        return bad(h, "the request target has no known form");
    struct slice authority = slice_skip(h->target, scheme);
    size_t end = 0;
    while (end < authority.len && memchr("/?#", authority.ptr[end], 3) == NULL)
        end++;
    authority.len = end;
    if (authority.len == 0 || !h1_host_ok(authority))
        return bad(h, "the request target's authority is malformed");
    if (h->has_host && !slice_eq_nocase(authority, h->host))
        return bad(h, "the target and the Host field differ");
    h->host = authority;
    return H1_DONE;
}

static enum h1_result request_framing(struct h1_head *h, const struct framing *f)
{
    if (f->coding != CODING_NONE) {
        if (f->has_length)
            return bad(h, "both Transfer-Encoding and Content-Length");
        if (h->minor == 0)
            return bad(h, "Transfer-Encoding in HTTP/1.0");
        if (f->coding == CODING_MALFORMED)
            return bad(h, "chunked is not the last transfer coding");
        if (f->coding == CODING_OTHER)
            return H1_CODING;
        h->body = H1_BODY_CHUNKED;
    } else if (f->has_length && f->length > 0) {
        h->body = H1_BODY_LENGTH;
        h->content_length = f->length;
    }
    h->expect_continue = h->expect_continue && h->minor == 1 && h->body != H1_BODY_NONE;
    persistence(h, f);
    enum h1_result r = check_target(h);
    return r == H1_DONE && f->expects_else ? H1_EXPECT : r;
}

enum h1_result h1_parse_request(struct h1_head *h, struct slice in, size_t *used)
{
    struct framing f = {0};
    reset(h);
    if (in.len == 0)
        return H1_MORE;
    struct cursor c = {in.ptr, in.ptr + in.len};
    if (*c.at == '\r') {
        enum h1_result r = take_crlf(&c);
        if (r != H1_DONE)
            return r == H1_BAD ? bad(h, "a bare CR before the request line") : r;
    }
    enum h1_result r = take_request_line(h, &c);
    if (r == H1_DONE)
        r = take_fields(h, &c, &f);
    if (r != H1_DONE)
        return r;
    *used = (size_t)(c.at - in.ptr);
    return request_framing(h, &f);
}

static enum h1_result response_framing(struct h1_head *h, const struct framing *f, bool to_head)
{
    bool chunked = f->coding == CODING_CHUNKED;
    if (f->coding != CODING_NONE && f->has_length)
        return bad(h, "both Transfer-Encoding and Content-Length");
    if (f->coding != CODING_NONE && (!chunked || h->minor == 0))
        return bad(h, "a transfer coding other than chunked");
    persistence(h, f);
    h->has_length = f->has_length;
    if (f->has_length)
        h->content_length = f->length;
    if (to_head || h->status / 100 == 1 || h->status == 204 || h->status == 304)
        return H1_DONE;
    if (chunked)
        h->body = H1_BODY_CHUNKED;
    else if (!f->has_length)
        h->body = H1_BODY_CLOSE;
    else if (f->length > 0)
        h->body = H1_BODY_LENGTH;
    return H1_DONE;
}

enum h1_result h1_parse_response(struct h1_head *h, struct slice in, bool to_head, size_t *used)
{
    struct framing f = {0};
    reset(h);
    if (in.len == 0)
        return H1_MORE;
    struct cursor c = {in.ptr, in.ptr + in.len};
    enum h1_result r = take_status_line(h, &c);
    if (r == H1_DONE)
        r = take_fields(h, &c, &f);
    if (r != H1_DONE)
        return r;
    *used = (size_t)(c.at - in.ptr);
    return response_framing(h, &f, to_head);
}

enum h1_result h1_parse_trailers(struct h1_field *fields, unsigned max, unsigned *count,
                                 struct slice in, size_t *used, const char **why)
{
    struct cursor c = {in.ptr, in.ptr + in.len};
    *count = 0;
    *why = NULL;
    for (;;) {
        if (c.at < c.end && *c.at == '\r') {
            enum h1_result r = take_crlf(&c);
            *used = (size_t)(c.at - in.ptr);
            return r;
        }
        if (*count == max)
            return c.at < c.end ? H1_TOO_LARGE : H1_MORE;
        enum h1_result r = take_field(&fields[*count], &c, why);
        if (r != H1_DONE)
            return r;
        ++*count;
    }
}

static bool port_ok(struct slice port)
{
    for (size_t i = 0; i < port.len; i++) {
        if (port.ptr[i] < '0' || port.ptr[i] > '9')
            return false;
    }
    return port.len <= 5;
}

/* Behind '[': hexadecimal digits, colons, dots, and a zone behind "%25"; returns the length with
 * ']', 0 when malformed. */
static size_t bracketed(struct slice s)
{
    size_t end = slice_find(s, ']');
    if (end == SIZE_MAX || end < 2)
        return 0;
    struct slice inner = slice_take(s, end);
    size_t digits = 0;
    while (digits < inner.len && (hex_value(inner.ptr[digits]) >= 0 || inner.ptr[digits] == ':' ||
                                  inner.ptr[digits] == '.'))
        digits++;
    struct slice zone = slice_skip(inner, digits);
    if (digits == 0 || (zone.len > 0 && (zone.len < 4 || !slice_starts(zone, SLICE("%25")))))
        return 0;
    for (size_t i = 3; i < zone.len; i++) {
        if (!host_char[(unsigned char)zone.ptr[i]])
            return 0;
    }
    return end + 1;
}

bool h1_host_ok(struct slice s)
{
    size_t at = 0;
    if (s.len > 0 && s.ptr[0] == '.') /* ".." in a root such as /srv/{host} would lead out of it */
        return false;
    if (s.len > 0 && s.ptr[0] == '[') {
        at = bracketed(slice_skip(s, 1)) + 1;
        if (at == 1)
            return false;
    }
    for (unsigned kind; at < s.len && s.ptr[0] != '['; at++) {
        while (at < s.len && (kind = host_char[(unsigned char)s.ptr[at]]) == 1)
            at++;
        if (at == s.len || s.ptr[at] == ':')
            break;
        if (kind == 0 || s.len - at < 3 || hex_value(s.ptr[at + 1]) < 0 ||
            hex_value(s.ptr[at + 2]) < 0)
            return false;
    }
    return at == s.len || (s.ptr[at] == ':' && port_ok(slice_skip(s, at + 1)));
}

bool h1_name_ok(struct slice name)
{
    struct cursor c = {name.ptr, name.ptr + name.len};
    return name.len > 0 && (h1_scan_plain(name.ptr, name.len) || take_token(&c).len == name.len);
}

bool h1_value_ok(struct slice value)
{
    const char *end = value.ptr + value.len;
    return value.len == 0 || h1_scan_value(value.ptr, end) == end;
}

bool h1_value_fit(struct slice *value, struct arena *arena)
{
    if (h1_value_ok(*value))
        return true;
    char *out = arena_alloc(arena, value->len);
    for (size_t i = 0; i < value->len; i++)
        out[i] = value->ptr[i] == '\n' || value->ptr[i] == '\r' ? ' ' : value->ptr[i];
    *value = slice_trim(slice_of(out, value->len));
    return h1_value_ok(*value);
}
