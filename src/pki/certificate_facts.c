/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a certificate says, read without the library: ten thousand sites read ten thousand certificates
 * at their start, and OpenSSL would decode a public key in each, which takes a hundred microseconds and
 * is of no use before somebody's handshake. The bytes are walked once, in the order of RFC 5280 §4.1;
 * what is not asked for is stepped over. Whether the signature and the key are any good is found out
 * where they are used.
 *
 * Names that hold bytes which no name can hold (a NUL that would cut it short, spaces, controls) are
 * left out: nobody can be greeted by them.
 */
#include <arpa/inet.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdio.h>

#include "base/pem.h"
#include "base/text.h"
#include "pki/certificate.h"
#include "pki/der.h"

enum { NAMES_MAX = 10000, TEXT_MAX = 1000, TLS_FEATURE_STAPLE = 5, SERIAL_MAX = 64 };

#define OID(bytes) ((struct slice){"" bytes, sizeof bytes - 1})
#define OID_COMMON_NAME OID("\x55\x04\x03")
#define OID_ORGANIZATION OID("\x55\x04\x0a")
#define OID_ALTERNATIVE_NAMES OID("\x55\x1d\x11")
#define OID_CONSTRAINTS OID("\x55\x1d\x13")
#define OID_AUTHORITY_KEY_ID OID("\x55\x1d\x23")
#define OID_ACCESS OID("\x2b\x06\x01\x05\x05\x07\x01\x01")
#define OID_TLS_FEATURE OID("\x2b\x06\x01\x05\x05\x07\x01\x18")
#define OID_OCSP OID("\x2b\x06\x01\x05\x05\x07\x30\x01")
#define OID_CA_ISSUERS OID("\x2b\x06\x01\x05\x05\x07\x30\x02")
#define OID_RSA OID("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01")
#define OID_EC OID("\x2a\x86\x48\xce\x3d\x02\x01")
#define OID_ED25519 OID("\x2b\x65\x70")

/* GeneralName's choices (RFC 5280 §4.2.1.6). */
enum { NAME_EMAIL = 1, NAME_DNS = 2, NAME_URI = 6, NAME_ADDRESS = 7 };

struct parts { /* of a certificate */
    struct slice serial, issuer, subject, key_oid, key_parameters, key_bits;
    struct slice alternatives, constraints, authority_key_id, access, tls_feature; /* empty: none */
    int64_t not_before_s, not_after_s;
};

/* --- the walk --- */

static void keep_extension(struct parts *p, struct slice oid, struct slice value)
{
    const struct {
        struct slice oid, *to;
    } wanted[] = {
        {OID_ALTERNATIVE_NAMES, &p->alternatives}, {OID_CONSTRAINTS, &p->constraints},
        {OID_AUTHORITY_KEY_ID, &p->authority_key_id}, {OID_ACCESS, &p->access},
        {OID_TLS_FEATURE, &p->tls_feature},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        if (slice_eq(oid, wanted[i].oid) && wanted[i].to->len == 0)
            *wanted[i].to = value;
    }
}

static bool walk_extensions(struct slice all, struct parts *p)
{
    struct slice list, one, oid, critical, value;
    if (!der_take(&all, DER_SEQUENCE, &list) || all.len > 0)
        return false;
    while (list.len > 0) {
        if (!der_take(&list, DER_SEQUENCE, &one) || !der_take(&one, DER_OID, &oid))
            return false;
        (void)der_take(&one, DER_BOOLEAN, &critical);
        if (!der_take(&one, DER_OCTET_STRING, &value) || one.len > 0)
            return false;
        keep_extension(p, oid, value);
    }
    return true;
}

static bool walk_validity(struct slice validity, struct parts *p)
{
    struct slice from, to;
    int from_tag, to_tag;
    return der_next(&validity, &from_tag, &from) && der_next(&validity, &to_tag, &to) &&
           validity.len == 0 && der_time(from_tag, from, &p->not_before_s) &&
           der_time(to_tag, to, &p->not_after_s);
}

static bool walk_key(struct slice key, struct parts *p)
{
    struct slice algorithm;
    if (!der_take(&key, DER_SEQUENCE, &algorithm) || !der_take(&algorithm, DER_OID, &p->key_oid))
        return false;
    p->key_parameters = algorithm;
    return der_take(&key, DER_BIT_STRING, &p->key_bits) && key.len == 0;
}

static bool walk_signed(struct slice tbs, struct parts *p)
{
    struct slice version, algorithm, validity, key, unique, extensions;
    (void)der_take(&tbs, DER_CONTEXT_CONSTRUCTED + 0, &version);
    if (!der_take(&tbs, DER_INTEGER, &p->serial) || !der_take(&tbs, DER_SEQUENCE, &algorithm) ||
        !der_take(&tbs, DER_SEQUENCE, &p->issuer) || !der_take(&tbs, DER_SEQUENCE, &validity) ||
        !der_take(&tbs, DER_SEQUENCE, &p->subject) || !der_take(&tbs, DER_SEQUENCE, &key) ||
        !walk_validity(validity, p) || !walk_key(key, p))
        return false;
    (void)der_take(&tbs, DER_CONTEXT + 1, &unique);
    (void)der_take(&tbs, DER_CONTEXT + 2, &unique);
    if (der_take(&tbs, DER_CONTEXT_CONSTRUCTED + 3, &extensions) && !walk_extensions(extensions, p))
        return false;
    return tbs.len == 0 && p->serial.len > 0 && p->serial.len <= SERIAL_MAX;
}

