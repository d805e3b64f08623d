#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The gateway speaking TLS to upstreams that the tests play themselves, as TAP: whom it believes and
what it says when it does not, client certificates, kept and resumed connections, streams both ways,
ends that are said and ends that are not. Usage: gateway_tls_test.py PORTICO."""
import contextlib
import hashlib
import http.client
import json
import os
import re
import select
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

from certificates import Authority
import played
from patience import held
from server import Server, Skip, free_port, run_cases, same

PORTICO = sys.argv[1]
CA = Authority()
GOOD = CA.leaf("good", "DNS:localhost", "IP:127.0.0.1")
OTHER = CA.leaf("other", "DNS:a.example", "DNS:b.example")
EXPIRED = CA.leaf("expired", "DNS:localhost", "IP:127.0.0.1", expired=True)
LONELY = CA.leaf("lonely", "DNS:localhost", "IP:127.0.0.1", self_signed=True)
CLIENT = CA.leaf("client", "DNS:client.example")
STRANGER = Authority("Another Root")
FAR = CA.leaf("far", "DNS:far.example")
STRANGE = STRANGER.leaf("strange", "DNS:localhost", "IP:127.0.0.1")


def context(chain=GOOD, version=None, clients=False):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(*chain)
    if version:
        c.minimum_version = c.maximum_version = version
    if clients:
        c.verify_mode = ssl.CERT_REQUIRED
        c.load_verify_locations(CA.root)
    return c


class Peer(played.Peer):
    """One connection of the gateway; `raw` is below the TLS."""

    def cut(self):
        """The end without a close_notify."""
        os.close(self.sock.detach())

    def close(self):
        """The end as it should be."""
        with contextlib.suppress(OSError, ssl.SSLError, AttributeError, ValueError):
            self.sock.settimeout(0.5)
            self.sock.unwrap()
        with contextlib.suppress(OSError):
            self.sock.close()


class Upstream:
    """Every connection gets a handshake (unless `ctx` is None) and then `play(peer)`, on a thread."""

    def __init__(self, play, ctx=None, plain=False):
        self.play, self.ctx = play, None if plain else ctx or context()
        self.accepted, self.peers, self.names, self.reused = 0, [], [], []
        if self.ctx:
            self.ctx.sni_callback = lambda s, name, c: self.names.append(name)
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.sock.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                sock = self.sock.accept()[0]
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self.run, args=(sock,), daemon=True).start()

    def run(self, sock):
        peer = None
        try:
            sock.settimeout(20)
            peer = Peer(self.ctx.wrap_socket(sock, server_side=True) if self.ctx else sock)
            self.peers.append(peer)
            if self.ctx:
                self.reused.append(peer.sock.session_reused)
            self.play(peer)
        except (OSError, EOFError):
            pass
        if peer and peer.sock.fileno() >= 0:
            peer.close()
        else:
            sock.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        for p in self.peers:  # closed by their threads: the TLS of one that still reads would read on from
            with contextlib.suppress(OSError):  # whatever socket gets the number
                socket.socket.shutdown(p.sock, socket.SHUT_RDWR)


def answer(body, extra=b""):
    return b"HTTP/1.1 200 OK\r\n" + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


def echo(peer):
    """Answers every request with its head, and its body."""
    while True:
        head = peer.head()
        m = re.search(rb"Content-Length: (\d+)", head)
        peer.send(answer(head + (peer.take(int(m.group(1))) if m else b"")))


def trusting(**tls):
    return {"ca": {"provider": "file", "pem_files": [CA.root]}, **tls}


class Gateway(Server):
    """One portico with one reverse_proxy."""

    def __init__(self, io, *upstreams, tls=None, transport=None, workers=2, environment=None,
                 members=None, **options):
        dials = [u if isinstance(u, str) else f"localhost:{u.port}" for u in upstreams]
        self.handler = {"handler": "reverse_proxy", "upstreams": [{"dial": d} for d in dials],
                        "transport": {"protocol": "http", "tls": trusting() if tls is None else tls,
                                      **(transport or {})}, **options}
        if tls is False:
            del self.handler["transport"]["tls"]
        super().__init__(PORTICO, io, workers=workers, routes=[{"handle": [self.handler]}],
                         top={"logging": {"logs": {"default": {"level": "DEBUG"}}}},
                         environment=environment, members=members, awaited=False)
        self.wait(lambda: socket.create_connection(("127.0.0.1", self.admin), 1).close() or True)

    def ask(self, path="/", method="GET", body=None, **fields):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            c.request(method, path, body, {k.replace("_", "-"): v for k, v in fields.items()})
            a = c.getresponse()
            return a.status, {k.lower(): v for k, v in a.getheaders()}, a.read()
        finally:
            c.close()

    def client(self):
        return Peer(socket.create_connection(("127.0.0.1", self.port), 60))

    def logged(self, text):
        self.wait(lambda: text in self.text())


@contextlib.contextmanager
def gateway(io, *upstreams, **options):
    s = Gateway(io, *upstreams, **options)
    try:
        yield s
    except BaseException as e:
        e.add_note(s.text()[-3000:])
        with contextlib.suppress(Exception):
            s.end()
        raise
    finally:
        for u in upstreams:
            if not isinstance(u, str):
                u.close()
    same(s.end(), 0)


# ---- whom it speaks to -----------------------------------------------------

def exact(io):
    """The upstream is asked by its own name; connections are kept."""
    up = Upstream(echo)
    with gateway(io, up, workers=1) as s:
        for _ in range(5):
            status, fields, body = s.ask("/a?b", Host="site.example", Accept="x")
            same(status, 200)
            same(fields["via"], "1.1 portico")
            same(body, b"GET /a?b HTTP/1.1\r\nHost: localhost:%d\r\n"
                       b"Accept-Encoding: identity\r\nAccept: x\r\n"
                       b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n"
                       b"X-Forwarded-Host: site.example\r\nVia: 1.1 portico\r\n\r\n" % up.port)
        same(up.accepted, 1)
        same(up.names, ["localhost"])
        same(up.peers[0].sock.version(), "TLSv1.3")


def host_rule(io):
    """What the configuration says about Host comes last."""
    up = Upstream(echo)
    ops = {"request": {"set": {"Host": ["{http.request.host}"], "X-A": ["1"]}}}
    with gateway(io, up, headers=ops) as s:
        body = s.ask("/", Host="site.example")[2]
        assert b"\r\nHost: site.example\r\n" in body and b"\r\nX-A: 1\r\n" in body, body


def old(io):
    up = Upstream(echo, context(version=ssl.TLSVersion.TLSv1_2))
    with gateway(io, up, workers=1) as s:
        for _ in range(3):
            same(s.ask()[0], 200)
        same(up.accepted, 1)
        same(up.peers[0].sock.version(), "TLSv1.2")


def refusals(io):
    """Nothing is sent to a server that cannot show who it is; the log says why."""
    for chain, words in ((OTHER, "certificate is for a.example, b.example, not localhost"),
                         (EXPIRED, "certificate has expired on 2020-02-01T00:00:00Z"),
                         (LONELY, "certificate is signed by itself and not trusted"),
                         (STRANGE, 'certificate signed by unknown authority \\"Another Root\\"')):
        up = Upstream(echo, context(chain))
        with gateway(io, up) as s:
            same(s.ask()[0], 502)
            s.logged(f"dial tcp localhost:{up.port}: tls: {words}")
            same(up.peers, [])


def insecure(io):
    for chain in (OTHER, EXPIRED, LONELY):
        with gateway(io, Upstream(echo, context(chain)), tls={"insecure_skip_verify": True}) as s:
            same(s.ask()[0], 200)


def names(io):
    """server_name, also one that the request says; connections do not mix."""
    up = Upstream(echo, context(OTHER))
    with gateway(io, up, tls=trusting(server_name="b.example")) as s:
        same(s.ask()[0], 200)
        same(up.names, ["b.example"])
    up = Upstream(echo, context(OTHER))
    with gateway(io, up, workers=1, tls=trusting(server_name="{http.request.header.X-Name}")) as s:
        for name in ("a.example", "b.example", "a.example", "b.example"):
            same(s.ask(X_Name=name)[0], 200)
        same(up.names, ["a.example", "b.example"])
        same(s.ask(X_Name="c.example")[0], 502)
        s.logged("not c.example")
        same(s.ask()[0], 502)
        s.logged("is no name that a certificate could be for")


def by_address(io):
    up = Upstream(echo)
    with gateway(io, f"127.0.0.1:{up.port}") as s:
        same(s.ask()[0], 200)
        same(up.names, [None])
    up.close()


def mutual(io):
    """A client certificate for who asks for one."""
    own = {"client_certificate_file": CLIENT[0], "client_certificate_key_file": CLIENT[1]}
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        up = Upstream(echo, context(version=version, clients=True))
        with gateway(io, up, tls=trusting(**own)) as s:
            same(s.ask()[0], 200)
            same(up.peers[0].sock.getpeercert()["subject"], ((("commonName", "client"),),))
        up = Upstream(echo, context(version=version, clients=True))
        with gateway(io, up) as s:
            same(s.ask()[0], 502)
            s.logged("alert certificate required" if version == ssl.TLSVersion.TLSv1_3
                     else "alert handshake failure")


def pools(io):
    """Every way to say whom to trust."""
    with open(CA.root, encoding="ascii") as f:
        der = "".join(f.read().split("-----")[2].split())
    for tls in ({"root_ca_pem_files": [CA.root]}, {"root_ca_pool": [der]},
                {"ca": {"provider": "inline", "trusted_ca_certs": [der]}},
                {"ca": {"provider": "combined", "sources": [
                    {"provider": "file", "pem_files": [STRANGER.root]},
                    {"provider": "inline", "trusted_ca_certs": [der]}]}}):
        with gateway(io, Upstream(echo), tls=tls) as s:
            same(s.ask()[0], 200)
    with gateway(io, Upstream(echo), tls={}) as s:
        same(s.ask()[0], 502)
        s.logged("unknown authority")
    for tls in ({}, {"ca": {"provider": "system"}}):  # the system's, as far as that process knows
        with gateway(io, Upstream(echo), tls=tls, environment={"SSL_CERT_FILE": CA.root}) as s:
            same(s.ask()[0], 200)


def ports(io):
    """Some upstreams without TLS."""
    plain, up = Upstream(echo, plain=True), Upstream(echo)
    with gateway(io, plain, up, tls=trusting(except_ports=[str(plain.port)]),
                 load_balancing={"selection_policy": {"policy": "round_robin"}}) as s:
        for _ in range(4):
            same(s.ask()[0], 200)
        assert plain.peers and up.peers


def no_tls_there(io):
    """A server without TLS, one that hangs, one that leaves."""
    def chatter(peer):
        peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with gateway(io, Upstream(chatter, plain=True)) as s:
        same(s.ask()[0], 502)
        s.logged("tls: the server does not speak TLS here")
    with gateway(io, Upstream(lambda p: time.sleep(20), plain=True),
                 tls=trusting(handshake_timeout=200_000_000)) as s:
        start = time.monotonic()
        same(s.ask()[0], 504)
        assert time.monotonic() - start < 15
        s.logged("tls: handshake timeout")
    with gateway(io, Upstream(lambda p: None, plain=True)) as s:
        same(s.ask()[0], 502)
        s.logged("TLS handshake: the server closed the connection")


def client_leaves(io):
    """A client that leaves during the handshake ends it."""
    gone = threading.Event()

    def wait(peer):
        while peer.sock.recv(65536):
            pass
        gone.set()

    up = Upstream(wait, plain=True)
    with gateway(io, up) as s:
        c = s.client()
        c.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        s.wait(lambda: up.peers)
        time.sleep(0.1)
        c.close()
        assert gone.wait(30)


def retried(io):
    """What fails at the handshake was not sent: another one may be asked."""
    bad, up = Upstream(echo, context(OTHER)), Upstream(echo)
    with gateway(io, bad, up, load_balancing={"selection_policy": {"policy": "round_robin"},
                                              "retries": 1}) as s:
        for _ in range(4):
            same(s.ask(method="POST", body=b"abc")[0], 200)
        same(bad.peers, [])


# ---- connections -----------------------------------------------------------

def kept(io):
    """An idle connection ends with its peer's close_notify, or without one, and the next request
    gets a fresh one; no request fails."""
    def once(peer):
        peer.head()
        peer.send(answer(b"one"))
        time.sleep(0.1)

    def rude(peer):
        once(peer)
        peer.cut()

    for play in (once, rude):
        up = Upstream(play)
        with gateway(io, up, workers=1) as s:
            for _ in range(3):
                same(s.ask(method="POST", body=b"x")[2], b"one")
                s.wait(lambda: held(up.port) == 0)  # a POST that meets the end on its way is not sent again
            same(up.accepted, 3)


def tickets(io):
    """Tickets that come late do not end an idle connection."""
    def late(peer):
        peer.head()
        peer.send(answer(b"one"))
        peer.sock.setblocking(True)
        peer.head()
        peer.send(answer(b"two"))

    up = Upstream(late)
    with gateway(io, up, workers=1) as s:
        same(s.ask()[2], b"one")
        time.sleep(0.2)
        same(s.ask()[2], b"two")
        same(up.accepted, 1)


def resumed(io):
    """Fresh connections resume sessions, in both versions, but with certificates of our own."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        up = Upstream(echo, context(version=version))
        with gateway(io, up, transport={"keep_alive": {"enabled": False}}, workers=1) as s:
            for _ in range(4):
                same(s.ask()[0], 200)
            same(up.reused, [False, True, True, True])
    up = Upstream(echo)  # a session would go on with a certificate that was renewed meanwhile
    with gateway(io, up, transport={"keep_alive": {"enabled": False}}, workers=1) as s:
        s.document["apps"]["tls"] = {"certificates": {
            "load_files": [{"certificate": GOOD[0], "key": GOOD[1]}]}}
        s.handler["transport"]["tls"]["client_certificate_automate"] = "localhost"
        same(s.api("POST", "/load", s.document), (200, ""))
        for _ in range(4):
            same(s.ask()[0], 200)
        same(up.reused, [False] * 4)


