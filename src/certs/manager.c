/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All certificates of the process. A holding is one name with what we have for it; a configuration
 * says which names are wanted. When one is adopted, what the storage has is loaded and published
 * before anything else happens, so that the first handshake finds it; what is missing or due becomes a
 * job. Handshakes never look here: they have the set that was published last, and ask
 * (credential_ask_hook) only when it does not help.
 *
 * A configuration stays pinned while a fiber looks at it. Everything runs on the control thread, so
 * there are no locks; but after each wait a holding may be gone, and is found again by its name.
 */
#include "certs/manager.h"

#include <stdio.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "certs/large_stack.h"
#include "certs/manager_parts.h"
#include "certs/pending.h"
#include "certs/test_clock.h"
#include "pki/subject.h"

#define RUN_AGAIN_NS (100 * NS_PER_MS)

struct manager manager;

int64_t cert_now_s(void)
{
    return clock_wall_ns() / (int64_t)NS_PER_S;
}

/* --- fibers --- */

static void finish_stop(void);

static void run_entry(void *arg)
{
    struct run *r = arg;
    r->fiber = fiber_self();
    list_append(&manager.running, &r->node);
    if (manager.stopping)
        fiber_cancel(r->fiber, ERR_CANCELLED);
    r->work(r->arg);
    list_remove(&r->node);
    mem_free(r);
    if (--manager.runs == 0 && manager.stopping)
        finish_stop();
}

static void start_run(struct run *r)
{
    if (fiber_start(manager.loop, run_entry, r) != OK) /* too many at once: in a moment */
        timer_start(manager.loop, &r->timer, loop_now_ns(manager.loop) + RUN_AGAIN_NS);
}

static void on_run(struct task *t)
{
    start_run(CONTAINER_OF(t, struct run, task));
}

static void on_run_timer(struct timer *t)
{
    start_run(CONTAINER_OF(t, struct run, timer));
}

void manager_run(void (*work)(void *), void *arg)
{
    struct run *r = NEW(struct run);
    r->work = work;
    r->arg = arg;
    r->task.run = on_run;
    timer_init(&r->timer, on_run_timer);
    list_init(&r->node);
    manager.runs++;
    loop_defer(manager.loop, &r->task);
}

/* --- pins --- */

struct pin *pin_hold(void)
{
    if (manager.pin != NULL)
        manager.pin->refs++;
    return manager.pin;
}

static void on_let_go(struct task *t)
{
    struct pin *p = CONTAINER_OF(t, struct pin, task);
    if (p->let_go != NULL)
        p->let_go(p->owner);
    mem_free(p);
}

void pin_release(struct pin *p)
{
    if (p == NULL || --p->refs > 0)
        return;
    p->task.run = on_let_go;
    loop_defer(manager.loop, &p->task);
}

/* --- holdings --- */

struct holding *holding_find(struct slice name)
{
    return map_get(&manager.by_name, name);
}

struct holding *holding_new(struct slice name)
{
    struct holding *h = NEW(struct holding);
    h->name = slice_of(slice_dup(name), name.len);
    list_append(&manager.holdings, &h->node);
    map_put(&manager.by_name, h->name, h);
    manager.count++;
    return h;
}

static void free_holding(struct holding *h)
{
    list_remove(&h->node);
    credential_unref(h->credential);
    credential_unref(h->shown);
    mem_free(h->issuer_key);
    mem_free((void *)(uintptr_t)h->name.ptr);
    mem_free(h);
}

void holding_drop(struct holding *h)
{
    struct job *job = h->job;
    map_remove(&manager.by_name, h->name);
    manager.count--;
    manager.demand_count -= h->demand;
    if (job != NULL) {
        job->holding = NULL;
        job_cancel(job);
    }
    free_holding(h);
    publish_soon();
}

struct creating {
    const struct asset *asset;
    struct credential_spec spec;
    struct credential *credential;
    char *why;
    size_t cap;
    enum err e;
};

