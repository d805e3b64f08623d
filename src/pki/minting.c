/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Of a request only its key, its names and a common name that is one of them are believed: whatever
 * else it asks for is for the authority to say. Serial numbers are 128 random bits; keys are known by
 * the SHA-1 of their bits, as RFC 5280 §4.2.1.2 proposes and Caddy's certificates have it.
 */
#include "pki/minting.h"

#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#include "pki/alternative_names.h"

enum { SERIAL_BITS = 128, COMMON_NAME_MAX = 64 };

/* --- parts --- */

static bool set_serial(X509 *x)
{
    BIGNUM *n = BN_new();
    bool ok = n != NULL && BN_rand(n, SERIAL_BITS, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1 &&
              !BN_is_zero(n) && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x)) != NULL;
    BN_free(n);
    return ok;
}

static bool set_times(X509 *x, const struct minting *m)
{
    return ASN1_TIME_set(X509_getm_notBefore(x), (time_t)m->from_s) != NULL &&
           ASN1_TIME_set(X509_getm_notAfter(x), (time_t)m->to_s) != NULL;
}

/* X.520's PrintableString, which Go prefers. */
static bool is_printable(struct slice text)
{
    static const char others[] = " '()+,-./:=?";
    for (size_t i = 0; i < text.len; i++) {
        char c = ascii_lower(text.ptr[i]);
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') &&
            memchr(others, c, sizeof others - 1) == NULL)
            return false;
    }
    return true;
}

static bool add_common_name(X509_NAME *to, struct slice text)
{
    int form = is_printable(text) ? V_ASN1_PRINTABLESTRING : MBSTRING_UTF8;
    return text.len > 0 && text.len <= COMMON_NAME_MAX &&
           X509_NAME_add_entry_by_NID(to, NID_commonName, form, (const unsigned char *)text.ptr,
                                      (int)text.len, -1, 0) == 1;
}

static bool add_usage(X509 *x, const int *bits, size_t count)
{
    ASN1_BIT_STRING *usage = ASN1_BIT_STRING_new();
    bool ok = usage != NULL;
    for (size_t i = 0; ok && i < count; i++)
        ok = ASN1_BIT_STRING_set_bit(usage, bits[i], 1) == 1;
    ok = ok && X509_add1_ext_i2d(x, NID_key_usage, usage, 1, X509V3_ADD_DEFAULT) == 1;
    ASN1_BIT_STRING_free(usage);
    return ok;
}

static bool add_constraints(X509 *x, int depth)
{
    BASIC_CONSTRAINTS *b = BASIC_CONSTRAINTS_new();
    bool ok = b != NULL;
    if (ok) {
        b->ca = 0xff;
        b->pathlen = ASN1_INTEGER_new();
        ok = b->pathlen != NULL && ASN1_INTEGER_set(b->pathlen, depth) == 1 &&
             X509_add1_ext_i2d(x, NID_basic_constraints, b, 1, X509V3_ADD_DEFAULT) == 1;
    }
    BASIC_CONSTRAINTS_free(b);
    return ok;
}

static bool add_purposes(X509 *x)
{
    EXTENDED_KEY_USAGE *all = EXTENDED_KEY_USAGE_new();
    bool ok = all != NULL && sk_ASN1_OBJECT_push(all, OBJ_nid2obj(NID_server_auth)) > 0 &&
              sk_ASN1_OBJECT_push(all, OBJ_nid2obj(NID_client_auth)) > 0 &&
              X509_add1_ext_i2d(x, NID_ext_key_usage, all, 0, X509V3_ADD_DEFAULT) == 1;
    EXTENDED_KEY_USAGE_free(all);
    return ok;
}

static bool add_key_id(X509 *x)
{
    unsigned char digest[SHA_DIGEST_LENGTH];
    unsigned len;
    ASN1_OCTET_STRING *id = ASN1_OCTET_STRING_new();
    bool ok = id != NULL && X509_pubkey_digest(x, EVP_sha1(), digest, &len) == 1 &&
              ASN1_OCTET_STRING_set(id, digest, (int)len) == 1 &&
              X509_add1_ext_i2d(x, NID_subject_key_identifier, id, 0, X509V3_ADD_DEFAULT) == 1;
    ASN1_OCTET_STRING_free(id);
    return ok;
}

/* The issuer's key identifier, where it has one. */
static bool add_issuer_id(X509 *x, const X509 *issuer)
{
    ASN1_OCTET_STRING *id = X509_get_ext_d2i(issuer, NID_subject_key_identifier, NULL, NULL);
    if (id == NULL)
        return true;
    AUTHORITY_KEYID *a = AUTHORITY_KEYID_new();
    if (a == NULL) {
        ASN1_OCTET_STRING_free(id);
        return false;
    }
    a->keyid = id;
    bool ok = X509_add1_ext_i2d(x, NID_authority_key_identifier, a, 0, X509V3_ADD_DEFAULT) == 1;
    AUTHORITY_KEYID_free(a);
    return ok;
}

static bool sign(X509 *x, const struct minting *m, EVP_PKEY *own)
{
    EVP_PKEY *key = m->issuer_key != NULL ? m->issuer_key : own;
    return X509_set_issuer_name(x, X509_get_subject_name(m->issuer != NULL ? m->issuer : x)) == 1 &&
           X509_sign(x, key, key_digest(key)) > 0;
}

/* --- authorities --- */

