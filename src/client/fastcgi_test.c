/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FastCGI: what is sent, byte by byte; answers cut into pieces of every size and into records of
 * every size, on both back ends; and what a server may not send.
 */
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/test.h"
#include "client/fastcgi_answer.h"
#include "loop/await.h"
#include "upstream/iobuf.h"

static struct {
    struct buffer wire; /* what the server sends … */
    size_t piece;       /* … in pieces of this size, and then closes */
    bool to_head;
    int peer;
    /* what came of it */
    enum err error;
    const char *why;
    int status;
    bool stable;
    struct buffer body, errors;
    struct slice kind;
    struct arena arena;
} play;

static const struct link_limits limits;

static void *send_pieces(void *unused)
{
    (void)unused;
    for (struct slice left = buffer_slice(&play.wire); left.len > 0;) {
        struct slice part = slice_take(left, play.piece);
        if (send(play.peer, part.ptr, part.len, MSG_NOSIGNAL) != (ssize_t)part.len)
            break;
        left = slice_skip(left, part.len);
        if (play.piece < 100)
            usleep(20);
    }
    close(play.peer);
    return NULL;
}

static enum err read_answer(struct client_answer *a)
{
    uint64_t deadline = clock_mono_ns() + 20 * NS_PER_S;
    struct slice piece;
    TRY(fastcgi_read_head(a, play.to_head, deadline));
    play.status = a->head.status;
    play.stable = a->stable;
    for (unsigned i = 0; i < a->head.count; i++)
        if (slice_eq_nocase(a->head.fields[i].name, SLICE("Content-Type")))
            play.kind = a->head.fields[i].value;
    while (!a->done) {
        TRY(fastcgi_read_body(a, deadline, &piece));
        TRY(buffer_append(&play.body, piece));
    }
    return OK;
}

static void run_fiber(void *link)
{
    (void)!await_yield(); /* the loop shall run when it is stopped */
    struct client_answer *a = fastcgi_answer_begin(link, &play.arena, 65536, true);
    play.error = read_answer(a);
    play.why = a->why;
    CHECK_OK(buffer_append(&play.errors, buffer_slice(&a->fastcgi->errors)));
    fastcgi_answer_end(a);
    link_close(link);
    loop_stop(loop_self());
}

static void read_on(enum loop_kind kind)
{
    struct loop *loop;
    pthread_t thread;
    int fd[2];
    play.error = OK;
    play.why = NULL;
    play.kind = SLICE_NONE;
    play.status = 0;
    arena_init(&play.arena, 4096);
    buffer_init(&play.body, 1 << 20);
    buffer_init(&play.errors, 1 << 20);
    CHECK_OK(loop_create(kind, &loop));
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    play.peer = fd[1];
    struct endpoint *e = endpoint_ref(SLICE("x"));
    CHECK(link_reserve(e, &limits));
    pthread_create(&thread, NULL, send_pieces, NULL);
    CHECK_OK(fiber_start(loop, run_fiber, link_open(SLICE("x"), e, fd[0])));
    loop_run(loop);
    pthread_join(thread, NULL);
    links_thread_deinit();
    loop_settle(loop);
    loop_destroy(loop);
    client_thread_deinit();
    iobuf_thread_deinit();
    endpoint_unref(e);
}

static void forget(void)
{
    buffer_deinit(&play.body);
    buffer_deinit(&play.errors);
    arena_deinit(&play.arena);
}

#define READ(piece_, ...)                                                                          \
    do {                                                                                           \
        static const enum loop_kind kinds_[] = {LOOP_EPOLL, LOOP_URING};                           \
        for (int k_ = 0; k_ < 2; k_++) {                                                           \
            if (kinds_[k_] == LOOP_URING && !loop_probe_uring())                                   \
                continue;                                                                          \
            play.piece = (piece_);                                                                 \
            read_on(kinds_[k_]);                                                                   \
            __VA_ARGS__;                                                                           \
            forget();                                                                              \
        }                                                                                          \
        buffer_deinit(&play.wire);                                                                 \
    } while (0)

/* --- what the server says --- */

static void begin(void)
{
    buffer_init(&play.wire, 1 << 20);
    play.to_head = false;
}

