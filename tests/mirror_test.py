#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The gateway's mirror, as TAP: what a copy is, that nothing of it reaches the client, its limits, what
is counted, reloads and the end. Usage: mirror_test.py PORTICO [TEXT]."""
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
import h2_upstream  # noqa: E402 (beside this file)
from played import Peer, Upstream, always  # noqa: E402 (beside this file)
from server import free_port, has, run_cases, running, same  # noqa: E402

PORTICO = sys.argv[1]


def load(s, up, mirror, **more):
    document = json.loads(json.dumps(s.document))
    document["apps"]["http"]["servers"]["srv0"]["routes"] = [{"handle": [{
        "handler": "reverse_proxy", "upstreams": [{"dial": up.dial}], "mirror": mirror, **more}]}]
    status, text = s.api("POST", "/load", document)
    if status == 200:
        s.generation = document
    return status, text


def counts(s):
    text = s.api("GET", "/metrics")[1]
    found = {}
    for line in text.splitlines():
        if line.startswith("portico_reverse_proxy_mirror"):
            name, n = line.rsplit(" ", 1)
            found[name.removeprefix("portico_reverse_proxy_").replace("_total", "")] = int(n)
    return found


def counted(sent=0, failed=0, busy=0, body=0):
    return {"mirrored": sent, "mirror_failed": failed, 'mirror_dropped{reason="busy"}': busy,
            'mirror_dropped{reason="body"}': body}


def ask(s, method="GET", path="/", body=None, **fields):
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=30)
    try:
        c.request(method, path, body, {k.replace("_", "-"): v for k, v in fields.items()})
        a = c.getresponse()
        return a.status, a.read()
    finally:
        c.close()


def exact(io):
    """The copy is what the upstream gets, byte for byte, but for the mirror's own changes."""
    up, other = Upstream(always(b"real")), Upstream(always(b"copy"))
    with running(io, up, other) as s:
        same(load(s, up, {"dial": other.dial, "headers": {"set": {"X-Mirror": ["yes"]},
                                                           "delete": ["Cookie"]}},
                  headers={"request": {"set": {"X-To": ["{http.reverse_proxy.upstream.hostport}"]}}},
                  rewrite={"strip_path_prefix": "/a"}), (200, ""))
        c = Peer(socket.create_connection(("127.0.0.1", s.port)))
        for request, body in ((b"GET /a/b?c=%20d HTTP/1.1\r\nHost: h\r\nCookie: k=1\r\nConnection: X-Hop\r\n"
                               b"X-Hop: 1\r\n\r\n", b""),
                              (b"POST /a/p HTTP/1.1\r\nHost: h\r\nCookie: k=1\r\nContent-Length: 5\r\n\r\nabcde",
                               b"abcde")):
            c.send(request)
            while not c.seen.endswith(b"real"):
                c.more()
            c.seen = b""
        s.wait(lambda: len(other.requests) == 2)
        # a copy may overtake another
        for real in up.requests:
            want = real.replace(b"Cookie: k=1\r\n", b"").replace(b"X-To: " + up.dial.encode(),
                                                                 b"X-To: " + other.dial.encode())
            at = want.index(b"Content-Length") if b"Content-Length" in want else want.index(b"\r\n\r\n") + 2
            want = want[:at] + b"X-Mirror: yes\r\n" + want[at:]
            assert want in other.requests, (want, other.requests)
        same(other.requests[0].split(b" ")[1] in (b"/b?c=%20d", b"/p"), True)
        s.wait(lambda: counts(s) == counted(sent=2))
        c.sock.close()


def unnoticed(io):
    """A mirror that refuses, hangs, lies, breaks off or says much changes nothing for the client."""
    up = Upstream(always(b"real"))

    def hang(peer):
        peer.request()
        peer.upstream.gate.wait(20)

    def lie(peer):
        peer.request()
        peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n"
                  b"Content-Length: 4\r\n\r\nabc")

    def cut(peer):
        peer.request()
        peer.send(b"HTTP/1.1 500 Bad\r\nContent-Length: 10\r\n\r\nabc")

    def much(peer):
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 2000000)
        peer.sock.recv(1)

    plays = [Upstream(p) for p in (hang, lie, cut, much)]
    dials = [f"127.0.0.1:{free_port()}"] + [u.dial for u in plays]
    with running(io, up, *plays) as s:
        for i, dial in enumerate(dials):
            same(load(s, up, {"dial": dial, "timeout": "1s" if i == 1 else "20s"}), (200, ""))
            before = counts(s)
            for k in range(3):
                same(ask(s, "POST" if k == 2 else "GET", body=b"abc" if k == 2 else None), (200, b"real"))
            failed = before["mirror_failed"] + (3 if i < 4 else 0)
            s.wait(lambda: counts(s)["mirrored"] == before["mirrored"] + 3)
            s.wait(lambda: counts(s)["mirror_failed"] == failed)
        same(len(up.requests), 3 * len(dials))  # no retry anywhere
        s.wait(lambda: [len(u.requests) for u in plays[:3]] == [3, 3, 3])
        s.wait(lambda: s.live()["fibers"] == 0)


