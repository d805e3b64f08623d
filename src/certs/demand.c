/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handshakes that found no certificate ask here. In certmagic's order: what has come meanwhile,
 * somebody else's managers, the permission, the storage, an issuer. Handshakes for one name are one
 * question; a name that was refused, or could not be had, is remembered for a moment, so that a
 * flood of handshakes is not a flood of questions. Questions, handshakes that wait, what is
 * remembered and what is kept in memory all have their limits.
 */
#include <stdio.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "certs/bundle.h"
#include "certs/large_stack.h"
#include "certs/manager_parts.h"
#include "pki/subject.h"

#define OBTAIN_WAIT_NS (180 * NS_PER_S)
#define RENEW_WAIT_NS (90 * NS_PER_S)
#define REFUSED_NS (5 * NS_PER_S)
#define FAILED_NS (30 * NS_PER_S)
#define FAILED_MAX_NS (600 * NS_PER_S)

enum { QUESTIONS_MAX = 512, ASKS_MAX = 8192, REFUSALS_MAX = 4096 };

struct asking { /* one handshake */
    struct list node;
    struct mail mail;
    struct credential_ask *ask;
    enum err result;
};

struct question { /* one name that handshakes ask for */
    struct slice name;
    char text[256];
    struct list askings;
    struct credential *given;
    struct arena arena;
    char why[1024];
};

struct refusal {
    struct list node; /* the oldest first */
    struct slice name;
    char text[256];
    uint64_t until_ns, failed_ns; /* failed: how long the last wait was */
    enum err e;
};

static struct {
    bool begun;
    struct map questions, refusals;
    struct list refused, to_tell; /* told when it is published */
    size_t asks;
} demand;

/* --- answers --- */

static void answer(struct asking *a, enum err result)
{
    struct credential_ask *ask = a->ask;
    demand.asks--;
    ask->result = result;
    mem_free(a);
    mailbox_post(ask->from, ask->answer);
}

static void answer_all(struct list *askings, enum err result)
{
    struct list *node;
    while ((node = list_pop(askings)) != NULL)
        answer(CONTAINER_OF(node, struct asking, node), result);
}

void demand_told(void)
{
    if (demand.begun)
        answer_all(&demand.to_tell, OK);
}

/* Answered now, or when what is waiting to be published is. */
static void answer_published(struct list *askings)
{
    struct list *node;
    while ((node = list_pop(askings)) != NULL)
        list_append(&demand.to_tell, node);
    if (!manager.publish_due)
        demand_told();
}

/* --- refusals --- */

static void forget(struct refusal *r)
{
    map_remove(&demand.refusals, r->name);
    list_remove(&r->node);
    mem_free(r);
}

static struct refusal *find_refusal(struct slice name)
{
    struct refusal *r = map_get(&demand.refusals, name);
    return r != NULL && clock_mono_ns() < r->until_ns ? r : NULL;
}

static void remember(struct slice name, enum err e)
{
    struct refusal *r = map_get(&demand.refusals, name);
    if (r == NULL) {
        if (demand.refusals.count >= REFUSALS_MAX)
            forget(CONTAINER_OF(demand.refused.next, struct refusal, node));
        r = NEW(struct refusal);
        memcpy(r->text, name.ptr, name.len);
        r->name = slice_of(r->text, name.len);
        map_put(&demand.refusals, r->name, r);
    } else {
        list_remove(&r->node);
    }
    list_append(&demand.refused, &r->node);
    r->e = e;
    if (e == ERR_DENIED) {
        r->until_ns = clock_mono_ns() + REFUSED_NS;
        return;
    }
    r->failed_ns = r->failed_ns == 0 ? FAILED_NS : r->failed_ns * 2;
    if (r->failed_ns > FAILED_MAX_NS)
        r->failed_ns = FAILED_MAX_NS;
    r->until_ns = clock_mono_ns() + r->failed_ns;
}

static void forget_name(struct slice name)
{
    struct refusal *r = map_get(&demand.refusals, name);
    if (r != NULL)
        forget(r);
}

/* --- what there is --- */

/* Room for one more that came through a handshake: another one of those goes, any. */
static void make_room(const struct automation *a)
{
    uint32_t r = 0;
    if (manager.demand_count < a->capacity)
        return;
    (void)!getrandom(&r, sizeof r, GRND_NONBLOCK);
    size_t skip = r % manager.demand_count;
    LIST_FOR_SAFE(it, &manager.holdings)
    {
        struct holding *h = CONTAINER_OF(it, struct holding, node);
        if (!h->demand || h->job != NULL || skip-- > 0)
            continue;
        holding_drop(h);
        return;
    }
}

