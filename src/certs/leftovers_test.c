/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a crash at any point leaves is gone on with; nothing is asked for twice, and nothing stays.
 */
#include "certs/manager.h"

#include "certs/testing_manager.h"

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
    if (written > 2)
        write_stored(SITE ".json", SLICE("{\"sans\":[\"a.example.com\"],\"issuer_data\":null}"));
    buffer_deinit(&chain);
    buffer_deinit(&key);
    s->type->close(s);
}

static bool pair_fits(void)
{
    struct buffer a, b;
    struct credential *c = NULL;
    char why[256];
    buffer_init(&a, 65536);
    buffer_init(&b, 65536);
    bool there = stored(SITE ".crt", &a) && stored(SITE ".key", &b);
    struct credential_spec spec = {.chain_pem = buffer_slice(&a), .key_pem = buffer_slice(&b)};
    bool fits = there && credential_create(&spec, &c, why, sizeof why) == OK;
    if (fits)
        credential_unref(c);
    buffer_deinit(&a);
    buffer_deinit(&b);
    return fits;
}

TEST("a renewed certificate that a crash kept from its place is put there, and not asked for twice")
{
    needs_clock();
    for (unsigned written = 0; written < 3; written++) {
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
        RUN_UNTIL(pair_fits);
        run_for(never, 200);
        CHECK_INT(testing_authority.asked, 1);
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

static bool no_note(void)
{
    return !stored("pending/a.example.com", NULL) && has_a();
}

TEST("a note of what is in its place already goes at the next start, whole or half removed")
{
    static const char *const parts[] = {"request.der", "kind", "chain.pem", "order", "issuer"};
    for (size_t removed = 0; removed <= sizeof parts / sizeof parts[0]; removed++) {
        struct buffer before, after;
        setup();
        adopt("{}", NAMES("a.example.com"));
        RUN_UNTIL(has_a);
        end_process();
        buffer_init(&before, 65536);
        buffer_init(&after, 65536);
        break_off(3);
        CHECK(stored(SITE ".crt", &before));
        for (size_t i = 0; i < removed; i++) {
            char path[256];
            snprintf(path, sizeof path, "%s/pending/a.example.com/%s", folder, parts[i]);
            (void)!unlink(path);
        }
        start_process();
        adopt("{}", NAMES("a.example.com"));
        RUN_UNTIL(no_note);
        CHECK_INT(testing_authority.asked, 1);
        CHECK(stored(SITE ".crt", &after));
        CHECK_SLICE(buffer_slice(&after), buffer_slice(&before));
        buffer_deinit(&before);
        buffer_deinit(&after);
        finish();
    }
}

TEST("a note of an order for another certificate stays while the present one is good")
{
    setup();
    adopt("{}", NAMES("a.example.com"));
    RUN_UNTIL(has_a);
    end_process();
    struct storage_why why;
    struct storage *s = storage_open_files(slice_from(folder));
    struct pending p = {.kind = SLICE("0"), .key_pem = SLICE("key"), .csr_der = SLICE("request")};
    CHECK_OK(pending_begin(s, SLICE("a.example.com"), &p, &why));
    pending_note(s, SLICE("a.example.com"), SLICE("ca.test-directory"), SLICE("http://order"));
    start_process();
    adopt("{}", NAMES("a.example.com"));
    run_for(never, 200);
    CHECK(stored("pending/a.example.com/order", NULL) && has_a());
    CHECK_INT(testing_authority.asked, 1);
    s->type->close(s);
    finish();
}

static const char *const left[] = {
    "pending/other.example.com/request.der", "pending/other.example.com/key.pem",
    "acme/ca.test-directory/challenge_tokens/other.example.com.json", "rw_test_123456",
    "locks/issue_cert_other.example.com.lock", "acme/.portico-new-0123456789abcdef",
};

static unsigned count_left(void)
{
    unsigned n = 0;
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++)
        n += stored(left[i], NULL);
    return n;
}

static void grow_old(unsigned days)
{
    struct timespec then = {clock_file_ns() / (int64_t)NS_PER_S - days * 86400, 0};
    struct timespec times[2] = {then, then};
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", folder, left[i]);
        (void)!utimensat(AT_FDCWD, path, times, 0);
    }
    char path[256];
    snprintf(path, sizeof path, "%s/pending/other.example.com", folder);
    (void)!utimensat(AT_FDCWD, path, times, 0);
}

static bool cleaned_all(void)
{
    return count_left() == 0;
}

static bool cleaned_now(void)
{
    return stored("last_clean.json", NULL);
}

TEST("what a crash has left of names that nobody wants goes when it is old, not before")
{
    setup();
    adopt("{}", NAMES("a.example.com"));
    RUN_UNTIL(has_a);
    RUN_UNTIL(cleaned_now);
    end_process();
    struct storage_why why;
    struct storage *s = storage_open_files(slice_from(folder));
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++) {
        if (s->type->store(s, slice_from(left[i]), SLICE("{}"), &why) != OK) {
            CHECK(strstr(left[i], ".portico-new-") != NULL);
            write_stored(left[i], SLICE("{}"));
        }
    }
    CHECK_OK(s->type->store(s, SLICE("acme/ca.test-directory/users/me/me.json"), SLICE("{}"), &why));
    for (unsigned days = 0; days < 10; days += 3) {
        grow_old(days);
        (void)!s->type->remove(s, SLICE("last_clean.json"), &why);
        start_process();
        adopt("{}", NAMES("a.example.com"));
        RUN_UNTIL(days < 9 ? cleaned_now : cleaned_all);
        CHECK_INT(count_left(), days == 0 ? 6 : days < 9 ? 2 : 0);
        end_process();
    }
    CHECK(stored("acme/ca.test-directory/users/me/me.json", NULL) && stored(SITE ".key", NULL));
    s->type->close(s);
    start_process();
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
