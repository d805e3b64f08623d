/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A path is walked part by part. The last part names a member to get, set, create, replace or
 * delete; or an element when the part before it is an array, which PUT inserts and POST appends.
 * A path that ends in "..." appends each element of an array that was sent.
 */
#include "admin/document.h"

#include <stdarg.h>
#include <stdio.h>

enum { PARTS_MAX = 256, PART_MAX = 512 };

struct walk {
    struct slice path, method;
    struct slice parts[PARTS_MAX];
    size_t count;
    bool spread; /* "..." at the end */
    json_t *value, **found;
    struct document_error *error;
};

static enum err refuse(struct walk *w, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static enum err refuse(struct walk *w, int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    w->error->status = status;
    vsnprintf(w->error->text, sizeof w->error->text, format, args);
    va_end(args);
    return ERR_INVALID;
}

/* The path up to the part in hand, with slashes between the parts. */
static struct slice so_far(const struct walk *w, size_t part)
{
    const char *begin = w->parts[0].ptr;
    return slice_take(slice_of(begin, (size_t)(w->parts[part].ptr - begin) + w->parts[part].len), 200);
}

/* Digits without a leading zero. */
static bool canonical_index(struct slice text, size_t *out)
{
    uint64_t n;
    if (!slice_to_u64(text, INT32_MAX, &n) || (text.len > 1 && text.ptr[0] == '0'))
        return false;
    *out = (size_t)n;
    return true;
}

static enum err split(struct walk *w)
{
    struct slice rest = w->path, part;
    while (rest.len > 0 && rest.ptr[0] == '/')
        rest = slice_skip(rest, 1);
    while (rest.len > 0 && rest.ptr[rest.len - 1] == '/')
        rest.len--;
    if (rest.len == 0)
        return refuse(w, 400, "no traversable path");
    for (bool more = true; more;) {
        more = slice_cut(rest, '/', &part, &rest);
        if (w->count == PARTS_MAX || part.len >= PART_MAX)
            return refuse(w, 400, "path is too long");
        w->parts[w->count++] = part;
    }
    w->spread = slice_is(w->parts[w->count - 1], "...");
    if (w->spread)
        w->count--;
    return w->count > 0 ? OK : refuse(w, 400, "path missing");
}

static const char *key_of(struct slice part, char key[PART_MAX])
{
    snprintf(key, PART_MAX, SLICE_FMT, SLICE_ARG(part));
    return key;
}

static enum err append(struct walk *w, json_t *array)
{
    if (w->spread && !json_is_array(w->value))
        return refuse(w, 400, "final element is not an array");
    if (w->spread)
        json_array_extend(array, w->value);
    else
        json_array_append(array, w->value != NULL ? w->value : json_null());
    return OK;
}

static enum err refuse_index(struct walk *w, const char *slash, struct slice path,
                             struct slice index)
{
    uint64_t n;
    char why[160] = "non-canonical array index";
    if (index.len == 0)
        snprintf(why, sizeof why, "empty index");
    else if (!slice_to_u64(index, INT64_MAX, &n))
        snprintf(why, sizeof why, "parsing \"" SLICE_FMT "\": invalid syntax",
                 SLICE_ARG(slice_take(index, 100)));
    return refuse(w, 400, "[%s" SLICE_FMT "] invalid array index '" SLICE_FMT "': %s", slash,
                  SLICE_ARG(slice_take(path, 200)), SLICE_ARG(slice_take(index, 100)), why);
}

/* The last part is an index into `array`. */
static enum err change_element(struct walk *w, json_t *array)
{
    struct slice last = w->parts[w->count - 1];
    size_t i = 0, size = json_array_size(array);
    json_t *value = w->value != NULL ? w->value : json_null();
    if (slice_is(w->method, "POST"))
        return append(w, array);
    if (!canonical_index(last, &i))
        return refuse_index(w, "", w->path, last);
    if (i > size || (i == size && !slice_is(w->method, "PUT")))
        return refuse(w, 400, "[" SLICE_FMT "] array index out of bounds: " SLICE_FMT,
                      SLICE_ARG(slice_take(w->path, 200)), SLICE_ARG(slice_take(last, 100)));
    if (slice_is(w->method, "GET"))
        *w->found = json_array_get(array, i);
    else if (slice_is(w->method, "PUT"))
        json_array_insert(array, i, value);
    else if (slice_is(w->method, "PATCH"))
        json_array_set(array, i, value);
    else
        json_array_remove(array, i);
    return OK;
}

static enum err change_member(struct walk *w, json_t *object, struct slice part)
{
    char name[PART_MAX];
    const char *key = key_of(part, name);
    json_t *old = json_object_get(object, key);
    json_t *value = w->value != NULL ? w->value : json_null();
    if (slice_is(w->method, "GET")) {
        *w->found = old != NULL ? old : json_null();
        return OK;
    }
    if (slice_is(w->method, "POST") && json_is_array(old))
        return append(w, old);
    if (slice_is(w->method, "PUT") && old != NULL)
        return refuse(w, 409, "[" SLICE_FMT "] key already exists: " SLICE_FMT,
                      SLICE_ARG(slice_take(w->path, 200)), SLICE_ARG(slice_take(part, 200)));
    if ((slice_is(w->method, "PATCH") || slice_is(w->method, "DELETE")) && old == NULL)
        return refuse(w, 404, "[" SLICE_FMT "] key does not exist: " SLICE_FMT,
                      SLICE_ARG(slice_take(w->path, 200)), SLICE_ARG(slice_take(part, 200)));
    if (slice_is(w->method, "DELETE"))
        json_object_del(object, key);
    else
        json_object_set(object, key, value);
    return OK;
}

/* The member that the path goes through; PUT makes the ones that are missing. */
static json_t *step(struct walk *w, json_t *object, struct slice part)
{
    char name[PART_MAX];
    const char *key = key_of(part, name);
    json_t *next = json_object_get(object, key);
    if ((next == NULL || json_is_null(next)) && slice_is(w->method, "PUT")) {
        json_object_set_new(object, key, json_object());
        next = json_object_get(object, key);
    }
    return next;
}

static enum err walk_down(struct walk *w, json_t *at)
{
    for (size_t i = 0; i < w->count; i++) {
        struct slice part = w->parts[i];
        size_t index;
        char name[PART_MAX];
        if (json_is_object(at)) {
            json_t *child = json_object_get(at, key_of(part, name));
            if (json_is_array(child) && i + 2 == w->count)
                return change_element(w, child);
            if (i + 1 == w->count)
                return change_member(w, at, part);
            at = step(w, at, part);
        } else if (json_is_array(at)) {
            if (!canonical_index(part, &index))
                return refuse_index(w, "/", so_far(w, i), part);
            at = json_array_get(at, index);
            if (at == NULL)
                return refuse(w, 400, "[/" SLICE_FMT "] array index out of bounds: " SLICE_FMT,
                              SLICE_ARG(so_far(w, i)), SLICE_ARG(slice_take(part, 100)));
        } else {
            return refuse(w, 400, "invalid traversal path at: " SLICE_FMT, SLICE_ARG(so_far(w, i)));
        }
    }
    if (slice_is(w->method, "GET"))
        *w->found = at != NULL ? at : json_null();
    return OK;
}

enum err document_access(json_t *root, struct slice method, struct slice path, json_t *value,
                         json_t **found, struct document_error *error)
{
    static const char *const methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};
    struct walk w = {.path = path, .method = method, .value = value, .found = found,
                     .error = error};
    bool known = false;
    *found = NULL;
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        known = known || slice_is(method, methods[i]);
    if (!known)
        return refuse(&w, 405, "method " SLICE_FMT " not allowed", SLICE_ARG(slice_take(method, 50)));
    TRY(split(&w));
    return walk_down(&w, root);
}
