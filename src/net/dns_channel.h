/* SPDX-License-Identifier: Apache-2.0 */
/*
 * c-ares on a loop: a channel is one set of DNS servers, search domains and open questions. All of
 * it runs on the loop's own stack.
 */
#pragma once

#include <ares.h>

#include "loop/loop.h"

struct dns_channel;

struct dns_options {
    const char *servers;     /* "192.0.2.1:53,[2001:db8::1]"; NULL: those of resolv.conf */
    const char *resolv_conf; /* NULL: /etc/resolv.conf */
    unsigned timeout_ms;     /* of the first try, doubled by each round; 0: resolv.conf, or 2 s */
    unsigned tries;          /* rounds over all servers; 0: resolv.conf, or 3 */
};

/* The strings are read during the call only. ERR_INVALID when the servers cannot be read. */
enum err dns_channel_open(struct loop *, const struct dns_options *, struct dns_channel **) MUST_USE;

/* Ends at once: open questions are answered with ARES_EDESTRUCTION before it returns. Its sockets
 * close when the loop has told that nothing waits for them any more, within its next turns. */
void dns_channel_close(struct dns_channel *);

/* `ai` is the callee's, to be freed with ares_freeaddrinfo; NULL unless the status is ARES_SUCCESS. */
typedef void dns_answer(void *arg, int status, struct ares_addrinfo *ai);

/* Addresses of both families, in the order of RFC 6724: of /etc/hosts first, then by DNS with search
 * domains. May answer during the call. */
void dns_ask(struct dns_channel *, const char *name, dns_answer *, void *arg);

/* The same of one family, or of both (AF_UNSPEC). */
void dns_ask_family(struct dns_channel *, const char *name, int family, dns_answer *, void *arg);

/* A whole answer, valid during the call; NULL unless the status is ARES_SUCCESS. */
typedef void dns_bytes(void *arg, int status, const unsigned char *answer, int len);

/* SRV records (RFC 2782), with search domains. */
void dns_ask_services(struct dns_channel *, const char *name, dns_bytes *, void *arg);

/* The first address of a family that /etc/hosts gives, as a struct in_addr or in6_addr; false when
 * there is none. */
bool dns_ask_hosts(struct dns_channel *, const char *name, int family, void *address);
