#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The gateway when upstreams are slow or fail, as TAP: limits with a queue, and the other options of
docs/slow-services.md. Usage: overload_test.py PORTICO [TEXT]."""
import contextlib
import http.client
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
from dns_server import Names  # noqa: E402 (beside this file)
from patience import at_some_pace  # noqa: E402
from server import Server, free_port, has, run_cases, running, same  # noqa: E402

PORTICO = sys.argv[1]


class Upstream:
    """Answers `status` after `delay` and once `gate` is set; counts what it sees."""

    def __init__(self, port=0, delay=0.0, status=200, address="127.0.0.1"):
        self.delay, self.status = delay, status
        self.gate, self.lock = threading.Event(), threading.Lock()
        self.gate.set()
        self.requests = self.under_way = self.peak = self.connections = self.open = 0
        self.sock = socket.create_server((address, port), backlog=256)
        self.port = self.sock.getsockname()[1]
        self.dial = f"{address}:{self.port}"
        self.peers, self.paths = [], []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                peer = self.sock.accept()[0]
                self.connections += 1
                self.peers.append(peer)
                threading.Thread(target=self.talk, args=(peer,), daemon=True).start()

    def count(self, step):
        with self.lock:
            self.requests += step > 0
            self.under_way += step
            self.peak = max(self.peak, self.under_way)

    def talk(self, peer):
        seen = b""
        with self.lock:
            self.open += 1
        with contextlib.suppress(OSError):
            while piece := peer.recv(65536):
                seen += piece
                while b"\r\n\r\n" in seen:
                    head, seen = seen.split(b"\r\n\r\n", 1)
                    length = re.search(rb"\r\nContent-Length: (\d+)", head)
                    while length and len(seen) < int(length.group(1)):
                        seen += peer.recv(65536)
                    seen = seen[int(length.group(1)):] if length else seen
                    self.paths.append(head.split()[1])
                    self.count(1)
                    status = self.status
                    self.gate.wait(30)
                    time.sleep(self.delay)
                    self.count(-1)
                    if status == 0:
                        peer.close()
                    peer.sendall(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nok" % status)
        with self.lock:
            self.open -= 1
        peer.close()

    def close(self):
        self.gate.set()
        for s in [self.sock, *self.peers]:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()


def load(s, upstreams, **more):
    document = json.loads(json.dumps(s.document))
    document["apps"]["http"]["servers"]["srv0"]["routes"] = [
        {"match": [{"path": ["/ready"]}], "handle": [{"handler": "static_response", "body": str(time.time())}]},
        {"handle": [{"handler": "reverse_proxy", "upstreams": [
            u if isinstance(u, dict) else {"dial": u} for u in upstreams], **more}]}]
    same(s.api("POST", "/load", document), (200, ""))
    ready = document["apps"]["http"]["servers"]["srv0"]["routes"][0]["handle"][0]["body"].encode()
    s.wait(lambda: all(s.get("/ready")[1] == ready for _ in range(4)))


def refused(s, upstreams, **more):
    """What is said about such a gateway at load."""
    document = json.loads(json.dumps(s.document))
    document["apps"]["http"]["servers"]["srv0"]["routes"] = [{"handle": [{
        "handler": "reverse_proxy", "upstreams": [{"dial": u} for u in upstreams], **more}]}]
    status, text = s.api("POST", "/load", document)
    same(status, 400)
    return json.loads(text)["error"]


def metric(s, name):
    found = re.search(rf"^portico_reverse_proxy_{re.escape(name)} (\S+)$", s.api("GET", "/metrics")[1], re.M)
    return float(found.group(1))


def logged(s, *parts):
    """Lines come by a thread of their own."""
    s.wait(lambda: all(p in s.text() for p in parts))


class Clients:
    """Requests at the same time; what each got, in the order of their ends."""

    def __init__(self, s, n, path="/"):
        self.s, self.got = s, []
        self.threads = [threading.Thread(target=self.ask, args=(path,), daemon=True) for _ in range(n)]
        for t in self.threads:
            t.start()

    def ask(self, path):
        c = http.client.HTTPConnection("127.0.0.1", self.s.port, timeout=30)
        try:
            c.request("GET", path)
            answer = c.getresponse()
            answer.read()
            self.got.append((answer.status, answer.headers.get("Retry-After")))
        finally:
            c.close()

    def join(self):
        for t in self.threads:
            t.join(40)
        return self.got


def adapt(text):
    """The handler, or what is said about the Caddyfile."""
    with tempfile.NamedTemporaryFile("w", suffix=".caddyfile") as f:
        f.write(text)
        f.flush()
        done = subprocess.run([PORTICO, "adapt", "--adapter", "caddyfile", "--config", f.name],
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return done.stderr.replace(f.name, "FILE")
    document = json.loads(done.stdout)
    return document["apps"]["http"]["servers"]["srv0"]["routes"][0]["handle"][0]


# --- a limit with a queue ---

def queue_limits(io):
    """Never more at an upstream than it may have, and nobody is refused while there is a place."""
    a, b = Upstream(delay=0.01), Upstream(delay=0.01)
    with running(io, a, b) as s:
        load(s, [a.dial, {"dial": b.dial, "max_requests": 1}],
             overload={"max_requests": 2, "queue": 100, "queue_timeout": "30s"})
        a.gate.clear()
        b.gate.clear()
        clients = Clients(s, 40)
        s.wait(lambda: (a.under_way, b.under_way, metric(s, "queued")) == (2, 1, 37))
        a.gate.set()
        b.gate.set()
        same(clients.join(), [(200, None)] * 40)
        same((a.peak, b.peak, a.requests + b.requests), (2, 1, 40))
        same(metric(s, "queued"), 0)
        assert metric(s, "queue_waited_total") >= 37


def queue_refuses(io):
    """Beyond the queue's length, and when the time is over: 503 with Retry-After."""
    up = Upstream()
    with running(io, up) as s:
        load(s, [up.dial], overload={"max_requests": 2, "queue": 3, "queue_timeout": "20s"})
        up.gate.clear()
        clients = Clients(s, 5)
        s.wait(lambda: metric(s, "queued") == 3 and up.under_way == 2)
        same(Clients(s, 2).join(), [(503, "20")] * 2)
        same(metric(s, 'queue_refused_total{reason="full"}'), 2)
        up.gate.set()
        same(clients.join(), [(200, None)] * 5)
        same(up.peak, 2)
        load(s, [up.dial], overload={"max_requests": 1, "queue": 3, "queue_timeout": "100ms"})
        up.gate.clear()
        first = Clients(s, 1)
        s.wait(lambda: up.under_way == 1)
        begin = time.monotonic()
        same(Clients(s, 3).join(), [(503, "1")] * 3)
        assert time.monotonic() - begin >= 0.1
        same(metric(s, 'queue_refused_total{reason="time"}'), 3)
        up.gate.set()
        same(first.join(), [(200, None)])


