#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The gateway between a client and upstreams that the tests play themselves, as TAP: exact bytes on
both sides, pools, retries, timeouts, upstreams that die, lie, hang or send garbage, streams, tunnels,
reloads. Usage: gateway_test.py PORTICO."""
import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

PORTICO = sys.argv[1]
WANTED = sys.argv[2] if len(sys.argv) > 2 else ""
count = failed = 0


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def same(got, want):
    assert got == want, f"got {got!r}, want {want!r}"


class Peer:
    """One connection, as bytes."""

    def __init__(self, sock):
        self.sock, self.seen = sock, b""
        sock.settimeout(10)

    def send(self, data):
        self.sock.sendall(data)

    def until(self, mark):
        """Up to and with the mark; what comes behind it is kept."""
        while mark not in self.seen:
            piece = self.sock.recv(65536)
            if not piece:
                raise AssertionError(f"ended; had {self.seen!r}")
            self.seen += piece
        at = self.seen.index(mark) + len(mark)
        out, self.seen = self.seen[:at], self.seen[at:]
        return out

    def head(self):
        return self.until(b"\r\n\r\n")

    def take(self, n):
        while len(self.seen) < n:
            piece = self.sock.recv(65536)
            if not piece:
                raise AssertionError(f"ended; had {len(self.seen)} of {n}")
            self.seen += piece
        out, self.seen = self.seen[:n], self.seen[n:]
        return out

    def rest(self):
        """All until the end."""
        with contextlib.suppress(ConnectionResetError):
            while piece := self.sock.recv(65536):
                self.seen += piece
        out, self.seen = self.seen, b""
        return out

    def ended(self):
        """True when the other side has closed and sent nothing more."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def close(self):
        self.sock.close()


class Upstream:
    """Listens; each connection is taken by hand, or served by `play(peer)` on a thread."""
    made = []

    def __init__(self, play=None, family=socket.AF_INET, address=("127.0.0.1", 0)):
        self.sock = socket.socket(family)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind(address)
        self.sock.listen(64)
        self.sock.settimeout(10)
        self.port = self.sock.getsockname()[1] if family != socket.AF_UNIX else 0
        self.peers, self.play = [], play
        Upstream.made.append(self)
        if play:
            threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        self.sock.settimeout(None)
        while True:
            try:
                peer = Peer(self.sock.accept()[0])
            except OSError:
                return
            self.peers.append(peer)
            threading.Thread(target=self.run, args=(peer,), daemon=True).start()

    def run(self, peer):
        with contextlib.suppress(OSError, AssertionError):
            self.play(peer)
        with contextlib.suppress(OSError):
            peer.close()

    def accept(self):
        peer = Peer(self.sock.accept()[0])
        self.peers.append(peer)
        return peer

    def idle(self, seconds=0.3):
        """True when nobody connects."""
        return not select.select([self.sock], [], [], seconds)[0]

    def close(self):
        for s in [self.sock] + [p.sock for p in self.peers]:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()


class Server:
    """A portico with one server on one port, whose routes a test sets."""

    def __init__(self, io, workers):
        self.port, self.admin, self.workers = free_port(), free_port(), workers
        self.folder = tempfile.TemporaryDirectory(prefix="portico-gateway-")
        self.log = open(f"{self.folder.name}/log", "w+b")
        file = f"{self.folder.name}/config.json"
        with open(file, "w", encoding="utf-8") as f:
            json.dump(self.document([]), f)
        env = dict(os.environ, PORTICO_IO=io, PORTICO_WORKERS=str(workers))
        self.process = subprocess.Popen([PORTICO, "run", "--config", file], env=env,
                                        stdout=self.log, stderr=subprocess.STDOUT)
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError("does not start: " + self.text())
            time.sleep(0.02)

    def document(self, routes, **server):
        return {"admin": {"listen": f"localhost:{self.admin}"},
                "logging": {"logs": {"default": {"level": "DEBUG"}}},
                "apps": {"http": {"servers": {"s": {"listen": [f"127.0.0.1:{self.port}"],
                                                    "routes": routes, **server}}}}}

    def load(self, document):
        c = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=20)
        c.request("POST", "/load", json.dumps(document),
                  {"Host": f"localhost:{self.admin}", "Content-Type": "application/json"})
        answer = c.getresponse()
        text = answer.read().decode()
        c.close()
        return answer.status, text

    def use(self, *upstreams, before=(), after=(), server=None, **gateway):
        dials = [{"dial": u if isinstance(u, str) else f"127.0.0.1:{u.port}"} for u in upstreams]
        handler = {"handler": "reverse_proxy", "upstreams": dials, **gateway}
        status, text = self.load(self.document([{"handle": [*before, handler, *after]}],
                                               **(server or {})))
        assert status == 200, text

    def refuses(self, **gateway):
        routes = [{"handle": [{"handler": "reverse_proxy", "upstreams": [{"dial": "localhost:1"}],
                               **gateway}]}]
        status, text = self.load(self.document(routes))
        same(status, 400)
        return text

    def client(self):
        return Peer(socket.create_connection(("127.0.0.1", self.port), 10))

    def get(self, path="/", method="GET", body=None, **fields):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            c.request(method, path, body, {k.replace("_", "-"): v for k, v in fields.items()})
            answer = c.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            c.close()

    def text(self):
        self.log.flush()
        with open(f"{self.folder.name}/log", encoding="utf-8", errors="replace") as f:
            return f.read()

    def logged(self, text, seconds=5):
        end = time.monotonic() + seconds
        while text not in self.text():
            assert time.monotonic() < end, f"{text!r} is not in the log:\n" + self.text()[-3000:]
            time.sleep(0.02)

    def server_pids(self):
        kids = open(f"/proc/{self.process.pid}/task/{self.process.pid}/children",
                    encoding="ascii").read().split()
        return [int(k) for k in kids]

    def memory(self):
        """Kilobytes of anonymous memory of the server process."""
        with open(f"/proc/{self.server_pids()[0]}/status", encoding="ascii") as f:
            return int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1))

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("did not end: " + self.text()[-3000:])
        text = self.text()
        self.log.close()
        self.folder.cleanup()
        assert "Sanitizer" not in text and "runtime error" not in text, text[-6000:]
        assert "assertion" not in text.lower(), text[-3000:]
        same(status, 0)


