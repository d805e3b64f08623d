/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of our own to a server of the test's own, which answers by the path it is asked for, with
 * TLS and without, on both back ends.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/fetch.h"
#include "loop/scene_testing.h"
#include "net/resolver.h"
#include "tls/tls_testing.h"

/* --- the server --- */

struct peer {
    int fd;
    SSL *ssl; /* NULL: plain */
};

static int listener, tls_listener;
static uint16_t port, tls_port;
static atomic_int connections, live;
static SSL_CTX *server_ctx;
static struct slice root_pem;

static const struct {
    const char *path, *answer;
    bool closes;
} answers[] = {
    {"/hello", "HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello", false},
    {"/chunks", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
                "\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", false},
    {"/to-close", "HTTP/1.0 200 OK\r\n\r\nuntil the end", true},
    {"/cut-to-close", "HTTP/1.0 200 OK\r\n\r\nuntil the end", true},
    {"/none", "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", false},
    {"/long", "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", true},
    {"/endless", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nhello"
                 "\r\n5\r\nhello\r\n", false},
    {"/cut", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", true},
    {"/nonsense", "SSH-2.0-whatever\r\n\r\n", true},
    {"/101", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", true},
    {"/there", "HTTP/1.1 302 Found\r\nLocation: hello\r\nContent-Length: 0\r\n\r\n", false},
    {"/round", "HTTP/1.1 307 Round\r\nLocation: /round\r\nContent-Length: 0\r\n\r\n", false},
    {"/bad-there", "HTTP/1.1 302 Found\r\nLocation: gopher://x\r\nContent-Length: 0\r\n\r\n",
     false},
    {"/silent", "", false},
    {"/gone", "", true},
};

static void say_all(const struct peer *p, const char *text, size_t len)
{
    if (p->ssl != NULL && len > 0)
        (void)SSL_write(p->ssl, text, (int)len);
    for (ssize_t n; p->ssl == NULL && len > 0 &&
                    (n = send(p->fd, text, len, MSG_NOSIGNAL)) > 0; text += n)
        len -= (size_t)n;
}

static ssize_t hear(const struct peer *p, char *buf, size_t cap)
{
    return p->ssl != NULL ? SSL_read(p->ssl, buf, (int)cap) : recv(p->fd, buf, cap, 0);
}

/* Reads one request; its length with the body, or 0. */
static size_t read_request(const struct peer *p, char *buf, size_t size)
{
    size_t len = 0;
    for (ssize_t n; len < size - 1 && (n = hear(p, buf + len, size - 1 - len)) > 0;) {
        buf[len += (size_t)n] = '\0';
        const char *end = strstr(buf, "\r\n\r\n");
        const char *length = end != NULL ? strstr(buf, "Content-Length: ") : NULL;
        size_t body = length != NULL ? strtoul(length + 16, NULL, 10) : 0;
        if (end != NULL && len >= (size_t)(end + 4 - buf) + body)
            return len;
    }
    return 0;
}

/* Back comes what came, and to another host where the path says so. */
static void answer_dynamic(const struct peer *p, const char *request, size_t len)
{
    char head[400];
    int n;
    if (strstr(request, " /elsewhere ") != NULL)
        n = snprintf(head, sizeof head, "HTTP/1.1 302 Found\r\nLocation: http://localhost:%u/echo"
                     "\r\nContent-Length: 0\r\n\r\n", port);
    else
        n = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", len);
    say_all(p, head, (size_t)n);
    if (strstr(request, " /elsewhere ") == NULL && strncmp(request, "HEAD", 4) != 0)
        say_all(p, request, len);
}

/* As a proxy: this server is the target itself, too. */
static bool answer_connect(struct peer *p, const char *target)
{
    static const char refusal[] = "HTTP/1.1 407 Proxy Authentication Required\r\n"
                                  "Content-Length: 3\r\n\r\nno!";
    static const char consent[] = "HTTP/1.1 200 Connection established\r\n\r\n";
    if (strcmp(target, "nowhere.example:443") != 0) {
        say_all(p, refusal, sizeof refusal - 1);
        return false;
    }
    say_all(p, consent, sizeof consent - 1);
    p->ssl = SSL_new(server_ctx);
    SSL_set_fd(p->ssl, p->fd);
    return SSL_accept(p->ssl) == 1;
}

/* Shakes hands again, in TLS 1.2, and waits for the client to have done its part. */
static void shake_again(const struct peer *p)
{
    struct timeval soon = {.tv_usec = 200000}, never = {0};
    char byte;
    SSL_renegotiate(p->ssl);
    SSL_do_handshake(p->ssl);
    setsockopt(p->fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
    (void)SSL_peek(p->ssl, &byte, 1);
    setsockopt(p->fd, SOL_SOCKET, SO_RCVTIMEO, &never, sizeof never);
}

/* The same while a body is on its way, which fibers read. */
static bool answer_amid(const struct peer *p)
{
    static char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 80000\r\n\r\n", half[40000];
    say_all(p, head, sizeof head - 1);
    say_all(p, half, sizeof half);
    shake_again(p);
    say_all(p, half, sizeof half);
    return true;
}

/* False: the connection ends. */
static bool answer(struct peer *p, const char *request, size_t len, unsigned number)
{
    char path[64] = "";
    (void)sscanf(request, "%*s %63s", path);
    if (strncmp(request, "CONNECT ", 8) == 0)
        return answer_connect(p, path);
    if (strcmp(path, "/again-amid") == 0)
        return answer_amid(p);
    if (strncmp(path, "/again", 6) == 0) { /* "/again/2": twice */
        for (int n = path[7] - '0'; n > 0; n--)
            shake_again(p);
    }
    if (strcmp(path, "/second-closes") == 0) {
        if (number > 0)
            return false;
        answer_dynamic(p, request, len);
        return true;
    }
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        if (strcmp(path, answers[i].path) == 0) {
            say_all(p, answers[i].answer, strlen(answers[i].answer));
            return !answers[i].closes;
        }
    }
    answer_dynamic(p, request, len);
    return true;
}

/* /cut… and /gone end without a close_notify. */
static void end_connection(struct peer *p, const char *request)
{
    if (p->ssl != NULL && strstr(request, " /cut") == NULL && strstr(request, " /gone") == NULL)
        SSL_shutdown(p->ssl);
    SSL_free(p->ssl);
    close(p->fd);
}

static void *serve_connection(void *arg)
{
    static _Thread_local char request[70000];
    struct peer *p = arg;
    size_t len;
    request[0] = '\0';
    if (p->ssl == NULL || SSL_accept(p->ssl) == 1) {
        for (unsigned n = 0; (len = read_request(p, request, sizeof request)) > 0; n++) {
            if (!answer(p, request, len, n))
                break;
        }
    }
    end_connection(p, request);
    mem_free(p);
    OPENSSL_thread_stop();
    atomic_fetch_sub(&live, 1);
    return NULL;
}

static void *serve(void *arg)
{
    int from = *(int *)arg;
    for (int fd; (fd = accept(from, NULL, NULL)) >= 0;) {
        pthread_t thread;
        struct peer *p = NEW(struct peer);
        p->fd = fd;
        if (from == tls_listener) {
            p->ssl = SSL_new(server_ctx);
            SSL_set_fd(p->ssl, fd);
        }
        atomic_fetch_add(&connections, 1);
        atomic_fetch_add(&live, 1);
        if (pthread_create(&thread, NULL, serve_connection, p) == 0)
            pthread_detach(thread);
    }
    return NULL;
}

static uint16_t start_listener(int *fd)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    pthread_t thread;
    *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_INT(bind(*fd, (struct sockaddr *)&a, sizeof a), 0);
    CHECK_INT(listen(*fd, 64), 0);
    CHECK_INT(getsockname(*fd, (struct sockaddr *)&a, &len), 0);
    CHECK_INT(pthread_create(&thread, NULL, serve, fd), 0);
    pthread_detach(thread);
    return ntohs(a.sin_port);
}

static void make_server_context(void)
{
    EVP_PKEY *root_key = testing_key(), *key = testing_key();
    X509 *root = testing_certificate(root_key, NULL, NULL, NULL, true, 1, 10);
    X509 *leaf = testing_certificate(key, "IP:127.0.0.1,DNS:nowhere.example", root, root_key, false, 2, 9);
    server_ctx = SSL_CTX_new(TLS_server_method());
    CHECK_INT(SSL_CTX_use_certificate(server_ctx, leaf), 1);
    CHECK_INT(SSL_CTX_use_PrivateKey(server_ctx, key), 1);
    root_pem = testing_pem(root);
    X509_free(leaf);
    X509_free(root);
    EVP_PKEY_free(key);
    EVP_PKEY_free(root_key);
}

static void start_server(void)
{
    if (port != 0)
        return;
    signal(SIGPIPE, SIG_IGN); /* SSL_write's */
    make_server_context();
    port = start_listener(&listener);
    tls_port = start_listener(&tls_listener);
    char proxy[64];
    snprintf(proxy, sizeof proxy, "http://us:er@127.0.0.1:%u", port);
    setenv("HTTP_PROXY", proxy, 1);
    snprintf(proxy, sizeof proxy, "127.0.0.1:%u", port);
    setenv("https_proxy", proxy, 1);
    setenv("NO_PROXY", "straight.example", 1);
}

/* --- scenes --- */

static struct loop *loop;
static struct arena arena;
static struct fetch_answer got;
static const char *wrong; /* what did not hold, with its place: a CHECK cannot leave a fiber */
static int wrong_line;

#define EXPECT(cond)                                                                               \
    do {                                                                                           \
        if (!(cond) && wrong == NULL) {                                                            \
            wrong = #cond;                                                                         \
            wrong_line = __LINE__;                                                                 \
        }                                                                                          \
    } while (0)

static void run_scene(enum loop_kind kind, void (*scene)(void))
{
    start_server();
    wrong = NULL;
    atomic_store(&connections, 0);
    arena_init(&arena, 4096);
    CHECK_OK(loop_create(kind, &loop));
    scene_play(loop, scene);
    fetch_thread_deinit();
    resolver_thread_deinit();
    loop_settle(loop);
    CHECK_INT(fiber_live(loop), 0);
    loop_destroy(loop);
    arena_deinit(&arena);
    for (int i = 0; i < 2000 && atomic_load(&live) > 0; i++)
        usleep(1000); /* what they have allocated is theirs to free */
    if (wrong != NULL)
        test_fail(__FILE__, wrong_line, "%s (%s)", wrong, got.why);
}

static struct slice url_of(const char *path)
{
    return arena_printf(&arena, "http://127.0.0.1:%u%s", port, path);
}

static enum err ask(const char *method, const char *path)
{
    struct fetch_request q = {.method = slice_from(method), .url = url_of(path)};
    return fetch(&q, &arena, &got);
}

static bool says(const char *part)
{
    return strstr(got.why, part) != NULL;
}

SCENE("an answer comes whole, however it is framed", frames)
{
    struct slice value;
    EXPECT(ask("GET", "/hello") == OK && got.status == 200 && slice_is(got.body, "hello"));
    EXPECT(fields_get(&got.fields, SLICE("x-a"), &value) && slice_is(value, "b"));
    EXPECT(ask("GET", "/chunks") == OK && slice_is(got.body, "abcde"));
    EXPECT(ask("GET", "/none") == OK && got.status == 404 && slice_is(got.body, "no"));
    EXPECT(ask("HEAD", "/echo") == OK && got.body.len == 0);
    EXPECT(atomic_load(&connections) == 1);
    EXPECT(ask("GET", "/to-close") == OK && slice_is(got.body, "until the end"));
    EXPECT(ask("GET", "/hello") == OK);
    EXPECT(atomic_load(&connections) == 2);
}

SCENE("what is sent is what was asked for", sent)
{
    static const struct field fields[] = {
        {SLICE("Accept"), SLICE("text/plain")}, {SLICE("user-agent"), SLICE("me")}};
    struct fetch_request q = {.method = SLICE("POST"), .body = SLICE("the body"),
                              .fields = fields, .fields_count = 2,
                              .url = arena_printf(&arena, "http://us:er@127.0.0.1:%u/echo?a=b c",
                                                  port)};
    char head[300];
    snprintf(head, sizeof head, "POST /echo?a=b%%20c HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n"
             "Authorization: Basic dXM6ZXI=\r\nAccept: text/plain\r\nuser-agent: me\r\n"
             "Content-Length: 8\r\n\r\nthe body", port);
    EXPECT(fetch(&q, &arena, &got) == OK && slice_is(got.body, head));
    EXPECT(ask("POST", "/echo") == OK);
    EXPECT(slice_find_slice(got.body, SLICE("Content-Length: 0\r\n\r\n")) != SIZE_MAX);
    EXPECT(slice_find_slice(got.body, SLICE("User-Agent: portico/")) != SIZE_MAX);
}

SCENE("an answer is no longer than it may be", limits)
{
    struct fetch_request q = {.url = url_of("/long"), .answer_max = 12};
    EXPECT(fetch(&q, &arena, &got) == ERR_LIMIT && says("longer than 12 bytes"));
    q.url = url_of("/endless");
    EXPECT(fetch(&q, &arena, &got) == ERR_LIMIT && says("longer than 12 bytes"));
}

SCENE("who wants less of a body gets less, and waits for no more", less)
{
    struct fetch_request q = {.url = url_of("/endless"), .answer_max = 12, .cut = true};
    EXPECT(fetch(&q, &arena, &got) == OK && slice_is(got.body, "hellohellohe"));
    q.answer_max = 5;
    EXPECT(fetch(&q, &arena, &got) == OK && slice_is(got.body, "hello"));
    q = (struct fetch_request){.url = url_of("/endless"), .head_only = true};
    EXPECT(fetch(&q, &arena, &got) == OK && got.status == 200 && got.body.len == 0);
    q.url = url_of("/hello");
    EXPECT(fetch(&q, &arena, &got) == OK && fetch(&q, &arena, &got) == OK);
    EXPECT(atomic_load(&connections) == 4); /* what was read whole can be kept */
}

static enum err refuse_to_open(void *arg, struct fetch_opening *o)
{
    *(bool *)arg = o->fresh;
    o->why = "no way there";
    return ERR_CLOSED;
}

SCENE("a link may be opened by somebody else", opened)
{
    bool fresh = true;
    struct fetch_request q = {.url = SLICE("http://nowhere.example/"), .open = refuse_to_open,
                              .open_arg = &fresh};
    EXPECT(fetch(&q, &arena, &got) == ERR_CLOSED && says("no way there") && !fresh);
}

SCENE("what is no answer is told in a sentence", failures)
{
    struct fetch_request q = {.url = url_of("/silent"), .timeout_ns = 500 * NS_PER_MS};
    EXPECT(fetch(&q, &arena, &got) == ERR_TIMEOUT && says("while waiting for the answer"));
    q.url = url_of("/endless");
    EXPECT(fetch(&q, &arena, &got) == ERR_TIMEOUT && says("while reading the answer"));
    EXPECT(ask("GET", "/gone") == ERR_CLOSED && says("while waiting for the answer"));
    EXPECT(ask("GET", "/cut") == ERR_CLOSED && says("while reading the answer"));
    EXPECT(ask("GET", "/nonsense") == ERR_INVALID && says("no HTTP"));
    EXPECT(ask("GET", "/101") == ERR_INVALID && says("another protocol"));
    EXPECT(ask("G T", "/hello") == ERR_INVALID && says("no method"));
    q.url = SLICE("http://127.0.0.1:1/");
    EXPECT(fetch(&q, &arena, &got) != OK && says("dial tcp 127.0.0.1:1: connect: "));
    q.url = SLICE("gopher://x");
    EXPECT(fetch(&q, &arena, &got) == ERR_INVALID && says("no URL"));
}

SCENE("a field that could split the request is refused", splitting)
{
    const struct field bad = {SLICE("X"), SLICE("a\r\nEvil: b")};
    struct fetch_request q = {.url = url_of("/hello"), .fields = &bad, .fields_count = 1};
    EXPECT(fetch(&q, &arena, &got) == ERR_INVALID && says("cannot be sent"));
}

SCENE("redirects are followed as far as asked", redirected)
{
    struct fetch_request q = {.url = url_of("/there")};
    EXPECT(fetch(&q, &arena, &got) == OK && got.status == 302);
    q.redirects = 2;
    EXPECT(fetch(&q, &arena, &got) == OK && got.status == 200 && slice_is(got.body, "hello"));
    EXPECT(slice_eq(got.url, url_of("/hello")));
    q.method = SLICE("POST");
    EXPECT(fetch(&q, &arena, &got) == OK && got.status == 302);
    q.method = SLICE("HEAD");
    EXPECT(fetch(&q, &arena, &got) == OK && got.status == 200);
    q.url = url_of("/round");
    EXPECT(fetch(&q, &arena, &got) == ERR_INVALID && says("more than 2 redirects"));
    q.url = url_of("/bad-there");
    EXPECT(fetch(&q, &arena, &got) == ERR_INVALID && says("gopher://x"));
}

SCENE("credentials do not follow to another server", secrets)
{
    static const struct field fields[] = {{SLICE("Authorization"), SLICE("secret")},
                                          {SLICE("Cookie"), SLICE("secret")},
                                          {SLICE("X-Public"), SLICE("known")}};
    struct fetch_request q = {.url = url_of("/elsewhere"), .fields = fields, .fields_count = 3,
                              .redirects = 1};
    EXPECT(fetch(&q, &arena, &got) == OK && got.status == 200);
    EXPECT(slice_find_slice(got.body, SLICE("secret")) == SIZE_MAX);
    EXPECT(slice_find_slice(got.body, SLICE("known")) != SIZE_MAX);
}

SCENE("a kept connection that turns out closed is replaced, for what may be repeated", stale)
{
    struct fetch_request q = {.method = SLICE("POST"), .url = url_of("/second-closes"),
                              .body = SLICE("x")};
    EXPECT(ask("GET", "/second-closes") == OK);
    EXPECT(ask("GET", "/second-closes") == OK);
    EXPECT(atomic_load(&connections) == 2);
    EXPECT(fetch(&q, &arena, &got) == ERR_CLOSED);
    EXPECT(fetch(&q, &arena, &got) == OK);
    q.repeatable = true;
    EXPECT(fetch(&q, &arena, &got) == OK);
    EXPECT(atomic_load(&connections) == 4);
}

SCENE("a connection starts from the address it was told", local)
{
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000002)};
    struct fetch_request q = {.url = url_of("/hello"), .local = (struct sockaddr *)&from};
    EXPECT(fetch(&q, &arena, &got) == OK);
    EXPECT(ask("GET", "/hello") == OK);
    EXPECT(atomic_load(&connections) == 2); /* they do not stand for one another */
}

