#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Back-pressure of the gateway with measured memory, as TAP: hundreds of clients that do not read an endless
answer, and that upload without end to an upstream that does not read, over HTTP/1, HTTP/2 and TLS; memory stays
within the configured buffers, and when the clients leave, so do their requests.
Usage: pressure_test.py PORTICO [TEXT]."""
import contextlib
import re
import resource
import select
import socket
import ssl
import sys
import threading
import time

sys.dont_write_bytecode = True
import h2_client as h2  # noqa: E402 (beside this file)
from certificates import Authority  # noqa: E402
from h2_upstream import Conn  # noqa: E402
from server import Server, free_port, run_cases, same  # noqa: E402

PORTICO = sys.argv[1]
SANITIZED = b"__asan_init" in open(PORTICO, "rb").read() or b"__tsan_init" in open(PORTICO, "rb").read()
CLIENTS = 200
STREAMS = 50  # of one connection over HTTP/2
EACH_KIB = 96  # of user space for a request that stands still: a piece of its body both sides of the gateway
WINDOW_KIB = 64  # what an upstream of HTTP/2 may send beyond that, …
SHARED_KIB = 32768  # … and of all streams of a worker together
CA = Authority()
LEAF = CA.leaf("good", "DNS:localhost")
resource.setrlimit(resource.RLIMIT_NOFILE, (min(20000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
                                            resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


class Upstream:
    """GET: answers without end. POST: reads nothing behind the head."""

    def __init__(self):
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.sock.getsockname()[1]
        self.sent, self.open, self.begun, self.lock = 0, 0, 0, threading.Lock()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.sock.accept()[0],), daemon=True).start()

    def serve(self, c):
        c.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        head, piece = b"", b"x" * 65536
        with contextlib.suppress(OSError):
            while b"\r\n\r\n" not in head:
                head += c.recv(4096) or b"\r\n\r\n"
        with self.lock:
            self.begun += 1
            self.open += 1
        with contextlib.suppress(OSError):
            if head.startswith(b"GET"):
                c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")
                while n := c.send(piece):
                    with self.lock:
                        self.sent += n
            poll = select.poll()
            poll.register(c, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
            poll.poll(60000)
        with self.lock:
            self.open -= 1
        c.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


class UpstreamH2(Upstream):
    """The same over HTTP/2, all on one connection: of each answer as much as is granted."""

    def serve(self, c):
        conn = Conn(c, self)
        self.requests, windows, streams = [], {0: 65535}, {}
        conn.acks = conn.grants = True
        with contextlib.suppress(OSError, EOFError):
            conn.preface()
            conn.say_settings()
            while True:
                f = conn.read()
                if f.kind == h2.HEADERS and f.stream not in streams:
                    streams[f.stream] = True
                    conn.head(f.stream, 200, [("content-length", "104857600")])
                    self.count(1)
                elif f.kind == h2.WINDOW_UPDATE:
                    windows[f.stream] = windows.get(f.stream, conn.settings[4]) + int.from_bytes(f.payload, "big")
                elif f.kind == h2.RST_STREAM and streams.pop(f.stream, False):
                    self.count(-1)
                for s in streams if f.stream == 0 else [f.stream] if f.stream in streams else []:
                    while n := min(windows[0], windows.setdefault(s, conn.settings[4]), 16384):
                        conn.data(s, b"x" * n)
                        windows[0] -= n
                        windows[s] -= n
                        self.sent += n
        self.count(-len(streams))
        c.close()

    def count(self, n):
        with self.lock:
            self.begun += max(n, 0)
            self.open += n


class Gate:
    def __init__(self, io, kind=Upstream, **gateway):
        self.up = kind()
        self.server = s = Server(PORTICO, io, body="ready")
        self.secure, self.clear = free_port(), free_port()
        doc = s.document
        routes = [{"handle": [{"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{self.up.port}"}],
                               **gateway}]}]
        base = {"routes": routes, "automatic_https": {"disable": True}}
        doc["apps"]["http"]["servers"].update({
            "clear": {"listen": [f"127.0.0.1:{self.clear}"], "protocols": ["h1", "h2c"], **base},
            "secure": {"listen": [f"127.0.0.1:{self.secure}"], "tls_connection_policies": [{}], **base}})
        doc["apps"]["tls"] = {"certificates": {"load_files": [{"certificate": LEAF[0], "key": LEAF[1]}]}}
        status, text = s.api("POST", "/load", doc)
        same((status, text), (200, text))

    def memory(self):
        with open(f"/proc/{self.server.server_pid()}/status", encoding="ascii") as f:
            return int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1))

    def connect(self, tls, protocol="http/1.1"):
        c = socket.socket()
        c.settimeout(60)
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        c.connect(("127.0.0.1", self.secure if tls else self.clear))
        if not tls:
            return c
        context = ssl.create_default_context(cafile=CA.root)
        context.set_alpn_protocols([protocol])
        return context.wrap_socket(c, server_hostname="localhost")

    def still(self, wanted):
        """Until nothing moves any more, with all requests under way."""
        last, since = None, time.monotonic()
        end = since + 60
        while time.monotonic() - since < 0.4 or self.up.begun < wanted:
            now = (self.up.sent, self.up.begun)
            if now != last:
                last, since = now, time.monotonic()
            assert time.monotonic() < end, now
            time.sleep(0.05)

    def all_gone(self):
        self.server.wait(lambda: self.up.open == 0 and self.server.live()["exchanges"] == 0, 60)

    def end(self):
        self.up.close()
        same(self.server.end(), 0)


def ask_h1(gate, count, tls):
    clients = []
    for _ in range(count):
        c = gate.connect(tls)
        c.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        clients.append(c)
    return clients


def ask_h2(gate, count, tls):
    """Windows are never opened again."""
    clients = []
    for _ in range(count // STREAMS):
        c = gate.connect(tls, "h2")
        c.sendall(h2.PREFACE + h2.Client.settings_frame(()) +
                  h2.frame(h2.WINDOW_UPDATE, 0, 0, (1 << 30).to_bytes(4, "big")) + b"".join(
                      h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1 + 2 * i,
                               h2.block(h2.request(scheme="https" if tls else "http"))) for i in range(STREAMS)))
        clients.append(c)
    return clients


def push(clients, piece):
    """Sends as long as anything is taken, by any of them, for a while."""
    for c in clients:
        c.setblocking(False)
    quiet = time.monotonic()
    while time.monotonic() - quiet < 0.4:
        for c in clients:
            try:
                while c.send(piece):
                    quiet = time.monotonic()
            except (BlockingIOError, ssl.SSLWantWriteError):
                pass
        time.sleep(0.02)


def send_h1(gate, count, tls):
    clients = []
    for _ in range(count):
        c = gate.connect(tls)
        c.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 104857600\r\n\r\n")
        clients.append(c)
    push(clients, b"x" * 16384)
    return clients


def send_h2(gate, count, tls):
    """All that the windows of the gateway's first SETTINGS allow, for each stream."""
    clients = []
    for _ in range(count // STREAMS):
        c = gate.connect(tls, "h2")
        scheme = "https" if tls else "http"
        c.sendall(h2.PREFACE + h2.Client.settings_frame(()) + b"".join(
            h2.frame(h2.HEADERS, h2.END_HEADERS, 1 + 2 * i,
                     h2.block(h2.request("POST", "/", ("content-length", "104857600"), scheme=scheme)))
            for i in range(STREAMS)))
        c.sendall(h2.frame(h2.DATA, 0, 1, b"x" * 16384) * 3)
        clients.append(c)
    return clients


def pressed(ask, tls, buffers=0, h2_up=False):
    def case(io):
        gateway = {"response_buffers": buffers, "request_buffers": buffers} if buffers else {}
        if h2_up:
            gateway["transport"] = {"protocol": "http", "versions": ["h2c"]}
        gate = Gate(io, UpstreamH2 if h2_up else Upstream, **gateway)
        try:
            for c in ask(gate, STREAMS, tls):  # what is recycled is there
                c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                c.close()
            gate.all_gone()
            gate.up.begun = 0
            before = gate.memory()
            clients = ask(gate, CLIENTS, tls)
            gate.still(CLIENTS)
            each = (gate.memory() - before) / CLIENTS
            print(f"# {each:.0f} KiB for each of {CLIENTS} that stand still", flush=True)
            limit = EACH_KIB + buffers / 1024 * 1.25 + (48 if tls else 0) \
                + (WINDOW_KIB + 2 * SHARED_KIB / CLIENTS if h2_up else 0)
            # AddressSanitizer keeps what was freed.
            assert SANITIZED or each < limit, f"{each:.0f} KiB each, limit {limit}"
            same(gate.up.open, CLIENTS)
            for c in clients:  # an end would be stuck behind what they have sent
                c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                c.close()
            gate.all_gone()
        finally:
            gate.end()
    return case


run_cases([
    ("slow clients over HTTP/1", pressed(ask_h1, False)),
    ("slow clients over HTTP/1, with buffers", pressed(ask_h1, False, 262144)),
    ("slow clients over TLS", pressed(ask_h1, True)),
    ("slow clients over HTTP/2", pressed(ask_h2, False)),
    ("slow clients over HTTP/2 and TLS", pressed(ask_h2, True)),
    ("slow clients of an upstream of HTTP/2", pressed(ask_h1, False, h2_up=True)),
    ("slow clients over HTTP/2 of an upstream of HTTP/2", pressed(ask_h2, False, h2_up=True)),
    ("a slow upstream behind uploads over HTTP/1", pressed(send_h1, False)),
    ("a slow upstream behind uploads over TLS", pressed(send_h1, True)),
    ("a slow upstream behind uploads over HTTP/2", pressed(send_h2, False)),
    ("a slow upstream behind uploads over HTTP/2 and TLS", pressed(send_h2, True)),
], at_once=2)
