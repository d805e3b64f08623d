/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a port is reached by whom it is, in sentences: where the socket listens, what can come by which
 * link, then each rule that decided something for some sources, in the order in which packets meet
 * them. Rules that say the same for two destinations are told once.
 */
#include "ports/reach.h"
#include "base/buffer.h"
#include "ports/reach_walk.h"

enum { TEXT_MAX = 1 << 20, PREFIXES = 6 };

struct telling {
    struct arena *arena;
    struct buffer text;
    const struct reach_ask *ask;
    const struct net_link *link;
    bool six;
    struct ranges from; /* all that came by that link */
    size_t begun;       /* where the link's sentences begin */
};

static void line_add(struct telling *t, struct slice line)
{
    struct slice before = slice_skip(buffer_slice(&t->text), t->begun);
    if (slice_find_slice(before, line) == SIZE_MAX)
        buffer_append(&t->text, line);
}

static struct slice from_text(struct telling *t, struct ranges some)
{
    struct ranges rest = ranges_minus(t->arena, t->from, some);
    if (rest.count == 0)
        return SLICE("everywhere");
    if (rest.count < some.count || (rest.count == 1 && some.count == 1 && reach_is_world(some)))
        return arena_printf(t->arena, "everywhere but " SLICE_FMT,
                            SLICE_ARG(ranges_text(rest, PREFIXES, t->arena)));
    return ranges_text(some, PREFIXES, t->arena);
}

static const char *verb_of(const struct nft_step *s)
{
    if (s->moved)
        return s->statement->to_self ? "sends to another port of this machine"
                                     : "sends to another address";
    switch (s->verdict.kind) {
    case NFT_ACCEPT:
        return "accepts";
    case NFT_DROP:
        return s->verdict.reject ? "rejects" : "drops";
    case NFT_RETURN:
        return "takes no decision (return) on";
    case NFT_JUMP:
    case NFT_GOTO:
        return "hands to another chain";
    case NFT_QUEUE:
        return "may accept or drop";
    default:
        return "lets pass";
    }
}

static const char *protocol_text(const struct port_entry *e)
{
    static const char *const names[PORT_PROTOCOLS] = {"TCP", "UDP", "UDP-Lite", "SCTP", "DCCP"};
    return names[e->protocol];
}

static void on_step(void *context, const struct nft_step *s)
{
    struct telling *t = context;
    const struct nft_chain *c = s->chain;
    struct slice place = SLICE("its policy"), doubt = SLICE_NONE, target = SLICE_NONE;
    if (s->rule != NULL)
        place = arena_printf(t->arena, "rule %u (handle %llu)", s->rule->number,
                             (unsigned long long)s->rule->handle);
    if (!s->certain)
        doubt = arena_printf(t->arena, ", if its condition holds, which is not followed (" SLICE_FMT ")",
                             SLICE_ARG(s->what));
    if (s->verdict.target_name.len > 0)
        target = arena_printf(t->arena, " " SLICE_FMT, SLICE_ARG(s->verdict.target_name));
    if (s->verdict.kind == NFT_ACCEPT && s->rule == NULL && c->count == 0)
        return; /* an empty chain says nothing */
    line_add(t, arena_printf(t->arena,
                             "  table " SLICE_FMT " " SLICE_FMT ", chain " SLICE_FMT ", " SLICE_FMT
                             ": %s" SLICE_FMT " %s from " SLICE_FMT SLICE_FMT ".\n",
                             SLICE_ARG(c->table->family), SLICE_ARG(c->table->name),
                             SLICE_ARG(c->name), SLICE_ARG(place), verb_of(s), SLICE_ARG(target),
                             protocol_text(t->ask->entry), SLICE_ARG(from_text(t, s->from)),
                             SLICE_ARG(doubt)));
}

