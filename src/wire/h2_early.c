/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Priorities of streams that are not open yet (RFC 9218 §7.1): a client may send PRIORITY_UPDATE before
 * the request. The last few are kept, of each stream the newest; beyond that the oldest is forgotten,
 * which costs its stream nothing but its place. What such a frame says counts more than the request's
 * own field, which was written without it.
 */
#include "wire/h2_internal.h"

#include "base/mem.h"

struct h2_early {
    uint32_t id; /* 0: none */
    uint8_t urgency;
    bool incremental;
};

static struct h2_early *find_early(const struct h2_conn *c, uint32_t id)
{
    for (int i = 0; c->early != NULL && i < H2_EARLY_KEPT; i++) {
        if (c->early[i].id == id)
            return &c->early[i];
    }
    return NULL;
}

/* A place for one more: that of a stream that has been opened, or of the oldest. */
static struct h2_early *place_for(struct h2_conn *c)
{
    for (int i = 0; i < H2_EARLY_KEPT; i++) {
        if (c->early[i].id <= c->last_id)
            return &c->early[i];
    }
    c->early_at = (uint8_t)((c->early_at + 1) % H2_EARLY_KEPT);
    return &c->early[c->early_at];
}

void h2_keep_priority(struct h2_conn *c, uint32_t id, struct slice value)
{
    struct h2_early *e = find_early(c, id);
    if (c->early == NULL)
        c->early = mem_zalloc(H2_EARLY_KEPT * sizeof *c->early);
    if (e == NULL)
        e = place_for(c);
    *e = (struct h2_early){.id = id, .urgency = H2_URGENCY_DEFAULT};
    h2_priority_parse(value, &e->urgency, &e->incremental);
}

void h2_use_priority(struct h2_stream *s)
{
    struct h2_early *e = find_early(s->conn, s->id);
    if (e == NULL)
        return;
    s->urgency = e->urgency;
    s->incremental = e->incremental;
    e->id = 0;
}
