/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file system's storage: what stands on the disk afterwards, and what others who use the same
 * folder meanwhile (threads, fibers, processes, Caddy's lock files) can and cannot do to it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/test.h"
#include "loop/await.h"
#include "loop/offload.h"
#include "pki/file_storage.h"
#include "pki/lock_file.h"

static char folder[64];
static struct storage *storage;
static struct storage_why why;
static struct arena arena;

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    return remove(path);
}

static void clean_up(void)
{
    if (folder[0] != '\0')
        nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void begin(void)
{
    offload_stop(); /* a fork takes no threads along: what is left of them must not be waited for */
    if (folder[0] == '\0') {
        arena_init(&arena, 4096);
        atexit(clean_up);
    }
    clean_up();
    snprintf(folder, sizeof folder, "/tmp/portico-storage-XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
    rmdir(folder); /* it is made when it is needed */
    storage = storage_open_files(slice_from(folder));
    why.text[0] = '\0';
}

static void end(void)
{
    storage->type->close(storage);
    clean_up();
}

static const char *path_of(const char *key)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, key);
    return path;
}

static enum err put(const char *key, const char *value)
{
    return storage->type->store(storage, slice_from(key), slice_from(value), &why);
}

static unsigned mode_of(const char *key)
{
    struct stat st;
    return stat(path_of(key), &st) == 0 ? st.st_mode & 07777 : 0;
}

