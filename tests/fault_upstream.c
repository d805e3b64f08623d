/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The upstreams: HTTP/1, with TLS or without, and FastCGI. A connection reads a request, whose path says
 * which round it is, makes the plan of this attempt, and sends the answer as the plan says, which may be that
 * it does not. Questions for its health are answered as well, or badly: then the whole group is excused
 * until a good answer has been heard.
 * What comes up is checked as well: a body is the round's own, and whole where it looks whole; nothing
 * comes behind a request before it is answered; a connection that said what nobody asked for is not used
 * again.
 */
#include "fault.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    FAREWELL_MS = 7000, /* a tunnel's second direction has less, once the first has ended */
    CHECKS_KNOWN = 2,   /* the answer to the first one has been heard when the second comes */
    CHECK_MS = 1000,    /* who asks waits longer */
};

struct listener {
    struct conn c;
    struct listener *next;
    enum kind kind;
    unsigned group, good_checks; /* since the last bad one */
    bool tls;
};

enum up_state { READING, ANSWERING, TUNNEL, SILENT };

struct up {
    struct conn c;
    struct up *next, **link;
    enum kind kind;
    unsigned group;
    struct listener *from;
    enum up_state state;
    struct h1 h1;
    struct tally tally;
    struct round *r; /* of the request under way, or NULL */
    struct plan *p;
    unsigned attempt;
    bool begun, answered; /* a request's first byte has come; its answer is rendered */
    bool used;            /* before */
    unsigned late;        /* checks that found it so */
    uint64_t accepted_ns;
    uint64_t spoilt_ns;   /* when a word was said that nobody asked for … */
    bool at_once;         /* … together with the answer before it */
    uint8_t idle;
    struct bytes params;  /* of FastCGI */
    bool keep, check;     /* of FastCGI: its flag; a question for its health */
};

unsigned attempts_reused;
static struct up *ups;
static struct listener *listeners;
static void look(struct up *u);

static void on_free(struct conn *c)
{
    struct up *u = (struct up *)c;
    *u->link = u->next;
    if (u->next != NULL)
        u->next->link = u->link;
    free(u->params.at);
    free(u);
}

/* One that hangs behind its whole answer looks like one that is kept; over FastCGI nobody can say that it will
 * not be. */
static bool is_busy(const struct up *u)
{
    bool kept = u->p != NULL && u->state == SILENT && u->answered && u->p->at >= u->p->needed &&
                (u->kind == HTTP1 ? !u->p->closes : u->keep);
    return !u->c.dead && (u->r != NULL || u->begun) && !kept;
}

unsigned upstreams_busy(void)
{
    unsigned n = 0;
    for (struct up *u = ups; u != NULL; u = u->next)
        n += is_busy(u);
    return n + h2_upstreams_busy();
}

bool upstreams_known(void)
{
    for (struct listener *l = listeners; l != NULL; l = l->next)
        if (group_is_checked(l->group) && l->good_checks < CHECKS_KNOWN)
            return false;
    return true;
}

void upstreams_blame(void)
{
    static const char *const states[] = {"reading", "answering", "tunnel", "silent"};
    for (struct up *u = ups; u != NULL; u = u->next)
        if (is_busy(u))
            violation(u->r, "is still with an upstream of group %u that no client waits for: %s, read to %d%s, "
                      "%zu bytes up, %zu wait to go down%s", u->group, states[u->state], u->h1.state,
                      u->answered ? ", answered" : "", u->tally.got, u->c.out.len, u->c.eof ? ", eof" : "");
    h2_upstreams_blame();
}

/* Who has left long ago is asked for no more. */
void upstreams_check(void)
{
    h2_upstreams_check();
    for (struct listener *l = listeners; l != NULL; l = l->next)
        if (group_is_checked(l->group) && l->good_checks < CHECKS_KNOWN)
            conn_faults_ns[l->group] = loop_time;
    for (struct up *u = ups; u != NULL; u = u->next) {
        if (u->c.hung)
            conn_faults_ns[u->group] = loop_time;
        if (!is_busy(u) || u->r == NULL || u->r->left_ns == 0 || loop_time < u->r->left_ns + 8000 * MS)
            continue;
        if (++u->late < LATE_CHECKS)
            continue;
        violation(u->r, "its client left eight seconds ago, its upstream is still asked");
        conn_close(&u->c);
    }
}

