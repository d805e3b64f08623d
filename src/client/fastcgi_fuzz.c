/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as what a FastCGI server sends: the first byte says in which pieces, and whether the
 * request was HEAD. Whatever comes, reading ends, a body is no longer than what was sent, and nothing
 * is left behind.
 */
#include "client/answer_fuzzing.h"
#include "client/fastcgi_answer.h"

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

static void ask(struct link *link)
{
    struct client_answer *a = fastcgi_answer_begin(link, &play.arena, 16384, true);
    read_all(a);
    fastcgi_answer_end(a);
}
