/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers are JSON with HTTP status 200, also where they tell an error: an answer with "error" in it,
 * or "success" that is false, is one. Ids become parts of paths: letters and digits only.
 */
#include "certs/zerossl_api.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "config/jsonx.h"
#include "http/uri.h"

enum { API_S = 120, BODY_MAX = 256 << 10, DEPTH_MAX = 16, ID_MAX = 64, PEM_LINE = 64 };

const char *zerossl_base_url = "https://api.zerossl.com";

static struct slice text(const json_t *j, const char *key, struct arena *a)
{
    return arena_copy(a, slice_from(json_string_value(json_object_get(j, key))));
}

/* --- requests --- */

static enum err tell_error(struct acme *c, const char *what, const json_t *j, int status)
{
    const json_t *error = json_object_get(j, "error");
    struct slice type = text(error, "type", c->arena);
    json_int_t code = json_integer_value(json_object_get(error, "code"));
    if (type.len == 0)
        type = SLICE("unknown");
    return acme_fail(c, ERR_FAILED, "%s: HTTP %d: API error %lld: " SLICE_FMT, what, status,
                     (long long)code, SLICE_ARG(slice_take(type, 200)));
}

static bool is_error(const json_t *j)
{
    const json_t *success = json_object_get(j, "success");
    return json_is_object(json_object_get(j, "error")) || json_is_false(success) ||
           (json_is_integer(success) && json_integer_value(success) == 0);
}

/* *json is a new reference. */
static enum err call(struct acme *c, const char *what, const struct fetch_request *request,
                     json_t **json)
{
    struct fetch_answer *answer = ARENA_NEW(c->arena, struct fetch_answer);
    *json = NULL;
    enum err e = fetch(request, c->arena, answer);
    if (e != OK)
        return acme_fail(c, e, "%s: %s", what, answer->why);
    json_t *j = NULL;
    if (!jsonx_too_deep(answer->body, DEPTH_MAX))
        j = jsonx_load(SLICE(""), answer->body, NULL);
    if (!json_is_object(j)) {
        json_decref(j);
        return acme_fail(c, ERR_INVALID, "%s: HTTP %d: the answer is not a JSON object", what,
                         answer->status);
    }
    if (is_error(j) || answer->status != 200) {
        e = tell_error(c, what, j, answer->status);
        json_decref(j);
        return e;
    }
    *json = j;
    return OK;
}

static enum err ask(struct acme *c, const struct zerossl_client *api, const char *what,
                    const char *method, struct slice path, struct slice body, json_t **json)
{
    struct field type = {SLICE("Content-Type"), SLICE("application/json")};
    struct fetch_request request = {.method = slice_from(method), .body = body, .fields = &type,
                                    .fields_count = body.len > 0, .timeout_ns = API_S * NS_PER_S,
                                    .proxy = c->options->proxy.url,
                                    .no_proxy = c->options->proxy.none,
                                    .answer_max = ACME_JSON_MAX};
    request.url = arena_printf(c->arena, "%s" SLICE_FMT "?access_key=" SLICE_FMT, zerossl_base_url,
                               SLICE_ARG(path), SLICE_ARG(query_escape(api->key, c->arena)));
    return call(c, what, &request, json);
}

static bool id_ok(struct slice id)
{
    for (size_t i = 0; i < id.len; i++) {
        char l = ascii_lower(id.ptr[i]);
        if (!(l >= 'a' && l <= 'z') && !(l >= '0' && l <= '9'))
            return false;
    }
    return id.len > 0 && id.len <= ID_MAX;
}

/* --- the binding --- */

static enum err take_binding(struct acme *c, const json_t *j, struct slice *id, struct slice *mac_key)
{
    *id = text(j, "eab_kid", c->arena);
    *mac_key = text(j, "eab_hmac_key", c->arena);
    return id->len > 0 && mac_key->len > 0 ? OK :
           acme_fail(c, ERR_FAILED, "failed getting EAB credentials: the answer lacks them");
}

enum err zerossl_binding(struct acme *c, struct slice email, struct slice *id, struct slice *mac_key)
{
    struct field type = {SLICE("Content-Type"), SLICE("application/x-www-form-urlencoded")};
    struct fetch_request request = {.method = SLICE("POST"), .fields = &type, .fields_count = 1,
                                    .proxy = c->options->proxy.url,
                                    .no_proxy = c->options->proxy.none,
                                    .answer_max = ACME_JSON_MAX};
    json_t *j;
    if (email.len == 0)
        return acme_fail(c, ERR_FAILED,
                         "your email address is required to use ZeroSSL's ACME endpoint");
    request.url = arena_printf(c->arena, "%s/acme/eab-credentials-email", zerossl_base_url);
    request.body = arena_join(c->arena, (struct slice[]){SLICE("email="),
                                                         query_escape(email, c->arena)}, 2);
    TRY(call(c, "failed getting EAB credentials", &request, &j));
    enum err e = take_binding(c, j, id, mac_key);
    json_decref(j);
    return e;
}

/* --- certificates --- */

static struct slice lines(const json_t *array, struct arena *a)
{
    struct slice all = SLICE("");
    for (size_t i = 0; i < json_array_size(array) && i < ZEROSSL_PROOFS_MAX; i++) {
        struct slice one = slice_from(json_string_value(json_array_get(array, i)));
        all = i == 0 ? arena_copy(a, one) : arena_join(a, (struct slice[]){all, SLICE("\n"), one}, 3);
    }
    return all;
}

static struct slice without_dot(struct slice name)
{
    return slice_ends(name, SLICE(".")) ? slice_take(name, name.len - 1) : name;
}

