/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS below an upstream's connection, by memory BIOs: what the rest of the driver sends and reads stays
 * plain, and "at byte N" means the same. What is new between the two: a handshake that breaks off at any of
 * its bytes, a record that comes in part, one with a bit that is another, an end that is not said
 * (a FIN without close_notify), new keys in the middle, both versions, sessions that come back.
 */
#include "fault.h"

#include <stdio.h>
#include <stdlib.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

enum { RECORD_MAX = 16384, CUT_MAX = 2500 };

static SSL_CTX *context;

static int choose_protocol(SSL *tls, const unsigned char **out, unsigned char *len, const unsigned char *in,
                           unsigned n, void *arg)
{
    static const unsigned char two[] = "\2h2", one[] = "\10http/1.1";
    const struct conn *c = SSL_get_app_data(tls);
    unsigned char *chosen;
    (void)arg;
    int e = SSL_select_next_proto(&chosen, len, c->two ? two : one, (c->two ? sizeof two : sizeof one) - 1, in, n);
    *out = chosen;
    return e == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

void tls_load(const char *pem)
{
    context = SSL_CTX_new(TLS_server_method());
    if (context == NULL || SSL_CTX_use_certificate_chain_file(context, pem) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, pem, SSL_FILETYPE_PEM) != 1) {
        ERR_print_errors_fp(stderr);
        exit(2);
    }
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
}

void tls_begin(struct conn *c, bool two, bool faulty)
{
    if (context == NULL || (c->tls = SSL_new(context)) == NULL)
        abort();
    SSL_set_bio(c->tls, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_app_data(c->tls, c);
    SSL_set_accept_state(c->tls);
    if (dice_percent(&c->luck, 25))
        SSL_set_max_proto_version(c->tls, TLS1_2_VERSION);
    c->two = two;
    c->flip_at = SIZE_MAX;
    c->cut_at = faulty && dice_percent(&c->luck, 4) ? dice_below(&c->luck, CUT_MAX) : SIZE_MAX;
}

bool tls_ready(const struct conn *c)
{
    return c->tls == NULL || SSL_is_init_finished(c->tls);
}

static void collect(struct conn *c)
{
    char piece[RECORD_MAX];
    int n;
    while ((n = BIO_read(SSL_get_wbio(c->tls), piece, sizeof piece)) > 0)
        bytes_add(&c->wire, piece, (size_t)n);
    ERR_clear_error();
}

void tls_take(struct conn *c, const char *bytes, size_t n)
{
    char piece[RECORD_MAX];
    int got;
    if (BIO_write(SSL_get_rbio(c->tls), bytes, (int)n) != (int)n)
        abort();
    while ((got = SSL_read(c->tls, piece, sizeof piece)) > 0)
        bytes_add(&c->in, piece, (size_t)got);
    int e = SSL_get_error(c->tls, got);
    c->said |= e == SSL_ERROR_ZERO_RETURN;
    c->eof |= e == SSL_ERROR_ZERO_RETURN;
    c->broken |= e != SSL_ERROR_ZERO_RETURN && e != SSL_ERROR_WANT_READ;
    collect(c);
}

/* The newest record is the end of `wire`. */
static void spoil(struct conn *c, size_t record, size_t n)
{
    if (c->flip_at >= c->sent && c->flip_at < c->sent + n)
        c->wire.at[c->wire.len - 1 - dice_below(&c->luck, (uint32_t)record)] ^=
            (char)(1 << dice_below(&c->luck, 8));
    if (c->chop > 0 && c->sent + n == c->stop_at)
        c->wire.len -= 1 + c->chop % record;
}

void tls_seal(struct conn *c, size_t n)
{
    n = n < RECORD_MAX ? n : RECORD_MAX;
    if (n == 0 || !tls_ready(c))
        return;
    if (SSL_version(c->tls) == TLS1_3_VERSION && dice_below(&c->luck, 300) == 0)
        SSL_key_update(c->tls, SSL_KEY_UPDATE_REQUESTED);
    if (SSL_write(c->tls, c->out.at, (int)n) != (int)n) {
        ERR_clear_error();
        c->broken = true;
        return;
    }
    size_t before = c->wire.len;
    collect(c);
    c->sealed = n;
    spoil(c, c->wire.len - before, n);
}

void tls_say_end(struct conn *c)
{
    if (!SSL_is_init_finished(c->tls) || c->broken)
        return;
    SSL_shutdown(c->tls);
    collect(c);
}

void tls_free(struct conn *c)
{
    SSL_free(c->tls);
    free(c->wire.at);
}
