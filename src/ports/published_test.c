/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Published ports and the containers behind them, of files as Docker writes them.
 */
#include "ports/published.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/test.h"

static char root[] = "/tmp/portico-published-XXXXXX";
static struct arena arena = {.chunk_size = 1 << 14};

static void make_file(const char *id, const char *text)
{
    char full[512];
    snprintf(full, sizeof full, "%s/var/lib/docker/containers/%s/config.v2.json", root, id);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')) != NULL; *p++ = '/') {
        *p = '\0';
        mkdir(full, 0700);
    }
    FILE *f = fopen(full, "w");
    CHECK(f != NULL);
    fputs(text, f);
    fclose(f);
}

static void remove_root(void)
{
    char command[80];
    snprintf(command, sizeof command, "rm -r %s", root);
    FILE *p = popen(command, "r");
    CHECK(p != NULL && pclose(p) == 0);
}

static void make_containers(void)
{
    CHECK(mkdtemp(root) != NULL);
    make_file("aa", "{\"Name\":\"/shop\",\"State\":{\"Running\":true},\"NetworkSettings\":{\"Networks\":"
                    "{\"bridge\":{\"IPAddress\":\"172.17.0.2\",\"GlobalIPv6Address\":\"fd00::2\"}},\"Ports\":"
                    "{\"80/tcp\":[{\"HostIp\":\"0.0.0.0\",\"HostPort\":\"8080\"},{\"HostIp\":\"::\","
                    "\"HostPort\":\"8080\"}],\"443/tcp\":null}}}");
    make_file("bb", "{\"Name\":\"/mail\",\"State\":{\"Running\":true},\"NetworkSettings\":{\"Networks\":"
                    "{\"own\":{\"IPAddress\":\"172.18.0.2\"}},\"Ports\":{\"25/tcp\":[{\"HostIp\":"
                    "\"127.0.0.1\",\"HostPort\":\"2525\"}],\"53/udp\":[{\"HostIp\":\"\","
                    "\"HostPort\":\"5353\"}]}}}");
    make_file("cc", "{\"Name\":\"/old\",\"State\":{\"Running\":false},\"NetworkSettings\":{\"Networks\":"
                    "{\"bridge\":{\"IPAddress\":\"172.17.0.3\"}},\"Ports\":{\"80/tcp\":"
                    "[{\"HostPort\":\"9090\"}]}}}");
    make_file("dd", "{\"Name\":");
    make_file("ee", "[{\"NetworkSettings\":3}]");
    make_file("ff", "{\"Name\":7,\"State\":{\"Running\":true},\"NetworkSettings\":{\"Networks\":[],\"Ports\":"
                    "{\"80/tcp\":{\"HostPort\":8080},\"/\":[3],\"81/tcp\":[{\"HostPort\":\"9091\"}]}}}");
}

/* The container of a row whose owner is `pid`, a program of this name. */
static struct slice named(const char *program, pid_t pid, const char *address, uint16_t port,
                          enum port_protocol protocol)
{
    struct port_table t = {.arena = &arena};
    struct port_owner *o = ARENA_NEW(&arena, struct port_owner);
    struct port_entry *e = table_add(&t);
    *o = (struct port_owner){.pid = pid, .program = slice_from(program)};
    *e = (struct port_entry){.port = port, .protocol = protocol, .owners = o};
    CHECK(ip_parse(slice_from(address), &e->address));
    e->family = e->address.is_six ? PORT_IP6 : PORT_IP4;
    table_published(&t, root);
    return o->container;
}

TEST("docker-proxy's arguments say where it hands on, conmon's what the container is called")
{
    static const char proxy[] = "/usr/bin/docker-proxy\0-proto\0tcp\0-host-ip\0" "0.0.0.0\0-host-port\0"
                                "8080\0-container-ip\0" "172.17.0.2\0-container-port\0" "80\0";
    static const char conmon[] = "/usr/bin/conmon\0--api-version\0" "1\0-c\0" "0123\0-u\0" "0123\0-n\0"
                                 "shop\0-s";
    struct slice text = slice_of(proxy, sizeof proxy - 1);
    CHECK_TEXT(argument_behind(text, "-container-ip --container-ip"), "172.17.0.2");
    CHECK_TEXT(argument_behind(text, "--container-port -container-port"), "80");
    CHECK_TEXT(argument_behind(text, "-container"), "");
    CHECK_TEXT(argument_behind(slice_of(conmon, sizeof conmon - 1), "-n --name"), "shop");
    CHECK_TEXT(argument_behind(slice_of(conmon, sizeof conmon - 1), "-s"), "");
    CHECK_TEXT(argument_behind(SLICE(""), "-n"), "");
}

TEST("a published port's row names the container: by the address that it hands on to")
{
    int hold[2];
    make_containers();
    CHECK(pipe(hold) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(hold[0], 0);
        close(hold[1]);
        execl("/bin/sh", "sh", "-c", "read x; :", "docker-proxy", "-proto", "tcp", "-host-port",
              "8080", "-container-ip", "172.18.0.2", "-container-port", "80",
              "-n", "pod-web", (char *)NULL);
        _exit(1);
    }
    struct slice name = SLICE_NONE; /* until it is that program */
    for (int i = 0; i < 2000 && !slice_is(name, "mail"); i++) {
        name = named("docker-proxy", pid, "0.0.0.0", 8080, PORT_TCP);
        usleep(5000);
    }
    CHECK_TEXT(name, "mail");
    CHECK_TEXT(named("conmon", pid, "0.0.0.0", 8080, PORT_TCP), "pod-web");
    close(hold[1]);
    CHECK(waitpid(pid, NULL, 0) == pid);
    close(hold[0]);
}

