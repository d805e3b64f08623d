/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of the adapter share: one adaptation's state, the values that directives give, and
 * how JSON is built. Every JSON value made here belongs to the adaptation, which drops all of them
 * at its end: callers never count references.
 */
#pragma once

#include <jansson.h>

#include "base/arena.h"
#include "base/map.h"
#include "config/caddyfile.h"
#include "config/origin.h"

/* --- one adaptation --- */

struct kept {
    json_t *value;
    struct kept *next;
};

struct bind_value {
    struct slice *addresses;
    size_t address_count;
    struct slice *protocols;
    size_t protocol_count;
};

/* A `log`, of a site or global. */
struct log_value {
    struct slice name; /* "" : the default logger, unchanged */
    struct slice *hostnames;
    size_t hostname_count;
    json_t *log; /* NULL: nothing was said about it */
    bool no_hostname;
};

struct route {
    struct slice group;
    json_t *match; /* array of matcher sets, or NULL */
    json_t *handle;
    bool terminal;
};

/* What one `tls` directive says. */
struct tls_value {
    json_t *policy;   /* of connections; never NULL */
    json_t *issuers;  /* of certificates, or NULL */
    json_t *managers; /* likewise */
    json_t *loaders;  /* {"load_files": […], "load_folders": […]}, or NULL */
    struct slice key_type;
    double renewal_window_ratio; /* 0: not set */
    bool on_demand, reuse_private_keys, force_automate;
};

enum value_kind {
    VALUE_ROUTE,
    VALUE_ROUTES,
    VALUE_ERRORS,
    VALUE_BIND,
    VALUE_LOG,
    VALUE_INVOKED,
    VALUE_TLS,
    VALUE_CA,
};

/* What a directive gives to its site. */
struct config_value {
    enum value_kind kind;
    struct slice directive;
    struct route route;        /* VALUE_ROUTE */
    struct route *routes;      /* VALUE_ROUTES: kept together, in this order; VALUE_ERRORS */
    size_t route_count;
    struct bind_value *bind;
    struct log_value *log;
    struct tls_value *tls;
    struct slice name;         /* VALUE_INVOKED: of a named route; VALUE_CA: its id */
};

struct values {
    struct config_value *items;
    size_t count, cap;
    bool looked_at; /* for what is never reached: a site's are built for each of its servers */
};

struct counter {
    unsigned next;
};

/* A `servers` block of the global options. */
struct server_options {
    struct slice listener; /* "": all */
    struct slice name;
    json_t *members; /* of the server's JSON */
    bool log_credentials, trace;
};

/* The global options; what is about certificates is in tls_options. */
struct options {
    bool debug, persist_off;
    bool has_http_port, has_https_port;
    int64_t http_port, https_port;
    int64_t grace_period, shutdown_delay; /* ns; 0: not set */
    struct slice *auto_https;
    size_t auto_https_count;
    struct slice default_sni, fallback_sni;
    struct slice user; /* ours: "name[:group]" */
    bool sandbox;      /* ours */
    json_t *admin, *metrics, *storage, *filesystems, *events, *ports; /* NULL: not set */
    struct bind_value **default_bind;
    size_t default_bind_count;
    struct log_value **logs;
    size_t log_count;
    struct server_options *servers;
    size_t server_count;
    json_t *services; /* ours; NULL: none */
    struct service_place *service_places; /* in the same order; service_option.c */
};

/* Those about certificates. NULL or empty: not set. */
struct tls_options {
    struct slice email, acme_ca, acme_ca_root, key_type;
    struct slice *resolvers;
    size_t resolver_count;
    json_t *issuers, *dns, *acme_dns, *acme_eab, *preferred_chains, *on_demand, *ech, *authorities;
    int64_t cert_lifetime, renew_interval, ocsp_interval, storage_clean_interval;
    double renewal_window_ratio;
    bool has_key_type, has_acme_dns, local_certs, stapling_off, storage_check_off,
        storage_clean_off, skip_install_trust;
};

/* A certificate's file of a `tls` directive: its tag in the document is "certN". */
struct cert_tag {
    struct slice certificate;
    unsigned number;
};

struct named_route {
    struct slice name;
    struct route route;
    struct values invoked; /* names that it invokes itself */
    struct named_route *next;
};

