# SPDX-License-Identifier: Apache-2.0
"""A running portico for the tests in this folder: its file, its ports, its log, its counters; and
the loop that runs cases on both I/O back ends and prints TAP. Everything started is ended."""
import concurrent.futures
import contextlib
import fcntl
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

BACK_ENDS = ("epoll", "uring")
# Each server in its sandbox. The tracer by which leaks are looked for at the end is refused there, as it
# should be.
SANDBOX = os.environ.get("PORTICO_TEST_SANDBOX") == "1"
if SANDBOX:
    os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"


def fenced(document):
    """With the sandbox, where it is asked for."""
    return {**document, "portico": {"sandbox": True, **document.get("portico", {})}} if SANDBOX else document




GIVEN, GIVING = set(), threading.Lock()
LEDGER = None


def is_taken(port):
    """Whether this or another test program that runs has been given the port: one byte of a file is
    locked for each, until its program ends."""
    global LEDGER
    if port in GIVEN:
        return True
    try:
        if LEDGER is None:
            LEDGER = open(os.path.join(tempfile.gettempdir(), "portico-test-ports"), "ab")
        fcntl.lockf(LEDGER, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return LEDGER is not None
    return False


def free_port():
    """Below those that the kernel gives to clients, so that none of theirs takes it meanwhile; and no
    other test's."""
    while True:
        port = random.randrange(10000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        with GIVING:
            if not is_taken(port):
                GIVEN.add(port)
                return port


def same(got, want):
    assert got == want, f"got {got!r}, want {want!r}"


def has(text, *parts):
    for part in parts:
        assert part in text, f"no {part!r} in {text!r}"


class Server:
    """`members` go into the JSON of the server, `top` into the document, `routes` replace the one
    answer of `body`, `apps` stand beside the http one; `prefix` is a command before the program, `started` goes to Popen. With `awaited`
    False it may end before it answers."""

    def __init__(self, program, io="epoll", body="one", workers=2, members=None, routes=None,
                 environment=None, top=None, prefix=(), started=None, awaited=True, apps=None,
                 **http):
        self.port, self.admin = free_port(), free_port()
        self.folder = tempfile.TemporaryDirectory(prefix="portico-test-")
        self.file = f"{self.folder.name}/config.json"
        self.document = {
            "admin": {"listen": f"localhost:{self.admin}"},
            "apps": {"http": {"servers": {"srv0": {
                "listen": [f"127.0.0.1:{self.port}"],
                "routes": routes or [{"handle": [{"handler": "static_response", "body": body}]}],
                **(members or {})}}, **http}, **(apps or {})}, **(top or {})}
        if SANDBOX:
            self.document = fenced(self.document)
            environment = dict(environment or {})
            if "ASAN_OPTIONS" in environment:
                environment["ASAN_OPTIONS"] += ":detect_leaks=0"
        with open(self.file, "w", encoding="utf-8") as f:
            json.dump(self.document, f)
        self.log = open(f"{self.folder.name}/log", "w+b")
        self.managed = False  # it has answered at its admin endpoint, which is what opens last
        self.process = subprocess.Popen(
            [*prefix, program, "run", "--config", self.file], stdout=self.log,
            stderr=subprocess.STDOUT, **(started or {}),
            env={**os.environ, "XDG_CONFIG_HOME": self.folder.name,
                 "XDG_DATA_HOME": self.folder.name, "PORTICO_IO": io,
                 "PORTICO_WORKERS": str(workers),
                 **(environment or {})})
        if awaited:
            try:
                self.wait(lambda: self.get() is not None)
            except BaseException:  # nobody else knows of it
                self.process.kill()
                self.process.wait()
                self.log.close()
                self.folder.cleanup()
                raise

    def get(self, path="/", **fields):
        """Status and body, through one connection of its own."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            c.request("GET", path, headers=fields)
            answer = c.getresponse()
            return answer.status, answer.read()
        finally:
            c.close()

    def api(self, method, path, value=None, headers=None):
        end = time.monotonic() + 30
        while True:
            try:
                answer = self.api_once(method, path, value, headers)
                self.managed = True
                return answer
            except ConnectionRefusedError:
                if self.managed or self.process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def api_once(self, method, path, value, headers):
        c = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=60)
        fields = {"Host": f"localhost:{self.admin}", **(headers or {})}
        if SANDBOX and (method, path) == ("POST", "/load") and isinstance(value, dict):
            value = fenced(value)
        if value is not None:
            fields.setdefault("Content-Type", "application/json")
        try:
            c.request(method, path, json.dumps(value) if value is not None else None, fields)
            answer = c.getresponse()
            return answer.status, answer.read().decode()
        finally:
            c.close()

    def metric(self, name):
        found = re.search(rf"^portico_{name} (\d+)$", self.api("GET", "/metrics")[1], re.M)
        return int(found.group(1))

    def live(self):
        """What must be back where it was after each attack."""
        kinds = ("connections", "exchanges", "fibers", "operations")
        text = self.api("GET", "/metrics")[1]
        live = {k: int(re.search(rf"^portico_{k} (\d+)$", text, re.M).group(1)) for k in kinds}
        live["descriptors"] = len(os.listdir(f"/proc/{self.server_pid()}/fd"))
        return live

    def wait(self, condition, seconds=30):
        end = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except (OSError, IndexError, ValueError):  # no server process at this moment; half a line of the log
                pass
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError("not reached; log: " + self.text()[-3000:])
            time.sleep(0.02)

    def text(self):
        self.log.flush()
        with open(f"{self.folder.name}/log", encoding="utf-8", errors="replace") as f:
            return f.read()

    def server_pid(self):
        """The keeper's child that is no helper of its own, such as the services' guardhouse."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children",
                  encoding="ascii") as f:
            return [int(p) for p in f.read().split() if self.is_server(p)][0]

    @staticmethod
    def is_server(pid):
        try:
            with open(f"/proc/{pid}/comm", encoding="ascii") as f:
                return f.read().strip() != "guardhouse"
        except OSError:
            return False

    def cpu_seconds(self):
        with open(f"/proc/{self.server_pid()}/stat", encoding="ascii") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_kib(self):
        with open(f"/proc/{self.server_pid()}/status", encoding="ascii") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))

    def forget_peak(self):
        with open(f"/proc/{self.server_pid()}/clear_refs", "w", encoding="ascii") as f:
            f.write("5")

    def peak_kib(self):
        """The most that was resident since then."""
        with open(f"/proc/{self.server_pid()}/status", encoding="ascii") as f:
            return int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1))

    def end(self, how=signal.SIGTERM, seconds=60):
        """The exit status; `how` None: it was told already."""
        if how and self.process.poll() is None:
            self.process.send_signal(how)
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("did not end; log: " + self.text()[-3000:]) from None
        text = self.text()
        self.log.close()
        self.folder.cleanup()
        assert "Sanitizer" not in text and "assertion failed" not in text, text[-6000:]
        return status


