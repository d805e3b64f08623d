/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoding of header blocks. What repeats on a connection becomes one byte: names whose values
 * hardly vary (Server, Content-Type, Cache-Control …) are indexed at first sight, others when the
 * same field has been seen before, by a hash of few bits: unique values (ids, ETags of many files)
 * never fill the table. Cookies and credentials are never indexed.
 *
 * Indexes count from the newest entry, so what this side has dropped may live on in the peer's table
 * without harm: nothing has to be told but what the peer's SETTINGS ask for (RFC 7541 §4.2). An idle
 * connection keeps no table, and one that has asked once only never had any.
 */
#include <string.h>

#include "base/mem.h"
#include "wire/hpack_table.h"
#include "wire/huffman.h"

enum {
    SECRET = 3,            /* policies; 0 is AT_SECOND_SIGHT */
    AT_FIRST_SIGHT = 1,
    NOT_AT_ALL = 2,
    LOWER_MAX = 256,       /* longer names are not Huffman-coded when they have capitals */
};

static const uint8_t policies[NAME_COUNT] = {
    [NAME_STATUS] = AT_FIRST_SIGHT,
    [NAME_ACCEPT_RANGES] = AT_FIRST_SIGHT,
    [NAME_ACCESS_CONTROL_ALLOW_ORIGIN] = AT_FIRST_SIGHT,
    [NAME_CACHE_CONTROL] = AT_FIRST_SIGHT,
    [NAME_CONTENT_ENCODING] = AT_FIRST_SIGHT,
    [NAME_CONTENT_LANGUAGE] = AT_FIRST_SIGHT,
    [NAME_CONTENT_TYPE] = AT_FIRST_SIGHT,
    [NAME_SERVER] = AT_FIRST_SIGHT,
    [NAME_STRICT_TRANSPORT_SECURITY] = AT_FIRST_SIGHT,
    [NAME_VARY] = AT_FIRST_SIGHT,
    [NAME_VIA] = AT_FIRST_SIGHT,
    [NAME_AUTHORITY] = AT_FIRST_SIGHT,
    [NAME_USER_AGENT] = AT_FIRST_SIGHT,
    [NAME_DATE] = NOT_AT_ALL,
    [NAME_CONTENT_RANGE] = NOT_AT_ALL,
    [NAME_AGE] = NOT_AT_ALL,
    [NAME_AUTHORIZATION] = SECRET,
    [NAME_PROXY_AUTHORIZATION] = SECRET,
    [NAME_COOKIE] = SECRET,
    [NAME_SET_COOKIE] = SECRET,
};

void hpack_encoder_init(struct hpack_encoder *e)
{
    *e = (struct hpack_encoder){.told = HPACK_TABLE_DEFAULT, .low = HPACK_TABLE_DEFAULT,
                                .limit = HPACK_TABLE_DEFAULT};
}

void hpack_encoder_rest(struct hpack_encoder *e)
{
    if (e->memory != NULL)
        hpack_table_deinit(&e->memory->table);
    mem_free(e->memory);
    e->memory = NULL;
    e->blocks = 0;
}

void hpack_encoder_deinit(struct hpack_encoder *e)
{
    hpack_encoder_rest(e);
}

void hpack_encoder_limit(struct hpack_encoder *e, uint32_t limit)
{
    e->limit = limit < HPACK_TABLE_DEFAULT ? limit : HPACK_TABLE_DEFAULT;
    if (e->limit < e->low)
        e->low = e->limit;
    if (e->memory == NULL)
        return;
    hpack_table_resize(&e->memory->table, e->low);
    e->memory->table.max = e->limit;
}

static struct hpack_memory *memory_of(struct hpack_encoder *e)
{
    if (e->memory == NULL) {
        e->memory = NEW(struct hpack_memory);
        e->memory->table.max = e->limit;
    }
    return e->memory;
}

/* --- names --- */

static uint64_t small(const char *at, size_t len)
{
    uint64_t word = 0;
    memcpy(&word, at, len);
    return word | UINT64_C(0x2020202020202020);
}

/* `known` is in small letters. Bit 5 of all bytes is ignored: what is taken for a letter or '-' that
 * way is its capital or a control character, which no name holds. */
static bool is_name(const char *name, const char *known, size_t len)
{
    if (len < 8)
        return small(name, len) == small(known, len);
    for (size_t at = 0; at + 8 < len; at += 8) {
        if (small(name + at, 8) != small(known + at, 8))
            return false;
    }
    return small(name + len - 8, 8) == small(known + len - 8, 8);
}

enum hpack_name hpack_name_of(struct slice name)
{
    if (name.len == 0)
        return NAME_OTHER;
    uint8_t id = hpack_name_slots[hpack_name_slot(name)];
    const struct slice *known = &hpack_names[id];
    return known->len == name.len && is_name(name.ptr, known->ptr, name.len) ? id : NAME_OTHER;
}