static struct holding *hold(struct slice name, const struct automation *a)
{
    struct holding *h = holding_find(name);
    if (h != NULL)
        return h;
    make_room(a);
    h = holding_new(name);
    h->demand = true;
    manager.demand_count++;
    return h;
}

/* One that has no certificate in the end. */
static void let_go(struct slice name)
{
    struct holding *h = holding_find(name);
    if (h == NULL || !h->demand || h->credential != NULL || h->job != NULL)
        return;
    holding_drop(h);
}

static enum err await_job(struct holding *h, enum job_kind kind, uint64_t wait_ns, struct question *q)
{
    struct job *job = job_begin(h, kind, true);
    return job_await(job, clock_mono_ns() + wait_ns, q->why, sizeof q->why);
}

/* A certificate that we have: renewed if that is due, behind the handshakes' backs where it still
 * may be used. */
static enum err keep_good(struct question *q, struct holding *h, const struct automation_policy *policy)
{
    bool revoked = h->has_ocsp && h->ocsp.status == OCSP_REVOKED;
    if (h->wanted)
        return OK;
    if (h->dozing) {
        h->dozing = false;
        publish_soon();
    }
    if (!revoked && holding_due(h, policy) == RENEWAL_NOT_YET)
        return OK;
    enum job_kind kind = !revoked                                       ? JOB_RENEW
                         : h->ocsp.reason == OCSP_REASON_KEY_COMPROMISE ? JOB_ANEW
                                                                        : JOB_REPLACE;
    if (revoked || holding_expired(h)) {
        enum err e = await_job(h, kind, RENEW_WAIT_NS, q);
        h = holding_find(q->name);
        if (e != OK && h != NULL && h->demand) {
            h->dozing = true; /* not to be served */
            publish_soon();
        }
        return e;
    }
    LOG(LOG_INFO, "tls.on_demand", "attempting certificate renewal", LOG_STR("server_name", q->name));
    job_begin(h, kind, true);
    return OK;
}

/* --- the steps --- */

struct making {
    struct credential_spec spec;
    struct credential *credential;
    char *why;
    size_t cap;
    enum err e;
};

static void create(void *arg)
{
    struct making *m = arg;
    m->e = credential_create(&m->spec, &m->credential, m->why, m->cap);
}

static enum err from_bundle(struct question *q, struct slice pem)
{
    const char *why = "";
    struct making m = {.why = q->why, .cap = sizeof q->why};
    if (bundle_split(pem, &q->arena, &m.spec.chain_pem, &m.spec.key_pem, &why) != OK) {
        snprintf(q->why, sizeof q->why, "%s", why);
        return ERR_INVALID;
    }
    on_large_stack(create, &m);
    q->given = m.credential;
    return m.e;
}

/* ERR_NOT_FOUND: nobody else looks after it. */
static enum err ask_getters(struct question *q, const struct automation_policy *policy)
{
    enum err e = ERR_NOT_FOUND;
    const struct credential_ask *ask = CONTAINER_OF(q->askings.next, struct asking, node)->ask;
    for (size_t i = 0; i < policy->getters_count; i++) {
        struct slice pem;
        e = policy->getters[i].type->get(policy->getters[i].cfg, ask, &q->arena, &pem, q->why,
                                         sizeof q->why);
        if (e == OK)
            e = from_bundle(q, pem);
        if (e == OK)
            return OK;
        if (e != ERR_NOT_FOUND)
            LOG(LOG_ERROR, "tls.handshake", "external certificate manager", LOG_STR("sni", q->name),
                LOG_NUM("cert_manager_idx", (int64_t)i), LOG_CSTR("error", q->why));
    }
    return e;
}

