/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoders that wrap another: filter changes fields, append adds some, journald puts the priority
 * in front that systemd's journal reads. What is wrapped is JSON unless told, and the console form
 * on a terminal.
 *
 *     {"format": "filter", "wrap": {"format": "json"},
 *      "fields": {"request>headers>Cookie": {"filter": "delete"}}}
 *     {"format": "append", "fields": {"host": "{system.hostname}", "version": 3}}
 */
#include <stdlib.h>

#include "base/log_queue.h"
#include "logs/encoders.h"
#include "logs/filters.h"

enum { DEPTH_MAX = 32 };

struct wrap {
    log_encoder *encode;
    const void *encoder;
    const struct log_encoder_face *inner; /* of what was asked for; NULL: the default */
    void *inner_cfg;
    void *console;                        /* the default on a terminal, provisioned beside JSON */
    log_encoder *console_encode;
};

static enum err read_default(struct wrap *w, struct provision *p)
{
    const struct module *m;
    void *cfg;
    TRY(provision_module(p, "caddy.logging.encoders", "console", NULL, &m, &cfg));
    w->console = cfg;
    w->console_encode = ((const struct log_encoder_face *)m->face)->encode;
    TRY(provision_module(p, "caddy.logging.encoders", "json", NULL, &m, &cfg));
    w->encode = ((const struct log_encoder_face *)m->face)->encode;
    w->encoder = cfg;
    return OK;
}

static enum err read_wrap(struct wrap *w, const json_t *json, struct provision *p)
{
    const json_t *v = json_object_get(json, "wrap");
    const struct module *m;
    struct slice name;
    if (v == NULL || json_is_null(v))
        return read_default(w, p);
    if (!json_is_object(v))
        return provision_fail(p, "\"wrap\" must be an object");
    TRY(provision_text(p, v, "format", SLICE(""), &name));
    if (name.len == 0)
        return provision_fail(p, "\"wrap\": module name not specified with key 'format'");
    TRY(provision_module(p, "caddy.logging.encoders", arena_str(p->arena, name), v, &m,
                         &w->inner_cfg));
    w->inner = m->face;
    w->encode = w->inner->encode;
    w->encoder = w->inner_cfg;
    return OK;
}

static void set_terminal(void *cfg)
{
    struct wrap *w = cfg;
    if (w->inner == NULL) {
        w->encode = w->console_encode;
        w->encoder = w->console;
    } else if (w->inner->set_terminal != NULL) {
        w->inner->set_terminal(w->inner_cfg);
    }
}

/* --- filter --- */

struct path_filter {
    struct slice path; /* "request>headers>Cookie" */
    const struct log_filter_face *face;
    void *cfg;
};

struct filter {
    struct wrap wrap; /* first: set_terminal */
    struct path_filter *items;
    size_t count;
};

static enum err read_filters(struct filter *f, const json_t *json, struct provision *p)
{
    const char *path;
    json_t *v;
    json_t *fields = json_object_get(json, "fields");
    if (fields == NULL || json_is_null(fields))
        return OK;
    if (!json_is_object(fields))
        return provision_fail(p, "\"fields\" must be an object");
    f->items = ARENA_ARRAY(p->arena, struct path_filter, json_object_size(fields) + 1);
    json_object_foreach(fields, path, v)
    {
        const struct module *m;
        struct slice name;
        struct path_filter *item = &f->items[f->count];
        if (!json_is_object(v))
            return provision_fail(p, "\"fields\": each must be an object");
        TRY(provision_text(p, v, "filter", SLICE(""), &name));
        TRY(provision_module(p, "caddy.logging.encoders.filter", arena_str(p->arena, name), v, &m,
                             &item->cfg));
        item->path = arena_copy(p->arena, slice_from(path));
        item->face = m->face;
        f->count++;
    }
    return OK;
}

static enum err provision_filter(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"format", "wrap", "fields", NULL};
    struct filter *f = cfg;
    TRY(provision_members(p, json, members));
    TRY(read_wrap(&f->wrap, json, p));
    return read_filters(f, json, p);
}

/* Whether `path` is `before` and then the field's key. A header's name stands in its canonical
 * form on the line, so its case does not matter here. */
static bool names(struct slice path, struct slice before, const struct log_field *field)
{
    if (path.len != before.len + field->key.len || !slice_starts(path, before))
        return false;
    struct slice key = slice_skip(path, before.len);
    return field->header_key ? slice_eq_nocase(key, field->key) : slice_eq(key, field->key);
}

static bool reaches_below(const struct filter *f, struct slice before)
{
    for (size_t i = 0; i < f->count; i++) {
        if (slice_starts(f->items[i].path, before))
            return true;
    }
    return false;
}

static const struct log_field *filter_fields(const struct filter *f, struct slice before,
                                             const struct log_field *fields, size_t count,
                                             struct arena *arena, unsigned depth)
{
    struct log_field *out = arena_alloc(arena, (count + 1) * sizeof *out);
    for (size_t i = 0; i < count; i++) {
        bool done = false;
        out[i] = fields[i];
        for (size_t k = 0; k < f->count && !done; k++) {
            done = names(f->items[k].path, before, &fields[i]);
            if (done)
                f->items[k].face->filter(f->items[k].cfg, &out[i], arena);
        }
        if (done || out[i].kind != LOG_OBJECT || depth == DEPTH_MAX)
            continue;
        struct slice below = arena_join(arena, (struct slice[]){before, fields[i].key, SLICE(">")},
                                        3);
        if (reaches_below(f, below))
            out[i].object.fields = filter_fields(f, below, out[i].object.fields,
                                                 out[i].object.count, arena, depth + 1);
    }
    return out;
}