/* --- over TLS --- */

static struct tls_client *trusting(void)
{
    struct tls_client *c = NULL;
    struct tls_client_options o = {.roots_pem = &root_pem, .roots_count = 1};
    char why[256];
    EXPECT(tls_client_create(&o, &c, why, sizeof why) == OK);
    return c;
}

static struct slice https(const char *host, const char *path)
{
    return arena_printf(&arena, "https://%s:%u%s", host, tls_port, path);
}

SCENE("answers come over TLS, on kept connections", over_tls)
{
    struct tls_client *c = trusting();
    struct fetch_request q = {.url = https("127.0.0.1", "/hello"), .tls = c};
    for (int i = 0; i < 3; i++)
        EXPECT(fetch(&q, &arena, &got) == OK && slice_is(got.body, "hello"));
    q.url = https("127.0.0.1", "/chunks");
    EXPECT(fetch(&q, &arena, &got) == OK && slice_is(got.body, "abcde"));
    q.url = https("127.0.0.1", "/to-close");
    EXPECT(fetch(&q, &arena, &got) == OK && slice_is(got.body, "until the end"));
    EXPECT(atomic_load(&connections) == 1);
    tls_client_unref(c);
}

SCENE("large bodies go both ways over TLS", large_tls)
{
    static char body[60000];
    struct tls_client *c = trusting();
    struct fetch_request q = {.url = https("127.0.0.1", "/echo"), .tls = c, .repeatable = true,
                              .method = SLICE("POST"), .body = slice_of(body, sizeof body)};
    memset(body, 'b', sizeof body);
    for (int i = 0; i < 3; i++) {
        EXPECT(fetch(&q, &arena, &got) == OK && got.body.len > sizeof body);
        EXPECT(slice_ends(got.body, q.body));
    }
    EXPECT(atomic_load(&connections) == 1);
    tls_client_unref(c);
}

