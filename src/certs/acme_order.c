/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of events is acmez's, since authorities know it: all challenges are presented first, then
 * all are begun, then all validations are waited for. A validation that fails in a way that another
 * type of challenge might not makes a new order, in which that type is not tried again for that name;
 * at most three orders. When it ends badly, authorizations that are still open are given back.
 *
 * Which type is tried first: the one that went well most often so far; at first by chance, so that
 * a fleet of servers shows soon when one way is blocked.
 */
#include "certs/acme_order.h"

#include <stdio.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "certs/acme_chain.h"
#include "certs/jose.h"
#include "config/jsonx.h"
#include "loop/await.h"
#include "pki/issued.h"
#include "pki/subject.h"

enum { PAYLOAD_MAX = 256 << 10, POLL_MINUTES = 5, SOLVERS_MAX = 8 };

static const char logger[] = "tls.issuance.acme.acme_client";

/* One name's way through an order. */
struct authz {
    struct acme_authorization object;
    struct slice name;            /* with "*." */
    const struct solver *solver;  /* presented, not taken away yet; NULL: none */
    struct solving solving;
    unsigned tried;               /* index in all_solvers of the type in hand */
};

struct failed_types {
    struct slice name;
    unsigned mask; /* of all_solvers */
};

struct ordering {
    struct acme *acme;
    struct acme_account *account;
    struct acme_signer signer;
    const struct acme_wish *wish;
    struct slice replaces;
    struct acme_order order;
    struct authz *authz;
    size_t authz_count;
    struct failed_types *failed;
    size_t failed_count;
    bool worth_another; /* the failure may not be one of another type of challenge */
};

static uint64_t poll_end(const struct acme *c)
{
    uint64_t timeout = c->options->poll_timeout_ns;
    return clock_mono_ns() + (timeout > 0 ? timeout : POLL_MINUTES * 60 * NS_PER_S);
}

/* --- which challenge --- */

static _Thread_local struct {
    bool shuffled;
    unsigned order[SOLVERS_MAX], good[SOLVERS_MAX], all[SOLVERS_MAX], count;
} history;

static double success(unsigned solver)
{
    return history.all[solver] == 0 ? 1.0 : (double)history.good[solver] / history.all[solver];
}

static void shuffle(void)
{
    unsigned char chance[SOLVERS_MAX] = {0};
    (void)!getrandom(chance, sizeof chance, GRND_NONBLOCK);
    for (history.count = 0; all_solvers[history.count] != NULL; history.count++)
        history.order[history.count] = history.count;
    for (unsigned i = history.count; i-- > 1;) {
        unsigned k = chance[i] % (i + 1), kept = history.order[i];
        history.order[i] = history.order[k];
        history.order[k] = kept;
    }
    history.shuffled = true;
}

static void remember(unsigned solver, bool good)
{
    history.all[solver]++;
    history.good[solver] += good;
    for (unsigned i = 1; i < history.count; i++) /* stable */
        for (unsigned k = i; k > 0 && success(history.order[k - 1]) < success(history.order[k]); k--) {
            unsigned kept = history.order[k];
            history.order[k] = history.order[k - 1];
            history.order[k - 1] = kept;
        }
}

static struct failed_types *failed_of(struct ordering *o, struct slice name)
{
    for (size_t i = 0; i < o->failed_count; i++)
        if (slice_eq(o->failed[i].name, name))
            return &o->failed[i];
    return NULL;
}

static void remember_failed(struct ordering *o, const struct authz *z)
{
    struct failed_types *f = failed_of(o, z->name);
    if (f == NULL && o->failed_count < o->wish->names_count) {
        f = &o->failed[o->failed_count++];
        *f = (struct failed_types){.name = z->name};
    }
    if (f != NULL)
        f->mask |= 1u << z->tried;
}

