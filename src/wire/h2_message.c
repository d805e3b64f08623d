/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests and trailers out of header blocks. The first thing that is wrong with a message is
 * remembered and the rest of its block decoded without a look. Names arrive as numbers (wire/hpack.h),
 * so each field costs a switch. What HTTP/1 is strict about is as strict here: the same hosts,
 * targets, numbers of fields, names with '_' or '.'.
 */
#include "wire/h2_message.h"

#include "wire/h1_head.h"
#include "wire/h1_scan.h"
#include "wire/serve.h"

/* Crumbs of one cookie field, RFC 9113 §8.2.3. */
struct crumb {
    struct crumb *next;
    struct slice value;
};

struct reading {
    const struct h2_block *block;
    struct request *request; /* NULL: trailers */
    const struct http_server *server; /* of a request */
    struct h2_head *head;
    struct fields *fields;
    struct slice scheme, path, authority, host;
    struct crumb *crumbs, **crumbs_end;
    size_t crumbs_len;
    bool behind_pseudo;      /* a field that is none has come */
    bool has_scheme, has_path, has_authority, has_host, has_protocol;
    bool too_many;
    const char *bad;
};

static void bad(struct reading *r, const char *why)
{
    if (r->bad == NULL)
        r->bad = why;
}

/* --- pseudo-header fields --- */

static void take_pseudo(struct reading *r, bool *has, struct slice *to, struct slice value)
{
    if (r->behind_pseudo)
        bad(r, "a pseudo-header field behind a field");
    if (*has)
        bad(r, "a pseudo-header field twice");
    *has = true;
    *to = value;
}

static void take_method(struct reading *r, struct slice value)
{
    bool has = r->request->method.len > 0;
    take_pseudo(r, &has, &r->request->method, value);
    if (value.len > H1_METHOD_MAX || !h1_name_ok(value))
        bad(r, ":method is not a token");
}

static void on_pseudo(struct reading *r, const struct hpack_field *f)
{
    if (r->request == NULL) {
        bad(r, "a pseudo-header field among trailers");
        return;
    }
    switch (f->id) {
    case NAME_METHOD:
        take_method(r, f->value);
        break;
    case NAME_SCHEME:
        take_pseudo(r, &r->has_scheme, &r->scheme, f->value);
        break;
    case NAME_PATH:
        take_pseudo(r, &r->has_path, &r->path, f->value);
        break;
    case NAME_AUTHORITY:
        take_pseudo(r, &r->has_authority, &r->authority, f->value);
        break;
    case NAME_PROTOCOL:
        take_pseudo(r, &r->has_protocol, &r->head->protocol, f->value);
        break;
    default:
        bad(r, "a pseudo-header field that no request has");
    }
}

/* --- fields --- */

static void add_field(struct reading *r, const struct hpack_field *f)
{
    if (r->fields->count >= H1_FIELDS_MAX)
        r->too_many = true;
    else if ((f->marks & HPACK_NAME_ODD) == 0 || r->request == NULL ||
             field_wanted(r->server, f->name))
        fields_add(r->fields, f->id != NAME_OTHER ? hpack_titles[f->id] : f->name, f->value);
}

static void take_length(struct reading *r, struct slice value)
{
    uint64_t length = 0;
    if (r->head->length >= 0)
        bad(r, "more than one content-length");
    else if (!slice_to_u64(value, INT64_MAX, &length))
        bad(r, "content-length is not a number");
    r->head->length = (int64_t)length;
}

static void take_host(struct reading *r, struct slice value)
{
    if (r->has_host)
        bad(r, "more than one host");
    r->has_host = true;
    r->host = value;
}

static void take_crumb(struct reading *r, struct slice value)
{
    if (value.len == 0 && r->crumbs != NULL)
        return; /* the joined one must not end in white space */
    struct crumb *c = arena_alloc(r->block->arena, sizeof *c);
    *c = (struct crumb){NULL, value};
    *r->crumbs_end = c;
    r->crumbs_end = &c->next;
    r->crumbs_len += value.len + 2;
}

static void on_request_field(struct reading *r, const struct hpack_field *f)
{
    switch (f->id) {
    case NAME_HOST:
        take_host(r, f->value);
        return;
    case NAME_COOKIE:
        take_crumb(r, f->value);
        return;
    case NAME_CONTENT_LENGTH:
        take_length(r, f->value);
        break;
    case NAME_EXPECT:
        if (slice_eq_nocase(f->value, SLICE("100-continue")))
            r->head->expect_continue = true;
        else
            r->head->expects_else = true;
        break;
    case NAME_PRIORITY:
        r->head->priority = f->value;
        break;
    default:
        break;
    }
    add_field(r, f);
}

/* RFC 9113 §8.2.2 */
static bool is_of_connections(const struct hpack_field *f)
{
    return h2_of_connection(f->id) &&
           (f->id != NAME_TE || !slice_eq_nocase(f->value, SLICE("trailers")));
}

static void on_field(struct reading *r, const struct hpack_field *f)
{
    if ((f->marks & (HPACK_NAME_BAD | HPACK_VALUE_BAD)) != 0) {
        bad(r, (f->marks & HPACK_NAME_BAD) != 0
                   ? "the name of a field has capitals or is no token"
                   : "the value of a field has a control character, or white space at an end");
    } else if (f->name.ptr[0] == ':') {
        on_pseudo(r, f);
    } else if (is_of_connections(f)) {
        bad(r, "a field that belongs to a connection");
    } else if (r->request != NULL) {
        r->behind_pseudo = true;
        on_request_field(r, f);
    } else if (trailer_wanted(r->server, f->name)) {
        add_field(r, f);
    }
}

/* --- a whole request --- */

static bool has_no_space(struct slice text)
{
    return h1_scan_target(text.ptr, text.ptr + text.len) == text.ptr + text.len;
}

