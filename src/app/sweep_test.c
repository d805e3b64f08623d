/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The failure sweep. One scenario (accept, request with a body, pipelined requests, a file, a large
 * answer, a half head, an idle connection, one of HTTP/2 with several streams, upstreams with TLS and
 * without, drain) runs again and
 * again on a real worker, and each time another call of the worker's thread fails: the n-th recv,
 * send, accept, open, mmap … with each error that it may give, shortened, or interrupted; and the
 * n-th completion of an operation. Whatever failed, at the end no operation, fiber, connection or
 * descriptor may be left.
 *
 * The calls are replaced by this program's own functions of the same names, which come before the C
 * library's. Only calls of the worker's thread are counted.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "app/worker.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/test.h"
#include "loop/fault.h"
#include "tls/tls_testing.h"

enum call { RECV, SEND, SENDFILE, ACCEPT, EPOLL_CTL, EPOLL_WAIT, MMAP, MADVISE, OPEN, FSTAT,
            SHUTDOWN, GETPEER, SOCKET, COMPLETION, CALLS };

/* An error's number; SHORT: one byte only. */
enum { SHORT = -1 };

static struct {
    enum call call;
    int error;
    atomic_int left; /* calls until the one that fails; below 0: it has */
    _Atomic pthread_t worker;
    atomic_bool on;
} sweep;

static bool fails(enum call call)
{
    return atomic_load(&sweep.on) && sweep.call == call &&
           pthread_equal(pthread_self(), atomic_load(&sweep.worker)) &&
           atomic_fetch_sub(&sweep.left, 1) == 1;
}

/* --- calls --- */

static long raw(long n, long a, long b, long c, long d, long e, long f)
{
#ifdef __x86_64__
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(result)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
#else
    register long x8 __asm__("x8") = n;
    register long result __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(result)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
#endif
    if (result < 0 && result > -4096) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

#define P(pointer) ((long)(uintptr_t)(pointer))

static long failed(void)
{
    errno = sweep.error;
    return -1;
}

/* A peer that has gone has gone for every later call, too. */
static long failed_at(int fd)
{
    if (sweep.error == EPIPE || sweep.error == ECONNRESET)
        raw(SYS_shutdown, fd, SHUT_RDWR, 0, 0, 0, 0);
    return failed();
}

/* Never short while more is there: a socket does not do that, and the edges of epoll rely on it. */
ssize_t recv(int fd, void *buf, size_t len, int flags)
{
    if (fails(RECV))
        return failed_at(fd);
    return raw(SYS_recvfrom, fd, P(buf), (long)len, flags, 0, 0);
}

static long do_sendmsg(int fd, const struct msghdr *m, int flags)
{
    if (!fails(SEND))
        return raw(SYS_sendmsg, fd, P(m), flags, 0, 0, 0);
    if (sweep.error != SHORT)
        return failed_at(fd);
    for (size_t i = 0; i < (size_t)m->msg_iovlen; i++) {
        if (m->msg_iov[i].iov_len > 0)
            return raw(SYS_sendto, fd, P(m->msg_iov[i].iov_base), 1, flags, 0, 0);
    }
    return 0;
}

static long do_send(int fd, const void *buf, size_t len, int flags)
{
    if (fails(SEND)) {
        if (sweep.error != SHORT)
            return failed_at(fd);
        len = len > 0 ? 1 : 0;
    }
    return raw(SYS_sendto, fd, P(buf), (long)len, flags, 0, 0);
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
    return do_sendmsg(fd, m, flags);
}

ssize_t send(int fd, const void *buf, size_t len, int flags)
{
    return do_send(fd, buf, len, flags);
}

long syscall(long n, ...)
{
    long a[6];
    va_list args;
    va_start(args, n);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(args, long);
    va_end(args);
    if (n == SYS_sendmsg)
        return do_sendmsg((int)a[0], (const struct msghdr *)(uintptr_t)a[1], (int)a[2]);
    if (n == SYS_sendto && a[4] == 0)
        return do_send((int)a[0], (const void *)(uintptr_t)a[1], (size_t)a[2], (int)a[3]);
    return raw(n, a[0], a[1], a[2], a[3], a[4], a[5]);
}

ssize_t sendfile(int out, int in, off_t *offset, size_t count)
{
    if (fails(SENDFILE)) {
        if (sweep.error != SHORT)
            return failed_at(out);
        count = 1;
    }
    return raw(SYS_sendfile, out, in, P(offset), (long)count, 0, 0);
}

int accept4(int fd, struct sockaddr *address, socklen_t *len, int flags)
{
    return (int)(fails(ACCEPT) ? failed()
                               : raw(SYS_accept4, fd, P(address), P(len), flags, 0, 0));
}

int epoll_ctl(int set, int how, int fd, struct epoll_event *event)
{
    return (int)(fails(EPOLL_CTL) ? failed() : raw(SYS_epoll_ctl, set, how, fd, P(event), 0, 0));
}

int epoll_wait(int set, struct epoll_event *events, int max, int timeout_ms)
{
    return (int)(fails(EPOLL_WAIT) ? failed() : raw(SYS_epoll_pwait, set, P(events), max,
                                                    timeout_ms, 0, 8));
}

void *mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset)
{
    return (void *)(fails(MMAP) ? failed()
                                : raw(SYS_mmap, P(at), (long)len, protection, flags, fd, offset));
}

