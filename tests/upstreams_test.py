#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What is told of upstreams, as TAP: the admin endpoint, Prometheus' metrics, placeholders in the
access log. Usage: upstreams_test.py PORTICO [TEXT]."""
import contextlib
import json
import re
import socket
import sys
import threading
import time

sys.dont_write_bytecode = True
from server import free_port, has, run_cases, running, same  # noqa: E402 (beside this file)

PORTICO = sys.argv[1]


class Upstream:
    """Answers after `gate` is set; keeps its connections."""

    def __init__(self, address="127.0.0.1", port=0):
        self.gate = threading.Event()
        self.gate.set()
        self.sock = socket.create_server((address, port), backlog=64)
        self.dial = f"{address}:{self.sock.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.talk, args=(self.sock.accept()[0],), daemon=True).start()

    def talk(self, peer):
        seen = b""
        with contextlib.suppress(OSError):
            while piece := peer.recv(65536):
                seen += piece
                while b"\r\n\r\n" in seen:
                    seen = seen.split(b"\r\n\r\n", 1)[1]
                    self.gate.wait(20)
                    peer.sendall(b"HTTP/1.1 200 OK\r\nX-B: 1\r\nX-B: 2\r\nContent-Length: 2\r\n\r\nok")

    def close(self):
        self.gate.set()
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


def load(s, upstreams, before=(), metrics=False, **more):
    document = json.loads(json.dumps(s.document))
    if metrics:
        document["apps"]["http"]["metrics"] = {}
    server = document["apps"]["http"]["servers"]["srv0"]
    server.update(more.pop("server", {}))
    server["routes"] = [{"handle": [*before, {
        "handler": "reverse_proxy", "upstreams": [{"dial": u} for u in upstreams], **more}]}]
    status, text = s.api("POST", "/load", document)
    same((status, text), (200, ""))
    s.wait(lambda: s.get() != (200, b"one"))


def listed(s):
    status, text = s.api("GET", "/reverse_proxy/upstreams")
    same(status, 200)
    return {u["address"]: (u["num_requests"], u["fails"]) for u in json.loads(text)}


FIRST = {"selection_policy": {"policy": "first"}}


def endpoint(io):
    """Addresses with the requests under way and the failures of all workers."""
    up, dead = Upstream(), f"127.0.0.1:{free_port()}"
    with running(io, up) as s:
        same(s.api("GET", "/reverse_proxy/upstreams"), (200, "[]\n"))
        load(s, [up.dial])
        same(listed(s), {up.dial: (0, 0)})
        up.gate.clear()
        threads = [threading.Thread(target=s.get) for _ in range(7)]
        for t in threads:
            t.start()
        s.wait(lambda: listed(s) == {up.dial: (7, 0)})
        up.gate.set()
        for t in threads:
            t.join()
        s.wait(lambda: listed(s) == {up.dial: (0, 0)})
        load(s, [dead, up.dial, "{http.request.header.X}:80"], load_balancing=FIRST,
             health_checks={"passive": {"fail_duration": "1h", "max_fails": 3},
                            "active": {"uri": "/", "interval": "1h", "upstream": up.dial}})
        while s.get()[0] != 200:
            pass
        s.wait(lambda: listed(s) == {dead: (0, 3), up.dial: (0, 0), "{http.request.header.X}:80": (0, 0)})
        status, text = s.api("POST", "/reverse_proxy/upstreams")
        same((status, json.loads(text)), (405, {"error": "method not allowed"}))
        load(s, ["127.0.0.1:1"])
        s.wait(lambda: set(listed(s)) == {"127.0.0.1:1"})


def metrics(io):
    """Who is healthy, by Caddy's name; histograms for some, and one for the rest."""
    up, dead = Upstream(), f"127.0.0.1:{free_port()}"
    with running(io, up) as s:
        load(s, [dead, up.dial], load_balancing=FIRST,
             health_checks={"passive": {"fail_duration": "1h", "max_fails": 1}})
        s.get()
        text = s.api("GET", "/metrics")[1]
        name = "caddy_reverse_proxy_upstreams_healthy"
        has(text, f"# HELP {name} Health status of reverse proxy upstreams.\n# TYPE {name} gauge\n",
            f'{name}{{upstream="{dead}"}} 0\n', f'{name}{{upstream="{up.dial}"}} 1\n')
        assert "upstream_latency" not in text
        load(s, [up.dial], metrics=True)
        for _ in range(5):
            same(s.get()[0], 200)
        up.gate.clear()
        t = threading.Thread(target=s.get)
        t.start()
        s.wait(lambda: listed(s)[up.dial][0] == 1)
        time.sleep(0.02)
        up.gate.set()
        t.join()
        base = "portico_reverse_proxy_upstream_latency_seconds"

        def numbers(kind, upstream, le=None):
            label = (f'le="{re.escape(le)}",' if le else "") + f'upstream="{re.escape(upstream)}"'
            found = re.search(rf"^{base}_{kind}{{{label}}} (\S+)$", s.api("GET", "/metrics")[1], re.M)
            return float(found.group(1))

        n = numbers("count", up.dial)
        assert n >= 6, n
        same(numbers("bucket", up.dial, "+Inf"), n)
        assert numbers("bucket", up.dial, "0.01") <= n - 1
        assert numbers("sum", up.dial) >= 0.02
        port = up.dial.split(":")[1]
        many = [f"127.0.{i // 200}.{i % 200 + 1}:{port}" for i in range(400)]
        load(s, [up.dial] + many, metrics=True)
        others = [Upstream(m.split(":")[0], int(port)) for m in many[1:] if m != up.dial]
        for _ in range(60):
            s.get()
        for o in others:
            o.close()
        assert numbers("count", "_other") > 0
        same(len(re.findall(rf"^{base}_count", s.api("GET", "/metrics")[1], re.M)) <= 257, True)


