/* SPDX-License-Identifier: Apache-2.0 */
/*
 * push: accepted and without effect. HTTP/2 server push is gone from all browsers; a Link field with
 * rel=preload is what is left of it, and that needs no handler.
 *
 *     {"handler": "push", "resources": [{"target": "/style.css"}], "headers": {…}}
 */
#include "base/log.h"
#include "handlers/handlers.h"
#include "http/route.h"

static const char *const members[] = {"resources", "headers", NULL};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    (void)cfg;
    TRY(provision_members(p, json, members));
    LOG(LOG_WARN, "http.handlers.push", "HTTP/2 server push has no effect: browsers do not take it any "
        "more", LOG_STR("where", p->path));
    return OK;
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    (void)cfg;
    return chain_next(x, next);
}

const struct module handler_push = {
    .id = "http.handlers.push",
    .cfg_size = 1,
    .provision = provision,
    .serve = serve,
};