def reloaded(io):
    """The same configuration again keeps idle connections; other options have others."""
    up = Upstream(echo)
    with gateway(io, up, workers=1) as s:
        same(s.ask()[0], 200)
        same(s.api("POST", "/load", s.document, {"Cache-Control": "must-revalidate"})[0], 200)
        same(s.ask()[0], 200)
        same(up.accepted, 1)
        s.handler["transport"]["tls"]["curves"] = ["secp384r1"]
        same(s.api("POST", "/load", s.document)[0], 200)
        same(s.ask()[0], 200)
        same(up.accepted, 2)


# ---- streams ---------------------------------------------------------------

def cut_short(io):
    """An end that was not said is no end: neither of a length nor of a body until the end."""
    go = threading.Event()

    def cut_length(peer):
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        go.wait(20)
        peer.cut()

    def cut_open(peer):
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        go.wait(20)
        peer.cut()

    def whole(peer):
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        peer.close()

    def nothing(peer):
        peer.head()
        peer.cut()

    for play in (cut_length, cut_open):
        go.clear()
        with gateway(io, Upstream(play)) as s:
            c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=30)
            c.request("GET", "/")
            a = c.getresponse()
            same(a.read(4), b"half")
            go.set()
            try:
                a.read()
                raise AssertionError("a clean end")
            except http.client.IncompleteRead as e:
                same(e.partial, b"")
            c.close()
            s.logged("aborting with incomplete response")
    with gateway(io, Upstream(whole)) as s:
        same(s.ask()[2], b"all of it")
    with gateway(io, Upstream(nothing)) as s:
        same(s.ask()[0], 502)
        s.logged("unexpected EOF")


