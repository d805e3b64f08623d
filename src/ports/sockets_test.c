/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets of this process and of children, found in the kernel's own tables.
 */
#include "ports/sockets.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/test.h"
#include "ports/bound.h"
#include "ports/namespaces.h"

enum { TCP = SOCK_STREAM, UDP = SOCK_DGRAM };

static struct arena arena;
static struct port_table table;

static void collect(const struct socket_options *o)
{
    char error[256] = "";
    arena_init(&arena, 64 << 10);
    table = (struct port_table){.arena = &arena};
    CHECK_OK(sockets_collect(&table, o, error, sizeof error));
    CHECK_OK(owners_collect(&table, o));
}

static const struct socket_options here = {.one_namespace = true};

/* Binds, and listens if TCP and `backlog` is not 0; port 0: one is chosen. Returns the descriptor. */
static int bind_at(int type, const char *address, uint16_t *port, bool v6only, int backlog)
{
    struct sockaddr_storage a = {0};
    struct sockaddr_in *four = (void *)&a;
    struct sockaddr_in6 *six = (void *)&a;
    socklen_t len = sizeof a;
    int on = 1, only = v6only;
    bool is_six = strchr(address, ':') != NULL;
    int fd = socket(is_six ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC, 0);
    if (fd < 0 && is_six)
        test_skip("no IPv6 here");
    a.ss_family = is_six ? AF_INET6 : AF_INET;
    if (is_six) {
        inet_pton(AF_INET6, address, &six->sin6_addr);
        six->sin6_port = htons(*port);
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only);
    } else {
        inet_pton(AF_INET, address, &four->sin_addr);
        four->sin_port = htons(*port);
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    CHECK(bind(fd, (void *)&a, len) == 0);
    if (type == TCP && backlog > 0)
        CHECK(listen(fd, backlog) == 0);
    CHECK(getsockname(fd, (void *)&a, &len) == 0);
    *port = ntohs(is_six ? six->sin6_port : four->sin_port);
    return fd;
}

static struct port_entry *find(uint16_t port, enum port_protocol protocol)
{
    struct port_entry *found = NULL;
    for (size_t i = 0; i < table.count; i++) {
        struct port_entry *e = &table.entries[i];
        if (e->port != port || e->protocol != protocol)
            continue;
        CHECK(found == NULL);
        found = e;
    }
    return found;
}

static bool owned_by(const struct port_entry *e, pid_t pid)
{
    for (const struct port_owner *o = e->owners; o != NULL; o = o->next) {
        if (o->pid == pid)
            return true;
    }
    return false;
}

static const struct {
    int type;
    const char *address;
    bool v6only;
    enum port_family family, guessed; /* as the diagnostics say, and as the tables do */
} kinds[] = {
    {TCP, "127.0.0.1", false, PORT_IP4, PORT_IP4}, {TCP, "0.0.0.0", false, PORT_IP4, PORT_IP4},
    {TCP, "::", false, PORT_DUAL, PORT_DUAL},      {TCP, "::", true, PORT_IP6, PORT_DUAL},
    {TCP, "::1", false, PORT_IP6, PORT_IP6},       {TCP, "::ffff:127.0.0.1", false, PORT_IP4, PORT_IP4},
    {UDP, "127.0.0.1", false, PORT_IP4, PORT_IP4}, {UDP, "::", false, PORT_DUAL, PORT_DUAL},
    {UDP, "::", true, PORT_IP6, PORT_DUAL},
};

enum { KINDS = sizeof kinds / sizeof kinds[0] };

static void check_kinds(const struct socket_options *o)
{
    int fds[KINDS];
    uint16_t ports[KINDS] = {0};
    for (size_t i = 0; i < KINDS; i++)
        fds[i] = bind_at(kinds[i].type, kinds[i].address, &ports[i], kinds[i].v6only, 1);
    collect(o);
    for (size_t i = 0; i < KINDS; i++) {
        struct port_entry *e = find(ports[i], kinds[i].type == TCP ? PORT_TCP : PORT_UDP);
        CHECK(e != NULL);
        CHECK_INT(e->family, o->from_procfs ? kinds[i].guessed : kinds[i].family);
        CHECK(e->listening && e->sockets == 1 && e->uid == geteuid() && e->namespace.len == 0);
        CHECK(owned_by(e, getpid()));
        close(fds[i]);
    }
    arena_deinit(&arena);
}

