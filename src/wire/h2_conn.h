/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver of an HTTP/2 connection (RFC 9113): reads frames without owning a buffer, runs each
 * request as an exchange on a fiber of its own, sends what all of them answer in one stream of
 * frames. Such connections are counted among those of h1_conn.h, and drained and aborted with them.
 */
#pragma once

#include "base/buffer.h"
#include "wire/h1_conn.h"

struct h1_addresses;
struct h1_head;
struct h2_worker;
struct tls_stream;

/* What such connections of one worker share. */
struct h2_worker *h2_worker_create(struct h1_worker *);
void h2_worker_free(struct h2_worker *); /* no connection may be left */

/* A connection that is counted already (h1_conn_open) begins to speak HTTP/2, and owns the socket,
 * the addresses `given` by a PROXY header, and the stream that has done its handshake; both may be
 * NULL. `early`, in clear text: what has been read already, with the client's preface. */
void h2_conn_begin(struct h1_worker *, struct h1_site *, int fd, struct h1_addresses *given,
                   struct tls_stream *, struct slice early);

/* Whether a request of HTTP/1 wants to go on in HTTP/2 (RFC 7540 §3.2); its settings then, for which
 * the buffer has H2_SETTINGS_ROOM. */
enum { H2_SETTINGS_ROOM = 64 * 6 };
bool h2_upgrade_asked(const struct h1_head *, struct buffer *settings);

/* The same from that request on, which is stream 1; `early`: what has come behind it. */
void h2_conn_upgrade(struct h1_worker *, struct h1_site *, int fd, struct h1_addresses *given,
                     const struct h1_head *, struct slice settings, struct slice early);

/* Says goodbye to all connections, or to those of one site: what is running ends in peace. */
void h2_drain(struct h1_worker *, const struct h1_site *);

/* Ends all: exchanges are cancelled. */
void h2_abort(struct h1_worker *);

/* How many bytes at the front of `in` are the client's preface: 24 when it is whole, less when more
 * bytes are needed, 0 when it is something else. */
enum { H2_PREFACE_LEN = 24 };
size_t h2_preface_match(struct slice in);
