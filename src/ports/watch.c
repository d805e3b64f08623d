/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A look is a dump of each namespace, summed up in one number that does not depend on the order of
 * the sockets. The diagnostics' socket of a namespace stays in it wherever our threads are, so
 * namespaces are entered once; a socket also keeps its namespace alive, so every two seconds those
 * that are gone are let go, and new ones taken in. TCP sockets that do not listen are not looked for:
 * that walk costs more than all the others.
 *
 * The diagnostics also have groups that tell of every socket's end. That is a message for each
 * connection of a busy server, and work for the kernel at each, so a namespace in which much ends is
 * left alone with events for some seconds. Only ends without a peer's port matter: of listening and
 * unconnected sockets.
 */
#include "ports/watch.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "ports/dump.h"
#include "ports/namespaces.h"

enum {
    NAMESPACES_EVERY_MS = 2000,
    SETTLE_MS = 10,       /* from an event to a look: ends come in crowds */
    EVENTS_MAX = 64,      /* between two looks; more: no events for QUIET_MS */
    QUIET_MS = 5000,
    PLACES_WITH_EVENTS = 64,
    EVENT_GROUPS = 0xf,   /* SKNLGRP_INET_TCP_DESTROY … SKNLGRP_INET6_UDP_DESTROY */
};

/* A namespace that is watched. */
struct place {
    uint64_t netns;
    bool own;            /* the one that we are in */
    pid_t pid;           /* by whose tables another is read where `diag` is -1; 0: nobody's */
    int diag, events;    /* sockets in it; -1 */
    unsigned told;       /* events since the last look */
    uint64_t quiet_until;
    bool seen;           /* by the present search */
};

struct port_watch {
    struct socket_options options;
    uint64_t interval_ns, next_look, next_search;
    uint64_t sum;        /* of the sockets at the last look */
    struct place *places;
    size_t count, cap;
};

struct sockets_inside {
    int diag, events;
    bool from_procfs;
};

static int open_events(void)
{
    struct sockaddr_nl all = {.nl_family = AF_NETLINK, .nl_groups = EVENT_GROUPS};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&all, sizeof all) < 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static enum err open_inside(void *arg)
{
    struct sockets_inside *s = arg;
    s->diag = s->from_procfs ? -1 : dump_open();
    s->events = s->from_procfs ? -1 : open_events();
    return OK;
}

