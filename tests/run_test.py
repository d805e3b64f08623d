#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The whole program, as TAP: keeper and server processes, admin API, reload, drain, crash, errors.
Usage: run_test.py PORTICO. Ports are free ones that the kernel names; everything started is ended."""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
from server import free_port  # noqa: E402 (beside this file)

PORTICO = sys.argv[1]
count = failed = 0


def document(port, admin, body, **http):
    routes = [{"handle": [{"handler": "static_response", "body": body}]}]
    return {"admin": {"listen": f"localhost:{admin}"},
            "apps": {"http": {"servers": {"srv0": {"listen": [f"127.0.0.1:{port}"],
                                                   "routes": routes}}, **http}}}


class Server:
    """A running portico; its file, its ports."""

    def __init__(self, io="epoll", body="one"):
        self.port, self.admin = free_port(), free_port()
        self.folder = tempfile.TemporaryDirectory(prefix="portico-run-")
        self.file = f"{self.folder.name}/config.json"
        self.write(document(self.port, self.admin, body))
        self.log = open(f"{self.folder.name}/log", "w+b")
        self.process = subprocess.Popen([PORTICO, "run", "--config", self.file],
                                        env=dict(os.environ, PORTICO_IO=io, PORTICO_WORKERS="2",
                                                 XDG_CONFIG_HOME=self.folder.name,
                                                 XDG_DATA_HOME=self.folder.name),
                                        stdout=self.log, stderr=subprocess.STDOUT)
        self.wait(lambda: self.get() == body)

    def write(self, doc):
        with open(self.file, "w", encoding="utf-8") as f:
            json.dump(doc, f)

    def get(self, port=None):
        c = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=30)
        try:
            c.request("GET", "/")
            return c.getresponse().read().decode()
        finally:
            c.close()

    def api(self, method, path, value=None, headers=None):
        c = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=30)
        fields = {"Host": f"localhost:{self.admin}", **(headers or {})}
        if value is not None:
            fields["Content-Type"] = "application/json"
        try:
            c.request(method, path, None if value is None else json.dumps(value), fields)
            answer = c.getresponse()
            return answer.status, answer.read().decode()
        finally:
            c.close()

    def wait(self, condition, seconds=30):
        end = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError("not reached; log: " + self.text())
            time.sleep(0.02)

    def text(self):
        self.log.flush()
        with open(f"{self.folder.name}/log", encoding="utf-8", errors="replace") as f:
            return f.read()

    def server_pid(self):
        kids = open(f"/proc/{self.process.pid}/task/{self.process.pid}/children",
                    encoding="ascii").read().split()
        return int(kids[0])

    def end(self, how=signal.SIGTERM):
        if how and self.process.poll() is None:
            self.process.send_signal(how)
        try:
            status = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("did not end; log: " + self.text())
        text = self.text()
        self.log.close()
        self.folder.cleanup()
        assert "Sanitizer" not in text, text
        return status


def same(got, want):
    assert got == want, f"got {got!r}, want {want!r}"


def answers(io):
    s = Server(io)
    try:
        same(s.get(), "one")
        same(s.api("GET", "/config/apps/http/servers/srv0/listen")[1],
             f'["127.0.0.1:{s.port}"]\n')
    finally:
        same(s.end(), 0)


def loads(io):
    s = Server(io)
    try:
        kept = http.client.HTTPConnection("127.0.0.1", s.port, timeout=30)
        kept.request("GET", "/")
        same(kept.getresponse().read(), b"one")
        same(s.api("POST", "/load", document(s.port, s.admin, "two"))[0], 200)
        kept.request("GET", "/")
        same(kept.getresponse().read(), b"two")
        kept.close()
        bad = document(s.port, s.admin, "three")
        bad["apps"]["http"]["servers"]["srv0"]["nonsense"] = 1
        status, text = s.api("POST", "/load", bad)
        same(status, 400)
        assert "nonsense" in text, text
        same(s.get(), "two")
    finally:
        same(s.end(), 0)


def moves(io):
    s = Server(io)
    try:
        other = free_port()
        same(s.api("POST", "/load", document(other, s.admin, "moved"))[0], 200)
        same(s.get(other), "moved")
        end = time.monotonic() + 20
        while True:  # who is queued there is answered first
            try:
                s.get()
                assert time.monotonic() < end, "the old port still answers"
            except ConnectionRefusedError:
                break
            except OSError:
                pass
    finally:
        same(s.end(), 0)


def refuses_taken(io):
    s = Server(io)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        try:
            status, text = s.api("POST", "/load", document(port, s.admin, "x"))
            same(status, 400)
            assert f"port {port} is held by" in text and f"(pid {os.getpid()}, user " in text, text
            same(s.get(), "one")
        finally:
            same(s.end(), 0)


def reloads_file(io):
    s = Server(io)
    try:
        s.write(document(s.port, s.admin, "from the file"))
        s.process.send_signal(signal.SIGUSR1)
        s.wait(lambda: s.get() == "from the file")
        s.write({"nonsense": 1})
        s.process.send_signal(signal.SIGUSR1)
        s.wait(lambda: "the running one stays" in s.text())
        same(s.get(), "from the file")
        s.process.send_signal(signal.SIGHUP)
        same(s.get(), "from the file")
    finally:
        same(s.end(), 0)


def reload_loses_nothing(io):
    s = Server(io)
    wrong, asked, over = [], [0], threading.Event()

    def client():
        while not over.is_set():
            try:
                asked[0] += 1
                if s.get() not in ("one", "two"):
                    wrong.append("another body")
            except OSError as e:
                wrong.append(repr(e))

    threads = [threading.Thread(target=client) for _ in range(4)]
    try:
        for t in threads:
            t.start()
        for i in range(20):
            same(s.api("POST", "/load", document(s.port, s.admin, "two" if i % 2 else "one"))[0],
                 200)
        over.set()
        for t in threads:
            t.join()
        same(wrong, [])
        assert asked[0] > 20, asked
    finally:
        over.set()
        same(s.end(), 0)


def survives_crash(io):
    s = Server(io)
    try:
        s.api("GET", "/config/")  # answered behind the word to the keeper that it is ready
        old = s.server_pid()
        os.kill(old, signal.SIGKILL)
        s.wait(lambda: s.get() == "one")
        assert s.server_pid() != old
        s.wait(lambda: "ended unexpectedly" in s.text())
    finally:
        same(s.end(), 0)


def drains(io):
    """A request whose body is still coming when the stop comes is finished and answered."""
    s = Server(io)
    routes = [{"handle": [{"handler": "request_body", "max_size": 100},
                          {"handler": "static_response", "body": "got it"}]}]
    doc = document(s.port, s.admin, "x")
    doc["apps"]["http"]["servers"]["srv0"]["routes"] = routes
    same(s.api("POST", "/load", doc)[0], 200)
    with socket.create_connection(("127.0.0.1", s.port), 30) as c:
        c.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
        same(c.recv(65536)[-6:], b"got it")
        s.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        same(s.process.poll(), None)
        c.sendall(b"cd")
        same(c.recv(65536), b"")
    same(s.end(None), 0)


def stops_by_api(io):
    s = Server(io)
    try:
        same(s.api("POST", "/stop")[0], 200)
        same(s.process.wait(60), 0)
    finally:
        same(s.end(), 0)


def admin_guards(io):
    s = Server(io)
    try:
        same(s.api("GET", "/config/", headers={"Host": "evil.example"})[0], 403)
        same(s.api("GET", "/config/", headers={"Origin": "http://evil.example"})[0], 403)
        same(s.api("GET", "/config/", headers={"Origin": f"http://localhost:{s.admin}"})[0], 200)
        same(s.api("GET", "/config/", headers={"Sec-Fetch-Mode": "no-cors"})[0], 400)
        same(s.api("GET", "/load")[0], 405)
        same(s.api("GET", "/nothing")[0], 404)
        same(s.api("PATCH", "/config/apps/nothing", 1)[0], 404)
        same(s.api("PATCH", "/config/apps/http/servers/srv0/routes/0/handle/0/body", "new")[0], 200)
        same(s.get(), "new")
        assert "portico_requests_total" in s.api("GET", "/metrics")[1]
    finally:
        same(s.end(), 0)


def says_what_is_wrong(io):
    for arguments, want in ((["nonsense"], "unknown command"), (["run", "--nonsense"],
                            "unknown flag"), (["run", "--config"], "needs an argument"),
                            (["run", "--config", "/nonexistent.json"], "/nonexistent.json"),
                            (["version", "x"], "unexpected argument")):
        done = subprocess.run([PORTICO, *arguments], timeout=60, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        same(done.returncode, 1)
        assert want in done.stdout, done.stdout


def unix_socket(io):
    s = Server(io)
    path = f"{s.folder.name}/s.sock"
    doc = document(s.port, s.admin, "unix")
    doc["apps"]["http"]["servers"]["srv0"]["listen"] = [f"unix/{path}|0660"]
    try:
        same(s.api("POST", "/load", doc)[0], 200)
        same(os.stat(path).st_mode & 0o777, 0o660)
        with socket.socket(socket.AF_UNIX) as c:
            c.settimeout(30)
            c.connect(path)
            c.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while piece := c.recv(65536):
                answer += piece
            same(answer[-4:], b"unix")
    finally:
        status = s.end()
        assert not os.path.exists(path)
        same(status, 0)


def little_locked_memory(_):
    """Rings take locked memory: where a user may lock too little for all workers, the rest has epoll."""
    port, other = free_port(), "54321"  # of nobody's: what a user's processes have locked is added up
    with tempfile.TemporaryDirectory(prefix="portico-run-") as folder:
        os.chmod(folder, 0o777)
        with open(f"{folder}/config.json", "w", encoding="utf-8") as f:
            json.dump(document(port, free_port(), "here"), f)
        prefix = ["prlimit", "--memlock=500000"]
        if os.geteuid() == 0:
            prefix += ["setpriv", f"--reuid={other}", f"--regid={other}", "--clear-groups", "--bounding-set=-all",
                       "--inh-caps=-all"]

        def run(io):
            with open(f"{folder}/log.{io}", "w+b") as log:
                return subprocess.Popen(
                    [*prefix, os.path.abspath(PORTICO), "run", "--config", f"{folder}/config.json"], cwd=folder,
                    env=dict(os.environ, PORTICO_IO=io, PORTICO_WORKERS="8", XDG_CONFIG_HOME=folder,
                             XDG_DATA_HOME=folder, HOME=folder), stdout=log, stderr=subprocess.STDOUT)

        def text(io):
            with open(f"{folder}/log.{io}", encoding="utf-8") as f:
                return f.read()

        process, end = run(""), time.monotonic() + 60
        try:
            while '"serving initial configuration"' not in text(""):
                assert process.poll() is None and time.monotonic() < end, text("")
                time.sleep(0.02)
            for _ in range(20):  # by workers of both kinds
                c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                c.request("GET", "/")
                same(c.getresponse().read(), b"here")
                c.close()
        finally:
            process.terminate()
            same(process.wait(60), 0)
        started = next(json.loads(line) for line in text("").splitlines() if '"workers started"' in line)
        some = re.fullmatch(r"io_uring on (\d) of 8 workers, epoll on the others: RLIMIT_MEMLOCK", started["io"])
        assert some or started["io"] in ("io_uring", "epoll"), started
        same([some.group(1)] if some else [], re.findall(r'"with_io_uring":([1-9])', text("")))
        if "RLIMIT_MEMLOCK" in text(""):  # it is not in all kernels that rings count
            process = run("uring")
            same(process.wait(60), 1)
            assert "this user may lock no more memory (RLIMIT_MEMLOCK)" in text("uring"), text("uring")


def fetch(s, method, target, **fields):
    """Status, header fields in lower case, body."""
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=30)
    try:
        c.request(method, target, headers={k.replace("_", "-"): v for k, v in fields.items()})
        answer = c.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        c.close()


def serve_files(s, **more):
    """A site with a small page, a folder, a sidecar, hidden names and a large file."""
    site = f"{s.folder.name}/site"
    os.makedirs(f"{site}/sub/.git")
    large = os.urandom(1 << 20) * 3
    for name, content in (("index.html", b"home"), ("a.txt", b"0123456789"), ("a.txt.gz", b"GZ"),
                          ("sub/index.html", b"sub"), ("sub/.git/x", b"secret"), ("large", large),
                          ("empty.txt", b"")):
        with open(f"{site}/{name}", "wb") as f:
            f.write(content)
    os.makedirs(f"{site}/bare")
    doc = document(s.port, s.admin, "x")
    doc["apps"]["http"]["servers"]["srv0"]["routes"] = [{"handle": [
        {"handler": "vars", "root": site},
        {"handler": "file_server", "hide": [".git"], "precompressed": {"gzip": {}}, **more}]}]
    same(s.api("POST", "/load", doc)[0], 200)
    return large


def files(io):
    s = Server(io)
    try:
        large = serve_files(s)
        status, fields, body = fetch(s, "GET", "/")
        same((status, body, fields["content-type"], fields["vary"], fields["accept-ranges"]),
             (200, b"home", "text/html; charset=utf-8", "Accept-Encoding", "bytes"))
        same(fetch(s, "HEAD", "/")[1]["content-length"], "4")
        same(fetch(s, "GET", "/sub")[:1] + (fetch(s, "GET", "/sub?q=1")[1]["location"],),
             (308, "/sub/?q=1"))
        same(fetch(s, "GET", "/a.txt/")[1]["location"], "/a.txt")
        same(fetch(s, "GET", "/sub/")[2], b"sub")
        for missing in ("/none", "/bare/", "/sub/.git/x", "/sub/%2egit/x", "/a.txt/b"):
            same((missing, fetch(s, "GET", missing)[0]), (missing, 404))
        same(fetch(s, "GET", "/sub/../../../../../../etc/passwd")[0], 404)
        same(fetch(s, "GET", "/%2e%2e/%2e%2e/etc/passwd")[0], 404)
        same(fetch(s, "GET", "/empty.txt")[1]["content-length"], "0")
        status, fields, _ = fetch(s, "POST", "/a.txt")
        same((status, fields["allow"]), (405, "GET, HEAD"))
        same(fetch(s, "GET", "/large")[2], large)
        same(fetch(s, "GET", "/large", Range="bytes=1000000-2000000")[2], large[1000000:2000001])
    finally:
        same(s.end(), 0)


def file_conditions(io):
    s = Server(io)
    try:
        serve_files(s)
        _, fields, _ = fetch(s, "GET", "/a.txt")
        same(fetch(s, "GET", "/a.txt", If_None_Match=fields["etag"])[::2], (304, b""))
        same(fetch(s, "GET", "/a.txt", If_Modified_Since=fields["last-modified"])[0], 304)
        same(fetch(s, "GET", "/a.txt", If_Match='"other"')[0], 412)
        status, part, body = fetch(s, "GET", "/a.txt", Range="bytes=2-4")
        same((status, part["content-range"], body), (206, "bytes 2-4/10", b"234"))
        status, part, body = fetch(s, "GET", "/a.txt", Range="bytes=0-0,-1")
        mark = part["content-type"].split("boundary=")[1]
        same(part["content-type"][:21], "multipart/byteranges;")
        same(body.decode(), f"--{mark}\r\nContent-Range: bytes 0-0/10\r\nContent-Type: text/plain; "
             f"charset=utf-8\r\n\r\n0\r\n--{mark}\r\nContent-Range: bytes 9-9/10\r\n"
             f"Content-Type: text/plain; charset=utf-8\r\n\r\n9\r\n--{mark}--\r\n")
        status, part, _ = fetch(s, "GET", "/a.txt", Range="bytes=10-")
        same((status, part["content-range"]), (416, "bytes */10"))
        same(fetch(s, "GET", "/a.txt", Range="bytes=0-1", If_Range='"other"')[0], 200)
        status, packed, body = fetch(s, "GET", "/a.txt", Accept_Encoding="br, gzip;q=0.5")
        same((status, packed["content-encoding"], body), (200, "gzip", b"GZ"))
        assert packed["etag"] != fields["etag"]
        same(fetch(s, "GET", "/a.txt", Accept_Encoding="gzip;q=0")[2], b"0123456789")
        with open(f"{s.folder.name}/site/a.txt", "wb") as f:
            f.write(b"changed")
        time.sleep(1.1)
        same(fetch(s, "GET", "/a.txt")[2], b"changed")
    finally:
        same(s.end(), 0)


def file_options(io):
    s = Server(io)
    try:
        serve_files(s, status_code="203", canonical_uris=False, index_names=["a.txt"])
        same(fetch(s, "GET", "/")[::2], (203, b"0123456789"))
        same(fetch(s, "GET", "/sub")[0], 404)
        same(fetch(s, "GET", "/a.txt/")[0], 203)
    finally:
        same(s.end(), 0)


CASES = [
    ("files, folders, hidden names, redirects, ranges of large files", files, True),
    ("conditions, ranges, sidecars and changes of a file", file_conditions, True),
    ("the file server's status, index and canonical options", file_options, False),
    ("a configuration is served and told", answers, True),
    ("a loaded configuration is seen on a kept connection, a bad one changes nothing", loads, True),
    ("an address that goes is closed, the new one answers", moves, True),
    ("a taken port is refused with its holder, and nothing changes", refuses_taken, False),
    ("SIGUSR1 reads the file again, a bad file changes nothing, SIGHUP is ignored", reloads_file,
     False),
    ("twenty reloads under load lose no request", reload_loses_nothing, True),
    ("a killed server process is started again on the same sockets", survives_crash, True),
    ("a stop waits for the request that is under way", drains, True),
    ("/stop ends it with status 0", stops_by_api, True),
    ("the admin API refuses foreign hosts and origins, and changes parts", admin_guards, False),
    ("bad arguments are told and end with status 1", says_what_is_wrong, False),
    ("workers for whose io_uring no memory may be locked have epoll", little_locked_memory, False),
    ("a Unix socket answers, has its mode, and is removed at the end", unix_socket, True),
]

for name, case, both in CASES:
    for io in ("epoll", "uring") if both else ("epoll",):
        count += 1
        title = f"{name} ({io})" if both else name
        try:
            case(io)
            print(f"ok {count} - {title}", flush=True)
        except Exception as e:  # every failure is a line, the others still run
            failed += 1
            print(f"not ok {count} - {title}\n# {type(e).__name__}: "
                  + str(e).replace("\n", "\n# "), flush=True)
print(f"1..{count}")
sys.exit(1 if failed else 0)
