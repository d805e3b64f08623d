/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a round is, what an upstream answers at each attempt, and the judgement. The invariant: a client
 * gets one answer, well-formed, of an attempt of its own round, byte for byte as far as it goes; where it
 * is not all of it, that can be seen (a cut connection, a stream that is reset); where there is none, the
 * gateway's own 502, 503 or 504. A failure needs a cause: a fault of one of the round's attempts, or of a
 * connection of the same group of upstreams meanwhile, or a timeout. Nothing that may have been acted on is
 * sent twice.
 */
#include "fault.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UPLOAD_MAX = 200000, ANSWER_MAX = 300000, CELL = 16 };
enum { TIMEOUT_MS = 1200 };  /* the shortest one that fault_test.py gives is 2 s, by a busy machine's clock */
enum { REFUSALS_MAX = 1, BUFFERED_MAX = 60000 };
enum { FAREWELL_MS = 4500 }; /* of a tunnel, likewise, once one side has ended */

struct round *rounds;
uint32_t rounds_count;
static const struct route *chosen[64];
static unsigned chosen_count;
static unsigned count_complete, count_cut, count_refused, count_left, count_attempts, count_faults[FAULTS];

static const struct route routes[] = {
    {'c', HTTP1, 0, .faulty = false},                             /* plain */
    {'d', HTTP1, 0, .faulty = false},                             /* with buffers both ways */
    {'f', HTTP1, 1, .faulty = true},                              /* plain */
    {'n', HTTP1, 1, .faulty = true},                              /* no keep-alive, flush at once */
    {'r', HTTP1, 2, .faulty = true, .refuses = true, .retries = 3},
    {'b', HTTP1, 2, .faulty = true, .refuses = true, .retries = 2}, /* with buffers both ways */
    {'p', FASTCGI, 3, .faulty = false},
    {'q', FASTCGI, 4, .faulty = true, .retries = 1},
    {'w', HTTP1, 0, .faulty = false, .tunnels = true},
    {'v', HTTP1, 1, .faulty = true, .tunnels = true},
    {'h', HTTP2, 5, .faulty = false},
    {'i', HTTP2, 6, .faulty = true},
    {'j', HTTP2, 6, .faulty = true, .retries = 2},
    {'g', HTTP2, 5, .faulty = false, .tunnels = true},
    {'e', HTTP2, 6, .faulty = true, .tunnels = true},
    {'k', FASTCGI, 7, .faulty = false, .checked = true},          /* connections are kept */
    {'l', FASTCGI, 8, .faulty = true, .checked = true, .retries = 1}, /* as well */
    {'s', HTTP1, 9, .faulty = false, .tls = true},
    {'a', HTTP1, 9, .faulty = false, .tls = true, .tunnels = true},
    {'t', HTTP1, 10, .faulty = true, .tls = true, .retries = 1},
    {'u', HTTP1, 10, .faulty = true, .tls = true, .tunnels = true},
    {'x', HTTP2, 11, .faulty = false, .tls = true},
    {'y', HTTP2, 12, .faulty = true, .tls = true, .retries = 1},
    {'m', HTTP2, 13, .faulty = false, .moody = true},             /* with buffers for requests */
    {'z', HTTP2, 13, .faulty = false, .moody = true, .tunnels = true},
    {'o', HTTP2, 14, .faulty = false, .moody = true, .tls = true}, /* likewise */
};

/* --- chance and bytes --- */

struct dice dice_of(uint64_t seed, uint64_t a, uint64_t b)
{
    struct dice d = {seed * 0x9e3779b97f4a7c15u ^ a * 0xd1b54a32d192ed03u ^ b * 0x8cb92ba72f3d8dd7u};
    dice_next(&d);
    return d;
}

struct dice dice_of_conn(unsigned group)
{
    static uint64_t count[GROUPS_MAX];
    return dice_of(fault_seed, 5000 + group, count[group]++);
}

