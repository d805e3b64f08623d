/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages that change a zone (RFC 2136), signed with a shared key (RFC 8945). Pure: bytes in, bytes
 * out.
 */
#pragma once

#include "base/buffer.h"
#include "certs/dns_provider.h"
#include "pki/hmac.h"

enum { DNS_UPDATE_MAX = 2048, TSIG_FUDGE_S = 300 };

struct tsig_key {
    struct slice name;   /* "portico.example", a final dot is allowed */
    const char *hash;    /* "sha256" … */
    struct slice algorithm; /* "hmac-sha256", as it goes over the wire */
    struct slice secret; /* raw bytes */
};

struct tsig_mac {
    uint8_t bytes[HMAC_MAX];
    size_t len;
};

/* "hmac-sha256", "hmac-sha512.", "HMAC-MD5.SIG-ALG.REG.INT" …; ERR_INVALID: not known. */
enum err tsig_algorithm(struct slice, struct tsig_key *);

/* A message that adds the record, or removes it; `mac` is kept for the answer. ERR_INVALID: a name
 * that is none. */
enum err dns_update_build(struct buffer *out, const struct dns_record *, bool remove, uint16_t id,
                          int64_t now_s, const struct tsig_key *, struct tsig_mac *mac);

/* The answer to it: its code, 0 when all went well. ERR_INVALID with a constant phrase: malformed,
 * another's, not signed or not by this key. A refusal for the signature's sake comes unsigned, and
 * is told by its code. */
enum err dns_update_answer(struct slice answer, uint16_t id, int64_t now_s, const struct tsig_key *,
                           const struct tsig_mac *, unsigned *code, const char **why);

/* "REFUSED", "NOTAUTH" …; never NULL. */
const char *dns_code_name(unsigned code);
