/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the values of a document came from, kept beside it in the process that adapted it. A server
 * that got the document as JSON adapts the file that it is said to come from once more, when somebody
 * asks for the first time; where that gives another document by now, nothing is known of this one.
 */
#pragma once

#include <jansson.h>

#include "config/origin.h"

/* Copies; what was kept before goes. */
void config_origins_keep(json_t *document, const struct origins *);

/* From now on this document runs: what is known of it stays, whatever is adapted meanwhile. */
void config_origins_run(json_t *document);

/* NULL: not known. Valid until the next keep or run. `adapt_again`: the source file may be read. */
const struct origins *config_origins_of(const json_t *document, bool adapt_again);

/* The file and the adapter that the document now running is said to come from; "" for none. */
void config_origins_source(struct slice file, struct slice adapter);

/* [{"path", "name", "file", "line"}]; a new reference. */
json_t *config_origins_json(const struct origins *);
