/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers are JSON with HTTP status 200, also where they tell an error.
 */
#include "certs/zerossl_api.h"

#include "config/jsonx.h"
#include "http/uri.h"

const char *zerossl_base_url = "https://api.zerossl.com";

static struct slice text(const json_t *j, const char *key, struct arena *a)
{
    const char *value = json_string_value(json_object_get(j, key));
    return arena_copy(a, slice_from(value));
}

static enum err take_binding(struct acme *c, const json_t *j, int status, struct slice *id,
                             struct slice *mac_key)
{
    const json_t *error = json_object_get(j, "error");
    json_int_t code = json_integer_value(json_object_get(error, "code"));
    if (code != 0)
        return acme_fail(c, ERR_FAILED, "failed getting EAB credentials: HTTP %d: " SLICE_FMT
                         " (code %lld)", status,
                         SLICE_ARG(slice_take(text(error, "type", c->arena), 100)), (long long)code);
    *id = text(j, "eab_kid", c->arena);
    *mac_key = text(j, "eab_hmac_key", c->arena);
    if (status != 200 || id->len == 0 || mac_key->len == 0)
        return acme_fail(c, ERR_FAILED, "failed getting EAB credentials: HTTP %d", status);
    return OK;
}

enum err zerossl_binding(struct acme *c, struct slice email, struct slice *id, struct slice *mac_key)
{
    struct field type = {SLICE("Content-Type"), SLICE("application/x-www-form-urlencoded")};
    struct fetch_request request = {.method = SLICE("POST"), .fields = &type, .fields_count = 1,
                                    .no_proxy = c->options->no_proxy, .answer_max = ACME_JSON_MAX};
    struct fetch_answer *answer = ARENA_NEW(c->arena, struct fetch_answer);
    struct diag diag;
    if (email.len == 0)
        return acme_fail(c, ERR_FAILED,
                         "your email address is required to use ZeroSSL's ACME endpoint");
    request.url = arena_printf(c->arena, "%s/acme/eab-credentials-email", zerossl_base_url);
    request.body = arena_join(c->arena, (struct slice[]){SLICE("email="),
                                                         query_escape(email, c->arena)}, 2);
    enum err e = fetch(&request, c->arena, answer);
    if (e != OK)
        return acme_fail(c, e, "performing EAB credentials request: %s", answer->why);
    diag_clear(&diag);
    json_t *j = jsonx_too_deep(answer->body, 16) ? NULL : jsonx_load(SLICE(""), answer->body, &diag);
    if (j == NULL)
        return acme_fail(c, ERR_INVALID, "decoding API response: it is not JSON");
    e = take_binding(c, j, answer->status, id, mac_key);
    json_decref(j);
    return e;
}