def pattern(n, seed=b"x"):
    block = hashlib.sha256(seed).digest() * 2048
    return (block * (n // len(block) + 1))[:n]


def large(io):
    """Fifty mebibytes both ways, as they are, in bounded memory."""
    size = 50 << 20
    data = pattern(size)

    def play(peer):
        while True:
            head = peer.head()
            if head.startswith(b"GET"):
                peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                for at in range(0, size, 1 << 20):
                    peer.send(data[at:at + (1 << 20)])
            else:
                same(hashlib.sha256(peer.take(size)).digest(), hashlib.sha256(data).digest())
                peer.send(answer(b"got it"))

    up = Upstream(play)
    small = {"ASAN_OPTIONS": "quarantine_size_mb=8"} # freed memory is kept for long by default
    with gateway(io, up, workers=1, environment=small) as s:
        before = s.resident_kib()
        for _ in range(2):
            assert s.ask()[2] == data
            same(s.ask(method="POST", body=data)[2], b"got it")
        assert s.resident_kib() - before < 40_000, (before, s.resident_kib())
        same(up.accepted, 1)


def chunked(io):
    """Chunks up and down, with trailers."""
    first = threading.Event()

    def play(peer):
        peer.head()
        body = peer.until(b"abc\r\n")
        first.set()
        body += peer.until(b"0\r\nX-T: v\r\n\r\n")
        same(body, b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: v\r\n\r\n")
        for byte in b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-U: w\r\n\r\n":
            peer.send(bytes([byte]))

    with gateway(io, Upstream(play)) as s:
        c = s.client()
        c.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n"
               b"3\r\nabc\r\n")
        assert first.wait(20)
        c.send(b"2\r\nde\r\n0\r\nX-T: v\r\n\r\n")
        assert c.head().startswith(b"HTTP/1.1 200 OK\r\n")
        body = c.until(b"X-U: w\r\n\r\n")
        same(re.sub(rb"\d\r\n|\r\n", b"", body), b"abcX-U: w")
        c.close()


def events(io):
    """What the upstream says is there at once."""
    go = threading.Event()

    def play(peer):
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for n in range(3):
            peer.send(b"data: %d\n\n" % n)
            assert go.wait(20)
            go.clear()

    with gateway(io, Upstream(play)) as s:
        c = s.client()
        c.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        c.head()
        for n in range(3):
            c.until(b"data: %d\n\n" % n)
            go.set()
        c.until(b"0\r\n\r\n")
        c.close()


def slow(io):
    """A slow client slows the upstream, a slow upstream the client; nothing piles up."""
    size = 30 << 20
    sent = [0]

    def play(peer):
        while True:
            one(peer, peer.head())

    def one(peer, head):
        if head.startswith(b"GET"):
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size >> 16):
                peer.send(b"y" * (1 << 16))
                sent[0] += 1 << 16
        else:
            time.sleep(1)
            peer.take(size)
            peer.send(answer(b"done"))

    with gateway(io, Upstream(play), workers=1) as s:
        c = s.client()
        c.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        c.head()
        time.sleep(1)
        assert sent[0] < 24 << 20, sent
        c.take(size)
        c.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 16):
            c.send(b"z" * (1 << 16))
        assert c.head().startswith(b"HTTP/1.1 200 OK\r\n")
        same(c.take(4), b"done")
        c.close()


def early(io):
    """An answer may come while the body still goes up."""
    def play(peer):
        peer.head()
        peer.take(100)
        peer.send(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno!")
        time.sleep(0.3)

    with gateway(io, Upstream(play)) as s:
        c = s.client()
        c.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n" + b"z" * 100000)
        assert c.head().startswith(b"HTTP/1.1 413 ")
        same(c.take(3), b"no!")
        c.close()


def many(io):
    """Several clients at once, on kept connections of both workers."""
    up, wrong = Upstream(echo), []

    def run(n):
        try:
            for i in range(20):
                body = pattern(1000 * n + i, b"%d" % n)
                assert s.ask(f"/{n}/{i}", "POST", body)[2].endswith(body)
        except Exception as e:  # told below
            wrong.append(e)

    with gateway(io, up) as s:
        threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        same(wrong, [])
        assert up.accepted < 30, up.accepted


def upgraded(io):
    """A tunnel through TLS: what was said early, both ways at once, large pieces, both ends."""
    def play(peer):
        head = peer.head()
        assert b"Upgrade: echo\r\n" in head and b"Connection: Upgrade\r\n" in head, head
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                  b"Upgrade: echo\r\n\r\nwelcome")
        while piece := peer.seen or peer.sock.recv(65536):
            peer.seen = b""
            if piece == b"just go":
                peer.cut()
            if piece in (b"just go", b"close, please"):
                return
            peer.send(piece)

    def open_tunnel(s, early=b""):
        c = s.client()
        c.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n" + early)
        assert c.head().startswith(b"HTTP/1.1 101 "), c.seen
        same(c.take(7), b"welcome")
        return c

    up = Upstream(play)
    with gateway(io, up) as s:
        c = open_tunnel(s, b"early")
        same(c.take(5), b"early")
        data = pattern(5 << 20)
        sender = threading.Thread(target=c.send, args=(data,))
        sender.start()
        assert c.take(len(data)) == data
        sender.join()
        time.sleep(0.3)
        c.send(b"again")
        same(c.take(5), b"again")
        c.sock.shutdown(socket.SHUT_WR)  # the upstream hears it, says its end, and so does the tunnel
        same(c.sock.recv(1), b"")
        c.close()
        c = open_tunnel(s)
        c.close()
        for word in (b"close, please", b"just go"):
            c = open_tunnel(s)
            c.send(word)
            same(c.sock.recv(100), b"")
            c.close()


