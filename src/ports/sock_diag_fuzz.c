/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as an answer of the socket diagnostics: what comes out is in range, and the same bytes
 * in two pieces at a message's edge give the same sockets.
 */
#include "base/check.h"
#include "ports/sock_diag.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct socket_list l = {0}, again = {0};
    struct diag_reply r = {.sequence = 7, .protocol = PORT_SCTP}, r2 = r;
    struct slice all = slice_of((const char *)data, size);
    enum err e = diag_parse(all, &r, &l);
    ASSERT(e == OK || e == ERR_INVALID);
    for (size_t i = 0; i < l.count; i++) {
        const struct bound_socket *s = &l.items[i];
        ASSERT(s->port != 0 && s->family <= PORT_DUAL && s->row == 0 && s->address.is_six <= 1);
        ASSERT((s->family == PORT_IP4) == (s->address.is_six == 0));
    }
    uint32_t first = 0;
    if (size >= sizeof first)
        memcpy(&first, data, sizeof first);
    if (first >= 16 && first <= size && first % 4 == 0) {
        enum err e2 = diag_parse(slice_take(all, first), &r2, &again);
        if (e2 == OK)
            e2 = diag_parse(slice_skip(all, first), &r2, &again);
        ASSERT(e2 == e && again.count == l.count && r2.done == r.done && r2.error == r.error);
    }
    socket_list_deinit(&l);
    socket_list_deinit(&again);
    return 0;
}
