/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between OpenSSL and memory stands a BIO of our own. Reads take from what was kept, then from what
 * is lent; writes go to the end of an output buffer. Nothing is copied besides: OpenSSL decrypts
 * from the lent bytes by way of its record buffer, and what has not been used when the loan ends is
 * rare, since a record that is not whole yet waits inside the SSL.
 *
 * An idle connection owns the SSL and this small struct. Output buffers are recycled by each thread
 * and belong to a stream only while something is to be sent; OpenSSL's own are given back too
 * (SSL_MODE_RELEASE_BUFFERS).
 *
 * Records are small as long as the peer may be waiting for the first bytes of something, because
 * nothing of a record can be used before all of it is there; then they are as large as may be.
 *
 * A buffer that is full makes OpenSSL try again later. Within tls_stream_write that cannot happen: a
 * record is begun only if there is room for it, and CONTROL_ROOM is left for what OpenSSL says by
 * itself (an answer to a KeyUpdate).
 */
#include "tls/tls_stream.h"

#include <malloc.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "tls/policy_context.h"

enum {
    OUTS_KEPT = 32,
    KEPT_MAX = 1 << 20,  /* ciphertext that a reader left */
    CONTROL_ROOM = 1024,
    OVERHEAD = 256,      /* of a record, at most (RFC 5246 §6.2.3: 2048 in theory only) */
    SMALL_FOR = 32 * TLS_RECORD_SMALL, /* bytes after which a stream is one that flows */
};
#define IDLE_NS NS_PER_S /* … and the pause after which it is no longer */

struct out {
    struct out *next; /* free */
    size_t at, len;
    char bytes[TLS_OUT_MAX];
};

struct kept {
    size_t at, len, cap;
    char bytes[];
};

struct tls_stream {
    SSL *ssl;
    struct out *out;   /* NULL: nothing to send */
    struct kept *kept; /* NULL: nothing */
    struct slice in;   /* lent */
    char *server_name; /* NULL: the library knows it */
    uint64_t wrote_ns; /* the last time, roughly */
    unsigned long error;
    struct tls_flight flight;
    uint32_t flowed;   /* since then, up to SMALL_FOR */
    bool failed, ended;
};

static _Thread_local struct {
    struct out *first;
    unsigned count;
    char *record; /* where small parts become one record */
} spare;

/* --- buffers --- */

static struct out *take_out(void)
{
    struct out *o = spare.first;
    if (o == NULL) {
        o = mem_alloc(sizeof *o);
    } else {
        spare.first = o->next;
        spare.count--;
    }
    o->at = o->len = 0;
    return o;
}

static void give_out(struct out *o)
{
    if (spare.count >= OUTS_KEPT) {
        mem_free(o);
        return;
    }
    o->next = spare.first;
    spare.first = o;
    spare.count++;
}

static void free_records(void *);

void tls_stream_thread_deinit(void)
{
    while (spare.count > 0)
        mem_free(take_out());
    mem_free(spare.record);
    spare.record = NULL;
    free_records(NULL);
}

static void drop_kept(struct tls_stream *t)
{
    mem_free(t->kept);
    t->kept = NULL;
}

/* --- the library's memory --- */

/* An idle SSL holds no record buffers, so each request would take two of 17 KB from the heap and give
 * them back. A thread keeps a few. */
enum { RECORD_MIN = 16384, RECORD_CAP = 18432, RECORDS_KEPT = 4 };

static _Thread_local struct {
    void *blocks[RECORDS_KEPT];
    unsigned count;
    bool known; /* to free_records, at the thread's end */
} records;
static pthread_key_t records_key;

static void *on_malloc(size_t size, const char *file, int line)
{
    if (size >= RECORD_MIN && size <= RECORD_CAP) {
        if (records.count > 0)
            return records.blocks[--records.count];
        size = RECORD_CAP; /* fit for each of them */
    }
    return size > 0 ? malloc(size) : NULL;
}

static void *on_realloc(void *old, size_t size, const char *file, int line)
{
    return realloc(old, size);
}

static void keep_record(void *block)
{
    if (!records.known)
        records.known = pthread_setspecific(records_key, &records) == 0;
    if (records.known)
        records.blocks[records.count++] = block;
    else
        free(block);
}

static void on_free(void *block, const char *file, int line)
{
    size_t size = block != NULL ? malloc_usable_size(block) : 0;
    if (size >= RECORD_CAP && size < RECORD_CAP + 64 && records.count < RECORDS_KEPT)
        keep_record(block);
    else
        free(block);
}

