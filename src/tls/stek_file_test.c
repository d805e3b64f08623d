/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of shared ticket keys: one that Caddy wrote, our own, and what is none.
 */
#include "base/mem.h"
#include "base/test.h"
#include "tls/stek_file.h"

/* Caddy 2.6.2's, with one key of 0xff, 0x00, 0x7f, 0x80, and 28 bytes that count from 1. */
static const char caddys[] =
    "\x4b\xff\x81\x03\x01\x01\x0f" "distributedSTEK\x01\xff\x82\x00\x01\x03\x01\x04Keys\x01\xff\x86"
    "\x00\x01\x0cLastRotation\x01\xff\x88\x00\x01\x0cNextRotation\x01\xff\x88\x00\x00\x00"
    "\x1a\xff\x85\x02\x01\x01\x0b[][32]uint8\x01\xff\x86\x00\x01\xff\x84\x00\x00"
    "\x0e\xff\x83\x01\x01\x02\xff\x84\x00\x01\x06\x01\x40\x00\x00"
    "\x10\xff\x87\x05\x01\x01\x04Time\x01\xff\x88\x00\x00\x00"
    "\x4a\xff\x82\x01\x01\x20\xff\xff\x00\x7f\xff\x80\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c"
    "\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x01\x0f\x01\x00\x00\x00\x0e\xe2"
    "\x99\x9c\x73\x0e\xc0\xd0\x79\x00\x00\x01\x0f\x01\x00\x00\x00\x0e\xe2\x99\x9c\x75\x0e\xc0\xd0\x79"
    "\x00\x00\x00";

static struct slice caddys_file(void)
{
    return slice_of(caddys, sizeof caddys - 1);
}

static struct stek_file filled(unsigned count)
{
    struct stek_file f = {.count = count, .last_ns = 1700000000123456789, .next_ns = 1800000000000000001};
    for (unsigned i = 0; i < count; i++)
        for (unsigned k = 0; k < STEK_LEN; k++)
            f.keys[i][k] = (unsigned char)(i * 7 + k * 9);
    return f;
}

TEST("a file of Caddy's is read")
{
    struct stek_file f;
    CHECK_OK(stek_file_parse(caddys_file(), &f));
    CHECK_INT(f.count, 1);
    CHECK(memcmp(f.keys[0], "\xff\x00\x7f\x80\x01\x02", 6) == 0);
    CHECK_INT(f.keys[0][31], 28);
    CHECK_INT(f.last_ns, 1795663219247517305);
    CHECK_INT(f.next_ns, 1795663221247517305);
}

TEST("what is written is read again, with any number of keys")
{
    for (unsigned count = 0; count <= STEK_MAX; count++) {
        struct stek_file f = filled(count), again;
        struct buffer b;
        buffer_init(&b, STEK_FILE_MAX);
        stek_file_put(&b, &f);
        CHECK(!b.full);
        CHECK_OK(stek_file_parse(buffer_slice(&b), &again));
        CHECK(memcmp(&f, &again, sizeof f) == 0);
        buffer_deinit(&b);
    }
}

TEST("a file that is cut off or longer is none; changed bytes do no harm")
{
    struct slice all = caddys_file();
    struct stek_file f;
    for (size_t n = 0; n < all.len; n++) {
        char *copy = mem_alloc(n + 1); /* of that size, for AddressSanitizer */
        memcpy(copy, all.ptr, n);
        CHECK_INT(stek_file_parse(slice_of(copy, n), &f), ERR_INVALID);
        mem_free(copy);
    }
    char more[sizeof caddys];
    memcpy(more, caddys, sizeof more);
    CHECK_INT(stek_file_parse(slice_of(more, sizeof more), &f), ERR_INVALID);
    for (size_t i = 0; i < all.len; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            more[i] ^= (char)(1 << bit);
            (void)!stek_file_parse(slice_of(more, all.len), &f);
            CHECK(f.count <= STEK_MAX);
            more[i] ^= (char)(1 << bit);
        }
    }
}

TEST("a rotation puts a new key in front and lets the oldest go")
{
    unsigned char key[STEK_LEN] = {1, 2, 3};
    struct stek_file f = filled(4), old = f;
    stek_file_rotate(&f, key, 4);
    CHECK_INT(f.count, 4);
    CHECK(memcmp(f.keys[0], key, STEK_LEN) == 0);
    CHECK(memcmp(f.keys[1], old.keys[0], sizeof f.keys[0] * 3) == 0);
    stek_file_rotate(&f, key, 2); /* fewer are wanted now */
    CHECK_INT(f.count, 2);
    f = filled(STEK_MAX);
    stek_file_rotate(&f, key, 1000);
    CHECK_INT(f.count, STEK_MAX);
    f = filled(0);
    stek_file_rotate(&f, key, 0);
    CHECK_INT(f.count, 1);
}
