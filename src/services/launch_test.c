/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The description of a program there and back, what is refused, and messages with descriptors.
 */
#include "services/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/test.h"
#include "services/supervisor_wire.h"

static struct slice words[] = {{"node", 4}, {"index.js", 8}, {"", 0}};
static struct slice variables[] = {{"PORT=3000", 9}, {"EMPTY=", 6}};

static struct launch sample(void)
{
    return (struct launch){.service = SLICE("simon"), .replica = 3, .digest = 77, .argv = words,
                           .argv_count = 3, .env = variables, .env_count = 2,
                           .dir = SLICE("/srv/simon"), .user = SLICE("simon"), .group = SLICE("www"),
                           .memory = 1 << 20, .tasks = 64, .files = 1024, .cpu = 0.5, .port = 3000,
                           .confine = true, .socket = true, .host = SLICE("127.0.0.1")};
}

static enum err there_and_back(const struct launch *l, struct launch *out, struct arena *a,
                               char *error, size_t cap)
{
    int fd = launch_write(l);
    CHECK(fd >= 0);
    enum err e = launch_read(fd, out, a, error, cap);
    close(fd);
    return e;
}

TEST("a launch reads as it was written")
{
    struct arena a;
    struct launch l = sample(), got;
    char error[200] = "";
    arena_init(&a, 4096);
    CHECK_OK(there_and_back(&l, &got, &a, error, sizeof error));
    CHECK_TEXT(got.service, "simon");
    CHECK_TEXT(got.dir, "/srv/simon");
    CHECK_TEXT(got.user, "simon");
    CHECK_TEXT(got.group, "www");
    CHECK_TEXT(got.host, "127.0.0.1");
    CHECK_INT(got.argv_count, 3);
    CHECK_TEXT(got.argv[1], "index.js");
    CHECK_TEXT(got.argv[2], "");
    CHECK_INT(got.env_count, 2);
    CHECK_TEXT(got.env[1], "EMPTY=");
    CHECK_INT(got.replica, 3);
    CHECK_INT(got.digest, 77);
    CHECK_INT(got.memory, 1 << 20);
    CHECK_INT(got.tasks, 64);
    CHECK_INT(got.files, 1024);
    CHECK(got.cpu == 0.5 && got.confine && got.socket);
    CHECK_INT(got.port, 3000);
    arena_deinit(&a);
}

