/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Password hashes, and the checking of passwords from fibers.
 */
#include "base/clock.h"
#include "base/test.h"
#include "handlers/auth_cache.h"
#include "handlers/authentication.h"
#include "handlers/handlers.h"
#include "loop/await.h"
#include "loop/offload.h"

static struct arena arena;

static struct password_hash parse(const char *text)
{
    struct password_hash h;
    const char *why;
    if (password_parse(slice_from(text), &h, &arena, &why) != OK)
        test_fail(__FILE__, __LINE__, "%s %s", text, why);
    return h;
}

static bool fits(const char *hash, struct slice password)
{
    struct password_hash h = parse(hash);
    bool same;
    CHECK_OK(password_check(&h, password, &same));
    return same;
}

TEST("bcrypt hashes of all letters are checked alike, as the standard vectors say")
{
    arena_init(&arena, 4096);
    CHECK(fits("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", SLICE("U*U")));
    CHECK(fits("$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", SLICE("U*U")));
    CHECK(fits("$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", SLICE("U*U")));
    CHECK(!fits("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", SLICE("U*V")));
    CHECK(!fits("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", SLICE("U*U\0x")));
    CHECK(fits("$2a$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy", SLICE("")));
    /* beyond ASCII: what libcrypt itself would read as "$2a$" with its guard */
    CHECK(fits("$2a$05$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq", SLICE("\xa3")));
    arena_deinit(&arena);
}

TEST("a new hash fits its password and no other, and looks like Caddy's")
{
    char text[PASSWORD_TEXT_MAX];
    const char *why;
    arena_init(&arena, 4096);
    CHECK_OK(bcrypt_hash(SLICE("geheim"), 4, text, &why));
    CHECK(strncmp(text, "$2a$04$", 7) == 0);
    CHECK(fits(text, SLICE("geheim")) && !fits(text, SLICE("geheim2")));
    CHECK_OK(argon2id_hash(SLICE("geheim"), (struct argon2id_costs){1, 64, 2, 32}, text, &why));
    CHECK(strncmp(text, "$argon2id$v=19$m=64,t=1,p=2$", 28) == 0);
    CHECK(fits(text, SLICE("geheim")) && !fits(text, SLICE("")));
    char long_one[73];
    memset(long_one, 'a', sizeof long_one);
    CHECK_INT(bcrypt_hash(slice_of(long_one, 73), 4, text, &why), ERR_INVALID);
    CHECK_TEXT(slice_from(why), "password length exceeds 72 bytes");
    arena_deinit(&arena);
}

TEST("Caddy's own argon2id hash fits")
{
    arena_init(&arena, 4096);
    CHECK(fits("$argon2id$v=19$m=47104,t=1,p=1$P2nzckEdTZ3bxCiBCkRTyA$"
               "xQL3Z32eo5jKl7u5tcIsnEKObYiyNZQQf5/4sAau6Pg", SLICE("antitiming")));
    arena_deinit(&arena);
}

TEST("what is no hash is refused with the reason")
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"plain", "is neither a bcrypt nor an argon2id hash"},
        {"$2a$14$short", "is no whole bcrypt hash"},
        {"$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "is no whole bcrypt hash"},
        {"$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe!", "is no whole bcrypt hash"},
        {"$2a$32$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
         "is a bcrypt hash with a cost that is not from 04 to 31"},
        {"$argon2id$v=16$m=64,t=1,p=1$c2FsdHNhbHQ$a2V5a2V5", "is an argon2id hash of a version other "
         "than 19"},
        {"$argon2id$v=19$m=99999999,t=1,p=1$c2FsdHNhbHQ$a2V5a2V5",
         "is an argon2id hash with bad parameters, or with more than 1 GiB of memory"},
        {"$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ", "is no whole argon2id hash"},
    };
    arena_init(&arena, 4096);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct password_hash h;
        const char *why;
        CHECK_INT(password_parse(slice_from(cases[i].text), &h, &arena, &why), ERR_INVALID);
        CHECK_TEXT(slice_from(why), cases[i].why);
    }
    arena_deinit(&arena);
}

/* --- on fibers --- */

static struct loop *loop;
static struct password_hash the_hash;
static int left, right, wrong;
static uint64_t took_ns;

static void check_one(void *arg)
{
    bool same;
    uint64_t begin = clock_mono_ns();
    CHECK_OK(auth_check(&the_hash, slice_from(arg), true, &same));
    took_ns += clock_mono_ns() - begin;
    right += same;
    wrong += !same;
    if (--left == 0)
        loop_stop(loop);
}

static void check_many(int count, const char *password)
{
    left = count;
    right = wrong = 0;
    took_ns = 0;
    for (int i = 0; i < count; i++)
        CHECK_OK(fiber_start(loop, check_one, (void *)(uintptr_t)password));
    if (left > 0)
        loop_run(loop);
}

TEST("the same credentials at once are hashed once, and then remembered")
{
    char text[PASSWORD_TEXT_MAX];
    const char *why;
    arena_init(&arena, 4096);
    CHECK_OK(bcrypt_hash(SLICE("geheim"), 8, text, &why));
    the_hash = parse(text);
    CHECK_OK(loop_create(LOOP_AUTO, &loop));
    uint64_t begin = clock_mono_ns();
    check_many(1, "wrong");
    uint64_t one_ns = clock_mono_ns() - begin;
    CHECK_INT(wrong, 1);
    begin = clock_mono_ns();
    check_many(200, "geheim");
    CHECK_INT(right, 200);
    CHECK(clock_mono_ns() - begin < one_ns * 50); /* 200 hashings would take their time */
    check_many(1000, "geheim");
    CHECK_INT(right, 1000);
    CHECK(took_ns / 1000 < one_ns / 10);
    check_many(3, "wrong");
    CHECK_INT(wrong, 3);
    loop_destroy(loop);
    offload_stop();
    arena_deinit(&arena);
}

