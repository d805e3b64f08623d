/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matchers of a Caddyfile: "@name path /a /b", blocks of several, "not", and those of responses.
 * Words of one matcher that stands several times are read together; what that means (a longer list,
 * an error) is each matcher's own.
 */
#include "adapter/adapt.h"

/* `name` is the definition's, without "@"; empty inside of "not" and the like. */
typedef enum err matcher_parse(struct adapt *, struct dispenser *, json_t **out);

static enum err no_block(struct dispenser *d, const char *name)
{
    if (!dispenser_next_block(d, 0))
        return OK;
    return dispenser_err_f(d, "malformed %s matcher: blocks are not supported", name);
}

static enum err word_list(struct adapt *a, struct dispenser *d, const char *name, json_t **out)
{
    *out = j_array(a);
    while (dispenser_next(d)) {
        while (dispenser_next_arg(d))
            j_append_text(a, *out, dispenser_val(d));
        TRY(no_block(d, name));
    }
    return OK;
}

static enum err parse_host(struct adapt *a, struct dispenser *d, json_t **out)
{
    return word_list(a, d, "host", out);
}

static enum err parse_path(struct adapt *a, struct dispenser *d, json_t **out)
{
    return word_list(a, d, "path", out);
}

static enum err parse_method(struct adapt *a, struct dispenser *d, json_t **out)
{
    return word_list(a, d, "method", out);
}

static enum err parse_query(struct adapt *a, struct dispenser *d, json_t **out)
{
    *out = j_object(a);
    while (dispenser_next(d)) {
        while (dispenser_next_arg(d)) {
            struct slice key, value;
            if (dispenser_val(d).len == 0)
                continue;
            if (!slice_cut(dispenser_val(d), '=', &key, &value))
                return dispenser_err_f(
                    d, "malformed query matcher token: " SLICE_FMT "; must be in param=val format",
                    SLICE_ARG(dispenser_val(d)));
            j_add_to_list(a, *out, key, j_text(a, value));
        }
        TRY(no_block(d, "query"));
    }
    *out = j_by_name(a, *out);
    return OK;
}

/* Into `fields`, which may hold some already. */
static enum err header_fields(struct adapt *a, struct dispenser *d, json_t *fields)
{
    while (dispenser_next(d)) {
        struct slice field;
        if (!dispenser_args(d, &field))
            return dispenser_err_f(d, "malformed header matcher: expected field");
        if (slice_starts(field, SLICE("!"))) {
            if (field.len == 1)
                return dispenser_err_f(
                    d, "malformed header matcher: must have field name following ! character");
            j_set_key(a, fields, slice_skip(field, 1), json_null());
            if (dispenser_next_arg(d))
                return dispenser_err_f(d, "malformed header matcher: null matching headers cannot "
                                          "have a field value");
        } else {
            if (!dispenser_next_arg(d))
                return dispenser_err_f(
                    d, "malformed header matcher: expected both field and value");
            j_add_to_list(a, fields, canonical_field(a->arena, field), j_text(a, dispenser_val(d)));
        }
        TRY(no_block(d, "header"));
    }
    return OK;
}

static enum err parse_header(struct adapt *a, struct dispenser *d, json_t **out)
{
    json_t *fields = j_object(a);
    TRY(header_fields(a, d, fields));
    *out = j_by_name(a, fields);
    return OK;
}

static json_t *regexp_object(struct adapt *a, struct slice name, struct slice pattern)
{
    json_t *o = j_object(a);
    j_put_text(a, o, "name", name);
    j_put_text(a, o, "pattern", pattern);
    return o;
}

/* "[name] field pattern", as header_regexp and vars_regexp have it. */
static enum err field_regexps(struct adapt *a, struct dispenser *d, const char *matcher, bool once,
                              json_t **out)
{
    *out = j_object(a);
    while (dispenser_next(d)) {
        struct slice first, second, third, name = d->matcher_name;
        if (!dispenser_args(d, &first, &second))
            return dispenser_arg_err(d);
        if (dispenser_args(d, &third)) {
            name = first.len > 0 ? first : name;
            first = second;
            second = third;
        }
        if (once && j_get(*out, first) != NULL)
            return dispenser_err_f(d,
                                   "header_regexp matcher can only be used once per named matcher, "
                                   "per header field: " SLICE_FMT,
                                   SLICE_ARG(first));
        j_set_key(a, *out, first, regexp_object(a, name, second));
        TRY(no_block(d, matcher));
    }
    *out = j_by_name(a, *out);
    return OK;
}

static enum err parse_header_regexp(struct adapt *a, struct dispenser *d, json_t **out)
{
    return field_regexps(a, d, "header_regexp", true, out);
}

