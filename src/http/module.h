/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Modules: whatever has a Caddy module id in the JSON configuration. A module is provisioned once
 * per configuration into memory of the generation (its arena), and then only read, by all workers
 * at once. The table of all modules is app/'s; it comes here by a pointer.
 */
#pragma once

#include <jansson.h>

#include "base/arena.h"
#include "http/exchange.h"
#include "http/template.h"

struct active_target;
struct chain;
struct gateway;
struct named_route;
struct pki;
struct provision;
struct storage;

struct module {
    const char *id; /* "http.handlers.static_response", "http.matchers.path" */
    size_t cfg_size;
    /* Fills the zeroed cfg from its JSON. An unknown member is an error: call provision_members. */
    enum err (*provision)(void *cfg, const json_t *, struct provision *);
    void (*release)(void *cfg); /* may be NULL: all was in the arena */
    /* Handlers: on the exchange's fiber; may wait. */
    enum err (*serve)(const void *cfg, struct exchange *, const struct chain *next);
    /* Request matchers: may wait. An error ends the request as a failed handler would. */
    enum err (*match)(const void *cfg, struct exchange *, bool *matches);
    /* Modules of other namespaces (encoders, transports, log writers …): the functions that their
     * host calls; the host's header says of which type. */
    const void *face;
};

struct provision_release {
    struct provision_release *next;
    void (*release)(void *);
    void *cfg;
};

struct wanted_name {
    struct wanted_name *next;
    struct slice name;
};

struct provision {
    struct arena *arena; /* the generation's */
    const struct module *const *modules; /* ends with NULL */
    struct provision_release *releases;  /* run, newest first, when the generation ends */
    struct slice path; /* where in the document: "apps.http.servers.srv0.routes[0].handle[0]" */
    char error[1024];  /* the sentence, with that path, after a failure */
    const struct log_set *logs; /* of the configuration; base/log_stream.h; NULL: none */
    struct map *groups; /* route group names of the server in hand → number, from 1 */
    struct named_route *named_routes;    /* of the server in hand; http/route.h */
    size_t named_routes_count;
    struct slice server_name;
    const json_t *server; /* the server in hand, for handlers that look at it */
    struct storage *storage; /* of the document, pki/storage.h; NULL: none is open */
    struct slice data_folder; /* where a storage is that names no folder */
    struct pki *pki; /* authorities of our own, certs/pki_app.h; NULL: not read yet */
    struct wanted_name *wanted_names; /* that need a certificate besides those of sites */
    struct gateway *gateways; /* all of them, proxy/ */
    unsigned measuring;       /* 0: no metrics are wanted; else so many workers count */
    struct active_target *active_targets; /* upstreams that are asked how they are, proxy/ */
    uint16_t http_port, https_port; /* of the app "http"; 0: not said */
    const json_t *services; /* the app: the gateway's upstreams look for names there; NULL: none */
    bool sandboxed; /* the server process may start no program (app/server_sandbox.h) */
    const json_t *tls; /* the app: issuers look for "dns" and "resolvers" there; NULL: none */
};

/* Sets the error sentence; returns ERR_INVALID. */
enum err provision_fail(struct provision *, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

const struct module *provision_find(const struct provision *, struct slice id);

/* A certificate of the manager for that name is needed by what is provisioned here. */
void provision_want_name(struct provision *, struct slice name);

/* Runs when the generation ends, or at once when provisioning fails. */
void provision_on_release(struct provision *, void (*release)(void *), void *cfg);

/* Finds "space.name" and provisions it from its JSON into memory of the generation; its release is
 * kept for the generation's end. An unknown id fails with Caddy's words. */
enum err provision_module(struct provision *, const char *space, const char *name, const json_t *,
                          const struct module **module, void **cfg);

/* Fails on the first member whose name is not in `known` (ends with NULL); "handler" is allowed. */
enum err provision_members(struct provision *, const json_t *object, const char *const known[]);

/* Optional members with defaults. Wrong types fail with the member's name. */
enum err provision_text(struct provision *, const json_t *, const char *key, struct slice fallback,
                        struct slice *out);
enum err provision_template(struct provision *, const json_t *, const char *key,
                            struct slice fallback, struct template *out);
enum err provision_bool(struct provision *, const json_t *, const char *key, bool fallback,
                        bool *out);
enum err provision_int(struct provision *, const json_t *, const char *key, int64_t fallback,
                       int64_t min, int64_t max, int64_t *out);
/* Nanoseconds as a number, or text such as "1m30s". */
enum err provision_duration(struct provision *, const json_t *, const char *key, int64_t fallback,
                            int64_t *out);
/* An array of strings; *out is in the arena. */
enum err provision_texts(struct provision *, const json_t *, const char *key, struct slice **out,
                         size_t *count);
