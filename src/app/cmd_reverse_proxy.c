/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico reverse-proxy: one gateway, without a configuration file.
 */
#include <stdio.h>

#include "adapter/site_address.h"
#include "adapter/upstream_address.h"
#include "app/commands.h"
#include "app/control.h"
#include "app/listening.h"
#include "app/quick.h"
#include "base/log.h"

enum { UPSTREAMS_MAX = 4096 };

static const struct flag flags[] = {
    {"from", 'f', true, NULL, "address on which to receive traffic", "localhost"},
    {"to", 't', true, "strings", "address to send it to; may be given several times", NULL,
     FLAG_COMMAS},
    {"change-host-header", 'c', false, NULL, "send the upstream's address as Host", NULL},
    {"insecure", 0, false, NULL, "do not verify the upstream's certificate (DANGEROUS)", NULL},
    {"disable-redirects", 'r', false, NULL, "do not redirect HTTP to HTTPS", NULL},
    {"internal-certs", 'i', false, NULL, "certificates of the internal authority", NULL},
    {"header-up", 'H', true, "stringArray", "request header field for the upstream, \"Field: value\"",
     NULL, FLAG_REPEAT},
    {"header-down", 'd', true, "stringArray", "response header field, \"Field: value\"", NULL,
     FLAG_REPEAT},
    {"access-log", 0, false, NULL, "log each request", NULL},
    {"debug", 'v', false, NULL, "log more", NULL},
    {0},
};

/* A range of ports is an upstream for each. */
static bool expand(json_t *upstreams, struct slice dial, struct arena *arena)
{
    struct network_address a;
    struct address_error why;
    char port[8];
    if (address_parse(dial, SLICE("tcp"), 0, &a, arena, &why) != OK) {
        cli_fail("invalid upstream address " SLICE_FMT ": %s", SLICE_ARG(dial), why.text);
        return false;
    }
    if (a.first_port == 0 && a.last_port == 0) {
        json_array_append_new(upstreams, json_pack("{s:o}", "dial", quick_text(dial)));
        return true;
    }
    for (unsigned p = a.first_port; p <= a.last_port; p++) {
        if (json_array_size(upstreams) == UPSTREAMS_MAX) {
            cli_fail("more than %d upstreams", UPSTREAMS_MAX);
            return false;
        }
        snprintf(port, sizeof port, "%u", p);
        json_array_append_new(upstreams, json_pack("{s:o}", "dial", quick_text(address_join(
                                         SLICE(""), a.host, slice_from(port), arena))));
    }
    return true;
}

/* `*scheme`: of the first that has one. */
static bool read_upstreams(const struct command_line *l, json_t *upstreams, struct slice *scheme,
                           struct arena *arena)
{
    struct slice to[FLAG_VALUES_MAX];
    size_t n = flag_values(l, "to", to);
    if (n == 0)
        cli_fail("--to is required");
    for (size_t i = 0; i < n; i++) {
        struct upstream_address u;
        struct address_error why;
        if (upstream_address_parse(to[i], &u, arena, &why) != OK) {
            cli_fail("invalid upstream address " SLICE_FMT ": %s", SLICE_ARG(to[i]), why.text);
            return false;
        }
        if (scheme->len == 0)
            *scheme = u.scheme;
        if (!expand(upstreams, upstream_dial(&u, arena), arena))
            return false;
    }
    return n > 0;
}

static bool set_fields(const struct command_line *l, json_t *handler)
{
    json_t *up = json_object(), *down = json_object(), *headers = json_object();
    bool good = quick_fields(l, "header-up", "header-up", up) &&
                quick_fields(l, "header-down", "header-down", down);
    if (flag_on(l, "change-host-header"))
        json_object_set_new(up, "Host", json_pack("[s]", "{http.reverse_proxy.upstream.hostport}"));
    if (json_object_size(up) > 0)
        json_object_set_new(headers, "request", json_pack("{s:O}", "set", up));
    if (json_object_size(down) > 0)
        json_object_set_new(headers, "response", json_pack("{s:O}", "set", down));
    if (json_object_size(headers) > 0)
        json_object_set(handler, "headers", headers);
    json_decref(up);
    json_decref(down);
    json_decref(headers);
    return good;
}

