/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A piece is a set of sources with a set of destinations (bits): a condition splits it into what
 * meets it and what does not. A rule takes the pieces that came to it and leaves those that go on to
 * the next rule; on the way some are accepted or dropped. Where a condition is not followed a piece
 * goes both ways: so each source ends among the accepted, the dropped, or in both lists, and only
 * the last kind is not known. That a rule is not followed thus matters only if it could have changed
 * the outcome.
 *
 * Base chains of one hook are walked in the order of their priorities; what one accepts goes on to
 * the next, what one drops is lost. ingress, prerouting, then input; or forward, for what a dnat has
 * given another destination. Pieces with the same destinations are joined after each rule, so their
 * number stays small; a budget of steps ends what would not.
 */
#include "ports/nft_walk.h"

#include <stdlib.h>

enum { DEPTH_MAX = 20, CHAINS_MAX = 256, MOVED_MAX = 64, STEPS_MAX = 400000 };

struct piece {
    struct ranges from;
    uint64_t to;
};

struct pieces {
    struct piece *items;
    size_t count, room;
};

struct moved {
    struct piece piece;
    const struct nft_statement *by;
};

struct walk {
    const struct nft_ruleset *ruleset;
    const struct nft_packet *packet;
    struct arena *arena;
    struct pieces dropped;
    struct moved *moved;
    size_t moved_count;
    struct slice oif;
    struct slice why;
    bool untracked, dnat, forward;
    bool ours; /* what this machine sends to itself: addresses were changed on the way out already */
    size_t steps;
};

/* One rule's work. */
struct turn {
    const struct nft_chain *chain;
    const struct nft_rule *rule;
    struct pieces current;   /* still in the rule */
    struct pieces next;      /* on to the next rule */
    struct pieces *returned; /* to the end of the chain */
    struct pieces *accepted;
    unsigned depth;
    bool certain;
    struct slice what;
};

/* Ranges are copied by every cut and join of them, so their number is work, and memory, too. */
static void spend(struct walk *w, size_t ranges)
{
    w->steps += 1 + ranges / 16;
}

static bool spent(const struct walk *w)
{
    return w->steps > STEPS_MAX;
}

static void put(struct walk *w, struct pieces *p, struct piece one)
{
    if (one.from.count == 0 || one.to == 0)
        return;
    for (size_t i = 0; i < p->count; i++) {
        if (p->items[i].to == one.to) {
            spend(w, p->items[i].from.count + one.from.count);
            p->items[i].from = ranges_or(w->arena, p->items[i].from, one.from);
            return;
        }
    }
    if (p->count == p->room) {
        size_t room = p->room == 0 ? 4 : 2 * p->room;
        struct piece *more = ARENA_ARRAY(w->arena, struct piece, room);
        if (p->count > 0)
            memcpy(more, p->items, p->count * sizeof *more);
        p->items = more;
        p->room = room;
    }
    p->items[p->count++] = one;
}

static void put_all(struct walk *w, struct pieces *p, const struct pieces *more)
{
    for (size_t i = 0; i < more->count; i++)
        put(w, p, more->items[i]);
}

static struct ranges sources(struct walk *w, const struct pieces *p)
{
    struct ranges all = RANGES_NONE;
    for (size_t i = 0; i < p->count; i++)
        all = ranges_or(w->arena, all, p->items[i].from);
    return all;
}

static struct slice table_text(struct walk *w, const struct nft_chain *c)
{
    return arena_printf(w->arena, "table " SLICE_FMT " " SLICE_FMT, SLICE_ARG(c->table->family),
                        SLICE_ARG(c->table->name));
}

static void not_followed(struct walk *w, const struct nft_chain *c)
{
    if (w->why.len == 0)
        w->why = table_text(w, c);
}

/* ---- conditions ---- */

enum answer { NO, YES, MAYBE };