size_t dice_size(struct dice *d, size_t max)
{
    size_t top = 1;
    for (uint32_t n = dice_below(d, 20); n > 0 && top < max; n--)
        top *= 2;
    return dice_below(d, (uint32_t)(top < max ? top : max) + 1);
}

static void cell(char *out, uint32_t token, char way, unsigned attempt, size_t at)
{
    char text[CELL + 1];
    snprintf(text, sizeof text, "%c%08x%1x%06x", way, token, attempt & 15, (unsigned)(at / CELL) & 0xffffff);
    memcpy(out, text, CELL);
}

void body_fill(char *out, size_t n, uint32_t token, char way, unsigned attempt, size_t from)
{
    char one[CELL];
    for (size_t i = 0; i < n;) {
        size_t skip = (from + i) % CELL, take = CELL - skip < n - i ? CELL - skip : n - i;
        cell(one, token, way, attempt, from + i);
        memcpy(out + i, one + skip, take);
        i += take;
    }
}

void tally_add(struct tally *t, const char *bytes, size_t n)
{
    char want[4096];
    for (size_t at = 0; at < n && !t->wrong;) {
        size_t step = n - at < sizeof want ? n - at : sizeof want;
        body_fill(want, step, t->token, t->way, t->attempt, t->got);
        if (!t->weak && memcmp(want, bytes + at, step) != 0) {
            t->wrong = true;
            snprintf(t->note, sizeof t->note, "near byte %zu: \"%.32s\" instead of \"%.32s\"", t->got,
                     bytes + at, want);
        }
        t->got += step;
        at += step;
    }
    if (memmem(bytes, n, ALIEN, sizeof ALIEN - 1) != NULL) {
        t->wrong = true;
        snprintf(t->note, sizeof t->note, "what nobody asked for");
    }
}

/* --- rounds --- */

bool rounds_create(uint32_t count, const char *letters)
{
    for (; *letters != 0; letters++)
        for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
            if (routes[i].name == *letters)
                chosen[chosen_count++] = &routes[i];
    rounds_count = count;
    rounds = calloc(count, sizeof *rounds);
    if (rounds == NULL || chosen_count == 0)
        return false;
    for (uint32_t i = 0; i < count; i++)
        rounds[i].token = (uint32_t)fault_seed << 20 | i;
    return true;
}

static bool any_of_group(unsigned group, size_t at)
{
    for (unsigned i = 0; i < chosen_count; i++)
        if (chosen[i]->group == group && *((const bool *)chosen[i] + at))
            return true;
    return false;
}

bool group_is_faulty(unsigned group)
{
    return any_of_group(group, offsetof(struct route, faulty));
}

bool group_is_checked(unsigned group)
{
    return any_of_group(group, offsetof(struct route, checked));
}

bool group_is_moody(unsigned group)
{
    return any_of_group(group, offsetof(struct route, moody));
}

struct round *round_by_token(uint32_t token)
{
    uint32_t i = token & 0xfffff;
    return i < rounds_count && rounds[i].token == token ? &rounds[i] : NULL;
}

void round_plan(struct round *r, uint32_t token)
{
    static const char *const methods[] = {"GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE"};
    struct dice d = dice_of(fault_seed, token, 77);
    r->route = chosen[dice_below(&d, chosen_count)];
    r->method = methods[dice_below(&d, 7)];
    r->tunnel = r->route->tunnels;
    if (r->tunnel)
        r->method = "GET";
    r->is_head = r->method[0] == 'H';
    r->idempotent = strcmp(r->method, "POST") != 0;
    if (r->tunnel || r->method[0] == 'P')
        r->upload = dice_size(&d, UPLOAD_MAX);
    r->chunked_up = r->route->kind != FASTCGI && !r->tunnel && r->method[0] == 'P' && dice_percent(&d, 40);
    r->expects = r->upload > 0 && !r->tunnel && dice_percent(&d, 10);
    if (dice_percent(&d, 20)) {
        r->piece = 1 + dice_size(&d, 20000);
        r->pause_ms = dice_below(&d, 3);
        size_t pieces = r->tunnel ? 20 : 100; /* a tunnel has some seconds once one side has ended */
        if (r->upload / r->piece > pieces)
            r->piece = r->upload / pieces;
    }
    r->deaf = dice_percent(&d, 5);
    if (dice_percent(&d, 8)) {
        r->leaving = dice_percent(&d, 50) ? LEAVES_BY_RESET : LEAVES_BY_END;
        r->leaves_asking = dice_percent(&d, 50);
        r->leave_at = dice_size(&d, UPLOAD_MAX);
    }
}

