/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Caddy's published cases use two modules that exist in its tests only: dns.providers.mock and
 * tls.client_auth.verifier.dummy. A test's program says true here; portico says false.
 */
#pragma once

#include <stdbool.h>

extern const bool adapter_has_mocks;