SCENE("a server that cannot show who it is gets no request", denied_tls)
{
    struct tls_client *c = trusting();
    struct fetch_request q = {.url = https("localhost", "/hello"), .tls = c};
    EXPECT(fetch(&q, &arena, &got) == ERR_DENIED &&
           says("tls: certificate is for 127.0.0.1, nowhere.example, not localhost"));
    q = (struct fetch_request){.url = https("127.0.0.1", "/hello")};
    EXPECT(fetch(&q, &arena, &got) == ERR_DENIED &&
           says("tls: certificate signed by unknown authority \"Test Root\""));
    q.url = arena_printf(&arena, "https://127.0.0.1:%u/hello", port); /* plain */
    q.timeout_ns = 500 * NS_PER_MS;
    EXPECT(fetch(&q, &arena, &got) == ERR_TIMEOUT && says("while shaking hands"));
    tls_client_unref(c);
}

SCENE("an end that was not said is no end of an answer", cut_tls)
{
    struct tls_client *c = trusting();
    struct fetch_request q = {.url = https("127.0.0.1", "/cut-to-close"), .tls = c};
    EXPECT(fetch(&q, &arena, &got) == ERR_CLOSED && says("while reading the answer"));
    q.url = https("127.0.0.1", "/cut");
    EXPECT(fetch(&q, &arena, &got) == ERR_CLOSED && says("while reading the answer"));
    q.url = https("127.0.0.1", "/gone");
    EXPECT(fetch(&q, &arena, &got) == ERR_CLOSED);
    tls_client_unref(c);
}

