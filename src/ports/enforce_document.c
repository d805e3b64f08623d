/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a document to a plan.
 */
#include "ports/enforce_document.h"

#include <stdio.h>

enum err enforce_document(const json_t *document, const struct origins *origins, struct arena *arena,
                          struct enforce_wish *out, char *error, size_t cap)
{
    const json_t *app = json_object_get(json_object_get(document, "apps"), "ports");
    struct ports_policy policy;
    struct enforce_rules rules = {0};
    *out = (struct enforce_wish){0};
    TRY(ports_policy_read(app, origins, arena, &policy, error, cap));
    TRY(ports_declared(document, origins, arena, &rules.items, &rules.count, error, cap));
    rules.others = policy.others;
    out->declared = app != NULL;
    out->nftables = policy.nftables;
    out->count = policy.count;
    return enforce_plan_make(&rules, arena, &out->plan, error, cap);
}
