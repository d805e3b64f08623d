/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A list and a number for each name on this thread, found by a map when a connection becomes idle. What
 * has become empty stays for the next moment: a transport with one connection would else make and free its
 * own with each request. Those that nobody uses any more, such as of configurations that have gone, are
 * freed when there are twice as many as were in use the last time.
 */
#include "upstream/idle.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/map.h"
#include "base/mem.h"

enum { COUNTS_KEPT = 16 };

struct idle_count {
    uint64_t of; /* the key's bytes */
    struct list idle;
    uint32_t count;
};

static _Thread_local struct {
    struct map counts;
    size_t clean_at;
    bool ready;
} mine;

static void clean(void)
{
    size_t at = 0;
    for (struct map_entry *e; (e = map_next(&mine.counts, &at)) != NULL;) {
        struct idle_count *c = e->value;
        if (c->count > 0)
            continue;
        map_remove(&mine.counts, e->key);
        mem_free(c);
    }
    mine.clean_at = 2 * mine.counts.count + COUNTS_KEPT;
}

static struct idle_count *count_of(uint64_t of)
{
    if (!mine.ready) {
        map_init(&mine.counts, false);
        mine.clean_at = COUNTS_KEPT;
        mine.ready = true;
    }
    struct idle_count *c = map_get(&mine.counts, slice_of((const char *)&of, sizeof of));
    if (c != NULL)
        return c;
    if (mine.counts.count >= mine.clean_at)
        clean();
    c = NEW(struct idle_count);
    c->of = of;
    list_init(&c->idle);
    map_put(&mine.counts, slice_of((const char *)&c->of, sizeof c->of), c);
    return c;
}

void idle_end(struct idle *i)
{
    if (list_empty(&i->node))
        return;
    list_remove(&i->node);
    i->count->count--;
}

void idle_begin(struct idle *i, uint64_t of, uint32_t most)
{
    if (most == 0)
        return;
    struct idle_count *c = count_of(of);
    i->count = c;
    list_append(&c->idle, &i->node);
    c->count++;
    while (c->count > most) {
        struct idle *oldest = CONTAINER_OF(c->idle.next, struct idle, node);
        idle_end(oldest);
        oldest->end(oldest);
    }
}

uint64_t idle_name(struct slice text)
{
    return hash_bytes(text);
}

void idle_thread_deinit(void)
{
    if (!mine.ready)
        return;
    clean();
    ASSERT(mine.counts.count == 0);
    map_deinit(&mine.counts);
    mine.ready = false;
}

unsigned idle_counts(void)
{
    return mine.ready ? (unsigned)mine.counts.count : 0;
}
