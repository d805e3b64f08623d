/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who reaches a port, of recorded views and of rulesets as nft prints them.
 */
#include "ports/reach.h"

#include "base/buffer.h"
#include "base/test.h"
#include "ports/net_view.h"
#include "ports/ranges.h"

static struct arena arena = {.chunk_size = 1 << 16};

/* eth0 in 10.1.0.0/16 and 2001:db8:1::/64, with or without a way to the world. */
#define LINKS                                                                                      \
    "'links':[{'index':1,'name':'lo','loopback':true},{'index':2,'name':'eth0'}],"                 \
    "'addresses':[{'link':1,'address':'127.0.0.1/8'},{'link':1,'address':'::1/128'},"              \
    "{'link':2,'address':'10.1.0.5/16'},{'link':2,'address':'2001:db8:1::5/64'},"                  \
    "{'link':2,'address':'fe80::5/64'}],"
#define ROUTES                                                                                     \
    "{'link':2,'to':'10.1.0.0/16'},{'link':2,'to':'2001:db8:1::/64'},{'link':2,'to':'fe80::/64'}"
#define HOME "{" LINKS "'routes':[" ROUTES "]}"
#define WORLD                                                                                      \
    "{" LINKS "'routes':[" ROUTES ",{'link':2,'to':'default'},"                                     \
    "{'link':2,'to':'default','six':true}]}"

static json_t *load(const char *text)
{
    char *copy = slice_dup(slice_from(text));
    json_error_t why;
    for (char *p = copy; *p != '\0'; p++)
        *p = *p == '\'' ? '"' : *p;
    json_t *j = json_loads(copy, 0, &why);
    if (j == NULL)
        test_fail(__FILE__, __LINE__, "%s: %s", why.text, copy);
    free(copy);
    return j;
}

static struct net_view *view(const char *links, const char *rules)
{
    char error[256];
    struct net_view *v = NULL;
    json_t *l = load(links), *r = NULL;
    if (rules != NULL) {
        struct slice text = arena_printf(&arena, "{'nftables':[{'table':{'family':'inet','name':'filter'}},"
                                         "%s]}", rules);
        r = load(arena_str(&arena, text));
    }
    CHECK_OK(net_view_parse(&arena, l, r, &v, error, sizeof error));
    json_decref(l);
    json_decref(r);
    return v;
}

static struct port_entry entry(const char *address, uint16_t port)
{
    struct port_entry e = {.port = port, .protocol = PORT_TCP, .listening = true};
    CHECK(ip_parse(slice_from(address), &e.address));
    e.family = e.address.is_six ? PORT_DUAL : PORT_IP4;
    return e;
}

static void check(const struct net_view *v, const char *address, uint16_t port, const char *want)
{
    struct port_entry e = entry(address, port);
    view_reach(v, &e, &arena);
    struct ranges from = {e.reach_from, e.reach_from_count};
    struct slice got = slice_from(port_reach_name(e.reach));
    if (e.reach == REACH_NETWORK)
        got = arena_printf(&arena, "network " SLICE_FMT, SLICE_ARG(ranges_text(from, 9, &arena)));
    if (e.reach == REACH_UNKNOWN)
        got = arena_printf(&arena, "unknown, " SLICE_FMT, SLICE_ARG(e.reach_why));
    CHECK_TEXT(got, want);
}

TEST("without rules, address and routes decide")
{
    struct net_view *v = view(WORLD, NULL), *home = view(HOME, NULL);
    check(v, "0.0.0.0", 80, "world");
    check(v, "::", 80, "world");
    check(v, "10.1.0.5", 80, "world");
    check(v, "127.0.0.1", 80, "device");
    check(v, "::1", 80, "device");
    check(v, "127.9.9.9", 80, "device");
    check(v, "fe80::5", 80, "network fe80::/64");
    check(v, "192.0.2.77", 80, "nobody");
    check(home, "0.0.0.0", 80, "network 10.1.0.0/16");
    check(home, "::", 80, "network 10.1.0.0/16, 2001:db8:1::/64, fe80::/64");
    check(home, "::ffff:10.1.0.5", 80, "network 10.1.0.0/16");
    struct port_entry e = entry("::", 80);
    e.family = PORT_IP6;
    view_reach(home, &e, &arena);
    CHECK_INT(e.reach_from_count, 2);
}

#define CHAIN(name, hook, policy)                                                                  \
    "{'chain':{'family':'inet','table':'filter','name':'" name "','type':'filter','hook':'" hook   \
    "','prio':0,'policy':'" policy "'}}"
#define PLAIN(name) "{'chain':{'family':'inet','table':'filter','name':'" name "'}}"
#define JOIN1(a) a
#define JOIN2(a, b) a "," b
#define JOIN3(a, b, c) a "," b "," c
#define JOIN4(a, b, c, d) a "," b "," c "," d
#define PICK(a, b, c, d, join, ...) join
#define RULE(chain, ...)                                                                           \
    "{'rule':{'family':'inet','table':'filter','chain':'" chain "','handle':7,'expr':["            \
    PICK(__VA_ARGS__, JOIN4, JOIN3, JOIN2, JOIN1, )(__VA_ARGS__) "]}}"