int madvise(void *at, size_t len, int advice)
{
    return (int)(fails(MADVISE) ? failed() : raw(SYS_madvise, P(at), (long)len, advice, 0, 0, 0));
}

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    int mode = (flags & O_CREAT) != 0 ? va_arg(args, int) : 0;
    va_end(args);
    return (int)(fails(OPEN) ? failed() : raw(SYS_openat, AT_FDCWD, P(path), flags, mode, 0, 0));
}

int fstat(int fd, struct stat *st)
{
    return (int)(fails(FSTAT) ? failed() : raw(SYS_fstat, fd, P(st), 0, 0, 0, 0));
}

int shutdown(int fd, int how)
{
    return (int)(fails(SHUTDOWN) ? failed() : raw(SYS_shutdown, fd, how, 0, 0, 0, 0));
}

int getpeername(int fd, struct sockaddr *address, socklen_t *len)
{
    return (int)(fails(GETPEER) ? failed() : raw(SYS_getpeername, fd, P(address), P(len), 0, 0, 0));
}

int socket(int family, int type, int protocol)
{
    return (int)(fails(SOCKET) ? failed() : raw(SYS_socket, family, type, protocol, 0, 0, 0));
}

/* What had succeeded is undone as far as it can be. */
static int on_completion(const struct op *op, int result)
{
    if (!fails(COMPLETION) || result == -ECANCELED)
        return result;
    if (op->kind == OP_ACCEPT && result >= 0)
        close(result);
    return -sweep.error;
}

/* --- the scenario --- */

static uint16_t port, upstream_port, tls_port;
static SSL_CTX *tls_context;
static char folder[] = "/tmp/portico-sweep-XXXXXX";

static void hurry(int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static int listening(uint16_t *where)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 64) == 0);
    CHECK_INT(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    *where = ntohs(a.sin_port);
    hurry(fd); /* what it accepts inherits that, as from portico's own listeners */
    return fd;
}

static int dial(void)
{
    /* Where nothing fails, every answer must come, on however slow a machine. */
    struct timeval limit = sweep.call == CALLS ? (struct timeval){.tv_sec = 30}
                                               : (struct timeval){.tv_usec = 150000};
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    hurry(fd);
    (void)!connect(fd, (struct sockaddr *)&a, sizeof a);
    return fd;
}

static void say(int fd, const char *text)
{
    (void)!send(fd, text, strlen(text), MSG_NOSIGNAL);
}

/* Until `count` bytes have come, the end, or the time limit; true in the first case. */
static bool hear(int fd, size_t count)
{
    char buf[65536];
    for (ssize_t n; count > 0; count -= (size_t)n) {
        n = recv(fd, buf, count < sizeof buf ? count : sizeof buf, 0);
        if (n < 0 && errno == EINTR)
            n = 0;
        else if (n <= 0)
            return false;
    }
    return true;
}

/* Requests of HTTP/2: a word, a file, a body, the gateway; their answers come in any order. */
static void say_h2(int fd)
{
#define H2_GET "\x82\x86\x41\x01""a"
#define H2_POST "\x83\x86\x41\x01""a"
    static const char text[] =
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        "\0\0\6\4\0\0\0\0\0" "\0\4\0\x10\0\0"           /* SETTINGS: windows of 1 MiB */
        "\0\0\4\x8\0\0\0\0\0" "\0\x10\0\0"             /* … and the connection's */
        "\0\0\6\1\5\0\0\0\1" H2_GET "\x84"                /* / */
        "\0\0\xc\1\5\0\0\0\3" H2_GET "\x44\5/file"
        "\0\0\6\1\4\0\0\0\5" H2_POST "\x84" "\0\0\3\0\1\0\0\0\5" "abc"
        "\0\0\xa\1\5\0\0\0\7" H2_GET "\x44\3/up"
        "\0\0\xa\1\4\0\0\0\x9" H2_POST "\x44\3/up"          /* reset in the middle */
        "\0\0\4\3\0\0\0\0\x9" "\0\0\0\x8";
    (void)!send(fd, text, sizeof text - 1, MSG_NOSIGNAL);
}

