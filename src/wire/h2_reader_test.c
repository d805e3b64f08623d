/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames are the same however their bytes come: whole, byte by byte, in pieces of any length, with waits
 * for room. What is malformed, row by row.
 */
#include "base/test.h"
#include "wire/h2_reader.h"

enum { REFUSED_MAX = 4 };

static struct h2_reader reader;
static struct buffer sent; /* what the other side says */
static struct buffer seen; /* what was understood, as text */

static void put(enum h2_type type, uint8_t flags, uint32_t stream, struct slice payload)
{
    char head[H2_FRAME_HEAD];
    h2_write_head(head, (uint32_t)payload.len, type, flags, stream);
    CHECK(buffer_append(&sent, slice_of(head, sizeof head)) == OK);
    CHECK(buffer_append(&sent, payload) == OK);
}

static void fresh(void)
{
    h2_reader_deinit(&reader);
    h2_reader_init(&reader, 40000);
    buffer_deinit(&sent);
    buffer_init(&sent, 1 << 20);
    buffer_deinit(&seen);
    buffer_init(&seen, 1 << 20);
    put(H2_SETTINGS, 0, 0, SLICE_NONE);
}

static void end(void)
{
    h2_reader_deinit(&reader);
    buffer_deinit(&sent);
    buffer_deinit(&seen);
}

/* Pieces of DATA are written as if they had come together. */
static void note(const struct h2_got *g)
{
    const char *ends = (g->head.flags & H2_END_STREAM) != 0 ? " end" : "";
    switch (g->kind) {
    case H2_GOT_FRAME:
        CHECK(buffer_append_f(&seen, "frame %u/%u:", g->head.type, g->head.stream) == OK);
        CHECK(buffer_append(&seen, g->bytes) == OK);
        break;
    case H2_GOT_BLOCK:
        CHECK(buffer_append_f(&seen, "block %u%s:", g->head.stream, ends) == OK);
        CHECK(buffer_append(&seen, g->bytes) == OK);
        break;
    case H2_GOT_PART:
        CHECK(buffer_append_f(&seen, "part %u", g->head.stream) == OK);
        break;
    case H2_GOT_DATA:
        CHECK(buffer_append_f(&seen, "data %u%s %u-%u:", g->head.stream, ends, g->head.len,
                              g->padding) == OK);
        CHECK(buffer_append(&seen, g->bytes) == OK);
        break;
    case H2_GOT_PIECE:
        CHECK(buffer_append(&seen, g->bytes) == OK);
        break;
    case H2_GOT_BAD:
        CHECK(buffer_append_f(&seen, "bad %u %s", g->error, g->why) == OK);
        break;
    }
    if ((g->kind != H2_GOT_DATA && g->kind != H2_GOT_PIECE) || g->last)
        CHECK(BUFFER_PUT(&seen, "\n") == OK);
}

/* `refuse`: so often there is no room. False: something was bad. */
static bool feed(struct slice bytes, unsigned *refuse)
{
    struct h2_got g;
    while (h2_reader_look(&reader, &bytes, &g)) {
        if (h2_got_asks(&g) && *refuse > 0) {
            --*refuse;
            break;
        }
        h2_reader_take(&reader, &bytes, &g);
        note(&g);
        if (g.kind == H2_GOT_BAD)
            return false;
    }
    CHECK(h2_reader_keep(&reader, bytes) == OK);
    return true;
}

static struct slice read_in_pieces(size_t size, unsigned refuse)
{
    struct slice rest = buffer_slice(&sent);
    bool good = true;
    h2_reader_deinit(&reader);
    h2_reader_init(&reader, 40000);
    buffer_clear(&seen);
    for (; rest.len > 0 && good; rest = slice_skip(rest, size))
        good = feed(slice_take(rest, size), &refuse);
    for (int i = 0; i < REFUSED_MAX && good; i++)
        good = feed(SLICE_NONE, &refuse);
    return buffer_slice(&seen);
}

/* All that is said next, as `want`. */
static void expect(const char *want)
{
    static const size_t sizes[] = {1, 2, 3, 5, 8, 9, 10, 11, 13, 17, 100, 1000, 1 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (unsigned refuse = 0; refuse < REFUSED_MAX; refuse++) {
            struct slice got = read_in_pieces(sizes[i], refuse);
            CHECK(slice_starts(got, SLICE("frame 4/0:\n")));
            CHECK_SLICE(slice_skip(got, 11), slice_from(want));
        }
    }
}

