/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An order holds its authorizations, and they their challenges; it is read, changed and stored whole.
 */
#include "certs/ca_call.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/text.h"
#include "certs/acme_objects.h"
#include "certs/ca_policy.h"
#include "pki/subject.h"

enum { PRUNE_HOURS = 1 };
#define MIN_LIFETIME_S (5 * 60)
#define MAX_LIFETIME_S (365 * 86400)

/* --- orders --- */

void ca_settle_order(struct ca_order *o)
{
    size_t valid = 0;
    bool open = slice_is(o->status, "pending") || slice_is(o->status, "ready");
    if (open && o->expires_s < ca_now_s()) {
        o->status = SLICE("invalid");
        return;
    }
    if (!slice_is(o->status, "pending"))
        return;
    for (size_t i = 0; i < o->count; i++) {
        valid += slice_is(o->authorizations[i].status, "valid");
        if (slice_is(o->authorizations[i].status, "invalid") ||
            slice_is(o->authorizations[i].status, "deactivated"))
            o->status = SLICE("invalid");
    }
    if (valid == o->count)
        o->status = SLICE("ready");
}

struct slice ca_full_name(struct call *c, const struct ca_authorization *z)
{
    return z->wildcard ? arena_join(c->arena, (struct slice[]){SLICE("*."), z->name}, 2) : z->name;
}

struct slice ca_part_id(struct call *c, const struct ca_order *o, size_t i)
{
    return arena_printf(c->arena, SLICE_FMT "-%zu", SLICE_ARG(o->id), i);
}

void ca_give_order(struct call *c, const struct ca_order *o, int status)
{
    struct buffer b;
    buffer_init(&b, CA_ANSWER_MAX);
    ca_put_text(&b, "{\"status\":", o->status);
    ca_put_text(&b, ",\"expires\":", acme_time_text(o->expires_s, c->arena));
    if (o->not_before_s > 0)
        ca_put_text(&b, ",\"notBefore\":", acme_time_text(o->not_before_s, c->arena));
    if (o->not_after_s > 0)
        ca_put_text(&b, ",\"notAfter\":", acme_time_text(o->not_after_s, c->arena));
    (void)BUFFER_PUT(&b, ",\"identifiers\":[");
    for (size_t i = 0; i < o->count; i++) {
        ca_put_text(&b, i > 0 ? ",{\"type\":" : "{\"type\":", o->authorizations[i].kind);
        ca_put_text(&b, ",\"value\":", ca_full_name(c, &o->authorizations[i]));
        (void)BUFFER_PUT(&b, "}");
    }
    (void)BUFFER_PUT(&b, "],\"authorizations\":[");
    for (size_t i = 0; i < o->count; i++)
        ca_put_text(&b, i > 0 ? "," : "", ca_link(c, "authz", ca_part_id(c, o, i), ""));
    ca_put_text(&b, "],\"finalize\":", ca_link(c, "order", o->id, "/finalize"));
    if (slice_is(o->status, "valid"))
        ca_put_text(&b, ",\"certificate\":", ca_link(c, "certificate", o->id, ""));
    (void)BUFFER_PUT(&b, "}");
    ca_give(c, status, &b);
    c->answer->location = ca_link(c, "order", o->id, "");
    buffer_deinit(&b);
}

/* Reads an order of this account; false: the answer is there. */
bool ca_load_order(struct call *c, struct slice id, struct ca_order *o)
{
    enum err e = ca_order_load(&c->records, id, c->arena, o);
    if (e == ERR_NOT_FOUND)
        ca_refuse(c, 404, "malformed", "there is no such order");
    else if (e != OK)
        ca_records_fail(c);
    else if (!slice_eq(o->account, c->account.id))
        ca_refuse(c, 401, "unauthorized", "that order belongs to another account");
    else
        ca_settle_order(o);
    return e == OK && c->answer->status == 0;
}

static struct slice new_token(struct arena *a)
{
    struct slice one = ca_new_id(a), two = ca_new_id(a);
    return arena_join(a, (struct slice[]){one, two}, 2);
}

static void add_challenge(struct call *c, struct ca_authorization *z, unsigned bit, const char *type)
{
    if (c->settings->challenges & bit)
        z->challenges[z->challenges_count++] = (struct ca_challenge){
            .type = slice_from(type), .token = new_token(c->arena), .status = SLICE("pending")};
}

static void make_authorization(struct call *c, struct slice kind, struct slice name,
                               struct ca_authorization *z)
{
    bool wildcard = slice_starts(name, SLICE("*."));
    *z = (struct ca_authorization){.kind = kind, .name = wildcard ? slice_skip(name, 2) : name,
                                   .wildcard = wildcard, .status = SLICE("pending")};
    if (!slice_is(kind, "ip"))
        add_challenge(c, z, CA_DNS_01, "dns-01");
    if (!wildcard) {
        add_challenge(c, z, CA_HTTP_01, "http-01");
        add_challenge(c, z, CA_TLS_ALPN_01, "tls-alpn-01");
    }
}

