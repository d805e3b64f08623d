/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text of a connection's address, as placeholders and logs hold it: without brackets, with the
 * zone of a link-local one; the port apart.
 */
#pragma once

#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum { ADDRESS_TEXT = INET6_ADDRSTRLEN + 1 + IF_NAMESIZE }; /* "fe80::1%eth0" */

/* The peer of a connection. It stays what it is, so it is asked for once: an IPv4 one is kept in
 * `four`, which is zero before. Returns `a`. */
const struct sockaddr_storage *peer_address(int fd, struct sockaddr_in *four,
                                            struct sockaddr_storage *a);

/* An IPv4 address that is mapped into IPv6 reads as IPv4; a Unix socket's is "@". */
void peer_text(const struct sockaddr_storage *, char *host, size_t cap, char port[8]);
