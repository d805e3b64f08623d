/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log, of sites and of the global options, with its writers and encoders; log_append, log_name,
 * log_skip.
 */
#include "adapter/directives.h"

#include "adapter/mocks.h"
#include "base/log.h"
#include "base/text.h"

/* --- writers --- */

static enum err file_mode(struct dispenser *d, struct slice s, const char *what, unsigned *mode)
{
    *mode = 0;
    for (size_t i = 0; i < s.len; i++)
        *mode = s.ptr[i] >= '0' && s.ptr[i] <= '7' && i < 6 ? *mode * 8 + (unsigned)(s.ptr[i] - '0')
                                                             : 1u << 30;
    if (s.len > 0 && *mode < 1u << 30)
        return OK;
    return dispenser_err_f(d,
                           "parsing %s: strconv.ParseUint: parsing \"" SLICE_FMT "\": invalid syntax",
                           what, SLICE_ARG(s));
}

/* "a,b c" to a list of texts, or of numbers. */
static enum err comma_list(struct adapt *a, struct dispenser *d, const char *option, bool numbers,
                           json_t *o)
{
    bool any = false;
    while (dispenser_next_arg(d)) {
        struct slice rest = dispenser_val(d), part;
        bool more = true;
        any = true;
        while (more) {
            int64_t n;
            more = slice_cut(rest, ',', &part, &rest);
            part = slice_trim(part);
            if (part.len == 0)
                return dispenser_err_f(d, "parsing %s: empty value", option);
            if (numbers && !slice_to_i64(part, &n))
                return dispenser_err_f(d,
                                       "parsing %s number: strconv.Atoi: parsing \"" SLICE_FMT
                                       "\": invalid syntax",
                                       option, SLICE_ARG(part));
            j_add_to_list(a, o, slice_from(option), numbers ? j_int(a, n) : j_text(a, part));
        }
    }
    return any ? OK : dispenser_arg_err(d);
}

static enum err roll_number(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct slice name = dispenser_val(d), value;
    int64_t n;
    if (!dispenser_all_args(d, &value))
        return dispenser_arg_err(d);
    if (slice_is(name, "roll_size")) {
        TRY(read_size(d, value, "parsing size", &n));
        j_put_int(a, o, "roll_size_mb", (n + (1 << 20) - 1) >> 20);
    } else if (slice_is(name, "roll_keep")) {
        TRY(read_int(d, value, "parsing roll_keep number", &n));
        j_put_int(a, o, "roll_keep", n);
    } else if (slice_is(name, "roll_keep_for")) {
        const int64_t day = INT64_C(86400) * 1000000000;
        TRY(read_duration(d, value, "parsing roll_keep_for duration", &n));
        if (n < 0)
            return dispenser_err_f(d, "negative roll_keep_for duration: " SLICE_FMT,
                                   SLICE_ARG(value));
        j_put_int(a, o, "roll_keep_days", n / day + (n % day != 0));
    } else {
        TRY(read_duration(d, value, "parsing roll_interval duration", &n));
        j_put_int(a, o, "roll_interval", n);
    }
    return OK;
}

static enum err file_option(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct slice name = dispenser_val(d), value;
    unsigned mode;
    if (slice_is(name, "roll_disabled") || slice_is(name, "roll_uncompressed") ||
        slice_is(name, "roll_local_time")) {
        if (dispenser_next_arg(d))
            return dispenser_arg_err(d);
        j_set(a, o, slice_is(name, "roll_disabled") ? "roll"
                    : slice_is(name, "roll_local_time") ? "roll_local_time" : "roll_gzip",
              slice_is(name, "roll_local_time") ? json_true() : json_false());
        return OK;
    }
    if (slice_is(name, "roll_size") || slice_is(name, "roll_keep") ||
        slice_is(name, "roll_keep_for") || slice_is(name, "roll_interval"))
        return roll_number(a, d, o);
    if (slice_is(name, "roll_minutes") || slice_is(name, "roll_at"))
        return comma_list(a, d, slice_is(name, "roll_at") ? "roll_at" : "roll_minutes",
                          slice_is(name, "roll_minutes"), o);
    if (!slice_is(name, "mode") && !slice_is(name, "dir_mode") &&
        !slice_is(name, "roll_compression") && !slice_is(name, "backup_time_format"))
        return dispenser_err_f(d, "unrecognized subdirective '" SLICE_FMT "'", SLICE_ARG(name));
    if (!dispenser_all_args(d, &value))
        return dispenser_arg_err(d);
    if (slice_is(name, "mode")) {
        TRY(file_mode(d, value, "mode", &mode));
        value = arena_printf(a->arena, "%04o", mode);
    } else if (slice_is(name, "dir_mode") && !slice_eq_nocase(value, SLICE("inherit")) &&
               !slice_eq_nocase(value, SLICE("from_file"))) {
        TRY(file_mode(d, value, "dir_mode", &mode));
    } else if (slice_is(name, "roll_compression") && !slice_eq_nocase(value, SLICE("none")) &&
               !slice_eq_nocase(value, SLICE("gzip")) && !slice_eq_nocase(value, SLICE("zstd"))) {
        return dispenser_err_f(d, "parsing roll_compression: must be 'none', 'gzip' or 'zstd'");
    }
    j_put_text(a, o, arena_str(a->arena, name), value);
    return OK;
}