TEST("the memory file of a launch can not be changed any more")
{
    struct launch l = sample();
    int fd = launch_write(&l);
    CHECK(fd >= 0);
    CHECK(write(fd, "x", 1) < 0 && errno == EPERM);
    CHECK(ftruncate(fd, 0) < 0 && errno == EPERM);
    CHECK(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    close(fd);
}

static void check_refused(const struct launch *l, const char *want)
{
    struct arena a;
    struct launch got;
    char error[200] = "";
    arena_init(&a, 4096);
    CHECK_INT(there_and_back(l, &got, &a, error, sizeof error), ERR_INVALID);
    if (strstr(error, want) == NULL)
        test_fail(__FILE__, __LINE__, "\"%s\" does not say \"%s\"", error, want);
    arena_deinit(&a);
}

TEST("a launch that makes no sense is refused with a sentence")
{
    struct launch l = sample();
    l.service = SLICE("../etc");
    check_refused(&l, "name");
    l = sample();
    l.argv_count = 0;
    check_refused(&l, "nothing to run");
    l = sample();
    struct slice bare[] = {{"PORT", 4}}, nameless[] = {{"=x", 2}}, nul[] = {{"A=\0b", 4}};
    l.env = bare;
    l.env_count = 1;
    check_refused(&l, "variable");
    l.env = nameless;
    check_refused(&l, "variable");
    l.env = nul;
    check_refused(&l, "variable");
    l = sample();
    l.dir = SLICE("srv");
    check_refused(&l, "absolute");
    l = sample();
    l.cpu = NAN;
    check_refused(&l, "cpu");
    l = sample();
    l.cpu = -1;
    check_refused(&l, "cpu");
    l = sample();
    l.port = 0;
    check_refused(&l, "socket without an address");
}

TEST("a launch that is too large is not written")
{
    struct launch l = sample();
    static char big[LAUNCH_BYTES_MAX + 1];
    memset(big, 'a', sizeof big);
    struct slice one[] = {slice_of(big, sizeof big)};
    l.argv = one;
    l.argv_count = 1;
    CHECK(launch_write(&l) < 0 && errno == E2BIG);
}

TEST("every cut and every flipped byte of a launch is refused or read, never trusted")
{
    struct arena a;
    struct launch l = sample(), got;
    char bytes[4096], error[200];
    int fd = launch_write(&l);
    ssize_t n = pread(fd, bytes, sizeof bytes, 0);
    CHECK(n > 0 && (size_t)n < sizeof bytes);
    close(fd);
    arena_init(&a, 4096);
    for (size_t len = 0; len < (size_t)n; len++)
        CHECK_INT(launch_parse(slice_of(bytes, len), &got, &a, error, sizeof error), ERR_INVALID);
    for (size_t i = 0; i < (size_t)n; i++) {
        bytes[i] ^= (char)0x80;
        (void)launch_parse(slice_of(bytes, (size_t)n), &got, &a, error, sizeof error);
        bytes[i] ^= (char)0x80;
        arena_reset(&a);
    }
    arena_deinit(&a);
}

TEST("what is no sealed memory file is not read")
{
    struct arena a;
    struct launch got;
    char error[200] = "";
    int pair[2], plain = memfd_create("plain", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK_INT(pipe2(pair, O_CLOEXEC), 0);
    arena_init(&a, 4096);
    CHECK_INT(launch_read(pair[0], &got, &a, error, sizeof error), ERR_INVALID);
    CHECK_INT(launch_read(plain, &got, &a, error, sizeof error), ERR_INVALID);
    CHECK_INT(launch_read(-1, &got, &a, error, sizeof error), ERR_INVALID);
    arena_deinit(&a);
    close(pair[0]);
    close(pair[1]);
    close(plain);
}

TEST("a message arrives whole, with its descriptors close-on-exec")
{
    struct supervisor_message m = {.kind = SUPERVISE_STARTED, .instance = UINT64_MAX, .pid = 7}, got;
    int pair[2], fds[SUPERVISE_FDS];
    unsigned count = SUPERVISE_FDS;
    CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    CHECK_INT(supervisor_receive(pair[1], &got, fds, &count, MSG_DONTWAIT), ERR_TIMEOUT);
    CHECK_INT(count, 0);
    memset(m.text, 'x', sizeof m.text); /* no NUL */
    CHECK_OK(supervisor_send(pair[0], &m, (int[]){0, pair[0]}, 2));
    count = SUPERVISE_FDS;
    CHECK_OK(supervisor_receive(pair[1], &got, fds, &count, 0));
    CHECK_INT(count, 2);
    CHECK_INT(got.instance == UINT64_MAX && got.pid == 7, true);
    CHECK_INT(strlen(got.text), SUPERVISE_TEXT - 1);
    CHECK((fcntl(fds[0], F_GETFD) & FD_CLOEXEC) != 0);
    close(fds[0]);
    close(fds[1]);
    close(pair[0]);
    count = 0;
    CHECK_INT(supervisor_receive(pair[1], &got, NULL, &count, 0), ERR_CLOSED);
    CHECK_INT(supervisor_send(pair[1], &m, NULL, 0), ERR_CLOSED);
    close(pair[1]);
}

TEST("a message of another size, or with too many descriptors, is dropped and leaks none")
{
    struct supervisor_message m = {.kind = SUPERVISE_START}, got;
    int pair[2], fds[1];
    unsigned count = 1;
    CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    int before = fcntl(pair[0], F_DUPFD_CLOEXEC, 0);
    close(before);
    CHECK_INT(send(pair[0], "short", 5, 0), 5);
    CHECK_INT(supervisor_receive(pair[1], &got, fds, &count, 0), ERR_INVALID);
    CHECK_OK(supervisor_send(pair[0], &m, (int[]){0, 0, 0}, 3));
    count = 1;
    CHECK_INT(supervisor_receive(pair[1], &got, fds, &count, 0), ERR_LIMIT);
    CHECK_INT(count, 0);
    int after = fcntl(pair[0], F_DUPFD_CLOEXEC, 0);
    CHECK_INT(after, before);
    close(after);
    while (supervisor_offer(pair[0], &m, NULL, 0) == OK) {
    }
    CHECK_INT(supervisor_offer(pair[0], &m, NULL, 0), ERR_TIMEOUT);
    close(pair[0]);
    close(pair[1]);
}

TEST("a message whose descriptors have no room is told from one that is none of ours")
{
    struct supervisor_message m = {.kind = SUPERVISE_STARTED, .instance = 9}, got;
    struct rlimit limit, low;
    int pair[2], fds[2], room;
    unsigned count = 2;
    CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    CHECK_OK(supervisor_send(pair[0], &m, (int[]){0, 0}, 2));
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    room = fcntl(pair[0], F_DUPFD_CLOEXEC, 0);
    low = (struct rlimit){(rlim_t)room + 1, limit.rlim_max};
    close(room);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &low), 0); /* for one of the two */
    enum err e = supervisor_receive(pair[1], &got, fds, &count, 0);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    CHECK_INT(e, ERR_LIMIT);
    CHECK_INT(count, 0);
    CHECK_INT(got.kind, SUPERVISE_STARTED);
    CHECK_INT(got.instance, 9);
    int again = fcntl(pair[0], F_DUPFD_CLOEXEC, 0);
    CHECK_INT(again, room);
    close(again);
    close(pair[0]);
    close(pair[1]);
}
