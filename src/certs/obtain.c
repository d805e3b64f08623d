/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One try to have a good certificate for a name: under the name's lock, look whether somebody else has
 * got it meanwhile, else make a key and a request, ask the issuers in turn, and put what comes into
 * its place. What has begun is kept in the storage (certs/pending.h), so that a crash repeats nothing;
 * what cannot be stored is served from memory, and stored at the next try.
 */
#include <stdio.h>
#include <strings.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "certs/large_stack.h"
#include "certs/manager_parts.h"
#include "certs/pending.h"

#define LOCK_WAIT_NS (600 * NS_PER_S)
#define STORAGE_CHECK_NS (60 * NS_PER_S)

enum { CSR_MAX = 65536, KEY_PEM_MAX = 16384, STORAGE_CHECK_LEN = 10240 };

struct attempt {
    struct job *job;
    const struct automation *a;
    const struct automation_policy *policy;
    struct storage *storage;
    struct slice name;
    struct arena arena;
    bool renewal;
    struct asset old;   /* of a renewal */
    struct slice ari_id;
    struct pending begun;
    struct asset fresh;
    struct storage_why why;
};

static const char *logger_of(const struct attempt *t)
{
    return t->renewal ? "tls.renew" : "tls.obtain";
}

static enum job_result retry(struct attempt *t, const char *doing)
{
    snprintf(t->job->why, sizeof t->job->why, "[" SLICE_FMT "] %s: %s%s%s", SLICE_ARG(t->name),
             t->renewal ? "Renew" : "Obtain", doing, doing[0] != '\0' && t->why.text[0] != '\0' ? ": " : "",
             t->why.text);
    return JOB_RETRY;
}

/* --- the storage --- */

/* Writing and reading back, so that no certificate is asked for that cannot be kept. */
static enum err check_storage(struct attempt *t)
{
    static struct storage *checked;
    static uint64_t checked_ns;
    struct storage *s = t->storage;
    struct slice got;
    uint64_t number = 0;
    if (t->a->no_storage_check ||
        (s == checked && clock_mono_ns() - checked_ns < STORAGE_CHECK_NS))
        return OK;
    char *bytes = arena_alloc(&t->arena, STORAGE_CHECK_LEN);
    (void)!getrandom(&number, sizeof number, GRND_NONBLOCK);
    (void)!getrandom(bytes, STORAGE_CHECK_LEN, GRND_NONBLOCK);
    struct slice want = slice_of(bytes, STORAGE_CHECK_LEN);
    struct slice key = arena_printf(&t->arena, "rw_test_%llu", (unsigned long long)(number >> 1));
    TRY(s->type->store(s, key, want, &t->why));
    enum err e = s->type->load(s, key, &t->arena, &got, &t->why);
    if (e == OK && !slice_eq(want, got)) {
        snprintf(t->why.text, sizeof t->why.text, "load yielded different value than was stored");
        e = ERR_IO;
    }
    struct storage_why ignored;
    (void)!s->type->remove(s, key, &ignored);
    if (e == OK) {
        checked = s;
        checked_ns = clock_mono_ns();
    }
    return e;
}

static enum err take_lock(struct attempt *t)
{
    struct job *job = t->job;
    if (job->locked)
        return OK;
    if (job->lock_name.ptr == NULL) {
        struct slice lock = arena_printf(&t->arena, "issue_cert_" SLICE_FMT, SLICE_ARG(t->name));
        job->lock_name = slice_of(slice_dup(lock), lock.len);
        LOG(LOG_INFO, logger_of(t), "acquiring lock", LOG_STR("identifier", t->name));
    }
    TRY(t->storage->type->lock(t->storage, job->lock_name, clock_mono_ns() + LOCK_WAIT_NS, &t->why));
    job->locked = true;
    job->lock_storage = t->storage;
    LOG(LOG_INFO, logger_of(t), "lock acquired", LOG_STR("identifier", t->name));
    return OK;
}

struct reading {
    struct renewal_info info;
    struct slice chain;
    struct arena *arena;
    struct certificate_facts facts;
    enum err e;
};

static void read_asset(void *arg)
{
    char why[256];
    struct reading *r = arg;
    r->e = certificate_read(r->chain, r->arena, &r->facts, why, sizeof why);
}

