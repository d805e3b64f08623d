/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registry: what is found by number and by name.
 */
#include "ports/iana.h"

#include "base/test.h"
#include "ports/iana_data.h"

static struct iana_entry entry;

static unsigned count(const char *what)
{
    struct iana_query q;
    unsigned at = 0, n = 0;
    if (!iana_query_parse(slice_from(what), &q))
        return 9999;
    while (iana_next(&q, &at, &entry))
        n++;
    return n;
}

TEST("a port has the name of its protocol")
{
    CHECK(iana_find(22, PORT_TCP, &entry));
    CHECK_TEXT(entry.name, "ssh");
    CHECK_TEXT(entry.description, "The Secure Shell (SSH) Protocol");
    CHECK(iana_find(465, PORT_UDP, &entry));
    CHECK_TEXT(entry.name, "igmpv3lite");
    CHECK(iana_find(465, PORT_TCP, &entry));
    CHECK_TEXT(entry.name, "urd");
    CHECK(!iana_find(4, PORT_TCP, &entry));
    CHECK(!iana_find(0, PORT_TCP, &entry));
    CHECK(!iana_find(65535, PORT_UDP, &entry));
    CHECK(iana_find(53, PORT_UDPLITE, &entry));
}

TEST("every port of a range is found, and its neighbours are not")
{
    CHECK(iana_find(6000, PORT_TCP, &entry) && iana_find(6063, PORT_UDP, &entry));
    CHECK_TEXT(entry.name, "x11");
    CHECK_INT(entry.first, 6000);
    CHECK(!iana_find(6064, PORT_UDP, &entry) || !slice_is(entry.name, "x11"));
    CHECK(iana_find(6669, PORT_TCP, &entry));
    CHECK_TEXT(entry.name, "ircu");
    CHECK(!iana_find(6669, PORT_UDP, &entry));
}

TEST("every row is found by its own number")
{
    for (unsigned i = 0; i < iana_rows_count; i++) {
        const struct iana_row *r = &iana_rows[i];
        for (unsigned p = 0; p < PORT_PROTOCOLS; p++) {
            if ((r->protocols & 1U << p) == 0)
                continue;
            CHECK(iana_find(r->first, (enum port_protocol)p, &entry));
            CHECK_INT(entry.first, r->first);
            CHECK(iana_find(r->last, (enum port_protocol)p, &entry));
            CHECK_INT(entry.last, r->last);
            CHECK_INT(entry.name.len, r->name_len);
        }
    }
    CHECK_INT(iana_rows_count, 6221);
}

TEST("queries: names, wildcards, numbers, ranges, protocols")
{
    CHECK_INT(count("ssh"), 1);
    CHECK_INT(count("SSH"), 1);
    CHECK_INT(count("161/udp"), 1);
    CHECK_TEXT(entry.name, "snmp");
    CHECK_INT(count("465"), 2);
    CHECK_INT(count("465/tcp"), 1);
    CHECK_INT(count("6010/tcp"), 1);
    CHECK(count("http*") > 5);
    CHECK_INT(count("*sta*r*s*q*l*zz"), 0);
    CHECK_INT(count("*"), iana_rows_count);
    CHECK_INT(count("20-23"), 4);
    CHECK_INT(count("23-20"), 9999);
    CHECK_INT(count("70000"), 9999);
    CHECK_INT(count("22/xyz"), 9999);
    CHECK_INT(count(""), 9999);
    CHECK_INT(count("no-such-name"), 0);
}

TEST("classes, the list's date, sentences of the common ones")
{
    CHECK_TEXT(slice_from(iana_class_name(iana_class_of(1023))), "system");
    CHECK_TEXT(slice_from(iana_class_name(iana_class_of(1024))), "user");
    CHECK_TEXT(slice_from(iana_class_name(iana_class_of(49151))), "user");
    CHECK_TEXT(slice_from(iana_class_name(iana_class_of(49152))), "dynamic");
    CHECK_INT(strlen(iana_date()), 10);
    static const uint16_t tcp[] = {20, 21, 22, 25, 53, 80, 110, 194, 443, 3306, 5432, 8080};
    for (size_t i = 0; i < sizeof tcp / sizeof *tcp; i++)
        CHECK(iana_explained(tcp[i], PORT_TCP) != NULL);
    CHECK(iana_explained(123, PORT_UDP) != NULL && iana_explained(161, PORT_UDP) != NULL);
    CHECK(iana_explained(4, PORT_TCP) == NULL);
}
