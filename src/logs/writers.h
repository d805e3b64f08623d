/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a module "caddy.logging.writers.NAME" is to the logs that write with it. Provisioning does
 * not touch anything outside; opening does, on the control thread, and afterwards the log thread
 * alone uses what was opened.
 */
#pragma once

#include "base/log_queue.h"
#include "http/module.h"

struct log_writer_face {
    /* Two logs, or two generations, with one key share one open writer. */
    struct slice (*key)(const void *cfg);
    /* Gives a writer with type, name and packets set; a sentence when it cannot. */
    enum err (*open)(const void *cfg, struct log_writer **, char *error, size_t cap);
    /* What an open writer of the same key is told when a configuration that shares it is taken over,
     * malloc'd; NULL: it has no options. */
    void *(*message)(const void *cfg);
    bool standard_stream; /* stdout or stderr: the console form on a terminal */
    bool discards;        /* nothing is ever opened or written */
};

extern const struct module log_writer_stdout, log_writer_stderr, log_writer_discard,
    log_writer_file, log_writer_net;

/* Text of a log's configuration with its global placeholders, {env.X} {system.X} {file.X}, put in.
 * Unknown and empty ones fail, as in Caddy. */
enum err log_text(struct provision *, const json_t *, const char *key, struct slice *out);