/* Whether an asset is a certificate, and due. */
static enum err look_at(struct attempt *t, const struct asset *a, struct reading *r, bool *due)
{
    *r = (struct reading){.chain = a->chain_pem, .arena = &t->arena};
    renewal_read(a->issuer_data, &r->info);
    on_large_stack(read_asset, r);
    TRY(r->e);
    struct renewal_span span = {r->facts.not_before_s, r->facts.not_after_s};
    *due = renewal_due(span, &r->info, t->policy->renewal_ratio,
                       (int64_t)(t->a->renew_interval_ns / NS_PER_S),
                       cert_now_s()) != RENEWAL_NOT_YET;
    return OK;
}

/* One that must have a staple is not shown before it has been asked for; what was there is. */
static void staple(struct attempt *t, struct credential *before)
{
    struct holding *h = t->job->holding;
    h->stapling = t->policy->must_staple;
    h->shown = h->stapling ? before : NULL;
    if (!h->stapling)
        credential_unref(before);
    bool changed = staple_refresh(h, t->policy, true);
    h = holding_find(t->name); /* it may have gone, or have another job by now */
    if (h == NULL)
        return;
    if (changed || h->stapling)
        publish_soon();
    h->stapling = false;
    credential_unref(h->shown);
    h->shown = NULL;
}

/* Into memory, with its staple, and before the handshakes. */
static enum job_result serve(struct attempt *t, const struct asset *a)
{
    struct reading r;
    bool due;
    struct holding *h = t->job->holding;
    enum err e = h != NULL ? look_at(t, a, &r, &due) : ERR_CANCELLED;
    if (e == OK && t->job->holding == NULL)
        e = ERR_CANCELLED;
    struct credential *before = e == OK && h->credential != NULL ? credential_ref(h->credential) : NULL;
    if (e == OK)
        e = holding_set(t->job->holding, t->storage, a, t->why.text, sizeof t->why.text);
    if (e == ERR_INVALID)
        t->job->kind = JOB_REPAIR;
    if (e != OK) {
        credential_unref(before);
        return retry(t, "loading the certificate");
    }
    h = t->job->holding;
    h->ari = r.info;
    h->internal = automation_is_internal(t->policy);
    staple(t, before);
    return JOB_DONE;
}

static enum job_result serve_stored(struct attempt *t)
{
    struct asset a;
    enum err e = asset_load_any(t->policy, t->name, &t->arena, &a, &t->why);
    if (e != OK)
        return retry(t, "loading the certificate");
    enum job_result result = serve(t, &a);
    return result == JOB_RETRY && t->job->kind == JOB_REPAIR ? JOB_LATER : result;
}

/* --- putting it into its place --- */

void obtain_forget(struct job *job)
{
    struct asset *a = &job->unsaved;
    if (a->key_pem.ptr != NULL)
        explicit_bzero((void *)(uintptr_t)a->key_pem.ptr, a->key_pem.len);
    mem_free((void *)(uintptr_t)a->key_pem.ptr);
    mem_free((void *)(uintptr_t)a->chain_pem.ptr);
    mem_free((void *)(uintptr_t)a->issuer_data.ptr);
    mem_free((void *)(uintptr_t)a->issuer_key.ptr);
    *a = (struct asset){.chain_pem = SLICE_NONE};
}

static struct slice keep(struct slice s)
{
    return slice_of(slice_dup(s), s.len);
}

static void remember(struct job *job, const struct asset *a)
{
    if (a == &job->unsaved)
        return;
    obtain_forget(job);
    job->unsaved = (struct asset){.chain_pem = keep(a->chain_pem), .key_pem = keep(a->key_pem),
                                  .issuer_data = keep(a->issuer_data),
                                  .issuer_key = keep(a->issuer_key)};
}

static enum job_result put(struct attempt *t, const struct asset *a)
{
    enum err e = asset_store(t->storage, t->name, a, &t->why);
    if (e != OK) {
        struct storage_why why = t->why;
        remember(t->job, a);
        (void)!serve(t, a);
        t->why = why;
        return retry(t, "saving assets");
    }
    pending_end(t->storage, t->name);
    enum job_result result = serve(t, a);
    obtain_forget(t->job);
    return result;
}

