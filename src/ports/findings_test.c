/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each finding, where it is one and where it is none. A case is an entry with its owner and what
 * declares it; the names of its findings are compared, with their severities.
 */
#include "ports/findings.h"

#include <stdio.h>

#include "base/test.h"
#include "ports/declared.h"
#include "ports/expected.h"

static struct arena arena;
static struct port_table table;
static struct port_facts facts;

static void begin(void)
{
    arena_deinit(&arena);
    arena_init(&arena, 8192);
    table = (struct port_table){.arena = &arena, .netns = 1};
    facts = (struct port_facts){.local = {32768, 60999}};
}

static struct port_entry *add(unsigned port, enum port_protocol p, const char *address,
                              enum port_reach reach, const char *program)
{
    static uint64_t inode = 1;
    struct port_entry *e = table_add(&table);
    *e = (struct port_entry){.port = (uint16_t)port, .protocol = p, .listening = true, .sockets = 1,
                             .inode = inode++, .netns = 1, .family = PORT_DUAL, .reach = reach};
    e->address.is_six = 1;
    if (address[0] != '\0') {
        CHECK(ip_parse(slice_from(address), &e->address));
        e->family = e->address.is_six ? PORT_IP6 : PORT_IP4;
    }
    if (program[0] != '\0') {
        e->owners = ARENA_NEW(&arena, struct port_owner);
        e->owners->program = slice_from(program);
        e->owners->user = SLICE("root");
        e->owners->pid = 77;
    }
    return e;
}

static struct port_declaration *declare(struct port_entry *e, enum declared_by by, const char *name,
                                        enum port_reach reach)
{
    struct port_declaration *d = ARENA_NEW(&arena, struct port_declaration);
    const struct port_declaration **more = ARENA_ARRAY(&arena, const struct port_declaration *, 4);
    *d = (struct port_declaration){.by = by, .first = e->port, .last = e->port, .reach = reach,
                                   .name = slice_from(name), .file = SLICE("Caddyfile"), .line = 9};
    for (size_t i = 0; i < e->declared_count; i++)
        more[i] = e->declared[i];
    more[e->declared_count++] = d;
    e->declared = more;
    return d;
}

/* "name=severity name=severity" of one entry. */
static struct slice found(const struct port_entry *e)
{
    struct slice all = SLICE("");
    for (const struct port_finding *f = e->findings; f != NULL; f = f->next) {
        CHECK(f->text.len > 20 && f->advice.len > 5);
        CHECK_INT(f->text.ptr[f->text.len - 1], '.');
        all = arena_printf(&arena, SLICE_FMT "%s%s=%s", SLICE_ARG(all), all.len > 0 ? " " : "",
                           f->name, severity_name(f->severity));
    }
    return all;
}

static struct slice look(void)
{
    table_name(&table);
    table_find(&table, &facts);
    return found(&table.entries[0]);
}

static struct slice alone(unsigned port, enum port_protocol p, const char *address,
                          enum port_reach reach, const char *program)
{
    begin();
    add(port, p, address, reach, program);
    return look();
}

TEST("open-to-world: what is meant for the device, by a declaration or by what it is")
{
    begin();
    declare(add(3000, PORT_TCP, "", REACH_WORLD, "node"), DECLARED_PORTS, "", REACH_DEVICE);
    CHECK_TEXT(look(), "open-to-world=error");
    CHECK_TEXT(table.entries[0].findings->text,
               "Everybody can reach port 3000 (node), but the declaration of port 3000 (Caddyfile:9) "
               "means it for this device only.");
    CHECK_TEXT(alone(5432, PORT_TCP, "", REACH_WORLD, "postgres"), "open-to-world=error");
    CHECK_TEXT(alone(5432, PORT_TCP, "", REACH_NETWORK, "postgres"), "");
    CHECK_TEXT(alone(5432, PORT_TCP, "127.0.0.1", REACH_DEVICE, "postgres"), "");
    CHECK_TEXT(alone(5432, PORT_TCP, "", REACH_UNKNOWN, "postgres"), "");
    begin();
    declare(add(5432, PORT_TCP, "", REACH_WORLD, "postgres"), DECLARED_PORTS, "db", REACH_WORLD);
    CHECK_TEXT(look(), "");
    begin();
    declare(add(3000, PORT_TCP, "", REACH_WORLD, "portico"), DECLARED_SITE, "x", REACH_UNKNOWN);
    CHECK_TEXT(look(), "");
}

