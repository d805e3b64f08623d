/* SPDX-License-Identifier: Apache-2.0 */
/*
 * With TLS, plaintext counts as sent when its ciphertext has left. What has been encrypted and has
 * not left yet stands in the stream's output, and `ahead` tells how many of the caller's bytes those
 * are: a write that timed out is tried again with the same bytes, and takes up where it was.
 *
 * Received ciphertext lies in memory of this thread until the fiber suspends; it is decrypted at
 * once. What the reader has no room for is copied and kept. A reader may have something to send (an
 * answer to a KeyUpdate): it sends it unless the writer is just doing so, and never waits for it.
 */
#include "tls/stream.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"

enum { PIECE = 64 * 1024 };

static _Thread_local char *piece; /* what is received or read from a file, until it is used */

static char *take_piece(void)
{
    if (piece == NULL)
        piece = mem_alloc(PIECE);
    return piece;
}

void stream_thread_deinit(void)
{
    mem_free(piece);
    piece = NULL;
    tls_stream_thread_deinit();
}

/* --- sending --- */

static bool is_more_than(const struct msghdr *m, size_t n)
{
    for (size_t i = 0; i < m->msg_iovlen; i++) {
        if (m->msg_iov[i].iov_len > n)
            return true;
        n -= m->msg_iov[i].iov_len;
    }
    return false;
}

static enum err send_out(struct stream *s, int flags, uint64_t deadline_ns, size_t *n)
{
    struct slice out = tls_stream_out(s->tls);
    struct iovec part = {(char *)(uintptr_t)out.ptr, out.len};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    struct tls_flight *f = tls_stream_flight(s->tls);
    *n = 0;
    if (out.len == 0)
        return OK;
    f->sending = true;
    enum err e = await_send_some(s->fd, &m, flags, deadline_ns, n);
    f->sending = false;
    tls_stream_sent(s->tls, *n);
    return e;
}

/* Some of the output, and how many of the caller's bytes count as sent with it. */
static enum err send_ahead(struct stream *s, int flags, uint64_t deadline_ns, size_t *moved)
{
    struct tls_flight *f = tls_stream_flight(s->tls);
    size_t n;
    *moved = 0;
    TRY(send_out(s, flags, deadline_ns, &n));
    *moved = f->ahead;
    if (tls_stream_out(s->tls).len > 0 && f->ahead > 0) /* the last byte counts when all has left */
        *moved = n < f->ahead ? n : f->ahead - 1;
    f->ahead -= *moved;
    return OK;
}

void stream_push(struct stream *s)
{
    struct slice out = tls_stream_out(s->tls);
    struct iovec part = {(char *)(uintptr_t)out.ptr, out.len};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    if (out.len == 0 || tls_stream_flight(s->tls)->sending)
        return;
    ssize_t n = send_now(s->fd, &m, 0);
    if (n > 0)
        tls_stream_sent(s->tls, (size_t)n);
}

/* Of a stream that is no socket. */
static enum err send_part(struct stream *s, struct msghdr *m, uint64_t deadline_ns, size_t *sent)
{
    *sent = 0;
    message_skip(m, 0); /* empty parts */
    if (m->msg_iovlen == 0)
        return OK;
    TRY(s->type->send(s, slice_of(m->msg_iov->iov_base, m->msg_iov->iov_len), deadline_ns));
    *sent = m->msg_iov->iov_len;
    message_skip(m, *sent);
    return OK;
}

enum err stream_send_some(struct stream *s, struct msghdr *m, int flags, uint64_t deadline_ns,
                          size_t *sent)
{
    if (s->type != NULL)
        return send_part(s, m, deadline_ns, sent);
    if (s->tls == NULL)
        return await_send_some(s->fd, m, flags, deadline_ns, sent);
    struct tls_flight *f = tls_stream_flight(s->tls);
    *sent = 0;
    message_skip(m, 0); /* empty parts */
    if (m->msg_iovlen == 0)
        return OK;
    if (f->ahead == 0)
        f->ahead = tls_stream_write(s->tls, m->msg_iov, m->msg_iovlen);
    if (tls_stream_failed(s->tls))
        return ERR_IO;
    if (is_more_than(m, f->ahead)) /* what fills no segment waits for it */
        flags |= MSG_MORE;
    TRY(send_ahead(s, flags, deadline_ns, sent));
    message_skip(m, *sent);
    return OK;
}

