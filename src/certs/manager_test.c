/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manager on a loop of its own, with an authority of the test and a storage in a folder of the
 * test. The clock is moved where time must pass.
 */
#include "certs/manager.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/test.h"
#include "certs/certs_modules.h"
#include "certs/manager_parts.h"
#include "certs/pending.h"
#include "certs/test_clock.h"
#include "certs/testing_authority.h"
#include "client/fetch.h"
#include "loop/offload.h"

/* --- what the product asks elsewhere --- */

static struct {
    unsigned fetched;
    int status;
} responder;

enum err fetch(const struct fetch_request *request, struct arena *arena, struct fetch_answer *answer)
{
    struct buffer der;
    responder.fetched++;
    answer->status = responder.status;
    if (responder.status == 0) {
        snprintf(answer->why, sizeof answer->why, "connection refused");
        return ERR_CLOSED;
    }
    if (responder.status != 200 || request->body.len == 0)
        return OK;
    buffer_init(&der, 65536);
    testing_ocsp_answer(request->body, &der);
    answer->body = arena_copy(arena, buffer_slice(&der));
    buffer_deinit(&der);
    return OK;
}

static struct {
    unsigned asked;
    enum err says;
} permission;

static enum err allows(const void *cfg, struct slice name, struct slice remote, char *why, size_t cap)
{
    (void)cfg;
    (void)name;
    (void)remote;
    permission.asked++;
    snprintf(why, cap, "the test says so");
    return permission.says;
}

static enum err no_members(void *cfg, const json_t *json, struct provision *p)
{
    (void)cfg;
    (void)json;
    (void)p;
    return OK;
}

static struct {
    unsigned asked;
    enum err says;
} getter;

static enum err get(const void *cfg, const struct credential_ask *ask, struct arena *arena,
                    struct slice *pem, char *why, size_t cap)
{
    struct buffer b;
    (void)cfg;
    getter.asked++;
    snprintf(why, cap, "the getter says so");
    if (getter.says != OK)
        return getter.says;
    buffer_init(&b, 65536);
    testing_certificate(slice_from(ask->name), 3600, &b, &b);
    *pem = arena_copy(arena, buffer_slice(&b));
    buffer_deinit(&b);
    return OK;
}

static const struct permission_type permission_face = {allows};
static const struct getter_type getter_face = {get};
static const struct module test_permission = {.id = "tls.permission.test", .cfg_size = 1,
                                              .provision = no_members, .face = &permission_face};
static const struct module test_getter = {.id = "tls.get_certificate.test", .cfg_size = 1,
                                          .provision = no_members, .face = &getter_face};

static const struct module *const modules[] = {&testing_acme, &testing_internal, &permission_http,
                                               &getter_http, &test_permission, &test_getter, NULL};

/* --- configurations --- */

struct config {
    struct arena arena;
    struct provision p;
    struct automation *automation;
    json_t *tls;
    bool gone;
};

static char folder[64];
static struct loop *loop;

static void free_config(void *owner)
{
    struct config *c = owner;
    for (struct provision_release *r = c->p.releases; r != NULL; r = r->next)
        r->release(r->cfg);
    json_decref(c->tls);
    arena_deinit(&c->arena);
    mem_free(c);
}

static enum err read_config(const char *tls, struct config **out)
{
    struct config *c = NEW(struct config);
    arena_init(&c->arena, 16384);
    c->p = (struct provision){.arena = &c->arena, .modules = modules};
    c->tls = json_loads(tls, 0, NULL);
    CHECK(c->tls != NULL);
    struct automation_origin o = {.tls = c->tls, .data_folder = slice_from(folder)};
    *out = c;
    return automation_provision(&c->p, &o, &c->automation);
}

static void adopt(const char *tls, const char *const *names)
{
    struct config *c;
    enum err e = read_config(tls, &c);
    if (e != OK)
        test_fail(__FILE__, __LINE__, "%s", c->p.error);
    for (; names != NULL && *names != NULL; names++)
        CHECK_OK(automation_add_name(&c->p, c->automation, slice_from(*names)));
    manager_adopt(c->automation, free_config, c);
}

#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

/* --- the loop --- */

