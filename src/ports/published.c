/* SPDX-License-Identifier: Apache-2.0 */
/*
 * docker-proxy is told by its arguments to which address it hands on, and Docker's file of each
 * container says which addresses it has, and as which ports of the machine its own are published: the
 * latter is all that there is where dockerd holds the socket itself (without a userland proxy). Podman's
 * conmon is told the container's name. Files are read once per look, and only when a row is published;
 * one that does not look as expected leaves its row as it was.
 *
 * Anybody can call a program docker-proxy, give it any arguments and thousands of ports, and write what he
 * likes into his own Docker's folder. So of each folder only so much is read, only so often is it
 * looked at what was read, and names are short: beyond that, rows stay without a container.
 */
#include "ports/published.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/map.h"
#include "base/mem.h"
#include "ports/containers.h"
#include "ports/expected.h"
#include "ports/processes.h"
#include "ports/users.h"

enum {
    CONTAINERS_MAX = 4096,
    ENTRIES_MAX = 4 * CONTAINERS_MAX, /* with those that do not run */
    ARGUMENTS_MAX = 4096,
    FILES_MAX = 32 << 20, /* bytes of all files of root's Docker */
    LOOKS_MAX = 16 << 20, /* at addresses and ports of its containers */
    USERS_PART = 8,       /* that part of both for a user's */
};

struct folder { /* of one Docker: root's, or a user's */
    struct slice path;
    size_t bytes_left, looks_left;
    json_t **containers; /* those that run */
    size_t count;
    struct folder *next;
};

struct publishing {
    struct port_table *table;
    const char *root;
    struct user_names users;
    struct folder *folders;
    int proc;
};

struct slice argument_behind(struct slice text, const char *options)
{
    struct slice word, one, rest = text, list;
    bool more = text.len > 0, value = false;
    while (more) {
        more = slice_cut(rest, '\0', &word, &rest);
        if (value)
            return word;
        for (list = slice_from(options); list.len > 0 && !value;) {
            slice_cut(list, ' ', &one, &list);
            value = slice_eq(one, word);
        }
    }
    return SLICE_NONE;
}

/* ---- Docker's files ---- */

static void read_containers(struct folder *f, struct arena *arena)
{
    DIR *d = opendir(f->path.ptr);
    if (d == NULL)
        return;
    f->containers = mem_alloc(CONTAINERS_MAX * sizeof *f->containers);
    const struct dirent *e;
    for (unsigned i = 0; i < ENTRIES_MAX && f->count < CONTAINERS_MAX && (e = readdir(d)) != NULL; i++) {
        if (e->d_name[0] == '.')
            continue;
        json_t *one = container_file(arena_printf(arena, SLICE_FMT "/%s/config.v2.json",
                                                  SLICE_ARG(f->path), e->d_name), &f->bytes_left, arena);
        if (json_is_true(json_object_get(json_object_get(one, "State"), "Running")))
            f->containers[f->count++] = one;
        else
            json_decref(one);
    }
    closedir(d);
}

static struct folder *folder_of(struct publishing *p, uid_t uid)
{
    struct arena *arena = p->table->arena;
    const char *home = "";
    if (uid != 0)
        (void)user_name(&p->users, uid, &home);
    struct slice path = arena_printf(arena, "%s%s%s/docker/containers", p->root, home,
                                     home[0] != '\0' ? "/.local/share" : "/var/lib");
    for (struct folder *f = p->folders; f != NULL; f = f->next) {
        if (slice_eq(f->path, path))
            return f;
    }
    struct folder *f = ARENA_NEW(arena, struct folder);
    size_t part = home[0] != '\0' ? USERS_PART : 1;
    *f = (struct folder){.path = path, .bytes_left = FILES_MAX / part, .looks_left = LOOKS_MAX / part,
                         .next = p->folders};
    p->folders = f;
    read_containers(f, arena);
    return f;
}

static bool is_address(const json_t *text, const struct ip_address *wanted)
{
    struct ip_address a;
    return json_is_string(text) && ip_parse(slice_from(json_string_value(text)), &a) &&
           memcmp(&a, wanted, sizeof a) == 0;
}

static bool may_look(struct folder *f)
{
    if (f->looks_left == 0)
        return false;
    f->looks_left--;
    return true;
}

static bool has_address(struct folder *f, const json_t *container, const struct ip_address *a)
{
    const char *key;
    json_t *network;
    json_t *all = json_object_get(json_object_get(container, "NetworkSettings"), "Networks");
    json_object_foreach(all, key, network) {
        if (!may_look(f))
            return false;
        if (is_address(json_object_get(network, "IPAddress"), a) ||
            is_address(json_object_get(network, "GlobalIPv6Address"), a))
            return true;
    }
    return false;
}

/* {"HostIp": "0.0.0.0", "HostPort": "8080"}; an empty address is every one. */
static bool is_binding(const json_t *binding, const struct port_entry *e)
{
    static const struct ip_address none[2] = {{0, {0}}, {1, {0}}};
    struct slice port = slice_from(json_string_value(json_object_get(binding, "HostPort")));
    const char *host = json_string_value(json_object_get(binding, "HostIp"));
    uint64_t number;
    if (!slice_to_u64(port, UINT16_MAX, &number) || number != e->port)
        return false;
    return host == NULL || host[0] == '\0' || is_address(json_object_get(binding, "HostIp"), &e->address) ||
           (e->family == PORT_DUAL && is_address(json_object_get(binding, "HostIp"), &none[0]));
}

