/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the sources of automation share.
 */
#pragma once

#include "certs/automation.h"

/* One policy from its JSON; NULL: the default one. The path is set to where it stands. */
enum err policy_provision(struct provision *, struct automation *, const json_t *,
                          struct automation_policy **);
