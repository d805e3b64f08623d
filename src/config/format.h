/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `fmt`: a Caddyfile in its standard form, byte for byte as Caddy writes it.
 */
#pragma once

#include "base/buffer.h"

/* Appends the formatted text, which ends in one line end. ERR_LIMIT when it grows beyond the
 * buffer's maximum (at most 12 bytes for each byte of input, and 1, are written). */
MUST_USE enum err caddyfile_format(struct slice body, struct buffer *out);

/* Whether formatting changes anything but CRLF; `line` is the first that changes. */
bool caddyfile_format_differs(struct slice body, unsigned *line);
