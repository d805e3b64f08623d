/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map: placeholders whose values depend on another one. Nothing is looked up before somebody asks for
 * a destination. The first mapping that matches and has an output for it counts; an output of null is
 * as if the mapping were not there. Mappings by text are found in a hash map, since inputs are
 * distinct; those by regular expression are tried in their order, as far as they come first.
 *
 *     {"handler": "map", "source": "{http.request.host}", "destinations": ["{backend}", "{tier}"],
 *      "mappings": [{"input": "a.example", "outputs": ["10.0.0.1", null]},
 *                   {"input_regexp": "^(.*)\\.b\\.example$", "outputs": ["${1}.internal", 2]}],
 *      "defaults": ["unknown", "0"]}
 */
#include "base/map.h"

#include "handlers/handlers.h"
#include "handlers/json_text.h"
#include "http/regexp.h"
#include "http/route.h"

struct output {
    struct slice raw;     /* for a regular expression: $1 … are its groups */
    struct template text; /* for a text: with placeholders */
    bool is_null;
};

struct mapping {
    struct regexp *regexp; /* NULL: by text */
    struct output *outputs;
};

struct map_handler {
    struct template source;
    struct slice *destinations; /* without braces */
    size_t destinations_count;
    struct mapping *mappings;
    size_t mappings_count, regexps_count;
    struct map by_text; /* input → struct mapping */
    struct template *defaults; /* as many as destinations, or NULL */
};

static const char *const members[] = {"source", "destinations", "mappings", "defaults", NULL};
static const char *const mapping_members[] = {"input", "input_regexp", "outputs", NULL};

static enum err read_destinations(struct map_handler *h, const json_t *json, struct provision *p)
{
    TRY(provision_texts(p, json, "destinations", &h->destinations, &h->destinations_count));
    for (size_t i = 0; i < h->destinations_count; i++) {
        struct slice *d = &h->destinations[i], rest = slice_skip(*d, 1);
        if (d->len < 2 || d->ptr[0] != '{' || slice_find(rest, '{') != SIZE_MAX)
            return provision_fail(p, "destination must be a placeholder and only a placeholder");
        *d = rest;
        while (slice_ends(*d, SLICE("}")))
            d->len--;
    }
    return OK;
}

static enum err read_outputs(struct map_handler *h, struct mapping *m, size_t i, const json_t *json,
                             struct provision *p)
{
    if (json != NULL && !json_is_array(json))
        return provision_fail(p, "mapping %zu: \"outputs\" must be an array", i);
    if (json_array_size(json) != h->destinations_count)
        return provision_fail(p, "mapping %zu has %zu outputs but there are %zu destinations defined",
                              i, json_array_size(json), h->destinations_count);
    m->outputs = ARENA_ARRAY(p->arena, struct output, h->destinations_count);
    for (size_t k = 0; k < h->destinations_count; k++) {
        const json_t *v = json_array_get(json, k);
        m->outputs[k].is_null = json_is_null(v);
        m->outputs[k].raw = json_text(v, p->arena);
        template_compile(&m->outputs[k].text, m->outputs[k].raw, p->arena);
    }
    return OK;
}

static enum err read_mapping(struct map_handler *h, size_t i, const json_t *json, struct map *seen,
                             struct provision *p)
{
    struct mapping *m = &h->mappings[i];
    struct slice input, pattern;
    TRY(provision_members(p, json, mapping_members));
    TRY(provision_text(p, json, "input", SLICE(""), &input));
    TRY(provision_text(p, json, "input_regexp", SLICE(""), &pattern));
    if (input.len > 0 && pattern.len > 0)
        return provision_fail(p, "mapping %zu has both input and input_regexp fields specified, which "
                              "is confusing", i);
    if (pattern.len > 0)
        TRY(regexp_compile(p, pattern, &m->regexp));
    h->regexps_count += pattern.len > 0;
    struct slice key = pattern.len > 0 ? pattern : input;
    struct mapping *before = map_put(seen, key, m);
    if (before != NULL)
        return provision_fail(p, "mapping %zu has a duplicate input '" SLICE_FMT "' previously used "
                              "with mapping %zu", i, SLICE_ARG(key), (size_t)(before - h->mappings));
    if (pattern.len == 0)
        map_put(&h->by_text, input, m);
    return read_outputs(h, m, i, json_object_get(json, "outputs"), p);
}

