/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree of control groups is systemd's where that runs: only a group that it marks as delegated
 * (Delegate=yes: an extended attribute) may be divided further. Without systemd, as in a container,
 * the group is ours when it can be written. Names hold the keeper's number, when it began, since
 * numbers are given anew, and the instance, so that two keepers, or an old and a new one, do not meet.
 */
#include "services/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/text.h"
#include "services/process_tree.h"

#define CGROUP2_MAGIC 0x63677270
#define CPU_PERIOD_US UINT64_C(100000)

enum { REMOVALS = 250 /* of 2 ms: killed processes of a busy machine go slowly */, PATH_CAP = 4096 };

/* --- files of a group --- */

static bool put(int folder, const char *file, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static bool put(int folder, const char *file, const char *format, ...)
{
    char text[128];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    int fd = openat(folder, file, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = write(fd, text, (size_t)len);
    int e = errno;
    close(fd);
    errno = e;
    return n == len;
}

static struct slice take(int folder, const char *file, char *text, size_t cap)
{
    int fd = openat(folder, file, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, cap - 1) : -1;
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    return slice_from(text);
}

static bool has_word(struct slice text, const char *word)
{
    struct slice line, one;
    while (text.len > 0) {
        slice_cut(text, '\n', &line, &text);
        while (line.len > 0) {
            slice_cut(line, ' ', &one, &line);
            if (slice_is(one, word))
                return true;
        }
    }
    return false;
}

/* --- the keeper's own group --- */

/* Where version 2 is mounted, by /proc/self/mountinfo; the first one. */
static bool find_mount(char *out, size_t cap)
{
    char line[PATH_CAP];
    FILE *f = fopen("/proc/self/mountinfo", "re");
    bool found = false;
    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL) {
        char root[512], point[1024];
        found = strstr(line, " - cgroup2 ") != NULL &&
                sscanf(line, "%*s %*s %*s %511s %1023s", root, point) == 2;
        if (found)
            snprintf(out, cap, "%s", point);
    }
    if (f != NULL)
        fclose(f);
    return found;
}

bool cgroup_controllers(char *names, size_t cap)
{
    char mount[1024];
    int folder = find_mount(mount, sizeof mount) ? open(mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    names[0] = '\0';
    if (folder < 0)
        return false;
    (void)take(folder, "cgroup.controllers", names, cap);
    names[strcspn(names, "\n")] = '\0';
    close(folder);
    return true;
}

/* The line "0::/path" of /proc/self/cgroup. */
static bool find_path(char *out, size_t cap)
{
    char line[PATH_CAP];
    FILE *f = fopen("/proc/self/cgroup", "re");
    bool found = false;
    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        found = strncmp(line, "0::/", 4) == 0 && strstr(line, "/../") == NULL;
        if (found)
            snprintf(out, cap, "%s", line + 3);
    }
    if (f != NULL)
        fclose(f);
    return found;
}

static bool is_delegated(int folder)
{
    static const char *const marks[] = {"trusted.delegate", "user.delegate"};
    char value[8] = "";
    if (access("/run/systemd/system", F_OK) != 0)
        return true;
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        if (fgetxattr(folder, marks[i], value, sizeof value - 1) > 0 && value[0] == '1')
            return true;
    }
    return false;
}

