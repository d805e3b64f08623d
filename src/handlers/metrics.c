/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics: answers with the process's metrics as Prometheus text, for scraping without the admin
 * endpoint.
 *
 *     {"handler": "metrics", "disable_openmetrics": false}
 */
#include "handlers/handlers.h"
#include "http/http_metrics.h"

struct metrics {
    bool disable_openmetrics; /* accepted; the text format is all that is ever sent */
};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"disable_openmetrics", NULL};
    struct metrics *m = cfg;
    TRY(provision_members(p, json, members));
    return provision_bool(p, json, "disable_openmetrics", false, &m->disable_openmetrics);
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    struct buffer b;
    (void)cfg;
    (void)next;
    buffer_init(&b, 64 << 20);
    enum err e = metrics_put_all(&b, x);
    struct slice body = arena_copy(x->arena, buffer_slice(&b));
    buffer_deinit(&b);
    if (e != OK)
        return exchange_fail(x, 500, "gathering the metrics");
    fields_set(&x->res.fields, SLICE("Content-Type"),
               SLICE("text/plain; version=0.0.4; charset=utf-8; escaping=underscores"));
    return exchange_answer(x, 200, body);
}

const struct module handler_metrics = {
    .id = "http.handlers.metrics",
    .cfg_size = sizeof(struct metrics),
    .provision = provision,
    .serve = serve,
};
