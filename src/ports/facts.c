/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's own settings about ports, and how an owner is remembered from one look to the next.
 */
#include <fcntl.h>
#include <unistd.h>

#include "ports/findings.h"

enum { SETTING_MAX = 65536 };

static bool read_interval(struct slice text, struct port_interval *out)
{
    struct slice first, last;
    uint64_t from, to;
    bool range = slice_cut(text, '-', &first, &last);
    if (!slice_to_u64(slice_trim(first), 65535, &from) ||
        (range && !slice_to_u64(slice_trim(last), 65535, &to)))
        return false;
    *out = (struct port_interval){(uint16_t)from, (uint16_t)(range ? to : from)};
    return out->first <= out->last;
}

size_t port_intervals_parse(struct slice text, struct arena *arena, struct port_interval **out)
{
    struct slice part, rest = slice_trim(text);
    size_t count = 0, most = 1;
    for (size_t i = 0; i < rest.len; i++)
        most += rest.ptr[i] == ',';
    *out = ARENA_ARRAY(arena, struct port_interval, most);
    for (bool more = rest.len > 0; more;) {
        more = slice_cut(rest, ',', &part, &rest);
        count += read_interval(part, &(*out)[count]);
    }
    return count;
}

static struct slice read_setting(const char *path, struct arena *arena)
{
    char *bytes = arena_alloc(arena, SETTING_MAX);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, bytes, SETTING_MAX) : 0;
    if (fd >= 0)
        close(fd);
    return slice_of(bytes, n > 0 ? (size_t)n : 0);
}

static struct slice own_name(struct arena *arena)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path);
    struct slice text = slice_of(path, n > 0 ? (size_t)n : 0), gone = SLICE(" (deleted)");
    size_t slash = slice_find_last(text, '/');
    if (slash != SIZE_MAX)
        text = slice_skip(text, slash + 1);
    if (slice_ends(text, gone))
        text.len -= gone.len;
    return arena_copy(arena, text);
}

void port_facts_read(struct port_facts *f, struct arena *arena)
{
    struct port_interval *reserved;
    struct slice first, last;
    uint64_t from, to;
    struct slice range = slice_trim(read_setting("/proc/sys/net/ipv4/ip_local_port_range", arena));
    if (slice_cut(range, '\t', &first, &last) && slice_to_u64(slice_trim(first), 65535, &from) &&
        slice_to_u64(slice_trim(last), 65535, &to))
        f->local = (struct port_interval){(uint16_t)from, (uint16_t)to};
    f->reserved_count = port_intervals_parse(
        read_setting("/proc/sys/net/ipv4/ip_local_reserved_ports", arena), arena, &reserved);
    f->reserved = reserved;
    f->own = own_name(arena);
}

bool program_is_own(const struct port_facts *f, struct slice program)
{
    return slice_is(program, "portico") || slice_is(program, "caddy") ||
           (f->own.len > 0 && slice_eq(program, f->own));
}

struct slice memory_owner(const struct port_entry *e, struct arena *arena)
{
    const struct port_owner *o = e->owners;
    while (o != NULL && o->program.len == 0)
        o = o->next;
    if (o == NULL)
        return SLICE_NONE;
    struct slice parts[4] = {o->program, SLICE(" ("), o->user, SLICE(")")};
    size_t count = 4;
    if (o->service.len > 0) {
        parts[0] = SLICE("service ");
        parts[1] = o->service;
        count = 2;
    } else if (o->container.len > 0 || o->unit.len > 0) {
        parts[0] = o->container.len > 0 ? SLICE("container ") : SLICE("unit ");
        parts[1] = o->container.len > 0 ? o->container : o->unit;
        parts[2] = SLICE(": ");
        parts[3] = o->program;
    }
    return arena_join(arena, parts, count);
}
