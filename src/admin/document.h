/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of one place in the configuration document, as the admin API's /config/ paths ask.
 */
#pragma once

#include <jansson.h>

#include "base/slice.h"

struct document_error {
    int status; /* 400, 404, 409, 405 */
    char text[512];
};

/* Carries out `method` (GET POST PUT PATCH DELETE) at `path` ("/config/apps/http", as the client
 * wrote it) of `*root`, an object whose member "config" is the document. `value`: what the request
 * brought, NULL without. GET sets *found (borrowed, never NULL). DOM depth and sizes are the
 * caller's business. */
enum err document_access(json_t *root, struct slice method, struct slice path, json_t *value,
                         json_t **found, struct document_error *);