SCENE("a redirect does not lead from https to http", downgraded)
{
    struct tls_client *c = trusting();
    struct fetch_request q = {.url = https("127.0.0.1", "/elsewhere"), .tls = c, .redirects = 3};
    EXPECT(fetch(&q, &arena, &got) == ERR_INVALID && says("redirected from https"));
    tls_client_unref(c);
}

static enum err ask_again(bool once, bool freely, const char *path)
{
    struct tls_client *c = NULL;
    struct tls_client_options o = {.roots_pem = &root_pem, .roots_count = 1, .max_version = 0x0303,
                                   .renegotiate_once = once, .renegotiate_freely = freely};
    char why[256];
    EXPECT(tls_client_create(&o, &c, why, sizeof why) == OK);
    struct fetch_request q = {.url = https("127.0.0.1", path), .tls = c};
    enum err e = fetch(&q, &arena, &got);
    tls_client_unref(c);
    return e;
}

SCENE("a server may shake hands again as often as the client allows", renegotiated)
{
    EXPECT(ask_again(false, false, "/again/0") == OK);
    EXPECT(ask_again(true, false, "/again/1") == OK);
    EXPECT(ask_again(false, true, "/again/3") == OK);
    EXPECT(ask_again(false, true, "/again-amid") == OK && got.body.len == 80000);
    EXPECT(fiber_stack_used(fiber_self()) < FIBER_STACK - FIBER_RESERVE);
    EXPECT(ask_again(false, false, "/again/1") != OK);
    EXPECT(ask_again(true, false, "/again/2") != OK);
}

