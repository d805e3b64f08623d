/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request_body: the largest body that later handlers may read; beyond it the request fails with
 * 413, and the connection is closed, since the rest of the body is not wanted.
 *
 *     {"handler": "request_body", "max_size": 1000000}
 */
#include "handlers/handlers.h"
#include "http/route.h"

struct request_body {
    int64_t max_size;
};

static const char *const members[] = {"max_size", NULL};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct request_body *b = cfg;
    TRY(provision_members(p, json, members));
    return provision_int(p, json, "max_size", 0, 0, INT64_MAX, &b->max_size);
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    const struct request_body *b = cfg;
    if (b->max_size > 0 && (uint64_t)b->max_size < x->body_max)
        x->body_max = (uint64_t)b->max_size;
    return chain_next(x, next);
}

const struct module handler_request_body = {
    .id = "http.handlers.request_body",
    .cfg_size = sizeof(struct request_body),
    .provision = provision,
    .serve = serve,
};