def queue_left(io):
    """A client that leaves gives its place to others, and is not asked for."""
    up = Upstream()
    with running(io, up) as s:
        load(s, [up.dial], overload={"max_requests": 1, "queue": 1, "queue_timeout": "1m"})
        up.gate.clear()
        first = Clients(s, 1)
        s.wait(lambda: up.under_way == 1)
        leaver = socket.create_connection(("127.0.0.1", s.port))
        leaver.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        s.wait(lambda: metric(s, "queued") == 1)
        leaver.close()
        s.wait(lambda: metric(s, "queued") == 0)
        second = Clients(s, 1)
        s.wait(lambda: metric(s, "queued") == 1)
        up.gate.set()
        same(first.join() + second.join(), [(200, None)] * 2)
        same(up.requests, 2)


def queue_reload(io):
    """A request of the configuration before wakes who waits in the one behind it; an upstream that is
    down is not waited for."""
    up, dead = Upstream(), f"127.0.0.1:{free_port()}"
    limits = {"max_requests": 1, "queue": 5, "queue_timeout": "30s"}
    with running(io, up) as s:
        load(s, [up.dial], overload=limits)
        up.gate.clear()
        first = Clients(s, 1)
        s.wait(lambda: up.under_way == 1)
        load(s, [up.dial], overload={**limits, "queue": 6})
        second = Clients(s, 2)
        s.wait(lambda: metric(s, "queued") == 2)
        up.gate.set()
        same(first.join() + second.join(), [(200, None)] * 3)
        same(up.peak, 1)
        load(s, [dead], overload=limits,
             health_checks={"passive": {"fail_duration": "1h", "max_fails": 1}})
        same([s.get()[0] for _ in range(2)], [502, 503])
        same(metric(s, "queued"), 0)


