/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host names of the configuration as they come over the wire.
 */
#pragma once

#include "base/arena.h"

/* "é.example" → "xn--9ca.example"; ASCII names stay as they are. ERR_INVALID, with a sentence that
 * lives forever, for what cannot be a name. */
enum err host_name_ascii(struct slice *name, struct arena *, const char **why);

/* The same label by label; one that cannot be is left as it is: "*.é.example". */
struct slice host_name_ascii_labels(struct slice name, struct arena *);
