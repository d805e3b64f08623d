/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A nonce names its place in a table, so that it is found without a search; the table holds the last
 * CA_NONCES, and older ones are bad, which every client must expect.
 */
#include "certs/ca_jws.h"

#include <sys/random.h>

#include "base/check.h"
#include "base/text.h"
#include "config/jsonx.h"

enum { DEPTH_MAX = 16, NONCE_BYTES = 18 };

/* --- nonces --- */

static _Thread_local struct {
    unsigned char bytes[CA_NONCES][NONCE_BYTES]; /* all zero: used */
    unsigned next;
} nonces;

struct slice ca_nonce_make(struct arena *a)
{
    unsigned at = nonces.next;
    unsigned char *n = nonces.bytes[at];
    struct buffer b;
    nonces.next = (at + 1) % CA_NONCES;
    if (getrandom(n, NONCE_BYTES, 0) != NONCE_BYTES)
        fatal("no random numbers");
    n[0] = (unsigned char)(at >> 8);
    n[1] = (unsigned char)at;
    n[2] |= 1;
    buffer_init(&b, 64);
    (void)base64url_encode(&b, slice_of((char *)n, NONCE_BYTES));
    struct slice text = arena_copy(a, buffer_slice(&b));
    buffer_deinit(&b);
    return text;
}

bool ca_nonce_use(struct slice text)
{
    struct buffer b;
    bool good = false;
    buffer_init(&b, 64);
    if (text.len < 64 && base64_decode(&b, text) == OK && b.len == NONCE_BYTES) {
        unsigned at = (unsigned)(unsigned char)b.ptr[0] << 8 | (unsigned char)b.ptr[1];
        good = at < CA_NONCES && nonces.bytes[at][2] != 0 &&
               memcmp(nonces.bytes[at], b.ptr, NONCE_BYTES) == 0;
        if (good)
            memset(nonces.bytes[at], 0, NONCE_BYTES);
    }
    buffer_deinit(&b);
    return good;
}

/* --- the JWS --- */

static json_t *load(struct slice text)
{
    json_t *j = text.len <= CA_BODY_MAX && !jsonx_too_deep(text, DEPTH_MAX) ?
                    jsonx_load(SLICE(""), text, NULL) : NULL;
    if (json_is_object(j))
        return j;
    json_decref(j);
    return NULL;
}

static struct slice text(const json_t *o, const char *key, struct arena *a)
{
    const json_t *v = json_object_get(o, key);
    return json_is_string(v) ? arena_copy(a, slice_of(json_string_value(v), json_string_length(v))) :
                               SLICE("");
}

static bool decode(struct slice in, struct arena *a, struct slice *out)
{
    struct buffer b;
    buffer_init(&b, CA_BODY_MAX);
    bool good = base64_decode(&b, in) == OK;
    *out = arena_copy(a, buffer_slice(&b));
    buffer_deinit(&b);
    return good;
}

static void read_jwk(const json_t *o, struct arena *a, struct jwk *j)
{
    *j = (struct jwk){.kty = text(o, "kty", a), .crv = text(o, "crv", a), .x = text(o, "x", a),
                      .y = text(o, "y", a), .n = text(o, "n", a), .e = text(o, "e", a)};
}

static enum err read_header(struct slice encoded, struct arena *a, struct ca_jws *out,
                            const char **why)
{
    struct slice header;
    json_t *j = decode(encoded, a, &header) ? load(header) : NULL;
    *why = "the protected header is not JSON in base64url";
    if (j == NULL)
        return ERR_INVALID;
    const json_t *jwk = json_object_get(j, "jwk");
    out->algorithm = text(j, "alg", a);
    out->nonce = text(j, "nonce", a);
    out->url = text(j, "url", a);
    out->kid = text(j, "kid", a);
    out->has_jwk = json_is_object(jwk);
    read_jwk(jwk, a, &out->jwk);
    json_decref(j);
    *why = "exactly one of \"jwk\" and \"kid\" must stand in the protected header";
    return out->has_jwk != (out->kid.len > 0) ? OK : ERR_INVALID;
}

enum err ca_jws_read(struct slice body, struct arena *a, struct ca_jws *out, const char **why)
{
    json_t *j = load(body);
    *out = (struct ca_jws){0};
    *why = "the request is not a flattened JWS";
    if (j == NULL)
        return ERR_INVALID;
    struct slice header = text(j, "protected", a), payload = text(j, "payload", a);
    struct slice signature = text(j, "signature", a);
    bool good = header.len > 0 && json_is_string(json_object_get(j, "payload")) &&
                json_object_get(j, "header") == NULL && json_object_get(j, "signatures") == NULL &&
                decode(payload, a, &out->payload) && decode(signature, a, &out->signature);
    json_decref(j);
    if (!good)
        return ERR_INVALID;
    out->signed_text = arena_join(a, (struct slice[]){header, SLICE("."), payload}, 3);
    return read_header(header, a, out, why);
}

/* --- keys as text --- */

enum err ca_jwk_text(const struct evp_pkey_st *key, struct arena *a, struct slice *out)
{
    struct buffer b;
    buffer_init(&b, CA_BODY_MAX);
    enum err e = jwk_put(&b, key);
    *out = arena_copy(a, buffer_slice(&b));
    buffer_deinit(&b);
    return e;
}

enum err ca_jwk_load(struct slice json, struct evp_pkey_st **key)
{
    struct arena a;
    struct jwk jwk;
    json_t *j = load(json);
    *key = NULL;
    if (j == NULL)
        return ERR_INVALID;
    arena_init(&a, 4096);
    read_jwk(j, &a, &jwk);
    enum err e = jwk_read(&jwk, key);
    json_decref(j);
    arena_deinit(&a);
    return e;
}
