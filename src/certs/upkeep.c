/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every ten minutes all certificates are looked at: what is due becomes a job, unless another instance
 * has put a newer one into the storage, which is taken over; windows that authorities suggest are
 * asked for again. Every hour staples are. Certificates that came through handshakes are not
 * renewed for nobody: a due one is no longer published, so that the next handshake for it asks.
 */
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "certs/manager_parts.h"

#define ARI_LOCK_NS (2 * NS_PER_S)

enum { ARI_AFTER_FAILURE_S = 3600 };

static struct {
    bool looking, again;       /* a fiber of ours runs; and shall do so once more */
    bool stapling, staple_again;
    bool begun;
} upkeep;

struct names {
    struct slice *all;
    size_t count;
    struct arena arena;
};

/* Holdings come and go while we wait. */
static void take_names(struct names *n)
{
    arena_init(&n->arena, 65536);
    n->all = ARENA_ARRAY(&n->arena, struct slice, manager.count + 1);
    n->count = 0;
    LIST_FOR(it, &manager.holdings)
        n->all[n->count++] = arena_copy(&n->arena, CONTAINER_OF(it, struct holding, node)->name);
}

static struct holding *find_kept(struct slice name)
{
    struct holding *h = holding_find(name);
    return h != NULL && h->credential != NULL ? h : NULL;
}

static int64_t left_ns(const struct holding *h)
{
    return (credential_facts(h->credential)->not_after_s + 1) * (int64_t)NS_PER_S - clock_wall_ns();
}

/* --- windows --- */

static const struct issuer *issuer_of(const struct holding *h, const struct automation_policy *policy)
{
    for (size_t i = 0; i < policy->issuers_count; i++) {
        const struct issuer *issuer = &policy->issuers[i];
        if (slice_is(issuer->key, h->issuer_key) && issuer->type->window != NULL)
            return issuer;
    }
    return NULL;
}

struct window_look {
    const struct issuer *issuer;
    const struct automation_policy *policy;
    struct slice name, id, lock;
    struct arena arena;
    struct asset stored;
    struct renewal_info old, info;
    struct renewal_window window;
};

static void tell_change(const struct window_look *w)
{
    if (w->old.start_s == w->info.start_s && w->old.end_s == w->info.end_s)
        return;
    LOG(LOG_WARN, "tls.cache.maintenance", "ARI window or selected renewal time changed",
        LOG_LIST("identifiers", &w->name, 1), LOG_NUM("prev_start", w->old.start_s),
        LOG_NUM("next_start", w->info.start_s), LOG_NUM("prev_end", w->old.end_s),
        LOG_NUM("next_end", w->info.end_s), LOG_NUM("next_selected_time", w->info.selected_s),
        LOG_STR("explanation_url", w->window.explanation_url));
}

/* Under the lock: what another instance has found out, or what the authority says. */
static enum err look_window(struct window_look *w)
{
    struct storage *s = w->policy->storage;
    struct storage_why why = {""};
    struct renewal_info stored = {0};
    enum err e = asset_load(s, w->issuer->key, w->name, &w->arena, &w->stored, &why);
    if (e == OK)
        renewal_read(w->stored.issuer_data, &stored);
    if (stored.look_again_s > w->old.look_again_s && renewal_has_window(&stored)) {
        w->info = stored;
        return OK;
    }
    w->info = w->old;
    TRY(w->issuer->type->window(w->issuer->cfg, w->id, s, &w->arena, &w->window));
    if (w->window.start_s == 0 || w->window.end_s <= w->window.start_s)
        return ERR_INVALID;
    renewal_update(&w->info, &w->window, cert_now_s());
    if (e != OK)
        return OK;
    w->stored.issuer_data = renewal_put(w->stored.issuer_data, &w->info, w->id,
                                        w->window.explanation_url, &w->arena);
    if (asset_store_data(s, w->name, &w->stored, &why) != OK)
        LOG(LOG_ERROR, "tls.cache.maintenance", "updating ARI", LOG_CSTR("error", why.text),
            LOG_LIST("identifiers", &w->name, 1));
    else
        LOG(LOG_INFO, "tls.cache.maintenance", "updated and stored ACME renewal information",
            LOG_LIST("identifiers", &w->name, 1), LOG_NUM("selected_time", w->info.selected_s),
            LOG_NUM("next_update", w->info.look_again_s));
    return OK;
}

/* From the loop's stack: a cancelled fiber could not wait for it. */
static void unlock(void *arg)
{
    struct storage_why ignored;
    struct window_look *w = arg;
    struct storage *s = w->policy->storage;
    (void)!s->type->unlock(s, w->lock, &ignored);
}

