/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Read when somebody asks, and then whole.
 */
#include "pki/peer_certificate.h"

#include <arpa/inet.h>
#include <openssl/x509v3.h>

#include "base/pem.h"
#include "pki/certificate.h"

enum { NAMES_MAX = 1024 };

static struct slice string_of(const ASN1_STRING *s)
{
    return slice_of((const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
}

static struct slice ip_of(const ASN1_OCTET_STRING *s, struct arena *arena)
{
    char text[INET6_ADDRSTRLEN];
    int len = ASN1_STRING_length(s);
    if ((len != 4 && len != 16) || inet_ntop(len == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(s),
                                             text, sizeof text) == NULL)
        return SLICE_NONE;
    return arena_copy(arena, slice_from(text));
}

static void add_name(struct peer_certificate *p, const GENERAL_NAME *n, struct arena *arena)
{
    static const struct {
        int type;
        enum peer_name kind;
    } kinds[] = {{GEN_DNS, PEER_DNS}, {GEN_EMAIL, PEER_MAIL}, {GEN_IPADD, PEER_IP}, {GEN_URI, PEER_URI}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct peer_names *names = &p->names[kinds[i].kind];
        if (n->type != kinds[i].type)
            continue;
        names->all[names->count++] = n->type == GEN_IPADD ? ip_of(n->d.iPAddress, arena)
                                                          : arena_copy(arena, string_of(n->d.ia5));
    }
}

static void read_names(struct peer_certificate *p, const X509 *x, struct arena *arena)
{
    GENERAL_NAMES *all = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    int count = all != NULL ? sk_GENERAL_NAME_num(all) : 0;
    count = count < NAMES_MAX ? count : NAMES_MAX;
    for (int kind = 0; kind < PEER_NAME_KINDS; kind++)
        p->names[kind].all = ARENA_ARRAY(arena, struct slice, (size_t)count + 1);
    for (int i = 0; i < count; i++)
        add_name(p, sk_GENERAL_NAME_value(all, i), arena);
    GENERAL_NAMES_free(all);
}

static struct slice name_text(const X509_NAME *name, struct arena *arena)
{
    BIO *out = BIO_new(BIO_s_mem());
    char *text = NULL;
    if (out == NULL)
        return SLICE_NONE;
    X509_NAME_print_ex(out, name, 0, XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB);
    long len = BIO_get_mem_data(out, &text);
    struct slice copy = len > 0 ? arena_copy(arena, slice_of(text, (size_t)len)) : SLICE_NONE;
    BIO_free(out);
    return copy;
}

/* What certificates of our own are asked, too. */
static enum err read_facts(struct peer_certificate *p, struct arena *arena)
{
    struct certificate_facts f;
    struct buffer pem;
    char why[256];
    buffer_init(&pem, PEM_MAX);
    enum err e = pem_put(&pem, "CERTIFICATE", p->der);
    if (e == OK)
        e = certificate_read(buffer_slice(&pem), arena, &f, why, sizeof why);
    buffer_deinit(&pem);
    if (e != OK)
        return e;
    p->common_name = f.common_name;
    p->serial = f.serial;
    memcpy(p->sha256, f.sha256, sizeof p->sha256);
    return OK;
}

enum err peer_certificate_read(struct slice der, struct arena *arena, struct peer_certificate *p)
{
    const unsigned char *at = (const unsigned char *)der.ptr;
    *p = (struct peer_certificate){.der = der};
    X509 *x = d2i_X509(NULL, &at, (long)der.len);
    if (x == NULL)
        return ERR_INVALID;
    read_names(p, x, arena);
    p->public_key = arena_copy(arena, string_of(X509_get0_pubkey_bitstr(x)));
    p->subject = name_text(X509_get_subject_name(x), arena);
    p->issuer = name_text(X509_get_issuer_name(x), arena);
    X509_free(x);
    return read_facts(p, arena);
}