def queue_dynamic(io):
    """Upstreams that DNS gives have the limit, too: who waits for them is woken, and goes to those of that moment."""
    a = Upstream(address="127.0.0.2", delay=0.01)
    b = Upstream(port=a.port, address="127.0.0.3", delay=0.01)
    with tempfile.TemporaryDirectory() as folder, running(io, a, b) as s:
        names = Names(folder)
        names.set("app.example", "127.0.0.2")
        load(s, [], overload={"max_requests": 2, "queue": 50}, load_balancing={
            "selection_policy": {"policy": "least_conn"}}, dynamic_upstreams={
            "source": "a", "name": "app.example", "port": str(a.port), "refresh": "20ms",
            "resolver": {"addresses": [f"127.0.0.1:{names.port}"]}})
        same(Clients(s, 20).join(), [(200, None)] * 20)
        same((a.peak, a.requests, b.requests, metric(s, "queued")), (2, 20, 0, 0))
        a.gate.clear()
        clients = Clients(s, 6)
        s.wait(lambda: a.under_way == 2 and metric(s, "queued") == 4)
        names.set("app.example", "127.0.0.2", "127.0.0.3")
        time.sleep(0.05)
        a.gate.set()
        same(clients.join(), [(200, None)] * 6)
        assert a.peak == 2 and 1 <= b.peak <= 2, (a.peak, b.peak)


def queue_fallback(io):
    """The static upstreams that stand in for DNS's wake who waits for them, also after the queue was empty."""
    up = Upstream(delay=0.02)
    with tempfile.TemporaryDirectory() as folder, running(io, up) as s:
        names = Names(folder)
        names.set("none.example")
        load(s, [up.dial], overload={"max_requests": 1, "queue": 50, "queue_timeout": "5s"},
             dynamic_upstreams={"source": "a", "name": "none.example", "port": "1",
                                "resolver": {"addresses": [f"127.0.0.1:{names.port}"]}})
        for _ in range(3):
            same(Clients(s, 6).join(), [(200, None)] * 6)
        same((up.peak, metric(s, "queued")), (1, 0))


def queue_words(io):
    """The Caddyfile's forms, and what is refused."""
    handler = adapt(":80 {\n\treverse_proxy a:1 {\n\t\tmax_requests 10\n\t\tqueue 100\n"
                    "\t\tqueue_timeout 2s\n\t}\n}\n")
    same(handler["overload"], {"max_requests": 10, "queue": 100, "queue_timeout": 2000000000})
    has(adapt(":80 {\n\treverse_proxy a:1 {\n\t\tqueue 0\n\t}\n}\n"),
        "invalid length of the queue: '0' is not above zero", "FILE:3")
    has(adapt(":80 {\n\treverse_proxy a:1 {\n\t\tqueue_timeout x\n\t}\n}\n"), "bad duration value", "FILE:3")
    has(adapt(":80 {\n\treverse_proxy a:1 {\n\t\tmax_requests\n\t}\n}\n"), "FILE:3")
    with running(io) as s:
        has(refused(s, ["a:1"], overload={"queue": 3}), '"queue" needs "max_requests"')
        has(refused(s, ["a:1"], overload={"queue_timeout": "1s"}), '"queue_timeout" needs a "queue"')
        has(refused(s, ["a:1"], overload={"queues": 3}), "queues")
        has(refused(s, ["a:1"], overload={"max_requests": -1}), "max_requests")


# --- least latency of two ---

def p2c_avoids(io):
    """The slow one and the one that fails at once get few requests; words."""
    fast, slow, failing = Upstream(), Upstream(delay=0.1), Upstream(status=500)
    with running(io, fast, slow, failing) as s:
        for other in slow, failing:
            load(s, [fast.dial, other.dial],
                 load_balancing={"selection_policy": {"policy": "p2c_ewma", "decay": "2s"}})
            for _ in range(60):
                s.get()
            assert 1 <= other.requests < 25, (fast.requests, slow.requests, failing.requests)
        load(s, [fast.dial, slow.dial], load_balancing={"selection_policy": {
            "policy": "header", "field": "X", "fallback": {"policy": "p2c_ewma", "decay": "2s"}}})
        before = slow.requests
        for _ in range(50):
            same(s.get()[0], 200)
        assert slow.requests - before < 20, slow.requests
        has(refused(s, ["a:1"], load_balancing={"selection_policy": {"policy": "p2c_ewma", "decay": 5}}),
            "a millisecond at least")
    handler = adapt(":80 {\n\treverse_proxy a:1 {\n\t\tlb_policy p2c_ewma 5s\n\t}\n}\n")
    same(handler["load_balancing"], {"selection_policy": {"policy": "p2c_ewma", "decay": 5000000000}})
    handler = adapt(":80 {\n\treverse_proxy a:1 {\n\t\tlb_policy p2c_ewma\n\t}\n}\n")
    same(handler["load_balancing"], {"selection_policy": {"policy": "p2c_ewma"}})
    has(adapt(":80 {\n\treverse_proxy a:1 {\n\t\tlb_policy p2c_ewma x\n\t}\n}\n"), "bad duration value", "FILE:3")