#define TO_A " HTTP/1.1\r\nHost: a\r\n"

enum { CLIENTS = 5 };

static void clients(int fd[CLIENTS])
{
    for (int i = 0; i < CLIENTS; i++)
        fd[i] = dial();
    say_h2(fd[4]);
    say(fd[0], "POST /" TO_A "Content-Length: 5\r\n\r\nab");
    say(fd[1], "GET /" TO_A "\r\nGET /" TO_A "\r\nGET /none" TO_A "\r\n");
    say(fd[2], "GET /fi");
    say(fd[3], "GET /" TO_A "\r\n"); /* idle then */
    hear(fd[0], 100);
    say(fd[0], "cde");
    hear(fd[1], 300);
    hear(fd[3], 130);
    say(fd[2], "le" TO_A "Connection: close\r\n\r\n");
    hear(fd[2], 600000);
    say(fd[1], "POST /" TO_A "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    hear(fd[1], 100);
    say(fd[0], "GET /up" TO_A "\r\nPOST /up" TO_A "Content-Length: 3\r\n\r\nabc");
    hear(fd[0], 200);
    say(fd[0], "GET /tls" TO_A "\r\nPOST /tls" TO_A "Content-Length: 3\r\n\r\nabc"
               "GET /tls" TO_A "\r\n");
    bool secure = hear(fd[0], 300);
    CHECK(secure || sweep.call != CALLS);
    say(fd[0], "bad\r\n\r\n");
    hear(fd[0], 100);
    bool all = hear(fd[4], 500400);
    CHECK(all || sweep.call != CALLS);
}

/* Answers what comes, a request at a time, until the peer leaves; every second one closes. */
static void *run_upstream(void *arg)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    int listener = *(int *)arg, poll_ms = -1;
    struct pollfd p[65] = {{listener, POLLIN, 0}};
    nfds_t n = 1;
    char buf[4096];
    while (poll(p, n, poll_ms) >= 0 || errno == EINTR) {
        if ((p[0].revents & POLLIN) != 0 && n < 65) {
            int fd = (int)raw(SYS_accept4, listener, 0, 0, SOCK_CLOEXEC, 0, 0);
            if (fd >= 0)
                p[n++] = (struct pollfd){fd, POLLIN, 0};
        }
        for (nfds_t i = n; --i >= 1;) {
            if (p[i].revents == 0)
                continue;
            ssize_t got = raw(SYS_recvfrom, p[i].fd, P(buf), sizeof buf, MSG_DONTWAIT, 0, 0);
            if (got > 0 && raw(SYS_sendto, p[i].fd, P(answer), sizeof answer - 1, MSG_NOSIGNAL, 0,
                               0) > 0)
                continue;
            if (got < 0 && errno == EAGAIN)
                continue;
            close(p[i].fd);
            p[i] = p[--n];
        }
    }
    return NULL;
}

/* One connection with TLS: two answers, and the end. */
static void *run_secure(void *arg)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    SSL *ssl = arg;
    char buf[4096];
    if (SSL_accept(ssl) == 1) {
        for (int i = 0; i < 2 && SSL_read(ssl, buf, sizeof buf) > 0; i++)
            (void)SSL_write(ssl, answer, sizeof answer - 1);
        SSL_shutdown(ssl);
    }
    close(SSL_get_fd(ssl));
    SSL_free(ssl);
    OPENSSL_thread_stop();
    return NULL;
}

static void *run_tls_upstream(void *arg)
{
    int listener = *(int *)arg;
    struct pollfd p = {listener, POLLIN, 0};
    while (poll(&p, 1, -1) >= 0 || errno == EINTR) {
        pthread_t thread;
        int fd = (int)raw(SYS_accept4, listener, 0, 0, SOCK_CLOEXEC, 0, 0);
        if (fd < 0)
            continue;
        SSL *ssl = SSL_new(tls_context);
        SSL_set_fd(ssl, fd);
        if (pthread_create(&thread, NULL, run_secure, ssl) == 0)
            pthread_detach(thread);
    }
    return NULL;
}

