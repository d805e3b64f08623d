/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole connections: bytes written to a socket, bytes that come back, through the connection's
 * driver, the routes and the handlers of this room, on both back ends. Each test gives the routes
 * as JSON, runs the server's side on a thread, and reads until the server closes.
 */
#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/test.h"
#include "handlers/handlers.h"
#include "loop/fiber.h"
#include "wire/h1_conn.h"

/* Answers with the body that it read and the trailers behind it; "stream" sends it in pieces. */
struct echo {
    bool stream;
};

static enum err echo_provision(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"stream", NULL};
    TRY(provision_members(p, json, members));
    return provision_bool(p, json, "stream", false, &((struct echo *)cfg)->stream);
}

static enum err echo_serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    size_t n, len = 0;
    char *all = arena_alloc(x->arena, 65536);
    (void)next;
    do {
        TRY(exchange_read(x, all + len, 65536 - len, &n));
        if (((const struct echo *)cfg)->stream && n > 0)
            TRY(exchange_data(x, slice_of(all + len, n), LEND_BORROWED));
        len += n;
    } while (n > 0);
    const struct fields *trailers = x->carrier->trailers(x);
    for (uint32_t i = 0; trailers != NULL && i < trailers->count; i++)
        len += (size_t)snprintf(all + len, 65536 - len, "[" SLICE_FMT "=" SLICE_FMT "]",
                               SLICE_ARG(trailers->items[i].name),
                               SLICE_ARG(trailers->items[i].value));
    return ((const struct echo *)cfg)->stream ? OK : exchange_answer(x, 200, slice_of(all, len));
}

static const struct module handler_echo = {.id = "http.handlers.echo",
                                           .cfg_size = sizeof(struct echo),
                                           .provision = echo_provision,
                                           .serve = echo_serve};

static const struct module *const modules[] = {
    &handler_echo, &handler_static_response, &handler_error, &handler_subroute, &handler_vars,
    &handler_headers, &handler_invoke, &handler_request_body, NULL};

static struct http_server server;
static struct arena arena;
static struct provision provision;

static const struct http_server *current(struct h1_site *site, struct generation **g)
{
    (void)site;
    *g = NULL;
    return &server;
}

static void done(struct h1_site *site, struct generation *g)
{
    (void)site;
    (void)g;
}

static struct h1_site site = {&server, current, done};

struct side {
    enum loop_kind kind;
    int fd;
    const char *wrong; /* what was found at the end, or NULL */
    struct h1_worker worker;
    struct timer tick;
};

static void on_tick(struct timer *t)
{
    struct side *s = CONTAINER_OF(t, struct side, tick);
    if (s->worker.count == 0)
        loop_stop(s->worker.loop);
    else
        timer_start(s->worker.loop, t, loop_now_ns(s->worker.loop) + NS_PER_MS);
}

static bool no_fibers;    /* the server's budget of them is used up */

static void *run_server(void *arg)
{
    struct side *s = arg;
    struct loop *loop;
    if (loop_create(s->kind, &loop) != OK) {
        s->wrong = "no loop";
        close(s->fd);
        return NULL;
    }
    h1_worker_init(&s->worker, loop, NULL);
    if (no_fibers)
        fiber_set_max(loop, 0);
    h1_conn_open(&s->worker, &site, s->fd);
    timer_init(&s->tick, on_tick);
    timer_start(loop, &s->tick, loop_now_ns(loop) + NS_PER_MS);
    loop_run(loop);
    if (loop_armed(loop) != 0 || fiber_live(loop) != 0)
        s->wrong = "an operation or a fiber is left";
    h1_worker_deinit(&s->worker);
    loop_destroy(loop);
    return NULL;
}

static void use(const char *json)
{
    json_error_t e;
    json_t *config = json_loads(json, 0, &e);
    if (config == NULL)
        test_fail(__FILE__, __LINE__, "%s", e.text);
    arena_init(&arena, 16384);
    provision = (struct provision){.arena = &arena, .modules = modules};
    memset(&server, 0, sizeof server);
    enum err r = http_server_provision(&server, SLICE("srv0"), config, &provision);
    json_decref(config);
    if (r != OK)
        test_fail(__FILE__, __LINE__, "%s", provision.error);
}

