/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions to given DNS servers: authoritative ones, or those that a configuration names. On a
 * fiber; may wait.
 */
#pragma once

#include "certs/dns_message.h"

/* Asks each server until one has answers: the last reply counts. "192.0.2.1", "[2001:db8::1]:53",
 * "ns1.example." By UDP, and by TCP when the reply is cut or does not come. */
enum err dns_query(const struct slice *servers, size_t count, struct slice name, enum dns_type,
                   struct arena *, struct dns_reply **, char *why, size_t cap);

/* The servers of resolv.conf, or well-known ones where it names none. */
size_t dns_system_servers(struct arena *, struct slice *servers, size_t max);
