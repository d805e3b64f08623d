/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of common programs and ports beyond the registry: who usually has a port, what is
 * better kept private, what sends passwords in clear text.
 */
#pragma once

#include "ports/port.h"

/* Whether the program may well have this port; true also where nothing is known of either. */
bool expected_program(uint16_t port, enum port_protocol, struct slice program);

bool expected_is_web(struct slice program);       /* a web server or gateway */
bool expected_is_publisher(struct slice program); /* publishes ports of containers */
bool expected_may_publish(struct slice program);  /* … and has others of its own */

/* Why the port is not for the world: a clause; NULL: nothing is known. */
const char *expected_private(uint16_t port, enum port_protocol);

/* What to do instead of a protocol with passwords in clear text: a sentence; NULL: it is none. */
const char *expected_plaintext(uint16_t port, enum port_protocol);
