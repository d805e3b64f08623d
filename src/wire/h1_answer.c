/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sink at the bottom of every stack: a response as HTTP/1 bytes. The head, the first data and
 * the end are gathered and leave in one send; stable bytes are not copied. Framing is decided here
 * alone: handlers cannot write Content-Length, Transfer-Encoding or Connection, nor a name or value
 * that would split the response. What was announced and not delivered is a cut connection.
 */
#include "wire/h1_internal.h"

#include <netinet/tcp.h>

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "base/clock.h"
#include "loop/await.h"

enum {
    GATHER_MAX = 1024,     /* body bytes that are copied behind the head */
    DEFER_MAX = 32 * 1024, /* of an answer that is sent behind its fiber */
    HEAD_JOINS = 8 * 1024, /* of a head that is encrypted with what follows it */
    CORK_MIN = 256 * 1024, /* bytes of a file from which on two more system calls pay */
    TURN_MAX = 256 * 1024, /* bytes that one connection sends before others get their turn */
};

static struct h1_scratch *of_sink(struct sink *s)
{
    return CONTAINER_OF(s, struct h1_scratch, sink);
}

/* After a wait that took half of the time a pause may last: true when the peer has taken something
 * meanwhile. The kernel says that a socket is writable only when a third of its buffer is free, which
 * may be megabytes: slow is not stuck. */
bool h1_still_takes(struct h1_scratch *s, enum err e)
{
    int unsent;
    bool hard = s->hard_write_ns > 0 && loop_now_ns(s->conn->worker->loop) >= s->hard_write_ns;
    if (e != ERR_TIMEOUT || hard || s->x.server->write_min_rate > 0 ||
        ioctl(s->conn->stream.fd, SIOCOUTQ, &unsent) != 0)
        return false;
    bool takes = s->unsent == 0 || unsent < s->unsent;
    s->unsent = unsent;
    return takes;
}

void h1_wrote(struct h1_scratch *s, uint64_t n)
{
    s->writing.bytes += n;
    if (n > 0)
        s->unsent = 0;
}

/* A client that takes as fast as it is sent to never makes its fiber wait: it must not keep the
 * worker from all the others. */
static enum err take_turns(struct h1_scratch *s, uint64_t n)
{
    s->turn_bytes += n;
    if (s->turn_bytes < TURN_MAX)
        return OK;
    s->turn_bytes = 0;
    return await_yield();
}

static enum err send_parts(struct h1_scratch *s, struct iovec *parts, size_t count, int flags)
{
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = count};
    if (s->wire_broken)
        return ERR_CLOSED;
    while (m.msg_iovlen > 0) {
        size_t sent;
        enum err e = stream_send_some(&s->conn->stream, &m, flags, h1_write_deadline(s), &sent);
        if (e != OK && !h1_still_takes(s, e))
            return h1_broken(s, e);
        h1_wrote(s, sent);
        e = take_turns(s, sent);
        if (e != OK)
            return h1_broken(s, e);
    }
    return OK;
}

static struct iovec part_of(struct slice s)
{
    return (struct iovec){(char *)(uintptr_t)s.ptr, s.len};
}

/* Moves a few bytes behind those that are gathered already: one part is cheaper to send than two. */
static void gather_small(struct h1_scratch *s, struct slice *bytes)
{
    if (s->out.len == 0 || bytes->len == 0 || bytes->len > GATHER_MAX ||
        buffer_append(&s->out, *bytes) != OK)
        return;
    *bytes = SLICE_NONE;
}

void h1_gather(struct h1_scratch *s)
{
    gather_small(s, &s->pending);
    s->flush_parts[0] = part_of(buffer_slice(&s->out));
    s->flush_parts[1] = part_of(s->pending);
    s->flush_message = (struct msghdr){.msg_iov = s->flush_parts,
                                       .msg_iovlen = s->pending.len > 0 ? 2 : 1};
}