static void spoil(struct up *u, bool cut)
{
    conn_faults_ns[u->group] = loop_time;
    cut ? conn_reset(&u->c) : conn_close(&u->c);
}

/* Somewhere in its TLS. */
static void on_cut(struct conn *c)
{
    struct up *u = (struct up *)c;
    conn_faults_ns[u->group] = loop_time;
    if (u->r != NULL)
        u->r->faults++;
    if (c->cut_at % 3 == 0)
        c->hung = true;
    else
        c->cut_at % 3 == 1 ? conn_reset(c) : conn_cut(c);
}

static void end(struct up *u, bool said)
{
    said ? conn_close(&u->c) : conn_cut(&u->c);
}

/* --- the answer --- */

/* Edges are where faults are. */
static size_t place(size_t at, const struct plan *p)
{
    size_t choice = at % 4, rest = at / 4;
    if (choice == 0)
        return rest % (p->head_end + 1);
    if (choice == 1)
        return p->needed - rest % 3 % (p->needed + 1);
    if (choice == 2)
        return p->head_end + rest % 3 < p->needed ? p->head_end + rest % 3 : p->needed;
    return rest % (p->needed + 1);
}

static void send_answer(struct conn *c)
{
    struct up *u = (struct up *)c;
    struct plan *p = u->p;
    if (u->answered)
        return;
    struct dice d = dice_of(fault_seed, u->r->token, 3000 + u->attempt);
    struct bytes b = u->kind == FASTCGI ? plan_render_fastcgi(p, u->r, u->attempt, &d)
                                        : plan_render(p, u->r, u->attempt);
    u->answered = true;
    u->state = p->status == 101 ? TUNNEL : ANSWERING;
    if (p->fault >= FAULT_RESET && p->fault <= FAULT_HANG) {
        p->at = place(p->at, p);
        c->stop_at = c->sent + p->at;
        c->chop = p->said || p->lie % 2 ? 0 : 1 + p->lie * 1000;
    }
    if (p->fault == FAULT_FLIP && u->c.tls != NULL) {
        p->at = place(p->at, p);
        p->at -= p->at == p->needed;
        c->flip_at = c->sent + p->at;
    }
    size_t pieces = p->status == 101 ? 20 : 100;
    c->piece = p->piece > 0 && b.len / p->piece > pieces ? b.len / pieces : p->piece;
    c->pause_ns = p->pause_ms * MS;
    c->hurry_ns = loop_time + PATIENCE_MS * MS;
    if (p->split != SIZE_MAX)
        c->split_at = c->sent + p->head_end + p->split;
    bytes_add(&c->out, b.at, b.len);
    free(b.at);
    if (c->stop_at == c->sent)
        c->on_sent(c);
    conn_update(c);
}

static void rest(struct up *u)
{
    bool closes = u->p->closes || (u->kind == FASTCGI && !u->keep);
    bool said = u->p->said || u->p->framing == BY_END;
    if (u->kind == FASTCGI && u->keep && closes)
        conn_faults_ns[u->group] = loop_time;
    u->idle = u->p->idle;
    if (u->p->fault == FAULT_SURPLUS) {
        u->spoilt_ns = loop_time;
        u->at_once = true;
    }
    u->r = NULL;
    u->p = NULL;
    u->begun = u->answered = false;
    u->late = 0;
    u->state = READING;
    u->h1 = (struct h1){0};
    u->params.len = 0;
    if (closes) {
        end(u, said);
        return;
    }
    if (u->idle != 0)
        u->c.wake_ns = loop_time + (u->idle == 3 ? 0 : dice_below(&u->c.luck, 20)) * MS;
}

/* Who has heard the end of the other direction does not hear that of the connection. */
static void fall_silent(struct up *u)
{
    u->state = SILENT;
    if (u->c.eof)
        u->c.wake_ns = loop_time + FAREWELL_MS * MS;
}

static void end_tunnel(struct up *u)
{
    round_half(u->r);
    u->c.eof ? conn_close(&u->c) : conn_half_close(&u->c);
}

