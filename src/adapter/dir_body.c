/* SPDX-License-Identifier: Apache-2.0 */
/*
 * encode, request_body, basic_auth.
 */
#include "adapter/directives.h"
#include "base/log.h"

static enum err zstd_level(struct dispenser *d, json_t *o, struct adapt *a)
{
    static const char *const levels[] = {"fastest", "default", "better", "best"};
    struct slice level = dispenser_val(d);
    for (int i = 0; i < 4; i++)
        if (slice_eq_nocase(level, slice_from(levels[i]))) {
            j_put_text(a, o, "level", level);
            return OK;
        }
    return dispenser_err_f(d,
                           "unexpected compression level, use one of '', 'fastest', 'default', "
                           "'better', 'best': " SLICE_FMT,
                           SLICE_ARG(level));
}

static enum err read_zstd(struct adapt *a, struct dispenser *d, json_t *o)
{
    int nesting;
    if (dispenser_next_arg(d)) {
        TRY(zstd_level(d, o, a));
        if (dispenser_next_arg(d))
            return dispenser_arg_err(d);
    }
    nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        if (dispenser_val_is(d, "level")) {
            if (!dispenser_next_arg(d) || dispenser_count_remaining_args(d) > 0)
                return dispenser_arg_err(d);
            if (json_object_get(o, "level") != NULL)
                return dispenser_err_f(d, "compression level already specified");
            TRY(zstd_level(d, o, a));
        } else if (dispenser_val_is(d, "disable_checksum")) {
            if (dispenser_next_arg(d))
                return dispenser_arg_err(d);
            if (json_object_get(o, "checksum") != NULL)
                return dispenser_err_f(d, "checksum already specified");
            j_set(a, o, "checksum", json_false());
        } else {
            return dispenser_err_f(d, "unknown subdirective '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        }
    }
    return OK;
}

/* A coding with its options, which is the segment at the cursor. */
static enum err read_coding(struct adapt *a, struct dispenser *outer, json_t *o, struct slice *name)
{
    struct dispenser in = dispenser_new_from_next_segment(outer), *d = &in;
    json_t *options = j_object(a);
    dispenser_next(d);
    *name = dispenser_val(d);
    if (slice_is(*name, "gzip") || slice_is(*name, "br")) {
        int64_t level;
        if (dispenser_next_arg(d)) {
            TRY(read_int(d, dispenser_val(d), "bad level", &level));
            j_put_int(a, options, slice_is(*name, "br") ? "quality" : "level", level);
        }
    } else if (slice_is(*name, "zstd")) {
        TRY(read_zstd(a, d, options));
    } else {
        return dispenser_err_f(outer,
                               "getting module named 'http.encoders." SLICE_FMT
                               "': module not registered: http.encoders." SLICE_FMT,
                               SLICE_ARG(*name), SLICE_ARG(*name));
    }
    j_set_key(a, j_at(a, o, "encodings"), *name, options);
    return OK;
}

enum err parse_encode(struct helper *h, json_t **handler)
{
    struct dispenser *d = &h->d;
    struct adapt *a = h->a;
    static struct slice usual[] = {{"zstd", 4}, {"gzip", 4}};
    struct slice *args, name;
    json_t *o = *handler = j_object(a), *prefer = j_array(a);
    dispenser_next(d);
    size_t count = dispenser_remaining_args(d, &args);
    while (dispenser_next_block(d, 0)) {
        if (dispenser_val_is(d, "minimum_length")) {
            int64_t length;
            if (!dispenser_next_arg(d))
                return dispenser_arg_err(d);
            TRY(read_int(d, dispenser_val(d), "bad minimum_length", &length));
            j_put_int(a, o, "minimum_length", length);
        } else if (dispenser_val_is(d, "match")) {
            struct dispenser in = dispenser_new_from_next_segment(d);
            json_t *matcher;
            TRY(response_matcher_parse(a, &in, &name, &matcher));
            j_set(a, o, "match", matcher);
        } else {
            TRY(read_coding(a, d, o, &name));
            j_append_text(a, prefer, name);
        }
    }
    if (json_array_size(prefer) == 0 && count == 0) {
        args = usual;
        count = 2;
    }
    for (size_t i = 0; i < count; i++) {
        if (!slice_is(args[i], "gzip") && !slice_is(args[i], "zstd") && !slice_is(args[i], "br"))
            return dispenser_err_f(d,
                                   "finding encoder module 'http.encoders." SLICE_FMT
                                   "': module not registered: http.encoders." SLICE_FMT,
                                   SLICE_ARG(args[i]), SLICE_ARG(args[i]));
        j_set_key(a, j_at(a, o, "encodings"), args[i], j_object(a));
        j_append_text(a, prefer, args[i]);
    }
    j_set(a, o, "prefer", prefer);
    return OK;
}

enum err parse_request_body(struct helper *h, json_t **handler)
{
    struct dispenser *d = &h->d;
    *handler = j_object(h->a);
    dispenser_next(d);
    while (dispenser_next_block(d, 0)) {
        bool is_size = dispenser_val_is(d, "max_size");
        struct slice value;
        int64_t size;
        if (!is_size && !dispenser_val_is(d, "set"))
            return dispenser_err_f(d, "unrecognized request_body subdirective '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        if (!dispenser_all_args(d, &value))
            return dispenser_arg_err(d);
        if (is_size) {
            TRY(read_size(d, value, "parsing max_size", &size));
            j_put_int(h->a, *handler, "max_size", size);
        } else {
            j_put_text(h->a, *handler, "set", value);
        }
    }
    return OK;
}

enum err parse_basic_auth(struct helper *h, json_t **handler)
{
    struct dispenser *d = &h->d;
    struct adapt *a = h->a;
    struct slice *args, hash = SLICE("bcrypt");
    json_t *basic = j_object(a), *algorithm = j_object(a), *accounts = j_array(a);
    dispenser_next(d);
    if (dispenser_val_is(d, "basicauth"))
        LOG(LOG_WARN, "config.adapter.caddyfile",
            "the 'basicauth' directive is deprecated, please use 'basic_auth' instead!");
    size_t count = dispenser_remaining_args(d, &args);
    if (count > 2)
        return dispenser_arg_err(d);
    if (count > 0)
        hash = args[0];
    if (!slice_is(hash, "bcrypt") && !slice_is(hash, "argon2id"))
        return dispenser_err_f(d, "unrecognized hash algorithm: " SLICE_FMT, SLICE_ARG(hash));
    j_put_text(a, algorithm, "algorithm", hash);
    while (dispenser_next_block(d, 0)) {
        struct slice user = dispenser_val(d), password = SLICE_NONE;
        json_t *account = j_object(a);
        (void)dispenser_args(d, &password);
        if (dispenser_next_arg(d))
            return dispenser_arg_err(d);
        if (user.len == 0 || password.len == 0)
            return dispenser_err_f(d, "username and password cannot be empty or missing");
        j_put_text(a, account, "username", user);
        j_put_text(a, account, "password", password);
        j_append(accounts, account);
    }
    j_set(a, basic, "hash", algorithm);
    if (json_array_size(accounts) > 0)
        j_set(a, basic, "accounts", accounts);
    if (count == 2)
        j_put_text(a, basic, "realm", args[1]);
    j_set(a, basic, "hash_cache", j_object(a));
    *handler = j_object(a);
    j_set(a, j_at(a, *handler, "providers"), "http_basic", basic);
    return OK;
}
