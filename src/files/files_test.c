/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The open-file cache against a real folder, and media types.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/test.h"
#include "files/file_cache.h"
#include "files/mime.h"

static char folder[64];

static struct slice in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return slice_from(path);
}

static void make_folder(void)
{
    test_folder(folder, sizeof folder);
}

/* Writes a file whose time lies `age` seconds back. */
static void put_file(const char *name, const char *text, int age)
{
    struct timespec times[2];
    int fd = open(in_folder(name).ptr, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        test_fail(__FILE__, __LINE__, "cannot write %s", name);
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[0].tv_sec -= age;
    times[1] = times[0];
    futimens(fd, times);
    close(fd);
}

TEST("media types are found in any case, text with its charset")
{
    CHECK_TEXT(mime_by_name(SLICE("/a/b.HTML")), "text/html; charset=utf-8");
    CHECK_TEXT(mime_by_name(SLICE("x.tar.gz")), "application/gzip");
    CHECK_TEXT(mime_by_name(SLICE("x.3gp")), "video/3gpp");
    CHECK_TEXT(mime_by_name(SLICE("x.zst")), "application/zstd");
    CHECK_INT(mime_by_name(SLICE("Makefile")).len, 0);
    CHECK_INT(mime_by_name(SLICE("x.")).len, 0);
    CHECK_INT(mime_by_name(SLICE("x.averyveryverylongextension")).len, 0);
}

TEST("a small file is opened once and kept, with validators")
{
    make_folder();
    put_file("a.txt", "hello", 100);
    struct file_cache *c = file_cache_create(false, false);
    struct open_file *f = file_cache_open(c, in_folder("a.txt"), 5);
    CHECK_INT(f->error, OK);
    CHECK_TEXT(f->bytes, "hello");
    CHECK(f->etag[0] == '"' && f->etag[strlen(f->etag) - 1] == '"');
    CHECK_INT(strlen(f->modified), 29);
    struct open_file *again = file_cache_open(c, in_folder("a.txt"), 6);
    CHECK(again == f);
    open_file_unref(f);
    open_file_unref(again);
    file_cache_destroy(c);
}

TEST("long names that are not there take no memory for good")
{
    static char path[20000];
    memset(path, 'a', sizeof path);
    path[0] = '/';
    struct file_cache *c = file_cache_create(false, false);
    for (unsigned i = 0; i < 20; i++) {
        size_t len = i < 10 ? sizeof path : 1000; /* no path can be so long; a name cannot */
        path[1] = (char)('a' + i);
        struct open_file *f = file_cache_open(c, slice_of(path, len), 5);
        CHECK_INT(f->error, ERR_NOT_FOUND);
        open_file_unref(f);
    }
    CHECK_INT(c->map.count, 10);
    CHECK_INT(c->bytes, 10 * 1000);
    file_cache_destroy(c);
}

/* A file that is no small one, of one letter. */
static void put_large(const char *name, char letter, size_t size)
{
    char *text = mem_alloc(size + 1);
    memset(text, letter, size);
    text[size] = '\0';
    put_file(name, text, 100);
    mem_free(text);
}

TEST("what is often wanted in memory is kept there, up to a size and a sum, and goes with its file")
{
    char name[16];
    make_folder();
    put_large("big", 'a', FILE_CACHE_COPY + 1);
    struct file_cache *c = file_cache_create(false, false);
    struct open_file *f = file_cache_open(c, in_folder("big"), 0);
    for (unsigned i = 0; i < 10; i++)
        CHECK(file_cache_copy(c, f) == NULL);
    open_file_unref(f);
    for (unsigned i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "f%u", i);
        put_large(name, (char)('a' + i), FILE_CACHE_COPY);
        f = file_cache_open(c, in_folder(name), 0);
        CHECK(file_cache_copy(c, f) == NULL); /* wanted once */
        const char *copy;
        for (unsigned asked = 0; (copy = file_cache_copy(c, f)) == NULL;)
            CHECK(++asked < 10);
        CHECK(f->fd >= 0 && copy[0] == 'a' + (int)i && copy[FILE_CACHE_COPY - 1] == copy[0]);
        CHECK(c->copies <= FILE_CACHE_COPIES);
        open_file_unref(f);
    }
    CHECK_INT(c->copies, FILE_CACHE_COPIES); /* the oldest have gone, with their files */
    CHECK_INT(c->map.count, 1 + FILE_CACHE_COPIES / FILE_CACHE_COPY);
    struct open_file *old = file_cache_open(c, in_folder("f19"), 0);
    const char *kept = file_cache_copy(c, old);
    CHECK(kept != NULL);
    put_large("f19", 'z', FILE_CACHE_COPY - 1);
    struct open_file *new = file_cache_open(c, in_folder("f19"), FILE_CHECK_NS);
    CHECK(new != old && new->copy.ptr == NULL && file_cache_copy(c, old) == kept);
    CHECK_INT(kept[0], 'a' + 19);
    CHECK_INT(c->copies, FILE_CACHE_COPIES - FILE_CACHE_COPY);
    open_file_unref(old);
    open_file_unref(new);
    file_cache_destroy(c);
}

