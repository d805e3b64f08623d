/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions are kept by clients, in tickets (RFC 5077 §4, RFC 8446 §4.6.1): a ticket is the session,
 * sealed with a key that only this process knows. All workers and all configurations share the keys,
 * so that a connection to another worker or after a reload is resumed too. A new key is made every 12
 * hours, when somebody first needs one then, and tickets of the last four keys are opened; those of an
 * older key, though good, are answered with a new one.
 *
 * Where several instances share their keys (certs/shared_tickets.c), those are brought here instead.
 * What the library wants of each, a name and two secrets, is derived from it. When nobody brings any
 * for long, own ones are made again.
 *
 * Each thread has a copy of the keys and looks at a number to see whether they have changed: no lock
 * on the way of a handshake. The forms fetched from the library (fetching takes locks and a search)
 * are made once.
 */
#include "tls/tickets.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>

#include "base/check.h"
#include "base/clock.h"
#include "pki/hmac.h"
#include "tls/tls_server.h"

enum { KEYS_MAX = STEK_MAX, KEYS = 4, NAME = 16, SECRET = 32 };
#define ROTATION_NS (12 * 3600 * NS_PER_S)

struct ticket_key {
    unsigned char name[NAME], cipher[SECRET], mac[SECRET];
};

struct ticket_keys {
    struct ticket_key keys[KEYS_MAX]; /* the newest first */
    unsigned count;
    uint64_t made_ns; /* monotonic: the newest */
    bool brought;     /* they are shared with others */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct ticket_keys shared;
static unsigned wanted = KEYS;
static atomic_uint_fast64_t version, due_ns; /* of the next rotation; 0: none yet */
static uint64_t rotation_ns = ROTATION_NS;   /* 0: never */
static EVP_CIPHER *aes;

static _Thread_local struct {
    struct ticket_keys keys;
    uint64_t version;
} mine;

static void make_key(struct ticket_key *k)
{
    if (RAND_bytes(k->name, NAME) != 1 || RAND_priv_bytes(k->cipher, SECRET) != 1 ||
        RAND_priv_bytes(k->mac, SECRET) != 1)
        fatal("no random bytes for the keys of session tickets");
}

static void plan(void)
{
    uint64_t left = UINT64_MAX - shared.made_ns;
    uint64_t ns = shared.brought && rotation_ns < UINT64_MAX / 2 ? 2 * rotation_ns : rotation_ns;
    atomic_store(&due_ns, ns > 0 && ns < left ? shared.made_ns + ns : UINT64_MAX);
}

/* Behind the lock. */
static void rotate(uint64_t now)
{
    unsigned kept = shared.count < wanted ? shared.count : wanted - 1;
    memmove(&shared.keys[1], &shared.keys[0], kept * sizeof shared.keys[0]);
    make_key(&shared.keys[0]);
    shared.count = kept + 1;
    if (shared.count < KEYS_MAX)
        OPENSSL_cleanse(&shared.keys[shared.count],
                        (KEYS_MAX - shared.count) * sizeof shared.keys[0]);
    shared.made_ns = now;
    shared.brought = false;
    plan();
    atomic_fetch_add(&version, 1);
}

static const struct ticket_keys *current_keys(void)
{
    uint64_t now = clock_mono_ns(), due = atomic_load_explicit(&due_ns, memory_order_relaxed);
    if (now < due && mine.version == atomic_load_explicit(&version, memory_order_acquire))
        return &mine.keys;
    pthread_mutex_lock(&lock);
    if (now >= atomic_load(&due_ns))
        rotate(now);
    mine.keys = shared;
    mine.version = atomic_load(&version);
    pthread_mutex_unlock(&lock);
    return &mine.keys;
}

void tls_tickets_configure(uint64_t every_ns, unsigned keys, bool never_rotate, bool are_shared)
{
    pthread_mutex_lock(&lock);
    wanted = keys == 0 ? KEYS : keys > KEYS_MAX ? KEYS_MAX : keys;
    rotation_ns = never_rotate ? 0 : every_ns > 0 ? every_ns : ROTATION_NS;
    if (shared.count > wanted)
        shared.count = wanted;
    if (shared.count > 0) {
        plan();
        if (shared.brought && !are_shared) /* others have them: the next one is our own */
            atomic_store(&due_ns, 0);
        atomic_fetch_add(&version, 1);
    }
    pthread_mutex_unlock(&lock);
}

static void derive(const unsigned char from[STEK_LEN], const char *what, unsigned char *out, size_t len)
{
    uint8_t digest[HMAC_MAX];
    struct slice key = slice_of((const char *)from, STEK_LEN);
    if (hmac_compute("sha256", key, slice_from(what), digest) != SECRET)
        fatal("the library has no SHA-256");
    memcpy(out, digest, len);
    OPENSSL_cleanse(digest, sizeof digest);
}

void tls_tickets_bring(const struct stek_file *f)
{
    pthread_mutex_lock(&lock);
    OPENSSL_cleanse(shared.keys, sizeof shared.keys);
    for (unsigned i = 0; i < f->count; i++) {
        struct ticket_key *k = &shared.keys[i];
        derive(f->keys[i], "portico ticket name", k->name, NAME);
        derive(f->keys[i], "portico ticket cipher", k->cipher, SECRET);
        derive(f->keys[i], "portico ticket mac", k->mac, SECRET);
    }
    shared.count = f->count;
    shared.made_ns = clock_mono_ns();
    shared.brought = true;
    plan();
    atomic_fetch_add(&version, 1);
    pthread_mutex_unlock(&lock);
}

void tickets_thread_deinit(void)
{
    OPENSSL_cleanse(&mine, sizeof mine);
}

static int init_mac(EVP_MAC_CTX *mac, struct ticket_key *k)
{
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, k->mac, SECRET),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)(uintptr_t) "SHA256", 0),
        OSSL_PARAM_construct_end()};
    return EVP_MAC_CTX_set_params(mac, params);
}

static int seal(struct ticket_key *k, unsigned char name[NAME], unsigned char *iv,
                EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac)
{
    memcpy(name, k->name, NAME);
    if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(aes)) != 1 ||
        EVP_EncryptInit_ex2(cipher, aes, k->cipher, iv, NULL) != 1 || init_mac(mac, k) != 1)
        return -1;
    return 1;
}

static int on_ticket(SSL *ssl, unsigned char name[NAME], unsigned char *iv, EVP_CIPHER_CTX *cipher,
                     EVP_MAC_CTX *mac, int sealing)
{
    const struct ticket_keys *keys = current_keys();
    if (sealing)
        return seal(&mine.keys.keys[0], name, iv, cipher, mac);
    for (unsigned i = 0; i < keys->count; i++) {
        struct ticket_key *k = &mine.keys.keys[i];
        if (memcmp(name, k->name, NAME) != 0)
            continue;
        if (init_mac(mac, k) != 1 || EVP_DecryptInit_ex2(cipher, aes, k->cipher, iv, NULL) != 1)
            return -1;
        return i == 0 && SSL_version(ssl) != TLS1_3_VERSION ? 1 : 2; /* 2: and make a new one */
    }
    return 0; /* a whole handshake then */
}

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fetch_forms(void)
{
    aes = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    if (aes == NULL)
        fatal("the library has no AES-256-CBC");
}

__attribute__((destructor)) static void free_forms(void)
{
    EVP_CIPHER_free(aes);
    OPENSSL_cleanse(&shared, sizeof shared);
}

void tickets_use(struct ssl_ctx_st *ctx)
{
    pthread_once(&once, fetch_forms);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket);
}