void round_begin(struct round *r)
{
    r->begun_ns = loop_time;
}

void round_leave(struct round *r)
{
    if (r->left_ns == 0)
        r->left_ns = loop_time;
}

void round_half(struct round *r)
{
    if (r->half_ns == 0)
        r->half_ns = loop_time;
}

/* --- plans --- */

enum { LIES = 16, FASTCGI_LIES = 18 };

static void choose_fault(struct plan *p, const struct round *r, struct dice *d)
{
    static const uint8_t often[FAULTS] = {50, 10, 10, 2, 5, 4, 1, 6, 10, 4, 5};
    uint32_t sum = 0, at;
    for (int i = 0; i < FAULTS; i++)
        sum += often[i];
    at = dice_below(d, sum);
    for (int i = 0; i < FAULTS; i++) {
        if (at < often[i]) {
            p->fault = (enum fault)i;
            break;
        }
        at -= often[i];
    }
    bool two = r->route->kind == HTTP2, flips = p->fault == FAULT_FLIP;
    if (two && (p->fault == FAULT_SURPLUS || (flips && !r->route->tls)))
        p->fault = FAULT_NONE;
    if (r->tunnel && (p->fault == FAULT_EARLY || p->fault == FAULT_SURPLUS || (flips && !r->route->tls) ||
                      (p->fault == FAULT_LIE && !two)))
        p->fault = FAULT_NONE;
    if (p->fault == FAULT_SURPLUS && p->framing == BY_END && r->route->kind == HTTP1) /* is its body */
        p->fault = FAULT_NONE;
    p->lie = (uint8_t)dice_below(d, r->route->kind == FASTCGI ? FASTCGI_LIES : LIES);
    if (r->tunnel && p->fault == FAULT_LIE && p->lie % 6 == 5) /* a length means nothing there */
        p->fault = FAULT_NONE;
}

static bool closes_unasked(const struct plan *p, const struct round *r, struct dice *d)
{
    if (r->route->kind == FASTCGI) /* there, nobody can say so before */
        return r->route->faulty && dice_percent(d, 10);
    return p->framing == BY_END || dice_percent(d, 15);
}

