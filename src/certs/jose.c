/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A JWS is made once per request, on a fiber that may wait between two of them but not here. The
 * signing itself is pki's; here are the texts that are signed.
 */
#include "certs/jose.h"

#include "base/text.h"
#include "config/jsonx.h"

enum { JWS_MAX = 1 << 20 };

/* --- the header --- */

static enum err put_member(struct buffer *b, const char *name, struct slice value)
{
    TRY(buffer_append_f(b, ",\"%s\":", name));
    return jsonx_put_string(b, value);
}

static enum err put_header(struct buffer *b, const struct jws *j, const char *algorithm)
{
    TRY(buffer_append_f(b, "{\"alg\":\"%s\"", algorithm));
    if (j->kid.len > 0) {
        TRY(put_member(b, "kid", j->kid));
    } else {
        TRY(BUFFER_PUT(b, ",\"jwk\":"));
        TRY(jwk_put(b, j->key));
    }
    if (j->nonce.len > 0)
        TRY(put_member(b, "nonce", j->nonce));
    TRY(put_member(b, "url", j->url));
    return BUFFER_PUT(b, "}");
}

/* --- header, payload and signature --- */

/* base64url of both with a point between: what is signed. *dot tells where it is. */
static enum err put_signed(struct buffer *b, struct slice header, struct slice payload, size_t *dot)
{
    TRY(base64url_encode(b, header));
    *dot = b->len;
    TRY(buffer_append_byte(b, '.'));
    return base64url_encode(b, payload);
}

static enum err put_parts(struct buffer *out, struct slice text, size_t dot, struct slice signature)
{
    struct slice header = slice_take(text, dot), payload = slice_skip(text, dot + 1);
    TRY(buffer_append_f(out, "{\"protected\":\"" SLICE_FMT "\",\"payload\":\"", SLICE_ARG(header)));
    TRY(buffer_append(out, payload));
    TRY(BUFFER_PUT(out, "\",\"signature\":\""));
    TRY(base64url_encode(out, signature));
    return BUFFER_PUT(out, "\"}");
}

enum err jws_put(struct buffer *out, const struct jws *j)
{
    const char *algorithm = jose_algorithm(j->key);
    struct buffer header, text, signature;
    size_t dot = 0;
    if (algorithm == NULL)
        return ERR_UNSUPPORTED;
    buffer_init(&header, JWS_MAX);
    buffer_init(&text, JWS_MAX);
    buffer_init(&signature, JOSE_SIGNATURE_MAX);
    enum err e = put_header(&header, j, algorithm);
    if (e == OK)
        e = put_signed(&text, buffer_slice(&header), j->payload, &dot);
    if (e == OK)
        e = jose_sign(j->key, buffer_slice(&text), &signature);
    if (e == OK)
        e = put_parts(out, buffer_slice(&text), dot, buffer_slice(&signature));
    buffer_deinit(&header);
    buffer_deinit(&text);
    buffer_deinit(&signature);
    return e;
}

static enum err put_binding_header(struct buffer *b, struct slice kid, struct slice url)
{
    TRY(BUFFER_PUT(b, "{\"alg\":\"HS256\""));
    TRY(put_member(b, "kid", kid));
    TRY(put_member(b, "url", url));
    return BUFFER_PUT(b, "}");
}

enum err jws_put_binding(struct buffer *out, const struct evp_pkey_st *key, struct slice mac_key,
                         struct slice kid, struct slice url)
{
    struct buffer header, jwk, text;
    uint8_t mac[SHA256_LEN];
    size_t dot = 0;
    buffer_init(&header, JWS_MAX);
    buffer_init(&jwk, JWS_MAX);
    buffer_init(&text, JWS_MAX);
    enum err e = put_binding_header(&header, kid, url);
    if (e == OK)
        e = jwk_put(&jwk, key);
    if (e == OK)
        e = put_signed(&text, buffer_slice(&header), buffer_slice(&jwk), &dot);
    if (e == OK) {
        hmac_sha256(mac_key, buffer_slice(&text), mac);
        e = put_parts(out, buffer_slice(&text), dot, slice_of((char *)mac, sizeof mac));
    }
    buffer_deinit(&header);
    buffer_deinit(&jwk);
    buffer_deinit(&text);
    return e;
}

/* --- thumbprints --- */

static struct slice digest_text(struct slice data, struct arena *a)
{
    uint8_t digest[SHA256_LEN];
    struct buffer b;
    sha256(data, digest);
    buffer_init(&b, 64);
    (void)base64url_encode(&b, slice_of((char *)digest, sizeof digest));
    struct slice text = arena_copy(a, buffer_slice(&b));
    buffer_deinit(&b);
    return text;
}

enum err jwk_thumbprint(const struct evp_pkey_st *key, struct arena *a, struct slice *out)
{
    struct buffer jwk;
    buffer_init(&jwk, JWS_MAX);
    enum err e = jwk_put(&jwk, key);
    if (e == OK)
        *out = digest_text(buffer_slice(&jwk), a);
    buffer_deinit(&jwk);
    return e;
}

enum err key_authorization(const struct evp_pkey_st *key, struct slice token, struct arena *a,
                           struct slice *out)
{
    struct slice thumbprint;
    TRY(jwk_thumbprint(key, a, &thumbprint));
    *out = arena_join(a, (struct slice[]){token, SLICE("."), thumbprint}, 3);
    return OK;
}

struct slice dns01_value(struct slice authorization, struct arena *a)
{
    return digest_text(authorization, a);
}
