/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Staples: fetched, kept, fetched again; and what is done about a certificate that was revoked.
 */
#include "certs/manager.h"

#include "certs/testing_manager.h"

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
