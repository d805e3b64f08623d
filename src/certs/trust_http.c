/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates of authorities that are fetched while the configuration is provisioned:
 *
 *     {"provider": "http", "endpoints": ["https://pki.example.com/roots.pem"],
 *      "tls": {"ca": {"provider": "file", …}, "server_name": "…", "insecure_skip_verify": false,
 *              "handshake_timeout": "5s", "renegotiation": "never"}}
 *
 * Provisioning waits for it, so a fetch has a short time; it runs on a thread and a loop of its own,
 * since those of the control thread are in use.
 */
#include <pthread.h>

#include "base/clock.h"
#include "base/pem.h"
#include "client/fetch.h"
#include "http/tls_modules.h"
#include "loop/fiber.h"
#include "loop/loop.h"
#include "net/resolver.h"

#define FETCH_NS (10 * NS_PER_S)

enum { BUNDLE_MAX = 4 << 20, ENDPOINTS_MAX = 32 };

struct errand { /* of the thread */
    struct loop *loop;
    const struct fetch_request *request;
    struct fetch_answer *answer;
    struct arena *arena; /* nobody else uses it meanwhile */
    enum err result;
};

static void go(void *arg)
{
    struct errand *e = arg;
    e->result = fetch(e->request, e->arena, e->answer);
    loop_stop(e->loop);
}

static void *run(void *arg)
{
    struct errand *e = arg;
    e->result = loop_create(LOOP_EPOLL, &e->loop);
    if (e->result != OK)
        return NULL;
    e->result = fiber_start(e->loop, go, e);
    if (e->result == OK)
        loop_run(e->loop);
    fetch_thread_deinit();
    resolver_thread_deinit();
    loop_settle(e->loop);
    loop_destroy(e->loop);
    return NULL;
}

static enum err fetch_all(struct certificate_list *list, struct slice url, struct tls_client *tls,
                          struct provision *p)
{
    pthread_t thread;
    struct fetch_answer *answer = ARENA_NEW(p->arena, struct fetch_answer);
    struct fetch_request request = {.url = url, .timeout_ns = FETCH_NS, .answer_max = BUNDLE_MAX,
                                    .redirects = 10, .tls = tls};
    struct errand errand = {.request = &request, .answer = answer, .arena = p->arena};
    const char *text = arena_str(p->arena, url);
    if (pthread_create(&thread, NULL, run, &errand) != 0)
        return provision_fail(p, "fetching %s: no thread is to be had", text);
    pthread_join(thread, NULL);
    if (errand.result != OK)
        return provision_fail(p, "fetching %s: %s", text,
                              answer->why[0] != '\0' ? answer->why : err_text(errand.result));
    if (answer->status < 200 || answer->status >= 300)
        return provision_fail(p, "HTTP %d fetching CA certificate bundle from %s", answer->status,
                              text);
    return certificate_list_add_pem(list, answer->body, false, text, p);
}

/* --- options of the connection --- */

static enum err read_roots(struct tls_client_options *o, const json_t *ca, struct provision *p)
{
    struct certificate_list list = {0};
    struct buffer pem;
    if (ca == NULL || json_is_null(ca))
        return OK;
    TRY(trust_pool_provision(&list, ca, p));
    o->roots_pem = ARENA_ARRAY(p->arena, struct slice, list.count + 1);
    buffer_init(&pem, BUNDLE_MAX);
    for (size_t i = 0; i < list.count; i++) {
        buffer_clear(&pem);
        (void)!pem_put(&pem, "CERTIFICATE", list.ders[i]);
        o->roots_pem[o->roots_count++] = arena_copy(p->arena, buffer_slice(&pem));
    }
    buffer_deinit(&pem);
    return OK;
}

static enum err read_renegotiation(struct tls_client_options *o, const json_t *json,
                                   struct provision *p)
{
    struct slice level;
    TRY(provision_text(p, json, "renegotiation", SLICE("never"), &level));
    o->renegotiate_once = slice_is(level, "once");
    o->renegotiate_freely = slice_is(level, "freely");
    if (level.len > 0 && !slice_is(level, "never") && !o->renegotiate_once && !o->renegotiate_freely)
        return provision_fail(p, "invalid TLS renegotiation level: " SLICE_FMT, SLICE_ARG(level));
    return OK;
}

static enum err read_tls(struct tls_client **out, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"ca", "insecure_skip_verify", "handshake_timeout",
                                        "server_name", "renegotiation", NULL};
    struct tls_client_options o = {0};
    int64_t timeout; /* the whole fetch has one */
    char why[512] = "";
    *out = NULL;
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(provision_members(p, json, known));
    TRY(read_roots(&o, json_object_get(json, "ca"), p));
    TRY(provision_bool(p, json, "insecure_skip_verify", false, &o.insecure));
    TRY(provision_duration(p, json, "handshake_timeout", 0, &timeout));
    TRY(provision_text(p, json, "server_name", SLICE_NONE, &o.server_name));
    TRY(read_renegotiation(&o, json, p));
    if (tls_client_create(&o, out, why, sizeof why) != OK)
        return provision_fail(p, "\"tls\": %s", why);
    return OK;
}

static enum err provision_http(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"provider", "endpoints", "tls", NULL};
    struct slice *urls;
    struct tls_client *tls;
    size_t count;
    enum err e = OK;
    TRY(provision_members(p, json, known));
    TRY(provision_texts(p, json, "endpoints", &urls, &count));
    if (count > ENDPOINTS_MAX)
        return provision_fail(p, "more than %d endpoints", ENDPOINTS_MAX);
    TRY(read_tls(&tls, json_object_get(json, "tls"), p));
    for (size_t i = 0; i < count && e == OK; i++)
        e = fetch_all(cfg, urls[i], tls, p);
    tls_client_unref(tls);
    return e;
}

const struct module trust_http = {.id = "tls.ca_pool.source.http",
                                  .cfg_size = sizeof(struct certificate_list),
                                  .provision = provision_http};
