/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a certificate is to be renewed: by what its authority suggests (ARI, RFC 9773), or by what is
 * left of its lifetime.
 */
#pragma once

#include "certs/issuance.h"

struct renewal_info {       /* seconds since 1970; 0: none */
    int64_t start_s, end_s; /* the suggested window */
    int64_t selected_s;     /* a random time in it */
    int64_t look_again_s;
};

struct renewal_span {
    int64_t not_before_s, not_after_s;
};

enum renewal_reason { RENEWAL_NOT_YET, RENEWAL_BY_WINDOW, RENEWAL_BY_RATIO, RENEWAL_EMERGENCY };

/* `interval_s`: how long until somebody looks again. */
enum renewal_reason renewal_due(struct renewal_span, const struct renewal_info *, double ratio,
                                int64_t interval_s, int64_t now_s);

bool renewal_has_window(const struct renewal_info *);
bool renewal_wants_look(const struct renewal_info *, int64_t now_s);

/* What an authority has just said; the selected time stays when the window does. */
void renewal_update(struct renewal_info *, const struct renewal_window *, int64_t now_s);

/* The "renewal_info" of an issuer's data (certmagic's form): reading leaves zeros where there is
 * none, writing gives the whole data anew in the arena. */
void renewal_read(struct slice issuer_data, struct renewal_info *);
struct slice renewal_put(struct slice issuer_data, const struct renewal_info *, struct slice id,
                         struct slice explanation_url, struct arena *);
