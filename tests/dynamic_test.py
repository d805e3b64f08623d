#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Dynamic upstreams of the gateway by DNS (a, srv, multi), as TAP: what a name gives, refreshes,
failures, grace periods, placeholders. Usage: dynamic_test.py PORTICO [TEXT]."""
import contextlib
import http.client
import http.server
import json
import socket
import socketserver
import sys
import tempfile
import threading

sys.dont_write_bytecode = True
from dns_server import Names  # noqa: E402 (beside this file)
from server import Server, has, run_cases, same  # noqa: E402

PORTICO = sys.argv[1]


class Backends:
    """One port on several addresses; each answers with its own address and the path."""

    def __init__(self, *addresses):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                body = f"{self.server.server_address[0]}".encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
            daemon_threads, block_on_close = True, False
            allow_reuse_address, request_queue_size = True, 64

        self.servers, self.port = [], 0
        while not self.servers:
            with contextlib.suppress(OSError):
                for a in addresses:
                    self.servers.append(Listener((a, self.port), Handler))
                    self.port = self.servers[0].server_address[1]
                continue
            self.close()
            self.servers, self.port = [], 0
        for s in self.servers:
            threading.Thread(target=s.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        for s in self.servers:
            s.server_close()


@contextlib.contextmanager
def scene(io, *addresses):
    """A server, a DNS server, and answers on these addresses; ends them."""
    folder = tempfile.TemporaryDirectory(prefix="portico-dynamic-")
    names, backends = Names(folder.name), Backends(*addresses)
    server = Server(PORTICO, io, workers=1)
    try:
        yield server, names, backends
    finally:
        backends.close()
        same(server.end(), 0)
        folder.cleanup()


def use(s, names, source, **more):
    def with_resolver(o):
        if o["source"] == "multi":
            return {**o, "sources": [with_resolver(i) for i in o["sources"]]}
        return {"resolver": {"addresses": [f"127.0.0.1:{names.port}"]}, **o}

    document = json.loads(json.dumps(s.document))
    document["logging"] = {"logs": {"default": {"level": "DEBUG"}}}
    document["apps"]["http"]["servers"]["srv0"]["routes"] = [{"handle": [{
        "handler": "reverse_proxy", "dynamic_upstreams": with_resolver(source),
        "load_balancing": {"selection_policy": {"policy": "round_robin"}, **more.pop("lb", {})},
        **more}]}]
    status, text = s.api("POST", "/load", document)
    same((status, text), (200, ""))


def logged(s, *parts):
    """Lines come by a thread of their own."""
    s.wait(lambda: all(p in s.text() for p in parts))


def got(s, n=6, path="/"):
    return {s.get(path)[1].decode() for _ in range(n)}


def statuses(s, n=1, path="/", **fields):
    return [s.get(path, **fields)[0] for _ in range(n)]


def addresses(io):
    """All addresses of a name, refreshed; one family; what is no host."""
    with scene(io, "127.0.0.2", "127.0.0.3", "127.0.0.4") as (s, names, up):
        names.set("app.example", "127.0.0.2", "127.0.0.3")
        source = {"source": "a", "name": "app.example", "port": str(up.port), "refresh": "300ms"}
        names.set("kept.example", "127.0.0.2", "127.0.0.3")
        use(s, names, {**source, "name": "kept.example", "refresh": "1h"})
        same(got(s), {"127.0.0.2", "127.0.0.3"})
        same(len([a for a in names.asked if a[1] == 1]), 1)
        logged(s, '"discovered A record","ip":"127.0.0.2"')
        use(s, names, source)
        same(got(s), {"127.0.0.2", "127.0.0.3"})
        names.set("app.example", "127.0.0.4")
        s.wait(lambda: got(s, 3) == {"127.0.0.4"})
        names.set("app.example", "127.0.0.2", "::1")
        use(s, names, {**source, "versions": {"ipv4": True}})
        before = len(names.asked)
        same(got(s, 4), {"127.0.0.2"})
        same({a[1] for a in names.asked[before:]}, {1})
        use(s, names, {**source, "versions": {"ipv6": True}})
        same(statuses(s, 3), [502, 502, 502])
        logged(s, f"dial tcp [::1]:{up.port}")
        # more than a resolver's best few
        names.set("many.example", "127.0.0.2", *[f"127.1.1.{i}" for i in range(30)])
        use(s, names, {**source, "name": "many.example"})
        s.get("/")
        logged(s, *[f'"ip":"127.1.1.{i}"' for i in range(30)])
        names.set("gone.example")
        use(s, names, {**source, "name": "gone.example"})
        same(statuses(s, 2), [503, 503])
        logged(s, "failed getting dynamic upstreams", "lookup gone.example: no such host")
        use(s, names, {**source, "name": "not a name"})
        same(statuses(s), [503])


def services(io):
    """Targets of a service with their ports; priorities come in order."""
    with scene(io, "127.0.0.2", "127.0.0.3", "127.0.0.4") as (s, names, up):
        for i in (2, 3, 4):
            names.set(f"h{i}.example", f"127.0.0.{i}")
        names.set("_api._tcp.example", (20, 1, up.port, "h4.example"), (10, 5, up.port, "h2.example"),
                  (10, 5, up.port, "h3.example"))
        source = {"source": "srv", "service": "api", "proto": "tcp", "name": "example", "refresh": "300ms"}
        resolver = {"transport": {"protocol": "http",
                                  "resolver": {"addresses": [f"127.0.0.1:{names.port}"]}}}
        use(s, names, source, **resolver)
        same(got(s, 6), {"127.0.0.2", "127.0.0.3", "127.0.0.4"})
        logged(s, '"discovered SRV record"', '"priority":20')
        first = {"selection_policy": {"policy": "first"}}
        use(s, names, source, lb=first, **resolver)
        assert got(s, 3) <= {"127.0.0.2", "127.0.0.3"}
        names.set("_api._tcp.example", (1, 0, up.port, "h4.example"), (10, 5, up.port, "h2.example"))
        s.wait(lambda: got(s, 2) == {"127.0.0.4"})
        # a whole name, with nothing before it
        use(s, names, {"source": "srv", "name": "_api._tcp.example"}, lb=first, **resolver)
        same(got(s, 2), {"127.0.0.4"})
        names.set("_none._tcp.example", (0, 0, 0, "."))
        use(s, names, {"source": "srv", "name": "_none._tcp.example"}, lb=first, **resolver)
        same(statuses(s), [503])


def grace(io):
    """A failure keeps what was known for the grace period; without one it is an error at once."""
    with scene(io, "127.0.0.2") as (s, names, up):
        names.set("h2.example", "127.0.0.2")
        names.set("_api._tcp.example", (1, 1, up.port, "h2.example"))
        resolver = {"transport": {"protocol": "http",
                                  "resolver": {"addresses": [f"127.0.0.1:{names.port}"]}}}
        source = {"source": "srv", "name": "_api._tcp.example", "refresh": "50ms"}
        use(s, names, source, **resolver)
        same(statuses(s), [200])
        names.fails["_api._tcp.example."] = 2
        s.wait(lambda: statuses(s) == [503])
        logged(s, "lookup _api._tcp.example: the DNS servers cannot be reached, or fail")
        del names.fails["_api._tcp.example."]
        s.wait(lambda: statuses(s) == [200])
        use(s, names, {**source, "grace_period": "1h"}, **resolver)
        same(statuses(s), [200])
        names.fails["_api._tcp.example."] = 2
        s.wait(lambda: statuses(s) == [200] and "using previously cached" in s.text())
        same(statuses(s, 3), [200, 200, 200])


def several(io):
    """multi: one behind the other, those that fail left out; static upstreams are the last resort."""
    with scene(io, "127.0.0.2", "127.0.0.3", "127.0.0.4") as (s, names, up):
        port = str(up.port)
        names.set("one.example", "127.0.0.2")
        names.set("two.example", "127.0.0.3")
        use(s, names, {"source": "multi", "sources": [
            {"source": "a", "name": "none.example", "port": port},
            {"source": "a", "name": "one.example", "port": port},
            {"source": "a", "name": "two.example", "port": port}]})
        same(got(s, 4), {"127.0.0.2", "127.0.0.3"})
        logged(s, '"upstream source returned error","source_idx":0')
        use(s, names, {"source": "a", "name": "none.example", "port": port},
            upstreams=[{"dial": f"127.0.0.4:{port}"}])
        same(got(s, 2), {"127.0.0.4"})
        logged(s, "falling back to static upstreams")


def placeholders(io):
    """Names by request; hundreds of them are forgotten again; many clients ask once."""
    with scene(io, "127.0.0.2", "127.0.0.3") as (s, names, up):
        names.set("a.example", "127.0.0.2")
        names.set("b.example", "127.0.0.3")
        use(s, names, {"source": "a", "name": "{http.request.header.X-App}.example",
                       "port": "{http.request.header.X-Port}", "refresh": "1h"})
        same(s.get("/", **{"X-App": "a", "X-Port": str(up.port)}), (200, b"127.0.0.2"))
        same(s.get("/", **{"X-App": "b", "X-Port": str(up.port)}), (200, b"127.0.0.3"))
        same(statuses(s, **{"X-App": "a", "X-Port": "x"}), [502])
        for i in range(300):
            same(statuses(s, **{"X-App": f"n{i}", "X-Port": "1"}), [503])
        same(s.get("/", **{"X-App": "a", "X-Port": str(up.port)}), (200, b"127.0.0.2"))
        names.set("c.example", "127.0.0.2")
        results, before = [], len(names.asked)

        def client():
            results.append(s.get("/", **{"X-App": "c", "X-Port": str(up.port)}))

        threads = [threading.Thread(target=client) for _ in range(20)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        same(results, [(200, b"127.0.0.2")] * 20)
        same(len([a for a in names.asked[before:] if a[0] == "c.example." and a[1] == 1]), 1)


def retried(io):
    """While a name gives nothing a request is tried again, and comes through when it does."""
    with scene(io, "127.0.0.2") as (s, names, up):
        names.set("late.example")
        use(s, names, {"source": "a", "name": "late.example", "port": str(up.port)},
            lb={"try_duration": "20s", "try_interval": "50ms"})
        result = []
        t = threading.Thread(target=lambda: result.append(s.get("/")))
        t.start()
        s.wait(lambda: "late.example: no such host" in s.text())
        names.set("late.example", "127.0.0.2")
        t.join()
        same(result, [(200, b"127.0.0.2")])


def silent(io):
    """Who leaves waits no longer, a stop waits for nobody, and a Caddyfile means the same."""
    with scene(io, "127.0.0.2") as (s, names, up):
        names.silent.add("silent.example.")
        names.set("app.example", "127.0.0.2")
        text = f"""{{
    admin localhost:{s.admin}
    auto_https off
}}
http://127.0.0.1:{s.port} {{
    reverse_proxy {{
        dynamic multi {{
            a {{
                name {{http.request.header.X-App}}
                port {up.port}
                refresh 5s
                resolvers 127.0.0.1:{names.port}
                dial_timeout 1s
                dial_fallback_delay 1s
                versions ipv4
            }}
            srv {{
                service api
                proto tcp
                name example
                grace_period 1m
                resolvers 127.0.0.1:{names.port}
            }}
        }}
    }}
}}
"""
        c = http.client.HTTPConnection("127.0.0.1", s.admin, timeout=60)
        c.request("POST", "/load", text, {"Host": f"localhost:{s.admin}", "Content-Type": "text/caddyfile"})
        same(c.getresponse().status, 200)
        s.wait(lambda: s.get("/", **{"X-App": "app.example"}) == (200, b"127.0.0.2"))
        leaving = [socket.create_connection(("127.0.0.1", s.port)) for _ in range(3)]
        for sock in leaving:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-App: silent.example\r\n\r\n")
        s.wait(lambda: s.metric("exchanges") == 3)
        for sock in leaving:
            sock.close()
        s.wait(lambda: s.metric("exchanges") == 0)
        same(s.get("/", **{"X-App": "app.example"}), (200, b"127.0.0.2"))


def refused(io):
    """What is wrong with a source is said when it is loaded."""
    with scene(io, "127.0.0.2") as (s, names, _):
        for source, text in (({"source": "a", "nonsense": 1}, "nonsense"),
                             ({"source": "a", "name": "x", "resolver": {"addresses": ["dns.example"]}}, "IP address"),
                             ({"source": "srv", "name": "x", "dial_network": "tcp4"}, "dial_network"),
                             ({"source": "a", "name": "x", "versions": {"ipv5": True}}, "ipv5"),
                             ({"source": "nope"}, "nope")):
            document = json.loads(json.dumps(s.document))
            document["apps"]["http"]["servers"]["srv0"]["routes"] = [
                {"handle": [{"handler": "reverse_proxy", "dynamic_upstreams": source}]}]
            status, answer = s.api("POST", "/load", document)
            same(status, 400)
            has(answer, text)


run_cases([
    ("all addresses of a name, refreshed", addresses),
    ("targets of a service by priority, with their ports", services),
    ("a failure within the grace period changes nothing", grace),
    ("several sources, and static upstreams behind them", several),
    ("names by placeholders; one question for many requests", placeholders),
    ("what gives nothing yet is tried again", retried),
    ("who leaves a silent name waits no longer; a Caddyfile", silent),
    ("what is wrong is refused with a sentence", refused),
], at_once=2)
