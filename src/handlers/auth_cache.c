/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of a worker is a fixed table: a digest of hash and password chooses a set, the entry of
 * a set that was used longest ago makes room. The digest is two SipHashes under keys that this
 * thread drew, 128 bits: it cannot be aimed at from outside, and it means nothing elsewhere. Wrong
 * passwords are not remembered, so that guessing cannot push out those who signed in.
 *
 * A hashing that runs stands in `running`, on the stack of the fiber that leads it; others with the
 * same digest wait beside it and get its result. When the leader could not start (the queue was
 * full, its client had left) they try for themselves.
 */
#include "handlers/auth_cache.h"

#include <pthread.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "loop/await.h"

#define KEEP_NS (600 * NS_PER_S) /* since the last use */

struct digest {
    uint64_t part[2];
};

struct entry {
    struct digest digest;
    uint64_t used_ns; /* 0: free */
};

struct auth_thread {
    uint64_t keys[2][2];
    struct list running;
    struct entry entries[AUTH_CACHE_SETS][AUTH_CACHE_WAYS];
};

struct check_job {
    struct list node; /* of running */
    struct digest digest;
    struct list followers;
    const struct password_hash *hash;
    struct slice password;
    enum err error;
    bool same, done;
};

struct follower {
    struct list node;
    struct waiter waiter;
    bool same;
};

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local struct auth_thread *mine;

static void free_thread(void *arg)
{
    explicit_bzero(arg, sizeof(struct auth_thread));
    mem_free(arg);
}

static void make_key(void)
{
    if (pthread_key_create(&key, free_thread) != 0)
        fatal("no thread key is left");
}

static struct auth_thread *thread(void)
{
    if (mine != NULL)
        return mine;
    pthread_once(&once, make_key);
    struct auth_thread *t = NEW(struct auth_thread);
    list_init(&t->running);
    if (getrandom(t->keys, sizeof t->keys, 0) != sizeof t->keys)
        fatal("no random bytes");
    pthread_setspecific(key, t);
    mine = t;
    return t;
}

static struct digest digest_of(const struct auth_thread *t, const struct password_hash *hash,
                               struct slice password)
{
    struct digest d;
    size_t len = hash->text.len + 1 + password.len;
    char *both = mem_alloc(len);
    memcpy(both, hash->text.ptr, hash->text.len);
    both[hash->text.len] = '\0'; /* not part of a hash: the border is clear */
    if (password.len > 0)
        memcpy(both + hash->text.len + 1, password.ptr, password.len);
    d.part[0] = hash_keyed(slice_of(both, len), t->keys[0]);
    d.part[1] = hash_keyed(slice_of(both, len), t->keys[1]);
    explicit_bzero(both, len);
    mem_free(both);
    return d;
}

static bool equal(const struct digest *a, const struct digest *b)
{
    return ((a->part[0] ^ b->part[0]) | (a->part[1] ^ b->part[1])) == 0;
}

static bool is_fresh(const struct entry *e, uint64_t now)
{
    return e->used_ns != 0 && now - e->used_ns < KEEP_NS;
}

static bool remembers(struct auth_thread *t, const struct digest *d)
{
    struct entry *set = t->entries[d->part[0] % AUTH_CACHE_SETS];
    uint64_t now = loop_now_ns(loop_self());
    for (int i = 0; i < AUTH_CACHE_WAYS; i++) {
        if (is_fresh(&set[i], now) && equal(&set[i].digest, d)) {
            set[i].used_ns = now;
            return true;
        }
    }
    return false;
}

static void learn(struct auth_thread *t, const struct digest *d)
{
    struct entry *set = t->entries[d->part[0] % AUTH_CACHE_SETS], *oldest = set;
    for (int i = 1; i < AUTH_CACHE_WAYS; i++) {
        if (set[i].used_ns < oldest->used_ns)
            oldest = &set[i];
    }
    *oldest = (struct entry){*d, loop_now_ns(loop_self())};
}

static void work(void *arg) /* on a thread of the pool */
{
    struct check_job *j = arg;
    j->error = password_check(j->hash, j->password, &j->same);
    j->done = true;
}

static enum err lead(struct auth_thread *t, struct check_job *j, bool remember, bool *same)
{
    list_init(&j->followers);
    list_append(&t->running, &j->node);
    enum err e = await_offload_slow(work, j);
    list_remove(&j->node);
    if (j->done && j->error == OK && j->same && remember)
        learn(t, &j->digest);
    for (struct list *n; (n = list_pop(&j->followers)) != NULL;) {
        struct follower *f = CONTAINER_OF(n, struct follower, node);
        f->same = j->same;
        waiter_wake(&f->waiter, j->done ? j->error : ERR_CANCELLED);
    }
    *same = j->same;
    return e != OK ? e : j->error;
}

static struct check_job *find_running(struct auth_thread *t, const struct digest *d)
{
    LIST_FOR(n, &t->running)
    {
        struct check_job *j = CONTAINER_OF(n, struct check_job, node);
        if (equal(&j->digest, d))
            return j;
    }
    return NULL;
}

static enum err follow(struct check_job *j, bool *same)
{
    struct follower f = {.same = false};
    waiter_init(&f.waiter);
    list_append(&j->followers, &f.node);
    enum err e = await_wake(&f.waiter, 0);
    list_remove(&f.node); /* still there when this fiber was cancelled */
    *same = f.same;
    return e;
}

enum err auth_check(const struct password_hash *hash, struct slice password, bool remember,
                    bool *same)
{
    struct auth_thread *t = thread();
    struct check_job j = {.digest = digest_of(t, hash, password), .hash = hash,
                          .password = password};
    *same = false;
    if (!remember)
        return lead(t, &j, false, same);
    for (;;) {
        struct check_job *other;
        if (remembers(t, &j.digest)) {
            *same = true;
            return OK;
        }
        if ((other = find_running(t, &j.digest)) == NULL)
            return lead(t, &j, true, same);
        enum err e = follow(other, same);
        if (e != ERR_CANCELLED || fiber_self()->cancelled != OK)
            return e;
    }
}
