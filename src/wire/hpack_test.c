/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HPACK: every example of RFC 7541 appendix C, what must be refused, what a hostile peer can make the
 * tables hold, and that the encoder's blocks come out as what went in.
 */
#include "base/mem.h"
#include "base/test.h"
#include "base/text.h"
#include "wire/hpack.h"
#include "wire/hpack_table.h"
#include "wire/huffman.h"

static struct hpack_decoder decoder;
static struct hpack_encoder encoder;
static struct arena arena;
static struct buffer listing; /* what the last block said, a "name: value" per line */
static uint8_t last_marks;
static unsigned listed;

static void fresh(void)
{
    hpack_decoder_deinit(&decoder);
    hpack_encoder_deinit(&encoder);
    arena_deinit(&arena);
    buffer_deinit(&listing);
    hpack_decoder_init(&decoder);
    hpack_encoder_init(&encoder);
    arena_init(&arena, 4096);
    buffer_init(&listing, 1 << 20);
}

static enum hpack_event read_block(struct slice block, uint32_t size_max)
{
    struct hpack_reader r;
    struct hpack_field f;
    enum hpack_event e;
    char *exact = mem_alloc(block.len > 0 ? block.len : 1); /* the sanitizer sees a byte too far */
    if (block.len > 0)
        memcpy(exact, block.ptr, block.len);
    buffer_clear(&listing);
    listed = 0;
    hpack_read(&r, &decoder, slice_of(exact, block.len), &arena, size_max);
    while ((e = hpack_next(&r, &f)) == HPACK_FIELD) {
        (void)!buffer_append(&listing, f.name);
        (void)!BUFFER_PUT(&listing, ": ");
        (void)!buffer_append(&listing, f.value);
        (void)!BUFFER_PUT(&listing, "\n");
        last_marks = f.marks;
        listed++;
    }
    CHECK(e != HPACK_BAD || r.bad != NULL);
    mem_free(exact);
    return e;
}

static struct slice from_hex(const char *hex)
{
    static char bytes[4096];
    size_t n = 0;
    for (; *hex != '\0'; hex++) {
        if (*hex == ' ')
            continue;
        bytes[n++] = (char)(hex_value(hex[0]) << 4 | hex_value(hex[1]));
        hex++;
    }
    return slice_of(bytes, n);
}

static enum hpack_event read_hex(const char *hex)
{
    return read_block(from_hex(hex), 16384);
}

static void check_block(const char *hex, const char *want, uint32_t table_size)
{
    CHECK_INT(read_hex(hex), HPACK_DONE);
    CHECK_TEXT(buffer_slice(&listing), want);
    CHECK_INT(decoder.table.size, table_size);
}

TEST("RFC 7541 C.1 and C.2: numbers and each representation")
{
    fresh();
    check_block("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
                "custom-key: custom-header\n", 55);
    fresh();
    check_block("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path\n", 0);
    check_block("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret\n", 0);
    CHECK_INT(last_marks, HPACK_NEVER);
    check_block("82", ":method: GET\n", 0);
    check_block("3f9a0a", "", 0);
    CHECK_INT(decoder.table.max, 1337);
    check_block("2a", "", 0);
    CHECK_INT(decoder.table.max, 10);
}

static const char first_request[] =
    ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n";
static const char second_request[] = ":method: GET\n:scheme: http\n:path: /\n"
                                     ":authority: www.example.com\ncache-control: no-cache\n";
static const char third_request[] = ":method: GET\n:scheme: https\n:path: /index.html\n"
                                    ":authority: www.example.com\ncustom-key: custom-value\n";

TEST("RFC 7541 C.3: requests without Huffman coding")
{
    fresh();
    check_block("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", first_request, 57);
    check_block("8286 84be 5808 6e6f 2d63 6163 6865", second_request, 110);
    check_block("8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
                third_request, 164);
}

TEST("RFC 7541 C.4: requests with Huffman coding")
{
    fresh();
    check_block("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", first_request, 57);
    check_block("8286 84be 5886 a8eb 1064 9cbf", second_request, 110);
    check_block("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", third_request, 164);
}

