/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a private key is a certificate's, told by bytes. An RSA key names its modulus and exponent, an
 * elliptic one its curve and mostly its point (RFC 5915's optional publicKey, which everybody writes):
 * where the certificate has the same, the key is its key, as far as the library would find out either,
 * which compares no more than that. Ten thousand sites with files of their own start a hundred times
 * faster by it.
 *
 * There is no "no" here: what is not surely the same, or of a form that is not known here, the library
 * decodes and judges, with its reasons.
 */
#include "base/pem.h"
#include "pki/certificate.h"
#include "pki/der.h"

enum { RSA_BYTES_MIN = 1024 / 8, RSA_BYTES_MAX = 16384 / 8, RSA_NUMBERS = 8, RSA_MODULUS = 0,
       RSA_EXPONENT = 1, CHAIN_DER_MAX = PEM_MAX };

static const struct slice oid_rsa = {"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01", 9},
                          oid_ec = {"\x2a\x86\x48\xce\x3d\x02\x01", 7};

/* Those that Caddy takes, and how long their numbers are. */
static const struct {
    struct slice oid;
    size_t bytes;
} curves[] = {
    {{"\x2b\x81\x04\x00\x21", 5}, 28},                 /* P-224 */
    {{"\x2a\x86\x48\xce\x3d\x03\x01\x07", 8}, 32},     /* P-256 */
    {{"\x2b\x81\x04\x00\x22", 5}, 48},                 /* P-384 */
    {{"\x2b\x81\x04\x00\x23", 5}, 66},                 /* P-521 */
};

/* --- RSA --- */

static bool same_rsa(struct slice key, struct slice bits)
{
    struct slice numbers[RSA_NUMBERS], outer, modulus, exponent;
    if (!der_take(&bits, DER_SEQUENCE, &outer) || bits.len > 0 ||
        !der_take(&outer, DER_INTEGER, &modulus) || !der_take(&outer, DER_INTEGER, &exponent) ||
        outer.len > 0)
        return false;
    for (size_t i = 0; i < RSA_NUMBERS; i++) {
        if (!der_take(&key, DER_INTEGER, &numbers[i]) || numbers[i].len == 0)
            return false;
    }
    /* A number whose first bit is set has a zero in front. */
    size_t bytes = modulus.len > 0 && modulus.ptr[0] == '\0' ? modulus.len - 1 : modulus.len;
    return key.len == 0 && bytes >= RSA_BYTES_MIN && bytes <= RSA_BYTES_MAX &&
           slice_eq(numbers[RSA_MODULUS], modulus) && slice_eq(numbers[RSA_EXPONENT], exponent);
}

/* --- elliptic curves --- */

static size_t bytes_of_curve(struct slice oid)
{
    for (size_t i = 0; i < sizeof curves / sizeof curves[0]; i++) {
        if (slice_eq(oid, curves[i].oid))
            return curves[i].bytes;
    }
    return 0;
}

static bool is_zero(struct slice number)
{
    char all = 0;
    for (size_t i = 0; i < number.len; i++)
        all |= number.ptr[i];
    return all == 0;
}

/* Behind the version: the number, [0] the curve, [1] the point. `curve`, where PKCS#8 says it. */
static bool same_ec(struct slice key, struct slice curve, const struct public_key *public)
{
    struct slice number, parameters, oid, inside, point, wanted = public->parameters;
    if (!der_take(&wanted, DER_OID, &oid) || wanted.len > 0 ||
        !der_take(&key, DER_OCTET_STRING, &number))
        return false;
    if (der_take(&key, DER_CONTEXT_CONSTRUCTED + 0, &parameters)) {
        struct slice own;
        if (!der_take(&parameters, DER_OID, &own) || parameters.len > 0 ||
            (curve.len > 0 && !slice_eq(curve, own)))
            return false;
        curve = own;
    }
    if (!der_take(&key, DER_CONTEXT_CONSTRUCTED + 1, &inside) || key.len > 0 ||
        !der_take(&inside, DER_BIT_STRING, &point) || inside.len > 0)
        return false;
    size_t bytes = bytes_of_curve(oid);
    return slice_eq(curve, oid) && bytes > 0 && number.len == bytes && !is_zero(number) &&
           point.len == 1 + 1 + 2 * bytes && slice_eq(point, public->bits);
}

/* --- forms --- */

static bool same_key(struct slice key, struct slice algorithm, struct slice curve,
                     const struct public_key *public)
{
    struct slice version, inside, bits = public->bits;
    if (!slice_eq(algorithm, public->oid) || !der_take(&key, DER_SEQUENCE, &inside) || key.len > 0 ||
        !der_take(&inside, DER_INTEGER, &version) || version.len != 1)
        return false;
    if (slice_eq(algorithm, oid_ec))
        return version.ptr[0] == 1 && same_ec(inside, curve, public);
    return slice_eq(algorithm, oid_rsa) && version.ptr[0] == 0 && bits.len > 0 &&
           bits.ptr[0] == '\0' && same_rsa(inside, slice_skip(bits, 1));
}

/* PKCS#8: a version, an algorithm with its parameters, the key inside, attributes. */
static bool same_wrapped(struct slice rest, struct slice algorithm, const struct public_key *public)
{
    struct slice oid, curve = SLICE_NONE, key;
    if (!der_take(&algorithm, DER_OID, &oid) || !der_take(&rest, DER_OCTET_STRING, &key) ||
        rest.len > 0)
        return false;
    if (slice_eq(oid, oid_ec) && (!der_take(&algorithm, DER_OID, &curve) || algorithm.len > 0))
        return false;
    return same_key(key, oid, curve, public);
}

static bool same_form(struct slice der, const struct public_key *public)
{
    struct slice rest = der, inside, version, second;
    int tag;
    if (!der_take(&rest, DER_SEQUENCE, &inside) || rest.len > 0 ||
        !der_take(&inside, DER_INTEGER, &version) || !der_next(&inside, &tag, &second))
        return false;
    if (tag == DER_SEQUENCE)
        return version.len == 1 && version.ptr[0] == 0 && same_wrapped(inside, second, public);
    return same_key(der, tag == DER_INTEGER ? oid_rsa : oid_ec, SLICE_NONE, public);
}

/* --- texts --- */

static bool has_form(const struct pem_block *block, struct buffer *der, struct public_key *key)
{
    buffer_clear(der);
    return pem_decode_to(block, der) == OK && certificate_public_key(buffer_slice(der), key);
}

/* The first certificate's key, whose bytes `der` holds; the others have a certificate's form. */
static bool read_chain(struct slice pem, struct buffer *der, struct public_key *first)
{
    struct pem_block block;
    struct public_key other;
    struct buffer scratch;
    bool good = true, found = false;
    buffer_init(&scratch, CHAIN_DER_MAX);
    while (good && pem_next(&pem, &block)) {
        if (!slice_is(block.type, "CERTIFICATE"))
            continue;
        good = found ? has_form(&block, &scratch, &other) : has_form(&block, der, first);
        found = true;
    }
    buffer_deinit(&scratch);
    return good && found;
}

/* The first block that is a private key; others are passed over. */
static bool same_as_text(struct slice pem, const struct public_key *public)
{
    struct pem_block block;
    struct buffer der;
    while (pem_next(&pem, &block)) {
        if (!slice_ends(block.type, SLICE("PRIVATE KEY")))
            continue;
        if (block.encrypted)
            return false;
        buffer_init(&der, PEM_MAX);
        bool same = pem_decode_to(&block, &der) == OK && same_form(buffer_slice(&der), public);
        key_wipe(&der);
        return same;
    }
    return false;
}

bool certificate_surely_has_key(struct slice chain_pem, struct slice key_pem)
{
    struct public_key public;
    struct buffer der;
    if (chain_pem.len > PEM_MAX || key_pem.len > PEM_MAX)
        return false;
    buffer_init(&der, PEM_MAX);
    bool same = read_chain(chain_pem, &der, &public) && same_as_text(key_pem, &public);
    buffer_deinit(&der);
    return same;
}
