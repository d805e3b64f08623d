#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Services: programs behind the front door, over the whole program, as TAP. Real ones: python3, node and
php where they are installed. ROUNDS (default 10) is how often replicas are killed under load, ROLLS
(default 1) how often all of them are changed under load; bench/services runs these two longer.
Usage: services_test.py PORTICO [TEXT]."""
import grp
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

from server import Server, Skip, free_port, run_cases, same

PORTICO = os.path.abspath(sys.argv[1])
ROUNDS = int(os.environ.get("ROUNDS", "10"))
ROLLS = int(os.environ.get("ROLLS", "1"))
KEPT = os.environ.get("SERVICES_TEST_LOG")

APP = r'''
import http.server, os, signal, sys, threading, time
version = os.environ.get("VERSION", "1")
if os.path.exists(os.environ.get("BROKEN", "/nonexistent")):
    sys.exit(3)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path.startswith("/slow"):
            time.sleep(0.3)
        if self.path == "/health" and os.path.exists(os.environ.get("SICK", "/nonexistent")):
            self.send_response(503); self.send_header("Content-Length", "0"); self.end_headers(); return
        body = f"{os.getpid()} {os.environ['PORT']} {version}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        got = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.path = "/"
        os.environ["PORT"], kept = str(len(got)), os.environ["PORT"]
        self.do_GET()
        os.environ["PORT"] = kept
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler)
server.daemon_threads = False
def end(*_):
    threading.Thread(target=server.shutdown).start()
signal.signal(signal.SIGTERM, end)
print("hello from", os.environ["PORT"], flush=True)
print("to the errors", file=sys.stderr, flush=True)
print('{"level": "warn", "msg": "as json", "n": 7}', flush=True)
server.serve_forever()
os._exit(0)
'''


class Site:
    """A portico with services; `text` of an app in a folder of its own."""

    def __init__(self, io, services, routes=None, app=APP, awaited=True, kept=None):
        self.folder = f"/tmp/portico-services-{os.getpid()}-{free_port()}"
        os.mkdir(self.folder)
        os.chmod(self.folder, 0o755)
        with open(f"{self.folder}/app.py", "w", encoding="utf-8") as f:
            f.write(app)
        self.base = free_port() // 50 * 50
        self.services = [{"dir": self.folder, "run": ["/usr/bin/python3", "app.py"],
                          "port_range": f"{self.base}-{self.base + 40}", "stop_timeout": "10s", **s}
                         for s in services]
        routes = routes or [{"handle": [self.proxy(services[0]["name"])]}]
        more = {}
        if kept:  # the file of ports of an earlier run
            data = f"{self.folder}/data/portico"
            os.makedirs(data)
            with open(f"{data}/services.json", "w", encoding="utf-8") as f:
                json.dump(kept, f)
            more["environment"] = {"XDG_DATA_HOME": f"{self.folder}/data"}
        self.server = Server(PORTICO, io, routes=routes, awaited=False,
                             apps={"services": {"services": self.services}}, **more)
        if awaited:
            self.server.wait(lambda: self.server.get()[0] == 200, 40)

    @staticmethod
    def proxy(name):
        return {"handler": "reverse_proxy",
                "dynamic_upstreams": {"source": "service", "name": name}}

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if KEPT or kind:
            with open(KEPT or "/tmp/services_test.log", "w", encoding="utf-8") as f:
                f.write(self.server.text())
        try:
            pids = self.pids()
            self.server.end()
            for pid in pids:
                assert not alive(pid), f"{pid} lives on"
        finally:
            shutil.rmtree(self.folder)

    def describe(self, name="a"):
        return json.loads(self.server.api("GET", f"/services/{name}")[1])

    def pids(self):
        status, text = self.server.api("GET", "/services/")
        return [r["pid"] for s in json.loads(text) for r in s["replicas"] if "pid" in r]

    def ready(self, name="a", count=1):
        self.server.wait(lambda: self.describe(name)["ready"] == count, 40)

    def load(self, services):
        document = json.loads(json.dumps(self.server.document))
        document["apps"]["services"] = {"services": [
            {**self.services[0], **s, **({"port_range": None} if "port" in s else {})}
            for s in services]}
        return self.server.api("POST", "/load", document)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class Load:
    """Clients that ask without a pause; what failed is kept."""

    def __init__(self, port, clients=4, path="/", method="GET"):
        self.port, self.path, self.method = port, path, method
        self.failed, self.count, self.over, self.seen = [], 0, False, set()
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]

    def run(self):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self.over:
            try:
                c.request(self.method, self.path)
                answer = c.getresponse()
                body = answer.read().decode()
                self.seen.add(body)
                if answer.status != 200:
                    self.failed.append(f"{answer.status} {body}")
            except (OSError, http.client.HTTPException) as e:
                self.failed.append(repr(e))
                c.close()
            self.count += 1
        c.close()

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.over = True
        for t in self.threads:
            t.join()


# --- starts and ends ---

def starts(io):
    with Site(io, [{"name": "a"}]) as s:
        status, body = s.server.get()
        pid, port, _ = body.decode().split()
        replica = s.describe()["replicas"][0]
        same((replica["pid"], replica["port"], replica["state"]), (int(pid), int(port), "ready"))
        assert s.base <= int(port) <= s.base + 40
        def said(stream):
            lines = [json.loads(x) for x in s.server.api("GET", "/services/a/logs")[1].splitlines()]
            return [x["text"] for x in lines if x["stream"] == stream]
        s.server.wait(lambda: said("stdout") and said("stderr"))
        same((said("stdout")[0], said("stderr")), (f"hello from {port}", ["to the errors"]))
        s.server.wait(lambda: '"logger":"service.a"' in s.server.text())
        s.server.wait(lambda: '"msg":"to the errors","replica":1,"stream":"stderr"' in s.server.text())
        s.server.wait(lambda: '"msg":"as json"' in s.server.text() and '"n":7' in s.server.text())
        metrics = s.server.api("GET", "/metrics")[1]
        assert 'portico_service_replicas_ready{service="a"} 1' in metrics, metrics


def untouched(io):
    with Site(io, [{"name": "a"}]) as s:
        before = s.describe()["replicas"][0]["pid"]
        same(s.load([{"name": "a"}, {"name": "b", "port": free_port()}])[0], 200)
        s.ready("b")
        same(s.describe()["replicas"][0]["pid"], before)
        same(s.load([{"name": "a", "replicas": 2}])[0], 200)
        s.ready("a", 2)
        same(s.describe()["replicas"][0]["pid"], before)
        s.server.wait(lambda: len(s.pids()) == 2)


def kept_port(io):
    with Site(io, [{"name": "a"}]) as s:
        first = s.describe()["replicas"][0]
        os.kill(first["pid"], signal.SIGKILL)
        s.server.wait(lambda: s.describe()["replicas"][0].get("pid") not in (None, first["pid"]))
        s.ready()
        same(s.describe()["replicas"][0]["port"], first["port"])
        with open(f"{s.server.folder.name}/portico/services.json", encoding="utf-8") as f:
            assert first["port"] in json.load(f)["a"]


def gone_ports(io):
    """Ports of services that are gone are kept for a while, and of not too many."""
    with Site(io, [{"name": "b"}, {"name": "a"}]) as s:
        path = f"{s.server.folder.name}/portico/services.json"

        def kept():
            with open(path, encoding="utf-8") as f:
                return json.load(f)
        s.ready()
        port = s.describe()["replicas"][0]["port"]
        same(s.load([{"name": "b"}])[0], 200)
        s.server.wait(lambda: kept()["a"]["ports"] == [port] and kept()["a"]["gone"] > time.time() - 600)
        same(s.load([{"name": "b"}, {"name": "a"}])[0], 200)
        s.ready()
        same((s.describe()["replicas"][0]["port"], kept()["a"]), (port, [port]))
        day, now = 86400, int(time.time())
    with Site(io, [{"name": "a"}], kept={
            "a": [port], "old": {"ports": [1], "gone": now - 31 * day}, "new": {"ports": [2], "gone": now - 29 * day},
            "mad": 7, "hand": [3], "future": {"ports": [4], "gone": now + 9 * day},
            **{f"many{i}": {"ports": [i], "gone": now - i} for i in range(400)}}) as s:
        path = f"{s.folder}/data/portico/services.json"
        s.server.wait(lambda: "hand" in kept() and isinstance(kept()["hand"], dict))
        found = kept()
        same(sorted(n for n in found if not n.startswith("many")), ["a", "future", "hand"])
        same((len(found), found["hand"]["ports"], "many253" in found, "many254" in found), (257, [3], True, False))
        assert found["future"]["gone"] <= time.time(), found["future"]


def refused(io):
    with Site(io, [{"name": "a"}]) as s:
        status, text = s.load([{"name": "a", "prot": 3000}])
        same(status, 400)
        assert 'unknown member \\"prot\\"' in text, text
        status, text = s.server.api("POST", "/services/b/stop")
        same((status, "there is no service" in text), (404, True))
        same(s.server.api("POST", "/services/a/jump")[0], 400)


def gives_up(io):
    services = [{"name": "a", "run": ["/bin/false"],
                 "restart": {"delay": "1ms", "max_delay": "2ms", "give_up": 3}}]
    with Site(io, services, awaited=False) as s:
        s.server.wait(lambda: s.server.api("GET", "/services/a")[0] == 200)
        s.server.wait(lambda: s.describe()["replicas"][0]["state"] == "gave up")
        same(s.describe()["starts"], 3)
        assert "exited with status 1" in s.describe()["replicas"][0]["reason"]
        same(s.server.get()[0], 503)
        status, text = s.server.api("POST", "/services/a/start")
        same((status, "exited with status 1" in text), (500, True))


def missing_program(io):
    services = [{"name": "a", "run": ["./nothing-here"],
                 "restart": {"delay": "1ms", "max_delay": "2ms", "give_up": 2}}]
    with Site(io, services, awaited=False) as s:
        s.server.wait(lambda: s.server.api("GET", "/services/a")[0] == 200)
        s.server.wait(lambda: s.describe()["replicas"][0]["state"] == "gave up")
        assert "nothing-here" in s.describe()["replicas"][0]["reason"], s.describe()
        s.server.wait(lambda: '"program could not be started"' in s.server.text())
        assert '"program ended"' not in s.server.text(), s.server.text()


def in_order(io):
    routes = [{"handle": [Site.proxy("b")]}]
    with Site(io, [{"name": "b", "after": ["a"]}, {"name": "a"}], routes) as s:
        s.server.wait(lambda: '"msg":"program started","service":"b"' in s.server.text())
        text = s.server.text()
        a, b = (text.index(f'"msg":"program started","service":"{n}"') for n in "ab")
        ready = text.index('"msg":"replica is ready","service":"a"')
        assert a < ready < b, (a, ready, b)


# --- changes ---

def rolls(io):
    with Site(io, [{"name": "a", "replicas": 2}]) as s:
        s.ready("a", 2)
        with Load(s.server.port) as load:
            time.sleep(0.2)
            for n in range(1, ROLLS + 1):
                version = {"VERSION": str(n + 1)}
                same(s.load([{"name": "a", "replicas": 2, "env": version}])[0], 200)
                s.server.wait(lambda n=n: {r.get("state") for r in s.describe()["replicas"]} == {"ready"} and
                              s.server.metric('service_rolls_total{service="a"}') == 2 * n, 40)
            time.sleep(0.2)
        same(load.failed[:3], [])
        assert any(x.endswith(f" {ROLLS + 1}") for x in load.seen) and load.count > 20, load.count
        print(f"# {2 * ROLLS} replicas changed, {load.count} requests, none failed", flush=True)


def restart_loses_nothing(io):
    with Site(io, [{"name": "a"}]) as s:
        with Load(s.server.port) as load, Load(s.server.port, 2, "/slow") as slow:
            for _ in range(2):
                status, text = s.server.api("POST", "/services/a/restart")
                same((status, text), (200, ""))
        same((load.failed[:3], slow.failed[:3]), ([], []))


def fixed_port(io):
    port = free_port()
    services = [{"name": "a", "port": port, "port_range": None}]
    with Site(io, services) as s:
        before = s.pids()
        with Load(s.server.port) as load:
            time.sleep(0.1)
            same(s.server.api("POST", "/services/a/restart"), (200, ""))
        same(load.failed[:3], [])
        assert s.pids() != before
        same(s.describe()["replicas"][0]["port"], port)


def port_taken(io):
    """While somebody else listens on its port, no request goes there; then it starts."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        services = [{"name": "a", "port": port, "port_range": None,
                     "restart": {"delay": "10ms", "max_delay": "50ms", "give_up": 0}}]
        with Site(io, services, awaited=False) as s:
            s.server.wait(lambda: "reason" in s.describe()["replicas"][0])
            reason = s.describe()["replicas"][0]["reason"]  # whose it is may be hidden from the server
            same((reason.startswith(f"port {port} is taken by "), s.describe()["ready"]), (True, 0))
            other.settimeout(0)
            try:
                other.accept()
                raise AssertionError("somebody came")
            except BlockingIOError:
                other.close()
            s.ready()
            same(s.server.get()[0], 200)


