/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asked for at nearly every request, so the usual case, IPv4, is written by hand.
 */
#include "wire/peer_text.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

/* A link-local address means something on its link only. */
static void put_zone(const struct sockaddr_in6 *a, char *host, size_t cap)
{
    char name[IF_NAMESIZE];
    size_t len = strlen(host);
    if (a->sin6_scope_id == 0)
        return;
    if (if_indextoname(a->sin6_scope_id, name) != NULL)
        snprintf(host + len, cap - len, "%%%s", name);
    else
        snprintf(host + len, cap - len, "%%%u", a->sin6_scope_id);
}

static char *put_number(char *at, unsigned n)
{
    char digits[10];
    unsigned count = 0;
    do
        digits[count++] = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    while (count > 0)
        *at++ = digits[--count];
    return at;
}

/* As inet_ntop, which takes ten times as long. */
static void put_four(const struct in_addr *a, char *at)
{
    const unsigned char *b = (const unsigned char *)&a->s_addr;
    for (int i = 0; i < 4; i++) {
        at = put_number(at, b[i]);
        *at++ = i < 3 ? '.' : '\0';
    }
}

/* A socket for both families gives IPv4 ones like that. */
static void unmap(struct sockaddr_storage *a)
{
    struct sockaddr_in6 six;
    struct sockaddr_in four = {.sin_family = AF_INET};
    memcpy(&six, a, sizeof six);
    if (a->ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&six.sin6_addr))
        return;
    four.sin_port = six.sin6_port;
    memcpy(&four.sin_addr, six.sin6_addr.s6_addr + 12, 4);
    memset(a, 0, sizeof *a);
    memcpy(a, &four, sizeof four);
}

const struct sockaddr_storage *peer_address(int fd, struct sockaddr_in *four,
                                            struct sockaddr_storage *a)
{
    socklen_t len = sizeof *a;
    if (four->sin_family == AF_INET) {
        memcpy(a, four, sizeof *four);
        return a;
    }
    memset(a, 0, sizeof *a);
    (void)!getpeername(fd, (struct sockaddr *)a, &len);
    unmap(a);
    if (a->ss_family == AF_INET)
        memcpy(four, a, sizeof *four);
    return a;
}

void peer_text(const struct sockaddr_storage *a, char *host, size_t cap, char port[8])
{
    const struct sockaddr_in *four = (const void *)a;
    const struct sockaddr_in6 *six = (const void *)a;
    struct in_addr mapped;
    host[0] = port[0] = '\0';
    if (a->ss_family == AF_INET) {
        put_four(&four->sin_addr, host);
        *put_number(port, ntohs(four->sin_port)) = '\0';
    } else if (a->ss_family == AF_INET6) {
        snprintf(port, 8, "%u", ntohs(six->sin6_port));
        if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) {
            memcpy(&mapped, six->sin6_addr.s6_addr + 12, 4);
            inet_ntop(AF_INET, &mapped, host, (socklen_t)cap);
        } else {
            inet_ntop(AF_INET6, &six->sin6_addr, host, (socklen_t)cap);
            put_zone(six, host, cap);
        }
    } else {
        snprintf(host, cap, "@");
    }
}
