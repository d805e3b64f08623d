#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Hedged requests of the gateway, as TAP: when a second upstream is asked, who wins, what becomes of the
loser, what is told of both. Usage: hedge_test.py PORTICO [TEXT]."""
import http.client
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
import h2_upstream  # noqa: E402 (beside this file)
from h2_client import Client, request  # noqa: E402 (beside this file)
from played import Peer, Upstream, always, answer  # noqa: E402
from server import free_port, has, run_cases, running, same  # noqa: E402

PORTICO = sys.argv[1]
FIRST = {"selection_policy": {"policy": "first"}}
LATE = "1500ms"  # where the second is not to come meanwhile, on a machine that is busy
LOGGED = [{"handler": "log_append", "key": k, "value": "{http.reverse_proxy.%s}" % k}
          for k in ("hedged", "hedge_won", "upstream.address", "retries")]


def load(s, dials, hedge, server=None, **more):
    document = json.loads(json.dumps(s.document))
    more_of_server = server or {}
    server = document["apps"]["http"]["servers"]["srv0"]
    server.update(more_of_server)
    server["logs"] = {}
    server["routes"] = [{"handle": [*LOGGED, {
        "handler": "reverse_proxy", "upstreams": [{"dial": d} if isinstance(d, str) else d for d in dials],
        "hedge": hedge, "load_balancing": FIRST, **more}]}]
    status, text = s.api("POST", "/load", document)
    if status == 200:
        s.wait(lambda: s.api("GET", "/config/")[0] == 200)
    return status, text


def told(s):
    """(sent, won, without budget, without upstream)"""
    text = s.api("GET", "/metrics")[1]
    return tuple(int(re.search(rf"^portico_reverse_proxy_{name} (\d+)$", text, re.M).group(1)) for name in (
        "hedged_total", "hedges_won_total", 'hedges_put_off_total{reason="budget"}',
        'hedges_put_off_total{reason="upstream"}'))


def listed(s):
    return {u["address"]: (u["num_requests"], u["fails"])
            for u in json.loads(s.api("GET", "/reverse_proxy/upstreams")[1])}


def send(s, method="GET", body=b"", **fields):
    """In one piece, body and all."""
    c = socket.create_connection(("127.0.0.1", s.port), 60)
    lines = [f"{k.replace('_', '-')}: {v}" for k, v in {"Host": "h", "Connection": "close", **fields}.items()]
    lines += [f"Content-Length: {len(body)}"] if body else []
    c.sendall("\r\n".join([f"{method} / HTTP/1.1", *lines, "", ""]).encode() + body)
    got = b""
    while piece := c.recv(65536):
        got += piece
    c.close()
    head, _, body = got.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


def ask(s, method="GET", path="/", body=None, **fields):
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
    try:
        c.request(method, path, body, {k.replace("_", "-"): v for k, v in fields.items()})
        a = c.getresponse()
        return a.status, a.read()
    finally:
        c.close()


def lines(s, n):
    """The access log's, once there are so many."""
    found = []

    def look():
        found[:] = [json.loads(x) for x in s.text().splitlines() if '"hedge_won"' in x]
        return len(found) >= n
    s.wait(look)
    return [(x["hedged"], x["hedge_won"], x["upstream.address"]) for x in found]


def gated(body=b"slow", **more):
    """Answers when the test opens the upstream's gate."""
    def play(peer):
        while True:
            peer.request()
            if not peer.upstream.gate.wait(20):
                return
            peer.send(answer(body, **more))
    return play


def watched(peer):
    """Never answers; notes that the other side has gone."""
    peer.request()
    peer.upstream.ended.append(peer.ended())


MAX = {"max": 1}