#define MATCH(left, right) "{'match':{'op':'==','left':" left ",'right':" right "}}"
#define NOT(left, right) "{'match':{'op':'!=','left':" left ",'right':" right "}}"
#define FIELD(p, f) "{'payload':{'protocol':'" p "','field':'" f "'}}"
#define META(k) "{'meta':{'key':'" k "'}}"
#define TO(v) "{'" v "':null}"
#define SHUT CHAIN("input", "input", "drop") ","
#define OPEN CHAIN("input", "input", "accept") ","

TEST("a shut chain lets in what its rules name")
{
    struct net_view *v = view(WORLD, SHUT
        RULE("input", MATCH("{'ct':{'key':'state'}}", "['established','related']"), TO("accept")) ","
        RULE("input", MATCH(META("iif"), "'lo'"), TO("accept")) ","
        RULE("input", MATCH(FIELD("tcp", "dport"), "{'set':[80,{'range':[440,450]}]}"), TO("accept")) ","
        RULE("input", MATCH(FIELD("ip", "saddr"), "{'prefix':{'addr':'192.0.2.0','len':24}}"),
             MATCH(FIELD("tcp", "dport"), "22"), "{'counter':{}}", TO("accept")) ","
        RULE("input", MATCH(FIELD("udp", "dport"), "53"), TO("accept")));
    check(v, "0.0.0.0", 80, "world");
    check(v, "0.0.0.0", 443, "world");
    check(v, "0.0.0.0", 22, "network 192.0.2.0/24");
    check(v, "::", 22, "network 192.0.2.0/24");
    check(v, "0.0.0.0", 53, "device");
    check(v, "0.0.0.0", 3000, "device");
}

TEST("what is dropped first is gone, what returns meets the policy")
{
    struct net_view *v = view(WORLD, OPEN PLAIN("web") ","
        RULE("input", NOT(FIELD("ip", "saddr"), "'@mine'"), MATCH(FIELD("tcp", "dport"), "22"),
             "{'reject':{'type':'tcp reset'}}") ","
        RULE("input", "{'vmap':{'key':" FIELD("tcp", "dport") ",'data':{'set':["
             "[{'range':[8000,8010]},{'jump':{'target':'web'}}],[9,{'drop':null}]]}}}") ","
        RULE("web", MATCH(FIELD("ip", "saddr"), "'10.1.2.3'"), TO("return")) ","
        RULE("web", TO("drop")) ","
        "{'set':{'family':'inet','name':'mine','table':'filter','type':'ipv4_addr','elem':["
        "{'prefix':{'addr':'10.0.0.0','len':8}},{'range':['192.0.2.4','192.0.2.5']}]}}");
    check(v, "0.0.0.0", 22, "network 10.0.0.0/8, 192.0.2.4/31");
    check(v, "::", 22, "world"); /* the condition is of IPv4 only */
    check(v, "0.0.0.0", 8005, "network 10.1.2.3");
    check(v, "0.0.0.0", 9, "nobody");
    check(v, "0.0.0.0", 10, "world");
}

TEST("what is in an empty set is nothing: a trial that is over, a list of banned addresses")
{
    struct net_view *v = view(WORLD, OPEN
        "{'set':{'family':'inet','name':'trial','table':'filter','type':'nf_proto','flags':['timeout']}},"
        "{'set':{'family':'inet','name':'banned','table':'filter','type':'ipv4_addr','elem':[]}},"
        "{'map':{'family':'inet','name':'where','table':'filter','type':'inet_service','map':'verdict'}},"
        RULE("input", MATCH(META("nfproto"), "'@trial'"), TO("drop")) ","
        RULE("input", MATCH(FIELD("ip", "saddr"), "'@banned'"), TO("drop")) ","
        RULE("input", "{'vmap':{'key':" FIELD("tcp", "dport") ",'data':'@where'}}") ","
        RULE("input", MATCH(FIELD("tcp", "dport"), "22"), NOT(FIELD("ip", "saddr"), "'@banned'"),
             TO("drop")));
    check(v, "0.0.0.0", 80, "world");
    check(v, "0.0.0.0", 22, "nobody");
}

TEST("what is not followed matters only where it could change the outcome")
{
    struct net_view *v = view(WORLD, SHUT
        RULE("input", MATCH(META("mark"), "1"), MATCH(FIELD("tcp", "dport"), "22"), TO("accept")) ","
        RULE("input", MATCH(META("mark"), "2"), MATCH(FIELD("tcp", "dport"), "80"), TO("accept")) ","
        RULE("input", MATCH(FIELD("tcp", "dport"), "80"), TO("accept")));
    check(v, "0.0.0.0", 22, "unknown, filtered by table inet filter");
    check(v, "0.0.0.0", 80, "world");
    check(v, "0.0.0.0", 443, "nobody");
    v = view(WORLD, OPEN RULE("input", "{'xt':{'type':'match','name':'u32'}}", TO("drop")));
    check(v, "0.0.0.0", 80, "unknown, filtered by table inet filter");
    check(v, "127.0.0.1", 80, "unknown, filtered by table inet filter");
}