/* --- what there is already --- */

/* An answer that came before a crash. */
static bool finish_begun(struct attempt *t, enum job_result *result)
{
    struct reading r;
    bool due;
    struct asset *issued = &t->begun.issued;
    pending_load(t->storage, t->name, &t->arena, &t->begun);
    if (issued->chain_pem.len == 0 || t->job->kind >= JOB_REPLACE)
        return false;
    if (look_at(t, issued, &r, &due) != OK || due)
        return false;
    LOG(LOG_INFO, logger_of(t), "certificate was issued before; storing it",
        LOG_STR("identifier", t->name), LOG_STR("issuer", issued->issuer_key));
    *result = put(t, issued);
    return true;
}

/* The certificate is good: a note is of no use, but where a replacement may be waiting for us. */
static void end_note(struct attempt *t)
{
    if (t->begun.noted.len == 0 || t->begun.issued.chain_pem.len > 0)
        pending_end(t->storage, t->name);
}

static int64_t left_ns(const struct reading *r)
{
    return (r->facts.not_after_s + 1) * (int64_t)NS_PER_S - clock_wall_ns();
}

/* True: nothing is to be asked for. */
static bool is_there(struct attempt *t, enum job_result *result)
{
    struct reading r;
    bool due;
    if (t->job->kind == JOB_ANEW || t->job->kind == JOB_REPAIR) {
        t->renewal = false;
        return false;
    }
    enum err e = asset_load_any(t->policy, t->name, &t->arena, &t->old, &t->why);
    t->why.text[0] = '\0';
    if (e != OK || look_at(t, &t->old, &r, &due) != OK) {
        t->renewal = false;
        t->old = (struct asset){.chain_pem = SLICE_NONE};
        return false;
    }
    t->ari_id = r.facts.ari_id;
    if (t->job->kind == JOB_OBTAIN && !due) {
        LOG(LOG_INFO, "tls.obtain", "certificate already exists in storage",
            LOG_STR("identifier", t->name));
        end_note(t);
        *result = serve(t, &t->old);
        return *result == JOB_DONE || t->job->kind != JOB_REPAIR;
    }
    t->renewal = true;
    if (!due && t->job->kind == JOB_RENEW) {
        LOG(LOG_INFO, "tls.renew", "certificate appears to have been renewed already",
            LOG_STR("identifier", t->name), LOG_DUR("remaining", left_ns(&r)));
        end_note(t);
        *result = serve(t, &t->old);
        return true;
    }
    if (!due)
        LOG(LOG_INFO, "tls.renew", "certificate does not need to be renewed, but renewal is being "
            "forced", LOG_STR("identifier", t->name), LOG_DUR("remaining", left_ns(&r)));
    LOG(LOG_INFO, "tls.renew", "renewing certificate", LOG_STR("identifier", t->name),
        LOG_DUR("remaining", left_ns(&r)));
    return false;
}

/* --- key and request --- */

struct making {
    enum key_type type;
    struct slice old_key; /* to be used again; empty: none */
    struct slice name;
    bool must_staple;
    struct evp_pkey_st *key;
    struct buffer pem, der;
    char why[256];
    enum err e;
};

static void read_key(void *arg)
{
    struct making *m = arg;
    m->e = key_from_pem(m->old_key, &m->key, m->why, sizeof m->why);
}

static void make_request(void *arg)
{
    struct making *m = arg;
    m->e = key_put_pem(&m->pem, m->key);
    if (m->e == OK)
        m->e = csr_make(m->key, &m->name, 1, m->must_staple, &m->der);
}

static enum err make(struct making *m)
{
    if (m->old_key.len > 0)
        on_large_stack(read_key, m);
    else
        m->e = key_generate(m->type, &m->key);
    TRY(m->e);
    on_large_stack(make_request, m);
    return m->e;
}

