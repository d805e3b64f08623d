/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table for a person. Every cell is made first, so that columns are as wide as they need; where
 * the terminal is narrower, long columns give up width, then whole columns go, the least wanted
 * first. What comes from outside (names of programs, of files) is cleaned of what a terminal obeys.
 */
#include <stdio.h>

#include "base/text.h"
#include "ports/declared.h"
#include "ports/ledger.h"
#include "ports/ranges.h"

enum column { PORT, PROTOCOL, ADDRESS, REACH, TRIED, OWNER, FOR, DECLARED, FINDINGS, COLUMNS };

static const struct {
    const char *title;
    unsigned least; /* narrower it is not worth having */
    unsigned most;  /* wider only where there is no terminal */
    unsigned rank;  /* the highest goes first; 0: never */
} columns_of[COLUMNS] = {
    [PORT] = {"PORT", 5, 5, 0},          [PROTOCOL] = {"PROTO", 5, 7, 0},
    [ADDRESS] = {"ADDRESS", 9, 28, 3},   [REACH] = {"REACH", 7, 28, 0},
    [TRIED] = {"TRIED", 5, 10, 6},       [OWNER] = {"OWNER", 8, 40, 1},
         [FOR] = {"IANA", 6, 16, 5},
    [DECLARED] = {"DECLARED", 10, 44, 4}, [FINDINGS] = {"FINDINGS", 10, 40, 2},
};

/* Of the escape sequences: none, dim, bold, red, green, yellow, cyan. */
enum shade { PLAIN, DIM, BOLD, RED, GREEN, YELLOW, CYAN };
static const char *const shades[] = {"", "\033[2m", "\033[1m", "\033[31m", "\033[32m", "\033[33m",
                                     "\033[36m"};

struct cell {
    struct slice text;
    unsigned width;
    enum shade shade;
};

struct sheet {
    const struct port_table *t;
    struct arena *arena;
    struct buffer *out;
    struct cell *cells; /* COLUMNS to a row */
    unsigned widths[COLUMNS];
    bool gone[COLUMNS];
    bool colour;
};

/* --- texts --- */

static bool is_obeyed(uint32_t rune)
{
    return rune < 0x20 || (rune >= 0x7f && rune < 0xa0) || (rune >= 0x200b && rune <= 0x200f) ||
           (rune >= 0x2028 && rune <= 0x202e) || (rune >= 0x2066 && rune <= 0x2069) || rune == 0xfeff;
}

struct slice clean_text(struct slice s, struct arena *arena)
{
    char *out = arena_alloc(arena, s.len + 1);
    size_t used = 0;
    while (s.len > 0) {
        uint32_t rune;
        size_t n = utf8_decode(s, &rune);
        if (n == 0 || is_obeyed(rune)) {
            out[used++] = '?';
            n = n > 0 ? n : 1;
        } else {
            memcpy(out + used, s.ptr, n);
            used += n;
        }
        s = slice_skip(s, n);
    }
    return slice_of(out, used);
}

static unsigned width_of(struct slice s)
{
    unsigned width = 0;
    for (size_t i = 0; i < s.len; i++)
        width += ((unsigned char)s.ptr[i] & 0xc0) != 0x80;
    return width;
}

struct slice entry_address(const struct port_entry *e, struct arena *arena)
{
    char text[IP_TEXT_MAX];
    if (address_is_any(&e->address))
        return e->family == PORT_IP4 ? SLICE("0.0.0.0") : e->family == PORT_IP6 ? SLICE("[::]")
                                                                               : SLICE("*");
    size_t len = ip_text(&e->address, text);
    return arena_printf(arena, "%s%.*s%s", e->address.is_six ? "[" : "", (int)len, text,
                        e->address.is_six ? "]" : "");
}

