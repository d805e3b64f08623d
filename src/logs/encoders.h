/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a module "caddy.logging.encoders.NAME" is to the logs that use it.
 */
#pragma once

#include "base/log_stream.h"
#include "http/module.h"

struct log_encoder_face {
    log_encoder *encode;
    /* For one that wraps another and was given none: the log's writer is a terminal. */
    void (*set_terminal)(void *cfg);
};

extern const struct module log_encoder_append, log_encoder_console, log_encoder_filter,
    log_encoder_journald, log_encoder_json;
