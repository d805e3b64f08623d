/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico ports free: numbers that a new service may have. Nobody listens there, nothing declares
 * them, outgoing connections do not take them, and, as long as there are any, IANA gave them to
 * nobody.
 */
#include <stdio.h>

#include "app/cmd_ports.h"
#include "app/ports_view.h"
#include "ports/iana.h"

static const struct flag flags[] = {
    PORTS_FLAGS,
    {"near", 'n', true, "PORT", "as near to this number as can be", "3000"},
    {"count", 0, true, "N", "how many", "1"},
    {"protocol", 'p', true, "tcp|udp", "which protocol's", "tcp"},
    {0},
};

static bool is_declared(const struct port_table *t, uint16_t port, enum port_protocol protocol)
{
    for (size_t i = 0; i < t->declarations_count; i++) {
        const struct port_declaration *d = &t->declarations[i];
        if (d->first <= port && port <= d->last && (d->any_protocol || d->protocol == protocol))
            return true;
    }
    return false;
}

/* What takes a port out of the choice altogether. */
static void mark_taken(const struct port_table *t, enum port_protocol protocol, bool *taken)
{
    for (size_t i = 0; i < t->count; i++) {
        const struct port_entry *e = &t->entries[i];
        if (e->protocol == protocol && e->netns == t->netns)
            taken[e->port] = true;
    }
    taken[0] = true;
}

struct search {
    const struct port_table *table;
    const struct port_facts *facts;
    enum port_protocol protocol;
    bool taken[65536];
    bool assigned_too, system_too;
};

static bool is_free(const struct search *s, unsigned port)
{
    struct iana_entry known;
    if (port > 65535 || s->taken[port] || (port < 1024 && !s->system_too))
        return false;
    if (port >= s->facts->local.first && port <= s->facts->local.last)
        return false;
    if (!s->assigned_too && iana_find((uint16_t)port, s->protocol, &known))
        return false;
    return !is_declared(s->table, (uint16_t)port, s->protocol);
}

/* Prints the nearest ones, those above before those below; how many. */
static int64_t print_near(struct search *s, unsigned near, int64_t count)
{
    int64_t found = 0;
    for (unsigned away = 0; away < 65536 && found < count; away++) {
        unsigned sides[2] = {near + away, near >= away ? near - away : 0};
        for (int i = 0; i < (away > 0 ? 2 : 1) && found < count; i++) {
            if (!is_free(s, sides[i]))
                continue;
            printf("%u\n", sides[i]);
            s->taken[sides[i]] = true;
            found++;
        }
    }
    return found;
}

static int search(const struct command_line *l, const struct ports_view *v, int64_t near,
                  int64_t count, enum port_protocol protocol)
{
    static struct search s;
    static struct arena arena;
    struct port_facts facts = {0};
    arena_init(&arena, 4096);
    port_facts_read(&facts, &arena);
    s = (struct search){.table = &v->table, .facts = &facts, .protocol = protocol,
                        .system_too = near < 1024};
    mark_taken(&v->table, protocol, s.taken);
    int64_t found = print_near(&s, (unsigned)near, count);
    s.assigned_too = true;
    found += print_near(&s, (unsigned)near, count - found);
    arena_deinit(&arena);
    return found == count ? EXIT_OK : cli_fail("only %lld ports are free", (long long)found);
}

static int run(const struct command_line *l)
{
    struct ports_view v;
    int64_t near, count;
    enum port_protocol protocol;
    if (!flag_number(l, "near", 1, 65535, &near) || !flag_number(l, "count", 1, 65535, &count))
        return EXIT_STARTUP;
    if (!port_protocol_parse(slice_from(flag_value(l, "protocol")), &protocol))
        return cli_fail("--protocol %s: tcp or udp is wanted", flag_value(l, "protocol"));
    int status = ports_view_open(l, &v);
    if (status == EXIT_OK)
        status = search(l, &v, near, count, protocol);
    ports_view_close(&v);
    return status;
}

const struct command command_ports_free = {
    .name = "ports free",
    .usage = "[--near <port>] [--count <n>] [--protocol tcp|udp]",
    .help = "Names ports that are free for a new service",
    .about = "Prints numbers of ports that nobody uses or declares, that IANA gave to nobody (as long\n"
             "as there are any), and that outgoing connections will not take, one to a line, the\n"
             "nearest first.\n\n"
             "  $ %s ports free --near 3000 --count 5",
    .flags = flags,
    .run = run,
};
