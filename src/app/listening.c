/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each address has one socket for each worker, or copies of one where the keeper has no more. All are
 * opened before a generation is taken over, so that a port that is not to be had changes nothing.
 * An address is known by its bound's key.
 */
#include "app/listening.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "app/crew.h"
#include "app/keeper_link.h"
#include "base/mem.h"

struct used_address {
    struct used_address *next;
    struct slice key; /* malloc'd */
    char network[16], host[256];
    uint16_t port, got_port; /* asked for, and what the kernel gave */
};

static struct used_address *used; /* what the keeper holds for us */

/* --- an address --- */

static struct used_address *new_address(struct slice key, struct slice network, struct slice host,
                                        uint16_t port)
{
    struct used_address *a = NEW(struct used_address);
    a->key = slice_of(slice_dup(key), key.len);
    snprintf(a->network, sizeof a->network, SLICE_FMT, SLICE_ARG(network));
    snprintf(a->host, sizeof a->host, SLICE_FMT, SLICE_ARG(host));
    a->port = port;
    return a;
}

static struct used_address *find_address(struct slice key)
{
    for (struct used_address *a = used; a != NULL; a = a->next) {
        if (slice_eq(a->key, key))
            return a;
    }
    return NULL;
}

static struct keeper_message message_about(const struct used_address *a, enum keeper_kind kind)
{
    struct keeper_message m = {.kind = kind, .port = a->port};
    memcpy(m.network, a->network, sizeof m.network);
    memcpy(m.host, a->host, sizeof m.host);
    return m;
}

/* Asks for the sockets of an address and waits for the answer. */
static enum err ask_sockets(struct used_address *a, unsigned count, int *fds, unsigned *got,
                            char *error, size_t cap)
{
    struct keeper_message m = message_about(a, KEEPER_LISTEN);
    m.count = (uint16_t)count;
    m.uid = geteuid();
    m.gid = getegid();
    *got = KEEPER_FDS;
    enum err e = keeper_link_ask(&m, fds, got);
    if (e != OK) {
        snprintf(error, cap, "the keeper process does not answer: %s", err_text(e));
        return e;
    }
    while (*got > count)
        close(fds[--*got]);
    if (m.error != OK) {
        snprintf(error, cap, "%s", m.text[0] != '\0' ? m.text : err_text((enum err)m.error));
        return (enum err)m.error;
    }
    a->got_port = m.port;
    return *got > 0 ? OK : ERR_IO;
}

static void free_address(struct used_address *a)
{
    mem_free((void *)(uintptr_t)a->key.ptr);
    mem_free(a);
}

/* Returns when the keeper has let go: its copy would go on taking connections that nobody accepts,
 * and reset them at its end. */
static void release_address(struct used_address *a)
{
    unsigned none = 0;
    struct keeper_message m = message_about(a, KEEPER_RELEASE);
    (void)!keeper_link_ask(&m, NULL, &none);
    free_address(a);
}

/* --- new sockets of a generation --- */

void listening_abandon(struct opening *o)
{
    for (unsigned w = 0; w < crew_size(); w++) {
        for (size_t i = 0; i < o->count; i++)
            close(o->per_worker[w][i].fd);
    }
    while (o->addresses != NULL) {
        struct used_address *a = o->addresses;
        o->addresses = a->next;
        release_address(a);
    }
}

/* One socket for each worker; where there are fewer, the rest get copies. What is not handed out is
 * closed. */
static enum err spread(struct opening *o, struct slice key, const int *fds, unsigned got)
{
    unsigned w;
    for (w = 0; w < crew_size(); w++) {
        int fd = w < got ? fds[w] : fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
        if (fd < 0)
            break;
        o->per_worker[w][o->count] = (struct new_socket){key, fd};
    }
    for (unsigned i = w; i < got; i++)
        close(fds[i]);
    if (w == crew_size()) {
        o->count++;
        return OK;
    }
    while (w > 0)
        close(o->per_worker[--w][o->count].fd);
    return ERR_LIMIT;
}

static enum err open_bound(struct opening *o, const struct bound *b, char *error, size_t cap)
{
    int fds[KEEPER_FDS];
    unsigned got;
    if (find_address(b->key) != NULL)
        return OK;
    if (b->host.len >= sizeof ((struct used_address *)0)->host) {
        snprintf(error, cap, "listen address is too long");
        return ERR_INVALID;
    }
    struct used_address *a = new_address(b->key, b->network, b->host, b->port);
    enum err e = ask_sockets(a, crew_size(), fds, &got, error, cap);
    if (e != OK) {
        free_address(a);
        return e;
    }
    a->next = o->addresses;
    o->addresses = a;
    e = spread(o, b->key, fds, got);
    if (e != OK)
        snprintf(error, cap, "listen " SLICE_FMT ": out of file descriptors", SLICE_ARG(b->key));
    return e;
}

enum err listening_open(struct opening *o, struct generation *g, char *error, size_t cap)
{
    for (unsigned w = 0; w < crew_size(); w++)
        o->per_worker[w] = ARENA_ARRAY(&g->arena, struct new_socket, g->bounds_count + 1);
    for (size_t i = 0; i < g->bounds_count; i++) {
        enum err e = open_bound(o, &g->bounds[i], error, cap);
        if (e != OK) {
            listening_abandon(o);
            return e;
        }
    }
    return OK;
}

static bool still_bound(const struct generation *g, struct slice key)
{
    for (size_t i = 0; i < g->bounds_count; i++) {
        if (slice_eq(g->bounds[i].key, key))
            return true;
    }
    return false;
}

void listening_release_gone(const struct generation *g)
{
    struct used_address **at = &used;
    while (*at != NULL) {
        struct used_address *a = *at;
        if (still_bound(g, a->key)) {
            at = &a->next;
            continue;
        }
        *at = a->next;
        release_address(a);
    }
}

void listening_keep(struct opening *o)
{
    struct used_address **at = &used;
    while (*at != NULL)
        at = &(*at)->next;
    *at = o->addresses;
}

void listening_each(void (*visit)(struct slice network, struct slice host, unsigned port))
{
    for (const struct used_address *a = used; a != NULL; a = a->next)
        visit(slice_from(a->network), slice_from(a->host), a->got_port);
}

/* --- sockets that no server has --- */

enum err listening_open_admin(const struct network_address *a, int *fd, char *error, size_t cap)
{
    int fds[KEEPER_FDS];
    unsigned got;
    struct used_address *mine = new_address(SLICE("admin"), a->network, a->host, a->first_port);
    enum err e = ask_sockets(mine, 1, fds, &got, error, cap);
    free_address(mine);
    if (e == OK)
        *fd = fds[0];
    return e;
}

void listening_release_admin(const struct network_address *a)
{
    release_address(new_address(SLICE("admin"), a->network, a->host, a->first_port));
}

enum err listening_challenge(struct slice host, uint16_t port, int *fd, char *why, size_t cap)
{
    int fds[KEEPER_FDS];
    unsigned got;
    for (const struct used_address *a = used; a != NULL; a = a->next) {
        if (a->port == port && !network_is_unix(slice_from(a->network)))
            return ERR_EXISTS;
    }
    struct used_address *mine = new_address(SLICE("challenge"), SLICE("tcp"), host, port);
    enum err e = ask_sockets(mine, 1, fds, &got, why, cap);
    if (e != OK) {
        free_address(mine);
        return e;
    }
    *fd = fds[0];
    release_address(mine);
    return OK;
}
