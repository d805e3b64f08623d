/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The published set is an immutable map from names to credentials. A handshake reads it without a
 * lock: each thread holds a reference to the set that it saw last, and compares a version number
 * before it looks; only after a change does it take the lock once, to pick up the new set. Whoever
 * lets go of a set last frees it.
 *
 * The search is Caddy's: the name, then with its first label as "*", its first two, and so on; without
 * a name the address that was connected to, then default_sni; at last fallback_sni. Of several with
 * one name it is the first that the client can use and whose time has come and is not over.
 */
#include "tls/credential_store.h"

#include <pthread.h>

#include <openssl/x509.h>

#include "base/map.h"
#include "base/mem.h"

/* Those with one name, in the order of publishing. */
struct choices {
    size_t count, cap;
    struct credential **items; /* `one` as long as there is one */
    struct credential *one;
};

struct set {
    atomic_uint refs;
    struct map names; /* struct choices */
    struct arena arena;
    struct choices all;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct set *current;
static atomic_uint_fast64_t version;
static struct map challenges; /* struct challenge, by name; behind the lock */
static atomic_uint challenges_count;

struct challenge {
    char name[256];
    struct credential *credential;
};

_Atomic(credential_asker *) credential_ask_hook;

static _Thread_local struct {
    struct set *set;
    uint64_t version;
} seen;

/* --- publishing --- */

static void unref_set(struct set *s)
{
    if (s == NULL || atomic_fetch_sub(&s->refs, 1) != 1)
        return;
    for (size_t i = 0; i < s->all.count; i++)
        credential_unref(s->all.items[i]);
    map_deinit(&s->names);
    arena_deinit(&s->arena);
    mem_free(s);
}

static void add_choice(struct set *s, struct choices *c, struct credential *credential)
{
    if (c->count == c->cap) {
        size_t cap = c->cap * 2;
        struct credential **items = ARENA_ARRAY(&s->arena, struct credential *, cap);
        memcpy(items, c->items, c->count * sizeof *items);
        c->items = items;
        c->cap = cap;
    }
    c->items[c->count++] = credential;
}

static void add_name(struct set *s, struct slice name, struct credential *credential)
{
    struct choices *c = map_get(&s->names, name);
    if (c == NULL) {
        c = ARENA_NEW(&s->arena, struct choices);
        c->items = &c->one;
        c->cap = 1;
        map_put(&s->names, name, c);
    }
    if (c->count == 0 || c->items[c->count - 1] != credential) /* a name that it has twice */
        add_choice(s, c, credential);
}

static struct set *make_set(struct credential **all, size_t count)
{
    struct set *s = NEW(struct set);
    atomic_init(&s->refs, 1);
    map_init(&s->names, false);
    arena_init(&s->arena, 64 * 1024);
    s->all.items = ARENA_ARRAY(&s->arena, struct credential *, count + 1);
    s->all.count = s->all.cap = count;
    for (size_t i = 0; i < count; i++) {
        const struct certificate_facts *f = credential_facts(all[i]);
        s->all.items[i] = all[i];
        for (size_t n = 0; n < f->names_count; n++)
            add_name(s, f->names[n], all[i]);
    }
    return s;
}

void credentials_publish(struct credential **all, size_t count)
{
    struct set *s = make_set(all, count);
    pthread_mutex_lock(&lock);
    struct set *old = current;
    uint64_t next = atomic_load(&version) + 1;
    for (size_t i = 0; i < count; i++)
        atomic_store_explicit(&all[i]->seen_in, next, memory_order_relaxed);
    current = s;
    atomic_store_explicit(&version, next, memory_order_release);
    pthread_mutex_unlock(&lock);
    unref_set(old);
}

static const struct set *pick_up(void)
{
    uint64_t now = atomic_load_explicit(&version, memory_order_acquire);
    if (now == seen.version)
        return seen.set;
    pthread_mutex_lock(&lock);
    struct set *old = seen.set;
    seen.set = current;
    seen.version = atomic_load(&version);
    atomic_fetch_add(&seen.set->refs, 1);
    pthread_mutex_unlock(&lock);
    unref_set(old);
    credential_sweep(seen.version);
    return seen.set;
}

void credential_thread_deinit(void)
{
    credential_cache_deinit();
    unref_set(seen.set);
    seen.set = NULL;
    seen.version = 0;
}

/* Nobody shakes hands any more; for a process's or a test's end. */
void credentials_clear(void)
{
    pthread_mutex_lock(&lock);
    struct set *old = current;
    current = make_set(NULL, 0);
    atomic_fetch_add(&version, 1);
    pthread_mutex_unlock(&lock);
    unref_set(old);
}

/* --- which one --- */

/* What hello.SupportsCertificate asks in Go, as far as it is about the kind of key. */
static bool client_can(const struct hello *h, int key_algorithm)
{
    static const uint16_t rsa[] = {0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0201};
    static const uint16_t ecdsa[] = {0x0403, 0x0503, 0x0603, 0x0203};
    if (h->schemes.len == 0) /* RFC 5246 §7.4.1.4.1: what a client without them means */
        return key_algorithm != 4;
    if (key_algorithm == 4)
        return hello_has(h->schemes, 0x0807);
    const uint16_t *list = key_algorithm == 1 ? rsa : ecdsa;
    size_t count = key_algorithm == 1 ? sizeof rsa / 2 : sizeof ecdsa / 2;
    for (size_t i = 0; i < count; i++) {
        if (hello_has(h->schemes, list[i]))
            return true;
    }
    return false;
}

static bool has_text(const struct slice *list, size_t count, struct slice text)
{
    for (size_t i = 0; i < count; i++) {
        if (slice_eq(list[i], text))
            return true;
    }
    return false;
}

/* Its subject has one of these organizations. */
static bool has_organization(struct credential *c, const struct tls_selection *s)
{
    char why[256];
    const struct decoded *d = credential_decode(c, why, sizeof why);
    if (d == NULL)
        return false;
    X509_NAME *name = X509_get_subject_name(d->leaf);
    for (int at = -1; (at = X509_NAME_get_index_by_NID(name, NID_organizationName, at)) >= 0;) {
        unsigned char *text = NULL;
        int len = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
        bool is = len >= 0 && has_text(s->organizations, s->organizations_count,
                                       slice_of((char *)text, (size_t)len));
        OPENSSL_free(text);
        if (is)
            return true;
    }
    return false;
}

static bool has_tags(const struct credential_body *b, const struct tls_selection *s)
{
    bool any = s->any_tag_count == 0;
    for (size_t i = 0; i < s->any_tag_count && !any; i++)
        any = has_text(b->tags, b->tags_count, s->any_tag[i]);
    for (size_t i = 0; i < s->all_tags_count && any; i++)
        any = has_text(b->tags, b->tags_count, s->all_tags[i]);
    return any;
}

static bool is_selected(struct credential *c, const struct tls_selection *s)
{
    const struct certificate_facts *f = credential_facts(c);
    if (s == NULL)
        return true;
    return (s->serials_count == 0 || has_text(s->serials, s->serials_count, f->serial)) &&
           (s->key_algorithm == 0 || s->key_algorithm == f->key_algorithm) &&
           has_tags(c->body, s) && (s->organizations_count == 0 || has_organization(c, s));
}

/* The first that fits in all; else the last that the client can use; else the first. */
static struct credential *choose(const struct credential_query *q, const struct choices *from,
                                 const struct tls_selection *s)
{
    struct credential *best = NULL;
    bool usable = false;
    for (size_t i = 0; i < from->count; i++) {
        struct credential *c = from->items[i];
        const struct certificate_facts *f = credential_facts(c);
        if (!is_selected(c, s))
            continue;
        bool can = q->hello == NULL || client_can(q->hello, f->key_algorithm);
        if (can && q->now_s > f->not_before_s && q->now_s < f->not_after_s)
            return c;
        if (best == NULL || (can && !usable))
            best = c;
        usable |= can;
    }
    return best;
}

static struct credential *look_up(const struct credential_query *q, const struct set *set,
                                  struct slice name)
{
    const struct choices *c = map_get(&set->names, name);
    const struct tls_selection *s = q->policy->selection;
    if (c == NULL && s == NULL)
        return NULL;
    if (c == NULL)
        c = &set->all; /* the selection is all that decides */
    do {
        struct credential *found = choose(q, c, s);
        if (found != NULL || s == NULL)
            return found;
        s = s->next;
    } while (s != NULL);
    return NULL;
}

/* "a.b.example": "*.b.example", "*.*.example", "*.*.*". */
static struct credential *look_up_wildcards(const struct credential_query *q, const struct set *set)
{
    char text[2 * HELLO_NAME_MAX + 2];
    size_t stars = 0;
    struct slice rest = q->name;
    while (rest.len > 0) {
        struct slice label, tail;
        bool more = slice_cut(rest, '.', &label, &tail);
        memcpy(text + stars, "*.", 2);
        stars += 2;
        memcpy(text + stars, tail.ptr != NULL ? tail.ptr : "", more ? tail.len : 0);
        struct slice candidate = slice_of(text, more ? stars + tail.len : stars - 1);
        struct credential *c = look_up(q, set, candidate);
        if (c != NULL || !more)
            return c;
        rest = tail;
    }
    return NULL;
}

struct credential *credential_find(const struct credential_query *q, bool *by_default)
{
    const struct set *set = pick_up();
    struct credential *c = NULL;
    *by_default = false;
    if (set == NULL)
        return NULL;
    if (q->name.len > 0 && q->name.len <= HELLO_NAME_MAX) {
        c = look_up(q, set, q->name);
        if (c == NULL)
            c = look_up_wildcards(q, set);
    } else {
        c = look_up(q, set, q->local);
    }
    if (c != NULL)
        return c;
    *by_default = true;
    if (q->name.len == 0 && q->policy->default_sni.len > 0)
        c = look_up(q, set, q->policy->default_sni);
    if (c == NULL && q->policy->fallback_sni.len > 0)
        c = look_up(q, set, q->policy->fallback_sni);
    return c;
}

/* --- challenges --- */

void credentials_challenge(struct slice name, struct credential *credential)
{
    struct challenge *c = NULL;
    if (name.len == 0 || name.len >= sizeof c->name) {
        credential_unref(credential);
        return;
    }
    if (credential != NULL) {
        c = NEW(struct challenge);
        for (size_t i = 0; i < name.len; i++)
            c->name[i] = ascii_lower(name.ptr[i]);
        c->credential = credential;
    }
    pthread_mutex_lock(&lock);
    struct challenge *old = map_remove(&challenges, c != NULL ? slice_from(c->name) : name);
    if (c != NULL)
        map_put(&challenges, slice_from(c->name), c);
    atomic_store(&challenges_count, (unsigned)challenges.count);
    if (challenges.count == 0)
        map_deinit(&challenges);
    pthread_mutex_unlock(&lock);
    if (old != NULL)
        credential_unref(old->credential);
    mem_free(old);
}

struct credential *credential_challenge_find(struct slice name)
{
    struct credential *found = NULL;
    if (atomic_load(&challenges_count) == 0)
        return NULL;
    pthread_mutex_lock(&lock);
    const struct challenge *c = map_get(&challenges, name);
    if (c != NULL)
        found = credential_ref(c->credential);
    pthread_mutex_unlock(&lock);
    return found;
}
