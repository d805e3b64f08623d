/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The authorities that this machine trusts.
 */
#pragma once

struct x509_store_st; /* OpenSSL's X509_STORE */

/* Read at the first call; the process's, never to be changed. Empty when nothing was found. */
struct x509_store_st *system_roots(void);