static enum err parse_vars_regexp(struct adapt *a, struct dispenser *d, json_t **out)
{
    return field_regexps(a, d, "vars_regexp", false, out);
}

static enum err parse_protocol(struct adapt *a, struct dispenser *d, json_t **out)
{
    *out = j_text(a, SLICE(""));
    while (dispenser_next(d)) {
        struct slice protocol;
        if (!dispenser_args(d, &protocol))
            return dispenser_err_f(d, "expected exactly one protocol");
        *out = j_text(a, protocol);
    }
    return OK;
}

static enum err parse_not(struct adapt *a, struct dispenser *d, json_t **out)
{
    *out = j_array(a);
    while (dispenser_next(d)) {
        json_t *set;
        TRY(matcher_set_parse(a, d, &set));
        j_append(*out, set);
    }
    return OK;
}

static enum err parse_path_regexp(struct adapt *a, struct dispenser *d, json_t **out)
{
    struct slice name = SLICE_NONE, pattern = SLICE_NONE, *args;
    while (dispenser_next(d)) {
        if (pattern.len > 0)
            return dispenser_err_f(d,
                                   "regular expression can only be used once per named matcher");
        size_t count = dispenser_remaining_args(d, &args);
        if (count != 1 && count != 2)
            return dispenser_arg_err(d);
        pattern = args[count - 1];
        if (count == 2)
            name = args[0];
        if (name.len == 0)
            name = d->matcher_name;
        TRY(no_block(d, "path_regexp"));
    }
    *out = regexp_object(a, name, pattern);
    return OK;
}

static enum err ip_ranges(struct adapt *a, struct dispenser *d, const char *matcher, json_t **out)
{
    json_t *ranges = j_array(a);
    bool remote = strcmp(matcher, "remote_ip") == 0;
    while (dispenser_next(d)) {
        while (dispenser_next_arg(d)) {
            if (remote && dispenser_val_is(d, "forwarded"))
                return dispenser_err_f(d, "the 'forwarded' option is no longer supported; use the "
                                          "'client_ip' matcher instead");
            add_ranges(a, ranges, dispenser_val(d));
        }
        TRY(no_block(d, matcher));
    }
    *out = j_object(a);
    if (json_array_size(ranges) > 0)
        j_set(a, *out, "ranges", ranges);
    return OK;
}

static enum err parse_remote_ip(struct adapt *a, struct dispenser *d, json_t **out)
{
    return ip_ranges(a, d, "remote_ip", out);
}

static enum err parse_client_ip(struct adapt *a, struct dispenser *d, json_t **out)
{
    return ip_ranges(a, d, "client_ip", out);
}

static enum err parse_vars(struct adapt *a, struct dispenser *d, json_t **out)
{
    *out = j_object(a);
    while (dispenser_next(d)) {
        struct slice field, *values;
        if (!dispenser_args(d, &field))
            return dispenser_err_f(d, "malformed vars matcher: expected field name");
        size_t count = dispenser_remaining_args(d, &values);
        if (count == 0)
            return dispenser_err_f(
                d, "malformed vars matcher: expected at least one value to match against");
        for (size_t i = 0; i < count; i++)
            j_add_to_list(a, *out, field, j_text(a, values[i]));
        TRY(no_block(d, "vars"));
    }
    *out = j_by_name(a, *out);
    return OK;
}

static enum err parse_expression(struct adapt *a, struct dispenser *d, json_t **out)
{
    dispenser_next(d);
    if (dispenser_count_remaining_args(d) > 1) {
        struct slice *words, *parts;
        size_t count = dispenser_remaining_args_raw(d, &words);
        parts = ARENA_ARRAY(a->arena, struct slice, count * 2);
        for (size_t i = 0; i < count; i++) {
            parts[2 * i] = words[i];
            parts[2 * i + 1] = SLICE(" ");
        }
        *out = j_text(a, arena_join(a->arena, parts, count * 2 - 1));
        return OK;
    }
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    *out = j_text(a, dispenser_val(d));
    if (d->matcher_name.len > 0) {
        json_t *o = j_object(a);
        j_set(a, o, "expr", *out);
        j_put_text(a, o, "name", d->matcher_name);
        *out = o;
    }
    return OK;
}