TEST("a change is seen within a second, and what is being sent stays as it was")
{
    make_folder();
    put_file("a.txt", "first", 100);
    struct file_cache *c = file_cache_create(false, false);
    struct open_file *old = file_cache_open(c, in_folder("a.txt"), 0);
    put_file("b.txt", "second", 50);
    char target[256];
    snprintf(target, sizeof target, "%s/a.txt", folder);
    CHECK_INT(rename(in_folder("b.txt").ptr, target), 0);
    struct open_file *same = file_cache_open(c, in_folder("a.txt"), FILE_CHECK_NS - 1);
    CHECK(same == old);
    struct open_file *new = file_cache_open(c, in_folder("a.txt"), FILE_CHECK_NS);
    CHECK_TEXT(new->bytes, "second");
    CHECK_TEXT(old->bytes, "first");
    open_file_unref(old);
    open_file_unref(same);
    open_file_unref(new);
    file_cache_destroy(c);
}

TEST("a swapped symlink of a folder above is seen within a second")
{
    make_folder();
    mkdir(in_folder("one").ptr, 0755);
    mkdir(in_folder("two").ptr, 0755);
    put_file("one/x", "1", 100);
    put_file("two/x", "2", 100);
    CHECK_INT(symlink("one", in_folder("live").ptr), 0);
    struct file_cache *c = file_cache_create(false, false);
    struct open_file *f = file_cache_open(c, in_folder("live/x"), 0);
    CHECK_TEXT(f->bytes, "1");
    open_file_unref(f);
    CHECK_INT(symlink("two", in_folder("next").ptr), 0);
    char live[256];
    snprintf(live, sizeof live, "%s/live", folder);
    CHECK_INT(rename(in_folder("next").ptr, live), 0);
    f = file_cache_open(c, in_folder("live/x"), 2 * FILE_CHECK_NS);
    CHECK_TEXT(f->bytes, "2");
    open_file_unref(f);
    file_cache_destroy(c);
}

TEST("folders, pipes, missing files and NUL bytes are told apart")
{
    make_folder();
    struct file_cache *c = file_cache_create(false, false);
    CHECK_INT(mkfifo(in_folder("pipe").ptr, 0644), 0);
    struct open_file *dir = file_cache_open(c, slice_from(folder), 0);
    CHECK(dir->error == OK && dir->is_dir);
    struct open_file *pipe = file_cache_open(c, in_folder("pipe"), 0);
    CHECK_INT(pipe->error, ERR_DENIED);
    struct open_file *none = file_cache_open(c, in_folder("none"), 0);
    CHECK_INT(none->error, ERR_NOT_FOUND);
    struct open_file *nul = file_cache_open(c, SLICE("/etc/passwd\0.txt"), 0);
    CHECK_INT(nul->error, ERR_INVALID);
    open_file_unref(dir);
    open_file_unref(pipe);
    open_file_unref(none);
    open_file_unref(nul);
    file_cache_destroy(c);
}

TEST("a file that was just written is not kept in memory")
{
    make_folder();
    put_file("young", "x", 0);
    struct file_cache *c = file_cache_create(false, false);
    struct open_file *f = file_cache_open(c, in_folder("young"), 0);
    CHECK(f->error == OK && f->bytes.ptr == NULL && f->fd >= 0);
    open_file_unref(f);
    file_cache_destroy(c);
}

TEST("the cache holds no more entries than its bound")
{
    struct file_cache *c = file_cache_create(false, false);
    for (int i = 0; i < FILE_CACHE_ENTRIES + 100; i++) {
        char path[64];
        snprintf(path, sizeof path, "/nonexistent/%d", i);
        open_file_unref(file_cache_open(c, slice_from(path), 0));
    }
    CHECK_INT(c->map.count, FILE_CACHE_ENTRIES);
    file_cache_destroy(c);
}

/* The cache's clock stands still: only what the kernel tells can be seen. */
static struct slice bytes_soon(struct file_cache *c, const char *name, const char *want)
{
    static char bytes[64];
    size_t n = 0;
    for (int i = 0; i < 1000; i++) {
        struct open_file *f = file_cache_open(c, in_folder(name), 0);
        n = f->error == OK && f->bytes.len < sizeof bytes ? f->bytes.len : 0;
        memcpy(bytes, n > 0 ? f->bytes.ptr : "", n);
        open_file_unref(f);
        if (slice_is(slice_of(bytes, n), want))
            break;
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    return slice_of(bytes, n);
}

TEST("what the kernel tells is seen without waiting for the check")
{
    make_folder();
    mkdir(in_folder("one").ptr, 0755);
    mkdir(in_folder("two").ptr, 0755);
    put_file("one/x", "1", 100);
    put_file("two/x", "2", 100);
    CHECK_INT(symlink("one", in_folder("live").ptr), 0);
    struct file_cache *c = file_cache_create(false, true);
    CHECK_TEXT(bytes_soon(c, "live/x", "1"), "1");
    CHECK_TEXT(bytes_soon(c, "live/missing", ""), "");
    put_file("one/x", "changed", 90);
    CHECK_TEXT(bytes_soon(c, "live/x", "changed"), "changed");
    put_file("one/missing", "here", 90);
    CHECK_TEXT(bytes_soon(c, "live/missing", "here"), "here");
    char live[256];
    snprintf(live, sizeof live, "%s/live", folder);
    CHECK_INT(symlink("two", in_folder("next").ptr), 0);
    CHECK_INT(rename(in_folder("next").ptr, live), 0);
    CHECK_TEXT(bytes_soon(c, "live/x", "2"), "2");
    put_file("two/x", "22", 80);
    CHECK_TEXT(bytes_soon(c, "live/x", "22"), "22");
    snprintf(live, sizeof live, "%s/gone", folder);
    CHECK_INT(rename(in_folder("two").ptr, live), 0);
    CHECK_TEXT(bytes_soon(c, "live/x", ""), "");
    file_cache_destroy(c);
}
