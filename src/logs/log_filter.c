/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filters of single fields: delete, rename, replace, hash, regexp, multi_regexp, ip_mask. All but
 * the first three work on strings and on each string of an array, and leave other fields alone.
 *
 *     {"filter": "replace", "value": "REDACTED"}    {"filter": "ip_mask", "ipv4_cidr": 24}
 *     {"filter": "regexp", "regexp": "secret", "value": "x"}
 */
#include <arpa/inet.h>
#include <openssl/sha.h>

#include "http/regexp.h"
#include "logs/filter_text.h"
#include "logs/filters.h"

enum { OPERATIONS_MAX = 50, PATTERN_MAX = 1000, INPUT_MAX = 1000000 };

void log_filter_each(struct log_field *f, struct arena *arena, log_text_filter *change,
                     const void *cfg)
{
    if (f->kind == LOG_STRING)
        f->text = change(cfg, f->text, arena);
    if (f->kind != LOG_STRINGS)
        return;
    struct slice *items = arena_alloc(arena, (f->strings.count + 1) * sizeof *items);
    for (size_t i = 0; i < f->strings.count; i++)
        items[i] = change(cfg, f->strings.items[i], arena);
    f->strings.items = items;
}

struct slice log_filter_hashed(struct slice text, struct arena *arena)
{
    unsigned char digest[SHA256_DIGEST_LENGTH];
    SHA256((const unsigned char *)text.ptr, text.len, digest);
    return arena_printf(arena, "%02x%02x%02x%02x", digest[0], digest[1], digest[2], digest[3]);
}

/* --- delete, rename, replace, hash --- */

static enum err provision_bare(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"filter", NULL};
    return provision_members(p, json, members);
}

static void filter_delete(const void *cfg, struct log_field *f, struct arena *arena)
{
    f->kind = LOG_SKIP;
}

static enum err provision_text_member(void *cfg, const json_t *json, struct provision *p,
                                      const char *key)
{
    const char *const members[] = {"filter", key, NULL};
    TRY(provision_members(p, json, members));
    return provision_text(p, json, key, SLICE(""), cfg);
}

static enum err provision_rename(void *cfg, const json_t *json, struct provision *p)
{
    return provision_text_member(cfg, json, p, "name");
}

static void filter_rename(const void *cfg, struct log_field *f, struct arena *arena)
{
    f->key = *(const struct slice *)cfg;
    f->header_key = false;
}

static enum err provision_replace(void *cfg, const json_t *json, struct provision *p)
{
    return provision_text_member(cfg, json, p, "value");
}

static void filter_replace(const void *cfg, struct log_field *f, struct arena *arena)
{
    f->kind = LOG_STRING;
    f->text = *(const struct slice *)cfg;
}

static struct slice hash_text(const void *cfg, struct slice text, struct arena *arena)
{
    return log_filter_hashed(text, arena);
}

static void filter_hash(const void *cfg, struct log_field *f, struct arena *arena)
{
    log_filter_each(f, arena, hash_text, cfg);
}

/* --- regexp --- */

struct operation {
    struct regexp *re;
    struct slice with;
};

struct regexps {
    struct operation *items;
    size_t count;
};

static enum err read_operation(struct regexps *r, const json_t *json, struct provision *p)
{
    struct operation *o = &r->items[r->count];
    struct slice pattern;
    TRY(provision_text(p, json, "regexp", SLICE(""), &pattern));
    TRY(provision_text(p, json, "value", SLICE(""), &o->with));
    TRY(regexp_compile(p, pattern, &o->re));
    r->count++;
    return OK;
}

static enum err provision_regexp(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"filter", "regexp", "value", NULL};
    struct regexps *r = cfg;
    TRY(provision_members(p, json, members));
    r->items = ARENA_ARRAY(p->arena, struct operation, 1);
    return read_operation(r, json, p);
}

static enum err provision_multi(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"filter", "operations", NULL};
    static const char *const item_members[] = {"regexp", "value", NULL};
    struct regexps *r = cfg;
    TRY(provision_members(p, json, members));
    const json_t *operations = json_object_get(json, "operations");
    size_t count = json_array_size(operations);
    if (count == 0)
        return provision_fail(p, "multi_regexp filter requires at least one operation");
    if (count > OPERATIONS_MAX)
        return provision_fail(p, "too many regexp operations: %zu (maximum %d allowed)", count,
                              OPERATIONS_MAX);
    r->items = ARENA_ARRAY(p->arena, struct operation, count);
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(operations, i);
        TRY(provision_members(p, item, item_members));
        size_t len = json_string_length(json_object_get(item, "regexp"));
        if (len == 0)
            return provision_fail(p, "regexp pattern %zu cannot be empty", i);
        if (len > PATTERN_MAX)
            return provision_fail(p, "regexp pattern %zu too long: %zu characters (maximum %d "
                                  "allowed)", i, len, PATTERN_MAX);
        TRY(read_operation(r, item, p));
    }
    return OK;
}