static struct slice reach_text(const struct port_entry *e, struct arena *arena)
{
    if (e->reach == REACH_NETWORK)
        return ranges_text(ranges_of(arena, e->reach_from, e->reach_from_count), 2, arena);
    if (e->reach == REACH_NAMESPACE && e->namespace.len > 0)
        return clean_text(e->namespace, arena);
    return slice_from(port_reach_name(e->reach));
}

static enum shade reach_shade(const struct port_entry *e)
{
    static const enum shade of[] = {[REACH_UNKNOWN] = YELLOW, [REACH_NOBODY] = DIM,
                                    [REACH_NAMESPACE] = DIM, [REACH_DEVICE] = GREEN,
                                    [REACH_NETWORK] = CYAN, [REACH_WORLD] = RED};
    return of[e->reach];
}

/* "nginx 812 (nginx.service)": the first of them, and how many more programs there are. */
static struct slice owner_text(const struct port_entry *e, struct arena *arena)
{
    const struct port_owner *o = e->owners;
    unsigned more = 0;
    if (e->inode == 0 && !e->listening)
        return SLICE("-");
    if (o == NULL)
        return SLICE("?");
    for (const struct port_owner *p = o->next; p != NULL; p = p->next)
        more += !slice_eq(p->program, o->program);
    bool unit = o->service.len == 0 && o->container.len == 0;
    struct slice where = o->service.len > 0 ? o->service : unit ? o->unit : o->container;
    struct slice text = o->pid > 0
                            ? arena_printf(arena, SLICE_FMT " %d", SLICE_ARG(o->program), (int)o->pid)
                            : o->user;
    const char *kind = o->service.len > 0 ? "service " : unit ? "" : "container ";
    if (where.len > 0)
        text = arena_printf(arena, SLICE_FMT " (%s" SLICE_FMT ")", SLICE_ARG(text), kind,
                            SLICE_ARG(where));
    else if (o->pid > 0 && o->uid != 0)
        text = arena_printf(arena, SLICE_FMT " (" SLICE_FMT ")", SLICE_ARG(text), SLICE_ARG(o->user));
    if (more > 0)
        text = arena_printf(arena, SLICE_FMT " +%u", SLICE_ARG(text), more);
    return clean_text(text, arena);
}

static struct slice declared_text(const struct port_entry *e, struct arena *arena)
{
    static const char *const kinds[] = {"", "service ", "ports", "upstream ", ""};
    if (e->declared_count == 0)
        return SLICE_NONE;
    const struct port_declaration *d = e->declared[0];
    for (size_t i = 1; i < e->declared_count && d->by == DECLARED_PORTS; i++)
        d = e->declared[i]; /* who listens tells more than who may come */
    bool policy = d->by == DECLARED_PORTS;
    struct slice text = arena_printf(arena, "%s" SLICE_FMT, kinds[d->by],
                                     SLICE_ARG(policy ? SLICE("") : d->name));
    if (policy && d->name.len > 0)
        text = arena_printf(arena, "ports " SLICE_FMT, SLICE_ARG(d->name));
    if (d->file.len > 0) {
        size_t slash = slice_find_last(d->file, '/');
        struct slice file = slash == SIZE_MAX ? d->file : slice_skip(d->file, slash + 1);
        text = arena_printf(arena, SLICE_FMT " (" SLICE_FMT ":%u)", SLICE_ARG(text), SLICE_ARG(file),
                            d->line);
    }
    return clean_text(text, arena);
}

static struct slice findings_text(const struct port_entry *e, struct arena *arena,
                                  enum severity *worst)
{
    struct slice text = SLICE_NONE;
    *worst = SEVERITY_INFO;
    for (const struct port_finding *f = e->findings; f != NULL; f = f->next) {
        text = arena_printf(arena, SLICE_FMT "%s%s", SLICE_ARG(text), text.len > 0 ? " " : "", f->name);
        *worst = f->severity > *worst ? f->severity : *worst;
    }
    return text;
}

/* --- the sheet --- */

