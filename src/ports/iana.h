/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IANA's registry of service names and port numbers, inside the program: generated at build time by
 * dev/iana from the list that Debian packages (data/iana.txt, with its date).
 */
#pragma once

#include "ports/port.h"

struct iana_entry {
    struct slice name, description;
    uint16_t first, last;
    unsigned protocols; /* 1 << enum port_protocol */
};

/* The entry of a port; NULL: not assigned. */
const struct iana_entry *iana_find(uint16_t port, enum port_protocol);

/* By name, exact or with * as a wildcard; the next one behind `after` (NULL: the first). */
const struct iana_entry *iana_match(struct slice pattern, const struct iana_entry *after);

enum iana_class iana_class_of(uint16_t port);
const char *iana_class_name(enum iana_class); /* "system" */
const char *iana_date(void);                  /* of the list */

/* A sentence for those who learn, of the common ones; NULL: none. */
const char *iana_explained(uint16_t port, enum port_protocol);