/* The key that is to be used again; *first: the issuer that had it, to be asked first. */
static struct slice old_key(struct attempt *t, size_t *first)
{
    struct slice key;
    *first = 0;
    if (!t->policy->reuse_private_keys || t->job->kind == JOB_ANEW || t->job->kind == JOB_REPAIR)
        return SLICE_NONE;
    if (t->renewal)
        return t->old.key_pem;
    for (size_t i = 0; i < t->policy->issuers_count; i++) {
        struct slice at = asset_key(&t->arena, t->policy->issuers[i].key, t->name, ".key");
        if (t->storage->type->load(t->storage, at, &t->arena, &key, &t->why) == OK) {
            *first = i;
            return key;
        }
    }
    return SLICE_NONE;
}

static struct slice kind_of(struct attempt *t)
{
    return arena_printf(&t->arena, "%d%s", (int)t->policy->key_type,
                        t->policy->must_staple ? " staple" : "");
}

static enum err prepare(struct attempt *t, size_t *first)
{
    struct making m = {.type = t->policy->key_type, .name = t->name,
                       .must_staple = t->policy->must_staple};
    struct slice kind = kind_of(t);
    m.old_key = old_key(t, first);
    if (m.old_key.len == 0 && t->begun.csr_der.len > 0 && t->begun.issued.chain_pem.len == 0 &&
        slice_eq(t->begun.kind, kind) && t->job->kind != JOB_ANEW)
        return OK; /* as it was begun before */
    buffer_init(&m.pem, KEY_PEM_MAX);
    buffer_init(&m.der, CSR_MAX);
    enum err e = make(&m);
    if (e == OK) {
        t->begun = (struct pending){.kind = kind,
                                    .key_pem = arena_copy(&t->arena, buffer_slice(&m.pem)),
                                    .csr_der = arena_copy(&t->arena, buffer_slice(&m.der))};
    } else {
        snprintf(t->why.text, sizeof t->why.text, "%s", m.why[0] != '\0' ? m.why : err_text(e));
    }
    key_free(m.key);
    key_wipe(&m.pem);
    buffer_deinit(&m.der);
    if (e == OK && !automation_is_internal(t->policy)) {
        pending_end(t->storage, t->name); /* parts of an older one */
        e = pending_begin(t->storage, t->name, &t->begun, &t->why);
    }
    return e;
}

/* --- asking --- */

struct noting {
    struct attempt *attempt;
    const struct issuer *issuer;
};

static void note(void *arg, struct slice where)
{
    const struct noting *n = arg;
    if (!automation_is_internal(n->attempt->policy))
        pending_note(n->attempt->storage, n->attempt->name, n->issuer->key, where);
}

static enum err ask(struct attempt *t, const struct issuer *issuer, struct issue_result *result)
{
    struct noting noting = {t, issuer};
    struct issue_request request = {.names = &t->name, .names_count = 1,
                                    .csr_der = t->begun.csr_der, .storage = t->storage,
                                    .interactive = t->job->for_handshake,
                                    .attempt = t->job->attempts,
                                    .note = note, .note_arg = &noting};
    if (slice_eq(t->begun.noted_for, issuer->key))
        request.noted = t->begun.noted;
    if (t->renewal && slice_eq(t->old.issuer_key, issuer->key))
        request.replaces = t->ari_id;
    const char *refused = issuer->type->refuses != NULL ? issuer->type->refuses(issuer->cfg, t->name)
                                                        : NULL;
    if (refused != NULL) {
        snprintf(result->why, sizeof result->why, "%s", refused);
        return ERR_DENIED;
    }
    return issuer->type->issue(issuer->cfg, &request, &t->arena, result);
}

/* The window that the authority suggests for what it has just issued. */
static struct slice with_window(struct attempt *t, const struct issuer *issuer,
                                const struct issue_result *issued)
{
    struct renewal_window w = {0};
    struct asset a = {.chain_pem = issued->chain_pem, .issuer_data = issued->metadata};
    struct reading r;
    bool due;
    if (issuer->type->window == NULL || look_at(t, &a, &r, &due) != OK || r.facts.ari_id.len == 0 ||
        renewal_has_window(&r.info))
        return issued->metadata;
    if (issuer->type->window(issuer->cfg, r.facts.ari_id, t->storage, &t->arena, &w) != OK ||
        w.start_s == 0 || w.end_s <= w.start_s)
        return issued->metadata;
    renewal_update(&r.info, &w, cert_now_s());
    return renewal_put(issued->metadata, &r.info, r.facts.ari_id, w.explanation_url, &t->arena);
}

