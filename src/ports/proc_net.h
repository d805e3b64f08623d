/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text tables of /proc/net (tcp, tcp6, udp, udp6, udplite, udplite6, sctp/eps), for where the
 * socket diagnostics are refused. They tell neither IPV6_V6ONLY nor a bound device. Pure.
 */
#pragma once

#include "base/err.h"
#include "ports/bound.h"

/* A whole table. Its listening (TCP) or unconnected (UDP) sockets are added; lines that are not
 * understood are counted in `*odd`. ERR_LIMIT: the list is full. */
enum err proc_net_parse(struct slice text, enum port_protocol, bool is_six, struct socket_list *,
                        size_t *odd);
enum err proc_sctp_parse(struct slice text, struct socket_list *, size_t *odd);

/* Of sockets on [::] the table does not say whether they take IPv4 too: those whose port is also
 * bound on an IPv4 address become IPv6 only. From `first` on, which are of one namespace. */
void proc_net_guess_dual(struct socket_list *, size_t first);
