/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Until a handshake asks for it, a credential is its texts, what its certificate says, and a count:
 * some kilobytes. What OpenSSL needs is made at first use, by the thread that needs it, and kept in
 * that thread's cache of at most DECODED_MAX, the least recently used going first: no lock and no
 * shared count on the way of a handshake. Intermediate certificates are the same for thousands of
 * sites: one of each is kept for all threads, as long as anybody uses it.
 *
 * A key is proved to be its certificate's when it is first decoded. For those that a person gave it is
 * found out at once, so that the error is seen where it was made: by the public half that most keys
 * carry (pki/key_match.c), which is a matter of comparing bytes, and only where that does not tell by
 * decoding, which takes the library a third of a millisecond. Those of the storage this program wrote
 * itself: they wait for their first use.
 */
#include "tls/credential_store.h"

#include <pthread.h>
#include <stdio.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "base/check.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/pem.h"

enum {
    DECODED_MAX = 2048,
    ARENA_CHUNK = 512, /* for names and such; the texts have their own place */
    CHAIN_MAX = 32,
};

/* --- making --- */

static enum err refuse(char *why, size_t cap, const char *sentence)
{
    snprintf(why, cap, "%s", sentence);
    return ERR_INVALID;
}

static void unref_body(struct credential_body *b)
{
    if (atomic_fetch_sub(&b->refs, 1) != 1)
        return;
    OPENSSL_cleanse((void *)(uintptr_t)b->key_pem.ptr, b->key_pem.len);
    arena_deinit(&b->arena);
    mem_free(b);
}

static struct credential *with_body(struct credential_body *b, struct slice staple)
{
    struct credential *c = mem_zalloc(sizeof *c + staple.len);
    atomic_init(&c->refs, 1);
    c->body = b;
    if (staple.len > 0)
        memcpy(c + 1, staple.ptr, staple.len);
    c->staple = slice_of((const char *)(c + 1), staple.len);
    return c;
}

static void copy_spec(struct credential_body *b, const struct credential_spec *spec)
{
    char *texts = arena_alloc(&b->arena, spec->chain_pem.len + spec->key_pem.len);
    memcpy(texts, spec->chain_pem.ptr, spec->chain_pem.len);
    memcpy(texts + spec->chain_pem.len, spec->key_pem.ptr, spec->key_pem.len);
    b->chain_pem = slice_of(texts, spec->chain_pem.len);
    b->key_pem = slice_of(texts + spec->chain_pem.len, spec->key_pem.len);
    if (spec->tags_count > 0)
        b->tags = ARENA_ARRAY(&b->arena, struct slice, spec->tags_count);
    b->tags_count = spec->tags_count;
    for (size_t i = 0; i < spec->tags_count; i++)
        b->tags[i] = arena_copy(&b->arena, spec->tags[i]);
    b->managed = spec->managed;
}

static struct decoded *decode(const struct credential_body *, char *why, size_t cap);
static void free_decoded(struct decoded *);

static enum err check_at_once(const struct credential_body *b, char *why, size_t cap)
{
    if (certificate_surely_has_key(b->chain_pem, b->key_pem))
        return OK;
    struct decoded *d = decode(b, why, cap);
    if (d == NULL)
        return ERR_INVALID;
    free_decoded(d);
    return OK;
}

enum err credential_create(const struct credential_spec *spec, struct credential **out, char *why,
                           size_t cap)
{
    struct credential_body *b = NEW(struct credential_body);
    *out = NULL;
    atomic_init(&b->refs, 1);
    arena_init(&b->arena, ARENA_CHUNK);
    copy_spec(b, spec);
    enum err e = certificate_read(b->chain_pem, &b->arena, &b->facts, why, cap);
    if (e == OK && slice_find_slice(b->key_pem, SLICE("PRIVATE KEY-----")) == SIZE_MAX)
        e = refuse(why, cap, "there is no private key in it");
    if (e == OK && !spec->managed)
        e = check_at_once(b, why, cap);
    if (e != OK) {
        unref_body(b);
        return e;
    }
    *out = with_body(b, spec->staple);
    return OK;
}

struct credential *credential_with_staple(const struct credential *c, struct slice der)
{
    atomic_fetch_add(&c->body->refs, 1);
    return with_body(c->body, der);
}

