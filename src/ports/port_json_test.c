/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two writers of the ledger's JSON agree, whatever stands in a row.
 */
#include "ports/ledger.h"

#include "base/test.h"
#include "config/jsonx.h"

static void check_same(const struct port_table *t)
{
    struct buffer tree, rows;
    json_t *json = port_json(t);
    buffer_init(&tree, 1 << 20);
    buffer_init(&rows, 1 << 20);
    CHECK_OK(jsonx_dump_pretty(&tree, json));
    buffer_append_byte(&tree, '\n');
    port_json_write(t, &rows, NULL);
    CHECK_SLICE(buffer_slice(&rows), buffer_slice(&tree));
    json_decref(json);
    buffer_deinit(&tree);
    buffer_deinit(&rows);
}

TEST("rows written one by one are what the tree gives, empty and full")
{
    struct arena a;
    arena_init(&a, 4096);
    struct port_table t = {.arena = &a, .host = SLICE("a<\"b\xff"), .time_ns = 1700000000000000000};
    check_same(&t);
    struct port_entry *e = table_add(&t);
    e->port = 8080;
    check_same(&t);
    struct port_owner second = {.program = SLICE("b\n"), .user = SLICE("x")};
    struct port_owner first = {.pid = 7, .program = SLICE("a"), .unit = SLICE("a\\x2d.service"),
                               .container = SLICE("web"), .service = SLICE("simon"), .next = &second};
    struct port_declaration d[] = {
        {.by = DECLARED_SITE, .name = SLICE("example.com"), .file = SLICE("Caddyfile"), .line = 3},
        {.by = DECLARED_UPSTREAM}, {.by = DECLARED_SERVICE, .name = SLICE("simon")},
        {.by = DECLARED_PORTS}, {.by = DECLARED_ADMIN},
    };
    const struct port_declaration *declared[] = {&d[0], &d[1], &d[2], &d[3], &d[4]};
    struct ip_range from[2];
    CHECK(ip_range_parse(SLICE("10.0.0.0/8"), &from[0]));
    CHECK(ip_range_parse(SLICE("2001:db8::/32"), &from[1]));
    e = table_add(&t);
    *e = (struct port_entry){.port = 443, .protocol = PORT_UDP, .family = PORT_DUAL,
                             .address.is_six = 1, .namespace = SLICE("blue"), .reach = REACH_NETWORK,
                             .reach_from = from, .reach_from_count = 2, .owners = &first,
                             .declared = declared, .declared_count = 5,
                             .iana_name = SLICE("https"), .iana_description = SLICE("a & b")};
    finding_add(&t, e, "open-to-world", SEVERITY_WARNING, SLICE("Why."), SLICE("What."));
    finding_add(&t, e, "other", SEVERITY_ERROR, SLICE("Why \xe2\x80\xa8."), SLICE_NONE);
    table_unseen(&t, "something");
    check_same(&t);
    struct port_count counts[] = {{'a', PORT_UDP, 443, 443, 9, 0}};
    t.counts = counts;
    t.counts_count = 1;
    e->is_counted = true;
    e->tried = 9;
    check_same(&t);
    arena_deinit(&a);
}

static size_t pieces, taken;

static void take_piece(struct buffer *b)
{
    CHECK(b->len >= PORT_JSON_PIECE);
    pieces++;
    taken += b->len;
    buffer_clear(b);
}

TEST("many rows are handed on in pieces")
{
    struct arena a;
    struct buffer whole, rest;
    arena_init(&a, 4096);
    struct port_table t = {.arena = &a};
    for (unsigned i = 0; i < 2000; i++)
        table_add(&t)->port = (uint16_t)i;
    buffer_init(&whole, SIZE_MAX);
    buffer_init(&rest, 2 * PORT_JSON_PIECE);
    port_json_write(&t, &whole, NULL);
    port_json_write(&t, &rest, take_piece);
    CHECK(!rest.full);
    CHECK(pieces > 4);
    CHECK_INT(taken + rest.len, whole.len);
    buffer_deinit(&whole);
    buffer_deinit(&rest);
    arena_deinit(&a);
}
