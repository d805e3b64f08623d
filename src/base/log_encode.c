/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two encoders, with the field names and forms of Caddy's: JSON with the time as seconds since
 * 1970, and the console form for people, whose fields stand behind the message as one JSON object.
 *
 * An access line has some sixty pieces and is written on the request's own thread, so the pieces go
 * through one inline copy; strings are looked through sixteen bytes at a time; numbers are integers
 * that get their point by hand, never printf. Encoders only append: a line that does not fit the
 * buffer's cap leaves it as it was.
 */
#include "base/log_encode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "base/check.h"
#include "base/text.h"

enum { COPY_SLACK = 16 }; /* bytes that a copy may write beyond its end */

/* What is written with: `b` never grows past its cap, `full` remembers that it had to. */
struct writer {
    struct buffer *b;
    const struct log_format *f;
    bool spaced; /* ": " and ", " as the console has them */
};

static inline void put(struct buffer *b, const char *bytes, size_t len)
{
    if (UNLIKELY(len > b->cap - b->len) && buffer_reserve(b, len) != OK)
        return;
    memcpy(b->ptr + b->len, bytes, len);
    b->len += len;
}

static inline void put_slice(struct buffer *b, struct slice s)
{
    if (s.len > 0)
        put(b, s.ptr, s.len);
}

#define PUT(b, literal) put((b), "" literal, sizeof(literal) - 1)

static void put_byte(struct buffer *b, char c)
{
    put(b, &c, 1);
}

/* --- strings --- */

static inline bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

#ifdef __SSE2__
static inline uint64_t load8(const char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t load4(const char *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* The 0 … 15 bytes at `p`, the rest zero, without a look beyond them: two loads that overlap. */
static inline __m128i load_part(const char *p, size_t n)
{
    uint64_t low = 0, high = 0;
    if (n >= 8) {
        low = load8(p);
        high = n > 8 ? load8(p + n - 8) >> (8 * (16 - n)) : 0;
    } else if (n >= 4) {
        low = load4(p) | load4(p + n - 4) << (8 * (n - 4));
    } else if (n > 0) {
        low = (unsigned char)p[0] | (uint64_t)(unsigned char)p[n / 2] << (8 * (n / 2)) |
              (uint64_t)(unsigned char)p[n - 1] << (8 * (n - 1));
    }
    return _mm_set_epi64x((long long)high, (long long)low);
}

/* A bit for each byte that is a control, DEL, a quote, a backslash or beyond ASCII. */
static inline unsigned special_mask(__m128i v)
{
    __m128i low = _mm_cmplt_epi8(v, _mm_set1_epi8(0x20)); /* signed: 0x80 … 0xff too */
    __m128i other = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')),
                                              _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'))),
                                 _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f)));
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(low, other));
}
#endif

/* Copies what is written as it is, up to the first byte that is not; returns how much. There is
 * room for COPY_SLACK bytes more. */
static inline size_t copy_plain(char *to, const char *s, size_t len)
{
    size_t at = 0;
#ifdef __SSE2__
    for (;;) {
        size_t n = len - at < 16 ? len - at : 16;
        __m128i v = n == 16 ? _mm_loadu_si128((const __m128i *)(const void *)(s + at))
                            : load_part(s + at, n);
        unsigned mask = special_mask(v) & (unsigned)((1u << n) - 1);
        _mm_storeu_si128((__m128i *)(void *)(to + at), v);
        if (UNLIKELY(mask != 0))
            return at + (unsigned)__builtin_ctz(mask);
        at += n;
        if (at == len)
            return at;
    }
#endif
    for (; at < len && is_plain((unsigned char)s[at]); at++)
        to[at] = s[at];
    return at;
}

static void put_unicode(struct buffer *b, uint32_t rune)
{
    static const char hex[] = "0123456789abcdef";
    char text[6] = {'\\', 'u', hex[rune >> 12 & 15], hex[rune >> 8 & 15], hex[rune >> 4 & 15],
                    hex[rune & 15]};
    put(b, text, sizeof text);
}