def never_waits(io):
    """The answer does not wait for the mirror, and so many copies at once are all there are."""
    up, other = Upstream(always(b"real")), Upstream(lambda peer: (peer.request(), peer.upstream.gate.wait(20)))
    with running(io, up, other) as s:
        same(load(s, up, {"dial": other.dial, "max_requests": 2, "timeout": "20s"}), (200, ""))
        begin = time.monotonic()
        for _ in range(5):
            same(ask(s), (200, b"real"))
        assert time.monotonic() - begin < 18
        s.wait(lambda: len(other.requests) == 2)
        s.wait(lambda: counts(s) == counted(sent=2, busy=3))
        s.wait(lambda: s.live()["fibers"] == 2)
        # a reload leaves them, the end of the process does not wait for them
        same(load(s, up, {"dial": other.dial, "max_requests": 2}), (200, ""))
        same(ask(s), (200, b"real"))
        s.wait(lambda: counts(s) == counted(sent=2, busy=4))
        begin = time.monotonic()
        same(s.end(), 0)
        assert time.monotonic() - begin < 18
        s.end = lambda **_: 0


def bodies(io):
    """Copied from memory, within max_body: at once, when it came later, or by request_buffers."""
    up, other = Upstream(always(b"real")), Upstream(always(b"copy"))

    def slowly(size, chunked=False):
        c = Peer(socket.create_connection(("127.0.0.1", s.port)))
        c.send(b"PUT /slow HTTP/1.1\r\nHost: h\r\n" + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else
                                                      b"Content-Length: %d\r\n\r\n" % size))
        time.sleep(0.05)
        c.send(b"%x\r\n" % size + b"y" * size + b"\r\n0\r\n\r\n" if chunked else b"y" * size)
        while not c.seen.endswith(b"real"):
            c.more()
        c.sock.close()

    with running(io, up, other) as s:
        same(load(s, up, {"dial": other.dial, "max_body": 10000}), (200, ""))
        same(ask(s, "POST", body=b"x" * 10000), (200, b"real"))
        s.wait(lambda: len(other.requests) == 1)
        same(other.requests[0].endswith(b"\r\n\r\n" + b"x" * 10000), True)
        same(ask(s, "POST", body=b"x" * 10001), (200, b"real"))  # in memory, but too much
        same(ask(s, "POST", body=b"x" * 200000), (200, b"real"))  # never in memory
        s.wait(lambda: counts(s) == counted(sent=1, body=2))
        slowly(100)
        s.wait(lambda: len(other.requests) == 2)
        same(other.requests[1].endswith(b"Content-Length: 100\r\n\r\n" + b"y" * 100), True)
        same(load(s, up, {"dial": other.dial}, request_buffers=50000), (200, ""))
        same(ask(s, "POST", body=b"z" * 40000), (200, b"real"))
        s.wait(lambda: len(other.requests) == 3)
        same(other.requests[2].endswith(b"Content-Length: 40000\r\n\r\n" + b"z" * 40000), True)
        same(ask(s, "POST", body=b"z" * 60000), (200, b"real"))
        s.wait(lambda: counts(s) == counted(sent=3, body=3))


def share(io):
    """About so many, on kept connections; upgrades never."""
    up, other = Upstream(always(b"real")), Upstream(always(b"copy"))
    with running(io, up, other, workers=1) as s:
        same(load(s, up, {"dial": other.dial, "share": 0.25, "max_requests": 1000}), (200, ""))
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=30)
        for _ in range(800):
            c.request("GET", "/")
            same(c.getresponse().read(), b"real")
        c.close()
        s.wait(lambda: len(other.requests) == counts(s)["mirrored"])
        n = counts(s)["mirrored"]
        assert 120 < n < 290, n
        assert other.connections < n / 2, (other.connections, n)
        same(load(s, up, {"dial": other.dial}), (200, ""))
        same(ask(s, Connection="Upgrade", Upgrade="x")[1], b"real")
        same(counts(s)["mirrored"], n)


def transports(io):
    """A transport of its own; the client's address by a PROXY header."""
    up, other = Upstream(always(b"real")), Upstream(always(b"copy"))
    with running(io, up, other) as s:
        same(load(s, up, {"dial": other.dial, "transport": {"protocol": "http", "proxy_protocol": "v1"}}),
             (200, ""))
        same(ask(s), (200, b"real"))
        s.wait(lambda: len(other.requests) == 1)
        assert other.requests[0].startswith(b"PROXY TCP4 127.0.0.1 "), other.requests
        assert up.requests[0].startswith(b"GET / "), up.requests