/* Labels of letters, digits, '-' and '_'; the first one may be a star. */
static bool host_ok(struct slice name)
{
    struct slice label;
    if (name.len == 0 || name.len > 253 || slice_ends(name, SLICE(".")))
        return false;
    if (slice_starts(name, SLICE("*.")))
        name = slice_skip(name, 2);
    do {
        slice_cut(name, '.', &label, &name);
        for (size_t i = 0; i < label.len; i++)
            if (!(label.ptr[i] >= 'a' && label.ptr[i] <= 'z') && label.ptr[i] != '_' &&
                !(label.ptr[i] >= '0' && label.ptr[i] <= '9') &&
                (label.ptr[i] != '-' || i == 0 || i + 1 == label.len))
                return false;
        if (label.len == 0 || label.len > 63)
            return false;
    } while (name.len > 0);
    return true;
}

static bool is_ordered(struct call *c, const struct ca_order *o, struct slice name)
{
    for (size_t i = 0; i < o->count; i++)
        if (slice_eq(ca_full_name(c, &o->authorizations[i]), name))
            return true;
    return false;
}

/* One identifier of a new order; false: the answer is there. */
static bool take_identifier(struct call *c, const json_t *j, struct ca_order *o)
{
    const char *type = ca_member_text(j, "type"), *value = ca_member_text(j, "value");
    bool is_ip = type != NULL && strcmp(type, "ip") == 0;
    struct slice name = arena_copy(c->arena, slice_from(value));
    for (size_t i = 0; i < name.len; i++)
        ((char *)name.ptr)[i] = ascii_lower(name.ptr[i]);
    if (type == NULL || (!is_ip && strcmp(type, "dns") != 0)) {
        ca_refuse(c, 400, "unsupportedIdentifier", "identifiers are of type \"dns\" or \"ip\"");
        return false;
    }
    if (is_ip != subject_is_ip(name) || (!is_ip && !host_ok(name))) {
        ca_refuse(c, 400, "malformed", "'" SLICE_FMT "' is no name that a certificate may have",
                  SLICE_ARG(slice_take(name, 100)));
        return false;
    }
    if (!ca_policy_allows(&c->settings->policy, name, is_ip)) {
        ca_refuse(c, 403, "rejectedIdentifier", "'" SLICE_FMT "' is not allowed by the policy of the "
                  "authority", SLICE_ARG(slice_take(name, 100)));
        return false;
    }
    if (is_ordered(c, o, name))
        return true; /* twice the same is once */
    struct ca_authorization *z = &o->authorizations[o->count++];
    make_authorization(c, is_ip ? SLICE("ip") : SLICE("dns"), name, z);
    if (z->challenges_count > 0)
        return true;
    ca_refuse(c, 403, "rejectedIdentifier", "no challenge that is enabled can prove '" SLICE_FMT "'",
              SLICE_ARG(slice_take(name, 100)));
    return false;
}

static bool take_times(struct call *c, struct ca_order *o)
{
    const char *before = ca_member_text(c->payload, "notBefore");
    const char *after = ca_member_text(c->payload, "notAfter");
    int64_t now = ca_now_s();
    if ((before != NULL && before[0] != '\0' && !acme_time_read(slice_from(before), &o->not_before_s)) ||
        (after != NULL && after[0] != '\0' && !acme_time_read(slice_from(after), &o->not_after_s))) {
        ca_refuse(c, 400, "malformed", "\"notBefore\" and \"notAfter\" are dates of RFC 3339");
        return false;
    }
    if (o->not_after_s != 0 && (o->not_after_s < now + MIN_LIFETIME_S ||
                                o->not_after_s > now + MAX_LIFETIME_S)) {
        ca_refuse(c, 400, "malformed", "\"notAfter\" must lie between five minutes and a year from now");
        return false;
    }
    return true;
}

static void prune_now_and_then(struct call *c)
{
    static _Thread_local uint64_t last_ns;
    uint64_t now = clock_mono_ns();
    if (last_ns != 0 && now - last_ns < PRUNE_HOURS * UINT64_C(3600) * NS_PER_S)
        return;
    last_ns = now;
    ca_records_prune(&c->records);
}

