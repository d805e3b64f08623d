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
    char url[256];
} responder;

enum err fetch(const struct fetch_request *request, struct arena *arena, struct fetch_answer *answer)
{
    struct buffer der;
    responder.fetched++;
    snprintf(responder.url, sizeof responder.url, SLICE_FMT, SLICE_ARG(request->url));
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

/* --- the clock --- */

#ifdef LOOP_FAULTS
static void move_clock(int64_t seconds)
{
    atomic_store(&clock_shift_ns, seconds * (int64_t)NS_PER_S);
}

static void needs_clock(void)
{
}
#else
static void move_clock(int64_t seconds)
{
    (void)seconds;
}

static void needs_clock(void)
{
    test_skip("a release build's clock cannot be moved");
}
#endif

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
    move_clock(0);
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

static bool have_a(void)
{
    return have("a.example.com") != NULL;
}

static bool has_a(void)
{
    return have("a.example.com") != NULL && holding_find(SLICE("a.example.com"))->job == NULL;
}

static bool asked_one(void)
{
    return testing_authority.asked == 1;
}

/* Everybody has one, and nothing goes on. */
static bool settled(void)
{
    LIST_FOR(it, &manager.holdings)
    {
        const struct holding *h = CONTAINER_OF(it, struct holding, node);
        if (h->credential == NULL || h->job != NULL)
            return false;
    }
    return true;
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
    needs_clock();
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
    needs_clock();
    setup();
    adopt("{}", NAMES("a.example.com"));
    RUN_UNTIL(has_a);
    struct credential *old = credential_ref(have("a.example.com"));
    move_clock(59 * 86400);
    upkeep_now();
    run_for(never, 50);
    CHECK_INT(testing_authority.issued, 1);
    move_clock(61 * 86400);
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
    needs_clock();
    setup();
    adopt("{}", NAMES("a.example.com"));
    RUN_UNTIL(has_a);
    move_clock(70 * 86400);
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
    RUN_UNTIL(asked_one);
    run_for(never, 20);
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
    needs_clock();
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
        move_clock((written == 0 ? 61 : 0) * 86400);
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

/* --- handshakes that ask --- */

#define ON_DEMAND                                                                                  \
    "{\"automation\":{\"on_demand\":{\"permission\":{\"module\":\"test\"}},"                        \
    "\"policies\":[{\"on_demand\":true}]}}"

struct shake {
    struct credential_ask ask;
    struct mail mail;
    bool answered;
};

static void on_answer(struct mail *m)
{
    CONTAINER_OF(m, struct shake, mail)->answered = true;
}

static void shake(struct shake *s, const char *name)
{
    *s = (struct shake){.mail.run = on_answer};
    s->ask.answer = &s->mail;
    s->ask.from = loop;
    snprintf(s->ask.name, sizeof s->ask.name, "%s", name);
    CHECK(credential_ask_hook != NULL);
    (*credential_ask_hook)(&s->ask);
}

static struct shake first, second;

static bool first_answered(void)
{
    return first.answered;
}

static bool both_answered(void)
{
    return first.answered && second.answered;
}

static enum err ask_for(const char *name)
{
    shake(&first, name);
    RUN_UNTIL(first_answered);
    return first.ask.result;
}

TEST("nobody is asked at handshakes where no policy is on demand")
{
    setup();
    adopt("{}", NAMES("a.example.com"));
    CHECK(credential_ask_hook == NULL);
    RUN_UNTIL(has_a);
    finish();
}

TEST("a name that is allowed is obtained while its handshakes wait, once for all of them")
{
    setup();
    testing_authority.takes_ns = 30 * NS_PER_MS;
    adopt(ON_DEMAND, NAMES("a.example.com"));
    run_for(never, 20);
    CHECK_INT(testing_authority.asked, 0);
    shake(&first, "a.example.com");
    shake(&second, "a.example.com");
    RUN_UNTIL(both_answered);
    CHECK_OK(first.ask.result);
    CHECK_OK(second.ask.result);
    CHECK(first.ask.given == NULL && have("a.example.com") != NULL);
    CHECK_INT(testing_authority.asked, 1);
    CHECK_INT(permission.asked, 1);
    CHECK_OK(ask_for("a.example.com"));
    CHECK_INT(permission.asked, 1);
    finish();
}

TEST("what the storage has is loaded for a handshake that may have it, a wildcard, too")
{
    setup();
    adopt("{}", NAMES("a.example.com", "*.w.example.com"));
    RUN_UNTIL(settled);
    end_process();
    start_process();
    adopt(ON_DEMAND, NULL);
    CHECK(have("a.example.com") == NULL);
    CHECK_OK(ask_for("a.example.com"));
    CHECK_OK(ask_for("b.w.example.com"));
    CHECK(have("a.example.com") != NULL && have("*.w.example.com") != NULL);
    CHECK_INT(testing_authority.asked, 2);
    permission.says = ERR_DENIED;
    CHECK_INT(ask_for("c.example.com"), ERR_DENIED);
    finish();
}

TEST("a name that is refused is remembered for a moment, and until the next configuration")
{
    setup();
    permission.says = ERR_DENIED;
    adopt(ON_DEMAND, NULL);
    CHECK_INT(ask_for("a.example.com"), ERR_DENIED);
    CHECK_INT(ask_for("a.example.com"), ERR_DENIED);
    CHECK_INT(permission.asked, 1);
    CHECK(holding_find(SLICE("a.example.com")) == NULL);
    CHECK_INT(ask_for("nonsense/../name"), ERR_INVALID);
    CHECK_INT(ask_for("*.example.com"), ERR_INVALID);
    CHECK_INT(permission.asked, 1);
    permission.says = OK;
    adopt(ON_DEMAND, NULL);
    CHECK_OK(ask_for("a.example.com"));
    finish();
}

TEST("a name that cannot be had fails its handshakes, and is not tried at once again")
{
    setup();
    testing_authority.failing = 1;
    adopt(ON_DEMAND, NULL);
    CHECK_INT(ask_for("a.example.com"), ERR_FAILED);
    CHECK_INT(ask_for("a.example.com"), ERR_FAILED);
    CHECK_INT(testing_authority.asked, 1);
    run_for(never, 20);
    CHECK(holding_find(SLICE("a.example.com")) == NULL);
    CHECK(!stored("locks/issue_cert_a.example.com.lock", NULL));
    finish();
}

static bool a_dozes(void)
{
    return holding_find(SLICE("a.example.com"))->dozing;
}

TEST("on demand, a due certificate is served on while it is renewed, an expired one is not")
{
    needs_clock();
    setup();
    adopt(ON_DEMAND, NULL);
    CHECK_OK(ask_for("a.example.com"));
    struct holding *h = holding_find(SLICE("a.example.com"));
    move_clock(70 * 86400);
    upkeep_now();
    RUN_UNTIL(a_dozes); /* renewed for nobody */
    CHECK(h->dozing);
    CHECK_INT(testing_authority.asked, 1);
    testing_authority.takes_ns = 50 * NS_PER_MS;
    CHECK_OK(ask_for("a.example.com"));
    CHECK_INT(testing_authority.issued, 1);
    RUN_UNTIL(renewed);
    CHECK_INT(permission.asked, 2);
    move_clock(400 * 86400);
    upkeep_now();
    RUN_UNTIL(a_dozes);
    CHECK_OK(ask_for("a.example.com"));
    CHECK_INT(testing_authority.issued, 3);
    finish();
}

TEST("on demand, what is in memory has its limit")
{
    setup();
    adopt("{\"cache\":{\"capacity\":3},\"automation\":{\"on_demand\":{\"permission\":{\"module\":"
          "\"test\"}},\"policies\":[{\"on_demand\":true}]}}", NULL);
    for (int i = 0; i < 8; i++) {
        char name[32];
        snprintf(name, sizeof name, "n%d.example.com", i);
        CHECK_OK(ask_for(name));
    }
    CHECK(manager.count <= 3 && manager.demand_count <= 3);
    CHECK_INT(testing_authority.issued, 8);
    finish();
}

TEST("an endpoint is asked for its permission: 2xx is yes, all else is no")
{
    setup();
    responder.status = 204;
    adopt("{\"automation\":{\"on_demand\":{\"permission\":{\"module\":\"http\",\"endpoint\":"
          "\"http://localhost:1/check?a=b&domain=x#f\"}},\"policies\":[{\"on_demand\":true}]}}", NULL);
    CHECK_OK(ask_for("a.example.com"));
    CHECK_TEXT(slice_from(responder.url), "http://localhost:1/check?a=b&domain=a.example.com");
    responder.status = 302;
    CHECK_INT(ask_for("b.example.com"), ERR_DENIED);
    responder.status = 0;
    CHECK_INT(ask_for("c.example.com"), ERR_FAILED);
    CHECK_INT(testing_authority.asked, 1);
    finish();
}

TEST("a name that was asked for on demand is let go of when that has ended meanwhile")
{
    setup();
    testing_authority.takes_ns = 30 * NS_PER_MS;
    adopt(ON_DEMAND, NULL);
    shake(&first, "a.example.com");
    RUN_UNTIL(asked_one);
    manager_adopt(NULL, NULL, NULL);
    RUN_UNTIL(first_answered);
    run_for(never, 60);
    CHECK_INT(manager.count, 0);
    finish();
}

TEST("somebody else's certificate is for its handshake only")
{
    setup();
    getter.says = OK;
    adopt("{\"automation\":{\"policies\":[{\"get_certificate\":[{\"via\":\"test\"}]}]}}", NULL);
    CHECK_OK(ask_for("a.example.com"));
    CHECK(first.ask.given != NULL);
    CHECK_SLICE(credential_facts(first.ask.given)->names[0], SLICE("a.example.com"));
    credential_unref(first.ask.given);
    CHECK_INT(manager.count, 0);
    getter.says = ERR_NOT_FOUND; /* and nobody may issue: there is no permission to ask */
    CHECK_INT(ask_for("b.example.com"), ERR_DENIED);
    CHECK_INT(testing_authority.asked, 0);
    getter.says = ERR_FAILED;
    CHECK_INT(ask_for("c.example.com"), ERR_FAILED);
    finish();
}

TEST("handshakes that wait are told when the process ends")
{
    setup();
    testing_authority.takes_ns = 60 * NS_PER_S;
    adopt(ON_DEMAND, NULL);
    shake(&first, "a.example.com");
    RUN_UNTIL(asked_one);
    finish();
    CHECK(run_for(first_answered, 1000));
    CHECK_INT(first.ask.result, ERR_CANCELLED);
}

/* --- windows --- */

static bool asked_for_window(void)
{
    return has_a() && testing_authority.asked_window > 0;
}

TEST("the window that an authority suggests is kept beside the certificate, and heeded")
{
    struct buffer b;
    needs_clock();
    setup();
    int64_t now = cert_now_s();
    testing_authority.window = (struct renewal_window){
        .start_s = now + 10 * 86400, .end_s = now + 11 * 86400, .look_again_ns = 6 * 3600 * NS_PER_S};
    adopt("{}", NAMES("a.example.com"));
    RUN_UNTIL(asked_for_window);
    buffer_init(&b, 65536);
    CHECK(stored(SITE ".json", &b));
    CHECK(slice_find_slice(buffer_slice(&b), SLICE("\"suggestedWindow\": {")) != SIZE_MAX);
    CHECK(slice_find_slice(buffer_slice(&b), SLICE("\"_selectedTime\": \"20")) != SIZE_MAX);
    buffer_deinit(&b);
    end_process();
    start_process();
    adopt("{}", NAMES("a.example.com"));
    struct holding *h = holding_find(SLICE("a.example.com"));
    CHECK_INT(h->ari.start_s, now + 10 * 86400);
    CHECK(h->ari.selected_s > h->ari.start_s && h->ari.selected_s <= h->ari.end_s);
    /* it moves: at once */
    testing_authority.window.start_s = now - 86400;
    testing_authority.window.end_s = now - 3600;
    move_clock(7 * 3600);
    upkeep_now();
    RUN_UNTIL(renewed);
    CHECK_INT(testing_authority.asked_window, 3); /* the second, and of the new certificate */
    finish();
}

TEST("when a certificate is due")
{
    struct renewal_span span = {1000000, 1000000 + 90 * 86400};
    struct renewal_info none = {0}, window = {1000000 + 86400, 1000000 + 2 * 86400, 1000000 + 90000, 0};
    CHECK_INT(renewal_due(span, &none, 1.0 / 3, 600, 1000000 + 59 * 86400), RENEWAL_NOT_YET);
    CHECK_INT(renewal_due(span, &none, 1.0 / 3, 600, 1000000 + 61 * 86400), RENEWAL_BY_RATIO);
    CHECK_INT(renewal_due(span, &none, 0.01, 600, 1000000 + 89 * 86400), RENEWAL_EMERGENCY);
    CHECK_INT(renewal_due(span, &window, 1.0 / 3, 600, 1000000 + 80000), RENEWAL_NOT_YET);
    CHECK_INT(renewal_due(span, &window, 1.0 / 3, 600, 1000000 + 89500), RENEWAL_BY_WINDOW);
    window.selected_s = window.start_s = window.end_s = 1000000 + 200 * 86400;
    CHECK_INT(renewal_due(span, &window, 1.0 / 3, 600, 1000000 + 86 * 86400), RENEWAL_EMERGENCY);
}

/* --- staples --- */

static bool stapled(void)
{
    struct holding *h = holding_find(SLICE("a.example.com"));
    return has_a() && h->has_ocsp;
}

static bool replaced(void)
{
    return testing_authority.issued == 2 && has_a();
}

static bool fetched_twice(void)
{
    return responder.fetched == 2;
}

static bool fetched_again(void)
{
    return responder.fetched > 0;
}

TEST("a staple is fetched, kept, and fetched again after half of its time")
{
    needs_clock();
    setup();
    testing_authority.with_ocsp = true;
    adopt("{}", NAMES("a.example.com"));
    RUN_UNTIL(stapled);
    CHECK_INT(holding_find(SLICE("a.example.com"))->ocsp.status, OCSP_GOOD);
    CHECK_INT(responder.fetched, 1);
    end_process();
    start_process();
    adopt("{}", NAMES("a.example.com"));
    CHECK(stapled());
    run_for(never, 30);
    CHECK_INT(responder.fetched, 1);
    move_clock(4000);
    upkeep_now();
    RUN_UNTIL(fetched_twice);
    finish();
}

TEST("a certificate that was revoked is replaced, with its key when that is known to others")
{
    needs_clock();
    for (int compromised = 0; compromised < 2; compromised++) {
        setup();
        testing_authority.with_ocsp = true;
        adopt("{\"automation\":{\"policies\":[{\"reuse_private_keys\":true}]}}", NAMES("a.example.com"));
        RUN_UNTIL(stapled);
        struct slice csr = testing_authority.last_csr;
        testing_authority.last_csr = SLICE_NONE;
        testing_authority.revoked = true;
        testing_authority.compromised = compromised;
        move_clock(4000);
        responder.fetched = 0;
        upkeep_now();
        RUN_UNTIL(fetched_again);
        testing_authority.revoked = false;
        RUN_UNTIL(replaced);
        CHECK_INT(stored(SITE ".key.compromised", NULL), compromised == 1);
        mem_free((void *)(uintptr_t)csr.ptr);
        finish();
    }
}

TEST("a responder that does not answer takes nothing away")
{
    setup();
    testing_authority.with_ocsp = true;
    responder.status = 0;
    adopt("{}", NAMES("a.example.com"));
    RUN_UNTIL(has_a);
    CHECK(responder.fetched > 0 && !holding_find(SLICE("a.example.com"))->has_ocsp);
    finish();
}

/* --- troubles with the storage --- */

TEST("a storage that cannot be written is served from, and nothing is asked for in vain")
{
    if (geteuid() == 0)
        test_skip("root may write everywhere");
    setup();
    CHECK(chmod(folder, 0500) == 0);
    adopt("{}", NAMES("a.example.com"));
    run_for(never, 100);
    CHECK_INT(testing_authority.asked, 0);
    CHECK(chmod(folder, 0700) == 0);
    finish();
}

static enum err (*real_store)(struct storage *, struct slice, struct slice, struct storage_why *);
static struct storage_type full_type;

static enum err store_full(struct storage *s, struct slice key, struct slice value,
                           struct storage_why *why)
{
    if (slice_starts(key, SLICE("certificates/")) || slice_ends(key, SLICE("chain.pem")))
        return storage_fail(why, ERR_LIMIT, "no space left on device");
    return real_store(s, key, value, why);
}

TEST("what cannot be stored is served, and stored when there is room again, without another question")
{
    needs_clock();
    setup();
    test_clock_hurry(600);
    struct storage *s = storage_open_files(slice_from(folder));
    const struct storage_type *type = s->type;
    real_store = type->store;
    full_type = *type;
    full_type.store = store_full;
    s->type = &full_type;
    adopt("{}", NAMES("a.example.com"));
    RUN_UNTIL(have_a);
    CHECK(!stored(SITE ".key", NULL));
    s->type = type;
    RUN_UNTIL(has_a);
    CHECK_INT(testing_authority.asked, 1);
    CHECK(stored(SITE ".json", NULL) && stored(SITE ".key", NULL) && stored(SITE ".crt", NULL));
    type->close(s);
    finish();
}

static bool renewed_again(void)
{
    return testing_authority.issued == 3 && has_a();
}

static bool cleaned(void)
{
    return !stored("certificates/ca.test-directory/old.example.com", NULL) &&
           stored("last_clean.json", NULL) && stored("instance.uuid", NULL);
}

TEST("the storage is tidied: certificates that are over for two weeks go, others stay")
{
    needs_clock();
    setup();
    adopt("{}", NAMES("a.example.com", "old.example.com"));
    RUN_UNTIL(settled);
    CHECK(stored("certificates/ca.test-directory/old.example.com/old.example.com.crt", NULL));
    end_process();
    move_clock(80 * 86400);
    start_process();
    adopt("{}", NAMES("a.example.com"));
    RUN_UNTIL(renewed_again);
    end_process();
    move_clock(105 * 86400);
    start_process();
    adopt("{}", NAMES("a.example.com"));
    RUN_UNTIL(cleaned);
    CHECK(stored(SITE ".crt", NULL));
    finish();
}

/* --- configurations --- */

static void refuses(const char *tls, const char *sentence)
{
    struct config *c;
    enum err e = read_config(tls, &c);
    if (e == OK || strstr(c->p.error, sentence) == NULL)
        test_fail(__FILE__, __LINE__, "%s: \"%s\", want \"%s\"", tls, e == OK ? "" : c->p.error,
                  sentence);
    free_config(c);
}

TEST("what a configuration may not say about certificates")
{
    setup();
    refuses("{\"automation\":{\"policies\":[{\"on_demand\":true}]}}", "without a permission module");
    refuses("{\"automation\":{\"policies\":[{},{}]}}", "acts as default/catch-all");
    refuses("{\"automation\":{\"policies\":[{\"subjects\":[\"a\"]},{\"subjects\":[\"A\"]}]}}",
            "cannot apply more than one automation policy to host: a (first match in policy 0)");
    refuses("{\"automation\":{\"policies\":[{\"key_type\":\"dsa\"}]}}", "unrecognized key type: dsa");
    refuses("{\"automation\":{\"policies\":[{\"what\":1}]}}", "unknown member \"what\"");
    refuses("{\"automation\":{\"policies\":[{\"issuers\":[{\"module\":\"x\"}]}]}}",
            "unknown module: tls.issuance.x");
    refuses("{\"automation\":{\"on_demand\":{\"rate_limit\":{}}}}", "not supported any more");
    refuses("{\"automation\":{\"on_demand\":{\"ask\":\"http://a/\",\"permission\":{\"module\":\"http\","
            "\"endpoint\":\"http://b/\"}}}}", "both an 'ask' endpoint");
    refuses("{\"automation\":{\"policies\":[{\"get_certificate\":[{\"via\":\"tailscale\"}]}]}}",
            "Tailscale");
    refuses("{\"certificates\":{\"automate\":[\"a b\"]}}", "does not qualify");
    refuses("{\"cache\":{\"capacity\":-1}}", "capacity");
    refuses("{\"encrypted_client_hello\":{}}", "encrypted_client_hello");
    finish();
}

TEST("a policy is found as Caddy finds it, and one that is added stands before what is more general")
{
    struct config *c;
    setup();
    CHECK_OK(read_config("{\"automation\":{\"policies\":[{\"subjects\":[\"*.example.com\"]},{}]}}", &c));
    struct automation *a = c->automation;
    CHECK(automation_find(a, SLICE("x.example.com")) == a->policies[0]);
    CHECK(automation_find(a, SLICE("example.com")) == a->policies[1]);
    json_t *json = json_pack("{s:[s],s:[{s:s}]}", "subjects", "x.example.com", "issuers", "module",
                             "internal");
    CHECK_OK(automation_add_policy(&c->p, a, json));
    CHECK_INT(a->policies_count, 3);
    CHECK(automation_is_internal(automation_find(a, SLICE("x.example.com"))));
    CHECK(!automation_is_internal(automation_find(a, SLICE("y.example.com"))));
    free_config(c);
    json_decref(json);
    finish();
}
