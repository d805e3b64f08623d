/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico ports explain: one port in sentences, for those who learn and those who search: what it is
 * for, who listens, where that was declared, who can reach it and why, what is wrong with it.
 */
#include <stdio.h>

#include "app/cmd_ports.h"
#include "app/ports_filter.h"
#include "app/ports_view.h"
#include "ports/declared.h"
#include "ports/iana.h"
#include "ports/reach.h"

static const struct flag flags[] = {PORTS_FLAGS, {0}};

struct talk {
    struct ports_view *v;
    struct buffer out;
    uint16_t port;
    enum port_protocol protocol;
    bool any_protocol, colour;
};

static void put_title(struct talk *t, struct slice text)
{
    (void)buffer_append_f(&t->out, "%s" SLICE_FMT "%s\n", t->colour ? "\033[1m" : "", SLICE_ARG(text),
                          t->colour ? "\033[0m" : "");
}

static void put(struct talk *t, struct slice text)
{
    struct slice line, rest = text;
    bool more = text.len > 0;
    while (more) {
        more = slice_cut(rest, '\n', &line, &rest);
        if (line.len > 0)
            (void)buffer_append_f(&t->out, "  " SLICE_FMT "\n",
                                  SLICE_ARG(clean_text(line, &t->v->arena)));
    }
}

/* What the number is for, by each protocol that has an entry of its own. */
static void put_iana(struct talk *t)
{
    static const enum port_protocol protocols[] = {PORT_TCP, PORT_UDP, PORT_SCTP, PORT_DCCP};
    struct arena *arena = &t->v->arena;
    struct slice last = SLICE_NONE;
    put_title(t, arena_printf(arena, "Port %u", t->port));
    put(t, arena_printf(arena, "A %s port (%s).", iana_class_name(iana_class_of(t->port)),
                        t->port < 1024    ? "0 to 1023: only root may listen there"
                        : t->port < 49152 ? "1024 to 49151: any program may listen there"
                                          : "49152 to 65535: for nobody in particular"));
    for (int i = 0; i < 4; i++) {
        struct iana_entry e;
        if ((!t->any_protocol && protocols[i] != t->protocol) || !iana_find(t->port, protocols[i], &e))
            continue;
        if (!slice_eq(last, e.name))
            put(t, arena_printf(arena, "IANA gave it to " SLICE_FMT "%s" SLICE_FMT ".", SLICE_ARG(e.name),
                                e.description.len > 0 ? ": " : "", SLICE_ARG(e.description)));
        last = e.name;
    }
    if (last.len == 0)
        put(t, SLICE("IANA gave it to nobody."));
    for (int i = 0; i < 2; i++) {
        const char *text = iana_explained(t->port, protocols[i]);
        if (text != NULL && (t->any_protocol || t->protocol == protocols[i]))
            put(t, slice_from(text));
    }
}

static struct slice owner_sentence(const struct port_owner *o, struct arena *arena)
{
    struct slice s = o->pid > 0 ? arena_printf(arena, SLICE_FMT " (pid %d, user " SLICE_FMT,
                                               SLICE_ARG(o->program), (int)o->pid, SLICE_ARG(o->user))
                                : arena_printf(arena, "a program that cannot be seen (user " SLICE_FMT,
                                               SLICE_ARG(o->user));
    if (o->unit.len > 0)
        s = arena_printf(arena, SLICE_FMT ", unit " SLICE_FMT, SLICE_ARG(s), SLICE_ARG(o->unit));
    if (o->container.len > 0)
        s = arena_printf(arena, SLICE_FMT ", container " SLICE_FMT, SLICE_ARG(s),
                         SLICE_ARG(o->container));
    if (o->service.len > 0)
        s = arena_printf(arena, SLICE_FMT ", service " SLICE_FMT, SLICE_ARG(s), SLICE_ARG(o->service));
    return arena_printf(arena, SLICE_FMT ")", SLICE_ARG(s));
}