def keeps_the_last_good(io):
    with Site(io, [{"name": "a"}]) as s:
        before = s.describe()["replicas"][0]["pid"]
        with Load(s.server.port) as load:
            same(s.load([{"name": "a", "run": ["/bin/false"], "restart": {"delay": "1ms"}}])[0], 200)
            s.server.wait(lambda: s.describe().get("rolled_back"))
        same(load.failed[:3], [])
        same(s.describe()["replicas"][0]["pid"], before)


def stop_and_start(io):
    with Site(io, [{"name": "a"}]) as s:
        pid = s.pids()[0]
        same(s.server.api("POST", "/services/a/stop"), (200, ""))
        assert not alive(pid)
        same(s.server.get()[0], 503)
        same(s.server.api("POST", "/services/a/start"), (200, ""))
        same(s.server.get()[0], 200)


def removed(io):
    with Site(io, [{"name": "a"}]) as s:
        pid = s.pids()[0]
        document = {**s.server.document, "apps": {}}
        same(s.server.api("POST", "/load", document)[0], 200)
        s.server.wait(lambda: not alive(pid))
        same(s.server.api("GET", "/services/")[1], "[]\n")


# --- failures ---

def kills(io):
    services = [{"name": "a", "replicas": 2, "restart": {"give_up": 0, "max_delay": "200ms"}}]
    with Site(io, services) as s:
        s.ready("a", 2)
        killed = []

        def kill_another():
            pids = [r["pid"] for r in s.describe()["replicas"]
                    if r.get("state") == "ready" and r["pid"] not in killed]
            if not pids:
                return False
            killed.append(pids[len(killed) % len(pids)])
            os.kill(killed[-1], signal.SIGKILL)
            return True
        with Load(s.server.port) as load:
            for _ in range(ROUNDS):
                s.server.wait(kill_another, 40)
                time.sleep(0.1)
        same(load.failed[:3], [])
        assert load.count > ROUNDS, load.count
        print(f"# {len(killed)} kills, {load.count} requests, none failed", flush=True)


