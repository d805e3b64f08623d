/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For every link that is up: the packets that can come by it (its routes), to the addresses on which
 * the socket listens. Any address of the machine answers on any link (the kernel's "weak host"), but
 * for those of the loopback and the link-local ones. Destinations of different kinds have different
 * sources, so they are asked apart.
 */
#include "ports/reach_walk.h"

enum { PORTS_ASKED = 512 };

static const struct ip_range parts[] = {
    {{1, {0xfc}}, {1, {0xfd, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}}},
    {{1, {0xfe, 0x80}},
     {1, {0xfe, 0xbf, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}}},
};
static const struct ip_range link_four = {{0, {169, 254, 0, 0}}, {0, {169, 254, 255, 255}}};
static const struct ip_range public_six = {
    {1, {0x20}}, {1, {0x3f, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}}};

static const struct {
    const char *name;
    unsigned number;
} protocols[PORT_PROTOCOLS] = {{"tcp", 6}, {"udp", 17}, {"udplite", 136}, {"sctp", 132}, {"dccp", 33}};

enum reach_kind reach_kind_of(const struct ip_address *a)
{
    static const uint8_t one[16] = {[15] = 1};
    const uint8_t *b = a->bytes;
    if (a->is_six ? memcmp(b, one, 16) == 0 : b[0] == 127)
        return REACH_LOOPBACK;
    if (a->is_six ? b[0] == 0xff : b[0] >= 224)
        return REACH_MULTICAST;
    if (a->is_six ? b[0] == 0xfe && (b[1] & 0xc0) == 0x80 : b[0] == 169 && b[1] == 254)
        return REACH_LINK;
    return a->is_six && (b[0] & 0xfe) == 0xfc ? REACH_UNIQUE_LOCAL : REACH_WIDE;
}

bool reach_is_every(const struct ip_address *a)
{
    static const uint8_t none[16];
    return memcmp(a->bytes, none, 16) == 0;
}

struct ip_address reach_address(const struct port_entry *e, bool *mapped)
{
    static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};
    struct ip_address a = e->address;
    *mapped = a.is_six && memcmp(a.bytes, prefix, sizeof prefix) == 0;
    if (*mapped) {
        struct ip_address four = {0};
        memcpy(four.bytes, a.bytes + 12, 4);
        a = four;
    }
    return a;
}

bool reach_has_family(const struct port_entry *e, bool six)
{
    bool mapped;
    struct ip_address a = reach_address(e, &mapped);
    if (!reach_is_every(&a) || mapped)
        return a.is_six == six;
    return e->family == PORT_DUAL || (e->family == PORT_IP6) == six;
}

bool reach_is_world(struct ranges r)
{
    double six = 0;
    for (size_t i = 0; i < r.count; i++) {
        struct ip_range x = r.items[i];
        if (!x.first.is_six || memcmp(&x.last, &public_six.first, sizeof x.last) < 0 ||
            memcmp(&x.first, &public_six.last, sizeof x.first) > 0)
            continue;
        if (memcmp(&x.first, &public_six.first, sizeof x.first) < 0)
            x.first = public_six.first;
        if (memcmp(&x.last, &public_six.last, sizeof x.last) > 0)
            x.last = public_six.last;
        six += ranges_share((struct ranges){&x, 1}, true);
    }
    return ranges_share(r, false) > 0.5 || six > 0.5 / 8;
}

/* ---- what comes by a link ---- */

static struct ranges link_networks(struct reach_ask *r, const struct net_link *l)
{
    struct ip_range *all = ARENA_ARRAY(r->arena, struct ip_range, r->view->addresses_count + 1);
    size_t n = 0;
    for (size_t i = 0; i < r->view->addresses_count; i++) {
        if (r->view->addresses[i].link == l->index)
            all[n++] = r->view->addresses[i].network;
    }
    return ranges_of(r->arena, all, n);
}

static struct ranges can_come(struct reach_ask *r, const struct net_link *l, bool six,
                              enum reach_kind kind)
{
    struct ranges all = l->routed[six];
    if (kind == REACH_LINK)
        return ranges_and(r->arena, link_networks(r, l),
                          (struct ranges){six ? &parts[1] : &link_four, 1});
    if (kind == REACH_UNIQUE_LOCAL)
        return ranges_and(r->arena, all, ranges_of(r->arena, parts, 2));
    if (kind == REACH_MULTICAST)
        return ranges_and(r->arena, all, link_networks(r, l));
    return all;
}

static bool goes_here(void *context, const struct ip_address *to, struct slice *oif)
{
    const struct reach_ask *r = context;
    const struct ip_range *best = NULL;
    if (net_is_local(r->view, to))
        return true;
    for (size_t i = 0; i < r->view->routes_count; i++) {
        const struct net_route *route = &r->view->routes[i];
        const struct net_link *l = net_link_of(r->view, route->link);
        bool closer = best == NULL || memcmp(&route->to.first, &best->first, sizeof *to) > 0 ||
                      memcmp(&route->to.last, &best->last, sizeof *to) < 0;
        if (l == NULL || !ip_range_has(&route->to, to) || !closer)
            continue;
        best = &route->to;
        *oif = l->name;
    }
    return false;
}

struct asked {
    const struct net_link *link;
    bool six;
    struct ranges from;
    const struct ip_address *to;
    size_t to_count;
};

static void trace(void *context, const struct nft_step *step)
{
    struct reach_ask *r = context;
    if (r->trace != NULL)
        r->trace(r->context, step);
}