static void on_begin(void *context, const struct net_link *l, bool six, struct ranges from)
{
    struct telling *t = context;
    bool whole = ranges_equal(from, ranges_all(six));
    t->link = l;
    t->six = six;
    t->from = from;
    t->begun = t->text.len;
    buffer_append_f(&t->text, "By %s" SLICE_FMT ", over IPv%d, packets come from " SLICE_FMT ".\n",
                    l->loopback ? "the loopback interface " : "interface ", SLICE_ARG(l->name),
                    six ? 6 : 4,
                    SLICE_ARG(whole ? SLICE("everywhere (a default route leads there)")
                                    : ranges_text(from, PREFIXES, t->arena)));
}

static void tell_socket(struct telling *t, const struct port_entry *e)
{
    char text[IP_TEXT_MAX];
    bool mapped;
    struct ip_address a = reach_address(e, &mapped);
    buffer_append_f(&t->text, "%s port %u listens on ", protocol_text(e), e->port);
    if (reach_is_every(&a)) {
        bool four = reach_has_family(e, false), six = reach_has_family(e, true);
        buffer_append_f(&t->text, "every %saddress of its namespace.\n",
                        four && six ? "" : four ? "IPv4 " : "IPv6 ");
        return;
    }
    buffer_append(&t->text, slice_of(text, ip_text(&a, text)));
    switch (reach_kind_of(&a)) {
    case REACH_LOOPBACK:
        BUFFER_PUT(&t->text, ", a loopback address: only programs of this machine come there.\n");
        break;
    case REACH_LINK:
        BUFFER_PUT(&t->text, ", a link-local address: only what is on the same link comes there.\n");
        break;
    case REACH_UNIQUE_LOCAL:
        BUFFER_PUT(&t->text, ", a unique local address: no public address has a way there.\n");
        break;
    default:
        buffer_append_f(&t->text, "%s.\n",
                        net_is_local(t->ask->view, &a) || reach_kind_of(&a) == REACH_MULTICAST
                            ? ""
                            : ", which is no address of this machine now: nothing comes there");
    }
}

static void tell_rules(struct telling *t)
{
    const struct net_view *v = t->ask->view;
    if (v->rules_unread.len > 0)
        buffer_append_f(&t->text, "There are " SLICE_FMT ".\n", SLICE_ARG(v->rules_unread));
    else if (v->ruleset->chains_count == 0)
        BUFFER_PUT(&t->text, "There are no nftables rules.\n");
}

static void tell_end(struct telling *t, const struct port_entry *e)
{
    struct port_entry copy = *e;
    view_reach(t->ask->view, &copy, t->arena);
    struct ranges from = {copy.reach_from, copy.reach_from_count};
    BUFFER_PUT(&t->text, "So it is reached by ");
    switch (copy.reach) {
    case REACH_WORLD:
        BUFFER_PUT(&t->text, "the world.\n");
        break;
    case REACH_NETWORK:
        buffer_append_f(&t->text, SLICE_FMT " and this device.\n",
                        SLICE_ARG(ranges_text(from, 64, t->arena)));
        break;
    case REACH_UNKNOWN:
        buffer_append_f(&t->text, "some that are not known: it is " SLICE_FMT ".\n",
                        SLICE_ARG(copy.reach_why));
        break;
    default:
        buffer_append_f(&t->text, "%s.\n",
                        copy.reach == REACH_DEVICE ? "this device only" : "nobody");
    }
}

struct slice reach_explain(const struct net_view *v, const struct port_entry *e, struct arena *arena)
{
    struct telling t = {.arena = arena};
    struct reach_ask r = {.view = v,
                          .entry = e,
                          .arena = arena,
                          .begin = on_begin,
                          .trace = on_step,
                          .context = &t};
    t.ask = &r;
    buffer_init(&t.text, TEXT_MAX);
    tell_socket(&t, e);
    tell_rules(&t);
    reach_walk(&r);
    if (r.carried.count > 0)
        BUFFER_PUT(&t.text, "Packets for it are handed on to another address (a container's published "
                            "port), past the rules for this machine's own sockets.\n");
    if (r.sure.count == 0 && r.unsure.count == 0)
        reach_walk_device(&r);
    tell_end(&t, e);
    struct slice text = arena_copy(arena, buffer_slice(&t.text));
    buffer_deinit(&t.text);
    return text;
}
