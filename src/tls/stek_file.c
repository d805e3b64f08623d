/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gob is a row of messages, each behind its length. Those with a negative type number define a
 * type; they are passed over, since the numbers are another program's and the layout is known. The one
 * with a positive number is the value: its members in order, each behind the distance from the last
 * one that was sent (those of no value are not), and a zero at the end. An unsigned number below 128 is one
 * byte; a larger one is how many bytes it has, negated, then those, the highest first. A time is what
 * Go's MarshalBinary makes of it: a version, seconds since the year 1, nanoseconds, minutes of the zone.
 */
#include "tls/stek_file.h"

#include <string.h>

#include "base/clock.h"

#define YEAR_1970 INT64_C(62135596800) /* in seconds since the year 1 */

enum { TIME_LEN = 15, KEYS = 1, LAST, NEXT, MEMBERS };

/* --- reading --- */

struct reader {
    struct slice rest;
    bool bad;
};

static uint64_t read_number(struct reader *r)
{
    unsigned first = r->rest.len > 0 ? (unsigned char)r->rest.ptr[0] : 0xff;
    size_t more = first < 128 ? 0 : 256 - first;
    uint64_t n = first < 128 ? first : 0;
    if (more > 8 || r->rest.len < 1 + more) {
        r->bad = true;
        return 0;
    }
    for (size_t i = 1; i <= more; i++)
        n = n << 8 | (unsigned char)r->rest.ptr[i];
    r->rest = slice_skip(r->rest, 1 + more);
    return n;
}

static struct slice read_bytes(struct reader *r)
{
    uint64_t n = read_number(r);
    if (r->bad || n > r->rest.len) {
        r->bad = true;
        return SLICE_NONE;
    }
    struct slice bytes = slice_take(r->rest, (size_t)n);
    r->rest = slice_skip(r->rest, (size_t)n);
    return bytes;
}

static void read_keys(struct reader *r, struct stek_file *f)
{
    unsigned char passed_over[STEK_LEN];
    uint64_t count = read_number(r);
    for (uint64_t i = 0; i < count && !r->bad; i++) {
        unsigned char *key = i < STEK_MAX ? f->keys[i] : passed_over;
        r->bad = r->bad || read_number(r) != STEK_LEN;
        for (size_t k = 0; k < STEK_LEN && !r->bad; k++) {
            uint64_t byte = read_number(r);
            r->bad = r->bad || byte > 255;
            key[k] = (unsigned char)byte;
        }
        f->count += i < STEK_MAX;
    }
    explicit_bzero(passed_over, sizeof passed_over);
}

static uint64_t big_endian(const char *p, size_t len)
{
    uint64_t n = 0;
    for (size_t i = 0; i < len; i++)
        n = n << 8 | (unsigned char)p[i];
    return n;
}

static int64_t read_time(struct reader *r)
{
    struct slice t = read_bytes(r);
    if (r->bad || t.len < TIME_LEN || (t.ptr[0] != 1 && t.ptr[0] != 2)) {
        r->bad = true;
        return INT64_MIN;
    }
    int64_t s = (int64_t)big_endian(t.ptr + 1, 8), ns = (int64_t)big_endian(t.ptr + 9, 4);
    if (s < YEAR_1970 || ns >= (int64_t)NS_PER_S)
        return INT64_MIN;
    s -= YEAR_1970;
    return s > INT64_MAX / (int64_t)NS_PER_S - 1 ? INT64_MAX : s * (int64_t)NS_PER_S + ns;
}

static enum err read_value(struct reader *r, struct stek_file *f)
{
    uint64_t step, member = 0;
    while ((step = read_number(r)) != 0 && !r->bad) {
        member = step < MEMBERS ? member + step : MEMBERS;
        if (member == KEYS)
            read_keys(r, f);
        else if (member == LAST)
            f->last_ns = read_time(r);
        else if (member == NEXT)
            f->next_ns = read_time(r);
        else
            r->bad = true;
    }
    return r->bad || r->rest.len > 0 ? ERR_INVALID : OK;
}