TEST("each kind of listening socket is found, with its process")
{
    check_kinds(&here);
}

TEST("and by the tables of /proc, which are said to tell less")
{
    struct socket_options o = {.one_namespace = true, .from_procfs = true};
    check_kinds(&o);
    CHECK(table.unseen_count > 0);
}

TEST("sockets of one address and port are one row")
{
    uint16_t port = 0;
    int a = bind_at(TCP, "127.0.0.1", &port, false, 1), b = bind_at(TCP, "127.0.0.1", &port, false, 1);
    collect(&here);
    struct port_entry *e = find(port, PORT_TCP);
    CHECK(e != NULL && e->sockets == 2);
    CHECK(e->owners != NULL && e->owners->next == NULL);
    arena_deinit(&arena);
    close(a);
    close(b);
}

TEST("the process is found whatever the number of its descriptor")
{
    static const int numbers[] = {20, 21, 47, 200, 900};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        uint16_t port = 0;
        int low = bind_at(TCP, "127.0.0.1", &port, false, 1), fd = fcntl(low, F_DUPFD, numbers[i]);
        CHECK(fd >= numbers[i]);
        close(low);
        collect(&here);
        struct port_entry *e = find(port, PORT_TCP);
        CHECK(e != NULL && owned_by(e, getpid()));
        arena_deinit(&arena);
        close(fd);
    }
}

TEST("a connected UDP socket is not listed, a connection's TCP socket neither")
{
    uint16_t port = 0, other = 0;
    int listener = bind_at(TCP, "127.0.0.1", &port, false, 1);
    int udp = bind_at(UDP, "127.0.0.1", &other, false, 0), tcp = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(connect(tcp, (void *)&to, sizeof to) == 0);
    CHECK(connect(udp, (void *)&to, sizeof to) == 0);
    collect(&here);
    CHECK(find(other, PORT_UDP) == NULL);
    CHECK(find(port, PORT_TCP) != NULL && find(port, PORT_TCP)->sockets == 1);
    arena_deinit(&arena);
    close(listener);
    close(udp);
    close(tcp);
}

TEST("a TCP socket that is bound and does not listen is told where the kernel tells it")
{
    uint16_t port = 0;
    int fd = bind_at(TCP, "127.0.0.1", &port, false, 0);
    collect(&here);
    struct port_entry *e = find(port, PORT_TCP);
    CHECK(e == NULL || (!e->listening && owned_by(e, getpid())));
    bool told = e != NULL;
    arena_deinit(&arena);
    close(fd);
    if (!told)
        test_skip("this kernel does not tell them (it does since 6.8)");
}

TEST("rows are sorted, and their bound sockets by inode")
{
    collect(&here);
    for (size_t i = 1; i < table.count; i++)
        CHECK(table.entries[i - 1].port <= table.entries[i].port);
    for (size_t i = 1; i < table.bound_count; i++)
        CHECK(table.bound[i - 1].inode <= table.bound[i].inode);
    arena_deinit(&arena);
}

/* A child that runs `prepare` and then waits; its pid. */
static pid_t start_child(bool (*prepare)(uint16_t *), uint16_t *port)
{
    int told[2];
    uint16_t answer = 0;
    CHECK(pipe(told) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        bool good = prepare(&answer);
        if (write(told[1], &answer, sizeof answer) != sizeof answer || !good)
            _exit(1);
        for (;;)
            pause();
    }
    CHECK(read(told[0], port, sizeof *port) == sizeof *port);
    close(told[0]);
    close(told[1]);
    return pid;
}

