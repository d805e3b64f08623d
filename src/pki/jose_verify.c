/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A JWK becomes a key by OpenSSL's own import, which refuses points that are not on their curve.
 * Sizes are limited before: verifying with an RSA key takes time that grows with its square.
 */
#include "pki/jose_verify.h"

#include <arpa/inet.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#include "base/text.h"

enum { NUMBER_MAX = JWK_RSA_MAX_BITS / 8 + 1, POINT_MAX = 1 + 2 * 66, CSR_NAMES_MAX = 256 };

struct number {
    unsigned char bytes[NUMBER_MAX];
    size_t len;
};

static enum err read_number(struct slice text, struct number *n)
{
    struct buffer b;
    buffer_init(&b, NUMBER_MAX);
    enum err e = text.len > 0 ? base64_decode(&b, text) : ERR_INVALID;
    if (e == OK)
        memcpy(n->bytes, b.ptr, n->len = b.len);
    buffer_deinit(&b);
    return e == OK && n->len > 0 ? OK : ERR_INVALID;
}

static enum err import(const char *type, OSSL_PARAM *params, EVP_PKEY **key)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    *key = NULL;
    bool good = ctx != NULL && EVP_PKEY_fromdata_init(ctx) == 1 &&
                EVP_PKEY_fromdata(ctx, key, EVP_PKEY_PUBLIC_KEY, params) == 1;
    EVP_PKEY_CTX_free(ctx);
    ERR_clear_error();
    return good ? OK : ERR_INVALID;
}

/* --- kinds of keys --- */

static const struct curve {
    const char *name, *group, *algorithm;
    size_t field;
    const EVP_MD *(*hash)(void);
} curves[] = {
    {"P-256", "prime256v1", "ES256", 32, EVP_sha256},
    {"P-384", "secp384r1", "ES384", 48, EVP_sha384},
    {"P-521", "secp521r1", "ES512", 66, EVP_sha512},
};

static enum err read_ec(const struct jwk *j, EVP_PKEY **key)
{
    struct number x, y;
    unsigned char point[POINT_MAX] = {0x04};
    const struct curve *c = curves;
    while (c < curves + 3 && !slice_is(j->crv, c->name))
        c++;
    if (c == curves + 3)
        return ERR_UNSUPPORTED;
    TRY(read_number(j->x, &x));
    TRY(read_number(j->y, &y));
    if (x.len != c->field || y.len != c->field)
        return ERR_INVALID;
    memcpy(point + 1, x.bytes, x.len);
    memcpy(point + 1 + x.len, y.bytes, y.len);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)c->group, 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * c->field),
        OSSL_PARAM_construct_end()};
    return import("EC", params, key);
}

static enum err import_rsa(BIGNUM *n, BIGNUM *e, EVP_PKEY **key)
{
    OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
    OSSL_PARAM *params = NULL;
    enum err result = ERR_INVALID;
    if (builder != NULL && OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_N, n) == 1 &&
        OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_E, e) == 1 &&
        (params = OSSL_PARAM_BLD_to_param(builder)) != NULL)
        result = import("RSA", params, key);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(builder);
    return result;
}

static enum err read_rsa(const struct jwk *j, EVP_PKEY **key)
{
    struct number n, e;
    TRY(read_number(j->n, &n));
    TRY(read_number(j->e, &e));
    if (e.len > 4)
        return ERR_UNSUPPORTED;
    BIGNUM *modulus = BN_bin2bn(n.bytes, (int)n.len, NULL);
    BIGNUM *exponent = BN_bin2bn(e.bytes, (int)e.len, NULL);
    int bits = BN_num_bits(modulus);
    enum err result = ERR_UNSUPPORTED;
    if (bits >= JWK_RSA_MIN_BITS && bits <= JWK_RSA_MAX_BITS && BN_is_odd(exponent) &&
        !BN_is_one(exponent))
        result = import_rsa(modulus, exponent, key);
    BN_free(modulus);
    BN_free(exponent);
    return result;
}

static enum err read_ed25519(const struct jwk *j, EVP_PKEY **key)
{
    struct number x;
    if (!slice_is(j->crv, "Ed25519"))
        return ERR_UNSUPPORTED;
    TRY(read_number(j->x, &x));
    *key = x.len == 32 ? EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, x.bytes, 32) : NULL;
    return *key != NULL ? OK : ERR_INVALID;
}

