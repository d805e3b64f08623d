# SPDX-License-Identifier: Apache-2.0
"""The server at the end of a chain, and a client at its front, both of HTTP/1.1 made by hand: what each
path answers is fixed, what came is written down by the `t` of its query, and both are strict."""
import collections
import contextlib
import hashlib
import re
import socket
import threading
import urllib.parse

PATTERN = bytes(range(256)) * 256
BIG = 4 << 20


def piece(at, n):
    """n bytes of an endless text, from `at` on."""
    start = at % 65536
    return (PATTERN[start:] + PATTERN * (n // 65536 + 1))[:n]


def digest(data):
    return hashlib.sha256(data).hexdigest().encode()


class Wire:
    """One connection, read strictly."""

    def __init__(self, sock, timeout=40):
        self.sock = sock
        sock.settimeout(timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = sock.makefile("rb")

    def send(self, *parts):
        self.sock.sendall(b"".join(parts))

    def line(self):
        line = self.file.readline(70000)
        if not line:
            raise EOFError("the connection ended")
        if not line.endswith(b"\r\n"):
            raise ValueError(f"a line without its end: {line!r}")
        return line[:-2]

    def fields(self):
        found = []
        while line := self.line():
            name, colon, value = line.partition(b":")
            if not colon or not re.fullmatch(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
                raise ValueError(f"no field: {line!r}")
            found.append((name.lower(), value.strip()))
        return found

    def exactly(self, n):
        data = self.file.read(n)
        if len(data) < n:
            raise EOFError(f"{len(data)} of {n} bytes")
        return data

    def pieces(self, fields, until_end=False, none=False):
        """Pieces of a body as they come, last its trailers."""
        lengths = [v for n, v in fields if n == b"content-length"]
        codings = [v for n, v in fields if n == b"transfer-encoding"]
        if len(lengths) + len(codings) > 1 or codings not in ([], [b"chunked"]):
            raise ValueError(f"framing: {lengths} {codings}")
        if none:
            pass
        elif codings:
            while size := int(self.line().split(b";")[0], 16):
                yield self.exactly(size)
                if self.exactly(2) != b"\r\n":
                    raise ValueError("a chunk without its end")
            yield self.fields()
            return
        elif lengths:
            left = int(lengths[0])
            while left:
                data = self.file.read1(min(left, 65536))
                if not data:
                    raise EOFError(f"{left} bytes are missing")
                left -= len(data)
                yield data
        elif until_end:
            while data := self.file.read1(65536):
                yield data
        yield []

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.file.close()
        self.sock.close()


class Answer:
    def __init__(self):
        self.status, self.fields, self.body, self.trailers, self.informs = 0, [], b"", [], []

    def field(self, name):
        found = [v for n, v in self.fields if n == name]
        return b", ".join(found) if found else None


class Talk(Wire):
    """A client on one connection."""

    def __init__(self, port, timeout=40):
        super().__init__(socket.create_connection(("127.0.0.1", port), timeout), timeout)

    def ask(self, path, *fields, method=b"GET", body=b"", version=b"1.1"):
        """`fields`: whole lines."""
        more = b"".join(f + b"\r\n" for f in fields)
        if body:
            more += b"Content-Length: %d\r\n" % len(body)
        self.send(b"%s %s HTTP/%s\r\nHost: origin.example\r\n%s\r\n" % (method, path, version, more), body)

    def chunk(self, data):
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def last(self, *trailers):
        self.send(b"0\r\n", *[t + b"\r\n" for t in trailers], b"\r\n")

    def head(self):
        a = Answer()
        while True:
            start = self.line()
            # Beyond 599 as well: an upstream's own numbers come through (RFC 9110 §15, and so does Caddy).
            if not re.match(rb"HTTP/1\.[01] [1-9]\d\d( |$)", start):
                raise ValueError(f"no status line: {start!r}")
            a.status, a.fields = int(start[9:12]), self.fields()
            if a.status >= 200 or a.status == 101:
                return a
            a.informs.append((a.status, a.fields))

    def answer(self, to_head=False):
        a = self.head()
        self.body_of(a, to_head)
        return a

    def body_of(self, a, to_head=False):
        parts = list(self.pieces(a.fields, until_end=True, none=to_head or a.status in (101, 204, 304)))
        a.body, a.trailers = b"".join(parts[:-1]), parts[-1]


class Seen:
    """What came of one request."""

    def __init__(self, method, fields):
        self.method, self.fields, self.body, self.trailers = method, fields, b"", []

    def all(self, name):
        return [v for n, v in self.fields if n == name]


class Origin:
    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.seen = collections.defaultdict(list)
        self.events = collections.defaultdict(threading.Event)
        self.connections = collections.Counter()  # of the first field of X-Chain
        self.wrong = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            sock = self.listener.accept()[0]
            threading.Thread(target=self.serve, args=(Wire(sock, 60),), daemon=True).start()

    def event(self, *key):
        with self.lock:
            return self.events[key]

    def serve(self, w):
        first = True
        try:
            while self.one(w, first):
                first = False
        except (OSError, EOFError):
            pass
        except ValueError as e:
            self.wrong.append(str(e))
        w.close()

    def one(self, w, first):
        with contextlib.suppress(EOFError):
            start = w.line()
            method, target, version = start.split(b" ")
            if version not in (b"HTTP/1.1", b"HTTP/1.0"):
                raise ValueError(f"{start!r}")
            fields = w.fields()
            path, _, query = target.decode().partition("?")
            token = urllib.parse.parse_qs(query).get("t", [""])[0]
            seen = Seen(method, fields)
            with self.lock:
                self.seen[token].append(seen)
                for chain in seen.all(b"x-chain"):
                    self.connections[chain] += first
            play = getattr(self, "on_" + path.split("/")[1].replace("-", "_"), None)
            if play is None:
                w.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                return True
            return play(w, seen, token, path) is not False
        return False

    @staticmethod
    def take(w, seen):
        if (b"expect", b"100-continue") in seen.fields:
            w.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        parts = list(w.pieces(seen.fields))
        seen.body, seen.trailers = b"".join(parts[:-1]), parts[-1]

    def on_hello(self, w, seen, token, path):
        self.take(w, seen)
        text = b"hello " + token.encode()
        w.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Twice: a\r\nX-Twice: b\r\n\r\n" % len(text),
               b"" if seen.method == b"HEAD" else text)

    def on_sum(self, w, seen, token, path):
        """The body's sum, by length."""
        self.take(w, seen)
        text = b"%d %s" % (len(seen.body), digest(seen.body))
        w.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))

    def on_echo(self, w, seen, token, path):
        """In chunks, each as soon as it comes."""
        w.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in w.pieces(seen.fields):
            if isinstance(part, list):
                seen.trailers = part
            elif part:
                w.send(b"%x\r\n%s\r\n" % (len(part), part))
        w.send(b"0\r\n\r\n")

    def on_trailers(self, w, seen, token, path):
        self.take(w, seen)
        w.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-More\r\n\r\n"
               b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-More: two words\r\n\r\n")

    def on_big(self, w, seen, token, path):
        w.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG)
        for at in range(0, BIG, 65536):
            w.send(piece(at, min(65536, BIG - at)))

    def on_bigchunks(self, w, seen, token, path):
        w.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        at = n = 0
        while at < BIG:
            n = min(n * 3 % 40009 + 1, BIG - at)
            w.send(b"%x\r\n%s\r\n" % (n, piece(at, n)))
            at += n
        w.send(b"0\r\n\r\n")

    def on_wait(self, w, seen, token, path):
        """The second half comes when the test has had the first."""
        chunked = path.endswith("chunks")
        w.send(b"HTTP/1.1 200 OK\r\n" + (b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 10"),
               b"\r\n\r\n", b"5\r\nfirst\r\n" if chunked else b"first")
        if not self.event(token, "go").wait(20):
            return False
        w.send(b"6\r\nsecond\r\n0\r\n\r\n" if chunked else b"later")
        return True

    def on_waitup(self, w, seen, token, path):
        """Tells the test when the first of a body has come."""
        for part in w.pieces(seen.fields):
            if isinstance(part, bytes):
                seen.body += part
                self.event(token, "came").set()
        w.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(seen.body), seen.body))

    def on_status(self, w, seen, token, path):
        self.take(w, seen)
        status = int(path.split("/")[2])
        more = b"ETag: \"x\"\r\n" if status == 304 else b"" if status == 204 else b"Content-Length: 0\r\n"
        w.send(b"HTTP/1.1 %d Some Words\r\n%s\r\n" % (status, more))

    def on_headchunks(self, w, seen, token, path):
        w.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
               b"" if seen.method == b"HEAD" else b"2\r\nhi\r\n0\r\n\r\n")

    def on_hints(self, w, seen, token, path):
        w.send(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
        self.event(token, "go").wait(20)
        w.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def on_refuse(self, w, seen, token, path):
        """An answer instead of 100 Continue."""
        w.send(b"HTTP/1.1 417 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        return False

    def on_early(self, w, seen, token, path):
        """An answer while the body still comes, of which no more is wanted."""
        w.send(b"HTTP/1.1 413 Too Much\r\nContent-Length: 4\r\n\r\nmuch")
        with contextlib.suppress(OSError):
            w.sock.shutdown(socket.SHUT_WR)
            while w.sock.recv(65536):
                pass
        return False

    def on_cut(self, w, seen, token, path):
        """Ends before it is over: by "length", by "chunks", by "reset"."""
        how = path.split("/")[2]
        w.send(b"HTTP/1.1 200 OK\r\n" + (b"Transfer-Encoding: chunked" if how == "chunks" else b"Content-Length: 100"),
               b"\r\n\r\n", b"5\r\nfirst\r\n" if how == "chunks" else b"first")
        self.event(token, "go").wait(20)
        if how == "reset":
            w.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        return False

    def on_close(self, w, seen, token, path):
        w.send(b"HTTP/1.0 200 OK\r\n\r\nto the end")
        return False

    def on_endless(self, w, seen, token, path):
        """Until nobody takes it."""
        w.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                w.send(b"400\r\n", piece(0, 1024), b"\r\n")
        except OSError:
            self.event(token, "left").set()
            raise

    def on_silent(self, w, seen, token, path):
        """Says nothing; notices when nobody waits for it any more."""
        self.event(token, "came").set()
        try:
            gone = not w.sock.recv(1)
        except ConnectionResetError:
            gone = True
        except OSError:
            gone = False
        if gone:
            self.event(token, "left").set()
        return False

    def on_fields(self, w, seen, token, path):
        long = b"".join(b"X-Long-%d: %s\r\n" % (i, b"v" * 300) for i in range(20))
        w.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n", long, b"\r\nok")
