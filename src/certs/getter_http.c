/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls.get_certificate.http: the certificate for a handshake is asked from an endpoint, with the
 * name and what the client can do in the query. 200 brings the chain and the key in PEM, 204 means
 * that the endpoint does not look after that name.
 *
 *   {"via": "http", "url": "http://localhost:7000/certs"}
 */
#include <stdio.h>

#include "certs/automation.h"
#include "certs/certs_modules.h"
#include "certs/question.h"
#include "client/fetch.h"

enum { GETTER_ANSWER_MAX = 1 << 20 };

struct http_getter {
    struct slice url;
};

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"via", "url", NULL};
    struct http_getter *c = cfg;
    TRY(provision_members(p, json, known));
    TRY(provision_text(p, json, "url", SLICE_NONE, &c->url));
    if (c->url.len == 0)
        return provision_fail(p, "URL is required");
    return OK;
}

static enum err get(const void *cfg, const struct credential_ask *ask, struct arena *arena,
                    struct slice *pem, char *why, size_t cap)
{
    const struct http_getter *c = cfg;
    struct fetch_answer answer = {.status = 0};
    const struct question_pair pairs[] = {
        {SLICE("cipher_suites"), slice_from(ask->ciphers)},
        {SLICE("local_ip"), slice_from(ask->local)},
        {SLICE("server_name"), slice_from(ask->name)},
        {SLICE("signature_schemes"), slice_from(ask->schemes)}};
    struct fetch_request request = {
        .url = question_url(arena, c->url, pairs, sizeof pairs / sizeof pairs[0]),
        .answer_max = GETTER_ANSWER_MAX};
    enum err e = fetch(&request, arena, &answer);
    if (e != OK) {
        snprintf(why, cap, "%s", answer.why);
        return e == ERR_NOT_FOUND ? ERR_FAILED : e;
    }
    if (answer.status == 204)
        return ERR_NOT_FOUND;
    if (answer.status != 200) {
        snprintf(why, cap, "got HTTP %d", answer.status);
        return ERR_FAILED;
    }
    *pem = answer.body;
    return OK;
}

static const struct getter_type face = {get};

const struct module getter_http = {.id = "tls.get_certificate.http",
                                   .cfg_size = sizeof(struct http_getter),
                                   .provision = provision,
                                   .face = &face};
