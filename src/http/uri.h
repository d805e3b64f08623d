/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Request targets: taken apart, percent-decoded once, cleaned, escaped (RFC 3986, RFC 9112 §3.2,
 * with the behaviour of Go's net/url where Caddy shows it).
 */
#pragma once

#include "http/exchange.h"

/* Takes origin-form or absolute-form or "*" apart. ERR_INVALID for a bad escape, a NUL byte after
 * decoding, or a target that is none of these. `authority` is set for absolute-form. */
enum err uri_parse(struct slice target, struct uri *, struct slice *authority, struct arena *);

/* %XX decoded; ERR_INVALID for a malformed escape. '+' stays. */
enum err uri_decode(struct slice, struct arena *, struct slice *out);

/* As uri_decode, with '+' as a space (query components). Malformed escapes: ERR_INVALID. */
enum err query_decode(struct slice, struct arena *, struct slice *out);

/* Escaped as Go's URL.EscapedPath / QueryEscape / PathEscape do. */
struct slice uri_escape_path(struct slice path, struct arena *);
struct slice query_escape(struct slice, struct arena *);
struct slice path_escape(struct slice, struct arena *);

/* Go's path.Clean on a rooted path, keeping a final '/'; `collapse` joins repeated slashes (else
 * only dot segments are resolved), as Caddy's CleanPath. */
struct slice uri_clean(struct slice path, bool collapse, struct arena *);

/* The first value of a query parameter, decoded. False when absent. */
bool query_get(struct slice query, struct slice name, struct arena *, struct slice *value);

/* Next pair of a query, raw: start with *rest = query; false at the end. */
bool query_next(struct slice *rest, struct slice *key, struct slice *value);

/* path?query as it would be sent: bytes that no path may hold are escaped. */
struct slice uri_text(const struct uri *, struct arena *);

/* Replaces path (decoded) and escapes it anew. */
void uri_set_path(struct uri *, struct slice path, struct arena *);

/* "host", "host:port", "[::1]:port": the name without brackets, the port or empty. */
void host_split(struct slice hostport, struct slice *host, struct slice *port);