void plan_make(struct plan *p, const struct round *r, unsigned attempt)
{
    static const int statuses[] = {200, 200, 200, 200, 201, 404, 500, 204, 304};
    struct dice d = dice_of(fault_seed, r->token, 1000 + attempt);
    *p = (struct plan){.status = statuses[dice_below(&d, 9)]};
    if (r->tunnel)
        p->status = dice_percent(&d, 8) ? 404 : 101;
    p->size = dice_size(&d, ANSWER_MAX);
    p->bodiless = r->is_head || p->status == 204 || p->status == 304;
    p->framing = (enum framing)dice_below(&d, 3);
    if (p->status == 204 || p->status == 304)
        p->framing = WITHOUT;
    if (p->status == 101)
        p->framing = BY_END;
    p->interim = (uint8_t)(dice_percent(&d, 10) ? 1 + dice_below(&d, 2) : 0);
    p->trailers = p->framing == BY_CHUNKS && dice_percent(&d, 30);
    p->closes = closes_unasked(p, r, &d);
    p->said = dice_percent(&d, 50);
    if (dice_percent(&d, 25)) {
        p->piece = 1 + dice_size(&d, 30000);
        p->pause_ms = dice_below(&d, 4);
    }
    p->split = dice_percent(&d, 30) ? dice_below(&d, 12) : SIZE_MAX;
    p->wait_ms = dice_percent(&d, 20) ? dice_below(&d, 30) : 0;
    if (r->route->faulty) {
        choose_fault(p, r, &d);
        p->idle = (uint8_t)(dice_percent(&d, 15) ? 1 + dice_below(&d, 3) : 0);
    }
    if (p->fault == FAULT_LIE && r->route->kind == HTTP2 && p->lie % 6 == 0 && dice_percent(&d, 40))
        p->interim = 1;
    p->refuses = r->route->moody && dice_percent(&d, 15);
    if (p->refuses)
        p->lie = (uint8_t)dice_below(&d, LIES);
    p->at = (size_t)dice_next(&d); /* made smaller once it is known of what */
    if (p->fault == FAULT_SURPLUS) /* else the connection is used again before it comes */
        p->piece = 0;
    if (p->fault == FAULT_LIE && p->bodiless) /* what is wrong with a body is not seen there */
        p->fault = FAULT_NONE;
    if (p->fault == FAULT_LIE && r->route->kind == FASTCGI && p->size == 0) /* nothing is missing then */
        p->fault = p->lie == 16 ? FAULT_NONE : FAULT_LIE;
    if (p->fault == FAULT_LIE && r->route->kind == HTTP1)
        p->framing = p->lie >= 12 ? BY_CHUNKS : BY_LENGTH, p->closes = true, p->trailers = false;
    if (p->fault == FAULT_LIE && r->route->kind == FASTCGI)
        p->framing = p->lie >= 12 && p->lie < LIES ? BY_CHUNKS : BY_LENGTH;
    count_faults[p->fault]++;
}

static void add_interim(struct bytes *b, const struct plan *p)
{
    for (int i = 0; i < p->interim; i++)
        bytes_print(b, "HTTP/1.1 103 Early Hints\r\nLink: </a%d>\r\n\r\n", i);
}

/* Lies about the head: each must be a 502. */
static void add_head_lie(struct bytes *b, const struct plan *p)
{
    size_t size = p->size;
    switch (p->lie) {
    case 0:
        bytes_print(b, "Content-Length: %zu\r\nContent-Length: %zu\r\n", size, size + 1);
        break;
    case 1:
        bytes_print(b, "Content-Length: %zu\r\nTransfer-Encoding: chunked\r\n", size);
        break;
    case 2:
        bytes_print(b, "Content-Length: %zu\nX-A: b\r\n", size);
        break;
    case 3:
        bytes_print(b, "Content-Length: +%zu\r\n", size);
        break;
    case 4:
        bytes_print(b, "Content-Length : %zu\r\n", size);
        break;
    case 5:
        bytes_print(b, "Content-Length: %zu\r\nno colon\r\n", size);
        break;
    case 6:
        bytes_print(b, "Content-Length: %zu\r\nX-A: b", size);
        bytes_add(b, "\0c\r\n", 4);
        break;
    case 7:
        bytes_print(b, "Content-Length: %zu, %zu\r\n", size, size);
        break;
    case 8:
        bytes_print(b, "Content-Length: 99999999999999999999\r\n");
        break;
    case 9:
        bytes_print(b, "Transfer-Encoding: chunked, chunked\r\n");
        break;
    case 10:
        for (int i = 0; i < 200; i++)
            bytes_print(b, "X-%d: a\r\n", i);
        bytes_print(b, "Content-Length: %zu\r\n", size);
        break;
    default: /* 11: more is announced than comes */
        bytes_print(b, "Content-Length: %zu\r\n", size + 1);
    }
}

