/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One function for each thing that may be wrong; each looks at one entry of the sorted table, and at
 * its neighbours where two ports are the matter. A finding says what is seen and what to do, with
 * names instead of numbers where there are names. What is not known is never a finding: an owner
 * that could not be seen, a reach that could not be followed.
 */
#include "ports/findings.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/map.h"
#include "ports/declared.h"
#include "ports/expected.h"
#include "ports/iana.h"

struct finder {
    struct port_table *t;
    const struct port_facts *facts;
    struct port_entry *e;
    size_t index;
    struct map holdings;       /* "unit nginx.service: nginx" → struct holding of each protocol */
    struct holding **of_entry; /* by its place; NULL: there was no last look */
};

static const struct finding_kind kinds[] = {
    {"open-to-world", SEVERITY_ERROR, "What is meant for this device, or for a few networks, can be "
                                      "reached by everybody."},
    {"open-to-network", SEVERITY_WARNING, "What is meant for this device, or for other networks, can "
                                          "be reached by a network."},
    {"plaintext-login", SEVERITY_WARNING, "A protocol that sends passwords in clear text can be "
                                          "reached by everybody."},
    {"other-program", SEVERITY_WARNING, "A port is used by another program than its number, or its "
                                        "declaration, is for."},
    {"web-on-foreign-port", SEVERITY_WARNING, "A web service stands on a system port that is another "
                                              "protocol's."},
    {"dynamic-port", SEVERITY_WARNING, "A service stands in the range from which outgoing connections "
                                       "take their ports."},
    {"two-programs", SEVERITY_WARNING, "Two different programs have one port."},
    {"nobody-listens", SEVERITY_WARNING, "A port is declared, but nobody listens there."},
    {"service-down", SEVERITY_ERROR, "No replica of a service answers, and a site hands requests to it."},
    {"upstream-missing", SEVERITY_ERROR, "A site hands requests to a port on which nobody listens."},
    {"no-redirect", SEVERITY_INFO, "A site answers on HTTP's port without sending to HTTPS."},
    {"undeclared", SEVERITY_INFO, "A port is open to others, and nothing in the configuration names "
                                  "it."},
    {"container-published", SEVERITY_WARNING, "A container's published port is forwarded before the "
                                              "rules for this machine's own ports are asked."},
    {"service-other-port", SEVERITY_WARNING, "A service of portico listens on a port that is not its "
                                             "own."},
    {"moved", SEVERITY_INFO, "What had this port at the last look has another one now."},
};

const struct finding_kind *finding_kinds(size_t *count)
{
    *count = sizeof kinds / sizeof *kinds;
    return kinds;
}

__attribute__((format(printf, 5, 6))) static void tell(struct finder *f, const char *name,
                                                       enum severity severity, const char *advice,
                                                       const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (strncmp(text, "the ", 4) == 0) /* a name that stands in the middle elsewhere */
        text[0] = 'T';
    finding_add(f->t, f->e, name, severity, arena_copy(f->t->arena, slice_from(text)),
                slice_from(advice));
}

/* --- what entries are --- */

static bool is_bound(const struct port_entry *e)
{
    return e->inode != 0 || e->listening;
}

static const struct port_owner *seen_owner(const struct port_entry *e)
{
    const struct port_owner *o = e->owners;
    while (o != NULL && o->program.len == 0)
        o = o->next;
    return o;
}

static const struct port_declaration *declared_by(const struct port_entry *e, enum declared_by by)
{
    for (size_t i = 0; i < e->declared_count; i++) {
        if (e->declared[i]->by == by)
            return e->declared[i];
    }
    return NULL;
}

static bool has_service(const struct port_entry *e, struct slice name)
{
    for (const struct port_owner *o = e->owners; o != NULL; o = o->next) {
        if (slice_eq(o->service, name))
            return true;
    }
    return false;
}

static struct slice owner_text(const struct port_entry *e, struct arena *arena)
{
    const struct port_owner *o = seen_owner(e);
    if (o == NULL)
        return SLICE("a program that cannot be seen");
    if (o->service.len > 0)
        return arena_printf(arena, "the service " SLICE_FMT, SLICE_ARG(o->service));
    if (o->container.len > 0)
        return arena_printf(arena, SLICE_FMT " of the container " SLICE_FMT, SLICE_ARG(o->program),
                            SLICE_ARG(o->container));
    return o->program;
}

/* --- who can reach it --- */

static bool covers(const struct port_declaration *d, const struct ip_range *range)
{
    for (size_t i = 0; i < d->from_count; i++) {
        if (memcmp(&d->from[i].first, &range->first, sizeof range->first) <= 0 &&
            memcmp(&d->from[i].last, &range->last, sizeof range->last) >= 0)
            return true;
    }
    return false;
}