static void release_regexps(void *cfg)
{
    struct regexps *r = cfg;
    for (size_t i = 0; i < r->count; i++)
        regexp_free(r->items[i].re);
}

/* A pattern that takes too long must not let through what it should have hidden. */
static struct slice replace_all(const void *cfg, struct slice text, struct arena *arena)
{
    const struct regexps *r = cfg;
    text = slice_take(text, INPUT_MAX);
    for (size_t i = 0; i < r->count; i++) {
        if (regexp_replace(r->items[i].re, text, r->items[i].with, arena, &text) != OK)
            return SLICE("");
        text = slice_take(text, INPUT_MAX);
    }
    return text;
}

static void filter_regexps(const void *cfg, struct log_field *f, struct arena *arena)
{
    log_filter_each(f, arena, replace_all, cfg);
}

/* --- ip_mask --- */

struct ip_mask {
    int64_t bits4, bits6; /* 0: addresses of that kind become nothing, as Caddy's empty mask */
};

static enum err provision_mask(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"filter", "ipv4_cidr", "ipv6_cidr", NULL};
    struct ip_mask *m = cfg;
    TRY(provision_members(p, json, members));
    TRY(provision_int(p, json, "ipv4_cidr", 0, 0, 32, &m->bits4));
    return provision_int(p, json, "ipv6_cidr", 0, 0, 128, &m->bits6);
}

/* "1.2.3.4:80", "[::1]:80": true with both parts. */
static bool split_port(struct slice text, struct slice *host, struct slice *port)
{
    size_t colon = slice_find_last(text, ':');
    if (colon == SIZE_MAX)
        return false;
    *host = slice_take(text, colon);
    *port = slice_skip(text, colon + 1);
    if (host->len >= 2 && host->ptr[0] == '[' && host->ptr[host->len - 1] == ']') {
        *host = slice_of(host->ptr + 1, host->len - 2);
        return true;
    }
    return slice_find(*host, ':') == SIZE_MAX;
}

static void keep_bits(unsigned char *bytes, size_t size, int64_t bits)
{
    for (size_t i = 0; i < size; i++, bits -= 8)
        bytes[i] &= bits >= 8 ? 0xff : bits > 0 ? (unsigned char)(0xff00 >> bits) : 0;
}

static struct slice mask_one(const struct ip_mask *m, struct slice value, struct arena *arena)
{
    unsigned char bytes[16];
    char text[INET6_ADDRSTRLEN];
    struct slice host = value, port = SLICE_NONE;
    bool has_port = split_port(value, &host, &port);
    if (!has_port)
        host = value;
    if (host.len >= sizeof text)
        return value;
    memcpy(text, host.ptr, host.len);
    text[host.len] = '\0';
    bool four = inet_pton(AF_INET, text, bytes) == 1;
    if (!four && inet_pton(AF_INET6, text, bytes) != 1)
        return value;
    int64_t bits = four ? m->bits4 : m->bits6;
    keep_bits(bytes, four ? 4 : 16, bits);
    inet_ntop(four ? AF_INET : AF_INET6, bytes, text, sizeof text);
    struct slice masked = bits == 0 ? SLICE("<nil>") : slice_from(text);
    if (!has_port || port.len == 0)
        return arena_copy(arena, masked);
    return arena_printf(arena, four ? "%.*s:%.*s" : "[%.*s]:%.*s", SLICE_ARG(masked),
                        SLICE_ARG(port));
}

static struct slice mask_text(const void *cfg, struct slice text, struct arena *arena)
{
    struct slice one, rest = text, done = SLICE("");
    for (bool more = true, first = true; more; first = false) {
        more = slice_cut(rest, ',', &one, &rest);
        done = arena_join(arena, (struct slice[]){done, first ? SLICE("") : SLICE(", "),
                                                  mask_one(cfg, slice_trim(one), arena)}, 3);
    }
    return done;
}

static void filter_mask(const void *cfg, struct log_field *f, struct arena *arena)
{
    log_filter_each(f, arena, mask_text, cfg);
}

#define FILTER(name, type, provisioner, releaser, function)                                        \
    static const struct log_filter_face face_##name = {function};                                  \
    const struct module log_filter_##name = {                                                      \
        .id = "caddy.logging.encoders.filter." #name, .cfg_size = sizeof(type),                    \
        .provision = provisioner, .release = releaser, .face = &face_##name}

FILTER(delete, char, provision_bare, NULL, filter_delete);
FILTER(hash, char, provision_bare, NULL, filter_hash);
FILTER(ip_mask, struct ip_mask, provision_mask, NULL, filter_mask);
FILTER(multi_regexp, struct regexps, provision_multi, release_regexps, filter_regexps);
FILTER(regexp, struct regexps, provision_regexp, release_regexps, filter_regexps);
FILTER(rename, struct slice, provision_rename, NULL, filter_rename);
FILTER(replace, struct slice, provision_replace, NULL, filter_replace);