static const struct acme_challenge *offered(const struct authz *z, const char *type)
{
    for (size_t i = 0; i < z->object.challenges_count; i++)
        if (slice_is(z->object.challenges[i].type, type) && z->object.challenges[i].token.len > 0)
            return &z->object.challenges[i];
    return NULL;
}

/* The best one that is offered, configured and has not failed; NULL: none. */
static const struct acme_challenge *choose(struct ordering *o, const struct authz *z, unsigned *at)
{
    const struct failed_types *f = failed_of(o, z->name);
    if (!history.shuffled)
        shuffle();
    for (unsigned i = 0; i < history.count; i++) {
        *at = history.order[i];
        const struct solver *s = all_solvers[*at];
        const struct acme_challenge *c = offered(z, s->type);
        if (c != NULL && s->enabled(o->wish->solvers) && (f == NULL || !(f->mask & 1u << *at)))
            return c;
    }
    return NULL;
}

static void list_types(const struct ordering *o, const struct authz *z, struct buffer *configured,
                       struct buffer *given)
{
    for (const struct solver *const *s = all_solvers; *s != NULL; s++)
        if ((*s)->enabled(o->wish->solvers))
            (void)buffer_append_f(configured, "%s%s", configured->len > 0 ? " " : "", (*s)->type);
    for (size_t i = 0; i < z->object.challenges_count; i++)
        (void)buffer_append_f(given, "%s" SLICE_FMT, given->len > 0 ? " " : "",
                              SLICE_ARG(slice_take(z->object.challenges[i].type, 40)));
}

static enum err no_way(struct ordering *o, const struct authz *z)
{
    struct buffer configured, given;
    buffer_init(&configured, 256);
    buffer_init(&given, 256);
    list_types(o, z, &configured, &given);
    enum err e = acme_fail(o->acme, ERR_FAILED,
                           SLICE_FMT ": no solvers available for remaining challenges (configured=["
                           SLICE_FMT "] offered=[" SLICE_FMT "])", SLICE_ARG(z->name),
                           SLICE_ARG(buffer_slice(&configured)), SLICE_ARG(buffer_slice(&given)));
    buffer_deinit(&configured);
    buffer_deinit(&given);
    return e;
}

/* --- a new order --- */

static enum err put_text(struct buffer *b, const char *before, struct slice value)
{
    TRY(buffer_append(b, slice_from(before)));
    return jsonx_put_string(b, value);
}

static enum err put_identifiers(struct buffer *b, const struct acme_wish *w)
{
    for (size_t i = 0; i < w->names_count; i++) {
        const char *type = subject_is_ip(w->names[i]) ? "ip" : "dns";
        TRY(buffer_append_f(b, "%s{\"type\":\"%s\",\"value\":", i > 0 ? "," : "", type));
        TRY(jsonx_put_string(b, w->names[i]));
        TRY(BUFFER_PUT(b, "}"));
    }
    return OK;
}

static enum err put_order(struct buffer *b, const struct ordering *o)
{
    const struct acme_wish *w = o->wish;
    TRY(BUFFER_PUT(b, "{"));
    if (w->profile.len > 0) {
        TRY(put_text(b, "\"profile\":", w->profile));
        TRY(BUFFER_PUT(b, ","));
    }
    TRY(BUFFER_PUT(b, "\"identifiers\":["));
    TRY(put_identifiers(b, w));
    TRY(BUFFER_PUT(b, "]"));
    if (o->replaces.len > 0)
        TRY(put_text(b, ",\"replaces\":", o->replaces));
    if (w->not_after_s > 0)
        TRY(put_text(b, ",\"notAfter\":", acme_time_text(w->not_after_s, o->acme->arena)));
    return BUFFER_PUT(b, "}");
}