static bool beyond(const struct port_declaration *d, const struct port_entry *e)
{
    if (d->reach == REACH_UNKNOWN || d->reach == REACH_WORLD)
        return false;
    if (e->reach == REACH_WORLD)
        return true;
    if (e->reach != REACH_NETWORK)
        return false;
    for (size_t i = 0; i < e->reach_from_count; i++) {
        if (!covers(d, &e->reach_from[i]))
            return true;
    }
    return e->reach_from_count == 0;
}

static void find_too_open(struct finder *f)
{
    struct port_entry *e = f->e;
    for (size_t i = 0; i < e->declared_count; i++) {
        const struct port_declaration *d = e->declared[i];
        if (d->by == DECLARED_UPSTREAM || !beyond(d, e))
            continue;
        struct slice who = owner_text(e, f->t->arena), what = declaration_text(d, f->t->arena);
        bool world = e->reach == REACH_WORLD;
        tell(f, world ? "open-to-world" : "open-to-network", world ? SEVERITY_ERROR : SEVERITY_WARNING,
             "Bind it to 127.0.0.1, or let the firewall shut it (enforce nftables).",
             "%s can reach port %u (" SLICE_FMT "), but " SLICE_FMT " means it for %s.",
             world ? "Everybody" : "A network", e->port, SLICE_ARG(who), SLICE_ARG(what),
             d->reach == REACH_NOBODY    ? "nobody"
             : d->from_count > 0         ? "some networks only"
                                         : "this device only");
        return;
    }
    const char *why = expected_private(e->port, e->protocol);
    if (e->reach != REACH_WORLD || why == NULL || declared_by(e, DECLARED_PORTS) != NULL)
        return;
    struct slice who = owner_text(e, f->t->arena);
    tell(f, "open-to-world", SEVERITY_ERROR,
         "Bind it to 127.0.0.1 or to a network of your own; declare the port if everybody shall reach "
         "it.", "Everybody can reach port %u (" SLICE_FMT "): %s.", e->port, SLICE_ARG(who), why);
}

static void find_plaintext(struct finder *f)
{
    const char *instead = expected_plaintext(f->e->port, f->e->protocol);
    if (instead == NULL || f->e->reach != REACH_WORLD)
        return;
    tell(f, "plaintext-login", SEVERITY_WARNING, instead,
         "Port %u (" SLICE_FMT ") sends passwords in clear text, and everybody can reach it.",
         f->e->port, SLICE_ARG(f->e->iana_name));
}

/* --- whose it is --- */

static void find_other_owner(struct finder *f)
{
    struct port_entry *e = f->e;
    const struct port_owner *o = seen_owner(e);
    const struct port_declaration *d = declared_by(e, DECLARED_SERVICE);
    if (o == NULL)
        return;
    if (d != NULL && !has_service(e, d->name)) {
        struct slice who = owner_text(e, f->t->arena);
        tell(f, "other-program", SEVERITY_ERROR,
             "Stop that program, or give the service another port.",
             "Port %u belongs to the service " SLICE_FMT ", but " SLICE_FMT " (pid %d) has it.",
             e->port, SLICE_ARG(d->name), SLICE_ARG(who), (int)o->pid);
        return;
    }
    d = declared_by(e, DECLARED_SITE);
    if (d != NULL && !program_is_own(f->facts, o->program) && o->service.len == 0) {
        tell(f, "other-program", SEVERITY_ERROR,
             "Stop that program, or let the site listen elsewhere.",
             "Port %u belongs to the site " SLICE_FMT ", but " SLICE_FMT " (pid %d) has it.", e->port,
             SLICE_ARG(d->name), SLICE_ARG(o->program), (int)o->pid);
        return;
    }
    if (e->declared_count > 0 || expected_program(e->port, e->protocol, o->program))
        return;
    tell(f, "other-program", SEVERITY_WARNING,
         "If it is meant to be there, declare the port with its name; else look what it is.",
         "Port %u is for " SLICE_FMT ", but " SLICE_FMT " (pid %d) has it.", e->port,
         SLICE_ARG(e->iana_name), SLICE_ARG(o->program), (int)o->pid);
}

static bool is_web_name(struct slice name)
{
    return name.len == 0 || slice_starts(name, SLICE("http"));
}

