/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listening sockets of the process, by address: what the keeper holds for it. An address that two
 * configurations name keeps its sockets. For the control thread.
 */
#pragma once

#include "app/generation.h"
#include "app/worker.h"
#include "net/address.h"

struct used_address;

/* Sockets that a new generation needs and the running one does not have. */
struct opening {
    struct new_socket *per_worker[WORKERS_MAX]; /* arrays of `count`, in the generation's arena */
    size_t count;
    struct used_address *addresses; /* not yet among the used ones */
};

/* Asks the keeper for them. On failure nothing is left open. */
enum err listening_open(struct opening *, struct generation *, char *error, size_t cap);

void listening_abandon(struct opening *);

/* Lets the keeper forget what the generation does not name; before the workers close their sockets:
 * the last one that is closed resets what is queued. */
void listening_release_gone(const struct generation *);

/* Behind the workers' taking over: what was opened is among the used addresses. */
void listening_keep(struct opening *);

/* Calls `visit` for each used address with the port that the kernel chose where 0 was asked for. */
void listening_each(void (*visit)(struct slice network, struct slice host, unsigned port));

/* The admin endpoint's socket, which the keeper holds as it does a server's, and must let go as well. */
enum err listening_open_admin(const struct network_address *, int *fd, char *error, size_t cap);
void listening_release_admin(const struct network_address *);

/* A port that is open for as long as an authority looks for an answer there; the keeper keeps none of
 * it. ERR_EXISTS: one of our servers listens there, and answers. */
enum err listening_challenge(struct slice host, uint16_t port, int *fd, char *why, size_t cap);
