/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an authority tells (RFC 8555 §7.1, §6.7; RFC 9773 §4.2): bytes in, objects out. The bytes may
 * be anything: size and depth are limited, lists have a maximum, URLs must be http or https without
 * odd bytes, tokens must be tokens. Slices live in the arena. A failure leaves a sentence.
 */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"

enum {
    ACME_JSON_MAX = 512 << 10, /* bytes of one answer */
    ACME_JSON_DEPTH = 32,
    ACME_URL_MAX = 2048,
    ACME_LIST_MAX = 512, /* identifiers, authorizations, contacts */
    ACME_CHALLENGES_MAX = 32,
    ACME_SUBPROBLEMS_MAX = 32,
    ACME_TOKEN_MAX = 512,
};

struct acme_why {
    char text[512];
};

struct acme_identifier {
    struct slice type, value; /* "dns" or "ip" */
};

struct acme_profile {
    struct slice name, description;
};

struct acme_directory {
    struct slice new_nonce, new_account, new_order, revoke_cert, key_change;
    struct slice renewal_info; /* empty: no ARI */
    struct slice terms;        /* a URL; empty: none */
    bool binding_required;     /* externalAccountRequired */
    struct acme_profile *profiles;
    size_t profiles_count;
};

struct acme_problem {
    struct slice type; /* whole; acme_problem_is compares without the ACME namespace */
    struct slice title, detail, instance;
    int status;
    struct acme_identifier identifier; /* of a subproblem */
    struct acme_problem *subproblems;
    size_t subproblems_count;
};

struct acme_account_object {
    struct slice status, orders;
    struct slice location; /* in stored ones only */
    struct slice *contacts;
    size_t contacts_count;
    bool has_contacts, agreed;
    struct slice binding; /* externalAccountBinding, JSON */
};

struct acme_order {
    struct slice location, status, finalize, certificate;
    struct acme_identifier *identifiers;
    size_t identifiers_count;
    struct slice *authorizations;
    size_t authorizations_count;
    struct acme_problem *error; /* NULL: none */
};

struct acme_challenge {
    struct slice type, url, status, token;
    struct acme_problem *error;
};

struct acme_authorization {
    struct slice location, status;
    struct acme_identifier identifier;
    bool wildcard;
    struct acme_challenge *challenges;
    size_t challenges_count;
};

struct acme_renewal {
    int64_t start_s, end_s;
    struct slice start, end; /* as they came */
    struct slice explanation_url;
};

enum err acme_directory_read(struct slice json, struct arena *, struct acme_directory *,
                             struct acme_why *);
enum err acme_account_read(struct slice json, struct arena *, struct acme_account_object *,
                           struct acme_why *);
enum err acme_order_read(struct slice json, struct arena *, struct acme_order *, struct acme_why *);
enum err acme_authorization_read(struct slice json, struct arena *, struct acme_authorization *,
                                 struct acme_why *);
enum err acme_challenge_read(struct slice json, struct arena *, struct acme_challenge *,
                             struct acme_why *);
enum err acme_renewal_read(struct slice json, struct arena *, struct acme_renewal *,
                           struct acme_why *);
enum err acme_problem_read(struct slice json, struct arena *, struct acme_problem *,
                           struct acme_why *);

/* Whether a problem's type is "urn:ietf:params:acme:error:" and this. */
bool acme_problem_is(const struct acme_problem *, const char *type);

/* One line for a person: status, type, detail, subproblems with their names; control bytes are
 * spaces. */
void acme_problem_say(const struct acme_problem *, struct buffer *);

/* An absolute http or https URL of at most ACME_URL_MAX visible ASCII bytes. */
bool acme_url_ok(struct slice);

/* RFC 3339 in seconds since 1970. */
bool acme_time_read(struct slice, int64_t *seconds);
struct slice acme_time_text(int64_t seconds, struct arena *);
