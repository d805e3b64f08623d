/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For which names an authority of ours issues.
 */
#include "base/test.h"
#include "certs/ca_policy.h"

static struct arena arena;
static struct ca_policy policy;
static struct provision provision;

static enum err read_policy(const char *text)
{
    json_t *j = json_loads(text, 0, NULL);
    arena_deinit(&arena);
    arena_init(&arena, 4096);
    policy = (struct ca_policy){0};
    provision = (struct provision){.arena = &arena, .path = SLICE("policy")};
    enum err e = ca_policy_provision(&provision, j, &policy);
    json_decref(j);
    return e;
}

static bool allows(const char *name)
{
    return ca_policy_allows(&policy, slice_from(name), false);
}

static bool allows_ip(const char *ip)
{
    return ca_policy_allows(&policy, slice_from(ip), true);
}

TEST("without rules everything is allowed, wildcards too")
{
    CHECK_OK(read_policy("{}"));
    CHECK(allows("a.example") && allows("*.a.example") && allows_ip("10.0.0.1"));
    arena_deinit(&arena);
}

TEST("what is allowed excludes everything else, also of other kinds")
{
    CHECK_OK(read_policy("{\"allow\":{\"domains\":[\"*.a.example\",\"b.example\"]}}"));
    CHECK(allows("x.a.example") && allows("X.A.example") && allows("b.example"));
    CHECK(!allows("a.example") && !allows("x.y.a.example") && !allows("c.example"));
    CHECK(!allows(".a.example") && !allows("xa.example") && !allows("*.a.example"));
    CHECK(!allows_ip("10.0.0.1"));
    CHECK_OK(read_policy("{\"allow\":{\"ip_ranges\":[\"10.0.0.0/8\",\"2001:db8::1\"]}}"));
    CHECK(allows_ip("10.255.0.1") && allows_ip("2001:db8::1"));
    CHECK(!allows_ip("11.0.0.1") && !allows_ip("2001:db8::2") && !allows("a.example"));
    arena_deinit(&arena);
}

TEST("what is denied is denied, though it were allowed")
{
    CHECK_OK(read_policy("{\"allow\":{\"domains\":[\"*.a.example\"]},"
                         "\"deny\":{\"domains\":[\"x.a.example\"],\"ip_ranges\":[\"10.0.0.1\"]}}"));
    CHECK(allows("y.a.example") && !allows("x.a.example") && !allows_ip("10.0.0.2"));
    CHECK_OK(read_policy("{\"deny\":{\"domains\":[\"x.a.example\"]}}"));
    CHECK(!allows("x.a.example") && allows("other") && allows_ip("10.0.0.1"));
    arena_deinit(&arena);
}

TEST("a wildcard needs permission where there are rules, and a rule for it")
{
    CHECK_OK(read_policy("{\"deny\":{\"domains\":[\"x.example\"]}}"));
    CHECK(!allows("*.y.example"));
    CHECK_OK(read_policy("{\"allow\":{\"domains\":[\"*.a.example\"]},\"allow_wildcard_names\":true}"));
    CHECK(allows("*.a.example") && !allows("*.b.example"));
    arena_deinit(&arena);
}

TEST("rules that are none are refused")
{
    CHECK_INT(read_policy("{\"allow\":{\"domains\":[\"a.*.example\"]}}"), ERR_INVALID);
    CHECK_INT(read_policy("{\"allow\":{\"domains\":[\"\"]}}"), ERR_INVALID);
    CHECK_INT(read_policy("{\"allow\":{\"ip_ranges\":[\"10.0.0.0/40\"]}}"), ERR_INVALID);
    CHECK_INT(read_policy("{\"permit\":{}}"), ERR_INVALID);
    CHECK_INT(read_policy("{\"deny\":{\"names\":[]}}"), ERR_INVALID);
    arena_deinit(&arena);
}