static void record(unsigned type, unsigned id, struct slice content, unsigned padding)
{
    const char head[8] = {1, (char)type, (char)(id >> 8), (char)id, (char)(content.len >> 8),
                          (char)content.len, (char)padding, 0};
    static const char zeros[256];
    CHECK_OK(buffer_append(&play.wire, slice_of(head, 8)));
    CHECK_OK(buffer_append(&play.wire, content));
    CHECK_OK(buffer_append(&play.wire, slice_of(zeros, padding)));
}

/* In records of so many bytes, with paddings of every length. */
static void say(struct slice text, size_t each)
{
    for (unsigned n = 0; text.len > 0; n++) {
        struct slice part = slice_take(text, each);
        record(FASTCGI_STDOUT, 1, part, n * 37 % 256);
        text = slice_skip(text, part.len);
    }
}

static void end(unsigned status)
{
    const char body[8] = {0, 0, 0, 0, (char)status};
    record(FASTCGI_END_REQUEST, 1, slice_of(body, 8), 0);
}

static void play_text(const char *text)
{
    begin();
    say(slice_from(text), 1000);
    end(0);
}

/* --- the other direction --- */

TEST("a request is begun by the bytes of the specification")
{
    char out[64];
    CHECK_INT(fastcgi_begin(out, true) - out, FASTCGI_BEGIN_SIZE);
    CHECK_INT(out[FASTCGI_HEAD + 2], 1);
    CHECK_INT(fastcgi_begin(out, false) - out, FASTCGI_BEGIN_SIZE);
    CHECK_SLICE(slice_of(out, 16), slice_of("\1\1\0\1\0\10\0\0\0\1\0\0\0\0\0\0", 16));
    CHECK_INT(fastcgi_record(out, FASTCGI_STDIN, 0x1234) - out, FASTCGI_HEAD);
    CHECK_SLICE(slice_of(out, 8), slice_of("\1\5\0\1\x12\x34\0\0", 8));
}

TEST("pairs have short and long lengths, and end with an empty record")
{
    static char value[200], out[1024];
    size_t size;
    memset(value, 'v', sizeof value);
    struct field pairs[] = {{SLICE("A"), SLICE("bc")}, {SLICE("LONG"), slice_of(value, 200)},
                            {SLICE("N"), SLICE_NONE}};
    CHECK_OK(fastcgi_params_size(pairs, 3, &size));
    size_t len = (size_t)(fastcgi_params(out, pairs, 3) - out);
    CHECK(len <= size);
    CHECK_INT(len, 8 + 5 + (1 + 4 + 4 + 200) + 3 + 8);
    CHECK_SLICE(slice_of(out, 14), slice_of("\1\4\0\1\0\xd9\0\0\1\2Abc\4", 14));
    CHECK_SLICE(slice_of(out + 14, 8), slice_of("\x80\0\0\xc8LONG", 8));
    CHECK_SLICE(slice_of(out + len - 11, 11), slice_of("\1\0N\1\4\0\1\0\0\0\0", 11));
}

TEST("pairs never cross a record, and one that is larger than a record is refused")
{
    enum { EACH = 30000 };
    static char value[70000];
    struct field pairs[9];
    size_t size, records = 0;
    memset(value, 'v', sizeof value);
    for (int i = 0; i < 9; i++)
        pairs[i] = (struct field){SLICE("N"), slice_of(value, EACH)};
    CHECK_OK(fastcgi_params_size(pairs, 9, &size));
    char *out = malloc(size), *at = out;
    size_t len = (size_t)(fastcgi_params(out, pairs, 9) - out);
    CHECK(len <= size);
    for (; at < out + len; records++) {
        size_t content = (size_t)(unsigned char)at[4] << 8 | (unsigned char)at[5];
        CHECK_INT(content % (EACH + 6), 0);
        at += 8 + content;
    }
    CHECK_INT(records, 6);
    free(out);
    pairs[4].value.len = FASTCGI_CONTENT_MAX - 9;
    CHECK_OK(fastcgi_params_size(pairs, 9, &size));
    pairs[4].value.len++;
    CHECK_INT(fastcgi_params_size(pairs, 9, &size), ERR_LIMIT);
}

/* --- answers --- */

#define HELLO "Status: 404 Not Found\r\nContent-Type: text/plain\r\n\r\nhello, records"