static enum err check_profile(struct acme *c, struct slice profile)
{
    const struct acme_directory *d = c->directory;
    struct buffer names;
    if (profile.len == 0)
        return OK;
    for (size_t i = 0; i < d->profiles_count; i++)
        if (slice_eq(d->profiles[i].name, profile))
            return OK;
    if (d->profiles_count == 0)
        return acme_fail(c, ERR_FAILED, "the authority does not advertise support for profiles");
    buffer_init(&names, 512);
    for (size_t i = 0; i < d->profiles_count; i++)
        (void)buffer_append_f(&names, "%s" SLICE_FMT, i > 0 ? ", " : "",
                              SLICE_ARG(slice_take(d->profiles[i].name, 64)));
    (void)acme_fail(c, OK, "unknown profile name '" SLICE_FMT "'; supported profiles: " SLICE_FMT,
                    SLICE_ARG(profile), SLICE_ARG(buffer_slice(&names)));
    buffer_deinit(&names);
    return ERR_FAILED;
}

static enum err take_order(struct acme *c, const struct acme_answer *answer, struct acme_order *order)
{
    struct acme_why why;
    struct slice location = answer->location.len > 0 ? answer->location : order->location;
    if (acme_order_read(answer->body, c->arena, order, &why) != OK)
        return acme_fail(c, ERR_INVALID, "the order that came back: %s", why.text);
    order->location = arena_copy(c->arena, location);
    return acme_url_ok(location) ? OK :
           acme_fail(c, ERR_INVALID, "the authority did not say where the order is");
}

static enum err post_order(struct ordering *o)
{
    struct acme_answer answer;
    struct buffer payload;
    buffer_init(&payload, PAYLOAD_MAX);
    enum err e = put_order(&payload, o);
    e = e == OK ? acme_post(o->acme, &o->signer, o->acme->directory->new_order,
                            buffer_slice(&payload), &answer) :
                  acme_fail(o->acme, e, "the order is too long");
    buffer_deinit(&payload);
    return e == OK ? take_order(o->acme, &answer, &o->order) : e;
}

/* RFC 9773 §5: an authority may say that the old certificate has its successor already. */
static enum err new_order(struct ordering *o)
{
    o->order = (struct acme_order){0};
    enum err e = post_order(o);
    if (e == ERR_FAILED && o->replaces.len > 0 && o->acme->problem != NULL &&
        acme_problem_is(o->acme->problem, "alreadyReplaced")) {
        o->replaces = SLICE("");
        e = post_order(o);
    }
    if (e == OK && (o->order.authorizations_count > ACME_LIST_MAX || o->order.finalize.len == 0))
        e = acme_fail(o->acme, ERR_INVALID, "the order that came back lacks \"finalize\"");
    if (e != OK)
        acme_context(o->acme, "creating new order");
    return e;
}

/* --- authorizations --- */

static enum err get_authorization(struct ordering *o, struct authz *z)
{
    struct acme_answer answer;
    struct acme_why why;
    struct slice location = z->object.location;
    TRY(acme_post(o->acme, &o->signer, location, SLICE(""), &answer));
    if (acme_authorization_read(answer.body, o->acme->arena, &z->object, &why) != OK)
        return acme_fail(o->acme, ERR_INVALID, "the authorization that came back: %s", why.text);
    z->object.location = location;
    z->name = z->object.identifier.value;
    if (z->object.wildcard)
        z->name = arena_join(o->acme->arena, (struct slice[]){SLICE("*."), z->name}, 2);
    return OK;
}

/* A validation is begun for names that were asked for only. */
static bool was_asked(const struct ordering *o, struct slice name)
{
    for (size_t i = 0; i < o->wish->names_count; i++)
        if (slice_eq_nocase(o->wish->names[i], name))
            return true;
    return false;
}

