#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Published techniques of request smuggling against the gateway, on both I/O back ends, as TAP: a table
of exact bytes, the statuses of their answers, and what the server behind the gateway may have seen.
That server has a parser of its own and writes down every request. Usage: smuggling_test.py PORTICO
[TEXT]."""
import concurrent.futures
import re
import socket
import struct
import sys
import threading

import h2_client as h2
from h2_client import WINDOW_UPDATE, frame
from h2_server import Conn, Ended
from server import BACK_ENDS, Server, same

PORTICO = sys.argv[1]
ONLY = sys.argv[2] if len(sys.argv) > 2 else ""


class Behind:
    """A server that writes down what it understands, strictly, and what it does not."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port = self.listener.getsockname()[1]
        self.seen, self.wrong, self.lock = [], [], threading.Lock()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()

    def serve(self, c):
        with c, c.makefile("rb") as f:
            try:
                while self.one(c, f):
                    pass
            except (OSError, EOFError):
                pass

    def line(self, f):
        data = f.readline(70000)
        if not data.endswith(b"\n"):
            raise EOFError
        if not data.endswith(b"\r\n") or data[:-2].strip(b"\r\n\0") != data[:-2]:
            self.wrong.append(data)
        return data[:-2]

    def exactly(self, f, n):
        data = f.read(n)
        if len(data) < n:
            raise EOFError
        return data

    def body(self, f, fields):
        lengths = [v for k, v in fields if k == b"content-length"]
        codings = [v for k, v in fields if k == b"transfer-encoding"]
        if len(lengths) + len(codings) > 1 or codings not in ([], [b"chunked"]) or \
                (lengths and not re.fullmatch(rb"0|[1-9]\d*", lengths[0])):
            self.wrong.append((lengths, codings))
        if not codings:
            return self.exactly(f, int(lengths[0])) if lengths else b"", []
        data, trailers = b"", []
        while size := int(self.line(f), 16):
            data += self.exactly(f, size)
            if self.exactly(f, 2) != b"\r\n":
                self.wrong.append("chunk")
        while field := self.line(f):
            trailers.append(field)
        return data, trailers

    def one(self, c, f):
        first = f.readline(70000)
        if not first:
            return False
        start = first.rstrip(b"\r\n")
        fields = []
        while field := self.line(f):
            name, colon, value = field.partition(b":")
            if not colon or not re.fullmatch(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
                self.wrong.append(field)
            fields.append((name.lower(), value.strip()))
        with self.lock:
            self.seen.append({"line": start, "fields": fields, "body": None, "trailers": []})
            mine = self.seen[-1]
        if (b"expect", b"100-continue") in fields:
            c.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        mine["body"], mine["trailers"] = self.body(f, fields)
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nbehind" if not start.startswith(b"HEAD ")
                  else b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        return True


class BehindH2(Behind):
    """The same in HTTP/2, where other things are wrong."""

    def serve(self, c):
        conn, streams = Conn(c, patience=60), {}
        try:
            conn.begin()
            conn.send(frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", 1 << 30)))
            while True:
                while conn.requests:
                    stream, _ = conn.requests.pop(0)
                    streams[stream] = self.note(conn.whole[stream][0])
                for stream in [x for x in streams if x in conn.ended_streams]:
                    mine = streams.pop(stream)
                    mine["body"] = conn.bodies.get(stream, b"")
                    mine["trailers"] = [n.encode() + b": " + v.encode() for n, v in sum(conn.whole[stream][1:], [])]
                    head = mine["line"].startswith(b"HEAD ")
                    conn.headers(stream, (":status", "200"), ("content-length", "6"), end=head)
                    if not head:
                        conn.data(stream, b"behind", end=True)
                conn.read()
        except (Ended, OSError):
            pass
        finally:
            c.close()

    def note(self, fields):
        pseudo = [(n, v) for n, v in fields if n.startswith(":")]
        if fields[:len(pseudo)] != pseudo or sorted(n for n, _ in pseudo) != [":authority", ":method", ":path", ":scheme"]:
            self.wrong.append(fields)
        for n, v in fields[len(pseudo):]:
            if n != n.lower() or n in ("connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection", "host",
                                       "http2-settings") or (n == "te" and v != "trailers") or \
                    re.search(r"[\r\n\0]|^[ \t]|[ \t]$", v) or not re.fullmatch(r"[a-z0-9!#$%&'*+.^_`|~-]+", n):
                self.wrong.append((n, v))
        if sum(n == "content-length" for n, _ in fields) > 1:
            self.wrong.append(fields)
        told = dict(pseudo)
        with self.lock:
            self.seen.append({"line": f"{told[':method']} {told[':path']} HTTP/2".encode(), "body": None, "trailers": [],
                              "fields": [(b"host", told[":authority"].encode())] +
                              [(n.encode(), v.encode()) for n, v in fields[len(pseudo):]]})
            return self.seen[-1]


def talk(port, data, half=True):
    with socket.create_connection(("127.0.0.1", port), 60) as c:
        try:
            c.sendall(data)
            if half:
                c.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has answered and closed already
        answer = b""
        try:
            while part := c.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
    return answer


def statuses(answer, to_head=False):
    """Of all answers, the first of them `to_head`; 100 Continue is none."""
    found, at = [], 0
    while at < len(answer):
        head, _, _ = answer[at:].partition(b"\r\n\r\n")
        status = int(head[9:12])
        length = re.search(rb"(?i)content-length: (\d+)", head)
        at += len(head) + 4 + (int(length.group(1)) if length and status >= 200 and not to_head else 0)
        to_head = False
        if status != 100:
            found.append(status)
    return found


# --- the table: a name; bytes, in which @@@ is the row's number; the statuses; the targets behind ---

S = b"GET /x@@@ HTTP/1.1\r\nHost: a\r\n\r\n"  # what is smuggled
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
P = b"POST /@@@ HTTP/1.1\r\nHost: a\r\n"
CLOSED = (200,)  # and then the connection ends, though it was not asked to
ONE, NONE, TWO = [b"/@@@"], [], [b"/@@@", b"/x@@@"]
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
TE = P + b"Transfer-Encoding: chunked\r\n\r\n"


def length(n):
    return b"Content-Length: %d\r\n" % n


def refused(status, *fields):
    """POST with such fields and both kinds of body behind it: refused, nothing goes on."""
    return [(b"fields " + f, P + f + b"\r\n" + CHUNKS + S, [status], NONE) for f in fields]


def bad_chunks(*bodies):
    return [(b"chunks " + b, TE + b + S, [400], None) for b in bodies]


def whole(name, data, body, statuses_=(200,), more=None):
    """One request goes on, with that body, and nothing else."""
    return (name, data, list(statuses_), ONE, lambda r: (r["body"] == body and (not more or more(r))))


def without(*names):
    return lambda r: not any(k in names for k, _ in r["fields"])


def forwarded(r):
    return {k: v for k, v in r["fields"] if k.startswith(b"x-forwarded-")} == {
        b"x-forwarded-for": b"127.0.0.1", b"x-forwarded-host": b"a", b"x-forwarded-proto": b"http"}


ROWS = [
    # both, or one of them twice (CL.TE, TE.CL)
    *refused(400, length(5) + b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked\r\n" + length(5),
             b"Transfer-Encoding:\tchunked\r\n" + length(5), b"TRANSFER-ENCODING: cHuNkEd\r\n" + length(0),
             length(5) + length(5), length(5) + length(6), length(0) + length(5),
             b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
             b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
             b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n",
             b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"),
    # TE.TE: names and values that look like it to some
    *refused(501, b"Transfer-Encoding: xchunked\r\n", b"Transfer-Encoding: chunkedx\r\n",
             b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding: identity, chunked\r\n",
             b"Transfer-Encoding: \"chunked\"\r\n", b"Transfer-Encoding: 'chunked'\r\n",
             b"Transfer-Encoding: chunked;q=1\r\n", b"Transfer-Encoding: \xa0chunked\r\n",
             b"Transfer-Encoding: chunk\r\n", b"Transfer-Encoding: chunked chunked\r\n"),
    *refused(400, b"Transfer-Encoding: chunked, identity\r\n", b"Transfer-Encoding: chunked, chunked\r\n",
             b"Transfer-Encoding:\r\n", b"Transfer-Encoding: ,\r\n", b"Transfer-Encoding : chunked\r\n",
             b"Transfer-Encoding\t: chunked\r\n", b" Transfer-Encoding: chunked\r\n",
             b"\tTransfer-Encoding: chunked\r\n", b"X: y\nTransfer-Encoding: chunked\r\n",
             b"X: y\rTransfer-Encoding: chunked\r\n", b"X: y\r\rTransfer-Encoding: chunked\r\n",
             b"X: y\0\r\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding\n: chunked\r\n",
             b"Transfer-Encoding:\n chunked\r\n", b"Transfer-Encoding:\r\n chunked\r\n",
             b"Transfer-Encoding: chunked\r\n x\r\n", b"Transfer-Encoding: \x0bchunked\r\n",
             b"Transfer-Encoding: \x0cchunked\r\n", b"Transfer-Encoding: chunked\x7f\r\n",
             b"Transfer-Encoding\0: chunked\r\n", b"\0Transfer-Encoding: chunked\r\n",
             b"Transfer-Encoding\x80: chunked\r\n", b"Transfer Encoding: chunked\r\n",
             b"(Transfer-Encoding): chunked\r\n", b"Transfer-Encoding chunked\r\n", b": chunked\r\n"),
    ("TE in HTTP/1.0", b"POST /@@@ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS + S, [400], NONE),
    whole("TE with a tab before the value", P + b"Transfer-Encoding:\tchunked \t\r\n\r\n" + CHUNKS, b"hello"),
    whole("TE in other letters", P + b"tRANSFER-eNCODING: CHUNKED\r\n\r\n" + CHUNKS, b"hello"),
    whole("TE with empty elements", P + b"Transfer-Encoding: , chunked,\r\n\r\n" + CHUNKS, b"hello"),
    # names that become others in CGI and in some frameworks
    whole("Transfer_Encoding beside a length", P + b"Transfer_Encoding: chunked\r\n" + length(5) + b"\r\nhello",
          b"hello", more=without(b"transfer_encoding")),
    whole("Content_Length beside a length", P + b"Content_Length: 1\r\n" + length(5) + b"\r\nhello", b"hello",
          more=without(b"content_length")),
    whole("Content.Length beside chunks", P + b"Content.Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
          b"hello", more=without(b"content.length")),
    # lengths
    *refused(400, b"Content-Length: +5\r\n", b"Content-Length: -5\r\n", b"Content-Length: 0x5\r\n",
             b"Content-Length: 5 5\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length: 5,6\r\n",
             b"Content-Length: 5;\r\n", b"Content-Length: 5\x0b\r\n", b"Content-Length: 5\0\r\n",
             b"Content-Length:\r\n", b"Content-Length: \r\n 5\r\n", b"Content-Length: 5\r\n 5\r\n",
             b"Content-Length: 5.0\r\n", b"Content-Length: 5e0\r\n", b"Content-Length: \xb2\r\n",
             b"Content-Length: 9223372036854775808\r\n", b"Content-Length: 18446744073709551621\r\n",
             b"Content-Length : 5\r\n", b"Content-Length\t: 5\r\n", b"Content-Length\xa0: 5\r\n",
             b"X: y\nContent-Length: 5\r\n"),
    whole("a length with zeros before it", P + b"Content-Length: 005\r\n\r\nhello", b"hello"),
    # CL.0, TE.0, GET and others with bodies
    *[whole(m + b" with a length", m + b" /@@@ HTTP/1.1\r\nHost: a\r\n" + length(len(S)) + b"\r\n" + S, S)
      for m in (b"POST", b"GET", b"OPTIONS", b"DELETE", b"PUT", b"PATCH", b"FOO")],
    *[whole(m + b" with chunks", m + b" /@@@ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(S)
            + S + b"\r\n0\r\n\r\n", S) for m in (b"POST", b"GET", b"OPTIONS", b"DELETE", b"FOO")],
    ("HEAD with a length", b"HEAD /@@@ HTTP/1.1\r\nHost: a\r\n" + length(len(S)) + b"\r\n" + S, [200], ONE),
    ("a body longer than its length is the next request", P + length(5) + b"\r\nhello" + S, [200, 200], TWO),
    ("a length of 0 and a body", P + length(0) + b"\r\n" + S, [200, 200], TWO),
    ("garbage behind a body", P + length(5) + b"\r\nhelloXYZ\r\n\r\n" + S, [200, 400], ONE),
    ("a body that ends early", P + length(500) + b"\r\n" + S, None, None),
    # 0.CL and Expect
    ("Expect that only contains it", P + b"Expect: y 100-continue\r\n" + length(len(S)) + b"\r\n" + S, [417], NONE),
    ("Expect twice in one", P + b"Expect: 100-continue, 100-continue\r\n" + length(len(S)) + b"\r\n" + S, [417], NONE),
    ("Expect and something else", P + b"Expect: 100-continue\r\nExpect: x\r\n" + length(len(S)) + b"\r\n" + S,
     [417], NONE),
    ("Expect behind a line feed", P + b"Expect:\n100-continue\r\n" + length(len(S)) + b"\r\n" + S, [400], NONE),
    ("Expect folded", P + b"Expect:\r\n 100-continue\r\n" + length(len(S)) + b"\r\n" + S, [400], NONE),
    whole("Expect, and the body at once", P + b"Expect: 100-continue\r\n" + length(len(S)) + b"\r\n" + S, S),
    whole("Expect in other letters", P + b"eXPECT: 100-CONTINUE\r\n" + length(len(S)) + b"\r\n" + S, S),
    whole("GET with Expect", b"GET /@@@ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n" + length(len(S)) + b"\r\n" + S, S),
    ("Expect without a body", P + b"Expect: 100-continue\r\n" + length(0) + b"\r\n" + S, [200, 200], TWO),
    whole("Expect twice", P + b"Expect: 100-continue\r\nExpect: 100-continue\r\n" + length(len(S)) + b"\r\n" + S, S),
    # chunks: sizes, terminators (TERM.EXT, EXT.TERM, TERM.SPILL, SPILL.TERM)
    *bad_chunks(b"5\nhello\r\n0\r\n\r\n", b"5\rhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n",
                b"5\r\nhello\r0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"5\r\nhello\r\n0\n\n",
                b"5\r\nhello\r\n0\r\n\n", b"5\r\nhello\r\n0\r\r", b"2;\nxx\r\n4c\r\n0\r\n\r\n",
                b"5;a\nhello\r\n0\r\n\r\n", b"5;a\rX\nhello\r\n0\r\n\r\n", b"5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
                b"5;\0\r\nhello\r\n0\r\n\r\n", b"5;a\x7f\r\nhello\r\n0\r\n\r\n", b"5;a\r\rhello\r\n0\r\n\r\n",
                b"5 \r\nhello\r\n0\r\n\r\n", b" 5\r\nhello\r\n0\r\n\r\n", b"\t5\r\nhello\r\n0\r\n\r\n",
                b"5\t;a\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n",
                b"-5\r\nhello\r\n0\r\n\r\n", b"5g\r\nhello\r\n0\r\n\r\n", b"\r\nhello\r\n0\r\n\r\n",
                b";a\r\nhello\r\n0\r\n\r\n", b"5_\r\nhello\r\n0\r\n\r\n", b"5,\r\nhello\r\n0\r\n\r\n",
                b"FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", b"10000000000000005\r\nhello\r\n0\r\n\r\n",
                b"5\r\nhello\r\n\r\n0\r\n\r\n", b"5\r\nhello\r\n-0\r\n\r\n", b"5\r\nhello\r\n0 \r\n\r\n",
                b"5;" + b"a" * 20000 + b"\r\nhello\r\n0\r\n\r\n", b"0" * 20000 + b"5\r\nhello\r\n0\r\n\r\n"),
    whole("extensions go no further", TE + b"5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n", b"hello"),
    whole("a quoted extension does not hide the line's end", TE + b"5;a=\"\r\nhello\r\n0\r\n\r\n", b"hello"),
    whole("zeros before sizes", TE + b"0005\r\nhello\r\n000\r\n\r\n", b"hello"),
    ("what follows the last chunk is the next request", TE + CHUNKS + S, [200, 200], TWO),
    ("a request in place of the trailers", TE + b"5\r\nhello\r\n0\r\n" + S, [400], None),
    # trailers
    *[("trailer " + repr(t), TE + b"5\r\nhello\r\n0\r\n" + t + b"\r\n" + S, [400], None)
      for t in (b"X : y\r\n", b" X: y\r\n", b"X: y\nZ: z\r\n", b"X: y\r\n z\r\n", b"X: y\0\r\n", b"X\r\n", b": y\r\n")],
    *[("forbidden trailer " + repr(t), TE + b"5\r\nhello\r\n0\r\n" + t + b"\r\n" + S, [200, 200], TWO,
       lambda r: r["body"] in (b"hello", b"") and not any(
           re.match(rb"(?i)(content-length|transfer-encoding|host|authorization|expect|connection|x_y)\s*:", f)
           for f in r["trailers"]))
      for t in (b"Content-Length: 50\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n",
                b"Authorization: Basic eDp5\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"X_Y: z\r\n")],
    # lines
    ("line feeds alone", b"GET /@@@ HTTP/1.1\nHost: a\n\n" + S, [400], NONE),
    ("a line feed at the end", b"GET /@@@ HTTP/1.1\r\nHost: a\r\n\n" + S, [400], NONE),
    ("a line feed behind the request line", b"GET /@@@ HTTP/1.1\nHost: a\r\n\r\n" + S, [400], NONE),
    ("carriage returns alone", b"GET /@@@ HTTP/1.1\rHost: a\r\r" + S, [400], NONE),
    ("a carriage return too many", b"GET /@@@ HTTP/1.1\r\nHost: a\r\r\n\r\n" + S, [400], NONE),
    ("a line feed first", b"\nGET /@@@ HTTP/1.1\r\nHost: a\r\n\r\n", [400], NONE),
    ("a space first", b" GET /@@@ HTTP/1.1\r\nHost: a\r\n\r\n", [400], NONE),
    ("a field folded", b"GET /@@@ HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n" + S, [400], NONE),
    ("the first field folded", b"GET /@@@ HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n" + S, [400], NONE),
    ("a tab between words", b"GET\t/@@@ HTTP/1.1\r\nHost: a\r\n\r\n", [400], NONE),
    ("two spaces", b"GET /@@@  HTTP/1.1\r\nHost: a\r\n\r\n", [400], NONE),
    ("a space in the target", b"GET /@@@ /x HTTP/1.1\r\nHost: a\r\n\r\n", [400], NONE),
    ("a request in the target", b"GET /@@@ HTTP/1.1\r\n\r\nGET /x@@@ HTTP/1.1\r\nHost: a\r\n\r\n", [400], NONE),
    ("a control character in the target", b"GET /@@@\x0b HTTP/1.1\r\nHost: a\r\n\r\n", [400], NONE),
    ("a version too long", b"GET /@@@ HTTP/1.10\r\nHost: a\r\n\r\n", [400], NONE),
    ("a version in small letters", b"GET /@@@ http/1.1\r\nHost: a\r\n\r\n", [400], NONE),
    ("words behind the version", b"GET /@@@ HTTP/1.1 x\r\nHost: a\r\n\r\n", [400], NONE),
    # whom it is for
    ("Host twice", b"GET /@@@ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", [400], NONE),
    ("Host twice, alike", b"GET /@@@ HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", [400], NONE),
    ("two hosts in one", b"GET /@@@ HTTP/1.1\r\nHost: a, b\r\n\r\n", [400], NONE),
    ("Host with a space before the colon", b"GET /@@@ HTTP/1.1\r\nHost : a\r\n\r\n", [400], NONE),
    ("no Host", b"GET /@@@ HTTP/1.1\r\n\r\n", [400], NONE),
    ("Host with a path", b"GET /@@@ HTTP/1.1\r\nHost: a/x\r\n\r\n", [400], NONE),
    ("Host with a user", b"GET /@@@ HTTP/1.1\r\nHost: x@a\r\n\r\n", [400], NONE),
    ("Host with a port that is none", b"GET /@@@ HTTP/1.1\r\nHost: a:80x\r\n\r\n", [400], NONE),
    ("Host with a tab", b"GET /@@@ HTTP/1.1\r\nHost: a\tb\r\n\r\n", [400], NONE),
    ("an absolute target of another host", b"GET http://b/@@@ HTTP/1.1\r\nHost: a\r\n\r\n", [400], NONE),
    ("an absolute target of another port", b"GET http://a:81/@@@ HTTP/1.1\r\nHost: a\r\n\r\n", [400], NONE),
    ("an absolute target with a user", b"GET http://x@a/@@@ HTTP/1.1\r\nHost: a\r\n\r\n", [400], NONE),
    ("an absolute target without a host", b"GET http:///@@@ HTTP/1.1\r\nHost: a\r\n\r\n", [400], NONE),
    ("an absolute target without Host", b"GET http://a/@@@ HTTP/1.1\r\n\r\n", [400], NONE),
    ("a backslash in an absolute target", b"GET http://a\\@b/@@@ HTTP/1.1\r\nHost: a\r\n\r\n", [400], NONE),
    whole("an absolute target of the host", b"GET http://A/@@@ HTTP/1.1\r\nHost: a\r\n\r\n", b"",
          more=lambda r: [v.lower() for k, v in r["fields"] if k == b"host"] == [b"a"]),
    # fields that an intermediary acts on
    *[whole(b"Connection: " + n, P + b"Connection: " + n + b"\r\n" + length(5) + b"\r\nhello", b"hello",
            more=lambda r: [v for k, v in r["fields"] if k == b"host"] == [b"a"])
      for n in (b"Content-Length", b"Host", b"Transfer-Encoding", b"X-Forwarded-For, X-Forwarded-Proto")],
    *[whole(b"Connection: " + n + b", what is said of the client stays", P + b"Connection: " + n + b"\r\n"
            b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: x\r\nX-Forwarded-Host: x\r\n" + length(5) + b"\r\nhello",
            b"hello", more=lambda r: forwarded(r) and any(k == b"via" for k, _ in r["fields"]))
      for n in (b"X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Via", b"x-forwarded-for,via",
                b"X-Forwarded-For\r\nConnection: X-Forwarded-Host, X-Forwarded-Proto, Via")],
    whole("Connection: Transfer-Encoding, with chunks",
          P + b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, b"hello"),
    whole("fields of one connection", P + b"Connection: X-Secret\r\nX-Secret: y\r\nKeep-Alive: z\r\n"
          b"Proxy-Connection: close\r\nTE: gzip\r\n" + length(5) + b"\r\nhello", b"hello",
          more=without(b"x-secret", b"keep-alive", b"proxy-connection", b"te")),
    ("a WebSocket that is not opened", b"GET /@@@ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
     b"Sec-WebSocket-Version: 777\r\n\r\n" + S, [200, 200], TWO),
    ("h2c that is not spoken", b"GET /@@@ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, X\r\nUpgrade: h2c\r\nX: y\r\n\r\n" + S,
     [200, 200], TWO, without(b"x")),
    *[(b"h2c goes no further: " + u, b"GET /@@@ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: "
       + u + b"\r\nHTTP2-Settings: !\r\n\r\n" + S, [200, 200], TWO, without(b"upgrade", b"http2-settings", b"connection"))
      for u in (b"h2c", b"H2C", b"x, h2c", b"websocket,h2c", b" h2c ,", b"h2c/1", b"HTTP/2.0", b"h2")],
    ("HTTP2-Settings without an upgrade", b"GET /@@@ HTTP/1.1\r\nHost: a\r\nHTTP2-Settings: AAAA\r\n\r\n" + S,
     [200, 200], TWO, without(b"http2-settings")),
    ("an upgrade with a body that is a request", P + b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + length(len(S)) +
     b"\r\n" + S, [200], ONE, lambda r: r["body"] == S),
    ("an upgrade that Connection does not name", b"GET /@@@ HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n" + S,
     [200, 200], TWO, without(b"upgrade", b"connection")),
    ("an upgrade in HTTP/1.0", b"GET /@@@ HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
     CLOSED, ONE, without(b"upgrade", b"connection")),
    ("CONNECT", b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n" + S, [405], NONE),
    ("CONNECT with a length", b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n" + length(len(S)) + b"\r\n" + S, [405], NONE),
    ("CONNECT with a path", b"CONNECT /@@@ HTTP/1.1\r\nHost: a\r\n\r\n" + S, None, NONE),
    ("TRACE with a body", b"TRACE /@@@ HTTP/1.1\r\nHost: a\r\n" + length(len(S)) + b"\r\n" + S, None, None),
    # what is answered here, without its body being read (CL.0 at the front)
    *[(b"a body that nobody reads, " + k, b"POST /own/@@@ HTTP/1.1\r\nHost: a\r\n" + k + b"\r\n" + b, w, NONE)
      for k, b, w in ((length(len(S)), S, [200]), (b"Transfer-Encoding: chunked\r\n", b"%x\r\n" % len(S) + S + b"\r\n0\r\n\r\n", [200]),
                      (b"Expect: 100-continue\r\n" + length(len(S)), S, CLOSED), (length(10**9), S, CLOSED),
                      (b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + length(len(S)), S, [200]))],
    ("the preface of HTTP/2 behind a request", b"GET /@@@ HTTP/1.1\r\nHost: a\r\n\r\n" + h2.PREFACE, [200, 505], ONE),
]

UPGRADES = [r for r in ROWS if r[0] in ("a WebSocket that is not opened", "an upgrade with a body that is a request")]

# Over HTTP/2: fields that would be lines or framing in HTTP/1. `None`: the stream is reset, or told 400.
FIELDS = [
    ("a line's end in a value", [("x", "y\r\nTransfer-Encoding: chunked")]),
    ("a line feed in a value", [("x", "y\nz: 1")]), ("a carriage return in a value", [("x", "y\rz")]),
    ("NUL in a value", [("x", "y\0")]), ("a line's end in a name", [("x: y\r\nz", "1")]),
    ("a colon in a name", [("x:y", "1")]), ("a space in a name", [("x y", "1")]),
    ("capital letters in a name", [("Transfer-Encoding", "chunked")]), ("an empty name", [("", "1")]),
    ("transfer-encoding", [("transfer-encoding", "chunked")]), ("connection", [("connection", "content-length")]),
    ("upgrade", [("upgrade", "h2c")]), ("two lengths", [("content-length", "5"), ("content-length", "5")]),
    ("a length that lies", [("content-length", "50")]), ("a length with a sign", [("content-length", "+5")]),
    ("host beside :authority, another", [("host", "b")]),
    ("a length of 0 and a body", [("content-length", "0")]), ("a length that is too small", [("content-length", "4")]),
    ("a list of lengths", [("content-length", "5, 5")]), ("a length with a space", [("content-length", "5 5")]),
    ("a length in hexadecimal", [("content-length", "0x5")]), ("an empty length", [("content-length", "")]),
    ("a length that overflows", [("content-length", "18446744073709551621")]),
    ("transfer-encoding, identity", [("transfer-encoding", "identity")]), ("transfer-encoding, empty", [("transfer-encoding", "")]),
    ("te: chunked", [("te", "chunked")]), ("te: trailers and more", [("te", "trailers, chunked")]),
    ("keep-alive", [("keep-alive", "5")]), ("proxy-connection", [("proxy-connection", "close")]),
    ("connection: close", [("connection", "close")]), ("connection: x-forwarded-for", [("connection", "x-forwarded-for")]),
    ("host twice", [("host", "a"), ("host", "a")]), ("a malformed host", [("host", "a\r\nX: y")]),
    ("a tab in a name", [("x\ty", "1")]), ("NUL in a name", [("x\0", "1")]), ("DEL in a value", [("x", "y\x7f")]),
    ("a name beyond ASCII", [("transfer-encoding\x80", "chunked")]), ("an escape in a value", [("x", "y\x1b")]),
    ("a tab behind a value", [("x", "y\t")]), ("a line's end in a cookie", [("cookie", "a=1\r\nX: y")]),
    ("a line's end in a second cookie", [("cookie", "a=1"), ("cookie", "b=2\r\n\r\nGET /x@@@ HTTP/1.1")]),
    ("a pseudo-header field behind others", [("x", "y"), (":path", "/x@@@")]),
    ("a pseudo-header field that no request has", [(":status", "200")]), ("one that nobody knows", [(":x", "y")]),
    (":path twice", [(":path", "/x@@@")]), (":method twice", [(":method", "GET")]), (":authority twice", [(":authority", "a")]),
    (":scheme twice", [(":scheme", "http")]), (":protocol without CONNECT", [(":protocol", "websocket")]),
    ("a name that is a colon", [(":", "y")]),
    ("a space before a value", [("x", " y")]), ("a space behind a value", [("x", "y ")]),
]
PSEUDO = [
    ("a line's end in :path", {":path": "/@@@ HTTP/1.1\r\nHost: b\r\n\r\nGET /x@@@"}),
    ("a space in :path", {":path": "/@@@ HTTP/1.1"}), ("a tab in :path", {":path": "/@@@\tx"}),
    ("an empty :path", {":path": ""}), (":path without a slash", {":path": "@@@"}),
    ("an absolute :path", {":path": "http://b/@@@"}),
    ("a line's end in :method", {":method": "GET /x@@@ HTTP/1.1\r\nX: "}), ("a space in :method", {":method": "GET /x"}),
    ("an empty :method", {":method": ""}), ("a line's end in :authority", {":authority": "a\r\nX: y"}),
    ("a path in :authority", {":authority": "a/x"}), ("a user in :authority", {":authority": "x@a"}),
    ("a line's end in :scheme", {":scheme": "http\r\nX: y"}), ("an unknown :scheme", {":scheme": "file"}),
    ("an empty :scheme", {":scheme": ""}), ("NUL in :path", {":path": "/@@@\0"}), ("DEL in :path", {":path": "/@@@\x7f"}),
    ("* as :path of POST", {":path": "*"}), ("two hosts in :authority", {":authority": "a, b"}),
    ("a space in :authority", {":authority": "a b"}), ("a port that is none in :authority", {":authority": "a:80x"}),
    ("a backslash in :authority", {":authority": "a\\b"}), (":path without a line, with a request", {":path": "/@@@\n"}),
    ("CONNECT with a path", {":method": "CONNECT"}), ("a tab in :method", {":method": "GET\t"}),
    ("a colon in :method", {":method": "GET:"}),
]

# Over HTTP/2: what goes on, as one request with the body "hello", and what must not be among its fields
# or must be; without a body where `None` stands for it. The status is 200 but where a number says else.
PASSED = [
    ("expect that only contains it", [("expect", "y 100-continue")], 417),
    ("expect twice in one", [("expect", "100-continue, 100-continue")], 417),
    ("expect and something else", [("expect", "100-continue"), ("expect", "x")], 417),
    ("expect", [("expect", "100-continue")], 200),
    ("te: trailers", [("te", "trailers")], 200),
    ("names with an underscore", [("content_length", "0"), ("transfer_encoding", "chunked")], 200),
    ("a name with a dot", [("content.length", "0")], 200),
    ("host that says the same", [("host", "a")], 200),
    ("http2-settings", [("http2-settings", "AAAA")], 200),
    ("a length that is right", [("content-length", "5")], 200),
    ("a length with zeros before it", [("content-length", "0005")], 200),
    ("x-forwarded fields", [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-host", "b"), ("x-forwarded-proto", "b")], 200),
]
NEVER = {b"transfer_encoding", b"content_length", b"content.length", b"upgrade", b"connection", b"http2-settings",
         b"keep-alive", b"proxy-connection"}

# Trailers of HTTP/2 that are dropped, or with which the request is refused.
TRAILERS = [[("content-length", "50")], [("transfer-encoding", "chunked")], [("host", "b")], [("connection", "close")],
            [("authorization", "Basic eDp5")], [("x-forwarded-for", "6.6.6.6")], [("x", "y\r\nz: 1")], [(":path", "/x@@@")],
            [("X", "y")], [("x_y", "z")], [("x y", "z")], [("expect", "100-continue")], [("cookie", "a=1")]]


def requests_of(behind, number):
    mark = b"%03d" % number
    with behind.lock:
        return [r for r in behind.seen if re.search(rb"/x?" + mark + rb"(\s|$)", r["line"])]


def check_row(s, behind, number, row):
    name, data, wanted, targets, *checks = row
    mark = b"%03d" % number
    lasts = wanted is not None and wanted[-1] == 200 and wanted is not CLOSED
    if lasts:  # the end is asked for, so that what comes too much is seen
        data, wanted = data + LAST, wanted + [200]
    got = statuses(talk(s.port, data.replace(b"@@@", mark), half=not lasts),
                   data.startswith(b"HEAD "))
    if wanted is not None:
        same(got, list(wanted))
    seen = requests_of(behind, number)
    if targets is None:  # what was begun may be there in part, but nothing else
        seen = [r for r in seen if b"/x" in r["line"]]
        targets = []
    same([r["line"].split(b" ")[1] for r in seen], [t.replace(b"@@@", mark) for t in targets])
    for check in checks:
        for r in seen:
            r = {**r, "body": (r["body"] or b"").replace(mark, b"@@@")}
            assert check(r), f"{r}"


def check_h2(s, behind, number, row):
    name, more = row
    mark = "%03d" % number
    fields = dict([(":method", "POST"), (":scheme", "http"), (":path", "/@@@"), (":authority", "a")])
    if isinstance(more, dict):
        fields.update(more)
        more = []
    fields = [(k, v.replace("@@@", mark)) for k, v in fields.items()] + more
    with h2.Client(s.port) as c:
        stream = c.ask(fields, end=False)
        c.data(stream, b"hello", end=True)
        a = c.answer(stream)
        assert a.reset == "PROTOCOL_ERROR" or a.status == 400 or \
            (a.status == 200 and more == [("content-length", "0")]), f"{a.status} {a.reset}"
        assert c.alive()
    none = (None, b"") if more == [("content-length", "0")] else (None,)  # that much was said before the body came
    same([r for r in requests_of(behind, number) if r["body"] not in none], [])


def check_passed(s, behind, number, row):
    name, more, wanted = row
    mark = "%03d" % number
    with h2.Client(s.port) as c:
        stream = c.ask([(":method", "POST"), (":scheme", "http"), (":path", "/" + mark), (":authority", "a"), *more], end=False)
        c.data(stream, b"hello", end=True)
        a = c.answer(stream)
        same((a.status, a.reset), (wanted, None))
    seen = requests_of(behind, number)
    same([(r["line"].split(b" ")[1], r["body"]) for r in seen], [(b"/" + mark.encode(), b"hello")] if wanted == 200 else [])
    for r in seen:
        same([k for k, _ in r["fields"] if k in NEVER], [])
        same([v for k, v in r["fields"] if k == b"host"], [b"a"])
        assert forwarded(r), f"{r}"


def check_trailers(s, behind, number, fields):
    mark = "%03d" % number
    with h2.Client(s.port) as c:
        stream = c.ask([(":method", "POST"), (":scheme", "http"), (":path", "/" + mark), (":authority", "a")], end=False)
        c.data(stream, b"hello")
        c.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream,
                h2.block([(k, v.replace("@@@", mark)) for k, v in fields]))
        a = c.answer(stream)
        assert a.reset == "PROTOCOL_ERROR" or a.status in (200, 400), f"{a.status} {a.reset}"
        assert c.alive()
    for r in requests_of(behind, number):
        same(r["line"].split(b" ")[1], b"/" + mark.encode())
        assert r["body"] in (None, b"", b"hello") and r["trailers"] == [], f"{r}"


def text_of(name):
    return re.sub(r"(.)\1{40,}", r"\1…", name.decode("latin-1") if isinstance(name, bytes) else name) \
        .encode("unicode_escape").decode().replace("#", "")


def run(io, number, to_h2):
    behind = BehindH2() if to_h2 else Behind()
    name_of_it = "HTTP/2" if to_h2 else "HTTP/1"
    s = Server(PORTICO, io, members={"protocols": ["h1", "h2c"]}, routes=[
        {"match": [{"path": ["/own/*"]}], "terminal": True, "handle": [{"handler": "static_response", "body": "own"}]},
        {"handle": [{"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{behind.port}"}],
                     "transport": {"protocol": "http", "versions": ["h2c", "2"] if to_h2 else ["1.1"]}}]}])
    rows = [("HTTP/1, " + text_of(r[0]), check_row, r) for r in ROWS] + \
           [("HTTP/2, " + text_of(r[0]), check_h2, r) for r in FIELDS + PSEUDO] + \
           [("HTTP/2, " + text_of(r[0]), check_passed, r) for r in PASSED] + \
           [("HTTP/2, trailer " + text_of(repr(r)), check_trailers, r) for r in TRAILERS]
    rows = [r for r in rows if ONLY in r[0] and not (to_h2 and r[2] in UPGRADES)]
    failed = 0
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            results = [pool.submit(check, s, behind, i + 100, row) for i, (_, check, row) in enumerate(rows)]
            for (name, _, _), result in zip(rows, results):
                number += 1
                why = result.exception()
                failed += why is not None
                print(f"{'not ' if why else ''}ok {number} - to {name_of_it}: {name} ({io})", flush=True)
                if why:
                    print(f"# {type(why).__name__}: {str(why)[:1500]!r}", flush=True)
        number += 1
        failed += bool(behind.wrong)
        print(f"{'not ' if behind.wrong else ''}ok {number} - the server behind, of {name_of_it}, understood all that it got ({io})")
        if behind.wrong:
            print(f"# {behind.wrong[:20]!r}")
    finally:
        s.end()
    return number, failed


def main():
    number = failed = 0
    for io in BACK_ENDS:
        for to_h2 in (False, True):
            number, more = run(io, number, to_h2)
            failed += more
    print(f"1..{number}")
    sys.exit(1 if failed else 0)


main()