struct credential *credential_ref(struct credential *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void credential_unref(struct credential *c)
{
    if (c == NULL || atomic_fetch_sub(&c->refs, 1) != 1)
        return;
    unref_body(c->body);
    mem_free(c);
}

const struct certificate_facts *credential_facts(const struct credential *c)
{
    return &c->body->facts;
}

struct slice credential_pem(const struct credential *c)
{
    return c->body->chain_pem;
}

/* --- intermediates, one of each --- */

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static struct map pool; /* struct pooled by the digest of its bytes */

struct pooled {
    uint8_t digest[32];
    X509 *x;
    unsigned users;
};

static X509 *parse_certificate(struct slice der)
{
    const unsigned char *at = (const unsigned char *)der.ptr, *end = at + der.len;
    X509 *x = d2i_X509(NULL, &at, (long)der.len);
    if (x != NULL && at != end) {
        X509_free(x);
        x = NULL;
    }
    return x;
}

/* With a use counted; given back by pool_give. */
static X509 *pool_take(struct slice der)
{
    uint8_t digest[32];
    if (EVP_Digest(der.ptr, der.len, digest, NULL, EVP_sha256(), NULL) != 1)
        return NULL;
    pthread_mutex_lock(&pool_lock);
    struct pooled *p = map_get(&pool, slice_of((const char *)digest, sizeof digest));
    if (p == NULL) {
        X509 *x = parse_certificate(der);
        if (x != NULL) {
            p = NEW(struct pooled);
            memcpy(p->digest, digest, sizeof digest);
            p->x = x;
            map_put(&pool, slice_of((const char *)p->digest, sizeof p->digest), p);
        }
    }
    if (p != NULL)
        p->users++;
    pthread_mutex_unlock(&pool_lock);
    return p != NULL ? p->x : NULL;
}

static void pool_give(const X509 *x)
{
    size_t at = 0;
    struct map_entry *e;
    pthread_mutex_lock(&pool_lock);
    while ((e = map_next(&pool, &at)) != NULL) { /* there are few of them */
        struct pooled *p = e->value;
        if (p->x != x)
            continue;
        if (--p->users == 0) {
            map_remove(&pool, e->key);
            X509_free(p->x);
            mem_free(p);
        }
        break;
    }
    if (pool.count == 0)
        map_deinit(&pool);
    pthread_mutex_unlock(&pool_lock);
}

/* --- decoding --- */

static void free_decoded(struct decoded *d)
{
    for (int i = 0; d->chain != NULL && i < sk_X509_num(d->chain); i++)
        pool_give(sk_X509_value(d->chain, i));
    sk_X509_free(d->chain);
    X509_free(d->leaf);
    EVP_PKEY_free(d->key);
    mem_free(d);
}

static bool add_certificate(struct decoded *d, const struct pem_block *block)
{
    struct buffer der;
    bool good = false;
    buffer_init(&der, PEM_MAX);
    if (pem_decode_to(block, &der) == OK && d->leaf == NULL) {
        d->leaf = parse_certificate(buffer_slice(&der));
        good = d->leaf != NULL;
    } else if (sk_X509_num(d->chain) < CHAIN_MAX) {
        X509 *x = pool_take(buffer_slice(&der));
        good = x != NULL && sk_X509_push(d->chain, x) > 0;
    }
    buffer_deinit(&der);
    return good;
}

static enum err fill_decoded(struct decoded *d, const struct credential_body *b, char *why,
                             size_t cap)
{
    struct pem_block block;
    for (struct slice rest = b->chain_pem; pem_next(&rest, &block);) {
        if (slice_is(block.type, "CERTIFICATE") && !add_certificate(d, &block))
            return refuse(why, cap, "a certificate of the chain is damaged");
    }
    if (d->leaf == NULL)
        return refuse(why, cap, "there is no certificate in it");
    TRY(key_from_pem(b->key_pem, &d->key, why, cap));
    if (!certificate_has_key(d->leaf, d->key))
        return refuse(why, cap, "the private key is not the certificate's");
    return OK;
}

static struct decoded *decode(const struct credential_body *b, char *why, size_t cap)
{
    struct decoded *d = NEW(struct decoded);
    d->chain = sk_X509_new_null();
    if (d->chain == NULL)
        fatal("out of memory");
    enum err e = fill_decoded(d, b, why, cap);
    ERR_clear_error();
    if (e == OK)
        return d;
    free_decoded(d);
    return NULL;
}

/* --- this thread's cache --- */

struct cached {
    struct list node;
    struct credential *credential; /* held */
    struct decoded *decoded;
};

static _Thread_local struct {
    struct map map; /* by the address of the body */
    struct list used; /* the oldest first */
    unsigned count;
} cache;

/* The body's address, where it stands in the credential. */
static struct slice key_of(struct credential *const *c)
{
    return slice_of((const char *)&(*c)->body, sizeof (*c)->body);
}

static void drop(struct cached *e)
{
    map_remove(&cache.map, key_of(&e->credential));
    list_remove(&e->node);
    free_decoded(e->decoded);
    credential_unref(e->credential);
    mem_free(e);
    cache.count--;
}

const struct decoded *credential_decode(struct credential *c, char *why, size_t cap)
{
    struct cached *e = cache.map.count > 0 ? map_get(&cache.map, key_of(&c)) : NULL;
    if (cache.used.next == NULL)
        list_init(&cache.used);
    if (e == NULL) {
        struct decoded *d = decode(c->body, why, cap);
        if (d == NULL)
            return NULL;
        if (cache.count == DECODED_MAX)
            drop(CONTAINER_OF(cache.used.next, struct cached, node));
        e = NEW(struct cached);
        e->credential = credential_ref(c);
        e->decoded = d;
        map_put(&cache.map, key_of(&e->credential), e);
        cache.count++;
    } else {
        list_remove(&e->node);
    }
    list_append(&cache.used, &e->node);
    return e->decoded;
}

static void drop_all(bool (*wanted)(const struct credential *, uint64_t), uint64_t version)
{
    if (cache.used.next == NULL)
        return;
    LIST_FOR_SAFE(n, &cache.used)
    {
        struct cached *e = CONTAINER_OF(n, struct cached, node);
        if (wanted(e->credential, version))
            drop(e);
    }
}

static bool is_out(const struct credential *c, uint64_t version)
{
    return atomic_load_explicit(&c->seen_in, memory_order_relaxed) < version;
}

static bool is_any(const struct credential *c, uint64_t version)
{
    return true;
}

void credential_sweep(uint64_t version)
{
    drop_all(is_out, version);
}

void credential_cache_deinit(void)
{
    drop_all(is_any, 0);
    map_deinit(&cache.map);
}
