/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers as they come on a link, cut into pieces of every size, on both back ends.
 */
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/test.h"
#include "client/client_answer.h"
#include "loop/await.h"
#include "upstream/iobuf.h"

static struct {
    struct slice text; /* what the upstream sends … */
    size_t piece;      /* … in pieces of this size, and then closes, or not */
    bool stays;
    bool to_head;
    uint64_t head_max;
    int peer;
    /* what came of it */
    enum err error;
    int status, interim;
    struct buffer body;
    struct slice trailer;
    bool reusable;
    struct arena arena;
} play;

static const struct link_limits limits = {.idle_per_group = 1};

static void *send_pieces(void *unused)
{
    (void)unused;
    for (struct slice left = play.text; left.len > 0;) {
        struct slice part = slice_take(left, play.piece);
        if (send(play.peer, part.ptr, part.len, MSG_NOSIGNAL) != (ssize_t)part.len)
            break;
        left = slice_skip(left, part.len);
        if (play.piece < 100)
            usleep(50);
    }
    if (!play.stays)
        close(play.peer);
    return NULL;
}

static enum err read_body(struct client_answer *a, uint64_t deadline)
{
    while (!a->done) {
        struct slice piece;
        TRY(client_read_body(a, deadline, &piece));
        TRY(buffer_append(&play.body, piece));
    }
    if (a->trailers.count > 0)
        play.trailer = a->trailers.items[0].value;
    return OK;
}

static enum err read_answer(struct client_answer *a)
{
    uint64_t deadline = clock_mono_ns() + 60 * NS_PER_S;
    TRY(client_read_head(a, play.to_head, deadline));
    while (a->head.status < 200) {
        play.interim++;
        TRY(client_read_head(a, play.to_head, deadline));
    }
    play.status = a->head.status;
    return read_body(a, deadline);
}

static void run_fiber(void *arg)
{
    struct client_answer *a = client_answer_begin(arg, &play.arena, play.head_max);
    play.error = read_answer(a);
    play.reusable = play.error == OK && client_answer_reusable(a);
    client_answer_end(a);
    if (play.reusable)
        link_give(arg, &limits);
    else
        link_close(arg);
    loop_stop(loop_self());
}

static void read_on(enum loop_kind kind, struct slice text, size_t piece, bool stays)
{
    struct loop *loop;
    pthread_t thread;
    int fd[2];
    uint64_t head_max = play.head_max;
    bool to_head = play.to_head;
    memset(&play, 0, sizeof play);
    play.text = text;
    play.piece = piece;
    play.stays = stays;
    play.to_head = to_head;
    play.head_max = head_max > 0 ? head_max : 65536;
    arena_init(&play.arena, 4096);
    buffer_init(&play.body, 1 << 20);
    CHECK_OK(loop_create(kind, &loop));
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    play.peer = fd[1];
    struct endpoint *e = endpoint_ref(SLICE("x"));
    CHECK(link_reserve(e, &limits));
    pthread_create(&thread, NULL, send_pieces, NULL);
    CHECK_OK(fiber_start(loop, run_fiber, link_open(SLICE("x"), e, fd[0])));
    loop_run(loop);
    pthread_join(thread, NULL);
    if (stays)
        close(fd[1]);
    links_thread_deinit();
    loop_settle(loop);
    loop_destroy(loop);
    client_thread_deinit();
    iobuf_thread_deinit();
    CHECK_INT(e->refs, 1);
    endpoint_unref(e);
}

static void forget(void)
{
    buffer_deinit(&play.body);
    arena_deinit(&play.arena);
    play.head_max = 0;
    play.to_head = false;
}