static void set(struct sheet *s, size_t row, enum column c, struct slice text, enum shade shade)
{
    struct cell *cell = &s->cells[row * COLUMNS + c];
    *cell = (struct cell){text, width_of(text), shade};
    if (cell->width > s->widths[c])
        s->widths[c] = cell->width;
}

static void fill_row(struct sheet *s, size_t row, const struct port_entry *e)
{
    static const enum shade of[] = {DIM, YELLOW, RED};
    enum severity worst;
    struct slice findings = findings_text(e, s->arena, &worst);
    set(s, row, PORT, arena_printf(s->arena, "%u", e->port), BOLD);
    set(s, row, PROTOCOL, slice_from(port_protocol_name(e->protocol)), PLAIN);
    set(s, row, ADDRESS, entry_address(e, s->arena), PLAIN);
    set(s, row, REACH, reach_text(e, s->arena), reach_shade(e));
    if (e->is_counted)
        set(s, row, TRIED, arena_printf(s->arena, "%llu", (unsigned long long)e->tried), PLAIN);
    set(s, row, OWNER, owner_text(e, s->arena), e->inode == 0 ? DIM : PLAIN);
    set(s, row, FOR, e->iana_name, DIM);
    set(s, row, DECLARED, declared_text(e, s->arena), PLAIN);
    set(s, row, FINDINGS, findings, of[worst]);
}

static unsigned total(const struct sheet *s)
{
    unsigned sum = 0;
    for (int c = 0; c < COLUMNS; c++)
        sum += s->gone[c] ? 0 : s->widths[c] + 2;
    return sum > 2 ? sum - 2 : 0;
}

/* The column that has most to give; COLUMNS: none has anything. */
static enum column widest(const struct sheet *s)
{
    enum column best = COLUMNS;
    unsigned most = 0;
    for (int c = 0; c < COLUMNS; c++) {
        unsigned spare = s->widths[c] > columns_of[c].least ? s->widths[c] - columns_of[c].least : 0;
        if (!s->gone[c] && spare > most) {
            most = spare;
            best = (enum column)c;
        }
    }
    return best;
}

static enum column least_wanted(const struct sheet *s)
{
    enum column best = COLUMNS;
    for (int c = 0; c < COLUMNS; c++) {
        bool worse = best == COLUMNS || columns_of[c].rank > columns_of[best].rank;
        if (!s->gone[c] && columns_of[c].rank > 0 && worse)
            best = (enum column)c;
    }
    return best;
}

/* How much narrower it must become is taken from the widest, a little at a time; when that makes
 * columns too narrow to be of use, one goes and the others have their room back. */
static void fit(struct sheet *s, unsigned columns)
{
    unsigned wanted[COLUMNS];
    for (int c = 0; c < COLUMNS; c++) {
        s->gone[c] = s->widths[c] == 0;
        unsigned title = (unsigned)strlen(columns_of[c].title);
        if (s->widths[c] < title)
            s->widths[c] = title;
        if (columns > 0 && s->widths[c] > columns_of[c].most)
            s->widths[c] = columns_of[c].most;
        wanted[c] = s->widths[c];
    }
    while (columns > 0 && total(s) > columns) {
        enum column c = widest(s);
        if (c != COLUMNS) {
            s->widths[c]--;
            continue;
        }
        if ((c = least_wanted(s)) == COLUMNS)
            return;
        s->gone[c] = true;
        memcpy(s->widths, wanted, sizeof wanted);
    }
}

/* --- writing --- */

static struct slice cut(struct slice s, unsigned width)
{
    size_t at = 0;
    unsigned n = 0;
    while (at < s.len && n < width) {
        at++;
        while (at < s.len && ((unsigned char)s.ptr[at] & 0xc0) == 0x80)
            at++;
        n++;
    }
    return slice_take(s, at);
}

