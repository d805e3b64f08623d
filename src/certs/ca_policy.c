/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules are step-ca's, which Caddy uses: a rule with a star stands for one label, no more. Where
 * there are rules and wildcards are not allowed, a wildcard is denied whatever else holds.
 */
#include "certs/ca_policy.h"

static bool has_rules(const struct ca_rules *r)
{
    return r->domains_count > 0 || r->ranges_count > 0;
}

bool ca_policy_has_rules(const struct ca_policy *p)
{
    return has_rules(&p->allow) || has_rules(&p->deny);
}

/* "*.example.com" as a rule also covers itself as a name. */
static bool domain_matches(struct slice rule, struct slice name)
{
    if (!slice_starts(rule, SLICE("*.")))
        return slice_eq_nocase(rule, name);
    size_t dot = slice_find(name, '.');
    return dot != SIZE_MAX && dot > 0 && slice_eq_nocase(slice_skip(rule, 1), slice_skip(name, dot));
}

static bool matches(const struct ca_rules *r, struct slice name, bool is_address)
{
    struct ip_address ip;
    if (is_address) {
        for (size_t i = 0; i < r->ranges_count && ip_parse(name, &ip); i++)
            if (ip_range_has(&r->ranges[i], &ip))
                return true;
        return false;
    }
    for (size_t i = 0; i < r->domains_count; i++)
        if (domain_matches(r->domains[i], name))
            return true;
    return false;
}

bool ca_policy_allows(const struct ca_policy *p, struct slice name, bool is_address)
{
    if (!ca_policy_has_rules(p))
        return true;
    if (slice_starts(name, SLICE("*.")) && !p->wildcards)
        return false;
    if (matches(&p->deny, name, is_address))
        return false;
    return !has_rules(&p->allow) || matches(&p->allow, name, is_address);
}

static enum err read_ranges(struct provision *p, const json_t *json, struct ca_rules *r)
{
    struct slice *texts;
    TRY(provision_texts(p, json, "ip_ranges", &texts, &r->ranges_count));
    r->ranges = ARENA_ARRAY(p->arena, struct ip_range, r->ranges_count);
    for (size_t i = 0; i < r->ranges_count; i++)
        if (!ip_range_parse(texts[i], &r->ranges[i]))
            return provision_fail(p, "\"ip_ranges\": '" SLICE_FMT "' is neither an address nor a "
                                  "range", SLICE_ARG(texts[i]));
    return OK;
}

static enum err read_rules(struct provision *p, const json_t *json, struct ca_rules *r)
{
    static const char *const members[] = {"domains", "ip_ranges", NULL};
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(provision_members(p, json, members));
    TRY(provision_texts(p, json, "domains", &r->domains, &r->domains_count));
    for (size_t i = 0; i < r->domains_count; i++) {
        size_t star = slice_find_last(r->domains[i], '*');
        if (r->domains[i].len == 0 || (star != SIZE_MAX && (star > 0 || r->domains[i].len < 3 ||
                                                            r->domains[i].ptr[1] != '.')))
            return provision_fail(p, "\"domains\": '" SLICE_FMT "' is not a domain",
                                  SLICE_ARG(r->domains[i]));
    }
    return read_ranges(p, json, r);
}

enum err ca_policy_provision(struct provision *p, const json_t *json, struct ca_policy *policy)
{
    static const char *const members[] = {"allow", "deny", "allow_wildcard_names", NULL};
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(provision_members(p, json, members));
    TRY(provision_bool(p, json, "allow_wildcard_names", false, &policy->wildcards));
    TRY(read_rules(p, json_object_get(json, "allow"), &policy->allow));
    return read_rules(p, json_object_get(json, "deny"), &policy->deny);
}
