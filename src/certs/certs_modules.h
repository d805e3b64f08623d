/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The modules of this room, for the table of all modules in app/.
 */
#pragma once

#include "http/module.h"

extern const struct module permission_http; /* tls.permission.http: ask */
extern const struct module issuer_internal; /* tls.issuance.internal */
extern const struct module getter_http;     /* tls.get_certificate.http */
extern const struct module issuer_acme;     /* tls.issuance.acme */
extern const struct module issuer_zerossl;  /* tls.issuance.zerossl */
extern const struct module stek_distributed; /* tls.stek.distributed; cfg: struct storage * */
extern const struct module stek_standard;    /* tls.stek.standard; the same, NULL */
