/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `portico doctor` looks at: the chain of each site, from its name to the program behind it, and
 * the machine. Each link of a chain gets a state, a sentence, and where it is broken what to do.
 */
#pragma once

#include <jansson.h>

#include "app/ports_view.h"

enum link_state { LINK_OK, LINK_NOTE, LINK_BROKEN, LINK_SKIPPED };

/* A chain: a name and its links, in the shape that is printed with --json:
 * {"name", "links": [{"name", "state", "text", "advice"}]} */
json_t *chain_new(struct slice name);
void chain_add(json_t *chain, const char *link, enum link_state, const char *advice,
               const char *format, ...) __attribute__((format(printf, 5, 6)));
const char *link_state_name(enum link_state);

/* A site of the document: a host on a listening address. */
struct doctor_site {
    struct slice host;
    uint16_t port;
    struct slice bind; /* the host of the listening address; empty: all */
    bool tls;
    const json_t *server;
};

enum { DOCTOR_SITES_MAX = 256 };

/* The document's sites; with `only`, those of that name. In the arena. */
size_t doctor_sites(const json_t *document, struct slice only, struct arena *,
                    struct doctor_site **);

/* A new reference. */
json_t *doctor_site(const struct doctor_site *, struct ports_view *);
json_t *doctor_machine(void);