static enum err get_authorizations(struct ordering *o)
{
    size_t count = o->order.authorizations_count;
    o->authz = ARENA_ARRAY(o->acme->arena, struct authz, count);
    o->authz_count = 0;
    for (size_t i = 0; i < count; i++) {
        struct authz *z = &o->authz[o->authz_count++];
        z->object.location = o->order.authorizations[i];
        enum err e = get_authorization(o, z);
        if (e == OK && !was_asked(o, z->name))
            e = acme_fail(o->acme, ERR_INVALID, "the authority asks about '" SLICE_FMT "', which was "
                          "not ordered", SLICE_ARG(slice_take(z->name, 100)));
        if (e != OK) {
            acme_context(o->acme, "getting authorization at " SLICE_FMT,
                         SLICE_ARG(slice_take(o->order.authorizations[i], 200)));
            return e;
        }
    }
    return OK;
}

/* --- solving --- */

static enum err present(struct ordering *o, struct authz *z)
{
    const struct acme_challenge *c = choose(o, z, &z->tried);
    if (c == NULL)
        return no_way(o, z);
    z->solving = (struct solving){.options = o->wish->solvers, .arena = o->acme->arena,
                                  .identifier = z->object.identifier, .challenge = c};
    if (key_authorization(o->account->key, c->token, o->acme->arena, &z->solving.key_authorization) !=
        OK)
        return acme_fail(o->acme, ERR_FAILED, "the account's key has no thumbprint");
    LOG(LOG_INFO, logger, "trying to solve challenge", LOG_STR("identifier", z->name),
        LOG_STR("challenge_type", c->type), LOG_STR("ca", o->acme->options->directory));
    z->solver = all_solvers[z->tried];
    enum err e = z->solver->present(&z->solving);
    return e == OK ? OK : acme_fail(o->acme, e, "presenting for challenge: %s", z->solving.why);
}

static enum err initiate(struct ordering *o, struct authz *z)
{
    struct acme_answer answer;
    if (z->solver->wait != NULL) {
        enum err e = z->solver->wait(&z->solving);
        if (e != OK)
            return acme_fail(o->acme, e, "waiting for %s to be ready: %s", z->solver->type,
                             z->solving.why);
    }
    enum err e = acme_post(o->acme, &o->signer, z->solving.challenge->url, SLICE("{}"), &answer);
    if (e != OK)
        acme_context(o->acme, "initiating challenge with server");
    return e;
}

/* Also on a fiber that is to end: what was presented would lie about for ever. */
static void clean_up(struct authz *z)
{
    struct fiber *self = fiber_self();
    enum err cancelled = self->cancelled;
    if (z->solver == NULL)
        return;
    self->cancelled = OK;
    z->solver->cleanup(&z->solving);
    z->solver = NULL;
    if (self->cancelled == OK)
        self->cancelled = cancelled;
}