static void on_sent(struct conn *c)
{
    struct up *u = (struct up *)c;
    if (u->p == NULL || !u->answered || u->state == SILENT)
        return;
    enum fault f = c->sent == c->stop_at ? u->p->fault : FAULT_NONE;
    if (f == FAULT_RESET)
        conn_reset(c);
    else if (f == FAULT_END)
        end(u, u->p->said);
    else if (f == FAULT_HANG)
        fall_silent(u);
    else if (c->out.len == 0 && u->state == TUNNEL)
        end_tunnel(u);
    else if (c->out.len == 0 && u->p->fault == FAULT_EARLY && u->h1.state != H1_DONE)
        conn_close(c);
    else if (c->out.len == 0)
        rest(u);
}

static void on_wake(struct conn *c)
{
    struct up *u = (struct up *)c;
    if (u->state == SILENT) {
        conn_close(c);
        return;
    }
    if (u->r != NULL) {
        send_answer(c);
        return;
    }
    if (u->begun)
        return;
    if (u->idle == 3) {
        static const char word[] = "HTTP/1.1 200 OK\r\nX-Token: ffffffff\r\nX-Attempt: 0\r\n"
                                   "Content-Length: 7\r\n\r\n" ALIEN;
        struct bytes record = poison_fastcgi();
        bool fast = u->kind == FASTCGI;
        conn_faults_ns[u->group] = loop_time;
        u->spoilt_ns = spoilt_ns[u->group] = loop_time;
        conn_send(c, fast ? record.at : word, fast ? record.len : sizeof word - 1);
        free(record.at);
    } else {
        spoil(u, u->idle == 2);
    }
    u->idle = 0;
}

/* --- the request --- */

struct plan *attempt_make(struct round *r, unsigned *attempt)
{
    if (r->over && r->left_ns == 0 && !r->lost && !round_is_late(r))
        violation(r, "is asked for once more after its end");
    if (r->acted > 0 && !r->idempotent)
        violation(r, "what may have been acted on is sent again");
    if (r->attempts >= ATTEMPTS_MAX || r->acted >= 2u * (1u + r->route->retries)) { /* refused ones are free */
        violation(r, "is tried too often");
        return NULL;
    }
    *attempt = r->attempts++;
    struct plan *p = &r->plans[*attempt];
    plan_make(p, r, *attempt);
    r->faults += p->fault != FAULT_NONE;
    r->weak |= p->fault == FAULT_FLIP && !r->route->tls;
    r->acted += r->route->kind != HTTP2 || p->fault != FAULT_LIE || p->lie % 6 != 0;
    return p;
}

static void attempt_begin(struct up *u, uint32_t token)
{
    struct round *r = round_by_token(token);
    if (r == NULL) {
        violation(NULL, "an upstream is asked for %08x", token);
        conn_close(&u->c);
        return;
    }
    if (u->spoilt_ns != 0 && (u->at_once || loop_time - u->spoilt_ns > HEARD_MS * MS))
        violation(r, "comes on a connection that said %s what nobody asked for",
                  u->at_once ? "behind its answer" : "long ago");
    if (u->spoilt_ns != 0) { /* it could not know yet; the answers would be those of others from now on */
        r->weak = true;
        r->attempts++;
        r->faults++;
        spoil(u, false);
        return;
    }
    attempts_reused += u->used;
    u->used = true;
    u->c.wake_ns = NEVER; /* it does not rest any more */
    u->r = r;
    r->lost = u->c.hung;
    r->faults += u->c.hung;
    u->p = attempt_make(r, &u->attempt);
    if (u->p == NULL) {
        u->r = NULL;
        conn_close(&u->c);
        return;
    }
    if (u->p->fault >= FAULT_READ_RESET && u->p->fault <= FAULT_READ_HANG)
        u->p->at = dice_next(&(struct dice){u->p->at}) % 3 == 0 ? 0 : u->p->at % (r->upload + 1);
    u->tally = (struct tally){.token = token, .way = 'U'};
    if (u->p->fault == FAULT_EARLY)
        send_answer(&u->c);
}

/* True: it was a fault to see, and the request is over. */
static bool fault_of_reading(struct up *u)
{
    if (u->p->fault < FAULT_READ_RESET || u->p->fault > FAULT_READ_HANG || u->tally.got < u->p->at)
        return false;
    if (u->p->fault == FAULT_READ_RESET)
        conn_reset(&u->c);
    else if (u->p->fault == FAULT_READ_END)
        end(u, u->p->said);
    else
        u->state = SILENT;
    return true;
}