static void refresh_window(struct holding *h, const struct automation_policy *policy)
{
    struct window_look w = {.policy = policy, .old = h->ari, .issuer = issuer_of(h, policy)};
    struct storage *s = policy->storage;
    struct storage_why why = {""};
    if (w.issuer == NULL)
        return;
    arena_init(&w.arena, 16384);
    w.name = arena_copy(&w.arena, h->name);
    w.id = arena_copy(&w.arena, credential_facts(h->credential)->ari_id);
    w.lock = arena_printf(&w.arena, "ari_" SLICE_FMT, SLICE_ARG(w.id));
    if (s->type->lock(s, w.lock, clock_mono_ns() + ARI_LOCK_NS, &why) == OK) {
        enum err e = look_window(&w);
        await_on_loop(unlock, &w);
        if (e == OK)
            tell_change(&w);
        else
            LOG(LOG_ERROR, "tls.cache.maintenance", "updating ARI", LOG_CSTR("error", err_text(e)),
                LOG_LIST("identifiers", &w.name, 1));
        h = find_kept(w.name);
        if (h != NULL && slice_eq(credential_facts(h->credential)->ari_id, w.id)) {
            if (e == OK)
                h->ari = w.info;
            else
                h->ari.look_again_s = cert_now_s() + ARI_AFTER_FAILURE_S;
        }
    }
    arena_deinit(&w.arena);
}

/* --- what is due --- */

/* Whether the storage has one that is not due; it is served then. */
static bool take_newer(struct slice name, const struct automation_policy *policy)
{
    struct arena arena;
    struct asset a;
    struct storage_why why = {""};
    bool taken = false;
    arena_init(&arena, 16384);
    enum err e = asset_load_any(policy, name, &arena, &a, &why);
    struct holding *h = find_kept(name);
    if (h == NULL || h->job != NULL) {
        taken = true; /* nothing is left to do */
    } else if (e == OK && !slice_eq(a.chain_pem, credential_pem(h->credential))) {
        struct renewal_info info;
        struct credential *old = credential_ref(h->credential);
        int64_t left = left_ns(h);
        renewal_read(a.issuer_data, &info);
        e = holding_set(h, policy->storage, &a, why.text, sizeof why.text);
        h = find_kept(name);
        if (e == OK && h != NULL)
            h->ari = info;
        taken = e == OK && h != NULL && holding_due(h, policy) == RENEWAL_NOT_YET;
        if (taken)
            LOG(LOG_INFO, "tls.cache.maintenance", "certificate expires soon, but is already renewed "
                "in storage; reloading stored certificate", LOG_LIST("identifiers", &name, 1),
                LOG_DUR("remaining", left));
        credential_unref(old);
        if (taken && staple_refresh(h, policy, true))
            publish_soon();
    }
    arena_deinit(&arena);
    return taken;
}

static void look_at(struct slice name, const struct automation_policy *policy)
{
    struct holding *h = find_kept(name);
    if (h == NULL || h->job != NULL)
        return;
    if (h->wanted && renewal_wants_look(&h->ari, cert_now_s()))
        refresh_window(h, policy);
    h = find_kept(name);
    if (h == NULL || h->job != NULL || holding_due(h, policy) == RENEWAL_NOT_YET)
        return;
    if (!h->wanted) {
        h->dozing = true;
        publish_soon();
        return;
    }
    if (take_newer(name, policy))
        return;
    h = find_kept(name);
    if (h == NULL || h->job != NULL)
        return;
    LOG(LOG_INFO, "tls.cache.maintenance", "certificate expires soon; queuing for renewal",
        LOG_LIST("identifiers", &name, 1), LOG_DUR("remaining", left_ns(h)));
    job_begin(h, JOB_RENEW, false);
}

static void look(void *arg)
{
    struct names n;
    struct pin *pin;
    (void)arg;
    do {
        upkeep.again = false;
        take_names(&n);
        for (size_t i = 0; i < n.count && !manager.stopping; i++) {
            pin = pin_hold();
            const struct automation_policy *policy =
                pin != NULL ? automation_find(pin->automation, n.all[i]) : NULL;
            if (policy != NULL)
                look_at(n.all[i], policy);
            pin_release(pin);
        }
        arena_deinit(&n.arena);
    } while (upkeep.again && !manager.stopping);
    upkeep.looking = false;
}

static void look_soon(void)
{
    upkeep.again = true;
    if (upkeep.looking || manager.stopping)
        return;
    upkeep.looking = true;
    manager_run(look, NULL);
}

/* --- staples --- */

/* The key of a certificate that was revoked because the key is known to others is put aside. */
static void put_aside(struct slice name, const char *issuer_key, struct storage *s)
{
    struct arena arena;
    struct slice key_pem;
    struct storage_why why = {""};
    arena_init(&arena, 16384);
    struct slice key = asset_key(&arena, slice_from(issuer_key), name, ".key");
    struct slice aside = asset_key(&arena, slice_from(issuer_key), name, ".key.compromised");
    enum err e = s->type->load(s, key, &arena, &key_pem, &why);
    if (e == OK)
        e = s->type->store(s, aside, key_pem, &why);
    if (e != ERR_NOT_FOUND)
        (void)!s->type->remove(s, key, &why);
    if (e == OK)
        LOG(LOG_INFO, "tls", "removed certificate's compromised private key from use",
            LOG_STR("storage_path", aside), LOG_LIST("identifiers", &name, 1));
    else
        LOG(LOG_ERROR, "tls", "could not remove compromised private key from use",
            LOG_CSTR("error", why.text), LOG_LIST("identifiers", &name, 1));
    arena_deinit(&arena);
}

