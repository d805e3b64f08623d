/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table as JSON. The shape is a contract: members are always there, null where there is nothing
 * to tell. The whole form has some members more, which only portico itself reads.
 */
#include <stdio.h>
#include <time.h>

#include "config/jsonx.h"
#include "ports/iana.h"
#include "ports/ledger.h"
#include "ports/port_json.h"
#include "ports/ranges.h"

static json_t *text_or_null(struct slice s)
{
    return s.len > 0 ? jsonx_string(s) : json_null();
}

size_t port_time_text(int64_t ns, char out[PORT_TIME_MAX])
{
    struct tm tm;
    time_t s = (time_t)(ns / 1000000000);
    gmtime_r(&s, &tm);
    return strftime(out, PORT_TIME_MAX, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static json_t *time_json(int64_t ns)
{
    char text[PORT_TIME_MAX];
    port_time_text(ns, text);
    return json_string(text);
}

static json_t *address_json(const struct ip_address *a)
{
    char text[IP_TEXT_MAX];
    ip_text(a, text);
    return json_string(text);
}

static void add_prefix(void *list, const struct ip_address *a, unsigned length)
{
    char text[IP_TEXT_MAX + 8];
    size_t len = ip_text(a, text);
    snprintf(text + len, sizeof text - len, "/%u", length);
    json_array_append_new(list, json_string(text));
}

static json_t *reach_from(const struct port_entry *e)
{
    json_t *list = json_array();
    for (size_t i = 0; i < e->reach_from_count; i++)
        range_prefixes(&e->reach_from[i], add_prefix, list);
    return list;
}

static json_t *owners_json(const struct port_owner *o, bool whole)
{
    json_t *list = json_array();
    for (; o != NULL; o = o->next) {
        json_t *owner = json_object();
        json_object_set_new(owner, "pid", o->pid > 0 ? json_integer(o->pid) : json_null());
        json_object_set_new(owner, "program", text_or_null(o->program));
        json_object_set_new(owner, "user", text_or_null(o->user));
        json_object_set_new(owner, "unit", text_or_null(o->unit));
        json_object_set_new(owner, "container", text_or_null(o->container));
        json_object_set_new(owner, "service", text_or_null(o->service));
        if (whole)
            json_object_set_new(owner, "uid", json_integer(o->uid));
        json_array_append_new(list, owner);
    }
    return list;
}

/* An upstream is a use, which findings tell; the admin endpoint counts as a site. */
const char *port_declared_word(enum declared_by by)
{
    static const char *const words[] = {"site", "service", "ports", NULL, "site"};
    return words[by];
}

static json_t *declared_json(const struct port_entry *e)
{
    json_t *list = json_array();
    for (size_t i = 0; i < e->declared_count; i++) {
        const struct port_declaration *d = e->declared[i];
        const char *by = port_declared_word(d->by);
        if (by == NULL)
            continue;
        json_t *o = json_object();
        json_object_set_new(o, "by", json_string(by));
        json_object_set_new(o, "name", text_or_null(d->name));
        json_object_set_new(o, "file", text_or_null(d->file));
        json_object_set_new(o, "line", d->line > 0 ? json_integer(d->line) : json_null());
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *findings_json(const struct port_finding *f)
{
    json_t *list = json_array();
    for (; f != NULL; f = f->next) {
        json_t *o = json_object();
        json_object_set_new(o, "name", json_string(f->name));
        json_object_set_new(o, "severity", json_string(severity_name(f->severity)));
        json_object_set_new(o, "text", jsonx_string(f->text));
        json_object_set_new(o, "advice", jsonx_string(f->advice));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *iana_json(const struct port_entry *e)
{
    json_t *o = json_object();
    json_object_set_new(o, "name", text_or_null(e->iana_name));
    json_object_set_new(o, "description", text_or_null(e->iana_description));
    json_object_set_new(o, "class", json_string(iana_class_name(e->class)));
    return o;
}

static void put_more(json_t *o, const struct port_entry *e)
{
    json_object_set_new(o, "netns", json_integer((json_int_t)e->netns));
    json_object_set_new(o, "inode", json_integer((json_int_t)e->inode));
    json_object_set_new(o, "listening", json_boolean(e->listening));
    json_object_set_new(o, "sockets", json_integer(e->sockets));
    json_object_set_new(o, "scope", json_integer(e->scope));
    json_object_set_new(o, "uid", json_integer(e->uid));
    json_object_set_new(o, "reach_why", text_or_null(e->reach_why));
}

static json_t *entry_json(const struct port_entry *e, bool whole, bool counted)
{
    json_t *o = json_object();
    json_object_set_new(o, "port", json_integer(e->port));
    json_object_set_new(o, "protocol", json_string(port_protocol_name(e->protocol)));
    json_object_set_new(o, "family", json_string(port_family_name(e->family)));
    json_object_set_new(o, "address", address_json(&e->address));
    json_object_set_new(o, "namespace", text_or_null(e->namespace));
    json_object_set_new(o, "reach", json_string(port_reach_name(e->reach)));
    json_object_set_new(o, "reach_from", reach_from(e));
    json_object_set_new(o, "owners", owners_json(e->owners, whole));
    json_object_set_new(o, "iana", iana_json(e));
    json_object_set_new(o, "declared", declared_json(e));
    json_object_set_new(o, "findings", findings_json(e->findings));
    if (counted && !whole)
        json_object_set_new(o, "tried",
                            e->is_counted ? json_integer((json_int_t)e->tried) : json_null());
    if (whole)
        put_more(o, e);
    return o;
}

/* What is needed of them: [generation, protocol, first, last, packets]. */
static json_t *counts_json(const struct port_table *t)
{
    json_t *list = json_array();
    for (size_t i = 0; i < t->counts_count; i++) {
        const struct port_count *c = &t->counts[i];
        json_array_append_new(list, json_pack("[i,i,i,i,I]", c->generation, (int)c->protocol, c->first,
                                              c->last, (json_int_t)c->packets));
    }
    return list;
}

static json_t *table_json(const struct port_table *t, bool whole)
{
    json_t *o = json_object(), *list = json_array();
    json_object_set_new(o, "host", jsonx_string(t->host));
    json_object_set_new(o, "time", time_json(t->time_ns));
    json_object_set_new(o, "complete", json_boolean(t->unseen_count == 0));
    for (size_t i = 0; i < t->count; i++)
        json_array_append_new(list, entry_json(&t->entries[i], whole, t->counts_count > 0));
    json_object_set_new(o, "ports", list);
    if (!whole)
        return o;
    json_t *unseen = json_array();
    for (size_t i = 0; i < t->unseen_count; i++)
        json_array_append_new(unseen, jsonx_string(t->unseen[i]));
    json_object_set_new(o, "unseen", unseen);
    json_object_set_new(o, "counts", counts_json(t));
    json_object_set_new(o, "netns", json_integer((json_int_t)t->netns));
    json_object_set_new(o, "time_ns", json_integer(t->time_ns));
    return o;
}

json_t *port_json(const struct port_table *t)
{
    return table_json(t, false);
}

json_t *port_json_whole(const struct port_table *t)
{
    return table_json(t, true);
}

/* --- and back --- */

static struct slice copy_text(const json_t *o, const char *key, struct arena *arena)
{
    const json_t *v = json_object_get(o, key);
    return arena_copy(arena, slice_of(json_string_value(v), json_string_length(v)));
}

static bool find_word(const json_t *v, const char *(*name)(unsigned), unsigned count, unsigned *out)
{
    const char *word = json_string_value(v);
    for (*out = 0; word != NULL && *out < count; ++*out) {
        if (strcmp(word, name(*out)) == 0)
            return true;
    }
    return false;
}

static const char *protocol_at(unsigned i)
{
    return port_protocol_name((enum port_protocol)i);
}

static const char *family_at(unsigned i)
{
    return port_family_name((enum port_family)i);
}

static const char *reach_at(unsigned i)
{
    return port_reach_name((enum port_reach)i);
}

static struct port_owner *read_owners(const json_t *list, struct arena *arena)
{
    struct port_owner *first = NULL;
    for (size_t i = json_array_size(list); i > 0; i--) {
        const json_t *o = json_array_get(list, i - 1);
        struct port_owner *owner = ARENA_NEW(arena, struct port_owner);
        owner->pid = (pid_t)json_integer_value(json_object_get(o, "pid"));
        owner->program = copy_text(o, "program", arena);
        owner->uid = (uid_t)json_integer_value(json_object_get(o, "uid"));
        owner->user = copy_text(o, "user", arena);
        owner->unit = copy_text(o, "unit", arena);
        owner->container = copy_text(o, "container", arena);
        owner->service = copy_text(o, "service", arena);
        owner->next = first;
        first = owner;
    }
    return first;
}

static bool read_reach_from(const json_t *list, struct arena *arena, struct port_entry *e)
{
    size_t n = json_array_size(list);
    struct ip_range *ranges = ARENA_ARRAY(arena, struct ip_range, n + 1);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!ip_range_parse(slice_of(json_string_value(v), json_string_length(v)), &ranges[i]))
            return false;
    }
    e->reach_from = ranges;
    e->reach_from_count = n;
    return true;
}

static bool read_entry(const json_t *o, struct arena *arena, struct port_entry *e)
{
    unsigned protocol, family, reach;
    json_int_t port = json_integer_value(json_object_get(o, "port"));
    if (port < 0 || port > 65535 ||
        !find_word(json_object_get(o, "protocol"), protocol_at, PORT_PROTOCOLS, &protocol) ||
        !find_word(json_object_get(o, "family"), family_at, PORT_DUAL + 1, &family) ||
        !find_word(json_object_get(o, "reach"), reach_at, REACH_WORLD + 1, &reach) ||
        !ip_parse(copy_text(o, "address", arena), &e->address) ||
        !read_reach_from(json_object_get(o, "reach_from"), arena, e))
        return false;
    e->port = (uint16_t)port;
    e->protocol = (enum port_protocol)protocol;
    e->family = (enum port_family)family;
    e->reach = (enum port_reach)reach;
    e->namespace = copy_text(o, "namespace", arena);
    e->owners = read_owners(json_object_get(o, "owners"), arena);
    e->netns = (uint64_t)json_integer_value(json_object_get(o, "netns"));
    e->inode = (uint64_t)json_integer_value(json_object_get(o, "inode"));
    e->listening = json_is_true(json_object_get(o, "listening"));
    e->sockets = (uint32_t)json_integer_value(json_object_get(o, "sockets"));
    e->scope = (uint32_t)json_integer_value(json_object_get(o, "scope"));
    e->uid = (uid_t)json_integer_value(json_object_get(o, "uid"));
    e->reach_why = copy_text(o, "reach_why", arena);
    return true;
}

static uint64_t number_at(const json_t *list, size_t i, uint64_t max)
{
    json_int_t n = json_integer_value(json_array_get(list, i));
    return n > 0 && (uint64_t)n <= max ? (uint64_t)n : 0;
}

static void read_counts(const json_t *list, struct port_table *t)
{
    size_t n = json_array_size(list);
    t->counts = n > 0 ? ARENA_ARRAY(t->arena, struct port_count, n) : NULL;
    t->counts_count = n;
    for (size_t i = 0; i < n; i++) {
        const json_t *c = json_array_get(list, i);
        t->counts[i] = (struct port_count){
            .generation = (char)number_at(c, 0, 127),
            .protocol = (enum port_protocol)number_at(c, 1, PORT_PROTOCOLS - 1),
            .first = (uint16_t)number_at(c, 2, 65535),
            .last = (uint16_t)number_at(c, 3, 65535),
            .packets = number_at(c, 4, INT64_MAX)};
    }
}

enum err port_json_read(const json_t *o, struct arena *arena, struct port_table *t, char *error,
                        size_t cap)
{
    const json_t *ports = json_object_get(o, "ports"), *unseen = json_object_get(o, "unseen");
    *t = (struct port_table){.arena = arena, .host = copy_text(o, "host", arena),
                             .time_ns = json_integer_value(json_object_get(o, "time_ns")),
                             .netns = (uint64_t)json_integer_value(json_object_get(o, "netns"))};
    if (!json_is_array(ports)) {
        snprintf(error, cap, "that is no ledger of ports");
        return ERR_INVALID;
    }
    for (size_t i = 0; i < json_array_size(unseen); i++)
        table_unseen(t, "%s", json_string_value(json_array_get(unseen, i)));
    read_counts(json_object_get(o, "counts"), t);
    for (size_t i = 0; i < json_array_size(ports); i++) {
        struct port_entry e = {0};
        if (!read_entry(json_array_get(ports, i), arena, &e)) {
            snprintf(error, cap, "row %zu of the ledger of ports is not one", i);
            return ERR_INVALID;
        }
        *table_add(t) = e;
    }
    return OK;
}