enum err stream_send(struct stream *s, struct iovec *parts, size_t count, int flags,
                     uint64_t deadline_ns, size_t *sent)
{
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = count};
    *sent = 0;
    while (m.msg_iovlen > 0) {
        size_t n;
        TRY(stream_send_some(s, &m, flags, deadline_ns, &n));
        *sent += n;
    }
    return OK;
}

static enum err encrypt_file(struct stream *s, struct slice head, int file, uint64_t offset,
                             uint64_t len)
{
    ssize_t n;
    char *to = take_piece() + head.len;
    size_t room = PIECE - head.len;
    if (head.len > 0)
        memcpy(piece, head.ptr, head.len);
    do
        n = pread(file, to, len < room ? (size_t)len : room, (off_t)offset);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return ERR_IO; /* it has become shorter */
    struct iovec part = {piece, head.len + (size_t)n};
    tls_stream_flight(s->tls)->ahead = tls_stream_write(s->tls, &part, 1);
    return OK;
}

enum err stream_sendfile_some(struct stream *s, struct slice *head, int file, uint64_t offset,
                              uint64_t len, uint64_t deadline_ns, uint64_t *sent)
{
    if (s->tls == NULL)
        return await_sendfile_some(s->fd, file, offset, len, deadline_ns, sent);
    size_t n;
    *sent = 0;
    if (len == 0)
        return OK;
    TRY(fiber_self()->cancelled);
    if (tls_stream_flight(s->tls)->ahead == 0)
        TRY(encrypt_file(s, slice_take(*head, PIECE / 2), file, offset, len));
    if (tls_stream_failed(s->tls))
        return ERR_IO;
    TRY(send_ahead(s, 0, deadline_ns, &n));
    size_t of_head = n < head->len ? n : head->len;
    *head = slice_skip(*head, of_head);
    *sent = n - of_head;
    return OK;
}

void stream_send_now(struct stream *s, struct slice bytes)
{
    struct iovec part = {(char *)(uintptr_t)bytes.ptr, bytes.len};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    if (s->type != NULL) {
        s->type->send_now(s, bytes);
        return;
    }
    if (s->tls == NULL) {
        (void)send_now(s->fd, &m, 0);
        return;
    }
    (void)tls_stream_write(s->tls, &part, 1);
    stream_push(s);
}

void stream_shutdown(struct stream *s)
{
    if (s->type != NULL) {
        s->type->shutdown(s);
        return;
    }
    if (s->tls != NULL) {
        tls_stream_shutdown(s->tls);
        stream_push(s);
    }
    (void)shutdown(s->fd, SHUT_WR);
}

/* --- receiving --- */

/* Decrypts what there is. False: nothing, until more ciphertext comes. */
static bool decrypt(struct stream *s, char *buf, size_t len, size_t *n, enum err *e)
{
    enum tls_step step = tls_stream_read(s->tls, buf, len, n);
    tls_stream_keep(s->tls); /* the loan ends */
    stream_push(s);
    *e = step == TLS_FAILED ? ERR_INVALID : OK;
    return step != TLS_MORE;
}

enum tls_step stream_decrypt(struct stream *s, struct slice ciphertext, char *buf, size_t cap,
                             size_t *n)
{
    if (ciphertext.len > 0)
        tls_stream_feed(s->tls, ciphertext);
    enum tls_step step = tls_stream_read(s->tls, buf, cap, n);
    tls_stream_keep(s->tls);
    stream_push(s);
    return step;
}

