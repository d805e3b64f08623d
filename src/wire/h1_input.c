/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes in on an HTTP/1 connection that waits: bytes are copied, or decrypted, into the scratch's
 * input buffer until they hold a whole head. Then an exchange begins, or the connection goes on as
 * one of HTTP/2, or it is refused. No fiber runs here.
 *
 * The input buffer holds the head in hand at its front for the whole exchange, since the request's
 * slices point into it; body bytes come behind it.
 */
#include "wire/h1_internal.h"

#include "base/log.h"
#include "loop/await.h"
#include "wire/h2_conn.h"

/* --- refusals --- */

static int refusal_status(enum h1_result r)
{
    switch (r) {
    case H1_TOO_LARGE:
        return 431;
    case H1_VERSION:
        return 505;
    case H1_CODING:
    case H1_METHOD:
        return 501;
    case H1_EXPECT:
        return 417;
    default:
        return 400;
    }
}

/* The request line did not even end within the limit, or the fields did not. */
static int too_large(const struct h1_scratch *s, uint32_t head_max)
{
    size_t skip = s->len > 2 && s->in[0] == '\r' ? 2 : 0;
    size_t n = s->len < head_max ? s->len : head_max;
    return memchr(s->in + skip, '\n', n > skip ? n - skip : 0) != NULL ? 431 : 414;
}

void h1_refuse(struct h1_conn *c, int status)
{
    struct buffer *out = &c->scratch->out;
    if (log_wants(LOG_DEBUG))
        LOG(LOG_DEBUG, "http", "request refused", LOG_NUM("status", status),
            LOG_CSTR("reason", status == 400 && c->scratch->head.bad != NULL ? c->scratch->head.bad
                                                                             : status_text(status)));
    h1_put_refusal(out, status);
    stream_send_now(&c->stream, buffer_slice(out));
    h1_begin_linger(c);
}

int h1_refusal_of(const struct h1_conn *c, enum h1_result r)
{
    const struct h1_scratch *s = c->scratch;
    uint32_t head_max = c->site->server->max_header_bytes;
    if ((r == H1_MORE && s->len > head_max) ||
        (r == H1_DONE && (s->head_len > head_max || s->head_len > s->in_cap - BODY_ROOM)))
        return too_large(s, head_max);
    return r == H1_MORE || r == H1_DONE ? 0 : refusal_status(r);
}

/* --- heads --- */

uint64_t h1_head_timeout(const struct http_server *server)
{
    uint64_t head = server->read_header_timeout_ns, all = server->read_timeout_ns;
    return head == 0 || (all > 0 && all < head) ? all : head;
}

/* RFC 7540 §3.2. True: the connection has gone on without this one. */
static bool upgrade_to_h2(struct h1_conn *c)
{
    struct h1_scratch *s = c->scratch;
    struct h1_addresses *given = c->given;
    char room[H2_SETTINGS_ROOM];
    struct buffer settings = {.ptr = room, .cap = sizeof room, .max = sizeof room};
    if (s->head.upgrade.len == 0 || c->stream.tls != NULL ||
        (c->site->protocols & HTTP_2_CLEAR) == 0 ||
        !h2_upgrade_asked(&s->head, &settings))
        return false;
    c->given = NULL;
    h2_conn_upgrade(c->worker, c->site, c->stream.fd, given, &s->head, buffer_slice(&settings),
                    slice_of(s->in + s->head_len, s->len - s->head_len));
    h1_free_conn(c);
    return true;
}

static void on_head(struct h1_conn *c, enum h1_result r, bool begins)
{
    int status = h1_refusal_of(c, r);
    if (status > 0) {
        h1_refuse(c, status);
        return;
    }
    if (r == H1_MORE) { /* the deadline counts from the head's first byte */
        if (c->stream.tls != NULL)
            stream_push(&c->stream);
        op_recv_lent(c->worker->loop, &c->op, c->stream.fd);
        if (begins)
            h1_set_deadline(c, h1_head_timeout(c->site->server));
        return;
    }
    if (upgrade_to_h2(c))
        return;
    c->deadline_ns = UINT64_MAX;
    c->first = false;
    H1_COUNT(c->worker->busy, 1);
    if (fiber_start(c->worker->loop, h1_serve_all, c) != OK) {
        H1_COUNT(c->worker->busy, -1u);
        h1_refuse(c, 503);
    }
}