TEST("frames are the same however they come")
{
    fresh();
    put(H2_HEADERS, H2_END_HEADERS, 1, SLICE("head"));
    put(H2_DATA, 0, 1, SLICE("some bytes"));
    put(H2_DATA, H2_PADDED, 1, SLICE("\5more.....")); /* as if the dots were padding */
    put(H2_PING, 0, 0, SLICE("12345678"));
    put(H2_DATA, H2_PADDED, 1, SLICE("\0"));
    put(H2_DATA, H2_PADDED, 1, SLICE("\2.."));
    put(H2_DATA, H2_END_STREAM, 1, SLICE_NONE);
    put(0xbe, 0xff, 7, SLICE("unknown"));
    expect("block 1:head\ndata 1 10-0:some bytes\ndata 1 10-6:more\nframe 6/0:12345678\n"
           "data 1 1-1:\ndata 1 3-3:\ndata 1 end 0-0:\nframe 190/7:unknown\n");
    end();
}

TEST("a header block in several frames is one")
{
    fresh();
    put(H2_HEADERS, H2_END_STREAM | H2_PADDED | H2_PRIORITY_FLAG, 3, SLICE("\2pppppab.."));
    put(H2_CONTINUATION, 0, 3, SLICE_NONE);
    put(H2_CONTINUATION, 0, 3, SLICE("cd"));
    put(H2_CONTINUATION, H2_END_HEADERS, 3, SLICE("ef"));
    put(H2_HEADERS, 0, 5, SLICE_NONE);
    put(H2_CONTINUATION, H2_END_HEADERS, 5, SLICE("g"));
    put(H2_HEADERS, H2_END_HEADERS | H2_PADDED, 7, SLICE("\1h."));
    expect("part 3\npart 3\npart 3\nblock 3 end:abcdef\npart 5\nblock 5:g\nblock 7:h\n");
    end();
}

TEST("a header block has an end")
{
    static char much[16384];
    struct slice all;
    fresh();
    put(H2_HEADERS, 0, 1, slice_of(much, sizeof much));
    put(H2_CONTINUATION, 0, 1, slice_of(much, sizeof much));
    put(H2_CONTINUATION, 0, 1, slice_of(much, sizeof much));
    all = read_in_pieces(9999, 0);
    CHECK(slice_ends(all, SLICE("bad 11 a header block is too long\n")));

    fresh();
    put(H2_HEADERS, 0, 1, SLICE("x"));
    for (int i = 0; i < 35; i++)
        put(H2_CONTINUATION, 0, 1, SLICE("x"));
    all = read_in_pieces(100, 0);
    CHECK(slice_ends(all, SLICE("bad 11 too many CONTINUATION frames\n")));
    end();
}

/* As many frames as a block of a configuration's largest heads may have: more than 16 bits count. */
TEST("so has a very large one")
{
    enum { FRAMES = 32 + (1u << 31) / 16384 };
    unsigned none = 0, taken = 0;
    fresh();
    h2_reader_init(&reader, (size_t)1 << 31);
    put(H2_HEADERS, 0, 1, SLICE("x"));
    CHECK(feed(buffer_slice(&sent), &none));
    buffer_clear(&sent);
    put(H2_CONTINUATION, 0, 1, SLICE("x"));
    buffer_clear(&seen);
    while (taken <= FRAMES && feed(buffer_slice(&sent), &none)) {
        taken++;
        buffer_clear(&seen);
    }
    CHECK_INT(taken, FRAMES);
    CHECK_SLICE(buffer_slice(&seen), SLICE("bad 11 too many CONTINUATION frames\n"));
    end();
}

