/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regular expressions of the configuration: Go's RE2 syntax as far as PCRE2 shares it, compiled at
 * provision and matched within limits. What RE2 has not (back references, look-around, recursion)
 * is refused, so that a configuration means the same in Caddy.
 */
#pragma once

#include "http/module.h"

enum { REGEXP_GROUPS_MAX = 64 };

struct regexp; /* compiled; owned by its user */

/* ERR_INVALID with provision's sentence. */
enum err regexp_compile(struct provision *, struct slice pattern, struct regexp **out);
void regexp_free(struct regexp *); /* NULL is allowed */

/* groups[0] is the whole match; groups that took no part are empty. *n: how many, 0 for no match.
 * ERR_LIMIT when the matching took too much: never to be taken for "no match". */
enum err regexp_match(const struct regexp *, struct slice subject,
                      struct slice groups[REGEXP_GROUPS_MAX], size_t *n);

/* The name of group `i`, or the empty slice. */
struct slice regexp_group_name(const struct regexp *, size_t i);

/* Every match replaced; $1, ${1}, ${name} and $$ in `with` as Go's Expand reads them. The subject
 * itself when nothing matched. */
enum err regexp_replace(const struct regexp *, struct slice subject, struct slice with,
                        struct arena *, struct slice *out);

/* `with` for one match, as regexp_match gave its groups. ERR_LIMIT when it grows too long. */
enum err regexp_expand(const struct regexp *, struct slice with, const struct slice *groups,
                       size_t n, struct arena *, struct slice *out);

/* Matches, and sets {http.regexp.NAME.GROUP} and {http.regexp.GROUP} for all groups by number and
 * by name. An empty `name` sets the second form only. The exchange fails with 500 on ERR_LIMIT. */
enum err regexp_capture(const struct regexp *, struct slice name, struct slice subject,
                        struct exchange *, bool *matches);
