/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of sockets, on the heap: it is as long as a machine has sockets, and most of it is merged
 * away before anything is kept.
 */
#include "ports/bound.h"

#include "base/mem.h"

void socket_list_deinit(struct socket_list *l)
{
    mem_free(l->items);
    *l = (struct socket_list){0};
}

struct bound_socket *socket_list_add(struct socket_list *l)
{
    if (l->count == SOCKET_LIST_MAX)
        return NULL;
    if (l->count == l->cap) {
        l->cap = l->cap == 0 ? 256 : 2 * l->cap;
        l->items = mem_resize(l->items, l->cap, sizeof *l->items);
    }
    struct bound_socket *s = &l->items[l->count++];
    memset(s, 0, sizeof *s);
    return s;
}

void bound_set_four(struct bound_socket *s, const uint8_t bytes[4])
{
    s->family = PORT_IP4;
    memset(&s->address, 0, sizeof s->address);
    memcpy(s->address.bytes, bytes, 4);
}

void bound_set_six(struct bound_socket *s, const uint8_t bytes[16], bool v6only)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, zero[16];
    if (memcmp(bytes, mapped, sizeof mapped) == 0) {
        bound_set_four(s, bytes + 12);
        return;
    }
    s->family = memcmp(bytes, zero, 16) == 0 && !v6only ? PORT_DUAL : PORT_IP6;
    s->address.is_six = 1;
    memcpy(s->address.bytes, bytes, 16);
}
