/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names as OpenSSL's type, for what this room makes: requests and certificates.
 */
#pragma once

#include <openssl/x509v3.h>

#include "base/slice.h"

/* NULL: one of them is no name. */
GENERAL_NAMES *alternative_names(const struct slice *names, size_t count);
