/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico ports iana: what a number is for, or which number a service has, from the registry inside
 * the program.
 */
#include <stdio.h>

#include "app/cmd_ports.h"
#include "ports/iana.h"

/* "tcp udp" */
static void protocols_text(unsigned bits, char *out, size_t cap)
{
    size_t used = 0;
    out[0] = '\0';
    for (unsigned p = 0; p < PORT_PROTOCOLS && used < cap; p++) {
        if ((bits & 1U << p) != 0)
            used += (size_t)snprintf(out + used, cap - used, "%s%s", used > 0 ? " " : "",
                                     port_protocol_name((enum port_protocol)p));
    }
}

static const char *explanation(const struct iana_entry *e)
{
    for (unsigned p = 0; p < PORT_PROTOCOLS; p++) {
        const char *text = (e->protocols & 1U << p) != 0
                               ? iana_explained(e->first, (enum port_protocol)p)
                               : NULL;
        if (text != NULL)
            return text;
    }
    return NULL;
}

static void print_entry(const struct iana_entry *e, bool explain)
{
    char numbers[16], protocols[48];
    snprintf(numbers, sizeof numbers, e->first == e->last ? "%u" : "%u-%u", e->first, e->last);
    protocols_text(e->protocols, protocols, sizeof protocols);
    printf("%-11s  %-14s  %-8s %-18.*s  " SLICE_FMT "\n", numbers, protocols,
           iana_class_name(iana_class_of(e->first)), SLICE_ARG(e->name),
           SLICE_ARG(e->description));
    const char *text = explain ? explanation(e) : NULL;
    if (text != NULL)
        printf("             %s\n", text);
}

/* A number that nobody has still has a class, and may be known all the same. */
static void print_unassigned(const struct iana_query *q)
{
    printf("%u is assigned to nobody. It is a %s port: ", q->first,
           iana_class_name(iana_class_of(q->first)));
    switch (iana_class_of(q->first)) {
    case IANA_SYSTEM:
        puts("0 to 1023, for well-known services; only root (or CAP_NET_BIND_SERVICE) may listen.");
        break;
    case IANA_USER:
        puts("1024 to 49151, for services that registered; any program may listen.");
        break;
    case IANA_DYNAMIC:
        puts("49152 to 65535, for nobody in particular: never assigned, taken and given back.");
        break;
    }
    for (unsigned p = 0; p < PORT_PROTOCOLS; p++) {
        const char *text = (q->protocols & 1U << p) != 0
                               ? iana_explained(q->first, (enum port_protocol)p)
                               : NULL;
        if (text != NULL) {
            puts(text);
            return;
        }
    }
}

/* Nothing has exactly that name: what has it inside. */
static unsigned look_inside(const struct iana_query *q)
{
    struct iana_entry e;
    char pattern[128];
    unsigned at = 0, found = 0;
    struct iana_query inside = *q;
    snprintf(pattern, sizeof pattern, "*" SLICE_FMT "*", SLICE_ARG(slice_take(q->name, 100)));
    inside.name = slice_from(pattern);
    while (iana_next(&inside, &at, &e)) {
        if (found++ == 0)
            fprintf(stderr, "No service is called " SLICE_FMT "; these have it in their names:\n",
                    SLICE_ARG(q->name));
        print_entry(&e, false);
    }
    return found;
}

static int run(const struct command_line *l)
{
    struct iana_query q;
    struct iana_entry e;
    unsigned at = 0, found = 0;
    if (l->args_count == 0)
        return cli_fail("a name or a number is wanted, such as ssh, 161/udp or 'http*'");
    if (!iana_query_parse(slice_from(l->args[0]), &q))
        return cli_fail("%s: neither a service's name nor a port (0 to 65535, perhaps with /tcp or "
                        "/udp, or a range)", l->args[0]);
    unsigned wanted = 0, ahead = 0;
    while (wanted < 4 && iana_next(&q, &ahead, &e))
        wanted++;
    while (iana_next(&q, &at, &e)) {
        print_entry(&e, wanted < 4);
        found++;
    }
    if (found == 0 && q.numbers && q.first == q.last) {
        print_unassigned(&q);
    } else if (found == 0 && (q.numbers || look_inside(&q) == 0)) {
        cli_fail("nothing in the registry fits %s", l->args[0]);
        return EXIT_STARTUP;
    }
    printf("(IANA's registry as of %s)\n", iana_date());
    return EXIT_OK;
}

const struct command command_ports_iana = {
    .name = "ports iana",
    .usage = "<name>|<port>[/<protocol>]",
    .help = "Tells what a port is for, or which port a service has",
    .about = "Asks IANA's registry of service names and port numbers, which is inside the program.\n\n"
             "  $ %s ports iana ssh\n"
             "  $ %s ports iana 161/udp\n"
             "  $ %s ports iana 6000-6100\n"
             "  $ %s ports iana 'http*'",
    .max_args = 1,
    .run = run,
};