def second_wins(io):
    """The first hangs: the second's answer comes, and the first's connection is closed."""
    a, b = Upstream(watched), Upstream(always(b"b" * 100000))
    with running(io, a, b) as s:
        same(load(s, [a.dial, b.dial], {"after": "20ms", **MAX}), (200, ""))
        for n in range(1, 4):
            same(ask(s), (200, b"b" * 100000))
            s.wait(lambda: len(a.ended) == n)
        same(ask(s, "HEAD"), (200, b""))
        s.wait(lambda: len(a.ended) == 4)  # in their order, and read: it may be slower than the race
        same(ask(s, "OPTIONS", "/x")[0], 200)
        s.wait(lambda: len(a.ended) == 5)
        same(lines(s, 5), [("true", "true", b.dial)] * 5)
        same(told(s), (5, 5, 0, 0))
        s.wait(lambda: listed(s) == {a.dial: (0, 0), b.dial: (0, 0)})
        same((len(a.requests), len(b.requests)), (5, 5))
        same(a.requests, b.requests)


def first_wins(io):
    """One that answers in time has no second; one that answers before the second wins."""
    a, b = Upstream(always(b"a")), Upstream(gated(b"b"))
    with running(io, a, b, workers=1) as s:
        same(load(s, [a.dial, b.dial], {"after": "10s", **MAX}), (200, ""))
        for _ in range(5):
            same(ask(s), (200, b"a"))
        same((len(b.requests), a.connections), (0, 1))

        def slow(peer):
            while True:
                peer.request()
                while len(b.requests) == 0:
                    time.sleep(0.005)
                peer.send(answer(b"a"))
        a.close()
        a = Upstream(slow)
        b.play = watched
        same(load(s, [a.dial, b.dial], {"after": "20ms", **MAX}), (200, ""))
        same(ask(s), (200, b"a"))
        s.wait(lambda: len(b.ended) == 1)
        same(told(s), (1, 0, 0, 0))
        same(lines(s, 6)[5], ("true", "false", a.dial))
        s.wait(lambda: listed(s) == {a.dial: (0, 0), b.dial: (0, 0)})
        a.close()


def dial(io):
    """An upstream that does not even take the connection."""
    deaf = socket.socket()
    deaf.bind(("127.0.0.1", 0))
    deaf.listen(0)
    full = []
    for _ in range(8):
        c = socket.socket()
        c.settimeout(0.1)
        full.append(c)
        try:
            c.connect(deaf.getsockname())
        except OSError:
            break
    b = Upstream(always(b"b"))
    with running(io, b) as s:
        same(load(s, [f"127.0.0.1:{deaf.getsockname()[1]}", b.dial], {"after": "20ms", **MAX},
                  transport={"protocol": "http", "dial_timeout": "20s"}), (200, ""))
        begin = time.monotonic()
        same(ask(s), (200, b"b"))
        assert time.monotonic() - begin < 10
        s.wait(lambda: s.live()["fibers"] == 0)
    for c in [deaf, *full]:
        c.close()


PASSIVE = {"passive": {"fail_duration": "1h", "max_fails": 100}}


def failures(io):
    """Who fails is counted as failed, and the other is waited for; of two errors the first's is told."""
    def breaks(peer):
        peer.request()
        while not other:
            time.sleep(0.005)
        peer.send(b"garbage\r\n\r\n")
        peer.upstream.broke = peer.ended()

    other = []

    def then(peer):
        peer.request()
        other.append(1)
        peer.upstream.gate.wait(20)
        peer.send(answer(b"b"))

    a, b, dead = Upstream(breaks), Upstream(then), f"127.0.0.1:{free_port()}"
    with running(io, a, b) as s:
        same(load(s, [a.dial, b.dial], {"after": "20ms", **MAX}, health_checks=PASSIVE), (200, ""))
        got = []
        t = threading.Thread(target=lambda: got.append(ask(s)))
        t.start()
        s.wait(lambda: hasattr(a, "broke"))
        b.gate.set()
        t.join()
        same(got, [(200, b"b")])
        s.wait(lambda: listed(s) == {a.dial: (0, 1), b.dial: (0, 0)})
        a.play = gated(b"a")
        same(load(s, [a.dial, dead], {"after": "20ms", **MAX}, health_checks=PASSIVE), (200, ""))
        got.clear()
        t = threading.Thread(target=lambda: got.append(ask(s)))
        t.start()
        s.wait(lambda: listed(s)[dead] == (0, 1))
        a.gate.set()
        t.join()
        same(got, [(200, b"a")])
        a.close()
        a = Upstream(lambda peer: (peer.request(), s.wait(lambda: listed(s)[dead] == (0, 2))))
        same(load(s, [a.dial, dead], {"after": "20ms", **MAX}, health_checks=PASSIVE), (200, ""))
        same(ask(s)[0], 502)
        s.wait(lambda: listed(s) == {a.dial: (0, 1), dead: (0, 2)})
        s.wait(lambda: f"upstream {a.dial}: " in s.text())
        a.close()


