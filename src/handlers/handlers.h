/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The modules of this room, for the table of all modules in app/. Each is described by its JSON,
 * which is Caddy's; what a handler does stands at the top of its source.
 */
#pragma once

#include "http/module.h"

extern const struct module handler_static_response; /* respond, redir, abort */
extern const struct module handler_error;           /* error */
extern const struct module handler_subroute;        /* handle, route, handle_path … */
extern const struct module handler_acme_server;     /* acme_server */
extern const struct module handler_authentication;  /* basic_auth */
extern const struct module handler_encode;          /* encode; its encoders: encoder.h */
extern const struct module handler_intercept;       /* intercept */
extern const struct module handler_map;             /* map */
extern const struct module handler_push;            /* push: without effect */
extern const struct module handler_invoke;          /* invoke: a named route */
extern const struct module handler_vars;            /* vars, root */
extern const struct module handler_log_append;      /* log_append */
extern const struct module handler_metrics;         /* metrics */
extern const struct module handler_headers;         /* header, request_header */
extern const struct module handler_request_body;    /* request_body */
extern const struct module handler_rewrite;         /* rewrite, uri, method, handle_path */
extern const struct module handler_file_server;     /* file_server */

extern const struct module auth_provider_http_basic, auth_hash_bcrypt, auth_hash_argon2id;

extern const struct module matcher_client_ip, matcher_expression, matcher_file, matcher_header,
    matcher_header_regexp, matcher_host, matcher_method, matcher_not, matcher_path,
    matcher_path_regexp, matcher_protocol, matcher_query, matcher_remote_ip, matcher_vars,
    matcher_url_pattern, matcher_vars_regexp;
