/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of all modules of this build; one line each. What `portico list-modules` prints.
 */
#include "app/modules.h"

#include "admin/admin.h"
#include "handlers/encoder.h"
#include "handlers/handlers.h"
#include "proxy/proxy.h"
#include "logs/encoders.h"
#include "logs/filters.h"
#include "logs/writers.h"
#include "http/client_ip.h"
#include "http/proxy_policy.h"

const struct module *const all_modules[] = {
    &auth_hash_argon2id,
    &auth_hash_bcrypt,
    &auth_provider_http_basic,
    &handler_authentication,
    &encoder_br,
    &encoder_gzip,
    &encoder_zstd,
    &handler_encode,
    &handler_error,
    &handler_file_server,
    &handler_headers,
    &handler_invoke,
    &handler_log_append,
    &handler_metrics,
    &handler_request_body,
    &handler_rewrite,
    &handler_static_response,
    &handler_subroute,
    &handler_vars,
    &ip_source_static,
    &listener_proxy_protocol,
    &listener_tls,
    &matcher_client_ip,
    &matcher_file,
    &matcher_header,
    &matcher_header_regexp,
    &matcher_host,
    &matcher_method,
    &matcher_not,
    &matcher_path,
    &matcher_path_regexp,
    &matcher_protocol,
    &matcher_query,
    &matcher_remote_ip,
    &matcher_vars,
    &matcher_vars_regexp,
    &log_encoder_append,
    &log_encoder_console,
    &log_encoder_filter,
    &log_encoder_journald,
    &log_encoder_json,
    &log_filter_cookie,
    &log_filter_delete,
    &log_filter_hash,
    &log_filter_ip_mask,
    &log_filter_multi_regexp,
    &log_filter_query,
    &log_filter_regexp,
    &log_filter_rename,
    &log_filter_replace,
    &log_filter_set_cookie,
    &log_writer_discard,
    &log_writer_file,
    &log_writer_net,
    &log_writer_stderr,
    &log_writer_stdout,
    &module_admin_api,
    &handler_copy_response,
    &handler_copy_response_headers,
    &handler_reverse_proxy,
    &policy_client_ip_hash,
    &policy_cookie,
    &policy_first,
    &policy_header,
    &policy_ip_hash,
    &policy_least_conn,
    &policy_query,
    &policy_random,
    &policy_random_choose,
    &policy_round_robin,
    &policy_uri_hash,
    &policy_weighted_round_robin,
    &transport_http,
    NULL,
};
