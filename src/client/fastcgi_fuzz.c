/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as what a FastCGI server sends: the first byte says in which pieces, and whether the
 * request was HEAD. Whatever comes, reading ends, a body is no longer than what was sent, and nothing
 * is left behind.
 */
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "client/fastcgi_answer.h"
#include "loop/await.h"
#include "upstream/iobuf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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

static void read_all(struct client_answer *a)
{
    size_t total = 0, all = play.left.len;
    enum err e;
    do {
        send_next();
        e = fastcgi_read_head(a, play.to_head, 1);
        if (e != OK && e != ERR_TIMEOUT)
            return;
    } while (e == ERR_TIMEOUT);
    ASSERT(a->head.status >= 200 && a->head.status <= 999);
    while (!a->done) {
        struct slice piece;
        send_next();
        e = fastcgi_read_body(a, 1, &piece);
        if (e != OK && e != ERR_TIMEOUT)
            return;
        total += e == OK ? piece.len : 0;
    }
    ASSERT(total <= all);
    ASSERT(a->head.body != H1_BODY_NONE || total == 0);
    ASSERT(a->head.body != H1_BODY_LENGTH || total == a->head.content_length);
}

static void run_fiber(void *link)
{
    (void)!await_yield(); /* the loop shall run when it is stopped */
    struct client_answer *a = fastcgi_answer_begin(link, &play.arena, 16384, true);
    read_all(a);
    fastcgi_answer_end(a);
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