static void end_child(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static bool just_wait(uint16_t *port)
{
    return true;
}

TEST("a socket that two processes have open has both as owners, with program and user")
{
    uint16_t port = 0, none;
    int fd = bind_at(TCP, "127.0.0.1", &port, false, 1);
    pid_t child = start_child(just_wait, &none);
    collect(&here);
    struct port_entry *e = find(port, PORT_TCP);
    CHECK(e != NULL && owned_by(e, getpid()) && owned_by(e, child));
    CHECK_TEXT(e->owners->program, "sockets_test");
    CHECK_INT(e->owners->uid, geteuid());
    CHECK(e->owners->user.len > 0);
    CHECK(e->owners->next != NULL && e->owners->next->next == NULL);
    arena_deinit(&arena);
    end_child(child);
    close(fd);
}

static bool listen_elsewhere(uint16_t *port)
{
    if (unshare(CLONE_NEWNET) < 0)
        return false;
    bind_at(TCP, "0.0.0.0", port, false, 1);
    return true;
}

static enum err tell_inode(void *arg)
{
    char text[64] = "";
    ssize_t n = readlink("/proc/thread-self/ns/net", text, sizeof text - 1);
    *(bool *)arg = n > 0;
    return n > 0 ? OK : ERR_IO;
}

TEST("another network namespace is found by a process in it, entered, and named")
{
    uint16_t port = 0;
    bool ran = false;
    struct socket_options all = {0};
    char want[64];
    pid_t child = start_child(listen_elsewhere, &port);
    if (port == 0) {
        end_child(child);
        test_skip("no right to make a network namespace");
    }
    collect(&all);
    struct port_entry *found = NULL;
    for (size_t i = 0; i < table.count; i++) {
        if (table.entries[i].port == port && owned_by(&table.entries[i], child))
            found = &table.entries[i];
    }
    CHECK(found != NULL && found->netns != table.netns);
    snprintf(want, sizeof want, "pid %d (sockets_test)", (int)child);
    CHECK_TEXT(found->namespace, want);
    const struct port_namespace *ns = namespace_by_inode(&table, found->netns);
    CHECK(ns != NULL && ns->entered == OK && ns->pid == child);
    CHECK_OK(namespace_run(ns, tell_inode, &ran));
    CHECK(ran);
    end_child(child);
    arena_deinit(&arena);
}

static struct slice name_service(void *arg, pid_t pid, struct slice group)
{
    return pid == *(pid_t *)arg ? SLICE("simon") : SLICE_NONE;
}

TEST("an owner's service is what the asked one says")
{
    uint16_t port = 0;
    pid_t me = getpid();
    struct socket_options o = {.one_namespace = true, .service_of = name_service, .service_arg = &me};
    int fd = bind_at(TCP, "127.0.0.1", &port, false, 1);
    collect(&o);
    struct port_entry *e = find(port, PORT_TCP);
    CHECK(e != NULL && e->owners != NULL);
    CHECK_TEXT(e->owners->service, "simon");
    arena_deinit(&arena);
    close(fd);
}

/* As nobody: what is root's is listed without an owner, and that is said. */
static int look_as_nobody(uint16_t port)
{
    char error[256];
    if (setgid(65534) < 0 || setuid(65534) < 0)
        return 2;
    arena_init(&arena, 64 << 10);
    table = (struct port_table){.arena = &arena};
    if (sockets_collect(&table, &here, error, sizeof error) != OK || owners_collect(&table, &here) != OK)
        return 3;
    struct port_entry *e = find(port, PORT_TCP);
    int result = e == NULL ? 4 : e->owners != NULL ? 5 : table.unseen_count == 0 ? 6 : 0;
    arena_deinit(&arena);
    return result;
}

TEST("without rights a port of another user is listed without owner, and it is said that some are")
{
    uint16_t port = 0;
    int status;
    if (geteuid() != 0)
        test_skip("not root");
    int fd = bind_at(TCP, "127.0.0.1", &port, false, 1);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        close(fd);
        _exit(look_as_nobody(port));
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_INT(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
    close(fd);
}

static bool keep_descriptor(uint16_t *port)
{
    int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    bool good = unshare(CLONE_NEWNET) == 0 && open("/proc/thread-self/ns/net", O_RDONLY) >= 0;
    *port = good;
    return good && setns(own, CLONE_NEWNET) == 0;
}

TEST("a namespace that only a descriptor keeps is told as not looked into")
{
    uint16_t made;
    struct socket_options all = {0};
    pid_t child = start_child(keep_descriptor, &made);
    if (!made) {
        end_child(child);
        test_skip("no right to make a network namespace");
    }
    collect(&all);
    bool told = false;
    for (size_t i = 0; i < table.unseen_count; i++)
        told = told || slice_find_slice(table.unseen[i], SLICE("only a descriptor")) != SIZE_MAX;
    end_child(child);
    arena_deinit(&arena);
    CHECK(told);
}
