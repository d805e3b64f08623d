/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A handful at a time, in a list behind a lock; a count that workers read first spares them the lock
 * while no authority looks for anything.
 */
#include "tls/challenge.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "base/mem.h"

struct answer {
    struct list node;
    struct slice token, key_authorization; /* malloc'd */
};

static struct {
    pthread_mutex_t lock;
    struct list answers; /* made at the first set */
    atomic_uint count;
} challenges = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct answer *find(struct slice token)
{
    if (challenges.answers.next == NULL)
        list_init(&challenges.answers);
    LIST_FOR(n, &challenges.answers)
    {
        struct answer *a = CONTAINER_OF(n, struct answer, node);
        if (slice_eq(a->token, token))
            return a;
    }
    return NULL;
}

static void drop(struct answer *a)
{
    list_remove(&a->node);
    mem_free((void *)(uintptr_t)a->token.ptr);
    mem_free((void *)(uintptr_t)a->key_authorization.ptr);
    mem_free(a);
    atomic_fetch_sub(&challenges.count, 1);
}

void challenge_http_set(struct slice token, struct slice key_authorization)
{
    struct answer *fresh = NEW(struct answer);
    fresh->token = slice_of(slice_dup(token), token.len);
    fresh->key_authorization = slice_of(slice_dup(key_authorization), key_authorization.len);
    pthread_mutex_lock(&challenges.lock);
    struct answer *old = find(token);
    if (old != NULL)
        drop(old);
    list_append(&challenges.answers, &fresh->node);
    atomic_fetch_add(&challenges.count, 1);
    pthread_mutex_unlock(&challenges.lock);
}

void challenge_http_remove(struct slice token)
{
    pthread_mutex_lock(&challenges.lock);
    struct answer *a = find(token);
    if (a != NULL)
        drop(a);
    pthread_mutex_unlock(&challenges.lock);
}

bool challenge_http_find(struct slice token, struct arena *arena, struct slice *key_authorization)
{
    if (atomic_load(&challenges.count) == 0)
        return false;
    pthread_mutex_lock(&challenges.lock);
    const struct answer *a = find(token);
    if (a != NULL)
        *key_authorization = arena_copy(arena, a->key_authorization);
    pthread_mutex_unlock(&challenges.lock);
    return a != NULL;
}
