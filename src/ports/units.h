/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process's control group says of it: systemd's unit, and the container. Pure.
 */
#pragma once

#include "base/slice.h"

enum container_runtime {
    RUNTIME_NONE,
    RUNTIME_DOCKER,
    RUNTIME_PODMAN,
    RUNTIME_CONTAINERD, /* also under Kubernetes */
    RUNTIME_CRIO,
    RUNTIME_LXC,
    RUNTIME_NSPAWN,     /* and what else registers with systemd-machined */
};

struct control_group {
    struct slice path;      /* of systemd's hierarchy, or the unified one */
    struct slice unit;      /* "nginx.service", of a user's manager its own unit; or empty */
    enum container_runtime runtime;
    struct slice container; /* its id (64 hexadecimal digits), or its name: lxc, nspawn; or empty */
};

/* The text of /proc/PID/cgroup; the slices point into it. */
void control_group_read(struct slice text, struct control_group *);

const char *runtime_name(enum container_runtime); /* "docker"; "" */
