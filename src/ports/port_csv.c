/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table for spreadsheets (RFC 4180): a line for each entry, several owners or findings of one
 * with "; " between them. A text that a spreadsheet would compute gets a ' before it.
 */
#include "ports/iana.h"
#include "ports/ledger.h"
#include "ports/ranges.h"

static void put_cell(struct buffer *b, struct slice s, bool last)
{
    bool formula = s.len > 0 && strchr("=+-@\t", s.ptr[0]) != NULL;
    (void)BUFFER_PUT(b, "\"");
    if (formula)
        (void)BUFFER_PUT(b, "'");
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '"')
            (void)BUFFER_PUT(b, "\"");
        (void)buffer_append_byte(b, s.ptr[i]);
    }
    (void)buffer_append(b, last ? SLICE("\"\r\n") : SLICE("\","));
}

static struct slice joined(struct arena *arena, struct slice all, struct slice more)
{
    if (more.len == 0)
        return all;
    return arena_printf(arena, SLICE_FMT "%s" SLICE_FMT, SLICE_ARG(all), all.len > 0 ? "; " : "",
                        SLICE_ARG(more));
}

static void put_owners(struct buffer *b, const struct port_entry *e, struct arena *arena)
{
    struct slice cells[6] = {SLICE_NONE};
    for (const struct port_owner *o = e->owners; o != NULL; o = o->next) {
        struct slice pid = o->pid > 0 ? arena_printf(arena, "%d", (int)o->pid) : SLICE_NONE;
        struct slice parts[6] = {pid, o->program, o->user, o->unit, o->container, o->service};
        for (int i = 0; i < 6; i++)
            cells[i] = joined(arena, cells[i], clean_text(parts[i], arena));
    }
    for (int i = 0; i < 6; i++)
        put_cell(b, cells[i], false);
}

static void put_declared(struct buffer *b, const struct port_entry *e, struct arena *arena)
{
    static const char *const by[] = {"site", "service", "ports", "upstream", "site"};
    struct slice kinds = SLICE_NONE, names = SLICE_NONE, places = SLICE_NONE;
    for (size_t i = 0; i < e->declared_count; i++) {
        const struct port_declaration *d = e->declared[i];
        kinds = joined(arena, kinds, slice_from(by[d->by]));
        names = joined(arena, names, clean_text(d->name, arena));
        if (d->file.len > 0)
            places = joined(arena, places,
                            arena_printf(arena, SLICE_FMT ":%u",
                                         SLICE_ARG(clean_text(d->file, arena)), d->line));
    }
    put_cell(b, kinds, false);
    put_cell(b, names, false);
    put_cell(b, places, false);
}

static void put_row(struct buffer *b, const struct port_entry *e, bool counted, struct arena *arena)
{
    char address[IP_TEXT_MAX];
    struct slice findings = SLICE_NONE;
    size_t len = ip_text(&e->address, address);
    (void)buffer_append_f(b, "%u,", e->port);
    put_cell(b, slice_from(port_protocol_name(e->protocol)), false);
    put_cell(b, slice_from(port_family_name(e->family)), false);
    put_cell(b, slice_of(address, len), false);
    put_cell(b, clean_text(e->namespace, arena), false);
    put_cell(b, slice_from(port_reach_name(e->reach)), false);
    put_cell(b, ranges_text(ranges_of(arena, e->reach_from, e->reach_from_count), 100, arena), false);
    put_owners(b, e, arena);
    put_cell(b, e->iana_name, false);
    put_cell(b, slice_from(iana_class_name(e->class)), false);
    put_declared(b, e, arena);
    for (const struct port_finding *f = e->findings; f != NULL; f = f->next)
        findings = joined(arena, findings, slice_from(f->name));
    put_cell(b, findings, !counted);
    if (counted && e->is_counted)
        (void)buffer_append_f(b, "%llu", (unsigned long long)e->tried);
    if (counted)
        (void)BUFFER_PUT(b, "\r\n");
}

void port_csv_write(const struct port_table *t, struct buffer *b)
{
    bool counted = t->counts_count > 0;
    (void)BUFFER_PUT(b, "port,protocol,family,address,namespace,reach,reach_from,pid,program,user,unit,"
                        "container,service,iana_name,iana_class,declared_by,declared_name,declared_at,"
                        "findings");
    (void)buffer_append(b, counted ? SLICE(",tried\r\n") : SLICE("\r\n"));
    for (size_t i = 0; i < t->count; i++)
        put_row(b, &t->entries[i], counted, t->arena);
}
