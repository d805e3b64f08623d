#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""TLS towards clients, with HTTP/1 over it, as TAP: which policy and certificate, versions, tickets,
client certificates, what is no handshake or a bad one, bodies both ways, ends, tunnels, drains.
Usage: tls_test.py PORTICO."""
import concurrent.futures
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time

from certificates import Authority, openssl
import server
from server import free_port, run_cases, same

PORTICO = os.path.abspath(sys.argv[1])
CA = Authority()
ONE = CA.leaf("one", "DNS:one.example", "DNS:localhost")
TWO = CA.leaf("two", "DNS:two.example", "DNS:*.wild.example")
THREE = CA.leaf("three", "DNS:one.example")
CLIENT = CA.leaf("client", "DNS:client.example", "email:me@client.example")
STRANGERS = Authority("Another Root")
STRANGE = STRANGERS.leaf("strange", "DNS:client.example")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
BIG = bytes(range(256)) * 20000  # 5 MB
MIDDLE = BIG[7:900007]
ABOUT = " ".join("{http.request.tls." + name + "}" for name in
                 ("version", "cipher_suite", "server_name", "proto", "resumed")) \
        + " {http.request.scheme}"
SHOWN = "{http.request.tls.client.subject} {http.request.tls.client.serial} " \
        "{http.request.tls.client.san.dns_names.0} {http.request.tls.client.san.emails}"


def files_of(*pairs):
    return {"certificates": {"load_files": [{"certificate": pem, "key": key}
                                            for pem, key in pairs]}}


def routes():
    folder = CA.path("www")
    os.makedirs(folder, exist_ok=True)
    for name, content in (("big", BIG), ("middle", MIDDLE)):
        with open(f"{folder}/{name}", "wb") as f:
            f.write(content)
        os.utime(f"{folder}/{name}", (1e9, 1e9))  # young files are never kept

    def say(path, body):
        return {"match": [{"path": [path]}],
                "handle": [{"handler": "static_response", "body": body}]}
    return [say("/echo", "{http.request.body}"), say("/about", ABOUT), say("/shown", SHOWN),
            {"match": [{"path": ["/big", "/middle"]}], "handle": [{"handler": "file_server", "root": folder}]},
            {"match": [{"protocol": "https"}],
             "handle": [{"handler": "static_response", "body": "secure"}]}]


def running(io, policies=None, certificates=(ONE, TWO), members=None, own_routes=None, **more):
    return server.running(io, secure=True, routes=own_routes or routes(), members={
        "tls_connection_policies": policies if policies is not None else [{}],
        "automatic_https": {"disable": True}, "logs": {}, **(members or {})},
        apps={"tls": files_of(*certificates)},
        top={"logging": {"logs": {"default": {"level": "DEBUG"}}}}, **more)


def context(version=None, alpn=(), own=None, root=CA.root):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.load_verify_locations(root)
    if version:
        c.minimum_version = c.maximum_version = version
    if alpn:
        c.set_alpn_protocols(list(alpn))
    if own:
        c.load_cert_chain(*own)
    return c


V2, V3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def connect(s, name="one.example", with_context=None, session=None):
    raw = socket.create_connection(("127.0.0.1", s.port), 60)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    c = with_context or context()
    if name is None:
        c.check_hostname = False
    try:
        return c.wrap_socket(raw, server_hostname=name, session=session, suppress_ragged_eofs=False)
    except Exception:
        raw.close()
        raise


def read_head(c):
    got = b""
    while b"\r\n\r\n" not in got:
        piece = c.recv(1)
        assert piece, got
        got += piece
    return got


def ask(c, path="/", method="GET", body=None, **fields):
    """Status and body of one request on a kept connection."""
    head = f"{method} {path} HTTP/1.1\r\nHost: one.example\r\n"
    if body is not None:
        head += f"Content-Length: {len(body)}\r\n"
    head += "".join(f"{k}: {v}\r\n" for k, v in fields.items())
    c.sendall(head.encode() + b"\r\n" + (body or b""))
    head = read_head(c)
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    got = b""
    while len(got) < length:
        piece = c.recv(min(65536, length - len(got)))
        assert piece, f"ended after {len(got)} of {length}"
        got += piece
    return int(head[9:12]), got


def about(s, *arguments, **more):
    with connect(s, *arguments, **more) as c:
        return ask(c, "/about")[1].decode().split(" ")


def refused(action):
    """What the client says when the server does not take it."""
    try:
        with action() as c:
            ask(c)
    except (ssl.SSLError, ConnectionError, AssertionError) as why:
        return str(why) or "closed"
    raise AssertionError("it was let in")


def quiet(s):
    """No connection, fiber or operation is left but what the question itself needs."""
    s.wait(lambda: s.live()["connections"] == 0 and s.live()["fibers"] == 0)


# --- talk ---

def versions(io):
    with running(io) as s:
        for version, name, suite in ((V2, "tls1.2", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
                                     (V3, "tls1.3", "TLS_AES_128_GCM_SHA256")):
            with connect(s, with_context=context(version)) as c:
                for _ in range(5):
                    same(ask(c, "/about")[1].decode(),
                         f"{name} {suite} one.example  false https")
                same(ask(c), (200, b"secure"))
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            c = context()
            c.minimum_version, c.maximum_version = version, version
            c.set_ciphers("DEFAULT:@SECLEVEL=0")
            refused(lambda c=c: connect(s, with_context=c))
        quiet(s)


def bodies(io):
    with running(io) as s:
        for version in (V2, V3):
            with connect(s, with_context=context(version)) as c:
                same(ask(c, "/big"), (200, BIG))
                up = os.urandom(900000)
                for _ in range(2):
                    status, got = ask(c, "/echo", "POST", up)
                    same((status, len(got), got == up), (200, len(up), True))
                same(ask(c, "/big", Range="bytes=1000-2000000"), (206, BIG[1000:2000001]))
        quiet(s)


def often_wanted(io):
    """A file that the workers come to keep in memory, over both protocols, until it changes."""
    with running(io, members={"protocols": ["h1", "h2"]}) as s:
        with connect(s) as c:
            for _ in range(8):
                same(ask(c, "/middle"), (200, MIDDLE))
                same(ask(c, "/middle", Range="bytes=70000-800000"), (206, MIDDLE[70000:800001]))
                same(ask(c, "/middle", Range="bytes=5-6,899990-")[0], 206)
            get = ["curl", "-sS", "--http2", "--cacert", CA.root, "--resolve",
                   f"one.example:{s.port}:127.0.0.1"]
            url = f"https://one.example:{s.port}/middle"
            for _ in range(2):
                done = subprocess.run([*get, *[url] * 8], capture_output=True, check=True)
                same(done.stdout == MIDDLE * 8, True)
            changed = CA.path("www/new")
            with open(changed, "wb") as f:
                f.write(MIDDLE[::-1])
            os.utime(changed, (1e9 + 60, 1e9 + 60))
            os.rename(changed, CA.path("www/middle"))
            end = time.monotonic() + 20
            while ask(c, "/middle")[1] != MIDDLE[::-1]:
                assert time.monotonic() < end, "the change was not seen"
                time.sleep(0.05)
        quiet(s)


def pipelined(io):
    with running(io) as s:
        for count in (3, 200):
            with connect(s) as c:
                one = b"GET /about HTTP/1.1\r\nHost: a\r\n\r\n"
                last = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                c.sendall(one * count + last)
                got = b""
                while piece := c.recv(65536):
                    got += piece
                same(got.count(b"HTTP/1.1 200 OK"), count + 1)
                assert got.endswith(b"secure"), got[-100:]
        with connect(s) as c:  # a request in records of one byte
            for byte in b"GET / HTTP/1.1\r\nHost: a\r\n\r\n":
                c.sendall(bytes([byte]))
            assert b"200 OK" in read_head(c)
        quiet(s)


def slow_reader(io):
    with running(io) as s:
        with connect(s) as c:
            c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # less: the kernel waits with each window
            c.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            head = read_head(c)
            assert b"200 OK" in head
            time.sleep(0.5)
            got = b""
            while piece := c.recv(65536):
                got += piece
            same(got == BIG, True)
        quiet(s)


def ends(io):
    """The end is said, with close_notify, where nothing is missing; a broken request is answered."""
    with running(io, members={"idle_timeout": 1000000000}) as s:
        with connect(s) as c:
            same(ask(c), (200, b"secure"))
            same(c.recv(10), b"")  # raises when the end is not said
        with connect(s) as c:
            c.sendall(b"NONSENSE\r\n\r\n")
            assert b" 400 " in read_head(c)
        with connect(s) as c:  # the client says its end first
            same(ask(c), (200, b"secure"))
            c.unwrap()
        with connect(s) as c:  # and one that only leaves, in the middle of a body
            c.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
        quiet(s)


# --- choices ---

def certificate_of(s, name):
    with connect(s, name) as c:
        return dict(x[0] for x in c.getpeercert()["subject"])["commonName"]


def names(io):
    with running(io) as s:
        same(certificate_of(s, "one.example"), "one")
        same(certificate_of(s, "LOCALHOST"), "one")
        same(certificate_of(s, "two.example"), "two")
        same(certificate_of(s, "x.wild.example"), "two")
        assert "internal error" in refused(lambda: connect(s, "y.x.wild.example"))
        assert "internal error" in refused(lambda: connect(s, None))
    policies = [{"match": {"sni": ["drop.example"]}, "drop": True},
                {"match": {"sni": ["two.example"]}, "protocol_max": "tls1.2", "alpn": ["http/1.1"]},
                {"default_sni": "two.example", "fallback_sni": "one.example"}]
    with running(io, policies) as s:
        same(certificate_of(s, None), "two")
        c = context()
        c.check_hostname = False
        same(about(s, "other.example", with_context=c)[2], "other.example")
        same(about(s, "two.example")[0], "tls1.2")
        same(about(s, "one.example")[0], "tls1.3")
        refused(lambda: connect(s, "drop.example"))
        quiet(s)


def alpn(io):
    with running(io, members={"protocols": ["h1"]}) as s:
        for offered, chosen in ((("http/1.1",), "http/1.1"), (("h2", "http/1.1"), "http/1.1"),
                                ((), "")):
            same(about(s, with_context=context(alpn=offered))[3], chosen)
        assert "no application protocol" in refused(lambda: connect(s, with_context=context(
            alpn=["spdy/1"]))).replace("_", " ").lower()
        refused(lambda: connect(s, with_context=context(alpn=["acme-tls/1"])))
    with running(io, members={"protocols": ["h1", "h2"]}) as s:
        with connect(s, with_context=context(alpn=["http/1.1", "h2"])) as c:
            same(c.selected_alpn_protocol(), "h2")
        same(about(s, with_context=context(alpn=["http/1.1"]))[3], "http/1.1")
        quiet(s)


def resumption(io):
    with running(io, workers=2) as s:
        for version in (V2, V3):
            for _ in range(2):  # and again behind a reload
                c = context(version)
                with connect(s, with_context=c) as first:
                    ask(first)
                    session = first.session
                resumed = []
                for _ in range(20):  # on whichever worker
                    with connect(s, with_context=c, session=session) as again:
                        same(ask(again, "/about")[1].split()[-2],
                             b"true" if again.session_reused else b"false")
                        resumed.append(again.session_reused)
                        session = again.session
                same(resumed, [True] * 20)
                document = {**s.document, "logging": {"logs": {"default": {"level": "DEBUG"}}}}
                same(s.api("POST", "/load", document, {"Cache-Control": "must-revalidate"})[0], 200)
                with connect(s, with_context=c, session=session) as again:
                    same(again.session_reused, True)
        quiet(s)


def hidden_names(io):
    """Encrypted ClientHello is refused, in either form, for what it needs."""
    for name, text in (("Caddyfile", "{\n\tech public.example\n}\na.example {\n}\n"),
                       ("a.json", '{"apps":{"tls":{"encrypted_client_hello":{}}}}')):
        with open(CA.path(name), "w", encoding="ascii") as f:
            f.write(text)
        done = subprocess.run([PORTICO, "validate", "--config", CA.path(name)], check=False,
                              capture_output=True, text=True)
        same(done.returncode, 1)
        assert '"encrypted_client_hello" needs a TLS library that has it' in done.stderr, done.stderr


def reload(io):
    """New connections have the new certificate, old ones go on."""
    with running(io) as s:
        with connect(s) as old:
            same(ask(old), (200, b"secure"))
            document = json.loads(json.dumps(s.document))
            document["apps"]["tls"] = files_of(THREE)
            same(s.api("POST", "/load", document)[0], 200)
            same(certificate_of(s, "one.example"), "three")
            same(ask(old), (200, b"secure"))
        refused(lambda: connect(s, "two.example"))
        quiet(s)


# --- clients ---

def policy_of(mode, **more):
    pool = {"provider": "file", "pem_files": [CA.root]}
    return [{"client_authentication": {"mode": mode, "ca": pool, **more}}]


def let_in(s, own, version):
    try:
        with connect(s, with_context=context(version, own=own)) as c:
            return ask(c)[0] == 200
    except (ssl.SSLError, ConnectionError, AssertionError):
        return False


def client_certificates(io):
    for mode, wanted in (("request", (True, True, True)), ("require", (False, True, True)),
                         ("verify_if_given", (True, True, False)),
                         ("require_and_verify", (False, True, False))):
        with running(io, policy_of(mode)) as s:
            for version in (V2, V3):
                got = tuple(let_in(s, own, version) for own in (None, CLIENT, STRANGE))
                same((mode, version, got), (mode, version, wanted))
            quiet(s)
    leaf = [{"verifier": "leaf", "leaf_certs_loaders": [{"loader": "file", "files": [CLIENT[0]]}]}]
    with running(io, policy_of("require", verifiers=leaf)) as s:
        same([let_in(s, own, V3) for own in (None, CLIENT, STRANGE)], [False, True, False])
        with connect(s, with_context=context(own=CLIENT)) as c:
            text = ask(c, "/shown")[1].decode()
            assert text.startswith("CN=client "), text
            assert text.endswith("client.example [me@client.example]"), text
        s.wait(lambda: '"client_common_name":"client"' in s.text())


# --- what is no handshake, or a bad one ---

def plain(s, data, timeout=30):
    with socket.create_connection(("127.0.0.1", s.port), timeout) as c:
        c.sendall(data)
        got = b""
        with contextlib.suppress(ConnectionError):
            while piece := c.recv(65536):
                got += piece
        return got


def clear_text(io):
    with running(io) as s:
        got = plain(s, b"GET / HTTP/1.1\r\nHost: one.example\r\n\r\n")
        assert got.startswith(b"HTTP/1.0 400 Bad Request\r\n\r\n"), got
        assert got.endswith(b"Client sent an HTTP request to an HTTPS server.\n"), got
        same(plain(s, b"SSH-2.0-OpenSSH\r\n"), b"\x15\x03\x01\x00\x02\x02\x0a")
        same(plain(s, b"\x16\x03\x01\x00\x05hello")[:5], b"\x15\x03\x01\x00\x02")
        same(plain(s, b"\x80\x2e\x01\x03\x01")[:5], b"\x15\x03\x01\x00\x02")
        quiet(s)
    wrappers = [{"wrapper": "http_redirect"}, {"wrapper": "tls"}]
    with running(io, members={"listener_wrappers": wrappers}) as s:
        got = plain(s, b"GET /a?b=c HTTP/1.1\r\nHost: one.example\r\n\r\n")
        assert b" 308 " in got.split(b"\r\n")[0], got
        assert b"Location: https://one.example/a?b=c\r\n" in got, got
        same(about(s)[0], "tls1.3")
        same(plain(s, b"GET / nonsense\r\n\r\n").split(b"\r\n")[0], b"HTTP/1.0 400 Bad Request")
        quiet(s)


def hello(name="one.example"):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    c = context().wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        c.do_handshake()
    return outgoing.read()


def cut_off(io):
    """A hello that ends after each of its bytes, and one of which each byte is wrong."""
    whole = hello()
    with running(io) as s:
        before = s.live()["descriptors"]
        for n in range(0, len(whole), 3):
            with socket.create_connection(("127.0.0.1", s.port), 30) as c:
                c.sendall(whole[:n])
        for n in range(0, len(whole), 7):
            bad = whole[:n] + bytes([whole[n] ^ 0xff]) + whole[n + 1:]
            with socket.create_connection(("127.0.0.1", s.port), 30) as c:
                c.sendall(bad)
                c.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionError):
                    while c.recv(65536):
                        pass
        quiet(s)
        s.wait(lambda: s.live()["descriptors"] <= before)
        same(about(s)[0], "tls1.3")


def late(io):
    """Handshakes that do not go on are ended; those that come byte by byte are not."""
    whole = hello()
    with running(io, members={"read_header_timeout": 700000000}) as s:
        time.sleep(1.5)
        for part in (whole[:1], whole[:-1], whole):
            with socket.create_connection(("127.0.0.1", s.port), 30) as c:
                c.sendall(part)
                start = time.monotonic()
                with contextlib.suppress(ConnectionError):
                    while c.recv(65536):
                        pass
                spent = time.monotonic() - start
                assert 0.4 < spent < 15, (len(part), spent)
        quiet(s)
    with running(io) as s:
        with socket.create_connection(("127.0.0.1", s.port), 30) as c:
            c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in whole:
                c.sendall(bytes([byte]))
            same(c.recv(3), b"\x16\x03\x03")  # the server's hello
        records = b"".join(b"\x16\x03\x01" + len(p).to_bytes(2, "big") + p for p in
                           (whole[5:][i:i + 40] for i in range(0, len(whole) - 5, 40)))
        with socket.create_connection(("127.0.0.1", s.port), 30) as c:
            c.sendall(records)
            same(c.recv(3), b"\x16\x03\x03")
        quiet(s)


def renegotiation(io):
    with running(io) as s:
        p = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{s.port}", "-servername", "one.example",
             "-tls1_2", "-CAfile", CA.root], input=b"R\n", capture_output=True, timeout=120, check=False)
        assert b"RENEGOTIATING" in p.stdout + p.stderr
        assert b"no renegotiation" in (p.stdout + p.stderr).lower(), p.stderr[-400:]
        quiet(s)


# --- tunnels and drains ---

def echo_upstream(stop):
    """Says 101 and then what it hears, in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk(c):
        with c:
            got = b""
            while b"\r\n\r\n" not in got:
                got += c.recv(65536)
            c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                      b"Upgrade: websocket\r\n\r\nfirst")
            while piece := c.recv(65536):
                c.sendall(piece)

    def serve():
        while not stop.is_set():
            with contextlib.suppress(OSError):
                threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()
    threading.Thread(target=serve, daemon=True).start()
    return listener


