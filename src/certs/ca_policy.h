/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For which names an authority of ours issues ("policy" of acme_server): what is denied is denied;
 * where something is allowed, everything else is denied. Pure.
 */
#pragma once

#include "http/module.h"
#include "net/ip_set.h"

struct ca_rules {
    struct slice *domains; /* "example.com", or "*.example.com": exactly one label more */
    size_t domains_count;
    struct ip_range *ranges;
    size_t ranges_count;
};

struct ca_policy {
    struct ca_rules allow, deny;
    bool wildcards; /* "*.example.com" may be ordered */
};

/* {"allow": {"domains": […], "ip_ranges": […]}, "deny": {…}, "allow_wildcard_names": true} */
enum err ca_policy_provision(struct provision *, const json_t *, struct ca_policy *);

bool ca_policy_allows(const struct ca_policy *, struct slice name, bool is_address);

/* Whether there is any rule. */
bool ca_policy_has_rules(const struct ca_policy *);
