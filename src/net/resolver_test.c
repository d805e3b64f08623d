/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The resolver against a DNS server of the test's own: a thread on one loopback port, UDP and TCP,
 * that answers by the first label of the name and counts what it was asked.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "loop/scene_testing.h"
#include "net/resolver.h"

/* --- the server --- */

static struct {
    int udp, tcp;
    uint16_t port;
    pthread_t thread;
    atomic_bool over;
    atomic_int asked, by_tcp;
    char servers[64];
} dns;

struct query {
    unsigned char *bytes; /* the question as it came */
    size_t len;
    char name[256];
    unsigned type;
};

static bool read_query(struct query *q)
{
    size_t at = 12, out = 0;
    if (q->len < 17)
        return false;
    while (at < q->len && q->bytes[at] != 0) {
        size_t label = q->bytes[at++];
        if (label > 63 || at + label >= q->len || out + label + 2 > sizeof q->name)
            return false;
        memcpy(q->name + out, q->bytes + at, label);
        out += label;
        q->name[out++] = '.';
        at += label;
    }
    q->name[out] = '\0';
    if (at + 5 > q->len)
        return false;
    q->type = q->bytes[at + 2];
    q->len = at + 5; /* without EDNS */
    return true;
}

static size_t put_head(const struct query *q, unsigned char *out, unsigned flags, unsigned answers)
{
    memcpy(out, q->bytes, q->len);
    out[2] = (unsigned char)(0x81 | flags >> 8);
    out[3] = (unsigned char)(0x80 | (flags & 0xff));
    memset(out + 4, 0, 8);
    out[5] = 1;
    out[7] = (unsigned char)answers;
    return q->len;
}

static size_t put_record(unsigned char *out, unsigned type, unsigned ttl, const void *data, size_t len)
{
    unsigned char head[12] = {0xc0, 12, 0, (unsigned char)type, 0, 1, 0, 0, 0, (unsigned char)ttl,
                              0, (unsigned char)len};
    memcpy(out, head, 12);
    memcpy(out + 12, data, len);
    return 12 + len;
}

static size_t put_four(unsigned char *out, unsigned ttl, const char *text)
{
    struct in_addr a;
    inet_pton(AF_INET, text, &a);
    return put_record(out, 1, ttl, &a, 4);
}

static size_t put_six(unsigned char *out, unsigned ttl, const char *text)
{
    struct in6_addr a;
    inet_pton(AF_INET6, text, &a);
    return put_record(out, 28, ttl, &a, 16);
}

static size_t answer_many(const struct query *q, unsigned char *out)
{
    size_t n = put_head(q, out, 0, 40);
    for (int i = 1; i <= 40; i++) {
        char text[32];
        snprintf(text, sizeof text, "127.0.1.%d", i);
        n += put_four(out + n, 60, text);
    }
    return n;
}

/* The answer's length; 0: none. `out` has 4096 bytes. */
static size_t answer(struct query *q, unsigned char *out, bool tcp)
{
    bool four = q->type == 1, six = q->type == 28;
    const char *name = q->name;
    size_t n = 0;
    int asked = atomic_fetch_add(&dns.asked, 1);
    if (tcp)
        atomic_fetch_add(&dns.by_tcp, 1);
    if (strncmp(name, "both.", 5) == 0) {
        n = put_head(q, out, 0, 1);
        return n + (four ? put_four(out + n, 60, "127.0.0.5") : put_six(out + n, 60, "::1"));
    }
    if (strncmp(name, "brief.", 6) == 0 || strcmp(name, "app.corp.test.") == 0 ||
        strncmp(name, "slow.", 5) == 0) {
        char text[32];
        snprintf(text, sizeof text, "127.0.0.%d", 1 + asked / 2);
        if (name[0] == 's')
            poll(NULL, 0, 100);
        n = put_head(q, out, 0, four);
        return four ? n + put_four(out + n, name[0] == 'b' ? 1 : 60, text) : n;
    }
    if (strncmp(name, "big.", 4) == 0 && four)
        return tcp ? answer_many(q, out) : put_head(q, out, 0x200, 0);
    if (strncmp(name, "empty.", 6) == 0 || (six && strncmp(name, "big.", 4) == 0))
        return put_head(q, out, 0, 0);
    if (strncmp(name, "fail.", 5) == 0)
        return put_head(q, out, 2, 0);
    if (strncmp(name, "garbage.", 8) == 0) {
        n = put_head(q, out, 0, 3); /* three records, and then bytes that are none */
        memset(out + n, 0xc0, 60);
        return n + 60;
    }
    if (strncmp(name, "silent.", 7) == 0)
        return 0;
    return put_head(q, out, 3, 0);
}

