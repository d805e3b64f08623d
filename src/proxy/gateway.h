/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the gateway share: its configuration, and one request on its way through
 * (struct round), which gateway_serve.c leads over gateway_request.c and gateway_answer.c.
 */
#pragma once

#include "base/buffer.h"
#include "base/clock.h"
#include "base/log.h"
#include "client/client_answer.h"
#include "client/forward_proxy.h"
#include "client/h2_link.h"
#include "http/field_ops.h"
#include "http/response_match.h"
#include "http/route.h"
#include "net/address.h"
#include "net/dial.h"
#include "net/ip_set.h"
#include "proxy/overload.h"
#include "upstream/balance.h"
#include "upstream/link.h"
#include "wire/chunked.h"

enum { TRIED_MAX = 8, HEAD_DEFAULT = 10 << 20 /* bytes of an answer's head, at most */ };

#define PATIENCE_NS (10 * NS_PER_MS) /* then it is watched whether the client is still there */
#define HANDSHAKE_NS (10 * NS_PER_S) /* of TLS, unless handshake_timeout says otherwise */

/* The face of modules in http.reverse_proxy.selection_policies. Must not wait. */
struct selection_policy {
    const struct upstream *(*select)(const void *cfg, struct exchange *, struct upstream_set,
                                     uint64_t now_ns);
    /* What is made beforehand of upstreams that stay as they are; may be NULL. */
    void (*prepare)(void *cfg, struct upstream_set, struct provision *);
    /* How a request at that upstream went; may be NULL. */
    void (*note)(const void *cfg, struct endpoint *, uint64_t latency_ns, bool failed,
                 uint64_t now_ns);
    bool whole; /* it makes no sense of a part of them */
};

/* Upstreams that are found when a request comes. What the set points to stays until the exchange's
 * end. */
struct found_upstreams {
    struct endpoint *const *endpoints;
    uint32_t count;
    uint64_t service; /* which one, of those that requests may name; 0: there is but one */
    bool only_looked; /* said by who asks: nothing is sent to them */
};

/* The face of modules in http.reverse_proxy.upstreams. All but find may be NULL. */
struct upstream_source {
    /* Those of this moment, which may be none. An error, with a sentence in the arena or constant,
     * makes the gateway go back to its static upstreams, where it has some. */
    enum err (*find)(const void *cfg, struct exchange *, struct found_upstreams *, const char **why);
    /* Waits until there may be one, after none was found; NULL: there is nothing to wait for. */
    enum err (*wait)(const void *cfg, struct exchange *, const char **why);
    /* Its upstreams stand for one another: a request that may be repeated goes to the next one
     * though no lb_try_duration is set, for up to that long. */
    uint64_t (*repeat_ns)(const void *cfg);
    /* Whether they must be asked for first, which may wait: settle. What that finds, or why it did
     * not, find tells. */
    bool (*unsettled)(const void *cfg, struct exchange *);
    enum err (*settle)(const void *cfg, struct exchange *);
    /* One of them has failed the exchange: they may be others by now. */
    void (*doubt)(const void *cfg, struct exchange *);
    /* Whether other requests may find quite other ones. NULL: they do not. */
    bool (*varies)(const void *cfg);
    bool errors_pass; /* an error of find is tried again as no upstream is */
};

struct round;
struct upload;

/* What is spoken on a transport's links. */
struct protocol {
    /* Once per request, when it is known what goes up; NULL: nothing more to do. */
    enum err (*prepare)(struct round *);
    /* The request, with its body when that is in memory. */
    enum err (*send)(struct round *);
    /* `n` bytes of the body, at buf + BODY_FRONT of a buffer of IOBUF_SIZE; then its end. */
    enum err (*send_piece)(struct round *, char *buf, size_t n);
    enum err (*send_end)(struct round *, char *buf);
    struct client_answer *(*begin)(struct round *);
    void (*end)(struct round *);
    enum err (*read_head)(struct client_answer *, bool to_head, uint64_t deadline_ns);
    enum err (*read_body)(struct client_answer *, uint64_t deadline_ns, struct slice *piece);
    /* The body could not be sent to its end: the answer's reader comes to an end. */
    void (*cut)(struct round *);
    /* … or nothing is left to wait for: a wait for the answer ends. */
    void (*interrupt)(struct round *);
};