static void add_framing(struct bytes *b, const struct plan *p)
{
    if (p->fault == FAULT_LIE && p->lie < 12)
        add_head_lie(b, p);
    else if (p->framing == BY_LENGTH)
        bytes_print(b, "Content-Length: %zu\r\n", p->size);
    else if (p->framing == BY_CHUNKS)
        bytes_print(b, "Transfer-Encoding: chunked\r\n");
    if (p->trailers)
        bytes_print(b, "Trailer: X-Trail\r\n");
}

void plan_add_body(struct bytes *b, size_t n, const struct round *r, unsigned attempt, size_t from)
{
    char piece[4096];
    for (size_t at = 0; at < n;) {
        size_t step = n - at < sizeof piece ? n - at : sizeof piece;
        body_fill(piece, step, r->token, 'D', attempt, from + at);
        bytes_add(b, piece, step);
        at += step;
    }
}

/* Lies 12 … 15 are about one chunk. */
void plan_add_chunks(struct bytes *b, const struct plan *p, const struct round *r, unsigned attempt)
{
    struct dice d = dice_of(fault_seed, r->token, 2000 + attempt);
    size_t lie_at = p->fault == FAULT_LIE ? dice_below(&d, (uint32_t)p->size + 1) : SIZE_MAX;
    for (size_t at = 0; at < p->size;) {
        size_t n = 1 + dice_size(&d, 40000);
        n = n < p->size - at ? n : p->size - at;
        bool lies = lie_at < at + n;
        if (lies && p->lie == 12)
            bytes_print(b, "zz\r\n");
        else if (lies && p->lie == 13)
            bytes_print(b, "fffffffffffffffff\r\n");
        else
            bytes_print(b, dice_percent(&d, 10) ? "%zx;a=b\r\n" : "%zx\r\n", n);
        plan_add_body(b, n, r, attempt, at);
        bytes_print(b, lies && p->lie == 14 ? "xx" : "\r\n");
        at += n;
        if (lies && p->lie == 14)
            lie_at = SIZE_MAX;
    }
    if (p->fault == FAULT_LIE) /* 15: it never comes to its end */
        return;
    bytes_print(b, p->trailers ? "0\r\nX-Trail: %x\r\n\r\n" : "0\r\n\r\n", r->token);
}

static void add_poison(struct bytes *b)
{
    bytes_print(b, "HTTP/1.1 200 OK\r\nX-Token: ffffffff\r\nX-Attempt: 0\r\nContent-Length: 7\r\n\r\n" ALIEN);
}

struct bytes plan_render(struct plan *p, const struct round *r, unsigned attempt)
{
    struct bytes b = {0};
    add_interim(&b, p);
    bytes_print(&b, "HTTP/1.1 %d Some Words\r\nX-Token: %08x\r\nX-Attempt: %x\r\n", p->status, r->token, attempt);
    if (p->status == 101)
        bytes_print(&b, "Upgrade: fault\r\nConnection: Upgrade\r\n");
    else
        add_framing(&b, p);
    if (p->closes && p->status != 101)
        bytes_print(&b, "Connection: close\r\n");
    bytes_print(&b, "\r\n");
    p->head_end = b.len;
    if (!p->bodiless && p->framing == BY_CHUNKS)
        plan_add_chunks(&b, p, r, attempt);
    else if (!p->bodiless)
        plan_add_body(&b, p->size, r, attempt, 0);
    p->needed = b.len;
    if (p->fault == FAULT_FLIP && !r->route->tls)
        b.at[p->at % p->head_end] ^= (char)(1 << p->at / p->head_end % 7);
    if (p->fault == FAULT_SURPLUS)
        add_poison(&b);
    return b;
}

/* --- judgement --- */

