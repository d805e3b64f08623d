/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a configuration wants is had at the start, kept, renewed in time, and let go of.
 */
#include "certs/manager.h"

#include "certs/testing_manager.h"

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
