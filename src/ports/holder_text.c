/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger, asked for one port of our own namespace. On the caller's thread alone: the keeper has
 * no other.
 */
#include "ports/holder_text.h"

#include <stdio.h>

#include "ports/declared.h"
#include "ports/ledger.h"

static void add(char *out, size_t cap, const char *what, struct slice name, struct arena *arena)
{
    size_t used = strlen(out);
    if (name.len > 0)
        snprintf(out + used, cap - used, ", %s" SLICE_FMT, what,
                 SLICE_ARG(clean_text(slice_take(name, 100), arena)));
}

static void tell(const struct port_entry *e, char *out, size_t cap, struct arena *arena)
{
    const struct port_owner *o = e->owners;
    while (o != NULL && o->pid == 0)
        o = o->next;
    if (o == NULL) {
        if (e->owners != NULL && e->owners->user.len > 0)
            snprintf(out, cap, "a process of the user " SLICE_FMT, SLICE_ARG(e->owners->user));
        return;
    }
    snprintf(out, cap, SLICE_FMT " (pid %d", SLICE_ARG(clean_text(slice_take(o->program, 64), arena)),
             (int)o->pid);
    add(out, cap, "user ", o->user, arena);
    add(out, cap, "unit ", o->unit, arena);
    add(out, cap, "container ", o->container, arena);
    add(out, cap, "service ", o->service, arena);
    size_t used = strlen(out);
    snprintf(out + used, cap - used, ")");
}

/* Whether a listener there keeps others from binding that address. */
static bool is_in_the_way(const struct port_entry *e, struct slice host)
{
    struct ip_address a;
    if (slice_is(host, "localhost"))
        host = SLICE("127.0.0.1");
    if (host.len == 0 || !ip_parse(host, &a) || address_is_any(&a))
        return true;
    if (address_is_any(&e->address))
        return e->family == PORT_DUAL || (e->family == PORT_IP6) == a.is_six;
    return memcmp(&e->address, &a, sizeof a) == 0;
}

void port_holder_text(struct slice host, uint16_t port, char *out, size_t cap)
{
    const struct socket_options options = {.one_namespace = true};
    struct port_table t = {0};
    struct arena arena;
    char error[256];
    out[0] = '\0';
    arena_init(&arena, 65536);
    t.arena = &arena;
    if (sockets_collect(&t, &options, error, sizeof error) == OK) {
        (void)owners_collect(&t, &options);
        for (size_t i = 0; i < t.count && out[0] == '\0'; i++) {
            const struct port_entry *e = &t.entries[i];
            if (e->port == port && e->protocol == PORT_TCP && e->listening && is_in_the_way(e, host))
                tell(e, out, cap, &arena);
        }
    }
    arena_deinit(&arena);
}