static const char first_response[] =
    ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\n"
    "location: https://www.example.com\n";
static const char second_response[] =
    ":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\n"
    "location: https://www.example.com\n";
static const char third_response[] =
    ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\n"
    "location: https://www.example.com\ncontent-encoding: gzip\n"
    "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n";

static void table_of_256(void)
{
    fresh();
    hpack_decoder_limit(&decoder, 256);
    hpack_table_resize(&decoder.table, 256);
    decoder.update_due = false;
}

TEST("RFC 7541 C.5: responses without Huffman coding, in a table of 256 bytes")
{
    table_of_256();
    check_block("4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133"
                "2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70"
                "6c65 2e63 6f6d", first_response, 222);
    check_block("4803 3330 37c1 c0bf", second_response, 222);
    check_block("88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d"
                "54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049"
                "5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e"
                "3d31", third_response, 215);
}

TEST("RFC 7541 C.6: responses with Huffman coding, in a table of 256 bytes")
{
    table_of_256();
    check_block("4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6"
                "2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3", first_response, 222);
    check_block("4883 640e ffc1 c0bf", second_response, 222);
    check_block("88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab"
                "77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f"
                "9587 3160 65c0 03ed 4ee5 b106 3d50 07", third_response, 215);
    CHECK_INT(decoder.table.count, 3);
}

