/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of a service's description, read by service_parts.c for service.c.
 */
#pragma once

#include "base/clock.h"
#include "http/module.h"
#include "services/service.h"

struct reading {
    struct provision p; /* for its helpers: arena, path, the sentence */
    const struct origins *origins;
    struct service *services;
    size_t count, index; /* read; in hand */
};

enum err service_read_env(struct reading *, const json_t *service, struct service *);
enum err service_read_health(struct reading *, const json_t *, struct service *);
enum err service_read_restart(struct reading *, const json_t *, struct service *);
enum err service_read_stop(struct reading *, const json_t *service, struct service *);
enum err service_read_limits(struct reading *, const json_t *, struct service *);
enum err service_read_demand(struct reading *, const json_t *, struct service *);
enum err service_check_host(struct reading *, const struct service *);

/* Mixes what the files of variables hold into *hash; one that cannot be read is an error. */
enum err service_hash_env_files(struct reading *, const struct service *, uint64_t *hash);