TEST("open-to-network: a network that is not among the declared ones")
{
    static struct ip_range inner, outer;
    CHECK(ip_range_parse(SLICE("10.1.0.0/16"), &inner) && ip_range_parse(SLICE("10.0.0.0/8"), &outer));
    for (int i = 0; i < 2; i++) {
        begin();
        struct port_entry *e = add(2222, PORT_TCP, "", REACH_NETWORK, "sshd");
        struct port_declaration *d = declare(e, DECLARED_PORTS, "ssh", REACH_NETWORK);
        e->reach_from = i == 0 ? &inner : &outer;
        d->from = i == 0 ? &outer : &inner;
        e->reach_from_count = d->from_count = 1;
        CHECK_TEXT(look(), i == 0 ? "" : "open-to-network=warning");
    }
    begin();
    declare(add(2222, PORT_TCP, "", REACH_NETWORK, "x"), DECLARED_PORTS, "", REACH_DEVICE);
    CHECK_TEXT(look(), "open-to-network=warning");
}

TEST("plaintext-login: passwords in clear text, for everybody")
{
    CHECK_TEXT(alone(23, PORT_TCP, "", REACH_WORLD, "telnetd"), "plaintext-login=warning");
    CHECK_TEXT(alone(110, PORT_TCP, "", REACH_WORLD, "dovecot"), "plaintext-login=warning");
    CHECK_TEXT(alone(161, PORT_UDP, "", REACH_WORLD, "snmpd"), "plaintext-login=warning");
    CHECK_TEXT(alone(161, PORT_TCP, "", REACH_WORLD, ""), "");
    CHECK_TEXT(alone(21, PORT_TCP, "", REACH_NETWORK, "vsftpd"), "");
    CHECK_TEXT(alone(22, PORT_TCP, "", REACH_WORLD, "sshd"), "");
}

TEST("other-program: not whom the number, the site or the service means")
{
    CHECK_TEXT(alone(22, PORT_TCP, "", REACH_NETWORK, "python3"), "other-program=warning");
    CHECK_TEXT(alone(22, PORT_TCP, "", REACH_NETWORK, "sshd"), "");
    CHECK_TEXT(alone(22, PORT_TCP, "", REACH_NETWORK, "systemd"), "");
    CHECK_TEXT(alone(22, PORT_TCP, "", REACH_NETWORK, ""), "");
    CHECK_TEXT(alone(53, PORT_UDP, "127.0.0.53", REACH_DEVICE, "systemd-resolved"), "");
    CHECK_TEXT(alone(7777, PORT_TCP, "", REACH_NETWORK, "python3"), "");
    begin();
    declare(add(22, PORT_TCP, "", REACH_NETWORK, "python3"), DECLARED_PORTS, "honey", REACH_WORLD);
    CHECK_TEXT(look(), "");
    begin();
    declare(add(443, PORT_TCP, "", REACH_WORLD, "nginx"), DECLARED_SITE, "x.org", REACH_UNKNOWN);
    CHECK_TEXT(look(), "other-program=error");
    begin();
    facts.own = SLICE("door");
    declare(add(443, PORT_TCP, "", REACH_WORLD, "door"), DECLARED_SITE, "x.org", REACH_UNKNOWN);
    CHECK_TEXT(look(), "");
    begin();
    declare(add(3000, PORT_TCP, "127.0.0.1", REACH_DEVICE, "node"), DECLARED_SERVICE, "simon", REACH_DEVICE);
    CHECK_TEXT(look(), "other-program=error");
    begin();
    struct port_entry *e = add(3000, PORT_TCP, "127.0.0.1", REACH_DEVICE, "node");
    declare(e, DECLARED_SERVICE, "simon", REACH_DEVICE);
    e->owners->service = SLICE("simon");
    CHECK_TEXT(look(), "");
}