def tunnel(io):
    stop = threading.Event()
    with echo_upstream(stop) as up:
        at = f"127.0.0.1:{up.getsockname()[1]}"
        route = [{"handle": [{"handler": "reverse_proxy", "upstreams": [{"dial": at}]}]}]
        with running(io, own_routes=route) as s:
            with connect(s) as c:
                c.sendall(b"GET /ws HTTP/1.1\r\nHost: one.example\r\nConnection: Upgrade\r\n"
                          b"Upgrade: websocket\r\n\r\n")
                assert b" 101 " in read_head(c)
                c.settimeout(20)
                want = b"first"
                data = os.urandom(300000)
                got = b""  # by this thread alone: Python's TLS connections are no two threads'
                for at in range(0, len(data), 65536):
                    c.sendall(data[at:at + 65536])
                    while len(got) < len(want) + at:
                        got += c.recv(65536)
                while len(got) < len(want + data):
                    got += c.recv(65536)
                same(got == want + data, True)
                c.unwrap()
            quiet(s)
        stop.set()


def drain(io):
    """A stop with connections in every stage is quick, and idle ones are told."""
    with running(io, members={"read_header_timeout": 30000000000}) as s:
        half = [socket.create_connection(("127.0.0.1", s.port), 30) for _ in range(3)]
        half[1].sendall(hello()[:50])
        half[2].sendall(hello())
        with connect(s) as idle:
            same(ask(idle), (200, b"secure"))
            start = time.monotonic()
            s.process.terminate()
            same(idle.recv(10), b"")
        s.process.wait(60)
        assert time.monotonic() - start < 20
        for c in half:
            c.close()


