/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an upstream over HTTP/2 says of its whole connection, at any moment: GOAWAY, once or twice, with a
 * last stream below, at or above the open ones, with a code or without, and what it does then; SETTINGS that
 * change limits in the middle, to nothing and back; windows that grow beyond what there is.
 *
 * One that behaves (of a group that is moody) does all that by the rules: what it disowns it has not begun to
 * answer, what it owes it answers, what it takes it gives back. So each of its rounds must come to its end,
 * asked again elsewhere where it was refused, POST as well (RFC 9113 §8.7). One that is faulty also
 * falls silent, ends, lies about what it has done or breaks the rules, and then its rounds are excused.
 */
#include "fault_h2_upstream.h"

#include <stdlib.h>
#include <string.h>

enum {
    SET_TABLE = 1, SET_PUSH = 2, SET_CALLS = 3, SET_WINDOW = 4, SET_FRAME = 5, SET_CONNECT = 8,
    FRAME_TOP = 16777215, WINDOW_TOP = 0x7fffffff, CALLS_TOP = 100,
};

static const struct settings plain = {UINT32_MAX, H2_WINDOW, H2_FRAME_MAX, HPACK_TABLE_DEFAULT};

/* --- SETTINGS --- */

static void put_setting(struct bytes *b, unsigned id, uint32_t value)
{
    const unsigned char six[6] = {(unsigned char)(id >> 8), (unsigned char)id, (unsigned char)(value >> 24),
                                  (unsigned char)(value >> 16), (unsigned char)(value >> 8),
                                  (unsigned char)value};
    bytes_add(b, six, sizeof six);
}

static const struct settings *newest(const struct mood *m)
{
    return m->said_count > 0 ? &m->said[m->said_count - 1] : &m->holds;
}

static void say_settings(struct up *u, const struct settings *s, bool first)
{
    struct mood *m = &u->mood;
    const struct settings *before = newest(m);
    struct bytes b = {0};
    if (first)
        put_setting(&b, SET_CONNECT, 1);
    if (s->calls != before->calls)
        put_setting(&b, SET_CALLS, s->calls);
    if (s->window != before->window)
        put_setting(&b, SET_WINDOW, s->window);
    if (s->frame != before->frame)
        put_setting(&b, SET_FRAME, s->frame);
    if (s->table != before->table)
        put_setting(&b, SET_TABLE, s->table);
    m->said[m->said_count++] = *s;
    h2_put_frame(&u->c, H2_SETTINGS, 0, 0, b.at, b.len);
    free(b.at);
}

/* What is taken away comes back with the last ones. */
static void change_settings(struct up *u)
{
    static const uint32_t calls[] = {0, 1, 1, 2, 100}, windows[] = {0, 0, 1, 1000, 65535, 1 << 20};
    static const uint32_t frames[] = {16384, 16385, 100000, FRAME_TOP}, tables[] = {0, 0, 50, 400, 4096, 60000};
    struct mood *m = &u->mood;
    struct dice *d = &u->c.luck;
    struct settings s = *newest(m);
    bool last = --m->settings_left == 0;
    if (dice_percent(d, 60))
        s.calls = calls[dice_below(d, 5)];
    if (dice_percent(d, 60))
        s.window = windows[dice_below(d, 6)];
    if (dice_percent(d, 30))
        s.frame = frames[dice_below(d, 4)];
    if (dice_percent(d, 50))
        s.table = tables[dice_below(d, 6)];
    if (last) {
        s.calls = s.calls < CALLS_TOP ? CALLS_TOP : s.calls;
        s.window = s.window < H2_WINDOW ? H2_WINDOW : s.window;
    }
    say_settings(u, &s, false);
    m->settings_ns = last ? NEVER : loop_time + dice_below(d, 25) * MS;
}

void mood_acknowledged(struct up *u)
{
    struct mood *m = &u->mood;
    if (m->said_count == 0) {
        violation(NULL, "SETTINGS are acknowledged that nobody said");
        return;
    }
    int64_t more = (int64_t)m->said[0].window - m->holds.window;
    if (m->said[0].table != m->holds.table)
        hpack_decoder_limit(&u->decoder, m->said[0].table);
    m->holds = m->said[0];
    memmove(m->said, m->said + 1, --m->said_count * sizeof *m->said);
    for (unsigned i = 0; i < CALLS_MAX; i++)
        u->calls[i].in_left += more;
}

void mood_window(struct up *u, struct call *k, size_t n)
{
    *(k != NULL ? &k->in_left : &u->in_left) += (int64_t)n;
    h2_put_number(&u->c, H2_WINDOW_UPDATE, k != NULL ? k->id : 0, (uint32_t)n);
}

