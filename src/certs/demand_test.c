/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handshakes that ask: what is loaded, obtained, refused, renewed and forgotten for them.
 */
#include "certs/manager.h"

#include "certs/testing_manager.h"

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
    CHECK(run_for(first_answered, 30000));
    CHECK_INT(first.ask.result, ERR_CANCELLED);
}
