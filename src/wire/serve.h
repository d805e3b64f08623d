/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a request meets whichever protocol brought it: which fields are let in and out, what is
 * answered without any route, how failures below the handlers read.
 */
#pragma once

#include "http/server.h"

/* Names with '_' or '.' could pass for others behind a gateway (CGI makes '_' of '-'). */
bool field_wanted(const struct http_server *, struct slice name);

/* Of trailers: those that could change how a message is read or where it goes are left out, should
 * someone behind merge them with the fields (RFC 9110 §6.5.1), and those that are no field's names. */
bool trailer_wanted(const struct http_server *, struct slice name);

/* Content-Length, Transfer-Encoding, Connection, Keep-Alive: the wire's own in a response. */
bool field_is_framing(struct slice name);

/* Parses the target and runs the server's routes, or answers alone what no route sees. On the
 * exchange's fiber. An error: the answer could not be written. */
enum err serve_exchange(struct exchange *);

/* What a request that failed below the handlers is told, if nothing has been said yet; 0: nothing,
 * the peer has left or abort was asked for. */
int status_of_failure(enum err);

/* How much one direction of an exchange has moved, for its minimum rate. */
struct pace {
    uint64_t start_ns; /* 0: nothing asked for yet */
    uint64_t bytes;
};

/* When a wait that begins now must have moved something; 0: never. Without a rate a pause may last
 * idle_ns; with one, the time allowed grows from the first wait by what has moved. `hard_ns` caps
 * both, 0: nothing does. */
uint64_t pace_deadline(struct pace *, uint64_t now, uint64_t idle_ns, uint64_t rate, uint64_t hard_ns);

/* The earlier of two deadlines of which 0 is none. */
static inline uint64_t earlier_ns(uint64_t a, uint64_t b)
{
    return a == 0 || (b > 0 && b < a) ? b : a;
}
