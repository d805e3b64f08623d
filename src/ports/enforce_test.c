/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What declarations become: groups, intervals, the text for nft, and what is read back of it.
 */
#include "ports/enforce.h"

#include "base/test.h"

static struct arena arena = {.chunk_size = 1 << 16};

static struct port_declaration port(uint16_t first, uint16_t last, enum port_reach reach)
{
    return (struct port_declaration){.by = DECLARED_PORTS, .protocol = PORT_TCP, .first = first,
                                     .last = last, .reach = reach};
}

static struct port_declaration from(struct port_declaration d, const char *prefix)
{
    struct ip_range *r = ARENA_ARRAY(&arena, struct ip_range, 1);
    CHECK(ip_range_parse(slice_from(prefix), r));
    d.from = r;
    d.from_count = 1;
    return d;
}

static struct enforce_plan plan(const struct port_declaration *items, size_t count, enum port_reach others)
{
    char error[200];
    struct enforce_plan p;
    struct enforce_rules r = {items, count, others};
    CHECK_OK(enforce_plan_make(&r, &arena, &p, error, sizeof error));
    return p;
}

static bool allows(const struct enforce_plan *p, enum port_protocol l4, uint16_t number, const char *who)
{
    struct ip_address a;
    CHECK(ip_parse(slice_from(who), &a));
    return enforce_allows(p, l4, number, &a);
}

TEST("neighbours of one meaning are one interval")
{
    struct port_declaration d[] = {port(80, 80, REACH_WORLD), port(81, 90, REACH_WORLD),
                                   port(91, 91, REACH_DEVICE), port(443, 443, REACH_WORLD)};
    struct enforce_plan p = plan(d, 4, REACH_DEVICE);
    CHECK_INT(p.intervals_count[PORT_TCP], 3);
    CHECK_INT(p.intervals[PORT_TCP][0].last, 90);
    CHECK_INT(p.intervals_count[PORT_UDP], 0);
    CHECK_INT(p.groups_count, 3);
    CHECK(allows(&p, PORT_TCP, 85, "192.0.2.1") && !allows(&p, PORT_TCP, 91, "192.0.2.1"));
    CHECK(!allows(&p, PORT_UDP, 85, "192.0.2.1"));
}

TEST("the app's word counts more than a site's, and its narrower word more than a wider one")
{
    struct port_declaration d[] = {port(443, 443, REACH_UNKNOWN), port(3000, 3000, REACH_UNKNOWN),
                                   port(8080, 8080, REACH_UNKNOWN),
                                   from(port(443, 443, REACH_NETWORK), "10.0.0.0/8"),
                                   port(1, 65535, REACH_WORLD), port(22, 22, REACH_WORLD),
                                   from(port(22, 22, REACH_NETWORK), "2001:db8::/32")};
    d[0].by = d[1].by = d[2].by = DECLARED_SITE;
    d[1].host = SLICE("127.0.0.1");
    struct enforce_plan sites = plan(d, 4, REACH_DEVICE), all = plan(d, 7, REACH_DEVICE);
    CHECK(allows(&sites, PORT_TCP, 443, "10.2.3.4") && !allows(&sites, PORT_TCP, 443, "192.0.2.1"));
    CHECK(!allows(&sites, PORT_TCP, 3000, "10.2.3.4"));
    CHECK(allows(&sites, PORT_TCP, 8080, "192.0.2.1"));
    CHECK(allows(&all, PORT_TCP, 3000, "192.0.2.1"));
    CHECK(allows(&all, PORT_TCP, 22, "2001:db8::7") && !allows(&all, PORT_TCP, 22, "192.0.2.1"));
}

TEST("without a protocol both TCP and UDP are meant; an upstream is no listener")
{
    struct port_declaration d[] = {port(53, 53, REACH_WORLD), port(9000, 9000, REACH_WORLD)};
    d[0].any_protocol = true;
    d[1].by = DECLARED_UPSTREAM;
    struct enforce_plan p = plan(d, 2, REACH_DEVICE);
    CHECK(allows(&p, PORT_UDP, 53, "::1") && allows(&p, PORT_TCP, 53, "::1"));
    CHECK(!allows(&p, PORT_TCP, 9000, "192.0.2.1"));
    struct enforce_plan quiet = plan(d, 2, REACH_UNKNOWN);
    CHECK(allows(&quiet, PORT_TCP, 9000, "192.0.2.1"));
}

