/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "logging" of a configuration. Provisioned with the generation; its writers are opened before the
 * generation is committed and closed when it is freed. A writer that an earlier generation has open
 * is shared, so a reload neither reopens a file nor loses a line.
 */
#pragma once

#include "base/log_stream.h"
#include "http/module.h"

struct logging_log;

struct logging {
    struct log_set set;
    struct logging_log *logs; /* beside set.streams: module and memory of each one's writer */
    bool opened;
};

/* `json` may be NULL: the default log alone. */
enum err logging_provision(struct logging *, const json_t *json, struct provision *);

/* On the control thread. On failure nothing is left open, and *error is a sentence. */
enum err logging_open(struct logging *, char *error, size_t cap);
void logging_close(struct logging *);

/* The configuration is taken over: writers that were open before learn its options. */
void logging_commit(const struct logging *);

/* Where the default log goes, for people; "stderr" … */
const char *logging_default_name(const struct logging *);
