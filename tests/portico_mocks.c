/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico with the two modules of Caddy's own tests (adapter/mocks.h), for conformance_test.py.
 */
#include "adapter/mocks.h"

const bool adapter_has_mocks = true;
