/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small text forms and log encoders.
 */
#include "base/log_encode.h"
#include "base/test.h"
#include "base/text.h"

static struct slice duration_text(int64_t ns)
{
    static struct buffer b;
    buffer_deinit(&b);
    buffer_init(&b, 100);
    CHECK_OK(duration_put(&b, ns));
    return buffer_slice(&b);
}

TEST("durations are read as Go does, with days")
{
    int64_t ns;
    CHECK(duration_parse(SLICE("1h30m"), &ns) == OK && ns == INT64_C(5400000000000));
    CHECK(duration_parse(SLICE("1.5s"), &ns) == OK && ns == 1500000000);
    CHECK(duration_parse(SLICE("-250ms"), &ns) == OK && ns == -250000000);
    CHECK(duration_parse(SLICE("2d"), &ns) == OK && ns == INT64_C(172800000000000));
    CHECK(duration_parse(SLICE("0"), &ns) == OK && ns == 0);
    CHECK(duration_parse(SLICE(".5m"), &ns) == OK && ns == INT64_C(30000000000));
    CHECK_INT(duration_parse(SLICE("5"), &ns), ERR_INVALID);
    CHECK_INT(duration_parse(SLICE("s"), &ns), ERR_INVALID);
    CHECK_INT(duration_parse(SLICE(""), &ns), ERR_INVALID);
    CHECK_INT(duration_parse(SLICE("1y"), &ns), ERR_INVALID);
    CHECK_INT(duration_parse(SLICE("300000h300000h300000h300000h300000h300000h300000h300000h"
                                   "300000h300000h"), &ns), ERR_INVALID);
}

TEST("durations are written as Go does")
{
    CHECK_TEXT(duration_text(0), "0s");
    CHECK_TEXT(duration_text(1), "1ns");
    CHECK_TEXT(duration_text(1500), "1.5\xc2\xb5s");
    CHECK_TEXT(duration_text(250000000), "250ms");
    CHECK_TEXT(duration_text(1500000000), "1.5s");
    CHECK_TEXT(duration_text(INT64_C(5400000000000)), "1h30m0s");
    CHECK_TEXT(duration_text(INT64_C(-60000000000)), "-1m0s");
}

TEST("sizes are read in powers of ten and of two")
{
    uint64_t n;
    CHECK(size_parse(SLICE("10MB"), &n) == OK && n == 10000000);
    CHECK(size_parse(SLICE("10 MiB"), &n) == OK && n == 10485760);
    CHECK(size_parse(SLICE("1.5k"), &n) == OK && n == 1500);
    CHECK(size_parse(SLICE("42"), &n) == OK && n == 42);
    CHECK_INT(size_parse(SLICE("MB"), &n), ERR_INVALID);
    CHECK_INT(size_parse(SLICE("1XB"), &n), ERR_INVALID);
    CHECK_INT(size_parse(SLICE("99999999999999PB"), &n), ERR_INVALID);
}

TEST("UTF-8 that is overlong, a surrogate or beyond Unicode is refused")
{
    uint32_t rune;
    CHECK(utf8_decode(SLICE("\xe2\x82\xac"), &rune) == 3 && rune == 0x20ac);
    CHECK(utf8_valid(SLICE("gr\xc3\xbc\xc3\x9f \xf0\x9f\x9a\xaa")));
    CHECK(!utf8_valid(SLICE("\xc0\xaf")));
    CHECK(!utf8_valid(SLICE("\xed\xa0\x80")));
    CHECK(!utf8_valid(SLICE("\xf4\x90\x80\x80")));
    CHECK(!utf8_valid(SLICE("\xe2\x82")));
    CHECK_INT(utf8_whole(SLICE("a\xe2\x82")).len, 1);
    CHECK_INT(utf8_whole(SLICE("a\xe2\x82\xac")).len, 4);
    CHECK_INT(utf8_whole(SLICE("a\xf0\x9f\x9a")).len, 1);
    CHECK_INT(utf8_whole(SLICE("\xf0")).len, 0);
    CHECK_INT(utf8_whole(SLICE("ab")).len, 2);
    CHECK_INT(utf8_whole(SLICE("")).len, 0);
    char out[4];
    CHECK_INT(utf8_encode(0x1f6aa, out), 4);
    CHECK(memcmp(out, "\xf0\x9f\x9a\xaa", 4) == 0);
}

