#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every option that a Caddyfile may name about gateways is taken, adapted and provisioned; what Caddy refuses
is refused with its sentence; as TAP. Usage: gateway_options_test.py PORTICO."""
import os
import re
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from certificates import Authority  # noqa: E402 (beside this file)

PORTICO = sys.argv[1]
CA = Authority()
CHAIN, KEY = CA.leaf("client", "DNS:client.example")

OPTIONS = f"""
to localhost:1 127.0.0.1:2
to localhost:8001-8006
to unix//run/app.sock
to http://localhost:1
to {{env.NO_SUCH_HOST}}:80
dynamic a app.internal 80 {{ refresh 5s; resolvers 10.0.0.1 10.0.0.2; dial_timeout 1s; dial_fallback_delay 1s; versions ipv4 ipv6 }}
dynamic srv _api._tcp.internal {{ service api; proto tcp; refresh 5s; grace_period 1m; resolvers 10.0.0.1; dial_timeout 1s; dial_fallback_delay -1s }}
dynamic multi {{ a app.internal 80; srv _api._tcp.internal }}
lb_policy random
lb_policy random_choose 3
lb_policy round_robin
lb_policy weighted_round_robin 1 2
lb_policy least_conn
lb_policy first
lb_policy ip_hash
lb_policy client_ip_hash
lb_policy uri_hash
lb_policy query key {{ fallback first }}
lb_policy header X-Upstream {{ fallback round_robin }}
lb_policy cookie
lb_policy cookie lb secret {{ max_age 1h; fallback header X-Upstream {{ fallback first }} }}
lb_retries 3
lb_try_duration 5s
lb_try_interval 100ms
lb_retry_match {{ method POST; path /a/* }}
lb_retry_match `{{rp.status_code}} in [502, 503] || {{rp.is_transport_error}}`
health_uri /health?full
health_uri /; health_port 8080
health_uri /; health_upstream localhost:1
health_uri /; health_headers {{ Host app.internal; X-Several a b }}
health_uri /; health_method HEAD
health_uri /; health_request_body ping
health_uri /; health_interval 5s
health_uri /; health_timeout 5s
health_uri /; health_status 2xx
health_uri /; health_body ^ok
health_uri /; health_follow_redirects
health_uri /; health_passes 2
health_uri /; health_fails 2
health_path /old
max_fails 3
max_fails 100000
fail_duration 30s
unhealthy_request_count 100
unhealthy_status 5xx 404
unhealthy_latency 1s
flush_interval -1
flush_interval 100ms
request_buffers 4KiB
request_buffers unlimited
response_buffers unlimited
stream_buffer_size 64KiB
stream_buffer_size unlimited
stream_timeout 24h
stream_close_delay 5m
trusted_proxies private_ranges 192.0.2.0/24 192.0.2.1
header_up Host {{upstream_hostport}}
header_up +X-A b
header_up -X-*
header_up X-A ^a(.*)$ b$1
header_down Location http:// https://
method POST
rewrite /prefix{{uri}}
verbose_logs
@bad status 5xx; handle_response @bad {{ copy_response_headers {{ exclude Server }}; copy_response 502 }}
@gone {{ status 404 410; header X-Gone * }}; replace_status @gone 200
replace_status 200
handle_response {{ respond "{{rp.status_code}} {{rp.status_text}} {{rp.header.Server}} {{rp.upstream.latency_ms}}" }}
transport http
transport http {{ tls }}
transport http {{ tls_client_auth {CHAIN} {KEY} }}
transport http {{ tls_client_auth client.internal }}
transport http {{ tls_insecure_skip_verify }}
transport http {{ tls_curves x25519 secp256r1 }}
transport http {{ tls_timeout 5s }}
transport http {{ tls_trust_pool file {CA.root} }}
transport http {{ tls_trusted_ca_certs {CA.root} }}
transport http {{ tls_server_name app.internal }}
transport http {{ tls_server_name {{http.request.host}} }}
transport http {{ tls_renegotiation never }}
transport http {{ tls_renegotiation once }}
transport http {{ tls_renegotiation freely }}
transport http {{ tls_except_ports 80 8080 }}
transport http {{ keepalive off }}
transport http {{ keepalive 30s }}
transport http {{ keepalive_interval 10s }}
transport http {{ keepalive_idle_conns 100 }}
transport http {{ keepalive_idle_conns_per_host 10 }}
transport http {{ versions 1.1 }}
transport http {{ versions 1.1 2 }}
transport http {{ versions h2c 2 }}
transport http {{ compression off }}
transport http {{ max_conns_per_host 5 }}
transport http {{ proxy_protocol v1 }}
transport http {{ proxy_protocol v2 }}
transport http {{ forward_proxy_url http://user:password@proxy.internal:3128 }}
transport http {{ network_proxy url socks5://proxy.internal }}
transport http {{ network_proxy url https://proxy.internal; tls }}
transport http {{ network_proxy none }}
transport http {{ dial_timeout 1s }}
transport http {{ dial_fallback_delay 100ms }}
transport http {{ response_header_timeout 5s }}
transport http {{ expect_continue_timeout 1s }}
transport http {{ read_timeout 5s }}
transport http {{ write_timeout 5s }}
transport http {{ max_response_header 16KiB }}
transport http {{ max_response_header 100MiB }}
transport http {{ read_buffer 64KiB; write_buffer 64KiB }}
transport http {{ resolvers 10.0.0.1 [2001:db8::1]:53 }}
transport http {{ local_address 127.0.0.1 }}
transport fastcgi {{ root /srv; split .php; env A b; resolve_root_symlink; capture_stderr; dial_timeout 1s; read_timeout 5s; write_timeout 5s }}
transport fastcgi; health_uri /ping
"""

DIRECTIVES = f"""
reverse_proxy https://localhost
reverse_proxy h2c://localhost:1
reverse_proxy unix+h2c//run/app.sock
reverse_proxy /a/* localhost:1
php_fastcgi localhost:9000
php_fastcgi unix//run/php.sock {{ root /srv; split .php .php5; index off; env A b; resolve_root_symlink; capture_stderr; dial_timeout 1s; read_timeout 5s; write_timeout 5s; lb_policy first }}
php_fastcgi localhost:9000 {{ try_files {{path}} index.php; index start.php; health_uri /ping }}
forward_auth localhost:1 {{ uri /auth; copy_headers A B>C }}
forward_auth localhost:1 {{ uri /auth; copy_headers {{ A; B>C }}; lb_policy first; header_up X-A b }}
intercept {{ @bad status 5xx; handle_response @bad {{ respond "sorry" }}; replace_status @bad 404 }}
request_body {{ max_size 10MB; set "{{http.request.uri}}" }}
method POST
push /style.css
push {{ GET /a; HEAD /b; headers {{ X-A b; -X-C }} }}
"""

REFUSED = {
    "reverse_proxy ws://localhost:1": "the scheme ws:// is only supported in browsers; use http:// instead",
    "reverse_proxy wss://localhost:1": "the scheme wss:// is only supported in browsers; use https:// instead",
    "reverse_proxy localhost:1 { nonsense }": "unrecognized subdirective nonsense",
    "reverse_proxy localhost:1 { transport nope }": "http.reverse_proxy.transport.nope",
    "reverse_proxy localhost:1 { lb_policy nope }": "http.reverse_proxy.selection_policies.nope",
    "reverse_proxy localhost:1 { transport http { versions 9 } }": "unsupported HTTP version: 9",
    "reverse_proxy https://localhost:1 http://localhost:2": "all proxy upstreams must use the same scheme",
    "reverse_proxy localhost:1 { dynamic srv a { name b } }": "srv name has already been specified",
    "reverse_proxy localhost:1 { health_url /x }": "subdirective health_url, at FILE:6 - did you mean 'health_uri'?",
    "reverse_proxy localhost:1 { lb_policy roundrobin }": "did you mean 'round_robin'?",
    "reverse_proxy localhost:1 { tls_insecure_skip_verify }": "it belongs into the block of 'transport http'",
    "reverse_proxy localhost:1 { transport http { lb_policy first } }": "it belongs into the block around 'transport'",
    "reverse_proxy localhost:1 { transport https }": "http.reverse_proxy.transport.https, at FILE:6 - it is 'http' with",
    "reverse_proxy localhost:1 { health_uri /; health_status 2xx 3xx }": "a word too many behind 'health_status'?",
    "reverse_proxy localhost:1 { header X-A b }": "header_up changes what upstreams get",
    "reverse_proxy http://localhost:1 localhost:2": "this one has none, those before it have 'http://'",
    "forward_auth localhost:1": "the 'uri' subdirective is required, at FILE:5",
    "forward_auth localhost:1 { uri /; copy_headers }": "ending after 'copy_headers', at FILE:7",
    "php_fastcgi localhost:1 { index }": "ending after 'index', at FILE:6",
    # as in other servers
    "proxy_pass http://localhost:1;": "unrecognized directive: proxy_pass - it is 'reverse_proxy ADDRESS' here",
    "location /api { respond ok }": "unrecognized directive: location - it is 'handle /path* { … }' here",
    "handle { fastcgi_pass unix:/run/php.sock }": "it is 'php_fastcgi ADDRESS' here",
    "auth_request /verify": "it is 'forward_auth ADDRESS { uri PATH }' here",
    "server_name a.example": "a site's address stands before its block",
    'reverse_proxy "localhost:1;"': "at FILE:5 - no ';' ends a line here",
    "reverse_proxy localhost:1, localhost:2": "at FILE:5 - spaces part upstreams, not commas",
    'reverse_proxy "localhost:1{"': "at FILE:5 - a space must stand before the '{'",
    "reverse_proxy http://localhost:1/": "at FILE:5 - leave the '/' at its end out",
    "reverse_proxy http://localhost:1/api": "at FILE:5 - leave the path out: 'rewrite /api{uri}' in the block",
    "reverse_proxy unix:///run/app.sock": "at FILE:5 - a Unix socket is written unix//run/app.sock",
    "reverse_proxy http://unix:/run/app.sock:/": "a Unix socket is written unix//run/app.sock",
    "reverse_proxy grpc://localhost:1": "gRPC is spoken to h2c:// in clear text",
    "reverse_proxy fastcgi://localhost:1": "FastCGI is spoken by php_fastcgi",
    "reverse_proxy localhost:1 { lb_try_duration 30 }": "missing unit in duration \"30\", at FILE:6 - a duration has a unit, as in 30s",
    "reverse_proxy localhost:1 { lb_try_duration 30sec }": "a duration is written as 500ms, 30s, 1m30s or 12h",
    "reverse_proxy localhost:1 { flush_interval off }": "or 12h, or -1: at once",
    "reverse_proxy localhost:1 { transport http { keepalive 64 } }": "keepalive_idle_conns_per_host says",
    "reverse_proxy localhost:1 { health_uri /; health_status 200-299 }": "a status such as 200, or a class such as 2xx",
    "reverse_proxy localhost:1 { header_up X-A two words more }": "a value with spaces stands in quotes",
    "reverse_proxy localhost:1 { proxy_read_timeout 60s }": "it is read_timeout of 'transport http'",
    "reverse_proxy localhost:1 { balance roundrobin }": "it is lb_policy here",
    "reverse_proxy localhost:1 { health_check /x }": "checks begin with health_uri",
    "reverse_proxy localhost:1 { lb_policy source }": "it is ip_hash here",
    "reverse_proxy localhost:1 { lb_policy roundrobbin 2 }": "did you mean 'round_robin'?",
    "reverse_proxy localhost:1 { lb_policy least_connections }": "it is least_conn here",
    "reverse_proxy localhost:1 { transport fcgi }": "it is 'fastcgi' here",
    "reverse_proxy { dynamic dns a.example }": "it is 'a' for addresses of a host",
    "forward_auth localhost:1 { uri /; authResponseHeaders X-A }": "it is copy_headers of forward_auth",
    "php_fastcgi localhost:1 { fastcgi_param A b }": "it is 'env NAME VALUE' here",
    "php_fastcgi localhost:1 { env A=b }": "it is 'env NAME VALUE'",
    "reverse_proxy localhost:1 }": "is this '}' one too many?",
}

# Taken, with a word about it.
ADVISED = {
    "reverse_proxy { header_up X-A b }": "there are no upstreams",
    "reverse_proxy localhost:443": "the port 443 is spoken to without TLS",
    "reverse_proxy localhost:1 { max_fails 3 }": "passive health checks are off",
    "reverse_proxy localhost:1 { health_interval 3s }": "active health checks are off",
    "reverse_proxy localhost:1 { lb_try_interval 1s }": "nothing is tried again",
    "reverse_proxy localhost:1 localhost:2 { lb_policy weighted_round_robin 1 }": "fewer weights than there are",
    "reverse_proxy { dynamic a x.invalid 80; health_uri / }": "are not asked by active health checks",
    "reverse_proxy localhost:1 { eject; hedge 1s }": "hedge has no effect with one upstream",
    "reverse_proxy localhost:1 { eject }": "eject has no effect with one upstream",
    "reverse_proxy 3000": "a port is written as localhost:3000",
    "reverse_proxy ::1:3000": "it is written as [::1]:3000",
    "reverse_proxy unix/run/app.sock": "as in unix//run/app.sock",
    "reverse_proxy *.example.com:80": "a name with a '*'",
    "reverse_proxy localhost:80:3000": "taken for an IPv6 address",
    "reverse_proxy localhost:1 { header_up Host $host }": "is sent as it stands: the placeholder is written {host}",
    "reverse_proxy localhost:1 { header_up X-Real-IP $remote_addr }": "the placeholder is written {remote_host}",
    "reverse_proxy localhost:1; reverse_proxy localhost:2": "no request comes to this reverse_proxy",
    "route { reverse_proxy localhost:1; reverse_proxy /a/* localhost:2 }": "no request comes to this reverse_proxy",
    "reverse_proxy localhost:1 { header_up Host: {host} }": "no field has such a name, so this has no effect: leave the ':' out",
    "reverse_proxy localhost:1 { header_up X-A=b }": "header_up: no field has such a name",
    "reverse_proxy localhost:1 { header_up X-A={remote_host} }": "header_up: no field has such a name",
    "reverse_proxy localhost:1 { header_down -Server: }": "header_down: no field has such a name",
    "reverse_proxy localhost:1 weight=5 localhost:2": "weights stand behind 'lb_policy",
    "reverse_proxy localhost:1/api": "an upstream is a host and a port, without a path",
    "reverse_proxy $UPSTREAM": "a variable of the environment is written {$NAME}",
    "reverse_proxy http://user:word@localhost:1": "are not sent: header_up Authorization",
    "reverse_proxy /run/app.sock": "the address of a Unix socket is written unix/ before its path",
    "php_fastcgi /run/php/php-fpm.sock": "the address of a Unix socket is written unix/ before its path",
    "reverse_proxy localhost:1 { health_uri http://localhost:1/x }": "only its path and query are asked for",
    "forward_auth localhost:1 { uri http://localhost:1/verify }": "uri is a path and a query only",
    "forward_auth localhost:1 { uri /; copy_headers Remote-User, Remote-Groups }": "spaces part names, not commas",
    "forward_auth localhost:1 { uri /; copy_headers Remote-User:X-User }": "copy_headers: no field has such a name",
    "reverse_proxy localhost:1 { lb_policy first": "the file ends without the '}' of the block that begins here",
}
QUIET = ("reverse_proxy localhost:3 { @ok status 2xx; handle_response @ok { header X-A b }; }; "
         "reverse_proxy /a/* unix/./app.sock { header_up X-A $own }; reverse_proxy @b ::1; @b path /b; "
         "handle /c { reverse_proxy [::1]:3000 ::ffff:127.0.0.1 2001:db8::443 fe80::1%lo }; "
         "reverse_proxy /d app:443; "
         "reverse_proxy https://localhost:443 https://localhost:2 { fail_duration 1s; max_fails 3; health_uri /; "
         "lb_retries 1; lb_try_interval 1s; lb_policy weighted_round_robin 1 2; eject; hedge 1s; "
         "header_up Cookie a(b) c$1; header_up X-A $1; header_up X-{vars.a} b; header_up -X-* }")


def spread(text):
    """ "a { b; c }" over lines, as a Caddyfile has it."""
    out = ""
    for token in re.findall(r'"[^"]*"|`[^`]*`|[^\s]+', text):
        word = token.rstrip(";") if len(token) > 1 and token[0] not in "\"`" else token
        out += "\n}" if word == "}" else f"{word} "
        if word == "{" or token.endswith(";"):
            out += "\n"
    return out


def validate(folder, directive):
    path = os.path.join(folder, "Caddyfile")
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"{{\nadmin off\n}}\nhttp://localhost:9080 {{\n{directive}\n}}\n")
    done = subprocess.run([PORTICO, "validate", "--config", path], capture_output=True, text=True,
                          env={**os.environ, "XDG_DATA_HOME": folder, "XDG_CONFIG_HOME": folder}, check=False)
    return done.returncode, (done.stdout + done.stderr).replace(path, "FILE")


def main():
    cases = []
    for line in OPTIONS.strip().splitlines():
        to = "" if line.startswith(("to ", "dynamic ")) else "localhost:1"
        cases.append((line, f"reverse_proxy {to} {{\n{spread(line)}\n}}", None))
    cases += [(line, spread(line), None) for line in DIRECTIVES.strip().splitlines()]
    cases += [(line, spread(line), words) for line, words in REFUSED.items()]
    cases += [(line, spread(line), words) for line, words in ADVISED.items()]
    cases += [("what has its effect is taken without a word", spread(QUIET), "")]
    failed = 0
    with tempfile.TemporaryDirectory(prefix="portico-options-") as folder:
        good = [d for _, d, words in cases if words is None]
        whole = validate(folder, "\n".join(f"handle /{n} {{\n{d}\n}}" for n, d in enumerate(good)))
        for n, (name, directive, words) in enumerate(cases, 1):
            # one by one only where that must tell which it is
            status, text = whole if words is None and whole[0] == 0 else validate(folder, directive)
            fine = status == 0 if words is None else status != 0 and words in text
            if name in ADVISED:
                fine = status == 0 and words in text
            elif words == "":
                fine = status == 0 and "warn" not in text.lower()
            failed += not fine
            if not fine:
                print("# " + (directive + "\n" + text[-1000:]).replace("\n", "\n# "))
            print(f"{'ok' if fine else 'not ok'} {n} - {'refused: ' if name in REFUSED else ''}{name}", flush=True)
    print(f"1..{len(cases)}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