TEST("one group too many is an error, not a port that stands open")
{
    enum { GROUPS = 4095 };
    struct port_declaration *d = ARENA_ARRAY(&arena, struct port_declaration, GROUPS + 1);
    struct enforce_rules r = {d, GROUPS, REACH_WORLD};
    struct enforce_plan p;
    char error[200], prefix[32];
    for (unsigned i = 0; i <= GROUPS; i++) {
        unsigned net = i < GROUPS ? i : 1; /* the last: port 1 again, for the network of port 2 */
        uint16_t number = (uint16_t)(i < GROUPS ? i + 1 : 1);
        snprintf(prefix, sizeof prefix, "10.%u.%u.0/24", net >> 8, net & 255);
        d[i] = from(port(number, number, REACH_NETWORK), prefix);
    }
    CHECK_OK(enforce_plan_make(&r, &arena, &p, error, sizeof error));
    r.count++;
    CHECK_INT(enforce_plan_make(&r, &arena, &p, error, sizeof error), ERR_LIMIT);
}

TEST("thousands of groups, each with ports all over, are written each by its own")
{
    enum { GROUPS = 4000, PORTS = 65535 };
    struct port_declaration *d = ARENA_ARRAY(&arena, struct port_declaration, PORTS + 1);
    struct enforce_state now = {0};
    char text[64];
    for (unsigned i = 0; i < PORTS; i++) {
        unsigned group = i % GROUPS;
        snprintf(text, sizeof text, "10.%u.%u.0/24", group >> 8, group & 255);
        if (i < GROUPS)
            d[i] = from(port((uint16_t)(i + 1), (uint16_t)(i + 1), REACH_NETWORK), text);
        else
            d[i] = d[group];
        d[i].first = d[i].last = (uint16_t)(i + 1);
        d[i].any_protocol = true;
    }
    d[PORTS] = from(port(1, 65535, REACH_NETWORK), "10.0.0.0/8"); /* narrows none of them */
    struct enforce_plan p = plan(d, PORTS + 1, REACH_DEVICE);
    struct buffer b;
    CHECK_INT(p.groups_count, GROUPS + 2);
    CHECK(allows(&p, PORT_TCP, 4001, "10.0.0.9") && !allows(&p, PORT_TCP, 4001, "10.0.1.9"));
    CHECK(allows(&p, PORT_UDP, 4002, "10.0.1.9"));
    buffer_init(&b, 64 << 20);
    CHECK_OK(enforce_script(&p, &now, 0, &b));
    CHECK(slice_find_slice(buffer_slice(&b),
        SLICE("add set inet portico a_1_udp { type inet_service; flags interval; counter; "
              "elements = { 1, 4001, 8001, 12001, 16001, 20001, 24001, 28001, 32001, 36001, 40001, "
              "44001, 48001, 52001, 56001, 60001, 64001 }; }\n")) != SIZE_MAX);
    CHECK(slice_find_slice(buffer_slice(&b),
        SLICE("a_4000_tcp { type inet_service; flags interval; counter; elements = { 4000, 8000, "))
        != SIZE_MAX);
    buffer_deinit(&b);
}

TEST("the table is written as it should stand")
{
    struct port_declaration d[] = {port(80, 81, REACH_WORLD), port(3000, 3000, REACH_DEVICE),
                                   from(port(22, 22, REACH_NETWORK), "192.0.2.0/24")};
    struct enforce_plan p = plan(d, 3, REACH_DEVICE);
    struct enforce_state now = {0};
    struct buffer b;
    char mark[17];
    buffer_init(&b, 1 << 16);
    enforce_mark(&p, mark);
    CHECK_OK(enforce_script(&p, &now, 0, &b));
    struct slice end = arena_printf(&arena, "add rule inet portico input goto a comment \"portico %s\"\n",
                                    mark);
    CHECK(slice_starts(buffer_slice(&b),
        SLICE("add table inet portico\ndelete table inet portico\nadd table inet portico\n")));
    CHECK(slice_ends(buffer_slice(&b), end));
    CHECK(slice_find_slice(buffer_slice(&b),
        SLICE("add set inet portico a_1_tcp { type inet_service; flags interval; counter; "
              "elements = { 80-81 }; }\nadd rule inet portico a tcp dport @a_1_tcp accept\n")) != SIZE_MAX);
    CHECK(slice_find_slice(buffer_slice(&b),
        SLICE("add rule inet portico a_3 ip saddr @a_3_from4 accept\n"
              "add rule inet portico a_3 counter drop\n")) != SIZE_MAX);
    CHECK(slice_find_slice(buffer_slice(&b),
        SLICE("counter drop\nadd chain inet portico input")) != SIZE_MAX);
    buffer_deinit(&b);
}

