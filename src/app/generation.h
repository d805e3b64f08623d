/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A generation: one configuration, provisioned. Immutable once made; every worker reads it at once
 * and holds it by a count of its own, so that a request costs no atomic operation. It is freed on
 * the control thread when the last worker has let go.
 */
#pragma once

#include <stdatomic.h>

#include "certs/shared_tickets.h"
#include "config/kept_json.h"
#include "config/origin.h"
#include "http/auto_https.h"
#include "http/server.h"
#include "logs/logging.h"
#include "loop/loop.h"
#include "ports/declared.h"

/* One socket address that a server of the generation answers on. */
struct bound {
    struct slice key; /* "tcp/:80": the same address has the same key in every generation */
    struct slice network, host;
    uint16_t port;
    const struct http_server *server;
    unsigned protocols; /* HTTP_1 | … */
    bool tls;           /* encrypted, by the server's policies */
};

struct generation_slot { /* one worker's hold */
    unsigned refs;
    bool retired; /* a newer one has come: the last ref lets go */
} __attribute__((aligned(64)));

struct automation;
struct service;

struct ticket_options { /* of sessions; 0: the default */
    struct ticket_source source; /* of keys that are shared, if it has a storage */
    bool never_rotate, disabled;
};

struct generation {
    struct arena arena;
    struct provision provision;
    struct http_server *servers;
    size_t servers_count;
    struct bound *bounds;
    size_t bounds_count;
    struct logging logging;
    struct http_metrics *metrics; /* NULL: not wanted */
    struct kept_json document; /* as it came; "null" for none */
    json_t *plain; /* the same without "@id" members; NULL once it is provisioned, like the next one */
    const struct origins *origins; /* where its values came from; NULL: not known */
    struct auto_https https; /* what is provisioned in its place */
    struct service *services; /* services/service.h */
    size_t services_count;
    struct automation *automation; /* of certificates; NULL: there is none to be had */
    struct ticket_options tickets;
    struct slice data_folder; /* where the storage is, when the document does not say */
    uint16_t http_port; /* is never encrypted */
    uint64_t grace_ns, shutdown_delay_ns;
    atomic_uint_fast64_t shutdown_ns; /* the one member that changes: when a delayed stop begins */
    struct slice user;         /* whose the server process shall be; empty: as it was started */
    struct slice admin_listen; /* empty: the default */
    struct ports_policy ports; /* the app of that name */
    bool has_ports;            /* it is there */
    const struct port_declaration *declared; /* all ports that the document names */
    size_t declared_count;
    bool admin_disabled, admin_enforce_origin;
    bool admin_origins_given; /* as an array, be it empty */
    bool persist;             /* the document is to be saved for --resume */
    struct slice *admin_origins;
    size_t admin_origins_count;
    unsigned workers;
    atomic_uint holders; /* workers, and others, that have not let go */
    struct loop *control;
    struct mail freed;
    struct generation_slot *slots; /* one per worker */
};

/* Provisions a whole document, of which only the text is kept. On failure *out is NULL and `error` holds the
 * sentence. */
enum err generation_create(json_t *document, unsigned workers, struct generation **out, char *error,
                           size_t cap);

/* On the control thread, when nobody holds it. */
void generation_free(struct generation *);

/* Somebody else who holds it, until generation_let_go; from any thread that has it. */
void generation_keep(struct generation *);
void generation_let_go(struct generation *);

/* A worker's holds; on its own thread. */
static inline void generation_hold(struct generation *g, unsigned worker)
{
    g->slots[worker].refs++;
}
void generation_release(struct generation *, unsigned worker);

/* The worker goes over to another one. */
void generation_retire(struct generation *, unsigned worker);
