/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bound socket as the kernel tells it, and a growing list of them: what sock_diag.c and proc_net.c
 * make of bytes, and sockets.c rows of.
 */
#pragma once

#include <sys/types.h>

#include "net/ip_set.h"
#include "ports/port.h"

/* States of include/net/tcp_states.h; the other protocols use the same numbers. */
enum {
    STATE_ESTABLISHED = 1,
    STATE_CLOSE = 7, /* UDP: bound, not connected */
    STATE_LISTEN = 10,
    STATE_BOUND_INACTIVE = 13, /* TCP: bound and nothing else; told since 6.8 */
};

struct bound_socket {
    uint64_t netns;
    uint64_t inode; /* 0: of no file */
    uint32_t row;   /* index in the table's entries, once there */
    uint32_t device;
    uid_t uid;
    uint16_t port;
    uint8_t protocol, family; /* enum port_protocol, enum port_family */
    uint8_t state;
    struct ip_address address;
};

struct socket_list {
    struct bound_socket *items; /* on the heap */
    size_t count, cap;
};

/* Beyond it sockets are not listed: bytes from the kernel are bounded as any others. */
#define SOCKET_LIST_MAX ((size_t)4 << 20)

void socket_list_deinit(struct socket_list *);

/* A zeroed one at the end, valid until the next; NULL: the list is full. */
struct bound_socket *socket_list_add(struct socket_list *);

/* The sixteen bytes of an IPv6 address, as what is really bound: ::ffff:192.0.2.1 is IPv4. */
void bound_set_six(struct bound_socket *, const uint8_t bytes[16], bool v6only);
void bound_set_four(struct bound_socket *, const uint8_t bytes[4]);
