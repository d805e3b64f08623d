/* SPDX-License-Identifier: Apache-2.0 */
/*
 * error: fails the request on purpose, so that the error routes answer it.
 *
 *     {"handler": "error", "error": "no such shop", "status_code": 404}
 */
#include "handlers/handlers.h"

struct error_handler {
    struct template message, status;
};

static const char *const members[] = {"error", "status_code", NULL};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct error_handler *h = cfg;
    TRY(provision_members(p, json, members));
    TRY(provision_template(p, json, "error", SLICE(""), &h->message));
    return provision_template(p, json, "status_code", SLICE("500"), &h->status);
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    const struct error_handler *h = cfg;
    int status;
    (void)next; /* never called: this handler fails */
    if (!template_status(&h->status, x, &status))
        return exchange_fail(x, 500, "error: the status code is not a number from 100 to 999");
    return exchange_fail(x, status, arena_str(x->arena, template_expand_known(&h->message, x)));
}

const struct module handler_error = {
    .id = "http.handlers.error",
    .cfg_size = sizeof(struct error_handler),
    .provision = provision,
    .serve = serve,
};
