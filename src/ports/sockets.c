/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each namespace is read from inside (dump.c); where it may not be entered, by the tables in /proc of
 * a process inside. All sockets are then sorted, and those that share address, port, protocol and
 * namespace are one row.
 *
 * A dump walks the kernel's hash tables by pieces, and things change between two of them: a socket
 * may be told twice, so one inode counts once. TCP sockets that are bound and do not listen are dear
 * to find, so they are not looked for in every namespace of a machine full of containers, and as a
 * piece of work of their own: a few threads take one piece after the other.
 */
#include "ports/sockets.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "ports/dump.h"
#include "ports/namespaces.h"
#include "ports/shares.h"

enum { INACTIVE_NAMESPACES = 8, SPARE_ROWS = 64 };

/* A namespace to be read, or those of its sockets that are dear to find. */
struct piece {
    struct port_namespace *ns;
    struct socket_list list;
    struct dump dump;
    enum err result;
};

struct collector {
    struct port_table *table;
    const struct socket_options *options;
    struct port_namespace *namespaces; /* the table's, to write `entered` */
    struct piece *pieces;
    size_t count;
    atomic_size_t next; /* piece that no thread has taken yet */
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
    if (d->full || c->list.count == SOCKET_LIST_MAX)
        table_unseen(c->table, "there are more than %zu sockets; the others were not read", SOCKET_LIST_MAX);
}

/* By its diagnostics; where we may not enter, by a process inside. */
static void read_piece(struct piece *p)
{
    struct port_namespace *ns = p->ns;
    p->dump.list = &p->list;
    p->result = namespace_run(ns, dump_inside, &p->dump);
    if (p->dump.inactive)
        return;
    ns->entered = p->result;
    if (p->result != OK && ns->pid != 0 && ns->name.len > 0) {
        p->dump.pid = ns->pid;
        p->result = dump_sockets(&p->dump);
    }
}

static void read_pieces(void *arg, size_t member, size_t from, size_t to)
{
    struct collector *c = arg;
    for (;;) {
        size_t i = atomic_fetch_add(&c->next, 1);
        if (i >= c->count)
            return;
        read_piece(&c->pieces[i]);
    }
}

static void make_pieces(struct collector *c)
{
    size_t n = c->table->namespaces_count;
    c->pieces = mem_zalloc((n + INACTIVE_NAMESPACES) * sizeof *c->pieces);
    for (size_t i = 0; i < n; i++) {
        struct dump d = {.netns = c->namespaces[i].inode, .diag = -1,
                         .from_procfs = c->options->from_procfs};
        c->pieces[c->count++] = (struct piece){.ns = &c->namespaces[i], .dump = d};
        d.inactive = true;
        if (i < INACTIVE_NAMESPACES && !d.from_procfs)
            c->pieces[c->count++] = (struct piece){.ns = &c->namespaces[i], .dump = d};
    }
}

static void add_sockets(struct collector *c, const struct piece *p)
{
    size_t room = SOCKET_LIST_MAX - c->list.count;
    size_t n = p->list.count < room ? p->list.count : room;
    if (n > 0)
        memcpy(c->list.items + c->list.count, p->list.items, n * sizeof *p->list.items);
    c->list.count += n;
}

/* That those which do nothing could not be read is told by nobody: older kernels never tell them. */
static void take_piece(struct collector *c, struct piece *p)
{
    add_sockets(c, p);
    socket_list_deinit(&p->list);
    tell(c, p->ns, &p->dump);
    if (p->dump.inactive)
        return;
    if (p->result == OK) {
        c->read++;
        return;
    }
    c->worst = p->result;
    table_unseen(c->table, "the sockets of namespace " SLICE_FMT " could not be read: %s",
                 SLICE_ARG(p->ns->name), err_text(p->ns->entered));
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
    size_t kept = 0, rows = 0;
    for (size_t i = 0; i < l->count; i++)
        rows += i == 0 || by_key(&l->items[i - 1], &l->items[i]) != 0;
    table_reserve(c->table, rows + SPARE_ROWS);
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
    size_t all = 0, size;
    make_pieces(c);
    size = share_count(c->count, 1);
    share_run(size, size, read_pieces, c);
    for (size_t i = 0; i < c->count; i++)
        all += c->pieces[i].list.count;
    c->list.items = mem_resize(NULL, all + 1, sizeof *c->list.items);
    for (size_t i = 0; i < c->count; i++)
        take_piece(c, &c->pieces[i]);
    mem_free(c->pieces);
    if (c->table->namespaces_count > INACTIVE_NAMESPACES)
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
