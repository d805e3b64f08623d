/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three dumps of rtnetlink (RFC 3549), a parser of their bytes, and nft's list. Routes of every table
 * count but the local one: rules that choose between tables are not followed, so a route in any of
 * them is a way. Routes that lead nowhere (blackhole, unreachable, prohibit) are none.
 */
#include "ports/net_view.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ports/nft_run.h"
#include "ports/reach.h"

enum { CHUNK = 65536, ITEMS_MAX = 200000, RULES_MAX = 128 << 20, NAMES_MAX = 1 << 20 };

/* ---- bytes ---- */

static void *grown(struct arena *a, void *old, size_t count, size_t size)
{
    if (count != 0 && (count < 16 || (count & (count - 1)) != 0))
        return old;
    void *more = arena_alloc_array(a, count == 0 ? 16 : 2 * count, size);
    if (count > 0)
        memcpy(more, old, count * size);
    return more;
}

static struct net_link *link_add(struct arena *a, struct net_view *v)
{
    v->links = grown(a, v->links, v->links_count, sizeof *v->links);
    v->links[v->links_count] = (struct net_link){0};
    return &v->links[v->links_count++];
}

static struct net_address *address_add(struct arena *a, struct net_view *v)
{
    v->addresses = grown(a, v->addresses, v->addresses_count, sizeof *v->addresses);
    v->addresses[v->addresses_count] = (struct net_address){0};
    return &v->addresses[v->addresses_count++];
}

static void route_add(struct arena *a, struct net_view *v, unsigned link, const struct ip_range *to)
{
    if (v->routes_count >= ITEMS_MAX)
        return;
    v->routes = grown(a, v->routes, v->routes_count, sizeof *v->routes);
    v->routes[v->routes_count++] = (struct net_route){link, *to};
}

/* The next attribute; false at the end, or where they are broken. */
static bool attribute(struct slice *rest, unsigned *type, struct slice *value)
{
    struct rtattr a;
    if (rest->len < sizeof a)
        return false;
    memcpy(&a, rest->ptr, sizeof a);
    if (a.rta_len < sizeof a || a.rta_len > rest->len)
        return false;
    *type = a.rta_type & NLA_TYPE_MASK;
    *value = slice_of(rest->ptr + sizeof a, a.rta_len - sizeof a);
    *rest = slice_skip(*rest, RTA_ALIGN(a.rta_len));
    return true;
}

static struct slice until_nul(struct slice s)
{
    return slice_take(s, slice_find(s, '\0'));
}

static void read_link(struct arena *a, struct slice body, struct net_view *v)
{
    struct ifinfomsg m;
    struct slice rest, value, inner;
    unsigned type;
    if (body.len < sizeof m || v->links_count >= ITEMS_MAX)
        return;
    memcpy(&m, body.ptr, sizeof m);
    struct net_link *l = link_add(a, v);
    l->index = (unsigned)m.ifi_index;
    l->up = (m.ifi_flags & IFF_UP) != 0;
    l->loopback = (m.ifi_flags & IFF_LOOPBACK) != 0;
    rest = slice_skip(body, NLMSG_ALIGN(sizeof m));
    while (attribute(&rest, &type, &value)) {
        if (type == IFLA_IFNAME)
            l->name = arena_copy(a, until_nul(value));
        for (; type == IFLA_LINKINFO && attribute(&value, &type, &inner); type = IFLA_LINKINFO) {
            if (type == IFLA_INFO_KIND)
                l->kind = arena_copy(a, until_nul(inner));
        }
    }
}

static bool read_ip(uint8_t family, struct slice value, struct ip_address *out)
{
    *out = (struct ip_address){.is_six = family == AF_INET6};
    if (value.len != (out->is_six ? 16u : 4u))
        return false;
    memcpy(out->bytes, value.ptr, value.len);
    return true;
}

static bool prefix_of(const struct ip_address *a, unsigned length, struct ip_range *out)
{
    char text[IP_TEXT_MAX + 8];
    size_t n = ip_text(a, text);
    snprintf(text + n, sizeof text - n, "/%u", length);
    return ip_range_parse(slice_from(text), out);
}