enum { BODY_FRONT = CHUNKED_HEAD_MAX, BODY_BACK = 2, BODY_PIECE = 32768 - BODY_FRONT - BODY_BACK };

struct http_transport {
    const struct protocol *protocol;
    uint64_t dial_ns, header_ns, continue_ns, read_ns, write_ns; /* 0: no limit */
    uint64_t head_max;    /* of an answer */
    uint32_t fallback_ms; /* as of dial_options */
    bool h2_offered;      /* to upstreams with TLS, by ALPN */
    bool h2c;             /* spoken to those without TLS */
    bool keep_alive;
    bool probes;
    unsigned probe_s;
    struct link_limits limits;
    struct sockaddr_storage local;
    socklen_t local_len; /* 0: none */
    struct slice local_text;
    struct slice resolver;    /* DNS servers of its own, or empty */
    struct tls_client *tls;   /* NULL: none */
    struct tls_client *tls_one; /* the same for HTTP/1.1 alone; NULL: `tls` is that */
    struct template tls_name; /* instead of the upstream's host; empty: that */
    uint16_t *tls_except;     /* ports of upstreams without TLS */
    size_t tls_except_count;
    uint64_t handshake_ns;    /* 0: no limit */
    struct template proxy_text;
    struct forward_proxy *proxy; /* of all upstreams; NULL: none, or that depends */
    bool no_proxy, proxy_by_url; /* neither: the environment says */
    unsigned proxy_header;       /* version of the PROXY protocol that a connection begins with, or 0 */
};

struct round;

/* Where an upstream is. */
struct dial_address {
    struct network_address at;
    struct slice key;               /* of its links */
    struct slice text, host, port, hostport; /* of the placeholders */
    bool is_unix, tls;
    const struct forward_proxy *proxy; /* by which it is reached; NULL: straight */
};

struct dial_target {
    struct template text;
    bool constant;
    struct dial_address address; /* when constant */
};

struct passive_health {
    uint64_t fail_ns, latency_ns; /* 0: none */
    int64_t *statuses;            /* 503, or below 10 a class */
    size_t statuses_count;
};

struct response_handler {
    struct response_match match;
    struct template status;
    bool has_status;
    struct route_list routes;
};

struct active_health;
struct active_target;
struct mirror;
struct hedge;
struct race;

struct gateway {
    struct gateway *next; /* of the generation */
    struct upstream *upstreams;
    struct dial_target *targets; /* one per upstream */
    uint32_t upstreams_count;
    unsigned max_requests, max_fails; /* of upstreams that a source finds */
    const struct upstream_source *source; /* NULL: none */
    const void *source_cfg;
    uint64_t repeat_ns;
    const struct selection_policy *policy;
    void *policy_cfg;
    int64_t retries;
    uint64_t try_ns, try_interval_ns;
    struct matcher_set *retry_match;
    uint32_t retry_match_count;
    struct matcher_set *answer_match; /* of those, what is asked of answers */
    uint32_t answer_match_count;
    struct passive_health passive;
    struct overload overload;
    struct active_health *active; /* proxy/health_check.h; NULL: none */
    struct active_target *active_targets; /* one per upstream */
    uint32_t active_targets_count;
    const struct http_transport *transport;
    struct ip_set trusted;
    struct field_ops request_ops, response_ops;
    struct response_match require;
    bool has_request_ops, has_response_ops, has_require;
    const struct module *rewrite; /* NULL: none */
    void *rewrite_cfg;
    bool rewrite_drops_body;
    int64_t request_buffers, response_buffers, flush_ns; /* -1: without limit; at once */
    int64_t unknown_buffers; /* the same as the first, of bodies of unknown length only */
    uint64_t stream_ns, stream_close_ns;
    uint32_t stream_buffer; /* of each direction of a tunnel; 0: as is best */
    bool verbose;
    unsigned measuring; /* as of struct provision */
    struct response_handler *handlers;
    size_t handlers_count;
    struct mirror *mirror; /* NULL: none */
    struct hedge *hedge;   /* likewise */
};

