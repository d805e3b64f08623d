/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A chain is read block by block (RFC 8555 §9.1: certificates only, so that nothing else slips into
 * a file that other programs read). The leaf must carry the key of the request, since another one
 * would make a site that cannot start, and every name of it; an authority may add names of its own.
 */
#include "pki/issued.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>



struct chain {
    X509 *certificates[ISSUED_CHAIN_MAX];
    size_t count;
};

__attribute__((format(printf, 3, 4))) static enum err refuse(char *why, size_t cap,
                                                             const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why, cap, format, args);
    va_end(args);
    ERR_clear_error();
    return ERR_INVALID;
}

static void free_chain(struct chain *c)
{
    for (size_t i = 0; i < c->count; i++)
        X509_free(c->certificates[i]);
    c->count = 0;
}

/* --- reading --- */

static enum err only_certificates(struct slice pem, char *why, size_t cap)
{
    static const char begin[] = "-----BEGIN ";
    for (size_t at; (at = slice_find_slice(pem, SLICE("-----BEGIN "))) != SIZE_MAX;) {
        pem = slice_skip(pem, at + sizeof begin - 1);
        if (!slice_starts(pem, SLICE("CERTIFICATE-----")))
            return refuse(why, cap, "the chain holds something that is not a certificate");
    }
    return OK;
}

static enum err add_next(struct chain *c, BIO *in, char *why, size_t cap, bool *more)
{
    X509 *x = PEM_read_bio_X509(in, NULL, NULL, NULL);
    if (x == NULL) {
        *more = false;
        bool end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
        ERR_clear_error();
        return end ? OK : refuse(why, cap, "certificate %zu of the chain cannot be read",
                                 c->count + 1);
    }
    if (c->count == ISSUED_CHAIN_MAX) {
        X509_free(x);
        return refuse(why, cap, "the chain is longer than %d certificates", ISSUED_CHAIN_MAX);
    }
    c->certificates[c->count++] = x;
    return OK;
}

static enum err read_chain(struct slice pem, struct chain *c, char *why, size_t cap)
{
    c->count = 0;
    TRY(only_certificates(pem, why, cap));
    BIO *in = pem.len <= INT32_MAX ? BIO_new_mem_buf(pem.ptr, (int)pem.len) : NULL;
    if (in == NULL)
        return refuse(why, cap, "the chain cannot be read");
    enum err e = OK;
    for (bool more = true; e == OK && more;)
        e = add_next(c, in, why, cap, &more);
    BIO_free(in);
    if (e == OK && c->count == 0)
        e = refuse(why, cap, "there is no certificate in it");
    if (e != OK)
        free_chain(c);
    return e;
}

/* --- names --- */

static bool same_name(const GENERAL_NAME *a, const GENERAL_NAME *b)
{
    if (a->type != b->type || (a->type != GEN_DNS && a->type != GEN_IPADD))
        return false;
    const ASN1_STRING *x = a->type == GEN_DNS ? a->d.dNSName : a->d.iPAddress;
    const ASN1_STRING *y = b->type == GEN_DNS ? b->d.dNSName : b->d.iPAddress;
    struct slice s = slice_of((const char *)ASN1_STRING_get0_data(x), (size_t)ASN1_STRING_length(x));
    struct slice t = slice_of((const char *)ASN1_STRING_get0_data(y), (size_t)ASN1_STRING_length(y));
    return a->type == GEN_DNS ? slice_eq_nocase(s, t) : slice_eq(s, t);
}

static bool has_all(const GENERAL_NAMES *asked, const GENERAL_NAMES *given)
{
    for (int i = 0; i < sk_GENERAL_NAME_num(asked); i++) {
        bool found = false;
        for (int k = 0; k < sk_GENERAL_NAME_num(given) && !found; k++)
            found = same_name(sk_GENERAL_NAME_value(asked, i), sk_GENERAL_NAME_value(given, k));
        if (!found)
            return false;
    }
    return true;
}

static enum err check_names(X509_REQ *request, X509 *leaf, char *why, size_t cap)
{
    STACK_OF(X509_EXTENSION) *extensions = X509_REQ_get_extensions(request);
    GENERAL_NAMES *asked = X509V3_get_d2i(extensions, NID_subject_alt_name, NULL, NULL);
    GENERAL_NAMES *given = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    bool good = asked == NULL || (given != NULL && has_all(asked, given));
    GENERAL_NAMES_free(asked);
    GENERAL_NAMES_free(given);
    sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
    return good ? OK : refuse(why, cap, "the certificate lacks a name that was asked for");
}

/* --- the face --- */

static enum err check_leaf(X509 *leaf, struct slice csr_der, char *why, size_t cap)
{
    const unsigned char *at = (const unsigned char *)csr_der.ptr;
    X509_REQ *request = d2i_X509_REQ(NULL, &at, (long)csr_der.len);
    if (request == NULL)
        return refuse(why, cap, "the request cannot be read");
    EVP_PKEY *asked = X509_REQ_get0_pubkey(request), *given = X509_get0_pubkey(leaf);
    enum err e;
    if (asked == NULL || given == NULL || EVP_PKEY_eq(asked, given) != 1)
        e = refuse(why, cap, "the certificate is for another key than the one that was asked for");
    else if (X509_cmp_current_time(X509_get0_notAfter(leaf)) <= 0)
        e = refuse(why, cap, "the certificate has expired already");
    else
        e = check_names(request, leaf, why, cap);
    X509_REQ_free(request);
    return e;
}

enum err issued_check(struct slice chain_pem, struct slice csr_der, char *why, size_t cap)
{
    struct chain c;
    TRY(read_chain(chain_pem, &c, why, cap));
    enum err e = check_leaf(c.certificates[0], csr_der, why, cap);
    free_chain(&c);
    return e;
}

static struct slice common_name(const X509_NAME *name, struct arena *a)
{
    int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
    unsigned char *text = NULL;
    if (at < 0)
        return SLICE("");
    int len = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
    struct slice copy = len > 0 ? arena_copy(a, slice_of((char *)text, (size_t)len)) : SLICE("");
    OPENSSL_free(text);
    return copy;
}

enum err issued_issuers(struct slice chain_pem, struct arena *a, struct slice **names, size_t *count)
{
    struct chain c;
    char why[128];
    TRY(read_chain(chain_pem, &c, why, sizeof why));
    *names = ARENA_ARRAY(a, struct slice, c.count);
    for (size_t i = 0; i < c.count; i++)
        (*names)[i] = common_name(X509_get_issuer_name(c.certificates[i]), a);
    *count = c.count;
    free_chain(&c);
    return OK;
}

enum err issued_leaf(struct slice chain_pem, struct buffer *der)
{
    struct chain c;
    char why[128];
    TRY(read_chain(chain_pem, &c, why, sizeof why));
    unsigned char *bytes = NULL;
    int len = i2d_X509(c.certificates[0], &bytes);
    enum err e = len > 0 ? buffer_append(der, slice_of((char *)bytes, (size_t)len)) : ERR_FAILED;
    OPENSSL_free(bytes);
    free_chain(&c);
    return e;
}
