#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Real servers of HTTP/2 behind the gateway (nghttpd, Debian's caddy and nginx, in clear text and over TLS), real clients in
front (curl, nghttp, h2load), on both I/O back ends, as TAP: bodies, trailers, many requests on few connections, and
servers that are restarted or say GOAWAY again and again, at which no idempotent request fails.
Usage: h2_peers_test.py PORTICO [TEXT]."""
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
import h2_client as h2  # noqa: E402 (beside this file)
import peers  # noqa: E402
from certificates import Authority  # noqa: E402
from origin import Talk, digest, piece  # noqa: E402
from server import BACK_ENDS, Skip, free_port, has, run_cases, same  # noqa: E402

PORTICO = os.path.abspath(sys.argv[1])
SIZE = 1 << 20
AUTHORITY = Authority("Peers Root")
AUTHORITY.both = AUTHORITY.leaf("peer", "IP:127.0.0.1", "DNS:localhost")
PEM, KEY = AUTHORITY.both


def program(name):
    path = peers.found(name)
    if not path:
        raise Skip(f"{name} is not installed")
    return path


class Upstream(peers.Process):
    """A server of HTTP/2 on a port of its own, with files: hello, and big of 1 MiB. Started again it is the same."""

    def __init__(self, name, *arguments, tls=False):
        self.port, self.tls, self.arguments, self.admin = free_port(), tls, arguments, free_port()
        super().__init__(name, [], AUTHORITY, [program(name)])
        with open(f"{self.folder.name}/hello", "w", encoding="ascii") as f:
            f.write("hello\n")
        with open(f"{self.folder.name}/big", "wb") as f:
            f.write(piece(0, SIZE))
        where = self.folder.name
        self.argv += {"nghttpd": ["-a", "127.0.0.1", "-d", where, *arguments, str(self.port),
                                  *([KEY, PEM] if tls else ["--no-tls"])],
                      "caddy": ["run", "--config", self.file, "--adapter", "caddyfile"],
                      "nginx": ["-c", self.file, "-e", f"{where}/error.log"]}[name]
        self.begin()

    def begin(self):
        self.start()
        self.await_port(self.port)

    def text(self):
        where = self.folder.name
        if self.name == "caddy":
            scheme = "https" if self.tls else "http"
            return (f"{{\n\tadmin localhost:{self.admin}\n\tauto_https off\n\tskip_install_trust\n"
                    f"\tservers 127.0.0.1:{self.port} {{\n\t\tprotocols h1 h2 h2c\n\t}}\n}}\n"
                    f"{scheme}://:{self.port} {{\n\tbind 127.0.0.1\n" + (f"\ttls {PEM} {KEY}\n" if self.tls else "") +
                    f"\theader X-Proto {{http.request.proto}}\n\troot * {where}\n\tfile_server\n}}\n")
        user = "user root;\n" if os.geteuid() == 0 else ""
        return (f"{user}daemon off;\nworker_processes 1;\npid {where}/pid;\nerror_log {where}/error.log;\n"
                f"events {{ worker_connections 1024; }}\nhttp {{\naccess_log off;\n"
                + "".join(f"{n}_temp_path {where}/{n};\n" for n in ("proxy", "fastcgi", "uwsgi", "scgi"))
                + f"client_body_temp_path {where}/body;\nkeepalive_requests {self.arguments[0] if self.arguments else 1000};\n"
                f"server {{ listen 127.0.0.1:{self.port} http2; root {where}; add_header X-Proto $server_protocol; }}\n}}\n")

    def connections(self):
        """To it, which are open at this moment."""
        with open("/proc/net/tcp", encoding="ascii") as f:
            rows = [line.split() for line in f.readlines()[1:]]
        return sum(r[1].endswith(f":{self.port:04X}") and r[3] == "01" for r in rows)

    def await_left(self):
        """Until whoever was connected to it has heard that it ended, and closed his side."""
        end = time.monotonic() + 20
        while True:
            with open("/proc/net/tcp", encoding="ascii") as f:
                rows = [line.split() for line in f.readlines()[1:]]
            left = [r for r in rows if r[2].endswith(f":{self.port:04X}") and r[3] in ("01", "08")]
            if not left:
                return
            assert time.monotonic() < end, left
            time.sleep(0.01)


class Front(peers.Process):
    """portico before one upstream, in clear text and with TLS."""

    def __init__(self, io, upstream, options="", workers=2):
        self.plain, self.tls, self.admin = free_port(), free_port(), free_port()
        self.upstream, self.options = upstream, options
        super().__init__("portico", [], AUTHORITY, [PORTICO, "run", "--adapter", "caddyfile", "--config", ""],
                         {"PORTICO_IO": io, "PORTICO_WORKERS": str(workers)})
        self.argv[-1] = self.file

    def text(self):
        to = f"https://127.0.0.1:{self.upstream.port}" if self.upstream.tls else f"h2c://127.0.0.1:{self.upstream.port}"
        trust = "\t\ttransport http {\n\t\t\ttls_trust_pool file " + AUTHORITY.root + "\n\t\t}\n" if self.upstream.tls else ""
        proxy = f"\treverse_proxy {to} {{\n{self.options}{trust}\t}}\n"
        return (f"{{\n\tadmin localhost:{self.admin}\n\tauto_https off\n\tskip_install_trust\n"
                f"\tservers 127.0.0.1:{self.plain} {{\n\t\tprotocols h1 h2c\n\t}}\n}}\n"
                f"http://:{self.plain} {{\n\tbind 127.0.0.1\n{proxy}}}\n"
                f"https://:{self.tls} {{\n\tbind 127.0.0.1\n\ttls {PEM} {KEY}\n{proxy}}}\n")

    def memory(self):
        """KiB of the server process."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children", encoding="ascii") as f:
            server = f.read().split()[0]
        with open(f"/proc/{server}/status", encoding="ascii") as f:
            return int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1))

    def __enter__(self):
        self.start()
        for port in (self.plain, self.tls, self.admin):
            self.await_port(port)
        return self

    def __exit__(self, kind, *_):
        status, text = self.end()
        if kind is None:
            assert status == 0 and "Sanitizer" not in text and "runtime error" not in text and \
                "assertion" not in text.lower(), (status, text)


