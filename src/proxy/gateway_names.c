/* SPDX-License-Identifier: Apache-2.0 */
/*
 * {http.reverse_proxy.NAME}: made when somebody asks, from the round that the exchange remembers.
 */
#include "base/clock.h"
#include "base/text.h"
#include "proxy/gateway.h"

typedef struct slice value_of(const struct round *, struct arena *);

static struct slice number(struct arena *arena, int64_t n)
{
    return arena_printf(arena, "%lld", (long long)n);
}

static struct slice duration(struct arena *arena, uint64_t ns)
{
    struct buffer b;
    buffer_init(&b, 64);
    (void)!duration_put(&b, (int64_t)ns);
    struct slice text = arena_copy(arena, buffer_slice(&b));
    buffer_deinit(&b);
    return text;
}

static struct slice milliseconds(struct arena *arena, uint64_t ns)
{
    return arena_printf(arena, "%.6g", (double)ns / 1e6);
}

static uint64_t total(const struct round *r)
{
    return r->total_ns > 0 ? r->total_ns : loop_now_ns(loop_self()) - r->start_ns;
}

static struct slice duration_all(const struct round *r, struct arena *a)
{
    return duration(a, total(r));
}

static struct slice duration_all_ms(const struct round *r, struct arena *a)
{
    return milliseconds(a, total(r));
}

static struct slice retries(const struct round *r, struct arena *a)
{
    return number(a, r->tries);
}

static struct slice hedged(const struct round *r, struct arena *a)
{
    (void)a;
    return r->hedged ? SLICE("true") : SLICE("false");
}

static struct slice hedge_won(const struct round *r, struct arena *a)
{
    (void)a;
    return r->hedge_won ? SLICE("true") : SLICE("false");
}

static struct slice status_code(const struct round *r, struct arena *a)
{
    return r->status > 0 ? number(a, r->status) : SLICE_NONE;
}

static struct slice status_line(const struct round *r, struct arena *a)
{
    return r->status > 0 ? arena_printf(a, "%d %s", r->status, status_text(r->status))
                         : SLICE_NONE;
}

static struct slice transport_error(const struct round *r, struct arena *a)
{
    (void)a;
    return r->failure == FAILURE_UPSTREAM ? SLICE("true") : SLICE("false");
}

static struct slice address(const struct round *r, struct arena *a)
{
    (void)a;
    return r->address.text;
}

static struct slice hostport(const struct round *r, struct arena *a)
{
    (void)a;
    return r->address.hostport;
}

static struct slice host(const struct round *r, struct arena *a)
{
    (void)a;
    return r->address.host;
}

static struct slice port(const struct round *r, struct arena *a)
{
    (void)a;
    return r->address.port;
}

static struct slice requests(const struct round *r, struct arena *a)
{
    return number(a, r->upstream_requests);
}

static struct slice max_requests(const struct round *r, struct arena *a)
{
    return number(a, r->upstream != NULL ? r->upstream->max_requests : 0);
}

static struct slice fails(const struct round *r, struct arena *a)
{
    return number(a, r->upstream_fails);
}

/* For room at an upstream (overload.queue). */
static struct slice queued_time(const struct round *r, struct arena *a)
{
    return duration(a, r->queued_ns);
}

static struct slice queued_ms(const struct round *r, struct arena *a)
{
    return milliseconds(a, r->queued_ns);
}

/* From the choice of the upstream until the connection could be written to; of a kept one about 0. */
static struct slice connect_time(const struct round *r, struct arena *a)
{
    return duration(a, r->connect_ns);
}

static struct slice connect_ms(const struct round *r, struct arena *a)
{
    return milliseconds(a, r->connect_ns);
}

static struct slice latency(const struct round *r, struct arena *a)
{
    return duration(a, r->latency_ns);
}

static struct slice latency_ms(const struct round *r, struct arena *a)
{
    return milliseconds(a, r->latency_ns);
}

static struct slice upstream_duration(const struct round *r, struct arena *a)
{
    return duration(a, r->upstream_ns);
}

static struct slice upstream_duration_ms(const struct round *r, struct arena *a)
{
    return milliseconds(a, r->upstream_ns);
}

static const struct {
    const char *name;
    value_of *value;
} values[] = {
    {"duration", duration_all},
    {"duration_ms", duration_all_ms},
    {"hedge_won", hedge_won},
    {"hedged", hedged},
    {"is_transport_error", transport_error},
    {"queued", queued_time},
    {"queued_ms", queued_ms},
    {"retries", retries},
    {"status_code", status_code},
    {"status_text", status_line},
    {"upstream.address", address},
    {"upstream.hostport", hostport},
    {"upstream.host", host},
    {"upstream.port", port},
    {"upstream.requests", requests},
    {"upstream.max_requests", max_requests},
    {"upstream.fails", fails},
    {"upstream.connect", connect_time},
    {"upstream.connect_ms", connect_ms},
    {"upstream.latency", latency},
    {"upstream.latency_ms", latency_ms},
    {"upstream.duration", upstream_duration},
    {"upstream.duration_ms", upstream_duration_ms},
};

/* All values of a field of the upstream's answer, joined as Caddy does. */
static struct slice header(const struct round *r, struct slice name, struct arena *arena)
{
    uint32_t at = 0;
    struct field *f = fields_find(&r->answer_fields, name, &at);
    struct slice all = f != NULL ? f->value : SLICE_NONE;
    while (f != NULL && (f = fields_find(&r->answer_fields, name, &at)) != NULL)
        all = arena_join(arena, (struct slice[]){all, SLICE(","), f->value}, 3);
    return all;
}

bool gateway_value(struct exchange *x, struct slice name, struct slice *value)
{
    const struct round *r = (const struct round *)x->gateway;
    if (slice_starts(name, SLICE("header."))) {
        *value = header(r, slice_skip(name, 7), x->arena);
        return true;
    }
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        if (slice_is(name, values[i].name)) {
            *value = values[i].value(r, x->arena);
            return true;
        }
    }
    return false;
}