static void create(void *arg)
{
    struct creating *c = arg;
    c->e = credential_create(&c->spec, &c->credential, c->why, c->cap);
    if (c->e != OK || asset_is_pair(c->asset))
        return;
    credential_unref(c->credential);
    snprintf(c->why, c->cap, "the private key is not the certificate's");
    c->e = ERR_INVALID;
}

enum err holding_set(struct holding *h, struct storage *s, const struct asset *a, char *why, size_t cap)
{
    struct creating c = {.asset = a, .why = why, .cap = cap};
    c.spec = (struct credential_spec){.chain_pem = a->chain_pem, .key_pem = a->key_pem,
                                      .managed = true};
    struct slice name = h->name;
    char *kept = slice_dup(name); /* the holding may go while we wait */
    on_large_stack(create, &c);
    struct slice same = slice_of(kept, name.len);
    if (c.e == OK && holding_find(same) != h) {
        credential_unref(c.credential);
        snprintf(why, cap, "nobody wants it any more");
        c.e = ERR_CANCELLED;
    }
    mem_free(kept);
    if (c.e != OK)
        return c.e;
    credential_unref(h->credential);
    h->credential = c.credential;
    mem_free(h->issuer_key);
    h->issuer_key = slice_dup(a->issuer_key);
    h->storage = s;
    h->ari = (struct renewal_info){0};
    h->has_ocsp = h->dozing = false;
    publish_soon();
    return OK;
}

static struct renewal_span span_of(const struct holding *h)
{
    const struct certificate_facts *f = credential_facts(h->credential);
    return (struct renewal_span){f->not_before_s, f->not_after_s};
}

bool holding_expired(const struct holding *h)
{
    return cert_now_s() > credential_facts(h->credential)->not_after_s;
}

enum renewal_reason holding_due(const struct holding *h, const struct automation_policy *policy)
{
    if (manager.pin == NULL)
        return RENEWAL_NOT_YET; /* a configuration without any certificates has come */
    int64_t interval = (int64_t)(manager.pin->automation->renew_interval_ns / NS_PER_S);
    return renewal_due(span_of(h), &h->ari, policy->renewal_ratio, interval, cert_now_s());
}

struct holding *holding_serving(struct slice name)
{
    char text[SUBJECT_MAX + 1];
    struct slice wildcard;
    struct holding *h = holding_find(name);
    for (size_t stars = 1; h == NULL || h->credential == NULL; stars++) {
        if (!subject_wildcard(name, stars, text, &wildcard))
            return NULL;
        h = holding_find(wildcard);
    }
    return h;
}

/* --- publishing --- */

static void publish(void)
{
    size_t n = 0;
    uint64_t began = clock_mono_ns();
    struct credential **all = mem_alloc((manager.count + manager.manual_count + 1) * sizeof *all);
    LIST_FOR(it, &manager.manuals)
        all[n++] = credential_ref(CONTAINER_OF(it, struct holding, node)->credential);
    LIST_FOR(it, &manager.holdings)
    {
        struct holding *h = CONTAINER_OF(it, struct holding, node);
        struct credential *c = h->stapling ? h->shown : h->credential;
        if (c != NULL && !h->dozing)
            all[n++] = credential_ref(c);
    }
    credentials_publish(all, n);
    mem_free(all);
    manager.publish_due = false;
    timer_stop(&manager.publish_timer);
    manager.published_ns = clock_mono_ns();
    manager.publish_cost_ns = manager.published_ns - began;
    demand_told();
}

static void on_publish(struct timer *t)
{
    (void)t;
    publish();
}

/* Not more than a tenth of the time is spent on it. */
void publish_soon(void)
{
    if (manager.publish_due || manager.stopping)
        return;
    manager.publish_due = true;
    timer_start(manager.loop, &manager.publish_timer,
                manager.published_ns + manager.publish_cost_ns * 10);
}

/* --- adopting a configuration --- */