/* One byte or sequence that is not plain; returns its length. */
static size_t put_special(struct buffer *b, struct slice s)
{
    uint32_t rune;
    unsigned char c = (unsigned char)s.ptr[0];
    if (c >= 0x80) {
        size_t len = utf8_decode(s, &rune);
        if (len == 0)
            PUT(b, "\\ufffd");
        else if (rune < 0xa0) /* C1: a terminal may take it for the start of a command */
            put_unicode(b, rune);
        else
            put(b, s.ptr, len);
        return len > 0 ? len : 1;
    }
    if (c == '"' || c == '\\') {
        put_byte(b, '\\');
        put_byte(b, (char)c);
    } else if (c == '\n') {
        PUT(b, "\\n");
    } else if (c == '\r') {
        PUT(b, "\\r");
    } else if (c == '\t') {
        PUT(b, "\\t");
    } else {
        put_unicode(b, c);
    }
    return 1;
}

static void put_escaped(struct buffer *b, struct slice s)
{
    while (s.len > 0) {
        if (UNLIKELY(s.len + COPY_SLACK > b->cap - b->len) &&
            buffer_reserve(b, s.len + COPY_SLACK) != OK)
            return;
        size_t plain = copy_plain(b->ptr + b->len, s.ptr, s.len);
        b->len += plain;
        if (LIKELY(plain == s.len))
            return;
        s = slice_skip(s, plain);
        s = slice_skip(s, put_special(b, s));
    }
}

static inline void put_string(struct buffer *b, struct slice s, size_t max)
{
    put_byte(b, '"');
    if (s.len > 0)
        put_escaped(b, slice_take(s, max));
    if (UNLIKELY(s.len > max))
        PUT(b, "…");
    put_byte(b, '"');
}

enum err json_put_string(struct buffer *b, struct slice s)
{
    put_string(b, s, SIZE_MAX);
    return b->full ? ERR_LIMIT : OK;
}

/* "user-agent" → "User-Agent", as Go keeps the names of fields. Names are tokens: nothing in them
 * wants an escape. */
static void put_header_key(struct buffer *b, struct slice s)
{
    if (UNLIKELY(s.len + COPY_SLACK > b->cap - b->len) &&
        buffer_reserve(b, s.len + COPY_SLACK) != OK)
        return;
    char *to = b->ptr + b->len;
    size_t at = 0;
    unsigned first = 0x20; /* the bit by which cases differ, where a word begins */
#ifdef __SSE2__
    const __m128i bit = _mm_set1_epi8(0x20);
    for (; at < s.len; at += 16) {
        size_t n = s.len - at < 16 ? s.len - at : 16;
        __m128i v = n == 16 ? _mm_loadu_si128((const __m128i *)(const void *)(s.ptr + at))
                            : load_part(s.ptr + at, n);
        __m128i dash = _mm_cmpeq_epi8(v, _mm_set1_epi8('-'));
        __m128i lower = _mm_or_si128(v, bit);
        __m128i letter = _mm_and_si128(_mm_cmpgt_epi8(lower, _mm_set1_epi8('a' - 1)),
                                       _mm_cmplt_epi8(lower, _mm_set1_epi8('z' + 1)));
        __m128i begins = _mm_or_si128(_mm_and_si128(_mm_slli_si128(dash, 1), bit),
                                      _mm_cvtsi32_si128((int)first));
        v = _mm_or_si128(v, _mm_and_si128(letter, bit));
        v = _mm_andnot_si128(_mm_and_si128(letter, begins), v);
        _mm_storeu_si128((__m128i *)(void *)(to + at), v);
        first = n == 16 && s.ptr[at + 15] == '-' ? 0x20 : 0;
    }
#endif
    for (; at < s.len; at++) {
        unsigned char c = (unsigned char)s.ptr[at];
        unsigned letter = (unsigned)((c | 0x20) - 'a') < 26 ? 0x20 : 0;
        to[at] = (char)((c | letter) & ~(letter & first));
        first = c == '-' ? 0x20 : 0;
    }
    b->len += s.len;
}

/* --- numbers --- */

static void put_u64(struct buffer *b, uint64_t v)
{
    char text[20];
    size_t at = sizeof text;
    do
        text[--at] = (char)('0' + v % 10);
    while ((v /= 10) > 0);
    put(b, text + at, sizeof text - at);
}

static void put_i64(struct buffer *b, int64_t v)
{
    if (v < 0)
        put_byte(b, '-');
    put_u64(b, v < 0 ? -(uint64_t)v : (uint64_t)v);
}

/* v / 10^digits, without zeros at the end. */
static void put_decimal(struct buffer *b, uint64_t v, unsigned digits)
{
    char text[24];
    size_t at = sizeof text;
    while (digits > 0 && v % 10 == 0) {
        v /= 10;
        digits--;
    }
    for (unsigned i = 0; i < digits; i++, v /= 10)
        text[--at] = (char)('0' + v % 10);
    if (digits > 0)
        text[--at] = '.';
    do
        text[--at] = (char)('0' + v % 10);
    while ((v /= 10) > 0);
    put(b, text + at, sizeof text - at);
}

