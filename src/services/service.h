/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A service: a program that portico runs and keeps running behind its front door, with ports of its
 * own. This is its description as the configuration gives it, in the app "services":
 *
 *   "services": {"services": [{
 *     "name": "simon", "run": ["node", "index.js"], "dir": "/srv/simon",
 *     "env": {"NODE_ENV": "production"}, "env_files": ["/etc/simon.env"],
 *     "user": "simon", "group": "simon",
 *     "host": "127.0.0.1", "port": 3000, or "port_range": "3000-3999",
 *     "replicas": 2,
 *     "health": {"uri": "/healthz", "interval": "5s", "timeout": "2s", "status": 2, "fails": 3,
 *                "passes": 1} or {"tcp": true, …} or {"command": ["./ok"], …},
 *     "ready_timeout": "30s",
 *     "restart": {"policy": "always", "delay": "100ms", "max_delay": "30s", "give_up": 10,
 *                 "within": "10s"},
 *     "stop_signal": "SIGTERM", "stop_timeout": "10s",
 *     "limits": {"memory": 268435456, "cpu": 0.5, "tasks": 64, "files": 1024},
 *     "watch": ["."], "after": ["database"],
 *     "on_demand": {"idle": "5m", "queue": 100, "deadline": "30s"},
 *     "socket": false, "confine": true
 *   }]}
 *
 * After `give_up` failures in a row it is not started any more; one that had been ready for `within`
 * begins the count anew. `run` is started without a shell. {port}, {host} and {replica} (from 1) in
 * run and env are the replica's. A fixed port is the first replica's, the next one has the next. From
 * a range (3000-3999 by default) a service has a port for each replica and one more, on which the
 * next version starts while the last one still answers.
 */
#pragma once

#include <jansson.h>

#include "base/arena.h"
#include "base/err.h"
#include "config/origin.h"

enum {
    SERVICES_MAX = 256,
    REPLICAS_MAX = 64,
    SERVICE_NAME_MAX = 64, /* letters, digits, "-", "_", "."; the first is a letter or digit */
};

enum restart_policy { RESTART_ALWAYS, RESTART_ON_FAILURE, RESTART_NEVER };
enum health_kind { HEALTH_NONE, HEALTH_HTTP, HEALTH_TCP, HEALTH_COMMAND };

struct service_health {
    enum health_kind kind;
    struct slice uri;
    struct slice *command;
    size_t command_count;
    uint64_t interval_ns, timeout_ns;
    int64_t status; /* 200, or below 10 a class; 0: any 2xx or 3xx */
    uint32_t fails, passes;
};

struct service {
    struct slice name;
    struct slice *run; /* words */
    size_t run_count;
    struct slice dir, user, group, host;
    struct slice *env; /* "NAME=value" */
    size_t env_count;
    struct slice *env_files;
    size_t env_files_count;
    uint16_t port, range_first, range_last; /* port 0: from the range */
    uint32_t replicas;
    struct service_health health;
    uint64_t ready_ns;
    enum restart_policy restart;
    uint64_t delay_ns, max_delay_ns, within_ns;
    uint32_t give_up; /* 0: never */
    int stop_signal;
    uint64_t stop_ns;
    uint64_t memory, tasks, files; /* 0: no limit */
    double cpu;                    /* cores; 0: no limit */
    struct slice *watch, *after;
    size_t watch_count, after_count;
    bool on_demand, socket, confine;
    uint64_t idle_ns, demand_deadline_ns;
    uint32_t demand_queue;
    uint64_t digest; /* of all that needs a new process when it changes */
};

/* Letters, digits and so on, as above. */
bool service_name_ok(struct slice);

/* Reads the app. `app` NULL: none. ERR_INVALID with a sentence (and file:line where known). */
enum err services_read(const json_t *app, const struct origins *, struct arena *, struct service **,
                       size_t *count, char *error, size_t cap);