TEST("malformed blocks are refused")
{
    static const struct {
        const char *hex, *what;
    } rows[] = {
        {"80", "index 0"},
        {"be", "an index beyond an empty dynamic table"},
        {"ff80 01", "index 255"},
        {"ff", "a number cut off"},
        {"ff80", "a number cut off behind its first byte"},
        {"ffffffffff7f", "a number beyond 32 bits"},
        {"ff8080808080 00", "a number with useless bytes"},
        {"ffffffffffffffffffff7f", "a number beyond 64 bits"},
        {"7e0161", "a name of no entry"},
        {"0f7f0161", "a name of no entry, not indexed"},
        {"40", "no name"},
        {"4001", "a name cut off"},
        {"400161", "no value"},
        {"40016102", "a value cut off"},
        {"4001610261", "a value cut off within"},
        {"40ff8080808010", "a name of 4 GiB"},
        {"4081", "a Huffman name cut off"},
        {"418100", "Huffman padding of zeros"},
        {"4182ffff", "Huffman padding of two bytes"},
        {"4181ff", "Huffman padding of a whole byte"},
        {"41821fff", "Huffman padding of more than seven bits"},
        {"4184ffffffff", "EOS in Huffman code"},
        {"4185ffffffffff", "EOS and more"},
        {"8220", "a size update behind a field"},
        {"3fe21f", "a size update above the limit"},
        {"3f", "a size update cut off"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        fresh();
        if (read_hex(rows[i].hex) != HPACK_BAD)
            test_fail(__FILE__, __LINE__, "%s is accepted: %s", rows[i].hex, rows[i].what);
    }
}

TEST("a table can be made smaller and larger at a block's beginning, within the limit")
{
    fresh();
    check_block("4001 6101 62 4001 6301 64", "a: b\nc: d\n", 68);
    check_block("3f03 be", "c: d\n", 34); /* 34 */
    check_block("20 3fe11f", "", 0);      /* 0, then 4096 */
    CHECK_INT(decoder.table.max, 4096);
    CHECK_INT(read_hex("be"), HPACK_BAD);
}

TEST("behind a lower limit the next block must begin with a size update")
{
    fresh();
    hpack_decoder_limit(&decoder, 100);
    CHECK_INT(read_hex("82"), HPACK_BAD);
    fresh();
    hpack_decoder_limit(&decoder, 100);
    CHECK_INT(read_hex("3fe11f 82"), HPACK_BAD);
    fresh();
    hpack_decoder_limit(&decoder, 100);
    check_block("3f45 82", ":method: GET\n", 0);
    check_block("82", ":method: GET\n", 0);
    hpack_decoder_limit(&decoder, 4096); /* a higher one needs none */
    check_block("82", ":method: GET\n", 0);
}

TEST("an entry larger than the table empties it and is a field all the same")
{
    static char block[8192];
    fresh();
    check_block("4001 6101 62", "a: b\n", 34);
    int n = snprintf(block, 16, "%s", "\x40\x01x\x7f\xe1\x1f"); /* 4192 bytes follow */
    memset(block + n, 'v', 4192);
    CHECK_INT(read_block(slice_of(block, (size_t)n + 4192), 65536), HPACK_DONE);
    CHECK_INT(listed, 1);
    CHECK_INT(decoder.table.count, 0);
    CHECK_INT(decoder.table.size, 0);
}

TEST("a name is taken from an entry that its own field pushes out")
{
    fresh();
    check_block("3f2d 4005 61626364 65 01 66", "abcde: f\n", 38); /* a table of 76 */
    check_block("7e03 676869", "abcde: ghi\n", 40);
    check_block("7e03 6a6b6c be", "abcde: jkl\nabcde: jkl\n", 40);
}

TEST("a list beyond its limit is read to its end and costs no memory")
{
    static char block[20000];
    fresh();
    int n = snprintf(block, 16, "%s", "\x40\x01x\x7f\x81\x1e"); /* 3968 bytes */
    memset(block + n, 'v', 3968);
    memset(block + n + 3968, 0xbe, sizeof block - (size_t)n - 3968 - 6);
    memcpy(block + sizeof block - 6, "\x40\x01y\x02zz", 6);
    CHECK_INT(read_block(slice_of(block, sizeof block), 16384), HPACK_TOO_LARGE);
    CHECK_INT(listed, 4);
    CHECK(arena.used < 65536);
    check_block("be", "y: zz\n", 4001 + 35); /* the table is what the peer believes */
}

TEST("a list is counted with 32 bytes for each field, up to its limit exactly")
{
    fresh();
    CHECK_INT(read_block(from_hex("82 86"), 42 + 43), HPACK_DONE);
    CHECK_INT(listed, 2);
    CHECK_INT(read_block(from_hex("82 86"), 42 + 43 - 1), HPACK_TOO_LARGE);
    CHECK_INT(listed, 1);
}

TEST("fields are marked by what they hold, also when they come from the table")
{
    static const struct {
        const char *name, *value;
        unsigned marks;
    } rows[] = {
        {"x-plain", "a b", 0},
        {"X-Plain", "a", HPACK_NAME_BAD},
        {"", "a", HPACK_NAME_BAD},
        {":", "a", HPACK_NAME_BAD},
        {"::a", "a", HPACK_NAME_BAD},
        {"a:b", "a", HPACK_NAME_BAD},
        {"a b", "a", HPACK_NAME_BAD},
        {"a\x80", "a", HPACK_NAME_BAD},
        {"a\x7f", "a", HPACK_NAME_BAD},
        {":path", "a", 0},
        {"a_b", "a", HPACK_NAME_ODD},
        {"a.b", "a", HPACK_NAME_ODD},
        {"a", " a", HPACK_VALUE_BAD},
        {"a", "a\t", HPACK_VALUE_BAD},
        {"a", " ", HPACK_VALUE_BAD},
        {"a", "a\r\nb", HPACK_VALUE_BAD},
        {"a", "a\x01", HPACK_VALUE_BAD},
        {"a", "a\x7f", HPACK_VALUE_BAD},
        {"a", "a\tb\xff", 0},
        {"a", "", 0},
        {"A", " ", HPACK_NAME_BAD | HPACK_VALUE_BAD},
    };
    char block[64];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int n = snprintf(block, sizeof block, "\x40%c%s%c%s", (char)strlen(rows[i].name),
                         rows[i].name, (char)strlen(rows[i].value), rows[i].value);
        if (rows[i].name[0] == '\0') {
            memcpy(block, "\x40\0\x01" "a", 4);
            n = 4;
        }
        if (rows[i].value[0] == '\0') {
            memcpy(block, "\x40\x01" "a\0", 4);
            n = 4;
        }
        fresh();
        CHECK_INT(read_block(slice_of(block, (size_t)n), 16384), HPACK_DONE);
        CHECK_INT(last_marks, rows[i].marks);
        CHECK_INT(read_hex("be"), HPACK_DONE);
        CHECK_INT(last_marks, rows[i].marks);
        CHECK_INT(read_hex("7e0162"), HPACK_DONE); /* the name, with another value */
        CHECK_INT(last_marks, rows[i].marks & ~(unsigned)HPACK_VALUE_BAD);
    }
}