enum err stek_file_parse(struct slice bytes, struct stek_file *f)
{
    struct reader all = {bytes, bytes.len > STEK_FILE_MAX};
    memset(f, 0, sizeof *f);
    f->last_ns = f->next_ns = INT64_MIN;
    while (!all.bad && all.rest.len > 0) {
        struct reader message = {read_bytes(&all), false};
        bool defines = (read_number(&message) & 1) != 0; /* a negative number, as gob writes it */
        if (!all.bad && !message.bad && !defines)
            return read_value(&message, f) == OK && all.rest.len == 0 ? OK : ERR_INVALID;
        all.bad = all.bad || message.bad;
    }
    return ERR_INVALID;
}

/* --- writing --- */

/* The types, as Go defines them: distributedSTEK is 65, [][32]uint8 67, [32]uint8 66, Time 68. */
static const unsigned char types[] =
    "\x4b\xff\x81\x03\x01\x01\x0f" "distributedSTEK\x01\xff\x82\x00\x01\x03\x01\x04Keys\x01\xff\x86"
    "\x00\x01\x0cLastRotation\x01\xff\x88\x00\x01\x0cNextRotation\x01\xff\x88\x00\x00\x00"
    "\x1a\xff\x85\x02\x01\x01\x0b[][32]uint8\x01\xff\x86\x00\x01\xff\x84\x00\x00"
    "\x0e\xff\x83\x01\x01\x02\xff\x84\x00\x01\x06\x01\x40\x00\x00"
    "\x10\xff\x87\x05\x01\x01\x04Time\x01\xff\x88\x00\x00\x00";

static void put_number(struct buffer *b, uint64_t n)
{
    unsigned bytes = n < 128 ? 0 : n < 0x100 ? 1 : n < 0x10000 ? 2 : 4; /* no file is that large */
    if (bytes > 0)
        (void)buffer_append_byte(b, (char)-(int)bytes);
    for (unsigned i = bytes > 0 ? bytes : 1; i-- > 0;)
        (void)buffer_append_byte(b, (char)(n >> 8 * i & 0xff));
}

static void put_time(struct buffer *b, int64_t wall_ns)
{
    uint64_t s = (uint64_t)(wall_ns / (int64_t)NS_PER_S + YEAR_1970);
    uint64_t ns = (uint64_t)(wall_ns % (int64_t)NS_PER_S);
    (void)buffer_append_byte(b, 1); /* the next member */
    (void)buffer_append_byte(b, TIME_LEN);
    (void)buffer_append_byte(b, 1);
    for (unsigned i = 8; i-- > 0;)
        (void)buffer_append_byte(b, (char)(s >> 8 * i & 0xff));
    for (unsigned i = 4; i-- > 0;)
        (void)buffer_append_byte(b, (char)(ns >> 8 * i & 0xff));
    (void)buffer_append(b, SLICE("\xff\xff")); /* UTC */
}

void stek_file_put(struct buffer *out, const struct stek_file *f)
{
    struct buffer value;
    size_t most = 64 + f->count * (size_t)(1 + 2 * STEK_LEN); /* no copy of a key stays where one grew */
    buffer_init(&value, STEK_FILE_MAX);
    (void)buffer_reserve(&value, most);
    (void)buffer_reserve(out, most + sizeof types);
    (void)buffer_append(&value, SLICE("\xff\x82"));
    (void)buffer_append_byte(&value, KEYS);
    put_number(&value, f->count);
    for (unsigned i = 0; i < f->count; i++) {
        put_number(&value, STEK_LEN);
        for (unsigned k = 0; k < STEK_LEN; k++)
            put_number(&value, f->keys[i][k]);
    }
    put_time(&value, f->last_ns > 0 ? f->last_ns : 0);
    put_time(&value, f->next_ns > 0 ? f->next_ns : 0);
    (void)buffer_append_byte(&value, 0);
    (void)buffer_append(out, slice_of((const char *)types, sizeof types - 1));
    put_number(out, value.len);
    (void)buffer_append(out, buffer_slice(&value));
    explicit_bzero(value.ptr, value.len);
    buffer_deinit(&value);
}

void stek_file_rotate(struct stek_file *f, const unsigned char key[STEK_LEN], unsigned max)
{
    max = max == 0 ? 1 : max < STEK_MAX ? max : STEK_MAX;
    unsigned kept = f->count < max ? f->count : max - 1;
    memmove(f->keys[1], f->keys[0], (size_t)kept * STEK_LEN);
    memcpy(f->keys[0], key, STEK_LEN);
    f->count = kept + 1;
}