# --- slow start ---

def slow_start(io):
    """An upstream that came back gets few requests at first: after failures, after a check, and as a new one of
    a configuration; then all of its share."""
    old, back = Upstream(), Upstream()
    turns = {"selection_policy": {"policy": "round_robin"}}

    def asked(s, n):
        before = back.paths.count(b"/")
        for _ in range(n):
            same(s.get()[0], 200)
        return back.paths.count(b"/") - before

    def few(s):
        begin = time.monotonic()
        number = asked(s, 30)  # about two, where they are asked in no time
        assert number < 12 or time.monotonic() - begin > 0.7, number

    slow = {"slow_start": "3s"}
    check = {"active": {"uri": "/health", "interval": "20ms"}}
    with running(io, old, back) as s:
        load(s, [old.dial], overload=slow)
        time.sleep(3)
        load(s, [old.dial, back.dial], overload=slow, load_balancing=turns)
        few(s)
        time.sleep(3)
        same(asked(s, 30), 15)
        load(s, [old.dial, back.dial], overload=slow, load_balancing=turns, health_checks={"passive": {
            "fail_duration": "200ms", "max_fails": 1, "unhealthy_status": [503]}})
        back.status = 503
        s.wait(lambda: s.get()[0] == 503)
        back.status = 200
        time.sleep(0.2)
        few(s)
        load(s, [old.dial, back.dial], overload=slow, load_balancing=turns, health_checks=check)
        back.status = 503
        s.wait(lambda: f'upstreams_healthy{{upstream="{back.dial}"}} 0' in s.api("GET", "/metrics")[1])
        time.sleep(3)
        back.status = 200
        s.wait(lambda: f'upstreams_healthy{{upstream="{back.dial}"}} 1' in s.api("GET", "/metrics")[1])
        few(s)
        has(refused(s, ["a:1"], overload={"slow_start": "-1s"}), '"slow_start" is negative')
    handler = adapt(":80 {\n\treverse_proxy a:1 {\n\t\tslow_start 30s\n\t}\n}\n")
    same(handler["overload"], {"slow_start": 30000000000})
    has(adapt(":80 {\n\treverse_proxy a:1 {\n\t\tslow_start -1s\n\t}\n}\n"), "not above zero", "FILE:3")


# --- ejection ---

def ejects_the_slow(s, turns, pace):
    """Where the machine is so busy that a good one's answer takes as long, one that is slower still."""
    ups = [Upstream(delay=0.05 * (pace - 1)) for _ in range(2)] + [Upstream(delay=0.4 * pace)]
    load(s, [u.dial for u in ups], load_balancing=turns, overload={"eject": {
        "consecutive_failures": 0, "latency_factor": 4, "min_requests": 3, "interval": "500ms",
        "base_time": "1h", "max_time": "1h"}})
    try:
        s.wait(lambda: Clients(s, 9).join() and metric(s, "ejected") == 1)
        before = ups[2].requests
        for _ in range(20):
            same(s.get()[0], 200)
        same(ups[2].requests, before)
        logged(s, '"reason":"latency"')
    finally:
        for u in ups:
            u.close()


