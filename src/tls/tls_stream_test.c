/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two streams, a server's and a client's, in memory and over a pair of sockets.
 */
#include "tls/tls_stream.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "tls/stream.h"
#include "tls/tls_testing.h"

static SSL_CTX *server_ctx, *client_ctx;
static struct tls_stream *server, *client;

static void make_contexts(void)
{
    if (server_ctx != NULL)
        return;
    EVP_PKEY *key = testing_key();
    X509 *x = testing_certificate(key, "DNS:a.example", NULL, NULL, false, 1, 30);
    server_ctx = SSL_CTX_new(TLS_server_method());
    client_ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_use_certificate(server_ctx, x);
    SSL_CTX_use_PrivateKey(server_ctx, key);
    X509_free(x);
    EVP_PKEY_free(key);
}

static SSL *new_ssl(SSL_CTX *ctx, bool accepts, int version)
{
    SSL *s = SSL_new(ctx);
    if (accepts)
        SSL_set_accept_state(s);
    else
        SSL_set_connect_state(s);
    SSL_set_max_proto_version(s, version);
    return s;
}

static void open_pair(int version)
{
    make_contexts();
    server = tls_stream_create(new_ssl(server_ctx, true, version));
    client = tls_stream_create(new_ssl(client_ctx, false, version));
    SSL_set_tlsext_host_name(tls_stream_ssl(client), "a.example");
}

static void close_pair(void)
{
    tls_stream_free(server);
    tls_stream_free(client);
    server = client = NULL;
    stream_thread_deinit();
}

/* Carries what is to be sent over, so many bytes at a time. */
static size_t carry(struct tls_stream *from, struct tls_stream *to, size_t max)
{
    static char copy[TLS_OUT_MAX];
    struct slice out = slice_take(tls_stream_out(from), max);
    if (out.len > 0)
        memcpy(copy, out.ptr, out.len);
    tls_stream_feed(to, slice_of(copy, out.len));
    tls_stream_sent(from, out.len);
    return out.len;
}

static void shake_hands(size_t max)
{
    enum tls_step s = TLS_MORE, c = TLS_MORE;
    for (int i = 0; i < 20000 && (s != TLS_OK || c != TLS_OK); i++) {
        c = tls_stream_handshake(client);
        CHECK(c == TLS_OK || c == TLS_MORE);
        carry(client, server, max);
        s = tls_stream_handshake(server);
        tls_stream_keep(server);
        CHECK(s == TLS_OK || s == TLS_MORE);
        carry(server, client, max);
        tls_stream_keep(client);
    }
    CHECK(s == TLS_OK && c == TLS_OK);
    while (carry(server, client, SIZE_MAX) > 0) /* tickets */
        tls_stream_keep(client);
}

static void send_text(struct tls_stream *from, struct tls_stream *to, const char *text)
{
    char got[256];
    size_t n;
    struct iovec part = {(char *)(uintptr_t)text, strlen(text)};
    CHECK_INT(tls_stream_write(from, &part, 1), strlen(text));
    carry(from, to, SIZE_MAX);
    CHECK_INT(tls_stream_read(to, got, sizeof got, &n), TLS_OK);
    CHECK_TEXT(slice_of(got, n), text);
}

static void check_talk(int version, size_t max)
{
    open_pair(version);
    shake_hands(max);
    send_text(client, server, "hello");
    send_text(server, client, "and hello to you");
    CHECK(tls_stream_out(server).len == 0);
    struct tls_facts f;
    tls_stream_facts(server, &f);
    CHECK_INT(f.version, version);
    CHECK_TEXT(f.server_name, "a.example");
    CHECK(!f.resumed && !f.peer_certificate);
    tls_stream_facts(client, &f);
    CHECK(f.peer_certificate);
    close_pair();
}

TEST("two sides shake hands and talk in TLS 1.3")
{
    check_talk(TLS1_3_VERSION, SIZE_MAX);
}

TEST("and in TLS 1.2")
{
    check_talk(TLS1_2_VERSION, SIZE_MAX);
}

TEST("a handshake goes on byte by byte")
{
    check_talk(TLS1_3_VERSION, 1);
    check_talk(TLS1_2_VERSION, 1);
}

