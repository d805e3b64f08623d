/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One TLS connection driven by memory, of either side: ciphertext is fed in, plaintext comes out,
 * plaintext goes in, ciphertext is taken out. No socket and no waiting here; tls/stream.h has the
 * waits. After any call there may be something to send: tls_stream_out. One thread at a time.
 */
#pragma once

#include <sys/uio.h>

#include "base/arena.h"

struct tls_stream;
struct ssl_st; /* OpenSSL's SSL */

enum tls_step {
    TLS_OK,
    TLS_MORE,   /* feed more ciphertext, and send what there is */
    TLS_FULL,   /* send what there is, then come again */
    TLS_END,    /* the peer has said its end: close_notify */
    TLS_FAILED, /* tls_stream_why says why; there may be an alert to send */
};

enum {
    TLS_RECORD_MAX = 16384, /* plaintext of one record */
    TLS_RECORD_SMALL = 1300, /* … which fits one segment, when a peer waits for the first bytes */
    TLS_OUT_MAX = 4 * (TLS_RECORD_MAX + 256) + 1024, /* ciphertext that is gathered for one send */
};

/* Takes over an SSL whose side is set (SSL_set_accept_state or SSL_set_connect_state). */
struct tls_stream *tls_stream_create(struct ssl_st *);
void tls_stream_free(struct tls_stream *); /* NULL: nothing */

/* The name of the hello, where it has been read already: the library forgets it when a session of
 * TLS 1.2 is resumed. */
void tls_stream_set_name(struct tls_stream *, struct slice server_name);

/* Ciphertext that has come. The bytes are lent until tls_stream_keep, which copies what has not
 * been used of them (usually nothing). */
void tls_stream_feed(struct tls_stream *, struct slice);
void tls_stream_keep(struct tls_stream *);

/* Goes on with the handshake: OK, MORE, FULL, FAILED. */
enum tls_step tls_stream_handshake(struct tls_stream *);

/* Lets go of what only the handshake needed: the certificate's key, the OCSP answer. */
void tls_stream_settle(struct tls_stream *);

/* Plaintext, as much as has come and fits: OK with *n > 0, MORE, END or FAILED with *n = 0. */
enum tls_step tls_stream_read(struct tls_stream *, char *buf, size_t cap, size_t *n);

/* Whether a read gives something without more ciphertext. May say yes for what is no data. */
bool tls_stream_ready(const struct tls_stream *);

/* Encrypts as much of the parts, gathered into records, as there is room for; how many bytes that
 * is. 0 for no bytes, no room, or after a failure. */
size_t tls_stream_write(struct tls_stream *, const struct iovec *parts, size_t count);

/* Adds close_notify to what is to be sent. */
void tls_stream_shutdown(struct tls_stream *);

/* Ciphertext to be sent. Its place stays the same until all of it has been. */
struct slice tls_stream_out(const struct tls_stream *);
void tls_stream_sent(struct tls_stream *, size_t n);

bool tls_stream_failed(const struct tls_stream *);
/* A sentence, for the log. */
void tls_stream_why(const struct tls_stream *, char *out, size_t cap);

/* What the handshake agreed on. Slices live as long as the stream. */
struct tls_facts {
    uint16_t version, cipher;  /* as on the wire: 0x0304, 0x1301 */
    const char *cipher_name;   /* IANA's: "TLS_AES_128_GCM_SHA256" */
    struct slice alpn;         /* empty: none */
    struct slice server_name;  /* that was asked for; empty: none */
    bool resumed, peer_certificate;
};
void tls_stream_facts(const struct tls_stream *, struct tls_facts *);

/* The certificates of the peer, as DER, the leaf first; 0 without any. Copied to the arena. */
size_t tls_stream_peer_chain(const struct tls_stream *, struct arena *, struct slice **der);

/* For tls/stream.c: how many of its caller's bytes are encrypted and have not all left, and whether
 * a fiber is sending the output right now. */
struct tls_flight {
    size_t ahead;
    bool sending;
};
struct tls_flight *tls_stream_flight(struct tls_stream *);

struct ssl_st *tls_stream_ssl(const struct tls_stream *); /* for files with OpenSSL in them */

/* Buffers that this thread keeps for the next user; at the thread's end. */
void tls_stream_thread_deinit(void);