void round_print(const struct round *r)
{
    static const char *const faults[] = {"none", "reset", "end", "hang", "read-reset", "read-end", "read-hang",
                                         "early", "lie", "flip", "surplus"};
    printf("round %u (%s, %s /%c, %zu up%s%s):", r->token & 0xfffff, r->h2 ? "h2" : "h1", r->method,
           r->route->name, r->upload, r->chunked_up ? " chunked" : "", r->leaving != STAYS ? ", leaves" : "");
    for (unsigned i = 0; i < r->attempts && i < ATTEMPTS_MAX; i++) {
        const struct plan *p = &r->plans[i];
        printf(" [%d, %zu of framing %d, fault %s %d at %zu of %zu]", p->status, p->size, p->framing,
               faults[p->fault], p->lie, p->at, p->needed);
    }
    if (r->refusals > 0)
        printf(" refused %u times", r->refusals);
    printf(" %llu ms ", (unsigned long long)((loop_time - r->begun_ns) / MS));
    if (r->attempts == 0 && r->before != NULL) {
        printf("behind ");
        round_print(r->before);
    }
}

/* The gateway's time may be over, if this machine is slow: upstreams that misbehave are given little. */
bool round_is_late(const struct round *r)
{
    if (r->half_ns != 0 && loop_time - r->half_ns > FAREWELL_MS * MS)
        return true;
    return r->route->faulty && loop_time - r->begun_ns > TIMEOUT_MS * MS;
}

static bool has_cause(const struct round *r)
{
    return r->faults > 0 || round_is_late(r) ||
           (r->route->faulty && conn_faults_ns[r->route->group] + HEARD_MS * MS > r->begun_ns);
}

/* One that hangs does not even answer the end of the other direction. */
bool plan_is_deaf(const struct plan *p)
{
    return p->lie % 2 == 1;
}

/* The end of a tunnel that was not said; a client of HTTP/1 sees no difference. */
static bool tunnel_broke(const struct plan *p, const struct round *r)
{
    bool end = p->fault == FAULT_END && r->route->tls && !p->said;
    bool hang = p->fault == FAULT_HANG && (r->route->kind == HTTP2 || plan_is_deaf(p));
    return r->h2 && (p->fault == FAULT_RESET || p->fault == FAULT_FLIP || hang || end);
}

/* What a client may take for the whole body, at least and at most; false: nothing. */
static bool may_be_whole(const struct plan *p, const struct round *r, size_t *least, size_t *most)
{
    *least = *most = p->bodiless ? 0 : p->size;
    if (p->fault == FAULT_LIE)
        return false;
    if (p->status == 101 && (p->fault != FAULT_NONE || (has_cause(r) && !r->h2))) {
        *least = 0; /* its end says nothing of what should come */
        return !tunnel_broke(p, r);
    }
    bool counted = p->bodiless || p->framing == BY_LENGTH; /* then the request's end says nothing more */
    if (r->route->kind == FASTCGI && p->fault != FAULT_FLIP && (counted || p->at >= p->needed))
        return true;
    bool stops = (p->fault >= FAULT_RESET && p->fault <= FAULT_HANG) || p->fault == FAULT_FLIP;
    if (r->route->kind == HTTP2 && stops)
        return p->bodiless || (p->framing == BY_LENGTH && p->at >= p->size);
    switch (p->fault) {
    case FAULT_RESET:
    case FAULT_HANG:
        return p->at >= p->needed && (p->framing != BY_END || p->bodiless);
    case FAULT_END:
        if (r->route->kind != HTTP1 || p->framing != BY_END || p->bodiless)
            return p->at >= p->needed;
        *least = 0;
        return p->at >= p->head_end && (p->said || !r->route->tls);
    case FAULT_FLIP:
        if (r->route->tls)
            return false;
        *least = 0;
        *most = SIZE_MAX;
        return true;
    default:
        return true;
    }
}

static bool was_early(const struct round *r)
{
    for (unsigned i = 0; i < r->attempts && i < ATTEMPTS_MAX; i++)
        if (r->plans[i].fault == FAULT_EARLY)
            return true;
    return false;
}