static enum err read_writer(struct adapt *a, struct dispenser *outer, json_t **writer)
{
    static const struct option net_options[] = {
        {"dial_timeout", OPTION_DURATION, "dial_timeout", "invalid duration"},
        {"soft_start", OPTION_FLAG, "soft_start", NULL},
        {0},
    };
    struct slice name = dispenser_val(outer);
    json_t *o = j_object(a);
    bool known;
    if (slice_is(name, "stdout") || slice_is(name, "stderr") || slice_is(name, "discard")) {
        *writer = j_module(a, "output", arena_str(a->arena, name), o);
        return OK;
    }
    bool is_file = slice_is(name, "file");
    if (!is_file && !slice_is(name, "net"))
        return dispenser_err_f(outer,
                               "getting module named 'caddy.logging.writers." SLICE_FMT
                               "': module not registered: caddy.logging.writers." SLICE_FMT,
                               SLICE_ARG(name), SLICE_ARG(name));
    struct dispenser in = dispenser_new_from_next_segment(outer), *d = &in;
    dispenser_next(d);
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    j_put_text(a, o, is_file ? "filename" : "address", dispenser_val(d));
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    while (dispenser_next_block(d, 0)) {
        if (is_file) {
            TRY(file_option(a, d, o));
            continue;
        }
        TRY(option_read(a, d, net_options, o, &known));
        if (!known)
            return dispenser_err_f(d, "unrecognized subdirective '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
    }
    *writer = j_module(a, "output", is_file ? "file" : "net", o);
    return OK;
}

/* --- encoders --- */

static enum err read_encoder(struct adapt *, struct dispenser *, json_t **);

static enum err plain_encoder(struct adapt *a, struct dispenser *d, json_t *o)
{
    static const char *const keys[] = {"message_key", "level_key", "time_key", "name_key",
                                       "caller_key", "stacktrace_key", "line_ending", "time_format",
                                       "duration_format", "level_format"};
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    while (dispenser_next_block(d, 0)) {
        struct slice name = dispenser_val(d), value;
        size_t i = 0;
        if (slice_is(name, "time_local")) {
            j_put_bool(a, o, "time_local", true);
            if (dispenser_next_arg(d))
                return dispenser_arg_err(d);
            continue;
        }
        if (!dispenser_all_args(d, &value))
            return dispenser_arg_err(d);
        while (i < 10 && !slice_is(name, keys[i]))
            i++;
        if (i == 10)
            return dispenser_err_f(d, "unrecognized subdirective " SLICE_FMT, SLICE_ARG(name));
        if (i < 7)
            j_set(a, o, keys[i], j_text(a, value));
        else
            j_put_text(a, o, keys[i], value);
    }
    return OK;
}

/* Actions on parts of a value: "replace NAME TEXT", "hash NAME", "delete NAME". */
static enum err actions_filter(struct adapt *a, struct dispenser *d, const char *part, json_t *o)
{
    while (dispenser_next_block(d, 0)) {
        json_t *action = j_object(a);
        struct slice kind = dispenser_val(d), name, value;
        if (!slice_is(kind, "replace") && !slice_is(kind, "hash") && !slice_is(kind, "delete"))
            return dispenser_err_f(d, "unrecognized subdirective " SLICE_FMT, SLICE_ARG(kind));
        if (!dispenser_args(d, &name))
            return dispenser_arg_err(d);
        j_set(a, action, "type", j_text(a, kind));
        j_set(a, action, part, j_text(a, name));
        if (slice_is(kind, "replace")) {
            if (!dispenser_args(d, &value))
                return dispenser_arg_err(d);
            j_put_text(a, action, "value", value);
        }
        j_add_to_list(a, o, SLICE("actions"), action);
    }
    return OK;
}

static enum err mask_filter(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct slice *args;
    size_t count = dispenser_remaining_args(d, &args);
    int64_t bits;
    if (count > 2)
        return dispenser_err_f(d, "too many arguments");
    for (size_t i = 0; i < count; i++) {
        TRY(read_int(d, args[i], "error parsing", &bits));
        j_put_int(a, o, i == 0 ? "ipv4_cidr" : "ipv6_cidr", bits);
    }
    while (dispenser_next_block(d, 0)) {
        bool v4 = dispenser_val_is(d, "ipv4");
        if (!v4 && !dispenser_val_is(d, "ipv6"))
            return dispenser_err_f(d, "unrecognized subdirective " SLICE_FMT,
                                   SLICE_ARG(dispenser_val(d)));
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        TRY(read_int(d, dispenser_val(d), "error parsing", &bits));
        j_put_int(a, o, v4 ? "ipv4_cidr" : "ipv6_cidr", bits);
    }
    return OK;
}

static enum err multi_regexp_filter(struct adapt *a, struct dispenser *d, json_t *o)
{
    while (dispenser_next_block(d, 0)) {
        json_t *op = j_object(a);
        struct slice pattern, value;
        if (!dispenser_val_is(d, "regexp"))
            return dispenser_err_f(d, "unrecognized subdirective " SLICE_FMT,
                                   SLICE_ARG(dispenser_val(d)));
        if (!dispenser_args(d, &pattern))
            return dispenser_arg_err(d);
        if (pattern.len == 0)
            return dispenser_err_f(d, "regexp pattern cannot be empty");
        if (!dispenser_args(d, &value))
            return dispenser_arg_err(d);
        j_put_text(a, op, "regexp", pattern);
        j_put_text(a, op, "value", value);
        j_add_to_list(a, o, SLICE("operations"), op);
    }
    if (json_object_size(o) == 0)
        return dispenser_err_f(d, "multi_regexp filter requires at least one regexp operation");
    return OK;
}

static enum err read_filter(struct adapt *a, struct dispenser *d, struct slice name, json_t *o)
{
    dispenser_next(d);
    if (slice_is(name, "delete") || slice_is(name, "hash"))
        return OK;
    if (slice_is(name, "ip_mask"))
        return mask_filter(a, d, o);
    if (slice_is(name, "query"))
        return actions_filter(a, d, "parameter", o);
    if (slice_is(name, "cookie") || slice_is(name, "set_cookie"))
        return actions_filter(a, d, "name", o);
    if (slice_is(name, "multi_regexp"))
        return multi_regexp_filter(a, d, o);
    bool regexp = slice_is(name, "regexp");
    if (!regexp && !slice_is(name, "replace") && !slice_is(name, "rename"))
        return diag_fail(a->diag, "module not registered: caddy.logging.encoders.filter." SLICE_FMT,
                         SLICE_ARG(name));
    if (regexp && dispenser_next_arg(d))
        j_put_text(a, o, "regexp", dispenser_val(d));
    if (dispenser_next_arg(d))
        j_put_text(a, o, slice_is(name, "rename") ? "name" : "value", dispenser_val(d));
    return OK;
}

/* Several "regexp" filters of one field become one "multi_regexp". */
static enum err put_filter(struct adapt *a, struct dispenser *d, json_t *fields, struct slice field,
                           struct slice name, json_t *filter)
{
    json_t *old = j_get(fields, field);
    const char *kind = json_string_value(json_object_get(old, "filter"));
    bool both = old != NULL && slice_is(name, "regexp") &&
                (strcmp(kind, "regexp") == 0 || strcmp(kind, "multi_regexp") == 0);
    if (old == NULL) {
        j_set_key(a, fields, field, j_module(a, "filter", arena_str(a->arena, name), filter));
        return OK;
    }
    if (!both && (slice_is(name, "regexp") || strcmp(kind, "regexp") == 0))
        return dispenser_err_f(d, "cannot mix regexp filters with other filter types for field " SLICE_FMT,
                               SLICE_ARG(field));
    if (!both)
        return dispenser_err_f(d,
                               "field " SLICE_FMT " already has a filter; multiple non-regexp "
                               "filters per field are not supported",
                               SLICE_ARG(field));
    if (strcmp(kind, "regexp") == 0) {
        json_t *first = keep(a, json_copy(old)), *multi = j_object(a);
        json_object_del(first, "filter");
        j_add_to_list(a, multi, SLICE("operations"), first);
        old = j_module(a, "filter", "multi_regexp", multi);
        j_set_key(a, fields, field, old);
    }
    j_append(json_object_get(old, "operations"), filter);
    return OK;
}

static enum err filter_field(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct slice field = dispenser_val(d), name;
    json_t *filter = j_object(a);
    if (!dispenser_args(d, &name))
        return dispenser_arg_err(d);
    struct dispenser in = dispenser_new_from_next_segment(d);
    TRY(read_filter(a, &in, name, filter));
    return put_filter(a, d, j_at(a, o, "fields"), field, name, filter);
}

static enum err append_field(struct adapt *a, struct dispenser *d, json_t *o)
{
    struct slice field = dispenser_val(d);
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    j_set_key(a, j_at(a, o, "fields"), field, keep(a, dispenser_scalar(d)));
    return dispenser_next_arg(d) ? dispenser_arg_err(d) : OK;
}

/* filter, append, journald: around another encoder. */
static enum err wrapping_encoder(struct adapt *a, struct dispenser *d, struct slice name, json_t *o)
{
    bool filter = slice_is(name, "filter"), append = slice_is(name, "append");
    if (!filter && !append && dispenser_next_arg(d))
        return dispenser_arg_err(d);
    while (dispenser_next_block(d, 0)) {
        if (dispenser_val_is(d, "wrap")) {
            json_t *wrapped;
            if (!dispenser_next_arg(d))
                return dispenser_arg_err(d);
            TRY(read_encoder(a, d, &wrapped));
            j_set(a, o, "wrap", wrapped);
        } else if (!filter && !append) {
            return dispenser_err_f(d, "unrecognized subdirective " SLICE_FMT,
                                   SLICE_ARG(dispenser_val(d)));
        } else if (dispenser_val_is(d, "fields")) {
            int nesting = dispenser_nesting(d);
            while (dispenser_next_block(d, nesting))
                TRY(filter ? filter_field(a, d, o) : append_field(a, d, o));
        } else {
            TRY(filter ? filter_field(a, d, o) : append_field(a, d, o));
        }
    }
    return OK;
}

static enum err read_encoder(struct adapt *a, struct dispenser *outer, json_t **encoder)
{
    struct slice name = dispenser_val(outer);
    struct dispenser in = dispenser_new_from_next_segment(outer);
    json_t *o = j_object(a);
    dispenser_next(&in);
    if (slice_is(name, "console") || slice_is(name, "json"))
        TRY(plain_encoder(a, &in, o));
    else if (slice_is(name, "filter") || slice_is(name, "append") || slice_is(name, "journald"))
        TRY(wrapping_encoder(a, &in, name, o));
    else
        return dispenser_err_f(outer,
                               "getting module named 'caddy.logging.encoders." SLICE_FMT
                               "': module not registered: caddy.logging.encoders." SLICE_FMT,
                               SLICE_ARG(name), SLICE_ARG(name));
    *encoder = j_module(a, "format", arena_str(a->arena, name), o);
    return OK;
}

/* --- log --- */

struct log_parts {
    json_t *writer, *encoder, *core, *sampling, *include, *exclude;
    struct slice level;
    bool has_level, has_no_hostname;
};

static enum err read_sampling(struct adapt *a, struct dispenser *outer, json_t **sampling)
{
    struct dispenser in = dispenser_new_from_next_segment(outer), *d = &in;
    json_t *read = j_object(a);
    int nesting;
    while (dispenser_next_arg(d))
        ;
    nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        struct slice name = dispenser_val(d);
        const char *key = slice_is(name, "interval")     ? "interval"
                          : slice_is(name, "first")      ? "first"
                          : slice_is(name, "thereafter") ? "thereafter"
                                                         : NULL;
        int64_t n;
        if (key == NULL)
            return dispenser_err_f(d, "unrecognized subdirective: " SLICE_FMT, SLICE_ARG(name));
        if (json_object_get(read, key) != NULL)
            return dispenser_err_f(d, "'%s' specified more than once in the same sampling block",
                                   key);
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        if (strcmp(key, "interval") == 0)
            TRY(read_duration(d, dispenser_val(d), "failed to parse interval", &n));
        else
            TRY(read_int(d, dispenser_val(d), "failed to parse number", &n));
        j_set(a, read, key, j_int(a, n));
    }
    *sampling = j_object(a);
    static const char *const order[] = {"interval", "first", "thereafter"};
    for (int i = 0; i < 3; i++)
        j_put_int(a, *sampling, order[i], json_integer_value(json_object_get(read, order[i])));
    return OK;
}

