#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Logs of the whole program, as TAP: complete under load, rolled, kept over reloads, and never in
the way of a request. Usage: log_test.py PORTICO."""
import contextlib
import glob
import gzip
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from server import Skip, fenced, free_port, run_cases, same

PORTICO = sys.argv[1]
# A disk that the whole machine writes to may stop a log thread for longer than its queue lasts.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Server:
    """A running portico with its documents and logs in a folder of its own."""

    def __init__(self, io, logging, logs=None, routes=None, folder=None, http_more=None):
        self.port, self.admin = free_port(), free_port()
        self.temporary = tempfile.TemporaryDirectory(prefix="portico-log-", dir=MEMORY)
        self.folder = folder or self.temporary.name
        self.routes = routes or [{"handle": [{"handler": "static_response", "body": "hello"}]}]
        self.more = http_more or {}
        self.file = f"{self.temporary.name}/config.json"
        self.write(self.document(logging, logs))
        self.err = open(f"{self.temporary.name}/stderr", "w+b")
        self.process = subprocess.Popen(
            [PORTICO, "run", "--config", self.file], stdout=self.err, stderr=self.err,
            env=dict(os.environ, PORTICO_IO=io, PORTICO_WORKERS="2",
                     XDG_CONFIG_HOME=self.temporary.name, XDG_DATA_HOME=self.temporary.name))
        self.wait(lambda: self.get("/up") is not None)

    def document(self, logging, logs=None):
        server = {"listen": [f"127.0.0.1:{self.port}"], "routes": self.routes,
                  "logs": {} if logs is None else logs}
        return fenced({"admin": {"listen": f"localhost:{self.admin}"}, "logging": logging,
                       "apps": {"http": {"servers": {"srv0": server}, **self.more}}})

    def write(self, document):
        with open(self.file, "w", encoding="utf-8") as f:
            json.dump(document, f)

    def get(self, path="/", headers=None, method="GET", body=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            c.request(method, path, body, headers or {})
            return c.getresponse().read()
        finally:
            c.close()

    def api(self, method, path, value=None):
        c = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=30)
        fields = {"Host": f"localhost:{self.admin}", "Content-Type": "application/json"}
        try:
            c.request(method, path, None if value is None else json.dumps(value), fields)
            answer = c.getresponse()
            return answer.status, answer.read().decode()
        finally:
            c.close()

    def text(self):
        with open(f"{self.temporary.name}/stderr", encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait(self, condition, seconds=30):
        end = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except (OSError, ValueError):  # half a line
                pass
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError("not reached; stderr: " + self.text()[-3000:])
            time.sleep(0.02)

    def end(self, status=0):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            got = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("did not end; stderr: " + self.text()[-3000:])
        text = self.text()
        self.err.close()
        assert "Sanitizer" not in text, text
        same(got, status)
        return text

    def clean(self):
        self.temporary.cleanup()


def lines_of(path):
    opened = gzip.open if path.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def to_file(path, **more):
    return {"logs": {"default": {"exclude": ["http.log.access"]},
                     "a": {"writer": {"output": "file", "filename": path, **more},
                           "include": ["http.log.access"]}}}


def pipeline(port, paths, pad=0):
    """Many requests on one connection, as fast as they go."""
    field = f"X-Pad: {'x' * pad}\r\n" if pad else ""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as s:
        asked = b"".join(f"GET {p} HTTP/1.1\r\nHost: h\r\n{field}\r\n".encode() for p in paths)
        sender = threading.Thread(target=s.sendall, args=(asked,))
        sender.start()
        got, found = b"", 0
        while found < len(paths):
            piece = s.recv(1 << 20)
            if not piece:
                break
            got += piece
            found += got.count(b"\r\n\r\nhello")
            got = got[got.rfind(b"hello") + 5:] if b"hello" in got else got
        sender.join()
        same(found, len(paths))


def load(port, clients, each, pad=0, first=0):
    """Every path is asked for once; returns the paths."""
    paths = [[f"/{c}/{i}" for i in range(first, first + each)] for c in range(clients)]
    threads = [threading.Thread(target=pipeline, args=(port, p, pad)) for p in paths]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return [p for some in paths for p in some]


def check_complete(lines, paths, ordered=True):
    uris = [line["request"]["uri"] for line in lines if line["request"]["uri"] != "/up"]
    missing = set(paths) - set(uris)
    assert not missing, f"{len(missing)} missing, as {sorted(missing)[:5]}"
    same(len(uris), len(paths))
    last = {}
    for uri in uris if ordered else []:  # a connection stays with its worker, whose order is kept
        client, number = uri[1:].split("/")
        assert int(number) > last.get(client, -1), "out of order"
        last[client] = int(number)


def fields(io):
    routes = [{"match": [{"path": ["/skip"]}],
               "handle": [{"handler": "vars", "log_skip": True},
                          {"handler": "static_response", "body": "x"}]},
              {"match": [{"path": ["/named"]}],
               "handle": [{"handler": "vars", "access_logger_names": ["one", ""]},
                          {"handler": "static_response", "body": "x"}]},
              {"match": [{"path": ["/fail"]}],
               "handle": [{"handler": "error", "status_code": "503", "error": "broken"}]},
              {"match": [{"path": ["/missing"]}],
               "handle": [{"handler": "error", "status_code": "404", "error": "none"}]},
              {"match": [{"path": ["/nothing"]}], "handle": [], "terminal": True},
              {"handle": [{"handler": "log_append", "key": "early", "value": "constant",
                           "early": True},
                          {"handler": "log_append", "key": "q", "value": "{http.request.uri.query}"},
                          {"handler": "log_append", "key": "body", "value": "{http.response.body}"},
                          {"handler": "headers",
                           "request": {"set": {"X-Changed": ["1"]}},
                           "response": {"set": {"Set-Cookie": ["a=b"]}}},
                          {"handler": "static_response", "body": "hello",
                           "headers": {"X-A": ["1", "2"]}}]}]
    temporary = tempfile.TemporaryDirectory(prefix="portico-log-", dir=MEMORY)
    path = f"{temporary.name}/deep/er/a.log"
    logs = {"default_logger_name": "d", "logger_names": {"*.example.com": ["w"], "two.org": "t"},
            "skip_hosts": ["quiet.org"]}
    logging = to_file(path, mode="0640")
    logging["logs"]["all"] = {"writer": {"output": "file", "filename": f"{temporary.name}/d.log"}}
    s = Server(io, logging, logs, routes)
    try:
        s.get("/x?q=<1>&y", {"Cookie": "secret", "authorization": "Basic eA==", "x-a": "é\"",
                             "Host": "h"}, "POST", b"12345")
        s.get("/skip")
        s.get("/named")
        s.get("/fail")
        s.get("/missing")
        s.get("/nothing")
        s.get("/host", {"Host": "a.example.com:80"})
        s.get("/host", {"Host": "two.org"})
        s.get("/host", {"Host": "quiet.org"})
        s.get("/last")
        s.wait(lambda: any(l["request"]["uri"] == "/last" for l in lines_of(path)))
        all_lines = lines_of(path)
        by = {}
        for line in all_lines:
            by.setdefault(line["request"]["uri"], []).append(line)
        first = by["/x?q=<1>&y"][0]
        same(list(first), ["level", "ts", "logger", "msg", "request", "bytes_read", "user_id",
                           "duration", "size", "status", "resp_headers", "early", "body", "q"])
        same(list(first["request"]), ["remote_ip", "remote_port", "client_ip", "proto", "method",
                                      "host", "uri", "headers"])
        same((first["level"], first["logger"], first["msg"]),
             ("info", "http.log.access.d", "handled request"))
        same((first["request"]["remote_ip"], first["request"]["client_ip"],
              first["request"]["proto"], first["request"]["method"], first["request"]["host"]),
             ("127.0.0.1", "127.0.0.1", "HTTP/1.1", "POST", "h"))
        same(first["request"]["headers"]["Cookie"], ["REDACTED"])
        same(first["request"]["headers"]["Authorization"], ["REDACTED"])
        same(first["request"]["headers"]["X-A"], ["\ufffd\""])
        assert "X-Changed" not in first["request"]["headers"] and \
            "Host" not in first["request"]["headers"], first
        same(first["resp_headers"]["X-A"], ["1", "2"])
        same(first["resp_headers"]["Set-Cookie"], ["REDACTED"])
        same((first["status"], first["size"], first["early"], first["q"], first["body"]),
             (200, 5, "constant", "q=<1>&y", "hello"))
        assert 0 < first["duration"] < 5 and abs(first["ts"] - time.time()) < 60
        assert "/skip" not in by
        same([l["logger"] for l in by["/named"]], ["http.log.access.one", "http.log.access"])
        same([(l["level"], l["status"]) for l in by["/fail"] + by["/missing"]],
             [("error", 503), ("info", 404)])
        same((by["/nothing"][0]["status"], by["/nothing"][0]["msg"]), (0, "NOP"))  # nobody answered
        assert "Content-Length" not in by["/nothing"][0]["resp_headers"], by["/nothing"]
        same({l["logger"] for l in by["/host"]}, {"http.log.access.w", "http.log.access.t"})
        same(os.stat(path).st_mode & 0o777, 0o640)
        early = open(f"{temporary.name}/d.log", encoding="utf-8").read()
        assert '"msg":"workers started"' in early and \
            '"msg":"server running","name":"srv0"' in early, early
        same(os.stat(os.path.dirname(path)).st_mode & 0o777, 0o700)
        text = s.end()
        assert '"logger":"http.log.error.d","msg":"broken","request":{"remote_ip":"127.0.0.1"' \
            in text, text
    finally:
        s.end()
        s.clean()
        temporary.cleanup()


def under_load(io):
    with tempfile.TemporaryDirectory(prefix="portico-log-", dir=MEMORY) as folder:
        path = f"{folder}/a.log"
        s = Server(io, to_file(path))
        try:
            paths = load(s.port, 4, 2500)
        finally:
            s.end()
            s.clean()
        check_complete(lines_of(path), paths)


def rolls(io, compression, ending):
    with tempfile.TemporaryDirectory(prefix="portico-log-", dir=MEMORY) as folder:
        path = f"{folder}/a.log"
        s = Server(io, to_file(path, roll_size_mb=1, roll_keep=100, roll_compression=compression))
        try:
            paths = load(s.port, 4, 500, 2000)
            s.wait(lambda: not ending or len(glob.glob(f"{folder}/a-*.log{ending}")) >= 3)
        finally:
            s.end()
            s.clean()
        names = sorted(glob.glob(f"{folder}/a-*.log*"))
        assert len(names) >= 3, names
        assert all("-size.log" in n for n in names), names
        twice = {n + ending for n in names if ending and n + ending in names}  # ended while it compressed
        lines = [line for n in names if not n.endswith(".tmp") and n not in twice for line in lines_of(n)]
        assert all(os.path.getsize(n) <= 1 << 20 for n in names)
        check_complete(lines + lines_of(path), paths)


def reloads(io):
    with tempfile.TemporaryDirectory(prefix="portico-log-", dir=MEMORY) as folder:
        path = f"{folder}/a.log"
        s = Server(io, to_file(path))
        try:
            inode = os.stat(path).st_ino
            over, asked = threading.Event(), []

            def client():
                while not over.is_set():
                    asked.append(f"/0/{len(asked)}")
                    s.get(asked[-1])
            t = threading.Thread(target=client)
            t.start()
            for i in range(8):
                document = s.document(to_file(path))
                document["logging"]["logs"]["default"]["level"] = "DEBUG" if i % 2 == 0 else "INFO"
                same(s.api("POST", "/load", document), (200, ""))
            bad = s.document({"logs": {"b": {"writer": {"output": "file",
                                                        "filename": "/proc/no/such/file"}}}})
            status, text = s.api("POST", "/load", bad)
            same(status, 400)
            assert "setting up log 'b': opening log writer" in text, text
            over.set()
            t.join()
            same(os.stat(path).st_ino, inode)
            os.rename(path, path + ".moved")  # as logrotate does
            time.sleep(1.1)
            s.get("/0/1000000")
            asked.append("/0/1000000")
            s.wait(lambda: os.path.exists(path) and os.path.getsize(path) > 0)
        finally:
            s.end()
            s.clean()
        check_complete(lines_of(path + ".moved") + lines_of(path), asked, False)


def blocked_fifo(io):
    with tempfile.TemporaryDirectory(prefix="portico-log-", dir=MEMORY) as folder:
        fifo = f"{folder}/fifo"
        os.mkfifo(fifo)
        logging = to_file(fifo)
        logging["logs"]["b"] = {"writer": {"output": "file", "filename": f"{folder}/b.log"},
                                "include": ["http.log.access"]}
        s = Server(io, logging)
        try:
            paths = []  # more than a pipe and what is kept for it, but never more than a queue holds
            for first in range(0, 2500, 500):
                paths += load(s.port, 2, 500, 2000, first)
                s.wait(lambda: len(lines_of(f"{folder}/b.log")) >= len(paths))
            s.wait(lambda: "portico_log_dropped_total 0\n" not in s.api("GET", "/metrics")[1])
            reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
            got = b""
            end = time.monotonic() + 30
            while time.monotonic() < end and b"log lines were dropped" not in s.text().encode():
                try:
                    got += os.read(reader, 1 << 20)
                except BlockingIOError:
                    time.sleep(0.01)
            os.close(reader)
            assert got.count(b"\n") > 1000, got.count(b"\n")
            assert '"writer":"' + fifo in s.text(), s.text()[-2000:]
        finally:
            s.end()
            s.clean()
        check_complete(lines_of(f"{folder}/b.log"), paths)


def full_disk(io):
    with tempfile.TemporaryDirectory(prefix="portico-log-", dir=MEMORY) as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder],
                              stderr=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            raise Skip("no right to mount a file system")
        s = None
        try:
            s = Server(io, to_file(f"{folder}/a.log"))
            load(s.port, 2, 2000)
            same(s.get("/still"), b"hello")
            s.wait(lambda: "writing log" in s.text())
            subprocess.run(["mount", "-o", "remount,size=8m", folder], check=True)
            s.get("/after")
            s.wait(lambda: '"/after"' in open(f"{folder}/a.log", encoding="utf-8").read())
            check_complete([line for line in lines_of(f"{folder}/a.log")
                            if line["request"]["uri"][1] in "01"],
                           [f"/{c}/{i}" for c in range(2) for i in range(2000)])
        finally:
            if s is not None:
                s.end()
                s.clean()
            subprocess.run(["umount", "-l", folder], check=False)


def blocked_stderr(io):
    """Nobody reads the pipe that stderr is."""
    reader, writer = os.pipe()
    port, admin = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="portico-log-", dir=MEMORY) as folder:
        document = {"admin": {"listen": f"localhost:{admin}"},
                    "apps": {"http": {"servers": {"s": {
                        "listen": [f"127.0.0.1:{port}"], "logs": {},
                        "routes": [{"handle": [{"handler": "static_response",
                                                "body": "hello"}]}]}}}}}
        with open(f"{folder}/c.json", "w", encoding="utf-8") as f:
            json.dump(document, f)
        p = subprocess.Popen([PORTICO, "run", "--config", f"{folder}/c.json"], stderr=writer,
                             env=dict(os.environ, PORTICO_IO=io, PORTICO_WORKERS="2",
                                      XDG_CONFIG_HOME=folder, XDG_DATA_HOME=folder))
        os.close(writer)
        try:
            end = time.monotonic() + 30
            while time.monotonic() < end:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            load(port, 2, 3000)
        finally:
            p.send_signal(signal.SIGTERM)
            started = time.monotonic()
            p.wait(60)
            os.close(reader)
        assert time.monotonic() - started < 30
        same(p.returncode, 0)


def over_net(io):
    for network in ("tcp", "udp"):
        kind = socket.SOCK_STREAM if network == "tcp" else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, kind) as peer:
            peer.bind(("127.0.0.1", 0))
            peer.settimeout(30)
            port = peer.getsockname()[1]
            if network == "tcp":
                peer.listen()
            s = Server(io, {"logs": {"n": {"writer": {"output": "net",
                                                      "address": f"{network}/127.0.0.1:{port}"},
                                           "include": ["http.log.access"]}}})
            try:
                got, conn = b"", peer if network == "udp" else peer.accept()[0]
                conn.settimeout(30)
                for i in range(5):
                    s.get(f"/{i}")
                while got.count(b"\n") < 6:
                    piece = conn.recv(65536)
                    assert network == "tcp" or piece.count(b"\n") == 1
                    got += piece
                if network == "tcp":
                    conn.close()
                    peer.settimeout(0.02)
                    for i in range(500):  # what was written before the break was heard of is lost
                        s.get(f"/again/{i}")
                        with contextlib.suppress(TimeoutError):
                            conn, again = peer.accept()[0], b""
                            break
                    conn.settimeout(30)
                    s.get("/again/last")
                    while b"/again/last" not in again:
                        piece = conn.recv(65536)
                        assert piece, again
                        again += piece
                    json.loads(again.splitlines()[0])
                    conn.close()
            finally:
                s.end()
                s.clean()


def left_client(io):
    """A client that leaves while its upstream says nothing."""
    with tempfile.TemporaryDirectory(prefix="portico-log-", dir=MEMORY) as folder, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        path = f"{folder}/a.log"
        upstream = f"127.0.0.1:{silent.getsockname()[1]}"
        routes = [{"match": [{"path": ["/slow"]}],
                   "handle": [{"handler": "reverse_proxy", "upstreams": [{"dial": upstream}]}]},
                  {"handle": [{"handler": "static_response", "body": "hello"}]}]
        s = Server(io, to_file(path), None, routes)
        try:
            with socket.create_connection(("127.0.0.1", s.port), timeout=30) as c:
                c.sendall(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
                asked = silent.accept()[0]  # stays open, and silent
                asked.recv(1000)
            s.wait(lambda: any(l["request"]["uri"] == "/slow" for l in lines_of(path)))
            line = [l for l in lines_of(path) if l["request"]["uri"] == "/slow"][0]
            same((line["status"], line["level"], line["size"]), (499, "info", 0))
            asked.close()
        finally:
            s.end()
            s.clean()


def new_options(io):
    with tempfile.TemporaryDirectory(prefix="portico-log-", dir=MEMORY) as folder:
        path = f"{folder}/a.log"
        s = Server(io, to_file(path, mode="0600"))
        try:
            paths = load(s.port, 1, 2500)
            same(s.api("POST", "/load", s.document(
                to_file(path, mode="0644", roll_size_mb=1, roll_gzip=False)))[0], 200)
            s.wait(lambda: os.stat(path).st_mode & 0o777 == 0o644)
            more = [f"/9/{i}" for i in range(3000)]
            pipeline(s.port, more)
        finally:
            s.end()
            s.clean()
        names = glob.glob(f"{folder}/a-*-size.log")
        assert names, os.listdir(folder)
        check_complete([l for n in sorted(names) for l in lines_of(n)] + lines_of(path),
                       paths + more)


def sampled(io):
    with tempfile.TemporaryDirectory(prefix="portico-log-", dir=MEMORY) as folder:
        logging = to_file(f"{folder}/a.log")
        logging["logs"]["a"]["sampling"] = {"interval": "1h", "first": 5, "thereafter": 100}
        s = Server(io, logging)
        try:
            load(s.port, 1, 504)
        finally:
            s.end()
            s.clean()
        same(len(lines_of(f"{folder}/a.log")), 10)


def hostile(io):
    with tempfile.TemporaryDirectory(prefix="portico-log-", dir=MEMORY) as folder:
        logging = to_file(f"{folder}/a.log")
        logging["logs"]["c"] = {"writer": {"output": "file", "filename": f"{folder}/c.log"},
                                "encoder": {"format": "console"}, "include": ["http.log.access"]}
        s = Server(io, logging)
        try:
            with socket.create_connection(("127.0.0.1", s.port), timeout=30) as c:
                c.sendall(b"GET /%0a\"\\ HTTP/1.1\r\nHost: h\r\nX: \xc2\x9b31m\xff\xfe\t\"\r\n"
                          b"X-Long: " + b"\"" * 12000 + b"\r\nConnection: close\r\n\r\n")
                while c.recv(65536):
                    pass
        finally:
            s.end()
            s.clean()
        line = lines_of(f"{folder}/a.log")[-1]
        same(line["request"]["headers"]["X"], ["\x9b31m\ufffd\ufffd\t\""])
        same(line["request"]["headers"]["X-Long"], ["\"" * 12000])
        raw = open(f"{folder}/a.log", "rb").read() + open(f"{folder}/c.log", "rb").read()
        assert b"\xc2\x9b" not in raw and b"\xff" not in raw
        same(open(f"{folder}/c.log", "rb").read().count(b"\n"), 2)


def metrics(io):
    routes = [{"match": [{"path": ["/metrics"]}], "handle": [{"handler": "metrics"}]},
              {"match": [{"path": ["/fail"]}],
               "handle": [{"handler": "error", "status_code": "503"}]},
              {"handle": [{"handler": "static_response", "body": "hello"}]}]
    s = Server(io, {"logs": {"default": {"level": "ERROR"}}}, None, routes,
               http_more={"metrics": {}})
    try:
        s.get("/fail")
        load(s.port, 4, 1000)
        s.get("/x", method="POST", body=b"x" * 5000)
        s.wait(lambda: 'requests_in_flight{handler="static_response",server="srv0"} 0\n' in s.api("GET", "/metrics")[1])
        for text in (s.get("/metrics").decode(), s.api("GET", "/metrics")[1]):
            values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")

            def value(name, code=200, method="GET", more="", handler="static_response"):
                return int(values[f'caddy_http_{name}{{code="{code}",handler="{handler}",'
                                  f'method="{method}",server="srv0"{more}}}'])
            up = int(values['caddy_http_requests_total{handler="static_response",server="srv0"}'])
            up -= 4001
            assert up >= 1, up
            same(value("request_duration_seconds_count"), 4000 + up)
            same(value("response_duration_seconds_count"), 4000 + up)
            same(value("response_size_bytes_sum"), 5 * (4000 + up))
            same(value("response_size_bytes_bucket", more=',le="256"'), 4000 + up)
            same(value("request_size_bytes_bucket", method="POST", more=',le="4096"'), 0)
            same(value("request_size_bytes_bucket", method="POST", more=',le="16384"'), 1)
            same(value("request_duration_seconds_count", 503, handler="error"), 1)
            same(values['caddy_http_request_errors_total{handler="error",server="srv0"}'], "1")
            same(values['caddy_http_requests_in_flight{handler="static_response",server="srv0"}'],
                 "0")
            same(values["caddy_config_last_reload_successful"], "1")
            assert 10 < int(values["process_open_fds"]) < 200
            assert int(values["process_resident_memory_bytes"]) > 1000000
            assert abs(float(values["process_start_time_seconds"]) - time.time()) < 60
        same(s.api("POST", "/load", {"nonsense": 1})[0], 400)
        text = s.api("GET", "/metrics")[1]
        assert "caddy_config_last_reload_successful 0\n" in text
        assert 'caddy_admin_http_requests_total{code="400",handler="load",method="POST",' \
            'path="/load"} 1\n' in text, text
        assert 'caddy_admin_http_request_errors_total{handler="load",method="POST",' \
            'path="/load"} 1\n' in text, text
    finally:
        s.end()
        s.clean()


# Hashes of parameters and of arrays are left out: 2.6.2 hashes them wrongly, newer ones do not.
ENCODERS = {
    "plain": {"format": "json"},
    "iso": {"format": "json", "time_format": "iso8601", "duration_format": "string",
            "level_format": "upper"},
    "keys": {"format": "json", "time_format": "rfc3339_nano", "duration_format": "ms",
             "level_format": "color", "time_key": "t", "level_key": "l", "message_key": "m",
             "name_key": "n"},
    "none": {"format": "json", "time_key": "", "level_key": "", "message_key": "", "name_key": ""},
    "wall": {"format": "json", "time_format": "wall_nano", "time_local": True,
             "duration_format": "ns"},
    "layout": {"format": "json", "time_format": "Mon Jan _2 2006 3:04:05.000PM MST Z07:00"},
    "milli": {"format": "json", "time_format": "unix_milli_float"},
    "console": {"format": "console", "time_format": "common_log", "level_format": "lower"},
    "color": {"format": "console"},
    "filter": {"format": "filter", "wrap": {"format": "json"}, "fields": {
        "request>remote_ip": {"filter": "ip_mask", "ipv4_cidr": 8, "ipv6_cidr": 32},
        "request>uri": {"filter": "query", "actions": [
            {"type": "replace", "parameter": "b", "value": "x y"},
            {"type": "delete", "parameter": "d"}]},
        "request>headers>Cookie": {"filter": "cookie", "actions": [
            {"type": "hash", "name": "one"}, {"type": "delete", "name": "two"}]},
        "request>host": {"filter": "hash"},
        "request>headers>X-Plain": {"filter": "regexp", "regexp": "s(.)c", "value": "[$1]"},
        "request>proto": {"filter": "rename", "name": "protocol"},
        "status": {"filter": "replace", "value": "?"},
        "resp_headers": {"filter": "delete"}}},
}


def shape(value):
    """What differs from run to run, made equal: digits, and how many there are of a fraction."""
    if isinstance(value, (float, int)):
        return 0
    return re.sub(r"\d+", "0", re.sub(r"\.\d+(?=Z|[+-]\d\d:|$)", ".0", value))


def normal(text, newest):
    """A line as a tree. What Caddy's newest adds to 2.6.2, or does otherwise, is taken out."""
    head, context = text.rsplit("\t", 1) if "\t" in text and text[0] != "{" else ("", text)
    line = json.loads(context)
    request = line["request"]
    if newest:
        assert "client_ip" in request and "bytes_read" in line
        request.pop("client_ip")
        line.pop("bytes_read")
    request.pop("remote_port")
    line.get("resp_headers", {}).pop("Server", None)
    for volatile in ("ts", "t", "duration"):
        if volatile in line:
            line[volatile] = shape(line[volatile])
    if isinstance(line["duration"], str):
        line["duration"] = re.sub(r"0(\.0)?(ns|µs|ms|s)", "0s", line["duration"])
    request["host"] = shape(request["host"])
    return shape(head), line


