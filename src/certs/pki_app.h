/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The app "pki": the authorities of a configuration, and those of the configuration that runs. On
 * the control thread.
 */
#pragma once

#include "http/module.h"
#include "pki/authority.h"

struct pki; /* of one configuration; provision.pki */

/* Before whatever may ask for an authority, with provision.storage open: reads the app (NULL: there
 * is none), and makes what its authorities lack. */
enum err pki_provision(struct provision *, const json_t *app);

/* An authority by its id; "local" is made when it is not configured. Lives as long as the
 * generation. */
enum err pki_authority(struct provision *, struct slice id, struct authority **);

/* Whether the app is configured at all. */
bool pki_configured(const struct provision *);

/* The configuration runs (NULL: one that has none of it), in place of the one before: its roots are
 * trusted where that is wanted, its intermediates are renewed. On the control thread's loop. */
void pki_start(struct pki *);
void pki_stop(void);

/* Of the configuration that runs, a reference; "local" is opened or made when it is not configured.
 * On a fiber; may wait. ERR_NOT_FOUND: there is none of that id. */
enum err pki_running(struct slice id, struct authority **, struct storage_why *);

/* An authority's common name with its placeholders replaced. */
struct slice pki_expand(struct slice text, struct slice authority_name, struct arena *);