def unread(s, c):
    """Bytes of that client that the gateway has not read."""
    mine, its = f"{c.sock.getsockname()[1]:04X}", f"{s.port:04X}"
    with open("/proc/net/tcp", encoding="ascii") as f:
        rows = [line.split() for line in f][1:]
    return sum(int(r[4].split(":")[1], 16) for r in rows if r[1][-4:] == its and r[2][-4:] == mine)


def full_socket(io):
    """The end of one side is said to the other with a close_notify, though the socket has no room at that moment. How
    much makes it full is the kernel's matter, and the same each time."""
    go, ends = threading.Event(), {}

    def play(peer):
        name = peer.head().split()[1]
        peer.sock.suppress_ragged_eofs = False
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        go.wait(60)
        n = len(peer.seen)
        try:
            while piece := peer.sock.recv(65536):
                n += len(piece)
            ends[name] = n, "said"
        except ssl.SSLError as e:
            ends[name] = n, str(e)

    def taken(s, c, piece, most):
        """Whether the gateway passes it on."""
        c.send(piece)
        until = time.monotonic() + most
        while unread(s, c):
            if time.monotonic() > until:
                return False
        return True

    def filled(s, most, name=b"/"):
        """A tunnel whose upstream reads nothing, and how many pieces of each size it has taken."""
        c, counts = s.client(), [0, 0, 0]
        c.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        c.send(b"GET %s HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n" % name)
        c.head()
        for at, size in enumerate((16384, 1024, 1)):
            while counts[at] < most[at] and taken(s, c, b"x" * size, 0.5):
                counts[at] += 1
        return c, counts

    def all_said(s):
        ends.clear()
        go.clear()
        large = filled(s, (10000, 0, 0))[1][0] - 2
        small = filled(s, (large, 10000, 0))[1][1] - 1  # the last one was read, and has no room
        tiny = filled(s, (large, small, 10000))[1][2] - 1
        clients = [filled(s, (large, small, tiny + more), b"/%d" % more)[0] for more in (-1, 0, 1)]
        begin = time.monotonic()
        for c in clients:
            c.sock.shutdown(socket.SHUT_WR)
        time.sleep(0.1)  # it would be lost now
        go.set()
        s.wait(lambda: len([name for name in ends if name != b"/"]) == len(clients))
        for c in clients:
            c.close()
        late = time.monotonic() - begin > 4  # no longer than 5 seconds is it waited for room
        return late, [why for name, (_, why) in ends.items() if name != b"/"]

    strict = context()
    strict.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    up = Upstream(play, strict)
    up.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with gateway(io, up, workers=1) as s:
        for _ in range(3):
            late, whys = all_said(s)
            if set(whys) == {"said"} or not late:
                break
        same(whys, ["said"] * 3)


def tunnel_of_old(io):
    """A tunnel ends with its configuration, and a WebSocket is told on both sides."""
    heard = []

    def play(peer):
        peer.head()
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                  b"Upgrade: websocket\r\n\r\n")
        heard.append(peer.sock.recv(100))

    with gateway(io, Upstream(play)) as s:
        c = s.client()
        c.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        c.head()
        same(s.api("POST", "/load", s.document, {"Cache-Control": "must-revalidate"})[0], 200)
        same(c.take(4), b"\x88\x02\x03\xe9")
        same(c.sock.recv(1), b"")
        s.wait(lambda: heard)
        same((heard[0][:2], len(heard[0])), (b"\x88\x82", 8))
        c.close()


def nginx(io):
    """A real server behind: files, uploads, kept connections, TLS 1.2 and 1.3, a client certificate."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    if not os.path.exists(program):
        raise Skip("nginx is not installed")
    folder, port = tempfile.mkdtemp(dir=CA.folder), free_port()
    os.chmod(CA.folder, 0o755)
    os.chmod(folder, 0o777)
    data = pattern(5_000_000)
    with open(f"{folder}/file", "wb") as f:
        f.write(data)
    with open(f"{folder}/conf", "w", encoding="ascii") as f:
        f.write(f"""
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error;
events {{ }}
http {{
    log_format x "$ssl_protocol $ssl_session_reused $ssl_client_verify $http_host $connection";
    access_log {folder}/access x;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    client_max_body_size 100m;
    server {{
        listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate {GOOD[0]}; ssl_certificate_key {GOOD[1]};
        ssl_client_certificate {CA.root}; ssl_verify_client on;
        root {folder};
    }}
}}
""")
    p = subprocess.Popen([program, "-e", f"{folder}/error", "-c", f"{folder}/conf"])
    try:
        with gateway(io, f"localhost:{port}", workers=1, tls=trusting(
                client_certificate_file=CLIENT[0], client_certificate_key_file=CLIENT[1])) as s:
            s.wait(lambda: socket.create_connection(("127.0.0.1", port)).close() or True)
            for _ in range(3):
                assert s.ask("/file")[2] == data
            same(s.ask("/nothing")[0], 404)
            same(s.ask("/file", "POST", b"abc")[0], 405)
            assert s.ask("/file", Range="bytes=100-199")[2] == data[100:200]
        end = time.monotonic() + 20
        while True:  # each when its answer has been sent
            with open(f"{folder}/access", encoding="ascii") as f:
                lines = f.read().split("\n")[:-1]
            if len(lines) >= 6 or time.monotonic() > end:
                break
            time.sleep(0.02)
        same(len(lines), 6)
        same({x.rsplit(" ", 1)[0].replace(" r ", " . ") for x in lines},
             {f"TLSv1.3 . SUCCESS localhost:{port}"})
        assert len({x.rsplit(" ", 1)[1] for x in lines}) <= 2, lines
    finally:
        p.terminate()
        p.wait()


def both_ways(peer, data):
    """Sends and receives so much at once; by one thread, for Python's TLS is one thread's."""
    got, sent = bytearray(peer.seen), 0
    peer.seen = b""
    peer.sock.setblocking(False)
    end = time.monotonic() + 60
    while len(got) < len(data) and time.monotonic() < end:
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            if sent < len(data):
                sent += peer.sock.send(data[sent:sent + 65536])
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            got += peer.sock.recv(65536)
    peer.sock.settimeout(20)
    return bytes(got)


def both_sides(io):
    """TLS to the client and TLS to the upstream: large bodies at once, a tunnel, an event stream."""
    def play(peer):
        while True:
            head = peer.head()
            if b"Upgrade: echo" in head:
                peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                          b"Upgrade: echo\r\n\r\n")
                while piece := peer.seen or peer.sock.recv(65536):
                    peer.seen = b""
                    peer.send(piece)
                return
            m = re.search(rb"Content-Length: (\d+)", head)
            peer.send(answer(peer.take(int(m.group(1))) if m else b"hello"))

    def client(s, alpn=("http/1.1",)):
        c = ssl.create_default_context(cafile=CA.root)
        c.set_alpn_protocols(list(alpn))
        return Peer(c.wrap_socket(socket.create_connection(("127.0.0.1", s.port), 10),
                                  server_hostname="localhost"))

    up = Upstream(play)
    with gateway(io, up, workers=1, members={"automatic_https": {"disable": True}}) as s:
        s.document["apps"]["tls"] = {"certificates": {
            "load_files": [{"certificate": GOOD[0], "key": GOOD[1]}]}}
        s.document["apps"]["http"]["servers"]["srv0"]["tls_connection_policies"] = [{}]
        same(s.api("POST", "/load", s.document), (200, ""))
        c = client(s)
        same(c.sock.selected_alpn_protocol(), "http/1.1")
        data = pattern(3_000_000)
        for _ in range(3):
            c.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            c.head()
            same(c.take(5), b"hello")
            c.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(data))
            c.send(data)
            assert c.head().startswith(b"HTTP/1.1 200 OK\r\n")
            assert c.take(len(data)) == data
        same(up.accepted, 1)
        c.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        assert c.head().startswith(b"HTTP/1.1 101 "), c.seen
        assert both_ways(c, data) == data
        c.close()


# ---- proxies ---------------------------------------------------------------

class Shared:
    """A TLS socket of two threads, one for each direction: Python's are one thread's, and a read that goes
    on while a write does may take the other's outcome for an error of its own."""

    def __init__(self, sock):
        self.sock, self.turn = sock, threading.Lock()
        sock.setblocking(False)

    def soon(self, call, *args):
        while True:
            try:
                with self.turn:
                    return call(*args)
            except ssl.SSLWantReadError:
                select.select([self.sock], [], [], 20)
            except ssl.SSLWantWriteError:
                select.select([], [self.sock], [], 20)

    def recv(self, n):
        return self.soon(self.sock.recv, n)

    def sendall(self, data):
        data = memoryview(data)
        while data:
            data = data[self.soon(self.sock.send, data):]

    def shutdown(self, how):
        with self.turn:
            self.sock.shutdown(how)

    def getpeername(self):
        return self.sock.getpeername()


