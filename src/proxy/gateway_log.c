/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the gateway says at the level debug: one line for each attempt, with the request as it went up
 * and the head that came back; and, with verbose_logs, one for each of its steps. Nothing is built
 * while nobody wants that level.
 */
#include "base/log.h"
#include "http/access_log.h"
#include "proxy/gateway.h"

#define LOGGER "http.handlers.reverse_proxy"

enum { OWN_FIELDS = 3 };

static size_t put_own(struct round *r, uint64_t ns, struct log_field *out)
{
    struct fields sent = gateway_fields(r);
    struct slice host;
    fields_get(&sent, SLICE("Host"), &host);
    out[0] = LOG_STR("upstream", r->address.text);
    out[1] = LOG_DUR("duration", ns);
    out[2] = access_log_sent(r->x, r->method, host, r->target, &sent);
    return OWN_FIELDS;
}

static struct log_field answer_headers(struct round *r)
{
    struct fields fs;
    const struct h1_head *h = &r->answer->head;
    fields_init(&fs, r->x->arena);
    for (unsigned i = 0; i < h->count; i++)
        fields_add(&fs, h->fields[i].name, h->fields[i].value);
    return access_log_headers(r->x, &fs);
}

void gateway_log_round(struct round *r, enum err e)
{
    struct log_field fields[OWN_FIELDS + 2];
    if (!log_wants(LOG_DEBUG))
        return;
    size_t n = put_own(r, r->latency_ns, fields);
    if (e == OK) {
        fields[n++] = answer_headers(r);
        fields[n++] = LOG_NUM("status", r->status);
    } else {
        fields[n++] = LOG_CSTR("error", r->why);
    }
    log_emit(LOG_DEBUG, LOGGER, SLICE("upstream roundtrip"), fields, n);
}

void gateway_log_step(struct round *r, const char *text, const struct log_field *more, size_t count)
{
    struct log_field fields[OWN_FIELDS + 3];
    if (!log_wants(LOG_DEBUG))
        return;
    size_t n = put_own(r, loop_now_ns(loop_self()) - r->attempt_ns, fields);
    for (size_t i = 0; i < count && n < sizeof fields / sizeof *fields; i++)
        fields[n++] = more[i];
    log_emit(LOG_DEBUG, LOGGER, slice_from(text), fields, n);
}