static enum err ask_all(struct attempt *t, size_t first)
{
    enum err e = ERR_INVALID;
    size_t n = t->policy->issuers_count;
    for (size_t i = 0; i < n; i++) {
        /* `first` before the others, those in their order */
        const struct issuer *issuer = &t->policy->issuers[i == 0 ? first : i <= first ? i - 1 : i];
        struct issue_result *result = ARENA_NEW(&t->arena, struct issue_result);
        LOG(LOG_DEBUG, logger_of(t), "trying issuer", LOG_STR("issuer", issuer->key),
            LOG_NUM("number", (int64_t)i + 1), LOG_NUM("of", (int64_t)n));
        e = ask(t, issuer, result);
        if (e == OK) {
            t->fresh = (struct asset){.chain_pem = result->chain_pem, .key_pem = t->begun.key_pem,
                                      .issuer_key = issuer->key,
                                      .issuer_data = with_window(t, issuer, result)};
            return OK;
        }
        if (t->job->cancelled || e == ERR_CANCELLED)
            return ERR_CANCELLED;
        const char *why = result->why[0] != '\0' ? result->why : err_text(e);
        snprintf(t->why.text, sizeof t->why.text, "%.*s", (int)sizeof t->why.text - 1, why);
        if (result->retry_after_ns > t->job->retry_after_ns)
            t->job->retry_after_ns = result->retry_after_ns;
        LOG(LOG_ERROR, logger_of(t), "could not get certificate from issuer",
            LOG_STR("identifier", t->name), LOG_STR("issuer", issuer->key), LOG_CSTR("error", why));
    }
    return e;
}

static enum job_result issue(struct attempt *t)
{
    size_t first;
    if (!t->renewal)
        LOG(LOG_INFO, "tls.obtain", "obtaining certificate", LOG_STR("identifier", t->name));
    if (prepare(t, &first) != OK)
        return retry(t, "preparing the request");
    if (ask_all(t, first) != OK)
        return retry(t, "");
    struct storage_why ignored;
    if (!automation_is_internal(t->policy))
        (void)!pending_issued(t->storage, t->name, &t->fresh, &ignored);
    enum job_result result = put(t, &t->fresh);
    if (result != JOB_RETRY) {
        struct slice issuer = t->fresh.issuer_key;
        if (t->renewal)
            LOG(LOG_INFO, "tls.renew", "certificate renewed successfully",
                LOG_STR("identifier", t->name), LOG_STR("issuer", issuer));
        else
            LOG(LOG_INFO, "tls.obtain", "certificate obtained successfully",
                LOG_STR("identifier", t->name), LOG_STR("issuer", issuer));
    }
    return result;
}

static enum job_result go(struct attempt *t)
{
    enum job_result result;
    if (t->job->kind == JOB_OBTAIN && !t->job->locked && t->job->unsaved.chain_pem.len == 0 &&
        asset_exists_any(t->policy, t->name))
        return serve_stored(t);
    if (check_storage(t) != OK)
        return retry(t, "failed storage check, storage is probably misconfigured");
    enum err e = take_lock(t);
    if (e == ERR_TIMEOUT)
        return JOB_LATER;
    if (e != OK)
        return retry(t, "unable to acquire lock");
    if (t->job->unsaved.chain_pem.len > 0)
        return put(t, &t->job->unsaved);
    if (finish_begun(t, &result) || is_there(t, &result))
        return result;
    return issue(t);
}

enum job_result obtain_try(struct job *job, const struct automation *a,
                           const struct automation_policy *policy)
{
    struct attempt *t = NEW(struct attempt);
    *t = (struct attempt){.job = job, .a = a, .policy = policy, .storage = policy->storage,
                          .name = job->name, .renewal = job->kind != JOB_OBTAIN};
    arena_init(&t->arena, 16384);
    enum job_result result = go(t);
    if (t->begun.key_pem.ptr != NULL)
        explicit_bzero((void *)(uintptr_t)t->begun.key_pem.ptr, t->begun.key_pem.len);
    arena_deinit(&t->arena);
    mem_free(t);
    return result;
}
