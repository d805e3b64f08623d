/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Alone in its file, so that a test's program can bring its own.
 */
#include "adapter/mocks.h"

const bool adapter_has_mocks = false;