static void unuse(void)
{
    for (struct provision_release *r = provision.releases; r != NULL; r = r->next)
        r->release(r->cfg);
    arena_deinit(&arena);
}

static char answer[65536];
static int send_buffer;   /* bytes of the server's socket; 0: the kernel's choice */
static bool leave_unread; /* the client goes without reading */

/* Reads until the end; the Date's value is blanked, so that texts can be compared. */
static struct slice read_answer(int fd)
{
    size_t n = 0;
    struct timeval limit = {5, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    while (n < sizeof answer - 1) {
        ssize_t got = read(fd, answer + n, sizeof answer - 1 - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    answer[n] = '\0';
    for (char *date = answer; (date = strstr(date, "\r\nDate: ")) != NULL; date += 8)
        memset(date + 8, 'x', HTTP_DATE_LEN);
    return slice_of(answer, n);
}

#define DATE "Date: xxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n"

/* Sends `request` in pieces of `piece` bytes and gives what came back. */
static struct slice talk(enum loop_kind kind, struct slice request, size_t piece)
{
    int fd[2];
    pthread_t thread;
    if (kind == LOOP_URING && !loop_probe_uring()) {
        send_buffer = 0; /* for the tests behind this one */
        leave_unread = false;
        test_skip("io_uring is not allowed here");
    }
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    struct side s = {.kind = kind, .fd = fd[0]};
    if (send_buffer > 0)
        setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof send_buffer);
    pthread_create(&thread, NULL, run_server, &s);
    while (request.len > 0) {
        struct slice part = slice_take(request, piece);
        ssize_t n = send(fd[1], part.ptr, part.len, MSG_NOSIGNAL);
        if (n <= 0)
            break;
        request = slice_skip(request, (size_t)n);
        if (piece < 100)
            usleep(300);
    }
    if (send_buffer > 0)
        usleep(20000); /* let it meet the full buffer */
    else
        shutdown(fd[1], SHUT_WR);
    struct slice got = leave_unread ? SLICE_NONE : read_answer(fd[1]);
    close(fd[1]);
    pthread_join(thread, NULL);
    if (s.wrong != NULL)
        test_fail(__FILE__, __LINE__, "%s", s.wrong);
    return got;
}

static void expect(const char *config, struct slice request, const char *want)
{
    static const enum loop_kind kinds[] = {LOOP_EPOLL, LOOP_URING};
    for (int k = 0; k < 2; k++) {
        use(config);
        struct slice got = talk(kinds[k], request, 1 << 20);
        unuse();
        CHECK_TEXT(got, want);
    }
}

#define HELLO "{\"routes\":[{\"handle\":[{\"handler\":\"static_response\",\"body\":\"hello\"}]}]}"
#define OK_HELLO                                                                                   \
    "HTTP/1.1 200 OK\r\nServer: portico\r\nContent-Type: text/plain; charset=utf-8\r\n" DATE       \
    "Content-Length: 5\r\n"

TEST("a request is answered and the connection kept until the client ends it")
{
    expect(HELLO, SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), OK_HELLO "\r\nhello");
}

TEST("pipelined requests are answered in order, the last one closes")
{
    expect(HELLO,
           SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\nHEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
                 "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
           OK_HELLO "\r\nhello" OK_HELLO "\r\n" OK_HELLO "Connection: close\r\n\r\nhello");
}

TEST("HTTP/1.0 closes unless it asks to be kept")
{
    expect(HELLO, SLICE("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n"),
           OK_HELLO "Connection: keep-alive\r\n\r\nhello" OK_HELLO
                    "Connection: close\r\n\r\nhello");
}

TEST("a head that comes byte by byte is the same request")
{
    use(HELLO);
    struct slice got = talk(LOOP_EPOLL, SLICE("GET /abc HTTP/1.1\r\nHost: a\r\n\r\n"), 1);
    unuse();
    CHECK_TEXT(got, OK_HELLO "\r\nhello");
}

#define REFUSED(status, text, length)                                                              \
    "HTTP/1.1 " status " " text "\r\nServer: portico\r\nContent-Type: text/plain; charset=utf-8"   \
    "\r\nConnection: close\r\nContent-Length: " length "\r\n\r\n" status " " text

TEST("a malformed request is refused with 400 and the connection closed")
{
    expect(HELLO, SLICE("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: "
                        "chunked\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
           REFUSED("400", "Bad Request", "15"));
    expect(HELLO, SLICE("GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
           REFUSED("505", "HTTP Version Not Supported", "30"));
}

TEST("a malformed request behind a good one is refused too")
{
    expect(HELLO, SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
           OK_HELLO "\r\nhello" REFUSED("400", "Bad Request", "15"));
}

TEST("a head beyond its limit is refused with 431")
{
    char text[40000];
    memset(text, 'a', sizeof text);
    memcpy(text, "GET / HTTP/1.1\r\nHost: a\r\nX: ", 28);
    use(HELLO);
    struct slice got = talk(LOOP_EPOLL, slice_of(text, sizeof text), 1 << 20);
    unuse();
    CHECK(slice_starts(got, SLICE("HTTP/1.1 431 Request Header Fields Too Large\r\n")));
}

TEST("a body that nobody reads is read away, and the next request is answered")
{
    expect(HELLO,
           SLICE("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\n"
                 "Host: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"
                 "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
           OK_HELLO "\r\nhello" OK_HELLO "\r\nhello" OK_HELLO "\r\nhello");
}

TEST("routes run in order, vars and headers are seen, errors meet their routes")
{
    expect("{\"routes\":[{\"handle\":[{\"handler\":\"vars\",\"who\":\"you\"},"
           "{\"handler\":\"headers\",\"response\":{\"set\":{\"X-Who\":[\"{http.vars.who}\"]},"
           "\"delete\":[\"Server\"]}},{\"handler\":\"error\",\"error\":\"no\","
           "\"status_code\":404}]}],\"errors\":{\"routes\":[{\"handle\":[{\"handler\":"
           "\"static_response\",\"body\":\"{http.error.status_code} {http.error.message}\"}]}]}}",
           SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
           "HTTP/1.1 404 Not Found\r\nX-Who: you\r\nContent-Type: text/plain; charset=utf-8\r\n" DATE
           "Content-Length: 6\r\n\r\n404 no");
}

TEST("a named route runs in the place of invoke, and the walk goes on behind it")
{
    expect("{\"named_routes\":{\"a\":{\"handle\":[{\"handler\":\"vars\",\"x\":\"named\"},"
           "{\"handler\":\"invoke\",\"name\":\"b\"}]},\"b\":{\"handle\":[{\"handler\":\"vars\","
           "\"y\":\"too\"}]}},\"routes\":[{\"handle\":[{\"handler\":\"invoke\",\"name\":\"a\"}]},"
           "{\"handle\":[{\"handler\":\"static_response\",\"body\":\"{http.vars.x} "
           "{http.vars.y}\"}]}]}",
           SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
           "HTTP/1.1 200 OK\r\nServer: portico\r\nContent-Type: text/plain; charset=utf-8\r\n" DATE
           "Content-Length: 9\r\n\r\nnamed too");
}

TEST("a named route that invokes itself fails instead of running out of stack")
{
    expect("{\"named_routes\":{\"a\":{\"handle\":[{\"handler\":\"invoke\",\"name\":\"a\"}]}},"
           "\"routes\":[{\"handle\":[{\"handler\":\"invoke\",\"name\":\"a\"}]}]}",
           SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
           "HTTP/1.1 500 Internal Server Error\r\nServer: portico\r\n" DATE
           "Content-Length: 0\r\n\r\n");
}

TEST("deferred header changes come last and may take the Date away")
{
    expect("{\"routes\":[{\"handle\":[{\"handler\":\"headers\",\"response\":{\"deferred\":true,"
           "\"delete\":[\"*\",\"Date\"],\"set\":{\"X\":[\"1\"]}}},{\"handler\":"
           "\"static_response\",\"body\":\"b\"}]}]}",
           SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
           "HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 1\r\n\r\nb");
}

TEST("a value from the request cannot split the response")
{
    expect("{\"routes\":[{\"handle\":[{\"handler\":\"static_response\",\"headers\":{\"Location\":"
           "[\"/{http.request.uri.query.x}\"]},\"status_code\":302}]}]}",
           SLICE("GET /?x=a%0d%0aSet-Cookie:%20b HTTP/1.1\r\nHost: a\r\n\r\n"),
           "HTTP/1.1 302 Found\r\nServer: portico\r\nLocation: /a  Set-Cookie: b\r\n" DATE
           "Content-Length: 0\r\n\r\n");
    expect("{\"routes\":[{\"handle\":[{\"handler\":\"static_response\",\"headers\":{\"X\":"
           "[\"\\n a;\\n b;\\n\"], \"Y\":[\"a\\u0001\"]}}]}]}",
           SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
           "HTTP/1.1 200 OK\r\nServer: portico\r\nX: a;  b;\r\n" DATE "Content-Length: 0\r\n\r\n");
}

/* An answer of 30,000 bytes to a socket that takes a few thousand at a time. */
static void answer_slowly(enum loop_kind kind)
{
    char json[31000], body[30001];
    memset(body, 'a', sizeof body);
    body[29999] = 'z';
    body[30000] = '\0';
    snprintf(json, sizeof json, "{\"routes\":[{\"handle\":[{\"handler\":\"static_response\","
             "\"body\":\"%s\"}]}]}", body);
    use(json);
    server.idle_timeout_ns = 100 * NS_PER_MS; /* then the connection ends, and the reading */
    send_buffer = 4096;
    struct slice got = talk(kind, SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), SIZE_MAX);
    send_buffer = 0;
    unuse();
    if (leave_unread)
        return;
    CHECK(slice_starts(got, SLICE("HTTP/1.1 200 OK\r\n")));
    CHECK(slice_ends(got, SLICE("aaaaz")));
    CHECK_INT(got.len - slice_find_slice(got, SLICE("\r\n\r\n")) - 4, 30000);
}

TEST("an answer that does not fit the socket arrives whole")
{
    answer_slowly(LOOP_EPOLL);
    answer_slowly(LOOP_URING);
}

TEST("a client that leaves without reading its answer leaves nothing behind")
{
    leave_unread = true;
    answer_slowly(LOOP_EPOLL);
    answer_slowly(LOOP_URING);
    leave_unread = false;
}

TEST("what was deferred is gone when the request fails, as in Caddy")
{
    expect("{\"routes\":[{\"handle\":[{\"handler\":\"headers\",\"response\":{\"deferred\":true,"
           "\"set\":{\"X\":[\"1\"]}}},{\"handler\":\"error\",\"status_code\":403}]}]}",
           SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
           "HTTP/1.1 403 Forbidden\r\nServer: portico\r\n" DATE "Content-Length: 0\r\n\r\n");
}

TEST("abort cuts the connection without a byte")
{
    expect("{\"routes\":[{\"handle\":[{\"handler\":\"static_response\",\"abort\":true}]}]}",
           SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "");
}

TEST("nobody's request gets an empty 200, a bad target 400")
{
    expect("{}", SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /%zz HTTP/1.1\r\nHost: a\r\n\r\n"),
           "HTTP/1.1 200 OK\r\nServer: portico\r\n" DATE "Content-Length: 0\r\n\r\n"
           "HTTP/1.1 400 Bad Request\r\nServer: portico\r\nContent-Type: text/plain; "
           "charset=utf-8\r\n" DATE "Content-Length: 15\r\nConnection: close\r\n\r\n"
           "400 Bad Request");
}

TEST("a configuration with an unknown module or member is refused with its place")
{
    json_t *bad = json_loads("{\"routes\":[{\"handle\":[{\"handler\":\"nope\"}]}]}", 0, NULL);
    arena_init(&arena, 16384);
    provision = (struct provision){.arena = &arena, .modules = modules};
    memset(&server, 0, sizeof server);
    CHECK_INT(http_server_provision(&server, SLICE("srv0"), bad, &provision), ERR_INVALID);
    CHECK_TEXT(slice_from(provision.error),
               "apps.http.servers.srv0.routes[0].handle[0]: unknown module: http.handlers.nope");
    json_decref(bad);
    bad = json_loads("{\"routes\":[{\"handle\":[{\"handler\":\"templates\"}]}]}", 0, NULL);
    CHECK_INT(http_server_provision(&server, SLICE("srv0"), bad, &provision), ERR_INVALID);
    CHECK_TEXT(slice_from(provision.error),
               "apps.http.servers.srv0.routes[0].handle[0]: unknown module: http.handlers.templates, "
               "which Caddy has, and this version of portico has not yet");
    json_decref(bad);
    bad = json_loads("{\"named_routes\":{\"a\":{\"handle\":[{\"handler\":\"invoke\",\"name\":"
                     "\"b\"}]}}}", 0, NULL);
    CHECK_INT(http_server_provision(&server, SLICE("srv0"), bad, &provision), ERR_INVALID);
    CHECK_TEXT(slice_from(provision.error), "apps.http.servers.srv0.named_routes.a.handle[0]: invoke: "
                                            "route 'b' not found");
    json_decref(bad);
    bad = json_loads("{\"rutes\":[]}", 0, NULL);
    CHECK_INT(http_server_provision(&server, SLICE("srv0"), bad, &provision), ERR_INVALID);
    CHECK_TEXT(slice_from(provision.error), "apps.http.servers.srv0: unknown member \"rutes\"");
    json_decref(bad);
    arena_deinit(&arena);
}

#define ECHO "{\"routes\":[{\"handle\":[{\"handler\":\"echo\"}]}]}"
#define STREAM "{\"routes\":[{\"handle\":[{\"handler\":\"echo\",\"stream\":true}]}]}"
#define POST "POST / HTTP/1.1\r\nHost: a\r\n"
#define ANSWER(length) "HTTP/1.1 200 OK\r\nServer: portico\r\n" DATE "Content-Length: " length "\r\n"
#define BAD_REQUEST REFUSED("400", "Bad Request", "15")

TEST("bodies with a length and in chunks are read to their end, and the next request is seen")
{
    expect(ECHO,
           SLICE(POST "Content-Length: 3\r\n\r\nabc" POST "Transfer-Encoding: chunked\r\n\r\n"
                 "1;x=y\r\nd\r\n002\r\nef\r\n0\r\n\r\n" POST "Content-Length: 0\r\n\r\n"
                 POST "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
           ANSWER("3") "\r\nabc" ANSWER("3") "\r\ndef" ANSWER("0") "\r\n" ANSWER("0") "\r\n"
           ANSWER("0") "\r\n");
}

TEST("trailers are kept, those that could pass for framing or credentials are not")
{
    expect(ECHO,
           SLICE(POST "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nHost: b\r\n"
                 "Content-Length: 9\r\nTransfer-Encoding: x\r\nauthorization: c\r\nY: 2\r\n\r\n"),
           ANSWER("15") "\r\na[X-Sum=1][Y=2]");
}

TEST("malformed chunks and trailers are told with 400, and nothing behind them is served")
{
    static const char *const rows[] = {
        "x\r\n", "1\r\nab\r\n", "1 \r\na\r\n", "-1\r\n", "1\na\n", "fffffffffffffffff\r\n",
        "1;\x01\r\na\r\n", "0\r\nX : y\r\n\r\n", "0\r\nX: y\n\r\n", "0\r\nX: a\r\n b\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[400];
        int n = snprintf(text, sizeof text, POST "Transfer-Encoding: chunked\r\n\r\n%sGET / HTTP/1.1"
                         "\r\nHost: a\r\n\r\n", rows[i]);
        expect(ECHO, slice_of(text, (size_t)n), BAD_REQUEST);
    }
}

TEST("100 Continue is not said to HTTP/1.0, nor when the body is there or not wanted")
{
    expect(ECHO, SLICE(POST "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nab"),
           ANSWER("2") "\r\nab");
    expect(HELLO, SLICE(POST "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"),
           OK_HELLO "Connection: close\r\n\r\nhello");
    expect(ECHO, SLICE("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na"),
           ANSWER("1") "Connection: close\r\n\r\na");
    expect(ECHO, SLICE(POST "Expect: something\r\nContent-Length: 2\r\n\r\nab"),
           REFUSED("417", "Expectation Failed", "22"));
}

TEST("a body that ends early, or beyond max_size, is never taken for whole")
{
    expect(ECHO, SLICE(POST "Content-Length: 5\r\n\r\nab"), "");
    expect(ECHO, SLICE(POST "Transfer-Encoding: chunked\r\n\r\n5\r\nab"), "");
    expect("{\"routes\":[{\"handle\":[{\"handler\":\"request_body\",\"max_size\":2},"
           "{\"handler\":\"echo\"}]}]}",
           SLICE(POST "Content-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
           "HTTP/1.1 413 Request Entity Too Large\r\nServer: portico\r\n" DATE
           "Content-Length: 0\r\nConnection: close\r\n\r\n");
}

TEST("a response of unknown length is chunked for HTTP/1.1 and ends with the connection before")
{
    expect(STREAM, SLICE(POST "Content-Length: 3\r\n\r\nabc"),
           "HTTP/1.1 200 OK\r\nServer: portico\r\n" DATE "Transfer-Encoding: chunked\r\n\r\n"
           "3\r\nabc\r\n0\r\n\r\n");
    expect(STREAM, SLICE("POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc"),
           "HTTP/1.1 200 OK\r\nServer: portico\r\n" DATE "Connection: close\r\n\r\nabc");
}

TEST("HEAD, 204 and 304 have no body, an interim status is not the last word")
{
#define STATUS(n)                                                                                  \
    "{\"routes\":[{\"handle\":[{\"handler\":\"static_response\",\"status_code\":" n                \
    ",\"body\":\"hello\"}]}]}"
#define TYPED(line) "HTTP/1.1 " line "\r\nServer: portico\r\nContent-Type: text/plain; charset=utf-8\r\n"
#define TWICE SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\nHEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    expect(STATUS("204"), TWICE, TYPED("204 No Content") DATE "\r\n" TYPED("204 No Content") DATE
           "\r\n");
    expect(STATUS("304"), TWICE, TYPED("304 Not Modified") DATE "\r\n" TYPED("304 Not Modified") DATE
           "\r\n");
    expect(STATUS("150"), TWICE,
           TYPED("150 ") "\r\n" TYPED("200 OK") DATE "Content-Length: 0\r\n\r\n"
           TYPED("150 ") "\r\n" TYPED("200 OK") DATE "Content-Length: 0\r\n\r\n");
}

TEST("a pipelined head meets the same limits as a first one")
{
    char text[60000];
    int n = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n"
                     "X: %016500d\r\n\r\n", 0);
    expect(HELLO, slice_of(text, (size_t)n),
           OK_HELLO "\r\nhello" REFUSED("431", "Request Header Fields Too Large", "35"));
    n = snprintf(text, sizeof text, "GET /%030000d HTTP/1.1\r\nHost: a\r\n\r\n", 0);
    expect(HELLO, slice_of(text, (size_t)n), REFUSED("414", "Request URI Too Long", "24"));
}

TEST("names with '_' or '.' are dropped unless they are expected")
{
#define SHOW "\"routes\":[{\"handle\":[{\"handler\":\"static_response\",\"body\":"                  \
             "\"{http.request.header.A_B}{http.request.header.C.D}{http.request.header.E}\"}]}]}"
    struct slice request = SLICE("GET / HTTP/1.1\r\nHost: a\r\nA_B: 1\r\nC.D: 2\r\nE: 3\r\n\r\n");
    expect("{" SHOW, request, TYPED("200 OK") DATE "Content-Length: 1\r\n\r\n3");
    expect("{\"expected_underscore_headers\":[\"a_b\"],\"expected_dot_headers\":[\"C.d\"]," SHOW,
           request, TYPED("200 OK") DATE "Content-Length: 3\r\n\r\n123");
}

/* Sends `first`, waits for the server's end, and tells what came and after how many ms. */
static struct slice outlast(const char *config, struct slice first, const char *drip, unsigned *ms)
{
    int fd[2];
    pthread_t thread;
    use(config);
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    struct side s = {.kind = LOOP_EPOLL, .fd = fd[0]};
    uint64_t start = clock_mono_ns();
    pthread_create(&thread, NULL, run_server, &s);
    CHECK_INT(send(fd[1], first.ptr, first.len, MSG_NOSIGNAL), (ssize_t)first.len);
    while (drip != NULL && clock_mono_ns() - start < 30 * NS_PER_S &&
           send(fd[1], drip, 1, MSG_NOSIGNAL) == 1) {
        char end;
        usleep(10000);
        if (recv(fd[1], &end, 1, MSG_PEEK | MSG_DONTWAIT) >= 0)
            break;
    }
    struct slice got = read_answer(fd[1]);
    *ms = (unsigned)((clock_mono_ns() - start) / NS_PER_MS);
    close(fd[1]);
    pthread_join(thread, NULL);
    unuse();
    if (s.wrong != NULL)
        test_fail(__FILE__, __LINE__, "%s", s.wrong);
    return got;
}

#define TIMED(members, handler)                                                                    \
    "{" members ",\"routes\":[{\"handle\":[{\"handler\":\"" handler "\"}]}]}"
#define FORTY "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define TIMEOUT_TOLD REFUSED("408", "Request Timeout", "19")

TEST("heads, bodies and idle connections that take too long are ended")
{
    unsigned ms;
    CHECK_TEXT(outlast(TIMED("\"read_header_timeout\":\"100ms\"", "echo"), SLICE("GET /"), "x", &ms),
               TIMEOUT_TOLD);
    CHECK(ms >= 100 && ms < 15000);
    CHECK_TEXT(outlast(TIMED("\"read_header_timeout\":\"100ms\"", "echo"), SLICE(""), NULL, &ms), "");
    CHECK(ms >= 100 && ms < 15000);
    CHECK_TEXT(outlast(TIMED("\"idle_timeout\":\"100ms\"", "echo"),
                       SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), NULL, &ms), ANSWER("0") "\r\n");
    CHECK(ms >= 100 && ms < 15000);
    CHECK_TEXT(outlast(TIMED("\"read_idle_timeout\":\"100ms\"", "echo"),
                       SLICE(POST "Content-Length: 9\r\n\r\na"), NULL, &ms), TIMEOUT_TOLD);
    CHECK(ms >= 100 && ms < 15000);
    CHECK_TEXT(outlast(TIMED("\"read_timeout\":\"150ms\"", "echo"),
                       SLICE(POST "Content-Length: 900\r\n\r\na"), "x", &ms), TIMEOUT_TOLD);
    CHECK(ms >= 150 && ms < 15000);
    CHECK_TEXT(outlast(TIMED("\"read_timeout\":\"150ms\"", "echo"), SLICE("GET /"), "x", &ms),
               TIMEOUT_TOLD);
}

TEST("a body that trickles below its minimum rate is ended, one above it is not")
{
    unsigned ms;
    CHECK_TEXT(outlast(TIMED("\"read_idle_timeout\":\"100ms\",\"read_min_rate\":1000", "echo"),
                       SLICE(POST "Content-Length: 900\r\n\r\na"), "x", &ms), TIMEOUT_TOLD);
    CHECK(ms >= 100 && ms < 15000);
    CHECK_TEXT(outlast(TIMED("\"read_idle_timeout\":\"800ms\",\"read_min_rate\":10", "echo"),
                       SLICE(POST "Connection: close\r\nContent-Length: 120\r\n\r\n"), "x", &ms),
               ANSWER("120") "Connection: close\r\n\r\n" FORTY FORTY FORTY);
}

TEST("a body that is deeply nested JSON ends no process")
{
    static char text[15000];
    int n = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: ");
    memset(text + n, '[', 12000);
    snprintf(text + n + 12000, sizeof text - (size_t)n - 12000, "\r\n\r\n");
    use("{\"routes\":[{\"handle\":[{\"handler\":\"static_response\",\"body\":"
        "\"{http.request.header.X}\"}]}]}");
    struct slice got = talk(LOOP_EPOLL, slice_from(text), 1 << 20);
    unuse();
    CHECK(slice_find_slice(got, SLICE("Content-Length: 12000\r\n")) != SIZE_MAX);
    CHECK(slice_find_slice(got, SLICE("text/plain")) != SIZE_MAX);
}

TEST("a request for which no fiber is to be had is told 503, and nothing behind it is served")
{
    no_fibers = true;
    use(HELLO);
    struct slice got = talk(LOOP_EPOLL, SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n"
                                              "Host: a\r\n\r\n"), 1 << 20);
    unuse();
    no_fibers = false;
    CHECK_TEXT(got, REFUSED("503", "Service Unavailable", "23"));
}
