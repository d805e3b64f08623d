/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The global option `ports`: who may reach which port, to the app of the same name (ports/declared.h).
 *
 *     ports {
 *         443 80           world
 *         22 tcp ssh       from 192.0.2.0/24 2001:db8::/32
 *         5432 postgresql  device from 10.0.0.0/8
 *         others           device
 *         enforce          nftables
 *     }
 *
 * A line begins with ports or ranges of them; then come, in any order, a protocol, a reach and a
 * name; `from` and its prefixes end it.
 */
#include "adapter/options.h"
#include "adapter/suggest.h"
#include "ports/port.h"

static const char *const reaches[] = {"world", "device", "nobody"};
static const char *const keys[] = {"ports", "protocol", "name", "reach", "from", NULL};

struct line {
    struct adapt *a;
    struct dispenser *d;
    struct slice *words;
    size_t count;
    json_t *o;
};

static bool is_numbers(struct slice word)
{
    return word.len > 0 && word.ptr[0] >= '0' && word.ptr[0] <= '9';
}

static bool is_reach(struct slice word)
{
    for (size_t i = 0; i < 3; i++) {
        if (slice_is(word, reaches[i]))
            return true;
    }
    return false;
}

static const char *near_word(struct slice word)
{
    static const char *const more[] = {"tcp", "udp", "from"};
    struct suggestion near = {0};
    for (size_t i = 0; i < 3; i++)
        suggest(&near, word, reaches[i]);
    for (size_t i = 0; i < 3 && word.len > 3; i++)
        suggest(&near, word, more[i]);
    return near.word;
}

static enum err bad_word(const struct dispenser *d, const char *what, struct slice word,
                         const char *near)
{
    return dispenser_err_f(d, "%s '" SLICE_FMT "'%s%s%s", what, SLICE_ARG(word),
                           near != NULL ? " - did you mean '" : "", near != NULL ? near : "",
                           near != NULL ? "'?" : "");
}

static enum err check_numbers(const struct dispenser *d, struct slice word)
{
    struct slice from, to;
    uint64_t first, last;
    bool range = slice_cut(word, '-', &from, &to);
    if (!slice_to_u64(from, 65535, &first) || first == 0 ||
        (range && (!slice_to_u64(to, 65535, &last) || last < first)))
        return dispenser_err_f(d, "'" SLICE_FMT "' is neither a port (1 to 65535) nor a range such as "
                                  "8000-8010", SLICE_ARG(word));
    return OK;
}

static enum err set_once(struct line *l, const char *key, struct slice word)
{
    const char *old = json_string_value(json_object_get(l->o, key));
    if (old != NULL && strcmp(key, "name") == 0)
        return bad_word(l->d, "a port has one name; what is", word, near_word(word));
    if (old != NULL)
        return dispenser_err_f(l->d, "'" SLICE_FMT "' stands beside '%s': one %s is enough",
                               SLICE_ARG(word), old, key);
    j_put_text(l->a, l->o, key, word);
    return OK;
}

static enum err read_prefixes(struct line *l, size_t at)
{
    struct ip_range range;
    if (at == l->count)
        return dispenser_err_f(l->d, "'from' wants prefixes, such as 192.0.2.0/24");
    json_t *from = j_array(l->a);
    for (; at < l->count; at++) {
        if (!slice_is(l->words[at], "private_ranges") && !ip_range_parse(l->words[at], &range))
            return dispenser_err_f(l->d, "'" SLICE_FMT "' is neither an address nor a prefix such as "
                                         "192.0.2.0/24", SLICE_ARG(l->words[at]));
        add_ranges(l->a, from, l->words[at]);
    }
    j_set(l->a, l->o, "from", from);
    return OK;
}

static enum err check_reach(struct line *l)
{
    const char *reach = json_string_value(json_object_get(l->o, "reach"));
    const char *name = json_string_value(json_object_get(l->o, "name"));
    bool from = json_object_get(l->o, "from") != NULL;
    if (from && reach == NULL)
        j_put_text(l->a, l->o, "reach", SLICE("network"));
    else if (from && strcmp(reach, "device") != 0)
        return dispenser_err_f(l->d, "'%s' and 'from' exclude each other", reach);
    if (from || reach != NULL)
        return OK;
    const char *near = name != NULL ? near_word(slice_from(name)) : NULL;
    if (near != NULL)
        return bad_word(l->d, "who may reach it is not said: what is", slice_from(name), near);
    return dispenser_err_f(l->d, "who may reach it is not said: world, device, nobody, or from "
                                 "PREFIXES");
}

