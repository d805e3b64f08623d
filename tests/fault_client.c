/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients over HTTP/1: some rounds on one connection, one after the other or at once (pipelined), as
 * long as it is kept; some leave in the middle. And the reader of messages that both sides use.
 */
#include "fault.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- messages --- */

bool h1_field(const struct h1 *h, const char *name, char *value, size_t cap)
{
    size_t len = strlen(name);
    for (const char *line = strstr(h->head, "\r\n"); line != NULL; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, len) != 0 || line[len] != ':')
            continue;
        const char *from = line + len + 1, *end = strstr(from, "\r\n");
        while (*from == ' ')
            from++;
        size_t n = end != NULL && (size_t)(end - from) < cap ? (size_t)(end - from) : cap - 1;
        memcpy(value, from, n);
        value[n] = 0;
        return true;
    }
    return false;
}

void h1_body(struct h1 *h, bool none, bool to_end)
{
    char value[64];
    if (none) {
        h->state = H1_DONE;
    } else if (h1_field(h, "Transfer-Encoding", value, sizeof value)) {
        h->state = strcasecmp(value, "chunked") == 0 ? H1_CHUNK_SIZE : H1_BAD;
    } else if (h1_field(h, "Content-Length", value, sizeof value)) {
        h->left = strtoull(value, NULL, 10);
        h->state = h->left > 0 ? H1_FIXED : H1_DONE;
    } else {
        h->state = to_end ? H1_TO_END : H1_DONE;
    }
}

static bool take_line(struct bytes *in, char *line, size_t cap)
{
    char *end = in->len > 0 ? memmem(in->at, in->len, "\r\n", 2) : NULL;
    if (end == NULL || (size_t)(end - in->at) >= cap)
        return false;
    memcpy(line, in->at, (size_t)(end - in->at));
    line[end - in->at] = 0;
    bytes_drop(in, (size_t)(end - in->at) + 2);
    return true;
}

static bool take_head(struct h1 *h, struct bytes *in)
{
    char *end = in->len > 0 ? memmem(in->at, in->len, "\r\n\r\n", 4) : NULL;
    if (end == NULL)
        return false;
    h->head_len = (size_t)(end - in->at) + 4;
    if (h->head_len >= sizeof h->head) {
        h->state = H1_BAD;
        return false;
    }
    memcpy(h->head, in->at, h->head_len);
    h->head[h->head_len] = 0;
    bytes_drop(in, h->head_len);
    return true;
}

static bool take_body(struct h1 *h, struct bytes *in, struct tally *t)
{
    size_t n = h->state == H1_TO_END || in->len < h->left ? in->len : (size_t)h->left;
    if (n == 0)
        return false;
    tally_add(t, in->at, n);
    bytes_drop(in, n);
    h->left -= h->state == H1_TO_END ? 0 : n;
    if (h->left == 0 && h->state != H1_TO_END)
        h->state = h->state == H1_CHUNK ? H1_CHUNK_END : H1_DONE;
    return true;
}

static bool take_chunk_size(struct h1 *h, struct bytes *in)
{
    char line[300], *end;
    if (!take_line(in, line, sizeof line))
        return false;
    h->left = strtoull(line, &end, 16);
    h->state = end == line ? H1_BAD : h->left > 0 ? H1_CHUNK : H1_TRAILERS;
    return true;
}

bool h1_take(struct h1 *h, struct bytes *in, struct tally *t)
{
    char line[2000];
    switch (h->state) {
    case H1_HEAD:
        return take_head(h, in);
    case H1_FIXED:
    case H1_CHUNK:
    case H1_TO_END:
        return take_body(h, in, t);
    case H1_CHUNK_SIZE:
        return take_chunk_size(h, in);
    case H1_CHUNK_END:
        if (!take_line(in, line, sizeof line))
            return false;
        h->state = line[0] == 0 ? H1_CHUNK_SIZE : H1_BAD;
        return true;
    case H1_TRAILERS:
        if (!take_line(in, line, sizeof line))
            return false;
        h->state = line[0] == 0 ? H1_DONE : H1_TRAILERS;
        return true;
    default:
        return false;
    }
}

/* --- clients --- */

struct client {
    struct conn c;
    uint16_t port;
    struct round *rounds[STREAMS_MAX];
    unsigned count, asked, answered;
    bool pipelined, headed, last;
    struct h1 h1;
    struct seen seen;
    size_t down; /* bytes of this answer */
};

static unsigned open_clients;
static void begin(uint16_t port, struct round **own, unsigned count, bool pipelined);
static void answer_whole(struct client *u);

