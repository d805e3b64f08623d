#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Floods before HTTP, by real TLS clients, as TAP: more handshakes at a time than a worker has, and
more unknown names than may be asked for on demand. Usage: tls_flood_test.py PORTICO."""
import contextlib
import os
import resource
import socket
import ssl
import sys
import threading
import time
import urllib.parse

from certificates import Authority
import server
from server import Skip, run_cases, same

PORTICO = os.path.abspath(sys.argv[1])
CA = Authority()
HELD = CA.leaf("held", "DNS:held.example")
HANDSHAKES_MAX = 16384  # wire/tls_stage.h
QUESTIONS_MAX = 512     # certs/demand.c
with contextlib.suppress(ValueError, OSError):
    resource.setrlimit(resource.RLIMIT_NOFILE, (40000, max(40000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))


def running(io, automation=None):
    return server.running(io, secure=True, seconds=60, workers=1, body="secure", members={
        "tls_connection_policies": [{}], "automatic_https": {"disable": True},
        "read_header_timeout": "10m"},  # none ends before all are there, however busy the machine is
        apps={"tls": {"certificates": {"load_files": [{"certificate": HELD[0], "key": HELD[1]}]},
                      **({"automation": automation} if automation else {})},
              "pki": {"certificate_authorities": {"local": {"install_trust": False}}}})


def connect(s, name="held.example", trusted=True):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(CA.root)
    if not trusted:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    raw = socket.create_connection(("127.0.0.1", s.port), 60)
    try:
        return context.wrap_socket(raw, server_hostname=name)
    except BaseException:
        raw.close()
        raise


def answers(c):
    c.sendall(b"GET / HTTP/1.1\r\nHost: held.example\r\n\r\n")
    got = b""
    while not got.endswith(b"secure"):
        piece = c.recv(4096)
        assert piece, got
        got += piece
    return got.startswith(b"HTTP/1.1 200")


def hello(name):
    """What a client would send first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    out = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


# --- handshakes at a time ---

def is_closed(c):
    """Whether the server has closed it, told without waiting."""
    c.setblocking(False)
    try:
        return c.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def handshakes(io):
    """Half handshakes up to the limit are held, more are closed, and a connection that is through its
    own is served all the while; when they have gone, handshakes go on."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < HANDSHAKES_MAX + 1000:
        raise Skip("too few descriptors may be open")
    some = hello("held.example")[:100]
    with running(io) as s, contextlib.ExitStack() as stack:
        old = stack.enter_context(connect(s))
        held = stack.enter_context(contextlib.ExitStack())
        for i in range(HANDSHAKES_MAX):
            # From several addresses: of one the kernel finds free ports slowly where most are taken.
            c = held.enter_context(socket.create_connection(("127.0.0.1", s.port), 60, (f"127.0.1.{i // 2000 + 1}", 0)))
            c.sendall(some)
        s.wait(lambda: s.metric("connections") >= HANDSHAKES_MAX, 120)
        more = [held.enter_context(socket.create_connection(("127.0.0.1", s.port), 60))
                for _ in range(50)]
        for c in more:  # a connection that says nothing is nobody's for half a minute (TCP_DEFER_ACCEPT)
            c.sendall(some)
        s.wait(lambda: all(is_closed(c) for c in more), 60)
        assert answers(old)
        s.wait(lambda: "too many TLS handshakes at a time" in s.text())
        same(s.text().count("too many TLS handshakes at a time"), 1)  # said once, not for each
        held.close()
        s.wait(lambda: s.metric("connections") < 10, 120)
        with connect(s) as c:
            assert answers(c)
        assert answers(old)


# --- unknown names ---

class Endpoint:
    """Says who may have a certificate: nobody but those of `allowed`; questions wait for `open`."""

    def __init__(self, allowed=()):
        self.allowed, self.open, self.lock = allowed, threading.Event(), threading.Lock()
        self.names, self.now, self.most = [], 0, 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.url = "http://127.0.0.1:%d/check" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                c, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(c,), daemon=True).start()

    def serve(self, c):
        with c, contextlib.suppress(OSError):
            while True:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    piece = c.recv(4096)
                    if not piece:
                        return
                    head += piece
                query = urllib.parse.urlsplit(head.split()[1].decode()).query
                name = urllib.parse.parse_qs(query)["domain"][0]
                with self.lock:
                    self.names.append(name)
                    self.now += 1
                    self.most = max(self.most, self.now)
                self.open.wait()
                with self.lock:
                    self.now -= 1
                status = b"200 OK" if name in self.allowed else b"403 Forbidden"
                c.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")

    def close(self):
        self.open.set()
        self.listener.close()


def is_refused(c):
    """Waits for the alert, or the end."""
    c.settimeout(60)
    try:
        got = c.recv(4096)
    except ConnectionError:
        return True
    return got == b"" or got[0] == 21


def greet(stack, s, name):
    c = stack.enter_context(socket.create_connection(("127.0.0.1", s.port), 60))
    c.sendall(hello(name))
    return c


@contextlib.contextmanager
def on_demand(io, allowed=()):
    endpoint = Endpoint(allowed)
    try:
        with running(io, {"on_demand": {"permission": {"module": "http", "endpoint": endpoint.url}},
                          "policies": [{"on_demand": True, "issuers": [{"module": "internal"}]}]}) as s:
            yield s, endpoint
            endpoint.open.set()
    finally:
        endpoint.close()


def names(io):
    """As many questions at a time as there may be: more names are refused at once, without one; who
    has a certificate shakes hands all the while; when they are answered, the next ones may ask."""
    with on_demand(io, ["yes.example"]) as (s, endpoint), contextlib.ExitStack() as stack:
        waiting = [greet(stack, s, f"n{i}.example") for i in range(QUESTIONS_MAX)]
        s.wait(lambda: endpoint.now == QUESTIONS_MAX, 60)
        assert all(is_refused(greet(stack, s, f"more{i}.example")) for i in range(200))
        same((endpoint.most, len(endpoint.names)), (QUESTIONS_MAX, QUESTIONS_MAX))
        with connect(s) as c:
            assert answers(c)
        assert not any(is_closed(c) for c in waiting)
        endpoint.open.set()
        assert all(is_refused(c) for c in waiting)
        with connect(s, "yes.example", trusted=False) as c:
            assert answers(c)
        same(len(endpoint.names), QUESTIONS_MAX + 1)


def again(io):
    """A name is one question, however many ask for it at a time; one that was refused is not asked for
    again at once, one that was not asked for, since there were too many, is."""
    with on_demand(io) as (s, endpoint), contextlib.ExitStack() as stack:
        same_name = [greet(stack, s, "no.example") for _ in range(100)]
        s.wait(lambda: endpoint.now == 1, 60)
        s.wait(lambda: s.metric("connections") >= 100, 60)
        endpoint.open.set()
        assert all(is_refused(c) for c in same_name)
        began = time.monotonic()
        for _ in range(20):
            assert is_refused(greet(stack, s, "NO.example"))
        if time.monotonic() - began < 4:  # it is remembered for five seconds
            same(endpoint.names, ["no.example"])
        assert is_refused(greet(stack, s, "other.example"))
        same(endpoint.names[-1], "other.example")


run_cases([
    ("handshakes at a time have their limit, and harm nobody who is through his", handshakes),
    ("a flood of unknown names is a bounded number of questions on demand", names),
    ("many handshakes for one name are one question, and a no is remembered", again),
])
