/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process that was killed leaves in the storage. When a configuration is adopted, each name of
 * ours that has a note of something begun (certs/pending.h) gets a job, though its certificate may be
 * in its place: under the name's lock it finishes what has begun, or finds it done and removes the note.
 * The rest goes when the storage is tidied: notes of names that nobody wants, answers to challenges,
 * files of the storage check, locks of the dead. Each is old enough then that nobody alive means it.
 */
#include "base/clock.h"
#include "base/log.h"
#include "certs/manager_parts.h"

#define DAY_NS (24 * 3600 * (int64_t)NS_PER_S)
#define NOTE_AGE_NS (7 * DAY_NS) /* as long as authorities keep an order */

/* --- notes of names that are wanted --- */

/* Holdings of a storage by their name as a key's part. */
static void take_safe_names(struct map *names, const struct storage *s, struct arena *arena)
{
    map_init(names, false);
    LIST_FOR(it, &manager.holdings)
    {
        struct holding *h = CONTAINER_OF(it, struct holding, node);
        if (h->storage == s && h->credential != NULL && h->job == NULL)
            map_put(names, storage_safe(arena, h->name), h);
    }
}

static void finish_notes(struct storage *s)
{
    struct map names;
    struct arena arena;
    struct slice *keys;
    struct storage_why ignored;
    size_t n = 0;
    arena_init(&arena, 4096);
    if (s->type->list(s, SLICE("pending"), false, &arena, &keys, &n, &ignored) == OK && n > 0) {
        take_safe_names(&names, s, &arena); /* nothing waits from here on */
        for (size_t i = 0; i < n; i++) {
            struct holding *h = map_get(&names, slice_skip(keys[i], sizeof "pending/" - 1));
            if (h != NULL && h->wanted)
                job_begin(h, JOB_RENEW, false);
        }
        map_deinit(&names);
    }
    arena_deinit(&arena);
}

static void finish_all(void *arg)
{
    struct pin *pin = pin_hold();
    (void)arg;
    if (pin != NULL) {
        const struct automation *a = pin->automation;
        finish_notes(a->storage);
        for (size_t i = 0; i < a->policies_count && !manager.stopping; i++) {
            if (a->policies[i]->own_storage && a->policies[i]->storage != a->storage)
                finish_notes(a->policies[i]->storage);
        }
    }
    pin_release(pin);
}

void leftovers_finish(void)
{
    if (manager.pin != NULL)
        manager_run(finish_all, NULL);
}

/* --- the rest --- */

struct tidying {
    struct storage *storage;
    struct arena *arena;
    struct storage_why why;
    struct slice lock; /* that is held */
};

static bool is_old(struct tidying *t, struct slice key, int64_t age_ns)
{
    struct storage_info info;
    return t->storage->type->stat(t->storage, key, &info, &t->why) == OK &&
           clock_file_ns() - info.modified_ns > age_ns;
}

static void drop(struct tidying *t, struct slice key)
{
    if (t->storage->type->remove(t->storage, key, &t->why) == OK)
        LOG(LOG_INFO, "tls", "removed what an instance that was killed has left",
            LOG_STR("storage_key", key));
    else
        LOG(LOG_ERROR, "tls", "cleaning storage", LOG_STR("storage_key", key),
            LOG_CSTR("error", t->why.text));
}

/* From the loop's stack: a cancelled fiber could not wait for it. */
static void unlock(void *arg)
{
    struct tidying *t = arg;
    (void)t->storage->type->unlock(t->storage, t->lock, &t->why);
}

/* Only where nobody holds it; a lock of somebody dead is taken over. */
static bool take_lock(struct tidying *t, struct slice lock)
{
    t->lock = lock;
    return t->storage->type->lock(t->storage, lock, clock_mono_ns(), &t->why) == OK;
}

static void tidy_note(struct tidying *t, struct slice key, struct slice name)
{
    struct slice lock = arena_printf(t->arena, "issue_cert_" SLICE_FMT, SLICE_ARG(name));
    if (!is_old(t, key, NOTE_AGE_NS) || !take_lock(t, lock))
        return;
    drop(t, key);
    await_on_loop(unlock, t);
}

static void tidy_lock(struct tidying *t, struct slice key, struct slice name)
{
    if (is_old(t, key, DAY_NS) && take_lock(t, slice_take(name, name.len - (sizeof ".lock" - 1))))
        await_on_loop(unlock, t);
}

static void tidy_key(struct tidying *t, struct slice key)
{
    struct slice top, rest, issuer;
    slice_cut(key, '/', &top, &rest);
    bool below = slice_find(rest, '/') != SIZE_MAX;
    if (slice_is(top, "pending") && rest.len > 0 && !below) {
        tidy_note(t, key, rest);
    } else if (slice_is(top, "locks") && !below && slice_ends(rest, SLICE(".lock"))) {
        tidy_lock(t, key, rest);
    } else if (slice_starts(key, SLICE("rw_test_"))) {
        if (is_old(t, key, DAY_NS))
            drop(t, key);
    } else if (slice_is(top, "acme")) {
        slice_cut(rest, '/', &issuer, &rest);
        if (slice_starts(rest, SLICE("challenge_tokens/")) && is_old(t, key, DAY_NS))
            drop(t, key);
    }
}

/* Looking at every folder also removes values that were never finished (pki/file_storage.c). */
void leftovers_tidy(struct storage *s, struct arena *arena)
{
    struct slice *keys;
    size_t n = 0;
    struct tidying t = {.storage = s, .arena = arena};
    if (s->type->list(s, SLICE(""), true, arena, &keys, &n, &t.why) != OK)
        return;
    for (size_t i = 0; i < n && !manager.stopping; i++)
        tidy_key(&t, keys[i]);
}
