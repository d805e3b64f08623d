/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What respond, file-server and reverse-proxy have in common: a server whose configuration is made
 * of flags, without an admin API, and not saved.
 */
#pragma once

#include "app/cli.h"

/* Gives `servers` (an object, name → server) and the app "tls" (NULL: none) to a new server process
 * and keeps it; the references pass on. `debug`: the log tells more. The exit status. */
int quick_keep(const struct command_line *, json_t *servers, json_t *tls, bool debug);

/* In the server process. `started`: once, when it runs; may be NULL. */
int quick_serve(void (*started)(void));

/* {"handle": handlers}; with a host, only for that one. References pass on. */
json_t *quick_route(json_t *handlers, struct slice host);

/* "Field: value" of a flag's values into a headers object {"Field": ["value"]}; false when one is
 * malformed, with Caddy's words printed. `what`: "header", "header-up" … for the message. */
bool quick_fields(const struct command_line *, const char *flag, const char *what, json_t *fields);

json_t *quick_text(struct slice);