def ejects(io):
    """Who fails in a row, or is far slower than the others, is left out for a while; never more than half; a
    reload keeps it."""
    a, b, bad = Upstream(), Upstream(), Upstream(status=500)
    turns = {"selection_policy": {"policy": "round_robin"}}
    rules = {"consecutive_failures": 3, "base_time": "8s", "max_time": "1m"}
    with running(io, a, b, bad) as s:
        load(s, [a.dial, b.dial, bad.dial], load_balancing=turns, overload={"eject": rules})
        same(sorted(s.get()[0] for _ in range(30)), [200] * 27 + [500] * 3)
        same((bad.requests, metric(s, "ejected"), metric(s, "ejections_total")), (3, 1, 1))
        logged(s, '"upstream is left out for a while"', f'"upstream":"{bad.dial}"',
               '"reason":"failures in a row"')
        load(s, [a.dial, b.dial, bad.dial], load_balancing=turns, overload={"eject": rules},
             flush_interval=-1)
        same((s.get()[0], s.get()[0], s.get()[0], bad.requests), (200, 200, 200, 3))
        same(metric(s, "ejected"), 1)
        s.wait(lambda: metric(s, "ejected") == 0)
        bad.status = 200
        for _ in range(6):
            same(s.get()[0], 200)
        same(bad.requests, 5)
        for u in a, b, bad:
            u.status = 500
        for _ in range(40):
            s.get()
        same((metric(s, "ejected"), metric(s, "ejections_total")), (1, 2))
        for u in a, b, bad:
            u.status = 200
        at_some_pace(lambda pace: ejects_the_slow(s, turns, pace))
        eject = [{"latency_factor": 1}, {"failure_rate": 2}, {"base_time": "2m", "max_time": "1m"},
                 {"interval": -1}, {"consecutive_failures": 0}, {"more": 1}]
        texts = ["from 1.1 to 1000", "from 0.01 to 1", "shorter than", "a millisecond at least",
                 "nothing that would eject", "more"]
        for json_, text in zip(eject, texts):
            has(refused(s, ["a:1"], overload={"eject": json_}), text)
    handler = adapt(":80 {\n\treverse_proxy a:1 {\n\t\teject {\n\t\t\tconsecutive_failures 4\n"
                    "\t\t\tfailure_rate 50%\n\t\t\tlatency 2.5\n\t\t\tmin_requests 9\n\t\t\tinterval 5s\n"
                    "\t\t\tbase_time 10s\n\t\t\tmax_time 1m\n\t\t}\n\t}\n}\n")
    same(handler["overload"], {"eject": {
        "consecutive_failures": 4, "failure_rate": 0.5, "latency_factor": 2.5, "min_requests": 9,
        "interval": 5000000000, "base_time": 10000000000, "max_time": 60000000000}})
    same(adapt(":80 {\n\treverse_proxy a:1 {\n\t\teject\n\t}\n}\n")["overload"], {"eject": {}})
    for line, text in (("latency 1", "bad latency '1'"), ("failure_rate 5", "bad share '5'"),
                       ("interval x", "bad duration value"), ("other 1", "other")):
        has(adapt(":80 {\n\treverse_proxy a:1 {\n\t\teject {\n\t\t\t%s\n\t\t}\n\t}\n}\n" % line),
            text, "FILE:4")


def by_name(names, up, name="app.example", **more):
    return {"source": "a", "name": name, "port": str(up.port), "refresh": "100ms",
            "resolver": {"addresses": [f"127.0.0.1:{names.port}"]}, **more}


def ejects_found(io):
    """Of upstreams that DNS gives as well: what is known goes from one answer to the next, over a reload and while
    one is not in the answer; of half of the answer at most."""
    a = Upstream(address="127.0.0.2")
    b, bad = (Upstream(port=a.port, address=f"127.0.0.{n}", status=n == 3 and 200 or 500) for n in (3, 4))
    turns = {"selection_policy": {"policy": "round_robin"}}
    rules = {"consecutive_failures": 3, "base_time": "1h", "max_time": "1h"}
    with tempfile.TemporaryDirectory() as folder, running(io, a, b, bad) as s:
        names = Names(folder)
        names.set("app.example", "127.0.0.2", "127.0.0.3", "127.0.0.4")
        source = by_name(names, a)
        load(s, [], load_balancing=turns, overload={"eject": rules}, dynamic_upstreams=source)
        same(sorted(s.get()[0] for _ in range(30)), [200] * 27 + [500] * 3)
        same((bad.requests, metric(s, "ejected"), metric(s, "ejections_total")), (3, 1, 1))
        asked = len(names.asked)
        s.wait(lambda: s.get()[0] == 200 and len(names.asked) >= asked + 6)
        names.set("app.example", "127.0.0.2", "127.0.0.3")
        s.wait(lambda: s.get()[0] == 200 and f'"{bad.dial}"' not in s.api("GET", "/reverse_proxy/upstreams")[1])
        names.set("app.example", "127.0.0.2", "127.0.0.3", "127.0.0.4")
        s.wait(lambda: s.get()[0] == 200 and f'"{bad.dial}"' in s.api("GET", "/reverse_proxy/upstreams")[1])
        load(s, [], load_balancing=turns, overload={"eject": rules}, dynamic_upstreams=source, flush_interval=-1)
        same([s.get()[0] for _ in range(12)], [200] * 12)
        same((bad.requests, metric(s, "ejected")), (3, 1))
        names.set("app.example", "127.0.0.4")  # nobody's last one
        s.wait(lambda: s.get()[0] == 500)
        names.set("app.example", "127.0.0.2", "127.0.0.4")
        s.wait(lambda: {s.get()[0] for _ in range(4)} == {200})
        names.set("two.example", "127.0.0.2", "127.0.0.3")
        two = by_name(names, a, "two.example")
        load(s, [], load_balancing=turns, overload={"eject": rules}, dynamic_upstreams={
            "source": "multi", "sources": [two, source]})
        a.status = b.status = 500
        for _ in range(40):
            s.get()
        s.wait(lambda: (metric(s, "ejections_total"), metric(s, "ejected")) == (2, 1))