static void put_owners(struct talk *t, const struct port_entry *e)
{
    struct arena *arena = &t->v->arena;
    const char *verb = e->protocol == PORT_UDP || e->protocol == PORT_UDPLITE ? "waits for packets"
                                                                             : "listens";
    if (e->inode == 0 && !e->listening) {
        put(t, SLICE("Nobody listens there."));
        return;
    }
    if (e->owners == NULL)
        put(t, arena_printf(arena, "A program that cannot be seen %s there (run this as root).", verb));
    for (const struct port_owner *o = e->owners; o != NULL; o = o->next)
        put(t, arena_printf(arena, SLICE_FMT " %s there.", SLICE_ARG(owner_sentence(o, arena)), verb));
}

static void put_declared(struct talk *t, const struct port_entry *e)
{
    for (size_t i = 0; i < e->declared_count; i++) {
        const struct port_declaration *d = e->declared[i];
        struct slice what = declaration_text(d, &t->v->arena);
        put(t, arena_printf(&t->v->arena, "%s " SLICE_FMT ".",
                            d->by == DECLARED_UPSTREAM ? "Requests are handed to it by" : "Declared by",
                            SLICE_ARG(what)));
    }
}

static void put_knocks(struct talk *t, const struct port_entry *e)
{
    if (e->is_counted)
        put(t, arena_printf(&t->v->arena, "New connections that were tried since its rules are in force "
                            "(counted for neighbours of one rule together): %llu.",
                            (unsigned long long)e->tried));
}

static void put_entry(struct talk *t, const struct port_entry *e)
{
    struct arena *arena = &t->v->arena;
    struct slice where = entry_address(e, arena);
    (void)BUFFER_PUT(&t->out, "\n");
    put_title(t, e->namespace.len > 0
                     ? arena_printf(arena, "%s " SLICE_FMT ":%u, in " SLICE_FMT,
                                    port_protocol_name(e->protocol), SLICE_ARG(where), e->port,
                                    SLICE_ARG(clean_text(e->namespace, arena)))
                     : arena_printf(arena, "%s " SLICE_FMT ":%u", port_protocol_name(e->protocol),
                                    SLICE_ARG(where), e->port));
    put_owners(t, e);
    put_declared(t, e);
    if (e->inode != 0 || e->listening)
        put(t, table_explain(&t->v->table, e));
    put_knocks(t, e);
    for (const struct port_finding *f = e->findings; f != NULL; f = f->next) {
        put(t, arena_printf(arena, "%s: " SLICE_FMT, severity_name(f->severity), SLICE_ARG(f->text)));
        put(t, f->advice);
    }
}

static int explain(struct talk *t)
{
    size_t found = 0;
    buffer_init(&t->out, SIZE_MAX);
    put_iana(t);
    for (size_t i = 0; i < t->v->table.count; i++) {
        const struct port_entry *e = &t->v->table.entries[i];
        if (e->port != t->port || (!t->any_protocol && e->protocol != t->protocol))
            continue;
        put_entry(t, e);
        found++;
    }
    if (found == 0) {
        (void)BUFFER_PUT(&t->out, "\n");
        put_title(t, SLICE("Nobody listens there, and nothing declares it."));
    }
    return output_put(&t->out, EXIT_OK);
}

static int run(const struct command_line *l)
{
    struct ports_view v;
    struct talk t = {.v = &v, .colour = output_colours()};
    uint16_t last;
    if (l->args_count == 0)
        return cli_fail("a port is wanted, such as 3000 or 53/udp");
    if (!port_word_parse(slice_from(l->args[0]), &t.port, &last, &t.protocol, &t.any_protocol) ||
        last != t.port)
        return cli_fail("%s: not a port (0 to 65535, perhaps with /tcp or /udp)", l->args[0]);
    int status = ports_view_open(l, &v);
    if (status == EXIT_OK)
        status = explain(&t);
    if (status == EXIT_OK)
        ports_view_tell_unseen(&v);
    ports_view_close(&v);
    return status;
}

const struct command command_ports_explain = {
    .name = "ports explain",
    .usage = "<port>[/<protocol>] [--config <path> [--adapter <name>]]",
    .help = "Tells in sentences what a port is, whose, and who can reach it and why",
    .about = "Explains one port: what its number is for, who listens there, where the configuration\n"
             "names it, who can reach it, rule by rule, and what is wrong with that.\n\n"
             "  $ %s ports explain 3000\n"
             "  $ %s ports explain 53/udp",
    .flags = flags,
    .max_args = 1,
    .run = run,
};