enum err jwk_read(const struct jwk *j, struct evp_pkey_st **key)
{
    *key = NULL;
    if (slice_is(j->kty, "EC"))
        return read_ec(j, key);
    if (slice_is(j->kty, "RSA"))
        return read_rsa(j, key);
    return slice_is(j->kty, "OKP") ? read_ed25519(j, key) : ERR_UNSUPPORTED;
}

/* --- signatures --- */

/* R and S side by side become DER, which OpenSSL wants. */
static unsigned char *ecdsa_der(struct slice raw, size_t field, int *len)
{
    unsigned char *der = NULL;
    ECDSA_SIG *s = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn((const unsigned char *)raw.ptr, (int)field, NULL);
    BIGNUM *t = BN_bin2bn((const unsigned char *)raw.ptr + field, (int)field, NULL);
    if (s != NULL && ECDSA_SIG_set0(s, r, t) == 1) {
        *len = i2d_ECDSA_SIG(s, &der);
    } else {
        BN_free(r);
        BN_free(t);
    }
    ECDSA_SIG_free(s);
    return der;
}

static bool verify(const EVP_PKEY *key, const EVP_MD *hash, struct slice data,
                   const unsigned char *signature, size_t len)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx != NULL &&
                EVP_DigestVerifyInit(ctx, NULL, hash, NULL, (EVP_PKEY *)key) == 1 &&
                EVP_DigestVerify(ctx, signature, len, (const unsigned char *)data.ptr,
                                 data.len) == 1;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return good;
}

bool jose_verify(const struct evp_pkey_st *key, struct slice algorithm, struct slice data,
                 struct slice signature)
{
    const char *own = jose_algorithm(key);
    if (own == NULL || !slice_is(algorithm, own) || signature.len > JOSE_SIGNATURE_MAX)
        return false;
    const unsigned char *raw = (const unsigned char *)signature.ptr;
    if (!EVP_PKEY_is_a(key, "EC"))
        return verify(key, EVP_PKEY_is_a(key, "RSA") ? EVP_sha256() : NULL, data, raw,
                      signature.len);
    const struct curve *c = curves;
    while (strcmp(c->algorithm, own) != 0)
        c++;
    int len = 0;
    unsigned char *der = signature.len == 2 * c->field ? ecdsa_der(signature, c->field, &len) : NULL;
    bool good = der != NULL && len > 0 && verify(key, c->hash(), data, der, (size_t)len);
    OPENSSL_free(der);
    return good;
}

/* --- requests --- */

static enum err refuse(char *why, size_t cap, const char *text)
{
    snprintf(why, cap, "%s", text);
    ERR_clear_error();
    return ERR_INVALID;
}

struct names {
    struct arena *arena;
    struct slice *items;
    size_t count;
};

static bool add_name(struct names *n, struct slice name)
{
    struct slice copy = arena_copy(n->arena, name);
    for (size_t i = 0; i < copy.len; i++) {
        ((char *)copy.ptr)[i] = ascii_lower(copy.ptr[i]);
        if (copy.ptr[i] <= ' ' || copy.ptr[i] >= 0x7f)
            return false;
    }
    for (size_t i = 0; i < n->count; i++)
        if (slice_eq(n->items[i], copy))
            return true;
    if (n->count == CSR_NAMES_MAX || copy.len == 0)
        return false;
    n->items[n->count++] = copy;
    return true;
}

static struct slice string_of(const ASN1_STRING *s)
{
    return slice_of((const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
}

static bool add_general(struct names *n, const GENERAL_NAME *g)
{
    char text[INET6_ADDRSTRLEN];
    if (g->type == GEN_DNS)
        return add_name(n, string_of(g->d.dNSName));
    if (g->type != GEN_IPADD)
        return false;
    struct slice ip = string_of(g->d.iPAddress);
    int family = ip.len == 4 ? AF_INET : ip.len == 16 ? AF_INET6 : -1;
    return family >= 0 && inet_ntop(family, ip.ptr, text, sizeof text) != NULL &&
           add_name(n, slice_from(text));
}

static bool add_all(struct names *n, X509_REQ *request)
{
    STACK_OF(X509_EXTENSION) *extensions = X509_REQ_get_extensions(request);
    GENERAL_NAMES *names = X509V3_get_d2i(extensions, NID_subject_alt_name, NULL, NULL);
    const X509_NAME *subject = X509_REQ_get_subject_name(request);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    bool good = true;
    for (int i = 0; good && i < sk_GENERAL_NAME_num(names); i++)
        good = add_general(n, sk_GENERAL_NAME_value(names, i));
    if (good && at >= 0)
        good = add_name(n, string_of(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at))));
    GENERAL_NAMES_free(names);
    sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
    return good;
}