/* The shortest form that reads back as the same number, without an exponent. */
static void put_real(struct buffer *b, double v)
{
    char text[40], *e;
    if (!isfinite(v)) {
        put_string(b, isnan(v) ? SLICE("NaN") : v > 0 ? SLICE("+Inf") : SLICE("-Inf"), SIZE_MAX);
        return;
    }
    int digits = 1;
    do
        snprintf(text, sizeof text, "%.*e", digits - 1, v);
    while (strtod(text, NULL) != v && ++digits <= 17);
    e = strchr(text, 'e');
    int exponent = e != NULL ? (int)strtol(e + 1, NULL, 10) : 0;
    int places = digits - 1 - exponent;
    char plain[512];
    int n = snprintf(plain, sizeof plain, "%.*f", places > 0 ? places : 0, v);
    put(b, plain, n > 0 ? (size_t)n : 0);
}

/* ns / 1e9 as the shortest form of that double. In this century a second's double has steps of
 * 2^-22: seven decimals always tell it apart from its neighbours, six often do. */
static void put_unix_float(struct buffer *b, int64_t ns)
{
    double v = (double)ns / 1e9;
    if (v < 1073741824.0 || v >= 2147483648.0) {
        put_real(b, v);
        return;
    }
    uint64_t steps = (uint64_t)(v * 4194304.0); /* exact: v is a multiple of 2^-22 */
    for (unsigned digits = 6; digits <= 7; digits++) {
        uint64_t scale = digits == 6 ? 1000000 : 10000000;
        unsigned __int128 exact = (unsigned __int128)steps * scale;
        uint64_t near = (uint64_t)((exact + (1 << 21)) >> 22);
        if ((exact & ((1 << 22) - 1)) == 1 << 21) /* half way: to the even one, as in Go */
            near &= ~(uint64_t)1;
        __int128 off = ((__int128)near << 22) - (__int128)exact;
        if (digits == 7 || (off < 0 ? -off : off) * 2 < (__int128)scale) {
            put_decimal(b, near, digits);
            return;
        }
    }
}

static void put_time(struct buffer *b, int64_t ns, const struct log_format *f, bool quoted)
{
    char text[TIME_TEXT_MAX];
    switch (f->time) {
    case LOG_TIME_UNIX_FLOAT:
        put_unix_float(b, ns);
        return;
    case LOG_TIME_UNIX_MILLI:
        put_real(b, (double)ns / 1e6);
        return;
    case LOG_TIME_UNIX_NANO:
        put_i64(b, ns);
        return;
    case LOG_TIME_LAYOUT:
        break;
    }
    struct slice s = slice_of(text, time_layout_put(f->layout, ns, f->local_time, text));
    if (quoted)
        put_string(b, s, SIZE_MAX);
    else
        put_slice(b, s);
}

static void put_duration(struct buffer *b, int64_t ns, const struct log_format *f)
{
    uint64_t size = ns < 0 ? -(uint64_t)ns : (uint64_t)ns;
    switch (f->duration) {
    case LOG_DURATION_NANOS:
        put_i64(b, ns);
        return;
    case LOG_DURATION_MILLIS:
        put_i64(b, ns / 1000000);
        return;
    case LOG_DURATION_STRING:
        put_byte(b, '"');
        (void)!duration_put(b, ns);
        put_byte(b, '"');
        return;
    case LOG_DURATION_SECONDS:
        break;
    }
    if (size >= UINT64_C(1000000000000000)) { /* more digits than a double holds */
        put_real(b, (double)ns / 1e9);
        return;
    }
    if (ns < 0)
        put_byte(b, '-');
    put_decimal(b, size, 9);
}

/* --- fields --- */

static void put_fields(const struct writer *w, const struct log_field *fields, size_t count,
                       bool comma);

static void put_comma(const struct writer *w)
{
    if (w->spaced)
        PUT(w->b, ", ");
    else
        put_byte(w->b, ',');
}

static void put_strings(const struct writer *w, const struct log_field *v)
{
    put_byte(w->b, '[');
    for (size_t i = 0; i < v->strings.count; i++) {
        if (i > 0)
            put_comma(w);
        put_string(w->b, v->strings.items[i], w->f->string_max);
    }
    put_byte(w->b, ']');
}

