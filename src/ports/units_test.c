/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control groups of services, users and containers, and the names that runtimes write down.
 */
#include "ports/units.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/test.h"
#include "ports/containers.h"

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static const struct {
    const char *text, *unit;
    enum container_runtime runtime;
    const char *container;
} groups[] = {
    {"0::/system.slice/nginx.service\n", "nginx.service", RUNTIME_NONE, ""},
    {"0::/system.slice/system-getty.slice/getty@tty1.service\n",
     "getty@tty1.service", RUNTIME_NONE, ""},
    {"0::/system.slice/app.service/payload/deep\n", "app.service", RUNTIME_NONE, ""},
    {"0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope", RUNTIME_NONE, ""},
    {"0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service\n",
     "web.service", RUNTIME_NONE, ""},
    {"0::/user.slice/user-1000.slice/user@1000.service/init.scope\n",
     "init.scope", RUNTIME_NONE, ""},
    {"0::/user.slice/user-1000.slice/user@1000.service\n", "user@1000.service", RUNTIME_NONE, ""},
    {"0::/system.slice/_cgroup.service\n", "cgroup.service", RUNTIME_NONE, ""},
    {"0::/system.slice/a\\x2db.service\n", "a\\x2db.service", RUNTIME_NONE, ""},
    {"0::/init.scope\n", "init.scope", RUNTIME_NONE, ""},
    {"0::/\n", "", RUNTIME_NONE, ""},
    {"", "", RUNTIME_NONE, ""},
    {"no line of ours\n:::\n", "", RUNTIME_NONE, ""},
    {"9:name=systemd:/system.slice/ssh.service\n8:pids:/x\n0::/\n",
     "ssh.service", RUNTIME_NONE, ""},
    {"9:name=systemd:/\n4:memory:/docker/" ID "\n0::/\n", "", RUNTIME_DOCKER, ID},
    {"0::/system.slice/docker-" ID ".scope\n", "docker-" ID ".scope", RUNTIME_DOCKER, ID},
    {"0::/docker/" ID "/init\n", "", RUNTIME_DOCKER, ID},
    {"0::/machine.slice/libpod-" ID ".scope/container\n",
     "libpod-" ID ".scope", RUNTIME_PODMAN, ID},
    {"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" ID ".scope/container\n",
     "libpod-" ID ".scope", RUNTIME_PODMAN, ID},
    {"0::/machine.slice/libpod-conmon-" ID ".scope\n",
     "libpod-conmon-" ID ".scope", RUNTIME_NONE, ""},
    {"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/"
     "cri-containerd-" ID ".scope\n",
     "cri-containerd-" ID ".scope", RUNTIME_CONTAINERD, ID},
    {"0::/kubepods/besteffort/pod1/" ID "\n", "", RUNTIME_CONTAINERD, ID},
    {"0::/kubepods.slice/kubepods-pod1.slice/crio-" ID ".scope\n",
     "crio-" ID ".scope", RUNTIME_CRIO, ID},
    {"0::/lxc.payload.web/system.slice/nginx.service\n", "", RUNTIME_LXC, "web"},
    {"0::/lxc/web/system.slice\n", "", RUNTIME_LXC, "web"},
    {"0::/machine.slice/systemd-nspawn@web.service/payload\n",
     "systemd-nspawn@web.service", RUNTIME_NSPAWN, "web"},
    {"0::/machine.slice/machine-my\\x2dweb.scope\n",
     "machine-my\\x2dweb.scope", RUNTIME_NSPAWN, "my\\x2dweb"},
};

TEST("a control group tells systemd's unit and the container")
{
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        struct control_group g;
        control_group_read(slice_from(groups[i].text), &g);
        CHECK_TEXT(g.unit, groups[i].unit);
        CHECK_INT(g.runtime, groups[i].runtime);
        CHECK_TEXT(g.container, groups[i].container);
    }
}

static void make_file(const char *root, const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')) != NULL; *p++ = '/') {
        *p = '\0';
        mkdir(full, 0700);
    }
    FILE *f = fopen(full, "w");
    CHECK(f != NULL);
    fputs(text, f);
    fclose(f);
}

