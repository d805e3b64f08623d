/* SPDX-License-Identifier: Apache-2.0 */
/*
 * docker-proxy is told by its arguments to which address it hands on, and Docker's file of each
 * container says which addresses it has, and as which ports of the machine its own are published: the
 * latter is all that there is where dockerd holds the socket itself (without a userland proxy). Podman's
 * conmon is told the container's name. Files are read once per look, and only when a row is published;
 * one that does not look as expected leaves its row as it was.
 */
#include "ports/published.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/mem.h"
#include "ports/containers.h"
#include "ports/expected.h"
#include "ports/processes.h"
#include "ports/users.h"

enum { FOLDERS_MAX = 4096, ARGUMENTS_MAX = 4096 };

struct folder { /* of one Docker: root's, or a user's */
    struct slice path;
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
    f->containers = mem_alloc(FOLDERS_MAX * sizeof *f->containers);
    for (const struct dirent *e; f->count < FOLDERS_MAX && (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.')
            continue;
        json_t *one = container_file(arena_printf(arena, SLICE_FMT "/%s/config.v2.json",
                                                  SLICE_ARG(f->path), e->d_name), arena);
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
    *f = (struct folder){.path = path, .next = p->folders};
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

static bool has_address(const json_t *container, const struct ip_address *a)
{
    const char *key;
    json_t *network;
    json_t *all = json_object_get(json_object_get(container, "NetworkSettings"), "Networks");
    json_object_foreach(all, key, network) {
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
static bool publishes(const json_t *container, const struct port_entry *e, uint16_t *inner)
{
    const char *key;
    json_t *bindings, *binding;
    size_t i;
    json_t *all = json_object_get(json_object_get(container, "NetworkSettings"), "Ports");
    json_object_foreach(all, key, bindings) {
        struct slice port, protocol;
        uint64_t number;
        slice_cut(slice_from(key), '/', &port, &protocol);
        if (!slice_is(protocol, port_protocol_name(e->protocol)) ||
            !slice_to_u64(port, UINT16_MAX, &number))
            continue;
        *inner = (uint16_t)number;
        json_array_foreach(bindings, i, binding) {
            if (is_binding(binding, e))
                return true;
        }
    }
    return false;
}

/* ---- rows ---- */

/* By the address where one is known: it says more than a number, which two Dockers may have. */
static const json_t *find_container(const struct folder *f, const struct port_entry *e,
                                    const struct ip_address *address, uint16_t *inner)
{
    for (size_t i = 0; address != NULL && i < f->count; i++) {
        if (has_address(f->containers[i], address))
            return f->containers[i];
    }
    for (size_t i = 0; i < f->count; i++) {
        if (publishes(f->containers[i], e, inner))
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
        return arena_copy(p->table->arena, argument_behind(arguments, "-n --name"));
    const struct folder *f = folder_of(p, o->uid);
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

void table_reach_published(struct port_table *t)
{
    for (size_t i = 0; i < t->count; i++) {
        const struct port_entry *e = &t->entries[i];
        const struct port_owner *o = e->owners;
        if (o == NULL || o->inner_port == 0 || e->netns != t->netns)
            continue;
        for (size_t k = 0; k < t->count; k++) {
            struct port_entry *inner = &t->entries[k];
            if (inner->port == o->inner_port && inner->protocol == e->protocol &&
                inner->netns != t->netns && slice_eq(inner->namespace, o->container))
                widen(inner, e);
        }
    }
}