TEST("service-other-port: a service beside its own port")
{
    begin();
    struct port_entry *e = add(3001, PORT_TCP, "127.0.0.1", REACH_DEVICE, "node");
    e->owners->service = SLICE("simon");
    declare(e, DECLARED_UPSTREAM, "localhost:3001", REACH_UNKNOWN);
    CHECK_TEXT(look(), "service-other-port=warning");
    begin();
    add(3001, PORT_UDP, "127.0.0.1", REACH_DEVICE, "node")->owners->service = SLICE("simon");
    CHECK_TEXT(look(), "service-other-port=info");
}

TEST("web-on-foreign-port: a web service on a system port of another protocol")
{
    begin();
    declare(add(22, PORT_TCP, "", REACH_WORLD, "portico"), DECLARED_SITE, "x.org", REACH_UNKNOWN);
    CHECK_TEXT(look(), "web-on-foreign-port=warning");
    CHECK_TEXT(alone(993, PORT_TCP, "", REACH_WORLD, "nginx"),
               "other-program=warning web-on-foreign-port=warning");
    CHECK_TEXT(alone(591, PORT_TCP, "", REACH_WORLD, "nginx"), "");
    CHECK_TEXT(alone(4, PORT_TCP, "", REACH_WORLD, "nginx"), "");
    CHECK_TEXT(alone(3306, PORT_TCP, "127.0.0.1", REACH_DEVICE, "mariadbd"), "");
}

TEST("dynamic-port: where outgoing connections take theirs")
{
    static struct port_interval reserved = {40000, 40010};
    CHECK_TEXT(alone(40000, PORT_TCP, "", REACH_NETWORK, "x"), "dynamic-port=info");
    CHECK_TEXT(alone(40000, PORT_UDP, "", REACH_NETWORK, "x"), "");
    CHECK_TEXT(alone(61000, PORT_TCP, "", REACH_NETWORK, "x"), "");
    begin();
    declare(add(40000, PORT_UDP, "", REACH_NETWORK, "x"), DECLARED_PORTS, "game", REACH_WORLD);
    CHECK_TEXT(look(), "dynamic-port=warning");
    begin();
    facts.reserved = &reserved;
    facts.reserved_count = 1;
    add(40010, PORT_TCP, "", REACH_NETWORK, "x");
    CHECK_TEXT(look(), "");
    begin();
    facts.local = (struct port_interval){0, 0};
    add(40011, PORT_TCP, "", REACH_NETWORK, "x");
    CHECK_TEXT(look(), "");
}

TEST("two-programs: one port of two, by SO_REUSEPORT or by family")
{
    begin();
    struct port_entry *e = add(7000, PORT_UDP, "", REACH_NETWORK, "a");
    e->owners->next = ARENA_NEW(&arena, struct port_owner);
    e->owners->next->program = SLICE("b");
    CHECK_TEXT(look(), "two-programs=warning");
    begin();
    e = add(7000, PORT_UDP, "", REACH_NETWORK, "a");
    e->owners->next = ARENA_NEW(&arena, struct port_owner);
    e->owners->next->program = SLICE("a");
    CHECK_TEXT(look(), "");
    begin();
    add(7000, PORT_TCP, "0.0.0.0", REACH_NETWORK, "a");
    add(7000, PORT_TCP, "::", REACH_NETWORK, "b");
    CHECK_TEXT(look(), "two-programs=warning");
    begin();
    add(7000, PORT_TCP, "0.0.0.0", REACH_NETWORK, "a");
    add(7000, PORT_TCP, "::", REACH_NETWORK, "a");
    CHECK_TEXT(look(), "");
    begin();
    add(7000, PORT_TCP, "127.0.0.1", REACH_NETWORK, "a");
    add(7000, PORT_TCP, "::1", REACH_NETWORK, "b");
    CHECK_TEXT(look(), "");
    begin();
    e = add(7000, PORT_TCP, "0.0.0.0", REACH_NETWORK, "a");
    add(7000, PORT_TCP, "::", REACH_NETWORK, "b")->owners->unit = SLICE("x.service");
    table.entries[0].owners->unit = SLICE("x.service");
    CHECK_TEXT(look(), "");
}

