/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network addresses against Caddy's tables; listening sockets against the kernel.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/test.h"
#include "config/table_testing.h"
#include "net/holder.h"
#include "net/listener.h"

static struct arena arena;
static struct address_error why;

static int64_t number(const json_t *row, const char *key)
{
    return json_integer_value(json_object_get(row, key));
}

TEST("addresses are taken apart as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("network-address-split");
    arena_init(&arena, 4096);
    json_array_foreach(cases, i, row)
    {
        struct slice network, host, port;
        enum err e = address_split(row_slice(row, "input"), &network, &host, &port, &arena, &why);
        CHECK_INT(e != OK, json_is_true(json_object_get(row, "error")));
        if (e != OK)
            continue;
        CHECK_SLICE(network, row_slice(row, "network"));
        CHECK_SLICE(host, row_slice(row, "host"));
        CHECK_SLICE(port, row_slice(row, "port"));
    }
    json_decref(cases);
    arena_deinit(&arena);
}

TEST("addresses with ports, ranges and defaults are read as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("network-address-parse");
    arena_init(&arena, 4096);
    json_array_foreach(cases, i, row)
    {
        struct network_address a;
        enum err e = address_parse(row_slice(row, "input"), row_slice(row, "default_network"),
                                   (uint16_t)number(row, "default_port"), &a, &arena, &why);
        CHECK_INT(e != OK, json_is_true(json_object_get(row, "error")));
        if (e != OK)
            continue;
        CHECK_SLICE(a.network, row_slice(row, "network"));
        CHECK_SLICE(a.host, row_slice(row, "host"));
        CHECK_INT(a.first_port, number(row, "start_port"));
        CHECK_INT(a.last_port, number(row, "end_port"));
    }
    json_decref(cases);
    arena_deinit(&arena);
}

TEST("addresses are joined as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("network-address-join");
    arena_init(&arena, 4096);
    json_array_foreach(cases, i, row)
    {
        struct slice got = address_join(row_slice(row, "network"), row_slice(row, "host"),
                                        row_slice(row, "port"), &arena);
        CHECK_SLICE(got, row_slice(row, "expect"));
    }
    json_decref(cases);
    arena_deinit(&arena);
}

/* As ls writes it, but of mode bits that Go's FileMode prints: "-rw-rw----". */
static void mode_text(uint32_t mode, char out[11])
{
    static const char letters[] = "rwxrwxrwx";
    out[0] = '-';
    for (int i = 0; i < 9; i++)
        out[1 + i] = mode & (0400U >> i) ? letters[i] : '-';
    out[10] = '\0';
}

TEST("the mode of a Unix socket is read as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("unix-socket-permissions");
    json_array_foreach(cases, i, row)
    {
        struct slice path;
        uint32_t mode;
        char letters[11];
        enum err e = unix_permissions(row_slice(row, "input"), &path, &mode, &why);
        CHECK_INT(e != OK, json_is_true(json_object_get(row, "error")));
        if (e != OK)
            continue;
        mode_text(mode, letters);
        CHECK_SLICE(path, row_slice(row, "path"));
        CHECK_TEXT(slice_from(letters), json_string_value(json_object_get(row, "mode")));
    }
    json_decref(cases);
}

static int fds[4];
static char error[512];

TEST("several sockets share one address, and a second server is told who holds it")
{
    struct listen_request r = {SLICE("tcp"), SLICE("127.0.0.1"), 0, 3};
    uint16_t port, other;
    char self[32];
    CHECK_OK(listen_open(&r, fds, &port, error, sizeof error));
    CHECK(port > 0);
    struct listen_request again = {SLICE("tcp"), SLICE("127.0.0.1"), port, 1};
    int more[1];
    CHECK_INT(listen_open(&again, more, &other, error, sizeof error), ERR_EXISTS);
    snprintf(self, sizeof self, "(pid %d)", (int)getpid());
    CHECK(strstr(error, "address already in use") != NULL);
    CHECK(strstr(error, self) != NULL);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    CHECK_OK(listen_open(&again, more, &other, error, sizeof error));
    CHECK_INT(other, port);
    close(more[0]);
    port_holder(SLICE_NONE, port, error, sizeof error);
    CHECK_TEXT(slice_from(error), "");
}

static int connect_to(const char *host, uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &a.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int e = connect(fd, (struct sockaddr *)&a, sizeof a);
    close(fd);
    return e;
}