bool h1_encrypt(struct h1_scratch *s)
{
    struct tls_stream *tls = s->conn->stream.tls;
    struct msghdr *m = &s->flush_message;
    size_t total = s->out.len + s->pending.len;
    if (tls_stream_write(tls, m->msg_iov, m->msg_iovlen) != total)
        return false;
    s->flush_parts[0] = part_of(tls_stream_out(tls));
    m->msg_iovlen = 1;
    return true;
}

/* Sends what is gathered: the head or a chunk's line, pending bytes, `more`. */
static enum err send_gathered(struct h1_scratch *s, struct slice more, struct slice tail, int flags)
{
    gather_small(s, &s->pending);
    if (s->pending.len == 0)
        gather_small(s, &more);
    if (s->pending.len == 0 && more.len == 0)
        gather_small(s, &tail);
    struct iovec parts[4] = {part_of(buffer_slice(&s->out)), part_of(s->pending), part_of(more),
                             part_of(tail)};
    enum err e = send_parts(s, parts, 4, flags);
    buffer_clear(&s->out);
    s->pending = SLICE_NONE;
    return e;
}

static enum err put_fields(struct buffer *out, const struct fields *fields)
{
    for (uint32_t i = 0; i < fields->count; i++) {
        const struct field *f = &fields->items[i];
        struct slice value = f->value;
        if (field_is_framing(f->name) || !h1_name_ok(f->name) ||
            !h1_value_fit(&value, fields->arena))
            continue; /* a name or value that would split the response never leaves */
        size_t room = f->name.len + value.len + 4;
        if (__builtin_expect(room > out->cap - out->len, 0))
            TRY(buffer_reserve(out, room));
        char *at = out->ptr + out->len;
        memcpy(at, f->name.ptr, f->name.len);
        at += f->name.len;
        *at++ = ':';
        *at++ = ' ';
        if (value.len > 0)
            memcpy(at, value.ptr, value.len);
        at += value.len;
        *at++ = '\r';
        *at++ = '\n';
        out->len = (size_t)(at - out->ptr);
    }
    return OK;
}

static enum err put_status(struct buffer *out, int status)
{
    if (status == 200)
        return BUFFER_PUT(out, "HTTP/1.1 200 OK\r\n");
    TRY(BUFFER_PUT(out, "HTTP/1.1 "));
    TRY(buffer_append_u64(out, (uint64_t)status)); /* three digits: 100 … 999 */
    TRY(buffer_append_byte(out, ' '));
    TRY(buffer_append(out, slice_from(status_text(status))));
    return BUFFER_PUT(out, "\r\n");
}

static enum err put_date(struct h1_worker *w, struct buffer *out)
{
    int64_t now = loop_wall_s(w->loop);
    if (w->date_s != now) {
        memcpy(w->date, "Date: ", 6);
        clock_http_date(now, w->date + 6);
        memcpy(w->date + sizeof w->date - 2, "\r\n", 2);
        w->date_s = now;
    }
    return buffer_append(out, slice_of(w->date, sizeof w->date));
}

/* Content-Length, chunks, or the connection's end (RFC 9112 §6). */
static enum err put_framing(struct h1_scratch *s, const struct response *res)
{
    bool no_length = res->status / 100 == 1 || res->status == 204 || res->status == 304;
    if (res->content_length >= 0 && !no_length) {
        TRY(BUFFER_PUT(&s->out, "Content-Length: "));
        TRY(buffer_append_u64(&s->out, (uint64_t)res->content_length));
        TRY(BUFFER_PUT(&s->out, "\r\n"));
    } else if (!exchange_bodiless(&s->x, res->status)) {
        s->chunked_out = s->x.req.minor == 1;
        if (s->chunked_out)
            TRY(BUFFER_PUT(&s->out, "Transfer-Encoding: chunked\r\n"));
        else
            s->x.close_after = true;
    }
    if (res->status == 101) {
        s->x.close_after = true;
        return BUFFER_PUT(&s->out, "Connection: Upgrade\r\n");
    }
    if (s->x.close_after)
        return BUFFER_PUT(&s->out, "Connection: close\r\n");
    return s->x.req.minor == 0 ? BUFFER_PUT(&s->out, "Connection: keep-alive\r\n") : OK;
}

