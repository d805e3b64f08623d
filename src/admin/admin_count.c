/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters by path, handler, method and status. Paths are the API's own few and methods the
 * standard ones, so that a client cannot make the list long; it is the control thread's.
 */
#include "admin/admin_count.h"

enum { COUNTERS_MAX = 512 };

static struct counter {
    const char *path, *handler;
    enum method method;
    int status;
    uint64_t count;
} counters[COUNTERS_MAX];
static size_t counters_count;

static const char *method_name(enum method m)
{
    static const char *const names[] = {
        [METHOD_OTHER] = "OTHER", [METHOD_GET] = "GET", [METHOD_HEAD] = "HEAD",
        [METHOD_POST] = "POST", [METHOD_PUT] = "PUT", [METHOD_DELETE] = "DELETE",
        [METHOD_OPTIONS] = "OPTIONS", [METHOD_PATCH] = "PATCH", [METHOD_CONNECT] = "CONNECT",
        [METHOD_TRACE] = "TRACE"};
    return names[m];
}

void admin_count(const struct exchange *x, const char *path, const char *handler)
{
    for (size_t i = 0; i < counters_count; i++) {
        struct counter *c = &counters[i];
        if (c->status == x->res.status && c->method == x->req.method_id && c->path == path) {
            c->count++;
            return;
        }
    }
    if (counters_count < COUNTERS_MAX)
        counters[counters_count++] =
            (struct counter){path, handler, x->req.method_id, x->res.status, 1};
}

static enum err put_errors(struct buffer *b)
{
    bool begun = false;
    for (size_t i = 0; i < counters_count; i++) {
        const struct counter *c = &counters[i];
        if (c->status < 400)
            continue;
        if (!begun)
            TRY(BUFFER_PUT(b, "# HELP caddy_admin_http_request_errors_total Number of requests "
                              "resulting in middleware errors.\n"
                              "# TYPE caddy_admin_http_request_errors_total counter\n"));
        uint64_t sum = 0;
        begun = true;
        for (size_t k = 0; k < counters_count; k++) {
            const struct counter *other = &counters[k];
            bool same = other->status >= 400 && other->path == c->path && other->method == c->method;
            if (same && k < i) { /* told with the first of them */
                sum = 0;
                break;
            }
            sum += same ? other->count : 0;
        }
        if (sum > 0)
            TRY(buffer_append_f(b, "caddy_admin_http_request_errors_total{handler=\"%s\","
                                   "method=\"%s\",path=\"%s\"} %llu\n",
                                c->handler, method_name(c->method), c->path,
                                (unsigned long long)sum));
    }
    return OK;
}

enum err admin_count_put(struct buffer *b)
{
    TRY(put_errors(b));
    TRY(BUFFER_PUT(b, "# HELP caddy_admin_http_requests_total Counter of requests made to the Admin "
                      "API's HTTP endpoints.\n"
                      "# TYPE caddy_admin_http_requests_total counter\n"));
    for (size_t i = 0; i < counters_count; i++) {
        const struct counter *c = &counters[i];
        TRY(buffer_append_f(b, "caddy_admin_http_requests_total{code=\"%d\",handler=\"%s\","
                               "method=\"%s\",path=\"%s\"} %llu\n",
                            c->status, c->handler, method_name(c->method), c->path,
                            (unsigned long long)c->count));
    }
    return OK;
}
