/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request_body: the largest body that later handlers may read (beyond it the request fails with 413,
 * and the connection is closed, since the rest of the body is not wanted); until when it must have
 * come, and the answer be sent; or another body in its place.
 *
 *     {"handler": "request_body", "max_size": 1000000, "read_timeout": "10s", "write_timeout": "1m",
 *      "set": "{http.request.uri}"}
 */
#include "handlers/handlers.h"
#include "base/clock.h"
#include "http/route.h"

struct request_body {
    int64_t max_size, read_timeout_ns, write_timeout_ns;
    struct template set;
};

static const char *const members[] = {"max_size", "read_timeout", "write_timeout", "set", NULL};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct request_body *b = cfg;
    TRY(provision_members(p, json, members));
    TRY(provision_int(p, json, "max_size", 0, INT64_MIN, INT64_MAX, &b->max_size));
    TRY(provision_duration(p, json, "read_timeout", 0, &b->read_timeout_ns));
    TRY(provision_duration(p, json, "write_timeout", 0, &b->write_timeout_ns));
    return provision_template(p, json, "set", SLICE(""), &b->set);
}

static void replace_body(const struct request_body *b, struct exchange *x)
{
    x->body = template_expand(&b->set, x);
    x->body_set = true;
    x->req.has_body = x->body.len > 0;
    x->req.content_length = (int64_t)x->body.len;
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    const struct request_body *b = cfg;
    if (b->set.text.len > 0)
        replace_body(b, x);
    if (b->max_size > 0 && (uint64_t)b->max_size < x->body_max)
        x->body_max = (uint64_t)b->max_size;
    if (b->read_timeout_ns > 0)
        x->read_by_ns = clock_mono_ns() + (uint64_t)b->read_timeout_ns;
    if (b->write_timeout_ns > 0)
        x->answer_by_ns = clock_mono_ns() + (uint64_t)b->write_timeout_ns;
    return chain_next(x, next);
}

const struct module handler_request_body = {
    .id = "http.handlers.request_body",
    .cfg_size = sizeof(struct request_body),
    .provision = provision,
    .serve = serve,
};
