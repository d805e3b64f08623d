/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as what nft prints, as the kernel's list of tables and as its links, addresses and routes:
 * nothing is read beyond them, and a port has some answer behind any ruleset.
 */
#include "base/buffer.h"
#include "ports/net_view.h"
#include "ports/nft_run.h"
#include "ports/reach.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void network(struct arena *a, struct slice bytes)
{
    struct net_view v = {0};
    bool done = false;
    struct buffer names;
    buffer_init(&names, 1 << 16);
    (void)net_view_bytes(a, bytes, &v, &done);
    (void)nft_tables_parse(bytes, &names, &done);
    net_view_finish(a, &v);
    buffer_deinit(&names);
}

static void rules(struct arena *a, struct slice text)
{
    static const struct ip_range all[] = {{{0, {0}}, {0, {255, 255, 255, 255}}}};
    struct nft_ruleset *ruleset;
    char error[128];
    if (nft_ruleset_parse(a, text, &ruleset, error, sizeof error) != OK)
        return;
    struct net_link links[] = {{.index = 2, .name = SLICE("eth0"), .up = true}};
    struct net_address addresses[] = {{2, {0, {10, 0, 0, 1}}, all[0]}};
    struct net_route routes[] = {{2, all[0]}};
    struct net_view v = {.links = links, .links_count = 1, .addresses = addresses,
                         .addresses_count = 1, .routes = routes, .routes_count = 1,
                         .ruleset = ruleset};
    struct port_entry e = {.port = 22, .protocol = PORT_TCP, .family = PORT_IP4};
    net_view_finish(a, &v);
    view_reach(&v, &e, a);
    (void)reach_explain(&v, &e, a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    arena_init(&a, 1 << 16);
    if (size > 0 && data[0] == '{')
        rules(&a, slice_of((const char *)data, size));
    else
        network(&a, slice_of((const char *)data, size));
    arena_deinit(&a);
    return 0;
}