static void check_name(const char *root, enum container_runtime r, struct slice container,
                       const char *home, const char *want)
{
    struct arena a;
    struct control_group g = {.runtime = r, .container = container};
    arena_init(&a, 4096);
    CHECK_TEXT(container_name(&g, root, home, &a), want);
    arena_deinit(&a);
}

TEST("a container is called as its runtime's files say, else by its short id")
{
    static char root[] = "/tmp/portico-containers-XXXXXX";
    struct slice id = SLICE(ID);
    char command[80];
    CHECK(mkdtemp(root) != NULL);
    for (int r = RUNTIME_DOCKER; r <= RUNTIME_CRIO; r++)
        check_name(root, (enum container_runtime)r, id, "", "0123456789ab");
    make_file(root, "/var/lib/docker/containers/" ID "/config.v2.json", "{\"Name\":\"/shop\"}");
    check_name(root, RUNTIME_DOCKER, id, "", "shop");
    make_file(root, "/var/lib/docker/containers/" ID "/config.v2.json", "{\"Name\":[");
    check_name(root, RUNTIME_DOCKER, id, "", "0123456789ab");
    make_file(root, "/var/lib/containers/storage/overlay-containers/containers.json",
              "[{\"id\":\"x\",\"names\":[\"no\"]},{\"id\":\"" ID "\",\"names\":[\"pod-web\"]}]");
    check_name(root, RUNTIME_PODMAN, id, "", "pod-web");
    check_name(root, RUNTIME_PODMAN, id, "/home/ann", "0123456789ab");
    make_file(root, "/home/ann/.local/share/containers/storage/overlay-containers/containers.json",
              "[{\"id\":\"" ID "\",\"names\":[\"anns\"]}]");
    check_name(root, RUNTIME_PODMAN, id, "/home/ann", "anns");
    make_file(root, "/run/containerd/io.containerd.runtime.v2.task/k8s.io/" ID "/config.json",
              "{\"annotations\":{\"io.kubernetes.cri.sandbox-namespace\":\"shop\","
              "\"io.kubernetes.cri.sandbox-name\":\"web-1\","
              "\"io.kubernetes.cri.container-name\":\"nginx\"}}");
    check_name(root, RUNTIME_CONTAINERD, id, "", "shop/web-1/nginx");
    check_name(root, RUNTIME_LXC, SLICE("web"), "", "web");
    check_name(root, RUNTIME_NSPAWN, SLICE("my\\x2dweb"), "", "my-web");
    check_name(root, RUNTIME_NONE, SLICE_NONE, "", "");
    snprintf(command, sizeof command, "rm -r %s", root);
    FILE *p = popen(command, "r");
    CHECK(p != NULL && pclose(p) == 0);
}

TEST("what a user puts in the place of a runtime's file is not waited for")
{
    static char root[] = "/tmp/portico-containers-XXXXXX";
    static const char list[] =
        "/home/ann/.local/share/containers/storage/overlay-containers/containers.json";
    char full[256], command[80];
    CHECK(mkdtemp(root) != NULL);
    make_file(root, list, "");
    snprintf(full, sizeof full, "%s%s", root, list);
    CHECK(unlink(full) == 0 && mkfifo(full, 0600) == 0);
    check_name(root, RUNTIME_PODMAN, SLICE(ID), "/home/ann", "0123456789ab");
    CHECK(unlink(full) == 0 && symlink("/dev/zero", full) == 0);
    check_name(root, RUNTIME_PODMAN, SLICE(ID), "/home/ann", "0123456789ab");
    snprintf(command, sizeof command, "rm -r %s", root);
    FILE *p = popen(command, "r");
    CHECK(p != NULL && pclose(p) == 0);
}

TEST("the user of a user's slice is known")
{
    CHECK_INT(control_group_user(SLICE("/user.slice/user-1000.slice/x")), 1000);
    CHECK_INT(control_group_user(SLICE("/system.slice/x.service")), 0);
    CHECK_INT(control_group_user(SLICE("/user.slice/user-no.slice")), 0);
}
