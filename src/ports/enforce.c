/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table as text for nft:
 *
 *   table inet portico {
 *     set a_pass_tcp { type inet_service; flags interval; counter; elements = { 80, 443 } }
 *     set a_1_tcp { … }  set a_1_from4 { type ipv4_addr; flags interval; … }
 *     chain a_1 { ip saddr @a_1_from4 accept; counter drop }
 *     chain a { udp sport 67 udp dport 68 accept; tcp dport @a_pass_tcp accept;
 *               tcp dport @a_1_tcp goto a_1; meta l4proto { tcp, udp, … } counter drop }
 *     chain input { type filter hook input priority -5; policy accept;
 *                   iif lo accept; ct state established,related accept;
 *                   meta l4proto != { tcp, udp, … } accept;
 *                   meta nfproto @trial goto b; goto a }
 *   }
 *
 * Only protocols that have ports are judged: ICMP with its errors, neighbour discovery and path MTU,
 * multicast membership, tunnels and VPNs pass. Only the hook input: what is forwarded (containers)
 * is none of it. Two generations of rules, a and b, can stand side by side: during a trial the newer
 * is used while the set "trial" has elements, which the kernel takes out when their time is over.
 *
 * Ports of a verdict stand in interval sets whose elements count the first packets of connections. An
 * interval is two elements of a tree; thousands of ports that stand alone are a set of their own
 * (a_1_each_tcp), a hash table, which takes the kernel and nft half the time.
 */
#include "ports/enforce.h"

#include <stdio.h>

#include "ports/nft_events.h"
#include "ports/nft_run.h"
#include "ports/ranges.h"

#define TABLE "inet portico"
#define UNAPPLY "add chain " TABLE " " NFT_UNAPPLIED "\ndelete table " TABLE "\n"
#define WITH_PORTS "{ tcp, udp, udplite, sctp, dccp }"

static const char *l4_name(unsigned p)
{
    return port_protocol_name((enum port_protocol)p);
}

/* ---- sets ---- */

enum { MANY_SINGLES = 256 };

/* A set of a group's ports; and those that it has of them. */
struct port_set {
    const struct enforce_plan *plan;
    unsigned protocol;
    size_t group;
    enum { SET_ALL, SET_EACH, SET_RANGES } holds;
};

static bool is_of_set(const struct port_set *s, const struct enforce_interval *v)
{
    return s->holds == SET_ALL || (v->first == v->last) == (s->holds == SET_EACH);
}

/* The group's intervals: all of them are looked at once for a set, whatever the other groups have. */
static const struct enforce_interval *of_group(const struct port_set *s, size_t *count)
{
    const uint32_t *starts = s->plan->group_starts[s->protocol];
    *count = starts[s->group + 1] - starts[s->group];
    return s->plan->by_group[s->protocol] + starts[s->group];
}

static size_t set_size(const struct port_set *s)
{
    size_t n = 0, count;
    const struct enforce_interval *all = of_group(s, &count);
    for (size_t i = 0; i < count; i++)
        n += is_of_set(s, &all[i]);
    return n;
}

static void put_set_name(const struct port_set *s, char g, struct buffer *b)
{
    buffer_append_f(b, "%c_%zu%s_%s", g, s->group, s->holds == SET_EACH ? "_each" : "",
                    l4_name(s->protocol));
}

/* By hand: there may be 65,535 of them, for each protocol. */
static void put_elements(const struct port_set *s, struct buffer *b)
{
    bool first = true;
    size_t count;
    const struct enforce_interval *v = of_group(s, &count);
    for (const struct enforce_interval *end = v + count; v < end; v++) {
        if (!is_of_set(s, v))
            continue;
        if (!first)
            BUFFER_PUT(b, ", ");
        first = false;
        buffer_append_u64(b, v->first);
        if (v->last != v->first) {
            BUFFER_PUT(b, "-");
            buffer_append_u64(b, v->last);
        }
    }
}

/* The set, and the rule that asks it; `verdict` with its line's end. */
static void put_set(const struct port_set *s, const char *verdict, char g, struct buffer *b)
{
    size_t size = set_size(s);
    if (size == 0)
        return;
    BUFFER_PUT(b, "add set " TABLE " ");
    put_set_name(s, g, b);
    BUFFER_PUT(b, " { type inet_service; ");
    if (s->holds == SET_EACH)
        buffer_append_f(b, "size %zu; counter; elements = { ", size);
    else
        BUFFER_PUT(b, "flags interval; counter; elements = { ");
    put_elements(s, b);
    buffer_append_f(b, " }; }\nadd rule " TABLE " %c %s dport @", g, l4_name(s->protocol));
    put_set_name(s, g, b);
    buffer_append_f(b, " %s", verdict);
}

