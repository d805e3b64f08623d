#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The edges of static files, on both I/O back ends, as TAP: conditions and ranges to the byte, files
that change, hostile names, more files than descriptors. Usage: files_edges_test.py PORTICO."""
import http.client
import os
import resource
import socket
import sys
import threading
import time

from files_test import Site
from server import Server, run_cases, same


def head_of(answer):
    """Status, fields in lower case, body of raw bytes."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return (int(lines[0].split()[1]),
            {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:])}, body)


def get(s, path="/a.txt", method="GET", **fields):
    text = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in fields.items())
    return head_of(s.raw(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                         f"{text}\r\n".encode()))


FILES = {"a.txt": b"0123456789", "big.txt": b"x" * 100_000 + b"yz", "no.txt": b""}


def conditions(io):
    with Site(io, FILES) as s:
        _, first, _ = get(s)
        etag, date = first["etag"], first["last-modified"]
        old, young = "Sun, 06 Nov 1994 08:49:37 GMT", "Fri, 31 Dec 2100 23:59:59 GMT"
        part = {"Range": "bytes=1-2"}
        for fields, want in (
                ({"If_None_Match": f'"x", W/{etag}'}, 304), ({"If_None_Match": "*"}, 304),
                ({"If_None_Match": '"x"', "If_Modified_Since": young}, 200),
                ({"If_None_Match": etag, "If_Match": '"x"'}, 412),
                ({"If_Match": f'"x",{etag}'}, 200), ({"If_Match": f"W/{etag}"}, 412),
                ({"If_Match": "*"}, 200), ({"If_Match": "*", "If_Unmodified_Since": old}, 200),
                ({"If_Unmodified_Since": old}, 412), ({"If_Unmodified_Since": date}, 200),
                ({"If_Modified_Since": date}, 304), ({"If_Modified_Since": old}, 200),
                ({"If_Modified_Since": "yesterday"}, 200), ({"If_Modified_Since": young}, 304),
                ({"If_Range": etag, **part}, 206), ({"If_Range": f"W/{etag}", **part}, 200),
                ({"If_Range": date, **part}, 206), ({"If_Range": old, **part}, 200),
                ({"If_None_Match": etag, **part}, 304), ({"If_Match": '"x"', **part}, 412)):
            same((fields, get(s, **fields)[0]), (fields, want))
            same((fields, get(s, method="HEAD", **fields)[2]), (fields, b""))
        _, fields, body = get(s, If_None_Match=etag)
        same((body, "content-length" in fields, "content-type" in fields, fields["etag"]),
             (b"", False, False, etag))


def ranges(io):
    with Site(io, FILES) as s:
        for value, want in (("bytes=0-0", b"0"), ("bytes=-1", b"9"), ("bytes=7-", b"789"),
                            ("bytes=2-100", b"23456789"), ("bytes=3-3,20-30", b"3"),
                            ("bytes= 1 - 2 ", b"12")):
            status, fields, body = get(s, Range=value)
            same((value, status, body, fields["content-length"]),
                 (value, 206, want, str(len(want))))
        for value in ("bytes=0-,0-,0-", "bytes=" + ",".join(["0-0"] * 80)):
            same((value, *get(s, Range=value)[::2]), (value, 200, b"0123456789"))
        for value, told in (("bytes=10-", "bytes */10"), ("bytes=-0", "bytes */10"),
                            ("bytes=5-4", None), ("bytes=a-", None), ("items=0-1", None)):
            status, fields, body = get(s, Range=value)
            same((value, status, fields.get("content-range")), (value, 416, told))
            assert "etag" not in fields and "last-modified" not in fields
        same(get(s, "/no.txt", Range="bytes=0-")[0], 200)
        same(get(s, "/no.txt", Range="bytes=-5")[0], 200)
        status, fields, body = get(s, "/big.txt", Range="bytes=0-1,99999-,-1")
        mark = fields["content-type"].split("=")[1]
        want = "".join(f"\r\n--{mark}\r\nContent-Range: bytes {r}/100002\r\nContent-Type: text/plain; "
                       f"charset=utf-8\r\n\r\n{t}" for r, t in (
                           ("0-1", "xx"), ("99999-100001", "xyz"), ("100001-100001", "z")))
        same((status, body.decode(), fields["content-length"]),
             (206, want[2:] + f"\r\n--{mark}--\r\n", str(len(body))))
        same(get(s, "/big.txt", "HEAD", Range="bytes=0-1,5-6")[::2], (206, b""))


