/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests: an authority that signs whatever it is asked to, as an issuer module that can be told to
 * fail, and what its OCSP responder says. Included once, by the test. OpenSSL's functions are used as
 * they are: this is no part of the program.
 */
#pragma once

#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/mem.h"
#include "certs/issuance.h"
#include "loop/await.h"

struct testing_authority {
    unsigned asked, issued, failing; /* failing: how many of the next ones fail */
    unsigned asked_window;
    struct slice fails_for;          /* a name that never succeeds */
    int64_t lifetime_s;
    uint64_t takes_ns;
    bool with_ocsp, revoked, compromised;
    struct renewal_window window;
    struct slice replaces;           /* of the last request; malloc'd */
    struct slice last_csr;
};

static struct testing_authority testing_authority;

static EVP_PKEY *ca_key;
static X509 *ca;
static long serial;

static void add(X509 *x, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, ca != NULL ? ca : x, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    if (e != NULL)
        X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
}

static X509 *begin(EVP_PKEY *key, int64_t lifetime_s)
{
    X509 *x = X509_new();
    time_t now = (time_t)(clock_wall_ns() / (int64_t)NS_PER_S);
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), ++serial);
    ASN1_TIME_set(X509_getm_notBefore(x), now);
    ASN1_TIME_set(X509_getm_notAfter(x), now + lifetime_s);
    X509_set_pubkey(x, key);
    return x;
}

static void make_ca(void)
{
    if (ca != NULL)
        return;
    ca_key = EVP_EC_gen("P-256");
    X509 *x = begin(ca_key, 3650 * 86400L);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *)"testing", -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    add(x, NID_basic_constraints, "critical,CA:TRUE");
    add(x, NID_subject_key_identifier, "hash");
    X509_sign(x, ca_key, EVP_sha256());
    ca = x;
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

static void put_leaf(struct buffer *chain, struct slice name, EVP_PKEY *key, int64_t lifetime_s)
{
    char alt[300];
    make_ca();
    X509 *x = begin(key, lifetime_s);
    X509_set_issuer_name(x, X509_get_subject_name(ca));
    snprintf(alt, sizeof alt, "DNS:" SLICE_FMT, SLICE_ARG(name));
    add(x, NID_subject_alt_name, alt);
    add(x, NID_authority_key_identifier, "keyid:always");
    if (testing_authority.with_ocsp)
        add(x, NID_info_access, "OCSP;URI:http://ocsp.test/");
    X509_sign(x, ca_key, EVP_sha256());
    put_pem(chain, x);
    put_pem(chain, ca);
    X509_free(x);
}

static void testing_certificate(struct slice name, int64_t lifetime_s, struct buffer *chain,
                                struct buffer *key)
{
    EVP_PKEY *k = EVP_EC_gen("P-256");
    put_leaf(chain, name, k, lifetime_s);
    if (key_put_pem(key, k) != OK)
        abort();
    EVP_PKEY_free(k);
}

static void testing_ocsp_answer(struct slice request, struct buffer *der)
{
    const unsigned char *at = (const unsigned char *)request.ptr;
    OCSP_REQUEST *q = d2i_OCSP_REQUEST(NULL, &at, (long)request.len);
    OCSP_CERTID *id = OCSP_onereq_get0_id(OCSP_request_onereq_get0(q, 0));
    OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
    time_t now = (time_t)(clock_wall_ns() / (int64_t)NS_PER_S);
    ASN1_TIME *from = ASN1_TIME_set(NULL, now - 60), *to = ASN1_TIME_set(NULL, now + 7200);
    bool revoked = testing_authority.revoked;
    OCSP_basic_add1_status(basic, id, revoked ? V_OCSP_CERTSTATUS_REVOKED : V_OCSP_CERTSTATUS_GOOD,
                           testing_authority.compromised ? OCSP_REVOKED_STATUS_KEYCOMPROMISE
                                                         : OCSP_REVOKED_STATUS_SUPERSEDED,
                           revoked ? from : NULL, from, to);
    OCSP_basic_sign(basic, ca, ca_key, EVP_sha256(), NULL, 0);
    OCSP_RESPONSE *r = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
    unsigned char *bytes = NULL;
    int len = i2d_OCSP_RESPONSE(r, &bytes);
    buffer_append(der, slice_of((char *)bytes, (size_t)len));
    OPENSSL_free(bytes);
    OCSP_RESPONSE_free(r);
    OCSP_BASICRESP_free(basic);
    OCSP_REQUEST_free(q);
    ASN1_TIME_free(from);
    ASN1_TIME_free(to);
}