static void put_address(const struct ip_address *a, struct buffer *b)
{
    char text[IP_TEXT_MAX];
    buffer_append(b, slice_of(text, ip_text(a, text)));
}

static bool put_from(const struct enforce_group *group, size_t number, char g, bool six,
                     struct buffer *b)
{
    const char *between = "";
    for (size_t i = 0; i < group->from_count; i++) {
        const struct ip_range *r = &group->from[i];
        if (r->first.is_six != six)
            continue;
        if (between[0] == '\0')
            buffer_append_f(b, "add set " TABLE " %c_%zu_from%d { type ipv%d_addr; flags interval; "
                            "elements = { ", g, number, six ? 6 : 4, six ? 6 : 4);
        buffer_append_f(b, "%s", between);
        put_address(&r->first, b);
        if (memcmp(&r->first, &r->last, sizeof r->first) != 0) {
            BUFFER_PUT(b, "-");
            put_address(&r->last, b);
        }
        between = ", ";
    }
    if (between[0] != '\0')
        BUFFER_PUT(b, " }; }\n");
    return between[0] != '\0';
}

/* ---- rules ---- */

static void put_group_chain(const struct enforce_plan *plan, size_t number, char g, struct buffer *b)
{
    const struct enforce_group *group = &plan->groups[number];
    bool four = put_from(group, number, g, false, b), six = put_from(group, number, g, true, b);
    buffer_append_f(b, "add chain " TABLE " %c_%zu\n", g, number);
    if (four)
        buffer_append_f(b, "add rule " TABLE " %c_%zu ip saddr @%c_%zu_from4 accept\n", g, number, g,
                        number);
    if (six)
        buffer_append_f(b, "add rule " TABLE " %c_%zu ip6 saddr @%c_%zu_from6 accept\n", g, number, g,
                        number);
    buffer_append_f(b, "add rule " TABLE " %c_%zu counter drop\n", g, number);
}

static void put_group(const struct enforce_plan *plan, size_t number, char g, struct buffer *b)
{
    static const char *const words[] = {"accept\n", "drop\n", NULL};
    const char *word = words[plan->groups[number].verdict];
    char jump[32];
    bool chain = word != NULL;
    snprintf(jump, sizeof jump, "goto %c_%zu\n", g, number);
    for (unsigned p = 0; p < PORT_PROTOCOLS; p++) {
        struct port_set each = {plan, p, number, SET_EACH}, rest = {plan, p, number, SET_ALL};
        if (set_size(&rest) == 0)
            continue;
        if (!chain)
            put_group_chain(plan, number, g, b);
        chain = true;
        if (set_size(&each) >= MANY_SINGLES) {
            put_set(&each, word != NULL ? word : jump, g, b);
            rest.holds = SET_RANGES;
        }
        put_set(&rest, word != NULL ? word : jump, g, b);
    }
}

/* Everything of one generation. An answer of a DHCP server is no answer to what conntrack saw: the
 * question went to all. */
static void put_generation(const struct enforce_plan *plan, char g, struct buffer *b)
{
    buffer_append_f(b,
                    "add chain " TABLE " %c\n"
                    "add rule " TABLE " %c udp sport 67 udp dport 68 accept\n"
                    "add rule " TABLE " %c ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept\n",
                    g, g, g);
    for (size_t i = 1; i < plan->groups_count; i++)
        put_group(plan, i, g, b);
    if (plan->others == ENFORCE_SHUT)
        buffer_append_f(b, "add rule " TABLE " %c meta l4proto " WITH_PORTS " counter drop\n", g);
}

static void put_input(char current, const char *current_mark, char trial, const char *trial_mark,
                      struct buffer *b)
{
    BUFFER_PUT(b, "add chain " TABLE " input { type filter hook input priority -5; policy accept; }\n"
                  "flush chain " TABLE " input\n"
                  "add rule " TABLE " input iif lo accept\n"
                  "add rule " TABLE " input ct state established,related accept\n"
                  "add rule " TABLE " input meta l4proto != " WITH_PORTS " accept\n");
    if (trial != 0)
        buffer_append_f(b, "add rule " TABLE " input meta nfproto @trial goto %c comment \"portico %s\"\n",
                        trial, trial_mark);
    if (current != 0)
        buffer_append_f(b, "add rule " TABLE " input goto %c comment \"portico %s\"\n", current,
                        current_mark);
}

static void put_fresh(struct buffer *b)
{
    BUFFER_PUT(b, "add table " TABLE "\ndelete table " TABLE "\nadd table " TABLE "\n");
}