unsigned clients_open(void)
{
    return open_clients;
}

void clients_count(int step)
{
    open_clients += (unsigned)step;
}

static void on_free(struct conn *c)
{
    struct client *u = (struct client *)c;
    open_clients--;
    if (u->answered < u->count) /* the rest has a connection of its own */
        begin(u->port, u->rounds + u->answered, u->count - u->answered, u->pipelined);
    free(u);
}

static void render_body(struct bytes *b, const struct round *r)
{
    struct dice d = dice_of(fault_seed, r->token, 5);
    char piece[8192];
    for (size_t at = 0; at < r->upload;) {
        size_t n = 1 + dice_size(&d, sizeof piece - 1);
        n = n < r->upload - at ? n : r->upload - at;
        body_fill(piece, n, r->token, 'U', 0, at);
        if (r->chunked_up)
            bytes_print(b, "%zx\r\n", n);
        bytes_add(b, piece, n);
        if (r->chunked_up)
            bytes_add(b, "\r\n", 2);
        at += n;
    }
    if (r->chunked_up)
        bytes_add(b, "0\r\n\r\n", 5);
}

static void render(struct bytes *b, const struct round *r)
{
    bytes_print(b, "%s /%c/%08x HTTP/1.1\r\nHost: fault\r\n", r->method, r->route->name, r->token);
    if (r->expects)
        bytes_print(b, "Expect: 100-continue\r\n");
    if (r->tunnel)
        bytes_print(b, "Connection: Upgrade\r\nUpgrade: fault\r\n");
    else if (r->chunked_up)
        bytes_print(b, "Transfer-Encoding: chunked\r\n");
    else if (r->method[0] == 'P')
        bytes_print(b, "Content-Length: %zu\r\n", r->upload);
    bytes_print(b, "\r\n");
    if (!r->tunnel)
        render_body(b, r);
}

static struct round *current(struct client *u)
{
    return u->answered < u->count ? u->rounds[u->answered] : NULL;
}

static void ask(struct client *u)
{
    struct round *r = u->rounds[u->asked++];
    r->before = u->asked > 1 ? u->rounds[u->asked - 2] : NULL;
    struct bytes b = {0};
    render(&b, r);
    round_begin(r);
    u->c.piece = r->piece;
    u->c.pause_ns = r->pause_ms * MS;
    u->c.hurry_ns = loop_time + PATIENCE_MS * MS;
    if (r->leaving != STAYS && r->leaves_asking && r->leave_at + 1 < b.len)
        u->c.stop_at = u->c.sent + u->c.out.len + 1 + r->leave_at;
    bytes_add(&u->c.out, b.at, b.len);
    free(b.at);
    conn_update(&u->c);
}

static void expect_next(struct client *u)
{
    struct round *r = current(u);
    u->h1 = (struct h1){0};
    u->seen = (struct seen){0};
    u->headed = false;
    u->down = 0;
    u->c.wake_ns = loop_time + 30000 * MS;
    if (r != NULL)
        u->seen.tally = (struct tally){.token = r->token, .way = 'D'};
}

/* All of the connection's rounds that were asked for, since none of them is answered any more. */
static void cut(struct client *u)
{
    while (u->answered < u->asked) {
        struct round *r = u->rounds[u->answered++];
        if (u->pipelined && !u->headed && u->seen.status == 0 && u->last)
            round_leave(r); /* behind an answer that said it was the last one */
        round_judge(r, &u->seen);
        expect_next(u);
        u->last = true;
    }
    conn_close(&u->c);
}

static void leave(struct client *u)
{
    bool by_reset = current(u)->leaving == LEAVES_BY_RESET;
    for (unsigned i = u->answered; i < u->asked; i++)
        round_leave(u->rounds[i]);
    while (u->answered < u->asked) {
        round_judge(u->rounds[u->answered++], &u->seen);
        u->seen = (struct seen){0};
    }
    by_reset ? conn_reset(&u->c) : conn_close(&u->c);
}

static void on_sent(struct conn *c)
{
    struct client *u = (struct client *)c;
    if (c->sent == c->stop_at) {
        leave(u);
    } else if (current(u) != NULL && current(u)->tunnel && u->seen.status == 101) {
        round_half(current(u));
        if (c->eof)
            answer_whole(u);
        else
            conn_half_close(c);
    }
}