static void request_whole(struct up *u)
{
    if (u->tally.wrong)
        violation(u->r, "upload is not its own %s", u->tally.note);
    else if (u->tally.got != u->r->upload)
        violation(u->r, "%zu bytes look like its whole upload", u->tally.got);
    if (fault_of_reading(u))
        return;
    if (u->p->wait_ms > 0)
        u->c.wake_ns = loop_time + u->p->wait_ms * MS;
    else
        send_answer(&u->c);
}

static void read_http1(struct up *u)
{
    struct h1 *h = &u->h1;
    for (;;) {
        enum h1_state before = h->state;
        u->begun |= u->c.in.len > 0;
        if (!h1_take(h, &u->c.in, &u->tally))
            break;
        if (before == H1_HEAD) {
            char *slash = strchr(h->head, '/');
            if (slash == NULL || slash[1] == 0 || slash[2] != '/') {
                violation(NULL, "an upstream is asked for \"%.60s\"", h->head);
                conn_close(&u->c);
                return;
            }
            attempt_begin(u, (uint32_t)strtoul(slash + 3, NULL, 16));
            if (u->c.dead)
                return;
            h1_body(h, !u->r->tunnel && u->r->method[0] != 'P', u->r->tunnel);
            if (u->r->tunnel) {
                u->c.wake_ns = loop_time;
                return;
            }
        }
        if (u->r != NULL && h->state != H1_DONE && u->p->fault != FAULT_NONE && fault_of_reading(u))
            return;
        if (h->state == H1_DONE && !u->answered) {
            request_whole(u);
            return;
        }
    }
    if (h->state == H1_BAD && u->r != NULL && u->r->left_ns == 0)
        violation(u->r, "comes up malformed");
    if (h->state == H1_DONE && u->c.in.len > 0)
        violation(u->r, "has %zu bytes behind it", u->c.in.len);
}

static void answer_check(struct up *u)
{
    struct dice *luck = &u->c.luck;
    static const char *const texts[] = {"Status: 200\r\n\r\nwell", "Status: 503\r\n\r\n", "Status:\1many\r\n\r\n"};
    unsigned how = group_is_faulty(u->group) && dice_percent(luck, 8) ? 1 + dice_below(luck, 10) : 0;
    bool good = how == 0 && loop_time - u->accepted_ns < CHECK_MS * MS;
    struct bytes b = {0};
    u->from->good_checks = good ? u->from->good_checks + 1 : 0;
    u->begun = u->check = false;
    u->params.len = 0;
    if (how == 3) {
        u->state = SILENT;
    } else if (how > 3) {
        spoil(u, how % 2);
    } else {
        fastcgi_record(&b, 6, texts[how], strlen(texts[how]), 0);
        fastcgi_record(&b, 3, "\0\0\0\0\0\0\0\0", 8, 0);
        conn_send(&u->c, b.at, b.len);
        free(b.at);
    }
}

/* All of its parameters have come. */
static void fastcgi_asked(struct up *u)
{
    bytes_add(&u->params, "", 1);
    char *uri = memmem(u->params.at, u->params.len, "REQUEST_URI", 11);
    if (uri == NULL || strlen(uri) < 18) {
        violation(NULL, "a FastCGI request without its name");
        conn_close(&u->c);
    } else if (strncmp(uri + 11, "/health", 7) == 0) {
        u->check = true;
    } else {
        attempt_begin(u, (uint32_t)strtoul(uri + 11 + 3, NULL, 16));
    }
}

static void fastcgi_body(struct up *u, const char *bytes, size_t n)
{
    if (u->check && n == 0) {
        answer_check(u);
        return;
    }
    if (u->r == NULL || u->h1.state == H1_DONE)
        return;
    tally_add(&u->tally, bytes, n);
    if (n == 0) {
        u->h1.state = H1_DONE;
        request_whole(u);
    } else if (!u->answered) {
        fault_of_reading(u);
    }
}