static void ask_port(struct reach_ask *r, const struct asked *a, uint16_t port)
{
    const struct port_entry *e = r->entry;
    struct nft_outcome out;
    struct nft_packet p = {.six = a->six,
                           .l4 = protocols[e->protocol].name,
                           .l4_number = protocols[e->protocol].number,
                           .port = port,
                           .iif = a->link->name,
                           .iif_index = a->link->index,
                           .bridge = slice_eq(a->link->kind, SLICE("bridge")),
                           .from = a->from,
                           .to = a->to,
                           .to_count = a->to_count,
                           .goes_here = goes_here,
                           .trace = r->trace != NULL && port == e->port ? trace : NULL,
                           .context = r};
    nft_walk(r->view->ruleset, &p, e->port, r->arena, &out);
    r->sure = ranges_or(r->arena, r->sure, out.sure);
    r->unsure = ranges_or(r->arena, r->unsure, out.unsure);
    r->carried = ranges_or(r->arena, r->carried, out.carried);
    if (r->why.len == 0)
        r->why = out.why;
}

static void ask(struct reach_ask *r, const struct asked *a)
{
    const struct nft_ruleset *rules = r->view->ruleset;
    if (a->from.count == 0 || a->to_count == 0)
        return;
    if (r->begin != NULL)
        r->begin(r->context, a->link, a->six, a->from);
    if (r->view->rules_unread.len > 0 && a->link->loopback) {
        r->sure = ranges_or(r->arena, r->sure, a->from); /* rules that cut a machine in two are rare */
        return;
    }
    if (r->view->rules_unread.len > 0) {
        r->unsure = ranges_or(r->arena, r->unsure, a->from);
        r->why = r->view->rules_unread;
        return;
    }
    ask_port(r, a, r->entry->port);
    if (!rules->has_dnat || rules->cuts_count > PORTS_ASKED)
        return;
    /* A rule may send packets of another port here. Two ports without a cut between are alike. */
    for (size_t i = 0; i < rules->cuts_count; i++) {
        if (rules->cuts[i] != r->entry->port)
            ask_port(r, a, (uint16_t)rules->cuts[i]);
    }
}

static bool wanted(const struct reach_ask *r, const struct net_link *l, const struct net_address *n,
                   bool six, enum reach_kind kind)
{
    bool mapped;
    struct ip_address bound = reach_address(r->entry, &mapped);
    if (n->address.is_six != six || reach_kind_of(&n->address) != kind)
        return false;
    if (kind == REACH_LINK && n->link != l->index)
        return false;
    return reach_is_every(&bound) || memcmp(&bound, &n->address, sizeof bound) == 0;
}

static void ask_kind(struct reach_ask *r, const struct net_link *l, bool six, enum reach_kind kind)
{
    struct ip_address *to = ARENA_ARRAY(r->arena, struct ip_address, r->view->addresses_count + 1);
    size_t n = 0;
    bool mapped;
    for (size_t i = 0; i < r->view->addresses_count; i++) {
        if (wanted(r, l, &r->view->addresses[i], six, kind))
            to[n++] = r->view->addresses[i].address;
    }
    if (kind == REACH_MULTICAST)
        to[n++] = reach_address(r->entry, &mapped);
    for (size_t i = 0; i < n; i += NFT_TO_MAX) {
        struct asked a = {l, six, can_come(r, l, six, kind), to + i,
                          n - i < NFT_TO_MAX ? n - i : NFT_TO_MAX};
        ask(r, &a);
    }
}

void reach_walk(struct reach_ask *r)
{
    bool mapped;
    struct ip_address bound = reach_address(r->entry, &mapped);
    enum reach_kind kind = reach_kind_of(&bound);
    r->sure = r->unsure = r->carried = RANGES_NONE;
    r->why = SLICE_NONE;
    if (kind == REACH_LOOPBACK && !reach_is_every(&bound))
        return;
    for (size_t i = 0; i < r->view->links_count; i++) {
        const struct net_link *l = &r->view->links[i];
        if (!l->up || l->loopback || (r->entry->scope != 0 && r->entry->scope != l->index))
            continue;
        for (int six = 0; six < 2; six++) {
            if (!reach_has_family(r->entry, six) || l->routed[six].count == 0)
                continue;
            if (!reach_is_every(&bound)) {
                ask_kind(r, l, six, kind);
                continue;
            }
            for (enum reach_kind k = REACH_WIDE; k < REACH_MULTICAST; k++)
                ask_kind(r, l, six, k);
        }
    }
    r->unsure = ranges_minus(r->arena, r->unsure, r->sure);
}

void reach_walk_device(struct reach_ask *r)
{
    static const struct ip_address loops[2] = {{0, {127, 0, 0, 1}}, {1, {[15] = 1}}};
    struct net_link lo = {.index = 1, .name = SLICE("lo"), .up = true, .loopback = true};
    bool mapped;
    struct ip_address bound = reach_address(r->entry, &mapped);
    r->sure = r->unsure = r->carried = RANGES_NONE;
    r->why = SLICE_NONE;
    for (int six = 0; six < 2; six++) {
        struct ip_address to = reach_is_every(&bound) ? loops[six] : bound;
        struct ip_range from = {to, to};
        if (!reach_has_family(r->entry, six))
            continue;
        if (!net_is_local(r->view, &to) && reach_kind_of(&to) != REACH_MULTICAST)
            continue;
        ask(r, &(struct asked){&lo, six, {&from, 1}, &to, 1});
    }
}