static bool has(const struct buffer *b, const char *text)
{
    return slice_find_slice(buffer_slice(b), slice_from(text)) != SIZE_MAX;
}

/* Every second of so many ports, and a range of the same meaning. */
static void write_singles(size_t count, struct buffer *b)
{
    struct port_declaration *d = ARENA_ARRAY(&arena, struct port_declaration, count + 1);
    struct enforce_state now = {0};
    for (size_t i = 0; i < count; i++)
        d[i] = port((uint16_t)(2 * i + 1), (uint16_t)(2 * i + 1), REACH_WORLD);
    d[count] = port(60000, 60001, REACH_WORLD);
    struct enforce_plan p = plan(d, count + 1, REACH_DEVICE);
    buffer_clear(b);
    CHECK_OK(enforce_script(&p, &now, 0, b));
}

TEST("many ports that stand alone are a set without intervals, beside that of the ranges")
{
    struct buffer b;
    buffer_init(&b, 1 << 16);
    write_singles(255, &b);
    CHECK(has(&b, "a_1_tcp { type inet_service; flags interval; counter; elements = { 1, 3, 5, "));
    CHECK(has(&b, "509, 60000-60001 }; }\n") && !has(&b, "each"));
    write_singles(256, &b);
    CHECK(has(&b, "a_1_each_tcp { type inet_service; size 256; counter; elements = { 1, 3, 5, "));
    CHECK(has(&b, "511 }; }\nadd rule inet portico a tcp dport @a_1_each_tcp accept\n"));
    CHECK(has(&b, "a_1_tcp { type inet_service; flags interval; counter; elements = { 60000-60001 }; }\n"
                  "add rule inet portico a tcp dport @a_1_tcp accept\n"));
    buffer_deinit(&b);
}

TEST("what is in force is read back, with the time that a trial has left")
{
    static const char table[] =
        "{\"nftables\":[{\"chain\":{\"name\":\"a\"}},{\"chain\":{\"name\":\"b_2\"}},"
        "{\"set\":{\"name\":\"trial\"}},"
        "{\"rule\":{\"chain\":\"input\",\"comment\":\"portico 0123456789abcdef\",\"expr\":[{\"match\":{}},"
        "{\"goto\":{\"target\":\"b\"}}]}},"
        "{\"rule\":{\"chain\":\"input\",\"comment\":\"portico fedcba9876543210\",\"expr\":["
        "{\"goto\":{\"target\":\"a\"}}]}}]}";
    static const char trial[] =
        "{\"nftables\":[{\"set\":{\"elem\":[{\"elem\":{\"val\":\"ipv4\",\"expires\":41}}]}}]}";
    json_t *t = json_loads(table, 0, NULL), *s = json_loads(trial, 0, NULL);
    struct enforce_state now;
    char error[200];
    CHECK_OK(enforce_state_parse(t, s, &arena, &now, error, sizeof error));
    CHECK(now.present && now.current == 'a' && now.trial == 'b');
    CHECK_TEXT(slice_from(now.trial_mark), "0123456789abcdef");
    CHECK_INT(now.trial_left_s, 42);
    CHECK_INT(now.chains_count, 2);
    struct buffer b;
    buffer_init(&b, 1 << 16);
    CHECK_OK(enforce_confirm_script(&now, &b));
    CHECK(slice_ends(buffer_slice(&b), SLICE("goto b comment \"portico 0123456789abcdef\"\n"
        "flush chain inet portico a\ndelete chain inet portico a\ndelete set inet portico trial\n")));
    buffer_clear(&b);
    CHECK_OK(enforce_rollback_script(&now, &b));
    CHECK(slice_ends(buffer_slice(&b), SLICE("goto a comment \"portico fedcba9876543210\"\n"
        "flush chain inet portico b_2\ndelete chain inet portico b_2\n"
        "delete set inet portico trial\n")));
    buffer_deinit(&b);
    json_decref(t);
    json_decref(s);
}