static struct timer tick;
static uint64_t give_up_ns;
static bool (*condition)(void);
static bool met;

static void on_tick(struct timer *t)
{
    met = condition();
    if (met || clock_mono_ns() > give_up_ns)
        loop_stop(loop);
    else
        timer_start(loop, t, clock_mono_ns() + 2 * NS_PER_MS);
}

static bool run_for(bool (*until)(void), unsigned ms)
{
    condition = until;
    met = false;
    give_up_ns = clock_mono_ns() + ms * NS_PER_MS;
    timer_init(&tick, on_tick);
    timer_start(loop, &tick, clock_mono_ns());
    loop_run(loop);
    return met;
}

#define RUN_UNTIL(until) CHECK(run_for(until, 5000))

static bool never(void)
{
    return false;
}

static void on_stopped(void)
{
    loop_stop(loop);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
    (void)st;
    (void)flag;
    (void)f;
    return remove(path);
}

static log_sink drop_line;
static void drop_line(struct log_event *e)
{
    if (getenv("SHOW_LOG") != NULL)
        log_write_stderr(e);
}

static void end_process(void)
{
    manager_stop(on_stopped);
    loop_run(loop);
    CHECK_INT(fiber_live(loop), 0);
}

static void start_process(void)
{
    manager_start(loop);
}

static void setup(void)
{
    log_set_sink(drop_line);
    if (loop == NULL)
        CHECK_OK(loop_create(LOOP_AUTO, &loop));
    snprintf(folder, sizeof folder, "/tmp/manager_test.XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
    testing_authority_reset();
    responder.fetched = 0;
    responder.status = 200;
    permission.asked = getter.asked = 0;
    permission.says = OK;
    getter.says = ERR_NOT_FOUND;
    test_clock_hurry(1);
    atomic_store(&clock_shift_ns, 0);
    start_process();
}

static void finish(void)
{
    end_process();
    nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static bool stored(const char *key, struct buffer *b)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, key);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return false;
    if (b != NULL) {
        buffer_clear(b);
        CHECK_OK(buffer_reserve(b, 65536));
        ssize_t n = read(fd, b->ptr, 65536);
        b->len = n > 0 ? (size_t)n : 0;
    }
    close(fd);
    return true;
}

static void write_stored(const char *key, struct slice value)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, key);
    int fd = open(path, O_WRONLY | O_TRUNC | O_CREAT, 0600);
    CHECK(fd >= 0 && write(fd, value.ptr, value.len) == (ssize_t)value.len);
    close(fd);
}

static struct credential *have(const char *name)
{
    struct holding *h = holding_find(slice_from(name));
    return h != NULL ? h->credential : NULL;
}

static bool has_a(void)
{
    return have("a.example.com") != NULL && holding_find(SLICE("a.example.com"))->job == NULL;
}

#define SITE "certificates/ca.test-directory/a.example.com/a.example.com"

/* --- what is wanted at the start --- */

TEST("what is missing is obtained, and stands where certmagic has it")
{
    struct buffer b;
    setup();
    adopt("{}", NAMES("a.example.com"));
    CHECK(have("a.example.com") == NULL); /* the start waits for nobody */
    RUN_UNTIL(has_a);
    CHECK_INT(testing_authority.issued, 1);
    buffer_init(&b, 65536);
    CHECK(stored(SITE ".crt", &b) && slice_eq(buffer_slice(&b), credential_pem(have("a.example.com"))));
    CHECK(stored(SITE ".key", &b) && slice_starts(buffer_slice(&b), SLICE("-----BEGIN EC PRIVATE KEY")));
    CHECK(stored(SITE ".json", &b));
    CHECK_SLICE(buffer_slice(&b),
                SLICE("{\n\t\"sans\": [\n\t\t\"a.example.com\"\n\t],\n\t\"issuer_data\": {\n"
                      "\t\t\"url\": \"https://ca.test/cert/1\",\n"
                      "\t\t\"ca\": \"https://ca.test/directory\"\n\t}\n}"));
    CHECK(!stored("pending/a.example.com/request.der", NULL));
    CHECK(!stored("locks/issue_cert_a.example.com.lock", NULL));
    buffer_deinit(&b);
    finish();
}