def names(io):
    """Every placeholder of the gateway, and what goes into the access log by log_append."""
    up, dead = Upstream(), f"127.0.0.1:{free_port()}"
    host, port = up.dial.split(":")
    wanted = ["upstream.address", "upstream.hostport", "upstream.host", "upstream.port",
              "upstream.requests", "upstream.max_requests", "upstream.fails", "upstream.latency",
              "upstream.latency_ms", "upstream.duration", "upstream.duration_ms", "upstream.connect",
              "upstream.connect_ms", "duration", "duration_ms", "retries", "status_code",
              "status_text", "header.X-B"]
    with running(io, up) as s:
        load(s, [dead, up.dial], server={"logs": {}}, load_balancing={
                 **FIRST, "retries": 3}, health_checks={"passive": {"fail_duration": "1h"}},
             before=[{"handler": "log_append", "key": n, "value": "{http.reverse_proxy.%s}" % n}
                     for n in wanted])
        found = []

        def look():
            lines = [json.loads(line) for line in s.text().splitlines() if "http.log.access" in line]
            found.extend(x for x in lines if x["status"] == 200 and x.get("retries") in (1, "1"))
            return found
        s.wait(look)
        line = found[0]
        same([str(line[n]) for n in wanted[:5]], [up.dial, up.dial, host, port, "0"])
        same([str(line[n]) for n in ("upstream.max_requests", "status_code", "status_text", "header.X-B")],
             ["0", "200", "200 OK", "1,2"])
        for n in wanted:
            if n.endswith("_ms"):
                # numbers, as in Caddy: milliseconds, and durations as the log's other ones
                assert isinstance(line[n], (int, float)) and isinstance(line[n[:-3]], (int, float)), (n, line)
                if n != "duration_ms":  # that of the line itself has the same name
                    assert abs(line[n] - line[n[:-3]] * 1000) < 0.01, (n, line)
        same([line[n] for n in ("retries", "status_code", "upstream.requests")], [1, 200, 0])
        assert line["duration_ms"] >= line["upstream.latency_ms"] >= line["upstream.connect_ms"], line


run_cases([
    ("/reverse_proxy/upstreams", endpoint),
    ("metrics of upstreams", metrics),
    ("placeholders, and the access log", names),
], at_once=2)
