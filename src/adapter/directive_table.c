/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of directives, in the order of their names, and the order in which they take effect.
 * docs/caddyfile.md is made of it by dev/caddyfile-docs, which reads this file: a row is a name, its
 * syntax, its help, and the function behind it.
 */
#include "adapter/directives.h"
#include "adapter/suggest.h"

static const char *const default_order[] = {
    "tracing",
    "map", "vars", "fs", "root", "log_append", "skip_log", "log_skip", "log_name",
    "header", "copy_response_headers", "request_body", "timeouts",
    "redir",
    "method", "rewrite", "uri", "try_files",
    "basicauth", "basic_auth", "forward_auth", "request_header", "encode", "push", "intercept",
    "templates",
    "invoke", "handle", "handle_path", "route",
    "abort", "error", "copy_response", "respond", "metrics", "reverse_proxy", "php_fastcgi",
    "file_server", "acme_server",
};

static const struct directive directives[] = {
    {"abort",
     "[MATCHER]",
     "closes the connection without an answer",
     .handler = parse_abort, .module = "static_response"},
    {"acme_server",
     "[MATCHER] { ca, lifetime, resolvers, challenges, allow, deny, sign_with_root … }",
     "an ACME server of the local authority",
     .parse = parse_acme_server},
    {"basic_auth",
     "[MATCHER] [HASH [REALM]] { USER HASHED_PASSWORD … }",
     "asks for a user name and a password",
     .handler = parse_basic_auth, .module = "authentication"},
    {"basicauth",
     "",
     "old name of basic_auth",
     .handler = parse_basic_auth, .module = "authentication"},
    {"bind",
     "ADDRESS… { protocols h1 h2 h2c h3 }",
     "the addresses that the site listens on",
     .parse = parse_bind},
    {"copy_response",
     "[MATCHER] [STATUS]",
     "sends the upstream's answer on, in handle_response",
     .handler = parse_copy_response, .module = "copy_response"},
    {"copy_response_headers",
     "[MATCHER] { include FIELD… | exclude FIELD… }",
     "copies header fields of the upstream's answer, in handle_response",
     .handler = parse_copy_response_headers, .module = "copy_response_headers"},
    {"encode",
     "[MATCHER] [gzip] [zstd] [br] { minimum_length, match … }",
     "compresses answers",
     .handler = parse_encode, .module = "encode"},
    {"error",
     "[MATCHER] [MESSAGE] STATUS",
     "fails the request, so that handle_errors answers",
     .handler = parse_error, .module = "error"},
    {"file_server",
     "[MATCHER] [browse] { root, hide, index, browse, precompressed, status, pass_thru … }",
     "serves files",
     .handler = parse_file_server, .module = "file_server"},
    {"forward_auth",
     "[MATCHER] UPSTREAM… { uri PATH, copy_headers FIELD…, options of reverse_proxy }",
     "asks another server whether the request may pass",
     .parse = parse_forward_auth},
    {"fs",
     "[MATCHER] NAME",
     "the file system that files come from",
     .handler = parse_fs, .module = "vars"},
    {"handle",
     "[MATCHER] { DIRECTIVES }",
     "directives for what matches; one handle at most takes effect",
     .handler = parse_handle, .module = "subroute"},
    {"handle_errors",
     "[STATUS…] { DIRECTIVES }",
     "directives for requests that failed",
     .parse = parse_handle_errors},
    {"handle_path",
     "PATH { DIRECTIVES }",
     "handle, with the path's prefix removed",
     .parse = parse_handle_path},
    {"header",
     "[MATCHER] [+|-|?|>]FIELD [VALUE [REPLACEMENT]]",
     "changes header fields of answers",
     .parse = parse_header_directive},
    {"intercept",
     "[MATCHER] { replace_status, handle_response … }",
     "replaces answers by their status or fields",
     .handler = parse_intercept, .module = "intercept"},
    {"invoke",
     "[MATCHER] NAME",
     "runs a named route",
     .handler = parse_invoke, .module = "invoke"},
    {"log",
     "[NAME] { output, format, level, hostnames, sampling … }",
     "access log of the site",
     .parse = parse_log},
    {"log_append",
     "[MATCHER] KEY VALUE",
     "adds a field to the access log",
     .handler = parse_log_append, .module = "log_append"},
    {"log_name",
     "[MATCHER] NAME…",
     "the logs that the request goes to",
     .handler = parse_log_name, .module = "vars"},
    {"log_skip",
     "[MATCHER]",
     "keeps requests out of the access log",
     .handler = parse_log_skip, .module = "vars"},
    {"map",
     "[MATCHER] SOURCE DESTINATION… { INPUT OUTPUT…, default OUTPUT… }",
     "sets variables by what another one holds",
     .handler = parse_map, .module = "map"},
    {"method",
     "[MATCHER] METHOD",
     "changes the request's method",
     .handler = parse_method_directive, .module = "rewrite"},
    {"metrics",
     "[MATCHER]",
     "answers with metrics for Prometheus",
     .handler = parse_metrics, .module = "metrics"},
    {"php_fastcgi",
     "[MATCHER] UPSTREAM… { root, split, index, try_files, env, options of reverse_proxy }",
     "PHP through FastCGI, with the usual rewrites",
     .parse = parse_php_fastcgi},
    {"push",
     "[MATCHER] [RESOURCE] { headers … }",
     "pushes resources over HTTP/2",
     .handler = parse_push, .module = "push"},
    {"redir",
     "[MATCHER] TO [permanent|temporary|html|CODE]",
     "redirects",
     .handler = parse_redir, .module = "static_response"},
    {"request_body",
     "[MATCHER] { max_size SIZE, set BODY }",
     "limits or sets the request's body",
     .handler = parse_request_body, .module = "request_body"},
    {"request_header",
     "[MATCHER] [+|-]FIELD [VALUE [REPLACEMENT]]",
     "changes header fields of requests",
     .parse = parse_request_header},
    {"respond",
     "[MATCHER] [STATUS | BODY [STATUS]] { body, close }",
     "answers with a fixed text",
     .handler = parse_respond, .module = "static_response"},
    {"reverse_proxy",
     "[MATCHER] UPSTREAM… { to, lb_*, health_*, header_up, header_down, transport, "
     "handle_response … }",
     "hands requests to other servers",
     .handler = parse_reverse_proxy, .module = "reverse_proxy"},
    {"rewrite",
     "[MATCHER] TO",
     "changes the request's target",
     .parse = parse_rewrite},
    {"root",
     "[MATCHER] PATH",
     "the folder that files come from",
     .parse = parse_root},
    {"route",
     "[MATCHER] { DIRECTIVES }",
     "directives in the order they are written in",
     .handler = parse_route, .module = "subroute"},
    {"skip_log",
     "",
     "old name of log_skip",
     .handler = parse_log_skip, .module = "vars"},
    {"templates",
     "[MATCHER] { mime, between, root }",
     "runs answers as templates",
     .handler = parse_templates, .module = "templates"},
    {"timeouts",
     "[MATCHER] { read_timeout, write_timeout, max_write_chunk }",
     "limits on the time of bodies",
     .handler = parse_timeouts, .module = "timeouts"},
    {"tls",
     "[internal | force_automate | EMAIL | CERT KEY] { protocols, ciphers, client_auth, "
     "issuer, dns … }",
     "how the site is served over HTTPS",
     .parse = parse_tls_directive},
    {"tracing",
     "[MATCHER] { span NAME, span_attributes … }",
     "OpenTelemetry spans",
     .handler = parse_tracing, .module = "tracing"},
    {"try_files",
     "[MATCHER] FILE… { policy NAME }",
     "rewrites to the first file that exists",
     .parse = parse_try_files},
    {"uri",
     "[MATCHER] strip_prefix|strip_suffix|replace|path_regexp|query ARGUMENTS",
     "changes parts of the target",
     .handler = parse_uri, .module = "rewrite"},
    {"vars",
     "[MATCHER] NAME VALUE",
     "sets variables",
     .handler = parse_vars_directive, .module = "vars"},
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

const struct directive *directive_find(struct slice name)
{
    for (size_t i = 0; i < COUNT(directives); i++)
        if (slice_is(name, directives[i].name))
            return &directives[i];
    return NULL;
}

const char *directive_near(struct slice name)
{
    struct suggestion s = {0};
    for (size_t i = 0; i < COUNT(directives); i++)
        suggest(&s, name, directives[i].name);
    return s.word;
}

const char *const *directive_default_order(size_t *count)
{
    *count = COUNT(default_order);
    return default_order;
}

size_t directive_count(void)
{
    return COUNT(directives);
}
