/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose a published port is: the socket on the machine's side belongs to the runtime (docker-proxy,
 * dockerd, Podman's conmon), and the container behind it is what a person knows.
 */
#pragma once

#include "ports/port.h"

/* Gives owners that publish ports of containers the container's name. `root`: in front of every path,
 * "" but in tests. */
void table_published(struct port_table *, const char *root);

/* Who can reach a published port can reach the container's own, behind it. Behind table_reach. */
void table_reach_published(struct port_table *);

/* Of the text of /proc/PID/cmdline: the word behind the first of `options` (with spaces between them) that
 * stands there; empty: none. Pure. */
struct slice argument_behind(struct slice text, const char *options);