class Proxy(Upstream):
    """Answers CONNECT by joining it to `target`, wherever it was to go; echoes other requests."""

    def __init__(self, target=None, ctx=None, refusal=None):
        self.target, self.refusal, self.heads = target, refusal, []
        super().__init__(self.proxy, ctx, plain=ctx is None)

    def proxy(self, peer):
        while True:
            head = peer.head()
            self.heads.append(head)
            if self.refusal:
                peer.send(self.refusal)
                return
            if not head.startswith(b"CONNECT "):
                peer.send(answer(head))
                continue
            far = socket.create_connection(("127.0.0.1", self.target.port))
            peer.send(b"HTTP/1.1 200 Go on\r\n\r\n")
            near = Shared(peer.sock) if self.ctx else peer.sock
            threading.Thread(target=self.copy, args=(far, near), daemon=True).start()
            self.copy(near, far)
            return

    @staticmethod
    def copy(a, b):
        with contextlib.suppress(OSError):
            while piece := a.recv(65536):
                b.sendall(piece)
        with contextlib.suppress(OSError):
            b.shutdown(socket.SHUT_WR)


def by_url(proxy, user="us:er@", scheme="http"):
    return {"network_proxy": {"from": "url", "url": f"{scheme}://{user}localhost:{proxy.port}"}}


class Recorder(Proxy):
    """Keeps what the gateway sends through it, as it is on the wire."""

    def copy(self, a, b):
        keeps = b.getpeername()[1] == self.target.port
        with contextlib.suppress(OSError):
            while piece := a.recv(65536):
                if keeps:
                    self.wire += piece
                b.sendall(piece)
        with contextlib.suppress(OSError):
            b.shutdown(socket.SHUT_WR)

    def records(self):
        """Lengths of what is encrypted."""
        at, out = 0, []
        while at + 5 <= len(self.wire):
            size = int.from_bytes(self.wire[at + 3:at + 5], "big")
            if self.wire[at] == 23:
                out.append(size)
            at += 5 + size
        return out