static void find_foreign_web(struct finder *f)
{
    struct port_entry *e = f->e;
    const struct port_owner *o = seen_owner(e);
    const struct port_declaration *site = declared_by(e, DECLARED_SITE);
    bool web = site != NULL || (o != NULL && expected_is_web(o->program));
    if (!web || e->class != IANA_SYSTEM || is_web_name(e->iana_name) || e->protocol != PORT_TCP)
        return;
    struct slice who = site != NULL ? declaration_text(site, f->t->arena) : o->program;
    tell(f, "web-on-foreign-port", SEVERITY_WARNING,
         "Browsers refuse many of these ports; take 443, or a port above 1023.",
         SLICE_FMT " serves the web on port %u, which is for " SLICE_FMT ".", SLICE_ARG(who), e->port,
         SLICE_ARG(e->iana_name));
}

static void find_service_elsewhere(struct finder *f)
{
    struct port_entry *e = f->e;
    for (const struct port_owner *o = e->owners; o != NULL; o = o->next) {
        if (o->service.len == 0)
            continue;
        const struct port_declaration *d = declared_by(e, DECLARED_SERVICE);
        if (d != NULL && slice_eq(d->name, o->service))
            continue;
        bool udp = e->protocol != PORT_TCP;
        tell(f, "service-other-port", udp ? SEVERITY_INFO : SEVERITY_WARNING,
             "Let it listen on the port in its variable PORT only.",
             "The service " SLICE_FMT " listens on %s port %u, which is not its own.",
             SLICE_ARG(o->service), port_protocol_name(e->protocol), e->port);
        return;
    }
}

/* --- two at one port --- */

static bool same_owner(const struct port_owner *a, const struct port_owner *b)
{
    if (slice_eq(a->program, b->program))
        return true;
    if (a->unit.len > 0 && slice_eq(a->unit, b->unit))
        return true;
    return a->container.len > 0 && slice_eq(a->container, b->container);
}

static const struct port_owner *other_owner(const struct port_owner *first,
                                            const struct port_entry *e)
{
    for (const struct port_owner *o = e->owners; o != NULL; o = o->next) {
        if (o->program.len > 0 && !slice_is(o->program, "systemd") && !same_owner(first, o))
            return o;
    }
    return NULL;
}

static bool meets(const struct port_entry *a, const struct port_entry *b)
{
    return a->port == b->port && a->protocol == b->protocol && a->netns == b->netns &&
           is_bound(a) && is_bound(b);
}

/* SO_REUSEPORT by two programs, or IPv4 by one and IPv6 by another. */
static void find_two(struct finder *f)
{
    struct port_entry *e = f->e;
    const struct port_owner *first = seen_owner(e), *second = NULL;
    if (first == NULL || slice_is(first->program, "systemd"))
        return;
    second = other_owner(first, e);
    if (second != NULL) {
        tell(f, "two-programs", SEVERITY_WARNING,
             "The kernel gives connections to either: stop one of them.",
             "Port %u is shared by " SLICE_FMT " (pid %d) and " SLICE_FMT " (pid %d).", e->port,
             SLICE_ARG(first->program), (int)first->pid, SLICE_ARG(second->program),
             (int)second->pid);
        return;
    }
    bool any = address_is_any(&e->address);
    for (size_t i = f->index + 1; any && i < f->t->count && f->t->entries[i].port == e->port; i++) {
        const struct port_entry *o = &f->t->entries[i];
        if (!meets(e, o) || !address_is_any(&o->address) || e->family == o->family ||
            seen_owner(o) == NULL || (second = other_owner(first, o)) == NULL)
            continue;
        tell(f, "two-programs", SEVERITY_WARNING,
             "Who connects gets one or the other, by the address that was resolved: stop one of them.",
             "Port %u is " SLICE_FMT "'s over %s and " SLICE_FMT "'s over %s.", e->port,
             SLICE_ARG(first->program), e->family == PORT_IP4 ? "IPv4" : "IPv6",
             SLICE_ARG(second->program), o->family == PORT_IP4 ? "IPv4" : "IPv6");
        return;
    }
}

/* --- the number --- */

static bool is_reserved(const struct port_facts *facts, uint16_t port)
{
    for (size_t i = 0; i < facts->reserved_count; i++) {
        if (facts->reserved[i].first <= port && port <= facts->reserved[i].last)
            return true;
    }
    return false;
}

/* UDP sockets there are mostly clients that wait for an answer. */
static void find_dynamic(struct finder *f)
{
    struct port_entry *e = f->e;
    const struct port_facts *facts = f->facts;
    bool declared = false;
    for (size_t i = 0; i < e->declared_count; i++)
        declared = declared || e->declared[i]->by != DECLARED_UPSTREAM;
    if (facts->local.last == 0 || e->port < facts->local.first || e->port > facts->local.last ||
        is_reserved(facts, e->port) || (e->protocol != PORT_TCP && !declared))
        return;
    tell(f, "dynamic-port", declared ? SEVERITY_WARNING : SEVERITY_INFO,
         "Take a port below that range, or reserve it: sysctl net.ipv4.ip_local_reserved_ports.",
         "Port %u lies in %u to %u, from which outgoing connections take theirs: after a restart it may "
         "be taken.", e->port, facts->local.first, facts->local.last);
}