TEST("a value with a NUL byte is marked")
{
    fresh();
    CHECK_INT(read_hex("4001 6103 61 00 61"), HPACK_DONE);
    CHECK_INT(last_marks, HPACK_VALUE_BAD);
}

TEST("every name with a number is found by its text in any case, and others are not")
{
    char text[64];
    for (unsigned id = 1; id < NAME_COUNT; id++) {
        struct slice name = hpack_names[id];
        if (name.len == 0)
            continue;
        CHECK_INT(hpack_name_of(name), id);
        for (size_t i = 0; i < name.len; i++) {
            memcpy(text, name.ptr, name.len);
            text[i] = (char)(text[i] >= 'a' ? text[i] & ~0x20 : text[i]);
            CHECK_INT(hpack_name_of(slice_of(text, name.len)), id);
            text[i] = 'q';
            CHECK(name.ptr[i] == 'q' || hpack_name_of(slice_of(text, name.len)) != id);
        }
        memcpy(text, name.ptr, name.len);
        text[name.len] = 'x';
        CHECK(hpack_name_of(slice_of(text, name.len + 1)) != id);
        CHECK(hpack_name_of(slice_of(text, name.len - 1)) != id);
    }
}

TEST("Huffman code goes there and back for every byte and at every length")
{
    char text[300], coded[1300], back[2200];
    for (unsigned byte = 0; byte < 256; byte++) {
        for (size_t len = 0; len < 40; len++) {
            memset(text, (int)byte, len);
            if (len > 3)
                text[len / 2] = 'e';
            size_t want = huffman_length(slice_of(text, len));
            size_t n = (size_t)(huffman_encode(coded, slice_of(text, len)) - coded);
            CHECK_INT(n, want);
            CHECK(huffman_room(n) >= len + 1);
            char *exact = mem_alloc(n > 0 ? n : 1);
            memcpy(exact, coded, n);
            CHECK_INT(huffman_decode(back, slice_of(exact, n)), len);
            mem_free(exact);
            CHECK(memcmp(back, text, len) == 0);
        }
    }
    for (size_t i = 0; i < 256; i++)
        text[i] = (char)i;
    size_t n = (size_t)(huffman_encode(coded, slice_of(text, 256)) - coded);
    CHECK_INT(huffman_decode(back, slice_of(coded, n)), 256);
    CHECK(memcmp(back, text, 256) == 0);
}

/* --- encoding --- */

static char out[65536];
static size_t out_len;

static void begin_out(void)
{
    out_len = (size_t)(hpack_begin(&encoder, out) - out);
}

static void put(const char *name, const char *value)
{
    struct slice n = slice_from(name), v = slice_from(value);
    size_t more = (size_t)(hpack_put(&encoder, out + out_len, n, v, HPACK_AUTO) - out) - out_len;
    CHECK(more <= hpack_room(n.len, v.len));
    out_len += more;
}

static void check_out(const char *want)
{
    CHECK_INT(read_block(slice_of(out, out_len), 65536), HPACK_DONE);
    CHECK_TEXT(buffer_slice(&listing), want);
}

static void put_response(void)
{
    begin_out();
    out_len = (size_t)(hpack_put_status(&encoder, out + out_len, 200) - out);
    put("Server", "portico");
    put("Content-Type", "text/plain; charset=utf-8");
    put("Content-Length", "13");
    put("X-Frame-Options", "DENY");
}

