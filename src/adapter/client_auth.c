/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates in PEM files are read while adapting, as Caddy does, and stand in the JSON as
 * base64 of their DER form.
 */
#include "adapter/client_auth.h"

#include <errno.h>
#include <stdio.h>

#include "adapter/ca_pool.h"
#include "adapter/mocks.h"
#include "base/log.h"
#include "base/text.h"

enum { PEM_MAX = 4 << 20 };

/* --- PEM --- */

static enum err read_file(struct adapt *a, struct dispenser *d, struct slice name,
                          struct slice *out)
{
    const char *path = arena_str(a->arena, name);
    FILE *f = a->alone ? NULL : fopen(path, "re");
    if (f == NULL)
        return dispenser_err_f(d, "open %s: %s", path,
                               a->alone ? "no file may be opened here" : strerror(errno));
    char *bytes = arena_alloc(a->arena, PEM_MAX);
    size_t n = fread(bytes, 1, PEM_MAX, f);
    bool failed = ferror(f) != 0;
    fclose(f);
    if (failed || n == PEM_MAX)
        return dispenser_err_f(d, "read %s: %s", path,
                               failed ? "cannot be read" : "larger than 4 MiB");
    *out = slice_of(bytes, n);
    return OK;
}

/* One block's body, in one line and checked. */
static bool put_der(struct adapt *a, struct slice body, json_t *list)
{
    struct buffer text, der;
    buffer_init(&text, PEM_MAX);
    buffer_init(&der, PEM_MAX);
    for (size_t i = 0; i < body.len; i++)
        if (strchr(" \t\r\n", body.ptr[i]) == NULL)
            buffer_append_byte(&text, body.ptr[i]);
    bool good = text.len > 0 && base64_decode(&der, buffer_slice(&text)) == OK;
    buffer_clear(&text);
    if (good && base64_encode(&text, buffer_slice(&der)) == OK)
        j_append_text(a, list, buffer_slice(&text));
    buffer_deinit(&text);
    buffer_deinit(&der);
    return good;
}

static enum err add_file(struct adapt *a, struct dispenser *d, struct slice name, json_t *list)
{
    static const struct slice begin = {"-----BEGIN ", 11}, dashes = {"-----", 5};
    struct slice text;
    size_t found = 0, at;
    TRY(read_file(a, d, name, &text));
    while ((at = slice_find_slice(text, begin)) != SIZE_MAX) {
        text = slice_skip(text, at + begin.len);
        size_t end_of_type = slice_find_slice(text, dashes);
        if (end_of_type == SIZE_MAX)
            break;
        struct slice type = slice_take(text, end_of_type);
        text = slice_skip(text, end_of_type + dashes.len);
        size_t end = slice_find_slice(text, SLICE("-----END "));
        if (end == SIZE_MAX)
            break;
        if (!slice_is(type, "CERTIFICATE") || !put_der(a, slice_take(text, end), list)) {
            found = 0;
            break;
        }
        found++;
        text = slice_skip(text, end);
    }
    if (found > 0)
        return OK;
    return dispenser_err_f(d, "no CERTIFICATE pem block found in " SLICE_FMT, SLICE_ARG(name));
}

/* --- verifiers --- */

static enum err leaf_loader(struct adapt *a, struct dispenser *outer, json_t *loaders)
{
    static const char *const known[][2] = {
        {"file", "files"}, {"folder", "folders"}, {"pem", "certificates"},
        {"storage", "certificates"}}; /* the last is ours: Caddy's has no form here */
    enum { KNOWN = sizeof known / sizeof *known };
    struct slice name = dispenser_val(outer);
    json_t *o = j_object(a);
    size_t i = 0;
    while (i < KNOWN && !slice_is(name, known[i][0]))
        i++;
    if (i == KNOWN)
        return no_module(outer, "tls.leaf_cert_loader", name);
    struct dispenser d = dispenser_new_from_next_segment(outer);
    dispenser_next_arg(&d);
    while (dispenser_next_arg(&d))
        j_add_to_list(a, o, slice_from(known[i][1]), j_text(a, dispenser_val(&d)));
    j_append(loaders, j_module(a, "loader", known[i][0], o));
    return OK;
}

