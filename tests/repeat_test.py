#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What the gateway sends twice, and what never, as TAP: each row of the table in docs/gateway.md, "What is
tried again", by the exact bytes that two upstreams see. Usage: repeat_test.py PORTICO [TEXT]."""
import contextlib
import json
import socket
import sys
import time

sys.dont_write_bytecode = True
from played import Peer, Upstream, always, answer  # noqa: E402 (beside this file)
from server import free_port, run_cases, running, same  # noqa: E402

PORTICO = sys.argv[1]
BIG = bytes(i % 251 for i in range(100000))  # never whole in memory by itself
ROUND = {"selection_policy": {"policy": "first"}, "retries": 1, "try_interval": "1ms"}
MARKED = {"passive": {"fail_duration": "1h", "max_fails": 1}}  # whom it failed at is not asked again


def load(s, dials, balancing=None, **more):
    """Each time anew for whoever was marked as failed: by other upstreams' names."""
    document = json.loads(json.dumps(s.document))
    document["apps"]["http"]["servers"]["srv0"]["routes"] = [{"handle": [{
        "handler": "reverse_proxy", "upstreams": [{"dial": d} for d in dials], "health_checks": MARKED,
        "load_balancing": {**ROUND, **(balancing or {})}, **more}]}]
    same(s.api("POST", "/load", document), (200, ""))


