/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A member "@id" names the object that it stands in, so that the admin API's /id/NAME/… means that
 * object wherever it moves. What is provisioned has no such members. Walks recurse: they run on the
 * control thread's stack, and a document's depth is bounded where it is read.
 */
#include "admin/document.h"

#include <stdio.h>

#include "base/buffer.h"
#include "base/map.h"
#include "base/mem.h"

#define ID_KEY "@id"

enum { PATH_MAX_LEN = 1 << 20 };

/* Calls `visit` for each object with an id until it returns false. */
struct search {
    bool (*visit)(struct search *, const json_t *object, struct slice id);
    struct buffer path; /* of the value in hand */
    const char *bad;    /* an id that is neither text nor number */
    struct slice wanted;
    bool found;
    json_t *seen; /* id → path */
    char *error;
    size_t cap;
};

/* Numbers are written as in the document; `text` has room for one. */
static bool id_of(const json_t *object, char text[64], struct slice *id)
{
    const json_t *v = json_object_get(object, ID_KEY);
    if (json_is_string(v))
        *id = slice_of(json_string_value(v), json_string_length(v));
    else if (json_is_integer(v))
        *id = slice_of(text, (size_t)snprintf(text, 64, "%lld", (long long)json_integer_value(v)));
    else if (json_is_real(v))
        *id = slice_of(text, (size_t)snprintf(text, 64, "%.17g", json_real_value(v)));
    else
        return false;
    return true;
}

static bool walk(struct search *s, const json_t *v)
{
    size_t len = s->path.len, i;
    char text[64];
    const char *key;
    json_t *child;
    struct slice id;
    if (json_is_object(v) && json_object_get(v, ID_KEY) != NULL) {
        if (!id_of(v, text, &id)) {
            s->bad = ID_KEY;
            return false;
        }
        if (!s->visit(s, v, id))
            return false;
    }
    json_object_foreach((json_t *)v, key, child)
    {
        if (buffer_append_f(&s->path, "/%s", key) != OK || !walk(s, child))
            return false;
        s->path.len = len;
    }
    json_array_foreach(v, i, child)
    {
        if (buffer_append_f(&s->path, "/%zu", i) != OK || !walk(s, child))
            return false;
        s->path.len = len;
    }
    return true;
}

static void begin(struct search *s)
{
    buffer_init(&s->path, PATH_MAX_LEN);
    (void)!BUFFER_PUT(&s->path, "/config");
}

static bool remember(struct search *s, const json_t *object, struct slice id)
{
    (void)object;
    json_t *path = json_stringn(s->path.ptr, s->path.len);
    const json_t *other = json_object_getn(s->seen, id.ptr, id.len);
    if (other != NULL) {
        snprintf(s->error, s->cap, "indexing config: duplicate ID '" SLICE_FMT "' found at %s and "
                 SLICE_FMT, SLICE_ARG(slice_take(id, 200)), json_string_value(other),
                 SLICE_ARG(buffer_slice(&s->path)));
        json_decref(path);
        s->found = true;
        return false;
    }
    json_object_setn_new(s->seen, id.ptr, id.len, path);
    return true;
}

enum err document_check_ids(const json_t *document, char *error, size_t cap)
{
    struct search s = {.visit = remember, .seen = json_object(), .error = error, .cap = cap};
    begin(&s);
    bool good = walk(&s, document);
    if (!good && s.bad != NULL)
        snprintf(error, cap, "indexing config: " SLICE_FMT ": @id field must be a string or number",
                 SLICE_ARG(slice_take(buffer_slice(&s.path), 300)));
    else if (!good && !s.found)
        snprintf(error, cap, "indexing config: a path is too long");
    buffer_deinit(&s.path);
    json_decref(s.seen);
    return good ? OK : ERR_INVALID;
}

static bool compare(struct search *s, const json_t *object, struct slice id)
{
    (void)object;
    s->found = slice_eq(id, s->wanted);
    return !s->found;
}

char *document_find_id(const json_t *document, struct slice id)
{
    struct search s = {.visit = compare, .wanted = id};
    begin(&s);
    (void)walk(&s, document);
    if (s.found)
        return buffer_steal(&s.path);
    buffer_deinit(&s.path);
    return NULL;
}

static bool any(struct search *s, const json_t *object, struct slice id)
{
    (void)object;
    (void)id;
    s->found = true;
    return false;
}

static void strip(json_t *v)
{
    size_t i;
    const char *key;
    json_t *child;
    json_object_del(v, ID_KEY);
    json_object_foreach(v, key, child)
        strip(child);
    json_array_foreach(v, i, child)
        strip(child);
}

json_t *document_without_ids(json_t *document)
{
    struct search s = {.visit = any};
    begin(&s);
    (void)walk(&s, document);
    buffer_deinit(&s.path);
    if (!s.found)
        return json_incref(document);
    json_t *copy = json_deep_copy(document);
    strip(copy);
    return copy;
}
