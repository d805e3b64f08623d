/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts that guard programs, each alone: control groups in a folder that looks like one, the
 * killing of trees, confinement, identities. How they work together is tests/supervise_test.py's.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/test.h"
#include "services/cgroup.h"
#include "services/confine.h"
#include "services/enter.h"
#include "services/identity.h"
#include "services/process_tree.h"

/* --- control groups --- */

static char root[64];

static void make_file(const char *folder, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    CHECK(f != NULL && fputs(text, f) >= 0 && fclose(f) == 0);
}

static const char *read_file(const char *folder, const char *name)
{
    static char text[512];
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "r");
    size_t n = f != NULL ? fread(text, 1, sizeof text - 1, f) : 0;
    text[n] = '\0';
    if (f != NULL)
        fclose(f);
    return text;
}

static void begin_root(struct cgroups *g, const char *controllers)
{
    snprintf(root, sizeof root, "/tmp/portico-cgroup-XXXXXX");
    CHECK(mkdtemp(root) != NULL);
    make_file(root, "cgroup.controllers", controllers);
    make_file(root, "cgroup.subtree_control", "");
    cgroups_init_at(g, open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

static void end_root(struct cgroups *g)
{
    char command[128];
    cgroups_deinit(g);
    pid_t pid = fork();
    if (pid == 0) {
        snprintf(command, sizeof command, "%s", root);
        execlp("rm", "rm", "-r", command, (char *)NULL);
        _exit(1);
    }
    CHECK_INT(waitpid(pid, NULL, 0), pid);
}

static unsigned long long began(pid_t pid)
{
    char folder[64];
    unsigned long long ticks = 0;
    snprintf(folder, sizeof folder, "/proc/%d", (int)pid);
    const char *at = strrchr(read_file(folder, "stat"), ')');
    for (int i = 0; at != NULL && i < 20; i++)
        at = strchr(at + 1, ' ');
    CHECK(at != NULL && sscanf(at, "%llu", &ticks) == 1);
    return ticks;
}

static void group_path(char *out, size_t cap, pid_t pid, unsigned long long start, const char *rest)
{
    struct stat s;
    CHECK_INT(stat("/proc/self/ns/pid", &s), 0);
    snprintf(out, cap, "%s/portico.%llu.%d.%llu.%s", root, (unsigned long long)s.st_ino, (int)pid,
             start, rest);
}

static struct launch sample(void)
{
    static struct slice words[] = {{"true", 4}};
    return (struct launch){.service = SLICE("simon"), .replica = 3, .argv = words, .argv_count = 1};
}

TEST("limits are written into a program's own control group")
{
    struct cgroups g;
    struct launch l = sample();
    char path[256], error[200] = "";
    int folder;
    begin_root(&g, "cpuset cpu io memory pids\n");
    group_path(path, sizeof path, getpid(), began(getpid()), "simon.3.00000000000000ff");
    CHECK_INT(mkdir(path, 0755), 0); /* the kernel would fill it */
    static const char *const files[] = {"memory.max", "memory.oom.group", "memory.swap.max",
                                        "pids.max", "cpu.max", "cgroup.kill"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        make_file(path, files[i], "");
    make_file(path, "memory.events", "low 0\noom 1\noom_kill 2\n");
    l.memory = 1 << 20;
    l.tasks = 64;
    l.cpu = 0.5;
    CHECK_OK(cgroup_create(&g, &l, 255, &folder, error, sizeof error));
    CHECK_TEXT(slice_from(read_file(path, "memory.max")), "1048576");
    CHECK_TEXT(slice_from(read_file(path, "memory.oom.group")), "1");
    CHECK_TEXT(slice_from(read_file(path, "memory.swap.max")), "0");
    CHECK_TEXT(slice_from(read_file(path, "pids.max")), "64");
    CHECK_TEXT(slice_from(read_file(path, "cpu.max")), "50000 100000");
    cgroup_why(folder, error, sizeof error);
    CHECK(strstr(error, "more memory than its limit") != NULL);
    cgroup_kill(folder);
    CHECK_TEXT(slice_from(read_file(path, "cgroup.kill")), "1");
    cgroup_remove(folder);
    end_root(&g);
}

TEST("a limit that no controller keeps is refused with a sentence")
{
    struct cgroups g, none = {.folder = -1, .why = "nothing is delegated"};
    struct launch l = sample();
    char error[200] = "";
    int folder;
    begin_root(&g, "pids\n");
    l.memory = 1 << 20;
    CHECK_INT(cgroup_create(&g, &l, 1, &folder, error, sizeof error), ERR_UNSUPPORTED);
    CHECK(strstr(error, "limits: memory is not to be had here") != NULL);
    CHECK_INT(cgroup_create(&none, &l, 1, &folder, error, sizeof error), ERR_UNSUPPORTED);
    CHECK(strstr(error, "nothing is delegated") != NULL);
    l.memory = 0;
    l.cpu = 1;
    CHECK_INT(cgroup_create(&g, &l, 1, &folder, error, sizeof error), ERR_UNSUPPORTED);
    CHECK(strstr(error, "cpu") != NULL);
    l.cpu = 0;
    CHECK_OK(cgroup_create(&none, &l, 1, &folder, error, sizeof error));
    CHECK_INT(folder, -1);
    cgroup_kill(folder);
    cgroup_remove(folder);
    CHECK_OK(cgroup_create(&g, &l, 1, &folder, error, sizeof error));
    CHECK(folder >= 0);
    cgroup_remove(folder);
    end_root(&g);
}

TEST("groups of a keeper that is gone are removed, others stay")
{
    struct cgroups g;
    char gone[256], here[256], foreign[128], again[256];
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    CHECK_INT(waitpid(pid, NULL, 0), pid);
    begin_root(&g, "");
    group_path(gone, sizeof gone, pid, 1, "a.0.0000000000000001");
    group_path(here, sizeof here, getppid(), began(getppid()), "a.0.0000000000000001");
    group_path(again, sizeof again, getppid(), 1, "a.0.0000000000000001"); /* its number is another's */
    snprintf(foreign, sizeof foreign, "%s/portico.12345.%d.1.a", root, (int)pid);
    CHECK(mkdir(gone, 0755) == 0 && mkdir(here, 0755) == 0 && mkdir(foreign, 0755) == 0 &&
          mkdir(again, 0755) == 0);
    cgroups_deinit(&g);
    cgroups_init_at(&g, open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    CHECK(access(gone, F_OK) != 0 && access(here, F_OK) == 0 && access(foreign, F_OK) == 0 &&
          access(again, F_OK) != 0);
    end_root(&g);
}

/* --- trees --- */

/* A child with a grandchild in another session, which has one that was forked twice. */
static pid_t grow(int ready)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    if (fork() == 0) {
        setsid();
        if (fork() == 0) {
            if (fork() == 0)
                signal(SIGTERM, SIG_IGN);
            else
                _exit(0);
        }
    }
    (void)!write(ready, "x", 1);
    for (;;)
        pause();
}

static void await_bytes(int fd, size_t count)
{
    char byte;
    while (count-- > 0)
        CHECK_INT(read(fd, &byte, 1), 1);
}

static bool is_first(pid_t pid, void *context)
{
    return pid == *(pid_t *)context;
}

TEST("a tree is killed to its last process, and what is spared stays")
{
    int pair[2], status = 0;
    CHECK_INT(pipe(pair), 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_t spared = fork();
    if (spared == 0) {
        for (;;)
            pause();
    }
    pid_t first = grow(pair[1]);
    await_bytes(pair[0], 3);
    while (tree_kill(is_first, &spared) > 0) {
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
    }
    CHECK(kill(first, 0) != 0 && errno == ESRCH);
    CHECK_INT(kill(spared, 0), 0);
    tree_end(spared, &status);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    CHECK(waitpid(-1, NULL, 0) < 0 && errno == ECHILD);
    close(pair[1]);
    char byte;
    CHECK_INT(read(pair[0], &byte, 1), 0); /* nobody holds the writing end any more */
    close(pair[0]);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
}

/* --- confinement --- */

static int bind_to(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port),
                            .sin_addr = {htonl(INADDR_LOOPBACK)}};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    int e = bind(fd, (struct sockaddr *)&a, sizeof a) == 0 ? 0 : errno;
    close(fd);
    return e;
}

TEST("a confined process binds its own port and port 0, and no other")
{
    int status;
    if (!confine_is_there())
        test_skip("the kernel has no Landlock for ports");
    pid_t pid = fork();
    if (pid == 0)
        _exit(confine_ports(28531) != OK ? 1 : bind_to(28531) != 0 ? 2 : bind_to(0) != 0 ? 3 :
              bind_to(28532) != EACCES ? 4 : confine_ports(0) != OK ? 5 :
              bind_to(28531) != EACCES ? 6 : 0);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
}

/* --- identities --- */

TEST("an identity is found by name and by number, and read from a process")
{
    struct identity who, mine;
    char error[256] = "";
    CHECK_OK(identity_find(SLICE("root"), SLICE(""), &who, error, sizeof error));
    CHECK_INT(who.uid, 0);
    CHECK(who.groups_count >= 1);
    CHECK_OK(identity_find(SLICE("4000000000"), SLICE("77"), &who, error, sizeof error));
    CHECK(who.uid == 4000000000U && who.gid == 77 && who.groups_count == 1);
    CHECK_INT(identity_find(SLICE("4000000000"), SLICE(""), &who, error, sizeof error),
              ERR_NOT_FOUND);
    CHECK_INT(identity_find(SLICE("root"), SLICE("no-such-group"), &who, error, sizeof error),
              ERR_NOT_FOUND);
    CHECK_INT(identity_find(SLICE(""), SLICE(""), &who, error, sizeof error), ERR_INVALID);
    CHECK_OK(identity_of_process(getpid(), &mine));
    CHECK(mine.uid == geteuid() && mine.gid == getegid() && identity_is_mine(&mine));
    CHECK_INT(mine.groups_count, getgroups(0, NULL));
    CHECK(identity_of_process(0x7ffffff0, &mine) != OK);
}

/* --- entering --- */

/* A copy of sleep(1) that is root's and set-user-ID, run by nobody; 0: it cannot be had here. */
static pid_t start_raised(char *folder)
{
    char path[128];
    char evil[] = "LD_PRELOAD=evil.so", *environment[] = {evil, NULL};
    struct identity who;
    CHECK(mkdtemp(folder) != NULL && chmod(folder, 0755) == 0);
    snprintf(path, sizeof path, "%s/sleep", folder);
    pid_t pid = fork();
    if (pid == 0) {
        execlp("cp", "cp", "/bin/sleep", path, (char *)NULL);
        _exit(1);
    }
    CHECK_INT(waitpid(pid, NULL, 0), pid);
    CHECK_INT(chmod(path, 04755), 0);
    pid = fork();
    if (pid == 0) {
        if (setgid(65534) == 0 && setuid(65534) == 0)
            execle(path, path, "30", (char *)NULL, environment);
        _exit(1);
    }
    for (int i = 0; i < 500; i++, usleep(2000)) /* until it is the other program */
        if (identity_of_process(pid, &who) == OK && who.uid == 0 && who.gid == 65534)
            return pid;
    kill(pid, SIGKILL);
    CHECK_INT(waitpid(pid, NULL, 0), pid);
    return 0;
}

/* As `portico service exec` does; the status that it ends with, 100 and more: refused. */
static int enter_and_exit(pid_t program)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        char error[256] = "", shell[] = "/bin/sh", flag[] = "-c", text[] = "exit 7";
        char *argv[] = {shell, flag, text, NULL};
        (void)!service_enter(program, 0, false, argv, error, sizeof error);
        _exit(strstr(error, "more rights") != NULL ? 100 : 101);
    }
    CHECK_INT(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void end_process(pid_t pid)
{
    kill(pid, SIGKILL);
    CHECK_INT(waitpid(pid, NULL, 0), pid);
}

TEST("a command is run beside a program, but not as root beside one that its user has raised")
{
    char folder[] = "/tmp/portico-raised-XXXXXX", path[128];
    pid_t plain = fork();
    if (plain == 0)
        for (;;)
            pause();
    CHECK_INT(enter_and_exit(plain), 7);
    end_process(plain);
    CHECK(enter_and_exit(plain) > 100); /* it is gone */
    if (geteuid() != 0)
        test_skip("only root makes set-user-ID programs of root's");
    pid_t raised = start_raised(folder);
    int status = raised != 0 ? enter_and_exit(raised) : -1;
    if (raised != 0)
        end_process(raised);
    snprintf(path, sizeof path, "%s/sleep", folder);
    CHECK(unlink(path) == 0 && rmdir(folder) == 0);
    if (raised == 0)
        test_skip("set-user-ID counts for nothing in /tmp here");
    CHECK_INT(status, 100);
}