def again(io):
    """The attempt behind two that failed at once is told of as any."""
    dead = f"127.0.0.1:{free_port()}"

    def play(peer):
        peer.request()
        if len(peer.upstream.requests) > 1:
            time.sleep(0.3)
            peer.send(answer(b"a"))
        else:
            s.wait(lambda: listed(s)[dead] == (0, 1))

    a = Upstream(play)
    with running(io, a) as s:
        same(load(s, [a.dial, dead], {"after": "20ms", **MAX}, health_checks=PASSIVE,
                  load_balancing={**FIRST, "retries": 1}, headers={"response": {"set": {
                      "X-Took": ["{http.reverse_proxy.upstream.latency_ms}"]}}}), (200, ""))
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
        begin = time.monotonic()
        c.request("GET", "/")
        r = c.getresponse()
        took = (time.monotonic() - begin) * 1000
        same((r.status, r.read(), told(s)), (200, b"a", (1, 0, 0, 0)))
        assert 300 <= float(r.getheader("X-Took")) <= took, (r.getheader("X-Took"), took)
        c.close()


def errors_wait(io):
    """A 5xx of the second counts only when the first has failed."""
    a, b = Upstream(gated(b"good")), Upstream(always(b"bad", status=b"503 Busy"))
    with running(io, a, b) as s:
        same(load(s, [a.dial, b.dial], {"after": "20ms", **MAX}), (200, ""))
        got = []
        t = threading.Thread(target=lambda: got.append(ask(s)))
        t.start()
        s.wait(lambda: len(b.requests) == 1)
        a.gate.set()
        t.join()
        same(got, [(200, b"good")])

        def breaks(peer):
            peer.request()
            while len(b.requests) < 2:
                time.sleep(0.005)
        a.close()
        a = Upstream(breaks)
        same(load(s, [a.dial, b.dial], {"after": "20ms", **MAX}), (200, ""))
        same(ask(s), (503, b"bad"))
        same(told(s), (2, 1, 0, 0))
        a.close()


def interim(io):
    """An interim answer is a head: it wins, is passed on, and no second is sent behind it."""
    def hints(peer):
        peer.request()
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </%s>\r\n\r\n" % mark)
        peer.upstream.gate.wait(20)
        peer.send(answer(mark))

    for mark in (b"a", b"b"):
        a, b = Upstream(hints if mark == b"a" else watched), Upstream(hints)
        with running(io, a, b) as s:
            same(load(s, [a.dial, b.dial], {"after": LATE if mark == b"a" else "20ms", **MAX}), (200, ""))
            c = Peer(socket.create_connection(("127.0.0.1", s.port)))
            c.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            while b"Link" not in c.seen:
                c.more()
            time.sleep(1.7 if mark == b"a" else 0)
            (a if mark == b"a" else b).gate.set()
            while not c.seen.endswith(b"\r\n\r\n" + mark):
                c.more()
            assert c.seen.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </" + mark + b">\r\n\r\nHTTP/1.1 200 OK"), \
                c.seen
            same(c.seen.count(b"HTTP/1.1"), 2)
            same(told(s), (0, 0, 0, 0) if mark == b"a" else (1, 1, 0, 0))
            c.sock.close()