/* --- GOAWAY --- */

static void say_goaway(struct up *u, uint32_t last, uint32_t code)
{
    static const char why[] = "enough";
    unsigned char b[8 + sizeof why];
    for (int i = 0; i < 4; i++) {
        b[i] = (unsigned char)(last >> (24 - 8 * i));
        b[4 + i] = (unsigned char)(code >> (24 - 8 * i));
    }
    memcpy(b + 8, why, sizeof why);
    u->mood.last = last;
    h2_put_frame(&u->c, H2_GOAWAY, 0, 0, b, 8 + dice_below(&u->c.luck, sizeof why));
}

bool mood_disowns(const struct up *u, uint32_t stream)
{
    return u->mood.last != NO_GOAWAY && stream > u->mood.last;
}

static uint32_t choose_last(struct up *u, bool honest)
{
    struct dice *d = &u->c.luck;
    uint32_t least = honest ? u->mood.acted : 0, steps = (u->last - least) / 2;
    switch (dice_below(d, 4)) {
    case 0:
        return u->last;
    case 1:
        return dice_percent(d, 50) ? WINDOW_TOP : u->last + 2 * dice_below(d, 10);
    default:
        return least + 2 * dice_below(d, steps + 1);
    }
}

/* On a stream that it has just said it would not touch. */
static void say_more(struct up *u, uint32_t id)
{
    struct bytes b = {0};
    struct dice *d = &u->c.luck;
    h2_put_field(&b, ":status", "200");
    h2_put_field(&b, "x-token", "ffffffff");
    h2_put_field(&b, "x-attempt", "0");
    switch (dice_below(d, 6)) {
    case 0:
        h2_put_frame(&u->c, H2_HEADERS, H2_END_HEADERS, id, b.at, b.len);
        if (u->window < (int64_t)sizeof ALIEN)
            break;
        u->window -= sizeof ALIEN - 1;
        h2_put_frame(&u->c, H2_DATA, H2_END_STREAM, id, ALIEN, sizeof ALIEN - 1);
        break;
    case 1:
        h2_put_frame(&u->c, H2_HEADERS, H2_END_HEADERS | H2_END_STREAM, id, b.at, b.len);
        break;
    case 2:
        h2_put_number(&u->c, H2_RST_STREAM, id, dice_below(d, 14));
        break;
    case 3:
        h2_put_number(&u->c, H2_WINDOW_UPDATE, id, 1 + dice_below(d, 1000));
        break;
    default:
        break;
    }
    free(b.at);
}

/* None of which it has begun to answer. */
static void disown(struct up *u)
{
    uint32_t gone[DISOWNED_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < CALLS_MAX; i++) {
        struct call *k = &u->calls[i];
        if (k->id == 0 || !mood_disowns(u, k->id) || k->answering)
            continue;
        if (n < DISOWNED_MAX)
            gone[n++] = k->id;
        k->r->acted -= k->r->acted > 0;
        k->r->refusals++;
        k->id = 0;
    }
    while (n > 0)
        say_more(u, gone[--n]);
}

/* Their client would wait for ever: nobody takes what it has to say. */
static bool has_tunnels(const struct up *u)
{
    for (unsigned i = 0; i < CALLS_MAX; i++)
        if (u->calls[i].id != 0 && u->calls[i].r->tunnel)
            return true;
    return false;
}

static void behave_badly(struct up *u)
{
    u->doomed = true;
    up_note_fault(u);
    switch (dice_below(&u->c.luck, 5)) {
    case 0:
        u->c.hung = !has_tunnels(u);
        break;
    case 1:
        up_break_off(u, true, false);
        break;
    case 2:
        up_break_off(u, false, dice_percent(&u->c.luck, 50));
        break;
    default: /* it goes on as if nothing had been */
        break;
    }
}

static void leave(struct up *u)
{
    static const uint32_t codes[] = {1, 2, 3, 7, 8, 11, 12, 13, 99};
    struct mood *m = &u->mood;
    struct dice *d = &u->c.luck;
    bool faulty = group_is_faulty(u->group);
    m->leave_ns = NEVER;
    m->leave_at = 0;
    if (m->last == NO_GOAWAY && dice_percent(d, 40)) {
        say_goaway(u, WINDOW_TOP, 0);
        m->leave_ns = loop_time + dice_below(d, 20) * MS;
        return;
    }
    uint32_t last = choose_last(u, !faulty || dice_percent(d, 70));
    say_goaway(u, last, dice_percent(d, 30) ? codes[dice_below(d, 9)] : 0);
    disown(u);
    m->parts = last <= u->last && dice_percent(d, 50);
    if (faulty)
        behave_badly(u);
    else
        mood_part(u);
}