#define READ(text_, piece_, stays_, ...)                                                           \
    do {                                                                                           \
        static const enum loop_kind kinds_[] = {LOOP_EPOLL, LOOP_URING};                           \
        bool to_head_ = play.to_head;                                                              \
        uint64_t head_max_ = play.head_max;                                                        \
        for (int k_ = 0; k_ < 2; k_++) {                                                           \
            if (kinds_[k_] == LOOP_URING && !loop_probe_uring())                                   \
                continue;                                                                          \
            play.to_head = to_head_;                                                               \
            play.head_max = head_max_;                                                             \
            read_on(kinds_[k_], (text_), (piece_), (stays_));                                      \
            __VA_ARGS__;                                                                           \
            forget();                                                                              \
        }                                                                                          \
    } while (0)

#define CHUNKED                                                                                    \
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"           \
    "3\r\nabc\r\n2;x\r\nde\r\n0\r\nX-T: v\r\n\r\n"

TEST("an answer is the same however it is cut")
{
    static const size_t pieces[] = {1, 2, 3, 7, 50, 1000};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        READ(SLICE(CHUNKED), pieces[i], true, CHECK_OK(play.error); CHECK_INT(play.status, 200);
             CHECK_INT(play.interim, 1); CHECK_TEXT(buffer_slice(&play.body), "abcde");
             CHECK_TEXT(play.trailer, "v"); CHECK(play.reusable));
        READ(SLICE("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), pieces[i], true,
             CHECK_OK(play.error); CHECK_TEXT(buffer_slice(&play.body), "hello");
             CHECK(play.reusable));
        READ(SLICE("HTTP/1.0 200 OK\r\n\r\nuntil the end"), pieces[i], false,
             CHECK_OK(play.error); CHECK_TEXT(buffer_slice(&play.body), "until the end");
             CHECK(!play.reusable));
    }
}

TEST("no body follows an answer to HEAD, a 204 or a 304, whatever they say")
{
    play.to_head = true;
    READ(SLICE("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), 100, true, CHECK_OK(play.error);
         CHECK_INT(play.body.len, 0); CHECK(play.reusable));
    READ(SLICE("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"), 100, true,
         CHECK_OK(play.error); CHECK_INT(play.body.len, 0); CHECK(play.reusable));
    READ(SLICE("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"), 100, true,
         CHECK_OK(play.error); CHECK(play.reusable));
}

TEST("bytes behind an answer, or Connection: close, end the link's use")
{
    READ(SLICE("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab"), 100, true, CHECK_OK(play.error);
         CHECK_TEXT(buffer_slice(&play.body), "a"); CHECK(!play.reusable));
    READ(SLICE("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na"), 100, true,
         CHECK_OK(play.error); CHECK(!play.reusable));
    READ(SLICE("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na"), 100, true, CHECK_OK(play.error);
         CHECK(!play.reusable));
}

TEST("what ends too early is ERR_CLOSED, what is malformed ERR_INVALID, what is too long ERR_LIMIT")
{
    static const char *const early[] = {
        "", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n"};
    static const char *const bad[] = {
        "nonsense\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nbad\r\n\r\n"};
    for (size_t i = 0; i < sizeof early / sizeof early[0]; i++)
        READ(slice_from(early[i]), 5, false, CHECK_INT(play.error, ERR_CLOSED));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        READ(slice_from(bad[i]), 1000, true, CHECK_INT(play.error, ERR_INVALID));
    static char large[40000];
    memset(large, 'a', sizeof large);
    memcpy(large, "HTTP/1.1 200 OK\r\nX: ", 20);
    play.head_max = 8192;
    READ(slice_of(large, sizeof large), 3000, true, CHECK_INT(play.error, ERR_LIMIT));
}

TEST("a large head and a large body go through the gathering buffer")
{
    static char text[200000];
    size_t head = (size_t)snprintf(text, 20001, "HTTP/1.1 200 OK\r\nX: %0*d\r\nContent-Length: "
                                   "180000\r\n\r\n", 19950, 7);
    memset(text + head, 'b', 180000);
    READ(slice_of(text, head + 180000), 5000, true, CHECK_OK(play.error);
         CHECK_INT(play.body.len, 180000); CHECK(play.reusable));
}
