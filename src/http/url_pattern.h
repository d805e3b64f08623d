/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Patterns of URLs (the URL Pattern Standard of WHATWG, §1 to §3): "/books/:id",
 * "https://:sub.example.com/{img/}?:file". Compiled at provision; each component is a text, everything, or
 * a regular expression.
 */
#pragma once

#include "http/regexp.h"

enum url_part { URL_PROTOCOL, URL_USERNAME, URL_PASSWORD, URL_HOSTNAME, URL_PORT, URL_PATHNAME,
                URL_SEARCH, URL_HASH, URL_PARTS };

extern const char *const url_part_names[URL_PARTS]; /* "protocol" … */

struct url_component {
    bool all;             /* "*": everything, which is its one group "0" */
    struct slice text;    /* compared where there is no expression */
    struct regexp *regexp; /* NULL: none */
    struct slice *groups; /* their names; numbers of those without one */
    size_t groups_count;
};

struct url_pattern {
    struct url_component parts[URL_PARTS];
    bool ignore_case;
};

/* `base` may be empty; otherwise a relative pattern is one of that URL's origin. ERR_INVALID with
 * provision's sentence. */
enum err url_pattern_compile(struct provision *, struct slice pattern, struct slice base,
                             bool ignore_case, struct url_pattern *);
void url_pattern_release(struct url_pattern *);

/* What the groups of one component took. */
struct url_groups {
    struct slice values[REGEXP_GROUPS_MAX];
    size_t count;
};

/* One component against its text, which is in the form of a URL: "https", "example.com", "" for a
 * port that is the scheme's own, "/a%20b", "q=1". ERR_LIMIT: too much work. */
enum err url_component_match(const struct url_pattern *, enum url_part, struct slice text,
                             struct url_groups *, bool *matches);
