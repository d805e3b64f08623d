/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the values of a document came from, kept beside it in the process that adapted it. A server
 * that got the document as JSON adapts the file that it is said to come from once more, when somebody
 * asks for the first time; where that gives another document by now, nothing is known of this one.
 */
#pragma once

#include "config/kept_json.h"
#include "config/origin.h"

/* Copies; what was kept before goes. */
void config_origins_keep(const json_t *document, const struct origins *);

/* From now on this document runs: what is known of it stays, whatever is adapted meanwhile. The text
 * is borrowed until the next one runs. */
void config_origins_run(const struct kept_json *document);

/* NULL: not known. Valid until the next call of another function here. */
const struct origins *config_origins_of(const struct kept_json *document);

/* Of the document that runs, for which the source file may be read; likewise. */
const struct origins *config_origins_running(void);

/* The file and the adapter that the document now running is said to come from; "" for none. */
void config_origins_source(struct slice file, struct slice adapter);

/* [{"path", "name", "file", "line"}]; a new reference. */
json_t *config_origins_json(const struct origins *);