static void close_one(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static struct place *find_place(struct port_watch *w, uint64_t netns)
{
    for (size_t i = 0; i < w->count; i++) {
        if (w->places[i].netns == netns)
            return &w->places[i];
    }
    return NULL;
}

static void add_place(struct port_watch *w, const struct port_namespace *ns)
{
    struct sockets_inside s = {.diag = -1, .events = -1, .from_procfs = w->options.from_procfs};
    namespace_run(ns, open_inside, &s);
    if (w->count >= PLACES_WITH_EVENTS)
        close_one(&s.events);
    if (w->count == w->cap) {
        w->cap = 2 * w->cap + 8;
        w->places = mem_resize(w->places, w->cap, sizeof *w->places);
    }
    w->places[w->count] = (struct place){
        .netns = ns->inode,
        .own = w->count == 0, /* namespaces_find gives it first */
        .pid = ns->pid,
        .diag = s.diag,
        .events = s.events,
        .seen = true,
    };
    w->count++;
}

static void drop_unseen(struct port_watch *w)
{
    size_t kept = 0;
    for (size_t i = 0; i < w->count; i++) {
        struct place *p = &w->places[i];
        if (p->seen) {
            w->places[kept++] = *p;
            continue;
        }
        close_one(&p->diag);
        close_one(&p->events);
    }
    w->count = kept;
}

static void search_namespaces(struct port_watch *w)
{
    struct arena arena;
    struct port_table t = {.arena = &arena};
    arena_init(&arena, 16 << 10);
    namespaces_find(&t, w->options.one_namespace);
    for (size_t i = 0; i < w->count; i++)
        w->places[i].seen = false;
    for (size_t i = 0; i < t.namespaces_count; i++) {
        struct place *p = find_place(w, t.namespaces[i].inode);
        if (p == NULL)
            add_place(w, &t.namespaces[i]);
        else
            p->seen = true;
    }
    drop_unseen(w);
    arena_deinit(&arena);
}

static uint64_t hash_socket(const struct bound_socket *s)
{
    uint64_t words[6] = {0};
    words[0] = s->netns;
    words[1] = s->inode;
    words[2] = (uint64_t)s->port << 32 | (uint64_t)s->protocol << 16 | (uint64_t)s->family << 8 | s->state;
    words[3] = s->device;
    memcpy(&words[4], s->address.bytes, sizeof s->address.bytes);
    return hash_bytes(slice_of((const char *)words, sizeof words));
}

static void dump_place(const struct port_watch *w, struct place *p, struct socket_list *list)
{
    bool inside = p->diag >= 0 || p->own;
    struct dump d = {.list = list, .netns = p->netns, .diag = p->diag, .pid = inside ? 0 : p->pid,
                     .from_procfs = w->options.from_procfs};
    p->told = 0;
    if (inside || p->pid != 0)
        dump_sockets(&d);
}

bool port_watch_look(struct port_watch *w)
{
    struct socket_list list = {0};
    uint64_t now = clock_mono_ns(), sum = 0;
    if (now >= w->next_search) {
        search_namespaces(w);
        w->next_search = now + NAMESPACES_EVERY_MS * NS_PER_MS;
    }
    for (size_t i = 0; i < w->count; i++)
        dump_place(w, &w->places[i], &list);
    for (size_t i = 0; i < list.count; i++)
        sum += hash_socket(&list.items[i]);
    socket_list_deinit(&list);
    bool changed = sum != w->sum;
    w->sum = sum;
    w->next_look = clock_mono_ns() + w->interval_ns;
    return changed;
}

enum err port_watch_open(struct port_watch **out, const struct socket_options *o, unsigned interval_ms,
                         char *error, size_t cap)
{
    struct port_watch *w = NEW(struct port_watch);
    struct socket_list list = {0};
    struct dump d = {.list = &list, .diag = -1, .from_procfs = o->from_procfs};
    enum err e = dump_sockets(&d);
    socket_list_deinit(&list);
    if (e != OK) {
        snprintf(error, cap, "the kernel tells of no sockets: %s", err_text(e));
        mem_free(w);
        return e;
    }
    w->options = *o;
    w->interval_ns = (interval_ms < 10 ? 10 : interval_ms) * NS_PER_MS;
    port_watch_look(w);
    *out = w;
    return OK;
}

void port_watch_close(struct port_watch *w)
{
    if (w == NULL)
        return;
    for (size_t i = 0; i < w->count; i++)
        w->places[i].seen = false;
    drop_unseen(w);
    mem_free(w->places);
    mem_free(w);
}

/* Whether a socket without a peer has ended. */
static bool is_end(const char *bytes, size_t len)
{
    struct inet_diag_msg m;
    if (len < sizeof(struct nlmsghdr) + sizeof m)
        return false;
    memcpy(&m, bytes + sizeof(struct nlmsghdr), sizeof m);
    return m.id.idiag_dport == 0 && m.id.idiag_sport != 0;
}

/* Reads what the place tells; whether it is worth a look. */
static bool take_events(struct place *p)
{
    char bytes[1024];
    bool worth = false;
    while (p->told <= EVENTS_MAX) {
        ssize_t n = recv(p->events, bytes, sizeof bytes, 0);
        if (n < 0 && errno == ENOBUFS)
            p->told = EVENTS_MAX;
        else if (n <= 0)
            return worth;
        else
            worth = is_end(bytes, (size_t)n) || worth;
        p->told++;
    }
    close_one(&p->events);
    p->quiet_until = clock_mono_ns() + QUIET_MS * NS_PER_MS;
    return true;
}

static enum err reopen_inside(void *arg)
{
    *(int *)arg = open_events();
    return OK;
}

/* Events again where it has been quiet long enough. */
static void listen_again(struct port_watch *w)
{
    uint64_t now = clock_mono_ns();
    for (size_t i = 0; i < w->count; i++) {
        struct place *p = &w->places[i];
        struct port_namespace ns = {.inode = p->netns, .pid = p->pid};
        if (p->quiet_until == 0 || now < p->quiet_until)
            continue;
        p->quiet_until = 0;
        namespace_run(&ns, reopen_inside, &p->events);
    }
}

static enum err wait_events(struct port_watch *w, uint64_t until, bool *worth)
{
    struct pollfd fds[PLACES_WITH_EVENTS];
    struct place *whose[PLACES_WITH_EVENTS];
    size_t n = 0;
    uint64_t now = clock_mono_ns();
    for (size_t i = 0; i < w->count && n < PLACES_WITH_EVENTS; i++) {
        if (w->places[i].events < 0)
            continue;
        whose[n] = &w->places[i];
        fds[n++] = (struct pollfd){.fd = w->places[i].events, .events = POLLIN};
    }
    int left = now >= until ? 0 : (int)((until - now + NS_PER_MS - 1) / NS_PER_MS);
    int got = poll(fds, n, left);
    if (got < 0)
        return errno == EINTR ? ERR_CANCELLED : err_from_errno(errno);
    for (size_t i = 0; i < n && got > 0; i++) {
        if (fds[i].revents != 0)
            *worth = take_events(whose[i]) || *worth;
    }
    return OK;
}

enum err port_watch_wait(struct port_watch *w, unsigned timeout_ms)
{
    uint64_t end = clock_mono_ns() + timeout_ms * NS_PER_MS;
    for (;;) {
        bool worth = false;
        uint64_t until = w->next_look < end ? w->next_look : end, now;
        listen_again(w);
        TRY(wait_events(w, until, &worth));
        now = clock_mono_ns();
        if (worth && w->next_look > now + SETTLE_MS * NS_PER_MS)
            w->next_look = now + SETTLE_MS * NS_PER_MS;
        if (now >= w->next_look && port_watch_look(w))
            return OK;
        if (now >= end)
            return ERR_TIMEOUT;
    }
}