static bool name_matches(struct slice pattern, struct slice name)
{
    if (slice_ends(pattern, SLICE("*")))
        return slice_starts(name, slice_take(pattern, pattern.len - 1));
    return slice_eq(pattern, name);
}

static enum answer among(const struct nft_values *v, struct slice text, uint64_t number)
{
    for (size_t i = 0; i < v->numbers_count; i++) {
        if (v->numbers[i].first <= number && number <= v->numbers[i].last)
            return YES;
    }
    for (size_t i = 0; i < v->names_count; i++) {
        if (name_matches(v->names[i], text))
            return YES;
    }
    return v->any ? YES : v->strange ? MAYBE : NO;
}

static enum answer track_state(const struct walk *w, const struct nft_values *v)
{
    enum { NEW = 8 };
    return w->untracked ? MAYBE : among(v, SLICE("new"), NEW);
}

static enum answer destination_kind(const struct walk *w, const struct nft_values *v)
{
    enum { UNICAST = 1, LOCAL = 2 };
    return w->forward ? among(v, SLICE("unicast"), UNICAST) : among(v, SLICE("local"), LOCAL);
}

static enum answer ask(const struct walk *w, enum nft_field field, const struct nft_values *v)
{
    const struct nft_packet *p = w->packet;
    bool lo = slice_eq(p->iif, SLICE("lo"));
    switch (field) {
    case NFT_DPORT:
        return among(v, SLICE_NONE, p->port);
    case NFT_L4PROTO:
        return among(v, slice_from(p->l4), p->l4_number);
    case NFT_NFPROTO:
        return p->six ? among(v, SLICE("ipv6"), 10) : among(v, SLICE("ipv4"), 2);
    case NFT_PROTOCOL:
        return p->six ? among(v, SLICE("ip6"), 0x86dd) : among(v, SLICE("ip"), 0x0800);
    case NFT_IIF:
        return among(v, p->iif, p->iif_index);
    case NFT_OIF:
        return among(v, w->oif, UINT64_MAX);
    case NFT_CT_STATE:
        return track_state(w, v);
    case NFT_CT_DIRECTION:
        return among(v, SLICE("original"), 0);
    case NFT_CT_STATUS:
        return w->dnat ? among(v, SLICE("dnat"), 0x20) : among(v, SLICE_NONE, UINT64_MAX);
    case NFT_PKTTYPE:
        return among(v, SLICE("host"), 0) == YES ? YES : among(v, SLICE("unicast"), 0);
    case NFT_FIB_DADDR_TYPE:
        return destination_kind(w, v);
    case NFT_FIB_SADDR_TYPE:
        return lo ? among(v, SLICE("local"), 2) : among(v, SLICE("unicast"), 1);
    case NFT_FIB_SADDR_OIF:
        return lo ? MAYBE : among(v, p->iif, 1);
    default:
        return MAYBE;
    }
}

static uint64_t destinations(const struct walk *w, const struct nft_values *v)
{
    struct ip_set set = {(struct ip_range *)(uintptr_t)v->addresses.items, v->addresses.count};
    uint64_t bits = 0;
    for (size_t i = 0; i < w->packet->to_count; i++)
        bits |= v->any || ip_set_has(&set, &w->packet->to[i]) ? (uint64_t)1 << i : 0;
    return bits;
}