static unsigned open_descriptors(void)
{
    unsigned count = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d) != NULL)
        count++;
    closedir(d);
    return count;
}

static void on_drained(struct mail *m)
{
    (void)m;
    loop_stop(loop_self());
}

static void on_limit(struct timer *t)
{
    (void)t;
    test_fail(__FILE__, __LINE__, "call %d, error %d, left %d: the drain has no end", sweep.call,
              sweep.error, atomic_load(&sweep.left));
}

static void tell(struct worker *w, struct worker_order *o)
{
    sem_t done;
    sem_init(&done, 0, 0);
    o->done = &done;
    worker_tell(w, o);
    while (sem_wait(&done) != 0) {
    }
    sem_destroy(&done);
}

static json_t *document(void)
{
    char text[2000];
    json_error_t error;
    snprintf(text, sizeof text,
             "{'apps':{'http':{'servers':{'srv0':{'listen':['tcp/127.0.0.1:1'],'protocols':['h1','h2c'],"
             "'read_header_timeout':'300ms','routes':["
             "{'match':[{'path':['/file']}],'handle':[{'handler':'file_server','root':'%s'}]},"
             "{'match':[{'path':['/up']}],'handle':[{'handler':'reverse_proxy',"
             "'upstreams':[{'dial':'127.0.0.1:%u'}]}]},"
             "{'match':[{'path':['/tls']}],'handle':[{'handler':'reverse_proxy',"
             "'upstreams':[{'dial':'127.0.0.1:%u'}],'transport':{'protocol':'http',"
             "'tls':{'root_ca_pem_files':['%s/root.pem']}}}]},"
             "{'handle':[{'handler':'static_response','body':'hello'}]}]}}}}}",
             folder, upstream_port, tls_port, folder);
    for (char *c = text; *c != '\0'; c++)
        *c = *c == '\'' ? '"' : *c;
    json_t *json = json_loads(text, 0, &error);
    CHECK(json != NULL);
    return json;
}

static void run_scenario(enum loop_kind kind)
{
    struct worker w;
    struct loop *loop;
    struct generation *g;
    char error[500];
    int fd[CLIENTS];
    json_t *json = document();
    static bool warm; /* the first run opens what the process keeps, such as the files' watch */
    unsigned before = open_descriptors();
    CHECK_INT(loop_create(LOOP_EPOLL, &loop), OK);
    if (generation_create(json, 1, &g, error, sizeof error) != OK)
        test_fail(__FILE__, __LINE__, "%s", error);
    json_decref(json);
    g->control = loop;
    CHECK_INT(worker_start(&w, 0, kind, loop), OK);
    struct new_socket socket = {SLICE("tcp/127.0.0.1:1"), listening(&port)};
    struct worker_order adopt = {.kind = ORDER_ADOPT, .generation = g, .sockets = &socket,
                                 .sockets_count = 1};
    struct mail drained = {.run = on_drained}, last = {.run = on_drained};
    struct worker_order drain = {.kind = ORDER_DRAIN, .drained = &drained};
    struct worker_order count = {.kind = ORDER_COUNT}, end = {.kind = ORDER_END};
    struct timer limit;
    atomic_store(&sweep.worker, w.thread);
    atomic_store(&sweep.on, true);
    tell(&w, &adopt);
    clients(fd);
    timer_init(&limit, on_limit);
    timer_start(loop, &limit, clock_mono_ns() + 60 * NS_PER_S);
    worker_tell(&w, &drain);
    for (int i = 0; i < CLIENTS; i++) {
        if (i != 3)
            close(fd[i]);
    }
    loop_run(loop);
    timer_stop(&limit);
    atomic_store(&sweep.on, false);
    tell(&w, &count);
    worker_tell(&w, &end);
    worker_join(&w);
    close(fd[3]);
    mailbox_post(loop, &last);
    loop_run(loop); /* the generation ends by a mail before it */
    loop_destroy(loop);
    for (int i = 0; i < 200 && open_descriptors() > before; i++)
        usleep(2000); /* the upstream hears of the end */
    if (count.live.operations + count.live.fibers + count.live.connections +
            count.live.exchanges > 0 || (warm && open_descriptors() != before))
        test_fail(__FILE__, __LINE__, "call %d, error %d: %u operations, %u fibers, %u connections, "
                  "%u exchanges, %d descriptors left", sweep.call, sweep.error,
                  count.live.operations, count.live.fibers, count.live.connections,
                  count.live.exchanges, (int)open_descriptors() - (int)before);
    warm = true;
}