static enum err once(struct dispenser *d, bool seen, const char *name)
{
    if (!seen)
        return OK;
    return dispenser_err_f(d, "'%s' subdirective specified more than once in the same log block",
                           name);
}

static enum err list_option(struct adapt *a, struct dispenser *d, bool global, const char *name,
                            json_t **list)
{
    if (!global)
        return dispenser_err_f(d, "%s is not allowed in the log directive", name);
    while (dispenser_next_arg(d)) {
        *list = *list != NULL ? *list : j_array(a);
        j_append_text(a, *list, dispenser_val(d));
    }
    return OK;
}

static enum err module_option(struct adapt *a, struct dispenser *d, const char *name, json_t **out,
                              enum err (*read)(struct adapt *, struct dispenser *, json_t **))
{
    TRY(once(d, *out != NULL, name));
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    return read(a, d, out);
}

/* Caddy has none of its own. */
static enum err read_core(struct adapt *a, struct dispenser *outer, json_t **core)
{
    if (!adapter_has_mocks || !dispenser_val_is(outer, "mock"))
        return no_module(outer, "caddy.logging.cores", dispenser_val(outer));
    struct dispenser d = dispenser_new_from_next_segment(outer);
    (void)d;
    *core = j_module(a, "module", "mock", j_object(a));
    return OK;
}

