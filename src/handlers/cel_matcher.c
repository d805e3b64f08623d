/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the arguments of a call to the JSON of a matcher. What an argument must be (strings, a map of
 * strings) is checked here; the rest the matcher says itself.
 */
#include "handlers/cel_matcher.h"

enum shape {
    SHAPE_LIST,    /* ["a", "b"] */
    SHAPE_RANGES,  /* {"ranges": ["a", "b"]} */
    SHAPE_ONE,     /* "a", in lower case */
    SHAPE_MAP,     /* {"k": ["a", "b"]} */
    SHAPE_PATTERN, /* {"name": "n", "pattern": "p"} */
    SHAPE_FIELD,   /* {"field": {"name": "n", "pattern": "p"}} */
    SHAPE_FILE,    /* {"root": "r", "try_files": ["a"], …}, or a list of files */
    SHAPE_URL,     /* {"pattern": "p", "base_url": "b"} */
};

static const struct {
    const char *name;
    enum shape shape;
    size_t min, max;
} functions[] = {
    {"client_ip", SHAPE_RANGES, 1, 256},   {"file", SHAPE_FILE, 0, 256},
    {"header", SHAPE_MAP, 1, 1},           {"header_regexp", SHAPE_FIELD, 2, 3},
    {"host", SHAPE_LIST, 1, 256},          {"method", SHAPE_LIST, 1, 256},
    {"path", SHAPE_LIST, 1, 256},          {"path_regexp", SHAPE_PATTERN, 1, 2},
    {"protocol", SHAPE_ONE, 1, 1},         {"query", SHAPE_MAP, 1, 1},
    {"remote_ip", SHAPE_RANGES, 1, 256},   {"url_pattern", SHAPE_URL, 1, 2},
    {"vars", SHAPE_MAP, 1, 1},             {"vars_regexp", SHAPE_FIELD, 2, 3},
};

static size_t find(struct slice function)
{
    size_t i = 0;
    while (i < sizeof functions / sizeof functions[0] && !slice_is(function, functions[i].name))
        i++;
    return i;
}

bool cel_matcher_known(struct slice function)
{
    return find(function) < sizeof functions / sizeof functions[0];
}

/* A string, a placeholder, or a sum of such, as text; false for anything else. */
static bool text_of(const struct cel_node *n, struct arena *arena, struct slice *out)
{
    struct slice a, b;
    if (n->kind == CEL_LITERAL && n->type == CEL_STRING) {
        *out = n->value.text;
        return true;
    }
    if (n->kind == CEL_PLACEHOLDER) {
        *out = arena_join(arena, (struct slice[]){SLICE("{"), n->placeholder.name, SLICE("}")}, 3);
        return true;
    }
    if (n->kind != CEL_BINARY || n->operator != CEL_ADD || !text_of(n->args[0], arena, &a) ||
        !text_of(n->args[1], arena, &b))
        return false;
    *out = arena_join(arena, (struct slice[]){a, b}, 2);
    return true;
}

static json_t *json_of(const struct cel_node *n, struct arena *arena)
{
    struct slice text;
    return text_of(n, arena, &text) ? json_stringn(text.ptr != NULL ? text.ptr : "", text.len) : NULL;
}

static json_t *list_of(struct cel_node *const *args, size_t count, struct arena *arena)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_t *one = json_of(args[i], arena);
        if (one == NULL) {
            json_decref(list);
            return NULL;
        }
        json_array_append_new(list, one);
    }
    return list;
}

static json_t *value_of(const struct cel_node *n, struct arena *arena)
{
    if (n->kind == CEL_MAKE_LIST)
        return list_of(n->args, n->count, arena);
    struct cel_node *const one = (struct cel_node *)(uintptr_t)n;
    return list_of(&one, 1, arena);
}

