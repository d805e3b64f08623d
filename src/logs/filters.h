/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a module "caddy.logging.encoders.filter.NAME" is to the encoder "filter": it changes one
 * field of a line.
 */
#pragma once

#include "base/log.h"
#include "http/module.h"

struct log_filter_face {
    /* Changes the field in place; what it makes lives in the arena. On any logging thread. */
    void (*filter)(const void *cfg, struct log_field *, struct arena *);
};

extern const struct module log_filter_cookie, log_filter_delete, log_filter_hash,
    log_filter_ip_mask, log_filter_multi_regexp, log_filter_query, log_filter_regexp,
    log_filter_rename, log_filter_replace, log_filter_set_cookie;
