/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A validation runs on a fiber of its own: three tries in ten seconds, then the authorization is
 * invalid. A process that ends meanwhile leaves a challenge "processing", which the client's next post
 * begins again.
 */
#include "certs/ca_call.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "certs/acme_objects.h"
#include "certs/ca_validate.h"
#include "certs/jose.h"
#include "loop/await.h"

enum { TRIES = 3, VALIDATIONS_MAX = 256 };

static const char logger[] = "http.handlers.acme_server";

/* --- validation, on its own fiber --- */

static _Thread_local struct list validations;
static _Thread_local size_t validations_count;

struct validation {
    struct ca_busy busy; /* of `validations`, by "ID-3/http-01" */
    struct arena arena;
    struct ca_records records;
    struct ca_proof proof;
    struct slice order, type;
    size_t at;
};

static struct ca_challenge *challenge_of(struct ca_authorization *z, struct slice type)
{
    for (size_t i = 0; i < z->challenges_count; i++)
        if (slice_eq(z->challenges[i].type, type))
            return &z->challenges[i];
    return NULL;
}

static void note_result(struct validation *v, struct ca_order *o, enum err result)
{
    struct ca_authorization *z = &o->authorizations[v->at];
    struct ca_challenge *ch = challenge_of(z, v->type);
    if (ch == NULL || !slice_is(z->status, "pending"))
        return;
    z->status = ch->status = result == OK ? SLICE("valid") : SLICE("invalid");
    if (result == OK) {
        ch->validated = acme_time_text(ca_now_s(), &v->arena);
    } else {
        ch->error_type = slice_from(v->proof.error_type);
        ch->error_detail = slice_from(v->proof.why);
    }
    ca_settle_order(o);
    (void)ca_order_store(&v->records, o);
}

static void end_validation(struct validation *v)
{
    list_remove(&v->busy.node);
    validations_count--;
    arena_deinit(&v->arena);
    mem_free(v);
}

static void run_validation(void *arg)
{
    struct validation *v = arg;
    struct ca_order o;
    struct ca_busy busy;
    enum err e = ERR_FAILED;
    for (unsigned i = 0; i < TRIES && e != OK && fiber_self()->cancelled == OK; i++) {
        if (i > 0)
            (void)await_sleep(clock_mono_ns() + (uint64_t)(i * 3) * NS_PER_S);
        e = ca_validate(v->type, &v->proof, &v->arena);
    }
    LOG(e == OK ? LOG_INFO : LOG_WARN, logger, "challenge was looked at",
        LOG_STR("identifier", v->proof.name), LOG_STR("challenge_type", v->type),
        LOG_CSTR("error", e == OK ? "" : v->proof.why));
    if (ca_take_order(&busy, v->order) == OK) {
        if (ca_order_load(&v->records, v->order, &v->arena, &o) == OK && v->at < o.count)
            note_result(v, &o, e);
        ca_give_order_back(&busy);
    }
    end_validation(v);
}

struct starting {
    struct validation *validation;
    enum err result;
};

static void start_on_loop(void *arg)
{
    struct starting *s = arg;
    s->result = fiber_start(loop_self(), run_validation, s->validation);
}

static struct validation *make_validation(struct call *c, const struct ca_order *o, size_t at,
                                          const struct ca_challenge *ch, struct slice id)
{
    struct validation *v = NEW(struct validation);
    const struct ca_settings *s = c->settings;
    const struct ca_authorization *z = &o->authorizations[at];
    arena_init(&v->arena, 8192);
    struct arena *a = &v->arena;
    v->records = (struct ca_records){c->records.storage, arena_copy(a, c->records.id)};
    v->order = arena_copy(a, o->id);
    v->type = arena_copy(a, ch->type);
    v->at = at;
    v->busy.id = arena_copy(a, id);
    v->proof = (struct ca_proof){.kind = arena_copy(a, z->kind), .name = arena_copy(a, z->name),
                                 .token = arena_copy(a, ch->token),
                                 .resolvers_count = s->resolvers_count, .error_type = ""};
    struct slice *resolvers = ARENA_ARRAY(a, struct slice, s->resolvers_count);
    for (size_t i = 0; i < s->resolvers_count; i++)
        resolvers[i] = arena_copy(a, s->resolvers[i]);
    v->proof.resolvers = resolvers;
    if (key_authorization(c->key, ch->token, a, &v->proof.key_authorization) != OK)
        v->proof.key_authorization = SLICE("");
    return v;
}

static bool start_validation(struct call *c, const struct ca_order *o, size_t at,
                             const struct ca_challenge *ch, struct slice id)
{
    if (ca_is_busy(&validations, id))
        return true;
    if (validations_count >= VALIDATIONS_MAX)
        return false;
    struct starting s = {make_validation(c, o, at, ch, id), OK};
    if (validations.next == NULL)
        list_init(&validations);
    list_append(&validations, &s.validation->busy.node);
    validations_count++;
    await_on_loop(start_on_loop, &s);
    if (s.result != OK)
        end_validation(s.validation);
    return s.result == OK;
}

static void begin_challenge(struct call *c, struct ca_order *o, size_t at, struct ca_challenge *ch,
                            struct slice id)
{
    struct ca_authorization *z = &o->authorizations[at];
    struct buffer b;
    if (slice_is(z->status, "pending") && slice_is(o->status, "pending")) {
        if (slice_is(ch->status, "pending")) {
            ch->status = SLICE("processing");
            if (ca_order_store(&c->records, o) != OK)
                return ca_records_fail(c);
        }
        if (!start_validation(c, o, at, ch, id))
            return ca_refuse(c, 429, "rateLimited", "too many validations at once");
    }
    buffer_init(&b, CA_ANSWER_MAX);
    ca_put_challenge(c, &b, o, at, ch);
    ca_give(c, 200, &b);
    c->answer->link = arena_printf(c->arena, "<" SLICE_FMT ">;rel=\"up\"",
                                   SLICE_ARG(ca_link(c, "authz", ca_part_id(c, o, at), "")));
    c->answer->location = ca_link(c, "challenge", id, "");
    c->answer->retry = true;
    buffer_deinit(&b);
}

void ca_serve_challenge(struct call *c, struct slice id)
{
    struct slice part, type, order;
    struct ca_order o;
    struct ca_busy busy;
    size_t at;
    if (!slice_cut(id, '/', &part, &type) || !ca_split_part(part, &order, &at) ||
        ca_take_order(&busy, order) != OK)
        return ca_refuse(c, 404, "malformed", "there is no such challenge");
    if (ca_load_part(c, part, &o, &at)) {
        struct ca_challenge *ch = challenge_of(&o.authorizations[at], type);
        if (ch == NULL)
            ca_refuse(c, 404, "malformed", "there is no such challenge");
        else
            begin_challenge(c, &o, at, ch, id);
    }
    ca_give_order_back(&busy);
}