static enum err ask_permission(struct question *q, const struct automation *a)
{
    const struct credential_ask *ask = CONTAINER_OF(q->askings.next, struct asking, node)->ask;
    struct slice remote = arena_copy(&q->arena, slice_from(ask->remote));
    if (a->permission == NULL)
        return OK;
    LOG(LOG_DEBUG, "tls", "asking for permission for on-demand certificate",
        LOG_STR("remote_ip", remote), LOG_STR("domain", q->name));
    enum err e = a->permission->allows(a->permission_cfg, q->name, remote, q->why, sizeof q->why);
    if (e == ERR_DENIED)
        LOG(LOG_DEBUG, "tls", "on-demand certificate issuance denied", LOG_STR("domain", q->name),
            LOG_CSTR("error", q->why));
    else if (e != OK)
        LOG(LOG_ERROR, "tls", "failed to get permission for on-demand certificate",
            LOG_STR("domain", q->name), LOG_CSTR("error", q->why));
    return e;
}

static enum err load_stored(struct question *q, struct slice name, const struct automation *a,
                            const struct automation_policy *policy)
{
    struct asset asset;
    struct renewal_info info;
    struct storage_why why = {""};
    TRY(asset_load_any(policy, name, &q->arena, &asset, &why));
    renewal_read(asset.issuer_data, &info);
    struct holding *h = hold(name, a);
    enum err e = h->credential == NULL ? holding_set(h, policy->storage, &asset, q->why, sizeof q->why)
                                       : OK;
    h = holding_find(name);
    if (e != OK || h == NULL) {
        let_go(name);
        return e != OK ? e : ERR_NOT_FOUND;
    }
    h->ari = info;
    h->internal = automation_is_internal(policy);
    if (staple_refresh(h, policy, false))
        publish_soon();
    return OK;
}

static enum err load_any_stored(struct question *q, const struct automation *a,
                                const struct automation_policy *policy, struct slice *found)
{
    size_t dot = slice_find(q->name, '.');
    *found = q->name;
    enum err e = load_stored(q, q->name, a, policy);
    if (e != ERR_NOT_FOUND || dot == SIZE_MAX)
        return e;
    *found = arena_printf(&q->arena, "*" SLICE_FMT, SLICE_ARG(slice_skip(q->name, dot)));
    return load_stored(q, *found, a, policy);
}

static enum err obtain(struct question *q, const struct automation *a)
{
    struct holding *h = hold(q->name, a);
    LOG(LOG_INFO, "tls.on_demand", "obtaining new certificate", LOG_STR("server_name", q->name));
    return await_job(h, JOB_OBTAIN, OBTAIN_WAIT_NS, q);
}

/* What we have for a name that may have none any more goes; it stays while nobody can say. */
static enum err without_permission(struct holding *h, enum err e)
{
    if (h == NULL || !h->demand || h->job != NULL)
        return e;
    if (e == ERR_DENIED) {
        holding_drop(h);
        return e;
    }
    if (e == ERR_CANCELLED || holding_expired(h))
        return e;
    h->dozing = false;
    publish_soon();
    return OK;
}

static enum err find(struct question *q, const struct automation *a,
                     const struct automation_policy *policy)
{
    struct slice found;
    enum err e = ask_getters(q, policy);
    if (e != ERR_NOT_FOUND)
        return e;
    if (policy->getters_only || !subject_qualifies(q->name)) {
        snprintf(q->why, sizeof q->why, "no permission module configured; certificates not allowed "
                 "except from external managers");
        return ERR_DENIED;
    }
    e = ask_permission(q, a);
    struct holding *h = holding_serving(q->name);
    if (e != OK)
        return without_permission(h, e);
    if (h != NULL)
        return keep_good(q, h, policy);
    e = load_any_stored(q, a, policy, &found);
    h = e == OK ? holding_find(found) : NULL;
    if (h != NULL && h->credential != NULL)
        return keep_good(q, h, policy);
    return obtain(q, a);
}

/* --- questions --- */

static void conclude(struct question *q, enum err e)
{
    map_remove(&demand.questions, q->name);
    if (e == OK && q->given != NULL) {
        LIST_FOR(it, &q->askings)
            CONTAINER_OF(it, struct asking, node)->ask->given = credential_ref(q->given);
        answer_all(&q->askings, OK);
    } else if (e == OK) {
        forget_name(q->name);
        answer_published(&q->askings);
    } else {
        if (e != ERR_CANCELLED)
            remember(q->name, e);
        LOG(LOG_DEBUG, "tls.handshake", "no certificate for this handshake",
            LOG_STR("server_name", q->name), LOG_CSTR("error", q->why));
        answer_all(&q->askings, e);
    }
    credential_unref(q->given);
    arena_deinit(&q->arena);
    mem_free(q);
}