static enum err parse_file(struct adapt *a, struct dispenser *d, json_t **out)
{
    json_t *files = j_array(a), *split = NULL;
    struct slice root = SLICE_NONE, policy = SLICE_NONE;
    while (dispenser_next(d)) {
        while (dispenser_next_arg(d))
            j_append_text(a, files, dispenser_val(d));
        while (dispenser_next_block(d, 0)) {
            if (dispenser_val_is(d, "root")) {
                if (!dispenser_args(d, &root))
                    return dispenser_arg_err(d);
            } else if (dispenser_val_is(d, "try_files")) {
                while (dispenser_next_arg(d))
                    j_append_text(a, files, dispenser_val(d));
                if (json_array_size(files) == 0)
                    return dispenser_arg_err(d);
            } else if (dispenser_val_is(d, "try_policy")) {
                if (!dispenser_args(d, &policy))
                    return dispenser_arg_err(d);
            } else if (dispenser_val_is(d, "split_path")) {
                split = j_array(a);
                while (dispenser_next_arg(d))
                    j_append_text(a, split, dispenser_val(d));
                if (json_array_size(split) == 0)
                    return dispenser_arg_err(d);
            } else {
                return dispenser_err_f(d, "unrecognized subdirective: " SLICE_FMT,
                                       SLICE_ARG(dispenser_val(d)));
            }
        }
    }
    *out = j_object(a);
    j_put_text(a, *out, "root", root);
    if (json_array_size(files) > 0)
        j_set(a, *out, "try_files", files);
    j_put_text(a, *out, "try_policy", policy);
    if (split != NULL)
        j_set(a, *out, "split_path", split);
    return OK;
}

static enum err parse_tls(struct adapt *a, struct dispenser *d, json_t **out)
{
    *out = j_object(a);
    while (dispenser_next(d)) {
        if (dispenser_next_arg(d)) {
            if (!dispenser_val_is(d, "early_data"))
                return dispenser_err_f(d, "unrecognized option '" SLICE_FMT "'",
                                       SLICE_ARG(dispenser_val(d)));
            j_set(a, *out, "handshake_complete", json_false());
        }
        if (dispenser_next_arg(d))
            return dispenser_arg_err(d);
        if (dispenser_next_block(d, 0))
            return dispenser_err_f(d, "malformed tls matcher: blocks are not supported yet");
    }
    return OK;
}

static enum err parse_url_pattern(struct adapt *a, struct dispenser *d, json_t **out)
{
    struct slice pattern = SLICE_NONE, base = SLICE_NONE;
    bool ignore_case = false;
    while (dispenser_next(d)) {
        if (!dispenser_args(d, &pattern))
            return dispenser_err_f(d, "expected exactly one URL pattern");
        while (dispenser_next_block(d, 0)) {
            if (dispenser_val_is(d, "base_url")) {
                if (!dispenser_args(d, &base))
                    return dispenser_arg_err(d);
            } else if (dispenser_val_is(d, "ignore_case")) {
                if (dispenser_next_arg(d))
                    return dispenser_arg_err(d);
                ignore_case = true;
            } else {
                return dispenser_err_f(d, "unrecognized url_pattern option '" SLICE_FMT "'",
                                       SLICE_ARG(dispenser_val(d)));
            }
        }
    }
    *out = j_object(a);
    j_put_text(a, *out, "pattern", pattern);
    j_put_text(a, *out, "base_url", base);
    j_put_bool(a, *out, "ignore_case", ignore_case);
    return OK;
}

static const struct {
    const char *name;
    matcher_parse *parse;
} matchers[] = {
    {"client_ip", parse_client_ip},
    {"expression", parse_expression},
    {"file", parse_file},
    {"header", parse_header},
    {"header_regexp", parse_header_regexp},
    {"host", parse_host},
    {"method", parse_method},
    {"not", parse_not},
    {"path", parse_path},
    {"path_regexp", parse_path_regexp},
    {"protocol", parse_protocol},
    {"query", parse_query},
    {"remote_ip", parse_remote_ip},
    {"tls", parse_tls},
    {"url_pattern", parse_url_pattern},
    {"vars", parse_vars},
    {"vars_regexp", parse_vars_regexp},
};

enum { MATCHERS = sizeof matchers / sizeof *matchers };

static enum err parse_matcher(struct adapt *a, struct slice name, const struct tokens *words,
                              struct slice definition, json_t *set)
{
    struct dispenser d;
    json_t *config;
    for (size_t i = 0; i < MATCHERS; i++) {
        if (!slice_is(name, matchers[i].name))
            continue;
        dispenser_init(&d, words->items, words->count, a->arena, a->diag);
        d.matcher_name = definition;
        TRY(matchers[i].parse(a, &d, &config));
        j_set_key(a, set, name, config);
        return OK;
    }
    return diag_fail(a->diag,
                     "getting matcher module '" SLICE_FMT "': module not registered: "
                     "http.matchers." SLICE_FMT, SLICE_ARG(name), SLICE_ARG(name));
}

