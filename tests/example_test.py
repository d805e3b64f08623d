#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""examples/first as `make run` starts it, as TAP. Its ports are its own: where one is taken, the
tests are skipped.
Usage: example_test.py PORTICO SOURCE."""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from server import Skip, run_tests  # noqa: E402 (beside this file)

PORTICO, SOURCE = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
RUN = f"{SOURCE}/examples/first/run.py"
PORTS = (8080, 8081, 3000, 4000, 2019)


def taken():
    for port in PORTS:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                return port
    return 0


def get(port, path="/", method="GET", body=None, **headers):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        c.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        r = c.getresponse()
        return r.status, r.read().decode(), r.headers
    finally:
        c.close()


class Example:
    def __enter__(self):
        if taken():
            raise Skip(f"port {taken()} is taken")
        self.out = tempfile.TemporaryFile("w+")
        self.home = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            [sys.executable, RUN, PORTICO], stdout=self.out, stderr=subprocess.STDOUT,
            env=dict(os.environ, HOME=self.home.name, XDG_CONFIG_HOME=self.home.name))
        end = time.monotonic() + 30
        while "Ctrl-C ends" not in self.text():
            assert self.process.poll() is None and time.monotonic() < end, self.text()
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        self.out.close()
        self.home.cleanup()

    def text(self):
        self.out.seek(0)
        return self.out.read()

    def children(self):
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        with open(path, encoding="ascii") as f:
            return [int(p) for p in f.read().split()]

    def wait_end(self):
        status = self.process.wait(60)
        end = time.monotonic() + 20
        while taken() and time.monotonic() < end:
            time.sleep(0.05)
        assert not taken(), f"port {taken()} is still held"
        return status


def answers():
    with Example() as e:
        for url in ("http://localhost:8080/", "http://localhost:8081/"):
            assert url in e.text()
        status, body, fields = get(8080)
        assert status == 200 and "One gate, three answers" in body
        assert fields["X-Served-By"] == "portico :8080"
        assert get(8080, "/style.css")[0] == 200 and get(8080, "/live.js")[0] == 200
        v = json.loads(get(8080, "/api/hello")[1])
        assert v["port"] == 3000 and v["path"] == "/hello" and v["for"] == "127.0.0.1", v
        assert json.loads(get(8080, "/time/now")[1])["port"] == 4000
        status, body, _ = get(8080, "/api/notes", "POST", json.dumps({"text": "<b>mine</b>"}),
                              Content_Type="application/json")
        assert status == 201 and json.loads(body)["notes"][0] == "<b>mine</b>", body
        assert get(8080, "/api/notes", "POST", "nonsense")[0] == 400
        status, body, _ = get(8080, "/nothing")
        assert status == 404 and "Nothing stands here" in body
        assert get(8080, "/home")[2]["Location"] == "/"
        assert get(8081)[0] == 200
        e.process.send_signal(signal.SIGINT)
        assert e.wait_end() == 0, e.text()
        assert "All ended" in e.text()


def streams():
    with Example() as e:
        with socket.create_connection(("127.0.0.1", 8080), timeout=30) as s:
            s.sendall(b"GET /time/stream HTTP/1.1\r\nHost: localhost:8080\r\n\r\n")
            got = b""
            while got.count(b"data: ") < 2:
                more = s.recv(4096)
                assert more, got
                got += more
        e.process.send_signal(signal.SIGTERM)
        assert e.wait_end() == 0, e.text()


def starts_again():
    with Example() as e:
        pid = json.loads(get(8080, "/api/hello")[1])["pid"]
        os.kill(pid, signal.SIGKILL)
        assert json.loads(get(8080, "/api/hello")[1])["pid"] != pid
        assert e.process.poll() is None, e.text()


def leaves_no_orphan():
    with Example() as e:
        children = e.children()
        assert len(children) == 1, children
        e.process.kill()
        e.process.wait()
        assert e.wait_end() == -signal.SIGKILL


def tells_of_taken_ports():
    if taken():
        raise Skip(f"port {taken()} is taken")
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", 8081))
        s.listen()
        done = subprocess.run([sys.executable, RUN, PORTICO], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=90, check=False)
    assert done.returncode == 1
    assert re.search(rf"port 8081 \(the listing\) is taken, held by \S+ \(pid {os.getpid()}\)",
                     done.stdout), done.stdout


TESTS = [("the site, both services, the errors; Ctrl-C ends all of it", answers),
         ("a stream goes through as it comes", streams),
         ("a service that dies is started again, and no request fails", starts_again),
         ("nothing stays when the starter itself is killed", leaves_no_orphan),
         ("a taken port is told with its holder", tells_of_taken_ports)]


sys.exit(run_tests(TESTS, "") > 0)