def collect(program, folder, port, environment, encoders):
    logs = {name: {"writer": {"output": "file", "filename": f"{folder}/{name}"},
                   "encoder": encoder, "include": ["http.log.access"]}
            for name, encoder in encoders.items()}
    document = {
        "admin": {"disabled": True}, "logging": {"logs": logs},
        "apps": {"http": {"servers": {"s": {
            "listen": [f"127.0.0.1:{port}"], "logs": {"should_log_credentials": True},
            "routes": [{"match": [{"path": ["/fail"]}],
                        "handle": [{"handler": "error", "status_code": 503}]},
                       {"handle": [{"handler": "static_response", "body": "hello", "headers": {
                           "X-Two": ["1", "2"], "Set-Cookie": ["a=b"]}}]}]}}}}}
    with open(f"{folder}/c.json", "w", encoding="utf-8") as f:
        json.dump(document, f)
    with open(f"{folder}/stderr", "w", encoding="utf-8") as err:
        p = subprocess.Popen([program, "run", "--config", f"{folder}/c.json"], stdout=err,
                             stderr=err, env=environment)
        try:
            end = time.monotonic() + 20
            while True:
                try:
                    c = socket.create_connection(("127.0.0.1", port), timeout=5)
                    break
                except OSError:
                    assert time.monotonic() < end, open(err.name, encoding="utf-8").read()
                    time.sleep(0.05)
            c.sendall(b"GET /a%20b?b=1&a=%3C&c=2&d=3&b=4 HTTP/1.1\r\nHost: h\r\nuser-agent: x\r\n"
                      b"Cookie: one=1; two=2; three=3\r\nX-Plain: a secret\r\nX-PLAIN: \xc3\xa9\t\"\r\n"
                      b"Authorization: Basic eA==\r\n\r\nPOST /fail HTTP/1.1\r\nHost: h\r\n"
                      b"Content-Length: 3\r\nConnection: close\r\n\r\nabc")
            while c.recv(65536):
                pass
            c.close()
        finally:
            p.send_signal(signal.SIGTERM)
            p.wait(60)
    return {name: open(f"{folder}/{name}", encoding="utf-8").read().splitlines()
            for name in encoders}


