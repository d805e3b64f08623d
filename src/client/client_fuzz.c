/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as what an upstream sends: the first byte says in which pieces, and whether the request
 * was HEAD. Whatever comes, reading ends, a body is no longer than what was sent, and nothing is
 * left behind.
 */
#include "client/answer_fuzzing.h"

static void read_all(struct client_answer *a)
{
    size_t total = 0, all = play.left.len;
    do {
        send_next();
        enum err e = client_read_head(a, play.to_head, 1);
        if (e != OK && e != ERR_TIMEOUT)
            return;
        if (e == ERR_TIMEOUT)
            continue;
    } while (a->head.status < 200 && a->head.status != 101 && play.peer >= 0);
    while (a->head.status >= 200 && !a->done) {
        struct slice piece;
        send_next();
        enum err e = client_read_body(a, 1, &piece);
        if (e != OK && e != ERR_TIMEOUT)
            return;
        total += e == OK ? piece.len : 0;
    }
    ASSERT(total <= all);
}

static void ask(struct link *link)
{
    struct client_answer *a = client_answer_begin(link, &play.arena, 16384);
    read_all(a);
    client_answer_end(a);
}