static const struct automation_policy *policy_of(struct slice name)
{
    const struct automation_policy *policy = manager.pin != NULL
                                                 ? automation_find(manager.pin->automation, name)
                                                 : NULL;
    return policy != NULL && policy->on_demand ? policy : NULL;
}

/* A configuration has come meanwhile that gives nobody anything on demand. */
static void drop_forsaken(struct slice name)
{
    struct holding *h = holding_find(name);
    if (h != NULL && h->demand && h->job == NULL && policy_of(name) == NULL)
        holding_drop(h);
}

static void work(void *arg)
{
    struct question *q = arg;
    struct pin *pin = pin_hold();
    enum err e = ERR_NOT_FOUND;
    const struct automation_policy *policy = pin != NULL ? automation_find(pin->automation, q->name)
                                                         : NULL;
    if (policy != NULL && policy->on_demand && !manager.stopping)
        e = find(q, pin->automation, policy);
    if (e != OK)
        let_go(q->name);
    drop_forsaken(q->name);
    pin_release(pin);
    conclude(q, manager.stopping ? ERR_CANCELLED : e);
}

static void begin_question(struct asking *a, struct slice name)
{
    struct question *q = NEW(struct question);
    memcpy(q->text, name.ptr, name.len);
    q->name = slice_of(q->text, name.len);
    list_init(&q->askings);
    list_append(&q->askings, &a->node);
    arena_init(&q->arena, 8192);
    map_put(&demand.questions, q->name, q);
    manager_run(work, q);
}

static bool is_sane(struct slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.ptr[i];
        if (c <= ' ' || c >= 0x7F || c == '/' || c == '*')
            return false;
    }
    return name.len > 0 && name.len < 256;
}

static void consider(struct asking *a)
{
    struct slice name = slice_from(a->ask->name);
    if (manager.stopping || !is_sane(name)) {
        answer(a, manager.stopping ? ERR_CANCELLED : ERR_INVALID);
        return;
    }
    struct question *q = map_get(&demand.questions, name);
    const struct automation_policy *policy = policy_of(name);
    struct holding *h = holding_serving(name);
    struct refusal *r = find_refusal(name);
    if (q != NULL) {
        list_append(&q->askings, &a->node);
    } else if (h != NULL && !h->dozing) { /* it came meanwhile */
        list_append(&demand.to_tell, &a->node);
        if (!manager.publish_due)
            demand_told();
    } else if (policy == NULL) {
        answer(a, ERR_NOT_FOUND);
    } else if (r != NULL) {
        answer(a, r->e);
    } else if (demand.questions.count >= QUESTIONS_MAX) {
        answer(a, ERR_LIMIT);
    } else {
        begin_question(a, name);
    }
}

static void on_mail(struct mail *m)
{
    struct asking *a = CONTAINER_OF(m, struct asking, mail);
    list_init(&a->node);
    demand.asks++;
    if (demand.asks > ASKS_MAX)
        answer(a, ERR_LIMIT);
    else
        consider(a);
}

/* On any thread. */
static void on_ask(struct credential_ask *ask)
{
    struct asking *a = NEW(struct asking);
    a->ask = ask;
    a->mail.run = on_mail;
    mailbox_post(manager.loop, &a->mail);
}

/* --- the beginning and the end --- */

static bool is_wanted(const struct automation *a)
{
    for (size_t i = 0; i < a->policies_count; i++) {
        if (a->policies[i]->on_demand)
            return true;
    }
    return false;
}

/* What another configuration refused may be allowed now. */
static void forget_all(void)
{
    while (!list_empty(&demand.refused))
        forget(CONTAINER_OF(demand.refused.next, struct refusal, node));
}

void demand_start(void)
{
    if (!demand.begun) {
        map_init(&demand.questions, false);
        map_init(&demand.refusals, false);
        list_init(&demand.refused);
        list_init(&demand.to_tell);
        demand.begun = true;
    }
    forget_all();
    bool on = manager.pin != NULL && is_wanted(manager.pin->automation);
    credential_ask_hook = on ? on_ask : NULL;
}

/* Questions end with their fibers; handshakes that ask after this are told so. */
void demand_stop(void)
{
    if (!demand.begun)
        return;
    credential_ask_hook = NULL;
    answer_all(&demand.to_tell, ERR_CANCELLED);
    forget_all();
}