static enum err put_head(struct h1_scratch *s, const struct response *res)
{
    TRY(put_status(&s->out, res->status));
    TRY(put_fields(&s->out, &res->fields));
    if (!res->no_date && !fields_has(&res->fields, SLICE("Date")))
        TRY(put_date(s->conn->worker, &s->out));
    TRY(put_framing(s, res));
    return BUFFER_PUT(&s->out, "\r\n");
}

static enum err on_sink_inform(struct sink *sink, int status, const struct fields *fields)
{
    struct h1_scratch *s = of_sink(sink);
    if (s->x.req.minor == 0 || s->x.res.head_sent)
        return OK;
    TRY(put_status(&s->out, status));
    TRY(put_fields(&s->out, fields));
    TRY(BUFFER_PUT(&s->out, "\r\n"));
    return send_gathered(s, SLICE_NONE, SLICE_NONE, 0);
}

/* A final answer cannot have an interim status: the client would wait for another. It is sent as
 * what it is, and an empty 200 behind it, as Go does. */
static enum err put_interim(struct sink *sink, struct response *res)
{
    TRY(on_sink_inform(sink, res->status, &res->fields));
    res->status = 200;
    res->content_length = 0;
    return OK;
}

static enum err on_sink_head(struct sink *sink, struct response *res)
{
    struct h1_scratch *s = of_sink(sink);
    if (res->status / 100 == 1 && res->status != 101)
        TRY(put_interim(sink, res));
    s->x.close_after |= h1_draining(s->conn); /* it may have begun behind the request's head */
    if (!s->body_done && s->expect_continue)
        s->x.close_after = true; /* the body may or may not come: no telling what follows */
    if (!s->body_done && s->framing == H1_BODY_LENGTH && s->body_left > DISCARD_MAX)
        s->x.close_after = true; /* more than is read away: the client is told, as by Go */
    enum err e = put_head(s, res);
    res->head_sent = true;
    return e == OK ? OK : h1_broken(s, e);
}

static enum err over_length(struct h1_scratch *s, uint64_t more)
{
    int64_t length = s->x.res.content_length;
    if (length < 0 || s->x.bytes_sent + more <= (uint64_t)length)
        return OK;
    return h1_broken(s, ERR_INVALID); /* more than the head announced */
}

static enum err on_sink_data(struct sink *sink, struct slice bytes, enum lend lend)
{
    struct h1_scratch *s = of_sink(sink);
    if (bytes.len == 0 || exchange_bodiless(&s->x, s->x.res.status))
        return OK;
    TRY(over_length(s, bytes.len));
    if (!s->chunked_out && lend == LEND_STABLE && s->pending.len == 0) {
        s->pending = bytes;
        s->x.bytes_sent += bytes.len;
        return OK;
    }
    s->x.bytes_sent += bytes.len;
    if (!s->chunked_out)
        return send_gathered(s, bytes, SLICE_NONE, 0);
    char line[CHUNKED_HEAD_MAX];
    TRY(buffer_append(&s->out, slice_of(line, chunked_head(line, bytes.len))));
    if (lend == LEND_STABLE && bytes.len <= GATHER_MAX && /* need not leave before the end */
        buffer_reserve(&s->out, bytes.len + 2) == OK) {
        (void)!buffer_append(&s->out, bytes);
        return BUFFER_PUT(&s->out, "\r\n");
    }
    return send_gathered(s, bytes, SLICE("\r\n"), 0);
}

/* Between the pieces of a large file the kernel keeps what fills no segment, instead of sending it
 * alone whenever the socket's buffer is full. */
static void cork(int fd, uint64_t len, int on)
{
    if (len >= CORK_MIN)
        (void)!setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on); /* Unix sockets have none */
}