def curl(*arguments):
    done = subprocess.run([program("curl"), "-sS", "-m", "40", "--cacert", AUTHORITY.root, *arguments], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fetched_by_curl(front):
    """By HTTP/1.1, h2c and h2."""
    for version, url in (("--http1.1", f"http://127.0.0.1:{front.plain}"), ("--http1.1", f"https://localhost:{front.tls}"),
                         ("--http2-prior-knowledge", f"http://127.0.0.1:{front.plain}"), ("--http2", f"https://localhost:{front.tls}")):
        same(curl(version, url + "/hello"), b"hello\n")
        same(digest(curl(version, url + "/big")), digest(piece(0, SIZE)))
        has(curl(version, "-I", url + "/big"), str(SIZE).encode())
        same(curl(version, "-o", "/dev/null", "-w", "%{http_code}", url + "/nothing"), b"404")


def fetched_by_nghttp(front):
    done = subprocess.run([program("nghttp"), "-v", "-n", f"http://127.0.0.1:{front.plain}/hello", f"http://127.0.0.1:{front.plain}/big"],
                          capture_output=True, text=True, timeout=60, check=False)
    same((done.returncode, len(re.findall(r":status: 200", done.stdout))), (0, 2))


def simple(name, **more):
    """Requests of each client to one server."""
    def case(io):
        up = Upstream(name, *more.get("arguments", ()), tls=more.get("tls", False))
        try:
            with Front(io, up) as front:
                fetched_by_curl(front)
                fetched_by_nghttp(front)
                if name != "nghttpd":
                    same(dict(h2_fields(front)).get("x-proto"), "HTTP/2.0")
        finally:
            up.end()
    return case


def h2_fields(front):
    with h2.Client(front.plain) as c:
        a = c.answer(c.ask(h2.request("GET", "/hello")))
        same((a.status, a.body), (200, b"hello\n"))
        return a.fields


def uploads(io):
    """Echoes of bodies, also through windows of a kilobyte."""
    for arguments in ((), ("-w", "10", "-W", "10")):
        up = Upstream("nghttpd", "--echo-upload", *arguments)
        try:
            with Front(io, up) as front:
                body = f"{front.folder.name}/body"
                with open(body, "wb") as f:
                    f.write(piece(5, SIZE))
                for version, url in (("--http1.1", f"http://127.0.0.1:{front.plain}"), ("--http2", f"https://localhost:{front.tls}")):
                    same(digest(curl(version, "-T", body, url + "/x")), digest(piece(5, SIZE)))
                    same(digest(curl(version, "-H", "Transfer-Encoding: chunked" if version == "--http1.1" else "X: y",
                                     "-T", body, url + "/x")), digest(piece(5, SIZE)))
        finally:
            up.end()


def trailers(io):
    up = Upstream("nghttpd", "--trailer", "x-sum: 17", "--trailer", "x-more: two words")
    try:
        with Front(io, up) as front:
            with h2.Client(front.plain) as c:
                a = c.answer(c.ask(h2.request("GET", "/hello")))
                same((a.status, a.body, sorted(a.trailers)), (200, b"hello\n", [("x-more", "two words"), ("x-sum", "17")]))
            t = Talk(front.plain)
            for _ in range(3):
                t.ask(b"/hello", b"TE: trailers", b"Connection: TE")
                a = t.answer()
                same((a.status, a.body), (200, b"hello\n"))
            t.close()
    finally:
        up.end()


class Load:
    """h2load, whose requests must all be answered well; meanwhile the connections to a server are counted."""

    def __init__(self, front, upstream, *arguments, path="/hello"):
        self.upstream, self.most = upstream, 0
        self.process = subprocess.Popen([program("h2load"), *arguments, f"http://127.0.0.1:{front.plain}{path}"],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.watch = threading.Thread(target=self.count, daemon=True)
        self.watch.start()

    def count(self):
        while self.process.poll() is None:
            self.most = max(self.most, self.upstream.connections())
            time.sleep(0.01)

    def runs(self):
        return self.process.poll() is None

    def well(self, number=None):
        try:
            text = self.process.communicate(timeout=60)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            text = self.process.communicate()[0]
        self.watch.join()
        m = re.search(r"requests: (\d+) total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored", text)
        codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
        assert m and codes, text
        total = int(m.group(1))
        same((int(m.group(2)), m.group(3), m.group(4), codes.groups()[1:]), (total, "0", "0", ("0", "0", "0")))
        if number:
            same(total, number)
        return total


def few(io):
    """Two hundred requests at a time, of HTTP/2 and of HTTP/1.1, on few connections."""
    up = Upstream("nghttpd", "-m", "100")
    try:
        with Front(io, up) as front:
            for arguments in (("-n", "3000", "-c", "10", "-m", "40"), ("-n", "3000", "-c", "100", "--h1")):
                load = Load(front, up, *arguments)
                load.well(3000)
                # Four at a time, and more where the server does not read for a while.
                assert load.most <= 20, f"{load.most} connections to the server"
    finally:
        up.end()


def stalled(io):
    """Twenty-four clients that do not read take little memory, and nobody else waits for them."""
    up = Upstream("nghttpd")
    with open(f"{up.folder.name}/huge", "wb") as f:
        f.truncate(64 << 20)
    clients = []
    try:
        with Front(io, up, workers=1) as front:
            before = front.memory()
            for _ in range(24):
                c = socket.socket()
                c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                c.connect(("127.0.0.1", front.plain))
                c.sendall(b"GET /huge HTTP/1.1\r\nHost: h\r\n\r\n")
                clients.append(c)
            last, now = -1, 0
            while now != last:  # until nothing moves any more
                time.sleep(0.2)
                last, now = now, front.memory()
            same(curl(f"http://127.0.0.1:{front.plain}/hello"), b"hello\n")
            same(digest(curl("--http2-prior-knowledge", f"http://127.0.0.1:{front.plain}/big")), digest(piece(0, SIZE)))
            assert now - before < 64 << 10, f"{now - before} KiB"
            for c in clients:
                c.close()
    finally:
        up.end()


def narrow(io):
    """A server that allows two streams on a connection."""
    up = Upstream("nghttpd", "-m", "2")
    try:
        with Front(io, up) as front:
            load = Load(front, up, "-n", "600", "-c", "5", "-m", "6")
            load.well(600)
    finally:
        up.end()


def goaways(io):
    """nginx says GOAWAY after each forty requests of a connection."""
    up = Upstream("nginx", "40")
    try:
        with Front(io, up) as front:
            load = Load(front, up, "-n", "3000", "-c", "6", "-m", "8")
            load.well(3000)
    finally:
        up.end()


def reloaded(name):
    """A server that gives itself a new configuration, and its connections GOAWAY, while requests come in."""
    def case(io):
        up = Upstream(name)
        try:
            with Front(io, up) as front:
                load, number = Load(front, up, "-D", "1", "-c", "6", "-m", "8"), 0
                while load.runs():
                    time.sleep(0.2)
                    number += 1
                    if name == "nginx":
                        up.tell(signal.SIGHUP)
                    else:
                        body = up.text().replace("X-Proto", f"X-Number-{number}").encode()
                        curl("-H", "Content-Type: text/caddyfile", "--data-binary", body.decode(), f"http://localhost:{up.admin}/load")
                assert load.well() > 100
        finally:
            up.end()
    return case


def restarted(io):
    """A server that ends in the middle of everything and is started again; GET is tried again for a while."""
    up = Upstream("nghttpd")
    try:
        with Front(io, up, "\t\tlb_try_duration 10s\n\t\tlb_try_interval 20ms\n") as front:
            load = Load(front, up, "-D", "1", "-c", "6", "-m", "8")
            for _ in range(3):
                time.sleep(0.25)
                up.process.kill()
                up.process.wait()
                up.begin()
            assert load.well() > 100
    finally:
        up.end()


def idle_end(io):
    """A server that ends while nothing is asked is asked anew when it is there again."""
    up = Upstream("nghttpd")
    try:
        with Front(io, up, workers=1) as front:
            for how in (signal.SIGKILL, signal.SIGTERM):
                for _ in range(3):
                    same(curl(f"http://127.0.0.1:{front.plain}/hello"), b"hello\n")
                assert up.connections() > 0
                up.process.send_signal(how)
                up.process.wait(60)
                up.await_left()  # a POST on a connection of which nobody knows yet that it ended is not repeated
                up.begin()
                got = curl("-d", "x", "-i", f"http://127.0.0.1:{front.plain}/hello")
                assert got.endswith(b"\r\n\r\nhello\n"), (how, got, front.said())
    finally:
        up.end()


def not_h2(io):
    """A server that speaks HTTP/1 alone is a 502, with h2c; over TLS what it offers is spoken."""
    up = Upstream("nghttpd")
    up.end()
    listener = socket.create_server(("127.0.0.1", up.port))

    def serve():
        while True:
            try:
                c = listener.accept()[0]
            except OSError:
                return
            c.recv(4096)
            c.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            c.close()
    threading.Thread(target=serve, daemon=True).start()
    with Front(io, up) as front:
        same(curl("-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{front.plain}/"), b"502")
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


CASES = [
    ("nghttpd in clear text: files to curl and nghttp", simple("nghttpd")),
    ("nghttpd over TLS", simple("nghttpd", tls=True)),
    ("caddy in clear text", simple("caddy")),
    ("caddy over TLS", simple("caddy", tls=True)),
    ("nginx in clear text", simple("nginx")),
    ("bodies come back, through narrow windows as well", uploads),
    ("trailers come down", trailers),
    ("two hundred requests at a time take few connections", few),
    ("clients that do not read", stalled),
    ("two streams a connection are respected", narrow),
    ("GOAWAY after each forty requests", goaways),
    ("nginx reloads during requests", reloaded("nginx")),
    ("caddy reloads during requests", reloaded("caddy")),
    ("a server is killed and started again during requests", restarted),
    ("a server is started again while nothing is asked", idle_end),
    ("a server that speaks HTTP/1 alone", not_h2),
]

run_cases(CASES, BACK_ENDS)