def many(io):
    """Whole and half handshakes in numbers leave nothing behind."""
    with running(io) as s:
        def some():
            for i in range(25):
                c = context((V2, V3)[i % 2])
                with connect(s, with_context=c) as good:
                    ask(good)
                with socket.create_connection(("127.0.0.1", s.port), 30) as bad:
                    bad.sendall(hello()[:200])
        threads = [threading.Thread(target=some) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        quiet(s)


def long_keys(io):
    """Keys of RSA whose work the pool does: many at once, and clients that leave meanwhile."""
    pem, key = CA.path("rsa.pem"), CA.path("rsa.key")
    if not os.path.exists(pem):
        openssl("req", "-x509", "-newkey", "rsa:3072", "-nodes", "-days", "10", "-subj", "/CN=rsa",
                "-addext", "subjectAltName=DNS:rsa.example", "-keyout", f"{key}.{io}", "-out", pem)
        os.rename(f"{key}.{io}", key)
    with running(io, certificates=[(pem, key)], workers=1) as s:
        def some():
            for version in (V2, V3, V2, V3):
                with connect(s, "rsa.example", context(version, root=pem)) as c:
                    same(ask(c), (200, b"secure"))
                with socket.create_connection(("127.0.0.1", s.port), 30) as gone:
                    gone.sendall(hello("rsa.example"))
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            for done in [pool.submit(some) for _ in range(6)]:
                done.result()
        quiet(s)


def protocols_of_addresses(io):
    """h2c is each address's own; what handshakes agree on is the server's, as in Caddy."""
    one, other = free_port(), free_port()
    with running(io, members={"protocols": ["h1", "h2"], "listen_protocols": [["h1"], ["h1", "h2c"]],
                              "listen": [f"127.0.0.1:{one}", f"127.0.0.1:{other}"]},
                 policies=[]) as s:
        for port, expected in ((one, b"HTTP/1.1 "), (other, bytes(2))):
            with socket.create_connection(("127.0.0.1", port), 60) as c:
                c.sendall(PREFACE)
                got = c.recv(9)
                same(got[:len(expected)], expected)
    with running(io, members={"listen_protocols": [["h1"], ["h1", "h2"]],
                              "listen": [f"127.0.0.1:{one}", f"127.0.0.1:{other}"]}) as s:
        for port in (one, other):
            with socket.create_connection(("127.0.0.1", port), 60) as raw, context(
                    alpn=["h2", "http/1.1"]).wrap_socket(raw, server_hostname="one.example") as c:
                same(c.selected_alpn_protocol(), "h2")


run_cases([
    ("TLS 1.2 and 1.3 are spoken, older ones are not", versions),
    ("bodies of megabytes go both ways", bodies),
    ("a file that is often wanted is right, over both protocols, and when it has changed", often_wanted),
    ("requests may be pipelined, and cut anywhere", pipelined),
    ("a slow reader gets all of it", slow_reader),
    ("ends are said", ends),
    ("the name chooses certificate and policy", names),
    ("protocols are agreed on", alpn),
    ("sessions are resumed on each worker and across reloads", resumption),
    ("a reload brings new certificates and keeps connections", reload),
    ("long RSA keys are used by the pool, in numbers", long_keys),
    ("an address has protocols of its own", protocols_of_addresses),
    ("an encrypted ClientHello is refused, not faked", hidden_names, ("epoll",)),
    ("clients are let in by their certificates, in each mode", client_certificates),
    ("clear text and garbage are answered as such", clear_text),
    ("hellos that are cut off or wrong leave nothing behind", cut_off),
    ("handshakes end in time, however slowly they come", late),
    ("renegotiation is refused", renegotiation),
    ("tunnels go through TLS", tunnel),
    ("a stop ends handshakes and idle connections", drain),
    ("hundreds of handshakes leave nothing behind", many),
])
