/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenSSL's OCSP functions behind plain data. The signer must be the issuer itself, or have a
 * certificate from it for just this purpose (RFC 6960 §4.2.2.2). Dates are not judged here, but
 * reported, for the caller's clock decides.
 */
#include "pki/ocsp.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <time.h>

struct pair {
    X509 *leaf, *issuer; /* issuer: NULL when not known */
};

static enum err fail(char *why, size_t cap, const char *sentence)
{
    snprintf(why, cap, "%s", sentence);
    ERR_clear_error();
    return ERR_INVALID;
}

static X509 *read_issuer(struct slice s)
{
    const unsigned char *der = (const unsigned char *)s.ptr;
    if (s.len == 0)
        return NULL;
    if (slice_find_slice(s, SLICE("-----BEGIN")) == SIZE_MAX)
        return d2i_X509(NULL, &der, (long)s.len);
    BIO *bio = BIO_new_mem_buf(s.ptr, (int)s.len);
    X509 *x = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    BIO_free(bio);
    return x;
}

static void free_pair(struct pair *p)
{
    X509_free(p->leaf);
    X509_free(p->issuer);
    ERR_clear_error();
}

static enum err read_pair(struct slice chain, struct slice issuer, struct pair *p, char *why, size_t cap)
{
    BIO *bio = BIO_new_mem_buf(chain.ptr, (int)chain.len);
    p->leaf = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    p->issuer = p->leaf != NULL ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    if (p->leaf == NULL)
        return fail(why, cap, "no certificate in the chain");
    if (p->issuer == NULL)
        p->issuer = read_issuer(issuer);
    ERR_clear_error();
    return OK;
}

enum err ocsp_request(struct slice chain, struct slice issuer, struct buffer *der, char *why, size_t cap)
{
    struct pair p;
    unsigned char *bytes = NULL;
    TRY(read_pair(chain, issuer, &p, why, cap));
    OCSP_REQUEST *request = OCSP_REQUEST_new();
    OCSP_CERTID *id = p.issuer != NULL ? OCSP_cert_to_id(NULL, p.leaf, p.issuer) : NULL;
    int len = -1;
    if (id != NULL && OCSP_request_add0_id(request, id) != NULL)
        len = i2d_OCSP_REQUEST(request, &bytes);
    else
        OCSP_CERTID_free(id);
    if (len > 0)
        buffer_append(der, slice_of((const char *)bytes, (size_t)len));
    OPENSSL_free(bytes);
    OCSP_REQUEST_free(request);
    free_pair(&p);
    return len > 0 ? OK : fail(why, cap, "the certificate's issuer is not known");
}

static int64_t seconds_of(const ASN1_TIME *t)
{
    struct tm tm;
    return t != NULL && ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

/* The issuer signs, or one that it has certified for it. */
static bool is_signed_by(OCSP_BASICRESP *basic, X509 *issuer)
{
    X509_STORE *store = X509_STORE_new();
    STACK_OF(X509) *others = sk_X509_new_null();
    X509_STORE_add_cert(store, issuer);
    X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_NO_CHECK_TIME);
    sk_X509_push(others, issuer);
    bool ok = OCSP_basic_verify(basic, others, store, OCSP_TRUSTOTHER) == 1;
    sk_X509_free(others);
    X509_STORE_free(store);
    ERR_clear_error();
    return ok;
}

static void read_single(OCSP_BASICRESP *basic, OCSP_SINGLERESP *single, struct ocsp_facts *f)
{
    ASN1_GENERALIZEDTIME *revoked = NULL, *this_update = NULL, *next_update = NULL;
    X509 *signer = NULL;
    *f = (struct ocsp_facts){.reason = OCSP_REASON_NONE};
    int status = OCSP_single_get0_status(single, &f->reason, &revoked, &this_update, &next_update);
    f->status = status == V_OCSP_CERTSTATUS_GOOD      ? OCSP_GOOD
                : status == V_OCSP_CERTSTATUS_REVOKED ? OCSP_REVOKED
                                                      : OCSP_UNKNOWN;
    f->this_update_s = seconds_of(this_update);
    f->next_update_s = seconds_of(next_update);
    f->revoked_at_s = seconds_of(revoked);
    f->until_s = f->next_update_s;
    if (OCSP_resp_get0_signer(basic, &signer, NULL) == 1) {
        int64_t end = seconds_of(X509_get0_notAfter(signer));
        if (end < f->until_s)
            f->until_s = end;
    }
}