/* Of strings to strings or lists of them; `plain` names keep a string as it is. */
static json_t *map_of(const struct cel_node *n, struct arena *arena, bool plain)
{
    if (n->kind != CEL_MAKE_MAP)
        return NULL;
    json_t *map = json_object();
    for (size_t i = 0; i + 1 < n->count; i += 2) {
        struct slice key;
        bool list = !plain || n->args[i + 1]->kind == CEL_MAKE_LIST;
        json_t *value = list ? value_of(n->args[i + 1], arena) : json_of(n->args[i + 1], arena);
        if (value == NULL || !text_of(n->args[i], arena, &key)) {
            json_decref(value);
            json_decref(map);
            return NULL;
        }
        json_object_set_new(map, arena_str(arena, key), value);
    }
    return map;
}

static json_t *pattern_of(struct slice name, const struct cel_node *given,
                          const struct cel_node *pattern, struct arena *arena)
{
    if (given != NULL && !text_of(given, arena, &name))
        return NULL;
    json_t *p = json_of(pattern, arena);
    return p == NULL ? NULL : json_pack("{s:s%,s:o}", "name", name.ptr != NULL ? name.ptr : "",
                                        name.len, "pattern", p);
}

static json_t *field_of(struct slice name, struct cel_node *const *args, size_t count,
                        struct arena *arena)
{
    struct slice field;
    json_t *pattern = pattern_of(name, count == 3 ? args[0] : NULL, args[count - 1], arena);
    if (pattern == NULL || !text_of(args[count - 2], arena, &field)) {
        json_decref(pattern);
        return NULL;
    }
    json_t *map = json_object();
    json_object_set_new(map, arena_str(arena, field), pattern);
    return map;
}

static json_t *lower(json_t *text)
{
    char copy[64];
    size_t n = json_string_length(text);
    if (n >= sizeof copy)
        n = sizeof copy - 1;
    for (size_t i = 0; i < n; i++)
        copy[i] = ascii_lower(json_string_value(text)[i]);
    json_decref(text);
    return json_stringn(copy, n);
}

static json_t *object_of(const char *name, json_t *value)
{
    return value == NULL ? NULL : json_pack("{s:o}", name, value);
}

static json_t *url_of(struct cel_node *const *args, size_t count, struct arena *arena)
{
    json_t *object = object_of("pattern", json_of(args[0], arena));
    json_t *base = count == 2 && object != NULL ? json_of(args[1], arena) : NULL;
    if (base != NULL)
        json_object_set_new(object, "base_url", base);
    return object;
}

static json_t *config_of(enum shape shape, struct slice name, struct cel_node *const *args,
                         size_t count, struct arena *arena)
{
    json_t *one;
    switch (shape) {
    case SHAPE_LIST:
        return list_of(args, count, arena);
    case SHAPE_RANGES:
        return object_of("ranges", list_of(args, count, arena));
    case SHAPE_ONE:
        one = json_of(args[0], arena);
        return one != NULL ? lower(one) : NULL;
    case SHAPE_MAP:
        return map_of(args[0], arena, false);
    case SHAPE_PATTERN:
        return pattern_of(name, count == 2 ? args[0] : NULL, args[count - 1], arena);
    case SHAPE_FIELD:
        return field_of(name, args, count, arena);
    case SHAPE_URL:
        return url_of(args, count, arena);
    default:
        if (count == 1 && args[0]->kind == CEL_MAKE_MAP)
            return map_of(args[0], arena, true);
        return count == 0 ? json_object() : object_of("try_files", list_of(args, count, arena));
    }
}

enum err cel_matcher_provision(struct provision *p, struct slice function, struct slice name,
                               struct cel_node *const *args, size_t count, struct matcher *out)
{
    size_t i = find(function);
    if (count < functions[i].min || count > functions[i].max)
        return provision_fail(p, "compiling CEL program: %s: wrong number of arguments",
                              functions[i].name);
    json_t *config = config_of(functions[i].shape, name, args, count, p->arena);
    if (config == NULL)
        return provision_fail(p, "compiling CEL program: %s: the arguments must be strings%s",
                              functions[i].name,
                              functions[i].shape == SHAPE_MAP ? " in a map" : "");
    enum err e = provision_module(p, "http.matchers", functions[i].name, config, &out->module,
                                  &out->cfg);
    json_decref(config);
    return e;
}
