/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /proc/PID/cgroup has a line per hierarchy, "N:controllers:/path"; systemd's own is "name=systemd",
 * or the unified one, "0::". systemd's rule for a path (man 7 cgroup naming): slices, then the unit,
 * then what the unit's own processes made; a user's manager (user@1000.service) has slices and units
 * of its own below itself. Components that would collide with the kernel's files carry a "_" in
 * front. Container runtimes name their groups after the container, each in its own way, with or
 * without systemd; the outermost container is the one that this machine's runtime knows.
 */
#include "ports/units.h"

static const struct {
    const char *prefix;
    enum container_runtime runtime;
} scopes[] = {
    {"docker-", RUNTIME_DOCKER},         {"libpod-", RUNTIME_PODMAN},
    {"cri-containerd-", RUNTIME_CONTAINERD}, {"nerdctl-", RUNTIME_CONTAINERD},
    {"crio-", RUNTIME_CRIO},
};

static const char *const runtimes[] = {"", "docker", "podman", "containerd", "cri-o", "lxc", "nspawn"};
static const char *const unit_kinds[] = {".service", ".scope", ".socket", ".mount", ".swap"};

enum { ID_LEN = 64 };

const char *runtime_name(enum container_runtime r)
{
    return runtimes[r];
}

static bool is_id(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if ((c < '0' || c > '9') && (c < 'a' || c > 'f'))
            return false;
    }
    return s.len == ID_LEN;
}

/* The next component; false at the end. */
static bool next_part(struct slice *path, struct slice *part)
{
    do {
        if (path->len == 0)
            return false;
        slice_cut(*path, '/', part, path);
    } while (part->len == 0);
    return true;
}

static bool is_unit(struct slice part)
{
    for (size_t i = 0; i < sizeof unit_kinds / sizeof unit_kinds[0]; i++) {
        struct slice kind = slice_from(unit_kinds[i]);
        if (part.len > kind.len && slice_ends(part, kind))
            return true;
    }
    return false;
}

static struct slice without_escape(struct slice part)
{
    return part.len > 1 && part.ptr[0] == '_' ? slice_skip(part, 1) : part;
}

/* The first unit behind slices; behind a user's manager the first unit of its own. */
static struct slice find_unit(struct slice path)
{
    struct slice part, found = SLICE_NONE;
    while (next_part(&path, &part)) {
        part = without_escape(part);
        if (slice_ends(part, SLICE(".slice")))
            continue;
        if (!is_unit(part))
            break;
        found = part;
        if (!slice_starts(part, SLICE("user@")))
            break;
    }
    return found;
}

static struct slice between(struct slice s, const char *prefix, const char *suffix)
{
    struct slice front = slice_from(prefix), back = slice_from(suffix);
    if (s.len <= front.len + back.len || !slice_starts(s, front) || !slice_ends(s, back))
        return SLICE_NONE;
    return slice_of(s.ptr + front.len, s.len - front.len - back.len);
}

static void set(struct control_group *g, enum container_runtime r, struct slice container)
{
    if (container.len == 0 || g->runtime != RUNTIME_NONE)
        return;
    g->runtime = r;
    g->container = container;
}

/* "docker-ID.scope" and its like. */
static void read_scope(struct control_group *g, struct slice part)
{
    for (size_t i = 0; i < sizeof scopes / sizeof scopes[0]; i++) {
        struct slice id = between(part, scopes[i].prefix, ".scope");
        if (id.len == 0)
            id = between(part, scopes[i].prefix, ""); /* without systemd */
        if (is_id(id))
            set(g, scopes[i].runtime, id);
    }
}

/* A bare id, as runtimes without systemd have it: "/docker/ID", "/kubepods/…/pod…/ID", "/default/ID". */
static void read_bare_id(struct control_group *g, struct slice before, struct slice part)
{
    if (!is_id(part))
        return;
    if (slice_ends(before, SLICE("/docker/")))
        set(g, RUNTIME_DOCKER, part);
    else if (slice_ends(before, SLICE("/libpod_parent/")))
        set(g, RUNTIME_PODMAN, part);
    else
        set(g, RUNTIME_CONTAINERD, part);
}

static void read_lxc(struct control_group *g, struct slice before, struct slice part)
{
    set(g, RUNTIME_LXC, between(part, "lxc.payload.", ""));
    if (slice_ends(before, SLICE("/lxc/")) || slice_ends(before, SLICE("/lxc.payload/")))
        set(g, RUNTIME_LXC, part);
}

static void find_container(struct control_group *g, struct slice path)
{
    struct slice rest = path, part;
    while (g->runtime == RUNTIME_NONE && next_part(&rest, &part)) {
        struct slice before = slice_of(path.ptr, (size_t)(part.ptr - path.ptr));
        read_scope(g, part);
        read_bare_id(g, before, part);
        read_lxc(g, before, part);
        set(g, RUNTIME_NSPAWN, between(part, "systemd-nspawn@", ".service"));
        if (slice_ends(before, SLICE("/machine.slice/")))
            set(g, RUNTIME_NSPAWN, between(part, "machine-", ".scope"));
    }
}

void control_group_read(struct slice text, struct control_group *g)
{
    struct slice line, rest = text, number, controllers, path;
    *g = (struct control_group){0};
    while (rest.len > 0) {
        slice_cut(rest, '\n', &line, &rest);
        if (!slice_cut(line, ':', &number, &path) || !slice_cut(path, ':', &controllers, &path))
            continue;
        bool named = slice_is(controllers, "name=systemd");
        if (named || (controllers.len == 0 && g->path.len <= 1))
            g->path = path;
        find_container(g, path);
    }
    g->unit = find_unit(g->path);
}
