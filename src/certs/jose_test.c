/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signatures and thumbprints, made here and read by the other side (pki/jose_verify.h).
 */
#include "base/test.h"
#include "base/text.h"
#include "certs/ca_jws.h"
#include "certs/jose.h"
#include "pki/alpn_certificate.h"
#include "pki/certificate.h"
#include "pki/issued.h"

static struct arena arena;

static void fresh(void)
{
    arena_deinit(&arena);
    arena_init(&arena, 8192);
}

static struct evp_pkey_st *make(enum key_type type)
{
    struct evp_pkey_st *key;
    CHECK_OK(key_generate(type, &key));
    return key;
}

static struct slice sign(const struct evp_pkey_st *key, struct slice payload, struct slice kid)
{
    struct jws jws = {.key = key, .kid = kid, .nonce = SLICE("n0"), .url = SLICE("https://a/b"),
                      .payload = payload};
    struct buffer b;
    buffer_init(&b, 1 << 16);
    CHECK_OK(jws_put(&b, &jws));
    struct slice text = arena_copy(&arena, buffer_slice(&b));
    buffer_deinit(&b);
    return text;
}

TEST("the thumbprint of RFC 7638's key is that of RFC 7638")
{
    struct jwk jwk = {
        .kty = SLICE("RSA"), .e = SLICE("AQAB"),
        .n = SLICE("0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6t"
                   "Soc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65"
                   "YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrd"
                   "kt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnq"
                   "DKgw")};
    struct evp_pkey_st *key;
    struct slice thumbprint;
    fresh();
    CHECK_OK(jwk_read(&jwk, &key));
    CHECK_OK(jwk_thumbprint(key, &arena, &thumbprint));
    CHECK_TEXT(thumbprint, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    key_free(key);
    arena_deinit(&arena);
}

TEST("what every kind of key signs is verified with its JWK, and nothing else is")
{
    static const enum key_type types[] = {KEY_P256, KEY_P384, KEY_RSA2048, KEY_ED25519};
    struct evp_pkey_st *other = make(KEY_P256);
    for (int i = 0; i < 4; i++) {
        struct evp_pkey_st *key = make(types[i]), *seen;
        struct ca_jws jws;
        const char *why;
        fresh();
        CHECK_OK(ca_jws_read(sign(key, SLICE("{\"a\":1}"), SLICE("")), &arena, &jws, &why));
        CHECK(jws.has_jwk);
        CHECK_TEXT(jws.payload, "{\"a\":1}");
        CHECK_TEXT(jws.nonce, "n0");
        CHECK_OK(jwk_read(&jws.jwk, &seen));
        CHECK(key_same(key, seen));
        CHECK(jose_verify(seen, jws.algorithm, jws.signed_text, jws.signature));
        CHECK(!jose_verify(seen, SLICE("HS256"), jws.signed_text, jws.signature));
        CHECK(!jose_verify(seen, jws.algorithm, jws.payload, jws.signature));
        CHECK(!jose_verify(other, SLICE("ES256"), jws.signed_text, jws.signature));
        ((char *)jws.signature.ptr)[jws.signature.len / 2] ^= 1;
        CHECK(!jose_verify(seen, jws.algorithm, jws.signed_text, jws.signature));
        key_free(seen);
        key_free(key);
    }
    key_free(other);
    arena_deinit(&arena);
}

TEST("with an account's URL the key is not sent; a POST-as-GET has an empty payload")
{
    struct evp_pkey_st *key = make(KEY_P256);
    struct ca_jws jws;
    const char *why;
    fresh();
    CHECK_OK(ca_jws_read(sign(key, SLICE(""), SLICE("https://a/acct/1")), &arena, &jws, &why));
    CHECK(!jws.has_jwk);
    CHECK_TEXT(jws.kid, "https://a/acct/1");
    CHECK_INT(jws.payload.len, 0);
    key_free(key);
    arena_deinit(&arena);
}

TEST("JWS that are none are refused with a word why")
{
    static const char *const texts[] = {
        "", "{}", "[]", "{\"protected\":\"e30\",\"payload\":\"\",\"signature\":\"\"}",
        "{\"protected\":\"!\",\"payload\":\"\",\"signature\":\"\"}",
        "{\"protected\":\"e30\",\"payload\":7,\"signature\":\"\"}",
        "{\"protected\":\"e30\",\"payload\":\"\",\"signature\":\"\",\"header\":{}}"};
    struct ca_jws jws;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const char *why = NULL;
        fresh();
        CHECK_INT(ca_jws_read(slice_from(texts[i]), &arena, &jws, &why), ERR_INVALID);
        CHECK(why != NULL);
    }
    arena_deinit(&arena);
}

