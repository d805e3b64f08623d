/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where things of a configuration were written: for each value of the document that a person may be
 * told about (a site's listener, a service, a declared port, an upstream), the file and line of the
 * Caddyfile that it came from. A side table, since the document is Caddy's to the byte.
 */
#pragma once

#include "base/arena.h"

struct origin {
    struct slice path; /* of the value in the document: "apps.ports.declarations[0]". What stands at
                          many places of it has its own text instead: "listen :443" for the sites of
                          an address, "upstream localhost:3000" */
    struct slice name; /* what a person calls it: "example.com", "simon", "localhost:3000" */
    struct slice file; /* as it was named when it was read */
    uint32_t line;     /* from 1 */
};

/* All in one arena; sorted by path. */
struct origins {
    struct arena arena;
    struct origin *items;
    size_t count, cap;
};

void origins_init(struct origins *);
void origins_deinit(struct origins *);

/* Copies all three. Kept even when the same path has one already (a listener of several sites). */
void origins_add(struct origins *, struct slice path, struct slice name, struct slice file,
                 uint32_t line);
void origins_sort(struct origins *);

/* The first of the path, and how many there are; NULL for none. After origins_sort. */
const struct origin *origins_find(const struct origins *, struct slice path, size_t *count);
