#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The unit under a real systemd, as TAP: one that is process 1 of namespaces that the test makes, above
an overlay of this machine's files, so that nothing outside is touched. Usage: systemd_test.py PORTICO
[TEXT]."""
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from server import Skip, run_cases, same

PORTICO = os.path.abspath(sys.argv[1])
SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SYSTEMD = "/lib/systemd/systemd"
FOLDER = tempfile.mkdtemp(prefix="portico-systemd-")

# Run with namespaces of its own. What a system starts beside its services is left out: the two
# targets that every unit stands on are empty.
BEGIN = r"""set -e
mount --make-rprivate /
ip link set lo up
mount -t tmpfs -o size=1g tmpfs "$1"
mkdir "$1/up" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" overlay "$1/root"
cd "$1/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mkdir -p etc/systemd/system/portico.service.d etc/systemd/system/caddy.service.d
for target in sysinit basic network network-online; do
    rm -rf "etc/systemd/system/$target.target.wants" "etc/systemd/system/$target.target"
    printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' "$target" \
        > "etc/systemd/system/$target.target"
done
printf '[Unit]\nDescription=nothing\nDefaultDependencies=no\n' > etc/systemd/system/bare.target
"$2/packaging/install" "$3" "$1/root" /usr
printf '[Service]\nEnvironment=ASAN_OPTIONS=detect_leaks=0 PORTICO_IO=%s\nWatchdogSec=2\n' "$4" |
    tee etc/systemd/system/portico.service.d/test.conf \
        > etc/systemd/system/caddy.service.d/test.conf
