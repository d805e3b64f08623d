/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys as JOSE sees them. An elliptic curve's coordinates and its signatures' R and S are padded to
 * the length of the field: leading zeros count in a thumbprint (RFC 7518 §6.2.1.2, §3.4). OpenSSL
 * gives ECDSA signatures as DER, which is taken apart here.
 */
#include "pki/jose_key.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include "base/text.h"

struct curve {
    const char *group;     /* OpenSSL's name */
    const char *name;      /* JOSE's */
    const char *algorithm;
    size_t field;          /* bytes of a coordinate */
    const EVP_MD *(*hash)(void);
};

static const struct curve curves[] = {
    {"prime256v1", "P-256", "ES256", 32, EVP_sha256},
    {"secp384r1", "P-384", "ES384", 48, EVP_sha384},
    {"secp521r1", "P-521", "ES512", 66, EVP_sha512},
};

static const struct curve *curve_of(const EVP_PKEY *key)
{
    char group[64];
    size_t len = 0;
    if (EVP_PKEY_get_group_name((EVP_PKEY *)key, group, sizeof group, &len) != 1)
        return NULL;
    for (size_t i = 0; i < sizeof curves / sizeof curves[0]; i++)
        if (strcmp(group, curves[i].group) == 0)
            return &curves[i];
    return NULL;
}

const char *jose_algorithm(const struct evp_pkey_st *key)
{
    if (EVP_PKEY_is_a(key, "EC")) {
        const struct curve *c = curve_of(key);
        return c != NULL ? c->algorithm : NULL;
    }
    if (EVP_PKEY_is_a(key, "ED25519"))
        return "EdDSA";
    return EVP_PKEY_is_a(key, "RSA") ? "RS256" : NULL;
}

/* --- the public half --- */

/* One number of a key, big-endian, at least `width` bytes long. */
static enum err put_number(struct buffer *b, const EVP_PKEY *key, const char *param, size_t width)
{
    BIGNUM *n = NULL;
    unsigned char bytes[2048];
    if (EVP_PKEY_get_bn_param(key, param, &n) != 1)
        return ERR_FAILED;
    size_t len = (size_t)BN_num_bytes(n);
    if (len < width)
        len = width;
    enum err e = len <= sizeof bytes && BN_bn2binpad(n, bytes, (int)len) > 0 ? OK : ERR_LIMIT;
    BN_free(n);
    return e == OK ? base64url_encode(b, slice_of((char *)bytes, len)) : e;
}

static enum err put_ec(struct buffer *b, const EVP_PKEY *key)
{
    const struct curve *c = curve_of(key);
    if (c == NULL)
        return ERR_UNSUPPORTED;
    TRY(buffer_append_f(b, "{\"crv\":\"%s\",\"kty\":\"EC\",\"x\":\"", c->name));
    TRY(put_number(b, key, OSSL_PKEY_PARAM_EC_PUB_X, c->field));
    TRY(BUFFER_PUT(b, "\",\"y\":\""));
    TRY(put_number(b, key, OSSL_PKEY_PARAM_EC_PUB_Y, c->field));
    return BUFFER_PUT(b, "\"}");
}

static enum err put_rsa(struct buffer *b, const EVP_PKEY *key)
{
    TRY(BUFFER_PUT(b, "{\"e\":\""));
    TRY(put_number(b, key, OSSL_PKEY_PARAM_RSA_E, 1));
    TRY(BUFFER_PUT(b, "\",\"kty\":\"RSA\",\"n\":\""));
    TRY(put_number(b, key, OSSL_PKEY_PARAM_RSA_N, 1));
    return BUFFER_PUT(b, "\"}");
}

static enum err put_ed25519(struct buffer *b, const EVP_PKEY *key)
{
    unsigned char raw[32];
    size_t len = sizeof raw;
    if (EVP_PKEY_get_raw_public_key(key, raw, &len) != 1)
        return ERR_FAILED;
    TRY(BUFFER_PUT(b, "{\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\""));
    TRY(base64url_encode(b, slice_of((char *)raw, len)));
    return BUFFER_PUT(b, "\"}");
}

enum err jwk_put(struct buffer *b, const struct evp_pkey_st *key)
{
    if (EVP_PKEY_is_a(key, "EC"))
        return put_ec(b, key);
    if (EVP_PKEY_is_a(key, "RSA"))
        return put_rsa(b, key);
    return EVP_PKEY_is_a(key, "ED25519") ? put_ed25519(b, key) : ERR_UNSUPPORTED;
}

bool key_same(const struct evp_pkey_st *a, const struct evp_pkey_st *b)
{
    return EVP_PKEY_eq(a, b) == 1;
}

/* --- signatures --- */

static enum err put_raw_ecdsa(struct buffer *out, const unsigned char *der, size_t len, size_t field)
{
    ECDSA_SIG *s = d2i_ECDSA_SIG(NULL, &der, (long)len);
    if (s == NULL)
        return ERR_FAILED;
    enum err e = buffer_reserve(out, 2 * field);
    unsigned char *at = (unsigned char *)out->ptr + out->len;
    if (e == OK && (BN_bn2binpad(ECDSA_SIG_get0_r(s), at, (int)field) < 0 ||
                    BN_bn2binpad(ECDSA_SIG_get0_s(s), at + field, (int)field) < 0))
        e = ERR_FAILED;
    ECDSA_SIG_free(s);
    if (e == OK)
        out->len += 2 * field;
    return e;
}

static bool sign(EVP_MD_CTX *ctx, const EVP_PKEY *key, const EVP_MD *hash, struct slice data,
                 unsigned char *out, size_t *len)
{
    return EVP_DigestSignInit(ctx, NULL, hash, NULL, (EVP_PKEY *)key) == 1 &&
           EVP_DigestSign(ctx, out, len, (const unsigned char *)data.ptr, data.len) == 1;
}

enum err jose_sign(const struct evp_pkey_st *key, struct slice data, struct buffer *signature)
{
    bool is_ec = EVP_PKEY_is_a(key, "EC");
    const struct curve *c = is_ec ? curve_of(key) : NULL;
    if (jose_algorithm(key) == NULL || EVP_PKEY_get_size(key) > JOSE_SIGNATURE_MAX)
        return ERR_UNSUPPORTED;
    const EVP_MD *hash = is_ec ? c->hash() : EVP_PKEY_is_a(key, "RSA") ? EVP_sha256() : NULL;
    unsigned char raw[JOSE_SIGNATURE_MAX];
    size_t len = sizeof raw;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx != NULL && sign(ctx, key, hash, data, raw, &len);
    EVP_MD_CTX_free(ctx);
    if (!good)
        return ERR_FAILED;
    return is_ec ? put_raw_ecdsa(signature, raw, len, c->field) :
                   buffer_append(signature, slice_of((char *)raw, len));
}

/* --- digests --- */

void sha256(struct slice data, uint8_t out[SHA256_LEN])
{
    SHA256((const unsigned char *)data.ptr, data.len, out);
}

void hmac_sha256(struct slice key, struct slice data, uint8_t out[SHA256_LEN])
{
    unsigned len = SHA256_LEN;
    HMAC(EVP_sha256(), key.ptr != NULL ? key.ptr : "", (int)key.len,
         (const unsigned char *)data.ptr, data.len, out, &len);
}
