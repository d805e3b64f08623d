/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The idle compressors of a worker, newest first: one that was used last is warm in the caches. The
 * oldest is freed when there are too many.
 */
#include "handlers/encoder.h"

#include <pthread.h>

#include "base/check.h"
#include "base/mem.h"

struct encoder_thread {
    struct list idle;
    unsigned idle_count, memory;
};

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local struct encoder_thread *mine;

static void destroy(struct encoder *e)
{
    if (e->state != NULL)
        e->settings.type->deinit(e);
    mem_free(e);
}

static void free_thread(void *arg)
{
    struct encoder_thread *t = arg;
    for (struct list *n; (n = list_pop(&t->idle)) != NULL;)
        destroy(CONTAINER_OF(n, struct encoder, node));
    mem_free(t);
}

static void make_key(void)
{
    if (pthread_key_create(&key, free_thread) != 0)
        fatal("no thread key is left");
}

static struct encoder_thread *thread(void)
{
    if (LIKELY(mine != NULL))
        return mine;
    pthread_once(&once, make_key);
    mine = NEW(struct encoder_thread);
    list_init(&mine->idle);
    pthread_setspecific(key, mine);
    return mine;
}

static bool suits(const struct encoder *e, const struct encoder_settings *s)
{
    return e->settings.type == s->type && e->settings.level == s->level &&
           e->settings.option == s->option;
}

static struct encoder *find_idle(struct encoder_thread *t, const struct encoder_settings *s)
{
    LIST_FOR(n, &t->idle)
    {
        struct encoder *e = CONTAINER_OF(n, struct encoder, node);
        if (!suits(e, s))
            continue;
        list_remove(&e->node);
        t->idle_count--;
        return e;
    }
    return NULL;
}

bool encoder_reserve(const struct encoder_settings *s)
{
    struct encoder_thread *t = thread();
    if (t->memory + s->memory > ENCODERS_MEMORY)
        return false;
    t->memory += s->memory;
    return true;
}

void encoder_unreserve(const struct encoder_settings *s)
{
    thread()->memory -= s->memory;
}

struct encoder *encoder_take(const struct encoder_settings *s)
{
    struct encoder *e = find_idle(thread(), s);
    if (e == NULL) {
        e = mem_alloc(sizeof *e);
        e->state = NULL;
        list_init(&e->node);
    }
    e->settings = *s;
    e->input = SLICE_NONE;
    e->out_len = 0;
    if (!s->type->init(e))
        fatal("out of memory for a compressor");
    return e;
}

void encoder_give(struct encoder *e)
{
    struct encoder_thread *t = thread();
    encoder_unreserve(&e->settings);
    if (e->settings.type->once) {
        e->settings.type->deinit(e);
        e->state = NULL;
    }
    list_prepend(&t->idle, &e->node);
    if (++t->idle_count <= ENCODERS_IDLE)
        return;
    struct encoder *oldest = CONTAINER_OF(t->idle.prev, struct encoder, node);
    list_remove(&oldest->node);
    t->idle_count--;
    destroy(oldest);
}
