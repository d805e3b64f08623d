/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The library's phrases say which check failed; these say what stood there: until when a certificate
 * was good, for whom it is, who signed it. Names come from the peer: only printable ASCII leaves.
 */
#include "tls/verify_words.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

enum { NAMES_TOLD = 4 };

struct words {
    char *at;
    size_t left;
};

__attribute__((format(printf, 2, 3))) static void put(struct words *w, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(w->at, w->left, format, args);
    va_end(args);
    size_t used = n < 0 ? 0 : (size_t)n < w->left ? (size_t)n : w->left - 1;
    for (size_t i = 0; i < used; i++)
        w->at[i] = w->at[i] >= 0x20 && w->at[i] < 0x7f ? w->at[i] : '?';
    w->at += used;
    w->left -= used;
}

static void put_time(struct words *w, const ASN1_TIME *t)
{
    struct tm tm;
    char text[32] = "an unknown date";
    if (ASN1_TIME_to_tm(t, &tm) == 1)
        (void)strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    put(w, "%s", text);
}

static void put_common_name(struct words *w, const X509_NAME *name)
{
    char text[128];
    int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
    if (at < 0)
        X509_NAME_oneline(name, text, sizeof text);
    else if (X509_NAME_get_text_by_NID((X509_NAME *)(uintptr_t)name, NID_commonName, text,
                                       sizeof text) < 0)
        text[0] = '\0';
    put(w, "\"%s\"", text);
}

static void put_general_name(struct words *w, const GENERAL_NAME *g)
{
    char text[INET6_ADDRSTRLEN] = "an address";
    if (g->type == GEN_DNS) {
        put(w, "%.*s", ASN1_STRING_length(g->d.dNSName),
            (const char *)ASN1_STRING_get0_data(g->d.dNSName));
        return;
    }
    int family = ASN1_STRING_length(g->d.iPAddress) == 16 ? AF_INET6 : AF_INET;
    if (ASN1_STRING_length(g->d.iPAddress) >= 4)
        (void)inet_ntop(family, ASN1_STRING_get0_data(g->d.iPAddress), text, sizeof text);
    put(w, "%s", text);
}

/* "certificate is for a.example, b.example, not c.example" */
static void put_names(struct words *w, X509 *x, const char *name)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    int told = 0, count = 0;
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);
        if (g->type != GEN_DNS && g->type != GEN_IPADD)
            continue;
        if (++count > NAMES_TOLD)
            continue;
        put(w, told++ == 0 ? "certificate is for " : ", ");
        put_general_name(w, g);
    }
    GENERAL_NAMES_free(names);
    if (count > NAMES_TOLD)
        put(w, " and %d more", count - NAMES_TOLD);
    if (told == 0)
        put(w, "certificate names no host or address");
    put(w, ", not %s", name);
}

static void put_unknown(struct words *w, X509 *x, int error)
{
    if (error == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT) {
        put(w, "certificate is signed by itself and not trusted");
        return;
    }
    put(w, "certificate signed by unknown authority ");
    put_common_name(w, X509_get_issuer_name(x));
}

static void put_validity(struct words *w, X509_STORE_CTX *c, X509 *x, bool expired)
{
    if (X509_STORE_CTX_get_error_depth(c) > 0) {
        put(w, "certificate of the authority ");
        put_common_name(w, X509_get_subject_name(x));
    } else {
        put(w, "certificate");
    }
    put(w, expired ? " has expired on " : " is not valid before ");
    put_time(w, expired ? X509_get0_notAfter(x) : X509_get0_notBefore(x));
}

void verify_words(struct x509_store_ctx_st *c, const char *name, char *out, size_t cap)
{
    struct words w = {out, cap};
    X509 *x = X509_STORE_CTX_get_current_cert(c);
    int error = X509_STORE_CTX_get_error(c);
    switch (x != NULL ? error : X509_V_ERR_UNSPECIFIED) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        put_validity(&w, c, x, true);
        break;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        put_validity(&w, c, x, false);
        break;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        put_names(&w, x, name);
        break;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE: /* another key under the name of one that is known */
        put_unknown(&w, x, error);
        break;
    case X509_V_ERR_INVALID_PURPOSE:
        put(&w, "certificate is not one of a server");
        break;
    default:
        put(&w, "certificate is not trusted: %s", X509_verify_cert_error_string(error));
    }
}
