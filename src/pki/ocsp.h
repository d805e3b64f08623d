/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an authority says about one of its certificates (OCSP, RFC 6960): questions and answers.
 */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"

enum ocsp_status { OCSP_GOOD, OCSP_REVOKED, OCSP_UNKNOWN };

enum { OCSP_REASON_NONE = -1, OCSP_REASON_KEY_COMPROMISE = 1 };

struct ocsp_facts {
    enum ocsp_status status;
    int64_t this_update_s, next_update_s; /* 0: it does not say until when */
    int64_t until_s;      /* next_update, or the end of the responder's certificate if that is first */
    int64_t revoked_at_s;
    int reason;           /* RFC 5280 §5.3.1 */
};

/* A question about the first certificate of a PEM chain; its issuer is the second one, or `issuer`
 * (PEM or DER) where there is none. ERR_INVALID with a sentence. */
enum err ocsp_request(struct slice chain_pem, struct slice issuer, struct buffer *der, char *why,
                      size_t cap);

/* An answer about that certificate, signed by its issuer or by whom the issuer has asked to. Without
 * an issuer, as an answer of our own keeping is read, the signature is not looked at. */
enum err ocsp_read(struct slice der, struct slice chain_pem, struct slice issuer,
                   struct ocsp_facts *, char *why, size_t cap);

/* Whatever it is about: when it ends. For those who tidy up. */
enum err ocsp_read_any(struct slice der, struct ocsp_facts *);