TEST("an end that is said is one, and what came before is read first")
{
    char got[64];
    size_t n;
    struct iovec part = {(char *)(uintptr_t) "last", 4};
    open_pair(TLS1_3_VERSION);
    shake_hands(SIZE_MAX);
    CHECK_INT(tls_stream_write(client, &part, 1), 4);
    tls_stream_shutdown(client);
    carry(client, server, SIZE_MAX);
    CHECK_INT(tls_stream_read(server, got, sizeof got, &n), TLS_OK);
    CHECK_INT(n, 4);
    CHECK(tls_stream_ready(server));
    CHECK_INT(tls_stream_read(server, got, sizeof got, &n), TLS_END);
    close_pair();
}

TEST("garbage fails with a sentence and an alert")
{
    char why[128];
    open_pair(TLS1_3_VERSION);
    tls_stream_feed(server, SLICE("\x16\x03\x01\x00\x05hello and more"));
    CHECK_INT(tls_stream_handshake(server), TLS_FAILED);
    CHECK(tls_stream_failed(server));
    CHECK_INT(tls_stream_out(server).len, 7); /* an alert */
    tls_stream_why(server, why, sizeof why);
    CHECK(strlen(why) > 4);
    close_pair();
}

TEST("records are small at first and large in the flow")
{
    static char bytes[TLS_OUT_MAX];
    struct iovec part = {bytes, sizeof bytes};
    size_t n, records = 0, first = 0, last = 0;
    open_pair(TLS1_3_VERSION);
    shake_hands(SIZE_MAX);
    for (size_t total = 0; total < 4 * sizeof bytes; total += n) {
        n = tls_stream_write(server, &part, 1);
        CHECK(n > 0);
        struct slice out = tls_stream_out(server);
        CHECK(out.len <= TLS_OUT_MAX - 1024);
        while (out.len > 0) {
            last = 5 + ((unsigned char)out.ptr[3] << 8 | (unsigned char)out.ptr[4]);
            first = records++ == 0 ? last : first;
            CHECK(records > 30 || last <= TLS_RECORD_SMALL + 22);
            out = slice_skip(out, last);
        }
        tls_stream_sent(server, tls_stream_out(server).len);
    }
    CHECK_INT(first, TLS_RECORD_SMALL + 22);
    CHECK(records > 40 && records < 60);
    close_pair();
}

TEST("many small parts become one record")
{
    struct iovec parts[] = {{(char *)(uintptr_t) "head", 4}, {NULL, 0},
                            {(char *)(uintptr_t) "body", 4}, {(char *)(uintptr_t) "end", 3}};
    char got[32];
    size_t n;
    open_pair(TLS1_3_VERSION);
    shake_hands(SIZE_MAX);
    CHECK_INT(tls_stream_write(server, parts, 4), 11);
    CHECK_INT(tls_stream_out(server).len, 11 + 22);
    carry(server, client, SIZE_MAX);
    CHECK_INT(tls_stream_read(client, got, sizeof got, &n), TLS_OK);
    CHECK_TEXT(slice_of(got, n), "headbodyend");
    close_pair();
}

TEST("a reader without room loses nothing")
{
    static char bytes[50000], got[50000];
    struct iovec part = {bytes, sizeof bytes};
    size_t n, total = 0;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 7);
    open_pair(TLS1_3_VERSION);
    shake_hands(SIZE_MAX);
    CHECK_INT(tls_stream_write(client, &part, 1), sizeof bytes);
    carry(client, server, SIZE_MAX);
    while (total < sizeof bytes) {
        CHECK(tls_stream_ready(server));
        CHECK_INT(tls_stream_read(server, got + total,
                                  sizeof got - total < 777 ? sizeof got - total : 777, &n), TLS_OK);
        tls_stream_keep(server);
        total += n;
    }
    CHECK(memcmp(bytes, got, sizeof got) == 0);
    CHECK_INT(tls_stream_read(server, got, 1, &n), TLS_MORE);
    CHECK(!tls_stream_ready(server));
    close_pair();
}

/* --- with waits --- */

static struct loop *loop;
static int fds[2], left;
static enum err server_result, client_result;

enum { BIG = 3 << 20 };
static char *big, *back;

static void ended(int fd)
{
    (void)fd;
    if (--left == 0)
        loop_stop(loop);
}

static enum err run_client(struct stream *s, size_t bytes)
{
    size_t total = 0, n;
    TRY(stream_handshake(s, 0));
    while (total < bytes) {
        TRY(stream_recv(s, back + total, bytes - total < 30000 ? bytes - total : 30000, 0, &n));
        if (n == 0)
            return ERR_CLOSED;
        total += n;
    }
    struct iovec part = {back, bytes};
    TRY(stream_send(s, &part, 1, 0, 0, &n));
    stream_shutdown(s);
    return stream_recv(s, back, 1, 0, &n) == OK && n == 0 ? OK : ERR_INVALID;
}

