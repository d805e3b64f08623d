/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands' side of the admin API: one request to a running server, blocking, in a process that
 * does nothing else.
 */
#pragma once

#include <jansson.h>

#include "base/buffer.h"

struct admin_call {
    const char *address; /* "localhost:2019", "unix//run/x.sock" */
    const char *method, *path;
    struct slice fields; /* more header lines, each with its CR LF */
    struct slice body;   /* JSON; ptr NULL: none */
    struct buffer *answer; /* gets the body of the answer; NULL: nobody wants it */
};

/* ERR_INVALID for a status of 400 and more. `error`: a sentence that names what went wrong, with
 * the server's own words in it. */
enum err admin_request(const struct admin_call *, char *error, size_t cap);

/* Where the admin API of a server is: `address` when given, what `document` says (may be NULL), or
 * the default. The result is borrowed. */
const char *admin_address(const char *address, const json_t *document);