static OCSP_SINGLERESP *find_single(OCSP_BASICRESP *basic, const struct pair *p)
{
    OCSP_SINGLERESP *found = NULL;
    if (p->issuer == NULL) {
        for (int i = 0; i < OCSP_resp_count(basic) && found == NULL; i++) {
            ASN1_INTEGER *serial = NULL;
            OCSP_SINGLERESP *single = OCSP_resp_get0(basic, i);
            const OCSP_CERTID *id = OCSP_SINGLERESP_get0_id(single);
            OCSP_id_get0_info(NULL, NULL, NULL, &serial, (OCSP_CERTID *)(uintptr_t)id);
            if (ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(p->leaf)) == 0)
                found = single;
        }
        return found;
    }
    for (int i = 0; i < OCSP_resp_count(basic) && found == NULL; i++) {
        const EVP_MD *md;
        ASN1_OBJECT *algorithm = NULL;
        OCSP_SINGLERESP *single = OCSP_resp_get0(basic, i);
        OCSP_CERTID *got = (OCSP_CERTID *)(uintptr_t)OCSP_SINGLERESP_get0_id(single);
        OCSP_id_get0_info(NULL, &algorithm, NULL, NULL, got);
        md = EVP_get_digestbyobj(algorithm);
        OCSP_CERTID *want = md != NULL ? OCSP_cert_to_id(md, p->leaf, p->issuer) : NULL;
        if (want != NULL && OCSP_id_cmp(want, got) == 0)
            found = single;
        OCSP_CERTID_free(want);
    }
    return found;
}

static OCSP_BASICRESP *read_basic(struct slice der, char *why, size_t cap)
{
    const unsigned char *at = (const unsigned char *)der.ptr;
    OCSP_BASICRESP *basic = NULL;
    OCSP_RESPONSE *response = der.len > 0 ? d2i_OCSP_RESPONSE(NULL, &at, (long)der.len) : NULL;
    int status = response != NULL ? OCSP_response_status(response) : -1;
    if (response == NULL)
        fail(why, cap, "parsing OCSP response: not DER");
    else if (status != OCSP_RESPONSE_STATUS_SUCCESSFUL)
        snprintf(why, cap, "the OCSP responder refuses: %s", OCSP_response_status_str(status));
    else if ((basic = OCSP_response_get1_basic(response)) == NULL)
        fail(why, cap, "parsing OCSP response: it is not a basic one");
    OCSP_RESPONSE_free(response);
    ERR_clear_error();
    return basic;
}

enum err ocsp_read(struct slice der, struct slice chain, struct slice issuer, struct ocsp_facts *f,
                   char *why, size_t cap)
{
    struct pair p;
    enum err e = OK;
    TRY(read_pair(chain, issuer, &p, why, cap));
    OCSP_BASICRESP *basic = read_basic(der, why, cap);
    OCSP_SINGLERESP *single = basic != NULL ? find_single(basic, &p) : NULL;
    if (basic == NULL)
        e = ERR_INVALID;
    else if (single == NULL)
        e = fail(why, cap, "the OCSP response is about another certificate");
    else if (p.issuer != NULL && !is_signed_by(basic, p.issuer))
        e = fail(why, cap, "the OCSP response is not signed by the certificate's issuer");
    else
        read_single(basic, single, f);
    OCSP_BASICRESP_free(basic);
    free_pair(&p);
    return e;
}

enum err ocsp_read_any(struct slice der, struct ocsp_facts *f)
{
    char why[128];
    OCSP_BASICRESP *basic = read_basic(der, why, sizeof why);
    OCSP_SINGLERESP *single = basic != NULL ? OCSP_resp_get0(basic, 0) : NULL;
    if (single != NULL)
        read_single(basic, single, f);
    OCSP_BASICRESP_free(basic);
    return single != NULL ? OK : ERR_INVALID;
}