enum err csr_read(struct slice der, struct arena *a, struct slice **names, size_t *count, char *why,
                  size_t cap)
{
    const unsigned char *at = (const unsigned char *)der.ptr;
    struct names n = {.arena = a, .items = ARENA_ARRAY(a, struct slice, CSR_NAMES_MAX)};
    X509_REQ *request = der.len < (1 << 20) ? d2i_X509_REQ(NULL, &at, (long)der.len) : NULL;
    if (request == NULL)
        return refuse(why, cap, "the CSR cannot be read");
    EVP_PKEY *key = X509_REQ_get0_pubkey(request);
    enum err e = OK;
    if (key == NULL || jose_algorithm(key) == NULL ||
        (EVP_PKEY_is_a(key, "RSA") && (EVP_PKEY_get_bits(key) < JWK_RSA_MIN_BITS ||
                                       EVP_PKEY_get_bits(key) > JWK_RSA_MAX_BITS)))
        e = refuse(why, cap, "the CSR's key is of a kind or size that is not taken");
    else if (X509_REQ_verify(request, key) != 1)
        e = refuse(why, cap, "the CSR's signature is wrong");
    else if (!add_all(&n, request))
        e = refuse(why, cap, "the CSR holds a name that is neither DNS name nor address");
    X509_REQ_free(request);
    *names = n.items;
    *count = n.count;
    return e;
}

/* --- certificates of others --- */

static X509 *certificate_of(struct slice der)
{
    const unsigned char *at = (const unsigned char *)der.ptr;
    return d2i_X509(NULL, &at, (long)der.len);
}

static bool has_only_name(X509 *x, struct slice wanted, struct arena *a)
{
    struct names n = {.arena = a, .items = ARENA_ARRAY(a, struct slice, CSR_NAMES_MAX)};
    GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    bool good = sk_GENERAL_NAME_num(names) == 1 && add_general(&n, sk_GENERAL_NAME_value(names, 0)) &&
                slice_eq_nocase(n.items[0], wanted);
    GENERAL_NAMES_free(names);
    return good;
}

static bool has_digest(X509 *x, struct slice key_authorization)
{
    unsigned char wanted[2 + SHA256_LEN] = {0x04, SHA256_LEN};
    ASN1_OBJECT *id = OBJ_txt2obj("1.3.6.1.5.5.7.1.31", 1);
    int at = X509_get_ext_by_OBJ(x, id, -1);
    X509_EXTENSION *extension = at >= 0 ? X509_get_ext(x, at) : NULL;
    sha256(key_authorization, wanted + 2);
    bool good = extension != NULL && X509_EXTENSION_get_critical(extension) == 1 &&
                slice_eq(string_of(X509_EXTENSION_get_data(extension)),
                         slice_of((char *)wanted, sizeof wanted));
    ASN1_OBJECT_free(id);
    return good;
}

enum err alpn_certificate_check(struct slice der, struct slice name, struct slice key_authorization,
                                char *why, size_t cap)
{
    X509 *x = certificate_of(der);
    struct arena a;
    enum err e = OK;
    if (x == NULL)
        return refuse(why, cap, "the certificate that was shown cannot be read");
    arena_init(&a, 8192);
    if (!has_only_name(x, name, &a))
        e = refuse(why, cap, "the certificate that was shown is not for that name alone");
    else if (!has_digest(x, key_authorization))
        e = refuse(why, cap, "the certificate that was shown lacks the right critical "
                   "acmeIdentifier extension");
    arena_deinit(&a);
    X509_free(x);
    return e;
}

bool certificate_key_is(struct slice der, const struct evp_pkey_st *key)
{
    X509 *x = certificate_of(der);
    bool same = x != NULL && X509_get0_pubkey(x) != NULL && key_same(X509_get0_pubkey(x), key);
    X509_free(x);
    ERR_clear_error();
    return same;
}