/* It goes on with its socket, what has come and the place among those that are counted. */
static void become_h2(struct h1_conn *c)
{
    struct h1_scratch *s = c->scratch;
    struct h1_addresses *given = c->given;
    c->given = NULL;
    h2_conn_begin(c->worker, c->site, c->stream.fd, given, NULL, slice_of(s->in, s->len));
    h1_free_conn(c);
}

/* Whether the first bytes are those of HTTP/2 "with prior knowledge" (RFC 9113 §3.3). */
static enum h1_result look_for_h2(const struct h1_conn *c)
{
    const struct h1_scratch *s = c->scratch;
    size_t n = h2_preface_match(slice_of(s->in, s->len));
    if ((c->site->protocols & HTTP_2_CLEAR) == 0 || !c->first || n == 0)
        return H1_BAD;
    return n < H2_PREFACE_LEN ? H1_MORE : H1_DONE;
}

/* Behind new bytes in the input: a head, perhaps. */
static void look_for_head(struct h1_conn *c, bool begins)
{
    struct h1_scratch *s = c->scratch;
    enum h1_result r = h1_parse_request(&s->head, slice_of(s->in, s->len), &s->head_len);
    on_head(c, r, begins);
}

/* Of clear text. */
static void look_for_protocol(struct h1_conn *c, bool begins)
{
    switch (look_for_h2(c)) {
    case H1_DONE:
        become_h2(c);
        break;
    case H1_MORE:
        on_head(c, H1_MORE, begins);
        break;
    default:
        look_for_head(c, begins);
    }
}

/* --- bytes --- */

enum tls_step h1_decrypt(struct h1_conn *c, struct slice ciphertext)
{
    struct h1_scratch *s = c->scratch;
    struct tls_stream *tls = c->stream.tls;
    size_t n;
    if (ciphertext.len > 0)
        tls_stream_feed(tls, ciphertext);
    enum tls_step step = tls_stream_read(tls, s->in + s->len, s->in_cap - s->len, &n);
    tls_stream_keep(tls);
    s->len += n;
    if (step != TLS_OK) /* else it leaves with the answer */
        stream_push(&c->stream);
    return step;
}

/* The peer has said its end, or nothing that it says can be read any more. */
static void end_encrypted(struct h1_conn *c, enum tls_step step)
{
    if (step == TLS_END)
        stream_shutdown(&c->stream);
    h1_close_now(c);
}

static void on_encrypted(struct h1_conn *c, struct slice ciphertext, bool begins)
{
    if (begins)
        h1_take_scratch(c);
    enum tls_step step = h1_decrypt(c, ciphertext);
    if (step == TLS_OK && c->scratch->len == c->scratch->in_cap &&
        h1_refusal_of(c, H1_MORE) > 0) { /* a head beyond its limit by far */
        h1_refuse(c, too_large(c->scratch, c->site->server->max_header_bytes));
    } else if (step == TLS_OK) {
        look_for_head(c, begins);
    } else if (step == TLS_MORE) { /* the rest of a record is to come */
        if (begins) {
            h1_give_scratch(c->worker, c->scratch);
            c->scratch = NULL;
        }
        op_recv_lent(c->worker->loop, &c->op, c->stream.fd);
    } else {
        end_encrypted(c, step);
    }
}

void h1_on_early_bytes(struct h1_conn *c, uint64_t timeout_ns)
{
    h1_set_deadline(c, timeout_ns);
    c->fresh = false;
    on_encrypted(c, SLICE_NONE, c->scratch == NULL);
}

void h1_on_bytes(struct op *op, int result)
{
    struct h1_conn *c = CONTAINER_OF(op, struct h1_conn, op);
    bool begins = c->scratch == NULL;
    if (result <= 0 || c->closing) {
        h1_close_now(c);
        return;
    }
    if (c->lingering) {
        h1_go_on_lingering(c, (size_t)result);
        return;
    }
    c->fresh = false;
    if (c->stream.tls != NULL) {
        on_encrypted(c, op->lent, begins);
        return;
    }
    if (begins)
        h1_take_scratch(c);
    struct h1_scratch *s = c->scratch;
    if (op->lent.len > s->in_cap - s->len) { /* a head beyond its limit by far */
        h1_refuse(c, too_large(s, c->site->server->max_header_bytes));
        return;
    }
    memcpy(s->in + s->len, op->lent.ptr, op->lent.len);
    s->len += op->lent.len;
    look_for_protocol(c, begins);
}
