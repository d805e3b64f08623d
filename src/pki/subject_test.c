/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names and the patterns of policies.
 */
#include "pki/subject.h"

#include "base/test.h"

TEST("a pattern means itself, whatever the case")
{
    CHECK(subject_matches(SLICE("Example.com"), SLICE("example.COM")));
    CHECK(subject_matches(SLICE("[::1]"), SLICE("::1")));
    CHECK(subject_matches(SLICE("example.com:443"), SLICE("example.com")));
    CHECK(!subject_matches(SLICE("example.com"), SLICE("example.org")));
    CHECK(!subject_matches(SLICE("example.com"), SLICE("ample.com")));
}

TEST("a wildcard stands for one label, more of them for as many from the left")
{
    CHECK(subject_matches(SLICE("a.example.com"), SLICE("*.example.com")));
    CHECK(subject_matches(SLICE("*.example.com"), SLICE("*.example.com")));
    CHECK(!subject_matches(SLICE("example.com"), SLICE("*.example.com")));
    CHECK(!subject_matches(SLICE("b.a.example.com"), SLICE("*.example.com")));
    CHECK(subject_matches(SLICE("b.a.example.com"), SLICE("*.*.example.com")));
    CHECK(!subject_matches(SLICE("b.a.example.com"), SLICE("b.*.example.com")));
    CHECK(subject_matches(SLICE("localhost"), SLICE("*")));
    CHECK(!subject_matches(SLICE("a.b"), SLICE("*")));
    CHECK(!subject_matches(SLICE(".b"), SLICE("*.b")));
}

TEST("a name has wildcards for as many labels as it has")
{
    char out[SUBJECT_MAX + 1];
    struct slice got;
    CHECK(subject_wildcard(SLICE("a.b.c"), 1, out, &got));
    CHECK_TEXT(got, "*.b.c");
    CHECK(subject_wildcard(SLICE("a.b.c"), 2, out, &got));
    CHECK_TEXT(got, "*.*.c");
    CHECK(subject_wildcard(SLICE("a.b.c"), 3, out, &got));
    CHECK_TEXT(got, "*.*.*");
    CHECK(!subject_wildcard(SLICE("a.b.c"), 4, out, &got));
    CHECK(!subject_wildcard(SLICE(".b"), 1, out, &got));
    CHECK(subject_wildcard(SLICE("localhost"), 1, out, &got));
    CHECK_TEXT(got, "*");
}