/* --- what is missing --- */

/* On each of its ports, whether somebody listens there or not. */
static void find_service_down(struct finder *f)
{
    const struct port_declaration *d = declared_by(f->e, DECLARED_SERVICE);
    if (d == NULL || d->trouble.len == 0)
        return;
    bool meant = slice_is(d->trouble, "stopped"); /* by somebody, as a rule */
    tell(f, "service-down", d->used ? SEVERITY_ERROR : meant ? SEVERITY_INFO : SEVERITY_WARNING,
         "See why: portico service logs NAME. Then: portico service start NAME.",
         "No replica of the service " SLICE_FMT " answers: " SLICE_FMT ".", SLICE_ARG(d->name),
         SLICE_ARG(d->trouble));
}

static bool is_expected(const struct port_declaration *d)
{
    return d->by == DECLARED_UPSTREAM || (d->by == DECLARED_SERVICE && (d->on_demand || d->trouble.len > 0));
}

static void find_missing(struct finder *f)
{
    struct port_entry *e = f->e;
    const struct port_declaration *upstream = declared_by(e, DECLARED_UPSTREAM), *d = NULL;
    for (size_t i = 0; i < e->declared_count && d == NULL; i++)
        d = !is_expected(e->declared[i]) ? e->declared[i] : NULL;
    if (upstream != NULL) {
        struct slice what = declaration_text(upstream, f->t->arena);
        tell(f, "upstream-missing", SEVERITY_ERROR, "Start the program that shall answer there.",
             "Nobody listens on port %u, where requests are handed to by " SLICE_FMT ".", e->port,
             SLICE_ARG(what));
    }
    if (d == NULL)
        return;
    struct slice what = declaration_text(d, f->t->arena);
    bool policy = d->by == DECLARED_PORTS;
    tell(f, "nobody-listens", policy ? SEVERITY_INFO : SEVERITY_WARNING,
         policy ? "Start what shall listen there, or take the declaration away."
                : "Start portico with this configuration (portico run, portico reload).",
         "Nobody listens on port %u, though " SLICE_FMT " names it.", e->port, SLICE_ARG(what));
}

/* --- the web's front door --- */

static bool somebody_on(const struct finder *f, uint16_t port)
{
    for (size_t i = 0; i < f->t->count; i++) {
        const struct port_entry *e = &f->t->entries[i];
        if (e->port == port && e->protocol == PORT_TCP && e->netns == f->e->netns && is_bound(e))
            return true;
    }
    return false;
}

static void find_no_redirect(struct finder *f)
{
    struct port_entry *e = f->e;
    const struct port_declaration *site = declared_by(e, DECLARED_SITE);
    bool open = e->reach == REACH_WORLD || e->reach == REACH_NETWORK;
    if (site != NULL && site->plain && site->reach != REACH_DEVICE && e->reach != REACH_DEVICE) {
        struct slice what = declaration_text(site, f->t->arena);
        tell(f, "no-redirect", open ? SEVERITY_WARNING : SEVERITY_INFO,
             "Name the site without http:// and :80: it gets a certificate and a redirect by itself.",
             SLICE_FMT " answers on port %u without encryption, and does not send to HTTPS.",
             SLICE_ARG(what), e->port);
    } else if (site == NULL && e->port == 80 && e->protocol == PORT_TCP && open &&
               e->declared_count == 0 && !somebody_on(f, 443)) {
        struct slice who = owner_text(e, f->t->arena);
        tell(f, "no-redirect", SEVERITY_INFO, "Put portico before it: it encrypts and redirects.",
             SLICE_FMT " serves the web on port 80, and nobody serves HTTPS on 443.", SLICE_ARG(who));
    }
}

static void find_undeclared(struct finder *f)
{
    struct port_entry *e = f->e;
    enum port_reach others = f->facts->others;
    bool open = e->reach == REACH_WORLD || e->reach == REACH_NETWORK;
    bool declared = false;
    for (size_t i = 0; i < e->declared_count; i++)
        declared = declared || e->declared[i]->by != DECLARED_UPSTREAM;
    if (!f->facts->declares || declared || !open)
        return;
    struct slice who = owner_text(e, f->t->arena);
    bool against = others == REACH_DEVICE || others == REACH_NOBODY;
    tell(f, "undeclared", against ? SEVERITY_WARNING : SEVERITY_INFO,
         "Declare it in the ports block, or bind it to 127.0.0.1.",
         "%s can reach %s port %u (" SLICE_FMT "), and nothing declares it%s.",
         e->reach == REACH_WORLD ? "Everybody" : "A network", port_protocol_name(e->protocol), e->port,
         SLICE_ARG(who), against ? ", though other ports are not for others" : "");
}

