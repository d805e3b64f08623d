/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys beside certificates, as the openssl program writes them: what is said to be surely the same is
 * the same to the library too, whatever byte is spoilt.
 */
#include <openssl/evp.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/pem.h"
#include "base/test.h"
#include "pki/certificate.h"

static char why[256];

/* The program's output, to be freed. */
static struct slice shell(const char *command)
{
    FILE *f = popen(command, "r");
    struct buffer out;
    char piece[4096];
    buffer_init(&out, 1 << 20);
    for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0;)
        CHECK_OK(buffer_append(&out, slice_of(piece, n)));
    CHECK_INT(pclose(f), 0);
    size_t len = out.len;
    CHECK_OK(buffer_append_byte(&out, '\0'));
    return slice_of(buffer_steal(&out), len);
}

static void drop(struct slice text)
{
    mem_free((char *)(uintptr_t)text.ptr);
}

/* A certificate and its key in one text: each is found in it. */
static struct slice pair(const char *algorithm, const char *form)
{
    char command[512];
    snprintf(command, sizeof command,
             "k=$(mktemp) && openssl genpkey %s -out $k 2>/dev/null && "
             "openssl req -x509 -key $k -subj /CN=a.example -days 30 2>/dev/null && "
             "openssl %s -in $k 2>/dev/null && rm $k", algorithm, form);
    return shell(command);
}

static bool library_says(struct slice chain, struct slice key)
{
    struct x509_st *x;
    EVP_PKEY *k;
    if (key_from_pem(key, &k, why, sizeof why) != OK)
        return false;
    bool same = certificate_from_pem(chain, &x, why, sizeof why) == OK;
    if (same) {
        same = certificate_has_key(x, k);
        certificate_free(x);
    }
    key_free(k);
    return same;
}

#define P256 "-algorithm EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:named_curve"

static const struct {
    const char *algorithm, *form;
    bool sure;
} forms[] = {
    {P256, "pkey", true},
    {P256, "ec", true},
    {P256, "ec -param_enc explicit", false},
    {P256, "ec -no_public", false},
    {"-algorithm EC -pkeyopt ec_paramgen_curve:P-224", "pkey", true},
    {"-algorithm EC -pkeyopt ec_paramgen_curve:P-384", "pkey", true},
    {"-algorithm EC -pkeyopt ec_paramgen_curve:P-521", "ec", true},
    {"-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1", "pkey", false},
    {"-algorithm RSA -pkeyopt rsa_keygen_bits:1024", "pkey", true},
    {"-algorithm RSA -pkeyopt rsa_keygen_bits:2048", "rsa -traditional", true},
    {"-algorithm RSA -pkeyopt rsa_keygen_bits:512", "pkey", false},
    {"-algorithm ED25519", "pkey", false},
};

TEST("a key is surely its certificate's in the forms that are usual, and the library says so, too")
{
    struct slice before = SLICE_NONE;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        struct slice text = pair(forms[i].algorithm, forms[i].form);
        CHECK(certificate_surely_has_key(text, text) == forms[i].sure);
        if (forms[i].sure)
            CHECK(library_says(text, text));
        if (before.len > 0) {
            CHECK(!certificate_surely_has_key(text, before));
            CHECK(!certificate_surely_has_key(before, text));
            drop(before);
        }
        before = text;
    }
    drop(before);
}

TEST("of the same kind, another key is not sure, nor is an encrypted one, nor no text at all")
{
    struct slice one = pair(P256, "pkey"), two = pair(P256, "pkey"),
                 locked = pair(P256, "ec -aes128 -passout pass:x"),
                 rsa = pair("-algorithm RSA -pkeyopt rsa_keygen_bits:1024", "pkey"),
                 other = pair("-algorithm RSA -pkeyopt rsa_keygen_bits:1024", "pkey");
    CHECK(!certificate_surely_has_key(one, two));
    CHECK(!certificate_surely_has_key(rsa, other));
    CHECK(!certificate_surely_has_key(locked, locked));
    CHECK(!certificate_surely_has_key(one, SLICE("")));
    CHECK(!certificate_surely_has_key(SLICE(""), one));
    drop(one);
    drop(two);
    drop(locked);
    drop(rsa);
    drop(other);
}

TEST("a chain with a damaged certificate behind the first is not sure")
{
    struct slice text = pair(P256, "pkey");
    struct buffer chain;
    buffer_init(&chain, PEM_MAX);
    CHECK_OK(buffer_append(&chain, text));
    CHECK_OK(buffer_append(&chain, text));
    CHECK(certificate_surely_has_key(buffer_slice(&chain), text));
    CHECK_OK(pem_put(&chain, "CERTIFICATE", SLICE("\x30\x03\x02\x01\x01")));
    CHECK(!certificate_surely_has_key(buffer_slice(&chain), text));
    buffer_deinit(&chain);
    drop(text);
}

/* The DER of the first block whose label ends so, and its length. */
static size_t der_of(struct slice text, struct slice label, char *out, size_t cap)
{
    struct pem_block block;
    struct buffer der;
    size_t len = 0;
    buffer_init(&der, PEM_MAX);
    while (len == 0 && pem_next(&text, &block)) {
        if (slice_ends(block.type, label) && pem_decode_to(&block, &der) == OK && der.len <= cap)
            memcpy(out, der.ptr, len = der.len);
    }
    buffer_deinit(&der);
    return len;
}

static void spoil_each_byte(const char *algorithm, const char *form, unsigned *sure)
{
    struct slice text = pair(algorithm, form);
    char der[2048];
    size_t len = der_of(text, SLICE("PRIVATE KEY"), der, sizeof der);
    struct buffer spoilt;
    buffer_init(&spoilt, PEM_MAX);
    CHECK(len > 0);
    for (size_t i = 0; i < len; i++) {
        der[i] ^= (char)(1 << i % 8);
        buffer_clear(&spoilt);
        CHECK_OK(pem_put(&spoilt, "PRIVATE KEY", slice_of(der, len)));
        der[i] ^= (char)(1 << i % 8);
        if (!certificate_surely_has_key(text, buffer_slice(&spoilt)))
            continue;
        ++*sure;
        CHECK(library_says(text, buffer_slice(&spoilt)));
    }
    buffer_deinit(&spoilt);
    drop(text);
}

TEST("whatever byte of a key is spoilt, what is still sure is sure to the library, too")
{
    unsigned sure = 0;
    spoil_each_byte(P256, "pkey", &sure);
    spoil_each_byte(P256, "ec", &sure);
    CHECK(sure >= 32 && sure <= 2 * 33); /* the number itself says nothing of the point */
    spoil_each_byte("-algorithm RSA -pkeyopt rsa_keygen_bits:1024", "pkey", &sure);
}