TEST("what repeats becomes one byte per field")
{
    static const char want[] = ":status: 200\nserver: portico\ncontent-type: text/plain; "
                               "charset=utf-8\ncontent-length: 13\nx-frame-options: DENY\n";
    fresh();
    for (int i = 0; i < 4; i++) {
        put_response();
        check_out(want);
        CHECK((encoder.memory == NULL) == (i == 0)); /* who asks once costs none */
    }
    CHECK_INT(out_len, 5);
    hpack_encoder_rest(&encoder);
    CHECK(encoder.memory == NULL);
    put_response();
    check_out(want);
    CHECK(out_len > 5);
}

TEST("unique values never fill the table; secrets and dates never enter it")
{
    char id[32];
    fresh();
    for (int i = 0; i < 200; i++) {
        begin_out();
        snprintf(id, sizeof id, "%08x-%d", (unsigned)i * 2654435761u, i);
        put("X-Request-Id", id);
        put("Set-Cookie", "a=b");
        put("Date", "Mon, 21 Oct 2013 20:13:21 GMT");
        CHECK_INT(read_block(slice_of(out, out_len), 65536), HPACK_DONE);
        CHECK_INT(listed, 3);
    }
    CHECK(encoder.memory->table.count < 3);
    begin_out();
    put("Set-Cookie", "a=b");
    CHECK_INT((unsigned char)out[0], 0x1f); /* never indexed */
    check_out("set-cookie: a=b\n");
    CHECK_INT(last_marks, HPACK_NEVER);
}

TEST("the peer's table size is kept to and told, the lowest one first")
{
    fresh();
    put_response();
    check_out(":status: 200\nserver: portico\ncontent-type: text/plain; charset=utf-8\n"
              "content-length: 13\nx-frame-options: DENY\n");
    hpack_encoder_limit(&encoder, 0);
    hpack_encoder_limit(&encoder, 100000);
    hpack_decoder_limit(&decoder, 0);
    hpack_decoder_limit(&decoder, 4096);
    begin_out();
    CHECK_INT(out_len, 4);
    CHECK_INT(out[0], 0x20);
    put("Server", "portico");
    check_out("server: portico\n");
    hpack_encoder_limit(&encoder, 0);
    begin_out();
    CHECK_INT(out_len, 1);
    put("Server", "portico");
    check_out("server: portico\n");
    CHECK_INT(decoder.table.count, 0);
    begin_out();
    put("Server", "portico");
    check_out("server: portico\n");
    CHECK(out_len > 5);
    hpack_encoder_limit(&encoder, 64);
    begin_out();
    CHECK_INT(out_len, 2);
    CHECK_INT(read_block(slice_of(out, out_len), 100), HPACK_DONE);
}

TEST("names are written in small letters, also long ones and those of the table")
{
    char name[400], want[900], lower[400];
    fresh();
    memset(name, 'A', sizeof name);
    name[399] = '\0';
    memset(lower, 'a', sizeof lower);
    lower[399] = '\0';
    snprintf(want, sizeof want, "%s: x\nx-mixed: y\n", lower);
    for (int i = 0; i < 4; i++) {
        begin_out();
        put(name, "x");
        put(i % 2 == 0 ? "X-Mixed" : "x-MIXED", "y");
        check_out(want);
    }
    CHECK_INT(out_len, 2);
}

TEST("memory of both tables is given back or shrinks to what lives")
{
    char value[32];
    fresh();
    for (int i = 0; i < 500; i++) {
        begin_out();
        snprintf(value, sizeof value, "text/x-%d", i);
        put("Content-Type", value);
        put("Via", value);
        CHECK_INT(read_block(slice_of(out, out_len), 65536), HPACK_DONE);
        CHECK(decoder.table.size <= 4096 && decoder.table.cap <= 8192);
        if (i % 50 == 0)
            hpack_decoder_trim(&decoder);
    }
    unsigned count = decoder.table.count;
    hpack_decoder_trim(&decoder);
    CHECK_INT(decoder.table.count, count);
    CHECK_INT(decoder.table.cap, decoder.table.end);
    begin_out();
    put("Via", value);
    CHECK_INT(out_len, 1);
    check_out("via: text/x-499\n");
}