def unhealthy(io):
    health = {"uri": "/health", "interval": "60ms", "fails": 2}
    with Site(io, [{"name": "a", "replicas": 2, "health": health, "env": {"SICK": "sick-{port}"}}]) as s:
        s.ready("a", 2)
        replica = s.describe()["replicas"][0]
        sick = f"{s.folder}/sick-{replica['port']}"

        def who_answers():
            return {s.server.get()[1].decode().split()[1] for _ in range(20)}
        same(len(who_answers()), 2)
        open(sick, "w").close()
        s.server.wait(lambda: s.describe()["replicas"][0]["state"] == "unhealthy")
        same(str(replica["port"]) in who_answers(), False)
        os.unlink(sick)
        s.ready("a", 2)
        s.server.wait(lambda: str(replica["port"]) in who_answers())
        same(s.describe()["replicas"][0]["pid"], replica["pid"])


def by_command(io):
    health = {"command": ["/bin/sh", "-c", "echo $PORT > asked; test -e well"], "interval": "60ms",
              "fails": 1}
    with Site(io, [{"name": "a", "health": health}], awaited=False) as s:
        s.server.wait(lambda: os.path.exists(f"{s.folder}/asked"), 40)
        same(s.describe()["replicas"][0]["state"], "starting")
        open(f"{s.folder}/well", "w").close()
        s.ready()
        with open(f"{s.folder}/asked", encoding="ascii") as f:
            same(int(f.read()), s.describe()["replicas"][0]["port"])
        os.unlink(f"{s.folder}/well")
        s.server.wait(lambda: s.describe()["replicas"][0]["state"] == "unhealthy")


def server_crash(io):
    with Site(io, [{"name": "a", "replicas": 2}]) as s:
        s.ready("a", 2)
        before = sorted(s.pids())
        old = s.server.server_pid()
        os.kill(old, signal.SIGKILL)
        s.server.wait(lambda: s.server.server_pid() != old and s.server.get()[0] == 200)
        s.ready("a", 2)
        same(sorted(s.pids()), before)


