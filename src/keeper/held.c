/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A listening socket stays open here while the configuration wants its address: a server that
 * crashed, or is replaced, gets the same ones, and no queued connection is reset.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "keeper/keeper_parts.h"
#include "keeper/powers.h"

enum { OWN_MAX = 4096, INHERITED_MAX = 1024 };

static struct held *find_held(struct keeper *k, const struct keeper_message *m)
{
    for (unsigned i = 0; i < LISTENERS_MAX; i++) {
        struct held *h = &k->held[i];
        if (h->used && h->asked_port == m->port && strcmp(h->network, m->network) == 0 &&
            strcmp(h->host, m->host) == 0)
            return h;
    }
    return NULL;
}

static struct held *free_held(struct keeper *k)
{
    for (unsigned i = 0; i < LISTENERS_MAX; i++) {
        if (!k->held[i].used)
            return &k->held[i];
    }
    return NULL;
}

static void release(struct held *h)
{
    for (unsigned i = 0; i < h->count; i++)
        close(h->fds[i]);
    if (network_is_unix(slice_from(h->network)) && h->host[0] != '@') {
        h->host[strcspn(h->host, "|")] = '\0';
        powers_raise();
        socket_file_remove(&h->file, h->host);
        powers_lower();
    }
    h->used = false;
}

/* The inodes of all sockets that are held, so that they are not taken for somebody else's. */
static size_t own_inodes(const struct keeper *k, ino_t *out, size_t room)
{
    size_t count = 0;
    struct stat s;
    for (unsigned i = 0; i < LISTENERS_MAX; i++) {
        const struct held *h = &k->held[i];
        for (unsigned j = 0; h->used && j < h->count && count < room; j++) {
            if (fstat(h->fds[j], &s) == 0)
                out[count++] = s.st_ino;
        }
    }
    return count;
}

/* What the keeper was started with; descriptors of its own are nobody's to ask for. */
static uint64_t inherited[INHERITED_MAX / 64];

static bool was_inherited(struct slice number)
{
    uint64_t n;
    return slice_to_u64(number, INHERITED_MAX - 1, &n) && (inherited[n / 64] >> (n % 64) & 1) != 0;
}

static void open_held(struct keeper *k, const struct keeper_message *m, struct keeper_message *answer)
{
    struct held *h = free_held(k);
    if (h == NULL) {
        answer->error = ERR_LIMIT;
        snprintf(answer->text, sizeof answer->text, "more than %d listen addresses", LISTENERS_MAX);
        return;
    }
    memset(h, 0, sizeof *h);
    struct slice network = slice_from(m->network);
    bool single = network_is_unix(network) || network_is_fd(network);
    static ino_t own[OWN_MAX];
    struct listen_request r = {network, slice_from(m->host), m->port, single ? 1 : m->count, own,
                               own_inodes(k, own, OWN_MAX)};
    r.uid = geteuid() == 0 ? m->uid : 0;
    r.gid = m->gid;
    r.file = &h->file;
    r.no_descriptor = network_is_fd(network) && !was_inherited(r.host);
    answer->error = listen_open(&r, h->fds, &h->port, answer->text, sizeof answer->text);
    if (answer->error != OK)
        return;
    memcpy(h->network, m->network, sizeof h->network);
    memcpy(h->host, m->host, sizeof h->host);
    h->asked_port = m->port;
    h->count = r.count;
    h->used = true;
}

void held_listen(struct keeper *k, const struct keeper_message *m)
{
    struct keeper_message answer = {.kind = KEEPER_SOCKETS};
    struct held *h = find_held(k, m);
    if (m->count == 0 || m->count > KEEPER_FDS) {
        answer.error = ERR_INVALID;
    } else if (h == NULL) {
        powers_raise();
        open_held(k, m, &answer);
        powers_lower();
        h = answer.error == OK ? find_held(k, m) : NULL;
    }
    if (h != NULL) {
        h->wanted = true;
        answer.port = h->port;
        answer.count = (uint16_t)h->count;
    }
    (void)!keeper_send(k->server.wire.fd, &answer, h != NULL ? h->fds : NULL, h != NULL ? h->count : 0);
}

void held_release(struct keeper *k, const struct keeper_message *m)
{
    struct keeper_message answer = {.kind = KEEPER_SOCKETS};
    struct held *h = find_held(k, m);
    if (h != NULL)
        release(h);
    (void)!keeper_send(k->server.wire.fd, &answer, NULL, 0);
}

void held_forget_wishes(struct keeper *k)
{
    for (unsigned i = 0; i < LISTENERS_MAX; i++)
        k->held[i].wanted = false;
}

void held_release_all(struct keeper *k)
{
    for (unsigned i = 0; i < LISTENERS_MAX; i++) {
        if (k->held[i].used)
            release(&k->held[i]);
    }
}

/* What a crashed server had and its successor did not ask for again. */
void held_release_unwanted(struct keeper *k)
{
    for (unsigned i = 0; i < LISTENERS_MAX; i++) {
        if (k->held[i].used && !k->held[i].wanted)
            release(&k->held[i]);
    }
}

void held_handed_over(void)
{
    uint64_t count, pid;
    struct stat s;
    for (int fd = 3; fd < INHERITED_MAX; fd++) {
        if (fstat(fd, &s) == 0 && S_ISSOCK(s.st_mode))
            inherited[fd / 64] |= UINT64_C(1) << (fd % 64);
    }
    const char *fds = getenv("LISTEN_FDS"), *to = getenv("LISTEN_PID");
    if (fds == NULL || to == NULL || !slice_to_u64(slice_from(fds), 1000, &count) ||
        !slice_to_u64(slice_from(to), INT32_MAX, &pid) || (pid_t)pid != getpid())
        return;
    for (int fd = 3; fd < 3 + (int)count; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
}
