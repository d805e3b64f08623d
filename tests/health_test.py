#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Active health checks of the gateway, as TAP: what is asked and how the answer is judged, counters,
transports, what a reload keeps and ends. Usage: health_test.py PORTICO [TEXT]."""
import http.client
import http.server
import json
import os
import socket
import socketserver
import ssl
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
from certificates import Authority  # noqa: E402 (beside this file)
from server import run_cases, running, same  # noqa: E402

PORTICO = sys.argv[1]


class Backend:
    """Answers checks (any path that begins with /h) by what the test sets, other requests with its
    name. `asked`: the checks, as (method, path, headers, body)."""

    def __init__(self, name="one", unix=None, tls=None):
        self.name, self.asked = name, []
        self.status, self.body, self.fields, self.hang = 200, b"fine", {}, False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def address_string(self):
                return "somebody"

            def answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                check = self.path.startswith("/h")
                if check:
                    outer.asked.append((self.command, self.path, self.headers, body))
                    if outer.hang:
                        time.sleep(3)
                self.send_response(outer.status if check else 200)
                fields, data = (outer.fields, outer.body) if check else ({}, outer.name.encode())
                for key, value in fields.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_HEAD = do_POST = do_OPTIONS = answer

            def log_message(self, *_):
                pass

        class Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
            daemon_threads, block_on_close, request_queue_size = True, False, 64
            address_family = socket.AF_UNIX if unix else socket.AF_INET

            def handle_error(self, *_):
                pass

            def get_request(self):
                sock, address = super().get_request()
                return (tls.wrap_socket(sock, server_side=True) if tls else sock,
                        address or ("", 0))

        self.server = Listener(unix or ("127.0.0.1", 0), Handler)
        self.port = 0 if unix else self.server.server_address[1]
        self.dial = f"unix/{unix}" if unix else f"127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def config(server, *gateways):
    """A document whose routes /0, /1 … go to these (upstreams, options)."""
    document = json.loads(json.dumps(server.document))
    document["logging"] = {"logs": {"default": {"level": "DEBUG"}}}
    routes = []
    for i, (backends, active, more) in enumerate(gateways):
        routes.append({"match": [{"path": [f"/{i}*"]}], "handle": [{
            "handler": "reverse_proxy",
            "upstreams": [{"dial": b if isinstance(b, str) else b.dial} for b in backends],
            "load_balancing": {"selection_policy": {"policy": "first"}},
            **({"health_checks": {"active": active}} if active else {}), **more}]})
    document["apps"]["http"]["servers"]["srv0"]["routes"] = routes
    return document


def load(server, *gateways):
    status, text = server.api("POST", "/load", config(server, *gateways))
    assert status == 200, text


def logged(server, *parts):
    """Lines come by a thread of their own."""
    server.wait(lambda: all(p in server.text() for p in parts))


QUICK = {"uri": "/health?deep=1", "interval": "30ms", "timeout": "10s"}


def judged(io):
    """The first check is at once; statuses, bodies, redirects; requests go where it is well."""
    a, b = Backend("a"), Backend("b")
    with running(io, a, b) as s:
        load(s, ([a, b], {**QUICK, "interval": "1h"}, {}))
        s.wait(lambda: a.asked and b.asked)
        method, path, fields, body = a.asked[0]
        same((method, path, body, fields["Host"]), ("GET", "/health?deep=1", b"", a.dial))
        load(s, ([a, b], QUICK, {}))
        same(s.get("/0"), (200, b"a"))
        a.status = 500
        s.wait(lambda: s.get("/0") == (200, b"b"))
        logged(s, '"status code out of tolerances"', '"status_code":500', f'"host":"{a.dial}"',
            '"http.handlers.reverse_proxy.health_checker.active"')
        b.status = 302
        s.wait(lambda: s.get("/0")[0] == 503)
        a.status = 204
        s.wait(lambda: s.get("/0") == (200, b"a"))
        logged(s, '"host is up"')
        # a class, and one status
        b.status, a.status = 404, 200
        load(s, ([b, a], {**QUICK, "expect_status": 4}, {}))
        s.wait(lambda: s.get("/0") == (200, b"b") and b.asked)
        load(s, ([b, a], {**QUICK, "expect_status": 200}, {}))
        s.wait(lambda: s.get("/0") == (200, b"a"))
        logged(s, '"unexpected status code"')
        # a body, over at most max_size bytes
        a.body = b"x" * 10 + b"ready"
        b.status = 200
        load(s, ([a, b], {**QUICK, "expect_body": "read[y]|fine"}, {}))
        n = len(a.asked)
        s.wait(lambda: len(a.asked) > n + 2)
        same(s.get("/0"), (200, b"a"))
        load(s, ([a, b], {**QUICK, "expect_body": "ready|fine", "max_size": 14}, {}))
        s.wait(lambda: s.get("/0") == (200, b"b"))
        logged(s, '"response body failed expectations"')
        # redirects: an answer of their own, unless they are followed
        a.status, a.fields = 302, {"Location": f"http://{b.dial}/health2"}
        load(s, ([a, b], {**QUICK, "uri": "/h0", "expect_status": 302}, {}))
        s.wait(lambda: s.get("/0") == (200, b"a"))
        a.status, a.fields = 200, {}


def follows(io):
    """A redirect is followed on the same connection, wherever it points to."""
    a, b = Backend("a"), Backend("b")

    class Redirecting(dict):
        def items(self):
            a.status = 200
            return [("Location", f"http://{b.dial}/h2")]

    with running(io, a, b) as s:
        a.status, a.fields = 302, Redirecting()
        load(s, ([a, b], {**QUICK, "uri": "/h1", "interval": "1h", "follow_redirects": True}, {}))
        s.wait(lambda: len(a.asked) >= 2)
        a.fields = {}
        same([x[1] for x in a.asked[:2]], ["/h1", "/h2"])
        same(s.get("/0"), (200, b"a"))
        same({x[1] for x in b.asked}, {"/h1"})


def asked(io):
    """Method, body, headers with placeholders; another port or upstream."""
    a, b = Backend("a"), Backend("b")
    with running(io, a, b) as s:
        load(s, ([a], {**QUICK, "method": "POST", "body": "{env.LANG_OF_TEST}hello",
                       "headers": {"Host": ["health.example"],
                                   "X-Up": ["<{http.reverse_proxy.active.target_upstream}>", "{no.such}"],
                                   "User-Agent": ["probe"]}}, {}))
        s.wait(lambda: a.asked)
        method, path, fields, body = a.asked[0]
        same((method, body), ("POST", b"hello"))
        same((fields["Host"], fields.get_all("X-Up"), fields["User-Agent"], fields["Content-Length"]),
             ("health.example", [f"<{a.dial}>", "{no.such}"], "probe", "5"))
        # another port: b answers for a
        load(s, ([a], {**QUICK, "uri": "/hp", "port": b.port}, {}))
        s.wait(lambda: b.asked)
        same((b.asked[0][1], b.asked[0][2]["Host"]), ("/hp", b.dial))
        b.status = 500
        s.wait(lambda: s.get("/0")[0] == 503)
        b.status = 200
        load(s, ([a, "127.0.0.1:9"], {**QUICK, "uri": "/hu", "upstream": b.dial, "headers": {
            "X-Up": ["{http.reverse_proxy.active.target_upstream}"]}}, {}))
        s.wait(lambda: {x[2]["X-Up"] for x in b.asked if x[1] == "/hu"} == {a.dial, "127.0.0.1:9"})
        # a port alone asks for "/"
        seen = len(b.asked)
        load(s, ([a], {"port": b.port, "interval": "30ms"}, {}))
        s.wait(lambda: s.get("/0") == (200, b"a"))
        same(len([x for x in b.asked[seen:] if x[1] not in ("/hu", "/hp")]), 0)
        # without a URI or a port there is nothing to ask
        load(s, (["127.0.0.1:9"], {"interval": "1ms"}, {}))
        same(s.get("/0")[0], 502)


def counted(io):
    """`fails` in a row make it unhealthy, `passes` in a row healthy; a refusal and a timeout count."""
    a, b = Backend("a"), Backend("b")
    with running(io, a, b) as s:
        load(s, ([a, b], {**QUICK, "fails": 3, "passes": 4}, {}))
        s.wait(lambda: len(a.asked) > 1)
        a.status = 500
        before = len(a.asked)
        s.wait(lambda: s.get("/0") == (200, b"b"))
        assert len(a.asked) - before >= 2, (before, len(a.asked))
        a.status = 200
        before = len(a.asked)
        s.wait(lambda: s.get("/0") == (200, b"a"))
        assert len(a.asked) - before >= 3, (before, len(a.asked))
        a.hang = True
        load(s, ([a, b], {**QUICK, "timeout": "150ms"}, {}))
        s.wait(lambda: s.get("/0") == (200, b"b"))
        logged(s, "timed out while waiting for the answer")
        a.hang = False
        s.wait(lambda: s.get("/0") == (200, b"a"))
        load(s, (["127.0.0.1:9"], QUICK, {}))
        s.wait(lambda: s.get("/0")[0] == 503)
        s.wait(lambda: '"HTTP request failed"' in s.text() and "connection refused" in s.text())


def kept(io):
    """A reload keeps what is known of an unchanged check; another check begins anew; equal ones of
    two gateways are asked once; what is gone is not asked any more."""
    a, b = Backend("a"), Backend("b")
    with running(io, a, b) as s:
        slow = {**QUICK, "interval": "1h", "fails": 1}
        a.status = 500
        load(s, ([a, b], slow, {}))
        s.wait(lambda: s.get("/0") == (200, b"b"))
        a.hang = True  # no check of the new configuration can have changed anything
        load(s, ([a, b], slow, {}), ([b], None, {}))
        same(s.get("/0"), (200, b"b"))
        a.hang = False
        n = len(a.asked)
        load(s, ([a, b], {**slow, "uri": "/h/other", "passes": 2}, {}), ([a, b], slow, {}),
             ([a], slow, {}))
        s.wait(lambda: s.get("/0") == (200, b"b") and s.get("/1") == (200, b"b"))
        same(s.get("/2")[0], 503)
        s.wait(lambda: {x[1] for x in a.asked[n:]} >= {"/h/other"})
        a.status = 200
        load(s, ([a, b], QUICK, {}), ([b, a], QUICK, {}))
        n = len(a.asked)
        s.wait(lambda: len(a.asked) > n + 3)
        load(s, ([a, b], None, {}))
        s.wait(lambda: s.get("/0") == (200, b"a"))
        n, end = -1, time.monotonic() + 20
        while n != len(a.asked):  # one may be on its way
            assert time.monotonic() < end, "still asked"
            n = len(a.asked)
            time.sleep(0.2)  # several intervals


def transports(io):
    """TLS with its trust and its name, Unix sockets, placeholders of the environment in addresses."""
    ca = Authority()
    chain = ca.leaf("good", "DNS:app.internal")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*chain)
    folder = tempfile.TemporaryDirectory(prefix="portico-health-")
    path = os.path.join(folder.name, "s")
    a, b, c = Backend("a", tls=context), Backend("b", unix=path), Backend("c")
    tls = {"protocol": "http", "tls": {"root_ca_pem_files": [ca.root], "server_name": "app.internal"}}
    with running(io, a, b, c) as s:
        wrong = {"protocol": "http", "tls": {"root_ca_pem_files": [ca.root]}}
        load(s, ([a], QUICK, {"transport": tls}), ([b], QUICK, {}), ([a], QUICK, {"transport": wrong}),
             (["{env.NO_SUCH_NAME}", "{http.request.host}:80", c], QUICK, {}))
        s.wait(lambda: a.asked and b.asked and c.asked)
        s.wait(lambda: s.get("/0") == (200, b"a") and s.get("/1") == (200, b"b") and
               s.get("/2")[0] == 503)
        same((a.asked[0][2]["Host"], b.asked[0][2]["Host"]), (a.dial, "localhost"))
        logged(s, "certificate is for app.internal", "invalid use of placeholders in dial address",
            '"bad network address"')
        b.status = a.status = 503
        s.wait(lambda: s.get("/0")[0] == 503 and s.get("/1")[0] == 503)
    folder.cleanup()


def many(io):
    """Hundreds of upstreams, all asked, a few of them unwell; a stop in the middle is clean."""
    a = Backend("a")
    a.status = 500
    with running(io, a) as s:
        dials = [f"127.{i // 200}.{i % 200}.1:{a.port}" for i in range(300)]
        load(s, (dials, {**QUICK, "interval": "200ms", "upstream": a.dial, "headers": {
            "X-Up": ["{http.reverse_proxy.active.target_upstream}"]}}, {}))
        s.wait(lambda: len({x[2]["X-Up"] for x in a.asked}) == 300, 30)
        s.wait(lambda: s.get("/0")[0] == 503, 30)
        a.hang = True


def events(io):
    """Subscriptions name handlers, of which there are none."""
    with running(io) as s:
        for app, text in (({}, ""), ({"subscriptions": [{"events": ["healthy"], "modules": ["http"]}]}, ""),
                          ({"subscriptions": [{"events": ["healthy"], "handlers": []}]}, "no handlers defined"),
                          ({"subscriptions": [{"handlers": [{"handler": "exec"}]}]},
                           "unknown module: events.handlers.exec"),
                          ({"subscribe": []}, "subscribe")):
            document = config(s)
            document["apps"]["events"] = app
            status, answer = s.api("POST", "/load", document)
            same(status, 400 if text else 200)
            assert text in answer, answer


def caddyfile(io):
    """All options, as a Caddyfile has them."""
    a, b = Backend("a"), Backend("b")
    with running(io, a, b) as s:
        text = f"""{{
    admin localhost:{s.admin}
    auto_https off
}}
http://127.0.0.1:{s.port} {{
    reverse_proxy 127.0.0.1:9 {a.dial} {{
        lb_policy first
        health_uri /health
        health_upstream {b.dial}
        health_headers {{
            X-Up {{http.reverse_proxy.active.target_upstream}}
        }}
        health_method POST
        health_request_body ping
        health_interval 30ms
        health_timeout 9s
        health_status 2xx
        health_body fi.e
        health_follow_redirects
        health_passes 2
        health_fails 2
    }}
}}
"""
        same(post(s, "/load", text)[0], 200)
        s.wait(lambda: {x[2]["X-Up"] for x in b.asked} == {"127.0.0.1:9", a.dial})
        same((b.asked[0][0], b.asked[0][3]), ("POST", b"ping"))
        b.body = b"no"
        s.wait(lambda: s.get("/")[0] == 503)


def post(server, path, text):
    c = http.client.HTTPConnection("127.0.0.1", server.admin, timeout=60)
    c.request("POST", path, text, {"Host": f"localhost:{server.admin}", "Content-Type": "text/caddyfile"})
    answer = c.getresponse()
    body = answer.read().decode()
    c.close()
    return answer.status, body


run_cases([
    ("checks are judged by status and body, and decide where requests go", judged),
    ("redirects are followed only when that is wanted", follows),
    ("what is asked, and whom", asked),
    ("failures and passes count in a row", counted),
    ("reloads keep what is known, and end what is gone", kept),
    ("the gateway's transport, its TLS and sockets", transports),
    ("three hundred upstreams, and a stop meanwhile", many),
    ("events have no handlers", events),
    ("every option of a Caddyfile", caddyfile),
], at_once=2)
