/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process in the sandbox can and cannot do, each tried in a process of its own.
 */
#include "app/server_sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/test.h"

/* 0: it could, else errno; 255: no sandbox. */
static int tried(int (*what)(void))
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        char error[200];
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if (sandbox_enter(error, sizeof error) != OK)
            _exit(255);
        _exit(what() >= 0 ? 0 : errno);
    }
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    if (WEXITSTATUS(status) == 255)
        test_skip("this kernel takes no filter here");
    return WEXITSTATUS(status);
}

static int start_program(void)
{
    char *const argv[] = {(char[]){"true"}, NULL};
    return execv("/bin/true", argv);
}

static int trace(void)
{
    return (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static int mount_something(void)
{
    return mount("none", "/mnt", "tmpfs", 0, NULL);
}

static int leave_namespace(void)
{
    return unshare(CLONE_NEWUSER);
}

static int clone_namespace(void)
{
    long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    return (int)pid;
}

static int load_module(void)
{
    return (int)syscall(SYS_init_module, "", 0UL, "");
}

static int open_packet(void)
{
    return socket(AF_PACKET, SOCK_DGRAM, 0);
}

static int open_raw(void)
{
    return socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
}

static int open_other_family(void)
{
    return socket(AF_BLUETOOTH, SOCK_STREAM, 0);
}

static int make_device(void)
{
    return mknod("/tmp/portico-no-such-device", S_IFCHR | 0600, 0x103);
}

TEST("what no server needs is refused")
{
    static int (*const all[])(void) = {start_program, trace,       mount_something, leave_namespace,
                                       clone_namespace, load_module, open_packet,     open_raw,
                                       open_other_family};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        CHECK_INT(tried(all[i]), EPERM);
    int device = tried(make_device);
    CHECK(device == EACCES || device == EPERM);
}

static void *idle(void *arg)
{
    return arg;
}

static int make_thread(void)
{
    pthread_t t;
    int e = pthread_create(&t, NULL, idle, NULL);
    errno = e;
    return e == 0 && pthread_join(t, NULL) == 0 ? 0 : -1;
}

static int open_sockets(void)
{
    int a = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int b = socket(AF_INET6, SOCK_DGRAM, 0), c = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    int d = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    return a >= 0 && (b >= 0 || errno == EAFNOSUPPORT) && c >= 0 && d >= 0 ? 0 : -1;
}

static int write_file(void)
{
    int fd = open("/tmp", O_TMPFILE | O_WRONLY, 0600);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR))
        return 0;
    return fd >= 0 && write(fd, "x", 1) == 1 ? 0 : -1;
}

static int make_child(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    return pid > 0 && waitpid(pid, NULL, 0) == pid ? 0 : -1;
}

TEST("what a server does goes on: threads, sockets, files, children of its own")
{
    CHECK_INT(tried(make_thread), 0);
    CHECK_INT(tried(open_sockets), 0);
    CHECK_INT(tried(write_file), 0);
    CHECK_INT(tried(make_child), 0);
}

TEST("only true asks for it")
{
    json_t *on = json_pack("{s:{s:b}}", "portico", "sandbox", 1);
    json_t *text = json_pack("{s:{s:s}}", "portico", "sandbox", "on");
    CHECK(sandbox_wanted(on) && !sandbox_wanted(text) && !sandbox_wanted(NULL));
    json_decref(on);
    json_decref(text);
}
