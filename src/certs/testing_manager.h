/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests: the manager on a loop of its own, with an authority of the test and a storage in a folder
 * of the test; a process that ends and starts again; a clock that is moved where time must pass.
 * Included once, by each test, which uses what it needs of it.
 */
#pragma once

#pragma GCC diagnostic ignored "-Wunused-function"

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

#define RUN_UNTIL(until) CHECK(run_for(until, 30000)) /* however busy the machine is */

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

static bool renewed(void)
{
    return testing_authority.issued == 2 && has_a();
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