static bool fill_authority(X509 *x, const struct minting *m, struct slice common_name, int depth,
                           EVP_PKEY *key)
{
    static const int usage[] = {5, 6}; /* keyCertSign, cRLSign */
    return X509_set_version(x, X509_VERSION_3) == 1 && set_serial(x) && set_times(x, m) &&
           add_common_name(X509_get_subject_name(x), common_name) && X509_set_pubkey(x, key) == 1 &&
           add_usage(x, usage, 2) && add_constraints(x, depth) && add_key_id(x) &&
           (m->issuer == NULL || add_issuer_id(x, m->issuer)) && sign(x, m, key);
}

enum err mint_authority(const struct minting *m, struct slice common_name, int depth, X509 **x,
                        EVP_PKEY **key)
{
    *x = NULL;
    TRY(key_generate(KEY_P256, key));
    *x = X509_new();
    if (*x != NULL && fill_authority(*x, m, common_name, depth, *key))
        return OK;
    ERR_clear_error();
    X509_free(*x);
    key_free(*key);
    *x = NULL;
    *key = NULL;
    return ERR_FAILED;
}

/* --- leaves --- */

static GENERAL_NAMES *requested_names(X509_REQ *req)
{
    GENERAL_NAMES *names = NULL;
    STACK_OF(X509_EXTENSION) *all = X509_REQ_get_extensions(req);
    if (all != NULL)
        names = X509V3_get_d2i(all, NID_subject_alt_name, NULL, NULL);
    sk_X509_EXTENSION_pop_free(all, X509_EXTENSION_free);
    for (int i = 0; names != NULL && i < sk_GENERAL_NAME_num(names); i++) {
        int kind = sk_GENERAL_NAME_value(names, i)->type;
        if (kind == GEN_DNS || kind == GEN_IPADD || kind == GEN_EMAIL || kind == GEN_URI)
            continue;
        GENERAL_NAMES_free(names);
        return NULL;
    }
    return names;
}

static bool is_name(const GENERAL_NAMES *names, const ASN1_STRING *text)
{
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);
        if (n->type == GEN_DNS && ASN1_STRING_length(n->d.ia5) == ASN1_STRING_length(text) &&
            memcmp(ASN1_STRING_get0_data(n->d.ia5), ASN1_STRING_get0_data(text),
                   (size_t)ASN1_STRING_length(text)) == 0)
            return true;
    }
    return false;
}

static bool take_subject(X509 *x, const X509_REQ *req, const GENERAL_NAMES *names)
{
    const X509_NAME *subject = X509_REQ_get_subject_name(req);
    int at = X509_NAME_get_index_by_NID((X509_NAME *)(uintptr_t)subject, NID_commonName, -1);
    if (at < 0)
        return true;
    const ASN1_STRING *text = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
    if (!is_name(names, text) || ASN1_STRING_length(text) > COMMON_NAME_MAX)
        return true;
    return add_common_name(X509_get_subject_name(x),
                           slice_of((const char *)ASN1_STRING_get0_data(text),
                                    (size_t)ASN1_STRING_length(text)));
}

static bool fill_leaf(X509 *x, const struct minting *m, X509_REQ *req, GENERAL_NAMES *names)
{
    static const int usage[] = {0, 2}; /* digitalSignature, keyEncipherment */
    EVP_PKEY *key = X509_REQ_get0_pubkey(req);
    size_t usages = EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA ? 2 : 1;
    if (X509_set_version(x, X509_VERSION_3) != 1 || !set_serial(x) || !set_times(x, m) ||
        !take_subject(x, req, names) || X509_set_pubkey(x, key) != 1)
        return false;
    int critical = X509_NAME_entry_count(X509_get_subject_name(x)) == 0; /* RFC 5280 §4.2.1.6 */
    return add_usage(x, usage, usages) && add_purposes(x) && add_key_id(x) &&
           add_issuer_id(x, m->issuer) &&
           X509_add1_ext_i2d(x, NID_subject_alt_name, names, critical, X509V3_ADD_DEFAULT) == 1 &&
           sign(x, m, NULL);
}

static X509_REQ *read_request(struct slice der)
{
    const unsigned char *at = (const unsigned char *)der.ptr;
    X509_REQ *req = der.len > 0 ? d2i_X509_REQ(NULL, &at, (long)der.len) : NULL;
    EVP_PKEY *key = req != NULL ? X509_REQ_get0_pubkey(req) : NULL;
    if (key != NULL && key_objection(key) == NULL && X509_REQ_verify(req, key) == 1)
        return req;
    X509_REQ_free(req);
    return NULL;
}

static enum err refuse(char *why, size_t cap, const char *sentence)
{
    snprintf(why, cap, "%s", sentence);
    return ERR_INVALID;
}

enum err mint_leaf(const struct minting *m, struct slice csr_der, const struct slice *names,
                   size_t count, X509 **x, char *why, size_t cap)
{
    enum err e = OK;
    *x = NULL;
    X509_REQ *req = read_request(csr_der);
    GENERAL_NAMES *all = req == NULL   ? NULL
                         : names != NULL ? alternative_names(names, count)
                                         : requested_names(req);
    if (req == NULL)
        e = refuse(why, cap, "the request is malformed or not signed by its key");
    else if (all == NULL || sk_GENERAL_NAME_num(all) == 0)
        e = refuse(why, cap, "the request has no names, or names of unknown kinds");
    if (e == OK && ((*x = X509_new()) == NULL || !fill_leaf(*x, m, req, all))) {
        e = refuse(why, cap, "the certificate could not be signed");
        X509_free(*x);
        *x = NULL;
    }
    GENERAL_NAMES_free(all);
    X509_REQ_free(req);
    ERR_clear_error();
    return e;
}