struct adapt {
    struct arena *arena;
    struct diag *diag;
    struct kept *kept;
    json_t *warnings;
    struct options options;
    struct tls_options tls;
    struct map cert_tags; /* struct cert_tag, by file */
    const char **order; /* directive names, first to last */
    size_t order_count;
    struct named_route *named_routes;
    struct values *invoked; /* where `invoke` notes its names */
    unsigned log_counter;
    struct counter groups;
    bool alone; /* opens no file */
    struct origins *origins; /* where values came from; NULL: nobody asks */
};

/* --- directives --- */

struct matcher_def {
    struct slice name; /* with its "@" */
    json_t *set;
    const struct matcher_def *next;
};

/* Shared by the directives of one block. */
struct block_state {
    struct slice root; /* the last `root *`, for directives that look at files while adapting */
};

/* All that a directive may look at. Copied for inner scopes. */
struct helper {
    struct dispenser d;
    struct adapt *a;
    const struct matcher_def *defs;
    struct block_state *block;
    const struct server_block *parent;
    struct counter *groups;
};

struct directive {
    const char *name, *syntax, *help;
    /* Either: gives values itself. */
    enum err (*parse)(struct helper *, struct values *);
    /* Or: gives a handler, which a route with the directive's matcher is made of; the module's name
     * is written to the handler's "handler". */
    enum err (*handler)(struct helper *, json_t **);
    const char *module;
};

/* NULL when there is none. */
const struct directive *directive_find(struct slice name);

/* The one whose name is most like this; NULL when none is. */
const char *directive_near(struct slice name);
enum err directive_run(const struct directive *, struct helper *, struct values *);
const char *const *directive_default_order(size_t *count);
size_t directive_count(void);

/* The block behind the current directive as directives of their own: sorted into a list of routes,
 * or in the order they stand in. */
enum err helper_subroute(struct helper *, bool sorted, struct route **routes, size_t *count);
enum err helper_values(struct helper *, struct values *);
enum err build_routes(struct adapt *, struct values *, struct counter *, bool sorted,
                      struct route **routes, size_t *count);

/* {"handler": "subroute", "routes": […]} */
json_t *subroute_handler(struct adapt *, const struct route *, size_t count);

/* The first argument when it is a matcher ("*", "/path", "@name"), taken out of the words; the
 * cursor is before the directive's name again. `set` is NULL for none and for "*". */
enum err helper_matcher(struct helper *, json_t **set);
void helper_add_route(struct helper *, struct values *, json_t *set, json_t *handler,
                      const char *module);
struct slice next_group(struct adapt *, struct counter *);
struct config_value *values_add(struct adapt *, struct values *, enum value_kind);

/* "@name …" lines to definitions. */
enum err matcher_define(struct adapt *, struct dispenser *, const struct matcher_def **defs);

/* "name args…" or a block of them to one matcher set. */
enum err matcher_set_parse(struct adapt *, struct dispenser *, json_t **set);

/* "header …", "status …" to a response matcher, which `name` receives the name of. */
enum err response_matcher_parse(struct adapt *, struct dispenser *, struct slice *name,
                                json_t **matcher);

/* --- JSON --- */

json_t *keep(struct adapt *, json_t *);
json_t *j_object(struct adapt *);
json_t *j_array(struct adapt *);
json_t *j_text(struct adapt *, struct slice);
json_t *j_int(struct adapt *, int64_t);
json_t *j_strings(struct adapt *, const struct slice *, size_t count);

/* An object's member; a key that came from outside may hold anything but NUL. */
void j_set(struct adapt *, json_t *object, const char *key, json_t *value);
void j_set_key(struct adapt *, json_t *object, struct slice key, json_t *value);
json_t *j_get(const json_t *object, struct slice key);

/* Not set when empty, zero, false: Go's omitempty. */
void j_put_text(struct adapt *, json_t *object, const char *key, struct slice);

/* A status as Caddy takes it: a number when it is one, "true"/"false" as such, else text. */
void j_put_weak(struct adapt *, json_t *object, const char *key, struct slice);
void j_put_int(struct adapt *, json_t *object, const char *key, int64_t);
void j_put_bool(struct adapt *, json_t *object, const char *key, bool);
void j_put_strings(struct adapt *, json_t *object, const char *key, const struct slice *, size_t);
void j_append(json_t *array, json_t *value);
void j_append_text(struct adapt *, json_t *array, struct slice);