static void write_file(const char *key, const char *text)
{
    int fd = open(path_of(key), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

/* --- names --- */

TEST("safe names are certmagic's")
{
    static const char *const rows[][2] = {
        {"Example.COM", "example.com"},
        {"*.example.com", "wildcard_.example.com"},
        {" a b ", "a_b"},
        {"a+b", "a_plus_b"},
        {"[2001:db8::1]", "2001-db8--1"},
        {"../../etc/passwd", "etcpasswd"},
        {"a..b...c", "ab.c"},
        {"https://acme-v02.api.letsencrypt.org/directory",
         "https-acme-v02.api.letsencrypt.orgdirectory"},
        {"you@example.com", "you@example.com"},
        {"b\xc3\xbc" "cher", "bcher"},
        {"\tx\n", "x"},
        {"", ""},
    };
    arena_init(&arena, 4096);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        CHECK_TEXT(storage_safe(&arena, slice_from(rows[i][0])), rows[i][1]);
    arena_deinit(&arena);
}

TEST("times of lock files are read in every zone, and written as they are read")
{
    static const struct {
        const char *text;
        int64_t ns;
    } rows[] = {
        {"1970-01-01T00:00:01Z", 1000000000},
        {"1970-01-01T01:00:01.5+01:00", 1500000000},
        {"2022-12-01T10:00:00.123456789-07:30", INT64_C(1669915800123456789)},
        {"0001-01-01T00:00:00Z", -INT64_C(9223372035000000000)},
        {"9999-12-31T23:59:59Z", INT64_C(9223372035000000000)},
    };
    int64_t ns;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK(rfc3339_read(slice_from(rows[i].text), &ns));
        CHECK_INT(ns, rows[i].ns);
    }
    static const char *const wrong[] = {"", "2022-12-01", "2022-13-01T10:00:00Z", "2022-12-01T10:00:00",
                                        "2022-12-01T10:00:00+1:00", "2022-12-01 10:00:00Z"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        CHECK(!rfc3339_read(slice_from(wrong[i]), &ns));
    char text[LOCK_FILE_MAX];
    size_t len = lock_file_write(1500000000, 2500000001, text);
    CHECK_SLICE(slice_of(text, len), SLICE("{\"created\":\"1970-01-01T00:00:01.500000000Z\","
                                           "\"updated\":\"1970-01-01T00:00:02.500000001Z\"}\n"));
    CHECK(lock_file_read(slice_of(text, len), &ns));
    CHECK_INT(ns, 2500000001);
    CHECK(!lock_file_read(slice_of(text, 20), &ns));
}

/* --- values --- */

TEST("a value is stored in folders 0700 and a file 0600, found, and removed")
{
    struct slice value;
    struct storage_info info;
    begin();
    umask(022);
    CHECK_OK(put("certificates/ca/example.com/example.com.key", "secret"));
    CHECK_INT(mode_of(""), 0700);
    CHECK_INT(mode_of("certificates/ca/example.com"), 0700);
    CHECK_INT(mode_of("certificates/ca/example.com/example.com.key"), 0600);
    struct slice key = SLICE("certificates/ca/example.com/example.com.key");
    CHECK_OK(storage->type->load(storage, key, &arena, &value, &why));
    CHECK_TEXT(value, "secret");
    CHECK_OK(storage->type->stat(storage, key, &info, &why));
    CHECK_INT(info.size, 6);
    CHECK(!info.is_folder);
    CHECK(llabs(clock_wall_ns() - info.modified_ns) < 60 * (int64_t)NS_PER_S);
    CHECK_OK(put("certificates/ca/example.com/example.com.key", ""));
    CHECK_OK(storage->type->load(storage, key, &arena, &value, &why));
    CHECK_INT(value.len, 0);
    CHECK_OK(storage->type->remove(storage, SLICE("certificates/ca"), &why));
    CHECK_INT(storage->type->load(storage, key, &arena, &value, &why), ERR_NOT_FOUND);
    CHECK(strstr(why.text, "No such file or directory") != NULL);
    CHECK_INT(storage->type->stat(storage, key, &info, &why), ERR_NOT_FOUND);
    CHECK_OK(storage->type->remove(storage, key, &why)); /* as it is wanted */
    end();
}

TEST("keys are listed in order, without what a crash left, which goes when it is old")
{
    struct slice *keys;
    size_t count;
    begin();
    CHECK_OK(put("a/two/y", "1"));
    CHECK_OK(put("a/two/x", "1"));
    CHECK_OK(put("a/one", "1"));
    write_file("a/.portico-new-0123456789abcdef", "half");
    CHECK_OK(storage->type->list(storage, SLICE("a"), true, &arena, &keys, &count, &why));
    CHECK_INT(count, 4);
    CHECK_TEXT(keys[0], "a/one");
    CHECK_TEXT(keys[1], "a/two");
    CHECK_TEXT(keys[2], "a/two/x");
    CHECK_TEXT(keys[3], "a/two/y");
    CHECK_INT(access(path_of("a/.portico-new-0123456789abcdef"), F_OK), 0);
    struct timespec old[2] = {{1000, 0}, {1000, 0}};
    utimensat(AT_FDCWD, path_of("a/.portico-new-0123456789abcdef"), old, 0);
    CHECK_OK(storage->type->list(storage, SLICE("a/"), false, &arena, &keys, &count, &why));
    CHECK_INT(count, 2);
    CHECK(access(path_of("a/.portico-new-0123456789abcdef"), F_OK) != 0);
    CHECK_INT(storage->type->list(storage, SLICE("none"), true, &arena, &keys, &count, &why),
              ERR_NOT_FOUND);
    end();
}

TEST("no key leaves the folder or means all of it")
{
    static const char *const wrong[] = {"../x", "a/../../x", "a/./b", "", "/", ".portico-new-1"};
    struct slice value;
    begin();
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK_INT(put(wrong[i], "x"), ERR_INVALID);
        CHECK_INT(storage->type->remove(storage, slice_from(wrong[i]), &why), ERR_INVALID);
    }
    CHECK_INT(put("a\0b", "x"), OK);
    CHECK_INT(storage->type->load(storage, slice_of("a\0b", 3), &arena, &value, &why), ERR_INVALID);
    CHECK_OK(put("//a//b/", "x") == OK ? ERR_FAILED : OK); /* "a" is a file */
    CHECK_OK(put("//c//d/", "x"));
    CHECK_INT(mode_of("c/d"), 0600);
    end();
}

TEST("what is no plain file is refused, not waited for")
{
    struct slice value;
    begin();
    CHECK_OK(put("a", "x"));
    CHECK_INT(mkfifo(path_of("pipe"), 0600), 0);
    CHECK(storage->type->load(storage, SLICE("pipe"), &arena, &value, &why) != OK);
    CHECK_INT(mkdir(path_of("folder"), 0700), 0);
    CHECK(storage->type->load(storage, SLICE("folder"), &arena, &value, &why) != OK);
    end();
}

TEST("removing follows no links")
{
    begin();
    CHECK_OK(put("keep/x", "1"));
    CHECK_OK(put("go/y", "1"));
    char target[128];
    snprintf(target, sizeof target, "%s/keep", folder);
    CHECK_INT(symlink(target, path_of("go/link")), 0);
    CHECK_OK(storage->type->remove(storage, SLICE("go"), &why));
    CHECK_INT(access(path_of("keep/x"), F_OK), 0);
    CHECK(access(path_of("go"), F_OK) != 0);
    end();
}

/* --- ends without warning, and disks that do not take it --- */

enum { BIG = 200000 };

static void store_for_ever(void)
{
    static char value[BIG];
    for (char c = 'a';; c = c == 'z' ? 'a' : (char)(c + 1)) {
        memset(value, c, sizeof value);
        (void)!storage->type->store(storage, SLICE("x/value"), slice_of(value, sizeof value), &why);
    }
}

TEST("a process that is killed while it stores leaves the old value or the new one: 100 rounds")
{
    struct slice value;
    unsigned stored = 0;
    begin();
    CHECK_OK(put("x/value", ""));
    for (int round = 0; round < 100; round++) {
        pid_t child = fork();
        if (child == 0)
            store_for_ever();
        usleep(500 + (useconds_t)(round * 131 % 6000));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        arena_reset(&arena);
        CHECK_OK(storage->type->load(storage, SLICE("x/value"), &arena, &value, &why));
        CHECK(value.len == 0 || value.len == BIG);
        for (size_t i = 1; i < value.len; i++)
            CHECK(value.ptr[i] == value.ptr[0]);
        stored += value.len == BIG;
    }
    CHECK(stored > 0);
    struct slice *keys;
    size_t count;
    CHECK_OK(storage->type->list(storage, SLICE("x"), true, &arena, &keys, &count, &why));
    CHECK_INT(count, 1);
    end();
}

/* In a child with a small disk of its own; its exit status says which check failed. */
static int on_small_disk(void)
{
    static char big[1 << 20];
    struct slice value;
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return 77;
    CHECK_OK(put("x", "old"));
    if (mount("none", folder, "tmpfs", 0, "size=64k") != 0)
        return 77;
    if (put("x", "old") != OK)
        return 1;
    memset(big, 'b', sizeof big);
    if (storage->type->store(storage, SLICE("x"), slice_of(big, sizeof big), &why) == OK ||
        strstr(why.text, "No space left on device") == NULL)
        return 2;
    if (storage->type->load(storage, SLICE("x"), &arena, &value, &why) != OK ||
        !slice_is(value, "old"))
        return 3;
    if (put("y", "small") != OK) /* what could not be written is gone again */
        return 4;
    if (mount("none", folder, "tmpfs", MS_REMOUNT | MS_RDONLY, "size=64k") != 0)
        return 77;
    if (put("x", "new") == OK || strstr(why.text, "Read-only file system") == NULL)
        return 5;
    if (storage->type->lock(storage, SLICE("l"), 0, &why) == OK ||
        strstr(why.text, "Read-only file system") == NULL)
        return 6;
    if (storage->type->load(storage, SLICE("x"), &arena, &value, &why) != OK ||
        !slice_is(value, "old"))
        return 7;
    return 0;
}

TEST("a full disk and a read-only one are told in a sentence, and harm no value")
{
    begin();
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(on_small_disk());
    waitpid(child, &status, 0);
    end();
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        test_skip("no disk may be mounted here");
    CHECK_INT(status, 0);
}

/* --- locks --- */

/* For tests that wait for it. */
static void hurry(void)
{
    CONTAINER_OF(storage, struct file_storage, storage)->fresh_ns = (int64_t)NS_PER_S;
}

static void check_taken(const char *name)
{
    CHECK_INT(storage->type->lock(storage, slice_from(name), clock_mono_ns() + 100 * NS_PER_MS, &why),
              ERR_TIMEOUT);
}

TEST("a lock is a file with times, 0600, refreshed while it is held, and gone afterwards")
{
    char text[LOCK_FILE_MAX];
    int64_t first, second;
    begin();
    hurry();
    CHECK_OK(storage->type->lock(storage, SLICE("issue_cert_*.Example.com"), 0, &why));
    CHECK_INT(mode_of("locks"), 0700);
    CHECK_INT(mode_of("locks/issue_cert_wildcard_.example.com.lock"), 0600);
    int fd = open(path_of("locks/issue_cert_wildcard_.example.com.lock"), O_RDONLY);
    ssize_t n = pread(fd, text, sizeof text, 0);
    CHECK(lock_file_read(slice_of(text, (size_t)n), &first));
    CHECK(llabs(clock_wall_ns() - first) < 60 * (int64_t)NS_PER_S);
    check_taken("issue_cert_*.example.com");
    for (int i = 0; i < 100; i++) {
        usleep(100000);
        n = pread(fd, text, sizeof text, 0);
        CHECK(n > 0 && lock_file_read(slice_of(text, (size_t)n), &second));
        if (second != first)
            break;
    }
    CHECK(second - first > 900 * (int64_t)NS_PER_MS);
    close(fd);
    CHECK_OK(storage->type->unlock(storage, SLICE("issue_cert_*.Example.com"), &why));
    CHECK(access(path_of("locks/issue_cert_wildcard_.example.com.lock"), F_OK) != 0);
    CHECK_INT(storage->type->unlock(storage, SLICE("issue_cert_*.Example.com"), &why), ERR_NOT_FOUND);
    end();
}

TEST("a stale lock file is taken over, a fresh one is respected, whoever wrote it")
{
    char text[LOCK_FILE_MAX];
    begin();
    CHECK_OK(put("locks/x", ""));
    write_file("locks/old.lock", "{\"created\":\"2022-12-01T10:00:00.123456789+01:00\","
                                 "\"updated\":\"2022-12-01T10:00:05.1+01:00\"}\n");
    CHECK_OK(storage->type->lock(storage, SLICE("old"), clock_mono_ns() + NS_PER_S, &why));
    int64_t now = clock_wall_ns();
    lock_file_write(now - 60 * (int64_t)NS_PER_S, now - 2 * (int64_t)NS_PER_S, text);
    write_file("locks/fresh.lock", text);
    check_taken("fresh");
    write_file("locks/empty.lock", ""); /* somebody is just writing it */
    check_taken("empty");
    struct timespec old[2] = {{1000, 0}, {1000, 0}};
    utimensat(AT_FDCWD, path_of("locks/empty.lock"), old, 0);
    CHECK_OK(storage->type->lock(storage, SLICE("empty"), clock_mono_ns() + NS_PER_S, &why));
    end(); /* gives both back */
    begin();
    end();
}

TEST("a lock file of another clock, that nobody refreshes, is stale in the end")
{
    char text[LOCK_FILE_MAX];
    begin();
    hurry();
    CHECK_OK(put("locks/x", ""));
    int64_t ahead = clock_wall_ns() + 3600 * (int64_t)NS_PER_S;
    lock_file_write(ahead, ahead, text);
    write_file("locks/ahead.lock", text);
    uint64_t before = clock_mono_ns();
    CHECK_OK(storage->type->lock(storage, SLICE("ahead"), before + 30 * NS_PER_S, &why));
    CHECK(clock_mono_ns() - before > 3 * NS_PER_S);
    end();
}

TEST("who lost a lock removes nobody else's")
{
    begin();
    CHECK_OK(storage->type->lock(storage, SLICE("mine"), 0, &why));
    CHECK_INT(unlink(path_of("locks/mine.lock")), 0);
    write_file("locks/mine.lock", "{}");
    CHECK_OK(storage->type->unlock(storage, SLICE("mine"), &why));
    CHECK_INT(access(path_of("locks/mine.lock"), F_OK), 0);
    end();
}

/* Each round: nobody else may be inside, told by a folder that only one can make. */
static unsigned fight(unsigned rounds)
{
    struct storage_why text;
    char inside[128];
    unsigned wrong = 0;
    snprintf(inside, sizeof inside, "%s/inside", folder);
    for (unsigned i = 0; i < rounds; i++) {
        if (storage->type->lock(storage, SLICE("fight"), 0, &text) != OK || mkdir(inside, 0700) != 0) {
            wrong++;
            continue;
        }
        usleep(500);
        rmdir(inside);
        wrong += storage->type->unlock(storage, SLICE("fight"), &text) != OK;
    }
    return wrong;
}

static void *fight_in_thread(void *arg)
{
    *(unsigned *)arg = fight(8);
    return NULL;
}

static void on_fighter(void *arg)
{
    *(unsigned *)arg = fight(8);
    loop_stop(loop_self());
}

static unsigned fight_on_fiber(enum loop_kind kind)
{
    struct loop *loop;
    unsigned wrong = 1;
    if (loop_create(kind, &loop) != OK || fiber_start(loop, on_fighter, &wrong) != OK)
        return 100;
    loop_run(loop);
    loop_destroy(loop);
    return wrong;
}

TEST("of three processes, threads and fibers one at a time holds a lock")
{
    pid_t children[2];
    pthread_t thread;
    unsigned wrong = 1;
    int status[2];
    begin();
    CHECK_OK(put("x", "")); /* the folder is there */
    for (int i = 0; i < 2; i++) {
        children[i] = fork();
        if (children[i] == 0)
            _exit(fight(8) + fight_on_fiber(i == 0 || !loop_probe_uring() ? LOOP_EPOLL : LOOP_URING) != 0);
    }
    CHECK_INT(pthread_create(&thread, NULL, fight_in_thread, &wrong), 0);
    unsigned own = fight(8);
    pthread_join(thread, NULL);
    for (int i = 0; i < 2; i++)
        waitpid(children[i], &status[i], 0);
    CHECK_INT(own, 0);
    CHECK_INT(wrong, 0);
    CHECK_INT(status[0], 0);
    CHECK_INT(status[1], 0);
    end();
}

TEST("the lock of a process that was killed is taken over when it is stale, by one of two")
{
    begin();
    CHECK_OK(put("x", ""));
    int ready[2];
    char byte;
    CHECK_INT(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        enum err e = storage->type->lock(storage, SLICE("fight"), 0, &why);
        (void)!write(ready[1], "x", e == OK);
        pause();
    }
    CHECK_INT(read(ready[0], &byte, 1), 1);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(ready[0]);
    close(ready[1]);
    uint64_t before = clock_mono_ns();
    pthread_t thread;
    unsigned wrong = 1;
    CHECK_INT(pthread_create(&thread, NULL, fight_in_thread, &wrong), 0);
    unsigned own = fight(8);
    pthread_join(thread, NULL);
    CHECK_INT(own, 0);
    CHECK_INT(wrong, 0);
    CHECK(clock_mono_ns() - before > 8 * NS_PER_S);
    CHECK(clock_mono_ns() - before < 120 * NS_PER_S);
    end();
}

/* --- on fibers --- */

static unsigned ticks;
static struct timer ticker;

static void on_tick(struct timer *t)
{
    ticks++;
    timer_start(loop_self(), t, loop_now_ns(loop_self()) + 10 * NS_PER_MS);
}

static void use_all(void *arg)
{
    struct slice value, *keys;
    size_t count;
    enum err *result = arg;
    *result = put("f/x", "fiber");
    if (*result == OK)
        *result = storage->type->load(storage, SLICE("f/x"), &arena, &value, &why);
    if (*result == OK && !slice_is(value, "fiber"))
        *result = ERR_FAILED;
    if (*result == OK)
        *result = storage->type->list(storage, SLICE("f"), true, &arena, &keys, &count, &why);
    if (*result == OK)
        *result = storage->type->lock(storage, SLICE("f"), 0, &why);
    ticks = 0;
    if (*result == OK && storage->type->lock(storage, SLICE("f"),
                                             clock_mono_ns() + 300 * NS_PER_MS, &why) != ERR_TIMEOUT)
        *result = ERR_FAILED;
    if (*result == OK)
        *result = storage->type->unlock(storage, SLICE("f"), &why);
    timer_stop(&ticker);
    loop_stop(loop_self());
}

static void use_on(enum loop_kind kind)
{
    struct loop *loop;
    enum err result = ERR_FAILED;
    if (kind == LOOP_URING && !loop_probe_uring())
        test_skip("io_uring is not allowed here");
    begin();
    CHECK_OK(loop_create(kind, &loop));
    timer_init(&ticker, on_tick);
    timer_start(loop, &ticker, loop_now_ns(loop) + NS_PER_MS);
    CHECK_OK(fiber_start(loop, use_all, &result));
    loop_run(loop);
    loop_destroy(loop);
    CHECK_OK(result);
    CHECK(ticks >= 2); /* the loop went on while the fiber waited */
    end();
}

TEST("on a fiber everything waits without stopping the loop (epoll)")
{
    use_on(LOOP_EPOLL);
}

TEST("on a fiber everything waits without stopping the loop (io_uring)")
{
    use_on(LOOP_URING);
}

TEST("all locks that are held are given back at the end of the process")
{
    begin();
    CHECK_OK(storage->type->lock(storage, SLICE("one"), 0, &why));
    CHECK_OK(storage->type->lock(storage, SLICE("two"), 0, &why));
    storage_give_back_locks();
    CHECK(access(path_of("locks/one.lock"), F_OK) != 0);
    CHECK(access(path_of("locks/two.lock"), F_OK) != 0);
    CHECK_INT(storage->type->unlock(storage, SLICE("one"), &why), ERR_NOT_FOUND);
    end();
}

TEST("one root has one object, that the last one closes")
{
    begin();
    char slash[80];
    snprintf(slash, sizeof slash, "%s/", folder);
    struct storage *same = storage_open_files(slice_from(slash));
    CHECK(same == storage);
    CHECK_OK(same->type->lock(same, SLICE("x"), 0, &why));
    same->type->close(same);
    check_taken("x");
    end();
    CHECK(access(path_of("locks/x.lock"), F_OK) != 0);
}