TEST("an answer is the same however it is cut")
{
    static const size_t pieces[] = {1, 3, 8, 50, 100000}, records[] = {1, 7, 1000};
    for (size_t i = 0; i < 5; i++) {
        for (size_t k = 0; k < 3; k++) {
            begin();
            record(FASTCGI_STDERR, 1, SLICE("oh "), 5);
            say(SLICE(HELLO), records[k]);
            record(FASTCGI_STDERR, 1, SLICE("dear"), 0);
            record(10, 0, SLICE("a record of the connection"), 6);
            record(FASTCGI_STDOUT, 1, SLICE_NONE, 0);
            end(0);
            READ(pieces[i], CHECK_OK(play.error); CHECK_INT(play.status, 404);
                 CHECK_TEXT(play.kind, "text/plain"); CHECK_TEXT(buffer_slice(&play.errors), "oh dear");
                 CHECK_TEXT(buffer_slice(&play.body), "hello, records"));
        }
    }
}

TEST("a small answer that came whole lies in the arena")
{
    play_text(HELLO);
    READ(100000, CHECK_OK(play.error); CHECK(play.stable));
}

TEST("lines may end in LF alone, and 200 is what goes without saying")
{
    play_text("Content-Type: a/b\nX-Y: z\n\nbody\n\n");
    READ(100000, CHECK_OK(play.error); CHECK_INT(play.status, 200); CHECK_TEXT(play.kind, "a/b");
         CHECK_TEXT(buffer_slice(&play.body), "body\n\n"));
    play_text("Status: 404 Not There\r\nStatus: 200 OK\r\nContent-Type: a/b\r\n\r\n");
    READ(100000, CHECK_OK(play.error); CHECK_INT(play.status, 404); CHECK_TEXT(play.kind, "a/b"));
    play_text("Status: 404\r\nstatus: what\r\nContent-Type: a/b\r\n\r\n");
    READ(100000, CHECK_OK(play.error); CHECK_INT(play.status, 404));
    play_text("Status:\nContent-Type: a/b");
    READ(100000, CHECK_OK(play.error); CHECK_INT(play.status, 200); CHECK_TEXT(play.kind, "a/b");
         CHECK_INT(play.body.len, 0));
}

TEST("a length is a length: more is dropped, less is an error")
{
    play_text("Content-Length: 5\r\n\r\nhello and more");
    READ(7, CHECK_OK(play.error); CHECK_TEXT(buffer_slice(&play.body), "hello"));
    play_text("Content-Length: 5\r\n\r\nhell");
    READ(100000, CHECK_INT(play.error, ERR_CLOSED); CHECK(play.why != NULL));
    play_text("Content-Length: 5\r\n\r\n");
    READ(100000, CHECK_INT(play.error, ERR_CLOSED));
    play_text("Content-Length: 0\r\n\r\n");
    READ(100000, CHECK_OK(play.error));
}

