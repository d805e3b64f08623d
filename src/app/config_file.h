/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a configuration comes from: a file in JSON or a language that adapts to it.
 */
#pragma once

#include <jansson.h>

#include "base/slice.h"
#include "config/origin.h"

struct loaded_config {
    json_t *document;   /* NULL when no file was named and none is there */
    json_t *warnings;   /* an array of {"file", "line", "directive", "message"}, or NULL */
    char path[4096];    /* what was read; "" for none, "-" for stdin */
    char adapter[32];   /* "" for JSON */
    struct origins origins; /* where its values came from; empty for JSON */
};

/* `path` NULL: ./Caddyfile if it exists (with the adapter caddyfile or none named). `adapter` NULL
 * or "": from the file's name. A sentence in `error` on failure. */
enum err config_load(const char *path, const char *adapter, struct loaded_config *, char *error,
                     size_t cap);
void config_unload(struct loaded_config *);

/* A whole file, or stdin for "-": malloc'd, NUL-ended. */
enum err file_read_all(const char *path, char **bytes, size_t *len, char *error, size_t cap);

/* Logs what an adapter warned of. */
void config_warn(const char *adapter, const json_t *warnings);

/* By the adapter's name; "json" is none. */
enum err config_adapt(struct slice adapter, struct slice file_name, struct slice body,
                      json_t **document, json_t **warnings, char *error, size_t cap);