/* --- by a proxy --- */

SCENE("a proxy of the environment is asked with the whole URL", by_proxy)
{
    struct fetch_request q = {.url = SLICE("http://nowhere.example/x?y")};
    EXPECT(fetch(&q, &arena, &got) == OK);
    EXPECT(slice_starts(got.body, SLICE("GET http://nowhere.example/x?y HTTP/1.1\r\n"
                                        "Host: nowhere.example\r\n")));
    EXPECT(slice_find_slice(got.body, SLICE("Proxy-Authorization: Basic dXM6ZXI=\r\n")) !=
           SIZE_MAX);
    EXPECT(fetch(&q, &arena, &got) == OK);
    EXPECT(atomic_load(&connections) == 1);
}

SCENE("https goes through a proxy, which sees nothing of it", through_proxy)
{
    struct tls_client *c = trusting();
    struct fetch_request q = {.url = SLICE("https://nowhere.example/x"), .tls = c};
    for (int i = 0; i < 2; i++) {
        EXPECT(fetch(&q, &arena, &got) == OK);
        EXPECT(slice_starts(got.body, SLICE("GET /x HTTP/1.1\r\nHost: nowhere.example\r\n")));
        EXPECT(slice_find_slice(got.body, SLICE("Proxy-")) == SIZE_MAX);
    }
    EXPECT(atomic_load(&connections) == 1);
    q.url = SLICE("https://other.example/x");
    EXPECT(fetch(&q, &arena, &got) == ERR_DENIED &&
           says("the proxy answers 407 Proxy Authentication Required"));
    tls_client_unref(c);
}

SCENE("who asks for no proxy, or is named in NO_PROXY, gets none", past_proxy)
{
    struct fetch_request q = {.url = SLICE("http://a.straight.example/"),
                              .timeout_ns = 2 * NS_PER_S};
    EXPECT(fetch(&q, &arena, &got) != OK);
    q = (struct fetch_request){.url = SLICE("http://nowhere.invalid/"), .no_proxy = true,
                               .timeout_ns = 2 * NS_PER_S};
    EXPECT(fetch(&q, &arena, &got) != OK);
    EXPECT(atomic_load(&connections) == 0);
}
