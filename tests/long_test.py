#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What takes long, as TAP: a million mixed requests with flat memory, reloads and kills under load.
Usage: long_test.py PORTICO [REQUESTS [SECONDS]]; dev/test --long runs it. Not part of `make test`."""
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from server import Server, run_cases, same

PORTICO = sys.argv[1]
REQUESTS = int(sys.argv[2]) if len(sys.argv) > 2 else 1000000
SECONDS = int(sys.argv[3]) if len(sys.argv) > 3 else 120
del sys.argv[2:]
FOLDER = tempfile.mkdtemp(prefix="portico-long-")
for name, size in (("small", 13), ("page", 10240), ("large", 1 << 20)):
    with open(f"{FOLDER}/{name}", "wb") as f:
        f.write(os.urandom(size))
ROUTES = [
    {"match": [{"path": ["/hello*"]}],
     "handle": [{"handler": "vars", "a": "{http.request.uri.query.q}"},
                {"handler": "headers", "response": {"set": {"X-A": ["{http.vars.a}"]}}},
                {"handler": "static_response", "body": "hello {http.request.uri.path}"}]},
    {"match": [{"path": ["/error"]}], "handle": [{"handler": "error", "status_code": 418}]},
    {"match": [{"path": ["/packed*"]}],
     "handle": [{"handler": "rewrite", "strip_path_prefix": "/packed"},
                {"handler": "encode", "encodings": {"gzip": {}}, "minimum_length": 100},
                {"handler": "file_server", "root": FOLDER}]},
    {"handle": [{"handler": "file_server", "root": FOLDER}]}]


def head(line, more=b""):
    return line + b" HTTP/1.1\r\nHost: a.example\r\n" + more + b"\r\n"


MIX = [head(b"GET /hello?q=1")] * 8 + [head(b"GET /small")] * 6 + [
    head(b"GET /page"), head(b"GET /page", b"Range: bytes=5-99\r\n"), head(b"HEAD /page"),
    head(b"GET /packed/page", b"Accept-Encoding: gzip\r\n"), head(b"GET /none"), head(b"GET /error"),
    head(b"POST /hello", b"Content-Length: 5\r\n") + b"abcde",
    head(b"POST /hello", b"Transfer-Encoding: chunked\r\n") + b"3\r\nabc\r\n0\r\n\r\n",
    head(b"GET /page", b"If-None-Match: \"x\"\r\n"), head(b"GET /large"), b"GET / HTTP/9.9\r\n\r\n"]


def ask_many(s, count, seed):
    """Pipelines of mixed requests, some left unread; half of the connections close themselves."""
    dice = random.Random(seed)
    last = head(b"GET /small", b"Connection: close\r\n")
    while count > 0:
        batch = [dice.choice(MIX) for _ in range(dice.randrange(1, 60))]
        count -= len(batch)
        with socket.create_connection(("127.0.0.1", s.port), 30) as c:
            try:
                c.sendall(b"".join(batch) + last)
                if dice.random() < 0.95:
                    while c.recv(1 << 20):
                        pass
            except (ConnectionResetError, BrokenPipeError):
                pass


def in_threads(s, count, seed, threads=4):
    every = [threading.Thread(target=ask_many, args=(s, count // threads, seed * 100 + i))
             for i in range(threads)]
    for t in every:
        t.start()
    for t in every:
        t.join()


def flat_memory(io):
    s = Server(PORTICO, io, routes=ROUTES)
    try:
        in_threads(s, REQUESTS // 5, 1)
        time.sleep(1)
        warm = s.resident_kib()
        for part in range(4):
            in_threads(s, REQUESTS // 5, 2 + part)
        s.wait(lambda: s.live()["connections"] == 0, 30)
        grown = s.resident_kib() - warm
        print(f"# {REQUESTS} requests: {warm} KiB after a fifth of them, {grown} KiB more at the end",
              flush=True)
        assert grown < 4096 + warm // 10, f"{grown} KiB more than {warm}"
        same((s.live()["fibers"], s.live()["exchanges"]), (0, 0))
    finally:
        same(s.end(), 0)


def keep_asking(s, stop, failures, patient):
    while not stop.is_set():
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
        try:
            for _ in range(20):
                c.request("GET", "/hello?q=2")
                if c.getresponse().read() != b"hello /hello":
                    failures.append("another answer")
        except (OSError, http.client.HTTPException) as e:
            if not patient:
                failures.append(f"{type(e).__name__}: {e}")
        finally:
            c.close()


def storm(io, what, patient):
    s = Server(PORTICO, io, routes=ROUTES)
    stop, failures = threading.Event(), []
    clients = [threading.Thread(target=keep_asking, args=(s, stop, failures, patient))
               for _ in range(4)]
    for t in clients:
        t.start()
    try:
        end = time.monotonic() + SECONDS / 4
        rounds = 0
        while time.monotonic() < end:
            what(s, rounds)
            rounds += 1
    finally:
        stop.set()
        for t in clients:
            t.join()
        status = s.end()
    print(f"# {rounds} rounds", flush=True)
    same((failures[:3], status), ([], 0))


def reload_once(s, n):
    s.document["apps"]["http"]["servers"]["srv0"]["idle_timeout"] = f"{100 + n % 7}s"
    same(s.api("POST", "/load", s.document)[0], 200)


def kill_once(s, n):
    """Below the keeper's limit of five crashes a minute."""
    pid = s.server_pid()
    os.kill(pid, signal.SIGKILL)
    s.wait(lambda: s.get("/small")[0] == 200 and s.server_pid() != pid)
    time.sleep(13)


try:
    run_cases([
        ("memory stays flat over many mixed requests", flat_memory),
        ("reloads without a pause lose no request", lambda io: storm(io, reload_once, False)),
        ("a server process that is killed again and again comes back",
         lambda io: storm(io, kill_once, True))])
finally:
    subprocess.run(["rm", "-r", FOLDER], check=False)