/* Why a round ended without an answer. */
enum failure {
    FAILURE_NONE,
    FAILURE_DIAL,     /* no connection: nothing was sent */
    FAILURE_UPSTREAM, /* sent, but no answer, or a bad one */
    FAILURE_STALE,    /* the same on a reused link, before any byte of an answer */
    FAILURE_ANSWER,   /* retry_match would rather have another one */
    FAILURE_CLIENT,   /* the client left, or its body is at fault; told by `error` */
    FAILURE_HANDLED,  /* a handler behind the answer failed: climbs as it is */
};

/* In the exchange's arena: the placeholders outlive the handler. */
struct round {
    struct gateway_view view; /* of the exchange */
    struct exchange *x;
    const struct gateway *g;
    struct upstream_set set; /* of which it was chosen */
    const struct upstream *upstream;
    struct dial_address address; /* of the upstream chosen last */
    struct slice tls_name;       /* when that depends on the request */
    int upstream_requests;       /* as it was chosen */
    unsigned upstream_fails;
    uint64_t start_ns, attempt_ns, connect_ns, latency_ns, upstream_ns,
        total_ns, queued_ns;
    unsigned tries;
    bool reserved;             /* counted as a request of its upstream as that was chosen */
    uint64_t tried[TRIED_MAX]; /* serials of a source's upstreams that failed, the last ones */

    struct slice method, target, host;
    struct uri uri;            /* of the target, after the gateway's own rewrite */
    uint64_t read_by, write_by; /* of the attempt as a whole; 0: no limit */
    struct fields fields;  /* what goes up, before the configuration's changes */
    struct slice body;     /* what of the body is in memory already … */
    bool body_whole;       /* … which is all of it */
    bool has_body, chunked_up, to_head;
    int64_t body_length;   /* -1: unknown */
    struct buffer *held;   /* owner of `body` when it was buffered on the heap */
    char *copy;            /* a small one that is still to come is copied here as it goes up */
    bool body_touched;     /* some of it was taken and is not in memory */

    const struct protocol *protocol; /* what is spoken on the link, or by the call */
    struct link *link;         /* NULL: over HTTP/2 */
    struct h2_call *call;      /* NULL: over a link */
    uint64_t call_after;       /* connections that are as old failed this request */
    uint64_t call_sent;        /* bytes of the body */
    uint64_t body_sent_ns;     /* when one that came bit by bit had gone up; 0 */
    bool unacted;              /* what failed was not looked at by the upstream … */
    bool unasked;              /* … since it was not even asked */
    struct client_answer *answer;
    struct upload *upload_room; /* on the frame of the attempt … */
    struct upload *upload;      /* … for the fiber that sends the body; NULL: there is none */
    struct fields answer_fields; /* without hop-by-hop ones; for {http.reverse_proxy.header.X} */
    struct slice small;    /* of the answer's body, read before anything left: hold_small */
    uint64_t passed;       /* of the body, to the client */
    int status;            /* the upstream's, or what handle_response made of it */
    bool answered, finalized, watching, upgrade;
    bool probe;            /* a question of our own: there is no client, no request to ask, and what
                              goes up is `fields` as they are */
    bool contends;         /* on a fiber that is not the exchange's: up to the first head */
    bool interim;          /* … which is an interim one, that nobody has passed on */
    bool hedged, hedge_won; /* there was a second attempt at once, and it was quicker */
    struct race *race;     /* of which a fiber may still run; NULL: none */
    const struct field *pairs; /* of FastCGI: the environment, made beforehand; NULL: it is made … */
    size_t pairs_count;        /* … at each attempt */
    bool mirror_due;       /* a copy is to be sent once the body is in memory */

