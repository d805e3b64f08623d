/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reach of ports in the namespace that it runs in, for tests/reach_packets_test.py: each argument
 * is PROTOCOL/ADDRESS/PORT, each line of output the word, then the ranges that get in, or why it is
 * not known. With "explain" as the first argument: the sentences.
 */
#include <stdio.h>

#include "base/slice.h"
#include "ports/ranges.h"
#include "ports/reach.h"

static bool entry_of(const char *text, struct port_entry *e)
{
    struct slice protocol, rest, address, digits;
    uint64_t port;
    *e = (struct port_entry){.listening = true};
    slice_cut(slice_from(text), '/', &protocol, &rest);
    slice_cut(rest, '/', &address, &digits);
    if (!port_protocol_parse(protocol, &e->protocol) || !ip_parse(address, &e->address) ||
        !slice_to_u64(digits, 65535, &port))
        return false;
    e->port = (uint16_t)port;
    e->family = e->address.is_six ? PORT_DUAL : PORT_IP4;
    return true;
}

static void tell(const struct net_view *v, struct port_entry *e, struct arena *arena)
{
    view_reach(v, e, arena);
    printf("%s", port_reach_name(e->reach));
    for (size_t i = 0; i < e->reach_from_count; i++) {
        char first[IP_TEXT_MAX], last[IP_TEXT_MAX];
        size_t a = ip_text(&e->reach_from[i].first, first), b = ip_text(&e->reach_from[i].last, last);
        printf(" %.*s-%.*s", (int)a, first, (int)b, last);
    }
    if (e->reach == REACH_UNKNOWN)
        printf(" " SLICE_FMT, SLICE_ARG(e->reach_why));
    putchar('\n');
}

int main(int argc, char **argv)
{
    struct arena arena;
    struct net_view *v;
    char error[512];
    bool explain = argc > 1 && slice_is(slice_from(argv[1]), "explain");
    arena_init(&arena, 1 << 16);
    if (net_view_read(&arena, &v, error, sizeof error) != OK) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    for (int i = 1 + explain; i < argc; i++) {
        struct port_entry e;
        if (!entry_of(argv[i], &e)) {
            fprintf(stderr, "%s: not PROTOCOL/ADDRESS/PORT\n", argv[i]);
            return 1;
        }
        if (explain) {
            struct slice text = reach_explain(v, &e, &arena);
            fwrite(text.ptr, 1, text.len, stdout);
        } else {
            tell(v, &e, &arena);
        }
    }
    arena_deinit(&arena);
    return 0;
}
