/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The address of a site: "example.com", "http://localhost:8080", ":443", "*.example.com/path".
 */
#pragma once

#include "base/arena.h"
#include "config/diag.h"

struct site_address {
    struct slice original, scheme, host, port, path;
};

/* The parts as they stand; the diag tells what is wrong with the port. */
MUST_USE enum err site_address_parse(struct slice, struct site_address *, struct diag *);

/* Scheme and host in lower case outside of placeholders, an IPv6 address in its shortest form. */
struct site_address site_address_normal(const struct site_address *, struct arena *);

/* As a URL, with the scheme that the port means and without a port that the scheme means. */
struct slice site_address_text(const struct site_address *, struct arena *);

/* Length without stars and placeholders: the greater, the more specific. */
long specificity(struct slice);