# --- on demand, watch, socket ---

def on_demand(io):
    with Site(io, [{"name": "a", "on_demand": {"idle": "1s"}}], awaited=False) as s:
        s.server.wait(lambda: s.server.api("GET", "/services/a")[0] == 200)
        same(s.pids(), [])
        results = []
        threads = [threading.Thread(target=lambda: results.append(s.server.get()[0]))
                   for _ in range(5)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        same(results, [200] * 5)
        same(s.describe()["starts"], 1)
        s.server.wait(lambda: s.pids() == [])
        c = http.client.HTTPConnection("127.0.0.1", s.server.port, timeout=60)
        c.request("POST", "/", b"x" * 300000)  # its body waits with it
        answer = c.getresponse()
        same((answer.status, answer.read().split()[1]), (200, b"300000"))
        c.close()


def overload(io):
    """A replica that fails is left out until it is another process; connections to replicas are there before they
    are asked for, and keep nothing on demand from stopping."""
    app = APP.replace("    def do_POST", """    def send_response(self, status):
        super().send_response(500 if os.environ["REPLICA"] == "2" else status)
    def do_POST""")

    def proxy(name):
        return {**Site.proxy(name), "load_balancing": {"selection_policy": {"policy": "round_robin"}}, "overload": {
            "eject": {"consecutive_failures": 3, "base_time": "1h", "max_time": "1h"}, "warm_connections": 2}}

    def open_to(port):
        with open("/proc/net/tcp", encoding="ascii") as f:
            return sum(f"0100007F:{port:04X}" == w[1] and w[3] == "01" for w in map(str.split, f))

    services = [{"name": "a", "replicas": 3, "env": {"REPLICA": "{replica}"}},
                {"name": "b", "env": {"REPLICA": "1"}, "on_demand": {"idle": "300ms"}}]
    routes = [{"match": [{"path": ["/b"]}], "handle": [proxy("b")]}, {"handle": [proxy("a")]}]
    with Site(io, services, routes, app, awaited=False) as s:
        s.ready(count=3)
        s.server.wait(lambda: all(open_to(r["port"]) >= 4 for r in s.describe()["replicas"]))
        same(s.describe("b")["starts"], 0)
        same(sorted(s.server.get()[0] for _ in range(30)), [200] * 27 + [500] * 3)
        same(s.server.api("POST", "/services/a/restart")[0], 200)
        s.ready(count=3)
        same(sorted(s.server.get()[0] for _ in range(30)), [200] * 27 + [500] * 3)
        same(s.server.get("/b")[0], 200)
        s.server.wait(lambda: not any(r.get("pid") for r in s.describe("b")["replicas"]))
        same(s.describe("b")["starts"], 1)


def queue(io):
    demand = {"queue": 1, "deadline": "400ms"}
    services = [{"name": "a", "on_demand": demand, "run": ["/bin/sleep", "60"]}]
    with Site(io, services, awaited=False) as s:
        s.server.wait(lambda: s.server.api("GET", "/services/a")[0] == 200)
        results = []

        def ask():
            c = http.client.HTTPConnection("127.0.0.1", s.server.port, timeout=60)
            c.request("GET", "/")
            answer = c.getresponse()
            results.append((answer.status, answer.getheader("Retry-After")))
            c.close()
        threads = [threading.Thread(target=ask) for _ in range(3)]
        begin = time.monotonic()
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        same(results, [(503, "5")] * 3)
        assert 0.3 < time.monotonic() - begin < 25


def watches(io):
    with Site(io, [{"name": "a", "watch": ["."]}]) as s:
        before = s.pids()
        with open(f"{s.folder}/app.py", "a", encoding="utf-8") as f:
            f.write("# changed\n")
        s.server.wait(lambda: s.pids() not in (before, []) and s.describe()["ready"] == 1 and
                      before[0] not in s.pids())
        same(s.server.get()[0], 200)


def watches_anew(io):
    """Folders that are gone leave room for new ones: as many as may be watched come and go."""
    with Site(io, [{"name": "a", "watch": ["."]}]) as s:
        def renewed(change):
            before = s.pids()
            change()
            s.server.wait(lambda: s.describe()["ready"] == 1 and len(s.pids()) == 1 and
                          s.pids() != before, 40)
        many = f"{s.folder}/many"
        def fill():
            for i in range(2100):
                os.makedirs(f"{many}/{i}")
        renewed(fill)
        renewed(lambda: shutil.rmtree(many))
        renewed(lambda: os.mkdir(many))
        renewed(lambda: open(f"{many}/file", "w", encoding="ascii").close())


SOCKET_APP = r'''
import os, signal, socket, sys
assert os.environ["LISTEN_PID"] == str(os.getpid()) and os.environ["LISTEN_FDS"] == "1"
listener = socket.socket(fileno=3)
over = []
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    c, _ = listener.accept()
    c.recv(65536)
    body = str(os.getpid()).encode()
    c.sendall(os.environ.get("STATUS", "HTTP/1.1 200 OK").encode() + b"\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    c.close()
'''


def socket_given(io):
    with Site(io, [{"name": "a", "socket": True}], app=SOCKET_APP) as s:
        pid = int(s.server.get()[1])
        same(s.pids(), [pid])


def socket_stays(io):
    with Site(io, [{"name": "a", "socket": True}], app=SOCKET_APP) as s:
        before = s.pids()
        same(s.server.api("POST", "/services/a/restart"), (200, ""))
        s.server.wait(lambda: not alive(before[0]) and len(s.pids()) == 1)  # both may answer until then
        assert s.pids() != before
        same(s.server.get(), (200, str(s.pids()[0]).encode()))


def socket_broken(io):
    """A new version that ends at once, then one that answers with 503: the last good one goes on."""
    health = {"uri": "/health", "interval": "50ms", "fails": 2}
    service = {"name": "a", "socket": True, "health": health}
    with Site(io, [service], app=SOCKET_APP) as s:
        before = s.pids()
        with Load(s.server.port) as load:
            same(s.load([{**service, "run": ["/bin/false"], "restart": {"delay": "1ms"}}])[0], 200)
            s.server.wait(lambda: s.describe().get("rolled_back"), 40)
        same((load.failed[:3], s.pids()), ([], before))
        same(s.load([service])[0], 200)
        s.server.wait(lambda: not s.describe().get("rolled_back"))
        same(s.pids(), before)
        same(s.load([{**service, "env": {"STATUS": "HTTP/1.1 503 Broken"}}])[0], 200)
        s.server.wait(lambda: s.describe().get("rolled_back"), 40)
        assert "status 503" in s.describe()["last_trouble"], s.describe()
        s.server.wait(lambda: s.server.get()[0] == 200, 40)
        s.ready()
        assert s.pids() != before
        same(s.load([{**service, "env": {"NEW": "1"}}])[0], 200)  # one that is well is kept
        s.server.wait(lambda: s.describe()["ready"] == 1 and len(s.pids()) == 1 and
                      b"NEW=1" in open(f"/proc/{s.pids()[0]}/environ", "rb").read().split(b"\0"), 40)
        same(s.describe().get("rolled_back"), None)


# --- users ---

def as_user(io):
    if os.geteuid() != 0:
        raise Skip("root can give a service another user, nobody else")
    services = [{"name": "a", "user": "nobody", "env": {"VERSION": "{port}"}}]
    with Site(io, services) as s:
        pid = s.pids()[0]
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
        same((status["Uid"].split(), int(status["CapEff"], 16), status["NoNewPrivs"]),
             ([str(pwd.getpwnam("nobody").pw_uid)] * 4, 0, "1"))
        same(s.server.get()[1].split()[2], str(s.describe()["replicas"][0]["port"]).encode())
        guardhouse = parent(parent(pid))
        with open(f"/proc/{guardhouse}/comm", encoding="ascii") as f:
            same(f.read(), "guardhouse\n")
        same(permitted(guardhouse) & (LISTEN | CHOWN | NET_ADMIN | SYS_ADMIN), 0)
        same(permitted(parent(pid)), KILL)


LISTEN, CHOWN, NET_ADMIN, SYS_ADMIN, KILL = 1 << 10, 1, 1 << 12, 1 << 21, 1 << 5


def parent(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        return int(f.read().rsplit(")", 1)[1].split()[1])


def permitted(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(next(x for x in f if x.startswith("CapPrm")).split()[1], 16)


# --- other languages ---

NODE_APP = ("const h=require('http');const s=h.createServer((q,r)=>r.end('node '+process.env.PORT));"
            "s.listen(process.env.PORT, process.env.HOST);"
            "process.on('SIGTERM',()=>s.close(()=>process.exit(0)));")


def node(io):
    if not shutil.which("node"):
        raise Skip("node is not installed")
    services = [{"name": "a", "run": [shutil.which("node"), "-e", NODE_APP]}]
    with Site(io, services) as s:
        same(s.server.get()[1].split()[0], b"node")


def php(io):
    if not shutil.which("php"):
        raise Skip("php is not installed")
    services = [{"name": "a", "run": [shutil.which("php"), "-S", "{host}:{port}", "index.php"]}]
    with Site(io, services, awaited=False) as s:
        with open(f"{s.folder}/index.php", "w", encoding="utf-8") as f:
            f.write("<?php echo 'php ' . PHP_MAJOR_VERSION;")
        s.server.wait(lambda: s.server.get()[1][:4] == b"php ", 40)


# --- the command ---

def command(io):
    with Site(io, [{"name": "a"}]) as s:
        def portico(*words, status=0):
            r = subprocess.run([PORTICO, "service", *words, "--address", f"localhost:{s.server.admin}"],
                               capture_output=True, text=True, timeout=120)
            same((r.returncode, words), (status, words))
            return r.stdout + r.stderr
        out = portico("list")
        assert "ready" in out and str(s.pids()[0]) in out, out
        assert "hello from" in portico("logs", "a")
        portico("restart", "a")
        portico("stop", "a")
        same(s.pids(), [])
        portico("start", "a")
        assert "no service" in portico("stop", "x", status=1)
        assert "which service" in portico("stop", status=1)
        r = subprocess.run([PORTICO, "service", "exec", "--address", f"localhost:{s.server.admin}",
                            "a", "--", "/bin/sh", "-c", "echo $PORT; pwd; exit 7"],
                           capture_output=True, text=True, timeout=120)
        same((r.returncode, r.stdout.split()[1:], r.stderr), (7, [s.folder], ""))


def terminal(io):
    """What a program writes commands no terminal; colours and tabs stay, and a pipe gets it as it is."""
    wrote = r"\x1b[31mred\x1b[0m\t\x1b]0;title\x07 \x1b[2J\x1b[1;3Hend"
    with Site(io, [{"name": "a"}], app=f"print('{wrote}', flush=True)\n" + APP) as s:
        words = [PORTICO, "service", "logs", "--address", f"localhost:{s.server.admin}", "a"]
        same(b"\x1b]0;title\x07" in subprocess.run(words, capture_output=True, timeout=120).stdout, True)
        mine, its = os.openpty()
        subprocess.run(words, stdout=its, timeout=120, check=True)
        os.close(its)
        line = next(line for line in os.read(mine, 65536).split(b"\n") if b"red" in line)
        os.close(mine)
        same(line.split(b"] ", 1)[1].strip(),
             b"\x1b[31mred\x1b[0m\t?]0;title? ?[2J?[1;3Hend\x1b[0m")


CADDYFILE = """{{
	admin localhost:{admin}
	service api {{
		run /usr/bin/python3 app.py
		dir {dir}
		port {port}
		env VERSION from-a-caddyfile
		log {{
			output file {dir}/api.log
		}}
	}}
}}
http://127.0.0.1:{site} {{
	handle /api/* {{
		reverse_proxy service/api
	}}
	handle {{
		respond "none" 404
	}}
}}
"""


def caddyfile(io):
    s = Site(io, [{"name": "a"}])
    with s:
        admin, site, port = free_port(), free_port(), free_port()
        with open(f"{s.folder}/Caddyfile", "w", encoding="utf-8") as f:
            f.write(CADDYFILE.format(admin=admin, site=site, port=port, dir=s.folder))
        p = subprocess.Popen([PORTICO, "run", "--config", f"{s.folder}/Caddyfile"],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             env={**os.environ, "HOME": s.folder, "PORTICO_IO": io})
        try:
            def get(path):
                try:
                    c = http.client.HTTPConnection("127.0.0.1", site, timeout=30)
                    c.request("GET", path)
                    r = c.getresponse()
                    return r.status, r.read().decode()
                except OSError:
                    return 0, ""
                finally:
                    c.close()
            s.server.wait(lambda: get("/api/x")[1].endswith(f"{port} from-a-caddyfile"))
            same(get("/"), (404, "none"))
            def logged():
                with open(f"{s.folder}/api.log", encoding="utf-8") as f:
                    return "hello from" in f.read()
            s.server.wait(logged)
        finally:
            p.send_signal(signal.SIGTERM)
            same(p.wait(60), 0)


class Written:
    """A portico of a Caddyfile with `services` in its global options; {dir} is a folder that all may
    write to, where app.py is; {ports} are for this one alone."""

    def __init__(self, io, services, app=APP, site="reverse_proxy service/a", files=()):
        self.folder = f"/tmp/portico-services-{os.getpid()}-{free_port()}"
        os.mkdir(self.folder)
        os.chmod(self.folder, 0o777)
        for name, text in files:
            os.makedirs(os.path.dirname(f"{self.folder}/{name}"), exist_ok=True)
            self.write(name, text)
        self.admin, self.port, base = free_port(), free_port(), free_port() // 50 * 50
        for name, text in (("app.py", app), ("Caddyfile", f"{{\nadmin localhost:{self.admin}\n{services}\n}}\n"
                                             f"http://127.0.0.1:{self.port} {{\n{site}\n}}\n")):
            self.write(name, text.replace("{dir}", self.folder).replace("{ports}", f"{base}-{base + 40}"))
        self.log = open(f"{self.folder}/log", "wb")
        self.process = subprocess.Popen(
            [PORTICO, "run", "--config", f"{self.folder}/Caddyfile"], stdout=self.log, stderr=self.log,
            env={**os.environ, "HOME": self.folder, "XDG_DATA_HOME": self.folder,
                 "XDG_CONFIG_HOME": self.folder, "PORTICO_IO": io})
        self.wait(lambda: self.describe()["name"] == "a")

    def write(self, name, text):
        with open(f"{self.folder}/{name}", "w", encoding="utf-8") as f:
            f.write(text)

    def read(self, name):
        try:
            with open(f"{self.folder}/{name}", encoding="utf-8", errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def ask(self, port, path, method="GET"):
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            c.request(method, path)
            answer = c.getresponse()
            return answer.status, answer.read().decode()
        finally:
            c.close()

    def get(self, path="/"):
        return self.ask(self.port, path)

    def describe(self, name="a"):
        return json.loads(self.ask(self.admin, f"/services/{name}")[1])

    def replica(self, name="a"):
        return self.describe(name)["replicas"][0]

    def wait(self, condition, seconds=30):
        end = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except (OSError, KeyError, ValueError, http.client.HTTPException):
                pass  # not there yet
            assert self.process.poll() is None and time.monotonic() < end, self.read("log")[-3000:]
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.process.send_signal(signal.SIGTERM)
            same(self.process.wait(60), 0)
            text = self.read("log")
            assert "Sanitizer" not in text and "assertion failed" not in text, text[-6000:]
        finally:
            self.process.kill()
            self.process.wait()
            self.log.close()
            shutil.rmtree(self.folder)


# Tells what it finds, and which signal ends it.
FACTS = r"""
import http.server, json, os, resource, signal, socket
def binds(port):
    with socket.socket() as s:
        try:
            s.bind((os.environ["HOST"], port))
            return True
        except OSError:
            return False
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"files": resource.getrlimit(resource.RLIMIT_NOFILE), "env": dict(os.environ),
                           "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
                           "cwd": os.getcwd(), "binds": [binds(0), binds(int(os.environ["OTHER"]))]}).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
def end(number, _):
    with open("ended", "w") as f:
        f.write(signal.Signals(number).name)
    os._exit(0)
for number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, end)
http.server.HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


def written_block(io):
    """What a block says of its program is what the program finds."""
    user = "user nobody daemon" if os.geteuid() == 0 else ""
    other = free_port()
    with Written(io, f"""service a {{
            run /usr/bin/python3 app.py
            dir {{dir}}
            port {free_port()}
            env {{
                COLOUR red
                OTHER {other}
                SELF {{host}}:{{port}}/{{replica}}
            }}
            env_file {{dir}}/first.env {{dir}}/second.env
            {user}
            limits {{
                files 123
            }}
            stop_signal SIGUSR2
            ready 20s
        }}""", FACTS, files=[("first.env", "COLOUR=blue\nSHAPE=round\n# a remark\n"),
                             ("second.env", "SHAPE='not so'\n")]) as w:
        w.wait(lambda: w.replica()["state"] == "ready")
        w.write("second.env", "SHAPE='not round'\n")  # read at each start
        same(w.ask(w.admin, "/services/a/restart", "POST"), (200, ""))
        facts = json.loads(w.get()[1])
        env = facts["env"]
        same((facts["files"], facts["cwd"], env["COLOUR"], env["SHAPE"]),
             ([123, 123], w.folder, "red", "not round"))
        same((env["SELF"], env["HOST"], "XDG_DATA_HOME" in env),
             (f"127.0.0.1:{env['PORT']}/1", "127.0.0.1", False))
        if user:
            daemon = grp.getgrnam("daemon").gr_gid
            same((facts["uid"], facts["gid"], facts["groups"]),
                 (pwd.getpwnam("nobody").pw_uid, daemon, [daemon]))
        same(w.ask(w.admin, "/services/a/stop", "POST")[0], 200)
        same((w.read("ended"), w.replica()["state"]), ("SIGUSR2", "stopped"))


def written_confine(io):
    other = free_port()
    block = ("service {name} {{\nrun /usr/bin/python3 app.py\ndir {{dir}}\nport {port}\nenv OTHER {other}\n"
             "{more}\n}}\n")
    services = (block.format(name="a", port=free_port(), other=other, more="") +
                block.format(name="b", port=free_port(), other=other, more="confine off"))
    site = "handle /b {\nreverse_proxy service/b\n}\nhandle {\nreverse_proxy service/a\n}"
    with Written(io, services, FACTS, site) as w:
        w.wait(lambda: w.replica("a")["state"] == w.replica("b")["state"] == "ready")
        a, b = json.loads(w.get()[1])["binds"], json.loads(w.get("/b")[1])["binds"]
        same(b, [True, True])
        if "note" in w.replica("a") or "no Landlock" in w.read("log"):
            same(a, [True, True])
            raise Skip("the kernel has no Landlock for ports: told, as it should be")
        same(a, [True, False])


def written_limits(io):
    """Kept where a control group with such a controller is delegated, else refused in a sentence."""
    sorts = {"memory": "256MiB", "cpu": "0.5", "tasks": "64"}
    block = ("service {name} {{\nrun /usr/bin/python3 app.py\ndir {{dir}}\nport {{ports}}\nlimits {{\n{limit}\n}}\n"
             "restart {{\ngive_up 1\n}}\n}}\n")
    services = block.format(name="a", limit="files 64") + "".join(
        block.format(name=name, limit=f"{name} {value}") for name, value in sorts.items())
    with Written(io, services) as w:
        w.wait(lambda: all(w.replica(name)["state"] in ("ready", "gave up") for name in sorts))
        kept = [name for name in sorts if w.replica(name)["state"] == "ready"]
        for name in sorts:
            if name not in kept:
                assert f"limits: {name} is not to be had here: " in w.replica(name)["reason"], w.replica(name)
        for name in kept:
            with open(f"/proc/{w.replica(name)['pid']}/cgroup", encoding="ascii") as f:
                assert "/portico." in f.read()
        w.wait(lambda: w.replica("a")["state"] == "ready")


def written_log(io):
    """A service's own log is rolled by size."""
    chatter = "for i in range(220):\n    print(str(i) * 4000, flush=True)\n" + APP
    with Written(io, """service a {
            run /usr/bin/python3 app.py
            dir {dir}
            port {ports}
            log {
                output file {dir}/logs/a.log {
                    roll_size 1MiB
                    roll_uncompressed
                    roll_keep 2
                }
            }
        }""", chatter) as w:
        rolled = lambda: [n for n in os.listdir(f"{w.folder}/logs") if n != "a.log"]
        w.wait(rolled)
        w.wait(lambda: "hello from" in w.read("logs/a.log"))
        line = json.loads(w.read("logs/a.log").splitlines()[-1])
        same((line["logger"], line["replica"]), ("service.a", 1))
        assert '"logger":"service.a"' not in w.read("log"), "in the default log, too"


def written_restart(io):
    """Policies, longer and longer pauses, the end of patience, what is not ready in time, an order."""
    services = r"""
        service a {
            run /bin/sh -c "date +%s.%N >> tries; exit 5"
            port {ports}
            dir {dir}
            restart {
                delay 40ms
                max_delay 120ms
                give_up 5
            }
        }
        service done {
            run /bin/sh -c "exit 0"
            port {ports}
            restart on-failure {
                delay 1ms
            }
        }
        service never {
            run /bin/sh -c "exit 6"
            port {ports}
            restart never
        }
        service failing {
            run /bin/sh -c "exit 7"
            port {ports}
            restart on-failure {
                delay 1ms
                give_up 2
            }
        }
        service slow {
            run /bin/sleep 600
            port {ports}
            ready 200ms
            restart {
                give_up 1
            }
        }
        service first {
            run /bin/sh -c "sleep 0.2; touch first; exec /usr/bin/python3 app.py"
            port {ports}
            dir {dir}
        }
        service second {
            run /bin/sh -c "ls first > seen; exec /usr/bin/python3 app.py"
            port {ports}
            dir {dir}
            after first
            watch {dir}/watched
        }
    """
    with Written(io, services, files=[("watched/file", "old")]) as w:
        w.wait(lambda: w.replica()["state"] == "gave up")
        tries = [float(t) for t in w.read("tries").split()]
        gaps = [b - a for a, b in zip(tries, tries[1:])]
        same(len(tries), 5)
        assert all(gap >= least - 0.002 for gap, least in zip(gaps, (0.04, 0.08, 0.12, 0.12))), gaps
        assert "exited with status 5" in w.replica()["reason"]
        w.wait(lambda: "reason" in w.replica("done") and "reason" in w.replica("never"))
        same((w.describe("done")["starts"], w.describe("never")["starts"]), (1, 1))
        w.wait(lambda: w.replica("failing")["state"] == "gave up")
        same(w.describe("failing")["starts"], 2)
        w.wait(lambda: w.replica("slow")["state"] == "gave up")
        assert "did not become ready in time" in w.replica("slow")["reason"], w.replica("slow")
        w.wait(lambda: w.replica("second")["state"] == "ready")
        same(w.read("seen"), "first\n")
        before = w.replica("second")["pid"]
        w.write("watched/file", "new")
        w.wait(lambda: w.replica("second")["state"] == "ready" and w.replica("second")["pid"] != before)


def known_to_ports(io):
    """/ports, `portico ports check` and `portico doctor` know whose a port is, and which service is down."""
    services = """
        service a {
            run /usr/bin/python3 app.py
            port {ports}
            dir {dir}
        }
        service down {
            run /bin/sh -c "exit 3"
            port {ports}
            restart {
                delay 1ms
                give_up 2
            }
        }
    """
    site = "handle /a {\nreverse_proxy service/a\n}\nhandle {\nreverse_proxy service/down\n}"
    with Written(io, services, site=site) as w:
        def portico(*words):
            r = subprocess.run([PORTICO, *words, "--address", f"localhost:{w.admin}"], capture_output=True,
                               text=True, timeout=60, check=False, cwd=w.folder,
                               env={**os.environ, "HOME": w.folder, "XDG_DATA_HOME": w.folder})
            return r.stdout + r.stderr
        w.wait(lambda: w.replica()["state"] == "ready" and w.replica("down")["state"] == "gave up")
        port, gone = w.replica()["port"], w.replica("down")["port"]

        def row(number):
            table = json.loads(w.ask(w.admin, "/ports")[1])
            return next(r for r in table["ports"] if r["port"] == number and r["declared"])
        same([o["service"] for o in row(port)["owners"] if o["pid"] == w.replica()["pid"]], ["a"])
        named = [(d["by"], d["name"], os.path.basename(d["file"]), d["line"]) for d in row(port)["declared"]]
        same(named, [("service", "a", "Caddyfile", 4)])
        finding = next(f for f in row(gone)["findings"] if f["name"] == "service-down")
        same((finding["severity"], finding["text"]), ("error", "No replica of the service down answers: gave "
                                                      "up: exited with status 3."))
        assert "service-down" in portico("ports", "check"), portico("ports", "check")
        chain = portico("doctor")
        assert "service a: 1 of 1 replicas ready" in chain, chain
        assert "service down: no replica is ready (gave up: exited with status 3)" in chain, chain
        w.write("broken", "{\n}\n:80 {\nreverse_proxy service/nobody\n}\n")
        r = subprocess.run([PORTICO, "validate", "--config", f"{w.folder}/broken", "--adapter", "caddyfile"],
                           capture_output=True, text=True, timeout=60, check=False)
        assert r.returncode != 0 and "there is no service 'nobody'" in r.stderr, r
        assert "broken:4" in r.stderr, r.stderr


CASES = [
    ("a service starts, is an upstream, and its lines are kept", starts),
    ("a reload leaves a service whose block did not change untouched", untouched, ("epoll",)),
    ("a program that was killed starts again, on the same port", kept_port, ("epoll",)),
    ("ports of services that are gone are kept for a while", gone_ports, ("epoll",)),
    ("what is wrong is refused and changes nothing", refused, ("epoll",)),
    ("a program that ends at once is given up, and 503 is answered", gives_up, ("epoll",)),
    ("a program that is not there is told about", missing_program, ("epoll",)),
    ("services start in their order", in_order, ("epoll",)),
    ("a change rolls over both replicas without a failed request", rolls),
    ("a restart loses no request, not even those under way", restart_loses_nothing),
    ("on a fixed port requests wait while it is restarted", fixed_port),
    ("a port that another program has is told, and no request goes there", port_taken, ("epoll",)),
    ("a new version that does not start leaves the last good one", keeps_the_last_good, ("epoll",)),
    ("stop and start are done when they return", stop_and_start, ("epoll",)),
    ("a service that is gone from the configuration is stopped", removed, ("epoll",)),
    ("replicas are killed under load, and no request fails", kills),
    ("a replica that is unwell gets no requests until it is well", unhealthy, ("epoll",)),
    ("health by a command", by_command, ("epoll",)),
    ("a server that was killed takes the running programs over", server_crash, ("epoll",)),
    ("a service on demand starts at the first request and stops when idle", on_demand),
    ("replicas are ejected, and have open connections before they are asked", overload, ("epoll",)),
    ("beyond the queue and the deadline there is 503 with Retry-After", queue),
    ("a changed file starts it anew", watches, ("epoll",)),
    ("folders that come and go are watched", watches_anew, ("epoll",)),
    ("a socket is handed over", socket_given, ("epoll",)),
    ("a program with a socket is changed over", socket_stays, ("epoll",)),
    ("a new version that breaks on its socket leaves the last good one", socket_broken, ("epoll",)),
    ("a service has the user that it names, and no right of portico's", as_user, ("epoll",)),
    ("node", node, ("epoll",)),
    ("php", php, ("epoll",)),
    ("portico service", command, ("epoll",)),
    ("lines of a service at a terminal", terminal, ("epoll",)),
    ("a Caddyfile's service, with a log of its own", caddyfile, ("epoll",)),
    ("a block's variables, files of them, user, group, limit of files and signal", written_block, ("epoll",)),
    ("a service binds its own port only, unless confine is off", written_confine, ("epoll",)),
    ("limits of memory, cpu and tasks are kept, or refused with a sentence", written_limits, ("epoll",)),
    ("a service's log is rolled", written_log, ("epoll",)),
    ("ports and doctor know whose a port is, and which service is down", known_to_ports, ("epoll",)),
    ("restart, its pauses and its end, ready, after and watch of a Caddyfile", written_restart, ("epoll",)),
]

run_cases(CASES, at_once=2)
