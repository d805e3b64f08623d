/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reach for all rows of a table. It has thousands of rows and few different answers: two ports that no
 * rule tells apart, of one protocol and address, have one answer, which is worked out once.
 *
 * A socket of another namespace is looked at from inside, and then from what connects it: over a veth
 * pair it is this machine that hands packets on, so without more than that "device" is what is known;
 * a link of another kind (macvlan, a moved card) is the network itself.
 */
#include <stdio.h>

#include "base/map.h"
#include "ports/namespaces.h"
#include "ports/net_view.h"
#include "ports/reach.h"

struct answer {
    enum port_reach reach;
    struct slice why;
    const struct ip_range *from;
    size_t from_count;
};

/* How many cuts are at or before a port. */
static size_t port_class(const struct nft_ruleset *r, uint16_t port)
{
    size_t low = 0, high = r->cuts_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (r->cuts[middle] <= port)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void give(struct port_entry *e, const struct answer *a)
{
    e->reach = a->reach;
    e->reach_from = a->from;
    e->reach_from_count = a->from_count;
    e->reach_why = a->why;
}

struct room {
    struct port_table *table;
    const struct port_namespace *namespace;
    const struct net_view *view;
    struct map answers;
    char error[256];
};

static struct answer *known_answer(struct room *room, const struct port_entry *e)
{
    struct {
        struct ip_address address;
        uint8_t family, protocol;
        uint8_t zero;
        uint32_t scope;
        uint32_t class;
    } key;
    memset(&key, 0, sizeof key);
    key.address = e->address;
    key.family = (uint8_t)e->family;
    key.protocol = (uint8_t)e->protocol;
    key.scope = e->scope;
    key.class = (uint32_t)port_class(room->view->ruleset, e->port);
    struct slice bytes = slice_of((const char *)&key, sizeof key);
    struct answer *a = map_get(&room->answers, bytes);
    if (a != NULL)
        return a;
    a = ARENA_NEW(room->table->arena, struct answer);
    struct port_entry asked = *e;
    view_reach(room->view, &asked, room->table->arena);
    *a = (struct answer){asked.reach, asked.reach_why, asked.reach_from, asked.reach_from_count};
    map_put(&room->answers, arena_copy(room->table->arena, bytes), a);
    return a;
}

static bool behind_veth(const struct net_view *v)
{
    for (size_t i = 0; i < v->links_count; i++) {
        const struct net_link *l = &v->links[i];
        if (l->up && !l->loopback && !slice_eq(l->kind, SLICE("veth")))
            return false;
    }
    return true;
}

/* What an answer from inside another namespace means outside of it. */
static struct answer seen_outside(const struct net_view *v, struct answer a)
{
    if (a.reach == REACH_DEVICE)
        a.reach = REACH_NAMESPACE;
    else if (a.reach > REACH_DEVICE && behind_veth(v))
        a = (struct answer){.reach = REACH_DEVICE};
    return a;
}

static enum err read_room(void *arg)
{
    struct room *room = arg;
    struct net_view *v = NULL;
    enum err e = net_view_read(room->table->arena, &v, room->error, sizeof room->error);
    room->view = v;
    return e;
}

static void fill_room(struct room *room, uint64_t netns)
{
    struct port_table *t = room->table;
    map_init(&room->answers, false);
    for (size_t i = 0; i < t->count; i++) {
        struct port_entry *e = &t->entries[i];
        if (e->netns != netns)
            continue;
        struct answer a = {.reach = REACH_UNKNOWN, .why = slice_from(room->error)};
        if (room->view != NULL)
            a = *known_answer(room, e);
        else
            a.why = arena_copy(t->arena, a.why);
        if (room->view != NULL && netns != t->netns)
            a = seen_outside(room->view, a);
        give(e, &a);
    }
    map_deinit(&room->answers);
}

static void reach_namespace(struct port_table *t, uint64_t netns)
{
    struct room room = {.table = t};
    const struct port_namespace *n = namespace_by_inode(t, netns);
    enum err e = ERR_NOT_FOUND;
    if (netns == t->netns)
        e = read_room(&room);
    else if (n != NULL)
        e = namespace_run(n, read_room, &room);
    if (e != OK && room.error[0] == '\0')
        snprintf(room.error, sizeof room.error, "its namespace could not be entered: %s", err_text(e));
    if (room.view != NULL && room.view->rules_unread.len > 0)
        table_unseen(t, "who can reach the ports: " SLICE_FMT, SLICE_ARG(room.view->rules_unread));
    else if (e != OK && netns == t->netns)
        table_unseen(t, "who can reach the ports: %s", room.error);
    if (room.view != NULL && netns == t->netns) {
        t->counts = room.view->ruleset->counts;
        t->counts_count = room.view->ruleset->counts_count;
    }
    fill_room(&room, netns);
}

/* Namespaces in the order of their first row. */
void table_reach(struct port_table *t)
{
    struct map seen;
    map_init(&seen, false);
    for (size_t i = 0; i < t->count; i++) {
        struct slice key = slice_of((const char *)&t->entries[i].netns, sizeof t->entries[i].netns);
        if (map_get(&seen, key) != NULL)
            continue;
        map_put(&seen, key, t);
        reach_namespace(t, t->entries[i].netns);
    }
    map_deinit(&seen);
}

/* ---- explaining, of a table ---- */

/* The table's word for it where it is another than inside of its namespace. */
static const char *outside_text(const struct net_view *v, const struct port_entry *e, struct arena *arena)
{
    struct port_entry asked = *e;
    view_reach(v, &asked, arena);
    struct answer a = seen_outside(v, (struct answer){.reach = asked.reach});
    if (a.reach == asked.reach)
        return "";
    if (a.reach == REACH_NAMESPACE)
        return "  That is the device as it is seen from inside: nobody outside of the namespace.\n";
    return "  That is seen from inside of its namespace, whose only ways out lead to this machine (veth): "
           "others come there only where this machine hands their packets on, such as for a published "
           "port (whose row says who). By itself: this device.\n";
}

struct slice table_explain(struct port_table *t, const struct port_entry *e)
{
    struct room room = {.table = t};
    const struct port_namespace *n = namespace_by_inode(t, e->netns);
    enum err failed = e->netns == t->netns ? read_room(&room)
                      : n != NULL          ? namespace_run(n, read_room, &room)
                                           : ERR_NOT_FOUND;
    if (failed != OK || room.view == NULL)
        return arena_printf(t->arena, "Who can reach it is not known: %s.\n",
                            room.error[0] != '\0' ? room.error : err_text(failed));
    struct slice text = reach_explain(room.view, e, t->arena);
    if (e->netns == t->netns)
        return text;
    return arena_printf(t->arena, SLICE_FMT "%s", SLICE_ARG(text), outside_text(room.view, e, t->arena));
}