TEST("keys that are none, or too small, are refused")
{
    struct evp_pkey_st *key;
    struct jwk off = {.kty = SLICE("EC"), .crv = SLICE("P-256"),
                      .x = SLICE("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
                      .y = SLICE("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")};
    CHECK_INT(jwk_read(&off, &key), ERR_INVALID);
    off.crv = SLICE("P-224");
    CHECK_INT(jwk_read(&off, &key), ERR_UNSUPPORTED);
    off.kty = SLICE("oct");
    CHECK_INT(jwk_read(&off, &key), ERR_UNSUPPORTED);
    CHECK_INT(jwk_read(&(struct jwk){.kty = SLICE("RSA"), .n = SLICE("AQAB"), .e = SLICE("AQAB")},
                       &key), ERR_UNSUPPORTED);
    CHECK_INT(jwk_read(&(struct jwk){.kty = SLICE("RSA")}, &key), ERR_INVALID);
}

TEST("an external account's binding is an HMAC over the key (RFC 8555 §7.3.4)")
{
    struct evp_pkey_st *key = make(KEY_P256);
    struct buffer b;
    struct ca_jws jws;
    struct slice jwk;
    uint8_t mac[SHA256_LEN];
    const char *why;
    fresh();
    buffer_init(&b, 1 << 16);
    CHECK_OK(jws_put_binding(&b, key, SLICE("secret"), SLICE("kid-1"), SLICE("https://a/new")));
    CHECK_OK(ca_jws_read(buffer_slice(&b), &arena, &jws, &why));
    CHECK_TEXT(jws.algorithm, "HS256");
    CHECK_TEXT(jws.kid, "kid-1");
    CHECK_INT(jws.nonce.len, 0);
    CHECK_OK(ca_jwk_text(key, &arena, &jwk));
    CHECK_SLICE(jws.payload, jwk);
    hmac_sha256(SLICE("secret"), jws.signed_text, mac);
    CHECK_SLICE(jws.signature, slice_of((char *)mac, sizeof mac));
    buffer_deinit(&b);
    key_free(key);
    arena_deinit(&arena);
}

TEST("a nonce is good once")
{
    fresh();
    struct slice one = ca_nonce_make(&arena), two = ca_nonce_make(&arena);
    CHECK(ca_nonce_use(two));
    CHECK(ca_nonce_use(one));
    CHECK(!ca_nonce_use(one));
    CHECK(!ca_nonce_use(SLICE("")));
    CHECK(!ca_nonce_use(SLICE("AAAAAAAAAAAAAAAAAAAAAAAA")));
    for (int i = 0; i < CA_NONCES; i++)
        (void)ca_nonce_make(&arena);
    arena_deinit(&arena);
}

static struct slice leaf_of(struct slice pem)
{
    struct buffer der;
    buffer_init(&der, 1 << 16);
    CHECK_OK(issued_leaf(pem, &der));
    struct slice copy = arena_copy(&arena, buffer_slice(&der));
    buffer_deinit(&der);
    return copy;
}

TEST("the certificate of TLS-ALPN-01 proves its name with its key authorization, nothing else")
{
    static const char *const names[] = {"a.example", "192.0.2.1", "2001:db8::1"};
    for (int i = 0; i < 3; i++) {
        struct slice name = slice_from(names[i]), der;
        struct buffer chain, key;
        char why[256];
        fresh();
        buffer_init(&chain, 1 << 16);
        buffer_init(&key, 1 << 16);
        CHECK_OK(alpn_certificate_make(name, SLICE("token.thumb"), &chain, &key));
        der = leaf_of(buffer_slice(&chain));
        CHECK_OK(alpn_certificate_check(der, name, SLICE("token.thumb"), why, sizeof why));
        CHECK_INT(alpn_certificate_check(der, name, SLICE("token.other"), why, sizeof why),
                  ERR_INVALID);
        CHECK_INT(alpn_certificate_check(der, SLICE("b.example"), SLICE("token.thumb"), why,
                                         sizeof why), ERR_INVALID);
        buffer_deinit(&chain);
        buffer_deinit(&key);
    }
    arena_deinit(&arena);
}

TEST("a request for a certificate tells its names, and a broken one is refused")
{
    const struct slice asked[] = {SLICE("a.example"), SLICE("*.b.example"), SLICE("192.0.2.7")};
    struct evp_pkey_st *key = make(KEY_P256);
    struct slice *names;
    size_t count;
    struct buffer der;
    char why[256];
    fresh();
    buffer_init(&der, 1 << 16);
    CHECK_OK(csr_make(key, asked, 3, false, &der));
    CHECK_OK(csr_read(buffer_slice(&der), &arena, &names, &count, why, sizeof why));
    CHECK_INT(count, 3);
    for (int i = 0; i < 3; i++)
        CHECK_SLICE(names[i], asked[i]);
    der.ptr[der.len - 1] ^= 1;
    CHECK_INT(csr_read(buffer_slice(&der), &arena, &names, &count, why, sizeof why), ERR_INVALID);
    CHECK_INT(csr_read(SLICE("hello"), &arena, &names, &count, why, sizeof why), ERR_INVALID);
    buffer_deinit(&der);
    key_free(key);
    arena_deinit(&arena);
}