/* Takes ciphertext that is there. False when there is none; *e is ERR_CLOSED at the end. */
static bool take_some(struct stream *s, size_t wanted, enum err *e)
{
    ssize_t n;
    size_t max = wanted + TLS_RECORD_MAX < PIECE ? wanted + TLS_RECORD_MAX : PIECE;
    do
        n = recv(s->fd, take_piece(), max, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    *e = n > 0 ? OK : n == 0 ? ERR_CLOSED : err_from_errno(errno);
    if (n > 0)
        tls_stream_feed(s->tls, slice_of(piece, (size_t)n));
    return n >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

bool stream_recv_now(struct stream *s, char *buf, size_t len, size_t *n, enum err *e)
{
    *n = 0;
    if (s->type != NULL)
        return s->type->recv_now(s, buf, len, n, e);
    if (s->tls == NULL) {
        ssize_t got;
        do
            got = recv(s->fd, buf, len, MSG_DONTWAIT);
        while (got < 0 && errno == EINTR);
        *e = got < 0 ? err_from_errno(errno) : OK;
        *n = got > 0 ? (size_t)got : 0;
        return got >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
    }
    while (!decrypt(s, buf, len, n, e)) {
        if (!take_some(s, len, e))
            return false;
        if (*e != OK)
            return true;
    }
    return true;
}

static enum err wait_for_some(struct stream *s, uint64_t deadline_ns)
{
    struct slice lent;
    TRY(await_recv_lent(s->fd, deadline_ns, &lent));
    if (lent.len == 0)
        return ERR_CLOSED;
    tls_stream_feed(s->tls, lent);
    return OK;
}

enum err stream_recv(struct stream *s, char *buf, size_t len, uint64_t deadline_ns, size_t *n)
{
    enum err e;
    if (s->type == NULL && s->tls == NULL)
        return await_recv(s->fd, buf, len, deadline_ns, n);
    while (!stream_recv_now(s, buf, len, n, &e))
        TRY(s->type != NULL ? s->type->await_readable(s, deadline_ns)
                            : wait_for_some(s, deadline_ns));
    return e;
}

enum err stream_await_readable(struct stream *s, uint64_t deadline_ns)
{
    unsigned ready;
    if (s->type != NULL)
        return s->type->await_readable(s, deadline_ns);
    if (s->tls != NULL && tls_stream_ready(s->tls))
        return fiber_self()->cancelled;
    return await_poll(s->fd, POLLIN | POLLRDHUP, deadline_ns, &ready);
}

/* --- the handshake --- */

struct step {
    struct tls_stream *tls;
    enum tls_step result;
};

static void run_step(void *arg)
{
    struct step *s = arg;
    s->result = tls_stream_handshake(s->tls);
}

/* On the loop's large stack: chains are verified here. */
static enum tls_step handshake_step(struct stream *s)
{
    struct step step = {.tls = s->tls};
    tls_stream_keep(s->tls);
    await_on_loop(run_step, &step);
    return step.result;
}

static enum err send_all_out(struct stream *s, uint64_t deadline_ns)
{
    while (tls_stream_out(s->tls).len > 0) {
        size_t n;
        TRY(send_out(s, 0, deadline_ns, &n));
    }
    return OK;
}

enum err stream_handshake(struct stream *s, uint64_t deadline_ns)
{
    enum tls_step step;
    while ((step = handshake_step(s)) != TLS_OK) {
        enum err e = send_all_out(s, deadline_ns);
        if (step == TLS_FAILED)
            return ERR_INVALID;
        TRY(e);
        if (step == TLS_END)
            return ERR_CLOSED;
        if (step == TLS_MORE && !take_some(s, 0, &e))
            e = wait_for_some(s, deadline_ns);
        TRY(e);
    }
    return send_all_out(s, deadline_ns);
}

enum err stream_say_end(struct stream *s, uint64_t deadline_ns)
{
    if (s->tls == NULL || tls_stream_failed(s->tls))
        return OK;
    tls_stream_shutdown(s->tls);
    return send_all_out(s, deadline_ns);
}
