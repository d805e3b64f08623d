/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writers over a table by hand, the whole form and back, the history.
 */
#include "ports/ledger.h"

#include "base/test.h"
#include "config/jsonx.h"
#include "ports/declared.h"
#include "ports/history.h"

static struct arena arena;
static struct port_table table;
static struct buffer out;

static struct port_entry *add(unsigned port, enum port_protocol p, const char *address,
                              enum port_reach reach, const char *program)
{
    struct port_entry *e = table_add(&table);
    *e = (struct port_entry){.port = (uint16_t)port, .protocol = p, .listening = true, .sockets = 1,
                             .inode = 77, .netns = 1, .family = PORT_DUAL, .reach = reach};
    e->address.is_six = 1;
    if (address[0] != '\0') {
        CHECK(ip_parse(slice_from(address), &e->address));
        e->family = e->address.is_six ? PORT_IP6 : PORT_IP4;
    }
    e->owners = ARENA_NEW(&arena, struct port_owner);
    *e->owners = (struct port_owner){.program = slice_from(program), .pid = 812,
                                     .user = SLICE("www-data"), .uid = 33,
                                     .unit = SLICE("web.service")};
    return e;
}

static void begin(void)
{
    arena_deinit(&arena);
    arena_init(&arena, 8192);
    buffer_deinit(&out);
    buffer_init(&out, 1 << 20);
    table = (struct port_table){.arena = &arena, .netns = 1, .host = SLICE("vm"),
                                .time_ns = 1700000000 * (int64_t)1000000000};
}

static void two_rows(void)
{
    static const struct port_declaration site = {.by = DECLARED_SITE, .first = 443, .last = 443,
                                                 .name = {"example.com", 11},
                                                 .file = {"/etc/portico/Caddyfile", 22}, .line = 5};
    static const struct port_declaration *declared[] = {&site};
    begin();
    struct port_entry *e = add(443, PORT_TCP, "", REACH_WORLD, "portico");
    e->declared = declared;
    e->declared_count = 1;
    add(5353, PORT_UDP, "127.0.0.1", REACH_DEVICE, "avahi-\033[31mdaemon");
    table_name(&table);
    finding_add(&table, &table.entries[0], "two-programs", SEVERITY_WARNING, SLICE("One, two."),
                SLICE("Stop one."));
}

TEST("the table is aligned, and clean of what a terminal would obey")
{
    two_rows();
    port_text_write(&table, 0, false, &out);
    CHECK_TEXT(buffer_slice(&out),
               "PORT  PROTO  ADDRESS    REACH   OWNER                                IANA   "
               "DECLARED                   FINDINGS\n"
               " 443  tcp    *          world   portico 812 (web.service)            https  "
               "example.com (Caddyfile:5)  two-programs\n"
               "5353  udp    127.0.0.1  device  avahi-?[31mdaemon 812 (web.service)  mdns\n");
}

TEST("a narrow terminal gets fewer and narrower columns, and never a longer line")
{
    for (unsigned columns = 30; columns < 160; columns++) {
        struct slice line, rest;
        two_rows();
        port_text_write(&table, columns, false, &out);
        for (rest = buffer_slice(&out); slice_cut(rest, '\n', &line, &rest);) {
            size_t width = 0;
            for (size_t i = 0; i < line.len; i++)
                width += ((unsigned char)line.ptr[i] & 0xc0) != 0x80;
            CHECK(width <= columns || columns < 37);
        }
        CHECK(slice_find_slice(buffer_slice(&out), SLICE("REACH")) != SIZE_MAX);
    }
    two_rows();
    port_text_write(&table, 0, true, &out);
    CHECK(slice_find_slice(buffer_slice(&out), SLICE("\033[31mworld\033[0m")) != SIZE_MAX);
}