def answer(body, extra=b""):
    return b"HTTP/1.1 200 OK\r\n" + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


def undated(head):
    return re.sub(rb"Date: [^\r]*\r\n", b"", head)


def echo(peer):
    """Answers every request with what it asked for, and its body."""
    while True:
        head = peer.head()
        m = re.search(rb"Content-Length: (\d+)", head)
        body = peer.take(int(m.group(1))) if m else b""
        peer.send(answer(head.split(b" ")[1] + b" " + body))


# ---- exact bytes -----------------------------------------------------------

def exact(s):
    up = Upstream()
    s.use(up)
    c = s.client()
    c.send(b"GET /a%20b?x=1 HTTP/1.1\r\nHost: site.example\r\nConnection: keep-alive, X-Secret\r\n"
           b"X-Secret: 1\r\nKeep-Alive: 5\r\nTE: trailers, deflate\r\nProxy-Authorization: x\r\n"
           b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\nAccept: */*\r\n\r\n")
    u = up.accept()
    same(u.head(), b"GET /a%20b?x=1 HTTP/1.1\r\nHost: site.example\r\nX-Forwarded-For: 127.0.0.1\r\n"
         b"X-Forwarded-Proto: http\r\nAccept: */*\r\nTE: trailers\r\n"
         b"X-Forwarded-Host: site.example\r\nVia: 1.1 portico\r\n\r\n")
    u.send(b"HTTP/1.1 200 Fine\r\nServer: other\r\nConnection: X-Hop\r\nX-Hop: 1\r\n"
           b"Keep-Alive: 1\r\nX-A: 1\r\nX-A: 2\r\nDate: then\r\nContent-Length: 5\r\n\r\nhello")
    same(c.head() + c.take(5), b"HTTP/1.1 200 OK\r\nVia: 1.1 portico\r\nServer: other\r\nX-A: 1\r\n"
         b"X-A: 2\r\nDate: then\r\nContent-Length: 5\r\n\r\nhello")
    c.send(b"POST /p HTTP/1.1\r\nHost: h\r\nUser-Agent: t\r\nContent-Length: 3\r\n\r\nabc")
    same(u.until(b"abc"), b"POST /p HTTP/1.1\r\nHost: h\r\nUser-Agent: t\r\n"
         b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n"
         b"Via: 1.1 portico\r\nContent-Length: 3\r\n\r\nabc")
    u.send(b"HTTP/1.1 204 No Content\r\n\r\n")
    same(undated(c.head()), b"HTTP/1.1 204 No Content\r\nVia: 1.1 portico\r\n\r\n")
    c.send(b"POST /e HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
    assert u.head().endswith(b"Content-Length: 0\r\n\r\n")
    u.send(b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 9\r\n\r\n")
    same(undated(c.head()),
         b"HTTP/1.1 304 Not Modified\r\nVia: 1.1 portico\r\nETag: \"x\"\r\n\r\n")
    c.send(b"HEAD /h HTTP/1.1\r\nHost: h\r\n\r\n")
    assert u.head().startswith(b"HEAD /h HTTP/1.1\r\n")
    u.send(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n")
    same(undated(c.head()), b"HTTP/1.1 200 OK\r\nVia: 1.1 portico\r\nContent-Length: 12345\r\n\r\n")
    c.send(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")
    assert u.head().startswith(b"OPTIONS * HTTP/1.1\r\n")
    u.send(answer(b""))
    c.head()
    assert up.idle(0.1), "another connection"
    c.close()


CASES = [
    ("requests and answers, byte by byte, on one kept connection", exact),
]


def main():
    global count, failed
    for io in ("epoll", "uring"):
        server = Server(io, 2)
        for name, case in CASES:
            if WANTED not in name:
                continue
            count += 1
            made = list(Upstream.made)
            try:
                case(server)
                print(f"ok {count} - {name} ({io})", flush=True)
            except Exception as e:  # every failure is a line, the others still run
                failed += 1
                print(f"not ok {count} - {name} ({io})\n# {type(e).__name__}: "
                      + str(e).replace("\n", "\n# "), flush=True)
                if server.process.poll() is not None:
                    print("# " + server.text()[-4000:].replace("\n", "\n# "), flush=True)
                    server = Server(io, 2)
            for up in Upstream.made:
                if up not in made:
                    up.close()
        count += 1
        try:
            server.end()
            print(f"ok {count} - it ends cleanly ({io})", flush=True)
        except Exception as e:
            failed += 1
            print(f"not ok {count} - it ends cleanly ({io})\n# "
                  + str(e).replace("\n", "\n# "), flush=True)
    print(f"1..{count}")
    sys.exit(1 if failed else 0)


main()
