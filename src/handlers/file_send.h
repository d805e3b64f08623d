/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file as an answer: conditional requests, one range or several, the bytes.
 */
#pragma once

#include "files/file_cache.h"
#include "http/exchange.h"

/* `file` names and dates the answer, `body` (often the same) has the bytes; both are held until the
 * exchange ends. Etag and Content-Type are set already. `status`: 0 for the usual ones. */
enum err file_send(struct exchange *, const struct open_file *file, struct open_file *body,
                   int status);