TEST("an empty host takes IPv4 connections")
{
    struct listen_request r = {SLICE("tcp"), SLICE(""), 0, 1};
    uint16_t port;
    CHECK_OK(listen_open(&r, fds, &port, error, sizeof error));
    CHECK_INT(connect_to("127.0.0.1", port), 0);
    close(fds[0]);
}

TEST("a Unix socket has its mode, replaces a left-over and refuses a live one")
{
    char path[64], host[80];
    struct stat st;
    uint16_t port;
    snprintf(path, sizeof path, "/tmp/portico-net-test-%d.sock", (int)getpid());
    snprintf(host, sizeof host, "%s|0660", path);
    struct listen_request r = {SLICE("unix"), slice_from(host), 0, 1};
    CHECK_OK(listen_open(&r, fds, &port, error, sizeof error));
    CHECK_INT(stat(path, &st), 0);
    CHECK_INT(st.st_mode & 0777, 0660);
    CHECK_INT(listen_open(&r, fds + 1, &port, error, sizeof error), ERR_EXISTS);
    close(fds[0]);
    CHECK_OK(listen_open(&r, fds, &port, error, sizeof error));
    close(fds[0]);
    unlink(path);
}

TEST("the file of a Unix socket is removed, and no other that stands in its place")
{
    char folder[] = "/tmp/portico-net-test-XXXXXX", path[64], other[64], away[64], link[64], text[80];
    struct socket_file file;
    uint16_t port;
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/in/socket", folder);
    snprintf(other, sizeof other, "%s/elsewhere/socket", folder);
    snprintf(away, sizeof away, "%s/away", folder);
    snprintf(link, sizeof link, "%s/in", folder);
    snprintf(text, sizeof text, "%s/elsewhere", folder);
    CHECK(mkdir(link, 0755) == 0 && mkdir(text, 0755) == 0);
    struct listen_request r = {SLICE("unix"), slice_from(path), 0, 1, .file = &file};
    struct listen_request theirs = {SLICE("unix"), slice_from(other), 0, 1};
    CHECK_OK(listen_open(&r, fds, &port, error, sizeof error));
    CHECK_OK(listen_open(&theirs, fds + 1, &port, error, sizeof error));
    CHECK(rename(link, away) == 0 && symlink(text, link) == 0);
    socket_file_remove(&file, path);
    CHECK_INT(access(other, F_OK), 0);
    CHECK(unlink(link) == 0 && rename(away, link) == 0);
    socket_file_remove(&file, path);
    CHECK(access(path, F_OK) != 0);
    close(fds[0]);
    close(fds[1]);
    CHECK(unlink(other) == 0 && rmdir(text) == 0 && rmdir(link) == 0 && rmdir(folder) == 0);
}

TEST("what is bound to a path that leads elsewhere by then is not taken")
{
    char folder[] = "/tmp/portico-net-test-XXXXXX", path[64];
    struct socket_place place;
    struct socket_file file;
    bool alive;
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/socket", folder);
    CHECK_INT(socket_place_open(&place, path), 0);
    CHECK_INT(socket_place_clear(&place, &alive), 0);
    CHECK_INT(socket_place_settle(&place, 0660, 0, 0, &file), ENOENT);
    CHECK_INT(symlink("/dev/null", path), 0);
    CHECK_INT(socket_place_settle(&place, 0660, 0, 0, &file), EADDRINUSE);
    CHECK_INT(socket_place_clear(&place, &alive), EADDRINUSE);
    CHECK(!alive);
    socket_place_close(&place);
    CHECK(unlink(path) == 0 && rmdir(folder) == 0);
}

TEST("an inherited socket is taken by its number, anything else is refused")
{
    struct listen_request tcp = {SLICE("tcp"), SLICE("127.0.0.1"), 0, 1};
    uint16_t port, again;
    char number_text[16];
    CHECK_OK(listen_open(&tcp, fds, &port, error, sizeof error));
    snprintf(number_text, sizeof number_text, "%d", fds[0]);
    struct listen_request r = {SLICE("fd"), slice_from(number_text), 0, 1};
    CHECK_OK(listen_open(&r, fds + 1, &again, error, sizeof error));
    CHECK_INT(again, port);
    close(fds[0]);
    close(fds[1]);
    CHECK_INT(listen_open(&r, fds, &port, error, sizeof error), ERR_INVALID);
    CHECK(strstr(error, "no listening stream socket") != NULL);
}
