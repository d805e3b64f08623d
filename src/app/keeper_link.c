/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orders and answers come over one socket and are told apart by their kind. An answer is waited for
 * on the spot, since nothing that a configuration needs can go on without it; orders that come
 * before it are handed on, to be kept.
 */
#include "app/keeper_link.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "keeper/keeper.h"

static struct {
    struct loop *loop;
    int fd;
    struct op op;
    keeper_obey *obey;
    void (*gone)(void);
} tie;

enum err keeper_link_init(keeper_obey *obey, void (*gone)(void))
{
    const char *fd = getenv(KEEPER_ENV);
    uint64_t n;
    if (fd == NULL || !slice_to_u64(slice_from(fd), INT32_MAX, &n))
        return ERR_INVALID;
    tie.fd = (int)n;
    tie.obey = obey;
    tie.gone = gone;
    unsetenv(KEEPER_ENV);
    return OK;
}

void keeper_link_tell(enum keeper_kind kind, uint32_t status, const char *text)
{
    struct keeper_message m = {.kind = kind, .status = status};
    snprintf(m.text, sizeof m.text, "%s", text);
    (void)!keeper_send(tie.fd, &m, NULL, 0);
}

enum err keeper_link_pass(enum keeper_kind kind, int fd)
{
    struct keeper_message m = {.kind = kind};
    return keeper_send(tie.fd, &m, &fd, 1);
}

enum err keeper_link_ask(struct keeper_message *m, int *fds, unsigned *got)
{
    unsigned room = *got;
    TRY(keeper_send(tie.fd, m, NULL, 0));
    for (;;) {
        *got = room;
        TRY(keeper_receive(tie.fd, m, fds, got, 0));
        if (m->kind == KEEPER_SOCKETS)
            return OK;
        tie.obey(m->kind);
    }
}

static void hear(void)
{
    struct keeper_message m;
    unsigned none = 0;
    enum err e = keeper_receive(tie.fd, &m, NULL, &none, MSG_DONTWAIT);
    if (e == ERR_CLOSED)
        tie.gone();
    if (e == OK)
        tie.obey(m.kind);
}

static void on_keeper(struct op *op, int result)
{
    (void)op;
    if (result < 0)
        return;
    hear();
    keeper_link_watch(tie.loop);
}

void keeper_link_watch(struct loop *loop)
{
    tie.loop = loop;
    tie.op.on_done = on_keeper;
    op_poll(loop, &tie.op, tie.fd, POLLIN);
}

void keeper_link_unwatch(struct loop *loop)
{
    op_cancel(loop, &tie.op);
}
