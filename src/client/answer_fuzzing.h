/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzzers of answers share: a link to an upstream that sends any bytes, in pieces as the input's
 * first byte says, which says as well whether the request was HEAD. The fuzzer that includes this has
 * ask(), which reads one answer on a fiber; whatever comes, that ends, and nothing is left behind.
 */
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "client/client_answer.h"
#include "loop/await.h"
#include "upstream/iobuf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ask(struct link *);

static struct {
    struct slice left;
    size_t piece;
    bool to_head;
    int peer;
    struct arena arena;
} play;

/* The next piece, and the end behind the last one. */
static void send_next(void)
{
    struct slice part = slice_take(play.left, play.piece);
    play.left = slice_skip(play.left, part.len);
    if (part.len > 0)
        (void)!write(play.peer, part.ptr, part.len);
    if (play.left.len == 0 && play.peer >= 0) {
        close(play.peer);
        play.peer = -1;
    }
}

static void run_fiber(void *link)
{
    (void)!await_yield(); /* the loop shall run when it is stopped */
    ask(link);
    link_close(link);
    loop_stop(loop_self());
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct link_limits limits;
    static struct loop *loop;
    int fd[2];
    if (size < 2 || size > 100000 || (loop == NULL && loop_create(LOOP_EPOLL, &loop) != OK))
        return 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd) != 0)
        return 0;
    play.left = slice_of((const char *)data + 1, size - 1);
    play.piece = (data[0] & 0x7f) > 0 ? (size_t)(data[0] & 0x7f) * 8 : size;
    play.to_head = data[0] >> 7;
    play.peer = fd[1];
    arena_init(&play.arena, 4096);
    struct endpoint *e = endpoint_ref(SLICE("x"));
    ASSERT(link_reserve(e, &limits));
    ASSERT(fiber_start(loop, run_fiber, link_open(SLICE("x"), e, fd[0])) == OK);
    loop_run(loop);
    loop_settle(loop);
    if (play.peer >= 0)
        close(play.peer);
    ASSERT(e->refs == 1);
    endpoint_unref(e);
    arena_deinit(&play.arena);
    links_thread_deinit();
    client_thread_deinit();
    iobuf_thread_deinit();
    return 0;
}