static enum err read_hostnames(struct adapt *a, struct dispenser *d, bool global,
                               struct log_value *v)
{
    struct slice *args;
    if (global)
        return dispenser_err_f(d, "hostnames is not allowed in the log global options");
    size_t count = dispenser_remaining_args(d, &args);
    if (count == 0)
        return dispenser_arg_err(d);
    struct slice *all = ARENA_ARRAY(a->arena, struct slice, v->hostname_count + count);
    if (v->hostname_count > 0)
        memcpy(all, v->hostnames, v->hostname_count * sizeof *all);
    memcpy(all + v->hostname_count, args, count * sizeof *all);
    v->hostnames = all;
    v->hostname_count += count;
    return OK;
}

static enum err log_option(struct adapt *a, struct dispenser *d, bool global, struct log_parts *p,
                           struct log_value *v)
{
    if (dispenser_val_is(d, "hostnames"))
        return read_hostnames(a, d, global, v);
    if (dispenser_val_is(d, "output"))
        return module_option(a, d, "output", &p->writer, read_writer);
    if (dispenser_val_is(d, "format"))
        return module_option(a, d, "format", &p->encoder, read_encoder);
    if (dispenser_val_is(d, "core"))
        return module_option(a, d, "core", &p->core, read_core);
    if (dispenser_val_is(d, "sampling")) {
        TRY(once(d, p->sampling != NULL, "sampling"));
        return read_sampling(a, d, &p->sampling);
    }
    if (dispenser_val_is(d, "include"))
        return list_option(a, d, global, "include", &p->include);
    if (dispenser_val_is(d, "exclude"))
        return list_option(a, d, global, "exclude", &p->exclude);
    if (dispenser_val_is(d, "level")) {
        TRY(once(d, p->has_level, "level"));
        p->has_level = true;
        return dispenser_all_args(d, &p->level) ? OK : dispenser_arg_err(d);
    }
    if (dispenser_val_is(d, "no_hostname")) {
        TRY(once(d, p->has_no_hostname, "no_hostname"));
        p->has_no_hostname = v->no_hostname = true;
        return dispenser_next_arg(d) ? dispenser_arg_err(d) : OK;
    }
    return dispenser_err_f(d, "unrecognized subdirective: " SLICE_FMT, SLICE_ARG(dispenser_val(d)));
}

