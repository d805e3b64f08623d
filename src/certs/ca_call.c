/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words of answers, and the order in which fibers come to one order.
 */
#include "certs/ca_call.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "config/jsonx.h"
#include "loop/await.h"

static const char logger[] = "http.handlers.acme_server";

/* --- answers --- */

void ca_refuse(struct call *c, int status, const char *type, const char *format, ...)
{
    char detail[512];
    struct buffer b;
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    buffer_init(&b, 4096);
    (void)buffer_append_f(&b, "{\"type\":\"" CA_NAMESPACE "%s\",\"status\":%d,\"detail\":", type, status);
    (void)jsonx_put_string(&b, slice_from(detail));
    (void)BUFFER_PUT(&b, "}");
    c->answer->status = status;
    c->answer->body = arena_copy(c->arena, buffer_slice(&b));
    c->answer->media = "application/problem+json";
    buffer_deinit(&b);
    LOG(LOG_DEBUG, logger, "request refused", LOG_STR("path", c->request->path),
        LOG_CSTR("type", type), LOG_CSTR("detail", detail));
}

void ca_records_fail(struct call *c)
{
    ca_refuse(c, 500, "serverInternal", "the records of the authority cannot be read or written");
}

struct slice ca_link(struct call *c, const char *kind, struct slice id, const char *rest)
{
    return arena_join(c->arena, (struct slice[]){c->request->base, SLICE("/"), slice_from(kind),
                                                 SLICE("/"), id, slice_from(rest)}, 6);
}

void ca_give(struct call *c, int status, struct buffer *b)
{
    c->answer->status = b->full ? 500 : status;
    c->answer->body = arena_copy(c->arena, buffer_slice(b));
    c->answer->media = "application/json";
}

void ca_put_text(struct buffer *b, const char *before, struct slice value)
{
    (void)buffer_append(b, slice_from(before));
    (void)jsonx_put_string(b, value);
}

int64_t ca_now_s(void)
{
    return clock_wall_ns() / (int64_t)NS_PER_S;
}

const char *ca_member_text(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

/* --- one fiber at a time --- */

static _Thread_local struct list busy_orders;

bool ca_is_busy(const struct list *all, struct slice id)
{
    if (all->next != NULL)
        LIST_FOR (it, all)
            if (slice_eq(CONTAINER_OF(it, struct ca_busy, node)->id, id))
                return true;
    return false;
}

/* `b` and the id stay until it is given back. */
enum err ca_take_order(struct ca_busy *b, struct slice id)
{
    while (ca_is_busy(&busy_orders, id))
        TRY(await_sleep(clock_mono_ns() + 2 * NS_PER_MS));
    if (busy_orders.next == NULL)
        list_init(&busy_orders);
    b->id = id;
    list_append(&busy_orders, &b->node);
    return OK;
}

void ca_give_order_back(struct ca_busy *b)
{
    list_remove(&b->node);
}
