/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http and https URLs, taken apart as a client needs them (RFC 3986, RFC 9110 §4.2), and references
 * relative to them, as redirects hold.
 */
#pragma once

#include "base/arena.h"

enum { URL_MAX = 8192 };

struct url {
    bool tls;             /* https */
    bool has_user;
    struct slice user, password; /* decoded */
    struct slice host;    /* lower case, without brackets; a zone behind '%' */
    uint16_t port;        /* the scheme's when none is written */
    struct slice hostport;  /* with the port, always; a literal IPv6 address in brackets */
    struct slice authority; /* as of Host: without the scheme's own port, zone and user */
    struct slice target;  /* "/path?query", as it is sent: what no target may hold is escaped */
};

/* Slices lie in the arena. ERR_INVALID with a constant phrase. */
enum err url_parse(struct slice, struct url *, struct arena *, const char **why);

/* What a reference means on a page of that URL (RFC 3986 §5.2). */
enum err url_resolve(const struct url *base, struct slice reference, struct url *, struct arena *,
                     const char **why);

/* The whole text, without user and password. */
struct slice url_text(const struct url *, struct arena *);

static inline bool url_same_server(const struct url *a, const struct url *b)
{
    return a->tls == b->tls && a->port == b->port && slice_eq(a->host, b->host);
}