static void read_fastcgi(struct up *u)
{
    while (u->c.in.len >= 8 && !u->c.dead && u->state <= ANSWERING) {
        const unsigned char *b = (const unsigned char *)u->c.in.at;
        size_t n = (size_t)b[4] << 8 | b[5], whole = 8 + n + b[6];
        if (u->c.in.len < whole)
            return;
        if (u->h1.state == H1_DONE) {
            violation(u->r, "has a record of type %u behind it", b[1]);
            conn_close(&u->c);
            return;
        }
        u->begun = true;
        if (b[1] == 1)
            u->keep = b[10] & 1;
        else if (b[1] == 4 && n > 0)
            bytes_add(&u->params, b + 8, n);
        else if (b[1] == 4)
            fastcgi_asked(u);
        else if (b[1] == 5)
            fastcgi_body(u, (const char *)b + 8, n);
        if (!u->c.dead)
            bytes_drop(&u->c.in, whole);
    }
}

static void look(struct up *u)
{
    if (u->state == SILENT) {
        u->c.in.len = 0;
        return;
    }
    if (u->state == TUNNEL) {
        tally_add(&u->tally, u->c.in.at, u->c.in.len);
        u->c.in.len = 0;
        if (u->tally.wrong)
            violation(u->r, "upload is not its own %s", u->tally.note);
        if (u->tally.got > 0)
            fault_of_reading(u);
        return;
    }
    u->kind == FASTCGI ? read_fastcgi(u) : read_http1(u);
}

static bool hangs_on(const struct up *u)
{
    return u->state == SILENT && u->p != NULL && u->p->status == 101 && u->p->fault == FAULT_HANG &&
           plan_is_deaf(u->p) && !u->c.broken;
}

void tunnel_heard(struct round *r, size_t got)
{
    r->heard = true;
    if (r->left_ns == 0 && r->faults == 0 && !round_is_late(r) && got != r->upload)
        violation(r, "%zu bytes look like all that went up a tunnel", got);
}

static void on_input(struct conn *c)
{
    struct up *u = (struct up *)c;
    if (c->in.len > 0)
        look(u);
    if (c->dead || (!c->eof && !c->broken))
        return;
    bool tunnel = u->state == TUNNEL, said = c->tls == NULL || c->said;
    if (tunnel && !c->broken && said)
        tunnel_heard(u->r, u->tally.got);
    if (tunnel && !c->broken && !said && u->r->left_ns == 0 && u->r->faults == 0 && !round_is_late(u->r))
        violation(u->r, "the end of what went up a tunnel is not said");
    if (tunnel && c->eof && c->out.len > 0 && !c->hung)
        return; /* the other way goes on */
    if (c->eof && hangs_on(u))
        fall_silent(u);
    else
        conn_close(c);
}

/* --- listeners --- */

static void free_listener(struct conn *c)
{
    free(c);
}

static void accept_one(struct conn *c)
{
    struct listener *l = (struct listener *)c;
    int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    c->eof = c->broken = false; /* a listener has none */
    if (fd < 0)
        return;
    if (l->kind == HTTP2) {
        h2_upstream_begin(fd, l->group, l->tls);
        return;
    }
    struct up *u = calloc(1, sizeof *u);
    *u = (struct up){.c = {.on_input = on_input, .on_sent = on_sent, .on_wake = on_wake, .on_free = on_free,
                           .on_cut = on_cut, .luck = dice_of_conn(l->group)},
                     .accepted_ns = loop_time, .kind = l->kind, .group = l->group, .from = l, .next = ups, .link = &ups};
    if (ups != NULL)
        ups->link = &u->next;
    ups = u;
    bool faulty = group_is_faulty(l->group);
    if (l->tls)
        tls_begin(&u->c, false, faulty);
    conn_start(&u->c, fd);
    if (faulty && dice_percent(&u->c.luck, 3)) {
        l->good_checks = 0;
        spoil(u, dice_percent(&u->c.luck, 50));
    }
}

void upstream_listen(enum kind kind, bool tls, unsigned group, uint16_t port)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 1024) < 0) {
        perror("listen");
        exit(2);
    }
    struct listener *l = calloc(1, sizeof *l);
    *l = (struct listener){.c = {.on_input = accept_one, .on_free = free_listener}, .kind = kind,
                           .group = group, .tls = tls, .next = listeners};
    listeners = l;
    conn_start(&l->c, fd);
}