def to_h2(io):
    """A mirror of HTTP/2, by the gateway's transport or one of its own; its connection is shared by copies."""
    up, other = Upstream(always(b"real")), h2_upstream.Upstream(h2_upstream.always(b"copy" * 5000))
    silent = h2_upstream.Upstream(lambda c: c.ended())
    with running(io, up, other, silent, workers=1) as s:
        same(load(s, up, {"dial": other.dial, "transport": {"protocol": "http", "versions": ["h2c"]}}), (200, ""))
        for i in range(10):
            same(ask(s, "POST", f"/{i}", b"x" * i), (200, b"real"))
        s.wait(lambda: len(other.requests) == 10 and all(r.ended for r in other.requests))
        same(sorted((r.field(":path"), r.body) for r in other.requests), [(f"/{i}", b"x" * i) for i in range(10)])
        same(len(other.conns), 1)
        s.wait(lambda: counts(s) == counted(sent=10))
        same(load(s, up, {"dial": silent.dial, "timeout": "500ms",
                          "transport": {"protocol": "http", "versions": ["h2c"]}}), (200, ""))
        for i in range(3):
            same(ask(s), (200, b"real"))
            s.wait(lambda: [r.reset for r in silent.requests] == ["CANCEL"] * (i + 1))
        same(len(silent.conns), 1)
        s.wait(lambda: counts(s) == counted(sent=13, failed=3))
        s.wait(lambda: s.live()["fibers"] == 0)


def refused(io):
    """What is wrong with it is said by name, and by line of a Caddyfile."""
    up = Upstream(always())
    with running(io, up) as s:
        for mirror, words in (({}, "invalid dial address"), ({"dial": "a:1", "share": 0}, 'share'),
                              ({"dial": "a:1", "share": 1.5}, 'share'), ({"dial": "a:1", "x": 1}, "x"),
                              ({"dial": "{env.X}:1"}, "placeholders"),
                              ({"dial": "a:1", "timeout": "-1s"}, 'timeout'),
                              ({"dial": "a:1", "max_requests": 1000000}, "max_requests")):
            status, text = load(s, up, mirror)
            same(status, 400)
            has(text, words)
    for line, words in (("mirror", "wrong argument count"), ("mirror a:1 0%", "bad share '0%'"),
                        ("mirror a:1 10", "bad share '10'"), ("mirror h2c://a:1", "the scheme must be"),
                        ("mirror a:1 5% x", "wrong argument count"), ("mirror a:1 {\nnone\n}", "none"),
                        ("mirror a:1\nmirror b:1", "already"), ("mirror a:1 {\ntimeout x\n}", "duration")):
        with tempfile.NamedTemporaryFile("w", suffix=".caddyfile") as f:
            f.write(f":80 {{\nreverse_proxy b:1 {{\n{line}\n}}\n}}\n")
            f.flush()
            r = subprocess.run([PORTICO, "adapt", "--adapter", "caddyfile", "--config", f.name],
                               capture_output=True, text=True, env={**os.environ}, check=False)
            assert r.returncode != 0, line
            has(r.stderr, words, f.name + ":")


def many(io):
    """Many at once, by several threads, of mirrors that come and go by reloads."""
    up, other = Upstream(always(b"real")), Upstream(always(b"copy", extra=b"X: " + b"y" * 3000 + b"\r\n"))
    with running(io, up, other) as s:
        wrong = []

        def client():
            c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=30)
            for i in range(60):
                c.request("POST", "/", b"x" * i)
                if c.getresponse().read() != b"real":
                    wrong.append(i)
            c.close()

        same(load(s, up, {"dial": other.dial}), (200, ""))
        threads = [threading.Thread(target=client) for _ in range(6)]
        for t in threads:
            t.start()
        for i in range(8):
            same(load(s, up, {"dial": other.dial, "timeout": f"{i + 30}s", "max_requests": 3 + i}), (200, ""))
        for t in threads:
            t.join()
        same(wrong, [])
        s.wait(lambda: s.live()["fibers"] == 0)
        c = counts(s)
        same(c["mirrored"] + c['mirror_dropped{reason="busy"}'], 360)
        same(c["mirror_failed"], 0)


CASES = [("a copy has the bytes of the request to the upstream, and the mirror's own fields", exact),
         ("what the mirror does is not noticed", unnoticed),
         ("nothing waits for the mirror, and copies have a limit", never_waits),
         ("bodies are copied from memory only, within a limit", bodies),
         ("a share of requests is copied", share),
         ("a mirror may have a transport of its own", transports),
         ("before a mirror of HTTP/2", to_h2),
         ("mistakes are refused", refused, ("epoll",)),
         ("many copies and reloads at once", many)]

if __name__ == "__main__":
    run_cases(CASES, at_once=2)
