/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The admin endpoint as a site of the control thread: where it listens, whom it answers to, and how
 * it moves from one configuration to the next.
 */
#pragma once

#include "app/generation.h"
#include "net/address.h"
#include "wire/h1_conn.h"

struct admin_site;

struct admin_host { /* what it needs of the control thread */
    enum err (*open)(const struct network_address *, int *fd, char *error, size_t cap);
    void (*release)(const struct network_address *);
};

#define ADMIN_DEFAULT "localhost:2019"

void admin_site_init(struct loop *, struct h1_worker *, const struct admin_host *);

/* Opens what the generation asks for, beside the endpoint that runs; *out stays NULL when nothing
 * has changed. Nothing is answered before the commit. */
enum err admin_site_prepare(const struct generation *, struct admin_site **out, char *error,
                            size_t cap);
void admin_site_commit(const struct generation *, struct admin_site *fresh);

/* Stops accepting; requests that run are finished. */
void admin_site_close(void);