void ca_serve_new_order(struct call *c)
{
    const json_t *identifiers = json_object_get(c->payload, "identifiers");
    size_t count = json_array_size(identifiers);
    struct ca_order o = {.id = ca_new_id(c->arena), .account = c->account.id,
                         .status = SLICE("pending"), .expires_s = ca_now_s() + CA_ORDER_HOURS * 3600};
    if (count == 0 || count > CA_NAMES_MAX)
        return ca_refuse(c, 400, "malformed", "an order has one to %d identifiers", CA_NAMES_MAX);
    o.authorizations = ARENA_ARRAY(c->arena, struct ca_authorization, count);
    for (size_t i = 0; i < count; i++)
        if (!take_identifier(c, json_array_get(identifiers, i), &o))
            return;
    if (!take_times(c, &o))
        return;
    prune_now_and_then(c);
    if (ca_order_store(&c->records, &o) != OK)
        return ca_records_fail(c);
    ca_give_order(c, &o, 201);
}

void ca_serve_order(struct call *c, struct slice id)
{
    struct ca_order o;
    if (ca_load_order(c, id, &o))
        ca_give_order(c, &o, 200);
}

/* --- authorizations and challenges --- */

/* "ID-3": the order and the number of its authorization. */
bool ca_split_part(struct slice text_of_id, struct slice *order, size_t *at)
{
    struct slice number;
    uint64_t n;
    if (!slice_cut(text_of_id, '-', order, &number) || !slice_to_u64(number, CA_NAMES_MAX - 1, &n))
        return false;
    *at = (size_t)n;
    return true;
}

bool ca_load_part(struct call *c, struct slice id, struct ca_order *o, size_t *at)
{
    struct slice order;
    if (!ca_split_part(id, &order, at)) {
        ca_refuse(c, 404, "malformed", "there is no such authorization");
        return false;
    }
    if (!ca_load_order(c, order, o))
        return false;
    if (*at < o->count)
        return true;
    ca_refuse(c, 404, "malformed", "there is no such authorization");
    return false;
}

void ca_put_challenge(struct call *c, struct buffer *b, const struct ca_order *o, size_t at,
                      const struct ca_challenge *ch)
{
    ca_put_text(b, "{\"type\":", ch->type);
    ca_put_text(b, ",\"url\":", arena_join(c->arena, (struct slice[]){
        ca_link(c, "challenge", ca_part_id(c, o, at), "/"), ch->type}, 2));
    ca_put_text(b, ",\"status\":", ch->status);
    ca_put_text(b, ",\"token\":", ch->token);
    if (ch->validated.len > 0)
        ca_put_text(b, ",\"validated\":", ch->validated);
    if (ch->error_type.len > 0) {
        ca_put_text(b, ",\"error\":{\"type\":",
                 arena_join(c->arena, (struct slice[]){SLICE(CA_NAMESPACE), ch->error_type}, 2));
        ca_put_text(b, ",\"status\":400,\"detail\":", ch->error_detail);
        (void)BUFFER_PUT(b, "}");
    }
    (void)BUFFER_PUT(b, "}");
}

static void give_authorization(struct call *c, const struct ca_order *o, size_t at)
{
    const struct ca_authorization *z = &o->authorizations[at];
    struct buffer b;
    buffer_init(&b, CA_ANSWER_MAX);
    ca_put_text(&b, "{\"status\":", z->status);
    ca_put_text(&b, ",\"expires\":", acme_time_text(o->expires_s, c->arena));
    ca_put_text(&b, ",\"identifier\":{\"type\":", z->kind);
    ca_put_text(&b, ",\"value\":", z->name);
    (void)buffer_append_f(&b, "}%s,\"challenges\":[", z->wildcard ? ",\"wildcard\":true" : "");
    for (size_t i = 0; i < z->challenges_count; i++) {
        if (i > 0)
            (void)BUFFER_PUT(&b, ",");
        ca_put_challenge(c, &b, o, at, &z->challenges[i]);
    }
    (void)BUFFER_PUT(&b, "]}");
    ca_give(c, 200, &b);
    c->answer->location = ca_link(c, "authz", ca_part_id(c, o, at), "");
    c->answer->retry = slice_is(z->status, "pending");
    buffer_deinit(&b);
}

static void deactivate(struct call *c, struct slice id)
{
    struct ca_order o;
    struct ca_busy busy;
    size_t at;
    struct slice order;
    if (!ca_split_part(id, &order, &at) || ca_take_order(&busy, order) != OK)
        return ca_refuse(c, 404, "malformed", "there is no such authorization");
    if (ca_load_part(c, id, &o, &at)) {
        o.authorizations[at].status = SLICE("deactivated");
        if (ca_order_store(&c->records, &o) == OK)
            give_authorization(c, &o, at);
        else
            ca_records_fail(c);
    }
    ca_give_order_back(&busy);
}

void ca_serve_authorization(struct call *c, struct slice id)
{
    struct ca_order o;
    size_t at;
    const char *status = ca_member_text(c->payload, "status");
    if (status != NULL && strcmp(status, "deactivated") == 0)
        return deactivate(c, id);
    if (ca_load_part(c, id, &o, &at))
        give_authorization(c, &o, at);
}