def told_and_came(answer):
    _, fields, body = head_of(answer)
    return int(fields["content-length"]), len(body)


def changes_while_sent(io):
    big, half = 64 << 20, 300_000
    once, keep = b"GET /%s HTTP/1.0\r\n\r\n", b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
    with Site(io, {"small": b"s" * 1000, "half": b"h" * half, "big": b"b" * big}) as s:
        same(told_and_came(s.raw(once % b"half")), (half, half))
        os.truncate(f"{s.root}/half", 1000)  # the old length may still be promised
        told, came = told_and_came(s.raw(keep.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
                                         % b"half"))
        assert (told, came) == (1000, 1000) or (told == half and came < half), (told, came)
        with socket.create_connection(("127.0.0.1", s.server.port), 30) as c:
            c.sendall(keep % b"big")
            answer = c.recv(1000)
            os.truncate(f"{s.root}/big", big // 8)
            try:
                while piece := c.recv(1 << 20):
                    answer += piece
            except ConnectionResetError:
                pass
        told, came = told_and_came(answer)
        assert told == big and came < big, (told, came)
        with open(f"{s.root}/small", "ab") as f:
            f.write(b"more")
        told, came = told_and_came(s.raw(once % b"small"))
        same(told, came)
        s.put("half", b"n" * half)
        s.put("new", b"N" * half)
        time.sleep(1.1)
        with socket.create_connection(("127.0.0.1", s.server.port), 30) as c:
            c.sendall(keep % b"half")
            answer = c.recv(1000)
            os.rename(f"{s.root}/new", f"{s.root}/half")
            while len(answer) < half and (piece := c.recv(1 << 20)):
                answer += piece
            assert b"N" not in answer.partition(b"\r\n\r\n")[2]
        with open(f"{s.root}/half", "ab") as f:
            f.write(b"appended")
        told, came = told_and_came(s.raw(once % b"half"))
        same(told, came)


def soon(condition, seconds=20):
    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + seconds, "not seen"
        time.sleep(0.005)
    return time.monotonic() - start


def seen_in_time(io):
    with Site(io, {"one/x": b"1", "two/x": b"2", "y": b"y"}) as s:
        os.symlink("one", f"{s.root}/live")
        same([s.ask("/live/x")[2], s.ask("/y")[2], s.ask("/none")[0]], [b"1", b"y", 404])
        os.symlink("two", f"{s.root}/next")
        os.rename(f"{s.root}/next", f"{s.root}/live")
        soon(lambda: s.ask("/live/x")[2] == b"2")
        s.put("none", b"now")
        soon(lambda: s.ask("/none")[2] == b"now")
        s.put("y", b"changed")
        soon(lambda: s.ask("/y")[2] == b"changed")
        os.unlink(f"{s.root}/y")
        soon(lambda: s.ask("/y")[0] == 404)
        os.rename(f"{s.root}/two", f"{s.root}/gone")
        soon(lambda: s.ask("/live/x")[0] == 404)
    with Site(io, {"y": b"y"}, environment={"PORTICO_FILE_CACHE": "off"}) as s:
        for i in range(20):
            s.put("y", b"%d" % i, 0)
            same(s.ask("/y")[2], b"%d" % i)


def fair(io):
    """A client that takes as fast as it can must not keep the worker from others."""
    with Site(io, {"page": b"p"}, environment={"PORTICO_WORKERS": "1"}) as s:
        with open(f"{s.root}/large", "wb") as f:
            f.truncate(1 << 40)  # more than they take before it is over
        stop, took = threading.Event(), [0]

        def swallow():
            with socket.create_connection(("127.0.0.1", s.server.port), 30) as c:
                c.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
                while not stop.is_set():
                    took[0] += len(c.recv(1 << 20, socket.MSG_TRUNC))
        takers = [threading.Thread(target=swallow) for _ in range(2)]
        for t in takers:
            t.start()
        try:
            soon(lambda: took[0] > 10 << 20)
            slowest = 0
            for _ in range(20):
                start = time.monotonic()
                same(s.ask("/page")[2], b"p")
                slowest = max(slowest, time.monotonic() - start)
            assert slowest < 4, f"waited {slowest:.2f} s"
            before = took[0]
            soon(lambda: took[0] > before)  # all of that was while they took
        finally:
            stop.set()
            for t in takers:
                t.join()


def hostile_names(io):
    files = {"a.txt": b"a", ".git/config": b"g", "sub/x": b"x", "dir./y": b"y", "b\\c": b"back"}
    with Site(io, files, hide=[".git"]) as s:
        with open(f"{s.server.folder.name}/outside", "wb") as f:
            f.write(b"outside")
        os.symlink("../outside", f"{s.root}/way-out")
        os.symlink("loop", f"{s.root}/loop")
        os.mkfifo(f"{s.root}/pipe")
        with socket.socket(socket.AF_UNIX) as u:
            u.bind(f"{s.root}/sock")
        for target, want in (
                (b"/../outside", 404), (b"/%2e%2e/outside", 404), (b"/..%2foutside", 404),
                (b"/sub/..%2f..%2foutside", 404), (b"/..%5coutside", 404),
                (b"/%2e%2e%2f%2e%2e%2fetc/passwd", 404), (b"/a.txt%00.html", 400),
                (b"/.git/config", 404), (b"/.GIT/config", 404), (b"/sub/../.git/config", 404),
                (b"/%2egit/config", 404), (b"//.git//config", 404), (b"/.git/", 404),
                (b"/pipe", 403), (b"/sock", 403), (b"/loop", 404), (b"/way-out", 200),
                (b"/" + b"n" * 300, 404), (b"/" + b"d/" * 3000, 404), (b"/a.txt/", 308),
                (b"/a.txt.", 404), (b"/A.TXT", 404), (b"/a.txt/b", 404), (b"/sub/", 404),
                (b"/dir./y", 200), (b"/b%5cc", 200), (b"/sub%2fx", 200), (b"/a.txt%20", 404),
                (b"/%c0%ae%c0%ae/outside", 404), (b"/%e2%80%ae", 404),
                (b"/a.txt?/../../x", 200)):
            answer = s.raw(b"GET " + target + b" HTTP/1.0\r\n\r\n")
            same((target[:40], head_of(answer)[0]), (target[:40], want))
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            code, fields, _ = s.ask("/a.txt", method)
            same((method, code, fields["allow"]), (method, 405, "GET, HEAD"))
        s.load([{"handle": [{"handler": "file_server", "root": "/nonexistent/root"}]}])
        same((s.ask("/")[0], s.ask("/a.txt")[0]), (404, 404))


def many_files(io):
    """None is refused for want of a descriptor; memory stays within the cache's bound."""
    low = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))}
    calm = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=8"}
    s = Server(sys.argv[1], io, workers=1, started=low, environment=calm)
    try:
        root = f"{s.folder.name}/site"
        for i in range(100):
            os.makedirs(f"{root}/{i}")
        for i in range(2000):
            with open(f"{root}/{i % 100}/{i}", "wb") as f:
                f.truncate(70_000)  # too large to be kept in memory: each needs a descriptor
        doc = s.document
        doc["apps"]["http"]["servers"]["srv0"]["routes"] = [
            {"handle": [{"handler": "file_server", "root": root}]}]
        same(s.api("POST", "/load", doc)[0], 200)
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
        for i in range(2000):
            c.request("HEAD" if i % 10 else "GET", f"/{i % 100}/{i}")
            answer = c.getresponse()
            same((i, answer.status, len(answer.read())), (i, 200, 0 if i % 10 else 70_000))
        before = s.resident_kib()
        with socket.create_connection(("127.0.0.1", s.port), 60) as c:
            for i in range(0, 100_000, 100):
                c.sendall(b"".join(b"HEAD /%d/missing-%d HTTP/1.1\r\nHost: x\r\n\r\n" % (k % 100, k)
                                   for k in range(i, i + 100)))
                answer = b""
                while answer.count(b"\r\n\r\n") < 100:
                    answer += c.recv(65536)
                same(answer.count(b"HTTP/1.1 404 Not Found\r\n"), 100)
        assert s.resident_kib() - before < 64 << 10, (before, s.resident_kib())
        assert len(os.listdir(f"/proc/{s.server_pid()}/fd")) < 400
    finally:
        same(s.end(), 0)


CASES = [
    ("preconditions, as Go's ServeContent decides", conditions),
    ("ranges to the byte, alone and in parts", ranges),
    ("a file that shrinks, grows or is replaced while it is sent never ends cleanly short",
     changes_while_sent),
    ("changes are seen in time, swapped links above included; at once without the cache",
     seen_in_time),
    ("a fast download does not keep its worker from others", fair),
    ("hostile names, special files, methods", hostile_names),
    ("more files than descriptors, 100,000 names that miss", many_files),
]

if __name__ == "__main__":
    run_cases(CASES)
