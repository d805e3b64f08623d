/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the sources of the authority share: one request and what is known of it (ca_call.c), who asks and
 * for what (ca_service.c), orders and their authorizations (ca_orders.c), the validation of challenges
 * (ca_challenges.c), certificates (ca_certificates.c).
 */
#pragma once

#include "base/list.h"
#include "certs/ca_jws.h"
#include "certs/ca_records.h"
#include "certs/ca_service.h"

enum { CA_ANSWER_MAX = 1 << 20 };
#define CA_NAMESPACE "urn:ietf:params:acme:error:"

struct call {
    const struct ca_settings *settings;
    const struct ca_request *request;
    struct arena *arena;
    struct ca_answer *answer;
    struct ca_records records;
    struct ca_jws jws;
    struct evp_pkey_st *key; /* who signed */
    struct ca_account account; /* whose; id empty: none yet */
    json_t *payload; /* NULL: none */
};

/* --- answers --- */

/* A problem document; `type` without its namespace. */
void ca_refuse(struct call *, int status, const char *type, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void ca_records_fail(struct call *); /* the storage does */

/* BASE/KIND/ID REST */
struct slice ca_link(struct call *, const char *kind, struct slice id, const char *rest);
void ca_give(struct call *, int status, struct buffer *json);
void ca_put_text(struct buffer *, const char *before, struct slice value);
const char *ca_member_text(const json_t *, const char *key); /* NULL: none */
int64_t ca_now_s(void);

/* --- an order is one fiber's at a time --- */

struct ca_busy {
    struct list node;
    struct slice id;
};

bool ca_is_busy(const struct list *, struct slice id);

/* Waits for it. The memory and the id stay until it is given back. */
enum err ca_take_order(struct ca_busy *, struct slice id);
void ca_give_order_back(struct ca_busy *);

/* --- orders, and their parts --- */

void ca_settle_order(struct ca_order *); /* its status, by those of its parts and the time */
bool ca_load_order(struct call *, struct slice id, struct ca_order *); /* else it is answered */
void ca_give_order(struct call *, const struct ca_order *, int status);

/* The name as it was asked for, a wildcard's star included. */
struct slice ca_full_name(struct call *, const struct ca_authorization *);

/* An authorization's id is its order's, and its place there. */
struct slice ca_part_id(struct call *, const struct ca_order *, size_t at);
bool ca_split_part(struct slice id, struct slice *order, size_t *at);
bool ca_load_part(struct call *, struct slice id, struct ca_order *, size_t *at);
void ca_put_challenge(struct call *, struct buffer *, const struct ca_order *, size_t at,
                      const struct ca_challenge *);

/* --- resources --- */

void ca_serve_new_order(struct call *);
void ca_serve_order(struct call *, struct slice id);
void ca_serve_authorization(struct call *, struct slice id);
void ca_serve_challenge(struct call *, struct slice id);
void ca_serve_finalize(struct call *, struct slice id);
void ca_serve_certificate(struct call *, struct slice id);
void ca_serve_revoke(struct call *);