static enum err read_mappings(struct map_handler *h, const json_t *json, struct provision *p)
{
    struct map seen;
    enum err e = OK;
    if (json != NULL && !json_is_null(json) && !json_is_array(json))
        return provision_fail(p, "\"mappings\" must be an array");
    size_t count = json_array_size(json);
    h->mappings = ARENA_ARRAY(p->arena, struct mapping, count);
    map_init(&seen, false);
    for (size_t i = 0; i < count && e == OK; i++) {
        h->mappings_count++;
        e = read_mapping(h, i, json_array_get(json, i), &seen, p);
    }
    map_deinit(&seen);
    return e;
}

static enum err read_defaults(struct map_handler *h, const json_t *json, struct provision *p)
{
    struct slice *texts;
    size_t count;
    TRY(provision_texts(p, json, "defaults", &texts, &count));
    if (count == 0)
        return OK;
    if (count != h->destinations_count)
        return provision_fail(p, "%zu destinations != %zu defaults", h->destinations_count, count);
    h->defaults = ARENA_ARRAY(p->arena, struct template, count);
    for (size_t i = 0; i < count; i++)
        template_compile(&h->defaults[i], texts[i], p->arena);
    return OK;
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct map_handler *h = cfg;
    map_init(&h->by_text, false);
    TRY(provision_members(p, json, members));
    TRY(provision_template(p, json, "source", SLICE(""), &h->source));
    TRY(read_destinations(h, json, p));
    TRY(read_mappings(h, json_object_get(json, "mappings"), p));
    return read_defaults(h, json, p);
}

static void release(void *cfg)
{
    struct map_handler *h = cfg;
    map_deinit(&h->by_text);
    for (size_t i = 0; i < h->mappings_count; i++)
        regexp_free(h->mappings[i].regexp);
}

/* By the first regular expression before `end` that matches and has an output. */
static bool by_regexp(const struct map_handler *h, size_t end, size_t destination, struct slice input,
                      struct exchange *x, struct slice *value)
{
    struct slice groups[REGEXP_GROUPS_MAX];
    size_t n;
    if (h->regexps_count == 0)
        return false;
    for (size_t i = 0; i < end; i++) {
        const struct mapping *m = &h->mappings[i];
        const struct output *o = &m->outputs[destination];
        if (m->regexp == NULL || o->is_null || regexp_match(m->regexp, input, groups, &n) != OK ||
            n == 0)
            continue;
        return regexp_expand(m->regexp, o->raw, groups, n, x->arena, value) == OK;
    }
    return false;
}

static bool get(struct exchange *x, const void *cfg, struct slice name, struct slice *value)
{
    const struct map_handler *h = cfg;
    size_t d = 0;
    while (d < h->destinations_count && !slice_eq(h->destinations[d], name))
        d++;
    if (d == h->destinations_count)
        return false;
    struct slice input = template_expand(&h->source, x);
    const struct mapping *exact = map_get(&h->by_text, input);
    if (exact != NULL && exact->outputs[d].is_null)
        exact = NULL;
    size_t end = exact != NULL ? (size_t)(exact - h->mappings) : h->mappings_count;
    if (by_regexp(h, end, d, input, x, value))
        return true;
    *value = SLICE_NONE;
    if (exact != NULL)
        *value = template_expand(&exact->outputs[d].text, x);
    else if (h->defaults != NULL)
        *value = template_expand(&h->defaults[d], x);
    return true;
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    struct exchange_mapper *m = ARENA_NEW(x->arena, struct exchange_mapper);
    m->get = get;
    m->cfg = cfg;
    exchange_add_mapper(x, m);
    return chain_next(x, next);
}

const struct module handler_map = {
    .id = "http.handlers.map",
    .cfg_size = sizeof(struct map_handler),
    .provision = provision,
    .release = release,
    .serve = serve,
};