def ejects_within(s, names, pace):
    fast = [Upstream(delay=0.03 * pace, address="127.0.0.2")]
    fast += [Upstream(port=fast[0].port, delay=0.03 * pace, address=f"127.0.0.{n}") for n in (3, 4)]
    slow = [Upstream(port=fast[0].port, delay=pace * (n == 7 and 1 or 0.2), address=f"127.0.0.{n}") for n in (5, 6, 7)]
    source = by_name(names, fast[0], "{http.request.uri.path.0}.example")
    load(s, [], load_balancing={"selection_policy": {"policy": "round_robin"}}, dynamic_upstreams=source, overload={"eject": {
        "consecutive_failures": 0, "latency_factor": 4, "min_requests": 3, "interval": f"{1500 * pace}ms",
        "base_time": "1h", "max_time": "1h"}})
    try:
        before = metric(s, "ejections_total") or 0

        def both():
            for c in [Clients(s, 12, "/fast"), Clients(s, 12, "/slow")]:
                same({status for status, _ in c.join()}, {200})
        s.wait(lambda: both() or metric(s, "ejections_total") > before)
        same(metric(s, "ejected"), 1)
        requests = [u.requests for u in fast + slow]
        both()
        same([u.requests > n for u, n in zip(fast + slow, requests)], [True] * 5 + [False])
    finally:
        for u in fast + slow:
            u.close()


def ejects_by_service(io):
    """Where a request names the service, its upstreams are compared with each other and not with another service's."""
    with tempfile.TemporaryDirectory() as folder, running(io) as s:
        names = Names(folder)
        names.set("fast.example", "127.0.0.2", "127.0.0.3", "127.0.0.4")
        names.set("slow.example", "127.0.0.5", "127.0.0.6", "127.0.0.7")
        at_some_pace(lambda pace: ejects_within(s, names, pace))


def warm_found(io):
    """Upstreams that DNS gives are warm before the first request, and those that come later."""
    a = Upstream(address="127.0.0.2")
    b, c = (Upstream(port=a.port, address=f"127.0.0.{n}") for n in (3, 4))
    with tempfile.TemporaryDirectory() as folder, running(io, a, b, c, workers=2) as s:
        names = Names(folder)
        names.set("app.example", "127.0.0.2", "127.0.0.3")
        names.set("none.example")
        source = by_name(names, a)
        load(s, [], overload={"warm_connections": 2, "eject": {}}, dynamic_upstreams={
            "source": "multi", "sources": [by_name(names, a, "none.example"), source]})
        s.wait(lambda: (a.open, b.open, c.open) == (4, 4, 0))
        same((a.requests, b.requests), (0, 0))
        for _ in range(10):
            same(s.get()[0], 200)
        same((a.connections, b.connections), (4, 4))
        names.set("app.example", "127.0.0.3", "127.0.0.4")
        s.wait(lambda: c.open == 4)
        b.peers[0].shutdown(socket.SHUT_RDWR)
        s.wait(lambda: b.connections == 5 and b.open == 4)
        same(a.connections, 4)
        load(s, [], overload={"warm_connections": 2}, dynamic_upstreams=source, transport={
            "protocol": "http", "keep_alive": {"max_idle_conns": 3}, "local_address": "127.0.0.9"})
        s.wait(lambda: b.connections + c.connections == 13)  # of one upstream only
        time.sleep(0.6)
        same(b.connections + c.connections, 13)
        d = Upstream()
        load(s, ["{env.PORTICO_NONE}127.0.0.1:%d" % d.port], overload={"warm_connections": 2})
        s.wait(lambda: d.open == 4)
        d.close()
        load(s, [], overload={"warm_connections": 1}, dynamic_upstreams=by_name(names, a, "{env.PORTICO_NONE}app.example"))
        e = Upstream(port=a.port, address="127.0.0.5")
        names.set("app.example", "127.0.0.5")
        s.wait(lambda: e.open == 2)
        e.close()
        names.silent.add("app.example.")  # a stop does not wait for an answer
        asked = len(names.asked)
        s.wait(lambda: len(names.asked) > asked)