static json_t *log_object(struct adapt *a, const struct log_parts *p)
{
    json_t *o = j_object(a);
    if (p->writer != NULL)
        j_set(a, o, "writer", p->writer);
    if (p->encoder != NULL)
        j_set(a, o, "encoder", p->encoder);
    if (p->core != NULL)
        j_set(a, o, "core", p->core);
    j_put_text(a, o, "level", p->level);
    if (p->sampling != NULL)
        j_set(a, o, "sampling", p->sampling);
    if (p->include != NULL)
        j_set(a, o, "include", p->include);
    if (p->exclude != NULL)
        j_set(a, o, "exclude", p->exclude);
    return o;
}

enum err log_read(struct helper *h, bool global, struct log_value **out)
{
    struct dispenser *d = &h->d;
    struct adapt *a = h->a;
    struct log_parts p = {0};
    struct log_value *v = ARENA_NEW(a->arena, struct log_value);
    struct slice name = global ? SLICE("default") : SLICE_NONE;
    dispenser_next(d);
    if (dispenser_next_arg(d)) {
        name = dispenser_val(d);
        if (dispenser_next_arg(d))
            return dispenser_arg_err(d);
    }
    for (size_t i = 0; global && i < a->options.log_count; i++)
        if (slice_eq(a->options.logs[i]->name, name))
            return dispenser_err_f(d, "duplicate global log option for: " SLICE_FMT,
                                   SLICE_ARG(name));
    while (dispenser_next_block(d, 0))
        TRY(log_option(a, d, global, &p, v));
    v->log = log_object(a, &p);
    bool empty = json_object_size(v->log) == 0;
    if (!global && name.len == 0 && !empty)
        name = arena_printf(a->arena, "log%u", a->log_counter++);
    v->name = name;
    if (!global && name.len > 0) {
        struct slice logger = arena_printf(a->arena, "http.log.access." SLICE_FMT, SLICE_ARG(name));
        j_put_strings(a, v->log, "include", &logger, 1);
    }
    if (empty)
        v->log = NULL;
    *out = v;
    return OK;
}

