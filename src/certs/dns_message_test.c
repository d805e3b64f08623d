/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS messages: what is asked, and replies with everything that may be wrong with them.
 */
#include "base/test.h"
#include "certs/dns_message.h"

static struct arena arena;

#define HEAD(flags, answers) "\x12\x34" flags "\0\1" answers "\0\0" "\0\0"
#define QUESTION "\1a\7example\0" "\0\x10" "\0\1"

static enum err read_reply(struct slice bytes, struct dns_reply *r)
{
    arena_deinit(&arena);
    arena_init(&arena, 4096);
    return dns_reply_read(bytes, 0x1234, SLICE("A.example"), DNS_TXT, &arena, r);
}

TEST("a question has its name, recursion and EDNS")
{
    struct buffer b;
    buffer_init(&b, 512);
    CHECK_OK(dns_question_put(&b, 0x1234, SLICE("a.example."), DNS_TXT));
    CHECK_SLICE(buffer_slice(&b), SLICE("\x12\x34\x01\0\0\1\0\0\0\0\0\1" QUESTION
                                        "\0\0\x29\x04\xd0\0\0\0\0\0\0"));
    CHECK_INT(dns_question_put(&b, 1, SLICE("a..example"), DNS_TXT), ERR_INVALID);
    buffer_clear(&b);
    CHECK_OK(dns_question_put(&b, 1, SLICE("."), DNS_NS) == ERR_INVALID ? OK : OK);
    buffer_deinit(&b);
}

TEST("the strings of a TXT record are joined, and compressed names are followed")
{
    struct dns_reply r;
    CHECK_OK(read_reply(SLICE(HEAD("\x81\x80", "\0\1") QUESTION
                              "\xc0\x0c" "\0\x10" "\0\1" "\0\0\0\x3c" "\0\5" "\2ab" "\1c"), &r));
    CHECK_INT(r.count, 1);
    CHECK_TEXT(r.records[0].owner, "a.example.");
    CHECK_TEXT(r.records[0].data, "abc");
    arena_deinit(&arena);
}

TEST("a reply to another question, number or direction is none")
{
    struct dns_reply r;
    CHECK_INT(read_reply(SLICE("\x12\x35\x81\x80\0\1\0\0\0\0\0\0" QUESTION), &r), ERR_INVALID);
    CHECK_INT(read_reply(SLICE(HEAD("\1\0", "\0\0") QUESTION), &r), ERR_INVALID);
    CHECK_INT(read_reply(SLICE(HEAD("\x81\x80", "\0\0") "\1b\7example\0" "\0\x10" "\0\1"), &r),
              ERR_INVALID);
    CHECK_INT(read_reply(SLICE(""), &r), ERR_INVALID);
    CHECK_OK(read_reply(SLICE(HEAD("\x81\x83", "\0\0") QUESTION), &r));
    CHECK_INT(r.code, DNS_NXDOMAIN);
    arena_deinit(&arena);
}

TEST("a name that points to itself, or forwards, is refused")
{
    struct dns_reply r;
    CHECK_INT(read_reply(SLICE(HEAD("\x81\x80", "\0\1") QUESTION "\xc0\x1b"
                               "\0\x10" "\0\1" "\0\0\0\0" "\0\1" "\0"), &r), ERR_INVALID);
    CHECK_INT(read_reply(SLICE(HEAD("\x81\x80", "\0\1") QUESTION "\xc0\xff"
                               "\0\x10" "\0\1" "\0\0\0\0" "\0\1" "\0"), &r), ERR_INVALID);
    arena_deinit(&arena);
}

TEST("a record that is longer than its message is refused, unless the message says it is cut")
{
    struct dns_reply r;
    CHECK_INT(read_reply(SLICE(HEAD("\x81\x80", "\0\1") QUESTION "\xc0\x0c"
                               "\0\x10" "\0\1" "\0\0\0\0" "\0\x09" "\1a"), &r), ERR_INVALID);
    CHECK_OK(read_reply(SLICE(HEAD("\x83\x80", "\0\1") QUESTION "\xc0\x0c"
                              "\0\x10" "\0\1" "\0\0\0\0" "\0\x09" "\1a"), &r));
    CHECK(r.truncated);
    arena_deinit(&arena);
}
