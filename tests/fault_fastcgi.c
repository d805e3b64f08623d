/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an upstream over FastCGI answers, in all forms that the protocol and CGI allow, and in many that they
 * do not: records of any size and padding, with others between them that bring the answer no further, heads
 * with their lines in any of the usual ways, bodies with a length, with chunks of their own (some scripts do
 * that), or up to the request's end.
 *
 * What exceeds what was announced is nobody's: it is a text that no client may ever see.
 */
#include "fault.h"

#include <stdlib.h>
#include <string.h>

enum { STDOUT = 6, STDERR = 7, END = 3, RECORD_MAX = 65535 };

static const char nothing[RECORD_MAX];

static void put_record(struct bytes *b, int type, unsigned id, const char *bytes, size_t n, unsigned padding)
{
    const unsigned char head[8] = {1, (unsigned char)type, (unsigned char)(id >> 8), (unsigned char)id,
                                   (unsigned char)(n >> 8), (unsigned char)n, (unsigned char)padding, 0};
    bytes_add(b, head, sizeof head);
    bytes_add(b, bytes, n);
    bytes_add(b, nothing, padding);
}

void fastcgi_record(struct bytes *b, int type, const char *bytes, size_t n, unsigned padding)
{
    put_record(b, type, 1, bytes, n, padding);
}

static void put_end(struct bytes *b, uint32_t app, unsigned protocol, unsigned padding)
{
    const char body[8] = {(char)(app >> 24), (char)(app >> 16), (char)(app >> 8), (char)app, (char)protocol};
    fastcgi_record(b, END, body, sizeof body, padding);
}

struct bytes poison_fastcgi(void)
{
    static const char text[] = "Status: 200 OK\r\nX-Token: ffffffff\r\nX-Attempt: 0\r\n\r\n" ALIEN;
    struct bytes b = {0};
    fastcgi_record(&b, STDOUT, text, sizeof text - 1, 0);
    put_end(&b, 0, 0, 0);
    return b;
}

/* --- heads --- */

/* Lies about the head or the body: each must be a 502, or cut. 12 … 15 are about a chunk (fault_plan.c). */
static bool add_head_lie(struct bytes *text, const struct plan *p)
{
    switch (p->lie) {
    case 0:
        bytes_print(text, "Content-Length: %zu\r\n", p->size + 1);
        return true;
    case 1:
        bytes_print(text, "no colon\r\n");
        return true;
    case 2:
        bytes_print(text, "Transfer-Encoding: chunked\r\n");
        return true;
    case 3:
        bytes_print(text, "Status: many\r\n");
        return true;
    case 4:
        bytes_print(text, "Status: 103 Early Hints\r\n");
        return true;
    case 5:
        bytes_print(text, "Transfer-Encoding: gzip\r\n");
        return true;
    default:
        return false;
    }
}

/* Of 200 nothing needs to be said. */
static void add_status(struct bytes *text, const struct plan *p, struct dice *d)
{
    bool implied = p->status == 200;
    switch (dice_below(d, implied ? 8 : 5)) {
    case 0:
        bytes_print(text, "Status: %d\r\n", p->status);
        break;
    case 1:
        bytes_print(text, "STATUS:%d  Some   Words \t\n", p->status);
        break;
    case 2:
        bytes_print(text, "Status: %d Some Words\r\nStatus: %d Others\r\n", p->status, p->status + 1);
        break;
    case 5:
        bytes_print(text, "Status:\r\n");
        break;
    case 6:
        bytes_print(text, "Location: /elsewhere\r\n");
        break;
    case 7:
        break;
    default:
        bytes_print(text, "Status: %d Some Words\r\n", p->status);
    }
}

static void add_head(struct bytes *text, struct plan *p, const struct round *r, unsigned attempt,
                     struct dice *d)
{
    const char *eol = dice_percent(d, 30) ? "\n" : "\r\n";
    bool lies = p->fault == FAULT_LIE, late = dice_percent(d, 30);
    if (!late && !(lies && add_head_lie(text, p)))
        add_status(text, p, d);
    bytes_print(text, "X-Token: %08x%sX-Attempt: %x%s", r->token, eol, attempt, eol);
    if (late && !(lies && add_head_lie(text, p)))
        add_status(text, p, d);
    if (p->framing == BY_LENGTH)
        bytes_print(text, "Content-Length: %zu%s", p->size + (lies && p->lie == 6), eol);
    else if (p->framing == BY_CHUNKS)
        bytes_print(text, "Transfer-Encoding: %s%s", dice_percent(d, 50) ? "chunked" : "Chunked", eol);
    bytes_print(text, "%s", eol);
    p->head_end = text->len;
}

static void add_answer(struct bytes *text, struct plan *p, const struct round *r, unsigned attempt,
                       struct dice *d)
{
    add_head(text, p, r, attempt, d);
    if (!p->bodiless && p->framing == BY_CHUNKS)
        plan_add_chunks(text, p, r, attempt);
    else if (!p->bodiless)
        plan_add_body(text, p->size, r, attempt, 0);
    if (p->fault == FAULT_FLIP)
        text->at[p->at % p->head_end] ^= (char)(1 << p->at / p->head_end % 7);
    bool plain = p->fault != FAULT_FLIP && p->fault != FAULT_LIE;
    if (plain && (p->bodiless || p->framing == BY_LENGTH || p->framing == BY_CHUNKS) && dice_percent(d, 10))
        bytes_add(text, ALIEN, sizeof ALIEN - 1);
}