static void take_proofs(const json_t *j, struct arena *a, struct zerossl_certificate *out)
{
    json_t *methods = json_object_get(json_object_get(j, "validation"), "other_methods"), *one;
    const char *name;
    size_t max = json_object_size(methods);
    if (max > ZEROSSL_PROOFS_MAX)
        max = ZEROSSL_PROOFS_MAX;
    out->proofs = ARENA_ARRAY(a, struct zerossl_proof, max);
    json_object_foreach(methods, name, one)
        if (out->proofs_count < max)
            out->proofs[out->proofs_count++] = (struct zerossl_proof){
                .url = text(one, "file_validation_url_http", a),
                .content = lines(json_object_get(one, "file_validation_content"), a),
                .cname = without_dot(text(one, "cname_validation_p1", a)),
                .target = without_dot(text(one, "cname_validation_p2", a))};
}

/* Takes the reference. */
static enum err take_certificate(struct acme *c, json_t *j, struct zerossl_certificate *out)
{
    struct buffer b;
    *out = (struct zerossl_certificate){.id = text(j, "id", c->arena),
                                        .status = text(j, "status", c->arena)};
    buffer_init(&b, ACME_JSON_MAX);
    if (jsonx_dump(&b, j) == OK)
        out->json = arena_copy(c->arena, buffer_slice(&b));
    buffer_deinit(&b);
    take_proofs(j, c->arena, out);
    json_decref(j);
    return id_ok(out->id) ? OK : acme_fail(c, ERR_INVALID, "the certificate that came back has no id");
}

static void put_csr(struct buffer *b, struct slice der)
{
    struct buffer encoded;
    buffer_init(&encoded, BODY_MAX);
    b->full |= base64_encode(&encoded, der) != OK;
    (void)BUFFER_PUT(b, "\"certificate_csr\":\"-----BEGIN CERTIFICATE REQUEST-----\\n");
    for (size_t i = 0; i < encoded.len; i += PEM_LINE) {
        (void)buffer_append(b, slice_take(slice_skip(buffer_slice(&encoded), i), PEM_LINE));
        (void)BUFFER_PUT(b, "\\n");
    }
    (void)BUFFER_PUT(b, "-----END CERTIFICATE REQUEST-----\\n\"");
    buffer_deinit(&encoded);
}

static void put_request(struct buffer *b, struct slice csr_der, const struct slice *names,
                        size_t count, int64_t validity_days)
{
    (void)BUFFER_PUT(b, "{\"certificate_domains\":\"");
    for (size_t i = 0; i < count; i++) {
        (void)buffer_append(b, i > 0 ? SLICE(",") : SLICE(""));
        (void)buffer_append(b, names[i]); /* names of certificates need no escape */
    }
    (void)BUFFER_PUT(b, "\",");
    put_csr(b, csr_der);
    if (validity_days > 0)
        (void)buffer_append_f(b, ",\"certificate_validity_days\":%lld", (long long)validity_days);
    (void)BUFFER_PUT(b, ",\"strict_domains\":1}");
}

enum err zerossl_create(struct acme *c, const struct zerossl_client *api, struct slice csr_der,
                        const struct slice *names, size_t count, int64_t validity_days,
                        struct zerossl_certificate *out)
{
    struct buffer b;
    json_t *j;
    buffer_init(&b, BODY_MAX);
    put_request(&b, csr_der, names, count, validity_days);
    enum err e = b.full ? acme_fail(c, ERR_LIMIT, "the request for the certificate is too long") :
                          ask(c, api, "creating certificate", "POST", SLICE("/certificates"),
                              buffer_slice(&b), &j);
    buffer_deinit(&b);
    return e == OK ? take_certificate(c, j, out) : e;
}

static struct slice path_of(struct acme *c, struct slice id, const char *rest)
{
    return arena_join(c->arena, (struct slice[]){SLICE("/certificates/"), id, slice_from(rest)}, 3);
}

enum err zerossl_verify(struct acme *c, const struct zerossl_client *api, struct slice id,
                        bool by_cname, struct zerossl_certificate *out)
{
    json_t *j;
    TRY(ask(c, api, "verifying identifiers", "POST", path_of(c, id, "/challenges"),
            by_cname ? SLICE("{\"validation_method\":\"CNAME_CSR_HASH\"}") :
                       SLICE("{\"validation_method\":\"HTTP_CSR_HASH\"}"), &j));
    return take_certificate(c, j, out);
}

enum err zerossl_get(struct acme *c, const struct zerossl_client *api, struct slice id,
                     struct zerossl_certificate *out)
{
    json_t *j;
    TRY(ask(c, api, "waiting for certificate to be issued", "GET", path_of(c, id, ""), SLICE(""), &j));
    return take_certificate(c, j, out);
}

enum err zerossl_download(struct acme *c, const struct zerossl_client *api, struct slice id,
                          struct slice *chain_pem)
{
    json_t *j;
    TRY(ask(c, api, "downloading certificate", "GET", path_of(c, id, "/download/return"), SLICE(""),
            &j));
    *chain_pem = arena_join(c->arena, (struct slice[]){text(j, "certificate.crt", c->arena),
                                                       text(j, "ca_bundle.crt", c->arena)}, 2);
    json_decref(j);
    return OK;
}

void zerossl_cancel(struct acme *c, const struct zerossl_client *api, struct slice id)
{
    struct acme kept = *c;
    json_t *j = NULL;
    if (ask(c, api, "canceling certificate", "POST", path_of(c, id, "/cancel"), SLICE(""), &j) != OK)
        LOG(LOG_ERROR, "tls.issuance.zerossl", "unable to cancel certificate", LOG_STR("cert_id", id),
            LOG_CSTR("error", c->why));
    json_decref(j);
    *c = kept;
}
