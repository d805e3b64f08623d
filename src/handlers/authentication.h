/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may pass: the face of modules in http.authentication.providers.
 */
#pragma once

#include "http/module.h"

struct auth_provider {
    /* May wait, and may set response fields that ask for credentials. *user is the name of who is
     * let through, or empty; it lives as long as the exchange. An error ends the request. */
    enum err (*authenticate)(const void *cfg, struct exchange *, struct slice *user);
};
