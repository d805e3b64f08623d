/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table as JSON text, row by row: byte for byte what jsonx_dump_pretty makes of port_json, without
 * the tree, which for ten thousand rows would take longer than finding them. The shape is port_json.c's;
 * port_json_test.c compares the two.
 */
#include "base/text.h"
#include "config/jsonx.h"
#include "ports/iana.h"
#include "ports/ledger.h"
#include "ports/port_json.h"
#include "ports/ranges.h"

/* What is being written: a comma and a new line stand between members, tabs tell the depth. */
struct writer {
    struct buffer *out;
    unsigned depth;
    bool empty; /* nothing in this object or array yet */
};

enum { DEPTH_MAX = 8, BREAK_MAX = 2 + DEPTH_MAX };

/* A comma and a new line, as they stand before the next member. */
static char *write_break(struct writer *w, char *at, bool comma)
{
    if (comma)
        *at++ = ',';
    *at++ = '\n';
    for (unsigned i = 0; i < w->depth; i++)
        *at++ = '\t';
    return at;
}

static void put_break(struct writer *w, bool comma)
{
    char text[BREAK_MAX];
    buffer_append(w->out, slice_of(text, (size_t)(write_break(w, text, comma) - text)));
}

static void next_item(struct writer *w)
{
    put_break(w, !w->empty);
    w->empty = false;
}

static void begin(struct writer *w, char bracket)
{
    buffer_append_byte(w->out, bracket);
    w->depth++;
    w->empty = true;
}

static void end(struct writer *w, char bracket)
{
    w->depth--;
    if (!w->empty)
        put_break(w, false);
    buffer_append_byte(w->out, bracket);
    w->empty = false;
}

/* Names of members are ours, with their quotes and colon: nothing in them is escaped. */
static struct writer *key(struct writer *w, struct slice name)
{
    char text[BREAK_MAX + 24];
    char *at = write_break(w, text, !w->empty);
    memcpy(at, name.ptr, name.len);
    buffer_append(w->out, slice_of(text, (size_t)(at - text) + name.len));
    w->empty = false;
    return w;
}

#define KEY(w, name) key((w), SLICE("\"" name "\": "))

/* What is not UTF-8 goes by the tree's rule. */
static void put_string(struct writer *w, struct slice s)
{
    if (utf8_valid(s)) {
        jsonx_put_string(w->out, s);
        return;
    }
    json_t *j = jsonx_string(s);
    jsonx_put_string(w->out, slice_of(json_string_value(j), json_string_length(j)));
    json_decref(j);
}

static void put_text(struct writer *w, struct slice s)
{
    if (s.len > 0)
        put_string(w, s);
    else
        BUFFER_PUT(w->out, "null");
}

static void put_number(struct writer *w, uint64_t n)
{
    if (n > 0)
        buffer_append_u64(w->out, n);
    else
        BUFFER_PUT(w->out, "null");
}

static void put_prefix(void *arg, const struct ip_address *a, unsigned length)
{
    struct writer *w = arg;
    char text[IP_TEXT_MAX];
    next_item(w);
    buffer_append_f(w->out, "\"" SLICE_FMT "/%u\"", (int)ip_text(a, text), text, length);
}

static void put_reach_from(struct writer *w, const struct port_entry *e)
{
    begin(w, '[');
    for (size_t i = 0; i < e->reach_from_count; i++)
        range_prefixes(&e->reach_from[i], put_prefix, w);
    end(w, ']');
}

static void put_owners(struct writer *w, const struct port_owner *o)
{
    begin(w, '[');
    for (; o != NULL; o = o->next) {
        next_item(w);
        begin(w, '{');
        put_number(KEY(w, "pid"), o->pid > 0 ? (uint64_t)o->pid : 0);
        put_text(KEY(w, "program"), o->program);
        put_text(KEY(w, "user"), o->user);
        put_text(KEY(w, "unit"), o->unit);
        put_text(KEY(w, "container"), o->container);
        put_text(KEY(w, "service"), o->service);
        end(w, '}');
    }
    end(w, ']');
}

static void put_iana(struct writer *w, const struct port_entry *e)
{
    begin(w, '{');
    put_text(KEY(w, "name"), e->iana_name);
    put_text(KEY(w, "description"), e->iana_description);
    put_text(KEY(w, "class"), slice_from(iana_class_name(e->class)));
    end(w, '}');
}

static void put_declared(struct writer *w, const struct port_entry *e)
{
    begin(w, '[');
    for (size_t i = 0; i < e->declared_count; i++) {
        const struct port_declaration *d = e->declared[i];
        const char *by = port_declared_word(d->by);
        if (by == NULL)
            continue;
        next_item(w);
        begin(w, '{');
        put_text(KEY(w, "by"), slice_from(by));
        put_text(KEY(w, "name"), d->name);
        put_text(KEY(w, "file"), d->file);
        put_number(KEY(w, "line"), d->line);
        end(w, '}');
    }
    end(w, ']');
}

static void put_findings(struct writer *w, const struct port_finding *f)
{
    begin(w, '[');
    for (; f != NULL; f = f->next) {
        next_item(w);
        begin(w, '{');
        put_text(KEY(w, "name"), slice_from(f->name));
        put_text(KEY(w, "severity"), slice_from(severity_name(f->severity)));
        put_string(KEY(w, "text"), f->text);
        put_string(KEY(w, "advice"), f->advice);
        end(w, '}');
    }
    end(w, ']');
}

static void put_entry(struct writer *w, const struct port_entry *e, bool counted)
{
    char text[IP_TEXT_MAX];
    begin(w, '{');
    buffer_append_u64(KEY(w, "port")->out, e->port);
    put_text(KEY(w, "protocol"), slice_from(port_protocol_name(e->protocol)));
    put_text(KEY(w, "family"), slice_from(port_family_name(e->family)));
    put_text(KEY(w, "address"), slice_of(text, ip_text(&e->address, text)));
    put_text(KEY(w, "namespace"), e->namespace);
    put_text(KEY(w, "reach"), slice_from(port_reach_name(e->reach)));
    put_reach_from(KEY(w, "reach_from"), e);
    put_owners(KEY(w, "owners"), e->owners);
    put_iana(KEY(w, "iana"), e);
    put_declared(KEY(w, "declared"), e);
    put_findings(KEY(w, "findings"), e->findings);
    if (counted && e->is_counted)
        buffer_append_u64(KEY(w, "tried")->out, e->tried);
    else if (counted)
        put_text(KEY(w, "tried"), SLICE_NONE);
    end(w, '}');
}

void port_json_write(const struct port_table *t, struct buffer *out, void (*full)(struct buffer *))
{
    struct writer w = {.out = out};
    char time[PORT_TIME_MAX];
    begin(&w, '{');
    put_string(KEY(&w, "host"), t->host);
    put_text(KEY(&w, "time"), slice_of(time, port_time_text(t->time_ns, time)));
    buffer_append(KEY(&w, "complete")->out, t->unseen_count == 0 ? SLICE("true") : SLICE("false"));
    begin(KEY(&w, "ports"), '[');
    for (size_t i = 0; i < t->count; i++) {
        next_item(&w);
        put_entry(&w, &t->entries[i], t->counts_count > 0);
        if (full != NULL && out->len >= PORT_JSON_PIECE)
            full(out);
    }
    end(&w, ']');
    end(&w, '}');
    buffer_append_byte(out, '\n');
}
