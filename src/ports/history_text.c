/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The history as text. A look at a busy machine is ten thousand rows, whose tree of JSON would take as
 * long as finding the ports did; so what history_write wrote is read back row by row, straight out of
 * the text, and the log is not read at all unless it is asked for or something is added to it. A text
 * that is JSON in any other way (edited by hand, an escape in a name) goes through the tree.
 */
#include "config/jsonx.h"
#include "ports/history.h"

/* --- the form of history_write --- */

static bool take(struct slice *rest, struct slice literal)
{
    if (!slice_starts(*rest, literal))
        return false;
    *rest = slice_skip(*rest, literal.len);
    return true;
}

static bool take_number(struct slice *rest, uint64_t max, uint64_t *out)
{
    size_t n = 0;
    while (n < rest->len && rest->ptr[n] >= '0' && rest->ptr[n] <= '9')
        n++;
    if (!slice_to_u64(slice_take(*rest, n), max, out))
        return false;
    *rest = slice_skip(*rest, n);
    return true;
}

static bool take_string(struct slice *rest, struct slice *out)
{
    struct slice behind;
    if (!take(rest, SLICE("\"")) || !slice_cut(*rest, '"', out, &behind) ||
        slice_find(*out, '\\') != SIZE_MAX)
        return false;
    *rest = behind;
    return true;
}

static bool take_row(struct slice *rest, struct seen_port *p)
{
    uint64_t port;
    struct slice protocol;
    if (!take(rest, SLICE("[")) || !take_number(rest, 65535, &port) || port == 0 ||
        !take(rest, SLICE(",")) || !take_string(rest, &protocol) ||
        !port_protocol_parse(protocol, &p->protocol) || !take(rest, SLICE(",")) ||
        !take_string(rest, &p->address) || !take(rest, SLICE(",")) || !take_string(rest, &p->owner))
        return false;
    p->port = (uint16_t)port;
    return take(rest, SLICE("]"));
}

/* Up to the log. */
static bool take_look(struct history *h, struct slice *rest)
{
    uint64_t time;
    if (!take(rest, SLICE("{\"last\":{\"time\":")) || !take_number(rest, INT64_MAX, &time) ||
        !take(rest, SLICE(",\"ports\":[")))
        return false;
    size_t most = 0;
    for (size_t i = 0; i < rest->len && most < HISTORY_PORTS_MAX; i++)
        most += rest->ptr[i] == '[';
    h->last = ARENA_ARRAY(&h->arena, struct seen_port, most + 1);
    for (bool first = true; !take(rest, SLICE("]},\"log\":")); first = false) {
        if (h->last_count == most || (!first && !take(rest, SLICE(","))) ||
            !take_row(rest, &h->last[h->last_count++]))
            return false;
    }
    h->time = (int64_t)time;
    return true;
}

/* The log stays text until it is asked for. */
static bool read_own_form(struct history *h, struct slice text)
{
    struct slice rest = slice_trim(text);
    if (!take_look(h, &rest) || !slice_starts(rest, SLICE("[")) || !slice_ends(rest, SLICE("]}")))
        return false;
    h->log_text = slice_take(rest, rest.len - 1);
    return true;
}

/* --- any form --- */

static struct slice text_of(const json_t *v)
{
    return slice_of(json_string_value(v), json_string_length(v));
}

static void read_tree(struct history *h, const json_t *look)
{
    const json_t *ports = json_object_get(look, "ports");
    size_t n = json_array_size(ports);
    h->looked = json_is_object(look);
    h->time = json_integer_value(json_object_get(look, "time"));
    h->last_count = 0;
    if (n > HISTORY_PORTS_MAX)
        return;
    h->last = ARENA_ARRAY(&h->arena, struct seen_port, n + 1);
    for (size_t i = 0; i < n; i++) {
        const json_t *row = json_array_get(ports, i);
        json_int_t port = json_integer_value(json_array_get(row, 0));
        struct seen_port *p = &h->last[h->last_count];
        if (port <= 0 || port > 65535 ||
            !port_protocol_parse(text_of(json_array_get(row, 1)), &p->protocol))
            continue;
        p->port = (uint16_t)port;
        p->address = arena_copy(&h->arena, text_of(json_array_get(row, 2)));
        p->owner = arena_copy(&h->arena, text_of(json_array_get(row, 3)));
        h->last_count++;
    }
}

void history_read(struct history *h, struct slice text)
{
    struct diag d;
    h->looked = read_own_form(h, arena_copy(&h->arena, text));
    if (!h->looked) {
        json_t *whole = jsonx_load(SLICE_NONE, text, &d);
        read_tree(h, json_object_get(whole, "last"));
        h->log = json_incref(json_object_get(whole, "log"));
        json_decref(whole);
    }
    history_sort(h->last, h->last_count);
}

json_t *history_log(struct history *h)
{
    struct diag d;
    if (h->log == NULL && h->log_text.len > 0)
        h->log = jsonx_load(SLICE_NONE, h->log_text, &d);
    h->log_text = SLICE_NONE;
    if (!json_is_array(h->log)) {
        json_decref(h->log);
        h->log = json_array();
    }
    return h->log;
}

static void put_string(struct buffer *out, struct slice s)
{
    json_t *j = jsonx_string(s); /* by whose rule other bytes than UTF-8 go */
    jsonx_put_string(out, text_of(j));
    json_decref(j);
}

void history_write(struct history *h, struct buffer *out)
{
    buffer_append_f(out, "{\"last\":{\"time\":%lld,\"ports\":[", (long long)h->time);
    for (size_t i = 0; i < h->last_count; i++) {
        const struct seen_port *p = &h->last[i];
        buffer_append_f(out, "%s[%u,\"%s\",", i > 0 ? "," : "", p->port, port_protocol_name(p->protocol));
        put_string(out, p->address);
        BUFFER_PUT(out, ",");
        put_string(out, p->owner);
        BUFFER_PUT(out, "]");
    }
    BUFFER_PUT(out, "]},\"log\":");
    jsonx_dump(out, history_log(h));
    BUFFER_PUT(out, "}");
}
