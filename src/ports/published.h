/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose a published port is: the socket on the machine's side belongs to the runtime (docker-proxy,
 * dockerd), and the container behind it is what a person knows.
 */
#pragma once

#include "ports/port.h"

/* Gives owners that publish ports of containers the container's name. `root`: in front of every path,
 * "" but in tests. */
void table_published(struct port_table *, const char *root);

/* Of the text of /proc/PID/cmdline: docker-proxy's -container-ip. Pure. */
bool proxy_arguments_read(struct slice text, struct ip_address *container);
