/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each namespace is read from inside (dump.c); where it may not be entered, by the tables in /proc of
 * a process inside. All sockets are then sorted, and those that share address, port, protocol and
 * namespace are one row.
 *
 * A dump walks the kernel's hash tables by pieces, and things change between two of them: a socket
 * may be told twice, so one inode counts once. TCP sockets that are bound and do not listen are dear
 * to find, so they are not looked for in every namespace of a machine full of containers.
 */
#include "ports/sockets.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "ports/dump.h"
#include "ports/namespaces.h"

enum { INACTIVE_NAMESPACES = 8 };

struct collector {
    struct port_table *table;
    const struct socket_options *options;
    struct port_namespace *namespaces; /* the table's, to write `entered` */
    struct socket_list list;
    enum err worst;
    size_t read; /* namespaces */
};

static enum err dump_inside(void *arg)
{
    return dump_sockets(arg);
}

static void tell(struct collector *c, const struct port_namespace *ns, const struct dump *d)
{
    const char *of = ns->name.len > 0 ? " of namespace " : "";
    if (d->guessed)
        table_unseen(c->table,
                     "the sockets%s" SLICE_FMT " were read from /proc/net, which does not tell whether "
                     "those on [::] take IPv4 too, nor their devices",
                     of, SLICE_ARG(ns->name));
    if (d->torn)
        table_unseen(c->table, "sockets%s" SLICE_FMT " changed while they were read; some may be missing",
                     of, SLICE_ARG(ns->name));
    if (d->full)
        table_unseen(c->table, "there are more than %zu sockets; the others were not read", SOCKET_LIST_MAX);
}

/* Each by its diagnostics; where we may not enter, by a process inside. */
static void read_namespace(struct collector *c, struct port_namespace *ns, bool inactive)
{
    struct dump d = {.list = &c->list, .netns = ns->inode, .inactive = inactive, .diag = -1,
                     .from_procfs = c->options->from_procfs};
    ns->entered = namespace_run(ns, dump_inside, &d);
    enum err e = ns->entered;
    if (e != OK && ns->pid != 0 && ns->name.len > 0) {
        d.pid = ns->pid;
        e = dump_sockets(&d);
    }
    tell(c, ns, &d);
    if (e == OK) {
        c->read++;
        return;
    }
    c->worst = e;
    table_unseen(c->table, "the sockets of namespace " SLICE_FMT " could not be read: %s",
                 SLICE_ARG(ns->name), err_text(ns->entered));
}

static int compare(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

/* `row` holds the place of the namespace until rows are made. */
static int by_key(const void *a, const void *b)
{
    const struct bound_socket *x = a, *y = b;
    int c = compare(x->port, y->port);
    if (c == 0)
        c = compare(x->protocol, y->protocol);
    if (c == 0)
        c = compare(x->family, y->family);
    if (c == 0)
        c = memcmp(&x->address, &y->address, sizeof x->address);
    if (c == 0)
        c = compare(x->row, y->row);
    return c != 0 ? c : compare(x->device, y->device);
}

static int by_key_and_inode(const void *a, const void *b)
{
    const struct bound_socket *x = a, *y = b;
    int c = by_key(a, b);
    return c != 0 ? c : compare(x->inode, y->inode);
}

static int by_inode(const void *a, const void *b)
{
    const struct bound_socket *x = a, *y = b;
    int c = compare(x->inode, y->inode);
    return c != 0 ? c : compare(x->row, y->row);
}

static void place_namespaces(struct collector *c)
{
    size_t place = 0;
    for (size_t i = 0; i < c->list.count; i++) { /* in the order of the namespaces */
        while (c->namespaces[place].inode != c->list.items[i].netns)
            place++;
        c->list.items[i].row = (uint32_t)place;
    }
}

static bool is_listening(const struct bound_socket *s)
{
    bool datagrams = s->protocol == PORT_UDP || s->protocol == PORT_UDPLITE;
    return datagrams || s->state == STATE_LISTEN;
}

static void start_row(struct collector *c, const struct bound_socket *s)
{
    struct port_entry *e = table_add(c->table);
    e->port = s->port;
    e->protocol = s->protocol;
    e->family = s->family;
    e->address = s->address;
    e->scope = s->device;
    e->netns = s->netns;
    e->namespace = c->namespaces[s->row].name;
    e->inode = s->inode;
    e->uid = s->uid;
}

/* Sorted sockets become rows; each socket remembers its own. */
static void make_rows(struct collector *c)
{
    struct bound_socket before = {0}; /* with its place, not its row */
    struct socket_list *l = &c->list;
    size_t kept = 0;
    for (size_t i = 0; i < l->count; i++) {
        struct bound_socket s = l->items[i];
        bool same = i > 0 && by_key(&before, &s) == 0;
        if (same && s.inode != 0 && s.inode == before.inode)
            continue;
        if (!same)
            start_row(c, &s);
        before = s;
        struct port_entry *e = &c->table->entries[c->table->count - 1];
        e->sockets++;
        e->listening = e->listening || is_listening(&s);
        s.row = (uint32_t)(c->table->count - 1);
        l->items[kept++] = s;
    }
    l->count = kept;
}

static void keep_bound(struct collector *c)
{
    struct port_table *t = c->table;
    struct bound_socket *all = ARENA_ARRAY(t->arena, struct bound_socket, c->list.count + 1);
    if (c->list.count > 0) {
        qsort(c->list.items, c->list.count, sizeof *all, by_inode);
        memcpy(all, c->list.items, c->list.count * sizeof *all);
    }
    t->bound = all;
    t->bound_count = c->list.count;
}

static void read_all(struct collector *c)
{
    size_t count = c->table->namespaces_count;
    for (size_t i = 0; i < count; i++)
        read_namespace(c, &c->namespaces[i], i < INACTIVE_NAMESPACES);
    if (count > INACTIVE_NAMESPACES)
        table_unseen(c->table, "TCP sockets that are bound and do not listen were looked for in %d "
                     "namespaces only", INACTIVE_NAMESPACES);
}

enum err sockets_collect(struct port_table *t, const struct socket_options *options, char *error,
                         size_t cap)
{
    struct collector c = {.table = t, .options = options};
    namespaces_find(t, options->one_namespace);
    c.namespaces = ARENA_ARRAY(t->arena, struct port_namespace, t->namespaces_count);
    memcpy(c.namespaces, t->namespaces, t->namespaces_count * sizeof *c.namespaces);
    t->namespaces = c.namespaces;
    read_all(&c);
    if (c.read == 0) {
        snprintf(error, cap, "the kernel tells of no sockets: %s", err_text(c.worst));
        socket_list_deinit(&c.list);
        return c.worst;
    }
    place_namespaces(&c);
    if (c.list.count > 0)
        qsort(c.list.items, c.list.count, sizeof *c.list.items, by_key_and_inode);
    make_rows(&c);
    keep_bound(&c);
    socket_list_deinit(&c.list);
    return OK;
}