TEST("what the storage has is there when a configuration is adopted, and is not asked for")
{
    setup();
    adopt("{}", NAMES("a.example.com"));
    RUN_UNTIL(has_a);
    end_process();
    start_process();
    adopt("{}", NAMES("a.example.com"));
    CHECK(has_a());
    run_for(never, 50);
    CHECK_INT(testing_authority.asked, 1);
    finish();
}

static bool asked_three(void)
{
    return testing_authority.asked >= 4 && has_a();
}

TEST("a failure is tried again, and harms no other name")
{
    setup();
    testing_authority.fails_for = SLICE("b.example.com");
    test_clock_hurry(60000); /* a minute is a millisecond */
    adopt("{}", NAMES("b.example.com", "a.example.com"));
    RUN_UNTIL(asked_three);
    CHECK(have("b.example.com") == NULL);
    struct job *job = holding_find(SLICE("b.example.com"))->job;
    CHECK(job != NULL && job->attempts >= 2);
    finish();
}

static bool renewed(void)
{
    return testing_authority.issued == 2 && has_a();
}

TEST("a due certificate is renewed with another key; connections keep the old one")
{
    setup();
    adopt("{}", NAMES("a.example.com"));
    RUN_UNTIL(has_a);
    struct credential *old = credential_ref(have("a.example.com"));
    atomic_store(&clock_shift_ns, 59 * 86400 * (int64_t)NS_PER_S);
    upkeep_now();
    run_for(never, 50);
    CHECK_INT(testing_authority.issued, 1);
    atomic_store(&clock_shift_ns, 61 * 86400 * (int64_t)NS_PER_S);
    upkeep_now();
    RUN_UNTIL(renewed);
    CHECK(have("a.example.com") != old);
    CHECK(testing_authority.replaces.len > 0);
    CHECK_SLICE(testing_authority.replaces, credential_facts(old)->ari_id);
    CHECK(credential_facts(old)->names_count == 1);
    credential_unref(old);
    finish();
}

static struct slice taken_over;

static bool has_taken_over(void)
{
    return slice_eq(credential_pem(have("a.example.com")), taken_over);
}

TEST("a certificate that another instance has renewed is taken over")
{
    struct buffer chain, key;
    setup();
    adopt("{}", NAMES("a.example.com"));
    RUN_UNTIL(has_a);
    atomic_store(&clock_shift_ns, 70 * 86400 * (int64_t)NS_PER_S);
    buffer_init(&chain, 65536);
    buffer_init(&key, 65536);
    testing_certificate(SLICE("a.example.com"), 90 * 86400, &chain, &key);
    write_stored(SITE ".crt", buffer_slice(&chain));
    write_stored(SITE ".key", buffer_slice(&key));
    upkeep_now();
    taken_over = buffer_slice(&chain);
    RUN_UNTIL(has_taken_over);
    CHECK_INT(testing_authority.asked, 1);
    buffer_deinit(&chain);
    buffer_deinit(&key);
    finish();
}

static bool has_both(void)
{
    return have("*.example.com") != NULL && have("b.example.com") != NULL;
}

TEST("names below a wildcard that is managed have none of their own, unless they are automated")
{
    setup();
    adopt("{\"certificates\":{\"automate\":[\"b.example.com\"]}}",
          NAMES("*.example.com", "a.example.com"));
    RUN_UNTIL(has_both);
    CHECK(holding_find(SLICE("a.example.com")) == NULL);
    CHECK(stored("certificates/ca.test-directory/wildcard_.example.com/wildcard_.example.com.crt",
                 NULL));
    finish();
}

TEST("names of a private network come from the local authority, and never from both")
{
    setup();
    adopt("{\"automation\":{\"policies\":[{\"subjects\":[\"a.example.com\"],"
          "\"issuers\":[{\"module\":\"internal\"}]}]}}", NAMES("a.example.com"));
    RUN_UNTIL(has_a);
    CHECK(stored("certificates/local/a.example.com/a.example.com.crt", NULL));
    CHECK(!stored("pending", NULL));
    struct credential *old = credential_ref(have("a.example.com"));
    adopt("{}", NAMES("a.example.com"));
    CHECK(have("a.example.com") == NULL);
    RUN_UNTIL(has_a);
    CHECK(have("a.example.com") != old);
    CHECK(stored(SITE ".crt", NULL));
    credential_unref(old);
    finish();
}