static enum err run_server(struct stream *s, size_t bytes)
{
    static char again[65536];
    size_t n, total = 0;
    TRY(stream_handshake(s, 0));
    struct iovec part = {big, bytes};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    while (m.msg_iovlen > 0) { /* with time-outs all the way */
        enum err e = stream_send_some(s, &m, 0, loop_now_ns(loop) + NS_PER_MS, &n);
        if (e != OK && e != ERR_TIMEOUT)
            return e;
        total += n;
    }
    if (total != bytes)
        return ERR_FAILED;
    for (total = 0;; total += n) {
        TRY(stream_await_readable(s, 0));
        TRY(stream_recv(s, again, sizeof again, 0, &n));
        if (n == 0)
            break;
        if (total + n > bytes || memcmp(again, big + total, n) != 0)
            return ERR_INVALID;
    }
    stream_shutdown(s);
    return total == bytes ? OK : ERR_INVALID;
}

static void client_main(void *arg)
{
    struct stream s = {fds[1], client};
    client_result = run_client(&s, BIG);
    ended(fds[1]);
}

static void server_main(void *arg)
{
    struct stream s = {fds[0], server};
    server_result = run_server(&s, BIG);
    if (getenv("TLS_STACK") != NULL)
        printf("# stack: %zu\n", fiber_stack_used(fiber_self()));
    ended(fds[0]);
}

static void on_loop(enum loop_kind kind, void (*a)(void *), void (*b)(void *))
{
    if (kind == LOOP_URING && !loop_probe_uring())
        test_skip("io_uring is not allowed here");
    big = mem_alloc(BIG);
    back = mem_alloc(BIG);
    for (size_t i = 0; i < BIG; i++)
        big[i] = (char)(i * 31 + i / 4096);
    CHECK_OK(loop_create(kind, &loop));
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    open_pair(TLS1_3_VERSION);
    left = 2;
    CHECK_OK(fiber_start(loop, a, NULL));
    CHECK_OK(fiber_start(loop, b, NULL));
    if (left > 0)
        loop_run(loop);
    loop_close(loop, fds[0]);
    loop_close(loop, fds[1]);
    loop_settle(loop);
    loop_destroy(loop);
    close_pair();
    mem_free(big);
    mem_free(back);
}

static void check_big(enum loop_kind kind)
{
    on_loop(kind, server_main, client_main);
    CHECK_OK(server_result);
    CHECK_OK(client_result);
}

TEST("megabytes go there and back, through time-outs (epoll)")
{
    check_big(LOOP_EPOLL);
}

TEST("megabytes go there and back, through time-outs (io_uring)")
{
    check_big(LOOP_URING);
}

static void file_server(void *arg)
{
    struct stream s = {fds[0], server};
    int file = memfd_create("file", MFD_CLOEXEC);
    enum { HEAD = 1000 };
    size_t at = HEAD;
    uint64_t n;
    struct slice head = slice_of(big, HEAD); /* the file's first bytes come from memory */
    server_result = write(file, big, BIG) == BIG ? stream_handshake(&s, 0) : ERR_IO;
    while (server_result == OK && at < BIG) {
        server_result = stream_sendfile_some(&s, &head, file, at, BIG - at, 0, &n);
        at += n;
    }
    if (server_result == OK && stream_sendfile_some(&s, &head, file, at, 1, 0, &n) != ERR_IO)
        server_result = ERR_FAILED; /* there is no more */
    close(file);
    shutdown(fds[0], SHUT_WR); /* and the end is not said */
    ended(fds[0]);
}

static void file_client(void *arg)
{
    struct stream s = {fds[1], client};
    size_t total = 0, n;
    enum err e = stream_handshake(&s, 0);
    while (e == OK && (e = stream_recv(&s, back + total, BIG - total + (total == BIG), 0, &n)) == OK)
        total += n;
    client_result = total == BIG && memcmp(big, back, BIG) == 0 ? e : ERR_INVALID;
    ended(fds[1]);
}

static void check_file(enum loop_kind kind)
{
    on_loop(kind, file_server, file_client);
    CHECK_OK(server_result);
    CHECK_INT(client_result, ERR_CLOSED);
}

TEST("a file is sent in pieces; an end that is not said is a cut (epoll)")
{
    check_file(LOOP_EPOLL);
}

TEST("a file is sent in pieces; an end that is not said is a cut (io_uring)")
{
    check_file(LOOP_URING);
}
