/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as PEM text with certificates and keys, as their DER inside a block, as a request for a
 * certificate, and as a lock file.
 * What is read is written and read again with the same result.
 */
#include "base/check.h"
#include "base/pem.h"
#include "pki/certificate.h"
#include "pki/lock_file.h"
#include "pki/minting.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_pem(struct slice text)
{
    struct pem_block block, same;
    struct buffer der, again, copy;
    buffer_init(&der, PEM_MAX);
    buffer_init(&copy, 2 * PEM_MAX);
    buffer_init(&again, PEM_MAX);
    while (pem_next(&text, &block)) {
        buffer_clear(&der);
        buffer_clear(&again);
        buffer_clear(&copy);
        if (pem_decode_to(&block, &der) != OK || pem_put(&copy, "X", buffer_slice(&der)) != OK)
            continue;
        struct slice rest = buffer_slice(&copy);
        ASSERT(pem_next(&rest, &same) && !same.encrypted);
        ASSERT(pem_decode_to(&same, &again) == OK);
        ASSERT(slice_eq(buffer_slice(&der), buffer_slice(&again)));
    }
    buffer_deinit(&der);
    buffer_deinit(&again);
    buffer_deinit(&copy);
}

/* Where the library reads it, too, both read the same. */
static void compare(struct slice text, const struct certificate_facts *f)
{
    struct x509_st *x;
    char why[256];
    int64_t from, to;
    if (certificate_from_pem(text, &x, why, sizeof why) != OK)
        return;
    if (certificate_validity(x, &from, &to))
        ASSERT(from == f->not_before_s && to == f->not_after_s);
    certificate_free(x);
}

static void try_certificate(struct slice text)
{
    struct arena arena;
    struct certificate_facts f;
    char why[256] = "";
    arena_init(&arena, 4096);
    if (certificate_read(text, &arena, &f, why, sizeof why) == OK) {
        ASSERT(f.chain > 0 && f.serial.len > 0);
        for (size_t i = 0; i < f.names_count; i++)
            ASSERT(f.names[i].len > 0);
        compare(text, &f);
    } else {
        ASSERT(why[0] != '\0');
    }
    arena_deinit(&arena);
}

static void try_key(struct slice text)
{
    struct evp_pkey_st *key, *again;
    struct buffer out;
    char why[256] = "";
    if (key_from_pem(text, &key, why, sizeof why) != OK) {
        ASSERT(why[0] != '\0' && key == NULL);
        return;
    }
    buffer_init(&out, PEM_MAX);
    if (key_put_pem(&out, key) == OK) {
        ASSERT(key_from_pem(buffer_slice(&out), &again, why, sizeof why) == OK);
        key_free(again);
    }
    key_wipe(&out);
    key_free(key);
}

/* A request from outside, for a leaf by an authority of our own. */
static void try_request(struct slice der)
{
    static struct x509_st *issuer;
    static struct evp_pkey_st *key;
    struct minting m = {.from_s = 1000000000, .to_s = 2000000000};
    struct x509_st *x;
    char why[256] = "";
    if (issuer == NULL)
        ASSERT(mint_authority(&m, SLICE("Fuzz"), 0, &issuer, &key) == OK);
    m.issuer = issuer;
    m.issuer_key = key;
    if (mint_leaf(&m, der, NULL, 0, &x, why, sizeof why) == OK)
        certificate_free(x);
    else
        ASSERT(why[0] != '\0' && x == NULL);
}

static void try_der(const char *label, struct slice der, void (*attempt)(struct slice))
{
    struct buffer text;
    buffer_init(&text, 2 * PEM_MAX);
    if (pem_put(&text, label, der) == OK)
        attempt(buffer_slice(&text));
    buffer_deinit(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = slice_of((const char *)data, size);
    int64_t when;
    if (size == 0)
        return 0;
    try_pem(text);
    try_certificate(text);
    try_key(text);
    try_der("CERTIFICATE", text, try_certificate);
    try_der("PRIVATE KEY", text, try_key);
    try_request(text);
    (void)lock_file_read(text, &when);
    return 0;
}