/* --- parts of a representation --- */

static char *put_number(char *at, uint8_t pattern, unsigned prefix, size_t number)
{
    size_t mask = (1u << prefix) - 1;
    if (number < mask) {
        *at++ = (char)(pattern | number);
        return at;
    }
    *at++ = (char)(pattern | mask);
    for (number -= mask; number >= 128; number >>= 7)
        *at++ = (char)(number | 128);
    *at++ = (char)number;
    return at;
}

static char *put_string(char *at, struct slice text)
{
    size_t len = huffman_length(text);
    if (len < text.len) {
        at = put_number(at, 0x80, 7, len);
        return huffman_encode(at, text);
    }
    at = put_number(at, 0, 7, text.len);
    if (text.len > 0)
        memcpy(at, text.ptr, text.len);
    return at + text.len;
}

static void lower(char *to, struct slice name)
{
    for (size_t i = 0; i < name.len; i++)
        to[i] = ascii_lower(name.ptr[i]);
}

static char *put_name(char *at, struct slice name)
{
    char small_letters[LOWER_MAX];
    if (name.len <= LOWER_MAX) {
        lower(small_letters, name);
        return put_string(at, slice_of(small_letters, name.len));
    }
    at = put_number(at, 0, 7, name.len);
    lower(at, name);
    return at + name.len;
}

/* --- what to do with a field --- */

struct place {
    uint32_t whole, name; /* indexes of an equal field, and of one with that name; 0: none */
};

/* Of the static table only methods, paths, schemes, statuses and accept-encoding have values. */
static void find_static(enum hpack_name id, struct slice value, struct place *p)
{
    p->name = (uint32_t)id <= HPACK_STATIC ? id : 0;
    for (uint32_t i = id; i <= NAME_ACCEPT_ENCODING && id != NAME_OTHER; i++) {
        if (hpack_static[i].id != id)
            return;
        if (hpack_static[i].value.len > 0 && slice_eq(hpack_static[i].value, value)) {
            p->whole = i;
            return;
        }
    }
}

static bool is_entry(const struct hpack_table *t, const struct hpack_entry *e, enum hpack_name id,
                     struct slice name)
{
    return e->id == id && e->name_len == name.len &&
           (id != NAME_OTHER || slice_eq_nocase(name, hpack_entry_name(t, e)));
}

static bool has_value(const struct hpack_table *t, const struct hpack_entry *e, struct slice value)
{
    return e->value_len == value.len && slice_eq(hpack_entry_value(t, e), value);
}

static void find(const struct hpack_table *t, enum hpack_name id, struct slice name,
                 struct slice value, struct place *p)
{
    for (uint32_t i = 0; i < t->count; i++) {
        const struct hpack_entry *e = hpack_table_at(t, i);
        if ((e->value_len != value.len && p->name > 0) || !is_entry(t, e, id, name))
            continue;
        if (p->name == 0)
            p->name = HPACK_STATIC + 1 + i;
        if (has_value(t, e, value)) {
            p->whole = HPACK_STATIC + 1 + i;
            return;
        }
    }
}

/* Answers have the same fields in the same order, and so stand their entries in the table: the next
 * field is most likely the next newer entry. */
static bool find_next(struct hpack_memory *m, enum hpack_name id, struct slice name,
                      struct slice value, uint32_t *whole)
{
    const struct hpack_table *t = &m->table;
    struct place p = {.name = 1}; /* which is of no interest */
    const struct hpack_entry *e = m->next < t->count ? hpack_table_at(t, m->next) : NULL;
    if (e != NULL && has_value(t, e, value) && is_entry(t, e, id, name))
        p.whole = HPACK_STATIC + 1u + m->next;
    else
        find(t, id, name, value, &p);
    if (p.whole == 0)
        return false;
    uint32_t index = p.whole - HPACK_STATIC - 1;
    m->next = (uint16_t)(index > 0 ? index - 1 : t->count - 1u);
    *whole = p.whole;
    return true;
}

static uint32_t mix(enum hpack_name id, struct slice name, struct slice value)
{
    uint64_t head = 0, tail = 0, sum = (name.len << 16 ^ value.len) + id;
    size_t n = value.len < 8 ? value.len : 8;
    if (n > 0) {
        memcpy(&head, value.ptr, n);
        memcpy(&tail, value.ptr + value.len - n, n);
    }
    if (id == NAME_OTHER)
        sum += (uint64_t)(unsigned char)(name.ptr[0] | 0x20) << 32 |
               (uint64_t)(unsigned char)(name.ptr[name.len - 1] | 0x20) << 40;
    sum = (sum ^ head) * UINT64_C(0x9e3779b97f4a7c15);
    sum = (sum ^ sum >> 29 ^ tail) * UINT64_C(0xbf58476d1ce4e5b9);
    return (uint32_t)(sum >> 40);
}

