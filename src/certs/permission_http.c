/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls.permission.http, "ask": an endpoint is asked with ?domain=NAME whether a name may have a
 * certificate. 2xx means yes; anything else, redirects too, means no.
 *
 * An endpoint that is no URL of HTTP ("localhost:5555/check") is told of and taken, as in Caddy: every
 * question fails then, but the names that are managed otherwise are served.
 *
 *   {"module": "http", "endpoint": "http://localhost:5555/check"}
 */
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "certs/automation.h"
#include "certs/certs_modules.h"
#include "certs/question.h"
#include "client/fetch.h"
#include "http/template.h"

enum { PERMISSION_ANSWER_MAX = 1 << 16 };

struct permission {
    struct slice endpoint;
};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"module", "endpoint", NULL};
    struct permission *c = cfg;
    TRY(provision_members(p, json, known));
    TRY(provision_text(p, json, "endpoint", SLICE_NONE, &c->endpoint));
    c->endpoint = template_expand_now(c->endpoint, p->arena);
    if (!slice_starts_nocase(c->endpoint, SLICE("http://")) &&
        !slice_starts_nocase(c->endpoint, SLICE("https://")))
        LOG(LOG_WARN, "tls.permission.http", "the endpoint must be a URL that begins with http:// or "
            "https://: no certificate will be allowed", LOG_STR("endpoint", c->endpoint));
    return OK;
}

static enum err allows(const void *cfg, struct slice name, struct slice remote, char *why, size_t cap)
{
    const struct permission *c = cfg;
    struct arena arena;
    struct fetch_answer answer = {.status = 0};
    const struct question_pair pair = {SLICE("domain"), name};
    arena_init(&arena, 8192);
    struct fetch_request request = {.url = question_url(&arena, c->endpoint, &pair, 1),
                                    .timeout_ns = 10 * NS_PER_S,
                                    .answer_max = PERMISSION_ANSWER_MAX};
    LOG(LOG_DEBUG, "tls.permission.http", "asking permission endpoint", LOG_STR("remote", remote),
        LOG_STR("domain", name), LOG_STR("url", request.url));
    enum err e = fetch(&request, &arena, &answer);
    if (e == ERR_LIMIT && answer.status != 0)
        e = OK; /* what it says besides does not matter */
    if (e != OK) {
        snprintf(why, cap, "checking " SLICE_FMT " to determine if certificate for hostname '"
                 SLICE_FMT "' should be allowed: %s", SLICE_ARG(c->endpoint), SLICE_ARG(name),
                 answer.why);
    } else {
        LOG(LOG_DEBUG, "tls.permission.http", "response from permission endpoint",
            LOG_STR("remote", remote), LOG_STR("domain", name), LOG_STR("url", request.url),
            LOG_NUM("status", answer.status));
        if (answer.status < 200 || answer.status > 299) {
            snprintf(why, cap, SLICE_FMT ": certificate not allowed by permission module "
                     SLICE_FMT " - non-2xx status code %d", SLICE_ARG(name),
                     SLICE_ARG(c->endpoint), answer.status);
            e = ERR_DENIED;
        }
    }
    arena_deinit(&arena);
    return e == ERR_DENIED || e == OK ? e : ERR_FAILED;
}

static const struct permission_type face = {allows};

const struct module permission_http = {.id = "tls.permission.http",
                                       .cfg_size = sizeof(struct permission),
                                       .provision = provision,
                                       .face = &face};
