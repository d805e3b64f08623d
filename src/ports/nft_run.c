/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input is a memory file, so that only output has to be read while nft runs. Its group of processes
 * is killed when it takes too long.
 */
#include "ports/nft_run.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd_write.h"
#include "pki/tool.h"

enum { CHUNK = 65536, SAID_MAX = 4096 };

extern char **environ;

static int input_file(struct slice input)
{
    int fd = memfd_create("nft", MFD_CLOEXEC);
    if (fd < 0)
        return -1;
    if (fd_write_all(fd, input) != OK || lseek(fd, 0, SEEK_SET) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int spawn(const char *path, const char *const argv[], int in, int out, int said, pid_t *pid)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, in, 0);
    posix_spawn_file_actions_adddup2(&files, out, 1);
    posix_spawn_file_actions_adddup2(&files, said, 2);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all); /* what we ignore is not ignored there */
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                              POSIX_SPAWN_SETSIGDEF);
    int e = posix_spawn(pid, path, &files, &attributes, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    return e;
}

/* Reads both pipes until they end. What is beyond a buffer's cap is read and lost. */
static enum err collect(int out, int said, struct buffer *output, struct buffer *words)
{
    struct pollfd p[2] = {{.fd = out, .events = POLLIN}, {.fd = said, .events = POLLIN}};
    struct buffer *into[2] = {output, words};
    uint64_t deadline_ns = clock_mono_ns() + NFT_TIMEOUT_S * NS_PER_S, now;
    while (p[0].fd >= 0 || p[1].fd >= 0) {
        if ((now = clock_mono_ns()) > deadline_ns)
            return ERR_TIMEOUT;
        if (poll(p, 2, (int)((deadline_ns - now) / NS_PER_MS) + 1) < 0 && errno != EINTR)
            return ERR_IO;
        for (int i = 0; i < 2; i++) {
            static _Thread_local char chunk[CHUNK];
            ssize_t n = p[i].fd >= 0 && p[i].revents != 0 ? read(p[i].fd, chunk, CHUNK) : -1;
            if (n > 0 && into[i] != NULL)
                buffer_append(into[i], slice_of(chunk, (size_t)n));
            if (n == 0)
                p[i].fd = -1;
        }
    }
    return OK;
}

static void first_line(const struct buffer *words, char *error, size_t cap)
{
    struct slice line, rest;
    slice_cut(slice_trim(buffer_slice(words)), '\n', &line, &rest);
    snprintf(error, cap, "nft: " SLICE_FMT, SLICE_ARG(slice_take(line, 400)));
}

static enum err finish(pid_t pid, enum err e, const struct buffer *words, char *error, size_t cap)
{
    int status = 0;
    if (e != OK)
        kill(-pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (e != OK)
        snprintf(error, cap, "nft did not answer within %d s and was ended", NFT_TIMEOUT_S);
    else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        first_line(words, error, cap);
        e = ERR_FAILED;
    }
    return e;
}

enum err nft_run(const char *const argv[], struct slice input, struct buffer *output, char *error,
                 size_t cap)
{
    char path[512];
    int out[2], said[2];
    pid_t pid = -1;
    if (!tool_find("nft", path, sizeof path)) {
        snprintf(error, cap, "the program nft is not installed (package nftables)");
        return ERR_NOT_FOUND;
    }
    int in = input_file(input);
    if (in < 0 || pipe2(out, O_CLOEXEC) != 0) {
        snprintf(error, cap, "nft could not be started: %s", strerrordesc_np(errno));
        if (in >= 0)
            close(in);
        return ERR_LIMIT;
    }
    if (pipe2(said, O_CLOEXEC) != 0) {
        snprintf(error, cap, "nft could not be started: %s", strerrordesc_np(errno));
        close(in);
        close(out[0]);
        close(out[1]);
        return ERR_LIMIT;
    }
    struct buffer words;
    buffer_init(&words, SAID_MAX);
    int failed = spawn(path, argv, in, out[1], said[1], &pid);
    close(in);
    close(out[1]);
    close(said[1]);
    enum err e = err_from_errno(failed);
    if (failed != 0)
        snprintf(error, cap, "%s could not be started: %s", path, strerrordesc_np(failed));
    else
        e = finish(pid, collect(out[0], said[0], output, &words), &words, error, cap);
    if (e == OK && output != NULL && output->full) {
        snprintf(error, cap, "nft listed more than %zu bytes", output->max);
        e = ERR_LIMIT;
    }
    close(out[0]);
    close(said[0]);
    buffer_deinit(&words);
    return e;
}

