/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A Caddyfile to Caddy's JSON. The JSON is the boundary: nothing behind it knows where it came from.
 */
#pragma once

#include <jansson.h>

#include "config/diag.h"
#include "config/origin.h"

/* `file_name` is told in errors and is what relative imports begin from. New references; `warnings`
 * is an array of {"file", "line", "directive", "message"}, never NULL on success. The diag tells why
 * not, in the words of Caddy. */
MUST_USE enum err adapt_caddyfile(struct slice file_name, struct slice body, json_t **document,
                                  json_t **warnings, struct diag *);

/* Likewise; adds where its values came from, and sorts. `origins` may be NULL. */
MUST_USE enum err adapt_caddyfile_origins(struct slice file_name, struct slice body,
                                          json_t **document, json_t **warnings, struct origins *,
                                          struct diag *);

/* As above, with no file ever opened: what names one is an error. */
MUST_USE enum err adapt_caddyfile_alone(struct slice file_name, struct slice body,
                                        json_t **document, json_t **warnings, struct diag *);