enum err parse_log(struct helper *h, struct values *out)
{
    struct log_value *v;
    TRY(log_read(h, false, &v));
    values_add(h->a, out, VALUE_LOG)->log = v;
    return OK;
}

enum err parse_log_append(struct helper *h, json_t **handler)
{
    struct dispenser *d = &h->d;
    struct slice key, value;
    dispenser_next(d);
    if (!dispenser_args(d, &key, &value))
        return dispenser_arg_err(d);
    *handler = j_object(h->a);
    if (slice_starts(key, SLICE("<")) && key.len > 1) {
        j_put_bool(h->a, *handler, "early", true);
        key = slice_skip(key, 1);
    }
    j_put_text(h->a, *handler, "key", key);
    j_put_text(h->a, *handler, "value", value);
    return OK;
}

enum err parse_log_name(struct helper *h, json_t **handler)
{
    json_t *names = j_array(h->a);
    dispenser_next(&h->d);
    while (dispenser_next_arg(&h->d))
        j_append_text(h->a, names, dispenser_val(&h->d));
    *handler = j_object(h->a);
    j_set(h->a, *handler, "access_logger_names", names);
    return OK;
}

enum err parse_log_skip(struct helper *h, json_t **handler)
{
    struct dispenser *d = &h->d;
    dispenser_next(d);
    if (dispenser_val_is(d, "skip_log"))
        LOG(LOG_WARN, "config.adapter.caddyfile",
            "the 'skip_log' directive is deprecated, please use 'log_skip' instead!");
    if (dispenser_next_arg(d))
        return dispenser_arg_err(d);
    if (dispenser_next_block(d, 0))
        return dispenser_err_f(d, "log_skip directive does not accept blocks");
    *handler = j_object(h->a);
    j_put_bool(h->a, *handler, "log_skip", true);
    return OK;
}