static void find_published(struct finder *f)
{
    const struct port_owner *o = seen_owner(f->e);
    if (o == NULL || f->e->reach == REACH_DEVICE ||
        !(expected_is_publisher(o->program) ||
          (expected_may_publish(o->program) && o->container.len > 0)))
        return;
    struct slice whose = o->container.len == 0
                             ? SLICE("a container's")
                             : arena_printf(f->t->arena, "of the container " SLICE_FMT,
                                            SLICE_ARG(o->container));
    tell(f, "container-published", SEVERITY_WARNING,
         "Publish it on 127.0.0.1 (-p 127.0.0.1:PORT:PORT), and let portico be the way in.",
         "Port %u is " SLICE_FMT ", published by " SLICE_FMT ": its packets are forwarded before rules "
         "for this machine's own ports (chain input, ufw) are asked.", f->e->port, SLICE_ARG(whose),
         SLICE_ARG(o->program));
}

/* --- the last look --- */

/* What an owner had for a protocol, and has. */
struct holding {
    uint16_t was, is;
    bool was_more, is_more;
};

static struct holding *holding_of(struct finder *f, struct slice owner, enum port_protocol p)
{
    struct holding *h = map_get(&f->holdings, owner);
    if (h == NULL) {
        h = ARENA_ARRAY(f->t->arena, struct holding, PORT_PROTOCOLS);
        map_put(&f->holdings, owner, h);
    }
    return &h[p];
}

/* Counts ports of the machine's own namespace, by owner; `of_entry` remembers the way back. */
static void count_holdings(struct finder *f)
{
    struct port_table *t = f->t;
    f->of_entry = ARENA_ARRAY(t->arena, struct holding *, t->count + 1);
    for (size_t i = 0; i < f->facts->memory_count; i++) {
        const struct port_memory *m = &f->facts->memory[i];
        struct holding *h = holding_of(f, m->owner, m->protocol);
        h->was_more = h->was_more || (h->was != 0 && h->was != m->port);
        h->was = m->port;
    }
    for (size_t i = 0; i < t->count; i++) {
        const struct port_entry *e = &t->entries[i];
        struct slice owner = memory_owner(e, t->arena);
        if (!is_bound(e) || e->netns != t->netns || owner.len == 0)
            continue;
        struct holding *h = f->of_entry[i] = holding_of(f, owner, e->protocol);
        h->is_more = h->is_more || (h->is != 0 && h->is != e->port);
        h->is = e->port;
    }
}

/* Its only port then is no more, and this is its only one. */
static void find_moved(struct finder *f)
{
    const struct holding *h = f->of_entry != NULL ? f->of_entry[f->index] : NULL;
    if (h == NULL || h->was == 0 || h->was == h->is || h->was_more || h->is_more)
        return;
    struct slice owner = memory_owner(f->e, f->t->arena);
    tell(f, "moved", SEVERITY_INFO, "Fix its port, where others rely on the number.",
         SLICE_FMT " had port %u at the last look, and has port %u now.", SLICE_ARG(owner), h->was,
         f->e->port);
}

/* --- all --- */

static const struct {
    void (*find)(struct finder *);
    bool foreign; /* also for other namespaces' ports */
} table[] = {
    {find_too_open, true},    {find_plaintext, true},         {find_other_owner, false},
    {find_foreign_web, false}, {find_service_elsewhere, false}, {find_two, true},
    {find_dynamic, false},    {find_no_redirect, false},      {find_undeclared, false},
    {find_published, false},  {find_moved, false},            {find_service_down, false},
};

void table_find(struct port_table *t, const struct port_facts *facts)
{
    struct finder f = {.t = t, .facts = facts};
    map_init(&f.holdings, false);
    if (facts->memory_count > 0)
        count_holdings(&f);
    for (f.index = 0; f.index < t->count; f.index++) {
        f.e = &t->entries[f.index];
        if (!is_bound(f.e)) {
            find_missing(&f);
            find_service_down(&f);
            continue;
        }
        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
            if (table[i].foreign || f.e->netns == t->netns)
                table[i].find(&f);
        }
    }
    map_deinit(&f.holdings);
}