/* --- the issuer --- */

static struct slice acme_key(const void *cfg, struct arena *arena)
{
    (void)cfg;
    (void)arena;
    return SLICE("ca.test-directory");
}

static struct slice internal_key(const void *cfg, struct arena *arena)
{
    (void)cfg;
    (void)arena;
    return SLICE("local");
}

static void keep(struct slice *to, struct slice s)
{
    mem_free((void *)(uintptr_t)to->ptr);
    *to = slice_of(slice_dup(s), s.len);
}

struct signing {
    const struct issue_request *request;
    struct buffer chain;
    bool ok;
};

static void sign(void *arg)
{
    struct signing *s = arg;
    const unsigned char *at = (const unsigned char *)s->request->csr_der.ptr;
    X509_REQ *csr = d2i_X509_REQ(NULL, &at, (long)s->request->csr_der.len);
    EVP_PKEY *key = csr != NULL ? X509_REQ_get_pubkey(csr) : NULL;
    s->ok = key != NULL && X509_REQ_verify(csr, key) == 1;
    if (s->ok)
        put_leaf(&s->chain, s->request->names[0], key, testing_authority.lifetime_s);
    EVP_PKEY_free(key);
    X509_REQ_free(csr);
}

static enum err issue(const void *cfg, const struct issue_request *request, struct arena *arena,
                      struct issue_result *result)
{
    struct testing_authority *t = &testing_authority;
    struct signing s = {.request = request};
    (void)cfg;
    t->asked++;
    keep(&t->replaces, request->replaces);
    keep(&t->last_csr, request->csr_der);
    if (t->takes_ns > 0) {
        enum err e = await_sleep(clock_mono_ns() + t->takes_ns);
        if (e != OK)
            return e;
    }
    if (t->failing > 0 || slice_eq(t->fails_for, request->names[0])) {
        t->failing -= t->failing > 0;
        snprintf(result->why, sizeof result->why, "told to fail");
        return ERR_FAILED;
    }
    buffer_init(&s.chain, 65536);
    await_on_loop(sign, &s);
    result->chain_pem = arena_copy(arena, buffer_slice(&s.chain));
    result->metadata = SLICE("{\"url\":\"https://ca.test/cert/1\",\"ca\":\"https://ca.test/directory\"}");
    buffer_deinit(&s.chain);
    t->issued++;
    return s.ok ? OK : ERR_INVALID;
}

static enum err issue_internal(const void *cfg, const struct issue_request *request,
                               struct arena *arena, struct issue_result *result)
{
    enum err e = issue(cfg, request, arena, result);
    result->metadata = SLICE("null");
    return e;
}

static enum err window(const void *cfg, struct slice ari_id, struct storage *s, struct arena *arena,
                       struct renewal_window *w)
{
    (void)cfg;
    (void)s;
    (void)arena;
    testing_authority.asked_window++;
    if (testing_authority.window.start_s == 0 || ari_id.len == 0)
        return ERR_NOT_FOUND;
    *w = testing_authority.window;
    return OK;
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    (void)cfg;
    (void)json;
    (void)p;
    return OK;
}

static void testing_authority_reset(void)
{
    mem_free((void *)(uintptr_t)testing_authority.replaces.ptr);
    mem_free((void *)(uintptr_t)testing_authority.last_csr.ptr);
    testing_authority = (struct testing_authority){.lifetime_s = 90 * 86400};
}

static const struct issuer_type acme_face = {.key = acme_key, .issue = issue, .window = window};
static const struct issuer_type internal_face = {.key = internal_key, .issue = issue_internal};

static const struct module testing_acme = {
    .id = "tls.issuance.acme", .cfg_size = 1, .provision = provision, .face = &acme_face};
static const struct module testing_internal = {
    .id = "tls.issuance.internal", .cfg_size = 1, .provision = provision, .face = &internal_face};
