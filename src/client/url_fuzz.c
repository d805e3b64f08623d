/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a URL, and as a reference: what is accepted can be put into a request's head, and
 * its text means the same again.
 */
#include "base/check.h"
#include "client/url.h"
#include "wire/h1_head.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_url(const struct url *u, struct arena *arena)
{
    const char *why;
    struct url again;
    ASSERT(u->host.len > 0 && u->port > 0);
    ASSERT(u->target.len > 0 && u->target.ptr[0] == '/');
    for (size_t i = 0; i < u->target.len; i++)
        ASSERT((unsigned char)u->target.ptr[i] > 0x20 && (unsigned char)u->target.ptr[i] < 0x7f);
    ASSERT(h1_host_ok(u->authority) && u->authority.len > 0);
    struct slice text = url_text(u, arena);
    if (text.len > URL_MAX) /* escapes made it longer */
        return;
    ASSERT(url_parse(text, &again, arena, &why) == OK);
    ASSERT(slice_eq(again.target, u->target) && slice_eq(again.authority, u->authority));
    ASSERT(again.port == u->port && again.tls == u->tls);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char page[] = "https://example.com:8443/a/b/c?d";
    struct arena arena;
    struct url u, base;
    const char *why;
    struct slice text = slice_of((const char *)data, size);
    arena_init(&arena, 4096);
    if (url_parse(text, &u, &arena, &why) == OK)
        check_url(&u, &arena);
    ASSERT(url_parse(slice_from(page), &base, &arena, &why) == OK);
    if (url_resolve(&base, text, &u, &arena, &why) == OK)
        check_url(&u, &arena);
    arena_deinit(&arena);
    return 0;
}
