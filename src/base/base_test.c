/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small tools of base/, each by its public face.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/fd_write.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/map.h"
#include "base/test.h"

TEST("numbers reject signs, spaces, emptiness and overflow")
{
    uint64_t n;
    CHECK(slice_to_u64(SLICE("18446744073709551615"), UINT64_MAX, &n) && n == UINT64_MAX);
    CHECK(!slice_to_u64(SLICE("18446744073709551616"), UINT64_MAX, &n));
    CHECK(!slice_to_u64(SLICE("65536"), 65535, &n));
    CHECK(!slice_to_u64(SLICE(""), 10, &n));
    CHECK(!slice_to_u64(SLICE("+1"), 10, &n));
    CHECK(!slice_to_u64(SLICE(" 1"), 10, &n));
    int64_t i;
    CHECK(slice_to_i64(SLICE("-9223372036854775808"), &i) && i == INT64_MIN);
    CHECK(!slice_to_i64(SLICE("9223372036854775808"), &i));
}

TEST("slices are cut at the first separator")
{
    struct slice head, tail;
    CHECK(slice_cut(SLICE("a:b:c"), ':', &head, &tail));
    CHECK_TEXT(head, "a");
    CHECK_TEXT(tail, "b:c");
    CHECK(!slice_cut(SLICE("abc"), ':', &head, &tail));
    CHECK_TEXT(head, "abc");
    CHECK_TEXT(slice_trim(SLICE(" \t x y\r\n")), "x y");
    CHECK(slice_eq_nocase(SLICE("Content-LENGTH"), SLICE("content-length")));
    CHECK(!slice_eq_nocase(SLICE("a["), SLICE("a{")));
}

TEST("a buffer refuses to grow beyond its cap and stays as it was")
{
    struct buffer b;
    buffer_init(&b, 100);
    for (int i = 0; i < 10; i++)
        CHECK_OK(buffer_append(&b, SLICE("0123456789")));
    CHECK_INT(buffer_append_byte(&b, 'x'), ERR_LIMIT);
    CHECK(b.full);
    CHECK_INT(b.len, 100);
    buffer_consume(&b, 95);
    CHECK_TEXT(buffer_slice(&b), "56789");
    CHECK_OK(buffer_append_f(&b, "-%d", 42));
    CHECK_TEXT(buffer_slice(&b), "56789-42");
    buffer_deinit(&b);
}

TEST("an arena hands out aligned memory, large pieces too, and is reset as one")
{
    struct arena a;
    arena_init(&a, 1024);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 1; i < 3000; i += 37) {
            char *p = arena_alloc(&a, i);
            CHECK_INT((uintptr_t)p % 16, 0);
            memset(p, 'x', i);
        }
        CHECK_TEXT(arena_printf(&a, "%d-%s", 7, "seven"), "7-seven");
        CHECK(strcmp(arena_str(&a, SLICE("end")), "end") == 0);
        arena_reset(&a);
        CHECK_INT(a.used, 0);
    }
    arena_deinit(&a);
}

TEST("a file gets all bytes, or the kernel's reason is known")
{
    char back[8] = "";
    int fd = memfd_create("test", MFD_CLOEXEC);
    CHECK(fd_write_all(fd, SLICE("one ")) == OK);
    CHECK(fd_write_all(fd, SLICE_NONE) == OK);
    CHECK(fd_write_all(fd, SLICE("two")) == OK);
    CHECK(pread(fd, back, sizeof back, 0) == 7);
    CHECK_TEXT(slice_of(back, 7), "one two");
    close(fd);
    fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    CHECK(fd_write_all(fd, SLICE("x")) == err_from_errno(ENOSPC));
    CHECK_INT(errno, ENOSPC);
    close(fd);
}

TEST("a list keeps its order while nodes leave it")
{
    struct list head, nodes[4];
    list_init(&head);
    for (int i = 0; i < 4; i++)
        list_append(&head, &nodes[i]);
    list_remove(&nodes[1]);
    list_remove(&nodes[1]);
    list_prepend(&head, &nodes[1]);
    CHECK(list_pop(&head) == &nodes[1]);
    CHECK(list_pop(&head) == &nodes[0]);
    int left = 0;
    LIST_FOR_SAFE(it, &head)
    {
        list_remove(it);
        left++;
    }
    CHECK_INT(left, 2);
    CHECK(list_empty(&head));
}

TEST("a map finds what was put, through growth and removal")
{
    static char names[1000][8];
    struct map m;
    map_init(&m, false);
    for (int i = 0; i < 1000; i++) {
        snprintf(names[i], sizeof names[i], "k%d", i);
        CHECK(map_put(&m, slice_from(names[i]), names[i]) == NULL);
    }
    for (int i = 0; i < 1000; i += 2)
        CHECK(map_remove(&m, slice_from(names[i])) == names[i]);
    for (int i = 0; i < 1000; i++)
        CHECK(map_get(&m, slice_from(names[i])) == (i % 2 ? names[i] : NULL));
    CHECK_INT(m.count, 500);
    size_t at = 0, seen = 0;
    while (map_next(&m, &at) != NULL)
        seen++;
    CHECK_INT(seen, 500);
    map_deinit(&m);
}

TEST("a map without case finds names in any case")
{
    struct map m;
    map_init(&m, true);
    map_put(&m, SLICE("Accept-Encoding"), &m);
    CHECK(map_get(&m, SLICE("accept-ENCODING")) != NULL);
    CHECK(map_get(&m, SLICE("accept-encodin")) == NULL);
    CHECK(hash_nocase(SLICE("[ABCXYZ]@`{|")) == hash_nocase(SLICE("[abcxyz]@`{|")));
    CHECK(hash_nocase(SLICE("[")) != hash_nocase(SLICE("{")));
    CHECK(hash_nocase(SLICE("@")) != hash_nocase(SLICE("`")));
    map_deinit(&m);
}

TEST("SipHash-1-3 with a known key gives the published form's value")
{
    const uint64_t key[2] = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};
    CHECK(hash_keyed(SLICE(""), key) == UINT64_C(0xabac0158050fc4dc));
}

TEST("HTTP dates are written and read in all three forms")
{
    char text[HTTP_DATE_LEN];
    int64_t t;
    clock_http_date(784111777, text);
    CHECK_TEXT(slice_of(text, sizeof text), "Sun, 06 Nov 1994 08:49:37 GMT");
    CHECK(clock_parse_http_date(SLICE("Sun, 06 Nov 1994 08:49:37 GMT"), &t) && t == 784111777);
    CHECK(clock_parse_http_date(SLICE("Sunday, 06-Nov-94 08:49:37 GMT"), &t) && t == 784111777);
    CHECK(clock_parse_http_date(SLICE("Sun Nov  6 08:49:37 1994"), &t) && t == 784111777);
    CHECK(!clock_parse_http_date(SLICE("Sun, 06 Nov 1994 08:49:37 CET"), &t));
    CHECK(!clock_parse_http_date(SLICE("Sun, 06 Nov 1994 28:49:37 GMT"), &t));
    CHECK(!clock_parse_http_date(SLICE(""), &t));
    clock_http_date(-1, text);
    CHECK_TEXT(slice_of(text, sizeof text), "Wed, 31 Dec 1969 23:59:59 GMT");
    clock_http_date(951782400, text);
    CHECK_TEXT(slice_of(text, sizeof text), "Tue, 29 Feb 2000 00:00:00 GMT");
}
