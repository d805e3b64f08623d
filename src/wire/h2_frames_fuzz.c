/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole connection of HTTP/2 (h2_fuzzing.h) whose client speaks in frames: an input is a list of
 * orders of four bytes, each a frame that is valid by itself or an order to send what has been gathered,
 * read some, break some bytes of it, or cut it. So a fuzzer gets deep into states (header blocks in
 * pieces, windows, resets, priorities, drains) that random bytes seldom reach.
 *
 * As long as no bytes were broken the client knows what it has allowed: no more DATA may come than its
 * windows let, and no larger frame.
 */
#include "wire/h2_fuzzing.h"

enum { GATHERED_MAX = 64 * 1024, ORDERS_MAX = 400 };

struct order {
    uint8_t kind, a, b, c;
};

static struct {
    struct client client;
    char bytes[GATHERED_MAX];
    size_t len;
    uint32_t next_id;
    uint64_t granted;                       /* of the connection */
    uint64_t stream_granted[STREAMS_SEEN];  /* by WINDOW_UPDATE */
    uint64_t initial_max;                   /* the largest INITIAL_WINDOW_SIZE that was said */
    bool broken;                            /* what was sent is not what is written down here */
} speaker;

static void check_allowed(void)
{
    const struct client *c = &speaker.client;
    if (speaker.broken)
        return;
    ASSERT(c->data <= speaker.granted);
    for (int i = 0; i < STREAMS_SEEN; i++)
        ASSERT(c->stream_data[i] <= speaker.initial_max + speaker.stream_granted[i]);
}

static void distrust(void)
{
    speaker.broken = true;
    speaker.client.frame_max = 0;
}

static void say_bytes(size_t n, size_t most)
{
    if (!send_piece(&speaker.client, slice_of(speaker.bytes, n), most))
        distrust();
}

static void flush_out(size_t most)
{
    say_bytes(speaker.len, most);
    speaker.len = 0;
    check_allowed();
}

static char *add_frame(enum h2_type type, uint8_t flags, uint32_t id, size_t len)
{
    if (speaker.len + H2_FRAME_HEAD + len > GATHERED_MAX)
        flush_out(SIZE_MAX);
    char *at = speaker.bytes + speaker.len;
    h2_write_head(at, (uint32_t)len, type, flags, id);
    memset(at + H2_FRAME_HEAD, 0, len);
    speaker.len += H2_FRAME_HEAD + len;
    return at + H2_FRAME_HEAD;
}

/* One of the streams that were opened, or one close to them; 0 seldom. */
static uint32_t some_stream(uint8_t pick)
{
    if (pick == 255)
        return 0;
    if (pick >= 250)
        return speaker.next_id + (pick - 250u);
    uint32_t opened = speaker.next_id / 2;
    return opened == 0 ? 1 : 2 * (pick % opened) + 1;
}

/* --- header blocks --- */

static const char *const extras[] = {
    "\x00\x08priority\x06u=1, i", "\x00\x08priority\x03u=7", "\x40\x01x\x01y", "\xbe", "\xbf",
    "\x00\x0e" "content-length\x01" "5", "\x00\x06" "expect\x0c" "100-continue", "\x20", "\x3f\xe1\x1f",
    "\x0f\x11\x01" "a", "\x00\x02te\x08trailers", "\x00\x06" "cookie\x03" "a=1", "\x00\x01X\x01y",
    "\x00\x0atransfer-e\x01z", "\x00\x04host\x01" "b", "\x10\x01z\x00",
};

static size_t add_text(char *at, const char *text)
{
    size_t n = strlen(text);
    memcpy(at, text, n);
    return n;
}