static bool is_covered(const struct automation *a, struct slice name)
{
    char text[SUBJECT_MAX + 1];
    struct slice wildcard;
    if (subject_is_ip(name))
        return false;
    for (size_t stars = 1; subject_wildcard(name, stars, text, &wildcard); stars++) {
        if (!slice_eq(wildcard, name) && map_get(a->names_set, wildcard) != NULL)
            return true;
    }
    return false;
}

static bool is_issuer(const struct automation_policy *policy, const char *key)
{
    for (size_t i = 0; i < policy->issuers_count; i++) {
        if (key != NULL && slice_is(policy->issuers[i].key, key))
            return true;
    }
    return false;
}

/* Certificates of the local authority are never served where a public one was asked for, nor the
 * other way round; one public authority is as good as another until the next renewal. */
static bool still_fits(const struct holding *h, const struct automation_policy *policy)
{
    bool internal = automation_is_internal(policy);
    if (h->credential == NULL || h->storage != policy->storage || h->internal != internal)
        return false;
    return !internal || is_issuer(policy, h->issuer_key);
}

static void read_ari(struct holding *h, const struct asset *a)
{
    renewal_read(a->issuer_data, &h->ari);
}

/* What a crash has left between an authority's answer and its place in the storage. */
static bool load_pending(struct holding *h, struct storage *s, struct arena *arena)
{
    struct pending p;
    char why[256];
    pending_load(s, h->name, arena, &p);
    if (p.issued.chain_pem.len == 0)
        return false;
    return holding_set(h, s, &p.issued, why, sizeof why) == OK;
}

/* Blocks for the time of some reads. False when there is nothing to serve. */
static bool load(struct holding *h, const struct automation_policy *policy, enum job_kind *kind)
{
    struct arena arena;
    struct asset a;
    struct storage_why why = {""};
    *kind = JOB_OBTAIN;
    arena_init(&arena, 32768);
    enum err e = asset_load_any(policy, h->name, &arena, &a, &why);
    if (e == OK && (e = holding_set(h, policy->storage, &a, why.text, sizeof why.text)) == OK) {
        read_ari(h, &a);
        (void)!staple_refresh(h, policy, false);
    } else if (load_pending(h, policy->storage, &arena)) {
        e = ERR_EXISTS;
        *kind = JOB_REPAIR;
    }
    if (e != OK && e != ERR_NOT_FOUND && e != ERR_EXISTS) {
        *kind = e == ERR_INVALID ? JOB_REPAIR : JOB_OBTAIN;
        LOG(LOG_ERROR, "tls", "initiating certificate management", LOG_STR("subject", h->name),
            LOG_CSTR("error", why.text));
    }
    arena_deinit(&arena);
    return e == OK;
}

static void adopt_name(const struct automation *a, struct slice name)
{
    enum job_kind kind;
    const struct automation_policy *policy = automation_find(a, name);
    if (policy == NULL || policy->on_demand)
        return;
    if (map_get(a->forced, name) == NULL && is_covered(a, name))
        return;
    struct holding *h = holding_find(name);
    if (h == NULL)
        h = holding_new(name);
    manager.demand_count -= h->demand;
    h->wanted = true;
    h->demand = h->dozing = false;
    if (h->job != NULL)
        job_review(h->job);
    bool fits = still_fits(h, policy);
    if (!fits && h->credential != NULL) {
        credential_unref(h->credential);
        h->credential = NULL;
        h->ari = (struct renewal_info){0};
        publish_soon();
    }
    h->internal = automation_is_internal(policy);
    if (!fits && !load(h, policy, &kind))
        job_begin(h, kind, false);
}

static void drop_manuals(void)
{
    struct list *node;
    while ((node = list_pop(&manager.manuals)) != NULL)
        free_holding(CONTAINER_OF(node, struct holding, node));
    manager.manual_count = 0;
}

static void warn_of_age(const struct holding *h)
{
    const struct certificate_facts *f = credential_facts(h->credential);
    int64_t left = f->not_after_s - cert_now_s();
    if (left < 0)
        LOG(LOG_WARN, "tls", "unmanaged certificate has expired",
            LOG_LIST("sans", f->names, f->names_count));
    else if (left < 24 * 3600)
        LOG(LOG_WARN, "tls", "unmanaged certificate expires within 1 day",
            LOG_LIST("sans", f->names, f->names_count));
}