/* --- records --- */

static void add_record_lie(struct bytes *out, const struct plan *p, struct dice *d)
{
    size_t at = out->len;
    switch (p->lie) {
    case 7:
        fastcgi_record(out, STDOUT, ALIEN, sizeof ALIEN - 1, 3);
        out->at[at] = (char)(dice_percent(d, 50) ? 2 : 0); /* the version */
        break;
    case 8: /* of another request */
        put_record(out, dice_percent(d, 50) ? STDOUT : STDERR, dice_percent(d, 50) ? 2 : 257, ALIEN,
                   sizeof ALIEN - 1, 0);
        break;
    case 9:
        put_record(out, END, 2 + dice_below(d, 65534), nothing, 8, 0);
        break;
    case 10: { /* of a type that only a web server sends, or nobody */
        static const int types[] = {0, 1, 2, 4, 5, 8, 9, 10, 11, 12, 255};
        fastcgi_record(out, types[dice_below(d, 11)], nothing, 8, 0);
        break;
    }
    case 11: /* an end that is too short, or too long */
        fastcgi_record(out, END, nothing, dice_percent(d, 50) ? 7 : 9, 1);
        break;
    case 16: /* it ends before its answer does */
        put_end(out, dice_below(d, 300), dice_percent(d, 50) ? 0 : dice_below(d, 256), 0);
        break;
    case 17: /* of no request, and yet of one */
        put_record(out, (int)dice_below(d, 9), 0, nothing, dice_below(d, 20), 0);
        break;
    default:
        break;
    }
}

/* What brings the answer no further: stderr, records of the connection itself. */
static void add_aside(struct bytes *out, struct dice *d)
{
    static const char text[] = "a warning\n";
    unsigned padding = dice_below(d, 256);
    switch (dice_below(d, 5)) {
    case 0:
        fastcgi_record(out, STDERR, text, 0, padding);
        break;
    case 1:
        fastcgi_record(out, STDERR, nothing, dice_size(d, RECORD_MAX), padding);
        break;
    case 2:
        put_record(out, 9 + (int)dice_below(d, 247), 0, nothing, dice_size(d, 1000), padding);
        break;
    default:
        fastcgi_record(out, STDERR, text, sizeof text - 1, padding);
    }
}

static size_t record_size(struct dice *d, unsigned way)
{
    static const size_t edges[] = {1, 2, 7, 8, 9, 255, 256, 16383, 16384, 65534, RECORD_MAX};
    if (way == 0)
        return 1;
    return way == 1 ? edges[dice_below(d, 11)] : 1 + dice_size(d, RECORD_MAX - 1);
}

static void add_records(struct bytes *out, const struct bytes *text, const struct plan *p, struct dice *d)
{
    /* one that ends within its head has one that is shorter, as for Caddy */
    size_t first = p->lie == 16 ? p->head_end : 0;
    size_t lie_at = p->fault == FAULT_LIE ? first + dice_below(d, (uint32_t)(text->len - first)) : SIZE_MAX;
    unsigned way = dice_below(d, text->len < 2000 ? 4 : 20);
    way += way == 0 && text->len >= 2000; /* not many thousands */
    for (size_t at = 0; at < text->len;) {
        size_t n = record_size(d, way);
        size_t end = at < first ? first : text->len;
        n = n < end - at ? n : end - at;
        if (dice_percent(d, 5))
            add_aside(out, d);
        if (lie_at < at + n)
            add_record_lie(out, p, d);
        if (lie_at < at + n)
            lie_at = SIZE_MAX;
        fastcgi_record(out, STDOUT, text->at + at, n, dice_percent(d, 50) ? dice_below(d, 256) : 0);
        at += n;
    }
}

struct bytes plan_render_fastcgi(struct plan *p, const struct round *r, unsigned attempt, struct dice *d)
{
    struct bytes out = {0}, text = {0};
    add_answer(&text, p, r, attempt, d);
    add_records(&out, &text, p, d);
    free(text.at);
    if (dice_percent(d, 50))
        fastcgi_record(&out, STDOUT, "", 0, dice_below(d, 9));
    if (dice_percent(d, 20))
        add_aside(&out, d);
    unsigned padding = dice_percent(d, 20) ? dice_below(d, 256) : 0;
    put_end(&out, dice_percent(d, 20) ? (uint32_t)dice_next(d) : 0, dice_percent(d, 5) ? dice_below(d, 5) : 0,
            padding);
    p->needed = out.len - padding;
    if (p->fault != FAULT_SURPLUS)
        return out;
    if (dice_percent(d, 30)) { /* an end once more */
        put_end(&out, 0, 0, 0);
        return out;
    }
    struct bytes more = poison_fastcgi();
    bytes_add(&out, more.at, more.len);
    free(more.at);
    return out;
}
