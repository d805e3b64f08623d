/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The upstreams: HTTP/1 and FastCGI. A connection reads a request, whose path says which round it is,
 * makes the plan of this attempt, and sends the answer as the plan says, which may be that it does not.
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

struct listener {
    struct conn c;
    enum kind kind;
    unsigned group;
};

enum up_state { READING, ANSWERING, TUNNEL, SILENT };

struct up {
    struct conn c;
    struct up *next, **link;
    enum kind kind;
    unsigned group;
    enum up_state state;
    struct h1 h1;
    struct tally tally;
    struct round *r; /* of the request under way, or NULL */
    struct plan *p;
    unsigned attempt;
    bool begun, answered; /* a request's first byte has come; its answer is rendered */
    uint64_t spoilt_ns;   /* when a word was said that nobody asked for … */
    bool at_once;         /* … together with the answer before it */
    uint8_t idle;
    struct bytes params;  /* of FastCGI */
    bool params_end, stdin_end;
};

static struct up *ups;
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

/* One that hangs behind its whole answer looks like one that is kept. */
static bool is_busy(const struct up *u)
{
    bool kept = u->kind == HTTP1 && u->state == SILENT && !u->p->closes && u->answered &&
                u->p->at >= u->p->needed;
    return !u->c.dead && (u->r != NULL || u->begun) && !kept;
}

unsigned upstreams_busy(void)
{
    unsigned n = 0;
    for (struct up *u = ups; u != NULL; u = u->next)
        n += is_busy(u);
    return n + h2_upstreams_busy();
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
    for (struct up *u = ups; u != NULL; u = u->next) {
        if (u->c.dead || u->r == NULL || u->r->left_ns == 0 || loop_time < u->r->left_ns + 8000 * MS)
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
    }
    size_t pieces = u->r->tunnel ? 20 : 100;
    c->piece = p->piece > 0 && b.len / p->piece > pieces ? b.len / pieces : p->piece;
    c->pause_ns = p->pause_ms * MS;
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
    bool closes = u->p->closes || u->kind == FASTCGI;
    u->idle = u->p->idle;
    if (u->p->fault == FAULT_SURPLUS) {
        u->spoilt_ns = loop_time;
        u->at_once = true;
    }
    u->r = NULL;
    u->p = NULL;
    u->begun = u->answered = false;
    u->state = READING;
    u->h1 = (struct h1){0};
    if (closes) {
        conn_close(&u->c);
        return;
    }
    if (u->idle != 0)
        u->c.wake_ns = loop_time + (u->idle == 3 ? 0 : dice_next(&(struct dice){loop_time}) % 20) * MS;
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
        conn_close(c);
    else if (f == FAULT_HANG)
        u->state = SILENT;
    else if (c->out.len == 0 && u->state == TUNNEL)
        c->eof ? conn_close(c) : conn_half_close(c);
    else if (c->out.len == 0 && u->p->fault == FAULT_EARLY && u->h1.state != H1_DONE)
        conn_close(c);
    else if (c->out.len == 0)
        rest(u);
}

static void on_wake(struct conn *c)
{
    struct up *u = (struct up *)c;
    if (u->r != NULL) {
        send_answer(c);
        return;
    }
    if (u->begun)
        return;
    if (u->idle == 3) {
        static const char word[] = "HTTP/1.1 200 OK\r\nX-Token: ffffffff\r\nX-Attempt: 0\r\n"
                                   "Content-Length: 7\r\n\r\n" ALIEN;
        conn_faults_ns[u->group] = loop_time;
        u->spoilt_ns = spoilt_ns[u->group] = loop_time;
        conn_send(c, word, sizeof word - 1);
    } else {
        spoil(u, u->idle == 2);
    }
    u->idle = 0;
}

/* --- the request --- */

struct plan *attempt_make(struct round *r, unsigned *attempt)
{
    if (r->over && r->left_ns == 0)
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
    r->weak |= p->fault == FAULT_FLIP;
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
    if (u->spoilt_ns != 0 && (u->at_once || loop_time - u->spoilt_ns > 500 * MS))
        violation(r, "comes on a connection that said %s what nobody asked for",
                  u->at_once ? "behind its answer" : "long ago");
    if (u->spoilt_ns != 0) { /* it could not know yet; the answers would be those of others from now on */
        r->weak = true;
        r->attempts++;
        r->faults++;
        spoil(u, false);
        return;
    }
    u->c.wake_ns = NEVER; /* it does not rest any more */
    u->r = r;
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
        conn_close(&u->c);
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

static void read_fastcgi(struct up *u)
{
    while (u->c.in.len >= 8 && !u->c.dead && u->state == READING) {
        const unsigned char *b = (const unsigned char *)u->c.in.at;
        size_t n = (size_t)b[4] << 8 | b[5], whole = 8 + n + b[6];
        if (u->c.in.len < whole)
            return;
        u->begun = true;
        if (b[1] == 4 && n > 0) {
            bytes_add(&u->params, b + 8, n);
        } else if (b[1] == 4) {
            char *uri = memmem(u->params.at, u->params.len, "REQUEST_URI", 11);
            bytes_add(&u->params, "", 1);
            if (uri == NULL || strlen(uri) < 22) {
                violation(NULL, "a FastCGI request without its name");
                conn_close(&u->c);
                return;
            }
            attempt_begin(u, (uint32_t)strtoul(uri + 11 + 3, NULL, 16));
        } else if (b[1] == 5 && u->r != NULL) {
            tally_add(&u->tally, (const char *)b + 8, n);
            if (n == 0 && !u->answered) {
                u->h1.state = H1_DONE;
                request_whole(u);
            } else if (fault_of_reading(u)) {
                return;
            }
        }
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
        return;
    }
    u->kind == FASTCGI ? read_fastcgi(u) : read_http1(u);
}

static void on_input(struct conn *c)
{
    struct up *u = (struct up *)c;
    if (c->in.len > 0)
        look(u);
    if (c->dead || (!c->eof && !c->broken))
        return;
    if (u->state == TUNNEL && c->eof && c->out.len > 0)
        return; /* the other way goes on */
    if (u->state == TUNNEL && !c->broken && u->r->left_ns == 0 && u->r->faults == 0 &&
        !round_is_late(u->r) && u->tally.got != u->r->upload)
        violation(u->r, "%zu bytes look like all that went up a tunnel", u->tally.got);
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
        h2_upstream_begin(fd, l->group);
        return;
    }
    struct up *u = calloc(1, sizeof *u);
    *u = (struct up){.c = {.on_input = on_input, .on_sent = on_sent, .on_wake = on_wake, .on_free = on_free},
                     .kind = l->kind, .group = l->group, .next = ups, .link = &ups};
    if (ups != NULL)
        ups->link = &u->next;
    ups = u;
    conn_start(&u->c, fd);
    static struct dice luck = {1};
    bool faulty = l->group != 0 && l->group != 3 && l->group != 5;
    if (faulty && dice_percent(&luck, 3))
        spoil(u, dice_percent(&luck, 50));
}

void upstream_listen(enum kind kind, unsigned group, uint16_t port)
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
                           .group = group};
    conn_start(&l->c, fd);
}
