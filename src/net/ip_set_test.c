/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses, ranges and sets of them.
 */
#include "base/test.h"
#include "net/ip_set.h"

static struct ip_address parse(const char *text)
{
    struct ip_address a;
    if (!ip_parse(slice_from(text), &a))
        test_fail(__FILE__, __LINE__, "%s is no address", text);
    return a;
}

static void check_text(const char *text, const char *want)
{
    char out[IP_TEXT_MAX];
    struct ip_address a = parse(text);
    size_t len = ip_text(&a, out);
    CHECK_TEXT(slice_of(out, len), want);
}

TEST("addresses are read and written in their canonical form")
{
    check_text("192.0.2.1", "192.0.2.1");
    check_text("0.0.0.0", "0.0.0.0");
    check_text("::", "::");
    check_text("::1", "::1");
    check_text("1::", "1::");
    check_text("2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1");
    check_text("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1");
    check_text("::ffff:1.2.3.4", "::ffff:1.2.3.4");
    check_text("::102:304", "::102:304");
    check_text("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
}

TEST("what is no address is refused")
{
    static const char *const bad[] = {"", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4 ",
                                      "[::1]", "::1%eth0", ":", "1::2::3", "localhost", "1.2.3.4:80"};
    struct ip_address a;
    struct ip_range r;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(!ip_parse(slice_from(bad[i]), &a));
        CHECK(!ip_range_parse(slice_from(bad[i]), &r));
    }
    CHECK(!ip_parse(slice_of("1.2.3.4\0", 8), &a));
    static const char *const ranges[] = {"1.2.3.4/", "1.2.3.4/33", "1.2.3.4/08", "1.2.3.4/+8",
                                         "::/129", "1.2.3.4/8/8"};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        CHECK(!ip_range_parse(slice_from(ranges[i]), &r));
}

static struct ip_set build(const char *const *texts, size_t count, struct ip_range *out)
{
    for (size_t i = 0; i < count; i++)
        CHECK(ip_range_parse(slice_from(texts[i]), &out[i]));
    return ip_set_build(out, count);
}

TEST("a set has the addresses of its ranges and no other")
{
    static const char *const texts[] = {"192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/8",
                                        "127.0.0.1/8", "fd00::/8", "::1", "10.1.2.3"};
    static const struct {
        const char *address;
        bool want;
    } cases[] = {
        {"192.168.0.0", true}, {"192.168.255.255", true}, {"192.167.255.255", false},
        {"192.169.0.0", false}, {"172.31.255.255", true}, {"172.32.0.0", false},
        {"10.255.255.255", true}, {"11.0.0.0", false}, {"127.0.0.0", true}, {"126.255.255.255", false},
        {"fdff::1", true}, {"fe00::", false}, {"::1", true}, {"::2", false}, {"::", false},
        {"0.0.0.0", false}, {"255.255.255.255", false}, {"::ffff:10.0.0.1", false},
    };
    struct ip_range ranges[7];
    struct ip_set s = build(texts, 7, ranges);
    CHECK_INT(s.count, 6);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ip_address a = parse(cases[i].address);
        if (ip_set_has(&s, &a) != cases[i].want)
            test_fail(__FILE__, __LINE__, "%s", cases[i].address);
    }
}

TEST("ranges of all addresses, of one, and none at all")
{
    static const char *const texts[] = {"0.0.0.0/0", "::/0"};
    struct ip_range ranges[2];
    struct ip_address four = parse("255.255.255.255"), six = parse("ffff::");
    struct ip_set none = ip_set_build(NULL, 0), all = build(texts, 2, ranges);
    CHECK(!ip_set_has(&none, &four));
    CHECK(ip_set_has(&all, &four) && ip_set_has(&all, &six));
    struct ip_set fours = build(texts, 1, ranges);
    CHECK(ip_set_has(&fours, &four) && !ip_set_has(&fours, &six));
}