def head(method, body=b"", **fields):
    lines = [f"{k.replace('_', '-')}: {v}" for k, v in {"Host": "h", **fields}.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([f"{method} /p HTTP/1.1", *lines, "", ""]).encode()


def ask(s, method, body=b"", pause=0, connection=None, **fields):
    """(status, body) of one answer; with a pause the request's body comes behind its head."""
    c = connection or Peer(socket.create_connection(("127.0.0.1", s.port)))
    if pause:
        c.send(head(method, body, **fields))
        time.sleep(pause)
        c.send(body)
    else:
        c.send(head(method, body, **fields) + body)
    while b"\r\n\r\n" not in c.seen:
        c.more()
    got, _, rest = c.seen.partition(b"\r\n\r\n")
    status = int(got.split(b" ")[1])
    while status == 200 and not rest.endswith(b"second"):
        c.more()
        rest = c.seen.partition(b"\r\n\r\n")[2]
    c.seen = b""
    if not connection:
        c.sock.close()
    return status


def closes(peer):
    """Takes all of a request, and breaks the connection."""
    peer.request()


def closes_early(peer):
    """The same when a part of the body has come."""
    while len(peer.seen) < 20000:
        peer.more()
    peer.upstream.requests.append(peer.seen)


def says(data):
    def play(peer):
        peer.request()
        peer.send(data)
    return play


def hangs(peer):
    peer.request()
    peer.upstream.gate.wait(20)


def two(s, play, method, body=b"", balancing=None, pause=0, fields=None, **more):
    """One request before a first upstream that fails so, and a second that is well: its status, and what
    they have seen."""
    a, b = Upstream(play), Upstream(always(b"second"))
    load(s, [a.dial, b.dial], balancing, **more)
    status = ask(s, method, body, pause, **(fields or {}))
    a.close()
    b.close()
    return status, a.requests, b.requests


def repeated(s, *args, **more):
    status, a, b = two(s, *args, **more)
    same(status, 200)
    same(len(a), 1)
    same(b, a)  # byte for byte


def once(s, *args, **more):
    status, a, b = two(s, *args, **more)
    assert status in (502, 504), status
    same((len(a), b), (1, []))


def nothing_sent(io):
    """No connection: always, whatever the method and however much of the body is to come."""
    with running(io, workers=1) as s:
        for method, body in (("GET", b""), ("POST", b"abc"), ("POST", BIG), ("PATCH", BIG)):
            b = Upstream(always(b"second"))
            load(s, [f"127.0.0.1:{free_port()}", b.dial])
            same(ask(s, method, body), 200)
            same([r.endswith(b"\r\n\r\n" + body) for r in b.requests], [True])
            b.close()
        deaf = socket.create_server(("127.0.0.1", 0), backlog=0)
        full = []
        for _ in range(8):
            c = socket.socket()
            c.settimeout(0.1)
            full.append(c)
            try:
                c.connect(deaf.getsockname())
            except OSError:
                break
        b = Upstream(always(b"second"))
        load(s, [f"127.0.0.1:{deaf.getsockname()[1]}", b.dial],
             transport={"protocol": "http", "dial_timeout": "1s"})
        same(ask(s, "POST", BIG), 200)
        same(len(b.requests), 1)
        for c in (deaf, *full):
            c.close()
        b.close()


def nobody(io):
    """No upstream that is available: always, until there is one."""
    a, b = Upstream(closes), Upstream(always(b"second"))
    with running(io, a, b, workers=1) as s:
        load(s, [a.dial], {"try_duration": "20s", "try_interval": "20ms", "retries": 0},
             health_checks={"passive": {"fail_duration": "300ms", "max_fails": 1}})
        c = Peer(socket.create_connection(("127.0.0.1", s.port)))
        same(ask(s, "POST", b"x", connection=c), 502)  # and is out for a while
        a.play = always(b"second")
        same(ask(s, "POST", BIG, connection=c), 200)
        same(a.requests[1].endswith(BIG), True)
        c.sock.close()


def acted_on(io):
    """Broken, malformed, late: GET alone; what retry_match names, in its place."""
    bad = (closes, says(b"HTTP/1.1 2"), says(b"garbage\r\n\r\n"),
           says(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"))
    late = {"transport": {"protocol": "http", "response_header_timeout": "1200ms"}}
    with running(io, workers=1) as s:
        for play in bad:
            repeated(s, play, "GET")
            once(s, play, "POST", b"abc")
        repeated(s, hangs, "GET", **late)
        once(s, hangs, "POST", b"abc", **late)
        for method in ("HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "PATCH", "POST"):
            once(s, closes, method)
        once(s, closes, "POST", b"abc", fields={"Idempotency_Key": "1"})
        repeated(s, closes, "GET", b"abc")
        match = {"retry_match": [{"method": ["PUT", "DELETE"]}]}
        repeated(s, closes, "PUT", b"abc", match)
        repeated(s, closes, "DELETE", b"", match)
        once(s, closes, "GET", b"", match)
        once(s, closes, "POST", b"abc", match)
        # what goes up counts as well as what came
        once(s, closes, "GET", rewrite={"method": "POST"})
        once(s, closes, "POST", rewrite={"method": "GET"})


def bodies(io):
    """A body that was read and not kept is never sent again; one that was kept is, byte for byte."""
    with running(io, workers=1) as s:
        match = {"retry_match": [{"method": ["PUT"]}]}
        once(s, closes_early, "PUT", BIG, match)
        once(s, closes, "PUT", BIG, match)
        once(s, closes, "PUT", BIG, match, request_buffers=50000)
        repeated(s, closes, "PUT", BIG, match, request_buffers=200000)
        repeated(s, closes, "PUT", BIG[:16384], match)
        repeated(s, closes, "PUT", b"later", match, pause=0.05)  # a small one that came behind its head
        once(s, closes, "PUT", BIG[:16385], match, pause=0.05)


def clients(io):
    """A client that breaks off, or whose body is malformed, is nobody's turn again."""
    with running(io, workers=1) as s:
        for data in (b"5\r\nabcde\r\nzz\r\n", b"5\r\nabc"):
            a, b = Upstream(hangs), Upstream(always(b"second"))
            a.play = lambda peer: (peer.more(), peer.upstream.requests.append(1), peer.sock.recv(65536),
                                   peer.ended())
            load(s, [a.dial, b.dial], {"retry_match": [{"method": ["PUT"]}]})
            c = Peer(socket.create_connection(("127.0.0.1", s.port)))
            c.send(b"PUT /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
            s.wait(lambda: a.requests)
            c.send(data)
            if data.endswith(b"abc"):
                c.sock.close()
            else:
                c.more()
                same(c.seen.split(b" ")[1], b"400")
                c.sock.close()
            s.wait(lambda: s.live()["fibers"] == 0)
            same((len(a.requests), b.requests), (1, []))
            a.close()
            b.close()
        a, b = Upstream(lambda peer: (peer.request(), peer.ended())), Upstream(always(b"second"))
        load(s, [a.dial, b.dial])
        c = Peer(socket.create_connection(("127.0.0.1", s.port)))
        c.send(head("GET"))
        s.wait(lambda: a.requests)
        c.sock.close()
        s.wait(lambda: s.live()["fibers"] == 0)
        same((len(a.requests), b.requests), (1, []))
        a.close()
        b.close()


def answered(io):
    """An answer, whatever its status, and one that breaks off behind its head, is what the client gets."""
    with running(io, workers=1) as s:
        for status in (b"500 Bad", b"502 Bad", b"503 Busy", b"404 No"):
            got, a, b = two(s, says(answer(b"x", status=status)), "GET")
            same((got, len(a), b), (int(status[:3]), 1, []))
        a = Upstream(says(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50000))
        b = Upstream(always(b"second"))
        load(s, [a.dial, b.dial])
        c = Peer(socket.create_connection(("127.0.0.1", s.port)))
        c.send(head("GET"))
        with contextlib.suppress(EOFError, ConnectionResetError):
            while True:
                c.more()
        assert c.seen.startswith(b"HTTP/1.1 200 OK\r\n") and len(c.seen) < 60000, c.seen[:100]
        same((len(a.requests), b.requests), (1, []))
        a.close()
        b.close()


def stale(io):
    """A kept connection that closes without a byte: once more on a fresh one, without any lb_retries, when
    the method or a key says that it is safe and the body is in memory."""
    def second_closes(peer):
        """Answers the first request of a connection, and closes on the second."""
        peer.request()
        peer.send(answer(b"second"))
        peer.request()
        peer.upstream.play = always(b"second")

    def half_answers(peer):
        peer.request()
        peer.send(answer(b"second"))
        peer.request()
        peer.send(b"HTTP/1.1 2")

    with running(io, workers=1) as s:
        def tried(play, method, body=b"", pause=0, **fields):
            u = Upstream(play)
            load(s, [u.dial], {"retries": 0})
            c = Peer(socket.create_connection(("127.0.0.1", s.port)))
            same(ask(s, "GET", connection=c), 200)
            status = ask(s, method, body, pause, c, **fields)
            c.sock.close()
            u.close()
            assert status in (200, 502), status
            requests = u.requests[1:]
            if status == 200:
                same(requests, [requests[0]] * 2)
            else:
                same(len(requests), 1)
            return status == 200

        for method in ("GET", "OPTIONS", "TRACE", "DELETE", "PUT"):
            same((method, tried(second_closes, method)), (method, True))
        for method, body, fields in (("PUT", b"abc", {}), ("GET", b"abc", {}),
                                     ("POST", b"abc", {"Idempotency_Key": "1"}),
                                     ("PATCH", b"abc", {"X_Idempotency_Key": "1"})):
            same((method, tried(second_closes, method, body, **fields)), (method, True))
        for method, body in (("POST", b"abc"), ("POST", b""), ("PATCH", b"abc")):
            same((method, tried(second_closes, method, body)), (method, False))
        same(tried(second_closes, "PUT", BIG), False)
        same(tried(second_closes, "POST", BIG, Idempotency_Key="1"), False)
        same(tried(half_answers, "GET"), False)  # it had begun to answer: lb_retries' matter
        same(tried(half_answers, "PUT", b"abc"), False)


CASES = [("no connection came about: always", nothing_sent),
         ("no upstream is available: always", nobody),
         ("it may have been acted on: GET, or what retry_match names", acted_on),
         ("a body is sent again only from memory", bodies),
         ("the client's fault is never tried again", clients),
         ("an answer is never tried again", answered),
         ("a kept connection that was closed", stale)]

if __name__ == "__main__":
    run_cases(CASES, at_once=2)
