/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names in a file system as text: cleaned, put below a root that they cannot leave, hidden. Nothing
 * here asks the file system.
 */
#pragma once

#include "base/arena.h"

/* Go's path.Clean: no empty, "." or inner ".." segments, no slash at the end; "" gives ".". */
struct slice path_clean(struct slice path, struct arena *);

/* root + path, cleaned as if the path began at "/", so that no ".." climbs out of the root. The
 * root is cleaned too; "" is ".". A slash at the path's end stays, except for "/" itself. */
struct slice path_join(struct slice root, struct slice path, struct arena *);

/* A relative name as seen from `folder`, cleaned; absolute ones as they are. */
struct slice path_absolute(struct slice folder, struct slice path, struct arena *);

/* Whether one entry of a hide list covers a file. An entry without a slash hides every file or
 * folder called so; a path hides itself and what is below; both may be patterns. */
bool path_hidden_by(struct slice pattern, struct slice file);