static void put_shaded(struct sheet *s, struct slice text, enum shade shade)
{
    bool on = s->colour && shade != PLAIN && text.len > 0;
    if (on)
        (void)buffer_append(s->out, slice_from(shades[shade]));
    (void)buffer_append(s->out, text);
    if (on)
        (void)BUFFER_PUT(s->out, "\033[0m");
}

static void put_cell(struct sheet *s, const struct cell *cell, enum column c, bool last)
{
    unsigned width = s->widths[c], used = cell->width;
    bool right = c == PORT || c == TRIED;
    for (unsigned i = used; right && i < width; i++)
        (void)BUFFER_PUT(s->out, " ");
    if (used > width) {
        put_shaded(s, cut(cell->text, width - 1), cell->shade);
        put_shaded(s, SLICE("…"), DIM);
    } else {
        put_shaded(s, cell->text, cell->shade);
    }
    if (last)
        return;
    for (unsigned i = used; !right && i < width; i++)
        (void)BUFFER_PUT(s->out, " ");
    (void)BUFFER_PUT(s->out, "  ");
}

static void put_row(struct sheet *s, const struct cell *cells)
{
    int last = 0;
    for (int c = 0; c < COLUMNS; c++)
        last = !s->gone[c] && cells[c].width > 0 ? c : last;
    for (int c = 0; c <= last; c++) {
        if (!s->gone[c])
            put_cell(s, &cells[c], (enum column)c, c == last);
    }
    (void)BUFFER_PUT(s->out, "\n");
}

static void put_titles(struct sheet *s)
{
    struct cell titles[COLUMNS];
    for (int c = 0; c < COLUMNS; c++) {
        struct slice text = slice_from(columns_of[c].title);
        titles[c] = (struct cell){text, (unsigned)text.len, BOLD};
    }
    put_row(s, titles);
}

void port_text_write(const struct port_table *t, unsigned columns, bool colour, struct buffer *b)
{
    struct sheet s = {.t = t, .arena = t->arena, .out = b, .colour = colour};
    s.cells = ARENA_ARRAY(t->arena, struct cell, (t->count + 1) * COLUMNS);
    for (size_t i = 0; i < t->count; i++)
        fill_row(&s, i, &t->entries[i]);
    fit(&s, columns);
    if (t->count > 0)
        put_titles(&s);
    for (size_t i = 0; i < t->count; i++)
        put_row(&s, &s.cells[i * COLUMNS]);
}

/* --- findings --- */

size_t findings_count(const struct port_table *t, enum severity least)
{
    size_t count = 0;
    for (size_t i = 0; i < t->count; i++) {
        for (const struct port_finding *f = t->entries[i].findings; f != NULL; f = f->next)
            count += f->severity >= least;
    }
    return count;
}

static void put_finding(struct sheet *s, const struct port_finding *f)
{
    static const enum shade of[] = {CYAN, YELLOW, RED};
    put_shaded(s, slice_from(severity_name(f->severity)), of[f->severity]);
    (void)buffer_append_f(s->out, "%*s", (int)(8 - strlen(severity_name(f->severity))), "");
    (void)buffer_append(s->out, clean_text(f->text, s->arena));
    put_shaded(s, arena_printf(s->arena, " [%s]", f->name), DIM);
    (void)BUFFER_PUT(s->out, "\n        ");
    (void)buffer_append(s->out, clean_text(f->advice, s->arena));
    (void)BUFFER_PUT(s->out, "\n");
}

/* The worst first. */
size_t findings_text_write(const struct port_table *t, enum severity least, bool colour,
                           struct buffer *b)
{
    struct sheet s = {.t = t, .arena = t->arena, .out = b, .colour = colour};
    size_t count = 0;
    for (int severity = SEVERITY_ERROR; severity >= (int)least; severity--) {
        for (size_t i = 0; i < t->count; i++) {
            for (const struct port_finding *f = t->entries[i].findings; f != NULL; f = f->next) {
                if ((int)f->severity != severity)
                    continue;
                put_finding(&s, f);
                count++;
            }
        }
    }
    return count;
}