/* NULL when something was refused. */
static json_t *make_handler(const struct command_line *l, struct arena *arena)
{
    struct slice scheme = SLICE("");
    json_t *upstreams = json_array();
    json_t *transport = json_pack("{s:s}", "protocol", "http");
    json_t *handler = json_pack("{s:s,s:o,s:o}", "handler", "reverse_proxy", "transport", transport,
                                "upstreams", upstreams);
    bool good = read_upstreams(l, upstreams, &scheme, arena) && set_fields(l, handler);
    if (good && slice_is(scheme, "https")) {
        json_t *tls = json_object();
        if (flag_on(l, "insecure"))
            json_object_set_new(tls, "insecure_skip_verify", json_true());
        json_object_set_new(transport, "tls", tls);
    }
    if (good)
        return handler;
    json_decref(handler);
    return NULL;
}

/* The address to receive on, with what was left out filled in. */
static bool read_from(const char *from, struct site_address *a)
{
    struct diag why;
    diag_clear(&why);
    if (site_address_parse(slice_from(from), a, &why) != OK) {
        cli_fail("invalid downstream address %s: %s", from, why.text);
        return false;
    }
    if (a->path.len > 0) {
        cli_fail("paths are not allowed: %s", from);
        return false;
    }
    if (a->scheme.len == 0)
        a->scheme = slice_is(a->port, "80") || a->host.len == 0 ? SLICE("http") : SLICE("https");
    if (a->port.len == 0)
        a->port = slice_is(a->scheme, "https") ? SLICE("443") : SLICE("80");
    return true;
}

/* Of the local authority, whatever the name. */
static json_t *internal_certificates(struct slice host)
{
    return json_pack("{s:{s:[{s:[o],s:[{s:s}]}]}}", "automation", "policies", "subjects",
                     quick_text(host), "issuers", "module", "internal");
}

/* *tls stays NULL where nothing is to be said about certificates. */
static json_t *make_server(const struct command_line *l, json_t **tls, struct arena *arena)
{
    struct site_address from;
    if (!read_from(flag_value(l, "from"), &from))
        return NULL;
    if (flag_on(l, "internal-certs") && from.host.len > 0)
        *tls = internal_certificates(from.host);
    json_t *handler = make_handler(l, arena);
    if (handler == NULL)
        return NULL;
    struct slice listen = arena_join(arena, (struct slice[]){SLICE(":"), from.port}, 2);
    json_t *server = json_pack("{s:[o],s:[o]}", "listen", quick_text(listen), "routes",
                               quick_route(json_pack("[o]", handler), from.host));
    if (slice_is(from.scheme, "http"))
        json_object_set_new(server, "automatic_https", json_pack("{s:b}", "disable", 1));
    else if (flag_on(l, "disable-redirects"))
        json_object_set_new(server, "automatic_https", json_pack("{s:b}", "disable_redirects", 1));
    if (flag_on(l, "access-log"))
        json_object_set_new(server, "logs", json_object());
    return server;
}

static int run(const struct command_line *l)
{
    struct arena arena;
    json_t *tls = NULL;
    arena_init(&arena, 16384);
    json_t *server = make_server(l, &tls, &arena);
    arena_deinit(&arena);
    if (server != NULL)
        return quick_keep(l, json_pack("{s:o}", "proxy", server), tls, flag_on(l, "debug"));
    json_decref(tls);
    return EXIT_STARTUP;
}

static void tell_address(struct slice network, struct slice host, unsigned port)
{
    LOG(LOG_INFO, "", "proxying", LOG_STR("network", network), LOG_STR("host", host),
        LOG_NUM("port", port));
}

static void started(void)
{
    listening_each(tell_address);
}

static int serve(const struct command_line *l)
{
    (void)l;
    return quick_serve(started);
}

const struct command command_reverse_proxy = {
    .name = "reverse-proxy",
    .usage = "[--from <addr>] [--to <addr>] [--change-host-header] [--insecure] [--internal-certs] "
             "[--disable-redirects] [--header-up \"Field: value\"] [--header-down \"Field: value\"] "
             "[--access-log] [--debug]",
    .help = "Hands requests on to other servers",
    .about = "A gateway without a configuration file: what comes to --from is handed on to --to. With a\n"
             "host and without a port, --from means HTTPS; --from :8080 means HTTP.\n\n"
             "--change-host-header is short for\n"
             "--header-up \"Host: {http.reverse_proxy.upstream.hostport}\".",
    .flags = flags,
    .run = run,
    .serve = serve,
};