static void check_path(struct reading *r)
{
    if (r->path.len == 0)
        bad(r, ":path is missing or empty");
    else if (r->path.ptr[0] != '/' &&
             !(slice_is(r->path, "*") && slice_is(r->request->method, "OPTIONS")))
        bad(r, ":path does not begin with a slash");
    else if (!has_no_space(r->path))
        bad(r, ":path has a space or a control character");
}

static void check_scheme(struct reading *r)
{
    if (!slice_eq_nocase(r->scheme, SLICE("https")) && !slice_eq_nocase(r->scheme, SLICE("http")))
        bad(r, ":scheme is neither http nor https");
}

static void check_connect(struct reading *r)
{
    if (r->has_scheme || r->has_path)
        bad(r, "CONNECT with :scheme or :path");
    if (r->authority.len == 0)
        bad(r, "CONNECT without :authority");
    r->path = r->authority;
}

static void check_authority(struct reading *r)
{
    if (!h1_host_ok(r->authority))
        bad(r, ":authority is malformed");
    if (!r->has_host)
        return;
    if (!h1_host_ok(r->host))
        bad(r, "host is malformed");
    if (r->authority.len > 0 && !slice_eq_nocase(r->authority, r->host))
        bad(r, ":authority and host differ");
    if (r->authority.len == 0)
        r->authority = r->host;
}

/* RFC 8441 §4: an extended CONNECT has what other requests have. */
static void check_request(struct reading *r)
{
    bool connect = slice_is(r->request->method, "CONNECT");
    if (r->request->method.len == 0)
        bad(r, "no :method");
    if (r->has_protocol && (!connect || !r->block->connect_allowed || r->head->protocol.len == 0))
        bad(r, ":protocol without an extended CONNECT");
    if (r->has_protocol && !r->has_authority)
        bad(r, "an extended CONNECT without :authority");
    if (connect && !r->has_protocol) {
        check_connect(r);
    } else {
        check_scheme(r);
        check_path(r);
    }
    check_authority(r);
    if (r->block->ends && r->head->length > 0)
        bad(r, "content-length without a body");
}

static void join_crumbs(struct reading *r)
{
    struct crumb *c = r->crumbs;
    struct slice all;
    if (c == NULL)
        return;
    all = c->value;
    if (c->next != NULL) {
        char *at = arena_alloc(r->block->arena, r->crumbs_len);
        all = slice_of(at, r->crumbs_len - 2);
        for (; c != NULL; c = c->next) {
            if (c->value.len > 0)
                memcpy(at, c->value.ptr, c->value.len);
            memcpy(at + c->value.len, "; ", 2);
            at += c->value.len + 2;
        }
    }
    add_field(r, &(struct hpack_field){hpack_names[NAME_COOKIE], all, NAME_COOKIE, 0});
}

static void finish_request(struct reading *r)
{
    struct request *q = r->request;
    join_crumbs(r);
    q->original_method = q->method;
    q->method_id = method_parse(q->method);
    q->target = r->path;
    q->host = q->original_host = r->authority;
    q->scheme = r->block->tls ? SLICE("https") : SLICE("http");
    q->major = 2;
    q->has_body = !r->block->ends; /* if only its end, and trailers */
    q->content_length = q->has_body ? r->head->length : 0;
}

/* Behind these the message's end: what is worst is what it is. */
static enum h2_verdict verdict(struct reading *r, enum hpack_event e, const struct hpack_reader *in)
{
    if (e == HPACK_BAD) {
        r->bad = in->bad;
        return H2_VERDICT_BROKEN;
    }
    if (e == HPACK_TOO_LARGE || r->too_many)
        return H2_VERDICT_TOO_LARGE;
    if (r->bad != NULL)
        return H2_VERDICT_MALFORMED;
    return r->request != NULL && r->head->expects_else ? H2_VERDICT_EXPECTS : H2_VERDICT_OK;
}

static enum h2_verdict read_block(struct reading *r, struct hpack_decoder *d)
{
    struct hpack_reader in;
    struct hpack_field f;
    enum hpack_event e;
    hpack_read(&in, d, r->block->bytes, r->block->arena, r->block->list_max);
    while ((e = hpack_next(&in, &f)) == HPACK_FIELD) {
        if (r->bad == NULL)
            on_field(r, &f);
    }
    if (r->request != NULL && e == HPACK_DONE && r->bad == NULL)
        check_request(r);
    if (r->request != NULL)
        finish_request(r);
    return verdict(r, e, &in);
}

enum h2_verdict h2_request_decode(struct hpack_decoder *d, const struct h2_block *block,
                                  const struct http_server *server, struct request *q,
                                  struct h2_head *head)
{
    struct reading r = {.block = block, .server = server, .request = q, .head = head,
                        .fields = &q->fields};
    *head = (struct h2_head){.length = -1};
    fields_init(&q->fields, block->arena);
    r.crumbs_end = &r.crumbs;
    enum h2_verdict v = read_block(&r, d);
    head->bad = r.bad;
    return v;
}

enum h2_verdict h2_trailers_decode(struct hpack_decoder *d, const struct h2_block *block,
                                   const struct http_server *server, struct fields *fields,
                                   const char **why)
{
    struct reading r = {.block = block, .server = server, .fields = fields};
    enum h2_verdict v = read_block(&r, d);
    *why = r.bad;
    return v;
}

bool h2_block_skip(struct hpack_decoder *d, struct slice bytes, struct arena *arena,
                   const char **why)
{
    struct hpack_reader in;
    struct hpack_field f;
    hpack_read(&in, d, bytes, arena, 0);
    bool whole = hpack_next(&in, &f) != HPACK_BAD;
    *why = in.bad;
    return whole;
}
