/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper: the process that a person or systemd starts. It holds the privileges, the signals and
 * every listening socket, runs the server as another process and starts it again when it crashes.
 */
#pragma once

#include "base/err.h"

/* The environment variable by which a server process knows that it is one. */
#define KEEPER_ENV "PORTICO_KEEPER"

/* Likewise the helper that writes the firewall's rules: the number of a descriptor, a document. */
#define FIREWALL_ENV "PORTICO_FIREWALL"
#define FIREWALL_AGAIN_ENV "PORTICO_FIREWALL_AGAIN" /* set: what was in force has been removed */

/* Runs the server with the same arguments until it ends for good; returns the exit status. */
int keeper_run(char **argv);