TEST("an application may send chunks")
{
    play_text("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nmore");
    READ(100000, CHECK_OK(play.error); CHECK_TEXT(buffer_slice(&play.body), "abcde"));
    play_text("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    READ(3, CHECK_OK(play.error); CHECK_TEXT(buffer_slice(&play.body), "abcde"));
    play_text("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    READ(100000, CHECK_INT(play.error, ERR_CLOSED));
    play_text("Transfer-Encoding: chunked\r\n\r\nxyz\r\n");
    READ(100000, CHECK_INT(play.error, ERR_INVALID));
}

TEST("what follows the head of an answer to HEAD, of a 204 or a 304 is no body")
{
    play_text("Content-Length: 5\r\n\r\nhello");
    play.to_head = true;
    READ(9, CHECK_OK(play.error); CHECK_INT(play.body.len, 0));
    play_text("Status: 204\r\n\r\nhello");
    READ(9, CHECK_OK(play.error); CHECK_INT(play.body.len, 0));
    play_text("Status: 304 Not Modified\r\nContent-Length: 70\r\n\r\n");
    READ(9, CHECK_OK(play.error); CHECK_INT(play.body.len, 0));
}

TEST("an answer that is cut off anywhere is an error")
{
    begin();
    say(SLICE("Status: 200 OK\r\nA: b\r\n\r\nhello"), 9);
    end(0);
    size_t all = play.wire.len;
    char *copy = malloc(all);
    memcpy(copy, play.wire.ptr, all);
    struct slice whole = slice_of(copy, all);
    buffer_deinit(&play.wire);
    for (size_t len = 0; len < all; len += len > all - 20 ? 1 : 7) {
        begin();
        CHECK_OK(buffer_append(&play.wire, slice_take(whole, len)));
        READ(100000, CHECK_INT(play.error, ERR_CLOSED));
    }
    free(copy);
}

static void play_record(unsigned type, unsigned id, struct slice content)
{
    begin();
    say(SLICE("A: b\r\n\r\nhello"), 100);
    record(type, id, content, 0);
    end(0);
}

TEST("records that this request cannot have are refused")
{
    static const unsigned types[] = {0, 1, 2, 4, 5, 8, 9, 11, 255};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        play_record(types[i], 1, SLICE("12345678"));
        READ(100000, CHECK_INT(play.error, ERR_INVALID); CHECK(play.why != NULL));
    }
    play_record(FASTCGI_STDOUT, 2, SLICE("x"));
    READ(100000, CHECK_INT(play.error, ERR_INVALID));
    play_record(FASTCGI_STDOUT, 257, SLICE("x"));
    READ(100000, CHECK_INT(play.error, ERR_INVALID));
    play_record(FASTCGI_STDOUT, 0, SLICE("x"));
    READ(100000, CHECK_INT(play.error, ERR_INVALID));
    play_record(FASTCGI_END_REQUEST, 1, SLICE("1234567"));
    READ(100000, CHECK_INT(play.error, ERR_INVALID));
    play_record(FASTCGI_END_REQUEST, 1, SLICE("123456789"));
    READ(100000, CHECK_INT(play.error, ERR_INVALID));
    play_record(FASTCGI_END_REQUEST, 1, SLICE_NONE);
    READ(100000, CHECK_INT(play.error, ERR_INVALID));
    begin();
    CHECK_OK(buffer_append(&play.wire, SLICE("HTTP/1.1 200 OK\r\n\r\n")));
    READ(100000, CHECK_INT(play.error, ERR_INVALID));
}

TEST("heads that are none are refused")
{
    static const char *const bad[] = {
        "no field\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "Status: 20\r\n\r\n", "Status: 100\r\n\r\n",
        "Status: 1000\r\n\r\n", "Status: 2x0\r\n\r\n", "Status: -200\r\n\r\n", "A b: c\r\n\r\n",
        "A: b\rc\r\n\r\n", "A: b\x01\r\n\r\n", " A: b\r\n\r\n", "A : b\r\n\r\n", ": b\r\n\r\n",
        "Content-Length: x\r\n\r\n", "Content-Length: -1\r\n\r\n", "Content-Length: \r\n\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", "Content-Length: 99999999999999999999\r\n\r\n",
        "Transfer-Encoding: gzip\r\n\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        play_text(bad[i]);
        READ(100000, CHECK_INT(play.error, ERR_INVALID); CHECK(play.why != NULL));
    }
}

TEST("a request that ends without a head is an error that says why")
{
    static const char *const whys[] = {"without a response", "one request at a time",
                                       "overloaded", "role", "refused"};
    for (unsigned i = 0; i < 5; i++) {
        begin();
        end(i);
        READ(100000, CHECK_INT(play.error, ERR_INVALID); CHECK(strstr(play.why, whys[i]) != NULL));
    }
}

TEST("heads have a limit, in bytes and in fields")
{
    begin();
    for (int i = 0; i < 70; i++)
        say(SLICE("X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"
                  "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"),
            1000);
    for (int i = 0; i < 1000; i++)
        say(SLICE("yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"),
            1000);
    READ(100000, CHECK_INT(play.error, ERR_LIMIT));
    begin();
    for (int i = 0; i < 129; i++)
        say(SLICE("X: y\n"), 1000);
    say(SLICE("\n"), 1);
    end(0);
    READ(100000, CHECK_INT(play.error, ERR_LIMIT));
}

TEST("what is written for the log has a limit and does not stand in the way")
{
    static char text[60000];
    begin();
    memset(text, 'e', sizeof text);
    for (int i = 0; i < 3; i++)
        record(FASTCGI_STDERR, 1, slice_of(text, sizeof text), 255);
    say(SLICE("A: b\n\nhello"), 1000);
    end(0);
    READ(3000, CHECK_OK(play.error); CHECK_INT(play.errors.len, FASTCGI_STDERR_MAX);
         CHECK_TEXT(buffer_slice(&play.body), "hello"));
}
