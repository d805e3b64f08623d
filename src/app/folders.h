/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where things are kept between two starts, by the rules of the XDG base directories, as Caddy has
 * them: $XDG_CONFIG_HOME/portico, $XDG_DATA_HOME/portico, else below $HOME. Called by the name
 * caddy, the folders are Caddy's own, so that what it left is found.
 */
#pragma once

#include <stddef.h>

#include "base/err.h"

enum { FOLDER_MAX = 4096 };

/* Each writes a path that ends in NUL; one that does not fit is cut at its end. */
void folder_home(char out[FOLDER_MAX]);
void folder_config(char out[FOLDER_MAX]);
void folder_data(char out[FOLDER_MAX]);
void folder_autosave(char out[FOLDER_MAX]); /* …/autosave.json */

/* Makes a folder and the ones above it that are missing. */
enum err folder_make(const char *path, unsigned mode);

/* Writes a file in one step: a new file beside it (0600), then a rename. `error`: why not. */
enum err folder_write(const char *path, const char *bytes, size_t len, char *error, size_t cap);
