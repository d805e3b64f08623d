/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The apps "tls" and "pki" of the document, and the global options that they are made of.
 */
#pragma once

#include "adapter/options.h"
#include "adapter/sites.h"

MUST_USE enum err tls_option_read(struct adapt *, struct slice name, struct dispenser *,
                                  bool *known);

/* The options' names, one after the other; NULL behind the last one. */
const char *tls_option_name(size_t i);

/* NULL when there is nothing to say. */
MUST_USE enum err tls_app_build(struct adapt *, const struct pairing *, size_t count, json_t **app);
json_t *pki_app_build(struct adapt *, const struct pairing *, size_t count);
