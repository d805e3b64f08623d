/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of /proc/net, as kernels wrote them.
 */
#include "ports/proc_net.h"

#include <endian.h>

#include "base/test.h"

#define HEAD                                                                                       \
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout "    \
    "inode\n"
#define TAIL " 00000000:00000000 00:00000000 00000000 "

static const char tcp4[] = HEAD
    "   0: 00000000:0016 00000000:0000 0A" TAIL "    0        0 1789 1 0000000000000000 100 0 0 10 0\n"
    "   1: 0100007F:1F90 00000000:0000 0A" TAIL " 1000        0 23456 1 0000000000000000 100 0 0 10 5\n"
    "   2: 0100007F:1F90 0100007F:C350 01" TAIL " 1000        0 23457 1 0000000000000000 20 4 30 10 -1\n"
    "odd line\n";
static const char tcp6[] = HEAD
    "   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A" TAIL
    "    0        0 1790 1 0000000000000000 100 0 0 10 0\n"
    "   1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A" TAIL
    "    0        0 1791 1 0000000000000000 100 0 0 10 0\n"
    "   2: 0000000000000000FFFF00000100007F:0051 00000000000000000000000000000000:0000 0A" TAIL
    "    0        0 1792 1 0000000000000000 100 0 0 10 0\n"
    "   3: B80D0120000000000000000001000000:0052 00000000000000000000000000000000:0000 0A" TAIL
    "    0        0 1793 1 0000000000000000 100 0 0 10 0";
static const char udp4[] = HEAD
    "  123: 00000000:0044 00000000:0000 07" TAIL "  998        0 555 2 0000000000000000 0\n"
    "  124: 0100007F:0045 0100007F:0035 01" TAIL "  998        0 556 2 0000000000000000 0\n";
static const char eps[] =
    " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n"
    "00000000 00000000 2   10  29   9899      0 55777 192.0.2.1 2001:db8::1 \n"
    "strange\n";

static void check_socket(const struct bound_socket *s, enum port_family family, const char *address,
                         uint16_t port, uint64_t inode)
{
    char text[IP_TEXT_MAX];
    CHECK_INT(s->family, family);
    CHECK_SLICE(slice_of(text, ip_text(&s->address, text)), slice_from(address));
    CHECK_INT(s->port, port);
    CHECK_INT(s->inode, inode);
}

TEST("listening TCP sockets are read, others left, odd lines counted")
{
    if (BYTE_ORDER != LITTLE_ENDIAN)
        test_skip("the tables of this test are those of a little-endian machine");
    struct socket_list l = {0};
    size_t odd = 0;
    CHECK_OK(proc_net_parse(slice_from(tcp4), PORT_TCP, false, &l, &odd));
    CHECK_INT(l.count, 2);
    CHECK_INT(odd, 1);
    check_socket(&l.items[0], PORT_IP4, "0.0.0.0", 22, 1789);
    check_socket(&l.items[1], PORT_IP4, "127.0.0.1", 8080, 23456);
    CHECK_INT(l.items[1].uid, 1000);
    socket_list_deinit(&l);
}

TEST("of IPv6, a mapped address is IPv4, and [::] is dual unless the port is bound on IPv4 too")
{
    if (BYTE_ORDER != LITTLE_ENDIAN)
        test_skip("the tables of this test are those of a little-endian machine");
    struct socket_list l = {0};
    size_t odd = 0;
    CHECK_OK(proc_net_parse(slice_from(tcp4), PORT_TCP, false, &l, &odd));
    CHECK_OK(proc_net_parse(slice_from(tcp6), PORT_TCP, true, &l, &odd));
    CHECK_INT(l.count, 6);
    check_socket(&l.items[2], PORT_DUAL, "::", 22, 1790);
    proc_net_guess_dual(&l, 0);
    check_socket(&l.items[2], PORT_IP6, "::", 22, 1790);
    check_socket(&l.items[3], PORT_DUAL, "::", 80, 1791);
    check_socket(&l.items[4], PORT_IP4, "127.0.0.1", 81, 1792);
    check_socket(&l.items[5], PORT_IP6, "2001:db8::1", 82, 1793);
    socket_list_deinit(&l);
}

TEST("UDP sockets that are not connected are read")
{
    struct socket_list l = {0};
    size_t odd = 0;
    CHECK_OK(proc_net_parse(slice_from(udp4), PORT_UDP, false, &l, &odd));
    CHECK_INT(l.count, 1);
    check_socket(&l.items[0], PORT_IP4, "0.0.0.0", 68, 555);
    socket_list_deinit(&l);
}

TEST("an SCTP endpoint is a socket per address")
{
    struct socket_list l = {0};
    size_t odd = 0;
    CHECK_OK(proc_sctp_parse(slice_from(eps), &l, &odd));
    CHECK_INT(l.count, 2);
    CHECK_INT(odd, 1);
    check_socket(&l.items[0], PORT_IP4, "192.0.2.1", 9899, 55777);
    check_socket(&l.items[1], PORT_IP6, "2001:db8::1", 9899, 55777);
    socket_list_deinit(&l);
}