static enum err encode_filtered(const void *cfg, struct buffer *b, const struct log_event *e,
                                size_t string_max)
{
    const struct filter *f = cfg;
    struct arena *arena = log_queue_arena();
    struct log_event changed = *e;
    changed.fields = filter_fields(f, SLICE(""), e->fields, e->count, arena, 0);
    return f->wrap.encode(f->wrap.encoder, b, &changed, string_max);
}

/* --- append --- */

struct addition {
    struct log_field field;
    struct slice placeholder; /* its name; empty: `field` is the value */
};

struct append {
    struct wrap wrap;
    struct addition *items;
    size_t count;
};

static bool is_placeholder(struct slice text)
{
    return text.len > 2 && text.ptr[0] == '{' && text.ptr[text.len - 1] == '}' &&
           slice_find(slice_skip(text, 1), '{') == SIZE_MAX;
}

static void read_addition(struct addition *a, const char *key, const json_t *v, struct arena *arena)
{
    a->field.key = arena_copy(arena, slice_from(key));
    if (json_is_string(v)) {
        struct slice text = arena_copy(arena, slice_of(json_string_value(v),
                                                       json_string_length(v)));
        a->field.kind = LOG_STRING;
        a->field.text = text;
        if (is_placeholder(text))
            a->placeholder = slice_of(text.ptr + 1, text.len - 2);
        return;
    }
    char *dump = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    a->field.kind = LOG_JSON;
    a->field.text = arena_copy(arena, slice_from(dump));
    free(dump);
}

static enum err provision_append(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"format", "wrap", "fields", NULL};
    struct append *a = cfg;
    const char *key;
    json_t *v;
    TRY(provision_members(p, json, members));
    TRY(read_wrap(&a->wrap, json, p));
    json_t *fields = json_object_get(json, "fields");
    if (fields == NULL || json_is_null(fields))
        return OK;
    if (!json_is_object(fields))
        return provision_fail(p, "\"fields\" must be an object");
    a->items = ARENA_ARRAY(p->arena, struct addition, json_object_size(fields) + 1);
    json_object_foreach(fields, key, v)
        read_addition(&a->items[a->count++], key, v, p->arena);
    return OK;
}

static struct log_field value_of(const struct addition *a, struct arena *arena)
{
    static const char *const spaces[] = {"env.", "system.", "file.", "time."};
    struct exchange nobody = {.arena = arena};
    struct log_field f = a->field;
    if (a->placeholder.len == 0)
        return f;
    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++) {
        if (slice_starts(a->placeholder, slice_from(spaces[i])) &&
            placeholder_get(&nobody, a->placeholder, &f.text))
            return f;
    }
    f.kind = LOG_JSON;
    f.text = SLICE("null");
    return f;
}

static enum err encode_appended(const void *cfg, struct buffer *b, const struct log_event *e,
                                size_t string_max)
{
    const struct append *a = cfg;
    struct arena *arena = log_queue_arena();
    struct log_event longer = *e;
    struct log_field *fields = arena_alloc(arena, (e->count + a->count + 1) * sizeof *fields);
    if (e->count > 0)
        memcpy(fields, e->fields, e->count * sizeof *fields);
    for (size_t i = 0; i < a->count; i++)
        fields[e->count + i] = value_of(&a->items[i], arena);
    longer.fields = fields;
    longer.count = e->count + a->count;
    return a->wrap.encode(a->wrap.encoder, b, &longer, string_max);
}

/* --- journald --- */

static enum err provision_journald(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"format", "wrap", NULL};
    TRY(provision_members(p, json, members));
    return read_wrap(cfg, json, p);
}

static enum err encode_journald(const void *cfg, struct buffer *b, const struct log_event *e,
                                size_t string_max)
{
    static const struct slice priorities[] = {{"<7>", 3}, {"<6>", 3}, {"<4>", 3},
                                              {"<3>", 3}, {"<2>", 3}, {"<2>", 3}};
    const struct wrap *w = cfg;
    struct log_event timeless = *e;
    size_t start = b->len;
    TRY(buffer_append(b, priorities[e->level]));
    timeless.no_console_time = true; /* the journal has its own */
    enum err r = w->encode(w->encoder, b, &timeless, string_max);
    if (r != OK)
        b->len = start;
    return r;
}

static const struct log_encoder_face filter_face = {encode_filtered, set_terminal};
static const struct log_encoder_face append_face = {encode_appended, set_terminal};
static const struct log_encoder_face journald_face = {encode_journald, set_terminal};

const struct module log_encoder_filter = {
    .id = "caddy.logging.encoders.filter", .cfg_size = sizeof(struct filter),
    .provision = provision_filter, .face = &filter_face};
const struct module log_encoder_append = {
    .id = "caddy.logging.encoders.append", .cfg_size = sizeof(struct append),
    .provision = provision_append, .face = &append_face};
const struct module log_encoder_journald = {
    .id = "caddy.logging.encoders.journald", .cfg_size = sizeof(struct wrap),
    .provision = provision_journald, .face = &journald_face};