static int open_own(struct cgroups *g)
{
    char mount[1024], path[PATH_CAP], whole[PATH_CAP + 1024];
    struct statfs fs;
    if (!find_mount(mount, sizeof mount) || !find_path(path, sizeof path)) {
        snprintf(g->why, sizeof g->why, "this machine has no control groups of version 2");
        return -1;
    }
    snprintf(whole, sizeof whole, "%s%s", mount, path);
    int fd = open(whole, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstatfs(fd, &fs) != 0 || (unsigned long)fs.f_type != CGROUP2_MAGIC) {
        snprintf(g->why, sizeof g->why, "its own control group is not to be seen");
    } else if (faccessat(fd, ".", W_OK, AT_EACCESS) != 0 || !is_delegated(fd)) {
        snprintf(g->why, sizeof g->why, "its own control group is not delegated to it (Delegate=yes "
                 "in the unit)");
    } else {
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Processes of the group, to one below it. */
static void move_processes(int folder)
{
    char text[PATH_CAP];
    if (mkdirat(folder, "keeper", 0755) != 0 && errno != EEXIST)
        return;
    for (int round = 0; round < 10; round++) {
        struct slice line, rest = take(folder, "cgroup.procs", text, sizeof text);
        if (rest.len == 0)
            return;
        while (slice_cut(rest, '\n', &line, &rest)) /* whole lines: half a number is another one's */
            (void)put(folder, "keeper/cgroup.procs", SLICE_FMT "\n", SLICE_ARG(line));
    }
}

/* What a pid means depends on the namespace that counts it. */
static unsigned long long pid_namespace(void)
{
    struct stat s;
    return stat("/proc/self/ns/pid", &s) == 0 ? (unsigned long long)s.st_ino : 0;
}

/* Its start, in ticks since the machine's: /proc/PID/stat's 22nd field, the 20th behind the name. 0: it
 * is not to be seen. */
static uint64_t began(pid_t pid)
{
    char path[64], text[1024];
    struct slice word, rest = SLICE_NONE;
    uint64_t ticks = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (!proc_is_ours() || take(AT_FDCWD, path, text, sizeof text).len == 0 || strrchr(text, ')') == NULL)
        return 0;
    rest = slice_from(strrchr(text, ')'));
    for (int i = 0; i <= 20; i++)
        slice_cut(rest, ' ', &word, &rest);
    return slice_to_u64(word, UINT64_MAX, &ticks) ? ticks : 0;
}

static bool is_there(pid_t pid, uint64_t start)
{
    if (kill(pid, 0) != 0 && errno == ESRCH)
        return false;
    uint64_t now = began(pid);
    return now == 0 || now == start;
}

/* "portico.NAMESPACE.PID.START.…", of a keeper that is gone. */
static bool is_left_over(const char *name)
{
    uint64_t namespace, pid, start;
    struct slice head, rest = slice_from(name);
    if (!slice_cut(rest, '.', &head, &rest) || !slice_is(head, "portico"))
        return false;
    slice_cut(rest, '.', &head, &rest);
    if (!slice_to_u64(head, UINT64_MAX, &namespace) || namespace == 0 ||
        namespace != pid_namespace())
        return false;
    slice_cut(rest, '.', &head, &rest);
    if (!slice_to_u64(head, INT32_MAX, &pid) || pid == 0)
        return false;
    slice_cut(rest, '.', &head, &rest);
    return slice_to_u64(head, UINT64_MAX, &start) && !is_there((pid_t)pid, start);
}

static void end_left_over(int folder, const char *name)
{
    int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cgroup_kill(fd);
    if (fd >= 0)
        close(fd);
    for (int i = 0; i < REMOVALS && unlinkat(folder, name, AT_REMOVEDIR) != 0 && errno == EBUSY; i++)
        usleep(2000);
}

static void end_left_overs(int folder)
{
    int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = copy >= 0 ? fdopendir(copy) : NULL;
    for (const struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        if (is_left_over(e->d_name))
            end_left_over(folder, e->d_name);
    }
    if (d != NULL)
        closedir(d);
}

static bool enable(int folder, const char *controller)
{
    char text[1024];
    return has_word(take(folder, "cgroup.controllers", text, sizeof text), controller) &&
           put(folder, "cgroup.subtree_control", "+%s", controller);
}

void cgroups_init_at(struct cgroups *g, int folder)
{
    *g = (struct cgroups){.folder = folder};
    end_left_overs(folder);
}

/* When the first program with limits comes: others need no process to be moved. */
static void prepare(struct cgroups *g)
{
    char controllers[1024];
    g->prepared = true;
    /* The root has processes and hands controllers on all the same, and its processes are not ours. */
    if (faccessat(g->folder, "cgroup.type", F_OK, 0) == 0 &&
        take(g->folder, "cgroup.controllers", controllers, sizeof controllers).len > 0)
        move_processes(g->folder);
    g->memory = enable(g->folder, "memory");
    g->cpu = enable(g->folder, "cpu");
    g->tasks = enable(g->folder, "pids");
    snprintf(g->why, sizeof g->why, "its own control group was given no such controller");
}

void cgroups_init(struct cgroups *g)
{
    *g = (struct cgroups){.folder = -1};
    int folder = open_own(g);
    if (folder >= 0)
        cgroups_init_at(g, folder);
}

void cgroups_deinit(struct cgroups *g)
{
    if (g->folder >= 0)
        close(g->folder);
    g->folder = -1;
}

/* --- a program's --- */

static enum err refuse(const struct cgroups *g, const char *limit, char *error, size_t cap)
{
    snprintf(error, cap, "limits: %s is not to be had here: %s", limit, g->why);
    return ERR_UNSUPPORTED;
}

static enum err check(struct cgroups *g, const struct launch *l, char *error, size_t cap)
{
    if (g->folder >= 0 && !g->prepared && (l->memory > 0 || l->cpu > 0 || l->tasks > 0))
        prepare(g);
    if (l->memory > 0 && !g->memory)
        return refuse(g, "memory", error, cap);
    if (l->cpu > 0 && !g->cpu)
        return refuse(g, "cpu", error, cap);
    if (l->tasks > 0 && !g->tasks)
        return refuse(g, "tasks", error, cap);
    return OK;
}

static bool limit(int folder, const struct launch *l)
{
    uint64_t quota = (uint64_t)(l->cpu * (double)CPU_PERIOD_US);
    if (l->memory > 0 && (!put(folder, "memory.max", "%llu", (unsigned long long)l->memory) ||
                          !put(folder, "memory.oom.group", "1")))
        return false;
    if (l->memory > 0)
        (void)put(folder, "memory.swap.max", "0"); /* where the kernel counts swap */
    if (l->tasks > 0 && !put(folder, "pids.max", "%llu", (unsigned long long)l->tasks))
        return false;
    return l->cpu <= 0 || put(folder, "cpu.max", "%llu %llu",
                              (unsigned long long)(quota > 1000 ? quota : 1000),
                              (unsigned long long)CPU_PERIOD_US);
}

static void name_group(char *out, size_t cap, struct slice service, uint32_t replica,
                       uint64_t instance)
{
    snprintf(out, cap, "portico.%llu.%d.%llu." SLICE_FMT ".%u.%016llx", pid_namespace(),
             (int)getpid(), (unsigned long long)began(getpid()), SLICE_ARG(service), replica,
             (unsigned long long)instance);
}

enum err cgroup_create(struct cgroups *g, const struct launch *l, uint64_t instance,
                       int *folder, char *error, size_t cap)
{
    char name[192];
    *folder = -1;
    TRY(check(g, l, error, cap));
    if (g->folder < 0)
        return OK;
    name_group(name, sizeof name, l->service, l->replica, instance);
    bool made = mkdirat(g->folder, name, 0755) == 0 || errno == EEXIST;
    *folder = made ? openat(g->folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (*folder >= 0 && limit(*folder, l))
        return OK;
    int e = errno;
    cgroup_remove(*folder);
    *folder = -1;
    if (l->memory == 0 && l->tasks == 0 && l->cpu <= 0)
        return OK; /* it ends well without */
    snprintf(error, cap, "limits: the control group refuses: %s", strerror(e));
    return err_from_errno(e);
}

void cgroup_kill(int folder)
{
    if (folder >= 0)
        (void)put(folder, "cgroup.kill", "1"); /* Linux 5.14; else the tree is walked */
}

void cgroup_end(const struct cgroups *g, struct slice service, uint32_t replica, uint64_t instance)
{
    char name[192];
    name_group(name, sizeof name, service, replica, instance);
    int folder = g->folder >= 0 ? openat(g->folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    cgroup_kill(folder);
    cgroup_remove(folder);
}

void cgroup_why(int folder, char *text, size_t cap)
{
    char events[1024];
    struct slice line, rest;
    text[0] = '\0';
    if (folder < 0)
        return;
    rest = take(folder, "memory.events", events, sizeof events);
    while (rest.len > 0) {
        slice_cut(rest, '\n', &line, &rest);
        if (slice_starts(line, SLICE("oom_kill ")) && !slice_is(line, "oom_kill 0"))
            snprintf(text, cap, "it used more memory than its limit");
    }
}

void cgroup_remove(int folder)
{
    char link[64], path[PATH_CAP] = "";
    if (folder < 0)
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t n = readlink(link, path, sizeof path - 1);
    close(folder);
    for (int i = 0; n > 0 && i < REMOVALS && rmdir(path) != 0 && errno == EBUSY; i++)
        usleep(2000); /* the last of it is being put away */
}