def tunnel_pieces(io):
    """stream_buffer_size is what a tunnel reads at once; out of bounds it is the nearest."""
    def play(peer):
        peer.head()
        peer.send(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        while piece := peer.sock.recv(65536):
            peer.send(piece)

    data = pattern(1_000_000)
    for size, longest in ((None, 16384), (2000, 2000), (1, 512), (1 << 40, 16384)):
        up = Upstream(play)
        proxy = Recorder(up)
        proxy.wire = b""
        more = {} if size is None else {"stream_buffer_size": size}
        with gateway(io, up, transport=by_url(proxy), **more) as s:
            c = s.client()
            c.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
            assert c.head().startswith(b"HTTP/1.1 101 "), c.seen
            assert both_ways(c, data) == data
            c.close()
        top = max(proxy.records())
        assert longest < top <= longest + 64, (size, top)  # and what encryption adds
        proxy.close()


def proxied(io):
    """A plain upstream is asked for by its URL, on kept connections."""
    proxy = Proxy()
    with gateway(io, "nowhere.example:8080", tls=False, transport=by_url(proxy), workers=1) as s:
        for _ in range(3):
            status, _, body = s.ask("/a?b", Host="site.example")
            same(status, 200)
            assert body.startswith(b"GET http://nowhere.example:8080/a?b HTTP/1.1\r\n"
                                   b"Host: nowhere.example:8080\r\n"), body
            assert b"Proxy-Authorization: Basic dXM6ZXI=\r\n" in body, body
            assert b"X-Forwarded-Host: site.example\r\n" in body, body
        same(proxy.accepted, 1)
    with gateway(io, "nowhere.example:80", tls=False, transport={
            "forward_proxy_url": f"http://localhost:{proxy.port}"}) as s:
        same(s.ask()[0], 200)
    proxy.close()


def tunnelled(io):
    """One with TLS is reached by CONNECT, and the proxy sees nothing of what is said."""
    up = Upstream(echo)
    proxy = Proxy(up)
    with gateway(io, up, transport=by_url(proxy), workers=1) as s:
        for _ in range(3):
            same(s.ask("/secret")[0], 200)
        body = pattern(1 << 20)
        assert s.ask("/", "POST", body)[2].endswith(body)
        same(up.accepted, 1)
        same(proxy.heads, [b"CONNECT localhost:%d HTTP/1.1\r\nHost: localhost:%d\r\n"
                           b"Proxy-Authorization: Basic dXM6ZXI=\r\n\r\n" % (up.port, up.port)])
    proxy.close()


def proxy_by_tls(io):
    """A proxy that is itself asked by TLS."""
    proxy = Proxy(ctx=context())
    with gateway(io, "nowhere.example:80", tls=False, transport=by_url(proxy, scheme="https"),
                 environment={"SSL_CERT_FILE": CA.root}) as s:
        same(s.ask()[0], 200)
    with gateway(io, "nowhere.example:80", tls=False,
                 transport=by_url(proxy, scheme="https")) as s:
        same(s.ask()[0], 502)
        s.logged("proxy: certificate signed by unknown authority")
    proxy.close()


def proxy_of_request(io):
    """The URL may hold placeholders."""
    first, second = Proxy(), Proxy()
    with gateway(io, "nowhere.example:80", tls=False, transport={"network_proxy": {
            "from": "url", "url": "http://localhost:{http.request.header.X-Port}"}}) as s:
        same(s.ask(X_Port=str(first.port))[0], 200)
        same(s.ask(X_Port=str(second.port))[0], 200)
        same((len(first.heads), len(second.heads)), (1, 1))
        same(s.ask(X_Port="nonsense")[0], 502)
        s.logged("invalid port")
    first.close()
    second.close()


def proxy_refuses(io):
    """What the proxy says is in the log; nothing was sent, so another one may be asked."""
    up = Upstream(echo)
    proxy = Proxy(up, refusal=b"HTTP/1.1 407 Who are you\r\nContent-Length: 3\r\n\r\nno!")
    with gateway(io, up, transport=by_url(proxy, user="")) as s:
        same(s.ask()[0], 502)
        s.logged(f"dial tcp localhost:{up.port} by proxy localhost:{proxy.port}: "
                 "proxy: the proxy answers 407 Who are you")
    chatters = Proxy(up, refusal=b"HTTP/1.1 102 Wait\r\n\r\n" * 100 + b"HTTP/1.1 200 Go on\r\n\r\n")
    with gateway(io, up, transport=by_url(chatters)) as s:
        same(s.ask()[0], 502)
        s.logged("proxy: the proxy answers 102 Wait")
    chatters.close()
    proxy.close()
    with gateway(io, "nowhere.example:443", transport=by_url(proxy)) as s:
        same(s.ask()[0], 502)
        s.logged("connection refused")
    hangs = Upstream(lambda p: time.sleep(2), plain=True)
    with gateway(io, "nowhere.example:443",
                 transport={**by_url(hangs), "dial_timeout": 200_000_000}) as s:
        same(s.ask()[0], 504)
        s.logged("proxy: i/o timeout")
    hangs.close()


class Socks(Proxy):
    """A proxy that speaks SOCKS 5, a few bytes at a time; `answers` replaces what it says at a step."""

    def __init__(self, target=None, user=None, answers=None):
        self.user, self.answers, self.steps = user, answers or {}, []
        super().__init__(target)

    def say(self, peer, step, data):
        data = self.answers.get(step, data)
        for i in range(0, len(data), 3):
            peer.send(data[i:i + 3])
            time.sleep(0.002)
        if step in self.answers:
            time.sleep(0.05)
            raise EOFError

    def proxy(self, peer):
        version, count = peer.take(2)
        methods = peer.take(count)
        self.steps.append(methods)
        self.say(peer, "method", b"\5" + (b"\2" if self.user else b"\0"))
        if self.user:
            peer.take(1)
            pair = [peer.take(peer.take(1)[0]) for _ in range(2)]
            self.steps.append(pair)
            self.say(peer, "user", b"\1\0" if pair == self.user else b"\1\1")
        version, command, _, kind = peer.take(4)
        host = peer.take({1: 4, 4: 16}.get(kind) or peer.take(1)[0])
        self.steps.append((version, command, kind, host, int.from_bytes(peer.take(2), "big")))
        bound = {1: b"\1\x7f\0\0\1", 3: b"\3\5proxy", 4: b"\4" + bytes(16)}[kind]
        far = socket.create_connection(("127.0.0.1", self.target.port))
        self.say(peer, "verdict", b"\5\0\0" + bound + b"\1\2")
        threading.Thread(target=self.copy, args=(far, peer.sock), daemon=True).start()
        self.copy(peer.sock, far)


def socks(io):
    """Everything is reached through it, by name, with TLS and without; what it says wrong is told."""
    up, plain = Upstream(echo, context(FAR)), Upstream(echo, plain=True)
    proxy, named = Socks(up), Socks(plain, [b"us:er", b"pass"])
    with gateway(io, "far.example:443", transport=by_url(proxy, user="", scheme="socks5"), workers=1) as s:
        for _ in range(3):
            same(s.ask("/a")[0], 200)
        body = pattern(1 << 20)
        assert s.ask("/", "POST", body)[2].endswith(body)
        same((proxy.steps, proxy.accepted), ([b"\0", (5, 1, 3, b"far.example", 443)], 1))
    for host, kind, raw in (("10.1.2.3", 1, b"\n\1\2\3"), ("[2001:db8::1]", 4, bytes.fromhex("20010db8" + "0" * 23 + "1"))):
        named.steps.clear()
        with gateway(io, f"{host}:8080", tls=False, workers=1,
                     transport=by_url(named, user="us%3Aer:pass@", scheme="socks5h")) as s:
            status, _, body = s.ask("/x", Host="site.example")
            same(status, 200)
            assert body.startswith(b"GET /x HTTP/1.1\r\nHost: site.example\r\n"), body  # nobody's but the upstream's
            assert b"Proxy-Authorization" not in body, body
            same(named.steps, [b"\0\2", [b"us:er", b"pass"], (5, 1, kind, raw, 8080)])
    with gateway(io, "far.example:80", tls=False, transport=by_url(named, user="someone:else@", scheme="socks5")) as s:
        same(s.ask()[0], 502)
        s.logged("proxy: the proxy does not accept the name and the password")
    with gateway(io, "far.example:80", tls=False, environment={"HTTP_PROXY": f"socks5://us%3Aer:pass@localhost:{named.port}"},
                 health_checks={"active": {"uri": "/check", "interval": "20ms", "timeout": "10s"}}) as s:
        same(s.ask()[0], 200)
        s.wait(lambda: any(b"GET /check HTTP/1.1" in p.seen for p in plain.peers) or plain.accepted > 3)
    wrong = []
    for step, says, text in (
            ("method", b"\4\0", "does not speak SOCKS 5"), ("method", b"\5\xff", "wants to know who asks"),
            ("method", b"\5\2", "not offered"), ("method", b"\5\0!", "nobody asked for"),
            ("method", b"\5", "closed the connection"),
            ("verdict", b"\5\5", "connection refused"), ("verdict", b"\5\2\0\1\0\0\0\0\0\0", "not allowed"),
            ("verdict", b"\5\x63", "unknown error"), ("verdict", b"\5\0\0\7\0\0", "unknown type of address"),
            ("verdict", b"\4\0", "does not speak SOCKS 5"),
            ("verdict", b"\5\0\0\1\0\0\0\0\0\0HTTP/1.1 200 OK\r\n\r\n", "nobody asked for"),
            ("verdict", b"\5\0\0\3\xff" + bytes(300), "nobody asked for")):
        wrong.append((Socks(plain, answers={step: says}), text))
    with gateway(io, "far.example:80", tls=False, transport={"network_proxy": {
            "from": "url", "url": "socks5://localhost:{http.request.header.X-Port}"}}) as s:
        for each, text in wrong:
            same(s.ask(X_Port=str(each.port))[0], 502)
            s.logged(f"by proxy localhost:{each.port}: proxy: the proxy ")
            assert text in re.findall(f"by proxy localhost:{each.port}: proxy: the proxy ([^\"]*)", s.text())[0], s.text()[-500:]
            each.close()
    proxy.close()
    named.close()
    up.close()
    plain.close()


def tls_in_tls(io):
    """An upstream with TLS behind a proxy that is asked by TLS: kept connections, large bodies, tunnels,
    ends on both sides."""
    def play(peer):
        while True:
            head = peer.head()
            if b"Upgrade: echo" in head:
                peer.send(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
                while piece := peer.sock.recv(65536):
                    peer.send(piece)
                return
            m = re.search(rb"Content-Length: (\d+)", head)
            peer.send(answer(head + (peer.take(int(m.group(1))) if m else b"")))
            if b"GET /last" in head:
                return

    up = Upstream(play)
    proxy = Proxy(up, context())
    with gateway(io, up, transport=by_url(proxy, scheme="https"), workers=1,
                 environment={"SSL_CERT_FILE": CA.root}) as s:
        for _ in range(3):
            same(s.ask("/secret")[0], 200)
        body = pattern(3 << 20)
        assert s.ask("/", "POST", body)[2].endswith(body)
        same((up.accepted, len(proxy.heads)), (1, 1))
        assert proxy.heads[0].startswith(b"CONNECT localhost:%d HTTP/1.1\r\n" % up.port), proxy.heads
        c = s.client()
        c.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        assert c.head().startswith(b"HTTP/1.1 101 "), c.seen
        assert both_ways(c, body) == body
        c.close()
        same(s.ask("/last")[0], 200)  # the upstream closes, and so does all that led to it
        s.wait(lambda: s.metric("fibers") == 0)
        for _ in range(3):
            same(s.ask("/again")[0], 200)
    proxy.target = Upstream(echo)
    with gateway(io, "nowhere.example:443", transport=by_url(proxy, scheme="https"),
                 environment={"SSL_CERT_FILE": CA.root}) as s:
        same(s.ask()[0], 502)  # another name than the certificate's
        s.logged("tls: certificate is for localhost")
        s.wait(lambda: s.metric("fibers") == 0)
    proxy.target.close()
    proxy.close()


class Sluggish(Proxy):
    """Passes some bytes on, and takes no more then."""

    def copy(self, a, b):
        if b.getpeername()[1] != self.target.port:
            super().copy(a, b)
            return
        for _ in range(20):
            b.sendall(a.recv(4096))
        self.full.set()
        self.over.wait(120)


def tls_in_tls_stuck(io):
    """A proxy that takes nothing more holds nothing of a request that was given up."""
    def play(peer):
        peer.sock.settimeout(120)
        peer.take(100_000_000)

    up = Upstream(play)
    proxy = Sluggish(up, context())
    proxy.full, proxy.over = threading.Event(), threading.Event()
    with gateway(io, up, transport=by_url(proxy, scheme="https"), workers=1,
                 environment={"SSL_CERT_FILE": CA.root}) as s:
        before = s.live()["descriptors"]
        c = s.client()
        c.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n")
        c.sock.settimeout(1)
        with contextlib.suppress(OSError):
            while True:
                c.send(bytes(65536))
        assert proxy.full.wait(20)
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        c.cut()
        s.wait(lambda: s.metric("fibers") == 0 and s.live()["descriptors"] <= before + 1, 40)
    proxy.over.set()
    proxy.close()
    up.close()


def environment(io):
    """HTTP_PROXY, HTTPS_PROXY, NO_PROXY; never for this machine; network_proxy none."""
    up, proxy = Upstream(echo, context(FAR)), None
    proxy = Proxy(up)
    says = {"HTTP_PROXY": f"localhost:{proxy.port}", "https_proxy": f"localhost:{proxy.port}",
            "NO_PROXY": "near.invalid"}
    with gateway(io, "far.example:80", tls=False, environment=says) as s:
        same(s.ask()[0], 200)
    with gateway(io, "far.example:443", environment=says) as s:
        same(s.ask()[0], 200)
    same(len(proxy.heads), 2)
    for dial, more in (("near.invalid:80", {}),
                       ("far.invalid:80", {"network_proxy": {"from": "none"}})):
        with gateway(io, dial, tls=False, transport=more, environment=says) as s:
            same(s.ask()[0], 502)
            s.logged("lookup " + dial.split(":")[0])
    here = Upstream(echo, plain=True)
    with gateway(io, here, tls=False, environment=says) as s:
        same(s.ask()[0], 200)
    same(len(proxy.heads), 2)
    up.close()
    proxy.close()


def headed(io):
    """Connections begin with a PROXY header, below the TLS, and are kept for one client each."""
    seen = []

    def play(sock):
        sock.settimeout(20)
        first = sock.recv(13, socket.MSG_WAITALL)
        if first.startswith(b"PROXY "):
            while not first.endswith(b"\r\n"):
                first += sock.recv(1)
        else:
            first += sock.recv(3, socket.MSG_WAITALL)
            first += sock.recv(first[15], socket.MSG_WAITALL)
        seen.append(first)

    class Headed(Upstream):
        def run(self, sock):
            play(sock)
            super().run(sock)

    trusted = {"trusted_proxies": {"source": "static", "ranges": ["127.0.0.1"]}}
    v2 = b"\r\n\r\n\0\r\nQUIT\n"
    for version, plain, tells in (
            ("v1", True, lambda a: b"PROXY TCP4 %s 0.0.0.0 0 0\r\n" % a),
            ("v2", False, lambda a: v2 + b"\x21\x11\0\x0c" + socket.inet_aton(a.decode()) + b"\0" * 8)):
        seen.clear()
        up = Headed(echo, plain=plain)
        with gateway(io, up, tls=False if plain else None, workers=1, members=trusted,
                     transport={"proxy_protocol": version}) as s:
            for client in ("10.1.1.1", "10.1.1.1", "10.2.2.2", "10.1.1.1"):
                same(s.ask(X_Forwarded_For=client)[0], 200)
            same(seen, [tells(b"10.1.1.1"), tells(b"10.2.2.2")])
    seen.clear()
    up = Headed(echo, plain=True)
    with gateway(io, up, tls=False, members=trusted, transport={"proxy_protocol": "v1"}) as s:
        same(s.ask(X_Forwarded_For="2001:db8::1")[0], 200)
        same(seen, [b"PROXY TCP6 2001:db8::1 :: 0 0\r\n"])


def resolver(io):
    """DNS servers of the transport's own."""
    asked = []

    def serve(sock):
        while True:
            try:
                data, peer = sock.recvfrom(2048)
            except OSError:
                return
            end = data.index(b"\0", 12) + 5
            asked.append(data[13:13 + data[12]])
            is_a = data[end - 4:end - 2] == b"\0\1"
            reply = data[:2] + b"\x81\x80\0\1" + (b"\0\1" if is_a else b"\0\0") + b"\0\0\0\0" + data[12:end]
            if is_a:
                reply += b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1"
            sock.sendto(reply, peer)

    dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dns.bind(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(dns,), daemon=True).start()
    at = {"resolver": {"addresses": [f"udp/127.0.0.1:{dns.getsockname()[1]}"]}}
    up = Upstream(echo, plain=True)
    with gateway(io, f"app.corp.example:{up.port}", tls=False, transport=at, workers=1) as s:
        for _ in range(2):
            same(s.ask()[0], 200)
        assert b"app" in asked, asked
        same(up.accepted, 1)
    with gateway(io, f"app.corp.invalid:{up.port}", tls=False) as s:
        same(s.ask()[0], 502)
    up.close()
    dns.close()


# ---- configuration ---------------------------------------------------------

def caddyfile(io):
    """The same from a Caddyfile."""
    up, second = Upstream(echo), Upstream(echo, context(OTHER, clients=True))
    with gateway(io, "localhost:1") as s:
        text = f"""
{{
    admin localhost:{s.admin}
    auto_https off
}}
http://127.0.0.1:{s.port} {{
    handle /one {{
        reverse_proxy https://localhost:{up.port} {{
            transport http {{
                tls_trust_pool file {CA.root}
            }}
        }}
    }}
    reverse_proxy 127.0.0.1:{second.port} {{
        transport http {{
            tls
            tls_trusted_ca_certs {CA.root}
            tls_server_name a.example
            tls_client_auth {CLIENT[0]} {CLIENT[1]}
            tls_timeout 5s
            tls_renegotiation never
            tls_curves x25519 secp256r1
            tls_except_ports 81 82
        }}
    }}
}}
"""
        c = http.client.HTTPConnection("127.0.0.1", s.admin, timeout=60)
        c.request("POST", "/load", text, {"Host": f"localhost:{s.admin}",
                                          "Content-Type": "text/caddyfile"})
        a = c.getresponse()
        same(a.status, 200)
        c.close()
        s.wait(lambda: s.ask("/one")[0] == 200)  # both workers have heard of it
        same(s.ask("/two")[0], 200)
        same((up.names, second.names), (["localhost"], ["a.example"]))
    up.close()
    second.close()


def bad_options(io):
    """What is wrong is told at load."""
    empty = CA.path("empty.pem")
    with open(empty, "w", encoding="ascii") as f:
        f.write("nothing here\n")
    with gateway(io, "localhost:1") as s:
        for tls, words in (
                ({"nonsense": 1}, "nonsense"),
                ({"client_certificate_file": "x"}, "without client_certificate_key_file"),
                ({"client_certificate_key_file": "x"}, "without client_certificate_file"),
                ({"client_certificate_file": "/nope", "client_certificate_key_file": "/nope"},
                 "open /nope: No such file"),
                ({"client_certificate_file": GOOD[0], "client_certificate_key_file": CLIENT[1]},
                 "do not belong together"),
                ({"root_ca_pem_files": ["/nope"]}, "open /nope: No such file"),
                ({"root_ca_pem_files": [empty]}, f"no certificate in {empty}"),
                ({"root_ca_pool": ["!"]}, "is not base64"),
                ({"root_ca_pool": ["AAAA"]}, "malformed certificate of a trusted authority"),
                ({"root_ca_pem_files": [CA.root], "ca": {"provider": "system"}}, "conflicting"),
                ({"ca": {"provider": "nope"}}, "nope"),
                ({"renegotiation": "sometimes"}, "invalid TLS renegotiation level: sometimes"),
                ({"curves": ["x25519", "nope"]}, "unknown curve"),
                ({"except_ports": ["http"]}, "invalid port"),
                ({"handshake_timeout": "soon"}, "handshake_timeout"),
                ({"network_proxy": {"from": "url"}}, "has no"),
                ({"network_proxy": {"from": "nowhere"}}, "caddy.network_proxy.nowhere"),
                ({"network_proxy": {"from": "none", "url": "x"}}, "unknown member"),
                ({"network_proxy": {"from": "url", "url": "socks4://h:1"}}, "of SOCKS only version 5"),
                ({"network_proxy": {"from": "url", "url": "http://h:x"}}, "invalid port"),
                ({"resolver": {"addresses": []}, "network_proxy": None}, "needs 1 to 16"),
                ({"resolver": {"addresses": ["dns.example"]}, "network_proxy": None},
                 "is no IP address")):
            s.handler["transport"] = {"protocol": "http", **({"tls": tls} if not
                                      {"network_proxy"} & set(tls) else tls)}
            status, text = s.api("POST", "/load", s.document)
            same(status, 400)
            assert words in json.loads(text)["error"], (tls, text)


CASES = [
    ("an upstream is asked by its own name, on kept connections", exact),
    ("what the configuration says about Host comes last", host_rule),
    ("TLS 1.2", old),
    ("who cannot show who he is gets nothing, and the log says why", refusals),
    ("insecure_skip_verify", insecure),
    ("server_name, also from the request", names),
    ("an address is checked as one", by_address),
    ("client certificates", mutual),
    ("every way to say whom to trust", pools),
    ("except_ports", ports),
    ("a server without TLS, one that hangs, one that leaves", no_tls_there),
    ("a client that leaves ends a handshake", client_leaves),
    ("a failed handshake may be tried elsewhere", retried),
    ("idle connections end with their peers", kept),
    ("tickets do not end an idle connection", tickets),
    ("sessions are resumed", resumed),
    ("a reload of the same configuration keeps connections", reloaded),
    ("an end that was not said is no end", cut_short),
    ("50 MiB both ways, memory bounded", large),
    ("chunks and trailers", chunked),
    ("event streams leave at once", events),
    ("back-pressure both ways", slow),
    ("an answer before the body's end", early),
    ("several clients at once", many),
    ("TLS on both sides", both_sides),
    ("nginx as the upstream", nginx),
    ("tunnels through TLS", upgraded),
    ("the end of a tunnel's side is said when the socket is full, too", full_socket),
    ("tunnels through TLS end with their configuration", tunnel_of_old),
    ("an upstream by a proxy", proxied),
    ("one with TLS through a proxy", tunnelled),
    ("a proxy that is asked by TLS", proxy_by_tls),
    ("a proxy that the request names", proxy_of_request),
    ("a tunnel reads no more than stream_buffer_size at once", tunnel_pieces),
    ("a proxy that refuses, one that is gone, one that hangs", proxy_refuses),
    ("a proxy that speaks SOCKS 5", socks),
    ("TLS through a proxy that is asked by TLS", tls_in_tls),
    ("TLS through a proxy that is asked by TLS, and is stuck", tls_in_tls_stuck),
    ("proxies of the environment", environment),
    ("connections that begin with a PROXY header", headed),
    ("DNS servers of the transport's own", resolver),
    ("the same from a Caddyfile", caddyfile),
    ("wrong options are told at load", bad_options),
]

run_cases(CASES, at_once=2)
