/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Only the text of a name is looked at.
 */
#include "pki/subject.h"

#include <arpa/inet.h>

static size_t count_of(struct slice s, char c)
{
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++)
        n += s.ptr[i] == c;
    return n;
}

bool subject_qualifies(struct slice s)
{
    static const char forbidden[] = "()[]{}<> \t\n\"\\!@#$%^&|;'+=";
    if (slice_trim(s).len == 0 || s.ptr[0] == '.' || s.ptr[s.len - 1] == '.')
        return false;
    if (count_of(s, '*') > 0 && !slice_starts(s, SLICE("*.")) && !slice_is(s, "*"))
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (memchr(forbidden, s.ptr[i], sizeof forbidden - 1) != NULL)
            return false;
    return true;
}

static bool parse_ip(struct slice s, struct in_addr *v4, struct in6_addr *v6, bool *is_v6)
{
    char text[INET6_ADDRSTRLEN];
    if (s.len == 0 || s.len >= sizeof text)
        return false;
    memcpy(text, s.ptr, s.len);
    text[s.len] = '\0';
    *is_v6 = inet_pton(AF_INET6, text, v6) == 1;
    return *is_v6 || inet_pton(AF_INET, text, v4) == 1;
}

bool subject_is_ip(struct slice s)
{
    struct in_addr v4;
    struct in6_addr v6;
    bool is_v6;
    return parse_ip(s, &v4, &v6, &is_v6);
}

static bool v4_internal(uint32_t ip)
{
    return ip >> 24 == 127 || ip >> 24 == 10 || ip >> 20 == 0xAC1 || ip >> 16 == 0xC0A8 ||
           ip >> 16 == 0xA9FE || ip >> 16 == 0;
}

static bool ip_internal(struct slice s)
{
    struct in_addr v4;
    struct in6_addr v6;
    bool is_v6;
    if (!parse_ip(s, &v4, &v6, &is_v6))
        return false;
    if (!is_v6)
        return v4_internal(ntohl(v4.s_addr));
    if (IN6_IS_ADDR_V4MAPPED(&v6))
        return v4_internal((uint32_t)v6.s6_addr[12] << 24 | (uint32_t)v6.s6_addr[13] << 16 |
                           (uint32_t)v6.s6_addr[14] << 8 | v6.s6_addr[15]);
    return (v6.s6_addr[0] & 0xFE) == 0 || (v6.s6_addr[0] & 0xFE) == 0xFC ||
           IN6_IS_ADDR_LINKLOCAL(&v6);
}

static struct slice host_only(struct slice s)
{
    size_t colon = slice_find_last(s, ':');
    if (colon != SIZE_MAX && slice_find(s, ':') == colon)
        return slice_take(s, colon);
    if (s.len > 2 && s.ptr[0] == '[' && slice_find(s, ']') != SIZE_MAX)
        return slice_of(s.ptr + 1, slice_find(s, ']') - 1);
    return s;
}

static bool ends_nocase(struct slice s, struct slice suffix)
{
    return s.len >= suffix.len && slice_eq_nocase(slice_skip(s, s.len - suffix.len), suffix);
}

bool subject_is_internal(struct slice s)
{
    s = host_only(s);
    if (slice_ends(s, SLICE(".")))
        s.len--;
    return slice_eq_nocase(s, SLICE("localhost")) || ends_nocase(s, SLICE(".localhost")) ||
           ends_nocase(s, SLICE(".local")) || ends_nocase(s, SLICE(".internal")) ||
           ends_nocase(s, SLICE(".home.arpa")) || ip_internal(s);
}

bool subject_qualifies_public(struct slice s)
{
    if (!subject_qualifies(s) || subject_is_internal(s))
        return false;
    return count_of(s, '*') == 0 || (count_of(s, '*') == 1 && count_of(s, '.') > 1 &&
                                     s.len > 2 && slice_starts(s, SLICE("*.")));
}

bool subject_is_tailscale(struct slice s)
{
    return ends_nocase(s, SLICE(".ts.net"));
}

bool subject_matches(struct slice name, struct slice pattern)
{
    name = host_only(name);
    if (slice_eq_nocase(name, pattern))
        return true;
    while (slice_starts(pattern, SLICE("*"))) {
        size_t dot = slice_find(name, '.');
        struct slice label = dot == SIZE_MAX ? name : slice_take(name, dot);
        if (label.len == 0 || (pattern.len > 1 && pattern.ptr[1] != '.'))
            return false;
        name = slice_skip(name, label.len);
        pattern = slice_skip(pattern, 1);
        if (slice_eq_nocase(name, pattern))
            return true;
        if (name.len == 0 || pattern.len == 0)
            return false;
        name = slice_skip(name, 1);
        pattern = slice_skip(pattern, 1);
    }
    return false;
}

bool subject_wildcard(struct slice name, size_t stars, char out[SUBJECT_MAX + 1], struct slice *result)
{
    size_t len = 0;
    if (name.len > SUBJECT_MAX || name.len == 0)
        return false;
    for (size_t i = 0; i < stars; i++) {
        size_t dot = slice_find(name, '.');
        if (name.len == 0 || dot == 0 || (dot == SIZE_MAX && i + 1 < stars))
            return false;
        out[len++] = '*';
        if (dot != SIZE_MAX)
            out[len++] = '.';
        name = dot == SIZE_MAX ? SLICE_NONE : slice_skip(name, dot + 1);
    }
    if (name.len > 0)
        memcpy(out + len, name.ptr, name.len);
    *result = slice_of(out, len + name.len);
    return true;
}
