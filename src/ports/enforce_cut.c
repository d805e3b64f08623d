/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is connected now and would not be let in again. Established connections pass our rules, but
 * only those that the kernel's connection tracking has seen from their first packet: where nothing
 * tracked them before, the very first rules would cut them. So whoever could not come again counts
 * as cut, and the connection by which the operator is here first of all.
 */
#include <dirent.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ports/enforce.h"
#include "ports/ledger.h"

enum { CHUNK = 65536, SENTENCES_MAX = 100, PEERS_MAX = 200000, PORTS = 65536 };

struct peer {
    struct ip_address address, here;
    uint16_t port, here_port;
    uint32_t inode;
};

struct found {
    struct arena *arena;
    struct peer *peers;
    size_t count, room;
    bool *listening; /* by port */
};

static struct ip_address address_of(uint8_t family, const uint32_t words[4])
{
    static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};
    struct ip_address a = {.is_six = family == AF_INET6};
    memcpy(a.bytes, words, a.is_six ? 16 : 4);
    if (a.is_six && memcmp(a.bytes, prefix, sizeof prefix) == 0) {
        a = (struct ip_address){0};
        memcpy(a.bytes, (const char *)words + 12, 4);
    }
    return a;
}

static void keep(struct found *f, const struct inet_diag_msg *m)
{
    if (m->idiag_state == TCP_LISTEN) {
        f->listening[ntohs(m->id.idiag_sport)] = true;
        return;
    }
    if (f->count == f->room && f->room < PEERS_MAX) {
        f->room = f->room == 0 ? 64 : 2 * f->room;
        struct peer *more = ARENA_ARRAY(f->arena, struct peer, f->room);
        if (f->count > 0)
            memcpy(more, f->peers, f->count * sizeof *more);
        f->peers = more;
    }
    if (f->count < f->room)
        f->peers[f->count++] =
            (struct peer){.address = address_of(m->idiag_family, m->id.idiag_dst),
                          .here = address_of(m->idiag_family, m->id.idiag_src),
                          .port = ntohs(m->id.idiag_dport),
                          .here_port = ntohs(m->id.idiag_sport),
                          .inode = m->idiag_inode};
}

static enum err take(struct found *f, struct slice bytes, bool *done)
{
    while (bytes.len >= sizeof(struct nlmsghdr)) {
        struct nlmsghdr h;
        struct inet_diag_msg m;
        memcpy(&h, bytes.ptr, sizeof h);
        if (h.nlmsg_len < sizeof h || h.nlmsg_len > bytes.len)
            return ERR_INVALID;
        if (h.nlmsg_type == NLMSG_DONE || h.nlmsg_type == NLMSG_ERROR) {
            *done = true;
            return h.nlmsg_type == NLMSG_DONE ? OK : ERR_IO;
        }
        if (h.nlmsg_len >= sizeof h + sizeof m) {
            memcpy(&m, bytes.ptr + sizeof h, sizeof m);
            keep(f, &m);
        }
        bytes = slice_skip(bytes, NLMSG_ALIGN(h.nlmsg_len));
    }
    return OK;
}

static enum err dump(struct found *f, uint8_t family)
{
    struct {
        struct nlmsghdr h;
        struct inet_diag_req_v2 r;
    } ask = {{sizeof ask, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0},
             {.sdiag_family = family,
              .sdiag_protocol = IPPROTO_TCP,
              .idiag_states = 1 << TCP_ESTABLISHED | 1 << TCP_LISTEN}};
    static _Thread_local char bytes[CHUNK];
    bool done = false;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    enum err e = fd < 0 || send(fd, &ask, sizeof ask, 0) != sizeof ask ? err_from_errno(errno) : OK;
    while (e == OK && !done) {
        ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        e = n < 0 ? err_from_errno(errno) : take(f, slice_of(bytes, (size_t)n), &done);
    }
    if (fd >= 0)
        close(fd);
    return e;
}

