/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load and idle over TLS, with OpenSSL, speaking HTTP/1.1 only.
 *
 *   tls PORT PATH CONNECTIONS SECONDS [REQUESTS]       questions on kept connections
 *   tls PORT PATH CONNECTIONS SECONDS full|resumed     a connection for each question
 *   tls PORT PATH CONNECTIONS idle                     as idle.c
 *
 * A handshake counts when its question has been answered, so that all servers are through with it;
 * with "resumed" a ticket is offered, and "refused" tells how many the server did not take. The
 * certificate is not checked: that would cost this side more than the handshake costs the server.
 */
#include "client.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

enum { ERRORS_MAX = 1000, EVENTS = 256, PIECE = 65536 };

struct tls_client {
    struct client http; /* first */
    SSL *ssl;
    bool shaken, offered; /* a session was offered */
};

struct run {
    uint16_t port;
    int epoll_fd;
    char request[1024];
    size_t request_len;
    uint64_t sent, answered, errors, most, bytes, refused;
    bool anew, resumed;
    SSL_SESSION *session;
    struct histogram latencies;
};

static SSL_CTX *ctx;
static struct run r;
static char piece[PIECE];

static int on_session(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    SSL_SESSION_free(r.session);
    r.session = session;
    return 1;
}

static void make_ctx(void)
{
    ctx = SSL_CTX_new(TLS_client_method());
    if (!ctx || SSL_CTX_set_alpn_protos(ctx, (const unsigned char *)"\x08http/1.1", 9) != 0)
        fatal("openssl");
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, on_session);
}

static bool tls_open(struct tls_client *c)
{
    if (!client_open(&c->http, r.port))
        return false;
    fcntl(c->http.fd, F_SETFL, O_NONBLOCK);
    c->ssl = SSL_new(ctx);
    c->shaken = c->offered = false;
    if (!c->ssl || SSL_set_fd(c->ssl, c->http.fd) != 1 ||
        SSL_set_tlsext_host_name(c->ssl, "bench.example") != 1)
        return false;
    if (r.resumed && r.session)
        c->offered = SSL_set_session(c->ssl, r.session) == 1;
    SSL_set_connect_state(c->ssl);
    return true;
}

static void tls_close(struct tls_client *c)
{
    struct linger reset = {.l_onoff = 1}; /* no TIME_WAIT for each of a million connections */
    SSL_set_quiet_shutdown(c->ssl, 1);
    SSL_shutdown(c->ssl); /* the session stays a good one */
    SSL_free(c->ssl);
    setsockopt(c->http.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(c->http.fd);
}

static bool would_wait(struct tls_client *c, int result)
{
    int e = SSL_get_error(c->ssl, result);
    return e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE;
}

static bool ask(struct tls_client *c)
{
    return SSL_write(c->ssl, r.request, (int)r.request_len) == (int)r.request_len;
}

/* Handshake, then the question that waited for it. */
static enum progress shake(struct tls_client *c)
{
    ERR_clear_error();
    int result = SSL_do_handshake(c->ssl);
    if (result != 1)
        return would_wait(c, result) ? WAITING : BROKEN;
    c->shaken = true;
    r.refused += c->offered && !SSL_session_reused(c->ssl);
    return ask(c) ? WAITING : BROKEN;
}

static enum progress take(struct tls_client *c, size_t n)
{
    struct client *h = &c->http;
    r.bytes += n;
    if (h->in_body) {
        if (n > h->body_left)
            return BROKEN;
        h->body_left -= n;
        return h->body_left == 0 ? ANSWERED : WAITING;
    }
    if (n > HEAD_CAP - h->head_len) { /* a head with much of its body behind it */
        size_t fits = HEAD_CAP - h->head_len;
        memcpy(h->head + h->head_len, piece, fits);
        h->head_len += fits;
        enum progress got = client_take_head(h);
        if (!h->in_body || n - fits > h->body_left)
            return got == WAITING && !h->in_body ? WAITING : BROKEN;
        h->body_left -= n - fits;
        return h->body_left == 0 ? ANSWERED : WAITING;
    }
    memcpy(h->head + h->head_len, piece, n);
    h->head_len += n;
    return client_take_head(h);
}

static enum progress tls_read(struct tls_client *c)
{
    if (!c->shaken) {
        enum progress got = shake(c);
        if (got == BROKEN || !c->shaken)
            return got;
    }
    ERR_clear_error();
    for (;;) {
        int n = SSL_read(c->ssl, piece, PIECE);
        if (n <= 0)
            return would_wait(c, n) ? WAITING : BROKEN;
        enum progress got = take(c, (size_t)n);
        if (got != WAITING)
            return got;
    }
}

static void watch_tls(struct tls_client *c)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(r.epoll_fd, EPOLL_CTL_ADD, c->http.fd, &ev) < 0)
        fatal("epoll_ctl");
}