    enum failure failure;
    enum err error;        /* FAILURE_CLIENT, FAILURE_HANDLED */
    int fail_status;       /* 502, 503, 504 */
    const char *why;       /* in the arena or constant */
};

/* --- gateway_serve.c --- */

/* The upstreams of now; a source may wait for them. */
enum err gateway_gather(struct round *, struct upstream_set *);

/* Another upstream of the round's set than its own, chosen and counted as the policy says; without
 * waiting. False: there is none. */
bool gateway_choose_other(struct round *);

bool gateway_idempotent(const struct round *);

/* From a link to the head of the answer; on a fresh link, once, when an idle one was closed already. */
enum err gateway_round_trip(struct round *);

/* What an attempt says about its upstream: its head, or failure, came after latency_ns; or it was given
 * up then. */
void gateway_learn(struct round *, enum err);
void gateway_learn_failure(struct round *);
void gateway_learn_beaten(struct round *);

/* --- gateway_config.c --- */
enum err gateway_provision(void *cfg, const json_t *, struct provision *);
void gateway_release(void *cfg);

/* A member of the configuration, the same text for equal ones; empty for none. */
struct slice gateway_part_text(const json_t *, const char *key, struct provision *);

/* The transport's idle connections count together, and with those of equal ones that have the same
 * upstreams, so that a reload begins no other count. `json`: of who has it. */
void transport_count_idle(struct http_transport *, const json_t *json, struct provision *);

/* ERR_INVALID with a sentence in *why. */
enum err dial_address_read(struct dial_address *, struct slice text, const struct http_transport *,
                           struct arena *, struct address_error *why);

/* --- gateway_advice.c --- */

/* Tells, in the log, of what has no effect; once it is provisioned. */
void gateway_advise(const struct gateway *, const json_t *, const struct provision *);

/* --- upstream_source.c --- */

bool upstream_source_varies(const struct gateway *);

/* {"source": NAME, …} */
enum err upstream_source_read(const json_t *, struct provision *, const struct module **, void **cfg);

/* --- health_config.c --- */
enum err gateway_read_active(struct gateway *, const json_t *active, struct provision *);

/* Once the upstreams are there; `json` is the whole handler. */
enum err gateway_begin_checks(struct gateway *, const json_t *json, struct provision *);
void gateway_end_checks(struct gateway *);

/* --- retry_match.c --- */
enum err retry_match_provision(struct gateway *, const json_t *, struct provision *);

/* Whether the request may be sent again though an upstream may have acted on it. */
enum err retry_match_request(struct round *, bool *matches);

/* Of a gateway that asks so (answer_match), with the answer's head: fails the round when another answer is
 * to be tried for. */
enum err retry_match_answer(struct round *);

/* --- dns_source.c --- */
void dns_sources_thread_deinit(void);

/* --- http_transport.c --- */
extern const struct protocol protocol_http;

/* 0: `fallback`; a negative one: none. */
enum err transport_duration(struct provision *, const json_t *, const char *key, int64_t fallback,
                            uint64_t *ns);

/* What the transport's options mean for this request, or, without one, for all. */
struct slice round_text(const struct round *, const struct template *);

const struct http_transport *http_transport_default(struct provision *);

/* A link to the round's address, an idle one unless `fresh`, else a new one; or a call over HTTP/2. */
enum err gateway_connect(struct round *, bool fresh);

/* A new link, in the place that link_reserve gave, of which it lets go when it fails. */
enum err gateway_open_link(struct round *);

/* Room for one more link within max_conns_per_host; an idle one may come up meanwhile. */
enum err gateway_await_room(struct round *);

/* No connection came about. */
enum err gateway_dial_failed(struct round *, enum err, const char *why);

/* --- h2_transport.c --- */
extern const struct protocol protocol_h2;

/* Whether HTTP/2 is, or may be, spoken for this request. */
bool gateway_may_speak_h2(const struct round *);