TEST("base64url has no padding and two letters of its own")
{
    struct buffer b;
    buffer_init(&b, 100);
    CHECK_OK(base64url_encode(&b, SLICE("\xfb\xff\xfe")));
    CHECK_OK(base64url_encode(&b, SLICE("\xff")));
    CHECK_OK(base64url_encode(&b, SLICE("")));
    CHECK_TEXT(buffer_slice(&b), "-__-_w");
    buffer_deinit(&b);
}

TEST("base64 goes there and back, and bad letters are refused")
{
    struct buffer b, back;
    buffer_init(&b, 100);
    buffer_init(&back, 100);
    CHECK_OK(base64_encode(&b, SLICE("user:pass")));
    CHECK_TEXT(buffer_slice(&b), "dXNlcjpwYXNz");
    CHECK_OK(base64_decode(&back, SLICE("YQ==")));
    CHECK_TEXT(buffer_slice(&back), "a");
    CHECK_INT(base64_decode(&back, SLICE("a*bc")), ERR_INVALID);
    CHECK_INT(base64_decode(&back, SLICE("abcde")), ERR_INVALID);
    buffer_deinit(&b);
    buffer_deinit(&back);
}

TEST("an event is one line of JSON, whatever bytes it holds")
{
    struct buffer b;
    buffer_init(&b, 4096);
    struct log_field inner[] = {LOG_NUM("port", 80)};
    struct log_field fields[] = {
        LOG_STR("uri", SLICE("/a\"b\\c\n\x01\xff")), LOG_BOOLEAN("ok", true),
        LOG_DUR("duration", 1500000), LOG_GROUP("peer", inner, 1)};
    struct log_event e = {LOG_ERROR, INT64_C(1500000000), "http", SLICE("boo"), fields, 4};
    struct log_format f;
    log_format_init(&f);
    CHECK_OK(log_encode_json(&b, &e, &f));
    CHECK_TEXT(buffer_slice(&b),
               "{\"level\":\"error\",\"ts\":1.5,\"logger\":\"http\",\"msg\":\"boo\","
               "\"uri\":\"/a\\\"b\\\\c\\n\\u0001\\ufffd\",\"ok\":true,\"duration\":0.0015,"
               "\"peer\":{\"port\":80}}\n");
    buffer_deinit(&b);
}

TEST("an event for people has tabs, and its message cannot break the line")
{
    struct buffer b;
    buffer_init(&b, 4096);
    struct log_field fields[] = {LOG_NUM("n", -1)};
    struct log_event e = {LOG_WARN, INT64_C(784111777123000000), "admin", SLICE("a\nb"), fields, 1};
    struct log_format f;
    log_format_init_console(&f);
    f.level = LOG_LEVEL_UPPER;
    CHECK_OK(log_encode_console(&b, &e, &f));
    CHECK_TEXT(buffer_slice(&b), "1994/11/06 08:49:37.123\tWARN\tadmin\ta b\t{\"n\": -1}\n");
    buffer_deinit(&b);
}

TEST("an event that does not fit is refused whole")
{
    struct buffer b;
    buffer_init(&b, 20);
    struct log_event e = {LOG_INFO, 0, "", SLICE("a long message"), NULL, 0};
    struct log_format f;
    log_format_init(&f);
    CHECK_INT(log_encode_json(&b, &e, &f), ERR_LIMIT);
    CHECK_INT(b.len, 0);
    buffer_deinit(&b);
}