mkdir -p etc/caddy
rm -f usr/bin/caddy
ln -s portico usr/bin/caddy
container=lxc exec chroot . /lib/systemd/systemd --system --unit=bare.target --log-target=null
"""

def own_group(folder):
    """A control group for a machine: its systemd takes what it stands in for the root of all."""
    with open("/proc/self/mounts", encoding="utf-8") as f:
        roots = [line.split()[1] for line in f if line.split()[2] == "cgroup2"]
    if not roots:
        raise Skip("no control groups of version 2 here")
    path = os.path.join(roots[0], os.path.basename(FOLDER) + os.path.basename(folder))
    try:
        os.mkdir(path)
    except OSError as e:
        raise Skip(f"no control group can be made here: {e}") from e
    return path


def remove_group(path):
    for _ in range(100):
        for folder, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        if not os.path.exists(path):
            return
        time.sleep(0.05)


SITE = ":80 {\n\trespond %s\n}\n"
SLOW = """import http.server, time
class Slow(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        open("/tmp/asked", "w").close()
        time.sleep(1)
        self.send_response(200)
        self.send_header("Content-Length", "11")
        self.end_headers()
        self.wfile.write(b"slow answer")
http.server.HTTPServer(("127.0.0.1", 3000), Slow).serve_forever()
"""
CADDY_UNIT = """[Unit]
Description=Caddy
After=network.target network-online.target
Requires=network-online.target
[Service]
Type=notify
User=caddy
Group=caddy
ExecStart=/usr/bin/caddy run --environ --config /etc/caddy/Caddyfile
ExecReload=/usr/bin/caddy reload --config /etc/caddy/Caddyfile --force
TimeoutStopSec=5s
LimitNOFILE=1048576
LimitNPROC=512
PrivateTmp=true
ProtectSystem=full
AmbientCapabilities=CAP_NET_BIND_SERVICE
"""


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        return [int(word) for word in f.read().split()]


class Machine:
    """A systemd of its own with the unit installed and not started."""

    def __init__(self, io):
        if os.geteuid() != 0:
            raise Skip("only root can make such namespaces")
        if not os.path.exists(SYSTEMD) or shutil.which("systemctl") is None:
            raise Skip("systemd is not installed")
        folder = tempfile.mkdtemp(dir=FOLDER)
        self.log = open(f"{folder}.log", "w+", encoding="utf-8")
        self.group = own_group(folder)
        self.outer = subprocess.Popen(
            ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', self.group, "unshare", "--fork", "--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup",
             "--kill-child", "sh", "-c", BEGIN, "begin", folder, SOURCE, PORTICO, io],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        try:
            self.await_systemd()
        except BaseException:
            self.end()
            raise

    def await_systemd(self):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if self.outer.poll() is not None:
                self.log.seek(0)
                raise Skip("a systemd cannot be started here: " + " ".join(self.log.read().split())[-200:])
            below = children(self.outer.pid)
            if below and os.readlink(f"/proc/{below[0]}/exe").endswith("/systemd"):
                self.first = below[0]
                if self.run("systemctl", "is-system-running", status=None).strip() in (
                        "running", "degraded"):
                    self.run("systemd-sysusers")
                    return
            time.sleep(0.05)
        raise Skip("a systemd does not come up here")

    def run(self, *command, status=0, text=None):
        done = subprocess.run(
            ["nsenter", "-t", str(self.first), "--all", f"--root=/proc/{self.first}/root",
             f"--wd=/proc/{self.first}/root", *command], input=text, capture_output=True, text=True,
            check=False, timeout=60)
        out = done.stdout + done.stderr
        assert status is None or done.returncode == status, f"{command}: {done.returncode}\n{out}"
        return out

    def write(self, path, text):
        self.run("sh", "-c", f"cat > {path}", text=text)

    def get(self):
        return self.run("curl", "-s", "-m", "5", "http://127.0.0.1/", status=None)

    def await_answer(self, want):
        end = time.monotonic() + 30
        while (got := self.get()) != want and time.monotonic() < end:
            time.sleep(0.05)
        same(got, want)

    def await_restart(self):
        """Until then the old server may answer."""
        end = time.monotonic() + 30
        while self.show("portico", "NRestarts") == "0" and time.monotonic() < end:
            time.sleep(0.05)

    def show(self, unit, name):
        return self.run("systemctl", "show", "-P", name, unit).strip()

    def end(self):
        for pid in children(self.outer.pid) if self.outer.poll() is None else []:
            os.kill(pid, signal.SIGKILL)  # with it all of its namespace
        self.outer.kill()
        self.outer.wait(10)
        self.log.close()
        remove_group(self.group)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


def serves(io):
    with Machine(io) as m:
        m.write("/etc/portico/Caddyfile", SITE % "one")
        m.run("systemctl", "start", "portico")  # returns when it is ready
        same(m.get(), "one")
        same(m.show("portico", "StatusText"), "serving")
        main = m.show("portico", "MainPID")
        same(m.run("ps", "-o", "user=", "-p", main).strip(), "portico")
        m.write("/etc/portico/Caddyfile", SITE % "two")
        m.run("systemctl", "reload", "portico")
        same(m.get(), "two")
        m.write("/etc/portico/Caddyfile", ":80 {\n\trespnd three\n}\n")
        m.run("systemctl", "reload", "portico", status=1)
        same(m.get(), "two")
        same(m.show("portico", "ActiveState"), "active")
        same(m.show("portico", "MainPID"), main)
        group = "/sys/fs/cgroup" + m.show("portico", "ControlGroup")
        m.run("systemctl", "stop", "portico")
        same(m.show("portico", "Result"), "success")
        same(m.run("sh", "-c", f"cat {group}/cgroup.procs 2>/dev/null || true"), "")


def comes_back(io):
    with Machine(io) as m:
        m.write("/etc/portico/Caddyfile", SITE % "one")
        m.run("systemctl", "start", "portico")
        main = m.show("portico", "MainPID")
        server = m.run("pgrep", "-P", main).split()[0]
        m.run("kill", "-9", server)  # the keeper starts another
        m.await_answer("one")
        same(m.show("portico", "MainPID"), main)
        m.run("kill", "-9", main)  # systemd starts another
        m.await_restart()
        m.await_answer("one")
        same(m.show("portico", "NRestarts"), "1")


def watched(io):
    with Machine(io) as m:
        m.write("/etc/portico/Caddyfile", SITE % "one")
        m.run("systemctl", "start", "portico")
        main = m.show("portico", "MainPID")
        m.run("kill", "-STOP", m.run("pgrep", "-P", main).split()[0])
        m.await_restart()
        m.await_answer("one")
        same(m.show("portico", "NRestarts"), "1")


def as_caddy(io):
    with Machine(io) as m:
        m.run("useradd", "--system", "--home-dir", "/var/lib/caddy", "--create-home", "caddy",
              status=None)
        m.write("/etc/caddy/Caddyfile", SITE % "caddy")
        m.write("/etc/systemd/system/caddy.service", CADDY_UNIT)
        m.run("systemctl", "daemon-reload")
        m.run("systemctl", "start", "caddy")
        same(m.get(), "caddy")
        m.write("/etc/caddy/Caddyfile", SITE % "again")
        m.run("systemctl", "reload", "caddy")
        same(m.get(), "again")
        same(m.run("ps", "-o", "user=", "-p", m.show("caddy", "MainPID")).strip(), "caddy")
        m.write("/etc/caddy/Caddyfile", ":80 {\n\treverse_proxy 127.0.0.1:3000\n}\n")
        m.write("/tmp/slow.py", SLOW)
        m.run("systemctl", "reload", "caddy")
        m.run("systemd-run", "--unit=slow", "--property=Type=exec", "--property=DefaultDependencies=no",
              "/usr/bin/python3", "/tmp/slow.py")
        m.run("sh", "-c", "until ss -ltn | grep -q :3000; do sleep 0.05; done")
        m.run("sh", "-c", "curl -s -m 20 http://127.0.0.1/ > /tmp/answer & until test -e /tmp/asked;"
              " do sleep 0.05; done; systemctl stop caddy; wait")  # all of the unit gets SIGTERM
        same(m.run("cat", "/tmp/answer"), "slow answer")
        same(m.show("caddy", "Result"), "success")


RULES = "flush ruleset\ntable inet theirs {\n}\n"


def keeps_ports(io):
    """`systemctl restart nftables` flushes the whole ruleset: portico-ports follows it."""
    if shutil.which("nft") is None or not os.path.exists("/lib/systemd/system/nftables.service"):
        raise Skip("nftables is not installed")
    with Machine(io) as m:
        tables = lambda: set(m.run("nft", "list", "tables").split("\n")) - {""}
        both = {"table inet theirs", "table inet portico"}
        m.write("/etc/nftables.conf", RULES)
        m.write("/etc/portico/Caddyfile", "{\n\tports {\n\t\t80 world\n\t\tothers device\n\t}\n}\n")
        m.run("mkdir", "-p", "/etc/systemd/system/portico-ports.service.d")
        m.write("/etc/systemd/system/portico-ports.service.d/test.conf",
                "[Service]\nEnvironment=ASAN_OPTIONS=detect_leaks=0\n")
        m.run("systemctl", "daemon-reload")
        m.run("systemctl", "enable", "portico-ports")
        m.run("systemctl", "start", "nftables")  # and with it what wants to stand behind it
        m.run("systemctl", "start", "portico-ports")
        same(tables(), both)
        for verb in ("restart", "reload", "restart"):
            m.run("systemctl", verb, "nftables")
            m.run("sh", "-c", "until test -z \"$(systemctl list-jobs --no-legend)\"; do sleep 0.05; done")
            same((verb, tables()), (verb, both))
        same(m.show("portico-ports", "ActiveState"), "active")
        m.run("systemctl", "stop", "nftables")
        same(tables(), set())
        m.run("systemctl", "start", "nftables")
        m.run("sh", "-c", "until test -z \"$(systemctl list-jobs --no-legend)\"; do sleep 0.05; done")
        same(tables(), both)
        m.run("systemctl", "stop", "portico-ports")
        same(tables(), {"table inet theirs"})


APP = """import http.server, os, subprocess
if os.fork() == 0:  # a daemon
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "7777"])
    os._exit(0)
