/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container's name, from the files that its runtime keeps.
 */
#pragma once

#include <jansson.h>

#include "base/arena.h"
#include "ports/units.h"

/* "web", "shop/web-7d9f/nginx" of Kubernetes (namespace, pod, container), else the first twelve
 * digits of its id; empty without a container. `root`: in front of every path, "" but in tests.
 * `home`: of the user whose container it is, "" if root's. */
struct slice container_name(const struct control_group *, const char *root, const char *home,
                            struct arena *);

/* The user of "/user.slice/user-1000.slice/…"; 0: none. */
uint32_t control_group_user(struct slice path);

/* A runtime's file, when it is a regular one and JSON; NULL: it is not. At most `*left` bytes are read, and
 * taken from there. */
json_t *container_file(struct slice path, size_t *left, struct arena *);

/* As much of a name as a row has room for: it may be anybody's text. */
struct slice container_short(struct slice name);

/* The name in Docker's config.v2.json, short; empty: there is none. */
struct slice docker_file_name(const json_t *, struct arena *);
