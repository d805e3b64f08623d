/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The token is the authority's choice and cannot be guessed, so whoever knows it may have the answer.
 */
#include "http/challenge_answer.h"

#include "base/log.h"
#include "http/uri.h"
#include "tls/challenge.h"

enum { TOKEN_MAX = 512 };

enum err (*challenge_stored_hook)(struct exchange *, struct slice host, struct slice token,
                                  struct slice *key_authorization);

_Static_assert(sizeof CHALLENGE_PREFIX == sizeof VALIDATION_PREFIX, "both are cut off alike");

static bool is_token(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = ascii_lower(s.ptr[i]);
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '_' && c != '.')
            return false;
    }
    return s.len > 0 && s.len <= TOKEN_MAX;
}

bool challenge_answer(struct exchange *x, enum err *e)
{
    struct slice host, port, answer;
    bool file = slice_starts(x->req.uri.path, SLICE(VALIDATION_PREFIX));
    struct slice token = slice_skip(x->req.uri.path, sizeof CHALLENGE_PREFIX - 1); /* or the other's */
    if (x->req.method_id != METHOD_GET || !challenge_asked(x) || !is_token(token))
        return false;
    host_split(x->req.host, &host, &port);
    bool stored = !challenge_http_find(token, x->arena, &answer);
    if (stored && (file || challenge_stored_hook == NULL ||
                   challenge_stored_hook(x, host, token, &answer) != OK))
        return false;
    exchange_addresses(x);
    LOG(LOG_INFO, "tls.issuance.acme", "served key authentication", LOG_STR("identifier", host),
        LOG_CSTR("challenge", "http-01"), LOG_STR("remote", x->remote_host),
        LOG_BOOLEAN("distributed", stored));
    fields_set(&x->res.fields, SLICE("Content-Type"), SLICE("text/plain"));
    x->close_after = true;
    *e = exchange_answer(x, 200, answer);
    return true;
}