static void serve_udp(void)
{
    unsigned char in[1500], out[4096];
    struct sockaddr_in from;
    socklen_t from_len = sizeof from;
    ssize_t got = recvfrom(dns.udp, in, sizeof in, 0, (struct sockaddr *)&from, &from_len);
    struct query q = {.bytes = in, .len = got > 0 ? (size_t)got : 0};
    if (!read_query(&q))
        return;
    if (strncmp(q.name, "garbage.", 8) == 0) { /* first what belongs to no question */
        sendto(dns.udp, "", 0, 0, (struct sockaddr *)&from, from_len);
        sendto(dns.udp, "xyz", 3, 0, (struct sockaddr *)&from, from_len);
    }
    size_t n = answer(&q, out, false);
    if (n > 0)
        sendto(dns.udp, out, n, 0, (struct sockaddr *)&from, from_len);
}

static void serve_tcp(void)
{
    unsigned char in[1500], out[4098];
    int fd = accept(dns.tcp, NULL, NULL);
    ssize_t got = recv(fd, in, sizeof in, 0);
    struct query q = {.bytes = in + 2, .len = got > 2 ? (size_t)got - 2 : 0};
    if (read_query(&q)) {
        size_t n = answer(&q, out + 2, true);
        out[0] = (unsigned char)(n >> 8);
        out[1] = (unsigned char)n;
        (void)!write(fd, out, 1); /* in pieces */
        poll(NULL, 0, 10);
        (void)!write(fd, out + 1, n + 1);
    }
    close(fd);
}

static void *serve(void *arg)
{
    struct pollfd fds[2] = {{.fd = dns.udp, .events = POLLIN}, {.fd = dns.tcp, .events = POLLIN}};
    while (!atomic_load(&dns.over)) {
        if (poll(fds, 2, 20) <= 0)
            continue;
        if (fds[0].revents != 0)
            serve_udp();
        if (fds[1].revents != 0)
            serve_tcp();
    }
    return arg;
}

static void start_server(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    dns.udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    dns.tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(dns.tcp, (struct sockaddr *)&at, sizeof at) == 0 && listen(dns.tcp, 8) == 0);
    CHECK(getsockname(dns.tcp, (struct sockaddr *)&at, &len) == 0);
    CHECK(bind(dns.udp, (struct sockaddr *)&at, sizeof at) == 0);
    dns.port = ntohs(at.sin_port);
    dns.over = false;
    dns.asked = dns.by_tcp = 0;
    snprintf(dns.servers, sizeof dns.servers, "127.0.0.1:%u", dns.port);
    CHECK(pthread_create(&dns.thread, NULL, serve, NULL) == 0);
}

static void stop_server(void)
{
    dns.over = true;
    pthread_join(dns.thread, NULL);
    close(dns.udp);
    close(dns.tcp);
}

/* --- scenes --- */

static struct loop *loop;
static struct resolver *resolver;
static struct resolved found; /* of the last ask() */
static char conf[64];
static struct resolved call_out;
static struct resolve_call open_call; /* left open by a scene, if on_done is set */
static enum err called_with;