static void on_head(struct client *u)
{
    char value[64];
    const char *space = strchr(u->h1.head, ' ');
    int status = space != NULL ? atoi(space) : 0;
    if (status >= 100 && status < 200 && status != 101) {
        u->h1.state = H1_HEAD;
        return;
    }
    struct round *r = current(u);
    u->headed = true;
    u->seen.status = status;
    if (strncmp(u->h1.head, "HTTP/1.1 ", 9) != 0)
        violation(r, "got \"%.40s\"", u->h1.head);
    if ((u->seen.has_token = h1_field(&u->h1, "X-Token", value, sizeof value)))
        u->seen.token = (uint32_t)strtoul(value, NULL, 16);
    if (h1_field(&u->h1, "X-Attempt", value, sizeof value))
        u->seen.attempt = (unsigned)strtoul(value, NULL, 16);
    u->seen.tally.attempt = u->seen.attempt;
    u->seen.tally.weak = !u->seen.has_token || r->weak;
    if (h1_field(&u->h1, "Connection", value, sizeof value))
        u->last = strcasecmp(value, "close") == 0;
    h1_body(&u->h1, r->is_head || status == 204 || status == 304, true);
    if (status != 101)
        return;
    u->h1.state = H1_TO_END;
    render_body(&u->c.out, r);
    if (r->upload > 0)
        return;
    round_half(r);
    conn_half_close(&u->c);
}

static void answer_whole(struct client *u)
{
    struct round *r = current(u);
    u->seen.complete = u->h1.state == H1_DONE || u->h1.state == H1_TO_END;
    round_judge(r, &u->seen);
    u->answered++;
    bool upload_open = u->answered == u->asked && u->c.out.len > 0;
    expect_next(u);
    if (u->c.dead)
        return;
    if (current(u) == NULL || u->last || upload_open) {
        if (u->answered < u->asked)
            cut(u);
        else
            conn_close(&u->c);
        return;
    }
    if (u->asked == u->answered) {
        if (u->c.in.len > 0)
            violation(r, "has %zu bytes behind its answer: \"%.60s\"", u->c.in.len, u->c.in.at);
        ask(u);
    }
}

static void take(struct client *u)
{
    while (!u->c.dead && current(u) != NULL) {
        enum h1_state before = u->h1.state;
        size_t had = u->c.in.len;
        if (before == H1_HEAD && u->answered >= u->asked)
            return;
        if (!h1_take(&u->h1, &u->c.in, &u->seen.tally))
            return;
        u->down += had - u->c.in.len;
        if (before == H1_HEAD)
            on_head(u);
        struct round *r = current(u);
        if (r->leaving != STAYS && !r->leaves_asking && u->down > r->leave_at) {
            leave(u);
            return;
        }
        if (u->h1.state == H1_DONE)
            answer_whole(u);
    }
}

static void on_input(struct conn *c)
{
    struct client *u = (struct client *)c;
    take(u);
    if (c->dead)
        return;
    struct round *r = current(u);
    if (r != NULL && r->deaf)
        c->deaf_until_ns = loop_time + 15 * MS;
    if (!c->eof && !c->broken)
        return;
    if (c->eof && u->h1.state == H1_TO_END) {
        u->last = true;
        if (!r->tunnel || c->broken || c->out.len == 0) /* the other way of a tunnel goes on */
            answer_whole(u);
    } else if (u->answered == u->asked) {
        conn_close(c); /* between two of them: the rest goes elsewhere */
    } else {
        cut(u);
    }
}

static void on_wake(struct conn *c)
{
    struct client *u = (struct client *)c;
    if (current(u) != NULL)
        violation(current(u), "has no answer after half a minute");
    cut(u);
}

int client_connect(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || (connect(fd, (struct sockaddr *)&at, sizeof at) < 0 && errno != EINPROGRESS)) {
        perror("connect");
        exit(2);
    }
    return fd;
}

static void begin(uint16_t port, struct round **own, unsigned count, bool pipelined)
{
    int fd = client_connect(port);
    struct client *u = calloc(1, sizeof *u);
    *u = (struct client){.c = {.on_input = on_input, .on_sent = on_sent, .on_wake = on_wake, .on_free = on_free},
                         .port = port, .count = count, .pipelined = pipelined};
    memcpy(u->rounds, own, count * sizeof *own);
    open_clients++;
    conn_start(&u->c, fd);
    expect_next(u);
    ask(u);
    while (pipelined && u->asked < u->count)
        ask(u);
}

void client_begin(uint16_t port, struct round **own, unsigned count, struct dice *d)
{
    bool small = true;
    for (unsigned i = 0; i < count; i++)
        small &= own[i]->upload < 4096 && !own[i]->tunnel && (own[i]->leaving == STAYS);
    begin(port, own, count, small && count > 1 && dice_percent(d, 50));
}