void mood_part(struct up *u)
{
    if (!u->mood.parts || u->c.dead || u->breaking || u->c.out.len > 0 || u->c.wire.len > 0)
        return;
    for (unsigned i = 0; i < CALLS_MAX; i++)
        if (u->calls[i].id != 0)
            return;
    conn_close(&u->c);
}

/* --- what is against all rules --- */

static struct call *any_call(struct up *u)
{
    unsigned from = dice_below(&u->c.luck, CALLS_MAX);
    for (unsigned i = 0; i < CALLS_MAX; i++) {
        struct call *k = &u->calls[(from + i) % CALLS_MAX];
        if (k->id != 0)
            return k;
    }
    return NULL;
}

static void break_rules(struct up *u)
{
    static const struct {
        unsigned id;
        uint32_t value;
    } wrong[] = {{SET_PUSH, 1}, {SET_PUSH, 2}, {SET_WINDOW, 0x80000000}, {SET_FRAME, 100},
                 {SET_FRAME, FRAME_TOP + 1}};
    struct dice *d = &u->c.luck;
    struct call *k = any_call(u);
    struct bytes b = {0};
    unsigned how = dice_below(d, 4);
    if (k != NULL && how < 2) { /* of one stream */
        k->r->faults++;
        h2_put_number(&u->c, H2_WINDOW_UPDATE, k->id, how == 0 ? 0 : WINDOW_TOP);
        return;
    }
    u->doomed = true;
    up_note_fault(u);
    if (how == 2) {
        h2_put_number(&u->c, H2_WINDOW_UPDATE, 0, dice_percent(d, 30) ? 0 : WINDOW_TOP);
        return;
    }
    unsigned which = dice_below(d, 5);
    put_setting(&b, wrong[which].id, wrong[which].value);
    h2_put_frame(&u->c, H2_SETTINGS, 0, 0, b.at, b.len);
    free(b.at);
}

/* --- moments --- */

static void greet(struct up *u)
{
    struct mood *m = &u->mood;
    struct settings s = plain;
    if (dice_percent(&u->c.luck, 30))
        s.calls = 1 + dice_below(&u->c.luck, CALLS_TOP);
    if (dice_percent(&u->c.luck, 30))
        s.window = 1 + dice_below(&u->c.luck, 100000);
    if (m->settings_left == 0 && s.window < H2_WINDOW)
        m->settings_left = 1, m->settings_ns = loop_time + 10 * MS;
    say_settings(u, &s, true);
}

void mood_begin(struct up *u)
{
    struct mood *m = &u->mood;
    struct dice *d = &u->c.luck;
    bool faulty = group_is_faulty(u->group);
    *m = (struct mood){.holds = plain, .last = NO_GOAWAY, .settings_ns = NEVER, .leave_ns = NEVER,
                       .overflow_ns = NEVER};
    u->in_left = H2_WINDOW;
    if (!faulty && !group_is_moody(u->group)) {
        say_settings(u, &plain, true);
        return;
    }
    if (dice_percent(d, faulty ? 15 : 50)) {
        m->settings_left = 1 + dice_below(d, 5);
        m->settings_ns = loop_time + dice_below(d, 20) * MS;
    }
    if (dice_percent(d, faulty ? 15 : 70)) {
        m->leave_at = dice_percent(d, 60) ? 1 + dice_below(d, 12) : 0;
        m->leave_ns = m->leave_at > 0 ? NEVER : loop_time + dice_below(d, 60) * MS;
    }
    if (faulty && dice_percent(d, 6))
        m->overflow_ns = loop_time + dice_below(d, 60) * MS;
    if (faulty && dice_percent(d, 2)) {
        say_goaway(u, dice_percent(d, 50) ? 0 : WINDOW_TOP, dice_percent(d, 50) ? 11 : 0);
        behave_badly(u);
    }
    greet(u);
}

void mood_turn(struct up *u)
{
    struct mood *m = &u->mood;
    if (u->c.dead || u->breaking || u->c.hung)
        return;
    if (m->settings_ns <= loop_time && m->said_count < SETTINGS_MAX)
        change_settings(u);
    if (m->overflow_ns <= loop_time) {
        m->overflow_ns = NEVER;
        break_rules(u);
    }
    if (m->leave_ns <= loop_time || (m->leave_at > 0 && m->calls_begun >= m->leave_at))
        leave(u);
    else
        mood_part(u);
}