static size_t put_block(char *at, struct order o)
{
    static const char paths[] = "/ebstf";
    size_t n = 0;
    if (o.a & 0x80) /* the tables' size is changed at the front */
        n += add_text(at, "\x20\x3f\x09");
    n += add_text(at + n, o.a & 1 ? "\x83\x86" : "\x82\x86"); /* POST or GET, http */
    if (o.a & 2) {
        n += add_text(at + n, "\x04\x02/");
        at[n++] = paths[o.b % 6];
    } else {
        n += add_text(at + n, "\x84");
    }
    n += add_text(at + n, "\x41\x01" "a");
    for (unsigned i = 0; i < (o.a >> 2 & 3); i++)
        n += add_text(at + n, extras[(o.b / 6 + i * 5u) % (sizeof extras / sizeof extras[0])]);
    return n;
}

/* In one frame, or with the rest in CONTINUATION frames. */
static void add_block(uint32_t id, const char *block, size_t n, uint8_t flags, unsigned cuts)
{
    size_t first = cuts > 0 ? n / (cuts + 1) : n;
    bool padded = (flags & H2_PADDED) != 0, with_priority = (flags & H2_PRIORITY_FLAG) != 0;
    uint8_t whole = cuts == 0 ? H2_END_HEADERS : 0;
    char *at = add_frame(H2_HEADERS, flags | whole, id, first + padded * 4u + with_priority * 5u);
    if (padded)
        *at++ = 3;
    if (with_priority)
        at += 5;
    memcpy(at, block, first);
    for (size_t done = first; cuts > 0; cuts--) {
        size_t len = cuts == 1 ? n - done : (n - done) / cuts;
        memcpy(add_frame(H2_CONTINUATION, cuts == 1 ? H2_END_HEADERS : 0, id, len), block + done, len);
        done += len;
    }
}

static void request(struct order o)
{
    char block[256];
    size_t n = put_block(block, o);
    uint8_t flags = o.c & (H2_END_STREAM | H2_PADDED | H2_PRIORITY_FLAG);
    add_block(speaker.next_id, block, n, flags, o.c >> 6);
    speaker.next_id += 2 + (o.c & 2);
}

static void connect_tunnel(struct order o)
{
    char block[128];
    size_t n = add_text(block, "\x02\x07" "CONNECT\x86\x04\x02/t\x41\x01" "a");
    n += add_text(block + n, "\x00\x09:protocol\x09websocket");
    add_block(speaker.next_id, block, n, o.c & H2_END_STREAM, 0);
    speaker.next_id += 2;
}

static void trailers(struct order o)
{
    add_block(some_stream(o.a), "\x00\x01t\x01v", 5, o.b & H2_END_STREAM, o.c & 1);
}

/* --- the other frames --- */

static void data(struct order o)
{
    size_t len = (size_t)o.b << (o.c >> 4 & 7);
    bool padded = (o.c & H2_PADDED) != 0;
    if (len > H2_FRAME_MAX_DEFAULT)
        len = H2_FRAME_MAX_DEFAULT;
    if (padded && len < 8)
        len = 8;
    char *at = add_frame(H2_DATA, o.c & (H2_END_STREAM | H2_PADDED), some_stream(o.a), len);
    if (padded)
        at[0] = (char)(o.c & 4 ? len - 1 : 3);
}

static void reset(struct order o)
{
    h2_write_u32(add_frame(H2_RST_STREAM, 0, some_stream(o.a), 4), o.b % 16);
}

static void settings(struct order o)
{
    static const uint32_t values[] = {0, 1, 100, 4096, 16384, 65535, 65536, 1 << 20, 0xffffff, INT32_MAX,
                                      UINT32_MAX};
    uint32_t value = values[o.b % (sizeof values / sizeof values[0])];
    unsigned id = o.a % 10;
    char *at = add_frame(H2_SETTINGS, o.c == 255 ? H2_ACK : 0, 0, o.c >= 254 ? 0 : 6);
    if (o.c >= 254)
        return;
    at[1] = (char)id;
    h2_write_u32(at + 2, value);
    if (id == H2_SET_INITIAL_WINDOW_SIZE && value > speaker.initial_max)
        speaker.initial_max = value;
    if (id == H2_SET_MAX_FRAME_SIZE && !speaker.broken && value > speaker.client.frame_max)
        speaker.client.frame_max = value;
}

