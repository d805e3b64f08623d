/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Caddy accepts as a key is Go's choice: RSA, ECDSA on NIST's curves, Ed25519. The label of a
 * PEM block is not believed, only its bytes are, as in certmagic; blocks that are no keys (the
 * parameters that `openssl ecparam` writes first) are passed over.
 *
 * OpenSSL keeps a queue of errors per thread; whoever fails here empties it, so that nobody else
 * finds it.
 */
#include "pki/key.h"

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdio.h>

#include "base/pem.h"
#include "loop/await.h"
#include "pki/der.h"

enum { RSA_BITS_MIN = 1024, RSA_BITS_MAX = 16384, KEY_PEM_MAX = 64 << 10 };

static const struct {
    const char *name, *curve;
    enum key_type type;
    size_t bits;
} key_types[] = {
    {"", "P-256", KEY_P256, 0},
    {"p256", "P-256", KEY_P256, 0},
    {"p384", "P-384", KEY_P384, 0},
    {"rsa2048", NULL, KEY_RSA2048, 2048},
    {"rsa4096", NULL, KEY_RSA4096, 4096},
    {"rsa8192", NULL, KEY_RSA8192, 8192},
    {"ed25519", NULL, KEY_ED25519, 0},
};

enum { TYPES = sizeof key_types / sizeof key_types[0] };

enum err key_type_parse(struct slice name, enum key_type *type)
{
    for (size_t i = 0; i < TYPES; i++) {
        if (slice_is(name, key_types[i].name)) {
            *type = key_types[i].type;
            return OK;
        }
    }
    return ERR_INVALID;
}

/* --- making --- */

struct making {
    size_t row;
    EVP_PKEY *key;
};

static void make(void *arg)
{
    struct making *m = arg;
    if (key_types[m->row].curve != NULL)
        m->key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", key_types[m->row].curve);
    else if (key_types[m->row].bits > 0)
        m->key = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", key_types[m->row].bits);
    else
        m->key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    ERR_clear_error();
}

enum err key_generate(enum key_type type, EVP_PKEY **key)
{
    struct making m = {.row = 1};
    while (key_types[m.row].type != type)
        m.row++;
    *key = NULL;
    if (key_types[m.row].bits > 0 && fiber_self() != NULL) {
        enum err e = await_offload_slow(make, &m);
        if (e != OK && m.key != NULL)
            key_free(m.key);
        TRY(e);
    } else {
        make(&m);
    }
    *key = m.key;
    return m.key != NULL ? OK : ERR_FAILED;
}

void key_free(EVP_PKEY *key)
{
    EVP_PKEY_free(key);
}

void key_wipe(struct buffer *b)
{
    if (b->ptr != NULL)
        OPENSSL_cleanse(b->ptr, b->cap);
    buffer_deinit(b);
}

const EVP_MD *key_digest(const EVP_PKEY *key)
{
    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_ED25519:
        return NULL;
    case EVP_PKEY_EC:
        if (EVP_PKEY_get_bits(key) > 384)
            return EVP_sha512();
        return EVP_PKEY_get_bits(key) > 256 ? EVP_sha384() : EVP_sha256();
    default:
        return EVP_sha256();
    }
}

/* --- writing --- */

static const char *label_of(const EVP_PKEY *key)
{
    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_EC:
        return "EC PRIVATE KEY";
    case EVP_PKEY_RSA:
        return "RSA PRIVATE KEY";
    default:
        return "ED25519 PRIVATE KEY";
    }
}

enum err key_put_pem(struct buffer *out, const EVP_PKEY *key)
{
    unsigned char *der = NULL;
    int len = i2d_PrivateKey(key, &der);
    ERR_clear_error();
    if (len <= 0)
        return ERR_FAILED;
    enum err e = pem_put(out, label_of(key), slice_of((char *)der, (size_t)len));
    OPENSSL_clear_free(der, (size_t)len);
    return e;
}

/* --- reading --- */

static bool is_nist_curve(const EVP_PKEY *key)
{
    char name[64];
    size_t len;
    if (EVP_PKEY_get_group_name(key, name, sizeof name, &len) != 1)
        return false;
    int nid = OBJ_txt2nid(name);
    return nid == NID_secp224r1 || nid == NID_X9_62_prime256v1 || nid == NID_secp384r1 ||
           nid == NID_secp521r1;
}

