#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The commands about ports, as TAP: the ledger as table, CSV, JSON and SARIF, findings and exit
statuses, free ports, the log, the doctor, and what a running server tells of them.
Usage: ports_test.py PORTICO. Ports are free ones that the kernel names; everything started is ended."""
import contextlib
import csv
import http.client
import io
import json
import os
import pty
import queue
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
from server import Skip, free_port, has, run_tests, same  # noqa: E402 (beside this file)

PORTICO = os.path.abspath(sys.argv[1])
ROW = {"port", "protocol", "family", "address", "namespace", "reach", "reach_from", "owners", "iana",
       "declared", "findings"}


class Place:
    """A folder with its own HOME, listeners of its own, and what runs in it."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="portico-ports-")
        self.path = self.folder.name
        os.chmod(self.path, 0o755)
        self.env = dict(os.environ, HOME=self.path, PORTICO_WORKERS="1", CADDY_ADMIN="unix//nowhere/x")
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "NOTIFY_SOCKET", "COLUMNS", "NO_COLOR"):
            self.env.pop(name, None)
        self.sockets, self.started = [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for s in self.sockets:
            s.close()
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.folder.cleanup()

    def listen(self, host="127.0.0.1", kind=socket.SOCK_STREAM, port=0):
        s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
        s.bind((host, port))
        if kind == socket.SOCK_STREAM:
            s.listen(5)
        self.sockets.append(s)
        return s.getsockname()[1]

    def write(self, name, text):
        with open(os.path.join(self.path, name), "w", encoding="utf-8") as f:
            f.write(text)

    def run(self, *arguments, status=0, **env):
        done = subprocess.run([PORTICO, *arguments], cwd=self.path, env=dict(self.env, **env),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=120, check=False)
        assert "Sanitizer" not in done.stderr, done.stderr
        assert done.returncode == status, f"{arguments}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout, done.stderr

    def ports(self, *arguments, status=0, **env):
        """A subcommand's name comes first."""
        first = arguments[:1] if arguments and arguments[0].isalpha() else ()
        return self.run("ports", *first, "--this-namespace", *arguments[len(first):], status=status, **env)

    def json(self, *arguments):
        return json.loads(self.ports(*arguments, "--json")[0])

    def findings(self, *arguments, status=1):
        table = json.loads(self.ports("check", "--format", "json", *arguments, status=status)[0])
        return {(r["port"], f["name"], f["severity"]): f["text"] for r in table["ports"]
                for f in r["findings"]}

    def spawn(self, *arguments, **env):
        with open(os.path.join(self.path, "log"), "w+b") as log:
            process = subprocess.Popen([PORTICO, *arguments], cwd=self.path, env=dict(self.env, **env),
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        self.started.append(process)
        return process

    def log(self):
        with open(os.path.join(self.path, "log"), encoding="utf-8", errors="replace") as f:
            return f.read()


def wait(condition, seconds=40):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            got = condition()
            if got:
                return got
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError("not reached in time")


def contract():
    with Place() as p:
        tcp, udp = p.listen(), p.listen(kind=socket.SOCK_DGRAM)
        table = p.json(str(tcp), str(udp))
        same(set(table), {"host", "time", "complete", "ports"})
        same(table["host"], socket.gethostname())
        assert time.strptime(table["time"], "%Y-%m-%dT%H:%M:%SZ")
        row = {r["protocol"]: r for r in table["ports"]}
        for r in table["ports"]:
            same(set(r), ROW)
            same(set(r["iana"]), {"name", "description", "class"})
        same((row["tcp"]["port"], row["udp"]["port"]), (tcp, udp))
        same((row["tcp"]["address"], row["tcp"]["family"], row["tcp"]["reach"]),
             ("127.0.0.1", "ip4", "device"))
        same(row["tcp"]["namespace"], None)
        owner = row["tcp"]["owners"][0]
        same(set(owner), {"pid", "program", "user", "unit", "container", "service"})
        same(owner["pid"], os.getpid())
        has(owner["program"], "python3")


def rarer_protocols():
    """A listener each of SCTP, one to one and one to many, of DCCP and UDP-Lite."""
    kinds = {"sctp": (socket.SOCK_STREAM, 132), "sctp, many": (socket.SOCK_SEQPACKET, 132), "dccp": (6, 33),
             "udplite": (socket.SOCK_DGRAM, 136)}
    with Place() as p:
        wanted = set()
        for name, (kind, protocol) in kinds.items():
            try:
                s = socket.socket(socket.AF_INET, kind, protocol)
            except OSError:
                continue
            p.sockets.append(s)
            s.bind(("127.0.0.1", 0))
            if name == "dccp":
                s.setsockopt(269, 2, b"\1\0\0\0")  # its service code, without which nothing listens
            if name != "udplite":
                s.listen()
            wanted.add((name.split(",")[0], s.getsockname()[1]))
        if not wanted:
            raise Skip("this kernel has none of them")
        rows = p.json(*[str(port) for _, port in wanted])["ports"]
        same({(r["protocol"], r["port"]) for r in rows}, wanted)
        same({(r["address"], r["reach"], r["owners"][0]["pid"]) for r in rows}, {("127.0.0.1", "device", os.getpid())})
        if len(wanted) < len(kinds):
            raise Skip(f"this kernel has only {sorted({name for name, _ in wanted})}: those are told")


def table_text():
    with Place() as p:
        port = p.listen()
        text = p.ports(str(port))[0]
        has(text, "PORT", "PROTO", "REACH", "OWNER", f"{port}  tcp", "127.0.0.1", "device", str(os.getpid()),
            "1 row")
        assert "\033" not in text
        wide = p.ports(str(port), COLUMNS="200")[0].splitlines()
        narrow = p.ports(str(port), COLUMNS="40")[0].splitlines()
        assert max(map(len, narrow[:-1])) <= 40, narrow
        assert len(wide[0]) > len(narrow[0])
        same(p.ports(str(port), "udp")[0].splitlines()[-1], "0 rows")
        has(p.ports("device", str(port))[0], str(port))
        has(p.ports("python", str(port))[0], str(port))
        has(p.run("ports", "--json", "--csv", status=1)[1], "exclude each other")


def on_terminal(p, *arguments, **env):
    """What it prints to a terminal."""
    env = {**p.env, "TERM": "xterm", **env}
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(p.path)
        os.execve(PORTICO, [PORTICO, *arguments], env)
    text = b""
    try:
        while chunk := os.read(fd, 65536):
            text += chunk
    except OSError:
        pass
    os.close(fd)
    os.waitpid(pid, 0)
    return text.decode()


def colours():
    with Place() as p:
        port = str(p.listen())
        has(on_terminal(p, "ports", port, "--this-namespace"), "\033[32m", port)
        assert "\033" not in on_terminal(p, "ports", port, "--this-namespace", NO_COLOR="1")
        assert "\033" not in on_terminal(p, "ports", port, "--this-namespace", TERM="dumb")


def comma_separated():
    with Place() as p:
        port = p.listen("::1")
        rows = list(csv.DictReader(io.StringIO(p.ports(str(port), "--csv")[0])))
        same(len(rows), 1)
        same((rows[0]["port"], rows[0]["protocol"], rows[0]["address"], rows[0]["family"], rows[0]["pid"]),
             (str(port), "tcp", "::1", "ip6", str(os.getpid())))


def caddyfile(p, listener, missing, declared=""):
    p.write("Caddyfile", f"""{{
	admin off
	{declared}
}}
http://localhost:{listener} {{
	reverse_proxy localhost:{missing}
}}
""")


def checks():
    with Place() as p:
        here, free, gone = p.listen(), free_port(), free_port()
        caddyfile(p, free, gone)
        found = p.findings()
        has(found[(gone, "upstream-missing", "error")], f"Nobody listens on port {gone}", "Caddyfile:6")
        has(found[(free, "nobody-listens", "warning")], f"http://localhost:{free} (Caddyfile:5)")
        caddyfile(p, free, here)
        assert (here, "upstream-missing", "error") not in p.findings("--config", "Caddyfile")
        p.ports("check", "--severity", "error", "--config", "Caddyfile", str(free))
        p.ports("check", "--config", "Caddyfile", str(free), status=1)
        has(p.ports("check", str(here))[0], "No findings")
        has(p.run("ports", "check", "--severity", "bad", status=1)[1], "info, warning or error")
        caddyfile(p, here, here)
        held = p.findings(str(here))
        has(held[(here, "other-program", "error")], "belongs to the site", f"pid {os.getpid()}")


def sarif():
    with Place() as p:
        gone = free_port()
        caddyfile(p, free_port(), gone)
        log = json.loads(p.ports("check", "--format", "sarif", status=1)[0])
        same(log["version"], "2.1.0")
        run = log["runs"][0]
        rules = {r["id"] for r in run["tool"]["driver"]["rules"]}
        result = next(r for r in run["results"] if r["ruleId"] == "upstream-missing")
        same(result["level"], "error")
        place = result["locations"][0]["physicalLocation"]
        same((place["artifactLocation"]["uri"], place["region"]["startLine"]), ("Caddyfile", 6))
        assert all(r["ruleId"] in rules for r in run["results"])


def explains():
    with Place() as p:
        port = p.listen()
        caddyfile(p, free_port(), port)
        text = p.ports("explain", str(port))[0]
        has(text, f"Port {port}", "tcp 127.0.0.1", f"pid {os.getpid()}", "Caddyfile:6", "IANA")
        has(p.ports("explain", "443/tcp")[0], "HTTPS: the web, encrypted")
        has(p.run("ports", "explain", "x", status=1)[1], "not a port")
        has(p.run("ports", "explain", status=1)[1], "a port is wanted")


def registry():
    with Place() as p:
        has(p.run("ports", "iana", "ssh")[0], "22 ", "tcp udp", "The Secure Shell")
        has(p.run("ports", "iana", "161/udp")[0], "snmp")
        has(p.run("ports", "iana", "http*")[0], "http-alt", "https")
        has(p.run("ports", "iana", "4")[0], "assigned to nobody")
        p.run("ports", "iana", "no-such-name-at-all", status=1)
        p.run("ports", "iana", status=1)


def free_ports():
    with Place() as p:
        first = int(p.ports("free", "--near", "20000")[0])
        p.listen(port=first)
        five = [int(n) for n in p.ports("free", "--near", "20000", "--count", "5")[0].split()]
        same(len(set(five)), 5)
        assert first not in five and all(abs(n - 20000) < 2000 for n in five), five
        p.write("Caddyfile", f"{{\n\tports {{\n\t\t{five[0]} device\n\t}}\n}}\n")
        assert five[0] not in map(int, p.ports("free", "--near", "20000", "--count", "5")[0].split())
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as f:
            low, high = map(int, f.read().split())
        near = int(p.ports("free", "--near", str((low + high) // 2))[0])
        assert not low <= near <= high, near


def remembers():
    with Place() as p:
        p.ports()
        port = p.listen()
        p.ports()
        p.sockets.pop().close()
        log = [c for c in json.loads(p.ports("log", "--json")[0]) if c["port"] == port]
        same([c["change"] for c in log], ["opened", "closed"])
        has(p.ports("log")[0], "opened", "closed", f"{port}/tcp")
        same(p.ports("log", "--count", "1")[0].count("\n"), 1)


def watches():
    with Place() as p:
        watch = subprocess.Popen([PORTICO, "ports", "watch", "--json", "--this-namespace", "--interval", "50"],
                                 cwd=p.path, env=p.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 text=True)
        p.started.append(watch)
        seen = queue.Queue()  # read by a thread: what others open and close comes in between
        threading.Thread(target=lambda: [seen.put(json.loads(line)) for line in watch.stdout],
                         daemon=True).start()

        def await_change(port, what, seconds):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                with contextlib.suppress(queue.Empty):
                    change = seen.get(timeout=0.1)
                    if (change["port"], change["change"]) == (port, what):
                        return True
            return False

        port = p.listen()
        for _ in range(20):  # the first ones may have been there at its first look
            if await_change(port, "opened", 1):
                break
            port = p.listen()
        p.sockets.pop().close()
        assert await_change(port, "closed", 20), "no word of the port that was closed"
        watch.send_signal(signal.SIGINT)
        same(watch.wait(60), 0)
        watch.stdout.close()


def option_errors():
    with Place() as p:
        for line, sentence in (("80", "world, device, nobody, or from PREFIXES"),
                               ("80 wrold", "did you mean 'world'"), ("0 world", "neither a port"),
                               ("othrs device", "did you mean 'others'"),
                               ("80 from 1.2.3.4.5", "neither an address nor a prefix")):
            p.write("Caddyfile", f"{{\n\tports {{\n\t\t{line}\n\t}}\n}}\n")
            has(p.run("adapt", status=1)[1], sentence, "Caddyfile:3")
        p.write("Caddyfile", "{\n\tports {\n\t\t80 443 tcp web world\n\t\t22 from 10.0.0.0/8\n"
                             "\t\tothers nobody\n\t}\n}\n")
        same(json.loads(p.run("adapt")[0])["apps"]["ports"],
             {"declarations": [{"ports": ["80", "443"], "protocol": "tcp", "name": "web", "reach": "world"},
                               {"ports": ["22"], "reach": "network", "from": ["10.0.0.0/8"]}],
              "others": "nobody"})
        p.run("validate")
        has(p.run("ports", "apply", "--config", "none", status=1)[1], "none")


def option_conflicts():
    port = free_port()
    service = f"\tservice %s {{\n\t\trun true\n\t\tport {port}\n\t}}\n"
    declared = f"\tports {{\n\t\t{port} %s\n\t}}\n"
    cases = (
        (declared % "device" + "}" + f"\nhttp://:{port} {{\n}}\n",
         (f"site http://:{port} (Caddyfile:6) listens on port {port} of every address",
          f"the declaration of port {port} (Caddyfile:3) says that only this device")),
        (declared % "nobody" + service % "a" + "}\n",
         ("service a (Caddyfile:5) listens", "(Caddyfile:3) says that nobody")),
        (declared % "nobody" + f"\tadmin localhost:{port}\n}}\n",
         ("the admin API (Caddyfile:5) listens", "(Caddyfile:3) says that nobody")),
        (declared % "world" + declared.replace(str(port), f"{port - 1}-{port + 1}") % "device" + "}\n",
         (f"Caddyfile:6: port {port} (tcp) is declared already at Caddyfile:3",)),
        (declared % "world" + service % "a" + service % "b" + "}\n",
         (f"port {port} is wanted twice", "service a (Caddyfile:5)", "service b (Caddyfile:9)")),
        (declared % "world" + service % "a" + f"}}\nhttp://:{port} {{\n}}\n",
         (f"site http://:{port} (Caddyfile:10) and the service a (Caddyfile:5) both want port {port}",)),
        (f"\tports {{\n\t\t{port} world {{\n\t\t}}\n\t}}\n}}\n", ("has no block", "Caddyfile:3")),
    )
    with Place() as p:
        for text, sentences in cases:
            p.write("Caddyfile", "{\n" + text)
            for command in (("validate",), ("run",), ("reload",), ("ports", "apply", "--dry-run")):
                has(p.run(*command, "--config", "Caddyfile", status=1)[1], *sentences)


def loads_tell_lines():
    with Place() as p:
        admin, port = free_port(), free_port()
        text = f"{{\n\tadmin localhost:{admin}\n\tports {{\n\t\t{port} device\n\t}}\n}}\n"
        p.write("Caddyfile", text)
        p.spawn("run")
        wait(lambda: ask(admin, "/config/")[0] == 200)
        link = http.client.HTTPConnection("127.0.0.1", admin, timeout=60)
        link.request("POST", "/load", text + f"http://:{port} {{\n}}\n", {"Content-Type": "text/caddyfile"})
        answer = link.getresponse()
        same(answer.status, 400)
        has(answer.read().decode(), "Caddyfile:7) listens", "Caddyfile:4) says")
        link.close()


def ask(admin, path):
    link = http.client.HTTPConnection("127.0.0.1", admin, timeout=60)
    link.request("GET", path)
    answer = link.getresponse()
    return answer.status, answer.read().decode()


def origins_stay():
    with Place() as p:
        admin, port = free_port(), free_port()
        text = f"{{\n\tadmin localhost:{admin}\n}}\nhttp://localhost:{port} {{\n}}\n"
        lines = lambda: [(o["path"], o["line"]) for o in json.loads(ask(admin, "/ports/origins")[1])
                         if o["path"] != "admin"]
        p.write("Caddyfile", f"{{\n\tadmin localhost:{admin}\n}}\n")
        p.spawn("run")
        wait(lambda: ask(admin, "/config/")[0] == 200)
        # As JSON, so that the lines are only known once the file has been read by the server.
        p.write("Caddyfile", text)
        p.run("reload", "--config", "Caddyfile")
        want = [(f"listen :{port}", 4)]
        same(lines(), want)
        p.write("Caddyfile", "# another line\n" + text)
        link = http.client.HTTPConnection("127.0.0.1", admin, timeout=60)
        link.request("POST", "/adapt", "\n\n" + text, {"Content-Type": "text/caddyfile"})
        same(link.getresponse().status, 200)
        link.close()
        same(lines(), want)
        # A file that says something else when it is asked for is read once for this configuration.
        other = text.replace(f"localhost:{port} {{", f"localhost:{port} {{\n\trespond hello")
        p.write("Caddyfile", other)
        p.run("reload", "--config", "Caddyfile")
        p.write("Caddyfile", ":80\n")
        same(lines(), [])
        p.write("Caddyfile", other)
        same(lines(), [])
        p.run("reload", "--config", "Caddyfile")
        same(lines(), want)


def server_tells():
    with Place() as p:
        admin, site, gone = free_port(), free_port(), free_port()
        text = (f"{{\n\tadmin localhost:{admin}\n\tports {{\n\t\t{site} device\n\t}}\n}}\n"
                f"http://localhost:{site} {{\n\tbind 127.0.0.1\n\treverse_proxy localhost:{gone}\n}}\n")
        p.write("Caddyfile", text)
        p.spawn("run")
        wait(lambda: ask(admin, "/config/")[0] == 200)
        status, body = ask(admin, "/ports")
        same(status, 200)
        table = json.loads(body)
        row = next(r for r in table["ports"] if r["port"] == site)
        same({(d["by"], d["name"], d["file"], d["line"]) for d in row["declared"]},
             {("site", f"http://localhost:{site}", "Caddyfile", 7), ("ports", None, "Caddyfile", 4)})
        assert any(o["program"] == os.path.basename(PORTICO) for o in row["owners"]), row
        has(json.dumps(next(r for r in table["ports"] if r["port"] == gone)), "upstream-missing",
            "Caddyfile:9")
        metrics = ask(admin, "/metrics")[1]
        has(metrics, 'portico_ports{protocol="tcp",reach="device"}',
            'portico_ports_findings{severity="error"}', "portico_ports_complete")
        same(ask(admin, "/ports/nothing")[0], 404)
        # The commands take what runs from the server, and where it came from.
        mine = {"CADDY_ADMIN": f"localhost:{admin}"}
        os.rename(os.path.join(p.path, "Caddyfile"), os.path.join(p.path, "Elsewhere"))
        has(p.ports("explain", str(site), **mine)[0], "Caddyfile:7", "Caddyfile:4")
        # A reload sends JSON; the file that it came from is adapted again to know its lines.
        p.write("Second.caddyfile", "# one line more\n" + text.replace("reverse_proxy", "respond ok #"))
        p.run("reload", "--config", "Second.caddyfile", "--adapter", "caddyfile", **mine)
        wait(lambda: "static_response" in ask(admin, "/config/")[1])
        has(p.ports("explain", str(site), **mine)[0], "Second.caddyfile:8", "Second.caddyfile:5")


def shakes(port):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("localhost", port), timeout=30) as raw:
        with context.wrap_socket(raw, server_hostname="localhost") as tls:
            return tls.version()


def doctor_tls():
    with Place() as p:
        admin, site = free_port(), free_port()
        p.write("Caddyfile", f"{{\n\tadmin localhost:{admin}\n\tskip_install_trust\n"
                             f"\tauto_https disable_redirects\n}}\n"
                             f"https://localhost:{site} {{\n\ttls internal\n\trespond ok\n}}\n")
        p.spawn("run")
        wait(lambda: ask(admin, "/config/")[0] == 200)

        wait(lambda: shakes(site))
        told = json.loads(p.run("doctor", "localhost", "--this-namespace", "--json",
                                CADDY_ADMIN=f"localhost:{admin}")[0])
        links = {link["name"]: link for link in told["sites"][0]["links"]}
        same((links["TLS"]["state"], links["route"]["state"]), ("note", "ok"))
        has(links["TLS"]["text"], "is not trusted here")
        has(links["route"]["text"], "200")


def doctor():
    with Place() as p:
        admin, site, gone = free_port(), free_port(), free_port()
        p.write("Caddyfile", f"{{\n\tadmin localhost:{admin}\n}}\nhttp://localhost:{site} {{\n"
                             f"\treverse_proxy /api localhost:{gone}\n\trespond ok\n}}\n")
        text = p.run("doctor", "--this-namespace", status=1)[0]
        has(text, f"http://localhost:{site}", "broken", f"nobody listens on port {site}", "→ Start portico")
        p.spawn("run")
        wait(lambda: ask(admin, "/config/")[0] == 200)
        told = json.loads(p.run("doctor", "localhost", "--this-namespace", "--json", status=1,
                                CADDY_ADMIN=f"localhost:{admin}")[0])
        links = {link["name"]: link for link in told["sites"][0]["links"]}
        same((links["DNS"]["state"], links["port"]["state"], links["route"]["state"]), ("ok", "ok", "ok"))
        has(links["route"]["text"], "200")
        same(links["upstream"]["state"], "broken")
        has(links["upstream"]["text"], f"localhost:{gone}", "Connection refused")
        assert {"limits", "clock", "io_uring"} <= {link["name"] for link in told["machine"]}
        p.listen(port=gone)
        p.run("doctor", "localhost", "--this-namespace", CADDY_ADMIN=f"localhost:{admin}")
        has(p.run("doctor", "other.example", "--config", "Caddyfile", status=1)[1], "no such site")


def without_root():
    if os.geteuid() != 0:
        raise Skip("nobody but root becomes another user")
    with Place() as p:
        port = p.listen()
        done = subprocess.run([PORTICO, "ports", str(port), "--json", "--this-namespace"], cwd="/",
                              env=dict(p.env, HOME="/nonexistent"), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=120, check=False,
                              user=65534, group=65534, extra_groups=[])
        same(done.returncode, 0)
        table = json.loads(done.stdout)
        same(table["complete"], False)
        same(table["ports"][0]["port"], port)
        assert all(o["pid"] != os.getpid() for o in table["ports"][0]["owners"]), table
        has(done.stderr, "Not seen: ")


TESTS = (
    ("ports --json: the contract's members, and whose a port is", contract),
    ("ports: SCTP, DCCP and UDP-Lite, where the kernel has them", rarer_protocols),
    ("ports: a table that fits its terminal, and words that choose rows", table_text),
    ("ports: colours on terminals only, and not where they are not wanted", colours),
    ("ports --csv: a line a port", comma_separated),
    ("ports check: findings with their lines, and its exit status", checks),
    ("ports check --format sarif: at the line of the Caddyfile", sarif),
    ("ports explain: sentences", explains),
    ("ports iana: by name and by number", registry),
    ("ports free: unused, undeclared, out of the dynamic range", free_ports),
    ("ports log: what changed from look to look", remembers),
    ("ports watch: a line for each change, until it is interrupted", watches),
    ("the option ports: its JSON, its errors with their lines", option_errors),
    ("conflicts are refused by every command, with both lines", option_conflicts),
    ("conflicts of a Caddyfile that is loaded by the admin API are told with both lines", loads_tell_lines),
    ("where a running configuration was written stays known, and its file is read once", origins_stay),
    ("a running server tells its ledger and where it was declared, and metrics", server_tells),
    ("doctor: the chain of a site", doctor),
    ("doctor: a certificate that is not trusted is told of, and the route behind it", doctor_tls),
    ("without root it says what it could not see", without_root),
)


if __name__ == "__main__":
    sys.exit(run_tests(TESTS) > 0)
