/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers made by a small authority of the test, and what must not be believed.
 */
#include "pki/ocsp.h"

#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/test.h"

static EVP_PKEY *ca_key, *leaf_key, *helper_key;
static X509 *ca, *leaf, *helper, *stranger;
static struct buffer chain;

static X509 *certify(const char *name, EVP_PKEY *key, X509 *issuer, EVP_PKEY *signer, const char *eku,
                     long serial)
{
    X509 *x = X509_new();
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), serial);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 86400);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(issuer != NULL ? issuer : x));
    X509_set_pubkey(x, key);
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer != NULL ? issuer : x, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, NID_basic_constraints,
                                            issuer == NULL ? "critical,CA:TRUE" : "CA:FALSE");
    X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
    if (eku != NULL) {
        e = X509V3_EXT_conf_nid(NULL, &ctx, NID_ext_key_usage, eku);
        X509_add_ext(x, e, -1);
        X509_EXTENSION_free(e);
    }
    X509_sign(x, signer, EVP_sha256());
    return x;
}

static void put_pem(struct buffer *b, X509 *x)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text;
    PEM_write_bio_X509(bio, x);
    long len = BIO_get_mem_data(bio, &text);
    buffer_append(b, slice_of(text, (size_t)len));
    BIO_free(bio);
}

static void setup(void)
{
    if (ca != NULL)
        return;
    ca_key = EVP_EC_gen("P-256");
    leaf_key = EVP_EC_gen("P-256");
    helper_key = EVP_EC_gen("P-256");
    ca = certify("ca", ca_key, NULL, ca_key, NULL, 1);
    leaf = certify("leaf", leaf_key, ca, ca_key, NULL, 77);
    helper = certify("helper", helper_key, ca, ca_key, "OCSPSigning", 3);
    stranger = certify("stranger", helper_key, ca, ca_key, "serverAuth", 4);
    buffer_init(&chain, 65536);
    put_pem(&chain, leaf);
    put_pem(&chain, ca);
}

static void answer(struct buffer *der, X509 *about, int status, X509 *signer, EVP_PKEY *key)
{
    OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
    OCSP_CERTID *id = OCSP_cert_to_id(NULL, about, ca);
    ASN1_TIME *from = X509_gmtime_adj(NULL, -60), *to = X509_gmtime_adj(NULL, 7200),
              *revoked = X509_gmtime_adj(NULL, -30);
    OCSP_basic_add1_status(basic, id, status, OCSP_REVOKED_STATUS_KEYCOMPROMISE,
                           status == V_OCSP_CERTSTATUS_REVOKED ? revoked : NULL, from, to);
    OCSP_basic_sign(basic, signer, key, EVP_sha256(), NULL, 0);
    OCSP_RESPONSE *r = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
    unsigned char *bytes = NULL;
    int len = i2d_OCSP_RESPONSE(r, &bytes);
    buffer_init(der, 65536);
    buffer_append(der, slice_of((char *)bytes, (size_t)len));
    OPENSSL_free(bytes);
    OCSP_RESPONSE_free(r);
    OCSP_BASICRESP_free(basic);
    OCSP_CERTID_free(id);
    ASN1_TIME_free(from);
    ASN1_TIME_free(to);
    ASN1_TIME_free(revoked);
}

static enum err read_answer(X509 *about, int status, X509 *signer, EVP_PKEY *key, struct ocsp_facts *f)
{
    char why[256];
    struct buffer der;
    answer(&der, about, status, signer, key);
    enum err e = ocsp_read(buffer_slice(&der), buffer_slice(&chain), SLICE_NONE, f, why, sizeof why);
    buffer_deinit(&der);
    return e;
}

TEST("a question names the certificate by its issuer")
{
    struct buffer der, bare;
    char why[256];
    setup();
    buffer_init(&der, 65536);
    CHECK_OK(ocsp_request(buffer_slice(&chain), SLICE_NONE, &der, why, sizeof why));
    const unsigned char *at = (const unsigned char *)der.ptr;
    OCSP_REQUEST *request = d2i_OCSP_REQUEST(NULL, &at, (long)der.len);
    CHECK(request != NULL && OCSP_request_onereq_count(request) == 1);
    OCSP_REQUEST_free(request);
    buffer_init(&bare, 65536);
    put_pem(&bare, leaf);
    CHECK_INT(ocsp_request(buffer_slice(&bare), SLICE_NONE, &der, why, sizeof why), ERR_INVALID);
    struct buffer issuer;
    buffer_init(&issuer, 65536);
    put_pem(&issuer, ca);
    CHECK_OK(ocsp_request(buffer_slice(&bare), buffer_slice(&issuer), &der, why, sizeof why));
    buffer_deinit(&issuer);
    buffer_deinit(&bare);
    buffer_deinit(&der);
}

TEST("an answer of the issuer, or of whom it has certified for that, is believed")
{
    struct ocsp_facts f;
    setup();
    CHECK_OK(read_answer(leaf, V_OCSP_CERTSTATUS_GOOD, ca, ca_key, &f));
    CHECK_INT(f.status, OCSP_GOOD);
    CHECK_INT(f.next_update_s - f.this_update_s, 7260);
    CHECK_INT(f.until_s, f.next_update_s);
    CHECK_OK(read_answer(leaf, V_OCSP_CERTSTATUS_REVOKED, helper, helper_key, &f));
    CHECK_INT(f.status, OCSP_REVOKED);
    CHECK_INT(f.reason, OCSP_REASON_KEY_COMPROMISE);
    CHECK(f.revoked_at_s > f.this_update_s);
}

TEST("an answer of somebody else, or about something else, is not")
{
    struct ocsp_facts f;
    char why[256];
    setup();
    CHECK_INT(read_answer(leaf, V_OCSP_CERTSTATUS_GOOD, stranger, helper_key, &f), ERR_INVALID);
    CHECK_INT(read_answer(leaf, V_OCSP_CERTSTATUS_GOOD, leaf, leaf_key, &f), ERR_INVALID);
    CHECK_INT(read_answer(helper, V_OCSP_CERTSTATUS_GOOD, ca, ca_key, &f), ERR_INVALID);
    CHECK_INT(ocsp_read(SLICE("nonsense"), buffer_slice(&chain), SLICE_NONE, &f, why, sizeof why),
              ERR_INVALID);
    CHECK_INT(ocsp_read(SLICE_NONE, buffer_slice(&chain), SLICE_NONE, &f, why, sizeof why),
              ERR_INVALID);
}
