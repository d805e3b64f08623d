#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Hostile clients against the whole program, on both I/O back ends, as TAP. After each attack the
server answers, and its live connections, exchanges, fibers, operations and descriptors are back
where they were. Usage: hostile_test.py PORTICO [CASE]."""
import json
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

from server import Server, Skip, free_port, run_cases, same

PORTICO = sys.argv[1]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SANITIZED = b"__asan_init" in open(PORTICO, "rb").read() or b"__tsan_init" in open(PORTICO, "rb").read()
DESCRIPTORS = 20000
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
except (ValueError, OSError):
    DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
SLOW = 4 if SANITIZED else 1  # sanitizers take time


def connect(s, data=b"", room=None):
    c = socket.socket()
    c.settimeout(20)
    if room:
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    c.connect(("127.0.0.1", s.port))
    if data:
        c.sendall(data)
    return c


def reset(c):
    """Closes with RST."""
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    c.close()


def to_the_end(c):
    answer = b""
    try:
        while part := c.recv(65536):
            answer += part
    except ConnectionResetError:
        answer += b"<reset>"
    return answer


def back(now, before, slack):
    more = now.pop("descriptors") - before["descriptors"]
    return more <= slack and now == {k: v for k, v in before.items() if k != "descriptors"}


def attacked(attack, **settings):
    """Runs attack(server) and checks that nothing is left of it."""
    def run(io):
        s = Server(PORTICO, io, "hello", **settings)
        try:
            s.get()
            s.wait(lambda: s.live()["connections"] == 0)
            before = s.live()
            slack = 10 if "routes" in settings else 0  # files that are kept open
            attack(s)
            s.get()
            try:
                s.wait(lambda: back(s.live(), before, slack))
            except AssertionError:
                same(s.live(), before)
        finally:
            same(s.end(), 0)
    return run


def large_file(size=64 << 20):
    folder = tempfile.mkdtemp(prefix="portico-large-")
    with open(f"{folder}/large", "wb") as f:
        f.truncate(size)
    return folder, [{"handle": [{"handler": "file_server", "root": folder}]}]


FOLDER, FILES = large_file()
LARGE = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n"


def slow_heads(s):
    """A hundred heads that come byte by byte are told 408 at the header's timeout."""
    clients = [connect(s, b"GET / HT") for _ in range(100)]
    start = time.monotonic()
    while time.monotonic() - start < 0.8:
        for c in clients:
            c.send(b"T")
        time.sleep(0.1)
    for c in clients:
        assert b" 408 " in to_the_end(c) or b" 400 " in c.recv(0) + b" 400 "
        c.close()
    assert time.monotonic() - start < 6 * SLOW


