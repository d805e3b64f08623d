/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each runtime writes down what it started: Docker a config.v2.json per container, Podman one list
 * of all, containerd and CRI-O the annotated description that runc was given. They are only there
 * for root (or for the user whose containers they are), they may be of any version, and a container
 * can write into none of them; still they are read with a limit, and what does not look as expected
 * leaves the container with its id. Those of a rootless Podman lie where a user may put anything, and
 * root reads them: what is no regular file (a FIFO that nobody writes, a link to a device) is not even
 * opened. No runtime is asked over its socket: that can take seconds, or start it.
 */
#include "ports/containers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "config/jsonx.h"
#include "ports/processes.h"

enum { FILE_MAX = 4 << 20, SHORT_ID = 12, LONGEST_NAME = 255 };

static const char *const podman_lists[] = {
    "%s%s/overlay-containers/containers.json",
    "%s%s/vfs-containers/containers.json",
};
static const char *const descriptions[] = {
    "%s/run/containerd/io.containerd.runtime.v2.task/k8s.io/%.*s/config.json",
    "%s/run/containerd/io.containerd.runtime.v2.task/default/%.*s/config.json",
    "%s/run/containers/storage/overlay-containers/%.*s/userdata/config.json",
};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static enum err read_regular(const char *path, struct buffer *b)
{
    char same[32];
    struct stat st;
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return err_from_errno(errno);
    snprintf(same, sizeof same, "/proc/self/fd/%d", fd);
    enum err e = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? read_whole_at(AT_FDCWD, same, b)
                                                            : ERR_INVALID;
    close(fd);
    return e;
}

json_t *container_file(struct slice path, size_t *left, struct arena *arena)
{
    struct buffer b;
    struct diag d = {0};
    json_t *json = NULL;
    buffer_init(&b, *left < FILE_MAX ? *left : FILE_MAX);
    if (read_regular(arena_str(arena, path), &b) == OK)
        json = jsonx_load(SLICE_NONE, buffer_slice(&b), &d);
    *left -= b.len;
    buffer_deinit(&b);
    return json;
}

static json_t *load(struct slice path, struct arena *arena)
{
    size_t left = FILE_MAX;
    return container_file(path, &left, arena);
}

struct slice container_short(struct slice name)
{
    return slice_take(name, LONGEST_NAME);
}

static struct slice text_at(const json_t *object, const char *key)
{
    return slice_from(json_string_value(json_object_get(object, key)));
}

struct slice docker_file_name(const json_t *file, struct arena *arena)
{
    struct slice name = text_at(file, "Name");
    name = slice_starts(name, SLICE("/")) ? slice_skip(name, 1) : name;
    return arena_copy(arena, container_short(name));
}

static struct slice docker_name(struct slice id, const char *root, struct arena *arena)
{
    json_t *json = load(arena_printf(arena, "%s/var/lib/docker/containers/" SLICE_FMT
                                            "/config.v2.json", root, SLICE_ARG(id)), arena);
    struct slice name = docker_file_name(json, arena);
    json_decref(json);
    return name;
}

static struct slice podman_name_in(struct slice path, struct slice id, struct arena *arena)
{
    size_t i;
    json_t *one, *list = load(path, arena);
    struct slice name = SLICE_NONE;
    json_array_foreach(list, i, one) {
        const json_t *names = json_object_get(one, "names");
        if (slice_eq(text_at(one, "id"), id) && json_array_size(names) > 0)
            name = slice_from(json_string_value(json_array_get(names, 0)));
    }
    name = arena_copy(arena, container_short(name));
    json_decref(list);
    return name;
}

static struct slice podman_name(struct slice id, const char *root, const char *home,
                                struct arena *arena)
{
    struct slice name = SLICE_NONE;
    const char *storage =
        home[0] == '\0' ? "/var/lib/containers/storage" : "/.local/share/containers/storage";
    for (size_t i = 0; name.len == 0 && i < COUNT(podman_lists); i++) {
        struct slice front = arena_printf(arena, "%s%s", root, home);
        name = podman_name_in(arena_printf(arena, podman_lists[i], front.ptr, storage), id, arena);
    }
    return name;
}

/* Kubernetes' namespace, pod and container, as containerd and CRI-O annotate them; or nerdctl's. */
static struct slice annotated_name(const json_t *description, struct arena *arena)
{
    static const char *const keys[][3] = {
        {"io.kubernetes.cri.sandbox-namespace", "io.kubernetes.cri.sandbox-name",
         "io.kubernetes.cri.container-name"},
        {"io.kubernetes.pod.namespace", "io.kubernetes.pod.name", "io.kubernetes.container.name"},
    };
    const json_t *notes = json_object_get(description, "annotations");
    for (size_t i = 0; i < COUNT(keys); i++) {
        struct slice pod = text_at(notes, keys[i][1]), own = text_at(notes, keys[i][2]);
        if (pod.len > 0)
            return arena_printf(arena, SLICE_FMT "/" SLICE_FMT "%s" SLICE_FMT,
                                SLICE_ARG(text_at(notes, keys[i][0])), SLICE_ARG(pod),
                                own.len > 0 ? "/" : "", SLICE_ARG(own));
    }
    return arena_copy(arena, text_at(notes, "nerdctl/name"));
}

static struct slice described_name(struct slice id, const char *root, struct arena *arena)
{
    struct slice name = SLICE_NONE;
    for (size_t i = 0; name.len == 0 && i < COUNT(descriptions); i++) {
        json_t *json = load(arena_printf(arena, descriptions[i], root, SLICE_ARG(id)), arena);
        name = annotated_name(json, arena);
        json_decref(json);
    }
    return name;
}

/* systemd writes what is no letter, digit, "_", "." or ":" as "\x2d". */
static struct slice without_hex(struct slice s, struct arena *arena)
{
    char *out = arena_alloc(arena, s.len + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        bool hex = s.ptr[i] == '\\' && i + 3 < s.len && s.ptr[i + 1] == 'x' &&
                   hex_value(s.ptr[i + 2]) >= 0 && hex_value(s.ptr[i + 3]) >= 0;
        out[n++] = hex ? (char)(hex_value(s.ptr[i + 2]) << 4 | hex_value(s.ptr[i + 3])) : s.ptr[i];
        i += hex ? 3 : 0;
    }
    return slice_of(out, n);
}

struct slice container_name(const struct control_group *g, const char *root, const char *home,
                            struct arena *arena)
{
    struct slice name = SLICE_NONE;
    switch (g->runtime) {
    case RUNTIME_NONE:
        return SLICE_NONE;
    case RUNTIME_LXC:
    case RUNTIME_NSPAWN:
        return without_hex(g->container, arena);
    case RUNTIME_PODMAN:
        name = podman_name(g->container, root, home, arena);
        break;
    case RUNTIME_DOCKER:
    case RUNTIME_CONTAINERD:
    case RUNTIME_CRIO:
        name = docker_name(g->container, root, arena);
        break;
    }
    if (name.len == 0 && g->runtime != RUNTIME_PODMAN)
        name = described_name(g->container, root, arena);
    return name.len > 0 ? name : arena_copy(arena, slice_take(g->container, SHORT_ID));
}

uint32_t control_group_user(struct slice path)
{
    uint64_t uid;
    struct slice front = SLICE("/user.slice/user-"), number, rest;
    if (!slice_starts(path, front))
        return 0;
    slice_cut(slice_skip(path, front.len), '.', &number, &rest);
    return slice_to_u64(number, UINT32_MAX - 1, &uid) ? (uint32_t)uid : 0;
}