static void begin(struct tls_client *c, uint64_t now)
{
    if (!tls_open(c))
        fatal("connect");
    watch_tls(c);
    c->http.began_ns = now;
    r.sent++;
    if (shake(c) == BROKEN)
        fatal("handshake");
}

static void fail(struct tls_client *c, uint64_t now)
{
    r.errors++;
    r.sent--;
    tls_close(c);
    if (r.errors > ERRORS_MAX) {
        fprintf(stderr, "tls: giving up after %" PRIu64 " errors\n", r.errors);
        exit(1);
    }
    begin(c, now);
}

static void go_on(struct tls_client *c, uint64_t now)
{
    c->http.in_body = false;
    c->http.head_len = 0;
    if (r.sent >= r.most)
        return;
    if (r.anew) {
        tls_close(c);
        begin(c, now);
        return;
    }
    r.sent++;
    c->http.began_ns = now;
    if (!ask(c))
        fail(c, now);
}

static void on_readable(struct tls_client *c, uint64_t now)
{
    enum progress got = tls_read(c);
    if (got == BROKEN) {
        fail(c, now);
    } else if (got == ANSWERED) {
        r.answered++;
        histogram_add(&r.latencies, now - c->http.began_ns);
        go_on(c, now);
    }
}

static void run(uint64_t end_ns)
{
    struct epoll_event events[EVENTS];
    uint64_t now = now_ns();
    while (now < end_ns && r.answered < r.most) {
        int n = epoll_wait(r.epoll_fd, events, EVENTS, 100);
        if (n < 0 && errno != EINTR)
            fatal("epoll_wait");
        now = now_ns();
        for (int i = 0; i < n; i++)
            on_readable(events[i].data.ptr, now);
    }
}

static int hold(size_t count)
{
    struct tls_client *all = calloc(count, sizeof *all);
    size_t open = 0, closed = 0;
    char byte;
    if (!all)
        fatal("start");
    for (; open < count; open++) {
        struct tls_client *c = &all[open];
        if (!tls_open(c))
            break;
        fcntl(c->http.fd, F_SETFL, 0); /* one after the other */
        if (SSL_connect(c->ssl) != 1 || !ask(c))
            break;
        c->shaken = true;
        if (tls_read(c) != ANSWERED)
            break;
    }
    printf("{\"open\":%zu,\"errors\":%d}\n", open, open < count);
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    for (size_t i = 0; i < open; i++) {
        ssize_t n = recv(all[i].http.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        closed += n == 0 || (n < 0 && errno != EAGAIN);
        tls_close(&all[i]);
    }
    printf("{\"closed\":%zu}\n", closed);
    return open < count;
}

int main(int argc, char **argv)
{
    bool idle = argc == 5 && strcmp(argv[4], "idle") == 0;
    if (argc < 5 || argc > 6) {
        fprintf(stderr, "usage: tls PORT PATH CONNECTIONS SECONDS|idle [REQUESTS|full|resumed]\n");
        return 2;
    }
    r.port = (uint16_t)number(argv[1], 1, 65535);
    r.request_len = request_write(r.request, sizeof r.request, r.port, argv[2]);
    size_t count = number(argv[3], 1, 60000);
    raise_fd_limit();
    make_ctx();
    if (idle)
        return hold(count);
    uint64_t seconds = number(argv[4], 1, 3600);
    r.resumed = argc == 6 && strcmp(argv[5], "resumed") == 0;
    r.anew = r.resumed || (argc == 6 && strcmp(argv[5], "full") == 0);
    r.most = argc == 6 && !r.anew ? number(argv[5], 1, UINT64_MAX / 2) : UINT64_MAX / 2;
    struct tls_client *clients = calloc(count, sizeof *clients);
    r.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!clients || r.epoll_fd < 0)
        fatal("start");
    uint64_t began = now_ns();
    for (size_t i = 0; i < count; i++)
        begin(&clients[i], now_ns());
    run(began + seconds * 1000000000u);
    double took = (double)(now_ns() - began) / 1e9;
    printf("{\"requests\":%" PRIu64 ",\"errors\":%" PRIu64 ",\"bytes\":%" PRIu64
           ",\"refused\":%" PRIu64 ",\"seconds\":%.4f,\"rate\":%.1f,",
           r.answered, r.errors, r.bytes, r.refused, took, (double)r.answered / took);
    histogram_print(&r.latencies);
    printf("}\n");
    return 0;
}
