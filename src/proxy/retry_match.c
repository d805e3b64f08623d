/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "retry_match": which requests may be sent again. A set of matchers without an expression is about the
 * request, and asked when an attempt ended without an answer. One with an expression may be about the
 * answer ({rp.status_code}, {rp.header.X}), so that it is asked for each answer, too: where it matches,
 * the answer goes nowhere, and another upstream is asked; the last one's status becomes an error. That
 * is no failure of the upstream, which has answered.
 *
 * An answer to a request whose body is gone goes to the client whatever it is: nothing better can come.
 */
#include "base/log.h"
#include "handlers/handlers.h"
#include "proxy/gateway.h"

#define LOGGER "http.handlers.reverse_proxy"

static bool has_expression(const struct matcher_set *set)
{
    for (uint32_t i = 0; i < set->count; i++)
        if (set->matchers[i].module == &matcher_expression)
            return true;
    return false;
}

enum err retry_match_provision(struct gateway *g, const json_t *json, struct provision *p)
{
    TRY(matcher_sets_provision(&g->retry_match, &g->retry_match_count, json, p));
    g->answer_match = ARENA_ARRAY(p->arena, struct matcher_set, g->retry_match_count);
    for (uint32_t i = 0; i < g->retry_match_count; i++)
        if (has_expression(&g->retry_match[i]))
            g->answer_match[g->answer_match_count++] = g->retry_match[i];
    return OK;
}

enum err retry_match_request(struct round *r, bool *matches)
{
    const struct gateway *g = r->g;
    *matches = r->x->req.method_id == METHOD_GET && slice_is(r->method, "GET"); /* as sent, too */
    if (g->retry_match_count == 0)
        return OK;
    return matcher_sets_match(g->retry_match, g->retry_match_count, r->x, matches);
}

enum err retry_match_answer(struct round *r)
{
    const struct gateway *g = r->g;
    bool matches;
    if (r->has_body && !r->body_whole)
        return OK;
    struct exchange_error before = r->x->error;
    if (matcher_sets_match(g->answer_match, g->answer_match_count, r->x, &matches) != OK) {
        if (fiber_self()->cancelled != OK) {
            r->error = fiber_self()->cancelled;
            return gateway_round_error(r, FAILURE_CLIENT, 499, "context canceled");
        }
        LOG(LOG_ERROR, LOGGER, "error matching request for retry",
            LOG_STR("error", r->x->error.message));
        r->x->error = before;
        return OK;
    }
    if (!matches)
        return OK;
    struct slice why = arena_printf(r->x->arena, "upstream response matched retry_match (status %d)"
                                    "%c", r->status, 0);
    return gateway_round_error(r, FAILURE_ANSWER, r->status, why.ptr);
}
