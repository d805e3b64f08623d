/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of reverse_proxy, which php_fastcgi, forward_auth and intercept are made of too.
 */
#pragma once

#include "adapter/directives.h"

/* The source or policy whose name is at the cursor. */
MUST_USE enum err dynamic_read(struct adapt *, struct dispenser *, json_t **source);
MUST_USE enum err policy_read(struct adapt *, struct dispenser *, json_t **policy);

/* Which words could stand there; options come first. */
enum proxy_words { WORDS_PROXY, WORDS_HTTP, WORDS_FASTCGI, WORDS_POLICY, WORDS_SOURCE, WORDS_TRANSPORT };

/* Behind an error about the word at the cursor: what may have been meant. Returns the error. */
MUST_USE enum err proxy_hint(struct dispenser *, enum proxy_words, enum err);

struct upstream_address;
void proxy_warn_upstream(struct dispenser *, struct slice text, const struct upstream_address *);
void proxy_warn_variable(struct dispenser *, struct slice value);
void proxy_warn_auth_uri(struct dispenser *, struct slice uri);

/* A name behind that option which no field can have. */
void proxy_warn_field(struct dispenser *, const char *option, struct slice name);

/* As proxy_hint, about an upstream. */
MUST_USE enum err proxy_hint_upstream(struct dispenser *, struct slice text, enum err);

/* The word at the cursor, "10%", as 0.1. */
MUST_USE enum err read_share(struct dispenser *, const char *option, double *share);

/* Whether the word at the cursor is one of portico's own options about overload, which was read then. */
MUST_USE enum err overload_option(struct adapt *, struct dispenser *, json_t *handler, bool *known);

/* Likewise the transport; without its inline key. */
MUST_USE enum err transport_read(struct adapt *, struct dispenser *, const char **name,
                                 json_t **transport);

/* Ours: "mirror UPSTREAM [SHARE%] { … }" at the cursor, into the handler. */
MUST_USE enum err mirror_read(struct adapt *, struct dispenser *, json_t *handler);

/* Ours: "hedge DURATION|pN [SHARE%] { … }" likewise. */
MUST_USE enum err hedge_read(struct adapt *, struct dispenser *, json_t *handler);

/* What `handle_response` and `replace_status` gather; too large for a stack. */
struct responses {
    struct helper *h;
    struct named_matcher *matchers;
    json_t *with, *without; /* those with a matcher, and those without: these come last */
    struct dispenser blocks[64];
    size_t count;
};

void responses_init(struct responses *, struct helper *);
MUST_USE enum err responses_matcher(struct responses *);        /* "@name …" at the cursor */
MUST_USE enum err responses_replace_status(struct responses *);
MUST_USE enum err responses_block(struct responses *);          /* "handle_response …" */
MUST_USE enum err responses_finish(struct responses *, json_t *handler);

/* reverse_proxy's words at the helper's cursor into a handler that may hold some things already;
 * `first` is an answer's handling before all others, or NULL. */
MUST_USE enum err proxy_read(struct helper *, json_t *handler, json_t *first);