static void free_records(void *unused)
{
    while (records.count > 0)
        free(records.blocks[--records.count]);
    records.known = false;
}

/* Before the library has taken any. */
__attribute__((constructor(200))) static void set_memory(void)
{
    if (pthread_key_create(&records_key, free_records) != 0)
        fatal("no key for a thread's record buffers");
    (void)!CRYPTO_set_mem_functions(on_malloc, on_realloc, on_free);
}

/* --- the BIO --- */

static size_t take_kept(struct tls_stream *t, char *buf, size_t cap)
{
    struct kept *k = t->kept;
    size_t n = k->len - k->at < cap ? k->len - k->at : cap;
    memcpy(buf, k->bytes + k->at, n);
    k->at += n;
    if (k->at == k->len)
        drop_kept(t);
    return n;
}

static int on_bio_read(BIO *bio, char *buf, int cap)
{
    struct tls_stream *t = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (cap <= 0)
        return 0;
    if (t->kept != NULL)
        return (int)take_kept(t, buf, (size_t)cap);
    if (t->in.len == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    size_t n = t->in.len < (size_t)cap ? t->in.len : (size_t)cap;
    memcpy(buf, t->in.ptr, n);
    t->in = slice_skip(t->in, n);
    return (int)n;
}

static int on_bio_write(BIO *bio, const char *bytes, int len)
{
    struct tls_stream *t = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (len <= 0)
        return 0;
    if (t->out == NULL)
        t->out = take_out();
    struct out *o = t->out;
    size_t n = sizeof o->bytes - o->len;
    if (n == 0) {
        BIO_set_retry_write(bio);
        return -1;
    }
    if (n > (size_t)len)
        n = (size_t)len;
    memcpy(o->bytes + o->len, bytes, n);
    o->len += n;
    return (int)n;
}

static long on_bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DUP ? 1 : 0;
}

static BIO_METHOD *method;

__attribute__((constructor)) static void make_method(void)
{
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "portico");
    if (method == NULL)
        fatal("out of memory");
    BIO_meth_set_read(method, on_bio_read);
    BIO_meth_set_write(method, on_bio_write);
    BIO_meth_set_ctrl(method, on_bio_ctrl);
}

__attribute__((destructor)) static void free_method(void)
{
    BIO_meth_free(method);
}

/* --- beginning and end --- */

struct tls_stream *tls_stream_create(struct ssl_st *ssl)
{
    struct tls_stream *t = NEW(struct tls_stream);
    BIO *bio = BIO_new(method);
    if (bio == NULL)
        fatal("out of memory");
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                          SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    t->ssl = ssl;
    return t;
}

