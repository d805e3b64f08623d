/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Most are a list, on the line or in the block; a combined one holds others.
 */
#include "adapter/ca_pool.h"

#include "adapter/options.h"

static void add_words(struct adapt *a, struct dispenser *d, json_t *o, const char *key)
{
    while (dispenser_next_arg(d))
        j_add_to_list(a, o, slice_from(key), j_text(a, dispenser_val(d)));
}

static enum err unknown(struct dispenser *d)
{
    return dispenser_err_f(d, "unrecognized directive: " SLICE_FMT, SLICE_ARG(dispenser_val(d)));
}

/* "NAME words… { OPTION words… }", at least one word in all, but where `nothing` is NULL. */
static enum err list_pool(struct adapt *a, struct dispenser *d, json_t *o, const char *key,
                          const char *option, const char *nothing)
{
    int nesting;
    add_words(a, d, o, key);
    nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        if (!dispenser_val_is(d, option))
            return unknown(d);
        add_words(a, d, o, key);
    }
    if (json_object_size(o) == 0)
        return dispenser_err_f(d, "%s", nothing);
    return OK;
}

static enum err storage_pool(struct adapt *a, struct dispenser *d, json_t *o)
{
    int nesting;
    add_words(a, d, o, "pem_keys");
    nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        if (dispenser_val_is(d, "keys")) {
            add_words(a, d, o, "pem_keys");
        } else if (dispenser_val_is(d, "storage")) {
            json_t *storage;
            if (json_object_get(o, "storage") != NULL)
                return dispenser_err_f(d, "storage module already set");
            if (!dispenser_next_arg(d))
                return dispenser_arg_err(d);
            TRY(storage_read(a, d, &storage));
            j_set(a, o, "storage", storage);
        } else {
            return unknown(d);
        }
    }
    return OK;
}

static enum err pool_tls(struct adapt *a, struct dispenser *d, json_t *tls)
{
    int nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        struct slice name = dispenser_val(d);
        int64_t ns;
        json_t *pool;
        if (slice_is(name, "insecure_skip_verify")) {
            j_put_bool(a, tls, "insecure_skip_verify", true);
            continue;
        }
        if (!slice_is(name, "ca") && !slice_is(name, "handshake_timeout") &&
            !slice_is(name, "server_name") && !slice_is(name, "renegotiation"))
            return unknown(d);
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        struct slice value = dispenser_val(d);
        if (slice_is(name, "ca")) {
            TRY(ca_pool_read(a, d, value, &pool));
            j_set(a, tls, "ca", pool);
        } else if (slice_is(name, "handshake_timeout")) {
            TRY(read_duration(d, value, "bad timeout value", &ns));
            j_put_int(a, tls, "handshake_timeout", ns);
        } else if (slice_is(name, "renegotiation") && !slice_is(value, "never") &&
                   !slice_is(value, "once") && !slice_is(value, "freely")) {
            return dispenser_err_f(d, "unrecognized renegotiation level: " SLICE_FMT,
                                   SLICE_ARG(value));
        } else {
            j_put_text(a, tls, arena_str(a->arena, name), value);
        }
    }
    return OK;
}

static enum err http_pool(struct adapt *a, struct dispenser *d, json_t *o)
{
    int nesting;
    add_words(a, d, o, "endpoints");
    nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        if (dispenser_val_is(d, "endpoints")) {
            if (dispenser_count_remaining_args(d) == 0)
                return dispenser_arg_err(d);
            add_words(a, d, o, "endpoints");
        } else if (dispenser_val_is(d, "tls")) {
            if (json_object_get(o, "tls") != NULL)
                return dispenser_err_f(d, "tls block already defined");
            TRY(pool_tls(a, d, j_at(a, o, "tls")));
        } else {
            return unknown(d);
        }
    }
    return OK;
}

static enum err combined_pool(struct adapt *a, struct dispenser *d, json_t *o)
{
    int nesting = dispenser_nesting(d);
    while (dispenser_next_block(d, nesting)) {
        json_t *source;
        if (!dispenser_val_is(d, "source"))
            return unknown(d);
        if (!dispenser_next_arg(d))
            return dispenser_arg_err(d);
        TRY(ca_pool_read(a, d, dispenser_val(d), &source));
        j_add_to_list(a, o, SLICE("sources"), source);
    }
    return json_object_size(o) == 0 ? dispenser_err_f(d, "no sources specified") : OK;
}

static enum err read_pool(struct adapt *a, struct dispenser *d, struct slice name, json_t *o)
{
    bool bare = slice_is(name, "inline") || slice_is(name, "system") || slice_is(name, "combined");
    dispenser_next(d);
    if (bare && dispenser_count_remaining_args(d) > 0)
        return dispenser_arg_err(d);
    if (slice_is(name, "inline"))
        return list_pool(a, d, o, "trusted_ca_certs", "trust_der", "no certificates specified");
    if (slice_is(name, "file"))
        return list_pool(a, d, o, "pem_files", "pem_file", "no certificates specified");
    if (slice_is(name, "pki_root") || slice_is(name, "pki_intermediate"))
        return list_pool(a, d, o, "authority", "authority", "no authorities specified");
    if (slice_is(name, "storage"))
        return storage_pool(a, d, o);
    if (slice_is(name, "http"))
        return http_pool(a, d, o);
    if (slice_is(name, "combined"))
        return combined_pool(a, d, o);
    return dispenser_next_block(d, 0)
               ? dispenser_err_f(d, "system trust pool does not support any configuration") : OK;
}

enum err ca_pool_read(struct adapt *a, struct dispenser *outer, struct slice name, json_t **pool)
{
    static const char *const known[] = {"combined", "file", "http", "inline", "pki_intermediate",
                                        "pki_root", "storage", "system"};
    json_t *o = j_object(a);
    size_t i = 0;
    while (i < sizeof known / sizeof *known && !slice_is(name, known[i]))
        i++;
    if (i == sizeof known / sizeof *known)
        return no_module(outer, "tls.ca_pool.source", name);
    struct dispenser d = dispenser_new_from_next_segment(outer);
    TRY(read_pool(a, &d, name, o));
    *pool = j_module(a, "provider", known[i], o);
    return OK;
}