const char *key_objection(const EVP_PKEY *key)
{
    int bits = EVP_PKEY_get_bits(key);
    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_RSA:
        if (bits < RSA_BITS_MIN || bits > RSA_BITS_MAX)
            return "an RSA key must have from 1,024 to 16,384 bits";
        return NULL;
    case EVP_PKEY_EC:
        return is_nist_curve(key) ? NULL : "its curve is none of P-224, P-256, P-384, P-521";
    case EVP_PKEY_ED25519:
        return NULL;
    default:
        return "its kind is none of RSA, ECDSA, Ed25519";
    }
}

static enum err refuse(char *why, size_t cap, const char *sentence)
{
    snprintf(why, cap, "%s", sentence);
    return ERR_INVALID;
}

static bool holds_key(const struct pem_block *block)
{
    return slice_is(block->type, "PRIVATE KEY") ||
           slice_ends(block->type, SLICE(" PRIVATE KEY"));
}

/* PKCS#8 around something that is read faster without it; NULL: something else. */
static EVP_PKEY *unwrap(struct slice algorithm, struct slice rest)
{
    static const struct slice rsa = {"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01", 9},
                              ed25519 = {"\x2b\x65\x70", 3};
    struct slice oid, key, raw;
    if (!der_take(&algorithm, DER_OID, &oid) || !der_take(&rest, DER_OCTET_STRING, &key))
        return NULL;
    const unsigned char *at = (const unsigned char *)key.ptr;
    if (slice_eq(oid, rsa))
        return d2i_PrivateKey(EVP_PKEY_RSA, NULL, &at, (long)key.len);
    if (!slice_eq(oid, ed25519) || !der_take(&key, DER_OCTET_STRING, &raw) || key.len > 0)
        return NULL;
    return EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, (const unsigned char *)raw.ptr, raw.len);
}

/* The label says little; the first values say which form it is: a version and a number (PKCS#1), a
 * version and bytes (SEC 1), a version and an algorithm (PKCS#8). The library's way of finding out is
 * to try them all. */
static EVP_PKEY *decode(struct slice der)
{
    struct slice rest = der, inside, version, second;
    const unsigned char *at = (const unsigned char *)der.ptr;
    int tag;
    if (!der_take(&rest, DER_SEQUENCE, &inside) || !der_take(&inside, DER_INTEGER, &version) ||
        !der_next(&inside, &tag, &second))
        return NULL;
    if (tag != DER_SEQUENCE)
        return d2i_PrivateKey(tag == DER_INTEGER ? EVP_PKEY_RSA : EVP_PKEY_EC, NULL, &at,
                              (long)der.len);
    EVP_PKEY *fast = unwrap(second, inside);
    if (fast != NULL)
        return fast;
    PKCS8_PRIV_KEY_INFO *info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &at, (long)der.len);
    EVP_PKEY *k = info != NULL ? EVP_PKCS82PKEY(info) : NULL;
    PKCS8_PRIV_KEY_INFO_free(info);
    return k;
}

static enum err key_from_der(struct slice der, EVP_PKEY **key, char *why, size_t cap)
{
    EVP_PKEY *k = decode(der);
    ERR_clear_error();
    if (k == NULL)
        return refuse(why, cap, "the private key is not PKCS#1, SEC 1 or PKCS#8, or damaged");
    const char *wrong = key_objection(k);
    if (wrong == NULL) {
        *key = k;
        return OK;
    }
    EVP_PKEY_free(k);
    return refuse(why, cap, wrong);
}

enum err key_from_pem(struct slice text, EVP_PKEY **key, char *why, size_t cap)
{
    struct buffer der;
    struct pem_block block;
    enum err e = ERR_NOT_FOUND;
    *key = NULL;
    buffer_init(&der, KEY_PEM_MAX);
    if (text.len > PEM_MAX)
        return refuse(why, cap, "longer than 1 MiB: this is no private key");
    while (e == ERR_NOT_FOUND && pem_next(&text, &block)) {
        if (!holds_key(&block))
            continue;
        if (block.encrypted || slice_is(block.type, "ENCRYPTED PRIVATE KEY"))
            e = refuse(why, cap, "the private key is encrypted: decrypt it with `openssl pkey`");
        else if (pem_decode_to(&block, &der) != OK)
            e = refuse(why, cap, "the private key is too long");
        else
            e = key_from_der(buffer_slice(&der), key, why, cap);
    }
    key_wipe(&der);
    if (e == ERR_NOT_FOUND)
        return refuse(why, cap, "there is no private key in it (\"-----BEGIN … PRIVATE KEY-----\")");
    return e;
}