/* {"80/tcp": [binding, …], "443/tcp": null} */
static bool publishes(struct folder *f, const json_t *container, const struct port_entry *e,
                      uint16_t *inner)
{
    const char *key;
    json_t *bindings, *binding;
    size_t i;
    json_t *all = json_object_get(json_object_get(container, "NetworkSettings"), "Ports");
    json_object_foreach(all, key, bindings) {
        struct slice port, protocol;
        uint64_t number;
        if (!may_look(f))
            return false;
        slice_cut(slice_from(key), '/', &port, &protocol);
        if (!slice_is(protocol, port_protocol_name(e->protocol)) ||
            !slice_to_u64(port, UINT16_MAX, &number))
            continue;
        *inner = (uint16_t)number;
        json_array_foreach(bindings, i, binding) {
            if (!may_look(f))
                return false;
            if (is_binding(binding, e))
                return true;
        }
    }
    return false;
}

/* ---- rows ---- */

/* By the address where one is known: it says more than a number, which two Dockers may have. */
static const json_t *find_container(struct folder *f, const struct port_entry *e,
                                    const struct ip_address *address, uint16_t *inner)
{
    for (size_t i = 0; address != NULL && i < f->count && may_look(f); i++) {
        if (has_address(f, f->containers[i], address))
            return f->containers[i];
    }
    for (size_t i = 0; i < f->count && may_look(f); i++) {
        if (publishes(f, f->containers[i], e, inner))
            return f->containers[i];
    }
    return NULL;
}

static struct slice find_name(struct publishing *p, const struct port_entry *e, struct port_owner *o)
{
    char name[PROC_NAME_MAX], text[ARGUMENTS_MAX];
    struct ip_address address;
    uint64_t number = 0;
    uint16_t inner = 0;
    proc_name(name, (uint32_t)o->pid, "/cmdline");
    struct slice arguments = read_at(p->proc, name, text, sizeof text);
    if (slice_is(o->program, "conmon"))
        return arena_copy(p->table->arena, container_short(argument_behind(arguments, "-n --name")));
    struct folder *f = folder_of(p, o->uid);
    bool known = ip_parse(argument_behind(arguments, "-container-ip --container-ip"), &address);
    const json_t *container = find_container(f, e, known ? &address : NULL, &inner);
    if (container == NULL)
        return SLICE_NONE;
    if (slice_to_u64(argument_behind(arguments, "-container-port --container-port"), UINT16_MAX, &number))
        inner = (uint16_t)number;
    o->inner_port = inner;
    return docker_file_name(container, p->table->arena);
}

static bool is_publisher(const struct port_owner *o)
{
    return o->container.len == 0 && o->pid > 0 &&
           (expected_is_publisher(o->program) || expected_may_publish(o->program));
}

static void let_go(struct publishing *p)
{
    for (struct folder *f = p->folders; f != NULL; f = f->next) {
        for (size_t i = 0; i < f->count; i++)
            json_decref(f->containers[i]);
        mem_free(f->containers);
    }
    user_names_deinit(&p->users);
    if (p->proc >= 0)
        close(p->proc);
}

void table_published(struct port_table *t, const char *root)
{
    struct publishing p = {.table = t, .root = root, .proc = -1};
    user_names_init(&p.users, t->arena);
    for (size_t i = 0; i < t->count; i++) {
        for (struct port_owner *o = t->entries[i].owners; o != NULL; o = o->next) {
            if (!is_publisher(o))
                continue;
            if (p.proc < 0)
                p.proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            o->container = find_name(&p, &t->entries[i], o);
        }
    }
    let_go(&p);
}

/* ---- who can reach the container's own port ---- */

static void widen(struct port_entry *inner, const struct port_entry *outer)
{
    bool unknown = outer->reach == REACH_UNKNOWN && inner->reach < REACH_WORLD;
    if (inner->reach == REACH_UNKNOWN || (!unknown && inner->reach >= outer->reach))
        return;
    inner->reach = outer->reach;
    inner->reach_why = outer->reach_why;
    inner->reach_from = outer->reach_from;
    inner->reach_from_count = outer->reach_from_count;
}

static struct slice key_of(const struct port_table *t, unsigned port, enum port_protocol protocol,
                           struct slice container)
{
    return arena_printf(t->arena, "%u/%d/" SLICE_FMT, port, (int)protocol, SLICE_ARG(container));
}

/* What the rows that publish one port of one container come to. */
static void add_outer(struct port_table *t, struct map *outers, const struct port_entry *e)
{
    const struct port_owner *o = e->owners;
    if (o == NULL || o->inner_port == 0 || e->netns != t->netns)
        return;
    struct slice key = key_of(t, o->inner_port, e->protocol, o->container);
    struct port_entry *all = map_get(outers, key);
    if (all != NULL) {
        widen(all, e);
        return;
    }
    all = ARENA_NEW(t->arena, struct port_entry);
    *all = *e;
    map_put(outers, key, all);
}

void table_reach_published(struct port_table *t)
{
    struct map outers;
    map_init(&outers, false);
    for (size_t i = 0; i < t->count; i++)
        add_outer(t, &outers, &t->entries[i]);
    for (size_t i = 0; outers.count > 0 && i < t->count; i++) {
        struct port_entry *inner = &t->entries[i];
        const struct port_entry *outer = NULL;
        if (inner->netns != t->netns)
            outer = map_get(&outers, key_of(t, inner->port, inner->protocol, inner->namespace));
        if (outer != NULL)
            widen(inner, outer);
    }
    map_deinit(&outers);
}
