/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Made anew for each challenge; good for a week around now, since clocks differ.
 */
#include "pki/alpn_certificate.h"

#include <arpa/inet.h>
#include <openssl/asn1.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>

enum { DAY_S = 24 * 60 * 60, NAME_MAX_LEN = 253 };

static bool set_serial(X509 *x)
{
    unsigned char random[16];
    if (RAND_bytes(random, sizeof random) != 1)
        return false;
    random[0] &= 0x7f;
    BIGNUM *n = BN_bin2bn(random, sizeof random, NULL);
    bool good = n != NULL && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x)) != NULL;
    BN_free(n);
    return good;
}

static GENERAL_NAME *name_of(const char *text)
{
    unsigned char ip[16];
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_STRING *value = NULL;
    int ip_len = inet_pton(AF_INET, text, ip) == 1 ? 4 : inet_pton(AF_INET6, text, ip) == 1 ? 16 : 0;
    if (ip_len > 0) {
        value = ASN1_OCTET_STRING_new();
        ASN1_STRING_set(value, ip, ip_len);
        GENERAL_NAME_set0_value(name, GEN_IPADD, value);
    } else {
        value = ASN1_IA5STRING_new();
        ASN1_STRING_set(value, text, (int)strlen(text));
        GENERAL_NAME_set0_value(name, GEN_DNS, value);
    }
    return name;
}

static bool add_names(X509 *x, const char *text)
{
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    sk_GENERAL_NAME_push(names, name_of(text));
    bool good = X509_add1_ext_i2d(x, NID_subject_alt_name, names, 0, 0) == 1;
    GENERAL_NAMES_free(names);
    return good;
}

/* id-pe-acmeIdentifier: an OCTET STRING of the digest. */
static bool add_digest(X509 *x, struct slice key_authorization)
{
    unsigned char der[2 + SHA256_LEN] = {0x04, SHA256_LEN};
    sha256(key_authorization, der + 2);
    ASN1_OBJECT *id = OBJ_txt2obj("1.3.6.1.5.5.7.1.31", 1);
    ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
    ASN1_OCTET_STRING_set(value, der, sizeof der);
    X509_EXTENSION *extension = X509_EXTENSION_create_by_OBJ(NULL, id, 1, value);
    bool good = extension != NULL && X509_add_ext(x, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    ASN1_OCTET_STRING_free(value);
    ASN1_OBJECT_free(id);
    return good;
}

static bool fill(X509 *x, const char *name, struct slice key_authorization, EVP_PKEY *key)
{
    X509_NAME *subject = X509_get_subject_name(x);
    return X509_set_version(x, X509_VERSION_3) == 1 && set_serial(x) &&
           X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                                      (const unsigned char *)"ACME challenge", -1, -1, 0) == 1 &&
           X509_set_issuer_name(x, subject) == 1 &&
           X509_gmtime_adj(X509_getm_notBefore(x), -DAY_S) != NULL &&
           X509_gmtime_adj(X509_getm_notAfter(x), 7 * DAY_S) != NULL &&
           X509_set_pubkey(x, key) == 1 && add_names(x, name) &&
           add_digest(x, key_authorization) && X509_sign(x, key, EVP_sha256()) > 0;
}

static enum err put_pem(struct buffer *out, X509 *x)
{
    BIO *memory = BIO_new(BIO_s_mem());
    char *text;
    enum err e = ERR_FAILED;
    if (memory != NULL && PEM_write_bio_X509(memory, x) == 1) {
        long len = BIO_get_mem_data(memory, &text);
        e = buffer_append(out, slice_of(text, (size_t)len));
    }
    BIO_free(memory);
    return e;
}

enum err alpn_certificate_make(struct slice name, struct slice key_authorization,
                               struct buffer *chain_pem, struct buffer *key_pem)
{
    char text[NAME_MAX_LEN + 1];
    EVP_PKEY *key = NULL;
    if (name.len == 0 || name.len > NAME_MAX_LEN || memchr(name.ptr, 0, name.len) != NULL)
        return ERR_INVALID;
    snprintf(text, sizeof text, SLICE_FMT, SLICE_ARG(name));
    TRY(key_generate(KEY_P256, &key));
    X509 *x = X509_new();
    enum err e = x != NULL && fill(x, text, key_authorization, key) ? OK : ERR_FAILED;
    if (e == OK)
        e = put_pem(chain_pem, x);
    if (e == OK)
        e = key_put_pem(key_pem, key);
    X509_free(x);
    key_free(key);
    ERR_clear_error();
    return e;
}