/* Fails the first, the second … call of a kind, until the scenario makes fewer. */
static void sweep_call(enum loop_kind kind, enum call call, int error, unsigned step)
{
    sweep.call = call;
    sweep.error = error;
    for (int n = 1; n < 500; n += (int)step) {
        atomic_store(&sweep.left, n);
        run_scenario(kind);
        if (atomic_load(&sweep.left) > 0)
            return;
    }
}

static void prepare_tls(void)
{
    static int upstream;
    char path[64];
    pthread_t thread;
    EVP_PKEY *key = testing_key();
    X509 *x = testing_certificate(key, "IP:127.0.0.1", NULL, NULL, true, 1, 10);
    tls_context = SSL_CTX_new(TLS_server_method());
    CHECK_INT(SSL_CTX_use_certificate(tls_context, x), 1);
    CHECK_INT(SSL_CTX_use_PrivateKey(tls_context, key), 1);
    struct slice pem = testing_pem(x);
    snprintf(path, sizeof path, "%s/root.pem", folder);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK_INT(write(fd, pem.ptr, pem.len), pem.len);
    close(fd);
    testing_free(pem);
    X509_free(x);
    EVP_PKEY_free(key);
    upstream = listening(&tls_port);
    CHECK_INT(pthread_create(&thread, NULL, run_tls_upstream, &upstream), 0);
    pthread_detach(thread);
}

static void prepare(enum loop_kind kind)
{
    static bool made;
    char path[64];
    if (kind == LOOP_URING && !loop_probe_uring())
        test_skip("io_uring is not allowed here");
    signal(SIGPIPE, SIG_IGN); /* as the keeper starts the server */
    log_set_threshold(LOG_FATAL);
    loop_fault = on_completion;
    if (made)
        return;
    made = true;
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/file", folder);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK_INT(ftruncate(fd, 500000), 0);
    close(fd);
    static int upstream;
    pthread_t thread;
    upstream = listening(&upstream_port);
    CHECK_INT(pthread_create(&thread, NULL, run_upstream, &upstream), 0);
    pthread_detach(thread);
    prepare_tls();
}

static const struct {
    enum call call;
    int errors[5];
} table[] = {
    {RECV, {ECONNRESET, EINTR}}, {SEND, {EPIPE, EINTR, ENOBUFS, SHORT}},
    {SENDFILE, {EPIPE, EINTR, EIO, SHORT}}, {ACCEPT, {EMFILE, ECONNABORTED, EINTR, ENOBUFS}},
    {EPOLL_CTL, {ENOMEM, ENOSPC}}, {EPOLL_WAIT, {EINTR}}, {MMAP, {ENOMEM}},
    {MADVISE, {ENOMEM, EINVAL}}, {OPEN, {EMFILE, ENOENT, EACCES}}, {FSTAT, {EIO}},
    {SHUTDOWN, {ENOTCONN}}, {GETPEER, {ENOTCONN}},
    {SOCKET, {EMFILE, ENOBUFS}},
};

static void sweep_all(enum loop_kind kind)
{
    prepare(kind);
    sweep_call(kind, CALLS, 0, 1); /* nothing fails: the scenario itself */
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        for (int e = 0; table[i].errors[e] != 0; e++)
            sweep_call(kind, table[i].call, table[i].errors[e], 1);
    }
}

TEST("whichever call of a worker fails, nothing is left behind (epoll)")
{
    sweep_all(LOOP_EPOLL);
}

TEST("whichever call of a worker fails, nothing is left behind (io_uring)")
{
    sweep_all(LOOP_URING);
}

static void sweep_completions(enum loop_kind kind)
{
    prepare(kind);
    sweep_call(kind, COMPLETION, ECONNRESET, 1);
    sweep_call(kind, COMPLETION, ENOMEM, 1);
    sweep_call(kind, COMPLETION, EMFILE, 1);
}

TEST("whichever operation of a worker fails, nothing is left behind (epoll)")
{
    sweep_completions(LOOP_EPOLL);
}

TEST("whichever operation of a worker fails, nothing is left behind (io_uring)")
{
    sweep_completions(LOOP_URING);
}