/* The program that holds a socket: only for the few that are told. */
static bool holds(const char *pid, const char *socket)
{
    char path[600], target[64];
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *fds = opendir(path);
    bool found = false;
    for (struct dirent *d; fds != NULL && !found && (d = readdir(fds)) != NULL;) {
        snprintf(path, sizeof path, "/proc/%s/fd/%s", pid, d->d_name);
        ssize_t n = readlink(path, target, sizeof target - 1);
        found = n > 0 && slice_eq(slice_of(target, (size_t)n), slice_from(socket));
    }
    if (fds != NULL)
        closedir(fds);
    return found;
}

static struct slice program_of(uint32_t inode, struct arena *arena)
{
    char socket[40], path[300], name[32];
    DIR *processes = opendir("/proc");
    struct slice program = SLICE_NONE;
    snprintf(socket, sizeof socket, "socket:[%u]", inode);
    for (struct dirent *d; processes != NULL && program.len == 0 && (d = readdir(processes)) != NULL;) {
        if (d->d_name[0] < '0' || d->d_name[0] > '9' || !holds(d->d_name, socket))
            continue;
        snprintf(path, sizeof path, "/proc/%s/comm", d->d_name);
        FILE *f = fopen(path, "re");
        if (f != NULL && fgets(name, sizeof name, f) != NULL)
            program = clean_text(slice_trim(slice_from(name)), arena);
        if (f != NULL)
            fclose(f);
    }
    if (processes != NULL)
        closedir(processes);
    return program;
}

/* $SSH_CONNECTION: "192.0.2.7 51234 192.0.2.1 22". */
static bool is_operators(const struct peer *p)
{
    char text[IP_TEXT_MAX], all[80];
    const char *ssh = getenv("SSH_CONNECTION");
    size_t n = ip_text(&p->address, text);
    snprintf(all, sizeof all, "%.*s %u ", (int)n, text, p->port);
    return ssh != NULL && slice_starts(slice_from(ssh), slice_from(all));
}

static struct slice sentence(const struct peer *p, struct arena *arena)
{
    char text[IP_TEXT_MAX];
    struct slice program = program_of(p->inode, arena);
    struct slice from = slice_of(text, ip_text(&p->address, text));
    return arena_printf(arena, "%s" SLICE_FMT " (port %u) is connected to port %u%s" SLICE_FMT
                        "%s, and would not be let in again",
                        is_operators(p) ? "your own session: " : "", SLICE_ARG(from), p->port,
                        p->here_port, program.len > 0 ? " (" : "", SLICE_ARG(program),
                        program.len > 0 ? ")" : "");
}

/* Comes in, and not from this machine. */
static bool comes_in(const struct found *f, const struct peer *p)
{
    bool loops = p->address.is_six ? memcmp(p->address.bytes, (const uint8_t[16]){[15] = 1}, 16) == 0
                                   : p->address.bytes[0] == 127;
    return f->listening[p->here_port] && !loops && memcmp(&p->address, &p->here, sizeof p->here) != 0;
}

static int rank(const struct peer *p)
{
    return is_operators(p) ? 0 : p->here_port == 22 ? 1 : 2;
}

enum err enforce_would_cut(const struct enforce_plan *plan, struct arena *arena,
                           struct slice **sentences, size_t *n)
{
    struct found f = {.arena = arena};
    f.listening = ARENA_ARRAY(arena, bool, PORTS);
    *sentences = ARENA_ARRAY(arena, struct slice, SENTENCES_MAX);
    *n = 0;
    TRY(dump(&f, AF_INET));
    enum err six = dump(&f, AF_INET6);
    if (six != OK && f.count == 0)
        return six;
    for (int turn = 0; turn < 3; turn++) {
        for (size_t i = 0; i < f.count && *n < SENTENCES_MAX; i++) {
            const struct peer *p = &f.peers[i];
            if (rank(p) == turn && comes_in(&f, p) &&
                !enforce_allows(plan, PORT_TCP, p->here_port, &p->address))
                (*sentences)[(*n)++] = sentence(p, arena);
        }
    }
    return OK;
}