/* Sources cut into `holes` + 1 parts, then `rules` rules that cut each of them again. */
static struct net_view *cut_often(unsigned holes, unsigned rules)
{
    struct buffer b;
    buffer_init(&b, 8 << 20);
    BUFFER_PUT(&b, OPEN "{'set':{'family':'inet','name':'many','table':'filter','type':'ipv4_addr',"
                   "'elem':['203.0.113.1'");
    for (unsigned i = 0; i < holes; i++)
        buffer_append_f(&b, ",'20.%u.%u.1'", i >> 8, i & 255);
    BUFFER_PUT(&b, "]}}," RULE("input", MATCH(FIELD("ip", "saddr"), "'@many'"), TO("drop")));
    for (unsigned i = 0; i < rules; i++)
        buffer_append_f(&b, "," RULE("input", MATCH(FIELD("ip", "saddr"), "'30.%u.%u.1'"), TO("drop")),
                        i >> 8, i & 255);
    struct net_view *v = view(WORLD, arena_str(&arena, buffer_slice(&b)));
    buffer_deinit(&b);
    return v;
}

TEST("a ruleset that costs too much to follow is not followed to its end, wherever it is long")
{
    check(cut_often(100, 500), "0.0.0.0", 80, "world");
    check(cut_often(3000, 2500), "0.0.0.0", 80, "unknown, filtered by table inet filter");
}

TEST("limits let a first packet through, what is over them does not count")
{
    struct net_view *v = view(WORLD, SHUT
        RULE("input", "{'limit':{'rate':5,'per':'second','inv':true}}", TO("drop")) ","
        RULE("input", MATCH(FIELD("tcp", "dport"), "22"), "{'limit':{'rate':5,'per':'second'}}",
             TO("accept")));
    check(v, "0.0.0.0", 22, "world");
    check(v, "0.0.0.0", 23, "nobody");
}

TEST("a redirected port is reached by its other number, a published one goes through forward")
{
#define NAT "{'chain':{'family':'inet','table':'filter','name':'pre','type':'nat','hook':'prerouting'," \
            "'prio':-100,'policy':'accept'}},"
    struct net_view *v = view(WORLD, NAT SHUT
        RULE("pre", MATCH(FIELD("tcp", "dport"), "80"), "{'redirect':{'port':8080}}") ","
        RULE("input", MATCH("{'ct':{'key':'status'}}", "'dnat'"), TO("accept")) ","
        RULE("pre", MATCH(FIELD("tcp", "dport"), "5000"),
             "{'dnat':{'family':'ip','addr':'172.17.0.2','port':80}}"));
    check(v, "0.0.0.0", 8080, "world");
    check(v, "0.0.0.0", 80, "nobody");
    check(v, "0.0.0.0", 5000, "world");
    check(v, "0.0.0.0", 5001, "nobody");
}

TEST("rules that cannot be read make it unknown, but not for the loopback address")
{
    struct net_view *v = view(WORLD, NULL);
    v->rules_unread = SLICE("rules that only root may read");
    check(v, "0.0.0.0", 80, "unknown, filtered by rules that only root may read");
    check(v, "127.0.0.1", 80, "device");
}

TEST("the explanation names each rule that decides")
{
    struct net_view *v = view(WORLD, SHUT
        RULE("input", MATCH(FIELD("ip", "saddr"), "{'prefix':{'addr':'10.0.0.0','len':8}}"), TO("accept")));
    struct port_entry e = entry("0.0.0.0", 3000);
    CHECK_TEXT(reach_explain(v, &e, &arena),
        "TCP port 3000 listens on every IPv4 address of its namespace.\n"
        "By interface eth0, over IPv4, packets come from everywhere (a default route leads there).\n"
        "  table inet filter, chain input, rule 1 (handle 7): accepts TCP from 10.0.0.0/8.\n"
        "  table inet filter, chain input, its policy: drops TCP from everywhere but 10.0.0.0/8.\n"
        "So it is reached by 10.0.0.0/8 and this device.\n");
}

TEST("bytes of netlink that are broken are refused or skipped")
{
    struct net_view v = {0};
    bool done = false;
    char bytes[64] = {20, 0, 0, 0, 3, 0};
    CHECK_OK(net_view_bytes(&arena, slice_of(bytes, 20), &v, &done));
    CHECK(done);
    bytes[0] = 70;
    CHECK_INT(net_view_bytes(&arena, slice_of(bytes, 64), &v, &done), ERR_INVALID);
}
