/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests only: certificates made on the spot, and contexts of both sides with them.
 */
#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/mem.h"
#include "base/test.h"

static inline EVP_PKEY *testing_key(void)
{
    return EVP_EC_gen("P-256");
}

static inline void testing_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX c;
    X509V3_set_ctx_nodb(&c);
    X509V3_set_ctx(&c, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &c, nid, value);
    CHECK(e != NULL);
    X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
}

/* `names`: "DNS:a.example,DNS:*.b.example"; without `issuer` it signs itself. */
static inline X509 *testing_certificate(EVP_PKEY *key, const char *names, X509 *issuer,
                                        EVP_PKEY *issuer_key, bool is_ca, long serial, long days)
{
    X509 *x = X509_new();
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), serial);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), days * 86400);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8,
                               (const unsigned char *)(is_ca ? "Test Root" : "Test Leaf"), -1, -1, 0);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "O", MBSTRING_UTF8,
                               (const unsigned char *)"Tests", -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(issuer != NULL ? issuer : x));
    if (names != NULL)
        testing_extension(x, issuer != NULL ? issuer : x, NID_subject_alt_name, names);
    testing_extension(x, x, NID_basic_constraints, is_ca ? "critical,CA:TRUE" : "CA:FALSE");
    bool pure = EVP_PKEY_is_a(issuer_key != NULL ? issuer_key : key, "ED25519") == 1;
    CHECK(X509_sign(x, issuer_key != NULL ? issuer_key : key, pure ? NULL : EVP_sha256()) > 0);
    return x;
}

static inline struct slice testing_bio_text(BIO *bio)
{
    char *ptr;
    long len = BIO_get_mem_data(bio, &ptr);
    struct slice copy = slice_of(mem_alloc((size_t)len), (size_t)len);
    memcpy((char *)(uintptr_t)copy.ptr, ptr, (size_t)len);
    BIO_free(bio);
    return copy;
}

/* malloc'd, like the next. */
static inline struct slice testing_pem(const X509 *x)
{
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, x);
    return testing_bio_text(bio);
}

static inline struct slice testing_key_pem(EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL);
    return testing_bio_text(bio);
}

static inline void testing_free(struct slice s)
{
    mem_free((void *)(uintptr_t)s.ptr);
}
