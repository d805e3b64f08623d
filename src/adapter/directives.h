/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The functions behind the table of directives (directive.c), one family to a file.
 */
#pragma once

#include "adapter/adapt.h"

json_t *routes_json(struct adapt *, const struct route *, size_t count);
size_t consolidate_routes(struct adapt *, struct route *, size_t count);

/* dir_site.c */
enum err parse_bind(struct helper *, struct values *);
enum err parse_root(struct helper *, struct values *);
enum err parse_fs(struct helper *, json_t **);
enum err parse_vars_directive(struct helper *, json_t **);
enum err parse_map(struct helper *, json_t **);

/* dir_respond.c */
enum err parse_respond(struct helper *, json_t **);
enum err parse_redir(struct helper *, json_t **);
enum err parse_abort(struct helper *, json_t **);
enum err parse_error(struct helper *, json_t **);

/* dir_routes.c */
enum err parse_route(struct helper *, json_t **);
enum err parse_handle(struct helper *, json_t **);
enum err parse_handle_path(struct helper *, struct values *);
enum err parse_handle_errors(struct helper *, struct values *);
enum err parse_invoke(struct helper *, json_t **);

/* dir_headers.c */
enum err parse_header_directive(struct helper *, struct values *);
enum err parse_request_header(struct helper *, struct values *);

/* dir_rewrite.c */
enum err parse_rewrite(struct helper *, struct values *);
enum err parse_method_directive(struct helper *, json_t **);
enum err parse_uri(struct helper *, json_t **);

/* dir_files.c */
enum err parse_file_server(struct helper *, json_t **);
enum err parse_try_files(struct helper *, struct values *);

/* dir_body.c */
enum err parse_encode(struct helper *, json_t **);
enum err parse_request_body(struct helper *, json_t **);
enum err parse_basic_auth(struct helper *, json_t **);

/* dir_log.c */
enum err parse_log(struct helper *, struct values *);
enum err parse_log_append(struct helper *, json_t **);
enum err parse_log_name(struct helper *, json_t **);
enum err parse_log_skip(struct helper *, json_t **);

/* dir_tls.c */
enum err parse_tls_directive(struct helper *, struct values *);

/* dir_more.c */
enum err parse_templates(struct helper *, json_t **);
enum err parse_tracing(struct helper *, json_t **);
enum err parse_metrics(struct helper *, json_t **);
enum err parse_push(struct helper *, json_t **);
enum err parse_timeouts(struct helper *, json_t **);
enum err parse_acme_server(struct helper *, struct values *);

/* dir_php.c */
enum err parse_php_fastcgi(struct helper *, struct values *);
enum err parse_forward_auth(struct helper *, struct values *);

/* proxy_responses.c */
enum err parse_intercept(struct helper *, json_t **);

/* dir_proxy.c */
enum err parse_reverse_proxy(struct helper *, json_t **);
enum err parse_copy_response(struct helper *, json_t **);
enum err parse_copy_response_headers(struct helper *, json_t **);