/* ---- which tables there are ---- */

static const char *family_name(uint8_t family)
{
    switch (family) {
    case NFPROTO_INET:
        return "inet";
    case NFPROTO_IPV4:
        return "ip";
    case NFPROTO_IPV6:
        return "ip6";
    case NFPROTO_ARP:
        return "arp";
    case NFPROTO_BRIDGE:
        return "bridge";
    case NFPROTO_NETDEV:
        return "netdev";
    }
    return "unknown";
}

static void table_name(struct slice attributes, uint8_t family, struct buffer *names)
{
    while (attributes.len >= sizeof(struct nlattr)) {
        struct nlattr a;
        memcpy(&a, attributes.ptr, sizeof a);
        if (a.nla_len < sizeof a || a.nla_len > attributes.len)
            return;
        if ((a.nla_type & NLA_TYPE_MASK) == NFTA_TABLE_NAME) {
            struct slice name = slice_of(attributes.ptr + sizeof a, a.nla_len - sizeof a);
            size_t end = slice_find(name, '\0');
            buffer_append_f(names, "%s " SLICE_FMT "\n", family_name(family),
                            SLICE_ARG(slice_take(name, end)));
        }
        attributes = slice_skip(attributes, NLA_ALIGN(a.nla_len));
    }
}

enum err nft_tables_parse(struct slice bytes, struct buffer *names, bool *done)
{
    while (bytes.len >= sizeof(struct nlmsghdr)) {
        struct nlmsghdr h;
        memcpy(&h, bytes.ptr, sizeof h);
        if (h.nlmsg_len < sizeof h || h.nlmsg_len > bytes.len)
            return ERR_INVALID;
        struct slice body = slice_of(bytes.ptr + sizeof h, h.nlmsg_len - sizeof h);
        if (h.nlmsg_type == NLMSG_DONE) {
            *done = true;
        } else if (h.nlmsg_type == NLMSG_ERROR) {
            int32_t code = 0;
            if (body.len >= sizeof code)
                memcpy(&code, body.ptr, sizeof code);
            *done = true;
            return code == 0 ? OK : code == -EINVAL || code == -EOPNOTSUPP ? ERR_UNSUPPORTED
                                                                          : err_from_errno(-code);
        } else if (body.len >= sizeof(struct nfgenmsg)) {
            table_name(slice_skip(body, NLMSG_ALIGN(sizeof(struct nfgenmsg))), (uint8_t)body.ptr[0],
                       names);
        }
        bytes = slice_skip(bytes, NLMSG_ALIGN(h.nlmsg_len));
    }
    return OK;
}

enum err nft_tables(struct buffer *names)
{
    struct {
        struct nlmsghdr h;
        struct nfgenmsg g;
    } ask = {{sizeof ask, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE, NLM_F_REQUEST | NLM_F_DUMP, 1, 0},
             {NFPROTO_UNSPEC, NFNETLINK_V0, 0}};
    static _Thread_local char bytes[CHUNK];
    bool done = false;
    enum err e = OK;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (fd < 0)
        return ERR_UNSUPPORTED;
    if (send(fd, &ask, sizeof ask, 0) != sizeof ask)
        e = err_from_errno(errno);
    while (e == OK && !done) {
        ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        e = n < 0 ? err_from_errno(errno) : nft_tables_parse(slice_of(bytes, (size_t)n), names, &done);
    }
    close(fd);
    return e;
}
