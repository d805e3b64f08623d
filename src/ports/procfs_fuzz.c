/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as what /proc tells: tables of sockets, links, control groups. The first byte chooses.
 */
#include "base/check.h"
#include "ports/containers.h"
#include "ports/proc_net.h"
#include "ports/processes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(struct slice part, struct slice all)
{
    ASSERT(part.len == 0 || (part.ptr >= all.ptr && part.ptr + part.len <= all.ptr + all.len));
}

static void read_group(struct slice s)
{
    struct control_group g;
    control_group_read(s, &g);
    inside(g.path, s);
    inside(g.unit, g.path);
    inside(g.container, s);
    ASSERT((g.runtime == RUNTIME_NONE) == (g.container.len == 0));
    control_group_user(g.path);
}

static void read_table(struct slice s, uint8_t kind)
{
    struct socket_list l = {0};
    size_t odd = 0;
    enum port_protocol p = kind & 2 ? PORT_UDP : PORT_TCP;
    if (kind & 4)
        ASSERT(proc_sctp_parse(s, &l, &odd) == OK);
    else
        ASSERT(proc_net_parse(s, p, kind & 1, &l, &odd) == OK);
    proc_net_guess_dual(&l, 0);
    for (size_t i = 0; i < l.count; i++)
        ASSERT(l.items[i].port != 0 && l.items[i].family <= PORT_DUAL);
    socket_list_deinit(&l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct slice s = slice_of((const char *)data + 1, size - 1);
    if (data[0] & 8)
        read_group(s);
    else if (data[0] & 16)
        link_number(s, SLICE("socket"));
    else
        read_table(s, data[0]);
    return 0;
}