def as_caddy(io):
    """Every form of a line beside what Debian's Caddy writes."""
    caddy = shutil.which("caddy")
    if caddy is None or b"2.6" not in subprocess.run([caddy, "version"], check=False,
                                                     stdout=subprocess.PIPE).stdout:
        raise Skip("no Caddy 2.6 here")
    others = {k: v for k, v in ENCODERS.items() if k != "filter"}
    for encoders in (others, {"filter": ENCODERS["filter"]}):  # 2.6.2 filters other logs' lines too
        lines = []
        for program in (caddy, PORTICO):
            with tempfile.TemporaryDirectory(prefix="portico-log-", dir=MEMORY) as folder:
                environment = dict(os.environ, PORTICO_IO=io, PORTICO_WORKERS="1", HOME=folder,
                                   TZ="Asia/Kolkata", XDG_CONFIG_HOME=folder, XDG_DATA_HOME=folder)
                lines.append(collect(program, folder, free_port(), environment, encoders))
        for name in encoders:
            same((name, len(lines[1][name])), (name, 2))
            for want, got in zip(lines[0][name], lines[1][name]):
                same((name, normal(got, True)), (name, normal(want, False)))


CASES = [
    ("each form of a line is what Caddy writes",
     as_caddy),
    ("requests are counted over all workers, as Caddy names them",
     metrics),
    ("a line has Caddy's fields in Caddy's order, credentials are REDACTED",
     fields),
    ("two workers under load lose no line, and each keeps its order",
     under_load),
    ("rolling under load loses no line; gzip",
     lambda io: rolls(io, "gzip", ".gz")),
    ("rolling under load loses no line; plain",
     lambda io: rolls(io, "none", "")),
    ("a reload keeps the file open and loses no line; a moved file is opened anew",
     reloads),
    ("a writer that takes nothing holds up neither requests nor another log",
     blocked_fifo),
    ("a full disk stops nothing; its lines come when there is room",
     full_disk),
    ("a stderr that nobody reads stops nothing, the end neither",
     blocked_stderr),
    ("lines go over TCP, again after a break, and over UDP one by one",
     over_net),
    ("a client that left while its upstream was silent is logged with 499",
     left_client),
    ("a reload gives an open file new options",
     new_options),
    ("sampling keeps the first ones and then one in so many",
     sampled),
    ("hostile bytes are escaped in both forms",
     hostile),
]

sys.exit(run_cases(CASES))