/* As gateway_connect, where that is so. */
enum err gateway_connect_h2(struct round *, bool fresh);

/* As gateway_round_error, for a round with a call whose answer did not come. */
enum err gateway_h2_failed(struct round *, enum err);

/* --- transport_resolver.c --- */
enum err transport_resolver_provision(struct http_transport *, const json_t *, struct provision *);

/* {"addresses": […]} as the key of a resolver; empty for none. */
enum err resolver_list_read(const json_t *, struct provision *, struct slice *out);

/* This thread's resolver of that list, the usual one for an empty list; NULL when none can be made. */
struct resolver *resolver_of_list(struct slice servers);

/* As await_resolve, by the transport's DNS servers. */
enum err transport_resolve(const struct http_transport *, struct slice host, uint16_t port,
                           uint64_t deadline_ns, struct resolved *);

/* At a worker's end, before its loop settles. */
void transport_resolvers_deinit(void);

/* --- transport_tls.c --- */
enum err transport_tls_provision(struct http_transport *, const json_t *, struct provision *);

/* Whether upstreams of that port are spoken to by TLS. */
bool transport_tls_for(const struct http_transport *, uint16_t port);

/* Once the round has its address: whom the certificate must be for, where a request says that. */
void transport_tls_name(struct round *);

/* As await_link_tls on the round's fresh link. */
enum err transport_tls_handshake(struct round *, char *why, size_t cap);

/* --- transport_proxy.c: proxies, and headers of the PROXY protocol --- */
enum err transport_proxy_provision(struct http_transport *, const json_t *, struct provision *);

/* Sets the address's proxy, and its key accordingly. */
enum err transport_proxy_choose(const struct http_transport *, struct dial_address *,
                                struct arena *, const char **why);

/* The same where a request says which it is. */
enum err transport_proxy_ask(struct round *);

/* A connection that begins with a PROXY header is of one client only: its key. */
void transport_header_key(struct round *);

/* Sends that header on the round's fresh link. */
enum err transport_header_send(struct round *, uint64_t deadline_ns, char *why, size_t cap);

/* On a fresh link to the round's proxy: until it leads to the upstream. */
enum err transport_proxy_pass(struct round *, uint64_t deadline_ns, char *why, size_t cap);

/* --- gateway_request.c --- */

/* Once per request: the fields that go up, and as much of the body as shall be in memory. */
enum err gateway_prepare(struct round *);

/* Protocols: all the parts, changing them; *any once some of it was taken. Then what a failure of it
 * means: OK when an answer may have come all the same. */
enum err gateway_send_parts(struct round *, struct iovec *parts, size_t count, bool *any);
enum err gateway_send_failed(struct round *, enum err, bool any);

/* Of protocols on links. */
void gateway_cut_link(struct round *);
void gateway_interrupt_link(struct round *);

/* The same for pieces of a body, on the fiber of the upload. */
enum err gateway_send_more(struct round *, struct slice bytes);

/* The fields of this attempt: the configuration's changes may depend on the upstream. */
struct fields gateway_fields(struct round *);

/* Whether a proxy is asked for it by its whole URL. */
bool gateway_by_url(const struct round *);

/* The fiber that sends the rest of the body, for as long as the answer is waited for. */
struct upload {
    struct body_reader reader;
    struct round *round;
    struct waiter *waiter;
    enum err result;    /* OK: all was sent */
    bool ended;
    bool client_failed; /* `result` is about the client's side */
};
void upload_begin(struct round *, struct upload *);
void upload_end(struct round *); /* cancels what still runs, and waits for its end */

/* --- mirror.c: copies of requests, whose answers nobody waits for --- */
enum err mirror_provision(struct gateway *, const json_t *, struct provision *);
void mirror_release(struct gateway *);

/* Of a round that was prepared: sends a copy, if it is this one's turn; at once, or, where the body is
 * not in memory yet, at the round's end. Never waits. */
void mirror_request(struct round *);
void mirror_rest(struct round *);