static enum err on_sink_file(struct sink *sink, int fd, uint64_t offset, uint64_t len)
{
    struct h1_scratch *s = of_sink(sink);
    uint64_t sent = 0;
    if (exchange_bodiless(&s->x, s->x.res.status))
        return OK;
    TRY(over_length(s, len));
    if (s->chunked_out)
        return sink_file_as_data(sink, fd, offset, len);
    struct stream *stream = &s->conn->stream;
    struct slice head = SLICE_NONE;
    cork(stream->fd, len, 1);
    if (stream->tls != NULL && len > 0 && s->pending.len == 0 && s->out.len <= HEAD_JOINS)
        head = buffer_slice(&s->out); /* it shares a record with the file */
    enum err e = head.len > 0 ? OK : send_gathered(s, SLICE_NONE, SLICE_NONE, MSG_MORE);
    while (e == OK && sent < len) {
        uint64_t n;
        e = stream_sendfile_some(stream, &head, fd, offset + sent, len - sent,
                                 h1_write_deadline(s), &n);
        sent += n;
        h1_wrote(s, n);
        if (h1_still_takes(s, e))
            e = OK;
        if (e == OK)
            e = take_turns(s, n);
    }
    s->x.bytes_sent += sent;
    cork(stream->fd, len, 0);
    buffer_clear(&s->out);
    return e == OK ? OK : h1_broken(s, e);
}

static enum err on_sink_flush(struct sink *sink)
{
    struct h1_scratch *s = of_sink(sink);
    if (s->out.len == 0 && s->pending.len == 0)
        return OK;
    return send_gathered(s, SLICE_NONE, SLICE_NONE, 0);
}

/* Nothing to read away, nothing pipelined, no close: all that is left is this send. */
static bool may_defer(const struct h1_scratch *s)
{
    return s->body_done && s->at == s->len && !s->x.close_after && !s->wire_broken &&
           !h1_draining(s->conn) && s->out.len + s->pending.len <= DEFER_MAX;
}

static enum err on_sink_end(struct sink *sink, const struct fields *trailers)
{
    struct h1_scratch *s = of_sink(sink);
    bool bodiless = exchange_bodiless(&s->x, s->x.res.status);
    if (s->out_ended)
        return OK;
    s->out_ended = true;
    if (!bodiless && s->x.res.content_length >= 0 &&
        s->x.bytes_sent < (uint64_t)s->x.res.content_length)
        return h1_broken(s, ERR_INVALID); /* less than announced: only a cut tells the client */
    if (s->chunked_out && !bodiless) {
        TRY(BUFFER_PUT(&s->out, "0\r\n"));
        if (trailers != NULL)
            TRY(put_fields(&s->out, trailers));
        TRY(BUFFER_PUT(&s->out, "\r\n"));
    }
    s->deferred = (s->out.len > 0 || s->pending.len > 0) && may_defer(s);
    return s->deferred ? OK : on_sink_flush(sink);
}

void h1_put_refusal(struct buffer *out, int status)
{
    const char *text = status_text(status);
    buffer_clear(out);
    (void)!buffer_append_f(out,
                           "HTTP/1.1 %d %s\r\nServer: portico\r\nContent-Type: text/plain; "
                           "charset=utf-8\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%d %s",
                           status, text, strlen(text) + 4, status, text);
}

static void on_sink_abort(struct sink *sink, enum err why)
{
    struct h1_scratch *s = of_sink(sink);
    int status = s->x.res.head_sent ? 0 : status_of_failure(why);
    s->x.close_after = true;
    if (status > 0) {
        s->wire_broken = false;
        s->x.res.status = status;
        h1_put_refusal(&s->out, status);
        (void)!send_gathered(s, SLICE_NONE, SLICE_NONE, 0);
        return;
    }
    s->wire_broken = true;
}

const struct sink_type h1_sink = {
    .inform = on_sink_inform,
    .head = on_sink_head,
    .data = on_sink_data,
    .file = on_sink_file,
    .flush = on_sink_flush,
    .end = on_sink_end,
    .abort = on_sink_abort,
};
