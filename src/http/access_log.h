/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server's access log ("logs"): which requests are logged, under which logger names, and the
 * line itself, with Caddy's fields in Caddy's order. A server without it pays one test of a pointer
 * per request.
 */
#pragma once

#include "base/log_stream.h"
#include "http/module.h"

struct access_log;
struct access_entry;

/* `json`: the member "logs", not NULL. */
enum err access_log_provision(struct access_log **, const json_t *json, struct provision *);

/* At a request's start: keeps what the line shall say of it, for handlers change it. NULL when its
 * host is not logged. */
struct access_entry *access_log_begin(const struct access_log *, struct exchange *);

enum { ACCESS_UNHANDLED = -1 };

/* At its end. `status`: what was answered; ACCESS_UNHANDLED when no handler was there to do so, which is
 * logged as "NOP" with the status 0, although 200 was sent. */
void access_log_end(const struct access_log *, struct exchange *, const struct access_entry *,
                    int status);

/* The same for what goes on behind the exchange's end: the line is kept, as it is now, and written by
 * access_later_end, which frees it, with the bytes from and to the client that were added. The
 * configuration must live until then. NULL when there is no line to write. */
struct access_later *access_log_later(const struct access_log *, struct exchange *,
                                      const struct access_entry *, int status);
void access_later_end(struct access_later *, uint64_t from_client, uint64_t to_client);

/* The error line of a failed request, under "http.log.error" or the names that belong to its host;
 * `log` may be NULL. The request's fields are those of now. */
void access_log_error(const struct access_log *, struct exchange *, enum log_level,
                      const char *message, const struct log_field *more, size_t count);

/* For lines about a request that is sent on: the field "request", as it goes up, and "headers", of what
 * came back. Credentials as the server's access log has them. They live as long as the exchange. */
struct log_field access_log_sent(struct exchange *, struct slice method, struct slice host,
                                 struct slice uri, const struct fields *);
struct log_field access_log_headers(struct exchange *, const struct fields *);

/* Adds a field behind the others, for log_append; the value lives as long as the exchange. */
void access_log_add(struct exchange *, const struct log_field *);