static void read_address(struct arena *a, struct slice body, struct net_view *v)
{
    struct ifaddrmsg m;
    struct slice rest, value;
    struct ip_address here = {0};
    unsigned type;
    bool any = false;
    if (body.len < sizeof m || v->addresses_count >= ITEMS_MAX)
        return;
    memcpy(&m, body.ptr, sizeof m);
    rest = slice_skip(body, NLMSG_ALIGN(sizeof m));
    while (attribute(&rest, &type, &value)) {
        /* On a point-to-point link IFA_ADDRESS is the other end. */
        if ((type == IFA_ADDRESS && !any) || type == IFA_LOCAL)
            any = read_ip(m.ifa_family, value, &here);
    }
    if (!any)
        return;
    struct net_address *n = address_add(a, v);
    n->link = m.ifa_index;
    n->address = here;
    if (!prefix_of(&here, m.ifa_prefixlen, &n->network))
        n->network = (struct ip_range){here, here};
}

static void read_hops(struct arena *a, struct slice hops, const struct ip_range *to, struct net_view *v)
{
    struct rtnexthop h;
    while (hops.len >= sizeof h) {
        memcpy(&h, hops.ptr, sizeof h);
        if (h.rtnh_len < sizeof h || h.rtnh_len > hops.len)
            return;
        route_add(a, v, (unsigned)h.rtnh_ifindex, to);
        hops = slice_skip(hops, RTNH_ALIGN(h.rtnh_len));
    }
}

static void read_route(struct arena *a, struct slice body, struct net_view *v)
{
    struct rtmsg m;
    struct slice rest, value, hops = SLICE_NONE;
    unsigned type;
    uint32_t link = 0, table;
    if (body.len < sizeof m)
        return;
    memcpy(&m, body.ptr, sizeof m);
    bool ip = m.rtm_family == AF_INET || m.rtm_family == AF_INET6;
    struct ip_address to = {.is_six = m.rtm_family == AF_INET6};
    struct ip_range range;
    table = m.rtm_table;
    rest = slice_skip(body, NLMSG_ALIGN(sizeof m));
    while (attribute(&rest, &type, &value)) {
        if (type == RTA_DST)
            ip = ip && read_ip(m.rtm_family, value, &to);
        else if (type == RTA_OIF && value.len == sizeof link)
            memcpy(&link, value.ptr, sizeof link);
        else if (type == RTA_TABLE && value.len == sizeof table)
            memcpy(&table, value.ptr, sizeof table);
        else if (type == RTA_MULTIPATH)
            hops = value;
    }
    if (!ip || m.rtm_type != RTN_UNICAST || table == RT_TABLE_LOCAL ||
        !prefix_of(&to, m.rtm_dst_len, &range))
        return;
    if (hops.len > 0)
        read_hops(a, hops, &range, v);
    else
        route_add(a, v, link, &range);
}

enum err net_view_bytes(struct arena *a, struct slice bytes, struct net_view *v, bool *done)
{
    while (bytes.len >= sizeof(struct nlmsghdr)) {
        struct nlmsghdr h;
        memcpy(&h, bytes.ptr, sizeof h);
        if (h.nlmsg_len < sizeof h || h.nlmsg_len > bytes.len)
            return ERR_INVALID;
        struct slice body = slice_of(bytes.ptr + sizeof h, h.nlmsg_len - sizeof h);
        if (h.nlmsg_type == NLMSG_DONE || h.nlmsg_type == NLMSG_ERROR)
            *done = true;
        if (h.nlmsg_type == NLMSG_ERROR)
            return ERR_IO;
        if (h.nlmsg_type == RTM_NEWLINK)
            read_link(a, body, v);
        else if (h.nlmsg_type == RTM_NEWADDR)
            read_address(a, body, v);
        else if (h.nlmsg_type == RTM_NEWROUTE)
            read_route(a, body, v);
        bytes = slice_skip(bytes, NLMSG_ALIGN(h.nlmsg_len));
    }
    return OK;
}

/* ---- what follows from it ---- */

const struct net_link *net_link_of(const struct net_view *v, unsigned index)
{
    for (size_t i = 0; i < v->links_count; i++) {
        if (v->links[i].index == index)
            return &v->links[i];
    }
    return NULL;
}

static bool is_loopback(const struct ip_address *a)
{
    static const uint8_t one[16] = {[15] = 1};
    return a->is_six ? memcmp(a->bytes, one, 16) == 0 : a->bytes[0] == 127;
}