static struct exchange x;
static void *basic_cfg;
static enum err basic_result;
static struct slice basic_user;

static void authenticate(void *arg)
{
    const struct auth_provider *face = auth_provider_http_basic.face;
    (void)arg;
    basic_user = SLICE_NONE;
    basic_result = face->authenticate(basic_cfg, &x, &basic_user);
    loop_stop(loop);
}

/* Asks with this Authorization field; the user who is let through. */
static struct slice sign_in(const char *authorization)
{
    fields_init(&x.req.fields, &arena);
    fields_init(&x.res.fields, &arena);
    if (authorization != NULL)
        fields_add(&x.req.fields, SLICE("Authorization"), slice_from(authorization));
    basic_result = ERR_FAILED;
    CHECK_OK(fiber_start(loop, authenticate, NULL));
    if (basic_result == ERR_FAILED)
        loop_run(loop);
    CHECK_OK(basic_result);
    return basic_user;
}

static const struct module *const modules[] = {&auth_hash_bcrypt, &auth_hash_argon2id,
                                               &auth_provider_http_basic, NULL};

static enum err use(struct provision *p, const char *json)
{
    const struct module *m;
    json_t *config = json_loads(json, 0, NULL);
    CHECK(config != NULL);
    *p = (struct provision){.arena = &arena, .modules = modules, .path = SLICE("test")};
    enum err e = provision_module(p, "http.authentication.providers", "http_basic", config, &m,
                                  &basic_cfg);
    json_decref(config);
    return e;
}

static void unuse(struct provision *p)
{
    for (struct provision_release *r = p->releases; r != NULL; r = r->next)
        r->release(r->cfg);
}

#define BOB "{\"username\":\"bob\",\"password\":"                                                     \
            "\"$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\"}"
#define EVE "{\"username\":\"{env.PORTICO_TEST_EVE}\",\"password\":"                                  \
            "\"JDJhJDA1JENDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQy43dUcwVkN6STJiUzdqNnltcUppOUNkY2R4aVJUV055\"}"

TEST("accounts are let through with their password only, all others are asked for one")
{
    struct provision p;
    struct slice challenge;
    setenv("PORTICO_TEST_EVE", "eve", 1);
    arena_init(&arena, 16384);
    x = (struct exchange){.arena = &arena};
    CHECK_OK(use(&p, "{\"accounts\":[" BOB "," EVE "],\"hash\":{\"algorithm\":\"bcrypt\"},"
                     "\"realm\":\"here\",\"hash_cache\":{}}"));
    CHECK_OK(loop_create(LOOP_AUTO, &loop));
    CHECK_TEXT(sign_in("Basic Ym9iOlUqVQ=="), "bob"); /* bob:U*U */
    CHECK(!fields_has(&x.res.fields, SLICE("WWW-Authenticate")));
    CHECK_TEXT(sign_in("basic Ym9iOlUqVQ=="), "bob");
    CHECK_TEXT(sign_in("Basic ZXZlOg=="), "eve"); /* an empty password, that she has */
    static const char *const bad[] = {NULL, "", "Basic", "Basic ", "Basic Ym9i", "Basic !!!!",
                                      "Basic Ym9iOlUqVg==", "Bearer Ym9iOlUqVQ==", "Basic Ym9iOg==",
                                      "Basic OlUqVQ==", "Basic bm9ib2R5OlUqVQ=="};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (sign_in(bad[i]).len != 0)
            test_fail(__FILE__, __LINE__, "%s", bad[i]);
        CHECK(fields_get(&x.res.fields, SLICE("WWW-Authenticate"), &challenge));
        CHECK_TEXT(challenge, "Basic realm=\"here\"");
    }
    loop_destroy(loop);
    offload_stop();
    unuse(&p);
    arena_deinit(&arena);
}

TEST("an account whose hash is none is like no account: nothing fits, not even an empty password")
{
    struct provision p;
    arena_init(&arena, 16384);
    x = (struct exchange){.arena = &arena};
    CHECK_OK(use(&p, "{\"accounts\":[{\"username\":\"a\",\"password\":\"$1$x\"}]}"));
    CHECK_OK(loop_create(LOOP_AUTO, &loop));
    CHECK_INT(sign_in("Basic YTo=").len, 0);
    CHECK(fields_has(&x.res.fields, SLICE("WWW-Authenticate")));
    loop_destroy(loop);
    offload_stop();
    unuse(&p);
    arena_deinit(&arena);
}

TEST("bad accounts are refused by name")
{
    static const struct {
        const char *json, *error;
    } cases[] = {
        {"{\"accounts\":[" BOB "," BOB "]}", "test: account 1: username is not unique: bob"},
        {"{\"accounts\":[{\"username\":\"a\"}]}", "test: account 0: username and password are required"},
        {"{\"accounts\":[{\"username\":\"a\",\"password\":\"geheim!\"}]}",
         "test: account 0: base64-decoding password: invalid"},
        {"{\"hash\":{\"algorithm\":\"md5\"}}",
         "test: unknown module: http.authentication.hashes.md5"},
        {"{\"hash_cache\":{\"size\":1}}", "test: unknown member \"size\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct provision p;
        arena_init(&arena, 4096);
        CHECK_INT(use(&p, cases[i].json), ERR_INVALID);
        CHECK_TEXT(slice_from(p.error), cases[i].error);
        unuse(&p);
        arena_deinit(&arena);
    }
}