static void replace_revoked(struct holding *h)
{
    struct slice name = h->name;
    bool anew = h->ocsp.reason == OCSP_REASON_KEY_COMPROMISE;
    if (h->manual || h->job != NULL)
        return;
    LOG(LOG_WARN, "tls", "OCSP status for managed certificate is REVOKED; attempting to replace with "
        "new certificate", LOG_LIST("identifiers", &name, 1),
        LOG_NUM("expiration", credential_facts(h->credential)->not_after_s));
    if (!h->wanted) { /* the next handshake has it replaced */
        h->dozing = true;
        publish_soon();
        return;
    }
    job_begin(h, anew ? JOB_ANEW : JOB_REPLACE, false);
    if (anew) {
        char *kept = slice_dup(name), *issuer = slice_dup(slice_from(h->issuer_key));
        put_aside(slice_from(kept), issuer, h->storage);
        mem_free(kept);
        mem_free(issuer);
    }
}

static void staple_one(struct slice name)
{
    struct pin *pin = pin_hold();
    struct holding *h = find_kept(name);
    const struct automation_policy *policy = pin != NULL ? automation_find(pin->automation, name) : NULL;
    if (h != NULL && policy != NULL && staple_wants(h, policy)) {
        if (staple_refresh(h, policy, true)) {
            LOG(LOG_INFO, "tls.cache.maintenance", "advancing OCSP staple",
                LOG_LIST("identifiers", &name, 1));
            publish_soon();
        }
        h = find_kept(name);
    }
    if (h != NULL && h->has_ocsp && h->ocsp.status == OCSP_REVOKED && !holding_expired(h))
        replace_revoked(h);
    pin_release(pin);
}

/* Manual ones have no names of their own to be found by: begins anew when they have changed. */
static void staple_manuals(void)
{
    struct pin *pin = pin_hold();
    struct pin *present = pin;
    size_t done = 0;
    bool more = pin != NULL && !pin->automation->manual_no_stapling;
    while (more && manager.pin == present && !manager.stopping) {
        size_t i = 0;
        struct holding *h = NULL;
        LIST_FOR(it, &manager.manuals)
        {
            if (i++ == done)
                h = CONTAINER_OF(it, struct holding, node);
        }
        more = h != NULL;
        done++;
        if (more && staple_wants(h, NULL) && staple_refresh(h, NULL, true))
            publish_soon();
    }
    pin_release(pin);
}

static void staple_all(void *arg)
{
    struct names n;
    (void)arg;
    do {
        upkeep.staple_again = false;
        take_names(&n);
        for (size_t i = 0; i < n.count && !manager.stopping; i++)
            staple_one(n.all[i]);
        arena_deinit(&n.arena);
        staple_manuals();
    } while (upkeep.staple_again && !manager.stopping);
    upkeep.stapling = false;
}

static void staple_soon(void)
{
    upkeep.staple_again = true;
    if (upkeep.stapling || manager.stopping)
        return;
    upkeep.stapling = true;
    manager_run(staple_all, NULL);
}

/* --- timers --- */

static void again(struct timer *t, uint64_t interval_ns)
{
    timer_start(manager.loop, t, clock_mono_ns() + interval_ns);
}

static void on_renew(struct timer *t)
{
    if (manager.pin == NULL)
        return;
    look_soon();
    again(t, manager.pin->automation->renew_interval_ns);
}

static void on_ocsp(struct timer *t)
{
    if (manager.pin == NULL)
        return;
    staple_soon();
    again(t, manager.pin->automation->ocsp_interval_ns);
}

void upkeep_now(void)
{
    if (manager.pin == NULL)
        return;
    look_soon();
    staple_soon();
}

void upkeep_start(void)
{
    if (!upkeep.begun) {
        timer_init(&manager.renew_timer, on_renew);
        timer_init(&manager.ocsp_timer, on_ocsp);
        upkeep.begun = true;
    }
    timer_stop(&manager.renew_timer);
    timer_stop(&manager.ocsp_timer);
    if (manager.pin == NULL)
        return;
    upkeep_now();
    again(&manager.renew_timer, manager.pin->automation->renew_interval_ns);
    again(&manager.ocsp_timer, manager.pin->automation->ocsp_interval_ns);
}

void upkeep_stop(void)
{
    if (!upkeep.begun)
        return;
    timer_stop(&manager.renew_timer);
    timer_stop(&manager.ocsp_timer);
}
