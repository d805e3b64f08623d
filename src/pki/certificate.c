/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A certificate is read once, when it is loaded; afterwards its facts are plain data and OpenSSL's
 * object is gone: a thousand sites keep no thousand trees. Names that hold bytes which no name can
 * hold (a NUL that would cut it short, spaces, controls) are left out: nobody can be greeted by them.
 */
#include "pki/certificate.h"

#include <arpa/inet.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <time.h>

#include "base/pem.h"

enum { NAMES_MAX = 10000, TLS_FEATURE_STAPLE = 5 };

static enum err refuse(char *why, size_t cap, const char *sentence)
{
    snprintf(why, cap, "%s", sentence);
    return ERR_INVALID;
}

/* --- PEM --- */

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

static unsigned count_certificates(struct slice text)
{
    struct pem_block block;
    unsigned count = 0;
    while (pem_next(&text, &block))
        count += slice_is(block.type, "CERTIFICATE");
    return count;
}

/* --- names --- */

static struct slice string_of(const ASN1_STRING *s)
{
    return slice_of((const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
}

static bool is_clean(struct slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        if ((unsigned char)name.ptr[i] <= ' ' || name.ptr[i] == 0x7f)
            return false;
    }
    return name.len > 0;
}

static struct slice lower(struct arena *arena, struct slice s)
{
    char *copy = arena_alloc(arena, s.len);
    for (size_t i = 0; i < s.len; i++)
        copy[i] = ascii_lower(s.ptr[i]);
    return slice_of(copy, s.len);
}

static struct slice address_text(struct arena *arena, struct slice bytes)
{
    static const char mapped[12] = "\0\0\0\0\0\0\0\0\0\0\xff\xff";
    char text[INET6_ADDRSTRLEN];
    if (bytes.len == 16 && memcmp(bytes.ptr, mapped, sizeof mapped) == 0)
        bytes = slice_skip(bytes, sizeof mapped);
    if ((bytes.len != 4 && bytes.len != 16) ||
        inet_ntop(bytes.len == 4 ? AF_INET : AF_INET6, bytes.ptr, text, sizeof text) == NULL)
        return SLICE_NONE;
    return arena_copy(arena, slice_from(text));
}

/* The name's text; empty for kinds that no site is known by. */
static struct slice general_name(struct arena *arena, const GENERAL_NAME *n)
{
    switch (n->type) {
    case GEN_DNS:
    case GEN_EMAIL:
        return is_clean(string_of(n->d.ia5)) ? lower(arena, string_of(n->d.ia5)) : SLICE_NONE;
    case GEN_IPADD:
        return address_text(arena, string_of(n->d.iPAddress));
    case GEN_URI:
        return is_clean(string_of(n->d.ia5)) ? arena_copy(arena, string_of(n->d.ia5)) : SLICE_NONE;
    default:
        return SLICE_NONE;
    }
}

/* Each kind after the other, as certmagic lists them. */
static void add_alternatives(struct arena *arena, GENERAL_NAMES *all, struct certificate_facts *f)
{
    static const int kinds[] = {GEN_DNS, GEN_IPADD, GEN_EMAIL, GEN_URI};
    struct slice common = f->names_count > 0 ? f->names[0] : SLICE_NONE;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        for (int i = 0; i < sk_GENERAL_NAME_num(all) && i < NAMES_MAX; i++) {
            const GENERAL_NAME *n = sk_GENERAL_NAME_value(all, i);
            if (n->type != kinds[k])
                continue;
            struct slice name = general_name(arena, n);
            if (name.len > 0 && !slice_eq(name, common))
                f->names[f->names_count++] = name;
        }
    }
}

/* The first of a kind in a distinguished name, as UTF-8. */
static struct slice entry_text(struct arena *arena, const X509_NAME *name, int nid)
{
    int at = X509_NAME_get_index_by_NID((X509_NAME *)(uintptr_t)name, nid, -1);
    if (at < 0)
        return SLICE_NONE;
    unsigned char *text = NULL;
    int len = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
    if (len < 0)
        return SLICE_NONE;
    struct slice copy = arena_copy(arena, slice_of((char *)text, (size_t)len));
    OPENSSL_free(text);
    return copy;
}

static void read_names(const X509 *x, struct arena *arena, struct certificate_facts *f)
{
    GENERAL_NAMES *all = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    int count = all != NULL ? sk_GENERAL_NAME_num(all) : 0;
    f->names = ARENA_ARRAY(arena, struct slice, 1 + (count < NAMES_MAX ? count : NAMES_MAX));
    f->common_name = entry_text(arena, X509_get_subject_name(x), NID_commonName);
    if (f->common_name.len > 0)
        f->names[f->names_count++] = lower(arena, f->common_name);
    if (all != NULL)
        add_alternatives(arena, all, f);
    GENERAL_NAMES_free(all);
}

static struct slice name_text(struct arena *arena, const X509_NAME *name)
{
    BIO *out = BIO_new(BIO_s_mem());
    char *text = NULL;
    if (out == NULL)
        return SLICE_NONE;
    X509_NAME_print_ex(out, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB);
    long len = BIO_get_mem_data(out, &text);
    struct slice copy = len > 0 ? arena_copy(arena, slice_of(text, (size_t)len)) : SLICE_NONE;
    BIO_free(out);
    return copy;
}

/* --- the rest --- */

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