@contextlib.contextmanager
def running(io, *upstreams, secure=False, seconds=60, **more):
    """A server that ends well behind the block, once the upstreams have been closed. `secure`: it answers by
    TLS only."""
    s = Server(sys.argv[1], io, awaited=not secure, **more)
    try:
        with contextlib.ExitStack() as stack:
            for u in upstreams:
                stack.callback(u.close)  # which may raise what went wrong there
            if secure:
                s.wait(lambda: s.api("GET", "/config/")[0] == 200)
            yield s
    except BaseException:
        s.process.kill()
        s.end(None)
        raise
    same(s.end(seconds=seconds), 0)


def with_server(case, **more):
    """A case of a server, for run_cases."""
    def run(io):
        with running(io, **more) as s:
            case(s)
    return run


def run_case(case, *args):
    try:
        case(*args)
    except Skip as why:
        return "skip", str(why)
    except (Exception, SystemExit) as e:  # every failure is a line, the others still run
        if os.environ.get("TRACE"):
            traceback.print_exc()
        return "failed", "\n".join([f"{type(e).__name__}: {e}", *getattr(e, "__notes__", [])])
    return "ok", ""


def told(sentences, results):
    """Writes the lines of TAP; how many failed."""
    failed = number = 0
    for number, (sentence, (outcome, why)) in enumerate(zip(sentences, results), 1):
        failed += outcome == "failed"
        print(f"{'not ' * (outcome == 'failed')}ok {number} - {sentence}"
              + f" # SKIP {why}" * (outcome == "skip"), flush=True)
        if outcome == "failed":
            print("# " + why.replace("\n", "\n# "), flush=True)
    print(f"1..{number}", flush=True)
    return failed


def run_cases(cases, back_ends=BACK_ENDS, at_once=1):
    """cases: (sentence, function(io)); a function may raise Skip. Several may run at once, for most
    of them wait for time to pass; their lines come in order. A case may name back ends of its own."""
    text = sys.argv[2] if len(sys.argv) > 2 else ""
    chosen = [(f"{name} ({io})", case, io) for name, case, *own in cases for io in (own[0] if own else back_ends)
              if text in f"{name} {io}"]
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        results = [pool.submit(run_case, case, io) for _, case, io in chosen]
        failed = told([name for name, *_ in chosen], (r.result() for r in results))
    sys.exit(1 if failed else 0)


def run_tests(tests, wanted=None, at_once=1):
    """tests: (sentence, function()); how many failed. Of those that say `wanted`, or the second argument.
    One at once is on this thread."""
    if wanted is None:
        wanted = sys.argv[2] if len(sys.argv) > 2 else ""
    chosen = [(sentence, test) for sentence, test in tests if wanted in sentence]
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        ways = pool.map if at_once > 1 else map
        return told([sentence for sentence, _ in chosen], ways(run_case, [test for _, test in chosen]))


class Skip(Exception):
    """This machine cannot run the case; says why."""