static void adopt_manuals(const struct automation *a)
{
    drop_manuals();
    for (size_t i = 0; a != NULL && i < a->manual_count; i++) {
        struct holding *h = NEW(struct holding);
        const struct certificate_facts *f = credential_facts(a->manual[i]);
        struct slice name = f->names_count > 0 ? f->names[0] : SLICE_NONE;
        h->name = slice_of(slice_dup(name), name.len);
        h->credential = credential_ref(a->manual[i]);
        h->storage = a->storage;
        h->manual = true;
        list_append(&manager.manuals, &h->node);
        manager.manual_count++;
        warn_of_age(h);
        if (!a->manual_no_stapling)
            (void)!staple_refresh(h, NULL, false);
    }
}

/* Names that nobody wants any more; those of handshakes stay while handshakes may ask for them. */
static void drop_unwanted(const struct automation *a)
{
    LIST_FOR_SAFE(it, &manager.holdings)
    {
        struct holding *h = CONTAINER_OF(it, struct holding, node);
        const struct automation_policy *policy = a != NULL && h->demand ? automation_find(a, h->name)
                                                                        : NULL;
        bool keep = policy != NULL && policy->on_demand && still_fits(h, policy);
        if (h->wanted || keep)
            continue;
        holding_drop(h);
    }
}

void manager_adopt(const struct automation *a, void (*let_go)(void *owner), void *owner)
{
    struct pin *old = manager.pin;
    manager.pin = NULL;
    if (a != NULL && old == NULL)
        LOG(LOG_INFO, "tls.cache.maintenance", "started background certificate maintenance");
    if (a == NULL && old != NULL)
        LOG(LOG_INFO, "tls.cache.maintenance", "stopped background certificate maintenance");
    if (a != NULL) {
        manager.pin = NEW(struct pin);
        *manager.pin = (struct pin){.automation = a, .let_go = let_go, .owner = owner, .refs = 1};
    }
    LIST_FOR(it, &manager.holdings)
        CONTAINER_OF(it, struct holding, node)->wanted = false;
    adopt_manuals(a);
    for (size_t i = 0; a != NULL && i < a->names_count; i++)
        adopt_name(a, a->names[i]);
    drop_unwanted(a);
    publish();
    demand_start();
    leftovers_finish();
    upkeep_start();
    clean_start();
    pin_release(old);
}

/* --- the beginning and the end --- */

void manager_start(struct loop *control)
{
    manager.loop = control;
    list_init(&manager.holdings);
    list_init(&manager.manuals);
    list_init(&manager.running);
    map_init(&manager.by_name, false);
    timer_init(&manager.publish_timer, on_publish);
    manager.stopping = false;
    manager.stopped = NULL;
    test_clock_start();
}

static void on_stopped(struct task *t)
{
    (void)t;
    if (manager.runs > 0)
        return; /* letting go of jobs needed some more */
    jobs_stop();
    LIST_FOR_SAFE(it, &manager.holdings)
        holding_drop(CONTAINER_OF(it, struct holding, node));
    drop_manuals();
    map_deinit(&manager.by_name);
    struct pin *p = manager.pin;
    manager.pin = NULL;
    if (p != NULL && p->let_go != NULL)
        p->let_go(p->owner);
    mem_free(p);
    manager.stopped();
}

static void finish_stop(void)
{
    static struct task task;
    task.run = on_stopped;
    loop_defer(manager.loop, &task);
}

void manager_stop(void (*stopped)(void))
{
    manager.stopping = true;
    manager.stopped = stopped;
    test_clock_stop();
    timer_stop(&manager.publish_timer);
    demand_stop();
    upkeep_stop();
    clean_stop();
    LIST_FOR(it, &manager.running)
        fiber_cancel(CONTAINER_OF(it, struct run, node)->fiber, ERR_CANCELLED);
    if (manager.runs == 0)
        finish_stop();
}