static bool walk(struct slice der, struct parts *p)
{
    struct slice certificate, tbs, algorithm, signature;
    return der_take(&der, DER_SEQUENCE, &certificate) && der.len == 0 &&
           der_take(&certificate, DER_SEQUENCE, &tbs) &&
           der_take(&certificate, DER_SEQUENCE, &algorithm) &&
           der_take(&certificate, DER_BIT_STRING, &signature) && certificate.len == 0 &&
           walk_signed(tbs, p);
}

/* --- names --- */

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

static struct slice general_name(struct arena *arena, int kind, struct slice value)
{
    if (kind == NAME_ADDRESS)
        return address_text(arena, value);
    if (!is_clean(value))
        return SLICE_NONE;
    return kind == NAME_URI ? arena_copy(arena, value) : lower(arena, value);
}

/* Each kind after the other, as certmagic lists them. */
static void add_alternatives(struct arena *arena, struct slice list, struct certificate_facts *f)
{
    static const int kinds[] = {NAME_DNS, NAME_ADDRESS, NAME_EMAIL, NAME_URI};
    struct slice common = f->names_count > 0 ? f->names[0] : SLICE_NONE;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        struct slice rest = list, value;
        int tag;
        for (unsigned i = 0; i < NAMES_MAX && der_next(&rest, &tag, &value); i++) {
            struct slice name = tag == DER_CONTEXT + kinds[k] ? general_name(arena, kinds[k], value)
                                                              : SLICE_NONE;
            if (name.len > 0 && !slice_eq(name, common))
                f->names[f->names_count++] = name;
        }
    }
}

static struct slice utf16_text(struct arena *arena, struct slice bytes)
{
    char *out = arena_alloc(arena, bytes.len * 2 + 1);
    size_t len = 0;
    for (size_t i = 0; i + 1 < bytes.len; i += 2) {
        uint32_t rune = (uint32_t)(unsigned char)bytes.ptr[i] << 8 | (unsigned char)bytes.ptr[i + 1];
        len += rune >= 0xd800 && rune < 0xe000 ? 0 : utf8_encode(rune, out + len);
    }
    return slice_of(out, len);
}

/* The first (or last) value of a kind in a distinguished name. */
static struct slice entry_text(struct arena *arena, struct slice name, struct slice kind, bool last)
{
    struct slice set, one, oid, value, found = SLICE_NONE;
    int tag, found_tag = 0;
    while (der_take(&name, DER_SET, &set)) {
        while (der_take(&set, DER_SEQUENCE, &one)) {
            if (!der_take(&one, DER_OID, &oid) || !der_next(&one, &tag, &value) ||
                !slice_eq(oid, kind) || (found_tag != 0 && !last))
                continue;
            found = slice_take(value, TEXT_MAX);
            found_tag = tag;
        }
    }
    if (found_tag == DER_BMP)
        return utf16_text(arena, found);
    return utf8_valid(found) ? arena_copy(arena, found) : SLICE_NONE;
}

static bool read_names(const struct parts *p, struct arena *arena, struct certificate_facts *f)
{
    struct slice list = SLICE_NONE, all = p->alternatives, rest, value;
    size_t count = 1;
    int tag;
    if (all.len > 0 && !der_take(&all, DER_SEQUENCE, &list))
        return false;
    for (rest = list; count <= NAMES_MAX && der_next(&rest, &tag, &value);)
        count++;
    if (rest.len > 0 && count <= NAMES_MAX)
        return false;
    f->names = ARENA_ARRAY(arena, struct slice, count);
    f->common_name = entry_text(arena, p->subject, OID_COMMON_NAME, true);
    if (f->common_name.len > 0)
        f->names[f->names_count++] = lower(arena, f->common_name);
    add_alternatives(arena, list, f);
    return true;
}

/* --- the rest --- */

static struct slice serial_text(struct arena *arena, struct slice bytes)
{
    bool negative = (bytes.ptr[0] & 0x80) != 0; /* forbidden, and seen */
    BIGNUM *n = BN_bin2bn((const unsigned char *)bytes.ptr, (int)bytes.len, NULL);
    BIGNUM *all = negative ? BN_new() : NULL;
    if (n != NULL && all != NULL && BN_set_bit(all, (int)bytes.len * 8) == 1)
        BN_sub(n, n, all);
    BN_free(all);
    char *text = n != NULL ? BN_bn2dec(n) : NULL;
    struct slice copy = arena_copy(arena, slice_from(text));
    OPENSSL_free(text);
    BN_free(n);
    return copy;
}

