/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The word for what reach_walk.c finds, of one port of a view.
 */
#include "ports/reach.h"

#include "ports/reach_walk.h"

struct answer {
    enum port_reach reach;
    struct ranges from;
    struct slice why;
};

static struct answer unknown(struct arena *keep, struct slice why)
{
    return (struct answer){.reach = REACH_UNKNOWN,
                           .why = arena_printf(keep, "filtered by " SLICE_FMT, SLICE_ARG(why))};
}

static struct answer answer_of(const struct net_view *v, const struct port_entry *e, struct arena *keep)
{
    struct arena scratch;
    struct answer a = {.reach = REACH_NOBODY};
    arena_init(&scratch, 1 << 16);
    struct reach_ask r = {.view = v, .entry = e, .arena = &scratch};
    reach_walk(&r);
    if (reach_is_world(r.sure)) {
        a.reach = REACH_WORLD;
    } else if (r.unsure.count > 0) {
        a = unknown(keep, r.why);
    } else if (r.sure.count > 0) {
        a.reach = REACH_NETWORK;
    } else {
        reach_walk_device(&r);
        if (r.sure.count > 0)
            a.reach = REACH_DEVICE;
        else if (r.unsure.count > 0)
            a = unknown(keep, r.why);
    }
    if (a.reach == REACH_NETWORK || a.reach == REACH_WORLD)
        a.from = ranges_of(keep, r.sure.items, r.sure.count);
    arena_deinit(&scratch);
    return a;
}

static void give(struct port_entry *e, const struct answer *a)
{
    e->reach = a->reach;
    e->reach_from = a->from.items;
    e->reach_from_count = a->from.count;
    e->reach_why = a->why;
}

void view_reach(const struct net_view *v, struct port_entry *e, struct arena *arena)
{
    struct answer a = answer_of(v, e, arena);
    give(e, &a);
}