static struct slice serial_text(struct arena *arena, const X509 *x)
{
    BIGNUM *n = ASN1_INTEGER_to_BN(X509_get0_serialNumber(x), NULL);
    char *text = n != NULL ? BN_bn2dec(n) : NULL;
    struct slice copy = arena_copy(arena, slice_from(text));
    OPENSSL_free(text);
    BN_free(n);
    return copy;
}

static bool must_staple(const X509 *x)
{
    TLS_FEATURE *all = X509_get_ext_d2i(x, NID_tlsfeature, NULL, NULL);
    bool found = false;
    for (int i = 0; all != NULL && i < sk_ASN1_INTEGER_num(all); i++)
        found |= ASN1_INTEGER_get(sk_ASN1_INTEGER_value(all, i)) == TLS_FEATURE_STAPLE;
    TLS_FEATURE_free(all);
    return found;
}

static bool is_authority(const X509 *x)
{
    BASIC_CONSTRAINTS *b = X509_get_ext_d2i(x, NID_basic_constraints, NULL, NULL);
    bool is_ca = b != NULL && b->ca != 0;
    BASIC_CONSTRAINTS_free(b);
    return is_ca;
}

static void read_access(const X509 *x, struct arena *arena, struct certificate_facts *f)
{
    AUTHORITY_INFO_ACCESS *all = X509_get_ext_d2i(x, NID_info_access, NULL, NULL);
    for (int i = 0; all != NULL && i < sk_ACCESS_DESCRIPTION_num(all); i++) {
        const ACCESS_DESCRIPTION *a = sk_ACCESS_DESCRIPTION_value(all, i);
        int nid = OBJ_obj2nid(a->method);
        struct slice *to = nid == NID_ad_OCSP        ? &f->ocsp_url
                           : nid == NID_ad_ca_issuers ? &f->issuer_url
                                                      : NULL;
        if (to != NULL && to->len == 0 && a->location->type == GEN_URI &&
            is_clean(string_of(a->location->d.ia5)))
            *to = arena_copy(arena, string_of(a->location->d.ia5));
    }
    AUTHORITY_INFO_ACCESS_free(all);
}

/* base64url without padding of the standard alphabet's text, in place. */
static struct slice to_url_alphabet(struct slice text)
{
    char *c = (char *)(uintptr_t)text.ptr;
    for (size_t i = 0; i < text.len; i++)
        c[i] = c[i] == '+' ? '-' : c[i] == '/' ? '_' : c[i];
    while (text.len > 0 && text.ptr[text.len - 1] == '=')
        text.len--;
    return text;
}

static struct slice base64url(struct arena *arena, struct slice bytes)
{
    char *text = arena_alloc(arena, (bytes.len + 2) / 3 * 4 + 1);
    int len = EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)bytes.ptr,
                              (int)bytes.len);
    return to_url_alphabet(slice_of(text, (size_t)len));
}

/* The key identifier and the serial's DER bytes, sign octet and all (RFC 9773 §4.1). */
static struct slice ari_id(struct arena *arena, const X509 *x)
{
    AUTHORITY_KEYID *a = X509_get_ext_d2i(x, NID_authority_key_identifier, NULL, NULL);
    unsigned char *der = NULL;
    int len = i2d_ASN1_INTEGER(X509_get0_serialNumber(x), &der);
    struct slice id = SLICE_NONE;
    if (a != NULL && a->keyid != NULL && len > 2 && len < 0x80)
        id = arena_printf(arena, SLICE_FMT "." SLICE_FMT,
                          SLICE_ARG(base64url(arena, string_of(a->keyid))),
                          SLICE_ARG(base64url(arena, slice_of((char *)der + 2, (size_t)len - 2))));
    OPENSSL_free(der);
    AUTHORITY_KEYID_free(a);
    return id;
}

static int algorithm_of(const X509 *x)
{
    const EVP_PKEY *key = X509_get0_pubkey(x);
    switch (key != NULL ? EVP_PKEY_get_base_id(key) : 0) {
    case EVP_PKEY_RSA:
        return 1;
    case EVP_PKEY_EC:
        return 3;
    case EVP_PKEY_ED25519:
        return 4;
    default:
        return 0;
    }
}

static enum err read_facts(const X509 *x, struct arena *arena, struct certificate_facts *f,
                           char *why, size_t cap)
{
    unsigned size;
    if (!certificate_validity(x, &f->not_before_s, &f->not_after_s))
        return refuse(why, cap, "the certificate's times of validity are malformed");
    if (X509_digest(x, EVP_sha256(), f->sha256, &size) != 1)
        return refuse(why, cap, "the certificate is damaged");
    read_names(x, arena, f);
    f->subject = name_text(arena, X509_get_subject_name(x));
    f->issuer = name_text(arena, X509_get_issuer_name(x));
    f->organization = entry_text(arena, X509_get_issuer_name(x), NID_organizationName);
    f->serial = serial_text(arena, x);
    f->key_algorithm = algorithm_of(x);
    f->must_staple = must_staple(x);
    f->is_ca = is_authority(x);
    read_access(x, arena, f);
    f->ari_id = ari_id(arena, x);
    return OK;
}

enum err certificate_read(struct slice pem, struct arena *arena, struct certificate_facts *f,
                          char *why, size_t cap)
{
    X509 *x;
    *f = (struct certificate_facts){0};
    TRY(certificate_from_pem(pem, &x, why, cap));
    f->chain = count_certificates(pem);
    enum err e = read_facts(x, arena, f, why, cap);
    ERR_clear_error();
    X509_free(x);
    return e;
}