bool net_is_local(const struct net_view *v, const struct ip_address *a)
{
    if (is_loopback(a))
        return true;
    for (size_t i = 0; i < v->addresses_count; i++) {
        if (memcmp(&v->addresses[i].address, a, sizeof *a) == 0)
            return true;
    }
    return false;
}

static int by_size(const void *a, const void *b)
{
    const struct net_route *x = a, *y = b;
    if (x->to.first.is_six != y->to.first.is_six)
        return x->to.first.is_six - y->to.first.is_six;
    for (int i = 0; i < 16; i++) { /* the last address minus the first: smaller is more specific */
        int dx = x->to.last.bytes[i] - x->to.first.bytes[i], dy = y->to.last.bytes[i] - y->to.first.bytes[i];
        if (dx != dy)
            return dx - dy;
    }
    return 0;
}

/* What the routes of one size lead to by a link, without what a more specific one takes. */
static void give_routed(struct arena *a, const struct net_view *v, struct net_link *l, size_t first,
                        size_t behind, struct ranges taken)
{
    struct ip_range *all = ARENA_ARRAY(a, struct ip_range, behind - first);
    bool six = v->routes[first].to.first.is_six;
    size_t n = 0;
    for (size_t i = first; i < behind; i++) {
        if (v->routes[i].link == l->index || v->routes[i].link == 0)
            all[n++] = v->routes[i].to;
    }
    struct ranges mine = ranges_minus(a, ranges_of(a, all, n), taken);
    l->routed[six] = ranges_or(a, l->routed[six], mine);
}

/* An answer goes the way of the most specific route, so packets are taken to come that way, too. */
void net_view_finish(struct arena *a, struct net_view *v)
{
    struct ranges taken = RANGES_NONE;
    if (v->ruleset == NULL)
        v->ruleset = ARENA_NEW(a, struct nft_ruleset);
    if (v->routes_count > 0)
        qsort(v->routes, v->routes_count, sizeof *v->routes, by_size);
    for (size_t first = 0, behind; first < v->routes_count; first = behind) {
        for (behind = first + 1; behind < v->routes_count &&
                                 by_size(&v->routes[first], &v->routes[behind]) == 0;)
            behind++;
        struct ip_range *all = ARENA_ARRAY(a, struct ip_range, behind - first);
        for (size_t i = first; i < behind; i++)
            all[i - first] = v->routes[i].to;
        for (size_t i = 0; i < v->links_count; i++) {
            if (v->links[i].up && !v->links[i].loopback)
                give_routed(a, v, &v->links[i], first, behind, taken);
        }
        taken = ranges_or(a, taken, ranges_of(a, all, behind - first));
    }
}

/* ---- reading ---- */

static enum err dump(int fd, enum net_dump what, struct arena *a, struct net_view *v)
{
    static const uint16_t types[] = {RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE};
    struct {
        struct nlmsghdr h;
        struct rtmsg body; /* as large as the other two need it to be: only the family is read */
    } ask = {{sizeof ask, types[what], NLM_F_REQUEST | NLM_F_DUMP, (uint32_t)what + 1, 0},
             {.rtm_family = AF_UNSPEC}};
    static _Thread_local char bytes[CHUNK];
    bool done = false;
    enum err e = send(fd, &ask, sizeof ask, 0) == sizeof ask ? OK : err_from_errno(errno);
    while (e == OK && !done) {
        ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        e = n < 0 ? err_from_errno(errno) : net_view_bytes(a, slice_of(bytes, (size_t)n), v, &done);
    }
    return e;
}

static enum err read_network(struct arena *a, struct net_view *v, char *error, size_t cap)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    enum err e = fd < 0 ? err_from_errno(errno) : dump(fd, NET_LINKS, a, v);
    if (e == OK)
        e = dump(fd, NET_ADDRESSES, a, v);
    if (e == OK)
        e = dump(fd, NET_ROUTES, a, v);
    if (e != OK)
        snprintf(error, cap, "the interfaces, addresses and routes could not be read: %s", err_text(e));
    if (fd >= 0)
        close(fd);
    return e;
}

/* The tables of legacy iptables are in no list of nft. By the thread, since it is the one that entered
 * the namespace. */