TEST("CSV quotes, and disarms what a spreadsheet would compute")
{
    two_rows();
    table.entries[1].owners->program = SLICE("=cmd\"x");
    port_csv_write(&table, &out);
    struct slice text = buffer_slice(&out);
    CHECK(slice_starts(text, SLICE("port,protocol,family,address,")));
    CHECK(slice_find_slice(text, SLICE("\r\n443,\"tcp\",\"dual\",\"::\",\"\",\"world\",\"\",\"812\","
                                       "\"portico\",\"www-data\",\"web.service\"")) != SIZE_MAX);
    CHECK(slice_find_slice(text, SLICE("\"'=cmd\"\"x\"")) != SIZE_MAX);
    CHECK(slice_find_slice(text, SLICE("\"site\",\"example.com\",\"/etc/portico/Caddyfile:5\","
                                       "\"two-programs\"\r\n")) != SIZE_MAX);
}

TEST("the whole form comes back as it was")
{
    static struct ip_range from;
    struct port_table again;
    char error[256];
    two_rows();
    CHECK(ip_range_parse(SLICE("10.0.0.0/8"), &from));
    table.entries[1].reach = REACH_NETWORK;
    table.entries[1].reach_from = &from;
    table.entries[1].reach_from_count = 1;
    table_unseen(&table, "owners of others");
    json_t *whole = port_json_whole(&table);
    CHECK_OK(port_json_read(whole, &arena, &again, error, sizeof error));
    CHECK_INT(again.count, 2);
    CHECK_INT(again.unseen_count, 1);
    CHECK_INT(again.time_ns, table.time_ns);
    for (size_t i = 0; i < 2; i++) {
        const struct port_entry *a = &table.entries[i], *b = &again.entries[i];
        CHECK(a->port == b->port && a->protocol == b->protocol && a->family == b->family);
        CHECK(a->reach == b->reach && a->inode == b->inode && a->netns == b->netns);
        CHECK(a->listening == b->listening && a->sockets == b->sockets);
        CHECK(memcmp(&a->address, &b->address, sizeof a->address) == 0);
        CHECK_SLICE(b->owners->program, a->owners->program);
        CHECK_SLICE(b->owners->unit, a->owners->unit);
        CHECK_INT(b->owners->uid, 33);
    }
    CHECK(memcmp(&again.entries[1].reach_from[0], &from, sizeof from) == 0);
    json_object_set_new(json_array_get(json_object_get(whole, "ports"), 0), "port", json_integer(70000));
    CHECK_INT(port_json_read(whole, &arena, &again, error, sizeof error), ERR_INVALID);
    json_decref(whole);
    json_t *none = json_object();
    CHECK_INT(port_json_read(none, &arena, &again, error, sizeof error), ERR_INVALID);
    json_decref(none);
}

TEST("the contract has its members and no others")
{
    two_rows();
    json_t *json = port_json(&table);
    const json_t *row = json_array_get(json_object_get(json, "ports"), 0);
    CHECK_INT(json_object_size(json), 4);
    CHECK_INT(json_object_size(row), 11);
    CHECK_TEXT(slice_from(json_string_value(json_object_get(json, "time"))), "2023-11-14T22:13:20Z");
    CHECK_TEXT(slice_from(json_string_value(json_object_get(row, "family"))), "dual");
    CHECK(json_is_null(json_object_get(row, "namespace")));
    CHECK_INT(json_object_size(json_array_get(json_object_get(row, "findings"), 0)), 4);
    json_decref(json);
}

TEST("SARIF names the line of the configuration, or the port alone")
{
    two_rows();
    finding_add(&table, &table.entries[1], "undeclared", SEVERITY_INFO, SLICE("x."), SLICE("y."));
    CHECK_INT(port_sarif_write(&table, SEVERITY_INFO, &out), 2);
    struct slice text = buffer_slice(&out);
    CHECK(slice_find_slice(text, SLICE("\"uri\": \"file:///etc/portico/Caddyfile\"")) != SIZE_MAX);
    CHECK(slice_find_slice(text, SLICE("\"startLine\": 5")) != SIZE_MAX);
    CHECK(slice_find_slice(text, SLICE("\"name\": \"udp/5353\"")) != SIZE_MAX);
    buffer_clear(&out);
    CHECK_INT(port_sarif_write(&table, SEVERITY_ERROR, &out), 0);
    CHECK_INT(findings_count(&table, SEVERITY_WARNING), 1);
    buffer_clear(&out);
    CHECK_INT(findings_text_write(&table, SEVERITY_WARNING, false, &out), 1);
    CHECK_TEXT(buffer_slice(&out), "warning One, two. [two-programs]\n        Stop one.\n");
}

