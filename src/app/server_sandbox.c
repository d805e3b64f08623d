/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two fences that hold for any configuration that a reload may bring, so nothing of the configuration
 * is in them: they name what no web server does.
 *
 * seccomp refuses (EPERM) to start programs, to trace or read other processes, to mount, to make or
 * enter namespaces, to load code into the kernel, to set clocks and names, and sockets other than
 * Unix, IPv4, IPv6 and netlink ones, or raw ones. It is a list of what is refused, not of what is
 * allowed: a C library that turns to a newer system call goes on working.
 *
 * Landlock (Linux 5.13) refuses to execute any file and to make device nodes, for what reaches the
 * kernel past a system call's number (io_uring); from Linux 6.12 on also signals to other processes.
 * Where the kernel has no Landlock seccomp stands alone.
 */
#include "app/server_sandbox.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"

#if defined(__x86_64__)
#define OUR_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCH AUDIT_ARCH_AARCH64
#endif

enum { X32_BIT = 0x40000000, FILTER_MAX = 256 };

/* New ones have their numbers on every architecture; headers may be older. */
#ifndef SYS_move_mount
#define SYS_move_mount 429
#define SYS_open_tree 428
#define SYS_fsopen 430
#define SYS_fsconfig 431
#define SYS_fsmount 432
#define SYS_fspick 433
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

static const int refused[] = {
    /* programs */
    SYS_execve, SYS_execveat,
    /* other processes */
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_pidfd_getfd, SYS_kcmp,
    /* mounts and roots */
    SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_move_mount, SYS_open_tree, SYS_fsopen,
    SYS_fsconfig, SYS_fsmount, SYS_fspick, SYS_mount_setattr, SYS_swapon, SYS_swapoff,
    SYS_open_by_handle_at, SYS_quotactl, SYS_acct,
    /* namespaces */
    SYS_unshare, SYS_setns,
    /* the kernel's own */
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_bpf, SYS_perf_event_open,
    SYS_userfaultfd, SYS_reboot, SYS_syslog,
    /* keys of the kernel */
    SYS_add_key, SYS_request_key, SYS_keyctl,
    /* clocks and names */
    SYS_settimeofday, SYS_clock_settime, SYS_clock_adjtime, SYS_adjtimex, SYS_sethostname,
    SYS_setdomainname, SYS_personality, SYS_vhangup,
#ifdef SYS_kexec_file_load
    SYS_kexec_file_load,
#endif
#ifdef SYS_iopl
    SYS_iopl, SYS_ioperm, SYS_modify_ldt,
#endif
};

bool sandbox_wanted(const json_t *document)
{
    return json_is_true(json_object_get(json_object_get(document, "portico"), "sandbox"));
}

/* ---- the filter ---- */

struct program {
    struct sock_filter code[FILTER_MAX];
    unsigned short count;
};

static void emit(struct program *p, struct sock_filter f)
{
    if (p->count < FILTER_MAX)
        p->code[p->count++] = f;
}

static void load(struct program *p, size_t offset)
{
    emit(p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

static void give(struct program *p, uint32_t what)
{
    emit(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, what));
}

/* Skips `behind` instructions unless the word that was loaded is `value`. */
static void unless_is(struct program *p, uint32_t value, uint8_t behind)
{
    emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, behind));
}

static const uint32_t refuse = SECCOMP_RET_ERRNO | EPERM;

/* The low half of an argument: flags and numbers that fit into it. */
static size_t argument(unsigned i)
{
    size_t low = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 0 : 4;
    return offsetof(struct seccomp_data, args) + i * sizeof(uint64_t) + low;
}

/* Only families that a server speaks, and none of them raw but netlink's, which knows no other. */
static void put_socket(struct program *p)
{
    static const uint32_t families[] = {AF_UNIX, AF_INET, AF_INET6};
    enum { SOCKET = 14 }; /* the instructions below */
    unless_is(p, SYS_socket, SOCKET);
    load(p, argument(0));
    unless_is(p, AF_NETLINK, 1);
    give(p, SECCOMP_RET_ALLOW);
    for (size_t i = 0; i < 3; i++) /* to the question of the kind */
        emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, families[i], (uint8_t)(3 - i), 0));
    give(p, refuse);
    load(p, argument(1));
    emit(p, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xf));
    unless_is(p, SOCK_RAW, 1);
    give(p, refuse);
    unless_is(p, SOCK_PACKET, 1);
    give(p, refuse);
    give(p, SECCOMP_RET_ALLOW);
}

/* clone with a namespace's flag; clone3 hides its flags behind a pointer, and is answered as by a
 * kernel that does not have it: the C library then uses clone. */
static void put_clone(struct program *p)
{
    const uint32_t namespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                                CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
    unless_is(p, SYS_clone3, 1);
    give(p, SECCOMP_RET_ERRNO | ENOSYS);
    unless_is(p, SYS_clone, 4);
    load(p, argument(0));
    emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, namespaces, 0, 1));
    give(p, refuse);
    give(p, SECCOMP_RET_ALLOW);
}

static void make(struct program *p)
{
    load(p, offsetof(struct seccomp_data, arch));
    emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCH, 1, 0));
    give(p, SECCOMP_RET_KILL_PROCESS);
    load(p, offsetof(struct seccomp_data, nr));
    emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1));
    give(p, refuse);
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        unless_is(p, (uint32_t)refused[i], 1);
        give(p, refuse);
    }
    put_clone(p);
    put_socket(p);
    give(p, SECCOMP_RET_ALLOW);
}

static enum err enter_seccomp(char *error, size_t cap)
{
    struct program p = {.count = 0};
    make(&p);
    struct sock_fprog code = {.len = p.count, .filter = p.code};
    if (p.count < FILTER_MAX &&
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &code) == 0)
        return OK;
    snprintf(error, cap, "sandbox: this kernel takes no seccomp filter: %s", strerrordesc_np(errno));
    return ERR_UNSUPPORTED;
}

/* ---- Landlock ---- */

/* As in linux/landlock.h, which older systems do not have. */
struct landlock_rules {
    uint64_t files, net, scoped;
};

enum {
    LANDLOCK_EXECUTE = 1 << 0,
    LANDLOCK_MAKE_CHAR = 1 << 6,
    LANDLOCK_MAKE_BLOCK = 1 << 11,
    LANDLOCK_SCOPE_SIGNALS = 1 << 1,
};

/* The version of Landlock that holds; 0: none. */
static long enter_landlock(void)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, 1);
    struct landlock_rules r = {.files = LANDLOCK_EXECUTE | LANDLOCK_MAKE_CHAR | LANDLOCK_MAKE_BLOCK};
    size_t size = version >= 6 ? sizeof r : sizeof r.files;
    if (version < 1)
        return 0;
    r.scoped = LANDLOCK_SCOPE_SIGNALS;
    int fd = (int)syscall(SYS_landlock_create_ruleset, &r, size, 0);
    bool held = fd >= 0 && syscall(SYS_landlock_restrict_self, fd, 0) == 0;
    if (fd >= 0)
        close(fd);
    return held ? version : 0;
}

enum err sandbox_enter(char *error, size_t cap)
{
    long landlock = enter_landlock();
    TRY(enter_seccomp(error, cap));
    LOG(LOG_INFO, "", "the server process is in its sandbox", LOG_BOOLEAN("landlock", landlock > 0));
    return OK;
}
