/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The app "pki" and who uses it: what is accepted and what is refused, the internal issuer, trust in
 * own authorities, the authorities of the configuration that runs.
 */
#include <ftw.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/test.h"
#include "certs/certs_modules.h"
#include "certs/issuance.h"
#include "certs/pki_app.h"
#include "http/tls_modules.h"
#include "loop/await.h"

static char folder[64];
static struct arena arena;
static struct storage *storage;
static struct provision p;
static const struct module *const modules[] = {&issuer_internal, &trust_pki_root,
                                               &trust_pki_intermediate, NULL};

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    return remove(path);
}

static void clean_up(void)
{
    if (folder[0] != '\0')
        nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void begin(void)
{
    if (folder[0] == '\0')
        atexit(clean_up);
    log_set_threshold(LOG_FATAL);
    snprintf(folder, sizeof folder, "/tmp/portico-pki-app-XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
    arena_init(&arena, 4096);
    storage = storage_open_files(slice_from(folder));
    p = (struct provision){.arena = &arena, .modules = modules, .storage = storage};
}

static void release_all(void)
{
    for (struct provision_release *r = p.releases; r != NULL; r = r->next)
        r->release(r->cfg);
    p.releases = NULL;
}

static void end(void)
{
    release_all();
    storage->type->close(storage);
    arena_deinit(&arena);
    clean_up();
}

static enum err provision(const char *text)
{
    json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
    CHECK(json != NULL);
    p.error[0] = '\0';
    enum err e = pki_provision(&p, json);
    json_decref(json);
    return e;
}

static bool has_file(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/pki/authorities/%s", folder, name);
    return access(path, F_OK) == 0;
}

TEST("an app without authorities has the default one; no app has none until it is asked for")
{
    struct authority *a;
    begin();
    CHECK_OK(provision("null"));
    CHECK(!pki_configured(&p));
    CHECK(!has_file("local"));
    CHECK_OK(pki_authority(&p, SLICE("local"), &a));
    CHECK(has_file("local/root.key"));
    CHECK_INT(pki_authority(&p, SLICE("other"), &a), ERR_INVALID);
    CHECK(strstr(p.error, "no certificate authority configured with id: other") != NULL);
    release_all();
    CHECK_OK(provision("{}"));
    CHECK(pki_configured(&p));
    CHECK_OK(pki_authority(&p, SLICE("local"), &a));
    end();
}

TEST("every member is read, placeholders of names are replaced")
{
    struct authority *a;
    struct certificate_facts f;
    char why[200];
    begin();
    CHECK_OK(provision("{\"certificate_authorities\": {\"My CA\": {\"name\": \"My {x} Own\","
                       " \"root_common_name\": \"{pki.ca.name} {time.now.year}{pki.ca.name}\","
                       " \"intermediate_common_name\": \"Inter {env.NONE}{pki.ca.name}\","
                       " \"intermediate_lifetime\": \"48h\", \"install_trust\": false,"
                       " \"maintenance_interval\": 60000000000, \"renewal_window_ratio\": 0.5,"
                       " \"root\": null, \"storage\": null}}}"));
    CHECK(has_file("my_ca/intermediate.key"));
    CHECK(!has_file("local"));
    CHECK_OK(pki_authority(&p, SLICE("My CA"), &a));
    CHECK_OK(certificate_read(authority_root_pem(a), &arena, &f, why, sizeof why));
    CHECK(slice_starts(f.common_name, SLICE("My {x} Own 2")));
    CHECK(slice_ends(f.common_name, SLICE("My {x} Own")));
    CHECK_OK(certificate_read(authority_chain_pem(a), &arena, &f, why, sizeof why));
    CHECK_TEXT(f.common_name, "Inter My {x} Own");
    CHECK_INT(f.not_after_s - f.not_before_s, 48 * 3600);
    CHECK_INT(authority_options(a)->maintenance_interval_ns, INT64_C(60000000000));
    end();
}

TEST("what is wrong is refused with its place")
{
    static const char *const rows[][2] = {
        {"[]", "apps.pki: must be an object"},
        {"{\"x\": 1}", "unknown member \"x\""},
        {"{\"certificate_authorities\": []}", "\"certificate_authorities\" must be an object"},
        {"{\"certificate_authorities\": {\"\": {}}}", "CA ID is required"},
        {"{\"certificate_authorities\": {\"a\": []}}",
         "apps.pki.certificate_authorities.a: must be an object"},
        {"{\"certificate_authorities\": {\"a\": {\"nam\": \"x\"}}}", "unknown member \"nam\""},
        {"{\"certificate_authorities\": {\"a\": {\"name\": 1}}}", "\"name\" must be a string"},
        {"{\"certificate_authorities\": {\"a\": {\"install_trust\": 1}}}", "\"install_trust\" must be"},
        {"{\"certificate_authorities\": {\"a\": {\"intermediate_lifetime\": \"x\"}}}",
         "must be a duration"},
        {"{\"certificate_authorities\": {\"a\": {\"intermediate_lifetime\": -1}}}", "must be positive"},
        {"{\"certificate_authorities\": {\"a\": {\"intermediate_lifetime\": \"5ms\"}}}",
         "must be a second at least"},
        {"{\"certificate_authorities\": {\"a\": {\"intermediate_lifetime\": \"9000d\"}}}",
         "lifetime must be less than"},
        {"{\"certificate_authorities\": {\"a\": {\"renewal_window_ratio\": \"x\"}}}",
         "\"renewal_window_ratio\" must be a number"},
        {"{\"certificate_authorities\": {\"a\": {\"root\": {\"format\": \"der\"}}}}",
         "a.root: unsupported format: der"},
        {"{\"certificate_authorities\": {\"a\": {\"root\": {}}}}", "\"certificate\" is missing"},
        {"{\"certificate_authorities\": {\"a\": {\"root\": {\"certificate\": \"/none\"}}}}",
         "opening /none: No such file or directory"},
        {"{\"certificate_authorities\": {\"a\": {\"storage\": {\"module\": \"x\"}}}}",
         "a.storage: unknown module: caddy.storage.x"},
    };
    begin();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_INT(provision(rows[i][0]), ERR_INVALID);
        if (strstr(p.error, rows[i][1]) == NULL)
            test_fail(__FILE__, __LINE__, "%s: %s", rows[i][0], p.error);
        release_all();
    }
    end();
}

static const struct module *load(const char *space, const char *name, const char *text, void **cfg)
{
    const struct module *m;
    json_t *json = json_loads(text, 0, NULL);
    enum err e = provision_module(&p, space, name, json, &m, cfg);
    json_decref(json);
    return e == OK ? m : NULL;
}

TEST("the internal issuer issues by the authority it names, and has Caddy's folder")
{
    struct slice names[] = {SLICE("localhost")};
    struct certificate_facts f;
    struct evp_pkey_st *key;
    struct buffer der;
    char why[200];
    void *cfg;
    begin();
    CHECK_OK(provision("{\"certificate_authorities\": {\"a\": {}}}"));
    const struct module *m = load("tls.issuance", "internal", "{\"module\": \"internal\"}", &cfg);
    CHECK(m != NULL);
    CHECK_TEXT(((const struct issuer_type *)m->face)->key(cfg, &arena), "local");
    m = load("tls.issuance", "internal", "{\"module\": \"internal\", \"ca\": \"a\","
             " \"lifetime\": \"2h\", \"sign_with_root\": true}", &cfg);
    CHECK(m != NULL);
    const struct issuer_type *type = m->face;
    CHECK_TEXT(type->key(cfg, &arena), "a");
    buffer_init(&der, 1 << 16);
    CHECK_OK(key_generate(KEY_P256, &key));
    CHECK_OK(csr_make(key, names, 1, false, &der));
    struct issue_request q = {.names = names, .names_count = 1, .csr_der = buffer_slice(&der),
                              .storage = storage};
    struct issue_result r = {0};
    CHECK_OK(type->issue(cfg, &q, &arena, &r));
    CHECK_OK(certificate_read(r.chain_pem, &arena, &f, why, sizeof why));
    CHECK_TEXT(f.names[0], "localhost");
    CHECK_INT(f.not_after_s - f.not_before_s, 2 * 3600);
    CHECK_INT(f.chain, 2);
    q.csr_der = SLICE("no request");
    CHECK_INT(type->issue(cfg, &q, &arena, &r), ERR_INVALID);
    CHECK_INT(r.kind, ISSUE_REJECTED);
    CHECK(r.why[0] != '\0');
    CHECK(load("tls.issuance", "internal", "{\"ca\": \"none\"}", &cfg) == NULL);
    CHECK(load("tls.issuance", "internal", "{\"x\": 1}", &cfg) == NULL);
    CHECK(load("tls.issuance", "internal", "{\"lifetime\": -5}", &cfg) == NULL);
    buffer_deinit(&der);
    key_free(key);
    end();
}

TEST("own authorities may be trusted where the app is configured")
{
    void *cfg;
    begin();
    CHECK_OK(provision("null"));
    CHECK(load("tls.ca_pool.source", "pki_root", "{\"authority\": [\"local\"]}", &cfg) == NULL);
    CHECK(strstr(p.error, "requires that a PKI app is configured") != NULL);
    CHECK_OK(provision("{}"));
    CHECK(load("tls.ca_pool.source", "pki_root", "{\"authority\": [\"local\"]}", &cfg) != NULL);
    CHECK_INT(((struct certificate_list *)cfg)->count, 1);
    CHECK(load("tls.ca_pool.source", "pki_intermediate", "{\"authority\": [\"local\"]}", &cfg) != NULL);
    CHECK_INT(((struct certificate_list *)cfg)->count, 1);
    CHECK(load("tls.ca_pool.source", "pki_root", "{\"authority\": [\"x\"]}", &cfg) == NULL);
    end();
}

static enum err found, missing;
static unsigned same;

static void look(void *arg)
{
    struct storage_why why;
    struct authority *a, *own;
    (void)arg;
    await_sleep(loop_now_ns(loop_self()) + 50000000); /* the timers have begun */
    found = pki_running(SLICE("local"), &a, &why);
    missing = pki_running(SLICE("none"), &own, &why);
    if (found == OK) {
        same = pki_authority(&p, SLICE("local"), &own) == OK && own == a;
        authority_unref(a);
    }
    pki_stop();
    loop_stop(loop_self());
}

static void run_loop(void)
{
    struct loop *loop;
    CHECK_OK(loop_create(LOOP_AUTO, &loop));
    pki_start(p.pki);
    CHECK_OK(fiber_start(loop, look, NULL));
    loop_run(loop);
    CHECK_INT(fiber_live(loop), 0);
    loop_destroy(loop);
}

TEST("authorities of the configuration that runs are found; the default one is made when asked for")
{
    begin();
    CHECK_OK(provision("{\"certificate_authorities\": {\"local\": {\"install_trust\": false}}}"));
    run_loop();
    CHECK_OK(found);
    CHECK_INT(missing, ERR_NOT_FOUND);
    CHECK_INT(same, 1);
    release_all();
    CHECK_OK(provision("{\"certificate_authorities\": {\"x\": {\"install_trust\": false}}}"));
    run_loop();
    CHECK_OK(found);
    CHECK_INT(same, 0);
    end();
}
