/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs an issuer's module as the certificate manager does, for tests/acme_test.py: one JSON document
 * as argument, one line of JSON for each result.
 *
 *   {"storage": "/tmp/x", "issuer": {"module": "acme", …}, "action": "issue", "names": ["a.example"],
 *    "attempt": 0, "replaces": "", "parallel": 1, "http_port": 5002, "https_port": 5001,
 *    "key": "/tmp/key.pem", "tls": {…}, "cancel_ms": 0}
 *
 * Actions: issue, revoke ("chain": PEM), window ("ari_id"), contacts ("contacts": […]), change_key,
 * deactivate, binding (an account with ZeroSSL's credentials).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "certs/acme_account.h"
#include "certs/certs_modules.h"
#include "certs/dns_provider.h"
#include "certs/issuance.h"
#include "certs/zerossl_api.h"
#include "client/fetch.h"
#include "config/jsonx.h"
#include "loop/await.h"
#include "loop/offload.h"
#include "net/resolver.h"
#include "pki/certificate.h"
#include "tls/stream.h"
#include "tls/tls_server.h"

static const struct module *const modules[] = {&issuer_acme, &issuer_zerossl, &dns_provider_exec,
                                              NULL};

static struct {
    json_t *task;
    const struct issuer_type *issuer;
    void *cfg;
    struct storage *storage;
    unsigned running;
    struct timer cancel;
    struct fiber *fibers[64];
    unsigned fibers_count;
} driver;

static struct slice text(const char *key)
{
    return slice_from(json_string_value(json_object_get(driver.task, key)));
}

static void put_text(json_t *o, const char *key, struct slice value)
{
    json_object_set_new(o, key, jsonx_string(value));
}

static void print(json_t *o)
{
    char *line = json_dumps(o, JSON_COMPACT);
    printf("%s\n", line);
    fflush(stdout);
    free(line);
    json_decref(o);
}

static void print_result(enum err e, const struct issue_result *r, const struct slice *key)
{
    static const char *const kinds[] = {"transient", "rate_limited", "rejected"};
    json_t *o = json_object();
    json_object_set_new(o, "ok", json_boolean(e == OK));
    if (e == OK) {
        put_text(o, "chain", r->chain_pem);
        put_text(o, "metadata", r->metadata);
        if (key != NULL)
            put_text(o, "key", *key);
    } else {
        put_text(o, "error", slice_from(err_text(e)));
        put_text(o, "why", slice_from(r->why));
        put_text(o, "kind", slice_from(kinds[r->kind]));
        json_object_set_new(o, "retry_after", json_real((double)r->retry_after_ns / 1e9));
    }
    json_object_set_new(o, "stack", json_integer((json_int_t)fiber_stack_used(fiber_self())));
    print(o);
}

static size_t read_names(struct arena *a, struct slice **names)
{
    const json_t *array = json_object_get(driver.task, "names");
    size_t count = json_array_size(array);
    *names = ARENA_ARRAY(a, struct slice, count);
    for (size_t i = 0; i < count; i++)
        (*names)[i] = slice_from(json_string_value(json_array_get(array, i)));
    return count;
}

struct making {
    struct issue_request *request;
    struct buffer *der, *pem;
    enum err result;
};

static void make_request(void *arg)
{
    struct making *m = arg;
    struct evp_pkey_st *key;
    m->result = key_generate(KEY_P256, &key);
    if (m->result == OK)
        m->result = csr_make(key, m->request->names, m->request->names_count, false, m->der);
    if (m->result == OK)
        m->result = key_put_pem(m->pem, key);
    key_free(key);
}

static void issue(struct arena *a)
{
    struct issue_request r = {
        .storage = driver.storage, .replaces = text("replaces"),
        .attempt = (unsigned)json_integer_value(json_object_get(driver.task, "attempt"))};
    struct issue_result *result = ARENA_NEW(a, struct issue_result);
    struct slice *names;
    struct buffer der, pem;
    r.names_count = read_names(a, &names);
    r.names = names;
    buffer_init(&der, 1 << 20);
    buffer_init(&pem, 1 << 20);
    struct making m = {&r, &der, &pem, OK};
    await_on_loop(make_request, &m);
    r.csr_der = buffer_slice(&der);
    enum err e = m.result == OK ? driver.issuer->issue(driver.cfg, &r, a, result) : m.result;
    struct slice key = buffer_slice(&pem);
    print_result(e, result, &key);
    buffer_deinit(&der);
    buffer_deinit(&pem);
}

static void revoke(struct arena *a)
{
    struct issue_result *result = ARENA_NEW(a, struct issue_result);
    enum err e = driver.issuer->revoke(driver.cfg, text("chain"), SLICE(""), 1, driver.storage, a,
                                       result);
    print_result(e, result, NULL);
}

static void window(struct arena *a)
{
    struct renewal_window w;
    struct slice id = text("ari_id");
    struct certificate_facts *facts = ARENA_NEW(a, struct certificate_facts);
    char why[256];
    if (id.len == 0 && certificate_read(text("chain"), a, facts, why, sizeof why) == OK)
        id = facts->ari_id;
    enum err e = driver.issuer->window(driver.cfg, id, driver.storage, a, &w);
    json_t *o = json_object();
    json_object_set_new(o, "ok", json_boolean(e == OK));
    put_text(o, "error", slice_from(err_text(e)));
    put_text(o, "ari_id", id);
    json_object_set_new(o, "start", json_integer(w.start_s));
    json_object_set_new(o, "end", json_integer(w.end_s));
    json_object_set_new(o, "look_again", json_integer((json_int_t)(w.look_again_ns / NS_PER_S)));
    put_text(o, "explanation", w.explanation_url);
    print(o);
}

static enum err change(struct acme *c, const struct acme_account_options *o,
                       struct acme_account *acc, struct arena *a)
{
    struct slice action = text("action"), contacts[8];
    const json_t *array = json_object_get(driver.task, "contacts");
    size_t count = 0;
    for (; count < 8 && count < json_array_size(array); count++)
        contacts[count] = slice_from(json_string_value(json_array_get(array, count)));
    if (slice_is(action, "contacts"))
        return acme_account_set_contacts(c, o, acc, contacts, count);
    if (slice_is(action, "deactivate"))
        return acme_account_deactivate(c, o, acc);
    if (slice_is(action, "binding"))
        return OK; /* the account was opened with it */
    return acme_account_change_key(c, o, acc);
}

static void change_account(struct arena *a)
{
    const json_t *issuer = json_object_get(driver.task, "issuer");
    struct acme_options options = {
        .directory = slice_from(json_string_value(json_object_get(issuer, "ca")))};
    struct acme_account_options o = {
        .storage = driver.storage,
        .email = slice_from(json_string_value(json_object_get(issuer, "email"))),
        .zerossl = slice_is(text("action"), "binding")};
    struct acme *c = ARENA_NEW(a, struct acme);
    struct acme_account acc = {0};
    struct issue_result *result = ARENA_NEW(a, struct issue_result);
    enum err e = acme_begin(c, &options, a);
    if (e == OK)
        e = acme_account_open(c, &o, &acc);
    if (e == OK)
        e = change(c, &o, &acc, a);
    snprintf(result->why, sizeof result->why, "%s", c->why);
    print_result(e, result, NULL);
    acme_account_close(&acc);
    acme_end(c);
}

static void run(void *arg)
{
    struct arena a;
    struct slice action = text("action");
    arena_init(&a, 16384);
    driver.fibers[driver.fibers_count++] = fiber_self();
    if (slice_is(action, "issue"))
        issue(&a);
    else if (slice_is(action, "revoke"))
        revoke(&a);
    else if (slice_is(action, "window"))
        window(&a);
    else
        change_account(&a);
    arena_deinit(&a);
    if (--driver.running == 0)
        loop_stop(loop_self());
}

static void on_cancel(struct timer *t)
{
    for (unsigned i = 0; i < driver.fibers_count; i++)
        fiber_cancel(driver.fibers[i], ERR_CANCELLED);
}

static bool setup(struct arena *a, struct provision *p)
{
    const json_t *issuer = json_object_get(driver.task, "issuer");
    const struct module *module;
    *p = (struct provision){
        .arena = a, .modules = modules, .path = SLICE("issuer"),
        .http_port = (uint16_t)json_integer_value(json_object_get(driver.task, "http_port")),
        .https_port = (uint16_t)json_integer_value(json_object_get(driver.task, "https_port")),
        .tls = json_object_get(driver.task, "tls")};
    driver.storage = storage_open_files(text("storage"));
    const char *name = json_string_value(json_object_get(issuer, "module"));
    if (provision_module(p, "tls.issuance", name, issuer, &module, &driver.cfg) != OK) {
        fprintf(stderr, "%s\n", p->error);
        return false;
    }
    driver.issuer = module->face;
    return true;
}

static void start(struct loop *loop)
{
    json_int_t parallel = json_integer_value(json_object_get(driver.task, "parallel"));
    json_int_t cancel_ms = json_integer_value(json_object_get(driver.task, "cancel_ms"));
    driver.running = parallel > 0 ? (unsigned)parallel : 1;
    for (unsigned i = driver.running; i > 0; i--)
        if (fiber_start(loop, run, NULL) != OK)
            abort();
    timer_init(&driver.cancel, on_cancel);
    if (cancel_ms > 0)
        timer_start(loop, &driver.cancel, clock_mono_ns() + (uint64_t)cancel_ms * NS_PER_MS);
}

int main(int argc, char **argv)
{
    struct loop *loop;
    struct arena a;
    struct provision p;
    enum loop_kind kind = getenv("PORTICO_IO") == NULL ? LOOP_AUTO :
                          strcmp(getenv("PORTICO_IO"), "epoll") == 0 ? LOOP_EPOLL : LOOP_URING;
    driver.task = argc == 2 ? json_loads(argv[1], 0, NULL) : NULL;
    if (driver.task == NULL || loop_create(kind, &loop) != OK)
        return 2;
    if (text("zerossl").len > 0)
        zerossl_base_url = json_string_value(json_object_get(driver.task, "zerossl"));
    arena_init(&a, 65536);
    if (setup(&a, &p)) {
        start(loop);
        loop_run(loop);
        timer_stop(&driver.cancel);
    }
    for (struct provision_release *r = p.releases; r != NULL; r = r->next)
        r->release(r->cfg);
    driver.storage->type->close(driver.storage);
    acme_thread_deinit();
    fetch_thread_deinit();
    resolver_thread_deinit();
    loop_settle(loop);
    tls_server_thread_deinit();
    stream_thread_deinit();
    loop_destroy(loop);
    offload_stop();
    arena_deinit(&a);
    json_decref(driver.task);
    return 0;
}
