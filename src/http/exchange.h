/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request and its response, from the parsed head to the access log. It lives on a fiber of one
 * worker; its memory is one arena, reset at its end. Handlers are ordinary functions on that fiber:
 * they may wait, answer, wrap the sink, or call chain_next (http/route.h) and look at what came
 * back.
 */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/arena.h"
#include "http/fields.h"
#include "http/sink.h"

struct exchange;
struct log_field;
struct generation;
struct http_server;
struct stream;
struct tls_stream;

enum method { METHOD_OTHER, METHOD_GET, METHOD_HEAD, METHOD_POST, METHOD_PUT, METHOD_DELETE,
              METHOD_OPTIONS, METHOD_PATCH, METHOD_CONNECT, METHOD_TRACE };

struct uri {
    struct slice path;     /* percent-decoded once; begins with '/' (or is "*") */
    struct slice raw_path; /* as it came (or escaped anew after a rewrite) */
    struct slice query;    /* raw, without '?' */
    bool has_query;        /* "?" stood there, even with nothing behind */
};

struct request {
    enum method method_id;
    struct slice method;
    struct slice target;  /* as it came */
    struct uri uri;       /* rewritten by handlers */
    struct slice host;    /* Host or authority as it came, with its port */
    struct slice scheme;  /* "http" or "https" */
    uint8_t major, minor; /* 1, 0 … 1 (2, 0 later) */
    struct fields fields;
    int64_t content_length; /* -1: chunked or unknown; 0: no body */
    bool has_body;
    struct slice upgrade;   /* value of Upgrade when Connection names it, else empty */
    struct slice original_method, original_host;
    struct uri original_uri; /* {http.request.orig_uri…} */
};

struct response {
    int status; /* 0: not yet chosen, sent as 200 */
    struct fields fields;
    int64_t content_length; /* -1: unknown; the wire chooses chunked or close */
    bool head_sent;         /* the head has reached the wire's sink */
    bool no_date;           /* a handler removed Date */
    bool length_told;       /* whose length it is said so itself, as a file and an upstream do: logged */
    const struct fields *trailers; /* sent behind a chunked body; NULL: none */
};

/* What the protocol below an exchange provides (wire/h1, later h2). */
/* A connection that goes on as bare bytes when its exchange has ended: a tunnel. In the memory of who
 * has it. */
struct takeover {
    struct stream *stream;            /* the connection's, until let_go; behind the exchange's end another */
    void (*hurry)(struct takeover *); /* the holder's: it is to end now; it ends later */
    void (*let_go)(struct takeover *); /* the carrier's: closes the connection, or resets the stream of one
                                        * that has several; off it, none armed */
    void *carrier;                 /* the carrier's, too, as is the next */
    struct generation *generation; /* held until let_go */
    struct access_later *log; /* http/access_log.h: a line that the holder ends; NULL: none */
};

struct carrier_type {
    /* Up to `cap` bytes of the body; *n = 0 at its end. May wait. ERR_CLOSED, ERR_TIMEOUT,
     * ERR_INVALID (malformed chunk: the exchange has status 400), ERR_LIMIT. */
    enum err (*read_body)(struct exchange *, char *buf, size_t cap, size_t *n);
    /* Trailers that came behind a chunked body, NULL before its end or without any. */
    const struct fields *(*trailers)(struct exchange *);
    /* Whether some may still come: the end of the request is not known yet. */
    bool (*may_trail)(struct exchange *);
    /* Hands over the connection's stream (tls/stream.h) after a 101 head, and bytes already read.
     * ERR_UNSUPPORTED where there is no such thing. The caller has the stream until it returns
     * from its handler; the wire closes the connection then. */
    enum err (*take_over)(struct exchange *, struct stream **, struct slice *already_read);
    /* The same for longer: once the exchange has ended, the stream is the holder's, who waits for it
     * without a fiber if it likes. Nothing may wait between the handler's return and the exchange's
     * end hooks. Before the head, which is sent then. */
    enum err (*keep)(struct exchange *, struct takeover *, struct slice *already_read);
    /* Bytes of the body that have come already; a read of so many does not wait. */
    size_t (*body_ready)(struct exchange *);
    /* While on, the client's leaving cancels the exchange's fiber with ERR_CLOSED. Nothing else may
     * be read from the client meanwhile. May wait when turned off. */
    void (*watch)(struct exchange *, bool on);
    /* Whether the client has broken its connection, or reset its stream, for while a watch is not
     * possible since its body is not read. */
    bool (*has_left)(struct exchange *);
    /* Fills remote_host and remote_port, or local_host and local_port; asked for at their first use
     * only. */
    void (*addresses)(struct exchange *);
    void (*local_addresses)(struct exchange *);
};

/* What the gateway knows of an exchange that it has in hand, for {http.reverse_proxy.NAME}. */
struct gateway_view {
    bool (*value)(struct exchange *, struct slice name, struct slice *value);
};

/* Who reads the body on a fiber of its own while the handler does something else. Two cannot read at
 * a time: anybody else who wants to stops it first. */
struct body_reader {
    struct fiber *fiber;
    void (*stop)(struct body_reader *); /* returns when it has ended; may wait */
};

struct exchange_var {
    struct slice name, value;
};

/* Placeholders that are found out when somebody asks: the map handler's. Names of the server's own
 * and variables come first, then these in their order. */
struct exchange_mapper {
    struct exchange_mapper *next;
    bool (*get)(struct exchange *, const void *cfg, struct slice name, struct slice *value);
    const void *cfg;
    bool busy; /* finding one out, it asks for itself */
};