static void write_conf(const char *text)
{
    FILE *f = fopen(conf, "we");
    CHECK(f != NULL && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void run_scene(enum loop_kind kind, void (*scene)(void))
{
    snprintf(conf, sizeof conf, "/tmp/portico-resolver-test-%d.conf", getpid());
    write_conf("nameserver 127.0.0.1\n");
    start_server();
    struct dns_options o = {dns.servers, conf, 1000, 1};
    CHECK_OK(loop_create(kind, &loop));
    CHECK_OK(resolver_create(loop, &o, &resolver));
    scene_play(loop, scene);
    resolver_destroy(resolver);
    loop_settle(loop);
    CHECK_INT(fiber_live(loop), 0);
    if (open_call.on_done != NULL)
        CHECK_INT(called_with, ERR_CANCELLED);
    open_call.on_done = NULL;
    loop_destroy(loop);
    stop_server();
    unlink(conf);
}

static uint64_t soon(unsigned ms)
{
    return clock_mono_ns() + ms * NS_PER_MS;
}

static enum err ask(const char *name)
{
    return resolver_await(resolver, slice_from(name), 80, soon(30000), &found);
}

/* "127.0.0.1:80 [::1]:80" */
static const char *text_of(const struct resolved *r)
{
    static char text[1024];
    char one[INET6_ADDRSTRLEN];
    size_t n = 0;
    text[0] = '\0';
    for (size_t i = 0; i < r->count; i++) {
        const struct sockaddr_in *four = (const void *)&r->addresses[i];
        const struct sockaddr_in6 *six = (const void *)&r->addresses[i];
        bool is_six = r->addresses[i].ss_family == AF_INET6;
        inet_ntop(is_six ? AF_INET6 : AF_INET,
                  is_six ? (const void *)&six->sin6_addr : (const void *)&four->sin_addr, one,
                  sizeof one);
        n += (size_t)snprintf(text + n, sizeof text - n, is_six ? "%s[%s]:%u" : "%s%s:%u",
                              i > 0 ? " " : "", one, ntohs(is_six ? six->sin6_port
                                                                  : four->sin_port));
    }
    return text;
}

SCENE("literal addresses are answered without a question", literals)
{
    static const char *const rows[][2] = {
        {"192.0.2.7", "192.0.2.7:80"}, {"::1", "[::1]:80"}, {"2001:db8::1", "[2001:db8::1]:80"},
        {"fe80::1%lo", "[fe80::1]:80"}, {"fe80::1%1", "[fe80::1]:80"}, {"", "[::1]:80 127.0.0.1:80"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_OK(ask(rows[i][0]));
        CHECK_TEXT(slice_from(text_of(&found)), rows[i][1]);
    }
    CHECK_OK(ask("fe80::1%lo"));
    CHECK(((struct sockaddr_in6 *)&found.addresses[0])->sin6_scope_id > 0);
    CHECK_INT(dns.asked, 0);
}

SCENE("what is no host name is refused without a question", not_names)
{
    static const char *const rows[] = {"a b.test", "a..test", ".test", ".", "[::1]", "::1::", "a/b",
                                       "fe80::1%nolink", "-%", "a\xc3\xa4.test"};
    char long_label[80];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_INT(ask(rows[i]), ERR_INVALID);
        CHECK_TEXT(slice_from(found.why), "not a host name");
    }
    memset(long_label, 'a', sizeof long_label);
    CHECK_INT(resolver_await(resolver, slice_of(long_label, 64), 80, 0, &found), ERR_INVALID);
    CHECK_INT(dns.asked, 0);
}

SCENE("localhost and all below it are this machine, and never asked of DNS", localhost)
{
    static const char *const names[] = {"localhost", "LocalHost.", "a.localhost", "a.b.localhost."};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CHECK_OK(ask(names[i]));
        CHECK(found.count > 0);
        CHECK(strstr(text_of(&found), "127.0.0.1:80") != NULL ||
              strstr(text_of(&found), "[::1]:80") != NULL);
    }
    CHECK_INT(dns.asked, 0);
}

SCENE("both families are asked for and ordered, and the answer is remembered", remembers)
{
    CHECK_OK(ask("both.test"));
    CHECK_INT(found.count, 2);
    CHECK(strstr(text_of(&found), "127.0.0.5:80") != NULL && strstr(text_of(&found), "[::1]:80"));
    CHECK_INT(dns.asked, 2);
    CHECK_OK(ask("BOTH.test"));
    CHECK_INT(found.count, 2);
    CHECK_INT(dns.asked, 2);
}

SCENE("an answer is asked for again when its time to live has passed", expires)
{
    CHECK_OK(ask("brief.test"));
    CHECK_TEXT(slice_from(text_of(&found)), "127.0.0.1:80");
    CHECK_OK(ask("brief.test"));
    CHECK_TEXT(slice_from(text_of(&found)), "127.0.0.1:80");
    await_sleep(soon(1050));
    CHECK_OK(ask("brief.test"));
    CHECK_TEXT(slice_from(text_of(&found)), "127.0.0.2:80");
}

SCENE("no such host, no address and failing servers are told apart and remembered", failures)
{
    CHECK_INT(ask("none.test"), ERR_NOT_FOUND);
    CHECK_TEXT(slice_from(found.why), "no such host");
    CHECK_INT(ask("empty.test"), ERR_NOT_FOUND);
    CHECK_TEXT(slice_from(found.why), "the host has no address");
    CHECK_INT(ask("fail.test"), ERR_IO);
    int asked = dns.asked;
    CHECK_INT(ask("none.test"), ERR_NOT_FOUND);
    CHECK_INT(ask("empty.test"), ERR_NOT_FOUND);
    CHECK_INT(ask("fail.test"), ERR_IO);
    CHECK_INT(dns.asked, asked);
}

SCENE("a truncated answer is asked for by TCP, and more than 16 addresses are cut", truncated)
{
    CHECK_OK(ask("big.test"));
    CHECK_INT(found.count, RESOLVED_MAX);
    CHECK_INT(dns.by_tcp, 1);
}

SCENE("garbage is an error, not an answer, and does not hurt the next question", garbage)
{
    enum err e = ask("garbage.test");
    CHECK(e == ERR_IO || e == ERR_TIMEOUT || e == ERR_NOT_FOUND);
    CHECK_INT(found.count, 0);
    CHECK_OK(ask("both.test"));
}

SCENE("a silent server is a timeout", silent)
{
    uint64_t begin = clock_mono_ns();
    CHECK_INT(ask("silent.test"), ERR_TIMEOUT);
    CHECK(clock_mono_ns() - begin >= 900 * NS_PER_MS);
    CHECK_TEXT(slice_from(found.why), "no answer from the DNS servers");
}

SCENE("a deadline ends the wait, not the question", deadline)
{
    CHECK_INT(resolver_await(resolver, SLICE("slow.test"), 80, soon(20), &found), ERR_TIMEOUT);
    CHECK_TEXT(slice_from(found.why), "no answer from the DNS servers in time");
    CHECK_OK(ask("slow.test"));
    CHECK_INT(dns.asked, 2);
}

static int answered;

static void on_share(void *arg)
{
    struct resolved own;
    (void)arg;
    CHECK_OK(resolver_await(resolver, SLICE("slow.test"), 81, soon(30000), &own));
    CHECK_TEXT(slice_from(text_of(&own)), "127.0.0.1:81");
    answered++;
}

static struct waiter all_started;

static void start_sharers(struct task *t)
{
    (void)t;
    for (int i = 0; i < 50; i++)
        CHECK_OK(fiber_start(loop, on_share, NULL));
    waiter_wake(&all_started, OK);
}

SCENE("fifty that ask for one name share one question", shares)
{
    struct task t = {.run = start_sharers};
    answered = 0;
    waiter_init(&all_started);
    loop_defer(loop, &t);
    CHECK_OK(await_wake(&all_started, 0));
    for (int i = 0; answered < 50 && i < 3000; i++)
        await_sleep(soon(10));
    CHECK_INT(answered, 50);
    CHECK_INT(dns.asked, 2);
}

static enum err cancelled_with;
static struct fiber *victim;

static void on_victim(void *arg)
{
    struct resolved own;
    (void)arg;
    victim = fiber_self();
    cancelled_with = resolver_await(resolver, SLICE("silent.test"), 80, 0, &own);
}

static void start_victim(struct task *t)
{
    (void)t;
    CHECK_OK(fiber_start(loop, on_victim, NULL));
    fiber_cancel(victim, ERR_CLOSED);
    waiter_wake(&all_started, OK);
}

SCENE("a cancelled fiber stops waiting at once; the open question ends with the resolver", cancels)
{
    struct task t = {.run = start_victim};
    cancelled_with = OK;
    waiter_init(&all_started);
    loop_defer(loop, &t);
    CHECK_OK(await_wake(&all_started, 0));
    await_sleep(soon(10));
    CHECK_INT(cancelled_with, ERR_CLOSED);
}

static void on_called(struct resolve_call *call, enum err e)
{
    (void)call;
    called_with = e;
}

SCENE("calls back, not after a cancel, and with ERR_CANCELLED when the resolver ends", calls)
{
    struct resolved out;
    struct resolve_call call = {.on_done = on_called, .out = &out};
    called_with = ERR_FAILED;
    resolver_start(resolver, SLICE("both.test"), 1, &call);
    CHECK_INT(called_with, ERR_FAILED);
    for (int i = 0; called_with == ERR_FAILED && i < 3000; i++)
        await_sleep(soon(10));
    CHECK_INT(called_with, OK);
    CHECK_INT(out.count, 2);
    called_with = ERR_FAILED;
    resolver_start(resolver, SLICE("both.test"), 1, &call);
    resolve_cancel(&call);
    await_sleep(soon(10));
    CHECK_INT(called_with, ERR_FAILED);
    open_call = (struct resolve_call){.on_done = on_called, .out = &call_out};
    resolver_start(resolver, SLICE("silent.test"), 1, &open_call); /* run_scene destroys it */
}

SCENE("search domains and a changed resolv.conf count", searches)
{
    write_conf("nameserver 127.0.0.1\nsearch none.test corp.test\noptions ndots:1\n");
    await_sleep(soon(1050)); /* files are looked at once a second */
    CHECK_OK(ask("app"));
    CHECK_INT(found.count, 1);
    write_conf("nameserver 127.0.0.1\nsearch other.test\n");
    await_sleep(soon(1050));
    CHECK_INT(ask("app"), ERR_NOT_FOUND);
    CHECK_INT(ask("app."), ERR_NOT_FOUND);
}

SCENE("a question that is open when resolv.conf changes is asked again", asks_again)
{
    struct resolved out;
    struct resolve_call call = {.on_done = on_called, .out = &out};
    called_with = ERR_FAILED;
    await_sleep(soon(1050));
    resolver_start(resolver, SLICE("slow.test"), 1, &call);
    await_sleep(soon(5));
    write_conf("nameserver 127.0.0.1\noptions timeout:1\n");
    await_sleep(soon(1050));
    CHECK_OK(ask("both.test"));
    for (int i = 0; called_with == ERR_FAILED && i < 3000; i++)
        await_sleep(soon(10));
    CHECK_INT(called_with, OK);
}

SCENE("no more names are remembered than the limit", bounded)
{
    char name[64];
    for (int i = 0; i < RESOLVER_NAMES_MAX + 50; i++) {
        snprintf(name, sizeof name, "both.n%d.test", i);
        CHECK_OK(ask(name));
    }
    int asked = dns.asked;
    CHECK_OK(ask("both.n900.test"));
    CHECK_INT(dns.asked, asked);
    CHECK_OK(ask("both.n0.test"));
    CHECK_INT(dns.asked, asked + 2);
}

/* In a process with a mount namespace of its own: /etc/hosts is another file there. */
static void ask_hosts(void)
{
    char hosts[64];
    snprintf(hosts, sizeof hosts, "/tmp/portico-hosts-test-%d", getpid());
    FILE *f = fopen(hosts, "we");
    CHECK(f != NULL && fputs("127.0.0.9 both.test host-of-file\n", f) >= 0 && fclose(f) == 0);
    CHECK_OK(ask("both.test"));
    CHECK_INT(found.count, 2);
    bool bound = mount(hosts, "/etc/hosts", NULL, MS_BIND, NULL) == 0;
    CHECK(bound);
    await_sleep(soon(1050));
    CHECK_OK(ask("both.test"));
    CHECK_TEXT(slice_from(text_of(&found)), "127.0.0.9:80");
    CHECK_OK(ask("HOST-of-file"));
    CHECK_TEXT(slice_from(text_of(&found)), "127.0.0.9:80");
    umount("/etc/hosts");
    unlink(hosts);
}

TEST("a changed /etc/hosts is seen, and counts before DNS")
{
    int status;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
            _exit(77);
        run_scene(LOOP_EPOLL, ask_hosts);
        _exit(0);
    }
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        test_skip("no mount namespace without root");
    CHECK_INT(status, 0);
}