static struct port_entry *missing(unsigned port)
{
    struct port_entry *e = add(port, PORT_TCP, "", REACH_NOBODY, "");
    e->inode = 0;
    e->listening = false;
    return e;
}

TEST("nobody-listens, upstream-missing: what is declared and not there")
{
    begin();
    declare(missing(443), DECLARED_SITE, "x.org", REACH_UNKNOWN);
    CHECK_TEXT(look(), "nobody-listens=warning");
    begin();
    declare(missing(443), DECLARED_PORTS, "", REACH_WORLD);
    CHECK_TEXT(look(), "nobody-listens=info");
    begin();
    declare(missing(3000), DECLARED_UPSTREAM, "localhost:3000", REACH_UNKNOWN);
    CHECK_TEXT(look(), "upstream-missing=error");
    declare(&table.entries[0], DECLARED_SERVICE, "simon", REACH_DEVICE);
    table.entries[0].findings = NULL;
    CHECK_TEXT(look(), "upstream-missing=error nobody-listens=warning");
}

TEST("service-down: no replica of a service answers")
{
    begin();
    struct port_declaration *d = declare(missing(3000), DECLARED_SERVICE, "simon", REACH_DEVICE);
    d->trouble = SLICE("gave up: exited with status 3");
    CHECK_TEXT(look(), "service-down=warning");
    CHECK_TEXT(table.entries[0].findings->text,
               "No replica of the service simon answers: gave up: exited with status 3.");
    d->used = true;
    table.entries[0].findings = NULL;
    CHECK_TEXT(look(), "service-down=error");
    d->used = false;
    d->trouble = SLICE("stopped");
    table.entries[0].findings = NULL;
    CHECK_TEXT(look(), "service-down=info");
    d->trouble = SLICE_NONE;
    d->on_demand = true; /* nobody has asked for it yet */
    table.entries[0].findings = NULL;
    CHECK_TEXT(look(), "");
    begin();
    struct port_entry *e = add(3000, PORT_TCP, "127.0.0.1", REACH_DEVICE, "node");
    d = declare(e, DECLARED_SERVICE, "simon", REACH_DEVICE);
    e->owners->service = SLICE("simon");
    d->trouble = SLICE("unhealthy: /healthz: status 503");
    CHECK_TEXT(look(), "service-down=warning");
}

TEST("no-redirect: the web without encryption")
{
    begin();
    declare(add(80, PORT_TCP, "", REACH_WORLD, "portico"), DECLARED_SITE, "x", REACH_UNKNOWN)->plain = true;
    CHECK_TEXT(look(), "no-redirect=warning");
    begin();
    declare(add(80, PORT_TCP, "", REACH_UNKNOWN, "portico"), DECLARED_SITE, "x", REACH_UNKNOWN)->plain = true;
    CHECK_TEXT(look(), "no-redirect=info");
    begin();
    declare(add(80, PORT_TCP, "", REACH_WORLD, "portico"), DECLARED_SITE, "x", REACH_UNKNOWN);
    CHECK_TEXT(look(), "");
    CHECK_TEXT(alone(80, PORT_TCP, "", REACH_WORLD, "nginx"), "no-redirect=info");
    begin();
    add(80, PORT_TCP, "", REACH_WORLD, "nginx");
    add(443, PORT_TCP, "", REACH_WORLD, "nginx");
    CHECK_TEXT(look(), "");
    CHECK_TEXT(alone(80, PORT_TCP, "127.0.0.1", REACH_DEVICE, "nginx"), "");
}