static bool must_staple(struct slice extension)
{
    struct slice list, value;
    if (!der_take(&extension, DER_SEQUENCE, &list))
        return false;
    while (der_take(&list, DER_INTEGER, &value)) {
        if (value.len == 1 && value.ptr[0] == TLS_FEATURE_STAPLE)
            return true;
    }
    return false;
}

static bool is_authority(struct slice extension)
{
    struct slice list, value;
    return der_take(&extension, DER_SEQUENCE, &list) && der_take(&list, DER_BOOLEAN, &value) &&
           value.len == 1 && value.ptr[0] != 0;
}

static void read_access(struct slice extension, struct arena *arena, struct certificate_facts *f)
{
    struct slice list, one, method, place;
    if (!der_take(&extension, DER_SEQUENCE, &list))
        return;
    while (der_take(&list, DER_SEQUENCE, &one)) {
        if (!der_take(&one, DER_OID, &method) || !der_take(&one, DER_CONTEXT + NAME_URI, &place) ||
            !is_clean(place))
            continue;
        struct slice *to = slice_eq(method, OID_OCSP)         ? &f->ocsp_url
                           : slice_eq(method, OID_CA_ISSUERS) ? &f->issuer_url
                                                              : NULL;
        if (to != NULL && to->len == 0)
            *to = arena_copy(arena, place);
    }
}

/* base64url without padding. */
static struct slice base64url(struct arena *arena, struct slice bytes)
{
    char *text = arena_alloc(arena, (bytes.len + 2) / 3 * 4 + 1);
    int len = EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)bytes.ptr,
                              (int)bytes.len);
    for (int i = 0; i < len; i++)
        text[i] = text[i] == '+' ? '-' : text[i] == '/' ? '_' : text[i];
    while (len > 0 && text[len - 1] == '=')
        len--;
    return slice_of(text, (size_t)len);
}

/* The key identifier and the serial's bytes, sign octet and all (RFC 9773 §4.1). */
static struct slice ari_id(struct arena *arena, const struct parts *p)
{
    struct slice extension = p->authority_key_id, list, key_id;
    if (!der_take(&extension, DER_SEQUENCE, &list) || !der_take(&list, DER_CONTEXT + 0, &key_id) ||
        key_id.len == 0 || key_id.len > SERIAL_MAX)
        return SLICE_NONE;
    return arena_printf(arena, SLICE_FMT "." SLICE_FMT, SLICE_ARG(base64url(arena, key_id)),
                        SLICE_ARG(base64url(arena, p->serial)));
}

static int algorithm_of(struct slice oid)
{
    if (slice_eq(oid, OID_RSA))
        return 1;
    if (slice_eq(oid, OID_EC))
        return 3;
    return slice_eq(oid, OID_ED25519) ? 4 : 0;
}

static bool read_facts(struct slice der, struct arena *arena, struct certificate_facts *f)
{
    struct parts p = {0};
    unsigned size;
    if (!walk(der, &p) || !read_names(&p, arena, f) ||
        EVP_Digest(der.ptr, der.len, f->sha256, &size, EVP_sha256(), NULL) != 1)
        return false;
    f->issuer_common_name = entry_text(arena, p.issuer, OID_COMMON_NAME, true);
    f->organization = entry_text(arena, p.issuer, OID_ORGANIZATION, false);
    f->serial = serial_text(arena, p.serial);
    f->not_before_s = p.not_before_s;
    f->not_after_s = p.not_after_s;
    f->key_algorithm = algorithm_of(p.key_oid);
    f->must_staple = must_staple(p.tls_feature);
    f->is_ca = is_authority(p.constraints);
    read_access(p.access, arena, f);
    f->ari_id = ari_id(arena, &p);
    return true;
}

bool certificate_public_key(struct slice der, struct public_key *key)
{
    struct parts p = {0};
    if (!walk(der, &p))
        return false;
    *key = (struct public_key){p.key_oid, p.key_parameters, p.key_bits};
    return true;
}

static enum err refuse(char *why, size_t cap, const char *sentence)
{
    snprintf(why, cap, "%s", sentence);
    return ERR_INVALID;
}

enum err certificate_read(struct slice pem, struct arena *arena, struct certificate_facts *f,
                          char *why, size_t cap)
{
    struct pem_block block;
    struct buffer der;
    bool good = false;
    *f = (struct certificate_facts){0};
    if (pem.len > PEM_MAX)
        return refuse(why, cap, "longer than 1 MiB: this is no certificate");
    buffer_init(&der, PEM_MAX);
    while (pem_next(&pem, &block)) {
        if (!slice_is(block.type, "CERTIFICATE"))
            continue;
        if (f->chain++ == 0)
            good = pem_decode_to(&block, &der) == OK && read_facts(buffer_slice(&der), arena, f);
    }
    buffer_deinit(&der);
    ERR_clear_error();
    if (f->chain == 0)
        return refuse(why, cap, "there is no certificate in it (\"-----BEGIN CERTIFICATE-----\")");
    return good ? OK : refuse(why, cap, "the certificate is damaged");
}
