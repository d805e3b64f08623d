/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Not the authority's limits, which only it knows, but a brake: when thousands of names begin at
 * once, an authority sees ten orders of an account in ten seconds. The keys are few (authorities ×
 * accounts of the configuration); the one that was quiet for longest makes room.
 */
#include "certs/acme_client.h"

#include "base/clock.h"
#include "base/list.h"
#include "base/mem.h"
#include "loop/await.h"

enum { EVENTS = 10, WINDOW_S = 10, KEYS_MAX = 256 };

struct throttle {
    struct list node;
    char *key;
    uint64_t next_ns[EVENTS]; /* when each place in the ring is free again */
    size_t at;
};

static _Thread_local struct list throttles;
static _Thread_local size_t throttles_count;

static struct throttle *find(struct slice key)
{
    if (throttles.next == NULL)
        list_init(&throttles);
    LIST_FOR (it, &throttles) {
        struct throttle *t = CONTAINER_OF(it, struct throttle, node);
        if (slice_is(key, t->key)) {
            list_remove(&t->node);
            list_append(&throttles, &t->node);
            return t;
        }
    }
    if (throttles_count == KEYS_MAX) {
        struct throttle *oldest = CONTAINER_OF(list_pop(&throttles), struct throttle, node);
        mem_free(oldest->key);
        mem_free(oldest);
        throttles_count--;
    }
    struct throttle *t = NEW(struct throttle);
    t->key = slice_dup(key);
    list_append(&throttles, &t->node);
    throttles_count++;
    return t;
}

/* The place is taken before the wait, so that others queue behind it. */
enum err acme_throttle(struct slice key)
{
    struct throttle *t = find(key);
    uint64_t now = clock_mono_ns(), *place = &t->next_ns[t->at];
    uint64_t turn = *place > now ? *place : now;
    *place = turn + WINDOW_S * NS_PER_S;
    t->at = (t->at + 1) % EVENTS;
    return turn > now ? await_sleep(turn) : OK;
}
