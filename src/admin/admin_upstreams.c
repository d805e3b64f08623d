/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All upstreams of which something is known at this moment: those of the configuration and of older
 * ones that still serve, those that DNS gave, replicas of services. The numbers are the process's.
 */
#include "admin/admin_upstreams.h"

#include <stdlib.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/mem.h"
#include "config/jsonx.h"
#include "upstream/endpoint.h"

struct row {
    struct slice address; /* malloc'd */
    int requests;
    unsigned fails;
};

struct rows {
    struct row *items;
    size_t count, cap;
};

static int by_address(const void *a, const void *b)
{
    return slice_cmp(((const struct row *)a)->address, ((const struct row *)b)->address);
}

static void add(const struct endpoint *e, void *arg)
{
    struct rows *r = arg;
    if (atomic_load_explicit(&e->shown, memory_order_relaxed) == 0)
        return;
    if (r->count == r->cap) {
        r->cap = r->cap > 0 ? r->cap * 2 : 64;
        r->items = mem_resize(r->items, r->cap, sizeof *r->items);
    }
    r->items[r->count++] = (struct row){
        slice_of(slice_dup(e->name), e->name.len), endpoint_requests(e),
        endpoint_fails((struct endpoint *)(uintptr_t)e, clock_mono_ns())};
}

static enum err put(struct buffer *b, const struct rows *r)
{
    TRY(BUFFER_PUT(b, "["));
    for (size_t i = 0; i < r->count; i++) {
        TRY(buffer_append_f(b, "%s{\"address\":", i > 0 ? "," : ""));
        TRY(jsonx_put_string(b, r->items[i].address));
        TRY(buffer_append_f(b, ",\"num_requests\":%d,\"fails\":%u}", r->items[i].requests,
                            r->items[i].fails));
    }
    return BUFFER_PUT(b, "]\n");
}

struct slice admin_upstreams(struct arena *arena)
{
    struct rows r = {0};
    struct buffer b;
    endpoints_each(add, &r);
    if (r.count > 0)
        qsort(r.items, r.count, sizeof *r.items, by_address);
    buffer_init(&b, 64 << 20);
    struct slice text = put(&b, &r) == OK ? arena_copy(arena, buffer_slice(&b)) : SLICE_NONE;
    buffer_deinit(&b);
    for (size_t i = 0; i < r.count; i++)
        mem_free((void *)(uintptr_t)r.items[i].address.ptr);
    mem_free(r.items);
    return text;
}
