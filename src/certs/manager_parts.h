/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the sources of the manager share: manager.c holds certificates and publishes them, job.c says
 * when something is tried, obtain.c tries it, upkeep.c looks for what is due, demand.c answers
 * handshakes, staple.c asks for OCSP, clean.c tidies the storage, leftovers.c what a crash has left
 * there. All on the control thread.
 */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "certs/asset.h"
#include "certs/manager.h"
#include "certs/renewal.h"
#include "loop/await.h"
#include "pki/ocsp.h"

struct job;

/* A configuration that somebody still looks at. */
struct pin {
    const struct automation *automation;
    void (*let_go)(void *owner);
    void *owner;
    unsigned refs;
    struct task task; /* lets go from the loop's stack */
};

/* One name and the certificate that we have for it. */
struct holding {
    struct list node;
    struct slice name;             /* malloc'd; ASCII, lower case */
    struct credential *credential; /* NULL: none yet */
    char *issuer_key;              /* whose it is */
    struct storage *storage;
    struct renewal_info ari;
    struct ocsp_facts ocsp;
    bool has_ocsp;
    bool wanted;   /* the configuration asks for it */
    bool demand;   /* it came through a handshake */
    bool internal; /* its policy is the local authority's only */
    bool dozing;   /* due, and not published until a handshake asks */
    bool stapling; /* it must have a staple and has none yet: … */
    struct credential *shown; /* … this is published meanwhile; NULL: none */
    bool manual;   /* somebody else's: stapled only */
    struct job *job;
};

struct manager {
    struct loop *loop;
    struct pin *pin;         /* of the present configuration; NULL: none */
    struct list holdings;    /* struct holding; in the order of their coming */
    struct map by_name;
    size_t count, demand_count, manual_count;
    struct list manuals;     /* struct holding */
    struct list running;     /* struct run */
    unsigned runs;
    struct timer publish_timer, renew_timer, ocsp_timer, clean_timer;
    bool publish_due;
    uint64_t published_ns, publish_cost_ns;
    bool stopping;
    void (*stopped)(void);
};

extern struct manager manager;

/* --- fibers of the manager --- */

struct run {
    struct list node;
    struct fiber *fiber;
    struct task task;
    struct timer timer;
    void (*work)(void *);
    void *arg;
};

/* Runs `work` on a fiber, soon; from anywhere on this thread. */
void manager_run(void (*work)(void *), void *arg);

struct pin *pin_hold(void); /* the present one; NULL: none */
void pin_release(struct pin *);

/* --- holdings --- */

struct holding *holding_find(struct slice name);
struct holding *holding_new(struct slice name);
void holding_drop(struct holding *);

/* From an asset; ERR_INVALID when it is none. The old certificate stays then. */
enum err holding_set(struct holding *, struct storage *, const struct asset *, char *why, size_t cap);

/* A holding with a certificate that serves the name, itself or by a wildcard. */
struct holding *holding_serving(struct slice name);

bool holding_expired(const struct holding *);
enum renewal_reason holding_due(const struct holding *, const struct automation_policy *);

/* Handshakes see what has changed at the loop's next turn, or a little later when it is much. */
void publish_soon(void);

int64_t cert_now_s(void);

/* --- jobs --- */

enum job_kind {
    JOB_OBTAIN,
    JOB_RENEW,
    JOB_REPAIR,  /* what is stored is no certificate */
    JOB_REPLACE, /* whatever it looks like */
    JOB_ANEW,    /* with another key, as if there were none */
};

struct job {
    struct list node, ready;  /* of all; of those to be tried */
    struct holding *holding;  /* NULL: it is gone; the job ends */
    struct slice name;        /* malloc'd, like the lock's */
    enum job_kind kind;
    bool for_handshake;       /* one try */
    bool locked;              /* until the job ends */
    struct storage *lock_storage;
    struct slice lock_name;
    unsigned attempts;
    uint64_t began_ns, tried_ns;
    struct timer timer;       /* until the next try */
    bool trying, cancelled;
    struct fiber *fiber;      /* while it is tried */
    struct task task;         /* frees it, from the loop's stack */
    struct list waiters;      /* struct job_waiter */
    struct asset unsaved;     /* issued, but not stored; malloc'd; empty: none */
    uint64_t retry_after_ns;  /* of the last try */
    uint64_t print;           /* of the policy that it began under */
    char why[1024];
};

struct job_waiter {
    struct list node;
    struct waiter waiter;
    char *why;
    size_t cap;
};

/* A job for a name; one that is there already goes on. */
struct job *job_begin(struct holding *, enum job_kind, bool for_handshake);

/* Waits on a fiber until the job has ended. */
enum err job_await(struct job *, uint64_t deadline_ns, char *why, size_t cap);

/* Another configuration has come: goes on where nothing has changed, else ends. */
void job_review(struct job *);
void job_cancel(struct job *);
void jobs_stop(void);

enum job_result { JOB_DONE, JOB_RETRY, JOB_LATER /* the lock is somebody else's */, JOB_OVER };

/* One try, on a fiber. The sentence of a failure goes to job->why. */
enum job_result obtain_try(struct job *, const struct automation *, const struct automation_policy *);

/* Frees what a job has not stored. */
void obtain_forget(struct job *);

/* --- the rest --- */

/* Looks for a staple: what the storage has, and, on a fiber, what the responder says. True when
 * something has changed. */
bool staple_refresh(struct holding *, const struct automation_policy *, bool ask);
bool staple_wants(const struct holding *, const struct automation_policy *);

void upkeep_start(void);  /* its timers anew, for the present configuration */
void upkeep_stop(void);
void upkeep_now(void);    /* looks at everything at once */

void demand_start(void);  /* sets or unsets credential_ask_hook */
void demand_stop(void);
void demand_told(void);   /* after publishing */

/* What a crash has left: of names that are wanted, soon; of others, in a storage that is tidied. */
void leftovers_finish(void);
void leftovers_tidy(struct storage *, struct arena *);

void clean_start(void);
void clean_stop(void);