static void check_change(struct history *h, size_t i, const char *key, const char *want)
{
    const json_t *v = json_object_get(json_array_get(history_log(h), i), key);
    CHECK_TEXT(slice_from(json_string_value(v)), want);
}

static const struct port_interval local = {32768, 60999};

TEST("the history tells what came, went and changed hands")
{
    struct history h;
    struct port_memory *memory;
    size_t changes;
    history_init(&h);
    two_rows();
    add(40000, PORT_UDP, "", REACH_WORLD, "client");
    CHECK(history_update(&h, &table, local, &changes));
    CHECK_INT(changes, 0);
    CHECK_INT(history_memory(&h, &arena, &memory), 2);
    CHECK_TEXT(memory[0].owner, "unit web.service: portico");
    CHECK(!history_update(&h, &table, local, &changes));
    two_rows();
    table.entries[0].owners->unit = SLICE("other.service");
    table.count = 1;
    add(80, PORT_TCP, "", REACH_WORLD, "portico");
    CHECK(history_update(&h, &table, local, &changes));
    CHECK_INT(changes, 3);
    check_change(&h, 0, "change", "opened");
    check_change(&h, 1, "change", "owner");
    check_change(&h, 1, "was", "unit web.service: portico");
    check_change(&h, 2, "change", "closed");
    for (int i = 0; i < 2 * HISTORY_CHANGES_MAX; i++) {
        table.entries[1].port ^= 1;
        CHECK(history_update(&h, &table, local, &changes));
    }
    CHECK_INT(json_array_size(history_log(&h)), HISTORY_CHANGES_MAX);
    history_deinit(&h);
    begin();
}

/* What is read of the text, written again; `looked`: there is a look in it. */
static void check_read(const char *text, bool looked, const char *want)
{
    struct history h;
    begin();
    history_init(&h);
    history_read(&h, slice_from(text));
    CHECK_INT(h.looked, looked);
    history_write(&h, &out);
    CHECK_TEXT(buffer_slice(&out), want);
    history_deinit(&h);
}

#define LOOK "{\"last\":{\"time\":17,\"ports\":["
#define NOTHING "{\"last\":{\"time\":0,\"ports\":[]},\"log\":[]}"
#define ROW "[80,\"tcp\",\"::\",\"unit a: b\"]"

TEST("the history's text is read as it was written, and as any other JSON")
{
    static const char one[] = LOOK ROW "]},\"log\":[]}";
    static const char two[] = LOOK ROW ",[81,\"udp\",\"192.0.2.1\",\"\"]]},\"log\":[{\"port\":80}]}";
    static const char escaped[] = LOOK "[80,\"tcp\",\"::\",\"a\\\"\\u003cb\"]]},\"log\":[]}";
    check_read(one, true, one);
    check_read(two, true, two);
    check_read(escaped, true, escaped);
    check_read(" " LOOK "]}, \"log\":[] }\n", true, LOOK "]},\"log\":[]}");
    check_read(LOOK ROW "," ROW "]}, \"log\": []}", true, LOOK ROW "," ROW "]},\"log\":[]}");
    check_read(LOOK "[81,\"tcp\",\"\",\"\"]," ROW "]},\"log\":[]}", true,
               LOOK ROW ",[81,\"tcp\",\"\",\"\"]]},\"log\":[]}");
    check_read(LOOK "1,[70000,\"tcp\"],[1,\"x\",2,3],[]," ROW "]},\"log\":5}", true, one);
    check_read(LOOK ROW "]}}", true, one);
    check_read("{\"log\":[1]}", false, "{\"last\":{\"time\":0,\"ports\":[]},\"log\":[1]}");
    check_read("", false, NOTHING);
    check_read(LOOK ROW "]},\"log\":[{]}", true, one);
    for (size_t n = 1; n < sizeof two - 1; n++) { /* torn anywhere */
        char part[sizeof two] = "";
        memcpy(part, two, n);
        check_read(part, false, NOTHING);
    }
    begin();
    buffer_deinit(&out);
    arena_deinit(&arena);
}