/* The object at a path such as "health_checks.active", made where it is missing. */
json_t *j_at(struct adapt *, json_t *object, const char *path);

/* A module's object with its inline key, all keys sorted, as Caddy's own adapter leaves it. */
json_t *j_module(struct adapt *, const char *key, const char *name, json_t *object);

/* Field names as HTTP writes them ("Content-Type"); names that are no token stay as they are. */
struct slice canonical_field(struct arena *, struct slice);

/* Keys in the order of their bytes, as Go writes maps: of this object alone, or of all inside too. */
json_t *j_by_name(struct adapt *, json_t *object);
json_t *j_sorted(struct adapt *, json_t *value);

/* The same members in the order of `keys` (NULL-terminated), as a Go struct has them; unknown ones
 * behind them. */
json_t *j_ordered(struct adapt *, json_t *object, const char *const *keys);

/* Stable, and in the steps of Go's sort.SliceStable, since some of Caddy's comparisons are no order
 * and what comes of them hangs on the steps. */
void sort_stable(void *items, size_t count, size_t size,
                 bool (*before)(const void *, const void *, const void *), const void *context);

/* Appends `value` to the list at `key`. */
void j_add_to_list(struct adapt *, json_t *object, struct slice key, json_t *value);

/* Appends the words of the line to it, of which there must be one. */
enum err more_words(struct adapt *, struct dispenser *, json_t *object, const char *key);

/* --- reading options of a block: "name value" lines that become a member --- */

enum option_kind {
    OPTION_TEXT,     /* one argument */
    OPTION_TEXTS,    /* one or more */
    OPTION_INT,      /* a decimal integer */
    OPTION_DURATION, /* to nanoseconds */
    OPTION_SIZE,     /* "10MB" to bytes */
    OPTION_BYTES,    /* likewise, or "unlimited": -1 */
    OPTION_FLAG,     /* no argument: true */
    OPTION_OFF,      /* no argument: false */
};

struct option {
    const char *name;
    enum option_kind kind;
    const char *path; /* of the member: "health_checks.active.uri" */
    const char *what; /* "bad duration value" in errors; NULL for "bad value" */
};

/* Whether the word at the cursor is one of the options (NULL-named last), which was read then. */
enum err option_read(struct adapt *, struct dispenser *, const struct option *, json_t *object,
                     bool *known);

/* A share between 0 and 1. */
enum err ratio_read(struct dispenser *, struct slice, double *);

/* Numbers with Go's words for what is wrong with them. */
enum err read_int(struct dispenser *, struct slice, const char *what, int64_t *);
enum err read_duration(struct dispenser *, struct slice, const char *what, int64_t *ns);

/* The word at hand, where Caddy does not say where the wrong one stands. */
enum err bare_duration(struct adapt *, struct dispenser *, int64_t *ns);
enum err read_size(struct dispenser *, struct slice, const char *what, int64_t *);

/* --- other parts --- */

void shorthands_apply(struct arena *, struct token *, size_t count);

/* The shorthand whose meaning this is, without braces; empty when none. */
struct slice shorthand_of(struct slice placeholder);

/* "addresses… { protocols … }" behind the name of the directive or option. */
enum err bind_read(struct dispenser *, struct bind_value *);
enum err log_read(struct helper *, bool global, struct log_value **);
enum err header_op(struct adapt *, struct dispenser *, json_t *ops, json_t *response,
                   struct slice field, struct slice value, const struct slice *replacement);

/* "10.0.0.0/8" … when the word is "private_ranges", else the word. */
void add_ranges(struct adapt *, json_t *array, struct slice word);
/* Puts words and ": " before what the diag says. */
void diag_prefix(struct adapt *, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "getting module named …: module not registered: …" */
enum err no_module(const struct dispenser *, const char *space, struct slice name);

/* Notes where a value of the document comes from (config/origin.h). */
void adapt_origin(struct adapt *, struct slice path, struct slice name, struct slice file,
                  unsigned line);

void adapt_warn(struct adapt *, const struct token *, struct slice directive, const char *message);