TEST("… or by the port as which its own is published")
{
    pid_t self = getpid();
    CHECK_TEXT(named("dockerd", self, "0.0.0.0", 8080, PORT_TCP), "shop");
    CHECK_TEXT(named("dockerd", self, "::", 8080, PORT_TCP), "shop");
    CHECK_TEXT(named("docker-proxy", self, "127.0.0.1", 2525, PORT_TCP), "mail");
    CHECK_TEXT(named("docker-proxy", self, "0.0.0.0", 5353, PORT_UDP), "mail");
    CHECK_TEXT(named("docker-proxy", self, "0.0.0.0", 2525, PORT_TCP), ""); /* another address */
    CHECK_TEXT(named("docker-proxy", self, "0.0.0.0", 5353, PORT_TCP), ""); /* another protocol */
    CHECK_TEXT(named("docker-proxy", self, "0.0.0.0", 9090, PORT_TCP), ""); /* it does not run */
    CHECK_TEXT(named("docker-proxy", self, "0.0.0.0", 9091, PORT_TCP), ""); /* without a name */
    CHECK_TEXT(named("nginx", self, "0.0.0.0", 8080, PORT_TCP), "");
    remove_root();
    CHECK_TEXT(named("docker-proxy", self, "0.0.0.0", 8080, PORT_TCP), "");
}

static void make_large(const char *before)
{
    char id[32];
    for (int i = 0; i < 200; i++) {
        snprintf(id, sizeof id, "%s%d", before, i);
        make_file(id, "");
        char full[512];
        snprintf(full, sizeof full, "%s/var/lib/docker/containers/%s/config.v2.json", root, id);
        CHECK(truncate(full, (4 << 20) - (128 << 10)) == 0); /* no byte of it is on the disk */
    }
}

TEST("names are short, and of folders that are too large only a part is read")
{
    enum { GOOD = 20 };
    char text[1024], id[32], name[601];
    struct port_owner owners[GOOD];
    struct port_table t = {.arena = &arena};
    unsigned known = 0;
    memset(name, 'n', 600);
    name[600] = '\0';
    memcpy(root + strlen(root) - 6, "XXXXXX", 6); /* another one */
    CHECK(mkdtemp(root) != NULL);
    for (int i = 0; i < GOOD; i++) {
        snprintf(text, sizeof text, "{\"Name\":\"/%s\",\"State\":{\"Running\":true},\"NetworkSettings\":"
                 "{\"Ports\":{\"80/tcp\":[{\"HostPort\":\"%d\"}]}}}", name, 9000 + i);
        snprintf(id, sizeof id, "good%d", i);
        make_file(id, text);
        owners[i] = (struct port_owner){.pid = getpid(), .program = SLICE("dockerd")};
        *table_add(&t) = (struct port_entry){.port = (uint16_t)(9000 + i), .owners = &owners[i]};
        if (i == GOOD / 2 - 1) {
            CHECK_INT(named("dockerd", getpid(), "0.0.0.0", 9000, PORT_TCP).len, 255);
            make_large("b");
        }
    }
    make_large("e");
    table_published(&t, root);
    for (int i = 0; i < GOOD; i++)
        known += owners[i].container.len > 0;
    CHECK(known < GOOD);
    remove_root();
}

TEST("who can reach the published port can reach the container's own")
{
    struct port_table t = {.arena = &arena, .netns = 1};
    struct port_owner proxy = {.program = SLICE("docker-proxy"), .container = SLICE("shop"),
                               .inner_port = 80};
    static const struct port_entry rows[] = {
        {.port = 8080, .netns = 1, .reach = REACH_WORLD},
        {.port = 80, .netns = 2, .namespace = {"shop", 4}, .reach = REACH_DEVICE},
        {.port = 81, .netns = 2, .namespace = {"shop", 4}, .reach = REACH_DEVICE},
        {.port = 80, .netns = 2, .namespace = {"shop", 4}, .protocol = PORT_UDP, .reach = REACH_DEVICE},
        {.port = 80, .netns = 3, .namespace = {"mail", 4}, .reach = REACH_DEVICE},
    };
    for (size_t i = 0; i < 5; i++)
        *table_add(&t) = rows[i];
    t.entries[0].owners = &proxy;
    table_reach_published(&t);
    for (size_t i = 0; i < 5; i++)
        CHECK_INT(t.entries[i].reach, i < 2 ? REACH_WORLD : REACH_DEVICE);
    t.entries[1].reach = REACH_DEVICE;
    t.entries[0].reach = REACH_UNKNOWN;
    t.entries[0].reach_why = SLICE("table ip nat");
    table_reach_published(&t);
    CHECK_INT(t.entries[1].reach, REACH_UNKNOWN);
    CHECK_TEXT(t.entries[1].reach_why, "table ip nat");
    t.entries[0].reach = REACH_WORLD;
    table_reach_published(&t);
    CHECK_INT(t.entries[1].reach, REACH_UNKNOWN);
}