/* Splits a piece by one key. True: parts of it are in both, as it is not known. */
static bool split(struct walk *w, struct piece p, const struct nft_statement *s,
                  const struct nft_key *key, struct pieces *yes, struct pieces *no)
{
    bool maybe = false;
    for (size_t i = 0; i < s->fields_count && p.from.count > 0 && p.to != 0; i++) {
        const struct nft_values *v = &key->values[i];
        spend(w, v->addresses.count + (s->fields[i] == NFT_SADDR ? p.from.count : 0));
        if (s->fields[i] == NFT_SADDR) {
            struct ranges in =
                v->any ? p.from : ranges_and(w->arena, p.from, v->addresses);
            struct ranges rest = ranges_minus(w->arena, p.from, in);
            maybe = maybe || v->strange;
            put(w, no, (struct piece){rest, p.to});
            p.from = v->strange ? p.from : in;
        } else if (s->fields[i] == NFT_DADDR) {
            uint64_t in = v->strange ? p.to : p.to & destinations(w, v);
            maybe = maybe || v->strange;
            put(w, no, (struct piece){p.from, p.to & ~in});
            p.to = in;
        } else {
            enum answer a = ask(w, s->fields[i], v);
            maybe = maybe || a == MAYBE;
            if (a == NO) {
                put(w, no, p);
                return false;
            }
        }
    }
    put(w, yes, p);
    if (maybe)
        put(w, no, p);
    return maybe && p.from.count > 0 && p.to != 0;
}

/* Whether the fields are there at all: "tcp dport" of a packet of UDP is not. */
static bool applies(const struct walk *w, const struct nft_statement *s)
{
    const struct nft_packet *p = w->packet;
    if ((s->four && p->six) || (s->six && !p->six))
        return false;
    return s->l4.len == 0 || slice_is(s->l4, p->l4);
}

/* All keys of a condition over all pieces. */
static bool match(struct walk *w, const struct nft_statement *s, const struct pieces *in,
                  struct pieces *yes, struct pieces *no)
{
    bool maybe = false;
    struct pieces rest = *in;
    if (!applies(w, s)) {
        *no = *in;
        return false;
    }
    if (s->fields_count == 0 || s->keys == NULL || s->keys->strange) {
        *yes = *in;
        if (s->fields_count > 0)
            *no = *in;
        return s->fields_count > 0 && in->count > 0;
    }
    size_t k = 0;
    for (; k < s->keys->count && rest.count > 0 && !spent(w); k++) {
        struct pieces left = {0};
        for (size_t i = 0; i < rest.count; i++)
            maybe = split(w, rest.items[i], s, &s->keys->items[k], yes, &left) || maybe;
        rest = left;
    }
    if (k < s->keys->count && rest.count > 0) { /* not looked at any more: either way */
        put_all(w, yes, &rest);
        maybe = true;
    }
    *no = rest;
    if (s->negate) {
        *no = *yes;
        *yes = rest;
    }
    return maybe;
}

/* ---- rules ---- */

static struct pieces chain_walk(struct walk *, const struct nft_chain *, const struct pieces *,
                                struct pieces *accepted, unsigned depth);

static void tell(struct walk *w, const struct turn *t, const struct nft_statement *s,
                 struct nft_verdict v, const struct pieces *p)
{
    if (w->packet->trace == NULL || p->count == 0)
        return;
    struct nft_step step = {.chain = t->chain,
                            .rule = t->rule,
                            .verdict = v,
                            .moved = s != NULL && s->kind == NFT_DNAT,
                            .statement = s,
                            .certain = t->certain,
                            .what = t->what,
                            .from = sources(w, p)};
    w->packet->trace(w->packet->context, &step);
}

static void decide(struct walk *w, struct turn *t, const struct nft_statement *s,
                   const struct nft_verdict *v, struct pieces p)
{
    if (p.count == 0)
        return;
    tell(w, t, s, *v, &p);
    if (!t->certain && v->kind != NFT_NO_VERDICT)
        not_followed(w, t->chain);
    struct pieces back;
    switch (v->kind) {
    case NFT_ACCEPT:
        put_all(w, t->accepted, &p);
        break;
    case NFT_DROP:
        put_all(w, &w->dropped, &p);
        break;
    case NFT_RETURN:
        put_all(w, t->returned, &p);
        break;
    case NFT_QUEUE:
        not_followed(w, t->chain);
        put_all(w, t->accepted, &p);
        put_all(w, &w->dropped, &p);
        break;
    case NFT_JUMP:
    case NFT_GOTO:
        back = chain_walk(w, v->target, &p, t->accepted, t->depth + 1);
        put_all(w, v->kind == NFT_JUMP ? &t->next : t->returned, &back);
        break;
    default:
        put_all(w, &t->next, &p);
    }
}

