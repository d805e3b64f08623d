/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The app "events": what happens is emitted under a name, with its data, by the module that it happens
 * to. Its subscriptions name handlers, modules of events.handlers; like Caddy this program has none of
 * its own, so that each event is a line of the logger "events" at the level debug, and no more.
 */
#pragma once

#include "base/log.h"
#include "http/module.h"

/* The app's JSON, which may be NULL: {"subscriptions": [{"events": …, "modules": …, "handlers": …}]}. */
enum err events_provision(const json_t *, struct provision *);

/* `origin` is the module's id. From any thread. */
void events_emit(const char *name, const char *origin, const struct log_field *data, size_t count);
