/* SPDX-License-Identifier: Apache-2.0 */
/*
 * method, protocol and not.
 *
 *     "method": ["GET", "HEAD"]    "protocol": "https"    "not": [{"path": ["/admin"]}]
 */
#include "handlers/handlers.h"
#include "http/route.h"

struct match_method {
    struct slice *methods;
    size_t count;
};

static enum err provision_method(void *cfg, const json_t *json, struct provision *p)
{
    struct match_method *m = cfg;
    size_t i;
    json_t *v;
    if (!json_is_array(json))
        return provision_fail(p, "must be an array of strings");
    m->methods = ARENA_ARRAY(p->arena, struct slice, json_array_size(json));
    json_array_foreach((json_t *)(uintptr_t)json, i, v)
    {
        if (!json_is_string(v))
            return provision_fail(p, "must be an array of strings");
        char *text = arena_str(p->arena, slice_of(json_string_value(v), json_string_length(v)));
        for (char *c = text; *c != '\0'; c++) {
            if (*c >= 'a' && *c <= 'z')
                *c = (char)(*c & ~0x20);
        }
        m->methods[m->count++] = slice_from(text);
    }
    return OK;
}

static enum err match_method(const void *cfg, struct exchange *x, bool *matches)
{
    const struct match_method *m = cfg;
    *matches = false;
    for (size_t i = 0; i < m->count && !*matches; i++)
        *matches = slice_eq(m->methods[i], x->req.method);
    return OK;
}

struct match_protocol {
    struct slice name;
};

static enum err provision_protocol(void *cfg, const json_t *json, struct provision *p)
{
    struct match_protocol *m = cfg;
    if (!json_is_string(json))
        return provision_fail(p, "must be a string");
    m->name = arena_copy(p->arena, slice_of(json_string_value(json), json_string_length(json)));
    return OK;
}

static bool protocol_matches(struct slice name, const struct exchange *x)
{
    unsigned version = x->req.major * 10U + x->req.minor;
    struct slice type;
    if (slice_is(name, "grpc"))
        return fields_get(&x->req.fields, SLICE("Content-Type"), &type) &&
               slice_starts(type, SLICE("application/grpc"));
    if (slice_is(name, "http") || slice_is(name, "https"))
        return slice_eq(name, x->req.scheme);
    static const struct {
        const char *name;
        unsigned least, most;
    } versions[] = {
        {"http/1.0", 10, 10}, {"http/1.0+", 10, 99}, {"http/1.1", 11, 11}, {"http/1.1+", 11, 99},
        {"http/2", 20, 29},   {"http/2+", 20, 99},   {"http/3", 30, 39},   {"http/3+", 30, 99},
    };
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        if (slice_is(name, versions[i].name))
            return version >= versions[i].least && version <= versions[i].most;
    }
    return false;
}

static enum err match_protocol(const void *cfg, struct exchange *x, bool *matches)
{
    const struct match_protocol *m = cfg;
    *matches = protocol_matches(m->name, x);
    return OK;
}

struct match_not {
    struct matcher_set *sets;
    uint32_t count;
};

static enum err provision_not(void *cfg, const json_t *json, struct provision *p)
{
    struct match_not *m = cfg;
    return matcher_sets_provision(&m->sets, &m->count, json, p);
}

static enum err match_not(const void *cfg, struct exchange *x, bool *matches)
{
    const struct match_not *m = cfg;
    bool any = false;
    if (m->count > 0)
        TRY(matcher_sets_match(m->sets, m->count, x, &any));
    *matches = !any;
    return OK;
}

const struct module matcher_method = {
    .id = "http.matchers.method",
    .cfg_size = sizeof(struct match_method),
    .provision = provision_method,
    .match = match_method,
};

const struct module matcher_protocol = {
    .id = "http.matchers.protocol",
    .cfg_size = sizeof(struct match_protocol),
    .provision = provision_protocol,
    .match = match_protocol,
};

const struct module matcher_not = {
    .id = "http.matchers.not",
    .cfg_size = sizeof(struct match_not),
    .provision = provision_not,
    .match = match_not,
};