TEST("undeclared: open, and the configuration does not know it")
{
    begin();
    facts.declares = true;
    add(7000, PORT_TCP, "", REACH_WORLD, "x");
    CHECK_TEXT(look(), "undeclared=info");
    begin();
    facts.declares = true;
    facts.others = REACH_DEVICE;
    add(7000, PORT_UDP, "", REACH_NETWORK, "x");
    CHECK_TEXT(look(), "undeclared=warning");
    begin();
    facts.declares = true;
    add(7000, PORT_TCP, "127.0.0.1", REACH_DEVICE, "x");
    CHECK_TEXT(look(), "");
    CHECK_TEXT(alone(7000, PORT_TCP, "", REACH_WORLD, "x"), "");
    begin();
    facts.declares = true;
    declare(add(7000, PORT_TCP, "", REACH_WORLD, "x"), DECLARED_PORTS, "", REACH_WORLD);
    CHECK_TEXT(look(), "");
    begin();
    facts.declares = true;
    add(7000, PORT_TCP, "", REACH_WORLD, "x")->netns = 2;
    CHECK_TEXT(look(), "");
}

TEST("container-published: forwarded before the firewall is asked")
{
    CHECK_TEXT(alone(7000, PORT_TCP, "", REACH_WORLD, "docker-proxy"), "container-published=warning");
    CHECK_TEXT(alone(7000, PORT_TCP, "127.0.0.1", REACH_DEVICE, "docker-proxy"), "");
    begin();
    struct port_entry *e = add(7000, PORT_TCP, "", REACH_WORLD, "docker-proxy");
    e->owners->container = SLICE("shop");
    CHECK_TEXT(look(), "container-published=warning");
    CHECK(slice_starts(table.entries[0].findings->text,
                       SLICE("Port 7000 is of the container shop, published by docker-proxy: ")));
    CHECK_TEXT(alone(7000, PORT_TCP, "", REACH_WORLD, "dockerd"), ""); /* its own API */
    begin();
    e = add(7000, PORT_TCP, "", REACH_WORLD, "dockerd");
    e->owners->container = SLICE("shop");
    CHECK_TEXT(look(), "container-published=warning");
}

TEST("moved: its only port at the last look is another now")
{
    static const struct port_memory was[] = {
        {6000, PORT_TCP, {"node (root)", 11}}, {5000, PORT_UDP, {"node (root)", 11}},
        {5300, PORT_TCP, {"two (root)", 10}},  {5301, PORT_TCP, {"two (root)", 10}}};
    begin();
    facts.memory = was;
    facts.memory_count = 4;
    add(7000, PORT_TCP, "", REACH_DEVICE, "node");
    add(5302, PORT_TCP, "", REACH_DEVICE, "two");
    CHECK_TEXT(look(), "moved=info");
    CHECK_TEXT(table.entries[0].findings->text,
               "node (root) had port 6000 at the last look, and has port 7000 now.");
    CHECK(table.entries[1].findings == NULL);
    begin();
    facts.memory = was;
    facts.memory_count = 4;
    add(7000, PORT_TCP, "", REACH_DEVICE, "node");
    add(6000, PORT_TCP, "", REACH_DEVICE, "node");
    CHECK_TEXT(look(), "");
}

TEST("every name that is used is in the list, once")
{
    size_t count;
    const struct finding_kind *kinds = finding_kinds(&count);
    CHECK(count >= 14);
    for (size_t i = 0; i < count; i++) {
        CHECK(strlen(kinds[i].help) > 20);
        for (size_t k = 0; k < i; k++)
            CHECK(strcmp(kinds[i].name, kinds[k].name) != 0);
    }
}

TEST("the kernel's lists of ports are read, and what is odd in them is left out")
{
    struct port_interval *list;
    CHECK_INT(port_intervals_parse(SLICE("80,443,8000-8010\n"), &arena, &list), 3);
    CHECK(list[2].first == 8000 && list[2].last == 8010 && list[0].last == 80);
    CHECK_INT(port_intervals_parse(SLICE("\n"), &arena, &list), 0);
    CHECK_INT(port_intervals_parse(SLICE("9-8,x,70000,1"), &arena, &list), 1);
    CHECK(expected_program(22, PORT_TCP, SLICE("sshd")) && !expected_program(22, PORT_TCP, SLICE("s")));
    begin();
    port_facts_read(&facts, &arena);
    CHECK(facts.local.first > 0 && facts.local.first < facts.local.last);
    arena_deinit(&arena);
}