/* Whether another type of challenge might do what this one could not. */
static bool recoverable(const struct acme_problem *p)
{
    static const char *const types[] = {"connection", "dns", "serverInternal", "unauthorized", "tls"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (acme_problem_is(p, types[i]))
            return true;
    return false;
}

static enum err validation_failed(struct ordering *o, struct authz *z)
{
    static const struct acme_problem unknown = {.status = 0};
    const struct acme_problem *p = &unknown;
    struct buffer b;
    unsigned ignored;
    for (size_t i = 0; i < z->object.challenges_count && p == &unknown; i++)
        if (z->object.challenges[i].error != NULL)
            p = z->object.challenges[i].error;
    o->acme->problem = p;
    buffer_init(&b, 700);
    acme_problem_say(p, &b);
    LOG(LOG_ERROR, logger, "challenge failed", LOG_STR("identifier", z->name),
        LOG_CSTR("challenge_type", all_solvers[z->tried]->type),
        LOG_STR("problem", buffer_slice(&b)));
    (void)acme_fail(o->acme, OK, "[" SLICE_FMT "] authorization failed: " SLICE_FMT,
                    SLICE_ARG(slice_take(z->name, 100)), SLICE_ARG(buffer_slice(&b)));
    buffer_deinit(&b);
    remember_failed(o, z);
    o->worth_another = recoverable(p) && choose(o, z, &ignored) != NULL;
    return ERR_FAILED;
}

static enum err poll_once(struct ordering *o, struct authz *z, struct acme_answer *answer)
{
    struct acme_why why;
    struct slice location = z->object.location;
    TRY(acme_post(o->acme, &o->signer, location, SLICE(""), answer));
    if (acme_authorization_read(answer->body, o->acme->arena, &z->object, &why) != OK)
        return acme_fail(o->acme, ERR_INVALID, "the authorization that came back: %s", why.text);
    z->object.location = location;
    return OK;
}

static enum err poll(struct ordering *o, struct authz *z)
{
    uint64_t end = poll_end(o->acme);
    struct acme_answer answer = {0};
    while (slice_is(z->object.status, "pending")) {
        if (clock_mono_ns() >= end)
            return acme_fail(o->acme, ERR_TIMEOUT, "[" SLICE_FMT "] authorization took too long",
                             SLICE_ARG(slice_take(z->name, 100)));
        TRY(acme_pause(&answer, end));
        enum err e = poll_once(o, z, &answer);
        if (e != OK) {
            acme_context(o->acme, "checking authorization status");
            return e;
        }
    }
    if (slice_is(z->object.status, "valid"))
        return OK;
    if (slice_is(z->object.status, "invalid"))
        return validation_failed(o, z);
    return acme_fail(o->acme, ERR_FAILED, "[" SLICE_FMT "] authorization " SLICE_FMT,
                     SLICE_ARG(slice_take(z->name, 100)),
                     SLICE_ARG(slice_take(z->object.status, 40)));
}

static enum err poll_authorization(struct ordering *o, struct authz *z)
{
    bool attempted = z->solver != NULL;
    enum err e = poll(o, z);
    if (attempted)
        remember(z->tried, e == OK);
    clean_up(z);
    if (e == OK)
        LOG(LOG_INFO, logger, "authorization finalized", LOG_STR("identifier", z->name),
            LOG_STR("authz_status", z->object.status));
    return e;
}

static enum err solve_all(struct ordering *o)
{
    TRY(get_authorizations(o));
    for (size_t i = 0; i < o->authz_count; i++) {
        struct authz *z = &o->authz[i];
        if (slice_is(z->object.status, "pending"))
            TRY(present(o, z));
        else if (!slice_is(z->object.status, "valid"))
            return acme_fail(o->acme, ERR_FAILED, "authz " SLICE_FMT " has unexpected status; order "
                             "will fail: " SLICE_FMT, SLICE_ARG(slice_take(z->object.location, 200)),
                             SLICE_ARG(slice_take(z->object.status, 40)));
    }
    for (size_t i = 0; i < o->authz_count; i++)
        if (o->authz[i].solver != NULL)
            TRY(initiate(o, &o->authz[i]));
    for (size_t i = 0; i < o->authz_count; i++)
        TRY(poll_authorization(o, &o->authz[i]));
    return OK;
}

/* What is left open counts against the account's limits. The failure in hand is kept. */
static void deactivate(struct ordering *o, const struct authz *z)
{
    struct acme kept = *o->acme;
    struct acme_answer answer;
    if (!slice_is(z->object.status, "pending") && !slice_is(z->object.status, "valid"))
        return;
    if (acme_post(o->acme, &o->signer, z->object.location, SLICE("{\"status\":\"deactivated\"}"),
                  &answer) != OK)
        LOG(LOG_ERROR, logger, "deactivating authorization", LOG_STR("identifier", z->name),
            LOG_STR("authz", z->object.location), LOG_CSTR("error", o->acme->why));
    *o->acme = kept;
}

static enum err solve(struct ordering *o)
{
    o->worth_another = false;
    o->authz_count = 0;
    enum err e = solve_all(o);
    for (size_t i = 0; i < o->authz_count; i++)
        clean_up(&o->authz[i]);
    for (size_t i = 0; e != OK && i < o->authz_count && fiber_self()->cancelled == OK; i++)
        deactivate(o, &o->authz[i]);
    return e;
}

static enum err order_and_solve(struct ordering *o)
{
    for (int attempt = 1;; attempt++) {
        TRY(new_order(o));
        enum err e = solve(o);
        if (e == OK)
            return OK;
        LOG(LOG_ERROR, logger, "validating authorization", LOG_CSTR("error", o->acme->why),
            LOG_STR("order", o->order.location), LOG_NUM("attempt", attempt),
            LOG_NUM("max_attempts", ACME_ORDERS));
        if (!o->worth_another || attempt == ACME_ORDERS) {
            acme_context(o->acme, "solving challenges (order=" SLICE_FMT ")",
                         SLICE_ARG(slice_take(o->order.location, 200)));
            return e;
        }
        TRY(await_sleep(clock_mono_ns() + NS_PER_S));
    }
}

/* --- issuance --- */

static enum err order_failed(struct acme *c, const struct acme_order *order)
{
    struct buffer b;
    if (order->error == NULL)
        return acme_fail(c, ERR_FAILED, "final order is invalid");
    c->problem = order->error;
    buffer_init(&b, 700);
    acme_problem_say(order->error, &b);
    (void)acme_fail(c, OK, "final order is invalid: " SLICE_FMT, SLICE_ARG(buffer_slice(&b)));
    buffer_deinit(&b);
    return ERR_FAILED;
}

/* *ended: nothing more will come of asking. */
static enum err look_at_order(struct acme *c, const struct acme_order *order, bool *ended)
{
    *ended = true;
    if (slice_is(order->status, "valid"))
        return order->certificate.len > 0 ? OK :
               acme_fail(c, ERR_INVALID, "the order is valid and lacks \"certificate\"");
    if (slice_is(order->status, "invalid"))
        return order_failed(c, order);
    if (!slice_is(order->status, "processing"))
        return acme_fail(c, ERR_FAILED, "unexpected state of the order: " SLICE_FMT,
                         SLICE_ARG(slice_take(order->status, 40)));
    *ended = false;
    return OK;
}

static enum err wait_for_order(struct ordering *o, struct acme_answer *answer)
{
    uint64_t end = poll_end(o->acme);
    for (;;) {
        bool ended;
        if (clock_mono_ns() >= end)
            return acme_fail(o->acme, ERR_TIMEOUT, "order took too long");
        TRY(acme_pause(answer, end));
        enum err e = acme_post(o->acme, &o->signer, o->order.location, SLICE(""), answer);
        if (e == OK)
            e = take_order(o->acme, answer, &o->order);
        if (e != OK) {
            acme_context(o->acme, "polling order status");
            return e;
        }
        e = look_at_order(o->acme, &o->order, &ended);
        if (ended)
            return e;
    }
}

/* Without an answer, or with "not ready", the order itself tells what became of it. */
static enum err finalize(struct ordering *o)
{
    struct acme_answer answer = {0};
    struct buffer payload;
    bool ended;
    buffer_init(&payload, PAYLOAD_MAX);
    enum err e = BUFFER_PUT(&payload, "{\"csr\":\"");
    if (e == OK)
        e = base64url_encode(&payload, o->wish->csr_der);
    if (e == OK)
        e = BUFFER_PUT(&payload, "\"}");
    e = e == OK ? acme_post(o->acme, &o->signer, o->order.finalize, buffer_slice(&payload), &answer) :
                  acme_fail(o->acme, e, "the request for the certificate is too long");
    buffer_deinit(&payload);
    if (fiber_self()->cancelled != OK)
        return e;
    if (e == ERR_FAILED && (o->acme->problem == NULL ||
                            !acme_problem_is(o->acme->problem, "orderNotReady")))
        return e;
    if (e != OK)
        return wait_for_order(o, &(struct acme_answer){0});
    TRY(take_order(o->acme, &answer, &o->order));
    e = look_at_order(o->acme, &o->order, &ended);
    return ended ? e : wait_for_order(o, &answer);
}

/* --- the face --- */

static enum err finish(struct ordering *o, struct acme_chains *chains)
{
    LOG(LOG_INFO, logger, "validations succeeded; finalizing order",
        LOG_STR("order", o->order.location));
    if (o->wish->note != NULL)
        o->wish->note(o->wish->note_arg, o->order.location);
    enum err e = finalize(o);
    if (e != OK) {
        acme_context(o->acme, "finalizing order " SLICE_FMT,
                     SLICE_ARG(slice_take(o->order.location, 200)));
        return e;
    }
    e = acme_download(o->acme, &o->signer, o->order.certificate, o->wish->csr_der, chains);
    if (e != OK)
        acme_context(o->acme, "downloading certificate chain (order=" SLICE_FMT ")",
                     SLICE_ARG(slice_take(o->order.location, 200)));
    return e;
}

/* What a crash kept from coming: the order may have its certificate already. */
static enum err take_noted(struct ordering *o, struct acme_chains *chains)
{
    struct acme_answer answer;
    bool ended;
    o->order = (struct acme_order){.location = o->wish->noted};
    TRY(acme_post(o->acme, &o->signer, o->wish->noted, SLICE(""), &answer));
    TRY(take_order(o->acme, &answer, &o->order));
    enum err e = look_at_order(o->acme, &o->order, &ended);
    if (!ended)
        e = wait_for_order(o, &answer);
    TRY(e);
    LOG(LOG_INFO, logger, "an order that was begun before has its certificate",
        LOG_STR("order", o->order.location));
    return acme_download(o->acme, &o->signer, o->order.certificate, o->wish->csr_der, chains);
}

enum err acme_obtain(struct acme *c, struct acme_account *account, const struct acme_wish *wish,
                     struct acme_chains *chains)
{
    struct ordering o = {.acme = c, .account = account, .signer = acme_account_signer(account),
                         .wish = wish, .replaces = wish->replaces};
    chains->count = 0;
    if (!slice_is(account->status, "valid"))
        return acme_fail(c, ERR_FAILED, "account status is not valid: " SLICE_FMT,
                         SLICE_ARG(slice_take(account->status, 40)));
    TRY(check_profile(c, wish->profile));
    o.failed = ARENA_ARRAY(c->arena, struct failed_types, wish->names_count);
    if (acme_url_ok(wish->noted) && take_noted(&o, chains) == OK)
        return OK;
    if (fiber_self()->cancelled != OK)
        return fiber_self()->cancelled;
    chains->count = 0;
    TRY(order_and_solve(&o));
    return finish(&o, chains);
}

enum err acme_revoke(struct acme *c, struct acme_account *account, struct slice chain_pem, int reason)
{
    struct acme_signer signer = acme_account_signer(account);
    struct acme_answer answer;
    struct buffer der, payload;
    if (c->directory->revoke_cert.len == 0)
        return acme_fail(c, ERR_UNSUPPORTED, "the authority revokes no certificates");
    buffer_init(&der, PAYLOAD_MAX);
    buffer_init(&payload, PAYLOAD_MAX);
    enum err e = issued_leaf(chain_pem, &der);
    if (e == OK)
        e = BUFFER_PUT(&payload, "{\"certificate\":\"");
    if (e == OK)
        e = base64url_encode(&payload, buffer_slice(&der));
    if (e == OK)
        e = buffer_append_f(&payload, "\",\"reason\":%d}", reason);
    e = e == OK ? acme_post(c, &signer, c->directory->revoke_cert, buffer_slice(&payload), &answer) :
                  acme_fail(c, e, "the certificate that is to be revoked cannot be read");
    buffer_deinit(&der);
    buffer_deinit(&payload);
    if (e != OK)
        acme_context(c, "revoking certificate");
    return e;
}