/* Quoted text without a matcher's name is an expression. */
static enum err add_expression(struct adapt *a, struct tokens *words, const struct token *text)
{
    struct token name = *text;
    name.text = SLICE("expression");
    name.quote = 0;
    TRY(tokens_add(a->arena, words, name));
    return tokens_add(a->arena, words, *text);
}

/* The words of each matcher, in the order of the table, so that the set's keys are sorted. */
static enum err parse_set(struct adapt *a, struct dispenser *d, struct slice definition,
                          bool nested, json_t **set)
{
    struct tokens words[MATCHERS] = {0};
    int nesting = dispenser_nesting(d);
    *set = j_object(a);
    while (dispenser_next_arg(d) || dispenser_next_block(d, nesting)) {
        struct slice name = dispenser_val(d);
        size_t i = 0;
        bool quoted = nested && dispenser_token(d)->quote != 0;
        if (quoted)
            name = SLICE("expression");
        while (i < MATCHERS && !slice_is(name, matchers[i].name))
            i++;
        if (quoted) {
            TRY(add_expression(a, &words[i], dispenser_token(d)));
            continue;
        }
        if (i == MATCHERS) {
            enum err e = parse_matcher(a, name, NULL, definition, *set);
            return nested ? dispenser_wrap_err(d, e) : e;
        }
        struct tokens more = dispenser_next_segment(d);
        TRY(tokens_add_all(a->arena, &words[i], more.items, more.count));
    }
    for (size_t i = 0; i < MATCHERS; i++)
        if (words[i].count > 0)
            TRY(parse_matcher(a, slice_from(matchers[i].name), &words[i], definition, *set));
    return OK;
}

enum err matcher_set_parse(struct adapt *a, struct dispenser *d, json_t **set)
{
    return parse_set(a, d, SLICE_NONE, true, set);
}

enum err matcher_define(struct adapt *a, struct dispenser *d, const struct matcher_def **defs)
{
    dispenser_next(d);
    struct slice name = dispenser_val(d);
    for (const struct matcher_def *m = *defs; m != NULL; m = m->next)
        if (slice_eq(m->name, name))
            return diag_fail(a->diag, "matcher is defined more than once: " SLICE_FMT,
                             SLICE_ARG(name));
    struct matcher_def *def = ARENA_NEW(a->arena, struct matcher_def);
    def->name = name;
    def->next = *defs;
    if (dispenser_next_arg(d)) {
        if (dispenser_token(d)->quote != 0) {
            struct tokens words = {0};
            def->set = j_object(a);
            TRY(add_expression(a, &words, dispenser_token(d)));
            TRY(parse_matcher(a, SLICE("expression"), &words, slice_skip(name, 1), def->set));
            *defs = def;
            return OK;
        }
        dispenser_prev(d);
    }
    TRY(parse_set(a, d, slice_skip(name, 1), false, &def->set));
    *defs = def;
    return OK;
}

/* --- responses --- */

static enum err add_statuses(struct adapt *a, struct dispenser *d, json_t *list)
{
    struct slice *args;
    size_t count = dispenser_remaining_args(d, &args);
    if (count == 0)
        return dispenser_arg_err(d);
    for (size_t i = 0; i < count; i++) {
        int64_t status;
        struct slice s = args[i];
        if (s.len == 3 && slice_ends(s, SLICE("xx")))
            s.len = 1;
        TRY(read_int(d, s, "bad status value", &status));
        j_append(list, j_int(a, status));
    }
    return OK;
}

enum err response_matcher_parse(struct adapt *a, struct dispenser *d, struct slice *name,
                                json_t **matcher)
{
    json_t *headers = NULL, *status = NULL;
    int nesting;
    dispenser_next(d);
    *name = dispenser_val(d);
    nesting = dispenser_nesting(d);
    while (dispenser_next_arg(d) || dispenser_next_block(d, nesting)) {
        if (dispenser_val_is(d, "header")) {
            struct dispenser inner = dispenser_new_from_next_segment(d);
            headers = headers != NULL ? headers : j_object(a);
            TRY(header_fields(a, &inner, headers));
        } else if (dispenser_val_is(d, "status")) {
            status = status != NULL ? status : j_array(a);
            TRY(add_statuses(a, d, status));
        } else {
            return dispenser_err_f(d, "unrecognized response matcher " SLICE_FMT,
                                   SLICE_ARG(dispenser_val(d)));
        }
    }
    *matcher = j_object(a);
    if (status != NULL && json_array_size(status) > 0)
        j_set(a, *matcher, "status_code", status);
    if (headers != NULL && json_object_size(headers) > 0)
        j_set(a, *matcher, "headers", headers);
    return OK;
}
