/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How connections of one server are encrypted: the connection policies of the configuration as
 * plain data, and what a ClientHello says, by which one of them is chosen. The library stands behind
 * tls_server_finish only.
 */
#pragma once

#include <sys/socket.h>

#include "base/arena.h"

enum tls_version { TLS_1_2 = 0x0303, TLS_1_3 = 0x0304 };

struct tls_hello {
    struct slice server_name; /* lower case; empty: none sent */
    struct slice alpn;        /* the extension's list, length-prefixed; may be empty */
    const struct sockaddr_storage *remote, *local;
};

struct tls_matcher {
    bool (*matches)(const void *cfg, const struct tls_hello *);
    const void *cfg;
};

enum tls_client_auth { TLS_CLIENT_NONE, TLS_CLIENT_REQUEST, TLS_CLIENT_REQUIRE,
                       TLS_CLIENT_VERIFY_IF_GIVEN, TLS_CLIENT_REQUIRE_AND_VERIFY };

/* Which credential, where several have the name: every member that is set must hold. */
struct tls_selection {
    struct slice *serials, *organizations, *any_tag, *all_tags;
    size_t serials_count, organizations_count, any_tag_count, all_tags_count;
    int key_algorithm; /* 0: any; 1 RSA, 3 ECDSA, 4 Ed25519 (Go's numbers) */
    struct tls_selection *next; /* the next to try: "certificate_selection" policies in order */
};

struct tls_policy {
    struct slice *names; /* by_name: server names, or patterns of them, one of which it must be */
    size_t names_count;
    bool by_name;
    const struct tls_matcher *matchers; /* all must match, too; none: everything */
    size_t matchers_count;
    struct tls_selection *selection; /* NULL: the first */
    uint16_t min_version, max_version; /* 0: TLS 1.2 and the newest */
    struct slice *ciphers; /* IANA names; of TLS 1.2 only, as in Go; empty: the defaults */
    size_t ciphers_count;
    struct slice *curves;  /* Caddy's names: "x25519mlkem768", "x25519", "secp256r1" … */
    size_t curves_count;
    struct slice *alpn;    /* "h2", "http/1.1" in order of preference; empty: the server's */
    size_t alpn_count;
    enum tls_client_auth client_auth;
    struct slice *client_cas; /* DER, trusted for clients */
    size_t client_cas_count;
    struct slice *client_leafs; /* DER: only these are let in; none: any that is trusted */
    size_t client_leafs_count;
    struct slice default_sni, fallback_sni;
    struct slice secrets_log; /* a path; empty: none */
    bool drop; /* matching connections are closed without a word */
    struct tls_context *context; /* set by tls_server_finish */
};

struct tls_server {
    struct tls_policy *policies; /* tried in order; none matches: the handshake fails */
    size_t count;
    struct policy_index *index; /* set by tls_server_finish */
    bool h1, h2;       /* protocols that are spoken: the ALPN that is offered by default */
    bool no_tickets;   /* session_tickets.disabled */
};

/* Makes the library's contexts. ERR_INVALID with a sentence. On the control thread. */
enum err tls_server_finish(struct tls_server *, char *why, size_t cap);
void tls_server_release(struct tls_server *);
