/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates as OpenSSL's objects, for what signs and verifies. What one says is read elsewhere,
 * without the library (certificate_facts.c).
 */
#include "pki/certificate.h"

#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <time.h>

#include "base/pem.h"

static enum err refuse(char *why, size_t cap, const char *sentence)
{
    snprintf(why, cap, "%s", sentence);
    return ERR_INVALID;
}

static X509 *decode(const struct pem_block *block)
{
    struct buffer der;
    X509 *x = NULL;
    buffer_init(&der, PEM_MAX);
    if (pem_decode_to(block, &der) == OK) {
        const unsigned char *at = (const unsigned char *)der.ptr, *end = at + der.len;
        x = d2i_X509(NULL, &at, (long)der.len);
        if (x != NULL && at != end) {
            X509_free(x);
            x = NULL;
        }
        ERR_clear_error();
    }
    buffer_deinit(&der);
    return x;
}

enum err certificate_from_pem(struct slice text, X509 **out, char *why, size_t cap)
{
    struct pem_block block;
    *out = NULL;
    if (text.len > PEM_MAX)
        return refuse(why, cap, "longer than 1 MiB: this is no certificate");
    do {
        if (!pem_next(&text, &block))
            return refuse(why, cap,
                          "there is no certificate in it (\"-----BEGIN CERTIFICATE-----\")");
    } while (!slice_is(block.type, "CERTIFICATE"));
    *out = decode(&block);
    return *out != NULL ? OK : refuse(why, cap, "the certificate is damaged");
}

void certificate_free(X509 *x)
{
    X509_free(x);
}

enum err certificate_put_pem(struct buffer *out, const X509 *x)
{
    unsigned char *der = NULL;
    int len = i2d_X509(x, &der);
    ERR_clear_error();
    if (len <= 0)
        return ERR_FAILED;
    enum err e = pem_put(out, "CERTIFICATE", slice_of((char *)der, (size_t)len));
    OPENSSL_free(der);
    return e;
}

bool certificate_has_key(const X509 *x, const EVP_PKEY *key)
{
    const EVP_PKEY *own = X509_get0_pubkey(x);
    bool same = own != NULL && EVP_PKEY_eq(own, key) == 1;
    ERR_clear_error();
    return same;
}

static bool time_of(const ASN1_TIME *t, int64_t *seconds)
{
    struct tm tm;
    if (ASN1_TIME_to_tm(t, &tm) != 1)
        return false;
    *seconds = timegm(&tm);
    return true;
}

bool certificate_validity(const X509 *x, int64_t *from_s, int64_t *to_s)
{
    return time_of(X509_get0_notBefore(x), from_s) && time_of(X509_get0_notAfter(x), to_s);
}