def warm_undialable(io):
    """What DNS names and nobody can dial is left alone, and not asked for more often than the rest."""
    with tempfile.TemporaryDirectory() as folder, running(io, workers=1) as s:
        names = Names(folder)
        names.set("_app._tcp.example", (1, 1, 0, "host.example"))  # without a port
        load(s, [], overload={"warm_connections": 2}, dynamic_upstreams={
            "source": "srv", "name": "_app._tcp.example", "refresh": "1ms",
            "resolver": {"addresses": [f"127.0.0.1:{names.port}"]}})
        s.wait(lambda: names.asked)
        begin, before = time.monotonic(), len(names.asked)
        time.sleep(2)
        asked = len(names.asked) - before
        assert asked <= 2 * (time.monotonic() - begin) + 2, asked
        same(s.get()[0], 502)


def slow_clients(io):
    """The time that a client takes for its body is not the upstream's."""
    a, b = Upstream(delay=0.1), Upstream(delay=0.1)  # ten times of which no pause of a busy machine is

    def upload(s):
        with socket.create_connection(("127.0.0.1", s.port), 60) as c:
            c.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx")
            time.sleep(1)
            c.sendall(b"x")
            has(c.recv(1000), b" 200 ")

    with running(io, a, b) as s:
        load(s, [a.dial, b.dial], load_balancing={"selection_policy": {"policy": "round_robin"}},
             overload={"eject": {"consecutive_failures": 0, "latency_factor": 9, "min_requests": 2,
                                 "interval": "3s"}})
        begin = time.monotonic()
        for _ in range(2):
            same(s.get()[0], 200)
            upload(s)
        same((a.requests, b.requests), (2, 2))
        time.sleep(max(0, begin + 3.1 - time.monotonic()))
        same([s.get()[0] for _ in range(4)], [200] * 4)
        same((metric(s, "ejections_total"), a.requests, b.requests), (0, 4, 4))


# --- warm connections ---

def warm(io):
    """So many connections are open before the first request, and again after they were closed; gone with
    the configuration's wish, and used by requests."""
    up = Upstream()
    with running(io, up, workers=2) as s:
        load(s, [up.dial], overload={"warm_connections": 3})
        s.wait(lambda: up.open == 6)
        for _ in range(10):
            same(s.get()[0], 200)
        same((up.connections, up.requests), (6, 10))
        for p in up.peers[:4]:
            with contextlib.suppress(OSError):
                p.shutdown(socket.SHUT_RDWR)
        s.wait(lambda: up.connections == 10 and up.open == 6)
        load(s, [up.dial], overload={"warm_connections": 4})
        s.wait(lambda: up.open == 8)
        dead = f"127.0.0.1:{free_port()}"
        load(s, [dead], overload={"warm_connections": 1})
        time.sleep(0.1)
        back = Upstream(port=int(dead.split(":")[1]))
        s.wait(lambda: back.open == 2)
        back.close()
        load(s, [up.dial])
        for text, more in (("without placeholders", {"dynamic_upstreams": {
                "source": "a", "name": "{http.request.host}"}}),
                           ("that are kept", {"transport": {"protocol": "http", "keep_alive": {
                               "enabled": False}}}),
                           ("that are kept", {"transport": {"protocol": "http", "proxy_protocol": "v1"}}),
                           ("without placeholders", {"transport": {"protocol": "http", "tls": {
                               "server_name": "{http.request.host}"}}}),
                           ("without placeholders", {"transport": {"protocol": "http", "network_proxy": {
                               "from": "url", "url": "{http.request.header.By}"}}}),
                           ("keeps or allows", {"transport": {"protocol": "http",
                                                              "max_conns_per_host": 1}}),
                           ("keeps or allows", {"transport": {"protocol": "http", "keep_alive": {
                               "max_idle_conns": 3}}})):
            has(refused(s, ["a:1", "b:1"], overload={"warm_connections": 2}, **more), text)
        has(refused(s, ["{http.request.host}:1"], overload={"warm_connections": 2}), "without placeholders")
    handler = adapt(":80 {\n\treverse_proxy a:1 {\n\t\twarm_connections 2\n\t}\n}\n")
    same(handler["overload"], {"warm_connections": 2})