static void read_legacy(struct arena *a, const char *path, const char *program, struct net_view *v)
{
    char names[256];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, names, sizeof names);
    if (fd >= 0)
        close(fd);
    if (n <= 0 || v->rules_unread.len > 0)
        return;
    struct slice line, rest;
    slice_cut(slice_of(names, (size_t)n), '\n', &line, &rest);
    v->rules_unread = arena_printf(a, "table " SLICE_FMT " of legacy %s, which is not followed",
                                   SLICE_ARG(line), program);
}

static void read_rules(struct arena *a, struct net_view *v)
{
    static const char *const list[] = {"nft", "-j", "list", "ruleset", NULL};
    char error[512];
    struct buffer names, text;
    struct nft_ruleset *ruleset;
    buffer_init(&names, NAMES_MAX);
    buffer_init(&text, RULES_MAX);
    enum err e = nft_tables(&names);
    if (e == ERR_DENIED)
        v->rules_unread = SLICE("rules that only root may read");
    else if (e == OK && names.len > 0) {
        e = nft_run(list, SLICE_NONE, &text, error, sizeof error);
        if (e == OK)
            e = nft_ruleset_parse(a, buffer_slice(&text), &ruleset, error, sizeof error);
        if (e == OK)
            v->ruleset = ruleset;
        else
            v->rules_unread = arena_printf(a, "rules that could not be read: %s", error);
    }
    buffer_deinit(&names);
    buffer_deinit(&text);
}

enum err net_view_read(struct arena *a, struct net_view **out, char *error, size_t cap)
{
    struct net_view *v = ARENA_NEW(a, struct net_view);
    TRY(read_network(a, v, error, cap));
    read_rules(a, v);
    read_legacy(a, "/proc/thread-self/net/ip_tables_names", "iptables", v);
    read_legacy(a, "/proc/thread-self/net/ip6_tables_names", "ip6tables", v);
    net_view_finish(a, v);
    *out = v;
    return OK;
}

/* ---- from JSON ---- */

static unsigned number(const json_t *o, const char *key)
{
    return (unsigned)json_integer_value(json_object_get(o, key));
}

static bool json_route(const json_t *o, struct ip_range *to)
{
    struct slice text = nft_text(json_object_get(o, "to"));
    if (!slice_eq(text, SLICE("default")))
        return ip_range_parse(text, to);
    return ip_range_parse(json_is_true(json_object_get(o, "six")) ? SLICE("::/0") : SLICE("0.0.0.0/0"),
                          to);
}

enum err net_view_parse(struct arena *a, const json_t *view, const json_t *ruleset,
                        struct net_view **out, char *error, size_t cap)
{
    struct net_view *v = ARENA_NEW(a, struct net_view);
    size_t i;
    json_t *o;
    struct ip_range r;
    json_array_foreach(json_object_get(view, "links"), i, o) {
        struct net_link *l = link_add(a, v);
        l->index = number(o, "index");
        l->name = arena_copy(a, nft_text(json_object_get(o, "name")));
        l->kind = arena_copy(a, nft_text(json_object_get(o, "kind")));
        l->loopback = json_is_true(json_object_get(o, "loopback"));
        l->up = true;
    }
    json_array_foreach(json_object_get(view, "addresses"), i, o) {
        struct net_address *n = address_add(a, v);
        struct slice text = nft_text(json_object_get(o, "address")), address, length;
        slice_cut(text, '/', &address, &length);
        if (!ip_parse(address, &n->address) || !ip_range_parse(text, &n->network)) {
            snprintf(error, cap, "address " SLICE_FMT " is none", SLICE_ARG(slice_take(text, 80)));
            return ERR_INVALID;
        }
        n->link = number(o, "link");
    }
    json_array_foreach(json_object_get(view, "routes"), i, o) {
        if (!json_route(o, &r)) {
            snprintf(error, cap, "route %zu leads nowhere", i + 1);
            return ERR_INVALID;
        }
        route_add(a, v, number(o, "link"), &r);
    }
    if (ruleset != NULL) {
        struct nft_ruleset *rules;
        TRY(nft_ruleset_make(a, ruleset, &rules, error, cap));
        v->ruleset = rules;
    }
    net_view_finish(a, v);
    *out = v;
    return OK;
}