struct exchange_hook {
    struct exchange_hook *next;
    void (*run)(struct exchange *, void *arg); /* at the end, newest first; must not wait */
    void *arg;
};

struct exchange_error {
    int status;           /* 0: no error */
    struct slice message; /* {http.error.message}, for the log and handle_errors */
    char id[10];          /* {http.error.id} */
};

struct exchange {
    struct arena *arena;
    struct request req;
    struct response res;
    struct sink *sink; /* the top of the stack */
    const struct carrier_type *carrier;
    struct tls_stream *tls;           /* tls/tls_stream.h; NULL: clear text */
    const struct http_server *server; /* of the generation below */
    struct generation *generation;
    struct worker *worker;

    struct sockaddr_storage *remote, *local; /* the connection's */
    struct slice remote_host, remote_port;   /* text forms: behind exchange_addresses only */
    struct slice local_host, local_port;     /* behind exchange_local only */
    struct slice client_ip;                  /* after trusted_proxies; the peer's else; likewise */
    bool client_is_proxy;                    /* the peer is one of the trusted proxies; likewise */

    struct exchange_var *vars; /* the vars handler, matchers' captures (as full placeholder keys) */
    uint32_t vars_count, vars_cap;
    struct exchange_mapper *mappers;
    uint64_t groups; /* bit N: a route of group N (1 … 63) has matched */
    uint64_t *more_groups; /* those from 64 on, as bits from 0; NULL: none has */

    struct exchange_error error;

    uint64_t body_max;     /* request_body max_size; UINT64_MAX: none */
    struct slice body;     /* bytes in memory that are read first */
    bool body_set;         /* nothing comes behind them */
    struct body_reader *body_reader; /* NULL: none */
    uint64_t read_by_ns, answer_by_ns; /* request_body's timeouts, monotonic; 0: none */
    uint64_t body_read;    /* bytes of the body that handlers have read */
    uint64_t bytes_sent;   /* of the body, on the wire */
    uint64_t start_ns;     /* monotonic */
    int64_t start_wall_ns;
    char uuid[37];         /* {http.request.uuid}, made at first use; "" before */
    bool close_after;      /* do not keep the connection */
    struct takeover *taken; /* goes on behind the exchange's end; NULL: nothing does */
    bool log_skip;
    struct slice log_user; /* user_id of the access log */
    struct exchange_hook *hooks;
    struct gateway_view *gateway; /* NULL before there was one */
    bool timed;            /* head_ns is wanted: metrics */
    uint64_t head_ns;      /* when a head was first given to the sinks */
    struct log_field *log_extra; /* of the access log: access_log_add */
    uint32_t log_extra_count;
};

void exchange_find_client(struct exchange *); /* http/client_ip.c; for exchange_addresses only */

/* Formatting that most requests can do without. */
static inline void exchange_addresses(struct exchange *x)
{
    if (x->remote_host.ptr == NULL && x->carrier != NULL) {
        x->carrier->addresses(x);
        exchange_find_client(x);
    }
}

static inline void exchange_local(struct exchange *x) /* local_host, local_port */
{
    if (x->local_host.ptr == NULL && x->carrier != NULL)
        x->carrier->local_addresses(x);
}

static inline bool exchange_answered(const struct exchange *x)
{
    return x->res.head_sent;
}

/* Answers with a whole body, which must live as long as the exchange (arena, constant or
 * generation). Sets Content-Length; sends nothing for HEAD, 204 and 304 but the head. */
enum err exchange_answer(struct exchange *, int status, struct slice body);

/* Parts of the same, for bodies that come piece by piece; through the top of the sink stack. */
enum err exchange_head(struct exchange *);
enum err exchange_data(struct exchange *, struct slice, enum lend);
enum err exchange_file(struct exchange *, int fd, uint64_t offset, uint64_t len);
enum err exchange_flush(struct exchange *);
enum err exchange_end(struct exchange *);

/* An error that climbs the chain to handle_errors: returns ERR_FAILED with status and message set.
 * `message` must be constant or in the arena. */
enum err exchange_fail(struct exchange *, int status, const char *message);
enum err exchange_fail_f(struct exchange *, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The whole body, which can be read again afterwards; false when it is longer than 1 MiB or breaks
 * off. {http.request.body}. */
bool exchange_whole_body(struct exchange *, struct slice *);

/* Reads of the body, within body_max: beyond it ERR_FAILED with 413. */
enum err exchange_read(struct exchange *, char *buf, size_t cap, size_t *n);

/* True when neither method nor status allows a body in the response. */
bool exchange_bodiless(const struct exchange *, int status);

/* Variables, by name without braces: what `vars` sets is "http.vars.NAME". */
void exchange_set_var(struct exchange *, struct slice name, struct slice value);
bool exchange_get_var(const struct exchange *, struct slice name, struct slice *value);

/* Adds a source of placeholders behind those that are there. */
void exchange_add_mapper(struct exchange *, struct exchange_mapper *);
bool exchange_mapped(struct exchange *, struct slice name, struct slice *value);

/* Runs at the exchange's end. */
void exchange_on_end(struct exchange *, void (*run)(struct exchange *, void *), void *arg);

/* Pushes a wrapper on the sink stack; `s` must live in the arena or on the handler's frame until
 * the response has ended. */
void exchange_wrap(struct exchange *, struct sink *s, const struct sink_type *);

enum method method_parse(struct slice);

/* "OK", "Not Found" …; "" when unknown. */
const char *status_text(int status);
