/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who comes from nginx, HAProxy or Traefik writes their words first. Such a word is an error here as in
 * Caddy, and no spelling is near it: so the error says what it is called.
 */
#include "adapter/foreign_words.h"

#define ADDRESS "a site's address stands before its block, as in 'example.com { … }' or ':8080 { … }'"
#define UPSTREAMS "upstreams stand behind reverse_proxy, as in 'reverse_proxy a:3000 b:3000'"

static const struct {
    const char *word, *hint;
} words[] = {
    {"proxy_pass", "it is 'reverse_proxy ADDRESS' here"},
    {"proxy", "it is 'reverse_proxy ADDRESS' here"},
    {"grpc_pass", "it is 'reverse_proxy h2c://ADDRESS' here"},
    {"fastcgi_pass", "it is 'php_fastcgi ADDRESS' here"},
    {"fastcgi", "it is 'php_fastcgi ADDRESS' here"},
    {"uwsgi_pass", "uwsgi is not spoken: let the program listen by HTTP, for reverse_proxy"},
    {"auth_request", "it is 'forward_auth ADDRESS { uri PATH }' here"},
    {"forwardAuth", "it is 'forward_auth ADDRESS { uri PATH }' here"},
    {"auth_basic", "it is basic_auth here"},
    {"location", "it is 'handle /path* { … }' here, or handle_path, which takes the prefix away"},
    {"upstream", UPSTREAMS},
    {"server", UPSTREAMS "; a site has its address before its block"},
    {"backend", UPSTREAMS},
    {"default_backend", UPSTREAMS},
    {"use_backend", "it is 'reverse_proxy @matcher ADDRESS' here"},
    {"acl", "it is a matcher here, as in '@name path /api/*'"},
    {"frontend", ADDRESS},
    {"listen", ADDRESS},
    {"server_name", ADDRESS},
    {"proxy_set_header", "it is header_up in the block of reverse_proxy"},
    {"proxy_hide_header", "it is 'header_down -NAME' in the block of reverse_proxy"},
    {"proxy_read_timeout", "it is read_timeout of 'transport http' in the block of reverse_proxy"},
    {"proxy_connect_timeout", "it is dial_timeout of 'transport http' in the block of reverse_proxy"},
    {"proxy_send_timeout", "it is write_timeout of 'transport http' in the block of reverse_proxy"},
    {"proxy_buffering", "nothing is held back unless response_buffers of reverse_proxy says so"},
    {"proxy_http_version", "reverse_proxy needs none: HTTP/1.1 and kept connections are what it does"},
    {"balance", "it is lb_policy in the block of reverse_proxy"},
    {"fastcgi_param", "it is 'env NAME VALUE' in the block of php_fastcgi"},
    {"fastcgi_index", "it is 'index NAME' in the block of php_fastcgi"},
    {"fastcgi_split_path_info", "it is 'split .php' in the block of php_fastcgi"},
    {"add_header", "it is 'header NAME VALUE' here"},
    {"expires", "it is 'header Cache-Control \"max-age=…\"' here"},
    {"return", "it is 'redir TO STATUS' or 'respond STATUS' here"},
    {"gzip", "it is 'encode gzip' here"},
    {"gzip_types", "encode knows what is worth it"},
    {"index", "it is 'index' in the block of file_server, or of php_fastcgi"},
    {"autoindex", "it is 'file_server browse' here"},
    {"alias", "it is 'handle_path /prefix/* { root * FOLDER; file_server }' here"},
    {"error_page", "it is 'handle_errors { … }' here"},
    {"access_log", "it is 'log' here"},
    {"error_log", "it is the global option 'log'"},
    {"client_max_body_size", "it is 'request_body { max_size SIZE }' here"},
    {"ssl_certificate", "it is 'tls CERTIFICATE KEY' here; without it certificates are obtained"},
    {"ssl_certificate_key", "it is 'tls CERTIFICATE KEY' here; without it certificates are obtained"},
    {"ssl_protocols", "it is 'tls { protocols MIN MAX }' here"},
    {"deny", "it is '@name remote_ip RANGE' with 'abort @name' or 'respond @name 403' here"},
    {"allow", "it is a matcher here, as in '@name remote_ip RANGE'"},
    {"websocket", "nothing needs to be said for WebSockets"},
};

const char *foreign_directive(struct slice name)
{
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (slice_is(name, words[i].word))
            return words[i].hint;
    return NULL;
}