static void put_value(const struct writer *w, const struct log_field *v)
{
    switch (v->kind) {
    case LOG_STRING:
        put_string(w->b, v->text, w->f->string_max);
        break;
    case LOG_INT:
        put_i64(w->b, v->number);
        break;
    case LOG_UINT:
        put_u64(w->b, v->unsigned_number);
        break;
    case LOG_FLOAT:
        put_real(w->b, v->real);
        break;
    case LOG_BOOL:
        put_slice(w->b, v->truth ? SLICE("true") : SLICE("false"));
        break;
    case LOG_DURATION:
        put_duration(w->b, v->number, w->f);
        break;
    case LOG_TIME:
        put_time(w->b, v->number, w->f, true);
        break;
    case LOG_JSON:
        put_slice(w->b, v->text);
        break;
    case LOG_OBJECT:
        put_byte(w->b, '{');
        put_fields(w, v->object.fields, v->object.count, false);
        put_byte(w->b, '}');
        break;
    case LOG_STRINGS:
        put_strings(w, v);
        break;
    case LOG_SKIP:
        break;
    }
}

static void put_fields(const struct writer *w, const struct log_field *fields, size_t count,
                       bool comma)
{
    for (size_t i = 0; i < count; i++) {
        if (fields[i].kind == LOG_SKIP)
            continue;
        if (comma)
            put_comma(w);
        comma = true;
        put_byte(w->b, '"');
        if (fields[i].header_key)
            put_header_key(w->b, fields[i].key);
        else
            put_escaped(w->b, fields[i].key);
        put_byte(w->b, '"');
        put_byte(w->b, ':');
        if (w->spaced)
            put_byte(w->b, ' ');
        put_value(w, &fields[i]);
    }
}

/* --- lines --- */

static void put_level(struct buffer *b, enum log_level level, enum log_level_format format,
                      bool quoted)
{
    static const struct slice lower[] = {{"debug", 5}, {"info", 4},  {"warn", 4},
                                         {"error", 5}, {"panic", 5}, {"fatal", 5}};
    static const struct slice upper[] = {{"DEBUG", 5}, {"INFO", 4},  {"WARN", 4},
                                         {"ERROR", 5}, {"PANIC", 5}, {"FATAL", 5}};
    static const char *const colors[] = {"35", "34", "33", "31", "31", "31"};
    if (format != LOG_LEVEL_COLOR) {
        put_slice(b, format == LOG_LEVEL_UPPER ? upper[level] : lower[level]);
        return;
    }
    struct slice escape = quoted ? SLICE("\\u001b[") : SLICE("\x1b[");
    put_slice(b, escape);
    put(b, colors[level], 2);
    put_byte(b, 'm');
    put_slice(b, upper[level]);
    put_slice(b, escape);
    PUT(b, "0m");
}

/* `"key":`, with a comma before all but the first; false when the key is empty. */
static bool put_key(struct buffer *b, struct slice key, size_t start)
{
    if (key.len == 0)
        return false;
    if (b->len > start)
        put_byte(b, ',');
    put_string(b, key, SIZE_MAX);
    put_byte(b, ':');
    return true;
}

/* "app/control.c:120": the last two parts of a path. */
static void put_place(struct buffer *b, const struct log_event *e)
{
    struct slice path = slice_from(e->file);
    size_t cut = slice_find_last(path, '/');
    if (cut != SIZE_MAX)
        cut = slice_find_last(slice_take(path, cut), '/');
    put_slice(b, cut != SIZE_MAX ? slice_skip(path, cut + 1) : path);
    put_byte(b, ':');
    put_i64(b, e->line);
}

static void put_stack(struct buffer *b, const struct log_event *e, const char *indent)
{
    put_slice(b, slice_from(e->function));
    put_slice(b, slice_from(indent));
    put_place(b, e);
}

/* A refused append must leave nothing of its line behind. */
static enum err end_line(struct buffer *b, size_t start, bool was_full)
{
    bool refused = b->full;
    b->full = was_full;
    if (!refused)
        return OK;
    b->len = start;
    return ERR_LIMIT;
}