def warm_within_limit(io):
    """Connections within max_conns_per_host that another worker has are not waited for."""
    up = Upstream()
    with running(io, up, workers=2) as s:
        load(s, [up.dial], overload={"warm_connections": 2},
             transport={"protocol": "http", "max_conns_per_host": 2})
        s.wait(lambda: up.open == 2)
        time.sleep(1.2)  # two more looks
        same((up.open, up.connections), (2, 2))
        for _ in range(10):
            same(s.get()[0], 200)


def warm_h2(io):
    """Over HTTP/2 each worker has one."""
    up = Server(PORTICO, io, members={"protocols": ["h1", "h2c"]})
    try:
        with running(io, workers=2) as s:
            load(s, [f"127.0.0.1:{up.port}"], overload={"warm_connections": 3},
                 transport={"protocol": "http", "versions": ["h2c"]})
            up.wait(lambda: up.metric("connections") == 2)
            for _ in range(10):
                same(s.get(), (200, b"one"))
            time.sleep(0.6)
            same(up.metric("connections"), 2)
    finally:
        same(up.end(), 0)


# --- a budget for retries ---

def budget_holds(io):
    """An upstream that breaks everything off sees 1.2 requests for each that comes, not four."""
    broken = Upstream(status=0)
    retries = {"retries": 3, "try_interval": "1ms"}
    with running(io, broken) as s:
        load(s, [broken.dial], load_balancing=retries)
        for _ in range(20):
            same(s.get()[0], 502)
        same(broken.requests, 80)
        load(s, [broken.dial], load_balancing=retries,
             overload={"retry_budget": {"share": 0.2, "each_second": 0}})
        broken.requests = 0
        for _ in range(100):
            same(s.get()[0], 502)
        same(broken.requests, 120)
        assert metric(s, "retries_refused_total") >= 80
        load(s, [broken.dial], load_balancing=retries,
             overload={"retry_budget": {"share": 0, "each_second": 1000}})
        broken.requests = 0
        same(s.get()[0], 502)
        same(broken.requests, 4)
        has(refused(s, ["a:1"], overload={"retry_budget": {"share": 2}}), "from 0 to 1")
        has(refused(s, ["a:1"], overload={"retry_budget": {"each_second": -1}}), "each_second")
    handler = adapt(":80 {\n\treverse_proxy a:1 {\n\t\tretry_budget 20% 5\n\t}\n}\n")
    same(handler["overload"], {"retry_budget": {"share": 0.2, "each_second": 5}})
    has(adapt(":80 {\n\treverse_proxy a:1 {\n\t\tretry_budget 20\n\t}\n}\n"), "bad share '20'", "FILE:3")
    has(adapt(":80 {\n\treverse_proxy a:1 {\n\t\tretry_budget 20% x\n\t}\n}\n"), "each second", "FILE:3")


CASES = [
    ("the limits of upstreams hold, and the rest waits", queue_limits),
    ("a full queue, and one that takes too long, refuse with Retry-After", queue_refuses),
    ("who leaves frees its place", queue_left),
    ("waiting goes on over a reload, and ends where nothing is to be had", queue_reload),
    ("upstreams by DNS have the limit and the queue, too", queue_dynamic),
    ("static upstreams in place of DNS's have the queue, too", queue_fallback),
    ("words for the queue", queue_words, ("epoll",)),
    ("p2c_ewma avoids what is slow and what fails", p2c_avoids),
    ("a retry budget holds", budget_holds),
    ("an upstream that came back starts slowly", slow_start),
    ("connections are open before they are needed", warm),
    ("upstreams by DNS have open connections, too", warm_found),
    ("an upstream by DNS that cannot be dialed is asked for no more often", warm_undialable),
    ("of a limit's connections no more are opened", warm_within_limit),
    ("over HTTP/2 one connection for each worker is open before it is needed", warm_h2),
    ("who does worse than the others is ejected, of half at most", ejects),
    ("upstreams by DNS are ejected, too", ejects_found),
    ("latencies are compared within the service that a request names", ejects_by_service),
    ("a slow client's body does not speak against an upstream", slow_clients),
]

if __name__ == "__main__":
    run_cases(CASES, at_once=3)