static void uncertain(struct turn *t, struct slice what)
{
    if (t->certain)
        t->what = what;
    t->certain = false;
}

static void walk_map(struct walk *w, struct turn *t, const struct nft_statement *s)
{
    struct pieces rest = t->current;
    bool certain = t->certain;
    t->current = (struct pieces){0};
    if (!applies(w, s)) {
        put_all(w, &t->next, &rest);
        return;
    }
    if (s->keys == NULL || s->keys->strange) {
        uncertain(t, s->what);
        decide(w, t, s, &(struct nft_verdict){.kind = NFT_QUEUE}, rest);
        put_all(w, &t->next, &rest);
        return;
    }
    size_t k = 0;
    for (; k < s->keys->count && rest.count > 0 && !spent(w); k++) {
        struct pieces yes = {0}, left = {0};
        t->certain = certain;
        for (size_t i = 0; i < rest.count; i++) {
            if (split(w, rest.items[i], s, &s->keys->items[k], &yes, &left))
                uncertain(t, s->what);
        }
        decide(w, t, s, &s->keys->items[k].verdict, yes);
        rest = left;
    }
    if (k < s->keys->count && rest.count > 0) {
        uncertain(t, s->what);
        decide(w, t, s, &(struct nft_verdict){.kind = NFT_QUEUE}, rest);
    }
    t->certain = certain;
    put_all(w, &t->next, &rest);
}

static void walk_dnat(struct walk *w, struct turn *t, const struct nft_statement *s)
{
    tell(w, t, s, (struct nft_verdict){0}, &t->current);
    if (s->to_unknown || !t->certain)
        not_followed(w, t->chain);
    for (size_t i = 0; i < t->current.count && w->moved_count < MOVED_MAX; i++)
        w->moved[w->moved_count++] = (struct moved){t->current.items[i], s};
    t->current = (struct pieces){0};
}

static void walk_statement(struct walk *w, struct turn *t, const struct nft_statement *s)
{
    struct pieces yes = {0}, no = {0};
    switch (s->kind) {
    case NFT_MATCH:
        if (match(w, s, &t->current, &yes, &no))
            uncertain(t, s->what);
        t->current = yes;
        put_all(w, &t->next, &no);
        break;
    case NFT_VMAP:
        walk_map(w, t, s);
        break;
    case NFT_VERDICT:
        decide(w, t, s, &s->verdict, t->current);
        t->current = (struct pieces){0};
        break;
    case NFT_NEVER:
        put_all(w, &t->next, &t->current);
        t->current = (struct pieces){0};
        break;
    case NFT_MAYBE:
        if (applies(w, s))
            uncertain(t, s->what);
        put_all(w, &t->next, &t->current);
        if (!applies(w, s))
            t->current = (struct pieces){0};
        break;
    case NFT_PERHAPS:
        uncertain(t, s->what);
        decide(w, t, s, &(struct nft_verdict){.kind = NFT_QUEUE}, t->current);
        put_all(w, &t->next, &t->current);
        break;
    case NFT_NOTRACK:
        w->untracked = w->untracked || t->current.count > 0;
        break;
    case NFT_DNAT:
        walk_dnat(w, t, s);
        break;
    }
}

static struct pieces rule_walk(struct walk *w, struct turn *t, const struct pieces *in)
{
    t->current = (struct pieces){0};
    t->next = (struct pieces){0};
    t->certain = true;
    put_all(w, &t->current, in);
    for (size_t i = 0; i < t->rule->count && t->current.count > 0; i++)
        walk_statement(w, t, &t->rule->statements[i]);
    put_all(w, &t->next, &t->current);
    return t->next;
}