enum err log_encode_json(struct buffer *b, const struct log_event *e, const struct log_format *f)
{
    size_t start = b->len;
    bool was_full = b->full;
    struct writer w = {b, f, false};
    b->full = false;
    put_byte(b, '{');
    size_t inside = b->len;
    if (put_key(b, f->level_key, inside)) {
        put_byte(b, '"');
        put_level(b, e->level, f->level, true);
        put_byte(b, '"');
    }
    if (put_key(b, f->time_key, inside))
        put_time(b, e->wall_ns, f, true);
    if (e->logger[0] != '\0' && put_key(b, f->logger_key, inside))
        put_string(b, slice_from(e->logger), SIZE_MAX);
    if (f->caller && e->file != NULL && put_key(b, f->caller_key, inside)) {
        put_byte(b, '"');
        put_place(b, e);
        put_byte(b, '"');
    }
    if (put_key(b, f->message_key, inside))
        put_string(b, e->message, f->string_max);
    put_fields(&w, e->fields, e->count, b->len > inside);
    if (f->stack && e->file != NULL && put_key(b, f->stack_key, inside)) {
        put_byte(b, '"');
        put_stack(b, e, "\\n\\t");
        put_byte(b, '"');
    }
    put_byte(b, '}');
    put_slice(b, f->line_end);
    return end_line(b, start, was_full);
}

/* The message of a line for people: control characters cannot move the cursor or add lines. */
static void put_plain(struct buffer *b, struct slice s)
{
    while (s.len > 0) {
        size_t plain = 0;
        while (plain < s.len && s.ptr[plain] >= 0x20 && s.ptr[plain] < 0x7f)
            plain++;
        put(b, s.ptr, plain);
        s = slice_skip(s, plain);
        if (s.len == 0)
            return;
        uint32_t rune = 0;
        size_t len = utf8_decode(s, &rune);
        if (len == 0)
            PUT(b, "\xef\xbf\xbd");
        else if (rune < 0xa0)
            put_byte(b, ' ');
        else
            put(b, s.ptr, len);
        s = slice_skip(s, len > 0 ? len : 1);
    }
}

static void put_tab(struct buffer *b, size_t start)
{
    if (b->len > start)
        put_byte(b, '\t');
}

static void put_context(struct buffer *b, const struct log_event *e, const struct log_format *f,
                        size_t start)
{
    struct writer w = {b, f, true};
    size_t i = 0;
    while (i < e->count && e->fields[i].kind == LOG_SKIP)
        i++;
    if (i == e->count)
        return;
    put_tab(b, start);
    put_byte(b, '{');
    put_fields(&w, e->fields, e->count, false);
    put_byte(b, '}');
}

enum err log_encode_console(struct buffer *b, const struct log_event *e, const struct log_format *f)
{
    size_t start = b->len;
    bool was_full = b->full;
    b->full = false;
    if (f->time_key.len > 0 && !e->no_console_time)
        put_time(b, e->wall_ns, f, false);
    if (f->level_key.len > 0) {
        put_tab(b, start);
        put_level(b, e->level, f->level, false);
    }
    if (e->logger[0] != '\0' && f->logger_key.len > 0) {
        put_tab(b, start);
        put_plain(b, slice_from(e->logger));
    }
    if (f->caller && e->file != NULL && f->caller_key.len > 0) {
        put_tab(b, start);
        put_place(b, e);
    }
    if (f->message_key.len > 0) {
        put_tab(b, start);
        put_plain(b, slice_take(e->message, f->string_max));
    }
    put_context(b, e, f, start);
    if (f->stack && e->file != NULL && f->stack_key.len > 0) {
        put_byte(b, '\n');
        put_stack(b, e, "\n\t");
    }
    put_slice(b, f->line_end);
    return end_line(b, start, was_full);
}

/* --- formats --- */

void log_format_init(struct log_format *f)
{
    *f = (struct log_format){
        .time = LOG_TIME_UNIX_FLOAT,
        .level_key = SLICE("level"),
        .time_key = SLICE("ts"),
        .logger_key = SLICE("logger"),
        .caller_key = SLICE("caller"),
        .message_key = SLICE("msg"),
        .stack_key = SLICE("stacktrace"),
        .line_end = SLICE("\n"),
        .string_max = SIZE_MAX,
    };
}

void log_format_init_console(struct log_format *f)
{
    static struct time_layout wall_milli;
    static bool compiled;
    if (!compiled)
        (void)!time_layout_compile(&wall_milli, SLICE("2006/01/02 15:04:05.000"));
    compiled = true;
    log_format_init(f);
    f->time = LOG_TIME_LAYOUT;
    f->layout = &wall_milli;
    f->level = LOG_LEVEL_COLOR;
}
