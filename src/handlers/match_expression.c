/* SPDX-License-Identifier: Apache-2.0 */
/*
 * expression: a condition in CEL.
 *
 *     "expression": "{http.request.method} == 'GET' && path('/a', '/b')"
 *     "expression": {"expr": "path_regexp('^/(x+)$')", "name": "x"}
 */
#include "handlers/cel.h"
#include "handlers/handlers.h"

struct match_expression {
    struct cel_node *root;
};

static const char *const members[] = {"expr", "name", NULL};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct match_expression *m = cfg;
    struct slice text, name = SLICE("");
    if (json_is_string(json)) {
        text = slice_of(json_string_value(json), json_string_length(json));
    } else {
        TRY(provision_members(p, json, members));
        TRY(provision_text(p, json, "expr", SLICE(""), &text));
        TRY(provision_text(p, json, "name", SLICE(""), &name));
    }
    return cel_compile(p, text, name, &m->root);
}

static enum err match(const void *cfg, struct exchange *x, bool *matches)
{
    const struct match_expression *m = cfg;
    return cel_match(m->root, x, matches);
}

const struct module matcher_expression = {
    .id = "http.matchers.expression",
    .cfg_size = sizeof(struct match_expression),
    .provision = provision,
    .match = match,
};