/* Anything may become of these. */
static void give_up(struct walk *w, const struct nft_chain *c, const struct pieces *p,
                    struct pieces *accepted)
{
    not_followed(w, c);
    put_all(w, accepted, p);
    put_all(w, &w->dropped, p);
}

/* What comes to the chain's end, or returned from it. */
static struct pieces chain_walk(struct walk *w, const struct nft_chain *c, const struct pieces *in,
                                struct pieces *accepted, unsigned depth)
{
    struct pieces left = *in, returned = {0};
    if (depth > DEPTH_MAX || spent(w)) {
        give_up(w, c, in, accepted);
        return left;
    }
    for (size_t i = 0; i < c->count && left.count > 0; i++) {
        if (spent(w)) {
            give_up(w, c, &left, accepted);
            break;
        }
        struct turn t = {.chain = c,
                         .rule = &c->rules[i],
                         .returned = &returned,
                         .accepted = accepted,
                         .depth = depth};
        left = rule_walk(w, &t, &left);
        w->steps++;
    }
    put_all(w, &left, &returned);
    return left;
}

/* What a base chain lets on to the next one. */
static struct pieces base_walk(struct walk *w, const struct nft_chain *c, const struct pieces *in)
{
    struct pieces accepted = {0};
    struct pieces left = chain_walk(w, c, in, &accepted, 0);
    struct turn end = {.chain = c, .certain = true};
    struct nft_verdict policy = {.kind = c->drop ? NFT_DROP : NFT_ACCEPT};
    tell(w, &end, NULL, policy, &left);
    put_all(w, c->drop ? &w->dropped : &accepted, &left);
    return accepted;
}

/* ---- hooks ---- */

static bool of_packet(const struct nft_packet *p, const struct nft_chain *c, const char *hook)
{
    struct slice family = c->table->family;
    if (!slice_is(c->hook, hook))
        return false;
    if (c->device.len > 0 && !slice_eq(c->device, p->iif))
        return false;
    return slice_eq(family, SLICE("inet")) || slice_is(family, p->six ? "ip6" : "ip") ||
           slice_eq(family, SLICE("netdev"));
}

static struct pieces hook_walk(struct walk *w, const char *hook, struct pieces in)
{
    const struct nft_chain *chains[CHAINS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < w->ruleset->chains_count && count < CHAINS_MAX; i++) {
        const struct nft_chain *c = w->ruleset->chains[i];
        if (!of_packet(w->packet, c, hook) || (w->ours && slice_eq(c->type, SLICE("nat"))))
            continue;
        size_t at = count++;
        for (; at > 0 && chains[at - 1]->priority > c->priority; at--)
            chains[at] = chains[at - 1];
        chains[at] = c;
    }
    for (size_t i = 0; i < count && in.count > 0; i++)
        in = base_walk(w, chains[i], &in);
    return in;
}

/* A bridge's own rules are not followed: they matter where they can drop. */
static void bridge_walk(struct walk *w, const struct pieces *in)
{
    for (size_t i = 0; w->packet->bridge && i < w->ruleset->chains_count; i++) {
        const struct nft_chain *c = w->ruleset->chains[i];
        if (slice_eq(c->table->family, SLICE("bridge")) && c->hook.len > 0 &&
            (c->count > 0 || c->drop)) {
            not_followed(w, c);
            put_all(w, &w->dropped, in);
        }
    }
}

/* One destination that a rule gave. */
static struct ranges moved_walk(struct walk *w, const struct moved *m, uint16_t wanted, bool *here)
{
    const struct nft_statement *s = m->by;
    const struct nft_packet *was = w->packet;
    struct nft_packet p = *was;
    struct ip_address to;
    struct pieces in = {0};
    *here = s->to_self || s->to.addresses.count == 0;
    p.port = s->to_port != 0 ? s->to_port : p.port;
    put(w, &in, m->piece);
    if (!*here) {
        to = s->to.addresses.items[0].first;
        p.to = &to;
        p.to_count = 1;
        in.items[0].to = 1;
        *here = p.goes_here(p.context, &to, &w->oif);
    }
    if (*here ? p.port != wanted : was->port != wanted)
        return RANGES_NONE;
    struct pieces dropped = w->dropped;
    w->packet = &p;
    w->dnat = true;
    w->forward = !*here;
    w->dropped = (struct pieces){0};
    struct pieces out = hook_walk(w, *here ? "input" : "forward", in);
    struct ranges lost = sources(w, &w->dropped);
    w->dropped = dropped;
    put(w, &w->dropped, (struct piece){lost, m->piece.to});
    w->packet = was;
    w->dnat = w->forward = false;
    w->oif = SLICE_NONE;
    return sources(w, &out);
}

