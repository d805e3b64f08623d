/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests have an empty subject: names stand in the alternative names only, as authorities want
 * them (RFC 8555 §7.4).
 */
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "pki/certificate.h"
#include "pki/alternative_names.h"

static bool is_ascii(struct slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        if ((unsigned char)name.ptr[i] <= ' ' || (unsigned char)name.ptr[i] >= 0x7f)
            return false;
    }
    return name.len > 0;
}

static bool put_address(struct slice name, ASN1_OCTET_STRING **to)
{
    unsigned char bytes[16];
    char text[INET6_ADDRSTRLEN];
    if (name.len >= sizeof text)
        return false;
    memcpy(text, name.ptr, name.len);
    text[name.len] = '\0';
    int len = inet_pton(AF_INET, text, bytes) == 1 ? 4 : inet_pton(AF_INET6, text, bytes) == 1 ? 16 : 0;
    if (len == 0)
        return false;
    *to = ASN1_OCTET_STRING_new();
    return *to != NULL && ASN1_OCTET_STRING_set(*to, bytes, len) == 1;
}

static bool fill(GENERAL_NAME *n, struct slice name)
{
    if (put_address(name, &n->d.iPAddress)) {
        n->type = GEN_IPADD;
        return true;
    }
    n->d.ia5 = ASN1_IA5STRING_new();
    n->type = slice_find(name, '@') != SIZE_MAX   ? GEN_EMAIL
              : slice_find(name, '/') != SIZE_MAX ? GEN_URI
                                                  : GEN_DNS;
    return n->d.ia5 != NULL && ASN1_STRING_set(n->d.ia5, name.ptr, (int)name.len) == 1;
}

GENERAL_NAMES *alternative_names(const struct slice *names, size_t count)
{
    GENERAL_NAMES *all = GENERAL_NAMES_new();
    for (size_t i = 0; all != NULL && i < count; i++) {
        GENERAL_NAME *n = is_ascii(names[i]) ? GENERAL_NAME_new() : NULL;
        if (n != NULL && fill(n, names[i]) && sk_GENERAL_NAME_push(all, n) > 0)
            continue;
        GENERAL_NAME_free(n);
        GENERAL_NAMES_free(all);
        all = NULL;
    }
    return all;
}

static bool add_extensions(X509_REQ *req, GENERAL_NAMES *names, bool staple)
{
    STACK_OF(X509_EXTENSION) *all = NULL;
    TLS_FEATURE *features = NULL;
    bool ok = X509V3_add1_i2d(&all, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) == 1;
    if (ok && staple) {
        ASN1_INTEGER *five = ASN1_INTEGER_new();
        features = TLS_FEATURE_new();
        ok = five != NULL && features != NULL && ASN1_INTEGER_set(five, 5) == 1 &&
             sk_ASN1_INTEGER_push(features, five) > 0 &&
             X509V3_add1_i2d(&all, NID_tlsfeature, features, 0, X509V3_ADD_DEFAULT) == 1;
    }
    ok = ok && X509_REQ_add_extensions(req, all) == 1;
    TLS_FEATURE_free(features);
    sk_X509_EXTENSION_pop_free(all, X509_EXTENSION_free);
    return ok;
}

static enum err put_der(struct buffer *out, X509_REQ *req)
{
    unsigned char *der = NULL;
    int len = i2d_X509_REQ(req, &der);
    if (len <= 0)
        return ERR_FAILED;
    enum err e = buffer_append(out, slice_of((char *)der, (size_t)len));
    OPENSSL_free(der);
    return e;
}

enum err csr_make(EVP_PKEY *key, const struct slice *names, size_t count, bool must_staple,
                  struct buffer *der)
{
    GENERAL_NAMES *all = alternative_names(names, count);
    X509_REQ *req = X509_REQ_new();
    enum err e = all == NULL ? ERR_INVALID : req == NULL ? ERR_FAILED : OK;
    if (e == OK && (X509_REQ_set_version(req, 0) != 1 || X509_REQ_set_pubkey(req, key) != 1 ||
                    !add_extensions(req, all, must_staple) ||
                    X509_REQ_sign(req, key, key_digest(key)) <= 0))
        e = ERR_FAILED;
    if (e == OK)
        e = put_der(der, req);
    X509_REQ_free(req);
    GENERAL_NAMES_free(all);
    ERR_clear_error();
    return e;
}