static const struct row {
    const char *want;
    uint8_t type, flags;
    uint32_t stream;
    struct slice payload;
} rows[] = {
    {"bad 1 SETTINGS on a stream\n", H2_SETTINGS, 0, 1, {"", 0}},
    {"bad 6 SETTINGS of the wrong length\n", H2_SETTINGS, 0, 0, {"1234567", 7}},
    {"bad 6 SETTINGS of the wrong length\n", H2_SETTINGS, H2_ACK, 0, {"123456", 6}},
    {"bad 1 PING on a stream\n", H2_PING, 0, 1, {"12345678", 8}},
    {"bad 6 PING of the wrong length\n", H2_PING, H2_ACK, 0, {"1234567", 7}},
    {"bad 1 GOAWAY on a stream\n", H2_GOAWAY, 0, 1, {"12345678", 8}},
    {"bad 6 GOAWAY too short\n", H2_GOAWAY, 0, 0, {"1234567", 7}},
    {"frame 7/0:123456789\n", H2_GOAWAY, 0, 0, {"123456789", 9}},
    {"bad 6 RST_STREAM of the wrong length\n", H2_RST_STREAM, 0, 1, {"12345", 5}},
    {"bad 6 WINDOW_UPDATE of the wrong length\n", H2_WINDOW_UPDATE, 0, 1, {"123", 3}},
    {"bad 1 PRIORITY_UPDATE on a stream\n", H2_PRIORITY_UPDATE, 0, 1, {"12345", 5}},
    {"bad 6 PRIORITY_UPDATE too short\n", H2_PRIORITY_UPDATE, 0, 0, {"123", 3}},
    {"frame 2/1:123\n", H2_PRIORITY, 0, 1, {"123", 3}},
    {"bad 1 HEADERS on stream 0\n", H2_HEADERS, H2_END_HEADERS, 0, {"x", 1}},
    {"bad 6 HEADERS too short for what its flags say\n", H2_HEADERS, H2_PADDED, 1, {"", 0}},
    {"bad 6 HEADERS too short for what its flags say\n", H2_HEADERS, H2_PRIORITY_FLAG, 1, {"1234", 4}},
    {"bad 1 more padding than HEADERS\n", H2_HEADERS, H2_PADDED, 1, {"\5abcd", 5}},
    {"bad 1 CONTINUATION without HEADERS before it\n", H2_CONTINUATION, H2_END_HEADERS, 1, {"", 0}},
    {"bad 6 padded DATA without the padding's length\n", H2_DATA, H2_PADDED, 1, {"", 0}},
    {"bad 1 more padding than DATA\n", H2_DATA, H2_PADDED, 1, {"\1", 1}},
};

TEST("malformed frames are the connection's error")
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        fresh();
        put(rows[i].type, rows[i].flags, rows[i].stream, rows[i].payload);
        expect(rows[i].want);
    }
    end();
}

TEST("nothing comes before SETTINGS, nor into a header block, and no frame is long")
{
    unsigned none = 0;
    fresh();
    buffer_clear(&sent);
    put(H2_SETTINGS, H2_ACK, 0, SLICE_NONE);
    CHECK_SLICE(read_in_pieces(1, 0), SLICE("bad 1 the first frame is not SETTINGS\n"));

    fresh();
    put(H2_HEADERS, 0, 1, SLICE("x"));
    put(H2_CONTINUATION, 0, 3, SLICE("x"));
    expect("part 1\nbad 1 a frame in the middle of a header block\n");

    fresh();
    buffer_clear(&seen);
    CHECK(feed(buffer_slice(&sent), &none));
    CHECK(!feed(SLICE("\0\x40\1\6\0\0\0\0\0"), &none)); /* its head is enough */
    CHECK_SLICE(buffer_slice(&seen), SLICE("frame 4/0:\nbad 6 a frame that is too long\n"));
    end();
}

TEST("memory that holds nothing goes back")
{
    unsigned none = 0;
    fresh();
    CHECK(feed(slice_take(buffer_slice(&sent), 5), &none));
    h2_reader_rest(&reader);
    CHECK_INT(h2_reader_kept(&reader), 5);
    CHECK(feed(slice_skip(buffer_slice(&sent), 5), &none));
    CHECK(reader.kept != NULL);
    h2_reader_rest(&reader);
    CHECK(reader.kept == NULL);
    end();
}

TEST("settings have bounds")
{
    const char *why;
    CHECK(h2_setting_check(H2_SET_ENABLE_PUSH, 2, &why) == H2_PROTOCOL_ERROR);
    CHECK(h2_setting_check(H2_SET_ENABLE_CONNECT_PROTOCOL, 1, &why) == H2_NO_ERROR);
    CHECK(h2_setting_check(H2_SET_NO_RFC7540_PRIORITIES, 1, &why) == H2_NO_ERROR);
    CHECK(h2_setting_check(H2_SET_NO_RFC7540_PRIORITIES, 2, &why) == H2_PROTOCOL_ERROR);
    CHECK(h2_setting_check(H2_SET_INITIAL_WINDOW_SIZE, 0x80000000, &why) == H2_FLOW_CONTROL_ERROR);
    CHECK(h2_setting_check(H2_SET_MAX_FRAME_SIZE, 16383, &why) == H2_PROTOCOL_ERROR);
    CHECK(h2_setting_check(H2_SET_MAX_FRAME_SIZE, 0xffffff, &why) == H2_NO_ERROR);
    CHECK(h2_setting_check(0xffff, UINT32_MAX, &why) == H2_NO_ERROR);
}