/* An answer that was whole for its client may fail before its request's end, and the connection with it; so
 * it does when the end of the body is on its way as the answer ends. */
static bool connection_broke(const struct round *r)
{
    const struct round *b = r->before;
    return r->attempts == 0 && b != NULL && (b->route->kind != HTTP1 || was_early(b)) && has_cause(b);
}

/* So often that the gateway gives up: it may have been told so more often than its upstreams know, which had
 * said so before they read that it came; a tunnel, before it was asked for. Or when a part of it could not
 * be said again. */
static bool was_refused(const struct round *r)
{
    return r->route->moody &&
           (r->refusals > (r->tunnel ? 0 : REFUSALS_MAX) || r->upload > BUFFERED_MAX);
}

static bool excused(const struct round *r)
{
    return was_refused(r) || connection_broke(r) || r->route->refuses || has_cause(r);
}

static void judge_answer(struct round *r, const struct seen *s)
{
    if (s->token == 0xffffffff && loop_time - spoilt_ns[r->route->group] < HEARD_MS * MS)
        return; /* came on a connection at rest as the request went out: nobody could know */
    if (s->token != r->token) {
        violation(r, "was given the answer of %08x", s->token);
        return;
    }
    if (s->attempt >= r->attempts) {
        violation(r, "was given the answer of attempt %u", s->attempt);
        return;
    }
    const struct plan *p = &r->plans[s->attempt];
    size_t least, most;
    bool other = p->fault == FAULT_FLIP && !r->route->tls; /* anything in its head may be */
    if (s->status != (p->status == 101 && r->h2 ? 200 : p->status) && !other)
        violation(r, "got status %d", s->status);
    if (s->tally.wrong && !other)
        violation(r, "body is not its own %s", s->tally.note);
    if (!s->complete)
        return;
    if (!may_be_whole(p, r, &least, &most))
        violation(r, "a broken answer looks whole, with %zu bytes", s->tally.got);
    else if (s->tally.got < least || s->tally.got > most)
        violation(r, "%zu bytes look like a whole answer", s->tally.got);
}

void round_judge(struct round *r, const struct seen *s)
{
    if (r->over) {
        violation(r, "has ended twice");
        return;
    }
    r->over = true;
    count_attempts += r->attempts;
    if (s->alien || (s->tally.wrong && !s->has_token))
        violation(r, "got bytes that nobody asked for");
    if (s->has_token && !r->weak)
        judge_answer(r, s);
    if (r->left_ns != 0) {
        count_left++;
        return;
    }
    bool own = s->complete && !s->has_token;
    if (own && !r->weak && s->status != 502 && s->status != 503 && s->status != 504)
        violation(r, "got status %d of nobody", s->status);
    bool good = s->complete && s->has_token;
    *(good ? &count_complete : own ? &count_refused : &count_cut) += 1;
    if (!good && !excused(r))
        violation(r, "failed without a cause: status %d, %zu bytes of body, %s", s->status, s->tally.got,
                  s->complete ? "whole" : "cut");
}

void rounds_print(unsigned violations)
{
    unsigned most = 0;
    for (uint32_t i = 0; i < rounds_count; i++) {
        most = rounds[i].attempts > most ? rounds[i].attempts : most;
        if (!rounds[i].over)
            violation(&rounds[i], "never ended");
    }
    printf("{\"rounds\":%u,\"complete\":%u,\"refused\":%u,\"cut\":%u,\"left\":%u,\"attempts\":%u,"
           "\"most_attempts\":%u,\"reused\":%u,\"violations\":%u,\"faults\":[", rounds_count, count_complete,
           count_refused, count_cut, count_left, count_attempts, most, attempts_reused, violations);
    for (int i = 0; i < FAULTS; i++)
        printf("%s%u", i > 0 ? "," : "", count_faults[i]);
    printf("]}\n");
}