static void window(struct order o)
{
    uint32_t id = o.a < 100 ? 0 : some_stream(o.a);
    uint32_t n = o.b == 255 ? INT32_MAX : (uint32_t)o.b << (o.c & 15);
    h2_write_u32(add_frame(H2_WINDOW_UPDATE, 0, id, 4), n);
    if (id == 0)
        speaker.granted += n;
    else if (id / 2 < STREAMS_SEEN)
        speaker.stream_granted[id / 2] += n;
}

static void priority_update(struct order o)
{
    static const char *const texts[] = {"u=0", "u=7, i", "i=?0", "u=9", "", "u=3;a=(1 2), x=\"y\"", "(("};
    const char *text = texts[o.b % (sizeof texts / sizeof texts[0])];
    char *at = add_frame(H2_PRIORITY_UPDATE, 0, 0, 4 + strlen(text));
    h2_write_u32(at, o.c & 1 ? speaker.next_id + 2u * (o.c >> 1) : some_stream(o.a));
    memcpy(at + 4, text, strlen(text));
}

static void other(struct order o)
{
    static const uint8_t lengths[] = {[H2_PRIORITY] = 5, [H2_PING] = 8, [H2_GOAWAY] = 8};
    static const uint8_t types[] = {H2_PRIORITY, H2_PING, H2_GOAWAY, H2_CONTINUATION, 0x42, H2_PUSH_PROMISE};
    uint8_t type = types[o.a % sizeof types];
    size_t len = type < sizeof lengths ? lengths[type] : o.c % 64;
    bool on_stream = type == H2_PRIORITY || type == H2_CONTINUATION || type == H2_PUSH_PROMISE;
    add_frame(type, type == H2_PING ? o.c & H2_ACK : 0, on_stream ? some_stream(o.b) : 0, len);
}

/* --- what happens to what is gathered --- */

static void break_bytes(struct order o)
{
    if (speaker.len == 0)
        return;
    speaker.bytes[((size_t)o.a << 8 | o.b) % speaker.len] ^= (char)(o.c | 1);
    distrust();
}

/* The first part is sent, the rest comes later. */
static void send_part(struct order o)
{
    size_t n = ((size_t)o.a << 8 | o.b) % (speaker.len + 1);
    say_bytes(n, o.c & 1 ? 500 : SIZE_MAX);
    memmove(speaker.bytes, speaker.bytes + n, speaker.len - n);
    speaker.len -= n;
    check_allowed();
}

static void send_all(struct order o)
{
    flush_out(o.a & 1 ? (size_t)o.b * 16 : SIZE_MAX);
}

static void drain(struct order o)
{
    if (o.a % 8 == 0)
        h1_site_drain(&worker, &site);
}

typedef void say(struct order);
static say *const sayings[] = {request, request, request, data, data, reset, settings, window, window,
                               priority_update, other, trailers, connect_tunnel, break_bytes, send_part,
                               send_all, drain};

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static const char hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    if (loop == NULL)
        start();
    memset(&speaker, 0, sizeof speaker);
    open_connection(&speaker.client);
    speaker.client.h2 = true;
    speaker.client.frame_max = H2_FRAME_MAX_DEFAULT;
    speaker.next_id = 1;
    speaker.granted = speaker.initial_max = H2_WINDOW_DEFAULT;
    send_piece(&speaker.client, slice_of(hello, sizeof hello - 1), SIZE_MAX);
    for (size_t i = 0; i + sizeof(struct order) <= size && i / sizeof(struct order) < ORDERS_MAX;
         i += sizeof(struct order)) {
        struct order o = {input[i], input[i + 1], input[i + 2], input[i + 3]};
        sayings[o.kind % (sizeof sayings / sizeof sayings[0])](o);
    }
    flush_out(SIZE_MAX);
    turn(2);
    read_answers(&speaker.client, SIZE_MAX);
    check_allowed();
    end_connection(&speaker.client);
    site.draining = false;
    return 0;
}