/* A name as we give them ("a", "a_3_tcp"); whoever may change tables may have made others, and nothing
 * of theirs becomes a part of a script. */
static bool of_generation(struct slice name, char g)
{
    for (size_t i = 1; i < name.len; i++) {
        char c = name.ptr[i];
        if (c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9'))
            return false;
    }
    return name.len > 0 && name.ptr[0] == g && (name.len == 1 || name.ptr[1] == '_');
}

/* When no rule of `input` leads there any more. */
static void drop_generation(const struct enforce_state *now, char g, struct buffer *b)
{
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < now->chains_count; i++) {
            if (of_generation(now->chains[i], g))
                buffer_append_f(b, "%s chain " TABLE " " SLICE_FMT "\n", pass == 0 ? "flush" : "delete",
                                SLICE_ARG(now->chains[i]));
        }
    }
    for (size_t i = 0; i < now->sets_count; i++) {
        if (of_generation(now->sets[i], g))
            buffer_append_f(b, "delete set " TABLE " " SLICE_FMT "\n", SLICE_ARG(now->sets[i]));
    }
}

static bool has_trial_set(const struct enforce_state *now)
{
    for (size_t i = 0; i < now->sets_count; i++) {
        if (slice_eq(now->sets[i], SLICE("trial")))
            return true;
    }
    return false;
}

static enum err finished(const struct buffer *b)
{
    return b->full ? ERR_LIMIT : OK;
}

void enforce_mark(const struct enforce_plan *plan, char out[17])
{
    struct buffer b;
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a: equal plans are looked for, nobody aims at it */
    buffer_init(&b, 64 << 20);
    put_generation(plan, 'a', &b);
    for (size_t i = 0; i < b.len; i++)
        hash = (hash ^ (uint8_t)b.ptr[i]) * 0x100000001b3;
    snprintf(out, 17, "%016llx", (unsigned long long)hash);
    buffer_deinit(&b);
}

enum err enforce_script(const struct enforce_plan *plan, const struct enforce_state *now,
                        unsigned trial_s, struct buffer *b)
{
    char mark[17];
    enforce_mark(plan, mark);
    if (trial_s == 0) {
        put_fresh(b);
        put_generation(plan, 'a', b);
        put_input('a', mark, 0, NULL, b);
        return finished(b);
    }
    char g = now->current == 'a' ? 'b' : 'a';
    if (now->current == 0) {
        put_fresh(b);
    } else {
        put_input(now->current, now->current_mark, 0, NULL, b);
        drop_generation(now, g, b);
        if (has_trial_set(now))
            BUFFER_PUT(b, "delete set " TABLE " trial\n");
    }
    buffer_append_f(b, "add set " TABLE " trial { type nf_proto; flags timeout; elements = { "
                    "ipv4 timeout %us, ipv6 timeout %us }; }\n", trial_s, trial_s);
    put_generation(plan, g, b);
    put_input(now->current, now->current_mark, g, mark, b);
    return finished(b);
}

enum err enforce_confirm_script(const struct enforce_state *now, struct buffer *b)
{
    put_input(now->trial, now->trial_mark, 0, NULL, b);
    if (now->current != 0)
        drop_generation(now, now->current, b);
    BUFFER_PUT(b, "delete set " TABLE " trial\n");
    return finished(b);
}

enum err enforce_rollback_script(const struct enforce_state *now, struct buffer *b)
{
    if (now->current == 0) {
        BUFFER_PUT(b, "add table " TABLE "\n" UNAPPLY);
        return finished(b);
    }
    put_input(now->current, now->current_mark, 0, NULL, b);
    drop_generation(now, now->trial, b);
    BUFFER_PUT(b, "delete set " TABLE " trial\n");
    return finished(b);
}

enum err enforce_apply(struct slice script, char *error, size_t cap)
{
    static const char *const load[] = {"nft", "-f", "-", NULL};
    return nft_run(load, script, NULL, error, cap);
}

enum err enforce_remove(char *error, size_t cap)
{
    struct buffer names;
    buffer_init(&names, 1 << 20);
    enum err e = nft_tables(&names);
    bool there = slice_find_slice(buffer_slice(&names), SLICE(TABLE "\n")) != SIZE_MAX;
    buffer_deinit(&names);
    if (e == ERR_UNSUPPORTED)
        return OK;
    if (e != OK)
        snprintf(error, cap, "only root may change the firewall (CAP_NET_ADMIN)");
    return e != OK || !there ? e : enforce_apply(SLICE(UNAPPLY), error, cap);
}