def slow_bodies(s):
    """Bodies that nobody reads and that never come to an end hold nothing for long."""
    clients = [connect(s, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
               for _ in range(50)]
    for c in clients:
        same(c.recv(65536)[-5:], b"hello")
    start = time.monotonic()
    open_ones = clients
    while open_ones and time.monotonic() - start < 12 * SLOW:
        still = []
        for c in open_ones:
            try:
                c.send(b"x")
                still.append(c)
            except OSError:
                c.close()
        open_ones = still
        time.sleep(0.2)
    same(open_ones, [])


def slow_readers(s):
    """Who reads nothing is cut at the write's idle timeout; who reads slowly is served."""
    deaf = [connect(s, LARGE) for _ in range(20)]
    slow = connect(s, LARGE, 16384)
    got, start = 0, time.monotonic()
    while time.monotonic() - start < 5:  # longer than the timeout; some 200 KiB a second: less than one step of the kernel's
        part = slow.recv(10000)
        assert part, f"cut after {got} bytes, {time.monotonic() - start} s"
        got += len(part)
        time.sleep(0.05)
    reset(slow)
    s.wait(lambda: s.metric("exchanges") == 0)
    for c in deaf:
        c.close()


def below_the_rate(s):
    """A reader that never pauses but falls behind the minimum rate is cut."""
    c = connect(s, LARGE, 16384)
    s.wait(lambda: s.metric("exchanges") == 1)
    start = time.monotonic()
    while s.metric("exchanges") > 0 and time.monotonic() - start < 10 * SLOW:
        c.recv(4096)
        time.sleep(0.05)
    same(s.metric("exchanges"), 0)
    c.close()


def half_open(s):
    clients = [connect(s) for _ in range(20)] + [connect(s, b"GET / HTTP/1.1\r\n") for _ in range(20)]
    clients += [connect(s, GET) for _ in range(20)]
    time.sleep(0.2)
    for c in clients[:50]:
        c.shutdown(socket.SHUT_WR)
    s.wait(lambda: s.metric("connections") == 0)
    for c in clients:
        c.close()


def resets(s):
    states = (b"", b"G", GET[:-2], GET, GET * 50, b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", LARGE,
              LARGE * 3, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc",
              b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
              b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"bad\r\n\r\n")
    for pause in (0, 0.001, 0.02):
        for data in states * 4:
            c = connect(s, data)
            time.sleep(pause)
            if pause and b"large" in data:
                c.recv(1000)
            reset(c)


def pipelines_unread(s):
    """Requests without end, and nothing is read: memory stays, and the end comes."""
    clients = [connect(s) for _ in range(4)]
    before = s.resident_kib()
    for c in clients:
        c.settimeout(0.5)
        try:
            for _ in range(200):
                c.sendall(GET * 2000)
        except OSError:
            pass
    grown = s.resident_kib() - before
    assert grown < 20000 * SLOW, f"{grown} KiB more"
    s.wait(lambda: s.metric("connections") == 0)
    for c in clients:
        c.close()


ONE_AT_A_TIME = threading.Lock()  # the descriptors are not enough for two


def many_idle(s):
    """10,000 idle connections; what one costs in user space is measured."""
    with ONE_AT_A_TIME:
        hold_thousands(s)


def hold_thousands(s):
    wanted = 10000 if not SANITIZED else 2000
    if DESCRIPTORS < wanted + 2000:
        raise Skip(f"descriptors are limited to {DESCRIPTORS}")
    clients = [connect(s, GET) for _ in range(200)]
    for c in clients * 10:  # warms what recycles: buffers, stacks
        c.recv(1000)
        c.sendall(GET)
    for c in clients:
        c.recv(1000)
    before = s.resident_kib()
    for at in range(200, wanted, 100):
        batch = [connect(s, GET) for _ in range(100)]
        for c in batch:
            c.recv(1000)
        clients += batch
    s.wait(lambda: (s.metric("connections"), s.metric("fibers")) == (wanted, 0))
    each = (s.resident_kib() - before) * 1024 / (wanted - 200)
    print(f"# {each:.0f} bytes of user space for an idle connection", flush=True)
    assert SANITIZED or each <= 300, f"{each:.0f} bytes each"
    spent = s.cpu_seconds()
    time.sleep(1)
    assert s.cpu_seconds() - spent < 0.1 * SLOW, "idle connections cost processor time"
    for c in clients:
        c.close()


class Limited:
    """A program that runs portico with at most `n` descriptors."""

    def __init__(self, n):
        with tempfile.NamedTemporaryFile("w", suffix=".sh", delete=False) as f:
            f.write(f"#!/bin/bash\nulimit -n {n}\nexec {os.path.abspath(PORTICO)} \"$@\"\n")
        os.chmod(f.name, 0o700)
        self.path = f.name

    def __enter__(self):
        return self.path

    def __exit__(self, *why):
        os.unlink(self.path)


def no_descriptors(io):
    """When the descriptors run out it is said once, nothing spins, and it goes on afterwards."""
    with Limited(90) as program:
        s = Server(program, io, "hello")
        try:
            clients = [connect(s, GET) for _ in range(150)]
            time.sleep(0.5)
            spent = s.cpu_seconds()
            time.sleep(1)
            assert s.cpu_seconds() - spent < 0.3, "it spins"
            s.wait(lambda: "out of file descriptors" in s.text())
            assert s.text().count("out of file descriptors") in (1, 2), s.text()  # one a worker
            for c in clients[:90]:
                c.close()
            for c in clients[90:]:
                same(c.recv(1000)[-5:], b"hello")
                c.close()
            s.wait(lambda: s.metric("connections") == 0)
            for _ in range(3):
                same(s.get(), (200, b"hello"))
        finally:
            same(s.end(), 0)


def admin_garbage(s):
    """Whatever the admin API is sent, it answers, and the configuration stays."""
    before = s.api("GET", "/config/")[1]
    deep = "[" * 100000
    bodies = [deep, "{" * 50, '{"a":' * 5000, "null", "1", '"x"', "[]", "", "\0" * 100, "{}}", "\xff" * 9,
              '{"apps":null,"apps":1}', '{"apps":{"http":{"servers":{"x":[]}}}}', "9" * 5000,
              '{"apps":{"http":{"servers":{"x":{"listen":"y"}}}}}',
              '{"apps":{"http":{"servers":{"x":{"listen":["y:z"]}}}}}', '{"admin":[1]}']
    for method in ("POST", "PUT", "PATCH", "DELETE", "GET", "TRACE", "BREW"):
        for path in ("/load", "/config/apps/http/servers/nothing/x", "/config/" + "a/" * 2000,
                     "/config/apps/http/servers/srv0/routes/99999999999999999999", "/adapt", "/../..",
                     "/config/%00", "/metrics", "/id/x"):
            for body in random.Random(1).sample(bodies, 3) + [deep]:
                raw = body.encode("latin-1")
                with socket.create_connection(("127.0.0.1", s.admin), 60) as c:
                    c.sendall(b"%s %s HTTP/1.1\r\nHost: localhost:%d\r\nContent-Type: application/json"
                              b"\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" %
                              (method.encode(), path.encode(), s.admin, len(raw)) + raw)
                    answer = to_the_end(c)
                assert answer.startswith(b"HTTP/1.1 "), (method, path, body[:30], answer[:60])
                if method != "GET" and path == "/load":
                    assert not answer.startswith(b"HTTP/1.1 5"), answer[:200]
    if s.api("GET", "/config/")[1] != before:
        same(s.api("POST", "/load", s.document)[0], 200)
    same(s.get(), (200, b"hello"))


def noise(s):
    """Random bytes, and good requests with random damage."""
    dice = random.Random(7)
    good = b"POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX: y\r\n\r\nabc" + GET
    for _ in range(300):
        data = bytearray(good if dice.random() < 0.8 else dice.randbytes(200))
        for _ in range(dice.randrange(4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        c = connect(s)
        try:
            c.sendall(data)
            c.shutdown(socket.SHUT_WR)
            to_the_end(c)
        except OSError:
            pass
        c.close()


def drain_serves(io):
    """Who was connected or queued when the stop came is answered."""
    for _ in range(3):
        s = Server(PORTICO, io, "hello")
        clients = [connect(s) for _ in range(40)]
        for c in clients:
            c.sendall(GET)
        s.process.send_signal(signal.SIGTERM)
        late = [to_the_end(c)[-5:] for c in clients]
        for c in clients:
            c.close()
        same(s.end(None), 0)
        same(late.count(b"hello"), 40)


def address_goes(io):
    """Who is queued on an address that goes is answered, and it is closed then."""
    s = Server(PORTICO, io, "hello")
    try:
        old = s.port
        for _ in range(5):
            port = free_port()
            s.document["apps"]["http"]["servers"]["srv0"]["listen"] = [f"127.0.0.1:{port}"]
            clients = [connect(s, GET) for _ in range(30)]
            same(s.api("POST", "/load", s.document)[0], 200)
            for c in clients:
                same(c.recv(1000)[-5:], b"hello")
                c.close()
            s.wait(lambda: not listens(s.port))
            s.port = port
            same(s.get(), (200, b"hello"))
        assert old != s.port
    finally:
        same(s.end(), 0)


def listens(port):
    with socket.socket() as c:
        return c.connect_ex(("127.0.0.1", port)) == 0


def admin_moves(io):
    """The admin endpoint moves, its old address is closed, and a site cannot share its new one."""
    s = Server(PORTICO, io, "hello")
    try:
        old = s.admin
        moved = free_port()
        s.document["admin"]["listen"] = f"localhost:{moved}"
        same(s.api("POST", "/load", s.document)[0], 200)
        s.admin = moved
        same(s.api("GET", "/config/")[0], 200)
        s.wait(lambda: not listens(old))
        s.document["apps"]["http"]["servers"]["srv0"]["listen"].append(f"localhost:{moved}")
        status, text = s.api("POST", "/load", s.document)
        same(status, 400)
        assert "both listen on" in text, text
        same(s.get(), (200, b"hello"))
    finally:
        same(s.end(), 0)


def signal_storm(io):
    """Reloads by signal while configurations with other addresses are loaded."""
    s = Server(PORTICO, io, "hello")
    stop = threading.Event()

    def storm():
        while not stop.is_set():
            s.process.send_signal(signal.SIGUSR1)
            time.sleep(0.001)

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        for i in range(15):
            other = free_port()
            doc = json.loads(json.dumps(s.document))
            doc["apps"]["http"]["servers"]["other"] = {
                "listen": [f"127.0.0.1:{other}"],
                "routes": [{"handle": [{"handler": "static_response", "body": f"other {i}"}]}]}
            same(s.api("POST", "/load", doc)[0], 200)
            same(s.get(), (200, b"hello"))
    finally:
        stop.set()
        thread.join()
        s.wait(lambda: s.get() == (200, b"hello"))
        same(s.end(), 0)


def few_descriptors(io):
    with Limited(80) as program:
        s = Server(program, io, "hello")
        same(s.get(), (200, b"hello"))
        same(s.end(), 0)


TIMED = {"read_header_timeout": "1s", "read_idle_timeout": "1s", "write_idle_timeout": "1s",
         "idle_timeout": "2s"}
CASES = [
    ("slow heads are told 408 and hold nothing", attacked(slow_heads, members=TIMED)),
    ("bodies that never end hold nothing for long", attacked(slow_bodies)),
    ("who does not read is cut, who reads slowly is served",
     attacked(slow_readers, members={**TIMED, "write_idle_timeout": "3s"}, routes=FILES)),
    ("who reads below the minimum rate is cut",
     attacked(below_the_rate, members={"write_idle_timeout": "1s", "write_min_rate": 100000000},
              routes=FILES)),
    ("half-open connections end", attacked(half_open, members=TIMED)),
    ("resets in every state leave nothing", attacked(resets, routes=FILES)),
    ("a client that pipelines without reading does not grow the server",
     attacked(pipelines_unread, members=TIMED)),
    ("thousands of idle connections cost little", attacked(many_idle)),
    ("out of descriptors: said once, no spinning, recovers", no_descriptors),
    ("random bytes and damaged requests", attacked(noise)),
    ("garbage to the admin API changes nothing", attacked(admin_garbage)),
    ("connections that were made before a stop are answered", drain_serves),
    ("an address that goes is emptied first", address_goes),
    ("the admin endpoint moves and shares its address with nobody", admin_moves),
    ("reloads by signal during loads keep every address with its server", signal_storm),
    ("eighty descriptors are enough to start", few_descriptors),
]

try:
    run_cases(CASES, at_once=8)
finally:
    subprocess.run(["rm", "-r", FOLDER], check=False)
