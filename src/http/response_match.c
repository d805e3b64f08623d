/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A status that is listed, or whose class is, and all named fields, each with one of its values.
 * Nothing is expanded: placeholders have no meaning here, as in Caddy.
 */
#include "http/response_match.h"

static const char *const members[] = {"status_code", "headers", NULL};

static enum err read_statuses(struct response_match *m, const json_t *json, struct provision *p)
{
    if (json == NULL || json_is_null(json))
        return OK;
    if (!json_is_array(json))
        return provision_fail(p, "\"status_code\" must be an array of numbers");
    m->by_status = true;
    m->statuses = ARENA_ARRAY(p->arena, int64_t, json_array_size(json));
    for (size_t i = 0; i < json_array_size(json); i++) {
        const json_t *v = json_array_get(json, i);
        if (!json_is_integer(v))
            return provision_fail(p, "\"status_code\" must be an array of numbers");
        m->statuses[m->statuses_count++] = json_integer_value(v);
    }
    return OK;
}

static enum err read_field(struct response_field *f, const char *name, const json_t *values,
                           struct provision *p)
{
    f->name = arena_copy(p->arena, slice_from(name));
    f->absent = json_is_null(values);
    if (f->absent)
        return OK;
    if (!json_is_array(values))
        return provision_fail(p, "\"headers\" must hold arrays of strings");
    f->values = ARENA_ARRAY(p->arena, struct slice, json_array_size(values));
    for (size_t i = 0; i < json_array_size(values); i++) {
        const json_t *v = json_array_get(values, i);
        if (!json_is_string(v))
            return provision_fail(p, "\"headers\" must hold arrays of strings");
        f->values[f->count++] = arena_copy(p->arena, slice_of(json_string_value(v),
                                                              json_string_length(v)));
    }
    return OK;
}

enum err response_match_provision(struct response_match *m, const json_t *json, struct provision *p)
{
    const char *name;
    json_t *values;
    *m = (struct response_match){0};
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(provision_members(p, json, members));
    TRY(read_statuses(m, json_object_get(json, "status_code"), p));
    json_t *fields = json_object_get(json, "headers");
    if (fields == NULL || json_is_null(fields))
        return OK;
    if (!json_is_object(fields))
        return provision_fail(p, "\"headers\" must be an object of arrays of strings");
    m->fields = ARENA_ARRAY(p->arena, struct response_field, json_object_size(fields));
    json_object_foreach(fields, name, values)
        TRY(read_field(&m->fields[m->fields_count++], name, values, p));
    return OK;
}

bool field_pattern_fits(struct slice pattern, struct slice value)
{
    bool first = pattern.len > 0 && pattern.ptr[0] == '*';
    bool last = pattern.len > 0 && pattern.ptr[pattern.len - 1] == '*';
    if (pattern.len == 1 && first)
        return true;
    if (first && last)
        return slice_find_slice(value, slice_of(pattern.ptr + 1, pattern.len - 2)) != SIZE_MAX;
    if (first)
        return slice_ends(value, slice_skip(pattern, 1));
    if (last)
        return slice_starts(value, slice_take(pattern, pattern.len - 1));
    return slice_eq(pattern, value);
}

static bool status_fits(const struct response_match *m, int status)
{
    for (size_t i = 0; i < m->statuses_count; i++) {
        int64_t want = m->statuses[i];
        if (want == status || (want < 100 && want == status / 100))
            return true;
    }
    return !m->by_status;
}

static bool field_fits(const struct response_field *want, const struct fields *fields)
{
    struct field *f;
    uint32_t at = 0;
    if (want->absent)
        return !fields_has(fields, want->name);
    if (want->count == 0)
        return fields_has(fields, want->name);
    while ((f = fields_find(fields, want->name, &at)) != NULL) {
        for (uint32_t i = 0; i < want->count; i++) {
            if (field_pattern_fits(want->values[i], f->value))
                return true;
        }
    }
    return false;
}

bool response_match(const struct response_match *m, int status, const struct fields *fields)
{
    if (!status_fits(m, status))
        return false;
    for (size_t i = 0; i < m->fields_count; i++) {
        if (!field_fits(&m->fields[i], fields))
            return false;
    }
    return true;
}