static void walk_moved(struct walk *w, uint16_t wanted, struct pieces *out, struct nft_outcome *o)
{
    for (size_t i = 0; i < w->moved_count; i++) {
        const struct moved *m = &w->moved[i];
        bool here = false;
        struct ranges from;
        if (m->by->to_unknown && w->packet->port != wanted)
            continue;
        if (m->by->to_unknown) {
            from = m->piece.from;
            put(w, &w->dropped, m->piece);
        } else {
            from = moved_walk(w, m, wanted, &here);
        }
        put(w, out, (struct piece){from, m->piece.to});
        if (!here)
            o->carried = ranges_or(w->arena, o->carried, from);
    }
}

/* Destination by destination: a source gets in if one lets it in. */
static void conclude(struct walk *w, const struct pieces *in, struct nft_outcome *o)
{
    struct ranges may = RANGES_NONE;
    for (size_t bit = 0; bit < w->packet->to_count; bit++) {
        uint64_t mask = (uint64_t)1 << bit;
        struct ranges accepted = RANGES_NONE, dropped = RANGES_NONE;
        for (size_t i = 0; i < in->count; i++) {
            if (in->items[i].to & mask)
                accepted = ranges_or(w->arena, accepted, in->items[i].from);
        }
        for (size_t i = 0; i < w->dropped.count; i++) {
            if (w->dropped.items[i].to & mask)
                dropped = ranges_or(w->arena, dropped, w->dropped.items[i].from);
        }
        may = ranges_or(w->arena, may, accepted);
        o->sure = ranges_or(w->arena, o->sure, ranges_minus(w->arena, accepted, dropped));
    }
    o->unsure = ranges_minus(w->arena, may, o->sure);
    o->why = w->why;
}

/* The way out of what comes in by the loopback interface. */
static struct pieces output_walk(struct walk *w, struct pieces in)
{
    const struct nft_packet *was = w->packet;
    struct nft_packet p = *was;
    p.iif = SLICE_NONE;
    p.iif_index = 0;
    w->packet = &p;
    w->oif = SLICE("lo");
    in = hook_walk(w, "output", in);
    w->packet = was;
    w->oif = SLICE_NONE;
    w->ours = true;
    return in;
}

void nft_walk(const struct nft_ruleset *r, const struct nft_packet *p, uint16_t wanted,
              struct arena *arena, struct nft_outcome *out)
{
    struct walk w = {.ruleset = r, .packet = p, .arena = arena};
    struct pieces in = {0}, all = {0};
    *out = (struct nft_outcome){0};
    w.moved = ARENA_ARRAY(arena, struct moved, MOVED_MAX);
    uint64_t every = p->to_count >= NFT_TO_MAX ? UINT64_MAX : ((uint64_t)1 << p->to_count) - 1;
    put(&w, &in, (struct piece){p->from, every});
    if (slice_eq(p->iif, SLICE("lo")))
        in = output_walk(&w, in);
    bridge_walk(&w, &in);
    in = hook_walk(&w, "ingress", in);
    in = hook_walk(&w, "prerouting", in);
    w.ours = false;
    if (p->port == wanted)
        all = hook_walk(&w, "input", in);
    walk_moved(&w, wanted, &all, out);
    conclude(&w, &all, out);
}