TEST("names that are gone are let go of, and their files stay")
{
    setup();
    adopt("{}", NAMES("a.example.com"));
    RUN_UNTIL(has_a);
    adopt("{}", NULL);
    CHECK(holding_find(SLICE("a.example.com")) == NULL);
    CHECK(stored(SITE ".crt", NULL));
    adopt("{}", NAMES("a.example.com"));
    CHECK(has_a());
    CHECK_INT(testing_authority.asked, 1);
    finish();
}

/* --- crashes --- */

TEST("what was begun before a crash is gone on with: the same request, not another one")
{
    struct buffer b;
    setup();
    testing_authority.failing = 1;
    adopt("{}", NAMES("a.example.com"));
    run_for(never, 100);
    CHECK_INT(testing_authority.asked, 1);
    buffer_init(&b, 65536);
    CHECK(stored("pending/a.example.com/request.der", &b));
    CHECK_SLICE(testing_authority.last_csr, buffer_slice(&b));
    end_process();
    start_process();
    adopt("{}", NAMES("a.example.com"));
    RUN_UNTIL(has_a);
    CHECK_SLICE(testing_authority.last_csr, buffer_slice(&b));
    buffer_deinit(&b);
    finish();
}

/* As if the process had died between two of its writes. */
static void break_off(unsigned written)
{
    struct buffer chain, key;
    struct storage_why why;
    struct storage *s = storage_open_files(slice_from(folder));
    struct pending p = {.kind = SLICE("0"), .csr_der = SLICE("request")};
    buffer_init(&chain, 65536);
    buffer_init(&key, 65536);
    testing_certificate(SLICE("a.example.com"), 90 * 86400, &chain, &key);
    p.key_pem = buffer_slice(&key);
    p.issued = (struct asset){buffer_slice(&chain), buffer_slice(&key), SLICE("null"),
                              SLICE("ca.test-directory")};
    CHECK_OK(pending_begin(s, SLICE("a.example.com"), &p, &why));
    CHECK_OK(pending_issued(s, SLICE("a.example.com"), &p.issued, &why));
    if (written > 0)
        write_stored(SITE ".key", p.key_pem);
    if (written > 1)
        write_stored(SITE ".crt", p.issued.chain_pem);
    buffer_deinit(&chain);
    buffer_deinit(&key);
    s->type->close(s);
}

TEST("a renewed certificate that a crash kept from its place is put there, and not asked for twice")
{
    for (unsigned written = 0; written < 3; written++) {
        struct buffer a, b;
        setup();
        adopt("{}", NAMES("a.example.com"));
        RUN_UNTIL(has_a);
        end_process();
        break_off(written);
        start_process();
        adopt("{}", NAMES("a.example.com"));
        CHECK(have("a.example.com") != NULL);
        atomic_store(&clock_shift_ns, (written == 0 ? 61 : 0) * 86400 * (int64_t)NS_PER_S);
        if (written == 0)
            break_off(0);
        upkeep_now();
        run_for(never, 200);
        CHECK_INT(testing_authority.asked, 1);
        buffer_init(&a, 65536);
        buffer_init(&b, 65536);
        CHECK(stored(SITE ".crt", &a) && stored(SITE ".key", &b));
        struct credential *c;
        struct credential_spec spec = {.chain_pem = buffer_slice(&a), .key_pem = buffer_slice(&b)};
        char why[256];
        CHECK_OK(credential_create(&spec, &c, why, sizeof why));
        credential_unref(c);
        buffer_deinit(&a);
        buffer_deinit(&b);
        finish();
    }
}

TEST("what is stored and no certificate is replaced by one")
{
    setup();
    adopt("{}", NAMES("a.example.com"));
    RUN_UNTIL(has_a);
    end_process();
    write_stored(SITE ".crt", SLICE("nonsense"));
    start_process();
    adopt("{}", NAMES("a.example.com"));
    CHECK(have("a.example.com") == NULL);
    RUN_UNTIL(has_a);
    CHECK_INT(testing_authority.asked, 2);
    finish();
}
