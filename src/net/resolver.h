/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host names to addresses, without blocking the thread: /etc/hosts, then DNS (c-ares on the loop),
 * with a cache that keeps to the records' time to live. Every thread with a loop has a resolver of
 * its own, made at its first use; more can be made, for other DNS servers.
 */
#pragma once

#include "loop/loop.h"
#include "net/dns_channel.h"

enum {
    RESOLVED_MAX = 16,
    RESOLVER_NAMES_MAX = 1024,   /* remembered by one resolver, the open questions included */
    RESOLVER_LOOKUPS_MAX = 256,  /* open questions of one resolver */
    RESOLVER_TTL_MIN_S = 1,
    RESOLVER_TTL_MAX_S = 3600,
    RESOLVER_TTL_NEGATIVE_S = 5, /* no such host */
    RESOLVER_TTL_FAILED_S = 1,   /* the servers failed or were silent */
};

struct resolved {
    struct sockaddr_storage addresses[RESOLVED_MAX]; /* with the port; best first (RFC 6724) */
    socklen_t lengths[RESOLVED_MAX];
    size_t count;    /* at least 1 when it went well */
    const char *why; /* else a constant phrase such as "no such host" */
};

/* The calling thread's own resolver. On a fiber; may wait. A literal address, also with a zone
 * ("fe80::1%eth0"), is answered at once; "" is this machine, and so is every localhost
 * name (RFC 6761). ERR_NOT_FOUND: no such host, or it has no address; ERR_INVALID: not a host name;
 * ERR_IO: the servers failed; ERR_TIMEOUT: they were silent, or the deadline passed; ERR_LIMIT: too
 * many open questions. Many fibers that ask for one name share one question. */
enum err await_resolve(struct slice host, uint16_t port, uint64_t deadline_ns, struct resolved *);

struct resolver;

enum err resolver_create(struct loop *, const struct dns_options *, struct resolver **) MUST_USE;

/* Open questions end with ERR_CANCELLED; sockets close within the loop's next turns. */
void resolver_destroy(struct resolver *);

enum err resolver_await(struct resolver *, struct slice host, uint16_t port, uint64_t deadline_ns,
                        struct resolved *);

/* The same for code that is no fiber. */
struct resolve_call {
    void (*on_done)(struct resolve_call *, enum err); /* never inside resolver_start */
    struct resolved *out;
    enum err result;
    uint16_t port;
    struct list node; /* of a name that is being asked for */
    struct task task;
};

/* The call and `out` must stay until on_done or resolve_cancel. */
void resolver_start(struct resolver *, struct slice host, uint16_t port, struct resolve_call *);

/* on_done does not come any more. Safe after it, too. */
void resolve_cancel(struct resolve_call *);

/* The calling thread's own, made when there is none yet. */
enum err resolver_of_thread(struct resolver **) MUST_USE;

/* For questions of another kind (dns_targets.h). On the loop's own stack: the channel of this moment. */
enum err resolver_channel(struct resolver *, struct dns_channel **) MUST_USE;

/* What a status of c-ares means, with a constant phrase; OK for ARES_SUCCESS. */
enum err resolver_failure(int status, const char **why);

/* Letters, digits, '-', '_' and single dots; labels of 63 bytes at most, 253 in all. */
bool is_host_name(struct slice);

/* At a thread's end, before its loop is settled and destroyed. */
void resolver_thread_deinit(void);