/* The last four of each kind of hash, newest first. */
static bool seen_before(struct hpack_encoder *e, enum hpack_name id, struct slice name,
                        struct slice value)
{
    uint32_t hash = mix(id, name, value);
    uint16_t *seen = memory_of(e)->seen[hash % 4], mark = (uint16_t)(hash >> 2 | 1);
    for (unsigned i = 0; i < 4; i++) {
        if (seen[i] == mark)
            return true;
    }
    memmove(seen + 1, seen, 3 * sizeof *seen);
    seen[0] = mark;
    return false;
}

static bool shall_index(struct hpack_encoder *e, enum hpack_name id, struct slice name,
                        struct slice value, enum hpack_how how)
{
    if (how != HPACK_AUTO || e->blocks < 2 || policies[id] == NOT_AT_ALL ||
        name.len + value.len + HPACK_ENTRY_OVERHEAD > e->limit / 2)
        return false;
    return policies[id] == AT_FIRST_SIGHT || seen_before(e, id, name, value);
}

static void remember(struct hpack_table *t, enum hpack_name id, struct slice name,
                     struct slice value)
{
    char *at = hpack_table_add(t, &(struct hpack_field){name, value, (uint8_t)id, 0});
    if (at != NULL && id == NAME_OTHER)
        lower(at, name);
}

static char *put_field(struct hpack_encoder *e, char *at, enum hpack_name id, struct slice name,
                       struct slice value, enum hpack_how how)
{
    struct place p = {0};
    if (policies[id] == SECRET)
        how = HPACK_SENSITIVE;
    find_static(id, value, &p);
    if (p.whole == 0 && e->memory != NULL)
        find(&e->memory->table, id, name, value, &p);
    if (p.whole > 0 && how != HPACK_SENSITIVE)
        return put_number(at, 0x80, 7, p.whole);
    if (shall_index(e, id, name, value, how)) {
        at = put_number(at, 0x40, 6, p.name);
        remember(&memory_of(e)->table, id, name, value);
    } else {
        at = put_number(at, how == HPACK_SENSITIVE ? 0x10 : 0, 4, p.name);
    }
    if (p.name == 0)
        at = put_name(at, name);
    return put_string(at, value);
}

/* --- the public face --- */

char *hpack_begin(struct hpack_encoder *e, char *at)
{
    e->blocks += e->blocks < 2;
    if (e->low >= e->told && e->limit == e->told)
        return at;
    if (e->low < e->told && e->low < e->limit)
        at = put_number(at, 0x20, 5, e->low);
    at = put_number(at, 0x20, 5, e->limit);
    e->told = e->low = e->limit;
    return at;
}

char *hpack_put_status(struct hpack_encoder *e, char *at, int status)
{
    static const uint16_t indexed[] = {200, 204, 206, 304, 400, 404, 500};
    for (uint32_t i = 0; i < sizeof indexed / sizeof indexed[0]; i++) {
        if (indexed[i] == status) {
            *at++ = (char)(0x80 | (NAME_STATUS + i));
            return at;
        }
    }
    char digits[3] = {(char)('0' + status / 100 % 10), (char)('0' + status / 10 % 10),
                      (char)('0' + status % 10)};
    return hpack_put_named(e, at, NAME_STATUS, slice_of(digits, 3), HPACK_AUTO);
}

char *hpack_put(struct hpack_encoder *e, char *at, struct slice name, struct slice value,
                enum hpack_how how)
{
    return put_field(e, at, hpack_name_of(name), name, value, how);
}

char *hpack_put_again(struct hpack_encoder *e, char *at, enum hpack_name id, struct slice name,
                      struct slice value)
{
    uint32_t whole;
    if (e->memory == NULL || !find_next(e->memory, id, name, value, &whole))
        return NULL;
    return put_number(at, 0x80, 7, whole);
}

char *hpack_put_named(struct hpack_encoder *e, char *at, enum hpack_name id, struct slice value,
                      enum hpack_how how)
{
    return put_field(e, at, id, hpack_names[id], value, how);
}

char *hpack_put_value(struct hpack_encoder *e, char *at, enum hpack_name id, struct slice value)
{
    char *again = hpack_put_again(e, at, id, hpack_names[id], value);
    return again != NULL ? again : hpack_put_named(e, at, id, value, HPACK_AUTO);
}

char *hpack_put_length(struct hpack_encoder *e, char *at, uint64_t content_length)
{
    char digits[20];
    char *first = digits + sizeof digits;
    do
        *--first = (char)('0' + content_length % 10);
    while ((content_length /= 10) > 0);
    return hpack_put_value(e, at, NAME_CONTENT_LENGTH,
                           slice_of(first, (size_t)(digits + sizeof digits - first)));
}
