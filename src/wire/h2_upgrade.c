/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From HTTP/1.1 to HTTP/2 in clear text by "Upgrade: h2c" (RFC 7540 §3.2; RFC 9113 leaves it out, but
 * clients such as curl still ask that way). The request that asks becomes stream 1, of which the
 * client's half is closed. One with a body is answered in HTTP/1.1, as is one whose
 * HTTP2-Settings cannot be read: an upgrade is an offer.
 */
#include "wire/h2_internal.h"

#include "base/text.h"
#include "wire/h1_head.h"

static bool has_token(struct slice list, struct slice wanted)
{
    struct slice token;
    while (list.len > 0) {
        slice_cut(list, ',', &token, &list);
        if (slice_eq(slice_trim(token), wanted))
            return true;
    }
    return false;
}

/* The value of the one HTTP2-Settings field. */
static bool settings_field(const struct h1_head *h, struct slice *value)
{
    unsigned found = 0;
    for (unsigned i = 0; i < h->count; i++) {
        if (!slice_eq_nocase(h->fields[i].name, SLICE("HTTP2-Settings")))
            continue;
        *value = h->fields[i].value;
        found++;
    }
    return found == 1;
}

bool h2_upgrade_asked(const struct h1_head *h, struct buffer *settings)
{
    struct slice value;
    return has_token(h->upgrade, SLICE("h2c")) && h->body == H1_BODY_NONE && h->keep_alive &&
           settings_field(h, &value) && base64_decode(settings, value) == OK &&
           settings->len % 6 == 0;
}

static bool belongs_to_connection(struct slice name)
{
    return slice_eq_nocase(name, SLICE("Upgrade")) ||
           slice_eq_nocase(name, SLICE("HTTP2-Settings")) ||
           slice_eq_nocase(name, SLICE("Host")) || field_is_framing(name);
}

/* What is the head's lives only as long as the HTTP/1 connection. */
void h2_fill_upgraded(struct h2_stream *s, const struct h1_head *h)
{
    struct request *q = &s->x.req;
    fields_init(&q->fields, &s->arena);
    for (unsigned i = 0; i < h->count; i++) {
        struct slice name = h->fields[i].name;
        if (belongs_to_connection(name) ||
            (h->fields[i].odd && !field_wanted(s->conn->site->server, name)))
            continue;
        fields_add(&q->fields, arena_copy(&s->arena, name),
                   arena_copy(&s->arena, h->fields[i].value));
    }
    q->method = q->original_method = arena_copy(&s->arena, h->method);
    q->method_id = method_parse(q->method);
    q->target = arena_copy(&s->arena, h->target);
    q->host = q->original_host = arena_copy(&s->arena, h->host);
    q->scheme = SLICE("http");
    q->major = 2;
}