static enum err read_words(struct line *l, size_t at)
{
    enum port_protocol protocol;
    for (; at < l->count; at++) {
        struct slice word = l->words[at];
        if (slice_is(word, "from"))
            return read_prefixes(l, at + 1);
        if (is_numbers(word))
            return dispenser_err_f(l->d, "the port " SLICE_FMT " stands behind other words: ports come "
                                         "first", SLICE_ARG(word));
        TRY(set_once(l, port_protocol_parse(word, &protocol) ? "protocol"
                        : is_reach(word)                     ? "reach"
                                                             : "name", word));
    }
    return OK;
}

static void note(struct line *l, size_t index)
{
    struct slice path = arena_printf(l->a->arena, "apps.ports.declarations[%zu]", index);
    adapt_origin(l->a, path, l->words[0], dispenser_file(l->d), dispenser_line(l->d));
}

static enum err read_declaration(struct line *l, json_t *app)
{
    size_t at = 0;
    json_t *numbers = j_array(l->a);
    for (; at < l->count && is_numbers(l->words[at]); at++) {
        TRY(check_numbers(l->d, l->words[at]));
        j_append_text(l->a, numbers, l->words[at]);
    }
    l->o = j_object(l->a);
    j_set(l->a, l->o, "ports", numbers);
    TRY(read_words(l, at));
    TRY(check_reach(l));
    note(l, json_array_size(json_object_get(app, "declarations")));
    j_add_to_list(l->a, app, SLICE("declarations"), j_ordered(l->a, l->o, keys));
    return OK;
}

/* "others device", "enforce nftables": one word of a few, once. */
static enum err read_choice(struct line *l, json_t *app, const char *const *words, size_t count)
{
    struct suggestion near = {0};
    char *key = arena_str(l->a->arena, l->words[0]);
    if (l->count != 2)
        return dispenser_err_f(l->d, "'%s' wants one word: %s%s%s%s%s", key, words[0],
                               count > 2 ? ", " : " or ", words[1], count > 2 ? " or " : "",
                               count > 2 ? words[2] : "");
    if (json_object_get(app, key) != NULL)
        return dispenser_err_f(l->d, "'%s' has been said already", key);
    for (size_t i = 0; i < count; i++) {
        suggest(&near, l->words[1], words[i]);
        if (slice_is(l->words[1], words[i])) {
            j_put_text(l->a, app, key, l->words[1]);
            return OK;
        }
    }
    return dispenser_err_f(l->d, "'%s' is %s%s%s%s%s, not '" SLICE_FMT "'%s%s%s", key, words[0],
                           count > 2 ? ", " : " or ", words[1], count > 2 ? " or " : "",
                           count > 2 ? words[2] : "", SLICE_ARG(l->words[1]),
                           near.word != NULL ? " - did you mean '" : "",
                           near.word != NULL ? near.word : "", near.word != NULL ? "'?" : "");
}

static enum err read_line(struct adapt *a, struct dispenser *d, json_t *app)
{
    static const char *const enforce[] = {"observe", "nftables"};
    struct slice first = dispenser_val(d), *rest;
    size_t count = dispenser_remaining_args(d, &rest);
    if (slice_is(first, "{"))
        return dispenser_err_f(d, "a line of 'ports' has no block");
    struct line l = {.a = a, .d = d, .count = count + 1,
                     .words = ARENA_ARRAY(a->arena, struct slice, count + 1)};
    l.words[0] = first;
    if (count > 0)
        memcpy(l.words + 1, rest, count * sizeof *rest);
    if (slice_is(first, "others"))
        return read_choice(&l, app, reaches, 3);
    if (slice_is(first, "enforce"))
        return read_choice(&l, app, enforce, 2);
    if (is_numbers(first))
        return read_declaration(&l, app);
    struct suggestion near = {0};
    suggest(&near, first, "others");
    suggest(&near, first, "enforce");
    return bad_word(d, "a line of 'ports' begins with a port, 'others' or 'enforce', not with", first,
                    near.word);
}

enum err ports_option_read(struct adapt *a, struct dispenser *d)
{
    static const char *const members[] = {"declarations", "others", "enforce", NULL};
    json_t *app = a->options.ports != NULL ? a->options.ports : j_object(a);
    dispenser_next(d);
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    while (dispenser_next_block(d, 0)) {
        TRY(read_line(a, d, app));
        if (dispenser_nesting(d) > 1)
            return dispenser_err_f(d, "a line of 'ports' has no block");
    }
    a->options.ports = j_ordered(a, app, members);
    return OK;
}