class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
http.server.HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), App).serve_forever()
"""
NODE = """let add = (a, b) => a + b, sum = 0;
for (let i = 0; i < 1e6; i++) sum = add(sum, 1);  // until it is compiled: memory is written, then executed
require("http").createServer((q, r) => r.end("node " + sum)).listen(process.env.PORT, process.env.HOST);
"""


def runs_services(io):
    """Programs bear the unit's hardening, and go with it, whatever ends it."""
    with_node = shutil.which("node") is not None
    with Machine(io) as m:
        m.run("sh", "-c", "mkdir -p /srv && chmod 755 /srv")
        m.write("/srv/app.py", APP)
        m.write("/srv/app.js", NODE)
        node = "service js {\nrun node /srv/app.js\nport 3001\n}\n" if with_node else ""
        site = "handle /js {\nreverse_proxy service/js\n}\n" if with_node else ""
        m.write("/etc/portico/Caddyfile", "{\nservice web {\nrun /usr/bin/python3 /srv/app.py\nport 3000\n}\n"
                f"{node}}}\n:80 {{\n{site}handle {{\nreverse_proxy service/web\n}}\n}}\n")
        m.run("systemctl", "start", "portico")

        def pid_of(before=""):
            end = time.monotonic() + 60
            while (got := m.get()) in ("", before) or not got.isdigit():
                assert time.monotonic() < end, (got, m.run("journalctl", "-n", "50", status=None))
                time.sleep(0.05)
            return got
        daemons = lambda: m.run("pgrep", "-fx", "sleep 7777", status=None).split()
        first = pid_of()
        same(m.run("ps", "-o", "user=", "-p", first).strip(), "portico")
        status = dict(line.split(":\t", 1) for line in m.run("cat", f"/proc/{first}/status").split("\n") if ":\t" in line)
        same((status["NoNewPrivs"], status["Seccomp"], int(status["CapEff"], 16)), ("1", "2", 0))
        group = m.show("portico", "ControlGroup")
        assert f"{group}/portico." in m.run("cat", f"/proc/{first}/cgroup"), m.run("cat", f"/proc/{first}/cgroup")
        if with_node:
            same(m.run("curl", "-s", "-m", "30", "http://127.0.0.1/js"), "node 1000000")
        old = daemons()
        same(len(old), 1)
        m.run("systemctl", "reload", "portico")
        same((pid_of(), daemons()), (first, old))
        m.run("systemctl", "kill", "-s", "KILL", "--kill-who=main", "portico")
        second = pid_of(first)
        end = time.monotonic() + 30
        while m.run("ps", "-o", "pid=", "-p", f"{first},{old[0]}", status=None).strip() and time.monotonic() < end:
            time.sleep(0.05)
        same((m.run("ps", "-o", "pid=", "-p", f"{first},{old[0]}", status=None).strip(), len(daemons())), ("", 1))
        same(m.show("portico", "NRestarts"), "1")
        m.run("systemctl", "stop", "portico")
        same((m.show("portico", "Result"), daemons()), ("success", []))
        same(m.run("ps", "-o", "pid=", "-p", second, status=None).strip(), "")
        same(m.run("sh", "-c", f"ls -d /sys/fs/cgroup{group}/portico.* 2>/dev/null || true"), "")


try:
    run_cases([("services bear the unit's hardening, node's, too, and end with it", runs_services, ("epoll",)),
               ("portico-ports comes back behind a restart and a reload of nftables", keeps_ports,
                ("epoll",)),
               ("the unit starts, is ready, reloads, refuses a mistake, and leaves nothing", serves),
               ("a server that is killed is replaced by the keeper, a keeper by systemd", comes_back,
                ("epoll",)),
               ("systemd ends a server that hangs, by the watchdog", watched, ("epoll",)),
               ("Debian's unit of caddy runs it, with one link changed", as_caddy, ("epoll",))], at_once=2)
finally:
    shutil.rmtree(FOLDER, ignore_errors=True)
