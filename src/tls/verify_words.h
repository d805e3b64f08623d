/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a server's certificate was refused, as a person reads it.
 */
#pragma once

#include <stddef.h>

struct x509_store_ctx_st; /* OpenSSL's X509_STORE_CTX */

/* Of the error that it stands at. `name`: whom the certificate should be for. */
void verify_words(struct x509_store_ctx_st *, const char *name, char *out, size_t cap);