void tls_stream_free(struct tls_stream *t)
{
    if (t == NULL)
        return;
    /* Else the library would take a session for a bad one whose connection was merely closed. */
    SSL_set_shutdown(t->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    policy_context_leave(t->ssl);
    SSL_free(t->ssl);
    if (t->out != NULL)
        give_out(t->out);
    drop_kept(t);
    mem_free(t->server_name);
    mem_free(t);
}

void tls_stream_set_name(struct tls_stream *t, struct slice name)
{
    mem_free(t->server_name);
    t->server_name = slice_dup(name);
}

struct ssl_st *tls_stream_ssl(const struct tls_stream *t)
{
    return t->ssl;
}

struct tls_flight *tls_stream_flight(struct tls_stream *t)
{
    return &t->flight;
}

/* --- ciphertext in --- */

void tls_stream_feed(struct tls_stream *t, struct slice bytes)
{
    tls_stream_keep(t);
    t->in = bytes;
}

void tls_stream_keep(struct tls_stream *t)
{
    struct kept *k = t->kept;
    size_t old = k != NULL ? k->len - k->at : 0;
    if (t->in.len == 0)
        return;
    if (old + t->in.len > KEPT_MAX) { /* its reader asks for more than it takes */
        t->failed = true;
        t->in = SLICE_NONE;
        return;
    }
    struct kept *next = mem_alloc(sizeof *next + old + t->in.len);
    next->at = 0;
    next->len = old + t->in.len;
    if (old > 0)
        memcpy(next->bytes, k->bytes + k->at, old);
    memcpy(next->bytes + old, t->in.ptr, t->in.len);
    mem_free(k);
    t->kept = next;
    t->in = SLICE_NONE;
}

/* What OpenSSL's answer means. Only a handshake may find the output full. */
static enum tls_step step_of(struct tls_stream *t, int result)
{
    switch (SSL_get_error(t->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return TLS_MORE;
    case SSL_ERROR_WANT_WRITE:
        return TLS_FULL;
    case SSL_ERROR_ZERO_RETURN:
        t->ended = true;
        return TLS_END;
    default:
        t->failed = true;
        t->error = ERR_peek_last_error();
        ERR_clear_error();
        return TLS_FAILED;
    }
}

/* An old error of this thread would be taken for one of the next call. Looking is cheaper. */
static void forget_errors(void)
{
    if (ERR_peek_error() != 0)
        ERR_clear_error();
}

enum tls_step tls_stream_handshake(struct tls_stream *t)
{
    if (t->failed)
        return TLS_FAILED;
    forget_errors();
    int r = SSL_do_handshake(t->ssl);
    return r == 1 ? TLS_OK : step_of(t, r);
}

void tls_stream_settle(struct tls_stream *t)
{
    SSL_certs_clear(t->ssl);
    SSL_set_tlsext_status_ocsp_resp(t->ssl, NULL, 0);
}

enum tls_step tls_stream_read(struct tls_stream *t, char *buf, size_t cap, size_t *n)
{
    *n = 0;
    if (t->failed)
        return TLS_FAILED;
    if (t->ended)
        return TLS_END;
    forget_errors();
    while (*n < cap) {
        size_t got;
        int r = SSL_read_ex(t->ssl, buf + *n, cap - *n, &got);
        if (r != 1) {
            enum tls_step step = step_of(t, r);
            if (step == TLS_FULL) { /* a peer that asks and asks, and takes no answer */
                t->failed = true;
                step = TLS_FAILED;
            }
            return *n > 0 && step != TLS_FAILED ? TLS_OK : step;
        }
        *n += got;
        if (t->in.len == 0 && t->kept == NULL && SSL_pending(t->ssl) == 0)
            break; /* the next try would find nothing */
    }
    return TLS_OK;
}

bool tls_stream_ready(const struct tls_stream *t)
{
    return t->failed || t->ended || t->kept != NULL || t->in.len > 0 || SSL_pending(t->ssl) > 0;
}

/* --- plaintext in --- */

static size_t record_size(struct tls_stream *t)
{
    return t->flowed < SMALL_FOR ? TLS_RECORD_SMALL : TLS_RECORD_MAX;
}

static void look_for_pause(struct tls_stream *t)
{
    uint64_t now = clock_mono_ns();
    if (now - t->wrote_ns > IDLE_NS)
        t->flowed = 0;
    t->wrote_ns = now;
}

/* Where in the parts the next byte stands. */
struct place {
    const struct iovec *part;
    size_t count, at;
};

static void skip_empty(struct place *p)
{
    while (p->count > 0 && p->at == p->part->iov_len) {
        p->part++;
        p->count--;
        p->at = 0;
    }
}

/* The next record's plaintext: a view of one part, or several copied together. */
static struct slice next_record(struct place *p, size_t max)
{
    const char *from = (const char *)p->part->iov_base + p->at;
    size_t n = p->part->iov_len - p->at;
    if (n >= max || p->count == 1) {
        n = n < max ? n : max;
        p->at += n;
        return slice_of(from, n);
    }
    if (spare.record == NULL)
        spare.record = mem_alloc(TLS_RECORD_MAX);
    for (n = 0; n < max && p->count > 0; skip_empty(p)) {
        size_t more = p->part->iov_len - p->at;
        more = more < max - n ? more : max - n;
        memcpy(spare.record + n, (const char *)p->part->iov_base + p->at, more);
        n += more;
        p->at += more;
    }
    return slice_of(spare.record, n);
}

static size_t room(const struct tls_stream *t)
{
    size_t used = t->out != NULL ? t->out->len + OVERHEAD + CONTROL_ROOM : OVERHEAD + CONTROL_ROOM;
    return used < TLS_OUT_MAX ? TLS_OUT_MAX - used : 0;
}

static bool write_record(struct tls_stream *t, struct slice plain)
{
    size_t written;
    int r = SSL_write_ex(t->ssl, plain.ptr, plain.len, &written);
    if (r == 1 && written == plain.len)
        return true;
    t->failed = true; /* there was room: nothing else may stop it */
    t->error = ERR_peek_last_error();
    ERR_clear_error();
    return false;
}

size_t tls_stream_write(struct tls_stream *t, const struct iovec *parts, size_t count)
{
    struct place p = {parts, count, 0};
    size_t total = 0;
    skip_empty(&p);
    if (t->failed || p.count == 0)
        return 0;
    forget_errors();
    look_for_pause(t);
    for (; p.count > 0; skip_empty(&p)) {
        size_t max = record_size(t), left = room(t);
        if (left < max && left < TLS_RECORD_SMALL)
            break;
        struct slice plain = next_record(&p, max < left ? max : left);
        if (!write_record(t, plain))
            return 0;
        total += plain.len;
        t->flowed += t->flowed < SMALL_FOR ? (uint32_t)plain.len : 0;
    }
    return total;
}

void tls_stream_shutdown(struct tls_stream *t)
{
    if (t->failed || !SSL_is_init_finished(t->ssl) ||
        (SSL_get_shutdown(t->ssl) & SSL_SENT_SHUTDOWN) != 0)
        return;
    ERR_clear_error();
    if (SSL_shutdown(t->ssl) < 0)
        ERR_clear_error();
}

/* --- ciphertext out --- */

struct slice tls_stream_out(const struct tls_stream *t)
{
    return t->out != NULL ? slice_of(t->out->bytes + t->out->at, t->out->len - t->out->at)
                          : SLICE_NONE;
}

void tls_stream_sent(struct tls_stream *t, size_t n)
{
    struct out *o = t->out;
    if (o == NULL)
        return;
    ASSERT(n <= o->len - o->at);
    o->at += n;
    if (o->at < o->len)
        return;
    give_out(o);
    t->out = NULL;
}

/* --- what it is --- */

bool tls_stream_failed(const struct tls_stream *t)
{
    return t->failed;
}

void tls_stream_why(const struct tls_stream *t, char *out, size_t cap)
{
    long verify = SSL_get_verify_result(t->ssl);
    const char *reason = ERR_reason_error_string(t->error);
    if (verify != X509_V_OK && ERR_GET_REASON(t->error) == SSL_R_CERTIFICATE_VERIFY_FAILED)
        snprintf(out, cap, "the peer's certificate is not trusted: %s",
                 X509_verify_cert_error_string(verify));
    else
        snprintf(out, cap, "%s", reason != NULL ? reason : "the stream is broken");
}

void tls_stream_facts(const struct tls_stream *t, struct tls_facts *f)
{
    const SSL_CIPHER *cipher = SSL_get_current_cipher(t->ssl);
    const unsigned char *alpn;
    unsigned alpn_len;
    const char *name = t->server_name;
    if (name == NULL)
        name = SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name);
    SSL_get0_alpn_selected(t->ssl, &alpn, &alpn_len);
    *f = (struct tls_facts){
        .version = (uint16_t)SSL_version(t->ssl),
        .cipher = cipher != NULL ? SSL_CIPHER_get_protocol_id(cipher) : 0,
        .cipher_name = cipher != NULL ? SSL_CIPHER_standard_name(cipher) : "",
        .alpn = slice_of((const char *)alpn, alpn_len),
        .server_name = slice_from(name),
        .resumed = SSL_session_reused(t->ssl) == 1,
        .peer_certificate = SSL_get0_peer_certificate(t->ssl) != NULL,
    };
}

static struct slice der_of(const X509 *x, struct arena *a)
{
    unsigned char *der = NULL;
    int len = i2d_X509(x, &der);
    if (len <= 0)
        return SLICE_NONE;
    struct slice copy = arena_copy(a, slice_of((const char *)der, (size_t)len));
    OPENSSL_free(der);
    return copy;
}

size_t tls_stream_peer_chain(const struct tls_stream *t, struct arena *a, struct slice **out)
{
    const X509 *leaf = SSL_get0_peer_certificate(t->ssl);
    const STACK_OF(X509) *chain = SSL_get_peer_cert_chain(t->ssl);
    int others = chain != NULL ? sk_X509_num(chain) : 0, first = SSL_is_server(t->ssl) ? 0 : 1;
    size_t count = 0;
    if (leaf == NULL)
        return 0;
    *out = ARENA_ARRAY(a, struct slice, (size_t)others + 1);
    (*out)[count++] = der_of(leaf, a);
    for (int i = first; i < others; i++) /* a client's list of a server's begins with the leaf */
        (*out)[count++] = der_of(sk_X509_value(chain, i), a);
    return count;
}