def budget(io):
    """Never more than the share, however slow all are; what was not sent is counted."""
    def slow(peer):
        while True:
            peer.request()
            time.sleep(0.03)
            peer.send(answer(b"x"))
    ups = [Upstream(slow) for _ in range(3)]
    with running(io, *ups) as s:
        same(load(s, [u.dial for u in ups], {"after": "1ms", "max": 0.2}), (200, ""))

        def client():
            for _ in range(10):
                same(ask(s), (200, b"x"))
        threads = [threading.Thread(target=client) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        sent, _, without, _ = told(s)
        assert 1 <= sent <= 16 and 16 < without <= 80, (sent, without)
        assert 80 <= sum(len(u.requests) for u in ups) <= 80 + sent  # some are given up before they are sent


def methods(io):
    """Safe methods; with `idempotent` what may be repeated, its body in memory."""
    a, b = Upstream(gated(b"a")), Upstream(always(b"b"))
    with running(io, a, b) as s:
        def hedged(want, *args, **fields):
            before = len(b.requests)
            got = []
            t = threading.Thread(target=lambda: got.append(send(s, *args, **fields)))
            taken = len(a.requests)
            a.gate.clear()
            t.start()
            s.wait(lambda: len(a.requests) > taken)
            if want:
                s.wait(lambda: len(b.requests) > before)
            else:
                time.sleep(0.08)
            a.gate.set()
            t.join()
            same(got[0][0], 200)
            same(len(b.requests) - before, want)

        same(load(s, [a.dial, b.dial], {"after": "20ms", **MAX}), (200, ""))
        for args, fields in ((("POST", b"x"), {}), (("PUT", b"x"), {}), (("DELETE",), {}), (("PATCH", b"x"), {}),
                             (("POST", b"x"), {"Idempotency_Key": "1"}),
                             ((), {"Connection": "Upgrade, close", "Upgrade": "x"})):
            hedged(False, *args, **fields)
        hedged(True)
        hedged(True, "GET", b"body")
        assert b.requests[1].endswith(b"Content-Length: 4\r\n\r\nbody"), b.requests
        hedged(True, "OPTIONS")
        same(load(s, [a.dial, b.dial], {"after": "20ms", "idempotent": True, **MAX}), (200, ""))
        hedged(True, "PUT", b"x")
        hedged(True, "DELETE")
        hedged(True, "POST", b"xy", Idempotency_Key="1")
        assert b.requests[-1].endswith(b"Content-Length: 2\r\n\r\nxy"), b.requests
        for method, body in (("POST", b"x"), ("PATCH", b"x"), ("PUT", b"x" * 100000)):
            hedged(False, method, body)


def client_leaves(io):
    """Then both attempts end, and nobody has failed."""
    a, b = Upstream(watched), Upstream(watched)
    with running(io, a, b) as s:
        same(load(s, [a.dial, b.dial], {"after": "20ms", **MAX}, health_checks=PASSIVE), (200, ""))
        for n in range(1, 4):
            c = Peer(socket.create_connection(("127.0.0.1", s.port)))
            c.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            s.wait(lambda: len(b.requests) == n)
            c.sock.close()
            s.wait(lambda: (len(a.ended), len(b.ended)) == (n, n))
        s.wait(lambda: listed(s) == {a.dial: (0, 0), b.dial: (0, 0)})
        s.wait(lambda: s.live()["fibers"] == 0)
        same(told(s), (3, 0, 0, 0))


def another(io):
    """Never the same upstream, nor one that is full or was found to be bad."""
    a, b = Upstream(gated(b"a")), Upstream(gated(b"b"))
    with running(io, a, b) as s:
        def alone(dials, **more):
            same(load(s, dials, {"after": "20ms", **MAX}, **more), (200, ""))
            a.gate.clear()
            got = []
            taken, before = len(a.requests), sum(told(s))
            t = threading.Thread(target=lambda: got.append(ask(s)))
            t.start()
            s.wait(lambda: len(a.requests) > taken)
            if len(dials) > 1:
                s.wait(lambda: sum(told(s)) > before)
            a.gate.set()
            t.join()
            same(got, [(200, b"a")])
        alone([a.dial])
        same(told(s), (0, 0, 0, 0))
        alone([a.dial, a.dial])
        same(told(s), (0, 0, 0, 1))
        same(load(s, [{"dial": b.dial, "max_requests": 1}], {"after": "10s"}), (200, ""))
        held = threading.Thread(target=ask, args=(s,))
        held.start()
        s.wait(lambda: len(b.requests) == 1)
        alone([a.dial, {"dial": b.dial, "max_requests": 1}])
        same(told(s), (0, 0, 0, 2))
        b.gate.set()
        held.join()
        same(len(b.requests), 1)


def quantile(io):
    """After a quantile of the gateway's own latencies, once enough are known."""
    a, b = Upstream(gated(b"a")), Upstream(always(b"b"))
    with running(io, a, b, workers=1) as s:
        same(load(s, [a.dial, b.dial], {"after": "p90", **MAX}), (200, ""))
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
        a.gate.set()
        for _ in range(70):
            c.request("GET", "/")
            same(c.getresponse().read() in (b"a", b"b"), True)
        a.gate.clear()
        before = told(s)[1]
        c.request("GET", "/")
        same(c.getresponse().read(), b"b")
        c.close()
        same(told(s)[1], before + 1)


def fields(io):
    """Placeholders tell of each attempt's own upstream; a cookie of the policy names one upstream only."""
    a, b = Upstream(watched), Upstream(always(b"b"))
    with running(io, a, b) as s:
        same(load(s, [a.dial, b.dial], {"after": "20ms", **MAX},
                  headers={"request": {"set": {"X-To": ["{http.reverse_proxy.upstream.hostport}"]}},
                           "response": {"set": {"X-From": ["{http.reverse_proxy.upstream.hostport}"]}}},
                  load_balancing={"selection_policy": {"policy": "cookie", "name": "lb", "secret": "s",
                                                       "fallback": {"policy": "first"}}}), (200, ""))
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
        c.request("GET", "/")
        r = c.getresponse()
        same((r.read(), r.getheader("X-From"), len(r.headers.get_all("Set-Cookie"))), (b"b", b.dial, 1))
        c.close()
        s.wait(lambda: len(a.requests) == 1)
        has(a.requests[0].decode(), f"X-To: {a.dial}\r\n")
        has(b.requests[0].decode(), f"X-To: {b.dial}\r\n")


def reused(io):
    """The winner's connection is kept; a kept one that was closed is no failure in a race, either."""
    a, b = Upstream(gated(b"a")), Upstream(always(b"b"))
    with running(io, a, b, workers=1) as s:
        same(load(s, [a.dial, b.dial], {"after": "20ms", **MAX}), (200, ""))
        for _ in range(4):
            same(ask(s), (200, b"b"))
        same(b.connections, 1)


def over_h2(io):
    """Streams of one connection are races of their own; one that is reset ends both its attempts."""
    a, b, never = Upstream(watched), Upstream(always(b"b" * 3000)), Upstream(watched)
    with running(io, a, b, never, workers=1) as s:
        same(load(s, [a.dial, b.dial], {"after": "20ms", **MAX}, server={"protocols": ["h1", "h2c"]}), (200, ""))
        with Client(s.port) as c:
            streams = [c.ask(request("GET", f"/{i}")) for i in range(10)]
            for stream in streams:
                got = c.answer(stream)
                same((got.status, bytes(got.body)), (200, b"b" * 3000))
            s.wait(lambda: len(a.ended) == 10)
            same(load(s, [a.dial, never.dial], {"after": "20ms", **MAX}, server={"protocols": ["h1", "h2c"]}),
                 (200, ""))
            for n in range(1, 4):
                stream = c.ask(request("GET", "/slow", ("x", "y")))
                s.wait(lambda: len(never.requests) == n)
                c.rst(stream)
                s.wait(lambda: (len(a.ended), len(never.ended)) == (10 + n, n))
            same(c.alive(), True)
        s.wait(lambda: listed(s) == {a.dial: (0, 0), never.dial: (0, 0)})
        s.wait(lambda: s.live()["fibers"] == 0)


H2C = {"protocol": "http", "versions": ["h2c"]}


def to_h2(io):
    """Upstreams of HTTP/2: the loser's stream is cancelled, and its connection goes on."""
    def silent(c):
        while True:
            c.read()

    a, b = h2_upstream.Upstream(silent), h2_upstream.Upstream(h2_upstream.always(b"b" * 40000))
    with running(io, a, b, workers=1) as s:
        same(load(s, [a.dial, b.dial], {"after": "20ms", **MAX}, transport=H2C), (200, ""))
        for n in range(1, 6):
            same(ask(s), (200, b"b" * 40000))
            s.wait(lambda: [r.reset for r in a.requests] == ["CANCEL"] * n)
        same((len(a.conns), len(b.conns)), (1, 1))
        same(told(s), (5, 5, 0, 0))
        # many at once, all lost by the first
        threads = [threading.Thread(target=ask, args=(s,)) for _ in range(20)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        s.wait(lambda: [r.reset for r in a.requests] == ["CANCEL"] * 25)
        same(len(a.conns), 1)

        def late(c):  # the first answers behind the begin of the second, whose stream is cancelled
            while True:
                r = c.request()
                while not b.requests or b.requests[-1].field("x") != r.field("x"):
                    time.sleep(0.005)
                c.answer(r.stream, b"a")
        first, b2 = h2_upstream.Upstream(late), h2_upstream.Upstream(silent)
        b = b2
        same(load(s, [first.dial, b2.dial], {"after": "20ms", **MAX}, transport=H2C), (200, ""))
        for n in range(1, 4):
            same(ask(s, x=str(n)), (200, b"a"))
            s.wait(lambda: [r.reset for r in b2.requests] == ["CANCEL"] * n)
        s.wait(lambda: set(listed(s).values()) == {(0, 0)})
        s.wait(lambda: s.live()["fibers"] == 0)
        first.close()
        b2.close()


def queued(io):
    """With a limit and a queue: the second takes a place as any request, and each end gives one back."""
    a, b = Upstream(watched), Upstream(always(b"b"))
    with running(io, a, b) as s:
        same(load(s, [a.dial, b.dial], {"after": "10ms", **MAX},
                  overload={"max_requests": 1, "queue": 100, "queue_timeout": "10s"}), (200, ""))
        got = []
        threads = [threading.Thread(target=lambda: got.append(ask(s))) for _ in range(30)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        same(got, [(200, b"b")] * 30)
        s.wait(lambda: listed(s) == {a.dial: (0, 0), b.dial: (0, 0)})
        s.wait(lambda: s.live()["fibers"] == 0)


def many(io):
    """Random delays, errors and cuts: each client gets one whole answer that is its own, or an error."""
    def play(peer):
        while True:
            name = peer.request().split(b" ")[1]
            rnd = random.Random(f"{ups.index(peer.upstream)} {name}")
            dice = rnd.random()
            if dice < 0.3:
                time.sleep(rnd.random() * 0.02)
            if dice > 0.97:
                return
            whole = answer(name * 50, extra=b"X-Name: " + name + b"\r\n")
            if dice > 0.95:
                peer.send(whole[:rnd.randrange(len(whole))])
                return
            peer.send(whole)
    ups = [Upstream(play) for _ in range(4)]
    with running(io, *ups) as s:
        same(load(s, [u.dial for u in ups], {"after": "2ms", **MAX},
                  load_balancing={"selection_policy": {"policy": "random"}}), (200, ""))
        wrong, good = [], []

        def client(n):
            rnd = random.Random(n)
            for i in range(50):
                name = f"/{n}.{i}"
                try:
                    if rnd.random() < 0.05:
                        c = socket.create_connection(("127.0.0.1", s.port))
                        c.sendall(b"GET /gone HTTP/1.1\r\nHost: h\r\n\r\n")
                        time.sleep(rnd.random() * 0.01)
                        c.close()
                    status, body = ask(s, path=name)
                except (OSError, http.client.HTTPException):
                    continue
                if status == 200 and body == name.encode() * 50:
                    good.append(name)
                elif status not in (502, 200) or body not in (b"", name.encode() * 50):
                    wrong.append((status, body))
        threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        same(wrong, [])
        assert len(good) > 300, len(good)
        assert told(s)[0] > 0
        s.wait(lambda: s.live()["fibers"] == 0)
        s.wait(lambda: set(listed(s).values()) == {(0, 0)})


def ends(io):
    """A stop of the process with a race under way."""
    a, b = Upstream(gated(b"a")), Upstream(gated(b"b"))
    with running(io, a, b) as s:
        same(load(s, [a.dial, b.dial], {"after": "20ms", **MAX}), (200, ""))
        got = []
        t = threading.Thread(target=lambda: got.append(ask(s)))
        t.start()
        s.wait(lambda: len(b.requests) == 1)
        s.process.terminate()
        time.sleep(0.05)
        b.gate.set()
        t.join()
        same(got, [(200, b"b")])
        same(s.end(None), 0)
        s.end = lambda **_: 0


def refused(io):
    """What is wrong with it is said by name, and by line of a Caddyfile."""
    with running(io) as s:
        for hedge, words in (({}, "after"), ({"after": "-1s"}, "above 0"), ({"after": "p0"}, "quantile"),
                             ({"after": "p100"}, "quantile"), ({"after": "1s", "max": 0}, "max"),
                             ({"after": "1s", "max": 2}, "max"), ({"after": "1s", "x": 1}, "x")):
            status, text = load(s, ["a:1", "b:1"], hedge)
            same(status, 400)
            has(text, words)
    for line, words in (("hedge", "wrong argument count"), ("hedge x", "bad duration"),
                        ("hedge -1s", "above 0"), ("hedge p20", "no quantile"), ("hedge 1s 0%", "bad share"),
                        ("hedge 1s 10% 5", "wrong argument count"), ("hedge 1s {\nnone\n}", "none"),
                        ("hedge 1s\nhedge 2s", "already"), ("hedge 1s {\nidempotent yes\n}", "argument")):
        with tempfile.NamedTemporaryFile("w", suffix=".caddyfile") as f:
            f.write(f":80 {{\nreverse_proxy b:1 c:1 {{\n{line}\n}}\n}}\n")
            f.flush()
            r = subprocess.run([PORTICO, "adapt", "--adapter", "caddyfile", "--config", f.name],
                               capture_output=True, text=True, check=False)
            assert r.returncode != 0, line
            has(r.stderr, words, f.name + ":")
    with tempfile.NamedTemporaryFile("w", suffix=".caddyfile") as f:
        f.write(":80 {\nreverse_proxy b:1 c:1 {\nhedge p99.5 5% {\nidempotent\n}\n}\n}\n")
        f.flush()
        r = subprocess.run([PORTICO, "adapt", "--adapter", "caddyfile", "--config", f.name],
                           capture_output=True, text=True, check=True)
        has(r.stdout, '"hedge":{"after":"p99.5","idempotent":true,"max":0.05}')


CASES = [("a second upstream that is quicker wins, and the first is given up", second_wins),
         ("the first wins when it is quicker", first_wins),
         ("a connection that does not come about is hedged", dial),
         ("who fails is counted, and the other waited for", failures),
         ("the attempt behind both is told of as any", again),
         ("an error of the second does not win", errors_wait),
         ("an interim answer decides", interim),
         ("hedges are a share of the requests at most", budget),
         ("what may be hedged", methods),
         ("a client that leaves ends both", client_leaves),
         ("the second upstream is another one, and well", another),
         ("after a quantile of the latencies", quantile),
         ("fields tell of each attempt's upstream", fields),
         ("the winner's connection is kept", reused),
         ("over HTTP/2", over_h2),
         ("before upstreams of HTTP/2", to_h2),
         ("with a limit and a queue", queued),
         ("each client gets its own whole answer or an error", many),
         ("a race is waited for at the end", ends),
         ("mistakes are refused", refused, ("epoll",))]

if __name__ == "__main__":
    run_cases(CASES, at_once=4)