void mirrors_metrics_put(struct buffer *);
void mirrors_drain(void);         /* of this thread: what is under way is given up */
void mirrors_thread_deinit(void); /* at its end, before its links are closed */

/* --- hedge.c: a second attempt while the first is waited for --- */
enum err hedge_provision(struct gateway *, const json_t *, struct provision *);

/* Of a round with an upstream: whether it may be tried twice at once; then, in place of
 * gateway_round_trip, does so when it takes too long. What it leaves behind hedge_join waits for. */
bool hedge_fits(const struct round *);
enum err hedge_round_trip(struct round *);
void hedge_join(struct round *);

void hedges_metrics_put(struct buffer *);

/* --- gateway_answer.c --- */

/* Behind an interim head, which is passed on now, to the final one. */
enum err gateway_go_on(struct round *);

/* Waits for the final head; passes interim ones on. */
enum err gateway_await_answer(struct round *);

/* What becomes of the answer: handle_response, a tunnel, or the copy to the client. */
enum err gateway_finish(struct round *, const struct chain *next);

/* Gives the link back or closes it, or ends the call. */
void gateway_drop_link(struct round *);

/* Notes why the round failed; returns ERR_FAILED. `why` is constant or in the arena. */
enum err gateway_round_error(struct round *, enum failure, int status, const char *why);

/* From now on the client's leaving ends the round, unless its body is still to be read, which tells
 * as well. */
void gateway_watch(struct round *);

bool is_hop_by_hop(struct slice name);

/* --- fastcgi_transport.c --- */
extern const struct protocol protocol_fastcgi;

struct fastcgi_transport {
    struct http_transport link; /* how a connection comes about */
    uint64_t read_ns, write_ns; /* of a request as a whole; 0: no limit */
    struct template root;
    struct slice folder;        /* the process's, for a root that is relative */
    struct slice *splits;       /* in lower case */
    size_t splits_count;
    struct slice *env_names;
    struct template *env_values;
    size_t env_count;
    bool resolve_root, capture;
};

/* --- fastcgi_env.c --- */

/* The variables of CGI, as Caddy gives them; `resolve`: with what the root leads to, which is waited for,
 * where the transport wants that. ERR_FAILED: the exchange has an error. */
enum err fastcgi_environment(struct round *, const struct fastcgi_transport *, bool resolve,
                             struct field **pairs, size_t *count);

/* The root of a request as it is named; and what it leads to, put into variables that were made without that.
 * Waits. False: it leads nowhere, or the fiber was cancelled. */
struct slice fastcgi_root(struct round *, const struct fastcgi_transport *, struct arena *);
bool fastcgi_resolve_later(const struct fastcgi_transport *, struct slice root, struct field *pairs,
                           size_t count, struct arena *);

/* Where a path is split: behind the first of the texts that it holds. SIZE_MAX: none of them. */
size_t fastcgi_split(const struct fastcgi_transport *, struct slice path);

/* --- gateway_log.c --- */

/* How the attempt went until the head of its answer. */
void gateway_log_round(struct round *, enum err);

/* verbose_logs: a step, with up to three fields. */
void gateway_log_step(struct round *, const char *text, const struct log_field *, size_t count);

#define VERBOSE(r, text, ...)                                                                      \
    do {                                                                                           \
        if ((r)->g->verbose) {                                                                     \
            const struct log_field step_[] = {__VA_ARGS__ __VA_OPT__(, ){.kind = LOG_SKIP}};        \
            gateway_log_step(r, text, step_, sizeof step_ / sizeof step_[0] - 1);                  \
        }                                                                                          \
    } while (0)

/* --- gateway_names.c --- */
bool gateway_value(struct exchange *, struct slice name, struct slice *value);

/* --- tunnel.c --- */

/* After a 101: the head to the client, then bytes both ways until one side ends, the timeout
 * passes, or the configuration goes. */
enum err gateway_upgrade(struct round *);
void tunnels_retire_others(const struct generation *newest);