static enum err leaf_verifier(struct adapt *a, struct dispenser *d, json_t *o)
{
    json_t *loaders = j_array(a);
    int nesting;
    dispenser_next_arg(d);
    if (dispenser_count_remaining_args(d) > 1) {
        dispenser_next_arg(d);
        TRY(leaf_loader(a, d, loaders));
    } else {
        nesting = dispenser_nesting(d);
        while (dispenser_next_block(d, nesting))
            TRY(leaf_loader(a, d, loaders));
    }
    if (json_array_size(loaders) > 0)
        j_set(a, o, "leaf_certs_loaders", loaders);
    return OK;
}

static enum err read_verifier(struct adapt *a, struct dispenser *d, json_t *o)
{
    json_t *verifier = j_object(a);
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    struct slice name = dispenser_val(d);
    bool dummy = adapter_has_mocks && slice_is(name, "dummy");
    if (!dummy && !slice_is(name, "leaf"))
        return no_module(d, "tls.client_auth.verifier", name);
    struct dispenser inner = dispenser_new_from_next_segment(d);
    if (!dummy)
        TRY(leaf_verifier(a, &inner, verifier));
    j_add_to_list(a, o, SLICE("verifiers"),
                  j_module(a, "verifier", dummy ? "dummy" : "leaf", verifier));
    return OK;
}

/* --- the block --- */

static enum err read_trusted(struct adapt *a, struct dispenser *d, json_t *o, json_t *authorities)
{
    bool ca = dispenser_val_is(d, "trusted_ca_cert") || dispenser_val_is(d, "trusted_ca_cert_file");
    bool file = dispenser_val_is(d, "trusted_ca_cert_file") ||
                dispenser_val_is(d, "trusted_leaf_cert_file");
    json_t *list = ca ? authorities : json_object_get(o, "trusted_leaf_certs");
    if (ca) {
        LOG(LOG_WARN, "", "The 'trusted_ca_cert' and 'trusted_ca_cert_file' fields are deprecated. "
                          "Use the 'trust_pool' field instead.");
        if (json_object_get(o, "ca") != NULL)
            return dispenser_err_f(d, "cannot specify both 'trust_pool' and 'trusted_ca_cert' or "
                                      "'trusted_ca_cert_file'");
    }
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    if (list == NULL) {
        list = j_array(a);
        j_set(a, o, "trusted_leaf_certs", list);
    }
    if (file)
        return add_file(a, d, dispenser_val(d), list);
    j_append_text(a, list, dispenser_val(d));
    return OK;
}

static enum err read_option(struct adapt *a, struct dispenser *d, json_t *o, json_t *authorities)
{
    if (dispenser_val_is(d, "mode")) {
        struct slice mode;
        if (!dispenser_all_args(d, &mode))
            return dispenser_arg_err(d);
        j_put_text(a, o, "mode", mode);
        return OK;
    }
    if (dispenser_val_is(d, "trusted_ca_cert") || dispenser_val_is(d, "trusted_ca_cert_file") ||
        dispenser_val_is(d, "trusted_leaf_cert") || dispenser_val_is(d, "trusted_leaf_cert_file"))
        return read_trusted(a, d, o, authorities);
    if (dispenser_val_is(d, "verifier"))
        return read_verifier(a, d, o);
    if (!dispenser_val_is(d, "trust_pool"))
        return dispenser_err_f(d, "unknown subdirective for client_auth: " SLICE_FMT,
                               SLICE_ARG(dispenser_val(d)));
    json_t *pool;
    if (json_array_size(authorities) > 0)
        return dispenser_err_f(d, "cannot specify both 'trust_pool' and 'trusted_ca_cert' or "
                                  "'trusted_ca_cert_file'");
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    if (ca_pool_read(a, d, dispenser_val(d), &pool) != OK)
        return dispenser_wrap_err(d, ERR_INVALID);
    j_set(a, o, "ca", pool);
    return OK;
}

enum err client_auth_read(struct adapt *a, struct dispenser *outer, json_t **out)
{
    static const char *const keys[] = {"ca", "trusted_leaf_certs", "verifiers", "mode", NULL};
    struct dispenser d = dispenser_new_from_next_segment(outer);
    json_t *o = j_object(a), *authorities = j_array(a);
    int nesting;
    while (dispenser_next_arg(&d))
        ;
    nesting = dispenser_nesting(&d);
    while (dispenser_next_block(&d, nesting))
        TRY(read_option(a, &d, o, authorities));
    if (json_array_size(authorities) > 0) {
        json_t *pool = j_object(a);
        j_set(a, pool, "trusted_ca_certs", authorities);
        j_set(a, o, "ca", j_module(a, "provider", "inline", pool));
    }
    *out = j_ordered(a, o, keys);
    return OK;
}