TEST("nothing of a table that somebody else has changed gets into a script")
{
    static const char table[] =
        "{\"nftables\":[{\"chain\":{\"name\":\"a\"}},{\"chain\":{\"name\":\"b_1\\ninclude \\\"/x\\\"\"}},"
        "{\"set\":{\"name\":\"b_1;include\"}},{\"set\":{\"name\":\"trial\"}},"
        "{\"rule\":{\"chain\":\"input\",\"comment\":\"portico \\\"\\ninclude \\\"/xyz\\\"\",\"expr\":["
        "{\"goto\":{\"target\":\"a\"}}]}}]}";
    json_t *t = json_loads(table, 0, NULL);
    struct enforce_state now;
    struct buffer b;
    char error[200];
    CHECK(t != NULL);
    CHECK_OK(enforce_state_parse(t, NULL, &arena, &now, error, sizeof error));
    CHECK(now.current == 'a' && now.chains_count == 2 && now.sets_count == 2);
    now.trial = 'b';
    buffer_init(&b, 1 << 16);
    CHECK_OK(enforce_rollback_script(&now, &b));
    CHECK(slice_find_slice(buffer_slice(&b), SLICE("goto a comment \"portico \"\n")) != SIZE_MAX);
    CHECK(slice_find_slice(buffer_slice(&b), SLICE("include")) == SIZE_MAX);
    buffer_deinit(&b);
    json_decref(t);
}

TEST("counters are read of our table's sets of ports only, and told to their rows")
{
    static const char ruleset[] =
        "{\"nftables\":[{\"set\":{\"family\":\"inet\",\"table\":\"portico\",\"name\":\"a_1_tcp\",\"elem\":["
        "{\"elem\":{\"val\":{\"range\":[80,90]},\"counter\":{\"packets\":3,\"bytes\":180}}}"
        "]}},"
        "{\"set\":{\"family\":\"inet\",\"table\":\"portico\",\"name\":\"a_1_each_tcp\",\"elem\":["
        "{\"elem\":{\"val\":22,\"counter\":{\"packets\":1}}}]}},"
        "{\"set\":{\"family\":\"inet\",\"table\":\"portico\",\"name\":\"b_2_tcp\",\"elem\":["
        "{\"elem\":{\"val\":85,\"counter\":{\"packets\":4}}}]}},"
        "{\"set\":{\"family\":\"inet\",\"table\":\"other\",\"name\":\"a_1_tcp\",\"elem\":[85]}},"
        "{\"set\":{\"family\":\"inet\",\"table\":\"portico\",\"name\":\"a_1_from4\",\"elem\":[\"1.2.3.4\"]}},"
        "{\"set\":{\"family\":\"inet\",\"table\":\"portico\",\"name\":\"trial\"}}]}";
    json_t *t = json_loads(ruleset, 0, NULL);
    struct port_table table = {.arena = &arena, .netns = 1};
    port_counts_read(t, &arena, &table.counts, &table.counts_count);
    json_decref(t);
    CHECK_INT(table.counts_count, 3);
    CHECK(table.counts[0].first == 80 && table.counts[0].last == 90 && table.counts[0].bytes == 180);
    static const struct port_entry rows[] = {
        {.port = 22, .netns = 1}, {.port = 79, .netns = 1}, {.port = 85, .netns = 1},
        {.port = 90, .netns = 1}, {.port = 91, .netns = 1}, {.port = 85, .netns = 2},
        {.port = 85, .netns = 1, .protocol = PORT_UDP}};
    static const int wanted[] = {1, -1, 7, 3, -1, -1, -1};
    for (size_t i = 0; i < 7; i++)
        *table_add(&table) = rows[i];
    table_count(&table);
    for (size_t i = 0; i < 7; i++)
        CHECK_INT(table.entries[i].is_counted ? (int)table.entries[i].tried : -1, wanted[i]);
}
