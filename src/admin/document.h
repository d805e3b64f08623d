/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of one place in the configuration document, as the admin API's /config/ paths ask.
 */
#pragma once

#include <jansson.h>

#include "base/slice.h"

struct document_error {
    int status; /* 404, 409, 405; 400 for what cannot be followed */
    char text[512];
};

/* Carries out `method` (GET POST PUT PATCH DELETE) at `path` ("/config/apps/http", as the client
 * wrote it) of `*root`, an object whose member "config" is the document. `value`: what the request
 * brought, NULL without. GET sets *found (borrowed, never NULL). DOM depth and sizes are the
 * caller's business. */
enum err document_access(json_t *root, struct slice method, struct slice path, json_t *value,
                         json_t **found, struct document_error *);

/* --- "@id": names for places, as Caddy has them --- */

/* An id must be a text or a number, and stand once. ERR_INVALID with a sentence. */
enum err document_check_ids(const json_t *document, char *error, size_t cap);

/* The path of the object with that id, "/config/apps/…", as a malloc'd text; NULL: unknown. */
char *document_find_id(const json_t *document, struct slice id);

/* The document without its ids: itself when it has none. A new reference. */
json_t *document_without_ids(json_t *document);
