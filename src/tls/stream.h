/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection's two directions as fibers use them, with TLS or without: the same waits as
 * loop/await.h, with the same deadlines and errors. Without TLS they are those.
 *
 * With TLS one fiber may write while another one reads. After an ERR_TIMEOUT a write may be tried
 * again, with the same bytes.
 */
#pragma once

#include "loop/await.h"
#include "tls/tls_stream.h"

struct stream;
struct stream_watcher;

/* Who waits for such a stream as the next without a fiber. Both are called from anywhere, also from
 * within `watch`: they may neither wait nor start a fiber. */
struct stream_watcher_type {
    void (*readable)(struct stream_watcher *); /* bytes have come, or the end: once for each `watch` */
    void (*broken)(struct stream_watcher *);   /* nothing can be sent any more, nor read but for what has
                                                * come: once */
};

struct stream_watcher {
    const struct stream_watcher_type *type;
};

/* A stream that is no socket of its own, such as one of HTTP/2: the waits below are its functions. */
struct stream_type {
    enum err (*await_readable)(struct stream *, uint64_t deadline_ns);
    bool (*recv_now)(struct stream *, char *buf, size_t len, size_t *n, enum err *);
    enum err (*send)(struct stream *, struct slice, uint64_t deadline_ns); /* all of it */
    void (*send_now)(struct stream *, struct slice);
    void (*shutdown)(struct stream *);
    void (*watch)(struct stream *, struct stream_watcher *); /* from the first one on */
};

struct stream {
    int fd;
    struct tls_stream *tls;         /* NULL: plain */
    const struct stream_type *type; /* NULL: fd and tls are what it is */
};

/* The handshake. ERR_INVALID when it fails: tls_stream_why. ERR_CLOSED when the peer leaves. */
enum err stream_handshake(struct stream *, uint64_t deadline_ns);

/* Up to `len` bytes; *n = 0 at the end. With TLS, one that was not said is ERR_CLOSED. */
enum err stream_recv(struct stream *, char *buf, size_t len, uint64_t deadline_ns, size_t *n);

/* Until a stream_recv would give something, or the end. */
enum err stream_await_readable(struct stream *, uint64_t deadline_ns);

/* For who reads the socket himself, with TLS only: ciphertext that has come (or nothing: what is
 * there already), as tls_stream_read; TLS_OK means *n > 0. */
enum tls_step stream_decrypt(struct stream *, struct slice ciphertext, char *buf, size_t cap,
                             size_t *n);

/* As stream_recv, without waiting: false when nothing has come. */
bool stream_recv_now(struct stream *, char *buf, size_t len, size_t *n, enum err *);

enum err stream_send(struct stream *, struct iovec *parts, size_t count, int flags,
                     uint64_t deadline_ns, size_t *sent);

/* Some of what is left, so that the caller can look at its clock; may be 0 bytes, if the peer has
 * taken something all the same. */
enum err stream_send_some(struct stream *, struct msghdr *, int flags, uint64_t deadline_ns,
                          size_t *sent);
/* `head`, where there is one, goes before the file and is taken off as it leaves; *sent counts bytes
 * of the file. Sockets only, and without TLS no head. */
enum err stream_sendfile_some(struct stream *, struct slice *head, int file, uint64_t offset,
                              uint64_t len, uint64_t deadline_ns, uint64_t *sent);

/* Sends what TLS itself has to say, as far as the socket takes it at once. */
void stream_push(struct stream *);

/* Without waiting, from anywhere: what the socket takes at once of these few bytes. */
void stream_send_now(struct stream *, struct slice);

/* Says the end of what is sent: close_notify, if the socket takes it at once, and FIN. */
void stream_shutdown(struct stream *);

/* On a fiber, before that: waits until close_notify has left, too. Nothing to do without TLS. */
enum err stream_say_end(struct stream *, uint64_t deadline_ns);

/* Buffers that this thread keeps; at its end. */
void stream_thread_deinit(void);
